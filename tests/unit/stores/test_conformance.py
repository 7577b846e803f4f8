"""Every sentence of the store protocol, for every store, over several connections to one engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audioext.models.record import Record
from audioext.stores.base import (
    Conflict,
    Created,
    Delivery,
    Done,
    Kind,
    Lease,
    OutboxEntry,
    Resync,
    Store,
    Versioned,
)

if TYPE_CHECKING:
    from tests.unit.stores.conftest import Advance, Connect, Listen, MakeRecord

WAVE = 20
"""Records that are created at once."""
IDENTITY = settings(
    max_examples=15,
    deadline=None,
    # one engine for all examples is the point: they must not disturb each other
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def delivery(number: int, ref: str = "ref", **fields: object) -> Delivery:
    """Return a delivery whose id and time follow from *number*."""
    plain = Delivery(id=f"d{number:06}", ref=ref, provider="kie", received_at=float(number), verdict="applied")
    return attrs.evolve(plain, **fields)  # type: ignore[arg-type]  # a test's own fields


async def journaled(store: Store, ref: str | None = None) -> list[str]:
    """Return the ids of the journal as it is read."""
    return [found.id async for found in store.deliveries(ref)]


async def scanned(store: Store, *, is_open: bool | None = None) -> list[str]:
    """Return the refs of a scan."""
    return [found.record.ref async for found in store.scan(is_open=is_open)]


async def claim_one(store: Store, *, now: float = 1000.0, lease: float = 60.0) -> Lease:
    """Return the one entry of the outbox that can be claimed."""
    (found,) = await store.claim("outbox", now=now, lease=lease, limit=10)
    return found


# --- create and read ----------------------------------------------------------------------------------------


async def test_a_created_record_is_read_from_any_connection(
    store: Store, other: Store, make_record: MakeRecord
) -> None:
    """`create` stores the record at version 1, and every connection reads it."""
    record = make_record()

    created = await store.create(record)

    assert Created(stored=Versioned(record=record, version=1), existing=False) == created
    assert created.stored == await store.get("ref") == await other.get("ref")


async def test_what_is_not_there_is_none(store: Store) -> None:
    """A ref, key, task id or delivery that nobody stored is `None`."""
    assert [None] * 4 == [
        await store.get("ref"),
        await store.find_key("key"),
        await store.find("kie", "task"),
        await store.delivery("d"),
    ]


async def test_a_key_is_given_once(store: Store, other: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A second `create` with the same key returns the first record as it is now, and stores nothing."""
    first = await store.create(make_record("first"), "key")
    now = await advance(store, first)

    second = await other.create(make_record("second"), "key")

    assert Created(stored=now, existing=True) == second
    assert None is await store.get("second")
    assert now == await store.find_key("key") == await other.find_key("key")


async def test_a_ref_is_created_once(store: Store, make_record: MakeRecord) -> None:
    """A second `create` of the same ref returns the record that is there, with or without another key."""
    first = await store.create(make_record())

    again = await store.create(make_record(created_at=7.0), "key", due_at=1.0)

    assert Created(stored=first.stored, existing=True) == again
    assert None is await store.find_key("key")
    assert None is await store.next_due("poll")


async def test_of_many_creates_with_one_key_one_wins(connect: Connect, make_record: MakeRecord) -> None:
    """Concurrent creates with one key, over several connections, agree on one record."""
    stores = [await connect() for _ in range(4)]

    outcomes = await asyncio.gather(
        *(stores[number % 4].create(make_record(f"ref{number}"), "key") for number in range(40))
    )

    assert 1 == sum(not outcome.existing for outcome in outcomes)
    assert 1 == len({outcome.stored.record.ref for outcome in outcomes})


# --- commit -------------------------------------------------------------------------------------------------


async def test_a_commit_replaces_the_record(store: Store, other: Store, make_record: MakeRecord) -> None:
    """A commit that names the version in the store replaces the record and counts its version up."""
    await store.create(make_record())
    changed = make_record(stage=None, credits=5.0)

    outcome = await other.commit(changed, 1, is_open=True, due_at=None)

    assert Done(version=2) == outcome
    assert Versioned(record=changed, version=2) == await store.get("ref")


