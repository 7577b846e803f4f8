"""The inbox as an ASGI application, mounted into Starlette, FastAPI or Litestar, or served standalone.

ASGI 3, HTTP and lifespan: asgi.readthedocs.io/en/latest/specs/www.html, read 2026-11-26.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import quote

from attrs import frozen
from multidict import CIMultiDict, CIMultiDictProxy

from audioext.http.decoding import MAX_BODY_BYTES
from audioext.webhooks.endpoint import Endpoint, Reply
from audioext.webhooks.inbox import too_big

LONGEST_PATH = 8_192
"""Longest request path in bytes, as in our own server; some ASGI servers let a megabyte through."""

LOOK_SECONDS = 1.0
"""How often a stream looks whether its server is stopping."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class DisconnectedError(Exception):
    """The sender disconnected before it could be answered."""


@frozen
class AsgiReceiver:
    """An ASGI 3 application: `app.mount("/audio", client.receiver.asgi)`.

    Served standalone, it opens its client on startup and closes it on shutdown.
    """

    endpoint: Endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except DisconnectedError:
                return

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Open the client on startup, unless it is open already, and close it on shutdown."""
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
        if len(path) > LONGEST_PATH:
            await _send(self.endpoint.answer(404), receive, send)
            return
        given = scope.get("headers") or ()
        pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in given)
        headers = CIMultiDictProxy(CIMultiDict(pairs))
        if scope["method"] != "POST":
            await _send(await self.endpoint.get(scope["method"], path, headers), receive, send)
            return
        read = partial(_read_body, self.endpoint, receive, headers.get("Content-Length", ""))
        status = await self.endpoint.take(path, headers, read, is_packed=True, is_guarded=True)
        await _send(self.endpoint.answer(status), receive, send)


def _path(scope: Scope) -> str:
    """Return the path as sent, or the decoded path encoded again if the server gives no `raw_path`."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1").partition("?")[0] if raw else quote(scope["path"], errors="replace")


async def _read_body(endpoint: Endpoint, receive: Receive, length: str) -> bytes:
    if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
        raise too_big()
    is_more = True

    async def next_piece() -> bytes:
        nonlocal is_more
        piece = b""
        while is_more and not piece:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            is_more = message.get("more_body", False)
            piece = message.get("body", b"")
            if not piece:
                await asyncio.sleep(0)  # some servers return many empty messages at once and never yield to the loop
        return piece

    return await endpoint.gather(next_piece)


async def _send(reply: Reply, receive: Receive, send: Send) -> None:
    body, headers = reply.body, dict(reply.headers)
    if isinstance(body, bytes):
        headers.setdefault("Content-Length", str(len(body)))
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
    elif "Content-Length" in headers:  # a body of known length ends without watching for a disconnect
        await _send_pieces(body, send)
    else:
        await _send_until_gone(body, receive, send)


async def _send_until_gone(body: AsyncGenerator[bytes], receive: Receive, send: Send) -> None:
    sending = asyncio.create_task(_send_pieces(body, send), name="audioext pieces")
    gone = asyncio.create_task(_gone(receive), name="audioext pieces for nobody")
    done: set[asyncio.Task[None]] = set()
    try:
        while not done and not _is_stopping():
            done, _ = await asyncio.wait([sending, gone], timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)
    if not done:
        await send({"type": "http.response.body", "body": b""})


def _is_stopping() -> bool:
    """Return whether uvicorn, which handles SIGTERM, is stopping: it waits for open streams, and does not tell them."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", None) is True


async def _send_pieces(body: AsyncGenerator[bytes], send: Send) -> None:
    async with aclosing(body) as pieces:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
