"""The threads of a SQLite store that do the event loop's work, in batches.

At most one batch is in flight while the next one gathers, and one call into the loop returns all of its results.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from attrs import define, field

from audioext.errors import StoreError
from audioext.stores._sqlite_file import Connection, DatabaseFile, close, is_engine_fault, sticks
from audioext.stores._sqlite_session import Session
from audioext.stores.base import Changed

T = TypeVar("T")
Outcome = object | BaseException

MAX_BATCH = 500
"""Items of one transaction at most, so that none waits long for the others."""
CHECKPOINT_SECONDS = 1.0
"""How long an append may be in the log alone; with `synchronous=normal` a power loss can take it until then."""
CHECKPOINT_WORKS = 2000
"""So many works are moved out of the log at once: about as many pages, which keeps it short."""

SessionWork = Callable[[Session], T]
Item = tuple[SessionWork[Any], "asyncio.Future[Any]", str]
"""What is to be done, who waits for it, and the ref of the job that it is about, if it is about one."""


@define(eq=False)
class FileThread:
    """A thread that does *run* with a connection of its own, which is made when it is needed and after a fault."""

    file: DatabaseFile
    role: Literal["writer", "reader", "watcher"]
    run: Callable[[], None]
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: threading.Thread = field(init=False)
    _connection: Connection | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._main, name=f"audioext sqlite {self.role}", daemon=True)
        self._thread.start()

    async def join(self) -> None:
        """Wait for the end."""
        await self._ended.wait()
        self._thread.join()

    def _main(self) -> None:
        self.run()
        self.drop()
        self.call(self._ended.set)

    def connect(self) -> Connection:
        """Return the thread's connection; the first of all makes the file ready.

        Raises:
            StoreError: the file is gone, or not ours; the driver's own errors come as well.
        """
        if not self.file.is_prepared:
            self.file.prepare()
        self.file.check()
        if self._connection is None:
            self._connection = self.file.connect(read_only=self.role != "writer")
        return self._connection

    def drop(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            close(self._connection)
            self._connection = None

    def call(self, call: Callable[..., None], *arguments: object) -> bool:
        """Call in the loop, from the thread; return whether there still is one."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop was closed before the store: nobody is left to hear of it
            return False
        return True


