"""Send raw, almost valid HTTP to the receiver's port, on several connections, with valid and invalid tags."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from audioext.providers import NAMES
from tests.security.fuzz.mutations import broken, mutated
from tests.security.fuzz.parsers import Tally, samples

SECRET = b"0123456789abcdef-secret"
REFS = tuple(letter * 24 for letter in "abcd")
CONNECTIONS = 24
ANSWER_SECONDS = 0.05
"""How long to wait for an answer before the sender closes its side."""
HANG_SECONDS = 20.0
"""How long a finished connection may stay open on a busy machine."""
GOOD_EVERY = 500
FIRST_FAULT = 500

METHODS = ("GET", "GET", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT", "TRACE", "post", "P\x00ST", "", "PRI")
VERSIONS = ("HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/9.9", "http/1.1", "")
ENCODINGS = ("gzip", "deflate", "br", "GZIP", "x-gzip", "identity", "gzip, gzip", "", "\xff", "zstd")
LENGTHS = (0, 1, 2_000_000, -1, "0x5", "1_0", 10**20, "+3", "")
CODINGS = ("gzip, chunked", "Chunked", "x", "identity", "chunked, chunked", "")
FAIR_HEADERS = (
    *("Content-Type: application/json", "Content-Type: \xff", "Content-Type: multipart/form-data; boundary=x"),
    *("Content-Type: text/plain; charset=utf-7", "Expect: 100-continue", "Expect: \xf4", "Expect: tea", "TE: trailers"),
    *(
        "Connection: close",
        "Connection: keep-alive",
        "Upgrade: h2c",
        "Range: bytes=0-",
        "Range: bytes=9-1",
        "Range: \xb2",
    ),
    *("Range: bytes=-99999999999999999999", "If-Range: x", "Accept-Encoding: gzip, br", "If-None-Match: *"),
    *("If-Modified-Since: Thu, 99 Jan 1970", "X-Webhook-Timestamp: 1", "X-Webhook-Signature: \xf0", "User-Agent: \xff"),
    *("X-Webhook-Timestamp: " + "9" * 400, "Forwarded: for=x", "X-Forwarded-Proto: file", "Cookie: a=\xe9; b"),
)
FOUL_HEADERS = (
    *("Host:", "Host: a\r\nHost: b", "Host: \x00", "Connection: upgrade", " folded: x", "no colon", "Bad\x00Name: x"),
    *(": x", "X: " + "y" * 9_000, "Content-Length : 1", "Cookie: \x01"),
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
)
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


@define(eq=False)
class Log(logging.Handler):
    """Collects log records that are errors or have a traceback."""

    faults: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Initialise the handler."""
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        if record.exc_info or record.levelno >= logging.ERROR:
            self.faults.append(f"{record.name}: {record.getMessage()} {record.exc_info}")


def path_of(dice: random.Random, name: str, token: str) -> str:
    """Return a request's path: mostly a job's callback path, with a valid or almost valid tag."""
    right = callback_url(ax_url(), SECRET, name, dice.choice(REFS)).raw_path
    kind = dice.randrange(12)
    if kind < 6:
        return right
    if kind == 6:
        place = dice.randrange(len(right))
        return (
            right[:place]
            + dice.choice(("", "%", "%00", "%2f", "/", "//", "..", "\x7f", "\xe9", "?", "#", "A"))
            + right[place:]
        )
    others: tuple[str, ...] = (
        "/healthz",
        "/readyz",
        "/audio/readyz",
        "/",
        "*",
        "//",
        f"/files/{token}",
        "/files/x/y",
        "/\x01",
    )
    others += (
        f"http://evil.test{right}",
        right.upper(),
        f"{right}/",
        f"{right}?a=%ff&b",
        right[:-1],
        "/" + "a" * 9_000,
    )
    return dice.choice(others)


def ax_url() -> URL:
    """Return the base URL of all callback paths."""
    return URL("http://127.0.0.1/audio")


def body_of(dice: random.Random, name: str) -> bytes:
    """Return a body: a provider's sample, perhaps mutated."""
    deliveries = [sample for sample in samples(name) if sample.parse == "webhook"]
    sample = dice.choice(deliveries)
    return sample.data if dice.randrange(3) else mutated(dice, sample.data, sample.value)


def packed(dice: random.Random, body: bytes) -> tuple[list[str], bytes]:
    """Return a body as sent, compressed or not, with headers that declare it correctly or not."""
    headers: list[str] = []
    if not dice.randrange(5):
        headers.append(f"Content-Encoding: {dice.choice(ENCODINGS)}")
        if dice.randrange(3):
            data = body if dice.randrange(20) else b" " * 3_000_000
            body = dice.choice((gzip.compress, zlib.compress))(data)
            body = broken(dice, body) if not dice.randrange(3) else body
    if dice.randrange(3):
        length = dice.choice((len(body) + 1, *LENGTHS)) if not dice.randrange(12) else len(body)
        headers.append(f"Content-Length: {length}")
    if not dice.randrange(30):
        headers.append("Content-Length: 7")
    elif not any(header.startswith("Content-Length") for header in headers):
        headers.append(f"Transfer-Encoding: {'chunked' if dice.randrange(10) else dice.choice(CODINGS)}")
        body = chunked(dice, body)
    return headers, body


