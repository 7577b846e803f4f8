"""Handlers: each topic is told at least once and in order, and no handler disturbs its neighbours."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from types import FunctionType
from typing import TypedDict

import attrs
import pytest

from audioext.errors import ConfigError, RetryLater
from audioext.files.sources import fingerprint
from audioext.models.entries import Entry
from audioext.models.record import Verdict
from audioext.models.requests import Extend
from audioext.models.results import Stage
from audioext.runtime.claims import CANCEL_SECONDS
from audioext.runtime.handlers import CATCH_UP_SECONDS, CLEAN_UP_SECONDS, HANDLING, LONGEST_ERROR, Handlers, Handling
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Failure, StageEvent
from audioext.state.schedule import (
    FARTHEST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    MAX_ATTEMPTS,
    MAX_ATTEMPTS_AHEAD,
    RETRY_SECONDS,
)
from audioext.stores import MemoryStore
from tests.support import tape
from tests.support.lines import Side, hang_until
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import LOOP_CLOCK, Process, loop_time, start, stored, truth
from tests.support.tape import REF

NOW = BEGIN_SECONDS
TIMEOUT_SECONDS = 10.0


def make(process: Process) -> Handlers:
    """Return the handlers of *process*, which its journal wakes."""
    handlers = Handlers(
        journal=process.journal,
        timeout=TIMEOUT_SECONDS,
        concurrency=4,
        job=process.handle,
    )
    process.journal.on_work = handlers.claims.wake
    return handlers


@pytest.fixture
async def handlers(here: Process) -> AsyncIterator[Handlers]:
    """Return handlers that are closed at the end, without time to drain."""
    handlers = make(here)
    yield handlers
    await handlers.aclose(drain=0.0)


async def see(process: Process, *entries: Entry, ref: str = REF) -> HeldJob:
    """Submit a job of *process* and append *entries* to it."""
    held = await process.submit(ref)
    await process.journal.append(held, [tape.answer(NOW, task_id=ref), *entries])
    return held


class Calls(list[str]):
    """The calls of handlers, in order."""

    def on(self, handlers: Handlers, stage: Stage, name: str) -> None:
        """Register a handler called *name* that notes its calls."""

        async def handler(event: StageEvent) -> None:
            self.append(f"{name}:{event.stage.name.lower()}")

        handler.__qualname__ = name
        handlers.on(stage)(handler)


def nameless(stage: Stage | None, *, audio: bool = False) -> Entry:
    """Return a webhook without a task id, which fits every job."""
    tracks = (tape.track("one"),) if audio else ()
    return tape.webhook(NOW + 1, tape.shown(stage, *tracks, task_id=None))


# --- topics and their order ---------------------------------------------------------------------------------


async def test_handlers_are_called_once_for_each_stage_in_order(here: Process, handlers: Handlers) -> None:
    """A job that completes at once calls handlers for text, first and complete, in this order."""
    events: list[StageEvent] = []

    async def handler(event: StageEvent) -> None:
        events.append(event)

    for stage in (Stage.COMPLETE, Stage.FIRST, Stage.TEXT):
        handlers.on(stage)(handler)
    handlers.start()
    held = await see(here, nameless(Stage.COMPLETE, audio=True))
    await asyncio.sleep(5)

    assert [Stage.TEXT, Stage.FIRST, Stage.COMPLETE] == [event.stage for event in events]
    assert {("implied", REF), ("webhook", REF)} == {(event.source, event.ref) for event in events}
    assert frozenset({"text", "first", "complete"}) == held.record.handled
    assert await here.line.next_due("handlers") is None


async def test_handlers_run_at_once(here: Process, handlers: Handlers) -> None:
    """Handlers run as soon as this process appends, without waiting for the next look at the store."""
    times: list[float] = []

    async def handler(event: StageEvent) -> None:
        times.append(loop_time())

    handlers.on(Stage.TEXT)(handler)
    handlers.start()
    await asyncio.sleep(0.25)
    await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(5)

    assert [NOW + 0.25] == times


async def test_a_failure_handler_is_called_after_the_stages(here: Process, handlers: Handlers) -> None:
    """A failed job calls its failure handler after its stages, and its COMPLETE handler if it still completes later."""
    calls: list[str] = []

    async def handler(event: StageEvent) -> None:
        calls.append(event.stage.name)

    async def sorry(failure: Failure) -> None:
        calls.append(failure.message)

    handlers.on(Stage.TEXT)(handler)
    handlers.on(Stage.COMPLETE)(handler)
    handlers.on_failure()(sorry)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT), tape.webhook(NOW + 2, tape.failed(None, message="no")))
    await asyncio.sleep(5)
    assert ["TEXT", "no"] == calls
    await here.journal.append(held, [nameless(Stage.COMPLETE, audio=True)])
    await asyncio.sleep(5)

    assert ["TEXT", "no", "COMPLETE"] == calls


async def test_a_failure_that_was_undone_calls_no_handler(here: Process, handlers: Handlers) -> None:
    """A job that became complete before its failure was handled calls no failure handler."""
    failures: list[Failure] = []

    async def sorry(failure: Failure) -> None:
        failures.append(failure)

    handlers.on_failure()(sorry)
    held = await see(here, tape.webhook(NOW + 2, tape.failed(None)), nameless(Stage.COMPLETE, audio=True))
    handlers.start()
    await asyncio.sleep(5)

    assert ([], Verdict.COMPLETE) == (failures, held.record.verdict)
    assert frozenset({"text", "first", "complete"}) == held.record.handled


async def test_a_stage_without_handlers_is_done_at_once(here: Process, handlers: Handlers) -> None:
    """A COMPLETE handler is called even if the earlier stages have no handlers."""
    calls = Calls()
    calls.on(handlers, Stage.COMPLETE, "bot.tell")
    handlers.start()
    await see(here, nameless(Stage.COMPLETE, audio=True))
    await asyncio.sleep(5)

    assert ["bot.tell:complete"] == calls


async def test_handlers_that_all_succeed_add_one_entry(store: MemoryStore, here: Process, handlers: Handlers) -> None:
    """If all handlers of a stage succeed at once, the journal grows by one entry."""
    calls = Calls()
    for name in ("a", "b", "c"):
        calls.on(handlers, Stage.TEXT, name)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(5)

    assert ["a:text", "b:text", "c:text"] == calls
    assert (["handled"], {}) == ([entry.kind for entry in (await stored(store)).entries[3:]], held.record.runs)


async def test_a_restarted_process_handles_only_what_is_left(here: Process) -> None:
    """A process that starts again calls handlers only for topics that the last one had not finished."""
    await see(here, nameless(Stage.COMPLETE, audio=True))
    first, second = make(here), make(here)
    calls = Calls()
    release = asyncio.Event()

    async def stuck(event: StageEvent) -> None:
        calls.append(f"stuck:{event.stage.name.lower()}")
        await release.wait()

    calls.on(first, Stage.TEXT, "tell")
    first.on(Stage.FIRST)(stuck)
    first.start()
    await asyncio.sleep(5)
    await first.aclose(drain=0.0)
    for stage in (Stage.TEXT, Stage.FIRST, Stage.COMPLETE):
        calls.on(second, stage, "tell")
    second.start()
    await asyncio.sleep(5)
    await second.aclose(drain=0.0)

    assert ["tell:text", "stuck:first", "tell:first", "tell:complete"] == calls


async def test_two_workers_share_the_work(store: MemoryStore) -> None:
    """Two processes with the same handlers tell each topic once, as long as neither dies."""
    calls = Calls()
    processes = [start(store) for _ in range(2)]
    workers = [make(process) for process in processes]
    for worker in workers:
        for stage in (Stage.TEXT, Stage.FIRST, Stage.COMPLETE):
            calls.on(worker, stage, "tell")
        worker.start()
    for number in range(8):
        await see(processes[number % 2], nameless(Stage.COMPLETE, audio=True), ref=f"job-{number}")
    await asyncio.sleep(20)
    for worker in workers:
        await worker.aclose(drain=0.0)

    assert {"tell:text": 8, "tell:first": 8, "tell:complete": 8} == Counter(calls)


async def test_a_handler_can_come_after_the_start(here: Process, handlers: Handlers) -> None:
    """A handler that is added to an open client is called for topics that are still unhandled."""
    await see(here, nameless(Stage.TEXT))
    handlers.claims.wake()
    handlers.start()
    await asyncio.sleep(5)
    assert "claim" not in here.line.calls
    calls = Calls()
    calls.on(handlers, Stage.TEXT, "late")
    await asyncio.sleep(5)

    assert ["late:text"] == calls


# --- handlers that fail -------------------------------------------------------------------------------------


async def test_a_failing_handler_is_tried_again_alone(here: Process, handlers: Handlers) -> None:
    """A failing handler is retried alone; its neighbours are not called again, and the next stage waits for it."""
    calls = Calls()
    times: list[float] = []

    async def failing(event: StageEvent) -> None:
        times.append(loop_time())
        if len(times) < 3:
            raise ValueError("not yet")

    calls.on(handlers, Stage.TEXT, "before")
    handlers.on(Stage.TEXT)(failing)
    calls.on(handlers, Stage.TEXT, "after")
    calls.on(handlers, Stage.FIRST, "next")
    handlers.start()
    held = await see(here, nameless(Stage.FIRST, audio=True))
    await asyncio.sleep(0.5)
    assert ["before:text", "after:text"] == calls
    await asyncio.sleep(30)

    assert ["before:text", "after:text", "next:first"] == calls
    assert [NOW, NOW + RETRY_SECONDS, NOW + 3 * RETRY_SECONDS] == times
    assert ((), frozenset({"text", "first"})) == (held.record.handler_faults, held.record.handled)


async def never(event: StageEvent) -> None:
    """Never return."""
    await asyncio.get_running_loop().create_future()


async def stubborn(event: StageEvent) -> None:
    """Neither return nor react to cancellation, for a long time."""
    ends_at = loop_time() + 5 * TIMEOUT_SECONDS
    while loop_time() < ends_at:
        try:
            await asyncio.sleep(ends_at - loop_time())
        except asyncio.CancelledError:
            continue


async def raises(event: StageEvent) -> None:
    """Raise something that is not an `Exception`."""
    raise GeneratorExit("out")


async def cancels_itself(event: StageEvent) -> None:
    """Cancel the task that runs this."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def awaits_what_was_cancelled(event: StageEvent) -> None:
    """Await a future of its own that was cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def breaks_while_it_cleans_up(event: StageEvent) -> None:
    """Time out, and raise another error when cancelled."""
    try:
        await never(event)
    finally:
        raise ValueError("no clean end")


async def exits(event: StageEvent) -> None:
    """Try to end the process."""
    sys.exit(3)


class _NoWordsError(Exception):
    """An error whose text and wait cannot be read."""

    def __str__(self) -> str:
        raise GeneratorExit

    @property
    def retry_after(self) -> float:
        """Raise an error instead of giving a wait."""
        raise ValueError("no idea")


class _NeverError(Exception):
    """An error that asks for a wait longer than a float can hold."""

    retry_after = 10**400


async def raises_what_has_no_words(event: StageEvent) -> None:
    """Raise an error that raises errors."""
    raise _NoWordsError


async def asks_to_wait_for_ever(event: StageEvent) -> None:
    """Raise an error that asks for an infinite wait."""
    raise _NeverError("never")


@pytest.mark.parametrize(
    ("handler", "says", "seconds"),
    [
        (never, "TimeoutError: it ran for over 10 s", TIMEOUT_SECONDS),
        (stubborn, "TimeoutError: it ran for over 10 s", TIMEOUT_SECONDS + CLEAN_UP_SECONDS),
        (breaks_while_it_cleans_up, "TimeoutError: it ran for over 10 s", TIMEOUT_SECONDS),
        (raises, "GeneratorExit: out", 0.0),
        (cancels_itself, "CancelledError: it was cancelled", 0.0),
        (awaits_what_was_cancelled, "CancelledError: it was cancelled", 0.0),
        (exits, "RuntimeError: it called sys.exit(3)", 0.0),
        (raises_what_has_no_words, "_NoWordsError", 0.0),
        (asks_to_wait_for_ever, "_NeverError: never", 0.0),
    ],
)
async def test_whatever_a_handler_does_is_counted_and_given_up(
    here: Process, handlers: Handlers, handler: Callable[[StageEvent], Awaitable[None]], says: str, seconds: float
) -> None:
    """A handler that cannot do its work is called again with growing pauses, and then recorded as a fault."""
    times: list[float] = []
    calls = Calls()

    async def noted(event: StageEvent) -> None:
        times.append(loop_time())
        await handler(event)

    handlers.on(Stage.TEXT)(noted)
    calls.on(handlers, Stage.TEXT, "neighbour")
    calls.on(handlers, Stage.FIRST, "next")
    handlers.start()
    held = await see(here, nameless(Stage.FIRST, audio=True))
    await asyncio.sleep(300)

    waits = [later - earlier - seconds for earlier, later in itertools.pairwise(times)]
    assert (MAX_ATTEMPTS_AHEAD, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]) == (len(times), waits)
    assert ["neighbour:text", "next:first"] == calls
    (fault,) = held.record.handler_faults
    assert fault.startswith(f"text: {says}")


async def test_a_handler_that_nothing_waits_for_is_tried_for_an_hour(here: Process, handlers: Handlers) -> None:
    """The handler of the last topic is tried twenty times in about an hour, at least every five minutes."""
    times: list[float] = []

    async def fails(event: StageEvent) -> None:
        times.append(loop_time())
        raise ValueError("no")

    handlers.on(Stage.TEXT)(fails)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(2 * 3_600)

    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [2.0**n for n in range(9)] + [LONGEST_RETRY_SECONDS] * 10 == waits
    assert (MAX_ATTEMPTS, ("text: ValueError: no",)) == (len(times), held.record.handler_faults)


async def test_a_later_stage_hurries_a_failing_handler(here: Process, handlers: Handlers) -> None:
    """A handler in a long pause is tried once more as soon as a later stage is known, which follows at once."""
    times: list[float] = []
    calls = Calls()

    async def fails(event: StageEvent) -> None:
        times.append(loop_time())
        raise ValueError("no")

    handlers.on(Stage.TEXT)(fails)
    calls.on(handlers, Stage.FIRST, "next")
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(1_000)
    before = len(times)
    await here.journal.append(held, [nameless(Stage.FIRST, audio=True)])
    await asyncio.sleep(1)

    assert (before + 1, ["next:first"]) == (len(times), calls)
    assert ("text: ValueError: no",) == held.record.handler_faults


@pytest.mark.parametrize(("error", "pauses"), [(ValueError("no"), [8.0, 16.0, 32.0]), (RetryLater(3), [3.0] * 3)])
async def test_a_clock_that_is_set_back_takes_no_tries(
    store: MemoryStore, error: Exception, pauses: Sequence[float]
) -> None:
    """After the clock was set back by an hour a waiting handler is called once, and then pauses as before."""
    ahead = [3_600.0]
    process = start(store, clock=attrs.evolve(LOOP_CLOCK, now=lambda: loop_time() + ahead[-1]))
    handlers, times = make(process), list[float]()

    async def fails(event: StageEvent) -> None:
        times.append(loop_time())
        raise error

    handlers.on(Stage.TEXT)(fails)
    handlers.start()
    await see(process, nameless(Stage.TEXT))
    await asyncio.sleep(5)
    ahead.append(0.0)
    times.clear()
    await asyncio.sleep(60)
    await handlers.aclose(drain=0.0)

    assert [*pauses] == [later - earlier for earlier, later in itertools.pairwise(times)][:3]


async def test_a_handler_without_a_call_does_not_wait_for_another(here: Process, handlers: Handlers) -> None:
    """A handler that is new is called soon, while another one of its stage is in a long pause that it keeps."""
    times: list[float] = []
    calls = Calls()

    async def fails(event: StageEvent) -> None:
        times.append(loop_time())
        raise ValueError("no")

    handlers.on(Stage.TEXT)(fails)
    handlers.start()
    await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(820)
    calls.on(handlers, Stage.TEXT, "new")
    before = len(times)
    await asyncio.sleep(FARTHEST_RETRY_SECONDS)

    assert (["new:text"], before) == (calls, len(times))


async def test_handlers_leave_room_for_the_song(here: Process, handlers: Handlers) -> None:
    """Many handlers that ask to wait, or fail, again and again do not fill the journal before the song is in."""

    async def waits(event: StageEvent) -> None:
        raise RetryLater(1)

    async def fails(event: StageEvent) -> None:
        raise ValueError("no")

    for handler in [waits] * 4 + [fails] * 4:
        handlers.on(Stage.TEXT)(handler)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(3_600)
    await here.receive(nameless(Stage.COMPLETE, audio=True))

    assert Verdict.COMPLETE is held.record.verdict


async def test_a_log_that_fails_calls_no_handler_without_a_pause(here: Process, handlers: Handlers) -> None:
    """A failure whose log line raises is retried when the claim expires, not at once."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(f"no space left on device for {record.msg}")

    log, broken, calls = logging.getLogger("audioext.handlers"), Broken(), Calls()

    async def fails(event: StageEvent) -> None:
        calls.append(event.stage.name)
        raise ValueError("no")

    handlers.on(Stage.TEXT)(fails)
    log.addHandler(broken)
    try:
        handlers.start()
        await see(here, nameless(Stage.TEXT))
        await asyncio.sleep(2 * TIMEOUT_SECONDS)
    finally:
        log.removeHandler(broken)

    assert 3 > len(calls) > 0


