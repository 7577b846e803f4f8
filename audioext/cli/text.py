"""Values as people read them: times, sizes, states, and foreign text that cannot harm a terminal."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

NAME = "audioext"
TENTHS_BELOW_SECONDS = 10.0
MINUTES_FROM_SECONDS = 120.0
DAY_SECONDS = 86_400.0
_UNITS = ("B", "kB", "MB", "GB")
_UNIT_STEP = 1_000


def program() -> str:
    """Return what to type to run another command: the name where the shell finds it, else as it was typed now."""
    typed = Path(sys.argv[0])
    if typed.name != NAME:
        return f"python -m {NAME}" if typed.parts[-2:] == (NAME, "__main__.py") else NAME
    found = shutil.which(NAME)
    is_found = found is not None and Path(found).resolve() == typed.resolve()
    return NAME if is_found else shlex.quote(str(typed))


def clean(text: object) -> str:
    """Return *text* on one line and without control characters: titles and errors are written by strangers."""
    letters = (" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(text))
    return "".join(letters).strip()


def seconds(value: float) -> str:
    """Return a time of *value* seconds: `0.4 s`, `48 s`, `2 min 03 s`, `3 h 20 min`, `2 d 5 h`."""
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
    """Return the length of a recording: `44.1 s`."""
    return "?" if value is None else f"{value:.1f} s"


def size(count: float) -> str:
    """Return a number of bytes: `705 kB`."""
    power = 0
    while count >= _UNIT_STEP and power < len(_UNITS) - 1:
        count, power = count / _UNIT_STEP, power + 1
    digits = 0 if power == 0 or count >= 100 else 1  # noqa: PLR2004 - three digits
    return f"{count:.{digits}f} {_UNITS[power]}"


def moment(at: float) -> str:
    """Return a point in time as people here read it."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(at: float) -> str:
    """Return a point in time as machines read it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def dump(value: Mapping[str, object]) -> str:
    """Return *value* as one line of JSON; what a terminal could obey or not show is escaped."""
    line = msgspec.json.format(msgspec.json.encode(_plain(value)), indent=0).decode()
    return line if line.isprintable() else "".join(map(_escaped, line))


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as plain lines."""
    cells = [list(headers), *([*row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headers))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]  # two escapes beyond U+FFFF


def _plain(value: object) -> object:
    """Return *value* with what JSON has no form for as text; a file's name may be bytes that are no UTF-8."""
    if isinstance(value, (str, Path)):
        return str(value).encode(errors="backslashreplace").decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
