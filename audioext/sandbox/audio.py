"""Real audio for the sandbox: reads and writes files, makes music, extends a source and accompanies it."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
from attrs import frozen

Samples: TypeAlias = npt.NDArray[np.float32]
"""Sound: shape (frames, channels)."""

FORMATS_READ: Final = "WAV, FLAC, OGG or MP3"
MAGIC: Final = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"ID3")
MP3_SYNC: Final = 0xFFE0  # the eleven bits that open an MPEG audio frame
MP3_RATES_HZ: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
BLOCK_FRAMES: Final = 65_536  # one long MP3 write overflows LAME's stack buffers in some versions of libsndfile
RATES_HZ: Final = (4_000, 384_000)  # half of telephone speech, and the highest that sound cards record
MOST_CHANNELS: Final = 8  # 7.1 surround
MOST_SAMPLES: Final = 20 * 60 * 48_000 * 2  # 20 minutes of stereo, 460 MB: a small file can unpack to far more
STEREO: Final = 2
PCM_16_SCALE: Final = 32_768

LEVEL: Final = 0.5  # of a finished piece's peaks, which leaves headroom for later additions
JOINT_SECONDS: Final = 0.03  # how much of the source before the cut a cross-fade may change
LISTEN_SECONDS: Final = 20.0
LOOPS_SECONDS: Final = ((2.5, 4.5), (5.0, 9.0))  # the shortest and the longest loop of a variant
LEAST_LOOP_SECONDS: Final = 0.5  # a shorter loop sounds like a buzz, so a tune is played instead
LOOP_GAIN: Final = 0.85
TUNE_GAIN: Final = 0.5
SILENT_BELOW: Final = 1e-5  # RMS, -100 dB: below the last of 16 bits
LONGEST_FADE_SECONDS: Final = 7.0
FADE_SHARE: Final = 0.35
SOURCE_GAIN: Final = 0.6  # makes room for the accompaniment
PLAYED_GAINS: Final = (0.05, (1 - SOURCE_GAIN) / LEVEL)  # audible even beside silence, and without clipping

RATE_HZ: Final = 22_050  # no tone here is above half of it, and an MP3 of 44,100 Hz takes twice as long
A4_HZ: Final = 440.0
A4_PITCH: Final = 69  # pitches are MIDI numbers: 12 to the octave
MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)  # semitones above the root
PENTATONIC: Final = (0, 2, 4, 7, 9)  # any two of these five sound good together
VOICE_BEAT_SECONDS: Final = 0.625  # the voice and its accompaniment: 96 beats a minute in C major
VOICE_ROOT: Final = 60  # C4
BEATS_IN_BAR: Final = 4
LOOP_BEATS: Final = 16
MELODY_BEATS: Final = 32
PHRASE_BEATS: Final = (6, 8)  # the sung part, and the same with the breath after it
PLUCKED: Final = (1.0, 0.4, 0.15, 0.06, 0.03)  # the strengths of a tone's partials, from the fundamental up
FLUTE: Final = (1.0, 0.3, 0.14, 0.05)
SUNG: Final = (0.7, 0.8, 1.0, 0.7, 0.45, 0.2, 0.12, 0.1)  # an alto's notes on "ah"
TURNS: Final = ((0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 3, 5, 4))  # degrees of the scale, one a bar
PATTERNS: Final = ((0, 1, 2, 3, 4, 3, 2, 1), (0, 2, 1, 2, 4, 2, 3, 2), (4, 3, 2, 1, 0, 1, 2, 3))
"""The plucked notes of a bar: at each eighth a tone of the chord, counted up from its root."""
RHYTHMS: Final = ((0.0, 1.0, 2.0, 3.5), (0.0, 1.5, 2.0, 3.0))  # the beats of the notes in even and in odd bars


# --- files -----------------------------------------------------------------------------------------------------------


class AudioError(ValueError):
    """These bytes are not audio that the sandbox can use; send a whole WAV, FLAC, OGG or MP3 file."""

    def __init__(self, problem: str) -> None:
        """Build the message from what is wrong with the file."""
        super().__init__(f"The audio file {problem}; send a whole {FORMATS_READ} file.")


@frozen(eq=False)
class Clip:
    """Sound in memory: `samples` is float32 of shape (frames, 1 or 2) within -1..1, `rate` is in Hz."""

    samples: Samples
    rate: int

    @property
    def duration(self) -> float:
        """Return the length in seconds."""
        return len(self.samples) / self.rate


def load(data: bytes, *, most_samples: int = MOST_SAMPLES) -> Clip:
    """Decode a WAV, FLAC, OGG (Vorbis, Opus) or MP3 file; more than two channels are mixed to one.

    *most_samples* bounds the decoded samples, over both channels.

    Raises:
        AudioError: the bytes are empty, no audio, damaged, without frames, too long, or of an absurd rate.
    """
    if not data:
        raise AudioError("is empty")
    if not data.startswith(MAGIC) and int.from_bytes(data[:2], "big") & MP3_SYNC != MP3_SYNC:
        # libsndfile gets only these: its readers for two dozen rare formats are too risky for untrusted bytes.
        raise AudioError("is of no kind that can be read here")
    try:
        with _ForwardFile(io.BytesIO(data)) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            if not (RATES_HZ[0] <= rate <= RATES_HZ[1] and 1 <= channels <= MOST_CHANNELS):
                raise AudioError(f"claims {channels} channels at {rate:,} Hz")
            samples = _read_blocks(file, most_samples)
    except AudioError:
        raise
    except (soundfile.SoundFileError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise AudioError("is damaged or cut short and cannot be decoded") from error
    if not len(samples):
        raise AudioError("holds no sound (0 frames)")
    return Clip(samples, rate)


def encode(clip: Clip, kind: Literal["mp3", "wav"]) -> bytes:
    """Return the bytes of an MP3 (about 128 kbit/s) or of a WAV (16 bits, so 16-bit sources survive bit for bit).

    MP3 has nine rates; a clip of another rate is resampled to the next higher one.
    """
    samples, rate = clip.samples, clip.rate
    if kind == "mp3" and rate not in MP3_RATES_HZ:
        rate = next((known for known in MP3_RATES_HZ if known >= rate), MP3_RATES_HZ[-1])
        samples = resample(samples, clip.rate, rate)
    buffer = io.BytesIO()
    subtype = "MPEG_LAYER_III" if kind == "mp3" else "PCM_16"
    with soundfile.SoundFile(
        buffer, "w", samplerate=rate, channels=samples.shape[1], format=kind.upper(), subtype=subtype
    ) as file:
        for start in range(0, samples.shape[0], BLOCK_FRAMES):
            block = samples[start : start + BLOCK_FRAMES]
            # libsndfile reads 16 bits as x / 32768 and writes x * 32767: doing it here keeps sources exact.
            file.write(block if kind == "mp3" else _to_pcm_16(block))
    return buffer.getvalue()


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Resample from *rate* Hz to *wanted* Hz, by linear interpolation."""
    at = np.arange(max(1, round(len(samples) * wanted / rate))) * (rate / wanted)
    places = np.arange(len(samples))
    return np.stack([np.interp(at, places, channel) for channel in samples.T], axis=1).astype(np.float32)


