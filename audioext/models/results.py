"""The results that users get: stages, tracks and songs, as frozen values."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Unpack

from attrs import evolve, field, frozen

from audioext.errors import ConfigError, RequestError, shown
from audioext.models import checks, markup
from audioext.models.requests import Extend, ExtendOptions

Source = Literal["webhook", "poll", "implied"]
"""How a stage became known. `implied`: a later stage was seen first."""

SaveProgress = Callable[[Path, int, int | None], None]
"""Called with the path, the bytes so far, and the total bytes or `None` if unknown."""


class Stage(enum.IntEnum):
    """How far a task has come; later stages compare greater and imply the earlier ones."""

    SUBMITTED = 1
    TEXT = 2
    FIRST = 3
    COMPLETE = 4

    def __str__(self) -> str:
        """Return the name in lower case, not the number."""
        return self.name.lower()


class FailureReason(enum.StrEnum):
    """Why a task failed, with the same meaning at all providers."""

    CONTENT = "content"
    SOURCE = "source"
    TIMEOUT = "timeout"
    GENERATION = "generation"
    UNKNOWN = "unknown"


@frozen
class TimedLine:
    """One line of timed lyrics; `start` and `end` are seconds from the beginning of the track."""

    text: str
    start: float
    end: float


class Files(Protocol):
    """Downloads the files of one job; see the methods of `Track` and `Song`."""

    def read(self, track: Track) -> Awaitable[bytes]:
        """Return the file of *track*."""
        ...

    def cover(self, track: Track) -> Awaitable[bytes]:
        """Return the cover image of *track*."""
        ...

    def stream(self, track: Track) -> AsyncIterator[bytes]:
        """Yield the file of *track* in chunks as they arrive."""
        ...

    def save(
        self, song: Song, folder: Path, *, overwrite: bool, progress: SaveProgress | None
    ) -> Awaitable[tuple[Path, ...]]:
        """Save *song* into *folder* and return the paths, in the order of the tracks."""
        ...

    def recover(self) -> Awaitable[Song]:
        """Return the job's song with the files that its vendor restored."""
        ...


@frozen(kw_only=True, slots=False, repr=False)  # no slots: `_files` is beside the fields, and no part of the value
class Track:
    """One track of a song.

    Fields that the provider did not send are `None`. `audio_url` is the link to the file, `stream_url` to a stream that
    may be there earlier, `wav_url` to a WAV file, `image_url` to the cover; some vendors add further links, the
    `source_…_url`s. `duration` is in seconds; `created_at` and `expires_at` are timezone-aware. `position` is its place
    in the song, from 1. `failure` is the provider's message if the track could not be made. `model_name` is the
    vendor's own word for the model; `provider` and `model` are those that the task was submitted with. `extends_by_id`
    is false where tracks are extended by URL only.
    """

    id: str | None = None
    title: str | None = None
    audio_url: str | None = None
    stream_url: str | None = None
    wav_url: str | None = None
    image_url: str | None = None
    duration: float | None = None
    tags: str | None = None
    prompt: str | None = None
    lyrics: str | None = None
    timed_lyrics: tuple[TimedLine, ...] | None = None
    model_name: str | None = None
    source_audio_url: str | None = None
    source_stream_url: str | None = None
    source_image_url: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    failure: str | None = None
    position: int | None = None
    provider: str | None = None
    model: str | None = None
    extends_by_id: bool = True
    _files: ClassVar[Files | None] = None

    def __repr__(self) -> str:
        """Show the id, the title and the length, on one line."""
        length = "" if self.duration is None else f", {self.duration:.1f} s"
        audio = "" if self.audio_url is not None else ", no audio yet" if self.failure is None else ", failed"
        return f"<Track {shown(self.id)} {shown(self.title)}{length}{audio}>"

    def _repr_html_(self) -> str:
        """Show a player and the cover in a notebook."""
        return markup.player(_named(self), self.audio_url or self.stream_url, self.image_url)

    async def read(self) -> bytes:
        """Download and return the whole audio file, with the checks of `Song.save`.

        Raises:
            DownloadError: there is no file yet, it is gone or empty, or it is not audio or not complete.
            ConfigError: this track was not made by a client.
        """
        return await _fetcher(self).read(self)

    async def cover(self) -> bytes:
        """Download and return the cover image (PNG, JPEG, GIF or WebP).

        Raises:
            DownloadError: there is no cover, its link has died, or it is not an image.
            ConfigError: this track was not made by a client.
        """
        return await _fetcher(self).cover(self)

    def stream(self) -> AsyncIterator[bytes]:
        """Yield the audio file in chunks as they arrive, to pass it on. A transfer that breaks off is resumed.

        The first bytes are checked to be audio before the first chunk; the duration is not checked.

        Raises:
            DownloadError: there is no file yet, it is gone or empty, or it is not audio.
            ConfigError: this track was not made by a client.
        """
        return _fetcher(self).stream(self)

    def extend(self, **options: Unpack[ExtendOptions]) -> Extend:
        """Return a request that continues this track at its provider, with the model of its task.

        The source is the track's id, or its audio URL if it has no id or the provider extends by URL only.

        Raises:
            RequestError: the options are not valid, or the track has neither an id nor an audio URL.
        """
        chained: ExtendOptions = {"provider": self.provider, "source_duration": self.duration}
        if self.model is not None:
            chained["model"] = self.model
        if self.id is not None and self.extends_by_id:
            chained["audio_id"] = self.id
        else:
            chained["url"] = self.audio_url
        chained.update(options)
        request = Extend.draft(**chained)
        if request.problems():
            raise RequestError(request.problems())
        return request


