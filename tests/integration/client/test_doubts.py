"""A status that may be final or premature counts when it is still the same some time later."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from yarl import URL

import audioext as ax
from audioext.models.entries import DONE_SECONDS
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import BRISK, Api
from tests.support.clock import JumpClock

AUDIO = "https://files.example/a.mp3"


async def extend(client: ax.Client) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5")


async def musicgpt(
    stack: AsyncExitStack, clock: JumpClock, answers: Mapping[str, Mapping[str, object]], **made: str
) -> ax.Job:
    """Return a job at a stand-in for MusicGPT, whose status calls return *answers*."""

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"success": True, "task_id": "t1", **made})
        asked = request.query.get("conversion_id") or request.query["task_id"]
        return web.json_response({"success": True, "conversion": {"task_id": "t1", **answers[asked]}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    provider = ax.MusicGpt("0123456789abcdef0123", base_url=f"http://{host}:{port}", pace=BRISK)
    client = await stack.enter_async_context(ax.Client(provider, clock=clock.clock))
    return await client.extend(url="https://files.example/source.mp3", continue_at=5, prompt="x")


async def test_a_task_that_is_done_without_a_track_fails(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """A job fails when its status says done without a track twice, some time apart; a late song still completes it."""
    api.is_done, api.word = False, "SUCCESS"
    client = await open_client(store=ax.MemoryStore(), clock=clock.clock, **WEB)
    job = await extend(client)
    await job.refresh()
    assert (ax.Verdict.OPEN, clock.time) == (job.verdict, job.record.doubted_at)

    await clock.advance(DONE_SECONDS)
    await job.refresh()
    with pytest.raises(ax.JobFailedError, match="done, without a track") as failed:
        await job
    assert (None, ax.FailureReason.GENERATION) == (failed.value.charged, failed.value.reason)

    assert 200 == await api.call_back("complete")
    assert 1 == len((await job).tracks)


async def test_a_task_that_shows_its_track_late_does_not_fail(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A job does not fail when its status says done shortly before it shows the files."""
    api.is_done, api.word = False, "SUCCESS"
    client = await open_client(store=ax.MemoryStore(), clock=clock.clock, **WEB)
    job = await extend(client)
    await job.refresh()

    api.is_done = True
    await clock.advance(DONE_SECONDS)
    await job.refresh()
    assert 1 == len((await job).tracks)


async def test_progress_clears_a_doubtful_failure(api: Api, stack: AsyncExitStack, clock: JumpClock) -> None:
    """Doubtful failures end a job only if no status call between them reports progress, even in words seen before."""
    api.is_done, provider = False, api.provider(pace=ax.Pace(first=60.0, slowest=60.0))
    job = await extend(await stack.enter_async_context(ax.Client(provider, clock=clock.clock)))
    for word, seconds in (("CALLBACK_EXCEPTION", 1.0), ("PENDING", DONE_SECONDS)) * 3:
        api.word = word
        await job.refresh()
        doubted_at = None if word == "PENDING" else clock.time
        assert (ax.Verdict.OPEN, doubted_at) == (job.verdict, job.record.doubted_at)
        await clock.advance(seconds)

    api.word = "CALLBACK_EXCEPTION"
    for verdict in (ax.Verdict.OPEN, ax.Verdict.FAILED):
        await job.refresh()
        assert verdict is job.verdict
        await clock.advance(DONE_SECONDS)


@pytest.mark.parametrize("made", [{}, {"conversion_id_1": "a"}, {"conversion_id_1": "a", "conversion_id_2": "b"}])
async def test_a_second_track_that_never_shows_is_not_awaited_for_ever(
    stack: AsyncExitStack, clock: JumpClock, made: dict[str, str]
) -> None:
    """A job completes with one track when the second has no id, or never shows a file."""
    told: dict[str, object] = {"conversion_id": "a", "status": "COMPLETED", "audio_url": AUDIO}
    answers = {"t1": told, "b": {**told, "conversion_id": "b", "audio_url": ""}}
    job = await musicgpt(stack, clock, answers, **made)
    await job.refresh()
    assert (ax.Stage.FIRST, ax.Verdict.OPEN) == (job.stage, job.verdict)

    await clock.advance(DONE_SECONDS)
    await job.refresh()
    assert [("a", AUDIO)] == [(track.id, track.audio_url) for track in (await job).tracks]


async def test_a_second_track_that_is_under_way_is_awaited(stack: AsyncExitStack, clock: JumpClock) -> None:
    """A job stays open while the status of its second track says that the track is being made."""
    told: dict[str, object] = {"conversion_id": "a", "status": "COMPLETED", "audio_url": AUDIO}
    answers: dict[str, dict[str, object]] = {"t1": told, "b": {"conversion_id": "b", "status": "IN_QUEUE"}}
    job = await musicgpt(stack, clock, answers, conversion_id_1="a", conversion_id_2="b")
    await job.refresh()
    await clock.advance(DONE_SECONDS)
    await job.refresh()
    assert (ax.Stage.FIRST, ax.Verdict.OPEN) == (job.stage, job.verdict)

    answers["b"] = {"conversion_id": "b", "status": "COMPLETED", "audio_url": "https://files.example/b.mp3"}
    await job.refresh()
    assert ["a", "b"] == [track.id for track in (await job).tracks]


async def test_a_job_is_polled_where_it_was_submitted(api: Api, stack: AsyncExitStack) -> None:
    """A job is polled at the API in its journal if the client has the same key and no base URL of its own."""
    store, key = ax.MemoryStore(), "0123456789abcdef0123"
    client = await stack.enter_async_context(ax.Client(api.provider(), store=store))
    record = (await extend(client)).record

    for account, host in (
        (ax.Kie(key), URL(api.base).authority),
        (ax.Kie("another-key-0123456789"), "api.kie.ai:443"),
        (ax.Kie(key, base_url="https://proxy.example/kie"), "proxy.example:443"),
    ):
        assert host == account.build_status(record).url.authority
