"""What every store promises, sentence by sentence, over one and over several connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest

from audioext.record import Record
from audioext.stores.base import RESYNC, Conflict, Delivery, Done, OutboxEntry, Resync, Store, Versioned

Connect = Callable[[], Awaitable[Store]]
Make = Callable[..., Record]

TEXT, FIRST, FAILED = OutboxEntry(topic="text", sequence=20), OutboxEntry(topic="first", sequence=30), OutboxEntry(topic="failed", sequence=35)


async def commit(
    store: Store,
    record: Record,
    version: int,
    *outbox: OutboxEntry,
    is_open: bool = True,
    due_at: float | None = None,
    delivery: Delivery | None = None,
) -> Done | Conflict:
    """Commit with the usual rest."""
    return await store.commit(record, version, is_open=is_open, due_at=due_at, outbox=outbox, delivery=delivery)


def delivery_of(ref: str, number: int, *, received_at: float | None = None) -> Delivery:
    """Return a delivery whose id sorts by its number."""
    return Delivery(
        id=f"{number:08d}",
        ref=ref,
        provider="kie",
        received_at=float(number) if received_at is None else received_at,
        verdict="applied",
        path="/kie/x/***",
        headers={"content-type": "application/json"},
        body=b'{"n": \xff}',
        note="a note",
    )


async def topics(store: Store, *, now: float, lease: float = 10.0, limit: int = 100) -> list[tuple[str, str]]:
    """Claim from the outbox and return what came."""
    return [(lease_.ref, lease_.topic) for lease_ in await store.claim("outbox", now=now, lease=lease, limit=limit)]


async def listed(stream: AsyncIterator[Versioned] | AsyncIterator[Delivery]) -> list[object]:
    """Return all of a stream."""
    return [item async for item in stream]


async def test_what_is_created_is_read_everywhere(connect: Connect, new_record: Make) -> None:
    """A new record has version 1 and is there for every connection at once."""
    one, two = await connect(), await connect()
    record = new_record(meta={"chat": 42, "text": "ключ λ \U0001f3b5"}, key="k")

    created = await one.create(record, "k")

    assert (record, 1, False) == (created.stored.record, created.stored.version, created.existing)
    assert Versioned(record=record, version=1) == await two.get(record.ref)
    assert Versioned(record=record, version=1) == await two.find_key("k")
    assert (None, None) == (await two.get("nobody"), await two.find_key("nothing"))


async def test_a_taken_key_or_ref_returns_what_is_there(store: Store, new_record: Make) -> None:
    """A second create with the same key or the same ref stores nothing and returns the first, as it is now."""
    first, second = new_record(), new_record()
    await store.create(first, "k")
    await commit(store, attrs.evolve(first, model="V5"), 1)

    by_key = await store.create(second, "k")
    by_ref = await store.create(attrs.evolve(second, ref=first.ref))

    assert [(True, 2, "V5")] * 2 == [
        (found.existing, found.stored.version, found.stored.record.model) for found in (by_key, by_ref)
    ]
    assert await store.get(second.ref) is None


async def test_one_key_has_one_winner(connect: Connect, new_record: Make) -> None:
    """Concurrent creates with one key over two connections make one record."""
    stores = [await connect(), await connect()]

    created = await asyncio.gather(*(stores[n % 2].create(new_record(), "k") for n in range(20)))

    assert 1 == len({found.stored.record.ref for found in created})
    assert 1 == len([found for found in created if not found.existing])


async def test_a_commit_counts_versions(store: Store, new_record: Make) -> None:
    """A commit that names the current version replaces the record and tells the next version."""
    record = new_record()
    await store.create(record)
    changed = attrs.evolve(record, model="V5")

    assert Done(version=2) == await commit(store, changed, 1)
    assert Versioned(record=changed, version=2) == await store.get(record.ref)


async def test_a_conflict_stores_nothing_at_all(store: Store, new_record: Make) -> None:
    """A stale commit tells the current record and leaves no trace in record, outbox, polls or journal."""
    record = new_record()
    await store.create(record)
    await commit(store, attrs.evolve(record, model="V5"), 1)

    outcome = await commit(
        store, attrs.evolve(record, model="V4"), 1, TEXT, due_at=1.0, delivery=delivery_of(record.ref, 1)
    )

    assert isinstance(outcome, Conflict)
    assert outcome.current is not None
    assert ("V5", 2) == (outcome.current.record.model, outcome.current.version)
    assert ([], None, []) == (
        await topics(store, now=9.0),
        await store.next_due("poll"),
        await listed(store.deliveries()),
    )
    assert Conflict(current=None) == await commit(store, new_record(), 1)


async def test_concurrent_writers_lose_nothing(connect: Connect, new_record: Make) -> None:
    """Two hundred compare-and-swap loops over three connections keep all two hundred words."""
    stores = [await connect() for _ in range(3)]
    record = new_record()
    await stores[0].create(record)

    async def add(store: Store, word: str) -> None:
        stored = await store.get(record.ref)
        while stored is not None:
            after = attrs.evolve(stored.record, words=(*stored.record.words, word))
            outcome = await commit(store, after, stored.version)
            if isinstance(outcome, Done):
                return
            stored = outcome.current

    await asyncio.gather(*(add(stores[n % 3], str(n)) for n in range(200)))

    stored = await stores[0].get(record.ref)
    assert stored is not None
    assert ({str(n) for n in range(200)}, 201) == (set(stored.record.words), stored.version)


async def test_a_discarded_record_never_was(store: Store, new_record: Make) -> None:
    """Discarding frees the ref, the key and the outbox; a stale discard changes nothing."""
    record = new_record()
    await store.create(record, "k", due_at=1.0)
    await commit(store, record, 1, TEXT, due_at=1.0)

    assert [False, True, False] == [await store.discard(record.ref, version) for version in (1, 2, 2)]
    assert (None, None, []) == (await store.get(record.ref), await store.find_key("k"), await topics(store, now=9.0))
    assert (None, None) == (await store.next_due("poll"), await store.next_due("outbox"))
    assert not (await store.create(new_record(), "k")).existing


async def test_a_record_is_found_by_its_task(store: Store, new_record: Make) -> None:
    """A task id is findable at its own provider once a commit holds it, and its last word counts."""
    record = new_record()
    await store.create(record)
    await commit(store, attrs.evolve(record, called_id="t1"), 1)
    await commit(store, attrs.evolve(record, called_id="t1", answered_id="t2"), 2)

    found = await store.find("kie", "t2")
    assert found is not None
    assert record.ref == found.record.ref
    assert [None, None] == [await store.find("kie", "t1"), await store.find("vidgo", "t2")]


async def test_a_scan_is_in_the_order_of_creation(store: Store, new_record: Make) -> None:
    """All, open or closed records come in order; what is created meanwhile does no harm."""
    records = [new_record() for _ in range(30)]
    for record in records:
        await store.create(record)
    for record in records[::2]:
        await commit(store, record, 1, is_open=False)

    seen = []
    async for stored in store.scan():
        seen.append(stored.record.ref)
        if len(seen) == 3:
            await store.create(new_record())

    refs = [record.ref for record in records]
    assert refs == seen[:30]
    assert refs[1::2] == [s.record.ref async for s in store.scan(is_open=True)][:15]
    assert refs[::2] == [s.record.ref async for s in store.scan(is_open=False)]


async def test_polls_are_claimed_when_due_the_most_overdue_first(store: Store, new_record: Make) -> None:
    """Only due, open records of the asked providers are claimed, oldest due time first, up to the limit."""
    records = [new_record(provider="vidgo" if n == 3 else "kie") for n in range(5)]
    for record, due_at in zip(records, (3.0, 1.0, 2.0, 0.5, None), strict=True):
        await store.create(record, due_at=due_at)

    assert 0.5 == await store.next_due("poll")
    claimed = await store.claim("poll", now=2.0, lease=10.0, limit=5, providers=["kie"])
    more = await store.claim("poll", now=4.0, lease=10.0, limit=1)

    assert [records[1].ref, records[2].ref] == [lease.ref for lease in claimed]
    assert [("poll", 0, 1, 12.0)] * 2 == [(lease.topic, lease.sequence, lease.attempts, lease.until) for lease in claimed]
    assert [records[3].ref] == [lease.ref for lease in more]


async def test_a_lease_has_one_holder_until_it_runs_out(connect: Connect, new_record: Make) -> None:
    """Nobody else claims leased work; after it ran out another does, and the first cannot settle it."""
    one, two = await connect(), await connect()
    await one.create(new_record(), due_at=1.0)
    (first,) = await one.claim("poll", now=1.0, lease=10.0, limit=5)

    assert () == await two.claim("poll", now=10.9, lease=10.0, limit=5)
    assert 11.0 == await two.next_due("poll")
    (second,) = await two.claim("poll", now=11.0, lease=10.0, limit=5)

    assert (2, True) == (second.attempts, first.token != second.token)
    assert [False, True, False] == [
        await one.settle(first, due_at=None),
        await two.settle(second, due_at=30.0),
        await two.settle(second, due_at=None),
    ]
    assert 30.0 == await one.next_due("poll")


async def test_concurrent_claims_never_share(connect: Connect, new_record: Make) -> None:
    """Claims from several connections at once hand out each piece of work once."""
    stores = [await connect() for _ in range(3)]
    for _ in range(60):
        await stores[0].create(new_record(), due_at=1.0)

    claims = await asyncio.gather(*(stores[n % 3].claim("poll", now=2.0, lease=9.0, limit=7) for n in range(12)))

    refs = [lease.ref for claim in claims for lease in claim]
    assert (60, 60) == (len(refs), len(set(refs)))


async def test_a_commit_resets_the_poll(store: Store, new_record: Make) -> None:
    """A commit's due time replaces the old one and ends the lease; None and closing take the poll off."""
    record = new_record()
    await store.create(record, due_at=1.0)
    (lease,) = await store.claim("poll", now=1.0, lease=10.0, limit=5)
    await commit(store, record, 1, due_at=5.0)

    assert (5.0, False) == (await store.next_due("poll"), await store.settle(lease, due_at=None))
    await commit(store, record, 2, due_at=None)
    assert await store.next_due("poll") is None
    await commit(store, record, 3, is_open=False, due_at=7.0)
    assert () == await store.claim("poll", now=9.0, lease=10.0, limit=5)


