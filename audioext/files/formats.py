"""Recognising files by their bytes: their format, and whether audio is complete; and safe file names."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tinytag import TinyTag, TinyTagException

from audioext.files.lengths import WEBM_HEAD_BYTES, adts_seconds, flac_seconds, id3_bytes, webm_length
from audioext.http.messages import excerpt

MAX_FILE_BYTES = 1_073_741_824  # ten minutes of 32-bit stereo WAV at 192 kHz is 922 MB
MAX_PICTURE_BYTES = 33_554_432  # a cover of 3,000 by 3,000 pixels has about 10 MB
HEAD_BYTES = 64
"""Bytes at the start of a file that are enough to recognise its format."""
_SEARCHED_BYTES = 65_536
"""Bytes in which an MP3 that does not begin with a frame shows many."""
LEAST_SHARE = 0.9
"""Least share of a stated size or duration that counts as complete: rounding makes far less than a tenth."""
SLACK_SECONDS = 0.5  # some vendors state whole seconds
MILLISECONDS_FROM = 100.0
"""A stated duration that is this many times too long must be in milliseconds."""

_BYTES_PER_KILOBIT = 125
_BOX_HEAD_BYTES = 16
_SUFFIXES = {
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "audio/wav": ".wav",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    'audio/ogg; codecs="opus"': ".opus",
    "audio/aiff": ".aiff",
    "application/vnd.ms-asf": ".wma",
}
_PICTURES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif"}
_MAGIC = (
    (0, b"ID3", ".mp3"),
    (8, b"WAVE", ".wav"),
    (0, b"fLaC", ".flac"),
    (0, b"OggS", ".ogg"),
    (4, b"ftyp", ".m4a"),
    (8, b"AIF", ".aiff"),
    (0, b"\x1a\x45\xdf\xa3", ".webm"),
    (0, b"\x30\x26\xb2\x75", ".wma"),
    (0, b"caff", ".caf"),
    (0, b"#!AMR", ".amr"),
    (0, b".snd", ".au"),
    (0, b"wvPk", ".wv"),
    (0, b"MAC ", ".ape"),
)
_UNCOMPRESSED = frozenset({".wav", ".aiff"})
_HEADER_BYTES = 1_048_576
"""Bytes in which an uncompressed file says how long it is: pictures may come first."""
_LAYER_BITS = 0x06
_EXACT = frozenset({".m4a", ".webm"})
"""Formats whose boxes or elements state the size of the file to the byte."""
_FRAME_HEAD = re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd]")
"""Layers II and III of ISO/IEC 11172-3, 2.4.1.3, 13818-3 and MPEG 2.5."""
_LONGEST_FRAME = 2_000  # bytes: one of Layer III has at most 1,441, one of Layer II 1,729
_BYTE_ORDER_MARK = b"\xff\xfe"


class BadFileError(Exception):
    """A file is wrong or could not be fetched; the text says why, and `is_dead` that its link has expired."""

    def __init__(self, message: str, *, is_dead: bool = False) -> None:
        """Keep *is_dead*: a fresh link may help."""
        self.is_dead = is_dead
        super().__init__(message)


def audio_info(file: BinaryIO, *, stated: float | None = None) -> tuple[str, float]:
    """Return the suffix and the duration (seconds) of the audio in *file*; *stated* is the vendor's. It blocks.

    Raises:
        BadFileError: the file is empty, not audio, or incomplete.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(WEBM_HEAD_BYTES)
    start = id3_bytes(head)
    file.seek(start)
    suffix = suffix_of(file.read(HEAD_BYTES))
    if suffix == ".aac" and (seconds := adts_seconds(file, start)):
        duration, whole = seconds, 0.0
    elif suffix == ".webm" and (length := webm_length(head)) is not None:
        duration, whole = length
    else:
        suffix, duration, whole = _by_tinytag(file, head[:HEAD_BYTES], size)
    if size < whole * (1 if suffix in _EXACT else LEAST_SHARE):
        raise BadFileError(f"only {size} of {whole:.0f} bytes arrived")
    if suffix == ".flac" and (there := flac_seconds(file, start)) is not None:
        _check_share(there, duration)
    _check_length(duration, stated)
    return suffix, duration


def _by_tinytag(file: BinaryIO, head: bytes, size: int) -> tuple[str, float, float]:
    """Return the suffix, the duration (seconds) and the whole size of a file of *size* bytes, or raise BadFileError."""
    try:
        tag = _tag(file, suffix_of(head))
    except TinyTagException:
        raise BadFileError(_not_audio(head)) from None
    kind = tag.mime_type or ""
    suffix = _SUFFIXES.get(kind) or _SUFFIXES.get(kind.partition(";")[0])
    duration, whole = _measure(tag, size)
    if suffix is None or duration is None:
        raise BadFileError(_not_audio(head))
    return suffix, duration, _end_of_boxes(file, size) if suffix == ".m4a" else whole


def check_head(head: bytes) -> None:
    """Raise BadFileError unless *head* is the start of a known audio format."""
    if suffix_of(head) == ".webm":
        return
    try:
        TinyTag.get(file_obj=io.BytesIO(head), tags=False, duration=False)
    except TinyTagException:
        raise BadFileError(_not_audio(head)) from None


