"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Sequence

import attrs
from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, Entry, Index
from audioext.models.limits import Limits
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
    is_too_late,
    to_delivery,
)


@define(eq=False, repr=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _jobs: dict[str, HeldJournal] = field(factory=dict, init=False)
    _keys: dict[str, str] = field(factory=dict, init=False)
    _tasks: dict[tuple[str, str], tuple[str, ...]] = field(factory=dict, init=False)
    _accounts: dict[str, AccountJobs] = field(factory=dict, init=False)
    # every webhook, and its job: two lists of what is held anyway
    _webhooks: list[Entry] = field(factory=list, init=False)
    _webhook_jobs: list[HeldJournal] = field(factory=list, init=False)
    _secrets: dict[str, bytes] = field(factory=dict, init=False)
    _polls: Agenda = field(factory=lambda: Agenda("polls"), init=False)
    _handlers: Agenda = field(factory=lambda: Agenda("handlers"), init=False)
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
        if job is not None and job.is_known:
            return Existing(index.ref)
        account = self._accounts.get(index.account)
        until = None if account is None else account.full_until(limits, now)
        if until is not None:
            return Full(until)
        if job is None:
            job = self._jobs[index.ref] = HeldJournal(index)
        orphans, job.entries = job.entries, []
        job.add(entry)
        job.entries += orphans  # so that its creator, who has seen one entry, is handed them with its next append
        self._set_index(job, index, is_first=True)
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
        repeated, is_full = self._add(job, entries)
        missed: tuple[Entry, ...] = ()
        if known < count or repeated:
            before = enumerate(job.entries[:count])
            missed = tuple(entry for number, entry in before if number >= known or entry.id in repeated)
        following = len(job.entries)
        is_taken = index is not None and job.is_known and known == count and not is_full
        if release and (following > count or not entries):  # a repeat was done before: a later claim is not its own
            job.held_until = 0.0
            self._handlers.put(job)
        if index is not None and (is_taken or job.is_known != was_known):
            self._set_index(job, index, is_first=not was_known)
        if following > count:
            if job.is_known and not is_taken:
                self._set_due(job, _sooner(job.poll_at, look_at), _sooner(job.handle_at, look_at))
            self._fanout.publish((Changed(ref, following),))
        return Appended(count=following, missed=missed, is_taken=is_taken, is_full=is_full)

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
        refs = self._tasks.get((provider, task_id or ""))
        return refs[-1] if refs else None

    async def jobs(self, *, is_open: bool | None = None) -> AsyncIterator[Stored]:
        """Yield the jobs in the order of their creation; see `Store.jobs`."""
        self._check()
        for job in tuple(self._jobs.values()):
            if job.is_known and not job.is_gone and is_open in {None, job.index.is_open}:
                yield job.stored()

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
        if now < self._claimed_at.get(work, now):  # the clock went back: only then something can be due too late
            self._bring_forward(work, now, latest)
        self._claimed_at[work] = now
        agenda = self._agenda(work)
        claimed: list[str] = []
        while len(claimed) < limit and (first := agenda.first(providers)) is not None and first[0] <= now:
            job = first[1]
            if work == "polls":
                job.poll_at = until
            else:
                job.held_until = until
            claimed.append(job.index.ref)
        return tuple(claimed)

    async def next_due(self, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        self._check()
        first = self._agenda(work).first(providers)
        return None if first is None else first[0]

    async def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed; see `Store.reschedule`."""
        self._check()
        job = self._jobs.get(ref)
        if job is None:
            return
        if work == "polls" and job.poll_at is not None:
            job.poll_at = min(job.poll_at, at)
        if work == "handlers":
            job.held_until = 0.0
            job.handle_at = None if job.handle_at is None else min(job.handle_at, at)
        self._agenda(work).put(job)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first."""
        self._check()
        for job, entry in reversed(tuple(zip(self._webhook_jobs, self._webhooks, strict=True))):
            if ref in {None, job.index.ref} and not job.is_gone:
                yield to_delivery(job.index.ref, job.index.provider, entry, is_orphan=not job.is_known)

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
        closed = (job for job in self._jobs.values() if not job.index.is_open)
        surplus = len(self._webhooks) - deliveries_kept
        went = 0
        for job in sorted(closed, key=lambda job: job.changed_at):
            if job.changed_at >= before and surplus <= 0:
                break
            surplus -= sum(entry.kind == "webhook" for entry in job.entries)
            went += 1
            self._forget(job)
        if went:
            kept = [not job.is_gone for job in self._webhook_jobs]
            self._webhooks = list(itertools.compress(self._webhooks, kept))
            self._webhook_jobs = list(itertools.compress(self._webhook_jobs, kept))
        for agenda in (self._polls, self._handlers):
            agenda.tidy()
        return went

    def watch(self, *, urgent: bool) -> None:
        """Do nothing: nobody else changes it."""

    async def warnings(self) -> tuple[str, ...]:
        """Say that nothing survives the process."""
        self._check()
        return ("the memory store survives no restart; give store= a file or a server",)

    def _bring_forward(self, work: Work, now: float, latest: float) -> None:
        for job in self._jobs.values():
            if work == "polls" and job.poll_at is not None and job.poll_at > latest:
                job.poll_at = now
            elif (
                work == "handlers"
                and job.handle_at is not None
                and is_too_late(job.handle_at, job.held_until, now, latest)
            ):
                job.handle_at, job.held_until = now, 0.0
            else:
                continue
            self._agenda(work).put(job)

    def _check(self) -> None:
        if self._failing is not None:
            raise StoreError(self._failing)

    def _followed(self) -> Fanout:
        self._check()
        return self._fanout

    def _agenda(self, work: Work) -> Agenda:
        return self._polls if work == "polls" else self._handlers

    def _add(self, job: HeldJournal, entries: Sequence[Entry]) -> tuple[set[str], bool]:
        """Add what is new and fits, count the rest; return the ids of repeats, and whether something did not fit."""
        repeated: set[str] = set()
        is_full = False
        for entry in entries:
            if job.holds(entry.id):
                job.repeats += entry.is_bounded
                repeated.add(entry.id)
            elif entry.is_bounded and (
                len(job.entries) >= MAX_ENTRIES or job.size + len(entry.body) > MAX_JOURNAL_BYTES
            ):
                job.repeats += 1
                is_full = True
            else:
                job.add(entry)
                if entry.kind == "webhook":
                    self._webhooks.append(entry)
                    self._webhook_jobs.append(job)
        return repeated, is_full

    def _set_index(self, job: HeldJournal, index: Index, *, is_first: bool) -> None:
        """Let the key, task id and account of *index* lead to its job; most indexes change none of them."""
        old = job.index
        if index.key is not None and self._keys.get(index.key, index.ref) != index.ref:
            index = attrs.evolve(index, key=None)  # another job took it while it was free
        if is_first or index.key != old.key or index.task_id != old.task_id:
            self._unlink(old)
            if index.key is not None:
                self._keys[index.key] = index.ref
            if index.task_id is not None:
                task = (index.provider, index.task_id)
                self._tasks[task] = (*self._tasks.get(task, ()), index.ref)
        if is_first or index.account != old.account:
            self._leave_account(old)
        if is_first or (index.account, index.answered_at, index.occupies_until) != (
            old.account,
            old.answered_at,
            old.occupies_until,
        ):
            account = self._accounts.setdefault(index.account, AccountJobs())
            account.submits[index.ref] = job
            if index.occupies_until > 0:
                account.occupying[index.ref] = job
            else:
                account.occupying.pop(index.ref, None)
        job.index = index
        self._set_due(job, index.poll_at, index.handle_at)

    def _set_due(self, job: HeldJournal, poll_at: float | None, handle_at: float | None) -> None:
        job.poll_at, job.handle_at = poll_at, handle_at
        if poll_at is not None:
            self._polls.put(job)
        if handle_at is not None:
            self._handlers.put(job)

    def _unlink(self, index: Index) -> None:
        if index.key is not None and self._keys.get(index.key) == index.ref:
            del self._keys[index.key]
        if index.task_id is not None:
            task = (index.provider, index.task_id)
            refs = tuple(ref for ref in self._tasks.pop(task, ()) if ref != index.ref)
            if refs:
                self._tasks[task] = refs

    def _leave_account(self, index: Index) -> None:
        account = self._accounts.get(index.account)
        if account is not None:
            account.submits.pop(index.ref, None)
            account.occupying.pop(index.ref, None)

    def _forget(self, job: HeldJournal) -> None:
        self._unlink(job.index)
        self._leave_account(job.index)
        job.is_gone = True
        del self._jobs[job.index.ref]


def _sooner(due: float | None, at: float) -> float:
    return at if due is None else min(due, at)
