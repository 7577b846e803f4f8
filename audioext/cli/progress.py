"""What is seen while a task runs: a live display on a terminal, one plain line a stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from audioext.cli.records import reached_at, stage_line
from audioext.cli.screen import Screen
from audioext.cli.text import clean, moment, seconds, size
from audioext.models.results import Stage, StageEvent
from audioext.runtime.jobs import Job

REFRESHES_PER_SECOND = 8.0
STEP_LETTERS = 10
_NEXT = {None: "submitted", Stage.SUBMITTED: "text", Stage.TEXT: "first", Stage.FIRST: "complete"}


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
            self._spinner.update(text=Text(f"waiting for {self._what}  {seconds(time.time() - self._since)}"))
            parts.append(self._spinner)
        parts += (Text(f"  {moved:>20}  {clean(name)}", no_wrap=True) for name, moved in self._moved.items())
        return Group(*parts)

    def note(self, text: str) -> None:
        """Show a line that is no step."""
        self.console.print(Text(text))

    def step(self, word: str, text: str, *, after: float | None = None) -> None:
        """Show that something is done, *after* so many seconds where that is known."""
        since = "" if after is None else f"+{seconds(after)}"
        tick = ("✔ ", "green") if self.console.is_terminal else ""
        self.console.print(Text.assemble(tick, f"{word:<{STEP_LETTERS}} {since:>{STEP_LETTERS}}  {text}"))

    def waiting(self, what: str, *, since: float | None = None) -> None:
        """Show what is being waited for; *since* is the Unix time to count from."""
        self._what = what
        self._since = time.time() if since is None else since

    def moving(self, name: str, so_far: int, in_all: int | None) -> None:
        """Show how much of a file has moved."""
        self._moved[name] = size(so_far) if in_all is None else f"{size(so_far)} of {size(in_all)}"

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
    at = reached_at(job.record, Stage.SUBMITTED)
    if at is None:
        until = f"; waiting for its webhook until {moment(job.record.unknown_at)}" if job.record.webhooks else ""
        view.step("sent", f"job {job.ref}, with no answer that names its task{until}")
    else:
        view.step("submitted", f"job {job.ref}", after=at - job.record.created_at)
    view.waiting(_NEXT.get(job.stage, "complete"), since=job.record.created_at)


def show_stage(view: View, job: Job, event: StageEvent) -> None:
    """Show a stage that was reached, and wait for the next."""
    after = (event.at - job.created_at).total_seconds()
    view.step(event.stage.name.lower(), stage_line(event), after=after)
    if event.stage in _NEXT:
        view.waiting(_NEXT[event.stage], since=job.record.created_at)
    else:
        view.still()


def show_saved(view: View, paths: tuple[Path, ...]) -> None:
    """Show the files that were saved."""
    view.still()
    for path in paths:
        view.step("saved", f"{path} ({size(path.stat().st_size)})")
