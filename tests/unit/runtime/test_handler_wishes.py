"""What a handler may ask for: its job, a later call, no further call, and its job's meta as an object."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import attrs
import msgspec
import pytest

from audioext.errors import AudioextError, ConfigError, GiveUp, RateLimitError, RetryLater
from audioext.models.entries import Entry
from audioext.models.results import Stage
from audioext.runtime.handlers import LONGEST_WAIT_SECONDS, MAX_WAITS, Handlers
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Failure, StageEvent
from audioext.state.schedule import MAX_ATTEMPTS, MAX_ATTEMPTS_AHEAD, RETRY_SECONDS
from audioext.stores import MemoryStore
from tests.support import tape
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import Process, loop_time, start
from tests.support.tape import REF

NOW = BEGIN_SECONDS


def make(process: Process) -> Handlers:
    """Return the handlers of *process*, which its journal wakes."""
    handlers = Handlers(
        journal=process.journal,
        timeout=10.0,
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


def shown(stage: Stage, at: float = NOW + 1) -> Entry:
    """Return a webhook that claims *stage*."""
    return tape.webhook(at, tape.shown(stage, *((tape.track("one"),) if stage > Stage.TEXT else ())))


async def see(process: Process, *entries: Entry, **asked: object) -> HeldJob:
    """Submit a job of *process* and append *entries* to it."""
    held = await process.submit(REF, **asked)
    await process.journal.append(held, [tape.answer(NOW), *entries])
    return held


class FloodError(Exception):
    """What a chat library raises when it is rate limited."""

    def __init__(self, retry_after: object) -> None:
        """Keep the wait that the chat asks for."""
        self.retry_after = retry_after
        super().__init__("flood")


# --- the job of an event ------------------------------------------------------------------------------------


async def test_an_event_knows_its_job_and_whether_it_is_the_latest(here: Process, handlers: Handlers) -> None:
    """A TEXT event is not the latest once COMPLETE is known, and its job can be awaited within a handler."""
    seen: list[tuple[str, bool, int]] = []

    async def note(event: StageEvent) -> None:
        seen.append((event.stage.name, event.is_latest, len((await event.job).tracks)))

    for stage in (Stage.TEXT, Stage.COMPLETE):
        handlers.on(stage)(note)
    handlers.start()
    held = await see(here, shown(Stage.COMPLETE))
    await asyncio.sleep(5)

    assert [("TEXT", False, 1), ("COMPLETE", True, 1)] == seen
    event = here.handle(held).event(Stage.FIRST)
    assert event is not None
    assert f"<StageEvent FIRST of {REF} by implied, 1 track>" == repr(event)


async def test_a_failure_is_later_than_any_stage(here: Process, handlers: Handlers) -> None:
    """A TEXT event is not the latest once its job has failed, and a failure knows its job."""
    seen: list[object] = []

    async def note(event: StageEvent) -> None:
        seen.append(event.is_latest)

    async def sorry(failure: Failure) -> None:
        seen.append(failure.job.ref)

    handlers.on(Stage.TEXT)(note)
    handlers.on_failure()(sorry)
    handlers.start()
    await see(here, shown(Stage.TEXT), tape.webhook(NOW + 2, tape.failed()))
    await asyncio.sleep(5)

    assert [False, REF] == seen


def test_an_event_that_a_test_makes_has_no_job() -> None:
    """An event that a user's own test makes has no job, and asking for it raises an error that says why."""
    event = StageEvent(stage=Stage.TEXT, tracks=(), source="poll", at=datetime.now(UTC), ref=REF, provider="tape")

    with pytest.raises(ConfigError, match="StageEvent was not made by a client"):
        _ = event.job


