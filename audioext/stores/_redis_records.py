"""Records in Redis: created once, committed by version, found by ref, key and task id."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from attrs import frozen

from audioext.errors import StoreError
from audioext.models.record import Record, dump, load
from audioext.stores import _redis_journal as journal
from audioext.stores import _redis_scripts as scripts
from audioext.stores._redis_engine import Engine
from audioext.stores._redis_keys import Partition
from audioext.stores._redis_paging import PAGE, merged, pairs, time_word
from audioext.stores.base import Conflict, Created, Delivery, Done, OutboxEntry, Versioned

OWNER_PAUSE_SECONDS = 0.01  # doubled with each look
FENCE_SECONDS = 30 * 86_400
"""Nobody sleeps for so long between a key and its record."""
OWNER_LOOKS = 8
"""Looks at a key whose owner has not created its record yet, two and a half seconds in all; then it is dead."""


@frozen(kw_only=True)
class Change:
    """What `commit` stores."""

    record: Record
    expected_version: int
    is_open: bool
    due_at: float | None
    outbox: Sequence[OutboxEntry]
    delivery: Delivery | None


# --- create -------------------------------------------------------------------------------------------------


async def create_with_key(engine: Engine, record: Record, key: str, due_at: float | None) -> Created:
    """Store a new record unless its key is taken.

    The key may be in another partition, so it is reserved first. A reservation whose owner died before it created
    its record is fenced off in the record's own partition, and then taken over: two can never both create.
    """
    await _make_sure(engine, key)
    index = engine.layout.of(key).key(key)
    held = b""
    while True:
        token = secrets.token_hex(8)  # a new one each time: an earlier one may be fenced off
        mine = f"{token} {record.ref}".encode()
        held = await engine.lane.do(scripts.RESERVE, [index], mine, held)
        if not held:  # who had it gave it back in this moment
            continue
        if held != mine:
            owner = await _owner(engine, held)
            if owner is not None:
                return Created(stored=owner, existing=True)
            continue
        created = await create(engine, record, due_at, key=key, token=token)
        if created is not None:
            if created.existing:
                await engine.lane.do(scripts.RELEASE, [index], mine)
            return created


async def create(
    engine: Engine, record: Record, due_at: float | None, *, key: str = "", token: str = ""
) -> Created | None:
    """Store a new record unless its ref is taken; `None` if its reservation was fenced off."""
    await _take_back(engine, record.ref)  # else what is left of an earlier try would be taken back after this one
    part = engine.layout.of(record.ref)
    keys = [
        part.record(record.ref),
        part.fence(record.ref),
        part.all,
        part.open,
        part.due("poll", record.provider),
        part.state,
    ]
    words: list[str | bytes] = [
        part.name,
        engine.layout.channel,
        record.ref,
        record.provider,
        _dumped(record),
        repr(record.created_at),
        key,
        token,
        record.task_id or "",
        time_word(due_at),
        secrets.token_hex(8),
    ]
    try:
        # Asked for in one breath, so that all of it travels together.
        answer, *_ = await asyncio.gather(
            engine.lane.do(scripts.CREATE, keys, *words),
            *engine.index_provider(record.provider),
            *_index_task(engine, record, is_open=True),
        )
    except StoreError:
        # It may be there all the same, and would keep its key though nothing is ever sent.
        engine.unsure[record.ref] = key
        engine.later(partial(_take_back, engine, record.ref))
        raise
    if answer[0] == b"fenced":
        return None
    if answer[0] == b"exists":
        return Created(stored=_loaded(answer[1], answer[2]), existing=True)
    return Created(stored=Versioned(record=record, version=1), existing=False)


async def _take_back(engine: Engine, ref: str) -> None:
    """Forget a record whose creation was called a failure."""
    if ref in engine.unsure:
        await forget(engine, ref, "1")
        engine.unsure.pop(ref, None)


async def _make_sure(engine: Engine, key: str) -> None:
    """Take back what failed under *key* before anybody is told that it is taken.

    Raises:
        StoreError: the server is still not there.
    """
    for ref in [ref for ref, of in engine.unsure.items() if of == key]:
        await _take_back(engine, ref)


async def _owner(engine: Engine, held: bytes) -> Versioned | None:
    """Return the record of a reservation; `None` once its owner is certainly too late to create it."""
    token, ref = held.decode().split(" ", 1)
    part = engine.layout.of(ref)
    for look in range(OWNER_LOOKS):
        owned = await _owned(engine, ref, token)
        if owned is not None:
            return owned
        await asyncio.sleep(OWNER_PAUSE_SECONDS * 2**look)
    if await engine.lane.do(scripts.FENCE, [part.record(ref), part.fence(ref)], token, FENCE_SECONDS):
        return None
    return await get(engine, ref)


# --- commit and forget --------------------------------------------------------------------------------------


async def commit(engine: Engine, change: Change) -> Done | Conflict:
    """Store the next version of a record with all that belongs to it, or return what is there instead."""
    record, delivery = change.record, change.delivery
    part = engine.layout.of(record.ref)
    keys = [
        part.record(record.ref),
        part.outbox(record.ref),
        part.open,
        part.closed,
        part.due("poll", record.provider),
        part.due("outbox", record.provider),
        part.state,
    ]
    words: list[str | bytes | int] = [
        part.name,
        engine.layout.channel,
        record.ref,
        change.expected_version,
        _dumped(record),
        "1" if change.is_open else "0",
        time_word(change.due_at),
        secrets.token_hex(8),
        record.task_id or "",
        engine.ttl,
        len(change.outbox),
    ]
    for entry in change.outbox:
        words += [entry.sequence, entry.topic]
    if delivery is not None:
        keys += journal.keys_of(part, delivery)
        words += journal.words_of(delivery)
    answer, *_ = await asyncio.gather(
        engine.lane.do(scripts.COMMIT, keys, *words), *_index_task(engine, record, is_open=change.is_open)
    )
    if answer[0] == b"done":
        if record.key is not None and b"turned" in answer:
            engine.expire(engine.layout.of(record.key).key(record.key), is_open=change.is_open)
        return Done(version=change.expected_version + 1)
    return Conflict(current=None if answer[0] == b"gone" else _loaded(answer[1], answer[2]))


async def forget(engine: Engine, ref: str, expected: str) -> str:
    """Forget a record at the *expected* version, or one that is `closed`; say what became of it.

    It was `forgotten`, or `kept` as it is not as expected, or `absent`: only its traces were left.
    """
    part = engine.layout.of(ref)
    provider = (await engine.lane.run("HGET", part.record(ref), "provider") or b"").decode()
    keys = [
        part.record(ref),
        part.outbox(ref),
        part.all,
        part.open,
        part.closed,
        part.due("poll", provider),
        part.due("outbox", provider),
        part.state,
    ]
    outcome, *found = await engine.lane.do(scripts.FORGET, keys, part.name, engine.layout.channel, ref, expected)
    if found:
        key, token, task_id = (word.decode() for word in found)
        calls = []
        if token:
            calls.append(engine.lane.do(scripts.RELEASE, [engine.layout.of(key).key(key)], f"{token} {ref}"))
        if task_id:
            calls.append(engine.lane.run("ZREM", engine.layout.of(task_id).task(provider, task_id), ref))
        await asyncio.gather(*calls)
    word: str = outcome.decode()
    return word


async def purge(engine: Engine, created_before: float) -> int:
    """Forget closed records created before then; return how many went."""
    went = 0
    for part in engine.layout.partitions:
        query = ("-inf", f"({created_before!r}", "LIMIT", 0, PAGE)
        while refs := await engine.lane.run("ZRANGEBYSCORE", part.closed, *query):
            outcomes = await asyncio.gather(*(forget(engine, ref.decode(), "closed") for ref in refs))
            went += outcomes.count("forgotten")
            if "kept" in outcomes:  # opened again in this very moment
                break
    return went


def _index_task(engine: Engine, record: Record, *, is_open: bool) -> Sequence[asyncio.Future[object]]:
    """Let a task id lead to its ref. It is verified when it is followed, so it may come before the record."""
    if record.task_id is None:
        return ()
    key = engine.layout.of(record.task_id).task(record.provider, record.task_id)
    return (
        engine.lane.run("ZADD", key, repr(record.created_at), record.ref),
        engine.lane.run("PERSIST", key) if is_open else engine.lane.run("EXPIRE", key, engine.ttl),
    )


# --- read ---------------------------------------------------------------------------------------------------


async def get(engine: Engine, ref: str) -> Versioned | None:
    """Return a record by its ref."""
    version, body = await engine.lane.run("HMGET", engine.layout.of(ref).record(ref), "version", "body")
    return None if version is None else _loaded(version, body)


async def find_key(engine: Engine, key: str) -> Versioned | None:
    """Return a record by its key."""
    await _make_sure(engine, key)
    held = await engine.lane.run("GET", engine.layout.of(key).key(key))
    if held is None:
        return None
    token, ref = held.decode().split(" ", 1)
    return await _owned(engine, ref, token)


async def find(engine: Engine, provider: str, task_id: str) -> Versioned | None:
    """Return a record by its task id."""
    refs = await engine.lane.run("ZRANGE", engine.layout.of(task_id).task(provider, task_id), 0, -1, "REV")
    for ref in refs:
        found = await get(engine, ref.decode())
        if found is not None and (found.record.provider, found.record.task_id) == (provider, task_id):
            return found
    return None


async def scan(engine: Engine, *, is_open: bool | None) -> AsyncGenerator[Versioned]:
    """Yield the records in the order of their creation, as finely as the server's clock tells it."""
    streams = [_scan(engine, part, is_open=is_open) for part in engine.layout.partitions]
    async with aclosing(merged(streams)) as found:
        async for one in found:
            yield one


