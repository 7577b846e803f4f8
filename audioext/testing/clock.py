"""A clock that a test moves, so that no test waits for real time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from time import process_time
from time import time as true_time
from typing import TypeVar

from attrs import define, field

from audioext.clock import Clock

__all__ = ["JumpClock"]

IDLE_SECONDS = 0.002
"""The real time without progress after which `JumpClock.run` jumps."""
LATE_SECONDS = 0.006
"""If `is_idle` took longer than this, in real time, the machine was busy and the result does not count."""
WORK_SECONDS = 0.001
"""If the process used more CPU time than this meanwhile, a thread was at work."""
MOST_LATE = 20
"""How often in a row `JumpClock.run` waits for a busy machine before it jumps anyway."""
TURNS = 20
"""Turns of the event loop after which tasks without I/O are asleep."""
LEAST_SHARE = 0.05
"""Each jump is at least this share of the time passed: a day takes a moment, and the order of events is kept to 5 %."""

_T = TypeVar("_T")


@define(eq=False)
class JumpClock:
    """A clock that stands still until it is moved; sleepers wake when it reaches their time.

    It starts at the real time. Pass `clock` to `Client(clock=...)`. Polls, the grace period after a submit without an
    answer, the back-off of handlers, expiry and the timeouts of waits all use it. Timeouts of I/O stay in real time:
    HTTP calls, and running handlers (`handler_timeout`).
    """

    time: float = field(factory=true_time)
    """Unix seconds."""
    _sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    @property
    def clock(self) -> Clock:
        """The clock for a client."""
        return Clock(now=self.now, jitter=lambda: 0.0, monotonic=self.now, sleep=self.sleep)

    def now(self) -> float:
        """Return the time (Unix seconds)."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Sleep until the clock has been moved by *seconds*."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let running tasks go to sleep, move the clock, wake the sleepers that are due, and let them run."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self._move(seconds)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _move(self, seconds: float) -> None:
        self.time += seconds
        while self._sleepers and self._sleepers[0][0] <= self.time:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    async def run(self, work: Awaitable[_T], *, step: float = 5.0) -> _T:
        """Await *work* and return its result; while it is idle, the clock jumps to the next sleeper's time.

        A jump is at most *step* seconds, but at least a twentieth of the time passed, so jumps grow.
        """
        task, began_at = asyncio.ensure_future(work), self.time
        late = 0
        try:
            while not task.done():
                late = 0 if await is_idle(task) else late + 1
                if late in {0, MOST_LATE} and not task.done():
                    self._jump(step, LEAST_SHARE * (self.time - began_at))
                    late = 0
            return await task
        finally:
            task.cancel()

    def _jump(self, step: float, least: float) -> None:
        while self._sleepers and self._sleepers[0][2].done():  # it was cancelled
            heapq.heappop(self._sleepers)
        if self._sleepers:
            self._move(max(min(self._sleepers[0][0] - self.time, step), least))


async def is_idle(task: asyncio.Future[_T]) -> bool:
    """Return whether nothing worked on *task* for a moment, as far as can be detected."""
    loop = asyncio.get_running_loop()
    began_at, worked = loop.time(), process_time()
    await asyncio.wait([task], timeout=IDLE_SECONDS)
    # If the thread pool is busy, this call waits for it as a store's calls would, and counts as late.
    await loop.run_in_executor(None, int)
    if loop.time() - began_at > LATE_SECONDS or process_time() - worked > WORK_SECONDS:
        return False
    return not _are_threads_at_work()


def _are_threads_at_work() -> bool:
    """Return whether another thread runs, or waits for a CPU or a disk; only Linux shows that."""
    for thread in Path("/proc/self/task").glob("*/stat"):
        if int(thread.parent.name) != threading.get_native_id():
            with suppress(OSError):  # it has ended
                if thread.read_text(encoding="ascii", errors="replace").rpartition(") ")[2][:1] in {"R", "D"}:
                    return True
    return False
