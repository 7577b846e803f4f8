"""HTTP over aiohttp: sends an `HttpRequest`, and tells on failure whether it may have arrived."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from urllib.request import getproxies, proxy_bypass  # noqa: TID251 - aiohttp finds its proxies with them; no HTTP

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from aiohttp.http_writer import StreamWriter
from attrs import define, field
from yarl import URL

from audioext.clock import call_end, within
from audioext.errors import AudioextError, cut
from audioext.http._connections import Connector, Content, SentOnce
from audioext.http.messages import HttpRequest, HttpResponse, Part

_log = logging.getLogger("audioext.http.transport")

MAX_RESPONSE_BYTES = 4_194_304
CALL_TIMEOUT_SECONDS = 60.0
UPLOAD_IDLE_SECONDS = 60.0
UPLOAD_ANSWER_SECONDS = 300.0
"""How long the whole response may take after a file was sent; a silent connection ends the call sooner."""
CONNECT_TIMEOUT_SECONDS = 15.0
CONNECT_ATTEMPTS = 3
CONNECT_BACKOFF_SECONDS = 0.5

_CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
_NO_PROXY = URL("http://direct.invalid")
_UNQUOTED = frozenset('"\x7f').union(map(chr, range(32)))
"""Characters that would end or break a quoted file name."""

UploadProgress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total."""


class NotSentError(AudioextError):
    """Nothing was sent, because there was no connection or the file could not be read; the message says which."""


class MaybeSentError(AudioextError):
    """The connection broke or timed out after the request may have arrived."""

    status = 0
    """The HTTP status, if the response had begun."""


