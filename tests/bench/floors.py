"""The least code that does the duties of a webhook or a submit, as processes measured like `tests.bench.peers`.

    python -m tests.bench.floors WHAT [FILE] [BASE]

`webhooks` checks the tag, decodes into msgspec structs, stores the raw body and the job's row (by group commit on a
thread, if a FILE is given), wakes the waiter and replies. `submits` stores the request, POSTs it and stores the answer.
Nothing is checked that could go wrong, no other process is told, nothing is logged or counted: what is left between
this and our own figures is what those promises cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import sqlite3
import sys
import threading
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct

from tests.bench import peers

SCHEMA = """PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
CREATE TABLE jobs (id INTEGER PRIMARY KEY, ref TEXT UNIQUE, stage TEXT, is_open INT, poll_at REAL);
CREATE TABLE entries (id INTEGER PRIMARY KEY, ref TEXT, said TEXT, body BLOB, UNIQUE (ref, said));"""
INSERT_JOB = "INSERT INTO jobs (ref, stage, is_open, poll_at) VALUES (?, 'submitted', 1, 0)"
UPDATE_JOB = "UPDATE jobs SET stage = ?, is_open = ?, poll_at = NULL WHERE ref = ?"
INSERT_ENTRY = "INSERT OR IGNORE INTO entries (ref, said, body) VALUES (?, ?, ?)"


class Track(Struct):
    """A track of kie.ai's webhook."""

    id: str
    audio_url: str
    stream_audio_url: str
    image_url: str
    title: str
    duration: float


class Data(Struct):
    """The `data` of kie.ai's webhook."""

    callbackType: str  # noqa: N815 - the wire's
    task_id: str
    data: list[Track]


class Callback(Struct):
    """kie.ai's webhook."""

    code: int
    data: Data


class Batches:
    """Runs statements on one thread: those that come during a commit share the next one."""

    def __init__(self, file: str) -> None:
        """Create *file* and start the thread."""
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.executescript(SCHEMA)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[None], tuple[tuple[str, tuple[object, ...]], ...]]] = deque()
        self._wake = threading.Semaphore(0)
        threading.Thread(target=self._main, daemon=True).start()

    def run(self, *statements: tuple[str, tuple[object, ...]]) -> asyncio.Future[None]:
        """Return a future that is done once *statements* are committed."""
        future = self._loop.create_future()
        self._waiting.append((future, statements))
        if len(self._waiting) == 1:
            self._loop.call_soon(self._wake.release)
        return future

    def _main(self) -> None:
        execute = self._database.execute
        while self._wake.acquire():
            while batch := [self._waiting.popleft() for _ in range(len(self._waiting))]:
                execute("BEGIN IMMEDIATE")
                for _, statements in batch:
                    for sql, values in statements:
                        execute(sql, values)
                execute("COMMIT")
                self._loop.call_soon_threadsafe(self._deliver, batch)

    def _deliver(self, batch: list[Any]) -> None:
        for future, _ in batch:
            future.set_result(None)


def tag_of(ref: str) -> str:
    """Return the tag that a callback path of *ref* must carry."""
    digest = hmac.digest(peers.SECRET, ref.encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


async def webhooks(file: str | None = None) -> None:
    """Serve callbacks."""
    batches = Batches(file) if file else None
    journals: dict[str, dict[str, bytes]] = {}
    waits: dict[str, asyncio.Future[list[Track]]] = {}
    decode = msgspec.json.Decoder(Callback).decode

    async def handle(request: web.BaseRequest) -> web.Response:
        _, _, ref, tag = request.rel_url.raw_path.split("/")
        if not hmac.compare_digest(tag, tag_of(ref)):
            return web.Response(status=401)
        body = await request.read()
        data = decode(body).data
        said = hashlib.blake2b(body, digest_size=16).hexdigest()
        if batches is not None:
            is_open = data.callbackType != "complete"
            await batches.run((INSERT_ENTRY, (ref, said, body)), (UPDATE_JOB, (data.callbackType, is_open, ref)))
        journals[ref][said] = body
        waits[ref].set_result(data.data)
        return web.Response(body=b'{"code":200,"msg":"success"}', headers={"Content-Type": "application/json"})

    async def answer(words: list[str]) -> object:
        if words[0] == "cpu":
            return await peers.cpu(words)
        if words[0] == "waits":
            songs = await asyncio.gather(*waits.values())
            waits.clear()
            return len(songs)
        refs = [secrets.token_hex(12) for _ in range(int(words[1]))]
        for ref in refs:
            journals[ref] = {}
            waits[ref] = asyncio.get_running_loop().create_future()
        if batches is not None:
            await batches.run(*((INSERT_JOB, (ref,)) for ref in refs))
        return {"paths": [f"/kie/{ref}/{tag_of(ref)}" for ref in refs], "ids": refs}

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await peers.serve({"port": runner.addresses[0][1]}, answer)


async def submits(file: str, base: str) -> None:
    """Send submits."""
    batches = Batches(file) if file != "-" else None
    journals: dict[str, list[bytes]] = {}
    body = {"audioId": peers.REQUEST.audio_id, "model": "V5", "defaultParamFlag": False}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as session:

        async def one() -> None:
            ref = secrets.token_hex(12)
            data = msgspec.json.encode({**body, "callBackUrl": f"http://127.0.0.1:9/kie/{ref}/{tag_of(ref)}"})
            if batches is not None:
                await batches.run((INSERT_JOB, (ref,)), (INSERT_ENTRY, (ref, "request", data)))
            async with session.post(f"{base}/api/v1/generate/extend", data=data) as response:
                said = await response.read()
            assert msgspec.json.decode(said)["data"]["taskId"]
            if batches is not None:
                await batches.run((INSERT_ENTRY, (ref, "answer", said)), (UPDATE_JOB, ("submitted", True, ref)))
            journals[ref] = [data, said]

        await peers.serve({}, peers.many(one))


if __name__ == "__main__":
    _made: tuple[Callable[..., Any], ...] = (webhooks, submits)
    asyncio.run({made.__name__: made for made in _made}[sys.argv[1]](*sys.argv[2:]))