async def test_the_outbox_keeps_the_order_of_each_job(store: Store, new_record: Make) -> None:
    """Of each job only the first entry that is not settled can be claimed; other jobs do not wait."""
    one, two = new_record(), new_record()
    for record in (one, two):
        await store.create(record)
    await commit(store, one, 1, TEXT, FIRST)
    await commit(store, two, 1, FIRST)

    leases = await store.claim("outbox", now=1.0, lease=10.0, limit=9)
    assert {(one.ref, "text", 20, 1), (two.ref, "first", 30, 1)} == {
        (lease.ref, lease.topic, lease.sequence, lease.attempts) for lease in leases
    }
    assert [] == await topics(store, now=2.0)
    (text,) = [lease for lease in leases if lease.ref == one.ref]
    assert await store.settle(text, due_at=None)
    assert [(one.ref, "first")] == await topics(store, now=3.0)


async def test_an_entry_is_told_once(store: Store, new_record: Make) -> None:
    """An entry that waits or was settled is not appended again."""
    record = new_record()
    await store.create(record)
    await commit(store, record, 1, TEXT)
    await commit(store, record, 2, TEXT)
    (lease,) = await store.claim("outbox", now=1.0, lease=10.0, limit=9)
    await store.settle(lease, due_at=None)
    await commit(store, record, 3, TEXT, FIRST)

    assert [(record.ref, "first")] == await topics(store, now=2.0)


