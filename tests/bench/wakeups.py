"""How soon an await in another process is woken by a webhook, over one SQLite file or one server."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time

import audioext as ax
from audioext.http.urls import callback_url
from tests.bench import peers
from tests.bench.rig import LOAD_CORE, Peer, table
from tests.bench.webhooks import callback

JOBS = 300


async def run(store: str, jobs: int = JOBS) -> dict[str, dict[str, float]]:
    """Deliver a webhook for each job here, and ask the other process when it heard of it."""
    latencies: list[float] = []
    kie = ax.Kie("key", limits=peers.OPEN, pace=peers.NEVER)
    public_url = "http://127.0.0.1:9"
    async with ax.Client(kie, public_url=public_url, listen=None, store=store, secrets=[peers.SECRET]) as client:
        tasks = await peers.jobs(client, jobs)
        waiter = await asyncio.to_thread(Peer, "waiter", store, core=LOAD_CORE)
        try:
            assert client.public_url is not None
            for task in tasks:
                assert "waiting" == await asyncio.to_thread(waiter.ask, task.ref)
                path = callback_url(client.public_url, peers.SECRET, "kie", task.ref).path
                assert 200 == await client.inbox.accept(ax.Webhook(path=path, body=callback(task.task_id)))
                durable = time.perf_counter()
                latencies.append(1_000 * (await asyncio.to_thread(waiter.read) - durable))
        finally:
            waiter.close()
    cut = statistics.quantiles(latencies, n=100)
    return table("Wake-up in another process, ms after the webhook was durable", {"p50": [cut[49]], "p99": [cut[98]]})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db"))
