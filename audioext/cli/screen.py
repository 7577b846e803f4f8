"""Where a command's words go: results to stdout, all else to stderr, JSON alone where it was asked for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

from attrs import define, field, frozen
from rich.console import Console
from rich.text import Text

from audioext.cli.text import clean, columns, dump, program

_TASKS = frozenset({"extend", "wait"})
"""The commands with options for an API."""


def _console(*, is_error: bool) -> Console:
    # Lines are never broken by us: what people copy has to stay in one piece.
    return Console(file=sys.stderr if is_error else sys.stdout, highlight=False, soft_wrap=True)


@frozen(kw_only=True)
class JobOptions:
    """How another command finds the job of this one: the options for its store, its API, and the hosts of its files.

    `is_asked` says that a submit is under way, so that there may be a task.
    """

    store: str = ""
    api: str = ""
    files: str = ""
    is_kept: bool = True
    is_asked: bool = False
    sandbox: bool = False

    def command(self, name: str, *options: str, of: str = "") -> str:
        """Return what to type to run the command called *name*, *of* a job's ref or a track's id.

        An id that looks like an option, as strangers may choose theirs, comes last and behind `--`.
        """
        words = [program(), name, *map(shlex.quote, options)]
        after = self.store + self.api * (name in _TASKS) + self.files * (name in {*_TASKS, "save"})
        if of.startswith("-"):
            return f"{' '.join(words)}{after} -- {shlex.quote(of)}"
        return " ".join((*words[:2], *([shlex.quote(of)] if of else []), *words[2:])) + after


@define(eq=False, kw_only=True)
class Screen:
    """The two streams of one command, and which job it is about, for whoever interrupts it."""

    json: bool = False
    out: Console = field(factory=lambda: _console(is_error=False))
    err: Console = field(factory=lambda: _console(is_error=True))
    ref: str | None = None
    job: JobOptions = field(factory=JobOptions)

    def emit(self, value: Mapping[str, object]) -> None:
        """Print one JSON object on one line of stdout, at once."""
        print(dump(value), flush=True)

    def result(self, text: str = "", *, style: str = "") -> None:
        """Print a line of the result, unless JSON was asked for."""
        if not self.json:
            self.out.print(Text(text, style=style))

    def note(self, text: str, *, style: str = "") -> None:
        """Print a line that is no result."""
        self.err.print(Text(text, style=style))

    def error(self, text: str) -> None:
        """Print what went wrong."""
        self.err.print(Text.assemble(("audioext: ", "bold red"), text))

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table of the result, or one block a row where the terminal is too narrow for it."""
        cells = [[clean(cell) for cell in row] for row in rows]
        head, *lines = columns(headers, cells)
        if not self.out.is_terminal or max(map(len, lines), default=0) <= self.out.width:
            self.result(head, style="bold")
            for line in lines:
                self.result(line)
            return
        width = max(map(len, headers))
        for first, *others in cells:
            self.result(first, style="bold")
            for header, cell in zip(headers[1:], others, strict=True):
                self.result(f"  {header:<{width}}  {cell}".rstrip())
