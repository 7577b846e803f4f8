"""Purges the store while a client is open: old jobs every hour, and orphaned webhooks earlier if many arrive."""

from __future__ import annotations

import asyncio
import logging
import sys

from attrs import define, field

from audioext.clock import Clock, SteadyTime
from audioext.models.entries import MAX_JOURNAL_BYTES
from audioext.stores.base import Store

_log = logging.getLogger("audioext.maintenance")

FIRST_PURGE_SECONDS = 600.0
"""The delay of the first purge: after a long downtime, handlers are called for old jobs before those are deleted."""
PURGE_EVERY_SECONDS = 3_600.0
UNTOLD_SECONDS = 3_600.0
"""An ended job whose handlers are overdue for less than this is kept; after that, perhaps no process has them."""
EARLY_SHARE = 8
"""Orphans are purged early once this process has received an eighth of `delivery_bytes_kept` of them."""


@define(kw_only=True, eq=False)
class Housekeeping:
    """Purges the store; *keep* is how long (seconds) an ended job is kept after its last entry.

    Each process counts only the orphans that it received itself. Under a flood of them, n processes can therefore keep
    n eighths of `delivery_bytes_kept` more than that.
    """

    store: Store
    clock: Clock
    keep: float
    deliveries_kept: int
    delivery_bytes_kept: int
    _taken: int = field(default=0, init=False)
    _is_early: asyncio.Event = field(factory=asyncio.Event, init=False)

    def note_orphan(self, size: int) -> None:
        """Count the bytes of an orphan: a webhook of no submitted job."""
        self._taken += size
        if self._taken >= max(self.delivery_bytes_kept // EARLY_SHARE, MAX_JOURNAL_BYTES):
            self._taken = 0
            self._is_early.set()

    async def run(self) -> None:
        """Purge the store until cancelled."""
        clock, steady = self.clock, SteadyTime(self.clock)
        steady.now()
        due = clock.monotonic() + FIRST_PURGE_SECONDS
        while True:
            await clock.wait_for(self._is_early, due - clock.monotonic())
            now = steady.now()
            before, deliveries_kept = 0.0, sys.maxsize  # an early purge leaves submitted jobs alone
            if not self._is_early.is_set() or clock.monotonic() >= due:
                before, deliveries_kept = now - self.keep, self.deliveries_kept
                due = clock.monotonic() + PURGE_EVERY_SECONDS
            self._is_early.clear()
            try:
                await self.store.purge(
                    before=before,
                    deliveries_kept=deliveries_kept,
                    delivery_bytes_kept=self.delivery_bytes_kept,
                    untold_before=now - UNTOLD_SECONDS,
                )
            except Exception:  # noqa: BLE001 - purging must go on; the next try is in an hour
                _log.warning("old jobs could not be purged", exc_info=True)
