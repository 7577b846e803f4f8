"""What the memory store holds: journals, when their work is due, and what counts for an account's limits."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

from attrs import define, field

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.stores.base import Stored, Work

_SMALL_HEAP = 64  # a heap that is shorter is not worth tidying


@define(eq=False, repr=False)
class HeldJournal:
    """All that is held of one ref; `is_known` says that its request is among the entries."""

    index: Index
    entries: list[Entry] = field(factory=list)
    by_id: dict[str, Entry] = field(factory=dict)
    size: int = 0
    repeats: int = 0
    changed_at: float = 0.0
    held_until: float = 0.0
    is_known: bool = False
    is_gone: bool = False

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.by_id[entry.id] = entry
        self.size += entry.size
        self.changed_at = max(self.changed_at, entry.at)
        self.is_known = self.is_known or entry.kind == "request"

    def take(self, entries: Sequence[Entry]) -> bool:
        """Add what is new and fits, count the rest; return whether something did not fit."""
        is_full = False
        for entry in entries:
            fits = len(self.entries) < MAX_ENTRIES and self.size + entry.size <= MAX_JOURNAL_BYTES
            if entry.id in self.by_id:
                self.repeats += entry.is_bounded
            elif entry.is_bounded and not fits:
                self.repeats += 1
                is_full = True
            else:
                self.add(entry)
        return is_full

    def missed(self, sent: Sequence[Entry], known: int) -> tuple[Entry, ...]:
        ids = {entry.id for entry in sent if entry.id in self.by_id}
        if not ids:
            return tuple(self.entries[known:])
        return tuple(entry for n, entry in enumerate(self.entries) if n >= known or entry.id in ids)

    def due(self, work: Work) -> float | None:
        if self.is_gone or not self.is_known:
            return None
        if work == "polls":
            return self.index.poll_at
        return None if self.index.handle_at is None else max(self.index.handle_at, self.held_until)

    def stored(self, after: int = 0) -> Stored:
        entries = tuple(self.entries[after:])
        return Stored(index=self.index, count=len(self.entries), entries=entries, repeats=self.repeats)


@define(eq=False, repr=False)
class Agenda:
    """Jobs by when one kind of work is due, a heap for each provider; what a heap holds may be out of date."""

    work: Work
    _heaps: dict[str, list[tuple[float, int, HeldJournal]]] = field(factory=dict, init=False)
    _tidy_at: dict[str, int] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def put(self, job: HeldJournal) -> None:
        due = job.due(self.work)
        if due is None:
            return
        heap = self._heaps.setdefault(job.index.provider, [])
        heapq.heappush(heap, (due, next(self._numbers), job))
        if len(heap) > self._tidy_at.get(job.index.provider, _SMALL_HEAP):
            heap[:] = {id(item[2]): item for item in heap if item[2].due(self.work) == item[0]}.values()
            heapq.heapify(heap)
            self._tidy_at[job.index.provider] = _SMALL_HEAP + 2 * len(heap)

    def first(self, providers: Sequence[str] | None) -> HeldJournal | None:
        chosen = self._heaps if providers is None else self._heaps.keys() & set(providers)
        tops = [top for provider in chosen if (top := self._top(provider)) is not None]
        return min(tops)[2] if tops else None

    def _top(self, provider: str) -> tuple[float, int, HeldJournal] | None:
        heap = self._heaps[provider]
        while heap and heap[0][2].due(self.work) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None


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
