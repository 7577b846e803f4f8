"""The store that lives in one process: for tests, scripts, and jobs that may be forgotten with the process."""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.record import Record
from audioext.stores._changes import Fanout
from audioext.stores._memory_rows import Agenda, Row, Work
from audioext.stores.base import (
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

_POLL = "poll"


@define(eq=False, repr=False)
class MemoryStore:
    """All in memory: the whole store protocol, nothing survives the process."""

    _rows: dict[str, Row] = field(factory=dict, init=False)
    _numbers: itertools.count[int] = field(factory=itertools.count, init=False)
    _by_age: list[tuple[float, int, str]] = field(factory=list, init=False)
    _refs_by_key: dict[str, str] = field(factory=dict, init=False)
    _refs_by_task: dict[tuple[str, str], dict[str, None]] = field(factory=dict, init=False)
    _names: dict[str, bytes] = field(factory=dict, init=False)
    _places: dict[str, dict[str, float]] = field(factory=dict, init=False)
    _deliveries: dict[str, Delivery] = field(factory=dict, init=False)
    _agendas: dict[Kind, Agenda] = field(factory=lambda: {"poll": Agenda(), "outbox": Agenda()}, init=False)
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

    async def create(self, record: Record, key: str | None = None, *, due_at: float | None = None) -> Created:
        """Store a new record; see `Store.create`."""
        self._check()
        taken = record.ref if key is None else self._refs_by_key.get(key, record.ref)
        if taken in self._rows:
            return Created(stored=self._rows[taken].stored, existing=True)
        row = Row(next(self._numbers), Versioned(record=record, version=1), key)
        row.poll = None if due_at is None else Work(_POLL, 0, due_at)
        self._rows[record.ref] = row
        heapq.heappush(self._by_age, (record.created_at, row.number, record.ref))
        if key is not None:
            self._refs_by_key[key] = record.ref
        self._index_task(record)
        self._reschedule(row)
        self._fanout.publish((record.ref,))
        return Created(stored=row.stored, existing=False)

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
        self._index_task(record)
        row.stored = Versioned(record=record, version=expected_version + 1)
        row.is_open = is_open
        row.poll = Work(_POLL, 0, due_at) if is_open and due_at is not None else None
        row.held.pop("poll", None)
        for entry in outbox:
            if entry.topic not in row.told:
                row.outbox.setdefault(entry.topic, Work(entry.topic, entry.sequence))
        self._reschedule(row)
        if delivery is not None:
            self._deliveries[delivery.id] = delivery
        self._fanout.publish((record.ref,))
        return Done(version=expected_version + 1)

    async def discard(self, ref: str, expected_version: int) -> bool:
        """Forget a record; see `Store.discard`."""
        self._check()
        row = self._rows.get(ref)
        if row is None or row.stored.version != expected_version:
            return False
        self._remove(ref)
        self._fanout.publish((ref,))
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
        refs = self._refs_by_task.get((provider, task_id))
        return self._rows[next(reversed(refs))].stored if refs else None

    async def scan(self, *, is_open: bool | None = None) -> AsyncIterator[Versioned]:
        """Yield the records in the order of their creation; see `Store.scan`."""
        self._check()
        for row in tuple(self._rows.values()):
            if (is_open is None or row.is_open == is_open) and self._rows.get(row.stored.record.ref) is row:
                yield row.stored

    async def claim(
        self, kind: Kind, *, now: float, lease: float, limit: int, providers: Sequence[str] | None = None
    ) -> tuple[Lease, ...]:
        """Take work that is due; see `Store.claim`."""
        self._check()
        agenda = self._agendas[kind]
        found: list[Lease] = []
        while len(found) < limit and (due := agenda.earliest(providers)) is not None and due[0] <= now:
            row = self._rows[due[2]]
            work = row.turn(kind)
            if work is None:  # pragma: no cover - an agenda holds only rows with work
                break
            work.attempts += 1
            row.held[kind] = Lease(
                kind=kind,
                ref=due[2],
                topic=work.topic,
                sequence=work.sequence,
                attempts=work.attempts,
                until=now + lease,
                token=secrets.token_hex(8),
            )
            found.append(row.held[kind])
            agenda.put(due[2], row.stored.record.provider, None)
        for taken in found:
            self._reschedule(self._rows[taken.ref])
        return tuple(found)

    async def settle(self, lease: Lease, *, due_at: float | None) -> bool:
        """End a lease; see `Store.settle`."""
        self._check()
        row = self._rows.get(lease.ref)
        held = None if row is None else row.held.get(lease.kind)
        if row is None or held is None or held.token != lease.token:
            return False
        del row.held[lease.kind]
        if lease.kind == "poll":
            row.poll = None if due_at is None else Work(_POLL, 0, due_at, held.attempts)
        elif due_at is None:
            del row.outbox[held.topic]
            row.told.add(held.topic)
        else:
            row.outbox[held.topic].due_at = due_at
        self._reschedule(row)
        return True

    async def next_due(self, kind: Kind, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when the earliest work is due; see `Store.next_due`."""
        self._check()
        due = self._agendas[kind].earliest(providers)
        return None if due is None else due[0]

    async def journal(self, delivery: Delivery) -> None:
        """Append a delivery."""
        self._check()
        self._deliveries[delivery.id] = delivery

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal, newest first."""
        self._check()
        for id_ in sorted(self._deliveries, reverse=True):
            delivery = self._deliveries.get(id_)
            if delivery is not None and ref in {None, delivery.ref}:
                yield delivery

    async def delivery(self, id_: str) -> Delivery | None:
        """Return one delivery."""
        self._check()
        return self._deliveries.get(id_)

    async def create_if_absent(self, name: str, value: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        self._check()
        return self._names.setdefault(name, value)

    async def take_place(self, name: str, holder: str, *, limit: int, now: float, until: float) -> float:
        """Take one of so many places; see `Store.take_place`."""
        self._check()
        held = {who: till for who, till in self._places.get(name, {}).items() if till > now}
        if holder not in held and len(held) >= limit:
            return min(held.values())
        self._places[name] = {**held, holder: until}
        return 0.0

    async def leave_place(self, name: str, holder: str, *, now: float, until: float | None) -> bool:  # noqa: ARG002 - one process, one clock
        """Give a place back, at once or later; see `Store.leave_place`."""
        self._check()
        held = self._places.get(name, {})
        if holder not in held:
            return False
        if until is None:
            del held[holder]
        else:
            held[holder] = until
        return True

    async def places(self, name: str) -> tuple[str, ...]:
        """Return who holds places; see `Store.places`."""
        self._check()
        return tuple(self._places.get(name, ()))

    async def warnings(self) -> tuple[str, ...]:
        """Say that nothing survives the process."""
        self._check()
        return ("the memory store survives no restart; give store= a file or a server",)

    async def changes(self) -> AsyncIterator[str | Resync]:
        """Yield the ref of every change from now on; see `Store.changes`."""
        self._check()
        async with aclosing(self._fanout.listen()) as changes:
            async for change in changes:
                yield change

    async def purge(self, *, created_before: float, deliveries_before: float, deliveries_kept: int) -> int:
        """Forget what is old; see `Store.purge`."""
        self._check()
        old: list[str] = []
        still_open: list[tuple[float, int, str]] = []
        while self._by_age and self._by_age[0][0] < created_before:
            aged = heapq.heappop(self._by_age)
            row = self._rows.get(aged[2])
            if row is None or row.number != aged[1]:
                continue
            if row.is_open:
                still_open.append(aged)
            else:
                old.append(aged[2])
        for aged in still_open:
            heapq.heappush(self._by_age, aged)
        for ref in old:
            self._remove(ref)
        kept = sorted(id_ for id_, held in self._deliveries.items() if held.received_at >= deliveries_before)
        surplus = max(0, len(kept) - deliveries_kept)
        self._deliveries = {id_: self._deliveries[id_] for id_ in kept[surplus:]}
        return len(old)

    def _check(self) -> None:
        if self._failing is not None:
            raise StoreError(self._failing)

    def _reschedule(self, row: Row) -> None:
        record = row.stored.record
        for kind, agenda in self._agendas.items():
            agenda.put(record.ref, record.provider, row.due_at(kind))

    def _index_task(self, record: Record) -> None:
        if record.task_id is not None:
            self._refs_by_task.setdefault((record.provider, record.task_id), {})[record.ref] = None

    def _forget_task(self, record: Record) -> None:
        if record.task_id is None:
            return
        refs = self._refs_by_task[record.provider, record.task_id]
        del refs[record.ref]
        if not refs:
            del self._refs_by_task[record.provider, record.task_id]

    def _remove(self, ref: str) -> None:
        row = self._rows.pop(ref)
        if row.key is not None:
            del self._refs_by_key[row.key]
        self._forget_task(row.stored.record)
        for agenda in self._agendas.values():
            agenda.put(ref, row.stored.record.provider, None)
