"""Clocks that a test moves, so that no test waits for real time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from attrs import define, field

from audioext.testing.clock import MOST_LATE, JumpClock, is_idle

__all__ = ["PROMPT_SECONDS", "SOON_SECONDS", "START", "JumpClock", "LoopTime", "soon"]

START = 1_800_000_000.0
SOON_SECONDS = 30.0
"""How long an immediate result may take on a busy machine."""
PROMPT_SECONDS = 9.0
"""How long a close without anything to wait for may take; one that drains takes ten seconds."""

_T = TypeVar("_T")


async def soon(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Call *ask* until its result is true, with short sleeps in between, and return that."""
    async with asyncio.timeout(SOON_SECONDS):
        while not (answer := await ask()):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
    return answer


@define(eq=False)
class LoopTime:
    """Moves the time of the running event loop itself, which all I/O timeouts and close deadlines use."""

    _monkeypatch: pytest.MonkeyPatch
    _later: float = field(default=0.0, init=False)

    def advance(self, seconds: float) -> None:
        """Move the time; the loop then runs every timer that is due."""
        if not self._later:
            loop = asyncio.get_running_loop()
            real = loop.time
            loop.slow_callback_duration = math.inf  # in debug mode a jump would look like a slow callback
            self._monkeypatch.setattr(loop, "time", lambda: real() + self._later)
        self._later += seconds

    async def run(self, work: Awaitable[_T], *, step: float = 0.25) -> tuple[_T, float]:
        """Return the result of *work* and its seconds; while it is idle, the time moves by *step*."""
        loop, late = asyncio.get_running_loop(), 0
        began_at = loop.time()
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                late = 0 if await is_idle(task) else late + 1
                if late in {0, MOST_LATE} and not task.done():
                    self.advance(step)
                    late = 0
            return await task, loop.time() - began_at
        finally:
            task.cancel()
