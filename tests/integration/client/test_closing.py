"""Closing ends waits first, runs handlers for accepted webhooks, keeps paid tasks, and ends whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import WEB, Connect, MakeClient, MakeSandbox
from tests.support.api import Api, tasks_of_ours
from tests.support.clock import PROMPT_SECONDS, SOON_SECONDS, JumpClock, LoopTime
from tests.support.stores import HangingStore

CLOSE_SECONDS = 15.0
"""The README's bound on closing, whatever hangs."""
ROUNDS = 10
STAGES = (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE)


def begin(work: Awaitable[object], name: str, ended: list[str]) -> asyncio.Future[object]:
    """Run *work* as a task and record when it ends."""
    future = asyncio.ensure_future(work)
    future.add_done_callback(lambda _: ended.append(name))
    return future


# --- handlers ----------------------------------------------------------------------------------------------------


async def test_a_close_right_after_the_await_still_calls_all_handlers(
    connect: Connect, api: Api, open_client: MakeClient
) -> None:
    """Each handler, quick or slow, gets each stage although the client closes as soon as the song is there."""
    for number in range(1, ROUNDS + 1):
        client = await open_client(store=connect(), **WEB)
        told: list[ax.Stage] = []

        async def tell(event: ax.StageEvent, told: list[ax.Stage] = told, turns: int = 50 * (number % 2)) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            told.append(event.stage)

        for stage in STAGES:
            client.on(stage)(tell)
        job = await client.extend(audio_id="x", model="V5")
        for stage in STAGES:
            assert 200 == await api.call_back(stage.name.lower(), f"task-{number}")
        await job
        await client.aclose()

        assert list(STAGES) == told
        assert [] == tasks_of_ours()


async def test_a_webhook_accepted_before_the_close_is_stored_and_handled(api: Api, open_client: MakeClient) -> None:
    """A close that begins while a webhook is being stored waits for the store, the reply and the handlers."""
    store = HangingStore()
    client = await open_client(store=store, **WEB)
    told: list[ax.Stage] = []

    @client.on(ax.Stage.COMPLETE)
    async def tell(event: ax.StageEvent) -> None:
        told.append(event.stage)

    await client.extend(audio_id="x", model="V5")
    store.answering.clear()
    store.is_asked.clear()
    delivery = asyncio.create_task(api.call_back("complete"))
    await store.is_asked.wait()
    close = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)  # it has begun

    store.answering.set()
    assert 200 == await delivery
    await close

    assert [ax.Stage.COMPLETE] == told
    assert ["applied"] == [delivery.verdict async for delivery in store.deliveries()]


async def test_a_submit_refused_by_closing_is_retried_by_the_next_client(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock
) -> None:
    """A task that a handler chains while its client closes is refused, retried after the restart, and paid once."""
    store = ax.MemoryStore()
    has_begun, is_closing, is_chained = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def chain_with(client: ax.Client) -> None:
        @client.on(ax.Stage.COMPLETE)
        async def chain(event: ax.StageEvent) -> None:
            if not event.meta:
                has_begun.set()
                await is_closing.wait()
                await client.extend(audio_id=sandbox.track_ids[1], model="V5", meta={"n": 2})
                is_chained.set()

    client = await make_client(sandbox, store=store, clock=clock.clock)
    chain_with(client)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    await has_begun.wait()
    close = asyncio.create_task(client.aclose())
    await clock.advance(0.0)  # only the handler is still pending
    is_closing.set()
    await close
    assert (False, 1) == (is_chained.is_set(), len(sandbox.submissions))

    successor = await make_client(sandbox, store=store, clock=clock.clock)
    chain_with(successor)
    await clock.run(is_chained.wait())
    await successor.aclose()

    assert 2 == len(sandbox.submissions)
    assert [0] == [
        run.failures for run in job.record.runs.values()
    ]  # closing the client is not a failure of the handler


