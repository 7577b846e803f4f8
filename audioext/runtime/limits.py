"""Client-side rate limits: how many calls an API may have in any window, and how many open jobs an account.

A leaky bucket lets twice its capacity through in one window, so the window here slides over the calls
themselves, and a call counts until its window has passed since its *end*: however long it took to arrive,
the provider never sees more than it allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
from audioext.providers.base import Limits
from audioext.stores.base import Store

_log = logging.getLogger("audioext.runtime.limits")

HOLD_SECONDS = 120.0
"""A place whose holder died is free after so long: more than a submit takes from its permit to its answer."""
FRESH_SECONDS = 30.0
"""So long after it was looked for a place is surely held yet."""
LOOK_SECONDS = 1.0
"""How long a place that another process gave back may stay unseen."""


@define(eq=False, repr=False)
class Limiter:
    """So many calls of this process in any window, first come, first served."""

    calls: int | None
    per: float
    _under_way: int = field(default=0, init=False)
    _ended: deque[float] = field(factory=deque, init=False)
    _queue: deque[asyncio.Future[None]] = field(factory=deque, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    @asynccontextmanager
    async def permit(self, *, timeout: float) -> AsyncGenerator[None]:  # noqa: ASYNC109 - the queue is ours to end
        """Hold a permit for one call; it may take up to *timeout* seconds to come.

        Raises:
            TimeoutError: it did not come in time.
        """
        async with asyncio.timeout(timeout):
            await self._take()
        try:
            yield
        finally:
            self._under_way -= 1
            if self.calls is not None:
                self._ended.append(asyncio.get_running_loop().time())
            self._admit()

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def _take(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came and was not used
                self._under_way -= 1
            elif turn in self._queue:
                self._queue.remove(turn)
            self._admit()
            raise

    def _tick(self) -> None:
        self._timer = None  # it may come a little early; then there is another one
        self._admit()

    def _admit(self) -> None:
        """Give permits to those who wait, as far as the limit allows."""
        now = asyncio.get_running_loop().time()
        while self._ended and self._ended[0] <= now - self.per:
            self._ended.popleft()
        while self._queue and (self.calls is None or self._under_way + len(self._ended) < self.calls):
            turn = self._queue.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)
        if self._queue and self._ended and self._timer is None:
            wake_at = self._ended[0] + self.per
            self._timer = asyncio.get_running_loop().call_at(wake_at, self._tick)


@define(eq=False, repr=False)
class Account:
    """The submits and open jobs of one account, counted over all processes that share a store.

    A submit takes a *place* in the store for as long as it counts, and an open job where their number is limited;
    within a process they are served in the order in which they came. A place is taken for a time, so a process that
    dies gives its places back too.
    """

    name: str
    limits: Limits
    store: Store
    clock: Clock
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    _freed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _closing: asyncio.Event = field(factory=asyncio.Event, init=False)
    _open: dict[str, float] = field(factory=dict, init=False)
    _chores: set[asyncio.Task[None]] = field(factory=set, init=False)

    @property
    def open_here(self) -> frozenset[str]:
        """The refs that this process submitted and that still hold a place among the open jobs."""
        return frozenset(self._open)

    async def take(self, ref: str, *, timeout: float) -> None:  # noqa: ASYNC109 - the queue is ours to end
        """Take the places that the submit of *ref* needs, within *timeout* seconds; `sent` and `finish` end them.

        Raises:
            TimeoutError: they were not free in time.
            StoreError: the store cannot tell.
        """
        submits, parallel = self.limits.submits, self.limits.parallel
        if submits is None and parallel is None:
            return
        try:
            async with asyncio.timeout(timeout), self._turn:
                while parallel is not None or submits is not None:
                    self._freed.clear()
                    # The place among the jobs is taken anew with each look, so that it does not run out meanwhile.
                    looked_at = self.clock.now()
                    free_at = await self._take_job(ref, parallel) if parallel is not None else 0.0
                    if not free_at and submits is not None:
                        free_at = await self._take_place(self._submits, ref, submits, HOLD_SECONDS + self.limits.per)
                    if not free_at:
                        if self.clock.now() - looked_at < FRESH_SECONDS:
                            break
                        continue  # a store that was away, or a machine that slept, took the time that places last
                    with suppress(TimeoutError):
                        async with asyncio.timeout(min(max(free_at - self.clock.now(), 0.001), LOOK_SECONDS)):
                            await self._freed.wait()
        except BaseException:
            self._leave(self._jobs, ref, None)
            self._leave(self._submits, ref, None)
            raise

    async def keep(self, ref: str, *, until: float) -> None:
        """Let *ref*, whose task is submitted, keep its place among the open jobs until it has ended."""
        if self.limits.parallel is not None:
            self._open[ref] = until
            try:
                await self._hold(ref, until, self.limits.parallel)
            except StoreError:
                self._start(self._until_done(partial(self._hold, ref, until, self.limits.parallel)))

    async def renew(self) -> None:
        """Take the places of the open jobs again, which the store may have lost, or not have heard of.

        Raises:
            StoreError: it cannot be told now.
        """
        for ref, until in tuple(self._open.items()):
            if self.limits.parallel is not None:
                await self._hold(ref, until, self.limits.parallel)

    def sent(self, ref: str) -> None:
        """Count the submit of *ref* no longer than its window from now on."""
        if self.limits.submits is not None:
            self._leave(self._submits, ref, self.clock.now() + self.limits.per)

    def finish(self, ref: str) -> None:
        """Give back the place of a job that is final, or whose outcome is unknown."""
        if self.limits.parallel is not None:
            self._open.pop(ref, None)
            self._leave(self._jobs, ref, None)

    async def aclose(self) -> None:
        """Give back what is to be given back, if the store is there."""
        self._closing.set()
        await asyncio.gather(*self._chores, return_exceptions=True)

    @property
    def _submits(self) -> str:
        return f"submits of {self.name}"

    @property
    def _jobs(self) -> str:
        return f"jobs of {self.name}"

    async def _hold(self, ref: str, until: float, limit: int) -> None:
        if ref not in self._open:
            return
        await self.store.take_place(self._jobs, ref, limit=limit, now=self.clock.now(), until=until)
        if ref not in self._open:  # it ended meanwhile
            self._leave(self._jobs, ref, None)

    async def _take_place(self, name: str, ref: str, limit: int, seconds: float) -> float:
        now = self.clock.now()
        return await self.store.take_place(name, ref, limit=limit, now=now, until=now + seconds)

    async def _take_job(self, ref: str, limit: int) -> float:
        free_at = await self._take_place(self._jobs, ref, limit, HOLD_SECONDS)
        if free_at and await self._drop_ended():
            free_at = await self._take_place(self._jobs, ref, limit, HOLD_SECONDS)
        return free_at

    async def _drop_ended(self) -> bool:
        """Give back the places of jobs that ended while nobody looked, as when their process died."""
        dropped = False
        for ref in await self.store.places(self._jobs):
            stored = await self.store.get(ref)
            if stored is None:  # about to be stored, or given back in time
                continue
            record, now = stored.record, self.clock.now()
            if record.is_final or (record.task_id is None and now >= record.unknown_at):
                dropped |= await self.store.leave_place(self._jobs, ref, now=now, until=None)
        return dropped

    def _leave(self, name: str, ref: str, until: float | None) -> None:
        async def leave() -> None:
            await self.store.leave_place(name, ref, now=self.clock.now(), until=until)

        self._start(self._until_done(leave))

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have the store take note of something about places, for as long as it takes, and let those who wait look."""
        while True:
            try:
                await work()
            except StoreError as error:
                _log.info("%s: places are settled later: %s", self.name, error)
            else:
                break
            if self._closing.is_set():
                break  # its time will be over, or whoever waits for it sees that its job has ended
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._closing.wait()
        self._freed.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        chore = asyncio.create_task(work, name="audioext place")
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)
