"""A hundred thousand open jobs on SQLite: what opening, listing and awaiting them costs."""

from __future__ import annotations

import asyncio
import gc
import resource
import sqlite3
import tempfile
import time
from pathlib import Path

import audioext as ax
from tests.bench import peers
from tests.bench.rig import table

JOBS = 100_000


def resident() -> float:
    """Return how many bytes of memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * resource.getpagesize())


async def run(jobs: int = JOBS) -> dict[str, dict[str, float]]:
    """Measure and print."""
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobs.db"
        url = f"sqlite:///{file}"
        kie = ax.Kie("key", limits=peers.OPEN, pace=peers.NEVER)
        async with ax.Client(kie, listen=None, store=url) as client:
            began = time.perf_counter()
            await peers.jobs(client, jobs)
            rows["stored with an answer, jobs a second"] = [jobs / (time.perf_counter() - began)]
        rows["bytes of the file a job"] = [file.stat().st_size / jobs]
        began = time.perf_counter()
        with sqlite3.connect(file) as plain:
            count = sum(1 for _ in plain.execute("SELECT * FROM entries JOIN jobs ON jobs.id = entries.job"))
        plain.close()
        rows["the same rows by plain sqlite3, s"] = [base := time.perf_counter() - began]
        assert 2 * jobs == count
        client = ax.Client(kie, listen=None, store=url)
        began = time.perf_counter()
        async with client:
            rows["opening, s"] = [time.perf_counter() - began]
            began = time.perf_counter()
            held = [job async for job in client.jobs(open=True)]
            rows["listing, s"] = [time.perf_counter() - began]
            rows["listing, times plain sqlite3"] = [rows["listing, s"][0] / base]
            gc.collect()
            before = resident()
            waits = [asyncio.ensure_future(job.wait(timeout=600)) for job in held]
            await asyncio.sleep(20)
            rows["bytes of memory an awaited job"] = [(resident() - before) / jobs]
            began = time.perf_counter()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            rows["cancelling all waits, s"] = [time.perf_counter() - began]
    return table(f"{jobs:,} open jobs", rows)


if __name__ == "__main__":
    asyncio.run(run())
