"""The aiohttp face of the inbox: mounted into an app, or served by itself."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
from contextlib import aclosing, suppress
from urllib.parse import unquote

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from attrs import define, field
from yarl import URL

from audioext.clock import whole
from audioext.errors import ConfigError, WebhookError
from audioext.http import urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Webhook
from audioext.webhooks import progress
from audioext.webhooks.asgi import AsgiReceiver
from audioext.webhooks.endpoint import ANSWER_HEADERS, BODY_SECONDS, LINK_SEGMENTS, Endpoint, answer_body, status_of_get
from audioext.webhooks.inbox import too_big
from audioext.webhooks.server import BoundedServer, StrangersLog, unpack

_log = logging.getLogger("audioext.receiver")
_access_log = logging.getLogger("audioext.access")

# aiohttp waits this long for connections that were opened and never used, so what matters is awaited before.
SHUTDOWN_SECONDS = 0.2
WRITE_SECONDS = 30.0
"""How long a piece of a file, or news of a job, may wait for who asked for it to read on."""
CHUNK_BYTES = 65_536
BACKLOG = 64
"""Connections that may wait to be accepted, which all are at once; the server closes what is too many after that."""


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

    endpoint: Endpoint
    client: object = field(default=None, init=False)
    """Whose jobs the live page shows."""
    _server: BoundedServer | None = field(default=None, init=False)
    _runner: web.ServerRunner | None = field(default=None, init=False)
    _prefixes: tuple[str, ...] = field(default=("",), init=False)

    @property
    def asgi(self) -> AsgiReceiver:
        """The same as an ASGI 3 application: `app.mount("/audio", client.receiver.asgi)`, with `listen=None`."""
        self.endpoint.is_serving = True
        return AsgiReceiver(self.endpoint)

    def add_to(self, app: web.Application, prefix: str = "/") -> None:
        """Mount into the user's own *app* under *prefix*, the path of `public_url`; open it with `listen=None`.

        Raises:
            ConfigError: the prefix does not begin with a slash.
        """
        if not prefix.startswith("/"):
            message = f"the prefix must begin with a slash, like '/audio', not {prefix!r}"
            raise ConfigError(message)
        self.endpoint.is_serving = True
        base = _as_route(prefix.rstrip("/"))
        for path, handler in (
            ("healthz", self._healthz),
            ("readyz", self._readyz),
            (f"{urls.FILES_SEGMENT}/{{token}}/{{name}}", self._mounted_file),
            (f"{progress.SEGMENT}/{{ref}}/{{token}}", self._mounted_watch),
        ):
            for method in ("GET", "HEAD"):
                app.router.add_route(method, f"{base}/{path}", handler, expect_handler=_ask_later)
        # A body is asked for when the tag was checked, not before.
        app.router.add_route(
            "*", f"{base}/{{provider}}/{{ref}}/{{tag}}", self._mounted_webhook, expect_handler=_ask_later
        )

    def add_ui(self, app: web.Application, prefix: str = "/audio/ui", *, is_local: bool = True) -> str:
        """Mount the live page into the user's own *app*, and return the path, with its token, that opens it.

        It shows all jobs with their requests, and can replay deliveries. With *is_local* it refuses who does not come
        from this machine, or comes through a proxy; without, the token alone keeps strangers out.

        Raises:
            ConfigError: the prefix does not begin with a slash, or aiohttp-sse is not installed.
        """
        # It stands above us, needs an extra, and most clients show no page.
        page = importlib.import_module("audioext.ui.jobs").jobs_page(self.client, is_local=is_local)
        return str(page.add_to(app, prefix))

    async def start(self, host: str, port: int, *, prefix: str = "/") -> int:
        """Serve at *host* and *port* and return the port, which the system chooses where it is 0.

        The routes are at the root and under *prefix*, the path of `public_url`: a proxy may cut it off or not.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self.endpoint.is_serving = True
        self._prefixes = tuple(dict.fromkeys(("", prefix.rstrip("/"))))
        # An access log costs half of the throughput, so there is one only where somebody listens to it.
        wanted = _access_log if _access_log.isEnabledFor(logging.INFO) else None
        # The low-level server: an application's router would cost a fifth of a webhook's time.
        self._server = BoundedServer(
            self._serve,
            access_log_class=MaskedAccessLogger,
            access_log=wanted,
            logger=StrangersLog(self.endpoint.answered),
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True, backlog=BACKLOG)
        try:
            await whole(site.start())
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
        await self.endpoint.drain()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to our own server."""
        assert self._server is not None  # noqa: S101 - it is the caller
        self._server.work(request.protocol)
        # A provider that hangs up cannot cancel this, which is the default of aiohttp's own server.
        delivery = object()
        self.endpoint.begin(delivery)
        try:
            is_post = request.method == "POST"
            answer = await (self._webhook(request, is_packed=True) if is_post else self._get(request))
        except web.HTTPException as error:
            error.headers["Server"] = ANSWER_HEADERS["Server"]
            raise
        except (web.RequestPayloadError, ConnectionError):
            raise  # aiohttp answers these
        except Exception:  # noqa: BLE001 - a bug of ours; aiohttp would log it with the path, which holds a secret
            _log.exception("a request could not be answered")
            return self._answer(500)
        else:
            answer.headers["Server"] = ANSWER_HEADERS["Server"]
            return answer
        finally:
            self.endpoint.end(delivery)
            self._server.rest(request.protocol)

    async def _get(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        for prefix in self._prefixes:
            if path == f"{prefix}/healthz":
                return await self._healthz(request)
            if path == f"{prefix}/readyz":
                return await self._readyz(request)
            segments = path.removeprefix(f"{prefix}/").split("/")
            if segments[0] == urls.FILES_SEGMENT and len(segments) == LINK_SEGMENTS:
                return await self._file(request, segments[1])
            if segments[0] == progress.SEGMENT and len(segments) == LINK_SEGMENTS:
                return await self._watch(request, segments[1], segments[2])
        status = status_of_get(path)
        if status == web.HTTPMethodNotAllowed.status_code:
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return self._answer(status)

    async def _mounted_webhook(self, request: web.Request) -> web.Response:
        """Answer a request to the user's application, which may cancel its handlers: so a task has to guard ours."""
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return await self.endpoint.finish(self._webhook(request))

    async def _webhook(self, request: web.BaseRequest, *, is_packed: bool = False) -> web.Response:
        path = request.rel_url.raw_path
        try:
            route = self.endpoint.inbox.admit(path)  # before the body is read
            if "Expect" in request.headers:
                _go_on(request)
            body = await _read_body(request)
            if is_packed and "Content-Encoding" in request.headers:
                body = unpack(body, request.headers["Content-Encoding"])
        except WebhookError as error:
            return self._answer(error.http_status)
        now = self.endpoint.inbox.clock.now()
        hook = Webhook(path=path, headers=request.headers, body=body, received_at=now)
        return self._answer(await self.endpoint.inbox.take(route, hook))

    def _answer(self, status: int) -> web.Response:
        self.endpoint.answered[status] += 1
        return web.Response(body=answer_body(status), status=status, headers=ANSWER_HEADERS)

    async def _mounted_file(self, request: web.Request) -> web.StreamResponse:
        return await self._file(request, request.match_info["token"])

    async def _file(self, request: web.BaseRequest, token: str) -> web.StreamResponse:
        # Opened by ourselves: aiohttp's own FileResponse would serve voice.wav.gz where that lies beside voice.wav.
        offer = self.endpoint.offers.find(token)
        file = offer.open() if offer is not None else None
        if offer is None or file is None:
            raise web.HTTPNotFound
        with file:
            headers = {**offer.headers, "Content-Length": str(os.fstat(file.fileno()).st_size)}
            if request.method == "HEAD":
                return web.Response(headers=headers)
            # Sent while the request is being answered: after that the connection counts as one that waits for another.
            response = web.StreamResponse(headers={**headers, "Server": ANSWER_HEADERS["Server"]})
            response.force_close()  # the file may get shorter meanwhile
            await response.prepare(request)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await _write(request, response, chunk)
        return response

    async def _mounted_watch(self, request: web.Request) -> web.StreamResponse:
        return await self._watch(request, request.match_info["ref"], request.match_info["token"])

    async def _watch(self, request: web.BaseRequest, ref: str, token: str) -> web.StreamResponse:
        job = await self.endpoint.watching.admit(ref, token)
        if isinstance(job, int):
            return self._answer(job)
        response = web.StreamResponse(headers={**progress.HEADERS, "Server": ANSWER_HEADERS["Server"]})
        await response.prepare(request)
        if request.method != "HEAD":
            async with aclosing(self.endpoint.watching.events(job)) as events:
                with suppress(ConnectionError):  # nobody watches any more
                    async for event in events:
                        await _write(request, response, event)
        return response

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        status, said = await self.endpoint.readiness()
        return web.json_response(said, status=status)


