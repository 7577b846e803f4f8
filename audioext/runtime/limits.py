"""Client-side rate limits: how many calls an API may have in any window, and how many open jobs an account.

A leaky bucket lets twice its capacity through in one window, so the window here slides over the calls
themselves, and a call counts until its window has passed since its *end*: however long it took to arrive,
the provider never sees more than it allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import RateLimitError
from audioext.models.entries import Entry, Index
from audioext.models.limits import Limits
from audioext.stores.base import Created, Existing, Full, Store

LOOK_SECONDS = 1.0
"""How long the end of another process's job may stay unseen."""
LEAST_PAUSE_SECONDS = 0.001


@define(eq=False, repr=False)
class Limiter:
    """So many calls of this process in any window, first come, first served."""

    calls: int | None
    per: float
    clock: Clock = field(factory=Clock)
    _permits: asyncio.Semaphore | None = field(init=False)
    _timers: set[asyncio.TimerHandle | asyncio.Task[None]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the permits."""
        self._permits = None if self.calls is None else asyncio.Semaphore(self.calls)

    @asynccontextmanager
    async def permit(self, *, timeout: float) -> AsyncGenerator[None]:  # noqa: ASYNC109 - the queue is ours to end
        """Hold a permit for one call; it may take up to *timeout* seconds to come.

        Raises:
            TimeoutError: it did not come in time.
        """
        if self._permits is None:
            yield
            return
        async with asyncio.timeout(timeout):
            await self._permits.acquire()
        try:
            yield
        finally:
            self._give_back(self._permits, self.clock.monotonic() + self.per)

    def close(self) -> None:
        """Let go of the timers."""
        for timer in self._timers:
            timer.cancel()

    def _give_back(self, permits: asyncio.Semaphore, at: float) -> None:
        """Give one back *at* that time of the monotonic clock, not a moment before: timers may come early."""
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
    """The submits of one account that wait here for their turn; the store counts those of all processes."""

    name: str
    limits: Limits
    store: Store
    clock: Clock
    _waiting: int = field(default=0, init=False)
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    freed: asyncio.Event = field(factory=asyncio.Event, init=False)
    """Set when a job has ended, so that a waiting submit looks for room."""

    async def create(
        self,
        make: Callable[[], tuple[Entry, Index]],
        *,
        timeout: float,  # noqa: ASYNC109 - the queue is ours to end
        waiting: Callable[[], AbstractContextManager[object]],
    ) -> Created | Existing:
        """Store what *make* returns as soon as the account has room, in at most *timeout* seconds.

        It is made anew with each try, so that its time is right. While we wait for a try *waiting* holds. It raises
        RateLimitError where there was no room in time, and nothing was stored.
        """
        ends_at = self.clock.monotonic() + timeout
        if not self._waiting and not isinstance(outcome := await self._try(make), Full):
            return outcome
        self._waiting += 1
        try:
            with waiting():
                async with asyncio.timeout(timeout):
                    await self._turn.acquire()
            try:
                while isinstance(outcome := await self._try(make), Full):
                    left = ends_at - self.clock.monotonic()
                    if left <= 0:
                        raise TimeoutError
                    pause = max(min(outcome.until - self.clock.now(), left, LOOK_SECONDS), LEAST_PAUSE_SECONDS)
                    with waiting():
                        await self.clock.wait_for(self.freed, pause)
                return outcome
            finally:
                self._turn.release()
        except TimeoutError as error:
            message = f"no permit within {timeout:g} s: too many submits wait; nothing was sent"
            raise RateLimitError(message, provider=self.name) from error
        finally:
            self._waiting -= 1

    async def _try(self, make: Callable[[], tuple[Entry, Index]]) -> Created | Existing | Full:
        self.freed.clear()
        entry, index = make()
        return await self.store.create(entry, index, limits=self.limits, now=entry.at)
