"""A thread that looks for the appends of other processes; its cursor, a row id, never passes what was read."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

from attrs import define, field

from audioext.stores._sqlite_file import DatabaseFile, ThreadConnection
from audioext.stores._sqlite_thread import call_loop
from audioext.stores.base import Changed

URGENT_SECONDS = 0.002
"""How often the file is looked at while somebody waits for a change; a look without one takes some microseconds."""
CALM_SECONDS = 0.05
MAX_ROWS = 1000
"""Entries of one look; if there were more, the next look follows at once."""

_NEWER = """SELECT entries.id, jobs.ref, jobs.entries FROM entries JOIN jobs ON jobs.id = entries.job
    WHERE entries.id > ? ORDER BY entries.id LIMIT ?"""


@define(eq=False)
class Watcher:
    """Reads what was appended since its last look, by row id, and hands it to `published` in the loop.

    What this process appended was published with its commit: its ranges of ids are passed over.
    """

    file: DatabaseFile
    cursor: int
    published: Callable[[list[Changed]], None]
    own: deque[tuple[int, int]] = field(factory=deque, init=False)
    _urgent: int = field(default=0, init=False)
    _stop: bool = field(default=False, init=False)
    _wake: threading.Event = field(factory=threading.Event, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: threading.Thread = field(init=False)
    # what only the thread touches
    _link: ThreadConnection = field(init=False)
    _version: object = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread; it connects with its first look."""
        self._link = ThreadConnection(self.file, read_only=True)
        self._thread = threading.Thread(target=self._run, name="audioext sqlite watcher", daemon=True)
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
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop:
            try:
                has_more = self._look()
            except Exception:  # noqa: BLE001 - it may be away for a moment; what was not read is read then
                has_more, self._version = False, None
                self._link.drop()
            if has_more:
                continue
            if self._urgent:
                time.sleep(URGENT_SECONDS)  # half the work of waiting for an event
            else:
                self._wake.wait(CALM_SECONDS)
                self._wake.clear()
        self._link.drop()
        call_loop(self._loop, self._ended.set)

    def _look(self) -> bool:
        """Read the next entries, if another connection committed anything; return whether there may be more."""
        connection = self._link.connection()
        version = connection.execute("PRAGMA data_version").fetchall()[0][0]
        if version == self._version:
            return False
        while self.own and self.own[0][0] <= self.cursor:
            self.cursor = max(self.cursor, self.own.popleft()[1])
        rows = connection.execute(_NEWER, (self.cursor, MAX_ROWS)).fetchall()
        if rows:
            counts = {ref: count for _, ref, count in rows}
            self.cursor = rows[-1][0]
            call_loop(self._loop, self.published, [Changed(ref, count) for ref, count in counts.items()])
        if len(rows) == MAX_ROWS:
            return True
        self._version = version  # read before the rows, so that what came in between is read with the next look
        return False
