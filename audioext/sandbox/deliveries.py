"""Sends webhooks: in order, signed, retried on failure, and with the task's faults applied."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping

import aiohttp
import msgspec
from attrs import define
from yarl import URL

from audioext.sandbox.faults import FaultKind
from audioext.sandbox.models import Callback, CallbackAttempt, Task
from audioext.sandbox.settings import SandboxSettings

HTTP_OK = 200
HTTP_SUCCESSES = range(200, 300)
UNREACHABLE_DOMAIN = ".invalid"  # RFC 2606: names under it never resolve; clients without a receiver give one


def sign(key: str, task_id: str, timestamp: str) -> str:
    """Sign a webhook as kie.ai does: standard Base64 of HMAC-SHA256 over ``task_id.timestamp``.

    https://docs.kie.ai/common-api/webhook-verification
    """
    digest = hmac.digest(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256)
    return base64.b64encode(digest).decode("ascii")


def is_reachable(url: str | None) -> bool:
    """Return whether there is a callback URL, and not one under the reserved domain."""
    return url is not None and not (URL(url).host or "").rstrip(".").lower().endswith(UNREACHABLE_DOMAIN)


@define(eq=False)
class Sender:
    """Sends the webhooks of all tasks; `record` is called with each attempt."""

    settings: SandboxSettings
    session: aiohttp.ClientSession
    record: Callable[[CallbackAttempt], None]

    async def send(self, task: Task, callback: Callback, *, after: asyncio.Task[None] | None) -> None:
        """Send one webhook after the submit is answered, and after the previous webhook is accepted or given up."""
        await task.answered.wait()
        if after is not None:
            await asyncio.wait([after])
        plan, is_end = task.plan, "complete" in callback.words
        if plan.get(FaultKind.DROP, callback.words) or (is_end and plan.get(FaultKind.CALLBACK_EXCEPTION)):
            return
        if delay := plan.get(FaultKind.DELAY, callback.words):
            await asyncio.sleep(self.settings.real(delay.seconds))
        for _ in range(2 if plan.get(FaultKind.DUPLICATE) else 1):
            await self._deliver(task, callback)

    async def _deliver(self, task: Task, callback: Callback) -> None:
        """Send one webhook until it is accepted or given up."""
        facts, retries, limit = task.facts, self.settings.retry_seconds, self.settings.callback_timeout_seconds
        timeout = aiohttp.ClientTimeout(total=facts.timeout_seconds if limit is None else limit)
        for attempt, pause in enumerate((0.0, *(facts.retry_seconds if retries is None else retries)), start=1):
            await asyncio.sleep(self.settings.real(pause))
            made = CallbackAttempt(
                provider=task.provider,
                task_id=task.id,
                stage=callback.words[0],
                attempt=attempt,
                url=task.input.callback_url or "",
                body=callback.body,
            )
            data, headers = (
                msgspec.json.encode(made.body),
                {"Content-Type": "application/json", **self._signature(task)},
            )
            try:
                async with self.session.post(
                    made.url, data=data, headers=headers, timeout=timeout, allow_redirects=False
                ) as reply:
                    made.status = reply.status
            except TimeoutError:
                made.error = "timeout"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                made.error = f"{type(error).__name__}: {error}"
            self.record(made)
            if made.status == HTTP_OK or (made.status in HTTP_SUCCESSES and not facts.wants_exactly_200):
                return

    def _signature(self, task: Task) -> Mapping[str, str]:
        key, spoiled = self.settings.hmac_key, task.plan.get(FaultKind.BAD_SIGNATURE)
        if not task.facts.signs or not (key or spoiled):
            return {}
        # No page says whether kie.ai gives a retry a new timestamp; here each attempt has its own.
        timestamp = str(int(time.time()))
        signature = sign(f"not {key}" if spoiled else key or "", task.id, timestamp)
        return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": signature}
