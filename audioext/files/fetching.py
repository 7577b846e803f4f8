"""Downloading one link completely: the link is sent unchanged, failures are retried, and transfers resume."""

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
from audioext.files.formats import MAX_FILE_BYTES, BadFileError, page_in
from audioext.http.messages import HttpResponse, as_data, retry_after
from audioext.http.transport import offline

_log = logging.getLogger("audioext.files.fetching")

CHUNK_BYTES = 262_144
CONNECT_SECONDS = 15.0
IDLE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
"""Wait before the second try; it doubles with each, unless the host sends `Retry-After`."""
LONGEST_BACKOFF_SECONDS = 8.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
"""The fetch gives up if a host asks for a longer wait."""
MAX_REDIRECTS = 10

STALE_TRIES = 2
"""Number of tries of a link that is not fresh and looks dead."""

_WHOLE = frozenset({200, 203})
_PARTIAL, _NO_RANGE, _SERVER_ERROR = 206, 416, 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEAD = frozenset({400, 401, 403, 404, 410})
"""Statuses of an expired link, or of a fresh one whose file is not there yet; 410 is final.

S3 answers 400 once the credentials with which a link was signed have expired (ExpiredToken, see
issues.apache.org/jira/browse/HADOOP-18353, read 2026-11-28), other hosts answer 401.
"""
_PASSING = frozenset({202, 204, 408, 409, 421, 423, 425, 429})
_NO_PART = frozenset({400, 401, 403, 405, 412, 501})
"""Statuses with which hosts refuse a `Range`, or a signature that does not cover it, although they send whole files."""
_VERSION = ("ETag", "Last-Modified")
"""Headers that identify the version of a file."""
_FOREIGN_HOST = re.compile(rb"([a-z]+://)(?=[^/?#]*[^!-~])([^/?#]*)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (?:(?P<start>\d{1,15})-\d{1,15}|\*)/(?:(?P<total>\d{1,15})|\*)", re.ASCII)


class _AgainError(BadFileError):
    """This try failed, and the next one may succeed; `wait` (seconds) is the host's `Retry-After`."""

    wait: float | None = None


def wire_url(link: str) -> URL:
    """Return *link* as a URL, unchanged since it may be signed; only bytes that no request line can have are escaped.

    A host outside ASCII gets its name in the DNS (IDNA).

    Raises:
        ValueError: *link* is not an http(s) link.
    """
    written = link.encode("utf-8", "surrogateescape")  # aiohttp decodes a header's UTF-8 to surrogates
    if (found := _FOREIGN_HOST.match(written)) is not None:
        host = URL(f"http://{found[2].decode()}").raw_authority.encode()
        written = found[1] + host + written[found.end() :]
    escaped = re.sub(rb"[^!-~]", lambda found: b"%%%02X" % found[0][0], written)
    url = URL(escaped.decode("ascii"), encoded=True)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{link:.80} is not an http link")
    return url


