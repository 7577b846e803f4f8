"""Turns the bytes of an audio file into samples and back, and the few operations that all sounds share."""

from __future__ import annotations

import io
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
from attrs import frozen

Samples: TypeAlias = npt.NDArray[np.float32]
"""Sound: shape (frames, channels), or (frames,) where a name says *mono*."""

FORMATS_READ: Final = "WAV, FLAC, OGG or MP3"
BLOCK_FRAMES: Final = 65_536  # one long MP3 write overflows LAME's stack buffers in some versions of libsndfile
LOWEST_RATE_HZ: Final = 4_000  # telephone speech is 8,000 Hz; below half of that nothing is music
HIGHEST_RATE_HZ: Final = 384_000  # the highest rate that sound cards record
MOST_CHANNELS: Final = 8  # 7.1 surround
MOST_SAMPLES: Final = 20 * 60 * 48_000 * 2  # 20 minutes of stereo, 460 MB: a small file can unpack to far more
STEREO: Final = 2
LEAST_SHARE_DECODED: Final = 0.9  # headers of whole files are often off by a frame, never by a tenth
STREAMED_SIZE: Final = 0x7FFF_0000  # ffmpeg and sox write sizes above this into a WAV whose end they do not know
RIFF_HEADER_BYTES: Final = 8
ID3_HEADER_BYTES: Final = 10
COUNT_WITHIN_BYTES: Final = 64  # an MP3's first frame holds its count 36 bytes from its start, or sooner
PCM_16_SCALE: Final = 32_768
MP3_RATES_HZ: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
WAV_MAGIC: Final = (b"RIFF", b"RIFX", b"RF64")
OTHER_MAGIC: Final = (b"fLaC", b"OggS", b"ID3")
MP3_SYNC: Final = 0xFFE0  # the eleven bits that open an MPEG audio frame


