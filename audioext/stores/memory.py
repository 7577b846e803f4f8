"""The in-memory store: for tests, scripts, and jobs that need not survive the process.

It keeps few objects per entry, since every object that the garbage collector tracks slows each of its runs.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from operator import attrgetter

import msgspec
from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import MAX_DELIVERY_BYTES, POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.stores._engine import Fanout, follow
from audioext.stores._journals import Head, Journals, KnownJob, oldest_beyond
from audioext.stores.base import (
    LONGEST_HOLD_SECONDS,
    Appended,
    Changed,
    Created,
    Delivery,
    Existing,
    Full,
    Providers,
    Resync,
    Stored,
    Work,
    to_delivery,
)

_WORKS: tuple[Work, Work] = ("polls", "handlers")
_links = attrgetter("key", "task_id", "account", "answered_at", "occupies_until")


def _dues(head: Head) -> tuple[float | None, float | None]:
    """Return when the job's poll, and when its handlers, can be claimed."""
    handle_at = head.lookup.handle_at
    return head.lookup.poll_at, None if handle_at is None else max(handle_at, head.held_until)


def _is_too_late(head: Head, work: Work, now: float, latest: float) -> bool:
    """Return whether the due time of *work* must come from a clock that was ahead, as it is later than *latest*."""
    if work == "handlers" and head.held_until > now:
        return head.held_until > latest + LONGEST_HOLD_SECONDS
    return work == "polls" or (head.lookup.handle_at or 0.0) > latest


