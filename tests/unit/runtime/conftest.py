"""What the runtime's tests share: an event loop whose time jumps, and one store with two processes on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from audioext.stores import MemoryStore
from tests.support.loops import JumpingLoop
from tests.support.processes import Process, start


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this folder in a loop that jumps to the next timer instead of waiting."""
    return {"jumping": JumpingLoop}


@pytest.fixture
def store() -> MemoryStore:
    """Return the store that all processes of a test share."""
    return MemoryStore()


@pytest.fixture
def here(store: MemoryStore) -> Process:
    """Return a process on the store."""
    return start(store)


@pytest.fixture
def there(store: MemoryStore) -> Process:
    """Return another process on the store."""
    return start(store)
