"""The live page of a client: its jobs, with all details of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from aiohttp import web
from attrs import define, field

from audioext.client import Client
from audioext.errors import StoreError
from audioext.http.urls import mask
from audioext.models.record import Record
from audioext.runtime.jobs import Job
from audioext.stores.base import Changed
from audioext.ui.objects import delivery_object, first, iso, job_object, whole_object
from audioext.ui.page import MAX_LISTED, Page, Route, json_response

SHOWN_BYTES = 65_536
"""The most bytes of a delivery's body that the page shows."""


@define(eq=False)
class _Jobs:
    client: Client
    _listed: Sequence[Job] = field(default=(), init=False)
    """The jobs of the last list, kept alive so that the next list reads only new entries of theirs."""

    async def changes(self) -> AsyncGenerator[str]:
        async for change in self.client.store.changes():
            yield change.ref if isinstance(change, Changed) else ""

    async def row(self, ref: str) -> object:
        return row_object((await self.client.job(ref)).record)

    async def list(self, request: web.Request) -> web.StreamResponse:
        is_open = {"open": True, "ended": False}.get(request.query.get("state", ""))
        self._listed = await first(MAX_LISTED, self.client.jobs(open=is_open, newest_first=True))
        return json_response([row_object(job.record) for job in self._listed])

    async def job(self, request: web.Request) -> web.StreamResponse:
        ref = request.match_info["ref"]
        journal = await self.client.timeline(ref)
        record = (await self.client.job(ref)).record
        deliveries = [delivery async for delivery in self.client.deliveries(ref)]
        stored = await self.client.store.read(ref)
        index = stored.index if stored is not None else None
        due = {} if index is None else {"a status call": index.poll_at, "handlers": index.handle_at}
        whole = whole_object(record, journal, deliveries)
        return json_response(
            {**whole, **row_object(record), "due": {what: iso(at) for what, at in due.items() if at is not None}}
        )

    async def delivery(self, request: web.Request) -> web.StreamResponse:
        delivery = await self.client.delivery(request.match_info["id"])
        # A body may quote the callback URL, whose last segment is a secret.
        body = mask(delivery.body[:SHOWN_BYTES].decode("utf-8", "replace"))
        return json_response({**delivery_object(delivery), "body": body})

    async def health(self, _: web.Request) -> web.StreamResponse:
        try:
            return json_response({"problem": None, "warnings": await self.client.store.warnings()})
        except StoreError as error:
            return json_response({"problem": str(error), "warnings": []})

    async def refresh(self, request: web.Request) -> web.StreamResponse:
        job = await self.client.job(request.match_info["ref"])
        await job.refresh()
        return json_response(row_object(job.record))

    async def replay(self, request: web.Request) -> web.StreamResponse:
        return json_response({"status": await self.client.replay(request.match_info["id"])})


def jobs_page(client: Client, *, is_local: bool = True) -> Page:
    """Return the live page of *client*."""
    jobs = _Jobs(client)
    routes: Sequence[Route] = (
        ("GET", "/jobs", jobs.list),
        ("GET", "/jobs/{ref}", jobs.job),
        ("POST", "/jobs/{ref}/refresh", jobs.refresh),
        ("GET", "/deliveries/{id}", jobs.delivery),
        ("POST", "/deliveries/{id}/replay", jobs.replay),
        ("GET", "/health", jobs.health),
    )
    return Page(kind="jobs", routes=routes, changes=jobs.changes, row=jobs.row, is_local=is_local)


def row_object(record: Record) -> dict[str, object]:
    """Return a job's row in the list."""
    titles = (title for title in (*(track.title for track in record.tracks), record.request.title) if title)
    return {
        **job_object(record),
        "title": next(titles, None),
        "stages": {str(item.stage): round(item.at - record.created_at, 1) for item in record.reached},
        "playable": sum(track.audio_url is not None for track in record.tracks),
    }
