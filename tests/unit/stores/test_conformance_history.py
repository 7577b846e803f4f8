"""Every sentence of the `Store` protocol about deliveries, purges, secrets and warnings, for every store."""

from __future__ import annotations

import asyncio

import pytest

from audioext.models.entries import OTHER_TASK, REFUSED, UNREADABLE, make_entry
from audioext.stores.base import Created, Delivery, Store
from tests.unit.stores.journals import (
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

ALL = 1_000_000
"""More deliveries than any test has."""


async def close(store: Store, ref: str, at: float, **fields: object) -> None:
    """Close the job *ref* with a webhook at *at*."""
    index = make_index(ref, is_open=False, **fields)
    done = await store.append(ref, [make_webhook(int(at), at)], provider="kie", index=index, known=1)
    assert done.is_taken


async def test_deliveries_are_read_newest_first(store: Store, other: Store) -> None:
    """`deliveries` yields all webhooks, or those of one ref, newest first, and no other entries."""
    for ref in ("a", "b"):
        await create(store, ref)
    for number in range(6):
        status = make_entry("status", 1.0, body=b"%d" % number)
        await other.append("ab"[number % 2], [make_webhook(number), status], provider="kie")

    assert [f"{n:08}" for n in (5, 4, 3, 2, 1, 0)] == await delivered(store)
    assert [f"{n:08}" for n in (4, 2, 0)] == await delivered(other, "a")
    assert [] == await delivered(other, "c")


async def test_a_delivery_is_shown_as_it_arrived(store: Store) -> None:
    """A delivery has the time, headers and body of its entry, a unique id, and a path without the tag."""
    await create(store, "a", provider="vidgo")
    hook = make_entry("webhook", 7.5, headers={"x-signature": "abc"}, body=b"\x00\xff", note="said twice")
    for ref in ("a", "b"):
        await store.append(ref, [hook], provider="vidgo")

    orphan, applied = [found async for found in store.deliveries()]

    assert ("b", "orphan") == (orphan.ref, orphan.verdict)
    assert "/vidgo/a/***" == applied.path
    assert orphan.id != applied.id
    assert applied == Delivery(
        id=applied.id,
        ref="a",
        provider="vidgo",
        received_at=7.5,
        verdict="applied",
        headers={"x-signature": "abc"},
        body=b"\x00\xff",
        note="said twice",
    )


@pytest.mark.parametrize(
    ("note", "verdict"),
    [
        (UNREADABLE, "unreadable"),
        (f"{REFUSED}: signature", "refused"),
        (f"{OTHER_TASK} t2", "refused"),
        ("", "applied"),
        ("more", "applied"),
    ],
)
async def test_the_note_gives_the_verdict(store: Store, note: str, verdict: str) -> None:
    """The verdict of a delivery follows from how its note begins."""
    await create(store)
    await store.append("ref", [make_webhook(1, note=note)], provider="kie")

    assert [verdict] == [found.verdict async for found in store.deliveries()]


async def test_many_deliveries_are_read_whole(store: Store) -> None:
    """Hundreds of deliveries of several jobs are each read once."""
    for number in range(7):
        await create(store, f"ref{number}")
    for number in range(0, 700, 10):
        deliveries = [make_webhook(number + more) for more in range(10)]
        await store.append(f"ref{number // 10 % 7}", deliveries, provider="kie")

    assert [f"{n:08}" for n in reversed(range(700))] == await delivered(store)


async def test_purge_forgets_old_closed_jobs(store: Store, other: Store) -> None:
    """`purge` forgets closed jobs whose last entry is old, with key, task id and deliveries, and no others."""
    for ref in ("old", "recent", "open"):
        await create(store, ref, key=f"key of {ref}", task_id=f"task of {ref}", now=50.0)
    await close(store, "old", 199.0, key="key of old", task_id="task of old", poll_at=1.0, handle_at=1.0)
    await close(store, "recent", 200.0)
    await store.append("open", [make_webhook(1)], provider="kie")

    assert 1 == await other.purge(before=200.0, deliveries_kept=ALL)

    assert ["recent", "open"] == await listed(store)
    assert [None] * 3 == [
        await store.read("old"),
        await store.find(key="key of old"),
        await store.find(provider="kie", task_id="task of old"),
    ]
    assert ["00000001", "00000200"] == await delivered(store)
    assert [("open",)] * 2 == [await claim_all(store, "polls"), await claim_all(store, "handlers")]
    assert Created() == await create(store, "old", key="key of old")
    assert (make_request("old"),) == (await held(store, "old")).entries


async def test_a_purge_finds_what_closed_later(store: Store) -> None:
    """A job that was open at one purge is forgotten by a later one, once it is closed."""
    await create(store, now=50.0)
    assert 0 == await store.purge(before=900.0, deliveries_kept=ALL)

    await close(store, "ref", 100.0)

    assert 1 == await store.purge(before=900.0, deliveries_kept=ALL)
    assert [] == await listed(store)


async def test_a_late_entry_keeps_a_job(store: Store) -> None:
    """A job's age is that of its last entry, so that a late repeat still finds its job."""
    await create(store, now=50.0)
    await close(store, "ref", 100.0)
    await store.append("ref", [make_webhook(1, 300.0)], provider="kie", known=2)

    assert 0 == await store.purge(before=200.0, deliveries_kept=ALL)
    assert ["ref"] == await listed(store)


async def test_old_orphans_go_as_well(store: Store) -> None:
    """An old orphan is purged like a closed job."""
    await store.append("old", [make_webhook(1, 100.0)], provider="kie")
    await store.append("recent", [make_webhook(2, 300.0)], provider="kie")

    await store.purge(before=200.0, deliveries_kept=ALL)

    assert (None, ["00000002"]) == (await store.read("old"), await delivered(store))


async def test_purge_bounds_the_deliveries(store: Store) -> None:
    """While there are too many webhooks, closed jobs are purged, the longest silent first, and open ones never."""
    for number in range(6):
        await create(store, f"ref{number}", now=50.0)
    for number in (3, 1, 2, 4):
        await close(store, f"ref{number}", 100.0 + number)
    await store.append("ref5", [make_webhook(n) for n in (500, 501, 502)], provider="kie")

    assert 2 == await store.purge(before=0.0, deliveries_kept=5)
    assert ["ref0", "ref3", "ref4", "ref5"] == await listed(store)
    assert 2 == await store.purge(before=0.0, deliveries_kept=1)
    assert ["ref0", "ref5"] == await listed(store)
    assert 3 == len(await delivered(store))


async def test_purge_keeps_jobs_whose_handlers_are_due(store: Store, other: Store) -> None:
    """No purge drops a closed job whose handlers are due, or claimed, from `untold_before` on."""
    await asyncio.gather(*(create(store, f"ref{number}", now=50.0) for number in range(600)))
    ends = ((number, 900.0 if number else 899.0) for number in range(600))
    await asyncio.gather(*(close(store, f"ref{number}", 100.0 + number, handle_at=at) for number, at in ends))
    await create(store, "held", now=50.0)
    await close(store, "held", 700.0, handle_at=1.0)
    assert ("held",) == await store.claim("handlers", now=2.0, until=900.0, limit=9)
    await create(store, "told", now=50.0)
    await close(store, "told", 701.0)

    assert 2 == await other.purge(before=9_000.0, deliveries_kept=0, untold_before=900.0)
    assert [*(f"ref{number}" for number in range(1, 600)), "held"] == await listed(store)
    assert 600 == await other.purge(before=0.0, deliveries_kept=0, untold_before=900.1)


async def test_purges_at_once_forget_no_more_than_one(store: Store, other: Store) -> None:
    """Concurrent purges forget no more jobs than one would, and count each once."""
    await asyncio.gather(*(create(store, f"ref{number}", now=50.0) for number in range(300)))
    await asyncio.gather(*(close(store, f"ref{number}", 100.0 + number) for number in range(300)))

    went = await asyncio.gather(*(each.purge(before=0.0, deliveries_kept=200) for each in (store, other, store)))

    assert (100, 200) == (sum(went), len(await listed(store)))


async def test_purge_bounds_the_bytes_of_deliveries_for_no_job(store: Store, other: Store) -> None:
    """`purge` drops the longest silent orphans until the others fit the limit of bytes; submitted jobs do not count.

    A second purge finds nothing to do, and a purged orphan can come again.
    """
    for ref in ("open", "closed"):
        await create(store, ref, now=50.0)
    await close(store, "closed", 60.0)
    for ref in ("open", "closed"):
        await store.append(ref, [make_webhook(70, size=1_000)], provider="kie", known=1)
    for number in (3, 1, 2, 4):
        await store.append(f"ref{number}", [make_webhook(number, size=100)], provider="kie")
    await store.append("ref1", [make_webhook(9, size=50)], provider="kie", known=1)

    assert 0 == await store.purge(before=0.0, deliveries_kept=ALL, delivery_bytes_kept=450)
    assert 2 == await other.purge(before=0.0, deliveries_kept=ALL, delivery_bytes_kept=449 - 100)
    assert 0 == await store.purge(before=0.0, deliveries_kept=ALL, delivery_bytes_kept=449 - 100)
    assert [None, None] == [await store.read("ref2"), await store.read("ref3")]
    assert 1 == (await store.append("ref2", [make_webhook(2)], provider="kie")).count
    assert 3 == await store.purge(before=0.0, deliveries_kept=ALL, delivery_bytes_kept=0)
    assert ["open", "closed"] == await listed(store)
    assert 3 == len(await delivered(store))


async def test_an_orphan_that_got_its_request_no_longer_counts_as_one(store: Store) -> None:
    """An orphan that got its request no longer counts as one."""
    await store.append("ref", [make_webhook(1, size=1_000)], provider="kie")
    await create(store, "ref", now=50.0)

    assert 0 == await store.purge(before=0.0, deliveries_kept=ALL, delivery_bytes_kept=0)
    assert ["ref"] == await listed(store)


async def test_hundreds_of_deliveries_for_no_job_go_in_one_purge(store: Store) -> None:
    """One purge drops hundreds of orphans, the oldest first, however many it handles per batch."""
    hooks = (make_webhook(number, size=10) for number in range(1_200))
    await asyncio.gather(*(store.append(f"ref{number}", [hook], provider="kie") for number, hook in enumerate(hooks)))

    assert 1_190 == await store.purge(before=0.0, deliveries_kept=ALL, delivery_bytes_kept=109)
    assert [f"{n:08}.." for n in range(1_199, 1_189, -1)] == await delivered(store)


async def test_purge_goes_on_past_one_portion(store: Store) -> None:
    """One purge forgets hundreds of jobs, and the store works as before."""
    await asyncio.gather(
        *(
            store.append(
                f"ref{number}",
                [make_request(f"ref{number}"), make_webhook(number)],
                provider="kie",
                index=make_index(f"ref{number}", is_open=False),
            )
            for number in range(600)
        )
    )

    assert 600 == await store.purge(before=9_000.0, deliveries_kept=ALL)
    assert ([], []) == (await listed(store), await delivered(store))
    await create(store)
    assert ["ref"] == await listed(store)


async def test_two_first_starts_agree_on_one_secret(connect: Connect) -> None:
    """Concurrent calls of `secret` with different values all return the one that is kept."""
    stores = [await connect() for _ in range(4)]

    values = await asyncio.gather(*(stores[n % 4].secret("tag", b"\x00value %d" % n) for n in range(20)))

    assert 1 == len(set(values))
    assert values[0] == await stores[0].secret("tag", b"later")
    assert b"" == await stores[1].secret("another", b"") == await stores[2].secret("another", b"x")


async def test_warnings_are_sentences_for_the_operator(store: Store) -> None:
    """Warnings are sentences for the operator of the store."""
    assert all(isinstance(warning, str) and " " in warning for warning in await store.warnings())
