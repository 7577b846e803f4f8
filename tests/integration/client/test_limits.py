"""Limits: never more than allowed in any window, over all who share a store, and nothing is held for ever."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from math import inf
from pathlib import Path

import attrs
import pytest
from attrs import define, frozen
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.clock import Clock
from audioext.models.record import Record
from audioext.runtime import limits
from audioext.runtime.limits import Account, Limiter
from audioext.sandbox import Sandbox
from audioext.stores import open_store
from audioext.stores.base import Done, Store

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]

FINE_SECONDS = 1e-9
COARSE_SECONDS = 0.015625
"""How finely the clock of an event loop ticks on Linux, and on Windows until Python 3.12."""
WINDOW_SECONDS = 0.51
PATIENT_SECONDS = 1e6
SOON_SECONDS = 5.0
START = 1_800_000_000.0


# --- calls in a window -----------------------------------------------------------------------------------------


class Skipper(selectors.DefaultSelector):
    """A selector that does not wait: its clock skips to the time when the wait would be over."""

    def __init__(self) -> None:
        """Begin at a time that is no round number."""
        super().__init__()
        self.now = 1_000.1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass."""
        assert timeout is not None, "nobody would ever be woken"
        self.now += max(timeout, 0.0)
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on such a clock, which ticks every *resolution* seconds and fires timers early by up to that."""

    def __init__(self, resolution: float) -> None:
        """Set the clock."""
        self._skipper = Skipper()
        self._resolution = resolution
        super().__init__(self._skipper)
        self._clock_resolution = resolution  # asyncio reads the system's own here

    def time(self) -> float:
        """Return the time of the last tick."""
        if self._resolution == FINE_SECONDS:
            return self._skipper.now
        return self._skipper.now // self._resolution * self._resolution


@frozen(kw_only=True)
class Caller:
    """Comes after a pause, waits so long for its permit unless it is cancelled before, and holds it for a while."""

    pause: float = 0.0
    patience: float = PATIENT_SECONDS
    cancelled_after: float | None = None
    call: float = 0.0


@define
class Call:
    """A call that was made."""

    number: int
    began: float
    ended: float = inf


async def make_calls(limiter: Limiter, callers: Sequence[Caller]) -> list[Call]:
    """Let all *callers* come, and return the calls in the order in which they began."""
    loop, calls = asyncio.get_running_loop(), list[Call]()

    async def make(number: int, caller: Caller) -> None:
        async with limiter.permit(timeout=caller.patience):
            calls.append(Call(number, loop.time()))
            mine = calls[-1]
            try:
                await asyncio.sleep(caller.call)
            finally:
                mine.ended = loop.time()

    tasks: list[asyncio.Task[None]] = []
    for number, caller in enumerate(callers):
        if caller.pause:
            await asyncio.sleep(caller.pause)
        tasks.append(asyncio.create_task(make(number, caller)))
        if caller.cancelled_after is not None:
            loop.call_later(caller.cancelled_after, tasks[-1].cancel)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, (TimeoutError, asyncio.CancelledError))
    return calls


def run_calls(limiter: Limiter, callers: Sequence[Caller], resolution: float = FINE_SECONDS) -> list[Call]:
    """Do the same on a loop where no time is spent waiting."""
    with asyncio.Runner(loop_factory=lambda: SkippingLoop(resolution)) as runner:
        return runner.run(make_calls(limiter, callers))


SHORT = st.sampled_from([0.0, 0.1, 0.25, 0.5, WINDOW_SECONDS, 1.0]) | st.floats(0.0, 2.0)
CALLERS = st.builds(
    Caller,
    pause=st.just(0.0) | SHORT,
    patience=st.just(PATIENT_SECONDS) | SHORT,
    cancelled_after=st.none() | SHORT,
    call=SHORT,
)


@given(
    callers=st.lists(CALLERS, max_size=16),
    allowed=st.integers(1, 4),
    resolution=st.sampled_from([FINE_SECONDS, COARSE_SECONDS]),
)
def test_no_window_ever_holds_more_calls_than_allowed(callers: list[Caller], allowed: int, resolution: float) -> None:
    """Whoever comes, gives up or is cancelled: a call counts until its window after its end; who waits is served."""
    calls = run_calls(Limiter(allowed, WINDOW_SECONDS), callers, resolution)

    for number, call in enumerate(calls):
        counting = [earlier for earlier in calls[: number + 1] if earlier.ended > call.began - WINDOW_SECONDS]
        assert allowed >= len(counting)
    numbers = [call.number for call in calls]
    assert sorted(numbers) == numbers
    patient = [
        number
        for number, caller in enumerate(callers)
        if caller.patience == PATIENT_SECONDS and caller.cancelled_after is None
    ]
    assert set(patient) <= set(numbers)


@pytest.mark.parametrize("resolution", [FINE_SECONDS, COARSE_SECONDS])
def test_a_timer_that_fires_early_stalls_nobody(resolution: float) -> None:
    """Where timers fire up to 15.6 ms early, all who wait are served all the same, two in each window."""
    calls = run_calls(Limiter(2, WINDOW_SECONDS), [Caller(patience=6.0)] * 6, resolution)

    assert [0, 1, 2, 3, 4, 5] == [call.number for call in calls]
    assert [0, 0, 1, 1, 2, 2] == [round((call.began - calls[0].began) / WINDOW_SECONDS) for call in calls]


def test_those_who_go_leave_their_turn_to_others() -> None:
    """Of five who wait, three are cancelled or give up; the fourth is served when the window allows it."""
    first, impatient, cancelled = Caller(), Caller(patience=0.1), Caller(cancelled_after=0.2)

    calls = run_calls(Limiter(1, WINDOW_SECONDS), [first, impatient, cancelled, cancelled, first])

    assert [0, 4] == [call.number for call in calls]
    assert pytest.approx(WINDOW_SECONDS) == calls[1].began - calls[0].began


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancelled_wait_for_a_permit_holds_nothing(steps: int) -> None:
    """Whenever a wait is cancelled, before its permit or just as it comes, the next caller gets it."""
    limiter = Limiter(1, 1e-6)
    wait: asyncio.Task[None]

    async def take() -> None:
        async with limiter.permit(timeout=SOON_SECONDS):
            pass

    async with limiter.permit(timeout=SOON_SECONDS):
        wait = asyncio.create_task(take())
        await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    wait.cancel()
    with suppress(asyncio.CancelledError):
        await wait

    async with asyncio.timeout(SOON_SECONDS):
        await take()
    limiter.close()


async def test_without_a_limit_nobody_waits() -> None:
    """A limiter of no limit lets everybody through at once."""
    limiter = Limiter(None, 1.0)

    async with AsyncExitStack() as calls:
        for _ in range(100):
            await calls.enter_async_context(limiter.permit(timeout=0.001))


# --- places of an account --------------------------------------------------------------------------------------


@define
class Time:
    """A clock that a test sets."""

    now: float = START

    def clock(self) -> Clock:
        """Return the clock that shows it."""
        return Clock(now=lambda: self.now)


MakeAccounts = Callable[[ax.Limits], Awaitable[tuple[Account, Account]]]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a place that somebody else gave back be seen at once."""
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.002)


