"""A file host whose answers a test controls."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from attrs import define, field

from audioext.files.hosts import LinkRules, read_open_host
from tests.support.sounds import MP3

LOOPBACK = LinkRules(opened=frozenset({read_open_host("http://127.0.0.1")}))
"""Rules that allow links to this machine."""

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _spelt(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def gives(body: bytes = MP3, *, status: int = 200, kind: str = "audio/mpeg", **headers: str) -> Answer:
    """Return an answer that is always the same."""
    named = {"Content-Type": kind, **_spelt(headers)}

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=named)

    return answer


def breaks(body: bytes = MP3, *, after: int, is_chunked: bool = False, **headers: str) -> Answer:
    """Return an answer that disconnects *after* so many bytes of the file, counted from the requested start."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        response = web.StreamResponse(status=206 if start else 200, headers=_spelt(headers))
        if is_chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(body) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        await response.prepare(request)
        await response.write(body[start : start + after])
        if start + after < len(body) or is_chunked:
            assert request.transport is not None
            request.transport.close()  # written bytes still arrive
        return response

    return answer


@define(eq=False)
class Host:
    """Gives the answers of each path in order, then repeats the last one."""

    url: str = ""
    seen: list[web.BaseRequest] = field(factory=list)
    _answers: dict[str, list[Answer]] = field(factory=dict)

    def put(self, path: str, *answers: Answer) -> str:
        """Set the answers for *path*, which is compared byte for byte, and return its link."""
        self._answers[path] = list(answers)
        return self.url + path

    @property
    def paths(self) -> list[str]:
        """The raw paths of all requests."""
        return [request.raw_path for request in self.seen]

    def header(self, name: str) -> list[str | None]:
        """Return a header of all requests."""
        return [request.headers.get(name) for request in self.seen]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.seen.append(request)
        answers = self._answers.get(request.raw_path, [gives(b"", status=404)])
        return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)


@asynccontextmanager
async def serve_host(
    answers: Mapping[str, Answer] | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Host]:
    """Serve a host on a free port, by https if *tls* is given."""
    host = Host()
    for path, answer in (answers or {}).items():
        host.put(path, answer)
    runner = web.ServerRunner(web.Server(host.answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
        yield host
    finally:
        await runner.cleanup()
