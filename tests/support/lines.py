"""The connection from a process to its store, which a test can cut, stop or slow down before and after each call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import MAX_DELIVERY_BYTES, Entry, Index
from audioext.models.limits import Limits
from audioext.stores.base import (
    Appended,
    Changed,
    Created,
    Delivery,
    Existing,
    Full,
    Resync,
    Store,
    Stored,
    Work,
)

T = TypeVar("T")
Side = Literal["before", "after"]
"""Before the call reaches the store, or after it, when its result is on the way back."""
Watcher = Callable[[str, Side], Awaitable[None]]


async def let_pass(name: str, side: Side) -> None:
    """Let every call through."""


@define(eq=False)
class Line:
    """A proxy of a store. `on_call` is awaited before and after each call, with the method's name.

    The caller gets what it raises; if it never returns, the caller hangs.
    """

    store: Store
    on_call: Watcher = let_pass
    calls: list[str] = field(factory=list)
    """The methods that were called, in their order."""

    async def _pass(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(name)
        await self.on_call(name, "before")
        result = await call()
        await self.on_call(name, "after")
        return result

    async def open(self) -> None:
        """Open the store."""
        await self.store.open()

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Pass it on."""
        return await self._pass("create", lambda: self.store.create(entry, index, limits=limits, now=now))

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
        """Pass it on."""
        return await self._pass(
            "append",
            lambda: self.store.append(
                ref, entries, provider=provider, index=index, known=known, look_at=look_at, release=release
            ),
        )

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Pass it on."""
        return await self._pass("read", lambda: self.store.read(ref, after=after))

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Pass it on."""
        return await self._pass("find", lambda: self.store.find(key=key, provider=provider, task_id=task_id))

    def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Pass it on."""
        return self.store.jobs(is_open=is_open, newest_first=newest_first)

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
        """Pass it on."""
        return await self._pass(
            "claim",
            lambda: self.store.claim(work, now=now, until=until, limit=limit, providers=providers, latest=latest),
        )

    async def next_due(self, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
        """Pass it on."""
        return await self._pass("next_due", lambda: self.store.next_due(work, providers=providers))

    def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Pass it on."""
        return self.store.deliveries(ref)

    async def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield the store's changes, each after `on_call` has returned."""
        self.calls.append("changes")
        await self.on_call("changes", "before")
        async for change in self.store.changes():
            await self.on_call("changes", "after")
            yield change

    async def secret(self, name: str, default: bytes) -> bytes:
        """Pass it on."""
        return await self._pass("secret", lambda: self.store.secret(name, default))

    async def purge(
        self,
        *,
        before: float,
        deliveries_kept: int,
        delivery_bytes_kept: int = MAX_DELIVERY_BYTES,
        untold_before: float = math.inf,
    ) -> int:
        """Pass it on."""
        purge = partial(self.store.purge, before=before, deliveries_kept=deliveries_kept, untold_before=untold_before)
        return await self._pass("purge", lambda: purge(delivery_bytes_kept=delivery_bytes_kept))

    async def warnings(self) -> tuple[str, ...]:
        """Pass it on."""
        return await self._pass("warnings", self.store.warnings)


def fail_at(*steps: int, calls: Sequence[str] = ()) -> Watcher:
    """Return a watcher that raises `StoreError` at these steps, counted from 0.

    Each call has two steps, before and after; if *calls* are given, only these are counted.
    """
    count = -1

    async def watch(name: str, side: Side) -> None:
        nonlocal count
        if not calls or name in calls:
            count += 1
            if count in steps:
                raise StoreError("the line to the store is cut")

    return watch


def die_at(step: int) -> Watcher:
    """Return a watcher that never returns from *step* on, counted as in `fail_at`: the process died there."""
    count = -1

    async def watch(name: str, side: Side) -> None:
        nonlocal count
        count += 1
        if count >= step:
            await asyncio.get_running_loop().create_future()

    return watch


def hang_until(over: asyncio.Event) -> Watcher:
    """Return a watcher that hangs until *over* is set, and then fails."""

    async def watch(name: str, side: Side) -> None:
        await over.wait()
        raise StoreError("the line to the store is cut")

    return watch


def slow_down(turns: Sequence[int]) -> Watcher:
    """Return a watcher that yields to the loop `turns[i]` times at step i."""
    left = iter(turns)

    async def watch(name: str, side: Side) -> None:
        for _ in range(next(left, 0)):
            await asyncio.sleep(0)

    return watch
