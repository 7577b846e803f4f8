"""Dead links are replaced, from a status call or by the vendor's recovery, with one recovery per job."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import audioext as ax
from audioext.runtime.recovery import FRESH_SECONDS
from audioext.runtime.submitter import POLL_GRACE_SECONDS
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import WEB, Connect, MakeClient, MakeSandbox
from tests.support.api import Api
from tests.support.clock import JumpClock, soon
from tests.support.hosts import gives, serve_host
from tests.support.sounds import MP3

QUICK: dict[str, object] = {"download_patience": 0.05, "allow_hosts": ["http://127.0.0.1"]}
RECOVERED = ["extend", "recovery"]


def operations(sandbox: Sandbox) -> list[str]:
    """Return the operations that were POSTed."""
    return [submission.operation for submission in sandbox.submissions]


async def finished(client: ax.Client, sandbox: Sandbox) -> str:
    """Return the ref of a complete job."""
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    await job
    return job.ref


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return a store that outlives a client."""
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
async def expired(make_sandbox: MakeSandbox) -> Sandbox:
    """Return a sandbox whose links die as soon as a task is complete."""
    return await make_sandbox(faults=["expire_links"])


@pytest.mark.parametrize("way", ["webhook", "poll"])
@pytest.mark.parametrize("provider", ["kie", "sunoapi"])
async def test_saving_dead_links_recovers_them(
    provider: str, way: str, expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """Saving a finished job with dead links in another process makes one recovery, and its new links are kept."""
    settings = {"poll": way == "poll", "store": f"sqlite:///{tmp_path}/jobs.db", **QUICK}
    first = await make_client(expired, provider, **settings)
    ref = await finished(first, expired)
    await first.aclose()
    client = await make_client(expired, provider, **settings)

    song = await (await client.job(ref)).result()
    paths = await song.save(tmp_path / "out")
    again = await (await client.job(ref)).result()

    assert 2 == len(paths) == len(await again.save(tmp_path / "out"))
    assert paths[0].read_bytes() == await again.tracks[0].read()
    assert [track.id for track in song.tracks] == [track.id for track in again.tracks]
    assert RECOVERED == operations(expired)
    assert ["recovery", "recovery_answer"] == [
        entry.kind for entry, _ in await client.timeline(ref) if entry.kind in {"recovery", "recovery_answer"}
    ]


async def test_a_name_of_the_callers_is_used_for_renewed_links_too(
    expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """`name=` names the files, made safe, also if their links had to be renewed; the song keeps its titles."""
    client = await make_client(expired, **QUICK)
    job = await client.extend(audio_id=expired.track_ids[0], model="V5")
    song = await job

    paths = await song.save(tmp_path / "out", name="row 7: take/it")

    assert ["row 7 take it - take 1.mp3", "row 7 take it - take 2.mp3"] == [path.name for path in paths]
    assert RECOVERED == operations(expired)
    assert [each.title for each in song.tracks] == [each.title for each in (await job).tracks]
    for wrong in ("", 7):
        with pytest.raises(ax.RequestError, match="name"):
            await song.save(tmp_path, name=wrong)  # type: ignore[arg-type]  # on purpose


async def test_reading_and_streaming_recover_too(expired: Sandbox, make_client: MakeClient) -> None:
    """Concurrent reads share one recovery."""
    client = await make_client(expired, **QUICK)
    song = await (await client.job(await finished(client, expired)))

    one, two, again = await asyncio.gather(song.tracks[0].read(), song.tracks[1].read(), song.tracks[0].read())

    assert one == again != two
    assert RECOVERED == operations(expired)


async def test_only_one_process_starts_a_recovery(
    expired: Sandbox, make_client: MakeClient, connect: Connect, tmp_path: Path
) -> None:
    """Of several processes on one store only one starts a recovery; the others find it in the journal and wait."""
    clients = [await make_client(expired, poll=True, store=connect(), **QUICK) for _ in range(3)]
    ref = await finished(clients[0], expired)
    songs = [await (await client.job(ref)).result() for client in clients]

    saved = await asyncio.gather(*(song.save(tmp_path / str(n)) for n, song in enumerate(songs)))

    assert [2, 2, 2] == [len(paths) for paths in saved]
    assert RECOVERED == operations(expired)


async def test_a_lost_answer_is_made_up_for_by_the_callback(
    expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """After a lost answer the recovery's id comes from the first webhook with another task id; nothing is resent."""
    client = await make_client(expired, **QUICK)
    ref = await finished(client, expired)
    expired.script("lose_response*1")

    song = await (await client.job(ref)).result()

    assert 2 == len(await song.save(tmp_path))
    assert RECOVERED == operations(expired)
    recovery = (await client.job(ref)).record.recovery
    assert recovery is not None
    assert expired.tasks[-1].id == recovery.task_id


async def test_an_unconfirmed_callback_is_checked_by_the_status(
    expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """With `confirm="always"` the links come from the recovery's status call."""
    client = await make_client(expired, confirm="always", **QUICK)
    ref = await finished(client, expired)

    assert 2 == len(await (await (await client.job(ref)).result()).save(tmp_path))
    assert RECOVERED == operations(expired)
    assert "recovery_status" in [entry.kind for entry, _ in await client.timeline(ref)]


async def test_a_poll_only_client_recovers_again_after_a_lost_answer(
    expired: Sandbox, make_client: MakeClient, clock: JumpClock, tmp_path: Path
) -> None:
    """A poll-only client whose recovery's answer was lost starts another once the first can no longer be under way."""
    client = await make_client(expired, poll=True, clock=clock.clock, wait_timeout=86_400.0, **QUICK)
    ref = await clock.run(finished(client, expired))
    song = await (await client.job(ref)).result()
    expired.script("lose_response*1")

    for _ in range(2):
        with pytest.raises(ax.DownloadError, match="recovery of its files has no known task"):
            await song.save(tmp_path)
        assert RECOVERED == operations(expired)
    await clock.advance(POLL_GRACE_SECONDS)
    saving = asyncio.create_task(song.save(tmp_path))

    async def is_asked_anew() -> bool:
        return [*RECOVERED, "recovery"] == operations(expired)

    assert await soon(is_asked_anew)
    await expired.settled()  # the sandbox has its own clock, and needs a moment to make the files
    assert 2 == len(await clock.run(saving))
    assert await is_asked_anew()


async def test_a_refused_recovery_is_raised_and_tried_again_by_the_next_save(
    expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """A refused recovery raises the vendor's words, and the next save tries again, since nothing was made."""
    client = await make_client(expired, **QUICK)
    song = await (await client.job(await finished(client, expired)))
    expired.script("code=402*1")

    with pytest.raises(ax.DownloadError, match=r"HTTP 410.*recovery of its files was refused: .*kie answered 402"):
        await song.save(tmp_path)

    assert 2 == len(await song.save(tmp_path))


async def test_a_failed_recovery_is_repeated_only_by_hand(
    expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """A failed recovery may have cost credits: `save` does not repeat it, but `song.recover` does."""
    client = await make_client(expired, **QUICK)
    song = await (await client.job(await finished(client, expired)))
    expired.script("error=complete*1")

    for _ in range(2):
        with pytest.raises(ax.DownloadError, match=r"failed, `await song\.recover\(\)` tries it again: "):
            await song.save(tmp_path)
    assert RECOVERED == operations(expired)
    fresh = await song.recover()

    assert 2 == len(await fresh.save(tmp_path))
    assert [*RECOVERED, "recovery"] == operations(expired)


def recovered(*tracks: dict[str, str], code: int = 200) -> dict[str, object]:
    """Return the answer to a recovery's status call."""
    return {"code": code, "msg": "the vendor's words", "data": list(tracks)}


async def test_links_that_came_back_and_died_again_are_recovered_again(
    api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """New links that died again are not recovered again at once, which would be paid twice, but days later."""
    later = 0.0  # an automatic clock could advance too far on a busy machine
    clock = ax.Clock(now=lambda: time.time() + later)
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=410))
        client = await open_client(clock=clock, **QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))
        api.recovered = recovered({"id": "a", "audio_url": host.put("/back.mp3", gives()), "status": "success"})
        await song.save(tmp_path)
        host.put("/back.mp3", gives(b"", status=410))
        with pytest.raises(ax.DownloadError, match="its recovery gave no other link"):
            await (await (await client.job(song.ref)).result()).save(tmp_path)
        assert 1 == len(api.recoveries)
        api.recovered = recovered({"id": "a", "audio_url": host.put("/again.mp3", gives()), "status": "success"})
        later = FRESH_SECONDS

        (path,) = await (await (await client.job(song.ref)).result()).save(tmp_path)

        assert MP3 == path.read_bytes()
        assert 2 == len(api.recoveries)


@pytest.mark.parametrize("key", ["task_id", "taskId"])
async def test_recovered_tracks_with_other_ids_are_matched_by_order(
    key: str, api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """A recovery's tracks are matched by their order if their ids differ, as no page says whose ids they are."""
    api.recovery_key = key
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=410))
        client = await open_client(**QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))
        api.recovered = recovered({"id": "vendor-7", "audio_url": host.put("/back.mp3", gives())})

        (path,) = await song.save(tmp_path)

        assert MP3 == path.read_bytes()
        assert {"sunoTaskId": "task-1", "callBackUrl": "https://nobody.invalid/audioext"} == api.recoveries[0]


async def test_a_recovery_that_brings_nothing_says_why(api: Api, open_client: MakeClient, tmp_path: Path) -> None:
    """A recovery without new links raises the vendor's own error for the track."""
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=403))
        client = await open_client(**QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))
        lost = {"id": "a", "audio_url": "", "status": "failed", "error": "account_missing"}
        api.recovered = recovered(lost, code=500)

        with pytest.raises(ax.DownloadError, match=r"HTTP 403.*same link.*tries it again: account_missing"):
            await song.save(tmp_path)


