"""The threads of a SQLite store: one commits in batches what the loop asks for, one reads and watches the file."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from attrs import define, field

from audioext.stores._engine import Fanout
from audioext.stores._sqlite_file import DatabaseFile, Row, is_engine_fault
from audioext.stores._sqlite_session import NEWEST, Session
from audioext.stores.base import RESYNC, Changed, Resync

P = ParamSpec("P")
T = TypeVar("T")

MAX_BATCH = 500
"""Works of one transaction at most, so that none waits long for the others."""
FAULT_PAUSE_SECONDS = 0.05
CHECKPOINT_SECONDS = 1.0
"""How long an append may be in the log alone; with `synchronous=normal` a power loss can take it until then."""
CHECKPOINT_WORKS = 250
"""So many works are moved out of the log at once, which takes about 12 ms, half of it the disk's two waits."""
URGENT_SECONDS = 0.002
"""How often the file is looked at while somebody waits for a change; a look without one takes some microseconds."""
CALM_SECONDS = 0.05
MAX_ROWS = 1000
"""Entries of one look; if there were more, the next look follows at once."""

_NEWER = """SELECT entries.id, CAST(ref AS BLOB), entries FROM entries JOIN jobs ON jobs.id = entries.job
    WHERE entries.id > ? ORDER BY entries.id LIMIT ?"""
_UP_TO = "SELECT id, CAST(said AS BLOB) FROM entries WHERE id <= ? ORDER BY id DESC LIMIT 1"

_Item = tuple["asyncio.Future[Any]", Callable[..., Any], Sequence[Any], Mapping[str, Any]]
"""Who waits, what is to be done, and with what."""


