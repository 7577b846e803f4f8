"""Jobs, tracks and deliveries as JSON: what the live page and `--json` show of them."""

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
"""Each entry of a job, with the record that the journal meant up to it."""

BY: Mapping[Source, str] = {"webhook": "by webhook", "poll": "by poll", "implied": "implied by a later stage"}
"""How a stage became known."""

_HIDDEN = frozenset({"extends_by_id", "position"})
_T = TypeVar("_T")


def iso(at: float) -> str:
    """Return a point in time (Unix seconds) as machines read it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def state_of(record: Record, now: float | None = None) -> str:
    """Return one word for where a job is: its verdict, else its stage, else `unknown` or `submitting`."""
    if record.verdict is not Verdict.OPEN:
        return record.verdict.name.lower()
    if record.stage is not None:
        return record.stage.name.lower()
    return "unknown" if (time.time() if now is None else now) > record.unknown_at else "submitting"


def problem_of(record: Record) -> str | None:
    """Return what is wrong with a job, in the vendor's words: why it failed, or why an answer was a refusal."""
    if record.fault is not None:
        return record.fault.message
    if record.verdict is Verdict.REFUSED:
        return record.refusal or "the submit was never sent"
    return record.complaint or record.answer_problem


def track_object(track: Track) -> dict[str, object]:
    """Return the fields of *track* that are known."""
    return attrs.asdict(track, filter=lambda field, value: value is not None and field.name not in _HIDDEN)


def delivery_object(delivery: Delivery) -> dict[str, object]:
    """Return a delivery without its body."""
    return {
        "id": delivery.id,
        "ref": delivery.ref,
        "provider": delivery.provider,
        "received_at": iso(delivery.received_at),
        "verdict": delivery.verdict,
        "bytes": len(delivery.body),
        "note": delivery.note,
    }


def job_object(record: Record) -> dict[str, object]:
    """Return what a list of jobs shows of one; its source is the file's name, the URL or the id."""
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
    """Return so many at most of those that are *found*."""
    kept: list[_T] = []
    async for each in found:
        kept.append(each)
        if len(kept) == limit:
            break
    return kept


def stage_objects(record: Record) -> list[dict[str, object]]:
    """Return the stages of a task: their names, how they were learnt, and the seconds since the job was made."""
    return [
        {"stage": word, "source": source, "seconds": round(at - record.created_at, 3), "at": iso(at)}
        for word, at, _, source in timeline(record)
        if source is not None and word != "submitted"
    ]


def whole_object(record: Record, entries: Journal, deliveries: Sequence[Delivery]) -> dict[str, object]:
    """Return all that is known of a job: its request, stages, journal, tracks and deliveries."""
    fault = record.fault
    facts = ("reason", "code", "message", "charged", "at")
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
        "failure": None if fault is None else {name: getattr(fault, name) for name in facts},
        "handler_faults": list(record.handler_faults),
        "deliveries": [delivery_object(delivery) for delivery in deliveries],
    }


def timeline_objects(record: Record) -> list[dict[str, object]]:
    """Return what happened to a job in order: a word, after how many seconds, when, and how it became known."""
    return [
        {"event": word, "seconds": round(at - record.created_at, 3), "at": iso(at), "how": how}
        for word, at, how, _ in timeline(record)
    ]


def timeline(record: Record) -> list[tuple[str, float, str, Source | None]]:
    """Return what happened to a job in order: a word, when, how it became known in words, and the source of a stage."""
    found: list[tuple[str, float, str, Source | None]] = []
    for item in record.reached:
        # The POST's own answer makes a job submitted, unless a webhook was quicker to name the task.
        is_answer = item.stage is Stage.SUBMITTED and item.source != "webhook"
        found.append((item.stage.name.lower(), item.at, "" if is_answer else BY[item.source], item.source))
    if record.fault is not None:
        found.append(("failed", record.fault.at, record.fault.message, None))
    if record.verdict is Verdict.REFUSED:
        found.append(("refused", record.answered_at or record.created_at, problem_of(record) or "", None))
    if record.verdict is Verdict.EXPIRED and record.ended_at is not None:
        found.append(("expired", record.ended_at, "given up; a late callback still completes it", None))
    return sorted(found, key=lambda item: item[1])
