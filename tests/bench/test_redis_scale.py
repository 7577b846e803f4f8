"""What one Valkey server carries: events a second, bytes a job, and how soon another process is woken.

    python -m pytest -m bench -s -n0 -o asyncio_debug=false tests/bench/test_redis_scale.py

Each figure stands beside one of the same run: absolute ones mean nothing on a shared machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path

import pytest
import redis.asyncio

from audioext.models.events import Progress
from audioext.models.record import Record
from audioext.models.results import Stage, Track
from audioext.state import stages
from audioext.stores.base import Delivery, OutboxEntry
from audioext.stores.redis import RedisStore
from tests.bench.test_scale import complete_body, open_record
from tests.processes.scale.parts import Valkey

JOBS = 20_000
WAKE_UPS = 300
LISTENERS = 48


def complete(record: Record) -> Record:
    """Return the record as a complete callback leaves it."""
    tracks = tuple(Track(id=name, title="Part two", audio_url=f"https://files.test/{name}.mp3") for name in "ab")
    event = Progress(task_id=record.task_id, claimed_stage=Stage.COMPLETE, tracks=tracks)
    return stages.advance(record, event, seen="webhook", at=record.created_at + 60)


async def used_bytes(client: redis.asyncio.Redis) -> int:
    """Return the memory of the server's data."""
    return int((await client.info("memory"))["used_memory"])


async def write(store: RedisStore, record: Record) -> None:
    """Commit what one webhook commits: record, three outbox entries and a delivery."""
    await store.commit(
        complete(record),
        1,
        is_open=False,
        due_at=None,
        outbox=[
            OutboxEntry(topic=topic, sequence=number) for number, topic in enumerate(("text", "first", "complete"))
        ],
        delivery=Delivery(
            id=record.ref,
            ref=record.ref,
            provider="kie",
            received_at=record.created_at,
            verdict="applied",
            path=f"/kie/{record.ref}/***",
            headers={"content-type": "application/json"},
            body=complete_body(record.task_id or ""),
        ),
    )


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["everysec", "always"])
async def test_events_and_bytes(policy: str, tmp_path: Path, unused_tcp_port: int) -> None:
    """Creates and commits over one connection, against as many commands that do nothing but append to the same log."""
    server = Valkey(folder=tmp_path, port=unused_tcp_port)
    await server.start()
    client = redis.asyncio.Redis(port=unused_tcp_port)
    await client.config_set("appendfsync", policy)
    store = RedisStore(server.url)
    await store.open()
    now = time.time()
    records = [open_record(number, now) for number in range(JOBS)]
    empty = await used_bytes(client)

    began = time.perf_counter()
    for start in range(0, JOBS, 2_000):
        await asyncio.gather(*(store.create(record, due_at=now + 60) for record in records[start : start + 2_000]))
    created = time.perf_counter() - began
    per_open_job = (await used_bytes(client) - empty) / JOBS

    queue = iter(records)

    async def listen() -> None:
        for record in queue:
            await write(store, record)

    began = time.perf_counter()
    await asyncio.gather(*(listen() for _ in range(LISTENERS)))
    committed = time.perf_counter() - began
    per_closed_job = (await used_bytes(client) - empty) / JOBS

    turns = iter(range(JOBS))

    async def touch() -> None:
        for number in turns:
            await store._opened().lane.run("SET", f"plain:{number}", b"x" * 2_500)  # noqa: SLF001 - the same way there

    began = time.perf_counter()
    await asyncio.gather(*(touch() for _ in range(LISTENERS)))
    touched = time.perf_counter() - began
    await store.aclose()
    await client.aclose()
    await server.stop()
    print(
        json.dumps(
            {
                "appendfsync": policy,
                "creates_per_s": round(JOBS / created),
                "commits_per_s": round(JOBS / committed),
                "ratio_to_plain_set": round(touched / committed, 2),
                "bytes_per_open_job": round(per_open_job),
                "bytes_per_closed_job_with_its_delivery": round(per_closed_job),
            }
        )
    )
    assert created > 0


@pytest.mark.bench
@pytest.mark.timeout(300)
async def test_wake_ups(tmp_path: Path, unused_tcp_port: int) -> None:
    """From a commit in one store to the news in another, against a bare publish and its subscriber."""
    server = Valkey(folder=tmp_path, port=unused_tcp_port)
    await server.start()
    listener, worker = RedisStore(server.url), RedisStore(server.url)
    await listener.open()
    await worker.open()
    client = redis.asyncio.Redis(port=unused_tcp_port)
    await client.config_set("appendfsync", "everysec")
    ours, bare = [], []
    changes = worker.changes()
    next_change = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("bare")
        await pubsub.get_message(timeout=5)
        for number in range(WAKE_UPS):
            began = time.perf_counter()
            await listener.create(open_record(number, time.time()))
            await next_change
            ours.append(time.perf_counter() - began)
            next_change = asyncio.ensure_future(anext(changes))
            began = time.perf_counter()
            await client.publish("bare", "x")
            await pubsub.get_message(timeout=5)
            bare.append(time.perf_counter() - began)
    next_change.cancel()
    await asyncio.gather(next_change, return_exceptions=True)
    await listener.aclose()
    await worker.aclose()
    await client.aclose()
    await server.stop()
    ours_ms, bare_ms = (statistics.median(times) * 1_000 for times in (ours, bare))
    print(json.dumps({"commit_to_wake_up_ms": round(ours_ms, 2), "bare_publish_ms": round(bare_ms, 2)}))
    assert ours
