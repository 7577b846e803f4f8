"""The sandbox's files: kept in a temporary folder, made when first asked for, served over HTTP."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TypeAlias

from aiohttp import hdrs, web
from attrs import define
from yarl import URL

from audioext.sandbox.models import Cause, Refusal

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
"""`mimetypes` calls WAV audio/x-wav on some machines; the files must look the same on all."""

Maker: TypeAlias = Callable[[], Coroutine[object, object, bytes]]


@define(eq=False)
class FileEntry:
    """A file that lies on the disk, or what makes it; `seconds` is how long it plays, where that is known."""

    path: Path | None = None
    maker: Maker | None = None
    making: asyncio.Task[Path] | None = None
    seconds: float | None = None
    is_pinned: bool = False


class FileStore:
    """Files by key; a key is the path under ``/files/`` of the sandbox's address, never a path on the disk."""

    def __init__(self, keep: int) -> None:
        """Make the folder, for at most so many files and those that are pinned."""
        self.base = URL()
        self._keep = keep
        self._folder = tempfile.TemporaryDirectory(prefix="audioext-sandbox-")
        self._entries: OrderedDict[str, FileEntry] = OrderedDict()
        self._pinned = 0
        self._expiring: dict[str, float] = {}

    async def aclose(self) -> None:
        """Stop making files and remove all."""
        making = [entry.making for entry in self._entries.values() if entry.making is not None]
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        self._folder.cleanup()

    def url(self, key: str) -> str:
        """Return the address under which a file is served."""
        return str(self.base / "files" / key)

    def key_of(self, url: str) -> str | None:
        """Return the key of one of our own files by its address, or None for any other address."""
        parsed = URL(url)
        key = parsed.path.removeprefix("/files/")
        is_ours = parsed.origin() == self.base.origin() and parsed.path.startswith("/files/") and key in self
        return key if is_ours else None

    def promise(self, key: str, maker: Maker, *, seconds: float | None = None, is_pinned: bool = False) -> None:
        """Have a file made when it is first asked for. A pinned file is never thrown out."""
        self._pinned += is_pinned
        self._put(key, FileEntry(maker=maker, seconds=seconds, is_pinned=is_pinned))

    def add(self, key: str, data: bytes) -> None:
        """Keep these bytes."""
        path = self._fresh_path()
        path.write_bytes(data)
        self._put(key, FileEntry(path=path))

    async def add_stream(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Keep what arrives, in constant memory, and return its size in bytes; above the limit raise Refusal."""
        path = self._fresh_path()
        size = 0
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit_bytes:
                        raise Refusal(Cause.TOO_BIG, f"The file exceeds {limit_bytes} bytes")
                    file.write(chunk)
        except BaseException:
            # Whoever sends it may also hang up in the middle.
            path.unlink()
            raise
        self._put(key, FileEntry(path=path))
        return size

    def rename(self, key: str, new: str) -> None:
        """Keep a file under another key, in place of what was there."""
        self._put(new, self._entries.pop(key))

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such a file, made or promised."""
        return key in self._entries

    def entry(self, key: str) -> FileEntry:
        """Return what is known of a file, and count it as used; or raise KeyError: there is none, or no longer."""
        self._entries.move_to_end(key)
        return self._entries[key]

    async def path(self, key: str) -> Path:
        """Return where the file lies, once it is made; or raise KeyError."""
        entry = self.entry(key)
        if entry.path is not None:
            return entry.path
        if entry.making is None:
            entry.making = asyncio.create_task(self._make(entry))
        return await asyncio.shield(entry.making)

    async def read(self, key: str) -> bytes:
        """Return the whole file, or raise KeyError."""
        return (await self.path(key)).read_bytes()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD under ``/files/``, with ranges."""
        key = request.match_info["key"]
        # A stream's address is the file's without its suffix, as at the real APIs.
        key = key if key in self else f"{key}.mp3"
        expires_at = self._expiring.get(key.rpartition("/")[0])
        if expires_at is not None and asyncio.get_running_loop().time() >= expires_at:
            raise web.HTTPGone
        try:
            path = await self.path(key)
        except KeyError:
            raise web.HTTPNotFound from None
        return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: content_type(key)})

    def expire(self, prefix: str, at: float) -> None:
        """Let the links to all files under a prefix die at this time of the loop; the files stay."""
        self._expiring[prefix] = at

    def remove(self, key: str) -> None:
        """Forget a file, if there is one of this key."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.making is not None:
            entry.making.cancel()
        if entry is not None and entry.path is not None:
            entry.path.unlink(missing_ok=True)

    async def _make(self, entry: FileEntry) -> Path:
        data = b"" if entry.maker is None else await entry.maker()
        entry.path = self._fresh_path()
        entry.path.write_bytes(data)
        # What the recipe holds on to (sources, earlier tracks) is no longer needed.
        entry.maker = entry.making = None
        return entry.path

    def _put(self, key: str, entry: FileEntry) -> None:
        self.remove(key)
        self._entries[key] = entry
        while len(self._entries) > self._keep + self._pinned:
            self.remove(next(old for old, each in self._entries.items() if not each.is_pinned))

    def _fresh_path(self) -> Path:
        return Path(self._folder.name, secrets.token_hex(16))


def content_type(key: str) -> str:
    """Tell a file's type by its name."""
    return CONTENT_TYPES.get(Path(key).suffix.lower(), "application/octet-stream")
