"""Every sentence of the `Store` protocol about changes, opening and closing, for every store."""

from __future__ import annotations

import asyncio

import pytest

from audioext.errors import StoreError
from audioext.models.entries import make_entry
from audioext.stores import MemoryStore
from audioext.stores.base import RESYNC, Created, Store
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import Connect, Listener, create, held, listed, make_index, make_webhook


async def test_changes_show_own_appends_and_those_of_others(store: Store, other: Store, listen: Listen) -> None:
    """Every create and append is yielded to every listener, whichever connection made it."""
    listeners = [await listen(store), await listen(store), await listen(other)]

    await create(store, "created")
    await other.append("orphan", [make_webhook(1)], provider="kie")
    for listener in listeners:
        await listener.until_heard("created", "orphan")
        listener.heard.clear()
    await store.append("created", [make_webhook(1)], provider="kie", index=make_index("created"), known=1)
    await other.append("orphan", [make_entry("handled", 1.0)], provider="kie")

    for listener in listeners:
        await listener.until_heard("created", "orphan")


async def test_a_change_says_how_long_the_journal_is(store: Store, other: Store, listen: Listen) -> None:
    """A change has the current count of its journal, so that a reader that has seen as many can skip it."""
    listener = await listen(store)

    await create(store)
    for number, connection in enumerate((store, other, store, other)):
        await connection.append("ref", [make_webhook(number)], provider="kie")

    await listener.until(lambda listener: RESYNC in listener.heard or listener.counts.get("ref") == 5)


async def test_an_append_without_an_entry_is_not_a_change(store: Store, listen: Listen) -> None:
    """An index alone, a repeat and a claim are not yielded as changes."""
    listener = await listen(store)
    await create(store, "quiet", poll_at=1.0)
    await store.append("quiet", [make_webhook(1)], provider="kie", known=1)
    await listener.until(lambda listener: listener.counts.get("quiet") == 2)  # later it could not be told apart
    listener.heard.clear()

    await create(store, "quiet")
    await store.append("quiet", [make_webhook(1)], provider="kie", index=make_index("quiet", poll_at=1.0), known=2)
    await store.append("quiet", (), provider="kie", index=make_index("quiet", poll_at=1.0), known=2)
    await store.claim("polls", now=5.0, until=9.0, limit=5)
    await create(store, "last")

    await listener.until_heard("last")
    assert "quiet" not in listener.counts


async def test_every_change_of_a_burst_is_yielded(connect: Connect, listen: Listen) -> None:
    """A burst from several connections is yielded completely, or with a resync."""
    stores = [await connect() for _ in range(3)]
    listener = await listen(stores[0])

    await asyncio.gather(*(create(stores[n % 3], f"ref{n}") for n in range(300)))

    await listener.until_heard(*(f"ref{n}" for n in range(300)))


async def test_a_change_can_be_read_when_it_is_yielded(store: Store, other: Store, listen: Listen) -> None:
    """A change can be read from the store when it is yielded."""
    listener = await listen(other)
    await create(store)
    await listener.until_heard("ref")

    assert 1 == (await held(other)).count


async def test_changes_end_when_the_store_is_closed(store: Store, listen: Listen) -> None:
    """The stream of changes ends when the store is closed."""
    listener = await listen(store)

    await store.aclose()

    await listener.until(lambda listener: listener.has_ended)


# --- open and close -----------------------------------------------------------------------------------------


async def test_the_last_user_closes_the_store(store: Store, listen: Listen) -> None:
    """Each `open` needs one `aclose`; until the last one, the store works and its changes go on."""
    await store.open()
    listener = await listen(store)

    await store.aclose()

    assert Created() == await create(store)
    await listener.until_heard("ref")
    assert not listener.has_ended


async def test_two_users_may_open_it_at_once(connect: Connect) -> None:
    """A store that two users opened at the same time works until both have closed it."""
    store = await connect()
    await store.aclose()

    await asyncio.gather(store.open(), store.open())
    await store.aclose()

    assert Created() == await create(store)


async def test_closing_again_is_harmless(store: Store) -> None:
    """One `aclose` too many does nothing."""
    await store.aclose()
    await store.aclose()


async def test_a_store_can_be_opened_again(store: Store, listen: Listen) -> None:
    """A store that is closed and opened again has its jobs, and its changes are yielded."""
    await create(store, "before")
    await store.aclose()
    await store.open()

    listener = await listen(store)
    await create(store, "after")

    assert ["before", "after"] == await listed(store)
    await listener.until_heard("after")


async def test_closing_waits_for_earlier_appends(connect: Connect) -> None:
    """`aclose` waits for the appends that were made before it."""
    store, other = await connect(), await connect()
    appends = [asyncio.create_task(create(store, f"ref{n}")) for n in range(50)]
    await asyncio.sleep(0)

    await store.aclose()

    assert [Created()] * 50 == await asyncio.gather(*appends)
    assert 50 == len(await listed(other))


async def test_a_closed_store_raises_store_error(store: Store) -> None:
    """A closed store raises `StoreError`, except for the memory store."""
    await store.aclose()
    if isinstance(store, MemoryStore):
        return

    with pytest.raises(StoreError, match="not open"):
        await store.read("ref")


async def test_a_listener_that_stops_is_forgotten(store: Store, listen: Listen) -> None:
    """A listener that stops does not disturb the others."""
    first, second = Listener(store), await listen(store)
    task = asyncio.create_task(first.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    await create(store)

    await second.until_heard("ref")
    assert {} == first.counts  # a store may have yielded `RESYNC` at the first step
