"""Composes small pieces of music from a seed: a tune for a band, and a sung line without words."""

from __future__ import annotations

from typing import Final

import numpy as np

from audioext.sandbox._band import LEAD_LOWEST, STYLES, Band, Style, edges, hertz, near, oscillate, room, spread
from audioext.sandbox._codec import Clip
from audioext.sandbox._dsp import Samples, add_at, fade_out, soft_limit, tint
from audioext.sandbox._hear import BEATS_IN_BAR, SEMITONES, Key

Note = tuple[float, float, int]
"""A note of a melody: its start and length in beats, and its MIDI pitch."""

MAJOR_TURNS: Final = ((0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 3, 5, 4))
MINOR_TURNS: Final = ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 3, 6, 2))
RHYTHMS: Final = (
    ((0.0, 1.0), (1.0, 0.5), (1.5, 0.5), (2.0, 1.5), (3.5, 0.5)),
    ((0.0, 1.5), (1.5, 0.5), (2.0, 1.0), (3.0, 0.5), (3.5, 0.5)),
    ((0.5, 0.5), (1.0, 1.0), (2.0, 0.5), (2.5, 1.5)),
    ((0.0, 2.0), (2.0, 0.5), (2.5, 0.5), (3.0, 1.0)),
)
SUNG_RHYTHMS: Final = (
    ((0.0, 1.0), (1.0, 1.0), (2.0, 2.0)),
    ((0.0, 1.5), (1.5, 0.5), (2.0, 1.75)),
    ((0.5, 0.5), (1.0, 1.0), (2.0, 1.0), (3.0, 0.9)),
)
SLOWEST_BEAT_SECONDS: Final = 60 / 84
FASTEST_BEAT_SECONDS: Final = 60 / 116
LEVEL: Final = 0.5  # peaks of a finished piece stay near this, which leaves room for what is added later
VOICE_LOWEST: Final = 57  # A3
# The first four formants (Hz, relative gain) of sung vowels, alto: the Csound manual's table, rounded.
VOWELS: Final = (
    ((800.0, 1.0), (1150.0, 0.63), (2800.0, 0.1), (3500.0, 0.02)),  # ah
    ((400.0, 1.0), (1600.0, 0.16), (2700.0, 0.06), (3300.0, 0.02)),  # eh
    ((350.0, 1.0), (1700.0, 0.1), (2700.0, 0.03), (3700.0, 0.02)),  # ee
    ((450.0, 1.0), (800.0, 0.35), (2830.0, 0.16), (3500.0, 0.04)),  # oh
    ((325.0, 1.0), (700.0, 0.25), (2530.0, 0.03), (3500.0, 0.01)),  # oo
)
FORMANT_WIDTH: Final = 0.11  # of its frequency
VOICE_TOP_HZ: Final = 5_000.0
PHRASE_BEATS: Final = 6.0  # of the eight in two bars: the rest is for breathing
BRIGHTNESS: Final = 0.6  # exponent on the gains of the formants; below 1 lifts the upper ones, as singers do


def tune(*, seed: int, seconds: float = 20.0, rate: int = 44_100) -> Clip:
    """Play a piece in stereo that ends on a bar line: chords, bass, a melody and light percussion.

    The seed (any whole number) decides key, tempo, chords, style and melody.
    """
    rng = np.random.default_rng([abs(seed), seed < 0, 1])
    frames = max(1, round(seconds * rate))
    beat, bars = _fit_bars(rng, seconds)
    key, chords = _harmony(rng, bars)
    styles = [STYLES[int(index)] for index in rng.permutation(len(STYLES))[:2]]
    band = Band(rate, beat, abs(seed) % 1_000)
    plan = [(key.triad(degree), _style_of_bar(index, styles)) for index, degree in enumerate(chords)]
    out = band.bars(plan, frames=frames)
    line = np.zeros_like(out)
    for start, length, pitch in _melody(rng, key, chords, rhythms=RHYTHMS, lowest=LEAD_LOWEST):
        if start >= BEATS_IN_BAR or bars == 1:  # the band has the first bar to itself
            note = spread(band.lead(pitch, 0.95 * length * beat), 1.0, 0.8)
            add_at(line, note, round(start * beat * rate), 0.16)
    return _finish(out + room(line, rate), rate)


def voice(*, seed: int, seconds: float = 12.0, rate: int = 44_100) -> Clip:
    """Sing a line in mono: vowels with vibrato in phrases of two bars, and a rest to breathe after each."""
    rng = np.random.default_rng([abs(seed), seed < 0, 2])
    beat, bars = _fit_bars(rng, seconds)
    key, chords = _harmony(rng, bars)
    out = np.zeros((max(1, round(seconds * rate)), 2), np.float32)
    vowel = 0
    for start, length, pitch in _melody(rng, key, chords, rhythms=SUNG_RHYTHMS, lowest=VOICE_LOWEST):
        left = PHRASE_BEATS - start % (2 * BEATS_IN_BAR)
        if left > 0.0:
            following = int(rng.integers(len(VOWELS)))
            note = _sing(pitch, 0.97 * min(length, left) * beat, rate, (vowel, following), rng)
            add_at(out, note[:, None], round(start * beat * rate))
            vowel = following
    return _finish(room(out, rate, wet=0.15)[:, :1], rate)


