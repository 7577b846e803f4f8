"""A client saves the songs it made, also when saving is interrupted, and passes local files to the provider."""

from __future__ import annotations

import asyncio
import copy as copying
import os
import pickle
import shutil
import stat
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from aiohttp.test_utils import TestServer
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.files.downloads import Downloader
from audioext.files.formats import safe_name, suffix_at
from audioext.files.sources import Offers, name_at_host, probe
from audioext.http.transport import Transport
from audioext.sandbox import Sandbox, audio
from tests.integration.client.conftest import MakeClient, MakeSandbox
from tests.support.clock import SOON_SECONDS
from tests.support.hosts import LOOPBACK, gives, serve_host
from tests.support.sounds import MP3, OTHER_MP3


async def test_the_demo_song_is_longer_than_its_source(
    make_sandbox: MakeSandbox, make_client: MakeClient, tmp_path: Path, voice_file: Path
) -> None:
    """A saved extension is playable, longer than its source, and begins like it."""
    sandbox = await make_sandbox()
    client = await make_client(sandbox)
    told: list[tuple[str, int]] = []
    song = await client.run(
        ax.Extend(file=voice_file, model="V5", continue_at=3, style="Soft", title="Rain/Snow: 1", prompt="la")
    )

    paths = await song.save(tmp_path / "new" / "out", progress=lambda path, so_far, _: told.append((path.name, so_far)))

    clips = [audio.load(path.read_bytes()) for path in paths]
    assert ["Rain Snow 1 - take 1.mp3", "Rain Snow 1 - take 2.mp3"] == [path.name for path in paths]
    assert all(clip.duration > 4 for clip in clips)
    assert {path.stat().st_size for path in paths} == {
        max(n for name, n in told if name == path.stem) for path in paths
    }
    assert ["Rain Snow 1 - take 1.mp3", "Rain Snow 1 - take 2.mp3"] == sorted(
        p.name for p in (tmp_path / "new" / "out").iterdir()
    )


# --- interrupted and late saving -------------------------------------------------------------------------


