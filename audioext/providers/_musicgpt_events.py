"""What MusicGPT's status answers and partial webhooks mean: takes, timed lyrics and events.

https://docs.musicgpt.com/api-documentation/endpoint/getById and index/webhook, read 2026-11-21. No page shows a
webhook of an extension: the shapes of the parts are those that several handlers of live traffic read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import Link, Number, Text, When, parse_json, structure
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, TimedLine, Track
from audioext.providers._http import excerpt
from audioext.providers._musicgpt_answers import LONGEST_MESSAGE, number, take_id, words

COMPLETED = "COMPLETED"
# endpoint/getById lists IN_QUEUE, COMPLETED, ERROR and FAILED; older copies PENDING and PROCESSING, and the
# vendor's packages IN_PROGRESS. Read 2026-11-21.
RUNNING_STATES = frozenset({"IN_QUEUE", "PENDING", "PROCESSING", "IN_PROGRESS"})
FAILED_STATES = frozenset({"ERROR", "FAILED"})
SIDE_SUBTYPES = frozenset({"album_cover_generation", "lyrics_timestamped", "lyrics"})
"""Parts that are not the music: without them there still is a song."""

NUMBERS = (1, 2)
_PER_TAKE = (
    *("conversion_id", "conversion_path", "conversion_path_wav", "conversion_duration", "streaming_url", "audio_url"),
    *("title", "lyrics", "lyrics_timestamped", "music_style", "createdAt"),
)
_SHARED = frozenset({"title", "music_style", "createdAt"})  # one for both takes where they are not numbered
_AUDIO_KEYS = ("conversion_path", "audio_url")
_COVER_KEYS = ("image_path", "album_cover_path")
_KNOWN_KEYS = (*_AUDIO_KEYS, *_COVER_KEYS, "streaming_url", "lyrics", "lyrics_timestamped")
_MILLISECONDS = 1000


@frozen
class WireTake:
    """One take as the wire shows it, its number taken off the keys."""

    conversion_id: Text | None = None
    conversion_path: Link | None = None
    audio_url: Link | None = None
    conversion_path_wav: Link | None = None
    streaming_url: Link | None = None
    title: Text | None = None
    lyrics: Text | None = None
    music_style: Text | None = None
    createdAt: When | None = None  # noqa: N815 - the wire's spelling


@frozen
class WireCovers:
    """The cover: `image_path` in its own webhook, `album_cover_path` elsewhere."""

    image_path: Link | None = None
    album_cover_path: Link | None = None


@frozen
class WireLine:
    """One line of timed lyrics; times in milliseconds, and marks of sections take no time."""

    start: Number
    end: Number
    text: Text | None = None


@frozen
class WireHead:
    """What every status answer and webhook may hold; logged webhooks have no `status`."""

    task_id: Text | None = None
    conversion_id: Text | None = None
    status: Text | None = None


# --- status answers --------------------------------------------------------------------------------------------------


def conversion_events(conversion: Mapping[str, object]) -> tuple[Event, ...]:
    """Return what the `conversion` of a status answer means.

    An unknown status word is kept: the task counts as running until the caller's own deadline.

    Raises:
        DecodeError: it is not of that shape.
    """
    head = structure(conversion, WireHead, where="conversion")
    state = _state(head)
    tracks = tracks_in(conversion, where="conversion")
    known = state in {"", COMPLETED} | RUNNING_STATES | FAILED_STATES
    seen = Progress(
        task_id=head.task_id or None,
        claimed_stage=Stage.COMPLETE if state == COMPLETED else None,
        tracks=tracks,
        cover_url=_cover_in(conversion, where="conversion"),
        credits=number(conversion.get("conversion_cost")),
        word=None if known else head.status,
    )
    if state not in FAILED_STATES:
        return (seen,)
    failed = _failure(head, conversion)
    if not any(track.audio_url for track in tracks):
        return (failed,) if seen == Progress(task_id=seen.task_id, tracks=tracks) else (evolve(seen, tracks=()), failed)
    # The job fails only if all takes do, so those that did not come about are told one by one.
    settled = (*tracks, *_missing_takes(conversion, tracks))
    return (evolve(seen, tracks=tuple(_failed_if_mute(track, failed.message) for track in settled)), failed)


def _missing_takes(conversion: Mapping[str, object], tracks: Sequence[Track]) -> tuple[Track, ...]:
    shown = {track.id for track in tracks}
    ids = [(place, take_id(conversion.get(f"conversion_id_{place}"))) for place in NUMBERS]
    return tuple(Track(id=id_, position=place) for place, id_ in ids if id_ is not None and id_ not in shown)


def _failed_if_mute(track: Track, message: str) -> Track:
    return track if track.audio_url is not None else evolve(track, failure=message)


# --- webhooks --------------------------------------------------------------------------------------------------------


def delivery_events(body: object) -> tuple[Event, ...]:
    """Return what a webhook means: one part of at most five, or of more with streams, in any order.

    A part is recognised by what it holds, since no page says what `conversion_type` and `subtype` are for an
    extension. What is not recognised makes a status call due.

    Raises:
        WebhookError: it is not a delivery of this API.
        DecodeError: it is not of that shape.
    """
    if not isinstance(body, dict):
        raise DecodeError(["expected an object @ $"], where="the webhook")
    head = structure(body, WireHead, where="the webhook")
    if "event" in body and not any(key in body for key in _KNOWN_KEYS):
        # {"event": "conversion.completed", "output_url": ...} of the vendor's n8n page: live traffic never had it.
        message = "the delivery is an event of another kind"
        raise WebhookError(message, http_status=400)
    failing = body.get("success") is False or _names_failure(head.status)
    if not (failing or head.task_id or head.status or any(body.get(key) is not None for key in _KNOWN_KEYS)):
        raise DecodeError(["required field missing @ $.task_id"], where="the webhook")
    if failing:
        return _failing_delivery(head, body)
    return (_part(head, body),)


def _part(head: WireHead, body: Mapping[str, object]) -> Progress:
    tracks = tracks_in(body, where="the webhook")
    cover_url = _cover_in(body, where="the webhook")
    if not tracks and cover_url is None:
        timed_lines(body.get("lyrics_timestamped"))  # nothing else came, so here an unreadable text is an error
    # With a conversion_id the word is about one take, in a cover or lyrics about these.
    claims = _state(head) == COMPLETED and take_id(head.conversion_id) is None and not _is_side(body)
    word, ask_now = _unclear(head, body, audible=any(track.audio_url for track in tracks))
    return Progress(
        task_id=head.task_id or None,
        claimed_stage=Stage.COMPLETE if claims else None,
        tracks=tracks,
        cover_url=cover_url,
        # Beside a conversion_id it is the cost of one take, which is not that of the task.
        credits=number(body.get("conversion_cost")) if take_id(head.conversion_id) is None else None,
        word=word,
        ask_now=ask_now,
    )


def _unclear(head: WireHead, body: Mapping[str, object], *, audible: bool) -> tuple[str | None, bool]:
    """Return the word that is not known in a webhook, and whether a status call has to tell what it means."""
    state = _state(head)
    if state not in {"", COMPLETED} | RUNNING_STATES:
        return head.status, True
    if state in RUNNING_STATES or _is_side(body):
        return None, False
    if state == COMPLETED or any(key in body for key in _AUDIO_KEYS):
        return None, not audible
    return _subtype(body) or None, True


def _failing_delivery(head: WireHead, body: Mapping[str, object]) -> tuple[Event, ...]:
    task_id = head.task_id or None
    if _subtype(body) in SIDE_SUBTYPES:
        # A cover or lyrics that did not come about are no reason to give the music up.
        return (Progress(task_id=task_id, ask_now=True),)
    tracks = tracks_in(body, where="the webhook")
    failed = _failure(head, body)
    id_ = take_id(head.conversion_id)
    if id_ is not None:
        known = next((track for track in tracks if track.id == id_), Track(id=id_))
        return (Progress(task_id=task_id, tracks=(evolve(known, failure=failed.message),)),)
    return (Progress(task_id=task_id, tracks=tracks), failed) if tracks else (failed,)


def _is_side(body: Mapping[str, object]) -> bool:
    if _subtype(body) in SIDE_SUBTYPES:
        return True
    return not any(key in body for key in _AUDIO_KEYS) and any(body.get(key) is not None for key in _KNOWN_KEYS)


def _subtype(body: Mapping[str, object]) -> str:
    value = body.get("subtype")
    return value if isinstance(value, str) else ""


def _names_failure(status: str | None) -> bool:
    # "FAILED" and "ERROR" are the documented words; handlers look for the parts.
    return status is not None and any(part in status.upper() for part in ("FAIL", "ERROR"))


# --- what both share -------------------------------------------------------------------------------------------------


def tracks_in(body: Mapping[str, object], *, where: str) -> tuple[Track, ...]:
    """Return the takes in *body*: those under numbered keys, else the one under plain keys.

    Positions are the wire's numbers, 1 and 2. A take that shows nothing but its id is left out, and so is a
    path that is a bare bucket root, which was seen before a file exists.

    Raises:
        DecodeError: a key holds the wrong type.
    """
    numbered = [track for place in NUMBERS if (track := _numbered_take(body, place, where)) is not None]
    if any(track.audio_url for track in numbered):
        return tuple(numbered)
    single = _take(body, None, where)
    if single is not None and (single.audio_url is not None or not numbered):
        return (*numbered, single)
    return tuple(numbered)


def timed_lines(value: object) -> tuple[TimedLine, ...] | None:
    """Return timed lyrics in seconds, from a list of lines in milliseconds or a JSON text of one.

    Raises:
        DecodeError: it is neither.
    """
    where = "lyrics_timestamped"
    if isinstance(value, str):
        value = parse_json(value.encode("utf-8", "replace"), where=where) if value.strip() else None
    if value is None:
        return None
    lines = structure(value, list[WireLine], where=where)
    found = (TimedLine(line.text or "", line.start / _MILLISECONDS, line.end / _MILLISECONDS) for line in lines)
    return tuple(found) or None


def _numbered_take(body: Mapping[str, object], place: int, where: str) -> Track | None:
    values = {name: body[f"{name}_{place}"] for name in _PER_TAKE if f"{name}_{place}" in body}
    shared = {name: body[name] for name in _SHARED if name in body}
    return _take({**shared, **values}, place, f"{where}, take {place}")


def _take(values: Mapping[str, object], position: int | None, where: str) -> Track | None:
    take = structure(values, WireTake, where=where)
    duration = number(values.get("conversion_duration"))
    track = Track(
        id=take_id(take.conversion_id),
        title=take.title or None,
        audio_url=take.conversion_path or take.audio_url,
        stream_url=take.streaming_url,
        wav_url=take.conversion_path_wav,
        duration=duration if duration is not None and duration > 0 else None,
        tags=take.music_style or None,
        lyrics=take.lyrics or None,
        timed_lyrics=_timed_if_readable(values.get("lyrics_timestamped")),
        created_at=take.createdAt,
        position=position,
    )
    return track if _shows(track) else None


def _shows(track: Track) -> bool:
    return any((track.audio_url, track.stream_url, track.wav_url, track.lyrics, track.timed_lyrics))


def _timed_if_readable(value: object) -> tuple[TimedLine, ...] | None:
    try:
        return timed_lines(value)
    except DecodeError:  # on no page, so another form of it must not cost the music
        return None


def _state(head: WireHead) -> str:
    return (head.status or "").strip().upper()


def _cover_in(body: Mapping[str, object], *, where: str) -> str | None:
    covers = structure(body, WireCovers, where=where)
    return covers.image_path or covers.album_cover_path


def _failure(head: WireHead, body: Mapping[str, object]) -> Failed:
    """Return the failure that *body* tells; the keys of its text are those that handlers of live traffic read."""
    texts = (words(body.get(key)) for key in ("reason", "status_msg", "error", "message"))
    message = next((text for text in texts if text), None) or head.status or "no reason was given"
    flagged = body.get("is_flagged") is True
    return Failed(
        task_id=head.task_id or None,
        reason=FailureReason.CONTENT if flagged else FailureReason.UNKNOWN,
        code=head.status or None,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
    )
