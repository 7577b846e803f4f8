"""Values as people read them: times, states, and foreign text that cannot harm a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

NAME = "audioext"
TENTHS_BELOW_SECONDS = 10.0
MINUTES_FROM_SECONDS = 120.0
DAY_SECONDS = 86_400.0
_SURROGATES = re.compile("[\ud800-\udfff]")


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


def moment(at: float) -> str:
    """Return a point in time as people here read it."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def dump(value: Mapping[str, object]) -> str:
    """Return *value* as one line of JSON; what a terminal could obey or not show is escaped."""
    line = json.dumps(value, ensure_ascii=False, default=_plain)
    line = _SURROGATES.sub(lambda found: rf"\\u{ord(found[0]):04x}", line)  # of names of files that are no UTF-8
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else os.fspath(value)  # type: ignore[call-overload]  # else a defect
