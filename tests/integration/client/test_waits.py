"""Waits are independent, bounded and repeatable, and do not affect the task."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import WEB, MakeClient, MakeSandbox
from tests.support.api import Api
from tests.support.clock import SOON_SECONDS, JumpClock, soon

HOUR_SECONDS = 3_600.0
TOLD = [ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE]


async def extend(client: ax.Client) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5")


async def test_stages_can_be_awaited_again_and_in_any_order(api: Api, open_client: MakeClient) -> None:
    """`complete`, `text`, `first` and the job itself can be awaited any number of times."""
    client = await open_client(**WEB)
    job = await extend(client)
    for stage in TOLD:
        await api.call_back(stage.name.lower())

    complete = await job.complete
    first, text = await job.first, await job.text
    again = job.first

    assert [ax.Stage.COMPLETE, ax.Stage.FIRST, ax.Stage.TEXT] == [complete.stage, first.stage, text.stage]
    assert (await again, await again) == (first, first)
    assert await job == await job
    assert (job.ref, "kie", "task-1") == (text.ref, text.provider, text.task_id)


async def test_every_iteration_replays_from_the_beginning(api: Api, open_client: MakeClient) -> None:
    """Iterations begun at the start, in the middle and after the end yield the same events in order."""
    client = await open_client(**WEB)
    job = await extend(client)

    async def iterate() -> list[ax.StageEvent]:
        return [event async for event in job]

    iterations = [asyncio.create_task(iterate())]
    await api.call_back("text")
    await api.call_back("first")
    iterations.append(asyncio.create_task(iterate()))
    await api.call_back("complete")
    iterations.append(asyncio.create_task(iterate()))
    once, twice, thrice = await asyncio.gather(*iterations)

    assert once == twice == thrice
    assert TOLD == [event.stage for event in once]
    assert {"webhook"} == {event.source for event in once}


async def test_an_iteration_waits_for_each_stage(api: Api, open_client: MakeClient) -> None:
    """An event is yielded as soon as its stage is reached, with the tracks known then."""
    client = await open_client(**WEB)
    job = await extend(client)
    events = aiter(job)

    for stage, tracks in (("text", 0), ("first", 1), ("complete", 1)):
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)  # it has begun
        assert not waiting.done()
        await api.call_back(stage)
        event = await waiting
        assert (stage, tracks) == (event.stage.name.lower(), len(event.tracks))
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_a_wait_that_times_out_leaves_the_job_alone(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """A StageTimeoutError is a TimeoutError, holds the job and its stage, and affects no other waiter."""
    api.is_done = False
    client = await open_client(clock=clock.clock, wait_timeout=HOUR_SECONDS, **WEB)
    job = await extend(client)
    await api.call_back("text")
    other = asyncio.create_task(job.result())
    wait = asyncio.create_task(job.wait(ax.Stage.COMPLETE, timeout=240))

    await clock.advance(239.0)
    assert not wait.done()
    await clock.advance(1.0)
    with pytest.raises(TimeoutError, match="it is at text") as caught:
        await wait
    await api.call_back("complete")

    assert isinstance(caught.value, ax.StageTimeoutError)
    assert job is caught.value.job
    assert await other == await job


async def test_a_cancelled_wait_affects_no_other(api: Api, open_client: MakeClient) -> None:
    """Cancelling one waiter does not affect the others or the task."""
    client = await open_client(**WEB)
    job = await extend(client)
    waits = [asyncio.ensure_future(job.wait()) for _ in range(3)]
    await api.call_back("text")
    await job.text
    waits[1].cancel()
    await api.call_back("complete")

    outcomes = await asyncio.gather(*waits, return_exceptions=True)

    assert [False, True, False] == [isinstance(outcome, BaseException) for outcome in outcomes]


async def test_wait_timeout_bounds_every_await(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """Each wait and iteration without its own timeout ends after the client's `wait_timeout`."""
    api.is_done = False
    client = await open_client(clock=clock.clock, wait_timeout=HOUR_SECONDS, **WEB)
    job = await extend(client)

    async def iterate() -> None:
        async for _ in job:
            pass

    waits = [asyncio.ensure_future(wait) for wait in (job.result(), job.wait(ax.Stage.TEXT), iterate())]
    await clock.advance(HOUR_SECONDS - 1.0)
    assert [False] * 3 == [wait.done() for wait in waits]
    await clock.advance(1.0)

    for wait in waits:
        with pytest.raises(ax.StageTimeoutError):
            await wait


