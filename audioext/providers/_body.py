"""Finding a task's ids, status word, tracks and texts in a body, wherever they are and however their keys are spelled.

kie.ai (both routes), sunoapi.org and vidgo.ai wrap the same engine. Their bodies differ in spelling and nesting, and
each has been seen in more shapes than its page shows, so one reader parses them all, and those of MusicGPT.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self, TypeVar

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import identity, is_nothing, link, moment, opened, parse_json, plain, plain_keys, text
from audioext.models.results import Stage, Track
from audioext.providers._tracks import (
    AUDIO_KEYS,
    MAX_KEY_LENGTH,
    MAX_TRACKS,
    NAMING_A_TRACK,
    TRACK_KEYS,
    find_tracks,
    is_audio_file,
    read_track,
)
from audioext.providers._words import StatusWord, all_said, says_no, status_word, told

T = TypeVar("T")

MAX_KEYS = 200  # per object, or items per list; real ones have up to 30
MAX_PER_ROLE = 12  # values per role
MAX_LAYERS = 12  # nested objects that are searched; real bodies have 2 to 4
MAX_NODES = 64  # lists and objects that are searched for tracks if no known key has any
MAX_TEXTS = 200  # strings that this search tries to decode as JSON; each broken one takes a while
_LISTS = (
    *("data", "sunodata", "items", "files", "tracks", "songs", "clips", "resultjson", "response", "resultobject"),
    *("resulturls", "audiourls", "urls", "results", "result", "output", "outputs", "audios", "list", "payload", "body"),
    *("resulturl", "task", "job", "record", "conversions", "conversion"),
)
"""`plain` keys of tracks, of lists of tracks, or of objects around them: kie.ai's jobs (`resultJson`, `resultObject`,
`resultUrls`: docs.kie.ai/market/common/get-task-detail, read 2026-11-21), vidgo (`files`), and keys that clients of all
APIs read."""
_ROLES = {
    **dict.fromkeys(TRACK_KEYS, "song"),
    **dict.fromkeys(_LISTS, "list"),
    "taskid": "id",
    **dict.fromkeys(("conversiontaskid", "jobid"), "other id"),
    **dict.fromkeys(("taskids", "jobids"), "ids"),
    "callbacktype": "type",
    **dict.fromkeys(("type", "event", "eventtype"), "kind"),
    **dict.fromkeys(("status", "state", "taskstatus", "stage"), "status"),
    "successflag": "flag",
    **dict.fromkeys(("success", "ok", "issuccess", "succeeded"), "success"),
    **dict.fromkeys(("code", "statuscode"), "code"),
    **dict.fromkeys(("errorcode", "errcode", "failcode", "failurecode"), "own code"),
    "createdtime": "time",
    "creditsconsumed": "credits",
}
"""The role of each known `plain` key."""
_ABOUT_A_TASK = frozenset({"id", "other id", "type", "status", "flag", "list", "song"})
"""An object with one of these roles is about a task; without any it is only a wrapper."""
_FLAGS = {"0": "GENERATING", "1": "SUCCESS", "2": "CREATE_TASK_FAILED", "3": "GENERATE_FAILED"}
"""The status words of `successFlag`: docs.kie.ai's pages of its other models."""
_CALLBACK_TYPES = frozenset({"text", "first", "complete", "error"})
"""The values of `callbackType`, which identify it under another key as well."""
_REQUEST_KEYS = re.compile("param|input|request|source|upload|origin|parent|reference|setting|header|callback")
"""Matches `plain` keys that repeat the request, and so hold no result."""


@functools.lru_cache(maxsize=2_048)
def _role(key: str) -> str | None:
    return _ROLES.get(plain(key))


