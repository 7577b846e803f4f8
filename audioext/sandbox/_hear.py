"""Hears what a musician would need to join in: the beat, the bar line, the key and the chords of a sound."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from audioext.sandbox._dsp import TINY, Samples

Reals = npt.NDArray[np.float64]

ANALYSIS_RATE_HZ: Final = 11_025  # all that is heard here lies below 5 kHz
ONSET_WINDOW: Final = 512
ONSET_HOP_SECONDS: Final = 0.01
CHROMA_WINDOW: Final = 4_096
CHROMA_HOP: Final = 1_024
CHROMA_LOW_HZ: Final = 80.0
CHROMA_HIGH_HZ: Final = 2_000.0
FASTEST_BEAT_SECONDS: Final = 60 / 170
SLOWEST_BEAT_SECONDS: Final = 60 / 62
USUAL_BEAT_SECONDS: Final = 60 / 100  # listeners tap near this tempo when several fit
TEMPO_SPREAD_OCTAVES: Final = 0.7
STEADY_FROM: Final = 0.12  # autocorrelation of the onsets above which there is a beat; noise stays below 0.05
BEATS_IN_BAR: Final = 4
# (beats, weight): bars repeat more strictly than beats, and three quarters of a beat repeats in syncopated music.
BEAT_MULTIPLES: Final = ((1, 1.0), (2, 1.0), (4, 2.0), (8, 2.0))
SEMITONES: Final = 12
MINOR_THIRD: Final = 3  # semitones
A4_HZ: Final = 440.0
A4_PITCH: Final = 69
MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)
MINOR: Final = (0, 2, 3, 5, 7, 8, 10)
# How well each of the twelve notes fits a key, by listeners: Krumhansl and Kessler 1982.
MAJOR_PROFILE: Final = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR_PROFILE: Final = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@frozen
class Chord:
    """A triad: pitch class of its root (0 is C), and whether its third is minor."""

    root: int
    minor: bool

    @property
    def tones(self) -> tuple[int, int, int]:
        """Return the pitch classes of root, third and fifth."""
        third = MINOR_THIRD if self.minor else MINOR_THIRD + 1
        return self.root, (self.root + third) % SEMITONES, (self.root + 7) % SEMITONES


@frozen
class Key:
    """A major or natural minor scale on a pitch class (0 is C)."""

    tonic: int
    minor: bool

    @property
    def scale(self) -> tuple[int, ...]:
        """Return the seven pitch classes, from the tonic up."""
        return tuple((self.tonic + step) % SEMITONES for step in (MINOR if self.minor else MAJOR))

    def triad(self, degree: int) -> Chord:
        """Return the triad on scale *degree*, counted from 0."""
        scale = self.scale
        root, third = scale[degree % len(scale)], scale[(degree + 2) % len(scale)]
        return Chord(root, minor=(third - root) % SEMITONES == MINOR_THIRD)

    @property
    def chords(self) -> tuple[Chord, ...]:
        """Return the six triads of the key that sound at rest: all but the diminished one."""
        return tuple(self.triad(degree) for degree in range(7) if degree != (1 if self.minor else 6))


@frozen(eq=False)
class Heard:
    """What was heard: times are seconds from the start of the sound that was given."""

    beat: float
    """Seconds between two beats; a usual tempo where none was found."""
    steady: bool
    """Whether the sound has a beat of its own."""
    key: Key
    chroma: Reals = field(repr=False)
    """Strength of the twelve pitch classes, shape (times, 12)."""
    chroma_hop: float = field(repr=False)
    """Seconds between two rows of `chroma`."""
    onsets: Reals = field(repr=False)
    """How strongly sound sets in, every `ONSET_HOP_SECONDS`."""

    def downbeat(self, beat: float) -> float:
        """Return when the first bar starts, if bars have four beats of that many seconds."""
        return _downbeat(self.onsets, beat)

    def chord(self, start: float, end: float) -> Chord:
        """Return the chord of the key that fits the notes between two times best; the tonic where there are none."""
        rows = self.chroma[max(0, int(start / self.chroma_hop)) : max(0, int(end / self.chroma_hop)) + 1]
        notes = rows.sum(axis=0) if rows.size else np.zeros(SEMITONES)
        fits = [notes[list(chord.tones)] @ (1.0, 0.7, 0.8) for chord in self.key.chords]
        return self.key.chords[int(np.argmax(fits))] if max(fits) > TINY else self.key.triad(0)


def hear(mono: Samples, rate: int) -> Heard:
    """Listen to *mono* (at any rate, at least one frame) and say what is going on."""
    small, small_rate = _shrink(mono, rate)
    onsets = _onsets(small, small_rate)
    beat, steady = _beat(onsets)
    chroma = _chroma(small, small_rate)
    return Heard(
        beat=beat,
        steady=steady,
        key=_key(chroma.sum(axis=0)),
        chroma=chroma,
        chroma_hop=CHROMA_HOP / small_rate,
        onsets=onsets,
    )


def period(mono: Samples, rate: int, *, shortest: float, longest: float) -> float:
    """Return the lag in seconds at which the sound is most like itself, for sounds without a beat."""
    small, small_rate = _shrink(mono, rate)
    chroma = _chroma(small, small_rate)
    hop = CHROMA_HOP / small_rate
    unit = chroma / (np.linalg.norm(chroma, axis=1, keepdims=True) + TINY)
    low, high = max(1, int(shortest / hop)), min(int(longest / hop), chroma.shape[0] - 4)
    if high <= low:
        return longest
    likeness = [float(np.mean(np.sum(unit[lag:] * unit[:-lag], axis=1))) for lag in range(low, high)]
    return (low + int(np.argmax(likeness))) * hop


def _shrink(mono: Samples, rate: int) -> tuple[Samples, float]:
    factor = max(1, rate // ANALYSIS_RATE_HZ)
    whole = mono.shape[0] // factor * factor
    small = mono[:whole].reshape(-1, factor).mean(axis=1, dtype=np.float32) if factor > 1 else mono
    # A constant offset is no sound, and would fill the lowest bins.
    return (small - small.mean() if small.size else small).astype(np.float32), rate / factor


def _frames(mono: Samples, window: int, hop: int) -> Samples:
    padded = np.pad(mono, (window // 2, window))
    return np.lib.stride_tricks.sliding_window_view(padded, window)[: mono.shape[0] + 1 : hop]


def _onsets(mono: Samples, rate: float) -> Reals:
    """Return how strongly sound sets in, every `ONSET_HOP_SECONDS`: the rise of the logarithmic spectrum."""
    marks = np.arange(0.0, mono.shape[0] + 1, rate * ONSET_HOP_SECONDS).astype(np.int64)
    frames = _frames(mono, ONSET_WINDOW, 1)[marks]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(ONSET_WINDOW).astype(np.float32), axis=1))
    loud = np.log1p(100.0 * spectrum / (spectrum.max(initial=0.0) + TINY))
    rise = np.maximum(np.diff(loud, axis=0, prepend=loud[:1]), 0.0).sum(axis=1, dtype=np.float64)
    width = min(rise.shape[0], round(0.5 / ONSET_HOP_SECONDS))
    local = np.convolve(rise, np.full(width, 1.0 / width), mode="same")
    return np.asarray(np.maximum(rise - local, 0.0))


def _beat(onsets: Reals) -> tuple[float, bool]:
    """Return the seconds of a beat and whether the onsets really repeat with it."""
    size = onsets.shape[0]
    centred = onsets - onsets.mean()
    power = np.abs(np.fft.rfft(centred, 2 * size)) ** 2
    again = np.fft.irfft(power)[:size]
    if again[0] <= TINY or size * ONSET_HOP_SECONDS < 2 * BEATS_IN_BAR * FASTEST_BEAT_SECONDS:
        return USUAL_BEAT_SECONDS, False
    again = again / again[0] * size / np.arange(size, 0, -1)
    lags = np.arange(FASTEST_BEAT_SECONDS, SLOWEST_BEAT_SECONDS, ONSET_HOP_SECONDS / 10) / ONSET_HOP_SECONDS
    multiples = [(count, weight) for count, weight in BEAT_MULTIPLES if lags[-1] * count < size * 3 // 4]
    curves = [np.interp(lags * count, np.arange(size), again) for count, _ in multiples]
    strength = np.average(curves, axis=0, weights=[weight for _, weight in multiples])
    octaves = np.log2(lags * ONSET_HOP_SECONDS / USUAL_BEAT_SECONDS)
    best = int(np.argmax(strength * np.exp(-0.5 * (octaves / TEMPO_SPREAD_OCTAVES) ** 2)))
    lag = float(lags[best])
    for count in (2, 4, 8):  # each doubling of the distance halves the error of the lag
        centre, reach = round(lag * count), count
        if centre + reach + 1 < size * 3 // 4:
            window = again[centre - reach : centre + reach + 1]
            lag = (centre - reach + _peak(window)) / count
    return lag * ONSET_HOP_SECONDS, bool(strength[best] > STEADY_FROM)


def _peak(values: Reals) -> float:
    """Return where the maximum lies, between the samples, by a parabola through three of them."""
    top = int(np.argmax(values))
    if not 0 < top < values.shape[0] - 1:
        return float(top)
    left, middle, right = values[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return float(top + (0.5 * (left - right) / bend if bend < -TINY else 0.0))


def _downbeat(onsets: Reals, beat: float) -> float:
    """Return the time of the first bar line: where a comb of bars, and a weaker one of beats, meets most onsets."""
    bar = beat * BEATS_IN_BAR / ONSET_HOP_SECONDS
    starts = np.arange(round(bar))
    blurred = np.convolve(onsets, (0.5, 1.0, 0.5), mode="same")

    def comb(step: float) -> Reals:
        marks = (starts[:, None] + np.arange(0.0, blurred.shape[0], step)[None, :]).astype(np.int64)
        hits = np.where(marks < blurred.shape[0], blurred[np.minimum(marks, blurred.shape[0] - 1)], 0.0)
        return np.asarray(hits.sum(axis=1) / np.maximum((marks < blurred.shape[0]).sum(axis=1), 1))

    return int(np.argmax(comb(bar) + 2.0 * comb(bar / BEATS_IN_BAR))) * ONSET_HOP_SECONDS


def _chroma(mono: Samples, rate: float) -> Reals:
    """Return the strength of the twelve pitch classes, every `CHROMA_HOP` frames."""
    frames = _frames(mono, CHROMA_WINDOW, CHROMA_HOP) * np.hanning(CHROMA_WINDOW).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float64)
    hertz = np.fft.rfftfreq(CHROMA_WINDOW, 1 / rate)
    heard = (hertz >= CHROMA_LOW_HZ) & (hertz <= CHROMA_HIGH_HZ)
    pitch = A4_PITCH + SEMITONES * np.log2(hertz[heard] / A4_HZ)
    # A bin counts for the nearest note, the more so the closer it lies; lower notes name the harmony.
    off = pitch - np.rint(pitch)
    weight = np.exp(-0.5 * (off / 0.2) ** 2) / np.sqrt(hertz[heard])
    table = np.zeros((int(heard.sum()), SEMITONES))
    table[np.arange(table.shape[0]), np.rint(pitch).astype(np.int64) % SEMITONES] = weight
    return np.asarray(spectrum[:, heard] @ table)


def _key(notes: Reals) -> Key:
    """Return the key whose profile the notes match best; C major where there are none."""
    if notes.std() <= TINY:
        return Key(0, minor=False)
    best, key = -2.0, Key(0, minor=False)
    for minor, profile in ((False, MAJOR_PROFILE), (True, MINOR_PROFILE)):
        for tonic in range(SEMITONES):
            match = float(np.corrcoef(notes, np.roll(profile, tonic))[0, 1])
            if match > best:
                best, key = match, Key(tonic, minor=minor)
    return key