async def test_a_track_that_did_not_come_back_says_why(api: Api, open_client: MakeClient, tmp_path: Path) -> None:
    """If a recovery restores some tracks, the vendor's error for another one is in the error of its download."""
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=403))
        client = await open_client(**QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))
        lost = {"id": "a", "audio_url": "", "status": "failed", "error": "clip_error"}
        api.recovered = recovered(lost, {"id": "b", "audio_url": host.put("/back.mp3", gives()), "status": "success"})

        with pytest.raises(ax.DownloadError, match=r"HTTP 403.*same link; its recovery failed: clip_error"):
            await song.save(tmp_path)


async def test_a_recovery_that_does_not_end_says_what_its_status_said(api: Api, open_client: MakeClient) -> None:
    """A wait for a recovery that times out says whether its last status call was refused, or told that it runs."""
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=403))
        client = await open_client(wait_timeout=1.0, **QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))

        with pytest.raises(ax.DownloadError, match=r"has not ended yet; save it again later"):
            await song.recover()
        api.recovered = recovered(code=401)
        with pytest.raises(ax.DownloadError, match=r"has not ended yet \(its last status call said: .*vendor's words"):
            await song.recover()
        assert 1 == len(api.recoveries)


@pytest.mark.parametrize("provider", ["vidgo", "musicgpt", "kie-jobs"])
async def test_a_vendor_without_recovery_is_named(
    provider: str, expired: Sandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """If the vendor has no recovery, the error says what was tried."""
    client = await make_client(expired, provider, poll=True, **QUICK)
    model = None if provider == "musicgpt" else "V5"
    song = await client.run(ax.Extend(url=expired.tune_url, model=model, continue_at=2, prompt="on"))

    with pytest.raises(ax.DownloadError, match=f"shows the same link; {provider} has no recovery of files"):
        await song.save(tmp_path)
    with pytest.raises(ax.UnsupportedError):
        await song.recover()


async def test_a_client_without_the_provider_says_so(
    expired: Sandbox, make_client: MakeClient, store: str, tmp_path: Path
) -> None:
    """A client without the job's provider can save live links, and says why it cannot recover dead ones."""
    ref = await finished(await make_client(expired, store=store), expired)

    async with ax.Client(store=store) as reader:
        song = await (await reader.job(ref)).result()
        with pytest.raises(ax.DownloadError, match=r"status gives no.*: this client has no provider: pass one"):
            await song.save(tmp_path)


async def test_a_recovery_goes_on_while_the_store_is_away(api: Api, open_client: MakeClient, tmp_path: Path) -> None:
    """A recovery does not start without the journal; one under way ends as soon as the store is back."""
    store = ax.MemoryStore()
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=410))
        client = await open_client(store=store, **QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))
        store.fail("the disk is full")
        with pytest.raises(ax.DownloadError, match="disk is full"):
            await song.save(tmp_path)
        store.fail(None)
        assert [] == api.recoveries
        saving = asyncio.create_task(song.save(tmp_path))
        await api.recovery_asked.wait()
        store.fail("the disk is full")
        api.recovered = recovered({"id": "a", "audio_url": host.put("/back.mp3", gives()), "status": "success"})
        for _ in range(3):
            api.recovery_asked.clear()
            await api.recovery_asked.wait()
        store.fail(None)

        assert 1 == len(await saving)
        assert 1 == len(api.recoveries)


