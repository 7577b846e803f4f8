"""Carries a source on: what was heard before the cut comes again, varied, with a band joining in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from attrs import field, frozen

from audioext.sandbox._band import ARPEGGIO, BALLAD, BOSSA, DREAM, Band, Style
from audioext.sandbox._codec import Clip
from audioext.sandbox._dsp import (
    TINY,
    Samples,
    add_at,
    crossfade,
    fade_out,
    levels,
    ramp,
    rms,
    soft_limit,
    tint,
    to_channels,
    to_mono,
)
from audioext.sandbox._hear import BEATS_IN_BAR, Chord, Heard, hear, period

if TYPE_CHECKING:
    from collections.abc import Sequence

JOINT_SECONDS: Final = 0.03  # what a cross-fade may touch of the source before the cut
SHORTEST_SECONDS: Final = 18.0
LONGEST_SECONDS: Final = 28.0
LEAST_GAIN_SECONDS: Final = 2.0  # the result is longer than the source by at least this
LISTEN_SECONDS: Final = 30.0  # how far back from the cut we listen
LEAST_LOOP_SECONDS: Final = 0.4  # a shorter loop is a buzz, so then the band plays alone
SHORTEST_PERIOD_SECONDS: Final = 1.0
LONGEST_PERIOD_SECONDS: Final = 8.0
USUAL_BAR_SECONDS: Final = 2.4
SHORTEST_BAR_SECONDS: Final = 1.4  # four beats at 170 a minute
LEAST_LOUDNESS: Final = 0.02  # RMS to which the band plays, however soft the source
LEVEL_SECONDS: Final = 0.05
FADED_BELOW: Final = 0.5  # of the usual level: a tail below it is an ending, and no material for a loop
SHORTEST_ENDING_SECONDS: Final = 0.75
SILENT_BELOW: Final = 1e-4  # RMS, -80 dB
MATCH_SECONDS: Final = 0.4
MATCH_REACH_SECONDS: Final = 0.04
MATCH_FROM: Final = 0.3  # correlation above which two places count as the same place of a bar
LOOP_GAIN: Final = 0.8
BAND_LEVEL: Final = 0.55  # against the loop's
BAND_ALONE_LEVEL: Final = 0.12  # RMS
BAR_LEVEL: Final = 0.1  # the RMS at which `Band.bar` plays
LONGEST_FADE_SECONDS: Final = 7.0
FADE_SHARE: Final = 0.35
SWELL_SECONDS: Final = 1.5

Colour = tuple[tuple[float, float], ...]
PLAIN: Final[Colour] = ()
WARM: Final[Colour] = ((200.0, 1.1), (1_500.0, 1.0), (4_000.0, 0.25), (9_000.0, 0.06))
AIRY: Final[Colour] = ((120.0, 0.5), (500.0, 0.85), (3_000.0, 1.1), (9_000.0, 1.5))
THIN: Final[Colour] = ((90.0, 0.05), (350.0, 0.5), (900.0, 1.0), (3_500.0, 1.0), (8_000.0, 0.4))
COLOURS: Final = ((PLAIN, WARM, PLAIN, AIRY), (PLAIN, AIRY, WARM, THIN), (PLAIN, THIN, PLAIN, WARM))
STYLES: Final = (ARPEGGIO, DREAM, BOSSA, BALLAD)


@frozen(eq=False)
class _Loop:
    """The part of the source that comes again; places are frames of the source."""

    end: int
    """Where the bars are counted back from: the cut, or where the music ended before it."""
    bar: float
    """Frames of one bar; not whole, so that many bars do not drift."""
    bars: int
    """How many whole bars lie before `end`."""
    start: int
    """Where `heard` starts to count its time."""
    heard: Heard = field(repr=False)


@frozen
class _Piece:
    """A run of bars of the source, and where in the continuation it is heard (frames after the cut)."""

    source: int
    frames: int
    at: int


@frozen(eq=False)
class _Plan:
    """What is to be made: a continuation of `kept` whose first `joint` frames lie under the end of it."""

    kept: Samples
    rate: int
    frames: int
    joint: int
    take: int
    wheel: int
    """Where the wheel of styles stands; another one for each take."""
    seed: int

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return int(self.kept.shape[1])

    def style(self, bar: int) -> Style:
        """Return what the band plays in a bar: two styles in turn, four bars each."""
        return STYLES[(self.wheel + 2 * (bar // 4 % 2)) % len(STYLES)]


def extend(clip: Clip, continue_at: float | None, *, take: int, seed: int, seconds: float | None = None) -> Clip:
    """Keep *clip* up to *continue_at* (seconds; None is its end) and carry it on for *seconds*.

    All samples up to 30 ms before that point are the source's own, bit for bit. The continuation (18 to 28 seconds
    unless given, and always enough to outlast the source) repeats a period found in the source; the takes differ in
    period, order of the bars, colour and band. It ends in a fade to silence, and never clips.
    """
    samples, rate = clip.samples, clip.rate
    total = len(samples)
    wished = total if continue_at is None or not math.isfinite(continue_at) else round(continue_at * rate)
    cut = min(max(wished, 1), total)
    if seconds is None:
        lengths = np.random.default_rng([abs(seed), seed < 0, abs(take), 5])
        seconds = float(lengths.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
    joint = min(round(JOINT_SECONDS * rate), cut // 2)
    frames = max(round(seconds * rate), total - cut + round(LEAST_GAIN_SECONDS * rate)) + joint
    first_style = int(np.random.default_rng([abs(seed), seed < 0, 3]).integers(len(STYLES)))
    plan = _Plan(samples[:cut], rate, frames, joint, take, first_style + take, seed)

    loop = _find_loop(plan)
    body = _alone(plan) if loop is None else _carry_on(plan, loop)
    body = soft_limit(fade_out(body, round(min(LONGEST_FADE_SECONDS * rate, FADE_SHARE * frames))))
    joined = np.clip(crossfade(samples[cut - joint : cut], body[:joint]), -1.0, 1.0)
    return Clip(np.concatenate([samples[: cut - joint], joined, body[joint:]]), rate)


def _find_loop(plan: _Plan) -> _Loop | None:
    """Find the bars before the end of the music, or None where there is too little sound to repeat."""
    rate = plan.rate
    end = _music_end(to_mono(plan.kept), rate)
    start = max(plan.joint, end - round(LISTEN_SECONDS * rate))
    if end - start < LEAST_LOOP_SECONDS * rate:
        return None
    mono = to_mono(plan.kept[start:end])
    length = len(mono) / rate
    heard = hear(mono, rate)
    if heard.steady:
        bar = heard.beat * BEATS_IN_BAR
        while bar > length:
            bar /= 2
    else:
        longest = min(LONGEST_PERIOD_SECONDS, length / 2)
        short = longest < 2 * SHORTEST_PERIOD_SECONDS
        bar = length if short else period(mono, rate, shortest=SHORTEST_PERIOD_SECONDS, longest=longest)
    exact = min(_match(mono, rate, bar * rate), float(len(mono)))
    return _Loop(end=end, bar=exact, bars=max(1, int(len(mono) / exact)), start=start, heard=heard)


def _music_end(mono: Samples, rate: int) -> int:
    """Return the frame where the music ends: before a fade-out or a silence, else the end; 0 for silence."""
    hop = max(1, round(LEVEL_SECONDS * rate))
    mono = mono - mono.mean()
    for window in (2 * round(LISTEN_SECONDS * rate), mono.shape[0]):  # far back only when the near past is silent
        near = mono[-window:]
        level = levels(near, hop)
        usual = float(np.quantile(level, 0.8))
        if usual > SILENT_BELOW:
            break
    else:
        return 0
    width = min(level.shape[0], round(1.0 / LEVEL_SECONDS))
    # The mean of the second up to each block: a short pause does not count as an ending.
    sums = np.cumsum(np.concatenate([np.full(width, level[0]), level]))
    sounding = np.flatnonzero((sums[width:] - sums[:-width]) / width >= FADED_BELOW * usual)
    end = len(mono) - len(near) + int(sounding[-1] + 1) * hop if sounding.size else len(mono)
    return len(mono) if len(mono) - end < SHORTEST_ENDING_SECONDS * rate else end


def _match(mono: Samples, rate: int, bar: float) -> float:
    """Return *bar* (frames) corrected until the sound one or more bars before the end fits the end's own waveform."""
    window = round(MATCH_SECONDS * rate)
    pattern = mono[-window:]
    best, exact = MATCH_FROM, bar
    for count in (1, 2, 4, 8):
        reach = round(MATCH_REACH_SECONDS * rate)
        first = mono.shape[0] - window - round(count * bar) - reach
        if first < 0:
            break
        stretch = mono[first : first + window + 2 * reach]
        size = 1 << (stretch.shape[0] + window).bit_length()
        product = np.fft.irfft(np.fft.rfft(stretch, size) * np.conj(np.fft.rfft(pattern, size)), size)[: 2 * reach + 1]
        sums = np.cumsum(np.concatenate([[0.0], np.square(stretch, dtype=np.float64)]))
        energy = np.sqrt((sums[window:] - sums[:-window])[: 2 * reach + 1] * float(np.sum(np.square(pattern))))
        likeness = product / np.maximum(energy, TINY)
        top = int(np.argmax(likeness))
        if likeness[top] > best:
            best, exact = float(likeness[top]), (round(count * bar) + reach - top) / count
    return exact


