"""What goes on while a client is open: it follows what other processes commit, and forgets what is old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
from audioext.outage import Outage
from audioext.runtime.handlers import Handlers
from audioext.runtime.outcomes import Outcomes
from audioext.runtime.submitter import Submitter
from audioext.runtime.waiters import Registry
from audioext.stores.base import RESYNC, Resync, Store

_log = logging.getLogger("audioext.runtime.maintenance")

FIRST_PURGE_SECONDS = 600.0
"""After a long absence handlers are told of what happened before the old jobs are forgotten."""
PURGE_EVERY_SECONDS = 3_600.0
STORE_DOWN_SECONDS = 1.0


@define(kw_only=True, eq=False, repr=False)
class Upkeep:
    """The two background tasks of a client; *keep* is how long (seconds) an ended job is remembered at least."""

    store: Store
    registry: Registry
    outcomes: Outcomes
    submitter: Submitter
    handlers: Handlers
    clock: Clock
    keep: float
    expire_after: float
    deliveries_kept: int
    on_resync: Callable[[], Awaitable[None]]
    """Called where the store may have lost what it held, again until it raises no `StoreError`."""
    _settling: asyncio.Task[None] | None = field(default=None, init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)

    def start(self) -> None:
        """Begin."""
        self._tasks.add(asyncio.create_task(self._purge_now_and_then(), name="audioext purge"))
        if self.store.shared:
            self._tasks.add(asyncio.create_task(self._follow_changes(), name="audioext changes"))

    async def aclose(self) -> None:
        """End."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_changes(self) -> None:
        """See what other processes commit to the jobs that are awaited here, and wake the workers."""
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
                _log.warning("the store's changes are not heard, trying again: %s", error)
            else:
                return  # the store was closed
            finally:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            await asyncio.sleep(STORE_DOWN_SECONDS)

    async def _see(self, change: str | Resync) -> None:
        unfinished = self.submitter.unfinished()
        if isinstance(change, Resync):
            self.registry.distrust()
            self.outcomes.wake()
            if self._settling is None or self._settling.done():
                self._settling = asyncio.create_task(self._settle(), name="audioext resync")
                self._tasks.add(self._settling)
                self._settling.add_done_callback(self._tasks.discard)
        refs = {*self.registry.awaited(), *unfinished} if isinstance(change, Resync) else {change}
        for ref in refs:
            try:
                await self._look_again(ref, wanted=ref in unfinished)
            except StoreError as error:  # a damaged record, or a store that is away: the others count all the same
                _log.warning("job %s could not be read: %s", ref, error)
        self.handlers.wake()

    async def _settle(self) -> None:
        """Tell the store what it may have lost, for as long as it takes."""
        outage = Outage(_log, "the store takes nothing yet")
        while True:
            try:
                await self.on_resync()
            except StoreError as error:
                outage.note(error)
                await asyncio.sleep(STORE_DOWN_SECONDS)
            else:
                outage.over()
                return

    async def _look_again(self, ref: str, *, wanted: bool) -> None:
        if not self.registry.is_held(ref) and not wanted:
            return
        stored = await self.store.get(ref)
        if stored is None:
            if not self.registry.is_posting(ref):  # else it is about to be stored again
                self.registry.forget(ref)  # its submit was refused in another process, or it was purged
                self.submitter.finish(ref)
        else:
            if self.registry.is_news(stored):
                self.registry.publish(stored)
            if stored.record.is_final:
                self.submitter.finish(ref)

    async def _purge_now_and_then(self) -> None:
        await asyncio.sleep(FIRST_PURGE_SECONDS)
        while True:
            now = self.clock.now()
            try:
                await self.store.purge(
                    # A job ends within `expire_after`, so what was created before this ended `keep` ago.
                    created_before=now - self.keep - self.expire_after,
                    deliveries_before=now - self.keep,
                    deliveries_kept=self.deliveries_kept,
                )
            except Exception:  # noqa: BLE001 - housekeeping must not end; it comes again in an hour
                _log.warning("old jobs could not be purged", exc_info=True)
            await asyncio.sleep(PURGE_EVERY_SECONDS)
