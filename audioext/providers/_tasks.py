"""What the engine's resellers say of a task, in status answers and webhooks: stage words, failures and events.

kie.ai (both routes), sunoapi.org and vidgo.ai wrap the same engine. Their bodies differ in spelling and in wrapping,
and each has been seen in more shapes than its page shows, so one reader takes them all. The documented callback of
kie.ai and sunoapi.org is read in one pass; whatever is not exactly that is read key by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from attrs import define, field, frozen

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_ID_LENGTH, MAX_PATHS, JsonObject, identity, moment, number, opened, parse_json, text
from audioext.http.messages import HttpResponse, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._answers import (
    HTTP_ERROR_FROM,
    HTTP_SERVER_ERROR_FROM,
    ID_KEYS,
    LONGEST_MESSAGE,
    OK,
    Answers,
)
from audioext.providers._tracks import MAX_TRACKS, Song, find_songs

# docs.kie.ai/suno-api/get-music-details and extend-music-callbacks, docs.sunoapi.org/suno-api/extend-music-callbacks,
# docs.kie.ai/common-api/webhook-verification (TASK_COMPLETED), docs.kie.ai/market/common/get-task-detail and
# docs.vidgo.ai/api-manual/task-management/status, read 2026-11-21. COMPLETED, SUCCESSFUL, SUCCEEDED and their like:
# public clients of the vendors and of their siblings, which meet or guard against them.
STAGES: Mapping[str, Stage] = {
    **dict.fromkeys(("TEXT", "TEXT_SUCCESS"), Stage.TEXT),
    **dict.fromkeys(("FIRST", "FIRST_SUCCESS"), Stage.FIRST),
    **dict.fromkeys(("COMPLETE", "COMPLETED", "TASK_COMPLETED", "SUCCESS", "SUCCEEDED", "SUCCEED"), Stage.COMPLETE),
    **dict.fromkeys(("SUCCESSFUL", "FINISHED", "FINISH", "DONE"), Stage.COMPLETE),
}
RUNNING = frozenset(
    {
        *("PENDING", "WAITING", "QUEUED", "QUEUING", "QUEUEING", "IN_QUEUE", "GENERATING", "PROCESSING", "RUNNING"),
        *("IN_PROGRESS", "NOT_STARTED", "STARTED", "SUBMITTED", "CREATED"),
    }
)
CALLBACK_EXCEPTION = "CALLBACK_EXCEPTION"
"""The vendor could not deliver to us: a complaint about our endpoint, not about the music."""
_GIVEN_UP = frozenset({"CANCELLED", "CANCELED", "REJECTED", "TIMEOUT", "TIMED_OUT", "UNSUCCESSFUL"})
_SAY_NOTHING = frozenset({"FAIL", "FAILED", "ERROR"})
_REFUNDED = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SUCCESS_CODES = frozenset({None, "0", *map(str, range(200, 300))})

_WRAPPERS = ("data", "response", "result", "payload", "body", "task")
_MAX_LAYERS = 4
_CODE_KEYS = ("errorcode", "failcode")
_TEXT_KEYS = (
    *("errormessage", "errormsg", "failmsg", "failreason", "failurereason", "failmessage", "error", "reason"),
    *("statusmsg", "detail"),
)
_PLEASANTRIES = frozenset({"", "success", "ok", "all generated successfully"})


def plain_word(word: str) -> str:
    """Return a status word in capitals, with underscores between its parts."""
    return word.strip().upper().replace(" ", "_").replace("-", "_")


def names_failure(word: str) -> bool:
    """Say whether a plain word means that there will be no result; vendors invent words with FAIL and ERROR in them."""
    return "FAIL" in word or "ERROR" in word or word in _GIVEN_UP


@frozen(kw_only=True)
class Dialect:
    """What differs between the vendors' tasks.

    `reasons` are the failure codes that a vendor lists; `failed_codes` are those of a status answer that fail the task,
    not the call. `judges_code` says whether an envelope's code may fail a task that a webhook shows. `charged` is what
    a failed task costs; `None` where no page says.
    """

    reasons: Mapping[str, FailureReason] = field(factory=dict)
    failed_codes: frozenset[int] = frozenset()
    judges_code: bool = True
    charged: bool | None = None


@define(kw_only=True)
class Seen:
    """What a body says of a task, before it is judged. `word` is plain, `raw_word` as it came."""

    task_ids: tuple[str, ...]
    word: str | None
    raw_word: str | None
    code: str | None
    own_code: str | None
    texts: list[str]
    tracks: tuple[Track, ...]
    credits: float | None
    problems: list[str]

    @property
    def task_id(self) -> str | None:
        """The task that it names first."""
        return self.task_ids[0] if self.task_ids else None

    @property
    def stage(self) -> Stage | None:
        """The stage that its word means."""
        return STAGES.get(self.word or "")

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of any task."""
        return not (self.task_ids or self.word or self.tracks)