async def test_a_long_error_is_cut(here: Process, handlers: Handlers) -> None:
    """A handler's long error message is cut before it enters the journal."""

    async def talks(event: StageEvent) -> None:
        raise ValueError("x" * 10_000)

    handlers.on(Stage.TEXT)(talks)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(3_600)

    assert [f"text: {'ValueError: ' + 'x' * 10_000:.{LONGEST_ERROR}}"] == list(held.record.handler_faults)


async def test_one_that_succeeds_at_last_leaves_no_fault(here: Process, handlers: Handlers) -> None:
    """Of two failing handlers one is given up; the other succeeds on a retry and leaves no fault."""
    calls = Counter[str]()

    async def hopeless(event: StageEvent) -> None:
        calls["hopeless"] += 1
        raise ValueError("no")

    async def slow_starter(event: StageEvent) -> None:
        calls["slow"] += 1
        if calls["slow"] < 2:
            raise ValueError("not yet")

    handlers.on(Stage.TEXT)(hopeless)
    handlers.on(Stage.TEXT)(slow_starter)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(3_600)

    assert {"hopeless": MAX_ATTEMPTS, "slow": 2} == calls
    assert ("text: ValueError: no",) == held.record.handler_faults


async def test_another_look_does_not_shorten_the_wait(store: MemoryStore, here: Process, handlers: Handlers) -> None:
    """A webhook that makes handlers due for a second look does not shorten a handler's pause before its retry."""
    times: list[float] = []

    async def failing(event: StageEvent) -> None:
        times.append(loop_time())
        raise ValueError("no")

    handlers.on(Stage.TEXT)(failing)
    handlers.start()
    await see(here, nameless(Stage.TEXT))
    for number in range(60):
        # The index of a listener that is always busy is never brought up to date.
        entry = tape.webhook(NOW, tape.shown(None, task_id=None, word=f"{number}"))
        await store.append(REF, [entry], provider="tape", look_at=loop_time())
        await asyncio.sleep(0.25)

    assert [NOW, NOW + 1.0, NOW + 3.0, NOW + 7.0] == times[:4]


