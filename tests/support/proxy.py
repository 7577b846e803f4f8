"""A proxy in front of a receiver, which passes requests on unchanged, or breaks them as a test wants."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from attrs import define, evolve, field, frozen

MAX_BYTES = 4_194_304


@frozen
class Passed:
    """The parts of a request that are passed on."""

    method: str
    path: str
    body: bytes


Breakage = Callable[[Passed], Passed | web.Response | Awaitable[Passed | web.Response]]


def whole(passed: Passed) -> Passed:
    """Pass everything on unchanged."""
    return passed


def strips_prefix(passed: Passed) -> Passed:
    """Pass the path on without its first segment."""
    return evolve(passed, path="/" + passed.path.lstrip("/").partition("/")[2])


def turns_into_get(passed: Passed) -> Passed:
    """Pass everything on as a GET."""
    return evolve(passed, method="GET", body=b"")


def redirects(passed: Passed) -> web.Response:
    """Answer with a redirect, as from http to https."""
    return web.Response(status=301, headers={"Location": f"https://other.example{passed.path}"})


def cuts(most: int) -> Breakage:
    """Return a breakage that passes on at most *most* bytes of a body."""
    return lambda passed: evolve(passed, body=passed.body[:most])


def rewrites(passed: Passed) -> Passed:
    """Pass JSON on reformatted."""
    return evolve(passed, body=passed.body.replace(b":", b": "))


def refuses_over(most: int) -> Breakage:
    """Return a breakage that answers 413 to a body of over *most* bytes."""
    return lambda passed: web.Response(status=413) if len(passed.body) > most else passed


def answers(status: int) -> Breakage:
    """Return a breakage that answers every request with *status*."""
    return lambda _: web.Response(status=status, text="<html>hello</html>")


def waits(seconds: float) -> Breakage:
    """Return a breakage that passes everything on after *seconds*."""

    async def wait(passed: Passed) -> Passed:
        await asyncio.sleep(seconds)
        return passed

    return wait


@define(eq=False)
class Proxy:
    """Applies the breakage to each request and passes the result on to `target`, an origin."""

    breakage: Breakage = whole
    target: str = ""
    url: str = ""
    seen: list[Passed] = field(factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass one request on."""
        passed = Passed(request.method, request.rel_url.raw_path, await request.content.read(MAX_BYTES))
        while not request.content.at_eof():
            passed = evolve(passed, body=passed.body + await request.content.read(MAX_BYTES))
        self.seen.append(passed)
        found = self.breakage(passed)
        left = found if isinstance(found, (Passed, web.Response)) else await found
        if isinstance(left, web.Response):
            return left
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                left.method, self.target + left.path, data=left.body, headers={"Content-Type": "application/json"}
            ) as response,
        ):
            return web.Response(status=response.status, body=await response.read())


def _is_no_distrust(record: logging.LogRecord) -> bool:
    """Filter out asyncio's log of a client that disconnects because it does not trust the certificate."""
    return not record.getMessage().startswith("Error on transport creation for incoming connection")


@asynccontextmanager
async def serve_proxy(breakage: Breakage = whole, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Serve a proxy on a free port; its `target` is set later."""
    proxy = Proxy(breakage)
    logger = logging.getLogger("asyncio")
    logger.addFilter(_is_no_distrust)
    runner = web.ServerRunner(
        web.Server(proxy.answer, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        proxy.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        yield proxy
    finally:
        await runner.cleanup()
        logger.removeFilter(_is_no_distrust)


def make_certificate(folder: Path, *, days: int, name: str = "IP:127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """Return a server's context with a self-signed certificate, and the certificate's file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=audioext"
        f" -days {days} -keyout {key} -out {certificate}"
    )
    # Python 3.13 requires the key usage of a signing certificate.
    extensions = ("-addext", f"subjectAltName={name}", "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    subprocess.run([*command.split(), *extensions], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
