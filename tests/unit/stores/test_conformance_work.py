"""Every sentence of the `Store` protocol about due work, for every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from audioext.models.entries import make_entry
from audioext.stores.base import Store, Work
from tests.unit.stores.journals import LOOK_AT, Connect, claim_all, create, held, make_index, make_webhook

DUE: dict[Work, str] = {"polls": "poll_at", "handlers": "handle_at"}


def due(work: Work, at: float) -> dict[str, Any]:
    """Return the index field for when *work* is due."""
    return {DUE[work]: at}


@pytest.fixture(params=DUE)
def work(request: pytest.FixtureRequest) -> Work:
    """Return each kind of work."""
    work: Work = request.param
    return work


async def test_what_is_due_is_claimed_by_one(store: Store, other: Store, work: Work) -> None:
    """Due work is claimed by one caller until the claim ends, and then it is due again."""
    await create(store, **due(work, 50.0))
    assert () == await store.claim(work, now=49.9, until=60.0, limit=5)

    assert ("ref",) == await other.claim(work, now=50.0, until=110.0, limit=5)

    assert 110.0 == await store.next_due(work)
    assert () == await store.claim(work, now=109.9, until=500.0, limit=5)
    assert ("ref",) == await store.claim(work, now=110.0, until=500.0, limit=5)


async def test_the_most_overdue_comes_first(store: Store, work: Work) -> None:
    """`claim` takes the most overdue jobs, up to its limit, and none that is not due."""
    for ref, at in (("b", 20.0), ("d", 101.0), ("a", 10.0), ("c", 30.0)):
        await create(store, ref, **due(work, at))

    claims = [await store.claim(work, now=100.0, until=900.0, limit=2) for _ in range(3)]

    assert [("a", "b"), ("c",), ()] == claims
    assert 101.0 == await store.next_due(work)


async def test_work_of_other_providers_is_left_alone(store: Store, work: Work) -> None:
    """`claim` and `next_due` look only at the given providers."""
    for ref, provider, at in (("a", "kie", 3.0), ("b", "vidgo", 2.0), ("c", "suno", 1.0)):
        await create(store, ref, provider=provider, **due(work, at))
    some = ["vidgo", "kie"]

    assert (2.0, 1.0, None) == (
        await store.next_due(work, providers=some),
        await store.next_due(work),
        await store.next_due(work, providers=[]),
    )
    assert () == await store.claim(work, now=100.0, until=200.0, limit=5, providers=[])
    assert ("b", "a") == await store.claim(work, now=100.0, until=200.0, limit=5, providers=some)
    assert ("c",) == await store.claim(work, now=100.0, until=200.0, limit=5)


async def test_of_many_claimers_one_gets_each_job(connect: Connect, work: Work) -> None:
    """Concurrent claims over several connections take each job once."""
    stores = [await connect() for _ in range(4)]
    for number in range(60):
        await create(stores[0], f"ref{number}", **due(work, float(number)))

    claims = await asyncio.gather(*(stores[n % 4].claim(work, now=100.0, until=900.0, limit=7) for n in range(12)))

    assert sorted(f"ref{n}" for n in range(60)) == sorted(ref for claim in claims for ref in claim)


async def test_a_job_without_a_due_time_is_not_claimed(store: Store, work: Work) -> None:
    """A job whose index has no due time is not claimed."""
    await create(store)

    assert () == await claim_all(store, work)
    assert None is await store.next_due(work)


async def test_an_accepted_index_replaces_the_due_time(store: Store, work: Work) -> None:
    """An accepted index replaces the due time, or ends the work if it has none."""
    await create(store, **due(work, 50.0))

    await store.append("ref", (), provider="kie", index=make_index(**due(work, 70.0)), known=1)
    assert 70.0 == await store.next_due(work)
    await store.append("ref", (), provider="kie", index=make_index(), known=1)

    assert None is await store.next_due(work)
    assert () == await claim_all(store, work)


async def test_a_second_look_is_claimed(store: Store, work: Work) -> None:
    """An append without an index makes both kinds of work due."""
    await create(store)
    await store.append("ref", [make_webhook(1)], provider="kie", look_at=LOOK_AT)

    assert LOOK_AT == await store.next_due(work)
    assert ("ref",) == await claim_all(store, work)


async def test_a_claim_on_polls_moves_the_due_time(store: Store) -> None:
    """A claim on polls moves the due time in the index to the end of the claim."""
    await create(store, poll_at=50.0, handle_at=9_000.0)

    await store.claim("polls", now=60.0, until=110.0, limit=5)

    assert make_index(poll_at=110.0, handle_at=9_000.0) == (await held(store)).index


async def test_a_claim_on_handlers_holds_the_job(store: Store, other: Store) -> None:
    """A claim on handlers leaves the index as it is, and appends neither end nor double it."""
    await create(store, handle_at=50.0)
    await store.claim("handlers", now=60.0, until=110.0, limit=5)
    assert make_index(handle_at=50.0) == (await held(store)).index

    await other.append("ref", [make_webhook(1)], provider="kie", index=make_index(handle_at=61.0), known=1)
    await other.append("ref", [make_webhook(2)], provider="kie", look_at=62.0)

    assert () == await other.claim("handlers", now=109.0, until=500.0, limit=5)
    assert 110.0 == await other.next_due("handlers")
    assert ("ref",) == await other.claim("handlers", now=110.0, until=500.0, limit=5)


@pytest.mark.parametrize("known", [0, 1])
async def test_an_append_releases_the_claim(store: Store, other: Store, known: int) -> None:
    """An append with `release` ends the claim, whether its index is accepted or not."""
    await create(store, handle_at=50.0)
    await store.claim("handlers", now=60.0, until=110.0, limit=5)
    handled = make_entry("handled", 61.0, note="text")

    appended = await store.append(
        "ref", [handled], provider="kie", index=make_index(handle_at=55.0), known=known, look_at=55.0, release=True
    )

    assert (known == 1) == appended.is_taken
    assert ("ref",) == await other.claim("handlers", now=62.0, until=120.0, limit=5)


async def test_an_append_that_is_sent_again_ends_no_later_claim(store: Store, other: Store) -> None:
    """An append with `release` that is sent again does not end a later claim."""
    await create(store, handle_at=50.0)
    handled, index = make_entry("handled", 55.0, body=b"text"), make_index(handle_at=55.0)
    for _ in range(2):
        assert ("ref",) == await claim_all(store, "handlers")
        await store.append("ref", [handled], provider="kie", index=index, known=1, look_at=55.0, release=True)

    assert () == await claim_all(other, "handlers")


async def test_a_release_needs_no_entry(store: Store) -> None:
    """A claim can be released without entries, with or without an index."""
    await create(store, handle_at=50.0)
    for index in (None, make_index(handle_at=50.0)):
        assert ("ref",) == await store.claim("handlers", now=60.0, until=110.0, limit=5)
        assert () == await store.claim("handlers", now=60.0, until=110.0, limit=5)

        await store.append("ref", (), provider="kie", index=index, known=1, release=True)

    assert 50.0 == await store.next_due("handlers")


async def test_a_hold_outlives_a_job_with_nothing_to_handle(store: Store) -> None:
    """A claim on handlers lasts even if the job has nothing to handle for a while."""
    await create(store, handle_at=50.0)
    await store.claim("handlers", now=60.0, until=110.0, limit=5)

    await store.append("ref", (), provider="kie", index=make_index(), known=1)
    assert None is await store.next_due("handlers")
    await store.append("ref", [make_webhook(1)], provider="kie", look_at=61.0)

    assert 110.0 == await store.next_due("handlers")


async def test_a_cancelled_claim_comes_again(store: Store, other: Store, work: Work) -> None:
    """A job claimed by a call that was cancelled is due again at the claim's end at the latest."""
    await create(store, **due(work, 50.0))
    claim = asyncio.create_task(store.claim(work, now=60.0, until=110.0, limit=5))
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)

    assert ("ref",) == await other.claim(work, now=110.0, until=200.0, limit=5)


