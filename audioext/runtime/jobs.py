"""The handle of a job, which users await and iterate, and the events and errors that it produces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from datetime import datetime

from attrs import field, frozen

from audioext.errors import AudioextError, ConfigError
from audioext.models import checks
from audioext.models.record import Verdict
from audioext.models.results import FailureReason, Song, Source, Stage, Track, fetched_by
from audioext.runtime.handle import Here, JobContext, JobFacts
from audioext.runtime.held import HeldJob
from audioext.state.fold import TOPIC_OF
from audioext.state.tracks import moment, song_of, stage_reached

LATER_STAGES = tuple(TOPIC_OF)
"""The stages after SUBMITTED: those that an iteration yields, and that handlers are called for."""

_is_stage = checks.made_as(Stage, "one like Stage.FIRST")


class _OfJob:
    __slots__ = ()
    _job: JobLink | None

    @property
    def job(self) -> Job:
        """The job, for its current state, or to await or refresh it; a failed one may still rise to complete.

        Raises:
            ConfigError: this was not made by a client, or was pickled; any client of the store has
                `await client.job(ref)`.
        """
        if self._job is None:
            what = f"this {type(self).__name__} was not made by a client, or was pickled"
            raise ConfigError(f"{what}, so it has no job")
        return self._job.job


class _HasJobError(_OfJob, AudioextError):
    def __init__(self, message: str, *, job: Job) -> None:
        """Keep the *job*; any process can find it again by its `ref`."""
        self.ref = job.ref
        self._job = JobLink(job)
        super().__init__(message)


class SubmitUnknownError(_HasJobError):
    """Nothing was heard of the task within the grace period. The POST may have arrived, so nothing was resent.

    Look at the provider's own task list before you submit again. The job can still be adopted: a late callback
    completes it, and a later `await job` then returns the song. It is no `JobError`, since it may
    have cost money: catch it as well.
    """


class JobError(_HasJobError):
    """A wait for a job ended without its result; `job` can be awaited again, `ref` names it in every process."""


class JobFailedError(JobError):
    """The task failed at the provider; `reason` and `code` say why, `charged` whether it cost anything."""

    def __init__(  # noqa: PLR0913 - one keyword for each fact a caller may branch on
        self,
        message: str,
        *,
        job: Job,
        reason: FailureReason,
        code: str | None,
        charged: bool | None,
        tracks: Sequence[Track] = (),
    ) -> None:
        """Keep the details of the failure, and the tracks known so far."""
        self.reason = reason
        self.code = code
        self.charged = charged
        self.tracks: tuple[Track, ...] = tuple(tracks)
        super().__init__(message, job=job)


class StageTimeoutError(JobError, TimeoutError):
    """The stage was not reached in time. The job goes on: await it again, or call `job.refresh()`."""


class JobExpiredError(StageTimeoutError):
    """The job expired at its deadline. A late callback can still complete it."""


class ClientClosedError(JobError):
    """The client was closed during the wait. The job goes on: open a client on the same store and await it again."""


class StageWait:
    """An awaitable for the `StageEvent` of one stage, which can be awaited any number of times."""

    def __init__(self, job: Job, stage: Stage) -> None:
        """Bind *job* and *stage*; awaiting starts a new wait each time."""
        self._job = job
        self._stage = stage

    def __await__(self) -> Generator[object, None, StageEvent]:
        """Wait until the stage is reached. It raises what `Job.wait` does."""
        return self._job.wait(self._stage).__await__()

    def __repr__(self) -> str:
        """Name the job and the stage."""
        return f"<{self._stage} of {self._job!r}>"


class Job(JobFacts):
    """The handle of a submitted task: `await job` returns its `Song`.

    The job, `text`, `first` and `complete` can be awaited, and the job iterated, any number of times and by any number
    of waiters. Each wait is its own: cancelling one affects neither the others nor the task. Two handles of one job are
    equal. `is_new` is true if the call that returned this handle submitted the job, and did not find an existing one.
    """

    __slots__ = ("is_new",)

    def __init__(self, held: HeldJob, context: JobContext, *, is_new: bool = False) -> None:
        """Create a handle; only clients do this."""
        super().__init__(held, context)
        self.is_new = is_new

    @property
    def failure(self) -> Failure | None:
        """The failure of the job, `None` if it did not fail."""
        record = self.record
        fault, ended_at = record.fault, record.ended_at
        if fault is None or ended_at is None:
            return None
        return Failure(
            reason=fault.reason,
            code=fault.code,
            message=fault.message,
            charged=fault.charged,
            at=moment(ended_at),
            ref=record.ref,
            provider=record.provider,
            task_id=record.task_id,
            tracks=self.tracks,
            meta=record.meta,
            job=self,
        )

    def event(self, stage: Stage) -> StageEvent | None:
        """Return the event of *stage* with the tracks known when it was reached, or `None` if it was not reached.

        Raises:
            RequestError: *stage* is not a `Stage`.
        """
        checks.refuse_wrong(stage=_is_stage(stage))
        record = self.record
        found = stage_reached(record, stage)
        if found is None:
            return None
        reached, tracks = found
        return StageEvent(
            stage=stage,
            tracks=fetched_by(self._context.files(self._held), tracks),
            source=reached.source,
            at=moment(reached.at),
            ref=record.ref,
            provider=record.provider,
            task_id=record.task_id,
            meta=record.meta,
            job=self,
        )

    @property
    def text(self) -> StageWait:
        """Await it for the event of `Stage.TEXT`."""
        return StageWait(self, Stage.TEXT)

    @property
    def first(self) -> StageWait:
        """Await it for the event of `Stage.FIRST`: the first playable track."""
        return StageWait(self, Stage.FIRST)

    @property
    def complete(self) -> StageWait:
        """Await it for the event of `Stage.COMPLETE`."""
        return StageWait(self, Stage.COMPLETE)

    async def wait(self, stage: Stage = Stage.COMPLETE, *, timeout: float | None = None) -> StageEvent:  # noqa: ASYNC109 - it ends this wait, never the job
        """Wait up to *timeout* seconds until *stage* is reached, and return its event.

        The default for *timeout* is the client's `wait_timeout`.

        Raises:
            JobFailedError: the task failed before that stage.
            StageTimeoutError: the stage was not reached in time; the job goes on.
            SubmitUnknownError: nothing was heard of the task within the grace period.
            ClientClosedError: the client was closed.
            RequestError: *timeout* is not a finite number above 0, or *stage* is not a `Stage`.
        """
        checks.refuse_wrong(stage=_is_stage(stage))
        return await self._until(self.event, stage, self._deadline(timeout))

    async def result(self, *, timeout: float | None = None) -> Song:  # noqa: ASYNC109 - as above
        """Wait up to *timeout* seconds for the song and return it; `await job` does the same with the default.

        Raises:
            AudioextError: as `wait` does.
        """
        return await self._until(self._song, Stage.COMPLETE, self._deadline(timeout))

    def __await__(self) -> Generator[object, None, Song]:
        """Wait for the song; see `result`."""
        return self.result().__await__()

    def __aiter__(self) -> AsyncIterator[StageEvent]:
        """Yield the events of TEXT, FIRST and COMPLETE as they are reached, past ones first; raise what `wait` does."""
        return self._events(self._deadline(None))

    async def refresh(self) -> Job:
        """Make a status call now, whatever the pace, and return this job.

        Raises:
            ProviderError: the call failed; the job goes on.
            DecodeError: the answer could not be decoded.
            SubmitUnknownError: the task id is not known, so no status call can be made.
            ClientClosedError: the client was closed.
        """
        self._context.check_loop()
        if self._context.journal.is_closed:
            raise self._closed()
        await self._look()
        if self.record.task_id is None:
            raise SubmitUnknownError(_unknown_text(self), job=self)
        await self._context.refresh(self._held)
        return self

    def _song(self, _: Stage) -> Song | None:
        held = self._held
        return song_of(held.record, self._context.files(held)) if held.record.stage is Stage.COMPLETE else None

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._context.wait_timeout if timeout is None else checks.bounded(timeout)
        return self._context.journal.clock.monotonic() + seconds

    async def _events(self, deadline: float) -> AsyncIterator[StageEvent]:
        for stage in LATER_STAGES:
            yield await self._until(self.event, stage, deadline)

    def _given_up(self, stage: Stage, deadline: float) -> Exception:
        if deadline > self._context.journal.clock.monotonic():
            return SubmitUnknownError(_unknown_text(self), job=self)
        last_words = self._held.describe(self._context.journal.clock.now())
        message = f"job {self.ref} did not reach {stage} in time ({last_words}); it lives on, await it again"
        return StageTimeoutError(message, job=self)

    def _closed(self) -> ClientClosedError:
        message = f"the client was closed while job {self.ref} was awaited; the job lives on in the store"
        return ClientClosedError(message, job=self)

    def _raise_if_over(self) -> None:
        record = self.record
        if self._context.journal.is_closed:
            raise self._closed()
        failure = self.failure
        if failure is not None:
            code = "" if failure.code is None else f" (code {failure.code})"
            reason = "" if failure.reason is FailureReason.UNKNOWN else f", {failure.reason}"
            message = f"job {self.ref} at {self.provider} failed{reason}{code}: {failure.message}"
            raise JobFailedError(
                message,
                job=self,
                reason=failure.reason,
                code=failure.code,
                charged=failure.charged,
                tracks=failure.tracks,
            )
        if record.verdict is Verdict.REFUSED:
            raise JobError(f"job {self.ref} has no task, its submit was refused: {record.refusal}", job=self)
        if record.verdict is Verdict.EXPIRED:
            last_words = self._held.describe(self._context.journal.clock.now())
            message = f"job {self.ref} was given up at its deadline ({last_words}); a late callback still completes it"
            raise JobExpiredError(message, job=self)


@frozen
class JobLink(Here):
    """The job of an event, a failure or an error."""

    job: Job


def _link(job: Job | JobLink | None) -> JobLink | None:
    return JobLink(job) if isinstance(job, Job) else job


@frozen(kw_only=True, repr=False)
class StageEvent(_OfJob):
    """A stage was reached: the tracks known at that time, how it became known, and when (timezone-aware)."""

    stage: Stage
    tracks: tuple[Track, ...]
    source: Source
    at: datetime
    ref: str
    provider: str
    task_id: str | None = None
    meta: Mapping[str, object] = field(factory=dict, hash=False)
    _job: JobLink | None = field(default=None, eq=False, alias="job", converter=_link)

    @property
    def is_latest(self) -> bool:
        """Whether this is still the latest news: neither a later stage nor a failure is known."""
        job = self.job
        return job.verdict is not Verdict.FAILED and (job.stage is None or job.stage <= self.stage)

    def __repr__(self) -> str:
        """Show the stage, its job, its source and the number of tracks, on one line."""
        tracks = "1 track" if len(self.tracks) == 1 else f"{len(self.tracks)} tracks"
        return f"<StageEvent {self.stage.name} of {self.ref} by {self.source}, {tracks}>"


@frozen(kw_only=True)
class Failure(_OfJob):
    """A task failed: `reason`, the provider's `code` and `message`, and whether it was `charged`."""

    reason: FailureReason
    code: str | None
    message: str
    charged: bool | None
    at: datetime
    ref: str
    provider: str
    task_id: str | None = None
    tracks: tuple[Track, ...] = ()
    meta: Mapping[str, object] = field(factory=dict, hash=False)
    _job: JobLink | None = field(default=None, eq=False, repr=False, alias="job", converter=_link)


def _unknown_text(job: Job) -> str:
    record = job.record
    heard = f"no sign of its task within {record.grace:g} s" if record.webhooks else "its POST got no readable answer"
    why = f" ({record.answer_problem})" if record.answer_problem else ""
    return (
        f"job {job.ref}: {heard}{why}, so it is unknown whether the POST reached {job.provider}; nothing was resent:"
        " look there before you submit again"
    )
