"""The store in one SQLite file: durable, shared by the processes of one machine, committed in groups.

All appends that wait share one transaction; see `_sqlite_thread`. Nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from os import PathLike
from typing import TypeVar

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import Entry, Index
from audioext.models.limits import Limits
from audioext.stores import _sqlite_work as works
from audioext.stores._append import AppendCall
from audioext.stores._changes import follow
from audioext.stores._sqlite_file import DatabaseFile, Driver, Synchronous, default_driver
from audioext.stores._sqlite_session import NEWEST, Session
from audioext.stores._sqlite_thread import URGENT_SECONDS, Checkpoints, FileThread, Watcher
from audioext.stores.base import Appended, Changed, Created, Delivery, Existing, Full, Resync, Stored, Work

__all__ = ["BUSY_TIMEOUT_SECONDS", "Driver", "SqliteStore", "has_reset_bug"]

T = TypeVar("T")
A = TypeVar("A")

BUSY_TIMEOUT_SECONDS = 10.0
"""How long an append waits for another process's; then the provider is asked to come again."""


@define(eq=False)
class _Opened:
    """What is open of a file while it has users: two threads, and those who listen to changes."""

    file: DatabaseFile
    users: int = field(default=0, init=False)
    watcher: Watcher = field(factory=Watcher, init=False)
    writer: FileThread = field(init=False)
    reader: FileThread = field(init=False)
    _look: asyncio.TimerHandle | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.reader = FileThread(self.file, "reader", self.watcher.look)
        self.writer = FileThread(self.file, "writer", Checkpoints(), delivered=self._look_soon)

    def _look_soon(self) -> None:
        """Let those who listen hear of a commit, of many at once since another thread is to look."""
        loop = asyncio.get_running_loop()
        if not self.watcher.urgent and (self._look is None or self._look.when() < loop.time()):
            self._look = loop.call_later(URGENT_SECONDS, self.reader.wake)

    async def start(self) -> None:
        ((newest,),) = await self.writer.run(Session.read, NEWEST)
        if self.watcher.cursor is None:
            self.watcher.cursor = newest
            self.reader.wake()

    async def aclose(self) -> None:
        await self.reader.aclose()
        await self.writer.aclose()  # last, so that it leaves no log behind
        self.watcher.fanout.close()


