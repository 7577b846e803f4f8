"""Fixtures of the many-process tests: a server for the store, and an exit stack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.processes.scale.parts import Valkey


@pytest.fixture
async def valkey(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Valkey]:
    """Run a Valkey server on an unused port."""
    server = Valkey(folder=tmp_path / "valkey", port=unused_tcp_port_factory())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close everything that a test opened, in reverse order."""
    async with AsyncExitStack() as stack:
        yield stack
