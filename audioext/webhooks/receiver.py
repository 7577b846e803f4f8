"""The inbox on aiohttp: mounted into an app, or served standalone."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
from contextlib import aclosing, suppress
from functools import partial
from urllib.parse import unquote

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from attrs import define, field
from yarl import URL

from audioext.errors import ConfigError, WebhookError
from audioext.http import urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import as_data
from audioext.models import checks
from audioext.webhooks import progress
from audioext.webhooks.asgi import AsgiReceiver
from audioext.webhooks.endpoint import ANSWER_HEADERS, Endpoint, answer_body
from audioext.webhooks.inbox import too_big
from audioext.webhooks.server import BoundedServer, StrangersLog, defer_expect, listen, mounting

_log = logging.getLogger("audioext.receiver")
_access_log = logging.getLogger("audioext.access")

# aiohttp waits this long even for connections that were never used; `aclose` drains the requests before.
SHUTDOWN_SECONDS = 0.2
WRITE_SECONDS = 30.0
"""How long writing one chunk of a file or event stream may block on a slow reader."""


class MaskedAccessLogger(AbstractAccessLogger):
    """An access log that hides secret tags in paths: `web.run_app(app, access_log_class=MaskedAccessLogger)`."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write one line: the sender, the masked request, the status, the size and the seconds it took."""
        path, sender = urls.mask(request.path_qs), request.remote
        if "X-Forwarded-For" in request.headers:  # anyone can forge it: it is logged and never trusted
            sender = f"{sender} (for {as_data(request.headers['X-Forwarded-For'], longest=100)})"
        _access_log.info(
            '%s "%s %s" %d %d %.3f s', sender, request.method, path, response.status, response.body_length, time
        )


