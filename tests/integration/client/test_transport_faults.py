"""The transport ends every call, with an error that says what failed: the peer, the disk or our own closing."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from attrs import evolve
from yarl import URL

import audioext as ax
from audioext.http._connections import Connector
from audioext.http.messages import HttpRequest, Part
from audioext.http.transport import UPLOAD_IDLE_SECONDS, MaybeSentError, NotSentError, Transport
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import MakeClient, MakeSandbox
from tests.support.api import read_head
from tests.support.clock import SOON_SECONDS, LoopTime

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Talk], Awaitable[URL]]

MEGABYTE = 1_048_576
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that starts a server with the given behaviour and returns its URL."""
    servers: list[asyncio.Server] = []

    async def start(talk: Talk) -> URL:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            finally:
                writer.transport.abort()

        servers.append(await asyncio.start_server(handle, "127.0.0.1", 0, limit=65_536))
        port = servers[-1].sockets[0].getsockname()[1]
        return URL(f"http://127.0.0.1:{port}/upload")

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connectors() -> list[aiohttp.BaseConnector]:
    """Return the connectors that the transport made."""
    return []


@pytest.fixture
async def transport(connectors: list[aiohttp.BaseConnector]) -> AsyncIterator[Transport]:
    """Return a transport, and close it afterwards."""

    def connect(resolver: AbstractResolver | None) -> aiohttp.BaseConnector:
        connectors.append(aiohttp.TCPConnector(resolver=resolver))
        return connectors[-1]

    made = Transport(connector=connect)
    yield made
    await made.aclose()


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    """Return a minute of silence, larger than socket buffers; the sparse file takes no disk space."""
    path = tmp_path / "big.wav"
    size = 96 * MEGABYTE
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, 192_000, 1_536_000, 8, 32)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", size - 8, b"WAVE") + form + struct.pack("<4sI", b"data", size - 44))
        file.truncate(size)
    return path


def upload(url: URL, path: Path) -> HttpRequest:
    """Return a request that sends a text field and then *path*."""
    return HttpRequest(method="POST", url=url, parts=(Part(name="title", value="Rain"), Part(name="file", path=path)))


async def read_all(reader: asyncio.StreamReader) -> None:
    """Read a whole request."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"Content-Length: (\d+)", head)
    assert found is not None
    left = int(found[1])
    while left:
        left -= len(await reader.read(min(left, MEGABYTE)))


# --- uploads -----------------------------------------------------------------------------------------------


async def test_a_server_that_takes_no_more_of_a_file_ends_the_call(
    serve: Serve, transport: Transport, big_file: Path, loop_time: LoopTime
) -> None:
    """An upload that makes no progress ends the call and drops the connection, which holds megabytes."""
    begun, over, dropped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        begun.set()
        await over.wait()
        with suppress(ConnectionResetError):
            while await reader.read(MEGABYTE):
                pass
        dropped.set()

    sending = asyncio.create_task(transport.send(upload(await serve(read_nothing), big_file)))
    await begun.wait()
    try:
        with pytest.raises(MaybeSentError, match="it read no more of the file for 60 s"):
            await loop_time.run(sending, step=1.0)
    finally:
        over.set()
    async with asyncio.timeout(SOON_SECONDS):
        await dropped.wait()


async def test_a_stalled_submit_has_an_unknown_outcome_and_closing_ends(
    serve: Serve, big_file: Path, loop_time: LoopTime
) -> None:
    """A submit whose inline file stalls gives a job with an unknown outcome, and the client can be closed."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def read_nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        begun.set()
        await over.wait()

    base = (await serve(read_nothing)).origin()
    try:
        async with ax.Client(ax.MusicGpt("a-key-of-mine", base_url=base)) as client:
            submit = asyncio.create_task(client.extend(file=big_file, continue_at=1))
            await begun.wait()
            job, _ = await loop_time.run(submit, step=1.0)
            with pytest.raises(ax.SubmitUnknownError):
                await job
    finally:
        over.set()


