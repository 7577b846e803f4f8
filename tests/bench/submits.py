"""CPU and rate of a complete submit, against a plain session that POSTs the same JSON, in one run.

`floor` is `tests.bench.floors`: the least code with the same duties.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence

from tests.bench import others
from tests.bench.rig import LOAD_CORE, Peer, peer, table

SUBMITS = 1_000
TURNS = 7


def run(stores: Sequence[str] = ("memory", "sqlite"), turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure and print."""
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, peer("api", core=LOAD_CORE) as api:
        base = f"http://127.0.0.1:{api.ready['port']}"
        urls = {"memory": "-", "sqlite": f"sqlite:///{folder}/jobs.db"}
        clients = {"plain session": Peer("plain", base)}
        floors = {"floor, memory": "-", "floor, sqlite": f"{folder}/floor.db"}
        clients |= {name: Peer("submits", file, base, module="floors") for name, file in floors.items()}
        clients |= {name: Peer("submits", urls.get(name, name), base) for name in stores}
        if others.has("httpx"):
            clients["httpx"] = Peer("httpx", base, module="others")
        try:
            for _ in range(turns):
                spent: dict[str, tuple[float, float]] = {}
                for name, client in clients.items():
                    before = client.ask("cpu")
                    seconds = client.ask(f"go {SUBMITS}")
                    spent[name] = ((client.ask("cpu") - before) / SUBMITS * 1e6, SUBMITS / seconds)
                    rows.setdefault(f"{name}: µs of CPU", []).append(spent[name][0])
                for name in (*floors, *stores):
                    rows.setdefault(f"{name}: ratio by CPU", []).append(spent["plain session"][0] / spent[name][0])
                    rows.setdefault(f"{name}: ratio by rate", []).append(spent[name][1] / spent["plain session"][1])
                    if "httpx" in spent:
                        rows.setdefault(f"{name}: times the rate of httpx", []).append(
                            spent[name][1] / spent["httpx"][1]
                        )
        finally:
            for client in clients.values():
                client.close()
    return table("A submit, whole way, against a plain session", rows)


if __name__ == "__main__":
    run(sys.argv[1:] or ("memory", "sqlite"))
