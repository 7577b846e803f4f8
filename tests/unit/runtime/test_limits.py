"""Client-side limits: calls and submits go in order, never exceed what an API allows, and every wait ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from audioext.errors import RateLimitError, StoreError
from audioext.models.entries import POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.runtime.limits import LOOK_SECONDS, Account, Limiter
from audioext.stores import MemoryStore
from audioext.stores.base import Created, Existing
from tests.support import tape
from tests.support.loops import BEGIN_SECONDS, JumpingLoop
from tests.support.processes import LOOP_CLOCK, loop_time

NOW = BEGIN_SECONDS

# --- calls in a window --------------------------------------------------------------------------------------


@asynccontextmanager
async def closing(limiter: Limiter) -> AsyncGenerator[Limiter]:
    """Close *limiter* at the end."""
    try:
        yield limiter
    finally:
        limiter.close()


async def call(limiter: Limiter, times: list[float], *, seconds: float = 0.0, timeout: float = 100.0) -> None:  # noqa: ASYNC109 - as the poller bounds it
    """Make one call that takes *seconds*, and note when it began."""
    async with asyncio.timeout(timeout), limiter.permit():
        times.append(loop_time())
        await asyncio.sleep(seconds)


async def test_calls_of_a_window_are_limited() -> None:
    """Seven calls at three per ten seconds start as three, three and one."""
    times: list[float] = []
    async with closing(Limiter(3, 10.0, LOOP_CLOCK)) as limiter:
        await asyncio.gather(*(call(limiter, times) for _ in range(7)))

    assert [NOW] * 3 + [NOW + 10.0] * 3 + [NOW + 20.0] == times


async def test_a_call_counts_from_its_end() -> None:
    """A call counts until its window has passed since its end, however long it took."""
    times: list[float] = []
    async with closing(Limiter(1, 10.0, LOOP_CLOCK)) as limiter:
        await asyncio.gather(*(call(limiter, times, seconds=4.0) for _ in range(3)))

    assert [NOW, NOW + 14.0, NOW + 28.0] == times


async def test_without_a_limit_nobody_waits() -> None:
    """Without a limit no call waits."""
    times: list[float] = []
    async with closing(Limiter(None, 10.0, LOOP_CLOCK)) as limiter:
        await asyncio.gather(*(call(limiter, times, seconds=1.0) for _ in range(100)))

    assert [NOW] * 100 == times


async def test_calls_go_in_the_order_of_arrival() -> None:
    """A later caller never overtakes one that waits."""
    order: list[int] = []
    async with closing(Limiter(1, 1.0, LOOP_CLOCK)) as limiter:

        async def one(number: int) -> None:
            await asyncio.sleep(number / 8)
            async with limiter.permit():
                order.append(number)

        await asyncio.gather(*(one(number) for number in reversed(range(8))))

    assert list(range(8)) == order


async def test_a_permit_that_does_not_come_in_time_raises() -> None:
    """A permit that does not come in time raises `TimeoutError`, and the other waiters lose nothing."""
    times: list[float] = []
    async with closing(Limiter(1, 10.0, LOOP_CLOCK)) as limiter:
        await call(limiter, times)
        late = asyncio.create_task(call(limiter, times, timeout=5.0))
        patient = asyncio.create_task(call(limiter, times))
        with pytest.raises(TimeoutError):
            await late
        assert NOW + 5.0 == loop_time()
        await patient

    assert [NOW, NOW + 10.0] == times


async def test_a_cancelled_wait_leaves_its_turn_to_the_next() -> None:
    """Cancelling a waiter passes its permit on, even at the moment when it arrives."""
    times: list[float] = []
    async with closing(Limiter(1, 10.0, LOOP_CLOCK)) as limiter:
        await call(limiter, times)
        waits = [asyncio.create_task(call(limiter, times)) for _ in range(3)]
        await asyncio.sleep(1)
        waits[0].cancel()
        await asyncio.sleep(9)  # the second one's permit has just come
        waits[1].cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    assert [True, False] == [wait.cancelled() for wait in (waits[0], waits[2])]
    assert [NOW, NOW + 10.0] == times[:2]


async def test_a_call_that_fails_counts_as_one() -> None:
    """A call that fails counts like any other, since it was sent."""
    times: list[float] = []
    async with closing(Limiter(1, 10.0, LOOP_CLOCK)) as limiter:
        with pytest.raises(ZeroDivisionError):
            async with limiter.permit():
                raise ZeroDivisionError
        await call(limiter, times)

    assert [NOW + 10.0] == times


@given(
    calls=st.integers(1, 4),
    per=st.floats(1.0, 10.0),
    comings=st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 5.0), st.floats(0.1, 30.0)), max_size=12),
)
def test_no_window_holds_more_calls_than_allowed(
    calls: int, per: float, comings: list[tuple[float, float, float]]
) -> None:
    """No window ever holds more running or ended calls than allowed, whenever callers come, give up or take long."""
    spans: list[tuple[float, float]] = []

    async def one(limiter: Limiter, come: float, take: float, patience: float) -> None:
        await asyncio.sleep(come)
        try:
            async with asyncio.timeout(patience) as limit, limiter.permit():
                limit.reschedule(None)
                began = loop_time()
                await asyncio.sleep(take)
                spans.append((began, loop_time()))
        except TimeoutError:
            assert loop_time() - NOW >= come + patience - 1e-6

    async def all_of_them() -> None:
        async with closing(Limiter(calls, per, LOOP_CLOCK)) as limiter:
            await asyncio.gather(*(one(limiter, *coming) for coming in comings))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(all_of_them())
    for moment, _ in spans:
        assert calls >= sum(began <= moment < ended + per - 1e-6 for began, ended in spans)


# --- submits of an account ----------------------------------------------------------------------------------


@define(eq=False)
class Submits:
    """The submits of one account that wait for their turn in this process."""

    account: Account
    times: dict[str, float] = field(factory=dict)
    order: list[str] = field(factory=list)
    abandoned: list[str] = field(factory=list)
    tries: int = 0

    async def create(self, ref: str, *, timeout: float = 100.0, key: str | None = None) -> Created | Existing:  # noqa: ASYNC109 - as above
        """Store a job as soon as there is room, and note the time."""

        def make() -> tuple[Entry, Index]:
            self.tries += 1
            now = loop_time()
            index = Index(
                ref=ref, provider="tape", account="tape", created_at=now, key=key, occupies_until=now + POST_SECONDS
            )
            return tape.request(now), index

        created = await self.account.create(make, lambda: self.abandoned.append(ref), provider="tape", timeout=timeout)
        self.times[ref] = loop_time()
        self.order.append(ref)
        return created

    async def end(self, ref: str) -> None:
        """Answer and end a job now."""
        index = Index(
            ref=ref, provider="tape", account="tape", created_at=self.times[ref], is_open=False, answered_at=loop_time()
        )
        await self.account.store.append(ref, [], provider="tape", index=index, known=1)


Make = Callable[..., Submits]


@pytest.fixture
def account(store: MemoryStore) -> Make:
    """Return a function that makes an account with the given limits; accounts of one name share the store."""
    return lambda **limits: Submits(Account(Limits(**limits), store, LOOP_CLOCK))


async def test_an_account_without_limits_is_never_full(account: Make) -> None:
    """A hundred jobs of an account without limits are stored at once."""
    submits = account(submits=None, parallel=None)
    await asyncio.gather(*(submits.create(f"{number}") for number in range(100)))

    assert ({NOW}, 100) == (set(submits.times.values()), submits.tries)


async def test_submits_wait_until_the_window_has_room(account: Make) -> None:
    """A submit counts until its window has passed since its answer."""
    submits = account(submits=2, per=10.0)
    for ref in ("a", "b"):
        await submits.create(ref)
        await submits.end(ref)
    await submits.create("c")

    assert {"a": NOW, "b": NOW, "c": NOW + 10.0} == submits.times


async def test_submits_go_in_the_order_in_which_they_came(account: Make) -> None:
    """Submits go in the order in which they came."""
    submits = account(submits=1, per=1.0)
    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(submits.create(f"{number}")))
        await asyncio.sleep(0)

    async def answer() -> None:
        done: set[str] = set()
        while len(done) < 5:
            for ref in set(submits.order) - done:
                await submits.end(ref)
                done.add(ref)
            await asyncio.sleep(0.125)

    await asyncio.gather(answer(), *tasks)
    assert [f"{number}" for number in range(5)] == submits.order


async def test_a_queue_of_submits_is_logged_now_and_then(account: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A large batch says that it waits for the account's limits, in one line each half minute."""
    caplog.set_level("INFO", "audioext.submit")
    submits = account(submits=1, per=10.0)

    async def go(ref: str) -> None:
        await submits.create(ref)
        await submits.end(ref)

    await asyncio.gather(*(go(f"{number}") for number in range(7)))

    first, *others = [each.getMessage() for each in caplog.records]
    assert "submits to tape that wait for their turn: 6; the account takes 1 submit in 10 s" == first
    assert 1 <= len(others) <= 2


