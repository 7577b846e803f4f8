"""Every sentence of the `Store` protocol about journals, for every store, over several connections to one engine."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, REFUSED, make_entry
from audioext.stores.base import Appended, Created, Existing, Store, Stored
from tests.unit.stores.journals import (
    LOOK_AT,
    UNLIMITED,
    Connect,
    claim_all,
    create,
    delivered,
    held,
    listed,
    make_index,
    make_request,
    make_webhook,
)

# --- create and read ----------------------------------------------------------------------------------------


async def test_a_created_job_is_read_from_any_connection(store: Store, other: Store) -> None:
    """`create` stores the entry and the index, and every connection reads them."""
    index = make_index(key="k", task_id="t", answered_at=101.5, occupies_until=900.25, poll_at=7.125, handle_at=8.0)

    created = await store.create(make_request(), index, limits=UNLIMITED, now=100.0)

    assert Created() == created
    assert Stored(index=index, count=1, entries=(make_request(),)) == await store.read("ref") == await other.read("ref")
    assert ["ref"] * 2 == [await other.find(key="k"), await other.find(provider="kie", task_id="t")]


async def test_an_unknown_ref_key_or_task_id_gives_none(store: Store) -> None:
    """A ref, key or task id that is not stored gives `None`."""
    await create(store, key="k", task_id="t")

    assert [None] * 4 == [
        await store.read("another"),
        await store.find(key="another"),
        await store.find(provider="kie", task_id="another"),
        await store.find(provider="vidgo", task_id="t"),
    ]


async def test_a_key_belongs_to_one_job(store: Store, other: Store) -> None:
    """A second `create` with the same key returns the job that has it, and stores nothing."""
    await create(store, "first", key="k")

    assert Existing("first") == await create(other, "second", key="k")
    assert None is await store.read("second")
    assert "first" == await other.find(key="k")


async def test_a_ref_is_created_once(store: Store, other: Store) -> None:
    """A second `create` of the same ref stores nothing, with or without another key."""
    await create(store)
    before = await held(store)

    assert Existing("ref") == await create(other, key="k", poll_at=1.0)
    assert before == await held(store)
    assert None is await store.find(key="k")


async def test_of_many_creates_with_one_key_one_wins(connect: Connect) -> None:
    """Concurrent creates with one key, over several connections, agree on one job."""
    stores = [await connect() for _ in range(4)]

    outcomes = await asyncio.gather(*(create(stores[n % 4], f"ref{n}", key="k") for n in range(40)))

    (winner,) = [f"ref{n}" for n, outcome in enumerate(outcomes) if outcome == Created()]
    assert 39 == outcomes.count(Existing(winner))
    assert [winner] == await listed(stores[0])


async def test_a_key_is_free_when_the_index_says_so(store: Store, other: Store) -> None:
    """A key that an index no longer has goes to the next job, and stays there when the first job asks for it again."""
    await create(store, "first", key="k")
    assert (await store.append("first", (), provider="kie", index=make_index("first"), known=1)).is_taken

    assert Created() == await create(other, "second", key="k")
    again = await store.append("first", (), provider="kie", index=make_index("first", key="k", task_id="t"), known=1)

    assert again.is_taken
    assert "second" == await store.find(key="k") == await other.find(key="k")
    assert "first" == await store.find(provider="kie", task_id="t")


async def test_the_journal_is_read_from_any_entry_on(store: Store) -> None:
    """`read` skips *after* entries, and returns the count of all."""
    await create(store)
    hooks = [make_webhook(n) for n in range(4)]
    await store.append("ref", hooks, provider="kie", known=1)

    parts = [await store.read("ref", after=after) for after in (0, 1, 4, 5, 9)]

    assert [(make_request(), *hooks), tuple(hooks), (hooks[3],), (), ()] == [part and part.entries for part in parts]
    assert [5] * 5 == [part and part.count for part in parts]


async def test_jobs_come_in_the_order_of_their_creation(store: Store, other: Store) -> None:
    """`jobs` yields all, open or closed jobs in either order of creation, whatever was appended since."""
    for number in range(5):
        await create((store, other)[number % 2], f"ref{number}")
    for ref in ("ref3", "ref0"):
        await store.append(
            ref, [make_webhook(1)], provider="kie", index=make_index(ref, is_open=False), known=1, look_at=LOOK_AT
        )

    assert [f"ref{n}" for n in range(5)] == await listed(other)
    assert ["ref1", "ref2", "ref4"] == await listed(other, is_open=True)
    assert ["ref0", "ref3"] == await listed(store, is_open=False)
    assert [f"ref{n}" for n in range(4, -1, -1)] == await listed(store, newest_first=True)
    assert ["ref3", "ref0"] == await listed(other, is_open=False, newest_first=True)
    assert [await held(store, "ref0")] == [found async for found in other.jobs()][:1]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_listing_beside_writers_has_no_duplicates(store: Store, other: Store, newest_first: bool) -> None:
    """Jobs that are added or changed during `jobs` cause no duplicates and hide none of the others."""
    await asyncio.gather(*(create(store, f"ref{number}", now=100.0 + number) for number in range(300)))
    seen = []

    async for found in store.jobs(newest_first=newest_first):
        seen.append(found.index.ref)
        if len(seen) % 50 == 1:
            await create(other, f"late{len(seen)}")
            await other.append("ref7", [make_webhook(len(seen))], provider="kie")

    assert len(seen) == len(set(seen))
    assert {f"ref{n}" for n in range(300)} <= set(seen)


# --- append and the index -----------------------------------------------------------------------------------


async def test_an_index_is_taken_from_a_writer_that_has_seen_all(store: Store, other: Store) -> None:
    """An append by a writer that knows every entry replaces the whole index."""
    await create(store, key="k", poll_at=1.0, handle_at=2.0)
    index = make_index(task_id="t", answered_at=3.0, poll_at=99.0, occupies_until=4.0)

    appended = await other.append("ref", [make_webhook(1)], provider="kie", index=index, known=1, look_at=LOOK_AT)

    assert Appended(count=2, is_taken=True) == appended
    assert Stored(index=index, count=2, entries=(make_request(), make_webhook(1))) == await store.read("ref")
    assert (None, "ref") == (await store.find(key="k"), await store.find(provider="kie", task_id="t"))


async def test_a_writer_that_missed_an_entry_is_handed_it(store: Store, other: Store) -> None:
    """A writer that missed an entry gets it; its own entries are stored, its index is not, and the job is due soon."""
    await create(store, poll_at=LOOK_AT + 5.0)
    await store.append("ref", [make_webhook(1)], provider="kie", index=make_index(poll_at=9e9), known=1)

    late = await other.append(
        "ref", [make_webhook(2)], provider="kie", index=make_index(is_open=False), known=1, look_at=LOOK_AT
    )

    assert Appended(count=3, missed=(make_webhook(1),)) == late
    assert make_index(poll_at=LOOK_AT, handle_at=LOOK_AT) == (await held(store)).index
    again = await other.append("ref", (), provider="kie", index=make_index(is_open=False), known=3)
    assert Appended(count=3, is_taken=True) == again
    assert make_index(is_open=False) == (await held(store)).index


async def test_an_append_without_an_index_makes_the_job_due(store: Store) -> None:
    """An append without an index moves later or missing due times to *look_at*, and leaves earlier ones."""
    await create(store, poll_at=LOOK_AT - 1.0, handle_at=LOOK_AT + 1.0)

    appended = await store.append("ref", [make_webhook(1)], provider="kie", known=1, look_at=LOOK_AT)

    assert Appended(count=2) == appended
    assert make_index(poll_at=LOOK_AT - 1.0, handle_at=LOOK_AT) == (await held(store)).index


async def test_an_append_that_stores_nothing_moves_no_due_time(store: Store) -> None:
    """An append that stores nothing, like a repeat or a refused index, leaves the due times as they are."""
    await create(store)
    await store.append("ref", [make_webhook(1)], provider="kie", index=make_index(handle_at=5.0), known=1)

    repeat = await store.append("ref", [make_webhook(1)], provider="kie", known=2, look_at=LOOK_AT)
    stale = await store.append("ref", (), provider="kie", index=make_index(), known=1, look_at=LOOK_AT)

    assert [Appended(count=2, missed=(make_webhook(1),))] * 2 == [repeat, stale]
    assert make_index(handle_at=5.0) == (await held(store)).index


async def test_a_repeat_is_counted_and_not_appended(store: Store, other: Store) -> None:
    """Of equal entries the first is kept and returned; repeats of webhooks and statuses are counted."""
    await create(store)
    status, handled = make_entry("status", 5.0, status=200, body=b"{}"), make_entry("handled", 6.0, note="first")
    first = [make_webhook(1), status, handled]
    await store.append("ref", first, provider="kie", known=1)

    again = [msgspec.structs.replace(entry, at=999.0) for entry in first]
    appended = await other.append("ref", [*again, make_webhook(2), make_webhook(2)], provider="kie", known=4)

    assert Appended(count=5, missed=tuple(first)) == appended
    assert (5, 3) == ((await held(store)).count, (await held(store)).repeats)
    assert (make_request(), *first, make_webhook(2)) == (await held(store)).entries


async def test_missed_and_repeated_entries_come_back_once(store: Store) -> None:
    """A writer whose append is sent again gets missed and repeated entries as stored, each once and in order."""
    await create(store)
    hooks = [make_webhook(n) for n in range(4)]
    await store.append("ref", hooks, provider="kie", known=1)

    appended = await store.append("ref", [hooks[3], hooks[0]], provider="kie", index=make_index(), known=3)

    assert Appended(count=5, missed=(hooks[0], hooks[2], hooks[3])) == appended


async def test_a_store_that_lost_entries_says_so(store: Store) -> None:
    """An append by a writer that knows more entries than are stored is refused, until it appends them all."""
    index = make_index(key="k", task_id="t", poll_at=7.0)
    journal = [make_request(), make_webhook(1)]

    lost = await store.append("ref", [make_webhook(2)], provider="kie", index=index, known=2)
    assert (Appended(count=0, is_lost=True), None) == (lost, await store.read("ref"))
    anew = await store.append("ref", [*journal, make_webhook(2)], provider="kie", index=index, known=0)

    assert Appended(count=3, is_taken=True) == anew
    assert Stored(index=index, count=3, entries=(*journal, make_webhook(2))) == await store.read("ref")
    assert ["ref"] == await listed(store)
    assert ("ref", 7.0) == (await store.find(key="k"), await store.next_due("polls"))
    lost = await store.append("ref", [make_webhook(3)], provider="kie", index=index, known=9)
    assert Appended(count=3, is_lost=True) == lost


async def test_a_journal_of_any_length_is_appended_anew_and_read(store: Store) -> None:
    """A journal of any length is appended again in one call, and returned in one call to a writer that missed it."""
    journal = (make_request(), *(make_entry("handled", 1.0, body=b"%d" % number) for number in range(9_000)))
    index = make_index(is_open=False)

    assert (await store.append("ref", journal, provider="kie", index=index, known=0)).is_taken
    assert journal == (await held(store)).entries
    assert journal == (await store.append("ref", [journal[7]], provider="kie")).missed
    assert 1 == await store.purge(before=1e9, deliveries_kept=9)


async def test_a_webhook_of_an_unknown_job_is_kept(store: Store, other: Store) -> None:
    """A webhook for an unknown job is kept as an orphan, which is neither listed nor claimed."""
    appended = await store.append("ref", [make_webhook(1)], provider="kie", look_at=LOOK_AT)

    assert Appended(count=1) == appended
    assert (make_webhook(1),) == (await held(other)).entries
    assert [("orphan", "kie")] == [(found.verdict, found.provider) async for found in other.deliveries()]
    assert [] == await listed(store)
    assert [None, None] == [await store.next_due("polls"), await store.next_due("handlers")]
    assert () == await claim_all(store, "polls") + await claim_all(store, "handlers")


async def test_an_orphan_becomes_a_job_with_its_request(store: Store, other: Store) -> None:
    """Appending its request makes an orphan a job, stores the index, and makes the job due soon."""
    await store.append("ref", [make_webhook(1)], provider="kie", look_at=LOOK_AT)

    appended = await other.append(
        "ref", [make_request()], provider="kie", index=make_index(key="k"), known=0, look_at=LOOK_AT
    )

    assert Appended(count=2, missed=(make_webhook(1),)) == appended
    assert ["ref"] == await listed(store)
    assert ["applied"] == [found.verdict async for found in store.deliveries()]
    assert [("ref",)] * 2 == [await claim_all(store, "polls"), await claim_all(store, "handlers")]
    assert (await other.append("ref", (), provider="kie", index=make_index(key="k"), known=2)).is_taken
    assert "ref" == await store.find(key="k")


async def test_an_orphan_waits_for_its_creation(store: Store, other: Store) -> None:
    """`create` on an orphan begins the job, and its creator's next append gets the earlier webhooks back."""
    await other.append("ref", [make_webhook(1), make_webhook(2)], provider="kie")

    created = await create(store, poll_at=5.0)
    appended = await store.append("ref", [make_webhook(3)], provider="kie", known=1, look_at=LOOK_AT)

    assert Created() == created
    assert Appended(count=4, missed=(make_webhook(1), make_webhook(2))) == appended
    assert (make_request(), *map(make_webhook, (1, 2, 3))) == (await held(other)).entries
    assert ["00000003", "00000002", "00000001"] == await delivered(store, "ref")


