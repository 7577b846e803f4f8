"""Attacks on the receiver over real sockets: each gets its answer and does not affect other senders."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import resource
import select
import socket
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from attrs import field, frozen
from yarl import URL

import audioext as ax
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.urls import callback_url
from audioext.models.entries import MAX_ENTRIES
from audioext.models.events import Event
from audioext.webhooks.endpoint import BODY_SECONDS, MAX_UNFINISHED_BYTES
from audioext.webhooks.inbox import KEPT_BYTES
from audioext.webhooks.server import HEAD_SECONDS, LINGERING_SECONDS, MAX_CONNECTIONS, most_connections
from tests.support.api import Api, callback, serve_api
from tests.support.bombs import bomb
from tests.support.clock import SOON_SECONDS, LoopTime, soon
from tests.support.processes import start
from tests.support.tape import Tape, shown, webhook

SECRET = b"0123456789abcdef-secret"
REF = "r" * 24
GOOD = json.dumps(callback("complete")).encode()
BOMB = bomb(50)
MANY = b'{"code":200,"data":{"callbackType":"complete","task_id":"t","data":[%s]}}'
FILES = b'{"code":200,"data":{"task_id":"t","status":"finished","files":[%s]}}'
LINES = b'{"task_id":"t","conversion_id":"c","lyrics_timestamped":[%s]}'
NAMED = b'{"code":200,"data":{"callbackType":"first","task_id":"%s","data":[]}}'
FORTY_YEARS = "4102444800"
KIE = "/audio/kie"
CALLERS = 300


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close everything that a test opened, in reverse order."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def loop_time(monkeypatch: pytest.MonkeyPatch) -> LoopTime:
    """Return a function that moves the event loop's own time."""
    return LoopTime(monkeypatch)


@pytest.fixture
async def api(stack: AsyncExitStack) -> Api:
    """Return a stand-in for kie.ai."""
    return await stack.enter_async_context(serve_api())


@pytest.fixture
def store() -> ax.MemoryStore:
    """Return a store that the test can read."""
    return ax.MemoryStore()


@pytest.fixture
async def client(stack: AsyncExitStack, api: Api, store: ax.MemoryStore) -> ax.Client:
    """Return a client with a receiver."""
    return await stack.enter_async_context(
        ax.Client(
            api.provider(pace=ax.Pace(first=300.0, quiet=300.0)),
            public_url="http://127.0.0.1:{port}/audio",
            listen="127.0.0.1:0",
            secrets=[SECRET],
            store=store,
        )
    )


def url_of(client: ax.Client) -> URL:
    """Return the receiver's base URL."""
    assert client.public_url is not None
    return client.public_url


def path_of(client: ax.Client, ref: str = REF, *, secret: bytes = SECRET, provider: str = "kie") -> str:
    """Return a callback path, signed with our secret or with another *secret*."""
    return callback_url(url_of(client), secret, provider, ref).raw_path


