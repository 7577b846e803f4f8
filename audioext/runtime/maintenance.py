"""What goes on while a client is open: now and then, old jobs are forgotten."""

from __future__ import annotations

import logging

from audioext.clock import Clock
from audioext.stores.base import Store

_log = logging.getLogger("audioext.maintenance")

FIRST_PURGE_SECONDS = 600.0
"""After a long absence handlers are told of what happened before the old jobs are forgotten."""
PURGE_EVERY_SECONDS = 3_600.0


async def purge_now_and_then(store: Store, clock: Clock, *, keep: float, deliveries_kept: int) -> None:
    """Purge the store for ever; *keep* is how long (seconds) an ended job is remembered after its last entry."""
    offset = clock.now() - clock.monotonic()
    await clock.sleep(FIRST_PURGE_SECONDS)
    while True:
        # A clock that steps ahead for a moment makes nothing old: what it shows counts when it is shown again.
        last, offset = offset, clock.now() - clock.monotonic()
        now = clock.monotonic() + min(last, offset)
        try:
            await store.purge(before=now - keep, deliveries_kept=deliveries_kept)
        except Exception:  # noqa: BLE001 - housekeeping must not end; it comes again in an hour
            _log.warning("old jobs could not be purged", exc_info=True)
        await clock.sleep(PURGE_EVERY_SECONDS)
