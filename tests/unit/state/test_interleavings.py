"""What happens to a job, in any order and with any interruption, gives the record of the plain run.

The events of one task, each with a time of its own, go through the dispatcher in every order that Hypothesis
thinks of, with repetitions, restarts, a second process on the same store, and waits that time out, are cancelled
or last; handlers are told in between, and crash in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define, frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from audioext.clock import Clock, mint_id
from audioext.errors import ClientClosedError, JobFailedError, StageTimeoutError
from audioext.models.events import Event, Failed, Progress, Submitted
from audioext.models.record import Record, Seen, Verdict
from audioext.models.requests import Extend
from audioext.models.results import FailureReason, Stage, Track
from audioext.runtime.jobs import Desk, Job
from audioext.runtime.journal import Dispatcher
from audioext.runtime.waiters import Registry
from audioext.state import stages
from audioext.stores import MemoryStore, open_store
from audioext.stores.base import Delivery, Store

T = TypeVar("T")

REF = "r" * 24
NOW = 100.0
LEASE_SECONDS = 5.0
AWAITED = (Stage.TEXT, Stage.FIRST, Stage.COMPLETE)
STEPS_TO_SETTLE = 20
"""Turns of the loop after which whoever was woken has had his say; nothing here waits for I/O."""


def take(name: str, *, audio: bool) -> Track:
    """Return one take, playable or still streaming."""
    url = f"http://files.test/{name}"
    return Track(id=name, stream_url=f"{url}/stream", audio_url=f"{url}.mp3" if audio else None, title="Rain")


def shown(stage: Stage, *tracks: Track) -> Progress:
    """Return what the task shows at a stage."""
    return Progress(task_id="t", claimed_stage=stage, tracks=tracks)


@frozen
class Fact:
    """One thing that is seen of the task, once or more often, always with the same time; no event is a complaint."""

    at: float
    seen: Seen
    event: Event | None = None

    def join(self, record: Record) -> Record:
        """Return *record* with this fact, as the state rules have it."""
        if self.event is None:
            return stages.complain(record, "busy", at=self.at)
        return stages.advance(record, self.event, seen=self.seen, at=self.at)


EARLY = (take("one", audio=False), take("two", audio=False))
HALF = (take("one", audio=True), take("two", audio=False))
WHOLE = (take("one", audio=True), take("two", audio=True))
NO = Failed(task_id="t", reason=FailureReason.GENERATION, code="501", message="no")
FACTS = {
    "answer": Fact(1.0, "answer", Submitted(task_id="t", track_ids=("two", "one"), eta=60.0)),
    "text": Fact(2.0, "webhook", shown(Stage.TEXT, *EARLY)),
    "text by poll": Fact(2.5, "poll", shown(Stage.TEXT, *EARLY)),
    "first": Fact(3.0, "webhook", shown(Stage.FIRST, *HALF)),
    "busy": Fact(3.2, "poll"),
    "first by poll": Fact(3.5, "poll", shown(Stage.FIRST, *HALF)),
    "failed": Fact(3.7, "webhook", NO),
    "failed by poll": Fact(3.8, "poll", NO),
    "complete": Fact(4.0, "webhook", shown(Stage.COMPLETE, *WHOLE)),
    "complete by poll": Fact(4.5, "poll", shown(Stage.COMPLETE, *WHOLE)),
}
"""All that may be seen, in the order of the plain run."""


def new_record() -> Record:
    """Return a job of which nothing is known yet."""
    return Record(ref=REF, provider="kie", request=Extend(audio_id="source", model="V5"), created_at=0.0)


def plain(facts: set[str]) -> Record:
    """Return the record of the plain run: each fact once, in the order of their times."""
    record = new_record()
    for name, fact in FACTS.items():
        if name in facts:
            record = fact.join(record)
    return record


async def nothing(*_: object, **__: object) -> Any:
    """Stand in for what a job here never asks of its client."""


@define(eq=False)
class Wait:
    """Somebody who waits; `is_checked` says that its outcome was held against the record of that moment."""

    stage: Stage
    task: asyncio.Task[object]
    is_checked: bool = False


@define(eq=False)
class Process:
    """What one process holds: a registry, a dispatcher, a handle of the job, and those who wait for it."""

    store: Store
    registry: Registry
    dispatcher: Dispatcher
    job: Job
    waits: list[Wait]

    async def see(self, name: str, delivery: Delivery | None = None) -> None:
        """Let this process see a fact."""
        fact = FACTS[name]
        if fact.event is None:
            await self.dispatcher.update(REF, fact.join, asked=True)
        else:
            await self.dispatcher.apply(REF, [fact.event], seen=fact.seen, at=fact.at, delivery=delivery)

    async def catch_up(self) -> None:
        """Read what another process did, as a client does that follows the changes."""
        stored = await self.store.get(REF)
        assert stored is not None
        self.registry.publish(stored)


async def start(store: Store) -> Process:
    """Start a process on what the store holds."""
    clock = Clock(now=lambda: NOW, jitter=lambda: 0.5)
    registry = Registry()
    dispatcher = Dispatcher(store=store, registry=registry, providers={}, clock=clock, expire_after=1_000.0)
    desk = Desk(registry=registry, read=store.get, refresh=nothing, saver=nothing, clock=clock, wait_timeout=60.0)
    stored = await store.get(REF)
    assert stored is not None
    return Process(store, registry, dispatcher, desk.job(stored), [])


async def tell_all(store: Store) -> list[str]:
    """Tell handlers everything that they were not told of yet; return the topics in their order."""
    topics: list[str] = []
    while leases := await store.claim("outbox", now=NOW, lease=LEASE_SECONDS, limit=10):
        for lease in leases:
            topics.append(lease.topic)
            await store.settle(lease, due_at=None)
    return topics


async def told_by(commits: list[str]) -> list[str]:
    """Return what handlers are told where these facts are committed, and nothing else happens."""
    store = MemoryStore()
    await store.create(new_record(), due_at=NOW)
    process = await start(store)
    for name in commits:
        await process.see(name)
    return await tell_all(store)


def word(outcome: object) -> str:
    """Name the outcome of a wait."""
    return type(outcome).__name__


class Interleavings(RuleBasedStateMachine):
    """Two processes share a store and see one task, each in an order of its own."""

    def __init__(self) -> None:
        """Begin with a job that was just stored; its POST is under way."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = MemoryStore()
        self.known: list[str] = []
        self.seen: set[str] = set()
        self.commits: list[str] = []
        self.told: list[str] = []
        self.crashed = 0
        self.has_failed = False
        self.now = NOW
        self.run(self.store.create(new_record(), due_at=NOW))
        self.processes = [self.run(start(self.store)) for _ in range(2)]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work*, then let all who were woken have their say."""

        async def settled() -> T:
            result = await work
            for _ in range(STEPS_TO_SETTLE):
                await asyncio.sleep(0)
            return result

        return self.runner.run(settled())

    @property
    def record(self) -> Record:
        """What the store holds."""
        stored = self.run(self.store.get(REF))
        assert stored is not None
        return stored.record

    def see(self, which: int, name: str) -> None:
        """Let a process see a fact, and note whether it was news."""
        before = self.record
        self.run(self.processes[which].see(name))
        after = self.record
        self.seen.add(name)
        self.has_failed = self.has_failed or after.verdict is Verdict.FAILED
        if after != before:
            self.commits.append(name)

    def expected(self, stage: Stage) -> str:
        """Return how a wait for *stage* ends that does not go on."""
        if stages.stage_event(self.record, stage) is not None:
            return "StageEvent"
        return "JobFailedError" if self.record.verdict is Verdict.FAILED else ""

    @initialize(facts=st.sets(st.sampled_from(sorted(FACTS)), min_size=1))
    def decide(self, facts: set[str]) -> None:
        """Decide what there will be to see of this task."""
        self.known = [name for name in FACTS if name in facts]

    @rule(which=st.integers(0, 1), data=st.data())
    def happen(self, which: int, data: st.DataObject) -> None:
        """A fact is seen, for the first time or again."""
        self.see(which, data.draw(st.sampled_from(self.known)))

    @rule(which=st.integers(0, 1))
    def catch_up(self, which: int) -> None:
        """A process hears of what the other one did."""
        self.run(self.processes[which].catch_up())

    @rule(which=st.integers(0, 1), stage=st.sampled_from(AWAITED))
    def time_out(self, which: int, stage: Stage) -> None:
        """A wait that has no time left gives what there is, or times out."""

        async def wait() -> object:
            try:
                return await self.processes[which].job.wait(stage, timeout=0.0)
            except (StageTimeoutError, JobFailedError) as error:
                return error

        assert (self.expected(stage) or "StageTimeoutError") == word(self.run(wait()))

    @rule(which=st.integers(0, 1), stage=st.sampled_from(AWAITED))
    def wait(self, which: int, stage: Stage) -> None:
        """Somebody begins to wait, for as long as it takes."""

        async def begin() -> asyncio.Task[object]:
            return asyncio.create_task(self.processes[which].job.wait(stage))

        self.processes[which].waits.append(Wait(stage, self.run(begin())))

    @precondition(lambda self: any(process.waits for process in self.processes))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """One who waits is cancelled, in the middle of it or when it is over."""
        process = data.draw(st.sampled_from([process for process in self.processes if process.waits]))
        task = process.waits.pop(data.draw(st.integers(0, len(process.waits) - 1))).task
        over = task.done()
        task.cancel()
        self.run(nothing())
        assert (not over) == task.cancelled()

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        """A process ends and another one takes its place: those who wait are told so."""
        old = self.processes[which]
        going = [wait.task for wait in old.waits if not wait.task.done()]
        old.registry.close()
        self.run(nothing())
        assert ["ClientClosedError"] * len(going) == [word(task.exception()) for task in going]
        self.processes[which] = self.run(start(self.store))

    @rule()
    def tell(self) -> None:
        """A handler is told what its turn is."""
        for lease in self.run(self.store.claim("outbox", now=self.now, lease=LEASE_SECONDS, limit=1)):
            assert self.run(self.store.settle(lease, due_at=None))
            self.told.append(lease.topic)

    @rule()
    def tell_and_crash(self) -> None:
        """A process dies while its handler runs: the lease runs out, and the same topic has its turn again."""
        for lease in self.run(self.store.claim("outbox", now=self.now, lease=LEASE_SECONDS, limit=1)):
            self.crashed += 1
            self.now += LEASE_SECONDS + 1.0
            again = self.run(self.store.claim("outbox", now=self.now, lease=LEASE_SECONDS, limit=1))
            assert [lease.attempts + 1] == [other.attempts for other in again]
            assert not self.run(self.store.settle(lease, due_at=None))
            for other in again:
                assert self.run(self.store.settle(other, due_at=None))
                self.told.append(other.topic)

    @invariant()
    def is_as_in_the_plain_run(self) -> None:
        """At any time the record is what the facts seen so far give in the plain order."""
        assert plain(self.seen) == self.record
        is_open = [True] if self.record.verdict is Verdict.OPEN else [False]
        assert is_open == [value for value in (True, False) if self.holds(is_open=value)]

    def holds(self, *, is_open: bool) -> bool:
        """Say whether the store counts the job among the open ones, or among the others."""

        async def scan() -> bool:
            return bool([stored async for stored in self.store.scan(is_open=is_open)])

        return self.run(scan())

    @invariant()
    def waits_end_with_their_news(self) -> None:
        """A wait that has just ended has the outcome that the record had then; what comes later changes nothing."""
        for wait in (wait for process in self.processes for wait in process.waits):
            if wait.task.done() and not wait.is_checked:
                wait.is_checked = True
                assert self.expected(wait.stage) == word(wait.task.exception() or wait.task.result())

    @invariant()
    def nobody_is_told_twice(self) -> None:
        """No topic is done twice."""
        assert sorted(set(self.told)) == sorted(self.told)

    def teardown(self) -> None:
        """See what is left to see, tell what is left to tell, and compare it all with the plain run."""
        try:
            for name in self.known:
                self.see(0, name)
                self.waits_end_with_their_news()
            assert plain(set(self.known)) == self.record
            for process in self.processes:
                self.run(process.catch_up())
                assert [bool(self.expected(wait.stage)) for wait in process.waits] == [
                    wait.task.done() for wait in process.waits
                ]
            self.waits_end_with_their_news()
            self.told += self.run(tell_all(self.store))
            due = {item.stage.name.lower() for item in self.record.reached} - {"submitted"}
            assert sorted(due | ({"failed"} if self.has_failed else set())) == sorted(self.told)
            assert sorted(self.run(told_by(self.commits))) == sorted(self.told)
        finally:
            for process in self.processes:
                for wait in process.waits:
                    wait.task.cancel()
            self.run(nothing())
            self.runner.close()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(stateful_step_count=30, max_examples=max(100, settings().max_examples // 2))


# --- at the same time ---------------------------------------------------------------------------------------

TAKES = 30


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Return two connections to one engine; memory is its own connection."""
    memory = MemoryStore()
    connect: Callable[[], Store] = {
        "memory": lambda: memory,
        "sqlite": lambda: open_store(f"sqlite:///{tmp_path / 'jobs.db'}"),
    }[request.param]
    async with AsyncExitStack() as stack:
        found: list[Store] = []
        for _ in range(2):
            store = connect()
            await store.open()
            stack.push_async_callback(store.aclose)
            found.append(store)
        yield found[0], found[1]


