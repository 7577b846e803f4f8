"""What became of a POST, noted down for as long as it takes: a task may have been paid for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

import attrs
from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
from audioext.models.events import Refused, SubmitOutcome, Submitted, Unknown
from audioext.models.record import Record
from audioext.runtime.journal import Dispatcher
from audioext.runtime.waiters import Registry
from audioext.state import stages
from audioext.stores.base import Store, Versioned

_log = logging.getLogger("audioext.submit")

FIRST_PAUSE_SECONDS = 0.25  # doubled with each attempt to store an outcome
LONGEST_PAUSE_SECONDS = 30.0


@define(kw_only=True, eq=False, repr=False)
class Outcomes:
    """Stores what an answer said, or the lack of one, whether the store is there at the moment or later."""

    store: Store
    dispatcher: Dispatcher
    registry: Registry
    clock: Clock
    _refused: dict[str, Versioned] = field(factory=dict, init=False)
    _chores: set[asyncio.Task[None]] = field(factory=set, init=False)
    _again: asyncio.Event = field(factory=asyncio.Event, init=False)
    _is_closing: bool = field(default=False, init=False)

    async def conclude(self, stored: Versioned, outcome: SubmitOutcome) -> tuple[Versioned, SubmitOutcome]:
        """Note down what the answer says; a refusal of a task that has called back meanwhile is no refusal."""
        ref = stored.record.ref
        if isinstance(outcome, Submitted):
            return await self._remember(stored, outcome), outcome
        if isinstance(outcome, Refused):
            if await self._discard(stored):
                return stored, outcome
            outcome = Unknown(reason=f"it was refused, and yet it called back: {outcome.error}")
        _log.warning("job %s: the outcome of its POST is unknown, nothing is resent: %s", ref, outcome.reason)
        self.registry.doubt(ref)
        with suppress(StoreError):  # a task may have been paid for: nothing here may sound as if it was not
            return await self.store.get(ref) or await self._restore(stored.record), outcome
        return stored, outcome

    async def discard_refused(self, key: str | None) -> None:
        """Free *key* of refused records that the store did not let go of in time.

        Raises:
            StoreError: it still does not.
        """
        for ref, stored in tuple(self._refused.items()):
            if stored.record.key == key:
                await self.store.discard(ref, stored.version)
                self._refused.pop(ref, None)

    def wake(self) -> None:
        """Try now what is to be tried again: the store is back."""
        self._again.set()  # resumes all who wait now, and nobody who comes later
        self._again.clear()

    async def aclose(self) -> None:
        """Try once more to store what the store did not take."""
        self._is_closing = True
        self.wake()
        if self._chores:
            await asyncio.wait(tuple(self._chores))

    async def _discard(self, stored: Versioned) -> bool:
        """Forget a record whose task was refused, later if the store is down; `False` if it has moved on."""
        ref = stored.record.ref

        async def discard() -> bool:
            gone = await self.store.discard(ref, stored.version)
            if gone or await self.store.get(ref) is None:
                self._refused.pop(ref, None)
                self.registry.forget(ref)
                return True
            return False

        try:
            return await discard()
        except StoreError as error:
            _log.error("job %s: its submit was refused, which is not stored yet: %s", ref, error)
            self._refused[ref] = stored
            self._later(ref, discard)
            return True

    async def _remember(self, stored: Versioned, outcome: Submitted) -> Versioned:
        """Store the task's id, however long it takes: it was paid for, and only its callback could tell it again."""
        ref, at = stored.record.ref, self.clock.now()
        record = stages.advance(stored.record, outcome, seen="answer", at=at)

        async def remember() -> Versioned:
            applied = await self.dispatcher.apply(ref, [outcome], seen="answer", at=at)
            return await self._restore(record) if applied is None else applied.stored

        try:
            return await remember()
        except StoreError as error:
            _log.error("job %s: task %s is not stored yet: %s", ref, outcome.task_id, error)
            self._later(ref, remember)
        return Versioned(record=record, version=stored.version)

    async def _restore(self, record: Record) -> Versioned:
        """Store a record anew whose store lost it while its POST was under way, as an engine that persists nothing."""
        _log.error("job %s: its store has lost it; it is stored anew, with task %s", record.ref, record.task_id)
        due_at = self.dispatcher.due_at(record)
        created = await self.store.create(record, record.key, due_at=due_at)
        if created.stored.record.ref != record.ref:  # another job took its key since; both may have been paid for
            created = await self.store.create(attrs.evolve(record, key=None), due_at=due_at)
        return created.stored

    def _later(self, ref: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do *work* as soon as the store is there again; until then the outcome of *ref* is not unknown."""
        marked = ExitStack()  # from now on, not from the first step of the task on
        marked.enter_context(self.registry.posting(ref))

        async def persist() -> None:
            pause = FIRST_PAUSE_SECONDS
            with marked:
                while True:
                    is_last = self._is_closing
                    try:
                        await work()
                    except StoreError as error:
                        _log.error("job %s: the outcome of its POST is still not stored: %s", ref, error)
                    else:
                        return
                    if is_last:
                        return
                    if self._is_closing:  # since this try began
                        continue
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._again.wait()
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

        chore = asyncio.create_task(persist(), name=f"audioext outcome of {ref}")
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)
