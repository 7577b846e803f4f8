"""Shared by all stores: change listeners, paged listings, and one engine for all users of a store."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

from attrs import define, field

from audioext.errors import ConfigError, StoreError
from audioext.stores.base import RESYNC, Changed, Resync

MAX_BACKLOG = 10_000
"""How many changes a listener may be behind before it gets a `RESYNC` instead."""

B = TypeVar("B")
T = TypeVar("T")


@define(eq=False)
class Fanout:
    """Passes one stream of changes on to any number of listeners; all of it on one event loop."""

    listeners: dict[asyncio.Queue[Changed | Resync | None], None] = field(factory=dict, init=False)
    """The listeners' queues; a dict, since it keeps their order and so makes a run repeatable."""

    def publish(self, changes: Collection[Changed | Resync]) -> None:
        """Queue *changes* for every listener; one that is too far behind gets a `RESYNC` instead of its backlog."""
        for backlog in self.listeners:
            is_behind = backlog.qsize() + len(changes) > MAX_BACKLOG
            while is_behind and not backlog.empty():
                backlog.get_nowait()
            for change in (RESYNC,) if is_behind else changes:
                backlog.put_nowait(change)

    def close(self) -> None:
        """End the streams of all current listeners, after their queued changes."""
        for backlog in self.listeners:
            backlog.put_nowait(None)


async def follow(find: Callable[[], Fanout]) -> AsyncGenerator[Changed | Resync]:
    """Yield what the fanout that *find* returns publishes, from the first step on until it is closed."""
    fanout = find()
    backlog = asyncio.Queue[Changed | Resync | None]()
    fanout.listeners[backlog] = None
    try:
        while (change := await backlog.get()) is not None:
            yield change
    finally:
        fanout.listeners.pop(backlog, None)


async def paged(read: Callable[[B], Awaitable[Sequence[tuple[B, T | None]]]], start: B) -> AsyncGenerator[T]:
    """Yield the items of all pages but `None`. A page is (position, item) pairs; the last position starts the next."""
    while page := await read(start):
        for _, item in page:
            if item is not None:
                yield item
        start = page[-1][0]


class Engine(Protocol):
    """The open resources of a store while it has users; `start` opens them and begins to listen for changes."""

    @property
    def fanout(self) -> Fanout: ...
    async def start(self) -> None: ...
    async def aclose(self) -> None: ...


E = TypeVar("E", bound=Engine)


@define(eq=False)
class EngineStore(ABC, Generic[E]):
    """The part of `Store` that is the same for every engine that several processes can share."""

    _engine: E | None = field(default=None, init=False, repr=False)
    _users: int = field(default=0, init=False, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)
    """The event loop of its users; another one would never hear of its answers."""
    _opening: asyncio.Lock = field(factory=asyncio.Lock, init=False, repr=False)

    async def open(self) -> None:
        """Open the store for one more user; see `Store.open`.

        Raises:
            StoreError: it cannot be reached or used, or belongs to another program or release.
            ConfigError: it is open on another event loop, as in another thread, or before a fork.
        """
        loop = asyncio.get_running_loop()
        if self._loop not in {None, loop}:
            raise ConfigError(f"{self!r:.80} is in use on another event loop: give each one a store of its own")
        self._loop = loop
        try:
            async with self._opening:  # two clients may open it at once
                if self._engine is None:
                    engine = self._make()
                    try:
                        await engine.start()
                    except BaseException:
                        await _close(engine)
                        raise
                    self._engine = engine
                self._users += 1
        finally:
            self._loop = loop if self._users else None

    async def aclose(self) -> None:
        """Finish accepted work and close the engine when the last user leaves; an extra call does nothing."""
        self._users = max(0, self._users - 1)
        engine = self._engine
        if engine is not None and self._users == 0:
            self._engine = self._loop = None
            await _close(engine)

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield every change from now on, by any process; see `Store.changes`."""
        return follow(lambda: self._opened().fanout)

    @abstractmethod
    def _make(self) -> E:
        """Return a new engine, not yet started."""

    def _opened(self) -> E:
        if self._engine is None:
            raise StoreError("the store is not open: open it, or use it within its client's `async with`")
        return self._engine


async def _close(engine: Engine) -> None:
    """Close *engine* completely, even if the caller is cancelled."""
    await asyncio.shield(asyncio.ensure_future(engine.aclose()))
