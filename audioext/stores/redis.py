"""The store on Redis or Valkey, one server or a cluster, shared by any number of processes on any machines.

Nothing here blocks the event loop. An append costs one round trip; see `_redis_server` and `_redis_scripts`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from attrs import define, field
from redis.exceptions import ResponseError

from audioext.errors import StoreError, UnreadableError
from audioext.models.entries import MAX_DELIVERY_BYTES, Entry, Index
from audioext.models.limits import Limits
from audioext.stores import _redis_scripts as scripts
from audioext.stores._engine import EngineStore, paged
from audioext.stores._redis_changes import PAGE, OpenServer
from audioext.stores._redis_server import Address, Pipe, read_url
from audioext.stores.base import Appended, Created, Delivery, Existing, Full, Providers, Stored, Work, to_delivery

T = TypeVar("T")

_log = logging.getLogger("audioext.stores.redis")
_DAMAGED = ("WRONGTYPE", "Error running script", "user_script", "@user_script")
"""What an error about a damaged key or a failing script begins with; other errors concern the server as a whole."""


@define(eq=False)
class RedisStore(EngineStore[OpenServer]):
    """The whole `Store` protocol on Redis or Valkey, which any number of machines may share.

    *url* is `redis://user:password@host:6379/0`, `rediss://` with TLS, `valkey://`, `valkeys://`, or
    `unix:///path/to/socket`; the node of a cluster is recognised. Its query takes `prefix=` (of all keys, default
    `audioext`), `patience=` (how many seconds a call waits for an unavailable server, default 5), and `ttl=` (after how
    many seconds the server itself deletes a closed job if no client runs to purge it, default 30 days).

    What an append survives depends on the server. With `appendonly yes`, `appendfsync always` survives a power loss and
    `everysec` may lose the last second; without it, a restart of the server loses everything since its last snapshot.
    `warnings` reports such risks.

    Raises:
        ConfigError: the URL names no server, or has a part or a parameter that is not valid.
    """

    url: str = field(repr=False)
    _address: Address = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Parse the URL, without connecting yet."""
        self._address = read_url(self.url)

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Create a job, unless it exists or its account is full; see `Store.create`."""
        counts = ("" if limit is None else limit for limit in (limits.submits, limits.parallel))
        call = secrets.token_bytes(8)  # so that the script recognises a repeat of this call
        words = scripts.call_words(index.ref, index.provider, index, [entry], ttl=self._address.ttl)
        outcome, *word = await self._pipe.do(scripts.CREATE, *words, call, now, limits.per, *counts)
        if outcome == b"existing":
            return Existing(word[0].decode(errors="replace"))
        return Full(float(word[0])) if outcome == b"full" else Created()

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
        words = scripts.call_words(
            ref, provider, index, entries, ttl=self._address.ttl, known=known, look_at=look_at, release=release
        )
        answer = await self._pipe.do(scripts.APPEND, *words)
        try:
            return scripts.load_appended(*answer) if isinstance(answer, list) else scripts.load_appended(answer)
        except (ValueError, TypeError, struct.error) as error:  # msgspec's errors are ValueErrors
            raise UnreadableError(f"job {ref} cannot be read: {error}") from error

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after the first *after*; see `Store.read`."""
        found = await self._read(ref, after)
        return None if found is None else found[0]

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        pipe = self._pipe
        if key is not None:
            ref = await pipe.run("GET", pipe.key("key", key))
        else:
            words = ("task", str(len(provider.encode())), provider, task_id or "")
            ref = await pipe.run("LINDEX", pipe.key(*words), -1)
        return None if ref is None else ref.decode(errors="replace")  # a damaged ref matches no job

    def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Yield the jobs, oldest or newest first, reading them page by page; see `Store.jobs`."""

        async def read(ref: str) -> Stored | None:
            stored = await self.read(ref)
            return stored if stored is not None and is_open in {None, stored.index.is_open} else None

        name = "open" if is_open else "jobs"
        return self._paged(name, read, newest_first=newest_first)

    async def claim(  # noqa: PLR0913 - the protocol's
        self, work: Work, *, now: float, until: float, limit: int, providers: Providers = None, latest: float = math.inf
    ) -> tuple[str, ...]:
        """Claim jobs whose work is due; see `Store.claim`."""
        names = ("all",) if providers is None else ("", *providers)
        refs = await self._pipe.do(scripts.CLAIM, work, now, until, limit, latest, *names)
        return tuple(ref.decode(errors="replace") for ref in refs)

    async def next_due(self, work: Work, *, providers: Providers = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        at = await self._pipe.do(scripts.NEXT_DUE, work, *(("all",) if providers is None else ("", *providers)))
        return None if at is None else float(at)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first, reading them page by page."""

        async def read(place: str) -> Delivery | None:
            of, _, number = place.rpartition(" ")
            return next(_deliveries(await self._read(of, 0, number)), None)

        if ref is not None:
            for delivery in _deliveries(await self._read(ref)):
                yield delivery
            return
        async for delivery in self._paged("webhooks", read, newest_first=True):
            yield delivery

    async def secret(self, name: str, default: bytes) -> bytes:
        """Return the value stored under *name*, storing *default* first if there is none."""
        held: bytes | None = await self._pipe.run("SET", self._pipe.key("secret", name), default, "NX", "GET")
        return default if held is None else held

    async def purge(
        self,
        *,
        before: float,
        deliveries_kept: int,
        delivery_bytes_kept: int = MAX_DELIVERY_BYTES,
        untold_before: float = math.inf,
    ) -> int:
        """Delete old jobs in steps, so that other calls can run in between; see `Store.purge`."""
        orphans = await self._opened().purge_orphans(delivery_bytes_kept)
        return orphans + await self._opened().purge(before, deliveries_kept, untold_before)

    async def warnings(self) -> tuple[str, ...]:
        """Contact the server, and return the risks of its persistence settings."""
        pipe = self._pipe
        try:
            info = await pipe.run("INFO", "persistence", "memory")
        except StoreError as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            return ("this user may not see how the server persists: permit INFO, or check its settings yourself",)
        policy = []
        with suppress(StoreError):  # hosted servers do not permit CONFIG
            policy = await pipe.run("CONFIG", "GET", "appendfsync")
        facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        return tuple(_find_risks(facts, policy[1].decode() if policy else ""))

    def _paged(self, name: str, read: Callable[[str], Awaitable[T | None]], *, newest_first: bool) -> AsyncIterator[T]:
        """Yield what *read* returns for each member of a sorted set, except `None`."""
        command, first, last = "ZRANGEBYSCORE", "-inf", "+inf"
        if newest_first:
            command, first, last = "ZREVRANGEBYSCORE", last, first

        async def page(start: str) -> list[tuple[str, T | None]]:
            found = await self._pipe.run(command, self._pipe.key(name), start, last, "WITHSCORES", "LIMIT", 0, PAGE)
            words = [word.decode(errors="replace") for word in found]
            items = await asyncio.gather(*(_or_none(read(member)) for member in words[::2]))
            return [(f"({number}", item) for number, item in zip(words[1::2], items, strict=True)]

        return paged(page, first)

    async def _read(self, ref: str, after: int = 0, *number: str) -> tuple[Stored, bool] | None:
        """Return a job, with its entries after *after* or only that of *number*, and whether its request is known."""
        try:
            found: list[Any] | None = await self._pipe.do(scripts.READ, ref, after, *number)
            return None if found is None else scripts.load_stored(ref, *found)
        except (StoreError, ValueError, TypeError, struct.error) as error:  # msgspec's errors are ValueErrors
            said = str(error.__cause__ or error).removeprefix("ERR ")
            if isinstance(error, StoreError) and not said.startswith(_DAMAGED):
                raise
            raise UnreadableError(f"job {ref} cannot be read: {said}") from error

    @property
    def _pipe(self) -> Pipe:
        return self._opened().pipe

    def _make(self) -> OpenServer:
        return OpenServer(Pipe(self._address))


async def _or_none(reading: Awaitable[T]) -> T | None:
    try:
        return await reading
    except UnreadableError as error:
        _log.warning("skipped: %s", error)
        return None


def _deliveries(found: tuple[Stored, bool] | None) -> Iterator[Delivery]:
    stored, is_known = found or (None, False)
    if stored is not None:
        for entry in reversed(stored.entries):
            if entry.kind == "webhook":
                yield to_delivery(stored.index.ref, stored.index.provider, entry, is_orphan=not is_known)


def _find_risks(facts: Mapping[str, str], policy: str) -> Iterator[str]:
    if facts.get("aof_enabled") != "1":
        yield (
            "appendonly is off: a restart of the server loses everything since its last snapshot; "
            "set `appendonly yes` with `appendfsync always` or `everysec`"
        )
    elif policy not in {"", "always", "everysec"}:
        yield f"appendfsync is {policy}: a crash of the machine loses more than the last second"
    eviction = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and eviction != "noeviction":
        yield f"maxmemory_policy is {eviction}: a full server deletes jobs; set noeviction"
