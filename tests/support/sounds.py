"""Small audio files for tests: real ones and artificial ones."""

from __future__ import annotations

import io
import struct

import soundfile

from audioext.sandbox import audio

MP3: bytes = audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "mp3")
"""Four seconds of a voice."""
OTHER_MP3: bytes = audio.encode(audio.voice(seed=2, seconds=4.0, rate=16_000), "mp3")
"""Four seconds of another voice."""
WAV: bytes = audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav")


def _flac() -> bytes:
    samples, rate = soundfile.read(io.BytesIO(WAV))
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    return file.getvalue()


FLAC: bytes = _flac()


def box(kind: bytes, body: bytes) -> bytes:
    """Return a box of an MP4 file."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def mp4(*, seconds: int, size: int = 4_000) -> bytes:
    """Return an MP4 file that claims *seconds*, with *size* zero bytes as its sound."""
    header = struct.pack(">IIIII", 0, 0, 0, 1_000, seconds * 1_000) + bytes(80)
    return box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", box(b"mvhd", header)) + box(b"mdat", bytes(size))


def streamed_wav(*, seconds: int, claimed: int) -> bytes:
    """Return a WAV file of 8 kHz whose header claims *claimed* bytes of sound."""
    sound = bytes(seconds * 16_000)
    format_ = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16)
    return b"RIFF" + struct.pack("<I", claimed) + b"WAVE" + format_ + struct.pack("<4sI", b"data", claimed) + sound
