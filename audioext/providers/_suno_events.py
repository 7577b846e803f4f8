"""What the Suno family's status answers and callbacks mean: wire classes, tracks and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import fields, frozen
from cattrs.gen import make_dict_structure_fn, override

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import Link, Number, Text, When, strict_converter, structure
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track

if TYPE_CHECKING:
    from cattrs import Converter

# docs.kie.ai/suno-api/get-music-details and
# docs.sunoapi.org/suno-api/get-music-generation-details, read 2026-11-21
STATUS_STAGES: Mapping[str, Stage | None] = {
    "PENDING": None,
    "TEXT_SUCCESS": Stage.TEXT,
    "FIRST_SUCCESS": Stage.FIRST,
    "SUCCESS": Stage.COMPLETE,
}
STATUS_FAILURES: Mapping[str, FailureReason] = {
    "CREATE_TASK_FAILED": FailureReason.GENERATION,
    "GENERATE_AUDIO_FAILED": FailureReason.GENERATION,
    "SENSITIVE_WORD_ERROR": FailureReason.CONTENT,
}
CALLBACK_EXCEPTION = "CALLBACK_EXCEPTION"
"""The vendor could not deliver to us: a complaint about our endpoint, not about the music."""

# docs.kie.ai/suno-api/extend-music-callbacks and
# docs.sunoapi.org/suno-api/extend-music-callbacks, read 2026-11-21;
# task_completed: docs.kie.ai/common-api/webhook-verification, read 2026-11-21
CALLBACK_STAGES: Mapping[str, Stage] = {
    "text": Stage.TEXT,
    "first": Stage.FIRST,
    "complete": Stage.COMPLETE,
    "task_completed": Stage.COMPLETE,
}
CALLBACK_ERROR = "error"
REFUNDED_CODES = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SUCCESS_CODES = frozenset({None, "200"})


@frozen
class WireTrack:
    """One take as the wire shows it, 10 or 13 keys; callbacks write snake case, status answers camel case."""

    id: Text | None = None
    audio_url: Link | None = None
    stream_audio_url: Link | None = None
    image_url: Link | None = None
    source_audio_url: Link | None = None
    source_stream_audio_url: Link | None = None
    source_image_url: Link | None = None
    prompt: Text | None = None
    model_name: Text | None = None
    title: Text | None = None
    tags: Text | None = None
    create_time: When | None = None
    duration: Number | None = None

    def track(self) -> Track:
        """Return what is known of the take; a stream URL is never taken for a file."""
        return Track(
            id=self.id or None,
            title=self.title,
            audio_url=self.audio_url,
            stream_url=self.stream_audio_url,
            image_url=self.image_url,
            duration=self.duration if self.duration is not None and self.duration > 0 else None,
            tags=self.tags,
            prompt=self.prompt,
            model_name=self.model_name,
            source_audio_url=self.source_audio_url,
            source_stream_url=self.source_stream_audio_url,
            source_image_url=self.source_image_url,
            created_at=self.create_time,
        )


def _track_converter(names: Mapping[str, str]) -> Converter:
    converter = strict_converter()
    renames = {name: override(rename=wire) for name, wire in names.items()}
    converter.register_structure_hook(WireTrack, make_dict_structure_fn(WireTrack, converter, **renames))  # type: ignore[arg-type]  # cattrs types its overrides by keyword
    return converter


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


# Callbacks are snake case but for createTime: docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SNAKE_TRACKS = _track_converter({"create_time": "createTime"})
_CAMEL_KEYS = frozenset({"audioUrl", "streamAudioUrl", "modelName"})
_CAMEL_TRACKS = _track_converter({attribute.name: _camel(attribute.name) for attribute in fields(WireTrack)})


def tracks_in(value: object, *, where: str) -> tuple[Track, ...]:
    """Return the tracks in a JSON list, each in either spelling; `null` and what is missing are no tracks.

    Raises:
        DecodeError: it is not a list of tracks.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DecodeError(["expected a list @ $"], where=where)
    return tuple(_wire_track(item, f"{where}[{index}]").track() for index, item in enumerate(value))


def _wire_track(value: object, where: str) -> WireTrack:
    camel = isinstance(value, dict) and not _CAMEL_KEYS.isdisjoint(value)
    return structure(value, WireTrack, converter=_CAMEL_TRACKS if camel else _SNAKE_TRACKS, where=where)


# --- status answers --------------------------------------------------------------------------------------


@frozen
class RecordInfo:
    """`data` of a record-info answer; `errorCode` is a number or null."""

    taskId: Text | None = None  # noqa: N815 - the wire's spelling
    status: Text | None = None
    errorCode: Text | None = None  # noqa: N815 - the wire's spelling
    errorMessage: Text | None = None  # noqa: N815 - the wire's spelling


