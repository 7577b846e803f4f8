"""Time valid webhooks alone and during a flood of bad, slow and broken requests: `python -m tests.security.soak`.

The listener and the flood are separate processes. Each round sends valid webhooks at a steady rate, first without and
then with the flood; it prints both medians, their ratio, and the listener's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from tests.bench.rig import Peer
from tests.bench.webhooks import callback
from tests.support.bombs import bomb

GOOD_PER_SECOND = 50
BAD_PER_SECOND = 1_000
WORST_RATIO = 2.0
MOST_GROWTH = 1.25
"""The most that the listener's memory may grow from the first round to the last."""
FRESH_SHARE = 20
"""One in this many bad requests uses a new connection, and breaks or stalls it."""
STEADY_CONNECTIONS = 10
STALL_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
LOCAL = "127.0.0.1"


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


# --- the flood -----------------------------------------------------------------------------------------------------


def steady_requests(known: str, dice: random.Random) -> list[bytes]:
    """Return bad requests that are answered, so that their connection is reused; some go to a *known* path."""
    stranger = f"/kie/{'s' * 24}/{'x' * 43}"
    body = callback("task")
    bad = [
        post(stranger, body),
        post(stranger, body),
        post("/nowhere", b"{}"),
        post(known, b"{}"),
        post(known, b"<html>"),
    ]
    bad += [b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", b"DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n"]
    bad += [post(stranger, gzip.compress(b" " * 100_000), "Content-Encoding: gzip"), post(known, b"[" * 5_000)]
    dice.shuffle(bad)
    return bad


def fresh_requests() -> list[bytes]:
    """Return requests that break or stall their connection."""
    stranger, body = f"/kie/{'s' * 24}/{'x' * 43}", callback("task")
    packed = bomb(30)
    half = post(stranger, body)
    return [
        b"\x16\x03\x01\x02\x00",
        b"POST /half HTT",
        half[:-9],
        post(stranger, packed, "Content-Encoding: gzip"),
        b"GET / HTTP/9\r\n\r\n",
    ]


async def flood(port: int, known: str, rate: int) -> None:
    """Send that many bad requests a second until this process is killed, and print each second's count."""
    sent = [0]
    async with asyncio.TaskGroup() as group:
        share = rate * (FRESH_SHARE - 1) / FRESH_SHARE / STEADY_CONNECTIONS
        for number in range(STEADY_CONNECTIONS):
            group.create_task(_steady(port, share, steady_requests(known, random.Random(number)), sent))  # noqa: S311 - the same each time
        group.create_task(_fresh(port, rate / FRESH_SHARE, sent))
        while True:
            await asyncio.sleep(1.0)
            print(sent[0], flush=True)


async def _steady(port: int, rate: float, requests: list[bytes], sent: list[int]) -> None:
    due = time.monotonic()
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(LOCAL, port)
            while not writer.is_closing():
                due = max(due + 1 / rate, time.monotonic() - 1.0)
                await asyncio.sleep(due - time.monotonic())
                writer.write(requests[sent[0] % len(requests)])
                sent[0] += 1
                await read_answer(reader)


async def _fresh(port: int, rate: float, sent: list[int]) -> None:
    requests = fresh_requests()
    tasks: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(1 / rate)
        task = asyncio.create_task(_break(port, requests[sent[0] % len(requests)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        sent[0] += 1


async def _break(port: int, data: bytes) -> None:
    with suppress(OSError):
        _, writer = await asyncio.open_connection(LOCAL, port)
        writer.write(data)
        await asyncio.sleep(STALL_SECONDS)
        writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader) -> int:
    """Read an answer with its body, and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    return int(head.split(maxsplit=2)[1])


# --- valid webhooks ---------------------------------------------------------------------------------------------------


@define
class Soak:
    """The measurements: milliseconds of valid webhooks without and with the flood, and bytes of memory."""

    listener: Peer
    quiet: list[float] = field(factory=list)
    flooded: list[float] = field(factory=list)
    memory: list[int] = field(factory=list)
    bad: int = 0
    lost: int = 0

    async def send(self, seconds: float, took: list[float]) -> Sequence[str]:
        """Send valid webhooks at their rate, each on a new connection, time them, and return their paths."""
        count = int(seconds * GOOD_PER_SECOND)
        jobs = self.listener.ask(f"jobs {count}")
        tasks: list[asyncio.Task[None]] = []
        began_at = time.monotonic()
        for number, (path, task_id) in enumerate(zip(jobs["paths"], jobs["ids"], strict=True)):
            await asyncio.sleep(began_at + number / GOOD_PER_SECOND - time.monotonic())
            tasks.append(asyncio.create_task(self._send_one(path, task_id, took)))
        await asyncio.gather(*tasks)
        self.lost += count - self.listener.ask("waits")
        paths: Sequence[str] = jobs["paths"]
        return paths

    async def _send_one(self, path: str, task_id: str, took: list[float]) -> None:
        began_at = time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(LOCAL, self.listener.ready["port"])
            writer.write(post(path, callback(task_id)))
            status = await read_answer(reader)
        took.append((time.perf_counter() - began_at) * 1e3)
        writer.close()
        assert status == 200, f"a good webhook was answered {status}"

    def weigh(self) -> None:
        """Record the listener's memory."""
        pages = Path(f"/proc/{self.listener.pid}/statm").read_text(encoding="ascii").split()[1]
        self.memory.append(int(pages) * 4_096)

    def report(self) -> Sequence[str]:
        """Print the measurements, and return what is wrong with them."""
        quiet, flooded = statistics.median(self.quiet), statistics.median(self.flooded)
        growth = self.memory[-1] / self.memory[0]
        print(f"good webhooks: {len(self.quiet)} in quiet, median {quiet:.2f} ms")
        print(f"               {len(self.flooded)} under {self.bad} bad requests, median {flooded:.2f} ms")
        print(f"ratio {flooded / quiet:.2f} (at most {WORST_RATIO:g}); {self.lost} songs did not come to who waited")
        print("memory in MB after each round:", ", ".join(f"{size / 1e6:.1f}" for size in self.memory))
        wrong = [f"ratio {flooded / quiet:.2f}"] if flooded > WORST_RATIO * quiet else []
        wrong += [f"{self.lost} songs lost"] if self.lost else []
        return [*wrong, *([f"memory grew by {growth:.2f}"] if growth > MOST_GROWTH else [])]


async def soak(*, rounds: int, seconds: float, rate: int) -> Sequence[str]:
    """Run that many rounds, each *seconds* without and *seconds* with the flood; return what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        listener = Peer("webhooks", f"sqlite:///{folder}/jobs.db")
        found = Soak(listener)
        try:
            known = (await found.send(2.0, []))[0]  # warms up what loads at first use
            for _ in range(rounds):
                await found.send(seconds, found.quiet)
                command = [sys.executable, "-m", "tests.security.soak", "--flood", str(listener.ready["port"]), known]
                bad = subprocess.Popen([*command, "--rate", str(rate)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - it takes no time
                try:
                    await asyncio.sleep(1.0)
                    await found.send(seconds, found.flooded)
                finally:
                    bad.terminate()
                    said, _ = bad.communicate()
                found.bad += int(said.split()[-1])
                print(
                    f"{found.bad} bad requests so far, {int(said.split()[-1]) / len(said.split()):.0f} a second",
                    flush=True,
                )
                found.weigh()
            return found.report()
        finally:
            listener.close()


def main() -> int:
    """Run the soak, or its flood."""
    arguments = argparse.ArgumentParser(prog="python -m tests.security.soak", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=6)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of each half of a round")
    arguments.add_argument("--rate", type=int, default=BAD_PER_SECOND, help="bad requests a second")
    arguments.add_argument("--flood", nargs=2, metavar=("PORT", "PATH"), help="only send bad requests there")
    chosen = arguments.parse_args()
    if chosen.flood:
        asyncio.run(flood(int(chosen.flood[0]), chosen.flood[1], chosen.rate))
    wrong = asyncio.run(soak(rounds=chosen.rounds, seconds=chosen.seconds, rate=chosen.rate))
    print("; ".join(wrong) or "all is well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