class AudioError(ValueError):
    """These bytes are not audio that the sandbox can use; send a whole WAV, FLAC, OGG or MP3 file."""


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
    """Decode a whole WAV, FLAC, OGG (Vorbis, Opus) or MP3 file; more than two channels are mixed to one.

    *most_samples* bounds what may come out, over both channels.

    Raises:
        AudioError: the bytes are empty, no audio, cut short, silent of frames, too long, or of an absurd rate.
    """
    if not data:
        raise AudioError(f"The file is empty; send {FORMATS_READ}.")
    if not data.startswith((*WAV_MAGIC, *OTHER_MAGIC)) and int.from_bytes(data[:2], "big") & MP3_SYNC != MP3_SYNC:
        # Only these reach libsndfile: its readers of two dozen rare formats are no place for strangers' bytes.
        raise AudioError(f"This is not an audio file that can be read here; send {FORMATS_READ}.")
    _refuse_cut_wav(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _refuse_absurd(file)
            rate, claimed = int(file.samplerate), int(file.frames)
            samples = _read_blocks(file, most_samples)
    except AudioError:
        raise
    except (soundfile.SoundFileError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
        message = f"The audio file is damaged or cut short and cannot be decoded; send a whole {FORMATS_READ} file."
        raise AudioError(message) from error
    if not len(samples):
        raise AudioError(f"The audio file holds no sound (0 frames); send a whole {FORMATS_READ} file.")
    if len(samples) < claimed * LEAST_SHARE_DECODED and _is_counted(data):
        raise _cut_short(len(samples), claimed)
    return Clip(samples, rate)


def encode(clip: Clip, kind: Literal["mp3", "wav"]) -> bytes:
    """Return the bytes of an MP3 (about 128 kbit/s) or of a WAV (16 bits, so 16-bit sources survive bit for bit).

    MP3 knows nine rates; a clip of another rate is resampled to the next higher one.
    """
    samples, rate = clip.samples, clip.rate
    if kind == "mp3" and rate not in MP3_RATES_HZ:
        wanted = next((known for known in MP3_RATES_HZ if known >= rate), MP3_RATES_HZ[-1])
        samples, rate = resample(samples, rate, wanted), wanted
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
    """Return *samples* of *rate* Hz at *wanted* Hz, by straight lines between the samples."""
    at = np.arange(max(1, round(len(samples) * wanted / rate))) * (rate / wanted)
    places = np.arange(len(samples))
    return np.stack([np.interp(at, places, channel) for channel in samples.T], axis=1).astype(np.float32)


def _to_pcm_16(block: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    scaled = np.rint(block * PCM_16_SCALE)
    return np.clip(scaled, -PCM_16_SCALE, PCM_16_SCALE - 1).astype(np.int16)


def _refuse_cut_wav(data: bytes) -> None:
    # libsndfile silently shortens a WAV to the bytes there are, so the header's own size is the only witness.
    if not data.startswith(b"RIFF"):
        return
    claimed = int.from_bytes(data[4:8], "little")
    if claimed < STREAMED_SIZE and len(data) < claimed * LEAST_SHARE_DECODED + RIFF_HEADER_BYTES:
        raise _cut_short(len(data), claimed + RIFF_HEADER_BYTES)


def _is_counted(data: bytes) -> bool:
    """Say whether the frames were counted when the file was made.

    An MP3 without such a count has its length guessed from its first frame, and a variable bit rate fools the guess.
    """
    if data.startswith(WAV_MAGIC) or not data.startswith((b"ID3", b"\xff")):
        return True
    first = 0
    if data.startswith(b"ID3"):  # an ID3v2 tag tells its size in four times seven bits
        first = ID3_HEADER_BYTES + sum(
            (byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False)
        )
    opening = data[first : first + COUNT_WITHIN_BYTES]
    return b"Xing" in opening or b"Info" in opening


def _cut_short(found: int, claimed: int) -> AudioError:
    percent = 100 * found // max(claimed, 1)
    return AudioError(f"The audio file is cut short: {percent} % of it is here; send a whole {FORMATS_READ} file.")


def _refuse_absurd(file: soundfile.SoundFile) -> None:
    if not LOWEST_RATE_HZ <= file.samplerate <= HIGHEST_RATE_HZ:
        bounds = f"{LOWEST_RATE_HZ:,} to {HIGHEST_RATE_HZ:,} Hz"
        raise AudioError(f"The audio file claims {file.samplerate:,} samples/s; send {FORMATS_READ} of {bounds}.")
    if not 1 <= file.channels <= MOST_CHANNELS:
        bounds = f"1 to {MOST_CHANNELS} channels"
        raise AudioError(f"The audio file claims {file.channels} channels; send {FORMATS_READ} of {bounds}.")


def _read_blocks(file: soundfile.SoundFile, most_samples: int) -> Samples:
    """Read until the end, whatever number of frames the header claims, and mend what is not a number."""
    blocks: list[Samples] = []
    room = most_samples
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        if block.shape[1] > STEREO:
            block = block.mean(axis=1, keepdims=True)
        room -= block.size
        if room < 0:
            minutes = most_samples / (STEREO * 48_000 * 60)
            raise AudioError(f"The audio file is longer than {minutes:g} minutes of stereo sound.")
        # A float file may hold infinities and peaks above 1; a lossy one overshoots.
        blocks.append(np.clip(np.nan_to_num(block, posinf=1.0, neginf=-1.0), -1.0, 1.0, dtype=np.float32))
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)


# --- levels, cross-fades, limits -------------------------------------------------------------------------------------

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
    """Go along half a cosine from *before* to *after*, equal in shape: never louder than the louder of the two."""
    places = (np.arange(len(before)) + 0.5) / max(len(before), 1)
    rising = (0.5 - 0.5 * np.cos(np.pi * places))[:, None]
    return (before * (1.0 - rising) + after * rising).astype(np.float32)


def fade_out(samples: Samples, frames: int) -> Samples:
    """Return *samples* whose last *frames* sink to exactly zero along half a cosine."""
    frames = min(frames, samples.shape[0])
    curve = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, frames))
    curve[-1:] = 0.0
    out = samples.copy()
    out[samples.shape[0] - frames :] *= curve[:, None].astype(np.float32)
    return out
