"""Handlers run at least once for each job and stage, in order, also after a restart, and block nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from audioext.state.schedule import FARTHEST_RETRY_SECONDS
from tests.integration.client.conftest import WEB, MakeClient, MakeSandbox
from tests.support.api import Api
from tests.support.clock import SOON_SECONDS, JumpClock, soon
from tests.support.ports import free_port

TRIES_AHEAD = 8
"""The README: "eight tries (two minutes) while a later stage waits for it"."""
OUTAGE_SECONDS = 50 * 60.0


class OddEndError(BaseException):
    """An exception that no handler should raise."""


async def extend(client: ax.Client, sandbox: Sandbox, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id=sandbox.track_ids[0], model="V5", **extra)  # type: ignore[arg-type]  # submit's


async def raise_error() -> None:
    """Fail as handlers fail."""
    message = "the chat is gone"
    raise RuntimeError(message)


async def raise_odd_end() -> None:
    """Raise a BaseException that is not an Exception."""
    raise OddEndError


async def raise_generator_exit() -> None:
    """Raise GeneratorExit, another BaseException."""
    raise GeneratorExit


async def await_what_was_cancelled() -> None:
    """Await a task that was cancelled by someone else."""
    other = asyncio.get_running_loop().create_future()
    other.cancel()
    await other


async def cancel_itself() -> None:
    """Cancel the running task, as a nested scope with a bug does."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


async def is_due_at(store: ax.MemoryStore, time: float) -> bool:
    """Return whether handlers have work due at that time."""
    return time == await store.next_due("handlers")


# --- which handlers run ------------------------------------------------------------------------------------------


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

    await (await extend(client, sandbox, meta={"chat": 42}))
    await client.aclose()

    assert [("one", 42), ("two", 42)] == calls


