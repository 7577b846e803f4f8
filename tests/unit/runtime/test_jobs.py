"""The live handle of a job: waits are independent, always end, and read the store before they give up."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from audioext.errors import ConfigError, StoreError
from audioext.models.entries import Entry, make_entry
from audioext.models.record import Verdict
from audioext.models.results import FailureReason, Stage
from audioext.runtime.handle import LOOK_SECONDS
from audioext.runtime.jobs import (
    ClientClosedError,
    Job,
    JobError,
    JobExpiredError,
    JobFailedError,
    StageEvent,
    StageTimeoutError,
    SubmitUnknownError,
)
from audioext.runtime.journal import LOOK_TIMEOUT_SECONDS
from audioext.stores import MemoryStore
from tests.support import tape
from tests.support.lines import Side, die_at
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import Process, loop_time
from tests.support.tape import REF, TASK

NOW = BEGIN_SECONDS
GRACE = 900.0
TEXT = tape.webhook(NOW + 1, tape.shown(Stage.TEXT))
FIRST = tape.webhook(NOW + 2, tape.shown(Stage.FIRST, tape.track("one")))
DONE = tape.webhook(NOW + 3, tape.shown(Stage.COMPLETE, tape.track("one"), tape.track("two")))
FAILED = tape.webhook(
    NOW + 3, tape.failed(reason=FailureReason.CONTENT, code="400", message="no swearing", charged=False)
)


async def begin(wait: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """Begin to wait, and return once the wait is under way."""
    task = asyncio.create_task(wait)
    await asyncio.sleep(0.5)
    return task


async def follow(job: Job, stages: list[Stage]) -> None:
    """Iterate over *job*, and note each stage as it comes."""
    async for event in job:
        stages.append(event.stage)  # noqa: PERF401 - other tasks read the list meanwhile


async def submitted(process: Process, *entries: Entry, **asked: object) -> Job:
    """Return a job of *process* with its answer and *entries* appended."""
    held = await process.submit(**asked)
    await process.journal.append(held, [tape.answer(NOW), *entries])
    return process.handle(held)


# --- properties ---------------------------------------------------------------------------------------------


async def test_a_job_shows_what_is_known_of_it(here: Process) -> None:
    """The handle of a job shows everything in its record that users need."""
    job = await submitted(here, FIRST, key="mine", meta={"chat": 1})

    assert (REF, "tape", TASK, "mine", {"chat": 1}) == (job.ref, job.provider, job.task_id, job.key, job.meta)
    assert (Stage.FIRST, Verdict.OPEN, ["one"]) == (job.stage, job.verdict, [track.id for track in job.tracks])
    assert (None, job.record.request) == (job.failure, job.request)
    assert datetime.fromtimestamp(NOW, UTC) == job.created_at
    assert f"<Job {REF} tape, first>" == repr(job)
    assert f"<text of {job!r}>" == repr(job.text)


async def test_a_new_job_has_no_stage(here: Process) -> None:
    """A job is shown as NEW, without a stage, until its task is known to exist."""
    job = here.handle(await here.submit())

    assert (None, None, f"<Job {REF} tape, new>") == (job.stage, job.task_id, repr(job))


# --- waits that reach their stage ---------------------------------------------------------------------------


async def test_a_wait_ends_with_its_stage(here: Process) -> None:
    """A wait returns the event as soon as its stage is reached, and not before."""
    job = await submitted(here)
    wait = await begin(job.wait(Stage.FIRST))
    await here.journal.append(await here.hold(), [TEXT])
    await asyncio.sleep(0)
    assert not wait.done()
    await here.journal.append(await here.hold(), [FIRST])
    event = await wait

    assert isinstance(event, StageEvent)
    assert (Stage.FIRST, "webhook", NOW + 0.5) == (event.stage, event.source, loop_time())


async def test_a_job_can_be_awaited_again_and_again(here: Process) -> None:
    """A job and its stages can be awaited more than once, with the same result each time."""
    job = await submitted(here, TEXT, FIRST, DONE)

    songs = [await job, await job, await job.result()]
    assert [["one", "two"]] * 3 == [[track.id for track in song.tracks] for song in songs]
    for stage, awaitable in ((Stage.TEXT, job.text), (Stage.FIRST, job.first), (Stage.COMPLETE, job.complete)):
        assert [stage, stage] == [(await awaitable).stage, (await awaitable).stage]


async def test_iterating_replays_the_stages_and_goes_on(here: Process) -> None:
    """An iteration begins with the stages that were already reached, waits for the rest, and ends."""
    stages: list[Stage] = []
    following = await begin(follow(await submitted(here, TEXT), stages))
    assert [Stage.TEXT] == stages
    for entry in (FIRST, DONE):
        await here.journal.append(await here.hold(), [entry])
    await following

    assert [Stage.TEXT, Stage.FIRST, Stage.COMPLETE] == stages


async def test_an_iteration_ends_with_the_failure(here: Process) -> None:
    """An iteration yields the stages that were reached, then raises the failure."""
    stages: list[Stage] = []
    with pytest.raises(JobFailedError):
        await follow(await submitted(here, TEXT, FAILED), stages)

    assert [Stage.TEXT] == stages


async def test_cancelling_a_wait_affects_no_other(here: Process) -> None:
    """Cancelling one of two waits for a stage does not disturb the other."""
    job = await submitted(here)
    cancelled, kept = await begin(job.wait()), await begin(job.wait())
    cancelled.cancel()
    await asyncio.sleep(0)
    await here.journal.append(await here.hold(), [DONE])

    assert isinstance(await kept, StageEvent)
    assert cancelled.cancelled()


async def test_a_wait_after_a_rise_gets_the_song(here: Process) -> None:
    """A wait that ended with a failure stays ended; a later wait gets the song that arrived since."""
    job = await submitted(here, FAILED)
    with pytest.raises(JobFailedError):
        await job
    await here.journal.append(await here.hold(), [DONE])

    assert ["one", "two"] == [track.id for track in (await job).tracks]


# --- waits that end otherwise -------------------------------------------------------------------------------


async def test_a_failure_says_why_and_what_it_cost(here: Process) -> None:
    """The error of a failed job has the vendor's words and whether it was charged."""
    job = await submitted(here, FIRST, FAILED)
    with pytest.raises(JobFailedError, match=r"failed, content \(code 400\): no swearing") as failed:
        await job
    error = failed.value

    assert (job, FailureReason.CONTENT, "400", False) == (error.job, error.reason, error.code, error.charged)
    assert ["one"] == [track.id for track in error.tracks]
    assert Stage.FIRST is (await job.first).stage


