"""Every sentence of the store protocol about an account's limits, for every store."""

from __future__ import annotations

import asyncio

import pytest

from audioext.models.entries import POST_SECONDS
from audioext.models.limits import Limits
from audioext.stores.base import Created, Existing, Full, Store
from tests.unit.stores.journals import Connect, create, listed, make_index, make_webhook

TWO_OPEN = Limits(submits=None, parallel=2)
TWO_SUBMITS = Limits(submits=2, per=10.0, parallel=None)


async def test_an_account_has_so_many_open_jobs(store: Store, other: Store) -> None:
    """Beyond the limit nothing is stored until a job ends; when one will, nobody knows."""
    for number in range(2):
        assert Created() == await create(store, f"ref{number}", occupies_until=500.0, limits=TWO_OPEN)

    assert Full(101.0) == await create(other, "late", limits=TWO_OPEN)
    assert ["ref0", "ref1"] == await listed(store)
    closed = make_index("ref0", is_open=False)
    assert (await store.append("ref0", [make_webhook(1)], provider="kie", index=closed, known=1)).is_taken
    assert Created() == await create(other, "late", limits=TWO_OPEN)


async def test_a_job_occupies_until_its_time_is_over(store: Store) -> None:
    """A job whose time is over counts no more, whatever became of it."""
    for number in range(2):
        await create(store, f"ref{number}", occupies_until=500.0)

    assert Full(500.9) == await create(store, "early", limits=TWO_OPEN, now=499.9)
    assert Created() == await create(store, "late", limits=TWO_OPEN, now=500.0)


async def test_accounts_do_not_count_for_each_other(store: Store) -> None:
    """Only jobs of the same account count, whichever provider they are of."""
    await create(store, "one", occupies_until=500.0)
    await create(store, "two", occupies_until=500.0, provider="kiejobs")

    assert Created() == await create(store, "three", limits=TWO_OPEN, account="another", occupies_until=500.0)
    assert isinstance(await create(store, "four", limits=TWO_OPEN), Full)


async def test_an_account_has_so_many_submits_in_a_window(store: Store, other: Store) -> None:
    """Submits count until their window has passed since their answer; the first to leave says when to come again."""
    await create(store, "one", answered_at=103.0)
    await create(store, "two", answered_at=101.0)

    assert Full(111.0) == await create(other, "late", limits=TWO_SUBMITS, now=104.0)
    assert Full(111.0) == await create(other, "late", limits=TWO_SUBMITS, now=110.5)
    assert Created() == await create(other, "late", limits=TWO_SUBMITS, now=111.5)


async def test_a_submit_answered_by_a_clock_ahead_counts(store: Store) -> None:
    """A window lies on both sides of now, since clocks differ; one far ahead does not block for long."""
    await create(store, "one", answered_at=105.0)
    await create(store, "two", answered_at=103.0)
    assert isinstance(await create(store, "late", limits=TWO_SUBMITS, now=100.0), Full)

    await store.append("two", (), provider="kie", index=make_index("two", answered_at=3_700.0), known=1)

    assert Created() == await create(store, "late", limits=TWO_SUBMITS, now=100.0)


async def test_a_submit_without_an_answer_counts_as_long_as_a_post_may_take(store: Store) -> None:
    """Until then its window has not even begun; with its answer it counts like any other."""
    await create(store, "one", created_at=100.0)
    await create(store, "two", created_at=100.0)

    full = await create(store, "late", limits=TWO_SUBMITS, now=99.0 + POST_SECONDS)
    assert isinstance(full, Full)
    assert 99.0 + POST_SECONDS < full.until <= 100.0 + POST_SECONDS
    assert Created() == await create(store, "late", limits=TWO_SUBMITS, now=101.0 + POST_SECONDS)


async def test_a_refused_submit_leaves_its_window_like_any_other(store: Store) -> None:
    """Closed jobs count for the window, since the account's provider counted them."""
    await create(store, "one", answered_at=100.0, is_open=False)
    await create(store, "two", answered_at=101.0, is_open=False)

    assert Full(110.0) == await create(store, "late", limits=TWO_SUBMITS, now=105.0)


async def test_a_full_account_tells_of_an_existing_job(store: Store) -> None:
    """The key is looked up before anything is counted."""
    for number in range(2):
        await create(store, f"ref{number}", key=f"k{number}", occupies_until=500.0)

    assert Existing("ref1") == await create(store, "late", key="k1", limits=TWO_OPEN)
    assert isinstance(await create(store, "late", key="k2", limits=TWO_OPEN), Full)


async def test_an_orphan_does_not_count(store: Store) -> None:
    """A journal without a request is of no account."""
    for number in range(3):
        await store.append(f"ref{number}", [make_webhook(number)], provider="kie", look_at=1.0)

    both = Limits(submits=1, parallel=1)
    assert Created() == await create(store, "one", limits=both, account="", now=101.0)


@pytest.mark.parametrize("limits", [Limits(submits=None, parallel=5), Limits(submits=5, parallel=None)])
async def test_of_many_creates_at_once_so_many_are_stored(connect: Connect, limits: Limits) -> None:
    """Concurrent creates over several connections never exceed the limit, and reach it."""
    stores = [await connect() for _ in range(4)]

    outcomes = await asyncio.gather(
        *(create(stores[n % 4], f"ref{n}", limits=limits, occupies_until=500.0) for n in range(40))
    )

    assert 5 == outcomes.count(Created()) == len(await listed(stores[0]))


async def test_a_submit_of_a_clock_that_was_ahead_does_not_count(store: Store) -> None:
    """What was posted or answered an hour ahead of now is in no window that ends now."""
    limits = Limits(submits=1, per=10.0)
    await create(store, "answered", created_at=3_700.0, answered_at=3_701.0)
    await create(store, "posted", created_at=3_700.0)

    assert Created() == await create(store, "now", limits=limits, now=100.0)
