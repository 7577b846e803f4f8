"""Audio that was given as bytes or as a file object, kept as private temporary files for as long as it is needed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from attrs import define, field

from audioext.errors import AudioextError, cut
from audioext.files.formats import plain_suffix, safe_name

HEAD_BYTES = 16
CHUNK_BYTES = 1_048_576
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
_LAYER_BITS = 0x06
_BYTE_ORDER_MARK = b"\xff\xfe"


class SpoolError(AudioextError):
    """What was given as `file=` could not be read; the message says why."""


def suffix_of(head: bytes) -> str | None:
    """Return the suffix that suits a file that begins with *head*, `None` for what is no audio that we know."""
    for start, magic, suffix in _MAGIC:
        if head.startswith(magic, start):
            return suffix
    if head[:1] == b"\xff" and head[1:2] >= b"\xe0" and not head.startswith(_BYTE_ORDER_MARK):
        return ".mp3" if head[1] & _LAYER_BITS else ".aac"  # ISO/IEC 11172-3, 2.4.1.3, and 13818-7, 6.2
    return None


@define(eq=False, repr=False)
class Spool:
    """Temporary files, each in a folder that is ours alone; what it did not make it never removes."""

    _paths: dict[Path, Path] = field(factory=dict, init=False)

    async def keep(self, source: bytes | BinaryIO) -> Path:
        """Return the path of a file with what is in *source*, which is read from where it stands and set back there.

        Raises SpoolError: it cannot be read, or no file can be written.
        """
        return await asyncio.to_thread(self._keep, source)

    def drop(self, path: Path) -> None:
        """Remove a file that was made here; any other stays."""
        folder = self._paths.pop(path, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all that is left."""
        for path in tuple(self._paths):
            self.drop(path)

    def _keep(self, source: bytes | BinaryIO) -> Path:
        chunks = iter([source]) if isinstance(source, bytes) else _chunks(source)
        folder: Path | None = None
        try:
            first = next(chunks, b"")
            folder = Path(tempfile.mkdtemp(prefix="audioext-file-"))
            path = folder / _name(source, first)
            with path.open("xb") as file:
                file.writelines(chain((first,), chunks))
        except Exception as error:  # whatever a file object of the user's raises
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            why = cut(str(error)) or type(error).__name__
            raise SpoolError(f"what was given cannot be read or kept: {why}") from error
        self._paths[path] = folder
        return path


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    start: int | None = None
    with suppress(AttributeError, OSError):  # a pipe, or an object that can do no more than read
        start = file.tell()
    try:
        while chunk := file.read(CHUNK_BYTES):
            if not isinstance(chunk, bytes):
                raise SpoolError("it was opened as text: open it with mode 'rb'")
            yield chunk
    finally:
        if start is not None:
            with suppress(AttributeError, OSError):
                file.seek(start)


def _name(source: bytes | BinaryIO, head: bytes) -> str:
    """Return the name that the source has, made harmless, with a suffix that suits it."""
    given = getattr(source, "name", None)  # a number for a descriptor, nothing for bytes
    named = Path(given if isinstance(given, str) else "")
    suffix = plain_suffix(named) or suffix_of(head[:HEAD_BYTES]) or ""
    return f"{safe_name(named.stem) or 'audio'}{suffix}"
