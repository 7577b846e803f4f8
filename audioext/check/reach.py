"""Check that webhooks reach us: post a nonce to the public URL, as a provider would, and expect it back.

The POST looks like a callback: the same shape of path, a tag made with our secret, the same limits. Any process with
the secret answers it, such as another worker or `audioext listen`. A second POST with a body that was changed on
purpose must be refused, which proves that the receiver is one of ours. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from functools import partial
from typing import Literal

import aiohttp
from attrs import field, frozen
from yarl import URL

from audioext.clock import Clock, mint_id
from audioext.errors import printable
from audioext.files.hosts import is_public
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.urls import CHECK_SEGMENT, callback_url, mask, without_password
from audioext.version import __version__
from audioext.webhooks.endpoint import answer_body
from audioext.webhooks.probe import probe_body

LOOK_SECONDS = 10.0
SMALL_BYTES = 2_048
"""The size of a typical webhook body."""
READ_BYTES = 4_096
MAX_URL_LETTERS = 2_048  # docs.vidgo.ai/api-manual/task-management/webhooks, read 2026-11-21
SLOW_SHARE = 0.3
"""The share of the provider's limit above which a reply counts as slow: little is left for a busy day."""
SOON_SECONDS = 14 * 86_400.0
_CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

_AS_IT_IS = "let the proxy pass bodies on unchanged, byte for byte"
_REFUSED = {
    401: ("asks for a password", "let POSTs through without one: the tag in the path authenticates providers"),
    403: ("forbids it", "let POSTs to this path through in the proxy, its firewall or bot protection"),
    404: ("has no receiver under this path", "mount it there, or let the proxy pass the path on unchanged"),
    405: ("accepts no POST there", "let the proxy pass the method on, and route the path to the receiver"),
    413: ("takes no body of 2 kB", "raise the proxy's limit, such as nginx's client_max_body_size, to 1m"),
    429: ("limits the rate of requests", "exempt this path from its rate limit: providers repeat a webhook 3 times"),
}
_OF_OURS = {
    400: ("receives a body that was changed on its way", _AS_IT_IS),
    401: ("is a receiver with another secret", "give it this client's store or secrets=, and set both clocks right"),
    404: ("is a receiver too old for checks", "update audioext there"),
    405: ("is a receiver that gets no POST", "let the proxy pass the method on: it changed the POST into another"),
    408: ("does not receive the whole body in time", "let the proxy pass bodies on at once, or wait for all of them"),
    415: ("receives a body that was compressed on its way", _AS_IT_IS),
    503: ("is a receiver that is not open", "see its log: its client is closed, or its store is down"),
}
_PROXY = ("is a proxy that reaches no receiver", "start the receiver, and check where the proxy routes this path")


CheckState = Literal["ok", "warning", "failed"]


def _safe(text: str) -> str:
    """Return *text* on one line, without tags and passwords: proxies and vendors quote the requests that they get."""
    return without_password(mask(printable(text)))


@frozen
class CheckLine:
    """The result of one check: its `name` and `state`, what was `seen`, and `advice` if it is not ok."""

    name: str
    seen: str = field(converter=_safe)
    advice: str = field(default="", converter=_safe)
    state: CheckState = field(kw_only=True)

    def __str__(self) -> str:
        """Return one line, and a second one with the advice, if any."""
        advice = f"\n         {self.advice}" if self.advice else ""
        return f"{self.state:<7}  {self.name}: {self.seen}{advice}"


@frozen
class CheckReport:
    """The lines of a check; later ones depend on earlier ones."""

    lines: tuple[CheckLine, ...]

    @property
    def ok(self) -> bool:
        """Whether no line failed; there may be warnings."""
        return all(line.state != "failed" for line in self.lines)

    def __str__(self) -> str:
        """Return all lines with their advice."""
        return "\n".join(map(str, self.lines))


ok = partial(CheckLine, state="ok")
warning = partial(CheckLine, state="warning")
failed = partial(CheckLine, state="failed")


