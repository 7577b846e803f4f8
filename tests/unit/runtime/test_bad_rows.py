"""A job that cannot be read or stored holds up no other job, and is logged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import attrs
import msgspec
import pytest

from audioext.errors import StoreError, UnreadableError
from audioext.models.entries import Entry, Index, make_entry
from audioext.models.results import Stage
from audioext.runtime.changes import Changes
from audioext.runtime.claims import Claims
from audioext.runtime.handlers import LONGEST_ERROR, Handlers, StageHandler
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import StageEvent
from audioext.runtime.unstored import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Unstored
from audioext.state.schedule import FARTHEST_RETRY_SECONDS, FARTHEST_SECONDS, MAX_ATTEMPTS
from audioext.stores import MemoryStore
from audioext.stores.base import Stored
from tests.support import tape
from tests.support.lines import Line
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import LOOP_CLOCK, UNLIMITED, Process, loop_time, start, stored
from tests.support.tape import REF, Tape

NOW = BEGIN_SECONDS
DAMAGED = make_entry("request", NOW, body=b"{")
LATER = make_entry("request", NOW, body=b'{"format": 99}')
DONE = tape.webhook(NOW + 3, tape.shown(Stage.COMPLETE, tape.track("one"), tape.track("two")))
TEXT = tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id=None))


async def put(store: MemoryStore, ref: str, entry: Entry, *, provider: str = "tape") -> None:
    """Create a journal with *entry*, with polls and handlers due now."""
    index = Index(ref=ref, provider=provider, account="", created_at=NOW, poll_at=NOW, handle_at=NOW)
    await store.create(entry, index, limits=UNLIMITED, now=NOW)


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "says"), [(DAMAGED, "is damaged"), (LATER, "has format 99")])
async def test_a_job_whose_request_is_damaged_is_named(
    store: MemoryStore, here: Process, entry: Entry, says: str
) -> None:
    """Reading a job with a damaged or newer request raises an error that names the job and the reason."""
    await put(store, REF, entry)

    with pytest.raises(UnreadableError, match=f"job {REF}: its journal {says}"):
        await here.journal.hold(REF)


async def test_a_second_request_that_is_damaged_does_no_harm(store: MemoryStore, here: Process, there: Process) -> None:
    """A damaged second request in a journal is ignored, both by the process that holds the job and by others."""
    job = here.handle(await here.submit())
    await store.append(REF, [DAMAGED], provider="tape")
    await here.receive(DONE)

    assert Stage.COMPLETE is (await job.wait()).stage
    assert Stage.COMPLETE is (await there.hold()).record.stage


# --- claims -------------------------------------------------------------------------------------------------


async def test_an_unreadable_job_is_logged_once_and_delays_no_other(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """An unreadable job is retried as its claims expire, delays no other job, and is logged once."""
    await put(store, "bad", DAMAGED)
    await put(store, "good", tape.request(NOW))
    done: list[str] = []

    async def do(ref: str) -> None:
        await here.journal.hold(ref)
        done.append(ref)
        await store.append(ref, [], provider="tape", index=_nothing_due(await stored(store, ref)), known=1)

    claims = Claims(
        work="polls",
        store=store,
        clock=LOOP_CLOCK,
        hold=lambda: 10.0,
        concurrency=1,
        do=do,
        give_back=here.journal.give_back,
    )
    claims.start()
    await asyncio.sleep(100)
    await claims.aclose()

    assert ["good"] == done
    assert 1 == caplog.text.count("polls of job bad: it is skipped")


def _nothing_due(job: Stored) -> Index:
    return msgspec.structs.replace(job.index, poll_at=None, handle_at=None)


async def test_an_outage_in_the_middle_of_work_is_logged_once(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """One outage that fails the work of many jobs is logged in one line, which names the first of them."""
    for number in range(50):
        await put(store, f"job{number}", tape.request(NOW))

    async def do(ref: str) -> None:
        raise StoreError("the disk is full")

    claims = Claims(
        work="polls",
        store=store,
        clock=LOOP_CLOCK,
        hold=lambda: 10.0,
        concurrency=8,
        do=do,
        give_back=here.journal.give_back,
    )
    claims.start()
    await asyncio.sleep(25)
    await claims.aclose()

    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "polls: the store failed during a job, trying again: job job0: the disk is full" == line


async def test_a_bug_of_a_store_does_not_end_the_loop(store: MemoryStore, here: Process) -> None:
    """Claims go on after a user's own store has raised an unexpected exception."""
    await put(store, REF, tape.request(NOW))
    line, done = Line(store), asyncio.Event()

    async def buggy(name: str, side: str) -> None:
        if loop_time() < NOW + 5.0:
            raise ZeroDivisionError

    async def do(ref: str) -> None:
        done.set()

    line.on_call = buggy
    claims = Claims(
        work="polls",
        store=line,
        clock=LOOP_CLOCK,
        hold=lambda: 10.0,
        concurrency=8,
        do=do,
        give_back=here.journal.give_back,
    )
    claims.start()
    await asyncio.wait_for(done.wait(), 10.0)
    await claims.aclose()