# --- crashes and closing ------------------------------------------------------------------------------------


async def test_a_process_that_dies_while_a_handler_runs_leaves_it_to_another(store: MemoryStore, here: Process) -> None:
    """The claim of a process that died expires, and the topic is told again by another process."""
    dying, living = make(here), make(start(store))
    calls = Calls()
    dying.on(Stage.TEXT)(never)
    calls.on(living, Stage.TEXT, "tell")
    dying.start()
    await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(0.5)

    over = asyncio.Event()
    here.line.on_call = hang_until(over)
    living.start()
    await asyncio.sleep(TIMEOUT_SECONDS)
    assert [] == calls
    await asyncio.sleep(20)

    assert ["tell:text"] == calls
    assert frozenset({"text"}) == (await truth(store)).handled
    over.set()
    for worker in (dying, living):
        await worker.aclose(drain=0.0)
    await here.journal.aclose()


async def test_closing_first_runs_due_handlers(here: Process) -> None:
    """A client that closes first tells all stages of a job that has just completed."""
    handlers, calls = make(here), Calls()
    for stage in (Stage.TEXT, Stage.FIRST, Stage.COMPLETE):
        calls.on(handlers, stage, "tell")
    handlers.start()
    await see(here, nameless(Stage.COMPLETE, audio=True))
    await handlers.aclose(drain=10.0)

    assert ["tell:text", "tell:first", "tell:complete"] == calls


