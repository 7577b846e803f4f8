"""Time that a test moves, so that none has to wait for it."""

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
"""A clock that runs jumps when its work was not done for so long, in real time."""
LATE_SECONDS = 0.006
"""What took longer instead, in real time, was no idling: the machine is busy."""
WORK_SECONDS = 0.001
"""Whoever used more of the processor meanwhile was not idle: a thread is at work."""
MOST_LATE = 20
"""How often in a row a clock that runs waits for a busy machine, before it jumps all the same."""
TURNS = 20
"""Turns of the event loop in which what needs no I/O comes to rest."""
LEAST_SHARE = 0.05
"""A clock that runs jumps by at least this share of what has passed: a day takes a moment, and order is kept to 5 %."""

_T = TypeVar("_T")


@define(eq=False)
class JumpClock:
    """A clock that stands still until it is moved; whoever sleeps by it wakes when its time has come.

    It starts at the true time. `clock` is what `Client(clock=...)` takes. Polls, the grace period after a submit
    without an answer, the back-off of handlers, expiry and the timeouts of waits all go by it. What is bounded in real
    time is I/O: HTTP calls, and handlers that run (`handler_timeout`).
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
        """Return the time."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Return when the clock was moved so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move the clock when all have gone to sleep that are about to, wake who is due, and let these go on."""
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
        """Return what *work* returns; while it waits, the clock jumps to when the next wakes, by at most a *step*.

        The longer it takes the wider the jumps: each is at least a twentieth of the time that has passed.
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
    """Say whether nothing was done for *task* for a moment, as far as can be told."""
    loop = asyncio.get_running_loop()
    began_at, worked = loop.time(), process_time()
    await asyncio.wait([task], timeout=IDLE_SECONDS)
    # What others do for a loop that is late may take as long again; where this call waits, so do a store's.
    await loop.run_in_executor(None, int)
    if loop.time() - began_at > LATE_SECONDS or process_time() - worked > WORK_SECONDS:
        return False
    return not _are_threads_at_work()


def _are_threads_at_work() -> bool:
    """Say whether another thread runs, waits for a processor or for a disk; only Linux tells."""
    for thread in Path("/proc/self/task").glob("*/stat"):
        if int(thread.parent.name) != threading.get_native_id():
            with suppress(OSError):  # it has ended
                if thread.read_text(encoding="ascii", errors="replace").rpartition(") ")[2][:1] in {"R", "D"}:
                    return True
    return False
