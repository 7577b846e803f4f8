"""The steps of a task, each shown as it is made: live on a terminal, one plain line a step elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, evolve, field, frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from audioext.cli import text
from audioext.cli.clients import OpenClient
from audioext.cli.options import SavingOptions
from audioext.cli.screen import Screen
from audioext.errors import AudioextError
from audioext.files.sources import SourceInfo, probe
from audioext.models.record import Verdict
from audioext.models.requests import Request
from audioext.models.results import Song, Stage
from audioext.runtime.jobs import Job, JobExpiredError, StageEvent, StageTimeoutError
from audioext.ui.objects import BY, event_object, job_object, problem_of, state_of, track_object

REFRESHES_PER_SECOND = 8.0
STEP_LETTERS = 10
_NEXT = {None: "submitted", Stage.SUBMITTED: "text", Stage.TEXT: "first", Stage.FIRST: "complete"}

LISTENED_SECONDS = 10.0
"""How long a wait listens before it looks: a task takes longer than that, but a wrong address need not."""
SLOW_FACTOR = 5.0
"""How much longer it listens where nothing is wrong with the address."""


@define(eq=False)
class View:
    """Steps that stay; on a terminal, below them, a spinner with the time and a line for each file that moves."""

    console: Console
    _spinner: Spinner = field(factory=lambda: Spinner("dots", style="cyan"), init=False)
    _moved: dict[str, str] = field(factory=dict, init=False)
    _what: str = field(default="", init=False)
    _since: float = field(default=0.0, init=False)

    def face(self) -> RenderableType:
        """Return what is drawn now."""
        parts: list[RenderableType] = []
        if self._what:
            self._spinner.update(text=Text(f"waiting for {self._what}  {text.seconds(time.time() - self._since)}"))
            parts.append(self._spinner)
        parts += (Text(f"  {moved:>20}  {text.clean(name)}", no_wrap=True) for name, moved in self._moved.items())
        return Group(*parts)

    def doubt(self, words: str) -> None:
        """Show a line that says what may be wrong."""
        self.console.print(Text(words))

    def step(self, word: str, words: str, *, after: float | None = None) -> None:
        """Show that something is done, *after* so many seconds where that is known."""
        since = "" if after is None else f"+{text.seconds(after)}"
        tick = ("✔ ", "green") if self.console.is_terminal else ""
        self.console.print(Text.assemble(tick, f"{word:<{STEP_LETTERS}} {since:>{STEP_LETTERS}}  {words}"))

    def waiting(self, what: str, *, since: float | None = None) -> None:
        """Show what is being waited for; *since* is the Unix time to count from."""
        self._what = what
        self._since = time.time() if since is None else since

    def moving(self, name: str, so_far: int, in_all: int | None) -> None:
        """Show how much of a file has moved."""
        self._moved[name] = text.size(so_far) if in_all is None else f"{text.size(so_far)} of {text.size(in_all)}"

    def still(self) -> None:
        """Show that nothing is being waited for any more."""
        self._what = ""
        self._moved.clear()


@contextmanager
def open_view(screen: Screen) -> Generator[View]:
    """Return a view on stderr; what is under way is cleared away at the end, and not shown where nobody looks."""
    view = View(screen.err)
    if not screen.err.is_terminal:
        yield view
        return
    with Live(get_renderable=view.face, console=screen.err, refresh_per_second=REFRESHES_PER_SECOND, transient=True):
        yield view


def show_submitted(view: View, job: Job) -> None:
    """Show that a job was made; without a task id its outcome is not known yet."""
    at = next((item.at for item in job.record.reached if item.stage is Stage.SUBMITTED), None)
    if at is None and job.verdict is Verdict.OPEN:
        until = f"; waiting for its webhook until {text.moment(job.record.unknown_at)}" if job.record.webhooks else ""
        view.step("sent", f"job {job.ref}, with no answer that names its task{until}")
    elif at is not None:
        view.step("submitted", f"job {job.ref}", after=at - job.record.created_at)
    view.waiting(_NEXT.get(job.stage, "complete"), since=job.record.created_at)


def show_stage(view: View, job: Job, event: StageEvent) -> None:
    """Show a stage that was reached, and wait for the next."""
    playable = sum(track.audio_url is not None for track in event.tracks)
    tracks = "" if playable == 0 else f", {playable} track{'s' if playable > 1 else ''} playable"
    after = (event.at - job.created_at).total_seconds()
    view.step(event.stage.name.lower(), BY[event.source] + tracks, after=after)
    if event.stage in _NEXT:
        view.waiting(_NEXT[event.stage], since=job.record.created_at)
    else:
        view.still()


def show_saved(view: View, paths: tuple[Path, ...]) -> None:
    """Show the files that were saved."""
    view.still()
    for path in paths:
        view.step("saved", f"{path} ({text.size(path.stat().st_size)})")


# --- the steps --------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Finished:
    """A job that is complete: what was seen of it, and the files that were saved."""

    job: Job
    song: Song
    events: Sequence[StageEvent]
    paths: tuple[Path, ...] = ()


async def submit(
    opened: OpenClient, request: Request, view: View, *, key: str | None = None, meta: dict[str, object] | None = None
) -> Job:
    """Submit *request* and show the upload of its file and the job."""
    name = request.path.name if request.path is not None else ""
    size: int | None = None

    def uploading(so_far: int, in_all: int | None) -> None:
        nonlocal size
        size = so_far
        view.moving(name, so_far, in_all)

    view.waiting("the upload" if name else "the answer", since=time.time())
    job = await opened.client.submit(request, key=key, meta=meta, progress=uploading)
    view.still()
    if size is not None:
        view.step("uploaded", f"{name} ({text.size(size)})")
    show_submitted(view, job)
    return job


async def watch(opened: OpenClient, job: Job, view: View, *, patience: float = LISTENED_SECONDS) -> list[StageEvent]:
    """Show each stage as it is reached, and return them all; say so where no webhook comes for *patience* seconds.

    Raises:
        StageTimeoutError: the job is not complete in time.
    """
    events: list[StageEvent] = []
    doubts = asyncio.create_task(_doubt(opened, job, view, events, patience))
    try:
        async for event in job:
            show_stage(view, job, event)
            events.append(event)
    except JobExpiredError:
        raise
    except StageTimeoutError as error:  # it names the next stage, but what was waited for is the last
        raise too_early(job) from error
    finally:
        doubts.cancel()
        with suppress(asyncio.CancelledError):
            await doubts
    return events


async def finish(
    opened: OpenClient, job: Job, view: View, saving: SavingOptions, *, overwrite: bool = False
) -> Finished:
    """Await the song, and save it unless that is not wanted."""
    events = await watch(opened, job, view)
    song = await job
    finished = Finished(job=job, song=song, events=events)
    if saving.no_save:
        return finished
    return evolve(finished, paths=await save(song, saving.out, view, overwrite=overwrite))


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
        **job_object(job.record),
        "credits": song.credits,
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


async def _doubt(opened: OpenClient, job: Job, view: View, events: Sequence[StageEvent], patience: float) -> None:
    """Say what keeps webhooks away, if none has come after a while; where they cannot come, ask for the status."""
    url = opened.client.public_url
    if url is None:
        return
    await asyncio.sleep(patience)
    failed = [line for line in (await opened.client.check()).lines if line.state == "failed"]
    why = f"{failed[0].seen}; {failed[0].advice}" if failed else None
    if why is None:
        await asyncio.sleep(SLOW_FACTOR * patience)
    if _is_heard(events):
        return
    likely = why or f"{url} answers from here; is the task slow, or does a firewall keep the provider out?"
    view.doubt(f"no webhook has come so far: {likely}")
    while why is not None:
        with suppress(AudioextError):
            await job.refresh()
        await asyncio.sleep(opened.provider.info.pace.every)


def _is_heard(events: Sequence[StageEvent]) -> bool:
    return any(event.source == "webhook" for event in events)