async def test_a_connection_knows_what_others_claimed(store: Store, other: Store) -> None:
    """A connection sees what another one claimed and gave back since."""
    await create(store, poll_at=50.0, handle_at=50.0)
    for at in (100.0, 200.0):
        for work in DUE:
            assert ("ref",) == await other.claim(work, now=at, until=at + 90.0, limit=5)
        index = make_index(poll_at=60.0, handle_at=50.0)
        await store.append("ref", (), provider="kie", index=index, known=1, release=True)

    assert (60.0, 50.0) == (await store.next_due("polls"), await store.next_due("handlers"))


# --- clocks that were ahead ---------------------------------------------------------------------------------


async def test_work_scheduled_by_a_clock_ahead_is_due(store: Store, other: Store, work: Work) -> None:
    """Work due further ahead than *latest* is due now, since a clock was ahead; work due soon is not."""
    await create(store, "far", poll_at=4_600.0, handle_at=4_600.0)
    await create(store, "soon", poll_at=1_010.0, handle_at=1_010.0)
    assert () == await store.claim(work, now=900.0, until=960.0, limit=9, providers=["kie"], latest=5_000.0)
    await store.claim(work, now=4_500.0, until=4_560.0, limit=0, latest=5_000.0)  # it was ahead

    claimed = await store.claim(work, now=1_000.0, until=1_060.0, limit=9, providers=["kie"], latest=1_500.0)
    again = await other.claim(work, now=1_001.0, until=1_061.0, limit=9, latest=1_501.0)

    assert (("far",), ()) == (claimed, again)
    assert {"far", "soon"} == {*await claim_all(store, work, now=1_070.0, until=1_130.0)}


async def test_a_hold_made_by_a_clock_ahead_ends(store: Store) -> None:
    """A claim that seems to last over a day was made by a clock that was ahead, and ends; a shorter one stays."""
    await create(store, "works", handle_at=999.0)
    await create(store, "died", handle_at=1_000.0)
    await store.claim("handlers", now=1_000.0, until=4_000.0, limit=1)
    await store.claim("handlers", now=900_000.0, until=900_060.0, limit=1)

    assert ("died",) == await store.claim("handlers", now=1_001.0, until=1_061.0, limit=9, latest=1_060.0)
