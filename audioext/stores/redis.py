"""The store on Redis or Valkey: the truth for any number of listeners and workers, on one server or a cluster.

Nothing here blocks the event loop. One event costs one round trip; see `_redis_lane` and `_redis_scripts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.record import Record
from audioext.stores import _redis_journal as journal
from audioext.stores import _redis_leases as leases
from audioext.stores import _redis_records as records
from audioext.stores import _redis_scripts as scripts
from audioext.stores._redis_engine import Engine
from audioext.stores._redis_keys import MAX_PARTITIONS, PARTITIONS, PREFIX, Address, read_number, read_seconds, read_url
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

DAY_SECONDS = 86_400
TTL_SECONDS = 30 * DAY_SECONDS
MAX_TTL = 100 * 365 * DAY_SECONDS
PATIENCE_SECONDS = 5.0


@define(eq=False)
class RedisStore:
    """The whole store protocol on Redis or Valkey, which any number of machines may share.

        *url* is `redis://user:password@host:6379/0`, `rediss://` with TLS, `valkey://`, `valkeys://`, or
        `unix:///path/to/socket`; a node of a cluster is recognised. Its query may say `prefix=` (of all keys,
        `audioext`), `partitions=` (8; fixed by the first process that opens the store, more for a large cluster)
        and `ttl=` (seconds, 30 days: what is closed, and deliveries, are forgotten by the engine itself then, should
    no
        client run that purges), and `patience=` (seconds, 5): how long a call waits for a server that is not there.

        What a commit survives is the server's own policy: with `appendonly yes`, `appendfsync always` survives a
        power loss and `everysec` may lose the last second; without it a restart of the server loses what came after
        its last snapshot. `warnings` says so.

    Raises:
            ConfigError: the URL names no server, or asks for something in no known way.
    """

    url: str = field(repr=False)
    patience: float | None = field(default=None, kw_only=True)
    _address: Address = field(init=False, repr=False)
    _partitions: int = field(init=False, repr=False)
    _ttl: int = field(init=False, repr=False)
    _patience: float = field(init=False, repr=False)
    _engine: Engine | None = field(default=None, init=False, repr=False)
    _users: int = field(default=0, init=False, repr=False)
    _opening: asyncio.Lock = field(factory=asyncio.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Read the URL; nothing is connected yet."""
        self._address = read_url(self.url)
        self._partitions = read_number(self._address.options, "partitions", PARTITIONS, MAX_PARTITIONS)
        self._patience = read_seconds(self._address.options, "patience", self.patience or PATIENCE_SECONDS)
        self._ttl = read_number(self._address.options, "ttl", TTL_SECONDS, MAX_TTL)

    @property
    def shared(self) -> bool:
        """Other processes use the same server."""
        return True

    async def open(self) -> None:
        """Connect, agree on the layout with all who use the same prefix, and listen to changes.

        Raises:
            StoreError: the server is not there or refuses, or holds the layout of a newer release.
        """
        async with self._opening:  # two clients may open it at once
            if self._engine is None:
                self._engine = await Engine.start(
                    self._address,
                    prefix=self._address.options.get("prefix", PREFIX),
                    partitions=self._partitions,
                    patience=self._patience,
                    ttl=self._ttl,
                )
            self._users += 1

    async def aclose(self) -> None:
        """Finish what was accepted and disconnect, with the last user."""
        self._users = max(0, self._users - 1)
        engine = self._engine
        if engine is not None and self._users == 0:
            self._engine = None
            await asyncio.shield(asyncio.ensure_future(engine.aclose()))

    async def warnings(self) -> tuple[str, ...]:
        """Reach the server; return what its persistence does not survive."""
        return await self._opened().warnings()

    async def create(self, record: Record, key: str | None = None, *, due_at: float | None = None) -> Created:
        """Store a new record; see `Store.create`."""
        if key is not None:
            return await records.create_with_key(self._opened(), record, key, due_at)
        created = await records.create(self._opened(), record, due_at)
        assert created is not None  # noqa: S101 - only reservations are fenced off
        return created

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
        change = records.Change(
            record=record,
            expected_version=expected_version,
            is_open=is_open,
            due_at=due_at,
            outbox=outbox,
            delivery=delivery,
        )
        return await records.commit(self._opened(), change)

    async def discard(self, ref: str, expected_version: int) -> bool:
        """Forget a record; see `Store.discard`."""
        return await records.forget(self._opened(), ref, str(expected_version)) == "forgotten"

    async def get(self, ref: str) -> Versioned | None:
        """Return a record by its ref."""
        return await records.get(self._opened(), ref)

    async def find_key(self, key: str) -> Versioned | None:
        """Return a record by its key."""
        return await records.find_key(self._opened(), key)

    async def find(self, provider: str, task_id: str) -> Versioned | None:
        """Return a record by its task id."""
        return await records.find(self._opened(), provider, task_id)

    async def scan(self, *, is_open: bool | None = None) -> AsyncIterator[Versioned]:
        """Yield the records in the order of their creation, read page by page; see `Store.scan`."""
        async with aclosing(records.scan(self._opened(), is_open=is_open)) as found:
            async for one in found:
                yield one

    async def claim(
        self, kind: Kind, *, now: float, lease: float, limit: int, providers: Sequence[str] | None = None
    ) -> tuple[Lease, ...]:
        """Take work that is due; see `Store.claim`."""
        return await leases.claim(self._opened(), kind, now=now, lease=lease, limit=limit, providers=providers)

    async def settle(self, lease: Lease, *, due_at: float | None) -> bool:
        """End a lease; see `Store.settle`."""
        return await leases.settle(self._opened(), lease, due_at)

    async def next_due(self, kind: Kind, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when the earliest work is due; see `Store.next_due`."""
        return await leases.next_due(self._opened(), kind, providers)

    async def journal(self, delivery: Delivery) -> None:
        """Append a delivery."""
        await journal.journal(self._opened(), delivery)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal, newest first, read page by page."""
        async with aclosing(journal.deliveries(self._opened(), ref)) as found:
            async for one in found:
                yield one

    async def delivery(self, id_: str) -> Delivery | None:
        """Return one delivery."""
        return await journal.delivery(self._opened(), id_)

    async def create_if_absent(self, name: str, value: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        engine = self._opened()
        key = engine.layout.of(name).named(name)
        found: bytes | None = None
        while found is None:  # a server that loses its data between the two is asked again
            _, found = await asyncio.gather(engine.lane.run("SET", key, value, "NX"), engine.lane.run("GET", key))
        return found

    async def take_place(self, name: str, holder: str, *, limit: int, now: float, until: float) -> float:
        """Take one of so many places; see `Store.take_place`. The server's own clock counts the seconds."""
        key = self._opened().layout.of(name).places(name)
        wait = float(await self._opened().lane.do(scripts.TAKE_PLACE, [key], holder, limit, repr(until - now)))
        return now + wait if wait > 0 else 0.0

    async def leave_place(self, name: str, holder: str, *, now: float, until: float | None) -> bool:
        """Give a place back, at once or later; see `Store.leave_place`."""
        key = self._opened().layout.of(name).places(name)
        hold = "" if until is None else repr(until - now)
        return bool(await self._opened().lane.do(scripts.LEAVE_PLACE, [key], holder, hold))

    async def places(self, name: str) -> tuple[str, ...]:
        """Return who holds places; see `Store.places`."""
        holders = await self._opened().lane.run("ZRANGE", self._opened().layout.of(name).places(name), 0, -1)
        return tuple(holder.decode() for holder in holders)

    async def changes(self) -> AsyncIterator[str | Resync]:
        """Yield the ref of every change from now on, within milliseconds; see `Store.changes`."""
        async with aclosing(self._opened().changes()) as changes:
            async for change in changes:
                yield change

    async def purge(self, *, created_before: float, deliveries_before: float, deliveries_kept: int) -> int:
        """Forget what is old, in portions between which commits go on; see `Store.purge`."""
        went = await records.purge(self._opened(), created_before)
        await journal.purge_old(self._opened(), deliveries_before)
        await journal.purge_surplus(self._opened(), deliveries_kept)
        return went

    def _opened(self) -> Engine:
        if self._engine is None:
            raise StoreError("the store is not open: open it, or use it within its client's `async with`")
        return self._engine
