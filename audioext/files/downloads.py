"""Downloading results, and checking that each is complete audio and no two are the same."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from pathlib import Path
from weakref import WeakValueDictionary

import aiohttp
from attrs import define, evolve, field, frozen
from yarl import URL

from audioext.clock import whole
from audioext.errors import DownloadError, cut
from audioext.files.fetching import Fetch
from audioext.files.formats import (
    HEAD_BYTES,
    MAX_FILE_BYTES,
    MAX_PICTURE_BYTES,
    BadFileError,
    audio_info,
    check_head,
    picture_suffix,
    safe_name,
)
from audioext.files.hosts import LinkResolver, LinkRules, host_of, hosts_of_api
from audioext.files.naming import free_number, name_part
from audioext.http.transport import Transport
from audioext.models.results import SaveProgress, Song, Track

PATIENCE_SECONDS = 30.0
TIMEOUT_SECONDS = 900.0
MOST_AT_ONCE = 32
"""Files that are saved or read at a time in one event loop: each needs sockets and a share of the line."""
_turns: WeakValueDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakValueDictionary()
"""By event loop, while one is used: a semaphore holds its loop, which would otherwise never be freed."""

Renewal = Callable[[Sequence[Track]], Awaitable[Sequence[Track | str]]]
"""Returns each given track, whose link is dead, with a fresh link, or else the reason as text; it never raises."""


@frozen(kw_only=True)
class _Fetched:
    part: Path
    suffix: str
    digest: bytes


_Outcome = _Fetched | BaseException


@define(kw_only=True, eq=False, repr=False)
class Downloader:
    """Downloads the tracks of a song, and checks that each is complete audio and no two are the same.

    *patience* (seconds) is how long a failing link is retried, *timeout* (seconds) bounds one file. Each call has its
    own session: it takes no connections from submits, needs no open client, and goes on while the client closes.
    *rules* decide which links are followed. A user's own session resolves hosts and uses proxies by itself, so for it
    only the link's text is checked, and the addresses that we find for its host beforehand. Without *is_fresh*, a link
    that looks dead is tried only `STALE_TRIES` times. *renewals* are ways to get fresh links, tried in order.
    """

    transport: Transport
    rules: LinkRules = field(factory=LinkRules)
    patience: float = PATIENCE_SECONDS
    timeout: float = TIMEOUT_SECONDS
    max_bytes: int = MAX_FILE_BYTES
    is_fresh: bool = True
    renewals: tuple[Renewal, ...] = ()

    async def save(
        self, song: Song, folder: Path, /, *, overwrite: bool = False, progress: SaveProgress | None = None
    ) -> tuple[Path, ...]:
        """Save *song* into *folder* and return the paths, in the order of the tracks.

        Raises:
            DownloadError: at least one file failed; the good ones are saved nevertheless.
        """
        if not song.tracks:
            raise DownloadError([f"job {song.ref} has no playable track"])
        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            is_file = isinstance(error, FileExistsError)
            why = "it is a file, and save takes a folder" if is_file else getattr(error, "strerror", None) or error
            raise DownloadError([f"cannot make the folder {cut(str(folder))}: {why}"]) from error
        tracks = {_track_name(track, song, index): track for index, track in enumerate(song.tracks, 1)}
        save = _Save(self, folder, progress, tracks)
        try:
            outcomes = await save.fetch_all(tracks, is_fresh=self.is_fresh)
            for renewal in self.renewals:
                outcomes |= await save.fetch_renewed(outcomes, renewal)
            return await whole(asyncio.to_thread(_name_files, folder, outcomes, overwrite=overwrite))
        finally:
            await whole(asyncio.to_thread(save.drop))

    async def read(self, track: Track) -> bytes:
        """Return the bytes of *track*, checked as in `save`, or raise DownloadError."""
        async with aclosing(self.stream(track, turn=_turn)) as stream:
            data = b"".join([chunk async for chunk in stream])
        try:
            await asyncio.to_thread(audio_info, io.BytesIO(data), stated=track.duration)
        except BadFileError as error:
            raise DownloadError([f"{_label(track)}: {error}"]) from error
        return data

    async def cover(self, track: Track) -> bytes:
        """Return the bytes of the cover picture of *track*, or raise DownloadError, also if it has no cover."""
        if track.image_url is None:
            raise DownloadError([f"{_label(track)}: it has no cover"])
        own = evolve(self, max_bytes=MAX_PICTURE_BYTES)
        try:
            async with _turn(), own.new_session() as session:
                fetch = own.fetch(session, track.image_url, is_fresh=own.is_fresh)
                data = b"".join([chunk async for chunk in fetch.chunks()])
        except BadFileError as error:
            raise DownloadError([f"{_label(track)}: its cover: {error}"]) from error
        if picture_suffix(data) is None:
            raise DownloadError([f"{_label(track)}: its cover is not a picture"])
        return data

    async def stream(
        self, track: Track, *, turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes of *track* as they arrive; the format is checked, the length only if the host states it.

        Each fetch is made in a *turn*; no turn is kept while a renewal, which may take minutes, gets a fresh link.

        Raises:
            DownloadError: the download failed, or the file is not audio.
        """
        if track.audio_url is None:
            raise DownloadError([f"{_label(track)}: it has no file yet"])
        is_fresh, renewals = self.is_fresh, list(self.renewals)
        async with self.new_session() as session:
            while True:
                failed: BadFileError | None = None
                async with turn():
                    fetch = self.fetch(session, track.audio_url or "", is_fresh=is_fresh)
                    try:
                        async with aclosing(_checked(fetch)) as chunks:
                            async for chunk in chunks:
                                yield chunk
                    except BadFileError as error:
                        failed = error
                if failed is None:
                    return
                problem, found = f"{_label(track)}: {failed}", None
                while found is None and renewals and failed.is_dead and not fetch.position:
                    (renewed,) = await renewals.pop(0)([track])
                    found = renewed if isinstance(renewed, Track) else None
                    problem = f"{problem}; {renewed}"
                if found is None:
                    raise DownloadError([problem]) from failed
                track, is_fresh = found, True

    def fetch(self, session: aiohttp.ClientSession, link: str, *, is_fresh: bool) -> Fetch:
        """Return the fetch of *link*; its timeout starts now."""
        return Fetch(
            session=session,
            check=self._check,
            link=link,
            patience=self.patience,
            ends_at=asyncio.get_running_loop().time() + self.timeout,
            max_bytes=self.max_bytes,
            is_fresh=is_fresh,
        )

    def new_session(self) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        """Return a session that connects only to addresses that were checked, or the user's own session."""
        return self.transport.new_session(LinkResolver(self.rules, self.transport.proxies()))

    def of_api(self, base_url: str | None) -> Downloader:
        """Return a downloader that also follows links to the API at *base_url*, if that is on this machine."""
        opened = self.rules.opened.union(hosts_of_api(URL(base_url or "")))
        return evolve(self, rules=evolve(self.rules, opened=opened))

    async def _check(self, url: URL) -> None:
        self.rules.check(url)
        if self.transport.given is not None and not self.transport.is_proxied(url):
            with suppress(OSError):  # the user's session resolves the host itself, and may know names that we do not
                await self.rules.find(host_of(url), url.port or 0, socket.AF_UNSPEC)


