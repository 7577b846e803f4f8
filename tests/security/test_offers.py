"""Offered files: exactly the file that was offered is served, as audio or as bytes."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict

import audioext as ax
from audioext.webhooks.endpoint import DRAIN_SECONDS
from audioext.webhooks.receiver import WRITE_SECONDS
from audioext.webhooks.server import HEAD_SECONDS
from tests.support.clock import SOON_SECONDS, LoopTime
from tests.support.sounds import WAV

LONG_BYTES = 16_777_216
"""More than a connection's sockets buffer."""


@pytest.fixture
async def client() -> AsyncIterator[ax.Client]:
    """Return a client with a receiver."""
    async with ax.Client(public_url="http://127.0.0.1:{port}/audio", listen="127.0.0.1:0") as client:
        yield client


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """Return a recording."""
    path = tmp_path / "voice.wav"
    path.write_bytes(WAV)
    return path


Answer = tuple[int, Mapping[str, str], bytes]


async def ask(client: ax.Client, offer: str, method: str = "GET", **more: str) -> Answer:
    """Request an offered file as a provider does that accepts compressed files, with *more* headers."""
    headers = {"Accept-Encoding": "gzip, br", **more}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, f"{client.public_url}/files/{offer}", headers=headers) as response,
    ):
        return response.status, response.headers, await response.read()


async def ask_asgi(client: ax.Client, offer: str, method: str = "GET", **more: str) -> Answer:
    """Request an offered file from the ASGI application."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in more.items()]
    scope = {"type": "http", "method": method, "path": f"/audio/files/{offer}", "headers": headers}
    await client.receiver.asgi(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], CIMultiDict(found), b"".join(each["body"] for each in sent[1:])


async def test_a_compressed_file_beside_it_is_not_served(client: ax.Client, voice: Path) -> None:
    """A `voice.wav.gz` beside an offered `voice.wav` is not served in its place."""
    for suffix in (".gz", ".br"):
        voice.with_name(voice.name + suffix).write_bytes(gzip.compress(b"another recording"))

    status, headers, body = await ask(client, client.receiver.endpoint.offers.offer(voice))

    assert (200, "audio/wav", "nosniff", None) == (
        status,
        headers["Content-Type"],
        headers["X-Content-Type-Options"],
        headers.get("Content-Encoding"),
    )
    assert WAV == body


def _successor(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"secret")


def _overwritten(path: Path) -> None:
    path.write_bytes(b"secret")


def _another(path: Path) -> None:
    path.with_name("new").write_bytes(b"secret")
    path.with_name("new").replace(path)


def _link(path: Path) -> None:
    path.rename(path.with_name("moved.wav"))
    path.symlink_to("moved.wav")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SWAPS = (_another, _successor, _overwritten, _link, _pipe, _folder, Path.unlink)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there, and pipes have no path")
@pytest.mark.parametrize(
    "swap", [_another, _successor, _overwritten, _link, _pipe, _folder, Path.unlink], ids=lambda swap: swap.__name__
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_replaced_file_is_not_served(
    swap: Callable[[Path], None], method: str, client: ax.Client, voice: Path
) -> None:
    """A replaced or changed file, a symlink to it, a pipe, a folder and a missing file are answered 404 at once."""
    offer = client.receiver.endpoint.offers.offer(voice)
    swap(voice)

    assert 404 == (await ask(client, offer, method))[0]
    assert 200 == (await ask(client, "../../healthz"))[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "application/octet-stream"),
        ("picture.svg", "application/octet-stream"),
        ("program.js", "application/octet-stream"),
        ("voice", "application/octet-stream"),
        ("VOICE.MP3", "audio/mpeg"),
        ("voice.flac", "audio/flac"),
    ],
)
async def test_a_file_is_audio_or_bytes(name: str, kind: str, client: ax.Client, tmp_path: Path) -> None:
    """A file is served as audio or as bytes, so that no browser renders it, whatever its name is."""
    path = tmp_path / name
    path.write_bytes(b"<script>")

    for method in ("GET", "HEAD"):
        _, headers, _ = await ask(client, client.receiver.endpoint.offers.offer(path), method)
        assert (kind, "nosniff") == (headers["Content-Type"], headers["X-Content-Type-Options"])


@pytest.mark.parametrize("name", ["???", "?.wav"])
async def test_a_file_without_a_safe_name_is_served_by_the_users_app(name: str, tmp_path: Path) -> None:
    """A file whose name has no safe letter gets another one: an application's router takes no empty name."""
    (tmp_path / name).write_bytes(WAV)
    app = web.Application()
    async with ax.Client(public_url="http://127.0.0.1:9/audio", listen=None) as client:
        client.receiver.add_to(app, "/audio")
        offer = client.receiver.endpoint.offers.offer(tmp_path / name)
        async with TestClient(TestServer(app)) as vendor, vendor.get(f"/audio/files/{offer}") as response:
            assert (200, WAV) == (response.status, await response.read())


