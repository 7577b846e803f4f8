"""Sends webhooks: in order, signed, retried on failure, and with the task's faults applied."""

from __future__ import annotations

import asyncio
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
            data = msgspec.json.encode(made.body)
            headers = {"Content-Type": "application/json", **self._signature(task, data)}
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

    def _signature(self, task: Task, data: bytes) -> Mapping[str, str]:
        key, spoiled = self.settings.hmac_key, task.plan.get(FaultKind.BAD_SIGNATURE)
        if task.facts.sign is None or not (key or spoiled):
            return {}
        return task.facts.sign(f"not {key}" if spoiled else key or "", task.id, data)
