"""What tasks make of a source: one that goes on, by what was heard before the cut, or one that is played along with."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from audioext.sandbox.audio.codec import (
    STEREO,
    Clip,
    Samples,
    crossfade,
    fade_out,
    levels,
    rms,
    soft_limit,
    to_channels,
    to_mono,
)
from audioext.sandbox.audio.tune import VOICE_BEAT_SECONDS, VOICE_ROOT, chords, tune

JOINT_SECONDS: Final = 0.03  # what a cross-fade may touch of the source before the cut
LENGTHS_SECONDS: Final = (18.0, 28.0)  # the shortest and the longest continuation, unless its length is given
LEAST_GAIN_SECONDS: Final = 2.0  # the result is longer than the source by at least this
LISTEN_SECONDS: Final = 20.0
LEAST_LOOP_SECONDS: Final = 0.5  # a shorter loop is a buzz, so then a tune is played instead
LOOPS_SECONDS: Final = ((2.5, 4.5), (5.0, 9.0))  # the shortest and the longest loop of a variant
LOOP_GAIN: Final = 0.85
SILENT_BELOW: Final = 1e-5  # RMS, -100 dB: below the last of 16 bits
SWELL_SECONDS: Final = 1.5
LONGEST_FADE_SECONDS: Final = 7.0
FADE_SHARE: Final = 0.35
TUNE_LEVEL: Final = 0.08  # RMS, after silence
LOUDEST_TUNE_LEVEL: Final = 0.15


def extend(clip: Clip, continue_at: float | None, *, variant: int, seed: int, seconds: float | None = None) -> Clip:
    """Keep *clip* up to *continue_at* (seconds; None is its end) and continue it for *seconds*.

    All samples up to 30 ms before that point are the source's own, bit for bit. The continuation (18 to 28 seconds
    unless given, and always enough to outlast the source) is a loop of the loudest of what was heard just before the
    cut, or a tune where nothing was. The variants differ in the loop. It ends in a fade to silence, and never clips.
    """
    samples, rate, total = clip.samples, clip.rate, len(clip.samples)
    wished = total if continue_at is None or not math.isfinite(continue_at) else round(continue_at * rate)
    cut = min(max(wished, 1), total)
    dice = np.random.default_rng([abs(seed), seed < 0, abs(variant)])
    drawn, looped = dice.uniform(*LENGTHS_SECONDS), dice.uniform(*LOOPS_SECONDS[variant % 2])
    joint = min(round(JOINT_SECONDS * rate), cut // 2)
    wished = round((float(drawn) if seconds is None else seconds) * rate)
    frames = max(wished, total - cut + round(LEAST_GAIN_SECONDS * rate)) + joint

    kept = samples[:cut]
    heard = kept[-round(LISTEN_SECONDS * rate) :]
    room = (len(heard) - joint) * (4 - variant % 2) // 4  # of a short source the variants loop different shares
    body = _loop(heard, min(round(looped * rate), room), joint, frames, rate)
    if body is None:
        body = _tune(kept, frames, rate, 2 * seed + variant)
    body = soft_limit(fade_out(body, round(min(LONGEST_FADE_SECONDS * rate, FADE_SHARE * frames))))
    joined = crossfade(samples[cut - joint : cut], body[:joint])
    return Clip(np.concatenate([samples[: cut - joint], joined, body[joint:]]), rate)


def _loop(heard: Samples, period: int, joint: int, frames: int, rate: int) -> Samples | None:
    """Return *frames* of the loudest *period* frames, laid end to end and cross-faded; nothing where there is none."""
    if period < LEAST_LOOP_SECONDS * rate:
        return None
    mono = to_mono(heard)
    sums = np.cumsum(np.square(np.pad(mono - mono.mean(), (1, 0)), dtype=np.float64))
    energy = sums[period + joint :] - sums[: -period - joint]
    start = int(np.argmax(energy))
    if energy[start] < period * SILENT_BELOW**2:
        return None
    run = heard[start : start + joint + period]
    loop = run[joint:].copy()
    loop[len(loop) - joint :] = crossfade(run[len(run) - joint :], run[:joint])
    whole = np.concatenate([run[:joint], np.tile(loop, (-(-frames // period), 1))])[:frames]
    # It comes in at the level at which the source breaks off, which may be the end of a fade.
    span = round(0.3 * rate)
    return whole * _swell(min(rms(heard[-span:]) / rms(whole[: 4 * span]), 1.0), LOOP_GAIN, frames, rate)


def _tune(kept: Samples, frames: int, rate: int, seed: int) -> Samples:
    """Return a tune at the level of the source, where there is too little of it to repeat."""
    found = rms((kept - kept.mean(axis=0, dtype=np.float64)).astype(np.float32))
    wished = min(found, LOUDEST_TUNE_LEVEL) if found > SILENT_BELOW else TUNE_LEVEL
    played = to_channels(tune(seed=seed, seconds=frames / rate, rate=rate).samples, kept.shape[1])
    return played * _swell(0.0, wished / max(rms(played), SILENT_BELOW), frames, rate)


def _swell(first: float, last: float, frames: int, rate: int) -> Samples:
    """Return a gain over time, shape (frames, 1), which goes from *first* to *last* and stays there."""
    gain = np.interp(np.arange(frames), [0.0, SWELL_SECONDS * rate], [first, last])
    return gain.astype(np.float32)[:, None]


# --- an accompaniment ------------------------------------------------------------------------------------------------

SOURCE_GAIN: Final = 0.8  # makes room for the accompaniment
SHARE: Final = 0.6  # of the source's loudness, where it sounds
LEAST_SHARE: Final = 0.05  # in the source's pauses, of its loudest part
LEAST_LEVEL: Final = 0.004  # -48 dB RMS, so that even silence gets a result with sound in it
HOP_SECONDS: Final = 0.25
ENDING_SECONDS: Final = 0.5


def accompany(clip: Clip, *, variant: int, seed: int) -> Clip:
    """Mix *clip*, at `SOURCE_GAIN`, with a loop of chords as loud as it is; the result is stereo, as long and as fast.

    Key and tempo are those of `voice`. The variants differ in chords and pattern.
    """
    wheel = abs(seed) + variant
    loop = chords(VOICE_ROOT - 12, wheel, wheel, VOICE_BEAT_SECONDS, clip.rate)
    again = np.resize(loop, (len(clip.samples), STEREO))
    played: Samples = (again * _wished_level(clip) / rms(loop)).astype(np.float32)
    out = to_channels(clip.samples, STEREO) * np.float32(SOURCE_GAIN)
    return Clip(soft_limit(out + fade_out(played, round(ENDING_SECONDS * clip.rate))), clip.rate)


def _wished_level(clip: Clip) -> Samples:
    """Return how loud (RMS) the accompaniment is at each frame, shape (frames, 1)."""
    mono = to_mono(clip.samples)
    hop = max(1, round(HOP_SECONDS * clip.rate))
    level = levels(mono - mono.mean(), hop)
    # The mean of the blocks around each: it goes on through a breath, and rests in a long pause.
    around = np.convolve(np.pad(level, 2, "edge"), np.full(5, 0.2), mode="valid")
    wished = np.maximum(SHARE * around, max(LEAST_SHARE * float(level.max()), LEAST_LEVEL))
    places = np.arange(mono.shape[0]) / hop - 0.5
    return np.interp(places, np.arange(wished.shape[0]), wished).astype(np.float32)[:, None]
