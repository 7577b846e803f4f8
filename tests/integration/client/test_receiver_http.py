"""The receiver over HTTP gives the same answers on its own server and mounted in an app, whatever the sender does."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from audioext.sandbox import Sandbox
from audioext.stores.base import Appended
from audioext.webhooks.endpoint import READY_SECONDS
from audioext.webhooks.receiver import MaskedAccessLogger
from tests.integration.client.conftest import SECRET, WEB, MakeClient
from tests.support.api import Api, callback
from tests.support.clock import SOON_SECONDS, JumpClock, LoopTime, soon

REF = "r" * 24
BODY = json.dumps(callback("complete")).encode()


class GatedMemory(ax.MemoryStore):
    """A store whose appends wait at a gate."""

    def __init__(self) -> None:
        """Start with the gate open."""
        super().__init__()
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def append(self, *arguments: object, **options: object) -> Appended:
        """Append when the gate is open."""
        self.arrived.set()
        await self.gate.wait()
        return await super().append(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are


@pytest.fixture
def store() -> GatedMemory:
    """Return a store whose gate is open."""
    return GatedMemory()


@pytest.fixture(params=["own", "mounted", "mounted and cancelled"])
async def base(request: pytest.FixtureRequest, stack: AsyncExitStack, store: GatedMemory, unused_tcp_port: int) -> URL:
    """Return the base URL of a client's receiver, on its own or in an app that may cancel its handlers."""
    url = f"http://127.0.0.1:{unused_tcp_port}/audio"
    own = request.param == "own"
    listen = f"127.0.0.1:{unused_tcp_port}" if own else None
    client = ax.Client(public_url=url, listen=listen, secrets=[SECRET], store=store)
    if not own:
        app = web.Application()
        client.receiver.add_to(app, "/audio")
        runner = web.AppRunner(app, handler_cancellation=request.param == "mounted and cancelled", shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    await stack.enter_async_context(client)
    return URL(url)


def path_of(base: URL, ref: str = REF, *, secret: bytes = SECRET) -> str:
    """Return a callback path that we issue."""
    return callback_url(base, secret, "kie", ref).raw_path


def head(base: URL, path: str, length: int, *more: str) -> bytes:
    """Return the head of a POST."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {base.host}", "Connection: close", f"Content-Length: {length}", *more]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


@asynccontextmanager
async def connection(base: URL) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to the receiver, and abort it at the end."""
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        async with asyncio.timeout(SOON_SECONDS):
            yield reader, writer
    finally:
        writer.transport.abort()


async def status(reader: asyncio.StreamReader) -> int:
    """Return the status of the next answer."""
    line = await reader.readline()
    return int(line.split()[1])


async def bodies(store: ax.MemoryStore) -> list[bytes]:
    """Return the bodies of all deliveries."""
    return [delivery.body async for delivery in store.deliveries()]


async def test_a_stranger_is_answered_before_the_body(base: URL) -> None:
    """A sender without our tag is answered 401 before it sends the body that it announced."""
    async with connection(base) as (reader, writer):
        writer.write(head(base, path_of(base, secret=b"another secret of length"), len(BODY)))

        assert 401 == await status(reader)
        writer.write(BODY)  # aiohttp still waits for it
        await reader.read()


async def test_a_body_announced_as_too_big_is_refused_before_it_arrives(base: URL, store: GatedMemory) -> None:
    """A body announced as larger than a mebibyte is refused before it arrives."""
    async with connection(base) as (reader, writer):
        writer.write(head(base, path_of(base), 1_048_577))

        assert 413 == await status(reader)
        writer.write(b" " * 1_048_577)  # aiohttp still waits for it
        await reader.read()
    assert [] == await bodies(store)


async def test_expect_100_continue_needs_our_tag(base: URL, store: GatedMemory) -> None:
    """`Expect: 100-continue` gets a 100 only with our tag."""
    async with connection(base) as (reader, writer):
        writer.write(head(base, path_of(base), len(BODY), "Expect: 100-continue"))
        assert 100 == await status(reader)
        await reader.readline()
        writer.write(BODY)

        assert 200 == await status(reader)
    assert [BODY] == await bodies(store)


async def test_a_provider_that_hangs_up_loses_nothing(base: URL, store: GatedMemory) -> None:
    """A delivery whose sender disconnects before the answer is stored all the same."""
    store.gate.clear()
    store.arrived.clear()
    async with connection(base) as (_, writer):
        writer.write(head(base, path_of(base), len(BODY)) + BODY)
        await store.arrived.wait()
    for _ in range(20):  # lets the receiver notice
        await asyncio.sleep(0)

    store.gate.set()
    assert [BODY] == await soon(lambda: bodies(store))


async def test_half_a_body_is_not_stored(base: URL, store: GatedMemory) -> None:
    """A body whose sender disconnects in the middle is not stored, and the next one is accepted."""
    async with connection(base) as (_, writer):
        writer.write(head(base, path_of(base), len(BODY)) + BODY[:20])
        await writer.drain()

    async with (
        aiohttp.ClientSession() as session,
        session.post(base.origin().join(URL(path_of(base))), data=BODY) as answer,
    ):
        assert 200 == answer.status
    assert [BODY] == await bodies(store)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: f"{path}/",
        lambda path: path.replace("/kie/", "//kie/"),
        lambda path: path.replace("/kie/", "/%6Bie/"),
        lambda path: f"{path[:-1]}%{ord(path[-1]):02X}",
        lambda path: f"{path}?utm=1",
        lambda path: f"{path};jsessionid=1A2B?utm=1",
    ],
    ids=["slash", "doubled", "encoded", "encoded tag", "query", "parameters"],
)
async def test_a_path_that_means_the_same_is_the_same(
    spoil: Callable[[str], str], store: GatedMemory, unused_tcp_port: int
) -> None:
    """Slashes, percent signs and queries that proxies add to a path do not matter."""
    base = URL(f"http://127.0.0.1:{unused_tcp_port}")
    listen = f"127.0.0.1:{unused_tcp_port}"
    async with ax.Client(public_url=base, listen=listen, secrets=[SECRET], store=store), connection(base) as pair:
        reader, writer = pair
        writer.write(head(base, spoil(path_of(base)), len(BODY)) + BODY)

        assert 200 == await status(reader)


