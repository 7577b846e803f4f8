"""Client-side rate limits: how many submits an account may have in any window, and how many open jobs.

A leaky bucket lets twice its capacity through in one window, so the window here slides over the submits
themselves, and a submit counts until its window has passed since its *end*: however long it took to arrive,
the provider never sees more than it allows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from attrs import define, field

from audioext.wire.provider import Limits


@define(eq=False, repr=False)
class Limiter:
    """The limits of one account, first come, first served."""

    limits: Limits
    _under_way: int = field(default=0, init=False)
    _ended: deque[float] = field(factory=deque, init=False)
    _open: set[str] = field(factory=set, init=False)
    _queue: deque[asyncio.Future[None]] = field(factory=deque, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    @asynccontextmanager
    async def permit(self, *, timeout: float) -> AsyncGenerator[None]:  # noqa: ASYNC109 - the queue is ours to end
        """Hold a permit for one submit; it may take up to *timeout* seconds to come.

        Raises:
            TimeoutError: it did not come in time.
        """
        async with asyncio.timeout(timeout):
            await self._take()
        try:
            yield
        finally:
            self._under_way -= 1
            if self.limits.submits is not None:
                self._ended.append(asyncio.get_running_loop().time())
            self._admit()

    def occupy(self, ref: str) -> None:
        """Count *ref* among the open jobs, where their number is limited."""
        if self.limits.parallel is not None:
            self._open.add(ref)

    def free(self, ref: str) -> None:
        """Count *ref* no longer: its job is final, or its outcome unknown."""
        if ref in self._open:
            self._open.remove(ref)
            self._admit()

    @property
    def occupants(self) -> frozenset[str]:
        """The refs of the jobs that count as open."""
        return frozenset(self._open)

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

    def _admit(self) -> None:
        """Give permits to those who wait, as far as the limits allow."""
        now = asyncio.get_running_loop().time()
        while self._ended and self._ended[0] <= now - self.limits.per:
            self._ended.popleft()
        while self._queue and self._has_room():
            turn = self._queue.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)
        if self._queue and self._ended and (self._timer is None or self._timer.when() <= now):
            wake_at = self._ended[0] + self.limits.per
            self._timer = asyncio.get_running_loop().call_at(wake_at, self._admit)

    def _has_room(self) -> bool:
        submits, parallel = self.limits.submits, self.limits.parallel
        in_window = self._under_way + len(self._ended)
        if submits is not None and in_window >= submits:
            return False
        return parallel is None or len(self._open) + self._under_way < parallel
