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

import attrs

from audioext.models.record import Record, Verdict
from audioext.models.results import Source, StageEvent, Track

NAME = "audioext"
TENTHS_BELOW_SECONDS = 10.0
MINUTES_FROM_SECONDS = 120.0
DAY_SECONDS = 86_400.0
_UNITS = ("B", "kB", "MB", "GB")
_UNIT_STEP = 1_000

BY: Mapping[Source, str] = {"webhook": "by webhook", "poll": "by poll", "implied": "implied by a later stage"}
"""How a stage became known."""


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
    for unit in _UNITS:
        if count < _UNIT_STEP or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"  # noqa: PLR2004 - three digits
        count /= _UNIT_STEP
    raise AssertionError  # pragma: no cover - the last unit takes all


def stage_line(event: StageEvent) -> str:
    """Return what a stage brought: how it was learnt, and how many takes can be played."""
    playable = sum(track.audio_url is not None for track in event.tracks)
    takes = "" if playable == 0 else f", {playable} take{'s' if playable > 1 else ''} playable"
    return BY[event.source] + takes


def state_of(record: Record, now: float) -> str:
    """Return one word for where a job is: its verdict, else its stage, else `unknown` or `submitting`."""
    if record.verdict is not Verdict.OPEN:
        return record.verdict.name.lower()
    if record.stage is not None:
        return record.stage.name.lower()
    return "unknown" if now > record.unknown_at else "submitting"


def source_of(record: Record) -> str:
    """Return what a job works on: the file's name, the URL or the id."""
    request = record.request
    if request.file is not None:
        return request.file.name
    return request.url or str(getattr(request, "audio_id", ""))


def moment(at: float) -> str:
    """Return a point in time as people here read it."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(at: float) -> str:
    """Return a point in time as machines read it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def dump(value: Mapping[str, object]) -> str:
    """Return *value* as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def track_object(track: Track) -> dict[str, object]:
    """Return the fields of *track* that are known, for JSON."""
    hidden = {"extends_by_id", "position"}
    values = attrs.asdict(track, filter=lambda field, value: value is not None and field.name not in hidden)
    return dict(values)


def event_object(event: StageEvent, created_at: datetime) -> dict[str, object]:
    """Return a stage for JSON: its name, how it was learnt, and the seconds since the job was made."""
    since = round((event.at - created_at).total_seconds(), 3)
    return {"stage": event.stage.name.lower(), "source": event.source, "seconds": since, "at": event.at}


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as plain lines, for where there is no terminal."""
    cells = [list(headers), *([*row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headers))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    message = f"{type(value).__name__} has no JSON form"
    raise TypeError(message)
