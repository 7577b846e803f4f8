"""What MusicGPT's status answers and partial webhooks mean: tracks under numbered keys, timed lyrics and events.

https://docs.musicgpt.com/api-documentation/endpoint/getById and index/webhook, read 2026-11-21. No page shows a
webhook of an extension: the shapes of the parts are those that several handlers of live traffic read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, JsonObject, link, number, opened, parse_json, text
from audioext.http.messages import excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._answers import LONGEST_MESSAGE, NO_IDS, words
from audioext.providers._tasks import RUNNING, STAGES, named_tasks, names_failure, plain_word
from audioext.providers._tracks import KEYS, read_song

PLACES = (1, 2)
_WRAPPERS = ("conversion", "data", "result", "payload")
_SHARED = frozenset({"title", "musicstyle", "createdat"})  # one for both tracks where they are not numbered
_AUDIO_KEYS = (*KEYS["audio_url"], *KEYS["wav_url"])
_COVER_KEYS = ("imagepath", "albumcoverpath", "imageurl", "coverurl")
_KNOWN_KEYS = (*_AUDIO_KEYS, *_COVER_KEYS, *KEYS["stream_audio_url"], "lyrics", "lyricstimestamped")
_SIDE_WORDS = ("COVER", "IMAGE", "LYRIC")
"""In a `subtype` or `conversion_type`, they tell of parts that are not the music: without them there still is a song."""


def unwrapped(value: object, *, where: str) -> JsonObject | None:
    """Return the object that speaks of the task, `None` if there is none; webhooks have been seen wrapped as well.

    Raises:
        DecodeError: it is no object.
    """
    if not isinstance(value, dict):
        raise DecodeError(["expected an object @ $"], where=where)
    outer = JsonObject(value)
    for key in _WRAPPERS:
        inner = opened(outer.get(key))
        if isinstance(inner, dict) and inner:
            around = {name: item for name, item in value.items() if name not in inner and item is not outer.get(key)}
            return JsonObject({**inner, **around}, outer.path_of(key))
    speaks = any(outer.get(key) is not None for key in (*_KNOWN_KEYS, "taskid", "conversionid", "status"))
    speaks = speaks or any(_numbered(outer, place) for place in PLACES)
    if outer.get("conversion") is not None and not speaks:
        raise DecodeError(["expected an object @ $.conversion"], where=where)
    return outer if speaks else None


# --- status answers --------------------------------------------------------------------------------------------------


def conversion_events(body: JsonObject) -> tuple[Event, ...]:
    """Return what a status answer's object means.

    An unknown status word is kept: the task counts as running until the caller's own deadline.

    Raises:
        DecodeError: an id has the wrong type, or it claims files and no link can be read.
    """
    task_id, word = _task(body), _word(body)
    tracks = _tracks(body, claims=_is_complete(word), where="the status")
    seen = Progress(
        task_id=task_id,
        claimed_stage=Stage.COMPLETE if _is_complete(word) else None,
        tracks=tracks,
        cover_url=_cover(body),
        credits=number(body.get("conversioncost")),
        word=None if not word or _is_clear(word) or names_failure(word) else text(body.get("status")),
    )
    if not names_failure(word):
        return (seen,)
    failed = _failed(body, task_id)
    if not any(track.audio_url for track in tracks):
        bare = seen.cover_url is None and seen.credits is None
        return (failed,) if bare else (evolve(seen, tracks=()), failed)
    # The job fails only if all tracks do, so those that did not come about are told one by one.
    settled = (*tracks, *_missing(body, tracks))
    told = tuple(track if track.audio_url else evolve(track, failure=failed.message) for track in settled)
    return (evolve(seen, tracks=told), failed)


def _missing(body: JsonObject, tracks: Sequence[Track]) -> Iterator[Track]:
    shown = {track.id for track in tracks}
    for place in PLACES:
        id_ = _track_id(body.get(f"conversionid{place}"))
        if id_ is not None and id_ not in shown:
            yield Track(id=id_, position=place)


# --- webhooks --------------------------------------------------------------------------------------------------------


def part_events(data: bytes) -> tuple[Event, ...]:
    """Return what a webhook means: one part of at most five, or of more with streams, in any order.

    A part is recognised by what it holds, since no page says what `conversion_type` and `subtype` are for an
    extension. What is not recognised makes a status call due.

    Raises:
        WebhookError: it is not a delivery of this API, or its task ids disagree.
        DecodeError: it cannot be read, or says nothing of a task.
    """
    where = "the webhook"
    value = parse_json(data, where=where)
    body = unwrapped(value, where=where)
    outer = JsonObject(value) if isinstance(value, dict) else JsonObject({})
    if "event" in outer and not any(key in (body or {}) for key in _KNOWN_KEYS):
        # {"event": "conversion.completed", "output_url": ...} of the vendor's n8n page: live traffic never had it.
        message = "the delivery is an event of another kind"
        raise WebhookError(message, http_status=400)
    if body is None:
        if not _says_no(outer):
            raise DecodeError(["required field missing @ $.task_id"], where=where)
        body = outer
    if len(set(named_tasks((outer, body)))) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if _says_no(body) or names_failure(_word(body)):
        return _failing_part(body)
    part = _part(body)
    if part.task_id is None and not (part.tracks or part.cover_url or _word(body)):
        raise DecodeError(["required field missing @ $.task_id"], where=where)
    return (part,)


def _part(body: JsonObject) -> Progress:
    word, id_ = _word(body), _track_id(body.get("conversionid"))
    # With a conversion_id the word is about one track, in a cover or lyrics about these.
    claims = _is_complete(word) and id_ is None and not _is_side(body)
    tracks = _tracks(body, claims=claims or _has_audio_key(body), where="the webhook")
    unknown, ask_now = _unclear(body, word, audible=any(track.audio_url for track in tracks))
    return Progress(
        task_id=_task(body),
        claimed_stage=Stage.COMPLETE if claims else None,
        tracks=tracks,
        cover_url=_cover(body),
        # Beside a conversion_id it is the cost of one track, which is not that of the task.
        credits=number(body.get("conversioncost")) if id_ is None else None,
        word=unknown,
        ask_now=ask_now,
    )


def _unclear(body: JsonObject, word: str, *, audible: bool) -> tuple[str | None, bool]:
    """Return the word that is not known in a webhook, and whether a status call has to tell what it means."""
    if word and not _is_clear(word):
        return text(body.get("status")), True
    if word in RUNNING or _is_side(body):
        return None, False
    if _is_complete(word) or _has_audio_key(body):
        return None, not audible
    return text(body.get("subtype")) or None, True


def _failing_part(body: JsonObject) -> tuple[Event, ...]:
    task_id = _task(body)
    if _is_side(body) and not _has_audio_key(body):
        # A cover or lyrics that did not come about are no reason to give the music up.
        return (Progress(task_id=task_id, ask_now=True),)
    tracks = _tracks(body, claims=False, where="the webhook")
    failed = _failed(body, task_id)
    id_ = _track_id(body.get("conversionid"))
    if id_ is not None:
        known = next((track for track in tracks if track.id == id_), Track(id=id_))
        return (Progress(task_id=task_id, tracks=(evolve(known, failure=failed.message),)),)
    return (Progress(task_id=task_id, tracks=tracks), failed) if tracks else (failed,)


def _says_no(body: JsonObject) -> bool:
    said = body.get("success")
    return said is False or (isinstance(said, str) and said.strip().lower() == "false")


def _is_side(body: JsonObject) -> bool:
    kinds = plain_word(f"{text(body.get('subtype')) or ''} {text(body.get('conversiontype')) or ''}")
    if any(word in kinds for word in _SIDE_WORDS):
        return True
    return not _has_audio_key(body) and any(body.get(key) is not None for key in _KNOWN_KEYS)


def _has_audio_key(body: JsonObject) -> bool:
    return any(key in body for key in _AUDIO_KEYS)


# --- what both share -------------------------------------------------------------------------------------------------


def _task(body: JsonObject) -> str | None:
    return next(named_tasks((body,)), None)


def _track_id(value: object) -> str | None:
    found = text(value)
    return None if found is None or found in NO_IDS else found


def _word(body: JsonObject) -> str:
    word = body.get("status")
    if word is not None and not isinstance(word, str):
        raise DecodeError([f"expected a status word @ {body.path_of('status')}"])
    return plain_word(word or "")


def _is_complete(word: str) -> bool:
    return STAGES.get(word) is Stage.COMPLETE


def _is_clear(word: str) -> bool:
    return word in RUNNING or _is_complete(word)


def _tracks(body: JsonObject, *, claims: bool, where: str) -> tuple[Track, ...]:
    """Return the tracks in *body*: those under numbered keys, else the one under plain keys.

    Positions are the wire's numbers, 1 and 2. A track that shows nothing but its id is left out, and so is a path that
    is a bare bucket root, which was seen before a file exists.

    Raises:
        DecodeError: it *claims* a file, and the only links cannot be read.
    """
    problems: list[str] = []
    numbered: list[Track] = []
    shared = {name: body[name] for name in _SHARED if name in body}
    for place in PLACES:
        wrong: list[str] = []
        keys = JsonObject({**shared, **_numbered(body, place)}, body.path)
        numbered += _track(keys, place, wrong)
        problems += [f"{path}_{place}" for path in wrong]
    found = tuple(numbered)
    if not any(track.audio_url for track in numbered):
        single = tuple(_track(body, None, problems))
        found = (*numbered, *(track for track in single if track.audio_url or not numbered))
    if claims and problems and not any(track.audio_url for track in found):
        raise DecodeError(problems[:MAX_PATHS], where=where)
    return found


def _numbered(body: JsonObject, place: int) -> Mapping[str, object]:
    """Return the keys of *body* that end in a number, without it."""
    ends = str(place)
    return {key[:-1].rstrip("_"): value for key, value in body.raw.items() if key.endswith(ends) and key != ends}


def _track(keys: JsonObject, position: int | None, problems: list[str]) -> Iterator[Track]:
    song = read_song(keys, problems)
    song.id = _track_id(keys.get("conversionid"))
    track = song.track(whole=False, position=position)
    if any((track.audio_url, track.stream_url, track.lyrics, track.timed_lyrics)):
        yield track


def _cover(body: JsonObject) -> str | None:
    return next((found for key in _COVER_KEYS if (found := link(body.get(key)))), None)


def _failed(body: JsonObject, task_id: str | None) -> Failed:
    """Return the failure that *body* tells; the keys of its text are those that handlers of live traffic read."""
    said = (words(body.get(key)) for key in ("reason", "statusmsg", "error", "errormessage", "message", "detail"))
    word = text(body.get("status"))
    message = next((found for found in said if found), None) or word or "no reason was given"
    return Failed(
        task_id=task_id,
        reason=FailureReason.CONTENT if body.get("isflagged") is True else FailureReason.UNKNOWN,
        code=word or None,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
    )
