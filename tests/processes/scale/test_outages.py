"""A store that is unreachable for a while: its connections are cut, silent or one-way, or its server is down."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import aiohttp
import pytest
from attrs import define, field
from yarl import URL

import audioext as ax
from audioext.models.entries import Entry
from audioext.parts import SECRET_NAME
from audioext.sandbox import Sandbox
from audioext.stores.base import Store
from tests.processes.scale.parts import LOOPBACK, Mode, News, Relay, Valkey
from tests.support.api import callback, serve_api

SECRET = b"a secret that is long enough"
JOBS = 8
TITLE = "A-title-to-look-for"
"""Bytes that the store gets only in the request that creates the job."""
TOPICS = ("TEXT", "FIRST", "COMPLETE")
PACE = ax.Pace(first=600, every=600, slowest=600, quiet=600)
"""No polls: a job learns everything from the listener through the store."""


@define(eq=False, kw_only=True)
class Scene:
    """A listener beside the store's server, and a worker behind an unreliable network."""

    sandbox: Sandbox
    gate: Relay
    network: Relay
    listener: ax.Client
    worker: ax.Client
    told: Counter[tuple[str, str]] = field(factory=Counter)
    news: News = field(factory=News)

    async def tell(self, event: ax.StageEvent) -> None:
        """Count a run of the worker's handler."""
        self.told[event.ref, event.stage.name] += 1
        self.news.ring()

    async def all_told(self, jobs: Sequence[ax.Job]) -> None:
        """Wait until every stage of *jobs* was handled."""
        due = {(job.ref, topic) for job in jobs for topic in TOPICS}
        await self.news.until(lambda: due <= set(self.told))

    async def extend(self, key: str, *, title: str = "Coda") -> ax.Job:
        """Submit one job."""
        return await self.worker.extend(
            audio_id=self.sandbox.track_ids[0],
            model="V5",
            continue_at=1,
            prompt="more",
            style="Piano",
            title=title,
            key=key,
        )


@pytest.fixture
async def scene(valkey: Valkey, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Scene]:
    """Open a sandbox, a listener and a worker; the sandbox reaches the listener through a gate."""
    port = unused_tcp_port_factory()
    gate, network = Relay([port]), Relay([valkey.port])
    await gate.start()
    await network.start()
    public_url = f"http://{LOOPBACK}:{gate.port}"
    async with Sandbox(
        speed=400.0, submit_limit=None, retry_seconds=(200, 400, 600), ready_seconds=3, extension_seconds=1
    ) as sandbox:
        kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], limits=ax.Limits(submits=None), pace=PACE)
        store = valkey.url.replace(str(valkey.port), str(network.port))
        listener = ax.Client(public_url=public_url, listen=f"{LOOPBACK}:{port}", store=valkey.url)
        worker = ax.Client(kie, public_url=public_url, listen=None, store=store, handler_timeout=1.0)
        scene = Scene(sandbox=sandbox, gate=gate, network=network, listener=listener, worker=worker)
        for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):
            worker.on(stage)(scene.tell)
        async with listener, worker:
            yield scene
    await network.aclose()
    await gate.aclose()


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW, Mode.DEAF], ids=["cut", "silent", "one-way"])
async def test_a_cut_connection_loses_nothing(scene: Scene, mode: Mode) -> None:
    """While the worker is cut off from the store, the listener stores its webhooks; then the waits get their songs."""
    scene.gate.turn(Mode.HOLD)
    jobs = await asyncio.gather(*(scene.extend(f"job-{number}") for number in range(JOBS)))
    waiting = asyncio.gather(*jobs)
    await scene.gate.news.until(lambda: scene.gate.held == JOBS)

    scene.network.turn(mode)
    cut, swallowed = scene.network.cut, scene.network.swallowed
    scene.gate.turn(Mode.PASS)
    await scene.sandbox.settled()
    assert {200} == {delivery.status for delivery in scene.sandbox.deliveries}
    assert {ax.Verdict.COMPLETE} == {(await scene.listener.job(job.ref)).verdict for job in jobs}
    with pytest.raises(ax.StoreError):  # the outage is longer than the store's patience
        await scene.worker.job(jobs[0].ref)
    assert (scene.network.cut > cut) if mode is Mode.CUT else (scene.network.swallowed > swallowed)
    assert not waiting.done()
    assert Counter() == scene.told

    scene.network.turn(Mode.PASS)
    async with asyncio.timeout(60):
        songs = await waiting
    assert [2] * JOBS == [len(song.tracks) for song in songs]
    await scene.all_told(jobs)
    assert {(job.ref, topic): 1 for job in jobs for topic in TOPICS} == dict(scene.told)
    assert JOBS == len(scene.sandbox.submissions)


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.DEAF], ids=["cut", "silent"])
async def test_a_create_whose_answer_is_lost_is_sent_once(scene: Scene, mode: Mode) -> None:
    """A job whose create was stored without an answer is sent once, by the same submit or by another with its key."""
    known = await scene.extend("known")  # so that the server has all scripts loaded
    scene.network.trap = (TITLE.encode(), mode)

    async with asyncio.timeout(60):
        try:
            job = await scene.extend("once", title=TITLE)
        except ax.StoreError:
            assert 1 == len(scene.sandbox.submissions)
            job = await scene.extend("once", title=TITLE)

        assert scene.network.trap is None
        assert 2 == len((await job).tracks)
    assert 2 == len(scene.sandbox.submissions)
    assert [known.ref, job.ref] == [found.ref async for found in scene.listener.jobs()]


