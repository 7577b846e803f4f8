"""Every sentence of the store protocol about work that is due, for every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from audioext.models.entries import make_entry
from audioext.stores.base import Store, Work
from tests.unit.stores.journals import LOOK_AT, Connect, claim_all, create, held, make_index, make_webhook

DUE: dict[Work, str] = {"polls": "poll_at", "handlers": "handle_at"}


def due(work: Work, at: float) -> dict[str, Any]:
    """Return the field of an index that says when *work* is due."""
    return {DUE[work]: at}


@pytest.fixture(params=DUE)
def work(request: pytest.FixtureRequest) -> Work:
    """Return each kind of work."""
    work: Work = request.param
    return work


async def test_what_is_due_is_claimed_by_one(store: Store, other: Store, work: Work) -> None:
    """A claim takes what is due by now until it is over; nobody else gets it meanwhile, and then it comes again."""
    await create(store, **due(work, 50.0))
    assert () == await store.claim(work, now=49.9, until=60.0, limit=5)

    assert ("ref",) == await other.claim(work, now=50.0, until=110.0, limit=5)

    assert 110.0 == await store.next_due(work)
    assert () == await store.claim(work, now=109.9, until=500.0, limit=5)
    assert ("ref",) == await store.claim(work, now=110.0, until=500.0, limit=5)


async def test_the_most_overdue_comes_first(store: Store, work: Work) -> None:
    """`claim` takes what has been due for longest, up to its limit, and nothing that is not due."""
    for ref, at in (("b", 20.0), ("d", 101.0), ("a", 10.0), ("c", 30.0)):
        await create(store, ref, **due(work, at))

    claims = [await store.claim(work, now=100.0, until=900.0, limit=2) for _ in range(3)]

    assert [("a", "b"), ("c",), ()] == claims
    assert 101.0 == await store.next_due(work)


async def test_work_of_other_providers_is_left_alone(store: Store, work: Work) -> None:
    """`claim` and `next_due` look at the given providers alone."""
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


async def test_what_is_never_due_is_never_claimed(store: Store, work: Work) -> None:
    """A job whose index names no time for it is not claimed."""
    await create(store)

    assert () == await claim_all(store, work)
    assert None is await store.next_due(work)


async def test_an_index_says_anew_what_is_due(store: Store, work: Work) -> None:
    """An index that is taken replaces the due time; one without it ends the work."""
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
    """The next status call is due when the claim is over, which the index shows."""
    await create(store, poll_at=50.0, handle_at=9_000.0)

    await store.claim("polls", now=60.0, until=110.0, limit=5)

    assert make_index(poll_at=110.0, handle_at=9_000.0) == (await held(store)).index


async def test_a_claim_on_handlers_holds_the_job(store: Store, other: Store) -> None:
    """The due time stays as it is; what is appended meanwhile neither ends nor doubles the claim."""
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
    """An append that releases ends the hold, whether its index is taken or not."""
    await create(store, handle_at=50.0)
    await store.claim("handlers", now=60.0, until=110.0, limit=5)
    handled = make_entry("handled", 61.0, note="text")

    appended = await store.append(
        "ref", [handled], provider="kie", index=make_index(handle_at=55.0), known=known, look_at=55.0, release=True
    )

    assert (known == 1) == appended.is_taken
    assert ("ref",) == await other.claim("handlers", now=62.0, until=120.0, limit=5)


async def test_an_append_that_is_sent_again_ends_no_later_claim(store: Store, other: Store) -> None:
    """An answer may be lost after the work was claimed anew: what was done before releases nothing."""
    await create(store, handle_at=50.0)
    handled, index = make_entry("handled", 55.0, body=b"text"), make_index(handle_at=55.0)
    for _ in range(2):
        assert ("ref",) == await claim_all(store, "handlers")
        await store.append("ref", [handled], provider="kie", index=index, known=1, look_at=55.0, release=True)

    assert () == await claim_all(other, "handlers")


async def test_a_release_needs_no_entry(store: Store) -> None:
    """A claim can be ended with nothing to append, with or without an index."""
    await create(store, handle_at=50.0)
    for index in (None, make_index(handle_at=50.0)):
        assert ("ref",) == await store.claim("handlers", now=60.0, until=110.0, limit=5)
        assert () == await store.claim("handlers", now=60.0, until=110.0, limit=5)

        await store.append("ref", (), provider="kie", index=index, known=1, release=True)

    assert 50.0 == await store.next_due("handlers")


async def test_a_hold_outlives_a_job_with_nothing_to_handle(store: Store) -> None:
    """A held job that has nothing for handlers meanwhile, and then something, is still held."""
    await create(store, handle_at=50.0)
    await store.claim("handlers", now=60.0, until=110.0, limit=5)

    await store.append("ref", (), provider="kie", index=make_index(), known=1)
    assert None is await store.next_due("handlers")
    await store.append("ref", [make_webhook(1)], provider="kie", look_at=61.0)

    assert 110.0 == await store.next_due("handlers")


async def test_what_was_claimed_can_be_given_back(store: Store, other: Store, work: Work) -> None:
    """It is due when its worker says, and can be claimed by another one then."""
    await create(store, **due(work, 90.0))
    await store.claim(work, now=100.0, until=200.0, limit=5)

    await other.reschedule("ref", work, at=90.0)

    assert 90.0 == await store.next_due(work)
    assert ("ref",) == await other.claim(work, now=100.0, until=200.0, limit=5)


async def test_giving_back_makes_nothing_later(store: Store, work: Work) -> None:
    """What became due sooner meanwhile stays so, and what is not due at all any more stays that way."""
    await create(store, **due(work, 90.0))
    await store.claim(work, now=100.0, until=200.0, limit=5)

    await store.append("ref", (), provider="kie", index=make_index(**due(work, 80.0)), known=1)
    await store.reschedule("ref", work, at=150.0)
    assert 80.0 == await store.next_due(work)
    await store.append("ref", (), provider="kie", index=make_index(), known=1)
    await store.reschedule("ref", work, at=150.0)

    assert None is await store.next_due(work)


async def test_a_status_call_can_be_put_off_within_its_claim(store: Store) -> None:
    """A poll that found nothing new is due again before its claim would have ended."""
    await create(store, poll_at=50.0)
    await store.claim("polls", now=60.0, until=200.0, limit=5)

    await store.reschedule("ref", "polls", at=75.0)

    assert 75.0 == await store.next_due("polls")


async def test_giving_back_what_is_not_there_is_harmless(store: Store, work: Work) -> None:
    """A job that is gone, or has no request, is not made due."""
    await store.append("orphan", [make_webhook(1)], provider="kie", look_at=1.0)

    for ref in ("orphan", "gone"):
        await store.reschedule(ref, work, at=1.0)

    assert None is await store.next_due(work)
    assert () == await claim_all(store, work)


async def test_a_cancelled_claim_comes_again(store: Store, other: Store, work: Work) -> None:
    """What was claimed for a caller that was cancelled can be claimed at the claim's end at the latest."""
    await create(store, **due(work, 50.0))
    claim = asyncio.create_task(store.claim(work, now=60.0, until=110.0, limit=5))
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)

    assert ("ref",) == await other.claim(work, now=110.0, until=200.0, limit=5)