async def test_a_new_submit_does_not_overtake_a_waiting_one(account: Make) -> None:
    """A submit that arrives when the turn passes on goes to the end of the queue."""
    submits = account(submits=None, parallel=1)
    await submits.create("a")

    async def go_twice() -> None:
        await submits.create("b")
        await submits.end("b")
        await submits.create("d")

    async def go_once() -> None:
        await submits.create("c")
        await submits.end("c")

    waiting = [asyncio.create_task(go_twice()), asyncio.create_task(go_once())]
    await asyncio.sleep(0)
    await submits.end("a")
    await asyncio.gather(*waiting)

    assert ["a", "b", "c", "d"] == submits.order


async def test_the_end_of_a_job_makes_room_at_once(account: Make) -> None:
    """When a job's end is known here, the next submit goes at once."""
    submits = account(submits=None, parallel=1)
    await submits.create("a")
    waiting = asyncio.create_task(submits.create("b"))
    await asyncio.sleep(0.25)
    await submits.end("a")
    submits.account.freed.set()
    await waiting

    assert NOW + 0.25 == submits.times["b"]


async def test_another_processes_end_is_seen_within_a_second(account: Make) -> None:
    """Room that another process made is found within a second."""
    mine, other = account(submits=None, parallel=1), account(submits=None, parallel=1)
    await other.create("a")
    waiting = asyncio.create_task(mine.create("b"))
    await asyncio.sleep(5.5)
    await other.end("a")
    await waiting

    assert NOW + 5.5 < mine.times["b"] <= NOW + 5.5 + LOOK_SECONDS


