"""The two threads of a SQLite store: one writes in batches, the other reads and watches the file for changes."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from attrs import define, field

from audioext.stores import _inotify
from audioext.stores._engine import Fanout
from audioext.stores._sqlite_file import LONG_LOG_PAGES, DatabaseFile, is_engine_fault
from audioext.stores._sqlite_session import Session
from audioext.stores.base import RESYNC, Changed, Resync

P = ParamSpec("P")
T = TypeVar("T")

MAX_BATCH = 500
"""The most calls in one transaction, so that none waits long for the others."""
FAULT_PAUSE_SECONDS = 0.05
CHECKPOINT_SECONDS = 1.0
"""How long an append may be only in the log; until then, `synchronous=normal` can lose it at a power failure."""
CHECKPOINT_WORKS = 250
"""After this many calls the log is checkpointed, which takes about 12 ms, half of it for the disk's two syncs."""
FIRST_SECONDS, PAUSE_SHARE = 0.0005, 0.25
"""The pause after the check at a write, and later pauses as a share of the time since the write."""
DEAF_SECONDS = 0.01
"""How long further writes are not heard, since each one would wake this process."""
LATER_SECONDS = 0.003
"""The pause before the check at a write of our own, and after one that found a commit, so that one covers several."""
UNHEARD_SECONDS = 0.005
"""How often the file is checked if no write can be heard of."""
QUIET_SECONDS = 0.5
"""How often it is checked anyway."""
MAX_ROWS = 1000
"""The most entries that one check reads; if there are more, the next check follows at once."""

_FROM = """SELECT entries.id, CAST(said AS BLOB), CAST(ref AS BLOB), entries
    FROM entries LEFT JOIN jobs ON jobs.id = entries.job WHERE entries.id >= ? ORDER BY entries.id LIMIT ?"""
_LAST = "SELECT id, CAST(said AS BLOB) FROM entries ORDER BY id DESC LIMIT 1"
_NOTHING = (0, b"")

_Item = tuple["asyncio.Future[Any]", Callable[..., Any], Sequence[Any], Mapping[str, Any]]
"""A call: the future of its caller, the function, and its arguments."""


