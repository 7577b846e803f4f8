"""Reply latency of webhooks that are sent at a fixed rate, whether or not earlier ones were answered."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import deque

from tests.bench.rig import LOAD_CORE, Peer, peer, pin, table
from tests.bench.webhooks import callback

PER_SECOND = 1_000
SECONDS = 4
TURNS = 3


class Line(asyncio.Protocol):
    """A keep-alive connection; `answered` is called with each complete answer."""

    def __init__(self, idle: deque[Line]) -> None:
        """Return to the *idle* connections after each answer."""
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self.latencies: list[float] = []
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, due_at: float) -> None:
        """Send one request, which was *due_at* that time of the loop."""
        assert self._transport is not None
        self._sent_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Record the latency of a complete answer."""
        assert data.startswith(b"HTTP/1.1 200"), data
        self.latencies.append(1_000 * (asyncio.get_running_loop().time() - self._sent_at))
        self._idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        """Record that no answer will come."""
        self.is_lost = True


async def latencies(port: int, paths: list[str], ids: list[str]) -> list[float]:
    """Send a callback to each path at the fixed rate, and return the milliseconds until each reply."""
    loop = asyncio.get_running_loop()
    idle: deque[Line] = deque()
    lines: list[Line] = []
    begin = loop.time() + 0.1
    for number, (path, task_id) in enumerate(zip(paths, ids, strict=True)):
        due_at = begin + number / PER_SECOND
        while loop.time() < due_at:  # noqa: ASYNC110 - the rate is kept to a fraction of a millisecond
            await asyncio.sleep(0)
        if not idle:
            _, line = await loop.create_connection(lambda: Line(idle), "127.0.0.1", port)
            lines.append(line)
            idle.append(line)
        body = callback(task_id)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        idle.popleft().send(head.encode() + body, due_at)
    while sum(len(line.latencies) for line in lines) < len(paths):
        if any(line.is_lost for line in lines):  # a receiver accepts 512 connections
            raise ConnectionError(f"hung up: this machine is too busy for {PER_SECOND:,} webhooks a second")
        await asyncio.sleep(0.001)
    return [one for line in lines for one in line.latencies]


def run(turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure and print."""
    pin(LOAD_CORE)
    rows: dict[str, list[float]] = {}
    count = PER_SECOND * SECONDS
    with tempfile.TemporaryDirectory() as folder, peer("bare") as bare:
        servers: dict[str, Peer] = {}
        try:
            servers = {
                "floor, sqlite": Peer("webhooks", f"{folder}/floor.db", module="floors"),
                "memory": Peer("webhooks", "-"),
                "sqlite": Peer("webhooks", f"sqlite:///{folder}/jobs.db"),
            }
            for _ in range(turns):
                found = {
                    "bare handler": asyncio.run(
                        latencies(bare.ready["port"], bare.ready["paths"][:count], ["x" * 24] * count)
                    )
                }
                for name, server in servers.items():
                    jobs = server.ask(f"jobs {count}")
                    found[name] = asyncio.run(latencies(server.ready["port"], jobs["paths"], jobs["ids"]))
                    server.ask("waits")
                cuts = {name: statistics.quantiles(values, n=100) for name, values in found.items()}
                for name, cut in cuts.items():
                    for percent in (50, 99):
                        rows.setdefault(f"{name}: p{percent}, ms", []).append(cut[percent - 1])
                        if name != "bare handler":
                            base = cuts["bare handler"][percent - 1]
                            rows.setdefault(f"{name}: p{percent}, times bare", []).append(cut[percent - 1] / base)
        except ConnectionError as error:
            print(f"What follows is not the whole run. {error}")
        finally:
            for server in servers.values():
                server.close()
    return table(f"Latency of the reply at {PER_SECOND:,} webhooks a second, open loop", rows)


if __name__ == "__main__":
    run()
