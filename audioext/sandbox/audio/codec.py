"""Turns the bytes of an audio file into samples and back."""

from __future__ import annotations

import io
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


class AudioError(ValueError):
    """These bytes are not audio that the sandbox can use; send a whole WAV, FLAC, OGG or MP3 file."""

    def __init__(self, problem: str) -> None:
        """Say what is wrong with the file, and what to send instead."""
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

    *most_samples* bounds what may come out, over both channels.

    Raises:
        AudioError: the bytes are empty, no audio, damaged, silent of frames, too long, or of an absurd rate.
    """
    if not data:
        raise AudioError("is empty")
    if not data.startswith(MAGIC) and int.from_bytes(data[:2], "big") & MP3_SYNC != MP3_SYNC:
        # Only these reach libsndfile: its readers of two dozen rare formats are no place for strangers' bytes.
        raise AudioError("is of no kind that can be read here")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
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

    MP3 knows nine rates; a clip of another rate is resampled to the next higher one.
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
    """Return *samples* of *rate* Hz at *wanted* Hz, by straight lines between the samples."""
    at = np.arange(max(1, round(len(samples) * wanted / rate))) * (rate / wanted)
    places = np.arange(len(samples))
    return np.stack([np.interp(at, places, channel) for channel in samples.T], axis=1).astype(np.float32)


def _to_pcm_16(block: Samples) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(block * PCM_16_SCALE), -PCM_16_SCALE, PCM_16_SCALE - 1).astype(np.int16)


def _read_blocks(file: soundfile.SoundFile, most_samples: int) -> Samples:
    """Read until the end, whatever number of frames the header claims, and mend what is not a number."""
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
