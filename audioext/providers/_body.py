"""What a body says of a task: ids, a status word, tracks and texts, wherever they stand and however they are spelt.

kie.ai (both routes), sunoapi.org and vidgo.ai wrap the same engine. Their bodies differ in spelling and in wrapping,
and each has been seen in more shapes than its page shows, so one reader takes them all, and those of MusicGPT.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self, TypeVar

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import identity, moment, opened, parse_json, plain, plain_keys
from audioext.models.results import Stage, Track
from audioext.providers._tracks import KEYS, LISTS, MAX_KEY_LENGTH, MAX_TRACKS, SHOWING, find_tracks
from audioext.providers._words import StatusWord, all_said, says_no, status_word

T = TypeVar("T")

MAX_KEYS = 200  # of one object; real ones have up to 30
MAX_PER_ROLE = 12  # values of one kind, such as lists
MAX_LAYERS = 12  # objects of a body that are looked into; real ones have 2 to 4
MAX_NODES = 64  # lists and objects in which tracks are looked for where no known key has them
_NAMING_A_TRACK = SHOWING | {plain(key) for key in KEYS["id"][1]}
_ROLES = {
    **dict.fromkeys(SHOWING, "song"),
    **dict.fromkeys((*LISTS, "conversion"), "list"),
    **dict.fromkeys(("taskid", "conversiontaskid", "jobid"), "id"),
    "callbacktype": "type",
    **dict.fromkeys(("status", "state", "taskstatus", "stage", "successflag"), "status"),
    **dict.fromkeys(("success", "ok"), "success"),
    "code": "code",
    **dict.fromkeys(("errorcode", "errcode", "failcode", "failurecode"), "own code"),
    "createdtime": "time",
    "creditsconsumed": "credits",
}
"""What stands under a plain key of a body's objects."""
_ABOUT_A_TASK = frozenset({"id", "type", "status", "list", "song"})
"""Roles by which an object is known to speak of a task; one with none of them is a mere wrapper."""
_ECHO = re.compile("param|input|request|source|upload|origin|parent|reference|setting|header|callback")
"""In a plain key, it tells of what was asked for, which is no result."""

_Values = list[tuple[int, object, str]]
"""Values with the index of the object that they stand in, and their path."""


@functools.lru_cache(maxsize=2_048)
def _role(key: str) -> str | None:
    return _ROLES.get(plain(key))


class Body:
    """What a parsed body says of a task: a status answer or a webhook, bare or wrapped.

    `layers` are its objects with their paths, from the outside in, and `problems` what could not be read in them.
    `word` says where the task is; `tracks` are looked for unless asked not to. Raises DecodeError if it is no object,
    or an id or a status word has the wrong type.
    """

    def __init__(self, value: object, where: str, *, finds_tracks: bool = True) -> None:
        """Look once at every key of every object, and open the JSON texts among them."""
        if isinstance(value, list):
            several: dict[str, object] = {"data": value}
            value = value[0] if len(value) == 1 else several
        if not isinstance(value, dict):
            raise DecodeError(["expected an object @ $"], where=where)
        self.where = where
        self.problems: list[str] = []
        self.layers: list[tuple[dict[str, object], str]] = [(value, "$")]
        self._found: dict[str, _Values] = {}
        for index, (layer, path) in enumerate(self.layers):
            if not self._look_at(index, layer, path):
                self._unwrap(layer, path)
        self.task_ids = self._read_ids()
        self.task_id = self.task_ids[0] if self.task_ids else None
        self.word = self._read_word()
        self.tracks = self.find_tracks() if finds_tracks else ()

    @classmethod
    def delivered(cls, data: bytes) -> Self:
        """Read a webhook; raises WebhookError (400) if it names several tasks, or DecodeError."""
        body = cls(parse_json(data, where="the webhook"), "the webhook")
        if len(body.task_ids) > 1:
            raise WebhookError("the delivery names more than one task", http_status=400)
        return body

    def _look_at(self, index: int, layer: Mapping[str, object], path: str) -> bool:
        """Note what stands under the known keys of an object, and say whether it speaks of a task."""
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
                item = _opened_task(raw)
                if isinstance(item, dict) and len(self.layers) < MAX_LAYERS:
                    self.layers.append((item, at))
                elif isinstance(item, str) and item.lstrip()[:1] in {"{", "["}:
                    self.problems.append(f"expected JSON in the text @ {at}")
            values.append((index, item, at))
        return speaks

    def _unwrap(self, layer: Mapping[str, object], path: str) -> None:
        """Look into all that an object holds which says nothing of a task itself."""
        for key, raw in itertools.islice(layer.items(), MAX_KEYS):
            item = _opened_task(raw)
            if isinstance(item, dict) and len(self.layers) < MAX_LAYERS and not _ECHO.search(plain(key)):
                self.layers.append((item, f"{path}.{key}"))

    def _read_ids(self) -> tuple[str, ...]:
        named = [(identity(item), path) for _, item, path in self._own_first("id")]
        found = tuple(dict.fromkeys(id_ for id_, _ in named if id_ is not None))
        if named and not found:
            raise DecodeError([f"expected an id @ {named[0][1]}"], where=self.where)
        return found

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
        whole, created_at = self.word.stage is Stage.COMPLETE, self.first("time", moment)
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
            pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            limit = MAX_KEYS if isinstance(node, dict) else None
            inner = [opened(item) for key, item in itertools.islice(pairs, limit) if not _ECHO.search(plain(str(key)))]
            beside = [_bare(item) for item in inner if isinstance(item, dict)]
            yield [item for item in beside if _names_a_track(item)][:MAX_TRACKS]
            nodes += [item for item in inner if isinstance(item, (dict, list))][: max(0, MAX_NODES - len(nodes))]

    def _own_first(self, role: str) -> Sequence[tuple[int, object, str]]:
        # The task's own object is the second, where there is one.
        values = self._found.get(role, ())
        return sorted(values, key=lambda value: value[0] != 1) if len(values) > 1 else values

    def first(self, role: str, read: Callable[[object], T | None]) -> T | None:
        """Return the first value in a role that can be read."""
        return next((found for _, item, _ in self._found.get(role, ()) if (found := read(item)) is not None), None)

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


def _names_a_track(item: object) -> bool:
    return isinstance(item, dict) and not _NAMING_A_TRACK.isdisjoint(map(plain, item))


def _bare(item: Mapping[str, object]) -> object:
    """Return the only track in an object that is none itself."""
    inner = [] if _names_a_track(item) else [it for key, it in item.items() if not _ECHO.search(plain(key))]
    tracks = [each for each in inner if _names_a_track(each)]
    return tracks[0] if len(tracks) == 1 else item


def _opened_task(raw: object) -> object:
    """Return what is in *raw*, JSON in a text too; a list of one object that is no track counts as the object."""
    item = opened(raw)
    only = opened(item[0]) if isinstance(item, list) and len(item) == 1 else None
    return only if isinstance(only, dict) and not _names_a_track(only) else item
