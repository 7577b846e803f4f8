"""The sandbox's files: kept in a temporary folder, made when first asked for, served over HTTP."""

import asyncio
import secrets
import struct
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TypeAlias

from aiohttp import hdrs, web
from attrs import define
from yarl import URL

from .tasks import Refusal, Trouble

__all__ = ["FileStore", "content_type", "cover_image"]

#: `mimetypes` calls WAV audio/x-wav on some machines; the files must look the same on all.
CONTENT_TYPES = {
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".m4a": "audio/mp4",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}

Maker: TypeAlias = Callable[[], Coroutine[object, object, bytes]]


@define(eq=False)
class _Entry:
    content_type: str
    path: Path | None = None
    maker: Maker | None = None
    making: asyncio.Task[Path] | None = None
    seconds: float | None = None
    pinned: bool = False


class FileStore:
    """Files by key; a key is the path under ``/files/``, never a path on the disk."""

    def __init__(self, *, keep: int) -> None:
        """Make an empty store that keeps at most so many files."""
        self._keep = keep
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._pinned = 0
        self.base = URL()

    def open(self, base: URL) -> None:
        """Make the folder; `base` is the address of the sandbox."""
        self._folder = tempfile.TemporaryDirectory(prefix="audioext-sandbox-")
        self.base = base

    async def aclose(self) -> None:
        """Stop making files and remove all."""
        making = [entry.making for entry in self._entries.values() if entry.making is not None]
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        self._entries.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def url(self, key: str) -> str:
        """Return the address under which a file is served."""
        return str(self.base / "files" / key)

    def key_of(self, url: str) -> str | None:
        """Return the key of one of our own addresses, or None for a stranger's."""
        parsed = URL(url)
        if parsed.origin() != self.base.origin() or not parsed.path.startswith("/files/"):
            return None
        return parsed.path.removeprefix("/files/")

    def promise(self, key: str, maker: Maker, *, seconds: float | None = None, pinned: bool = False) -> None:
        """Have a file made when it is first asked for. A pinned file is never thrown out."""
        self._put(key, _Entry(content_type(key), maker=maker, seconds=seconds, pinned=pinned))

    def add(self, key: str, data: bytes) -> None:
        """Keep these bytes."""
        path = self._fresh_path()
        path.write_bytes(data)
        self._put(key, _Entry(content_type(key), path=path))

    async def add_stream(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Keep what arrives, in constant memory, and return its size in bytes.

        Raises:
            Refusal: There is more than the limit.
        """
        path = self._fresh_path()
        size = 0
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    _check_size(size, limit_bytes)
                    file.write(chunk)
        except BaseException:
            # Whoever sends it may also hang up in the middle.
            path.unlink()
            raise
        self._put(key, _Entry(content_type(key), path=path))
        return size

    def rename(self, key: str, new: str) -> None:
        """Keep a file under another key, in place of what was there."""
        entry = self._entries.pop(key)
        entry.content_type = content_type(new)
        self._put(new, entry)

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such a file, made or promised."""
        return key in self._entries

    def seconds(self, key: str) -> float | None:
        """Return how long this audio plays, where that is known without decoding it."""
        return self._entries[key].seconds

    def learn_seconds(self, key: str, seconds: float) -> None:
        """Remember how long this audio plays."""
        self._entries[key].seconds = seconds

    async def path(self, key: str) -> Path:
        """Return where the file lies, once it is made.

        Raises:
            KeyError: There is no such file, or no longer.
        """
        entry = self._entries[key]
        if not entry.pinned:
            # Pinned ones stay in front, where a search for the oldest passes them quickly.
            self._entries.move_to_end(key)
        if entry.path is not None:
            return entry.path
        if entry.making is None:
            entry.making = asyncio.create_task(self._make(entry, entry.maker))
        return await asyncio.shield(entry.making)

    async def read(self, key: str) -> bytes:
        """Return the whole file.

        Raises:
            KeyError: There is no such file, or no longer.
        """
        return (await self.path(key)).read_bytes()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD under ``/files/``, with ranges."""
        key = request.match_info["key"]
        # A stream's address is the file's without its suffix, as at the real APIs.
        key = key if key in self._entries else f"{key}.mp3"
        try:
            path = await self.path(key)
        except KeyError:
            raise web.HTTPNotFound from None
        return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: self._entries[key].content_type})

    async def _make(self, entry: _Entry, maker: Maker | None) -> Path:
        data = b"" if maker is None else await maker()
        path = self._fresh_path()
        path.write_bytes(data)
        entry.path = path
        # What the recipe holds on to (sources, earlier takes) is no longer needed.
        entry.maker = entry.making = None
        return path

    def _put(self, key: str, entry: _Entry) -> None:
        self.remove(key)
        self._entries[key] = entry
        self._pinned += entry.pinned
        while len(self._entries) - self._pinned > self._keep:
            self.remove(next(old for old, entry in self._entries.items() if not entry.pinned))

    def remove(self, key: str) -> None:
        """Forget a file, if there is one of this key."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._pinned -= entry.pinned
        if entry.making is not None:
            entry.making.cancel()
        if entry.path is not None:
            entry.path.unlink(missing_ok=True)

    def _fresh_path(self) -> Path:
        if self._folder is None:
            message = "the sandbox is not running"
            raise RuntimeError(message)
        return Path(self._folder.name, secrets.token_hex(16))


def _check_size(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise Refusal(Trouble.TOO_BIG, f"The file exceeds {limit_bytes} bytes")


def content_type(key: str) -> str:
    """Tell a file's type by its name."""
    return CONTENT_TYPES.get(Path(key).suffix.lower(), "application/octet-stream")


def cover_image(color: tuple[int, int, int], *, side: int = 16) -> bytes:
    """Draw a square PNG of one color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(color) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
