"""What is promised of a submit that was paid for, of closing, and of a store that fails, when it is hardest to keep."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web
from attrs import define, field

import audioext as ax
from audioext.client import SECRET_NAME
from audioext.errors import Problem
from audioext.files import downloads as files
from audioext.files.downloads import Source
from audioext.models.record import Record
from audioext.runtime import claims as worker
from audioext.runtime import maintenance as upkeep
from audioext.runtime import outcomes, submitter
from audioext.sandbox import Sandbox
from audioext.stores.base import Created, Resync, Versioned
from audioext.stores.sqlite import SqliteStore

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]

BRISK = ax.Pace(first=0.01, every=0.02, slowest=0.05, quiet=30.0)
WEB = {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0"}
LONG_SECONDS = 600.0
SOON_SECONDS = 5.0


@define(eq=False, repr=False)
class Api:
    """A stand-in for kie.ai: a POST waits while the gate is shut, and gets the next of `codes`, or else a task."""

    codes: list[int] = field(factory=list)
    on_post: Callable[[Api], Awaitable[None]] | None = None
    is_done: bool = True
    posts: list[dict[str, Any]] = field(factory=list)
    made: list[str] = field(factory=list)
    arrived: asyncio.Event = field(factory=asyncio.Event)
    gate: asyncio.Event = field(factory=asyncio.Event)
    base: str = ""

    def provider(self) -> ax.Kie:
        """Return a provider that points here, with a pace that suits it and no limits."""
        return ax.Kie("0123456789abcdef0123", base_url=self.base, limits=ax.Limits(), pace=BRISK)

    async def submit(self, request: web.Request) -> web.Response:
        """Take a POST: refuse it with the next code, or make a task."""
        self.posts.append(await request.json())
        self.arrived.set()
        await self.gate.wait()
        if self.on_post is not None:
            await self.on_post(self)
        code = self.codes.pop(0) if self.codes else 200
        if code != 200:
            return web.json_response({"code": code, "msg": "refused", "data": None})
        self.made.append(f"task-{len(self.posts)}")
        return _answer({"taskId": self.made[-1]})

    async def status(self, request: web.Request) -> web.Response:
        """Tell that a task is complete, or under way."""
        found: dict[str, Any] = {"taskId": request.query["taskId"], "status": "SUCCESS" if self.is_done else "PENDING"}
        tracks = [{"id": "a", "audioUrl": "http://files.test/a.mp3", "duration": 3.0}]
        return _answer({**found, "response": {"sunoData": tracks if self.is_done else []}})

    async def call_back(self, stage: str, task_id: str = "task-1") -> int:
        """Send the webhook of *stage* for the last POST, and return what it is answered."""
        tracks = [{"id": "a", "audio_url": "http://files.test/a.mp3", "duration": 3.0}] if stage != "text" else []
        data = {"callbackType": stage, "task_id": task_id, "data": tracks}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.posts[-1]["callBackUrl"], json={"code": 200, "msg": "", "data": data}) as response,
        ):
            return response.status


def filling(store: ax.MemoryStore) -> Callable[[Api], Awaitable[None]]:
    """Return what lets the store fail while a POST is under way."""

    async def fail(_: Api) -> None:
        store.fail("the disk is full")

    return fail


class WatchedMemory(ax.MemoryStore):
    """A store that says when it was read and when it has forgotten a record, and whose streams can be broken."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.read = asyncio.Event()
        self.discarded = asyncio.Event()
        self.breaks = 0
        self.broken = asyncio.Event()

    async def get(self, ref: str) -> Versioned | None:
        """Return a record, and say so."""
        self.read.set()
        return await super().get(ref)

    async def discard(self, ref: str, expected_version: int) -> bool:
        """Forget a record, and say so."""
        gone = await super().discard(ref, expected_version)
        if gone:
            self.discarded.set()
        return gone

    async def changes(self) -> AsyncIterator[str | Resync]:
        """Yield what changed; a stream that began before the last break fails at the next change."""
        began_at = self.breaks
        async for change in super().changes():
            if self.breaks != began_at:
                self.broken.set()
                message = "the stream broke"
                raise ax.StoreError(message)
            yield change


