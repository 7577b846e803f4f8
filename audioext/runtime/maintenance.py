"""What goes on while a client is open: old jobs are forgotten now and then, and deliveries where many came."""

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
"""After a long absence handlers are told of what happened before the old jobs are forgotten."""
PURGE_EVERY_SECONDS = 3_600.0
UNTOLD_SECONDS = 3_600.0
"""A job whose handlers were due within this stays; one that was due longer may have none that will ever be told."""
EARLY_SHARE = 8
"""Deliveries for no submitted job are bounded at once when this process took an eighth of what is kept of them."""


@define(kw_only=True, eq=False)
class Housekeeping:
    """Purges the store; *keep* is how long (seconds) an ended job is remembered after its last entry.

    Every process looks at what it took itself: so many processes that take deliveries for no job at full speed keep
    so many eighths more of `delivery_bytes_kept` than that.
    """

    store: Store
    clock: Clock
    keep: float
    deliveries_kept: int
    delivery_bytes_kept: int
    _taken: int = field(default=0, init=False)
    _is_early: asyncio.Event = field(factory=asyncio.Event, init=False)

    def note_orphan(self, size: int) -> None:
        """Count the bytes of a delivery for no submitted job."""
        self._taken += size
        if self._taken >= max(self.delivery_bytes_kept // EARLY_SHARE, MAX_JOURNAL_BYTES):
            self._taken = 0
            self._is_early.set()

    async def run(self) -> None:
        """Purge the store for ever."""
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
            except Exception:  # noqa: BLE001 - housekeeping must not end; it comes again in an hour
                _log.warning("old jobs could not be purged", exc_info=True)
