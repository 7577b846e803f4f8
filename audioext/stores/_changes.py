"""Tells every listener of a store which records changed, with a bounded backlog for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from attrs import define, field

from audioext.stores.base import RESYNC, Resync

MAX_BACKLOG = 10_000
"""Changes that a listener may be behind before it has to look at everything again."""


@define(eq=False)
class _Listener:
    backlog: deque[str | Resync] = field(factory=deque)
    wake: asyncio.Event = field(factory=asyncio.Event)
    closed: bool = False


@define(eq=False)
class Fanout:
    """One stream of changes in, any number of listeners out; all of it on one event loop."""

    _listeners: set[_Listener] = field(factory=set, init=False)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def publish(self, refs: Iterable[str]) -> None:
        """Tell every listener that the records of *refs* changed."""
        if self._listeners:
            self._tell(tuple(refs))

    def resync(self) -> None:
        """Tell every listener that changes may have been missed."""
        self._tell((RESYNC,))

    def close(self) -> None:
        """End the streams of those who listen now, after what they were told."""
        for listener in self._listeners:
            listener.closed = True
            listener.wake.set()

    async def listen(self, begin: Callable[[], Awaitable[bool]] | None = None) -> AsyncGenerator[str | Resync]:
        """Yield what is told from the first step on; the end is `close`.

        *begin* starts the source of what is told; it returns whether changes were missed meanwhile.
        """
        listener = _Listener()
        self._listeners.add(listener)
        try:
            if begin is not None and await begin():
                yield RESYNC
            while True:
                while listener.backlog:
                    yield listener.backlog.popleft()
                if listener.closed:
                    return
                listener.wake.clear()
                await listener.wake.wait()
        finally:
            self._listeners.discard(listener)

    def _tell(self, changes: tuple[str | Resync, ...]) -> None:
        for listener in self._listeners:
            listener.backlog.extend(changes)
            if len(listener.backlog) > MAX_BACKLOG:
                listener.backlog.clear()
                listener.backlog.append(RESYNC)
            listener.wake.set()