class TwoAtOnce(ax.MemoryStore):
    """A store that takes no record before two have looked for its key."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.looks = 0
        self.both_looked = asyncio.Event()

    async def find_key(self, key: str) -> Versioned | None:
        """Return the record of *key*, and count."""
        found = await super().find_key(key)
        self.looks += 1
        if self.looks == 2:
            self.both_looked.set()
        return found

    async def create(self, record: Record, key: str | None = None, *, due_at: float | None = None) -> Created:
        """Store a record when the other one has looked too."""
        await self.both_looked.wait()
        return await super().create(record, key, due_at=due_at)


class WatchedSqlite(SqliteStore):
    """A store that says when it was read, and fails its client's task of changes when it is told to."""

    def __init__(self, path: Path) -> None:
        """Watch the file at *path*."""
        super().__init__(path)
        self.read = asyncio.Event()
        self.failing_reads = 0
        self.failed = asyncio.Event()

    async def get(self, ref: str) -> Versioned | None:
        """Return a record, or fail within the task that follows the changes."""
        if self.failing_reads and _task_name() == "audioext changes":
            self.failing_reads -= 1
            self.failed.set()
            message = "a blip"
            raise ax.StoreError(message)
        found = await super().get(ref)
        self.read.set()
        return found


def _answer(data: object) -> web.Response:
    return web.json_response({"code": 200, "msg": "success", "data": data})


def _task_name() -> str:
    task = asyncio.current_task()
    return "" if task is None else task.get_name()


def tasks_of_ours() -> list[str]:
    """Return the names of the client's tasks that still run."""
    return [name for name in (task.get_name() for task in asyncio.all_tasks()) if name.startswith("audioext")]


