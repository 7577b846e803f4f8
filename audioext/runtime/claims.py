"""A loop that claims due work from the store and does it with bounded concurrency."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError, UnreadableError
from audioext.outage import Outage
from audioext.stores.base import Store, Work

_log = logging.getLogger("audioext.claims")

IDLE_SECONDS = 1.0
"""How long work from another process may go unnoticed if nothing wakes the loop."""
FAR_LOOK_SECONDS = 60.0
"""How often the loop looks for work whose due time is impossibly far ahead, set by a process whose clock was ahead. If
that clock still is, it sets such a time again: without this pause the two processes would claim it back and forth."""
SHORTEST_SECONDS = 0.001
"""The shortest pause when work is due but could not be claimed."""
STORE_DOWN_SECONDS = 1.0
CANCEL_SECONDS = 2.0
"""How long cancelled work gets to clean up."""


@define(kw_only=True, eq=False, repr=False)
class Claims:
    """Claims one kind of work and runs it. It sleeps until work is due or `wake` is called.

    *hold* returns how long (seconds) a claim lasts: longer than the work can take. *farthest* is how far ahead
    (seconds) work can be due: anything later was set by a clock that was ahead, and is due now.
    """

    work: Work
    store: Store
    clock: Clock
    hold: Callable[[], float]
    concurrency: int
    do: Callable[[str], Awaitable[None]]
    give_back: Callable[[str, Work], Awaitable[None]]
    """Ends a claim on work that was not done."""
    providers: Collection[str] | None = None
    farthest: float = math.inf
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _seen_at: float = field(default=-math.inf, init=False)
    _looked_far_at: float = field(default=-math.inf, init=False)
    _far: set[str] = field(factory=set, init=False)
    """The refs that an unfinished far look has found so far."""
    _next_look: float = field(default=math.inf, init=False)
    _loop: asyncio.Task[None] | None = field(default=None, init=False)
    _outage: Outage = field(init=False)
    _faults: Outage = field(init=False)
    _unreadable: set[str] = field(factory=set, init=False)
    """The jobs that were logged as unreadable."""
    _running: dict[asyncio.Task[None], str] = field(factory=dict, init=False)
    _is_draining: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Create the logs of outages."""
        self._outage = Outage(_log, f"{self.work}: the store is unavailable")
        self._faults = Outage(_log, f"{self.work}: the store failed during a job")

    def start(self) -> None:
        """Start the loop; calling it again does nothing."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name=f"audioext {self.work}")

    def wake(self, at: float | None = None) -> None:
        """Look for work now, unless it is due *at* a time after the next look."""
        if at is None or at < self._next_look:
            self._wake.set()

    async def aclose(self, *, drain: float = 0.0) -> None:
        """Run due work for up to *drain* seconds, then stop claiming, cancel running work and return its claims."""
        if self._loop is None:
            return
        if drain > 0:
            self._is_draining = True
            self._wake.set()
            await asyncio.wait([self._loop], timeout=drain)
        self._is_closing = True  # the loop is not cancelled: it returns what a running claim call gets
        self._wake.set()
        running = dict(self._running)
        for task in running:
            task.cancel()
        _, stubborn = await asyncio.wait([self._loop, *running], timeout=CANCEL_SECONDS)
        for task in stubborn:
            task.cancel()
            _log.error("%s does not end when it is cancelled; it is abandoned", task.get_name())
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._release([ref for task, ref in running.items() if task.cancelled()])

    async def _run(self) -> None:
        self._wake.set()
        while True:
            was_woken = self._wake.is_set() or self._is_draining
            self._wake.clear()
            try:
                if self._is_closing:
                    return
                # A look without a wake-up costs the store one query, and a claim only if work is due.
                left = 0.0 if was_woken or self._is_far_look_due() else await self._seconds_left()
                claimed = await self._claim() if left <= 0 else 0
                if self._is_draining and not (claimed or self._running or self._wake.is_set()):
                    return  # no work ended during the look, which could have made more due
                if left <= 0 and not claimed:
                    left = max(await self._seconds_left(), SHORTEST_SECONDS)
                pause = min(left, IDLE_SECONDS)
            except Exception as error:  # noqa: BLE001 - a bug of a store must not end the work of all jobs
                self._outage.note(error)
                if self._is_draining and not self._running:
                    return
                pause = STORE_DOWN_SECONDS
            else:
                self._outage.over()
            if pause > 0:
                self._next_look = self.clock.now() + pause
                await self.clock.wait_for(self._wake, pause)
                self._next_look = math.inf

    def _names(self) -> Sequence[str] | None:
        return None if self.providers is None else tuple(self.providers)  # more may be known than at the last look

    def _is_far_look_due(self) -> bool:
        """Return whether a far look is due: the last one is long ago, or the clock was set back since."""
        last, self._seen_at = self._seen_at, self.clock.now()
        if self._seen_at < last:
            self._looked_far_at = -math.inf
        return self._seen_at - self._looked_far_at >= FAR_LOOK_SECONDS

    async def _claim(self) -> int:
        room = self.concurrency - len(self._running)
        if room <= 0:
            return 0
        now, is_far = self.clock.now(), self._is_far_look_due()
        latest = now + self.farthest if is_far else math.inf
        refs = await self.store.claim(
            self.work, now=now, until=now + self.hold(), limit=room, providers=self._names(), latest=latest
        )
        if is_far and len(refs) == room and self._far.isdisjoint(refs):
            self._far.update(refs)  # there may be more
        elif is_far:  # all are found, or another process with a wrong clock has set them far ahead again
            self._looked_far_at = now
            self._far.clear()
        if self._is_closing:
            await self._release(refs)
            return 0
        for ref in refs:
            task = asyncio.create_task(self._guard(ref), name=f"audioext {self.work} of {ref}")
            self._running[task] = ref
            task.add_done_callback(self._finished)
        return len(refs)

    async def _release(self, refs: Sequence[str]) -> None:
        for ref in refs:
            with suppress(Exception):  # then the claim expires
                await self.give_back(ref, self.work)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()

    async def _guard(self, ref: str) -> None:
        try:
            await self.do(ref)
        except UnreadableError as error:
            if ref not in self._unreadable:
                self._unreadable.add(ref)
                _log.warning("%s of job %s: it is skipped: %s", self.work, ref, error)
        except StoreError as error:  # the claim expires, and the work is claimed again
            self._faults.note(StoreError(f"job {ref}: {error}"))
        except Exception:  # noqa: BLE001 - a bug must not end the loop; the claim expires and the work is claimed again
            _log.exception("%s of job %s failed", self.work, ref)

    async def _seconds_left(self) -> float:
        """Return the seconds until work is due, or `IDLE_SECONDS` if none is, or none can be claimed now."""
        if len(self._running) >= self.concurrency or self._is_draining:
            return IDLE_SECONDS
        due = await self.store.next_due(self.work, providers=self._names())
        return IDLE_SECONDS if due is None else due - self.clock.now()