async def test_a_connection_knows_what_others_claimed(store: Store, other: Store) -> None:
    """What one connection has read of a job does not hide what another one made of it since."""
    await create(store, poll_at=50.0, handle_at=50.0)
    for at in (100.0, 200.0):
        for work in DUE:
            assert ("ref",) == await other.claim(work, now=at, until=at + 90.0, limit=5)
            await store.reschedule("ref", work, at=60.0)

    assert (60.0, 50.0) == (await store.next_due("polls"), await store.next_due("handlers"))


# --- clocks that were ahead ---------------------------------------------------------------------------------


async def test_what_a_clock_ahead_put_down_is_due(store: Store, other: Store, work: Work) -> None:
    """What is due further ahead than it can be is claimed, by whoever may; what is due soon is not."""
    await create(store, "far", poll_at=4_600.0, handle_at=4_600.0)
    await create(store, "soon", poll_at=1_010.0, handle_at=1_010.0)
    assert () == await store.claim(work, now=900.0, until=960.0, limit=9, providers=["kie"], latest=5_000.0)
    await store.claim(work, now=4_500.0, until=4_560.0, limit=0, latest=5_000.0)  # it was ahead

    claimed = await store.claim(work, now=1_000.0, until=1_060.0, limit=9, providers=["kie"], latest=1_500.0)
    again = await other.claim(work, now=1_001.0, until=1_061.0, limit=9, latest=1_501.0)

    assert (("far",), ()) == (claimed, again)
    assert {"far", "soon"} == {*await claim_all(store, work, now=1_070.0, until=1_130.0)}


async def test_a_hold_that_a_clock_ahead_put_down_ends(store: Store) -> None:
    """A long hold is somebody's who works; one of more than a day was put down by a clock that was ahead."""
    await create(store, "works", handle_at=999.0)
    await create(store, "died", handle_at=1_000.0)
    await store.claim("handlers", now=1_000.0, until=4_000.0, limit=1)
    await store.claim("handlers", now=900_000.0, until=900_060.0, limit=1)

    assert ("died",) == await store.claim("handlers", now=1_001.0, until=1_061.0, limit=9, latest=1_060.0)
