"""The bytes behind a link, whole: byte for byte the link, tried again while that may help, and resumed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from urllib.parse import urljoin

import aiohttp
from attrs import define, field
from yarl import URL

from audioext.errors import LONGEST_VALUE
from audioext.files.formats import MAX_FILE_BYTES, FlawError
from audioext.http.messages import HttpResponse, as_data, retry_after
from audioext.http.transport import offline

_log = logging.getLogger("audioext.files.fetching")

CHUNK_BYTES = 262_144
IDLE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
"""How long the second try waits; doubled with each, unless the host says how long."""
LONGEST_BACKOFF_SECONDS = 8.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
"""A host that asks for a longer wait is given up."""
MAX_REDIRECTS = 10

STALE_TRIES = 2
"""How often a link that is not fresh may look dead before it counts as such."""

_WHOLE = frozenset({200, 203})
_PARTIAL, _NO_RANGE, _SERVER_ERROR = 206, 416, 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEAD = frozenset({403, 404, 410})
"""Statuses of a link that has died, or of a fresh one that is not there yet; 410 is final."""
_PASSING = frozenset({202, 204, 408, 425, 429})
_VERSION = ("ETag", "Last-Modified")
"""Headers that tell the versions of a file apart."""
_RANGE = re.compile(r"bytes (?:(?P<start>\d{1,15})-\d{1,15}|\*)/(?:(?P<total>\d{1,15})|\*)", re.ASCII)


class _AgainError(FlawError):
    """This try failed, and the next one may not; `wait` (seconds) is what the host asks for."""

    wait: float | None = None


def wire_url(link: str) -> URL:
    """Return *link* as it is sent: as it was written, since it may be signed; only what no request can hold is escaped.

    Raises:
        ValueError: it is no link.
    """
    written = link.encode("utf-8", "surrogateescape")  # a header's bytes that are no text come like that
    escaped = re.sub(rb"[^!-~]", lambda found: b"%%%02X" % found[0][0], written)
    url = URL(escaped.decode("ascii"), encoded=True)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{link:.80} is no http link")
    return url


@define(kw_only=True, eq=False, repr=False)
class Fetch:
    """One file on its way. *ends_at* is when it has to be whole, in the loop's time.

    *check* raises FlawError for a link that is not to be followed; each redirect is one more link.
    *patience* (seconds) is how long failures are tried again while no more of it comes. A link that is not *is_fresh*
    and looks dead is tried twice.
    """

    session: aiohttp.ClientSession
    check: Callable[[URL], Awaitable[None]]
    link: str
    patience: float
    ends_at: float
    max_bytes: int = MAX_FILE_BYTES
    is_fresh: bool = True
    position: int = field(default=0, init=False)
    """How many bytes were handed out."""
    total: int | None = field(default=None, init=False)
    _digest: hashlib.blake2b = field(factory=hashlib.blake2b, init=False)
    _version: Mapping[str, str] = field(factory=dict, init=False)
    _resumes: bool = field(default=True, init=False)

    @property
    def digest(self) -> bytes:
        """What tells the bytes so far from others."""
        return self._digest.digest()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes, each once and in order, however often the transfer breaks.

        Raises:
            FlawError: they do not come, not in time, too many of them, or others than before.
        """
        loop = asyncio.get_running_loop()
        tries, gives_up_at = 0, None
        while True:
            before = self.position
            try:
                async with aclosing(self._attempt()) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except _AgainError as error:
                if gives_up_at is None or self.position > before:  # it moves
                    tries, gives_up_at = 0, loop.time() + self.patience
                tries += 1
                await self._pause(error, tries, gives_up_at)
            else:
                return

    async def _pause(self, error: _AgainError, tries: int, gives_up_at: float) -> None:
        """Wait for the next try, or raise FlawError if there is none."""
        now = asyncio.get_running_loop().time()
        backoff = min(BACKOFF_SECONDS * 2 ** (tries - 1), LONGEST_BACKOFF_SECONDS)
        # With a last try when patience ends, or later where the host names a later time.
        wait = min(backoff, max(gives_up_at - now, 0.0)) if error.wait is None else max(backoff, error.wait)
        is_late = now >= gives_up_at or now + wait >= self.ends_at or wait > LONGEST_RETRY_AFTER_SECONDS
        if is_late or (error.is_dead and not self.is_fresh and tries >= STALE_TRIES):
            asked = f", which asks to wait {wait:.0f} s" if error.wait else ""
            raise FlawError(f"{error}{asked}", is_dead=error.is_dead)
        await asyncio.sleep(wait)

    async def _attempt(self) -> AsyncGenerator[bytes]:
        host = wire_host(self.link)
        try:
            async with asyncio.timeout_at(self.ends_at):
                response = await self._ask()
            try:
                skip = self._begin(response)
                skipped = hashlib.blake2b()
                while chunk := await self._read(response):
                    if skip:  # the host began anew
                        again, chunk = chunk[:skip], chunk[skip:]
                        skip -= len(again)
                        skipped.update(again)
                        if not skip and skipped.digest() != self.digest:
                            raise FlawError(f"{host} sends another file than before")
                    if chunk:
                        self.position += len(chunk)
                        self._digest.update(chunk)
                        self._check_size(self.position)
                        yield chunk
                if skip or (self.total is not None and self.position < self.total):
                    raise _AgainError(f"{host} sent {self.position} bytes, and no more")
                if not self.position and self.is_fresh:
                    raise _AgainError("the file is empty")
            finally:
                response.close()
        except (aiohttp.InvalidURL, ValueError) as error:
            raise FlawError(f"the link {as_data(self.link, longest=LONGEST_VALUE)!r} cannot be asked for") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if asyncio.get_running_loop().time() >= self.ends_at:
                raise FlawError(f"{host} did not send all of it in time ({self.position} bytes came)") from error
            raise _AgainError(f"{type(error).__name__} at {host}{offline(error)}") from error

    async def _ask(self) -> aiohttp.ClientResponse:
        """Ask for what is missing, through redirects, whose links are kept as they are, too."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.position and self._resumes:
            headers["Range"] = f"bytes={self.position}-"
            tag = self._version.get("ETag", "")
            validator = tag if tag.startswith('"') else self._version.get("Last-Modified")
            if validator is not None:
                headers["If-Range"] = validator
        limits = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=IDLE_SECONDS)
        url = wire_url(self.link)
        for _ in range(MAX_REDIRECTS + 1):
            began = asyncio.get_running_loop().time()
            await self.check(url)
            if self.session.closed:
                raise FlawError("the session= of this client was closed before this call: give one that stays open")
            response = await self.session.get(
                url, headers=headers, allow_redirects=False, timeout=limits, raise_for_status=False
            )
            took = asyncio.get_running_loop().time() - began  # of the link no more than its host: it may be signed
            _log.debug("GET a file at %s: %d in %.3f s", url.host, response.status, took)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            url = _target(url, location)
        raise FlawError(f"{wire_host(self.link)} redirects more than {MAX_REDIRECTS} times")

    def _begin(self, response: aiohttp.ClientResponse) -> int:
        """Return how many bytes of the answer are known already, or raise FlawError if it does not bring the file."""
        status, host = response.status, response.url.host
        if status in {_PARTIAL, _NO_RANGE} and self.position:
            return self._resume(response)
        if status in _WHOLE or (status == _PARTIAL and _range(response)[0] == 0):
            self._learn(response)
            return self.position
        said = f"HTTP {status} from {host}"
        if status in _DEAD or status in _PASSING or status >= _SERVER_ERROR:
            is_dead = status in _DEAD
            said += "; the link has probably expired" if is_dead else ""
            if status == 410:  # noqa: PLR2004 - gone, for good
                raise FlawError(said, is_dead=True)
            again = _AgainError(said, is_dead=is_dead)
            again.wait = retry_after(HttpResponse(status=status, headers=response.headers))
            raise again
        raise FlawError(said)

    def _learn(self, response: aiohttp.ClientResponse) -> None:
        is_plain = response.headers.get("Content-Encoding", "identity").lower() == "identity"
        total = response.content_length if is_plain else None
        if response.status == _PARTIAL and (stated := _range(response)[1]) is not None:
            total = stated  # some hosts answer any call like that
        if self.position and None not in {total, self.total} and total != self.total:
            raise FlawError(f"{response.url.host} sends another file than before")
        self.total = total
        self._check_size(total or 0)
        self._resumes = is_plain and response.headers.get("Accept-Ranges", "").lower() != "none"
        self._version = {name: response.headers[name] for name in _VERSION if name in response.headers}

    def _resume(self, response: aiohttp.ClientResponse) -> int:
        start, total = _range(response)
        # Not every host heeds If-Range; a part of another version would be mixed with what is here.
        is_other = any(response.headers.get(name, known) != known for name, known in self._version.items())
        is_next = start == self.position and (total is None or self.total in {None, total})
        if response.status == _PARTIAL and is_next and not is_other:
            if total is not None:
                self.total = total  # it may have come without a length at first
            return 0
        if response.status == _NO_RANGE and self.total is None and total == self.position:
            self.total = self.position  # the transfer broke at its very end
            return 0
        self._resumes = False
        raise _AgainError(f"{response.url.host} cannot go on where it broke off")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status == _NO_RANGE:
            return b""
        async with asyncio.timeout_at(self.ends_at):
            return await response.content.read(CHUNK_BYTES)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise FlawError(f"longer than {self.max_bytes} bytes")


def _target(url: URL, location: str) -> URL:
    """Return where the redirect at *url* leads, or raise FlawError: to nothing that can be asked for."""
    try:
        return wire_url(urljoin(str(url), location.strip()))
    except ValueError as error:
        where = as_data(location, longest=LONGEST_VALUE)
        raise FlawError(f"{url.host} redirects to {where!r}, which cannot be asked for") from error


def wire_host(link: str) -> str:
    """Return the host of *link*, for people to read."""
    try:
        return wire_url(link).host or "?"
    except ValueError:
        return "?"


def _range(response: aiohttp.ClientResponse) -> tuple[int | None, int | None]:
    """Return where the part that came begins, and how long all is, as far as the host says so."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    start, total = found.groups() if found is not None else (None, None)
    return None if start is None else int(start), None if total is None else int(total)
