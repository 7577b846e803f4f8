"""Journals, indexes and listeners for the stores' tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from attrs import define, field

from audioext.models.entries import Entry, Index, make_entry
from audioext.models.limits import Limits
from audioext.stores.base import RESYNC, Changed, Created, Existing, Full, Resync, Store, Stored

UNLIMITED = Limits(submits=None, parallel=None)
"""The limits of an account without limits."""
LOOK_AT = 2_000.0
"""When the appends of these tests make a job due for a second look."""

Connect = Callable[[], Awaitable[Store]]
"""Opens one more connection to the engine of this test."""


def make_request(ref: str = "ref", at: float = 100.0) -> Entry:
    """Return the first entry of the journal of *ref*."""
    return make_entry("request", at, body=f"what {ref} asks for".encode())


def make_webhook(number: int, at: float | None = None, *, note: str = "", size: int = 8) -> Entry:
    """Return one of many webhooks, whose time and body follow from *number*."""
    body = f"{number:08}".encode().ljust(size, b".")
    return make_entry("webhook", 100.0 + number if at is None else at, body=body, note=note)


def make_index(ref: str = "ref", **fields: object) -> Index:
    """Return the index of an open job for which nothing is due."""
    plain = Index(ref=ref, provider="kie", account="kie", created_at=100.0)
    return msgspec.structs.replace(plain, **fields)


async def create(
    store: Store, ref: str = "ref", *, limits: Limits = UNLIMITED, now: float = 100.0, **fields: object
) -> Created | Existing | Full:
    """Create the job *ref*, whose index has *fields*."""
    return await store.create(make_request(ref, at=now), make_index(ref, **fields), limits=limits, now=now)


async def held(store: Store, ref: str = "ref") -> Stored:
    """Return the stored job *ref*, which has to exist."""
    stored = await store.read(ref)
    assert stored is not None
    return stored


async def listed(store: Store, *, is_open: bool | None = None, newest_first: bool = False) -> list[str]:
    """Return the refs of all jobs."""
    return [stored.index.ref async for stored in store.jobs(is_open=is_open, newest_first=newest_first)]


async def delivered(store: Store, ref: str | None = None) -> list[str]:
    """Return the bodies of all webhooks in the order in which they are read."""
    return [delivery.body.decode() async for delivery in store.deliveries(ref)]


async def claim_all(store: Store, work: str, *, now: float = 10_000.0, until: float = 20_000.0) -> tuple[str, ...]:
    """Claim everything that is due at *now*."""
    return await store.claim(work, now=now, until=until, limit=1_000)  # type: ignore[arg-type]  # one of the two words


@define(eq=False)
class Listener:
    """Collects what `changes()` yields; `has_ended` is whether the stream has ended."""

    store: Store
    heard: list[Changed | Resync] = field(factory=list)
    has_ended: bool = False
    _news: asyncio.Condition = field(factory=asyncio.Condition)

    async def run(self) -> None:
        """Listen until the stream ends."""
        async for change in self.store.changes():
            self.heard.append(change)
            async with self._news:
                self._news.notify_all()
        self.has_ended = True
        async with self._news:
            self._news.notify_all()

    async def until(self, is_ready: Callable[[Listener], bool]) -> None:
        """Wait until *is_ready* returns true for this listener."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: is_ready(self))

    @property
    def counts(self) -> dict[str, int]:
        """The latest count that was yielded for each journal."""
        return {change.ref: change.count for change in self.heard if isinstance(change, Changed)}

    async def until_heard(self, *refs: str) -> None:
        """Wait until each of *refs* was yielded, or a gap instead."""
        await self.until(lambda listener: RESYNC in listener.heard or set(refs) <= listener.counts.keys())