async def test_two_workers_that_close_leave_no_topic_unhandled(
    connect: Connect, api: Api, open_client: MakeClient
) -> None:
    """Each stage is handled exactly once when two clients with handlers close as soon as they have the song."""
    for number in range(1, ROUNDS // 5 + 1):
        told: list[ax.Stage] = []

        async def tell(event: ax.StageEvent, told: list[ax.Stage] = told) -> None:
            told.append(event.stage)

        clients = [await open_client(store=connect(), **WEB) for _ in range(2)]
        for client in clients:
            for stage in STAGES:
                client.on(stage)(tell)
        job = await clients[0].extend(audio_id="x", model="V5")
        other = await clients[1].job(job.ref)
        for stage in STAGES:
            assert 200 == await api.call_back(stage.name.lower(), f"task-{number}")
        await asyncio.gather(job, other)
        await asyncio.gather(*(client.aclose() for client in clients))

        assert sorted(STAGES) == sorted(told)


async def test_a_handler_cut_off_by_closing_runs_again_with_all_its_tries(
    sandbox: Sandbox, make_client: MakeClient, loop_time: LoopTime
) -> None:
    """A handler that is cancelled after a close's ten seconds runs again in the next client with all its tries."""
    store = ax.MemoryStore()
    ref = ""
    for _ in range(6):
        client = ax.Client(ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]), store=store, **WEB)  # type: ignore[arg-type]  # two texts
        started = asyncio.Event()

        @client.on(ax.Stage.TEXT)
        async def tell(event: ax.StageEvent, started: asyncio.Event = started) -> None:
            started.set()
            await asyncio.Event().wait()

        async with asyncio.timeout(SOON_SECONDS):
            await client.__aenter__()
            if not ref:
                ref = (await client.extend(audio_id=sandbox.track_ids[0], model="V5")).ref
            await started.wait()
        _, seconds = await loop_time.run(client.aclose())
        assert 9.5 < seconds < CLOSE_SECONDS

    successor = ax.Client(store=store)
    finished = asyncio.Event()

    @successor.on(ax.Stage.TEXT)
    async def again(event: ax.StageEvent) -> None:
        finished.set()

    async with successor, asyncio.timeout(SOON_SECONDS):
        await finished.wait()
        assert () == (await successor.job(ref)).record.handler_faults
    assert None is await store.next_due("handlers")


