"""Links that strangers wrote never lead to hosts that the public cannot reach, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

import audioext as ax
from audioext.files.downloads import Downloader
from audioext.files.fetching import wire_url
from audioext.files.formats import BadFileError
from audioext.files.hosts import LinkRules, is_public, read_open_host
from audioext.http.transport import Transport
from tests.support.clock import LoopTime
from tests.support.hosts import Host, gives, serve_host
from tests.support.proxy import make_certificate
from tests.support.sounds import MP3
from tests.support.tables import each_row

PUBLIC = "93.184.216.34"
HOME = "127.0.0.1"


@define(eq=False)
class Net:
    """A test's internet: each name has lists of addresses, one per lookup, and there is one reachable host."""

    port: int
    names: dict[str, list[list[str]]] = field(factory=dict)
    lookups: list[str] = field(factory=list)
    dialled: list[str] = field(factory=list)

    async def lookup(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """Return a name's next addresses, the last of which repeat."""
        self.lookups.append(host)
        left = self.names.get(host.lower().rstrip("."))
        if left is None:
            return await aiohttp.ThreadedResolver().resolve(host, port, family)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [
            ResolveResult(hostname=host, host=each, port=port, family=_family(each), proto=0, flags=0)
            for each in addresses
        ]

    def connector(self, resolver: AbstractResolver | None) -> aiohttp.BaseConnector:
        """Return a connector into this internet that accepts any certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return aiohttp.TCPConnector(
            resolver=resolver, ssl=context, socket_factory=lambda info: Dialling(self, info[0], info[1], info[2])
        )


class Dialling(socket.socket):
    """A socket that records the addresses it connects to, and maps the public host to this machine."""

    def __init__(self, net: Net, family: int, kind: int, proto: int) -> None:
        """Create the socket."""
        super().__init__(family, kind, proto)
        self._net = net

    def connect(self, address: tuple[str, int], /) -> None:  # type: ignore[override]  # of IPv4 and IPv6 alone
        """Connect to an address."""
        self._net.dialled.append(address[0])
        if address[0] not in {PUBLIC, HOME}:
            raise ConnectionRefusedError
        super().connect((HOME, self._net.port) if address[0] == PUBLIC else address)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Return the public host's TLS context."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    return make_certificate(tmp_path_factory.mktemp("tls"), days=2)[0]


@pytest.fixture
async def inside() -> AsyncIterator[Host]:
    """Return a service on this machine that gives its secrets to anybody."""
    async with serve_host() as host:
        host.put("/latest", gives(MP3))
        yield host


@pytest.fixture
async def outside(tls: ssl.SSLContext) -> AsyncIterator[Host]:
    """Return a host on the internet."""
    async with serve_host(tls=tls) as host:
        host.put("/a.mp3", gives(MP3))
        yield host


@pytest.fixture
def net(outside: Host) -> Net:
    """Return the internet, in which `files.test` has a public address."""
    port = URL(outside.url).port
    assert port is not None
    return Net(port, {"files.test": [[PUBLIC]], "inside.test": [["10.0.0.7"]], "both.test": [[PUBLIC, HOME]]})


@pytest.fixture
def loop_time(monkeypatch: pytest.MonkeyPatch) -> LoopTime:
    """Return a function that moves the event loop's own time."""
    return LoopTime(monkeypatch)


def downloader(net: Net, *opened: str) -> Downloader:
    """Return a downloader in that internet."""
    rules = LinkRules(opened=frozenset(map(read_open_host, opened)), lookup=net.lookup)
    return Downloader(transport=Transport(connector=net.connector), rules=rules, patience=0.05)


async def read(link: str, net: Net, *opened: str) -> bytes:
    """Download a link."""
    return await downloader(net, *opened).read(ax.Track(title="Rain", audio_url=link))


# --- allowed targets -------------------------------------------------------------------------------------------------


async def test_a_public_host_is_fetched_from(net: Net) -> None:
    """A public host is fetched by https from the address that was looked up."""
    assert MP3 == await read("https://files.test/a.mp3", net)
    assert [PUBLIC] == net.dialled


@pytest.mark.parametrize("way", ["at once", "redirected"])
@pytest.mark.parametrize(
    "link",
    [
        *("https://127.0.0.1:{port}/latest", "https://127.0.0.1.:{port}/latest", "https://127.1:{port}/latest"),
        *("https://0x7f000001:{port}/latest", "https://2130706433:{port}/latest", "https://0177.0.0.1:{port}/latest"),
        *("https://0:{port}/latest", "https://0.0.0.0:{port}/latest", "https://99999999999:{port}/latest"),
        *("https://[::1]:{port}/latest", "https://[::ffff:127.0.0.1]:{port}/latest", "https://[::]:{port}/latest"),
        *("https://[::127.0.0.1]:{port}/latest", "https://[64:ff9b::7f00:1]:{port}/", "https://[2002:7f00:1::]/"),
        *("https://169.254.169.254/latest", "https://[fd00:ec2::254]/latest", "https://[fe80::1%25eth0]/latest"),
        *("https://168.63.129.16/", "https://192.0.0.192/", "https://100.100.100.200/", "https://10.0.0.7/"),
        *("https://224.0.0.1/", "https://255.255.255.255/", "https://240.0.0.1/", "https://[ff02::1]/"),
        *("https://localhost:{port}/latest", "https://LOCALHOST:{port}/latest", "https://inside.test:{port}/latest"),
        *("https://both.test:{port}/latest", "https://INSIDE.test./latest"),
    ],
)
async def test_an_address_that_is_not_public_is_not_dialled(
    link: str, way: str, net: Net, outside: Host, inside: Host
) -> None:
    """A non-public address is never dialled, however spelled, resolved or redirected to; the error tells a way out."""
    link = link.format(port=URL(inside.url).port)
    outside.put("/go", gives(b"", status=302, Location=link))
    first = link if way == "at once" else "https://files.test/go"

    with pytest.raises(ax.DownloadError, match=r"Rain: a link to .* is not followed: .* is yours, `allow_hosts="):
        await read(first, net)

    assert [] == inside.seen
    assert {PUBLIC} >= set(net.dialled)


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("http://files.test/a.mp3", 'it is plain http; if it is yours, `allow_hosts=\\["http://files.test"\\]`'),
        ("https://me:secret@files.test/a.mp3", "has a user name or a password"),
        ("https://me@files.test/a.mp3", "has a user name or a password"),
        ("https://:secret@files.test/a.mp3", "has a user name or a password"),
        ("ftp://files.test/a.mp3", "cannot be requested"),
        ("file:///etc/passwd", "cannot be requested"),
        (r"https://files.test\@127.0.0.1/", "cannot be requested"),
        ("https://files.test:99999/", "cannot be requested"),
    ],
)
@pytest.mark.parametrize("way", ["at once", "redirected"])
async def test_a_link_of_another_kind_is_not_followed(link: str, says: str, way: str, net: Net, outside: Host) -> None:
    """A plain http link, a redirect to one, a password and a file link are refused; the error hides the password."""
    outside.put("/go", gives(b"", status=302, Location=link))
    if way == "redirected":
        says = says.replace("cannot be requested", "cannot be requested|a link to .* is not followed|Rain: HTTP 404")

    with pytest.raises(ax.DownloadError, match=says) as caught:
        await read(link if way == "at once" else "https://files.test/go", net)

    assert "secret" not in str(caught.value)
    assert [PUBLIC] * (way == "redirected") == net.dialled[:1]
    assert "/a.mp3" not in outside.paths