def _as_route(prefix: str) -> str:
    """Return *prefix* as aiohttp's router finds it, which finds no fixed part that has to be encoded."""
    plain = unquote(prefix)
    spelt = URL.build(path=plain).raw_path
    if "{" in prefix:  # it has variables of the user's
        return prefix
    if spelt == plain:
        return plain
    return f"/{{audioext_prefix:{re.escape(plain[1:])}|{re.escape(spelt[1:])}}}"


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


async def _write(request: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
    """Send *data*, or raise ConnectionResetError: the other side does not read it."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(data)
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        message = f"nobody read for {WRITE_SECONDS:g} s"
        raise ConnectionResetError(message) from error


async def _read_body(request: web.BaseRequest) -> bytes:
    """Return the body, or raise WebhookError: it is over our limit (413), or does not come in time (408)."""
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise too_big()
    content = request.content
    if content.at_eof():  # it is empty, or a middleware of the user's read it: then aiohttp has kept it
        return await request.read()
    if content.is_eof() and content.total_bytes <= MAX_BODY_BYTES:  # all of it is here
        return content.read_nowait()
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await content.readany():
                chunks.append(chunk)
                if content.total_bytes > MAX_BODY_BYTES:
                    raise too_big()
    except TimeoutError as error:
        message = f"its body did not come within {BODY_SECONDS:g} s"
        raise WebhookError(message, http_status=408) from error
    except RuntimeError as error:  # so aiohttp names a connection that was lost before anybody read
        raise ConnectionResetError(str(error)) from error
    return b"".join(chunks)