@define
class Tap:
    """A file host whose second file stops after its first bytes until the tap is opened."""

    open: asyncio.Event = field(factory=asyncio.Event)

    async def slow(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send the beginning of a file, and the rest when the tap is opened."""
        response = web.StreamResponse()
        response.content_length = len(OTHER_MP3)
        await response.prepare(request)
        await response.write(OTHER_MP3[:9])
        await self.open.wait()
        await response.write(OTHER_MP3[9:])
        return response


@pytest.fixture
def tap() -> Tap:
    """Return a closed tap."""
    return Tap()


@pytest.fixture
async def slow_song(tap: Tap) -> AsyncIterator[ax.Song]:
    """Return a song of two tracks, the second of which waits for the tap."""
    async with serve_host() as host:
        links = (host.put("/good.mp3", gives()), host.put("/slow.mp3", tap.slow))
        tracks = tuple(ax.Track(id=link, title="Rain", audio_url=link) for link in links)
        yield ax.Song(ref="r" * 24, provider="kie", task_id="t", tracks=tracks)
        tap.open.set()


async def test_a_save_that_is_cancelled_leaves_nothing_behind(slow_song: ax.Song, tmp_path: Path) -> None:
    """A cancelled save removes both the take in progress and the one already whole."""
    both_begun = asyncio.Event()
    begun: set[str] = set()

    def progress(path: Path, _: int, __: int | None) -> None:
        begun.add(path.name)
        if len(begun) == 2:
            both_begun.set()

    transport = Transport()
    saving = asyncio.create_task(
        Downloader(rules=LOOPBACK, transport=transport).save(slow_song, tmp_path, progress=progress)
    )
    await both_begun.wait()
    assert 2 == len(list(tmp_path.iterdir()))

    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await transport.aclose()

    assert [] == list(tmp_path.iterdir())


async def test_a_cancelled_save_waits_for_its_thread(slow_song: ax.Song, tmp_path: Path) -> None:
    """A cancelled save waits for its thread before it cleans up, since a thread on a slow disk cannot be cancelled."""
    begun, disk, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    def progress(*_: object) -> None:
        if not begun.is_set():
            begun.set()
            loop.run_in_executor(None, disk.wait, SOON_SECONDS)  # each later thread call waits behind this one

    transport = Transport()
    saving = asyncio.create_task(
        Downloader(rules=LOOPBACK, transport=transport).save(slow_song, tmp_path, progress=progress)
    )
    await begun.wait()
    saving.cancel()
    for _ in range(20):  # lets the cancellation arrive
        await asyncio.sleep(0)
    assert not saving.done()
    disk.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await transport.aclose()

    assert [] == list(tmp_path.iterdir())


async def test_a_song_can_be_saved_after_its_client_was_closed(
    sandbox: Sandbox, make_client: MakeClient, tmp_path: Path, voice_file: Path
) -> None:
    """Saving needs no open client and leaves no connection open, about which aiohttp would warn."""
    client = await make_client(sandbox, poll=True)
    song = await client.run(ax.Extend(file=voice_file, model="V5", continue_at=3))
    await client.aclose()

    assert 2 == len(await song.save(tmp_path / "out"))


async def test_tracks_can_be_read_wherever_they_are_met(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """The tracks of handlers, stages, jobs and songs fetch their own files, also after the client is closed."""
    client = await make_client(sandbox, "vidgo")
    told: list[bytes] = []

    @client.on(ax.Stage.COMPLETE)
    async def tell(event: ax.StageEvent) -> None:
        told.append(await event.tracks[0].read())

    job = await client.extend(file=voice_file, model="V5", continue_at=3)
    song = await job
    await client.aclose()

    streamed = b"".join([chunk async for chunk in song.tracks[0].stream()])
    read = [await tracks[0].read() for tracks in ((await job.complete).tracks, job.tracks)]
    assert [streamed] * 3 == [*told, *read]
    assert song.tracks == job.record.tracks
    assert "voice" == song.source_name


async def test_a_result_is_a_value_that_can_be_copied_and_pickled(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A copy can download its file; an unpickled value is equal, but raises an error as it has no client."""
    client = await make_client(sandbox, "vidgo")
    job = await client.extend(url=sandbox.tune_url, model="V5", continue_at=3, meta={"chat": [42]})
    song, event = await job, await job.complete

    for copy in (copying.copy, copying.deepcopy):
        assert await song.tracks[0].read() == await copy(song).tracks[0].read() == await copy(song.tracks[0]).read()
        assert (song, event, job) == (copy(song), copy(event), copy(event).job)
        assert [job, client] == [copy(job), copy(client)]
        assert client is copy({"client": client})["client"]
    assert event.meta is not copying.deepcopy(event).meta
    for value in (song, event, song.tracks[0]):
        assert {value} == {pickle.loads(pickle.dumps(value))}  # noqa: S301 - our own
    with pytest.raises(ax.ConfigError, match=r"or was pickled, so it cannot download"):
        await pickle.loads(pickle.dumps(song)).tracks[0].read()  # noqa: S301 - as above
    with pytest.raises(ax.ConfigError, match=r"or was pickled, so it has no job"):
        pickle.loads(pickle.dumps(event)).job  # noqa: S301, B018 - as above; the property raises
    with pytest.raises(TypeError, match=r"pass on its ref, and call `client\.job\(ref\)` there"):
        pickle.dumps(job)
    with pytest.raises(TypeError, match=r"<Client vidgo, open> belongs to its process: make another one there"):
        pickle.dumps(client)


async def test_a_save_under_way_completes_while_the_client_closes(slow_song: ax.Song, tap: Tap, tmp_path: Path) -> None:
    """A save under way completes while the client closes, and its connections close afterwards."""
    connectors: list[aiohttp.BaseConnector] = []
    begun = asyncio.Event()

    def connect(resolver: AbstractResolver | None) -> aiohttp.BaseConnector:
        connectors.append(aiohttp.TCPConnector(resolver=resolver))
        return connectors[-1]

    transport = Transport(connector=connect)
    saving = asyncio.create_task(
        Downloader(rules=LOOPBACK, transport=transport).save(slow_song, tmp_path, progress=lambda *_: begun.set())
    )
    await begun.wait()
    await transport.aclose()
    tap.open.set()

    paths = await saving

    assert [MP3, OTHER_MP3] == [path.read_bytes() for path in paths]
    assert [True] == [connector.closed for connector in connectors]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
async def test_a_saved_file_has_the_permissions_of_any_other(
    slow_song: ax.Song, tap: Tap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved file follows the umask without changing it, since it is process-wide and other threads create files."""
    tap.open.set()
    umask = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        paths = await Downloader(rules=LOOPBACK, transport=Transport()).save(slow_song, tmp_path, overwrite=True)
    finally:
        monkeypatch.undo()
        os.umask(umask)

    assert [0o640, 0o640] == [stat.S_IMODE(saved.stat().st_mode) for saved in paths]


@given(st.text())
def test_a_file_name_is_safe_whatever_the_title(title: str) -> None:
    """Any title gives a file name without separators, control characters, dots at its ends or too many bytes."""
    name = safe_name(title)

    assert not set(name) & set('<>:"/\\|?*\x00\n\r\t')
    assert len(name.encode()) <= 121
    assert name == name.strip(" .")
    assert name.partition(".")[0].lower() not in {"con", "nul", "com1"}


@pytest.mark.parametrize("title", ["con", "NUL .a", "COM\u00b9", "lpt0.x", "CONIN$", "-rf"])
def test_a_device_name_or_a_leading_hyphen_gets_an_underscore(title: str) -> None:
    """A Windows device name, with any suffix, or a name that begins with a hyphen gets an underscore."""
    assert f"_{title}" == safe_name(title)


def test_the_name_of_a_rehosted_file_breaks_no_link() -> None:
    """The name of a rehosted file has no letter that ends or breaks the host's link to it, and keeps its suffix."""
    names = {
        "My%20Song%20(live).mp3": "My Song (live).mp3",
        "a%23b%3Fc%2Fd.MP3": "a b c d.mp3",
        "100%25.wav?signature=a%2Fb": "100.wav",
        "x" * 400 + ".mp3": "x" * 120 + ".mp3",
        "%23.mp3": "audio.mp3",
        "": "audio",
    }

    assert names == {given: name_at_host(f"https://cdn.example/{given}") for given in names}


def test_probe_returns_the_duration_and_the_problems(voice_file: Path, tmp_path: Path) -> None:
    """`probe` reads a WAV's duration, whatever its name, accepts formats without one, and names what is wrong."""
    (tmp_path / "empty.wav").touch()
    (tmp_path / "song.py").write_text("print('la')" * 100)
    (tmp_path / "picture.mp3").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    (tmp_path / "voice.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(500))
    (tmp_path / "voice.mp3").write_bytes(voice_file.read_bytes())
    says = {
        "no.wav": "there is no file at",
        "empty.wav": "is empty",
        ".": "is a folder: name a file in it",
        "song.py": "is not an audio file",
        "picture.mp3": "is not an audio file",
        "/dev/null": "/dev/null is a pipe or a device: save its data as a file first",
    }

    voice, unknown = probe(voice_file), probe(tmp_path / "voice.webm")
    assert isinstance(voice, float)
    assert voice == probe(tmp_path / "voice.mp3")
    assert (4.0, None) == (round(voice, 1), unknown)
    for name, words in says.items():
        problem = probe(tmp_path / name)
        assert isinstance(problem, ax.Problem)
        assert words in problem.message


def test_an_offered_file_has_an_unguessable_name_until_it_is_withdrawn(voice_file: Path) -> None:
    """An offered file is served only under its secret name, and no longer once it is withdrawn."""
    offers = Offers()
    offer = offers.offer(voice_file)
    token, name = offer.split("/")

    found = offers.find(token)
    assert found is not None
    assert (voice_file, "voice.wav", 43) == (found.path, name, len(token))
    offers.withdraw(offer)
    assert offers.find(token) is None


async def test_a_file_in_the_submit_gets_the_suffix_of_its_bytes(
    make_sandbox: MakeSandbox, make_client: MakeClient, voice_file: Path, tmp_path: Path
) -> None:
    """A file without a suffix that goes into MusicGPT's form is named by its bytes, as digits are none; others stay."""
    sandbox = await make_sandbox()
    client = await make_client(sandbox, "musicgpt")
    for name in ("tmpk3v", "take 1.2", "voice.snd", "voice.wav"):
        await client.extend(file=shutil.copy(voice_file, tmp_path / name), continue_at=2)

    sent = [submit["audio_file"]["filename"] for submit in sandbox.submits]  # type: ignore[index]  # it is a mapping
    assert ["tmpk3v.wav", "take 1.2.wav", "voice.snd", "voice.wav"] == sent


async def test_a_form_without_a_file_waits_for_no_thread(
    make_sandbox: MakeSandbox, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MusicGPT's form is sent without a thread if no name has to be found for a file in it."""
    sandbox = await make_sandbox()
    client = await make_client(sandbox, "musicgpt")
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "to_thread", None)
        await client.extend(url=sandbox.voice_url, continue_at=2)

    assert 1 == len(sandbox.submits)


async def test_a_file_without_a_suffix_gets_that_of_its_bytes(
    make_sandbox: MakeSandbox, make_client: MakeClient, voice_file: Path, tmp_path: Path
) -> None:
    """A temporary file without a suffix is uploaded and served under a name and a type that say what it is."""
    path = Path(shutil.copy(voice_file, tmp_path / "voice"))
    sandbox = await make_sandbox()
    for provider in ("kie", "vidgo"):
        client = await make_client(sandbox, provider)
        await client.extend(file=path, model="V5", continue_at=2)
    offers = Offers()
    found = offers.find(offers.offer(path, suffix_at(path)).partition("/")[0])

    uploaded, served = sandbox.submits
    assert str(uploaded["uploadUrl"]).endswith(".wav")
    assert "/voice.wav'" in str(served)
    assert found is not None
    assert "audio/wav" == found.headers["Content-Type"]


def test_a_file_that_replaced_an_offered_one_is_not_served(tmp_path: Path) -> None:
    """A file or symlink that replaced an offered file is not served."""
    path = tmp_path / "voice.wav"
    path.write_bytes(b"RIFF")
    offers = Offers()
    found = offers.find(offers.offer(path).split("/")[0])
    assert found is not None
    file = found.open()
    assert file is not None
    with file:
        assert b"RIFF" == file.read()

    other = tmp_path / "other.wav"
    other.write_bytes(b"other")
    other.replace(path)
    assert found.open() is None
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert found.open() is None


@pytest.mark.parametrize("provider", ["vidgo", "kie"])
async def test_a_file_can_be_served_by_our_own_receiver(
    provider: str, sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """The provider fetches the file from our receiver, which withdraws it when the job is final."""
    client = await make_client(sandbox, provider, serve_files=True)

    song = await client.run(ax.AddInstrumental(file=voice_file, title="Rain", tags="piano", negative_tags=""))

    assert 2 == len(song.tracks)
    assert 0 == len(client.receiver.endpoint.offers)


async def test_a_worker_that_does_not_listen_cannot_serve_a_file(sandbox: Sandbox, voice_file: Path) -> None:
    """A worker whose callbacks go to another process cannot serve a file: the submit is refused before it is paid."""
    provider = ax.Vidgo(sandbox.api_key, base_url=sandbox.bases["vidgo"])
    request = ax.AddInstrumental(file=voice_file, title="Rain", tags="piano", negative_tags="", model="V5")

    async with ax.Client(provider, public_url="http://127.0.0.1:9", listen=None) as worker:
        with pytest.raises(ax.UnsupportedError, match="add_to"):
            await worker.submit(request)

    assert () == sandbox.submissions


async def test_a_mounted_receiver_serves_files(sandbox: Sandbox, voice_file: Path, unused_tcp_port: int) -> None:
    """A receiver mounted in the user's application serves files too."""
    provider = ax.Vidgo(sandbox.api_key, base_url=sandbox.bases["vidgo"])
    request = ax.AddInstrumental(file=voice_file, title="Rain", tags="piano", negative_tags="", model="V5")
    app = web.Application()
    public_url = f"http://127.0.0.1:{unused_tcp_port}/audio"
    client = ax.Client(provider, public_url=public_url, listen=None, wait_timeout=20.0)
    client.receiver.add_to(app, "/audio")

    async with client, TestServer(app, port=unused_tcp_port):
        song = await client.run(request)

    assert 2 == len(song.tracks)