@define(eq=False, repr=False)
class Transport:
    """One HTTP session. It follows no redirect, and never resends a request that may have arrived.

    *given* is a user's own session, which is used for every call and never closed. *trust_env* takes proxies from the
    environment.
    """

    connector: Callable[[AbstractResolver | None], aiohttp.BaseConnector] = Connector
    given: aiohttp.ClientSession | None = None
    trust_env: bool = False
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, created on first use in a running loop. NotSentError if we or the user have closed it."""
        if self._closed or (self.given is not None and self.given.closed):
            whose = "the client" if self._closed else "the session= of this client"
            raise NotSentError(f"{whose} was closed before this call; nothing was sent")
        if self.given is not None:
            return self.given
        if self._session is None:
            self._session = self._make_session()
        return self._session

    def new_session(self, resolver: AbstractResolver) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        """Return a new session that resolves hosts with *resolver*, or the user's own, which is not closed on exit."""
        return self._make_session(resolver) if self.given is None else nullcontext(self.given)

    def proxies(self) -> frozenset[tuple[str | None, int | None]]:
        """Return the hosts and ports of the environment's proxies, or none without `trust_env`."""
        found = _proxies_of_environment() if self.trust_env else {}
        return frozenset((url.raw_host, url.port) for url in found.values() if url is not None and url.host)

    def is_proxied(self, url: URL) -> bool:
        """Say whether the user's own session reaches *url* through a proxy of the environment."""
        if self.given is None or not self.given.trust_env or url.scheme not in getproxies():
            return False
        return not proxy_bypass(url.raw_host or "")

    def _check_proxy(self, url: URL) -> None:
        """Raise NotSentError if *url* would be reached through an unusable proxy of the environment."""
        if not (self.trust_env if self.given is None else self.given.trust_env):
            return
        proxies = _proxies_of_environment()
        proxy = proxies.get(url.scheme, _NO_PROXY)
        is_usable = proxy is not None and proxy.host and proxy.scheme in {"http", "https"}
        if None in proxies.values() or not (is_usable or proxy_bypass(url.raw_host or "")):
            raise NotSentError(f"no call can go to {url.host}: its proxy has no usable address; nothing was sent")

    def _make_session(self, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self.connector(resolver),
            trust_env=self.trust_env,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
            # APIs get no cookies. A file host may set one in a redirect and need it back; it may be an IP address.
            cookie_jar=aiohttp.DummyCookieJar() if resolver is None else aiohttp.CookieJar(unsafe=True),
            auto_decompress=True,
        )

    async def send(
        self,
        request: HttpRequest,
        *,
        timeout: float = CALL_TIMEOUT_SECONDS,  # noqa: ASYNC109 - aiohttp's own, per call
        progress: UploadProgress | None = None,
    ) -> HttpResponse:
        """Send *request* and return the whole response. Only a failure to connect is retried, while *timeout* lasts.

        Without a file, *timeout* (seconds) bounds the whole call. A file may take as long as it makes progress: the
        call ends only if the server reads no more of it for `UPLOAD_IDLE_SECONDS`.

        Raises:
            NotSentError: there was no connection, the file cannot be read, or we are closed; nothing was sent.
            MaybeSentError: the request may have arrived, but no complete response came.
        """
        self._check_proxy(request.url)
        ends_at, left = asyncio.get_running_loop().time() + timeout, timeout
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            with ExitStack() as files:
                plain = None if request.body is None else Content(request.body)
                body: SentOnce | None = _Form(request.parts, progress, files) if request.parts else plain
                try:
                    return await self._call(request, body, left)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    if (body is not None and body.is_sent) or not isinstance(error, _CONNECT_ERRORS):
                        raise _unsure(request.url, error) from error
                    failure = error
                except ValueError as error:  # its text may contain a password
                    is_refused = aiohttp.hdrs.AUTHORIZATION.lower() in str(error).lower()
                    if (body is not None and body.is_sent) or not is_refused:
                        raise
                    message = f"a netrc file or session= has another password for {request.url.host}; nothing was sent"
                    raise NotSentError(message) from error
            _log.info("no connection to %s (try %d): %s", request.url.host, attempt, failure)
            pause = CONNECT_BACKOFF_SECONDS * 2 ** (attempt - 1)
            left = ends_at - asyncio.get_running_loop().time() - pause
            if attempt == CONNECT_ATTEMPTS or left <= 0:
                why = cut(getattr(failure, "strerror", None) or str(failure), 160) + offline(failure)
                message = f"no connection to {cut(str(request.url.host))}: {why}; nothing was sent"
                raise NotSentError(message) from failure
            await asyncio.sleep(pause)
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    async def _call(
        self,
        request: HttpRequest,
        data: SentOnce | None,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> HttpResponse:
        session, url, status = self._session or self.session, request.url, 0
        form = data if isinstance(data, _Form) and data.has_file else None
        began = asyncio.get_running_loop().time()
        try:
            async with (  # asyncio.timeout costs half as much as aiohttp's own `total`
                within(timeout) if form is None else form.watched(),
                session.request(
                    request.method,
                    url,
                    headers=request.headers,
                    data=data,
                    allow_redirects=False,
                    timeout=_limits(timeout, has_file=form is not None),
                    raise_for_status=False,  # the user's own session may have other defaults for both
                    auto_decompress=True,
                ) as response,
            ):
                status = response.status
                body = await _whole(response.content, None if form is None else form.heard)
                took = asyncio.get_running_loop().time() - began
                _log.debug("%s %s%s: %d in %.3f s", request.method, url.host, url.raw_path, status, took)
                return HttpResponse(status=status, headers=response.headers, body=body)
        except (aiohttp.ClientError, OSError) as error:  # a timeout, too
            if not status:
                raise
            raise _unsure(url, error, status) from error

    async def aclose(self) -> None:
        """Close the session and its connections for good."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def lacks_proxy() -> str | None:
    """Return a complaint if an address of the environment's proxies cannot be parsed: then aiohttp makes no call."""
    wrong = sorted(f"{scheme}_proxy" for scheme, url in _proxies_of_environment().items() if url is None)
    return f"needs a proxy like http://127.0.0.1:3128 in {' and '.join(wrong)}" if wrong else None


def _proxies_of_environment() -> dict[str, URL | None]:
    """Return the environment's proxies by scheme, as aiohttp reads them; `None` for one that cannot be parsed."""
    found: dict[str, URL | None] = {}
    for scheme in {"http", "https", "ws", "wss"} & getproxies().keys():
        try:
            found[scheme] = URL(getproxies()[scheme])
        except ValueError:
            found[scheme] = None
    return found


def offline(error: BaseException) -> str:
    """Return a hint for a message if *error* means that this machine has no network or no such name; else ""."""
    is_near = isinstance(error, OSError) and error.errno in {errno.ENETUNREACH, errno.ENETDOWN}
    is_near = is_near or isinstance(error, aiohttp.ClientConnectorDNSError)
    return ": you may be offline, or the name may be misspelt" if is_near else ""


@lru_cache(maxsize=8)
def _limits(seconds: float, *, has_file: bool) -> aiohttp.ClientTimeout:
    # A connect timeout below the call's tells us that nothing was sent. The form watches the progress of a long upload.
    connect = CALL_TIMEOUT_SECONDS if has_file else 0.9 * seconds
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=CONNECT_TIMEOUT_SECONDS)


def _unsure(url: URL, error: Exception, status: int = 0) -> MaybeSentError:
    unsure = MaybeSentError(f"no complete answer from {url.host}: {type(error).__name__} {error}".rstrip())
    unsure.status = status
    return unsure


