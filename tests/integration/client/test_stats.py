"""A client counts its work once, in the process that did it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest

import audioext as ax
from audioext.stores import open_store
from tests.integration.client.conftest import WEB, MakeClient, MakeSandbox
from tests.support.api import Api

T = TypeVar("T")

NEVER = ax.Pace(first=300.0, every=300.0, slowest=300.0, quiet=300.0)
"""Only a test's own status calls are made."""
TOLD = (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE)


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


def of_kie(counted: Mapping[tuple[str, T], int]) -> dict[T, int]:
    """Return kie's counts by outcome."""
    assert {"kie"} >= {provider for provider, _ in counted}
    return {outcome: count for (_, outcome), count in counted.items()}


async def test_submits_count_by_how_they_ended(api: Api, open_client: MakeClient) -> None:
    """Submits are counted by outcome: accepted, found by key, refused, unknown or failed."""
    store = ax.MemoryStore()
    client = await open_client(store=store, **WEB)
    await extend(client, key="k")
    await extend(client, key="k")
    api.codes = [413, 0]
    with pytest.raises(ax.ProviderError):
        await extend(client)
    await extend(client)
    store.fail("the disk is full")
    with pytest.raises(ax.StoreError):
        await extend(client)

    assert {"accepted": 1, "found": 1, "refused": 1, "unknown": 1, "failed": 1} == of_kie(client.stats().submits)
    assert 2 == client.stats().open_jobs


async def test_a_submit_that_waits_in_vain_is_rate_limited(api: Api) -> None:
    """A submit whose turn does not come counts as rate limited, and nothing is sent."""
    async with ax.Client(api.provider(limits=ax.Limits(parallel=1)), permit_timeout=0.01) as client:
        api.is_done = False
        await extend(client)
        with pytest.raises(ax.RateLimitError):
            await extend(client)

        assert 1 == client.stats().submits["kie", "rate_limited"]


async def test_webhooks_count_by_outcome(api: Api, open_client: MakeClient) -> None:
    """Each webhook of a known provider counts once by outcome, and strangers count only among the answers."""
    store = ax.MemoryStore()
    client = await open_client(store=store, **WEB)
    await extend(client)
    url = api.posts[0]["callBackUrl"]
    for stage in ("text", "text", "complete"):
        assert 200 == await api.call_back(stage)
    assert 401 == await api.call_back("text", "task-9")
    async with aiohttp.ClientSession() as session:
        for path, status in ((url, 400), (f"{url[:-43]}{'t' * 43}", 401), (f"{client.public_url}/what", 404)):
            async with session.post(path, data=b"[") as response:
                assert status == response.status
    store.fail("the disk is full")
    assert 503 == await api.call_back("first")

    stats = client.stats()
    assert {"applied": 2, "repeated": 1, "refused": 2, "unreadable": 1, "put_off": 1} == of_kie(stats.webhooks)
    assert {200: 3, 401: 2, 400: 1, 404: 1, 503: 1} == stats.answers


async def test_stages_and_ends_count_with_their_seconds(api: Api, open_client: MakeClient) -> None:
    """Each stage counts once with its time since the submit, and each job's end once."""
    client = await open_client(**WEB)
    await extend(client)
    await extend(client)
    for stage in ("text", "complete", "complete"):
        await api.call_back(stage, post=0)
    await api.call_back("error", "task-2", post=1, code=501)

    stats = client.stats()
    assert {ax.Stage.SUBMITTED: 2, **dict.fromkeys(TOLD, 1)} == {
        stage: found.count for (_, stage), found in stats.stages.items()
    }
    assert all(0 < found.sum < 10 for found in stats.stages.values())
    assert {ax.Verdict.COMPLETE: 1, ax.Verdict.FAILED: 1} == of_kie(stats.ended)
    assert 0 == stats.open_jobs
    assert stats.appends.count >= 6


@pytest.mark.parametrize("first", ["text", "complete"])
async def test_an_entry_is_counted_by_the_process_that_appended_it(
    api: Api, open_client: MakeClient, tmp_path: Path, first: str
) -> None:
    """Entries are counted by the process that appended them, so that the sums over processes are right."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    listener = await open_client(store=open_store(url), **WEB)
    worker = await open_client(store=open_store(url), public_url=str(listener.public_url), listen=None)
    job = await extend(worker)
    for stage in dict.fromkeys((first, "complete")):
        await api.call_back(stage)
    await job

    here, there = listener.stats(), worker.stats()
    assert dict.fromkeys(TOLD, 1) == {stage: found.count for (_, stage), found in here.stages.items()}
    assert [ax.Stage.SUBMITTED] == [stage for _, stage in there.stages]
    assert ({ax.Verdict.COMPLETE: 1}, {}) == (of_kie(here.ended), of_kie(there.ended))


async def test_polls_count_by_outcome(api: Api) -> None:
    """Polls are counted as with news, without news, or failed."""
    api.is_done = False
    async with ax.Client(api.provider(pace=NEVER)) as client:
        job = await extend(client)
        await job.refresh()
        api.status_codes = [500]
        with pytest.raises(ax.ProviderError):
            await job.refresh()
        api.is_done = True
        await job.refresh()
        await job.refresh()

        assert {"news": 1, "failed": 1, "nothing": 2} == of_kie(client.stats().polls)


async def test_handlers_count_by_how_they_ended(api: Api, open_client: MakeClient) -> None:
    """A failed handler call counts as retried, any other as done."""
    client = await open_client(**WEB)

    @client.on(ax.Stage.TEXT)
    async def tell(event: ax.StageEvent) -> None:
        assert event.stage is ax.Stage.TEXT

    @client.on(ax.Stage.COMPLETE)
    async def fail(event: ax.StageEvent) -> None:
        raise RuntimeError(event.ref)

    await extend(client)
    for stage in ("text", "complete"):
        await api.call_back(stage)
    await client.aclose()

    assert {("text", "done"): 1, ("complete", "retried"): 1} == client.stats().handlers


async def test_downloads_count_files(make_client: MakeClient, make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """Each file that was saved, read or streamed in full counts once."""
    sandbox = await make_sandbox()
    client = await make_client(sandbox)
    song = await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))
    await song.save(tmp_path)
    await song.tracks[0].read()
    assert [chunk async for chunk in song.tracks[1].stream()]

    assert {"whole": 4} == client.stats().downloads
