"""The sandbox: it starts and stops the servers of the four APIs, which tests control in process or over HTTP."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Self

import msgspec
from aiohttp import web
from attrs import frozen
from yarl import URL

from audioext.sandbox.apis import kie, musicgpt, sunoapi, vidgo
from audioext.sandbox.apis._api import JSON_TYPE, Handler, json_response, read_json_object
from audioext.sandbox.library import READY_IDS, TUNE_KEY, VOICE_KEY
from audioext.sandbox.models import Refusal
from audioext.sandbox.state import Stage, State

SHUTDOWN_SECONDS = 0.5  # how long open requests may go on when the sandbox closes
BUILDERS = {"kie": kie.build, "sunoapi": sunoapi.build, "vidgo": vidgo.build, "musicgpt": musicgpt.build}


@frozen
class ControlBody:
    """The body of a control request: stages to hold or release, or faults and which tasks they affect."""

    stages: Sequence[Stage] = ()
    faults: Sequence[str] = ()
    title: str | None = None
    times: int | None = None


_CONTROL_NAMES = {"hold": ("stages",), "release": ("stages",), "faults": ("faults", "title", "times")}


class Sandbox(State):
    """A stand-in for the four APIs on this machine: wire formats, webhooks, and playable audio.

    Create it with its settings (see `SandboxSettings`) and use it in ``async with``::

        async with Sandbox(speed=1e6, faults=["duplicate"]) as sandbox:
            client = Client(Kie(base_url=sandbox.bases["kie"], api_key=sandbox.api_key), ...)

    Each API answers below a path of one server (`bases`), and at a bare origin of its own (`origins`).
    """

    async def __aenter__(self) -> Self:
        """Start serving.

        Raises:
            MissingExtraError: numpy or soundfile are not installed.
            OSError: The address is taken.
        """
        if self._origins:  # it ran before: start without the old tasks
            self.__attrs_post_init__()
        async with AsyncExitStack() as stack:
            await self._open(stack)
            app = web.Application()
            for name, build in BUILDERS.items():
                app.add_subapp(f"/{name}", build(self))
            app.router.add_get("/files/{key:.+}", self.library.serve)  # HEAD comes with GET
            app.router.add_get("/control/{verb:faults|submissions}", self._control)
            app.router.add_post("/control/{verb:faults|hold|release}", self._control)
            app.router.add_delete("/control/{verb:faults}", self._control)
            address = await self._serve(stack, app, self.port)
            for index, (name, build) in enumerate(BUILDERS.items()):
                port = self.origin_port and self.origin_port + index
                self._origins[name] = await self._serve(stack, build(self), port)
            self._url = self.public_url or address
            self.library.base = URL(self._url)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop serving."""
        await self.aclose()

    async def aclose(self) -> None:
        """Stop serving, cancel all tasks, remove all files. A second call does nothing."""
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The server's address; raises RuntimeError: it has not started."""
        if not self._url:
            raise RuntimeError("the sandbox is not running; use it in `async with`")
        return self._url

    @property
    def bases(self) -> Mapping[str, str]:
        """Each API's base URL, by name."""
        return {name: f"{self.url}/{name}" for name in BUILDERS}

    def base_of(self, provider: str) -> str:
        """Return the base URL for that *provider*; `kie` and `kie-jobs` share one API."""
        return self.bases["kie" if provider == "kie-jobs" else provider]

    @property
    def origins(self) -> Mapping[str, str]:
        """Each API's address without a path, by name, for clients that accept no path in a base URL.

        Files stay at `url`: a `Client` at an origin follows its links only with `allow_hosts=[sandbox.url]`.
        """
        return self._origins

    @property
    def track_ids(self) -> tuple[str, ...]:
        """Ids of ready tracks, known to every API that extends by id."""
        return READY_IDS

    @property
    def tune_url(self) -> str:
        """A ready piece of music, as a source by URL."""
        return f"{self.url}/files/{TUNE_KEY}"

    @property
    def voice_url(self) -> str:
        """A ready sung line, as a source by URL."""
        return f"{self.url}/files/{VOICE_KEY}"

    def describe(self) -> Mapping[str, object]:
        """Return all that a client needs, in JSON's types."""
        return {
            "url": self.url,
            "bases": dict(self.bases),
            "origins": dict(self.origins),
            "api_key": self.api_key,
            "hmac_key": self.hmac_key,
            "speed": self.speed,
            "track_ids": list(self.track_ids),
            "tune_url": self.tune_url,
            "voice_url": self.voice_url,
            "control": f"{self.url}/control",
        }

    async def _control(self, request: web.Request) -> web.StreamResponse:
        """Serve other processes: faults by POST, GET and DELETE, ``{"stages": [...]}`` by POST, submissions by GET."""
        verb, method = request.match_info["verb"], request.method
        try:
            # Against cross-site requests: without CORS, a foreign page cannot POST with this content type.
            has_body = method == "POST" and (await request.read() or request.content_type != JSON_TYPE)
            body = await read_json_object(request) if has_body else {}
            if body and (strange := body.keys() - _CONTROL_NAMES[verb]):
                takes = " and ".join(_CONTROL_NAMES[verb])
                raise ValueError(f"/control/{verb} takes {takes}, not {', '.join(sorted(strange))}")
            given = msgspec.convert(body, ControlBody)
            if verb == "hold":
                self.hold(*given.stages)
            elif verb == "release":
                self.release(*given.stages)
            elif verb == "faults" and method == "DELETE":
                self.clear_script()
            elif verb == "faults":
                self.script(*given.faults, title=given.title, times=given.times)
        except (Refusal, ValueError) as error:
            return json_response({"error": str(error)}, status=400)
        if verb == "submissions":
            return json_response({"submissions": self.submissions})
        return json_response({"faults": self.scripted} if verb == "faults" else {"held": self.held})

    async def _serve(self, stack: AsyncExitStack, app: web.Application, port: int) -> str:
        """Start one server, and return its address."""
        app.on_shutdown.append(self._stop)  # first, since the runner waits for handlers, and they for webhooks
        if _is_loopback(self.host):
            app.middlewares.append(self._keep_pages_out)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.host, port).start()
        host, found = runner.addresses[0][:2]
        return str(URL.build(scheme="http", host=host, port=found))

    @web.middleware
    async def _keep_pages_out(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests with a foreign Host, against DNS rebinding by a page in a browser on this machine."""
        try:
            asked = URL(f"http://{request.host}").host
        except ValueError:
            asked = None
        if not _is_loopback(asked) and asked != URL(self.public_url or "").host:
            raise web.HTTPForbidden(text="this sandbox answers only under its own address or its public_url\n")
        return await handler(request)


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
