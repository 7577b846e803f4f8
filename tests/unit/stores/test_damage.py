"""A damaged row raises an error that names it, and all other jobs are still listed, claimed, counted and purged."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest
import redis.asyncio

from audioext.errors import StoreError, UnreadableError
from audioext.models.limits import Limits
from audioext.stores.base import Created, Full, Store
from audioext.stores.redis import RedisStore
from audioext.stores.sqlite import Driver, SqliteStore
from tests.unit.stores.journals import create, delivered, listed, make_index, make_request, make_webhook

IN_SQLITE = {
    "an entry's time": "UPDATE entries SET at = 'soon' WHERE job = 2",
    "an entry's kind": "UPDATE entries SET kind = 'rumour' WHERE job = 2",
    "an entry's headers": "UPDATE entries SET headers = '{' WHERE job = 2",
    "an entry's body": "UPDATE entries SET body = 'text' WHERE job = 2",
    "a note that is not text": "UPDATE entries SET note = CAST(x'ff' AS TEXT) WHERE job = 2",
    "a time of the job": "UPDATE jobs SET created_at = 'soon' WHERE id = 2",
    "when polls are due": "UPDATE jobs SET poll_at = 'soon' WHERE id = 2",
    "when handlers are due": "UPDATE jobs SET handle_at = 'soon' WHERE id = 2",
    "until when it occupies": "UPDATE jobs SET occupies_until = 'soon' WHERE id = 2",
    "a key that is not text": "UPDATE jobs SET key = CAST(x'ff' AS TEXT) WHERE id = 2",
    "when it changed": "UPDATE jobs SET changed_at = 'soon', is_open = 0 WHERE id = 2",
    "a due poll that is not text": "UPDATE jobs SET poll_at = CAST(x'ff' AS TEXT) WHERE id = 2",
    "due handlers that are not text": "UPDATE jobs SET handle_at = CAST(x'ff' AS TEXT) WHERE id = 2",
    "a claim that is not text": "UPDATE jobs SET held_until = CAST(x'ff' AS TEXT) WHERE id = 2",
    "a size that is not text": "UPDATE jobs SET size = CAST(x'ff' AS TEXT) WHERE id = 2",
    "an entry's time that is not text": "UPDATE entries SET at = CAST(x'ff' AS TEXT) WHERE job = 2",
    "a body that is not text": "UPDATE entries SET body = CAST(x'ff' AS TEXT) WHERE job = 2",
    "a count": "UPDATE jobs SET entries = 'many' WHERE id = 2",
}
Damage = Callable[[], Awaitable[None]]


def in_redis(kind: str) -> Callable[[redis.asyncio.Redis, bytes], Awaitable[object]]:
    """Return a function that damages a job's hash in one way."""

    async def damage(server: redis.asyncio.Redis, key: bytes) -> object:
        if kind == "another type":
            await server.delete(key)
            return await server.set(key, "text")
        field, value = {
            "the facts": ("m", b"x"),
            "the index": ("i", b"\xc1"),
            "another index": ("i", b"\x01"),
            "an entry": ("0", b"x"),
            "an entry's words": ("1", b"12345678w\0\0\0\1\xc1"),
        }[kind]
        return await server.hset(key, field, value)

    return damage


@pytest.fixture(
    params=[
        *((driver, kind) for driver in ("sqlite3", "apsw") for kind in IN_SQLITE),
        *(("redis", kind) for kind in ("another type", "the facts", "the index", "another index", "an entry")),
        ("redis", "an entry's words"),
    ],
    ids=" ".join,
)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Damage]:
    """Return a store, and a function that damages its second job in one way."""
    engine, kind = request.param
    if engine == "redis":
        prefix, path = secrets.token_hex(8), request.getfixturevalue("valkey")

        async def damage_server() -> None:
            async with redis.asyncio.Redis(unix_socket_path=str(path)) as server:
                await in_redis(kind)(server, f"{{{prefix}}}:job:bad".encode())

        return RedisStore(f"unix://{path}?prefix={prefix}"), damage_server
    driver: Driver = engine
    path = tmp_path / "jobs.db"

    async def damage_file() -> None:
        by_same = apsw.Connection(str(path)) if driver == "apsw" else sqlite3.connect(path, isolation_level=None)
        with closing(by_same) as connection:
            connection.execute(IN_SQLITE[kind])

    return SqliteStore(path, driver=driver), damage_file


