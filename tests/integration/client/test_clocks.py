"""Processes whose clocks differ share the work on one store without taking it from each other."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

import audioext as ax
from audioext.runtime.poller import CONCURRENT_POLLS
from audioext.stores.base import Stored
from tests.support.api import Api
from tests.support.clock import JumpClock

SKEW_SECONDS = 3_600.0
PACE = ax.Pace(first=10.0, every=10.0, slowest=10.0)


async def test_clocks_an_hour_apart_cost_few_status_calls(api: Api, clock: JumpClock, tmp_path: Path) -> None:
    """Two clients whose clocks are an hour apart poll a job about as often as one client would."""
    api.is_done = False
    ahead = evolve(clock.clock, now=lambda: clock.now() + SKEW_SECONDS)
    store, seconds = f"sqlite:///{tmp_path}/jobs.db", 120
    async with (
        ax.Client(api.provider(pace=PACE), store=store, clock=clock.clock) as one,
        ax.Client(api.provider(pace=PACE), store=store, clock=ahead) as other,
    ):
        await one.extend(audio_id="x", model="V5")
        for _ in range(seconds):
            await clock.run(clock.sleep(1.0), step=1.0)
        calls = [sum(client.stats().polls.values()) for client in (one, other)]

    by_pace = seconds / PACE.every
    assert by_pace / 2 <= sum(calls) <= 2 * by_pace


async def test_correcting_the_clock_gives_up_no_job(api: Api, clock: JumpClock) -> None:
    """A job that was submitted with last week's time is not given up when the machine's clock is corrected."""
    api.is_done, behind = False, [7 * 86_400.0]
    slow = evolve(clock.clock, now=lambda: clock.now() - behind[0])
    async with ax.Client(api.provider(pace=PACE), clock=slow, store=ax.MemoryStore()) as client:
        job = await client.extend(audio_id="x", model="V5")
        behind[0] = 0.0
        for _ in range(60):
            await clock.run(clock.sleep(1.0), step=1.0)
        assert sum(client.stats().polls.values())
        assert not job.record.is_final

        api.is_done = True
        assert 1 == len((await clock.run(job.result(), step=1.0)).tracks)


async def test_setting_the_clock_ahead_causes_no_busy_loop(api: Api, clock: JumpClock) -> None:
    """After the clock is set ahead, a job with an unknown outcome is read now and then, not in a busy loop."""
    api.codes, ahead = [0], [0.0]
    fast = evolve(clock.clock, now=lambda: clock.now() + ahead[0])
    store = ax.MemoryStore()
    async with ax.Client(api.provider(pace=PACE), clock=fast, store=store) as client:
        job = await client.extend(audio_id="x", model="V5")
        ahead[0] = 7 * 86_400.0
        looks, read = [0], store.read

        async def counted(ref: str, *, after: int = 0) -> Stored | None:
            looks[0] += 1
            return await read(ref, after=after)

        store.read = counted  # type: ignore[method-assign]  # counts the call and passes it on
        for _ in range(60):
            await clock.run(clock.sleep(1.0), step=1.0)
        assert not job.record.is_final
        assert looks[0] <= 5


async def test_jobs_stored_by_a_clock_that_was_ahead_are_polled(api: Api, clock: JumpClock, tmp_path: Path) -> None:
    """After a restart with the right time, a client soon polls every job that was stored by a clock that was ahead."""
    api.is_done = False
    ahead = evolve(clock.clock, now=lambda: clock.now() + SKEW_SECONDS)
    store, jobs = f"sqlite:///{tmp_path}/jobs.db", 2 * CONCURRENT_POLLS + 1
    pace = evolve(PACE, first=1_000.0, every=1_000.0, slowest=1_000.0)
    provider = api.provider(pace=pace, limits=ax.Limits(queries=None))
    async with ax.Client(provider, store=store, clock=ahead) as one:
        for _ in range(jobs):
            await one.extend(audio_id="x", model="V5")
    async with ax.Client(provider, store=store, clock=clock.clock) as other:
        for _ in range(20):
            await clock.run(clock.sleep(1.0), step=1.0)

        assert jobs == sum(other.stats().polls.values())
