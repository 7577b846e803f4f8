"""The ASGI face of the inbox: the same answers as the aiohttp one, in Starlette, FastAPI, Litestar or by itself.

ASGI 3, HTTP and lifespan: asgi.readthedocs.io/en/latest/specs/www.html, read 2026-11-26.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any, BinaryIO
from urllib.parse import quote

import msgspec
from attrs import frozen
from multidict import CIMultiDict

from audioext.errors import WebhookError
from audioext.http import urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Webhook
from audioext.http.urls import Route
from audioext.runtime.jobs import Job
from audioext.webhooks import progress
from audioext.webhooks.endpoint import ANSWER_HEADERS, BODY_SECONDS, LINK_SEGMENTS, Endpoint, answer_body, status_of_get
from audioext.webhooks.inbox import too_big
from audioext.webhooks.server import unpack

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CHUNK_BYTES = 262_144
_JSON = {"Content-Type": "application/json; charset=utf-8"}


class HungUpError(Exception):
    """The sender hung up, so that nobody hears an answer."""


@frozen
class AsgiReceiver:
    """An ASGI 3 application: `app.mount("/audio", client.receiver.asgi)`.

    Served by itself it opens its client as it starts, and closes it as it ends.
    """

    endpoint: Endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except HungUpError:
                return

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open the client as the server starts, unless the user did, and close it as the server ends."""
        await receive()
        try:
            close = await self.endpoint.lifespan()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        *_, before, last = ("", *path.split("/"))
        segments = path.split("/")[-LINK_SEGMENTS:]
        if scope["method"] == "POST":
            await self._reply(send, await self._take(scope, receive, path))
        elif scope["method"] not in {"GET", "HEAD"}:
            await self._reply(send, 405)
        elif last == "healthz":
            await _send(send, 200, msgspec.json.encode({"status": "ok"}), _JSON)
        elif last == "readyz":
            status, said = await self.endpoint.readiness()
            await _send(send, status, msgspec.json.encode(said), _JSON)
        elif segments[0] == urls.FILES_SEGMENT and len(segments) == LINK_SEGMENTS:
            await self._send_file(before, send, is_head=scope["method"] == "HEAD")
        elif segments[0] == progress.SEGMENT and len(segments) == LINK_SEGMENTS:
            await self._watch(segments[1], last, receive, send)
        else:
            await self._reply(send, status_of_get(path))

    async def _take(self, scope: Scope, receive: Receive, path: str) -> int:
        headers = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        inbox = self.endpoint.inbox
        try:
            route = inbox.admit(path)  # before the body is asked for
            length = headers.get("Content-Length", "")
            if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
                raise too_big()
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read_body(receive)
            if "Content-Encoding" in headers:
                body = unpack(body, headers["Content-Encoding"])
        except WebhookError as error:
            return error.http_status
        except TimeoutError:
            return 408
        return await self.endpoint.finish(self._store(route, Webhook(path=path, headers=headers, body=body)))

    async def _store(self, route: Route, hook: Webhook) -> int:
        return await self.endpoint.inbox.take(route, hook)

    async def _reply(self, send: Send, status: int) -> None:
        self.endpoint.answered[status] += 1
        await _send(send, status, answer_body(status), ANSWER_HEADERS)

    async def _watch(self, ref: str, token: str, receive: Receive, send: Send) -> None:
        job = await self.endpoint.watching.admit(ref, token)
        if isinstance(job, int):
            await self._reply(send, job)
            return
        await _start(send, 200, {**progress.HEADERS, "Server": ANSWER_HEADERS["Server"]})
        sending = asyncio.create_task(self._send_events(job, send), name="audioext progress")
        gone = asyncio.create_task(_gone(receive), name="audioext progress of nobody")
        await asyncio.wait([sending, gone], return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_events(self, job: Job, send: Send) -> None:
        async with aclosing(self.endpoint.watching.events(job)) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _send_file(self, token: str, send: Send, *, is_head: bool) -> None:
        offer = self.endpoint.offers.find(token)
        file = offer.open() if offer is not None else None
        if offer is None or file is None:
            await self._reply(send, 404)
            return
        with file:
            headers = {**offer.headers, "Content-Length": str(os.fstat(file.fileno()).st_size)}
            await _start(send, 200, headers)
            if not is_head:
                await _stream(file, send)
            await send({"type": "http.response.body", "body": b""})


def _path(scope: Scope) -> str:
    """Return the path as it was sent; servers that do not keep it give the decoded one."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1").partition("?")[0] if raw else quote(scope["path"])


async def _read_body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUpError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise too_big()
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(file: BinaryIO, send: Send) -> None:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _send(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    await _start(send, status, {**headers, "Content-Length": str(len(body))})
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