async def test_closing_first_runs_handlers_that_the_index_lacks(store: MemoryStore, here: Process) -> None:
    """A closing process tells a COMPLETE that it knows of, even if the stored index does not show it yet."""
    handlers, calls = make(here), Calls()
    for stage in (Stage.TEXT, Stage.FIRST, Stage.COMPLETE):
        calls.on(handlers, stage, "tell")
    handlers.start()
    await see(here)
    await asyncio.sleep(0.5)
    await store.append(REF, [nameless(Stage.COMPLETE, audio=True)], provider="tape", look_at=loop_time() + 2.0)
    await (await here.job())
    await handlers.aclose(drain=10.0)

    assert (["tell:text", "tell:first", "tell:complete"], BEGIN_SECONDS + 0.5) == (calls, loop_time())


async def test_closing_is_bounded_though_the_store_hangs(here: Process) -> None:
    """Closing is bounded even if the store does not answer."""
    handlers = make(here)
    handlers.on(Stage.TEXT)(never)
    handlers.start()
    await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(0.5)
    over = asyncio.Event()
    here.line.on_call = hang_until(over)
    await handlers.aclose(drain=5.0)

    assert loop_time() <= NOW + 0.5 + 5.0 + CATCH_UP_SECONDS + CANCEL_SECONDS
    over.set()


