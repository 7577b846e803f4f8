"""Faults at the worst moment: a failed submit leaves no job, and closing one client does not affect another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from yarl import URL

import audioext as ax
from audioext.models.entries import Entry, Index
from audioext.models.limits import Limits
from audioext.runtime.poller import LONG_JOURNAL
from audioext.runtime.submitter import RESEND_SECONDS
from audioext.stores.base import Created, Existing, Full
from tests.integration.client.conftest import WEB, Connect, MakeClient
from tests.support.api import Api, failing, read_head
from tests.support.clock import PROMPT_SECONDS, JumpClock, soon
from tests.support.stores import FaultyMemory


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


async def refs(store: ax.MemoryStore) -> list[str]:
    """Return the refs of a store's jobs."""
    return [stored.index.ref async for stored in store.jobs()]


# --- submits that could not be stored ----------------------------------------------------------------------------


async def test_a_submit_that_could_not_be_stored_is_not_stored_later(api: Api, open_client: MakeClient) -> None:
    """A submit that failed because its job could not be stored is not stored when the client refills an empty store."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    await store.was_secret_kept.wait()
    store.fail("away")
    with pytest.raises(ax.StoreError, match="away"):
        await extend(client)

    store.fail(None)
    store.was_secret_kept.clear()
    await store.lose_all()
    await store.was_secret_kept.wait()
    job = await extend(client)

    assert [job.ref] == await refs(store)
    assert 1 == len(api.posts)


async def test_a_submit_that_waits_for_its_turn_is_not_restored(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A client that restores all its jobs to the store leaves out a job whose POST still waits for its turn."""
    api.is_done = False
    store = ax.MemoryStore()
    provider = api.provider(limits=ax.Limits(parallel=1))
    settings: dict[str, object] = {"store": store, "permit_timeout": 5.0, "clock": clock.clock, **WEB}
    async with ax.Client(provider, **settings) as first:  # type: ignore[arg-type]  # a test's own settings
        job = await extend(first)

    async with ax.Client(provider, **settings) as client:  # type: ignore[arg-type]  # as above
        with pytest.raises(ax.RateLimitError):  # its first pass over all jobs meets the queued submit
            await clock.run(extend(client, key="mine"))

    assert [job.ref] == await refs(store)
    assert await store.find(key="mine") is None
    assert 1 == len(api.posts)


