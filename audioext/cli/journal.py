"""What the commands read of the journals of jobs, and how a delivery is fed in again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from attrs import define, evolve, frozen
from yarl import URL

from audioext.client import Client
from audioext.http.messages import Webhook
from audioext.http.urls import callback_url
from audioext.models.record import Record, Verdict
from audioext.stores import Store
from audioext.stores.base import Conflict, Delivery, Done, OutboxEntry

REPLAY_BASE = URL("http://replay.invalid")


@frozen(kw_only=True)
class Seen:
    """One thing that was seen of a job."""

    kind: str
    at: float
    status: int = 0
    body: bytes = b""
    note: str = ""


class Watcher(Protocol):
    """Is told what a listener stores."""

    def delivery(self, delivery: Delivery) -> None:
        """A delivery was kept."""

    def news(self, record: Record, topic: str) -> None:
        """A stage was reached, or the job failed."""


async def timeline(client: Client, ref: str) -> tuple[tuple[Seen, Record | None], ...]:
    """Return what was seen of a job in order, and the record as it was after each."""
    record = (await client.job(ref)).record
    seen = [Seen(kind="request", at=record.created_at)]
    seen += [Seen(kind="status", at=item.at, status=200) for item in record.reached if item.source == "poll"]
    if record.answered_id is not None and record.submitted is not None:
        seen.append(Seen(kind="answer", at=record.submitted.at, status=200))
    if record.expired_at is not None:
        seen.append(Seen(kind="expired", at=record.expired_at))
    async for one in client.deliveries(ref):
        note = "" if one.verdict == "applied" else f"{one.verdict} {one.note}"
        seen.append(Seen(kind="webhook", at=one.received_at, body=one.body, note=note))
    seen.sort(key=lambda one: one.at)
    return tuple((one, _as_of(record, one.at, is_last=one is seen[-1])) for one in seen)


def _as_of(record: Record, at: float, *, is_last: bool) -> Record:
    if is_last:
        return record
    reached = tuple(item for item in record.reached if item.at <= at)
    stage = max((item.stage for item in reached), default=None)
    return evolve(record, reached=reached, stage=stage, verdict=Verdict.OPEN)


async def find_delivery(client: Client, delivery_id: str) -> Delivery | None:
    """Return the delivery of *delivery_id*."""
    return await client.store.delivery(delivery_id)


def delivery_url(client: Client, base: URL, delivery: Delivery) -> URL:
    """Return the callback URL of *delivery* below *base*; whoever has the store has the secret that makes its tag."""
    return callback_url(base, client.inbox.secrets[0], delivery.provider, delivery.ref)


async def replay(client: Client, delivery: Delivery) -> int:
    """Give *delivery* to the client's own inbox again, at its own time, and return the status."""
    url = delivery_url(client, REPLAY_BASE, delivery)
    hook = Webhook(path=url.raw_path, headers=delivery.headers, body=delivery.body, received_at=delivery.received_at)
    return await client.inbox.accept(hook)


def watched(store: Store, watcher: Watcher) -> Store:
    """Return *store* as one that tells *watcher* of what is durably stored through it.

    Handlers would hear of stages as well, but they would do the work of those that other processes have.
    """
    return cast("Store", _WatchedStore(store, watcher))


@define(eq=False)
class _WatchedStore:
    _store: Store
    _watcher: Watcher

    async def commit(  # noqa: PLR0913 - the store protocol's own
        self,
        record: Record,
        expected_version: int,
        *,
        is_open: bool,
        due_at: float | None,
        outbox: Sequence[OutboxEntry] = (),
        delivery: Delivery | None = None,
    ) -> Done | Conflict:
        outcome = await self._store.commit(
            record, expected_version, is_open=is_open, due_at=due_at, outbox=outbox, delivery=delivery
        )
        if isinstance(outcome, Done):
            if delivery is not None:
                self._watcher.delivery(delivery)
            for entry in outbox:
                self._watcher.news(record, entry.topic)
        return outcome

    async def journal(self, delivery: Delivery) -> None:
        await self._store.journal(delivery)
        self._watcher.delivery(delivery)

    def __getattr__(self, name: str) -> Callable[..., object]:
        found: Callable[..., object] = getattr(self._store, name)
        return found
