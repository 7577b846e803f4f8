"""Time and randomness as an argument: all clocks, sleeps and jitter come from here, so that tests can replace them."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from attrs import define, field, frozen
from attrs.validators import is_callable

_T = TypeVar("_T")

STEADY_SECONDS = 900.0
"""How long a forward jump of the clock has to last before it counts."""
HELD_UP_SECONDS = 1.0
"""A timeout that comes later than this was held up, as was everything else; answers then get as long to be read."""
_REF_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter looks like another
_PAIRS = [first + second for first in _REF_ALPHABET for second in _REF_ALPHABET]
_REF_RANDOM_LETTERS = 15
_LETTER_OF_BYTE = (_REF_ALPHABET * 8).encode()  # each of the 32 letters for 8 of the 256 bytes


@frozen
class Clock:
    """The source of time for a client.

    `now` returns Unix seconds, `monotonic` seconds that never go back, `jitter` a number from 0 to 1. Jobs, polls,
    handlers and submits wait by `sleep`, so your own clock can jump ahead; retries of a connection take real time.
    """

    now: Callable[[], float] = field(default=time.time, validator=is_callable())
    jitter: Callable[[], float] = field(default=random.random, validator=is_callable())
    monotonic: Callable[[], float] = field(default=time.monotonic, validator=is_callable())
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, validator=is_callable())

    def call_later(self, seconds: float, call: Callable[[], object]) -> asyncio.TimerHandle | asyncio.Task[None]:
        """Call *call* after *seconds*, unless the returned handle or task is cancelled before."""
        if self.sleep is asyncio.sleep:  # a timer is smaller and cheaper than a task
            return asyncio.get_running_loop().call_later(seconds, call)
        return asyncio.create_task(self._call_at(self.monotonic() + seconds, call))

    async def _call_at(self, at: float, call: Callable[[], object]) -> None:
        await self.sleep(at - self.monotonic())  # the clock may have jumped before this task began
        call()

    def end(self, waiter: asyncio.Future[bool], seconds: float) -> asyncio.TimerHandle | asyncio.Task[None]:
        """Resolve *waiter* with `False` after *seconds*, unless the returned handle or task is cancelled before."""
        return self.call_later(seconds, partial(_end, waiter))

    async def wait(self, waiter: asyncio.Future[bool], seconds: float) -> bool:
        """Return the result of *waiter*, or `False` after *seconds*. Nothing else may await it."""
        timer = self.end(waiter, seconds)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def wait_for(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until *event* is set or *seconds* have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                timer = self.call_later(seconds, partial(limit.reschedule, 0.0))
                try:
                    await event.wait()
                finally:
                    timer.cancel()


@define
class SteadyTime:
    """Unix time for measuring ages: a forward jump of the clock counts only after it has lasted `STEADY_SECONDS`."""

    clock: Clock
    _offsets: tuple[float, ...] = field(default=(math.inf,), init=False)
    _noted_at: float = field(default=-math.inf, init=False)

    def now(self) -> float:
        """Return Unix seconds. The first call notes the offset of the clock."""
        at = self.clock.monotonic()
        offset = self.clock.now() - at
        if at >= self._noted_at + STEADY_SECONDS:
            self._offsets, self._noted_at = (self._offsets[-1], offset), at
        return at + min(*self._offsets, offset)


def _end(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


async def whole(work: Awaitable[_T]) -> _T:
    """Await *work* to its end even if the caller is cancelled; raise the cancellation only after that."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def mint_id(now: float) -> str:
    """Return a new public id: 24 letters and digits that sort by time, with 75 random bits."""
    # All random bytes are translated in one call: one by one they would take most of the time.
    dice = secrets.token_bytes(_REF_RANDOM_LETTERS).translate(_LETTER_OF_BYTE).decode("ascii")
    time_ = int(now * 1000)
    pairs = (_PAIRS[time_ >> 30 & 1023], _PAIRS[time_ >> 20 & 1023], _PAIRS[time_ >> 10 & 1023], _PAIRS[time_ & 1023])
    return f"{_REF_ALPHABET[time_ >> 40 & 31]}{''.join(pairs)}{dice}"


@asynccontextmanager
async def within(seconds: float) -> AsyncGenerator[None]:
    """Raise TimeoutError in the block after *seconds*. If the process stood still, read first what came meanwhile."""
    async with asyncio.timeout(None) as limit:
        timer = call_end(limit, seconds)
        try:
            yield
        finally:
            timer.cancel()


def call_end(limit: asyncio.Timeout, seconds: float) -> asyncio.TimerHandle:
    """End *limit* after *seconds*, as `within` does, unless the returned handle is cancelled before."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds

    def end() -> None:
        is_held_up = loop.time() - due > HELD_UP_SECONDS
        limit.reschedule(loop.time() + HELD_UP_SECONDS if is_held_up else due)

    return loop.call_at(due, end)
