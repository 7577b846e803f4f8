"""The thread of a SQLite store that looks for what other processes append, and whether the file lost what it held."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from attrs import define, field

from audioext.stores._sqlite_file import Connection, DatabaseFile, Row
from audioext.stores._sqlite_thread import FileThread
from audioext.stores.base import RESYNC, Changed, Resync

URGENT_SECONDS = 0.002
"""How often the file is looked at while somebody waits for a change; a look without one takes some microseconds."""
CALM_SECONDS = 0.05
MAX_ROWS = 1000
"""Entries of one look; if there were more, the next look follows at once."""

_NEWER = """SELECT entries.id, jobs.ref, jobs.entries FROM entries JOIN jobs ON jobs.id = entries.job
    WHERE entries.id > ? ORDER BY entries.id LIMIT ?"""
_UP_TO = "SELECT id, said FROM entries WHERE id <= ? ORDER BY id DESC LIMIT 1"
_END = 2**63 - 1


@define(eq=False)
class Watcher:
    """Reads what was appended since its last look, by row id, and hands it to `published` in the loop.

    What this process appended was published with its commit: its ranges of ids are passed over. The entry that was seen
    last must still be there, else the file was emptied and may have been filled again: then everything is looked at.
    """

    file: DatabaseFile
    cursor: int
    published: Callable[[list[Changed | Resync]], None]
    own: deque[tuple[int, int]] = field(factory=deque, init=False)
    _urgent: int = field(default=0, init=False)
    _stop: bool = field(default=False, init=False)
    _wake: threading.Event = field(factory=threading.Event, init=False)
    _version: object = field(default=None, init=False)
    _last: list[Row] = field(factory=list, init=False)
    """The entry that was seen last, as a list of one row."""
    _thread: FileThread = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread."""
        self._thread = FileThread(self.file, "watcher", self._run)
        self._thread.start()

    def watch(self, *, urgent: bool) -> None:
        """Look often while somebody waits; each call that is urgent is matched by one that is not."""
        self._urgent = max(0, self._urgent + (1 if urgent else -1))
        if urgent:
            self._wake.set()

    async def aclose(self) -> None:
        """End the thread and close its connection."""
        self._stop = True
        self._wake.set()
        await self._thread.join()

    def _run(self) -> None:
        while not self._stop:
            try:
                has_more = self._look()
            except Exception:  # noqa: BLE001 - it may be away for a moment; what was not read is read then
                has_more, self._version = False, None
                self._thread.drop()
            if has_more:
                continue
            if self._urgent:
                time.sleep(URGENT_SECONDS)  # half the work of waiting for an event
            else:
                self._wake.wait(CALM_SECONDS)
                self._wake.clear()

    def _look(self) -> bool:
        """Read the next entries, if another connection committed anything; return whether there may be more."""
        connection = self._thread.connect()
        version = connection.execute("PRAGMA data_version").fetchall()[0][0]
        if version == self._version:
            return False
        connection.execute("BEGIN")  # one state for all that is read; where it fails the connection is dropped
        self._look_for_loss(connection)
        while self.own and self.own[0][0] <= self.cursor:
            self.cursor = max(self.cursor, self.own.popleft()[1])
        rows = connection.execute(_NEWER, (self.cursor, MAX_ROWS)).fetchall()
        if rows:
            self.cursor = rows[-1][0]
        self._last = connection.execute(_UP_TO, (self.cursor,)).fetchall()
        connection.execute("COMMIT")
        if rows:
            counts = {ref: count for _, ref, count in rows}
            self._thread.call(self.published, [Changed(ref, count) for ref, count in counts.items()])
        if len(rows) == MAX_ROWS:
            return True
        self._version = version  # read before the rows, so that what came in between is read with the next look
        return False

    def _look_for_loss(self, connection: Connection) -> None:
        for id_, said in self._last:
            held = connection.execute(_UP_TO, (id_,)).fetchall()
            if held not in ([(id_, said)], [(id_, "")]):  # a purge leaves an empty row where the newest one was
                newest = connection.execute(_UP_TO, (_END,)).fetchall()
                self.cursor = min(self.cursor, newest[0][0] if newest else 0)
                self.own.clear()
                self._thread.call(self.published, [RESYNC])
