"""A hundred thousand open jobs on SQLite: the cost of opening, listing and awaiting them."""

from __future__ import annotations

import asyncio
import gc
import resource
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import audioext as ax
from tests.bench import peers
from tests.bench.rig import table

JOBS = 100_000


def resident() -> float:
    """Return this process's resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * resource.getpagesize())


def read_plainly(file: Path, jobs: int) -> tuple[float, float]:
    """Read all rows of that many jobs with plain sqlite3; return the elapsed and the CPU seconds."""
    began, spent = time.perf_counter(), time.process_time()
    with closing(sqlite3.connect(file)) as plain:
        count = sum(1 for _ in plain.execute("SELECT * FROM entries JOIN jobs ON jobs.id = entries.job"))
    assert 2 * jobs == count
    return time.perf_counter() - began, time.process_time() - spent


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
        base = [read_plainly(file, jobs)]
        client = ax.Client(kie, listen=None, store=url)
        began = time.perf_counter()
        async with client:
            rows["opening, s"] = [time.perf_counter() - began]
            began, spent = time.perf_counter(), time.process_time()
            held = [job async for job in client.jobs(open=True)]
            rows["listing, s"] = [time.perf_counter() - began]
            rows["listing, CPU s"] = [time.process_time() - spent]
            base.append(read_plainly(file, jobs))
            rows["the same rows by plain sqlite3, s"], rows["the same, CPU s"] = map(list, zip(*base, strict=True))
            rows["listing, times plain sqlite3"] = [
                2 * rows["listing, s"][0] / sum(rows["the same rows by plain sqlite3, s"])
            ]
            rows["the same, by CPU"] = [2 * rows["listing, CPU s"][0] / sum(rows["the same, CPU s"])]
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