async def test_a_handler_that_changes_its_meta_affects_no_other(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Each handler, each later event and the song have a meta of their own."""
    client = await make_client(sandbox)
    seen: list[object] = []

    @client.on(ax.Stage.FIRST)
    @client.on(ax.Stage.COMPLETE)
    async def one(event: ax.StageEvent) -> None:
        seen.append(deepcopy(event.meta))
        event.meta["chats"].append(7)  # type: ignore[attr-defined]  # wrong on purpose
        event.meta["new"] = event.job.meta["new"] = 1  # type: ignore[index]  # as above

    @client.on(ax.Stage.FIRST)
    @client.on(ax.Stage.COMPLETE)
    async def two(event: ax.StageEvent) -> None:
        seen.append(event.meta)

    job = await extend(client, sandbox, meta={"chats": [42]})
    song = await job
    await client.aclose()

    assert 4 * [{"chats": [42]}] == seen
    assert {"chats": [42]} == song.meta == job.meta


async def test_unhandled_stages_are_handled_after_a_restart(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Stages that arrived while no client had a handler are handled by the next client that has one."""
    store = ax.MemoryStore()
    listener = await make_client(sandbox, store=store)
    await (await extend(listener, sandbox))
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

    async with worker, asyncio.timeout(SOON_SECONDS):
        await done.wait()

    assert ["TEXT", "FIRST", "COMPLETE"] == told


async def test_a_handler_added_to_an_open_client_gets_earlier_stages(sandbox: Sandbox, make_client: MakeClient) -> None:
    """The first handler registered on an open client gets the stages that were reached before."""
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    await job
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def late(event: ax.StageEvent) -> None:
        done.set()

    async with asyncio.timeout(SOON_SECONDS):
        await done.wait()


async def test_a_slow_handler_never_delays_a_reply(sandbox: Sandbox, make_client: MakeClient) -> None:
    """All webhooks are answered while a handler hangs."""
    client = await make_client(sandbox)
    release = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def slow(event: ax.StageEvent) -> None:
        await release.wait()

    await (await extend(client, sandbox))
    await sandbox.settled()
    release.set()

    assert {200} == {delivery.status for delivery in sandbox.deliveries}


@pytest.mark.parametrize("poll", [False, True])
async def test_a_failure_handler_is_called_once(poll: bool, make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """A failed job calls its failure handlers once, after the handlers of the stages that it reached."""
    sandbox = await make_sandbox(faults=["error=complete:501"])
    client = await make_client(sandbox, poll=poll)
    told: list[str] = []

    @client.on(ax.Stage.FIRST)
    async def first(event: ax.StageEvent) -> None:
        told.append("first")

    @client.on_failure
    async def sorry(failure: ax.Failure) -> None:
        told.append(failure.reason)

    job = await extend(client, sandbox)
    with pytest.raises(ax.JobFailedError):
        await job
    await client.aclose()

    assert (["first"] if job.stage is ax.Stage.FIRST else []) + [ax.FailureReason.GENERATION] == told


def test_a_wrong_handler_is_refused() -> None:
    """A handler for SUBMITTED, one that is not async, or one without a stage (newcomer, worst 3) is refused."""
    client = ax.Client(ax.Kie("key"))

    def plain(event: ax.StageEvent) -> None:
        """Do nothing."""

    async def bare(event: ax.StageEvent) -> None:
        """Do nothing."""

    for stage in (ax.Stage.SUBMITTED, bare, "complete"):
        with pytest.raises(ax.ConfigError, match="TEXT, FIRST and COMPLETE"):
            client.on(stage)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ax.ConfigError, match="async def"):
        client.on(ax.Stage.TEXT)(plain)  # type: ignore[type-var]  # wrong on purpose
    with pytest.raises(ax.ConfigError, match="async def"):
        client.on_failure(plain)  # type: ignore[type-var]  # as above


async def test_partials_and_objects_are_handlers(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Any callable that returns an awaitable, such as a partial or an object, can be a handler."""
    calls: list[str] = []

    async def note(name: str, event: ax.StageEvent) -> None:
        calls.append(name)

    class Note:
        async def __call__(self, event: ax.StageEvent) -> None:
            calls.append(f"object {event.stage.name}")

        async def method(self, event: ax.StageEvent) -> None:
            calls.append(f"method {event.stage.name}")

    client = await make_client(sandbox)
    handlers: list[Callable[[ax.StageEvent], Awaitable[None]]] = [partial(note, "partial"), Note(), Note().method]
    for handler in handlers:
        client.on(ax.Stage.COMPLETE)(handler)

    await (await extend(client, sandbox))
    await client.aclose()

    assert ["partial", "object COMPLETE", "method COMPLETE"] == calls


# --- handlers that fail ------------------------------------------------------------------------------------------


async def test_a_handler_that_fails_is_tried_again(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a handler is logged and the handler is retried; later stages of the job wait for it."""
    client = await make_client(sandbox, clock=clock.clock)
    calls: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        calls.append("text")
        if len(calls) < 3:
            await raise_error()

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        calls.append("complete")
        done.set()

    job = await extend(client, sandbox)
    await clock.run(done.wait())

    assert ["text", "text", "text", "complete"] == calls
    assert "the chat is gone" in caplog.text
    assert () == job.record.handler_faults


async def test_only_the_handler_that_failed_is_tried_again(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock
) -> None:
    """When the second of three handlers of a stage fails for good, the other two run once."""
    client = await make_client(sandbox, clock=clock.clock)
    calls: Counter[str] = Counter()
    done = asyncio.Event()

    @client.on(ax.Stage.FIRST)
    async def before(event: ax.StageEvent) -> None:
        calls["before"] += 1

    @client.on(ax.Stage.FIRST)
    async def bad(event: ax.StageEvent) -> None:
        calls["bad"] += 1
        await raise_error()

    @client.on(ax.Stage.FIRST)
    async def after(event: ax.StageEvent) -> None:
        calls["after"] += 1

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        done.set()

    job = await extend(client, sandbox)
    await clock.run(done.wait())

    assert {"before": 1, "bad": TRIES_AHEAD, "after": 1} == calls
    assert ("first: RuntimeError: the chat is gone",) == job.record.handler_faults


async def test_a_message_outlives_an_outage_of_its_chat(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock
) -> None:
    """A message that its chat could not take for fifty minutes is there within five more, across a restart."""
    store, port = ax.MemoryStore(), free_port()
    got: list[bytes] = []
    is_read = asyncio.Event()

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read())
        writer.close()
        is_read.set()

    async def tell(event: ax.StageEvent) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(event.ref.encode())
        writer.close()
        await writer.wait_closed()

    client = await make_client(sandbox, store=store, clock=clock.clock)
    client.on(ax.Stage.COMPLETE)(tell)
    job = await extend(client, sandbox)
    await clock.run(job.result())
    await clock.run(clock.sleep(OUTAGE_SECONDS))
    await client.aclose()
    async with await asyncio.start_server(chat, "127.0.0.1", port):
        again = await make_client(sandbox, store=store, clock=clock.clock)
        again.on(ax.Stage.COMPLETE)(tell)
        async with asyncio.timeout(SOON_SECONDS):
            await clock.run(is_read.wait())
        late = clock.time - OUTAGE_SECONDS - job.record.created_at
        await again.aclose()

    assert [job.ref.encode()] == got
    assert 0 < late < 6 * 60


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        (raise_error, "RuntimeError: the chat is gone"),
        (raise_odd_end, "OddEndError: "),
        (raise_generator_exit, "GeneratorExit: "),
        (await_what_was_cancelled, "CancelledError: "),
        (cancel_itself, "CancelledError: "),
        (hang, "TimeoutError: "),
    ],
)
async def test_a_handler_that_a_later_stage_waits_for_is_given_up_after_eight_tries(
    fail: Callable[[], Awaitable[None]], says: str, sandbox: Sandbox, make_client: MakeClient, clock: JumpClock
) -> None:
    """A handler that fails in any way is tried again with doubling pauses; then the job records it and goes on."""
    store = ax.MemoryStore()
    client = await make_client(sandbox, store=store, clock=clock.clock, handler_timeout=0.01)
    calls: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def text(event: ax.StageEvent) -> None:
        calls.append("text")
        await fail()

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        calls.append("complete")
        done.set()

    job = await extend(client, sandbox)
    async with asyncio.timeout(SOON_SECONDS):
        for number in range(1, TRIES_AHEAD):
            left = 2.0 ** (number - 1)
            while left:  # a row of the index is at most half a minute ahead
                pause = min(left, FARTHEST_RETRY_SECONDS / 2)
                await soon(partial(is_due_at, store, clock.time + pause))
                assert ["text"] * number == calls
                await clock.advance(pause)
                left -= pause
        await done.wait()

    assert [*["text"] * TRIES_AHEAD, "complete"] == calls
    (fault,) = job.record.handler_faults
    assert fault.startswith(f"text: {says}")


