"""A small band of synthetic instruments that plays one bar of a chord in one of a few styles."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from audioext.sandbox._dsp import Samples, add_at, fast_length, rms, tint
from audioext.sandbox._hear import A4_HZ, A4_PITCH, BEATS_IN_BAR, SEMITONES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audioext.sandbox._hear import Chord

TABLE_FRAMES: Final = 4_096
STEPS_IN_BAR: Final = 16
EDGE_SECONDS: Final = 0.004  # every note starts and ends within this time, so none clicks
NYQUIST_SHARE: Final = 0.45  # partials above this share of the sample rate are left out
VIBRATO_HZ: Final = 5.3
TAIL_SECONDS: Final = 1.6  # what a bar's notes and the room may ring beyond it
ROOM_SECONDS: Final = 1.1
BASS_LOWEST: Final = 35  # B1
KEYS_LOWEST: Final = 57  # A3
LEAD_LOWEST: Final = 69  # A4

PIANO_DARK: Final = (1.0, 0.35, 0.12, 0.05)
PIANO_BRIGHT: Final = (0.2, 0.6, 0.45, 0.35, 0.25, 0.16, 0.12, 0.08)
BASS_WAVE: Final = (1.0, 0.55, 0.32, 0.16, 0.09, 0.05)
STRING_WAVE: Final = (1.0, 0.5, 0.34, 0.2, 0.14, 0.1, 0.06, 0.04)
FLUTE_WAVE: Final = (1.0, 0.3, 0.16, 0.05, 0.03)

Hit = tuple[int, float]
"""When in the bar (in sixteenths), and how hard (0..1)."""


@frozen
class Style:
    """What each instrument plays in a bar; a step is a sixteenth, a tone counts up the chord from its root."""

    keys: tuple[tuple[int, tuple[int, ...], float], ...] = ()
    """(step, tones, strength) of the plucked or struck chords."""
    bass: tuple[tuple[int, int, int, float], ...] = ()
    """(step, semitones above the root, length in steps, strength)."""
    kick: tuple[Hit, ...] = ()
    snare: tuple[Hit, ...] = ()
    hat: tuple[Hit, ...] = ()
    pad: float = 0.0
    octave: int = 0
    ring: float = 0.8
    """Seconds in which a key's sound dies down."""


BALLAD: Final = Style(
    keys=((0, (0, 1, 2), 0.8), (4, (2,), 0.5), (6, (3,), 0.5), (8, (0, 1, 2), 0.6), (12, (1,), 0.5), (14, (2,), 0.4)),
    bass=((0, 0, 7, 0.9), (8, 7, 4, 0.6), (12, 0, 4, 0.6)),
    kick=((0, 0.6), (8, 0.4)),
    hat=((4, 0.5), (6, 0.2), (12, 0.5), (14, 0.25)),
    pad=0.5,
    ring=1.1,
)
ARPEGGIO: Final = Style(
    keys=tuple((2 * eighth, (eighth % 4,), 0.5 if eighth % 4 else 0.7) for eighth in range(8)),
    bass=((0, 0, 5, 0.9), (6, 0, 2, 0.6), (8, 0, 5, 0.8), (14, 7, 2, 0.6)),
    kick=((0, 0.8), (8, 0.7), (10, 0.4)),
    snare=((4, 0.6), (12, 0.7)),
    hat=tuple((step, 0.25 if step % 4 == 0 else 0.45) for step in range(0, 16, 2)),
    pad=0.35,
    ring=0.5,
)
BOSSA: Final = Style(
    keys=((0, (0, 1, 2), 0.6), (3, (1, 2, 3), 0.5), (6, (1, 2, 3), 0.6), (10, (0, 1, 2), 0.5), (13, (1, 2, 3), 0.5)),
    bass=((0, 0, 6, 0.9), (6, 7, 2, 0.7), (8, 7, 6, 0.8), (14, 0, 2, 0.7)),
    kick=((0, 0.5), (6, 0.25), (8, 0.5), (14, 0.25)),
    snare=((3, 0.2), (6, 0.25), (12, 0.25)),
    hat=tuple((step, 0.35 if step % 4 == 0 else 0.18) for step in range(16)),
    pad=0.2,
    ring=0.45,
)
DREAM: Final = Style(
    keys=((0, (2,), 0.5), (6, (3,), 0.4), (10, (4,), 0.45), (12, (1,), 0.35)),
    bass=((0, 0, 14, 0.7),),
    hat=((4, 0.2), (12, 0.25)),
    pad=0.9,
    octave=1,
    ring=1.3,
)
STYLES: Final = (BALLAD, ARPEGGIO, BOSSA, DREAM)


def hertz(pitch: float) -> float:
    """Return the frequency of a MIDI pitch."""
    return A4_HZ * math.exp2((pitch - A4_PITCH) / SEMITONES)


def near(pitch_class: int, lowest: int) -> int:
    """Return the MIDI pitch of that class within the octave from *lowest* up: chords then move by small steps."""
    return lowest + (pitch_class - lowest) % SEMITONES


