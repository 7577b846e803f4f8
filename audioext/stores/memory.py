"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process.

Of what is held, few objects stay alive for an entry: each of them costs every garbage collection of the process.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from operator import attrgetter

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.stores._append import Head, apply, begin, orphan
from audioext.stores._engine import Fanout, follow
from audioext.stores.base import (
    LONGEST_HOLD_SECONDS,
    Appended,
    Changed,
    Created,
    Delivery,
    Existing,
    Full,
    Resync,
    Stored,
    Work,
    to_delivery,
)

_links = attrgetter("key", "task_id", "account", "answered_at", "occupies_until")


@define(eq=False, repr=False)
class _HeldJournal:
    """All that is held of one ref: its entries by their ids, in their order."""

    head: Head
    entries: dict[str, Entry] = field(factory=dict)

    def due(self, work: Work) -> float | None:
        head = self.head
        if work == "polls":
            return head.poll_at
        return None if head.handle_at is None else max(head.handle_at, head.held_until)

    def is_too_late(self, work: Work, now: float, latest: float) -> bool:
        """Say whether a clock that was ahead must have put *work* down: it is due later than can be."""
        _, _, poll_at, handle_at, held_until, *_ = self.head
        if work == "polls":
            return poll_at is not None and poll_at > latest
        is_late = handle_at is not None and handle_at > latest
        return is_late if held_until <= now else held_until > latest + LONGEST_HOLD_SECONDS

    def move(self, work: Work, at: float) -> None:
        """End a claim: *work* is due at *at*, or sooner, or not at all."""
        _, _, poll_at, handle_at, *_ = self.head
        if work == "handlers":
            self.head = self.head._replace(handle_at=None if handle_at is None else min(handle_at, at), held_until=0.0)
        elif poll_at is not None:
            self.head = self.head._replace(poll_at=min(poll_at, at))


@define(eq=False, repr=False)
class _Agenda:
    """Jobs by when one kind of work is due, a heap for each provider.

    A job is in its heap at its due time or sooner: one that became due later moves when it is looked at.
    """

    work: Work
    _heaps: dict[str, list[tuple[float, int, _HeldJournal]]] = field(factory=dict, init=False)
    _queued: dict[_HeldJournal, float] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def put(self, job: _HeldJournal, due: float | None) -> None:
        if due is not None and due < self._queued.get(job, math.inf):
            self._queued[job] = due
            heapq.heappush(self._heaps.setdefault(job.head.lookup.provider, []), (due, next(self._numbers), job))

    def first(self, providers: Sequence[str] | None) -> tuple[float, int, _HeldJournal] | None:
        """Return when the first work is due, and last the job that it is about."""
        tops: list[tuple[float, int, _HeldJournal]] = []
        for provider in self._heaps if providers is None else self._heaps.keys() & set(providers):
            heap = self._heaps[provider]
            while heap and heap[0][0] != (due := heap[0][2].due(self.work)):
                queued, _, job = heapq.heappop(heap)
                if self._queued.get(job) == queued:
                    del self._queued[job]
                    self.put(job, due)
            tops += heap[:1]
        return min(tops, default=None)


def _plan(jobs: Iterable[_HeldJournal] = ()) -> dict[Work, _Agenda]:
    agendas: dict[Work, _Agenda] = {"polls": _Agenda("polls"), "handlers": _Agenda("handlers")}
    for job in jobs:
        for work, agenda in agendas.items():
            agenda.put(job, job.due(work))
    return agendas


@define(eq=False, repr=False)
class _AccountJobs:
    """The jobs that may count for the limits of an account; those that no longer do leave when it is asked."""

    occupying: dict[str, _HeldJournal] = field(factory=dict)
    submits: dict[str, _HeldJournal] = field(factory=dict)

    def full_until(self, limits: Limits, now: float) -> float | None:
        if limits.submits is not None:
            leaving: list[float] = []
            for ref, job in tuple(self.submits.items()):
                index = job.head.lookup
                begin, span, most = index.answered_at, limits.per, math.inf
                if begin is None:
                    begin, span, most = index.created_at, POST_SECONDS, now + limits.per
                if begin + span <= now:
                    del self.submits[ref]
                elif begin < now + span:  # a submit that is answered now leaves after its window at the earliest
                    leaving.append(min(begin + span, most))
            if len(leaving) >= limits.submits:
                return min(leaving, default=now + limits.per)
        if limits.parallel is None or len(self.occupying) < limits.parallel:
            return None
        occupying = sum(job.head.lookup.occupies_until > now for job in self.occupying.values())
        return now + 1.0 if occupying >= limits.parallel else None