@define(eq=False)
class SqliteStore:
    """The whole store protocol on one SQLite file, which several processes of one machine may share.

    *path* is relative to the working folder. *synchronous* `"normal"` survives a crash of the process at any
    instant, and loses at most about the last second when the machine loses its power; `"full"` waits for the
    disk with every group of appends and loses nothing then either. *busy_timeout* (seconds) is how long an
    append waits for one of another process. *driver* is apsw where it is installed, else Python's own sqlite3; do not
    open the file with another copy of SQLite in the same process: closing it would drop the locks of this one.
    """

    path: str | PathLike[str]
    synchronous: Synchronous = field(default="normal", kw_only=True)
    busy_timeout: float = field(default=BUSY_TIMEOUT_SECONDS, kw_only=True)
    driver: Driver = field(factory=default_driver, kw_only=True)
    _engine: _Opened | None = field(default=None, init=False, repr=False)

    @property
    def shared(self) -> bool:
        """Other processes may open the same file."""
        return True

    async def open(self) -> None:
        """Open the file, and make it if there is none.

        Raises:
            StoreError: it cannot be opened or written, is damaged, another program's, or another release's.
        """
        if self._engine is None:
            self._engine = _Opened(DatabaseFile(self.path, self.driver, self.synchronous, self.busy_timeout))
        engine = self._engine
        engine.users += 1
        try:
            await engine.start()
        except BaseException:
            await self._leave(engine)
            raise

    async def aclose(self) -> None:
        """Finish the appends that were accepted, then close the file, with the last user."""
        if self._engine is not None:
            await self._leave(self._engine)

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Begin a journal, unless the job exists or its account is full; see `Store.create`."""
        return await self._opened().writer.run(Session.create, entry, index, limits, now, ref=index.ref)

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
        """Append to a journal, with all other appends that wait; see `Store.append`."""
        call = AppendCall(ref, entries, provider, index, known, look_at, release)
        return await self._opened().writer.run(Session.append, call, ref=ref)

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after so many; see `Store.read`."""
        return await self._opened().reader.run(works.read, ref, after)

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        return await self._opened().reader.run(works.find, key, provider, task_id)

    def jobs(self, *, is_open: bool | None = None) -> AsyncIterator[Stored]:
        """Yield the jobs in the order of their creation, read page by page; see `Store.jobs`."""
        return self._paged(works.page, 0, is_open)

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
        return await self._opened().writer.run(works.claim, work, now, until, limit, providers, latest)

    async def next_due(self, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        return await self._opened().reader.run(works.next_due, work, providers)

    async def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed; see `Store.reschedule`."""
        await self._opened().writer.run(works.reschedule, ref, work, at)

    def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first, read page by page."""
        return self._paged(works.deliveries, works.LAST, ref)

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield what is changed from now on, by other processes within a moment; see `Store.changes`."""
        return follow(lambda: self._opened().watcher.fanout)

    async def secret(self, name: str, default: bytes) -> bytes:
        """Store a named value unless there is one; return the one that is there now."""
        return await self._opened().writer.run(works.secret, name, default)

    async def purge(self, *, before: float, deliveries_kept: int) -> int:
        """Forget what is old, in steps between which appends go on; see `Store.purge`."""
        surplus = await self._opened().reader.run(works.surplus, deliveries_kept)
        forgotten = 0
        while True:
            went, webhooks = await self._opened().writer.run(works.purge, before, surplus)
            forgotten += went
            surplus -= webhooks
            if went < works.PAGE_JOBS:
                return forgotten

    def watch(self, *, urgent: bool) -> None:
        """Look for the appends of other processes every 2 ms while somebody waits, else every 50 ms."""
        if self._engine is not None:
            watcher = self._engine.watcher
            watcher.urgent = max(0, watcher.urgent + (1 if urgent else -1))
            self._engine.reader.wake()

    async def warnings(self) -> tuple[str, ...]:
        """Reach the file, and name an SQLite with a known fault; see `Store.warnings`."""
        # The table makes it reach the file.
        ((version,),) = await self._opened().reader.run(
            Session.read, "SELECT sqlite_version() FROM sqlite_master LIMIT 1"
        )
        if not has_reset_bug(version):
            return ()
        fault = "may lose commits where processes share a file (sqlite.org/wal.html#walresetbug)"
        return (f'SQLite {version} {fault}: install a newer one with pip install "audioext[sqlite]"',)

    async def _paged(
        self, read: Callable[[Session, int, A], list[tuple[int, T | None]]], start: int, which: A
    ) -> AsyncIterator[T]:
        """Yield what can be read on each page; the last number on one begins the next, which is read meanwhile."""
        page = self._opened().reader.run(read, start, which)
        try:
            while items := await page:
                page = self._opened().reader.run(read, items[-1][0], which)
                for _, item in items:
                    if item is not None:
                        yield item
        finally:
            page.cancel()

    async def _leave(self, engine: _Opened) -> None:
        engine.users -= 1
        if engine.users <= 0 and self._engine is engine:
            self._engine = None
            # Threads and connections are let go of even if the caller is cancelled.
            await asyncio.shield(asyncio.ensure_future(engine.aclose()))

    def _opened(self) -> _Opened:
        if self._engine is None:
            raise StoreError("the store is not open: open it, or use it within its client's `async with`")
        return self._engine


def has_reset_bug(version: str) -> bool:
    """Whether an SQLite of *version* can lose commits when two processes write and checkpoint at the same instant.

    https://sqlite.org/wal.html#walresetbug, read 2026-11-24: 3.7.0 to 3.51.2, mended in 3.44.6 and 3.50.7 as well.
    """
    major, minor, patch, *_ = (*map(int, version.split(".")), 0)
    number = (major, minor, patch)
    mended = {(3, 44): 6, (3, 50): 7}.get((major, minor))
    return (3, 7) <= number < (3, 51, 3) and (mended is None or patch < mended)