def _named(track: Track) -> str:
    name = track.title or track.id or "untitled"
    if track.duration is None:
        return name
    minutes, seconds = divmod(round(track.duration), 60)
    return f"{name} ({minutes}:{seconds:02})"


def fetched_by(files: Files | None, tracks: Iterable[Track]) -> tuple[Track, ...]:
    """Make *tracks* download by *files*, and return them; clients do this with the tracks of their own records."""
    found = tuple(tracks)
    for track in found if files is not None else ():
        vars(track)["_files"] = files
    return found


def build_tracks(tracks: Iterable[dict[str, Any]]) -> tuple[Track, ...]:
    """Return a track for each dict of all its fields, several times as fast as `Track(...)`."""
    found = []
    for fields in tracks:
        track = object.__new__(Track)
        object.__setattr__(track, "__dict__", fields)
        found.append(track)
    return tuple(found)


@frozen(kw_only=True, repr=False)
class Song:
    """The result of a complete job: its playable tracks in order, and the details of the task.

    `credits` is what the task cost in the provider's own credits, if it says so, and `meta` what the submit was given.
    `source_name` is the name of the source file without its suffix, or `None` if it is not known.
    """

    ref: str
    provider: str
    task_id: str | None
    tracks: tuple[Track, ...]
    credits: float | None = None
    meta: Mapping[str, object] = field(factory=dict, hash=False)
    source_name: str | None = None
    _files: Files | None = field(default=None, eq=False, alias="files")

    def __repr__(self) -> str:
        """Show the job's ref, the provider and the first title, on one line."""
        title = shown(self.tracks[0].title) if self.tracks else "without tracks"
        tracks = "1 track" if len(self.tracks) == 1 else f"{len(self.tracks)} tracks"
        return f"<Song {self.ref} {self.provider} {title}, {tracks}>"

    def _repr_html_(self) -> str:
        """Show a player and the cover of each track in a notebook."""
        return "".join(markup.player(_named(track), track.audio_url, track.image_url) for track in self.tracks)

    async def save(
        self,
        folder: str | PathLike[str] = ".",
        *,
        name: str | None = None,
        overwrite: bool = False,
        progress: SaveProgress | None = None,
    ) -> tuple[Path, ...]:
        """Download every playable track into *folder* (created if missing) and return the paths, one per track.

        A file appears only when it is complete, audio, and as long as its track; its bytes determine its suffix. Names
        come from the titles, which *name* replaces, or else from the source, made safe. Each call downloads again: a
        file with the same bytes is kept, and if other files have the names, all tracks get the same number in theirs.
        It also works after the client was closed. `progress(path, bytes_so_far, bytes_in_all)` is called as bytes
        arrive.

        A dead link is replaced by one from the vendor's status call or, if it has that, from its recovery of files,
        which can take minutes. This needs an open client.

        Raises:
            DownloadError: a file is gone, empty, not audio or cut short, or the same track came twice.
            ConfigError: this song was not made by a client.
            RequestError: an argument has a wrong type; nothing was fetched.
        """
        checks.refuse_wrong(
            folder=checks.folder(folder),
            name=None if name is None else checks.full_text(name),
            overwrite=checks.flag(overwrite),
            progress=checks.progress(progress),
        )
        named, files = self, _fetcher(self)
        if name is not None:
            named = evolve(self, tracks=fetched_by(files, (evolve(each, title=name) for each in self.tracks)))
        return await files.save(named, Path(folder), overwrite=overwrite, progress=progress)

    async def recover(self) -> Song:
        """Make the vendor restore the files, and return the song with the new links; `save` does this by itself.

        It waits for a recovery that is running, or else starts a new one, even if one failed before.

        Raises:
            UnsupportedError: the vendor has no recovery.
            DownloadError: no file was restored, or not in time.
            ConfigError: this song was not made by a client, or that client is not open.
        """
        return await _fetcher(self).recover()


def _fetcher(value: Track | Song) -> Files:
    files = value._files  # noqa: SLF001 - a class of this module
    if files is None:
        what = f"this {type(value).__name__} was not made by a client, or was pickled"
        raise ConfigError(f"{what}, so it cannot download: get it from `await client.job(ref)`")
    return files
