"""CPU time of processes that import the package or print the help, against processes that import others."""

from __future__ import annotations

import resource
import subprocess
import sys

from tests.bench import others
from tests.bench.rig import table

TURNS = 9
PEERS = [f"import {name}" for name in ("aiohttp", "replicate", "fal_client", "openai") if others.has(name)]
OURS = {
    "import audioext": ["-c", "import audioext"],
    "from audioext import Client, Kie": ["-c", "from audioext import Client, Kie"],
    "audioext --help": ["-m", "audioext", "--help"],
}


def cpu() -> float:
    """Return the CPU seconds of all ended child processes."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run(turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure each pair alternately, and print its ratio."""
    rows: dict[str, list[float]] = {}
    for _ in range(turns):
        taken: dict[str, float] = {}
        for name, words in {**{line: ["-c", line] for line in PEERS}, **OURS}.items():
            before = cpu()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            taken[name] = cpu() - before
        for theirs in PEERS:
            for name in OURS:
                rows.setdefault(f"{name}: times {theirs}", []).append(taken[name] / taken[theirs])
    return table("Start-up, by CPU", rows)


if __name__ == "__main__":
    run()