@define(eq=False, repr=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _jobs: dict[str, _HeldJournal] = field(factory=dict, init=False)
    _keys: dict[str, str] = field(factory=dict, init=False)
    _tasks: dict[tuple[str, str], tuple[str, ...]] = field(factory=dict, init=False)
    """The jobs that claim a task id, the last one first to be found."""
    _accounts: defaultdict[str, _AccountJobs] = field(factory=lambda: defaultdict(_AccountJobs), init=False)
    _arrivals: list[_HeldJournal] = field(factory=list, init=False)
    """The job of every webhook, in the order in which they came."""
    _secrets: dict[str, bytes] = field(factory=dict, init=False)
    _agendas: dict[Work, _Agenda] = field(factory=_plan, init=False)
    _claimed_at: dict[Work, float] = field(factory=dict, init=False)
    _fanout: Fanout = field(factory=Fanout, init=False)
    _users: int = field(default=0, init=False)
    _failing: str | None = field(default=None, init=False)

    @property
    def shared(self) -> bool:
        """Several clients of one process may share it."""
        return True

    async def open(self) -> None:
        """Count one more user; memory is always there."""
        self._users += 1

    async def aclose(self) -> None:
        """End the streams of changes with the last user; what is held stays for the next one."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            self._fanout.close()

    def fail(self, why: str | None) -> None:
        """Raise `StoreError` from every call until `fail(None)`: for testing what your code does then."""
        self._failing = why

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Begin a journal, unless the job exists or its account is full; see `Store.create`."""
        job = self._held().get(index.ref)
        if index.key is not None and index.key in self._keys:
            return Existing(self._keys[index.key])
        if job is not None and job.head.is_known:
            return Existing(index.ref)
        if (until := self._accounts[index.account].full_until(limits, now)) is not None:
            return Full(until)
        job = job or _HeldJournal(orphan(index.ref, index.provider, [entry]))
        # First, so that its creator, who has seen one entry, is handed the orphans with its next append.
        job.entries = {entry.id: entry, **job.entries}
        self._hold(job, begin(job.head, entry, index))
        self._fanout.publish((Changed(index.ref, job.head.entries),))
        return Created()

    async def append(  # noqa: PLR0913 - the protocol's
        self,
        ref: str,
        entries: Sequence[Entry],
        *,
        provider: str,
        index: Index | None = None,
        known: int = 0,
        look_at: float = 0.0,
        release: bool = False,
    ) -> Appended:
        """Append to a journal, and take the index of a writer that had seen all of it; see `Store.append`."""
        job = self._held().get(ref) or _HeldJournal(orphan(ref, provider, entries))
        done, head, new = apply(
            job.head,
            job.entries,
            entries,
            index=index,
            known=known,
            look_at=look_at,
            release=release,
            journal=job.entries.values,
            holder=self._keys.get,
        )
        for entry in new:
            job.entries[entry.id] = entry
            if entry.kind == "webhook":
                self._arrivals.append(job)
        if head.entries:
            self._hold(job, head)
        if new:
            self._fanout.publish((Changed(ref, head.entries),))
        return done

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after so many; see `Store.read`."""
        job = self._held().get(ref)
        return None if job is None else job.head.stored(tuple(job.entries.values())[after:])

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        self._held()
        return self._keys.get(key) if key is not None else self._tasks.get((provider, task_id or ""), (None,))[-1]

    async def jobs(self, *, is_open: bool | None = None) -> AsyncIterator[Stored]:
        """Yield the jobs in the order of their creation; see `Store.jobs`."""
        for job in tuple(self._held().values()):
            if job.head.is_known and is_open in {None, job.head.lookup.is_open}:
                yield job.head.stored(job.entries.values())

    async def claim(  # noqa: PLR0913 - the protocol's
        self,
        work: Work,
        *,
        now: float,
        until: float,
        limit: int,
        providers: Sequence[str] | None = None,
        latest: float = math.inf,
    ) -> tuple[str, ...]:
        """Take jobs whose work is due; see `Store.claim`."""
        jobs, agenda = self._held(), self._agendas[work]
        if now < self._claimed_at.get(work, now):  # the clock went back: only then something can be due too late
            for job in jobs.values():
                if job.is_too_late(work, now, latest):
                    job.move(work, now)
                agenda.put(job, job.due(work))
        self._claimed_at[work] = now
        claimed: list[str] = []
        while len(claimed) < limit and (first := agenda.first(providers)) is not None and first[0] <= now:
            job = first[-1]
            head = job.head
            job.head = head._replace(poll_at=until) if work == "polls" else head._replace(held_until=until)
            claimed.append(head.lookup.ref)
        return tuple(claimed)

    async def next_due(self, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        self._held()
        first = self._agendas[work].first(providers)
        return None if first is None else first[0]

    async def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed; see `Store.reschedule`."""
        job = self._held().get(ref)
        if job is not None:
            job.move(work, at)
            self._agendas[work].put(job, job.due(work))

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first."""
        held = self._held()
        jobs = [job for job in self._arrivals if ref in {None, job.head.lookup.ref}]
        webhooks = {job: [entry for entry in job.entries.values() if entry.kind == "webhook"] for job in set(jobs)}
        for job in reversed(jobs):
            index, entry = job.head.lookup, webhooks[job].pop()
            if held.get(index.ref) is job:  # else it was purged meanwhile
                yield to_delivery(index.ref, index.provider, entry, is_orphan=not job.head.is_known)

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield what is changed from now on; see `Store.changes`."""
        return follow(self._followed)

    async def secret(self, name: str, default: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        self._held()
        return self._secrets.setdefault(name, default)

    async def purge(self, *, before: float, deliveries_kept: int) -> int:
        """Forget what is old; see `Store.purge`."""
        jobs, surplus = self._held(), len(self._arrivals) - deliveries_kept
        closed = [job for job in jobs.values() if not job.head.lookup.is_open]
        went = 0
        for job in sorted(closed, key=lambda job: job.head.changed_at):
            if job.head.changed_at >= before and surplus <= 0:
                break
            surplus -= sum(entry.kind == "webhook" for entry in job.entries.values())
            went += 1
            self._unlink(job.head.lookup)
            del jobs[job.head.lookup.ref]
        self._arrivals = [job for job in self._arrivals if job.head.lookup.ref in jobs]
        self._agendas = _plan(jobs.values())
        return went

    def watch(self, *, urgent: bool) -> None:
        """Do nothing: nobody else changes it."""

    async def warnings(self) -> tuple[str, ...]:
        """Say that nothing survives the process."""
        self._held()
        return ("the memory store survives no restart; give store= a file or a server",)

    def _held(self) -> dict[str, _HeldJournal]:
        if self._failing is not None:
            raise StoreError(self._failing)
        return self._jobs

    def _followed(self) -> Fanout:
        self._held()
        return self._fanout

    def _hold(self, job: _HeldJournal, head: Head) -> None:
        """Hold a job as it is now, and let what its index says lead to it."""
        before, index, job.head = job.head, head.lookup, head
        if index is not before.lookup and _links(index) != _links(before.lookup):
            self._unlink(before.lookup)
            if index.key is not None:
                self._keys[index.key] = index.ref
            if index.task_id is not None:
                task = (index.provider, index.task_id)
                self._tasks[task] = (*self._tasks.get(task, ()), index.ref)
            account = self._accounts[index.account]
            account.submits[index.ref] = job
            if index.occupies_until > 0:
                account.occupying[index.ref] = job
        self._jobs[index.ref] = job
        if head.poll_at is not None and head.poll_at != before.poll_at:
            self._agendas["polls"].put(job, head.poll_at)
        if head.handle_at is not None and (head.handle_at, head.held_until) != (before.handle_at, before.held_until):
            self._agendas["handlers"].put(job, head.handle_at)

    def _unlink(self, index: Index) -> None:
        task = (index.provider, index.task_id or "")
        if index.key is not None and self._keys.get(index.key) == index.ref:
            del self._keys[index.key]
        refs = tuple(ref for ref in self._tasks.pop(task, ()) if ref != index.ref)
        if refs:
            self._tasks[task] = refs
        account = self._accounts[index.account]
        account.submits.pop(index.ref, None)
        account.occupying.pop(index.ref, None)
