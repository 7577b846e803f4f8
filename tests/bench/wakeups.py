"""Delay until a webhook wakes an await in another process on one store, and until DBOS on SQLite does the same."""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import audioext as ax
from audioext.http.urls import callback_url
from tests.bench import others, peers
from tests.bench.rig import LOAD_CORE, peer, table
from tests.bench.webhooks import callback

JOBS, MESSAGES, TURNS = 100, 10, 3
DBOS_SECONDS = {"DBOS": 1.0, "DBOS set to 1 ms": 0.001}


async def ours(store: str, jobs: int, idle: list[float]) -> list[float]:
    """Deliver a webhook for each job here, and ask the other process when it was woken (ms).

    The share of a core that a wait takes while nothing happens is added to *idle*.
    """
    latencies: list[float] = []
    kie = ax.Kie("key", limits=peers.OPEN, pace=peers.NEVER)
    public_url = "http://127.0.0.1:9"
    async with ax.Client(kie, public_url=public_url, listen=None, store=store, secrets=[peers.SECRET]) as client:
        *tasks, last = await peers.jobs(client, jobs + 1)
        with peer("waiter", store, core=LOAD_CORE) as waiter:
            assert client.public_url is not None
            for task in tasks:
                assert "waiting" == await asyncio.to_thread(waiter.ask, task.ref)
                path = callback_url(client.public_url, peers.SECRET, "kie", task.ref).path
                assert 200 == await client.inbox.accept(ax.Webhook(path=path, body=callback(task.task_id)))
                durable = time.perf_counter()
                latencies.append(1_000 * (await asyncio.to_thread(waiter.read) - durable))
            assert "waiting" == await asyncio.to_thread(waiter.ask, last.ref)
            idle.append(await share_of(waiter.pid))
    return latencies


async def share_of(pid: int) -> float:
    """Return the per cent of a core that all threads of a process take in two seconds."""

    def spent() -> float:
        return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9

    before = spent()
    await asyncio.sleep(2)
    return (spent() - before) / 2 * 100


def theirs(file: str, seconds: float, messages: int) -> list[float]:
    """Send messages with DBOS's client here, and ask the other process when its workflow got them (ms)."""
    latencies: list[float] = []
    with peer("dbos", file, str(seconds), core=LOAD_CORE, module="others") as waiter:
        client = importlib.import_module("dbos").DBOSClient(system_database_url=f"sqlite:///{file}")
        for number in range(messages):
            assert "waiting" == waiter.ask(f"job{number}")
            time.sleep(0.618 * number % 1 * seconds)  # varies the time since DBOS's last poll
            client.send(f"job{number}", callback("t" * 24).decode())
            durable = time.perf_counter()
            latencies.append(1_000 * (waiter.read() - durable))
        client.destroy()
    return latencies


async def run(store: str | None = None, turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure both alternately, and print; DBOS only if it is installed and *store* is None, a new SQLite file."""
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns):
            idle: list[float] = []
            found = {"ours": await ours(store or f"sqlite:///{folder}/jobs.db", JOBS, idle)}
            rows.setdefault("ours: per cent of a core while it waits", []).extend(idle)
            for name, seconds in DBOS_SECONDS.items() if store is None and others.has("dbos") else ():
                file = f"{folder}/{turn}-{seconds}.db"
                found[name] = await asyncio.to_thread(theirs, file, seconds, MESSAGES)
            for name, latencies in found.items():
                rows.setdefault(f"{name}: p50, ms", []).append(statistics.median(latencies))
                if name == "ours":
                    rows.setdefault("ours: p99, ms", []).append(statistics.quantiles(latencies, n=100)[98])
                else:
                    ratio = statistics.median(found["ours"]) / statistics.median(latencies)
                    rows.setdefault(f"ours: p50, ratio to {name}", []).append(ratio)
    return table("Wake-up in another process, ms after the webhook was durable", rows)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else None))
