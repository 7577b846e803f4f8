"""The steps of a task, each shown as it is made: submit, watch, save, report."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from attrs import evolve, frozen
from yarl import URL

from audioext.cli import text
from audioext.cli.clients import OpenClient
from audioext.cli.options import SavingOptions
from audioext.cli.progress import View, show_saved, show_stage, show_submitted
from audioext.cli.records import event_object, problem_of, state_of, track_object
from audioext.cli.screen import Screen
from audioext.client import Client
from audioext.files.sources import SourceInfo, probe
from audioext.models.requests import Request
from audioext.models.results import Song, StageEvent
from audioext.runtime.jobs import Job, JobExpiredError, StageTimeoutError

LISTENED_SECONDS = 10.0
"""How long a wait listens before it looks: a task takes longer than that, but a wrong address need not."""
SLOW_SECONDS = 50.0
"""How much longer it waits where nothing is wrong with the address."""
LOOK_SECONDS = 5.0
LOOK_BYTES = 1_000
HTTP_OK = 200


@frozen(kw_only=True)
class Finished:
    """A job that is complete: what was seen of it, and the files that were saved."""

    job: Job
    song: Song
    events: Sequence[StageEvent]
    paths: tuple[Path, ...] = ()


async def submit(
    client: Client, request: Request, view: View, *, key: str | None = None, meta: dict[str, object] | None = None
) -> Job:
    """Submit *request* and show the upload of its file and the job."""
    name = request.file.name if request.file is not None else ""
    size: int | None = None

    def uploading(so_far: int, in_all: int | None) -> None:
        nonlocal size
        size = so_far
        view.moving(name, so_far, in_all)

    view.waiting("the upload" if name else "the answer", since=time.time())
    job = await client.submit(request, key=key, meta=meta, progress=uploading)
    view.still()
    if size is not None:
        view.step("uploaded", f"{name} ({text.size(size)})")
    show_submitted(view, job)
    return job


async def watch(client: Client, job: Job, view: View, *, is_local: bool) -> list[StageEvent]:
    """Show each stage as it is reached, and return them all; say so where no webhook can come.

    *is_local* says that the provider runs on this machine.

    Raises:
        StageTimeoutError: the job is not complete in time.
    """
    events: list[StageEvent] = []
    url, began = client.public_url, time.time()
    async with _doubts(url, view, events, is_local=is_local):
        try:
            async for event in job:
                show_stage(view, job, event)
                events.append(event)
                is_late = event.source == "poll" and event.at.timestamp() > began
                if url is not None and is_late and not _is_heard(events):
                    view.note(f"no webhook told of this: the provider could not reach {url}, or its proxy refused")
        except JobExpiredError:
            raise
        except StageTimeoutError as error:  # it names the next stage, but what was waited for is the last
            raise too_early(job) from error
    return events


async def finish(opened: OpenClient, job: Job, view: View, saving: SavingOptions) -> Finished:
    """Await the song, and save it unless that is not wanted."""
    events = await watch(opened.client, job, view, is_local=opened.is_local)
    song = await job
    finished = Finished(job=job, song=song, events=events)
    if saving.no_save:
        return finished
    return evolve(finished, paths=await save(song, saving.out, view))


async def save(song: Song, folder: Path, view: View, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Save *song* into *folder*, with a bar for each file."""

    def saving(path: Path, so_far: int, in_all: int | None) -> None:
        view.moving(path.name, so_far, in_all)

    view.waiting("the files")
    paths = await song.save(folder, overwrite=overwrite, progress=saving)
    show_saved(view, paths)
    return paths


def report(screen: Screen, finished: Finished) -> None:
    """Print the tracks, as a table and how to go on from one of them, or as one JSON object."""
    job, song, paths = finished.job, finished.song, finished.paths
    if screen.json:
        screen.emit(song_object(finished))
        return
    rows: list[Sequence[object]] = []
    for index, track in enumerate(song.tracks):
        path = paths[index] if index < len(paths) else None
        size = "" if path is None else text.size(path.stat().st_size)
        length = text.length(track_length(path, track.duration))
        rows.append((index + 1, track.title or "", length, size, path if path is not None else track.audio_url))
    screen.table(("track", "title", "duration", "size", "file" if paths else "url"), rows)
    ids = [track.id for track in song.tracks if track.id is not None and track.extends_by_id]
    if ids and not screen.job.sandbox:
        model = () if job.record.model is None else ("--model", job.record.model)
        screen.note(f"\nGo on from a track: {screen.job.command('extend', ids[0], '--provider', job.provider, *model)}")


def song_object(finished: Finished) -> dict[str, object]:
    """Return a complete job for JSON: its facts, when each stage came, its tracks and files."""
    job, song = finished.job, finished.song
    return {
        "ref": job.ref,
        "provider": job.provider,
        "task_id": song.task_id,
        "state": "complete",
        "credits": song.credits,
        "meta": dict(song.meta),
        "stages": [event_object(event, job.created_at) for event in finished.events],
        "tracks": [track_object(track) for track in song.tracks],
        "files": list(finished.paths),
    }


def track_length(path: Path | None, claimed: float | None) -> float | None:
    """Return the seconds of a saved file, or what the provider claims where it cannot be read."""
    found = None if path is None else probe(path)
    return found.duration if isinstance(found, SourceInfo) and found.duration is not None else claimed


def too_early(job: Job) -> StageTimeoutError:
    """Return the error that a job is not complete, with what its last status call said."""
    problem = problem_of(job.record)
    said = "" if problem is None else f"; its last answer said: {problem}"
    return StageTimeoutError(f"job {job.ref} is not complete: it is at {state_of(job.record)}{said}", job=job)


# --- where no webhook comes --------------------------------------------------------------------------------


@asynccontextmanager
async def _doubts(url: URL | None, view: View, events: Sequence[StageEvent], *, is_local: bool) -> AsyncGenerator[None]:
    """Say what is wrong with *url* while nothing is heard by webhook."""

    async def doubt() -> None:
        if url is None:
            return
        why = await reason_for_silence(url, is_local=is_local)
        if why is None:
            await asyncio.sleep(SLOW_SECONDS)
            why = f"{url} answers from here; is the task slow, or does a firewall keep the provider out?"
        if not _is_heard(events):
            view.note(f"no webhook has come so far: {why}")

    doubting = asyncio.create_task(doubt())
    try:
        yield
    finally:
        doubting.cancel()
        with suppress(asyncio.CancelledError):
            await doubting


def _is_heard(events: Sequence[StageEvent]) -> bool:
    return any(event.source == "webhook" for event in events)


async def reason_for_silence(public_url: URL, *, is_local: bool, after: float = LISTENED_SECONDS) -> str | None:
    """Wait *after* seconds, then return why providers cannot reach *public_url*, `None` if nothing speaks for that.

    *is_local* says that the provider itself runs on this machine, as a sandbox does.
    """
    await asyncio.sleep(after)
    health = public_url / "healthz"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOOK_SECONDS)) as session,
            session.get(health, allow_redirects=False) as answer,
        ):
            status, body = answer.status, await answer.content.read(LOOK_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"nobody answers at {health} ({type(error).__name__}): is the tunnel or the proxy up?"
    if status != HTTP_OK:
        return f"{health} answers {status}: does the path of --public-url lead to the receiver?"
    if b'"ok"' not in body:
        return f"what answers at {health} is no receiver of audioext's"
    if not is_local and _is_private(public_url.host or ""):
        return f"{public_url.host} can be reached from this network alone: --public-url must be a public address"
    return None


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