def seconds_of(file: BinaryIO) -> float | None:
    """Return the duration (seconds) of the audio in *file*, `None` if unknown, or raise BadFileError. It blocks."""
    head = file.read(_SEARCHED_BYTES)
    kind = suffix_of(head[:HEAD_BYTES])
    if kind is None and not _has_frames(head):
        raise BadFileError("is not an audio file")  # no excerpt: it may be a secret
    if kind in {None, ".aac"}:  # TinyTag would take a part of it for its first frame
        return None
    try:
        tag = _tag(file, kind)
    except (TinyTagException, ValueError, ArithmeticError, LookupError):
        return None  # a format unknown to TinyTag is left to the provider
    found = [tag.duration or 0.0]
    if kind in _UNCOMPRESSED and tag.bitrate:  # programs that write to a pipe state a length before they know it
        found.append(file.seek(0, os.SEEK_END) / (tag.bitrate * _BYTES_PER_KILOBIT))
    return min(filter(None, found), default=None)


def _tag(file: BinaryIO, kind: str | None) -> TinyTag:
    file.seek(0)
    # TinyTag takes zeros after the sound for empty chunks, and would look at each of a gigabyte.
    begin = io.BytesIO(file.read(_HEADER_BYTES)) if kind in _UNCOMPRESSED else file
    return TinyTag.get(file_obj=begin, tags=False)


def _has_frames(data: bytes) -> bool:
    """Return whether *data* is full of MP3 frames, which all begin with the same two bytes, as a cut recording is."""
    data = data.lstrip(b"\0")
    heads = Counter(_FRAME_HEAD.findall(data))
    return max(heads.values(), default=0) > len(data) / _LONGEST_FRAME


def picture_suffix(head: bytes) -> str | None:
    """Return the suffix of a picture that begins with *head*, or `None` for an unknown format."""
    if head[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _PICTURES.items() if head.startswith(magic)), None)


def _measure(tag: TinyTag, size: int) -> tuple[float | None, float]:
    """Return the duration in seconds, and the size in bytes that it implies, 0 if unknown."""
    duration, rate = tag.duration or 0.0, (tag.bitrate or 0.0) * _BYTES_PER_KILOBIT
    if rate and not 0 < duration * rate <= MAX_FILE_BYTES:  # the header was written before the length was known
        duration = size / rate
    # The bit rate of an Ogg file is an encoder's target: quiet music takes less. MP4 states its size in its boxes.
    is_stated = not (tag.mime_type or "").startswith(("audio/ogg", "audio/mp4"))
    return (duration or None), (duration * rate if is_stated else 0.0)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of an MP4 file ends, according to its size field (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(_BOX_HEAD_BYTES)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # noqa: PLR2004 - shorter than its own header: it extends to the end of the file, or is padding
            return size
        end += length
    return end


def _check_length(duration: float, stated: float | None) -> None:
    if stated is None or not duration:  # a WebM that was made while recording states no length
        return
    if stated > duration * MILLISECONDS_FROM:
        stated /= 1000
    _check_share(duration, stated)


def _check_share(seconds: float, whole: float) -> None:
    if seconds < whole * LEAST_SHARE - SLACK_SECONDS:
        raise BadFileError(f"only {seconds:.1f} s of a track of {whole:.1f} s arrived")


def page_in(head: bytes) -> str | None:
    """Return a complaint if *head* begins a page or an error in HTML, XML or JSON, else `None`."""
    is_page = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"<", b"{"}
    return f"the file is a page or an error text, {excerpt(head[:HEAD_BYTES])!r}, not audio" if is_page else None


def _not_audio(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if (page := page_in(head)) is not None:
        return page
    what = "is of no known audio format"
    if not head.strip(b"\0"):
        what = "is nothing but zeros"
    elif picture_suffix(head) is not None:
        what = "is a picture"
    elif head.isascii() and not any(byte < 9 for byte in head):  # noqa: PLR2004 - text has no byte below the tab
        what = f"is text, {excerpt(head)!r}"
    return f"the file {what}, not audio"


# --- names -----------------------------------------------------------------------------------------------------------

MAX_NAME_BYTES = 120
"""File systems allow 255; a suffix, a number and ".part" must fit as well."""
_WINDOWS_NAMES = {
    *("con", "prn", "aux", "nul", "conin$", "conout$", "clock$"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"),
}


def safe_name(title: str) -> str:
    """Return *title* as a file name without suffix, safe on every system; it may be empty."""
    text = unicodedata.normalize("NFC", title)
    text = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f]', " ", text)
    text = re.sub(r"\s+", " ", text).strip(" .")
    text = text.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
    is_odd = text.partition(".")[0].strip().lower() in _WINDOWS_NAMES or text.startswith("-")  # as options do
    return f"_{text}" if is_odd else text


def plain_suffix(path: Path) -> str:
    """Return the suffix of *path* in lower case if it has 1 to 5 ASCII letters or digits, a letter too, else ""."""
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.(?=.*[a-z])[a-z0-9]{1,5}", suffix) else ""


def suffix_of(head: bytes) -> str | None:
    """Return the suffix of audio that begins with *head*, or `None` for an unknown format."""
    for start, magic, suffix in _MAGIC:
        if head.startswith(magic, start):
            return suffix
    if head[:1] == b"\xff" and head[1:2] >= b"\xe0" and not head.startswith(_BYTE_ORDER_MARK):
        return ".mp3" if head[1] & _LAYER_BITS else ".aac"  # ISO/IEC 11172-3, 2.4.1.3, and 13818-7, 6.2
    return None


def suffix_at(path: Path) -> str:
    """Return the suffix of *path*, else that of the format of its bytes: temporary files often have none. It blocks."""
    found = plain_suffix(path)
    with suppress(OSError):  # who opens it next reports that
        if not found:
            with path.open("rb") as file:
                found = suffix_of(file.read(HEAD_BYTES)) or ""
    return found