@pytest.mark.parametrize("seconds", ["5", float("nan"), 0, -1.0, float("inf"), True, 10**400, None.__class__])
async def test_a_wrong_timeout_is_refused(seconds: Any, api: Api, open_client: MakeClient) -> None:
    """A wrong timeout is refused with a description of valid ones before anything is sent or awaited."""
    client = await open_client(**WEB)

    with pytest.raises(ax.RequestError) as refused:
        await client.run(ax.Extend.draft(audio_id="x"), timeout=seconds)
    assert ["timeout", "model"] == [problem.field for problem in refused.value.problems]
    assert [] == api.posts

    job = await extend(client)
    for wait in (job.wait, job.result):
        with pytest.raises(ax.RequestError, match="timeout: must be a finite number of seconds above 0"):
            await wait(timeout=seconds)


async def test_a_stages_name_is_not_a_stage(api: Api, open_client: MakeClient) -> None:
    """The name of a stage is not accepted in its place."""
    job = await extend(await open_client(**WEB))

    with pytest.raises(ax.RequestError, match=r"stage: must be one like Stage.FIRST, not 'first'"):
        await job.wait("first")  # type: ignore[arg-type]  # as a user without a type checker may write


async def test_a_run_is_bounded_by_the_clients_wait_timeout(api: Api, open_client: MakeClient) -> None:
    """`run` without a timeout ends after the client's `wait_timeout`."""
    client = await open_client(wait_timeout=0.05, **WEB)

    async with asyncio.timeout(SOON_SECONDS):
        with pytest.raises(ax.StageTimeoutError):
            await client.run(ax.Extend(audio_id="x", model="V5"))

    assert ["task-1"] == api.made


