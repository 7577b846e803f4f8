"""The synchronous half of a job's handle: its origin and its current state."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, ClassVar, Never, Self, SupportsIndex

import attrs

from audioext.models import markup
from audioext.models.record import Record, Verdict
from audioext.models.requests import Request
from audioext.models.results import Stage, Track, fetched_by
from audioext.runtime.held import HeldJob, JobContext


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
    """The properties of a `Job` that need no waiting. Two handles of one job are equal."""

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
        stage = self.stage.name if self.stage is not None else "NEW"
        return f"<Job {self.ref} {self.provider} {stage} {self.verdict.name}>"

    def _repr_html_(self) -> str:
        """Show the stages in a notebook, each with its time since the submit."""
        record = self.record
        rows: list[tuple[str, str, str]] = []
        for item in record.reached:
            # SUBMITTED comes from the POST's answer, so its source is shown only if a webhook was first.
            source = "" if item.stage is Stage.SUBMITTED and item.source != "webhook" else item.source
            rows.append((item.stage.name.lower(), f"{item.at - record.created_at:.1f} s", source))
        fault = record.fault.message if record.fault is not None else record.refusal
        if record.verdict not in {Verdict.OPEN, Verdict.COMPLETE}:
            rows.append((record.verdict.name.lower(), "", fault or ""))
        return markup.table(f"job {self.ref} at {self.provider}", rows)


class JobNotice:
    """An event or a failure of a job. A copy keeps its job; a pickled one has none in another process."""

    __slots__ = ()

    def __copy__(self) -> Self:
        """Return the same object, which is frozen."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy with its own meta."""
        meta = deepcopy(self.meta, memo)  # type: ignore[attr-defined]  # the classes below this have one
        return attrs.evolve(self, meta=meta)  # type: ignore[misc]  # they are attrs classes

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Leave out the job, which belongs to its client."""
        return object.__reduce_ex__(attrs.evolve(self, job=None), protocol)  # type: ignore[misc]  # as above
