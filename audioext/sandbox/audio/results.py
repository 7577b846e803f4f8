"""What tasks make of a source: one that goes on, by what was heard before the cut, or one that is played along with."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from attrs import frozen

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
SHORTEST_SECONDS: Final = 18.0
LONGEST_SECONDS: Final = 28.0
LEAST_GAIN_SECONDS: Final = 2.0  # the result is longer than the source by at least this
LEAST_LOOP_SECONDS: Final = 0.5  # a shorter loop is a buzz, so then a tune is played instead
PERIODS_SECONDS: Final = ((2.5, 9.0), (5.0, 16.0))  # the shortest and longest loop of a variant
MATCH_SECONDS: Final = 0.6  # of the end, which a loop's end has to sound like
LISTEN_SECONDS: Final = 20.0
LEVEL_SECONDS: Final = 0.05
FADED_BELOW: Final = 0.5  # of the usual level: a tail below it is an ending, and no material for a loop
SHORTEST_ENDING_SECONDS: Final = 0.75
SILENT_BELOW: Final = 1e-5  # RMS, -100 dB: below the last of 16 bits
SWELL_SECONDS: Final = 1.5
LONGEST_FADE_SECONDS: Final = 7.0
FADE_SHARE: Final = 0.35
LOOP_GAIN: Final = 0.85
OCTAVE_GAIN: Final = 0.55  # against the loop's
TUNE_LEVEL: Final = 0.08  # RMS, after silence
LOUDEST_TUNE_LEVEL: Final = 0.15


@frozen(eq=False)
class _Continuation:
    """What is to be made: a continuation of `kept` whose first `joint` frames lie under the end of it."""

    kept: Samples
    rate: int
    frames: int
    joint: int
    variant: int
    seed: int


def extend(clip: Clip, continue_at: float | None, *, variant: int, seed: int, seconds: float | None = None) -> Clip:
    """Keep *clip* up to *continue_at* (seconds; None is its end) and continue it for *seconds*.

    All samples up to 30 ms before that point are the source's own, bit for bit. The continuation (18 to 28 seconds
    unless given, and always enough to outlast the source) repeats the part before the cut after which the music sounds
    most as it did at the cut; the variants differ in that part and the octave beside it. It ends in a fade to silence,
    and never clips.
    """
    samples, rate = clip.samples, clip.rate
    total = samples.shape[0]
    wished = total if continue_at is None or not math.isfinite(continue_at) else round(continue_at * rate)
    cut = min(max(wished, 1), total)
    if seconds is None:
        lengths = np.random.default_rng([abs(seed), seed < 0, abs(variant)])
        seconds = float(lengths.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
    joint = min(round(JOINT_SECONDS * rate), cut // 2)
    frames = max(round(seconds * rate), total - cut + round(LEAST_GAIN_SECONDS * rate)) + joint
    plan = _Continuation(samples[:cut], rate, frames, joint, variant, seed)

    body = _continuation(plan)
    body = soft_limit(fade_out(body, round(min(LONGEST_FADE_SECONDS * rate, FADE_SHARE * frames))))
    joined = crossfade(samples[cut - joint : cut], body[:joint])
    return Clip(np.concatenate([samples[: cut - joint], joined, body[joint:]]), rate)


def _continuation(plan: _Continuation) -> Samples:
    rate = plan.rate
    mono = to_mono(plan.kept[-round(2 * LISTEN_SECONDS * rate) :])
    end = _music_end((mono - mono.mean(dtype=np.float64)).astype(np.float32), rate)
    if end < LEAST_LOOP_SECONDS * rate:
        return _tune_instead(plan)
    period = _period(mono[:end], rate, plan.variant)
    end += plan.kept.shape[0] - mono.shape[0]
    first = end - period - plan.joint
    run = plan.kept[max(first, 0) : end]
    # Rounding may ask for a frame before the first.
    run = np.pad(run, ((max(-first, 0), 0), (0, 0)), "edge")
    up, turned = plan.variant % 2 == 0, (plan.seed + plan.variant) % 3
    body = _repeat(run, plan)
    octave = _repeat(_octave(run, up=up), plan, scale=0.5 if up else 2.0)
    # The octave comes in over the first time that the loop is heard again.
    entry = np.clip((np.arange(plan.frames) - plan.joint) / (period * (1.0 + 0.25 * turned)), 0.0, 1.0)
    body += octave * (OCTAVE_GAIN * entry[:, None]).astype(np.float32)
    return body * _gain(plan, body)


def _music_end(mono: Samples, rate: int) -> int:
    """Return the frame where the music ends: before a fade-out or a silence, else the end; 0 for silence."""
    level = levels(mono, max(1, round(LEVEL_SECONDS * rate)))
    usual = float(np.quantile(level, 0.8))
    if usual < SILENT_BELOW:
        return 0
    width = min(level.shape[0], round(1.0 / LEVEL_SECONDS))
    # The mean of the second up to each block: a short pause does not count as an ending.
    sums = np.cumsum(np.concatenate([np.full(width, level[0]), level]))
    sounding = np.flatnonzero((sums[width:] - sums[:-width]) / width >= FADED_BELOW * usual)
    end = int(sounding[-1] + 1) * max(1, round(LEVEL_SECONDS * rate)) if sounding.size else mono.shape[0]
    return mono.shape[0] if mono.shape[0] - end < SHORTEST_ENDING_SECONDS * rate else end


def _period(mono: Samples, rate: int, variant: int) -> int:
    """Return the frames after which the end of the sound is most like itself."""
    least, most = PERIODS_SECONDS[variant % len(PERIODS_SECONDS)]
    shortest, longest = round(least * rate), round(most * rate)
    window = min(round(MATCH_SECONDS * rate), len(mono) // 4)
    longest = min(longest, len(mono) - window)
    if longest <= shortest:
        # Too short to choose from: all of it, or for another variant three quarters.
        return len(mono) - window * (variant % 2)
    pattern = mono[-window:]
    past = mono[len(mono) - window - longest : len(mono) - shortest]
    size = 1 << (past.shape[0] + window).bit_length()
    product = np.fft.irfft(np.fft.rfft(past, size) * np.conj(np.fft.rfft(pattern, size)), size)
    sums = np.cumsum(np.concatenate([[0.0], np.square(past, dtype=np.float64)]))
    energy = sums[window:] - sums[:-window]
    likeness = product[: energy.shape[0]] / np.sqrt(energy + 1e-3 * float(energy.max()) + 1e-12)
    return longest - int(np.argmax(likeness))


def _repeat(run: Samples, plan: _Continuation, *, scale: float = 1.0) -> Samples:
    """Lay a run end to end, each time cross-faded with the one before; *scale* is its share of a whole joint."""
    joint = round(plan.joint * scale)
    period = run[joint:].copy()
    if joint:
        period[-joint:] = crossfade(run[-joint:], run[:joint])
    whole = np.concatenate([run[:joint], np.tile(period, (-(-plan.frames // len(period)), 1))])
    return whole[: plan.frames]


def _octave(run: Samples, *, up: bool) -> Samples:
    """Return a run an octave higher, in half the time, or an octave lower, in twice the time."""
    if up:
        whole = run.shape[0] // 2 * 2
        pairs: Samples = run[:whole].reshape(-1, 2, run.shape[1]).mean(axis=1, dtype=np.float32)
        return pairs
    between: Samples = np.concatenate([(run[:-1] + run[1:]) * np.float32(0.5), run[-1:]])
    woven: Samples = np.stack([run, between], axis=1).reshape(-1, run.shape[1])
    return woven


def _gain(plan: _Continuation, body: Samples) -> Samples:
    """Return the gain over time: from the level at which the source breaks off to the usual one."""
    span = round(0.3 * plan.rate)
    before, after = rms(plan.kept[-span:]), rms(body[: 4 * span])
    # No music jumps out of a silence.
    share = min(before / after, 1.0) if after > SILENT_BELOW else 1.0
    first = 1.0 if share >= FADED_BELOW else max(share, 0.05)
    gain = np.full(plan.frames, LOOP_GAIN, np.float32)
    swell = min(plan.frames, round(SWELL_SECONDS * plan.rate))
    gain[:swell] = np.linspace(first, LOOP_GAIN, swell, dtype=np.float32)
    return gain[:, None]


def _tune_instead(plan: _Continuation) -> Samples:
    """Return a tune at the level of the source, where there is too little of it to repeat."""
    found = rms((plan.kept - plan.kept.mean(axis=0, dtype=np.float64)).astype(np.float32))
    wished = min(found, LOUDEST_TUNE_LEVEL) if found > SILENT_BELOW else TUNE_LEVEL
    played = tune(seed=2 * plan.seed + plan.variant, seconds=plan.frames / plan.rate, rate=plan.rate).samples
    rising = np.clip(np.arange(plan.frames) / (SWELL_SECONDS * plan.rate), 0.0, 1.0).astype(np.float32)[:, None]
    return to_channels(played, plan.kept.shape[1]) * rising * np.float32(wished / max(rms(played), SILENT_BELOW))


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
