"""Parsing tracks in any vendor's spelling, key by key; unreadable values are left out."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec
from attrs import evolve

from audioext.errors import DecodeError
from audioext.http.decoding import MAX_LINK_LENGTH, camel, identity, link, moment, number, opened, plain, text
from audioext.models.results import TimedLine, Track

MAX_TRACKS = 32  # per body; real ones have 2, and thousands would block the event loop
MAX_KEYS = 64  # per track; real ones have up to 21, and each link takes time to check
MAX_KEY_LENGTH = 100  # characters; longer keys are ignored, known ones have up to 24
MAX_LINES = 2_000  # of timed lyrics; real songs have about a hundred
LONGEST_LINE = 1_000  # characters of a title, of tags, or of one line of lyrics; longer ones are cut
LONGEST_TEXT = 50_000  # characters of a prompt or of lyrics; vendors take up to 5,000
_MILLISECONDS = 1000
_AUDIO_FILE = re.compile(r"\s*https?://[^?#]+\.(mp3|wav|m4a|flac|ogg|opus|aac)([?#].*)?\s*", re.IGNORECASE | re.DOTALL)
_LINKS = msgspec.json.Decoder(list[str])
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg")
_HOLDERS = frozenset({"metadata", "files", "result", "output", "urls", "links", "assets"})
"""`plain` keys of objects inside a track that may hold its file: guesses, each used by some API."""
_NO_RESULT = re.compile("source|upload|origin|input|stream|preview|sample|parent|reference", re.IGNORECASE)
"""Matches keys of audio that is not the result."""


def seconds(value: object) -> float | None:
    """Return *value* as a duration in seconds, or `None` if it is not a positive number."""
    found = number(value)
    return found if found is not None and found > 0 else None


def _text_up_to(longest: int) -> Callable[[object], str | None]:
    def read(value: object) -> str | None:
        found = text(value)
        return None if found is None else found[:longest]

    return read


line_of_text, whole_text = _text_up_to(LONGEST_LINE), _text_up_to(LONGEST_TEXT)


def timed_lines(value: object) -> tuple[TimedLine, ...] | None:
    """Return timed lyrics in seconds; *value* has milliseconds, as in MusicGPT's webhooks (third-party logs)."""
    lines = opened(value)
    if not isinstance(lines, list) or len(lines) > MAX_LINES:
        return None
    found: list[TimedLine] = []
    for line in lines:
        start, end = (number(line.get("start")), number(line.get("end"))) if isinstance(line, dict) else (None, None)
        if start is None or end is None:
            return None
        found.append(TimedLine(line_of_text(line.get("text")) or "", start / _MILLISECONDS, end / _MILLISECONDS))
    return tuple(found) or None


def file_link(value: object) -> str | None:
    """Return the link in *value*, or the first link in a list or object; links to images do not count.

    The list may be a string of JSON, decoded strictly for speed: a body may hold thousands of broken ones.
    """
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = _LINKS.decode(value)
        except ValueError:
            return None
    if isinstance(value, (list, dict)):
        inner = value if isinstance(value, list) else value.values()
        return next((found for item in inner if isinstance(item, str) and (found := file_link(item))), None)
    found = link(value)
    return None if found is None or is_image(found) else found


def is_image(link: str) -> bool:
    """Say whether *link* has an image's suffix."""
    return link.partition("?")[0].lower().endswith(_IMAGES)