# --- later, and never ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RetryLater(40.0),
        RetryLater(timedelta(seconds=40)),
        FloodError(40),
        FloodError(timedelta(seconds=40)),
        RateLimitError("full", provider="tape", retry_after=40.0),
    ],
)
async def test_a_wait_that_a_handler_asks_for_is_not_a_failure(
    here: Process, handlers: Handlers, error: Exception
) -> None:
    """A handler that asks for a wait is called again then, its neighbours are not, and no failure is counted."""
    times: list[float] = []
    neighbours: list[float] = []

    async def later(event: StageEvent) -> None:
        times.append(loop_time())
        if len(times) <= 2 * MAX_ATTEMPTS:
            raise error

    async def neighbour(event: StageEvent) -> None:
        neighbours.append(loop_time())

    handlers.on(Stage.TEXT)(later)
    handlers.on(Stage.TEXT)(neighbour)
    handlers.start()
    held = await see(here, shown(Stage.TEXT))
    await asyncio.sleep(40 * (2 * MAX_ATTEMPTS + 1))

    assert [NOW + 40 * n for n in range(2 * MAX_ATTEMPTS + 1)] == times
    assert ([NOW], (), frozenset({"text"})) == (neighbours, held.record.handler_faults, held.record.handled)


async def test_a_long_wait_survives_a_restart(store: MemoryStore) -> None:
    """An hour's wait that a handler asked for survives a restart, and ends within the interval between looks."""
    times: list[float] = []

    async def later(event: StageEvent) -> None:
        times.append(loop_time())
        if len(times) == 1:
            raise RetryLater(3_600.0, "the chat sleeps")

    for _ in range(2):
        process = start(store)
        handlers = make(process)
        handlers.on(Stage.TEXT)(later)
        handlers.start()
        if not times:
            await see(process, shown(Stage.TEXT))
        await asyncio.sleep(3_650.0 if times else 5.0)
        await handlers.aclose(drain=0.0)

    assert [NOW, NOW + 3_600] == times


async def test_a_handler_that_waits_does_not_wait_with_one_that_fails(here: Process, handlers: Handlers) -> None:
    """A waiting handler and a failing one are each called again in their own time, and the stage ends with both."""
    failing: list[float] = []
    waiting: list[float] = []

    async def fail(event: StageEvent) -> None:
        failing.append(loop_time())
        if len(failing) < 3:
            raise ValueError("not yet")

    async def wait(event: StageEvent) -> None:
        waiting.append(loop_time())
        if len(waiting) < 2:
            raise RetryLater(20)

    handlers.on(Stage.TEXT)(fail)
    handlers.on(Stage.TEXT)(wait)
    handlers.start()
    held = await see(here, shown(Stage.TEXT))
    await asyncio.sleep(60)

    assert [NOW, NOW + RETRY_SECONDS, NOW + 3 * RETRY_SECONDS] == failing
    assert [NOW, NOW + 20] == waiting
    assert frozenset({"text"}) == held.record.handled


async def test_waits_without_end_become_failures(here: Process, handlers: Handlers) -> None:
    """After a hundred waits each further one counts as a failure, so that no stage is retried for ever."""
    calls = itertools.count(1)
    last = 0

    async def later(event: StageEvent) -> None:
        nonlocal last
        last = next(calls)
        raise RetryLater(0)

    handlers.on(Stage.TEXT)(later)
    handlers.start()
    held = await see(here, shown(Stage.TEXT))
    await asyncio.sleep(3_700)

    assert MAX_WAITS + MAX_ATTEMPTS_AHEAD == last
    assert ("text: RetryLater: again in 0 s",) == held.record.handler_faults


async def test_a_wait_is_a_day_at_most(here: Process, handlers: Handlers) -> None:
    """A longer wait is cut to a day, since an ended job is not kept for ever."""

    async def later(event: StageEvent) -> None:
        raise RetryLater(10 * LONGEST_WAIT_SECONDS)

    handlers.on(Stage.TEXT)(later)
    handlers.start()
    held = await see(here, shown(Stage.TEXT))
    await asyncio.sleep(5)

    assert [LONGEST_WAIT_SECONDS] == [run.wait for run in held.record.runs.values()]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), timedelta(seconds=-1), None, "5", True])
def test_a_wait_is_a_number_of_seconds(seconds: Any) -> None:
    """A wait that is negative, infinite, NaN or no number is refused when `RetryLater` is made."""
    with pytest.raises(ValueError, match="finite number of seconds"):
        RetryLater(seconds)


