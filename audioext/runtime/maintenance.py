"""What goes on while a client is open: now and then, old jobs are forgotten."""

from __future__ import annotations

import asyncio
import logging

from attrs import define, field

from audioext.clock import Clock
from audioext.stores.base import Store

_log = logging.getLogger("audioext.maintenance")

FIRST_PURGE_SECONDS = 600.0
"""After a long absence handlers are told of what happened before the old jobs are forgotten."""
PURGE_EVERY_SECONDS = 3_600.0


@define(kw_only=True, eq=False, repr=False)
class Maintenance:
    """Purges the store; *keep* is how long (seconds) an ended job is remembered after its last entry."""

    store: Store
    clock: Clock
    keep: float
    deliveries_kept: int
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._purge_now_and_then(), name="audioext purge")

    async def aclose(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _purge_now_and_then(self) -> None:
        offset = self.clock.now() - self.clock.monotonic()
        await self.clock.sleep(FIRST_PURGE_SECONDS)
        while True:
            # A clock that steps ahead for a moment makes nothing old: what it shows counts when it is shown again.
            last, offset = offset, self.clock.now() - self.clock.monotonic()
            now = self.clock.monotonic() + min(last, offset)
            try:
                await self.store.purge(before=now - self.keep, deliveries_kept=self.deliveries_kept)
            except Exception:  # noqa: BLE001 - housekeeping must not end; it comes again in an hour
                _log.warning("old jobs could not be purged", exc_info=True)
            await self.clock.sleep(PURGE_EVERY_SECONDS)
