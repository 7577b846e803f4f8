"""Entries that could not be stored, retried until the store takes them, since a task may be paid for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
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

    def add(self, held: HeldJob, entries: Sequence[Entry]) -> None:
        """Append *entries* as soon as the store is back."""
        if held.ref not in self.waiting:
            held.posts += 1
        self.waiting[held.ref] = (held, (*self.entries(held.ref), *entries))
        self.wake()  # new entries must not wait for the long pause of old failures
        caller = asyncio.current_task()
        if self._task is None and (caller is None or not caller.cancelling()):  # cancelled: `aclose` comes soon
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
        chosen = [each for each in self.waiting.values() if key is None or each[0].record.key == key]
        for outcome in await asyncio.gather(*map(self._try, chosen), return_exceptions=True):
            if isinstance(outcome, asyncio.CancelledError):  # by the store itself: it must end neither loop nor close
                message = "the store cancelled the call"
                raise StoreError(message) from outcome
            if isinstance(outcome, BaseException):
                raise outcome

    async def _try(self, waiting: tuple[HeldJob, Sequence[Entry]]) -> None:
        held, _ = waiting
        await self.append(held, ())
        if self.waiting.get(held.ref) is waiting:  # nothing was added meanwhile
            del self.waiting[held.ref]
            held.posts -= 1
            held.wake()

    def wake(self) -> None:
        """Try again now, without waiting for the pause to end."""
        self._again.set()

    async def aclose(self) -> None:
        """Try once more, then give up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            await self.flush()
        except Exception as error:  # noqa: BLE001 - after a bug of a store as well
            _log.error("the outcome of a POST could not be stored: %s", error)

    async def _persist(self) -> None:
        outage, pause = Outage(_log, "the outcome of a POST is not stored yet"), FIRST_PAUSE_SECONDS
        while self.waiting:
            self._again.clear()
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - as above
                outage.note(error)
                await self.clock.wait_for(self._again, pause)
                pause = FIRST_PAUSE_SECONDS if self._again.is_set() else min(2 * pause, LONGEST_PAUSE_SECONDS)
        outage.over()
        self._task = None