@pytest.mark.parametrize("wait", [None, True, "5", -1, float("nan"), float("inf"), timedelta(seconds=-1)])
async def test_an_invalid_retry_after_is_a_failure(here: Process, handlers: Handlers, wait: object) -> None:
    """An invalid `retry_after` attribute of an error is ignored, and the error counts as a failure."""
    calls: list[float] = []

    async def fail(event: StageEvent) -> None:
        calls.append(loop_time())
        raise FloodError(wait)

    handlers.on(Stage.TEXT)(fail)
    handlers.start()
    held = await see(here, shown(Stage.TEXT))
    await asyncio.sleep(3_600)

    assert MAX_ATTEMPTS == len(calls)
    assert ("text: FloodError: flood",) == held.record.handler_faults


async def test_giving_up_ends_the_tries_and_is_noted(here: Process, handlers: Handlers) -> None:
    """A handler that gives up is not called for that stage again, the next stage runs, and the reason is kept."""
    calls: list[str] = []

    async def give_up(event: StageEvent) -> None:
        calls.append(event.stage.name)
        if event.stage is Stage.TEXT:
            raise GiveUp("the chat is gone")

    for stage in (Stage.TEXT, Stage.FIRST):
        handlers.on(stage)(give_up)
    handlers.start()
    held = await see(here, shown(Stage.FIRST))
    await asyncio.sleep(60)

    assert ["TEXT", "FIRST"] == calls
    assert ("text: GiveUp: the chat is gone",) == held.record.handler_faults


def test_retry_later_and_give_up_are_not_audioext_errors() -> None:
    """`RetryLater` and `GiveUp` are not subclasses of `AudioextError`, so `except AudioextError` lets them pass."""
    assert not issubclass(RetryLater, AudioextError)
    assert not issubclass(GiveUp, AudioextError)


# --- meta as an object --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataclassChat:
    """A chat."""

    chat: int
    thread: int | None = None


@attrs.frozen
class AttrsChat:
    """A chat."""

    chat: int
    thread: int | None = None


class StructChat(msgspec.Struct, frozen=True):
    """A chat."""

    chat: int
    thread: int | None = None


class DictChat(TypedDict):
    """A chat."""

    chat: int


@pytest.mark.parametrize("kind", [DataclassChat, AttrsChat, StructChat, DictChat])
async def test_meta_comes_as_an_object_of_the_users_class(here: Process, handlers: Handlers, kind: type) -> None:
    """Handlers of stages and of failures get the job's meta as an object beside the event."""
    seen: list[object] = []

    async def note(event: StageEvent, chat: object) -> None:
        seen.append(chat)

    async def sorry(failure: Failure, chat: object) -> None:
        seen.append(chat)

    handlers.on(Stage.TEXT, kind)(note)
    handlers.on_failure(kind)(sorry)
    handlers.start()
    await see(here, shown(Stage.TEXT), tape.webhook(NOW + 2, tape.failed()), meta={"chat": 42})
    await asyncio.sleep(5)

    assert [kind(chat=42)] * 2 == seen


@pytest.mark.parametrize("meta", [{}, {"chat": "42"}, {"chat": None}])
async def test_meta_that_does_not_fit_is_given_up_with_a_reason(
    here: Process, handlers: Handlers, meta: dict[str, object]
) -> None:
    """A handler whose meta does not fit is not called, and is given up with a reason, since a retry would not help."""
    seen: list[object] = []

    async def note(event: StageEvent, chat: DataclassChat) -> None:
        seen.append(chat)

    handlers.on(Stage.TEXT, DataclassChat)(note)
    handlers.start()
    held = await see(here, shown(Stage.TEXT), meta=meta)
    await asyncio.sleep(30)

    assert [] == seen
    (fault,) = held.record.handler_faults
    assert fault.startswith(f"text: GiveUp: the meta of job {REF} is not a valid DataclassChat: ")
    assert "chat" in fault


@pytest.mark.parametrize("kind", [asyncio.Event, int, "Chat", object()])
async def test_a_meta_class_that_json_cannot_make_is_refused(handlers: Handlers, kind: type) -> None:
    """A class for `meta=` that cannot be made from JSON is refused when the handler is registered."""

    async def note(event: StageEvent, chat: object) -> None:
        """Take an event."""

    with pytest.raises(ConfigError, match="meta="):
        handlers.on(Stage.TEXT, kind)(note)
