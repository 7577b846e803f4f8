"""The event loop of a universe: simloom's, but without an event log, which makes it three times as fast."""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Generic, TypeVar
from unittest.mock import patch

import simloom
from attrs import frozen

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""The value of `time.time` at the start of a universe."""
MOST_STEPS_AT_ONCE = 100_000
"""More steps than this without time passing are an endless loop."""
END_SECONDS = 100.0
"""The simulated time that cancelling the rest of a universe may take."""


@frozen
class Lived(Generic[T]):
    """The outcome of a universe: a value or an error."""

    value: T | None = None
    error: BaseException | None = None


class Dice:
    """Makes simloom's random decisions from the seed, without simloom's recording of them for a replay."""

    def __init__(self, seed: int) -> None:
        """Start from a seed."""
        self.random = random.Random(seed).random  # noqa: S311 - it has to come again

    def draw(self, _: str, bound: int) -> int:
        """Return an integer from 0 to *bound*, exclusive."""
        return int(self.random() * bound)


class NoLog(simloom.EventLog):  # type: ignore[misc] # simloom need not be installed
    """A log that discards its events, as a universe has ten thousand steps."""

    def emit(self, kind: str, t: float, **fields: Any) -> None:
        """Discard the event."""


class QuickLoop(simloom.SimLoop):  # type: ignore[misc] # as above
    """Runs callbacks in simloom's random order, without its names, causes and checks for each step.

    It uses private parts of simloom, whose version is therefore pinned.
    """

    def __init__(self, seed: int) -> None:
        """Create the universe's dice from its seed."""
        self._dice = Dice(seed)
        self._now: float
        self._steps_at_once = 0
        super().__init__(self._dice, log=NoLog(), gc_interval=0)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Schedule a call in one of the next steps."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a call at that time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_seq += 1
        heapq.heappush(self._scheduled, (when, self._timer_seq, handle))
        return handle

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """Create a task that ends with the host that creates it."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        if (host := simloom._context.current_host.get()) is not None:  # noqa: SLF001 - see above
            host._register(task)  # noqa: SLF001 - see above
        return task

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0][2].cancelled():
                heapq.heappop(scheduled)
            if not scheduled:
                self._report_deadlock()
            if scheduled[0][0] > self._now:
                self._now = scheduled[0][0]
                self._steps_at_once = 0
        while scheduled and scheduled[0][0] <= self._now:
            ready.append(heapq.heappop(scheduled)[2])
        count = len(ready)
        handle = ready.pop() if count == 1 else ready.pop(int(self._dice.random() * count))
        if (self._crashed_ids or self._crashed_hosts) and self._handle_is_dead(handle):
            if self._is_crashed_owned(handle):
                self._parked.append(handle)  # a task of a dead host, which is cancelled at the end of the universe
        elif not handle.cancelled():
            self._steps_at_once += 1
            if self._steps_at_once > MOST_STEPS_AT_ONCE:
                raise simloom.SimLivelockError(f"time stands still at {self._now} s, and there is always more to do")
            handle._run()  # noqa: SLF001 - what a loop does with a handle

    def end(self) -> None:
        """Cancel all remaining tasks, also those of dead hosts, and close."""
        self.set_exception_handler(lambda *_: None)
        self._revive_crashed()
        left = asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.wait(left, timeout=END_SECONDS))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()


@contextmanager
def _own_time_and_chance(loop: QuickLoop, seed: int) -> Iterator[None]:
    chance, before = random.Random(f"chance {seed}"), random.getstate()  # noqa: S311 - it has to come again
    random.seed(seed)
    with (
        patch.object(time, "time", lambda: EPOCH + loop.time()),
        patch.object(time, "monotonic", loop.time),
        patch.object(os, "urandom", chance.randbytes),
        patch.object(random, "_urandom", chance.randbytes),
    ):
        try:
            yield
        finally:
            random.setstate(before)


def run(live: Callable[[simloom.World], Coroutine[Any, Any, T]], seed: int) -> Lived[T]:
    """Run a universe in which only the seed decides what happens, and return its outcome."""
    loop = QuickLoop(seed)
    with _own_time_and_chance(loop, seed):
        lived: Lived[T]
        try:
            lived = Lived(loop.run_until_complete(live(simloom.World(loop))))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            lived = Lived(error=error)
        try:
            loop.end()
        except Exception as error:  # noqa: BLE001 - as above
            lived = Lived(error=lived.error or error)
        return lived
