"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from operator import attrgetter

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import Entry, Index
from audioext.models.limits import Limits
from audioext.stores._append import AppendCall, Head, apply, begin, orphan
from audioext.stores._changes import Fanout, follow
from audioext.stores._memory_jobs import AccountJobs, Agenda, HeldJournal
from audioext.stores.base import (
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


@define(eq=False, repr=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _jobs: dict[str, HeldJournal] = field(factory=dict, init=False)
    _keys: dict[str, str] = field(factory=dict, init=False)
    _tasks: dict[tuple[str, str], tuple[str, ...]] = field(factory=dict, init=False)
    """The jobs that claim a task id, the last one first to be found."""
    _accounts: defaultdict[str, AccountJobs] = field(factory=lambda: defaultdict(AccountJobs), init=False)
    _arrivals: list[HeldJournal] = field(factory=list, init=False)
    """The job of every webhook, in the order in which they came."""
    _secrets: dict[str, bytes] = field(factory=dict, init=False)
    _agendas: dict[Work, Agenda] = field(
        factory=lambda: {"polls": Agenda("polls"), "handlers": Agenda("handlers")}, init=False
    )
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
        self._check()
        if index.key is not None and index.key in self._keys:
            return Existing(self._keys[index.key])
        job = self._jobs.get(index.ref)
        if job is not None and job.head.is_known:
            return Existing(index.ref)
        until = self._accounts[index.account].full_until(limits, now)
        if until is not None:
            return Full(until)
        job = job or HeldJournal(orphan(index.ref, index.provider, [entry]))
        head = begin(job.head, entry, index)
        # First, so that its creator, who has seen one entry, is handed the orphans with its next append.
        job.entries = {entry.id: entry, **job.entries}
        self._hold(job, head)
        self._fanout.publish((Changed(index.ref, head.entries),))
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
        call = AppendCall(ref, entries, provider, index, known, look_at, release)
        job = self._jobs.get(ref) or HeldJournal(orphan(ref, provider, entries))
        done, head, new = apply(call, job.head, job.entries, journal=job.entries.values, holder=self._keys.get)
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
        self._check()
        job = self._jobs.get(ref)
        return None if job is None else job.head.stored(tuple(job.entries.values())[after:])

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        self._check()
        if key is not None:
            return self._keys.get(key)
        refs = self._tasks.get((provider, task_id or ""))
        return refs[-1] if refs else None

    async def jobs(self, *, is_open: bool | None = None) -> AsyncIterator[Stored]:
        """Yield the jobs in the order of their creation; see `Store.jobs`."""
        self._check()
        for job in tuple(self._jobs.values()):
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
        self._check()
        agenda = self._agendas[work]
        if now < self._claimed_at.get(work, now):  # the clock went back: only then something can be due too late
            for job in self._jobs.values():
                job.bring_forward(work, now, latest)
                agenda.put(job, job.due(work))
        self._claimed_at[work] = now
        claimed: list[str] = []
        while len(claimed) < limit and (first := agenda.first(providers)) is not None and first[0] <= now:
            job = first[1]
            head = job.head
            job.head = head._replace(poll_at=until) if work == "polls" else head._replace(held_until=until)
            claimed.append(job.head.lookup.ref)
        return tuple(claimed)

    async def next_due(self, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        self._check()
        first = self._agendas[work].first(providers)
        return None if first is None else first[0]

    async def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed; see `Store.reschedule`."""
        self._check()
        job = self._jobs.get(ref)
        if job is not None:
            job.give_back(work, at)
            self._agendas[work].put(job, job.due(work))

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first."""
        self._check()
        jobs = [job for job in self._arrivals if ref in {None, job.head.lookup.ref}]
        webhooks = {job: [entry for entry in job.entries.values() if entry.kind == "webhook"] for job in set(jobs)}
        for job in reversed(jobs):
            index, entry = job.head.lookup, webhooks[job].pop()
            if self._jobs.get(index.ref) is job:  # else it was purged meanwhile
                yield to_delivery(index.ref, index.provider, entry, is_orphan=not job.head.is_known)

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield what is changed from now on; see `Store.changes`."""
        return follow(self._followed)

    async def secret(self, name: str, default: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        self._check()
        return self._secrets.setdefault(name, default)

    async def purge(self, *, before: float, deliveries_kept: int) -> int:
        """Forget what is old; see `Store.purge`."""
        self._check()
        surplus = len(self._arrivals) - deliveries_kept
        closed = [job for job in self._jobs.values() if not job.head.lookup.is_open]
        went = 0
        for job in sorted(closed, key=attrgetter("head.changed_at")):
            if job.head.changed_at >= before and surplus <= 0:
                break
            surplus -= sum(entry.kind == "webhook" for entry in job.entries.values())
            went += 1
            self._unlink(job.head.lookup)
            job.head = Head(job.head.lookup)  # of no use to whoever meets it still
            del self._jobs[job.head.lookup.ref]
        self._arrivals = [job for job in self._arrivals if job.head.lookup.ref in self._jobs]
        for agenda in self._agendas.values():
            agenda.tidy()
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

    def _followed(self) -> Fanout:
        self._check()
        return self._fanout

    def _hold(self, job: HeldJournal, head: Head) -> None:
        """Hold a job as it is now, and let what its index says lead to it."""
        old, index, job.head = job.head.lookup, head.lookup, head
        if index is not old:
            if (index.key, index.task_id, index.account) != (old.key, old.task_id, old.account):
                self._unlink(old)
            if index.key is not None:
                self._keys[index.key] = index.ref
            if index.task_id is not None:
                refs = self._tasks.get((index.provider, index.task_id), ())
                if index.ref not in refs:
                    self._tasks[index.provider, index.task_id] = (*refs, index.ref)
            self._accounts[index.account].note(job)
        self._jobs[index.ref] = job
        if head.is_known:
            self._agendas["polls"].put(job, head.poll_at)
            self._agendas["handlers"].put(job, head.handle_at)

    def _unlink(self, index: Index) -> None:
        task = (index.provider, index.task_id or "")
        if index.key is not None and self._keys.get(index.key) == index.ref:
            del self._keys[index.key]
        refs = tuple(ref for ref in self._tasks.pop(task, ()) if ref != index.ref)
        if refs:
            self._tasks[task] = refs
        self._accounts[index.account].forget(index.ref)
