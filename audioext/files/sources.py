"""Bringing a request's audio to its provider: uploaded, inside the submit, or served by our own receiver.

Audio given as bytes or as a file object is kept in a private temporary file while it is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import attrs
from attrs import define, field, frozen
from yarl import URL

from audioext.clock import Clock, mint_id
from audioext.errors import Problem, ProviderDownError, RequestError, UnsupportedError, cut
from audioext.files.formats import HEAD_BYTES, BadFileError, plain_suffix, safe_name, seconds_of, suffix_at, suffix_of
from audioext.http.messages import AUDIO_TYPES, HttpRequest
from audioext.http.transport import MaybeSentError, NotSentError, Transport, UploadProgress
from audioext.http.urls import FILES_SEGMENT
from audioext.models import checks
from audioext.models.requests import Request
from audioext.providers.base import FileRoute, Provider, Uploads

UPLOAD_ATTEMPTS = 3
CHUNK_BYTES = 1_048_576


@define(eq=False, repr=False)
class Spool:
    """Temporary files, each in a private folder of its own; other files are never removed."""

    _paths: set[Path] = field(factory=set, init=False)

    def keep(self, source: bytes | BinaryIO) -> Path | Problem:
        """Return the path of a new file with the bytes of *source*, or a Problem if it cannot be read or written.

        A file object is read from its current position, to which it returns. It blocks: use a thread.
        """
        chunks = iter([source]) if isinstance(source, bytes) else _chunks(source)
        folder: Path | None = None
        try:
            first = next(chunks, b"")
            folder = Path(tempfile.mkdtemp(prefix="audioext-file-"))
            path = folder / _name(source, first)
            with path.open("xb") as file:
                file.writelines(chain((first,), chunks))
        except Exception as error:  # noqa: BLE001 - a user's file object may raise anything
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            why = cut(str(error)) or type(error).__name__
            return Problem("file", f"cannot be read or copied: {why}")
        self._paths.add(path)
        return path

    def drop(self, path: Path) -> None:
        """Remove *path* if it was made here."""
        if path in self._paths:
            self._paths.remove(path)
            shutil.rmtree(path.parent, ignore_errors=True)

    def clear(self) -> None:
        """Remove all files that are left."""
        for path in tuple(self._paths):
            self.drop(path)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    start: int | None = None
    with suppress(AttributeError, OSError):  # a pipe, or an object that only has `read`
        start = file.tell()
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield _bytes(chunk)
    finally:
        if start is not None:
            with suppress(AttributeError, OSError):
                file.seek(start)


def _bytes(chunk: object) -> bytes:
    """Return what a file object's `read` returned as bytes, or raise TypeError."""
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk)
    if not inspect.isawaitable(chunk):
        raise TypeError("it was opened as text: open it with mode 'rb'")
    if inspect.iscoroutine(chunk):
        chunk.close()  # otherwise Python warns that nobody awaited it
    raise TypeError("it has an async read(): read it first and give the bytes")


def _name(source: bytes | BinaryIO, head: bytes) -> str:
    """Return a safe file name made from the name of *source*, with a suffix for its format."""
    given = getattr(source, "name", None)  # an int for a descriptor; bytes have none
    named = Path(given if isinstance(given, str) else "")
    suffix = plain_suffix(named) or suffix_of(head[:HEAD_BYTES]) or ""
    return f"{safe_name(named.stem) or 'audio'}{suffix}"


def name_at_host(url: str) -> str:
    """Return a safe file name for the audio at *url*, without letters that would end or break the host's link to it."""
    named = Path(re.sub("[#%?/]", " ", URL(url).name))
    return f"{safe_name(named.stem) or 'audio'}{plain_suffix(named)}"


# --- served by our own receiver --------------------------------------------------------------------------------------

_ONLY_FILES = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags that refuse a symbolic link and do not block on a pipe, in case one has replaced the file."""


@frozen
class Offer:
    """A file on offer: this very file, never another one that replaces it later."""

    path: Path
    identity: tuple[int, ...]
    suffix: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its response: an audio media type, or plain bytes."""
        content_type = AUDIO_TYPES.get(self.suffix, "application/octet-stream")
        return {"Content-Type": content_type, "X-Content-Type-Options": "nosniff"}

    def open(self) -> BinaryIO | None:
        """Open it for reading; `None` if it is gone, changed or replaced."""
        try:
            file = os.fdopen(os.open(self.path, os.O_RDONLY | _ONLY_FILES), "rb")
        except OSError:
            return None
        if _identity(os.fstat(file.fileno())) == self.identity:
            return file
        file.close()
        return None


@define(eq=False)
class Offers:
    """The files on offer, each under an unguessable token."""

    _offers: dict[str, Offer] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        """Return how many files are on offer."""
        return len(self._offers)

    def offer(self, path: Path, suffix: str | None = None) -> str:
        """Offer *path* and return the last two segments of its URL, a secret and a safe name, or raise OSError.

        *suffix* is that of its format, by default its own.
        """
        token, real = secrets.token_urlsafe(32), path.resolve()
        suffix = plain_suffix(path) if suffix is None else suffix
        self._offers[token] = Offer(real, _identity(real.stat()), suffix)
        return f"{token}/{safe_name(path.stem) or 'audio'}{suffix}"

    def withdraw(self, offer: str) -> None:
        """Stop offering *offer*; harmless if it was withdrawn before."""
        self._offers.pop(offer.partition("/")[0], None)

    def find(self, token: str) -> Offer | None:
        """Return the file offered under *token*, or `None`."""
        return self._offers.get(token)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # The inode alone does not suffice: a new file often gets one that was just freed, and a file may be overwritten.
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns


