"""The pytest plugin's fixtures."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from audioext.state.schedule import MAX_ATTEMPTS
from audioext.testing.clients import ClientFactory
from audioext.testing.clock import JumpClock
from audioext.testing.fixtures import BRIEF

By = Literal["webhook", "poll"]


async def extend(client: ax.Client, sandbox: Sandbox) -> ax.Job:
    """Submit a task."""
    return await client.extend(audio_id=sandbox.track_ids[0], model="V5")


@pytest.mark.parametrize("by", ["webhook", "poll"])
@pytest.mark.parametrize("name", ["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"])
@pytest.mark.audioext_sandbox(hmac_key="key", ready_seconds=9.0, extension_seconds=8.0)
async def test_every_provider_answers_by_webhook_and_by_poll(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox, name: str, by: By
) -> None:
    """A client of any provider gets its song by webhook and by poll; the marker's settings reach the sandbox."""
    client = await audioext_client(name, by=by)
    told: list[ax.StageEvent] = []

    @client.on(ax.Stage.COMPLETE)
    async def note(event: ax.StageEvent) -> None:
        told.append(event)

    model: dict[str, Any] = {} if name == "musicgpt" else {"model": "V5"}
    job = await client.extend(url=audioext_sandbox.tune_url, continue_at=8.0, **model)
    await client.settled()
    song = await job

    assert job.record.is_final
    assert [(job.ref, by)] == [(event.ref, event.source) for event in told]
    assert 1 == len(audioext_sandbox.submits)
    assert 16 <= (song.tracks[0].duration or 16)


@pytest.mark.parametrize("by", ["webhook", "poll"])
async def test_a_held_stage_is_not_shown_until_it_is_released(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox, by: By
) -> None:
    """Neither webhooks nor polls show a held stage, and `settled` waits for all that comes before it."""
    client = await audioext_client(by=by)
    told: list[str] = []
    for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):

        @client.on(stage)
        async def note(event: ax.StageEvent) -> None:
            told.append(event.stage.name)

    audioext_sandbox.hold()
    job = await extend(client, audioext_sandbox)
    seen = []
    for word in ("text", "first", "complete"):
        await client.settled()
        assert job.stage is not None
        seen.append((job.stage.name, *told))
        audioext_sandbox.release(word)
    await job
    await client.settled()

    assert [("SUBMITTED",), ("TEXT", "TEXT"), ("FIRST", "TEXT", "FIRST")] == seen
    assert ["COMPLETE"] == told[2:]
    assert audioext_sandbox.is_settled


