"""The commands that make or await a task: `extend`, `instrumental` and `wait`, then save what came of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from audioext.cli import text
from audioext.cli.exits import Exit, NoSuchRefError
from audioext.cli.options import (
    ApiOptions,
    LookOptions,
    SandboxOptions,
    SavingOptions,
    StoreOptions,
    TaskOptions,
    read_meta,
)
from audioext.cli.places import Place, existing_store, explained_key, open_place, store_url
from audioext.cli.progress import View, open_view, show_saved, show_stage, show_submitted
from audioext.cli.screen import Screen, WayBack
from audioext.client import Client
from audioext.errors import ProviderError, RequestError
from audioext.files.downloads import Source, probe
from audioext.models.record import Verdict
from audioext.models.requests import Request
from audioext.models.results import Song, StageEvent
from audioext.runtime.jobs import Job


@frozen(kw_only=True)
class Finished:
    """A job that is complete: what was seen of it, and the files that were saved."""

    job: Job
    song: Song
    events: Sequence[StageEvent]
    paths: tuple[Path, ...] = ()


@frozen(kw_only=True)
class TaskCommand:
    """One `extend` or `instrumental`, as it was called."""

    request: Request
    provider: str
    api: ApiOptions
    sandbox: SandboxOptions
    store: StoreOptions
    task: TaskOptions = field(factory=TaskOptions)

    async def run(self, screen: Screen) -> Exit:
        """Submit, watch, save and report.

        Raises:
            AudioextError: whatever goes wrong; its exit code is in `exits`.
        """
        task, meta = self.task, read_meta(self.task.meta)
        store = store_url(self.store, sandbox=self.sandbox.sandbox)
        screen.way_back = way_back(self.store, sandbox=self.sandbox.sandbox, base_url=self.api.base_url)
        async with open_place(
            self.provider, api=self.api, sandbox=self.sandbox, store=store, wait_timeout=task.timeout
        ) as place:
            with open_view(screen) as view:
                with explained_key(place):
                    job = await submit(place.client, self.request, view, key=task.key, meta=meta)
                screen.ref = job.ref
                finished = None if task.no_wait else await finish(job, view, task)
            if finished is None:
                _leave(screen, job)
            else:
                report(screen, finished, chain=not self.sandbox.sandbox)
        return Exit.OK


@frozen(kw_only=True)
class WaitCommand:
    """One `wait`, as it was called."""

    ref: str
    api: ApiOptions
    sandbox: SandboxOptions
    store: StoreOptions
    saving: SavingOptions

    async def run(self, screen: Screen) -> Exit:
        """Wait for a job of the store, whichever process submitted it, then save and report.

        Raises:
            AudioextError: whatever goes wrong; its exit code is in `exits`.
        """
        look = LookOptions(store=self.store.store, sandbox=self.sandbox.sandbox)
        async with Client(store=existing_store(look)) as client:
            name = (await find_job(client, self.ref)).provider
        screen.ref = self.ref
        screen.way_back = way_back(self.store, sandbox=self.sandbox.sandbox, base_url=self.api.base_url)
        async with open_place(
            name,
            api=self.api,
            sandbox=self.sandbox,
            store=store_url(self.store, sandbox=self.sandbox.sandbox),
            wait_timeout=self.saving.timeout,
        ) as place:
            job = await place.client.job(self.ref)
            with open_view(screen) as view:
                show_submitted(view, job)
                await _ask(place, job, screen)
                finished = await finish(job, view, self.saving)
            report(screen, finished, chain=not self.sandbox.sandbox)
        return Exit.OK


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


async def watch(job: Job, view: View) -> list[StageEvent]:
    """Show each stage as it is reached, and return them all."""
    events = []
    async for event in job:
        show_stage(view, job, event)
        events.append(event)
    return events


async def finish(job: Job, view: View, saving: SavingOptions) -> Finished:
    """Await the song, and save it unless that is not wanted."""
    events = await watch(job, view)
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


def report(screen: Screen, finished: Finished, *, chain: bool = True) -> None:
    """Print the takes: a table, or one JSON object; *chain* says how to go on from one of them."""
    job, song, paths = finished.job, finished.song, finished.paths
    if screen.json:
        screen.emit(song_object(finished))
        return
    rows: list[Sequence[object]] = []
    for index, track in enumerate(song.tracks):
        path = paths[index] if index < len(paths) else None
        where = path if path is not None else track.audio_url
        rows.append((index + 1, track.title or "", text.length(take_length(path, track.duration)), _size(path), where))
    screen.table(("take", "title", "duration", "size", "file" if paths else "url"), rows)
    ids = [track.id for track in song.tracks if track.id is not None and track.extends_by_id]
    if ids and chain:
        model = "" if job.record.model is None else f" --model {shlex.quote(job.record.model)}"
        to = f"--provider {job.provider}{model}{screen.way_back.options}"
        screen.note(f"\nGo on from a take: {text.program()} extend {shlex.quote(ids[0])} {to}")


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
        "stages": [text.event_object(event, job.created_at) for event in finished.events],
        "tracks": [text.track_object(track) for track in song.tracks],
        "files": list(finished.paths),
    }


async def find_job(client: Client, ref: str) -> Job:
    """Return the job of *ref*.

    Raises:
        NoSuchRefError: the store does not hold it.
    """
    try:
        return await client.job(ref)
    except RequestError as error:
        message = (
            f"this store holds no job {ref!r}; `{text.program()} jobs` lists what it holds. "
            "--store names another one, --sandbox the one of the sandbox's jobs"
        )
        raise NoSuchRefError(message) from error


def way_back(store: StoreOptions, *, sandbox: bool, base_url: str | None = None) -> WayBack:
    """Return how another command finds a job of this store and its API; a store's password is not repeated."""
    options = " --sandbox" if sandbox else ""
    if store.store is not None and "@" not in store.store:
        options += f" --store {shlex.quote(store.store)}"
    if base_url is not None and not sandbox:
        options += f" --base-url {shlex.quote(base_url)}"
    is_kept = not store_url(store, sandbox=sandbox).startswith("memory:")
    return WayBack(options=options, is_kept=is_kept, sandbox=sandbox)


def take_length(path: Path | None, told: float | None) -> float | None:
    """Return the seconds of a saved file, or what the provider told where it cannot be read."""
    found = None if path is None else probe(path)
    if isinstance(found, Source) and found.duration is not None:
        return found.duration
    return told


async def _ask(place: Place, job: Job, screen: Screen) -> None:
    """Ask the provider once: the callback may have come to a receiver that is gone."""
    if job.verdict is Verdict.COMPLETE or job.task_id is None:
        return
    if not place.has_key:
        screen.note(f"without {place.provider.key_variable} nobody can be asked; waiting for a listener on this store")
        return
    try:
        await job.refresh()
    except (ProviderError, RequestError) as error:
        screen.note(f"the status could not be asked for, waiting on: {text.clean(error)}")


def _leave(screen: Screen, job: Job) -> None:
    if screen.json:
        state = text.state_of(job.record, time.time())
        screen.emit({"ref": job.ref, "provider": job.provider, "task_id": job.task_id, "state": state})
    else:
        screen.result(job.ref)
        screen.note(f"come back to it: {text.program()} wait {job.ref}{screen.way_back.options}")


def _size(path: Path | None) -> str:
    return "" if path is None else text.size(path.stat().st_size)