async def test_a_submit_that_the_store_refused_can_be_made_again(scene: Scene) -> None:
    """A submit whose create got no answer in time raises an error, and its key can be submitted again."""
    known = await scene.extend("known")
    scene.network.trap = (TITLE.encode(), Mode.DEAF)
    first = asyncio.create_task(scene.extend("once", title=TITLE))
    await scene.network.news.until(lambda: scene.network.trap is None)
    scene.network.turn(Mode.DEAF)
    with pytest.raises(ax.StoreError):
        await first
    with pytest.raises(ax.StoreError):  # it is still unreachable
        await scene.worker.job(known.ref)
    assert 1 == len(scene.sandbox.submissions)

    scene.network.turn(Mode.PASS)
    async with asyncio.timeout(60):
        job = await again(scene, "once")
        assert 2 == len((await job).tracks)
    assert 2 == len(scene.sandbox.submissions)
    found = [(found.ref, found.record.is_unsent) async for found in scene.listener.jobs()]
    assert [(known.ref, False), (job.ref, False)] == [found[0], found[-1]]
    assert [True] == [is_unsent for _, is_unsent in found[1:-1]]


async def again(scene: Scene, key: str) -> ax.Job:
    """Submit until the store accepts it, as an older connection may still be silent."""
    while True:
        with suppress(ax.StoreError):
            return await scene.extend(key, title=TITLE)


async def test_store_down(scene: Scene, valkey: Valkey) -> None:
    """While the server is down webhooks are answered 503, submits raise and waits go on; afterwards all complete."""
    scene.gate.turn(Mode.HOLD)
    job = await scene.extend("before")
    waiting = asyncio.create_task(job.result(timeout=60))
    await scene.gate.news.until(lambda: scene.gate.held)
    (submission,) = scene.sandbox.submissions

    await valkey.stop()
    assert 503 == await post(scene, str(submission.callback_url))
    with pytest.raises(ax.StoreError):
        await scene.extend("meanwhile")
    assert 1 == len(scene.sandbox.submissions)
    assert not waiting.done()

    await valkey.start()
    scene.gate.turn(Mode.PASS)
    assert 2 == len((await waiting).tracks)
    after = await scene.extend("meanwhile")
    async with asyncio.timeout(60):
        assert 2 == len((await after).tracks)
    assert 2 == len(scene.sandbox.submissions)
    await scene.all_told([job, after])
    assert {1} == set(scene.told.values())