KEYS: Mapping[str, tuple[Callable[[object], object], tuple[str, ...]]] = {
    "id": (identity, ("id", "audio_id", "conversion_id", "track_id", "clip_id", "song_id", "music_id")),
    "audio_url": (
        file_link,
        (
            *("conversion_path", "conversion_path_mp3", "audio_url", "file_url", "mp3_url", "song_url", "music_url"),
            *("track_url", "media_url", "download_url", "output_url", "result_url", "cdn_url", "url"),
            *("audio_file", "audio_path", "audio", "mp3", "file", "link"),
        ),
    ),
    "stream_url": (link, ("stream_audio_url", "stream_url", "streaming_url")),
    "image_url": (link, ("image_url", "image_large_url", "cover_url")),
    "source_audio_url": (link, ("source_audio_url",)),
    "source_stream_url": (link, ("source_stream_audio_url", "source_stream_url")),
    "source_image_url": (link, ("source_image_url",)),
    "prompt": (whole_text, ("prompt",)),
    "model_name": (line_of_text, ("model_name",)),
    "title": (line_of_text, ("title",)),
    "tags": (line_of_text, ("tags", "music_style")),
    "created_at": (moment, ("create_time", "created_at", "created_time")),
    "duration": (seconds, ("duration", "conversion_duration", "audio_duration")),
    "wav_url": (link, ("conversion_path_wav", "wav_url", "audio_url_wav", "audio_wav_url")),
    "lyrics": (whole_text, ("lyrics",)),
    "timed_lyrics": (timed_lines, ("lyrics_timestamped",)),
}
"""The keys of each field of a track, the likeliest first and each in any spelling, and how the value is read.

docs.kie.ai/suno-api/extend-music-callbacks and docs.sunoapi.org/suno-api/extend-music-callbacks, read 2026-11-21: 10 or
13 keys. `audio_id`: docs.vidgo.ai/api-manual/music-series/query-music-detail, read 2026-11-21; `file_url`: a vidgo
client. `conversion_…`: third-party handlers of MusicGPT's webhooks; it outranks `audio_url`, which in a request is the
source. `audio_url`, `music_style`: docs.musicgpt.com/api-documentation/endpoint/getById, read 2026-11-21.
"""
_FIELD_OF = {
    spelling: (name, rank, read)
    for name, (read, keys) in KEYS.items()
    for rank, key in enumerate(keys)
    for spelling in (key, camel(key), plain(key))
}
_TOO_PLAIN = frozenset({"url", "audio", "mp3", "file", "link", "outputurl", "resulturl", "downloadurl"})
"""Keys too general to identify an object as a track."""
AUDIO_KEYS = frozenset(plain(key) for name in ("audio_url", "wav_url") for key in KEYS[name][1]) - _TOO_PLAIN
TRACK_KEYS = AUDIO_KEYS | {plain(key) for name in ("stream_url", "source_audio_url") for key in KEYS[name][1]}
"""The `plain` keys that identify an object as a track."""
NAMING_A_TRACK = TRACK_KEYS | {plain(key) for key in KEYS["id"][1]}


@functools.lru_cache(maxsize=2_048)
def _known(key: str) -> tuple[str, int, Callable[[object], object]] | None:
    return _FIELD_OF.get(key) or _FIELD_OF.get(plain(key))


def read_track(  # noqa: PLR0913 - half of them are facts of the task
    raw: Mapping[str, object],
    problems: list[str],
    path: str,
    *,
    whole: bool = False,
    created_at: datetime | None = None,
    position: int | None = None,
) -> Track:
    """Return the track in *raw*; a stream is never taken for a file.

    Without an `audio_url`, the file is the WAV file, then the source's link if the task is *whole* (complete), then an
    audio file under an unknown key, then one in a nested object if the task is *whole*. *created_at* is the task's
    time, for tracks without one. An audio link that is not text is added to *problems*, with the object's *path*.
    """
    found: dict[str, object] = {}
    ranks: dict[str, int] = {}
    unnamed: str | None = None
    for key, item in itertools.islice(raw.items(), MAX_KEYS):
        if item is None:
            continue
        known = _known(key) if len(key) <= MAX_KEY_LENGTH else None
        if known is None:
            unnamed = unnamed or (link(item) if is_audio_file(key, item) else None)
            continue
        name, rank, read = known
        if rank > ranks.get(name, rank):
            continue
        value = read(item)
        if value is not None:
            found[name], ranks[name] = value, rank
        elif name == "audio_url" and item and not isinstance(item, str):
            problems.append(f"expected a link @ {path}.{key}")
    source = found.get("source_audio_url") if whole else None
    file = found.get("audio_url") or found.get("wav_url") or source or unnamed
    found["audio_url"] = file or (_held_link(raw, path) if whole else None)
    found.setdefault("created_at", created_at)
    return Track(**found, position=position)  # type: ignore[arg-type]  # each reader gives its field's type


