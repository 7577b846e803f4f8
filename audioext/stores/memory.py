"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing

import attrs
from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, Entry, Index
from audioext.models.limits import Limits
from audioext.stores._changes import Fanout
from audioext.stores.base import (
    POST_SECONDS,
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

_SMALL_HEAP = 64  # a heap that is shorter is not worth tidying


@define(eq=False, repr=False)
class _Job:
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
class _Agenda:
    """Jobs by when one kind of work is due, a heap for each provider; what a heap holds may be out of date."""

    work: Work
    _heaps: dict[str, list[tuple[float, int, _Job]]] = field(factory=dict, init=False)
    _tidy_at: dict[str, int] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def put(self, job: _Job) -> None:
        due = job.due(self.work)
        if due is None:
            return
        heap = self._heaps.setdefault(job.index.provider, [])
        heapq.heappush(heap, (due, next(self._numbers), job))
        if len(heap) > self._tidy_at.get(job.index.provider, _SMALL_HEAP):
            heap[:] = {id(item[2]): item for item in heap if item[2].due(self.work) == item[0]}.values()
            heapq.heapify(heap)
            self._tidy_at[job.index.provider] = _SMALL_HEAP + 2 * len(heap)

    def first(self, providers: Sequence[str] | None) -> _Job | None:
        chosen = self._heaps if providers is None else self._heaps.keys() & set(providers)
        tops = [top for provider in chosen if (top := self._top(provider)) is not None]
        return min(tops)[2] if tops else None

    def _top(self, provider: str) -> tuple[float, int, _Job] | None:
        heap = self._heaps[provider]
        while heap and heap[0][2].due(self.work) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None


@define(eq=False, repr=False)
class _Account:
    """The jobs that may count for the limits of an account; those that no longer do leave when it is asked."""

    occupying: dict[str, _Job] = field(factory=dict)
    submits: dict[str, _Job] = field(factory=dict)

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

    def _leaves(self, ref: str, job: _Job, per: float, now: float) -> Iterator[float]:
        index = job.index
        begin, span = (index.created_at, POST_SECONDS) if index.answered_at is None else (index.answered_at, per)
        if begin + span <= now:
            del self.submits[ref]
        elif begin < now + span:  # a submit that is answered now leaves after its window at the earliest
            yield begin + span if index.answered_at is not None else min(begin + span, now + per)


@define(eq=False, repr=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _jobs: dict[str, _Job] = field(factory=dict, init=False)
    _keys: dict[str, str] = field(factory=dict, init=False)
    _tasks: dict[tuple[str, str], dict[str, None]] = field(factory=dict, init=False)
    _accounts: dict[str, _Account] = field(factory=dict, init=False)
    _webhooks: list[tuple[_Job, Entry]] = field(factory=list, init=False)
    _secrets: dict[str, bytes] = field(factory=dict, init=False)
    _agendas: dict[Work, _Agenda] = field(
        factory=lambda: {"polls": _Agenda("polls"), "handlers": _Agenda("handlers")}, init=False
    )
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
        self._check()
        if index.key is not None and index.key in self._keys:
            return Existing(self._keys[index.key])
        job = self._jobs.get(index.ref)
        if job is not None and job.is_known:
            return Existing(index.ref)
        account = self._accounts.get(index.account)
        until = None if account is None else account.full_until(limits, now)
        if until is not None:
            return Full(until)
        orphans = [] if job is None else job.entries
        if job is None:
            job = self._jobs[index.ref] = _Job(index)
        job.entries = []
        job.add(entry)
        job.entries += orphans  # so that its creator, who has seen one entry, is handed them with its next append
        self._set_index(job, index)
        self._fanout.publish((Changed(index.ref, len(job.entries)),))
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
        self._check()
        job = self._jobs.get(ref)
        count = 0 if job is None else len(job.entries)
        if known > count:
            return Appended(count=count, is_lost=True)
        if job is None:
            if not entries:
                return Appended(count=0)
            orphan = Index(ref=ref, provider=provider, account="", created_at=entries[0].at, is_open=False)
            job = self._jobs[ref] = _Job(orphan)
        was_known = job.is_known
        missed = job.missed(entries, known)
        is_full = job.take(entries)
        is_changed = len(job.entries) > count
        self._webhooks += [(job, entry) for entry in job.entries[count:] if entry.kind == "webhook"]
        is_taken = index is not None and job.is_known and known == count and not is_full
        if release:
            job.held_until = 0.0
        following = index if index is not None and (is_taken or not was_known) else job.index
        if is_changed and not is_taken:
            following = attrs.evolve(
                following, poll_at=_sooner(following.poll_at, look_at), handle_at=_sooner(following.handle_at, look_at)
            )
        if job.is_known and (release or following is not job.index or not was_known):
            self._set_index(job, following)
        if is_changed:
            self._fanout.publish((Changed(ref, len(job.entries)),))
        return Appended(count=len(job.entries), missed=missed, is_taken=is_taken, is_full=is_full)

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after so many; see `Store.read`."""
        self._check()
        job = self._jobs.get(ref)
        return None if job is None else job.stored(after)

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        self._check()
        if key is not None:
            return self._keys.get(key)
        return next(reversed(self._tasks.get((provider, task_id or ""), {})), None)

    async def jobs(self, *, is_open: bool | None = None) -> AsyncIterator[Stored]:
        """Yield the jobs in the order of their creation; see `Store.jobs`."""
        self._check()
        for job in tuple(self._jobs.values()):
            if job.is_known and not job.is_gone and is_open in {None, job.index.is_open}:
                yield job.stored()

    async def claim(
        self, work: Work, *, now: float, until: float, limit: int, providers: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Take jobs whose work is due; see `Store.claim`."""
        self._check()
        agenda = self._agendas[work]
        claimed: list[_Job] = []
        while len(claimed) < limit and (job := agenda.first(providers)) is not None:
            due = job.due(work)
            if due is None or due > now:
                break
            if work == "polls":
                job.index = attrs.evolve(job.index, poll_at=until)
            else:
                job.held_until = until
            agenda.put(job)
            claimed.append(job)
        return tuple(job.index.ref for job in claimed)

    async def next_due(self, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        self._check()
        job = self._agendas[work].first(providers)
        return None if job is None else job.due(work)

    async def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed; see `Store.reschedule`."""
        self._check()
        job = self._jobs.get(ref)
        if job is None:
            return
        if work == "polls" and job.index.poll_at is not None:
            job.index = attrs.evolve(job.index, poll_at=min(job.index.poll_at, at))
        if work == "handlers":
            job.held_until = 0.0
            if job.index.handle_at is not None:
                job.index = attrs.evolve(job.index, handle_at=min(job.index.handle_at, at))
        self._agendas[work].put(job)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first."""
        self._check()
        for job, entry in reversed(tuple(self._webhooks)):
            if ref in {None, job.index.ref} and not job.is_gone:
                yield to_delivery(job.index.ref, job.index.provider, entry, is_orphan=not job.is_known)

    async def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield what is changed from now on; see `Store.changes`."""
        self._check()
        async with aclosing(self._fanout.listen()) as changes:
            async for change in changes:
                yield change

    async def secret(self, name: str, default: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        self._check()
        return self._secrets.setdefault(name, default)

    async def purge(self, *, before: float, deliveries_kept: int) -> int:
        """Forget what is old; see `Store.purge`."""
        self._check()
        closed = (job for job in self._jobs.values() if not job.index.is_open)
        surplus = len(self._webhooks) - deliveries_kept
        went = 0
        for job in sorted(closed, key=lambda job: job.changed_at):
            if job.changed_at >= before and surplus <= 0:
                break
            surplus -= sum(entry.kind == "webhook" for entry in job.entries)
            went += 1
            self._forget(job)
        self._webhooks = [(job, entry) for job, entry in self._webhooks if not job.is_gone]
        return went

    def watch(self, *, urgent: bool) -> None:
        """Do nothing: nobody else changes it."""

    async def warnings(self) -> tuple[str, ...]:
        """Say that nothing survives the process."""
        self._check()
        return ("the memory store survives no restart; give store= a file or a server",)

    def _check(self) -> None:
        if self._failing is not None:
            raise StoreError(self._failing)

    def _set_index(self, job: _Job, index: Index) -> None:
        self._unlink(job)
        ref = index.ref
        if index.key is not None and self._keys.setdefault(index.key, ref) != ref:
            index = attrs.evolve(index, key=None)  # another job took it while it was free
        if index.task_id is not None:
            self._tasks.setdefault((index.provider, index.task_id), {})[ref] = None
        account = self._accounts.setdefault(index.account, _Account())
        account.submits[ref] = job
        if index.occupies_until > 0:
            account.occupying[ref] = job
        job.index = index
        for agenda in self._agendas.values():
            agenda.put(job)

    def _unlink(self, job: _Job) -> None:
        index = job.index
        if index.key is not None and self._keys.get(index.key) == index.ref:
            del self._keys[index.key]
        if index.task_id is not None:
            refs = self._tasks.get((index.provider, index.task_id), {})
            refs.pop(index.ref, None)
            if not refs:
                self._tasks.pop((index.provider, index.task_id), None)
        account = self._accounts.get(index.account)
        if account is not None:
            account.submits.pop(index.ref, None)
            account.occupying.pop(index.ref, None)

    def _forget(self, job: _Job) -> None:
        self._unlink(job)
        job.is_gone = True
        del self._jobs[job.index.ref]


def _sooner(due: float | None, at: float) -> float:
    return at if due is None else min(due, at)
