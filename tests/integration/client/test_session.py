"""The guarantees of a submit hold through a proxy and with the user's own session too."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import RawTestServer

import audioext as ax
from audioext.http.messages import HttpRequest, Part
from audioext.http.transport import Transport
from tests.integration.client.conftest import MakeClient
from tests.support.api import BRISK, Api
from tests.support.proxy import make_certificate
from tests.support.sounds import MP3

FAR = "http://api.kie.test"
"""A host that only a proxy or a user's resolver can reach."""

Serve = Callable[[Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]], Awaitable[str]]


@pytest.fixture
async def serve(stack: AsyncExitStack) -> Serve:
    """Return a function that serves a handler and returns its address."""

    async def start(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> str:
        server = RawTestServer(handler)
        await server.start_server()
        stack.push_async_callback(server.close)
        return str(server.make_url("/")).rstrip("/")

    return start


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove this machine's proxy and netrc settings from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


class ToThisMachine(AbstractResolver):
    """A resolver that sends some hosts to ports of this machine."""

    def __init__(self, **bases: str) -> None:
        """Map each host name prefix to the base URL that serves it."""
        self._ports = {name: int(base.rpartition(":")[2]) for name, base in bases.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the one address."""
        del port, family
        port = self._ports[host.partition(".")[0]]
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Do nothing."""


async def give_a_file(_: web.BaseRequest) -> web.Response:
    """Return four seconds of music."""
    return web.Response(body=MP3, content_type="audio/mpeg")


@pytest.fixture
async def asked() -> list[str]:
    """Return the requests that the user's own session made."""
    return []


@pytest.fixture
async def session(api: Api, asked: list[str], serve: Serve) -> AsyncIterator[aiohttp.ClientSession]:
    """Return a user's session that reaches the API by its own connector and raises for HTTP errors."""
    trace = aiohttp.TraceConfig()

    async def note(_: object, __: object, start: aiohttp.TraceRequestStartParams) -> None:
        asked.append(f"{start.method} {start.url}")

    trace.on_request_start.append(note)
    files = await serve(give_a_file)
    connector = aiohttp.TCPConnector(resolver=ToThisMachine(api=api.base, files=files))
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True, trace_configs=[trace]) as made:
        yield made


def far_kie(**settings: object) -> ax.Kie:
    """Return a provider at a host that does not exist."""
    return ax.Kie("0123456789abcdef0123", base_url=FAR, pace=BRISK, **settings)  # type: ignore[arg-type]  # a test's own


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust_env", [True, False])
async def test_proxies_of_the_environment_are_used_when_asked(
    trust_env: bool, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `trust_env` the environment's proxy, which alone can resolve the host, is used; else nothing is sent."""
    seen: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append(request.raw_path)
        return web.json_response({"code": 200, "msg": "success", "data": {"taskId": "task-1"}})

    monkeypatch.setenv("HTTP_PROXY", await serve(proxy))
    async with ax.Client(far_kie(), trust_env=trust_env) as client:
        if trust_env:
            assert "task-1" == (await client.extend(audio_id="x", model="V5")).task_id
        else:
            with pytest.raises(ax.ProviderDownError, match="nothing was sent"):
                await client.extend(audio_id="x", model="V5")

    assert [f"{FAR}/api/v1/generate/extend"] * trust_env == seen[:1]


async def test_a_proxy_that_refuses_is_known_to_have_sent_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit through a proxy that refuses the tunnel is known as not sent, rather than unknown."""

    async def proxy(_: web.BaseRequest) -> web.Response:
        return web.Response(status=407)

    monkeypatch.setenv("HTTPS_PROXY", await serve(proxy))
    provider = ax.Kie("0123456789abcdef0123", base_url="https://api.kie.test")
    async with ax.Client(provider, trust_env=True) as client:
        with pytest.raises(ax.ProviderDownError, match="nothing was sent") as refused:
            await client.extend(audio_id="x", model="V5")

    assert refused.value.charged is False


@pytest.mark.parametrize("text", ["me:secret@10.0.0.1:3128", "socks5://10.0.0.1", "http://10.0.0.1:x", "http://[", "x"])
async def test_a_malformed_proxy_sends_nothing(text: str, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed proxy setting raises an error before anything is sent, and the error hides the password."""
    monkeypatch.setenv("FTP_PROXY", text)  # not used for http: ignored
    async with ax.Client(api.provider(), trust_env=True) as client:
        monkeypatch.setenv("HTTP_PROXY", text)
        with pytest.raises(ax.ProviderDownError, match="its proxy has no usable address; nothing was sent") as refused:
            await client.extend(audio_id="x", model="V5")

    assert "secret" not in str(refused.value)
    assert [] == api.posts


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "WS_PROXY"])
def test_a_proxy_that_cannot_be_parsed_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an address would make every call fail, since aiohttp reads all proxies for each call."""
    monkeypatch.setenv(name, "http://[")
    with pytest.raises(ax.ConfigError, match=rf"trust_env needs a proxy like .* in {name.lower()}$"):
        ax.Client(ax.Kie("key"), trust_env=True)


async def test_only_the_proxy_of_the_calls_own_scheme_must_be_usable(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy for other schemes, or one that `NO_PROXY` excludes, keeps no call back."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://10.0.0.1")
    client = await open_client(trust_env=True)
    await client.extend(audio_id="x", model="V5")
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await client.extend(audio_id="x", model="V5")

    assert 2 == len(api.posts)


async def test_a_netrc_that_would_replace_the_key_is_an_error(
    api: Api, open_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A netrc entry that would replace the API key, such as the default one, raises an error, and nothing is sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client = await open_client(trust_env=True)

    with pytest.raises(ax.ProviderDownError, match=r"a netrc file or session= has another password for 127\.0\.0\.1"):
        await client.extend(audio_id="x", model="V5")
    assert [] == api.posts


# --- a user's own session --------------------------------------------------------------------------------------------


async def test_all_calls_use_the_users_session(
    api: Api, session: aiohttp.ClientSession, asked: list[str], tmp_path: Path
) -> None:
    """Submits, polls and downloads use the user's session, which the client leaves open."""
    for _ in range(2):
        async with ax.Client(far_kie(), session=session, allow_hosts=["http://files.test"]) as client:
            song = await client.run(ax.Extend(audio_id="x", model="V5"))
            (path,) = await song.save(tmp_path)
            assert MP3 == path.read_bytes()
        assert not session.closed

    assert ["task-1", "task-2"] == api.made
    called = {call.partition("?")[0] for call in asked}
    assert {
        f"POST {FAR}/api/v1/generate/extend",
        f"GET {FAR}/api/v1/generate/record-info",
        "GET http://files.test/a.mp3",
    } <= called


