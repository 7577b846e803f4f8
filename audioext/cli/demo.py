"""`audioext demo`: a complete job on this machine, from a recording to two longer ones, without paying."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from audioext.cli.clients import check_folder
from audioext.cli.commands import DemoCommand, ExtendCommand, SubmitCommand
from audioext.cli.screen import Screen, program
from audioext.cli.tasks import submit_and_save
from audioext.errors import DownloadError, Problem, RequestError
from audioext.files.sources import probe
from audioext.models import checks
from audioext.sandbox import audio

TUNE_SECONDS = 20.0
TUNE_SEED = 11
CONTINUED_BEFORE_END_SECONDS = 4.0
CONTINUED_SHARE = 0.8
"""A short source is continued after this share of its length, a longer one `CONTINUED_BEFORE_END_SECONDS` earlier."""
WAIT_SECONDS = 120.0
MAX_STEM_LETTERS = 40
MODEL = "V5"
MODELLESS = frozenset({"musicgpt"})
"""The providers without a model and a style."""


async def demo(command: DemoCommand, screen: Screen) -> None:
    """Make a tune if no file is given, extend it as `audioext extend --sandbox` does, and show what to do next."""
    check_folder(command.out)
    screen.note("audioext demo: a sandbox on this machine plays the paid API; nothing is charged")
    source, made = command.file or command.out / "tune.mp3", ""
    if command.file is None:
        with screen.live():
            screen.waiting("a tune to be made")
            await asyncio.to_thread(_make_tune, source)
        made = f", a tune of {TUNE_SECONDS:g} s made for you"
    screen.step("source", f"{source}{made}")
    continue_at = await asyncio.to_thread(_continue_at, source)
    stem = source.stem.encode(errors="replace").decode()  # a name on disk may be other than UTF-8
    title = f"{stem[:MAX_STEM_LETTERS]} extended"
    more = {} if command.provider in MODELLESS else {"model": MODEL, "style": "Piano", "title": title}
    make = cast("Callable[..., SubmitCommand]", ExtendCommand)
    taken = {name: getattr(command, name) for name in ("json", "log_format", "provider", "out", "speed")}
    played = {"sandbox": True, "store": command.store_url, "timeout": WAIT_SECONDS}
    asked = {"continue_at": continue_at, "prompt": "carry on gently", **more}
    await submit_and_save(make(source=str(source), **taken, **played, **asked), screen)
    if not screen.json:
        model = ("--model", MODEL) if more else ()
        settings = ("--out", str(command.out), "--continue-at", f"{continue_at:g}", "--provider", command.provider)
        extend = screen.hint("extend", *settings, *model, "--sandbox", of=str(source))
        screen.note(f"\nTo extend it by hand, at the paid API if you leave out --sandbox: {extend}")
        screen.note(f"How to write a program: {program()} guide")


def _make_tune(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio.encode(audio.tune(seed=TUNE_SEED, seconds=TUNE_SECONDS), "mp3"))
    except OSError as error:
        raise DownloadError([f"cannot write {path}: {error.strerror or error}"]) from error


def _continue_at(source: Path) -> float:
    """Return a second to continue from: near the end, so that most of the source is kept."""
    if checks.file(source) is not None:
        raise RequestError([Problem("file", "is a URL: download it, and name the file")])
    found = probe(source)
    if isinstance(found, Problem):
        raise RequestError([found])
    try:
        # Decoded, because an MP3's header may be wrong, and a text file may have an audio suffix.
        duration = audio.load(source.read_bytes()).duration
    except ValueError as error:
        raise RequestError([Problem("file", f"{source}: {error}")]) from error
    if found is not None:
        duration = min(duration, found)
    continue_at = round(max(CONTINUED_SHARE * duration, duration - CONTINUED_BEFORE_END_SECONDS), 2)
    if continue_at == 0:
        raise RequestError([Problem("file", f"{source} is too short to be continued: {duration:.4f} s")])
    return continue_at
