"""`audioext demo`: a complete job on this machine, from a recording to two longer ones, without paying."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from attrs import field, frozen
from cyclopts import Parameter
from rich.filesize import decimal

from audioext.cli.clients import open_client
from audioext.cli.exits import Exit
from audioext.cli.options import API, JOB, POSITIVE, SANDBOX, SHOWN, Command, ConnectOptions, ProviderName, env
from audioext.cli.screen import Screen, length, program
from audioext.cli.tasks import finish, submit
from audioext.errors import DownloadError, Problem, RequestError
from audioext.files.sources import probe
from audioext.models.requests import Extend
from audioext.models.results import Track
from audioext.providers.base import FileRoute, Provider
from audioext.ui.objects import stage_objects

DEMO_SPEED = 40.0
"""Two minutes become three seconds: quick, but slow enough to see the stages arrive one by one."""
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

COMPARED_SECONDS = 30.0
LEAST_SECONDS = 0.25  # a shorter beginning is mostly the encoder's leading silence

NEXT = """
Next
  # extend a recording of yours
  {program} demo song.mp3
  # submit a job; without --sandbox at the real API, with {variable}
  {program} {extend} --sandbox
  # list all commands
  {program} --help

The same in Python
  import asyncio
  import audioext as ax

  async def main():
      async with ax.Client({client}) as client:  # your key is in {variable}
          job = await client.extend(
              file={file!r}, {model}continue_at={continue_at})
          async for event in job:  # text, first, complete
              print(event.stage, len(event.tracks))
          song = await job
          print(await song.save("out/"))

  asyncio.run(main())
