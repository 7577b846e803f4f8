"""A hundred thousand open jobs: how long a start takes, what each costs, how fast they are asked about.

    python -m pytest -m bench -s tests/bench -n0

Absolute times mean nothing on a shared machine, so each figure stands beside one of the same run.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from attrs import frozen
from yarl import URL

import audioext as ax
from audioext.clock import mint_id
from audioext.http.urls import callback_url
from audioext.models.events import Submitted
from audioext.models.record import Record
from audioext.state import stages
from audioext.stores import open_store

OPEN_JOBS = 100_000
CALLBACKS = 3_000
TURNS = 7
CONNECTIONS = 48
GENERATOR = Path(__file__).with_name("load_generator.py")
SECRET = b"a secret for the benchmark"


def open_record(number: int, now: float) -> Record:
    """Return a submitted job of which nothing else is known."""
    record = Record(
        ref=mint_id(now + number / 1e6),
        provider="kie",
        request=ax.Extend(audio_id="e2310000-0000-4000-8000-000000000001", model="V5"),
        created_at=now,
        model="V5",
    )
    return stages.advance(record, Submitted(task_id=f"{number:032x}"), seen="answer", at=now)


def peak_mebibytes() -> float:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)


@pytest.mark.bench
@pytest.mark.timeout(900)
async def test_a_hundred_thousand_open_jobs(tmp_path: Path) -> None:
    """Start-up, memory per awaited job, and the rate of status calls, on SQLite."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    store = open_store(url)
    await store.open()
    now = time.time()
    began = time.perf_counter()
    for start in range(0, OPEN_JOBS, 5_000):
        await asyncio.gather(
            *(store.create(open_record(number, now), due_at=now) for number in range(start, start + 5_000))
        )
    created = time.perf_counter() - began
    await store.aclose()

    asked = 0
    enough = asyncio.Event()

    async def status(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked == 2_000:
            enough.set()
        body = {"code": 200, "msg": "success", "data": {"taskId": request.query["taskId"], "status": "PENDING"}}
        return web.json_response(body)

    app = web.Application()
    app.router.add_get("/api/v1/generate/record-info", status)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kie = ax.Kie("key", base_url=base, limits=ax.Limits(queries=None), pace=ax.Pace(first=60, every=60))
    client = ax.Client(kie, store=url)
    began = time.perf_counter()
    await client.__aenter__()
    opened = time.perf_counter() - began
    began = time.perf_counter()
    await enough.wait()
    polled = asked / (time.perf_counter() - began)

    gc.collect()
    before = peak_mebibytes()
    began = time.perf_counter()
    jobs = [job async for job in client.jobs(open=True)]
    listed = time.perf_counter() - began
    waits = [asyncio.ensure_future(job.wait(timeout=600)) for job in jobs]
    await asyncio.sleep(0)
    grown = (peak_mebibytes() - before) * 1_048_576 / len(jobs)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await client.aclose()
    await runner.cleanup()
    print(
        json.dumps(
            {
                "jobs": len(jobs),
                "create_per_s": round(OPEN_JOBS / created),
                "open_s": round(opened, 3),
                "list_all_s": round(listed, 2),
                "bytes_per_awaited_job": round(grown),
                "status_calls_per_s": round(polled),
                "file_mib": round((tmp_path / "jobs.db").stat().st_size / 1_048_576, 1),
            }
        )
    )
    assert OPEN_JOBS == len(jobs)


def complete_body(task_id: str) -> bytes:
    """Return a real-sized complete callback."""
    track = {
        "id": "b1c2d3e4-0000-4000-8000-00000000aa01",
        "audio_url": "https://files.test/b1c2d3e4.mp3",
        "stream_audio_url": "https://files.test/b1c2d3e4",
        "image_url": "https://files.test/b1c2d3e4.jpeg",
        "prompt": "[Verse] " + "la " * 120,
        "model_name": "chirp-crow",
        "title": "Part two",
        "tags": "ambient",
        "createTime": "2026-01-02 03:04:05",
        "duration": 151.2,
    }
    data = {
        "callbackType": "complete",
        "task_id": task_id,
        "data": [track, {**track, "id": "two", "audio_url": "https://files.test/two.mp3"}],
    }
    return orjson.dumps({"code": 200, "msg": "All generated successfully.", "data": data})


@frozen
class Load:
    """What one load came to: requests a second, and microseconds of this process for each."""

    rate: float
    cpu: float


async def load(requests: list[tuple[URL, bytes]], path: Path) -> Load:
    """Have another process send all over some keep-alive connections; each must be answered 200.

    The CPU time is that of the whole server, the store's threads included.
    """
    path.write_bytes(b"".join(len(raw).to_bytes(4, "big") + raw for raw in (_raw(*request) for request in requests)))
    port = requests[0][0].port
    gc.collect()
    began = time.process_time()
    generator = await asyncio.create_subprocess_exec(
        sys.executable, str(GENERATOR), str(port), str(CONNECTIONS), str(path), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await generator.communicate()
    spent = time.process_time() - began
    assert 0 == generator.returncode
    return Load(rate=len(requests) / float(said), cpu=1e6 * spent / len(requests))


def _raw(url: URL, body: bytes) -> bytes:
    """Return a POST as vendors send it."""
    head = (
        f"POST {url.raw_path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nUser-Agent: okhttp/4.12.0\r\n"
        f"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.bench
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_callbacks_against_a_bare_handler(store: str, tmp_path: Path) -> None:
    """The full path of a complete callback, beside a bare aiohttp handler under the same load, in turns."""

    async def bare(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"code": 200, "msg": "success"})

    app = web.Application()
    app.router.add_post("/{tail:.*}", bare)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    bare_url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}/kie/{mint_id(time.time())}/{'a' * 43}")
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    client = ax.Client(
        ax.Kie("key"), public_url="http://127.0.0.1:{port}", listen="127.0.0.1:0", store=url, secrets=[SECRET]
    )
    turns = []
    async with client:
        assert client.public_url is not None
        for turn in range(TURNS):
            now = time.time()
            records = [open_record(turn * CALLBACKS + number, now) for number in range(CALLBACKS)]
            for start in range(0, CALLBACKS, 1_000):
                await asyncio.gather(*(client.store.create(record) for record in records[start : start + 1_000]))
            calls = [
                (callback_url(client.public_url, SECRET, "kie", record.ref), complete_body(record.task_id or ""))
                for record in records
            ]
            plain = await load([(bare_url, body) for _, body in calls], tmp_path / "requests")
            full = await load(calls, tmp_path / "requests")
            turns.append((full, plain))
            last = await client.store.get(records[-1].ref)
            assert last is not None
            assert ax.Stage.COMPLETE is last.record.stage
    await runner.cleanup()
    found = {
        "store": store,
        "ratio_to_bare_aiohttp": [round(full.rate / plain.rate, 2) for full, plain in turns],
        "ratio_by_cpu": [round(plain.cpu / full.cpu, 2) for full, plain in turns],
        "median_ratio": round(statistics.median(full.rate / plain.rate for full, plain in turns), 3),
        "median_ratio_by_cpu": round(statistics.median(plain.cpu / full.cpu for full, plain in turns), 3),
        "full_cpu_us": round(statistics.median(full.cpu for full, _ in turns)),
        "bare_cpu_us": round(statistics.median(plain.cpu for _, plain in turns)),
        "bare_per_s": round(statistics.median(plain.rate for _, plain in turns)),
    }
    print(json.dumps(found))
    assert turns
