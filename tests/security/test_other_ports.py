"""Attacks on the metrics and page ports, which are reachable from this machine, or from others if opened."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest
from attrs import frozen

import audioext as ax
from audioext.ui.jobs import jobs_page
from tests.support.bombs import bomb
from tests.support.clock import SOON_SECONDS

BOMB = bomb(100)


@pytest.fixture
async def ports(unused_tcp_port: int) -> AsyncIterator[dict[str, int]]:
    """Serve the metrics and the live page of a client; return their URLs."""
    async with ax.Client(ax.Kie("0123456789abcdef0123"), metrics=unused_tcp_port) as client:
        page = jobs_page(client)
        page.token = "t" * 43
        async with page.served("127.0.0.1", 0) as link:
            assert link.port is not None
            yield {"metrics": unused_tcp_port, "page": link.port}


async def answer(port: int, data: bytes) -> int:
    """Send *data* on a new connection, and return the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(SOON_SECONDS):
            writer.write(data)
            status = int((await reader.readline()).split()[1])
            await reader.read()
            return status
    finally:
        writer.transport.abort()


@frozen
class Attack:
    """A request, and the statuses of the metrics and of the page."""

    name: str
    metrics: int
    page: int
    line: bytes = b"GET /metrics HTTP/1.1"
    headers: tuple[bytes, ...] = (b"Host: localhost",)
    body: bytes = b""


ATTACKS = (
    Attack("an invalid Host", 200, 403, headers=(b"Host: [",)),
    Attack("a Host with an invalid port", 200, 403, headers=(b"Host: localhost:999999999",)),
    Attack("a Host that is not text", 200, 403, headers=(b"Host: \xff",)),
    Attack("a name of this machine that is somebody's", 200, 403, headers=(b"Host: evil.test",)),
    Attack("an Expect that is not text", 200, 417, headers=(b"Host: localhost", b"Expect: \xf4")),
    Attack(
        "an invalid version",
        *(200, 401),
        headers=(b"Host: localhost", b"Accept: application/openmetrics-text;version=zzz"),
    ),
    Attack("a version of the future", 400, 400, line=b"GET /?token=" + b"t" * 43 + b" HTTP/9.9"),
    Attack("a token that is not text", 404, 401, line=b"GET /?token=%ff HTTP/1.1"),
    Attack(
        "a bomb",
        *(405, 401),
        line=b"POST /metrics HTTP/1.1",
        headers=(b"Host: localhost", b"Content-Encoding: gzip", b"Content-Length: %d" % len(BOMB)),
        body=BOMB,
    ),
    Attack("a line too many", 400, 400, headers=(b"Host: localhost", *(b"X-%d: y" % number for number in range(64)))),
    Attack("a line too long", 400, 400, headers=(b"Host: localhost", b"X: " + b"y" * 9_000)),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_and_costs_nothing(
    ports: dict[str, int], attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    """An attack logs neither a traceback nor the token, and no compressed body is unpacked."""
    caplog.set_level(logging.DEBUG)
    lines = (attack.line, *attack.headers, b"Connection: close", b"", b"")
    began = time.process_time()
    statuses = [await answer(port, b"\r\n".join(lines) + attack.body) for port in ports.values()]

    assert [attack.metrics, attack.page] == statuses
    assert time.process_time() - began < 1.0  # takes a hundredth on an idle machine
    said = [record for record in caplog.records if record.name != "asyncio"]  # asyncio logs how long steps take
    assert [] == [record for record in said if record.exc_info or record.levelno > logging.INFO]
    assert "t" * 43 not in caplog.text
