"""The commands that submit or await a task: `extend`, `instrumental`, `wait` and `save`.

Each step is shown when it is done: live on a terminal, else one plain line each.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import attrs
from rich.filesize import decimal

from audioext.cli.clients import (
    OpenClient,
    check_folder,
    find_job,
    looking_client,
    open_client,
    read_meta,
    read_source,
    real_provider,
)
from audioext.cli.commands import SaveCommand, SubmitCommand, WaitCommand
from audioext.cli.execution import in_cli_terms
from audioext.cli.options import BASE_URL_VARIABLE, SOURCE_NAMES, StoreOptions
from audioext.cli.screen import Screen, clean, length, moment
from audioext.errors import (
    AudioextError,
    ConfigError,
    Problem,
    ProviderError,
    RequestError,
    UnsupportedError,
    shown,
)
from audioext.files.sources import probe
from audioext.models import checks
from audioext.models.record import Record, Verdict
from audioext.models.requests import Extend, Request
from audioext.models.results import Song, Stage
from audioext.providers import format_of
from audioext.providers.base import Provider
from audioext.runtime.jobs import Job, JobExpiredError, JobFailedError, StageTimeoutError
from audioext.ui.objects import BY, job_object, losses_of, problem_of, stage_objects, state_of, track_object

_PATIENCE_SECONDS = 0.3
_TRACK_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NEXT = {None: "submitted", Stage.SUBMITTED: "text", Stage.TEXT: "first", Stage.FIRST: "complete"}

LISTENED_SECONDS = 10.0
"""How long a wait without a webhook lasts before the public URL is checked."""
SLOW_FACTOR = 5.0  # how much longer it waits, if the check found nothing wrong, before it says so


async def submit_and_save(command: SubmitCommand, screen: Screen) -> None:
    """Submit the request, show its stages, save the files, and print the tracks."""
    if command.sandbox and command.no_wait:
        message = (
            "with --sandbox the task would end with this command, so --no-wait makes no sense; start "
            "`audioext sandbox` in another terminal, and submit to it with --base-url"
        )
        raise ConfigError(message)
    check_folder(None if command.no_wait else command.folder)
    source = read_source(command.source, ids=command.request is Extend)
    names = {each.name for each in attrs.fields(command.request)} - SOURCE_NAMES - {"provider"}
    given = {name: value for name in names if (value := getattr(command, name)) is not None}
    try:
        await _submit(command, screen, command.request.draft(**given, **source))
    except (JobFailedError, ProviderError, RequestError, UnsupportedError) as error:
        if "audio_id" not in source or _TRACK_ID.fullmatch(command.source):
            raise
        doubt = Problem("source", f"there is no file {shown(command.source)}, so it was taken for a track's id")
        if isinstance(error, RequestError):
            raise RequestError([doubt, *error.problems]) from error
        screen.note(doubt.message)
        raise


async def _submit(command: SubmitCommand, screen: Screen, request: Request) -> None:
    meta, options = read_meta(command.meta), command
    if not (command.sandbox or _has_key(real_provider(command.provider, command.base_url, screen))):
        options = attrs.evolve(command, store="memory://")  # the submit will be refused: create no file
    async with open_client(options, command.provider, screen, base_url=command.base_url) as opened:
        screen.is_asked = True
        name, size = request.path.name if request.path is not None else "", 0

        def uploading(so_far: int, in_all: int | None) -> None:
            nonlocal size
            size = so_far
            screen.moving(name, so_far, in_all)

        with screen.live():
            screen.waiting("the upload" if name else "the answer")
            try:
                job = await opened.client.submit(request, key=command.key, meta=meta, progress=uploading)
            except asyncio.CancelledError:  # closing the client waits for the answer of a POST
                words = "waiting some seconds for the submit's answer; Ctrl-C again exits at once"
                asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, screen.note, words)
                raise
            screen.ref = job.ref
            if size:
                screen.step("uploaded", f"{name} ({decimal(size)})")
            show_submitted(screen, job, "" if job.is_new else ", which had this key already")
            seen = None if command.no_wait else await finish(opened, job, out=command.folder)
        if seen is not None:
            report(screen, job, *seen)
            return
        state = state_of(job.record)
        facts = {"ref": job.ref, "provider": job.provider, "task_id": job.task_id, "state": state}
        screen.result(job.ref, json=facts)
        if not screen.json:
            screen.note(f"come back to it: {screen.hint('wait', of=job.ref)}")


async def wait_and_save(command: WaitCommand, screen: Screen) -> None:
    """Wait for a job of the store, submitted by any process, then save and print the tracks."""
    check_folder(command.folder)
    record = (await _find(command, screen, command.ref)).record
    async with open_client(command, record.provider, screen, base_url=_api_url(command.base_url, record)) as opened:
        job = await opened.client.job(record.ref)
        with screen.live():
            show_submitted(screen, job)
            await _ask(opened, job)
            seen = await finish(opened, job, out=command.folder)
        report(screen, job, *seen)


async def save_complete(command: SaveCommand, screen: Screen) -> None:
    """Save the tracks of a job that is complete."""
    job = await _find(command, screen, command.ref)
    if job.verdict is Verdict.OPEN:
        raise too_early(job)
    base_url = _api_url(command.base_url, job.record)
    # For fresh links: an API can be asked for them, but a sandbox has ended.
    asked = () if command.is_sandboxed else (real_provider(job.provider, base_url, screen),)
    async with looking_client(command, *asked, allow_hosts=command.allow_hosts) as client:
        job = await client.job(job.ref)
        song = await job
        with screen.live():
            screen.waiting("the files")
            paths = await save(song, command.out, screen)
        report(screen, job, song, paths)


def _api_url(given: str | None, record: Record) -> str | None:
    """Return the address of a job's API: the command line's, else that of its submit, else the environment's."""
    return given or record.asked.base_url or os.environ.get(BASE_URL_VARIABLE)