async def test_a_closed_client_says_what_to_do(expired: Sandbox, make_client: MakeClient, tmp_path: Path) -> None:
    """A closed client can save live links, and says that recovering dead ones needs an open client."""
    client = await make_client(expired, **QUICK)
    song = await (await client.job(await finished(client, expired)))
    await client.aclose()

    with pytest.raises(ax.DownloadError, match=r"HTTP 410 .* for fresh links await the job again on an open one"):
        await song.save(tmp_path)
    with pytest.raises(ax.ConfigError, match="not open"):
        await song.recover()


async def test_closing_ends_the_wait_for_a_recovery(expired: Sandbox, make_client: MakeClient, tmp_path: Path) -> None:
    """Closing ends a save that waits for a recovery with a DownloadError."""
    client = await make_client(expired, **QUICK)
    song = await (await client.job(await finished(client, expired)))
    expired.complete_seconds = 1e12
    saving = asyncio.create_task(song.save(tmp_path))

    async def is_sent() -> bool:
        return operations(expired) == RECOVERED

    await soon(is_sent)

    await client.aclose()

    with pytest.raises(ax.DownloadError, match="client was closed during its recovery"):
        await saving
    assert [] == list(tmp_path.iterdir())


async def test_closing_waits_for_the_answer_to_a_recovery(api: Api, open_client: MakeClient, tmp_path: Path) -> None:
    """Closing waits for a recovery's answer and stores its id, so that the next client does not POST another one."""
    store = ax.MemoryStore()
    api.recovery_gate.clear()
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=410))
        client = await open_client(store=store, **QUICK)
        job = await client.extend(audio_id="a", model="V5")
        saving = asyncio.create_task((await job).save(tmp_path))

        async def is_sent() -> bool:
            return 1 == len(api.recoveries)

        await soon(is_sent)
        closing = asyncio.create_task(client.aclose())
        with pytest.raises(ax.DownloadError, match="client was closed during its recovery"):
            await saving
        api.recovery_gate.set()
        await closing

        assert job.record.recovery is not None
        assert "recovery-1" == job.record.recovery.task_id


