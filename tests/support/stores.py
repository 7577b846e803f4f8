"""Stores with the faults of real engines: they lose data, streams break, single calls fail or hang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import audioext as ax
from audioext.stores.base import RESYNC, Appended, Changed, Resync, Stored, Work
from audioext.stores.sqlite import SqliteStore


class FaultyMemory(ax.MemoryStore):
    """A memory store that sets an event when it is read, can lose its data, and can break its change streams."""

    def __init__(self) -> None:
        """Start empty, without faults."""
        super().__init__()
        self.was_read = asyncio.Event()
        self.was_secret_kept = asyncio.Event()
        self.is_broken = asyncio.Event()
        self.fails_after_append = False
        self.failing_secrets = 0
        self.clients = 0
        self._breaks = 0
        self._losses = 0

    async def open(self) -> None:
        """Count one more user."""
        self.clients += 1
        await super().open()

    async def aclose(self) -> None:
        """Count one user less."""
        self.clients -= 1
        await super().aclose()

    async def lose_all(self) -> None:
        """Restart empty, like a server without persistence; change streams yield a `Resync`."""
        self._losses += 1
        for _ in range(self.clients):
            await super().aclose()
        ax.MemoryStore.__init__(self)
        for _ in range(self.clients):
            await super().open()

    def break_streams(self) -> None:
        """Let the open change streams fail at their next change."""
        self._breaks += 1

    async def append(self, *arguments: object, **options: object) -> Appended:
        """Append; with `fails_after_append`, fail from then on."""
        done = await super().append(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are
        if self.fails_after_append:
            self.fails_after_append = False
            self.fail("a blip")
        return done

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Read a job, and set `was_read`."""
        found = await super().read(ref, after=after)
        self.was_read.set()
        return found

    async def secret(self, name: str, default: bytes) -> bytes:
        """Keep a secret, or refuse to for a while."""
        if self.failing_secrets:
            self.failing_secrets -= 1
            message = "not enough replicas"
            raise ax.StoreError(message)
        kept = await super().secret(name, default)
        self.was_secret_kept.set()
        return kept

    async def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield the changes, and a `Resync` after a loss."""
        began_at = self._breaks
        while True:
            losses = self._losses
            async for change in super().changes():
                if self._breaks != began_at:
                    self.is_broken.set()
                    message = "the stream broke"
                    raise ax.StoreError(message)
                yield change
            if losses == self._losses:
                return
            yield RESYNC


class WatchedSqlite(SqliteStore):
    """A SQLite store that sets an event when it is read, and fails the next `failing_reads` reads."""

    def __init__(self, path: Path) -> None:
        """Open the file at *path*, without faults."""
        super().__init__(path)
        self.was_read = asyncio.Event()
        self.has_failed = asyncio.Event()
        self.failing_reads = 0

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:  # type: ignore[override]  # a coroutine, too
        """Read a job, or fail."""
        if self.failing_reads:
            self.failing_reads -= 1
            self.has_failed.set()
            message = "a blip"
            raise ax.StoreError(message)
        found = await super().read(ref, after=after)
        self.was_read.set()
        return found


class HangingStore(ax.MemoryStore):
    """A store that answers nothing while it hangs."""

    def __init__(self) -> None:
        """Start without hanging."""
        super().__init__()
        self.is_asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()

    async def append(self, *arguments: object, **options: object) -> Appended:
        """Append once it no longer hangs."""
        self.is_asked.set()
        await self.answering.wait()
        return await super().append(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Read once it no longer hangs."""
        await self.answering.wait()
        return await super().read(ref, after=after)

    async def claim(self, work: Work, **options: object) -> tuple[str, ...]:
        """Claim once it no longer hangs."""
        await self.answering.wait()
        return await super().claim(work, **options)  # type: ignore[arg-type]  # as above

    async def aclose(self) -> None:
        """Close once it no longer hangs."""
        await self.answering.wait()
        await super().aclose()