async def test_a_connection_goes_to_the_address_that_was_checked(net: Net, inside: Host) -> None:
    """A connection goes to the checked address, and a later lookup of this machine is refused (DNS rebinding)."""
    port = URL(inside.url).port
    net.names["rebound.test"] = [[PUBLIC], [HOME]]

    assert MP3 == await read(f"https://rebound.test:{port}/a.mp3", net)
    assert (["rebound.test"], [PUBLIC]) == (net.lookups, net.dialled)
    with pytest.raises(ax.DownloadError, match=r"rebound\.test is not followed: it has an address that is not public"):
        await read(f"https://rebound.test:{port}/latest", net)

    assert ([], [PUBLIC]) == (inside.seen, net.dialled)


# --- allow_hosts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opened", "link", "is_followed"),
    [
        ("http://127.0.0.1:{port}", "http://127.0.0.1:{port}/latest", True),
        ("http://127.0.0.1", "http://127.0.0.1:{port}/latest", True),
        ("http://127.0.0.1/", "http://127.1:{port}/latest", False),  # no resolver is asked for this spelling
        ("http://localhost:{port}", "http://LocalHost:{port}/latest", True),
        ("http://127.0.0.1:1", "http://127.0.0.1:{port}/latest", False),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/latest", False),
        ("http://127.0.0.1:{port}", "http://localhost:{port}/latest", False),
        ("http://localhost", "http://127.0.0.1:{port}/latest", False),
    ],
)
@pytest.mark.parametrize("way", ["at once", "redirected"])
async def test_allow_hosts_opens_one_host_only(  # noqa: PLR0913 - a table's columns, and the hosts
    opened: str, link: str, is_followed: bool, way: str, net: Net, outside: Host, inside: Host
) -> None:
    """`allow_hosts` opens a host by name, on its port if it has one, and for plain http only if it says so."""
    port = URL(inside.url).port
    link = link.format(port=port)
    outside.put("/go", gives(b"", status=302, Location=link))
    fetched = read(link if way == "at once" else "https://files.test/go", net, opened.format(port=port))

    if is_followed:
        assert MP3 == await fetched
    else:
        with pytest.raises(ax.DownloadError, match=r"is not followed|cannot be requested|Error at"):
            await fetched
    assert ["/latest"] * is_followed == inside.paths