# --- bringing it to a provider ---------------------------------------------------------------------------------------


def probe(path: Path, name: str | None = None) -> float | Problem | None:
    """Return the duration (seconds) of the file at *path*, `None` if unknown, or its Problem, which calls it *name*.

    It blocks: use a thread.
    """
    name = cut(str(path)) if name is None else name
    try:
        if path.is_dir():
            return Problem("file", f"{name} is a folder: name a file in it")
        if not path.is_file():
            odd = f"{name} is a pipe or a device: save its data as a file first"
            return Problem("file", odd if path.exists() else f"there is no file at {name}")
        if path.stat().st_size == 0:
            return Problem("file", f"{name} is empty")
        with path.open("rb") as file:
            return seconds_of(file)
    except BadFileError as error:
        return Problem("file", f"{name} {error}")
    except OSError as error:
        return Problem("file", f"{name} cannot be read: {error.strerror or error}")


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the file at *path* in hex, or raise OSError. It blocks: use a thread."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@define(kw_only=True, eq=False, repr=False)
class Sources:
    """Brings a request's file to the provider, or its URL if `rehost` asks for that."""

    transport: Transport
    offers: Offers
    clock: Clock
    serve_files: bool
    public_url: Callable[[], URL | None]
    """Returns the public URL of this process's receiver, or `None` if it has none."""
    spool: Spool = field(factory=Spool, init=False)
    """Keeps bytes and file objects as temporary files."""

    async def look(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return *request* with its audio as a path and with its duration, and the problems of the file."""
        source, name = request.file, None
        if source is None or checks.file(source) is not None:
            return request, []
        if not isinstance(source, Path):
            kept, name = await asyncio.to_thread(self.spool.keep, source), "what was given as file="
            if isinstance(kept, Problem):
                return request, [kept]
            source = kept
        found = await asyncio.to_thread(probe, source, name)
        fields = {**request.given(), "file": source}
        if isinstance(found, float):
            fields.setdefault("source_duration", found)
        return type(request).draft(**fields), [found] if isinstance(found, Problem) else []

    def release(self, request: Request, offer: str | None = None) -> None:
        """Stop serving the file of *request*, and remove it if it is a temporary file of ours."""
        if offer is not None:
            self.offers.withdraw(offer)
        if request.path is not None:
            self.spool.drop(request.path)

    async def bring(
        self, request: Request, provider: Provider, progress: UploadProgress | None
    ) -> tuple[Request, str | None]:
        """Return the request to submit, after any upload, and the offer under which we serve its file, if we do."""
        path, uploads = request.path, provider if isinstance(provider, Uploads) else None
        name = mint_id(self.clock.now())
        if path is not None and self.serves(request, provider):
            public_url, offer = self.public_url(), self.offers.offer(path, await asyncio.to_thread(suffix_at, path))
            assert public_url is not None  # noqa: S101 - `check_order` refused this
            url = str(public_url.joinpath(FILES_SEGMENT, *offer.split("/")))
            return attrs.evolve(request, file=None, url=url), offer
        if path is not None and provider.info.file_route is FileRoute.UPLOAD and uploads is not None:
            suffix = await asyncio.to_thread(suffix_at, path)
            built = uploads.build_upload(path, f"{name}{suffix}")
        elif request.rehost and request.url is not None:
            if uploads is None:
                raise UnsupportedError(f"{provider.info.name} has no URL upload, so it cannot take `rehost=True`")
            built = uploads.build_upload(request.url, f"{name}-{name_at_host(request.url)}")
        else:
            return request, None
        return attrs.evolve(request, file=None, url=await self._upload(provider, built, path, progress)), None

    async def name_files(self, request: HttpRequest) -> HttpRequest:
        """Return *request* with each file whose name has no suffix named by its bytes, as uploads are."""
        parts = [*request.parts]
        for place, part in enumerate(parts):
            if part.path is None or part.filename is None or plain_suffix(Path(part.filename)):
                continue  # without a thread: most calls have no such file
            if suffix := await asyncio.to_thread(suffix_at, part.path):
                kind = AUDIO_TYPES.get(suffix, f"audio/{suffix[1:]}")
                parts[place] = attrs.evolve(part, filename=f"{part.filename}{suffix}", content_type=kind)
        return attrs.evolve(request, parts=tuple(parts))

    def serves(self, request: Request, provider: Provider) -> bool:
        """Say whether our own receiver must serve the file of *request*."""
        return request.file is not None and (self.serve_files or provider.info.file_route is FileRoute.SERVE)

    async def _upload(
        self, provider: Provider, request: HttpRequest, path: Path | None, progress: UploadProgress | None
    ) -> str:
        assert isinstance(provider, Uploads)  # noqa: S101 - the caller looked
        checked, attempt = _stamp(path), 1
        while True:
            url, failure = "", None
            try:
                url = provider.parse_upload(await self.transport.send(request, progress=progress))
            except (NotSentError, MaybeSentError) as error:  # an upload costs nothing, so it can be repeated
                failure = error
            if _stamp(path) != checked:  # else half of it might be continued, and paid
                message = f"{cut(str(path))} changed during its upload; no task was made"
                raise RequestError([Problem("file", message)], is_submit=False) from failure
            if failure is None:
                return url
            if attempt == UPLOAD_ATTEMPTS:
                raise ProviderDownError(
                    f"the upload failed: {failure}", provider=provider.info.name, retryable=True, charged=False
                ) from failure
            attempt += 1


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    """Return the identity of the file at *path*, `None` if there is none."""
    try:
        return None if path is None else _identity(path.stat())
    except OSError:
        return None
