"""Servers that fail, relays between them and a store, and plain clients of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import redis.asyncio

from audioext.errors import StoreError
from audioext.models.entries import Entry
from audioext.stores.base import Appended, Store
from audioext.stores.redis import RedisStore
from tests.processes.scale.parts import Relay, Valkey
from tests.unit.stores.journals import LOOK_AT

PREFIX = "shared"
Reach = Callable[..., Awaitable[RedisStore]]
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
    """Return a relay to that server."""
    relay = Relay([server.port])
    await relay.start()
    yield relay
    await relay.aclose()


@pytest.fixture
async def reach(relay: Relay, stack: AsyncExitStack) -> Reach:
    """Return a function that opens a store through the relay."""

    async def reach(patience: float = 5.0) -> RedisStore:
        store = RedisStore(f"redis://127.0.0.1:{relay.port}/0?prefix={PREFIX}&patience={patience}")
        await persist(store.open)  # a busy machine may take longer than the store's patience
        stack.push_async_callback(store.aclose)
        return store

    return reach


@pytest.fixture
async def beside(server: Valkey, stack: AsyncExitStack) -> RedisStore:
    """Return a store on the same keys that connects directly."""
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0?prefix={PREFIX}")
    await store.open()
    stack.push_async_callback(store.aclose)
    return store


@pytest.fixture
async def raw(server: Valkey, stack: AsyncExitStack) -> redis.asyncio.Redis:
    """Return a plain client of that server."""
    return await stack.enter_async_context(redis.asyncio.Redis(port=server.port))


async def append(store: Store, *entries: Entry, ref: str = "ref", known: int = 0) -> Appended:
    """Append to the journal of *ref* as for a webhook."""
    return await store.append(ref, entries, provider="kie", known=known, look_at=LOOK_AT)


async def until(is_done: Callable[[], Awaitable[object]]) -> None:
    """Wait until *is_done* returns true."""
    async with asyncio.timeout(30):
        while not await is_done():  # noqa: ASYNC110 - what is asked for gives no event
            await asyncio.sleep(0.005)


async def persist(work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of *work*, retrying it while the server is away."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await work()
            except StoreError:
                await asyncio.sleep(0.005)