async def post(scene: Scene, callback_url: str) -> int:
    """Send a webhook directly to the listener, and return the status of its answer."""
    url = callback_url.replace(str(scene.gate.port), str(scene.gate.backends[0]))
    data = {"callbackType": "text", "task_id": scene.sandbox.tasks[0].id, "data": []}
    body = {"code": 200, "msg": "ok", "data": data}
    async with asyncio.timeout(60), aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        return answer.status


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW], ids=["cut", "silent"])
async def test_a_client_closes_while_its_store_is_away(scene: Scene, mode: Mode) -> None:
    """Closing waits for the store no longer than the store's patience, and ends the waits."""
    scene.gate.turn(Mode.HOLD)
    job = await scene.extend("open")
    waiting = asyncio.create_task(job.result())
    await scene.gate.news.until(lambda: scene.gate.held)

    scene.network.turn(mode)
    async with asyncio.timeout(20):
        await scene.worker.aclose()
    with pytest.raises(ax.ClientClosedError):
        await waiting


async def test_a_server_with_older_data_gets_the_journal_again(valkey: Valkey) -> None:
    """If a server returns with older data, the process that awaits a job restores its journal and gets the song."""
    url = f"http://{LOOPBACK}:9/hooks"
    listener = ax.Client(public_url=url, listen=None, store=valkey.url, secrets=[SECRET])

    async with serve_api() as api:
        worker = ax.Client(api.provider(pace=PACE), public_url=url, listen=None, store=valkey.url, secrets=[SECRET])

        async def call_back(stage: str) -> None:
            path = URL(api.posts[0]["callBackUrl"]).raw_path
            body = json.dumps(callback(stage)).encode()
            assert 200 == await listener.inbox.accept(ax.Webhook(path=path, body=body))

        async with listener, worker:
            job = await worker.extend(audio_id="x", model="V5", key="once")
            shutil.copytree(valkey.folder, backup := valkey.folder.with_name("backup"))
            wait = asyncio.create_task(job.result(timeout=50))
            await call_back("text")
            assert ax.Stage.TEXT is (await job.text).stage

            await valkey.stop(signal.SIGKILL)
            shutil.rmtree(valkey.folder)
            shutil.copytree(backup, valkey.folder)
            await valkey.start()
            async with asyncio.timeout(30):
                while [entry.kind for entry in await entries(listener.store, job.ref)] != [
                    "request",
                    "answer",
                    "webhook",
                ]:
                    pass
            await call_back("complete")

            assert 1 == len((await wait).tracks)
            assert job == await worker.extend(audio_id="x", model="V5", key="once")
            assert 2 == len([delivery async for delivery in listener.deliveries(job.ref)])
        assert 1 == len(api.posts)


async def entries(store: Store, ref: str) -> Sequence[Entry]:
    """Return a job's stored entries as soon as the store answers."""
    while True:
        try:
            stored = await store.read(ref)
        except ax.StoreError:
            continue
        return () if stored is None else stored.entries


async def test_callbacks_are_accepted_after_a_server_returned_empty(scene: Scene, valkey: Valkey) -> None:
    """If a server returns empty and another process creates a secret, the listener accepts that secret too."""
    old = scene.listener.inbox.secrets
    await valkey.stop(signal.SIGKILL)
    shutil.rmtree(valkey.folder)
    await valkey.start()
    provider = ax.Kie(scene.sandbox.api_key, base_url=scene.sandbox.bases["kie"], limits=ax.Limits(), pace=PACE)
    url = f"http://{LOOPBACK}:{scene.gate.port}"

    async with ax.Client(provider, public_url=url, listen=None, store=valkey.url) as fresh, asyncio.timeout(60):
        kept = await fresh.store.secret(SECRET_NAME, b"one of ours, if nobody was there before")
        while kept not in scene.listener.inbox.secrets:
            await answers(scene.listener.store)
        job = await fresh.extend(audio_id=scene.sandbox.track_ids[0], model="V5")
        assert 2 == len((await job).tracks)

    assert {200} == {delivery.status for delivery in scene.sandbox.deliveries}
    assert set(old) <= set(scene.listener.inbox.secrets)


async def answers(store: Store) -> None:
    """Return as soon as the store answers."""
    while True:
        with suppress(ax.StoreError):
            await store.read("nothing")
            return
