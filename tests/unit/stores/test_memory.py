"""The memory store's own promises: no loop, no copies, faults on demand, no growth; and what `open_store` accepts."""

from __future__ import annotations

import asyncio
import sys
import tracemalloc

import pytest

from audioext.errors import ConfigError, StoreError
from audioext.models.entries import make_entry
from audioext.stores import MemoryStore, open_store
from audioext.stores.base import RESYNC, Changed, Created
from tests.unit.stores.journals import create, held, listed, make_index, make_webhook

BURST = 10_001
"""One more change than a listener may be behind."""


def test_it_needs_no_loop() -> None:
    """A memory store is made outside of any event loop, and used in one after another."""
    store = MemoryStore()

    assert b"one" == asyncio.run(store.secret("name", b"one"))
    assert b"one" == asyncio.run(store.secret("name", b"two"))


async def test_it_keeps_the_objects_themselves() -> None:
    """What is read is the very object that was stored: nothing is copied or encoded."""
    store, entry, index = MemoryStore(), make_webhook(1), make_index()
    await create(store)

    await store.append("ref", [entry], provider="kie", index=index, known=1)

    found = await held(store)
    assert found.entries[1] is entry
    assert found.index is index


async def test_it_fails_on_demand() -> None:
    """`fail` makes every call raise `StoreError` until it is taken back, and nothing is stored meanwhile."""
    store = MemoryStore()
    store.fail("the disk is full")

    for refused in (create(store), store.append("ref", [make_webhook(1)], provider="kie"), listed(store)):
        with pytest.raises(StoreError, match="the disk is full"):
            await refused

    store.fail(None)
    assert None is await store.read("ref")


async def test_a_slow_listener_gets_a_gap() -> None:
    """A listener that does not keep up gets one `RESYNC` in place of a backlog without bounds."""
    store = MemoryStore()
    await store.open()
    stream = store.changes()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await create(store, "begin")
    assert Changed("begin", 1) == await first

    for number in range(BURST):
        await store.append("ref", [make_entry("handled", 1.0, note=str(number))], provider="kie")
    await create(store, "end")
    await store.aclose()

    assert [RESYNC, Changed("end", 1)] == [change async for change in stream][-2:]


async def test_old_due_times_are_forgotten() -> None:
    """A job that is put off again and again leaves no trail."""
    store = MemoryStore()
    await create(store, poll_at=1e9)
    tracemalloc.start()

    for number in range(20_000):
        await store.append("ref", (), provider="kie", index=make_index(poll_at=1e9 + number), known=1)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 500_000 > peak
    assert 1e9 + 19_999 == await store.next_due("polls")


async def test_it_outlives_its_clients() -> None:
    """What a closed client stored is there for the next one, and for whoever looks after the test."""
    store = MemoryStore()
    await store.open()
    await create(store)
    await store.aclose()

    assert ["ref"] == await listed(store)
    assert Created() == await create(store, "next")


# --- open_store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, "memory://", "memory:"])
def test_memory_is_the_default(url: str | None) -> None:
    """No URL and `memory://` give a memory store."""
    assert isinstance(open_store(url), MemoryStore)


def test_a_store_is_left_as_it_is() -> None:
    """A store that the user made is not touched."""
    store = MemoryStore()

    assert store is open_store(store)


@pytest.mark.parametrize(
    "url", ["jobs.db", "postgres://host/db", "", "sqlite://jobs.db", "sqlite:///", "sqlite:jobs.db"]
)
def test_an_unknown_url_lists_the_forms(url: str) -> None:
    """Anything else is a `ConfigError` that lists what a store looks like."""
    with pytest.raises(ConfigError, match=r"memory://.*sqlite:///relative\.db.*redis://"):
        open_store(url)


def test_what_is_no_store_is_refused() -> None:
    """An object without the store protocol is refused before it is used."""
    with pytest.raises(ConfigError, match="3 is no store"):
        open_store(3)  # type: ignore[arg-type]  # what a user may do


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "unix"])
def test_a_missing_extra_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis URL without the extra says what to install."""
    monkeypatch.setitem(sys.modules, "audioext.stores.redis", None)  # as if it could not be imported

    with pytest.raises(ConfigError, match=r'pip install "audioext\[redis\]"'):
        open_store(f"{scheme}://localhost")


def test_a_password_is_not_repeated() -> None:
    """The error of a URL that is not known says nothing of what may be secret in it."""
    with pytest.raises(ConfigError) as caught:
        open_store("postgres://me:hunter2@host/db")

    assert "hunter2" not in str(caught.value)