@pytest.fixture
def time() -> Time:
    """Return the time that both accounts go by."""
    return Time()


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, stack: AsyncExitStack, tmp_path: Path) -> tuple[Store, Store]:
    """Return what two clients hold: one store in memory, or each its own on one file."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    memory = ax.MemoryStore()
    pair: tuple[Store, Store] = (memory, memory) if request.param == "memory" else (open_store(url), open_store(url))
    for store in pair:
        await store.open()
        stack.push_async_callback(store.aclose)
    return pair


@pytest.fixture
def accounts(stores: tuple[Store, Store], time: Time, stack: AsyncExitStack) -> MakeAccounts:
    """Return a function that makes one account as two clients see it."""

    async def make(allowed: ax.Limits) -> tuple[Account, Account]:
        one, two = (Account("suno", allowed, store, time.clock()) for store in stores)
        stack.push_async_callback(one.aclose)
        stack.push_async_callback(two.aclose)
        return one, two

    return make


async def is_free(account: Account, ref: str = "probe") -> bool:
    """Say whether a submit would get its places now; it gives them back."""
    try:
        await account.take(ref, timeout=0.05)
    except TimeoutError:
        return False
    finally:
        await account.aclose()
    account.finish(ref)
    account.sent(ref)
    await account.aclose()
    return True


def record_of(ref: str, now: float, **facts: object) -> Record:
    """Return a record of a job that was just made."""
    request = ax.Extend(audio_id="x", model="V5")
    return Record(ref=ref, provider="kie", request=request, created_at=now, **facts)  # type: ignore[arg-type]  # a test's own


async def test_twenty_in_a_window_are_counted_over_both_clients(accounts: MakeAccounts, time: Time) -> None:
    """Twenty submits of two clients fill the window of both; each counts until ten seconds after it was sent."""
    one, two = await accounts(ax.Limits(submits=20, per=10.0))
    for number in range(20):
        await (one, two)[number % 2].take(f"job-{number:02}", timeout=SOON_SECONDS)

    assert [False, False] == [await is_free(account) for account in (one, two)]
    for number in range(20):
        (one, two)[number % 2].sent(f"job-{number:02}")
    await asyncio.gather(one.aclose(), two.aclose())
    time.now += 9.99
    assert [False, False] == [await is_free(account) for account in (one, two)]
    time.now += 0.02
    assert await is_free(two)


async def test_those_who_wait_at_both_clients_get_no_more_than_the_window_allows(
    accounts: MakeAccounts, time: Time
) -> None:
    """Of fifty who come at once to two clients, three get a place in each window, until all had one."""
    one, two = await accounts(ax.Limits(submits=3, per=10.0))
    taken: list[float] = []

    async def submit(number: int) -> None:
        account = (one, two)[number % 2]
        await account.take(f"job-{number}", timeout=SOON_SECONDS)
        taken.append(time.now)
        account.sent(f"job-{number}")
        await account.aclose()
        if len(taken) % 3 == 0:
            time.now += 10.0

    await asyncio.gather(*(submit(number) for number in range(50)))

    assert {3} == {taken.count(moment) for moment in taken[:48]}
    assert 17 == len(set(taken))


async def test_a_finished_job_frees_its_place_at_once(
    accounts: MakeAccounts, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits in the same client is woken by the end of a job, without looking again."""
    monkeypatch.setattr(limits, "LOOK_SECONDS", 100.0)
    one, _ = await accounts(ax.Limits(parallel=1))
    await one.take("first", timeout=SOON_SECONDS)
    await one.keep("first", until=time.now + 86_400.0)
    wait = asyncio.create_task(one.take("second", timeout=SOON_SECONDS))
    await asyncio.sleep(0)  # it has begun
    assert {"first"} == one.open_here

    one.finish("first")
    await wait

    assert frozenset() == one.open_here


