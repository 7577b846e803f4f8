"""Who holds and who awaits which job in this process: the registry wakes them when there is news."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from attrs import define, field

from audioext.stores.base import Versioned


class Handle(Protocol):
    """What somebody holds of a job."""

    ref: str
    stored: Versioned
    """What this process last saw of it; the registry alone changes that."""


@define(eq=False, repr=False)
class Registry:
    """The jobs that somebody in this process holds, by ref; what nobody holds is forgotten."""

    _handles: WeakValueDictionary[str, Handle] = field(factory=WeakValueDictionary, init=False)
    _bells: dict[str, set[asyncio.Future[None]]] = field(factory=dict, init=False)
    _in_flight: Counter[str] = field(factory=Counter, init=False)
    _gone: WeakValueDictionary[str, Handle] = field(factory=WeakValueDictionary, init=False)
    _distrusted: WeakSet[Handle] = field(factory=WeakSet, init=False)
    _doubted: set[str] = field(factory=set, init=False)
    closed: bool = field(default=False, init=False)

    def handle(self, stored: Versioned, make: Callable[[Versioned], Handle]) -> Handle:
        """Return the one live handle of a job, made if there is none, and brought up to date."""
        handle = self._handles.get(stored.record.ref)
        if handle is None:
            handle = make(stored)
            self._handles[stored.record.ref] = handle
        elif self.is_news(stored):
            self.publish(stored)  # whoever waits for it wants to know too
        return handle

    def distrust(self, ref: str | None = None) -> None:
        """Note that the store may have forgotten what was seen of *ref*, or of all jobs: what it says next counts."""
        held = self._handles.values() if ref is None else filter(None, (self._handles.get(ref),))
        self._distrusted.update(held)

    def is_news(self, stored: Versioned) -> bool:
        """Say whether what the store holds is newer than what the holder of the job saw."""
        handle = self._handles.get(stored.record.ref)
        if handle is None or stored.version > handle.stored.version:
            return handle is not None
        # At one version they are alike, but where the engine lost commits and made others in their place, or where
        # this process knows an outcome that the store did not take yet.
        return handle in self._distrusted and not self.is_posting(handle.ref) and stored != handle.stored

    def is_held(self, ref: str) -> bool:
        """Say whether somebody in this process holds the job."""
        return ref in self._handles

    def cached(self, ref: str) -> Versioned | None:
        """Return what this process last saw of a job that somebody holds, where the store certainly holds it too."""
        handle = self._handles.get(ref)
        if handle is None or handle in self._distrusted or self.is_posting(ref):
            return None
        return handle.stored

    def awaited(self) -> tuple[str, ...]:
        """Return the refs that somebody waits for now."""
        return tuple(self._bells)

    def publish(self, stored: Versioned) -> None:
        """Let the holders of a job see its new state, and wake those who wait."""
        if stored.record.stage is not None:
            self._doubted.discard(stored.record.ref)
        handle = self._handles.get(stored.record.ref)
        if handle is not None:
            if self.is_news(stored):
                handle.stored = stored
            self._distrusted.discard(handle)
        self.ring(stored.record.ref)

    def ring(self, ref: str) -> None:
        """Wake all who wait for *ref*, to look again."""
        for bell in self._bells.pop(ref, ()):
            if not bell.done():
                bell.set_result(None)

    def bell(self, ref: str) -> asyncio.Future[None]:
        """Return a private future that the next news of *ref* ends."""
        bell = asyncio.get_running_loop().create_future()
        self._bells.setdefault(ref, set()).add(bell)
        bell.add_done_callback(lambda done: self._forget(ref, done))
        return bell

    @contextmanager
    def posting(self, ref: str) -> Generator[None]:
        """Mark a ref whose POST is under way in this process, or whose outcome is not stored yet.

        Both may be at the same time: it is marked until the last of them is over.
        """
        self._in_flight[ref] += 1
        try:
            yield
        finally:
            self._in_flight[ref] -= 1
            if not self._in_flight[ref]:
                del self._in_flight[ref]
            self.ring(ref)

    def is_posting(self, ref: str) -> bool:
        """Say whether the POST of *ref* is under way in this process."""
        return ref in self._in_flight

    def doubt(self, ref: str) -> None:
        """Note that the POST of *ref* got no readable answer in this process."""
        self._doubted.add(ref)
        self.ring(ref)

    def is_doubted(self, ref: str) -> bool:
        """Say whether this process saw that nobody answered readably."""
        return ref in self._doubted

    def forget(self, ref: str) -> None:
        """Tell those who wait that the job certainly never came to be."""
        handle = self._handles.get(ref)
        if handle is not None:
            self._gone[ref] = handle
            self.ring(ref)

    def is_gone(self, ref: str) -> bool:
        """Say whether the job was discarded."""
        return ref in self._gone

    def close(self) -> None:
        """End every wait with `ClientClosedError`, now and from now on."""
        self.closed = True
        for ref in self.awaited():
            self.ring(ref)

    def _forget(self, ref: str, bell: asyncio.Future[None]) -> None:
        bells = self._bells.get(ref)
        if bells is not None:
            bells.discard(bell)
            if not bells:
                del self._bells[ref]
