"""What the engine's resellers say of a task, in status answers and webhooks: stage words, failures and events.

kie.ai (both routes), sunoapi.org and vidgo.ai wrap the same engine. Their bodies differ in spelling and in wrapping,
and each has been seen in more shapes than its page shows, so one reader takes them all. The documented callback of
kie.ai and sunoapi.org is read in one pass, by `_callback`; whatever is not exactly that is read here, key by key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field, frozen

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, identity, moment, number, opened, parse_json, plain, plain_keys, text
from audioext.http.messages import HttpResponse, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._answers import HTTP_ERROR_FROM, ID_KEYS, LONGEST_MESSAGE, Answers
from audioext.providers._tracks import KEYS, LISTS, MAX_TRACKS, SHOWING, find_tracks
from audioext.providers._words import CONTENT_WORDS, StatusWord, all_said, says_no, status_word

_SAY_NOTHING = frozenset({"", "FAIL", "FAILED", "ERROR"})
_REFUNDED = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SUCCESS_CODES = frozenset({None, "0", *map(str, range(200, 300))})

MAX_LAYERS = 12  # objects of a body that are looked into; real ones have 2 to 4
MAX_NODES = 64  # lists and objects in which tracks are looked for where no known key has them
_NAMING_A_TRACK = SHOWING | {plain(key) for key in KEYS["id"][1]}
_ROLES = {
    **dict.fromkeys(SHOWING, "song"),
    **dict.fromkeys((*LISTS, "conversion"), "list"),
    **dict.fromkeys(ID_KEYS, "id"),
    "callbacktype": "type",
    **dict.fromkeys(("status", "state", "taskstatus", "stage", "successflag"), "status"),
    **dict.fromkeys(("success", "ok"), "success"),
    "code": "code",
    **dict.fromkeys(("errorcode", "failcode"), "own code"),
    "createdtime": "time",
    "creditsconsumed": "credits",
}
"""What stands under a plain key of a body's objects."""


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


_ABOUT_A_TASK = frozenset({"id", "type", "status", "list", "song"})
"""Roles by which an object is known to speak of a task; one with none of them is a mere wrapper."""
_ECHO = re.compile("param|input|request|source|upload|origin|parent|reference|setting|header|callback")
"""In a plain key, it tells of what was asked for, which is no result."""


@define
class Body:
    """What a parsed body says of a task: a status answer or a webhook, bare or wrapped.

    `layers` are its objects with their paths, from the outside in, and `problems` what could not be read in them.
    `word` says where the task is; `tracks` are looked for unless asked not to. Raises DecodeError if it is no object,
    or an id or a status word has the wrong type.
    """

    value: object
    where: str
    finds_tracks: bool = True
    problems: list[str] = field(factory=list)
    layers: list[tuple[dict[str, object], str]] = field(init=False)
    task_ids: tuple[str, ...] = field(init=False)
    word: StatusWord = field(init=False)
    tracks: tuple[Track, ...] = ()
    _found: dict[str, _Values] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Look once at every key of every object, and open the JSON texts among them."""
        value = self.value[0] if isinstance(self.value, list) and len(self.value) == 1 else self.value
        if not isinstance(value, dict):
            raise DecodeError(["expected an object @ $"], where=self.where)
        self.layers = [(value, "$")]
        for index, (layer, path) in enumerate(self.layers):
            wraps = True
            for key, raw in layer.items():
                role = _ROLES.get(plain(key))
                if role is None or raw is None or raw == "":
                    continue
                wraps = wraps and role not in _ABOUT_A_TASK
                at = f"{path}.{key}"
                item = _opened_task(raw) if role == "list" else raw
                if role == "list" and isinstance(item, dict) and len(self.layers) < MAX_LAYERS:
                    self.layers.append((item, at))
                elif role == "list" and isinstance(item, str) and item.lstrip()[:1] in {"{", "["}:
                    self.problems.append(f"expected JSON in the text @ {at}")
                self._found.setdefault(role, []).append((index, item, at))
            if wraps:
                self._unwrap(layer, path)
        self.task_ids = self._read_ids()
        self.word = self._read_word()
        if self.finds_tracks:
            self.tracks = self.find_tracks()

    def _unwrap(self, layer: Mapping[str, object], path: str) -> None:
        """Look into all that an object holds which says nothing of a task itself."""
        for key, raw in layer.items():
            item = _opened_task(raw)
            if isinstance(item, dict) and len(self.layers) < MAX_LAYERS and not _ECHO.search(plain(key)):
                self.layers.append((item, f"{path}.{key}"))

    def _read_ids(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for _, item, path in self._own_first("id"):
            id_ = identity(item)
            if id_ is None:
                raise DecodeError([f"expected an id @ {path}"], where=self.where)
            found[id_] = None
        return tuple(found)

    def _read_word(self) -> StatusWord:
        # A callback's type, else the status of the task's own object.
        named = (*self._own_first("type"), *self._own_first("status"))
        for _, item, _ in named:
            if isinstance(item, str) and item.strip():
                return status_word(item)
        for _, item, path in named:
            if not isinstance(item, (str, bool, int)):  # an envelope may have a number there, and means HTTP's
                raise DecodeError([f"expected a status word @ {path}"], where=self.where)
        return StatusWord()

    def find_tracks(self) -> tuple[Track, ...]:
        """Return the tracks under the known keys, else those that show audio under any other."""
        lists: list[tuple[Sequence[object], str]] = [
            (item if isinstance(item, list) else [item], path)
            for _, item, path in self._found.get("list", ())
            if isinstance(item, (list, str))
        ]
        bare = sorted({index for index, _, _ in self._found.get("song", ())})
        if bare:
            lists.append(([self.layers[index][0] for index in bare], self.layers[bare[0]][1]))
        times = (moment(item) for _, item, _ in self._found.get("time", ()))
        whole, created_at = self.word.stage is Stage.COMPLETE, next(filter(None, times), None)
        found = find_tracks(lists, self.problems, whole=whole, created_at=created_at)
        if found or self.problems or self.word.runs:
            return found
        for values in self._elsewhere():
            tracks = find_tracks([(values, "$")], [], whole=whole, created_at=created_at)
            audible = tuple(track for track in tracks if track.audio_url or track.stream_url)
            if audible:
                return audible
        return ()

    def _elsewhere(self) -> Iterator[Sequence[object]]:
        """Yield the objects that stand side by side, in any list or object but those that repeat the request."""
        nodes: list[object] = [layer for layer, _ in self.layers]
        for node in nodes:
            items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            inner = [opened(item) for key, item in items if not _ECHO.search(plain(str(key)))]
            beside = [item for item in inner if isinstance(item, dict)]
            yield [item for item in beside if not _NAMING_A_TRACK.isdisjoint(map(plain, item))][:MAX_TRACKS]
            nodes += [item for item in inner if isinstance(item, (dict, list))][: max(0, MAX_NODES - len(nodes))]

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
        return next((found for _, item, _ in self._found.get(role, ()) if (found := (text(item) or "").strip())), None)

    @property
    def credits(self) -> float | None:
        """What the task cost."""
        return next(
            (found for _, item, _ in self._found.get("credits", ()) if (found := number(item)) is not None), None
        )

    @property
    def says_no(self) -> bool:
        """Whether it says `"success": false`."""
        return any(says_no(item) for _, item, _ in self._found.get("success", ()))

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of any task."""
        return not (self.task_ids or self.word.name or self.tracks)

    def says(self) -> Iterator[str]:
        """Yield what it says to people, but for pleasantries."""
        for layer, _ in self.layers:
            yield from all_said(plain_keys(layer))
        # docs.kie.ai/suno-api/replace-section shows a text beside the tracks; it has been seen instead of them, too.
        yield from (item for layer, _ in self.layers[1:] if isinstance(item := layer.get("data"), str) and item)


