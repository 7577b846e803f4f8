"""What a song and its tracks ask of the object that fetches their files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import audioext as ax
from audioext.models.results import SaveProgress, fetched_by


class Shelf:
    """Fetches files without a network, each by its track."""

    async def read(self, track: ax.Track) -> bytes:
        """Return the title."""
        return (track.title or "").encode()

    async def cover(self, track: ax.Track) -> bytes:
        """Return the title, too."""
        return await self.read(track)

    async def stream(self, track: ax.Track) -> AsyncIterator[bytes]:
        """Yield the title."""
        yield await self.read(track)

    async def save(
        self, song: ax.Song, folder: Path, *, overwrite: bool, progress: SaveProgress | None
    ) -> tuple[Path, ...]:
        """Return a path for each track, named by what the track itself reads."""
        assert (False, None) == (overwrite, progress)
        return tuple([folder / (await track.read()).decode() for track in song.tracks])

    async def recover(self) -> ax.Song:
        """Restore nothing."""
        raise ax.UnsupportedError("nothing can be restored")


async def test_the_tracks_of_a_song_saved_by_a_name_can_be_read() -> None:
    """With `name=` the saved song's tracks have that title, and are fetched as before."""
    shelf = Shelf()
    tracks = fetched_by(shelf, (ax.Track(id="1", title="Rain"),))
    song = ax.Song(ref="r", provider="kie", task_id="t", tracks=tracks, files=shelf)

    assert (Path("out/Rain"),) == await song.save("out")
    assert (Path("out/row 7"),) == await song.save("out", name="row 7")
    assert "Rain" == song.tracks[0].title