@define(eq=False, repr=False)
class _Save:
    """One call of `save`: files are downloaded under temporary names, and named when all are there."""

    downloader: Downloader
    folder: Path
    progress: SaveProgress | None
    tracks: dict[str, Track]
    _parts: list[Path] = field(factory=list, init=False)

    async def fetch_all(self, names: Iterable[str], *, is_fresh: bool) -> dict[str, _Outcome]:
        """Download the tracks of *names* concurrently."""
        names = [*names]
        async with self.downloader.new_session() as session:

            async def fetch(name: str) -> _Fetched:
                async with _turn():
                    return await self._fetch(session, name, is_fresh=is_fresh)

            fetches = [fetch(name) for name in names]
            return dict(zip(names, await asyncio.gather(*fetches, return_exceptions=True), strict=True))

    async def fetch_renewed(self, outcomes: Mapping[str, _Outcome], renewal: Renewal) -> dict[str, _Outcome]:
        """Download the tracks with dead links again, with fresh links from *renewal*."""
        dead = {name: str(each) for name, each in outcomes.items() if isinstance(each, BadFileError) and each.is_dead}
        if not dead:
            return {}
        renewed = dict(zip(dead, await renewal([self.tracks[name] for name in dead]), strict=True))
        self.tracks |= {name: track for name, track in renewed.items() if isinstance(track, Track)}
        lost: dict[str, _Outcome] = {
            name: BadFileError(f"{dead[name]}; {why}", is_dead=True)
            for name, why in renewed.items()
            if isinstance(why, str)
        }
        return lost | await self.fetch_all(renewed.keys() - lost.keys(), is_fresh=True)

    def drop(self) -> None:
        """Remove the temporary files that are left, where that is allowed."""
        for part in self._parts:
            with suppress(OSError):
                part.unlink()

    async def _fetch(self, session: aiohttp.ClientSession, name: str, *, is_fresh: bool) -> _Fetched:
        track = self.tracks[name]
        fetch = self.downloader.fetch(session, track.audio_url or "", is_fresh=is_fresh)
        part = self.folder / f".{secrets.token_hex(8)}.part"
        self._parts.append(part)
        try:
            # It must not exist yet. Unlike mkstemp, touch gives it the usual permissions of this process.
            await whole(asyncio.to_thread(part.touch, exist_ok=False))
            async with aclosing(fetch.chunks()) as chunks:
                async for chunk in chunks:
                    await whole(asyncio.to_thread(_append, part, chunk))
                    if self.progress is not None:
                        self.progress(self.folder / name, fetch.position, fetch.total)
            suffix = await asyncio.to_thread(_listen, part, track.duration)
        except BadFileError as error:
            raise BadFileError(f"{name}: {error}", is_dead=error.is_dead) from error
        except OSError as error:
            why = f"cannot write into {cut(str(self.folder))}: {error.strerror or error}"
            raise BadFileError(f"{name}: {why}") from error
        return _Fetched(part=part, suffix=suffix, digest=fetch.digest)


