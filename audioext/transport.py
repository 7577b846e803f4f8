"""HTTP over aiohttp: an `HttpRequest` becomes an `HttpResponse`, and it is said whether it may have arrived."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
from attrs import define, field

from audioext.errors import AudioextError
from audioext.wire.http import HttpRequest, HttpResponse, Part

_log = logging.getLogger("audioext.transport")

MAX_RESPONSE_BYTES = 4_194_304
CALL_TIMEOUT_SECONDS = 60.0
UPLOAD_IDLE_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 15.0
# A server may close an idle connection just as a submit goes out, and then nobody knows whether it arrived.
KEEPALIVE_SECONDS = 2.0
CONNECT_ATTEMPTS = 3
CONNECT_BACKOFF_SECONDS = 0.5

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and in all."""


class NotSentError(AudioextError):
    """No connection could be made, so nothing was sent; look at the network and at `base_url`."""


class BrokenError(AudioextError):
    """The connection broke or timed out after the request may have arrived."""


@define(eq=False, repr=False)
class Transport:
    """One HTTP session. It follows no redirect and resends nothing that may have arrived."""

    connector: Callable[[], aiohttp.BaseConnector] | None = None
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, made at first use: that needs a running loop."""
        if self._session is None or self._session.closed:
            make = self.connector or _connector
            self._session = aiohttp.ClientSession(
                connector=make(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        return self._session

    async def send(
        self,
        request: HttpRequest,
        *,
        timeout: float = CALL_TIMEOUT_SECONDS,  # noqa: ASYNC109 - aiohttp's own, per call
        progress: Progress | None = None,
    ) -> HttpResponse:
        """Make the call and return the whole response. Only a failure to connect is tried again.

        Raises:
            NotSentError: no connection could be made; nothing was sent.
            BrokenError: the request may have arrived, but no whole answer came.
        """
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            try:
                return await self._send_once(request, timeout, progress)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                _log.info("no connection to %s (try %d): %s", request.url.host, attempt, error)
                if attempt == CONNECT_ATTEMPTS:
                    message = f"no connection to {request.url.host}: {error}; nothing was sent"
                    raise NotSentError(message) from error
                await asyncio.sleep(CONNECT_BACKOFF_SECONDS * 2 ** (attempt - 1))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                message = f"no whole answer from {request.url.host}: {type(error).__name__} {error}".rstrip()
                raise BrokenError(message) from error
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    async def _send_once(
        self,
        request: HttpRequest,
        timeout: float,  # noqa: ASYNC109 - as above
        progress: Progress | None,
    ) -> HttpResponse:
        files: list[io.BufferedReader] = []
        try:
            data = _form(request.parts, files, progress) if request.parts else request.body
            async with self.session.request(
                request.method,
                request.url,
                headers=request.headers,
                data=data,
                allow_redirects=False,
                timeout=_timeout(timeout, has_file=bool(files)),
            ) as response:
                body = await _read(response)
                return HttpResponse(status=response.status, headers=response.headers, body=body)
        finally:
            for file in files:
                file.close()

    async def aclose(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()


def _connector() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=200, keepalive_timeout=KEEPALIVE_SECONDS)


def _timeout(seconds: float, *, has_file: bool) -> aiohttp.ClientTimeout:
    if has_file:  # a long file on a slow line is not a hung call: only silence ends it
        return aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=max(seconds, UPLOAD_IDLE_SECONDS)
        )
    return aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT_SECONDS)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(MAX_RESPONSE_BYTES + 1)
    chunks = [body]
    size = len(body)
    while body and size <= MAX_RESPONSE_BYTES:
        body = await response.content.read(MAX_RESPONSE_BYTES + 1 - size)
        chunks.append(body)
        size += len(body)
    if size > MAX_RESPONSE_BYTES:
        message = f"the answer is longer than {MAX_RESPONSE_BYTES} bytes"
        raise aiohttp.ClientPayloadError(message)
    return b"".join(chunks)


def _form(
    parts: tuple[Part, ...], files: list[io.BufferedReader], progress: Progress | None
) -> aiohttp.MultipartWriter:
    # FormData sends no multipart when there is no file, and MusicGPT documents multipart always.
    writer = aiohttp.MultipartWriter("form-data")
    for part in parts:
        headers: Mapping[str, str] = {"Content-Type": part.content_type} if part.content_type else {}
        if part.path is not None:
            files.append(_CountedReader(part.path, progress))
            payload = writer.append(files[-1], headers)
            payload.set_content_disposition("form-data", name=part.name, filename=part.filename or part.path.name)
        else:
            payload = writer.append(part.value or "", headers)
            payload.set_content_disposition("form-data", name=part.name)
    return writer


class _CountedReader(io.BufferedReader):
    """A file that tells how much of it was read; aiohttp streams it in chunks, off the loop."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path))
        self._progress = progress
        self._size = path.stat().st_size
        self._loop = asyncio.get_running_loop()

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if self._progress is not None:
            # aiohttp reads in a thread; the user's callback belongs to the loop.
            self._loop.call_soon_threadsafe(self._progress, self.tell(), self._size)
        return chunk
