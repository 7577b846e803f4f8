"""What a user would pay for twice, or lose: chains in handlers, odd bugs, strangers, providers that fall silent."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import attrs
import numpy as np
import orjson
import pytest
import soundfile
from aiohttp import web
from yarl import URL

import audioext as ax
from audioext.clock import Clock
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.http.transport import Transport
from audioext.http.urls import callback_url
from audioext.models.requests import Request
from audioext.runtime import handlers
from audioext.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack
    from pathlib import Path

    from tests.integration.client.conftest import MakeClient, MakeSandbox

SECRET = b"a secret that is long enough"


# --- handlers -----------------------------------------------------------------------------------------------


async def test_what_a_handler_submits_is_paid_once(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that submits two tasks and then fails gets the same two jobs when it is called again."""
    monkeypatch.setattr(handlers, "RETRY_SECONDS", 0.01)
    client = await make_client(sandbox)
    calls: list[list[str]] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def chain(event: ax.StageEvent) -> None:
        if event.meta.get("chained"):
            return
        mine = [
            await client.extend(audio_id=sandbox.track_ids[0], model="V5", meta={"chained": True}),
            await client.extend(audio_id=sandbox.track_ids[1], model="V5", meta={"chained": True}),
            await client.extend(audio_id=sandbox.track_ids[0], model="V5", meta={"chained": True}),
        ]
        calls.append([job.ref for job in mine])
        if len(calls) < 3:
            message = "something went wrong after the submits"
            raise OSError(message)
        done.set()

    await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))
    async with asyncio.timeout(20):
        await done.wait()

    assert [calls[0]] * 3 == calls
    assert 3 == len(set(calls[0]))
    assert 4 == len(sandbox.submissions)


async def test_a_file_that_a_handler_fetched_again_is_the_same_file(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is in a file counts, not the name that it has in this call of the handler."""
    monkeypatch.setattr(handlers, "RETRY_SECONDS", 0.01)
    client = await make_client(sandbox)
    refs: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def chain(event: ax.StageEvent) -> None:
        if event.meta.get("chained"):
            return
        path = tmp_path / f"take-{len(refs)}.wav"
        soundfile.write(path, np.zeros(80_000), 8_000)
        refs.append((await client.extend(file=path, model="V5", continue_at=2, meta={"chained": True})).ref)
        if len(refs) < 2:
            message = "something went wrong after the submit"
            raise OSError(message)
        done.set()

    await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))
    async with asyncio.timeout(10):
        await done.wait()

    assert refs[0] == refs[1]
    assert 2 == len(sandbox.submissions)


async def test_a_store_that_forgot_a_job_during_its_post_is_told_again(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that restarts empty while a POST is under way costs neither the task's id nor its key."""
    client = await make_client(sandbox, poll=True)
    send = Transport.send

    async def send_and_forget(self: Transport, request: HttpRequest, **options: object) -> HttpResponse:
        response = await send(self, request, **options)  # type: ignore[arg-type]  # passed on as they are
        async for stored in client.store.scan(is_open=True):
            if stored.record.task_id is None:
                await client.store.discard(stored.record.ref, stored.version)
        return response

    monkeypatch.setattr(Transport, "send", send_and_forget)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="mine")
    again = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="mine")

    assert job.ref == again.ref
    assert job.task_id is not None
    assert 2 == len((await job).tracks)
    assert 1 == len(sandbox.submissions)


# --- what goes wrong before and after the first byte ---------------------------------------------------------


@attrs.frozen
class Mute(ax.Kie):
    """A provider with a bug: some requests cannot be put into words."""

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Raise what nobody thought of, for a certain title."""
        if request.title == "unsayable":
            message = "surrogates not allowed"
            raise UnicodeError(message)
        return super().build_submit(request, callback)


async def test_a_request_that_cannot_be_built_costs_nothing(sandbox: Sandbox, make_client: MakeClient) -> None:
    """The caller is told, no record is left, and the key can be used again."""
    mute = Mute(sandbox.api_key, base_url=sandbox.bases["kie"], limits=ax.Limits(submits=1, per=60.0, parallel=1))
    client = await make_client(sandbox, mute)
    request = ax.Extend(audio_id=sandbox.track_ids[0], model="V5")

    with pytest.raises(ax.ProviderError, match="nothing was sent") as caught:
        await client.submit(attrs.evolve(request, title="unsayable", custom=False), key="k")

    assert False is caught.value.charged
    assert [] == [job async for job in client.jobs()]
    assert [] == list(sandbox.submissions)


async def test_a_bug_in_the_middle_of_a_post_is_an_unknown_outcome(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes may have left, so nothing is resent; the callback adopts the job."""
    client = await make_client(sandbox)
    real = client._transport.send  # noqa: SLF001 - nothing outside of our code can do this to it

    async def send(*arguments: object, **options: object) -> object:
        await real(*arguments, **options)  # type: ignore[arg-type]
        message = "a bug"
        raise ArithmeticError(message)

    monkeypatch.setattr(type(client._transport), "send", staticmethod(send))  # noqa: SLF001 - as above

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert 2 == len((await job).tracks)
    assert 1 == len(sandbox.submissions)