# --- webhooks ----------------------------------------------------------------------------------------------------


@define
class _CallbackData:
    callbackType: str  # noqa: N815 - the wire's spelling
    task_id: str
    data: list[Song]
    taskId: str | None = None  # noqa: N815 - the wire's spelling


@define
class _Callback:
    """The callback that the pages of kie.ai and sunoapi.org show."""

    code: int
    data: _CallbackData
    taskId: str | None = None  # noqa: N815 - the wire's spelling
    task_id: str | None = None


_CALLBACKS = msgspec.json.Decoder(_Callback)
_CALLBACK_STAGES = {"text": Stage.TEXT, "first": Stage.FIRST, "complete": Stage.COMPLETE}


def delivered_events(body: bytes, dialect: Dialect) -> tuple[Event, ...]:
    """Return what the body of a webhook means.

    Raises:
        WebhookError: its task ids disagree (400).
        DecodeError: it cannot be read, or says nothing of a task.
    """
    plain = _plain_callback(body)
    if plain is not None:
        return (plain,)
    value = parse_json(body, where="the webhook")
    seen = read_task(value, where="the webhook")
    if len(seen.task_ids) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if seen.is_empty and (seen.code in _SUCCESS_CODES or not dialect.judges_code):
        raise DecodeError(seen.problems[:MAX_PATHS] or ["required field missing @ $.data"], where="the webhook")
    return task_events(seen, dialect, delivered=True, where="the webhook")


def _plain_callback(body: bytes) -> Progress | None:
    """Return what a callback means that is exactly as documented, and shows playable tracks; else `None`."""
    try:
        callback = _CALLBACKS.decode(body)
    except (ValueError, RecursionError):
        return None
    data = callback.data
    stage = _CALLBACK_STAGES.get(data.callbackType)
    other_ids = data.taskId or callback.taskId or callback.task_id
    if callback.code != 200 or stage is None or other_ids or not 0 < len(data.data) <= MAX_TRACKS:  # noqa: PLR2004 - success
        return None
    if not 0 < len(data.task_id) <= MAX_ID_LENGTH or not data.task_id.isprintable():
        return None
    tracks = tuple([song.track(whole=stage is Stage.COMPLETE) for song in data.data])
    for track in tracks:
        if not track.id or not (track.audio_url or (stage is Stage.TEXT and track.stream_url)):
            return None
    return Progress(task_id=data.task_id, claimed_stage=stage, tracks=tracks)


# --- status answers ----------------------------------------------------------------------------------------------


def status_events(answers: Answers, response: HttpResponse, dialect: Dialect) -> tuple[Event, ...]:
    """Return what a status answer means.

    A task that is named with its status is judged by that, whatever the code beside it says.

    Raises:
        ProviderError: the call was refused, or names no task; that says nothing of the task.
        DecodeError: the answer cannot be read.
    """
    answer = answers.parse_any(response)
    refused = answer.code != OK or answer.failed
    try:
        seen = read_task(answer.body, where="the status")
    except DecodeError:
        if refused:
            raise answers.error(response, answer) from None
        raise
    named = seen.word is not None and (seen.task_id is not None or response.status < HTTP_ERROR_FROM)
    broken = response.status >= HTTP_SERVER_ERROR_FROM
    if refused and not named and answer.has_code and answer.code in dialect.failed_codes and not broken:
        return (_failed(seen, dialect),)
    if refused and not named:
        raise answers.error(response, answer)
    if seen.is_empty and not seen.problems:
        if answer.data in (None, ""):
            raise answers.no_task(response)
        raise DecodeError(["expected an object with a task @ $.data"], where="the status")
    return task_events(seen, dialect, delivered=False, where="the status")


# --- any body ----------------------------------------------------------------------------------------------------


def read_task(value: object, *, where: str) -> Seen:
    """Return what a parsed body says of a task: a status answer or a webhook, bare or wrapped.

    Raises:
        DecodeError: it is no object, or an id or a status word has the wrong type.
    """
    if not isinstance(value, dict):
        raise DecodeError(["expected an object @ $"], where=where)
    layers = _layers(value)
    ids = dict.fromkeys(named_tasks(layers))
    raw_word = _word(layers)
    word = plain_word(raw_word) if raw_word else None
    problems: list[str] = []
    songs = find_songs(layers, problems)
    created_at = next((found for layer in layers if (found := moment(layer.get("createdtime")))), None)
    whole = STAGES.get(word or "") is Stage.COMPLETE or word == CALLBACK_EXCEPTION
    costs = (number(layer.get(key)) for layer in layers for key in ("creditsconsumed", "creditsamount"))
    return Seen(
        task_ids=tuple(ids),
        word=word,
        raw_word=raw_word,
        code=next((text(layer["code"]) for layer in layers if layer.get("code") is not None), None),
        own_code=next((code for layer in layers for key in _CODE_KEYS if (code := text(layer.get(key)))), None),
        texts=list(dict.fromkeys(_texts(layers))),
        tracks=tuple(song.track(whole=whole, created_at=created_at) for song in songs),
        credits=next((cost for cost in costs if cost is not None), None),
        problems=problems,
    )


