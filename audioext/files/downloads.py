"""Fetching results: whole, audio, not empty, and different from each other."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar
from urllib.parse import unquote

import aiohttp
from attrs import define, frozen
from yarl import URL

from audioext.errors import DownloadError
from audioext.files.names import safe_name
from audioext.http.transport import Transport
from audioext.models.results import Song, Track

MAX_DOWNLOAD_BYTES = 1_073_741_824  # ten minutes of 32-bit stereo WAV at 192 kHz is 922 MB
DOWNLOAD_CHUNK_BYTES = 262_144
DOWNLOAD_IDLE_SECONDS = 60.0
DOWNLOAD_ATTEMPTS = 3
DOWNLOAD_BACKOFF_SECONDS = 0.5
_HTTP_OK = 200
_HTTP_SERVER_ERROR = 500

_AUDIO_SUFFIXES = {
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/flac": ".flac",
    "audio/x-flac": ".flac",
    "audio/ogg": ".ogg",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/aac": ".aac",
    "audio/webm": ".webm",
}
_UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}

SaveProgress = Callable[[Path, int, int | None], None]
_T = TypeVar("_T")


class _BadFileError(Exception):
    """One file is not what it should be; the text says why."""


@frozen(kw_only=True)
class _Fetched:
    part: Path
    suffix: str
    digest: bytes


@define(eq=False, repr=False)
class Downloader:
    """Fetches the tracks of a song: whole, audio, not empty, and different from each other.

    Each call has connections of its own: it takes none from the submits, and neither needs an open client nor is cut
    off by one that closes.
    """

    transport: Transport

    async def save(
        self, song: Song, folder: Path, /, *, overwrite: bool = False, progress: SaveProgress | None = None
    ) -> tuple[Path, ...]:
        """Save *song* into *folder* and return the paths, in the order of the tracks.

        Raises:
            DownloadError: something is wrong with a file; the good ones are saved all the same.
        """
        if not song.tracks:
            raise DownloadError([f"job {song.ref} has no playable track"])
        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise DownloadError([f"cannot make the folder {folder}: {error.strerror or error}"]) from error
        names = [_track_name(track, song, index) for index, track in enumerate(song.tracks, 1)]
        fetches: list[asyncio.Task[_Fetched]] = []
        try:
            async with self.transport.new_session() as session:
                fetches += [
                    asyncio.create_task(self._fetch(session, track, folder, name, progress))
                    for track, name in zip(song.tracks, names, strict=True)
                ]
                outcomes = await asyncio.gather(*fetches, return_exceptions=True)
        except asyncio.CancelledError:  # gather raises it when all of them have ended
            _drop(fetches)
            raise
        return await _to_its_end(lambda: _settle(folder, names, outcomes, overwrite=overwrite))

    async def _fetch(
        self, session: aiohttp.ClientSession, track: Track, folder: Path, name: str, progress: SaveProgress | None
    ) -> _Fetched:
        for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
            try:
                return await self._fetch_once(session, track, folder, name, progress)
            except (aiohttp.ClientError, TimeoutError) as error:
                if attempt == DOWNLOAD_ATTEMPTS:
                    message = f"{name}: the file could not be fetched ({_http_text(error)}); results expire, so"
                    raise _BadFileError(f"{message} try `await job.refresh()` for fresh links") from error
                await asyncio.sleep(DOWNLOAD_BACKOFF_SECONDS * attempt)
            except OSError as error:
                message = f"{name}: cannot write into {folder}: {error.strerror or error}"
                raise _BadFileError(message) from error
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    async def _fetch_once(
        self, session: aiohttp.ClientSession, track: Track, folder: Path, name: str, progress: SaveProgress | None
    ) -> _Fetched:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=DOWNLOAD_IDLE_SECONDS)
        url = URL(track.audio_url or "", encoded=True)  # byte for byte as the vendor gave it: it may be signed
        async with session.get(url, timeout=timeout) as response:
            if response.status >= _HTTP_SERVER_ERROR:
                response.raise_for_status()
            if response.status != _HTTP_OK:
                message = f"{name}: HTTP {response.status} from {url.host}; the link has probably expired"
                raise _BadFileError(message)
            suffix = _suffix(response.content_type, url, name)
            part = folder / f".{secrets.token_hex(8)}.part"
            try:
                size, digest = await _stream(
                    _chunks(response), part, lambda so_far: _report(progress, folder / name, so_far, response)
                )
                if size == 0:
                    message = f"{name}: {url.host} sent an empty file"
                    raise _BadFileError(message)
                await asyncio.to_thread(_refuse_text, part, name)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return _Fetched(part=part, suffix=suffix, digest=digest)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in response.content.iter_chunked(DOWNLOAD_CHUNK_BYTES):
        yield chunk


async def _stream(chunks: AsyncIterator[bytes], part: Path, report: Callable[[int], None]) -> tuple[int, bytes]:
    digest = hashlib.sha256()
    size = 0
    files: list[IO[bytes]] = []
    try:
        # It is made by us alone, with the permissions that all files of this process get.
        await _to_its_end(lambda: files.append(part.open("xb")))
        (file,) = files
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_DOWNLOAD_BYTES:
                message = f"{part.name}: longer than {MAX_DOWNLOAD_BYTES} bytes"
                raise _BadFileError(message)
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
            report(size)
    finally:
        for opened in files:
            await _to_its_end(opened.close)
    return size, digest.digest()


async def _to_its_end(work: Callable[[], _T]) -> _T:
    """Do *work* in a thread; whoever is cancelled meanwhile waits for it, and so knows what it has done."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _drop(fetches: Sequence[asyncio.Task[_Fetched]]) -> None:
    """Remove the files that came before the others were cancelled: nobody will give them their names."""
    for fetch in fetches:
        if fetch.done() and not fetch.cancelled() and fetch.exception() is None:
            fetch.result().part.unlink(missing_ok=True)


