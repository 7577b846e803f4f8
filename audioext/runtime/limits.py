"""Client-side rate limits: how many calls an API may have in any window, and how many open jobs an account.

A leaky bucket lets twice its capacity through in one window, so the window here slides over the calls
themselves, and a call counts until its window has passed since its *end*: however long it took to arrive,
the provider never sees more than it allows.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
    _under_way: int = field(default=0, init=False)
    _ended: deque[float] = field(factory=deque, init=False)
    _queue: deque[asyncio.Future[None]] = field(factory=deque, init=False)
    _timer: asyncio.TimerHandle | asyncio.Task[None] | None = field(default=None, init=False)

    @asynccontextmanager
    async def permit(self, *, timeout: float) -> AsyncGenerator[None]:  # noqa: ASYNC109 - the queue is ours to end
        """Hold a permit for one call; it may take up to *timeout* seconds to come.

        Raises:
            TimeoutError: it did not come in time.
        """
        async with asyncio.timeout(timeout):
            await self._take()
        try:
            yield
        finally:
            self._under_way -= 1
            if self.calls is not None:
                self._ended.append(self.clock.monotonic())
            self._admit()

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def _take(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came and was not used
                self._under_way -= 1
            elif turn in self._queue:
                self._queue.remove(turn)
            self._admit()
            raise

    def _tick(self) -> None:
        self._timer = None  # it may come a little early; then there is another one
        self._admit()

    def _admit(self) -> None:
        """Give permits to those who wait, as far as the limit allows."""
        now = self.clock.monotonic()
        while self._ended and self._ended[0] + self.per <= now:
            self._ended.popleft()
        while self._queue and (self.calls is None or self._under_way + len(self._ended) < self.calls):
            turn = self._queue.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)
        if self._queue and self._ended and self._timer is None:
            # A window that has passed but for a rounding error must not be looked at again and again.
            self._timer = self.clock.call_later(max(self._ended[0] + self.per - now, LEAST_PAUSE_SECONDS), self._tick)


@define(eq=False, repr=False)
class Account:
    """The submits of one account that wait here for their turn; the store counts those of all processes."""

    name: str
    limits: Limits
    store: Store
    clock: Clock
    _waiting: int = field(default=0, init=False)
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    _freed: asyncio.Event = field(factory=asyncio.Event, init=False)

    async def create(
        self,
        make: Callable[[], tuple[Entry, Index]],
        *,
        timeout: float,  # noqa: ASYNC109 - the queue is ours to end
        waiting: Callable[[], AbstractContextManager[object]],
    ) -> Created | Existing:
        """Store what *make* returns as soon as the account has room, in at most *timeout* seconds.

        It is made anew with each try, so that its time is right. While we wait for a try *waiting* holds.

        Raises:
            RateLimitError: there was no room in time; nothing was stored.
            StoreError: nothing was stored.
        """
        ends_at = self.clock.monotonic() + timeout
        if not self._waiting:
            entry, index = make()
            outcome = await self.store.create(entry, index, limits=self.limits, now=entry.at)
            if not isinstance(outcome, Full):
                return outcome
        self._waiting += 1
        try:
            with waiting():
                async with asyncio.timeout(timeout):
                    await self._turn.acquire()
            try:
                return await self._in_turn(make, ends_at, waiting)
            finally:
                self._turn.release()
        except TimeoutError as error:
            message = f"no permit within {timeout:g} s: too many submits wait; nothing was sent"
            raise RateLimitError(message, provider=self.name) from error
        finally:
            self._waiting -= 1

    async def _in_turn(
        self,
        make: Callable[[], tuple[Entry, Index]],
        ends_at: float,
        waiting: Callable[[], AbstractContextManager[object]],
    ) -> Created | Existing:
        while True:
            self._freed.clear()
            entry, index = make()
            outcome = await self.store.create(entry, index, limits=self.limits, now=entry.at)
            if not isinstance(outcome, Full):
                return outcome
            left = ends_at - self.clock.monotonic()
            if left <= 0:
                raise TimeoutError
            pause = max(min(outcome.until - self.clock.now(), left, LOOK_SECONDS), LEAST_PAUSE_SECONDS)
            with waiting():
                await self.clock.wait_for(self._freed, pause)

    def look_again(self) -> None:
        """Let who waits look: a job has ended."""
        self._freed.set()
