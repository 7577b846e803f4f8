"""What vidgo.ai says of a task: the detail that its status answer and its webhook share.

Pages: https://docs.vidgo.ai/api-manual/music-series/query-music-detail and
https://docs.vidgo.ai/api-manual/music-series/music-webhook, read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from audioext.errors import DecodeError
from audioext.http.decoding import Link, Number, Text, When, structure
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import Stage, Track

# docs.vidgo.ai/api-manual/task-management/status, read 2026-11-21
RUNNING = frozenset({"not_started", "running"})
FINISHED = "finished"
FAILED = "failed"
_NO_CODE = frozenset({None, "", "200"})  # a failed task comes with the code of a call that succeeded


@frozen
class WireFile:
    """One take: the table of docs.vidgo.ai/api-manual/music-series/query-music-detail, read 2026-11-21."""

    audio_id: Text | None = None
    audio_url: Link | None = None
    image_url: Link | None = None
    title: Text | None = None
    tags: Text | None = None
    duration: Number | None = None
    prompt: Text | None = None


@frozen
class Detail:
    """`data` of a detail answer and of a webhook; `created_time` bears no zone and is taken as UTC."""

    task_id: Text | None = None
    status: Text | None = None
    files: list[WireFile] | None = None
    created_time: When | None = None
    error_message: Text | None = None


def detail_events(data: Mapping[str, object], *, code: str | None, task_id: str | None = None) -> tuple[Event, ...]:
    """Return what a task's detail means, from a status answer or in a delivery.

    Of the envelope only its *code* is kept with a failure, and *task_id* where the detail names none. A track's
    `created_at` is its task's `created_time`, since files bear no time. An unknown word is kept and makes a
    status call due. Credits are taken for finished tasks alone, so a failed one is not charged
    (docs.vidgo.ai/api-manual/account-management/user-balance, read 2026-11-21).

    Raises:
        DecodeError: it is not of that shape.
    """
    detail = structure(data, Detail, where="data")
    tracks = _tracks(detail)
    named: str | None = detail.task_id or task_id
    word = detail.status or None
    if word is None and not tracks and named is None:
        raise DecodeError(["required field missing @ $.status"], where="data")
    if word == FAILED:
        seen = (Progress(task_id=named, tracks=tracks),) if tracks else ()
        return (
            *seen,
            Failed(
                task_id=named,
                code=None if code in _NO_CODE else code,
                message=detail.error_message or FAILED,
                charged=False,
            ),
        )
    unknown = word is not None and word != FINISHED and word not in RUNNING
    return (
        Progress(
            task_id=named,
            claimed_stage=Stage.COMPLETE if word == FINISHED else None,
            tracks=tracks,
            word=word if unknown else None,
            ask_now=unknown or (word is None and bool(tracks)),
        ),
    )


def _tracks(detail: Detail) -> tuple[Track, ...]:
    files: Sequence[WireFile] = detail.files or ()
    return tuple(
        Track(
            id=file.audio_id or None,
            title=file.title,
            audio_url=file.audio_url,
            image_url=file.image_url,
            duration=file.duration if file.duration is not None and file.duration > 0 else None,
            tags=file.tags,
            prompt=file.prompt,
            created_at=detail.created_time,
        )
        for file in files
        if file.audio_id or file.audio_url is not None
    )