def _periods(loop: _Loop) -> list[int]:
    """Return the numbers of bars that can be repeated, the one after which the harmony is most alike first."""
    rows = loop.heard.chroma / (np.linalg.norm(loop.heard.chroma, axis=1, keepdims=True) + TINY)
    bar_rows = loop.bar / (loop.end - loop.start) * rows.shape[0]

    def likeness(bars: int) -> float:
        lag = round(bars * bar_rows)
        alike = float(np.mean(np.sum(rows[lag:] * rows[:-lag], axis=1))) if 0 < lag < rows.shape[0] * 3 // 4 else 0.5
        return alike + 0.08 * math.log2(bars)  # of two that fit alike, the longer one bores less

    return sorted((bars for bars in (1, 2, 4, 8) if bars <= loop.bars), key=likeness, reverse=True)


def _order(loop: _Loop, take: int) -> list[tuple[int, int]]:
    """Return the runs of bars that one round of a take plays: (bars before the end, number of bars)."""
    periods = _periods(loop)
    bars = periods[take % len(periods)]
    half = max(1, bars // 2)
    again = [(bars, bars)]
    turned = [(bars, half), (bars, half), (half, half), (bars, bars)]
    earlier = [(2 * bars, bars), (bars, bars)] if 2 * bars <= loop.bars else turned
    return (again, turned, earlier)[take % 3]


def _pieces(loop: _Loop, frames: int, take: int) -> list[_Piece]:
    order = _order(loop, take)
    pieces: list[_Piece] = []
    bars_so_far = 0
    while (at := round(bars_so_far * loop.bar)) < frames:
        back, count = order[len(pieces) % len(order)]
        # The end of each piece is rounded from the same bar line as the start of the next.
        length = round((bars_so_far + count) * loop.bar) - at
        pieces.append(_Piece(source=loop.end - round(back * loop.bar), frames=length, at=at))
        bars_so_far += count
    return pieces


def _carry_on(plan: _Plan, loop: _Loop) -> Samples:
    """Return the continuation made of the loop and the band."""
    rate, frames = plan.rate, plan.frames
    pieces = _pieces(loop, frames - plan.joint, plan.take)
    body = _chain(plan, pieces)
    loudness = max(rms(body), LEAST_LOUDNESS)
    swell = min(frames, round(SWELL_SECONDS * rate))
    body[:swell] *= ramp(swell, _first_gain(plan, body), LOOP_GAIN)
    body[swell:] *= LOOP_GAIN

    bar, first = _band_grid(loop, rate)
    chords = _chords(loop, pieces, rate, bar, first)
    band = Band(rate, bar / BEATS_IN_BAR, abs(plan.seed) % 1_000)
    styled = [(chord, plan.style(index)) for index, chord in enumerate(chords)]
    layer = band.bars(styled, frames=frames, first=first + plan.joint / rate)
    entry = min(frames, round(2 * bar * rate))
    layer[:entry] *= ramp(entry, 0.2, 1.0)
    add_at(body, to_channels(layer, plan.channels), 0, BAND_LEVEL * loudness / BAR_LEVEL)
    return body


def _chain(plan: _Plan, pieces: Sequence[_Piece]) -> Samples:
    """Lay the pieces end to end, each cross-faded with the one before, and the next in another colour."""
    joint, frames = plan.joint, plan.frames
    colours = COLOURS[plan.take % len(COLOURS)]
    body = np.zeros((frames, plan.channels), np.float32)
    cache: dict[tuple[int, int, Colour], Samples] = {}
    for index, piece in enumerate(pieces):
        known = (piece.source, piece.frames, colours[index % len(colours)])
        run = cache[known] if known in cache else cache.setdefault(known, _cut_out(plan, *known))
        before = body[piece.at : piece.at + joint]
        body[piece.at : piece.at + joint] = crossfade(before, run[:joint]) if index else run[:joint]
        body[piece.at + joint : piece.at + joint + piece.frames] = run[joint : frames - piece.at]
    return body


def _cut_out(plan: _Plan, source: int, frames: int, colour: Colour) -> Samples:
    """Return a run of the source, and what leads up to it for the cross-fade, in a colour."""
    first, end = source - plan.joint, source + frames
    run = plan.kept[max(0, first) : end]
    # Rounding may ask for a frame beyond either end.
    run = np.pad(run, ((max(0, -first), max(0, end - len(plan.kept))), (0, 0)), "edge")
    return tint(run, plan.rate, colour) if colour else run


def _first_gain(plan: _Plan, body: Samples) -> float:
    """Return a gain near the level at which the source breaks off: no music jumps out of a silence."""
    span = round(0.3 * plan.rate)
    before, after = rms(plan.kept[-span:]), rms(body[: 4 * span])
    share = before / after if after > TINY else 1.0
    return 1.0 if share >= FADED_BELOW else max(share, 0.05)


def _band_grid(loop: _Loop, rate: int) -> tuple[float, float]:
    """Return the seconds of the band's bars and of the first bar line after the cut."""
    bar = loop.bar / rate
    if loop.heard.steady and bar >= SHORTEST_BAR_SECONDS:
        since = (loop.end - loop.start) / rate - loop.heard.downbeat(bar / BEATS_IN_BAR)
        return bar, -since % bar
    # A loop without a beat of its own is divided, or multiplied, into bars of a usual length.
    parts = bar / USUAL_BAR_SECONDS
    return (bar / round(parts) if parts >= 1.0 else bar * round(1.0 / parts)), 0.0


def _chords(loop: _Loop, pieces: Sequence[_Piece], rate: int, bar: float, first: float) -> list[Chord]:
    """Return the chord of each of the band's bars: what the source plays in the bars that come again there."""
    chords: list[Chord] = []
    end = (pieces[-1].at + pieces[-1].frames) / rate
    while (now := first + len(chords) * bar) < end:
        piece = next(piece for piece in reversed(pieces) if piece.at <= now * rate + 1)
        there = (piece.source - loop.start) / rate + now - piece.at / rate
        chords.append(loop.heard.chord(there, there + bar))
    return chords


def _alone(plan: _Plan) -> Samples:
    """Return the band alone, in a turn of four chords, with what there is of the source at each bar line."""
    rate, bar = plan.rate, USUAL_BAR_SECONDS
    key = hear(to_mono(plan.kept[-round(LISTEN_SECONDS * rate) :]), rate).key
    chords = [key.triad((0, 5, 3, 4)[index % 4]) for index in range(int(plan.frames / rate / bar) + 1)]
    band = Band(rate, bar / BEATS_IN_BAR, abs(plan.seed) % 1_000)
    styled = [(chord, plan.style(index)) for index, chord in enumerate(chords)]
    body = to_channels(band.bars(styled, frames=plan.frames), plan.channels)
    body *= np.float32(BAND_ALONE_LEVEL / BAR_LEVEL)
    scrap = plan.kept[-round(LEAST_LOOP_SECONDS * rate) :]
    scrap = fade_out(scrap - scrap.mean(axis=0), len(scrap) // 2)
    for index in range(len(chords)):
        add_at(body, scrap, round(index * bar * rate), 0.5 * 0.8**index)
    return body
