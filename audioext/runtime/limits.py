"""Client-side limits: calls per window of an API, and submits and open jobs of an account.

A leaky bucket can let twice its capacity through in one window. Here the window slides, and a call counts until a
window after its *end*: however long it took to arrive, the provider never sees more calls than it allows.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import RateLimitError, StoreError
from audioext.models.entries import Entry, Index
from audioext.models.limits import Limits
from audioext.stores.base import Created, Existing, Full, Store

_log = logging.getLogger("audioext.submit")

LOOK_SECONDS = 1.0
"""How long the end of another process's job may go unnoticed."""
LEAST_PAUSE_SECONDS = 0.001
SAID_SECONDS = 30.0
"""At most one line in this time says that submits wait."""


@define(eq=False, repr=False)
class Limiter:
    """At most *calls* of this process in any window of *per* seconds, first come, first served."""

    calls: int | None
    per: float
    clock: Clock = field(factory=Clock)
    _permits: asyncio.Semaphore | None = field(init=False)
    _timers: set[asyncio.TimerHandle | asyncio.Task[None]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        """Create the permits."""
        self._permits = None if self.calls is None else asyncio.Semaphore(self.calls)

    @asynccontextmanager
    async def permit(self) -> AsyncGenerator[None]:
        """Hold a permit for one call within the block, after waiting for it; the caller bounds that wait."""
        if self._permits is None:
            yield
            return
        await self._permits.acquire()
        try:
            yield
        finally:
            self._give_back(self._permits, self.clock.monotonic() + self.per)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers:
            timer.cancel()

    def _give_back(self, permits: asyncio.Semaphore, at: float) -> None:
        """Release a permit *at* that monotonic time and never before: timers may fire early."""
        left = at - self.clock.monotonic()
        if left <= 0:
            permits.release()
            return

        def look_again() -> None:
            self._timers.discard(timer)
            self._give_back(permits, at)

        timer = self.clock.call_later(max(left, LEAST_PAUSE_SECONDS), look_again)
        self._timers.add(timer)


@define(eq=False, repr=False)
class Account:
    """The queue of one account's submits in this process; the store counts the submits of all processes."""

    limits: Limits
    store: Store
    clock: Clock
    _waiting: int = field(default=0, init=False)
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    freed: asyncio.Event = field(factory=asyncio.Event, init=False)
    """Set when a job has ended, so that the first waiting submit tries again."""
    _full_until: float = field(default=-math.inf, init=False)
    _said_at: float = field(default=-math.inf, init=False)

    async def create(
        self,
        make: Callable[[], tuple[Entry, Index]],
        abandon: Callable[[], None],
        *,
        provider: str,
        timeout: float,  # noqa: ASYNC109 - it ends the wait, not a try
    ) -> Created | Existing:
        """Store the job that *make* returns as soon as the account has room, within *timeout* seconds.

        Each try calls *make* again, so that the job's time is right, and *abandon* if it fails or is cancelled. Raises
        RateLimitError if there was no room in time; then nothing was stored.
        """
        ends_at = self.clock.monotonic() + timeout
        if not self._waiting and not isinstance(outcome := await self._try(make, abandon), Full):
            return outcome
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout):
                await self._turn.acquire()
            try:
                while isinstance(outcome := await self._try(make, abandon), Full):
                    left = ends_at - self.clock.monotonic()
                    if left <= 0:
                        raise TimeoutError
                    pause = max(min(outcome.until - self.clock.now(), left, LOOK_SECONDS), LEAST_PAUSE_SECONDS)
                    await self.clock.wait_for(self.freed, pause)
                    self._say_that_some_wait(provider)
                return outcome
            finally:
                self._turn.release()
        except TimeoutError as error:
            message = (
                f"no permit within {timeout:g} s (permit_timeout): the account takes {_in_words(self.limits)}; "
                "nothing was sent, so submit again later"
            )
            left = max(self._full_until - self.clock.now(), LOOK_SECONDS)  # others wait as well
            raise RateLimitError(message, provider=provider, retry_after=left) from error
        finally:
            self._waiting -= 1

    def _say_that_some_wait(self, provider: str) -> None:
        """Log that submits wait, so that a large batch does not look as if it hung."""
        if (now := self.clock.monotonic()) - self._said_at < SAID_SECONDS:
            return
        self._said_at = now
        text = "submits to %s that wait for their turn: %d; the account takes %s"
        _log.info(text, provider, self._waiting, _in_words(self.limits), extra={"provider": provider})

    async def _try(
        self, make: Callable[[], tuple[Entry, Index]], abandon: Callable[[], None]
    ) -> Created | Existing | Full:
        self.freed.clear()
        entry, index = make()
        try:
            outcome = await self.store.create(entry, index, limits=self.limits, now=entry.at)
        except (StoreError, asyncio.CancelledError):
            abandon()
            raise
        if isinstance(outcome, Full):
            self._full_until = outcome.until
        return outcome


def _in_words(limits: Limits) -> str:
    window = None if limits.submits is None else f"{_count(limits.submits, 'submit')} in {limits.per:g} s"
    parallel = None if limits.parallel is None else f"{_count(limits.parallel, 'job')} at a time"
    return " and ".join(filter(None, [window, parallel]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
