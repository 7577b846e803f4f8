"""What was seen of the jobs of a store: the deliveries, which can be taken again, and each job's timeline."""

from __future__ import annotations

from collections.abc import AsyncIterator

from audioext.errors import Problem, RequestError, shown
from audioext.http.messages import Webhook
from audioext.http.urls import Route
from audioext.models.entries import Entry
from audioext.models.record import Record
from audioext.parts import Parts
from audioext.state.fold import fold
from audioext.stores.base import Delivery


class History:
    """The part of a client that looks back."""

    _parts: Parts

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal of deliveries, newest first, of one job where *ref* is given."""
        self._parts.check_open()
        async for delivery in self._parts.settings.store.deliveries(ref):
            yield delivery

    async def delivery(self, id: str) -> Delivery:  # noqa: A002 - it is a delivery's `id`
        """Return one delivery by its `id`.

        Raises:
            RequestError: the store holds no such delivery.
        """
        self._parts.check_open()
        async for delivery in self._parts.settings.store.deliveries(id.partition("-")[0]):
            if delivery.id == id:
                return delivery
        raise RequestError([Problem("delivery", f"this store holds no delivery {shown(id)}")])

    async def replay(self, id: str) -> int:  # noqa: A002 - as above
        """Take a delivery that was kept once more, and return the status that it would be answered with now.

        Raises:
            RequestError: the store holds no such delivery.
        """
        delivery = await self.delivery(id)
        route, hook = Route(delivery.provider, delivery.ref, ""), Webhook(headers=delivery.headers, body=delivery.body)
        return await self._parts.inbox.take(route, hook.at(delivery.received_at), verify=delivery.verdict == "refused")

    async def timeline(self, ref: str) -> tuple[tuple[Entry, Record | None], ...]:
        """Return each entry of a job's journal, oldest first, with the record that the journal meant up to it.

        Raises:
            RequestError: the store holds no such job.
        """
        self._parts.check_open()
        readings = (await self._parts.find(ref)).in_order()
        return tuple((reading.entry, fold(ref, readings[:n])) for n, reading in enumerate(readings, 1))
