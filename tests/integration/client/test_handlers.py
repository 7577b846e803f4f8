"""Handlers: at least once for each job and stage, in order, after a restart too, never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import audioext as ax
from audioext.clock import Clock
from audioext.runtime import claims as worker
from audioext.runtime import handlers
from audioext.sandbox import Sandbox
from audioext.stores.base import Lease

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a failed handler be tried again at once."""
    monkeypatch.setattr(handlers, "RETRY_SECONDS", 0.001)


async def extend(client: ax.Client, sandbox: Sandbox) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id=sandbox.track_ids[0], model="V5", meta={"chat": 42})


async def test_several_handlers_of_a_stage_are_all_called(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Each handler of a stage gets the event, with the submitter's meta."""
    client = await make_client(sandbox)
    calls: list[tuple[str, object]] = []

    @client.on(ax.Stage.COMPLETE)
    async def one(event: ax.StageEvent) -> None:
        calls.append(("one", event.meta["chat"]))

    @client.on(ax.Stage.COMPLETE)
    async def two(event: ax.StageEvent) -> None:
        calls.append(("two", event.meta["chat"]))

    await (await extend(client, sandbox))
    await client.aclose()

    assert [("one", 42), ("two", 42)] == calls


async def test_a_handler_that_fails_is_tried_again(
    sandbox: Sandbox, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is logged and the handler is called again; later stages of the job wait for it."""
    client = await make_client(sandbox)
    calls: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        calls.append("text")
        if len(calls) < 3:
            raise RuntimeError("the chat is down")

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        calls.append("complete")
        done.set()

    await extend(client, sandbox)
    await done.wait()

    assert ["text", "text", "text", "complete"] == calls
    assert "the chat is down" in caplog.text


async def test_a_handler_that_always_fails_is_given_up_and_shown(sandbox: Sandbox, make_client: MakeClient) -> None:
    """After its last try the error stands on the job, and the next stage has its turn."""
    client = await make_client(sandbox)
    calls: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.FIRST)
    async def first(event: ax.StageEvent) -> None:
        calls.append("first")
        raise RuntimeError("the chat is gone")

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        done.set()

    job = await extend(client, sandbox)
    await done.wait()

    assert handlers.MAX_ATTEMPTS == len(calls)
    assert ("first: RuntimeError: the chat is gone",) == job.record.handler_faults


async def test_a_handler_that_hangs_is_ended(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A handler over its time counts as failed and does not stop the others."""
    client = await make_client(sandbox, handler_timeout=0.01)
    done = asyncio.Event()

    @client.on(ax.Stage.FIRST)
    async def first(event: ax.StageEvent) -> None:
        await asyncio.Event().wait()

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        done.set()

    job = await extend(client, sandbox)
    await done.wait()

    assert ("first: TimeoutError: ",) == job.record.handler_faults


async def test_what_was_not_told_is_told_after_a_restart(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Stages that arrived while nobody had a handler are told by the next client that has one."""
    sandbox = await make_sandbox()
    store = ax.MemoryStore()
    listener = await make_client(sandbox, store=store)
    job = await extend(listener, sandbox)
    await job
    await listener.aclose()

    worker = ax.Client(ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]), store=store)
    told: list[str] = []
    done = asyncio.Event()
    for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):

        @worker.on(stage)
        async def tell(event: ax.StageEvent) -> None:
            told.append(event.stage.name)
            if event.stage is ax.Stage.COMPLETE:
                done.set()

    async with worker:
        await done.wait()

    assert ["TEXT", "FIRST", "COMPLETE"] == told


async def test_a_handler_cut_off_by_closing_runs_again(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the drain cancels is told again by the next client on the same store."""
    monkeypatch.setattr("audioext.client.DRAIN_SECONDS", 0.01)
    store = ax.MemoryStore()
    client = await make_client(sandbox, store=store)
    started, finished = asyncio.Event(), asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def hang(event: ax.StageEvent) -> None:
        started.set()
        await asyncio.Event().wait()

    await extend(client, sandbox)
    await started.wait()
    await client.aclose()

    successor = ax.Client(ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]), store=store)

    @successor.on(ax.Stage.TEXT)
    async def again(event: ax.StageEvent) -> None:
        finished.set()

    async with successor, asyncio.timeout(10):
        await finished.wait()


async def test_a_slow_handler_never_delays_a_reply(sandbox: Sandbox, make_client: MakeClient) -> None:
    """All webhooks are answered while a handler still hangs."""
    client = await make_client(sandbox)
    release = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def hang(event: ax.StageEvent) -> None:
        await release.wait()

    job = await extend(client, sandbox)
    await job
    await sandbox.settled()
    release.set()

    assert {200} == {delivery.status for delivery in sandbox.deliveries}


def test_submitted_is_not_told() -> None:
    """A handler of SUBMITTED is refused with the reason."""
    with pytest.raises(ax.ConfigError, match="submit returns"):
        ax.Client(ax.Kie()).on(ax.Stage.SUBMITTED)


async def test_a_handler_that_awaits_what_was_cancelled_has_failed(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried five times, each pause twice the one before; then it stands on the job and the next stage is told."""
    monkeypatch.setattr(handlers, "RETRY_SECONDS", 1.0)
    time, pauses, calls, done = [1_800_000_000.0], list[float](), list[str](), asyncio.Event()

    class Impatient(ax.MemoryStore):
        """A store whose clock is set to the time when a failed handler is due again."""

        async def settle(self, lease: Lease, *, due_at: float | None) -> bool:
            settled = await super().settle(lease, due_at=due_at)
            if lease.kind == "outbox" and due_at is not None:
                pauses.append(due_at - time[0])
                time[0] = due_at
            return settled

    client = await make_client(sandbox, store=Impatient(), clock=Clock(now=lambda: time[0]))

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        calls.append("text")
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        calls.append("complete")
        done.set()

    job = await extend(client, sandbox)
    async with asyncio.timeout(5):
        await done.wait()

    assert [*["text"] * handlers.MAX_ATTEMPTS, "complete"] == calls
    assert [1.0, 2.0, 4.0, 8.0] == pauses
    assert ("text: CancelledError: ",) == job.record.handler_faults


async def test_a_handler_may_close_the_client(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Within a handler aclose only begins; the handler ends, counts as done, and the client closes without a rest."""
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

    await extend(client, sandbox)
    await done.wait()
    async with asyncio.timeout(5):
        await client.aclose()

    assert ["begins", "ends"] == calls
    assert None is await store.next_due("outbox")
    assert [] == [task for task in asyncio.all_tasks() if task.get_name().startswith("audioext")]


async def test_a_close_begun_by_a_handler_ends_the_waits(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Whoever waits for the job is told that the client was closed, although nobody outside closed it."""
    sandbox = await make_sandbox(faults=["drop=first", "drop=complete"])
    client = await make_client(sandbox)

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        await client.aclose()

    job = await extend(client, sandbox)
    with pytest.raises(ax.ClientClosedError):
        await job


async def test_a_handler_that_ignores_its_cancellation_does_not_stop_the_close(
    sandbox: Sandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log and left alone; the client closes."""
    monkeypatch.setattr("audioext.client.DRAIN_SECONDS", 0.01)
    monkeypatch.setattr(worker, "CANCEL_SECONDS", 0.01)
    client = await make_client(sandbox)
    started, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    cancelled: list[str] = []

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled.append(event.ref)
        ended.set()

    job = await extend(client, sandbox)
    await started.wait()
    async with asyncio.timeout(5):
        await client.aclose()

    assert [job.ref] == cancelled
    assert not ended.is_set()
    assert f"{job.ref} does not end when it is cancelled" in caplog.text
    release.set()
    await ended.wait()
