"""The loop that claims due work: its concurrency is bounded, it wakes when needed, and closing loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import attrs
import pytest
from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
from audioext.models.entries import Index
from audioext.runtime.claims import CANCEL_SECONDS, FAR_LOOK_SECONDS, IDLE_SECONDS, Claims
from audioext.stores import MemoryStore
from audioext.stores.base import Work
from tests.support import tape
from tests.support.lines import Line, Side, fail_at
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import LOOP_CLOCK, UNLIMITED, loop_time

NOW = BEGIN_SECONDS
HOLD_SECONDS = 30.0


@define(eq=False)
class Worker:
    """Does claimed work: it notes each job, takes *seconds*, and leaves nothing due."""

    store: MemoryStore
    seconds: float = 1.0
    done: list[tuple[str, float]] = field(factory=list)
    running: int = 0
    most: int = 0

    async def do(self, ref: str) -> None:
        """Do the work of one job."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
            self.done.append((ref, loop_time()))
            await finish(self.store, ref)
        finally:
            self.running -= 1

    @property
    def refs(self) -> list[str]:
        """The jobs that were done, in order."""
        return [ref for ref, _ in self.done]


async def due(store: MemoryStore, *refs: str, at: float = NOW, provider: str = "tape") -> None:
    """Create jobs whose handlers and polls are due *at* that time."""
    for ref in refs:
        index = Index(ref=ref, provider=provider, account="", created_at=NOW, handle_at=at, poll_at=at)
        await store.create(tape.request(NOW), index, limits=UNLIMITED, now=NOW)


async def finish(store: MemoryStore, ref: str) -> None:
    """Store an index in which nothing is due for a job, and release it."""
    index = Index(ref=ref, provider="tape", account="", created_at=NOW)
    await store.append(ref, [], provider="tape", index=index, known=1, release=True)


@pytest.fixture
def worker(store: MemoryStore) -> Worker:
    """Return a worker on this test's store."""
    return Worker(store)


def claims(
    line: Line, do: Callable[[str], Awaitable[None]], *, concurrency: int = 2, clock: Clock = LOOP_CLOCK
) -> Claims:
    """Return a loop that claims handlers' work over *line*."""

    async def give_back(ref: str, _: Work) -> None:
        await line.append(ref, [], provider="tape", release=True)

    return Claims(
        work="handlers",
        store=line,
        clock=clock,
        hold=lambda: HOLD_SECONDS,
        concurrency=concurrency,
        do=do,
        give_back=give_back,
    )


@pytest.fixture
def line(store: MemoryStore) -> Line:
    """Return the loop's connection to the store."""
    return Line(store)


