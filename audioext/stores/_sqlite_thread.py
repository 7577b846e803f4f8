"""A thread of a SQLite store, which does the event loop's work in batches.

At most one batch is in flight while the next one gathers, and one call into the loop returns all of its results.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar, TypeVarTuple

from attrs import define, field

from audioext.errors import StoreError
from audioext.stores._changes import Fanout
from audioext.stores._sqlite_file import DatabaseFile, is_engine_fault
from audioext.stores._sqlite_session import Session
from audioext.stores.base import Changed

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_BATCH = 500
"""Works of one transaction at most, so that none waits long for the others."""
FAULT_PAUSE_SECONDS = 0.05
"""After so long is done again what failed between two batches."""
CHECKPOINT_SECONDS = 1.0
"""How long an append may be in the log alone; with `synchronous=normal` a power loss can take it until then."""
CHECKPOINT_WORKS = 2000
"""So many works are moved out of the log at once: about as many pages, which keeps it short."""

Item = tuple["asyncio.Future[Any]", str, Callable[..., Any], tuple[Any, ...]]
"""Who waits, the ref of the job that it is about, if it is about one, what is to be done, and with what."""


@define(eq=False)
class FileThread:
    """One batch at a time, each a transaction of a connection that is made anew after a fault.

    A work that fails is alone in failing. What a batch changed is published before its results are seen. `between` is
    called with `connect` and the works of each batch, or without any after a pause, and returns how long (seconds) to
    pause at most, below 0 for ever. The ids in `own` are those between which the entries of each batch lie.
    """

    file: DatabaseFile
    role: Literal["writer", "reader"]
    between: Callable[[Callable[[], Session], int], float]
    fanout: Fanout
    own: deque[tuple[int, int]]
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _gathering: deque[Item] = field(factory=deque, init=False)
    _handed: deque[list[Item]] = field(factory=deque, init=False)
    _wake: threading.Lock = field(factory=threading.Lock, init=False)
    """Released by who wakes the thread: half the work of an event."""
    _is_busy: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _thread: threading.Thread = field(init=False)
    # what only the thread touches
    _session: Session | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread."""
        self._wake.acquire()
        self._thread = threading.Thread(target=self._main, name=f"audioext sqlite {self.role}", daemon=True)
        self._thread.start()

    # --- in the event loop ---------------------------------------------------------------------------------

    def run(self, work: Callable[[Session, *Ts], T], *given: *Ts, ref: str = "") -> asyncio.Future[T]:
        """Have *work* on the job of *ref* done with the next batch; cancelling the future disturbs no other.

        Raises:
            StoreError: the store is being closed.
        """
        if self._is_closing:
            raise StoreError("the store is closed: open it, or make a new client")
        future: asyncio.Future[T] = self._loop.create_future()
        self._gathering.append((future, ref, work, given))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._hand_over)  # soon: what the loop is about to do may join the batch
        return future

    async def aclose(self) -> None:
        """Finish what was accepted, close the connection, end the thread."""
        self._is_closing = True
        if not self._is_busy:
            self._hand_over()
        await self._ended.wait()
        self._thread.join()

    def wake(self) -> None:
        """Let the thread look at once for what it is to do."""
        with suppress(RuntimeError):  # it is about to
            self._wake.release()

    def _hand_over(self) -> None:
        batch: list[Item] = []
        while self._gathering and len(batch) < MAX_BATCH:
            item = self._gathering.popleft()
            if not item[0].cancelled():
                batch.append(item)
        self._is_busy = bool(batch)
        if batch:
            self._handed.append(batch)
        else:
            self._is_over = self._is_closing
        if batch or self._is_over:
            self.wake()

    def _deliver(self, batch: list[Item], outcomes: list[object], changed: dict[str, int]) -> None:
        if changed:
            self.fanout.publish([Changed(ref, count) for ref, count in changed.items()])
        for item, outcome in zip(batch, outcomes, strict=True):
            future = item[0]
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        # After those who just got their results had their turn: what they ask for next joins this batch.
        self._loop.call_soon(self._hand_over)

    # --- on the thread -------------------------------------------------------------------------------------

    def _main(self) -> None:
        pause = -1.0
        with suppress(RuntimeError):  # the loop was closed before the store: nobody is left to hear of it
            while not self._is_over:
                self._wake.acquire(timeout=pause)
                batch = self._handed.popleft() if self._handed else []
                if batch:
                    outcomes, changed = self._outcomes(batch)
                    self._loop.call_soon_threadsafe(self._deliver, batch, outcomes, changed)
                try:
                    pause = self.between(self._connect, len(batch))
                except Exception:  # noqa: BLE001 - nobody waits for it, and it is done again
                    pause = FAULT_PAUSE_SECONDS
                    self._drop()
        self._drop()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    def _connect(self) -> Session:
        """Return the session of the thread's connection.

        Raises:
            StoreError: the file is gone, or not ours; the driver's own errors come as well.
        """
        if self._session is None:
            self._session = Session(self.file.connect(read_only=self.role == "reader"))
        else:
            self.file.check()
        return self._session

    def _drop(self) -> None:
        if self._session is not None:
            with suppress(Exception):  # it may be the fault that made it useless
                self._session.connection.close()
            self._session = None

    def _outcomes(self, batch: list[Item]) -> tuple[list[object], dict[str, int]]:
        """Return what became of each work, and how long the journals are that were appended to."""
        try:
            session = self._connect()
            return self._transact(session, batch), session.changed
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            if is_engine_fault(error):
                self._drop()
            elif len(batch) > 1:  # one of them is at fault
                outcomes: list[object] = []
                changed: dict[str, int] = {}
                for item in batch:
                    outcome, new = self._outcomes([item])
                    outcomes += outcome
                    changed |= new
                return outcomes, changed
            return [self.file.explain(error) for _ in batch], {}

    def _transact(self, session: Session, batch: list[Item]) -> list[object]:
        """Do all works in one transaction, or none of them, and return what came of them.

        Raises:
            StoreError: the file is gone; the driver's own errors come as well.
        """
        execute = session.execute
        execute("BEGIN IMMEDIATE" if self.role == "writer" else "BEGIN")
        try:
            if self.role == "writer":
                session.start({ref for _, ref, _, _ in batch if ref})
            outcomes = [work(session, *given) for _, _, work, given in batch]
            ids = session.new_ids()
            execute("COMMIT")
        except BaseException:
            session.forget()
            with suppress(Exception):  # the fault may have ended the transaction
                execute("ROLLBACK")
            raise
        self.file.check()  # what was committed into a file that is gone is not stored
        if ids is not None:
            self.own.append(ids)
        return outcomes


@define
class Checkpoints:
    """Moves what the log holds into the file, between batches: no commit of this process can meet it."""

    _logged: int = field(default=0, init=False)
    _due: float = field(default=0.0, init=False)

    def __call__(self, connect: Callable[[], Session], works: int) -> float:
        """Checkpoint if enough was logged, or long enough ago, and return how long to wait for that."""
        now = time.monotonic()
        if not self._logged:
            self._due = now + CHECKPOINT_SECONDS
        self._logged += works
        if self._logged >= CHECKPOINT_WORKS or (self._logged and now >= self._due):
            self._logged = 0
            connect().read("PRAGMA wal_checkpoint(PASSIVE)")
        return self._due - now if self._logged else -1.0