@asynccontextmanager
async def connected(
    client: ax.Client, *, patience: float = SOON_SECONDS, takes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection whose receive buffer has that many bytes, and abort it at the end."""
    url = url_of(client)
    sock = socket.socket()
    sock.settimeout(0)
    if takes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # the sender's buffer grows with the segment size
    await asyncio.get_running_loop().sock_connect(sock, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        async with asyncio.timeout(patience):
            yield reader, writer
    finally:
        writer.transport.abort()


def post(path: str, body: bytes, *headers: str | bytes) -> bytes:
    """Return a POST as bytes."""
    lines: list[str | bytes] = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + body


async def answer(client: ax.Client, data: bytes) -> int:
    """Send *data* on a new connection, and return the status of the answer."""
    async with connected(client) as (reader, writer):
        writer.write(data)
        return int((await reader.readline()).split()[1])


# --- the table ---------------------------------------------------------------------------------------------------


@frozen
class Attack:
    """A request, and the status that answers it."""

    name: str
    status: int
    path: str = ""
    """The request path; if empty, a callback path with a valid tag for a job that does not exist."""
    body: bytes = GOOD
    headers: tuple[str | bytes, ...] = ()
    raw: bytes | None = None
    provider: str = "kie"


CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
TRAILER = "1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n"
WRONG_TAG = f"{KIE}/{REF}/{'x' * 43}"
ATTACKS = (
    Attack("a bomb to a path of nobody", 404, "/nowhere", BOMB, ("Content-Encoding: gzip",)),
    Attack("a bomb with a wrong tag", 401, WRONG_TAG, BOMB, ("Content-Encoding: gzip",)),
    Attack("a bomb with a right tag", 413, body=BOMB, headers=("Content-Encoding: gzip",)),
    Attack("a good body that is compressed", 200, body=gzip.compress(GOOD), headers=("Content-Encoding: gzip",)),
    Attack("a good body by deflate", 200, body=zlib.compress(GOOD), headers=("Content-Encoding: deflate",)),
    Attack("a body that is not compressed as it says", 400, headers=("Content-Encoding: GZIP",)),
    Attack("half a compressed body", 400, body=gzip.compress(GOOD)[:-9], headers=("Content-Encoding: gzip",)),
    Attack("junk behind a compressed body", 400, body=gzip.compress(GOOD) + b"x", headers=("Content-Encoding: gzip",)),
    Attack("a body that says that it is not compressed", 200, headers=("Content-Encoding: identity",)),
    Attack("a way to compress that nobody asked for", 415, headers=("Content-Encoding: br",)),
    Attack("an Expect that is not text", 417, headers=(b"Expect: \xf4",)),
    Attack("an Expect that is not text, to a path of nobody", 404, "/nowhere", headers=(b"Expect: \xf4",)),
    Attack("headers that are not text", 200, headers=(b"User-Agent: \xff\xfe", b"X-Webhook-Signature: \xf0")),
    Attack("no HTTP", 400, raw=b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    Attack("two ways to frame a body", 400, headers=("Transfer-Encoding: chunked",)),
    Attack("two hosts", 400, headers=("Host: y",)),
    Attack("a folded line", 400, headers=(" folded",)),
    Attack("an invalid chunk", 400, raw=f"POST {WRONG_TAG} HTTP/1.1\r\nHost: x\r\n{CHUNKED}Z\r\n".encode()),
    Attack("a trailer that frames", 400, raw=f"POST {WRONG_TAG} HTTP/1.1\r\nHost: x\r\n{CHUNKED}{TRAILER}".encode()),
    Attack("the preface of HTTP/2", 400, raw=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Attack("an invalid host before the path", 400, path=f"http://[::1{WRONG_TAG}"),
    Attack("another host before the path", 401, path=f"http://evil.test{WRONG_TAG}"),
    Attack("a way to tunnel", 405, raw=b"CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
    Attack("a zero byte in the path", 400, path=f"{WRONG_TAG}\0"),
    Attack("an upgrade to another protocol", 401, WRONG_TAG, headers=("Upgrade: websocket", "Connection: Upgrade")),
    Attack("a head of many lines", 400, headers=tuple(f"X-{number}: y" for number in range(64))),
    Attack("a line of 9 kB in the head", 400, headers=("X: " + "y" * 9_000,)),
    Attack("a version of the future", 400, raw=f"POST {KIE}/{REF}/{'x' * 43} HTTP/9.9\r\n\r\n".encode()),
    Attack("330,000 empty tracks", 400, body=MANY % b",".join([b"{}"] * 330_000)),
    Attack("330,000 arrays for tracks", 400, body=MANY % b",".join([b"[]"] * 330_000)),
    Attack("a depth of 100,000", 400, body=b"[" * 100_000),
    Attack("one byte too many", 413, body=b" " * 1_048_577),
    Attack("524,000 numbers for files", 400, body=FILES % b",".join([b"1"] * 500_000), provider="vidgo"),
    Attack("100,000 files of wrong types", 400, body=FILES % b",".join([b"{},[],1"] * 33_000), provider="vidgo"),
    Attack("33,000 lines of lyrics", 400, body=LINES % b",".join([b'{"start":"x"}'] * 33_000), provider="musicgpt"),
    Attack("an array for a track", 200, body=MANY % b"[]"),
    Attack("a task id of 900 kB", 400, body=NAMED % (b"x" * 900_000)),
    Attack("a task id with a line break", 400, body=NAMED % rb"x\nCRITICAL root: hacked\u001b[31m"),
    Attack("a byte that is not UTF-8", 200, body=MANY % b'{"id":"a","title":"\xff"}'),
    Attack("a title of 900 kB", 200, body=MANY % (b'{"id":"a","title":"' + b"x" * 900_000 + b'"}')),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_answered_and_leaves_the_receiver_well(
    client: ax.Client, api: Api, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    """An attack gets its status, logs no traceback or secret, and the next webhook is accepted."""
    caplog.set_level(logging.DEBUG, logger="audioext")
    job = await client.extend(audio_id="a", model="V5")
    data = attack.raw or post(attack.path or path_of(client, provider=attack.provider), attack.body, *attack.headers)

    assert attack.status == await answer(client, data)
    assert 200 == await api.call_back("complete")
    assert ax.Stage.COMPLETE is job.stage
    assert [] == [record for record in caplog.records if record.exc_info]
    assert all(len(record.getMessage()) < 2_000 for record in caplog.records)
    assert "x" * 43 not in caplog.text


async def test_invalid_http_is_counted_and_logged_in_one_line(
    client: ax.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Invalid HTTP, even with a valid tag in it, is logged in one counted line without the tag."""
    caplog.set_level(logging.INFO, logger="audioext.server")
    path = path_of(client)

    assert 400 == await answer(client, f"POST {path} HTTP/9.9\r\n\r\n".encode())
    (record,) = caplog.records
    assert (logging.INFO, 1) == (record.levelno, client.receiver.endpoint.answered[400])
    assert path.rpartition("/")[2] not in record.getMessage()


@pytest.mark.parametrize("slash", ["%2F", "%2f", "%252F"])
async def test_an_access_log_shows_no_tag_however_a_path_is_spelt(
    stack: AsyncExitStack, api: Api, slash: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The access log masks the tag in paths with encoded slashes, as proxies send them, and in queries."""
    caplog.set_level(logging.INFO)
    web = {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0", "secrets": [SECRET]}
    client = await stack.enter_async_context(ax.Client(api.provider(), **web))  # type: ignore[arg-type]  # a test's own settings
    path = path_of(client)
    tag = path.rpartition("/")[2]

    assert {"%252F": 404}.get(slash, 200) == await answer(client, post(f"/{path[1:].replace('/', slash)}", GOOD))
    assert 400 == await answer(client, f"POST {path.replace('/', slash)} HTTP/9.9\r\n\r\n".encode())
    assert 404 == await answer(client, post(f"{KIE}/{REF}?tag={tag}", GOOD))
    assert tag not in caplog.text


async def test_an_access_log_blames_a_sender_that_hangs_up(
    stack: AsyncExitStack, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """The access log has a sender that disconnects as a 400 that hung up, not as a 500."""
    caplog.set_level(logging.INFO)
    web = {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0", "secrets": [SECRET]}
    client = await stack.enter_async_context(ax.Client(api.provider(), **web))  # type: ignore[arg-type]  # a test's own settings
    async with connected(client) as (_, writer):
        writer.write(post(path_of(client), GOOD)[:-5])
        await writer.drain()

    async def is_logged() -> bool:
        return any("POST" in record.getMessage() for record in caplog.records if record.name == "audioext.access")

    assert await soon(is_logged)
    assert "disconnected" in caplog.text
    assert {400: 1} == client.receiver.endpoint.answered


# --- slow senders and many of them ---------------------------------------------------------------------------------


async def test_a_connection_without_a_complete_head_is_closed(client: ax.Client, loop_time: LoopTime) -> None:
    """A connection without a complete request head is closed, both a new and a reused one."""
    async with connected(client, patience=10 * HEAD_SECONDS) as (reader, writer):
        writer.write(b"POST /audio/kie HT")
        await writer.drain()
        await soon(lambda: _turn(loop_time, HEAD_SECONDS + 1.0))

        assert b"" == await reader.read()
    async with connected(client, patience=10 * HEAD_SECONDS) as (reader, writer):
        writer.write(post("/nowhere", b""))
        assert b"404" in await reader.readline()
        await soon(lambda: _turn(loop_time, HEAD_SECONDS + 1.0))

        assert (await reader.read()).endswith(b"}")


async def test_a_client_that_never_reads_its_answers_is_cut_off(client: ax.Client, loop_time: LoopTime) -> None:
    """A client that never reads its answers is cut off; 512 of them once blocked all others for ever."""
    answered = client.receiver.endpoint.answered

    async def is_stuck() -> bool:
        before = answered[404]
        for _ in range(50):
            await asyncio.sleep(0.001)
        return 0 < before == answered[404]

    async with connected(client, patience=20 * HEAD_SECONDS, takes=4096) as (_, writer):
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)

        await soon(is_stuck)
        while not writer.transport.is_closing():
            await _turn(loop_time, HEAD_SECONDS + 1.0)  # a reply that still left meanwhile begins the silence anew
            writer.write(b"x")  # fails once the connection is cut


async def _turn(loop_time: LoopTime, seconds: float) -> bool:
    for _ in range(20):
        await asyncio.sleep(0.001)
    loop_time.advance(seconds)
    return True


async def test_a_body_that_does_not_come_is_not_waited_for(client: ax.Client, loop_time: LoopTime) -> None:
    """A sender with a valid tag has a few seconds to send its body."""
    async with connected(client, patience=10 * BODY_SECONDS) as (reader, writer):
        writer.write(post(path_of(client), GOOD)[:-10])
        await writer.drain()
        await soon(lambda: _turn(loop_time, BODY_SECONDS + 1.0))

        assert b"408" in await reader.readline()
        await soon(lambda: _turn(loop_time, LINGERING_SECONDS + 1.0))
        await reader.read()


async def test_bodies_that_are_not_whole_are_bounded_together(client: ax.Client, api: Api) -> None:
    """Unfinished large bodies are bounded together: too many are answered 503, while a real webhook is accepted."""
    job = await client.extend(audio_id="a", model="V5")
    large = post(path_of(client), b" " * MAX_BODY_BYTES)[:-1]
    async with AsyncExitStack() as held:
        many = [await held.enter_async_context(connected(client)) for _ in range(MAX_UNFINISHED_BYTES // 2**20 + 8)]
        answers = [asyncio.ensure_future(reader.readline()) for reader, _ in many]
        for _, writer in many:
            writer.write(large)
        done, _ = await asyncio.wait(answers, timeout=SOON_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert {b"503"} == {each.result().split()[1] for each in done}

        whole = post(URL(api.posts[-1]["callBackUrl"]).raw_path, GOOD)
        async with connected(client) as (reader, writer):
            writer.write(whole[:-10])
            await asyncio.sleep(0.01)
            writer.write(whole[-10:])
            assert b"200" == (await reader.readline()).split()[1]
        for each in answers:
            each.cancel()

    assert ax.Stage.COMPLETE is job.stage


HOLD = """
import resource, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    held[-1].sendall(b"POST /half HTTP/1.1\\r\\n")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Lower this process's descriptor limit to little more than it uses, and return how many connections it allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(tuple(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 300, before[1]))
    yield most_connections()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_with_too_many_connections_the_oldest_is_closed(
    few_descriptors: int, client: ax.Client, api: Api
) -> None:
    """With too many connections the oldest is closed, so that webhooks, the store and our calls keep descriptors."""
    assert few_descriptors < MAX_CONNECTIONS
    job = await client.extend(audio_id="a", model="V5")
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLD,
        str(url_of(client).port),
        str(2 * few_descriptors),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert b"held\n" == await holder.stdout.readline()

        assert 200 == await api.call_back("complete")
        assert 1 == len((await job).tracks)
    finally:
        holder.kill()
        await holder.wait()


def late(callers: list[socket.socket]) -> list[socket.socket]:
    """Return which of *callers* are not connected within half a second in which the event loop does nothing else."""
    waiting, until = {*callers}, time.monotonic() + 0.5
    while waiting and time.monotonic() < until:
        waiting.difference_update(select.select([], [*waiting], [], 0.1)[1])
    return [*waiting]


async def test_a_burst_of_callers_waits_for_a_busy_loop(client: ax.Client) -> None:
    """Callers that come while the event loop is busy are connected at once, not by a SYN sent again a second later."""
    burst = [socket.socket() for _ in range(CALLERS)]
    try:
        for caller in burst:
            caller.settimeout(0)
            caller.connect_ex((url_of(client).host, url_of(client).port))

        assert [] == late(burst)
        for caller in burst:
            reader, writer = await asyncio.open_connection(sock=caller)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"200" == (await reader.readline()).split()[1]
            writer.transport.abort()
    finally:
        for caller in burst:
            caller.close()


# --- senders that know a callback URL ------------------------------------------------------------------------------


async def test_a_journal_is_bounded(client: ax.Client, store: ax.MemoryStore) -> None:
    """A thousand deliveries to one URL do not fill the store, and refused bodies are stored truncated."""
    path = path_of(client)
    for number in range(MAX_ENTRIES + 50):
        hook = ax.Webhook(path=path, body=b'{"code": 200, "msg": "%d"}' % number)
        assert 400 == await client.inbox.accept(hook)
    stored = await store.read(REF)
    assert stored is not None
    assert (MAX_ENTRIES // 2, MAX_ENTRIES // 2 + 50) == (stored.count, stored.repeats)


async def test_a_body_that_is_not_authentic_is_stored_truncated(
    stack: AsyncExitStack, api: Api, store: ax.MemoryStore
) -> None:
    """A body that is not authentic is stored with its first kilobytes only, so that it cannot fill the disk."""
    web = {"public_url": "http://127.0.0.1:{port}/", "listen": "127.0.0.1:0", "secrets": [SECRET], "store": store}
    client = await stack.enter_async_context(ax.Client(api.provider(webhook_key="key"), **web))  # type: ignore[arg-type]  # a test's own settings
    hook = ax.Webhook(path=path_of(client), headers={"X-Webhook-Timestamp": FORTY_YEARS}, body=GOOD + b" " * 100_000)

    assert 401 == await client.inbox.accept(hook)
    assert [KEPT_BYTES] == [len(delivery.body) async for delivery in store.deliveries()]


@frozen(kw_only=True)
class CountingTape(Tape):
    """A provider that counts the bodies it parses."""

    read: list[bytes] = field(factory=list)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Count one."""
        self.read.append(body)
        return super().parse_webhook(body)


async def test_deliveries_for_a_deleted_job_are_parsed_once(store: ax.MemoryStore) -> None:
    """Deliveries for a job that was deleted are parsed once each, however many have come."""
    tape = CountingTape()
    process = start(store, provider=tape)
    for number in range(10):
        await process.receive(webhook(float(number), shown(ax.Stage.TEXT), until=99 + number))

    assert 10 == len(tape.read)
    stored = await store.read(REF)
    assert stored is not None
    assert 10 == stored.count


async def test_a_sender_that_disconnects_logs_no_traceback(
    client: ax.Client, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """A sender that disconnects during its body, or before it is read, logs no traceback."""
    job = await client.extend(audio_id="a", model="V5")
    whole = post(path_of(client), GOOD)
    for cut in range(len(whole) - len(GOOD) - 5, len(whole), 40):
        async with connected(client) as (_, writer):
            writer.write(whole[:cut])
            await writer.drain()

    assert 200 == await api.call_back("complete")
    assert ax.Stage.COMPLETE is job.stage
    assert [] == [record for record in caplog.records if record.exc_info]


async def test_a_finished_song_is_not_rewritten_by_a_webhook(client: ax.Client, api: Api) -> None:
    """A webhook cannot replace a finished song's links or add tracks, even with the right URL."""
    job = await client.extend(audio_id="a", model="V5")
    assert 200 == await api.call_back("complete")
    before = [track.audio_url for track in (await job).tracks]
    path = URL(api.posts[-1]["callBackUrl"]).raw_path
    for track in (
        {"id": "a", "audio_url": "http://evil.test/z.mp3"},
        {"id": "z", "audio_url": "http://evil.test/z.mp3"},
    ):
        body = callback("complete")
        body["data"]["data"] = [track] * 3
        assert 200 == await client.inbox.accept(ax.Webhook(path=path, body=json.dumps(body).encode()))

    assert before == [track.audio_url for track in (await job).tracks][: len(before)]
    assert job.record.expected_tracks >= len((await job).tracks)


@pytest.mark.parametrize("confirm", ["never", "always"])
async def test_a_song_that_comes_after_a_failure_counts(stack: AsyncExitStack, api: Api, confirm: str) -> None:
    """After a forged or early failure the API's own result completes the job, by webhook or by status."""
    web = {"public_url": "http://127.0.0.1:{port}/", "listen": "127.0.0.1:0", "confirm": confirm}
    client = await stack.enter_async_context(ax.Client(api.provider(), **web))  # type: ignore[arg-type]  # as above
    job = await client.extend(audio_id="a", model="V5")
    api.is_done, api.word = False, "GENERATE_AUDIO_FAILED"
    assert 200 == await api.call_back("error", code=501)
    with pytest.raises(ax.JobFailedError):
        await job

    api.is_done = True
    assert 200 == await api.call_back("complete")
    async with asyncio.timeout(SOON_SECONDS):
        while job.verdict is not ax.Verdict.COMPLETE:  # noqa: ASYNC110 - the status call takes some turns
            await asyncio.sleep(0.01)


async def test_readyz_does_not_show_the_stores_address(client: ax.Client, store: ax.MemoryStore) -> None:
    """/readyz tells a stranger that the store is down, but neither its path nor its host."""
    store.fail("the SQLite file /srv/customer/jobs.db was deleted")
    async with connected(client) as (reader, writer):
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await reader.read()
    store.fail(None)

    assert b" 503 " in said
    assert (False, False) == (b"srv" in said, b"Python" in said)


@pytest.mark.parametrize("confirm", ["unsigned", "always"])
@pytest.mark.parametrize("forged", ["complete", "first", "error"])
async def test_with_confirm_a_forged_webhook_only_causes_a_status_call(
    stack: AsyncExitStack, api: Api, confirm: str, forged: str
) -> None:
    """With `confirm="always"` a forged song, track or failure only causes a status call, whose answer counts."""
    api.is_done = False
    web = {"public_url": "http://127.0.0.1:{port}/", "listen": "127.0.0.1:0", "confirm": confirm}
    client = await stack.enter_async_context(ax.Client(api.provider(), **web))  # type: ignore[arg-type]  # as above
    job = await client.extend(audio_id="a", model="V5")

    assert 200 == await api.call_back(forged, code=501 if forged == "error" else 200)
    async with asyncio.timeout(SOON_SECONDS):
        await api.asked.wait()
    assert (ax.Verdict.OPEN, (), ax.Stage.SUBMITTED) == (job.verdict, job.tracks, job.stage)
    api.is_done = True
    assert 200 == await api.call_back("complete")
    assert ["http://files.test/a.mp3"] == [track.audio_url for track in (await job).tracks]


async def test_a_secret_that_a_provider_quotes_is_masked(client: ax.Client, api: Api) -> None:
    """A failure message that quotes the callback URL has its tag masked in the error and the record."""
    job = await client.extend(audio_id="a", model="V5")
    url = api.posts[-1]["callBackUrl"]
    body = {"code": 501, "msg": f"we could not reach {url}", "data": {"callbackType": "error", "task_id": "task-1"}}
    hook = ax.Webhook(path=URL(url).raw_path, body=json.dumps(body).encode())

    assert 200 == await client.inbox.accept(hook)
    with pytest.raises(ax.JobFailedError, match="could not reach") as failed:
        await job
    tag = url.rpartition("/")[2]
    assert (False, False) == (tag in str(failed.value), tag in str(job.record))


async def test_a_damaged_secret_signs_nothing(api: Api) -> None:
    """A store whose secret was emptied is not opened, since anybody could then make valid tags."""
    store = ax.MemoryStore()
    assert b"" == await store.secret("callback secret", b"")

    with pytest.raises(ax.StoreError, match="damaged"):
        async with ax.Client(api.provider(), public_url="https://hooks.test/", listen=None, store=store):
            pass


# --- other threads -------------------------------------------------------------------------------------------------


async def test_a_webhook_may_come_on_another_thread(client: ax.Client, api: Api) -> None:
    """A view of a threaded framework with its own event loop can pass a webhook to the client's loop."""
    job = await client.extend(audio_id="a", model="V5")
    hook = ax.Webhook(path=URL(api.posts[-1]["callBackUrl"]).raw_path, body=GOOD)
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(asyncio.run(client.inbox.accept(hook))))
    thread.start()

    assert 1 == len((await job).tracks)
    await asyncio.to_thread(thread.join)
    assert [200] == statuses
