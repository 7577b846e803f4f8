"""A store that fails, disconnects or forgets costs nothing: processes keep what they know, and waiters are woken."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from audioext.stores.base import RESYNC, Changed, Resync
from audioext.stores.sqlite import Driver, SqliteStore
from tests.integration.client.conftest import SECRET, WEB, MakeClient
from tests.support.api import Api, callback
from tests.support.clock import SOON_SECONDS, JumpClock, soon
from tests.support.stores import FaultyMemory, WatchedSqlite

SECRET_NAME = "callback secret"
"""The name of the callback secret in a store, which must be the same in all releases."""


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


async def a_wait(
    job: ax.Job, store: FaultyMemory | WatchedSqlite, *, seconds: float | None = None
) -> asyncio.Task[ax.Song]:
    """Return a wait that has read the store and now relies on a wake-up."""
    store.was_read.clear()
    wait = asyncio.create_task(job.result(timeout=seconds))
    await store.was_read.wait()
    return wait


# --- damage ------------------------------------------------------------------------------------------------------


async def test_a_job_without_its_journal_is_skipped_in_a_listing(
    api: Api, open_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An index row without its request is skipped in a listing, with a warning that names the job."""
    path = tmp_path / "jobs.db"
    first = await open_client(store=f"sqlite:///{path}", **WEB)
    lost, kept = await extend(first), await extend(first)
    await first.aclose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM entries WHERE job = (SELECT id FROM jobs WHERE ref = ?)", (lost.ref,))

    client = await open_client(store=f"sqlite:///{path}", **WEB)
    assert [kept.ref] == [job.ref async for job in client.jobs()]
    assert f"job {lost.ref}: the store holds its index, but not its request" in caplog.text
    with pytest.raises(ax.RequestError, match="holds no job"):
        await client.job(lost.ref)


# --- failures ----------------------------------------------------------------------------------------------------


async def test_a_store_that_fails_is_503_and_loses_nothing(api: Api, open_client: MakeClient) -> None:
    """While the store is down deliveries are answered 503, waits go on and submits are not sent; then all continues."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    job = await extend(client)
    wait = await a_wait(job, store)

    store.fail("the disk is full")
    refused = await api.call_back("text")
    with pytest.raises(ax.StoreError, match="disk"):
        await extend(client)
    with pytest.raises(ax.StoreError, match="disk"):
        await client.job("r" * 24)
    late = asyncio.create_task(job.result())  # the known state is all there is
    store.fail(None)
    taken = await api.call_back("text"), await api.call_back("complete")

    assert (503, (200, 200)) == (refused, taken)
    assert await wait == await late
    assert 1 == len(api.posts)


async def test_a_read_that_fails_does_not_end_the_following_of_changes(
    api: Api, open_client: MakeClient, clock: JumpClock, tmp_path: Path
) -> None:
    """A change whose read failed is read again, so that even the last change wakes the wait."""
    listener = await open_client(store=SqliteStore(tmp_path / "jobs.db"), **WEB)
    store = WatchedSqlite(tmp_path / "jobs.db")
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None, clock=clock.clock)
    wait = await a_wait(await extend(waiter), store)

    store.failing_reads = 1
    await api.call_back("complete")

    async with asyncio.timeout(SOON_SECONDS):
        await store.has_failed.wait()
        assert 1 == len((await clock.run(wait)).tracks)


async def test_a_store_that_fails_right_after_the_last_commit_delays_the_wait(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A change that cannot be read for half a second after its announcement still wakes another client's wait."""
    store = FaultyMemory()
    listener = await open_client(store=store, **WEB)
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None, clock=clock.clock)
    wait = await a_wait(await extend(waiter), store)
    store.fails_after_append = True

    assert 200 == await api.call_back("complete")
    await clock.advance(0.5)
    assert not wait.done()
    store.fail(None)
    await clock.advance(0.5)

    async with asyncio.timeout(SOON_SECONDS):
        assert 1 == len((await wait).tracks)


