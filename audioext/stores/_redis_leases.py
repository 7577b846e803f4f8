"""Work that is due, and who holds it, in Redis: each partition has its own agenda, a claim looks at all of them."""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections.abc import Sequence

from audioext.stores import _redis_scripts as scripts
from audioext.stores._redis_engine import Engine
from audioext.stores._redis_paging import pairs, time_word
from audioext.stores.base import Kind, Lease

_Chosen = tuple[str, str]
"""A ref and its provider."""


async def claim(  # noqa: PLR0913 - the protocol's
    engine: Engine, kind: Kind, *, now: float, lease: float, limit: int, providers: Sequence[str] | None
) -> tuple[Lease, ...]:
    """Look what is due everywhere, take the most overdue of it, and look again where others were faster."""
    found: list[Lease] = []
    while len(found) < limit:
        query = ("-inf", repr(now), "WITHSCORES", "LIMIT", 0, limit - len(found))
        due = await _due(engine, kind, "ZRANGEBYSCORE", query, providers)
        if not due:
            break
        chosen = [(ref, provider) for _, ref, provider in heapq.nsmallest(limit - len(found), due)]
        found += await _take(engine, kind, chosen, now=now, lease=lease)
    return tuple(found)


async def _take(engine: Engine, kind: Kind, chosen: Sequence[_Chosen], *, now: float, lease: float) -> list[Lease]:
    lane = engine.lane
    token = secrets.token_hex(8)
    until = now + lease
    calls = [
        lane.do(scripts.TAKE, _keys(engine, kind, ref, provider), kind, ref, repr(now), repr(until), token)
        for ref, provider in chosen
    ]
    try:
        taken = await asyncio.gather(*calls)
    except BaseException:  # nobody will do what was claimed: this travels behind the claim, and takes it back
        for ref, provider in chosen:
            keys = _keys(engine, kind, ref, provider)
            lane.forget(scripts.SETTLE, len(keys), *keys, kind, ref, token, repr(now), "1")
        raise
    return [
        Lease(
            kind=kind,
            ref=ref,
            topic=answer[0].decode(),
            sequence=int(float(answer[1])),
            attempts=int(answer[2]),
            until=until,
            token=f"{token} {provider}",
        )
        for (ref, provider), answer in zip(chosen, taken, strict=True)
        if answer is not None
    ]


async def settle(engine: Engine, lease: Lease, due_at: float | None) -> bool:
    """End a lease if it is still the one that holds."""
    token, _, provider = lease.token.partition(" ")
    keys = _keys(engine, lease.kind, lease.ref, provider)
    return bool(await engine.lane.do(scripts.SETTLE, keys, lease.kind, lease.ref, token, time_word(due_at), "0"))


async def next_due(engine: Engine, kind: Kind, providers: Sequence[str] | None) -> float | None:
    """Return the earliest due time or end of a lease."""
    due = await _due(engine, kind, "ZRANGE", (0, 0, "WITHSCORES"), providers)
    return min((at for at, _, _ in due), default=None)


async def _due(
    engine: Engine, kind: Kind, command: str, query: Sequence[str | int], providers: Sequence[str] | None
) -> list[tuple[float, str, str]]:
    """Return (time, ref, provider) of what *query* finds in each partition, in one round trip.

    Where all providers are asked for, those known so far are asked along with the list of them; a new one costs a
    second trip.
    """
    names = set(engine.providers if providers is None else providers)
    places = [(part, name) for name in names for part in engine.layout.partitions]
    calls = [engine.lane.run(command, part.due(kind, name), *query) for part, name in places]
    if providers is None:
        calls.append(engine.lane.run("SMEMBERS", engine.layout.providers))
    answers = await asyncio.gather(*calls)
    if providers is None:
        engine.providers |= {name.decode() for name in answers.pop()}
        if not names >= engine.providers:
            return await _due(engine, kind, command, query, tuple(engine.providers))
    return [
        (at, ref.decode(), name) for (_, name), answer in zip(places, answers, strict=True) for ref, at in pairs(answer)
    ]


def _keys(engine: Engine, kind: Kind, ref: str, provider: str) -> list[str]:
    part = engine.layout.of(ref)
    return [part.record(ref), part.outbox(ref), part.due(kind, provider)]
