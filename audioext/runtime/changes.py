"""Follows what other processes append: held jobs are brought up to date, and workers are woken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import AudioextError, StoreError
from audioext.outage import Outage
from audioext.runtime.journal import Journal
from audioext.stores.base import RESYNC, Changed, Resync, Store

_log = logging.getLogger("audioext.changes")

STORE_DOWN_SECONDS = 1.0


@define(kw_only=True, eq=False, repr=False)
class Changes:
    """One task that reads the store's changes; what it could not read it reads again."""

    store: Store
    journal: Journal
    clock: Clock
    on_change: Callable[[], None]
    """Called after each change, since handlers may have work."""
    on_resync: Callable[[], Awaitable[None]]
    """Called where the store may have lost what it held, again until it raises no `StoreError`."""
    _unread: dict[str, bool] = field(factory=dict, init=False)
    """What is to be read again, and whether all of it, since the store may have lost a part."""
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _outage: Outage = field(factory=lambda: Outage(_log, "the store's changes cannot be read"), init=False)

    def start(self) -> None:
        """Begin, where other processes may change the store."""
        if self.store.shared:
            self._task = asyncio.create_task(self._follow(), name="audioext changes")

    async def aclose(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            changes = self.store.changes()
            first = asyncio.ensure_future(anext(changes))
            try:
                # It listens from its first step on, so what is read after that misses nothing.
                await asyncio.sleep(0)
                await self._see(RESYNC)
                await self._see(await first)
                async for change in changes:
                    await self._see(change)
            except StopAsyncIteration:
                return  # the store was closed before anything happened
            except StoreError as error:
                self._outage.note(error)
            else:
                return  # the store was closed
            finally:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            await self.clock.sleep(STORE_DOWN_SECONDS)

    async def _see(self, change: Changed | Resync) -> None:
        """Read again what a change is about; it is not done with before that was read."""
        is_resync = isinstance(change, Resync)
        if isinstance(change, Changed):
            held = self.journal.held(change.ref)
            if held is not None and held.count < change.count:
                self._unread.setdefault(change.ref, False)
        else:
            self._unread.update((held.ref, True) for held in self.journal.held_jobs())
        while self._unread or is_resync:
            try:
                if is_resync:
                    self.journal.try_again()
                    await self.on_resync()
                    is_resync = False
                while self._unread:
                    await self._read(next(iter(self._unread)))
            except StoreError as error:
                self._outage.note(error)
                await self.clock.sleep(STORE_DOWN_SECONDS)
            else:
                self._outage.over()
        self.on_change()

    async def _read(self, ref: str) -> None:
        if self.journal.held(ref) is not None:
            try:
                await self.journal.hold(ref, whole=self._unread[ref])
            except StoreError:
                raise
            except AudioextError as error:  # its own affair: the others count all the same
                _log.warning("job %s: what changed cannot be read: %s", ref, error)
        self._unread.pop(ref, None)