async def test_a_place_is_kept_as_long_as_the_job_is_open(
    accounts: MakeAccounts, stores: tuple[Store, Store], time: Time
) -> None:
    """An hour later an open job still holds its place, for both clients; when it ends, the other one gets it."""
    one, two = await accounts(ax.Limits(parallel=1))
    await one.take("first", timeout=SOON_SECONDS)
    await stores[0].create(record_of("first", time.now, grace=1e6))
    await one.keep("first", until=time.now + 86_400.0)
    time.now += 3_600.0

    assert [False, False] == [await is_free(account) for account in (one, two)]
    one.finish("first")
    await one.aclose()
    assert [True, True] == [await is_free(account) for account in (two, one)]


@pytest.mark.parametrize("verdict", [ax.Verdict.COMPLETE, ax.Verdict.FAILED, ax.Verdict.EXPIRED])
async def test_a_job_that_ended_without_its_process_frees_its_place(
    verdict: ax.Verdict, accounts: MakeAccounts, stores: tuple[Store, Store], time: Time
) -> None:
    """Its process died while it held the place, and another one saw the end: the place is free."""
    dead, alive = await accounts(ax.Limits(parallel=1))
    await dead.take("first", timeout=SOON_SECONDS)
    record = record_of("first", time.now, grace=1e6)
    await stores[0].create(record)
    await dead.keep("first", until=time.now + 86_400.0)
    assert not await is_free(alive)

    ended = await stores[1].commit(attrs.evolve(record, verdict=verdict), 1, is_open=False, due_at=None)

    assert isinstance(ended, Done)
    assert await is_free(alive)


async def test_an_unknown_outcome_frees_its_place_after_the_grace(
    accounts: MakeAccounts, stores: tuple[Store, Store], time: Time
) -> None:
    """A process that died during its POST left a record without a task: its place is free when that is unknown."""
    dead, alive = await accounts(ax.Limits(parallel=1))
    await dead.take("first", timeout=SOON_SECONDS)
    await stores[0].create(record_of("first", time.now, grace=900.0))
    await dead.keep("first", until=time.now + 86_400.0)

    time.now += 899.0
    assert not await is_free(alive)
    time.now += 1.0
    assert await is_free(alive)