async def test_over_http_the_tag_is_checked_before_the_body(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A request with a wrong tag is answered without waiting for its body; GET is answered 405; `/healthz` works."""
    client = await make_client(sandbox, secrets=[SECRET])
    base = client.public_url
    assert base is not None

    async with aiohttp.ClientSession() as session:
        stranger = base / "kie" / ("r" * 24) / ("t" * 43)
        async with session.post(stranger, data=b"{}") as response:
            assert 401 == response.status
        async with session.get(stranger) as response:
            assert 405 == response.status
        async with session.get(base.origin() / "healthz") as response:
            assert (200, {"status": "ok"}) == (response.status, await response.json())
        async with session.get(base / "readyz") as response:
            assert 200 == response.status
        async with session.get(base / "files" / "guess" / "a.wav") as response:
            assert 404 == response.status
        job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
        await job
        big = base / job.provider / job.ref / callback_url(base, SECRET, job.provider, job.ref).name
        async with session.post(big, data=io.BytesIO(b" " * 1_048_577)) as response:
            assert 413 == response.status


async def test_mounted_into_an_app_it_works_the_same(sandbox: Sandbox, unused_tcp_port: int) -> None:
    """A client mounted under a prefix of the user's app receives its webhooks there."""
    client = ax.Client(
        ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]),
        public_url=f"http://127.0.0.1:{unused_tcp_port}/audio",
        listen=None,
    )
    app = web.Application()
    client.receiver.add_to(app, "/audio")
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        async with client:
            song = await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))
            await sandbox.settled()
    finally:
        await runner.cleanup()

    assert 2 == len(song.tracks)
    assert {(200, None)} == {(delivery.status, delivery.error) for delivery in sandbox.deliveries}