def _layers(value: Mapping[str, object]) -> tuple[JsonObject, ...]:
    """Return the objects of a body that speak of its task, from the outside in."""
    layers = [JsonObject(value)]
    while len(layers) < _MAX_LAYERS:
        outer = layers[-1]
        inner = ((key, found) for key in _WRAPPERS if isinstance(found := opened(outer.get(key)), dict) and found)
        key, found = next(inner, ("", None))
        if not isinstance(found, dict):
            break
        layers.append(JsonObject(found, outer.path_of(key)))
    return tuple(layers)


def named_tasks(layers: Sequence[JsonObject]) -> Iterator[str]:
    """Yield the task ids in the objects of a body, that of the task's own object first: the second, if there is one.

    Raises:
        DecodeError: one is no id.
    """
    for layer in (*layers[1:2], *layers[:1], *layers[2:]):
        for key in ID_KEYS:
            for value in layer.every(key) if key in layer else ():
                found = identity(value, layer.path_of(key))
                if found:
                    yield found


def _word(layers: Sequence[JsonObject]) -> str | None:
    """Return the word for where the task is: a callback's type, else the status of the task's own object."""
    ordered = (*layers[1:2], *layers[:1], *layers[2:])
    wrong: str | None = None
    for keys in (("callbacktype",), ("status", "state", "taskstatus")):
        for layer in ordered:
            for key in keys:
                value = layer.get(key)
                if isinstance(value, str) and value.strip():
                    return value
                if value is not None and not isinstance(value, (str, bool, int)):
                    wrong = wrong or layer.path_of(key)
    if wrong is not None:
        raise DecodeError([f"expected a status word @ {wrong}"])
    return None


def _texts(layers: Sequence[JsonObject]) -> Iterator[str]:
    """Yield what a body says to people, the envelope's own words first."""
    for key in ("msg", "message"):
        for layer in layers:
            yield from _words(layer.get(key))
    for layer in layers:
        for key in _TEXT_KEYS:
            yield from _words(layer.get(key))
    # docs.kie.ai/suno-api/replace-section shows the text beside the tracks; it has been seen in their place too.
    for layer in layers[1:]:
        if isinstance(layer.get("data"), str):
            yield from _words(layer["data"])


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if value.strip().lower().rstrip(".! ") not in _PLEASANTRIES:
            yield value.strip()
    elif isinstance(value, dict):
        for key in ("message", "msg", "detail", "reason", "error"):
            yield from _words(value.get(key))


def task_events(seen: Seen, dialect: Dialect, *, delivered: bool, where: str) -> tuple[Event, ...]:
    """Return what *seen* means; in a webhook an unclear word makes a status call due.

    A code of failure is not believed beside a known stage and its tracks: interim callbacks like that were seen.

    Raises:
        DecodeError: it claims a file, and the only links cannot be read.
    """
    stage, word = seen.stage, seen.word
    bad_code = dialect.judges_code and delivered and seen.code not in _SUCCESS_CODES
    shown = bool(seen.tracks)
    if word != CALLBACK_EXCEPTION and ((word and names_failure(word)) or (bad_code and not (stage and shown))):
        kept = shown or seen.credits is not None
        progress = Progress(task_id=seen.task_id, tracks=seen.tracks, credits=seen.credits)
        return (*((progress,) if kept else ()), _failed(seen, dialect))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=where)
    if word == CALLBACK_EXCEPTION:
        whole = shown and not delivered and all(track.audio_url for track in seen.tracks)
        stage = Stage.COMPLETE if whole else None
        unclear = None if whole or delivered else word
        ask_now = delivered
    else:
        unclear = seen.raw_word if word and stage is None and word not in RUNNING else None
        ask_now = delivered and (unclear is not None or bad_code or (word is None and shown))
    return (
        Progress(
            task_id=seen.task_id,
            claimed_stage=stage,
            tracks=seen.tracks,
            credits=seen.credits,
            word=unclear,
            ask_now=ask_now,
        ),
    )


def _failed(seen: Seen, dialect: Dialect) -> Failed:
    word = seen.word or ""
    code = seen.own_code or (seen.code if seen.code not in _SUCCESS_CODES else None)
    if "SENSITIVE" in word:
        reason = FailureReason.CONTENT
    else:
        made = "CREATE" in word or "GENERATE" in word
        reason = dialect.reasons.get(code or "", FailureReason.GENERATION if made else FailureReason.UNKNOWN)
    if code is None and word and word not in _SAY_NOTHING:
        code = seen.raw_word
    message = " ".join(seen.texts) or seen.raw_word or (f"code {code}" if code else "no reason was given")
    return Failed(
        task_id=seen.task_id,
        reason=reason,
        code=code,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        charged=False if code in _REFUNDED else dialect.charged,
    )
