"""Sends webhooks: one after the other, signed, repeated when they fail, and spoiled when a fault says so."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import aiohttp
import orjson
from attrs import frozen
from yarl import URL

from .faults import FaultKind
from .tasks import Delivery, Hook, Task

__all__ = ["Courier", "Manners", "is_unreachable", "sign"]

HTTP_OK = 200
HTTP_SUCCESSES = range(200, 300)
#: RFC 2606: names under it never resolve, so who gives one says "do not call me".
UNREACHABLE_DOMAIN = ".invalid"


@frozen(kw_only=True)
class Manners:
    """How an API goes about its webhooks."""

    #: How long an answer may take, in real seconds.
    timeout_seconds: float
    #: How long to wait before each further attempt, in the API's seconds.
    retry_seconds: tuple[float, ...]
    #: Whether another 2xx counts as failed.
    wants_exactly_200: bool
    #: Whether webhooks are signed once there is a key.
    signs: bool = False
    #: Whether a task is paid for when it succeeds, not when it is ordered.
    charges_on_success: bool = False
    #: Failures whose price is given back.
    refunded_codes: frozenset[int] = frozenset()


def sign(key: str, task_id: str, timestamp: str) -> str:
    """Sign a webhook as kie.ai does: standard Base64 of HMAC-SHA256 over ``task_id.timestamp``.

    https://docs.kie.ai/common-api/webhook-verification (sheet 6)
    """
    digest = hmac.digest(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256)
    return base64.b64encode(digest).decode("ascii")


def is_unreachable(url: str) -> bool:
    """Tell whether a callback URL is under the reserved name that nobody can be reached at."""
    return (URL(url).host or "").rstrip(".").lower().endswith(UNREACHABLE_DOMAIN)


class Courier:
    """Carries webhooks to whoever ordered a task."""

    def __init__(
        self,
        *,
        wait: Callable[[float], Awaitable[None]],
        record: Callable[[Delivery], None],
        retry_seconds: Sequence[float] | None,
        timeout_seconds: float | None,
        hmac_key: str | None,
    ) -> None:
        """`wait` sleeps for some of the API's seconds; `record` hears of each attempt."""
        self._wait = wait
        self._record = record
        self._retry_seconds = retry_seconds
        self._timeout_seconds = timeout_seconds
        self._hmac_key = hmac_key
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session."""
        self._session = aiohttp.ClientSession(
            # A connection each: a receiver that went away and came back would break a kept one, and eat an
            # attempt.
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "audioext-sandbox"},
        )

    async def aclose(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def carry(self, task: Task, hooks: asyncio.Queue[Hook | None], manners: Manners) -> None:
        """Send all that comes until None, in order, each after the one before was answered or given up."""
        if task.plan.has(FaultKind.REORDER):
            hooks = await _reversed(hooks)
        while (hook := await hooks.get()) is not None:
            if task.plan.at(FaultKind.DROP, hook.words) is not None:
                continue
            if (fault := task.plan.at(FaultKind.DELAY, hook.words)) is not None:
                await self._wait(fault.seconds)
            copies = 2 if task.plan.has(FaultKind.DUPLICATE) else 1
            delivered = False
            for _ in range(copies):
                delivered = await self._deliver(task, hook, manners) or delivered
            if not delivered and "complete" in hook.words:
                task.callback_failed = True

    async def _deliver(self, task: Task, hook: Hook, manners: Manners) -> bool:
        """Send one webhook until it is taken or given up."""
        url = task.order.callback_url or ""
        if task.plan.has(FaultKind.CALLBACK_EXCEPTION) and "complete" in hook.words:
            return False
        retries = manners.retry_seconds if self._retry_seconds is None else self._retry_seconds
        for attempt, pause in enumerate((0.0, *retries), start=1):
            await self._wait(pause)
            at = datetime.now(UTC)
            status, error = await self._post(url, task, hook, manners)
            self._record(
                Delivery(
                    provider=task.provider,
                    task_id=task.id,
                    stage=hook.words[0],
                    attempt=attempt,
                    url=url,
                    at=at,
                    status=status,
                    error=error,
                    body=hook.body,
                ),
            )
            if status == HTTP_OK or (status in HTTP_SUCCESSES and not manners.wants_exactly_200):
                return True
        return False

    async def _post(self, url: str, task: Task, hook: Hook, manners: Manners) -> tuple[int | None, str | None]:
        if self._session is None:
            message = "the sandbox is not running"
            raise RuntimeError(message)
        seconds = manners.timeout_seconds if self._timeout_seconds is None else self._timeout_seconds
        try:
            async with self._session.post(
                url,
                data=orjson.dumps(hook.body),
                headers={"Content-Type": "application/json", **self._signature(task, manners)},
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as reply:
                return reply.status, None
        except TimeoutError:
            return None, "timeout"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"

    def _signature(self, task: Task, manners: Manners) -> Mapping[str, str]:
        spoiled = task.plan.has(FaultKind.BAD_SIGNATURE)
        if not manners.signs or (self._hmac_key is None and not spoiled):
            return {}
        # Whether kie.ai stamps a retry anew is not said on any page; here each attempt has its own time.
        timestamp = str(int(time.time()))
        key = f"not {self._hmac_key}" if spoiled else self._hmac_key or ""
        return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": sign(key, task.id, timestamp)}


async def _reversed(hooks: asyncio.Queue[Hook | None]) -> asyncio.Queue[Hook | None]:
    """Wait for all, and hand them back last one first."""
    found: list[Hook] = []
    while (hook := await hooks.get()) is not None:
        found.append(hook)
    turned: asyncio.Queue[Hook | None] = asyncio.Queue()
    for last in reversed(found):
        turned.put_nowait(last)
    turned.put_nowait(None)
    return turned