@define(eq=False)
class BatchThread:
    """One batch at a time, each a transaction; a work that fails is alone in failing.

    `published` is called in the loop with what a batch changed, before its results are seen. `wrote` is called on the
    thread with the ids that its entries lie between.
    """

    file: DatabaseFile
    role: Literal["writer", "reader"]
    published: Callable[[list[Changed]], None] = field(default=lambda _: None, kw_only=True)
    wrote: Callable[[tuple[int, int]], None] = field(default=lambda _: None, kw_only=True)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _gathering: deque[Item] = field(factory=deque, init=False)
    _handed: queue.SimpleQueue[list[Item] | None] = field(factory=queue.SimpleQueue, init=False)
    _is_closing: bool = field(default=False, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _idle: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: FileThread = field(init=False)
    # what only the thread touches
    _session: Session | None = field(default=None, init=False)
    _logged: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread."""
        self._idle.set()
        self._thread = FileThread(self.file, self.role, self._run)
        self._thread.start()

    # --- in the event loop ---------------------------------------------------------------------------------

    def run(self, work: SessionWork[T], ref: str = "") -> asyncio.Future[T]:
        """Have *work* on the job of *ref* done with the next batch; cancelling the future disturbs no other.

        Raises:
            StoreError: the store is being closed.
        """
        if self._is_closing:
            raise StoreError("the store is closed: open it, or make a new client")
        future: asyncio.Future[T] = self._loop.create_future()
        self._gathering.append((work, future, ref))
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._hand_over)  # soon: what the loop is about to do may join the batch
        return future

    async def aclose(self) -> None:
        """Finish what was accepted, close the connection, end the thread."""
        self._is_closing = True
        await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
        self._handed.put(None)
        await self._thread.join()

    def _hand_over(self) -> None:
        batch: list[Item] = []
        while self._gathering and len(batch) < MAX_BATCH:
            item = self._gathering.popleft()
            if not item[1].cancelled():
                batch.append(item)
        if batch:
            self._handed.put(batch)
        else:
            self._idle.set()

    def _deliver(self, batch: list[Item], outcomes: list[Outcome], changed: dict[str, int]) -> None:
        if changed:
            self.published([Changed(ref, count) for ref, count in changed.items()])
        for (_, future, _), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if self.role == "writer" and self._timer is None:
            self._timer = self._loop.call_later(CHECKPOINT_SECONDS, self._ask_for_checkpoint)
        # After those who just got their results had their turn: what they ask for next joins this batch.
        self._loop.call_soon(self._hand_over)

    def _ask_for_checkpoint(self) -> None:
        self._timer = None
        self._handed.put([])

    # --- on the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._handed.get()) is not None:
            if batch:
                outcomes, changed = self._outcomes(batch)
                if not self._thread.call(self._deliver, batch, outcomes, changed):
                    break
                self._logged += len(batch)
            if self.role == "writer" and self._logged >= (CHECKPOINT_WORKS if batch else 1):
                self._checkpoint()

    def _checkpoint(self) -> None:
        """Copy what the log holds into the file, while no commit of this process can meet it."""
        self._logged = 0
        try:
            self._thread.connect().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and it is done again with the next works
            self._recover(error)

    def _outcomes(self, batch: Sequence[Item]) -> tuple[list[Outcome], dict[str, int]]:
        """Return what became of each work, and how long the journals are that were appended to."""
        works: list[SessionWork[object]] = [work for work, _, _ in batch]
        refs = {ref for _, _, ref in batch if ref}
        try:
            connection = self._thread.connect()
            if self._session is None or self._session.connection is not connection:
                self._session = Session(connection)
            try:
                outcomes = self._transact(self._session, works, refs)
            except Exception as error:
                if is_engine_fault(error):
                    raise
                outcomes = self._transact(self._session, [partial(_alone, work=work) for work in works], ())
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            self._recover(error)
            return [self.file.explain(error) for _ in works], {}
        explained = [self.file.explain(found) if isinstance(found, Exception) else found for found in outcomes]
        return explained, self._session.changed

    def _recover(self, error: Exception) -> None:
        if sticks(error):
            self._thread.drop()

    def _transact(self, session: Session, works: Sequence[SessionWork[object]], refs: Collection[str]) -> list[Outcome]:
        """Do all works, which are about the jobs of *refs*, in one transaction, or none of them.

        Raises:
            StoreError: the file is gone; the driver's own errors come as well.
        """
        execute = session.connection.execute
        session.changed = {}
        execute("BEGIN IMMEDIATE" if self.role == "writer" else "BEGIN")
        try:
            before = _last_entry(session) if self.role == "writer" else 0
            if refs:
                session.load(refs)
            outcomes: list[Outcome] = [work(session) for work in works]
            session.flush()
            after = _last_entry(session) if session.changed else before
            execute("COMMIT")
        except BaseException:
            session.forget()
            with suppress(Exception):  # the fault may have ended the transaction
                execute("ROLLBACK")
            raise
        self.file.check()  # what was committed into a file that is gone is not stored
        if before < after:
            self.wrote((before, after))
        return outcomes


def _alone(session: Session, work: SessionWork[object]) -> Outcome:
    """Do a work so that its fault undoes nothing else, and return that fault."""
    execute = session.connection.execute
    execute("SAVEPOINT work")
    try:
        outcome: Outcome = work(session)
        session.flush()
    except Exception as error:
        if is_engine_fault(error):
            raise
        session.forget()
        execute("ROLLBACK TO work")
        outcome = error
    execute("RELEASE work")
    return outcome


def _last_entry(session: Session) -> int:
    return int(session.read("SELECT coalesce(max(id), 0) FROM entries")[0][0])
