"""Files on offer: the very file that was offered is served, as audio or as bytes, and nothing beside it."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest

import audioext as ax
from tests.support.sounds import WAV


@pytest.fixture
async def client() -> AsyncIterator[ax.Client]:
    """Return a client that listens."""
    async with ax.Client(public_url="http://127.0.0.1:{port}/audio", listen="127.0.0.1:0") as client:
        yield client


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """Return a recording."""
    path = tmp_path / "voice.wav"
    path.write_bytes(WAV)
    return path


async def ask(client: ax.Client, offer: str, method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
    """Ask for what is offered, as a provider does that reads compressed files."""
    headers = {"Accept-Encoding": "gzip, br"}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, f"{client.public_url}/files/{offer}", headers=headers) as response,
    ):
        return response.status, response.headers, await response.read()


async def test_a_compressed_file_beside_it_is_not_served(client: ax.Client, voice: Path) -> None:
    """Where `voice.wav.gz` lies beside `voice.wav`, a provider gets the recording that was offered."""
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
async def test_what_was_put_in_its_place_is_not_served(
    swap: Callable[[Path], None], method: str, client: ax.Client, voice: Path
) -> None:
    """Another file, other content, a link to the same file, a pipe without a writer, a folder, nothing: 404 at once."""
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
    """No browser takes it for a page, whatever it is called."""
    path = tmp_path / name
    path.write_bytes(b"<script>")

    for method in ("GET", "HEAD"):
        _, headers, _ = await ask(client, client.receiver.endpoint.offers.offer(path), method)
        assert (kind, "nosniff") == (headers["Content-Type"], headers["X-Content-Type-Options"])
