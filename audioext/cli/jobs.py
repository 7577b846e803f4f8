"""Commands on a store: `jobs` and `inbox` list it, `show` prints a job, `replay` feeds in a delivery again."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus

import aiohttp
import msgspec
from rich.filesize import decimal
from yarl import URL

from audioext import config
from audioext.cli.clients import find_job, looking_client, read_meta, the_one
from audioext.cli.commands import InboxCommand, JobsCommand, ReplayCommand, ShowCommand
from audioext.cli.execution import NoSuchRefError
from audioext.cli.screen import Screen, clean, dump, length, moment, span
from audioext.client import Client
from audioext.errors import ConfigError, Problem, RequestError, WebhookError, cut, shown
from audioext.http.urls import callback_url, mask
from audioext.models.entries import Entry
from audioext.models.record import Record
from audioext.runtime.jobs import Job
from audioext.state.reading import Handled
from audioext.stores.base import Delivery
from audioext.ui.objects import Journal, delivery_object, first, job_object, problem_of, state_of, whole_object

SHORT_LETTERS = 40
_AGO = re.compile(r"(?P<count>\d{1,6}(?:\.\d+)?)(?P<unit>[smhdw])", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
CHARGED = {True: "yes", False: "no", None: "unknown"}


async def list_jobs(command: JobsCommand, screen: Screen) -> None:
    """Print the newest jobs of the store, oldest first."""
    since = 0.0 if command.since is None else read_since(command.since, time.time())
    async with looking_client(command) as client:
        jobs = (await first(command.limit, _wanted(command, client, since)))[::-1]
    headers = ("ref", "state", "provider", "operation", "source", "made", "credits", "problem")
    screen.list("jobs", headers, [_listed(command, job.record) for job in jobs])
    if not screen.json:
        _sum_up(screen, [job.record for job in jobs])


async def _wanted(command: JobsCommand, client: Client, since: float) -> AsyncIterator[Job]:
    async for job in client.jobs(open=command.open_only or None, meta=read_meta(command.meta), newest_first=True):
        if job.record.created_at >= since and (job.record.handler_faults or not command.undelivered):
            yield job


def _listed(command: JobsCommand, record: Record) -> tuple[Sequence[object], Mapping[str, object]]:
    """Return a job as a row and as an object."""
    facts, problem = job_object(record), problem_of(record) or ""
    if command.undelivered:
        facts, problem = facts | {"handler_faults": record.handler_faults}, " ".join(record.handler_faults)
    estimate = "" if record.credit_estimate is None else f"~{record.credit_estimate:g}"
    row = (
        *(facts[name] for name in ("ref", "state", "provider", "operation")),
        cut(clean(facts["source"]), SHORT_LETTERS),
        f"{span(time.time() - record.created_at)} ago",
        estimate if record.credits is None else f"{record.credits:g}",
        _beginning(clean(problem)),
    )
    return row, facts


async def show(command: ShowCommand, screen: Screen) -> None:
    """Print a job: state, request, journal, tracks, and what went wrong."""
    if command.body is not None and (command.json or command.at is not None):
        raise ConfigError(f"--body prints one entry as it came: leave out {'--json' if command.json else '--at'}")
    async with looking_client(command) as client:
        job = await find_job(client, screen, command.ref)
        entries = await client.timeline(job.ref)
        deliveries = [delivery async for delivery in client.deliveries(job.ref)][::-1]
    if command.body is not None:
        sys.stdout.buffer.write(_entry("body", command.body, entries)[0].body)
        sys.stdout.buffer.flush()
        return
    record = job.record
    if command.at is not None:
        record, entries = _entry("at", command.at, entries)[1] or record, entries[: command.at]
    if screen.json:
        screen.emit(whole_object(record, entries, deliveries))
    else:
        _print(screen, record, entries)


async def list_deliveries(command: InboxCommand, screen: Screen) -> None:
    """Print the newest deliveries, newest first."""
    async with looking_client(command) as client:
        ref = command.ref
        missing = None
        if ref is not None:
            try:
                ref = (await find_job(client, screen, ref)).ref
            except NoSuchRefError as error:  # the store may have deliveries without their job
                missing = error
        found = await first(command.limit, client.deliveries(ref))
        if missing is not None and not found:
            raise missing
    headers = ("delivery", "received", "ref", "provider", "verdict", "size", "note")
    screen.list("deliveries", headers, [_delivery(one) for one in found])


async def replay(command: ReplayCommand, screen: Screen) -> None:
    """Feed the delivery to this store's inbox again, or POST it to another receiver."""
    target = config.read_public_url(command.to, "--to")
    async with looking_client(command) as client:
        found = await _find(command, client, screen)
        if target is None:
            status = await client.replay(found.id)
        else:
            # The store has the secret, so the tag can be made again.
            status = await _post(callback_url(target, client.inbox.secrets[0], found.provider, found.ref), found)
    if status != HTTPStatus.OK:
        raise WebhookError(f"delivery {found.id} was answered with {status}", http_status=status)
    words = f"delivery {found.id} of job {found.ref} was answered with {status}"
    screen.result(words, json={"delivery": found.id, "ref": found.ref, "status": status})