async def _begin(client: ax.Client, tmp_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    path = tmp_path / "long.wav"
    path.write_bytes(bytes(LONG_BYTES))
    assert client.public_url is not None
    reader, writer = await asyncio.open_connection(client.public_url.host, client.public_url.port)
    offer = client.receiver.endpoint.offers.offer(path)
    writer.write(f"GET /audio/files/{offer} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_slow_provider_gets_all_of_a_file(
    client: ax.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer that takes longer than the timeout of a head is not cut off while the provider reads."""
    time, pieces = LoopTime(monkeypatch), 16
    reader, writer = await _begin(client, tmp_path)
    async with asyncio.timeout(SOON_SECONDS + 10 * HEAD_SECONDS):
        for _ in range(pieces):
            await reader.readexactly(LONG_BYTES // pieces)
            time.advance(HEAD_SECONDS / 4)

        assert b"" == await reader.read()
    writer.transport.abort()


async def test_a_reader_that_stops_reading_is_cut_off(
    client: ax.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that stops reading its file is closed."""
    time = LoopTime(monkeypatch)
    reader, writer = await _begin(client, tmp_path)
    try:
        for _ in range(round(2 * WRITE_SECONDS / DRAIN_SECONDS)):
            await time.run(client.receiver.endpoint.drain())  # until the transfer ends, or for its time limit
        with suppress(ConnectionError):
            assert len(await reader.read()) < LONG_BYTES
    finally:
        writer.transport.abort()


SIZE = len(WAV)
PARTS = {
    "bytes=0-9": (206, range(10)),
    "bytes=7-": (206, range(7, SIZE)),
    "BYTES=-5": (206, range(SIZE - 5, SIZE)),
    "bytes=0-": (206, range(SIZE)),
    f"bytes=5-{10**17}": (206, range(5, SIZE)),
    f"bytes=-{10**17}": (206, range(SIZE)),
    f"bytes={SIZE}-": (416, range(0)),
    "bytes=-0": (416, range(0)),
    **dict.fromkeys(
        ("", "bytes=-", "bytes=9-8", "bytes=0-1,3-4", "lines=0-1", "bytes=1", f"bytes={10**30}-", "bytes=\u0661-"),
        (200, range(SIZE)),
    ),
}


@pytest.mark.parametrize("get", [ask, ask_asgi])
@pytest.mark.parametrize("asked", PARTS)
async def test_a_range_of_a_file_is_served(
    get: Callable[..., Awaitable[Answer]], asked: str, client: ax.Client, voice: Path
) -> None:
    """A downloader that resumes gets the one range that it asks for, 416 beyond the end, else the whole file."""
    status, part = PARTS[asked]
    offer = client.receiver.endpoint.offers.offer(voice)

    said, headers, body = await get(client, offer, Range=asked)

    assert status == said
    if status == 416:
        assert f"bytes */{SIZE}" == headers["Content-Range"]
        return
    assert WAV[part.start : part.stop] == body
    assert (str(len(part)), "bytes") == (headers["Content-Length"], headers["Accept-Ranges"])
    span = f"bytes {part.start}-{part.stop - 1}/{SIZE}" if status == 206 else None
    assert span == headers.get("Content-Range")


@pytest.mark.parametrize("get", [ask, ask_asgi])
async def test_a_range_counts_only_where_it_is_safe(
    get: Callable[..., Awaitable[Answer]], client: ax.Client, voice: Path
) -> None:
    """With `If-Range` the whole file is sent, since we gave no validator; HEAD has no ranges."""
    offer = client.receiver.endpoint.offers.offer(voice)
    whole = await get(client, offer, **{"Range": "bytes=1-2", "If-Range": '"x"'})
    head = await get(client, offer, "HEAD", Range="bytes=1-2")

    for status, headers, _ in (whole, head):
        assert (200, str(SIZE), None) == (status, headers["Content-Length"], headers.get("Content-Range"))
    assert (WAV, b"") == (whole[2], head[2])


async def test_a_file_that_gets_longer_is_served_as_long_as_it_was(client: ax.Client, voice: Path) -> None:
    """Bytes appended to a file during its transfer are not sent, whatever server sends it."""
    offers, path = client.receiver.endpoint.offers, f"/files/{client.receiver.endpoint.offers.offer(voice)}"
    assert 1 == len(offers)
    reply = await client.receiver.endpoint.get("GET", path, {})
    assert not isinstance(reply.body, bytes)
    with voice.open("ab") as file:
        file.write(WAV)

    assert WAV == b"".join([piece async for piece in reply.body])
    assert str(len(WAV)) == reply.headers["Content-Length"]