async def test_a_handler_that_is_cancelled_by_closing_runs_again(store: MemoryStore, here: Process) -> None:
    """A handler that closing cancels has not failed: it is due again at once, with as many attempts as before."""
    handlers = make(here)
    handlers.on(Stage.TEXT)(never)
    handlers.start()
    await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(0.5)
    await handlers.aclose(drain=1.0)

    assert {} == (await truth(store)).runs
    due = await store.next_due("handlers")
    assert due is not None
    assert due <= loop_time()


async def test_closing_cancels_only_the_running_handler(here: Process) -> None:
    """A handler that finished before closing is not called again after the restart; only the cancelled one is."""
    first, second = make(here), make(here)
    calls = Calls()
    calls.on(first, Stage.TEXT, "quick")
    calls.on(second, Stage.TEXT, "quick")
    first.on(Stage.TEXT)(never)

    async def slow(event: StageEvent) -> None:
        calls.append("slow:text")

    slow.__module__, slow.__qualname__ = never.__module__, never.__qualname__
    second.on(Stage.TEXT)(slow)
    first.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(0.5)
    await first.aclose(drain=0.0)
    second.start()
    await asyncio.sleep(5)
    await second.aclose(drain=0.0)

    assert (["quick:text", "slow:text"], frozenset({"text"})) == (calls, held.record.handled)


