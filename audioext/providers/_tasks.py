"""What the engine's resellers say of a task, in status answers and webhooks: stage words, failures and events.

kie.ai (both routes), sunoapi.org and vidgo.ai wrap the same engine. Their bodies differ in spelling and in wrapping,
and each has been seen in more shapes than its page shows, so one reader takes them all. The documented callback of
kie.ai and sunoapi.org is read in one pass, by `_callback`; whatever is not exactly that is read key by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, identity, moment, number, opened, parse_json, plain, text
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
    words,
)
from audioext.providers._callback import plain_callback
from audioext.providers._tracks import LISTS, SHOWING, find_tracks

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
_SAY_NOTHING = frozenset({"", "FAIL", "FAILED", "ERROR"})
_REFUNDED = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SUCCESS_CODES = frozenset({None, "0", *map(str, range(200, 300))})
_PLEASANTRIES = frozenset({"", "success", "ok", "all generated successfully"})

MAX_LAYERS = 12  # objects of a body that are looked into; real ones have 2 to 4
_TEXT_KEYS = (
    *("msg", "message", "errormessage", "errormsg", "failmsg", "failmessage", "failreason", "failurereason"),
    *("errmsg", "failuremessage", "error", "reason", "statusmsg", "detail"),
)
"""Plain keys under which a failure's words have been seen, the envelope's own first."""
_ROLES = {
    **dict.fromkeys(SHOWING, "song"),
    **dict.fromkeys(LISTS, "list"),
    **dict.fromkeys(ID_KEYS, "id"),
    "callbacktype": "type",
    **dict.fromkeys(("status", "state", "taskstatus"), "status"),
    "code": "code",
    **dict.fromkeys(("errorcode", "failcode"), "own code"),
    "createdtime": "time",
    "creditsconsumed": "credits",
}
"""What stands under a plain key of a body's objects."""


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
    raw_word: str
    code: str | None
    own_code: str | None
    tracks: tuple[Track, ...]
    credits: float | None
    problems: list[str]
    layers: list[tuple[Mapping[str, object], str]]

    @property
    def task_id(self) -> str | None:
        """The task that it names first."""
        return self.task_ids[0] if self.task_ids else None

    @property
    def word(self) -> str:
        """The word for where the task is."""
        return plain_word(self.raw_word)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of any task."""
        return not (self.task_ids or self.raw_word or self.tracks)


def delivered_events(body: bytes, dialect: Dialect) -> tuple[Event, ...]:
    """Return what the body of a webhook means.

    Raises:
        WebhookError: its task ids disagree (400).
        DecodeError: it cannot be read, or says nothing of a task.
    """
    simple = plain_callback(body)
    if simple is not None:
        return (simple,)
    where = "the webhook"
    seen = read_task(parse_json(body, where=where), where=where)
    if len(seen.task_ids) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if seen.is_empty and (seen.code in _SUCCESS_CODES or not dialect.judges_code):
        raise DecodeError(seen.problems[:MAX_PATHS] or ["required field missing @ $.data"], where=where)
    return task_events(seen, dialect, delivered=True, where=where)


def status_events(answers: Answers, response: HttpResponse, dialect: Dialect) -> tuple[Event, ...]:
    """Return what a status answer means.

    A task that is named with its status is judged by that, whatever the code beside it says.

    Raises:
        ProviderError: the call was refused, or names no task; that says nothing of the task.
        DecodeError: the answer cannot be read.
    """
    where = "the status"
    answer = answers.parse_any(response)
    refused = answer.code != OK or answer.failed
    try:
        seen = read_task(answer.body.raw, where=where)
    except DecodeError:
        if refused:
            raise answers.error(response, answer) from None
        raise
    if refused and not (seen.raw_word and (seen.task_id is not None or response.status < HTTP_ERROR_FROM)):
        broken = response.status >= HTTP_SERVER_ERROR_FROM
        if answer.has_code and answer.code in dialect.failed_codes and not broken:
            return (_failed(seen, dialect),)
        raise answers.error(response, answer)
    if seen.is_empty and not seen.problems:
        if answer.data in (None, ""):
            raise answers.no_task(response)
        raise DecodeError(["expected an object with a task @ $.data"], where=where)
    return task_events(seen, dialect, delivered=False, where=where)


# --- reading -----------------------------------------------------------------------------------------------------


def read_task(value: object, *, where: str) -> Seen:
    """Return what a parsed body says of a task: a status answer or a webhook, bare or wrapped.

    Raises:
        DecodeError: it is no object, or an id or a status word has the wrong type.
    """
    if not isinstance(value, dict):
        raise DecodeError(["expected an object @ $"], where=where)
    layers: list[tuple[Mapping[str, object], str]] = [(value, "$")]
    problems: list[str] = []
    found = _by_role(layers, problems)
    raw_word = _word(found, where)
    bare = dict.fromkeys(index for index, _, _ in found["song"])
    lists = [(item, path) for _, item, path in found["list"] if isinstance(item, list)]
    return Seen(
        task_ids=tuple(dict.fromkeys(filter(None, (identity(item, path) for _, item, path in _own_first(found["id"]))))),
        raw_word=raw_word,
        code=next((text(item) for _, item, _ in found["code"]), None),
        own_code=next((code for _, item, _ in found["own code"] if (code := text(item))), None),
        tracks=find_tracks(
            [*lists, *(([layers[index][0]], layers[index][1]) for index in bare)],
            problems,
            whole=STAGES.get(plain_word(raw_word)) is Stage.COMPLETE,
            created_at=next((time for _, item, _ in found["time"] if (time := moment(item))), None),
        ),
        credits=next((cost for _, item, _ in found["credits"] if (cost := number(item)) is not None), None),
        problems=problems,
        layers=layers,
    )


_Places = list[tuple[int, object, str]]
"""Values with the index of their object and their path."""


def _by_role(layers: list[tuple[Mapping[str, object], str]], problems: list[str]) -> dict[str, _Places]:
    """Return what stands in a body's objects, from the outside in; inner objects are added to *layers*."""
    found: dict[str, _Places] = {role: [] for role in _ROLES.values()}
    for index, (layer, path) in enumerate(layers):
        for key, item in layer.items():
            role = _ROLES.get(plain(key))
            if role is None or item is None or item == "":
                continue
            place = f"{path}.{key}"
            if role == "list":
                item = opened(item)  # noqa: PLW2901 - the same thing, read
                if isinstance(item, dict) and len(layers) < MAX_LAYERS:
                    layers.append((item, place))
                elif isinstance(item, str) and item.lstrip()[:1] in {"{", "["}:
                    problems.append(f"expected JSON in the text @ {place}")
            found[role].append((index, item, place))
    return found