async def test_a_refusal_is_read_though_the_session_raises(api: Api, session: aiohttp.ClientSession) -> None:
    """The body of a refusal is read although the session raises for HTTP errors, since it says what was charged."""
    api.status_codes = [503]
    async with ax.Client(far_kie(), session=session) as client:
        job = await client.extend(audio_id="x", model="V5")
        with pytest.raises(ax.ProviderError) as refused:
            await job.refresh()
    assert 503 == refused.value.http_status


async def test_a_submit_is_neither_redirected_nor_sent_again(serve: Serve) -> None:
    """A submit is one POST, although the session follows redirects and retries other requests."""
    posts: list[str] = []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        posts.append(request.raw_path)
        if len(posts) == 1:
            return web.Response(status=307, headers={"Location": "/again"})
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    base = await serve(elsewhere)
    async with (
        aiohttp.ClientSession() as session,
        ax.Client(ax.Kie("0123456789abcdef0123", base_url=base), session=session) as client,
    ):
        for number in (1, 2):
            job = await client.extend(audio_id="x", model="V5")
            with pytest.raises(ax.SubmitUnknownError):
                await job
            assert ["/api/v1/generate/extend"] * number == posts


async def send_again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Try twice, like the middlewares that aiohttp's pages show."""
    try:
        return await handler(request)
    except aiohttp.ClientError:
        return await handler(request)