@define(kw_only=True, eq=False, repr=False)
class Receiver:
    """Answers webhooks and health checks (`/healthz`, `/readyz`), and serves offered files and live progress.

    Each client makes its own, `client.receiver`. To run it in an app of yours, use `add_to`, `add_ui` or `asgi`, and
    `Client(listen=None)`; the client calls the rest.
    """

    endpoint: Endpoint
    client: object = field(default=None, init=False)
    """The client whose jobs the live page shows."""
    address: tuple[str, int] | None = field(default=None, init=False)
    """The host and port that it listens on; `None` while it does not, or in your own app."""
    _server: BoundedServer | None = field(default=None, init=False)
    _runner: web.ServerRunner | None = field(default=None, init=False)

    @property
    def asgi(self) -> AsgiReceiver:
        """This receiver as an ASGI 3 application: `app.mount("/audio", client.receiver.asgi)`, with `listen=None`."""
        self.endpoint.is_serving = True
        return AsgiReceiver(self.endpoint)

    def add_to(self, app: web.Application, prefix: str = "/") -> None:
        """Add the routes to your own *app* under *prefix*, the path of `public_url`; the client needs `listen=None`.

        Raises:
            ConfigError: *app* is of another framework or has started, or the prefix cannot be used.
        """
        with mounting(app, prefix):
            app.on_shutdown.append(self.endpoint.watching.end)  # aiohttp would wait a minute or two for open streams
            base = _as_route(prefix.rstrip("/"))
            files, watched = f"{urls.FILES_SEGMENT}/{{token}}/{{name}}", f"{progress.SEGMENT}/{{ref}}/{{token}}"
            routes = [(method, path) for path in ("healthz", "readyz", files, watched) for method in ("GET", "HEAD")]
            # `defer_expect`: a body is only asked for after its tag was checked.
            for method, path in (*routes, ("*", "{provider}/{ref}/{tag}")):
                app.router.add_route(method, f"{base}/{path}", self._mounted, expect_handler=defer_expect)
            if "{" not in prefix:  # it has variables of the user's
                app.router.add_route("*", _as_spelt(prefix), self._mounted, expect_handler=defer_expect)
        self.endpoint.is_serving = True

    def add_ui(self, app: web.Application, prefix: str = "/audio/ui", *, is_local: bool = True) -> str:
        """Add the live page to your own *app*, and return the path that opens it, with its token.

        It shows all jobs with their requests, and can replay webhooks. With *is_local* it refuses requests from other
        machines or through a proxy; otherwise the token alone keeps strangers out.

        Raises:
            ConfigError: an argument is not usable, as in `add_to`, or aiohttp-sse is not installed.
        """
        if (complaint := checks.flag(is_local)) is not None:
            raise ConfigError(f"is_local {complaint}")
        # Imported late: `ui` is a layer above us, needs an extra, and most clients show no page.
        page = importlib.import_module("audioext.ui.jobs").jobs_page(self.client, is_local=is_local)
        return str(page.add_to(app, prefix))

    async def start(self, host: str, port: int) -> int:
        """Listen on *host* and *port* and return the port, which the system chooses if *port* is 0.

        The routes work at the root and under any prefix, since a proxy may or may not strip the path of `public_url`.

        Raises:
            ConfigError: cannot listen on the address.
        """
        self.endpoint.is_serving = True
        # An access log costs half of the throughput, so it is only made if its logger is enabled.
        wanted = _access_log if _access_log.isEnabledFor(logging.INFO) else None
        # The low-level server, because an application's router takes a fifth of a webhook's time.
        self._server = BoundedServer(
            self._serve,
            access_log_class=MaskedAccessLogger,
            access_log=wanted,
            logger=StrangersLog(self.endpoint.answered),
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=SHUTDOWN_SECONDS)
        port = await listen(
            self._runner, (host, port), "cannot listen on", remedy="`listen=`", backlog=self._server.backlog
        )
        self.address = (host, port)
        return port

    async def aclose(self) -> None:
        """Stop listening, then store and answer the accepted requests before closing their connections."""
        if self._runner is not None:
            for site in tuple(self._runner.sites):
                await site.stop()
        await self.endpoint.drain()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = self.address = None

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to our own server. By aiohttp's default, a client that disconnects does not cancel it."""
        assert self._server is not None  # noqa: S101 - it calls this handler
        self._server.work(request.protocol)
        delivery = object()
        self.endpoint.in_progress.add(delivery)
        try:
            if request.method == "POST":
                read = partial(_read_body, request, self.endpoint)
                path = request.rel_url.raw_path
                return self._answer(await self.endpoint.take(path, request.headers, read, is_packed=True))
            return await self._get(request)
        except web.RequestPayloadError:
            raise  # aiohttp answers it
        except ConnectionError as error:
            _log.info("a sender disconnected: %s", error)
            return self._answer(400)  # for the access log: the sender is gone
        except Exception:  # noqa: BLE001 - a bug of ours; aiohttp would log it with the path, which holds a secret
            _log.exception("a request could not be answered")
            return self._answer(500)
        finally:
            self.endpoint.end(delivery)
            self._server.rest(request.protocol)

    async def _mounted(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to the user's app. It may cancel its handlers, so a webhook runs in a task of its own."""
        if request.method == "POST":
            read = partial(_read_body, request, self.endpoint)
            work = self.endpoint.take(request.rel_url.raw_path, request.headers, read)
            return self._answer(await self.endpoint.finish(work))
        return await self._get(request)

    def _answer(self, status: int) -> web.Response:
        self.endpoint.answered[status] += 1
        return web.Response(body=answer_body(status), status=status, headers=ANSWER_HEADERS)

    async def _get(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self.endpoint.get(request.method, request.rel_url.raw_path, request.headers)
        if isinstance(answer.body, bytes):
            return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
        # Written here and not by aiohttp after we return, when `rest` already counts the connection as silent.
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.force_close()  # a file may shrink below its Content-Length meanwhile
        async with aclosing(answer.body) as pieces:
            await response.prepare(request)
            with suppress(ConnectionError):  # the reader is gone
                async for piece in pieces:
                    await _write(request, response, piece)
        return response


def _as_route(prefix: str) -> str:
    """Return *prefix* as a route that aiohttp matches: its router never matches a fixed part that needs encoding."""
    plain = unquote(prefix)
    spelt = URL.build(path=plain).raw_path
    if "{" in prefix:  # the user's own variables
        return prefix
    if spelt == plain:
        return plain
    return f"/{{audioext_prefix:{re.escape(plain[1:])}|{re.escape(spelt[1:])}}}"


def _as_spelt(prefix: str) -> str:
    """Return the route of callbacks under *prefix* with slashes that a proxy doubled, encoded or appended.

    aiohttp's router treats such paths as different. A ref and a tag of our shape keep it off the user's own routes.
    """
    parts = [re.escape(part) for part in unquote(prefix).split("/") if part]
    return f"/{{audioext_callback:/*{'(?:/|%2F)+'.join((*parts, urls.PROVIDER, urls.REF, urls.TAG))}/*}}"


async def _write(request: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
    """Send *data*, or raise ConnectionResetError if the reader blocks for `WRITE_SECONDS`."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(data)
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"the reader was blocked for {WRITE_SECONDS:g} s") from error


def _send_continue(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`, so that the sender sends the body; refuse any other expectation."""
    if request.headers["Expect"].lower() != "100-continue":
        raise WebhookError("Expect must be 100-continue", http_status=417)
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read_body(request: web.BaseRequest, endpoint: Endpoint) -> bytes:
    """Return the body, or raise WebhookError as `Endpoint.gather` does."""
    if "Expect" in request.headers:
        _send_continue(request)
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise too_big()
    content = request.content
    if content.at_eof():  # empty, or already read by the user's middleware: then aiohttp has kept it
        return await request.read()
    if content.is_eof() and content.total_bytes <= MAX_BODY_BYTES:  # it has arrived whole
        return content.read_nowait()
    try:
        return await endpoint.gather(content.readany)
    except RuntimeError as error:  # aiohttp raises it for a connection that was lost before the first read
        raise ConnectionResetError(str(error)) from error