async def test_what_a_handler_submits_is_paid_once(sandbox: Sandbox, make_client: MakeClient, clock: JumpClock) -> None:
    """A handler that submits three tasks and then fails gets the same three jobs when it is retried."""
    client = await make_client(sandbox, clock=clock.clock)
    calls: list[list[str]] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def chain(event: ax.StageEvent) -> None:
        if event.meta.get("chained"):
            return
        tracks = (sandbox.track_ids[index] for index in (0, 1, 0))
        mine = [await client.extend(audio_id=track, model="V5", meta={"chained": True}) for track in tracks]
        calls.append([job.ref for job in mine])
        if len(calls) < 3:
            await raise_error()
        done.set()

    await extend(client, sandbox)
    await clock.run(done.wait())

    assert [calls[0]] * 3 == calls
    assert 3 == len(set(calls[0]))
    assert 4 == len(sandbox.submissions)


async def test_a_file_that_a_handler_fetched_again_is_the_same_file(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock, voice_file: Path, tmp_path: Path
) -> None:
    """A retried handler's file is compared by its contents, not by the name that it has in that call."""
    client = await make_client(sandbox, clock=clock.clock)
    refs: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def chain(event: ax.StageEvent) -> None:
        if event.meta.get("chained"):
            return
        path = Path(shutil.copy(voice_file, tmp_path / f"take-{len(refs)}.wav"))
        refs.append((await client.extend(file=path, model="V5", continue_at=2, meta={"chained": True})).ref)
        if len(refs) < 2:
            await raise_error()
        done.set()

    await extend(client, sandbox)
    await clock.run(done.wait())

    assert refs[0] == refs[1]
    assert 2 == len(sandbox.submissions)