@define(eq=False)
class FileThread(ABC):
    """One batch at a time, each a transaction of a connection that is made anew after a fault.

    While a batch is worked at the next one gathers. A work that fails is alone in failing.
    """

    is_writer: ClassVar[bool] = False
    file: DatabaseFile
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _waiting: deque[_Item] = field(factory=deque, init=False)
    _wake: threading.Lock = field(factory=threading.Lock, init=False)
    """Released by who wakes the thread: half the work of an event."""
    _is_closing: bool = field(default=False, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: threading.Thread = field(init=False)
    _session: Session | None = field(default=None, init=False)
    """Only the thread touches it."""

    def __attrs_post_init__(self) -> None:
        self._wake.acquire()
        name = f"audioext sqlite {type(self).__name__.lower()}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[Concatenate[Session, P], T], *given: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        """Have *work* done with the next batch; cancelling the future disturbs no other."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((future, work, given, named))
        if len(self._waiting) == 1:  # else the thread has yet to come for the others
            self._loop.call_soon(self.wake)  # soon: what the loop is about to do may join the batch
        return future

    async def aclose(self) -> None:
        """Finish what was accepted, close the connection, end the thread."""
        self._is_closing = True
        self.wake()
        await self._ended.wait()
        self._thread.join()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is about to
            self._wake.release()

    def _deliver(self, batch: list[_Item], outcomes: list[object]) -> None:
        for (future, *_), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    # --- on the thread -------------------------------------------------------------------------------------

    @abstractmethod
    def _between(self, works: int) -> float:
        """Do what is done before and after each batch of so many works; return how long to pause, below 0 for ever."""

    def _main(self) -> None:
        pause, works = -1.0, 0
        with suppress(RuntimeError):  # the loop was closed before the store: nobody is left to hear of it
            while self._waiting or works or not self._is_closing:
                if not self._waiting:
                    self._wake.acquire(timeout=pause)
                try:
                    pause = self._between(works)
                except Exception:  # noqa: BLE001 - nobody waits for it, and it is done again
                    pause = FAULT_PAUSE_SECONDS
                    self._drop()
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                batch = [item for item in batch if not item[0].cancelled()]
                works = len(batch)
                if batch:
                    self._loop.call_soon_threadsafe(self._deliver, batch, self._outcomes(batch))
                    pause = 0.0
        self._drop()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    def _connected(self) -> Session:
        if self._session is None:
            self._session = Session(self.file.connect(read_only=not self.is_writer))
        else:
            self.file.check()
        return self._session

    def _drop(self) -> None:
        if self._session is not None:
            with suppress(Exception):  # it may be the fault that made it useless
                self._session.connection.close()
            self._session = None

    def _outcomes(self, batch: list[_Item]) -> list[object]:
        try:
            return self._transact(self._connected(), batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            if is_engine_fault(error):
                self._drop()
            elif len(batch) > 1:  # one of them is at fault
                return [outcome for item in batch for outcome in self._outcomes([item])]
            return [self.file.explain(error) for _ in batch]

    def _transact(self, session: Session, batch: list[_Item]) -> list[object]:
        """Do all works in one transaction, or none of them."""
        try:
            session.execute("BEGIN IMMEDIATE" if self.is_writer else "BEGIN")
            if self.is_writer:
                session.know({ref for _, work, given, _ in batch if work is Session.append for ref in given[:1]})
            outcomes = [work(session, *given, **named) for _, work, given, named in batch]
            session.execute("COMMIT")
        except BaseException:
            session.forget_known()
            with suppress(Exception):  # the fault may have ended the transaction, or kept it from its beginning
                session.execute("ROLLBACK")
            raise
        self.file.check()  # what was committed into a file that is gone is not stored
        return outcomes


@define(eq=False)
class Reader(FileThread):
    """Publishes what any process appended since its last look, by row id, between its batches.

    The entry that was seen last must still be there, else the file was emptied and may have been filled again: then
    everything is looked at.
    """

    urgent: int = field(default=0, init=False)
    """How many wait for a change."""
    fanout: Fanout = field(factory=Fanout, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _cursor: int | None = field(default=None, init=False)
    """The id from which on it looks; without one it does not."""
    _seen: tuple[Session, object] | None = field(default=None, init=False)
    _last: list[Row] = field(factory=list, init=False)
    """The entry that was seen last, as a list of one row."""

    def look_soon(self) -> None:
        """Look at what was committed, at many commits at once since another thread is to look."""
        if not self.urgent and (self._timer is None or self._timer.when() < self._loop.time()):
            self._timer = self._loop.call_later(URGENT_SECONDS, self.wake)

    def watch(self, session: Session) -> None:
        """Look from now on: a work of its own."""
        ((self._cursor,),) = session.rows(NEWEST)

    def _between(self, works: int) -> float:  # noqa: ARG002 - as its sibling
        """Read the next entries, if anybody committed anything; return when to look again."""
        pause = URGENT_SECONDS if self.urgent else CALM_SECONDS
        if self._cursor is None:
            return pause
        session = self._connected()
        seen = session, session.rows("PRAGMA data_version")
        if seen == self._seen:
            return pause
        cursor, changes = self._cursor, list[Changed | Resync]()
        session.execute("BEGIN")  # one state for all that is read; where it fails the connection is dropped
        for id_, said in self._last:
            # A purge leaves an empty row where the newest one was.
            if session.rows(_UP_TO, (id_,)) not in ([(id_, said)], [(id_, b"")]):
                cursor = min(cursor, session.rows(NEWEST)[0][0])
                changes.append(RESYNC)
        rows = session.rows(_NEWER, (cursor, MAX_ROWS))
        cursor = rows[-1][0] if rows else cursor
        last = session.rows(_UP_TO, (cursor,))
        session.execute("COMMIT")
        counts = {ref.decode(errors="replace"): count for _, ref, count in rows}
        changes += (Changed(ref, count) for ref, count in counts.items())
        if changes:
            self._loop.call_soon_threadsafe(self.fanout.publish, changes)
        self._cursor, self._last = cursor, last
        if len(rows) == MAX_ROWS:
            return 0.0
        self._seen = seen  # read before the rows, so that what came in between is read with the next look
        return pause


@define(eq=False)
class Writer(FileThread):
    """What is open of a file while it has users: this thread, and its reader.

    It moves what the log holds into the file between its batches: no commit of this process can meet it.
    """

    is_writer = True
    reader: Reader = field(init=False)
    _logged: int = field(default=0, init=False)
    _due: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.reader = Reader(self.file)
        super().__attrs_post_init__()

    @property
    def fanout(self) -> Fanout:
        return self.reader.fanout

    async def start(self) -> None:
        """Make the file ready, and listen to changes."""
        await self.reader.run(self.reader.watch)

    async def aclose(self) -> None:
        """Finish what was accepted, and end both threads."""
        await self.reader.aclose()
        await super().aclose()  # last, so that it leaves no log behind
        self.fanout.close()

    def _deliver(self, batch: list[_Item], outcomes: list[object]) -> None:
        self.reader.look_soon()
        super()._deliver(batch, outcomes)

    def _between(self, works: int) -> float:
        """Checkpoint if enough was logged, or long enough ago; return how long to wait for that."""
        now = time.monotonic()
        if not self._logged:
            self._due = now + CHECKPOINT_SECONDS
        self._logged += works
        if self._logged >= CHECKPOINT_WORKS or (self._logged and now >= self._due):
            self._logged = 0
            self._connected().rows("PRAGMA wal_checkpoint(PASSIVE)")
        return self._due - now if self._logged else -1.0