@pytest.mark.parametrize(
    "kind", [SubmitUnknownError, JobError, StageTimeoutError, JobExpiredError, ClientClosedError, JobFailedError]
)
async def test_an_error_of_a_job_can_be_copied_and_pickled(here: Process, kind: type[JobError]) -> None:
    """A copy of an error keeps its job; a pickled one, as from a process pool, has the job's ref and all the rest."""
    job = await submitted(here, FIRST)
    why = {"reason": FailureReason.CONTENT, "code": "400", "charged": False, "tracks": job.tracks}
    error = kind("no swearing", job=job, **(why if kind is JobFailedError else {}))
    error.add_note("seen in a worker")
    copies = (copy.copy(error), copy.deepcopy(error))
    elsewhere = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert [vars(error)] * 2 == [vars(each) for each in copies]
    assert (kind, "no swearing", REF) == (type(elsewhere), str(elsewhere), elsewhere.ref)
    assert {**vars(error), "_job": None} == vars(elsewhere)
    assert [(kind, "no swearing", job)] * 2 == [(type(each), str(each), each.job) for each in copies]
    with pytest.raises(ConfigError, match=rf"this {kind.__name__} .* was pickled, so it has no job"):
        _ = elsewhere.job


async def test_a_refused_job_has_nothing_to_wait_for(here: Process) -> None:
    """A wait for a refused job ends at once with the vendor's message."""
    held = await here.submit()
    await here.journal.append(held, [tape.refusal(NOW, "too few credits")])
    with pytest.raises(JobError, match="too few credits"):
        await here.handle(held)

    assert NOW == loop_time()


