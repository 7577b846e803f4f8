"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import attrs
from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import Entry, Index
from audioext.models.limits import Limits
from audioext.stores._changes import Fanout
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
    _tasks: dict[tuple[str, str], dict[str, None]] = field(factory=dict, init=False)
    _accounts: dict[str, AccountJobs] = field(factory=dict, init=False)
    _webhooks: list[tuple[HeldJournal, Entry]] = field(factory=list, init=False)
    _secrets: dict[str, bytes] = field(factory=dict, init=False)
    _agendas: dict[Work, Agenda] = field(
        factory=lambda: {"polls": Agenda("polls"), "handlers": Agenda("handlers")}, init=False
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
            job = self._jobs[index.ref] = HeldJournal(index)
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
            job = self._jobs[ref] = HeldJournal(orphan)
        was_known = job.is_known
        missed = job.missed(entries, known)
        is_full = job.take(entries)
        is_changed = len(job.entries) > count
        self._webhooks += [(job, entry) for entry in job.entries[count:] if entry.kind == "webhook"]
        is_taken = index is not None and job.is_known and known == count and not is_full
        release = release and (is_changed or not entries)  # a repeat was done before: a later claim is not its own
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
        claimed: list[HeldJournal] = []
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

    def _set_index(self, job: HeldJournal, index: Index) -> None:
        self._unlink(job)
        ref = index.ref
        if index.key is not None and self._keys.setdefault(index.key, ref) != ref:
            index = attrs.evolve(index, key=None)  # another job took it while it was free
        if index.task_id is not None:
            self._tasks.setdefault((index.provider, index.task_id), {})[ref] = None
        account = self._accounts.setdefault(index.account, AccountJobs())
        account.submits[ref] = job
        if index.occupies_until > 0:
            account.occupying[ref] = job
        job.index = index
        for agenda in self._agendas.values():
            agenda.put(job)

    def _unlink(self, job: HeldJournal) -> None:
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

    def _forget(self, job: HeldJournal) -> None:
        self._unlink(job)
        job.is_gone = True
        del self._jobs[job.index.ref]


def _sooner(due: float | None, at: float) -> float:
    return at if due is None else min(due, at)