def delivered(number: int) -> Delivery:
    """Return one delivery, to be journaled with its effect."""
    return Delivery(id=mint_id(NOW + number), ref=REF, provider="kie", received_at=NOW + number, verdict="applied")


async def test_facts_at_the_same_time_are_all_kept(stores: tuple[Store, Store]) -> None:
    """All facts twice at once, from two processes: the record is the plain one, and each topic is due once."""
    await stores[0].create(new_record(), due_at=NOW)
    processes = [await start(store) for store in stores]

    await asyncio.gather(*(process.see(name) for name in FACTS for process in processes for _ in range(2)))

    stored = await stores[0].get(REF)
    assert stored is not None
    assert plain(set(FACTS)) == stored.record
    topics = await tell_all(stores[0])
    assert sorted(set(topics)) == sorted(topics)
    assert {"text", "first", "complete"} == set(topics) - {"failed"}


async def test_takes_and_deliveries_at_the_same_time_are_all_kept(stores: tuple[Store, Store]) -> None:
    """Thirty takes at once, each in a delivery of its own: all are in the record, and all deliveries in the journal."""
    await stores[0].create(new_record(), due_at=NOW)
    processes = [await start(store) for store in stores]
    takes = [take(f"take-{number:02}", audio=True) for number in range(TAKES)]

    await asyncio.gather(
        *(
            processes[number % 2].dispatcher.apply(
                REF, [Progress(task_id="t", tracks=(shown_,))], seen="webhook", at=2.0, delivery=delivered(number)
            )
            for number, shown_ in enumerate(takes)
        )
    )

    stored = await stores[1].get(REF)
    assert stored is not None
    assert [track.id for track in takes] == sorted(track.id or "" for track in stored.record.tracks)
    journal = [delivery.id async for delivery in stores[1].deliveries(REF)]
    assert sorted(delivered(number).received_at for number in range(TAKES)) == sorted(
        [delivery.received_at async for delivery in stores[1].deliveries(REF)]
    )
    assert len(set(journal)) == TAKES
    assert ["text", "first"] == await tell_all(stores[1])


async def test_those_who_wait_in_both_processes_hear_of_it(stores: tuple[Store, Store]) -> None:
    """A wait in each process ends while one fact after another is committed by the other."""
    await stores[0].create(new_record(), due_at=NOW)
    processes = [await start(store) for store in stores]
    waits = [asyncio.create_task(process.job.wait(stage)) for process in processes for stage in AWAITED]

    for number, name in enumerate(("text", "answer", "first", "complete")):
        await processes[number % 2].see(name)
        await asyncio.gather(*(process.catch_up() for process in processes))

    assert [*AWAITED, *AWAITED] == [event.stage for event in await asyncio.gather(*waits)]


async def test_a_closed_registry_ends_every_wait(stores: tuple[Store, Store]) -> None:
    """Those who wait in a process that closes are told so; the other process's wait goes on to its event."""
    await stores[0].create(new_record(), due_at=NOW)
    closing, staying = [await start(store) for store in stores]
    ended, kept = (asyncio.create_task(process.job.wait(Stage.COMPLETE)) for process in (closing, staying))
    await asyncio.sleep(0)  # both begin

    closing.registry.close()
    with pytest.raises(ClientClosedError):
        await ended
    await staying.see("complete")

    assert Stage.COMPLETE is (await kept).stage