async def test_a_job_that_was_given_up_says_so(here: Process) -> None:
    """A wait for an expired job raises `JobExpiredError` at once."""
    job = await submitted(here, make_entry("expired", NOW))
    with pytest.raises(JobExpiredError, match="a late callback still completes it"):
        await job


async def test_a_wait_ends_with_its_time(here: Process) -> None:
    """A wait that times out says how far the job is and what its last status call said, and is a `TimeoutError`."""
    job = await submitted(here, TEXT, tape.busy(NOW + 2))
    with pytest.raises(StageTimeoutError, match=r"did not reach first in time \(it is at text; .*busy") as late:
        await job.wait(Stage.FIRST, timeout=7.0)

    assert isinstance(late.value, TimeoutError)
    assert (NOW + 7.0, Verdict.OPEN) == (loop_time(), job.verdict)


async def test_a_wait_without_a_time_has_the_clients(here: Process) -> None:
    """Every await and iteration is bounded by `wait_timeout`, an iteration as a whole."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW)])
    job = here.handle(held, wait_timeout=30.0)
    for wait in (job.result, lambda: job.wait(Stage.TEXT), lambda: anext(aiter(job))):
        began = loop_time()
        with pytest.raises(StageTimeoutError, match="it is at submitted"):
            await wait()
        assert began + 30.0 == loop_time()


async def test_a_wait_with_hardly_any_time_still_reads_the_store(here: Process, there: Process) -> None:
    """A wait with hardly any time left reads the store once, then returns what it found or times out."""
    job = await submitted(here)
    with pytest.raises(StageTimeoutError):
        await job.wait(Stage.TEXT, timeout=1e-6)
    await there.journal.append(await there.hold(), [TEXT])

    assert Stage.TEXT is (await job.wait(Stage.TEXT, timeout=1e-6)).stage


async def test_closing_ends_every_wait(here: Process) -> None:
    """Closing the client ends its waits with `ClientClosedError`; a stage that was reached is still returned."""
    job = await submitted(here, TEXT)
    waiting = await begin(job.wait(Stage.FIRST))
    here.journal.close_waits()
    with pytest.raises(ClientClosedError, match="the job lives on in the store"):
        await waiting
    with pytest.raises(ClientClosedError):
        await job

    assert Stage.TEXT is (await job.text).stage


# --- an outcome that is unknown -----------------------------------------------------------------------------


async def test_silence_in_the_grace_period_is_an_unknown_outcome(here: Process) -> None:
    """A job without a task id ends its waits after the grace period, with the reason, and its verdict stays open."""
    held = await here.submit(grace=GRACE)
    await here.journal.append(held, [make_entry("answer", NOW, note="the connection broke")])
    job = here.handle(held)
    with pytest.raises(SubmitUnknownError, match=r"within 900 s \(the connection broke\)") as unknown:
        await job

    assert (NOW + GRACE, job, Verdict.OPEN) == (loop_time(), unknown.value.job, job.verdict)
    await here.receive(DONE)
    assert ["one", "two"] == [track.id for track in (await job).tracks]


async def test_a_shorter_time_comes_before_the_grace_period(here: Process) -> None:
    """A wait whose timeout is below the grace period raises `StageTimeoutError`."""
    job = here.handle(await here.submit(grace=GRACE))
    with pytest.raises(StageTimeoutError, match="nothing is known of it yet"):
        await job.wait(timeout=60.0)


async def test_while_the_post_is_under_way_nothing_is_unknown(here: Process) -> None:
    """A process whose POST is still under way goes on waiting after the grace period."""
    held = await here.submit(grace=10.0)
    held.posts += 1
    wait = await begin(here.handle(held).wait(Stage.SUBMITTED, timeout=100.0))
    await asyncio.sleep(50)
    held.posts -= 1
    await here.journal.append(held, [tape.answer(NOW)])

    assert isinstance(await wait, StageEvent)


async def test_without_a_callback_url_a_lost_answer_is_unknown_at_once(here: Process) -> None:
    """Without a callback URL, a job whose POST got no readable answer is unknown at once."""
    held = await here.submit(webhooks=False)
    await here.journal.append(held, [make_entry("answer", NOW, note="HTTP 502")])
    with pytest.raises(SubmitUnknownError, match="its POST got no readable answer"):
        await here.handle(held)

    assert NOW == loop_time()


async def test_a_webhook_within_the_grace_period_continues_the_wait(here: Process) -> None:
    """A webhook within the grace period lets the wait go on to its own end."""
    held = await here.submit(grace=10.0)
    wait = await begin(here.handle(held).result(timeout=100.0))
    await here.receive(TEXT)
    await asyncio.sleep(50)
    await here.receive(DONE)

    assert not isinstance(await wait, Exception)


# --- waits and the store ------------------------------------------------------------------------------------


async def test_a_wait_reads_the_store_before_it_gives_up(here: Process, there: Process) -> None:
    """A wait that never heard of another process's append still returns its result when its time is up."""
    job = await submitted(here)
    wait = await begin(job.wait(timeout=20.0))
    await there.journal.append(await there.hold(), [DONE])

    assert isinstance(await wait, StageEvent)
    assert NOW + 20.0 == loop_time()