@pytest.fixture
async def store(damaged: tuple[Store, Damage]) -> AsyncIterator[Store]:
    """Return an open store with three jobs, of which the one called bad is damaged."""
    store, damage = damaged
    await store.open()
    for number, ref in enumerate(("first", "bad", "last")):
        await create(store, ref, poll_at=1_000.0, handle_at=1_000.0, occupies_until=9_000.0)
        await store.append(ref, [make_webhook(number)], provider="kie", known=1, look_at=1_000.0)
    await damage()
    yield store
    await store.aclose()


async def test_a_damaged_job_is_skipped(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Listings skip a damaged job with a warning that names it, claims are right beside it, and reading it says so."""
    caplog.set_level(logging.WARNING)
    found = await listed(store)
    bodies = await delivered(store)
    with pytest.raises(UnreadableError, match="job bad cannot be read"):
        await store.read("bad")

    assert ["first", "last"] == found
    assert "job bad" in caplog.text
    assert ["00000002", "00000000"] == [body for body in bodies if body != "00000001"]

    for work in ("polls", "handlers"):
        assert 1_000.0 == await store.next_due(work, providers=["kie"])
        claimed = await store.claim(work, now=1_100.0, until=1_200.0, limit=9, providers=["kie"], latest=1_500.0)
        assert {"first", "last"} <= set(claimed)
        again = await store.claim(work, now=1_101.0, until=1_201.0, limit=9, providers=["kie"], latest=1_501.0)
        assert () == again
        assert 1_200.0 == await store.next_due(work)

    for known in (0, 1, 2):
        with suppress(StoreError):  # it is answered with 503; no foreign error is
            await store.append("bad", [make_webhook(7 + known)], provider="kie", known=known, look_at=1_000.0)


async def test_a_damaged_job_does_not_disturb_the_limits(store: Store) -> None:
    """Beside a damaged job the limits of its account still free up as others end, and purges go on."""
    limits = Limits(submits=4, parallel=3)
    outcome = await create(store, "new", limits=limits, now=200.0, is_open=False)
    assert isinstance(outcome, (Created, Full))
    ended = make_index("last", is_open=False)
    assert (await store.append("last", [], provider="kie", index=ended, known=2)).is_taken
    if isinstance(outcome, Full):
        assert Created() == await create(store, "new", limits=limits, now=201.0, is_open=False)
    await store.append("new", [], provider="kie")
    assert 1 <= await store.purge(before=300.0, deliveries_kept=100)
    assert None is await store.read("new")


@pytest.mark.parametrize("driver", ["sqlite3", "apsw"])
async def test_a_damaged_orphan_ends_no_purge(tmp_path: Path, driver: Driver) -> None:
    """A damaged orphan is purged with the others, and the purge goes on after it."""
    path = tmp_path / "jobs.db"
    store = SqliteStore(path, driver=driver)
    await store.open()
    await store.append("stray", [make_webhook(1)], provider="kie")
    await create(store, "old", is_open=False)
    by_same = apsw.Connection(str(path)) if driver == "apsw" else sqlite3.connect(path, isolation_level=None)
    with closing(by_same) as connection:
        connection.execute("UPDATE jobs SET changed_at = CAST(x'ff' AS TEXT) WHERE ref = 'stray'")

    assert 2 == await store.purge(before=1e9, deliveries_kept=9, delivery_bytes_kept=0)
    await store.aclose()


@pytest.mark.parametrize("driver", ["sqlite3", "apsw"])
async def test_a_damaged_index_row_is_repaired(tmp_path: Path, driver: Driver) -> None:
    """A damaged index row is repaired by a writer that appends the request again."""
    path = tmp_path / "jobs.db"
    store = SqliteStore(path, driver=driver)
    await store.open()
    await create(store, "bad")
    by_same = apsw.Connection(str(path)) if driver == "apsw" else sqlite3.connect(path, isolation_level=None)
    with closing(by_same) as connection:
        connection.execute("UPDATE jobs SET account = NULL")
    assert 0 == await store.purge(before=0.0, deliveries_kept=0, delivery_bytes_kept=0)
    request = make_request("bad")
    assert not (await store.append("bad", [], provider="kie", index=make_index("bad"), known=1)).is_taken

    await store.append("bad", [request], provider="kie", index=make_index("bad"), known=0)
    assert (await store.append("bad", [], provider="kie", index=make_index("bad"), known=1)).is_taken
    await store.aclose()
