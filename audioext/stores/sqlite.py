"""The store in one SQLite file: durable, shared by the processes of one machine, committed in groups.

All commits that wait share one transaction; see `_sqlite_lane`. Nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from os import PathLike
from pathlib import Path

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.record import Record, dump, load
from audioext.stores import _sqlite_journal as journal
from audioext.stores import _sqlite_records as records
from audioext.stores._sqlite_engine import Engine
from audioext.stores._sqlite_file import Connection, DatabaseFile, Synchronous
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

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a commit waits for another process's; then the provider is told to come again."""
PAGE_ROWS = 256
PURGE_ROWS = 256
"""Rows that one step of a purge takes, so that no commit waits long for it."""
PURGE_PAGES = 512


@define(eq=False)
class SqliteStore:
    """The whole store protocol on one SQLite file, which several processes of one machine may share.

    *path* is relative to the working folder. *synchronous* `"normal"` survives a crash of the process at any
    instant, and loses at most about the last second when the machine loses its power; `"full"` waits for the
    disk with every group of commits and loses nothing then either. *busy_timeout* (seconds) is how long a
    commit waits for one of another process.
    """

    path: str | PathLike[str]
    synchronous: Synchronous = field(default="normal", kw_only=True)
    busy_timeout: float = field(default=BUSY_TIMEOUT_SECONDS, kw_only=True)
    _engine: Engine | None = field(default=None, init=False, repr=False)

    @property
    def shared(self) -> bool:
        """Other processes may open the same file."""
        return True

    async def open(self) -> None:
        """Open the file, make it if there is none, and bring its schema up to date.

        Raises:
            StoreError: it cannot be opened or written, is damaged, another program's, or a newer release's.
        """
        if self._engine is None:
            self._engine = Engine(self._file())
        engine = self._engine
        if engine.users == 0:
            try:
                await engine.start()
            except BaseException:
                if self._engine is engine and engine.users == 0:
                    self._engine = None
                    await engine.aclose()
                raise
        engine.users += 1

    async def aclose(self) -> None:
        """Finish the commits that were accepted, then close the file, with the last user."""
        engine = self._engine
        if engine is None:
            return
        engine.users -= 1
        if engine.users <= 0:
            self._engine = None
            # Threads and connections are let go of even if the caller is cancelled.
            await asyncio.shield(asyncio.ensure_future(engine.aclose()))

    async def create(self, record: Record, key: str | None = None, *, due_at: float | None = None) -> Created:
        """Store a new record; see `Store.create`."""
        new = records.NewRecord(
            ref=record.ref,
            provider=record.provider,
            key=key,
            task_id=record.task_id,
            created_at=record.created_at,
            due_at=due_at,
            body=_dumped(record),
        )
        taken = await self._opened().writer.run(lambda connection: records.create(connection, new))
        if taken is None:
            return Created(stored=Versioned(record=record, version=1), existing=False)
        return Created(stored=_loaded(taken), existing=True)

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
        """Replace a record, with all other commits that wait; see `Store.commit`."""
        change = records.Change(
            ref=record.ref,
            expected_version=expected_version,
            task_id=record.task_id,
            is_open=is_open,
            due_at=due_at,
            outbox=outbox,
            delivery=delivery,
            body=_dumped(record),
        )
        outcome = await self._opened().writer.run(lambda connection: records.commit(connection, change))
        if isinstance(outcome, Done):
            return outcome
        return Conflict(current=_found(outcome))

    async def discard(self, ref: str, expected_version: int) -> bool:
        """Forget a record; see `Store.discard`."""
        return await self._opened().writer.run(lambda connection: records.discard(connection, ref, expected_version))

    async def get(self, ref: str) -> Versioned | None:
        """Return a record by its ref."""
        return _found(await self._opened().reader.run(lambda connection: records.get(connection, ref)))

    async def find_key(self, key: str) -> Versioned | None:
        """Return a record by its key."""
        return _found(await self._opened().reader.run(lambda connection: records.find_key(connection, key)))

    async def find(self, provider: str, task_id: str) -> Versioned | None:
        """Return a record by its task id."""
        return _found(await self._opened().reader.run(lambda connection: records.find(connection, provider, task_id)))

    async def scan(self, *, is_open: bool | None = None) -> AsyncIterator[Versioned]:
        """Yield the records in the order of their creation, read page by page; see `Store.scan`."""
        page = partial(records.page, after=0, limit=PAGE_ROWS, is_open=is_open)
        while rows := await self._opened().reader.run(page):
            for _, version, body in rows:
                yield _loaded((version, body))
            page = partial(records.page, after=rows[-1][0], limit=PAGE_ROWS, is_open=is_open)

    async def claim(
        self, kind: Kind, *, now: float, lease: float, limit: int, providers: Sequence[str] | None = None
    ) -> tuple[Lease, ...]:
        """Take work that is due; see `Store.claim`."""

        def give_back(leases: tuple[Lease, ...]) -> Callable[[Connection], None]:
            return lambda connection: records.give_back(connection, leases, now)

        writer = self._opened().writer
        claimed = writer.run(
            lambda connection: records.claim(connection, kind, now=now, lease=lease, limit=limit, providers=providers),
            undo=give_back,
        )
        try:
            return await claimed
        except asyncio.CancelledError:
            if not claimed.cancelled() and claimed.exception() is None:  # it was cancelled an instant too late
                writer.forget(give_back(claimed.result()))
            raise

    async def settle(self, lease: Lease, *, due_at: float | None) -> bool:
        """End a lease; see `Store.settle`."""
        return await self._opened().writer.run(lambda connection: records.settle(connection, lease, due_at))

    async def next_due(self, kind: Kind, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when the earliest work is due; see `Store.next_due`."""
        return await self._opened().reader.run(lambda connection: records.next_due(connection, kind, providers))

    async def journal(self, delivery: Delivery) -> None:
        """Append a delivery."""
        await self._opened().writer.run(lambda connection: journal.journal(connection, delivery))

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal, newest first, read page by page."""
        page = partial(journal.deliveries, before=journal.NEWEST, limit=PAGE_ROWS, ref=ref)
        while rows := await self._opened().reader.run(page):
            for _, delivery in rows:
                yield delivery
            before = (rows[-1][1].id, rows[-1][0])
            page = partial(journal.deliveries, before=before, limit=PAGE_ROWS, ref=ref)

    async def delivery(self, id_: str) -> Delivery | None:
        """Return one delivery."""
        return await self._opened().reader.run(lambda connection: journal.delivery(connection, id_))

    async def create_if_absent(self, name: str, value: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        return await self._opened().writer.run(lambda connection: journal.create_if_absent(connection, name, value))

    async def take_place(self, name: str, holder: str, *, limit: int, now: float, until: float) -> float:
        """Take one of so many places; see `Store.take_place`."""
        return await self._opened().writer.run(
            lambda connection: records.take_place(connection, name, holder, limit=limit, now=now, until=until)
        )

    async def leave_place(self, name: str, holder: str, *, now: float, until: float | None) -> bool:  # noqa: ARG002 - one machine, one clock
        """Give a place back, at once or later; see `Store.leave_place`."""
        return await self._opened().writer.run(lambda connection: records.leave_place(connection, name, holder, until))

    async def places(self, name: str) -> tuple[str, ...]:
        """Return who holds places; see `Store.places`."""
        return await self._opened().reader.run(lambda connection: records.places(connection, name))

    async def warnings(self) -> tuple[str, ...]:
        """Reach the file; what its settings risk, its user chose by name."""
        await self._opened().reader.run(journal.last_change)
        return ()

    async def changes(self) -> AsyncIterator[str | Resync]:
        """Yield the ref of every change from now on, of other processes within 100 ms; see `Store.changes`."""
        async with aclosing(self._opened().changes()) as changes:
            async for change in changes:
                yield change

    async def purge(self, *, created_before: float, deliveries_before: float, deliveries_kept: int) -> int:
        """Forget what is old, in steps between which commits go on; see `Store.purge`."""
        went = 0
        while step := await self._step(lambda c: journal.purge_records(c, created_before, PURGE_ROWS)):
            went += step
        while await self._step(lambda c: journal.purge_old_deliveries(c, deliveries_before, PURGE_ROWS)):
            pass
        surplus = await self._opened().reader.run(lambda c: journal.first_surplus(c, deliveries_kept))
        while surplus and await self._step(lambda c: journal.purge_surplus_deliveries(c, surplus, PURGE_ROWS)):
            pass
        while await self._step(lambda c: journal.give_back(c, PURGE_PAGES)):
            pass
        return went

    async def _step(self, work: Callable[[Connection], int]) -> int:
        return await self._opened().writer.run(work)

    def _file(self) -> DatabaseFile:
        return DatabaseFile(
            path=Path(self.path).absolute(), synchronous=self.synchronous, busy_timeout=self.busy_timeout
        )

    def _opened(self) -> Engine:
        if self._engine is None:
            raise StoreError("the store is not open: open it, or use it within its client's `async with`")
        return self._engine


def _dumped(record: Record) -> bytes:
    try:
        return dump(record)
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise StoreError(f"job {record.ref} cannot be stored as JSON: {error}") from error


def _loaded(stored: records.Stored) -> Versioned:
    version, body = stored
    return Versioned(record=load(body), version=version)


def _found(stored: records.Stored | None) -> Versioned | None:
    return None if stored is None else _loaded(stored)
