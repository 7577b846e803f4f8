"""The stores under test, each as connections to one engine, and strategies for what they keep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from audioext.record import Record
from audioext.requests import Extend
from audioext.stores import MemoryStore, open_store
from audioext.stores.base import Store

Connect = Callable[[], Awaitable[Store]]
ENGINES = ("memory", "sqlite")


@pytest.fixture(params=ENGINES)
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Return a function that opens one more connection to one engine."""
    memory = MemoryStore()
    async with AsyncExitStack() as stack:

        async def connect() -> Store:
            store = memory if request.param == "memory" else open_store(f"sqlite:///{tmp_path}/jobs.db")
            await store.open()
            stack.push_async_callback(store.aclose)
            return store

        yield connect


@pytest.fixture
async def store(connect: Connect) -> Store:
    """Return one open connection."""
    return await connect()


@pytest.fixture
def new_record() -> Callable[..., Record]:
    """Return a function that makes a record, with a ref of its own."""
    count = 0

    def make(**fields: object) -> Record:
        nonlocal count
        count += 1
        defaults: dict[str, object] = {
            "ref": f"{count:024d}",
            "provider": "kie",
            "request": Extend(audio_id="a", model="V5"),
            "created_at": float(count),
        }
        return Record(**{**defaults, **fields})  # type: ignore[arg-type]  # a test's own fields

    return make
