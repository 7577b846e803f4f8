"""The live side of a job: handles that are awaited, and the registry that wakes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import attrs
from attrs import frozen

from audioext.clock import Clock
from audioext.errors import (
    ClientClosedError,
    JobError,
    JobExpiredError,
    JobFailedError,
    StageTimeoutError,
    StoreError,
    SubmitUnknownError,
)
from audioext.models.record import Record, Verdict
from audioext.models.requests import Request
from audioext.models.results import Failure, Saver, Song, Stage, StageEvent, Track
from audioext.runtime.waiters import Registry
from audioext.state import stages
from audioext.stores.base import Versioned

_log = logging.getLogger("audioext.runtime.jobs")
_T = TypeVar("_T")

TOLD_STAGES = (Stage.TEXT, Stage.FIRST, Stage.COMPLETE)


@frozen(kw_only=True)
class Desk:
    """What a job needs of the client that handed it out."""

    registry: Registry
    read: Callable[[str], Awaitable[Versioned | None]]
    refresh: Callable[[str], Awaitable[None]]
    saver: Saver
    clock: Clock
    wait_timeout: float

    def job(self, stored: Versioned) -> Job:
        """Return the one live handle of a job, brought up to date."""
        handle = self.registry.handle(stored, lambda stored: Job(stored, self))
        assert isinstance(handle, Job)  # noqa: S101 - nobody else makes handles
        return handle


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
    waiters; each wait is private, so that cancelling one disturbs nobody, least of all the task.
    """

    def __init__(self, stored: Versioned, desk: Desk) -> None:
        """Hold the job as *stored*; clients make jobs, users get them."""
        self.stored = stored
        self._desk = desk
        self.ref: str = stored.record.ref

    @property
    def record(self) -> Record:
        """What this process knows of the job."""
        return self.stored.record

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
        return self.record.tracks

    @property
    def failure(self) -> Failure | None:
        """Why the job failed, `None` if it did not."""
        return stages.failure(self.record)

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
        """
        return await self._until(
            lambda: stages.stage_event(self.record, stage), self._deadline(timeout), f"{stage.name.lower()}"
        )

    async def result(self, *, timeout: float | None = None) -> Song:  # noqa: ASYNC109 - as above
        """Return the song, in at most *timeout* seconds; `await job` does the same with the default.

        Raises:
            JobFailedError: the provider gave the task up.
            StageTimeoutError: it was not complete in time; the job lives on.
            SubmitUnknownError: there was no word of the task within the grace period.
            ClientClosedError: the client was closed.
        """
        return await self._until(self._song, self._deadline(timeout), "complete")

    def __await__(self) -> Generator[object, None, Song]:
        """Wait for the song; see `result`."""
        return self.result().__await__()

    def __aiter__(self) -> AsyncIterator[StageEvent]:
        """Iterate over TEXT, FIRST and COMPLETE, from the beginning, then end or raise like `result`."""
        return _StageEvents(self, self._deadline(None))

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
        await self._desk.refresh(self.ref)
        return self

    def __repr__(self) -> str:
        """Show the ref, the provider and how far the job is."""
        stage = self.stage.name if self.stage is not None else "NEW"
        return f"<Job {self.ref} {self.provider} {stage} {self.verdict.name}>"

    def _song(self) -> Song | None:
        song = stages.song(self.record)
        return None if song is None else attrs.evolve(song, saver=self._desk.saver)

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._desk.wait_timeout if timeout is None else timeout
        return asyncio.get_running_loop().time() + seconds

    async def _read(self) -> None:
        """Look at the truth; while the store is down, waits go on with what is known."""
        try:
            stored = await self._desk.read(self.ref)
        except StoreError as error:
            _log.warning("job %s: the store could not be read, waiting on: %s", self.ref, error)
        else:
            if stored is None:
                self._raise_if_over()
                if self._desk.registry.is_posting(self.ref):
                    return  # the store has lost it; it is stored again as soon as that is there
                task = "" if self.task_id is None else f"; its task is {self.task_id} at {self.provider}"
                message = (
                    f"job {self.ref} is not in the store any more: its submit was refused, it was purged, or the "
                    f"store has lost what it held{task}"
                )
                raise JobError(message, job=self)
            if self._desk.registry.is_news(stored):
                self._desk.registry.publish(stored)  # the others who wait want to know it too

    async def _until(self, outcome: Callable[[], _T | None], deadline: float, what: str) -> _T:
        loop = asyncio.get_running_loop()
        bell = self._desk.registry.bell(self.ref)  # before the read: news in between is not missed
        try:
            await self._read()
            while True:
                found = outcome()
                if found is not None:
                    return found
                self._raise_if_over()
                wait = min(deadline, self._unknown_at(loop.time())) - loop.time()
                if wait > 0:
                    await asyncio.wait([bell], timeout=wait)
                elif loop.time() >= deadline:
                    raise StageTimeoutError(self._timeout_text(what), job=self)
                else:
                    raise SubmitUnknownError(_unknown_text(self), job=self)
                if bell.done():
                    bell = self._desk.registry.bell(self.ref)
                    if self._desk.registry.is_gone(self.ref):
                        await self._read()
        finally:
            bell.cancel()

    def _unknown_at(self, loop_now: float) -> float:
        if self.record.stage is not None or self._desk.registry.is_posting(self.ref):
            return float("inf")
        if not self.record.webhooks and self._desk.registry.is_doubted(self.ref):
            return loop_now  # nobody will ever call
        return loop_now + (self.record.unknown_at - self._desk.clock.now())

    def _raise_if_over(self) -> None:
        if self._desk.registry.closed:
            message = f"the client was closed while job {self.ref} was awaited; the job lives on in the store"
            raise ClientClosedError(message, job=self)
        failure = stages.failure(self.record)
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
        if self.record.verdict is Verdict.EXPIRED:
            message = f"job {self.ref} was given up at its deadline; a late callback still completes it"
            raise JobExpiredError(message, job=self)

    def _timeout_text(self, what: str) -> str:
        known = "nothing is known of it yet" if self.stage is None else f"it is at {self.stage.name.lower()}"
        return f"job {self.ref} did not reach {what} in time ({known}); it lives on, await it again"


class _StageEvents:
    """One iteration over a job's stages; it holds nothing between two steps."""

    def __init__(self, job: Job, deadline: float) -> None:
        self._job = job
        self._deadline = deadline
        self._left = list(TOLD_STAGES)

    def __aiter__(self) -> AsyncIterator[StageEvent]:
        return self

    async def __anext__(self) -> StageEvent:
        if not self._left:
            raise StopAsyncIteration
        stage = self._left[0]
        event = await self._job._until(  # noqa: SLF001 - the iterator is the job's own
            lambda: stages.stage_event(self._job.record, stage), self._deadline, stage.name.lower()
        )
        self._left.pop(0)
        return event


def _unknown_text(job: Job) -> str:
    grace = job.record.grace
    heard = f"no word of its task within {grace:g} s" if job.record.webhooks else "its POST got no readable answer"
    return (
        f"job {job.ref}: {heard}, so nobody knows whether the POST landed at {job.provider}; nothing was resent,"
        " look there before you submit again"
    )