async def test_an_unknown_outcome_is_a_job_though_the_store_is_away_too(
    make_client: MakeClient, stack: AsyncExitStack
) -> None:
    """The network breaks for the provider's answer and for the store alike: nobody is told that nothing was sent."""
    store = ax.MemoryStore()

    async def submit(request: web.Request) -> web.Response:
        await request.read()
        store.fail("the network is down")
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/api/v1/generate/extend", submit)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kie = ax.Kie("a key", base_url=f"http://127.0.0.1:{runner.addresses[0][1]}", limits=ax.Limits())
    client = ax.Client(kie, public_url="http://127.0.0.1:9", listen=None, store=store)
    await stack.enter_async_context(client)

    job = await client.extend(audio_id="x", model="V5", key="once")

    assert (None, ax.Verdict.OPEN) == (job.task_id, job.verdict)
    store.fail(None)
    assert job is await client.extend(audio_id="x", model="V5", key="once")


# --- strangers ----------------------------------------------------------------------------------------------


async def test_a_delivery_that_names_another_jobs_task_is_refused(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """A valid tag of one job and the task of another: neither job takes the other's song, and it is in the journal."""
    sandbox = await make_sandbox(faults=["drop", "lose_response*1"])
    client = await make_client(sandbox, secrets=[SECRET])
    unknown = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    other = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    assert (None, True) == (unknown.task_id, other.task_id is not None)
    tracks = [{"id": "a", "audio_url": "https://files.test/a.mp3"}]
    data = {"callbackType": "complete", "task_id": other.task_id, "data": tracks}
    path = callback_url(URL("http://hooks.test"), SECRET, "kie", unknown.ref).raw_path

    status = await client.inbox.accept(ax.Webhook(path=path, body=orjson.dumps({"code": 200, "msg": "", "data": data})))

    assert 401 == status
    assert (None, None) == ((await client.job(unknown.ref)).task_id, (await client.job(unknown.ref)).stage)
    assert ["refused"] == [delivery.verdict async for delivery in client.deliveries(unknown.ref)]


# --- a provider that is away when a job is to be given up ---------------------------------------------------


@pytest.fixture
async def status_api() -> AsyncIterator[tuple[str, list[int], asyncio.Event]]:
    """Return an API that makes a task and then answers its status with a list of HTTP codes, then with the song."""
    codes: list[int] = []
    refused = asyncio.Event()

    async def submit(_: web.Request) -> web.Response:
        return web.json_response({"code": 200, "msg": "success", "data": {"taskId": "task-1"}})

    async def status(_: web.Request) -> web.Response:
        if codes:
            if len(codes) == 1:
                refused.set()
            return web.Response(status=codes.pop(0))
        tracks = [{"id": "a", "audioUrl": "https://files.test/a.mp3", "title": "Rain"}]
        data = {"taskId": "task-1", "status": "SUCCESS", "response": {"taskId": "task-1", "sunoData": tracks}}
        return web.json_response({"code": 200, "msg": "success", "data": data})

    app = web.Application()
    app.router.add_post("/api/v1/generate/extend", submit)
    app.router.add_get("/api/v1/generate/record-info", status)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", codes, refused
    await runner.cleanup()


async def test_a_job_is_given_up_on_its_providers_word(
    status_api: tuple[str, list[int], asyncio.Event], tmp_path: object
) -> None:
    """After a long absence a provider that is away for a moment does not cost the song."""
    base, codes, refused = status_api
    offset = 0.0
    pace = ax.Pace(first=30.0, every=0.01, slowest=0.02)
    kie = ax.Kie("a key", base_url=base, pace=pace, limits=ax.Limits())
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with ax.Client(kie, store=url, clock=Clock(now=lambda: time.time() + offset), expire_after=3600.0) as first:
        ref = (await first.extend(audio_id="x", model="V5")).ref

    codes.extend([503] * 3)
    offset = 5_000.0  # past its time, and not yet past it twice
    async with ax.Client(kie, store=url, clock=Clock(now=lambda: time.time() + offset), expire_after=3600.0) as second:
        job = await second.job(ref)
        async with asyncio.timeout(20):
            await refused.wait()

        assert 1 == len((await job.result(timeout=20)).tracks)


async def test_a_provider_that_stays_silent_is_given_up_at_last(
    status_api: tuple[str, list[int], asyncio.Event], tmp_path: object
) -> None:
    """After twice its time a job expires, whatever its provider says."""
    base, codes, _ = status_api
    offset = 0.0
    kie = ax.Kie("a key", base_url=base, pace=ax.Pace(first=30.0, every=0.01, slowest=0.02), limits=ax.Limits())
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with ax.Client(kie, store=url, clock=Clock(now=lambda: time.time() + offset), expire_after=3600.0) as first:
        ref = (await first.extend(audio_id="x", model="V5")).ref

    codes.extend([503] * 10_000)
    offset = 8_000.0
    async with ax.Client(kie, store=url, clock=Clock(now=lambda: time.time() + offset), expire_after=3600.0) as second:
        with pytest.raises(ax.JobExpiredError):
            await (await second.job(ref)).result(timeout=20)


# --- readiness ----------------------------------------------------------------------------------------------


async def test_readyz_tells_what_the_store_risks(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A memory store is warned of; one that is down is a 503; /healthz is about the process alone."""
    store = ax.MemoryStore()
    client = await make_client(sandbox, store=store)
    assert client.public_url is not None
    ready, healthy = client.public_url / "readyz", client.public_url / "healthz"

    async with aiohttp.ClientSession() as session:
        async with session.get(ready) as response:
            answer = await response.json()
        assert ("ok", True) == (answer["status"], "no restart" in answer["warnings"][0])
        store.fail("the disk is full")
        async with session.get(ready) as response:
            assert (503, "store down") == (response.status, (await response.json())["status"])
        async with session.get(healthy) as response:
            assert 200 == response.status
        store.fail(None)