@pytest.mark.parametrize("broken_at", ["first", "complete"])
async def test_a_broken_stream_of_changes_is_reopened(
    broken_at: str, api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A broken stream of changes is reopened, and no commit at or after the break is missed."""
    store = FaultyMemory()
    listener = await open_client(store=store, **WEB)
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None, clock=clock.clock)
    wait = await a_wait(await extend(waiter), store)

    store.break_streams()
    await api.call_back(broken_at)
    await store.is_broken.wait()
    if broken_at != "complete":
        await api.call_back("complete")

    async with asyncio.timeout(SOON_SECONDS):
        assert 1 == len((await clock.run(wait)).tracks)


# --- wake-ups ----------------------------------------------------------------------------------------------------


class MuteMemory(FaultyMemory):
    """A store that announces no changes."""

    async def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield nothing."""
        await asyncio.Event().wait()
        yield RESYNC


@pytest.mark.parametrize(("seconds", "woken_after"), [(30.0, 30.0), (300.0, 60.0)])
async def test_a_wait_reads_the_store_if_no_change_is_announced(
    seconds: float, woken_after: float, api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """If no change is ever announced, a wait finds the song within a minute, and at its deadline at the latest."""
    store = MuteMemory()
    listener = await open_client(store=store, **WEB)
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None, clock=clock.clock)
    wait = await a_wait(await extend(waiter), store, seconds=seconds)
    await api.call_back("complete")

    await clock.advance(woken_after - 1.0)
    assert not wait.done()
    await clock.advance(1.0)
    assert 1 == len((await wait).tracks)


@pytest.mark.parametrize("driver", ["apsw", "sqlite3"])
async def test_a_commit_of_another_process_wakes_a_wait(
    driver: Driver, api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """A listener and a worker on one file lose no wake-up over twenty jobs."""
    listener = await open_client(store=SqliteStore(tmp_path / "jobs.db", driver=driver), **WEB)
    store = SqliteStore(tmp_path / "jobs.db", driver=driver)
    waiter = await open_client(store=store, public_url=str(listener.public_url), listen=None)

    for number in range(1, 21):
        job = await extend(waiter)
        wait = asyncio.create_task(job.result(timeout=SOON_SECONDS))
        await api.call_back("complete", f"task-{number}")
        assert 1 == len((await wait).tracks)


# --- engines that lost data --------------------------------------------------------------------------------------


async def test_a_store_that_comes_back_empty_is_given_back_what_it_lost(api: Api, open_client: MakeClient) -> None:
    """After a store came back empty, a process stores the jobs it awaits again, and they complete."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    jobs = [await extend(client, key=f"k{number}") for number in range(2)]
    waits = [await a_wait(job, store) for job in jobs]
    assert 200 == await api.call_back("text", "task-1", post=0)

    await store.lose_all()
    await soon(lambda: store.find(key="k0"))
    assert 200 == await api.call_back("complete", "task-1", post=0)
    assert 200 == await api.call_back("complete", "task-2", post=1)

    assert [1, 1] == [len((await wait).tracks) for wait in waits]
    assert [["text", "complete"], ["complete"]] == [[stage async for stage in told(client, job.ref)] for job in jobs]
    assert jobs[0] == await extend(client, key="k0")
    assert 2 == len(api.posts)


async def test_a_key_that_the_store_lost_is_known_to_the_process_that_submitted_it(
    api: Api, open_client: MakeClient
) -> None:
    """Before the loss of a store is noticed, an open job's key still returns that job, which is stored again."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    store.break_streams()  # nobody notices the loss
    job = await extend(client, key="once")

    await store.lose_all()
    again = await extend(client, key="once")

    assert (job, False, job.ref) == (again, again.is_new, await store.find(key="once"))
    assert 1 == len(api.posts)


async def told(client: ax.Client, ref: str) -> AsyncIterator[str]:
    """Yield the stages of a job's deliveries, the first one first."""
    for delivery in reversed([delivery async for delivery in client.deliveries(ref)]):
        yield json.loads(delivery.body)["data"]["callbackType"]


async def test_a_delivery_that_comes_before_the_loss_is_noticed_is_kept(api: Api, open_client: MakeClient) -> None:
    """After an unnoticed loss, the process that holds the job restores it together with the webhook."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    job = await extend(client, key="once")
    store.break_streams()  # nobody notices the loss

    await store.lose_all()
    assert 200 == await api.call_back("complete")

    assert 1 == len((await job).tracks)
    stored = await store.read(job.ref)
    assert stored is not None
    assert ["request", "answer", "webhook"] == sorted(
        (entry.kind for entry in stored.entries), key=["request", "answer", "webhook"].index
    )


async def test_an_orphan_is_adopted_by_the_job_that_is_given_back(api: Api, open_client: MakeClient) -> None:
    """A listener stores a lost job's webhook as an orphan, and the process that awaits the job gets the song."""
    store = FaultyMemory()
    listener = await open_client(store=store, secrets=[SECRET], **WEB)
    waiter = await open_client(store=store, secrets=[SECRET], public_url=str(listener.public_url), listen=None)
    job = await extend(waiter)
    wait = await a_wait(job, store)

    await store.lose_all()
    assert 200 == await api.call_back("complete")

    async with asyncio.timeout(SOON_SECONDS):
        assert 1 == len((await wait).tracks)


async def test_a_lost_secret_is_given_back_until_the_store_accepts_it(
    open_client: MakeClient, clock: JumpClock
) -> None:
    """A client gives a lost secret back until the store accepts it, so that the URLs in use stay valid."""
    store = FaultyMemory()
    client = await open_client(store=store, clock=clock.clock, **WEB)
    (secret,) = client.inbox.secrets

    store.failing_secrets = 3
    store.was_secret_kept.clear()
    await store.lose_all()
    await clock.run(store.was_secret_kept.wait())

    assert secret == await store.secret(SECRET_NAME, b"another one")
    assert (secret,) == client.inbox.secrets


async def test_a_secret_that_another_process_made_is_accepted_too(api: Api, open_client: MakeClient) -> None:
    """If another process made a new secret after a loss, callbacks to old and new URLs are accepted."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    (old,) = client.inbox.secrets
    job = await extend(client)

    await store.lose_all()
    new = await store.secret(SECRET_NAME, b"made by whoever came first")

    async def is_taken_up() -> bool:
        return new in client.inbox.secrets

    await soon(is_taken_up)
    assert (new, old) == client.inbox.secrets
    assert 200 == await api.call_back("text")
    path = callback_url(URL("http://x.test"), new, "kie", job.ref).raw_path
    hook = ax.Webhook(path=path, body=json.dumps(callback("complete")).encode())
    assert 200 == await client.inbox.accept(hook)
    assert 1 == len((await job).tracks)