def _to_pcm_16(block: Samples) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(block * PCM_16_SCALE), -PCM_16_SCALE, PCM_16_SCALE - 1).astype(np.int16)


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile ships no types
    """A file that is read once, from its start to its end.

    soundfile seeks after every read of a file that it holds to be seekable. An MP3's next frame then lacks the bits
    that earlier frames kept for it: it is lost, and libmpg123 prints an error to stderr.
    """

    def seekable(self) -> bool:
        return False


def _read_blocks(file: soundfile.SoundFile, most_samples: int) -> Samples:
    """Read to the end, whatever number of frames the header claims; replace NaN, clip to -1..1."""
    blocks: list[Samples] = []
    room = most_samples
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        if block.shape[1] > STEREO:
            block = block.mean(axis=1, keepdims=True)
        room -= block.size
        if room < 0:
            raise AudioError(f"is longer than {most_samples / (STEREO * 48_000 * 60):g} minutes of stereo sound")
        # A float file may hold infinities and peaks above 1; a lossy one overshoots.
        blocks.append(np.clip(np.nan_to_num(block, posinf=1.0, neginf=-1.0), -1.0, 1.0, dtype=np.float32))
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)


# --- music from nothing ----------------------------------------------------------------------------------------------


def tune(*, seed: int, seconds: float = 20.0, rate: int = RATE_HZ) -> Clip:
    """Return a piece in stereo: plucked chords with a melody over them; the seed determines all of it."""
    dice = np.random.default_rng([abs(seed), 1])
    root, turn, pattern = (int(drawn) for drawn in dice.integers((52, 0, 0), (64, len(TURNS), len(PATTERNS))))
    beat = float(dice.uniform(0.5, 0.75))
    piece = np.tile(_chords(root, turn, pattern, beat, rate), (2, 1))
    for start, beats, pitch in _melody(dice, root + 12):
        _add(piece, 0.5 * _tone(pitch, beats * beat, rate, FLUTE, attack=0.03), start * beat * rate)
    return _finish(piece, seconds, rate)


