"""Jobs, tracks, stages and deliveries as people and machines read them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import attrs

from audioext.cli import text
from audioext.models.record import Record, Verdict
from audioext.models.results import Source, Stage, Track
from audioext.runtime.jobs import StageEvent
from audioext.stores.base import Delivery

BY: Mapping[Source, str] = {"webhook": "by webhook", "poll": "by poll", "implied": "implied by a later stage"}
"""How a stage became known."""

CHARGED = {True: "yes", False: "no", None: "unknown"}
_HIDDEN = frozenset({"extends_by_id", "position"})


def state_of(record: Record, now: float | None = None) -> str:
    """Return one word for where a job is: its verdict, else its stage, else `unknown` or `submitting`."""
    if record.verdict is not Verdict.OPEN:
        return record.verdict.name.lower()
    if record.stage is not None:
        return record.stage.name.lower()
    return "unknown" if (time.time() if now is None else now) > record.unknown_at else "submitting"


def source_of(record: Record) -> str:
    """Return what a job works on: the file's name, the URL or the id."""
    request = record.request
    if request.path is not None:
        return request.path.name
    return request.url or str(getattr(request, "audio_id", ""))


def problem_of(record: Record) -> str | None:
    """Return what is wrong with a job, in the vendor's words: why it failed, or why an answer was a refusal."""
    if record.verdict is Verdict.FAILED and record.fault is not None:
        return record.fault.message
    if record.verdict is Verdict.REFUSED:
        return record.refusal or "the submit was never sent"
    return record.complaint or record.answer_problem


def reached_at(record: Record, stage: Stage) -> float | None:
    """Return when *stage* was reached (Unix seconds)."""
    return next((item.at for item in record.reached if item.stage is stage), None)


def stage_line(event: StageEvent) -> str:
    """Return what a stage brought: how it was learnt, and how many tracks can be played."""
    playable = sum(track.audio_url is not None for track in event.tracks)
    tracks = "" if playable == 0 else f", {playable} track{'s' if playable > 1 else ''} playable"
    return BY[event.source] + tracks


# --- for JSON ----------------------------------------------------------------------------------------------


def track_object(track: Track) -> dict[str, object]:
    """Return the fields of *track* that are known."""
    return attrs.asdict(track, filter=lambda field, value: value is not None and field.name not in _HIDDEN)


def event_object(event: StageEvent, created_at: datetime) -> dict[str, object]:
    """Return a stage: its name, how it was learnt, and the seconds since the job was made."""
    since = round((event.at - created_at).total_seconds(), 3)
    return {"stage": event.stage.name.lower(), "source": event.source, "seconds": since, "at": event.at}


def delivery_object(delivery: Delivery) -> dict[str, object]:
    """Return a delivery without its body."""
    return {
        "id": delivery.id,
        "ref": delivery.ref,
        "provider": delivery.provider,
        "received_at": text.iso(delivery.received_at),
        "verdict": delivery.verdict,
        "bytes": len(delivery.body),
        "note": delivery.note,
    }


def job_object(record: Record) -> dict[str, object]:
    """Return what `jobs` lists of a job."""
    return {
        "ref": record.ref,
        "state": state_of(record),
        "provider": record.provider,
        "operation": str(record.operation),
        "task_id": record.task_id,
        "source": source_of(record),
        "created_at": text.iso(record.created_at),
        "key": record.key,
        "meta": dict(record.meta),
        "problem": problem_of(record),
    }