async def _find(options: StoreOptions, screen: Screen, ref: str) -> Job:
    """Find a job, whose provider is needed to make the client."""
    async with looking_client(options) as client:
        job = await find_job(client, screen, ref)
    screen.ref = job.ref
    return job


def _has_key(provider: Provider) -> bool:
    """Return whether *provider* has a key, or the environment has one for it."""
    return provider.info.has_key or bool(os.environ.get(provider.info.key_variable, "").strip())


async def _ask(opened: OpenClient, job: Job) -> None:
    """Poll the status once: a webhook may have gone to a receiver that no longer runs."""
    if job.verdict is Verdict.COMPLETE or job.task_id is None:
        return
    if not _has_key(opened.provider):
        variable = opened.provider.info.key_variable
        opened.screen.note(f"without {variable} the status cannot be polled; waiting for a listener on this store")
        return
    try:
        await job.refresh()
    except (ProviderError, RequestError) as error:
        opened.screen.note(f"the status could not be polled, still waiting: {clean(error)}")


# --- the steps --------------------------------------------------------------------------------------------------


def show_submitted(screen: Screen, job: Job, note: str = "") -> None:
    """Show that a job was submitted, with a *note*, or that its POST had no answer with a task id."""
    at = next((item.at for item in job.record.reached if item.stage is Stage.SUBMITTED), None)
    if at is not None:
        screen.step("submitted", f"job {job.ref}{note}", after=at - job.record.created_at)
    elif job.verdict is Verdict.OPEN:
        until = f"; waiting for its webhook until {moment(job.record.unknown_at)}" if job.record.webhooks else ""
        screen.step("sent", f"job {job.ref}, with no answer that names its task{until}")
    screen.waiting(_NEXT.get(job.stage, "complete"))