@pytest.fixture
async def api(stack: AsyncExitStack) -> Api:
    """Return a stand-in for kie.ai whose gate is open."""
    api = Api()
    api.gate.set()
    app = web.Application()
    app.add_routes(
        [web.post("/api/v1/generate/extend", api.submit), web.get("/api/v1/generate/record-info", api.status)]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return api


@pytest.fixture
def open_client(api: Api, stack: AsyncExitStack) -> MakeClient:
    """Return a function that opens a client on the stand-in, which polls unless it is given a `public_url`."""

    async def make(**settings: object) -> ax.Client:
        client = ax.Client(api.provider(), **{"wait_timeout": 20.0, **settings})  # type: ignore[arg-type]  # a test's own
        return await stack.enter_async_context(client)

    return make


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that is tried again be tried again at once."""
    monkeypatch.setattr(outcomes, "FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(submitter, "RESEND_SECONDS", 0.005)
    monkeypatch.setattr(worker, "STORE_DOWN_SECONDS", 0.005)
    monkeypatch.setattr(upkeep, "STORE_DOWN_SECONDS", 0.005)


# --- refused, and yet it was made ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 402, 430])
async def test_a_refusal_after_the_callback_is_no_refusal(code: int, api: Api, open_client: MakeClient) -> None:
    """A task that called back was made, whatever its POST is answered: it is not sent again, and its song comes."""

    async def done_first(api: Api) -> None:
        assert 200 == await api.call_back("complete")

    api.codes, api.on_post = [code], done_first
    client = await open_client(**WEB)

    job = await client.extend(audio_id="x", model="V5")
    song = await job

    assert ["a"] == [track.id for track in song.tracks]
    assert 1 == len(api.posts)
    assert [job.ref] == [stored.ref async for stored in client.jobs()]


async def test_a_refused_task_that_has_begun_is_waited_for(api: Api, open_client: MakeClient) -> None:
    """When only the text came before the refusal, the same job ends with the later callback."""

    async def begun_first(api: Api) -> None:
        assert 200 == await api.call_back("text")

    api.codes, api.on_post = [429], begun_first
    client = await open_client(**WEB)

    job = await client.extend(audio_id="x", model="V5")
    assert (ax.Stage.TEXT, "task-1") == (job.stage, job.task_id)
    await api.call_back("complete")

    assert 1 == len((await job).tracks)
    assert 1 == len(api.posts)


# --- closing ---------------------------------------------------------------------------------------------------


async def test_a_close_that_is_cancelled_leaves_the_post_alone(api: Api, open_client: MakeClient) -> None:
    """A POST under way gets its answer, which is stored; the next call of aclose waits until all has ended."""
    store = ax.MemoryStore()
    client = await open_client(store=store)
    api.is_done = False
    earlier = await client.extend(audio_id="x", model="V5")
    wait = asyncio.create_task(earlier.result())
    api.arrived.clear()
    api.gate.clear()
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5"))
    await api.arrived.wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.aclose()
    api.gate.set()
    await asyncio.gather(client.aclose(), client.aclose())

    assert [] == tasks_of_ours()
    job = await submit
    stored = await store.get(job.ref)
    assert stored is not None
    assert ("task-2", "task-2") == (job.task_id, stored.record.task_id)
    with pytest.raises(ax.ClientClosedError):
        await wait


async def test_every_close_waits_for_the_one_closing(api: Api, open_client: MakeClient) -> None:
    """Of two calls at the same time, and of one more that comes later, none returns while a POST is under way."""
    client = await open_client()
    api.gate.clear()
    ended: list[str] = []

    def begin(name: str, work: Awaitable[object]) -> asyncio.Future[object]:
        future = asyncio.ensure_future(work)
        future.add_done_callback(lambda _: ended.append(name))
        return future

    submit = begin("submit", client.extend(audio_id="x", model="V5"))
    await api.arrived.wait()
    closes = [begin("close", client.aclose()) for _ in range(2)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.aclose()
    api.gate.set()
    await closes[1]

    assert [] == tasks_of_ours()
    await asyncio.gather(submit, *closes)
    assert ["submit", "close", "close"] == ended


async def test_closing_cancels_what_was_not_sent(api: Api) -> None:
    """A submit that still waits for its turn says that nothing was paid, and nothing was."""
    provider = ax.Kie("0123456789abcdef0123", base_url=api.base, limits=ax.Limits(submits=1, per=LONG_SECONDS))
    async with ax.Client(provider) as client:
        first = await client.extend(audio_id="x", model="V5")
        second = asyncio.create_task(client.extend(audio_id="x", model="V5"))
        await asyncio.sleep(0)  # it has begun

    with pytest.raises(ax.ConfigError, match="nothing was paid"):
        await second
    assert "task-1" == first.task_id
    assert 1 == len(api.posts)


async def test_a_refusal_that_comes_while_closing_is_told(api: Api, open_client: MakeClient) -> None:
    """A POST under way at the close that is refused says why, not that the client was closed; its record is gone."""
    store = ax.MemoryStore()
    client = await open_client(store=store)
    api.codes = [402]
    api.gate.clear()
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5", key="once"))
    await api.arrived.wait()
    close = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)  # it has begun

    api.gate.set()
    await close

    with pytest.raises(ax.CreditsError):
        await submit
    assert None is await store.find_key("once")


async def test_nothing_is_resent_while_closing(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A POST under way at the close that is answered 429 is not sent again, and the close does not wait for that."""
    monkeypatch.setattr(submitter, "RESEND_SECONDS", LONG_SECONDS)
    client = await open_client()
    api.codes = [429]
    api.gate.clear()
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5"))
    await api.arrived.wait()
    close = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)  # it has begun

    api.gate.set()
    async with asyncio.timeout(SOON_SECONDS):
        await close

    with pytest.raises(ax.RateLimitError):
        await submit
    assert 1 == len(api.posts)


