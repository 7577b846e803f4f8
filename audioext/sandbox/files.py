"""The sandbox's files: kept in a temporary folder, made when first asked for, served over HTTP."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from aiohttp import hdrs, web
from yarl import URL

from audioext.sandbox.models import Cause, Refusal, StoredFile

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
CHUNK_BYTES = 64 * 1024
READY = "ready/"
"""Files whose keys begin so are never thrown out."""


class FileStore:
    """Files by key; a key is the path under ``/files/`` of the sandbox's address, never a path on the disk."""

    def __init__(self, keep: int) -> None:
        """Make the folder, for so many files."""
        self.base = URL()
        self._keep = keep
        self._folder = tempfile.TemporaryDirectory(prefix="audioext-sandbox-")
        self._files: OrderedDict[str, StoredFile] = OrderedDict()

    async def aclose(self) -> None:
        """Stop making files and remove all."""
        making = [file.making for file in self._files.values() if file.making is not None]
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

    def put(self, key: str, file: StoredFile) -> None:
        """Keep a file in place of what was there; the ones that were not used for longest go."""
        self._drop(key)
        self._files[key] = file
        while len(self._files) > self._keep:
            self._drop(next(old for old in self._files if not old.startswith(READY)))

    def copy(self, key: str, new: str, *, seconds: float = 0.0) -> None:
        """Have the same bytes under another key."""
        self.put(new, StoredFile(maker=partial(self.read, key), seconds=seconds))

    async def receive(self, read: Callable[[int], Awaitable[bytes]], *, limit_bytes: int) -> tuple[str, int]:
        """Keep what is read, in constant memory; return its key and size in bytes, or raise Refusal: it is too big."""
        path, size = self._fresh_path(), 0
        try:
            with path.open("wb") as file:
                while chunk := await read(CHUNK_BYTES):
                    size += file.write(chunk)
                    if size > limit_bytes:
                        raise Refusal(Cause.TOO_BIG, f"The file exceeds {limit_bytes} bytes")
        except BaseException:
            # Whoever sends it may also hang up in the middle.
            path.unlink()
            raise
        key = f"received/{path.name}"
        self.put(key, StoredFile(path=path))
        return key, size

    def rename(self, key: str, new: str) -> None:
        """Keep a file under another key, in place of what was there."""
        self.put(new, self._files.pop(key))

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such a file, made or promised."""
        return key in self._files

    def find(self, key: str) -> StoredFile:
        """Return what is known of a file, and count it as used; or raise KeyError: there is none, or no longer."""
        self._files.move_to_end(key)
        return self._files[key]

    async def path(self, key: str) -> Path:
        """Return where the file lies, once it is made; or raise KeyError."""
        file = self.find(key)
        if file.path is not None:
            return file.path
        if file.making is None:
            file.making = asyncio.create_task(self._make(file))
        return await asyncio.shield(file.making)

    async def read(self, key: str) -> bytes:
        """Return the whole file, or raise KeyError."""
        return (await self.path(key)).read_bytes()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD under ``/files/``, with ranges."""
        key = request.match_info["key"]
        # A stream's address is the file's without its suffix, as at the real APIs.
        key = key if key in self else f"{key}.mp3"
        if key not in self:
            raise web.HTTPNotFound
        expires_at = self.find(key).expires_at
        if expires_at is not None and asyncio.get_running_loop().time() >= expires_at:
            raise web.HTTPGone
        try:
            path = await self.path(key)
        except KeyError:  # what it is made of is gone
            raise web.HTTPNotFound from None
        return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: content_type(key)})

    async def _make(self, file: StoredFile) -> Path:
        data = b"" if file.maker is None else await file.maker()
        file.path = self._fresh_path()
        file.path.write_bytes(data)
        # What the recipe holds on to (sources, earlier tracks) is no longer needed.
        file.maker = file.making = None
        return file.path

    def _drop(self, key: str) -> None:
        file = self._files.pop(key, None)
        if file is not None and file.making is not None:
            file.making.cancel()
        if file is not None and file.path is not None:
            file.path.unlink(missing_ok=True)

    def _fresh_path(self) -> Path:
        return Path(self._folder.name, secrets.token_hex(16))


def content_type(key: str) -> str:
    """Tell a file's type by its name."""
    return CONTENT_TYPES.get(Path(key).suffix.lower(), "application/octet-stream")
