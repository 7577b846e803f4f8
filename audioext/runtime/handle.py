"""The base of a job's handle: its origin, its current state, and a single wait for news of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import ClassVar, Never, Self, TypeVar

from attrs import frozen

from audioext.errors import StoreError
from audioext.models import markup
from audioext.models.record import Record, Verdict
from audioext.models.requests import Request
from audioext.models.results import Files, Stage, Track, fetched_by
from audioext.runtime.held import HeldJob
from audioext.runtime.journal import Journal

_T = TypeVar("_T")

LOOK_SECONDS = 60.0
"""How long a wait relies on being woken before it reads the store itself."""


@frozen(kw_only=True)
class JobContext:
    """What a `Job` needs from the client that created it."""

    journal: Journal
    look: Callable[[str], Awaitable[None]]
    """Update a job from the store, or raise `StoreError`."""
    look_soon: Callable[[str], None]
    """Queue the same update; jobs are read one after the other, and failures are logged."""
    refresh: Callable[[HeldJob], Awaitable[None]]
    check_loop: Callable[[], None]
    """Raise `ConfigError` on any event loop but the client's: a waiter there would never be woken."""
    files: Callable[[HeldJob], Files]
    """Return the `Files` that download a job's files."""
    wait_timeout: float


class Live:
    """A live object: a copy of it is the object itself, and it cannot be pickled."""

    __slots__ = ()
    _elsewhere: ClassVar[str]
    """What the error says about another process."""

    def __copy__(self) -> Self:
        """Return the same object."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return the same object, like `__copy__`."""
        return self

    def __reduce__(self) -> Never:
        """Refuse to be pickled.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self!r} {self._elsewhere}")


class JobFacts(Live):
    """The properties of a `Job`, and how it waits. Two handles of one job are equal."""

    __slots__ = ("__weakref__", "_context", "_held")
    _elsewhere = "belongs to its client: pass on its ref, and call `client.job(ref)` there"

    def __init__(self, held: HeldJob, context: JobContext) -> None:
        """Keep the job and its context."""
        self._held = held
        self._context = context

    def __eq__(self, other: object) -> bool:
        """Return whether *other* is a handle of the same job."""
        return isinstance(other, JobFacts) and self._held.ref == other._held.ref

    def __hash__(self) -> int:
        """Hash the ref."""
        return hash(self._held.ref)

    @property
    def ref(self) -> str:
        """The public id of the job, which is safe to print and to store."""
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
        """The provider's id of the task, `None` until it is known."""
        return self.record.task_id

    @property
    def request(self) -> Request:
        """The request that was submitted."""
        return self.record.request

    @property
    def meta(self) -> Mapping[str, object]:
        """The metadata that was given to the submit."""
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
        return fetched_by(self._context.files(self._held), self.record.tracks)

    @property
    def created_at(self) -> datetime:
        """When the job was created, before its POST (timezone-aware)."""
        return datetime.fromtimestamp(self.record.created_at, UTC)

    def __repr__(self) -> str:
        """Show the ref, the provider and how far the job is."""
        state = self.stage if self.verdict is Verdict.OPEN else self.verdict
        return f"<Job {self.ref} {self.provider}, {'new' if state is None else state}>"

    def _repr_html_(self) -> str:
        """Show the stages in a notebook, each with its time since the submit."""
        record = self.record
        rows: list[tuple[str, str, str]] = []
        for item in record.reached:
            # SUBMITTED comes from the POST's answer, so its source is shown only if a webhook was first.
            source = "" if item.stage is Stage.SUBMITTED and item.source != "webhook" else item.source
            rows.append((str(item.stage), f"{item.at - record.created_at:.1f} s", source))
        fault = record.fault.message if record.fault is not None else record.refusal
        if record.verdict not in {Verdict.OPEN, Verdict.COMPLETE}:
            rows.append((str(record.verdict), "", fault or ""))
        return markup.table(f"job {self.ref} at {self.provider}", rows)

    # --- a single wait: news in this process wakes it, and it reads the store now and then ------------------

    @abstractmethod
    def _raise_if_over(self) -> None:
        """Raise the error that ends the wait, if the job or the client has ended."""

    @abstractmethod
    def _given_up(self, stage: Stage, deadline: float) -> Exception:
        """Return the error of a wait that reached its *deadline*, or of a submit that counts as unknown."""

    async def _until(self, look: Callable[[Stage], _T | None], stage: Stage, deadline: float) -> _T:
        """Wait until `look(stage)` is not `None` and return it; *deadline* is on the monotonic clock."""
        held, context = self._held, self._context
        clock = context.journal.clock
        context.check_loop()
        is_last = False
        if held.record.is_final:
            await self._look()  # its verdict may have risen since
        else:
            context.look_soon(held.ref)
        while True:
            found = look(stage)
            if found is not None:
                return found
            self._raise_if_over()
            now = clock.monotonic()
            ends_at = min(deadline, self._unknown_at(now))
            if ends_at <= now and is_last:
                raise self._given_up(stage, deadline)
            if ends_at > now:
                waiter = held.waiter()
                timer = clock.end(waiter, min(ends_at - now, LOOK_SECONDS))
                try:
                    is_news = await waiter
                finally:
                    timer.cancel()
                    held.leave(waiter)
                if is_news:
                    continue
            # No news woke us: read the store, and once more before giving up.
            is_last = ends_at <= clock.monotonic()
            await self._look()

    async def _look(self) -> None:
        """Update the job from the store; while the store is down, the wait goes on with what is known."""
        with suppress(StoreError):  # it is logged, once for all waiters
            await self._context.look(self.ref)

    def _unknown_at(self, now: float) -> float:
        held = self._held
        if held.record.task_id is not None or held.posts:
            return float("inf")
        if not held.record.webhooks and held.record.answer_problem is not None:
            return now  # without a callback URL no webhook can come
        return now + (held.record.unknown_at - self._context.journal.clock.now())


class Here:
    """A part of a value that stays in this process: a deep copy shares it, and pickling leaves `None` in its place."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return the same object."""
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Become `None` in another process."""
        return type(None), ()
