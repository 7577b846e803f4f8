"""A thread with a connection of its own, which does the work of the event loop in batches.

At most one batch is in flight while the next one gathers, and one call into the loop tells all of its results.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from attrs import define, field

from audioext.errors import StoreError
from audioext.stores._sqlite_file import Connection, DatabaseFile, close, is_engine_fault, primary_code

T = TypeVar("T")
Work = Callable[[Connection], T]
Outcome = object | BaseException

MAX_BATCH = 1000
"""Items of one transaction at most, so that none waits long for the others."""

_KEEPS_CONNECTION = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}


@define(eq=False)
class _Item(Generic[T]):
    work: Work[T]
    future: asyncio.Future[T]
    undo: Callable[[T], Work[object]] | None = None


@define(eq=False)
class Lane:
    """One thread, one connection, one batch at a time.

    `perform` does the works of a batch on the thread and returns an outcome for each, or raises for all.
    `prepare` runs there once, before the first connection. `after` runs once a batch is told, `tick` every
    `tick_seconds` without work while `is_ticking`. `told` is called in the loop when a batch is done, before
    its results are seen, with the refs that were changed and the number of works.
    """

    name: str
    file: DatabaseFile
    perform: Callable[[Connection, Sequence[Work[object]]], list[Outcome]]
    read_only: bool = field(default=False, kw_only=True)
    prepare: Callable[[], None] = field(default=lambda: None, kw_only=True)
    told: Callable[[Sequence[str], int], None] = field(default=lambda _, __: None, kw_only=True)
    after: Callable[[Connection], None] = field(default=lambda _: None, kw_only=True)
    tick: Callable[[Connection], None] = field(default=lambda _: None, kw_only=True)
    tick_seconds: float = field(default=1.0, kw_only=True)
    is_ticking: bool = field(default=False, init=False)
    batches: int = field(default=0, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _gathering: deque[_Item[object]] = field(factory=deque, init=False)
    _handed: queue.SimpleQueue[list[_Item[object]] | None] = field(factory=queue.SimpleQueue, init=False)
    _is_busy: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)
    _idle: asyncio.Event = field(factory=asyncio.Event, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: threading.Thread = field(init=False)
    _connection: Connection | None = field(default=None, init=False)
    _identity: tuple[int, int] | None = field(default=None, init=False)
    _is_prepared: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread; it connects with its first work."""
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name=f"audioext sqlite {self.name}", daemon=True)
        self._thread.start()

    # --- in the event loop ---------------------------------------------------------------------------------

    def run(self, work: Work[T], *, undo: Callable[[T], Work[object]] | None = None) -> asyncio.Future[T]:
        """Have *work* done with the next batch, and return its future; cancelling it disturbs no other.

        *undo* makes of its result the work that takes it back, if it was done for a future cancelled since.

        Raises:
            StoreError: the store is being closed.
        """
        if self._is_closing:
            raise StoreError("the store is closed: open it, or make a new client")
        return self._gather(work, undo)

    def forget(self, work: Work[object]) -> None:
        """Have *work* done with the next batch, whatever comes of it; even while the store is being closed."""
        self._gather(work, None).add_done_callback(_look_at)

    def _gather(self, work: Work[T], undo: Callable[[T], Work[object]] | None) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._gathering.append(_Item(work, future, undo))  # type: ignore[arg-type]  # each future gets its own work's result
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._hand_over)  # soon: what the loop is about to do may join the batch
        return future

    async def aclose(self) -> None:
        """Finish what was accepted, close the connection, end the thread."""
        self._is_closing = True
        await self._idle.wait()
        self._handed.put(None)
        await self._ended.wait()
        self._thread.join()

    def _hand_over(self) -> None:
        batch: list[_Item[object]] = []
        while self._gathering and len(batch) < MAX_BATCH:
            item = self._gathering.popleft()
            if not item.future.cancelled():
                batch.append(item)
        if batch:
            self._handed.put(batch)
        else:
            self._is_busy = False
            self._idle.set()

    def _deliver(self, batch: list[_Item[object]], outcomes: list[Outcome], changed: list[str]) -> None:
        self.batches += 1
        self.told(changed, len(batch))
        for item, outcome in zip(batch, outcomes, strict=True):
            if item.future.done():
                if item.undo is not None and not isinstance(outcome, BaseException):
                    self.forget(item.undo(outcome))
            elif isinstance(outcome, BaseException):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)
        # After those who were just told had their turn: what they ask for next joins this batch.
        self._loop.call_soon(self._hand_over)

    # --- on the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                batch = self._handed.get(timeout=self.tick_seconds if self.is_ticking else None)
            except queue.Empty:
                self._try(self.tick)
                continue
            if batch is None:
                break
            outcomes, changed = self._outcomes([item.work for item in batch])
            if not self.call_loop(self._deliver, batch, outcomes, changed):
                break
            self._try(self.after)
        self._disconnect()
        self.call_loop(self._ended.set)

    def call_loop(self, call: Callable[..., None], *arguments: object) -> bool:
        """Call in the loop; return whether there still is one."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop was closed before the store: nobody is left to tell
            return False
        return True

    def _outcomes(self, works: Sequence[Work[object]]) -> tuple[list[Outcome], list[str]]:
        try:
            connection = self._connect()
            connection.committed = []
            outcomes = self.perform(connection, works)
            if self.file.identity() != self._identity:
                raise self.file.gone()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            self._recover(error)
            return [self.file.explain(error) for _ in works], []
        told = [self.file.explain(found) if isinstance(found, Exception) else found for found in outcomes]
        return told, connection.committed

    def _try(self, work: Callable[[Connection], None]) -> None:
        """Do what nobody waits for; a fault shows when somebody does."""
        try:
            work(self._connect())
        except (sqlite3.Error, StoreError) as error:
            self._recover(error)

    def _connect(self) -> Connection:
        identity = self.file.identity()
        if self._connection is not None and identity == self._identity:
            return self._connection
        if self._connection is not None and identity is None:
            raise self.file.gone()
        if not self._is_prepared:
            self.prepare()
            self._is_prepared = True
        self._disconnect()
        self._connection = self.file.connect(read_only=self.read_only)
        self._identity = self.file.identity()
        return self._connection

    def _recover(self, error: BaseException) -> None:
        """Forget a connection whose fault may stick to it; the file's return is noticed at the next work."""
        if isinstance(error, sqlite3.Error) and primary_code(error) not in _KEEPS_CONNECTION:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            close(self._connection)
            self._connection = None