# --- limits of a journal ------------------------------------------------------------------------------------


async def test_a_journal_takes_only_so_many_entries(store: Store) -> None:
    """Webhooks beyond the limit of entries are only counted, and bring no index; our own entries are stored."""
    await create(store)
    await store.append("ref", [make_webhook(n) for n in range(MAX_ENTRIES - 2)], provider="kie", known=1)
    more = [make_webhook(MAX_ENTRIES + n) for n in range(3)]

    index = make_index(handle_at=5.0)
    appended = await store.append("ref", more, provider="kie", index=index, known=MAX_ENTRIES - 1, look_at=LOOK_AT)
    handled = make_entry("handled", 1.0, note="first")
    own = await store.append("ref", [handled], provider="kie", index=index, known=MAX_ENTRIES, look_at=LOOK_AT)

    assert Appended(count=MAX_ENTRIES, is_full=True) == appended
    assert Appended(count=MAX_ENTRIES + 1, is_taken=True) == own
    assert (MAX_ENTRIES + 1, 2, index) == ((found := await held(store)).count, found.repeats, found.index)
    assert (more[0], handled) == found.entries[-2:]


async def test_refused_webhooks_leave_room_for_the_others(store: Store) -> None:
    """Refused webhooks may fill half of a journal, other webhooks all of it, and statuses twice as much."""
    await create(store)
    half = MAX_ENTRIES // 2
    junk = [make_entry("webhook", 1.0, body=b"%d" % n, note=f"{REFUSED}: x") for n in range(MAX_ENTRIES)]
    statuses = [make_entry("status", 1.0, body=b"%d" % n) for n in range(2 * MAX_ENTRIES)]

    for news, count in (
        (junk, half),
        ([make_webhook(n) for n in range(MAX_ENTRIES)], MAX_ENTRIES),
        (junk, MAX_ENTRIES),
        (statuses, 2 * MAX_ENTRIES),
    ):
        assert count == (await store.append("ref", news, provider="kie", known=1)).count
    assert MAX_ENTRIES // 2 - 1 == sum(entry.note != "" for entry in (await held(store)).entries)


async def test_a_journal_takes_only_so_many_bytes(store: Store) -> None:
    """The bytes of all bodies in a journal are bounded, and what still fits is stored."""
    await create(store)
    size = MAX_JOURNAL_BYTES // 4
    hooks = [make_webhook(n, size=size) for n in range(4)]

    appended = await store.append("ref", [*hooks, make_webhook(9)], provider="kie", known=1)

    assert Appended(count=5, is_full=True) == appended
    assert [size] * 3 + [8] == [entry.size for entry in (await held(store)).entries[1:]]


async def test_a_full_journal_still_knows_a_repeat(store: Store) -> None:
    """A full journal recognises a repeat, and does not report it as full."""
    await create(store)
    hooks = [make_webhook(n) for n in range(MAX_ENTRIES)]
    await store.append("ref", hooks, provider="kie", known=1)

    appended = await store.append("ref", hooks[:1], provider="kie", known=MAX_ENTRIES)

    assert Appended(count=MAX_ENTRIES, missed=(hooks[0],)) == appended
    assert 2 == (await held(store)).repeats