async def test_a_refusal_that_is_not_stored_yet_does_not_stand_in_for_its_resend(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A retryable POST is resent with its key although the store was away when its refusal should have been stored."""
    store = FaultyMemory()
    client = await open_client(store=store, clock=clock.clock, **WEB)
    api.codes = [429]
    api.on_post = failing(store)
    submit = asyncio.create_task(extend(client, key="mine"))
    await api.arrived.wait()
    api.on_post = None
    await clock.run(clock.sleep(RESEND_SECONDS / 2), step=0.05)
    store.fail(None)
    job = await clock.run(submit, step=0.05)

    assert ("task-2", 2) == (job.task_id, len(api.posts))
    assert job.ref == await store.find(key="mine")


# --- journals ----------------------------------------------------------------------------------------------------


async def test_an_answer_with_an_undecodable_header_is_stored(stack: AsyncExitStack, connect: Connect) -> None:
    """A paid task is stored whatever bytes the answer's headers hold, and so is the next submit with a key."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await read_head(reader):
            writer.close()
            return
        body = b'{"code": 200, "msg": "", "data": {"taskId": "task-1"}}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; x=\xff\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
    host, port = server.sockets[0].getsockname()
    provider = ax.Kie("0123456789abcdef0123", base_url=f"http://{host}:{port}", limits=ax.Limits())
    store = connect()
    client = await stack.enter_async_context(ax.Client(provider, store=store))
    job = await extend(client, key="mine")

    stored = await store.read(job.ref)
    assert stored is not None
    assert ("task-1", 2) == (stored.index.task_id, stored.count)
    assert job == await extend(client, key="mine")


COMPLAINT = '{"code": 500, "msg": "internal error, trace %d"}'
RUNNING = (
    '{"code": 200, "data": {"taskId": "task-1", "status": "FIRST_SUCCESS", "response": {"sunoData": '
    '[{"id": "a", "audioUrl": "http://files.test/a.mp3?signature=%d", "duration": 3.0}]}}}'
)


DOUBTS = (
    '{"code": 200, "data": {"taskId": "task-1", "status": "CALLBACK_EXCEPTION"}}',
    '{"code": 200, "data": {"taskId": "task-1", "status": "PENDING"}}',
)


@pytest.mark.parametrize("said", [COMPLAINT, RUNNING, DOUBTS], ids=["complaints", "links", "doubts"])
async def test_statuses_that_all_differ_leave_room_for_the_result(
    stack: AsyncExitStack, clock: JumpClock, said: str | tuple[str, str]
) -> None:
    """Hours of status answers that all differ, by text, links or a doubt, leave the journal room for the song."""
    calls, is_long_silent = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        head = await read_head(reader)
        if not head:
            writer.close()
            return
        calls += 1
        if calls > 2 * LONG_JOURNAL:
            is_long_silent.set()
        body = b'{"code": 200, "msg": "", "data": {"taskId": "task-1"}}'
        if head.startswith(b"GET"):
            body = (said % calls if isinstance(said, str) else said[calls % 2]).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
    host, port = server.sockets[0].getsockname()
    provider = ax.Kie("0123456789abcdef0123", base_url=f"http://{host}:{port}", limits=ax.Limits(queries=None))
    store = ax.MemoryStore()
    # On a busy machine this clock may jump far: the job must not expire meanwhile.
    client = await stack.enter_async_context(ax.Client(provider, store=store, clock=clock.clock, expire_after=1e9))
    job = await extend(client)

    await clock.run(is_long_silent.wait(), step=60.0)
    stored = await store.read(job.ref)
    assert stored is not None
    assert LONG_JOURNAL + (2 if said is DOUBTS else 0) == stored.count
    assert said is not COMPLAINT or "trace" in str(job.record.complaint)
    said = RUNNING.replace("FIRST_SUCCESS", "SUCCESS")
    song = await clock.run(job.result(), step=60.0)
    assert ["a"] == [track.id for track in song.tracks]


# --- a callback that the provider could not deliver --------------------------------------------------------------


async def test_a_callback_exception_without_a_track_ends_within_minutes(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A callback exception without a track fails the job within minutes, not a day; a late song still completes it."""
    api.is_done, api.word = False, "CALLBACK_EXCEPTION"
    client = await open_client(store=ax.MemoryStore(), clock=clock.clock, **WEB)
    job = await extend(client)
    began = clock.time

    with pytest.raises(ax.JobFailedError, match="callback failed, and its status shows no track") as failed:
        await clock.run(job.result(timeout=900))
    assert (None, "CALLBACK_EXCEPTION") == (failed.value.charged, failed.value.code)
    assert clock.time - began < 600

    assert 200 == await api.call_back("complete")
    assert 1 == len((await job).tracks)


async def test_a_callback_exception_may_be_followed_by_the_song(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A status that shows the song after a callback exception completes the job."""
    api.is_done, api.word = False, "CALLBACK_EXCEPTION"
    client = await open_client(store=ax.MemoryStore(), clock=clock.clock, **WEB)
    job = await extend(client)
    await job.refresh()
    assert (ax.Verdict.OPEN, clock.time) == (job.verdict, job.record.doubted_at)

    api.is_done = True
    assert 1 == len((await clock.run(job.result(timeout=900))).tracks)


# --- a clock that is set back ------------------------------------------------------------------------------------


async def test_a_clock_that_was_ahead_causes_one_status_call_only(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A webhook that needs a status call causes only one, even if the clock was ahead for a moment."""
    api.is_done = False
    store = ax.MemoryStore()
    client = await open_client(store=store, clock=clock.clock, **WEB)
    job = await extend(client)

    async def is_calm() -> bool:
        stored = await store.read(job.ref)
        assert stored is not None
        assert stored.index.poll_at is not None
        return clock.time < stored.index.poll_at < clock.time + 1.0

    clock.time += 3_600.0
    assert 200 == await api.call_back("a word of no page")
    clock.time -= 3_600.0
    assert 200 == await api.call_back("text")

    assert await clock.run(soon(is_calm), step=0.01)


# --- opening and closing -----------------------------------------------------------------------------------------


async def test_a_client_that_does_not_open_leaves_the_shared_store_to_others(
    api: Api, open_client: MakeClient, connect: Connect
) -> None:
    """A client whose opening is cancelled closes only its own use of a shared store."""
    store = connect()
    client = await open_client(store=store)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), ax.Client(api.provider(), store=store):
            await asyncio.Event().wait()

    job = await extend(client)
    assert await store.read(job.ref) is not None


async def test_nothing_is_submitted_once_closing_began(api: Api, open_client: MakeClient) -> None:
    """A submit is refused once closing has begun, even while the receiver still handles accepted deliveries."""
    client = await open_client(**WEB)
    job = await extend(client)
    callback = URL(api.posts[-1]["callBackUrl"])
    _, delivery = await asyncio.open_connection(callback.host, callback.port)
    delivery.write(f"POST {callback.path} HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n".encode())
    await delivery.drain()
    await api.call_back("text")  # the earlier delivery is under way by now
    wait = asyncio.create_task(job.result())
    closing = asyncio.create_task(client.aclose())
    with pytest.raises(ax.ClientClosedError):
        await wait

    with pytest.raises(ax.ConfigError, match="nothing was paid"):
        await extend(client)
    delivery.close()
    await closing

    assert 1 == len(api.posts)


class SlowMemory(FaultyMemory):
    """A store whose answer to a create is delayed once it is full."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.is_full = asyncio.Event()
        self.answers = asyncio.Event()

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Create, and delay the answer that there is no room."""
        created = await super().create(entry, index, limits=limits, now=now)
        if isinstance(created, Full):
            self.is_full.set()
            await self.answers.wait()
        return created


async def test_a_submit_that_asks_for_room_does_not_delay_the_close(api: Api, open_client: MakeClient) -> None:
    """A submit that learns after closing began that there is no room does not wait for any."""
    api.is_done = False
    store = SlowMemory()
    client = ax.Client(api.provider(limits=ax.Limits(parallel=1)), store=store, **WEB)  # type: ignore[arg-type]  # a test's own settings
    async with client:
        wait = asyncio.create_task((await extend(client)).result())
        submit = asyncio.create_task(extend(client))
        await store.is_full.wait()
        closing = asyncio.create_task(client.aclose())
        with pytest.raises(ax.ClientClosedError):
            await wait
        store.answers.set()

        async with asyncio.timeout(PROMPT_SECONDS):
            await closing
        with pytest.raises(ax.ConfigError, match="nothing was paid"):
            await submit


# --- refused deliveries ------------------------------------------------------------------------------------------


async def test_a_forged_delivery_is_refused_when_it_is_replayed(api: Api, stack: AsyncExitStack) -> None:
    """Replaying a delivery verifies its signature again, so a forged one is refused again."""
    provider = api.provider(webhook_key="k" * 32)
    client = await stack.enter_async_context(ax.Client(provider, **WEB))  # type: ignore[arg-type]  # a test's own settings
    job = await extend(client)
    assert 401 == await api.call_back("complete")
    (delivery,) = [delivery async for delivery in client.deliveries()]

    assert 401 == await client.replay(delivery.id)
    assert (ax.Stage.SUBMITTED, ()) == (job.stage, job.tracks)
