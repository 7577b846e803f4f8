"""Hands every change of a store to all who listen, with a bounded backlog for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection

from attrs import define, field

from audioext.stores.base import RESYNC, Changed, Resync

MAX_BACKLOG = 10_000
"""Changes that a listener may be behind before it has to look at everything again."""


@define(eq=False)
class _Listener:
    backlog: deque[Changed | Resync] = field(factory=deque)
    wake: asyncio.Event = field(factory=asyncio.Event)
    closed: bool = False


@define(eq=False)
class Fanout:
    """One stream of changes in, any number of listeners out; all of it on one event loop."""

    listeners: dict[_Listener, None] = field(factory=dict, init=False)
    """In the order in which they came, so that the same run wakes them in the same order."""

    def publish(self, changes: Collection[Changed | Resync]) -> None:
        """Hand *changes* to every listener; one that is far behind gets a `RESYNC` in their place."""
        for listener in self.listeners:
            listener.backlog.extend(changes)
            if len(listener.backlog) > MAX_BACKLOG:
                listener.backlog.clear()
                listener.backlog.append(RESYNC)
            listener.wake.set()

    def close(self) -> None:
        """End the streams of those who listen now, after what they were handed."""
        for listener in self.listeners:
            listener.closed = True
            listener.wake.set()


async def follow(find: Callable[[], Fanout]) -> AsyncGenerator[Changed | Resync]:
    """Yield what the fanout that *find* returns publishes from this first step on, until it is closed."""
    fanout = find()
    listener = _Listener()
    fanout.listeners[listener] = None
    try:
        while True:
            while listener.backlog:
                yield listener.backlog.popleft()
            if listener.closed:
                return
            listener.wake.clear()
            await listener.wake.wait()
    finally:
        fanout.listeners.pop(listener, None)
