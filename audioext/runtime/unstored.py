"""Entries that could not be stored, retried until the store takes them, since a task may be paid for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field

from audioext.clock import Clock
from audioext.models.entries import Entry
from audioext.outage import Outage
from audioext.runtime.held import HeldJob

_log = logging.getLogger("audioext.journal")

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0


@define(kw_only=True, eq=False, repr=False)
class Unstored:
    """The entries that wait for the store, by job. Until they are stored, `HeldJob.posts` counts them."""

    append: Callable[[HeldJob, Sequence[Entry]], Awaitable[None]]
    clock: Clock
    waiting: dict[str, tuple[HeldJob, Sequence[Entry]]] = field(factory=dict, init=False)
    """The jobs with such entries, by ref."""
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _again: asyncio.Event = field(factory=asyncio.Event, init=False)
    _pause: float = field(default=FIRST_PAUSE_SECONDS, init=False)
    _is_closing: bool = field(default=False, init=False)

    def add(self, held: HeldJob, entries: Sequence[Entry]) -> None:
        """Append *entries* as soon as the store is back."""
        if held.ref not in self.waiting:
            held.posts += 1
        self.waiting[held.ref] = (held, (*self.entries(held.ref), *entries))
        self._pause = FIRST_PAUSE_SECONDS  # new entries must not wait for the long pause of old failures
        self._again.set()
        caller = asyncio.current_task()
        if caller is None or not caller.cancelling():  # cancelled: the client is closing, and `aclose` starts it
            self._start()

    def _start(self) -> None:
        if self.waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._persist(), name="audioext persist")

    def entries(self, ref: str) -> Sequence[Entry]:
        """Return the job's entries that are not stored yet; any other append to the job has to include them."""
        _, entries = self.waiting.get(ref, (None, ()))
        return entries

    async def flush(self, key: str | None = None) -> None:
        """Try to store all entries now, or only those of jobs that have this *key*. One failure stops no other.

        Raises:
            StoreError: some still could not be stored.
        """
        chosen = [
            (ref, waiting) for ref, waiting in self.waiting.items() if key is None or waiting[0].record.key == key
        ]
        tries = [self._try(ref, waiting) for ref, waiting in chosen]
        for outcome in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _try(self, ref: str, waiting: tuple[HeldJob, Sequence[Entry]]) -> None:
        held, _ = waiting
        await self.append(held, ())
        if self.waiting.get(ref) is waiting:  # nothing was added meanwhile
            del self.waiting[ref]
            held.posts -= 1
            held.wake()

    def wake(self) -> None:
        """Try again now, without waiting for the pause to end."""
        self._again.set()

    async def aclose(self) -> None:
        """Try once more, then give up."""
        self._is_closing = True
        self.wake()
        self._start()
        if self._task is not None:
            try:
                await asyncio.wait([self._task])
            finally:  # also if this wait is cancelled because the store hangs
                self._task.cancel()

    async def _persist(self) -> None:
        outage = Outage(_log, "the outcome of a POST is not stored yet")
        while self.waiting:
            is_last = self._is_closing
            self._again.clear()
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - after a bug of a store as well
                outage.note(error)
                if is_last:
                    return
                if self._is_closing:  # closing began during this try: make one more
                    continue
                pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
                await self.clock.wait_for(self._again, pause)
        outage.over()