async def test_a_long_wait_reads_the_store_every_minute(here: Process, there: Process) -> None:
    """A long wait reads the store every minute, whether or not it was woken."""
    job = await submitted(here)
    wait = await begin(job.wait())
    await there.journal.append(await there.hold(), [DONE])

    assert isinstance(await wait, StageEvent)
    assert NOW + LOOK_SECONDS == loop_time()


async def test_news_between_the_look_and_the_wait_is_not_missed(here: Process) -> None:
    """An entry that is stored during the first read of a wait ends that wait."""
    job = await submitted(here)

    async def watch(name: str, side: Side) -> None:
        if (name, side) == ("read", "after"):
            here.line.on_call = nothing
            await here.journal.append(await here.hold(), [DONE])

    async def nothing(name: str, side: Side) -> None:
        """Let it pass."""

    here.line.on_call = watch
    await job.wait()
    assert NOW == loop_time()


async def test_a_wait_goes_on_while_the_store_is_away(store: MemoryStore, here: Process) -> None:
    """A read that fails ends no wait: known stages are still returned, and the wait ends with its timeout."""
    job = await submitted(here, TEXT)
    store.fail("away")

    assert Stage.TEXT is (await job.text).stage
    with pytest.raises(StageTimeoutError):
        await job.wait(timeout=10.0)
    assert NOW + 10.0 == loop_time()


async def test_a_wait_ends_though_the_store_hangs(here: Process) -> None:
    """A wait whose read of the store hangs still ends soon after its timeout."""
    job = await submitted(here, TEXT)
    here.line.on_call = die_at(0)
    with pytest.raises(StageTimeoutError):
        await job.wait(timeout=5.0)

    assert loop_time() <= NOW + 5.0 + 2 * LOOK_TIMEOUT_SECONDS


async def test_closing_ends_a_wait_whose_store_hangs(here: Process) -> None:
    """Closing the client ends a wait that is stuck in a read of the store."""
    job = await submitted(here)
    here.line.on_call = die_at(0)
    wait = await begin(job.wait())
    here.journal.close_waits()
    with pytest.raises(ClientClosedError):
        await wait

    assert NOW + 0.5 == loop_time()


# --- refresh ------------------------------------------------------------------------------------------------


async def test_refresh_asks_for_the_job_as_the_store_has_it(here: Process, there: Process) -> None:
    """`refresh` reads the store first, which may know the task by now, and then asks the provider."""
    job = here.handle(await here.submit())
    with pytest.raises(SubmitUnknownError, match="nothing was resent"):
        await job.refresh()
    await there.journal.append(await there.hold(), [tape.answer(NOW)])

    assert job is await job.refresh()
    assert [job.task_id] == [held.record.task_id for held in here.refreshed]


def test_a_store_error_is_not_a_job_error() -> None:
    """`StoreError` is not a `JobError`, and `JobExpiredError` is a `StageTimeoutError`."""
    assert not issubclass(StoreError, JobError)
    assert issubclass(JobExpiredError, StageTimeoutError)
