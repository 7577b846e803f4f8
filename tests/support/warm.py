"""Python programs in processes that have our packages loaded, as they are forked from one that has loaded them.

Loading takes most of a short program's processor time. All else that a process does and suffers is real.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import BinaryIO, TextIO

from attrs import define, field

LOADED = (
    *("audioext.cli.app", "audioext.cli.listening", "audioext.sandbox"),
    *("audioext.testing.clients", "audioext.stores.redis"),
)
"""What is loaded beforehand, with all that these import."""
LINE_BYTES = 2**24


class Warm:
    """What both kinds below have in common."""

    _process: BaseProcess

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it, or `None` while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


@define(eq=False)
class WarmProcess(Warm):
    """A running program, with those methods of asyncio's processes that tests use."""

    stdin: BinaryIO
    """Its input, which is closed when it has ended."""
    stdout: asyncio.StreamReader
    _process: BaseProcess
    _has_ended: asyncio.Event = field(factory=asyncio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        """Watch for its end."""
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self.stdin.close()
        self._has_ended.set()

    async def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        await self._has_ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> bytes:
        """Close its input, wait for its end, and return the rest of its output."""
        self.stdin.close()
        rest = await self.stdout.read()
        await self.wait()
        return rest


@define(eq=False)
class WarmCommand(Warm):
    """A running command, with those methods of `subprocess.Popen` that tests use."""

    stdout: TextIO
    stderr: TextIO
    _process: BaseProcess

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and return the rest of its output."""
        said: dict[TextIO, str] = {}
        readers = [Thread(target=lambda it: said.update({it: it.read()}), args=(it,)) for it in self._outputs]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        self.close()
        return said.get(self.stdout, ""), said.get(self.stderr, "")

    @property
    def _outputs(self) -> list[TextIO]:
        return [stream for stream in (self.stdout, self.stderr) if not stream.closed]

    def close(self) -> None:
        """Read no more of its output."""
        for stream in self._outputs:
            stream.close()


def run(*words: str, env: Mapping[str, str]) -> WarmCommand:
    """Start what `python WORDS` would run, without input."""
    ours_out, theirs_out = os.pipe()
    ours_err, theirs_err = os.pipe()
    process = _fork(words, env, (os.open(os.devnull, os.O_RDONLY), theirs_out, theirs_err))
    out, err = (os.fdopen(number, encoding="utf-8") for number in (ours_out, ours_err))
    return WarmCommand(out, err, process)


async def start(*words: str, complaints: Path, env: Mapping[str, str] | None = None) -> WarmProcess:
    """Start what `python WORDS` would run, with its stderr appended to the file *complaints*."""
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    theirs_err = os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = _fork(words, env or os.environ, (theirs_in, theirs_out, theirs_err))
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(ours_out, "rb", buffering=0))
    return WarmProcess(os.fdopen(ours_in, "wb", buffering=0), reader, process)


def _fork(words: Sequence[str], env: Mapping[str, str], numbers: Sequence[int]) -> BaseProcess:
    """Start the process, and close its ends of the pipes here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LOADED])
    theirs = [Connection(number) for number in numbers]
    process = context.Process(target=_be, args=(words, str(Path.cwd()), dict(env), theirs), daemon=True)
    process.start()
    for stream in theirs:
        stream.close()
    return process


def _be(words: Sequence[str], folder: str, env: Mapping[str, str], streams: Sequence[Connection]) -> None:
    """Become the program, with *streams* in place of this process's own."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False) for number in range(len(streams))
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
