"""How long whole processes take that import the package or print the help, against those that import others."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench import others
from tests.bench.rig import table

TURNS = 15
PEERS = [f"import {name}" for name in ("aiohttp", "replicate", "fal_client", "openai") if others.has(name)]
OURS = {
    "import audioext": ["-c", "import audioext"],
    "from audioext import Client, Kie": ["-c", "from audioext import Client, Kie"],
    "audioext --help": ["-m", "audioext", "--help"],
}


def run(turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure in turn and print the ratios of each pair."""
    rows: dict[str, list[float]] = {}
    for _ in range(turns):
        taken: dict[str, float] = {}
        for name, words in {**{line: ["-c", line] for line in PEERS}, **OURS}.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            taken[name] = time.perf_counter() - began
        for theirs in PEERS:
            for name in OURS:
                rows.setdefault(f"{name}: times {theirs}", []).append(taken[name] / taken[theirs])
    return table("Start-up", rows)


if __name__ == "__main__":
    run()
