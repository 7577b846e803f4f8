"""The live handle of a job: what a user awaits, iterates and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from audioext.errors import AudioextError, Problem, RequestError, StoreError, shown
from audioext.models.checks import bounded
from audioext.models.record import Record, Verdict
from audioext.models.requests import Request
from audioext.models.results import Failure, FailureReason, Song, Stage, StageEvent, Track
from audioext.runtime.held import HeldJob, JobContext
from audioext.state import views

_T = TypeVar("_T")

TOLD_STAGES = (Stage.TEXT, Stage.FIRST, Stage.COMPLETE)
LOOK_SECONDS = 60.0
"""How long a wait relies on being woken before it reads the truth itself."""


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


class Job:
    """A submitted task, to be awaited: `await job` returns its `Song`.

    Awaiting, iterating, `text`, `first` and `complete` can be used any number of times and by any number of
    waiters; each wait is private, so that cancelling one disturbs nobody, least of all the task. Two handles of one
    job are equal. `is_new` says that the call which returned this handle submitted the job, rather than found it.
    """

    __slots__ = ("__weakref__", "_context", "_held", "is_new")

    def __init__(self, held: HeldJob, context: JobContext, *, is_new: bool = False) -> None:
        """Hold the job; clients make jobs, users get them."""
        self._held = held
        self._context = context
        self.is_new = is_new

    def __eq__(self, other: object) -> bool:
        """Say whether *other* is a handle of the same job."""
        return isinstance(other, Job) and self._held.ref == other._held.ref

    def __hash__(self) -> int:
        """Hash the ref."""
        return hash(self._held.ref)

    @property
    def ref(self) -> str:
        """Our public id of the job, safe to print and to store."""
        return self._held.ref

    @property
    def record(self) -> Record:
        """What this process knows of the job."""
        return self._held.record

    @property
    def provider(self) -> str:
        """The name of the provider that does the work."""
        return self.record.provider

    @property
    def task_id(self) -> str | None:
        """The provider's id of the task, once it is known."""
        return self.record.task_id

    @property
    def request(self) -> Request:
        """What was asked for."""
        return self.record.request

    @property
    def meta(self) -> Mapping[str, object]:
        """What the submitter noted down."""
        return self.record.meta

    @property
    def key(self) -> str | None:
        """The key that makes a repeated submit return this job."""
        return self.record.key

    @property
    def stage(self) -> Stage | None:
        """The latest stage reached; `None` until the task is known to exist."""
        return self.record.stage

    @property
    def verdict(self) -> Verdict:
        """Whether the job has ended, and how."""
        return self.record.verdict

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks known so far."""
        return views.fetched_by(self._context.files(self.ref), self.record.tracks)

    @property
    def failure(self) -> Failure | None:
        """Why the job failed, `None` if it did not."""
        return views.failure(self.record, self._context.files(self.ref))

    @property
    def created_at(self) -> datetime:
        """When the job was made, before its POST (tz-aware)."""
        return datetime.fromtimestamp(self.record.created_at, UTC)

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
            raise RequestError([Problem("stage", f"must be one like Stage.FIRST, not {shown(stage)}")])
        return await self._until(partial(self._event, stage), self._deadline(timeout), stage.name.lower())

    async def result(self, *, timeout: float | None = None) -> Song:  # noqa: ASYNC109 - as above
        """Return the song, in at most *timeout* seconds; `await job` does the same with the default.

        Raises:
            AudioextError: as `wait` does.
        """
        return await self._until(self._song, self._deadline(timeout), "complete")

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
        """
        await self._read()
        if self.record.task_id is None:
            raise SubmitUnknownError(_unknown_text(self), job=self)
        await self._context.refresh(self._held)
        return self

    def __repr__(self) -> str:
        """Show the ref, the provider and how far the job is."""
        stage = self.stage.name if self.stage is not None else "NEW"
        return f"<Job {self.ref} {self.provider} {stage} {self.verdict.name}>"

    def _song(self) -> Song | None:
        return views.song(self.record, self._context.files(self.ref))

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._context.wait_timeout if timeout is None else bounded(timeout)
        return self._context.clock.monotonic() + seconds

    async def _events(self, deadline: float) -> AsyncIterator[StageEvent]:
        for stage in TOLD_STAGES:
            yield await self._until(partial(self._event, stage), deadline, stage.name.lower())

    def _event(self, stage: Stage) -> StageEvent | None:
        return views.stage_event(self.record, stage, self._context.files(self.ref))

    async def _read(self) -> None:
        """Look at the truth; while the store is down, waits go on with what is known."""
        with suppress(StoreError):  # which was said, once for all who wait
            await self._context.look(self.ref)

    async def _until(self, outcome: Callable[[], _T | None], deadline: float, what: str) -> _T:
        clock = self._context.clock
        waiter = self._held.waiter()  # before the read: news in between is not missed
        self._context.watch(1)
        try:
            await self._read()
            is_last = False
            while True:
                found = outcome()
                if found is not None:
                    return found
                self._raise_if_over()
                now = clock.monotonic()
                ends_at = min(deadline, self._unknown_at(now))
                if ends_at <= now and is_last:
                    raise (
                        self._timed_out(what) if deadline <= now else SubmitUnknownError(_unknown_text(self), job=self)
                    )
                if ends_at > now and await clock.wait(waiter, min(ends_at - now, LOOK_SECONDS)):
                    waiter = self._held.waiter()
                    continue
                # Nobody spoke: read the truth, now and then and once more before giving up.
                is_last = ends_at <= clock.monotonic()
                self._held.leave(waiter)
                waiter = self._held.waiter()
                await self._read()
        finally:
            self._context.watch(-1)
            self._held.leave(waiter)

    def _unknown_at(self, now: float) -> float:
        if self.record.task_id is not None or self._held.posts:
            return float("inf")
        if not self.record.webhooks and self.record.answer_problem is not None:
            return now  # nobody will ever call
        return now + (self.record.unknown_at - self._context.clock.now())

    def _raise_if_over(self) -> None:
        record = self.record
        if self._context.is_closed():
            message = f"the client was closed while job {self.ref} was awaited; the job lives on in the store"
            raise ClientClosedError(message, job=self)
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
            message = f"job {self.ref} has no task, its submit was refused: {record.refusal}"
            raise JobError(message, job=self)
        if record.verdict is Verdict.EXPIRED:
            message = f"job {self.ref} was given up at its deadline; a late callback still completes it"
            raise JobExpiredError(message, job=self)

    def _timed_out(self, what: str) -> StageTimeoutError:
        last_words = self._held.last_words(self._context.clock.now())
        message = f"job {self.ref} did not reach {what} in time ({last_words}); it lives on, await it again"
        return StageTimeoutError(message, job=self)


def _unknown_text(job: Job) -> str:
    record = job.record
    heard = f"no word of its task within {record.grace:g} s" if record.webhooks else "its POST got no readable answer"
    why = f" ({record.answer_problem})" if record.answer_problem else ""
    return (
        f"job {job.ref}: {heard}{why}, so nobody knows whether the POST landed at {job.provider}; nothing was resent,"
        " look there before you submit again"
    )
