"""The three lanes to one SQLite file: one writes, one reads, one keeps house and looks for others' changes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from functools import partial

import orjson
from attrs import define, field

from audioext.errors import StoreError
from audioext.stores import _sqlite_journal as journal
from audioext.stores._changes import Fanout
from audioext.stores._sqlite_file import Connection, DatabaseFile
from audioext.stores._sqlite_lane import Lane, read_each, write_together
from audioext.stores.base import Resync

LOOK_SECONDS = 0.02
"""How often the commits of other processes are looked for while somebody listens to changes."""
CHECKPOINT_SECONDS = 1.0
"""How long a commit may be in the log alone; with `synchronous=normal` a power loss can take it until then."""
CHECKPOINT_WORKS = 2000
LONG_LOG_PAGES = 8192
"""A log of this many pages (32 MiB) is emptied between two batches, since writers that never rest keep it full."""


@define(eq=False)
class Engine:
    """What is open of a file: its threads, its connections, and those who listen to its changes."""

    file: DatabaseFile
    users: int = field(default=0, init=False)
    writer: Lane = field(init=False)
    reader: Lane = field(init=False)
    _keeper: Lane = field(init=False)
    _fanout: Fanout = field(factory=Fanout, init=False)
    _origin: int = field(factory=lambda: secrets.randbits(62), init=False)
    _opened_at: int = field(default=0, init=False)
    _is_watching: bool = field(default=False, init=False)
    # what the keeper's thread has seen: the newest change, on which connection, at which state of the file
    _seen: int = field(default=0, init=False)
    _looked: tuple[Connection, int] | None = field(default=None, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _checkpoint: asyncio.Future[int] | None = field(default=None, init=False)
    _works: int = field(default=0, init=False)
    _is_log_long: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Start the threads; each connects with its first work."""
        perform = partial(write_together, seal=journal.note_changes(self._origin))
        self.writer = Lane(
            "writer", self.file, perform, prepare=self.file.prepare, told=self._told, after=self._empty_log
        )
        self.reader = Lane("reader", self.file, read_each, read_only=True)
        self._keeper = Lane("keeper", self.file, read_each, read_only=True, tick=self._look, tick_seconds=LOOK_SECONDS)

    async def start(self) -> None:
        """Make the file ready.

        Raises:
            StoreError: it cannot be opened, written or understood.
        """
        self._opened_at = await self.writer.run(journal.last_change)

    async def aclose(self) -> None:
        """Finish what was accepted, close the connections, end the threads and the streams of changes."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self.writer.aclose()
        await self.reader.aclose()
        await self._keeper.aclose()
        self._fanout.close()

    # --- changes -------------------------------------------------------------------------------------------

    async def changes(self) -> AsyncGenerator[str | Resync]:
        """Yield the refs of all changes from the first step on."""
        try:
            async with aclosing(self._fanout.listen(self._begin)) as changes:
                async for change in changes:
                    yield change
        finally:
            if not self._fanout.is_heard:
                self._keeper.is_ticking = self._is_watching = False

    async def _begin(self) -> bool:
        """Look for the changes of others from now on; return whether some may have been missed."""
        answered = self.writer.batches
        try:
            number = await self.reader.run(journal.last_change)
        except StoreError:
            number = self._opened_at  # all since the file was opened is told, rather too much than too little
        # An answer of the writer may have overtaken the question above, and what came after it is not told.
        is_missing = self.writer.batches != answered
        await self._watch(number)
        return is_missing

    async def _watch(self, number: int) -> None:
        if self._is_watching:
            return
        self._seen, self._looked = number, None
        self._is_watching = self._keeper.is_ticking = True
        with suppress(StoreError):  # the file may be away for now; it is looked for again and again
            await self._keeper.run(journal.last_change)  # anything, so that the thread begins to tick

    def _look(self, connection: Connection) -> None:
        """Read what others committed since the last look; on the keeper's thread."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if self._looked == (connection, version):
            return
        rows = journal.changes_after(connection, self._seen)
        newest = rows[-1][0] if rows else journal.last_change(connection)
        # The numbers of transactions follow each other: one that is missing was trimmed before we saw it.
        is_gap = rows[0][0] != self._seen + 1 if rows else newest < self._seen
        refs = [ref for _, origin, found in rows if origin != self._origin for ref in orjson.loads(found)]
        self._seen, self._looked = newest, (connection, version)
        if is_gap:
            self._keeper.call_loop(self._fanout.resync)
        elif refs:
            self._keeper.call_loop(self._fanout.publish, refs)

    # --- the write-ahead log -------------------------------------------------------------------------------

    def _told(self, changed: Sequence[str], works: int) -> None:
        self._fanout.publish(changed)
        self._works += works
        if self._is_closing:
            return
        if self._works >= CHECKPOINT_WORKS:
            self._start_checkpoint()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CHECKPOINT_SECONDS, self._start_checkpoint)

    def _start_checkpoint(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_closing or (self._checkpoint is not None and not self._checkpoint.done()):
            return
        self._works = 0
        self._checkpoint = self._keeper.run(_move_log)
        self._checkpoint.add_done_callback(self._checkpointed)

    def _checkpointed(self, checkpoint: asyncio.Future[int]) -> None:
        # A checkpoint that failed is made again with the next one, or by whoever closes the file last.
        if checkpoint.exception() is None:
            self._is_log_long = checkpoint.result() > LONG_LOG_PAGES

    def _empty_log(self, connection: Connection) -> None:
        """Move the rest of a long log while no batch is under way, so that the next one starts it anew."""
        if self._is_log_long:
            self._is_log_long = False
            _move_log(connection)


def _move_log(connection: Connection) -> int:
    """Copy what the log holds into the file, disturbing nobody; return the log's pages."""
    pages: int = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    return pages