def _look_at(future: asyncio.Future[object]) -> None:
    """Take note of an exception that nobody waits for, so that asyncio does not complain of it."""
    if not future.cancelled():
        future.exception()


def read_each(connection: Connection, works: Sequence[Work[object]]) -> list[Outcome]:
    """Do each work by itself, so that each sees the newest state and fails alone."""
    outcomes: list[Outcome] = []
    for work in works:
        try:
            outcomes.append(work(connection))
        except Exception as error:
            if is_engine_fault(error):
                raise
            outcomes.append(error)
    return outcomes


def write_together(
    connection: Connection, works: Sequence[Work[object]], *, seal: Callable[[Connection], None]
) -> list[Outcome]:
    """Do all works in one transaction, which *seal* may complete; a work that fails is alone in failing.

    Raises:
        sqlite3.Error: the file or the disk failed, and nothing was stored.
    """
    try:
        return _transaction(connection, works, seal)
    except Exception as error:
        if is_engine_fault(error):
            raise
        if len(works) == 1:
            return [error]
    outcomes: list[Outcome] = []
    for work in works:
        try:
            outcomes.append(_transaction(connection, [work], seal)[0])
        except Exception as error:  # noqa: BLE001 - each work's own fault; those before it are stored
            outcomes.append(error)
    return outcomes


def _transaction(
    connection: Connection, works: Sequence[Work[object]], seal: Callable[[Connection], None]
) -> list[Outcome]:
    connection.changed = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes: list[Outcome] = [work(connection) for work in works]
        seal(connection)
        connection.execute("COMMIT")
        connection.committed += connection.changed
    except BaseException:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return outcomes