async def test_closing_ends_the_pause_before_a_resend(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit that waits to send its refused POST again is ended by the close, and nothing more is sent."""
    monkeypatch.setattr(submitter, "RESEND_SECONDS", LONG_SECONDS)
    store = WatchedMemory()
    client = await open_client(store=store)
    api.codes = [429]
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5"))
    await store.discarded.wait()

    async with asyncio.timeout(SOON_SECONDS):
        await client.aclose()

    with pytest.raises(ax.AudioextError):
        await submit
    assert 1 == len(api.posts)


async def test_a_submit_that_looks_at_its_file_is_not_sent_after_closing(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the client closes while a slow disk is read, the submit is refused and nothing is sent."""
    began, gate, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def slow(path: Path) -> Source | Problem:
        loop.call_soon_threadsafe(began.set)
        assert gate.wait(SOON_SECONDS)
        return files.probe(path)

    monkeypatch.setattr("audioext.runtime.submitter.probe", slow)
    client = await make_client(sandbox, "musicgpt", poll=True)
    submit = asyncio.create_task(client.extend(file=voice_file, continue_at=1))
    await began.wait()

    await client.aclose()
    gate.set()
    with pytest.raises(ax.ConfigError):
        await submit

    assert () == tuple(sandbox.submissions)
    assert [] == tasks_of_ours()


# --- a store that fails ----------------------------------------------------------------------------------------


async def test_an_id_that_was_read_is_stored_when_the_store_is_back(api: Api, open_client: MakeClient) -> None:
    """The store fails just after the answer: the job knows its task, and ends by poll once the store is there."""
    store = ax.MemoryStore()

    api.on_post = filling(store)
    client = await open_client(store=store)

    job = await client.extend(audio_id="x", model="V5")
    wait = asyncio.create_task(job.result())
    assert "task-1" == job.task_id
    store.fail(None)
    song = await wait

    stored = await store.get(job.ref)
    assert stored is not None
    assert ("task-1", ax.Verdict.COMPLETE) == (stored.record.task_id, stored.record.verdict)
    assert 1 == len(song.tracks)
    assert 1 == len(api.posts)


class LongWay(ax.MemoryStore):
    """A store that is some way off: each question about places takes turns of the loop, as at a server or a file."""

    async def take_place(self, name: str, holder: str, *, limit: int, now: float, until: float) -> float:
        """Take it, later."""
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().take_place(name, holder, limit=limit, now=now, until=until)


async def test_an_id_is_stored_later_however_the_submit_ends(api: Api, open_client: MakeClient) -> None:
    """Where parallel jobs are limited the submit goes on after its answer; what is to be stored stays to be stored."""
    store = LongWay()

    api.on_post, api.is_done = filling(store), False
    limited = attrs.evolve(api.provider(), limits=ax.Limits(parallel=5))
    async with ax.Client(limited, store=store, wait_timeout=20.0) as client:
        job = await client.extend(audio_id="x", model="V5")
        store.fail(None)
        async with asyncio.timeout(SOON_SECONDS):
            while (stored := await store.get(job.ref)) is not None and stored.record.task_id is None:  # noqa: ASYNC110 - turns
                await asyncio.sleep(0)

        assert stored is not None
        assert "task-1" == stored.record.task_id == job.task_id


async def test_a_store_that_comes_back_empty_is_told_at_once_and_ends_no_wait(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it lost is stored again as soon as it is heard of, not after a pause; meanwhile the job is not gone."""
    monkeypatch.setattr(outcomes, "FIRST_PAUSE_SECONDS", LONG_SECONDS)
    store = WatchedMemory()

    async def lose_all(_: Api) -> None:
        async for stored in store.scan():
            await store.discard(stored.record.ref, stored.version)
        store.fail("the server is down")

    api.on_post = lose_all
    client = await open_client(store=store)
    job = await client.extend(audio_id="x", model="V5", key="once")
    wait = asyncio.create_task(job.result())
    store.fail(None)
    store.read.clear()
    await store.read.wait()
    assert await store.get(job.ref) is None

    store.breaks += 1  # its stream ends with the next change, and whoever listened looks at everything again
    await store.create(Record(ref="other", provider="kie", request=ax.Extend(audio_id="y"), created_at=1.0))
    async with asyncio.timeout(SOON_SECONDS):
        song = await wait

    assert 1 == len(song.tracks)
    assert 1 == len(api.posts)
    assert job is await client.extend(audio_id="x", model="V5", key="once")


class Picky(WatchedMemory):
    """A store that refuses named values for a while."""

    def __init__(self) -> None:
        """Begin empty, and refuse nothing."""
        super().__init__()
        self.refusals = 0
        self.kept = asyncio.Event()

    async def create_if_absent(self, name: str, value: bytes) -> bytes:
        """Refuse it, or store it."""
        if self.refusals:
            self.refusals -= 1
            message = "not enough replicas"
            raise ax.StoreError(message)
        self.kept.set()
        return await super().create_if_absent(name, value)


async def test_a_secret_is_given_back_for_as_long_as_it_takes(open_client: MakeClient) -> None:
    """A store that lost the secret and refuses it at first gets it in the end: the URLs in use stay valid."""
    store, empty = Picky(), Picky()
    client = await open_client(store=store, **WEB)
    (secret,) = client.inbox.secrets
    for name in ("create_if_absent", "changes", "get"):
        setattr(store, name, getattr(empty, name))  # as if it had lost all
    empty.refusals = 3

    store.breaks += 1
    await store.create(Record(ref="other", provider="kie", request=ax.Extend(audio_id="y"), created_at=1.0))
    async with asyncio.timeout(SOON_SECONDS):
        await empty.kept.wait()

    assert secret == await empty.create_if_absent(SECRET_NAME, b"another one")
    assert (secret,) == client.inbox.secrets


async def test_closing_tries_once_more_to_store_the_id(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a later try is stored at the close, and the next client ends the job."""
    monkeypatch.setattr(outcomes, "FIRST_PAUSE_SECONDS", LONG_SECONDS)
    store = ax.MemoryStore()

    api.on_post = filling(store)
    client = await open_client(store=store)
    job = await client.extend(audio_id="x", model="V5")
    store.fail(None)

    await client.aclose()

    stored = await store.get(job.ref)
    assert stored is not None
    assert "task-1" == stored.record.task_id
    successor = await open_client(store=store)
    assert 1 == len((await (await successor.job(job.ref))).tracks)


async def test_an_await_begun_when_the_store_is_back_finds_the_id(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of the older state in the store does not make the job forget its task; meanwhile it is not unknown."""
    monkeypatch.setattr(outcomes, "FIRST_PAUSE_SECONDS", LONG_SECONDS)
    store = ax.MemoryStore()

    api.on_post = filling(store)
    client = await open_client(store=store)
    job = await client.extend(audio_id="x", model="V5")
    store.fail(None)

    with pytest.raises(ax.StageTimeoutError):
        await job.result(timeout=0.01)
    again = await client.job(job.ref)

    assert again is job
    assert "task-1" == job.task_id


async def test_closing_does_not_wait_for_a_store_that_stays_away(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With the store still down the close ends, and the id stands in the log."""
    store = ax.MemoryStore()

    api.on_post = filling(store)
    client = await open_client(store=store)
    await client.extend(audio_id="x", model="V5")

    async with asyncio.timeout(SOON_SECONDS):
        await client.aclose()

    assert [] == tasks_of_ours()
    assert "task-1" in caplog.text


async def test_a_refusal_while_the_store_fails_is_told_and_kept(api: Api, open_client: MakeClient) -> None:
    """The refusal is what submit raises; when the store is back the record is gone and its key is free."""
    store = WatchedMemory()

    api.codes, api.on_post = [402], filling(store)
    client = await open_client(store=store)
    with pytest.raises(ax.CreditsError):
        await client.extend(audio_id="x", model="V5", key="once")

    store.fail(None)
    await store.discarded.wait()
    api.on_post = None
    job = await client.extend(audio_id="x", model="V5", key="once")

    assert 1 == len((await job).tracks)
    assert (2, ["task-2"]) == (len(api.posts), api.made)
    assert [job.ref] == [stored.ref async for stored in client.jobs()]


async def test_a_refusal_that_was_not_stored_is_stored_at_the_close(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that was to be discarded later is discarded before the client is closed."""
    monkeypatch.setattr(outcomes, "FIRST_PAUSE_SECONDS", LONG_SECONDS)
    store = ax.MemoryStore()

    api.codes, api.on_post = [402], filling(store)
    client = await open_client(store=store)
    with pytest.raises(ax.CreditsError):
        await client.extend(audio_id="x", model="V5", key="once")
    store.fail(None)

    await client.aclose()

    assert None is await store.find_key("once")


async def test_a_read_that_fails_does_not_end_the_following_of_changes(
    api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """After one read that failed, a later commit of another client still wakes the wait."""
    listener = await open_client(store=SqliteStore(tmp_path / "jobs.db"), **WEB)
    store = WatchedSqlite(tmp_path / "jobs.db")
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None)
    job = await waiter.extend(audio_id="x", model="V5")
    store.read.clear()
    wait = asyncio.create_task(job.result())
    await store.read.wait()

    store.failing_reads = 1
    await api.call_back("first")
    await store.failed.wait()
    await api.call_back("complete")

    async with asyncio.timeout(SOON_SECONDS):
        assert 1 == len((await wait).tracks)


@pytest.mark.parametrize("broken_at", ["first", "complete"])
async def test_a_stream_of_changes_that_breaks_is_begun_anew(broken_at: str, api: Api, open_client: MakeClient) -> None:
    """The commit at which the stream broke is seen, even the last one, and so are those after it."""
    store = WatchedMemory()
    listener = await open_client(store=store, **WEB)
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None)
    job = await waiter.extend(audio_id="x", model="V5")
    store.read.clear()
    wait = asyncio.create_task(job.result())
    await store.read.wait()

    store.breaks += 1
    await api.call_back(broken_at)
    await store.broken.wait()
    if broken_at != "complete":
        await api.call_back("complete")

    async with asyncio.timeout(SOON_SECONDS):
        assert 1 == len((await wait).tracks)


# --- one key ---------------------------------------------------------------------------------------------------


async def test_a_resend_of_a_key_does_not_find_what_was_refused(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 whose record could not be discarded at once is sent again all the same, and the song comes."""
    monkeypatch.setattr(outcomes, "FIRST_PAUSE_SECONDS", LONG_SECONDS)
    store = ax.MemoryStore()

    async def full(api: Api) -> None:
        if len(api.posts) == 1:
            store.fail("the disk is full")
            asyncio.get_running_loop().call_later(0.02, store.fail, None)

    monkeypatch.setattr(submitter, "RESEND_SECONDS", 0.1)
    api.codes, api.on_post = [429], full
    client = await open_client(store=store)

    job = await client.extend(audio_id="x", model="V5", key="once")

    assert 1 == len((await job).tracks)
    assert (2, ["task-2"]) == (len(api.posts), api.made)


async def test_two_calls_with_one_key_share_a_resend(api: Api, open_client: MakeClient) -> None:
    """The first POST is answered 429 and sent again: both callers get the one song."""
    api.codes = [429]
    client = await open_client()

    songs = await asyncio.gather(*(client.run(ax.Extend(audio_id="x", model="V5"), key="once") for _ in range(2)))

    assert songs[0] == songs[1]
    assert (2, ["task-2"]) == (len(api.posts), api.made)


async def test_a_call_that_comes_during_the_post_shares_its_resend(api: Api, open_client: MakeClient) -> None:
    """A caller of the same key that comes while the POST is under way is not told of the refusal that is resent."""
    api.codes = [429]
    api.gate.clear()
    client = await open_client()
    first = asyncio.create_task(client.run(ax.Extend(audio_id="x", model="V5"), key="once"))
    await api.arrived.wait()
    second = asyncio.create_task(client.run(ax.Extend(audio_id="x", model="V5"), key="once"))
    await asyncio.sleep(0)  # it has begun

    api.gate.set()

    assert await first == await second
    assert ["task-2"] == api.made


async def test_cancelling_one_caller_of_a_key_leaves_the_other(api: Api, open_client: MakeClient) -> None:
    """Two callers share a submit; the one that stays gets the song."""
    api.gate.clear()
    client = await open_client()
    first, second = (asyncio.create_task(client.run(ax.Extend(audio_id="x", model="V5"), key="once")) for _ in range(2))
    await api.arrived.wait()
    first.cancel()
    api.gate.set()

    with pytest.raises(asyncio.CancelledError):
        await first
    assert 1 == len((await second).tracks)
    assert ["task-1"] == api.made


@pytest.mark.parametrize("reachable", [False, True])
async def test_a_refusal_elsewhere_ends_the_wait(
    reachable: bool, api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """Another client holds the job of the key when its POST is refused: its wait ends at once, and says so."""
    where = {"public_url": "http://127.0.0.1:9/audio", "listen": None} if reachable else {}
    api.codes = [402]
    api.gate.clear()
    sender = await open_client(store=SqliteStore(tmp_path / "jobs.db"), **where)
    store = WatchedSqlite(tmp_path / "jobs.db")
    other = await open_client(store=store, **where)
    submit = asyncio.create_task(sender.extend(audio_id="x", model="V5", key="once"))
    await api.arrived.wait()
    job = await other.extend(audio_id="x", model="V5", key="once")
    store.read.clear()
    wait = asyncio.create_task(job.result())
    await store.read.wait()

    api.gate.set()
    with pytest.raises(ax.CreditsError):
        await submit
    async with asyncio.timeout(SOON_SECONDS):
        with pytest.raises(ax.JobError, match="refused") as caught:
            await wait

    assert ax.JobError is type(caught.value)
    assert 1 == len(api.posts)


async def test_a_post_under_way_elsewhere_is_not_unknown(api: Api, open_client: MakeClient, tmp_path: Path) -> None:
    """Where nobody can call us, a wait in another client goes on while the POST is under way, and gets the song."""
    api.gate.clear()
    sender = await open_client(store=SqliteStore(tmp_path / "jobs.db"))
    store = WatchedSqlite(tmp_path / "jobs.db")
    other = await open_client(store=store)
    submit = asyncio.create_task(sender.extend(audio_id="x", model="V5", key="once"))
    await api.arrived.wait()
    job = await other.extend(audio_id="x", model="V5", key="once")
    store.read.clear()
    wait = asyncio.create_task(job.result())
    await store.read.wait()

    with pytest.raises(ax.StageTimeoutError):
        await job.result(timeout=0.01)
    api.gate.set()
    song = await wait

    assert song.tracks == (await (await submit)).tracks
    assert ["task-1"] == api.made


# --- files that we serve ---------------------------------------------------------------------------------------


def offers(client: ax.Client) -> int:
    """Return how many files a client serves."""
    return len(client._shelf._offers)  # noqa: SLF001 - their URLs cannot be guessed, so only memory tells


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_key_leaves_no_file_served(
    at_once: bool, sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A file that was submitted several times under one key is served no longer than its job runs."""
    client = await make_client(sandbox, "vidgo")

    async def submit() -> ax.Job:
        return await client.add_instrumental(
            file=voice_file, title="a", tags="b", negative_tags="c", model="V5", key="once"
        )

    jobs = await asyncio.gather(*(submit() for _ in range(3))) if at_once else [await submit() for _ in range(3)]
    await jobs[0]
    await submit()

    assert 1 == len({job.ref for job in jobs})
    assert 1 == len(sandbox.submissions)
    assert 0 == offers(client)


async def test_a_key_submitted_by_two_clients_leaves_no_file_served(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A client that finds the job made by the other one just before takes its own offer back at once."""
    store = TwoAtOnce()
    clients = [await make_client(sandbox, "vidgo", store=store) for _ in range(2)]

    jobs = await asyncio.gather(
        *(
            client.add_instrumental(file=voice_file, title="a", tags="b", negative_tags="c", model="V5", key="once")
            for client in clients
        )
    )
    await asyncio.gather(*jobs)

    assert 1 == len({job.ref for job in jobs})
    assert 1 == len(sandbox.submissions)
    assert [0, 0] == [offers(client) for client in clients]
