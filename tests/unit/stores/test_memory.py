"""The memory store's own promises: no loop, no I/O, faults on demand, and no growth."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from audioext.errors import ConfigError, StoreError
from audioext.stores import MemoryStore, open_store
from audioext.stores._changes import MAX_BACKLOG, Fanout
from audioext.stores.base import RESYNC, Done

if TYPE_CHECKING:
    from tests.unit.stores.conftest import Advance, Listen, MakeRecord


def test_it_needs_no_loop() -> None:
    """A memory store is made outside of any event loop, and used in one after another."""
    store = MemoryStore()

    assert b"one" == asyncio.run(store.create_if_absent("name", b"one"))
    assert b"one" == asyncio.run(store.create_if_absent("name", b"two"))


async def test_it_keeps_the_objects_themselves(make_record: MakeRecord) -> None:
    """What is read is the very object that was stored: nothing is copied or encoded."""
    store, record = MemoryStore(), make_record()

    await store.create(record)

    stored = await store.get("ref")
    assert stored is not None
    assert record is stored.record


async def test_it_can_be_told_to_fail(make_record: MakeRecord) -> None:
    """`fail` makes every call raise `StoreError` until it is taken back, and nothing is stored meanwhile."""
    store = MemoryStore()
    store.fail("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        await store.create(make_record())
    with pytest.raises(StoreError, match="the disk is full"):
        async for _ in store.scan():
            pass

    store.fail(None)
    assert None is await store.get("ref")


async def test_a_listener_far_behind_has_to_look_again(listen: Listen, make_record: MakeRecord) -> None:
    """A listener that does not keep up gets one `RESYNC` in place of a backlog without bounds."""
    fanout = Fanout()
    stream = fanout.listen()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    fanout.publish(["begin"])
    assert "begin" == await first
    fanout.publish(f"ref{number}" for number in range(MAX_BACKLOG + 1))
    fanout.publish(["end"])
    fanout.close()

    assert [RESYNC, "end"] == [change async for change in stream]
    assert not fanout.is_heard


async def test_old_due_times_are_forgotten(make_record: MakeRecord, advance: Advance) -> None:
    """A job that is put off again and again leaves no trail in the queue of due times."""
    store = MemoryStore()
    stored = (await store.create(make_record(), due_at=1e9)).stored

    for number in range(1000):
        stored = await advance(store, stored, due_at=1e9 + number)

    heap = store._agendas["poll"]._heaps["kie"]  # noqa: SLF001 - the promise is about memory, which only shows inside
    assert 100 > len(heap)
    assert 1e9 + 999 == await store.next_due("poll")


async def test_it_outlives_its_clients(make_record: MakeRecord) -> None:
    """What a closed client stored is there for the next one, and for whoever looks after the test."""
    store = MemoryStore()
    await store.open()
    await store.create(make_record())
    await store.aclose()

    stored = await store.get("ref")

    assert stored is not None
    assert Done(version=2) == await store.commit(make_record(), 1, is_open=True, due_at=None)


# --- open_store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, "memory://", "memory:"])
def test_memory_is_the_default(url: str | None) -> None:
    """No URL and `memory://` give a memory store."""
    assert isinstance(open_store(url), MemoryStore)


def test_a_store_is_taken_as_it_is() -> None:
    """A store that the user made is not touched."""
    store = MemoryStore()

    assert store is open_store(store)


@pytest.mark.parametrize(
    "url", ["jobs.db", "postgres://host/db", "", "sqlite://jobs.db", "sqlite:///", "sqlite:jobs.db"]
)
def test_an_unknown_url_is_told_the_forms(url: str) -> None:
    """Anything else is a `ConfigError` that lists what a store looks like."""
    with pytest.raises(ConfigError, match=r"memory://.*sqlite:///relative\.db.*redis://"):
        open_store(url)


def test_what_is_no_store_is_told_so() -> None:
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