@pytest.mark.parametrize("opened", ["inside.test", "inside.test:443", "https://INSIDE.test", "Inside.Test."])
async def test_a_name_that_is_opened_may_have_any_address(opened: str, net: Net) -> None:
    """An allowed name is dialled by https whatever its address is."""
    net.names["inside.test"] = [[HOME]]

    with pytest.raises(ax.DownloadError, match=r"Error at inside\.test"):  # nobody listens there
        await read("https://inside.test/a.mp3", net, opened)

    assert {HOME} == set(net.dialled)


@each_row(
    "text", ["", "a b", "http://", "ftp://a.test", "https://a.test/b", "a.test/b", "me@a.test", "*.a.test", "a.test:x"]
)
def test_a_wrong_host_in_allow_hosts_is_refused(text: str) -> None:
    """A wrong host in `allow_hosts` is refused when the client is made, with an example."""
    with pytest.raises(ax.ConfigError, match=r"is not a host: give names, like files"):
        ax.Client(allow_hosts=[text])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "[::1]"])
async def test_an_api_on_this_machine_opens_its_own_port(host: str, inside: Host) -> None:
    """A sandbox's links may lead to its own port, under any name of this machine, and to no other port."""
    port = URL(inside.url).port
    strict = Downloader(transport=Transport(), patience=0.05).of_api(f"http://{host}:{port}/kie")

    for name in ("127.0.0.1", "localhost"):
        stream = strict.stream(ax.Track(audio_url=f"http://{name}:{port}/latest"))
        assert MP3 == b"".join([chunk async for chunk in stream])
    for link in ("http://127.0.0.1:1/latest", f"http://127.0.0.3:{port}/latest"):
        with pytest.raises(ax.DownloadError, match="is not followed"):
            await strict.read(ax.Track(audio_url=link))


@pytest.mark.parametrize("api", ["https://api.kie.ai", "http://10.0.0.7:8000", "http://sandbox.lan:8000", None])
async def test_an_api_elsewhere_opens_nothing(api: str | None) -> None:
    """An API on another machine opens no host by itself."""
    link = f"{api or 'http://127.0.0.1'}/a.mp3".replace("https", "http")

    with pytest.raises(ax.DownloadError, match="is not followed"):
        await Downloader(transport=Transport()).of_api(api).read(ax.Track(audio_url=link))


# --- a user's session, and proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        *("https://127.0.0.1/", "https://0x7f.1/", "https://[::1]/", "http://files.test/", "https://me:x@files.test/"),
        *("https://localhost/latest", "https://inside.test/latest", "https://both.test/latest"),
    ],
)
async def test_a_users_session_is_kept_from_what_can_be_seen_beforehand(link: str, net: Net) -> None:
    """With a user's session, links are checked by their text and by the addresses found here."""
    async with aiohttp.ClientSession(connector=net.connector(None)) as session:
        careful = Downloader(transport=Transport(given=session), rules=LinkRules(lookup=net.lookup), patience=0.05)
        with pytest.raises(ax.DownloadError, match="is not followed"):
            await careful.read(ax.Track(audio_url=link))

    assert [] == net.dialled


async def test_a_users_session_may_know_hosts_that_are_not_known_here(net: Net) -> None:
    """With a user's session a host may be unknown here, as the session may resolve it in its own way."""
    async with aiohttp.ClientSession(connector=net.connector(Only(net))) as session:
        careful = Downloader(transport=Transport(given=session), rules=LinkRules(lookup=net.lookup), patience=0.05)

        assert MP3 == await careful.read(ax.Track(audio_url="https://elsewhere.invalid/a.mp3"))


class Only(AbstractResolver):
    """A resolver that maps any name to the public host."""

    def __init__(self, net: Net) -> None:
        """Map names to *net*'s host."""
        self._net = net

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the host's address."""
        del host
        return await self._net.lookup("files.test", port, family)

    async def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("is_given", [False, True])
