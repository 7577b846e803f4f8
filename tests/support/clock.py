"""Time that a test moves, so that none has to wait for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from attrs import define, field

import audioext as ax

START = 1_800_000_000.0
IDLE_SECONDS = 0.002
"""A clock that runs jumps when its work was not done for so long, in real time."""

SOON_SECONDS = 10.0
"""How long what comes at once may take on a machine that is busy."""
TURNS = 20
"""Turns of the event loop in which what needs no I/O comes to rest."""

_T = TypeVar("_T")


async def soon(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Return the first answer that is true; it takes some turns of the loop, and no time."""
    async with asyncio.timeout(SOON_SECONDS):
        while not (answer := await ask()):  # noqa: ASYNC110 - turns, in which others go on
            await asyncio.sleep(0)
    return answer


@define(eq=False)
class JumpClock:
    """A clock that stands still until it is moved; whoever sleeps by it wakes when its time has come."""

    time: float = START
    _sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    @property
    def clock(self) -> ax.Clock:
        """The clock for a client."""
        return ax.Clock(now=self.now, jitter=lambda: 0.0, monotonic=self.now, sleep=self.sleep)

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
        """Return what *work* returns; while it waits, the clock jumps to when the next wakes, by at most a *step*."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=IDLE_SECONDS)
                self._jump(step)
            return await task
        finally:
            task.cancel()

    def _jump(self, step: float) -> None:
        while self._sleepers and self._sleepers[0][2].done():  # it was cancelled
            heapq.heappop(self._sleepers)
        if self._sleepers:
            self._move(min(self._sleepers[0][0] - self.time, step))


@define(eq=False)
class LoopTime:
    """Moves the time of the running event loop itself, which bounds all I/O and what is cut off at a close."""

    _monkeypatch: pytest.MonkeyPatch
    _later: float = field(default=0.0, init=False)

    def advance(self, seconds: float) -> None:
        """Let every timer of the loop that is due by then fire."""
        if not self._later:
            loop = asyncio.get_running_loop()
            real = loop.time
            loop.slow_callback_duration = math.inf  # in debug mode it warns of what seems to take long
            self._monkeypatch.setattr(loop, "time", lambda: real() + self._later)
        self._later += seconds

    async def run(self, work: Awaitable[_T], *, step: float = 0.25) -> tuple[_T, float]:
        """Return what *work* returns, and after how many seconds; while it waits, time passes by the *step*."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=IDLE_SECONDS)
                self.advance(step)
            return await task, loop.time() - began_at - step
        finally:
            task.cancel()
