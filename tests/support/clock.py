"""Time that a test moves, so that none has to wait for it."""

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
"""How long what comes at once may take on a machine that is busy."""
PROMPT_SECONDS = 9.0
"""How long a close may take that has nothing to wait for; if it waited all the same, it would take ten."""

_T = TypeVar("_T")


async def soon(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Return the first answer that is true; between two questions the loop is left alone for a moment."""
    async with asyncio.timeout(SOON_SECONDS):
        while not (answer := await ask()):  # noqa: ASYNC110 - what is asked for gives no event
            await asyncio.sleep(0.001)
    return answer


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