@define(eq=False)
class FileThread(ABC):
    """A thread that runs calls in batches, one transaction each, and reconnects after a fault.

    While one batch runs, the next one collects. A call that fails does not fail the others in its batch.
    """

    is_writer: ClassVar[bool] = False
    file: DatabaseFile
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _waiting: deque[_Item] = field(factory=deque, init=False)
    _wake: threading.Lock = field(factory=threading.Lock, init=False)
    """Released to wake the thread: half the cost of a `threading.Event`."""
    _is_closing: bool = field(default=False, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: threading.Thread = field(init=False)
    _session: Session | None = field(default=None, init=False)
    """Only the thread may use it."""

    def __attrs_post_init__(self) -> None:
        self._wake.acquire()
        name = f"audioext sqlite {type(self).__name__.lower()}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[Concatenate[Session, P], T], *given: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        """Queue *work* for the next batch, and return its future; cancelling that does not affect other calls."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((future, work, given, named))
        if len(self._waiting) == 1:  # otherwise the thread is about to take the others
            self._loop.call_soon(self.wake)  # not at once, so that more calls can join the batch
        return future

    async def aclose(self) -> None:
        """Finish queued calls, close the connection, and end the thread."""
        self._is_closing = True
        self.wake()
        await self._ended.wait()
        self._thread.join()

    def wake(self) -> None:
        with suppress(RuntimeError):  # the lock is released already: the thread is about to wake
            self._wake.release()

    def _deliver(self, batch: list[_Item], outcomes: list[object]) -> None:
        for (future, *_), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not future.done():
                future.set_exception(outcome)
            elif not future.done():
                future.set_result(outcome)

    # --- on the thread -------------------------------------------------------------------------------------

    @abstractmethod
    def _between(self, works: int) -> float:
        """Run between batches, after one of *works* calls; return the seconds to pause, below 0 for no limit."""

    def _main(self) -> None:
        pause, works = -1.0, 0
        with suppress(RuntimeError):  # the event loop was closed before the store, so no caller is left
            while self._waiting or works or not (self._is_closing or self._loop.is_closed()):
                if not self._waiting:
                    self._wake.acquire(timeout=pause)
                try:
                    pause = self._between(works)
                except Exception:  # noqa: BLE001 - no caller waits for it, and it is retried
                    pause = FAULT_PAUSE_SECONDS
                    self._drop()
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                batch = [item for item in batch if not item[0].cancelled()]
                works = len(batch)
                if batch:
                    self._loop.call_soon_threadsafe(self._deliver, batch, self._outcomes(batch))
                    pause = 0.0
        self._end()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    def _end(self) -> None:
        """Release everything at the end of the thread."""
        self._drop()

    def _connected(self) -> Session:
        if self._session is None:
            self._session = Session(self.file.connect(read_only=not self.is_writer))
        else:
            self.file.check()
        return self._session

    def _drop(self) -> None:
        if self._session is not None:
            with suppress(Exception):  # the fault may have broken the connection, too
                self._session.connection.close()
            self._session = None

    def _outcomes(self, batch: list[_Item]) -> list[object]:
        try:
            return self._transact(self._connected(), batch)
        except Exception as error:  # noqa: BLE001 - it is raised in the callers
            if is_engine_fault(error):
                self._drop()
            elif len(batch) > 1:  # one call is at fault: run each by itself
                return [outcome for item in batch for outcome in self._outcomes([item])]
            return [self.file.explain(error) for _ in batch]

    def _begin(self, session: Session, batch: list[_Item]) -> None:  # noqa: ARG002 - the writer prepares for it
        """Begin the transaction of *batch*."""
        session.execute("BEGIN")

    def _transact(self, session: Session, batch: list[_Item]) -> list[object]:
        """Run all calls of *batch* in one transaction, or none."""
        try:
            self._begin(session, batch)
            # Taking the lock may have lasted: nobody would learn that a call which was cancelled meanwhile was run.
            outcomes: list[object] = [
                None if future.cancelled() else work(session, *given, **named) for future, work, given, named in batch
            ]
            session.execute("COMMIT")
        except BaseException:
            session.forget_known()
            with suppress(Exception):  # the fault may have ended the transaction, or there may be none
                session.execute("ROLLBACK")
            raise
        self.file.check()  # a commit into a deleted file is lost
        return outcomes


@define(eq=False)
class Reader(FileThread):
    """The reading thread; between its batches it publishes what any process has appended, by row id.

    If the entry that it saw last is gone, the file was emptied and perhaps filled again: then it publishes a `RESYNC`.
    """

    on_end: Callable[[], None]
    """Called on the thread when it ends."""
    fanout: Fanout = field(factory=Fanout, init=False)
    _writes: int | None = field(default=None, init=False)
    """A descriptor that is readable once the log was written to; `None` if there is none."""
    _heard_at: float = field(factory=time.monotonic, init=False)
    _least: float = field(default=FIRST_SECONDS, init=False)
    """The seconds from a check to the next at least."""
    wrote_at: float = field(default=-math.inf, init=False)
    """When this process last began to write."""
    _last: tuple[int, bytes] | None = field(default=None, init=False)
    """The last entry seen, its row id and its own; `None` until `start`."""
    _seen: tuple[Session, object] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Publish changes from now on."""
        await self.run(self._watch)
        with suppress(OSError, ImportError, AttributeError):  # a C library without it: the file is checked often
            self._writes = _inotify.watch(Path(f"{self.file.path}-wal"))
        self._listen()

    async def aclose(self) -> None:
        """Finish queued calls, and end the thread."""
        if self._writes is not None:
            self._loop.remove_reader(self._writes)
        await super().aclose()

    def _listen(self) -> None:
        if self._writes is not None and not self._is_closing:
            self._loop.add_reader(self._writes, self._hear)

    def _hear(self) -> None:
        if self._writes is None:
            return
        self._loop.remove_reader(self._writes)
        if _inotify.holds(self._writes):
            self._loop.call_later(DEAF_SECONDS, self._listen)
        else:
            os.close(self._writes)
            self._writes = None
        self._heard_at = time.monotonic()
        is_own = self._heard_at - self.wrote_at < LATER_SECONDS  # if not, the writer tells of another's
        self._least = LATER_SECONDS if is_own else FIRST_SECONDS
        self._loop.call_later(LATER_SECONDS if is_own else 0.0, self.wake)

    def _pause(self) -> float:
        """Return the seconds from this check to the next."""
        if self._writes is None:
            return UNHEARD_SECONDS
        # A commit is seen after its last write, or later, if the disk has to sync: so the pauses grow with the time.
        return min(max(self._least, PAUSE_SHARE * (time.monotonic() - self._heard_at)), QUIET_SECONDS)

    def _end(self) -> None:
        writes, self._writes = self._writes, None
        if writes is not None:
            os.close(writes)  # the kernel takes up to 20 ms
        super()._end()
        self.on_end()

    def _watch(self, session: Session) -> None:
        self._last = _last_of(session)

    def _between(self, works: int) -> float:  # noqa: ARG002 - part of the signature
        """Publish new entries, if there was any commit; return the seconds until the next check."""
        if self._last is None:
            return self._pause()
        session = self._connected()
        seen = session, session.rows("PRAGMA data_version")
        if seen == self._seen:
            return self._pause()
        # One statement, since each one takes the interpreter from the event loop. It reads the last entry, too.
        id_, said = self._last
        rows = session.rows(_FROM, (id_, MAX_ROWS))
        changes: list[Changed | Resync] = []
        if self._last == _NOTHING or (rows[:1] and rows[0][:2] in {(id_, said), (id_, b"")}):  # b"": left by a purge
            counts = {ref.decode(errors="replace"): count for row, _, ref, count in rows if row > id_ and ref}
            changes += (Changed(ref, count) for ref, count in counts.items())
            self._last = rows[-1][:2] if rows else _NOTHING
        else:
            changes.append(RESYNC)
            self._last = _last_of(session)
        if changes:
            self._loop.call_soon_threadsafe(self.fanout.publish, changes)
        if len(rows) == MAX_ROWS:
            return 0.0
        self._seen = seen  # was read before the rows, so that a commit in between is found by the next check
        self._least = LATER_SECONDS
        return self._pause()


def _last_of(session: Session) -> tuple[int, bytes]:
    rows = session.rows(_LAST)
    return rows[0] if rows else _NOTHING


@define(eq=False)
class Writer(FileThread):
    """The open resources of a file while it has users: this writing thread, and its reader.

    It checkpoints the log between its batches, when no commit of this process can get in the way.
    """

    is_writer = True
    reader: Reader = field(init=False)
    _logged: int = field(default=0, init=False)
    _due: float = field(default=0.0, init=False)
    _longest: int = field(default=LONG_LOG_PAGES, init=False)
    """The pages of the log from which on it is emptied."""

    def __attrs_post_init__(self) -> None:
        self.reader = Reader(self.file, self.wake)  # so that an idle writer ends as well if the loop was closed
        super().__attrs_post_init__()

    @property
    def fanout(self) -> Fanout:
        return self.reader.fanout

    async def start(self) -> None:
        """Create the file if needed, and begin to publish changes."""
        await self.reader.start()

    async def aclose(self) -> None:
        """Finish queued calls, and end both threads."""
        await self.reader.aclose()
        await super().aclose()  # the last connection to close removes the log
        self.fanout.close()

    def _begin(self, session: Session, batch: list[_Item]) -> None:
        self.reader.wrote_at = time.monotonic()
        session.execute("BEGIN IMMEDIATE")
        if session.know({ref for _, work, given, _ in batch if work is Session.append for ref in given[:1]}):
            self.reader.wake()

    def _between(self, works: int) -> float:
        """Checkpoint if enough calls, or enough time, have passed; return the seconds until it is due, or -1."""
        now = time.monotonic()
        if not self._logged:
            self._due = now + CHECKPOINT_SECONDS
        self._logged += works
        if self._logged >= CHECKPOINT_WORKS or (self._logged and now >= self._due):
            self._logged = 0
            self._longest = self.file.checkpoint(self._connected().connection, self._longest)
        return self._due - now if self._logged else -1.0
