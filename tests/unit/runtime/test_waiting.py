"""A wait for an event, bounded by any clock."""

from __future__ import annotations

import asyncio

import pytest

from audioext.clock import Clock
from audioext.testing.clock import JumpClock
from tests.support.clock import SOON_SECONDS
from tests.support.processes import LOOP_CLOCK, loop_time


async def test_a_wait_ends_with_its_event() -> None:
    """A wait ends as soon as its event is set."""
    event, began_at = asyncio.Event(), loop_time()
    asyncio.get_running_loop().call_later(2.0, event.set)
    await LOOP_CLOCK.wait_for(event, 60.0)

    assert began_at + 2.0 == loop_time()


async def test_a_wait_ends_with_its_time() -> None:
    """A wait whose time has passed ends without an error, and leaves the event unset."""
    event, began_at = asyncio.Event(), loop_time()
    await LOOP_CLOCK.wait_for(event, 60.0)

    assert (began_at + 60.0, False) == (loop_time(), event.is_set())


async def test_a_wait_for_what_has_happened_is_over_at_once() -> None:
    """A wait for an event that is already set returns at once."""
    event, began_at = asyncio.Event(), loop_time()
    event.set()
    await LOOP_CLOCK.wait_for(event, 60.0)

    assert began_at == loop_time()


async def test_a_clock_that_is_moved_ends_a_wait() -> None:
    """The time that bounds a wait is the clock's own, so that moving the clock ends it."""
    jumping, event = JumpClock(), asyncio.Event()
    waiting = asyncio.create_task(jumping.clock.wait_for(event, 3_600.0))
    await jumping.advance(3_599.0)
    was_done = waiting.done()
    await jumping.advance(1.0)

    assert (False, True) == (was_done, waiting.done())
    await waiting


@pytest.mark.parametrize("clock", [LOOP_CLOCK, JumpClock().clock], ids=["loop", "jumping"])
async def test_a_wait_that_is_cancelled_leaves_nothing_behind(clock: Clock) -> None:
    """Cancelling a wait propagates to the waiter, and leaves no task behind."""
    waiting = asyncio.create_task(clock.wait_for(asyncio.Event(), 60.0))
    await asyncio.sleep(1.0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)

    assert waiting.cancelled()
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_a_clock_that_jumps_before_a_timer_runs_takes_it_along() -> None:
    """A timer fires at its time, even if the clock jumps before the event loop runs."""
    jump, called = JumpClock(time=100.0), asyncio.Event()

    timer = jump.clock.call_later(5.0, called.set)
    jump.time += 5.0  # the loop has not run meanwhile
    async with asyncio.timeout(SOON_SECONDS):
        await called.wait()

    timer.cancel()
