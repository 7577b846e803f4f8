"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

from attrs import define, field

from audioext.errors import StoreError
from audioext.record import Record
from audioext.stores.base import (
    RESYNC,
    Conflict,
    Created,
    Delivery,
    Done,
    Kind,
    Lease,
    OutboxEntry,
    Resync,
    Versioned,
)

_MAX_BACKLOG = 100_000  # changes that a listener may be behind before it has to look at everything again
_Work = tuple[str, str]
"""What can be leased: (ref, topic); the topic of a status call is `POLL`."""
POLL = "poll"


@define(eq=False)
class _Row:
    stored: Versioned
    key: str | None
    is_open: bool
    outbox: dict[str, OutboxEntry] = field(factory=dict)
    settled: set[str] = field(factory=set)

    def next_entry(self) -> OutboxEntry | None:
        return min(self.outbox.values(), key=lambda entry: (entry.sequence, entry.topic), default=None)


@define(eq=False)
class _Turn:
    """When a piece of work is due, and who holds it; the heap may hold stale copies of `due_at`."""

    due_at: float
    token: str | None = None
    attempts: int = 0


@define(eq=False)
class _Queue:
    """Work of one kind in the order in which it is due."""

    turns: dict[_Work, _Turn] = field(factory=dict)
    _heap: list[tuple[float, int, _Work]] = field(factory=list)
    _count: itertools.count[int] = field(factory=itertools.count)

    def put(self, work: _Work, turn: _Turn) -> None:
        self.turns[work] = turn
        heapq.heappush(self._heap, (turn.due_at, next(self._count), work))

    def drop(self, work: _Work) -> None:
        self.turns.pop(work, None)

    def earliest(self) -> float | None:
        self._forget_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> _Work | None:
        """Return the most overdue work, which stays in `turns`; the caller puts it back or drops it."""
        self._forget_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        return heapq.heappop(self._heap)[2]

    def _forget_stale(self) -> None:
        while self._heap:
            due_at, _, work = self._heap[0]
            turn = self.turns.get(work)
            if turn is not None and turn.due_at == due_at:
                return
            heapq.heappop(self._heap)


