"""Where a command's words go: results to stdout, all else to stderr, JSON alone where it was asked for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from attrs import define, field, frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from audioext.cli.options import OutputOptions
from audioext.cli.text import clean, columns, dump

NARROW_COLUMNS = 60


@frozen(kw_only=True)
class WayBack:
    """How another command finds the job of this one: the options it needs, and what it can do with it."""

    options: str = ""
    is_kept: bool = True
    sandbox: bool = False


@define(eq=False)
class Screen:
    """The two streams of one command, and what to tell whoever interrupts it.

    Streams that are no terminals get plain lines of any length; terminals get colours, and tables that fit.
    """

    options: OutputOptions
    out: Console = field(factory=lambda: Console(file=sys.stdout, highlight=False, soft_wrap=True))
    err: Console = field(factory=lambda: Console(file=sys.stderr, highlight=False, soft_wrap=True))
    ref: str | None = None
    way_back: WayBack = field(factory=WayBack)

    @property
    def json(self) -> bool:
        """Whether stdout is for JSON alone."""
        return self.options.json

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
        """Print a table of the result, unless JSON was asked for."""
        if self.json:
            return
        cells = [[clean(cell) for cell in row] for row in rows]
        if not self.out.is_terminal:
            for line in columns(headers, cells):
                self.out.print(Text(line))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        self.out.print(table, soft_wrap=False)

    @contextmanager
    def logs(self) -> Generator[None]:
        """Show what audioext logs: warnings, with `-v` information, with `--debug` everything."""
        level = logging.WARNING
        if self.options.verbose:
            level = logging.INFO
        if self.options.debug:
            level = logging.DEBUG
        logger = logging.getLogger("audioext")
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        before = logger.level, logger.propagate
        logger.setLevel(level)
        logger.propagate = False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before


class _StderrHandler(logging.Handler):
    """Looks up `sys.stderr` for each line: a live display puts its own there, and keeps the lines apart."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level, _, text = self.format(record).partition(" ")
            print(level.lower(), text, file=sys.stderr)
        except Exception:  # noqa: BLE001 - logging's own rule: a line that cannot be written ends nothing
            self.handleError(record)
