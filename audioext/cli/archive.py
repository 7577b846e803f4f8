"""`audioext archive`: saves finished songs with covers, lyrics and metadata into a folder; later runs add new ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from audioext.cli.clients import looking_client
from audioext.cli.commands import ArchiveCommand
from audioext.cli.exits import Exit
from audioext.cli.screen import DAY_SECONDS, Screen, clean
from audioext.errors import AudioextError, DownloadError
from audioext.files.formats import picture_suffix
from audioext.files.sources import fingerprint
from audioext.models.record import Verdict
from audioext.models.results import TimedLine, Track
from audioext.runtime.jobs import Job
from audioext.ui.objects import job_object, timeline_objects, track_object

FACTS = "song.json"
"""Written last: a folder that has it is complete."""


async def archive(command: ArchiveCommand, screen: Screen) -> Exit | None:
    """Save the songs that are missing, and report those that could not be saved."""
    saved = there = 0
    lost: list[Job] = []
    async with looking_client(command, allow_hosts=command.allow_hosts) as client:
        async for job in client.jobs(open=False):
            folder = command.folder / job.ref
            if job.verdict is not Verdict.COMPLETE:
                continue
            if await asyncio.to_thread(is_whole, folder):
                there += 1
                continue
            screen.note(f"saving job {job.ref}")  # shown first, since a dead link is retried for half a minute
            try:
                facts = await keep(job, folder)
            except (AudioextError, OSError) as error:
                lost.append(job)
                problem = str(error) if isinstance(error, AudioextError) else f"{folder}: {error}"
                _complain(command, screen, job, problem)
            else:
                saved += 1
                names = ", ".join(str(track["file"]) for track in facts["tracks"])
                screen.result(f"{job.ref}  {clean(names)}", json={"event": "saved", "folder": folder, **facts})
    screen.note(
        f"{saved} saved, {there} already in the archive, {len(lost)} could not be saved",
        json={"event": "done", "saved": saved, "there": there, "failed": len(lost)},
    )
    if lost and not screen.json:
        screen.note(f"  ask for fresh links: {screen.hint('save', of=lost[0].ref)}")
    return Exit.DOWNLOAD if lost else None


def _complain(command: ArchiveCommand, screen: Screen, job: Job, problem: str) -> None:
    """Report a song that could not be saved, and when its links expire."""
    ends = [track.expires_at.timestamp() for track in job.record.tracks if track.expires_at is not None]
    left = round((min(ends) - time.time()) / DAY_SECONDS, 1) if ends else None  # until the first link expires
    soon = f"; its links expire in {left:.1f} days" if left is not None and left <= command.days else ""
    facts = {"event": "failed", "ref": job.ref, "problem": problem, "days_left": left}
    screen.error(f"job {job.ref}: {clean(problem)}{soon}", json=facts)


async def keep(job: Job, folder: Path) -> dict[str, Any]:
    """Save a song into *folder*, `song.json` last, and return the contents of that.

    Raises:
        DownloadError: *folder* is a symbolic link, or a file could not be saved.
    """
    if await asyncio.to_thread(folder.is_symlink):  # other users may have write access to the archive
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
    """Return whether the archive has a whole song: its `song.json`, and each track that it names. It blocks."""
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
    except DownloadError as error:  # a missing cover must not lose the music
        return {"cover_problem": str(error)}
    target = path.with_suffix(picture_suffix(picture) or "")
    await asyncio.to_thread(_write, target, picture)
    return {"cover": target.name}


def _facts(track: Track, path: Path) -> dict[str, object]:
    """Write the timed lyrics beside a saved track, and return facts about both files. It blocks."""
    facts: dict[str, object] = {"bytes": path.stat().st_size, "sha256": fingerprint(path)}
    if track.timed_lyrics:
        target = path.with_suffix(".lrc")
        _write(target, lrc(track.timed_lyrics, title=track.title).encode())
        facts["timed_lyrics_file"] = target.name
    return facts


def lrc(lines: Sequence[TimedLine], *, title: str | None = None) -> str:
    """Return timed lyrics in the LRC format of players: `[mm:ss.xx]` before each line."""
    head = [f"[ti:{clean(title)}]"] if title else []
    timed = (f"[{int(line.start // 60):02d}:{line.start % 60:05.2f}]{clean(line.text)}" for line in lines)
    return "\n".join([*head, *timed]) + "\n"


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically, without following a symbolic link of another user. It blocks."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        file.write(data)
    part.replace(path)