async def test_handler_work_of_unknown_providers_is_left_to_others(store: MemoryStore) -> None:
    """A client without a job's provider does not claim its handlers, so another client can run them at once."""
    strange = start(store, provider=Tape(name="strange"))
    held = await strange.submit(REF, provider="strange")
    lacking = start(store)
    handlers = make(lacking)
    handlers.start()
    await strange.journal.append(held, [tape.answer(NOW, task_id=REF), TEXT])
    await asyncio.sleep(10)
    await handlers.aclose(drain=0.0)

    assert (REF,) == await store.claim("handlers", now=loop_time(), until=loop_time() + 1, limit=9)


def make(process: Process, handler: StageHandler | None = None) -> Handlers:
    """Return the handlers of *process*, with one for TEXT."""

    async def nothing(event: StageEvent) -> None:
        """Do nothing."""

    handlers = Handlers(
        journal=process.journal,
        timeout=60.0,
        concurrency=4,
        job=process.handle,
    )
    handlers.on(Stage.TEXT)(handler or nothing)
    process.journal.on_work = handlers.claims.wake
    return handlers


# --- handlers -----------------------------------------------------------------------------------------------


class NoWordsError(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        """Raise another error, which must not replace the first; OpenTelemetry asks for the text as well."""
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NoWordsError(), "NoWordsError"),
        (ValueError("\ud800"), "ValueError: \N{REPLACEMENT CHARACTER}"),
        (
            ValueError("a\nCRITICAL: hacked\x1b[31m"),
            "ValueError: a\N{REPLACEMENT CHARACTER}CRITICAL: hacked\N{REPLACEMENT CHARACTER}[31m",
        ),
        (ValueError("x" * 9_999), "ValueError: x"),
    ],
    ids=["no words", "no text", "another line", "no end"],
)
async def test_a_handler_error_without_usable_text_is_counted(
    here: Process, caplog: pytest.LogCaptureFixture, error: Exception, says: str
) -> None:
    """A handler whose error has no text, or too much, is retried with pauses and given up in the end."""
    caplog.set_level(logging.CRITICAL, "audioext.handlers")  # an error without text cannot be logged either
    calls: list[float] = []

    async def fail(event: StageEvent) -> None:
        calls.append(loop_time())
        raise error

    handlers = make(here, fail)
    handlers.start()
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW, task_id=REF), TEXT])
    await asyncio.sleep(3_600)
    await handlers.aclose(drain=0.0)

    assert MAX_ATTEMPTS == len(calls)
    (fault,) = held.record.handler_faults
    assert fault.startswith(f"text: {says}")
    assert LONGEST_ERROR + 10 > len(fault)


async def test_a_clock_that_went_back_delays_no_retry(store: MemoryStore) -> None:
    """A handler that failed while the clock was an hour ahead is retried within a minute of the clock's reset."""
    steps = [3_600.0]
    process = start(store, clock=attrs.evolve(LOOP_CLOCK, now=lambda: loop_time() + steps[-1]))
    calls: list[float] = []

    async def fail(event: StageEvent) -> None:
        calls.append(loop_time())
        if len(calls) == 1:
            raise ValueError

    handlers = make(process, fail)
    handlers.start()
    held = await process.submit()
    await process.journal.append(held, [tape.answer(NOW, task_id=REF), TEXT])
    await asyncio.sleep(0.5)
    steps.append(0.0)
    await asyncio.sleep(FARTHEST_RETRY_SECONDS)
    await handlers.aclose(drain=0.0)

    assert 2 == len(calls)


# --- changes ------------------------------------------------------------------------------------------------


async def test_a_job_that_cannot_be_read_does_not_block_the_changes_of_others(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """While reading one job fails repeatedly, changes of another job still wake its waiters at once."""
    await store.open()
    bad, good = await here.submit("bad"), here.handle(await here.submit("good"))

    line = SelectiveLine(store, bad="bad")
    here.journal.store = line
    changes = Changes(journal=here.journal, on_change=lambda: None, on_resync=_nothing)
    changes.start()
    await asyncio.sleep(5)
    await there.receive(tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id=None)), "bad")
    await asyncio.sleep(5)
    wait = asyncio.create_task(good.wait(Stage.TEXT))
    await asyncio.sleep(0)
    before = loop_time()
    await there.receive(tape.webhook(NOW + 2, tape.shown(Stage.TEXT, task_id=None)), "good")
    await wait

    assert before == loop_time()
    line.bad = ""
    await asyncio.sleep(2)
    assert 2 == bad.count  # it was not forgotten
    await changes.aclose()
    await store.aclose()


