"""The live page: what a client's jobs are at, in a browser on this machine; closed by a token, and read as data."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources

import msgspec
from aiohttp import web
from attrs import define, field
from yarl import URL

from audioext.client import Client
from audioext.errors import AudioextError, ConfigError, RequestError, StoreError
from audioext.http.urls import mask
from audioext.models.record import Record
from audioext.stores.base import Changed
from audioext.ui.objects import delivery_object, iso, job_object, whole_object

try:
    from aiohttp_sse import EventSourceResponse
except ImportError as error:
    raise ConfigError("the live page needs aiohttp-sse: pip install 'audioext[ui]'") from error

COOKIE = "audioext_page"
MAX_LISTED = 1_000
"""Jobs in the list, the newest ones."""
MAX_STREAMS = 32
"""Pages that may be open at a time."""
GATHER_SECONDS = 0.1
"""How long changes are gathered before a page is told of them."""
SHOWN_BYTES = 65_536
"""Of a delivery's body."""
WRITES_HEADER = "X-Audioext"
"""What a request that changes something must have: no form or link of another site can send it."""

_FILES = {"page.js": "text/javascript", "page.css": "text/css"}
_HEADERS = {
    # Nothing comes from elsewhere but sound and pictures, which the vendors' hosts have.
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
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@define(eq=False, kw_only=True, repr=False)
class Page:
    """The page of one client. Whoever opens `?token=` once has a cookie from then on; nobody else sees anything.

    `is_local` refuses who does not come from this machine, or comes through a proxy.
    """

    client: Client
    token: str = field(factory=lambda: secrets.token_urlsafe(32))
    is_local: bool = True
    _prefix: str = field(default="", init=False)
    _streams: set[EventSourceResponse] = field(factory=set, init=False)

    def add_to(self, app: web.Application, prefix: str = "/") -> str:
        """Mount the page into *app* under *prefix*, and return the path that opens it; whoever has it may look.

        Raises:
            ConfigError: the prefix does not begin with a slash.
        """
        if not prefix.startswith("/"):
            raise ConfigError(f"the prefix must begin with a slash, like '/audio/ui', not {prefix!r}")
        self._prefix = prefix.rstrip("/")
        for method, path, handler in (
            ("GET", "/", self._index),
            *(("GET", f"/{name}", self._file) for name in _FILES),
            ("GET", "/jobs", self._jobs),
            ("GET", "/jobs/{ref}", self._job),
            ("POST", "/jobs/{ref}/refresh", self._refresh),
            ("GET", "/deliveries/{id}", self._delivery),
            ("POST", "/deliveries/{id}/replay", self._replay),
            ("GET", "/events", self._events),
            ("GET", "/health", self._health),
        ):
            app.router.add_route(method, self._prefix + path, self._guarded(handler))
        if self._prefix:
            app.router.add_get(self._prefix, self._to_index)  # where the cookie does not count yet
        app.on_shutdown.append(self._end)
        return f"{self._prefix}/?token={self.token}"

    @asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncGenerator[URL]:
        """Serve the page by itself while the context is open, and yield the link that opens it.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        app = web.Application()
        path = self.add_to(app)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                message = f"cannot show the page at {host}:{port}: {error.strerror or error}; choose another port"
                raise ConfigError(message) from error
            yield URL.build(scheme="http", host=host, port=int(runner.addresses[0][1])).join(URL(path))
        finally:
            await runner.cleanup()

    # --- who may see it ----------------------------------------------------------------------------------

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._check(request)
            try:
                response = await handler(request)
            except RequestError as error:
                response = web.json_response({"problem": str(error)}, status=404)
            except AudioextError as error:  # the store is away, or the provider refused
                response = web.json_response({"problem": mask(str(error))}, status=503)
            if not response.prepared:
                response.headers.update(_HEADERS)
            return response

        return guarded

    def _check(self, request: web.Request) -> None:
        if self.is_local and not _is_local(request):
            raise web.HTTPForbidden(text="this page is for the machine that it runs on\n", headers=_HEADERS)
        given = request.cookies.get(COOKIE, "")
        if "token" in request.query and request.path == f"{self._prefix}/":
            given = request.query["token"]
        if not (given.isascii() and hmac.compare_digest(given, self.token)):
            raise web.HTTPUnauthorized(
                text="open the link with ?token= that was printed when the page began\n", headers=_HEADERS
            )
        if request.method == "POST" and WRITES_HEADER not in request.headers:
            raise web.HTTPForbidden(text=f"the header {WRITES_HEADER} is missing\n", headers=_HEADERS)

    # --- what it shows -----------------------------------------------------------------------------------

    async def _to_index(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(request.rel_url.with_path(f"{self._prefix}/", keep_query=True), headers=_HEADERS)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if "token" not in request.query:
            return _static("index.html", "text/html")
        response = web.Response(status=303, headers={"Location": f"{self._prefix}/"})  # the token leaves the address
        response.set_cookie(
            COOKIE, self.token, path=f"{self._prefix}/", httponly=True, samesite="Strict", secure=request.secure
        )
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        return _static(name, _FILES[name])

    async def _jobs(self, request: web.Request) -> web.StreamResponse:
        is_open = {"open": True, "ended": False}.get(request.query.get("state", ""))
        newest = deque[Record](maxlen=MAX_LISTED)
        async for job in self.client.jobs(open=is_open):
            newest.append(job.record)
        return _json([_row(record) for record in reversed(newest)])

    async def _job(self, request: web.Request) -> web.StreamResponse:
        ref = request.match_info["ref"]
        journal = await self.client.timeline(ref)
        record = (await self.client.job(ref)).record
        deliveries = [delivery async for delivery in self.client.deliveries(ref)]
        stored = await self.client.store.read(ref)
        index = stored.index if stored is not None else None
        due = {} if index is None else {"a status call": index.poll_at, "handlers": index.handle_at}
        whole = whole_object(record, journal, deliveries)
        return _json({**whole, **_row(record), "due": {what: iso(at) for what, at in due.items() if at is not None}})

    async def _delivery(self, request: web.Request) -> web.StreamResponse:
        delivery = await self.client.delivery(request.match_info["id"])
        # A body may quote the callback URL, whose last segment is a secret.
        body = mask(delivery.body[:SHOWN_BYTES].decode("utf-8", "replace"))
        return _json({**delivery_object(delivery), "body": body})

    async def _health(self, _: web.Request) -> web.StreamResponse:
        try:
            return _json({"problem": None, "warnings": await self.client.store.warnings()})
        except StoreError as error:
            return _json({"problem": str(error), "warnings": []})

    async def _refresh(self, request: web.Request) -> web.StreamResponse:
        job = await self.client.job(request.match_info["ref"])
        await job.refresh()
        return _json(_row(job.record))

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        return _json({"status": await self.client.replay(request.match_info["id"])})

    # --- news --------------------------------------------------------------------------------------------

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if len(self._streams) >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n", headers=_HEADERS)
        response = EventSourceResponse(headers=_HEADERS)
        self._streams.add(response)
        try:
            await response.prepare(request)
            async with response:
                teller = asyncio.create_task(self._tell(response), name="audioext page")
                try:
                    await response.wait()
                finally:
                    teller.cancel()
                    await asyncio.gather(teller, return_exceptions=True)
        finally:
            self._streams.discard(response)
        return response

    async def _tell(self, response: EventSourceResponse) -> None:
        """Send the row of each job that changes, until the store or the page is closed."""
        changed: dict[str, None] = {}
        news = asyncio.Event()
        listener = asyncio.create_task(self._listen(changed, news), name="audioext page changes")
        try:
            while not listener.done() or changed:
                await news.wait()
                await asyncio.sleep(GATHER_SECONDS)
                news.clear()
                refs = tuple(changed)
                changed.clear()
                for ref in refs:
                    await self._send(response, ref)
        except ConnectionError:
            pass  # nobody looks any more
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            with suppress(RuntimeError):
                response.stop_streaming()

    async def _listen(self, changed: dict[str, None], news: asyncio.Event) -> None:
        try:
            async for change in self.client.store.changes():
                changed[change.ref if isinstance(change, Changed) else ""] = None
                news.set()
        finally:
            news.set()

    async def _send(self, response: EventSourceResponse, ref: str) -> None:
        event, row = "again", None  # for changes that were missed, an orphan's delivery, or a store that is away
        with suppress(AudioextError):
            if ref:
                event, row = "job", _row((await self.client.job(ref)).record)
        await response.send(msgspec.json.encode(row, enc_hook=str).decode(), event=event)

    async def _end(self, _: web.Application) -> None:
        for stream in tuple(self._streams):
            with suppress(RuntimeError):  # it has not begun
                stream.stop_streaming()


def _row(record: Record) -> dict[str, object]:
    titles = (title for title in (*(track.title for track in record.tracks), record.request.title) if title)
    return {
        **job_object(record),
        "title": next(titles, None),
        "stages": {item.stage.name.lower(): round(item.at - record.created_at, 1) for item in record.reached},
        "playable": sum(track.audio_url is not None for track in record.tracks),
    }


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value, enc_hook=str), content_type="application/json")


def _static(name: str, content_type: str) -> web.Response:
    text = resources.files("audioext.ui").joinpath("static", name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=content_type)


def _is_local(request: web.Request) -> bool:
    """Say whether a request comes from this machine, to an address of this machine, and through no proxy."""
    if any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")):
        return False
    return _is_loopback(request.remote) and _is_loopback(URL(f"http://{request.host}").host)


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