@lru_cache(maxsize=512)
def _table(weights: tuple[float, ...]) -> Samples:
    spectrum = np.zeros(TABLE_FRAMES // 2 + 1, np.complex128)
    # Partials in sine phase start at zero; dividing by the sum keeps the peak below 1.
    spectrum[1 : len(weights) + 1] = -0.5j * TABLE_FRAMES * np.asarray(weights) / max(sum(weights), 1.0)
    return np.fft.irfft(spectrum).astype(np.float32)


def oscillate(  # noqa: PLR0913 - one keyword for each property of a tone
    frequency: float, frames: int, rate: int, weights: Sequence[float], *, vibrato: float = 0.0, start: float = 0.0
) -> Samples:
    """Return a steady mono tone of partials; *vibrato* is its depth in semitones, *start* the phase in cycles."""
    partials = max(1, min(len(weights), TABLE_FRAMES // 4, int(NYQUIST_SHARE * rate / frequency)))
    phase = start + np.arange(frames) * (frequency / rate)
    if vibrato:
        time = np.arange(frames) / rate
        depth = frequency * (2 ** (vibrato / SEMITONES) - 1) / (2 * np.pi * VIBRATO_HZ)
        phase += depth * np.minimum(time / 0.3, 1.0) * np.sin(2 * np.pi * VIBRATO_HZ * time)
    index = (phase * TABLE_FRAMES).astype(np.int64) & (TABLE_FRAMES - 1)
    return _table(tuple(weights[:partials])).take(index)


def spread(mono: Samples, left: float, right: float) -> Samples:
    """Return *mono* in stereo, at a gain for each side."""
    return mono[:, None] * np.array((left, right), np.float32)


def edges(frames: int, rate: int, *, attack: float = EDGE_SECONDS, release: float = EDGE_SECONDS) -> Samples:
    """Return a mono gain curve that rises in *attack* and falls in *release* seconds."""
    time = np.arange(frames) / rate
    rise = np.minimum(time / max(attack, 1 / rate), 1.0)
    fall = np.minimum((time[::-1]) / max(release, 1 / rate), 1.0)
    return (rise * fall).astype(np.float32)


@frozen
class Band:
    """Plays bars at one sample rate and tempo; the same call gives the same sound, so bars are cached."""

    rate: int
    beat: float
    """Seconds between two beats."""
    seed: int = 0
    _bars: dict[tuple[Chord, Style], Samples] = field(factory=dict, init=False, repr=False, eq=False)

    @property
    def bar_seconds(self) -> float:
        """Return the seconds of one bar."""
        return self.beat * BEATS_IN_BAR

    def bar(self, chord: Chord, style: Style) -> Samples:
        """Return one bar and its tail in stereo, at an RMS of about 0.1 whatever the style."""
        cached = self._bars.get((chord, style))
        if cached is None:
            cached = self._bars[chord, style] = self._play(chord, style)
        return cached

    def bars(self, chords: Sequence[tuple[Chord, Style]], *, frames: int, first: float = 0.0) -> Samples:
        """Return *chords* played one a bar from *first* seconds on, in stereo and exactly *frames* long."""
        out = np.zeros((frames, 2), np.float32)
        for index, (chord, style) in enumerate(chords):
            add_at(out, self.bar(chord, style), round((first + index * self.bar_seconds) * self.rate))
        return out

    def lead(self, pitch: float, seconds: float) -> Samples:
        """Return one mono note of a soft wind instrument."""
        frames = max(1, round(seconds * self.rate))
        tone = oscillate(hertz(pitch), frames, self.rate, FLUTE_WAVE, vibrato=0.25)
        return tone * edges(frames, self.rate, attack=0.03, release=min(0.12, seconds / 2))

    def _play(self, chord: Chord, style: Style) -> Samples:
        step = self.bar_seconds / STEPS_IN_BAR
        dry = np.zeros((round((self.bar_seconds + TAIL_SECONDS) * self.rate), 2), np.float32)
        wet = np.zeros_like(dry)
        tones = sorted(near(tone, KEYS_LOWEST + SEMITONES * style.octave) for tone in chord.tones)
        ladder = [*tones, tones[0] + SEMITONES, tones[1] + SEMITONES]
        for index, (when, chosen, strength) in enumerate(style.keys):
            for tone in chosen:
                side = 0.5 + 0.35 * math.sin(1.7 * index + tone)
                note = spread(self._key(ladder[tone], style.ring, strength), 1.0 - side, side)
                add_at(wet, note, round(when * step * self.rate), 0.28)
        root = near(chord.root, BASS_LOWEST)
        for when, above, length, strength in style.bass:
            note = self._bass(root + above, length * step)[:, None]
            add_at(dry, note, round(when * step * self.rate), 0.3 * strength)
        if style.pad:
            add_at(wet, self._pad(tones), 0, 0.1 * style.pad)
        for hits, sound, gain in (
            (style.kick, self._kick(), 0.34),
            (style.snare, self._snare(), 0.22),
            (style.hat, self._hat(), 0.1),
        ):
            for when, strength in hits:
                add_at(dry, sound[:, None], round(when * step * self.rate), gain * strength)
        add_at(wet, dry, 0, 0.15)
        out = dry + room(wet, self.rate)
        out *= edges(out.shape[0], self.rate, attack=1 / self.rate, release=0.3)[:, None]
        return out * np.float32(0.1 / max(rms(out), 1e-6))

    def _key(self, pitch: int, ring: float, strength: float) -> Samples:
        frames = round(min(3 * ring, TAIL_SECONDS) * self.rate)
        time = np.arange(frames, dtype=np.float32) / self.rate
        dark = oscillate(hertz(pitch), frames, self.rate, PIANO_DARK) * np.exp(-time / ring)
        bright = oscillate(hertz(pitch), frames, self.rate, PIANO_BRIGHT) * np.exp(-time / (0.25 * ring))
        return (strength * (dark + strength * bright) * edges(frames, self.rate)).astype(np.float32)

    def _bass(self, pitch: int, seconds: float) -> Samples:
        frames = max(1, round(seconds * 0.95 * self.rate))
        time = np.arange(frames, dtype=np.float32) / self.rate
        tone = oscillate(hertz(pitch), frames, self.rate, BASS_WAVE) * (0.35 + 0.65 * np.exp(-time / 0.35))
        return (tone * edges(frames, self.rate, attack=0.008, release=min(0.05, seconds / 3))).astype(np.float32)

    def _pad(self, tones: Sequence[int]) -> Samples:
        frames = round((self.bar_seconds + 0.5) * self.rate)
        out = np.zeros((frames, 2), np.float32)
        for index, pitch in enumerate((*tones, tones[0] - SEMITONES)):
            for side, cents in ((0, 5.0), (0, -4.0), (1, -6.0), (1, 3.0)):
                start = (0.37 * index + 0.21 * cents) % 1.0  # fixed, but unlike: equal phases would beat together
                out[:, side] += oscillate(hertz(pitch + cents / 100), frames, self.rate, STRING_WAVE, start=start)
        return out * edges(frames, self.rate, attack=0.35, release=0.5)[:, None]

    def _kick(self) -> Samples:
        time = np.arange(round(0.28 * self.rate), dtype=np.float64) / self.rate
        phase = 48.0 * time + 2.6 * (1.0 - np.exp(-time / 0.03))
        return (np.sin(2 * np.pi * phase) * np.exp(-time / 0.09)).astype(np.float32) * edges(time.size, self.rate)

    def _snare(self) -> Samples:
        time = np.arange(round(0.22 * self.rate), dtype=np.float64) / self.rate
        noise = self._noise(time.size, 1, [(700.0, 0.0), (1_500.0, 1.0), (9_000.0, 0.7)])
        drum = 0.5 * np.sin(2 * np.pi * 190.0 * time) * np.exp(-time / 0.05)
        return (noise * np.exp(-time / 0.07) + drum).astype(np.float32) * edges(time.size, self.rate)

    def _hat(self) -> Samples:
        time = np.arange(round(0.09 * self.rate), dtype=np.float64) / self.rate
        noise = self._noise(time.size, 2, [(2_500.0, 0.0), (7_000.0, 1.0), (14_000.0, 0.8)])
        return (noise * np.exp(-time / 0.022)).astype(np.float32) * edges(time.size, self.rate, attack=0.001)

    def _noise(self, frames: int, stream: int, points: Sequence[tuple[float, float]]) -> Samples:
        noise = np.random.default_rng([self.seed, stream]).standard_normal((frames, 1)).astype(np.float32)
        return tint(0.4 * noise, self.rate, points)[:, 0]


@lru_cache(maxsize=8)
def _echoes(rate: int) -> Samples:
    """Return the impulse response of a small hall in stereo: sinking, darkening noise after a short silence."""
    frames = round(ROOM_SECONDS * rate)
    time = np.arange(frames, dtype=np.float32) / rate
    noise = np.random.default_rng(7).standard_normal((frames, 2)).astype(np.float32)
    noise *= (np.exp(-time / 0.28) * np.minimum(time / 0.015, 1.0))[:, None]
    dark = tint(noise, rate, [(120.0, 0.1), (300.0, 1.0), (2_500.0, 0.8), (8_000.0, 0.1)])
    return np.asarray(dark / np.sqrt(np.sum(np.square(dark), axis=0, keepdims=True)), np.float32)


@lru_cache(maxsize=4)
def _echo_spectrum(rate: int, size: int) -> npt.NDArray[np.complex64]:
    return np.fft.rfft(_echoes(rate), size, axis=0).astype(np.complex64)


def room(samples: Samples, rate: int, *, wet: float = 0.3) -> Samples:
    """Return stereo *samples* in a small hall; what rings beyond their end is cut."""
    size = fast_length(samples.shape[0] + round(ROOM_SECONDS * rate))
    spectrum = np.fft.rfft(samples, size, axis=0) * _echo_spectrum(rate, size)
    ringing = np.fft.irfft(spectrum, size, axis=0)[: samples.shape[0]]
    return (samples + np.float32(wet) * ringing).astype(np.float32)
