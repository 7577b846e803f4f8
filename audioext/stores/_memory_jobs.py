"""What the memory store holds: journals, when their work is due, and what counts for an account's limits.

Of what is held, few objects stay alive for an entry: each of them costs every garbage collection of the process.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

from attrs import define, field

from audioext.models.entries import POST_SECONDS, Entry
from audioext.models.limits import Limits
from audioext.stores._append import Head
from audioext.stores.base import LONGEST_HOLD_SECONDS, Work


@define(eq=False, repr=False)
class HeldJournal:
    """All that is held of one ref: its entries by their ids, in their order."""

    head: Head
    entries: dict[str, Entry] = field(factory=dict)

    def due(self, work: Work) -> float | None:
        head = self.head
        if not head.is_known:
            return None
        if work == "polls":
            return head.poll_at
        return None if head.handle_at is None else max(head.handle_at, head.held_until)

    def bring_forward(self, work: Work, now: float, latest: float) -> None:
        """Make work due that a clock that was ahead must have put down: it is due later than can be."""
        _, _, poll_at, handle_at, held_until, *_ = self.head
        if work == "polls":
            if poll_at is not None and poll_at > latest:
                self.head = self.head._replace(poll_at=now)
        elif handle_at is not None and (
            (handle_at > latest and held_until <= now) or held_until > latest + LONGEST_HOLD_SECONDS
        ):
            self.head = self.head._replace(handle_at=now, held_until=0.0)

    def give_back(self, work: Work, at: float) -> None:
        """End a claim: the work is due at *at*, or sooner, or not at all."""
        head = self.head
        if work == "handlers":
            handle_at = None if head.handle_at is None else min(head.handle_at, at)
            self.head = head._replace(handle_at=handle_at, held_until=0.0)
        elif head.poll_at is not None:
            self.head = head._replace(poll_at=min(head.poll_at, at))


@define(eq=False, repr=False)
class Agenda:
    """Jobs by when one kind of work is due, a heap for each provider.

    A job is in its heap at its due time or sooner: one that became due later moves when it is looked at.
    """

    work: Work
    _heaps: dict[str, list[tuple[float, int, HeldJournal]]] = field(factory=dict, init=False)
    _queued: dict[HeldJournal, float] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def put(self, job: HeldJournal, due: float | None) -> None:
        if due is not None and ((queued := self._queued.get(job)) is None or due < queued):
            self._queued[job] = due
            heapq.heappush(self._heaps.setdefault(job.head.lookup.provider, []), (due, next(self._numbers), job))

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
        self._queued = {job: due for job, due in self._queued.items() if job.due(self.work) is not None}
        for heap in self._heaps.values():
            heap[:] = [item for item in heap if self._queued.get(item[2]) == item[0]]
            heapq.heapify(heap)

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
                self.put(job, due)
        return False


@define(eq=False, repr=False)
class AccountJobs:
    """The jobs that may count for the limits of an account; those that no longer do leave when it is asked."""

    occupying: dict[str, HeldJournal] = field(factory=dict)
    submits: dict[str, HeldJournal] = field(factory=dict)

    def note(self, job: HeldJournal) -> None:
        index = job.head.lookup
        self.submits[index.ref] = job
        if index.occupies_until > 0:
            self.occupying[index.ref] = job
        else:
            self.occupying.pop(index.ref, None)

    def forget(self, ref: str) -> None:
        self.submits.pop(ref, None)
        self.occupying.pop(ref, None)

    def full_until(self, limits: Limits, now: float) -> float | None:
        if limits.submits is not None:
            leaving = [at for ref, job in tuple(self.submits.items()) for at in self._leaves(ref, job, limits.per, now)]
            if len(leaving) >= limits.submits:
                return min(leaving, default=now + limits.per)
        if limits.parallel is not None:
            occupying = sum(job.head.lookup.occupies_until > now for job in self.occupying.values())
            return now + 1.0 if occupying >= limits.parallel else None
        return None

    def _leaves(self, ref: str, job: HeldJournal, per: float, now: float) -> Iterator[float]:
        index = job.head.lookup
        begin, span = (index.created_at, POST_SECONDS) if index.answered_at is None else (index.answered_at, per)
        if begin + span <= now:
            del self.submits[ref]
        elif begin < now + span:  # a submit that is answered now leaves after its window at the earliest
            yield begin + span if index.answered_at is not None else min(begin + span, now + per)
