"""The live handle of a job: what a user awaits, iterates and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from attrs import field, frozen

from audioext.errors import AudioextError, ConfigError, Problem, RequestError, StoreError, shown
from audioext.models.checks import bounded
from audioext.models.record import Verdict
from audioext.models.results import FailureReason, Song, Source, Stage, Track, fetched_by
from audioext.runtime.facts import JobFacts, Told
from audioext.runtime.held import HeldJob, JobContext
from audioext.runtime.waits import until
from audioext.state.tracks import moment, song_of, stage_reached

TOLD_STAGES = (Stage.TEXT, Stage.FIRST, Stage.COMPLETE)


class SubmitUnknownError(AudioextError):
    """No word of the task within the grace period: the POST may have landed, so nothing was resent.

    Look at the provider's own task list before you submit again. The job can still be adopted: a late
    callback completes it, and a later `await job` then returns the song.
    """

    def __init__(self, message: str, *, job: Job) -> None:
        """Keep the *job*, whose `ref` leads back to it from any process."""
        self.job = job
        super().__init__(message)


class JobError(AudioextError):
    """A wait for a job ended without its result; `job` can be awaited again."""

    def __init__(self, message: str, *, job: Job) -> None:
        """Keep the *job*, whose `ref` leads back to it from any process."""
        self.job = job
        super().__init__(message)


class JobFailedError(JobError):
    """The provider gave the task up; `reason`, `code` and `charged` say why and what it cost."""

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
        """Keep the facts of the failure, and the tracks that were known by then."""
        self.reason = reason
        self.code = code
        self.charged = charged
        self.tracks: tuple[Track, ...] = tuple(tracks)
        super().__init__(message, job=job)


class StageTimeoutError(JobError, TimeoutError):
    """The stage was not reached in time; the job lives on, await it again or ask `job.refresh()`."""


class JobExpiredError(StageTimeoutError):
    """The job was given up at its deadline; a late callback still completes it."""


class ClientClosedError(JobError):
    """The client was closed during the wait; the job lives on in the store, open a client there again."""


class StageWait:
    """An awaitable that can be awaited any number of times: the `StageEvent` of one stage."""

    def __init__(self, job: Job, stage: Stage) -> None:
        """Wait for *stage* of *job* whenever this is awaited."""
        self._job = job
        self._stage = stage

    def __await__(self) -> Generator[object, None, StageEvent]:
        """Wait until the stage is reached; see `Job.wait` for what is raised."""
        return self._job.wait(self._stage).__await__()

    def __repr__(self) -> str:
        """Name the job and the stage."""
        return f"<{self._stage.name.lower()} of {self._job!r}>"


class Job(JobFacts):
    """A submitted task, to be awaited: `await job` returns its `Song`.

    Awaiting, iterating, `text`, `first` and `complete` can be used any number of times and by any number of
    waiters; each wait is private, so that cancelling one disturbs nobody, least of all the task. Two handles of one
    job are equal. `is_new` says that the call which returned this handle submitted the job, rather than found it.
    """

    __slots__ = ("is_new",)

    def __init__(self, held: HeldJob, context: JobContext, *, is_new: bool = False) -> None:
        """Hold the job; clients make jobs, users get them."""
        super().__init__(held, context)
        self.is_new = is_new

    @property
    def failure(self) -> Failure | None:
        """Why the job failed, `None` if it did not."""
        record = self.record
        fault = record.fault
        return (
            None
            if fault is None
            else Failure(
                reason=fault.reason,
                code=fault.code,
                message=fault.message,
                charged=fault.charged,
                at=moment(fault.at),
                ref=record.ref,
                provider=record.provider,
                task_id=record.task_id,
                tracks=self.tracks,
                meta=record.meta,
                job=self,
            )
        )

    def event(self, stage: Stage) -> StageEvent | None:
        """Return the event of *stage* with the tracks that were known when it was reached, `None` if it was not."""
        record = self.record
        found = stage_reached(record, stage)
        return (
            None
            if found is None
            else StageEvent(
                stage=stage,
                tracks=fetched_by(self._context.files(self._held), found[1]),
                source=found[0].source,
                at=moment(found[0].at),
                ref=record.ref,
                provider=record.provider,
                task_id=record.task_id,
                meta=record.meta,
                job=self,
            )
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

    async def wait(self, stage: Stage = Stage.COMPLETE, *, timeout: float | None = None) -> StageEvent:  # noqa: ASYNC109 - a private wait is ended, never the job
        """Return the event of *stage* as soon as it is reached, in at most *timeout* seconds.

        The default for *timeout* is the client's `wait_timeout`.

        Raises:
            JobFailedError: the provider gave the task up before that stage.
            StageTimeoutError: it was not reached in time; the job lives on.
            SubmitUnknownError: there was no word of the task within the grace period.
            ClientClosedError: the client was closed.
            RequestError: *timeout* is no finite number above 0, or *stage* no stage.
        """
        if not isinstance(stage, Stage):
            raise RequestError([Problem("stage", f"must be one like Stage.FIRST, not {shown(stage)}")], is_submit=False)
        return await until(self, self.event, stage, self._deadline(timeout))

    async def result(self, *, timeout: float | None = None) -> Song:  # noqa: ASYNC109 - as above
        """Return the song, in at most *timeout* seconds; `await job` does the same with the default.

        Raises:
            AudioextError: as `wait` does.
        """
        return await until(self, self._song, Stage.COMPLETE, self._deadline(timeout))

    def __await__(self) -> Generator[object, None, Song]:
        """Wait for the song; see `result`."""
        return self.result().__await__()

    def __aiter__(self) -> AsyncIterator[StageEvent]:
        """Iterate over TEXT, FIRST and COMPLETE, from the beginning, then end or raise like `result`."""
        return self._events(self._deadline(None))

    async def refresh(self) -> Job:
        """Ask the provider for the status now, whatever the pace, and return this job.

        Raises:
            ProviderError: the call was refused; the job lives on.
            DecodeError: the answer cannot be read.
            SubmitUnknownError: the task's id is not known, so there is nothing to ask for.
            ClientClosedError: the client was closed.
        """
        self._context.check_loop()
        if self._context.is_closed():
            raise self._closed()
        with suppress(StoreError):  # which was said, once for all who wait
            await self._context.look(self.ref)
        if self.record.task_id is None:
            raise SubmitUnknownError(_unknown_text(self), job=self)
        await self._context.refresh(self._held)
        return self

    def _song(self, _: Stage) -> Song | None:
        held = self._held
        return song_of(held.record, self._context.files(held)) if held.record.stage is Stage.COMPLETE else None

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._context.wait_timeout if timeout is None else bounded(timeout)
        return self._context.clock.monotonic() + seconds

    async def _events(self, deadline: float) -> AsyncIterator[StageEvent]:
        for stage in TOLD_STAGES:
            yield await until(self, self.event, stage, deadline)

    def _given_up(self, stage: Stage, deadline: float) -> Exception:
        if deadline > self._context.clock.monotonic():
            return SubmitUnknownError(_unknown_text(self), job=self)
        last_words = self._held.last_words(self._context.clock.now())
        what = stage.name.lower()
        message = f"job {self.ref} did not reach {what} in time ({last_words}); it lives on, await it again"
        return StageTimeoutError(message, job=self)

    def _closed(self) -> ClientClosedError:
        message = f"the client was closed while job {self.ref} was awaited; the job lives on in the store"
        return ClientClosedError(message, job=self)

    def _raise_if_over(self) -> None:
        record = self.record
        if self._context.is_closed():
            raise self._closed()
        failure = self.failure
        if failure is not None:
            code = "" if failure.code is None else f" (code {failure.code})"
            message = f"job {self.ref} at {self.provider} failed, {failure.reason}{code}: {failure.message}"
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
            message = f"job {self.ref} was given up at its deadline; a late callback still completes it"
            raise JobExpiredError(message, job=self)


@frozen(kw_only=True, repr=False)
class StageEvent(Told):
    """A stage was reached: the tracks known at that moment, how it was learnt and when (tz-aware)."""

    stage: Stage
    tracks: tuple[Track, ...]
    source: Source
    at: datetime
    ref: str
    provider: str
    task_id: str | None = None
    meta: Mapping[str, object] = field(factory=dict, hash=False)
    _job: Job | None = field(default=None, eq=False, alias="job")

    @property
    def job(self) -> Job:
        """The job, which goes on: to be awaited, refreshed, or asked what is known now.

        Raises:
            ConfigError: this event was not made by a client.
        """
        return _made(self, self._job)

    @property
    def is_latest(self) -> bool:
        """Whether nothing later is known by now: neither a later stage nor a failure."""
        job = self.job
        return job.verdict is not Verdict.FAILED and (job.stage is None or job.stage <= self.stage)

    def __repr__(self) -> str:
        """Show the stage, its job and what it brought, on one line."""
        return f"<StageEvent {self.stage.name} of {self.ref} by {self.source}, {len(self.tracks)} tracks>"


@frozen(kw_only=True)
class Failure(Told):
    """A task failed: why, in the provider's words and in ours, and what happened to the money."""

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
    _job: Job | None = field(default=None, eq=False, repr=False, alias="job")

    @property
    def job(self) -> Job:
        """The job, which may still rise to complete.

        Raises:
            ConfigError: this failure was not made by a client.
        """
        return _made(self, self._job)


def _made(value: object, job: Job | None) -> Job:
    if job is None:
        raise ConfigError(f"this {type(value).__name__} was not made by a client, or was pickled, so it has no job")
    return job


def _unknown_text(job: Job) -> str:
    record = job.record
    heard = f"no word of its task within {record.grace:g} s" if record.webhooks else "its POST got no readable answer"
    why = f" ({record.answer_problem})" if record.answer_problem else ""
    return (
        f"job {job.ref}: {heard}{why}, so nobody knows whether the POST landed at {job.provider}; nothing was resent,"
        " look there before you submit again"
    )