async def test_a_handler_that_ignores_its_cancellation_does_not_stop_the_close(
    sandbox: Sandbox, make_client: MakeClient, loop_time: LoopTime, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that ignores its cancellation is named in the log, and the client closes without it."""
    client = await make_client(sandbox)
    started, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        started.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        ended.set()

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    await started.wait()
    _, seconds = await loop_time.run(client.aclose())

    assert seconds < CLOSE_SECONDS
    assert not ended.is_set()
    assert f"{job.ref} does not end when it is cancelled" in caplog.text
    release.set()
    await ended.wait()


async def test_a_handler_may_close_the_client(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A handler may call `aclose`, which only begins the close: the handler ends and counts as done."""
    store = ax.MemoryStore()
    client = await make_client(sandbox, store=store)
    calls: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        calls.append("begins")
        await client.aclose()
        await client.aclose()
        calls.append("ends")
        done.set()

    await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    await done.wait()
    async with asyncio.timeout(PROMPT_SECONDS):
        await client.aclose()

    assert ["begins", "ends"] == calls
    assert None is await store.next_due("handlers")
    assert [] == tasks_of_ours()


async def test_a_client_of_a_handlers_own_closes_before_the_handler_goes_on(
    api: Api, open_client: MakeClient, unused_tcp_port: int
) -> None:
    """`async with ax.Client(...)` in a handler of another client returns when that client is closed, its port free."""
    client = await open_client(**WEB)
    left: list[list[str]] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        before = tasks_of_ours()
        for _ in range(2):
            async with ax.Client(ax.Kie("key"), listen=unused_tcp_port) as other:
                assert "<Client kie, open>" == repr(other)
            left.append([name for name in tasks_of_ours() if name not in before])
        done.set()

    job = await client.extend(audio_id="x", model="V5")
    assert 200 == await api.call_back("complete")
    async with asyncio.timeout(PROMPT_SECONDS):
        await done.wait()

    assert [[], []] == left
    assert () == job.record.handler_faults


async def test_a_task_that_a_handler_began_closes_the_client(api: Api, open_client: MakeClient) -> None:
    """A task that outlives the handler that began it awaits `aclose` like any other: it returns after the close."""
    client = await open_client(**WEB)
    begun: asyncio.Future[asyncio.Task[list[str]]] = asyncio.get_running_loop().create_future()

    @client.on(ax.Stage.COMPLETE)
    async def complete(_: ax.StageEvent) -> None:
        handler = asyncio.current_task()

        async def later() -> list[str]:
            assert handler is not None
            await asyncio.wait([handler])
            await client.aclose()
            return tasks_of_ours()

        begun.set_result(asyncio.create_task(later()))

    job = await client.extend(audio_id="x", model="V5")
    assert 200 == await api.call_back("complete")
    await job
    async with asyncio.timeout(PROMPT_SECONDS):
        assert [] == await (await begun)


class SlowStore(ax.MemoryStore):
    """A store that opens when it is told to."""

    def __init__(self) -> None:
        """Wait."""
        super().__init__()
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    async def open(self) -> None:
        """Open after the gate."""
        self.begun.set()
        await self.gate.wait()
        await super().open()


async def test_a_close_during_the_opening_closes(api: Api) -> None:
    """`aclose` while `open` is under way, as from a signal, waits for it and closes: no open client is left."""
    store = SlowStore()
    client = ax.Client(api.provider(), store=store)
    opening = asyncio.create_task(client.open())
    await store.begun.wait()
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(opening, closing)

    assert "<Client kie, closed>" == repr(client)
    assert [] == tasks_of_ours()


async def test_a_close_during_an_opening_on_another_loop_is_refused(api: Api) -> None:
    """`aclose` on another event loop while `open` is under way raises at once, and the owner can still close."""
    store = SlowStore()
    client = ax.Client(api.provider(), store=store)
    opening = asyncio.create_task(client.open())
    await store.begun.wait()
    async with asyncio.timeout(PROMPT_SECONDS):
        with pytest.raises(ax.ConfigError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, client.aclose())
    store.gate.set()
    await opening
    await client.aclose()

    assert "<Client kie, closed>" == repr(client)


async def test_handlers_that_close_each_others_clients_do_not_wait_for_each_other(
    api: Api, open_client: MakeClient
) -> None:
    """Two handlers may each close the other's client: neither is cancelled, and both clients close."""
    clients = [await open_client(**WEB), await open_client(**WEB)]
    both, ends = asyncio.Barrier(2), list[str]()

    for client, other in (clients, clients[::-1]):

        async def close(_: ax.StageEvent, other: ax.Client = other) -> None:
            await both.wait()
            try:
                await other.aclose()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise
            ends.append("closed")

        client.on(ax.Stage.COMPLETE)(close)
        job = await client.extend(audio_id="x", model="V5")
        assert 200 == await api.call_back("complete", job.task_id or "")
    async with asyncio.timeout(PROMPT_SECONDS):
        await asyncio.gather(*(client.aclose() for client in clients))

    assert ["closed", "closed"] == ends


async def test_a_close_begun_by_a_handler_ends_the_waits(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """A close that a handler begins raises ClientClosedError in the waiters of the job."""
    sandbox = await make_sandbox(faults=["drop=first", "drop=complete"])
    client = await make_client(sandbox)

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        await client.aclose()

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    with pytest.raises(ax.ClientClosedError):
        await job


# --- waits -------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_waits_and_keeps_the_job(api: Api, open_client: MakeClient) -> None:
    """Closing raises ClientClosedError in open waits, and another client on the same store finishes the job."""
    store = ax.MemoryStore()
    api.is_done = False
    client = await open_client(store=store)
    job = await client.extend(audio_id="x", model="V5")
    waits = [asyncio.ensure_future(job.result()), asyncio.ensure_future(anext(aiter(job)))]
    await asyncio.sleep(0)  # they have begun

    await client.aclose()
    for wait in waits:
        with pytest.raises(ax.ClientClosedError):
            await wait
    with pytest.raises(ax.ClientClosedError):
        await job

    api.is_done = True
    successor = await open_client(store=store)
    assert 1 == len((await (await successor.job(job.ref))).tracks)
    assert 1 == len(api.posts)


async def test_waits_end_before_anything_else_is_waited_for(api: Api, open_client: MakeClient) -> None:
    """Waiters get ClientClosedError at once, although the POST of another job has no answer yet."""
    client = await open_client(**WEB)
    waiting = await client.extend(audio_id="x", model="V5")
    ended: list[str] = []
    wait = begin(waiting.result(), "wait", ended)
    api.arrived.clear()
    api.gate.clear()
    submit = begin(client.extend(audio_id="x", model="V5"), "submit", ended)
    await api.arrived.wait()

    close = begin(client.aclose(), "close", ended)
    with pytest.raises(ax.ClientClosedError):
        await wait
    assert ["wait"] == ended
    api.gate.set()
    await asyncio.gather(submit, close)

    assert ["wait", "submit", "close"] == ended


# --- submits -----------------------------------------------------------------------------------------------------


async def test_a_close_that_is_cancelled_leaves_the_post_alone(api: Api, open_client: MakeClient) -> None:
    """A POST under way gets its answer stored although the close is cancelled; further `aclose` calls wait for it."""
    store = ax.MemoryStore()
    client = await open_client(store=store)
    api.gate.clear()
    ended: list[str] = []
    submit = begin(client.extend(audio_id="x", model="V5"), "submit", ended)
    await api.arrived.wait()
    closes = [begin(client.aclose(), "close", ended) for _ in range(2)]

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.aclose()
    api.gate.set()
    await asyncio.gather(*closes)

    assert [] == tasks_of_ours()
    assert ["submit", "close", "close"] == ended
    job = await submit
    assert isinstance(job, ax.Job)
    stored = await store.read(job.ref)
    assert stored is not None
    assert ("task-1", "task-1") == (job.task_id, stored.index.task_id)


async def test_a_post_without_an_answer_is_left_to_its_callback(
    api: Api, open_client: MakeClient, loop_time: LoopTime
) -> None:
    """A close waits at most fifteen seconds for a POST's answer; submit says so, and the callback brings the song."""
    store, secrets = ax.MemoryStore(), ["a secret that is long enough"]
    client = await open_client(store=store, secrets=secrets, **WEB)
    api.gate.clear()
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5", key="once"))
    await api.arrived.wait()

    _, seconds = await loop_time.run(client.aclose())

    assert 5.0 < seconds <= CLOSE_SECONDS
    with pytest.raises(ax.SubmitUnknownError, match="cut off") as caught:
        await submit
    assert (None, ax.Verdict.OPEN) == (caught.value.job.task_id, caught.value.job.verdict)
    successor = await open_client(store=store, secrets=secrets, **WEB)
    job = await successor.job(caught.value.job.ref)
    url = str(successor.public_url)
    api.posts[-1]["callBackUrl"] = url + api.posts[-1]["callBackUrl"].partition("/audio")[2]
    assert 200 == await api.call_back("complete")
    assert 1 == len((await job).tracks)
    assert job == await successor.extend(audio_id="x", model="V5", key="once")
    assert 1 == len(api.posts)


async def test_closing_cancels_what_was_not_sent(api: Api) -> None:
    """Submits that still wait for their turn raise an error saying that nothing was paid, and nothing was sent."""
    provider = api.provider(limits=ax.Limits(submits=1, per=600.0))
    async with ax.Client(provider) as client:
        first = await client.extend(audio_id="x", model="V5")
        others = [asyncio.create_task(client.extend(audio_id="x", model="V5")) for _ in range(3)]
        await asyncio.sleep(0)  # they have begun

    for other in others:
        with pytest.raises(ax.ConfigError, match="nothing was paid"):
            await other
    assert "task-1" == first.task_id
    assert 1 == len(api.posts)


async def test_a_refusal_during_the_close_is_raised(api: Api, open_client: MakeClient) -> None:
    """A POST refused during the close raises the provider's refusal, not ClientClosedError, and frees its key."""
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
    assert None is await store.find(key="once")


@pytest.mark.parametrize("is_answered", [False, True], ids=["during the POST", "during the pause"])
async def test_nothing_is_resent_while_closing(
    is_answered: bool, api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A submit whose POST is refused for now is not resent during a close, and the close does not wait for a resend."""
    store = ax.MemoryStore()
    client = await open_client(store=store, clock=clock.clock)
    api.codes = [429]
    api.gate.clear()
    submit = asyncio.create_task(client.extend(audio_id="x", model="V5", key="once"))
    await api.arrived.wait()
    if is_answered:
        api.gate.set()
        while await store.find(key="once") is not None:  # noqa: ASYNC110 - turns of the loop, not time
            await asyncio.sleep(0)
    close = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)  # it has begun

    api.gate.set()
    async with asyncio.timeout(PROMPT_SECONDS):
        await close

    with pytest.raises(ax.RateLimitError):
        await submit
    assert 1 == len(api.posts)