@define(eq=False, repr=False)
class MemoryStore(Journals):
    """The whole `Store` protocol in memory. Nothing survives the process."""

    _users: int = field(default=0, init=False)
    _failing: str | None = field(default=None, init=False)
    _held: dict[str, KnownJob] = field(factory=dict, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)
    _secrets: dict[str, bytes] = field(factory=dict, init=False)
    _arrivals: list[KnownJob] = field(factory=list, init=False)
    """The job of every webhook, in order of arrival; a job is listed once for each of its webhooks."""
    _fanout: Fanout = field(factory=Fanout, init=False)
    _keys: dict[str, str] = field(factory=dict, init=False)
    _tasks: dict[tuple[str, str | None], tuple[str, ...]] = field(factory=dict, init=False)
    """The refs of the jobs with a task id, by provider and task id; `find` returns the last one."""
    _submits: defaultdict[str, dict[str, KnownJob]] = field(factory=lambda: defaultdict(dict), init=False)
    """The jobs that may count for an account's submit window; `_window_ends` drops those that no longer do."""
    _occupying: defaultdict[str, dict[str, KnownJob]] = field(factory=lambda: defaultdict(dict), init=False)
    _due: defaultdict[tuple[Work, str], list[tuple[float, int, KnownJob]]] = field(
        factory=lambda: defaultdict(list), init=False
    )
    """For each work and provider, the jobs sorted by when they can be claimed; the number makes each item unique."""

    async def open(self) -> None:
        """Count one more user."""
        self._users += 1

    async def aclose(self) -> None:
        """End the change streams when the last user leaves. The jobs stay for the next user."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            self._fanout.close()

    def fail(self, why: str | None) -> None:
        """Make every call raise `StoreError` with this message until `fail(None)`, to test how your code copes."""
        self._failing = why

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Create a job, unless it exists or its account is full; see `Store.create`."""
        self._check()
        return self._create(entry, index, limits=limits, now=now)

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
        """Append to a journal, and accept the index if the writer had seen every entry; see `Store.append`."""
        self._check()
        return self._append(ref, entries, provider=provider, index=index, known=known, look_at=look_at, release=release)

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after the first *after*; see `Store.read`."""
        self._check()
        job = self._held.get(ref)
        return None if job is None else job.head.stored(tuple(job.ids.values())[after:])

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        self._check()
        return self._keys.get(key) if key is not None else self._tasks.get((provider, task_id), (None,))[-1]

    async def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Yield the jobs, oldest or newest first; see `Store.jobs`."""
        self._check()
        jobs = tuple(self._held.values())
        for job in reversed(jobs) if newest_first else jobs:
            if job.head.is_known and is_open in {None, job.head.lookup.is_open}:
                yield job.head.stored(job.ids.values())

    async def claim(  # noqa: PLR0913 - the protocol's
        self, work: Work, *, now: float, until: float, limit: int, providers: Providers = None, latest: float = math.inf
    ) -> tuple[str, ...]:
        """Claim jobs whose work is due; see `Store.claim`."""
        self._check()
        due = []
        for queue in self._queues(work, providers):
            due += queue[: min(limit, bisect_right(queue, (now, math.inf)))]
            late = queue[bisect_right(queue, (max(now, latest), math.inf)) :]
            due += [item for item in late if _is_too_late(item[-1].head, work, now, latest)]
        jobs = [job for *_, job in sorted(due)[:limit]]
        for job in jobs:
            head, index = job.head, job.head.lookup
            if work == "polls":
                head = head._replace(lookup=msgspec.structs.replace(index, poll_at=until))
            else:
                lookup = msgspec.structs.replace(index, handle_at=min(index.handle_at or now, now))
                head = head._replace(lookup=lookup, held_until=until)
            self._put(job, head, ())
        return tuple(job.head.lookup.ref for job in jobs)

    async def next_due(self, work: Work, *, providers: Providers = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        self._check()
        return min((queue[0][0] for queue in self._queues(work, providers) if queue), default=None)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first."""
        self._check()
        jobs = [job for job in self._arrivals if ref in {None, job.head.lookup.ref}]
        webhooks = {job: [entry for entry in job.ids.values() if entry.kind == "webhook"] for job in set(jobs)}
        for job in reversed(jobs):
            index, entry = job.head.lookup, webhooks[job].pop()
            if self._held.get(index.ref) is job:  # otherwise it was purged during the iteration
                yield to_delivery(index.ref, index.provider, entry, is_orphan=not job.head.is_known)

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield every change from now on; see `Store.changes`."""
        return follow(self._listened_to)

    async def secret(self, name: str, default: bytes) -> bytes:
        """Return the value stored under *name*, storing *default* first if there is none."""
        self._check()
        return self._secrets.setdefault(name, default)

    async def purge(
        self,
        *,
        before: float,
        deliveries_kept: int,
        delivery_bytes_kept: int = MAX_DELIVERY_BYTES,
        untold_before: float = math.inf,
    ) -> int:
        """Delete old jobs; see `Store.purge`."""
        self._check()
        count = len(self._held)
        closed = [job for job in self._held.values() if not job.head.lookup.is_open]
        closed.sort(key=lambda job: job.head.changed_at)
        orphans = [(job, job.head.size) for job in closed if not job.head.is_known]
        surplus = len(self._arrivals) - deliveries_kept
        for job in oldest_beyond(orphans, delivery_bytes_kept):
            surplus -= self._forget(job)
        for job in closed:
            if job.head.changed_at >= before and surplus <= 0:
                break
            due = _dues(job.head)[1]
            if job.head.lookup.ref in self._held and (due is None or due < untold_before):
                surplus -= self._forget(job)
        self._arrivals = [job for job in self._arrivals if job.head.lookup.ref in self._held]
        for queue in self._due.values():
            queue[:] = [item for item in queue if item[-1].head.lookup.ref in self._held]
        return count - len(self._held)

    async def warnings(self) -> tuple[str, ...]:
        """Return a warning that nothing survives the process."""
        self._check()
        return ("the memory store does not survive a restart; give `store=` a file or a server",)

    def _forget(self, job: KnownJob) -> int:
        """Delete a job, except from the lists that `purge` filters at its end; return how many webhooks it had."""
        self._link(job, job.head.lookup, None)
        del self._held[job.head.lookup.ref]
        return sum(entry.kind == "webhook" for entry in job.ids.values())

    def _check(self) -> None:
        if self._failing is not None:
            raise StoreError(self._failing)

    def _listened_to(self) -> Fanout:
        self._check()
        return self._fanout

    def _queues(self, work: Work, providers: Providers) -> list[list[tuple[float, int, KnownJob]]]:
        names = {provider for _, provider in self._due} if providers is None else set(providers)
        return [self._due[work, provider] for provider in names]

    # --- the methods of Journals -----------------------------------------------------------------------------

    def _holder(self, key: str) -> str | None:
        return self._keys.get(key)

    def _job(self, ref: str) -> KnownJob | None:
        return self._held.get(ref)

    def _entries(self, job: KnownJob) -> Iterable[Entry]:
        return job.ids.values()

    def _window_ends(self, account: str, per: float, now: float) -> Sequence[float]:
        leaving: list[float] = []
        submits = self._submits[account]
        for ref, job in tuple(submits.items()):
            index = job.head.lookup
            begin, span, most = index.answered_at, per, math.inf
            if begin is None:
                begin, span, most = index.created_at, POST_SECONDS, now + per
            if begin + span <= now:
                del submits[ref]
            elif begin < now + span:  # an unanswered submit may be answered now, and then counts for the whole window
                leaving.append(min(begin + span, most))
        return leaving

    def _count_occupying(self, account: str, now: float) -> int:
        return sum(job.head.lookup.occupies_until > now for job in self._occupying[account].values())

    def _begin(self, job: KnownJob, head: Head, request: Entry) -> None:
        job.ids = {request.id: request, **job.ids}
        self._put(job, head, ())

    def _put(self, job: KnownJob, head: Head, new: Iterable[Entry]) -> None:
        for entry in new:
            job.ids[entry.id] = entry
            if entry.kind == "webhook":
                self._arrivals.append(job)
        before, index, job.head = job.head, head.lookup, head
        if job.number < 0:
            job.number = next(self._numbers)
            self._held[index.ref] = job
        if index is not before.lookup and _links(index) != _links(before.lookup):
            self._link(job, before.lookup, index)
        for work, was, due in zip(_WORKS, _dues(before), _dues(head), strict=True):
            if was != due:
                queue = self._due[work, index.provider]
                if was is not None:
                    del queue[bisect_left(queue, (was, job.number))]
                if due is not None:
                    insort(queue, (due, job.number, job))
        if head.entries != before.entries:
            self._fanout.publish((Changed(index.ref, head.entries),))

    def _link(self, job: KnownJob, before: Index, index: Index | None) -> None:
        """Make *job* findable by *index* and no longer by *before*."""
        if before.key is not None and self._keys.get(before.key) == before.ref:
            del self._keys[before.key]
        task = (before.provider, before.task_id)
        refs = self._tasks.pop(task, ())
        if refs and refs != (before.ref,):
            self._tasks[task] = tuple(ref for ref in refs if ref != before.ref)
        self._submits[before.account].pop(before.ref, None)
        self._occupying[before.account].pop(before.ref, None)
        if index is None:
            return
        if index.key is not None:
            self._keys[index.key] = index.ref
        if index.task_id is not None:
            task = (index.provider, index.task_id)
            self._tasks[task] = (*self._tasks.get(task, ()), index.ref)
        self._submits[index.account][index.ref] = job
        if index.occupies_until > 0:
            self._occupying[index.account][index.ref] = job