def _report(progress: SaveProgress | None, path: Path, so_far: int, response: aiohttp.ClientResponse) -> None:
    if progress is not None:
        progress(path, so_far, response.content_length)


def _settle(
    folder: Path, names: Sequence[str], outcomes: Sequence[_Fetched | BaseException], *, overwrite: bool
) -> tuple[Path, ...]:
    """Give the good files their names, drop the rest, and say all that is wrong at once."""
    problems: list[str] = []
    paths: list[Path] = []
    seen: dict[bytes, str] = {}
    fatal: BaseException | None = None
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, _BadFileError):
            problems.append(str(outcome))
        elif isinstance(outcome, BaseException):
            fatal = fatal or outcome
        elif outcome.digest in seen:
            problems.append(f"{name}: byte for byte the same as {seen[outcome.digest]}, so it was not saved twice")
            outcome.part.unlink(missing_ok=True)
        else:
            seen[outcome.digest] = name
            paths.append(_name_part(outcome.part, folder, name + outcome.suffix, overwrite=overwrite))
    if fatal is not None:
        raise fatal
    if problems:
        raise DownloadError(problems, paths=paths)
    return tuple(paths)


def _name_part(part: Path, folder: Path, name: str, *, overwrite: bool) -> Path:
    """Move a whole file to its name in one step; without *overwrite* a taken name gets a number."""
    target = folder / name
    if overwrite:
        return part.replace(target)
    number = 2
    while True:
        try:
            os.link(part, target)
        except FileExistsError:
            target = folder / f"{Path(name).stem} ({number}){Path(name).suffix}"
            number += 1
        except OSError:  # a file system without links
            return part.replace(target)
        else:
            part.unlink()
            return target


def _refuse_text(part: Path, name: str) -> None:
    with part.open("rb") as file:
        head = file.read(64).lstrip()
    if head[:1] in {b"<", b"{"}:
        message = f"{name}: what came is a page or an error text, not audio"
        raise _BadFileError(message)


def _suffix(content_type: str, url: URL, name: str) -> str:
    kind = content_type.lower()
    by_path = PurePosixPath(unquote(url.path)).suffix.lower()
    known = by_path in {*_AUDIO_SUFFIXES.values(), ".aiff", ".opus"}
    if kind in _AUDIO_SUFFIXES:
        return _AUDIO_SUFFIXES[kind]
    if kind.startswith(("audio/", "video/")):
        return by_path if known else (mimetypes.guess_extension(kind) or ".audio")
    if kind in _UNTYPED:
        return by_path if known else ".mp3"
    message = f"{name}: the server says that this is {content_type}, not audio"
    raise _BadFileError(message)


def _track_name(track: Track, song: Song, index: int) -> str:
    base = safe_name(track.title or "") or song.ref
    return base if len(song.tracks) == 1 else f"{base} - take {index}"


def _http_text(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"HTTP {error.status}"
    return type(error).__name__
