"""How long whole processes take that import the package or print the help, against `import aiohttp`."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.rig import table

TURNS = 15
COMMANDS = {
    "import aiohttp": ["-c", "import aiohttp"],
    "import audioext": ["-c", "import audioext"],
    "from audioext import Client, Kie": ["-c", "from audioext import Client, Kie"],
    "audioext --help": ["-m", "audioext", "--help"],
}


def run(turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure in turn and print the ratios of each pair."""
    rows: dict[str, list[float]] = {}
    for _ in range(turns):
        taken: dict[str, float] = {}
        for name, words in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            taken[name] = time.perf_counter() - began
        for name in list(COMMANDS)[1:]:
            rows.setdefault(f"{name}: times import aiohttp", []).append(taken[name] / taken["import aiohttp"])
    return table("Start-up", rows)


if __name__ == "__main__":
    run()