class Body:
    """A parsed body about a task. Raises DecodeError if it is not an object, or an id or status word has a wrong type.

    `layers` are its nested objects with their JSON paths, the outermost first, `outer` is the first one by `plain`
    keys, and `problems` are the values that could not be read.
    """

    def __init__(self, value: object, where: str) -> None:
        """Look at each key of each object once, and decode strings of JSON."""
        if isinstance(value, list) and value:
            several: dict[str, object] = {"data": value}
            value = opened(value[0]) if len(value) == 1 else several
        if not isinstance(value, dict):
            raise DecodeError(["expected an object @ $"], where=where)
        self.where = where
        self.problems: list[str] = []
        self.outer = plain_keys(value)
        self.layers: list[tuple[dict[str, object], str]] = [(value, "$")]
        self._found: dict[str, list[tuple[int, object, str]]] = {}  # by role: index in `layers`, value, JSON path
        for index, (layer, path) in enumerate(self.layers):
            if not self._look_at(index, layer, path):
                is_wrapper = index == 0 and len(layer) == 1  # a lone key wraps the result, whatever its name
                for key, raw in itertools.islice(layer.items(), MAX_KEYS):
                    if is_wrapper or not _REQUEST_KEYS.search(plain(key)):
                        self._open(raw, f"{path}.{key}")

    @classmethod
    def delivered(cls, data: bytes) -> Self:
        """Parse a webhook; raises DecodeError, or WebhookError (400) if it names several tasks."""
        body = cls(parse_json(data, where="the webhook"), "the webhook")
        if len(body.task_ids) > 1:
            raise WebhookError("the webhook names more than one task", http_status=400)
        return body

    def _look_at(self, index: int, layer: Mapping[str, object], path: str) -> bool:
        """Collect the values of an object's known keys, and say whether it is about a task."""
        speaks = False
        for key, raw in itertools.islice(layer.items(), MAX_KEYS):
            role = None if raw is None or raw == "" or len(key) > MAX_KEY_LENGTH else _role(key)
            if role is None:
                continue
            speaks = speaks or role in _ABOUT_A_TASK
            values = self._found.setdefault(role, [])
            if len(values) >= MAX_PER_ROLE:
                continue
            at, item = f"{path}.{key}", raw
            if role == "list":
                item = self._open(raw, at)
                if isinstance(item, str) and item.lstrip()[:1] in {"{", "["}:
                    self.problems.append(f"expected JSON in the text @ {at}")
            values.append((index, item, at))
        return speaks

    def _open(self, raw: object, path: str) -> object:
        """Decode JSON text, unwrap a list of one object unless it is a mere track, and make objects layers."""
        item = opened(raw)
        only = opened(item[0]) if isinstance(item, list) and len(item) == 1 else None
        if isinstance(only, dict) and (not _names_a_track(only) or self._is_task(only)):
            item = only
        if isinstance(item, dict) and len(self.layers) < MAX_LAYERS:
            self.layers.append((item, path))
        return item

    def _is_task(self, track: Mapping[str, object]) -> bool:
        """Say whether a track is the task as well: it names it, and nothing outside does, as of a list of several."""
        return "taskid" in map(plain, track) and not any("taskid" in map(plain, layer) for layer, _ in self.layers)

    def _own_first(self, role: str) -> Sequence[tuple[int, object, str]]:
        # The second layer, if there is one, is the task's own object.
        values = self._found.get(role, ())
        return sorted(values, key=lambda value: value[0] != 1) if len(values) > 1 else values

    @functools.cached_property
    def task_ids(self) -> tuple[str, ...]:
        """All different task ids in the body, the likeliest first; a job's id counts only if no key says task."""
        own = self._own_first("id")
        if not any(identity(item) for _, item, _ in own):
            own = (*own, *self._own_first("other id"))
        named = [(item, path) for _, item, path in own]
        named += [(each, path) for _, item, path in self._found.get("ids", ()) for each in _several(item)]
        found = tuple(dict.fromkeys(id_ for item, _ in named if (id_ := identity(item)) is not None))
        wrong = [path for item, path in named if not is_nothing(item)]
        if wrong and not found:
            raise DecodeError([f"expected an id @ {wrong[0]}"], where=self.where)
        return found

    @property
    def task_id(self) -> str | None:
        """The likeliest task id."""
        return next(iter(self.task_ids), None)

    @functools.cached_property
    def word(self) -> StatusWord:
        """The task's status word: a callback's type, else the status in the task's own object, else a flag.

        An unknown word yields to a known one beside it, as `stage` may be to `status`. A word for done beside an empty
        `data`, without a task's id or a result, says that the call succeeded.
        """
        named = (*self._own_first("type"), *self._own_first("status"))
        words = [(index, status_word(item)) for index, item, _ in named if isinstance(item, str) and item.strip()]
        if words:
            index, first = words[0]
            known = (word for at, word in words if at == index and word.unknown is None)
            word = first if "type" in self._found else next(known, first)
            shows = "song" in self._found or any(item for _, item, _ in self._found.get("list", ()))
            is_of_call = self.may_be_of_call and not self.outer.get("data", True) and not shows
            return StatusWord() if word.stage is Stage.COMPLETE and is_of_call else word
        for _, item, path in named:
            if not isinstance(item, (str, bool, int)):  # a number is the HTTP status of an envelope
                raise DecodeError([f"expected a status word @ {path}"], where=self.where)
        flag = self.first("flag", text)
        if flag is not None:
            return status_word(_FLAGS.get(flag, flag))
        kinds = (item for _, item, _ in self._found.get("kind", ()) if isinstance(item, str))
        return next((status_word(item) for item in kinds if item.lower() in _CALLBACK_TYPES), StatusWord())

    @property
    def may_be_of_call(self) -> bool:
        """Whether the status word may be that of the call: it is in the outermost object, and no task is named."""
        named = (*self._own_first("type"), *self._own_first("status"))
        return next((index == 0 for index, item, _ in named if isinstance(item, str)), False) and not self.task_ids

    @functools.cached_property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks under known keys, else tracks with audio under any other key."""
        lists: list[tuple[Sequence[object], str]] = [
            (item if isinstance(item, list) else [item], path)
            for _, item, path in self._found.get("list", ())
            if isinstance(item, (list, str))
        ]
        layers = [self.layers[index] for index in sorted({index for index, _, _ in self._found.get("song", ())})]
        bare = [([layer for layer, _ in layers], layers[0][1])] if layers else []
        whole, created_at = self.word.stage is Stage.COMPLETE, self.first("time", moment)
        find = functools.partial(find_tracks, whole=whole, created_at=created_at)
        # Before the end, a link beside the list may be the source's: it does not replace tracks without files.
        found = find([*lists, *bare] if whole else lists, self.problems) or find(bare, self.problems)
        if found or self.problems or self.word.runs:
            return found
        others = (find([(values, "$")], []) for values in self._elsewhere())
        audible = (tuple(track for track in found if track.audio_url or track.stream_url) for found in others)
        return next(filter(None, audible), ())

    @property
    def songs(self) -> Sequence[dict[str, object]]:
        """The objects of the first list under a known key that has any, or a single track, as they came."""
        for _, item, _ in self._found.get("list", ()):
            found = item if isinstance(item, list) else []
            objects = [each for each in map(opened, found) if isinstance(each, dict)]
            if objects:
                return objects
        alone = (item for _, item, _ in self._found.get("list", ()) if isinstance(item, dict))
        return [item for item in alone if read_track(item, [], "$").audio_url][:1]

    def _elsewhere(self) -> Iterator[Sequence[object]]:
        """Yield groups of sibling objects that look like tracks, except under keys that repeat the request."""
        nodes: list[object] = [layer for layer, _ in self.layers]
        left = MAX_TEXTS
        yield [layer for layer, _ in self.layers[1:] or self.layers if _holds_a_file(layer)][:MAX_TRACKS]

        def look(item: object) -> object:
            nonlocal left
            left -= isinstance(item, str) and item.lstrip()[:1] in {"{", "[", '"'}
            return opened(item) if left > 0 else item

        for node in nodes:
            pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            wanted = (
                item for key, item in itertools.islice(pairs, MAX_KEYS) if not _REQUEST_KEYS.search(plain(str(key)))
            )
            inner = [look(item[0]) if isinstance(item, list) and len(item) == 1 else item for item in map(look, wanted)]
            if isinstance(node, list):
                yield [item for item in inner if isinstance(item, str) and is_audio_file("", item)][:MAX_TRACKS]
            beside = [_bare(item) for item in inner if isinstance(item, dict)]
            yield [item for item in beside if _names_a_track(item, by_file=True)][:MAX_TRACKS]
            nodes += [item for item in inner if isinstance(item, (dict, list))][: max(0, MAX_NODES - len(nodes))]

    def first(self, role: str, read: Callable[[object], T | None]) -> T | None:
        """Return the first value in *role* that *read* accepts."""
        return next((found for _, item, _ in self._found.get(role, ()) if (found := read(item)) is not None), None)

    @property
    def says_no_success(self) -> bool:
        """Whether it has `"success": false`."""
        return any(says_no(item) for _, item, _ in self._found.get("success", ()))

    @property
    def says_no(self) -> bool:
        """Whether it has `"success": false`, or `"status": false`."""
        return self.says_no_success or any(item is False for _, item, _ in self._found.get("status", ()))

    @property
    def is_empty(self) -> bool:
        """Whether it has no task id, status word or track."""
        return not (self.task_ids or self.word.name or self.tracks)

    @functools.cached_property
    def keys(self) -> dict[str, object]:
        """The values of all layers by `plain` key; inner layers override outer ones."""
        return {key: item for layer, _ in self.layers for key, item in plain_keys(layer).items() if item is not None}

    def says(self, first: Sequence[str] = ()) -> str:
        """Return its texts for people without pleasantries, and the errors of its tracks, or else all their texts.

        In each object the texts under the keys *first* come first.
        """
        found = [said for layer, _ in self.layers for said in all_said(plain_keys(layer), first)]
        listed = [(index, item, at) for index, item, at in self._found.get("list", ()) if not isinstance(item, dict)]
        # docs.kie.ai/suno-api/replace-section has a text beside the tracks; one was also seen instead of them.
        found += [
            item
            for index, item, at in listed
            if isinstance(item, str) and ((index and at.endswith(".data")) or (" " in item and link(item) is None))
        ]
        songs = [plain_keys(each) for _, item, _ in listed for each in _several(item)]
        wanted = "err" if found else ""
        for song in songs:
            found += all_said({key: value for key, value in song.items() if wanted in key})
        return told(found)


def _several(item: object) -> Sequence[object]:
    return item if isinstance(item, list) else ()


def id_of_task(item: object) -> str | None:
    """Return the id of an object that is alone in a list, unless it is a song: its id would not be the task's."""
    keys = plain_keys(item)
    return identity(keys.get("id")) if AUDIO_KEYS.isdisjoint(keys) else None


def _names_a_track(item: object, *, by_file: bool = False) -> bool:
    """Say whether *item* has the keys of a track or, with *by_file*, a link to audio under any key."""
    if not isinstance(item, dict):
        return False
    return not NAMING_A_TRACK.isdisjoint(map(plain, item)) or (by_file and _holds_a_file(item))


def _holds_a_file(item: Mapping[str, object]) -> bool:
    return any(is_audio_file(key, value) and not _REQUEST_KEYS.search(plain(key)) for key, value in item.items())


def _bare(item: Mapping[str, object]) -> object:
    """Return the only track in *item*, or *item* if it is a track itself or holds none or several."""
    inner = [] if _names_a_track(item) else [it for key, it in item.items() if not _REQUEST_KEYS.search(plain(key))]
    tracks = [each for each in inner if _names_a_track(each)]
    return tracks[0] if len(tracks) == 1 else item
