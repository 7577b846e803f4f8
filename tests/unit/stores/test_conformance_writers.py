"""Concurrent writers lose nothing, and values survive a round trip, for every store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from audioext.models.entries import Entry, Index, make_entry
from audioext.stores.base import Store, Stored
from tests.unit.stores.journals import (
    LOOK_AT,
    UNLIMITED,
    Connect,
    create,
    held,
    make_index,
    make_request,
    make_webhook,
)

SHARED_ENGINE = settings(max_examples=settings().max_examples // 2)
"""All examples share one engine on purpose, since they must not disturb each other."""
numbers = itertools.count()


def ids(*entries: Entry) -> set[str]:
    """Return the ids of *entries*."""
    return {entry.id for entry in entries}


# --- many writers -------------------------------------------------------------------------------------------


async def test_concurrent_appends_lose_nothing(connect: Connect) -> None:
    """100 concurrent appends to one journal, over several connections, are all stored once."""
    stores = [await connect() for _ in range(4)]
    await create(stores[0])

    outcomes = await asyncio.gather(
        *(stores[n % 4].append("ref", [make_webhook(n // 2)], provider="kie") for n in range(100))
    )

    found = await held(stores[0])
    assert ids(make_request(), *map(make_webhook, range(50))) == ids(*found.entries)
    assert (51, 50) == (found.count, found.repeats)
    assert set(range(2, 52)) == {outcome.count for outcome in outcomes}


async def test_a_cancelled_append_disturbs_no_other(store: Store) -> None:
    """Cancelling some appends does not affect the others, and each cancelled one is stored or not."""
    await create(store)
    tasks = [asyncio.create_task(store.append("ref", [make_webhook(n)], provider="kie")) for n in range(20)]
    await asyncio.sleep(0)

    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    found = await held(store)
    assert ids(*map(make_webhook, range(1, 20, 2))) <= ids(*found.entries)
    assert len(found.entries) == len(ids(*found.entries)) == found.count


class Writer:
    """Appends to one journal over its own connection, and checks each answer against what it knows."""

    def __init__(self, store: Store, ref: str) -> None:
        """Begin without any known entry."""
        self.store = store
        self.ref = ref
        self.known: list[Entry] = []

    async def write(self, entries: Sequence[Entry], *, is_stale: bool, has_index: bool) -> None:
        """Append *entries*, as a writer that knows all earlier answers or none, and check the answer."""
        before = [] if is_stale else self.known
        seen = {entry.id: entry for entry in before}
        new = [entry for entry in {entry.id: entry for entry in reversed(entries)}.values() if entry.id not in seen]
        folded = len(before) + len(new)  # the index is derived from this
        index = make_index(self.ref, occupies_until=float(folded)) if has_index else None
        done = await self.store.append(
            self.ref, entries, provider="kie", index=index, known=len(before), look_at=LOOK_AT
        )
        missed = [entry for entry in done.missed if entry.id not in seen]
        there = {entry.id for entry in done.missed}
        appended = [entry for entry in {entry.id: entry for entry in entries}.values() if entry.id not in there]
        assert not done.is_lost
        assert done.is_taken == (has_index and not missed and len(before) > 0)
        self.known = [*before, *missed, *(entry for entry in appended if entry.id not in seen)]
        assert done.count == len(self.known)


steps = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), max_size=3), st.booleans(), st.booleans()), max_size=24
)


@SHARED_ENGINE
@given(steps=steps)
async def test_any_interleaving_keeps_every_entry_once(
    connect: Connect, steps: list[tuple[int, list[int], bool, bool]]
) -> None:
    """Writers with fresh or stale knowledge lose no entry, agree in the end, and leave a right index."""
    ref = f"ref{next(numbers)}"
    writers = [Writer(await connect(), ref) for _ in range(3)]
    await create(writers[0].store, ref)

    async def run(number: int) -> None:
        for who, what, is_stale, has_index in steps:
            if who == number:
                hooks = [make_webhook(n) for n in what]
                await writers[number].write(hooks, is_stale=is_stale, has_index=has_index)

    await asyncio.gather(*map(run, range(3)))

    found = await held(writers[0].store, ref)
    sent = ids(*(make_webhook(n) for _, what, _, _ in steps for n in what))
    assert sent | ids(make_request(ref)) == ids(*found.entries)
    assert len(found.entries) == found.count == 1 + len(sent)
    is_right = found.index.occupies_until == float(found.count)
    assert is_right or (found.index.poll_at, found.index.handle_at) == (LOOK_AT, LOOK_AT) or found.count == 1
    for writer in writers:
        await writer.write((), is_stale=False, has_index=False)
        assert list(found.entries) == writer.known


# --- round trips --------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
times = st.floats(min_value=0, max_value=4e9)
entries = st.builds(
    make_entry,
    st.sampled_from(["answer", "webhook", "status", "handled", "expired", "abandoned"]),
    times,
    status=st.integers(0, 999),
    headers=st.dictionaries(texts, texts, max_size=3),
    body=st.binary(max_size=64),
    note=texts,
)
indexes = st.builds(
    make_index,
    account=texts,
    provider=texts,
    created_at=times,
    answered_at=st.none() | times,
    is_open=st.booleans(),
    occupies_until=times,
    poll_at=st.none() | times,
    handle_at=st.none() | times,
)


@SHARED_ENGINE
@given(journal=st.lists(entries, unique_by=lambda entry: entry.id), index=indexes, words=st.tuples(texts, texts, texts))
async def test_what_is_stored_is_what_is_read(
    connect: Connect, journal: list[Entry], index: Index, words: tuple[str, str, str]
) -> None:
    """Any entry and index reads back as the same value, by ref, key and task id."""
    store = await connect()
    number = next(numbers)
    ref, key, task_id = (f"{number} {word}" for word in words)
    index = msgspec.structs.replace(index, ref=ref, key=key, task_id=task_id)
    await store.create(make_request(ref), index, limits=UNLIMITED, now=1.0)

    await store.append(ref, journal, provider=index.provider, index=index, known=1)

    assert Stored(index=index, count=1 + len(journal), entries=(make_request(ref), *journal)) == await store.read(ref)
    assert [ref, ref] == [await store.find(key=key), await store.find(provider=index.provider, task_id=task_id)]
