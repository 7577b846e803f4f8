"""What the memory store holds: journals, when their work is due, and what counts for an account's limits.

Of what is held, few objects stay alive for an entry: each of them costs every garbage collection of the process.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

import attrs
from attrs import define, field

from audioext.models.entries import POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.stores.base import Stored, Work

LONG_JOURNAL = 16
"""A journal with more entries has a set of their ids; in a shorter one they are found as fast."""


@define(eq=False, repr=False)
class HeldJournal:
    """All that is held of one ref; `is_known` says that its request is among the entries.

    The index is the one that was taken last, and its due times are those beside it.
    """

    index: Index
    poll_at: float | None = None
    handle_at: float | None = None
    held_until: float = 0.0
    entries: list[Entry] = field(factory=list)
    ids: set[str] | None = None
    size: int = 0
    repeats: int = 0
    changed_at: float = 0.0
    is_known: bool = False
    is_gone: bool = False

    def holds(self, id_: str) -> bool:
        if self.ids is not None:
            return id_ in self.ids
        for entry in self.entries:  # noqa: SIM110 - three times as fast as `any`
            if entry.id == id_:
                return True
        return False

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.size += len(entry.body)
        self.changed_at = max(self.changed_at, entry.at)
        if entry.kind == "request":
            self.is_known = True
        if self.ids is not None:
            self.ids.add(entry.id)
        elif len(self.entries) > LONG_JOURNAL:
            self.ids = {each.id for each in self.entries}

    def due(self, work: Work) -> float | None:
        if self.is_gone or not self.is_known:
            return None
        if work == "polls":
            return self.poll_at
        return None if self.handle_at is None else max(self.handle_at, self.held_until)

    def stored(self, after: int = 0) -> Stored:
        index = self.index
        if index.poll_at != self.poll_at or index.handle_at != self.handle_at:
            index = attrs.evolve(index, poll_at=self.poll_at, handle_at=self.handle_at)
        entries = tuple(self.entries[after:])
        return Stored(index=index, count=len(self.entries), entries=entries, repeats=self.repeats)


@define(eq=False, repr=False)
class Agenda:
    """Jobs by when one kind of work is due, a heap for each provider.

    A job is in its heap at its due time or sooner: one that became due later moves when it is looked at.
    """

    work: Work
    _heaps: dict[str, list[tuple[float, int, HeldJournal]]] = field(factory=dict, init=False)
    _queued: dict[HeldJournal, float] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def put(self, job: HeldJournal) -> None:
        due = job.due(self.work)
        if due is None:
            return
        queued = self._queued.get(job)
        if queued is None or due < queued:
            self._queued[job] = due
            heapq.heappush(self._heaps.setdefault(job.index.provider, []), (due, next(self._numbers), job))

    def first(self, providers: Sequence[str] | None) -> tuple[float, HeldJournal] | None:
        """Return the job whose work is due first, and when."""
        chosen = self._heaps if providers is None else self._heaps.keys() & set(providers)
        tops = [heap[0] for provider in chosen if self._settle(heap := self._heaps[provider])]
        if not tops:
            return None
        due, _, job = min(tops)
        return due, job

    def tidy(self) -> None:
        """Drop what is not due any more, or was due later once."""
        for heap in self._heaps.values():
            heap[:] = [item for item in heap if self._queued.get(item[2]) == item[0] and not item[2].is_gone]
            heapq.heapify(heap)
        self._queued = {job: due for job, due in self._queued.items() if not job.is_gone}

    def _settle(self, heap: list[tuple[float, int, HeldJournal]]) -> bool:
        """Bring a job that is due to the top of *heap*; return whether there is one."""
        while heap:
            queued, _, job = heap[0]
            due = job.due(self.work)
            if due == queued:
                return True
            heapq.heappop(heap)
            if self._queued.get(job) == queued:
                del self._queued[job]
                self.put(job)
        return False


@define(eq=False, repr=False)
class AccountJobs:
    """The jobs that may count for the limits of an account; those that no longer do leave when it is asked."""

    occupying: dict[str, HeldJournal] = field(factory=dict)
    submits: dict[str, HeldJournal] = field(factory=dict)

    def full_until(self, limits: Limits, now: float) -> float | None:
        until = None
        if limits.submits is not None:
            leaving = [at for ref, job in tuple(self.submits.items()) for at in self._leaves(ref, job, limits.per, now)]
            if len(leaving) >= limits.submits:
                until = min(leaving, default=now + limits.per)
        if until is None and limits.parallel is not None:
            occupying = sum(job.index.occupies_until > now for job in self.occupying.values())
            until = now + 1.0 if occupying >= limits.parallel else None
        return until

    def _leaves(self, ref: str, job: HeldJournal, per: float, now: float) -> Iterator[float]:
        index = job.index
        begin, span = (index.created_at, POST_SECONDS) if index.answered_at is None else (index.answered_at, per)
        if begin + span <= now:
            del self.submits[ref]
        elif begin < now + span:  # a submit that is answered now leaves after its window at the earliest
            yield begin + span if index.answered_at is not None else min(begin + span, now + per)
