"""Compares the beginnings of two recordings; apart from `demo`, whose help must work without numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audioext.sandbox.audio import Clip

ALIKE_FROM = 0.9  # the same music after two lossy encoders correlates above 0.97, other music below 0.5
COMPARED_RATE_HZ = 4_000  # enough to tell recordings apart, and quick
LEAST_LOUDNESS = 1e-4  # root mean square of full scale: encoder noise is below it
LARGEST_SHIFT_SECONDS = 0.1  # MP3 encoders add up to 0.05 s of leading silence, twice if both files are MP3


def begin_alike(source: Clip, track: Clip, seconds: float) -> bool | None:
    """Return whether the first *seconds* of both correlate at any small shift; `None` if the source is silent."""
    first, second = (_beginning(clip, seconds) for clip in (source, track))
    powers = [float((each**2).sum()) for each in (first, second)]
    if powers[0] < len(first) * LEAST_LOUDNESS**2:
        return None
    span = 2 * len(first)
    correlation = np.fft.irfft(np.fft.rfft(first, span) * np.conj(np.fft.rfft(second, span)), span)
    shift = min(len(first), round(LARGEST_SHIFT_SECONDS * COMPARED_RATE_HZ))
    near = np.roll(correlation, shift)[: 2 * shift + 1]
    return bool(near.max() >= ALIKE_FROM * np.sqrt(powers[0] * powers[1]) > 0)


def _beginning(clip: Clip, kept: float) -> NDArray[np.float64]:
    mono = clip.samples[: round(kept * clip.rate)].astype(np.float64).mean(axis=1)
    # A moving average over one new sample's span reduces aliasing from above the new Nyquist frequency.
    width = max(1, clip.rate // COMPARED_RATE_HZ)
    smooth = np.convolve(mono, np.full(width, 1.0 / width), mode="same")
    times = np.arange(0.0, kept, 1.0 / COMPARED_RATE_HZ)
    found = np.interp(times, np.arange(len(smooth)) / clip.rate, smooth)
    return np.asarray(found - found.mean(), dtype=np.float64)