def record_info_events(data: Mapping[str, object], reasons: Mapping[str, FailureReason]) -> tuple[Event, ...]:
    """Return what `data` of a record-info answer means; *reasons* holds the vendor's failure codes.

    An unknown status word is kept: the task counts as running until the caller's own deadline.

    Raises:
        DecodeError: it is not of that shape.
    """
    info = structure(data, RecordInfo, where="data")
    response = data.get("response")
    if response is not None and not isinstance(response, dict):
        raise DecodeError(["expected an object @ $.data.response"])
    tracks = tracks_in(response.get("sunoData") if response else None, where="data.response.sunoData")
    task_id = info.taskId or None
    word = info.status or None
    if word is not None and word in STATUS_FAILURES:
        reason = STATUS_FAILURES[word]
        if reason is not FailureReason.CONTENT:
            reason = reasons.get(info.errorCode or "", reason)
        failed = failure(task_id, reason, info.errorCode or word, info.errorMessage or word)
        return (*_shown(task_id, tracks), failed)
    if word == CALLBACK_EXCEPTION:
        whole = bool(tracks) and all(track.audio_url is not None for track in tracks)
        return (Progress(task_id=task_id, claimed_stage=Stage.COMPLETE if whole else None, tracks=tracks),)
    stage = None if word is None else STATUS_STAGES.get(word)
    unknown = None if word is None or word in STATUS_STAGES else word
    return (Progress(task_id=task_id, claimed_stage=stage, tracks=tracks, word=unknown),)


def failure(task_id: str | None, reason: FailureReason, code: str | None, message: str) -> Failed:
    """Return the failure of a task; no page says what it costs but for the refunded codes."""
    charged = False if code in REFUNDED_CODES else None
    return Failed(task_id=task_id, reason=reason, code=code, message=message, charged=charged)


def _shown(task_id: str | None, tracks: Sequence[Track]) -> tuple[Progress, ...]:
    # Takes that came about before a task failed are kept, and paid for.
    return (Progress(task_id=task_id, tracks=tuple(tracks)),) if tracks else ()


# --- callbacks -------------------------------------------------------------------------------------------


@frozen
class Delivery:
    """A callback, opened: `data` is an empty mapping where it came as `[]`, `null` or not at all.

    `kind` is its `callbackType`.
    """

    code: str | None
    message: str
    data: Mapping[str, object]
    task_id: str | None
    kind: str | None = None


@frozen
class _Outer:
    code: Text | None = None
    msg: Text | None = None
    taskId: Text | None = None  # noqa: N815 - the wire's spelling
    task_id: Text | None = None


@frozen
class _Inner:
    callbackType: Text | None = None  # noqa: N815 - the wire's spelling
    taskId: Text | None = None  # noqa: N815 - the wire's spelling
    task_id: Text | None = None


def open_delivery(value: object) -> Delivery:
    """Return the parsed JSON of a callback, opened.

    The task's id stands in `data.task_id`, `data.taskId` or a top-level `taskId`, by kind of task
    (docs.kie.ai/common-api/webhook-verification, read 2026-11-21).

    Raises:
        WebhookError: its ids disagree (400).
        DecodeError: it is not a callback.
    """
    outer = structure(value, _Outer)
    whole = value if isinstance(value, dict) else {}
    if "code" not in whole and "data" not in whole:
        raise DecodeError(["required field missing @ $.data"])
    raw = whole.get("data")
    data: Mapping[str, object] = raw if isinstance(raw, dict) else {}
    if raw not in (None, [], "") and not isinstance(raw, dict):
        raise DecodeError(["expected an object @ $.data"])
    inner = structure(data, _Inner, where="data")
    ids = {found for found in (inner.task_id, inner.taskId, outer.taskId, outer.task_id) if found}
    if len(ids) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    return Delivery(outer.code, outer.msg or "", data, next(iter(ids), None), inner.callbackType)


def callback_events(delivery: Delivery, reasons: Mapping[str, FailureReason]) -> tuple[Event, ...]:
    """Return what a callback means; *reasons* holds the vendor's failure codes.

    `callbackType` names the stage and `code` a failure; `msg` is for people, since its wording varies. A
    `complete` without a playable track is still the claim of COMPLETE. An unknown word is kept and makes a
    status call due.

    Raises:
        DecodeError: it is not of that shape.
    """
    word = delivery.kind or _text_at(delivery.data, "status") or None
    failing = word == CALLBACK_ERROR or delivery.code not in _SUCCESS_CODES
    listed = delivery.data.get("data")
    if listed in ("", {}) or (failing and isinstance(listed, str)):
        listed = None
    tracks = tracks_in(listed, where="data.data")
    if word == CALLBACK_EXCEPTION:
        return (Progress(task_id=delivery.task_id, tracks=tracks, ask_now=True),)
    if failing:
        reason = reasons.get(delivery.code or "", FailureReason.UNKNOWN)
        claimed = CALLBACK_STAGES.get(word or "")
        seen = (Progress(task_id=delivery.task_id, claimed_stage=claimed, tracks=tracks),) if tracks else ()
        # The text beside the tracks: docs.kie.ai/suno-api/replace-section, read 2026-11-21
        texts = (delivery.message, _text_at(delivery.data, "error"), _text_at(delivery.data, "data"))
        message = " ".join(text for text in texts if text)
        return (*seen, failure(delivery.task_id, reason, delivery.code, message))
    if word is None and not tracks:
        raise DecodeError(["required field missing @ $.data.callbackType"], where="the callback")
    stage = CALLBACK_STAGES.get(word or "")
    return (
        Progress(
            task_id=delivery.task_id,
            claimed_stage=stage,
            tracks=tracks,
            word=word if stage is None else None,
            ask_now=stage is None,
        ),
    )


def _text_at(data: Mapping[str, object], key: str) -> str:
    # Not on the pages of these operations, so another type there must not cost a result.
    value = data.get(key)
    return value if isinstance(value, str) else ""
