"""What MusicGPT's status answers and partial webhooks mean: tracks under numbered keys, timed lyrics and events.

https://docs.musicgpt.com/api-documentation/endpoint/getById and index/webhook, read 2026-11-21. No page shows a
webhook of an extension: the shapes of the parts are those that several handlers of live traffic read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, JsonObject, link, number, opened, parse_json, plain, text
from audioext.http.messages import excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._answers import LONGEST_MESSAGE, NO_IDS, named_ids, words
from audioext.providers._tasks import RUNNING, STAGES, names_failure, plain_word
from audioext.providers._tracks import AUDIO_KEYS, SHOWING, read_track

PLACES = (1, 2)
_WRAPPERS = ("conversion", "data", "result", "payload")
_SHARED = frozenset({"title", "musicstyle", "createdat"})  # one for both tracks where they are not numbered
_NAMES_OF_TASKS = frozenset({"id", "taskid", "jobid"})
_COVER_KEYS = ("imagepath", "albumcoverpath", "imageurl", "coverurl")
_KNOWN_KEYS = SHOWING | {*_COVER_KEYS, "lyrics", "lyricstimestamped"}
_SIDE_WORDS = ("COVER", "IMAGE", "LYRIC")
"""In a `subtype` or `conversion_type`, they tell of parts that are not the music: without them there still is a song."""


def unwrapped(value: object, *, where: str) -> JsonObject:
    """Return the object that speaks of the task: status answers wrap it in `conversion`, some webhooks as well.

    Raises:
        DecodeError: it is no object.
    """
    if not isinstance(value, dict):
        raise DecodeError(["expected an object @ $"], where=where)
    for key in _WRAPPERS:
        inner = opened(value.get(key))
        if isinstance(inner, dict) and inner:
            return JsonObject({**{name: value[name] for name in value if name != key}, **inner}, f"$.{key}")
    return JsonObject(value)


# --- status answers --------------------------------------------------------------------------------------------------


def conversion_events(body: JsonObject) -> tuple[Event, ...]:
    """Return what a status answer's object means; nothing, if it speaks of no task.

    An unknown status word is kept: the task counts as running until the caller's own deadline.

    Raises:
        DecodeError: an id has the wrong type, or it claims files and no link can be read.
    """
    task_id, word, complete = _task(body), _word(body), _is_complete(body)
    failing = names_failure(word)
    tracks = _tracks(body, claims=complete, where="the status")
    if not (task_id or word or tracks):
        return ()
    seen = Progress(
        task_id=task_id,
        claimed_stage=Stage.COMPLETE if complete else None,
        tracks=tracks,
        cover_url=_cover(body),
        credits=number(body.get("conversioncost")),
        word=text(body.get("status")) if word and not (failing or complete or word in RUNNING) else None,
    )
    if not failing:
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
    if "event" in body and _KNOWN_KEYS.isdisjoint(body):
        # {"event": "conversion.completed", "output_url": ...} of the vendor's n8n page: live traffic never had it.
        message = "the delivery is an event of another kind"
        raise WebhookError(message, http_status=400)
    outer = JsonObject(value) if isinstance(value, dict) and body.path != "$" else body
    if len({*named_ids(outer), *named_ids(body)}) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if _says_no(body) or names_failure(_word(body)):
        return _failing_part(body)
    known = any(body[key] is not None for key in _KNOWN_KEYS.intersection(body))
    if not (known or _word(body) or _task(body) or any(_numbered(body, place) for place in PLACES)):
        raise DecodeError(["required field missing @ $.task_id"], where=where)
    return (_part(body, where),)


def _part(body: JsonObject, where: str) -> Progress:
    id_ = _track_id(body.get("conversionid"))
    has_audio = not AUDIO_KEYS.isdisjoint(body)
    is_side = _is_side(body)
    # With a conversion_id the word is about one track, in a cover or lyrics about these.
    complete = _is_complete(body)
    claims = complete and id_ is None and not is_side
    tracks = _tracks(body, claims=claims or has_audio, where=where)
    audible = any(track.audio_url for track in tracks)
    word = _word(body)
    unknown: str | None = None
    if word and word not in RUNNING and not complete:
        unknown, ask_now = text(body.get("status")), True
    elif word in RUNNING or is_side:
        ask_now = False
    elif complete or has_audio or audible:
        ask_now = not audible
    else:
        subtype = body.get("subtype")
        unknown, ask_now = (subtype or None) if isinstance(subtype, str) else None, True
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


def _failing_part(body: JsonObject) -> tuple[Event, ...]:
    task_id = _task(body)
    if _is_side(body) and AUDIO_KEYS.isdisjoint(body):
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
    kinds = plain_word(f"{body.get('subtype')} {body.get('conversiontype')}")
    if any(word in kinds for word in _SIDE_WORDS):
        return True
    known = _KNOWN_KEYS.intersection(body)
    return AUDIO_KEYS.isdisjoint(known) and any(body[key] is not None for key in known)


# --- what both share -------------------------------------------------------------------------------------------------


def _task(body: JsonObject) -> str | None:
    return next(named_ids(body), None)


def _track_id(value: object) -> str | None:
    found = text(value)
    return None if found is None or found in NO_IDS else found


def _word(body: JsonObject) -> str:
    word = body.get("status")
    if word is not None and not isinstance(word, str):
        raise DecodeError([f"expected a status word @ {body.path_of('status')}"])
    return plain_word(word or "")


def _is_complete(body: JsonObject) -> bool:
    return STAGES.get(_word(body)) is Stage.COMPLETE


def _tracks(body: JsonObject, *, claims: bool, where: str) -> tuple[Track, ...]:
    """Return the tracks in *body*: those under numbered keys, else the one under plain keys.

    Positions are the wire's numbers, 1 and 2. A track that shows nothing but its id is left out, and so is a path that
    is a bare bucket root, which was seen before a file exists.

    Raises:
        DecodeError: it *claims* a file, and the only links cannot be read.
    """
    problems: list[str] = []
    found: list[Track] = []
    for place in PLACES:
        numbered = _numbered(body, place)
        if numbered:
            shared = {name: body[name] for name in _SHARED.intersection(body)}
            wrong: list[str] = []
            found += _shown(read_track({**shared, **numbered}, wrong, body.path, position=place))
            problems += [f"{path}_{place}" for path in wrong]
    if not any(track.audio_url for track in found):
        own = {key: value for key, value in body.raw.items() if plain(key) not in _NAMES_OF_TASKS}
        single = _shown(read_track(own, problems, body.path))
        found += [track for track in single if track.audio_url or not found]
    if claims and problems and not any(track.audio_url for track in found):
        raise DecodeError(problems[:MAX_PATHS], where=where)
    return tuple(found)


def _numbered(body: JsonObject, place: int) -> dict[str, object]:
    """Return the keys of *body* that end in a number, without it."""
    ends = str(place)
    return {key[:-1].rstrip("_"): value for key, value in body.raw.items() if key.endswith(ends)}


def _shown(track: Track) -> Iterator[Track]:
    if track.id in NO_IDS:
        track = evolve(track, id=None)
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