def voice(*, seed: int, seconds: float = 10.0, rate: int = RATE_HZ) -> Clip:
    """Return a sung line in mono, without words, in phrases with breaths; the seed determines the melody."""
    dice = np.random.default_rng([abs(seed), 2])
    line = np.zeros((round(MELODY_BEATS * VOICE_BEAT_SECONDS * rate), 1), np.float32)
    sung, phrase = PHRASE_BEATS
    for start, beats, pitch in _melody(dice, VOICE_ROOT):
        left = sung - start % phrase
        if left > 0:
            note = _tone(pitch, min(beats, left) * VOICE_BEAT_SECONDS, rate, SUNG, attack=0.06)
            _add(line, note, start * VOICE_BEAT_SECONDS * rate)
    return _finish(line, seconds, rate)


@lru_cache(maxsize=4)
def _chords(root: int, turn: int, pattern: int, beat: float, rate: int) -> Samples:
    """Return a seamless loop of four chords in stereo; *beat* is in seconds."""
    loop = np.zeros((round(LOOP_BEATS * beat * rate), STEREO), np.float32)
    for bar, degree in enumerate(TURNS[turn % len(TURNS)]):
        steps = [divmod(degree + third, len(MAJOR)) for third in (0, 2, 4, 7, 9)]
        chord = [root + MAJOR[step] + 12 * octave for octave, step in steps]
        start = bar * BEATS_IN_BAR
        _add(loop, _tone(chord[0] - 24, BEATS_IN_BAR * beat, rate, PLUCKED, ring=1.5), start * beat * rate)
        for eighth, index in enumerate(PATTERNS[pattern % len(PATTERNS)]):
            pluck = 0.6 * _tone(chord[index], 1.2, rate, PLUCKED, ring=0.45)
            _add(loop, pluck, (start + eighth / 2) * beat * rate, left=0.3 + 0.1 * index)
    loop *= np.float32(LEVEL / np.abs(loop).max())
    loop.flags.writeable = False  # the cache shares it
    return loop


@lru_cache(maxsize=32)
def _tone(  # noqa: PLR0913 - one keyword for each property of a tone
    pitch: int, seconds: float, rate: int, partials: tuple[float, ...], *, attack: float = 0.006, ring: float = math.inf
) -> Samples:
    """Return a tone, shape (frames, 1), with an attack of *attack* and a decay constant of *ring* seconds."""
    time = np.arange(max(1, round(seconds * rate))) / rate
    hertz = A4_HZ * math.exp2((pitch - A4_PITCH) / 12)
    phase = (2 * np.pi * (hertz * time % 1.0)).astype(np.float32)
    heard = partials[: max(1, int(0.45 * rate / hertz))]  # only partials well below half of the rate, against aliasing
    sound = sum(weight * np.sin(number * phase) for number, weight in enumerate(heard, start=1))
    ends = np.minimum(time / attack, np.clip((seconds - time) / max(attack, 0.03), 0.0, 1.0))
    shaped: Samples = (sound * np.minimum(ends, 1.0) * np.exp(-time / ring) / sum(partials)).astype(np.float32)
    return shaped[:, None]


