"""A job outlives its process: another client on the same store ends it, whoever was called back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from audioext.sandbox import Sandbox

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]


SECRET = b"0123456789abcdef-secret"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a store that outlives its clients."""
    return f"sqlite:///{tmp_path}/jobs.db"


async def extend(client: ax.Client, sandbox: Sandbox, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id=sandbox.track_ids[0], model="V5", **extra)  # type: ignore[arg-type]  # submit's


async def test_a_restarted_client_finds_its_open_jobs(
    make_sandbox: MakeSandbox, make_client: MakeClient, url: str
) -> None:
    """After a restart the open jobs are there, and end by poll although their callbacks went nowhere."""
    sandbox = await make_sandbox(speed=100, retry_seconds=())
    provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=0.05, every=0.05, quiet=0.2))
    before = await make_client(sandbox, provider, store=url)
    refs = {(await extend(before, sandbox, meta={"n": n}, key=f"k{n}")).ref for n in range(3)}
    await before.aclose()

    after = await make_client(sandbox, provider, poll=True, store=url)
    jobs = [job async for job in after.jobs(open=True)]
    songs = await asyncio.gather(*jobs)

    assert refs == {job.ref for job in jobs}
    assert [2, 2, 2] == [len(song.tracks) for song in songs]
    assert [1] == [job.meta["n"] async for job in after.jobs(meta={"n": 1})]
    assert jobs[0].ref == (await extend(after, sandbox, key="k0")).ref
    assert 3 == len(sandbox.submissions)


async def test_old_callback_urls_stay_valid(make_sandbox: MakeSandbox, url: str, unused_tcp_port: int) -> None:
    """The secret is kept with the store, so that a callback of an earlier process is taken by the next."""
    sandbox = await make_sandbox(speed=100, retry_seconds=(20, 20, 20))
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"])
    web = {"public_url": f"http://127.0.0.1:{unused_tcp_port}", "listen": f"127.0.0.1:{unused_tcp_port}", "store": url}
    async with ax.Client(kie, **web) as before:  # type: ignore[arg-type]  # two URLs and a store
        ref = (await extend(before, sandbox)).ref

    async with ax.Client(kie, **web) as after:  # type: ignore[arg-type]  # as above
        complete = await (await after.job(ref)).complete

    assert "webhook" == complete.source


async def test_a_listener_wakes_a_worker_that_shares_its_file(
    make_sandbox: MakeSandbox, make_client: MakeClient, url: str, unused_tcp_port: int
) -> None:
    """One client takes the callbacks, another awaits and handles them; each stage is handled once."""
    sandbox = await make_sandbox(speed=100)
    public_url = f"http://127.0.0.1:{unused_tcp_port}"
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"])
    listener = ax.Client(public_url=public_url, listen=f"127.0.0.1:{unused_tcp_port}", store=url)
    workers = [ax.Client(kie, public_url=public_url, listen=None, store=url) for _ in range(2)]
    told: list[str] = []
    for worker in workers:
        for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):

            @worker.on(stage)
            async def tell(event: ax.StageEvent) -> None:
                told.append(event.stage.name)

    async with listener, workers[0], workers[1]:
        job = await extend(workers[0], sandbox)
        other = await workers[1].job(job.ref)
        songs = await asyncio.gather(job, other)
        await sandbox.settled()

    assert songs[0].tracks == songs[1].tracks
    assert ["TEXT", "FIRST", "COMPLETE"] == told
    assert {"webhook"} == {reached.source for reached in other.record.reached[1:]}


async def test_a_place_is_freed_by_another_processs_commit(
    make_sandbox: MakeSandbox, url: str, unused_tcp_port: int
) -> None:
    """With one parallel job allowed, the next is sent when the listener's process saw the one before end."""
    sandbox = await make_sandbox(parallel_limit=1)
    public_url = f"http://127.0.0.1:{unused_tcp_port}"
    provider = ax.MusicGpt(sandbox.api_key, base_url=sandbox.bases["musicgpt"], limits=ax.Limits(parallel=1))
    listener = ax.Client(public_url=public_url, listen=f"127.0.0.1:{unused_tcp_port}", store=url)
    worker = ax.Client(provider, public_url=public_url, listen=None, store=url)

    async with listener, worker, asyncio.timeout(30):
        refs = [(await worker.extend(url=sandbox.voice_url, continue_at=2)).ref for _ in range(3)]

    assert 3 == len(set(refs))
    assert 3 == len(sandbox.submissions)


async def test_a_store_that_fails_is_503_and_loses_nothing(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """While the store is down deliveries are answered 503, waits go on, submits cost nothing; then all continues."""
    sandbox = await make_sandbox(speed=100)
    store = ax.MemoryStore()
    client = await make_client(sandbox, store=store, secrets=[SECRET])
    job = await extend(client, sandbox)
    wait = asyncio.create_task(job.result())
    path = callback_url(URL("http://hooks.test"), SECRET, "kie", job.ref).raw_path
    text = {"code": 200, "msg": "", "data": {"callbackType": "text", "task_id": job.task_id, "data": []}}
    hook = ax.Webhook(path=path, body=orjson.dumps(text))

    store.fail("the disk is full")
    refused = await client.inbox.accept(hook)
    with pytest.raises(ax.StoreError, match="disk"):
        await extend(client, sandbox)
    store.fail(None)
    taken = await client.inbox.accept(hook)

    assert (503, 200) == (refused, taken)
    assert 2 == len((await wait).tracks)
    assert 1 == len(sandbox.submissions)