async def test_a_free_status_call_is_tried_before_a_recovery(api: Api, open_client: MakeClient, tmp_path: Path) -> None:
    """Fresh links are looked for by a free status call before a recovery."""
    async with serve_host() as host:
        api.link = host.put("/old.mp3", gives(b"", status=410))
        client = await open_client(**QUICK)
        song = await client.run(ax.Extend(audio_id="a", model="V5"))
        api.link = host.put("/new.mp3", gives())

        (path,) = await song.save(tmp_path)

        assert MP3 == path.read_bytes()
        assert 1 == len(api.posts)


async def test_a_third_tasks_webhook_is_refused_once_the_recovery_has_its_id(
    expired: Sandbox, make_client: MakeClient, store: str
) -> None:
    """Once a recovery has its id, a webhook of a third task is refused."""
    client = await make_client(expired, **WEB, store=store, **QUICK)
    job = await client.job(await finished(client, expired))
    await (await job).recover()
    hook = expired.submissions[0].callback_url
    assert hook is not None
    body = b'{"code": 200, "task_id": "third", "data": [{"id": "x", "audio_url": "https://f.test/x.mp3"}]}'

    status = await client.inbox.accept(ax.Webhook(path=hook.removeprefix("http://127.0.0.1"), headers={}, body=body))

    assert 401 == status
    assert all("f.test" not in str(track.audio_url) for track in job.tracks)