def _own_first(places: _Places) -> _Places:
    # The task's own object is the second, where there is one.
    return sorted(places, key=lambda place: place[0] != 1) if len(places) > 1 else places


def _word(found: Mapping[str, _Places], where: str) -> str:
    """Return the word for where the task is: a callback's type, else the status of the task's own object."""
    places = [*_own_first(found["type"]), *_own_first(found["status"])]
    for _, item, _ in places:
        if isinstance(item, str) and item.strip():
            return item
    for _, item, path in places:
        if not isinstance(item, (str, bool, int)):  # an envelope may have a number there, and means HTTP's
            raise DecodeError([f"expected a status word @ {path}"], where=where)
    return ""


def _says(layers: list[tuple[Mapping[str, object], str]]) -> Iterator[str]:
    """Yield what a body says to people."""
    for name in _TEXT_KEYS:
        for layer, _ in layers:
            for key, item in layer.items():
                if plain(key) == name:
                    yield words(item)
    # docs.kie.ai/suno-api/replace-section shows a text beside the tracks; it has been seen in their place too.
    for layer, _ in layers[1:]:
        yield words(layer.get("data")) if isinstance(layer.get("data"), str) else ""


# --- judging -----------------------------------------------------------------------------------------------------


def task_events(seen: Seen, dialect: Dialect, *, delivered: bool, where: str) -> tuple[Event, ...]:
    """Return what *seen* means; in a webhook an unclear word makes a status call due.

    A code of failure is not believed beside a known stage and its tracks: interim callbacks like that were seen.

    Raises:
        DecodeError: it claims a file, and the only links cannot be read.
    """
    word, shown = seen.word, bool(seen.tracks)
    stage = STAGES.get(word)
    bad_code = dialect.judges_code and delivered and seen.code not in _SUCCESS_CODES
    if word == CALLBACK_EXCEPTION:
        whole = shown and not delivered and all(track.audio_url for track in seen.tracks)
        unclear = None if whole or delivered else word
        return (_progress(seen, Stage.COMPLETE if whole else None, unclear, ask_now=delivered),)
    if names_failure(word) or (bad_code and not (stage and shown)):
        kept = (_progress(seen, None, None),) if shown or seen.credits is not None else ()
        return (*kept, _failed(seen, dialect))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=where)
    unclear = seen.raw_word if word and stage is None and word not in RUNNING else None
    unsure = unclear is not None or bad_code or (not word and shown)
    return (_progress(seen, stage, unclear, ask_now=delivered and unsure),)


def _progress(seen: Seen, stage: Stage | None, word: str | None, *, ask_now: bool = False) -> Progress:
    return Progress(
        task_id=seen.task_id,
        claimed_stage=stage,
        tracks=seen.tracks,
        credits=seen.credits,
        word=word,
        ask_now=ask_now,
    )


def _failed(seen: Seen, dialect: Dialect) -> Failed:
    word = seen.word
    code = seen.own_code or (seen.code if seen.code not in _SUCCESS_CODES else None)
    if "SENSITIVE" in word:
        reason = FailureReason.CONTENT
    else:
        made = "CREATE" in word or "GENERATE" in word
        reason = dialect.reasons.get(code or "", FailureReason.GENERATION if made else FailureReason.UNKNOWN)
    if code is None and word not in _SAY_NOTHING:
        code = seen.raw_word
    said = (item for item in _says(seen.layers) if item.lower().rstrip(".! ") not in _PLEASANTRIES)
    message = " ".join(dict.fromkeys(said)) or seen.raw_word or (f"code {code}" if code else "no reason was given")
    return Failed(
        task_id=seen.task_id,
        reason=reason,
        code=code,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        charged=False if code in _REFUNDED else dialect.charged,
    )
