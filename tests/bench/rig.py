"""Shared code of the benchmarks: processes pinned to a core, and tables of ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SERVER_CORE, LOAD_CORE = 0, 1


class Peer:
    """A process of `tests.bench.peers` or `tests.bench.others` that answers lines."""

    def __init__(self, *words: str, core: int = SERVER_CORE, module: str = "peers") -> None:
        """Start the process on its core."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{module}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: pin(core),  # noqa: PLW1509 - nothing else runs in this process yet
        )
        self.ready: dict[str, Any] = self.read()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, line: str) -> Any:
        """Send a line and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()

    def read(self) -> Any:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def peer(*words: str, core: int = SERVER_CORE, module: str = "peers") -> Iterator[Peer]:
    """Start a peer, and end it afterwards."""
    found = Peer(*words, core=core, module=module)
    try:
        yield found
    finally:
        found.close()


def pin(core: int) -> None:
    """Pin this process to one core, if the system can and has that core."""
    if hasattr(os, "sched_setaffinity") and core < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {core})


def table(title: str, rows: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Print the median and spread of each row, and return them."""
    print(f"\n{title}")
    found: dict[str, dict[str, float]] = {}
    for name, values in rows.items():
        ordered = sorted(values)
        middle = statistics.median(ordered)
        found[name] = {"median": middle, "low": ordered[0], "high": ordered[-1]}
        print(f"  {name:44} {middle:10.3f}   ({ordered[0]:.3f} to {ordered[-1]:.3f})")
    return found
