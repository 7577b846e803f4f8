"""`audioext demo`: a complete job on this machine, from a recording to two longer ones, without paying."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from audioext.cli.clients import check_folder, open_client
from audioext.cli.commands import DemoCommand
from audioext.cli.options import ConnectOptions
from audioext.cli.screen import Screen, program
from audioext.cli.tasks import finish, report, submit
from audioext.errors import DownloadError, Problem, RequestError
from audioext.files.sources import probe
from audioext.models.requests import Extend
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
    """Run the job, print its tracks, and show what to do next."""
    check_folder(command.out)
    screen.is_asked = True
    screen.note("audioext demo: a sandbox on this machine plays the paid API; nothing is charged")
    with screen.live():
        source, made = command.file or command.out / "tune.mp3", ""
        if command.file is None:
            screen.waiting("a tune to be made")
            await asyncio.to_thread(_make_tune, source)
            made = f", a tune of {TUNE_SECONDS:g} s made for you"
        screen.step("source", f"{source}{made}")
        continue_at = await asyncio.to_thread(_continue_at, source)
        title = f"{source.stem[:MAX_STEM_LETTERS]} extended"
        is_modelless = command.provider in MODELLESS
        more = {} if is_modelless else {"model": MODEL, "style": "Piano", "title": title}
        request = Extend.draft(file=source, continue_at=continue_at, prompt="carry on gently", **more)
        options = ConnectOptions(sandbox=True, speed=command.speed, store=command.store_url, timeout=WAIT_SECONDS)
        async with open_client(options, command.provider, screen) as opened:
            screen.step("sandbox", f"{opened.provider.info.base_url}, at {command.speed:g} times real speed")
            screen.step("receiver", f"{opened.client.public_url}, where the webhooks arrive")
            job = await submit(opened, request)
            song, paths = await finish(opened, job, out=command.out, overwrite=True)
    report(screen, job, song, paths)
    if not screen.json:
        model = () if is_modelless else ("--model", MODEL)
        settings = ("--out", str(command.out), "--continue-at", f"{continue_at:g}", "--provider", command.provider)
        extend = shlex.join(("extend", str(source), *settings, *model, "--sandbox"))
        screen.note(f"\nThe same as one command: {program()} {extend}")
        screen.note(f"The paid API takes it without --sandbox, with {opened.provider.info.key_variable}")
        screen.note(f"How to write a program: {program()} guide")


def _make_tune(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio.encode(audio.tune(seed=TUNE_SEED, seconds=TUNE_SECONDS), "mp3"))
    except OSError as error:
        raise DownloadError([f"cannot write {path}: {error.strerror or error}"]) from error


def _continue_at(source: Path) -> float:
    """Return a second to continue from: near the end, so that most of the source is kept."""
    found = probe(source)
    if isinstance(found, Problem):
        raise RequestError([found])
    try:
        # Decoded, because an MP3's header may be wrong, and a text file may have an audio suffix.
        duration = audio.load(source.read_bytes()).duration
    except ValueError as error:
        raise RequestError([Problem("file", f"{source}: {error}")]) from error
    if found.duration is not None:
        duration = min(duration, found.duration)
    continue_at = round(max(CONTINUED_SHARE * duration, duration - CONTINUED_BEFORE_END_SECONDS), 2)
    if continue_at == 0:
        raise RequestError([Problem("file", f"{source} is too short to be continued: {duration:.4f} s")])
    return continue_at
