"""The commands that look at a store: `show`, `jobs`, `inbox`, `replay`, `save`, and `credits` beside them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from yarl import URL

from audioext import config as settings
from audioext.cli import text
from audioext.cli.exits import Exit, NoSuchRefError
from audioext.cli.options import ApiOptions, LookOptions, SandboxOptions, read_meta
from audioext.cli.places import existing_store, explained_key, make_provider, open_place
from audioext.cli.progress import open_view
from audioext.cli.screen import Screen
from audioext.cli.servers import delivery_object
from audioext.cli.tasks import Finished, find_job, report, save, way_back
from audioext.client import Client
from audioext.errors import ConfigError, StageTimeoutError, WebhookError
from audioext.http.messages import Webhook
from audioext.http.urls import callback_url, mask
from audioext.models.record import Record, Verdict
from audioext.models.results import Stage
from audioext.providers import ALL
from audioext.state import stages
from audioext.stores.base import Delivery

HTTP_OK = 200
REPLAY_TIMEOUT_SECONDS = 30.0
SHORT_LETTERS = 40


# --- jobs and show -------------------------------------------------------------------------------------


async def list_jobs(
    screen: Screen, store: LookOptions, *, is_open: bool | None, meta: Sequence[str], limit: int
) -> Exit:
    """Print the newest *limit* jobs of the store, oldest first.

    Raises:
        StoreError: the store is not there or cannot be read.
    """
    async with Client(store=existing_store(store)) as client:
        newest: deque[Record] = deque(maxlen=max(0, limit))
        async for job in client.jobs(open=is_open, meta=read_meta(meta)):
            newest.append(job.record)
    now = time.time()
    if screen.json:
        for record in newest:
            screen.emit(_summary(record, now))
        return Exit.OK
    rows = [
        (
            record.ref,
            text.state_of(record, now),
            record.provider,
            record.operation,
            text.clean(text.source_of(record))[:SHORT_LETTERS],
            f"{text.seconds(now - record.created_at)} ago",
        )
        for record in newest
    ]
    if rows:
        screen.table(("ref", "state", "provider", "operation", "source", "made"), rows)
    else:
        screen.note("no such jobs in this store")
    return Exit.OK


async def show_job(screen: Screen, store: LookOptions, ref: str) -> Exit:
    """Print all that is known of a job: state, request, timeline, tracks, deliveries, and what went wrong.

    Raises:
        StoreError: the store is not there or does not hold the job.
    """
    async with Client(store=existing_store(store)) as client:
        record = (await find_job(client, ref)).record
        deliveries = [delivery async for delivery in client.deliveries(ref)][::-1]
    if screen.json:
        screen.emit(_whole(record, deliveries))
        return Exit.OK
    _print_facts(screen, record)
    screen.result("\ntimeline", style="bold")
    for word, at, how in timeline(record):
        since = f"+{text.seconds(at - record.created_at)}"
        screen.result(f"  {word:<10} {since:>11}  {how}".rstrip())
    if record.tracks:
        screen.result("\ntracks", style="bold")
        for track in record.tracks:
            facts = (
                track.title or "",
                text.length(track.duration),
                track.id or "",
                track.audio_url or track.failure or "",
            )
            screen.result("  " + "  ".join(text.clean(fact) for fact in facts if fact))
    if deliveries:
        screen.result("\ndeliveries", style="bold")
        for delivery in deliveries:
            since = f"+{text.seconds(delivery.received_at - record.created_at)}"
            note = text.clean(delivery.note)
            screen.result(
                f"  {delivery.verdict:<10} {since:>11}  {delivery.id}  {text.size(len(delivery.body))}  {note}".rstrip()
            )
    return Exit.OK


def timeline(record: Record) -> list[tuple[str, float, str]]:
    """Return what happened to a job in order: a word, when (Unix seconds), and how it became known."""
    found = [
        (item.stage.name.lower(), item.at, text.BY[item.source])
        for item in record.reached
        if item.stage is not Stage.SUBMITTED
    ]
    if record.submitted is not None:
        # The POST's own answer, unless a webhook was quicker to name the task.
        how = "by webhook" if record.submitted.source == "webhook" else ""
        found.append((Stage.SUBMITTED.name.lower(), record.submitted.at, how))
    failure = stages.failure(record)
    if failure is not None:
        found.append(("failed", failure.at.timestamp(), text.clean(failure.message)))
    if record.verdict is Verdict.EXPIRED and record.expired_at is not None:
        found.append(("expired", record.expired_at, "given up; a late callback still completes it"))
    return sorted(found, key=lambda item: item[1])


def _print_facts(screen: Screen, record: Record) -> None:
    failure = stages.failure(record)
    facts: dict[str, object] = {
        "job": record.ref,
        "state": text.state_of(record, time.time()),
        "provider": record.provider,
        "task": record.task_id or "not known",
        "made": text.moment(record.created_at),
        "operation": record.operation,
        **{name: value for name, value in record.request.given().items() if name != "provider"},
        "key": record.key,
        "meta": text.dump(record.meta) if record.meta else None,
        "credits": record.credits,
        "failure": None if failure is None else f"{failure.reason}, code {failure.code}: {failure.message}",
        "charged": None if failure is None else {True: "yes", False: "no", None: "unknown"}[failure.charged],
        "complaint": None if record.complaint is None else record.complaint.text,
    }
    for name, value in facts.items():
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else text.clean(value)
            screen.result(f"{name:<15} {shown}")
    for fault in record.handler_faults:
        screen.result(f"{'handler':<15} {text.clean(fault)}", style="red")


def _summary(record: Record, now: float) -> dict[str, object]:
    return {
        "ref": record.ref,
        "state": text.state_of(record, now),
        "provider": record.provider,
        "operation": str(record.operation),
        "task_id": record.task_id,
        "source": text.source_of(record),
        "created_at": text.iso(record.created_at),
        "key": record.key,
        "meta": dict(record.meta),
    }


def _whole(record: Record, deliveries: Sequence[Delivery]) -> dict[str, object]:
    failure = stages.failure(record)
    facts = ("reason", "code", "message", "charged", "at")
    return {
        **_summary(record, time.time()),
        "model": record.model,
        "credits": record.credits,
        "request": record.request.given(),
        "timeline": [
            {"event": word, "seconds": round(at - record.created_at, 3), "at": text.iso(at), "how": how}
            for word, at, how in timeline(record)
        ],
        "tracks": [text.track_object(track) for track in record.tracks],
        "failure": None if failure is None else {name: getattr(failure, name) for name in facts},
        "complaint": None if record.complaint is None else record.complaint.text,
        "handler_faults": list(record.handler_faults),
        "deliveries": [delivery_object(delivery) for delivery in deliveries],
    }


# --- the journal of deliveries -------------------------------------------------------------------------


async def list_deliveries(screen: Screen, store: LookOptions, ref: str | None, *, limit: int) -> Exit:
    """Print the newest *limit* deliveries, newest first, of one job where *ref* is given.

    Raises:
        StoreError: the store is not there or cannot be read.
    """
    found: list[Delivery] = []
    async with Client(store=existing_store(store)) as client:
        async for delivery in client.deliveries(ref):
            if len(found) >= limit:
                break
            found.append(delivery)
    if screen.json:
        for delivery in found:
            # A body may quote the callback URL, whose last segment is a secret.
            body = mask(delivery.body.decode("utf-8", "replace"))
            screen.emit({**delivery_object(delivery), "body": body})
        return Exit.OK
    rows = [
        (one.id, text.moment(one.received_at), one.ref, one.provider, one.verdict, text.size(len(one.body)), one.note)
        for one in found
    ]
    if rows:
        screen.table(("delivery", "received", "ref", "provider", "verdict", "size", "note"), rows)
    else:
        screen.note("no such deliveries in this store")
    return Exit.OK


async def replay(
    screen: Screen, store: LookOptions, delivery_id: str, *, to: str | None, webhook_key: tuple[str, ...]
) -> Exit:
    """Give a stored delivery to this store's inbox again, at its own time, or POST it to the receiver at *to*.

    Raises:
        NoSuchRefError: the store holds no such delivery.
        WebhookError: it was refused.
        ConfigError: *to* is no URL, or nobody answers there.
    """
    target = settings.read_public_url(to)
    providers = [make_provider(make().name, webhook_key=webhook_key) for make in ALL]
    async with Client(*providers, store=existing_store(store)) as client:
        delivery = await client.store.delivery(delivery_id)
        if delivery is None:
            message = f"this store holds no delivery {delivery_id!r}; audioext inbox lists what it holds"
            raise NoSuchRefError(message)
        # The stored path has its tag masked; whoever has the store has the secret that makes it again.
        base = target if target is not None else URL("http://replay.invalid")
        url = callback_url(base, client.inbox.secrets[0], delivery.provider, delivery.ref)
        if target is None:
            hook = Webhook(
                path=url.raw_path, headers=delivery.headers, body=delivery.body, received_at=delivery.received_at
            )
            status = await client.inbox.accept(hook)
        else:
            status = await _post(url, delivery)
    if status != HTTP_OK:
        message = f"delivery {delivery_id} was answered with {status}"
        raise WebhookError(message, http_status=status)
    if screen.json:
        screen.emit({"delivery": delivery_id, "ref": delivery.ref, "status": status})
    else:
        screen.result(f"delivery {delivery_id} of job {delivery.ref} was answered with {status}")
    return Exit.OK


async def _post(url: URL, delivery: Delivery) -> int:
    timeout = aiohttp.ClientTimeout(total=REPLAY_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=delivery.body, headers=delivery.headers, allow_redirects=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        message = f"nobody answers at {url.origin()}: {type(error).__name__}"
        raise ConfigError(message) from None  # the cause may quote the URL, which holds a secret


# --- save and credits ----------------------------------------------------------------------------------


async def save_job(screen: Screen, store: LookOptions, ref: str, *, out: Path) -> Exit:
    """Save the tracks of a job that is complete.

    Raises:
        StageTimeoutError: it is not complete yet.
        JobFailedError: it failed.
        DownloadError: a file could not be fetched.
        StoreError: the store is not there or does not hold the job.
    """
    screen.way_back = way_back(store, sandbox=store.sandbox)
    async with Client(store=existing_store(store)) as client:
        job = await find_job(client, ref)
        screen.ref = ref
        if job.verdict is Verdict.OPEN:
            message = f"job {ref} is not complete: it is at {text.state_of(job.record, time.time())}"
            raise StageTimeoutError(message, job=job)
        song = await job
        with open_view(screen) as view:
            paths = await save(song, out, view)
        report(screen, Finished(job=job, song=song, events=[event async for event in job], paths=paths))
    return Exit.OK


async def credits_left(screen: Screen, provider: str, api: ApiOptions, sandbox: SandboxOptions) -> Exit:
    """Print the balance at *provider*, in its own credits.

    Raises:
        UnsupportedError: the provider tells no balance.
        ProviderError: the call was refused.
    """
    async with open_place(provider, api=api, sandbox=sandbox, store="memory://", wait_timeout=1.0) as place:
        with explained_key(place):
            balance = await place.client.credits()
    if screen.json:
        screen.emit({"provider": provider, "credits": balance})
    else:
        screen.result(f"{balance:g}")
    return Exit.OK