async def test_an_entry_put_off_comes_again_with_one_more_attempt(store: Store, new_record: Make) -> None:
    """Settling with a time puts an entry off; later entries of the job wait behind it."""
    record = new_record()
    await store.create(record)
    await commit(store, record, 1, TEXT, FIRST)
    (lease,) = await store.claim("outbox", now=1.0, lease=10.0, limit=9)
    await store.settle(lease, due_at=5.0)

    assert ([], 5.0) == (await topics(store, now=4.0), await store.next_due("outbox"))
    (again,) = await store.claim("outbox", now=5.0, lease=10.0, limit=9)
    assert ("text", 2) == (again.topic, again.attempts)


async def test_the_journal_is_newest_first(store: Store, new_record: Make) -> None:
    """Deliveries of a commit and of no job are kept as they came, newest first, by ref and by id."""
    record = new_record()
    await store.create(record)
    applied, orphan = delivery_of(record.ref, 1), delivery_of("orphan", 2)
    await commit(store, record, 1, delivery=applied)
    await store.journal(orphan)

    assert [orphan, applied] == await listed(store.deliveries())
    assert [applied] == await listed(store.deliveries(record.ref))
    assert (orphan, None) == (await store.delivery(orphan.id), await store.delivery("nothing"))


async def test_two_first_starts_agree_on_one_value(connect: Connect) -> None:
    """Concurrent `create_if_absent` calls over two connections return one value to all."""
    stores = [await connect(), await connect()]

    values = await asyncio.gather(*(stores[n % 2].create_if_absent("s", bytes([n])) for n in range(10)))

    assert 1 == len(set(values))
    assert values[0] == await stores[0].create_if_absent("s", b"late")


