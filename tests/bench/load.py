"""Send prepared requests as fast as they are answered, from a separate process with only the standard library.

    python load.py PORT CONNECTIONS FILE

FILE has raw HTTP/1.1 requests, each after its length in 4 bytes; every answer must be a 200. It prints the seconds
that all took. An aiohttp client would be slower than the server under test.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 "


def read_requests(data: bytes) -> Iterator[bytes]:
    """Yield the requests in *data*."""
    start = 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        yield data[start + 4 : end]
        start = end


class Connection(asyncio.Protocol):
    """A keep-alive connection, which sends the next request after each complete answer."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        """Take requests from *requests*, which all connections share."""
        self.done = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Collect one answer, then send the next request."""
        self._answer += data
        head = self._answer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._answer, 0, head) if head >= 0 else None
        if length is None or len(self._answer) < head + 4 + int(length[1]):
            return
        if not self._answer.startswith(_OK):
            self.done.set_exception(AssertionError(self._answer))
            return
        self._answer = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Report an early end."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server hung up"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()


def stay_awake(loop: asyncio.AbstractEventLoop) -> None:
    """Spin instead of sleeping: waking this process costs the server CPU time, and only a slow server would have to."""
    loop.call_soon(stay_awake, loop)


async def main(port: int, connections: int, path: str) -> None:
    """Send all requests in the file at *path* and print the seconds."""
    requests = read_requests(Path(path).read_bytes())
    loop = asyncio.get_running_loop()
    stay_awake(loop)
    began = time.perf_counter()
    opened = [await loop.create_connection(lambda: Connection(requests), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*(connection.done for _, connection in opened))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
