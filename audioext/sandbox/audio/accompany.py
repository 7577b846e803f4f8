"""Plays along with a source, in a fixed key and tempo, as loud as the source is."""

from __future__ import annotations

from typing import Final

import numpy as np

from audioext.sandbox.audio.codec import STEREO, Clip
from audioext.sandbox.audio.samples import Samples, fade_out, levels, rms, soft_limit, to_channels, to_mono
from audioext.sandbox.audio.tune import VOICE_BEAT_SECONDS, VOICE_ROOT, chords

SOURCE_GAIN: Final = 0.8  # makes room for the accompaniment
SHARE: Final = 0.6  # of the source's loudness, where it sounds
LEAST_SHARE: Final = 0.05  # in the source's pauses, of its loudest part
LEAST_LEVEL: Final = 0.004  # -48 dB RMS, so that even silence gets a result with sound in it
HOP_SECONDS: Final = 0.25
FADE_SECONDS: Final = 0.5


def accompany(clip: Clip, *, variant: int, seed: int) -> Clip:
    """Mix *clip*, at `SOURCE_GAIN`, with a loop of chords; the result is stereo, of the same length and rate.

    Key and tempo are those of `voice`. The variants differ in chords and pattern.
    """
    wheel = abs(seed) + variant
    loop = chords(VOICE_ROOT - 12, wheel, wheel, VOICE_BEAT_SECONDS, clip.rate)
    again = np.resize(loop, (len(clip.samples), STEREO))
    played: Samples = (again * _gain(clip) / rms(loop)).astype(np.float32)
    out = to_channels(clip.samples, STEREO) * np.float32(SOURCE_GAIN)
    return Clip(soft_limit(out + fade_out(played, round(FADE_SECONDS * clip.rate))), clip.rate)


def _gain(clip: Clip) -> Samples:
    """Return how loud (RMS) the accompaniment is at each frame, shape (frames, 1)."""
    mono = to_mono(clip.samples)
    hop = max(1, round(HOP_SECONDS * clip.rate))
    level = levels(mono - mono.mean(), hop)
    # The mean of the blocks around each: it goes on through a breath, and rests in a long pause.
    around = np.convolve(np.pad(level, 2, "edge"), np.full(5, 0.2), mode="valid")
    wished = np.maximum(SHARE * around, max(LEAST_SHARE * float(level.max()), LEAST_LEVEL))
    places = np.arange(mono.shape[0]) / hop - 0.5
    return np.interp(places, np.arange(wished.shape[0]), wished).astype(np.float32)[:, None]
