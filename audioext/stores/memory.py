"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process.

Of what is held, few objects stay alive for an entry: each of them costs every garbage collection of the process.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import wraps
from operator import attrgetter
from typing import Concatenate, ParamSpec, TypeVar

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import POST_SECONDS, Entry, Index
from audioext.stores._engine import Fanout, follow
from audioext.stores._journals import Head, Journals, orphan
from audioext.stores.base import (
    LONGEST_HOLD_SECONDS,
    Appended,
    Changed,
    Delivery,
    Providers,
    Resync,
    Stored,
    Work,
    to_delivery,
)

P = ParamSpec("P")
C = TypeVar("C")
T = TypeVar("T")

_links = attrgetter("key", "task_id", "account", "answered_at", "occupies_until")


@define(eq=False, repr=False)
class _HeldJournal:
    """All that is held of one ref: its entries by their ids, in their order."""

    head: Head
    ids: dict[str, Entry] = field(factory=dict)

    def due(self, work: Work) -> float | None:
        head = self.head
        if work == "polls":
            return head.poll_at
        return None if head.handle_at is None else max(head.handle_at, head.held_until)

    def is_too_late(self, work: Work, now: float, latest: float) -> bool:
        """Say whether a clock that was ahead must have put *work* down: it is due later than can be."""
        head = self.head
        if work == "handlers" and head.held_until > now:
            return head.held_until > latest + LONGEST_HOLD_SECONDS
        at = head.poll_at if work == "polls" else head.handle_at
        return at is not None and at > latest

    def give_back(self, work: Work, at: float) -> None:
        """End a claim: *work* is due at *at*, or sooner, or not at all."""
        poll_at, handle_at = self.head.poll_at, self.head.handle_at
        if work == "handlers":
            self.head = self.head._replace(held_until=0.0, handle_at=handle_at and min(handle_at, at))
        else:
            self.head = self.head._replace(poll_at=poll_at and min(poll_at, at))


@define(eq=False, repr=False)
class _Agenda:
    """Jobs in a heap for each provider, by when work is due or sooner: what became due later moves when looked at."""

    work: Work
    _heaps: dict[str, list[tuple[float, int, _HeldJournal]]] = field(factory=dict, init=False)
    _queued: dict[_HeldJournal, float] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def put(self, job: _HeldJournal) -> None:
        due = job.due(self.work)
        if due is not None and due < self._queued.get(job, math.inf):
            self._queued[job] = due
            heapq.heappush(self._heaps.setdefault(job.head.lookup.provider, []), (due, next(self._numbers), job))

    def first(self, providers: Providers) -> tuple[float, int, _HeldJournal] | None:
        """Return when the first work is due, and last the job that it is about."""
        tops: list[tuple[float, int, _HeldJournal]] = []
        for provider in self._heaps if providers is None else self._heaps.keys() & set(providers):
            heap = self._heaps[provider]
            while heap and heap[0][0] != heap[0][2].due(self.work):
                queued, _, job = heapq.heappop(heap)
                if self._queued.get(job) == queued:
                    del self._queued[job]
                    self.put(job)
            tops += heap[:1]
        return min(tops, default=None)


def _make_agendas(jobs: Iterable[_HeldJournal] = ()) -> dict[Work, _Agenda]:
    agendas: dict[Work, _Agenda] = {"polls": _Agenda("polls"), "handlers": _Agenda("handlers")}
    for job, agenda in itertools.product(jobs, agendas.values()):
        agenda.put(job)
    return agendas