@define(eq=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _rows: dict[str, _Row] = field(factory=dict, init=False)
    _refs_by_key: dict[str, str] = field(factory=dict, init=False)
    _refs_by_task: dict[tuple[str, str], str] = field(factory=dict, init=False)
    _names: dict[str, bytes] = field(factory=dict, init=False)
    _deliveries: dict[str, Delivery] = field(factory=dict, init=False)
    _queues: dict[Kind, _Queue] = field(factory=lambda: {"poll": _Queue(), "outbox": _Queue()}, init=False)
    _listeners: set[asyncio.Queue[str | Resync | None]] = field(factory=set, init=False)
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
            for listener in self._listeners:
                listener.put_nowait(None)

    def fail(self, why: str | None) -> None:
        """Raise `StoreError` from every call until `fail(None)`: for testing what your code does then."""
        self._failing = why

    async def create(self, record: Record, key: str | None = None, *, due_at: float | None = None) -> Created:
        """Store a new record; see `Store.create`."""
        self._check()
        taken = self._refs_by_key.get(key, record.ref) if key is not None else record.ref
        if taken in self._rows:
            return Created(stored=self._rows[taken].stored, existing=True)
        stored = Versioned(record=record, version=1)
        self._rows[record.ref] = _Row(stored, key, is_open=True)
        if key is not None:
            self._refs_by_key[key] = record.ref
        self._schedule(record.ref, due_at)
        self._index(record)
        self._changed(record.ref)
        return Created(stored=stored, existing=False)

    async def commit(  # noqa: PLR0913 - the protocol's
        self,
        record: Record,
        expected_version: int,
        *,
        is_open: bool,
        due_at: float | None,
        outbox: Sequence[OutboxEntry] = (),
        delivery: Delivery | None = None,
    ) -> Done | Conflict:
        """Replace a record; see `Store.commit`."""
        self._check()
        row = self._rows.get(record.ref)
        if row is None or row.stored.version != expected_version:
            return Conflict(current=None if row is None else row.stored)
        self._forget_task(row.stored.record)
        row.stored = Versioned(record=record, version=expected_version + 1)
        row.is_open = is_open
        self._index(record)
        self._schedule(record.ref, due_at if is_open else None)
        for entry in outbox:
            if entry.topic not in row.outbox and entry.topic not in row.settled:
                row.outbox[entry.topic] = entry
        self._offer(record.ref, row)
        if delivery is not None:
            self._deliveries[delivery.id] = delivery
        self._changed(record.ref)
        return Done(version=expected_version + 1)

    async def discard(self, ref: str, expected_version: int) -> bool:
        """Forget a record; see `Store.discard`."""
        self._check()
        row = self._rows.get(ref)
        if row is None or row.stored.version != expected_version:
            return False
        self._remove(ref, row)
        self._changed(ref)
        return True

    async def get(self, ref: str) -> Versioned | None:
        """Return a record by its ref."""
        self._check()
        row = self._rows.get(ref)
        return None if row is None else row.stored

    async def find_key(self, key: str) -> Versioned | None:
        """Return a record by its key."""
        self._check()
        ref = self._refs_by_key.get(key)
        return None if ref is None else self._rows[ref].stored

    async def find(self, provider: str, task_id: str) -> Versioned | None:
        """Return a record by its task id."""
        self._check()
        ref = self._refs_by_task.get((provider, task_id))
        return None if ref is None else self._rows[ref].stored

    async def scan(self, *, is_open: bool | None = None) -> AsyncIterator[Versioned]:
        """Yield the records in the order of their creation; see `Store.scan`."""
        self._check()
        for ref in tuple(self._rows):
            row = self._rows.get(ref)
            if row is not None and (is_open is None or row.is_open == is_open):
                yield row.stored

    async def claim(
        self, kind: Kind, *, now: float, lease: float, limit: int, providers: Sequence[str] | None = None
    ) -> tuple[Lease, ...]:
        """Take work that is due; see `Store.claim`."""
        self._check()
        queue = self._queues[kind]
        found: list[Lease] = []
        passed: list[tuple[_Work, _Turn]] = []
        while len(found) < limit and (work := queue.pop_due(now)) is not None:
            ref, topic = work
            row, turn = self._rows[ref], queue.turns[work]
            if providers is not None and row.stored.record.provider not in providers:
                passed.append((work, queue.turns.pop(work)))  # out of the way until this claim is over
                continue
            taken = _Turn(due_at=now + lease, token=secrets.token_hex(8), attempts=turn.attempts + 1)
            queue.put(work, taken)
            found.append(
                Lease(
                    kind=kind,
                    ref=ref,
                    topic=topic,
                    sequence=0 if kind == "poll" else row.outbox[topic].sequence,
                    attempts=taken.attempts,
                    until=taken.due_at,
                    token=str(taken.token),
                )
            )
        for work, turn in passed:
            queue.put(work, turn)
        return tuple(found)

    async def settle(self, lease: Lease, *, due_at: float | None) -> bool:
        """End a lease; see `Store.settle`."""
        self._check()
        queue, work = self._queues[lease.kind], (lease.ref, lease.topic)
        turn = queue.turns.get(work)
        if turn is None or turn.token != lease.token:
            return False
        if due_at is not None:
            queue.put(work, _Turn(due_at=due_at, attempts=turn.attempts))
            return True
        queue.drop(work)
        if lease.kind == "outbox":
            row = self._rows[lease.ref]
            del row.outbox[lease.topic]
            row.settled.add(lease.topic)
            self._offer(lease.ref, row)
        return True

    async def next_due(self, kind: Kind) -> float | None:
        """Return when the earliest work is due."""
        self._check()
        return self._queues[kind].earliest()

    async def journal(self, delivery: Delivery) -> None:
        """Append a delivery."""
        self._check()
        self._deliveries[delivery.id] = delivery

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal, newest first."""
        self._check()
        for delivery in sorted(self._deliveries.values(), key=lambda delivery: delivery.id, reverse=True):
            if ref is None or delivery.ref == ref:
                yield delivery

    async def delivery(self, id_: str) -> Delivery | None:
        """Return one delivery."""
        self._check()
        return self._deliveries.get(id_)

    async def create_if_absent(self, name: str, value: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        self._check()
        return self._names.setdefault(name, value)

    async def changes(self) -> AsyncIterator[str | Resync]:
        """Yield the ref of every commit from now on; see `Store.changes`."""
        listener: asyncio.Queue[str | Resync | None] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            while (change := await listener.get()) is not None:
                yield change
        finally:
            self._listeners.discard(listener)

    async def purge(self, *, created_before: float, deliveries_before: float, deliveries_kept: int) -> int:
        """Forget what is old; see `Store.purge`."""
        self._check()
        old = [
            ref
            for ref, row in self._rows.items()
            if not row.is_open and row.stored.record.created_at < created_before
        ]
        for ref in old:
            self._remove(ref, self._rows[ref])
        kept = sorted(
            (d for d in self._deliveries.values() if d.received_at >= deliveries_before), key=lambda d: d.id
        )
        surplus = max(0, len(kept) - deliveries_kept)
        self._deliveries = {delivery.id: delivery for delivery in kept[surplus:]}
        return len(old)

    def _check(self) -> None:
        if self._failing is not None:
            raise StoreError(self._failing)

    def _schedule(self, ref: str, due_at: float | None) -> None:
        if due_at is None:
            self._queues["poll"].drop((ref, POLL))
        else:
            self._queues["poll"].put((ref, POLL), _Turn(due_at=due_at))

    def _offer(self, ref: str, row: _Row) -> None:
        """Let the first entry of a job that is not settled be the one that can be claimed."""
        entry, queue = row.next_entry(), self._queues["outbox"]
        for topic in row.outbox:
            turn = queue.turns.get((ref, topic))
            if entry is not None and topic == entry.topic and turn is None:
                queue.put((ref, topic), _Turn(due_at=0.0))
            elif entry is not None and topic != entry.topic and turn is not None and turn.token is None:
                queue.drop((ref, topic))

    def _index(self, record: Record) -> None:
        if record.task_id is not None:
            self._refs_by_task[record.provider, record.task_id] = record.ref

    def _forget_task(self, record: Record) -> None:
        task = (record.provider, record.task_id or "")
        if self._refs_by_task.get(task) == record.ref:
            del self._refs_by_task[task]

    def _remove(self, ref: str, row: _Row) -> None:
        del self._rows[ref]
        if row.key is not None:
            self._refs_by_key.pop(row.key, None)
        self._forget_task(row.stored.record)
        self._queues["poll"].drop((ref, POLL))
        for topic in row.outbox:
            self._queues["outbox"].drop((ref, topic))

    def _changed(self, ref: str) -> None:
        for listener in self._listeners:
            if listener.qsize() < _MAX_BACKLOG:
                listener.put_nowait(ref)
            elif listener.qsize() == _MAX_BACKLOG:
                listener.put_nowait(RESYNC)