async def test_changes_tell_every_commit_of_every_connection(connect: Connect, new_record: Make) -> None:
    """A listener hears of its own and of other connections' commits, or is told to look at everything."""
    one, two = await connect(), await connect()
    heard: set[str | Resync] = set()
    listening, enough = asyncio.Event(), asyncio.Event()
    mine, other = new_record(), new_record()

    async def listen() -> None:
        stream = one.changes()
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        listening.set()
        while True:
            heard.add(await step)
            if RESYNC in heard or {mine.ref, other.ref} <= heard:
                enough.set()
            step = asyncio.ensure_future(anext(stream))

    listener = asyncio.create_task(listen())
    await listening.wait()
    await one.create(mine)
    await two.create(other)
    async with asyncio.timeout(10):
        await enough.wait()
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)


async def test_changes_end_when_the_store_is_closed(connect: Connect) -> None:
    """The stream ends instead of hanging when its store is closed."""
    store = await connect()
    listener = asyncio.ensure_future(anext(store.changes(), None))
    await asyncio.sleep(0)

    await store.aclose()

    async with asyncio.timeout(10):
        assert await listener is None


async def test_purge_forgets_what_is_old_and_over(store: Store, new_record: Make) -> None:
    """Closed old records go with their keys and tasks; open ones stay; the journal is bounded in age and length."""
    old, kept_open, young = new_record(), new_record(), new_record(created_at=100.0)
    for number, record in enumerate((old, kept_open, young)):
        await store.create(record, f"k{number}")
        await commit(
            store, attrs.evolve(record, answered_id=f"t{number}"), 1, TEXT, is_open=record is kept_open
        )
    for number in range(1, 8):
        await store.journal(delivery_of("x", number))

    gone = await store.purge(created_before=50.0, deliveries_before=3.0, deliveries_kept=2)

    assert 1 == gone
    assert [None, None, None] == [await store.get(old.ref), await store.find_key("k0"), await store.find("kie", "t0")]
    assert [kept_open.ref, young.ref] == [stored.record.ref async for stored in store.scan()]
    assert ["00000007", "00000006"] == [delivery.id async for delivery in store.deliveries()]
    assert {(kept_open.ref, "text"), (young.ref, "text")} == set(await topics(store, now=1e9))


async def test_opening_and_closing_again_is_harmless(connect: Connect, new_record: Make) -> None:
    """A second open and a second close do nothing."""
    store = await connect()
    await store.open()
    record = new_record()
    await store.create(record)
    other = await connect()

    await store.aclose()
    await store.aclose()

    assert await other.get(record.ref) is not None


@pytest.mark.parametrize("closed", [True, False])
async def test_a_settled_poll_is_off_until_the_next_commit(store: Store, new_record: Make, *, closed: bool) -> None:
    """Settling a poll for good leaves the record as it is, whether it is open or not."""
    record = new_record()
    await store.create(record, due_at=1.0)
    (lease,) = await store.claim("poll", now=1.0, lease=10.0, limit=1)

    assert await store.settle(lease, due_at=None)
    assert await store.next_due("poll") is None
    await commit(store, record, 1, is_open=not closed, due_at=2.0)
    assert (None if closed else 2.0) == await store.next_due("poll")