@define(kw_only=True, eq=False, repr=False)
class Fetch:
    """The download of one file, which must be complete by the loop time *ends_at*.

    *check* raises BadFileError for a link that must not be followed; it is called for each redirect as well. Failures
    are retried for *patience* seconds, which start again when more bytes arrive. A link that is not *is_fresh* and
    looks dead is tried `STALE_TRIES` times.
    """

    session: aiohttp.ClientSession
    check: Callable[[URL], Awaitable[None]]
    link: str
    patience: float
    ends_at: float
    max_bytes: int = MAX_FILE_BYTES
    is_fresh: bool = True
    position: int = field(default=0, init=False)
    """Number of bytes yielded so far."""
    total: int | None = field(default=None, init=False)
    _digest: hashlib.blake2b = field(factory=hashlib.blake2b, init=False)
    _version: Mapping[str, str] = field(factory=dict, init=False)
    _resumes: bool = field(default=True, init=False)
    _unpacks: bool = field(default=True, init=False)
    """Whether `Content-Encoding` is believed: some hosts label files so that are not compressed."""

    @property
    def digest(self) -> bytes:
        """The hash of the bytes so far."""
        return self._digest.digest()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes of the file, each once and in order, however often the transfer breaks.

        Raises:
            BadFileError: the file is unavailable, too slow or too long, or changed during the transfer.
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
                if gives_up_at is None or self.position > before:  # this try made progress
                    tries, gives_up_at = 0, loop.time() + self.patience
                tries += 1
                await self._pause(error, tries, gives_up_at)
            else:
                return

    async def _pause(self, error: _AgainError, tries: int, gives_up_at: float) -> None:
        """Wait for the next try, or raise BadFileError to give up."""
        now = asyncio.get_running_loop().time()
        backoff = min(BACKOFF_SECONDS * 2 ** (tries - 1), LONGEST_BACKOFF_SECONDS)
        # The last try comes when patience ends, or later if `Retry-After` says so.
        wait = min(backoff, max(gives_up_at - now, 0.0)) if error.wait is None else max(backoff, error.wait)
        is_late = now >= gives_up_at or now + wait >= self.ends_at or wait > LONGEST_RETRY_AFTER_SECONDS
        if is_late or (error.is_dead and not self.is_fresh and tries >= STALE_TRIES):
            asked = f", which asks to wait {wait:.0f} s" if error.wait else ""
            raise BadFileError(f"{error}{asked}", is_dead=error.is_dead)
        if tries == 1:
            _log.info("%s; trying again for up to %.0f s", error, max(wait, gives_up_at - now))
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
                    if skip:  # the host restarted from the first byte
                        again, chunk = chunk[:skip], chunk[skip:]
                        skip -= len(again)
                        skipped.update(again)
                        if not skip and skipped.digest() != self.digest:
                            raise BadFileError(f"{host} sends a different file than before")
                    if chunk:
                        self._count(chunk)
                        yield chunk
                self._check_end(host, is_short=skip > 0)
            finally:
                response.close()
        except (aiohttp.InvalidURL, ValueError) as error:
            raise BadFileError(f"the link {as_data(self.link, longest=LONGEST_VALUE)!r} cannot be requested") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not self.position and "content-encoding" in str(error):  # aiohttp has no class for all its cases
                self._unpacks = False
            if asyncio.get_running_loop().time() >= self.ends_at:
                raise BadFileError(f"{host} did not send all of it in time ({self.position} bytes came)") from error
            raise _AgainError(_in_words(error, host)) from error

    def _count(self, chunk: bytes) -> None:
        if not self.position and (page := page_in(chunk)) is not None:
            raise _AgainError(page, is_dead=True)  # a front end's own page, with status 200
        self.position += len(chunk)
        self._digest.update(chunk)
        self._check_size(self.position)

    def _check_end(self, host: str, *, is_short: bool) -> None:
        """Raise BadFileError unless a response that has ended brought the file to its end."""
        missing = 0 if self.total is None else self.total - self.position
        if is_short or missing > 0:
            raise _AgainError(f"{host} sent only {self.position} bytes")
        if missing < 0:
            raise BadFileError(f"{host} sent {self.position} bytes of a file of {self.total}")
        if not self.position and self.is_fresh:
            raise _AgainError("the file is empty")

    async def _ask(self) -> aiohttp.ClientResponse:
        """Request the missing bytes and follow redirects, whose links are sent unchanged as well."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.position and self._resumes:
            headers["Range"] = f"bytes={self.position}-"
            tag = self._version.get("ETag", "")
            validator = tag if tag.startswith('"') else self._version.get("Last-Modified")
            if validator is not None:
                headers["If-Range"] = validator
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS)
        url = wire_url(self.link)
        for _ in range(MAX_REDIRECTS + 1):
            began = asyncio.get_running_loop().time()
            await self.check(url)
            if self.session.closed:
                raise BadFileError("the session= of this client was closed before this call: keep it open")
            response = await self.session.get(
                url,
                headers=headers,
                allow_redirects=False,
                timeout=limits,
                raise_for_status=False,  # the user's own session may have other defaults for both
                auto_decompress=self._unpacks,
            )
            took = asyncio.get_running_loop().time() - began  # only the host is logged: the link may be signed
            _log.debug("GET a file at %s: %d in %.3f s", url.host, response.status, took)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            url = _target(url, location)
        raise BadFileError(f"{wire_host(self.link)} redirects more than {MAX_REDIRECTS} times")

    def _begin(self, response: aiohttp.ClientResponse) -> int:
        """Return how many bytes of the response we have already, or raise BadFileError if it does not have the file."""
        status, host = response.status, response.url.host
        if status in {_PARTIAL, _NO_RANGE} and self.position:
            return self._resume(response)
        if status in _WHOLE or (status == _PARTIAL and _range(response)[0] == 0):
            self._learn(response)
            return self.position
        said = f"HTTP {status} from {host}"
        if status in _NO_PART and self.position and self._resumes:
            self._resumes = False
            raise _AgainError(f"{said} for the rest of the file")
        if status in _DEAD or status in _PASSING or status >= _SERVER_ERROR:
            is_dead = status in _DEAD
            said += "; the link has probably expired" if is_dead else ""
            if status == 410:  # noqa: PLR2004 - Gone, for good
                raise BadFileError(said, is_dead=True)
            again = _AgainError(said, is_dead=is_dead)
            again.wait = retry_after(HttpResponse(status=status, headers=response.headers))
            raise again
        raise BadFileError(said)

    def _learn(self, response: aiohttp.ClientResponse) -> None:
        is_plain = not self._unpacks or response.headers.get("Content-Encoding", "identity").lower() == "identity"
        total = response.content_length if is_plain else None
        if is_plain and response.status == _PARTIAL and (stated := _range(response)[1]) is not None:
            total = stated  # some hosts answer every request with 206
        if self.position and None not in {total, self.total} and total != self.total:
            raise BadFileError(f"{response.url.host} sends a different file than before")
        self.total = total
        self._check_size(total or 0)
        self._resumes = is_plain and response.headers.get("Accept-Ranges", "").lower() != "none"
        self._version = {name: response.headers[name] for name in _VERSION if name in response.headers}

    def _resume(self, response: aiohttp.ClientResponse) -> int:
        start, total = _range(response)
        is_other = _is_other_version(self._version, response.headers)  # some hosts ignore If-Range
        is_next = start == self.position and (total is None or self.total in {None, total})
        if response.status == _PARTIAL and is_next and not is_other:
            if total is not None:
                self.total = total  # the first response may have had no length
            return 0
        if response.status == _NO_RANGE and self.total is None and total == self.position:
            self.total = self.position  # the transfer broke after the last byte
            return 0
        self._resumes = False
        raise _AgainError(f"{response.url.host} cannot resume the transfer")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status == _NO_RANGE:
            return b""
        async with asyncio.timeout_at(self.ends_at):
            return await response.content.read(CHUNK_BYTES)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise BadFileError(f"longer than {self.max_bytes} bytes")


def _in_words(error: Exception, host: str) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{host} took no connection for {CONNECT_SECONDS:.0f} s"
    if isinstance(error, aiohttp.SocketTimeoutError):
        return f"{host} sent nothing for {IDLE_SECONDS:.0f} s"
    return f"{type(error).__name__} at {host}{offline(error)}"


def _is_other_version(known: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return whether two responses have parts of different files: by strong ETags if both have one, else by time."""
    tags = known.get("ETag", ""), now.get("ETag", "")
    if all(tag.startswith('"') for tag in tags):
        return tags[0] != tags[1]
    changed_at = known.get("Last-Modified")
    return changed_at is not None and now.get("Last-Modified", changed_at) != changed_at


def _target(url: URL, location: str) -> URL:
    """Return the URL to which *url* redirects, or raise BadFileError if it cannot be requested."""
    try:
        return wire_url(urljoin(str(url), location.strip()))
    except ValueError as error:
        where = as_data(location, longest=LONGEST_VALUE)
        raise BadFileError(f"{url.host} redirects to {where!r}, which cannot be requested") from error


def wire_host(link: str) -> str:
    """Return the host of *link* for a message, "?" if it has none."""
    try:
        return wire_url(link).host or "?"
    except ValueError:
        return "?"


def _range(response: aiohttp.ClientResponse) -> tuple[int | None, int | None]:
    """Return the start of the part and the total length from `Content-Range`, each `None` if it is not there."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    start, total = found.groups() if found is not None else (None, None)
    return None if start is None else int(start), None if total is None else int(total)