async def test_a_link_that_was_signed_anew_is_the_same_source(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock
) -> None:
    """A retried handler finds the jobs of its links, though a vendor has signed them anew meanwhile."""
    client = await make_client(sandbox, clock=clock.clock)
    calls: list[list[str]] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def chain(event: ax.StageEvent) -> None:
        if event.meta.get("chained"):
            return
        links = [f"{link}?signature={len(calls)}" for link in (sandbox.tune_url, sandbox.voice_url, sandbox.tune_url)]
        mine = [await client.extend(url=link, model="V5", continue_at=2, meta={"chained": True}) for link in links]
        calls.append([job.ref for job in mine])
        if len(calls) < 2:
            await raise_error()
        done.set()

    await extend(client, sandbox)
    await clock.run(done.wait())

    assert calls[0] == calls[1]
    assert 3 == len(set(calls[0]))
    assert 4 == len(sandbox.submissions)


async def test_a_link_to_another_file_is_another_source(
    sandbox: Sandbox, make_client: MakeClient, clock: JumpClock
) -> None:
    """A retried handler that leaves out a link finds no job of another file, though only the links' queries differ."""
    client = await make_client(sandbox, clock=clock.clock)
    found: dict[str, set[str]] = {"1": set(), "2": set()}
    left = ["1", "2"]
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def chain(event: ax.StageEvent) -> None:
        if event.meta.get("chained"):
            return
        for number in [*left]:
            link = f"{sandbox.tune_url}?id={number}&X-Amz-Signature={len(left)}&X-Amz-Date=2026"
            job = await client.extend(url=link, model="V5", continue_at=2, meta={"chained": True})
            found[number].add(job.ref)
        if left.pop(0) == "1":
            await raise_error()
        done.set()

    await extend(client, sandbox)
    await clock.run(done.wait())

    assert [1, 1] == [*map(len, found.values())]
    assert found["1"].isdisjoint(found["2"])
    assert 3 == len(sandbox.submissions)


async def test_a_handler_that_ran_while_the_store_failed_is_not_called_again(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A handler that ran while the store failed is recorded once the store is back, and not called again."""
    store = ax.MemoryStore()
    client = await open_client(store=store, clock=clock.clock, handler_timeout=5.0, **WEB)
    told: list[ax.Stage] = []
    began, done = asyncio.Event(), asyncio.Event()

    @client.on(ax.Stage.FIRST)
    async def first(event: ax.StageEvent) -> None:
        told.append(event.stage)
        store.fail("the disk is full")
        began.set()

    @client.on(ax.Stage.COMPLETE)
    async def complete(event: ax.StageEvent) -> None:
        told.append(event.stage)
        done.set()

    job = await client.extend(audio_id="x", model="V5")
    await api.call_back("first")
    await began.wait()
    await clock.advance(60.0)  # longer than a claim lasts
    store.fail(None)
    await api.call_back("complete")
    await clock.run(done.wait())
    await client.aclose()

    assert [ax.Stage.FIRST, ax.Stage.COMPLETE] == told
    assert {"text", "first", "complete"} == job.record.handled
