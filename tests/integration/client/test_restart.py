"""A job outlives its process: another client on the same store finishes it, whichever process was called back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import WEB, Connect, MakeClient, MakeSandbox
from tests.support.api import Api
from tests.support.clock import SOON_SECONDS

STAGES = (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a store that outlives its clients."""
    return f"sqlite:///{tmp_path}/jobs.db"


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


async def test_a_restarted_client_finds_its_open_jobs(api: Api, open_client: MakeClient, connect: Connect) -> None:
    """After a restart the open jobs keep their meta and keys, and end by poll."""
    before = await open_client(store=connect())
    api.is_done = False
    refs = {(await extend(before, meta={"n": n}, key=f"k{n}")).ref for n in range(3)}
    await before.aclose()

    api.is_done = True
    after = await open_client(store=connect())
    jobs = [job async for job in after.jobs()]
    songs = await asyncio.gather(*jobs)

    assert refs == {job.ref for job in jobs}
    assert [1, 1, 1] == [len(song.tracks) for song in songs]
    assert [1] == [job.meta["n"] async for job in after.jobs(meta={"n": 1})]
    assert [] == [job async for job in after.jobs(open=True)]
    assert jobs[0].ref == (await extend(after, key="k0")).ref
    assert 3 == len(api.posts)


async def test_old_callback_urls_stay_valid(api: Api, open_client: MakeClient, url: str, unused_tcp_port: int) -> None:
    """The secret is kept in the store, so that the next process accepts callbacks to URLs of an earlier one."""
    web = {"public_url": f"http://127.0.0.1:{unused_tcp_port}", "listen": f"127.0.0.1:{unused_tcp_port}", "store": url}
    before = await open_client(**web)
    ref = (await extend(before)).ref
    await before.aclose()

    after = await open_client(**web)
    assert 200 == await api.call_back("complete")

    assert "webhook" == (await (await after.job(ref)).complete).source


async def test_a_listener_wakes_workers_that_share_its_store(
    connect: Connect, api: Api, open_client: MakeClient
) -> None:
    """One client takes the callbacks, others await and handle the jobs; each stage is handled once, in order."""
    listener = await open_client(store=connect(), **WEB)
    told: list[ax.Stage] = []
    workers = [await open_client(store=connect(), public_url=str(listener.public_url), listen=None) for _ in range(2)]
    for worker in workers:
        for stage in STAGES:

            @worker.on(stage)
            async def tell(event: ax.StageEvent) -> None:
                told.append(event.stage)

    job = await extend(workers[0])
    other = await workers[1].job(job.ref)
    waits = [asyncio.create_task(each.result()) for each in (job, other)]
    for stage in STAGES:
        assert 200 == await api.call_back(stage.name.lower())
    async with asyncio.timeout(SOON_SECONDS):
        songs = await asyncio.gather(*waits)
    for worker in workers:
        await worker.aclose()

    assert songs[0].tracks == songs[1].tracks
    assert list(STAGES) == told
    assert {"webhook"} == {reached.source for reached in other.record.reached[1:]}


async def test_a_listener_without_providers_decodes_all_wires(
    sandbox: Sandbox, make_client: MakeClient, connect: Connect, voice_file: Path
) -> None:
    """A stand-alone listener without providers decodes the webhooks of any provider that a worker submits to."""
    store = connect()
    listener = ax.Client(store=store, **WEB)  # type: ignore[arg-type]  # two texts
    async with listener:
        for name in ("kie", "sunoapi", "vidgo", "musicgpt"):
            worker = await make_client(sandbox, name, store=connect(), public_url=str(listener.public_url), listen=None)
            options = {"continue_at": 2.0} if name == "musicgpt" else {"continue_at": 2.0, "model": "V5"}
            song = await worker.run(ax.Extend(url=sandbox.voice_url, **options))
            assert 2 == len(song.tracks)
        await sandbox.settled()

    assert {200} == {delivery.status for delivery in sandbox.deliveries}


async def test_a_job_of_a_provider_that_is_not_given_is_named(
    sandbox: Sandbox, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that lacks a job's provider raises an error naming it, and still lists the other jobs."""
    store = ax.MemoryStore()
    mine = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], name="my-own")
    async with ax.Client(mine, store=store) as client:
        lost = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    client = await make_client(sandbox, "kie", store=store)
    found = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    with pytest.raises(ax.ConfigError, match="'my-own'"):
        await client.job(lost.ref)
    assert [found] == [job async for job in client.jobs()]
    assert "my-own" in caplog.text


async def test_a_slot_is_freed_by_another_processs_commit(make_sandbox: MakeSandbox, connect: Connect) -> None:
    """With one parallel job allowed, the next submit is sent when the listener's process sees the first job end."""
    sandbox = await make_sandbox(parallel_limit=1)
    provider = ax.MusicGpt(sandbox.api_key, base_url=sandbox.bases["musicgpt"], limits=ax.Limits(parallel=1))
    listener = ax.Client(store=connect(), **WEB)  # type: ignore[arg-type]  # two texts
    async with listener:
        worker = ax.Client(provider, public_url=str(listener.public_url), listen=None, store=connect())
        async with worker, asyncio.timeout(30):
            refs = [(await worker.extend(url=sandbox.voice_url, continue_at=2)).ref for _ in range(3)]

    assert 3 == len(set(refs))
    assert 3 == len(sandbox.submissions)
