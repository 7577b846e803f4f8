"""Jobs, tracks and deliveries as JSON objects for the live page and `--json`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from audioext.models.entries import Entry
from audioext.models.record import Record, Verdict
from audioext.models.results import Source, Stage, Track
from audioext.stores.base import Delivery

Journal = Sequence[tuple[Entry, Record | None]]
"""Each entry of a job, with the record as of that entry."""

BY: Mapping[Source, str] = {"webhook": "by webhook", "poll": "by poll", "implied": "implied by a later stage"}
"""How a stage became known."""

_HIDDEN = frozenset({"extends_by_id", "position"})
_T = TypeVar("_T")


def iso(at: float) -> str:
    """Return a time (Unix seconds) in ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def state_of(record: Record, now: float | None = None) -> str:
    """Return a job's state in one word: its verdict, else its stage, else `unknown` or `submitting`."""
    if record.verdict is not Verdict.OPEN:
        return str(record.verdict)
    if record.stage is not None:
        return str(record.stage)
    return "unknown" if (time.time() if now is None else now) > record.unknown_at else "submitting"


def problem_of(record: Record) -> str | None:
    """Return what is wrong with a job, if anything, in the vendor's words: a failure, a refusal or a bad answer.

    A job that has, or may get, a song may have tracks that failed.
    """
    if record.fault is not None:
        return record.fault.message
    if record.verdict is Verdict.REFUSED:
        return record.refusal or "the submit was never sent"
    return losses_of(record) or record.complaint or record.answer_problem


def losses_of(record: Record) -> str | None:
    """Return how many of a job's tracks failed, and why, `None` if none did."""
    why = "; ".join(dict.fromkeys(track.failure or "" for track in record.failed_tracks))
    return f"{record.losses} tracks failed: {why}" if record.losses else None


def track_object(track: Track) -> dict[str, object]:
    """Return the fields of *track* that are not None."""
    return attrs.asdict(track, filter=lambda field, value: value is not None and field.name not in _HIDDEN)


def delivery_object(delivery: Delivery) -> dict[str, object]:
    """Return a delivery without its body."""
    facts = attrs.asdict(delivery, filter=attrs.filters.exclude("headers", "body"))
    return {**facts, "received_at": iso(delivery.received_at), "bytes": len(delivery.body)}


def job_object(record: Record) -> dict[str, object]:
    """Return a job for a list; `source` is the file's name, the URL or the track id."""
    path, url = record.request.path, record.request.url
    return {
        "ref": record.ref,
        "state": state_of(record),
        "provider": record.provider,
        "operation": str(record.operation),
        "task_id": record.task_id,
        "source": path.name if path is not None else url or str(getattr(record.request, "audio_id", "")),
        "created_at": iso(record.created_at),
        "key": record.key,
        "meta": dict(record.meta),
        "credits": record.credits,
        "credit_estimate": record.credit_estimate,
        "problem": problem_of(record),
    }


async def first(limit: int, found: AsyncIterator[_T]) -> list[_T]:
    """Return the first *limit* items of *found*."""
    kept: list[_T] = []
    async for each in found:
        kept.append(each)
        if len(kept) == limit:
            break
    return kept


def stage_objects(record: Record) -> list[dict[str, object]]:
    """Return the reached stages of a job: name, source, and the seconds since it was created."""
    return [
        {"stage": word, "source": source, "seconds": round(at - record.created_at, 3), "at": iso(at)}
        for word, at, _, source in timeline(record)
        if source is not None and word != "submitted"
    ]


def whole_object(record: Record, entries: Journal, deliveries: Sequence[Delivery]) -> dict[str, object]:
    """Return a job with all details: its request, stages, journal, tracks and deliveries."""
    fault, names = record.fault, ("reason", "code", "message", "charged")
    failure = None if fault is None else {**{name: getattr(fault, name) for name in names}, "at": record.ended_at}
    return {
        **job_object(record),
        "base_url": record.asked.base_url,
        "model": record.model,
        "request": record.request.given(),
        "timeline": timeline_objects(record),
        "journal": [
            {
                "entry": number,
                "kind": entry.kind,
                "seconds": round(entry.at - record.created_at, 3),
                "at": iso(entry.at),
                "status": entry.status or None,
                "bytes": len(entry.body),
                "note": entry.note,
                "state": None if after is None else state_of(after, entry.at),
            }
            for number, (entry, after) in enumerate(entries, 1)
        ],
        "tracks": [track_object(track) for track in record.tracks],
        "failure": failure,
        "handler_faults": list(record.handler_faults),
        "deliveries": [delivery_object(delivery) for delivery in deliveries],
    }


def timeline_objects(record: Record) -> list[dict[str, object]]:
    """Return the events of a job in order: a word, the seconds since it was created, the time, and the source."""
    return [
        {"event": word, "seconds": round(at - record.created_at, 3), "at": iso(at), "how": how}
        for word, at, how, _ in timeline(record)
    ]


def timeline(record: Record) -> list[tuple[str, float, str, Source | None]]:
    """Return the events of a job in order: a word, the time, an explanation, and the source if it is a stage."""
    found: list[tuple[str, float, str, Source | None]] = []
    for item in record.reached:
        # The POST's answer makes a job submitted, unless a webhook brought the task id first.
        is_answer = item.stage is Stage.SUBMITTED and item.source != "webhook"
        found.append((str(item.stage), item.at, "" if is_answer else BY[item.source], item.source))
    if record.fault is not None and record.ended_at is not None:
        found.append(("failed", record.ended_at, record.fault.message, None))
    if record.verdict is Verdict.REFUSED:
        found.append(("refused", record.answered_at or record.created_at, problem_of(record) or "", None))
    if record.verdict is Verdict.EXPIRED and record.ended_at is not None:
        found.append(("expired", record.ended_at, "given up; a late callback still completes it", None))
    return sorted(found, key=lambda item: item[1])