async def test_a_proxy_of_the_environment_finds_hosts_itself(
    is_given: bool, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may be private and resolves names itself, and links to addresses that are not public are refused."""
    async with Tunnel() as tunnel:
        net.names |= {"proxy.test": [[HOME]], "files.test": [["10.0.0.7"]]}
        monkeypatch.setenv("HTTPS_PROXY", f"http://proxy.test:{tunnel.port}")
        monkeypatch.setenv("NO_PROXY", "direct.test")
        net.names["direct.test"] = [["10.0.0.8"]]
        async with aiohttp.ClientSession(connector=net.connector(Known(net)), trust_env=True) as session:
            transport = Transport(given=session) if is_given else Transport(connector=net.connector, trust_env=True)
            careful = Downloader(transport=transport, rules=LinkRules(lookup=net.lookup), patience=0.05)
            with pytest.raises(ax.DownloadError, match="ClientHttpProxyError"):
                await careful.read(ax.Track(audio_url="https://files.test/a.mp3"))
            for link in ("https://10.0.0.7/", "https://direct.test/", "http://files.test/"):
                with pytest.raises(ax.DownloadError, match="is not followed"):
                    await careful.read(ax.Track(audio_url=link))

    assert {"CONNECT files.test:443 HTTP/1.1"} == set(tunnel.asked)


class Known(Only):
    """A resolver of a test's internet."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name."""
        return await self._net.lookup(host, port, family)


class Tunnel:
    """A proxy that records the targets of CONNECT requests and refuses them."""

    def __init__(self) -> None:
        """Start without targets."""
        self.asked: list[str] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        """Start listening."""
        self._server = await asyncio.start_server(self._refuse, HOME, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.close()
        await self._server.wait_closed()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


# --- size and time limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["announced", "endless", "unpacked"])
async def test_a_body_that_is_too_large_is_not_read_to_its_end(way: str, net: Net, outside: Host) -> None:
    """A body that is too large is not read to its end, whether it announces its length, does not, or is compressed."""
    sent = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"} if way == "unpacked" else {})
        if way == "announced":
            response.content_length = 10**12
        await response.prepare(request)
        body = gzip.compress(MP3 + bytes(10_000_000)) if way == "unpacked" else MP3 + bytes(10_000_000)
        with suppress(ConnectionError):
            for start in range(0, len(body), 65_536):
                await response.write(body[start : start + 65_536])
                sent += 65_536
        return response

    outside.put("/huge", answer)
    small = evolve(downloader(net), max_bytes=100_000)
    with pytest.raises(ax.DownloadError, match="longer than 100000 bytes"):
        await small.read(ax.Track(audio_url="https://files.test/huge"))

    assert sent < 10_000_000


@pytest.mark.parametrize("what", ["head", "body", "handshake", "redirects"])
async def test_slow_and_endless_downloads_end_in_time(what: str, net: Net, outside: Host, loop_time: LoopTime) -> None:
    """Trickled bytes, an endless handshake and endless redirects all end in time."""
    over = asyncio.Event()

    async def dawdle(request: web.BaseRequest) -> web.StreamResponse:
        if what == "redirects":
            return web.Response(status=302, headers={"Location": f"/slow?{len(outside.seen)}"})
        response = web.StreamResponse()
        if what == "body":
            await response.prepare(request)
        while not over.is_set():
            if what == "body":
                await response.write(b"\xff")
            with suppress(TimeoutError):
                async with asyncio.timeout(50):
                    await over.wait()
        return response

    async def refused() -> None:
        with pytest.raises(ax.DownloadError, match=r"in time|more than 10 times|for \d+ s"):
            await evolve(downloader(net), patience=30.0).read(ax.Track(audio_url="https://files.test/slow"))

    for number in range(20):
        outside.put("/slow" if not number else f"/slow?{number}", dawdle)

    async def stay(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(stay, HOME, 0) as silent:
        if what == "handshake":
            net.port = silent.sockets[0].getsockname()[1]
        _, seconds = await loop_time.run(refused(), step=10.0)
        over.set()

    assert seconds < 1_100


# --- the rules -------------------------------------------------------------------------------------------------------


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_is_as_public_as_the_ipv4_within_it(address: ipaddress.IPv4Address) -> None:
    """An IPv6 address is as public as the IPv4 address that it contains."""
    number = int(address)
    spelled = [f"::ffff:{address}", f"64:ff9b::{address}", str(ipaddress.IPv6Address((0x2002 << 112) + (number << 80)))]

    assert [is_public(str(address))] * 3 == [is_public(each) for each in spelled]
    assert not is_public(f"::{address}")
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert not is_public(str(address))


@given(st.text() | st.from_regex(r"https?://[^/]{1,30}/.{0,20}", fullmatch=True))
def test_any_link_is_judged(link: str) -> None:
    """Any link is either allowed, by https and without a password, or refused."""
    try:
        url = wire_url(link)
    except ValueError:
        return
    said = ""
    try:
        LinkRules().check(url)
    except BadFileError as error:
        said = str(error)

    assert said.isprintable()
    assert said or ("https", None, None) == (url.scheme, url.user, url.password)