async def test_a_process_that_died_early_holds_its_places_for_a_time_only(accounts: MakeAccounts, time: Time) -> None:
    """A place whose holder never stored a record is free after `HOLD_SECONDS`, and a submit's one window later."""
    dead, alive = await accounts(ax.Limits(submits=1, per=10.0, parallel=1))
    await dead.take("first", timeout=SOON_SECONDS)

    time.now += limits.HOLD_SECONDS + 9.9
    assert not await is_free(alive)
    time.now += 0.2
    assert await is_free(alive)


async def test_a_parallel_place_of_a_dead_process_is_free_after_its_time(accounts: MakeAccounts, time: Time) -> None:
    """Where only the open jobs are limited, that time is `HOLD_SECONDS`."""
    dead, alive = await accounts(ax.Limits(parallel=1))
    await dead.take("first", timeout=SOON_SECONDS)

    time.now += limits.HOLD_SECONDS - 0.1
    assert not await is_free(alive)
    time.now += 0.1
    assert await is_free(alive)


async def test_a_take_that_fails_for_time_holds_nothing(
    accounts: MakeAccounts, stores: tuple[Store, Store], time: Time
) -> None:
    """A submit that got the one place and not the other gives the one back."""
    one, two = await accounts(ax.Limits(submits=1, per=10.0, parallel=1))
    await one.take("first", timeout=SOON_SECONDS)
    one.sent("first")
    one.finish("first")
    await one.aclose()

    with pytest.raises(TimeoutError):
        await two.take("second", timeout=0.05)
    await two.aclose()

    assert ("first",) == await stores[0].places("submits of suno")
    assert () == await stores[0].places("jobs of suno")


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_cancelled_take_holds_nothing(is_full: bool, accounts: MakeAccounts, time: Time) -> None:
    """At whatever step it is cancelled, nothing is held by it, and the next one in the queue has its turn."""
    one, two = await accounts(ax.Limits(submits=1, per=10.0, parallel=1))
    for steps in range(24):
        if is_full:
            await two.take("holder", timeout=SOON_SECONDS)
        take = asyncio.create_task(one.take("cancelled", timeout=SOON_SECONDS))
        following = asyncio.create_task(one.take("next", timeout=SOON_SECONDS))
        for _ in range(steps):
            await asyncio.sleep(0)
        take.cancel()
        with suppress(asyncio.CancelledError):
            await take
            one.finish("cancelled")  # it had its place before
            one.sent("cancelled")
            await one.aclose()
        time.now += 1_000.0 if is_full else 10.0

        await following
        one.finish("next")
        one.sent("next")
        await one.aclose()
        time.now += 1_000.0


async def test_a_store_that_fails_holds_nothing_and_is_told(time: Time) -> None:
    """While the store cannot tell, a submit is refused; the place that could not be given back runs out."""
    store = ax.MemoryStore()
    account = Account("suno", ax.Limits(parallel=1), store, time.clock())
    await account.take("first", timeout=SOON_SECONDS)

    store.fail("the disk is full")
    await account.keep("first", until=time.now + 86_400.0)
    with pytest.raises(ax.StoreError):
        await account.take("second", timeout=SOON_SECONDS)
    account.finish("first")
    await account.aclose()
    store.fail(None)

    assert not await is_free(account)
    time.now += limits.HOLD_SECONDS
    assert await is_free(account)


async def test_a_place_is_kept_when_the_store_is_back(time: Time) -> None:
    """A store that is away when the answer comes holds the job's place all the same, once it is there again."""
    store = ax.MemoryStore()
    account, other = (Account("suno", ax.Limits(parallel=1), store, time.clock()) for _ in range(2))
    await account.take("first", timeout=SOON_SECONDS)

    store.fail("the network is down")
    await account.keep("first", until=time.now + 86_400.0)
    store.fail(None)
    await account.aclose()
    time.now += limits.HOLD_SECONDS

    assert not await is_free(other)


async def test_places_that_the_store_lost_are_taken_again(time: Time) -> None:
    """An engine that comes back empty is told of the jobs that are open, not of those that have ended."""
    account, other = (Account("suno", ax.Limits(parallel=2), ax.MemoryStore(), time.clock()) for _ in range(2))
    for ref in ("first", "second"):
        await account.take(ref, timeout=SOON_SECONDS)
        await account.keep(ref, until=time.now + 86_400.0)
    account.finish("second")
    account.store = other.store  # as empty as it would be

    await account.renew()

    assert ("first",) == await other.store.places("jobs of suno")
    await account.aclose()


