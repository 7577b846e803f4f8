"""A million jobs in one process: memory stays flat, and the file stays small.

python -m pytest -m soak -s -n0 -o asyncio_debug=false -o timeout=7200 tests/bench/test_long_life.py
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from pathlib import Path

import orjson
import pytest
from aiohttp import web

import audioext as ax
from tests.bench.test_scale import complete_body

JOBS = 1_000_000
ROUND = 20_000
AT_ONCE = 200
SECRET = b"a secret for the long run"


def resident_mebibytes() -> float:
    """Return the memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1_048_576


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
async def test_a_million_jobs(tmp_path: Path) -> None:
    """Each is submitted, called back, awaited, handled and purged; no round adds to what the one before left."""
    told = 0
    callbacks: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def submit(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        task_id = body["callBackUrl"].rsplit("/", 2)[1]
        callbacks.put_nowait((body["callBackUrl"], task_id))
        return web.json_response({"code": 200, "msg": "success", "data": {"taskId": task_id}})

    app = web.Application()
    app.router.add_post("/api/v1/generate/extend", submit)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kie = ax.Kie("a key", base_url=f"http://127.0.0.1:{runner.addresses[0][1]}", limits=ax.Limits(submits=None))
    file = tmp_path / "jobs.db"
    client = ax.Client(
        kie,
        public_url="http://127.0.0.1:{port}",
        listen="127.0.0.1:0",
        store=f"sqlite:///{file}",
        secrets=[SECRET],
        handler_concurrency=AT_ONCE,
    )

    @client.on(ax.Stage.COMPLETE)
    async def tell(_: ax.StageEvent) -> None:
        nonlocal told
        told += 1

    async def call_back() -> None:
        while True:
            url, task_id = await callbacks.get()
            hook = ax.Webhook(path=url[url.index("/kie/") :], body=complete_body(task_id))
            assert 200 == await client.inbox.accept(hook)

    async def run(count: int) -> None:
        for _ in range(count):
            song = await client.run(ax.Extend(audio_id="source", model="V5"), timeout=60)
            assert 2 == len(song.tracks)

    memory: list[float] = []
    async with client:
        callers = [asyncio.create_task(call_back()) for _ in range(AT_ONCE)]
        for done in range(ROUND, JOBS + 1, ROUND):
            began, at = time.perf_counter(), time.time()
            await asyncio.gather(*(run(ROUND // AT_ONCE) for _ in range(AT_ONCE)))
            await client.store.purge(created_before=at, deliveries_before=at, deliveries_kept=0)  # the round before
            gc.collect()
            memory.append(resident_mebibytes())
            rate = ROUND / (time.perf_counter() - began)
            size = file.stat().st_size / 1_048_576
            facts = {"jobs": done, "mib": round(memory[-1], 1), "file_mib": round(size, 1), "told": told}
            print(json.dumps({**facts, "jobs_per_s": round(rate)}), flush=True)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    await runner.cleanup()

    half = len(memory) // 2
    assert max(memory[half:]) < max(memory[:half]) * 1.1 + 10
    assert told > JOBS - ROUND  # those of the last round may still be on their way when it closes
