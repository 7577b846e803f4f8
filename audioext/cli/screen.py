"""The output of commands: results go to stdout, all else to stderr; with `--json` stdout has only JSON.

Times, states and tables are formatted for people, and untrusted text so that it cannot harm a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TextIO

from attrs import define, field
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from audioext.errors import printable
from audioext.http.urls import without_password

_log = logging.getLogger("audioext.cli")

NAME = "audioext"
TENTHS_BELOW_SECONDS = 10.0
MINUTES_FROM_SECONDS = 120.0
DAY_SECONDS = 86_400.0
STEP_LETTERS = 10
_SURROGATES = re.compile("[\ud800-\udfff]")


def program() -> str:
    """Return how to call this program: by its name if the shell finds it, else as it was called now."""
    typed = Path(sys.argv[0])
    if typed.name != NAME:
        return f"python -m {NAME}" if typed.parts[-2:] == (NAME, "__main__.py") else NAME
    found = shutil.which(NAME)
    is_found = found is not None and Path(found).resolve() == typed.resolve()
    return NAME if is_found else shlex.quote(str(typed))


def clean(text: object) -> str:
    """Return *text* on one line and without control characters: titles and errors are untrusted."""
    letters = (" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(text))
    return "".join(letters).strip()


def span(value: float) -> str:
    """Format *value* seconds: `0.4 s`, `48 s`, `2 min 03 s`, `3 h 20 min`, `2 d 5 h`."""
    if value < TENTHS_BELOW_SECONDS:
        return f"{max(0.0, value):.1f} s"
    if value < MINUTES_FROM_SECONDS:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if value < DAY_SECONDS:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def length(value: float | None) -> str:
    """Format the length of a recording (seconds): `44.1 s`."""
    return "?" if value is None else f"{value:.1f} s"


def moment(at: float) -> str:
    """Format a time (Unix seconds) in the local time zone."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def dump(value: Mapping[str, object], to: TextIO | None = None) -> str:
    """Return *value* as one line of JSON for *to*; what a terminal would interpret or cannot show is escaped."""
    line = json.dumps(value, ensure_ascii=False, default=_plain)
    line = _SURROGATES.sub(lambda found: rf"\\u{ord(found[0]):04x}", line)  # from file names that are not UTF-8
    is_whole = True
    try:
        line.encode(getattr(to, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # Python's own escapes of what the encoding lacks are not JSON
        is_whole = False
    letters = (
        letter if letter.isprintable() and (is_whole or letter.isascii()) else _escaped(letter) for letter in line
    )
    return "".join(letters)


def _escaped(letter: str) -> str:
    return json.dumps(letter)[1:-1]


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else os.fspath(value)  # type: ignore[call-overload]  # else a defect


# --- the two streams --------------------------------------------------------------------------------------------

_OF_STORE = ("sandbox", "store")
_OF_API = ("base_url", "public_url", "listen", "poll_every", "poll_only")
_OF_FILES = ("allow_hosts",)
_TAKEN = {
    "extend": (*_OF_API, *_OF_FILES),
    "wait": (*_OF_API, *_OF_FILES, "out", "no_save"),
    "save": _OF_FILES,  # not `out`: it may be the folder that failed
}
"""The options that a hint repeats so that the command does the same for the same job, besides those of the store."""


_console = partial(Console, highlight=False, soft_wrap=True)
"""Without hard wrapping: commands that people copy must stay on one line."""


def _shown(text: str) -> str:
    """Return *text* without control characters other than newlines; tabs become spaces."""
    return "\n".join(map(printable, text.expandtabs().split("\n")))


@define(eq=False, kw_only=True)
class Screen:
    """The two streams of one *command*, and its job's `ref`, for hints after an error or interruption.

    `base_url` is the API's address if it is not the vendor's own. `is_asked` says that a submit has begun, so that
    there may be a task.
    """

    command: object = None
    json: bool = False
    out: Console = field(factory=lambda: _console(file=sys.stdout))
    err: Console = field(factory=lambda: _console(file=sys.stderr))
    ref: str | None = None
    base_url: str | None = None
    is_asked: bool = False
    _below: Callable[[Text], object] = field(default=lambda _: None, init=False)
    """Updates the status line below the output."""

    @property
    def is_sandboxed(self) -> bool:
        """Whether the job is that of an in-process sandbox, which ends with the command."""
        return bool(getattr(self.command, "is_sandboxed", False))

    @property
    def is_kept(self) -> bool:
        """Whether the job outlives the command."""
        return not str(getattr(self.command, "store_url", "")).startswith("memory:")

    def hint(self, name: str, *options: str, of: str = "") -> str:
        """Return the command line that runs the command *name* on *of*, a job's ref or a track's id.

        An untrusted id that looks like an option comes last, behind `--`.
        """
        names = (*_OF_STORE, *_TAKEN.get(name, ()))
        if self.is_sandboxed:
            names = tuple(each for each in names if each not in _OF_API)
        words = (*options, *(word for each in names for word in self._given(each)))
        of_it = () if not of else (*words, "--", of) if of.startswith("-") else (of, *words)
        return f"{program()} {shlex.join((name, *(of_it or words)))}"

    def _given(self, name: str) -> Iterator[str]:
        """Yield an option of this command as it was given, unless it contains a password."""
        value = getattr(self.command, name, None)
        if name == "base_url":
            value = self.base_url or value
        option = f"--{name.removesuffix('s') if name in _OF_FILES else name}".replace("_", "-")
        if value is True:
            yield option
        elif value and value != Path():
            for text in map(str, value if isinstance(value, tuple) else (value,)):
                if without_password(text) == text:
                    yield from (option, text)

    def emit(self, value: Mapping[str, object]) -> None:
        """Print one JSON object on one line of stdout, and flush."""
        print(dump(value, sys.stdout), flush=True)

    def result(self, text: str = "", *, style: str = "", json: Mapping[str, object] | None = None) -> None:
        """Print a line of the result; with `--json` print *json* instead, if given."""
        if not self.json:
            self.out.print(Text(_shown(text), style=style))
        elif json is not None:
            self.emit(json)

    def note(self, text: str | Text, *, json: Mapping[str, object] | None = None) -> None:
        """Print a line on stderr that is not a result; with `--json` print *json* on stdout instead, if given."""
        if self.json and json is not None:
            self.emit(json)
        else:
            self._tell(Text(_shown(text)) if isinstance(text, str) else text)

    def error(self, text: str, *, json: Mapping[str, object]) -> None:
        """Print an error; with `--json` print *json* instead."""
        self.note(Text.assemble(("audioext: ", "bold red"), _shown(text)), json=json)

    def fail(self, kind: str, text: str, code: int, /, **facts: object) -> None:
        """Print the error that a command ends with; with `--json` also its *kind*, the exit code and more *facts*."""
        self.error(text, json={"error": {"type": kind, "message": text, "exit_code": int(code), **facts}})

    # --- the steps of a task: live on a terminal, else one plain line each ---------------------------------

    @property
    def _is_logged(self) -> bool:
        return getattr(self.command, "log_format", "text") == "json"

    def _tell(self, text: Text) -> None:
        """Print *text* on stderr; with `--log-format json` as a record of the log, whatever the log's level."""
        if self._is_logged:
            fields = {"name": _log.name, "levelno": logging.INFO, "levelname": "INFO", "msg": text.plain}
            _log.handle(logging.makeLogRecord(fields))
        else:
            self.err.print(text)

    @contextmanager
    def live(self) -> Generator[None]:
        """Show a status line while the context is open, if stderr is a terminal."""
        status = self.err.status("")
        self._below = status.update
        with status if self.err.is_terminal and not self._is_logged else nullcontext():
            yield

    def step(self, word: str, words: str, *, after: float | None = None) -> None:
        """Print a finished step, with the seconds *after* which it was reached, if known."""
        since = "" if after is None else f"+{span(after)}"
        tick = ("✔ ", "green") if self.err.is_terminal else ""
        self._tell(Text.assemble(tick, f"{word:<{STEP_LETTERS}} {since:>{STEP_LETTERS}}  {words}"))

    def waiting(self, what: str) -> None:
        """Show in the status line what the command waits for."""
        self._below(Text(f"waiting for {what}"))

    def moving(self, name: str, so_far: int, in_all: int | None) -> None:
        """Show a file's progress in the status line."""
        of = "" if in_all is None else f" of {decimal(in_all)}"
        self._below(Text(f"{decimal(so_far)}{of}  {clean(name)}"))

    # --- lists and tables ----------------------------------------------------------------------------------

    def list(
        self, what: str, headers: Sequence[str], rows: Sequence[tuple[Sequence[object], Mapping[str, object]]]
    ) -> None:
        """Print rows of the store as a table, with `--json` as one object each; *what* names them if there are none."""
        if self.json:
            for _, facts in rows:
                self.emit(facts)
        elif rows:
            self.table(headers, [row for row, _ in rows])
        else:
            self.note(f"no such {what} in this store")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table, or one block per row if the terminal is too narrow for it."""
        cells = [headers, *([clean(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        if self.out.is_terminal and max(map(len, lines[1:]), default=0) > self.out.width:
            width = max(map(len, headers))
            for row in cells[1:]:
                self.result(row[0], style="bold")
                for header, cell in zip(headers[1:], row[1:], strict=True):
                    self.result(f"  {header:<{width}}  {cell}".rstrip())
        else:
            for number, line in enumerate(lines):
                self.result(line, style="" if number else "bold")
