"""Fixtures of the command line tests: commands in this process, commands as processes, and a short recording."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from audioext.cli.app import run
from audioext.sandbox import Sandbox, audio
from tests.support import warm
from tests.support.warm import WarmCommand

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 30.0
FAST = ("--sandbox", "--speed", "100000")
"""A sandbox whose tasks complete at once."""
FULL = ("--model", "V5", "--continue-at", "2", "--prompt", "more", "--style", "Piano", "--title", "Part 2")
STORE = ("--store", "sqlite:///jobs.db")
MEMORY = ("--store", "memory://")
HOOKS = ("--public-url", "http://127.0.0.1:{port}/audio", "--listen", "127.0.0.1:0")
TRACK = "e2310000-0000-4000-8000-000000000001"


@frozen
class Ended:
    """A finished command with its exit code and output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def hint(self) -> list[str]:
        """The arguments of the last command that stderr suggests."""
        return shlex.split(re.findall(r": audioext (.+)$", self.err, re.MULTILINE)[-1])


Invoke = Callable[..., Ended]
Start = Callable[..., "subprocess.Popen[str]"]
Serve = Callable[..., WarmCommand]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, without the user's keys and settings."""
    for name in ("KIE", "SUNOAPI", "VIDGO", "MUSICGPT"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    for name in ("STORE", "PUBLIC_URL", "LISTEN", "BASE_URL", "METRICS"):
        monkeypatch.delenv(f"AUDIOEXT_{name}", raising=False)
    for name in ("KIE_WEBHOOK_KEY", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def voice(folder: Path) -> Path:
    """Return the name of a short recording in the folder."""
    (folder / "voice.wav").write_bytes(audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav"))
    return Path("voice.wav")


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Return a function that runs a command in this process."""

    def call(*arguments: str | Path) -> Ended:
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a command as a process; it is killed after the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "audioext", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
        )
        started.append(process)
        return process

    yield call
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function like `start` for tests of what a command does once it is loaded: it begins loaded."""
    started: list[WarmCommand] = []

    def call(*arguments: str | Path, env: dict[str, str] | None = None) -> WarmCommand:
        process = warm.run("-m", "audioext", *map(str, arguments), env={**os.environ, **(env or {})})
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait()
        process.close()


@pytest.fixture
def spawn(start: Start) -> Invoke:
    """Return a function that runs a command as a process to its end."""

    def call(*arguments: str | Path, env: dict[str, str] | None = None) -> Ended:
        process = start(*arguments, env=env)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Ended(process.returncode, out, err)

    return call


def short_sandbox(*, speed: float = 1e5, faults: tuple[str, ...] = ()) -> Sandbox:
    """Return a sandbox whose tasks take a short time."""
    return Sandbox(speed=speed, ready_seconds=4.0, extension_seconds=6.0, faults=faults)


async def aside(invoke: Invoke, *arguments: str | Path, **options: dict[str, str]) -> Ended:
    """Run a command in a thread while a sandbox runs on this loop."""
    return await asyncio.to_thread(lambda: invoke(*arguments, **options))


def read_until(process: subprocess.Popen[str] | WarmCommand, word: str) -> str:
    """Read stderr of *process* up to the line with *word*, and return that line."""
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return line
    message = f"the process ended without {word!r}"
    raise AssertionError(message)


def on_terminal(width: int, *arguments: str) -> str:
    """Run a command on a terminal of *width* columns until it succeeds, and return its output."""
    leader, follower = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # Linux reports the closed end this way
            while chunk := os.read(leader, 65_536):
                chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", str(width))
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        code = run(arguments)
    reader.join()
    os.close(leader)
    assert 0 == code
    return b"".join(chunks).decode("utf-8", "replace")
