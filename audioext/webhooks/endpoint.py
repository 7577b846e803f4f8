"""What the aiohttp and the ASGI face of the inbox share: what is answered to each request, and what is under way."""

from __future__ import annotations

import asyncio
import logging
import math
import os
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
"""How long accepted deliveries get to become durable when the receiver stops."""
READY_SECONDS = 1.0
"""How long an answer to who asks whether we are ready is given again."""
PROBE_SECONDS = 0.8
"""How long the store may take to answer: who asks whether we are ready usually waits for one second."""
BODY_SECONDS = 10.0
"""How long a body may take to come."""
MAX_UNFINISHED_BYTES = 67_108_864
"""Of bodies that are not whole, together; beyond it those are put off that have more than a real one has."""
REAL_BODY_BYTES = 65_536
CHUNK_BYTES = 65_536
"""Read of an offered file at a time."""
SERVER = {"Server": "audioext"}
ANSWER_HEADERS = {"Content-Type": "application/json; charset=utf-8", **SERVER}


@frozen
class Reply:
    """What is answered to a request: its body as bytes, or as pieces that come one after the other."""

    status: int
    body: bytes | AsyncGenerator[bytes]
    headers: Mapping[str, str] = ANSWER_HEADERS


@define(kw_only=True, eq=False, repr=False)
class Endpoint:
    """The inbox with the files on offer, as one client has them."""

    inbox: Inbox
    offers: Offers
    watching: progress.Watching
    ready: Callable[[], Awaitable[Sequence[str]]]
    lifespan: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
    """Opens the client, unless it is open, and returns what closes it again."""
    answered: Counter[int] = field(factory=Counter, init=False)
    """How many requests got each status; those that were no HTTP count as 400."""
    is_serving: bool = field(default=False, init=False)
    """Whether somebody serves its routes, so that providers can ask it for files."""
    _looked_at: float = field(default=-math.inf, init=False)
    _outage: str = field(default="", init=False)
    _lack: Outage = field(factory=lambda: Outage(_log, "not ready"), init=False)
    _warnings: int = field(default=0, init=False)
    under_way: set[object] = field(factory=set, init=False)
    """Requests that are being answered; who takes one out calls `end`."""
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    _unfinished: int = field(default=0, init=False)

    def answer(self, status: int, headers: Mapping[str, str] = ANSWER_HEADERS) -> Reply:
        """Return the answer of *status*, which is counted."""
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
        """Take a webhook, whose body is *read* once its tag was checked, and return the status to answer it with.

        One *is_packed* whose body is as compressed as its headers say. One *is_guarded* is stored even where the
        caller is cancelled, once its body came.
        """
        try:
            route = self.inbox.admit(path)
            body = await read()
            if is_packed and "Content-Encoding" in headers:
                body = unpack(body, headers["Content-Encoding"])
        except WebhookError as error:
            return error.http_status
        hook = Webhook(path=path, headers=headers, body=body, received_at=self.inbox.clock.now())
        work = self.inbox.take(route, hook)
        return await (self.finish(work) if is_guarded else work)

    async def gather(self, next_piece: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return a body that comes in pieces, of which an empty one is the last.

        Raises:
            WebhookError: it is over our limit (413), does not come in time (408), or too many are under way (503).
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
                        raise WebhookError("too many large bodies are on their way", http_status=503)
        except TimeoutError as error:
            raise WebhookError(f"its body did not come within {BODY_SECONDS:g} s", http_status=408) from error
        finally:
            self._unfinished -= len(body)
        return bytes(body)

    async def get(self, method: str, path: str) -> Reply:
        """Return the answer to what is no POST."""
        kind, first, last = ("", "", *path.split("/"))[-3:]
        is_head = method == "HEAD"
        if method not in {"GET", "HEAD"}:
            return self._nothing(path, is_read=False)
        if last in {"healthz", "readyz"}:
            status, said = (200, {"status": "ok"}) if last == "healthz" else await self.readiness()
            return Reply(status, msgspec.json.encode(said))
        if kind == urls.FILES_SEGMENT:
            return self._file(first, is_head=is_head)
        if kind == progress.SEGMENT:
            job = await self.watching.admit(first, last)
            if isinstance(job, int):
                return self.answer(job)
            return Reply(200, b"" if is_head else self.watching.events(job), {**progress.HEADERS, **SERVER})
        return self._nothing(path, is_read=True)

    def _nothing(self, path: str, *, is_read: bool) -> Reply:
        """Return the answer to who asks for nothing that we have, or in a way that we do not answer."""
        try:
            urls.read_callback(path)
        except WebhookError:
            return self.answer(404) if is_read else self.answer(405, {**ANSWER_HEADERS, "Allow": "GET, HEAD"})
        return self.answer(405, {**ANSWER_HEADERS, "Allow": "POST"})

    def _file(self, token: str, *, is_head: bool) -> Reply:
        # Opened by ourselves: aiohttp's own FileResponse would serve voice.wav.gz where that lies beside voice.wav.
        offer = self.offers.find(token)
        file = None if offer is None else offer.open()
        if offer is None or file is None:
            return self.answer(404)
        size = os.fstat(file.fileno()).st_size
        headers = {**offer.headers, **SERVER, "Content-Length": str(size)}
        if is_head:
            file.close()
        return Reply(200, b"" if is_head else _pieces(file, size), headers)

    async def readiness(self) -> tuple[int, dict[str, object]]:
        """Say whether the store takes entries, and no more: strangers read it, and may ask often."""
        now = self.inbox.clock.monotonic()
        if not 0 <= now - self._looked_at < READY_SECONDS:
            self._looked_at = now
            self._outage = self.inbox.outage
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    warnings = await self.ready()
            except (StoreError, TimeoutError) as error:
                self._outage = str(error) or f"the store did not answer within {PROBE_SECONDS:g} s"
            else:
                self._warnings = len(warnings)
            if self._outage:
                self._lack.note(StoreError(self._outage))
            else:
                self._lack.over()
        if self._outage:
            return 503, {"status": "store down"}
        return 200, {"status": "ok", "warnings": self._warnings}

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what *work* returns; it goes on where the caller is cancelled, and `drain` waits for it."""
        task = asyncio.create_task(work, name="audioext delivery")
        self.under_way.add(task)
        task.add_done_callback(self.end)
        return await asyncio.shield(task)

    def end(self, request: object) -> None:
        """Note that a request was answered."""
        self.under_way.discard(request)
        self._ended.set()

    async def drain(self) -> None:
        """Wait for what is under way now; connections that are kept alive may go on to bring more."""
        accepted = set(self.under_way)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while accepted & self.under_way:
                    self._ended.clear()
                    await self._ended.wait()


async def _pieces(file: BinaryIO, size: int) -> AsyncGenerator[bytes]:
    with file:
        # No more than was announced, however long the file gets meanwhile.
        while piece := await asyncio.to_thread(file.read, min(CHUNK_BYTES, size)):
            size -= len(piece)
            yield piece


@cache
def answer_body(status: int) -> bytes:
    """Return the body of an answer with *status*."""
    # Providers prescribe no body; kie.ai's OpenAPI shows this shape for the reply.
    word = "success" if status == 200 else "refused"  # noqa: PLR2004 - HTTP's own number
    return msgspec.json.encode({"code": status, "msg": word})
