"""Songs as the wires show them: one class for all vendors, read in one pass, or key by key in any spelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from attrs import define

from audioext.errors import DecodeError
from audioext.http.decoding import JsonObject, link, moment, number, opened, text
from audioext.models.results import TimedLine, Track

MAX_TRACKS = 32  # of one body; real ones show 2, and thousands would hold the event loop
MAX_WRAPPINGS = 3  # around a list of songs: data, response and resultJson
MAX_LINES = 2_000  # of timed lyrics; real songs have about a hundred
MAX_TRACK_ID_LENGTH = 200
_MILLISECONDS = 1000


@define
class Song:
    """One track under the keys of kie.ai's callbacks, snake case but for `createTime`, and a few of other vendors.

    docs.kie.ai/suno-api/extend-music-callbacks and docs.sunoapi.org/suno-api/extend-music-callbacks, read 2026-11-21:
    10 or 13 keys. `createTime` is documented as a text and arrives as epoch milliseconds.
    """

    id: str | None = None
    audio_url: str | None = None
    stream_audio_url: str | None = None
    image_url: str | None = None
    source_audio_url: str | None = None
    source_stream_audio_url: str | None = None
    source_image_url: str | None = None
    prompt: str | None = None
    model_name: str | None = None
    title: str | None = None
    tags: str | None = None
    createTime: str | int | float | None = None  # noqa: N815 - the wire's spelling
    duration: float | None = None
    wav_url: str | None = None
    lyrics: str | None = None
    timed_lyrics: tuple[TimedLine, ...] | None = None

    def track(self, *, whole: bool, position: int | None = None, created_at: datetime | None = None) -> Track:
        """Return what is known of the track; a stream is never taken for a file.

        Where only a WAV file came, or where the task is *whole* and only the source's link is filled, that link is
        the file. *created_at* is the task's own time, for songs that bear none.
        """
        wav, source = link(self.wav_url), link(self.source_audio_url)
        id_ = self.id
        return Track(
            id=id_ if id_ and len(id_) <= MAX_TRACK_ID_LENGTH and id_.isprintable() else None,
            title=self.title,
            audio_url=link(self.audio_url) or wav or (source if whole else None),
            stream_url=link(self.stream_audio_url),
            wav_url=wav,
            image_url=link(self.image_url),
            duration=self.duration if self.duration is not None and self.duration > 0 else None,
            tags=self.tags,
            prompt=self.prompt,
            lyrics=self.lyrics,
            timed_lyrics=self.timed_lyrics,
            model_name=self.model_name,
            source_audio_url=source,
            source_stream_url=link(self.source_stream_audio_url),
            source_image_url=link(self.source_image_url),
            created_at=moment(self.createTime) or created_at,
            position=position,
        )


KEYS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "audioid", "conversionid", "trackid", "clipid", "songid", "musicid"),
    "audio_url": ("audiourl", "conversionpath", "conversionpathmp3", "fileurl", "mp3url", "songurl", "downloadurl"),
    "stream_audio_url": ("streamaudiourl", "streamurl", "streamingurl"),
    "image_url": ("imageurl", "imagelargeurl", "coverurl"),
    "source_audio_url": ("sourceaudiourl",),
    "source_stream_audio_url": ("sourcestreamaudiourl", "sourcestreamurl"),
    "source_image_url": ("sourceimageurl",),
    "prompt": ("prompt",),
    "model_name": ("modelname",),
    "title": ("title",),
    "tags": ("tags", "musicstyle"),
    "createTime": ("createtime", "createdat", "createdtime"),
    "duration": ("duration", "conversionduration", "audioduration"),
    "wav_url": ("conversionpathwav", "wavurl", "audiourlwav", "audiowavurl"),
    "lyrics": ("lyrics",),
    "timed_lyrics": ("lyricstimestamped",),
}
"""Where a song's fields were seen, the likeliest first: keys in small letters without underscores.