async def _find(command: ReplayCommand, client: Client, screen: Screen) -> Delivery:
    with suppress(RequestError):
        return await client.delivery(command.delivery)
    found = {one.id: one async for one in client.deliveries() if one.id.startswith(command.delivery.lower())}
    return the_one(found, command.delivery, "delivery", screen.hint("inbox"))


def read_since(words: str, now: float) -> float:
    """Return *words* as Unix seconds: a date or time, local without a zone, or a span before *now*, such as 7d.

    Raises:
        RequestError: it is neither.
    """
    ago = _AGO.fullmatch(words)
    if ago is not None:
        return now - float(ago["count"]) * _UNITS[ago["unit"]]
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(words).astimezone().timestamp()
    raise RequestError([Problem("since", f"must be like 2026-11-26, 12h or 7d, not {shown(words)}")], is_submit=False)


def _sum_up(screen: Screen, records: Iterable[Record]) -> None:
    """Print the total cost of the jobs at each provider; known and estimated credits are added separately."""
    sums: dict[str, list[float]] = {}
    for record in records:
        both = sums.setdefault(record.provider, [0.0, 0.0])
        both[record.credits is None] += record.credits or record.credit_estimate or 0.0
    for provider, (told, estimated) in sums.items():
        if told or estimated:
            parts = [*([f"{told:g} reported"] if told else []), *([f"~{estimated:g} estimated"] if estimated else [])]
            screen.note(f"credits at {provider}: {', '.join(parts)}")


def _delivery(one: Delivery) -> tuple[Sequence[object], Mapping[str, object]]:
    size = decimal(len(one.body))
    row = one.id, moment(one.received_at), one.ref, one.provider, one.verdict, size, one.note
    # A body may quote the callback URL, whose last segment is a secret.
    return row, {**delivery_object(one), "body": mask(one.body.decode("utf-8", "replace"))}


async def _post(url: URL, delivery: Delivery) -> int:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30.0)) as session,
            session.post(url, data=delivery.body, headers=delivery.headers, allow_redirects=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        message = f"no server answers at {url.origin()}: {type(error).__name__}"
        raise ConfigError(message) from None  # the cause may quote the URL, which has the tag


def _entry(name: str, number: int, entries: Journal) -> tuple[Entry, Record | None]:
    if not 0 < number <= len(entries):
        problem = Problem(name, f"the journal has the entries 1 to {len(entries)}, not {number}")
        raise RequestError([problem], is_submit=False)
    return entries[number - 1]


def _outcome(entry: Entry) -> str:
    """Return which handler of which stage a `handled` entry is about, and how its call ended."""
    if entry.kind == "handled":
        with suppress(ValueError):  # the body is damaged
            handled = msgspec.json.decode(entry.body, type=Handled)
            end = handled.error if handled.failure else f"again in {span(handled.wait)}" if handled.waits else "done"
            return f"{handled.handler or 'all handlers'} of {handled.topic}: {end}"
    return ""


def _print(screen: Screen, record: Record, entries: Journal) -> None:
    """Print a job's facts, then each entry with the state after it and its note or new problem, then the tracks."""
    fault = record.fault
    facts: dict[str, object] = {
        "job": record.ref,
        "state": state_of(record),
        "provider": record.provider,
        "api": record.asked.base_url,
        "task": record.task_id or "not known",
        "made": moment(record.created_at),
        "operation": record.operation,
        **{name: value for name, value in record.request.given().items() if name != "provider"},
        "key": record.key,
        "meta": dump(record.meta) if record.meta else None,
        "credits": record.credits,
        "failure": None if fault is None else f"{fault.reason}, code {fault.code}: {fault.message}",
        "charged": None if fault is None else CHARGED[fault.charged],
        "problem": None if fault is not None else problem_of(record),
    }
    for name, value in facts.items():
        if value is not None:
            screen.result(f"{name:<15} {f'{value:g}' if isinstance(value, float) else clean(value)}")
    for words in record.handler_faults:
        screen.result(f"{'handler':<15} {clean(words)}", style="red")
    screen.result("\njournal", style="bold")
    known = None
    for number, (entry, after) in enumerate(entries, 1):
        since = f"+{span(entry.at - record.created_at)}"
        kind = f"{entry.kind} {entry.status}" if entry.status else entry.kind
        state, problem = ("", None) if after is None else (state_of(after, entry.at), problem_of(after))
        words = entry.note or _outcome(entry) or (problem if problem is not None and problem != known else "")
        known = problem
        screen.result(f"  {number:>3} {since:>11}  {kind:<12} {state:<10} {clean(words)}".rstrip())
    if record.tracks:
        screen.result("\ntracks", style="bold")
    for track in record.tracks:
        parts = (track.title, length(track.duration), track.id, track.audio_url or track.failure)
        screen.result("  " + "  ".join(clean(part) for part in parts if part))


def _beginning(text: str) -> str:
    """Return the first words of *text*, up to `SHORT_LETTERS` characters."""
    if len(text) <= SHORT_LETTERS:
        return text
    head = text[: SHORT_LETTERS - len(" …") + 1]
    return f"{head.rpartition(' ')[0] or head[:-1]} …"
