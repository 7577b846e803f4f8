"""Composes small pieces from a seed: a tune in a loop of four chords, and a sung line without words."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np

from audioext.sandbox.audio.codec import Clip, Samples, fade_out, soft_limit

Weights = tuple[float, ...]
"""How strong the partials of a tone are, from the fundamental up."""

A4_HZ: Final = 440.0
A4_PITCH: Final = 69  # pitches are MIDI numbers: 12 to the octave
MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)  # semitones above the root
PENTATONIC: Final = (0, 2, 4, 7, 9)  # of these five, any two sound well together
VOICE_BEAT_SECONDS: Final = 0.625  # the voice and its accompaniment: 96 beats a minute in C major
VOICE_ROOT: Final = 60  # C4
BEAT_SECONDS: Final = (0.5, 0.75)  # the shortest and the longest of a tune
BEATS_IN_BAR: Final = 4
LOOP_BEATS: Final = 16
MELODY_BEATS: Final = 32
PHRASE_BEATS: Final = (6, 8)  # what is sung, and what is sung with the breath after it
EDGE_SECONDS: Final = 0.006  # every tone starts and ends within this time, so none clicks
NYQUIST_SHARE: Final = 0.45  # partials above this share of the sample rate are left out
PLUCKED: Final[Weights] = (1.0, 0.4, 0.15, 0.06, 0.03)
BASS: Final[Weights] = (1.0, 0.5, 0.2, 0.08)
FLUTE: Final[Weights] = (1.0, 0.3, 0.14, 0.05)
SUNG: Final[Weights] = (0.7, 0.8, 1.0, 0.7, 0.45, 0.2, 0.12, 0.1)  # what the throat makes of an alto's notes on "ah"
TURNS: Final = ((0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 3, 5, 4))  # degrees of the scale, one a bar
PATTERNS: Final = ((0, 1, 2, 3, 4, 3, 2, 1), (0, 2, 1, 2, 4, 2, 3, 2), (4, 3, 2, 1, 0, 1, 2, 3))
"""What is plucked in a bar: at each eighth a tone of the chord, counted up from its root."""
RHYTHMS: Final = ((0.0, 1.0, 2.0, 3.5), (0.0, 1.5, 2.0, 3.0), (0.5, 1.0, 2.5), (0.0, 2.0, 3.0))
"""On which beats of a bar a melody has a new note."""
LEVEL: Final = 0.5  # of a finished piece's peaks, which leaves room for what is added later


@lru_cache(maxsize=4)
def chords(root: int, turn: int, pattern: int, beat: float, rate: int) -> Samples:
    """Return a loop of four chords in stereo, whose end goes over into its start; *beat* is in seconds."""
    out = np.zeros((round(LOOP_BEATS * beat * rate), 2), np.float32)
    for bar, degree in enumerate(TURNS[turn % len(TURNS)]):
        start = bar * BEATS_IN_BAR * beat
        steps = [divmod(degree + third, len(MAJOR)) for third in (0, 2, 4, 7, 9)]
        chord = [root + MAJOR[step] + 12 * octave for octave, step in steps]
        _add(out, tone(chord[0] - 24, BEATS_IN_BAR * beat, rate, BASS, ring=1.5) * 0.5, start, rate)
        for eighth, index in enumerate(PATTERNS[pattern % len(PATTERNS)]):
            pluck = tone(chord[index], 1.2, rate, PLUCKED, ring=0.45)
            _add(out, pluck * 0.3, start + eighth * beat / 2, rate, pan=0.7 - 0.1 * index)
    out *= np.float32(LEVEL / max(float(np.abs(out).max()), 1e-6))
    out.flags.writeable = False  # it is shared by all who ask for this loop
    return out


def tune(*, seed: int, seconds: float = 20.0, rate: int = 44_100) -> Clip:
    """Play a piece in stereo: plucked chords, a bass, and a melody over them. It ends in a short fade.

    The seed (any whole number) decides key, tempo, chords and melody.
    """
    rng = np.random.default_rng([abs(seed), seed < 0, 1])
    root, turn, pattern = int(rng.integers(52, 64)), int(rng.integers(len(TURNS))), int(rng.integers(len(PATTERNS)))
    beat = float(rng.uniform(*BEAT_SECONDS))
    loop = chords(root, turn, pattern, beat, rate)
    piece = np.concatenate([loop, loop])
    for start, beats, pitch in _melody(rng, root + 12):
        note = tone(pitch, beats * beat, rate, FLUTE, attack=0.03)
        _add(piece, note * 0.25, start * beat, rate, pan=0.45)
    return _finish(piece, seconds, rate)


def voice(*, seed: int, seconds: float = 10.0, rate: int = 44_100) -> Clip:
    """Sing a line in mono, without words, in phrases with breaths between them.

    The seed (any whole number) decides the melody; key and tempo are those of `accompany`.
    """
    rng = np.random.default_rng([abs(seed), seed < 0, 2])
    line = np.zeros((round(MELODY_BEATS * VOICE_BEAT_SECONDS * rate), 1), np.float32)
    sung, phrase = PHRASE_BEATS
    for start, beats, pitch in _melody(rng, VOICE_ROOT):
        left = sung - start % phrase
        if left > 0:
            note = tone(pitch, min(beats, left) * VOICE_BEAT_SECONDS, rate, SUNG, attack=0.06)
            _add(line, note, start * VOICE_BEAT_SECONDS, rate)
    return _finish(line, seconds, rate)


@lru_cache(maxsize=32)
def tone(  # noqa: PLR0913 - one keyword for each property of a tone
    pitch: int, seconds: float, rate: int, weights: Weights, *, attack: float = EDGE_SECONDS, ring: float = math.inf
) -> Samples:
    """Return a mono tone that starts within *attack* and dies down with *ring* seconds."""
    time = np.arange(max(1, round(seconds * rate))) / rate
    hertz = A4_HZ * math.exp2((pitch - A4_PITCH) / 12)
    phase = (2 * np.pi * (hertz * time % 1.0)).astype(np.float32)
    partials = weights[: max(1, int(NYQUIST_SHARE * rate / hertz))]
    # sin((n + 1) x) = 2 cos(x) sin(n x) - sin((n - 1) x)
    before, now, turn = np.zeros_like(phase), np.sin(phase), 2 * np.cos(phase)
    sound = partials[0] * now
    for weight in partials[1:]:
        before, now = now, turn * now - before
        sound += weight * now
    left = np.clip((seconds - time) / max(attack, 0.03), 0.0, 1.0)
    shape = np.minimum(time / attack, 1.0) * left * np.exp(-time / ring) / sum(weights)
    shaped: Samples = (sound * shape).astype(np.float32)
    shaped.flags.writeable = False  # it is shared by all who ask for this tone
    return shaped


def _melody(rng: np.random.Generator, root: int) -> list[tuple[float, float, int]]:
    """Walk a pentatonic scale in small steps; bars rhyme by twos. A note is (beat, beats, pitch)."""
    ladder = [root + 12 * octave + step for octave in (-1, 0, 1) for step in PENTATONIC][3:-3]
    rhythms = [RHYTHMS[int(index)] for index in rng.permutation(len(RHYTHMS))[:2]]
    starts = [BEATS_IN_BAR * bar + beat for bar in range(MELODY_BEATS // BEATS_IN_BAR) for beat in rhythms[bar % 2]]
    at = len(ladder) // 2
    notes: list[tuple[float, float, int]] = []
    for start, end in zip(starts, [*starts[1:], float(MELODY_BEATS)], strict=True):
        at = int(np.clip(at + rng.choice((-2, -1, -1, 1, 1, 2)), 0, len(ladder) - 1))
        notes.append((start, end - start, ladder[at]))
    return notes


def _add(loop: Samples, mono: Samples, start: float, rate: int, *, pan: float = 0.5) -> None:
    """Mix a tone into a loop in place; what rings beyond its end is heard at its start. *pan* 0 is the left."""
    sides = np.array([[1.0]] if loop.shape[1] == 1 else [[math.sqrt(1.0 - pan), math.sqrt(pan)]], np.float32)
    at = round(start * rate) % loop.shape[0]
    head = min(mono.shape[0], loop.shape[0] - at)
    loop[at : at + head] += mono[:head, None] * sides
    # A tone is shorter than any loop.
    loop[: mono.shape[0] - head] += mono[head:, None] * sides


def _finish(loop: Samples, seconds: float, rate: int) -> Clip:
    """Repeat a loop for so many seconds, with peaks at `LEVEL` and no click at the end."""
    frames = max(1, round(seconds * rate))
    piece = np.tile(loop, (-(-frames // loop.shape[0]), 1))[:frames]
    piece = piece * np.float32(LEVEL / max(float(np.abs(loop).max()), 1e-6))
    return Clip(fade_out(soft_limit(piece), round(0.05 * rate)), rate)