def _opened_task(raw: object) -> object:
    """Return what is in *raw*, JSON in a text too; a list of one object that is no track counts as the object."""
    item = opened(raw)
    only = opened(item[0]) if isinstance(item, list) and len(item) == 1 else None
    return only if isinstance(only, dict) and _NAMING_A_TRACK.isdisjoint(map(plain, only)) else item


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
    named = body.word.name and (body.task_id is not None or response.status < HTTP_ERROR_FROM)
    if not answer.is_good and not named:
        if answer.has_code and answer.code in dialect.failed_codes:
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
    word, stage, shown = seen.word, seen.word.stage, bool(seen.tracks)
    bad_code = dialect.judges_code and delivered and seen.first("code") not in _SUCCESS_CODES
    bad = bad_code or (seen.says_no and (delivered or not word.name))
    if word.complains:
        whole = shown and not delivered and all(track.audio_url for track in seen.tracks)
        unclear = None if whole or delivered else word.name
        return (_progress(seen, Stage.COMPLETE if whole else None, unclear, ask_now=delivered),)
    if word.fails or (bad and not (stage and shown)):
        kept = (_progress(seen, None, None),) if shown or seen.credits is not None else ()
        return (*kept, _failed(seen, dialect))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=seen.where)
    unsure = word.unknown is not None or bad or (not word.name and shown)
    return (_progress(seen, stage, word.unknown, ask_now=delivered and unsure),)


def _progress(seen: Body, stage: Stage | None, word: str | None, *, ask_now: bool = False) -> Progress:
    return Progress(
        task_id=seen.task_id,
        claimed_stage=stage,
        tracks=seen.tracks,
        credits=seen.credits,
        word=word,
        ask_now=ask_now,
    )


def _failed(seen: Body, dialect: Dialect) -> Failed:
    word = seen.word
    code, outer = seen.first("own code"), seen.first("code")
    code = code or (outer if outer not in _SUCCESS_CODES else None)
    message = " ".join(dict.fromkeys(seen.says())) or word.raw or (f"code {code}" if code else "no words")
    made = "CREATE" in word.name or "GENERATE" in word.name
    reason = dialect.reasons.get(code or "", FailureReason.GENERATION if made else FailureReason.UNKNOWN)
    vague = reason in {FailureReason.GENERATION, FailureReason.UNKNOWN}
    if "SENSITIVE" in word.name or (vague and CONTENT_WORDS.search(message)):
        reason = FailureReason.CONTENT
    if code is None and word.name not in _SAY_NOTHING:
        code = word.raw
    return Failed(
        task_id=seen.task_id,
        reason=reason,
        code=code,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        charged=False if code in _REFUNDED else dialect.charged,
    )
