"""Closing with a slow, failing or hanging store still ends, and stores what is known if it can."""

from __future__ import annotations

import asyncio
import json

import pytest
from yarl import URL

import audioext as ax
from audioext.stores.base import Created, Existing, Full, Work
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api, callback, failing, tasks_of_ours
from tests.support.clock import PROMPT_SECONDS, SOON_SECONDS, JumpClock, LoopTime
from tests.support.stores import FaultyMemory, HangingStore

CLOSE_SECONDS = 15.0
"""The README's bound on closing, whatever hangs."""


class LateMemory(ax.MemoryStore):
    """A store whose next claim is answered only when the gate is open."""

    def __init__(self) -> None:
        """Start with the gate closed."""
        super().__init__()
        self.has_claimed = asyncio.Event()
        self.gate = asyncio.Event()

    async def claim(self, work: Work, **options: object) -> tuple[str, ...]:
        """Claim at once, and return the answer late."""
        refs = await super().claim(work, **options)  # type: ignore[arg-type]  # passed on as they are
        if refs:
            self.has_claimed.set()
            await self.gate.wait()
        return refs


class UnansweredMemory(ax.MemoryStore):
    """A store that stores new jobs, but does not answer."""

    def __init__(self) -> None:
        """Start without a job."""
        super().__init__()
        self.has_created = asyncio.Event()
        self.gate = asyncio.Event()

    async def create(self, *arguments: object, **options: object) -> Created | Existing | Full:
        """Create a job at once, and return the answer when the gate is open."""
        done = await super().create(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are
        self.has_created.set()
        await self.gate.wait()
        return done


async def test_a_submit_that_closing_cuts_off_frees_its_key(
    api: Api, open_client: MakeClient, loop_time: LoopTime
) -> None:
    """A job is stored, but its client closes before it knows: nothing is sent, so the next client can use the key."""
    store = UnansweredMemory()
    await store.open()  # a second user keeps the jobs
    client = await open_client(store=store)
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5", key="mine"))
    await store.has_created.wait()

    await loop_time.run(client.aclose())
    with pytest.raises(ax.ConfigError, match="nothing was paid"):
        await submit
    store.gate.set()
    job = await (await open_client(store=store)).extend(audio_id="x", model="V5", key="mine")

    assert (1, "task-1") == (len(api.posts), job.task_id)
    await store.aclose()


async def test_a_claim_answered_during_the_close_is_given_back(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A claim whose answer arrives during the close is given back, so the next client need not wait for its expiry."""
    store = LateMemory()
    client = await open_client(store=store, clock=clock.clock)
    await client.extend(audio_id="x", model="V5")
    await clock.run(store.has_claimed.wait())

    close = asyncio.create_task(client.aclose())
    await clock.advance(0.0)  # only the claim's answer is still pending
    store.gate.set()
    await close

    due = await store.next_due("polls")
    assert due is not None
    assert due <= clock.time


async def test_a_store_that_hangs_does_not_stop_the_close(
    api: Api, open_client: MakeClient, loop_time: LoopTime
) -> None:
    """A close ends in fifteen seconds although a delivery, a POST's answer, a wait, a handler and the store hang."""
    store = HangingStore()
    client = await open_client(store=store, **WEB)
    told = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def tell(event: ax.StageEvent) -> None:
        store.answering.clear()
        told.set()

    job = await client.extend(audio_id="x", model="V5")
    wait = asyncio.create_task(job.result())
    assert 200 == await api.call_back("text")
    await told.wait()
    late_wait = asyncio.create_task(job.result())
    path = URL(api.posts[-1]["callBackUrl"]).raw_path
    hook = ax.Webhook(path=path, body=json.dumps(callback("first")).encode())
    delivery = asyncio.create_task(client.inbox.accept(hook))
    await asyncio.sleep(0)  # they have begun

    _, seconds = await loop_time.run(client.aclose(), step=0.05)

    assert seconds <= CLOSE_SECONDS
    for waiting in (wait, late_wait):
        async with asyncio.timeout(SOON_SECONDS):
            with pytest.raises(ax.ClientClosedError):
                await waiting
    store.answering.set()
    assert 200 == await delivery


async def test_closing_tries_once_more_to_store_the_id(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """The close retries a task id that could not be stored, and the next client finishes the job."""
    store = FaultyMemory()
    api.on_post = failing(store)
    client = await open_client(store=store, clock=clock.clock)
    job = await client.extend(audio_id="x", model="V5")
    store.fail(None)

    await client.aclose()

    stored = await store.read(job.ref)
    assert stored is not None
    assert "task-1" == stored.index.task_id
    successor = await open_client(store=store, clock=clock.clock)
    song = await clock.run((await successor.job(job.ref)).result())
    assert 1 == len(song.tracks)


async def test_a_refusal_that_was_not_stored_is_stored_at_the_close(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A refusal that could not be stored is stored at the close, so that its key is free."""
    store = FaultyMemory()
    api.codes, api.on_post = [402], failing(store)
    client = await open_client(store=store, clock=clock.clock)
    with pytest.raises(ax.CreditsError):
        await client.extend(audio_id="x", model="V5", key="once")
    store.fail(None)
    assert None is not await store.find(key="once")

    await client.aclose()

    assert None is await store.find(key="once")


async def test_closing_does_not_wait_for_a_store_that_stays_away(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With the store still down the close ends, and the task id is in the log."""
    store = FaultyMemory()
    api.on_post = failing(store)
    client = await open_client(store=store)
    await client.extend(audio_id="x", model="V5")

    async with asyncio.timeout(PROMPT_SECONDS):
        await client.aclose()

    assert [] == tasks_of_ours()
    assert "task-1" in caplog.text


async def test_a_client_that_fails_to_open_leaves_nothing(unused_tcp_port: int) -> None:
    """A second client on one address fails to open, closes its store and leaves no task behind."""
    store = FaultyMemory()
    url, listen = "https://hooks.test", f"127.0.0.1:{unused_tcp_port}"
    async with ax.Client(ax.Kie("key"), public_url=url, listen=listen):
        with pytest.raises(ax.ConfigError, match="cannot listen"):
            async with ax.Client(ax.Kie("key"), public_url=url, listen=listen, store=store):
                pass
    assert 0 == store.clients
    assert [] == tasks_of_ours()
