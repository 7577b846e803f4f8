"""The few signal operations that the renderers share: levels, filters, joints, limits, rates."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples: TypeAlias = npt.NDArray[np.float32]
"""Sound: shape (frames, channels), or (frames,) where a name says *mono*."""

LIMIT_FROM: Final = 0.8  # below this level the limiter leaves a sample as it is
RESAMPLE_MARGIN_FRAMES: Final = 2_048  # silence at the end, so that the FFT does not wrap the end onto the start
TINY: Final = 1e-9


def to_mono(samples: Samples) -> Samples:
    """Return the mean of the channels, shape (frames,)."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def to_channels(samples: Samples, channels: int) -> Samples:
    """Return *samples* with exactly *channels* channels, 1 or 2."""
    if samples.shape[1] == channels:
        return samples
    return to_mono(samples)[:, None] if channels == 1 else np.repeat(samples, channels, axis=1)


def rms(samples: Samples) -> float:
    """Return the root mean square over all frames and channels; 0 for nothing."""
    return float(np.sqrt(np.mean(np.square(samples), dtype=np.float64))) if samples.size else 0.0


def levels(mono: Samples, hop: int) -> npt.NDArray[np.float64]:
    """Return the RMS of each block of *hop* frames; a last, shorter block counts too."""
    whole = mono.shape[0] // hop * hop
    blocks = np.sqrt(np.square(mono[:whole]).reshape(-1, hop).mean(axis=1, dtype=np.float64))
    return np.append(blocks, rms(mono[whole:])) if whole < mono.shape[0] else blocks


def follow(
    values: npt.NDArray[np.float64], *, attack: float, release: float, hop_seconds: float
) -> npt.NDArray[np.float64]:
    """Follow *values* like a compressor's detector: up with *attack*, down with *release*, both in seconds."""
    up, down = np.exp(-hop_seconds / attack), np.exp(-hop_seconds / release)
    now, out = 0.0, np.empty_like(values)
    for index, value in enumerate(values.tolist()):
        now = value + (now - value) * (up if value > now else down)
        out[index] = now
    return out


def soft_limit(samples: Samples) -> Samples:
    """Bend what is above `LIMIT_FROM` so that nothing reaches 1; quieter samples stay as they are."""
    loud = np.abs(samples) > LIMIT_FROM
    if not loud.any():
        return samples
    rest = 1.0 - LIMIT_FROM
    out = samples.copy()
    peaks = samples[loud]
    out[loud] = np.sign(peaks) * (LIMIT_FROM + rest * np.tanh((np.abs(peaks) - LIMIT_FROM) / rest))
    return out


def crossfade(before: Samples, after: Samples) -> Samples:
    """Go from *before* to *after*, equal in shape, at constant loudness.

    Alike sounds add up in voltage and unlike ones in power, so the weights are scaled by how alike the two are.
    """
    frames = before.shape[0]
    rising = ((np.arange(frames) + 0.5) / max(frames, 1))[:, None]
    falling = 1.0 - rising
    energy = np.sqrt(np.sum(np.square(before), dtype=np.float64) * np.sum(np.square(after), dtype=np.float64))
    alike = float(np.clip(np.sum(before * after, dtype=np.float64) / energy, 0.0, 1.0)) if energy > TINY else 1.0
    scale = 1.0 / np.sqrt(rising**2 + falling**2 + 2.0 * alike * rising * falling)
    mixed: Samples = ((before * falling + after * rising) * scale).astype(np.float32)
    return mixed


def ramp(frames: int, start: float, end: float) -> Samples:
    """Return a straight gain curve of shape (frames, 1)."""
    return np.linspace(start, end, frames, dtype=np.float32)[:, None]


def fade_out(samples: Samples, frames: int) -> Samples:
    """Return *samples* whose last *frames* sink to exactly zero along half a cosine."""
    frames = min(frames, samples.shape[0])
    curve = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, frames))
    curve[-1:] = 0.0
    out = samples.copy()
    out[samples.shape[0] - frames :] *= curve[:, None].astype(np.float32)
    return out


def add_at(target: Samples, piece: Samples, start: int, gain: float = 1.0) -> None:
    """Mix *piece* into *target* in place from frame *start* on; what falls outside is left away."""
    skip = max(0, -start)
    end = min(target.shape[0], start + piece.shape[0])
    if end > start + skip:
        target[start + skip : end] += gain * piece[skip : end - start]


def tint(samples: Samples, rate: int, points: Sequence[tuple[float, float]]) -> Samples:
    """Filter by an FFT: *points* are (Hz, gain), joined by straight lines over the logarithm of the frequency."""
    frames = len(samples)
    size = fast_length(frames)
    spectrum = np.fft.rfft(samples, size, axis=0)
    hertz = np.log(np.maximum(np.fft.rfftfreq(size, 1 / rate), 1.0))
    curve = np.interp(hertz, np.log([hz for hz, _ in points]), [gain for _, gain in points])
    return np.fft.irfft(spectrum * curve[:, None].astype(np.float32), size, axis=0)[:frames].astype(np.float32)


def fast_length(frames: int) -> int:
    """Return the next length whose only prime factors are 2 and one 3 or 5, which an FFT likes."""
    power = 1 << max(0, (frames - 1).bit_length())
    return next(size for size in (power * 5 // 8, power * 3 // 4, power) if size >= frames)


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Return *samples* of *rate* Hz at *wanted* Hz, band-limited, by cutting or padding the spectrum."""
    common = gcd(rate, wanted)
    up, down = wanted // common, rate // common
    frames = -(-(samples.shape[0] + RESAMPLE_MARGIN_FRAMES) // down) * down
    wanted_frames = frames // down * up
    spectrum = np.fft.rfft(samples, frames, axis=0)[: wanted_frames // 2 + 1]
    out = np.fft.irfft(spectrum, wanted_frames, axis=0) * (wanted_frames / frames)
    kept: Samples = out[: max(1, round(len(samples) * wanted / rate))].astype(np.float32)
    return kept
