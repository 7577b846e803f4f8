"""Follows the appends of other processes: updates held jobs, one by one, and wakes the handlers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field

from audioext.errors import StoreError, UnreadableError
from audioext.outage import Outage
from audioext.runtime.journal import Journal
from audioext.stores.base import RESYNC, Changed, Resync

_log = logging.getLogger("audioext.changes")

STORE_DOWN_SECONDS = 1.0


@define(kw_only=True, eq=False, repr=False)
class Changes:
    """One task collects the store's changes; another reads the changed jobs, and retries those that it cannot read."""

    journal: Journal
    on_change: Callable[[], None]
    """Called after each change, since handlers may have work."""
    on_resync: Callable[[], Awaitable[None]]
    """Called when the store may have lost data; repeated until it succeeds."""
    _unread: dict[str, bool] = field(factory=dict, init=False)
    """The refs to read, each with whether to read the whole journal, since the store may have lost a part."""
    _looks: deque[str] = field(factory=deque, init=False)
    """The refs of jobs for which a wait has begun."""
    _is_resync: bool = field(default=False, init=False)
    _news: asyncio.Event = field(factory=asyncio.Event, init=False)
    _tasks: Sequence[asyncio.Task[None]] = field(default=(), init=False)
    outage: Outage = field(factory=lambda: Outage(_log, "the store could not be read, and waits go on"), init=False)

    def start(self) -> None:
        """Start both tasks."""
        self._tasks = [
            asyncio.create_task(self._follow(), name="audioext changes"),
            asyncio.create_task(self._catch_up(), name="audioext catching up"),
        ]

    def look_soon(self, ref: str) -> None:
        """Queue an update of a held job from the store, after the jobs that have changed."""
        self._looks.append(ref)
        self._news.set()

    async def aclose(self) -> None:
        """Cancel both tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            changes = self.journal.store.changes()
            first = asyncio.ensure_future(anext(changes))
            try:
                # The stream listens from its first step on, so reads after that step miss no change.
                await asyncio.sleep(0)
                self._note(RESYNC)
                self._note(await first)
                async for change in changes:
                    self._note(change)
            except StopAsyncIteration:
                return  # the store was closed before the first change
            except Exception as error:  # noqa: BLE001 - after a bug of a store, waiters must still be woken
                self.outage.note(error)
            else:
                return  # the store was closed
            finally:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            await self.journal.clock.sleep(STORE_DOWN_SECONDS)

    def _note(self, change: Changed | Resync) -> None:
        if isinstance(change, Changed):
            held = self.journal.held.get(change.ref)
            if held is not None and held.count < change.count:
                self._unread.setdefault(change.ref, False)
                self._news.set()
        else:
            self._is_resync = True
            self._unread.update((held.ref, True) for held in self.journal.held_jobs())
            self._news.set()
        self.on_change()

    async def _catch_up(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if await self._read_all():
                self.outage.over()
            else:
                await self.journal.clock.wait_for(self._news, STORE_DOWN_SECONDS)
                self._news.set()

    async def _read_all(self) -> bool:
        """Read all changed jobs, and return whether all could be read. One failure does not stop the others."""
        is_over = True
        if self._is_resync:
            self._is_resync = False
            self.journal.unstored.wake()
            try:
                await self.on_resync()
            except Exception as error:  # noqa: BLE001 - as above
                self._is_resync, is_over = True, False
                self.outage.note(error)
        for ref in tuple(self._unread):
            is_over = await self._read(ref, whole=self._unread.pop(ref)) and is_over
        while self._looks and not self._news.is_set():
            is_over = await self._read(self._looks.popleft(), whole=False) and is_over
        return is_over

    async def _read(self, ref: str, *, whole: bool) -> bool:
        """Read a job if it is held, and return whether that worked; if it did not, the job is queued again."""
        if self.journal.held.get(ref) is None:
            return True
        try:
            await self.journal.look(ref, whole=whole)
        except Exception as error:  # noqa: BLE001 - after a bug of a store or a provider, waiters must still be woken
            if isinstance(error, StoreError) and not isinstance(error, UnreadableError):
                self._unread[ref] = whole or self._unread.get(ref, False)
                self.outage.note(error)
                return False
            _log.warning("job %s: its changes cannot be read: %r", ref, error)  # a retry would fail again
        return True
