"""Limits hold in any window and over all clients of a store, and nothing holds a slot for ever."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from typing import Any

import pytest
from attrs import define, frozen
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.runtime.limits import Limiter
from audioext.stores.base import Appended
from tests.integration.client.conftest import WEB, Connect, MakeClient, MakeSandbox
from tests.support.api import BRISK, Api
from tests.support.clock import SOON_SECONDS, JumpClock, soon
from tests.support.processes import LOOP_CLOCK
from tests.support.stores import FaultyMemory

FINE_SECONDS = 1e-9
COARSE_SECONDS = 0.015625
"""The resolution of an event loop's clock on Linux, and on Windows until Python 3.12."""
WINDOW_SECONDS = 0.51
PATIENT_SECONDS = 1e6
LOOK_SECONDS = 1.0
"""How long another process's finished job may go unnoticed."""
POST_SECONDS = 120.0
"""How long a submit with an unknown outcome counts."""


# --- calls in a window -----------------------------------------------------------------------------------------


class Skipper(selectors.DefaultSelector):
    """A selector that does not wait: its clock skips to the time when the wait would end."""

    def __init__(self) -> None:
        """Start at a time that is not a round number."""
        super().__init__()
        self.now = 1_000.1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Advance the time."""
        assert timeout is not None, "nobody would ever be woken"
        self.now += max(timeout, 0.0)
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on such a clock, which ticks every *resolution* seconds and fires timers up to that much early."""

    def __init__(self, resolution: float) -> None:
        """Set up the clock."""
        self._skipper = Skipper()
        self._resolution = resolution
        super().__init__(self._skipper)
        self._clock_resolution = resolution  # asyncio reads the system clock's resolution here

    def time(self) -> float:
        """Return the time of the last tick."""
        if self._resolution == FINE_SECONDS:
            return self._skipper.now
        return self._skipper.now // self._resolution * self._resolution


@frozen(kw_only=True)
class Caller:
    """A caller that comes after a pause, may be cancelled while it waits for its permit, and then holds the permit."""

    pause: float = 0.0
    patience: float = PATIENT_SECONDS
    cancelled_after: float | None = None
    call: float = 0.0


@define
class Call:
    """A call that was permitted."""

    number: int
    began: float
    ended: float = inf


async def make_calls(limiter: Limiter, callers: Sequence[Caller]) -> list[Call]:
    """Run all *callers*, and return their calls in the order in which they began."""
    loop, calls = asyncio.get_running_loop(), list[Call]()

    async def make(number: int, caller: Caller) -> None:
        async with asyncio.timeout(caller.patience) as limit, limiter.permit():
            limit.reschedule(None)
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
    """Run `make_calls` on a loop that spends no time waiting."""
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
    """No window holds too many calls, each counting until one window after its end; patient callers get their turn."""
    calls = run_calls(Limiter(allowed, WINDOW_SECONDS, LOOP_CLOCK), callers, resolution)

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
def test_a_timer_that_fires_early_stalls_no_waiter(resolution: float) -> None:
    """Timers that fire up to 15.6 ms early stall no waiter: two calls go out in each window."""
    calls = run_calls(Limiter(2, WINDOW_SECONDS, LOOP_CLOCK), [Caller(patience=6.0)] * 6, resolution)

    assert [0, 1, 2, 3, 4, 5] == [call.number for call in calls]
    assert [0, 0, 1, 1, 2, 2] == [round((call.began - calls[0].began) / WINDOW_SECONDS) for call in calls]


# --- submits and open jobs of an account -------------------------------------------------------------------------

OpenPair = Callable[[ax.Limits], Awaitable[tuple[ax.Client, ax.Client]]]


@pytest.fixture
def open_pair(api: Api, connect: Connect, clock: JumpClock, stack: AsyncExitStack) -> OpenPair:
    """Return a function that opens two clients of one account on one engine; neither polls by itself."""

    async def open_pair(limits: ax.Limits) -> tuple[ax.Client, ax.Client]:
        provider = api.provider(limits=limits, pace=ax.Pace(first=1e6, every=1e6, slowest=1e6))
        settings = {"clock": clock.clock, "permit_timeout": 1e5, "expire_after": 1e6}
        one, two = (ax.Client(provider, store=connect(), **settings) for _ in range(2))  # type: ignore[arg-type]  # as named
        return await stack.enter_async_context(one), await stack.enter_async_context(two)

    return open_pair


async def extend(client: ax.Client) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5")


async def looks(client: ax.Client, clock: JumpClock) -> None:
    """Let submits that wait for room read the store again, as often as it takes to send them."""
    for _ in range(5):
        await clock.advance(LOOK_SECONDS)
        await client.store.next_due("polls")