async def _scan(engine: Engine, part: Partition, *, is_open: bool | None) -> AsyncGenerator[tuple[float, Versioned]]:
    index = part.open if is_open else part.all
    after = "-inf"
    while page := pairs(await engine.lane.run("ZRANGEBYSCORE", index, after, "+inf", "WITHSCORES", "LIMIT", 0, PAGE)):
        after = f"({page[-1][1]!r}"
        fields = ("version", "body", "open")
        held = await asyncio.gather(*(engine.lane.run("HMGET", part.record(ref.decode()), *fields) for ref, _ in page))
        for (_, order), (version, body, state) in zip(page, held, strict=True):
            if version is not None and is_open in {None, state == b"1"}:
                yield order, _loaded(version, body)


async def _owned(engine: Engine, ref: str, token: str) -> Versioned | None:
    """Return the record of *ref* if it was created under this reservation."""
    version, body, of = await engine.lane.run("HMGET", engine.layout.of(ref).record(ref), "version", "body", "token")
    return _loaded(version, body) if of == token.encode() else None


def _dumped(record: Record) -> bytes:
    try:
        return dump(record)
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise StoreError(f"job {record.ref} cannot be stored as JSON: {error}") from error


def _loaded(version: bytes, body: bytes) -> Versioned:
    return Versioned(record=load(body), version=int(version))
