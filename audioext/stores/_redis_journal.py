"""The journal of deliveries in Redis: each in the partition of its ref, all of them in the order of their ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from attrs import frozen

from audioext.stores import _redis_scripts as scripts
from audioext.stores._redis_engine import Engine
from audioext.stores._redis_keys import Partition
from audioext.stores._redis_paging import PAGE, merged
from audioext.stores.base import Delivery


@frozen(order=False)
class _Newest:
    """Sorts ids backwards, as the greatest is the newest."""

    id_: bytes

    def __lt__(self, other: _Newest) -> bool:
        return self.id_ > other.id_


def keys_of(part: Partition, delivery: Delivery) -> list[str]:
    """Return the keys that a new delivery touches."""
    return [part.delivery(delivery.id), part.journal, part.received, part.deliveries_of(delivery.ref)]


def words_of(delivery: Delivery) -> list[str | bytes]:
    """Return what is stored of a delivery."""
    facts = {
        "id": delivery.id,
        "ref": delivery.ref,
        "provider": delivery.provider,
        "received_at": delivery.received_at,
        "verdict": delivery.verdict,
        "path": delivery.path,
        "headers": dict(delivery.headers),
        "note": delivery.note,
    }
    return [delivery.id, repr(delivery.received_at), orjson.dumps(facts), delivery.body]


async def journal(engine: Engine, delivery: Delivery) -> None:
    """Append a delivery."""
    keys = keys_of(engine.layout.of(delivery.ref), delivery)
    await engine.lane.do(scripts.JOURNAL, keys, delivery.ref, engine.ttl, *words_of(delivery))


async def deliveries(engine: Engine, ref: str | None) -> AsyncGenerator[Delivery]:
    """Yield the journal, newest first."""
    if ref is not None:
        part = engine.layout.of(ref)
        streams = [_deliveries(engine, part, part.deliveries_of(ref))]
    else:
        streams = [_deliveries(engine, part, part.journal) for part in engine.layout.partitions]
    async with aclosing(merged(streams)) as found:
        async for one in found:
            yield one


async def _deliveries(engine: Engine, part: Partition, index: str) -> AsyncGenerator[tuple[_Newest, Delivery]]:
    before = b"+"
    while ids := await engine.lane.run("ZREVRANGEBYLEX", index, before, "-", "LIMIT", 0, PAGE):
        before = b"(" + ids[-1]
        held = await asyncio.gather(*(_delivery(engine, part, id_) for id_ in ids))
        for id_, found in zip(ids, held, strict=True):
            if found is not None:  # else its time was over
                yield _Newest(id_), found


async def delivery(engine: Engine, id_: str) -> Delivery | None:
    """Return one delivery, in whichever partition it is."""
    found = await asyncio.gather(*(_delivery(engine, part, id_.encode()) for part in engine.layout.partitions))
    return next((one for one in found if one is not None), None)


async def _delivery(engine: Engine, part: Partition, id_: bytes) -> Delivery | None:
    facts, body = await engine.lane.run("HMGET", part.delivery(id_.decode()), "facts", "body")
    return None if facts is None else Delivery(**orjson.loads(facts), body=body)


async def purge_old(engine: Engine, received_before: float) -> None:
    """Forget what was received before then."""
    for part in engine.layout.partitions:
        query = ("-inf", f"({received_before!r}", "LIMIT", 0, PAGE)
        while ids := await engine.lane.run("ZRANGEBYSCORE", part.received, *query):
            await asyncio.gather(*(_forget(engine, part, id_) for id_ in ids))


async def purge_surplus(engine: Engine, kept: int) -> None:
    """Forget the oldest until so many are left."""
    parts = engine.layout.partitions
    counts = await asyncio.gather(*(engine.lane.run("ZCARD", part.journal) for part in parts))
    surplus = sum(counts) - kept
    portion: list[tuple[Partition, bytes]] = []
    async with aclosing(merged([_oldest(engine, part) for part in parts])) as oldest:
        while surplus > 0 and (found := await anext(oldest, None)) is not None:
            portion.append(found)
            surplus -= 1
            if surplus == 0 or len(portion) == PAGE:
                await asyncio.gather(*(_forget(engine, *one) for one in portion))
                portion.clear()


async def _oldest(engine: Engine, part: Partition) -> AsyncGenerator[tuple[bytes, tuple[Partition, bytes]]]:
    after = b"-"
    while ids := await engine.lane.run("ZRANGEBYLEX", part.journal, after, "+", "LIMIT", 0, PAGE):
        after = b"(" + ids[-1]
        for id_ in ids:
            yield id_, (part, id_)


async def _forget(engine: Engine, part: Partition, id_: bytes) -> None:
    lane = engine.lane
    key = part.delivery(id_.decode())
    ref = await lane.run("HGET", key, "ref")
    calls = [lane.run("DEL", key), lane.run("ZREM", part.journal, id_), lane.run("ZREM", part.received, id_)]
    if ref is not None:
        calls.append(lane.run("ZREM", part.deliveries_of(ref.decode()), id_))
    await asyncio.gather(*calls)
