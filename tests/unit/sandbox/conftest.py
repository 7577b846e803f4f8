"""A sandbox, a webhook receiver and a client on loopback for each test, all closed at its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
import pytest_asyncio
import soundfile
from aiohttp import web
from attrs import Factory, define, field, frozen

from audioext.sandbox import Sandbox
from tests.integration.conftest import music_is_encoded_once

__all__ = ["music_is_encoded_once"]  # each test opens the same music

#: Short tracks and no waiting, so that a file is rendered in milliseconds.
CHEAP: Mapping[str, Any] = {
    "speed": 1e9,
    "ready_seconds": 3.0,
    "extension_seconds": 1.0,
    "submit_limit": None,
    "parallel_limit": None,
    "retry_seconds": (1.0, 1.0, 1.0),
}


@frozen
class Received:
    """One webhook as it arrived."""

    headers: Mapping[str, str]
    body: Any


@define(eq=False)
class Listener:
    """A customer's own server, which takes webhooks and hosts sources."""

    url: str = ""
    received: list[Received] = Factory(list)
    #: The replies to the next webhooks; after them 200.
    statuses: list[int] = Factory(list)
    sources: dict[str, bytes] = Factory(dict)
    arrived: asyncio.Condition = field(factory=asyncio.Condition)
    #: Called before a webhook is answered.
    meanwhile: Callable[[Any], Awaitable[None]] | None = None

    @property
    def hook(self) -> str:
        """The callback URL."""
        return f"{self.url}/hook"

    @property
    def bodies(self) -> list[Any]:
        """All bodies, in order of arrival."""
        return [received.body for received in self.received]

    async def wait(self, count: int) -> None:
        """Wait for *count* webhooks."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)

    async def take(self, request: web.Request) -> web.Response:
        """Take one webhook."""
        body = msgspec.json.decode(await request.read())
        async with self.arrived:
            self.received.append(Received(dict(request.headers), body))
            self.arrived.notify_all()
        if self.meanwhile is not None:
            await self.meanwhile(body)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    async def source(self, request: web.Request) -> web.Response:
        """Serve a hosted file."""
        data = self.sources.get(request.match_info["name"])
        return web.Response(status=404) if data is None else web.Response(body=data)


@define(eq=False)
class World:
    """A sandbox, the listener that it calls, and an HTTP session."""

    sandbox: Sandbox
    listener: Listener
    session: aiohttp.ClientSession

    async def call(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        """Send a request with the API's key, and return status and decoded body."""
        raw = "musicgpt" in url
        key = self.sandbox.api_key
        headers = {"Authorization": key if raw else f"Bearer {key}"} | options.pop("headers", {})
        async with self.session.request(method, self.sandbox.url + url, headers=headers, **options) as response:
            data = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, msgspec.json.decode(data) if is_json else data

    async def get(self, url: str, **params: str) -> Any:
        """Send a GET and return the decoded body."""
        return (await self.call("GET", url, params=params))[1]

    async def post(self, url: str, body: object) -> Any:
        """Send JSON and return the decoded body."""
        return (await self.call("POST", url, json=body))[1]

    def kie_extend(self, **changes: object) -> dict[str, object]:
        """Return a good body for the legacy extend, which sunoapi.org takes as well."""
        body: dict[str, object] = {
            "defaultParamFlag": True,
            "audioId": self.sandbox.track_ids[0],
            "prompt": "on and on",
            "style": "Classical",
            "title": "Part two",
            "continueAt": 2,
            "model": "V5",
            "callBackUrl": self.listener.hook,
        }
        body |= changes
        return {name: value for name, value in body.items() if value is not None}

    def kie_upload(self, **changes: object) -> dict[str, object]:
        """Return a good body for the legacy upload-extend."""
        changes = {"audioId": None, "uploadUrl": self.sandbox.tune_url, "instrumental": False} | changes
        return self.kie_extend(**changes)

    def kie_instrumental(self, **changes: object) -> dict[str, object]:
        """Return a good body for the legacy add-instrumental."""
        body: dict[str, object] = {
            "uploadUrl": self.sandbox.voice_url,
            "title": "Rain",
            "tags": "piano",
            "negativeTags": "metal",
            "callBackUrl": self.listener.hook,
        }
        body |= changes
        return {name: value for name, value in body.items() if value is not None}

    async def kie_task(self, **changes: object) -> str:
        """Order an extension at kie.ai and return its task id, at once."""
        answer = await self.post("/kie/api/v1/generate/extend", self.kie_extend(**changes))
        return str(answer["data"]["taskId"])

    async def settled_task(self, **changes: object) -> str:
        """Order an extension at kie.ai and wait until all is over."""
        task_id = await self.kie_task(**changes)
        await self.sandbox.settled()
        return task_id

    async def info(self, task_id: str) -> Any:
        """Return the `data` of kie.ai's status call."""
        return (await self.get("/kie/api/v1/generate/record-info", taskId=task_id))["data"]


OpenWorld = Callable[..., Awaitable[World]]


@pytest_asyncio.fixture
async def open_world() -> AsyncIterator[OpenWorld]:
    """Return a function that opens a world, by default with settings that make it fast."""
    # In debug mode only real faults should be logged, not how long rendering takes.
    asyncio.get_running_loop().slow_callback_duration = 10
    async with AsyncExitStack() as stack:

        async def open_one(**settings: Any) -> World:
            listener = Listener()
            app = web.Application()
            app.router.add_post("/hook", listener.take)
            app.router.add_get("/source/{name}", listener.source)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            listener.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            sandbox = await stack.enter_async_context(Sandbox(**{**CHEAP, **settings}))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return World(sandbox, listener, session)

        yield open_one


@pytest_asyncio.fixture
async def world(open_world: OpenWorld) -> World:
    """Return a world with the default settings."""
    return await open_world()


@pytest.fixture
def tone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a WAV file of one second."""
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(8_000) / 3.0), 8_000)
    return path.read_bytes()
