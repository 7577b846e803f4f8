"""Whole jobs over response shapes that no page documents, from the submit to the song."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

import audioext as ax
from audioext.bots import ProgressMessages
from audioext.ui.objects import job_object
from tests.support.api import BRISK

KEY = "0123456789abcdef0123"
FILES = "https://lalals.s3.amazonaws.com/conversions/standard"
MADE = {"success": True, "task_id": "t1", "conversion_id_1": "a", "conversion_id_2": "b", "eta": 1}

Answer = Callable[[web.Request], object]


@asynccontextmanager
async def api(
    made: type[ax.Kie | ax.KieJobs | ax.MusicGpt], submit: object, status: Answer
) -> AsyncGenerator[ax.Client]:
    """Open a client of an API that answers any POST with *submit* and any GET with *status*."""

    async def handle(request: web.Request) -> web.Response:
        found = submit if request.method == "POST" else status(request)
        if isinstance(found, web.Response):
            return found
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with ax.Client(made(KEY, base_url=f"http://{host}:{port}", pace=BRISK), wait_timeout=10.0) as client:
            yield client
    finally:
        await runner.cleanup()


def conversion(id_: str, **more: object) -> dict[str, object]:
    """Return a byId answer as on MusicGPT's page: one conversion, with keys without numbers."""
    shown = {"task_id": "t1", "conversion_id": id_, "status": "COMPLETED", "audio_url": f"{FILES}/{id_}.mp3", **more}
    return {"success": True, "conversion": shown}


async def test_the_second_track_is_polled_by_its_own_id() -> None:
    """MusicGPT's status shows one track at a time: the second is polled by its own id, and both are in the song."""
    asked: list[tuple[str | None, str | None]] = []

    def status(request: web.Request) -> object:
        asked.append((request.query.get("task_id"), request.query.get("conversion_id")))
        return conversion(request.query.get("conversion_id", "a"))

    async with api(ax.MusicGpt, MADE, status) as client:
        song = await client.run(ax.Extend(url=f"{FILES}/source.mp3", continue_at=5, prompt="on"))
    assert [f"{FILES}/a.mp3", f"{FILES}/b.mp3"] == [track.audio_url for track in song.tracks]
    assert [("t1", None), (None, "b")] == asked[:2]


async def test_a_failed_track_leaves_a_song_with_the_other() -> None:
    """A track that failed leaves a song with the other track, and page, commands and bots say that it failed."""

    def status(request: web.Request) -> object:
        if request.query.get("conversion_id") == "b":
            return conversion("b", status="FAILED", status_msg="no luck", audio_url="")
        return conversion("a")

    said: list[str] = []

    async def send(chat: int | str, text: str) -> int:
        return len(said)

    async def edit(chat: int | str, message: int | str, text: str) -> None:
        said.append(text)

    async with api(ax.MusicGpt, MADE, status) as client:
        bot = ProgressMessages(client, send=send, edit=edit)
        job = await bot.extend(chat=1, message=2, url=f"{FILES}/source.mp3", continue_at=5, prompt="on")
        assert job is not None
        song = await job
    assert [("a", None)] == [(track.id, track.failure) for track in song.tracks]
    assert [("b", "no luck")] == [(track.id, track.failure) for track in job.record.failed_tracks]
    assert "1 of 2 tracks failed: no luck" == job_object(job.record)["problem"]  # of the live page, and of `--json`
    assert f"Here it is:\n{FILES}/a.mp3\n1 of 2 could not be made." == said[-1]


@pytest.mark.parametrize(("code", "reason"), [(501, "generation"), (408, "timeout"), ("501", "generation")])
async def test_a_code_of_failure_ends_a_job_at_kie(code: object, reason: str) -> None:
    """The jobs route's 501 and 408 fail the task with the vendor's words, and end the polling."""
    answer = {"code": code, "msg": "No result for over 10 minutes", "data": None}
    async with api(ax.KieJobs, {"code": 200, "data": {"taskId": "t1"}}, lambda _: answer) as client:
        job = await client.extend(audio_id="a1", model="V5")
        with pytest.raises(ax.JobFailedError, match="over 10 minutes") as caught:
            await job
    assert reason == caught.value.reason


async def test_a_byte_order_mark_is_skipped() -> None:
    """A submit's answer and a status that begin with a byte order mark are read."""
    song = {"taskId": "t1", "status": "SUCCESS", "response": {"sunoData": [{"id": "a", "audioUrl": f"{FILES}/a.mp3"}]}}
    status = b"\xef\xbb\xbf" + json.dumps({"code": 200, "data": song}).encode()
    made = b"\xef\xbb\xbf" + json.dumps({"code": 200, "msg": "success", "data": {"taskId": "t1"}}).encode()
    async with api(ax.Kie, made, lambda _: status) as client:
        done = await client.run(ax.Extend(audio_id="a1", model="V5"))
    assert [f"{FILES}/a.mp3"] == [track.audio_url for track in done.tracks]


async def test_a_readable_refusal_ends_the_submit() -> None:
    """kie.ai's 400 is raised at once in its own words, with nothing charged."""
    says = "Song Description contained artist name: example"
    async with api(ax.Kie, {"code": 400, "msg": says}, lambda _: {}) as client:
        with pytest.raises(ax.ContentError, match="contained artist name") as caught:
            await client.extend(audio_id="a1", model="V5")
    assert False is caught.value.charged


async def test_a_redirected_submit_is_told_and_not_followed() -> None:
    """A submit that is redirected is not followed: the error says where to, without the key that the link quotes."""
    moved = web.Response(status=307, headers={"Location": f"https://elsewhere.example/v2?key={KEY}"})
    async with api(ax.Kie, moved, lambda _: {}) as client:
        job = await client.extend(audio_id="a1", model="V5")
        with pytest.raises(ax.SubmitUnknownError, match=r"a redirect to https://elsewhere\.example/v2") as caught:
            await job
    assert KEY not in str(caught.value)
