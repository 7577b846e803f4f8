"""Entries of a job mean the same in any order and with any interruption.

The entries of one task reach two processes on one store in every order that Hypothesis chooses: repeated, late, at the
same time, over lines that fail, and with processes that die between any two steps. Meanwhile waits go on, handlers
run, and other processes claim due work.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from audioext.errors import StoreError
from audioext.models.entries import UNREADABLE, Entry, make_entry
from audioext.models.record import Record, Verdict
from audioext.models.results import Stage
from audioext.runtime.jobs import ClientClosedError, Job, JobError, JobExpiredError, JobFailedError, StageTimeoutError
from audioext.state import schedule
from audioext.state.reading import Handled
from audioext.state.tracks import stage_reached
from audioext.stores import MemoryStore
from tests.support import tape
from tests.support.lines import Watcher, die_at, fail_at, let_pass, slow_down
from tests.support.loops import BEGIN_SECONDS, JumpingLoop
from tests.support.processes import EXPIRE_SECONDS, Process, loop_time, start, stored, truth
from tests.support.tape import REF, folded

T = TypeVar("T")

HOLD_SECONDS = 30.0
"""How long a claim lasts here."""
LATE_SECONDS = 0.25
"""How much later another process sees the same thing."""
STEPS_TO_SETTLE = 60
"""Turns of the loop in which every woken task runs to its next wait; nothing here waits for I/O."""
LONG_SECONDS = 1e7
AWAITED = (Stage.TEXT, Stage.FIRST, Stage.COMPLETE)

HALF = (tape.track("one"), tape.track("two", audio=False))
WHOLE = (tape.track("one"), tape.track("two"))
EARLY = tuple(tape.track(name, audio=False) for name in ("one", "two"))
NO = tape.failed(code="501", message="no")
PLAIN = {
    "answer": tape.answer(1.0, track_ids=("two", "one"), eta=60.0),
    "text": tape.webhook(2.0, tape.shown(Stage.TEXT, *EARLY)),
    "text without a task": tape.webhook(2.2, tape.shown(Stage.TEXT, *EARLY, task_id=None)),
    "text by poll": tape.status(2.5, tape.shown(Stage.TEXT, *EARLY)),
    "unreadable": make_entry("webhook", 2.7, body=b"<html>", note=f"{UNREADABLE}: no JSON"),
    "first": tape.webhook(3.0, tape.shown(Stage.FIRST, *HALF)),
    "busy": tape.busy(3.2),
    "failed": tape.webhook(3.7, NO),
    "failed by poll": tape.status(3.8, NO),
    "expired": make_entry("expired", 3.9),
    "complete": tape.webhook(4.0, tape.shown(Stage.COMPLETE, *WHOLE)),
    "complete by poll": tape.status(4.5, tape.shown(Stage.COMPLETE, *WHOLE)),
}
FACTS = {name: msgspec.structs.replace(entry, at=BEGIN_SECONDS + entry.at) for name, entry in PLAIN.items()}
"""Everything that can be seen, in the order of a plain run."""
ORDER = {topic: place for place, topic in enumerate(("text", "first", "complete"))}

which = st.integers(0, 1)
names = st.sampled_from(sorted(FACTS))
late = st.sampled_from([0.0, 0.0, LATE_SECONDS])
turns = st.lists(st.integers(0, 4), max_size=8)
steps = st.integers(0, 7)


@define(eq=False)
class Waiting:
    """A wait for a stage."""

    stage: Stage
    task: asyncio.Task[object]


@define(eq=False)
class Running:
    """One process, its handle of the job if it has one, and its waits."""

    process: Process
    job: Job | None = None
    waits: list[Waiting] = field(factory=list)

    async def look(self) -> None:
        """Read what another process did, like a client that follows the changes."""
        self.job = await self.process.job(wait_timeout=LONG_SECONDS)

    async def see(self, name: str, late: float) -> None:
        """Append one entry, like the inbox, the poller or the submit; an answer always has the same time."""
        entry = msgspec.structs.replace(FACTS[name], at=FACTS[name].at + late)
        if entry.kind == "webhook":
            await self.process.receive(entry)
        elif entry.kind == "answer":
            await self.process.journal.append_or_queue(await self.process.hold(), [FACTS[name]])
        else:
            await self.process.journal.append(await self.process.hold(), [entry])


class Interleavings(RuleBasedStateMachine):
    """Two processes share a store and see the entries of one task, each in its own order."""

    def __init__(self) -> None:
        """Begin with a job that was just stored and whose POST is under way."""
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=JumpingLoop)
        self.store = MemoryStore()
        self.known: list[str] = []
        self.sent: set[str] = set()
        self.told: list[str] = []
        self.is_disturbed = False
        self.dead: list[Running | asyncio.Task[None]] = []  # held to the end, as nothing frees a dead process
        self.pair = [self.begin(), self.begin()]
        self.run(self.pair[0].process.submit(grace=LONG_SECONDS))

    def begin(self) -> Running:
        """Start a process that knows nothing."""
        return Running(start(self.store))

    def run(self, work: Awaitable[T]) -> T:
        """Run *work*, then let every woken task run."""

        async def settled() -> T:
            result = await work
            await settle()
            return result

        return self.runner.run(settled())

    def peek(self, question: Coroutine[Any, Any, T]) -> T:
        """Ask the store something, and let no other task run."""
        return self.runner.run(question)

    @property
    def record(self) -> Record:
        """The record that a fresh reader folds from the store."""
        return self.peek(truth(self.store))

    def expected(self, stage: Stage) -> str:
        """Return the name of what a wait for *stage* would end with now, or "" if it would go on."""
        record = self.record
        if stage_reached(record, stage) is not None:
            return "StageEvent"
        return {Verdict.FAILED: "JobFailedError", Verdict.EXPIRED: "JobExpiredError"}.get(record.verdict, "")

    # --- what one process does ------------------------------------------------------------------------------

    async def tell(self, running: Running, *, is_good: bool) -> None:
        """Claim handlers' work, and tell one topic, as `Handlers` does."""
        process, now = running.process, loop_time()
        for ref in await process.line.claim("handlers", now=now, until=now + HOLD_SECONDS, limit=1):
            held = await process.hold(ref)
            due = schedule.handle_at(held.record, now)
            entries: list[Entry] = []
            if due is not None and due <= now:
                topic = held.record.unhandled[0]
                self.told.append(topic)
                failures = sum(run.failures for run in held.record.runs.values()) + 1
                word = Handled(topic) if is_good else Handled(topic, "bot", failures, "no", is_over=False)
                entries = [make_entry("handled", loop_time(), body=msgspec.json.encode(word))]
            await process.journal.append(held, entries, release=True)

    async def poll(self, running: Running) -> None:
        """Claim a poll and update its index, as the poller does after a call that brought no news."""
        process, now = running.process, loop_time()
        for ref in await process.line.claim("polls", now=now, until=now + HOLD_SECONDS, limit=1):
            held = await process.hold(ref)
            held.polled_at = now
            await process.journal.append(held)

    def act(self, running: Running, name: str, late: float) -> Coroutine[Any, Any, None]:
        """Return the work called *name*: append a fact, or something else that a process does."""
        acts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "look": running.look,
            "tell": lambda: self.tell(running, is_good=True),
            "fail to tell": lambda: self.tell(running, is_good=False),
            "poll": lambda: self.poll(running),
        }
        if name in acts:
            return acts[name]()
        self.sent.add(name)
        return running.see(name, late)

    acts = st.one_of(names, names, st.sampled_from(["look", "tell", "fail to tell", "poll"]))

    # --- events ---------------------------------------------------------------------------------------------

    @initialize(facts=st.sets(names, min_size=1))
    def decide(self, facts: set[str]) -> None:
        """Choose the facts that exist of this task."""
        self.known = [name for name in FACTS if name in facts]

    def chosen(self, name: str) -> str:
        """Return *name*, or one of this task's facts if it has no such fact."""
        return name if name in self.known or name not in FACTS else self.known[hash(name) % len(self.known)]

    @rule(which=which, name=acts, late=late)
    def happen(self, which: int, name: str, late: float) -> None:
        """One thing happens in one process, undisturbed."""
        self.run(self.act(self.pair[which], self.chosen(name), late))

    @rule(work=st.lists(st.tuples(which, acts, late), min_size=2, max_size=5), turns=st.tuples(turns, turns))
    def happen_at_once(self, work: list[tuple[int, str, float]], turns: tuple[list[int], list[int]]) -> None:
        """Several things happen at the same time, with their steps interleaved."""
        for running, pauses in zip(self.pair, turns, strict=True):
            running.process.line.on_call = slow_down(pauses)

        async def together() -> None:
            await asyncio.gather(*(self.act(self.pair[n], self.chosen(name), late) for n, name, late in work))

        self.run(together())
        for running in self.pair:
            running.process.line.on_call = let_pass

    @rule(which=which, name=acts, late=late, cuts=st.sets(steps, min_size=1, max_size=3))
    def fail(self, which: int, name: str, late: float, cuts: set[int]) -> None:
        """The store fails before or after it did what was asked, and the process lives on."""
        self.is_disturbed = True
        running = self.pair[which]
        self.interrupt(running, self.act(running, self.chosen(name), late), fail_at(*cuts))
        running.process.line.on_call = let_pass

    @rule(which=which, name=acts, late=late, step=steps)
    def die(self, which: int, name: str, late: float, step: int) -> None:
        """A process dies between any two steps, and another one takes its place."""
        self.is_disturbed = True
        running = self.pair[which]
        self.interrupt(running, self.act(running, self.chosen(name), late), die_at(step))
        running.process.line.on_call = die_at(0)
        self.dead.append(running)
        self.pair[which] = self.begin()

    def interrupt(self, running: Running, work: Coroutine[Any, Any, None], watcher: Watcher) -> None:
        """Run *work* over a line that *watcher* disturbs; it may fail, or never end."""
        running.process.line.on_call = watcher

        async def interrupted() -> None:
            task = asyncio.create_task(work)
            self.dead.append(task)
            await settle()
            if task.done() and task.exception() is not None:
                assert isinstance(task.exception(), StoreError)

        self.run(interrupted())

    @rule(which=which)
    def restart(self, which: int) -> None:
        """A process is closed, its waits end with `ClientClosedError`, and another process takes its place."""
        old = self.pair[which]
        going = [waiting.task for waiting in old.waits if not waiting.task.done()]

        async def close() -> None:
            old.process.journal.close_waits()
            await old.process.journal.aclose()

        self.run(close())
        assert [ClientClosedError] * len(going) == [type(task.exception()) for task in going]
        self.pair[which] = self.begin()

    @rule(seconds=st.sampled_from([0.5, schedule.RETRY_SECONDS, 3.0, HOLD_SECONDS]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.run(asyncio.sleep(seconds))

    # --- waits ----------------------------------------------------------------------------------------------

    @rule(which=which, stage=st.sampled_from(AWAITED))
    def wait(self, which: int, stage: Stage) -> None:
        """A wait begins that has no timeout."""
        running = self.pair[which]

        async def begin() -> asyncio.Task[object]:
            await running.look()
            assert running.job is not None
            task: asyncio.Task[object] = asyncio.create_task(running.job.wait(stage))
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # retrieved later
            return task

        running.waits.append(Waiting(stage, self.run(begin())))

    @rule(which=which, stage=st.sampled_from(AWAITED))
    def time_out(self, which: int, stage: Stage) -> None:
        """A wait without time left returns what is known, or times out."""

        async def wait() -> object:
            await self.pair[which].look()
            job = self.pair[which].job
            assert job is not None
            try:
                return await job.wait(stage, timeout=1e-9)
            except JobError as error:
                return error

        assert (self.expected(stage) or "StageTimeoutError") == type(self.run(wait())).__name__

    @precondition(lambda self: any(running.waits for running in self.pair))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A wait is cancelled, before or after its end."""
        running = data.draw(st.sampled_from([running for running in self.pair if running.waits]))
        task = running.waits.pop(data.draw(st.integers(0, len(running.waits) - 1))).task
        was_over = task.done()
        task.cancel()
        self.run(asyncio.sleep(0))
        assert (not was_over) == task.cancelled()

    # --- invariants -----------------------------------------------------------------------------------------

    @invariant()
    def the_record_is_that_of_the_set(self) -> None:
        """A fresh reader and every process that has all entries fold the same record, in any order."""
        held = self.peek(stored(self.store))
        record = folded(*sorted(held.entries, key=lambda entry: entry.id))
        assert record == self.record
        for running in self.pair:
            mine = running.process.journal.held.get(REF)
            if mine is not None and mine.count == held.count and not mine.posts:
                assert record == mine.record

    @invariant()
    def the_index_is_right_or_somebody_will_look(self) -> None:
        """If an index row is outdated, the job is due soon for whoever claims it."""

        async def due() -> float:
            times = [await self.store.next_due("polls"), await self.store.next_due("handlers")]
            return min(at for at in [*times, float("inf")] if at is not None) - loop_time()

        if not self.index_is_right():
            assert self.peek(due()) <= HOLD_SECONDS

    @invariant()
    def waits_end_as_they_may(self) -> None:
        """A wait ends only with its stage, or with an end that was seen of the job."""
        for waiting in (waiting for running in self.pair for waiting in running.waits if waiting.task.done()):
            error = waiting.task.exception()
            if error is None:
                assert stage_reached(self.record, waiting.stage) is not None
            else:
                seen = "failed" if isinstance(error, JobFailedError) else "expired"
                assert isinstance(error, (JobFailedError, JobExpiredError))
                assert not isinstance(error, StageTimeoutError) or isinstance(error, JobExpiredError)
                assert any(name.startswith(seen) for name in self.sent)

    @invariant()
    def topics_come_in_order(self) -> None:
        """Earlier stages are told first, and a failure before a late COMPLETE."""
        first = list(dict.fromkeys(self.told))
        places = [ORDER[topic] for topic in first if topic in ORDER]
        assert sorted(places) == places
        assert "complete" not in first[: first.index("failed")] if "failed" in first else True

    def index_is_right(self) -> bool:
        """Return whether the index row follows from the journal, apart from the times of its work."""
        index, record = self.peek(stored(self.store)).index, self.record
        right = schedule.index_of(record, now=float("inf"), poll_at=index.poll_at, expire_after=EXPIRE_SECONDS)
        if (right.handle_at is None) != (index.handle_at is None) or (index.poll_at is None) == right.is_open:
            return False
        return right == msgspec.structs.replace(index, handle_at=right.handle_at)

    # --- the end --------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """See the remaining facts, do the remaining work, and compare everything with the plain run."""
        try:
            for name in self.known:
                self.run(self.pair[0].see(name, 0.0))
            for running in self.pair:
                self.run(running.look())
            self.do_what_is_due()
            self.compare()
        finally:
            self.runner.close()

    def do_what_is_due(self) -> None:
        """Let time pass until only the next status call is due."""
        for turn in range(100):
            running = self.pair[turn % 2]
            self.run(self.tell(running, is_good=True))
            self.run(self.poll(running))
            if self.peek(self.store.next_due("handlers")) is None and self.index_is_right():
                return
            self.run(asyncio.sleep(1.0))
        raise AssertionError("the index never comes right, or handlers are never done")

    def compare(self) -> None:
        """Compare everything with what each fact means when it is seen once, in the order of the plain run."""
        entries = self.peek(stored(self.store)).entries
        facts = {entry.id: entry for entry in entries if entry.kind != "handled"}
        assert {FACTS[name].id for name in self.sent | set(self.known)} >= facts.keys() - {entries[0].id}
        assert {FACTS[name].id for name in self.known} <= facts.keys()
        record = folded(*sorted(entries, key=lambda entry: entry.at))
        assert record == self.record
        for running in (*self.pair, self.begin()):
            self.run(running.look())
            assert running.job is not None
            assert record == running.job.record
            for waiting in running.waits:
                assert bool(self.expected(waiting.stage)) == waiting.task.done()
        reached = {item.stage.name.lower() for item in record.reached} - {"submitted"}
        assert reached == set(self.told) - {"failed"}
        assert "failed" in self.told or record.verdict is not Verdict.FAILED
        assert self.is_disturbed or max(Counter(self.told).values(), default=1) == 1 or "bot" in str(record.runs)


async def settle() -> None:
    """Let every woken task run."""
    for _ in range(STEPS_TO_SETTLE):
        await asyncio.sleep(0)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(stateful_step_count=20)
