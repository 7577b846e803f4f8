"""Compares a track with its source, with numpy: how much longer it is, and whether it begins like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from audioext.sandbox.audio import Clip, load

ALIKE_FROM = 0.9  # the same music through two lossy encoders stays above 0.97, other music below 0.5
COMPARED_RATE_HZ = 4_000  # enough to tell music from other music, and quick
COMPARED_SECONDS = 30.0
LEAST_SECONDS = 0.25  # below that an encoder's own silence in front is most of what is heard
LEAST_LOUDNESS = 1e-4  # root mean square of full scale: noise that encoders add is below
LARGEST_SHIFT_SECONDS = 0.1  # MP3 encoders put up to 0.05 s of silence in front, twice where both are MP3


@frozen(kw_only=True)
class Likeness:
    """A track beside its source: both lengths in seconds, and how alike their beginnings are, from 0 to 1.

    `beginning` is `None` where the source is too short or too quiet to compare anything with it.
    """

    source_seconds: float
    track_seconds: float
    beginning: float | None

    @property
    def begins_like_it(self) -> bool | None:
        """Whether the track begins like the source, `None` where nobody can tell."""
        return None if self.beginning is None else self.beginning >= ALIKE_FROM

    @property
    def is_longer(self) -> bool:
        """Whether the track is longer than the source."""
        return self.track_seconds > self.source_seconds

    def __str__(self) -> str:
        """Say both in a few words: `20.0 s → 44.1 s, begins like it`."""
        words = {True: "begins like it", False: "does NOT begin like it", None: "too short or too quiet to compare"}
        return f"{self.source_seconds:.1f} s → {self.track_seconds:.1f} s, {words[self.begins_like_it]}"


def compare(source: Path, track: Path, *, until: float) -> Likeness:
    """Decode both files and compare their first *until* seconds (30 at most). It blocks: call it in a thread.

    Raises:
        ValueError: one of them is not audio that can be decoded.
    """
    first, second = load(source.read_bytes()), load(track.read_bytes())
    kept = min(until, COMPARED_SECONDS, first.duration, second.duration)
    likeness = _likeness(_beginning(first, kept), _beginning(second, kept)) if kept >= LEAST_SECONDS else None
    return Likeness(source_seconds=first.duration, track_seconds=second.duration, beginning=likeness)


def _beginning(clip: Clip, kept: float) -> NDArray[np.float64]:
    mono = clip.samples[: round(kept * clip.rate)].astype(np.float64).mean(axis=1)
    # A box over one new sample's span keeps what is above the new rate's half from folding down.
    width = max(1, clip.rate // COMPARED_RATE_HZ)
    smooth = np.convolve(mono, np.full(width, 1.0 / width), mode="same")
    at = np.arange(0.0, len(mono) / clip.rate, 1.0 / COMPARED_RATE_HZ)
    return np.asarray(np.interp(at, np.arange(len(smooth)) / clip.rate, smooth), dtype=np.float64)


def _likeness(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return the highest correlation at any small shift; nothing where the first is silent, 0 where the second is."""
    length = min(len(first), len(second))
    first, second = first[:length] - first[:length].mean(), second[:length] - second[:length].mean()
    if float(np.sqrt((first**2).mean())) < LEAST_LOUDNESS:
        return None
    power = float(np.sqrt((first**2).sum() * (second**2).sum()))
    if power == 0.0:
        return 0.0
    span = 2 * length
    correlation = np.fft.irfft(np.fft.rfft(first, span) * np.conj(np.fft.rfft(second, span)), span)
    shift = min(length, round(LARGEST_SHIFT_SECONDS * COMPARED_RATE_HZ))
    near = np.concatenate([correlation[: shift + 1], correlation[-shift:]])
    return float(np.clip(near.max() / power, 0.0, 1.0))
