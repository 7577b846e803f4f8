"""Hands every change of a store to all who listen, with a bounded backlog for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection

from attrs import define, field

from audioext.stores.base import RESYNC, Changed, Resync

MAX_BACKLOG = 10_000
"""Changes that a listener may be behind before it has to look at everything again."""


@define(eq=False)
class Fanout:
    """One stream of changes in, any number of listeners out; all of it on one event loop."""

    listeners: dict[asyncio.Queue[Changed | Resync | None], None] = field(factory=dict, init=False)
    """In the order in which they came, so that the same run wakes them in the same order."""

    def publish(self, changes: Collection[Changed | Resync]) -> None:
        """Hand *changes* to every listener; one that is far behind gets a `RESYNC` in their place."""
        for backlog in self.listeners:
            is_behind = backlog.qsize() + len(changes) > MAX_BACKLOG
            while is_behind and not backlog.empty():
                backlog.get_nowait()
            for change in (RESYNC,) if is_behind else changes:
                backlog.put_nowait(change)

    def close(self) -> None:
        """End the streams of those who listen now, after what they were handed."""
        for backlog in self.listeners:
            backlog.put_nowait(None)


async def follow(find: Callable[[], Fanout]) -> AsyncGenerator[Changed | Resync]:
    """Yield what the fanout that *find* returns publishes from this first step on, until it is closed."""
    fanout = find()
    backlog = asyncio.Queue[Changed | Resync | None]()
    fanout.listeners[backlog] = None
    try:
        while (change := await backlog.get()) is not None:
            yield change
    finally:
        fanout.listeners.pop(backlog, None)
