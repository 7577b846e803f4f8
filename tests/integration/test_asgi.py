"""The receiver as an ASGI application: in three frameworks, under three servers, and on its own."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from audioext.sandbox import Sandbox
from audioext.webhooks.asgi import AsgiReceiver
from audioext.webhooks.endpoint import BODY_SECONDS
from tests.support.api import callback
from tests.support.bombs import bomb
from tests.support.clock import SOON_SECONDS, LoopTime

ROOT = Path(__file__).parents[2]
SECRET = b"0123456789abcdef-secret"
REF = "r" * 24
GOOD = json.dumps(callback("complete")).encode()
SERVERS = {
    "FastAPI under uvicorn": ["uvicorn", "tests.support.asgi.in_fastapi:app"],
    "Litestar under hypercorn": [
        "hypercorn",
        "tests.support.asgi.in_litestar:app",
        "--access-logfile=-",
        "--workers=0",
    ],
    "Starlette under granian": ["granian", "tests.support.asgi.in_starlette:app", "--interface=asgi", "--access-log"],
    "by itself under uvicorn": ["uvicorn", "tests.support.asgi.shared:alone"],
}
START_SECONDS = 60.0


@asynccontextmanager
async def served(words: list[str], url: URL, **settings: str) -> AsyncIterator[list[str]]:
    """Run a server in another process, then end it; its output is in the list afterwards."""
    said: list[str] = []
    name, app, *more = words
    host = [f"--bind={url.host}:{url.port}"] if name == "hypercorn" else [f"--host={url.host}", f"--port={url.port}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", name, app, *more, *host),
        cwd=ROOT,
        env={**os.environ, "PUBLIC_URL": str(url), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_SECONDS):
            while not await is_up(session, url):
                assert process.returncode is None, await process.communicate()
                await asyncio.sleep(0.05)
        yield said
    finally:
        process.terminate()
        out, _ = await process.communicate()
        said += out.decode().splitlines()


async def is_up(session: aiohttp.ClientSession, url: URL) -> bool:
    """Return whether the server answers."""
    try:
        async with session.get(url / "readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("words", SERVERS.values(), ids=SERVERS)
async def test_webhooks_come_through_any_server(words: list[str], tmp_path: Path, unused_tcp_port: int) -> None:
    """Webhooks received by a server in another process complete a job that this process awaits."""
    url = URL(f"http://127.0.0.1:{unused_tcp_port}/audio")
    store = f"sqlite:///{tmp_path}/jobs.db"
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0, submit_limit=None) as sandbox:
        base = str(sandbox.bases["kie"])
        provider = ax.Kie(sandbox.api_key, base_url=base, pace=ax.Pace(first=300.0, quiet=300.0))
        async with (
            ax.Client(provider, public_url=url, listen=None, store=store) as client,
            served(words, url, KIE_BASE_URL=base, STORE=store) as said,
            aiohttp.ClientSession() as session,
        ):
            job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
            event = await job.wait(timeout=SOON_SECONDS)
            await sandbox.settled()

            report = await client.check()
            assert report.ok, str(report)
            assert ("webhook", 2) == (event.source, len(event.tracks))
            assert {(200, None)} == {(delivery.status, delivery.error) for delivery in sandbox.deliveries}
            for method, path, body, status in (
                ("POST", f"kie/{REF}/{'x' * 43}", b"{}", 401),
                ("POST", "nowhere", b"{}", 404),
                ("GET", f"kie/{REF}/{'x' * 43}", None, 405),
                ("PUT", "readyz", b"{}", 405),
                ("GET", "healthz", None, 200),
                ("GET", "files/guess/a.wav", None, 404),
            ):
                async with session.request(method, url / path, data=body) as response:
                    assert (path, status) == (path, response.status)
    logged = [line for line in said if f"/kie/{job.ref}/" in line]
    assert len(logged) >= len(ax.Stage) - 1
    assert [] == [line for line in logged if "***" not in line]
    assert not any(delivery.url.rpartition("/")[2] in "".join(said) for delivery in sandbox.deliveries)


# --- without a server --------------------------------------------------------------------------------------------


@pytest.fixture
async def client() -> AsyncIterator[ax.Client]:
    """Return an open client that is mounted."""
    async with ax.Client(public_url="http://me.test/audio", listen=None, secrets=[SECRET]) as client:
        yield client


async def ask(
    app: AsgiReceiver, method: str, path: str, *chunks: bytes, headers: dict[str, str] | None = None, ends: bool = True
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of *app*'s answer; without *ends* the sender disconnects in the request."""
    coming: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) or not ends}
        for number, chunk in enumerate(chunks or (b"",), 1)
    ]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": encoded}
    await app(scope, receive, send)
    if not sent:
        return 0, {}, b""
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message["body"] for message in sent[1:])


def path_of(client: ax.Client) -> str:
    """Return a callback path of ours."""
    assert client.public_url is not None
    return callback_url(client.public_url, SECRET, "kie", REF).raw_path


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ([GOOD], {}, 200),
        ([GOOD[:9], GOOD[9:]], {}, 200),
        ([b"{"], {}, 400),
        ([b" "], {"Content-Length": "1048577"}, 413),
        ([b" "], {"Content-Length": "9" * 5_000}, 413),
        ([b" " * 700_000, b" " * 700_000], {}, 413),
        ([gzip.compress(GOOD)], {"Content-Encoding": "gzip"}, 200),
        ([bomb(9)], {"Content-Encoding": "gzip"}, 413),
        ([GOOD], {"Content-Encoding": "br"}, 415),
    ],
)
async def test_a_body_is_read_under_its_limit(
    client: ax.Client, body: list[bytes], headers: dict[str, str], status: int
) -> None:
    """A body over the limit, announced, in pieces or decompressed, is answered 413 as by the receiver's own server."""
    found, _, _ = await ask(client.receiver.asgi, "POST", path_of(client), *body, headers=headers)

    assert status == found