async def test_run_is_bounded_after_the_submit(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """The timeout of `run` ends the wait, not the job."""
    api.is_done = False
    store = ax.MemoryStore()
    client = await open_client(store=store, clock=clock.clock, **WEB)
    run = asyncio.create_task(client.run(ax.Extend(audio_id="x", model="V5"), timeout=600))
    await api.arrived.wait()
    await soon(lambda: store.find(provider="kie", task_id="task-1"))
    await clock.advance(600.0)

    with pytest.raises(ax.StageTimeoutError) as caught:
        await run
    assert ax.Verdict.OPEN is caught.value.job.verdict


@pytest.mark.parametrize("poll", [False, True])
async def test_a_failed_task_raises_with_its_reason(
    poll: bool, make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """The failure has the provider's code, our reason and the tracks; the stages before it can still be awaited."""
    sandbox = await make_sandbox(faults=["error=complete:501"])
    client = await make_client(sandbox, poll=poll)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    with pytest.raises(ax.JobFailedError) as caught:
        await job

    assert (ax.FailureReason.GENERATION, job) == (caught.value.reason, caught.value.job)
    assert job.failure is not None
    assert (job.ref, caught.value.reason) == (job.failure.ref, job.failure.reason)
    if not poll:
        assert "501" == caught.value.code
        assert ax.Stage.FIRST is (await job.first).stage
        assert [event.stage async for event in first_two(job)] == TOLD[:2]


async def first_two(job: ax.Job) -> AsyncIterator[ax.StageEvent]:
    """Yield the events of a job that fails after FIRST."""
    events = aiter(job)
    yield await anext(events)
    yield await anext(events)
    with pytest.raises(ax.JobFailedError):
        await anext(events)


async def test_a_failed_job_that_rises_gives_its_song(api: Api, open_client: MakeClient) -> None:
    """A failed job that later completes gives its song to a new wait, while the earlier wait stays failed."""
    client = await open_client(**WEB)
    job = await extend(client)
    await api.call_back("error", code=501)
    with pytest.raises(ax.JobFailedError):
        await job

    await api.call_back("complete")

    assert 1 == len((await job).tracks)
    assert (ax.Verdict.COMPLETE, None) == (job.verdict, job.failure)


async def test_refresh_polls_at_once(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """`refresh` polls at once, with no webhook and no poll due; a failed call raises the provider's error."""
    client = await open_client(clock=clock.clock, **WEB)
    job = await extend(client)
    api.status_codes = [503]
    with pytest.raises(ax.ProviderDownError):
        await job.refresh()
    assert [job] == [found async for found in client.jobs(open=True)]

    assert job is await job.refresh()

    assert ax.Verdict.COMPLETE is job.verdict
    assert "poll" == (await job.complete).source


async def test_without_a_webhook_a_poll_completes_the_await(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """If no webhook comes for the provider's quiet time, a status call completes the same await."""
    client = await open_client(clock=clock.clock, wait_timeout=HOUR_SECONDS, **WEB)
    job = await extend(client)
    wait = asyncio.create_task(job.result())

    await clock.advance(29.0)
    assert not api.asked.is_set()
    song = await clock.run(wait)

    assert 1 == len(song.tracks)
    assert 30.0 <= clock.time - job.record.created_at < 60.0


async def test_an_unknown_ref_is_an_error(open_client: MakeClient) -> None:
    """An unknown ref is a problem of the call, whose message says nothing of sending (newcomer A)."""
    client = await open_client()

    with pytest.raises(ax.RequestError) as refused:
        await client.job("typo")

    assert "1 problem with this call:\n  ref: this store holds no job 'typo'" == str(refused.value)


async def test_an_unreferenced_job_is_dropped_from_memory(api: Api, open_client: MakeClient, sandbox: Sandbox) -> None:
    """A finished job that nobody references is dropped from memory, and can be looked up again."""
    client = await open_client(**WEB)
    job = await extend(client)
    assert job == await client.job(job.ref)
    await api.call_back("complete")
    await job
    ref, gone = job.ref, weakref.ref(job)
    del job
    gc.collect()

    assert gone() is None
    assert ref == (await client.job(ref)).ref


async def test_all_handles_of_a_job_are_equal(api: Api, open_client: MakeClient) -> None:
    """All handles of a job are equal and share its state, however they were looked up."""
    client = await open_client(**WEB)
    job = await extend(client)

    assert job == await client.job(job.ref)
    assert 1 == len({job, await client.job(job.ref)})
    assert job != job.ref
    assert [job] == [found async for found in client.jobs(open=True)]
    assert f"<Job {job.ref} kie, submitted>" == repr(job)
    wait = asyncio.create_task((await client.job(job.ref)).result())
    await api.call_back("complete")
    async with asyncio.timeout(SOON_SECONDS):
        assert await wait == await job


# --- expiry ------------------------------------------------------------------------------------------------------


async def test_a_job_expires_after_a_last_status_call(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """An open job expires at its deadline after a last status call; a late callback still completes it."""
    api.is_done = False
    client = await open_client(clock=clock.clock, expire_after=HOUR_SECONDS, wait_timeout=HOUR_SECONDS * 3, **WEB)
    job = await extend(client)
    wait = asyncio.create_task(job.result())

    await clock.advance(HOUR_SECONDS - 1.0)
    assert not wait.done()
    api.asked.clear()
    with pytest.raises(ax.JobExpiredError):
        await clock.run(wait)
    assert api.asked.is_set()

    assert ax.Verdict.EXPIRED is job.verdict
    assert [] == [open_job.ref async for open_job in client.jobs(open=True)]
    await api.call_back("complete")
    assert 1 == len((await job).tracks)


@pytest.mark.parametrize(("failures", "is_given_up"), [(3, False), (10_000, True)])
async def test_a_job_does_not_expire_while_its_provider_is_briefly_down(
    failures: int, is_given_up: bool, api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A job whose provider is briefly down does not expire; after twice its time it does, with the last answer."""
    store = ax.MemoryStore()
    settings = {"store": store, "clock": clock.clock, "expire_after": HOUR_SECONDS, "wait_timeout": 5 * HOUR_SECONDS}
    api.is_done = False
    first = await open_client(**settings)
    ref = (await extend(first)).ref
    await first.aclose()

    await clock.advance(HOUR_SECONDS + 600.0)
    api.is_done, api.status_codes = True, [503] * failures
    second = await open_client(**settings)
    job = await second.job(ref)
    result = asyncio.create_task(job.result())
    if is_given_up:
        await clock.advance(HOUR_SECONDS)
        with pytest.raises(ax.JobExpiredError, match=r"at its deadline \(it is at submitted; its last.* said: .*503"):
            await clock.run(result)
        assert clock.time - job.record.created_at >= 2 * HOUR_SECONDS
        assert "503" in str(job.record.complaint)
    else:
        assert 1 == len((await clock.run(result)).tracks)