async def _nothing() -> None:
    """Do nothing."""


class SelectiveLine(Line):
    """A line over which one job cannot be read."""

    def __init__(self, store: MemoryStore, *, bad: str) -> None:
        """Make reads of *bad* fail."""
        super().__init__(store)
        self.bad = bad

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Read, or fail for the bad job."""
        if ref == self.bad:
            raise StoreError("this page of the file is damaged")
        return await super().read(ref, after=after)


# --- unstored entries ---------------------------------------------------------------------------------------


async def test_a_flush_tries_every_entry_though_one_fails(here: Process) -> None:
    """A flush tries every unstored entry even if the first fails, and the one that failed is retried."""
    stored_refs: list[str] = []
    is_bad = True

    async def append(held: HeldJob, entries: Sequence[Entry]) -> None:
        if held.ref == "bad" and is_bad:
            raise StoreError("its row is damaged")
        stored_refs.append(held.ref)

    unstored = Unstored(append=append, clock=LOOP_CLOCK)
    for ref in ("bad", "one", "two"):
        unstored.add(await here.submit(ref), [tape.answer(NOW, task_id=ref)])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="damaged"):
        await unstored.flush()
    assert {"one", "two"} == set(stored_refs)

    await asyncio.sleep(200)  # by now it is tried every 30 s
    unstored.add(await here.submit("late"), [tape.answer(NOW, task_id="late")])
    await asyncio.sleep(FIRST_PAUSE_SECONDS)
    assert "late" in stored_refs

    is_bad = False
    await asyncio.sleep(LONGEST_PAUSE_SECONDS)
    assert "bad" in stored_refs
    await unstored.aclose()


async def test_a_flush_for_a_key_waits_for_that_keys_entries_only(here: Process) -> None:
    """A flush for a key waits only for entries of jobs with that key."""

    async def append(held: HeldJob, entries: Sequence[Entry]) -> None:
        raise StoreError("its row is damaged")

    unstored = Unstored(append=append, clock=LOOP_CLOCK)
    unstored.add(await here.submit("bad", key="mine"), [tape.answer(NOW, task_id="bad")])

    await unstored.flush("another")
    with pytest.raises(StoreError, match="damaged"):
        await unstored.flush("mine")
    await unstored.aclose()


# --- deliveries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_task", [True, False])
async def test_a_delivery_of_a_job_that_cannot_be_read_is_kept(
    store: MemoryStore, here: Process, *, names_task: bool
) -> None:
    """A webhook for an unreadable job is stored, so that a release that can read the job finds it."""
    await put(store, REF, LATER)

    await here.receive(tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id="task" if names_task else None)))

    assert 2 == (await stored(store)).count


# --- clocks -------------------------------------------------------------------------------------------------


async def test_work_scheduled_by_a_clock_ahead_is_done(store: MemoryStore, here: Process) -> None:
    """Work scheduled by a clock an hour ahead is done once the clock is set back, and work due soon at its time."""
    steps = [3_600.0]
    clock = attrs.evolve(LOOP_CLOCK, now=lambda: loop_time() + steps[-1])
    done: list[tuple[str, float]] = []

    async def do(ref: str) -> None:
        done.append((ref, loop_time() - NOW))
        await store.append(ref, [], provider="tape", index=_nothing_due(await stored(store, ref)), known=1)

    for ref, due_in in (("far", 3_630.0), ("soon", 30.0)):
        index = Index(ref=ref, provider="tape", account="", created_at=NOW, poll_at=NOW + due_in)
        await store.create(tape.request(NOW), index, limits=UNLIMITED, now=NOW)
    claims = Claims(
        work="polls",
        store=store,
        clock=clock,
        hold=lambda: 10.0,
        concurrency=1,
        do=do,
        give_back=here.journal.give_back,
        farthest=FARTHEST_SECONDS,
    )
    await store.claim("polls", now=clock.now(), until=0.0, limit=0)  # it looked while it was ahead
    claims.start()
    steps.append(0.0)
    await asyncio.sleep(60)
    await claims.aclose()

    assert [("far", 0.0), ("soon", 30.0)] == done
