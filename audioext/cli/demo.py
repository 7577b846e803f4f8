"""`audioext demo`: a complete job on this machine, from a recording to two longer ones, without paying."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from rich.filesize import decimal

from audioext.cli.clients import check_folder, open_client
from audioext.cli.commands import DemoCommand
from audioext.cli.exits import Exit
from audioext.cli.options import ConnectOptions
from audioext.cli.screen import Screen, length, program
from audioext.cli.tasks import finish, submit
from audioext.errors import DownloadError, Problem, RequestError
from audioext.files.sources import probe
from audioext.models.requests import Extend
from audioext.models.results import Track
from audioext.providers.base import FileRoute, Provider
from audioext.sandbox import audio
from audioext.sandbox.audio import Clip
from audioext.ui.objects import stage_objects

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

ALIKE_FROM = 0.9  # the same music after two lossy encoders correlates above 0.97, other music below 0.5
COMPARED_RATE_HZ = 4_000  # enough to tell recordings apart, and quick
LEAST_LOUDNESS = 1e-4  # root mean square of full scale: encoder noise is below it
LARGEST_SHIFT_SECONDS = 0.1  # MP3 encoders add up to 0.05 s of leading silence, twice if both files are MP3
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


async def demo(command: DemoCommand, screen: Screen) -> Exit | None:
    """Run the job, report its result, and show what to do next."""
    check_folder(command.out)
    screen.is_asked, began = True, time.monotonic()
    screen.note("audioext demo: a sandbox on this machine plays the paid API; nothing is charged")
    with screen.live():
        source = await _source(command, screen)
        continue_at = await asyncio.to_thread(_continue_at, source)
        title = f"{source.stem[:MAX_STEM_LETTERS]} extended"
        more = {} if command.provider in MODELLESS else {"model": MODEL, "style": "Piano", "title": title}
        request = Extend.draft(file=source, continue_at=continue_at, prompt="carry on gently", **more)
        options = ConnectOptions(sandbox=True, speed=command.speed, store=command.store_url, timeout=WAIT_SECONDS)
        async with open_client(options, command.provider, screen) as opened:
            screen.step("sandbox", f"{opened.provider.info.base_url}, at {command.speed:g} times real speed")
            screen.step("receiver", f"{opened.client.public_url}, where the webhooks arrive")
            job = await submit(opened, request)
            song, paths = await finish(opened, job, out=command.out, overwrite=True)
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
        show_next_steps(screen, opened.provider, source, continue_at, command.out)
    return None if is_good else Exit.DOWNLOAD


async def _source(command: DemoCommand, screen: Screen) -> Path:
    if command.file is not None:
        screen.step("source", f"{command.file}")
        return command.file
    path = command.out / "tune.mp3"
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
    if found is not None:
        duration = min(duration, found)
    continue_at = round(max(CONTINUED_SHARE * duration, duration - CONTINUED_BEFORE_END_SECONDS), 2)
    if continue_at == 0:
        raise RequestError([Problem("file", f"{source} is too short to be continued: {duration:.4f} s")])
    return continue_at


def compare(source: Path, track: Path, *, until: float) -> Likeness:
    """Decode both files and compare their first *until* seconds (30 at most). It blocks."""
    try:
        first, second = audio.load(source.read_bytes()), audio.load(track.read_bytes())
    except ValueError as error:
        raise DownloadError([f"{track} cannot be decoded: {error}"], paths=[track]) from error
    kept = min(until, COMPARED_SECONDS, first.duration, second.duration)
    alike = begin_alike(first, second, kept) if kept >= LEAST_SECONDS else None
    return Likeness(source_seconds=first.duration, track_seconds=second.duration, begins_like_it=alike)


def begin_alike(source: Clip, track: Clip, seconds: float) -> bool | None:
    """Return whether the first *seconds* of both correlate at any small shift; `None` if the source is silent."""
    first, second = (_mono(clip, seconds) for clip in (source, track))
    powers = [float((each**2).sum()) for each in (first, second)]
    if powers[0] < len(first) * LEAST_LOUDNESS**2:
        return None
    span = 2 * len(first)
    correlation = np.fft.irfft(np.fft.rfft(first, span) * np.conj(np.fft.rfft(second, span)), span)
    shift = min(len(first), round(LARGEST_SHIFT_SECONDS * COMPARED_RATE_HZ))
    near = np.roll(correlation, shift)[: 2 * shift + 1]
    return bool(near.max() >= ALIKE_FROM * np.sqrt(powers[0] * powers[1]) > 0)


def _mono(clip: Clip, kept: float) -> NDArray[np.float64]:
    mono = clip.samples[: round(kept * clip.rate)].astype(np.float64).mean(axis=1)
    # A moving average over one new sample's span reduces aliasing from above the new Nyquist frequency.
    width = max(1, clip.rate // COMPARED_RATE_HZ)
    smooth = np.convolve(mono, np.full(width, 1.0 / width), mode="same")
    times = np.arange(0.0, kept, 1.0 / COMPARED_RATE_HZ)
    found = np.interp(times, np.arange(len(smooth)) / clip.rate, smooth)
    return np.asarray(found - found.mean(), dtype=np.float64)