async def reconnect(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Try again on a new connection, and find that there is none."""
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise aiohttp.ClientConnectorError(request.connection_key, OSError("refused")) from error


async def complain(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Find fault with a failed call's headers, in the words of aiohttp for a call that it does not make."""
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        message = "cannot combine AUTHORIZATION header with AUTH argument"
        raise ValueError(message) from error


@pytest.mark.parametrize("middleware", [send_again, reconnect, complain])
@pytest.mark.parametrize(
    ("provider", "request_"),
    [
        (ax.Kie, ax.Extend(audio_id="x", model="V5")),
        (ax.MusicGpt, ax.Extend(url="https://files.test/a.mp3", continue_at=2, prompt="more")),
    ],
)
async def test_a_session_that_tries_again_sends_no_submit_twice(
    provider: type[ax.Kie | ax.MusicGpt], request_: ax.Request, middleware: aiohttp.ClientMiddlewareType, serve: Serve
) -> None:
    """A session's middleware sends no submit twice, and a submit that it has sent once has an unknown outcome."""
    posts: list[bytes] = []

    async def hang_up(request: web.BaseRequest) -> web.Response:
        posts.append(await request.read())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with (
        aiohttp.ClientSession(middlewares=[middleware]) as session,
        ax.Client(provider("0123456789abcdef0123", base_url=await serve(hang_up)), session=session) as client,
    ):
        job = await client.submit(request_)
        with pytest.raises(ax.SubmitUnknownError):
            await job

    assert 1 == len(posts)


async def test_a_session_that_was_closed_sends_nothing(api: Api) -> None:
    """With a session that the user closed, a submit raises our error and is known as not sent."""
    session = aiohttp.ClientSession()
    async with ax.Client(api.provider(), session=session) as client:
        await session.close()
        with pytest.raises(ax.ProviderDownError, match="session= of this client was closed before this call"):
            await client.extend(audio_id="x", model="V5")
    assert [] == api.posts


async def test_a_session_that_was_closed_fetches_nothing(
    api: Api, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """With a session that the user closed, saving or reading a song raises our error too."""
    async with ax.Client(far_kie(), session=session, allow_hosts=["http://files.test"]) as client:
        song = await client.run(ax.Extend(audio_id="x", model="V5"))
        await session.close()
        with pytest.raises(ax.DownloadError, match="session= of this client was closed before this call"):
            await song.save(tmp_path)
        with pytest.raises(ax.DownloadError, match="session= of this client was closed before this call"):
            await song.tracks[0].read()
    assert ["task-1"] == api.made


async def test_a_session_that_cannot_be_used_is_refused(api: Api) -> None:
    """A closed session, one with its own credentials and any other object are refused when the client is made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of aiohttp deprecate it
        secretive = aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "secret"))
    async with aiohttp.ClientSession() as open_, secretive:
        for session, trust_env, says in (
            (aiohttp.ClientSession, False, "must be an aiohttp.ClientSession"),
            (secretive, False, "has auth= of its own"),
            (open_, True, r"give aiohttp.ClientSession\(trust_env=True\)"),
        ):
            with pytest.raises(ax.ConfigError, match=says):
                ax.Client(api.provider(), session=session, trust_env=trust_env)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ax.ConfigError, match="session is closed"):
        ax.Client(api.provider(), session=open_)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_private_authority_is_trusted_by_a_session_that_trusts_it(
    api: Api, stack: AsyncExitStack, tmp_path: Path
) -> None:
    """A submit to an API with a private CA succeeds with a session that trusts it, and else is known as not sent."""
    context, certificate = await asyncio.to_thread(make_certificate, tmp_path, days=2)

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({"code": 200, "msg": "success", "data": {"taskId": "task-1"}})

    server = RawTestServer(answer, scheme="https")
    await server.start_server(ssl=context)
    stack.push_async_callback(server.close)
    provider = api.provider(base_url=f"https://127.0.0.1:{server.port}")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's own complaint about that handshake
    async with ax.Client(provider) as client:
        with pytest.raises(ax.ProviderDownError, match=r"certificate verify failed.*; nothing was sent"):
            await client.extend(audio_id="x", model="V5")

    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=certificate))
    async with aiohttp.ClientSession(connector=connector) as session, ax.Client(provider, session=session) as client:
        assert "task-1" == (await client.extend(audio_id="x", model="V5")).task_id


# --- file names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("voice.wav", "voice.wav"),
        ("Мой голос (1).wav", "Мой голос (1).wav"),
        ("100% 音.mp3", "100% 音.mp3"),
        ('a "b"\r\n.wav', "a %22b%22%0D%0A.wav"),
        ("a\\b.wav", "a\\b.wav"),
    ],
)
async def test_the_name_of_a_file_is_readable_in_a_form(name: str, sent: str, serve: Serve, tmp_path: Path) -> None:
    """The name of an uploaded file is sent as browsers do: UTF-8, escaping only the characters that would end it."""
    bodies: list[bytes] = []

    async def take(request: web.BaseRequest) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    path = tmp_path / name
    path.write_bytes(b"RIFF")
    transport = Transport()
    form = HttpRequest(
        method="POST", url=ax.Kie(base_url=await serve(take)).base_url, parts=(Part(name="audio_file", path=path),)
    )
    await transport.send(form)
    await transport.aclose()

    assert f'Content-Disposition: form-data; name="audio_file"; filename="{sent}"\r\n'.encode() in bodies[0]