async def test_a_store_that_fails_after_the_handler_ran_does_not_call_it_again(
    store: MemoryStore, here: Process, handlers: Handlers
) -> None:
    """A handler's success that could not be stored is stored once the store is back, without calling it again."""
    calls = Calls()
    calls.on(handlers, Stage.TEXT, "tell")
    await see(here, nameless(Stage.TEXT))

    async def watch(name: str, side: Side) -> None:
        if name == "append":
            store.fail("away")
            here.line.on_call = nothing

    async def nothing(name: str, side: Side) -> None:
        """Let it pass."""

    here.line.on_call = watch
    handlers.start()
    await asyncio.sleep(0.5)
    store.fail(None)
    await asyncio.sleep(2 * TIMEOUT_SECONDS)

    assert ["tell:text"] == calls
    assert frozenset({"text"}) == (await truth(store)).handled


# --- what handlers may be, and what they submit -------------------------------------------------------------


def test_handlers_are_coroutine_functions(here: Process) -> None:
    """A plain function is refused at registration; coroutine methods, partials and callable objects are fine."""
    handlers = make(here)

    class Bot:
        """An object that can be called."""

        async def __call__(self, event: StageEvent) -> None:
            """Be called."""

        async def method(self, event: StageEvent) -> None:
            """Be called."""

        @classmethod
        async def of_the_class(cls, event: StageEvent) -> None:
            """Be called."""

        @staticmethod
        async def of_nothing(event: StageEvent) -> None:
            """Be called."""

        def plain(self, event: StageEvent) -> None:
            """Return nothing that can be awaited."""

    class Plain:
        """An object whose call is not a coroutine."""

        def __call__(self, event: StageEvent) -> None:
            """Return nothing that can be awaited."""

    async def generator(event: StageEvent) -> AsyncIterator[StageEvent]:
        yield event

    good_ones = (never, Bot(), Bot().method, Bot.of_the_class, Bot.of_nothing, partial(never), partial(partial(never)))
    for good in (*good_ones, partial(Bot()), partial(Bot().method)):
        handlers.on(Stage.TEXT)(good)
    bad_ones = (
        print,
        partial(print),
        Bot,
        Plain(),
        partial(Plain()),
        Bot().plain,
        lambda event: (event, never),
        generator,
    )
    for bad in (*bad_ones, None, "never", Stage.TEXT):
        with pytest.raises(ConfigError, match="must be an async function"):
            handlers.on(Stage.TEXT)(bad)  # type: ignore[arg-type]  # this is what is tested
        with pytest.raises(ConfigError, match="must be an async function"):
            handlers.on_failure()(bad)  # type: ignore[arg-type]  # as above