async def watch(opened: OpenClient, job: Job, *, patience: float = LISTENED_SECONDS) -> None:
    """Show each stage as it is reached; if no webhook comes for *patience* seconds, find out why and say so."""
    screen = opened.screen
    doubts = asyncio.create_task(_doubt(opened, job, patience))
    try:
        async for event in job:
            playable = sum(track.audio_url is not None for track in event.tracks)
            tracks = "" if playable == 0 else f", {playable} track{'s' if playable > 1 else ''} playable"
            after = (event.at - job.created_at).total_seconds()
            screen.step(str(event.stage), BY[event.source] + tracks, after=after)
            screen.waiting(_NEXT.get(event.stage, "the files"))
    except JobExpiredError:
        raise
    except StageTimeoutError as error:  # it names the next stage, but this waits for the last
        raise too_early(job) from error
    finally:
        doubts.cancel()
        with suppress(asyncio.CancelledError):
            await doubts


async def finish(opened: OpenClient, job: Job, *, out: Path | None) -> tuple[Song, tuple[Path, ...]]:
    """Await the song, save it into the folder *out* unless that is None, and return it and the files."""
    await watch(opened, job)
    song = await job
    return song, () if out is None else await save(song, out, opened.screen)


async def save(song: Song, folder: Path, screen: Screen) -> tuple[Path, ...]:
    """Save *song* into *folder*, and show the progress of each file."""
    paths = await song.save(folder, progress=lambda path, *size: screen.moving(path.name, *size))
    for path in paths:
        screen.step("saved", f"{path} ({decimal(path.stat().st_size)})")
    return paths


def report(screen: Screen, job: Job, song: Song, paths: Sequence[Path]) -> None:
    """Print the tracks: as a table with a hint how to extend one, or as one JSON object."""
    if screen.json:
        tracks = [track_object(track) for track in song.tracks]
        screen.emit({**job_object(job.record), "stages": stage_objects(job.record), "tracks": tracks, "files": paths})
        return
    rows = []
    for number, (track, path) in enumerate(zip_longest(song.tracks, paths), 1):
        size = "" if path is None else decimal(path.stat().st_size)
        found = None if path is None else probe(path)
        seconds = found if isinstance(found, float) else None
        rows.append((number, track.title or "", length(seconds or track.duration), size, path or track.audio_url))
    screen.table(("track", "title", "duration", "size", "file" if paths else "url"), rows)
    if (losses := losses_of(job.record)) is not None:
        screen.note(clean(losses))
    ids = [track.id for track in song.tracks if track.id is not None and track.extends_by_id]
    # Others name a URL or a file, or would be refused.
    ids = [each for each in ids if read_source(each, ids=True) == {"audio_id": each} and not checks.audio_id(each)]
    if ids and not screen.is_sandboxed:
        model = () if job.record.model is None else ("--model", job.record.model)
        command = screen.hint("extend", "--provider", format_of(job.provider) or job.provider, *model, of=ids[0])
        screen.note(f"\nExtend a track: {command}")


def too_early(job: Job) -> StageTimeoutError:
    """Return the error for a job that is not complete, with its latest problem, which may be solved since."""
    problem = problem_of(job.record)
    said = "" if problem is None else f"; its latest problem: {problem}"
    return StageTimeoutError(f"job {job.ref} is not complete: it is at {state_of(job.record)}{said}", job=job)


async def _doubt(opened: OpenClient, job: Job, patience: float) -> None:
    """If no webhook has come after a while, print what keeps them away; if they cannot come, poll the status."""
    url = opened.client.public_url
    if url is None:
        return
    await asyncio.sleep(patience)
    failed = [line for line in (await opened.client.check()).lines if line.state == "failed"]
    why = in_cli_terms(f"{failed[0].seen}; {failed[0].advice}") if failed else None
    if why is None:
        await asyncio.sleep(SLOW_FACTOR * patience)
    if any(item.source == "webhook" for item in job.record.reached):
        return
    likely = why or f"{url} answers from here; is the task slow, or does a firewall keep the provider out?"
    opened.screen.note(f"no webhook has come so far: {likely}")
    while why is not None:
        with suppress(AudioextError):
            await job.refresh()
        await asyncio.sleep(opened.provider.info.pace.every)
