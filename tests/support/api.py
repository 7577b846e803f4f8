"""A fake kie.ai whose answers a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field

import audioext as ax

BRISK = ax.Pace(first=0.01, every=0.02, slowest=0.05, quiet=30.0)
"""A pace for status calls to an API whose tasks are done at once."""


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Return the head of a request, b"" if the client disconnected before sending one."""
    with suppress(asyncio.IncompleteReadError):
        return await reader.readuntil(b"\r\n\r\n")
    return b""


@define(eq=False, repr=False)
class Api:
    """A POST waits for `gate`, then gets the next of `codes`, or creates a task; status calls use `status_codes`."""

    codes: list[int] = field(factory=list)
    status_codes: list[int] = field(factory=list)
    on_post: Callable[[Api], Awaitable[object]] | None = None
    """Called while a POST waits for its answer."""
    is_done: bool = True
    word: str = "PENDING"
    """The status of a task that is not done."""
    posts: list[dict[str, Any]] = field(factory=list)
    made: list[str] = field(factory=list)
    arrived: asyncio.Event = field(factory=asyncio.Event)
    asked: asyncio.Event = field(factory=asyncio.Event)
    """Set by a status call when no `status_codes` are left."""
    gate: asyncio.Event = field(factory=asyncio.Event)
    base: str = ""
    recoveries: list[dict[str, Any]] = field(factory=list)
    recovery_asked: asyncio.Event = field(factory=asyncio.Event)
    """Set by a status call for a recovery."""
    recovery_gate: asyncio.Event = field(factory=asyncio.Event)
    """The POST of a recovery waits for this."""
    recovery_key: str = "task_id"
    recovered: dict[str, Any] | None = None
    """The answer to a recovery's status call; None: it is still running."""
    link: str = "http://files.test/a.mp3"
    """The track's URL in status calls."""
    track: str = "a"
    """The track's id in status calls."""

    def provider(self, **settings: Any) -> ax.Kie:
        """Return a provider for this API, with a quick pace and no limits."""
        chosen = {"base_url": self.base, "limits": ax.Limits(), "pace": BRISK, **settings}
        return ax.Kie("0123456789abcdef0123", **chosen)

    async def submit(self, request: web.Request) -> web.Response:
        """Answer a POST: refuse it with the next code, or create a task."""
        self.posts.append(await request.json())
        name = f"task-{len(self.posts)}"
        self.arrived.set()
        await self.gate.wait()
        if self.on_post is not None:
            await self.on_post(self)
        code = self.codes.pop(0) if self.codes else 200
        if code == 0:
            assert request.transport is not None
            request.transport.abort()  # the answer is lost
        if code != 200:
            return web.json_response({"code": code, "msg": "the vendor's words", "data": None})
        self.made.append(name)
        return _answer({"taskId": name})

    async def status(self, request: web.Request) -> web.Response:
        """Answer that a task is complete, or still running."""
        code = self.status_codes.pop(0) if self.status_codes else 200
        if not self.status_codes:
            self.asked.set()
        if code != 200:
            return web.Response(status=code)
        found: dict[str, Any] = {"taskId": request.query["taskId"], "status": "SUCCESS" if self.is_done else self.word}
        tracks = [{"id": self.track, "audioUrl": self.link, "duration": 3.0}]
        return _answer({**found, "response": {"sunoData": tracks if self.is_done else []}})

    async def recover(self, request: web.Request) -> web.Response:
        """Answer the POST of a recovery."""
        self.recoveries.append(await request.json())
        await self.recovery_gate.wait()
        return web.json_response({"code": 200, "msg": "success", self.recovery_key: f"recovery-{len(self.recoveries)}"})

    async def recovery(self, _: web.Request) -> web.Response:
        """Answer the status call of a recovery."""
        self.recovery_asked.set()
        if self.recovered is None:
            return web.json_response({"code": 201, "msg": "running", "data": None})
        return web.json_response(self.recovered)

    async def call_back(self, stage: str, task_id: str = "task-1", *, post: int = -1, code: int = 200) -> int:
        """Send the webhook of *stage* for the last POST, or for *post*, and return the status of its reply."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.posts[post]["callBackUrl"], json=callback(stage, task_id, code=code)) as response,
        ):
            return response.status


def callback(stage: str, task_id: str | None = "task-1", *, track: str = "a", code: int = 200) -> dict[str, Any]:
    """Return the body of kie.ai's webhook of *stage*, as docs.kie.ai/suno-api/extend-music-callbacks shows it."""
    audio = f"http://files.test/{track}.mp3"
    tracks = [] if stage in {"text", "error"} else [{"id": track, "audio_url": audio, "title": "Rain", "duration": 3.0}]
    named = {} if task_id is None else {"task_id": task_id}
    return {"code": code, "msg": "", "data": {"callbackType": stage, **named, "data": tracks}}


@asynccontextmanager
async def serve_api() -> AsyncIterator[Api]:
    """Serve an API whose gates are open."""
    api = Api()
    api.gate.set()
    api.recovery_gate.set()
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/v1/generate/extend", api.submit),
            web.post("/api/v1/generate/upload-extend", api.submit),
            web.get("/api/v1/generate/record-info", api.status),
            web.post("/api/v1/suno/recovery", api.recover),
            web.get("/api/v1/suno/recovery/record-info", api.recovery),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield api
    finally:
        api.gate.set()
        api.recovery_gate.set()
        await runner.cleanup()


def _answer(data: object) -> web.Response:
    return web.json_response({"code": 200, "msg": "success", "data": data})


def failing(store: ax.MemoryStore) -> Callable[[Api], Awaitable[None]]:
    """Return an `on_post` that makes *store* fail during a POST."""

    async def fail(_: Api) -> None:
        store.fail("the disk is full")

    return fail


def tasks_of_ours() -> list[str]:
    """Return the names of the clients' asyncio tasks that still run."""
    return [name for name in (task.get_name() for task in asyncio.all_tasks()) if name.startswith("audioext")]