async def test_submits_in_a_window_are_counted_over_both_clients(
    open_pair: OpenPair, api: Api, clock: JumpClock
) -> None:
    """Submits that come to two clients at once respect the window's limit together, and each gets its turn."""
    one, two = await open_pair(ax.Limits(submits=3, per=10.0))
    sent: list[float] = []

    async def submit(number: int) -> None:
        job = await extend((one, two)[number % 2])
        assert job.record.answered_at is not None
        sent.append(job.record.answered_at)

    await clock.run(asyncio.gather(*(submit(number) for number in range(12))), step=1.0)

    sent.sort()
    assert 12 == len(api.posts)
    assert all(later - earlier >= 10.0 for earlier, later in zip(sent, sent[3:], strict=False))


async def test_a_slot_is_held_as_long_as_the_job_is_open(open_pair: OpenPair, api: Api, clock: JumpClock) -> None:
    """An open job holds its slot for both clients even an hour later; at its end the longest waiter gets the slot."""
    one, two = await open_pair(ax.Limits(parallel=1))
    first = await extend(one)
    waiting = asyncio.create_task(extend(two))
    await clock.advance(3_600.0)
    await looks(two, clock)
    assert not waiting.done()

    await first.refresh()
    assert ax.Verdict.COMPLETE is first.verdict
    second = await clock.run(waiting)

    assert ["task-1", "task-2"] == [first.task_id, second.task_id]


