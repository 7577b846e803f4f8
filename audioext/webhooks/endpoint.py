"""What the aiohttp receiver and the ASGI application share: the reply to each request, and the requests in progress."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, BinaryIO, TypeVar

import msgspec
from attrs import define, field, frozen

from audioext.errors import StoreError, WebhookError
from audioext.files.sources import Offers
from audioext.http import urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Headers, Webhook
from audioext.outage import Outage
from audioext.webhooks import progress
from audioext.webhooks.inbox import Inbox, too_big, unpack

T = TypeVar("T")

_log = logging.getLogger("audioext.receiver")

DRAIN_SECONDS = 10.0
"""How long a stopping receiver waits for accepted deliveries to be stored."""
READY_SECONDS = 1.0
"""How long the result of a readiness check is cached, since strangers may ask often."""
PROBE_SECONDS = 0.8
"""Timeout of the store in a readiness check: load balancers and orchestrators usually wait for one second."""
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
MAX_UNFINISHED_BYTES = 67_108_864
"""Total of all partly read bodies. Beyond it, a body over `REAL_BODY_BYTES` is refused with 503."""
REAL_BODY_BYTES = 65_536
CHUNK_BYTES = 65_536
"""Size of the chunks in which an offered file is read."""
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
"""One range of bytes; a file is sent whole if several are asked for."""
SERVER = {"Server": "audioext"}
ANSWER_HEADERS = {"Content-Type": "application/json; charset=utf-8", **SERVER}


@frozen
class Reply:
    """The reply to a request; its body is bytes, or an async generator of chunks."""

    status: int
    body: bytes | AsyncGenerator[bytes]
    headers: Mapping[str, str] = ANSWER_HEADERS


@define(kw_only=True, eq=False, repr=False)
class Endpoint:
    """The routes of one client: its inbox, its offered files, health checks and live progress."""

    inbox: Inbox
    offers: Offers
    watching: progress.Watching
    ready: Callable[[], Awaitable[Sequence[str]]]
    lifespan: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
    """Opens the client unless it is open, and returns the function that closes it again."""
    answered: Counter[int] = field(factory=Counter, init=False)
    """Number of replies by status; requests that were not valid HTTP count as 400."""
    is_serving: bool = field(default=False, init=False)
    """Whether the routes are served, so that providers can fetch files from them."""
    _checked_at: float = field(default=-math.inf, init=False)
    _outage: Outage = field(factory=lambda: Outage(_log, "not ready"), init=False)
    _warnings: int = field(default=0, init=False)
    in_progress: set[object] = field(factory=set, init=False)
    """Requests that are being answered. Remove one with `end`, which wakes `drain`."""
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _unfinished: int = field(default=0, init=False)

    def answer(self, status: int, headers: Mapping[str, str] = ANSWER_HEADERS) -> Reply:
        """Return the reply with *status*, and count it."""
        self.answered[status] += 1
        return Reply(status, answer_body(status), headers)

    async def take(
        self,
        path: str,
        headers: Headers,
        read: Callable[[], Awaitable[bytes]],
        *,
        is_packed: bool = False,
        is_guarded: bool = False,
    ) -> int:
        """Take a webhook and return the status to answer; its body is *read* only after its tag was checked.

        With *is_packed*, the body is still compressed as its `Content-Encoding` says. With *is_guarded*, a webhook
        whose body has arrived is stored even if the caller is cancelled.
        """
        try:
            route = self.inbox.admit(path)
            body = await read()
            if is_packed and "Content-Encoding" in headers:
                body = unpack(body, headers["Content-Encoding"])
        except WebhookError as error:
            return error.http_status
        hook = Webhook(path=path, headers=headers, body=body, received_at=self.inbox.journal.clock.now())
        work = self.inbox.take(route, hook)
        return await (self.finish(work) if is_guarded else work)

    async def gather(self, next_piece: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the whole body from chunks; an empty chunk ends it.

        Raises:
            WebhookError: the body is too big (413) or too slow (408), or too many large bodies are in progress (503).
        """
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while piece := await next_piece():
                    body += piece
                    self._unfinished += len(piece)
                    if len(body) > MAX_BODY_BYTES:
                        raise too_big()
                    if self._unfinished > MAX_UNFINISHED_BYTES and len(body) > REAL_BODY_BYTES:
                        raise WebhookError("too many large bodies are in progress", http_status=503)
        except TimeoutError as error:
            raise WebhookError(f"the body did not arrive within {BODY_SECONDS:g} s", http_status=408) from error
        finally:
            self._unfinished -= len(body)
        return bytes(body)

    async def get(self, method: str, path: str, headers: Headers) -> Reply:
        """Return the reply to a request that is not a POST."""
        kind, first, last = ("", "", *path.split("/"))[-3:]
        is_head = method == "HEAD"
        if method not in {"GET", "HEAD"}:
            return self._nothing(path, is_read=False)
        if last in {"healthz", "readyz"}:
            status, said = (200, {"status": "ok"}) if last == "healthz" else await self.readiness()
            return Reply(status, msgspec.json.encode(said))
        if kind == urls.FILES_SEGMENT:
            return self._file(first, headers, is_head=is_head)
        if kind == progress.SEGMENT:
            job = await self.watching.admit(first, last)
            if isinstance(job, int):
                return self.answer(job)
            return Reply(200, b"" if is_head else self.watching.events(job), {**progress.HEADERS, **SERVER})
        return self._nothing(path, is_read=True)

    def _nothing(self, path: str, *, is_read: bool) -> Reply:
        """Return 404 for an unknown path, or 405 for a method that the path does not allow."""
        try:
            urls.read_callback(path)
        except WebhookError:
            return self.answer(404) if is_read else self.answer(405, {**ANSWER_HEADERS, "Allow": "GET, HEAD"})
        return self.answer(405, {**ANSWER_HEADERS, "Allow": "POST"})

    def _file(self, token: str, asked: Headers, *, is_head: bool) -> Reply:
        # Not aiohttp's FileResponse, which would serve voice.wav.gz if that is beside voice.wav.
        offer = self.offers.find(token)
        file = None if offer is None else offer.open()
        if offer is None or file is None:
            return self.answer(404)
        size = os.fstat(file.fileno()).st_size
        headers = {**offer.headers, **SERVER, "Accept-Ranges": "bytes", "Content-Length": str(size)}
        if is_head:
            file.close()
            return Reply(200, b"", headers)
        # RFC 9110, 13.1.5 and 14.2: If-Range names a validator, and we give none.
        part = None if "If-Range" in asked else _range(asked.get("Range", ""), size)
        if part is None:
            return Reply(200, _pieces(file, size), headers)
        if not part:
            file.close()
            return self.answer(416, {**ANSWER_HEADERS, "Content-Range": f"bytes */{size}"})
        file.seek(part.start)
        headers |= {"Content-Range": f"bytes {part.start}-{part[-1]}/{size}", "Content-Length": str(len(part))}
        return Reply(206, _pieces(file, len(part)), headers)

    async def readiness(self) -> tuple[int, dict[str, object]]:
        """Return the reply to `/readyz`: whether the store works, and no details, since strangers can read it."""
        if not self.inbox.is_open:
            return 503, {"status": "not open"}
        now = self.inbox.journal.clock.monotonic()
        if not 0 <= now - self._checked_at < READY_SECONDS:
            self._checked_at = now
            why = self.inbox.outage.why
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    self._warnings = len(await self.ready())
            except (StoreError, TimeoutError) as error:
                why = str(error) or f"the store did not answer within {PROBE_SECONDS:g} s"
            if why:
                self._outage.note(StoreError(why))
            else:
                self._outage.over()
        if self._outage.why:
            return 503, {"status": "store down"}
        return 200, {"status": "ok", "warnings": self._warnings}

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of *work*, which goes on if the caller is cancelled; `drain` waits for it."""
        task = asyncio.create_task(work, name="audioext delivery")
        self.in_progress.add(task)
        task.add_done_callback(self.end)
        return await asyncio.shield(task)

    def end(self, request: object) -> None:
        """Remove an answered request from `in_progress`."""
        self.in_progress.discard(request)
        self._ended.set()

    async def drain(self) -> None:
        """Wait for the requests in progress now, not for later ones that kept-alive connections may bring."""
        accepted = set(self.in_progress)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while accepted & self.in_progress:
                    self._ended.clear()
                    await self._ended.wait()


async def _pieces(file: BinaryIO, size: int) -> AsyncGenerator[bytes]:
    with file:
        # Never more than the announced Content-Length, even if the file grows meanwhile.
        while piece := await asyncio.to_thread(file.read, min(CHUNK_BYTES, size)):
            size -= len(piece)
            yield piece


def _range(asked: str, size: int) -> range | None:
    """Return the bytes that a Range header asks for, none if the file has none of them, `None` for the whole file."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or found[0].endswith("=-"):
        return None
    first, last = found.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last or size), size - 1) + 1)


@cache
def answer_body(status: int) -> bytes:
    """Return the JSON body of a reply with *status*."""
    # Providers prescribe no body; kie.ai's OpenAPI shows this shape for the reply.
    word = "success" if status == 200 else "refused"  # noqa: PLR2004 - HTTP's own number
    return msgspec.json.encode({"code": status, "msg": word})