# --- the way of a webhook ---------------------------------------------------------------------------------------


@frozen
class _Answer:
    status: int
    is_ours: bool
    """Whether the body is that of an audioext receiver."""
    location: str
    seconds: float


@frozen(kw_only=True)
class Reach:
    """Checks *url*. `is_local`: the providers run on this machine; `limit`: seconds that they wait for a reply."""

    url: URL
    secret: bytes
    clock: Clock
    is_local: bool
    limit: float
    trust_env: bool = False

    async def look(self) -> list[CheckLine]:
        """Return a line for each step; steps that depend on a failed one are left out."""
        name, is_there = await self._name()
        safety = await self._safety() if is_there else []
        is_safe = is_there and not any(line.state == "failed" for line in safety)
        letters = len(str(callback_url(self.url, self.secret, "musicgpt", mint_id(0.0))))
        length = ok("length", f"a callback URL has up to {letters} letters")
        if letters > MAX_URL_LETTERS:
            seen = f"{length.seen}; vidgo takes {MAX_URL_LETTERS}"
            length = warning("length", seen, "make the path of public_url shorter")
        return [name, *safety, *(await self._webhooks() if is_safe else ()), length]

    async def _name(self) -> tuple[CheckLine, bool]:
        """Return the line of the host name, and whether it resolves to an address."""
        host, loop = self.url.host or "", asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await loop.getaddrinfo(host, self.url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            return failed("name", f"{host} cannot be resolved: {why}", "set its DNS record, or fix public_url"), False
        addresses = dict.fromkeys(str(each[4][0]) for each in found)
        private = [each for each in addresses if not is_public(each)]
        shown = ", ".join(addresses)
        if private and not self.is_local:
            named = host if host in private else f"{host}, which is {', '.join(private)} from here,"
            seen = f"{named} can be reached from this network alone"
            advice = "set public_url to an internet address, such as a tunnel's; with split DNS, check from outside"
            return failed("name", seen, advice), True
        return ok("name", shown if host in addresses else f"{host} is {shown}"), True

    async def _safety(self) -> list[CheckLine]:
        host, port = self.url.host or "", self.url.port
        if self.url.scheme != "https":
            seen = "http: anyone on the route can read the tag, which authenticates the provider"
            return [] if self.is_local else [warning("tls", seen, "use https, as kie.ai advises and vidgo demands")]
        context, writer = ssl.create_default_context(), None
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                _, writer = await asyncio.open_connection(host, port, ssl=context)
        except ssl.SSLCertVerificationError as error:
            seen = f"the certificate of {host} is refused: {error.verify_message}"
            return [failed("tls", seen, "install a valid one for this name, with its intermediate certificates")]
        except ssl.SSLError as error:
            seen = f"the TLS handshake with {host}:{port} failed: {error.reason}"
            return [failed("tls", seen, "let the proxy speak TLS 1.2 or 1.3 there, or fix the port in public_url")]
        except (OSError, TimeoutError):
            return []  # the POST reports it, or gets through by an outgoing proxy
        tls = writer.get_extra_info("ssl_object")
        version, ends = tls.version(), ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
        until = time.strftime("%Y-%m-%d", time.gmtime(ends))
        if ends - self.clock.now() < SOON_SECONDS:
            return [warning("tls", f"{version}; the certificate ends on {until}", "renew it before that")]
        return [ok("tls", f"{version}; the certificate is good until {until}")]

    async def _webhooks(self) -> list[CheckLine]:
        secured = ssl.create_default_context() if self.url.scheme == "https" else True
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=secured, force_close=True),
            trust_env=self.trust_env,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"audioext/{__version__} (check)"},
            timeout=aiohttp.ClientTimeout(total=self.limit),
        ) as session:
            try:
                answer = await self._post(session, SMALL_BYTES)
                if answer.status != 200:  # noqa: PLR2004 - HTTP's own number
                    return [self._refusal(answer)]
                changed = await self._post(session, SMALL_BYTES, is_changed=True)
            except TimeoutError:
                advice = "find out what is slow or hangs: the proxy, the tunnel, or the receiver"
                return [failed("webhook", f"no answer to a POST within {self.limit:g} s, the provider's limit", advice)]
            except (aiohttp.ClientError, OSError) as error:
                return [_broken(self.url, error)]
            if changed.status == 200:  # noqa: PLR2004 - as above
                seen = f"{self.url} answers 200 to any POST, and is not an audioext receiver"
                return [failed("webhook", seen, "route the path of public_url to the receiver")]
            came = ok("webhook", "a POST came through with its host, path, method and body unchanged")
            seconds = max(answer.seconds, changed.seconds)
            latency = ok("latency", f"answered within {seconds:.2f} s; the provider waits {self.limit:g} s")
            if seconds >= SLOW_SHARE * self.limit:
                advice = "find out what is slow: the network, the proxy, or the store's disk or server"
                latency = warning("latency", latency.seen, advice)
            return [came, latency, await self._body(session)]

    async def _post(self, session: aiohttp.ClientSession, size: int, *, is_changed: bool = False) -> _Answer:
        ref = mint_id(self.clock.now())
        body = probe_body(self.secret, ref, size)
        if is_changed:
            body = body[:-3] + (b'0"}' if body[-3:] != b'0"}' else b'1"}')
        began = time.monotonic()
        async with session.post(
            callback_url(self.url, self.secret, CHECK_SEGMENT, ref),
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            is_ours = await response.content.read(READ_BYTES) == answer_body(response.status)
            return _Answer(response.status, is_ours, response.headers.get("Location", ""), time.monotonic() - began)

    def _refusal(self, answer: _Answer) -> CheckLine:
        status = answer.status
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own numbers
            seen = f"{self.url} redirects to {answer.location or 'nowhere'} ({status}), which turns a POST into a GET"
            return failed("webhook", seen, "set public_url to the address that it redirects to, or remove the redirect")
        otherwise = _PROXY if status >= 500 else ("refuses it", "see that server's log")  # noqa: PLR2004 - as above
        what, advice = (_OF_OURS if answer.is_ours else _REFUSED).get(status, otherwise)
        return failed("webhook", f"the server at {self.url} {what} ({status})", advice)

    async def _body(self, session: aiohttp.ClientSession) -> CheckLine:
        try:
            answer = await self._post(session, MAX_BODY_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            seen = f"a body of 1 MiB does not come through: {type(error).__name__}"
            return warning("body", seen, "raise the proxy's limits of size and time: webhooks with lyrics are long")
        if answer.status == 200:  # noqa: PLR2004 - HTTP's own number
            return ok("body", "a body of 1 MiB, the receiver's limit, came through whole")
        if answer.is_ours and answer.status in {400, 408}:
            advice = "let the proxy pass bodies on byte for byte, or refuse them with 413"
            return failed("body", "a body of 1 MiB arrives cut off or changed", advice)
        advice = "raise the proxy's limit, such as nginx's client_max_body_size, to 1m"
        return warning("body", f"a body of 1 MiB is refused ({answer.status}); webhooks with lyrics are long", advice)


def _broken(url: URL, error: Exception) -> CheckLine:
    if isinstance(error, aiohttp.ClientSSLError):
        return failed("webhook", f"no TLS with {url.host}: {error}", "install a valid certificate for this name")
    if isinstance(error, _CONNECT_ERRORS):
        why = getattr(error, "strerror", None) or type(error).__name__
        advice = "start the receiver (`audioext listen`, or your application), and open the firewall and the tunnel"
        return failed("webhook", f"no server answers at {url.host}:{url.port}: {why}", advice)
    seen = f"{url} closed the connection without an answer: {type(error).__name__}"
    return failed("webhook", seen, "see the log of the proxy, the tunnel or the receiver")