Suno's names: the pages above. `audio_id`: docs.vidgo.ai/api-manual/music-series/query-music-detail, read 2026-11-21;
`file_url`: a vidgo client. `conversion_…`: third-party handlers of MusicGPT's webhooks, `conversion_path_mp3` among
them; `audio_url`, `music_style`: docs.musicgpt.com/api-documentation/endpoint/getById, read 2026-11-21.
"""
_LINKS = frozenset({"audio_url", "stream_audio_url", "source_audio_url", "wav_url"})
SHOWING = frozenset(name for song_key in _LINKS for name in KEYS[song_key])
"""The keys by which an object is known to be a song."""

LISTS = (
    *("data", "sunodata", "items", "files", "tracks", "songs", "clips", "results", "result", "response"),
    *("resultjson", "resultobject", "resulturls", "output"),
)
"""Keys under which songs, or lists of them, have been seen: kie.ai's jobs (`resultJson`, `resultObject`,
`resultUrls`: docs.kie.ai/market/common/get-task-detail, read 2026-11-21), vidgo (`files`), and what clients read."""


def read_song(keys: JsonObject, problems: list[str]) -> Song:
    """Return the song in an object.

    What cannot be read is left out; where that is a link to audio it is told in *problems*.
    """
    found: dict[str, object] = {}
    for name, spellings in KEYS.items():
        for spelling in spellings:
            raw = keys.get(spelling)
            if raw is None or raw == "":
                continue
            value = _value(name, raw)
            if value is not None:
                found[name] = value
                break
            if name == "audio_url" and not isinstance(raw, str):
                problems.append(f"expected a link @ {keys.path_of(spelling)}")
    return Song(**found)  # type: ignore[arg-type]  # `_value` gives each field its type


def _value(name: str, raw: object) -> object:
    if name == "timed_lyrics":
        return timed_lines(raw)
    if name == "duration":
        return number(raw)
    if name == "createTime":
        return raw if moment(raw) is not None else None
    if name.endswith("_url"):
        return link(raw)
    return text(raw)


def timed_lines(value: object) -> tuple[TimedLine, ...] | None:
    """Return timed lyrics in seconds, from a list of lines in milliseconds or a JSON text of one, if they can be read.

    Marks of sections take no time. Logged webhooks of MusicGPT (third party).
    """
    lines = opened(value)
    if not isinstance(lines, list) or len(lines) > MAX_LINES:
        return None
    found: list[TimedLine] = []
    for line in lines:
        start, end = (number(line.get("start")), number(line.get("end"))) if isinstance(line, dict) else (None, None)
        if start is None or end is None:
            return None
        found.append(TimedLine(text(line.get("text")) or "", start / _MILLISECONDS, end / _MILLISECONDS))
    return tuple(found) or None


def find_songs(layers: Sequence[JsonObject], problems: list[str]) -> tuple[Song, ...]:
    """Return the songs that the *layers* of a body show, its objects from the outside in.

    They stand in a list under one of the known keys, in JSON texts too, or are one of the objects itself.

    Raises:
        DecodeError: there are more than `MAX_TRACKS` in one list.
    """
    for layer in layers:
        for values, path in _lists(layer, problems, 0):
            found = tuple(_songs(values, path, problems))
            if found:
                return found
    return ()


def _lists(layer: JsonObject, problems: list[str], depth: int) -> Iterator[tuple[list[object], str]]:
    for key in LISTS:
        raw = layer.get(key)
        value = opened(raw)
        if isinstance(value, list):
            yield value, layer.path_of(key)
        elif isinstance(value, dict) and depth < MAX_WRAPPINGS:
            yield from _lists(JsonObject(value, layer.path_of(key)), problems, depth + 1)
        elif value is raw and isinstance(raw, str) and raw.lstrip()[:1] in {"{", "["}:
            problems.append(f"expected JSON in the text @ {layer.path_of(key)}")
    if not SHOWING.isdisjoint(layer):
        yield [layer], layer.path


def _songs(values: list[object], path: str, problems: list[str]) -> Iterator[Song]:
    if len(values) > MAX_TRACKS:
        raise DecodeError([f"more than {MAX_TRACKS} tracks @ {path}"])
    for index, value in enumerate(values):
        if isinstance(value, str) and link(value):
            yield Song(audio_url=value)
        elif isinstance(value, dict):
            keys = value if isinstance(value, JsonObject) else JsonObject(value, f"{path}[{index}]")
            song = read_song(keys, problems)
            other = str(keys.get("filetype")).lower().startswith(("image", "video"))
            if not other and (song.id or song.audio_url or song.stream_audio_url or song.source_audio_url):
                yield song