async def test_a_slow_upload_is_not_timed_out(
    serve: Serve, transport: Transport, big_file: Path, loop_time: LoopTime
) -> None:
    """A slow upload is not timed out, since the time starts anew with each piece of the file."""
    pauses = 3

    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(pauses):
            await reader.readexactly(24 * MEGABYTE)  # more than the sockets buffer, so the file has moved
            loop_time.advance(0.75 * UPLOAD_IDLE_SECONDS)
        while not (await reader.read(MEGABYTE)).endswith(b"--\r\n"):
            pass
        writer.write(ANSWER)
        await writer.drain()

    answer = await transport.send(upload(await serve(read_slowly), big_file))

    assert (200, b"{}") == (answer.status, answer.body)


async def test_the_wait_for_an_answer_after_an_upload_is_bounded(
    serve: Serve, transport: Transport, voice_file: Path, loop_time: LoopTime
) -> None:
    """After the upload the server's answer is bounded in time."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def answer_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_all(reader)
        writer.write(ANSWER.replace(b"Length: 2", b"Length: 1000000"))
        begun.set()
        while not over.is_set():
            writer.write(b" ")
            with suppress(TimeoutError):
                async with asyncio.timeout(30.0):
                    await over.wait()

    sending = asyncio.create_task(transport.send(upload(await serve(answer_for_ever), voice_file)))
    await begun.wait()
    try:
        with pytest.raises(MaybeSentError, match="not all of it came within 300 s"):
            await loop_time.run(sending, step=1.0)
    finally:
        over.set()


async def test_silence_after_an_upload_ends_the_call(
    serve: Serve, transport: Transport, voice_file: Path, loop_time: LoopTime
) -> None:
    """A server that says nothing after an upload ends the call as soon as one that stops reading."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_all(reader)
        begun.set()
        await over.wait()

    sending = asyncio.create_task(transport.send(upload(await serve(say_nothing), voice_file)))
    await begun.wait()
    began_at = asyncio.get_running_loop().time()
    try:
        with pytest.raises(MaybeSentError, match="or nothing for 60 s"):
            await loop_time.run(sending, step=1.0)
    finally:
        over.set()
    assert asyncio.get_running_loop().time() - began_at < 1.5 * UPLOAD_IDLE_SECONDS


async def test_an_answer_before_the_end_of_a_file_counts(serve: Serve, transport: Transport, big_file: Path) -> None:
    """The answer of a server that refuses a file before it has read all of it is used."""
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER.replace(b"200 OK", b"413 Too Large"))
        await over.wait()

    url = await serve(refuse)
    try:
        async with asyncio.timeout(SOON_SECONDS):
            answer = await transport.send(upload(url, big_file))
    finally:
        over.set()

    assert 413 == answer.status


async def test_progress_is_reported_up_to_the_files_size(serve: Serve, transport: Transport, voice_file: Path) -> None:
    """Progress reports the bytes sent so far up to the file's size."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_all(reader)
        writer.write(ANSWER)
        await writer.drain()

    told: list[tuple[int, int | None]] = []
    await transport.send(upload(await serve(take), voice_file), progress=lambda *news: told.append(news))

    size = voice_file.stat().st_size
    assert (size, size) == told[-1]
    assert sorted(told) == told


# --- unreadable files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gone.wav", "", "odd\udcff.wav"])
async def test_a_file_that_cannot_be_read_means_that_nothing_was_sent(
    name: str, transport: Transport, connectors: list[aiohttp.BaseConnector], tmp_path: Path
) -> None:
    """A file that vanished, is a folder, or has a name that no form can hold raises an error without a connection."""
    if name.startswith("odd"):
        (tmp_path / name).write_bytes(b"RIFF")

    with pytest.raises(NotSentError, match=r"cannot read .*; nothing was sent"):
        await transport.send(upload(URL("http://127.0.0.1:9/upload"), tmp_path / name))

    assert [] == connectors


# --- connecting --------------------------------------------------------------------------------------------


class Silent(AbstractResolver):
    """A resolver that never answers, and counts the questions."""

    asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Wait for ever."""
        del host, port, family
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        """Do nothing."""


