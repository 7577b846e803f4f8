"""Plays along with a source: a band in its key and tempo that is loud where the source is loud."""

from __future__ import annotations

from typing import Final

import numpy as np
from attrs import evolve, frozen

from audioext.sandbox._band import ARPEGGIO, BALLAD, BOSSA, DREAM, Band, Style
from audioext.sandbox._codec import STEREO, Clip
from audioext.sandbox._dsp import Samples, add_at, follow, levels, soft_limit, to_channels, to_mono
from audioext.sandbox._hear import Heard, Reals, hear

SOURCE_GAIN: Final = 0.8  # makes room for the band
LEVEL_HOPS_PER_SECOND: Final = 50
SLOW_ATTACK_SECONDS: Final = 0.15
SLOW_RELEASE_SECONDS: Final = 0.9  # the band plays on through a breath, and rests in a long pause
FAST_ATTACK_SECONDS: Final = 0.02
FAST_RELEASE_SECONDS: Final = 0.15
DUCK: Final = 0.3  # share of its loudness that the band gives way by under the source
RHYTHM_LEVEL: Final = 0.55  # against the source's
PAD_LEVEL: Final = 0.28
PAD_FLOOR: Final = 0.05  # of the source's peak level: what is left in a long silence
LEAST_PAD: Final = 0.004  # -48 dB, so that even silence gets a result with sound in it
BAR_LEVEL: Final = 0.1  # the RMS at which `Band.bar` plays
BARS_IN_SECTION: Final = 8
END_FADE_SECONDS: Final = 0.6
RHYTHMS: Final = (BALLAD, ARPEGGIO, BOSSA, DREAM)
PAD: Final = Style(pad=1.0)


@frozen(eq=False)
class _Gains:
    """How loud pad and rhythm are over time, at `LEVEL_HOPS_PER_SECOND`."""

    pad: Reals
    rhythm: Reals
    hop: int
    """Frames between two values."""

    def over(self, values: Reals, start: int, frames: int) -> Samples:
        """Return one of the curves for every frame of a span, shape (frames, 1)."""
        places = (start + np.arange(frames)) / self.hop
        return np.interp(places, np.arange(values.shape[0]), values).astype(np.float32)[:, None]


def accompany(clip: Clip, *, take: int, seed: int) -> Clip:
    """Mix *clip*, at `SOURCE_GAIN`, with a band; the result is stereo, of the same length and rate.

    Key, chords and beat are the source's own where they can be heard. Each take is played in another style.
    """
    mono = to_mono(clip.samples)
    mono = mono - mono.mean()
    heard = hear(mono, clip.rate)
    rng = np.random.default_rng([abs(seed), seed < 0, 4])
    # The seed turns the wheel of styles and the take steps on it: two takes never share one.
    first = int(rng.integers(len(RHYTHMS))) + take
    rhythms = tuple(evolve(RHYTHMS[(first + step) % len(RHYTHMS)], pad=0.0) for step in (0, 2))
    out = to_channels(clip.samples, STEREO) * np.float32(SOURCE_GAIN)
    _play_along(out, Band(clip.rate, heard.beat, abs(seed) % 1_000), heard, _gains(mono, clip.rate), rhythms)
    return Clip(soft_limit(out), clip.rate)


def _gains(mono: Samples, rate: int) -> _Gains:
    hop = max(1, rate // LEVEL_HOPS_PER_SECOND)
    level = levels(mono, hop)
    step = hop / rate
    slow = follow(level, attack=SLOW_ATTACK_SECONDS, release=SLOW_RELEASE_SECONDS, hop_seconds=step)
    fast = follow(level, attack=FAST_ATTACK_SECONDS, release=FAST_RELEASE_SECONDS, hop_seconds=step)
    duck = 1.0 - DUCK * np.clip(fast / np.maximum(slow, 1e-6), 0.0, 1.0)
    floor = max(PAD_FLOOR * float(slow.max()), LEAST_PAD)
    end = np.clip((level.shape[0] - 1 - np.arange(level.shape[0])) * step / END_FADE_SECONDS, 0.0, 1.0)
    return _Gains(
        pad=np.maximum(PAD_LEVEL * slow * duck, floor) * end / BAR_LEVEL,
        rhythm=RHYTHM_LEVEL * slow * duck * end / BAR_LEVEL,
        hop=hop,
    )


def _play_along(out: Samples, band: Band, heard: Heard, gains: _Gains, rhythms: tuple[Style, ...]) -> None:
    """Mix the band into *out* in place, bar by bar: no second buffer as long as the song is needed."""
    downbeat = heard.downbeat(heard.beat)
    start = downbeat - band.bar_seconds if downbeat > 0.0 else 0.0
    index = 0
    while start * band.rate < out.shape[0]:
        chord = heard.chord(max(start, 0.0), start + band.bar_seconds)
        rhythm = rhythms[index // BARS_IN_SECTION % len(rhythms)]
        at = round(start * band.rate)
        for style, curve in ((PAD, gains.pad), (rhythm, gains.rhythm)):
            piece = band.bar(chord, style)
            add_at(out, piece * gains.over(curve, at, piece.shape[0]), at)
        start += band.bar_seconds
        index += 1
