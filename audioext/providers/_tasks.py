"""What the engine's resellers say of a task, in status answers and webhooks: stage words, failures and events.

kie.ai (both routes), sunoapi.org and vidgo.ai wrap the same engine. Their bodies differ in spelling and in wrapping,
and each has been seen in more shapes than its page shows, so one reader takes them all. The documented callback of
kie.ai and sunoapi.org is read in one pass, by `_callback`; whatever is not exactly that is read here, key by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field, frozen

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, identity, moment, number, opened, parse_json, plain, text
from audioext.http.messages import HttpResponse, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._answers import (
    CONTENT_WORDS,
    HTTP_ERROR_FROM,
    HTTP_SERVER_ERROR_FROM,
    ID_KEYS,
    LONGEST_MESSAGE,
    Answers,
    words,
)
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
_NO_CALLBACK = "the provider's callback failed, and its status shows no track"
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
    **dict.fromkeys((*LISTS, "conversion"), "list"),
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


# --- reading ---------------------------------------------------------------------------------------------------------

_Values = list[tuple[int, object, str]]
"""Values with the index of the object that they stand in, and their path."""


@define
class Body:
    """What a parsed body says of a task: a status answer or a webhook, bare or wrapped.

    `layers` are its objects with their paths, from the outside in, and `problems` what could not be read in them.
    `raw_word` says where the task is, as it came, and `word` as a plain word; `tracks` are looked for unless asked not
    to. Raises DecodeError if it is no object, or an id or a status word has the wrong type.
    """

    value: object
    where: str
    finds_tracks: bool = True
    problems: list[str] = field(factory=list)
    layers: list[tuple[dict[str, object], str]] = field(init=False)
    task_ids: tuple[str, ...] = field(init=False)
    raw_word: str = field(init=False)
    word: str = field(init=False)
    stage: Stage | None = field(init=False)
    tracks: tuple[Track, ...] = ()
    _found: dict[str, _Values] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Look once at every key of every object, and open the JSON texts among them."""
        if not isinstance(self.value, dict):
            raise DecodeError(["expected an object @ $"], where=self.where)
        self.layers = [(self.value, "$")]
        for index, (layer, path) in enumerate(self.layers):
            for key, raw in layer.items():
                role = _ROLES.get(plain(key))
                if role is None or raw is None or raw == "":
                    continue
                at = f"{path}.{key}"
                item = opened(raw) if role == "list" else raw
                if role == "list" and isinstance(item, dict) and len(self.layers) < MAX_LAYERS:
                    self.layers.append((item, at))
                elif role == "list" and isinstance(item, str) and item.lstrip()[:1] in {"{", "["}:
                    self.problems.append(f"expected JSON in the text @ {at}")
                self._found.setdefault(role, []).append((index, item, at))
        self.task_ids = self._read_ids()
        self.raw_word = self._read_word()
        self.word = plain_word(self.raw_word)
        self.stage = STAGES.get(self.word)
        if self.finds_tracks:
            self.tracks = self._read_tracks()

    def _read_ids(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for _, item, path in self._own_first("id"):
            id_ = identity(item)
            if id_ is None:
                raise DecodeError([f"expected an id @ {path}"], where=self.where)
            found[id_] = None
        return tuple(found)

    def _read_word(self) -> str:
        # A callback's type, else the status of the task's own object.
        named = (*self._own_first("type"), *self._own_first("status"))
        for _, item, _ in named:
            if isinstance(item, str) and item.strip():
                return item
        for _, item, path in named:
            if not isinstance(item, (str, bool, int)):  # an envelope may have a number there, and means HTTP's
                raise DecodeError([f"expected a status word @ {path}"], where=self.where)
        return ""

    def _read_tracks(self) -> tuple[Track, ...]:
        lists: list[tuple[Sequence[object], str]] = [
            (item, path) for _, item, path in self._found.get("list", ()) if isinstance(item, list)
        ]
        bare = dict.fromkeys(index for index, _, _ in self._found.get("song", ()))
        lists += [([self.layers[index][0]], self.layers[index][1]) for index in bare]
        times = (moment(item) for _, item, _ in self._found.get("time", ()))
        whole, created_at = self.stage is Stage.COMPLETE, next(filter(None, times), None)
        return find_tracks(lists, self.problems, whole=whole, created_at=created_at)

    def _own_first(self, role: str) -> Sequence[tuple[int, object, str]]:
        # The task's own object is the second, where there is one.
        values = self._found.get(role, ())
        return sorted(values, key=lambda value: value[0] != 1) if len(values) > 1 else values

    @property
    def task_id(self) -> str | None:
        """The task that it names first."""
        return self.task_ids[0] if self.task_ids else None

    def first(self, role: str) -> str | None:
        """Return the first text or number in a role, as text."""
        return next((found for _, item, _ in self._found.get(role, ()) if (found := text(item))), None)

    @property
    def credits(self) -> float | None:
        """What the task cost."""
        return next(
            (found for _, item, _ in self._found.get("credits", ()) if (found := number(item)) is not None), None
        )

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of any task."""
        return not (self.task_ids or self.raw_word or self.tracks)

    def says(self) -> Iterator[str]:
        """Yield what it says to people, but for pleasantries."""
        for name in _TEXT_KEYS:
            for layer, _ in self.layers:
                for key, item in layer.items():
                    if plain(key) == name and words(item).lower().rstrip(".! ") not in _PLEASANTRIES:
                        yield words(item)
        # docs.kie.ai/suno-api/replace-section shows a text beside the tracks; it has been seen instead of them, too.
        yield from (item for layer, _ in self.layers[1:] if isinstance(item := layer.get("data"), str) and item)


# --- judging ---------------------------------------------------------------------------------------------------------


def delivered_events(data: bytes, dialect: Dialect) -> tuple[Event, ...]:
    """Return what a webhook means; raises WebhookError (400) if its ids disagree, DecodeError if it says nothing."""
    where = "the webhook"
    body = Body(parse_json(data, where=where), where)
    if len(body.task_ids) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if body.is_empty and (body.first("code") in _SUCCESS_CODES or not dialect.judges_code):
        raise DecodeError(body.problems[:MAX_PATHS] or ["required field missing @ $.data"], where=where)
    return _events(body, dialect, delivered=True)


def status_events(answers: Answers, response: HttpResponse, dialect: Dialect) -> tuple[Event, ...]:
    """Return what a status answer means; raises ProviderError if the call was refused or names no task, or DecodeError.

    A task that is named with its status is judged by that, whatever the code beside it says.
    """
    answer = answers.parse_any(response)
    try:
        body = Body(answer.body, "the status")
    except DecodeError:
        if not answer.is_good:
            raise answers.error(response, answer) from None
        raise
    named = body.raw_word and (body.task_id is not None or response.status < HTTP_ERROR_FROM)
    if not answer.is_good and not named:
        broken = response.status >= HTTP_SERVER_ERROR_FROM
        if answer.has_code and answer.code in dialect.failed_codes and not broken:
            return (_failed(body, dialect),)
        raise answers.error(response, answer)
    if body.is_empty and not body.problems:
        if answer.data in (None, ""):
            raise answers.no_task(response)
        raise DecodeError(["expected an object with a task @ $.data"], where=body.where)
    return _events(body, dialect, delivered=False)


def _events(seen: Body, dialect: Dialect, *, delivered: bool) -> tuple[Event, ...]:
    """Return what *seen* means; in a webhook an unclear word makes a status call due.

    A code of failure is not believed beside a known stage and its tracks: interim callbacks like that were seen.
    """
    word, stage, shown = seen.word, seen.stage, bool(seen.tracks)
    bad_code = dialect.judges_code and delivered and seen.first("code") not in _SUCCESS_CODES
    if word == CALLBACK_EXCEPTION:
        whole = shown and not delivered and all(track.audio_url for track in seen.tracks)
        # The pages only say that an error happened in the callback process. Without a track nothing may ever follow.
        if not (shown or delivered):
            return (_failed(seen, dialect, is_doubtful=True),)
        unclear = None if whole or delivered else word
        return (_progress(seen, Stage.COMPLETE if whole else None, unclear, ask_now=delivered),)
    if names_failure(word) or (bad_code and not (stage and shown)):
        kept = (_progress(seen, None, None),) if shown or seen.credits is not None else ()
        return (*kept, _failed(seen, dialect))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=seen.where)
    unclear = seen.raw_word if word and stage is None and word not in RUNNING else None
    unsure = unclear is not None or bad_code or (not word and shown)
    return (_progress(seen, stage, unclear, ask_now=delivered and unsure),)


def _progress(seen: Body, stage: Stage | None, word: str | None, *, ask_now: bool = False) -> Progress:
    return Progress(
        task_id=seen.task_id,
        claimed_stage=stage,
        tracks=seen.tracks,
        credits=seen.credits,
        word=word,
        ask_now=ask_now,
    )


def _failed(seen: Body, dialect: Dialect, *, is_doubtful: bool = False) -> Failed:
    word = seen.word
    code, outer = seen.first("own code"), seen.first("code")
    code = code or (outer if outer not in _SUCCESS_CODES else None)
    if "SENSITIVE" in word:
        reason = FailureReason.CONTENT
    else:
        made = "CREATE" in word or "GENERATE" in word
        reason = dialect.reasons.get(code or "", FailureReason.GENERATION if made else FailureReason.UNKNOWN)
    if code is None and word not in _SAY_NOTHING:
        code = seen.raw_word
    said = (*seen.says(), *([_NO_CALLBACK] if is_doubtful else ()))
    message = " ".join(dict.fromkeys(said)) or seen.raw_word or (f"code {code}" if code else "no words")
    if reason is FailureReason.UNKNOWN and CONTENT_WORDS.search(message):
        reason = FailureReason.CONTENT
    return Failed(
        task_id=seen.task_id,
        reason=reason,
        code=code,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        charged=False if code in _REFUNDED else dialect.charged,
        is_doubtful=is_doubtful,
    )