async def test_the_access_log_hides_the_tag(
    sandbox: Sandbox, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With the access log on, every line has its tag masked."""
    caplog.set_level(logging.DEBUG)
    client = await make_client(sandbox, secrets=[SECRET])
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    await job
    await sandbox.settled()

    lines = [record.getMessage() for record in caplog.records if record.name == "audioext.access"]
    tag = path_of(URL(), job.ref).rpartition("/")[2]
    assert lines
    assert not [line for line in lines if tag in line]


async def test_the_access_log_shows_whom_a_proxy_names(base: URL, caplog: pytest.LogCaptureFixture) -> None:
    """An access log line adds the address that a proxy names, with control characters replaced and tags masked."""
    secret = path_of(base)
    named = {"X-Forwarded-For": f"203.0.113.9\x9b31m, {secret}"}
    with caplog.at_level(logging.INFO, "audioext.access"):
        logger = MaskedAccessLogger(logging.getLogger("audioext.access"), "")
        for headers in ({}, named):
            logger.log(make_mocked_request("GET", "/audio/healthz", headers), web.Response(), 0.01)

    lines = [record.getMessage() for record in caplog.records if record.name == "audioext.access"]
    assert 'None "GET /audio/healthz" 200 0 0.010 s' == lines[0]
    assert lines[1].startswith("None (for 203.0.113.9\N{REPLACEMENT CHARACTER}31m, /audio/kie/rrr")
    assert secret.rpartition("/")[2] not in lines[1]


async def test_readyz_tells_whether_the_store_takes_entries(
    api: Api, open_client: MakeClient, clock: JumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    """/readyz counts warnings and is 503 while the store is down, with the reason only in the log; /healthz is 200."""
    store = ax.MemoryStore()
    client = await open_client(store=store, clock=clock.clock, **WEB)
    assert client.public_url is not None
    ready, healthy = client.public_url / "readyz", client.public_url / "healthz"

    async with aiohttp.ClientSession() as session:
        async with session.get(ready) as response:
            answer = await response.json()
        assert {"status": "ok", "warnings": 1} == answer
        store.fail("the disk of /srv/customer is full")
        async with session.get(ready) as response:
            assert 200 == response.status  # frequent probes read the store once a second
        await clock.advance(READY_SECONDS)
        async with session.get(ready) as response:
            assert (503, {"status": "store down"}) == (response.status, await response.json())
        assert "not ready, trying again: the disk of /srv/customer is full" in caplog.text
        async with session.get(healthy) as response:
            assert 200 == response.status
        store.fail(None)


async def test_readyz_does_not_wait_for_a_store_that_is_gone(
    api: Api, open_client: MakeClient, loop_time: LoopTime, caplog: pytest.LogCaptureFixture
) -> None:
    """/readyz answers within the second that probes usually wait, though the store retries for longer (newcomer E)."""
    store = MuteMemory()
    client = await open_client(store=store, **WEB)
    store.is_mute = True

    answer, seconds = await loop_time.run(client.receiver.endpoint.readiness(), step=0.1)

    assert (503, {"status": "store down"}) == answer
    assert seconds < 1.0
    assert "not ready, trying again: the store did not answer within 0.8 s" in caplog.text


class MuteMemory(ax.MemoryStore):
    """A store that does not answer while it is mute, like Redis behind a network that drops packets."""

    is_mute = False

    async def warnings(self) -> tuple[str, ...]:
        """Never return while mute."""
        if self.is_mute:
            await asyncio.Event().wait()
        return await super().warnings()


async def test_readyz_is_not_ok_while_webhooks_cannot_be_stored(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A store that can be read but not written, as on a full disk, makes /readyz 503."""
    store = FullDisk()
    client = await open_client(store=store, clock=clock.clock, **WEB)
    assert client.public_url is not None
    await client.extend(audio_id="a", model="V5")

    async with aiohttp.ClientSession() as session:
        for is_full, taken, ready in ((True, 503, 503), (False, 200, 200)):
            store.is_full = is_full
            assert taken == await api.call_back("complete")
            await clock.advance(READY_SECONDS)
            async with session.get(client.public_url / "readyz") as response:
                assert ready == response.status


class FullDisk(ax.MemoryStore):
    """A store whose appends fail while its disk is full."""

    is_full = False

    async def append(self, *arguments: object, **options: object) -> Appended:
        """Append while there is room."""
        if self.is_full:
            message = "the disk is full"
            raise ax.StoreError(message)
        return await super().append(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are


@web.middleware
async def read_first(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Read the body before the handler does, as middleware that logs requests would."""
    await request.text()
    return await handler(request)


async def test_a_body_that_a_middleware_read_is_accepted(stack: AsyncExitStack, unused_tcp_port: int) -> None:
    """A receiver mounted in an app whose middleware reads bodies still gets them."""
    url = f"http://127.0.0.1:{unused_tcp_port}/audio"
    store = ax.MemoryStore()
    client = ax.Client(public_url=url, listen=None, secrets=[SECRET], store=store)
    app = web.Application(middlewares=[read_first])
    client.receiver.add_to(app, "/audio")
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    await stack.enter_async_context(client)

    async with (
        aiohttp.ClientSession() as session,
        session.post(URL(url).with_path(path_of(URL(url))), data=BODY) as answer,
    ):
        assert 200 == answer.status

    assert [BODY] == await bodies(store)


@pytest.mark.parametrize("is_inner", [False, True], ids=["app", "sub-app"])
@pytest.mark.parametrize("prefix", ["/", "/audio", "/ünï"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: f"{path}/",
        lambda path: path.replace("/kie/", "//kie//"),
        lambda path: path.replace("/kie/", "/kie%2F"),
        lambda path: path.replace("/kie/", "/%6Bie/") + "//?utm=1",
        lambda path: f"{path[:-1]}%{ord(path[-1]):02X}",
        lambda path: f"{path};jsessionid=1A2B",
    ],
    ids=["slash", "doubled", "encoded slash", "encoded", "encoded tag", "parameters"],
)
async def test_a_mounted_receiver_accepts_paths_that_mean_the_same(
    spoil: Callable[[str], str], prefix: str, is_inner: bool, stack: AsyncExitStack, unused_tcp_port: int
) -> None:
    """Mounted in a user's app, the receiver also takes paths with the slashes and escapes that proxies add."""
    app = inner = web.Application()
    if is_inner:
        inner = web.Application()
    url = URL(f"http://127.0.0.1:{unused_tcp_port}").with_path("/in" * is_inner + prefix)
    store = ax.MemoryStore()
    client = ax.Client(public_url=url, listen=None, secrets=[SECRET], store=store)
    client.receiver.add_to(inner, prefix)
    if is_inner:
        app.add_subapp("/in", inner)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    await stack.enter_async_context(client)
    reader, writer = await stack.enter_async_context(connection(url))

    writer.write(head(url, spoil(path_of(url)), len(BODY)) + BODY)

    assert 200 == await status(reader)
    assert [BODY] == await bodies(store)


@pytest.mark.parametrize("way", ["own", "mounted", "in a sub-app"])
@pytest.mark.parametrize(
    ("prefix", "mount"),
    [("/a b", "/a b"), ("/ünï", "/ünï"), ("/a%20b", "/a%20b"), ("/b", "/%62"), ("/x/audio", "/{of}/audio")],
)
async def test_a_prefix_may_have_to_be_encoded(  # noqa: PLR0913 - two parameters and four fixtures
    prefix: str, mount: str, way: str, stack: AsyncExitStack, tmp_path: Path, unused_tcp_port: int
) -> None:
    """Webhooks, files and `/healthz` are found under a prefix that needs encoding (newcomer D: webhooks were 404)."""
    own, outer = way == "own", "/in" if way == "in a sub-app" else ""
    url = URL(f"http://127.0.0.1:{unused_tcp_port}{outer}{prefix}")
    listen = f"127.0.0.1:{unused_tcp_port}" if own else None
    client = ax.Client(public_url=url, listen=listen, secrets=[SECRET])
    if not own:
        app = inner = web.Application()
        if outer:
            inner = web.Application()
        client.receiver.add_to(inner, mount)
        if outer:
            app.add_subapp(outer, inner)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    await stack.enter_async_context(client)
    (tmp_path / "a.wav").write_bytes(b"audio")
    offer = client.receiver.endpoint.offers.offer(tmp_path / "a.wav")
    session = await stack.enter_async_context(aiohttp.ClientSession())

    statuses = []
    for method, asked in (
        ("POST", callback_url(url, SECRET, "kie", REF)),
        ("GET", url / "healthz"),
        ("GET", url.joinpath("files", *offer.split("/"))),
    ):
        async with session.request(method, asked, data=BODY if method == "POST" else None) as response:
            await response.read()
        statuses.append(response.status)

    assert [200, 200, 200] == statuses