def _held_link(raw: Mapping[str, object], path: str) -> str | None:
    """Return the audio link of an object nested in a track, directly or as the only item of a list."""
    held = (item for key, item in itertools.islice(raw.items(), MAX_KEYS) if plain(key) in _HOLDERS)
    inner = (item[0] if isinstance(item, list) and len(item) == 1 else item for item in held)
    tracks = (read_track(item, [], path) for item in inner if isinstance(item, dict))
    return next((track.audio_url for track in tracks if track.audio_url), None)


def is_audio_file(key: str, value: object) -> bool:
    """Say whether *value* is a link to an audio file, and *key* does not name other audio, such as the source."""
    if not isinstance(value, str) or len(value) > MAX_LINK_LENGTH:
        return False
    return _AUDIO_FILE.fullmatch(value) is not None and not _NO_RESULT.search(key)


def find_tracks(
    lists: Iterable[tuple[Sequence[object], str]], problems: list[str], *, whole: bool, created_at: datetime | None
) -> tuple[Track, ...]:
    """Return the tracks of the best of *lists*: with files, of objects and not bare links, and then with most files.

    kie.ai's jobs have a result twice (measured in 2026-10), and one of the two may lack its files. Raises DecodeError
    for too many.
    """
    best: tuple[Track, ...] = ()
    highest = (False, False, 0)
    for values, path in lists:
        if len(values) > MAX_TRACKS:
            raise DecodeError([f"more than {MAX_TRACKS} tracks @ {path}"])
        items = [item for value in map(opened, values) for item in (value if isinstance(value, list) else (value,))]
        if len(items) > MAX_TRACKS:
            raise DecodeError([f"more than {MAX_TRACKS} tracks @ {path}"])
        found = [
            track
            for index, item in enumerate(items)
            for track in _read_item(item, problems, f"{path}[{index}]", whole=whole, created_at=created_at)
        ]
        files, named = (
            sum(track.audio_url is not None for track in found),
            any(isinstance(item, dict) for item in items),
        )
        if found and (files > 0, named, files) > highest:
            best, highest = tuple(apart(found)), (files > 0, named, files)
            if named and files == len(found):
                break
    return best


def _read_item(
    item: object, problems: list[str], path: str, *, whole: bool, created_at: datetime | None
) -> Iterator[Track]:
    if isinstance(item, str) and (file := file_link(item)) and (whole or is_audio_file("", file)):
        yield Track(audio_url=file, created_at=created_at)  # before the end it may be a link to anything
    elif isinstance(item, dict) and not str(item.get("file_type")).lower().startswith(("image", "video")):
        track = read_track(item, problems, path, whole=whole, created_at=created_at)
        if track.id or track.audio_url or track.stream_url:
            yield track
            yield from beside(track, item)


def beside(track: Track, raw: Mapping[str, object]) -> Iterator[Track]:
    """Yield a track for each further file of the same format in the list that holds the link of *track*.

    A file of the same name is a mirror if the track has an id of its own.
    """
    if track.audio_url is None or track.audio_url in raw.values():
        return
    for item in itertools.islice(raw.values(), MAX_KEYS):
        links = opened(item) if isinstance(item, (list, str)) else ()
        files = [file_link(each) for each in links[:MAX_TRACKS]] if isinstance(links, list) else []
        if track.audio_url in files:
            is_mirrored = track.id is not None
            for file in dict.fromkeys(filter(None, files)):
                is_same = file == track.audio_url or (is_mirrored and _name(file) == _name(track.audio_url))
                if not is_same and _kind(file) == _kind(track.audio_url):
                    yield evolve(track, audio_url=file)


def apart(tracks: Sequence[Track]) -> Iterable[Track]:
    """Yield *tracks*, without an id that two files of the same format share: it is their task's, not theirs."""
    files: dict[tuple[str, str], set[str]] = {}
    for track in tracks:
        if track.id and track.audio_url:
            files.setdefault((track.id, _kind(track.audio_url)), set()).add(track.audio_url)
    shared = {id_ for (id_, _), links in files.items() if len(links) > 1}
    return (evolve(track, id=None) if track.id in shared else track for track in tracks)


def _name(link: str) -> str:
    return link.partition("?")[0].rpartition("/")[2]


def _kind(link: str) -> str:
    return _name(link).rpartition(".")[2]