async def test_a_conflict_stores_nothing(store: Store, other: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A commit with an old version returns what is current; its outbox, journal and due time are not stored."""
    created = await store.create(make_record())
    current = await advance(other, created, due_at=50.0)

    outcome = await store.commit(
        make_record(answered_id="task"),
        1,
        is_open=False,
        due_at=10.0,
        outbox=[OutboxEntry(topic="text", sequence=1)],
        delivery=delivery(1),
    )

    assert Conflict(current=current) == outcome
    assert current == await store.get("ref")
    assert [] == await journaled(store)
    assert None is await store.find("kie", "task")
    assert (None, 50.0) == (await store.next_due("outbox"), await store.next_due("poll"))
    assert ["ref"] == await scanned(store, is_open=True)


async def test_a_commit_of_a_record_that_is_gone_conflicts(store: Store, make_record: MakeRecord) -> None:
    """A commit to a ref that the store does not hold is a conflict with nothing."""
    outcome = await store.commit(make_record(), 1, is_open=True, due_at=None, delivery=delivery(1))

    assert Conflict(current=None) == outcome
    assert [] == await journaled(store)


async def test_a_conflict_fails_its_own_item_alone(store: Store, make_record: MakeRecord) -> None:
    """Of commits that are made at once, those with an old version conflict and the others are stored."""
    for number in range(20):
        await store.create(make_record(f"ref{number}"))

    outcomes = await asyncio.gather(
        *(store.commit(make_record(f"ref{number}"), 1 + number % 2, is_open=True, due_at=None) for number in range(20))
    )

    assert [Done, Conflict] * 10 == [type(outcome) for outcome in outcomes]


async def test_concurrent_writers_lose_nothing(connect: Connect, make_record: MakeRecord) -> None:
    """100 concurrent compare-and-swap loops on one record, over several connections, all leave their mark."""
    asyncio.get_running_loop().set_debug(False)  # it takes near 5,000 tries, which debug mode makes slow
    stores = [await connect() for _ in range(4)]
    await stores[0].create(make_record())

    async def mark(store: Store, word: str) -> None:
        current = await store.get("ref")
        while current is not None:
            changed = attrs.evolve(current.record, words=(*current.record.words, word))
            outcome = await store.commit(changed, current.version, is_open=True, due_at=None)
            if isinstance(outcome, Done):
                return
            current = outcome.current

    await asyncio.gather(*(mark(stores[number % 4], f"w{number}") for number in range(100)))

    final = await stores[0].get("ref")
    assert final is not None
    assert {f"w{number}" for number in range(100)} == set(final.record.words)
    assert 101 == final.version


async def test_commits_of_one_connection_follow_each_other(store: Store, make_record: MakeRecord) -> None:
    """Commits that one task makes one after the other on many refs at once each see their own version."""

    async def climb(ref: str) -> int:
        version = (await store.create(make_record(ref))).stored.version
        for _ in range(10):
            done = await store.commit(make_record(ref), version, is_open=True, due_at=None)
            assert isinstance(done, Done)
            version = done.version
        return version

    assert [11] * 30 == await asyncio.gather(*(climb(f"ref{number}") for number in range(30)))


async def test_a_cancelled_commit_disturbs_no_other(store: Store, make_record: MakeRecord) -> None:
    """Cancelling callers inside `commit` leaves the others whole; theirs happened or did not."""
    for number in range(20):
        await store.create(make_record(f"ref{number}"))
    tasks = [
        asyncio.create_task(store.commit(make_record(f"ref{number}"), 1, is_open=True, due_at=None))
        for number in range(20)
    ]
    await asyncio.sleep(0)

    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [Done(version=2)] * 10 == outcomes[1::2]
    versions = [found.version async for found in store.scan()]
    assert {1, 2} >= set(versions)
    assert [2] * 10 == versions[1::2]


# --- task ids -----------------------------------------------------------------------------------------------


async def test_a_task_id_is_found_once_it_is_known(
    store: Store, other: Store, make_record: MakeRecord, advance: Advance
) -> None:
    """`find` knows the task id of the record as it is now, of that provider alone."""
    stored = await advance(store, await store.create(make_record()), record=make_record(called_id="early"))
    assert stored == await other.find("kie", "early")

    stored = await advance(store, stored, record=make_record(called_id="early", answered_id="task"))

    assert stored == await other.find("kie", "task")
    assert None is await other.find("kie", "early")
    assert None is await other.find("vidgo", "task")


async def test_a_task_id_is_found_from_create_on(store: Store, make_record: MakeRecord) -> None:
    """A record that is created with a task id is found by it."""
    created = await store.create(make_record(answered_id="task"))

    assert created.stored == await store.find("kie", "task")


async def test_two_records_may_show_one_task_id(store: Store, make_record: MakeRecord) -> None:
    """A provider's slip is no error: one of the two is found, and the other when that one is gone."""
    for ref in ("one", "two"):
        await store.create(make_record(ref, answered_id="task"))

    found = await store.find("kie", "task")
    assert found is not None
    await store.discard(found.record.ref, 1)

    left = await store.find("kie", "task")
    assert left is not None
    assert {"one", "two"} == {found.record.ref, left.record.ref}


# --- outbox -------------------------------------------------------------------------------------------------


async def test_entries_of_a_ref_come_one_by_one_in_order(
    store: Store, other: Store, make_record: MakeRecord, advance: Advance
) -> None:
    """Of each ref only the entry with the lowest sequence that is not settled can be claimed."""
    await advance(store, await store.create(make_record()), "text", "first", "complete")
    told = []

    for _ in range(3):
        lease = await claim_one(store)
        assert () == await other.claim("outbox", now=1000.0, lease=60.0, limit=10)
        told.append((lease.ref, lease.topic, lease.sequence, lease.attempts, lease.until))
        assert await other.settle(lease, due_at=None)

    assert [
        ("ref", "text", 1, 1, 1060.0),
        ("ref", "first", 2, 1, 1060.0),
        ("ref", "complete", 3, 1, 1060.0),
    ] == told
    assert None is await store.next_due("outbox")


async def test_the_order_is_that_of_the_sequence(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A lower sequence that is appended later comes first."""
    stored = await advance(store, await store.create(make_record()), outbox=[OutboxEntry(topic="complete", sequence=9)])
    await advance(
        store, stored, outbox=[OutboxEntry(topic="text", sequence=10), OutboxEntry(topic="first", sequence=2)]
    )
    told = []

    for _ in range(3):
        lease = await claim_one(store)
        told.append(lease.topic)
        await store.settle(lease, due_at=None)

    assert ["first", "complete", "text"] == told


async def test_one_entry_of_a_ref_is_held_at_a_time(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """While a later entry is held, a lower one that is appended waits for its end, and then comes first."""
    stored = await advance(store, await store.create(make_record()), outbox=[OutboxEntry(topic="complete", sequence=9)])
    held = await claim_one(store)
    await advance(store, stored, outbox=[OutboxEntry(topic="text", sequence=1)])
    assert () == await store.claim("outbox", now=1000.0, lease=60.0, limit=10)

    assert await store.settle(held, due_at=1000.0)

    lease = await claim_one(store)
    assert ("text", 1) == (lease.topic, lease.attempts)
    await store.settle(lease, due_at=None)
    lease = await claim_one(store)
    assert ("complete", 2) == (lease.topic, lease.attempts)


async def test_an_entry_is_appended_once(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """(ref, topic) is unique: an entry that waits, is held or was settled is not appended again."""
    stored = await advance(store, await store.create(make_record()), "text")
    stored = await advance(store, stored, "text")
    lease = await claim_one(store)
    stored = await advance(store, stored, "text")
    assert () == await store.claim("outbox", now=1000.0, lease=60.0, limit=10)
    assert await store.settle(lease, due_at=None)

    await advance(store, stored, "text", outbox=[OutboxEntry(topic="text", sequence=5)])

    assert () == await store.claim("outbox", now=9999.0, lease=60.0, limit=10)
    assert None is await store.next_due("outbox")


async def test_refs_do_not_wait_for_each_other(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """The entries of different refs are claimed together, up to the limit."""
    for number in range(5):
        await advance(store, await store.create(make_record(f"ref{number}")), "text", "first")

    first = await store.claim("outbox", now=0.0, lease=60.0, limit=3)
    second = await store.claim("outbox", now=0.0, lease=60.0, limit=3)

    assert (3, 2) == (len(first), len(second))
    assert {f"ref{number}" for number in range(5)} == {lease.ref for lease in (*first, *second)}


async def test_an_entry_can_be_put_off(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """An entry settled with a time is due again then, with one more attempt, and the next ones wait for it."""
    await advance(store, await store.create(make_record()), "text", "first")
    lease = await claim_one(store)

    assert await store.settle(lease, due_at=2000.0)

    assert 2000.0 == await store.next_due("outbox")
    assert () == await store.claim("outbox", now=1999.0, lease=60.0, limit=10)
    lease = await claim_one(store, now=2000.0)
    assert ("text", 2) == (lease.topic, lease.attempts)


async def test_the_outbox_outlives_the_end_of_the_job(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A closed record's entries are told all the same."""
    await advance(store, await store.create(make_record()), "complete", is_open=False)

    assert "complete" == (await claim_one(store)).topic


# --- leases -------------------------------------------------------------------------------------------------


async def test_of_many_claimers_one_gets_each_piece(connect: Connect, make_record: MakeRecord) -> None:
    """Concurrent claims over several connections hand out each piece of work once."""
    stores = [await connect() for _ in range(4)]
    for number in range(50):
        await stores[0].create(make_record(f"ref{number}"), due_at=float(number))

    claims = await asyncio.gather(
        *(stores[number % 4].claim("poll", now=100.0, lease=60.0, limit=7) for number in range(12))
    )

    refs = [lease.ref for found in claims for lease in found]
    assert (50, 50) == (len(refs), len(set(refs)))


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("kind", ["poll", "outbox"])
async def test_a_cancelled_claim_holds_nothing(
    store: Store, make_record: MakeRecord, advance: Advance, kind: Kind, turns: int
) -> None:
    """What was claimed for a caller that was cancelled can be claimed by the next one, as if for the first time."""
    for number in range(5):
        await advance(store, await store.create(make_record(f"ref{number}")), "text", due_at=1.0)
    task = asyncio.create_task(store.claim(kind, now=9.0, lease=60.0, limit=3))
    for _ in range(turns):
        await asyncio.sleep(0)

    task.cancel()
    (first,) = await asyncio.gather(task, return_exceptions=True)
    taken = () if isinstance(first, BaseException) else first
    await store.journal(delivery(1))  # an answer that comes after whatever the cancelled claim left to do
    left = await store.claim(kind, now=9.0, lease=60.0, limit=9)

    assert 5 == len({lease.ref for lease in (*taken, *left)}) == len(taken) + len(left)
    assert {1} == {lease.attempts for lease in left}


async def test_the_most_overdue_comes_first(store: Store, make_record: MakeRecord) -> None:
    """`claim` hands out what has been due for longest, and nothing that is not due."""
    for due_at in (30.0, 10.0, 20.0, 40.0):
        await store.create(make_record(f"at{due_at:g}"), due_at=due_at)

    assert ["at10", "at20"] == [lease.ref for lease in await store.claim("poll", now=30.0, lease=9.0, limit=2)]
    assert ["at30"] == [lease.ref for lease in await store.claim("poll", now=30.0, lease=9.0, limit=2)]


async def test_a_lease_that_ran_out_is_claimed_again(store: Store, other: Store, make_record: MakeRecord) -> None:
    """Nobody else gets the work until the lease's end; then it comes with one more attempt and another token."""
    await store.create(make_record(), due_at=5.0)
    (first,) = await store.claim("poll", now=10.0, lease=60.0, limit=1)

    assert 70.0 == await other.next_due("poll")
    assert () == await other.claim("poll", now=69.0, lease=60.0, limit=1)
    (second,) = await other.claim("poll", now=70.0, lease=60.0, limit=1)

    assert (1, 2) == (first.attempts, second.attempts)
    assert ("poll", 0, "ref") == (second.topic, second.sequence, second.ref)
    assert first.token != second.token
    assert not await store.settle(first, due_at=None)
    assert 130.0 == await store.next_due("poll")
    assert await store.settle(second, due_at=None)
    assert None is await store.next_due("poll")


async def test_a_lease_is_settled_once(store: Store, other: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A lease that is settled, or whose record is gone, is nobody's."""
    created = await store.create(make_record(), due_at=5.0)
    await advance(store, created, "text", due_at=5.0)
    (poll,) = await store.claim("poll", now=10.0, lease=60.0, limit=1)
    entry = await claim_one(store)

    assert await store.settle(entry, due_at=None)
    assert not await other.settle(entry, due_at=1.0)
    assert await store.discard("ref", 2)
    assert not await other.settle(poll, due_at=1.0)
    assert None is await store.next_due("poll")


async def test_a_poll_can_be_put_off(store: Store, make_record: MakeRecord) -> None:
    """A status call settled with a time is due again then, with one more attempt."""
    await store.create(make_record(), due_at=5.0)
    (lease,) = await store.claim("poll", now=10.0, lease=60.0, limit=1)

    assert await store.settle(lease, due_at=20.0)

    assert 20.0 == await store.next_due("poll")
    (lease,) = await store.claim("poll", now=20.0, lease=60.0, limit=1)
    assert 2 == lease.attempts


async def test_a_commit_ends_the_lease_on_the_poll(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A commit replaces the due time, ends the lease, and counts attempts anew."""
    created = await store.create(make_record(), due_at=5.0)
    (lease,) = await store.claim("poll", now=10.0, lease=60.0, limit=1)

    await advance(store, created, due_at=30.0)

    assert not await store.settle(lease, due_at=None)
    assert 30.0 == await store.next_due("poll")
    (lease,) = await store.claim("poll", now=30.0, lease=60.0, limit=1)
    assert 1 == lease.attempts


async def test_a_commit_leaves_the_lease_on_an_entry(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A commit does not take the entry away from a handler that runs."""
    stored = await advance(store, await store.create(make_record()), "text")
    lease = await claim_one(store)

    await advance(store, stored, "text", "first")

    assert () == await store.claim("outbox", now=1000.0, lease=60.0, limit=10)
    assert await store.settle(lease, due_at=None)
    assert "first" == (await claim_one(store)).topic


@pytest.mark.parametrize(("is_open", "due_at"), [(True, None), (False, None), (False, 5.0)])
async def test_a_record_leaves_the_polls(
    store: Store, make_record: MakeRecord, advance: Advance, is_open: bool, due_at: float | None
) -> None:
    """A commit without a due time, or of a closed record, takes it out of the polls."""
    await advance(store, await store.create(make_record(), due_at=5.0), is_open=is_open, due_at=due_at)

    assert None is await store.next_due("poll")
    assert () == await store.claim("poll", now=1e9, lease=60.0, limit=1)


async def test_work_of_other_providers_is_left_alone(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """`claim` and `next_due` look at the given providers alone, for both kinds."""
    for due_at, provider in ((1.0, "kie"), (2.0, "vidgo"), (3.0, "musicgpt")):
        created = await store.create(make_record(provider, provider=provider))
        await advance(store, created, "text", due_at=due_at)
    wanted = ("musicgpt", "vidgo")

    assert (2.0, 3.0) == (
        await store.next_due("poll", providers=wanted),
        await store.next_due("poll", providers=("musicgpt",)),
    )
    polls = await store.claim("poll", now=9.0, lease=60.0, limit=9, providers=wanted)
    entries = await store.claim("outbox", now=9.0, lease=60.0, limit=9, providers=wanted)

    assert ["vidgo", "musicgpt"] == [lease.ref for lease in polls]
    assert {"vidgo", "musicgpt"} == {lease.ref for lease in entries}
    assert (1.0, 69.0) == (await store.next_due("poll"), await store.next_due("poll", providers=wanted))
    assert None is await store.next_due("poll", providers=())
    assert () == await store.claim("poll", now=9.0, lease=60.0, limit=9, providers=())
    assert ["kie"] == [lease.ref for lease in await store.claim("poll", now=9.0, lease=60.0, limit=9)]


async def test_a_fresh_entry_is_due_at_once(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """An entry of the outbox is due from the start, whatever the time is."""
    await advance(store, await store.create(make_record()), "text")

    due_at = await store.next_due("outbox")

    assert due_at is not None
    assert due_at <= 0.0
    assert "text" == (await claim_one(store, now=0.0)).topic


# --- scan ---------------------------------------------------------------------------------------------------


async def test_a_scan_is_in_the_order_of_creation(
    store: Store, other: Store, make_record: MakeRecord, advance: Advance
) -> None:
    """`scan` yields all, the open or the closed records, oldest first, whatever was committed since."""
    order = [f"ref{number:03}" for number in reversed(range(600))]
    created: list[Created] = []
    for start in range(0, 600, WAVE):
        created += await asyncio.gather(*(store.create(make_record(ref)) for ref in order[start : start + WAVE]))
    for versioned in created[WAVE : 2 * WAVE]:
        await advance(other, versioned, is_open=False)

    assert waves(order) == waves(await scanned(other))
    assert waves(order[:WAVE] + order[2 * WAVE :]) == waves(await scanned(store, is_open=True))
    assert waves(order[WAVE : 2 * WAVE]) == waves(await scanned(store, is_open=False))


def waves(refs: Sequence[str]) -> list[list[str]]:
    """Return what was created at once together, in no order: an engine's clock may tick back by some microseconds."""
    return [sorted(refs[start : start + WAVE]) for start in range(0, len(refs), WAVE)]


async def test_a_scan_lives_with_writers(store: Store, other: Store, make_record: MakeRecord, advance: Advance) -> None:
    """Records that come, change or go during a scan disturb it not: none is seen twice, those that stay are seen."""
    for number in range(300):
        await store.create(make_record(f"ref{number:03}"))
    seen: list[str] = []

    async for found in store.scan():
        ref = found.record.ref
        seen.append(ref)
        if ref.startswith("ref") and int(ref[3:]) % 50 == 0:
            await advance(other, found)
            await other.create(make_record(f"new{ref}"))
            await other.discard(f"ref{int(ref[3:]) + 7:03}", 1)

    assert len(seen) == len(set(seen))
    gone = {f"ref{number:03}" for number in range(7, 300, 50)}
    assert {f"ref{number:03}" for number in range(300)} - gone <= set(seen)


# --- discard and purge --------------------------------------------------------------------------------------


async def test_a_discarded_record_leaves_nothing(
    store: Store, other: Store, make_record: MakeRecord, advance: Advance
) -> None:
    """`discard` forgets the record, its key, its task id and its outbox; both can be given again."""
    created = await store.create(make_record(), "key", due_at=5.0)
    await advance(store, created, "text", due_at=5.0, record=make_record(answered_id="task"))

    assert await other.discard("ref", 2)

    assert [None] * 5 == [
        await store.get("ref"),
        await store.find_key("key"),
        await store.find("kie", "task"),
        await store.next_due("poll"),
        await store.next_due("outbox"),
    ]
    stored = await advance(store, await store.create(make_record(), "key"), "text")
    assert stored == await other.find_key("key")
    assert ("text", 1) == ((await claim_one(other)).topic, (await claim_one(other, now=2000.0)).attempts - 1)


async def test_a_record_that_moved_on_is_not_discarded(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """`discard` with an old version, or of a ref that is not there, changes nothing."""
    stored = await advance(store, await store.create(make_record()))

    assert not await store.discard("ref", 1)
    assert not await store.discard("nobody", 1)
    assert stored == await store.get("ref")


async def test_purge_forgets_old_closed_records(
    store: Store, other: Store, make_record: MakeRecord, advance: Advance
) -> None:
    """Closed records created before the bound go, with key, task id and outbox; open and later ones stay."""
    for ref, created_at, is_open in (
        ("old", 10.0, False),
        ("older", 5.0, False),
        ("old but open", 10.0, True),
        ("new", 20.0, False),
    ):
        record = make_record(ref, created_at=created_at, answered_id=f"task of {ref}")
        await advance(store, await store.create(record, f"key of {ref}"), "text", is_open=is_open)

    went = await other.purge(created_before=20.0, deliveries_before=0.0, deliveries_kept=9)

    assert 2 == went
    assert ["old but open", "new"] == await scanned(store)
    assert [None, None] == [await store.find_key("key of old"), await store.find("kie", "task of old")]
    leases = await store.claim("outbox", now=9.0, lease=9.0, limit=9)
    assert {"old but open", "new"} == {lease.ref for lease in leases}
    assert 0 == await store.purge(created_before=20.0, deliveries_before=0.0, deliveries_kept=9)


async def test_purge_forgets_what_closed_later(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """A record that an earlier purge left because it was open goes once it is closed."""
    created = await store.create(make_record(created_at=1.0))
    assert 0 == await store.purge(created_before=9.0, deliveries_before=0.0, deliveries_kept=9)

    await advance(store, created, is_open=False)

    assert 1 == await store.purge(created_before=9.0, deliveries_before=0.0, deliveries_kept=9)


async def test_purge_bounds_the_journal(store: Store, other: Store) -> None:
    """Deliveries received before the bound go, and of the others the oldest until so many are left."""
    for number in range(10):
        await store.journal(delivery(number))

    await other.purge(created_before=0.0, deliveries_before=3.0, deliveries_kept=99)
    assert [f"d{number:06}" for number in range(9, 2, -1)] == await journaled(store)
    await other.purge(created_before=0.0, deliveries_before=3.0, deliveries_kept=2)
    assert ["d000009", "d000008"] == await journaled(store)
    await other.purge(created_before=0.0, deliveries_before=0.0, deliveries_kept=0)
    assert [] == await journaled(store)


async def test_purge_goes_on_past_one_portion(store: Store, make_record: MakeRecord, advance: Advance) -> None:
    """Hundreds of records and deliveries go in one purge."""
    created = await asyncio.gather(*(store.create(make_record(f"ref{number}")) for number in range(300)))
    await asyncio.gather(
        *(
            advance(store, versioned, is_open=False, delivery=delivery(number))
            for number, versioned in enumerate(created)
        )
    )

    assert 300 == await store.purge(created_before=1e9, deliveries_before=1e9, deliveries_kept=1)
    assert ([], []) == (await scanned(store), await journaled(store))


# --- journal ------------------------------------------------------------------------------------------------


async def test_a_delivery_is_kept_as_it_arrived(
    store: Store, other: Store, make_record: MakeRecord, advance: Advance
) -> None:
    """A delivery that is committed or journaled is read back whole, by its id."""
    full = delivery(
        1,
        path="/kie/ref/***",
        headers={"Content-Type": "application/json", "X-Webhook-Signature": "c2lnbmVk"},
        body=b'{"code": 200, "msg": "\xff\x00"}',
        note="it came twice",
        verdict="late",
    )
    await advance(store, await store.create(make_record()), delivery=full)
    orphan = delivery(2, "nobody", verdict="orphan")
    await store.journal(orphan)

    assert (full, orphan) == (await other.delivery("d000001"), await other.delivery("d000002"))


async def test_the_journal_is_read_newest_first(store: Store, other: Store) -> None:
    """`deliveries` yields all or those of one ref, newest first, however they arrived."""
    numbers = [3, 1, 2, *range(4, 400)]
    await asyncio.gather(*(store.journal(delivery(number, f"ref{number % 2}")) for number in numbers))

    everything = [f"d{number:06}" for number in range(399, 0, -1)]
    assert everything == await journaled(other)
    assert everything[::2] == await journaled(other, "ref1")
    assert [] == await journaled(other, "nobody")


# --- names --------------------------------------------------------------------------------------------------


async def test_two_first_starts_agree_on_one_secret(connect: Connect) -> None:
    """Concurrent `create_if_absent` over several connections all return the one value that is kept."""
    stores = [await connect() for _ in range(4)]

    values = await asyncio.gather(
        *(store.create_if_absent("secret", b"\x00\xff" + bytes([number])) for number, store in enumerate(stores))
    )

    assert 1 == len(set(values))
    assert values[0] == await stores[0].create_if_absent("secret", b"late")
    assert b"late" == await stores[0].create_if_absent("another", b"late")


# --- places -------------------------------------------------------------------------------------------------


async def test_there_are_so_many_places(store: Store, other: Store) -> None:
    """A place is taken by one holder at a time; who holds one keeps it; what is left is free."""

    async def take(connection: Store, holder: str, name: str = "submits") -> float:
        return await connection.take_place(name, holder, limit=2, now=100.0, until=160.0)

    assert [0.0, 0.0] == [await take(store, "a"), await take(other, "b")]

    assert 0.0 < await take(other, "c") - 100.0 <= 60.0
    assert 0.0 == await take(other, "a")
    assert 0.0 == await take(store, "c", "others")
    assert {"a", "b"} == set(await other.places("submits"))

    assert await other.leave_place("submits", "a", now=100.0, until=None)
    assert not await store.leave_place("submits", "a", now=100.0, until=None)
    assert not await store.leave_place("submits", "c", now=100.0, until=200.0)
    assert 0.0 == await take(store, "c")
    assert {"b", "c"} == set(await store.places("submits"))


async def test_a_place_is_free_when_its_time_is_over(store: Store, other: Store) -> None:
    """Whatever became of its holder; and a holder who leaves can say by when."""
    now = time.time()
    assert 0.0 == await store.take_place("submits", "a", limit=1, now=now, until=now + 60.0)
    assert await other.leave_place("submits", "a", now=now, until=now + 0.05)
    free_at = await other.take_place("submits", "b", limit=1, now=now, until=now + 60.0)
    assert 0.0 <= free_at <= now + 0.06

    async with asyncio.timeout(5):
        while await other.take_place("submits", "b", limit=1, now=time.time(), until=time.time() + 60.0):
            pass

    assert ("b",) == await store.places("submits")


async def test_of_many_who_want_a_place_so_many_get_one(connect: Connect) -> None:
    """Concurrent takers over several connections never hold more places than there are."""
    stores = [await connect() for _ in range(4)]

    outcomes = await asyncio.gather(
        *(
            stores[number % 4].take_place("submits", f"h{number}", limit=7, now=100.0, until=160.0)
            for number in range(40)
        )
    )

    assert 7 == outcomes.count(0.0)
    assert 7 == len(await stores[0].places("submits"))


async def test_an_engine_says_what_it_risks(store: Store) -> None:
    """Warnings are sentences for the one who runs the store."""
    assert all(isinstance(warning, str) and len(warning) > 20 for warning in await store.warnings())


# --- changes ------------------------------------------------------------------------------------------------


async def test_changes_tell_own_commits_and_those_of_others(
    store: Store, other: Store, listen: Listen, make_record: MakeRecord, advance: Advance
) -> None:
    """Every create, commit and discard is told to all who listen, whoever made it."""
    mine, theirs = await listen(store), await listen(other)

    created = await store.create(make_record("mine"))
    await advance(other, created)
    await other.create(make_record("theirs"))
    await other.discard("theirs", 1)

    everything = ["mine", "mine", "theirs", "theirs"]
    for listener in (mine, theirs):
        await listener.until(lambda found: len(found.heard) >= 4)
        assert everything == sorted(change for change in listener.heard if isinstance(change, str))


async def test_a_conflict_is_no_change(store: Store, listen: Listen, make_record: MakeRecord) -> None:
    """What stored nothing is not told."""
    await store.create(make_record())
    listener = await listen(store)

    await store.commit(make_record(), 7, is_open=True, due_at=None)
    await store.discard("ref", 7)
    await store.create(make_record())
    await store.create(make_record("end"))

    await listener.until(lambda found: bool(found.heard))
    assert ["end"] == listener.heard


async def test_changes_begin_at_the_first_step(
    store: Store, other: Store, listen: Listen, make_record: MakeRecord
) -> None:
    """What was committed before somebody listened is not told."""
    await store.create(make_record("before"))
    await other.create(make_record("before too"))
    listener = await listen(store)

    await other.create(make_record("after"))

    await listener.until(lambda found: bool(found.heard))
    assert ["after"] == [change for change in listener.heard if not isinstance(change, Resync)]


async def test_every_change_of_a_burst_is_told(
    store: Store, other: Store, listen: Listen, make_record: MakeRecord
) -> None:
    """A burst of commits from several connections is told whole, or as one that has to be read again."""
    listener = await listen(store)
    refs = {f"ref{number}" for number in range(300)}

    await asyncio.gather(*((store, other)[number % 2].create(make_record(f"ref{number}")) for number in range(300)))

    await listener.until(
        lambda found: refs <= set(found.heard) or any(isinstance(change, Resync) for change in found.heard)
    )


async def test_changes_end_when_the_store_is_closed(store: Store, listen: Listen) -> None:
    """The stream of changes is over once the store is closed."""
    listener = await listen(store)

    await store.aclose()

    await listener.until(lambda found: found.ended)


async def test_a_shared_store_says_so(store: Store) -> None:
    """Every store that ships can be changed by others."""
    assert store.shared


# --- open and close -----------------------------------------------------------------------------------------


async def test_the_last_user_closes_the_store(store: Store, make_record: MakeRecord, listen: Listen) -> None:
    """Each `open` is matched by one `aclose`; until the last, the store works and its changes go on."""
    await store.open()
    listener = await listen(store)

    await store.aclose()
    await store.create(make_record())

    await listener.until(lambda found: found.heard == ["ref"])
    assert not listener.ended


async def test_two_users_may_open_it_at_once(connect: Connect, make_record: MakeRecord) -> None:
    """Opened by two at the same time, it works until both have closed it."""
    store = await connect()
    await store.aclose()
    await asyncio.gather(store.open(), store.open())

    await store.aclose()
    created = await store.create(make_record())

    assert created.stored == await store.get("ref")
    await store.aclose()
    await store.open()  # the fixture closes it once more


async def test_closing_again_is_harmless(store: Store) -> None:
    """One `aclose` too many does nothing."""
    await store.aclose()
    await store.aclose()


async def test_a_store_can_be_opened_again(store: Store, make_record: MakeRecord) -> None:
    """A store that was closed and opened again holds what it held."""
    created = await store.create(make_record())
    await store.aclose()

    await store.open()

    assert created.stored == await store.get("ref")


async def test_what_was_accepted_is_finished(connect: Connect, make_record: MakeRecord) -> None:
    """`aclose` waits for the commits that were made before it."""
    store, other = await connect(), await connect()
    tasks = [asyncio.create_task(store.create(make_record(f"ref{number}"))) for number in range(50)]
    await asyncio.sleep(0)

    await store.aclose()

    assert [False] * 50 == [outcome.existing for outcome in await asyncio.gather(*tasks)]
    assert 50 == len(await scanned(other))


# --- identity -----------------------------------------------------------------------------------------------


@IDENTITY
@given(data=st.data())
async def test_what_is_stored_is_what_is_read(
    data: st.DataObject, store: Store, other: Store, records: st.SearchStrategy[Record]
) -> None:
    """Any record that is created or committed is read back as the same value, by ref, key and task id."""
    first = data.draw(records)
    later = attrs.evolve(data.draw(records), ref=first.ref, provider=first.provider)
    await discard_all(store)

    created = await store.create(first, first.key)
    assert first == created.stored.record
    assert first == await record_of(other.get(first.ref))
    done = await other.commit(later, 1, is_open=not later.is_final, due_at=later.expired_at)

    assert Done(version=2) == done
    assert later == await record_of(store.get(first.ref))
    if first.key is not None:
        assert later == await record_of(store.find_key(first.key))
    if later.task_id is not None:
        assert later == await record_of(store.find(first.provider, later.task_id))
    assert [later] == [found.record async for found in store.scan(is_open=not later.is_final)]


@IDENTITY
@given(data=st.data())
async def test_any_text_is_kept(
    data: st.DataObject, store: Store, other: Store, make_record: MakeRecord, texts: st.SearchStrategy[str]
) -> None:
    """Topics, refs, notes, headers, names and bodies come back as they were given."""
    await discard_all(store)
    ref, topic, note = data.draw(texts), data.draw(texts), data.draw(texts)
    kept = delivery(
        1,
        ref,
        id=f"d{note}",
        note=note,
        path=topic,
        headers=data.draw(st.dictionaries(texts, texts, max_size=3)),
        body=data.draw(st.binary(max_size=100)),
    )
    await store.create(make_record(ref))

    await store.commit(
        make_record(ref),
        1,
        is_open=True,
        due_at=None,
        outbox=[OutboxEntry(topic=topic, sequence=3)],
        delivery=kept,
    )

    lease = await claim_one(other)
    assert (ref, topic, 3) == (lease.ref, lease.topic, lease.sequence)
    assert kept == await other.delivery(kept.id)
    assert [kept] == [found async for found in store.deliveries(ref)]
    value = data.draw(st.binary(max_size=50))
    assert await store.create_if_absent(ref, value) == await other.create_if_absent(ref, b"another")
    await store.purge(created_before=0.0, deliveries_before=0.0, deliveries_kept=0)


async def discard_all(store: Store) -> None:
    """Forget all records, so that one example does not meet another's."""
    async for found in store.scan():
        await store.discard(found.record.ref, found.version)


async def record_of(read: Awaitable[Versioned | None]) -> Record | None:
    """Return the record that *read* finds."""
    found = await read
    return None if found is None else found.record


# --- many at once -------------------------------------------------------------------------------------------


async def test_everything_at_once(connect: Connect, make_record: MakeRecord) -> None:
    """Writers, handlers and pollers over several connections: each stage is told once, in order, to one of them."""
    stores = [await connect() for _ in range(3)]
    topics = ("text", "first", "complete")
    told: list[tuple[str, str]] = []

    async def write(store: Store, ref: str) -> None:
        version = (await store.create(make_record(ref), due_at=0.0)).stored.version
        for number, topic in enumerate(topics, 1):
            outcome = await store.commit(
                make_record(ref),
                version,
                is_open=topic != "complete",
                due_at=0.0,
                outbox=[OutboxEntry(topic=topic, sequence=number)],
                delivery=delivery(number, ref, id=f"{ref}-{number}"),
            )
            assert isinstance(outcome, Done)
            version = outcome.version

    async def tell(store: Store, is_over: Callable[[], bool]) -> None:
        while not is_over():
            await asyncio.gather(
                *(one_told(store, lease) for lease in await store.claim("outbox", now=1.0, lease=60.0, limit=5))
            )
            await store.claim("poll", now=1.0, lease=60.0, limit=3)

    async def one_told(store: Store, lease: Lease) -> None:
        told.append((lease.ref, lease.topic))
        assert await store.settle(lease, due_at=None)

    refs = [f"ref{number}" for number in range(40)]
    await asyncio.gather(
        *(write(stores[number % 3], ref) for number, ref in enumerate(refs)),
        *(tell(store, lambda: len(told) >= 120) for store in stores),
    )

    assert 120 == len(told)
    for ref in refs:
        assert list(topics) == [topic for told_ref, topic in told if told_ref == ref]
    assert (None, None) == (await stores[0].next_due("poll"), await stores[0].next_due("outbox"))
    assert 120 == len(await journaled(stores[0]))
