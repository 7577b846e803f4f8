"""`audioext archive`: every finished song with its cover, lyrics and facts, in a folder that is added to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from attrs import field, frozen
from cyclopts import Parameter

from audioext.cli.clients import looking_client
from audioext.cli.exits import Exit
from audioext.cli.options import OUTPUT, SHOWN, AllowHosts, Command, LookOptions
from audioext.cli.screen import Screen, clean
from audioext.errors import AudioextError, DownloadError
from audioext.files.formats import picture_suffix
from audioext.files.sources import fingerprint
from audioext.models.record import Verdict
from audioext.models.results import TimedLine, Track
from audioext.runtime.jobs import Job
from audioext.ui.objects import job_object, timeline_objects, track_object

FACTS = "song.json"
"""Written last: a folder that has it is whole."""
SECONDS_A_DAY = 86_400.0


@frozen(slots=False)
class ArchiveCommand(LookOptions, Command):
    """`audioext archive`."""

    folder: Annotated[Path, Parameter()]
    """The folder of the archive; it is made if it is missing."""
    allow_hosts: AllowHosts = field(default=(), kw_only=True)
    days: Annotated[float, OUTPUT, SHOWN] = field(default=3.0, kw_only=True)
    """Warn of what could not be saved and expires within so many days."""

    async def run(self, screen: Screen) -> Exit | None:
        """Save what is not there yet, and say what could not be saved."""
        saved = there = 0
        lost: list[Job] = []
        async with looking_client(self, allow_hosts=self.allow_hosts) as client:
            async for job in client.jobs(open=False):
                folder = self.folder / job.ref
                if job.verdict is not Verdict.COMPLETE:
                    continue
                if await asyncio.to_thread(is_whole, folder):
                    there += 1
                    continue
                screen.note(f"saving job {job.ref}")  # a link that is dead is tried for half a minute
                try:
                    facts = await keep(job, folder)
                except (AudioextError, OSError) as error:
                    lost.append(job)
                    problem = str(error) if isinstance(error, AudioextError) else f"{folder}: {error}"
                    self._complain(screen, job, problem)
                else:
                    saved += 1
                    names = ", ".join(str(track["file"]) for track in facts["tracks"])
                    screen.result(f"{job.ref}  {clean(names)}", json={"event": "saved", "folder": folder, **facts})
        screen.note(
            f"{saved} saved, {there} in the archive before, {len(lost)} could not be saved",
            json={"event": "done", "saved": saved, "there": there, "failed": len(lost)},
        )
        if lost and not screen.json:
            screen.note(f"  ask for fresh links: {screen.hint('save', of=lost[0].ref)}")
        return Exit.DOWNLOAD if lost else None

    def _complain(self, screen: Screen, job: Job, problem: str) -> None:
        """Say what could not be saved, and by when it has to be."""
        ends = [track.expires_at.timestamp() for track in job.record.tracks if track.expires_at is not None]
        left = round((min(ends) - time.time()) / SECONDS_A_DAY, 1) if ends else None  # of the first link
        soon = f"; its links expire in {left:.1f} days" if left is not None and left <= self.days else ""
        facts = {"event": "failed", "ref": job.ref, "problem": problem, "days_left": left}
        screen.error(f"job {job.ref}: {clean(problem)}{soon}", json=facts)


async def keep(job: Job, folder: Path) -> dict[str, Any]:
    """Save all of a song into *folder*, its facts last, and return these."""
    if await asyncio.to_thread(folder.is_symlink):  # others may write where the archive is
        raise DownloadError([f"{folder} is a link, and is not followed"])
    song, record = await job.result(timeout=1.0), job.record
    tracks = []
    for track, path in zip(song.tracks, await song.save(folder, overwrite=True), strict=True):
        cover = await _keep_cover(track, path)
        facts = await asyncio.to_thread(_facts, track, path)
        tracks.append({**track_object(track), "file": path.name, **cover, **facts})
    facts = {
        **job_object(record),
        "request": record.request.given(),
        "model": record.model,
        "stages": timeline_objects(record),
        "tracks": tracks,
    }
    data = msgspec.json.format(msgspec.json.encode(facts, enc_hook=str))
    await asyncio.to_thread(_write, folder / FACTS, data)
    return facts


def is_whole(folder: Path) -> bool:
    """Say whether the archive has a song: its facts, and each file that they name. It blocks."""
    try:
        facts = msgspec.json.decode((folder / FACTS).read_bytes())
        return all((folder / track["file"]).is_file() for track in facts["tracks"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


async def _keep_cover(track: Track, path: Path) -> dict[str, object]:
    if track.image_url is None:
        return {}
    try:
        picture = await track.cover()
    except DownloadError as error:  # the music is worth more
        return {"cover_problem": str(error)}
    target = path.with_suffix(picture_suffix(picture) or "")
    await asyncio.to_thread(_write, target, picture)
    return {"cover": target.name}


def _facts(track: Track, path: Path) -> dict[str, object]:
    """Write the lyrics beside a saved track, and return what is known of both files. It blocks."""
    facts: dict[str, object] = {"bytes": path.stat().st_size, "sha256": fingerprint(path)}
    if track.timed_lyrics:
        target = path.with_suffix(".lrc")
        _write(target, lrc(track.timed_lyrics, title=track.title).encode())
        facts["timed_lyrics_file"] = target.name
    return facts


def lrc(lines: Sequence[TimedLine], *, title: str | None = None) -> str:
    """Return timed lyrics as players read them: `[mm:ss.xx]` before each line."""
    head = [f"[ti:{clean(title)}]"] if title else []
    timed = (f"[{int(line.start // 60):02d}:{line.start % 60:05.2f}]{clean(line.text)}" for line in lines)
    return "\n".join([*head, *timed]) + "\n"


def _write(path: Path, data: bytes) -> None:
    """Write all of a file at once, through no link that somebody put there. It blocks."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        file.write(data)
    part.replace(path)