@define(eq=False, repr=False)
class _Memory(Journals[_HeldJournal]):
    """All that is held, and what leads to it."""

    jobs: dict[str, _HeldJournal] = field(factory=dict)
    secrets: dict[str, bytes] = field(factory=dict)
    arrivals: list[_HeldJournal] = field(factory=list)
    """The job of every webhook, in the order in which they came."""
    fanout: Fanout = field(factory=Fanout)
    _keys: dict[str, str] = field(factory=dict)
    _tasks: dict[tuple[str, str], tuple[str, ...]] = field(factory=dict)
    """The jobs that claim a task id, the last one first to be found."""
    _submits: defaultdict[str, dict[str, _HeldJournal]] = field(factory=lambda: defaultdict(dict))
    """The jobs that may count for the window of an account; those that no longer do leave when it is asked."""
    _occupying: defaultdict[str, dict[str, _HeldJournal]] = field(factory=lambda: defaultdict(dict))
    _agendas: dict[Work, _Agenda] = field(factory=_make_agendas)
    _claimed_at: dict[Work, float] = field(factory=dict)

    def holder(self, key: str) -> str | None:
        return self._keys.get(key)

    def _job(self, ref: str, provider: str, began: float) -> _HeldJournal:
        return self.jobs.get(ref) or _HeldJournal(orphan(ref, provider, began))

    def _entries(self, job: _HeldJournal) -> Iterable[Entry]:
        return job.ids.values()

    def _leaving(self, account: str, per: float, now: float) -> Sequence[float]:
        leaving: list[float] = []
        submits = self._submits[account]
        for ref, job in tuple(submits.items()):
            index = job.head.lookup
            begin, span, most = index.answered_at, per, math.inf
            if begin is None:
                begin, span, most = index.created_at, POST_SECONDS, now + per
            if begin + span <= now:
                del submits[ref]
            elif begin < now + span:  # a submit that is answered now leaves after its window at the earliest
                leaving.append(min(begin + span, most))
        return leaving

    def _count_occupying(self, account: str, now: float) -> int:
        return sum(job.head.lookup.occupies_until > now for job in self._occupying[account].values())

    def _begin(self, job: _HeldJournal, head: Head, request: Entry) -> None:
        job.ids = {request.id: request, **job.ids}
        self._put(job, head, ())

    def _put(self, job: _HeldJournal, head: Head, new: Iterable[Entry]) -> None:
        for entry in new:
            job.ids[entry.id] = entry
            if entry.kind == "webhook":
                self.arrivals.append(job)
        before, index, job.head = job.head, head.lookup, head
        if index is not before.lookup and _links(index) != _links(before.lookup):
            self._unlink(before.lookup)
            if index.key is not None:
                self._keys[index.key] = index.ref
            if index.task_id is not None:
                task = (index.provider, index.task_id)
                self._tasks[task] = (*self._tasks.get(task, ()), index.ref)
            self._submits[index.account][index.ref] = job
            if index.occupies_until > 0:
                self._occupying[index.account][index.ref] = job
        self.jobs[index.ref] = job
        if head.poll_at is not None and head.poll_at != before.poll_at:
            self._agendas["polls"].put(job)
        if head.handle_at is not None and (head.handle_at, head.held_until) != (before.handle_at, before.held_until):
            self._agendas["handlers"].put(job)
        if head.entries != before.entries:
            self.fanout.publish((Changed(index.ref, head.entries),))

    def _unlink(self, index: Index) -> None:
        task = (index.provider, index.task_id or "")
        if index.key is not None and self._keys.get(index.key) == index.ref:
            del self._keys[index.key]
        refs = self._tasks.pop(task, ())
        if refs and refs != (index.ref,):
            self._tasks[task] = tuple(ref for ref in refs if ref != index.ref)
        self._submits[index.account].pop(index.ref, None)
        self._occupying[index.account].pop(index.ref, None)

    def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after so many; see `Store.read`."""
        job = self.jobs.get(ref)
        return None if job is None else job.head.stored(tuple(job.ids.values())[after:])

    def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        return self._keys.get(key) if key is not None else self._tasks.get((provider, task_id or ""), (None,))[-1]

    def claim(  # noqa: PLR0913 - the protocol's
        self, work: Work, *, now: float, until: float, limit: int, providers: Providers = None, latest: float = math.inf
    ) -> tuple[str, ...]:
        """Take jobs whose work is due; see `Store.claim`."""
        agenda = self._agendas[work]
        if now < self._claimed_at.get(work, now):  # the clock went back: only then something can be due too late
            for job in self.jobs.values():
                if job.is_too_late(work, now, latest):
                    job.give_back(work, now)
                agenda.put(job)
        self._claimed_at[work] = now
        claimed: list[str] = []
        while len(claimed) < limit and (first := agenda.first(providers)) is not None and first[0] <= now:
            job = first[-1]
            head = job.head
            job.head = head._replace(poll_at=until) if work == "polls" else head._replace(held_until=until)
            claimed.append(head.lookup.ref)
        return tuple(claimed)

    def next_due(self, work: Work, *, providers: Providers = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        first = self._agendas[work].first(providers)
        return None if first is None else first[0]

    def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed; see `Store.reschedule`."""
        if (job := self.jobs.get(ref)) is not None:
            job.give_back(work, at)
            self._agendas[work].put(job)

    def secret(self, name: str, default: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        return self.secrets.setdefault(name, default)

    def purge(self, *, before: float, deliveries_kept: int) -> int:
        """Forget what is old; see `Store.purge`."""
        surplus = len(self.arrivals) - deliveries_kept
        closed = [job for job in self.jobs.values() if not job.head.lookup.is_open]
        count = len(self.jobs)
        for job in sorted(closed, key=lambda job: job.head.changed_at):
            if job.head.changed_at >= before and surplus <= 0:
                break
            surplus -= sum(entry.kind == "webhook" for entry in job.ids.values())
            self._unlink(job.head.lookup)
            del self.jobs[job.head.lookup.ref]
        self.arrivals = [job for job in self.arrivals if job.head.lookup.ref in self.jobs]
        self._agendas = _make_agendas(self.jobs.values())
        return count - len(self.jobs)

    def warnings(self) -> tuple[str, ...]:
        """Say that nothing survives the process."""
        return ("the memory store survives no restart; give store= a file or a server",)


async def _done(perform: Callable[[], T]) -> T:
    return perform()


def _method(
    work: Callable[Concatenate[_Memory, P], T], done: Callable[[Callable[[], T]], C]
) -> Callable[Concatenate[MemoryStore, P], C]:
    """Return the method that has *work* done when it is awaited, typed as an async function's."""

    @wraps(work)
    def method(store: MemoryStore, /, *given: P.args, **named: P.kwargs) -> C:
        return done(lambda: work(store._held(), *given, **named))  # noqa: SLF001 - it is a method of the store

    return method


@define(eq=False, repr=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _memory: _Memory = field(factory=_Memory, init=False)
    _users: int = field(default=0, init=False)
    _failing: str | None = field(default=None, init=False)

    create = _method(_Memory.create, _done)
    read = _method(_Memory.read, _done)
    find = _method(_Memory.find, _done)
    claim = _method(_Memory.claim, _done)
    next_due = _method(_Memory.next_due, _done)
    reschedule = _method(_Memory.reschedule, _done)
    secret = _method(_Memory.secret, _done)
    purge = _method(_Memory.purge, _done)
    warnings = _method(_Memory.warnings, _done)

    async def open(self) -> None:
        """Count one more user; memory is always there."""
        self._users += 1

    async def aclose(self) -> None:
        """End the streams of changes with the last user; what is held stays for the next one."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            self._memory.fanout.close()

    def fail(self, why: str | None) -> None:
        """Raise `StoreError` from every call until `fail(None)`: for testing what your code does then."""
        self._failing = why

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
        return self._held().append(
            ref, entries, provider=provider, index=index, known=known, look_at=look_at, release=release
        )

    async def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Yield the jobs in the order of their creation, or against it; see `Store.jobs`."""
        jobs = tuple(self._held().jobs.values())
        for job in reversed(jobs) if newest_first else jobs:
            if job.head.is_known and is_open in {None, job.head.lookup.is_open}:
                yield job.head.stored(job.ids.values())

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first."""
        held = self._held()
        jobs = [job for job in held.arrivals if ref in {None, job.head.lookup.ref}]
        webhooks = {job: [entry for entry in job.ids.values() if entry.kind == "webhook"] for job in set(jobs)}
        for job in reversed(jobs):
            index, entry = job.head.lookup, webhooks[job].pop()
            if held.jobs.get(index.ref) is job:  # else it was purged meanwhile
                yield to_delivery(index.ref, index.provider, entry, is_orphan=not job.head.is_known)

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield what is changed from now on; see `Store.changes`."""
        return follow(lambda: self._held().fanout)

    def watch(self, *, urgent: bool) -> None:
        """Do nothing: nobody else changes it."""

    def _held(self) -> _Memory:
        if self._failing is not None:
            raise StoreError(self._failing)
        return self._memory
