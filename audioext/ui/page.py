"""A live page for a browser on this machine: protected by a token, filled with JSON, updated by server-sent events."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from importlib import resources

import msgspec
from aiohttp import web
from attrs import define, field
from yarl import URL

from audioext.errors import AudioextError, ConfigError, RequestError, lacks_extra
from audioext.http.urls import is_loopback, mask
from audioext.webhooks.server import BOUNDS, StrangersLog, defer_expect, listen, mounting

try:
    from aiohttp_sse import EventSourceResponse
except ImportError as error:
    raise ConfigError(lacks_extra("the live page", "ui")) from error

_log = logging.getLogger("audioext.ui")

COOKIE = "audioext_page_{port}"
"""The cookie's name; it has the port, since browsers share cookies between ports."""
MAX_LISTED = 1_000
"""The most rows in the list, the newest ones."""
MAX_STREAMS = 32
"""The most pages that may be open at a time."""
END_SECONDS = 1.0
"""How long the end of the page waits for streams whose browser reads no more."""
GATHER_SECONDS = 0.1
"""How long changes are gathered before they are sent to a page."""
WRITES_HEADER = "X-Audioext"
"""The header that a request that changes something must have: no form or link of another site can send it."""

_FILES = {"page.js": "text/javascript", "page.css": "text/css"}
_HEADERS = {
    # Only sound and pictures come from other hosts, the vendors'.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src http: https: data:; "
        "media-src http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]


@define(eq=False, kw_only=True, repr=False)
class Page:
    """A page of rows. Opening `?token=` once sets a cookie; requests without it are refused.

    `kind` (`jobs` or `sandbox`) tells the script what to show, and `routes` are the calls that it makes. `changes`
    yields the ref of each row that changed, or "" if all rows should be read again; `row` returns one row, or raises
    RequestError. `is_local` refuses requests from other machines or through a proxy.
    """

    kind: str
    routes: Sequence[Route]
    changes: Callable[[], AsyncGenerator[str]]
    row: Callable[[str], Awaitable[object]]
    token: str = field(factory=lambda: secrets.token_urlsafe(32))
    is_local: bool = True
    _prefix: str = field(default="", init=False)
    _streams: dict[EventSourceResponse, asyncio.Task[object] | None] = field(factory=dict, init=False)
    """The open event streams, each with the task that writes it."""

    def add_to(self, app: web.Application, prefix: str = "/") -> str:
        """Mount the page into *app* under *prefix*, and return the path with the token that opens it.

        Raises:
            ConfigError: as `mounting` does.
        """
        with mounting(app, prefix):
            self._prefix = prefix.rstrip("/")
            for method, path, handler in (
                ("GET", "/", self._index),
                *(("GET", f"/{name}", self._file) for name in _FILES),
                ("GET", "/events", self._events),
                *self.routes,
            ):
                app.router.add_route(method, self._prefix + path, self._guarded(handler), expect_handler=defer_expect)
            if self._prefix:
                # Without the final slash the cookie is not sent.
                app.router.add_get(self._prefix, self._to_index, expect_handler=defer_expect)
            app.on_shutdown.append(self._end)
        return f"{self._prefix}/?token={self.token}"

    @asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncGenerator[URL]:
        """Serve the page on a server of its own while the context is open, and yield the link that opens it.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        app = web.Application()
        path = self.add_to(app)
        app.router.add_route("*", "/{path:.*}", self._guarded(_nothing), expect_handler=defer_expect)
        runner = web.AppRunner(app, access_log=None, logger=StrangersLog(Counter()), **BOUNDS)
        try:
            port = await listen(runner, (host, port), "cannot show the page at", remedy="port")
            yield URL.build(scheme="http", host=host, port=port).join(URL(path))
        finally:
            await runner.cleanup()

    # --- access ------------------------------------------------------------------------------------------

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._check(request)
            try:
                response = await handler(request)
            except RequestError as error:
                response = web.json_response({"problem": str(error)}, status=404)
            except AudioextError as error:  # the store is down, or the provider refused
                response = web.json_response({"problem": mask(str(error))}, status=503)
            except (web.HTTPException, ConnectionError):
                raise
            except Exception:  # noqa: BLE001 - a bug of ours; aiohttp would log it with the page's token
                _log.exception("a request of the page failed")
                response = web.json_response({"problem": "this page failed; the log says why"}, status=500)
            if not response.prepared:
                response.headers.update(_HEADERS)
            return response

        return guarded

    def _check(self, request: web.Request) -> None:
        if self.is_local and not _is_local(request):
            raise web.HTTPForbidden(text="this page is only for the machine that serves it\n", headers=_HEADERS)
        given = request.cookies.get(_cookie(request), "")
        if "token" in request.query and request.path == f"{self._prefix}/":
            given = request.query["token"]
        if not (given.isascii() and hmac.compare_digest(given, self.token)):
            raise web.HTTPUnauthorized(
                text="open the link with ?token= that was printed at the start\n", headers=_HEADERS
            )
        if request.method == "POST" and WRITES_HEADER not in request.headers:
            raise web.HTTPForbidden(text=f"the header {WRITES_HEADER} is missing\n", headers=_HEADERS)

    # --- files -------------------------------------------------------------------------------------------

    async def _to_index(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(request.rel_url.with_path(f"{self._prefix}/", keep_query=True), headers=_HEADERS)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if "token" not in request.query:
            text = _static("index.html").replace('data-kind=""', f'data-kind="{self.kind}"')
            return web.Response(text=text, content_type="text/html")
        response = web.Response(
            status=303, headers={"Location": f"{self._prefix}/"}
        )  # to hide the token from the address bar
        path, name = f"{self._prefix}/", _cookie(request)
        response.set_cookie(name, self.token, path=path, httponly=True, samesite="Strict", secure=request.secure)
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        return web.Response(text=_static(name), content_type=_FILES[name])

    # --- events ------------------------------------------------------------------------------------------

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if len(self._streams) >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n", headers=_HEADERS)
        response, changed = EventSourceResponse(headers=_HEADERS), dict[str, None]()
        self._streams[response] = asyncio.current_task()
        listener = asyncio.create_task(self._listen(changed), name="audioext page changes")
        try:
            await response.prepare(request)
            async with response:
                # Until the browser closes the page, or the store or the page is closed.
                while response.is_connected() and (changed or not listener.done()):
                    await asyncio.sleep(GATHER_SECONDS)
                    refs = tuple(changed)
                    changed.clear()
                    for ref in refs:
                        await self._send(response, ref)
        except (ConnectionError, TimeoutError):
            pass  # the browser closed the page, or reads no more
        finally:
            self._streams.pop(response, None)
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        return response

    async def _listen(self, changed: dict[str, None]) -> None:
        async with aclosing(self.changes()) as refs:
            async for ref in refs:
                changed[ref] = None

    async def _send(self, response: EventSourceResponse, ref: str) -> None:
        event, row = "again", None  # for missed changes, an orphan's delivery, or a store that is down
        with suppress(AudioextError):
            if ref:
                event, row = "job", await self.row(ref)
        await response.send(msgspec.json.encode(row, enc_hook=str).decode(), event=event)

    async def _end(self, _: web.Application) -> None:
        for stream in tuple(self._streams):
            with suppress(RuntimeError):  # it has not started
                stream.stop_streaming()
        writing = [*filter(None, self._streams.values())]
        if writing:
            for each in (await asyncio.wait(writing, timeout=END_SECONDS))[1]:  # its browser reads no more
                each.cancel()


async def _nothing(_: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound(headers=_HEADERS)


def json_response(value: object, *, status: int = 200) -> web.Response:
    """Return *value* as JSON."""
    return web.Response(body=msgspec.json.encode(value, enc_hook=str), status=status, content_type="application/json")


def _cookie(request: web.Request) -> str:
    with suppress(ValueError):
        return COOKIE.format(port=request.url.port)
    return ""  # its Host header is not valid


def _static(name: str) -> str:
    return resources.files("audioext.ui").joinpath("static", name).read_text(encoding="utf-8")


def _is_local(request: web.Request) -> bool:
    """Return whether a request comes from this machine, to an address of this machine, and through no proxy."""
    if any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")):
        return False
    try:
        host = URL(f"http://{request.host}").host
    except ValueError:
        return False
    return is_loopback(request.remote) and is_loopback(host)