def _melody(dice: np.random.Generator, root: int) -> list[tuple[float, float, int]]:
    """Return a random walk on a pentatonic scale, as notes (start beat, beats, pitch); bars alternate two rhythms."""
    ladder = [root + 12 * octave + step for octave in (-1, 0, 1) for step in PENTATONIC][3:-3]
    starts = [BEATS_IN_BAR * bar + beat for bar in range(MELODY_BEATS // BEATS_IN_BAR) for beat in RHYTHMS[bar % 2]]
    at, notes = len(ladder) // 2, list[tuple[float, float, int]]()
    for start, end in zip(starts, [*starts[1:], float(MELODY_BEATS)], strict=True):
        at = min(max(at + int(dice.choice((-2, -1, -1, 1, 1, 2))), 0), len(ladder) - 1)
        notes.append((start, end - start, ladder[at]))
    return notes


def _add(loop: Samples, sound: Samples, start: float, *, left: float = 0.5) -> None:
    """Mix a tone into a loop in place, from frame *start*; its tail wraps around to the start of the loop."""
    sides = np.array([left, 1.0 - left][: loop.shape[1]], np.float32)
    loop[(round(start) + np.arange(len(sound))) % len(loop)] += sound * sides


def _finish(loop: Samples, seconds: float, rate: int) -> Clip:
    """Repeat a loop for *seconds*, with peaks at `LEVEL` and a short fade-out against a click."""
    frames = max(1, round(seconds * rate))
    loud = loop * np.float32(LEVEL / np.abs(loop).max())
    return Clip(_fade_out(np.tile(loud, (-(-frames // len(loop)), 1))[:frames], round(0.05 * rate)), rate)


# --- music from a source ---------------------------------------------------------------------------------------------


def extend(clip: Clip, continue_at: float, *, seconds: float, variant: int, seed: int) -> Clip:
    """Keep *clip* up to *continue_at* (seconds, within it) and continue it for *seconds*.

    All samples up to 30 ms before that point are the source's own, bit for bit. The continuation is a loop of the
    loudest part just before the cut, or a tune if that is silent or too short. The variants differ in the loop. It ends
    in a fade to silence, and never clips.
    """
    samples, rate = clip.samples, clip.rate
    cut = min(max(round(continue_at * rate), 1), len(samples))
    joint = min(round(JOINT_SECONDS * rate), cut // 2)
    frames = round(seconds * rate) + joint
    heard = samples[:cut][-round(LISTEN_SECONDS * rate) :]
    looped = np.random.default_rng([abs(seed), abs(variant)]).uniform(*LOOPS_SECONDS[variant % 2])
    room = (len(heard) - joint) * (4 - variant % 2) // 4  # with a short source, the variants loop different shares
    body = _loop(heard, min(round(looped * rate), room), joint, frames, rate)
    if body is None:
        played = tune(seed=2 * seed + variant, seconds=frames / rate, rate=rate).samples
        body = TUNE_GAIN * _to_channels(played, samples.shape[1])
    body = _fade_out(body, round(min(LONGEST_FADE_SECONDS * rate, FADE_SHARE * frames)))
    joined = _crossfade(samples[cut - joint : cut], body[:joint])
    return Clip(np.concatenate([samples[: cut - joint], joined, body[joint:]]), rate)


def accompany(clip: Clip, *, variant: int, seed: int) -> Clip:
    """Mix *clip*, at `SOURCE_GAIN`, with a loop of chords about as loud; the result is stereo, of the same length.

    Key and tempo are those of `voice`. The variants differ in chords and pattern.
    """
    wheel = abs(seed) + variant
    loop = _chords(VOICE_ROOT - 12, wheel, wheel, VOICE_BEAT_SECONDS, clip.rate)
    gain = np.clip(SOURCE_GAIN * _rms(clip.samples) / _rms(loop), *PLAYED_GAINS).astype(np.float32)
    played = _fade_out(gain * np.resize(loop, (len(clip.samples), STEREO)), round(0.5 * clip.rate))
    return Clip(_to_channels(clip.samples, STEREO) * np.float32(SOURCE_GAIN) + played, clip.rate)


def _loop(heard: Samples, period: int, joint: int, frames: int, rate: int) -> Samples | None:
    """Return *frames* of the loudest *period* frames, looped with cross-fades; None if too short or silent."""
    if period < LEAST_LOOP_SECONDS * rate:
        return None
    mono = heard.mean(axis=1, dtype=np.float64)
    sums = np.cumsum(np.square(np.pad(mono - mono.mean(), (1, 0))))
    energy = sums[period + joint :] - sums[: -period - joint]
    start = int(np.argmax(energy))
    if energy[start] < period * SILENT_BELOW**2:
        return None
    run = heard[start : start + joint + period] * np.float32(LOOP_GAIN)
    loop = run[joint:].copy()
    loop[len(loop) - joint :] = _crossfade(run[len(run) - joint :], run[:joint])
    return np.concatenate([run[:joint], np.tile(loop, (-(-frames // period), 1))])[:frames]


def _to_channels(samples: Samples, channels: int) -> Samples:
    if samples.shape[1] == channels:
        return samples
    return np.repeat(samples.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples), dtype=np.float64)))


def _crossfade(before: Samples, after: Samples) -> Samples:
    """Cross-fade along half a cosine from *before* to *after*, of equal shape; never louder than the louder one."""
    places = (np.arange(len(before)) + 0.5) / max(len(before), 1)
    rising = (0.5 - 0.5 * np.cos(np.pi * places)).astype(np.float32)[:, None]
    return (before * (1 - rising) + after * rising).astype(np.float32)


def _fade_out(samples: Samples, frames: int) -> Samples:
    """Return *samples* with the last *frames* faded to exactly zero along half a cosine."""
    frames = min(frames, len(samples))
    curve = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, frames))
    out = samples.copy()
    out[len(out) - frames :] *= curve.astype(np.float32)[:, None]
    return out