def _turn() -> asyncio.Semaphore:
    """Return the turns of this event loop: a file's timeout starts when it has one."""
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MOST_AT_ONCE))


async def _checked(fetch: Fetch) -> AsyncGenerator[bytes]:
    """Yield the chunks of *fetch* once its start is known to be audio, or raise BadFileError."""
    head: bytes | None = b""
    async with aclosing(fetch.chunks()) as chunks:
        async for chunk in chunks:
            if head is None:
                yield chunk
            elif len(head := head + chunk) >= HEAD_BYTES:
                check_head(head)
                yield head
                head = None
    if head is not None:
        check_head(head)
        yield head


def _append(part: Path, chunk: bytes) -> None:
    # O_NOFOLLOW: in a shared folder, another user may have replaced the file with a symbolic link.
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)), "ab") as file:
        file.write(chunk)


def _listen(part: Path, stated: float | None) -> str:
    with part.open("rb") as file:
        return audio_info(file, stated=stated)[0]


def _name_files(folder: Path, outcomes: Mapping[str, _Outcome], *, overwrite: bool) -> tuple[Path, ...]:
    """Name the good files and return their paths, or raise DownloadError with all problems; raises other errors too."""
    problems: list[str] = []
    paths: list[Path] = []
    good: dict[str, _Fetched] = {}
    seen: dict[bytes, str] = {}
    fatal: BaseException | None = None
    for name, outcome in outcomes.items():
        if isinstance(outcome, BadFileError):
            problems.append(str(outcome))
        elif isinstance(outcome, BaseException):
            fatal = fatal or outcome
        elif outcome.digest in seen:
            problems.append(f"{name}: byte for byte the same as {seen[outcome.digest]}, so it was not saved twice")
        else:
            seen[outcome.digest] = name
            good[f"{name.removesuffix(outcome.suffix)}{outcome.suffix}"] = outcome  # a title may end in the suffix
    number = 1 if overwrite else free_number(folder, {name: each.part for name, each in good.items()})
    for name, each in good.items():
        try:
            paths.append(name_part(each.part, folder, name, number, overwrite=overwrite))
        except OSError as error:
            why = f"cannot be named {name} in {cut(str(folder))}: {error.strerror or error}"
            problems.append(f"{seen[each.digest]}: {why}")
    if fatal is not None:
        raise fatal
    if problems:
        raise DownloadError(problems, paths=paths)
    return tuple(paths)


def _track_name(track: Track, song: Song, index: int) -> str:
    base = safe_name(track.title or "") or safe_name(song.source_name or "") or song.ref
    return base if len(song.tracks) == 1 else f"{base} - take {index}"


def _label(track: Track) -> str:
    return track.title or track.id or "the track"