async def test_the_end_of_a_job_sends_the_waiting_submit_at_once(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A submit that waits in the client that sees a job end is sent at once."""
    provider = api.provider(limits=ax.Limits(parallel=1))
    async with ax.Client(provider, clock=clock.clock, permit_timeout=1e5, **WEB) as client:  # type: ignore[arg-type]  # two texts
        await extend(client)
        waiting = asyncio.create_task(extend(client))
        await clock.advance(0.0)
        assert not waiting.done()

        await api.call_back("complete")
        async with asyncio.timeout(SOON_SECONDS):
            assert "task-2" == (await waiting).task_id


@pytest.mark.parametrize("outcome", ["lost", "refused", "expired"])
async def test_a_job_that_is_over_frees_its_slot(outcome: str, open_pair: OpenPair, api: Api, clock: JumpClock) -> None:
    """A refused, an unknown and an expired job free their slot at once."""
    one, two = await open_pair(ax.Limits(parallel=1))
    api.codes = {"lost": [0], "refused": [402], "expired": []}[outcome]
    api.is_done = False
    try:
        job = await extend(one)
    except ax.CreditsError:
        assert "refused" == outcome
    else:
        if outcome == "expired":
            await clock.advance(1e6)
            with pytest.raises(ax.JobExpiredError):
                await clock.run(job.result())

    async with asyncio.timeout(SOON_SECONDS):
        assert "task-2" == (await extend(two)).task_id


async def test_a_process_that_died_during_its_post_holds_its_slot_for_a_time_only(
    open_pair: OpenPair, api: Api, clock: JumpClock
) -> None:
    """A submit whose process died during the POST counts for two minutes, in its window and among the open jobs."""
    dead, alive = await open_pair(ax.Limits(submits=1, per=10.0, parallel=1))
    api.gate.clear()
    lost = asyncio.create_task(extend(dead))
    await api.arrived.wait()
    waiting = asyncio.create_task(extend(alive))

    await clock.advance(POST_SECONDS - 10.0)
    await looks(alive, clock)
    assert 1 == len(api.posts)
    await clock.advance(10.0)
    await looks(alive, clock)
    api.gate.set()

    assert {"task-1", "task-2"} == {(await lost).task_id, (await clock.run(waiting)).task_id}


async def test_no_room_in_time_sends_nothing(open_pair: OpenPair, api: Api, clock: JumpClock) -> None:
    """Submits whose turn does not come in time, first or behind others, raise an error that says how long to wait."""
    one, _ = await open_pair(ax.Limits(submits=1, per=1e6))
    first = await extend(one)
    waiting = [asyncio.create_task(extend(one)) for _ in range(3)]

    await clock.advance(1e5 - 1.0)
    assert [False] * 3 == [submit.done() for submit in waiting]
    await clock.advance(1.0)

    for submit in waiting:
        with pytest.raises(ax.RateLimitError, match="no permit") as caught:
            await submit
        assert first.provider == caught.value.provider
        assert caught.value.retry_after == pytest.approx(1e6 - 1e5, abs=5.0)
    assert [first.ref] == [job.ref async for job in one.jobs()]
    assert 1 == len(api.posts)


async def test_a_full_account_is_not_asked_again_at_once(open_pair: OpenPair, api: Api, clock: JumpClock) -> None:
    """A submit behind others is told to wait for a second, however soon the first of them looks for room again."""
    api.is_done = False
    one, _ = await open_pair(ax.Limits(parallel=1))
    await extend(one)
    first = asyncio.create_task(extend(one))
    await clock.advance(LOOK_SECONDS / 2)

    with pytest.raises(ax.RateLimitError, match="no permit") as caught:
        await one.extend(audio_id="x", model="V5", permit_timeout=0.01)

    assert LOOK_SECONDS == caught.value.retry_after
    assert not first.done()
    first.cancel()


async def test_one_call_may_wait_less_than_the_others(open_pair: OpenPair, api: Api, clock: JumpClock) -> None:
    """A submit with a `permit_timeout` of its own ends then, and is not sent later; one that is no time is refused."""
    one, _ = await open_pair(ax.Limits(submits=1, per=1e6))
    await extend(one)
    waiting = asyncio.create_task(one.extend(audio_id="x", model="V5", permit_timeout=5.0))

    await clock.advance(4.0)
    assert not waiting.done()
    await clock.advance(1.0)

    with pytest.raises(ax.RateLimitError, match="no permit within 5 s"):
        await waiting
    with pytest.raises(ax.RequestError, match="permit_timeout: must be a finite number of seconds above 0"):
        await one.extend(audio_id="x", model="V5", permit_timeout=0)
    assert 1 == len(api.posts)


async def test_a_failing_store_ends_a_waiting_submit(api: Api, clock: JumpClock) -> None:
    """A submit that waits for its turn raises a failing store's error and frees its place; the next one is sent."""
    store = ax.MemoryStore()
    provider = api.provider(limits=ax.Limits(submits=1, per=60.0))
    async with ax.Client(provider, store=store, clock=clock.clock) as client:
        await extend(client)
        waiting = asyncio.create_task(extend(client))
        await clock.advance(1.0)
        store.fail("the disk is full")
        await clock.advance(1.0)
        with pytest.raises(ax.StoreError, match="disk"):
            await waiting
        store.fail(None)

        assert "task-2" == (await clock.run(extend(client))).task_id


async def test_slots_that_the_store_lost_are_held_again(api: Api, clock: JumpClock) -> None:
    """After the store comes back empty, the client stores its open jobs again, and they hold their slots."""
    store = FaultyMemory()
    provider = api.provider(limits=ax.Limits(parallel=1))
    async with ax.Client(provider, store=store, clock=clock.clock, **WEB) as client:  # type: ignore[arg-type]  # two texts
        job = await extend(client)
        await store.lose_all()
        assert job.ref == await soon(lambda: store.find(provider="kie", task_id="task-1"))

        waiting = asyncio.create_task(extend(client))
        await looks(client, clock)
        assert 1 == len(api.posts)
        await api.call_back("complete")
        assert "task-2" == (await clock.run(waiting)).task_id


class Watched(ax.MemoryStore):
    """A store that notes the refs of its appends."""

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.appended: list[str] = []

    async def append(self, ref: str, *arguments: Any, **options: Any) -> Appended:
        """Append, and note the ref."""
        self.appended.append(ref)
        return await super().append(ref, *arguments, **options)


async def test_submits_that_close_while_they_wait_leave_nothing(api: Api, clock: JumpClock) -> None:
    """A submit that has found no room when its client closes writes nothing to the store: it was surely not created."""
    store, provider = Watched(), api.provider(limits=ax.Limits(parallel=1))
    async with ax.Client(provider, store=store, clock=clock.clock, **WEB) as client:  # type: ignore[arg-type]  # two texts
        job = await extend(client)
        waiting = [asyncio.create_task(extend(client)) for _ in range(3)]
        await looks(client, clock)

    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert 3 * [ax.ConfigError] == [type(end) for end in ends]
    assert {job.ref} == set(store.appended)


async def test_a_burst_stays_inside_a_limit_that_the_api_enforces(
    make_sandbox: MakeSandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """Eighty submits of two clients to a sandbox that takes 20 in any window are never refused."""
    sandbox = await make_sandbox(submit_limit=20, submit_window_seconds=0.1)
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], limits=ax.Limits(submits=20, per=0.1))
    url = f"sqlite:///{tmp_path}/jobs.db"
    pair = [await make_client(sandbox, kie, poll=True, store=url) for _ in range(2)]

    jobs = await asyncio.gather(
        *(pair[number % 2].extend(audio_id=sandbox.track_ids[0], model="V5") for number in range(80))
    )

    assert 80 == len({job.task_id for job in jobs if job.task_id})
    assert {200} == {submission.code for submission in sandbox.submissions}


async def test_parallel_jobs_wait_for_a_free_slot(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """With one parallel job allowed, the next submit is sent when the one before is final."""
    sandbox = await make_sandbox(parallel_limit=1)
    limits = ax.Limits(parallel=1)
    provider = ax.MusicGpt(sandbox.api_key, base_url=sandbox.bases["musicgpt"], limits=limits, pace=BRISK)
    client = await make_client(sandbox, provider)

    songs = await asyncio.gather(*(client.run(ax.Extend(url=sandbox.voice_url, continue_at=2)) for _ in range(3)))

    assert [2, 2, 2] == [len(song.tracks) for song in songs]
    assert 3 == len(sandbox.submissions)