async def test_due_work_is_done_with_bounded_concurrency(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Five due jobs are done two at a time, each once."""
    await due(store, *"abcde")
    loop = claims(line, worker.do)
    loop.start()
    loop.start()
    await asyncio.sleep(10)
    await loop.aclose()

    assert ([*"abcde"], 2) == (sorted(worker.refs), worker.most)
    assert NOW + 3.0 == max(at for _, at in worker.done)


async def test_work_is_done_when_it_is_due(store: MemoryStore, line: Line, worker: Worker) -> None:
    """The loop sleeps until the next due time, and needs nobody to wake it."""
    await due(store, "later", at=NOW + 0.25)
    await due(store, "soon", at=NOW + 0.125)
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(3)
    await loop.aclose()

    assert [("soon", NOW + 1.125), ("later", NOW + 1.25)] == worker.done


async def test_another_processes_work_is_seen_within_a_second(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Work that another process makes due is found within a second, although nobody wakes the loop."""
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(10.5)
    await due(store, "a")
    await asyncio.sleep(3)
    await loop.aclose()

    assert worker.done
    assert worker.done[0][1] <= NOW + 10.5 + IDLE_SECONDS + worker.seconds


async def test_while_nothing_is_due_the_loop_only_asks_when(store: MemoryStore, line: Line, worker: Worker) -> None:
    """While nothing is due, the loop asks `next_due` each second and calls `claim` only now and then."""
    await due(store, "a", at=NOW + 1_000.0)
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(60.5)
    calls = Counter(line.calls)
    await loop.aclose()

    assert 60 / FAR_LOOK_SECONDS + 1 >= calls["claim"]
    assert 60 <= calls["next_due"] <= 62


async def test_work_scheduled_by_a_clock_ahead_is_done_beside_other_work(
    store: MemoryStore, line: Line, worker: Worker
) -> None:
    """After a clock that was ahead is set back, work that it scheduled is done even if other work is due sooner."""
    ahead = 10_000.0
    loop = claims(line, worker.do, clock=attrs.evolve(LOOP_CLOCK, now=lambda: loop_time() + ahead))
    loop.farthest = 100.0
    loop.start()
    await asyncio.sleep(0.5)
    await due(store, "far", at=NOW + ahead + 50.0)
    await due(store, "near", at=NOW + 90.0)
    ahead = 0.0
    await asyncio.sleep(4)
    await loop.aclose()

    assert ["far"] == worker.refs


async def test_waking_makes_it_look_now(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Waking for work due now claims it at once; waking for work due after the next look does nothing."""
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(0.5)
    calls = len(line.calls)
    loop.wake(NOW + 50.0)
    await asyncio.sleep(0.125)
    assert calls == len(line.calls)
    await due(store, "a")
    loop.wake(NOW)
    await asyncio.sleep(2)
    await loop.aclose()

    assert [("a", NOW + 1.625)] == worker.done


async def test_waking_while_it_looks_is_not_missed(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Work that arrives while the loop asks for the next due time is claimed without delay."""
    loop = claims(line, worker.do)

    async def watch(name: str, side: Side) -> None:
        if (name, side) == ("next_due", "after"):
            line.on_call = nothing
            await due(store, "a")
            loop.wake()

    async def nothing(name: str, side: Side) -> None:
        """Let it pass."""

    line.on_call = watch
    loop.start()
    await asyncio.sleep(5)
    await loop.aclose()

    assert [("a", NOW + 1.0)] == worker.done


async def test_a_store_that_is_away_is_tried_again(
    store: MemoryStore, line: Line, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop resumes when the store is back, and logs the outage and its end."""
    await due(store, "a")
    store.fail("away")
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(10)
    store.fail(None)
    await asyncio.sleep(5)
    await loop.aclose()

    assert ["a"] == worker.refs
    assert ["handlers: the store is unavailable, trying again: away"] == [caplog.records[0].getMessage()]
    assert "recovered after" in caplog.text


@pytest.mark.parametrize("error", [StoreError("away"), ZeroDivisionError()])
async def test_work_that_raises_comes_again_when_its_claim_is_over(
    store: MemoryStore, line: Line, error: Exception
) -> None:
    """A bug, or a store that fails in the middle of the work, ends neither the loop nor the work."""
    await due(store, "a")
    tries: list[float] = []

    async def do(ref: str) -> None:
        tries.append(loop_time())
        if len(tries) == 1:
            raise error
        await finish(store, ref)

    loop = claims(line, do)
    loop.start()
    await asyncio.sleep(2 * HOLD_SECONDS)
    await loop.aclose()

    assert [NOW, NOW + HOLD_SECONDS] == tries


async def test_only_work_of_its_providers_is_claimed(store: MemoryStore, line: Line, worker: Worker) -> None:
    """A loop restricted to some providers claims no work of others."""
    await due(store, "mine")
    await due(store, "yours", provider="other")
    loop = claims(line, worker.do)
    loop.providers = ["tape"]
    loop.start()
    await asyncio.sleep(5)
    await loop.aclose()

    assert ["mine"] == worker.refs


# --- closing ------------------------------------------------------------------------------------------------


async def test_closing_an_idle_loop_is_harmless(line: Line, worker: Worker) -> None:
    """A loop that never had work closes at once."""
    await claims(line, worker.do).aclose(drain=10.0)
    assert NOW == loop_time()


async def test_draining_does_all_that_is_due(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Closing with time to drain does all due work first, and no longer than needed."""
    await due(store, *"abcde")
    loop = claims(line, worker.do)
    loop.start()
    await loop.aclose(drain=10.0)

    assert ([*"abcde"], NOW + 3.0) == (sorted(worker.refs), loop_time())


async def test_a_claim_in_flight_counts_as_running(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Work whose claim is still being answered when closing begins is done as well."""
    await due(store, "a")

    async def watch(name: str, side: Side) -> None:
        if side == "after":
            await asyncio.sleep(2.0)

    line.on_call = watch
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(0.5)
    await loop.aclose(drain=10.0)

    assert ["a"] == worker.refs


async def test_draining_finishes_work_that_became_due_meanwhile(store: MemoryStore, line: Line) -> None:
    """A job whose next work is due right after the last is finished while draining, however slow the store."""
    await due(store, "a")
    times: list[float] = []

    async def do(ref: str) -> None:
        await asyncio.sleep(1.0)
        times.append(loop_time())
        if len(times) < 3:
            index = Index(ref=ref, provider="tape", account="", created_at=NOW, handle_at=loop_time())
            await store.append(ref, [], provider="tape", index=index, known=1, release=True)
        else:
            await finish(store, ref)

    async def watch(name: str, side: Side) -> None:
        if (name, side) == ("claim", "after"):
            await asyncio.sleep(2.0)

    line.on_call = watch
    loop = claims(line, do)
    loop.start()
    await asyncio.sleep(2.5)
    await loop.aclose(drain=30.0)

    assert 3 == len(times)


async def test_draining_has_an_end(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Work that exceeds the drain time is cancelled, and its claim is released, so that it is due at once."""
    await due(store, "slow")
    worker.seconds = 60.0
    loop = claims(line, worker.do)
    loop.start()
    await loop.aclose(drain=5.0)

    assert ([], NOW + 5.0) == (worker.refs, loop_time())
    assert NOW == await store.next_due("handlers")


async def test_without_time_to_drain_work_is_given_back(store: MemoryStore, line: Line, worker: Worker) -> None:
    """Cancelled work loses its claim, so that another process can resume it at once."""
    await due(store, "a")
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(0.5)
    assert NOW + HOLD_SECONDS == await store.next_due("handlers")
    await loop.aclose()

    assert ([], NOW) == (worker.refs, await store.next_due("handlers"))


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_claim_that_is_on_its_way_back_is_given_back(
    store: MemoryStore, line: Line, worker: Worker, *, is_away: bool
) -> None:
    """A claim that returns while the loop closes is released, unless the store is away."""
    await due(store, "a")

    async def watch(name: str, side: Side) -> None:
        if (name, side) == ("claim", "after"):
            await asyncio.sleep(1.0)
            store.fail("away" if is_away else None)
            if is_away:
                raise StoreError("away")

    line.on_call = watch
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(0.5)
    await loop.aclose()
    store.fail(None)

    assert ([], NOW + 1.0) == (worker.refs, loop_time())
    assert (NOW + HOLD_SECONDS if is_away else NOW) == await store.next_due("handlers")


async def test_draining_lets_what_runs_finish_while_the_store_is_away(
    store: MemoryStore, line: Line, worker: Worker
) -> None:
    """Draining lets running work finish even if the store cannot be asked for more."""
    await due(store, "a")
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(0.5)
    line.on_call = fail_at(*range(100), calls=["claim"])
    await loop.aclose(drain=10.0)

    assert [("a", NOW + 1.0)] == worker.done


async def test_draining_ends_at_once_where_the_store_is_away_and_nothing_runs(
    store: MemoryStore, line: Line, worker: Worker
) -> None:
    """Draining ends at once if the store is away and no work is running."""
    store.fail("away")
    loop = claims(line, worker.do)
    loop.start()
    await asyncio.sleep(0.5)
    await loop.aclose(drain=10.0)

    assert NOW + 0.5 == loop_time()


async def test_work_that_cannot_be_cancelled_is_left_alone(
    store: MemoryStore, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing is bounded even if work ignores its cancellation, and logs what it left behind."""
    await due(store, "a")
    stop = asyncio.Event()

    async def stubborn(ref: str) -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    loop = claims(line, stubborn)
    loop.start()
    await asyncio.sleep(0.5)
    await loop.aclose(drain=1.0)

    assert NOW + 1.5 + CANCEL_SECONDS == loop_time()
    assert "audioext handlers of a does not end when it is cancelled" in caplog.text
    stop.set()
