"""One key is one task, however often, from wherever and whenever it is submitted."""

from __future__ import annotations

import asyncio
import enum
import io
import shutil
from pathlib import Path
from typing import Any

import pytest

import audioext as ax
from audioext.models.entries import Entry, Index
from audioext.models.requests import AudioFile
from audioext.sandbox import Sandbox
from audioext.stores.base import Created, Existing, Full
from audioext.stores.sqlite import SqliteStore
from tests.integration.client.conftest import MakeClient, MakeSandbox
from tests.support.api import Api, failing
from tests.support.clock import SOON_SECONDS, JumpClock, soon
from tests.support.stores import WatchedSqlite

REQUEST = ax.Extend(audio_id="x", model="V5")


async def test_a_refused_key_may_be_used_again(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """After a refusal the same key submits anew; after a success it returns the same job."""
    sandbox = await make_sandbox(faults=["code=402*1"])
    client = await make_client(sandbox)
    with pytest.raises(ax.CreditsError):
        await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")
    again = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")

    assert job == again
    assert 2 == len(sandbox.submissions)


class Name(str, enum.Enum):  # noqa: UP042 - whose str() is another text
    """A program's own names; their `str()` is not their value."""

    API = "kie"
    KEY = "once"
    MODEL = "V5"


async def test_enums_are_the_texts_that_they_hold(api: Api, open_client: MakeClient) -> None:
    """A provider, a key and a model may be members of an enum of texts: sent and found as these texts."""
    client = await open_client()
    job = await client.extend(audio_id="x", model=Name.MODEL, provider=Name.API, key=Name.KEY)

    assert job == await client.extend(audio_id="x", model="V5", key="once")
    assert ["V5"] == [post["model"] for post in api.posts]


async def test_a_key_that_is_refused_while_it_is_looked_up_is_free(api: Api, open_client: MakeClient) -> None:
    """If another client's job of the key is refused between find and read, our submit is sent."""
    found, go_on = asyncio.Event(), asyncio.Event()
    api.gate.clear()
    api.codes = [402]

    class Slow(ax.MemoryStore):
        async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
            ref = await super().find(key=key, provider=provider, task_id=task_id)
            if ref is not None and key is not None:
                found.set()
                await go_on.wait()
            return ref

    store = Slow()
    one, other = await open_client(store=store), await open_client(store=store)
    refused = asyncio.create_task(one.submit(REQUEST, key="k"))
    await api.arrived.wait()
    submitting = asyncio.create_task(other.submit(REQUEST, key="k"))
    await found.wait()
    api.gate.set()
    with pytest.raises(ax.CreditsError):
        await refused
    go_on.set()

    assert ("task-2", True) == ((job := await submitting).task_id, job.is_new)


async def test_a_key_conflict_is_one_line_of_the_log(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of a submit that ended without a job has one line, however many its error has."""
    caplog.set_level("INFO", "audioext.submit")
    client = await open_client()
    await client.submit(REQUEST, key="k")

    with pytest.raises(ax.KeyConflictError, match="\n"):
        await client.submit(ax.Extend(audio_id="y", model="V5"), key="k")

    (line,) = caplog.messages
    assert "audio_id differs" in line
    assert "\n" not in line


async def test_one_key_is_one_task_however_many_submit_it(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Ten concurrent submits with one key make one POST and one job."""
    client = await make_client(sandbox)

    jobs = await asyncio.gather(
        *(client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:7") for _ in range(10))
    )

    assert 1 == len({job.ref for job in jobs})
    assert 1 == len(sandbox.submissions)


async def test_a_key_that_is_taken_by_another_request_is_refused(sandbox: Sandbox, make_client: MakeClient) -> None:
    """The error names the job that has the key and the difference; nothing is sent, and the first job continues."""
    client = await make_client(sandbox)
    first = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:8")

    again = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:8", meta={"chat": 8})
    with pytest.raises(ax.KeyConflictError, match=r"key: 'chat:8' has job .* \(model and audio_id differ\)") as refused:
        await client.extend(audio_id=sandbox.track_ids[1], model="V4", key="chat:8")

    assert isinstance(refused.value, ax.RequestError)
    assert first.ref == again.ref == refused.value.ref
    assert (True, False) == (first.is_new, again.is_new)
    assert 1 == len(sandbox.submissions)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"model": "V4_5PLUS"}),
        ({}, {"source_duration": 4.0}),
        ({"vocal_gender": "m"}, {"vocal_gender": "male"}),
        ({"style_weight": 1}, {"style_weight": 1.0}),
        ({}, {"provider": "kie", "rehost": False}),
    ],
)
async def test_an_explicit_default_is_the_same_request(
    first: dict[str, Any], second: dict[str, Any], sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A default passed explicitly, or another spelling of the same value, is the same request."""
    client = await make_client(sandbox)
    asked: dict[str, Any] = {"file": voice_file, "title": "a", "tags": "b", "negative_tags": "c", "key": "once"}

    job = await client.add_instrumental(**asked, **first)
    again = await client.add_instrumental(**asked, **{**first, **second})

    assert (job, False) == (again, again.is_new)


async def test_files_are_compared_by_content(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path, tmp_path: Path
) -> None:
    """Files are compared by content: the same audio from elsewhere matches, other audio at the same path does not."""
    client = await make_client(sandbox)
    path = tmp_path / "moved.wav"
    shutil.copy(voice_file, path)

    async def submit(file: AudioFile) -> ax.Job:
        return await client.extend(file=file, model="V5", continue_at=1, key="once")

    job = await submit(voice_file)
    again = [await submit(path), await submit(path.read_bytes()), await submit(io.BytesIO(path.read_bytes()))]
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ax.KeyConflictError, match="file differs"):
        await submit(path)

    assert [(job.ref, False)] * 3 == [(found.ref, found.is_new) for found in again]
    assert 1 == len(sandbox.submissions)


async def test_two_requests_at_once_with_one_key_conflict(api: Api, open_client: MakeClient) -> None:
    """A different request with the same key is refused while the first one's POST is under way."""
    api.gate.clear()
    client = await open_client()
    first = asyncio.create_task(client.submit(REQUEST, key="once"))
    await api.arrived.wait()

    with pytest.raises(ax.KeyConflictError, match="model differs"):
        await client.extend(audio_id="x", model="V4", key="once")
    api.gate.set()

    assert (await first).is_new
    assert ["task-1"] == api.made


async def test_another_provider_is_another_request(sandbox: Sandbox, make_client: MakeClient) -> None:
    """One key at two providers would be two tasks, so the second call is refused."""
    store = ax.MemoryStore()
    await (await make_client(sandbox, store=store)).extend(audio_id=sandbox.track_ids[0], model="V5", key="once")
    other = await make_client(sandbox, "sunoapi", store=store)

    with pytest.raises(ax.KeyConflictError, match="provider differs"):
        await other.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")


async def test_exactly_one_of_many_calls_with_a_key_is_new(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Exactly one of many calls with a key gets a job that is new; the others and lookups get the same job, not new."""
    client = await make_client(sandbox)

    jobs = await asyncio.gather(
        *(client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:9") for _ in range(5))
    )
    found = await client.job(key="chat:9")

    assert [False] * 4 + [True] == sorted(job.is_new for job in jobs)
    assert (jobs[0], False) == (found, found.is_new)
    assert not (await client.job(found.ref)).is_new


@pytest.mark.parametrize(
    "look", [{"key": "never"}, {}, {"ref": "a", "key": "b"}, {"key": "\ud800"}, {"key": "x" * 999}]
)
async def test_an_unknown_key_is_a_problem(look: dict[str, str], open_client: MakeClient, api: Api) -> None:
    """An unknown key, neither ref nor key, and both together are problems; the message shortens a long key."""
    client = await open_client()

    with pytest.raises(ax.RequestError) as refused:
        await client.job(**look)

    assert len(str(refused.value)) < 250
    assert [] == api.posts


@pytest.mark.parametrize("key", ["", "x" * 513, "half a pair: \ud800"])
async def test_a_key_that_no_store_can_keep_is_refused(sandbox: Sandbox, make_client: MakeClient, key: str) -> None:
    """A key or ref that no store can keep is refused before anything is sent or looked up."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="key"):
        await client.extend(audio_id=sandbox.track_ids[0], model="V5", key=key)
    with pytest.raises(ax.RequestError, match="holds no job"):
        await client.job("\ud800")
    for look in ({"ref": 42}, {"key": 42}):
        with pytest.raises(ax.RequestError, match=r"(ref|key): must be text, not 42"):
            await client.job(**look)  # type: ignore[arg-type]  # wrong on purpose
    assert () == sandbox.submissions


# --- several callers at once -------------------------------------------------------------------------------------


async def test_two_calls_with_one_key_share_a_resend(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """Two calls with one key share the resend after a 429, and both get the one job."""
    api.codes = [429]
    api.gate.clear()
    client = await open_client(clock=clock.clock)
    early = asyncio.create_task(client.submit(REQUEST, key="once"))
    await api.arrived.wait()
    late = asyncio.create_task(client.submit(REQUEST, key="once"))
    await asyncio.sleep(0)  # it has begun

    api.gate.set()
    jobs = await clock.run(asyncio.gather(early, late))

    assert jobs[0] == jobs[1]
    assert (2, ["task-2"]) == (len(api.posts), api.made)


async def test_a_resend_of_a_key_does_not_find_what_was_refused(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A 429 that could not be stored at once is still resent when the store is back."""
    store = ax.MemoryStore()
    api.codes, api.on_post = [429], failing(store)
    client = await open_client(store=store, clock=clock.clock)
    submit = asyncio.create_task(client.submit(REQUEST, key="once"))
    await api.arrived.wait()
    while await is_up(store):  # noqa: ASYNC110 - turns of the loop, not time
        await asyncio.sleep(0)
    api.on_post = None
    store.fail(None)

    job = await clock.run(submit)

    assert ("task-2", ["task-2"]) == (job.task_id, api.made)
    assert 2 == len(api.posts)


async def is_up(store: ax.MemoryStore) -> bool:
    """Return whether a store answers."""
    try:
        await store.find(key="anything")
    except ax.StoreError:
        return False
    return True


async def test_cancelling_one_caller_of_a_key_leaves_the_other(api: Api, open_client: MakeClient) -> None:
    """If one of two callers that share a submit is cancelled, the other still gets the song."""
    api.gate.clear()
    client = await open_client()
    first, second = (asyncio.create_task(client.run(REQUEST, key="once")) for _ in range(2))
    await api.arrived.wait()
    first.cancel()
    api.gate.set()

    with pytest.raises(asyncio.CancelledError):
        await first
    assert 1 == len((await second).tracks)
    assert ["task-1"] == api.made


# --- a store that takes a job without an answer ------------------------------------------------------------------


class CutOffMemory(ax.MemoryStore):
    """A store that loses its next answer to a create, whether or not it took the job."""

    def __init__(self, *, takes: bool) -> None:
        """Lose the first answer."""
        super().__init__()
        self.takes = takes
        self.loses = True

    async def create(self, entry: Entry, index: Index, *, limits: ax.Limits, now: float) -> Created | Existing | Full:
        """Create the journal, and answer only from the second call on."""
        loses, self.loses = self.loses, False
        if loses and not self.takes:
            message = "the connection was cut on the way there"
            raise ax.StoreError(message)
        created = await super().create(entry, index, limits=limits, now=now)
        if loses:
            message = "the connection was cut on the way back"
            raise ax.StoreError(message)
        return created


@pytest.mark.parametrize("takes", [True, False])
async def test_a_job_whose_create_got_no_answer_was_not_sent(takes: bool, api: Api, open_client: MakeClient) -> None:
    """A job whose create got no answer was never sent: its key can be resubmitted, and its own waiters get an error."""
    store = CutOffMemory(takes=takes)
    client = await open_client(store=store)
    with pytest.raises(ax.StoreError):
        await client.submit(REQUEST, key="once")
    assert [] == api.posts

    job = await client.submit(REQUEST, key="once")

    assert "task-1" == job.task_id
    others = [other async for other in client.jobs() if other != job]
    assert [(ax.Verdict.REFUSED, True)] * takes == [(other.verdict, other.record.is_unsent) for other in others]
    for other in others:
        with pytest.raises(ax.JobError, match="nothing was sent"):
            await other
    assert 1 == len((await job).tracks)


class LateMemory(ax.MemoryStore):
    """A store that hangs at its first create: the caller gives up, and the store executes it later."""

    late: tuple[Entry, Index] | None = None

    async def create(self, entry: Entry, index: Index, *, limits: ax.Limits, now: float) -> Created | Existing | Full:
        """Create the journal, except at the first call."""
        if self.late is not None:
            return await super().create(entry, index, limits=limits, now=now)
        self.late = (entry, index)
        message = "no answer in time"
        raise ax.StoreError(message)


async def test_a_create_that_the_store_executes_late_holds_no_key(api: Api, open_client: MakeClient) -> None:
    """A job that the store creates only after its caller has looked for it was not sent, and its key is free."""
    store = LateMemory()
    client = await open_client(store=store)
    with pytest.raises(ax.StoreError):
        await client.submit(REQUEST, key="once")
    assert store.late is not None
    entry, index = store.late
    assert await soon(lambda: store.read(index.ref))
    assert [] == [job async for job in client.jobs()]

    await store.create(entry, index, limits=ax.Limits(), now=entry.at)
    job = await client.submit(REQUEST, key="once")

    assert (["task-1"], "task-1") == (api.made, job.task_id)
    assert ax.Verdict.REFUSED is (await client.job(index.ref)).verdict


# --- several processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reachable", [False, True])
async def test_a_refusal_in_another_client_ends_the_wait(
    reachable: bool, api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """A wait for a key's job in another client ends with the refusal when its POST is refused."""
    where = {"public_url": "http://127.0.0.1:9/audio", "listen": None} if reachable else {}
    api.codes = [402]
    api.gate.clear()
    sender = await open_client(store=SqliteStore(tmp_path / "jobs.db"), **where)
    store = WatchedSqlite(tmp_path / "jobs.db")
    other = await open_client(store=store, **where)
    submit = asyncio.create_task(sender.submit(REQUEST, key="once"))
    await api.arrived.wait()
    job = await other.submit(REQUEST, key="once")
    store.was_read.clear()
    wait = asyncio.create_task(job.result())
    await store.was_read.wait()

    api.gate.set()
    with pytest.raises(ax.CreditsError):
        await submit
    async with asyncio.timeout(SOON_SECONDS):
        with pytest.raises(ax.JobError, match="the vendor's words") as caught:
            await wait

    assert ax.JobError is type(caught.value)
    assert 1 == len(api.posts)


async def test_a_post_under_way_in_another_client_is_not_unknown(
    api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """A poll-only client waits on while another client's POST is under way, and gets the song."""
    api.gate.clear()
    sender = await open_client(store=SqliteStore(tmp_path / "jobs.db"))
    other = await open_client(store=SqliteStore(tmp_path / "jobs.db"))
    submit = asyncio.create_task(sender.submit(REQUEST, key="once"))
    await api.arrived.wait()
    job = await other.submit(REQUEST, key="once")
    wait = asyncio.create_task(job.result())

    with pytest.raises(ax.StageTimeoutError):
        await job.result(timeout=0.01)
    api.gate.set()
    song = await wait

    assert song.tracks == (await (await submit)).tracks
    assert ["task-1"] == api.made


@pytest.mark.parametrize(("source", "seconds"), [("file", 900.0), ("url", 75.0)])
async def test_a_file_inside_a_post_is_waited_for(
    source: str, seconds: float, make_sandbox: MakeSandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """Without webhooks, other clients count a POST with a file in it as unknown later, as its upload may take long."""
    sandbox = await make_sandbox()
    client = await make_client(sandbox, "musicgpt", poll=True)
    given = {"file": voice_file, "url": sandbox.voice_url}[source]

    job = await client.submit(ax.Extend.draft(continue_at=2, prompt="more", **{source: given}))

    assert seconds == job.record.unknown_at - job.record.created_at


# --- files that we serve -----------------------------------------------------------------------------------------


class TwoAtOnce(ax.MemoryStore):
    """A store that creates no job until two callers have looked for its key."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.looks = 0
        self.both_looked = asyncio.Event()

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job, and count the calls."""
        found = await super().find(key=key, provider=provider, task_id=task_id)
        self.looks += key is not None
        if self.looks >= 2:
            self.both_looked.set()
        return found

    async def create(self, entry: Entry, index: Index, *, limits: ax.Limits, now: float) -> Created | Existing | Full:
        """Create the journal once both callers have looked."""
        await self.both_looked.wait()
        return await super().create(entry, index, limits=limits, now=now)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_key_leaves_no_file_served(
    at_once: bool, sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A file that is submitted several times under one key is not served longer than its job runs."""
    client = await make_client(sandbox, "vidgo")
    request = ax.AddInstrumental(file=voice_file, title="a", tags="b", negative_tags="c", model="V5")

    async def submit() -> ax.Job:
        return await client.submit(request, key="once")

    jobs = await asyncio.gather(*(submit() for _ in range(3))) if at_once else [await submit() for _ in range(3)]
    await jobs[0]
    await submit()

    assert 1 == len({job.ref for job in jobs})
    assert 1 == len(sandbox.submissions)
    assert 0 == len(client.receiver.endpoint.offers)


async def test_a_key_submitted_by_two_clients_leaves_no_file_served(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A client that finds its key's job just made by another client withdraws its own offered file at once."""
    store = TwoAtOnce()
    clients = [await make_client(sandbox, "vidgo", store=store) for _ in range(2)]
    request = ax.AddInstrumental(file=voice_file, title="a", tags="b", negative_tags="c", model="V5")

    jobs = await asyncio.gather(*(client.submit(request, key="once") for client in clients))
    await asyncio.gather(*jobs)
    for client in clients:  # the client that did not send it learns of the end later
        await client.aclose()

    assert 1 == len({job.ref for job in jobs})
    assert 1 == len(sandbox.submissions)
    assert [0, 0] == [len(client.receiver.endpoint.offers) for client in clients]