def chunked(dice: random.Random, body: bytes) -> bytes:
    """Return a body in chunks, one of which may be malformed."""
    size = max(1, len(body) // dice.choice((1, 2, 5)))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    sizes = [f"{len(chunk):x}" for chunk in chunks]
    if chunks and not dice.randrange(8):
        sizes[dice.randrange(len(sizes))] = dice.choice(
            ("-1", "", "g", "fffffffffffffffffff", "1;ext=" + "x" * 5_000, " 2")
        )
    lines = b"".join(f"{size}\r\n".encode() + chunk + b"\r\n" for size, chunk in zip(sizes, chunks, strict=True))
    return lines + dice.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"0\n\n"))


def request_of(dice: random.Random, token: str) -> bytes:
    """Return the bytes of one request."""
    name = dice.choice(NAMES)
    headers, body = packed(dice, body_of(dice, name))
    headers += dice.choices(FAIR_HEADERS, k=dice.choice((0, 1, 1, 2, 4)))
    if not dice.randrange(12):
        headers.append(dice.choice(FOUL_HEADERS))
    if dice.randrange(20):
        headers.append("Host: x")
    dice.shuffle(headers)
    method = "POST" if dice.randrange(5) else dice.choice(METHODS)
    version = "HTTP/1.1" if dice.randrange(20) else dice.choice(VERSIONS)
    line = f"{method} {path_of(dice, name, token)} {version}"
    end = "\r\n" if dice.randrange(20) else dice.choice(("\n", "\r", "\r\r\n"))
    data = end.join([line, *headers, "", ""]).encode("latin-1") + body
    return broken(dice, data) if not dice.randrange(12) else data


def case_of(seed: int, token: str) -> list[bytes]:
    """Return the pieces that one connection sends."""
    dice = random.Random(seed)  # noqa: S311 - it has to come again
    if not dice.randrange(40):
        return [dice.randbytes(dice.choice((1, 50, 5_000)))]
    data = b"".join(request_of(dice, token) for _ in range(dice.choice((1, 1, 1, 2, 3))))
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 3))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def send_case(port: int, pieces: list[bytes]) -> bytes:
    """Send *pieces* on a new connection, and return all bytes received until the receiver closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        answer = b""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while chunk := await reader.read(65_536):
                    answer += chunk
                return answer
        except TimeoutError:
            writer.write_eof()
        async with asyncio.timeout(HANG_SECONDS):
            return answer + await reader.read()
    except OSError:  # the receiver cut the connection
        return b""
    finally:
        writer.transport.abort()


def opened() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def check_good(client: ax.Client, number: int) -> None:
    """Send a valid webhook, which must be accepted whatever came before it."""
    data = {"callbackType": "complete", "task_id": f"task-{number}", "data": []}
    body = json.dumps({"code": 200, "msg": "", "data": data}).encode()
    assert client.public_url is not None
    path = callback_url(client.public_url, SECRET, "kie", f"{number:024}").raw_path
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    assert client.public_url.port is not None
    answer = await send_case(client.public_url.port, [head.encode() + body])
    assert answer.startswith(b"HTTP/1.1 200"), f"a good webhook was answered {answer[:200]!r}"


async def run(*, cases: int, seed: int, tally: Tally, file: Path = Path(__file__)) -> None:
    """Run *cases*, seeded one by one from *seed* on; the error of a failed case names its seed."""
    log = Log()
    kie = ax.Kie("0123456789abcdef0123", base_url="http://127.0.0.1:9")
    client = ax.Client(kie, public_url="http://127.0.0.1:{port}/audio", listen="127.0.0.1:0", secrets=[SECRET])
    loggers = [logging.getLogger(name) for name in ("audioext", "aiohttp", "asyncio")]
    for logger in loggers:
        logger.addHandler(log)
        logger.propagate = False
    try:
        tasks = asyncio.all_tasks()
        async with client:
            await check_good(client, 0)
            before = opened()
            token = client.receiver.endpoint.offers.offer(file)
            numbers = iter(range(seed, seed + cases))
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(_work(client, numbers, token, tally, log))
            await check_good(client, cases + 1)
            async with asyncio.timeout(HANG_SECONDS):
                while opened() > before:  # noqa: ASYNC110 - the server closes the last ones in turns of its own
                    await asyncio.sleep(0.01)
        left = asyncio.all_tasks() - tasks
        if left:
            _, left = await asyncio.wait(left, timeout=HANG_SECONDS)
        assert not left, left
    finally:
        for logger in loggers:
            logger.removeHandler(log)
            logger.propagate = True


async def _work(client: ax.Client, numbers: Iterator[int], token: str, tally: Tally, log: Log) -> None:
    assert client.public_url is not None
    assert client.public_url.port is not None
    for number in numbers:
        began_at = time.monotonic()
        try:
            answer = await send_case(client.public_url.port, case_of(number, token))
            statuses = [int(status) for status in STATUS_LINE.findall(answer)] or [0]
            assert max(statuses) < FIRST_FAULT, f"answered {statuses}"
            assert [] == log.faults, log.faults
            if number % GOOD_EVERY == 0:
                await check_good(client, number + 1)
        except Exception as error:
            error.add_note(f"run it again: python -m tests.security.fuzz port --cases 1 --seed {number}")
            raise
        tally.outcomes.update(f"answered {status or 'nothing'}" for status in statuses)
        tally.slowest = max(tally.slowest, (time.monotonic() - began_at, number))
