"""What the aiohttp and the ASGI face of the inbox share: what they answer, readiness, and deliveries under way."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec
from attrs import define, field

from audioext.errors import StoreError, WebhookError
from audioext.files.serving import Offers
from audioext.http import urls
from audioext.outage import Outage
from audioext.webhooks.inbox import Inbox
from audioext.webhooks.progress import Watching

T = TypeVar("T")

_log = logging.getLogger("audioext.receiver")

DRAIN_SECONDS = 10.0
"""How long accepted deliveries get to become durable when the receiver stops."""
READY_SECONDS = 1.0
"""How long an answer to who asks whether we are ready is given again."""
PROBE_SECONDS = 0.8
"""How long the store may take to answer: who asks whether we are ready usually waits for one second."""
BODY_SECONDS = 10.0
"""How long a body may take to come."""
LINK_SEGMENTS = 3
"""Of the path of an offered file: `files`, its token, a name for people; of a job's progress: also ref and token."""
ANSWER_HEADERS = {"Content-Type": "application/json; charset=utf-8", "Server": "audioext"}


@define(kw_only=True, eq=False, repr=False)
class Endpoint:
    """The inbox with the files on offer, as one client has them."""

    inbox: Inbox
    offers: Offers
    watching: Watching
    ready: Callable[[], Awaitable[Sequence[str]]]
    lifespan: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
    """Opens the client, unless it is open, and returns what closes it again."""
    answered: Counter[int] = field(factory=Counter, init=False)
    """How many requests got each status; those that were no HTTP count as 400."""
    is_serving: bool = field(default=False, init=False)
    """Whether somebody serves its routes, so that providers can ask it for files."""
    _looked_at: float = field(default=-math.inf, init=False)
    _outage: str = field(default="", init=False)
    _lack: Outage = field(factory=lambda: Outage(_log, "not ready"), init=False)
    _warnings: int = field(default=0, init=False)
    _under_way: set[object] = field(factory=set, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)

    async def readiness(self) -> tuple[int, dict[str, object]]:
        """Say whether the store takes entries, and no more: strangers read it, and may ask often."""
        now = self.inbox.clock.monotonic()
        if not 0 <= now - self._looked_at < READY_SECONDS:
            self._looked_at = now
            self._outage = self.inbox.outage
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    warnings = await self.ready()
            except (StoreError, TimeoutError) as error:
                self._outage = str(error) or f"the store did not answer within {PROBE_SECONDS:g} s"
            else:
                self._warnings = len(warnings)
            if self._outage:
                self._lack.note(StoreError(self._outage))
            else:
                self._lack.over()
        if self._outage:
            return 503, {"status": "store down"}
        return 200, {"status": "ok", "warnings": self._warnings}

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what *work* returns; it goes on where the caller is cancelled, and `drain` waits for it."""
        task = asyncio.create_task(work, name="audioext delivery")
        self.begin(task)
        task.add_done_callback(self.end)
        return await asyncio.shield(task)

    def begin(self, delivery: object) -> None:
        """Note that a delivery is under way."""
        self._under_way.add(delivery)

    def end(self, delivery: object) -> None:
        """Note that a delivery was answered."""
        self._under_way.discard(delivery)
        self._ended.set()

    async def drain(self) -> None:
        """Wait for what is under way now; connections that are kept alive may go on to bring more."""
        accepted = set(self._under_way)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while accepted & self._under_way:
                    self._ended.clear()
                    await self._ended.wait()


@cache
def answer_body(status: int) -> bytes:
    """Return the body of an answer with *status*."""
    # Providers prescribe no body; kie.ai's OpenAPI shows this shape for the reply.
    word = "success" if status == 200 else "refused"  # noqa: PLR2004 - HTTP's own number
    return msgspec.json.encode({"code": status, "msg": word})


def status_of_get(path: str) -> int:
    """Return what a request to *path* is answered that asks for nothing we have: 405 for a callback path, else 404."""
    try:
        urls.read_callback(path)
    except WebhookError as error:
        return error.http_status
    return 405
