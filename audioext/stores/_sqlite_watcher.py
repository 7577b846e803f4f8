"""Looks for what other processes append to a SQLite store, and whether the file lost what it held."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from attrs import define, field

from audioext.stores._changes import Fanout
from audioext.stores._sqlite_file import Row
from audioext.stores._sqlite_session import NEWEST, Session
from audioext.stores.base import RESYNC, Changed, Resync

URGENT_SECONDS = 0.002
"""How often the file is looked at while somebody waits for a change; a look without one takes some microseconds."""
CALM_SECONDS = 0.05
MAX_ROWS = 1000
"""Entries of one look; if there were more, the next look follows at once."""

_NEWER = """SELECT entries.id, CAST(ref AS BLOB), entries FROM entries JOIN jobs ON jobs.id = entries.job
    WHERE entries.id > ? ORDER BY entries.id LIMIT ?"""
_UP_TO = "SELECT id, CAST(said AS BLOB) FROM entries WHERE id <= ? ORDER BY id DESC LIMIT 1"


@define(eq=False)
class Watcher:
    """Publishes what was appended since its last look, by row id, between the reads of a thread.

    What this process appended was published with its commit: its ranges of ids are passed over. The entry that was seen
    last must still be there, else the file was emptied and may have been filled again: then everything is looked at.
    """

    fanout: Fanout
    own: deque[tuple[int, int]]
    cursor: int | None = field(default=None, init=False)
    """The id from which on it looks; without one it does not."""
    urgent: int = field(default=0, init=False)
    """How many wait."""
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _seen: tuple[Session, object] | None = field(default=None, init=False)
    _last: list[Row] = field(factory=list, init=False)
    """The entry that was seen last, as a list of one row."""

    def look(self, connect: Callable[[], Session], _: int = 0) -> float:
        """Read the next entries, if another connection committed anything; return when to look again."""
        pause = URGENT_SECONDS if self.urgent else CALM_SECONDS
        if self.cursor is None:
            return pause
        session = connect()
        seen = session, session.read("PRAGMA data_version")
        if seen == self._seen:
            return pause
        execute, cursor, changes = session.execute, self.cursor, list[Changed | Resync]()
        execute("BEGIN")  # one state for all that is read; where it fails the connection is dropped
        for id_, said in self._last:
            # A purge leaves an empty row where the newest one was.
            if session.read(_UP_TO, (id_,)) not in ([(id_, said)], [(id_, b"")]):
                cursor = min(cursor, session.read(NEWEST)[0][0])
                self.own.clear()
                changes.append(RESYNC)
        while self.own and self.own[0][0] <= cursor:
            cursor = max(cursor, self.own.popleft()[1])
        rows = session.read(_NEWER, (cursor, MAX_ROWS))
        cursor = rows[-1][0] if rows else cursor
        last = session.read(_UP_TO, (cursor,))
        execute("COMMIT")
        counts = {ref.decode(errors="replace"): count for _, ref, count in rows}
        changes += (Changed(ref, count) for ref, count in counts.items())
        if changes:
            self._loop.call_soon_threadsafe(self.fanout.publish, changes)
        self.cursor, self._last = cursor, last
        if len(rows) == MAX_ROWS:
            return 0.0
        self._seen = seen  # read before the rows, so that what came in between is read with the next look
        return pause
