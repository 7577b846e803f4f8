"""The few operations on samples that all sounds share: levels, cross-fades, limits."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float32]
"""Sound: shape (frames, channels), or (frames,) where a name says *mono*."""

LIMIT_FROM: Final = 0.8  # below this level the limiter leaves a sample as it is


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


def soft_limit(samples: Samples) -> Samples:
    """Bend what is above `LIMIT_FROM` so that nothing reaches 1; quieter samples stay as they are."""
    size = np.abs(samples)
    rest = 1.0 - LIMIT_FROM
    bent = np.sign(samples) * (LIMIT_FROM + rest * np.tanh((size - LIMIT_FROM) / rest))
    return np.where(size > LIMIT_FROM, bent, samples).astype(np.float32)


def crossfade(before: Samples, after: Samples) -> Samples:
    """Go in a straight line from *before* to *after*, equal in shape: never louder than the louder of the two."""
    frames = before.shape[0]
    rising = ((np.arange(frames, dtype=np.float32) + 0.5) / max(frames, 1))[:, None].astype(np.float32)
    mixed: Samples = before * (1.0 - rising) + after * rising
    return mixed


def fade_out(samples: Samples, frames: int) -> Samples:
    """Return *samples* whose last *frames* sink to exactly zero along half a cosine."""
    frames = min(frames, samples.shape[0])
    curve = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, frames))
    curve[-1:] = 0.0
    out = samples.copy()
    out[samples.shape[0] - frames :] *= curve[:, None].astype(np.float32)
    return out
