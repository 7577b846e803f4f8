"""The aiohttp face of the inbox: mounted into an app, or served by itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from attrs import define, field

from audioext.errors import ConfigError, StoreError, WebhookError
from audioext.files.serving import Offers
from audioext.http import urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Webhook
from audioext.webhooks.inbox import Inbox

_access_log = logging.getLogger("audioext.access")

DRAIN_SECONDS = 10.0
"""How long accepted deliveries get to become durable when the receiver stops."""
# aiohttp waits this long for connections that were opened and never used, so what matters is awaited before.
SHUTDOWN_SECONDS = 0.2
FILE_SEGMENTS = 3
"""Of the path of an offered file: `files`, its token, and a name that is for people."""
_ANSWER_HEADERS = {"Content-Type": "application/json; charset=utf-8"}


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
    is_serving: bool = field(default=False, init=False)
    """Whether somebody serves its routes, so that providers can ask it for files."""
    _runner: web.ServerRunner | None = field(default=None, init=False)
    _prefixes: tuple[str, ...] = field(default=("",), init=False)
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
        app.router.add_get(f"{base}/healthz", self._healthz)
        app.router.add_get(f"{base}/readyz", self._readyz)
        app.router.add_get(f"{base}/{urls.FILES_SEGMENT}/{{token}}/{{name}}", self._mounted_file)
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
        server = web.Server(self._serve, access_log_class=MaskedAccessLogger, access_log=wanted)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True)
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
        if request.method == "POST":
            # A provider that hangs up cannot cancel this, which is the default of aiohttp's own server.
            delivery = object()
            self._under_way.add(delivery)
            try:
                return await self._webhook(request)
            finally:
                self._end(delivery)
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
            return _answer(error.http_status)
        raise web.HTTPMethodNotAllowed(request.method, ["POST"])

    async def _mounted_webhook(self, request: web.Request) -> web.Response:
        """Answer a request to the user's application, which may cancel its handlers: so a task has to guard ours."""
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        task = asyncio.create_task(self._webhook(request), name="audioext delivery")
        self._under_way.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    async def _webhook(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        try:
            route = self.inbox.admit(path)  # before the body is read
        except WebhookError as error:
            return _answer(error.http_status)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _read_body(request)
        if body is None:
            return _answer(413)
        now = self.inbox.clock.now()
        hook = Webhook(path=path, headers=request.headers, body=body, received_at=now)
        return _answer(await self.inbox.take(route, hook))

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
        try:
            warnings = await self.ready()
        except StoreError as error:
            return web.json_response({"status": "store down", "error": str(error)}, status=503)
        return web.json_response({"status": "ok", "warnings": list(warnings)})


async def _ask_later(_: web.Request) -> None:
    """Do not answer `Expect: 100-continue` yet."""


async def _read_body(request: web.BaseRequest) -> bytes | None:
    """Return the body, `None` if it is over the limit, which the user's own app may have set higher."""
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        return None
    if request.content.at_eof():  # it is empty, or a middleware of the user's read it: then aiohttp has kept it
        return await request.read()
    chunks: list[bytes] = []
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _answer(status: int) -> web.Response:
    return web.Response(body=_answer_body(status), status=status, headers=_ANSWER_HEADERS)


@cache
def _answer_body(status: int) -> bytes:
    # Providers prescribe no body; kie.ai's OpenAPI shows this shape for the reply.
    word = "success" if status == 200 else "refused"  # noqa: PLR2004 - HTTP's own number
    return json.dumps({"code": status, "msg": word}).encode()
