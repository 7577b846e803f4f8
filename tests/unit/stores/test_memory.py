"""The memory store's own promises: no event loop, no copies, faults on demand, and bounded growth."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc

import pytest

from audioext.errors import StoreError
from audioext.models.entries import make_entry
from audioext.stores import MemoryStore
from audioext.stores.base import RESYNC, Changed, Created
from tests.unit.stores.journals import create, held, listed, make_index, make_webhook

BURST = 10_001
"""One more change than a listener may be behind."""


def test_it_needs_no_loop() -> None:
    """A memory store can be made outside of an event loop, and used in several."""
    store = MemoryStore()

    assert b"one" == asyncio.run(store.secret("name", b"one"))
    assert b"one" == asyncio.run(store.secret("name", b"two"))


async def test_it_keeps_the_objects_themselves() -> None:
    """A read returns the very objects that were stored, neither copied nor encoded."""
    store, entry, index = MemoryStore(), make_webhook(1), make_index()
    await create(store)

    await store.append("ref", [entry], provider="kie", index=index, known=1)

    found = await held(store)
    assert found.entries[1] is entry
    assert found.index is index


async def test_it_fails_on_demand() -> None:
    """`fail` makes every call raise `StoreError` until it is undone, and nothing is stored meanwhile."""
    store = MemoryStore()
    store.fail("the disk is full")

    for refused in (create(store), store.append("ref", [make_webhook(1)], provider="kie"), listed(store)):
        with pytest.raises(StoreError, match="the disk is full"):
            await refused

    store.fail(None)
    assert None is await store.read("ref")


async def test_a_slow_listener_gets_a_gap() -> None:
    """A listener that falls behind gets one `RESYNC` in place of an unbounded backlog."""
    store = MemoryStore()
    await store.open()
    stream = store.changes()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await create(store, "begin")
    assert Changed("begin", 1) == await first

    for number in range(BURST):
        await store.append(f"ref{number}", [make_entry("handled", 1.0)], provider="kie")
    await create(store, "end")
    await store.aclose()

    assert [RESYNC, Changed("end", 1)] == [change async for change in stream][-2:]


async def test_old_due_times_are_forgotten() -> None:
    """A job that is rescheduled many times takes no more memory."""
    store = MemoryStore()
    await create(store, poll_at=1e9)
    tracemalloc.start()

    for number in range(2_000):
        await store.append("ref", (), provider="kie", index=make_index(poll_at=1e9 + number), known=1)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 50_000 > peak
    assert 1e9 + 1_999 == await store.next_due("polls")


async def test_a_purged_job_leaves_nothing_behind() -> None:
    """A purged job is garbage collected, even if its work would have been due much later."""
    store, entry = MemoryStore(), make_webhook(1)
    holders = sys.getrefcount(entry)
    await create(store)
    closed = make_index(is_open=False, poll_at=1e9, handle_at=1e9)
    await store.append("ref", [entry], provider="kie", index=closed, known=1)
    assert holders < sys.getrefcount(entry)

    assert 1 == await store.purge(before=1e9, deliveries_kept=0)

    gc.collect()
    assert holders == sys.getrefcount(entry)


async def test_a_long_journal_still_knows_a_repeat() -> None:
    """A repeat is recognised in a short and in a long journal."""
    store = MemoryStore()
    for number in range(40):
        for _ in range(2):
            await store.append("ref", [make_webhook(number)], provider="kie")

    assert (40, 40) == ((await held(store)).count, (await held(store)).repeats)


async def test_it_outlives_its_clients() -> None:
    """The data of a memory store remains after it is closed."""
    store = MemoryStore()
    await store.open()
    await create(store)
    await store.aclose()

    assert ["ref"] == await listed(store)
    assert Created() == await create(store, "next")
