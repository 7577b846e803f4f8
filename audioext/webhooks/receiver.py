"""The aiohttp face of the inbox: mounted into an app, or served by itself."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from attrs import define, field

from audioext.errors import ConfigError, StoreError, WebhookError
from audioext.files.serving import Offers
from audioext.http import urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Webhook
from audioext.webhooks.inbox import Inbox, too_big
from audioext.webhooks.server import BoundedServer, StrangersLog, unpack

_log = logging.getLogger("audioext.receiver")
_access_log = logging.getLogger("audioext.access")

DRAIN_SECONDS = 10.0
"""How long accepted deliveries get to become durable when the receiver stops."""
# aiohttp waits this long for connections that were opened and never used, so what matters is awaited before.
SHUTDOWN_SECONDS = 0.2
BACKLOG = 64
"""Connections that may wait to be accepted, which all are at once; the server closes what is too many after that."""
READY_SECONDS = 1.0
"""How long an answer to who asks whether we are ready is given again."""
BODY_SECONDS = 10.0
"""How long a body may take to come."""
FILE_SEGMENTS = 3
"""Of the path of an offered file: `files`, its token, and a name that is for people."""
_ANSWER_HEADERS = {"Content-Type": "application/json; charset=utf-8", "Server": "audioext"}


class MaskedAccessLogger(AbstractAccessLogger):
    """An access log whose paths hide the secret tag: `web.run_app(app, access_log_class=MaskedAccessLogger)`."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write one line: who, what with the secret hidden, the status, the size and the seconds it took."""
        path = urls.mask(request.path_qs)
        _access_log.info(
            '%s "%s %s" %d %d %.3f s', request.remote, request.method, path, response.status, response.body_length, time
        )