async def test_two_clients_of_one_file_stay_inside_one_limit(
    make_sandbox: MakeSandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """Sixty submits of two clients pass a sandbox that enforces 20 in every window, without one refusal."""
    sandbox = await make_sandbox(submit_limit=20, submit_window_seconds=0.2)
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], limits=ax.Limits(submits=20, per=0.2))
    clients = [await make_client(sandbox, kie, poll=True, store=f"sqlite:///{tmp_path}/jobs.db") for _ in range(2)]

    jobs = await asyncio.gather(
        *(clients[number % 2].extend(audio_id=sandbox.track_ids[0], model="V5") for number in range(60))
    )

    assert 60 == len({job.task_id for job in jobs if job.task_id})
    assert {200} == {submission.code for submission in sandbox.submissions}


async def test_a_refused_submit_frees_its_place(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """With one open job allowed, a refusal leaves the place to the next submit at once."""
    sandbox = await make_sandbox(faults=["http=402*1"])
    provider = ax.MusicGpt(sandbox.api_key, base_url=sandbox.bases["musicgpt"], limits=ax.Limits(parallel=1))
    client = await make_client(sandbox, provider, permit_timeout=SOON_SECONDS)
    with pytest.raises(ax.ProviderError):
        await client.extend(url=sandbox.voice_url, continue_at=2)

    job = await client.extend(url=sandbox.voice_url, continue_at=2)

    assert 2 == len((await job).tracks)


async def test_a_place_that_lapsed_while_its_submit_waited_is_no_place(
    accounts: MakeAccounts, stores: tuple[Store, Store], time: Time
) -> None:
    """One open job is allowed, and a submit waits for its window longer than its place among the jobs is held."""
    one, two = await accounts(ax.Limits(submits=1, per=600.0, parallel=1))
    await one.take("a", timeout=5)
    one.sent("a")
    one.finish("a")
    await one.aclose()
    b = asyncio.create_task(one.take("b", timeout=30))  # has the job's place, waits for the window
    while "b" not in await stores[0].places("jobs of suno"):  # noqa: ASYNC110 - turns of the loop, not time
        await asyncio.sleep(0)
    time.now += 200.0
    c = asyncio.create_task(two.take("c", timeout=30))
    for _ in range(50):  # questions of our own, between which b and c have theirs answered
        await stores[0].places("jobs of suno")
    time.now += 401.0
    done, _ = await asyncio.wait([b, c], return_when=asyncio.FIRST_COMPLETED)
    for account, task, ref in ((one, b, "b"), (two, c, "c")):
        if task in done:
            await account.keep(ref, until=time.now + 86_400)
            account.sent(ref)
            await account.aclose()
    time.now += 601.0
    await asyncio.wait([b, c], timeout=0.3)
    try:
        assert not (b.done() and c.done()), "both may be sent, though one job is open"
    finally:
        b.cancel()
        c.cancel()
        await asyncio.gather(b, c, return_exceptions=True)


class SlowStore(ax.MemoryStore):
    """A store that answers late, once, where it is asked for a place among the submits."""

    def __init__(self, time: Time, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Let a place run out, and something happen, before that answer."""
        super().__init__()
        self._time = time
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def take_place(self, name: str, ref: str, *, limit: int, now: float, until: float) -> float:
        """Take it, late."""
        if name.startswith("submits") and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            self._time.now += limits.HOLD_SECONDS
            await meanwhile()
        return await super().take_place(name, ref, limit=limit, now=now, until=until)


async def test_a_place_that_lapsed_while_the_store_was_asked_is_no_place(time: Time) -> None:
    """A store that was away between the two questions took the time for which the first place was held."""

    async def other_comes() -> None:
        await other.take("other", timeout=SOON_SECONDS)

    store = SlowStore(time, other_comes)
    one, other = (Account("suno", ax.Limits(submits=5, per=10.0, parallel=1), store, time.clock()) for _ in range(2))

    with pytest.raises(TimeoutError):
        await one.take("one", timeout=0.05)

    assert ("other",) == await store.places("jobs of suno")
    await one.aclose()


async def test_a_place_is_given_back_when_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away when a job ends does not shut the account."""
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.01)
    store = ax.MemoryStore()
    account = limits.Account("suno", ax.Limits(parallel=1), store, Clock())
    await account.take("a", timeout=5)
    await account.keep("a", until=1e12)

    store.fail("the network is down")
    account.finish("a")
    await asyncio.sleep(0)
    store.fail(None)
    await account.take("b", timeout=20)

    assert ("b",) == await store.places("jobs of suno")
    await account.aclose()
