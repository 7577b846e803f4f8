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


def adts(*, seconds: int, frame: int = 200) -> bytes:
    """Return an AAC stream of 8 kHz in ADTS frames (ISO/IEC 13818-7, 6.2), each of *frame* zero bytes as its sound."""
    length = 7 + frame
    head = bytes(
        (0xFF, 0xF1, 1 << 6 | 11 << 2, 0x40 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F, 0xFC)
    )
    return (head + bytes(frame)) * (seconds * 8_000 // 1_024)


def webm(*, seconds: float | None, size: int = 4_000, is_sized: bool = True) -> bytes:
    """Return a WebM file that claims *seconds*, with *size* zero bytes as its sound; it may state its own size."""
    info = b"" if seconds is None else b"\x2a\xd7\xb1\x83\x0f\x42\x40\x44\x89\x88" + struct.pack(">d", seconds * 1_000)
    body = (
        b"\x15\x49\xa9\x66" + bytes((0x80 | len(info),)) + info + b"\x1f\x43\xb6\x75\x01" + bytes(3 + 4) + bytes(size)
    )
    length = (1 << 56) - 1 if not is_sized else len(body)
    begin = b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm"
    return begin + b"\x18\x53\x80\x67" + ((1 << 56) + length).to_bytes(8, "big") + body