async def test_a_stranger_is_answered_before_the_body(client: ax.Client) -> None:
    """A wrong tag is answered without asking the server for the body (newcomer, worst 5)."""
    path = callback_url(URL("http://me.test/audio"), b"another secret than ours", "kie", REF).raw_path
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await client.receiver.asgi(
        {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": []}, receive, send
    )

    assert 401 == sent[0]["status"]


async def test_a_sender_that_disconnects_gets_no_answer(client: ax.Client) -> None:
    """A sender that disconnects within its body gets no answer, and nothing is stored."""
    assert (0, {}, b"") == await ask(client.receiver.asgi, "POST", path_of(client), GOOD[:9], ends=False)
    assert [] == [delivery async for delivery in client.store.deliveries()]


async def test_a_request_that_is_cancelled_before_its_body_came_is_over(client: ax.Client) -> None:
    """A request that is cancelled before its body arrived leaves no task behind that closing would wait for."""
    is_asked, scope = asyncio.Event(), {"type": "http", "method": "POST", "path": path_of(client), "headers": []}

    async def receive() -> MutableMapping[str, Any]:
        is_asked.set()
        return await asyncio.Future[MutableMapping[str, Any]]()

    async def send(_: MutableMapping[str, Any]) -> None:
        """Discard the message."""

    request = asyncio.create_task(client.receiver.asgi(scope, receive, send))
    await is_asked.wait()
    request.cancel()
    await asyncio.wait([request])

    assert request.cancelled()
    assert set() == client.receiver.endpoint.in_progress


async def test_an_offered_file_is_served(client: ax.Client, tmp_path: Path) -> None:
    """An offered file is served to GET and HEAD, and only under its secret path."""
    path = tmp_path / "voice.wav"
    path.write_bytes(b"RIFF" * 100_000)
    offer = client.receiver.endpoint.offers.offer(path)
    app = client.receiver.asgi

    status, headers, body = await ask(app, "GET", f"/audio/files/{offer}")
    assert (200, "audio/wav", "nosniff", path.read_bytes()) == (
        status,
        headers["content-type"],
        headers["x-content-type-options"],
        body,
    )
    assert (200, b"") == (await ask(app, "HEAD", f"/audio/files/{offer}"))[::2]
    assert 404 == (await ask(app, "GET", "/audio/files/guess/voice.wav"))[0]


async def test_readiness_needs_an_open_client() -> None:
    """A client that is not open, whose webhooks are put off, is not ready, but its process lives."""
    client = ax.Client(ax.Kie("key"), public_url="https://hooks.test/audio", listen=None)

    before = [await ask(client.receiver.asgi, "GET", f"/{name}") for name in ("healthz", "readyz")]
    async with client:
        during = await ask(client.receiver.asgi, "GET", "/readyz")
    after = await ask(client.receiver.asgi, "GET", "/readyz")

    assert [200, 503, 200, 503] == [status for status, *_ in (*before, during, after)]
    assert b'{"status":"not open"}' == after[2]


async def test_a_websocket_is_closed(client: ax.Client) -> None:
    """A websocket is closed at once."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await client.receiver.asgi({"type": "websocket"}, receive, send)
    assert [{"type": "websocket.close", "code": 1000}] == sent


async def test_a_client_that_cannot_open_stops_the_server(tmp_path: Path) -> None:
    """A receiver served on its own fails the server's startup if its store cannot be opened."""
    (tmp_path / "jobs.db").write_bytes(b"no database at all, and long enough to be looked at by anybody" * 20)
    client = ax.Client(public_url="http://me.test/", listen=None, store=f"sqlite:///{tmp_path}/jobs.db")
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    with pytest.raises(ax.StoreError):
        await client.receiver.asgi({"type": "lifespan"}, receive, send)
    assert ["lifespan.startup.failed"] == [message["type"] for message in sent]


# --- hostile scopes and messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("odd", "status"),
    [
        ({"raw_path": None, "path": "/\ud800"}, 404),
        ({"raw_path": b"/\xff\xfe"}, 404),
        ({"raw_path": b"/" * 1_000_000}, 404),
        ({"raw_path": b"/%" * 500_000}, 404),
        ({"headers": None}, 400),
        ({"headers": [(b"\xff", b"\xff"), (b"content-length", b"\xff9")]}, 400),
        ({"headers": [(b"content-length", b"9" * 5_000)]}, 413),
        ({"method": "\ud800"}, 405),
    ],
)
async def test_an_odd_scope_is_answered(client: ax.Client, odd: dict[str, Any], status: int) -> None:
    """A malformed scope is answered at once."""
    path = path_of(client)
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": [], **odd}
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    began = time.process_time()
    await client.receiver.asgi(scope, receive, send)

    assert status == sent[0]["status"]
    assert time.process_time() - began < 0.5  # takes a hundredth on an idle machine


async def test_endless_empty_messages_do_not_block_the_loop(client: ax.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of endless empty messages does not block the loop, and is answered 408 in time."""
    path, time_, count = path_of(client), LoopTime(monkeypatch), 0
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        nonlocal count
        count += 1
        if count == 100:
            time_.advance(BODY_SECONDS + 1.0)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": []}
    async with asyncio.timeout(10 * BODY_SECONDS):
        await client.receiver.asgi(scope, receive, send)

    assert 408 == sent[0]["status"]