"""


@frozen(kw_only=True)
class Likeness:
    """A track compared with its source: both lengths in seconds, and whether it begins like it, `None` if unclear."""

    source_seconds: float
    track_seconds: float
    begins_like_it: bool | None

    @property
    def is_longer(self) -> bool:
        """Whether the track is longer than the source."""
        return self.track_seconds > self.source_seconds

    def __str__(self) -> str:
        """Return a short description: `20.0 s → 44.1 s, begins like it`."""
        words = {True: "begins like it", False: "does NOT begin like it", None: "too short or too quiet to compare"}
        return f"{self.source_seconds:.1f} s → {self.track_seconds:.1f} s, {words[self.begins_like_it]}"


@frozen(slots=False)
class DemoCommand(Command):
    """`audioext demo`."""

    is_sandboxed = True
    store_url = "memory://"
    file: Annotated[Path | None, Parameter()] = None
    """A WAV, FLAC, OGG or MP3 of yours; without one a tune is made."""
    provider: Annotated[ProviderName, API, env("AUDIOEXT_PROVIDER"), SHOWN] = field(default="kie", kw_only=True)
    """The API to play."""
    out: Annotated[Path, JOB, SHOWN] = field(default=Path("audioext-demo"), kw_only=True)
    """The folder for the files."""
    speed: Annotated[float, SANDBOX, SHOWN, POSITIVE] = field(default=DEMO_SPEED, kw_only=True)
    """How many times faster than the real APIs the sandbox is."""

    async def run(self, screen: Screen) -> Exit | None:
        """Run the job, report its result, and show what to do next."""
        screen.is_asked, began = True, time.monotonic()
        screen.note("audioext demo: a sandbox on this machine plays the paid API; nothing is charged")
        with screen.live():
            source = await self._source(screen)
            continue_at = await asyncio.to_thread(_continue_at, source)
            title = f"{source.stem[:MAX_STEM_LETTERS]} extended"
            more = {} if self.provider in MODELLESS else {"model": MODEL, "style": "Piano", "title": title}
            request = Extend.draft(file=source, continue_at=continue_at, prompt="carry on gently", **more)
            options = ConnectOptions(sandbox=True, speed=self.speed, store=self.store_url, timeout=WAIT_SECONDS)
            async with open_client(options, self.provider, screen) as opened:
                screen.step("sandbox", f"{opened.provider.info.base_url}, at {self.speed:g} times real speed")
                screen.step("receiver", f"{opened.client.public_url}, where the webhooks arrive")
                job = await submit(opened, request)
                song, paths = await finish(opened, job, out=self.out, overwrite=True)
            found = [await asyncio.to_thread(compare, source, path, until=continue_at) for path in paths]
        takes = [*zip(song.tracks, paths, found, strict=False)]
        is_good = len(takes) > 1 and all(one.is_longer and one.begins_like_it is not False for _, _, one in takes)
        seconds = time.monotonic() - began
        if screen.json:
            known = {"file": source, "duration": found[0].source_seconds if found else None, "continue_at": continue_at}
            done = {"stages": stage_objects(job.record), "source": known, "ok": is_good, "seconds": round(seconds, 2)}
            shown = [_take(*take) for take in takes]
            screen.emit({"ref": job.ref, "provider": job.provider, "takes": shown, **done})
        else:
            _report(screen, takes)
            alike = " and beginning like it" if all(one.begins_like_it for one in found) else ""
            good = f"{len(found)} tracks, longer than the source{alike}, in {seconds:.1f} s."
            bad = "The tracks are not what they should be: see the table."
            screen.result(good if is_good else bad, style="bold green" if is_good else "bold red")
            show_next_steps(screen, opened.provider, source, continue_at, self.out)
        return None if is_good else Exit.DOWNLOAD

    async def _source(self, screen: Screen) -> Path:
        if self.file is not None:
            screen.step("source", f"{self.file}")
            return self.file
        path = self.out / "tune.mp3"
        screen.waiting("a tune to be made")
        await asyncio.to_thread(_make_tune, path)
        screen.step("source", f"{path}, a tune of {TUNE_SECONDS:g} s made for you")
        return path


def _report(screen: Screen, takes: Sequence[tuple[Track, Path, Likeness]]) -> None:
    rows = [
        (number, track.title or "", length(one.track_seconds), decimal(path.stat().st_size), one, path)
        for number, (track, path, one) in enumerate(takes, 1)
    ]
    screen.result()
    screen.table(("track", "title", "duration", "size", "beside the source", "file"), rows)
    screen.result()


def _take(track: Track, path: Path, one: Likeness) -> Mapping[str, object]:
    return {
        "title": track.title or "",
        "file": path,
        "size": path.stat().st_size,
        "duration": round(one.track_seconds, 2),
        "longer_by": round(one.track_seconds - one.source_seconds, 2),
        "begins_like_source": one.begins_like_it,
    }


def show_next_steps(screen: Screen, provider: Provider, source: Path, continue_at: float, out: Path) -> None:
    """Print the next steps with *provider*, on the command line and in Python."""
    info, at = provider.info, f"{continue_at:g}"
    has_model = info.name not in MODELLESS
    file, folder = shlex.quote(str(source)), shlex.quote(str(out))
    extend = f"extend {file} --out {folder} --continue-at {at} --provider {info.name}"
    # A provider that takes audio only by URL fetches it from this machine.
    reach = ', public_url="https://your.host", listen=":8080"' if info.file_route is FileRoute.SERVE else ""
    words = NEXT.format(
        program=program(),
        variable=info.key_variable,
        extend=f"{extend} --model {MODEL}" if has_model else extend,
        client=f"ax.{type(provider).__name__}(){reach}",
        file=str(source),
        model=f'model="{MODEL}", ' if has_model else "",
        continue_at=at,
    )
    for line in words.splitlines():
        screen.result(line, style="dim" if line.startswith("  #") else "" if line.startswith(" ") else "bold")


def _make_tune(path: Path) -> None:
    from audioext.sandbox import audio  # noqa: PLC0415 - its packages are an extra

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio.encode(audio.tune(seed=TUNE_SEED, seconds=TUNE_SECONDS), "mp3"))
    except OSError as error:
        raise DownloadError([f"cannot write {path}: {error.strerror or error}"]) from error


def _continue_at(source: Path) -> float:
    """Return a second to continue from: near the end, so that most of the source is kept."""
    from audioext.sandbox import audio  # noqa: PLC0415 - its packages are an extra

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


def compare(source: Path, track: Path, *, until: float) -> Likeness:
    """Decode both files and compare their first *until* seconds (30 at most). It blocks."""
    from audioext.cli.likeness import begin_alike  # noqa: PLC0415 - as above
    from audioext.sandbox import audio  # noqa: PLC0415 - as above

    try:
        first, second = audio.load(source.read_bytes()), audio.load(track.read_bytes())
    except ValueError as error:
        raise DownloadError([f"{track} cannot be decoded: {error}"], paths=[track]) from error
    kept = min(until, COMPARED_SECONDS, first.duration, second.duration)
    alike = begin_alike(first, second, kept) if kept >= LEAST_SECONDS else None
    return Likeness(source_seconds=first.duration, track_seconds=second.duration, begins_like_it=alike)
