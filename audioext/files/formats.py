"""What a file is, told by its bytes: its kind, and whether it is whole audio of a plausible length; and safe names."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from pathlib import Path
from typing import BinaryIO

from attrs import frozen
from tinytag import TinyTag, TinyTagException

from audioext.http.messages import excerpt

MAX_FILE_BYTES = 1_073_741_824  # ten minutes of 32-bit stereo WAV at 192 kHz is 922 MB
MAX_PICTURE_BYTES = 33_554_432  # covers of 3,000 by 3,000 pixels have about 10 MB
HEAD_BYTES = 64
"""So many bytes tell what kind of file it is."""
LEAST_SHARE = 0.9
"""Of a size or a length that is stated elsewhere: the rounding of frames and seconds stays far within a tenth."""
SLACK_SECONDS = 0.5  # some vendors state whole seconds
MILLISECONDS_FROM = 100.0
"""A stated length that is so many times too long counts in milliseconds."""

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


class FlawError(Exception):
    """A file is not what it should be, or does not come; the text says why, and `is_dead` that its link has died."""

    def __init__(self, message: str, *, is_dead: bool = False) -> None:
        """Keep whether a fresh link may help."""
        self.is_dead = is_dead
        super().__init__(message)


@frozen(kw_only=True)
class Heard:
    """Audio that was looked at: the suffix that its bytes ask for, and its duration in seconds."""

    suffix: str
    duration: float


def listen(file: BinaryIO, *, stated: float | None = None) -> Heard:
    """Return what the audio in *file* is; *stated* is the duration (seconds) that its vendor names. It blocks.

    Raises:
        FlawError: it is empty, no audio, or not all of it is there.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        tag = TinyTag.get(file_obj=file, tags=False)
    except TinyTagException:
        raise FlawError(_not_audio(head)) from None
    kind = tag.mime_type or ""
    suffix = _SUFFIXES.get(kind) or _SUFFIXES.get(kind.partition(";")[0])
    duration, whole = _measure(tag, size)
    if suffix is None or duration is None:
        raise FlawError(_not_audio(head))
    if suffix == ".m4a":
        whole = _end_of_boxes(file, size)
    if size < whole * (1 if suffix == ".m4a" else LEAST_SHARE):
        raise FlawError(f"only {size} bytes came of a file of {whole:.0f}")
    _check_length(duration, stated)
    return Heard(suffix=suffix, duration=duration)


def check_head(head: bytes) -> None:
    """Let through what begins like a format that we know, or raise FlawError: it does not."""
    try:
        TinyTag.get(file_obj=io.BytesIO(head), tags=False, duration=False)
    except TinyTagException:
        raise FlawError(_not_audio(head)) from None


def picture_suffix(head: bytes) -> str | None:
    """Return the suffix that suits a picture that begins with *head*, `None` for what is none that we know."""
    if head[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _PICTURES.items() if head.startswith(magic)), None)


def _measure(tag: TinyTag, size: int) -> tuple[float | None, float]:
    """Return the duration, and how many bytes it takes at least."""
    duration, rate = tag.duration or 0.0, (tag.bitrate or 0.0) * _BYTES_PER_KILOBIT
    if rate and not 0 < duration * rate <= MAX_FILE_BYTES:  # it was written before its end was known
        duration = size / rate
    # The rate in an Ogg file is an encoder's aim: quiet music takes less. MP4 says itself how long it is.
    is_stated = not (tag.mime_type or "").startswith(("audio/ogg", "audio/mp4"))
    return (duration or None), (duration * rate if is_stated else 0.0)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of an MP4 file ends, by its own word (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(_BOX_HEAD_BYTES)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # noqa: PLR2004 - a box's own head: it goes on to the end of the file, or is padding
            return size
        end += length
    return end


def _check_length(duration: float, stated: float | None) -> None:
    if stated is None:
        return
    if stated > duration * MILLISECONDS_FROM:
        stated /= 1000
    if duration < stated * LEAST_SHARE - SLACK_SECONDS:
        raise FlawError(f"only {duration:.1f} s came of a track of {stated:.1f} s")


def _not_audio(head: bytes) -> str:
    if not head:
        return "the file is empty"
    what = "is of no known audio format"
    if not head.strip(b"\0"):
        what = "is nothing but zeros"
    elif head.lstrip()[:1] in {b"<", b"{"}:
        what = f"is a page or an error text, {excerpt(head)!r}"
    elif picture_suffix(head) is not None:
        what = "is a picture"
    elif head.isascii() and not any(byte < 9 for byte in head):  # noqa: PLR2004 - below the tab no text has any
        what = f"is text, {excerpt(head)!r}"
    return f"what came {what}, not audio"


# --- names -----------------------------------------------------------------------------------------------------------

MAX_NAME_BYTES = 120
"""File systems allow 255; a suffix, a number and ".part" must fit as well."""
_WINDOWS_NAMES = {
    *("con", "prn", "aux", "nul", "conin$", "conout$", "clock$"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"),
}


def safe_name(title: str) -> str:
    """Return *title* as a file name without a suffix that is harmless on every system; it may be empty."""
    text = unicodedata.normalize("NFC", title)
    text = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f]', " ", text)
    text = re.sub(r"\s+", " ", text).strip(" .")
    text = text.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
    is_odd = text.partition(".")[0].strip().lower() in _WINDOWS_NAMES or text.startswith("-")  # which commands obey
    return f"_{text}" if is_odd else text


def plain_suffix(path: Path) -> str:
    """Return the suffix of *path* in small letters if it is a plain one, else nothing."""
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""