async def test_connecting_takes_no_longer_than_the_call_may() -> None:
    """All attempts to connect share the call's timeout, so that no submit leaves when others count it as unknown."""
    resolver = Silent()
    transport = Transport(connector=lambda _: aiohttp.TCPConnector(resolver=resolver))

    with pytest.raises(NotSentError, match="nothing was sent"):
        await transport.send(HttpRequest(method="POST", url=URL("http://api.test/"), body=b"{}"), timeout=2.0)

    assert 1 == resolver.asked
    await transport.aclose()


# --- closing -----------------------------------------------------------------------------------------------


async def test_a_closed_transport_sends_nothing_and_opens_nothing(
    transport: Transport, connectors: list[aiohttp.BaseConnector], voice_file: Path
) -> None:
    """After closing, each call is known as not sent, and no new session is made."""
    url = URL("http://127.0.0.1:9/upload")
    await transport.aclose()

    for request in HttpRequest(method="GET", url=url), upload(url, voice_file):
        with pytest.raises(NotSentError, match="closed before this call; nothing was sent"):
            await transport.send(request)

    assert [] == connectors
    await transport.aclose()  # again, without effect


async def test_a_refresh_after_closing_says_so(sandbox: Sandbox, make_client: MakeClient) -> None:
    """`job.refresh` after the client closed raises our error and leaks nothing."""
    client = await make_client(sandbox, poll=True)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    await job
    await client.aclose()

    with pytest.raises(ax.AudioextError):
        await job.refresh()


