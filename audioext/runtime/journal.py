"""The single writer: events of one job become a new record, durable first, told afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs
from attrs import define, field, frozen

from audioext.clock import Clock
from audioext.errors import WebhookError
from audioext.models.events import Event, Progress
from audioext.models.record import Record, Seen
from audioext.providers.base import Pace, Provider
from audioext.runtime.waiters import Registry
from audioext.state import stages
from audioext.state.schedule import due_at
from audioext.stores.base import Conflict, Delivery, OutboxEntry, Store, VerdictWord, Versioned

_log = logging.getLogger("audioext.runtime.journal")

Change = Callable[[Record], Record]


@frozen(kw_only=True)
class Applied:
    """What `apply` did: the record as it is now, and the verdict on the delivery."""

    stored: Versioned
    verdict: VerdictWord


@define(kw_only=True, eq=False, repr=False)
class Dispatcher:
    """The only place where providers' events, the store and the waiting futures meet."""

    store: Store
    registry: Registry
    providers: Mapping[str, Provider]
    clock: Clock
    expire_after: float
    on_due: Callable[[float], None] = field(default=lambda _: None)
    on_outbox: Callable[[], None] = field(default=lambda: None)
    on_final: Callable[[str], None] = field(default=lambda _: None)

    async def apply(  # noqa: PLR0913 - each is a fact of its own
        self,
        ref: str,
        events: Sequence[Event],
        *,
        seen: Seen,
        at: float,
        delivery: Delivery | None = None,
        ask_now: bool = False,
    ) -> Applied | None:
        """Join *events*, *seen* at *at* (Unix seconds), into the record of *ref*; `None` if there is none.

        *delivery* is journaled in the same step. *ask_now* makes a status call due.

        Raises:
            WebhookError: the events name another task than the record's.
            StoreError: nothing was applied.
        """

        def change(record: Record) -> Record:
            for event in _of_this_task(record, events, seen=seen):
                record = stages.advance(record, event, seen=seen, at=at)
            return record

        wanted = ask_now or any(isinstance(event, Progress) and event.ask_now for event in events)
        return await self.update(
            ref,
            change,
            delivery=delivery,
            ask_now=wanted and seen == "webhook",
            asked=seen == "poll",
            adopting={event.task_id for event in events if event.task_id is not None} if seen == "webhook" else (),
            # Whoever submitted may know the answer before the store does: what is seen here proves nothing then.
            fresh=seen == "answer",
        )

    async def _check_owner(self, record: Record, task_ids: Iterable[str]) -> None:
        """Refuse a delivery that names a task of another job, before this job takes its id for its own.

        Raises:
            WebhookError: it does.
            StoreError: nobody can tell.
        """
        for task_id in task_ids:
            owner = await self.store.find(record.provider, task_id)
            if owner is not None and owner.record.ref != record.ref:
                message = f"the delivery names a task of another job than {record.ref}"
                raise WebhookError(message, http_status=401)

    async def update(  # noqa: PLR0913 - each is a fact of its own
        self,
        ref: str,
        change: Change,
        *,
        delivery: Delivery | None = None,
        ask_now: bool = False,
        asked: bool = False,
        adopting: Collection[str] = (),
        fresh: bool = False,
    ) -> Applied | None:
        """Commit what *change* makes of the record of *ref*, again on a conflict, then wake the waiters.

        *adopting* are task ids that a record without one takes for its own. *fresh* asks the store for the record
        whatever this process has seen of it.

        Raises:
            WebhookError: one of them is another job's.
            StoreError: nothing was applied.
        """
        stored = (None if fresh else self.registry.cached(ref)) or await self.store.get(ref)
        while stored is not None:
            before = stored.record
            if adopting and before.task_id is None:
                await self._check_owner(before, adopting)
            after = change(before)
            if after == before and not ask_now and not asked:
                verdict: VerdictWord = "repeat"
                if delivery is not None:
                    # The cached record may be behind; a repeat of a final state is a repeat all the same.
                    await self.store.journal(_judged(delivery, verdict))
                return Applied(stored=stored, verdict=verdict)
            verdict = "repeat" if after == before else ("late" if before.is_final else "applied")
            outcome = await self._commit(stored, after, verdict, delivery, ask_now=ask_now, asked=asked)
            if not isinstance(outcome, Conflict):
                self._tell(before, outcome)
                return Applied(stored=outcome, verdict=verdict)
            if outcome.current is not None and outcome.current.version < stored.version:
                self.registry.distrust(ref)  # the engine forgot what this process saw
            stored = outcome.current
        return None

    async def _commit(  # noqa: PLR0913 - as above
        self,
        stored: Versioned,
        after: Record,
        verdict: VerdictWord,
        delivery: Delivery | None,
        *,
        ask_now: bool,
        asked: bool,
    ) -> Versioned | Conflict:
        outbox = tuple(
            OutboxEntry(topic=topic, sequence=sequence) for topic, sequence in stages.told(stored.record, after)
        )
        # A claim of COMPLETE that shows nothing playable is checked at once, when it is news.
        doubtful = stages.wants_status(after) and not stages.wants_status(stored.record)
        due_at = self.due_at(after, ask_now=ask_now or (doubtful and not asked), asked=asked)
        outcome = await self.store.commit(
            after,
            stored.version,
            is_open=not after.is_final,
            due_at=due_at,
            outbox=outbox,
            delivery=None if delivery is None else _judged(delivery, verdict),
        )
        if isinstance(outcome, Conflict):
            return outcome
        if due_at is not None:
            self.on_due(due_at)
        if outbox:
            self.on_outbox()
        return Versioned(record=after, version=outcome.version)

    def due_at(self, record: Record, *, ask_now: bool = False, asked: bool = False) -> float | None:
        """Return when *record*'s next status call is due (Unix seconds), `None` if never."""
        provider = self.providers.get(record.provider)
        return due_at(
            record,
            pace=provider.pace if provider is not None else Pace(),
            now=self.clock.now(),
            jitter=self.clock.jitter(),
            deadline=record.created_at + self.expire_after,
            ask_now=ask_now,
            asked=asked,
        )

    def _tell(self, before: Record, stored: Versioned) -> None:
        self.registry.publish(stored)
        if stored.record.is_final and not before.is_final:
            self.on_final(stored.record.ref)


def _judged(delivery: Delivery, verdict: VerdictWord) -> Delivery:
    return delivery if delivery.verdict == verdict else attrs.evolve(delivery, verdict=verdict)


def _of_this_task(record: Record, events: Sequence[Event], *, seen: Seen) -> Sequence[Event]:
    """Return the events that may join *record*: those of its own task, or of none by name.

    Raises:
        WebhookError: a delivery names another task.
    """
    if seen == "answer":
        for event in events:
            if record.called_id not in {None, event.task_id}:
                _log.warning(
                    "job %s: the answer names task %s, a webhook named %s; the answer counts",
                    record.ref,
                    event.task_id,
                    record.called_id,
                )
        return events
    others = {event.task_id for event in events} - {None, record.task_id}
    if record.task_id is None or not others:
        return events
    if seen == "webhook":
        message = f"the delivery names another task than job {record.ref}'s"
        raise WebhookError(message, http_status=401)
    _log.warning("job %s: a status answer names task %s; it was not joined", record.ref, sorted(map(str, others)))
    return ()
