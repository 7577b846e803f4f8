"""A loop that claims due work from the store under leases and runs it with bounded concurrency."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
from audioext.outage import Outage
from audioext.stores.base import Kind, Lease, Store

_log = logging.getLogger("audioext.runtime.claims")

IDLE_SECONDS = 1.0
"""How long another process's work may wait unseen when no wake-up comes."""
STORE_DOWN_SECONDS = 1.0
CANCEL_SECONDS = 5.0
"""How long work that was cancelled gets to clean up."""


def is_being_cancelled() -> bool:
    """Say whether somebody cancels the running task, or something that it awaits was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@define(kw_only=True, eq=False, repr=False)
class Worker:
    """Claims work of one *kind* and does it; it sleeps until work is due or somebody wakes it."""

    name: str
    store: Store
    kind: Kind
    clock: Clock
    lease: float
    concurrency: int
    work: Callable[[Lease], Awaitable[None]]
    providers: Sequence[str] | None = None
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _next_look: float = field(default=math.inf, init=False)
    _loop: asyncio.Task[None] | None = field(default=None, init=False)
    _outage: Outage = field(init=False)
    _running: set[asyncio.Task[None]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        """Name what may be away."""
        self._outage = Outage(_log, f"{self.name}: the store is not there")

    def start(self) -> None:
        """Begin; calling it again is harmless."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name=f"audioext {self.name}")

    def wake(self, at: float | None = None) -> None:
        """Look for work now; or not, if what is due *at* that time comes later than the next look."""
        if at is None or at < self._next_look:
            self._wake.set()

    async def aclose(self, *, drain: float = 0.0) -> None:
        """Do what is due for up to *drain* seconds, then claim no more and cancel what still runs.

        What is cancelled is given back, so that it runs again later.
        """
        if self._loop is not None and drain > 0:
            with suppress(TimeoutError, StoreError):
                async with asyncio.timeout(drain):
                    await self._finish_due()
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            _, stubborn = await asyncio.wait(tuple(self._running), timeout=CANCEL_SECONDS)
            for task in stubborn:
                _log.error("%s does not end when it is cancelled; it is left alone", task.get_name())

    def is_running_here(self) -> bool:
        """Say whether the running task is one of this worker's."""
        return asyncio.current_task() in self._running

    async def _finish_due(self) -> None:
        while True:
            if self._running:
                await asyncio.wait(tuple(self._running), return_when=asyncio.FIRST_COMPLETED)
                continue
            due = await self.store.next_due(self.kind, providers=self.providers)
            if due is None or due > self.clock.now():
                return
            self._wake.set()
            await asyncio.sleep(0)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                claimed = await self._claim()
                pause = 0.0 if claimed else await self._pause()
            except StoreError as error:
                self._outage.note(error)
                pause = STORE_DOWN_SECONDS
            else:
                self._outage.over()
            if pause > 0:
                self._next_look = self.clock.now() + pause
                await self._sleep(pause)
                self._next_look = math.inf

    async def _claim(self) -> int:
        room = self.concurrency - len(self._running)
        if room <= 0:
            return 0
        leases = await self.store.claim(
            self.kind, now=self.clock.now(), lease=self.lease, limit=room, providers=self.providers
        )
        for lease in leases:
            task = asyncio.create_task(self._guard(lease), name=f"audioext {self.name} {lease.ref}")
            self._running.add(task)
            task.add_done_callback(self._finished)
        return len(leases)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()

    async def _guard(self, lease: Lease) -> None:
        try:
            await self.work(lease)
        except asyncio.CancelledError:
            with suppress(StoreError):  # else the lease runs out by itself
                await self.store.settle(lease, due_at=self.clock.now())
            raise
        except StoreError as error:
            _log.warning("%s of job %s: the store failed, it runs again later: %s", self.name, lease.ref, error)
        except Exception:  # noqa: BLE001 - a bug must not end the loop; the lease runs out and the work comes again
            _log.exception("%s of job %s failed", self.name, lease.ref)

    async def _pause(self) -> float:
        if len(self._running) >= self.concurrency:
            return IDLE_SECONDS
        due = await self.store.next_due(self.kind, providers=self.providers)
        if due is None:
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(due - self.clock.now(), 0.001))

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
