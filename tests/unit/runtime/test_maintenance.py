"""Housekeeping: old jobs and deliveries are purged now and then, and a failed purge is repeated."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from audioext.clock import Clock
from audioext.models.entries import MAX_JOURNAL_BYTES, make_entry
from audioext.models.results import Stage
from audioext.runtime.maintenance import EARLY_SHARE, FIRST_PURGE_SECONDS, PURGE_EVERY_SECONDS, Housekeeping
from audioext.state.reading import Reading
from audioext.stores import MemoryStore
from tests.support import tape
from tests.support.lines import fail_at
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import LOOP_CLOCK, Process, loop_time

KEEP_SECONDS = 86_400.0
MIB = 1_048_576


def start_purging(
    process: Process, clock: Clock = LOOP_CLOCK, *, keep: float = KEEP_SECONDS, deliveries_kept: int = 1_000
) -> asyncio.Task[None]:
    """Start purging the store of *process*, which keeps at most 64 MiB of orphans."""
    work = Housekeeping(
        store=process.line,
        clock=clock,
        keep=keep,
        deliveries_kept=deliveries_kept,
        delivery_bytes_kept=EARLY_SHARE * MAX_JOURNAL_BYTES,
    )
    process.journal.on_orphan = work.note_orphan
    return asyncio.create_task(work.run())


async def listed(store: MemoryStore) -> list[str]:
    """Return the refs of all jobs."""
    return [found.index.ref async for found in store.jobs()]


async def test_ended_jobs_are_forgotten_after_a_while(store: MemoryStore, here: Process) -> None:
    """An ended job is purged when its last entry is old enough, an open one never."""
    await here.submit("open")
    ended = await here.submit("ended")
    done = tape.webhook(BEGIN_SECONDS, tape.shown(Stage.COMPLETE, tape.track("one")))
    await here.journal.append(ended, [done])
    purging = start_purging(here)

    await asyncio.sleep(KEEP_SECONDS - 1.0)
    assert ["open", "ended"] == await listed(store)
    await asyncio.sleep(PURGE_EVERY_SECONDS + 2.0)
    assert ["open"] == await listed(store)
    purging.cancel()


@pytest.mark.parametrize(("keep", "deliveries_kept"), [(60.0, 1_000), (KEEP_SECONDS, 0)])
async def test_an_ended_job_is_kept_for_its_handlers(
    store: MemoryStore, here: Process, keep: float, deliveries_kept: int
) -> None:
    """A job that just ended is kept for its handlers for an hour, even if the settings would purge it."""
    purging = start_purging(here, keep=keep, deliveries_kept=deliveries_kept)
    await asyncio.sleep(FIRST_PURGE_SECONDS - 100.0)
    ended = await here.submit("ended")
    done = tape.webhook(loop_time(), tape.shown(Stage.COMPLETE, tape.track("one")))
    await here.journal.append(ended, [done])

    await asyncio.sleep(200.0)
    assert ("purge", ["ended"]) == (here.line.calls[-1], await listed(store))
    await asyncio.sleep(PURGE_EVERY_SECONDS)
    assert [] == await listed(store)
    purging.cancel()


async def test_the_first_purge_comes_after_handlers_had_their_time(here: Process) -> None:
    """The first purge waits some minutes, so that handlers of old jobs can run first."""
    purging = start_purging(here)
    await asyncio.sleep(FIRST_PURGE_SECONDS - 1.0)
    assert [] == here.line.calls
    await asyncio.sleep(2.0)
    assert ["purge"] == here.line.calls
    purging.cancel()


async def test_a_flood_of_deliveries_for_no_job_is_bounded_at_once(store: MemoryStore, here: Process) -> None:
    """A flood of orphans is purged as soon as it exceeds the limit by an eighth; old jobs wait for the hourly purge."""
    ended = await here.submit("ended")
    await here.journal.append(ended, [tape.webhook(BEGIN_SECONDS, tape.shown(Stage.COMPLETE, tape.track("one")))])
    purging = start_purging(here, attrs.evolve(LOOP_CLOCK, now=lambda: loop_time() + 365 * KEEP_SECONDS))
    for number in range(1_001):
        small = make_entry("webhook", BEGIN_SECONDS, body=f"{number}".encode())
        await here.journal.receive(f"small{number}", "tape", Reading(small, problem="nonsense"))
    large = make_entry("webhook", BEGIN_SECONDS, body=bytes(MIB))
    held = []
    for number in range(200):
        await here.journal.receive(f"stranger{number}", "tape", Reading(large, problem="nonsense"))
        await asyncio.sleep(1.0)
        held.append(len([delivery async for delivery in store.deliveries() if len(delivery.body) == MIB]))

    assert 64 + 8 - 1 == max(held)
    assert ["ended"] == await listed(store)
    purging.cancel()


async def test_a_purge_that_fails_is_made_again(here: Process, caplog: pytest.LogCaptureFixture) -> None:
    """A purge that fails is logged, and repeated in an hour."""
    here.line.on_call = fail_at(0)
    purging = start_purging(here)
    await asyncio.sleep(FIRST_PURGE_SECONDS + PURGE_EVERY_SECONDS + 1.0)
    purging.cancel()

    assert ["purge", "purge"] == here.line.calls
    assert 1 == caplog.text.count("could not be purged")


async def test_a_clock_that_is_ahead_for_a_moment_makes_nothing_old(store: MemoryStore, here: Process) -> None:
    """A job is not purged while the clock is ahead for a moment, only if it stays ahead."""
    ahead = [0.0]
    clock = attrs.evolve(LOOP_CLOCK, now=lambda: loop_time() + ahead[-1])
    ended = await here.submit("ended")
    done = tape.webhook(BEGIN_SECONDS, tape.shown(Stage.COMPLETE, tape.track("one")))
    await here.journal.append(ended, [done])
    purging = start_purging(here, clock)
    await asyncio.sleep(1.0)

    ahead.append(365 * KEEP_SECONDS)
    await asyncio.sleep(FIRST_PURGE_SECONDS)
    assert ("purge", ["ended"]) == (here.line.calls[-1], await listed(store))
    ahead.append(0.0)
    await asyncio.sleep(PURGE_EVERY_SECONDS)
    assert ["ended"] == await listed(store)
    ahead.append(365 * KEEP_SECONDS)
    await asyncio.sleep(2 * PURGE_EVERY_SECONDS)
    assert [] == await listed(store)
    purging.cancel()