@define(kw_only=True, eq=False, repr=False)
class Receiver:
    """Answers webhooks, serves offered files, and tells whether all is well (`/healthz`, `/readyz`)."""

    inbox: Inbox
    offers: Offers
    ready: Callable[[], Awaitable[Sequence[str]]]
    answered: Counter[int] = field(factory=Counter, init=False)
    """How many requests got each status; those that were no HTTP count as 400."""
    is_serving: bool = field(default=False, init=False)
    """Whether somebody serves its routes, so that providers can ask it for files."""
    _server: BoundedServer | None = field(default=None, init=False)
    _runner: web.ServerRunner | None = field(default=None, init=False)
    _prefixes: tuple[str, ...] = field(default=("",), init=False)
    _looked_at: float = field(default=-math.inf, init=False)
    _outage: str = field(default="", init=False)
    _warnings: int = field(default=0, init=False)
    _under_way: set[object] = field(factory=set, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)

    def add_to(self, app: web.Application, prefix: str = "/") -> None:
        """Mount into the user's own *app* under *prefix*, the path of `public_url`; open it with `listen=None`.

        Raises:
            ConfigError: the prefix does not begin with a slash.
        """
        if not prefix.startswith("/"):
            message = f"the prefix must begin with a slash, like '/audio', not {prefix!r}"
            raise ConfigError(message)
        self.is_serving = True
        base = prefix.rstrip("/")
        for path, handler in (
            ("healthz", self._healthz),
            ("readyz", self._readyz),
            (f"{urls.FILES_SEGMENT}/{{token}}/{{name}}", self._mounted_file),
        ):
            for method in ("GET", "HEAD"):
                app.router.add_route(method, f"{base}/{path}", handler, expect_handler=_ask_later)
        # A body is asked for when the tag was checked, not before.
        app.router.add_route(
            "*", f"{base}/{{provider}}/{{ref}}/{{tag}}", self._mounted_webhook, expect_handler=_ask_later
        )

    async def start(self, host: str, port: int, *, prefix: str = "/") -> int:
        """Serve at *host* and *port* and return the port, which the system chooses where it is 0.

        The routes are at the root and under *prefix*, the path of `public_url`: a proxy may cut it off or not.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self.is_serving = True
        self._prefixes = tuple(dict.fromkeys(("", prefix.rstrip("/"))))
        # An access log costs half of the throughput, so there is one only where somebody listens to it.
        wanted = _access_log if _access_log.isEnabledFor(logging.INFO) else None
        # The low-level server: an application's router would cost a fifth of a webhook's time.
        self._server = BoundedServer(
            self._serve,
            access_log_class=MaskedAccessLogger,
            access_log=wanted,
            logger=StrangersLog(self.answered),
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            message = f"cannot listen on {host}:{port}: {error.strerror or error}; choose another `listen=`"
            raise ConfigError(message) from error
        return int(self._runner.addresses[0][1])

    async def aclose(self) -> None:
        """Stop accepting; what was accepted is made durable and answered first."""
        if self._runner is not None:
            for site in tuple(self._runner.sites):
                await site.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._drained()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to our own server."""
        assert self._server is not None  # noqa: S101 - it is the caller
        self._server.work(request.protocol)
        # A provider that hangs up cannot cancel this, which is the default of aiohttp's own server.
        delivery = object()
        self._under_way.add(delivery)
        try:
            return await (self._webhook(request, is_packed=True) if request.method == "POST" else self._get(request))
        except (web.HTTPException, web.RequestPayloadError, ConnectionError):
            raise  # aiohttp answers these
        except Exception:  # noqa: BLE001 - a bug of ours; aiohttp would log it with the path, which holds a secret
            _log.exception("a request could not be answered")
            return self._answer(500)
        finally:
            self._end(delivery)
            self._server.rest(request.protocol)

    async def _get(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        for prefix in self._prefixes:
            if path == f"{prefix}/healthz":
                return await self._healthz(request)
            if path == f"{prefix}/readyz":
                return await self._readyz(request)
            segments = path.removeprefix(f"{prefix}/").split("/")
            if segments[0] == urls.FILES_SEGMENT and len(segments) == FILE_SEGMENTS:
                return self._file(segments[1])
        try:
            urls.read_callback(path)
        except WebhookError as error:
            return self._answer(error.http_status)
        raise web.HTTPMethodNotAllowed(request.method, ["POST"])

    async def _mounted_webhook(self, request: web.Request) -> web.Response:
        """Answer a request to the user's application, which may cancel its handlers: so a task has to guard ours."""
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        task = asyncio.create_task(self._webhook(request), name="audioext delivery")
        self._under_way.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    async def _webhook(self, request: web.BaseRequest, *, is_packed: bool = False) -> web.Response:
        path = request.rel_url.raw_path
        try:
            route = self.inbox.admit(path)  # before the body is read
            if "Expect" in request.headers:
                _go_on(request)
            body = await _read_body(request)
            if is_packed and "Content-Encoding" in request.headers:
                body = unpack(body, request.headers["Content-Encoding"])
        except WebhookError as error:
            return self._answer(error.http_status)
        now = self.inbox.clock.now()
        hook = Webhook(path=path, headers=request.headers, body=body, received_at=now)
        return self._answer(await self.inbox.take(route, hook))

    def _answer(self, status: int) -> web.Response:
        self.answered[status] += 1
        return web.Response(body=_answer_body(status), status=status, headers=_ANSWER_HEADERS)

    def _end(self, delivery: object) -> None:
        self._under_way.discard(delivery)
        self._ended.set()

    async def _drained(self) -> None:
        """Wait for what is under way now; connections that are kept alive may go on to bring more."""
        accepted = set(self._under_way)
        while accepted & self._under_way:
            self._ended.clear()
            await self._ended.wait()

    async def _mounted_file(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info["token"])

    def _file(self, token: str) -> web.StreamResponse:
        path = self.offers.find(token)
        if path is None or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        """Say whether the store takes entries, and no more: strangers read it, and may ask often."""
        now = self.inbox.clock.monotonic()
        if not 0 <= now - self._looked_at < READY_SECONDS:
            self._looked_at = now
            self._outage = self.inbox.outage
            try:
                warnings = await self.ready()
            except StoreError as error:
                self._outage = str(error)
            else:
                self._warnings = len(warnings)
            if self._outage:
                _log.warning("not ready: %s", self._outage)
        if self._outage:
            return web.json_response({"status": "store down"}, status=503)
        return web.json_response({"status": "ok", "warnings": self._warnings})


async def _ask_later(request: web.Request) -> None:
    """Do not answer `Expect: 100-continue` yet, and refuse what else is expected."""
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed


def _go_on(request: web.BaseRequest) -> None:
    """Ask for the body of a sender that waits for that."""
    if request.headers["Expect"].lower() != "100-continue":
        message = "nothing but 100-continue may be expected"
        raise WebhookError(message, http_status=417)
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read_body(request: web.BaseRequest) -> bytes:
    """Return the body, or raise WebhookError: it is over our limit (413), or does not come in time (408)."""
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise too_big()
    if request.content.at_eof():  # it is empty, or a middleware of the user's read it: then aiohttp has kept it
        return await request.read()
    if request.content.is_eof():
        return await _read_chunks(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_chunks(request)
    except TimeoutError as error:
        message = f"its body did not come within {BODY_SECONDS:g} s"
        raise WebhookError(message, http_status=408) from error


async def _read_chunks(request: web.BaseRequest) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_big()
        chunks.append(chunk)
    return b"".join(chunks)


@cache
def _answer_body(status: int) -> bytes:
    # Providers prescribe no body; kie.ai's OpenAPI shows this shape for the reply.
    word = "success" if status == 200 else "refused"  # noqa: PLR2004 - HTTP's own number
    return msgspec.json.encode({"code": status, "msg": word})