def _fit_bars(rng: np.random.Generator, seconds: float) -> tuple[float, int]:
    """Choose a tempo at which the length is a whole number of bars: a piece to be continued ends on a bar line."""
    wish = rng.uniform(FASTEST_BEAT_SECONDS, SLOWEST_BEAT_SECONDS) * BEATS_IN_BAR
    bars = max(1, round(seconds / wish))
    return max(seconds / bars, 0.5) / BEATS_IN_BAR, bars


def _harmony(rng: np.random.Generator, bars: int) -> tuple[Key, tuple[int, ...]]:
    key = Key(int(rng.integers(SEMITONES)), minor=bool(rng.integers(2)))
    turns = MINOR_TURNS if key.minor else MAJOR_TURNS
    first, second = (turns[int(index)] for index in rng.permutation(len(turns))[:2])
    form = (*first, *first, *second, *first)
    return key, tuple(form[bar % len(form)] for bar in range(bars))


def _style_of_bar(bar: int, styles: list[Style]) -> Style:
    return styles[bar // 4 % 2]


def _melody(
    rng: np.random.Generator,
    key: Key,
    chords: tuple[int, ...],
    *,
    rhythms: tuple[tuple[tuple[float, float], ...], ...],
    lowest: int,
) -> list[Note]:
    """Walk the scale in small steps; strong beats take the nearest note of the chord, and bars rhyme by twos."""
    pair = [rhythms[int(index)] for index in rng.permutation(len(rhythms))[:2]]
    ladder = sorted(pitch for pitch in range(lowest - 3, lowest + 14) if pitch % SEMITONES in key.scale)
    steps = rng.choice((-2, -1, -1, 1, 1, 2), size=(2, 8))
    place = len(ladder) // 2
    notes: list[Note] = []
    for bar, degree in enumerate(chords):
        tones = [near(tone, lowest) for tone in key.triad(degree).tones]
        for index, (start, length) in enumerate(pair[bar % 2]):
            place = int(np.clip(place + steps[bar % 2, index], 1, len(ladder) - 2))
            pitch = ladder[place]
            if start in {0.0, 2.0}:
                pitch = min(tones, key=lambda tone: (abs(tone - pitch), tone))
                place = min(range(len(ladder)), key=lambda at: abs(ladder[at] - pitch))
            notes.append((bar * BEATS_IN_BAR + start, length, pitch))
    return notes


def _sing(pitch: int, seconds: float, rate: int, vowels: tuple[int, int], rng: np.random.Generator) -> Samples:
    """Return one sung mono note that glides from one vowel to another, with a breath of noise at its start."""
    frames = max(1, round(seconds * rate))
    frequency = hertz(pitch + float(rng.normal(0.0, 0.05)))
    before, after = (
        oscillate(frequency, frames, rate, _partials(frequency, VOWELS[vowel]), vibrato=0.35) for vowel in vowels
    )
    time = np.arange(frames) / rate
    glide = np.clip((time - 0.06) / max(0.35 * seconds, 0.05), 0.0, 1.0)
    body = before * (1.0 - glide) + after * glide
    noise = tint(rng.standard_normal((frames, 1)).astype(np.float32), rate, [(900.0, 0.0), (3_000.0, 1.0), (9e3, 0.3)])
    breath = noise[:, 0] * (0.02 + 0.15 * np.exp(-time / 0.03))
    swell = 0.75 + 0.25 * np.sin(np.pi * np.clip(time / seconds, 0.0, 1.0))
    shape = edges(frames, rate, attack=0.05, release=min(0.12, seconds / 3))
    return ((body * swell + 0.12 * breath) * shape).astype(np.float32)


def _partials(frequency: float, formants: tuple[tuple[float, float], ...]) -> tuple[float, ...]:
    """Return the weights of the partials: the falling spectrum of the vocal folds, lifted at the formants."""
    hz = frequency * np.arange(1, int(VOICE_TOP_HZ / frequency) + 1)
    lift = sum(
        (
            gain**BRIGHTNESS * np.exp(-0.5 * ((hz - centre) / (FORMANT_WIDTH * centre + 40.0)) ** 2)
            for centre, gain in formants
        ),
        np.full(hz.shape, 0.01),
    )
    weights = lift * (hz[0] / hz) ** 0.5
    return tuple((weights / weights.max()).tolist())


def _finish(samples: Samples, rate: int) -> Clip:
    """Bring the peaks to `LEVEL` or a little more and take the click from the end."""
    peak = float(np.quantile(np.abs(samples), 0.999))
    loud = soft_limit(samples * np.float32(LEVEL / max(peak, 1e-6)))
    return Clip(fade_out(loud, round(0.01 * rate)), rate)