async def test_one_stage_is_held(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """A single stage can be held, later stages follow its release, and an unknown stage is refused."""
    client = await audioext_client()
    audioext_sandbox.hold("first")
    job = await extend(client, audioext_sandbox)
    await client.settled()
    before = job.stage
    audioext_sandbox.release()
    await client.settled()

    assert (ax.Stage.TEXT, ax.Stage.COMPLETE) == (before, job.stage)
    with pytest.raises(ValueError, match="text, first, complete"):
        audioext_sandbox.hold("third")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.audioext_faults("drop")
async def test_polls_come_when_time_flies(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox, audioext_clock: JumpClock
) -> None:
    """If webhooks are lost, the jumping clock skips the minutes until a poll finds the song."""
    client, began_at = await audioext_client(), audioext_clock.time
    job = await extend(client, audioext_sandbox)

    assert (await audioext_clock.run(job)).tracks
    assert 140 < audioext_clock.time - began_at < 200


@pytest.mark.audioext_faults("lose_response=unmade")
async def test_the_grace_period_takes_no_time(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox, audioext_clock: JumpClock
) -> None:
    """A submit without an answer becomes unknown after the provider's grace period, without a real wait."""
    client = await audioext_client(audioext_client.provider("kie", grace=60))
    began_at = audioext_clock.time
    job = await extend(client, audioext_sandbox)
    with pytest.raises(ax.SubmitUnknownError):
        await audioext_clock.run(job)

    assert 60 <= audioext_clock.time - began_at < 70


async def test_two_accounts_at_one_api_have_names(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """`provider` takes the settings of its class, `name` among them."""
    accounts = (audioext_client.provider("kie", name=f"kie-{name}") for name in ("acme", "bolt"))
    client = await audioext_client(*accounts)
    job = await client.extend(url=audioext_sandbox.tune_url, model="V5", continue_at=2, provider="kie-bolt")

    assert "kie-bolt" == (await job).provider


async def test_a_handlers_back_off_takes_no_time(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox, audioext_clock: JumpClock
) -> None:
    """`settled` does not wait for a failed handler's retry, which the clock triggers."""
    client = await audioext_client()
    tries: list[float] = []

    @client.on(ax.Stage.COMPLETE)
    async def fail(event: ax.StageEvent) -> None:
        tries.append(audioext_clock.time)
        message = "not today"
        raise RuntimeError(message)

    job = await extend(client, audioext_sandbox)
    await client.settled()
    assert 1 == len(tries)
    while not job.record.handler_faults:
        await audioext_clock.advance(300)
        await client.settled()

    assert MAX_ATTEMPTS == len(tries)


@pytest.mark.parametrize("flies", [True, False])
async def test_expiry_takes_no_time(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox, audioext_clock: JumpClock, flies: bool
) -> None:
    """A job expires after a day, whether the clock runs through it or jumps."""
    client = await audioext_client(wait_timeout=200_000)
    audioext_sandbox.hold("complete")
    job = await extend(client, audioext_sandbox)
    if not flies:
        await client.settled()
        await audioext_clock.advance(86_401)

    with pytest.raises(ax.JobExpiredError):
        await audioext_clock.run(job)


async def test_what_was_opened_is_closed(audioext_sandbox: Sandbox) -> None:
    """Clients are closed after their test, including one that an application opens."""
    async with ClientFactory(sandbox=audioext_sandbox) as factory:
        client, own = await factory("kie", "vidgo", by="poll"), await factory(open=False)
        assert "new" in repr(own)
        async with own:
            pass
        await own.aclose()

    assert ["closed", "closed"] == [repr(each)[:-1].split()[-1] for each in (client, own)]


async def test_what_runs_at_the_same_time_shares_nothing(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox
) -> None:
    """Sandboxes and clients that run at the same time, as on several workers, have their own ports and tasks."""
    settings: dict[str, Any] = dict(BRIEF)
    async with Sandbox(**settings) as sandbox, ClientFactory(sandbox=sandbox) as factory:
        clients = await audioext_client(), await audioext_client(), await factory()
        for client, its in zip(clients, (audioext_sandbox, audioext_sandbox, sandbox), strict=True):
            await client.run(ax.Extend(audio_id=its.track_ids[0], model="V5"))

    assert (2, 1) == (len(audioext_sandbox.tasks), len(sandbox.tasks))
    assert 3 == len({client.public_url for client in clients})


async def test_settled_names_the_handler_that_still_runs(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox
) -> None:
    """`settled` names the handler that is still running."""
    client, done = await audioext_client(), asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def wait(event: ax.StageEvent) -> None:
        await done.wait()

    job = await extend(client, audioext_sandbox)
    with pytest.raises(TimeoutError, match=f"handler of <Job {job.ref}"):
        await client.settled(timeout=0.3)
    done.set()
    await client.settled()


async def test_what_handlers_submit_is_waited_for(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """`settled` waits for the last task of a chain, and the test can read the submits."""
    client = await audioext_client()

    @client.on(ax.Stage.COMPLETE)
    async def go_on(event: ax.StageEvent) -> None:
        if len(audioext_sandbox.submits) < 3:
            await client.submit(event.tracks[0].extend())

    await extend(client, audioext_sandbox)
    await client.settled()

    assert 3 == len(audioext_sandbox.submits)
    assert [] == [job async for job in client.jobs(open=True)]
    assert {"audioId", "defaultParamFlag", "model"} == set(audioext_sandbox.submits[0])
