"""Waiting: private, bounded, repeatable, and never in the way of the task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import attrs
import pytest

import audioext as ax
from audioext.runtime.waiters import Registry
from audioext.sandbox import Sandbox

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]


async def extend(client: ax.Client, sandbox: Sandbox) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id=sandbox.track_ids[0], model="V5")


async def test_stages_can_be_awaited_again_and_in_any_order(sandbox: Sandbox, make_client: MakeClient) -> None:
    """`complete`, `text`, `first` and the job itself can be awaited any number of times."""
    client = await make_client(sandbox)
    job = await extend(client, sandbox)

    complete = await job.complete
    first, text = await job.first, await job.text
    again = job.first

    assert [ax.Stage.COMPLETE, ax.Stage.FIRST, ax.Stage.TEXT] == [complete.stage, first.stage, text.stage]
    assert (await again, await again) == (first, first)
    assert await job == await job


async def test_every_iteration_replays_from_the_beginning(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A second iteration over a finished job tells the same events."""
    client = await make_client(sandbox)
    job = await extend(client, sandbox)

    once = [event async for event in job]
    twice = [event async for event in job]

    assert once == twice
    assert [2, 3, 4] == [int(event.stage) for event in once]


async def test_a_wait_that_times_out_leaves_the_job_alone(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """A timeout is also a TimeoutError, holds the job, and disturbs no other waiter."""
    sandbox = await make_sandbox(speed=100)
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    other = asyncio.create_task(job.result())

    with pytest.raises(TimeoutError) as caught:
        await job.wait(ax.Stage.COMPLETE, timeout=0.01)

    assert isinstance(caught.value, ax.StageTimeoutError)
    assert job is caught.value.job
    assert await other == await job


async def test_a_cancelled_wait_disturbs_nobody(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Cancelling one waiter leaves the others and the task as they were."""
    sandbox = await make_sandbox(speed=100)
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    waits = [asyncio.ensure_future(job.wait()) for _ in range(3)]
    await job.text
    waits[1].cancel()

    outcomes = await asyncio.gather(*waits, return_exceptions=True)

    assert [False, True, False] == [isinstance(outcome, BaseException) for outcome in outcomes]


async def test_wait_timeout_bounds_every_await(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Without a timeout of its own, a wait ends after the client's `wait_timeout`."""
    sandbox = await make_sandbox(speed=1)
    client = await make_client(sandbox, wait_timeout=0.05)
    job = await extend(client, sandbox)

    with pytest.raises(ax.StageTimeoutError):
        await job
    with pytest.raises(ax.StageTimeoutError):
        async for _ in job:
            pass


@pytest.mark.parametrize("poll", [False, True])
async def test_a_failed_task_raises_with_its_reason(
    poll: bool, make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """The failure tells the provider's code, our reason and what is known of the money; text was reached."""
    sandbox = await make_sandbox(faults=["error=first:501"])
    client = await make_client(sandbox, poll=poll)
    failures: list[ax.Failure] = []

    @client.on_failure
    async def sorry(failure: ax.Failure) -> None:
        failures.append(failure)

    job = await extend(client, sandbox)
    with pytest.raises(ax.JobFailedError) as caught:
        await job
    await client.aclose()

    assert ax.FailureReason.GENERATION is caught.value.reason
    assert [job.ref] == [failure.ref for failure in failures]


async def test_closing_ends_the_waits_and_keeps_the_job(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Open waits raise ClientClosedError, and another client on the same store finishes the job."""
    sandbox = await make_sandbox(speed=100)
    store = ax.MemoryStore()
    client = await make_client(sandbox, poll=True, store=store)
    job = await extend(client, sandbox)
    wait = asyncio.create_task(job.result())
    await job.text

    await client.aclose()
    with pytest.raises(ax.ClientClosedError):
        await wait

    successor = await make_client(sandbox, poll=True, store=store)
    assert 2 == len((await (await successor.job(job.ref))).tracks)
    assert 1 == len(sandbox.submissions)


async def test_refresh_asks_now(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """With every webhook dropped and a slow pace, refresh brings the result."""
    sandbox = await make_sandbox(faults=["drop"])
    provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(quiet=900))
    client = await make_client(sandbox, provider)
    job = await extend(client, sandbox)
    await sandbox.settled()

    await job.refresh()

    assert ax.Verdict.COMPLETE is job.verdict


async def test_dropped_webhooks_are_made_up_for_by_the_poll(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """When no webhook comes, the status poll ends the same await."""
    sandbox = await make_sandbox(faults=["drop"])
    provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=0.01, every=0.02, quiet=0.05))
    client = await make_client(sandbox, provider)

    song = await (await extend(client, sandbox))

    assert 2 == len(song.tracks)
    assert () == tuple(sandbox.deliveries)


async def test_an_unknown_ref_is_told(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A ref that the store does not hold is a problem of the request."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="holds no job"):
        await client.job("0" * 24)


async def test_a_job_expires_after_a_last_status_call(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """An open job is given up at its deadline, leaves the open set, and its wait says so."""
    sandbox = await make_sandbox(speed=1)
    client = await make_client(sandbox, poll=True, expire_after=0.2)
    job = await extend(client, sandbox)

    with pytest.raises(ax.JobExpiredError):
        await job

    assert ax.Verdict.EXPIRED is job.verdict
    assert [] == [open_job.ref async for open_job in client.jobs(open=True)]


async def test_a_finished_job_nobody_holds_is_forgotten(sandbox: Sandbox, make_client: MakeClient) -> None:
    """The registry keeps no job that nobody holds."""
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    ref = job.ref
    await job
    del job

    assert client._registry.is_held(ref) is False  # noqa: SLF001 - only memory tells


async def test_who_reads_the_truth_wakes_those_who_wait(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A job that is looked up again is news for every waiter of this process, though no wake-up comes."""
    store = ax.MemoryStore()
    submitter = await make_client(sandbox, store=store)
    ref = (await extend(submitter, sandbox)).ref
    early = await store.get(ref)
    assert early is not None
    await (await submitter.job(ref))
    late = await store.get(ref)
    assert late is not None
    registry = Registry()
    desk = attrs.evolve(submitter._desk, registry=registry)  # noqa: SLF001 - a process that hears of no change
    held = desk.job(early)
    bell = registry.bell(ref)

    assert held is desk.job(late)

    assert bell.done()
    assert ax.Stage.COMPLETE is held.stage