def test_handlers_take_what_they_are_called_with(here: Process) -> None:
    """A handler with the wrong parameters is refused when it is registered, not when the song is complete."""
    handlers = make(here)

    async def nothing() -> None:
        """Be called with nothing."""

    async def two(event: StageEvent, chat: object, *, more: int = 0) -> None:
        """Be called with meta."""

    for bad in (nothing, two):
        with pytest.raises(ConfigError, match=r"a handler is called with what happened, which .* does not take"):
            handlers.on(Stage.TEXT)(bad)
        with pytest.raises(ConfigError, match=r"a handler is called with what happened, which .* does not take"):
            handlers.on_failure()(bad)
    with pytest.raises(ConfigError, match=r"and with the job's meta, which .* does not take: too many positional"):
        handlers.on(Stage.TEXT, Meta)(never)
    handlers.on(Stage.TEXT, Meta)(two)
    handlers.on(Stage.TEXT)(Compiled())


class Compiled:
    """A handler whose signature cannot be read, like one of an extension module."""

    @property
    def __signature__(self) -> None:
        """Raise, as for an unknown signature."""
        raise ValueError

    async def __call__(self, event: StageEvent) -> None:
        """Take an event."""


class Meta(TypedDict):
    """The meta of a submit."""


@pytest.mark.parametrize("stage", [Stage.SUBMITTED, "complete", 4, None, never])
def test_handlers_are_for_three_stages(here: Process, stage: object) -> None:
    """Registering a handler for SUBMITTED, for an unknown stage, or by a bare `@client.on` is refused."""
    with pytest.raises(
        ConfigError, match=r"for TEXT, FIRST and COMPLETE, not .*; use @client\.on\(ax\.Stage\.COMPLETE"
    ):
        make(here).on(stage)(never)  # type: ignore[arg-type]  # that is what is tested


