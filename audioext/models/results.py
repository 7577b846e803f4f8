"""What a user gets back: stages, tracks and songs, as frozen values."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Unpack

from attrs import field, frozen

from audioext.errors import ConfigError, RequestError, shown
from audioext.models import checks, markup
from audioext.models.requests import Extend, ExtendOptions

Source = Literal["webhook", "poll", "implied"]
"""How a stage became known; `implied` means that a later stage was seen first."""

SaveProgress = Callable[[Path, int, int | None], None]
"""Called with the path, the bytes so far and the bytes in all."""


class Stage(enum.IntEnum):
    """How far a task has come; later stages compare greater and imply the earlier ones."""

    SUBMITTED = 1
    TEXT = 2
    FIRST = 3
    COMPLETE = 4


class FailureReason(enum.StrEnum):
    """Why a task failed, in words that hold for all providers."""

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
    """Fetches the files of one job; see the methods of `Track` and `Song`."""

    def read(self, track: Track) -> Awaitable[bytes]:
        """Return the file of *track*."""
        ...

    def cover(self, track: Track) -> Awaitable[bytes]:
        """Return the picture on the cover of *track*."""
        ...

    def stream(self, track: Track) -> AsyncIterator[bytes]:
        """Yield the file of *track* as it comes."""
        ...

    def save(
        self, song: Song, folder: Path, *, overwrite: bool, progress: SaveProgress | None
    ) -> Awaitable[tuple[Path, ...]]:
        """Save *song* into *folder* and return the paths, in the order of the tracks."""
        ...

    def recover(self) -> Awaitable[Song]:
        """Return the job's song with files that its vendor brought back."""
        ...


@frozen(
    kw_only=True, slots=False, repr=False
)  # what fetches its file is kept beside its fields, and is no part of the value
class Track:
    """One track of a song.

    Every field that a provider did not send is `None`. `duration` is in seconds; `created_at` and
    `expires_at` are tz-aware. `position` is its place, from 1. `failure` is the provider's word on a track
    that did not come about. `provider` and `model` are those that the task was submitted with.
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
        """Return the whole audio file, checked as `Song.save` does.

        Raises:
            DownloadError: there is none yet, it is gone or empty, or what came is not (all of) the audio.
            ConfigError: this track was not made by a client.
        """
        return await _fetcher(self).read(self)

    async def cover(self) -> bytes:
        """Return the picture on its cover (PNG, JPEG, GIF or WebP).

        Raises:
            DownloadError: there is none, its link has died, or what came is no picture.
            ConfigError: this track was not made by a client.
        """
        return await _fetcher(self).cover(self)

    def stream(self) -> AsyncIterator[bytes]:
        """Iterate over the audio file as it comes, for those who send it on; a transfer that breaks goes on.

        That it begins like audio is checked before the first chunk; its duration is not.

        Raises:
            DownloadError: there is none yet, it is gone or empty, or not audio.
            ConfigError: this track was not made by a client.
        """
        return _fetcher(self).stream(self)

    def extend(self, **options: Unpack[ExtendOptions]) -> Extend:
        """Return a request that continues this track at its own provider, with the model it was made with.

        Without an id, or at a provider that extends by URL only, the track's audio URL is the source.

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
    """Return the same tracks with what fetches their files; clients do this."""
    found = copied(tracks)
    for track in found:
        vars(track)["_files"] = files
    return tuple(found)


def copied(tracks: Iterable[Track]) -> list[Track]:
    """Return copies whose `vars` can be changed until somebody sees them, in a sixth of the time of `copy`."""
    found: list[Track] = []
    for track in tracks:
        same = object.__new__(Track)
        object.__setattr__(same, "__dict__", vars(track).copy())
        found.append(same)
    return found


@frozen(kw_only=True, repr=False)
class Song:
    """The result of a complete job: its playable tracks first to last, and what is known of the task.

    `source_name` is the name of the file that was the source, without its suffix, where it is known.
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
        return f"<Song {self.ref} {self.provider} {title}, {len(self.tracks)} tracks>"

    def _repr_html_(self) -> str:
        """Show a player and the cover of each track in a notebook."""
        return "".join(markup.player(_named(track), track.audio_url, track.image_url) for track in self.tracks)

    async def save(
        self,
        folder: str | PathLike[str] = ".",
        *,
        overwrite: bool = False,
        progress: SaveProgress | None = None,
    ) -> tuple[Path, ...]:
        """Stream every playable track into *folder* (made if missing) and return the paths, one a track.

        A file appears only when it is whole, audio, and as long as its track; its suffix follows its bytes. Names come
        from titles, else from the source, made safe. Each call fetches the links, though the files may be there: a file
        with the same bytes stays the one, and where other files have the names all tracks get one number. It works
        after the client was closed, too. `progress(path, bytes_so_far, bytes_in_all)` is called as bytes arrive.

        A link that has died is asked for again, from the vendor's status call and then from its recovery, where it
        has one: that may take minutes, and needs an open client.

        Raises:
            DownloadError: a file is gone, empty, not audio or cut short, or the same track came twice.
            ConfigError: this song was not made by a client.
            RequestError: an argument is none; nothing was fetched.
        """
        checks.refuse_wrong(
            folder=checks.folder(folder), overwrite=checks.flag(overwrite), progress=checks.progress(progress)
        )
        return await _fetcher(self).save(self, Path(folder), overwrite=overwrite, progress=progress)

    async def recover(self) -> Song:
        """Have the vendor bring its files back, and return the song with the new links; `save` does it by itself.

        A recovery that is under way is waited for; else a new one is made, even where one failed before.

        Raises:
            UnsupportedError: the vendor has no recovery.
            DownloadError: nothing came back, or not in time.
            ConfigError: this song was not made by a client, or that is not open.
        """
        return await _fetcher(self).recover()


def _fetcher(value: Track | Song) -> Files:
    files = value._files  # noqa: SLF001 - it is this module's
    if files is None:
        what = f"this {type(value).__name__} was not made by a client, or was pickled"
        raise ConfigError(f"{what}, so it has nothing to download with: await `client.job(ref)` for one that has")
    return files