# --- a lost answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["kie", "vidgo"])
async def test_with_confirm_a_complete_is_enough_to_adopt_a_lost_answer(
    provider: str, make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """With `confirm="always"` a COMPLETE for a lost answer is not trusted, but its task is polled."""
    sandbox = await make_sandbox(faults=["lose_response", "drop=text", "drop=first"])
    client = await make_client(sandbox, provider, confirm="always")

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job

    assert 2 == len(song.tracks)
    assert "poll" == (await job.complete).source
    assert 1 == len(sandbox.submissions)


# --- an answer that breaks off ------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [ax.Kie, ax.SunoApi, ax.Vidgo, ax.MusicGpt])
@pytest.mark.parametrize(
    ("status", "is_refused"), [(401, True), (403, True), (404, True), (413, True), (400, False), (500, False)]
)
async def test_a_status_that_never_makes_a_task_counts_though_the_answer_breaks_off(
    serve: Serve, made: type[ax.Kie | ax.MusicGpt], status: int, is_refused: bool
) -> None:
    """HTTP 401 and its like refuse a submit at once though their body breaks off, as MusicGPT's 400 does; no others."""

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_all(reader)
        writer.write(b'HTTP/1.1 %d X\r\nContent-Length: 99\r\n\r\n{"code":' % status)
        await writer.drain()

    base = (await serve(break_off)).origin()
    async with ax.Client(made("a-key-of-mine", base_url=base)) as client:
        source = {"audio_id": "x", "title": "a", "style": "b", "model": "V5"}
        if made is ax.MusicGpt:
            source = {"url": "https://files.test/a.mp3"}
        submit = client.extend(**source, prompt="p", continue_at=1)  # type: ignore[arg-type]  # the options differ
        if is_refused or (status == 400 and made is ax.MusicGpt):
            with pytest.raises(ax.ProviderError) as refused:
                await submit
            assert (status, False) == (refused.value.http_status, refused.value.charged)
        else:
            assert "no complete answer from 127.0.0.1" in str((await submit).record.answer_problem)


@pytest.mark.parametrize("has_file", [False, True])
async def test_the_status_of_an_answer_that_stalls_is_known(
    serve: Serve, transport: Transport, voice_file: Path, loop_time: LoopTime, has_file: bool
) -> None:
    """A server that stops in the middle of its answer has told its status, which may say that it made no task."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_all(reader)
        writer.write(b'HTTP/1.1 401 X\r\nContent-Length: 99\r\n\r\n{"code":')
        await writer.drain()
        begun.set()
        await over.wait()

    request = upload(await serve(stall), voice_file)
    sending = asyncio.create_task(transport.send(request if has_file else evolve(request, parts=request.parts[:1])))
    await begun.wait()
    try:
        with pytest.raises(MaybeSentError) as unsure:
            await loop_time.run(sending, step=1.0)
    finally:
        over.set()
    assert 401 == unsure.value.status


async def test_an_answer_that_came_while_the_process_stood_still_is_read(
    serve: Serve, transport: Transport, loop_time: LoopTime
) -> None:
    """A process that was stopped for longer than a call may take reads the answer, so that no task id is lost."""

    async def answer_meanwhile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        loop_time.advance(3_600.0)

    url = await serve(answer_meanwhile)
    assert (await transport.send(HttpRequest(method="POST", url=url))).body == b"{}"


async def test_an_answer_to_a_file_that_came_while_the_process_stood_still_is_read(
    serve: Serve, transport: Transport, voice_file: Path, loop_time: LoopTime
) -> None:
    """The same after an upload, whose answer may name a paid task, also if every timeout comes before it."""

    async def answer_meanwhile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_all(reader)
        loop_time.advance(3_600.0)
        for _ in range(5):  # a stopped process runs its timers first
            await asyncio.sleep(0)
        writer.write(ANSWER)

    assert (await transport.send(upload(await serve(answer_meanwhile), voice_file))).body == b"{}"


async def test_a_call_without_an_answer_ends_though_the_process_stood_still(
    serve: Serve, transport: Transport, loop_time: LoopTime
) -> None:
    """The time to read an answer after a standstill is bounded."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        begun.set()
        await over.wait()

    sending = asyncio.create_task(transport.send(HttpRequest(method="POST", url=await serve(say_nothing))))
    await begun.wait()
    loop_time.advance(3_600.0)
    try:
        with pytest.raises(MaybeSentError, match="TimeoutError"):
            await loop_time.run(sending)
    finally:
        over.set()


# --- connections that are kept -----------------------------------------------------------------------------


async def test_a_second_answer_is_not_the_next_calls(serve: Serve) -> None:
    """What a server sends on an idle connection is never taken for the answer to the next request."""
    asked = 0

    async def answer_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await read_head(reader):
            asked += 1
            answer = ANSWER.replace(b"{}", b"%02d" % asked)
            writer.write(answer)
            await writer.drain()
            await again.wait()
            writer.write(answer)
            sent.set()

    again, sent = asyncio.Event(), asyncio.Event()
    transport = Transport()
    call = HttpRequest(method="POST", url=await serve(answer_twice), body=b"")
    first = await transport.send(call)
    again.set()
    await sent.wait()
    await asyncio.to_thread(lambda: None)  # the event loop receives it meanwhile
    second = await transport.send(call)
    await transport.aclose()

    assert (b"01", b"02") == (first.body, second.body)


async def test_a_server_that_answers_before_the_call_is_asked_once(serve: Serve) -> None:
    """What comes on a new connection ends it, but the connection is not made again and again."""
    connections = 0

    class Late(Connector):
        """Returns a new connection only after something has come on it, as other event loops may."""

        async def _create_connection(self, *given: Any) -> ResponseHandler:
            made = await super()._create_connection(*given)
            while not made.should_close:  # noqa: ASYNC110 - aiohttp sets no event
                await asyncio.sleep(0)
            return made

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await read_head(reader)

    transport = Transport(connector=Late)
    async with asyncio.timeout(SOON_SECONDS):
        answer = await transport.send(HttpRequest(method="POST", url=await serve(refuse), body=b""))
    await transport.aclose()

    assert (503, 1) == (answer.status, connections)