async def test_two_handlers_of_one_name_are_two(here: Process, handlers: Handlers) -> None:
    """A function that is registered twice is called twice, and each registration is retried by itself."""
    calls: list[int] = []

    async def handler(event: StageEvent) -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise ValueError("the second fails")

    handlers.on(Stage.TEXT)(handler)
    handlers.on(Stage.TEXT)(handler)
    handlers.start()
    held = await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(10)

    assert [0, 1, 2] == calls
    assert ((), frozenset({"text"}), 2) == (held.record.handler_faults, held.record.handled, len(held.record.runs))


async def welcome(event: StageEvent) -> None:
    """Handle a stage; a function of a module, as in a notebook's cell."""


async def test_a_function_that_a_notebook_defines_again_is_a_warning(
    handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    """A second handler of one name is a log line; another stage, a closure, a partial, a decorated one are not."""
    again = FunctionType(welcome.__code__, welcome.__globals__)

    async def closure(event: StageEvent) -> None: ...

    def logged(handler: Callable[[StageEvent], Awaitable[None]]) -> Callable[[StageEvent], Awaitable[None]]:
        @wraps(handler)
        async def call(event: StageEvent) -> None: ...

        return call

    for handler in (welcome, closure, closure, partial(welcome), logged(welcome), again):
        handlers.on(Stage.TEXT)(handler)
    handlers.on(Stage.FIRST)(welcome)

    said = "are named %s, and each is called: did a notebook cell or a module run again?"
    expected = f"4 handlers for text {said % f'{__name__}.welcome'}"
    assert [expected] == [record.getMessage() for record in caplog.records]


async def test_what_a_handler_submits_has_the_same_key_again(here: Process, handlers: Handlers) -> None:
    """A handler that is called again derives the same keys for its submits in the same order, and all keys differ."""
    keys: list[list[str]] = []

    async def chains(event: StageEvent) -> None:
        handling = HANDLING.get()
        assert handling is not None
        asked = [Extend(audio_id=name, model="V5") for name in ("a", "a", "b")]
        keys.append([handling.key("tape", request, None) for request in asked])
        if len(keys) == 1:
            raise ValueError("again")

    handlers.on(Stage.TEXT)(chains)
    handlers.start()
    await see(here, nameless(Stage.TEXT))
    await asyncio.sleep(5)

    assert [3, 3] == [len(set(made)) for made in keys]
    assert keys[0] == keys[1]
    assert HANDLING.get() is None


async def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    """A key depends on a file's content, not its path: another sound at the same path has another key."""
    file, moved = tmp_path / "a.wav", tmp_path / "b.wav"
    file.write_bytes(b"sound")
    moved.write_bytes(b"sound")
    first, second = [Handling("x").key("tape", Extend(file=path), fingerprint(path)) for path in (file, moved)]
    file.write_bytes(b"noise")

    assert first == second
    assert first != Handling("x").key("tape", Extend(file=file), fingerprint(file))


async def test_the_measured_duration_of_a_file_does_not_count(tmp_path: Path) -> None:
    """A key does not depend on a file's duration, which an update of a library may measure in another way."""
    first, second = [
        Handling("x").key("tape", Extend(file=tmp_path / "a.mp3", source_duration=seconds), "its digest")
        for seconds in (4.0, 4.02)
    ]

    assert first == second


async def test_a_file_that_is_gone_has_a_key_as_well(tmp_path: Path) -> None:
    """A missing file has a key too; the submit refuses it later, together with all other problems."""
    missing = Extend(file=tmp_path / "missing.wav")

    assert Handling("x").key("tape", missing, None) == Handling("x").key("tape", missing, None)
    assert Handling("x").key("tape", missing, None) != Handling("y").key("tape", missing, None)


def test_the_key_of_a_submit_in_a_handler_is_the_same_in_every_release() -> None:
    """A handler that is retried after an update finds the job that it paid for before, whatever fields were added."""
    request = Extend(audio_id="1f2e", model="V5", continue_at=60, prompt="a bridge", style="Jazz", title="Été")

    found = Handling("1m8gbsy2adgnpg33x0mzn7ks:first:bot.tell").key("kie", request, None)

    assert "handler:1m8gbsy2adgnpg33x0mzn7ks:first:bot.tell:524ab4778e2e83f16be33566:1" == found
