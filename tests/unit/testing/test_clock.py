"""The jumping clock: sleepers wake in order, and long waits take no real time."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.testing.clock import LEAST_SHARE, JumpClock

DAY_SECONDS = 86_400.0


async def test_it_begins_now_and_stands_still() -> None:
    """The clock starts at the true time, and stands still until it is moved."""
    clock = JumpClock()
    assert abs(time.time() - clock.time) < 60
    began_at = clock.time
    await asyncio.sleep(0)
    assert began_at == clock.clock.now() == clock.clock.monotonic()
    await clock.advance(5.5)
    assert began_at + 5.5 == clock.now()


async def test_a_sleeper_does_not_wake_too_early() -> None:
    """A sleeper wakes when the clock reaches its time and not before, and a sleep of 0 is one turn of the loop."""
    clock = JumpClock(0.0)
    sleeper = asyncio.ensure_future(clock.sleep(10))
    await clock.advance(9.9)
    assert not sleeper.done()
    await clock.advance(0.1)
    assert sleeper.done()
    await clock.sleep(0)


@given(waits=st.lists(st.floats(0.01, 10_000), min_size=1, max_size=8))
def test_sleepers_wake_in_order(waits: list[float]) -> None:
    """When one jump wakes several sleepers, they wake in the order of their times."""

    async def sleep_all() -> list[float]:
        clock, woken = JumpClock(0.0), list[float]()

        async def sleep(seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(seconds)

        sleepers = [asyncio.ensure_future(sleep(seconds)) for seconds in waits]
        await clock.advance(10_000)
        await asyncio.gather(*sleepers)
        return woken

    assert sorted(waits) == asyncio.run(sleep_all())


async def test_run_passes_the_time_while_something_is_awaited() -> None:
    """`run` passes a day of one-second sleeps in a moment, and overshoots by a twentieth at most."""
    clock = JumpClock(0.0)

    async def nap() -> str:
        while clock.time < DAY_SECONDS:
            await clock.sleep(1.0)
        return "rested"

    async with asyncio.timeout(20):
        assert "rested" == await clock.run(nap())
    assert DAY_SECONDS <= clock.time <= DAY_SECONDS * (1 + LEAST_SHARE) + 1


async def test_what_is_awaited_may_fail_or_be_cancelled() -> None:
    """`run` raises the error of its awaitable, and when cancelled it cancels that too."""
    clock = JumpClock(0.0)

    async def fail() -> None:
        await clock.sleep(3)
        message = "no"
        raise ax.ConfigError(message)

    with pytest.raises(ax.ConfigError, match="no"):
        await clock.run(fail())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await clock.run(asyncio.Event().wait())
    sleeper = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.gather(sleeper, return_exceptions=True)
    await clock.run(clock.sleep(2))
    await clock.advance(1)