async def _whole(stream: aiohttp.StreamReader, heard: Callable[[], None] | None) -> bytes:
    chunks: list[bytes] = []
    room = MAX_RESPONSE_BYTES
    while not (chunks and stream.at_eof()):
        if heard is not None:
            heard()
        chunks.append(await stream.read(room + 1))
        room -= len(chunks[-1])
        if room < 0:
            message = f"the answer is longer than {MAX_RESPONSE_BYTES} bytes"
            raise aiohttp.ClientPayloadError(message)
    return b"".join(chunks)


# Not aiohttp.FormData, which is not multipart without a file: MusicGPT documents multipart always.
class _Form(SentOnce, aiohttp.MultipartWriter):
    """A multipart body that watches the progress of its own upload."""

    def __init__(self, parts: tuple[Part, ...], progress: UploadProgress | None, files: ExitStack) -> None:
        """Add *parts*, whose files *files* closes; raises NotSentError if a file cannot be read."""
        super().__init__("form-data")
        self.has_file = False
        self._progress = progress
        self._limit: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._outlet: asyncio.Transport | None = None
        self._ends_at = math.inf
        for part in parts:
            try:
                self._add(part, files)
            except (OSError, UnicodeError) as error:  # UnicodeError: a file name that is not valid UTF-8
                reason = error.strerror if isinstance(error, OSError) else "its name is not UTF-8"
                message = f"cannot read {part.path!s:.200}: {reason or error}; nothing was sent"
                raise NotSentError(message.encode(errors="replace").decode()) from error

    def _add(self, part: Part, files: ExitStack) -> None:
        headers: Mapping[str, str] = {"Content-Type": part.content_type} if part.content_type else {}
        if part.path is None:
            self.append(part.value or "", headers).set_content_disposition("form-data", name=part.name)
            return
        # In UTF-8 as browsers do (WHATWG HTML, 4.10.22.7), not percent-encoded; RFC 7578, 4.2, forbids `filename*`.
        given = part.filename or part.path.name
        given.encode()
        name = "".join(f"%{ord(letter):02X}" if letter in _UNQUOTED else letter for letter in given)
        payload = self.append(files.enter_context(_CountedReader(part.path, self._moved)), headers)
        payload.headers[aiohttp.hdrs.CONTENT_DISPOSITION] = f'form-data; name="{part.name}"; filename="{name}"'
        self.has_file = True

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """Raise TimeoutError in the block when the upload stalls, and abort its connection."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limit = limit
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            idle, whole = f"for {UPLOAD_IDLE_SECONDS:g} s", f"not all of it came within {UPLOAD_ANSWER_SECONDS:g} s"
            message = f"it read no more of the file {idle}" if self._outlet else f"{whole}, or nothing {idle}"
            raise TimeoutError(message) from error
        finally:
            self._limit = None
            if self._timer is not None:
                self._timer.cancel()
            if self._outlet is not None:
                self._outlet.abort()  # close() would wait for a peer that no longer reads

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body. The idle timeout starts here, since the connection now exists."""
        self._outlet = writer.transport if isinstance(writer, StreamWriter) else None
        self.heard()
        await super().write_with_length(writer, content_length)
        self._outlet = None
        self._ends_at = asyncio.get_running_loop().time() + UPLOAD_ANSWER_SECONDS
        self.heard()

    def heard(self) -> None:
        """Start the idle timeout anew, unless the whole answer is overdue."""
        now = asyncio.get_running_loop().time()
        if self._limit is not None and not self._limit.expired() and now < self._ends_at:
            self._limit.reschedule(None)  # it may be ending because the process stood still
            if self._timer is not None:
                self._timer.cancel()
            self._timer = call_end(self._limit, min(UPLOAD_IDLE_SECONDS, self._ends_at - now))

    def _moved(self, so_far: int, size: int) -> None:
        self.heard()
        if self._progress is not None:
            self._progress(so_far, size)


class _CountedReader(io.BufferedReader):
    """A file that reports how much of it was read; aiohttp streams it in chunks from a thread."""

    def __init__(self, path: Path, moved: Callable[[int, int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._moved = moved
        self._size = path.stat().st_size
        self._loop = asyncio.get_running_loop()

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._size - self.tell()  # the server was told the size: it waits for all of it, and takes no more
        chunk = super().read(left if size is None or size < 0 else min(size, left))
        if left and size and not chunk:
            raise EOFError("the file was cut short while it was sent")
        # aiohttp calls this in a thread, but the timeout and the user's callback belong to the event loop.
        self._loop.call_soon_threadsafe(self._moved, self.tell(), self._size)
        return chunk
