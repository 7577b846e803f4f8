"""Offered files: exactly the file that was offered is served, as audio or as bytes."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

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


async def ask(client: ax.Client, offer: str, method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
    """Request an offered file as a provider does that accepts compressed files."""
    headers = {"Accept-Encoding": "gzip, br"}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, f"{client.public_url}/files/{offer}", headers=headers) as response,
    ):
        return response.status, response.headers, await response.read()


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


async def test_a_file_that_gets_longer_is_served_as_long_as_it_was(client: ax.Client, voice: Path) -> None:
    """Bytes appended to a file during its transfer are not sent, whatever server sends it."""
    offers, path = client.receiver.endpoint.offers, f"/files/{client.receiver.endpoint.offers.offer(voice)}"
    assert 1 == len(offers)
    reply = await client.receiver.endpoint.get("GET", path)
    assert not isinstance(reply.body, bytes)
    with voice.open("ab") as file:
        file.write(WAV)

    assert WAV == b"".join([piece async for piece in reply.body])
    assert str(len(WAV)) == reply.headers["Content-Length"]