async def test_two_processes_share_the_limits(account: Make) -> None:
    """Two processes share the limits: of six submits at two in ten seconds, two go at a time."""
    pair = [account(submits=2, per=10.0) for _ in range(2)]

    async def submit(number: int) -> None:
        submits = pair[number % 2]
        await submits.create(f"{number}")
        await submits.end(f"{number}")

    await asyncio.gather(*(submit(number) for number in range(6)))

    times = sorted(at for submits in pair for at in submits.times.values())
    assert all(later - earlier >= 10.0 for earlier, later in zip(times, times[2:], strict=False))
    assert times[-1] <= NOW + 20.0 + 2 * LOOK_SECONDS


async def test_a_turn_that_does_not_come_stores_nothing(store: MemoryStore, account: Make) -> None:
    """Submits whose turn does not come in time raise `RateLimitError`, and store nothing."""
    submits = account(submits=None, parallel=1)
    await submits.create("a")
    waits = [asyncio.create_task(submits.create(ref, timeout=5.0)) for ref in ("b", "c")]
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert [RateLimitError, RateLimitError] == [type(result) for result in results]
    assert "no permit within 5 s (permit_timeout): the account takes 1 job at a time" in str(results[0])
    assert (NOW + 5.0, ["a"], []) == (loop_time(), [item.index.ref async for item in store.jobs()], submits.abandoned)


async def test_a_cancelled_submit_leaves_its_turn_to_the_next(account: Make) -> None:
    """A cancelled submit passes its turn on, whether it was first in the queue or not."""
    submits = account(submits=None, parallel=1)
    await submits.create("a")
    waits = [asyncio.create_task(submits.create(ref)) for ref in ("b", "c", "d")]
    await asyncio.sleep(0.5)
    waits[0].cancel()
    waits[1].cancel()
    await submits.end("a")
    await waits[2]

    assert (["a", "d"], []) == (submits.order, submits.abandoned)


async def test_a_key_that_is_taken_ends_the_wait(account: Make) -> None:
    """A submit whose key got a job meanwhile returns that job without waiting for room."""
    submits = account(submits=None, parallel=1)
    await submits.create("a", key="mine")

    assert Existing("a") == await submits.create("b", key="mine")


async def test_a_store_that_fails_leaves_the_turn_to_the_next(store: MemoryStore, account: Make) -> None:
    """A `StoreError` is raised to its own submit, whose job is abandoned, and the next one takes the turn."""
    submits = account(submits=None, parallel=5)
    store.fail("away")
    with pytest.raises(StoreError, match="away"):
        await submits.create("a")
    store.fail(None)
    await submits.create("b")

    assert (["b"], ["a"]) == (submits.order, submits.abandoned)
