"""Every sentence of the `Store` protocol about an account's limits, for every store."""

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
    """A `create` beyond the limit of open jobs stores nothing until a job ends, and may be retried in a second."""
    for number in range(2):
        assert Created() == await create(store, f"ref{number}", occupies_until=500.0, limits=TWO_OPEN)

    assert Full(101.0) == await create(other, "late", limits=TWO_OPEN)
    assert ["ref0", "ref1"] == await listed(store)
    closed = make_index("ref0", is_open=False)
    assert (await store.append("ref0", [make_webhook(1)], provider="kie", index=closed, known=1)).is_taken
    assert Created() == await create(other, "late", limits=TWO_OPEN)


async def test_a_job_occupies_until_its_time_is_over(store: Store) -> None:
    """A job counts as open only until `occupies_until`."""
    for number in range(2):
        await create(store, f"ref{number}", occupies_until=500.0)

    assert Full(500.9) == await create(store, "early", limits=TWO_OPEN, now=499.9)
    assert Created() == await create(store, "late", limits=TWO_OPEN, now=500.0)


async def test_accounts_do_not_count_for_each_other(store: Store) -> None:
    """Only jobs of the same account count, whichever provider they have."""
    await create(store, "one", occupies_until=500.0)
    await create(store, "two", occupies_until=500.0, provider="kiejobs")

    assert Created() == await create(store, "three", limits=TWO_OPEN, account="another", occupies_until=500.0)
    assert isinstance(await create(store, "four", limits=TWO_OPEN), Full)


async def test_an_account_has_so_many_submits_in_a_window(store: Store, other: Store) -> None:
    """A submit counts until its window has passed since its answer, and `Full` says when the first one leaves."""
    await create(store, "one", answered_at=103.0)
    await create(store, "two", answered_at=101.0)

    assert Full(111.0) == await create(other, "late", limits=TWO_SUBMITS, now=104.0)
    assert Full(111.0) == await create(other, "late", limits=TWO_SUBMITS, now=110.5)
    assert Created() == await create(other, "late", limits=TWO_SUBMITS, now=111.5)


async def test_a_submit_answered_by_a_clock_ahead_counts(store: Store) -> None:
    """An answer slightly ahead of now counts in the window, one far ahead does not."""
    await create(store, "one", answered_at=105.0)
    await create(store, "two", answered_at=103.0)
    assert isinstance(await create(store, "late", limits=TWO_SUBMITS, now=100.0), Full)

    await store.append("two", (), provider="kie", index=make_index("two", answered_at=3_700.0), known=1)

    assert Created() == await create(store, "late", limits=TWO_SUBMITS, now=100.0)


async def test_a_submit_without_an_answer_counts_as_long_as_a_post_may_take(store: Store) -> None:
    """An unanswered submit counts as long as a POST may take, and an answered one in its window."""
    await create(store, "one", created_at=100.0)
    await create(store, "two", created_at=100.0)

    full = await create(store, "late", limits=TWO_SUBMITS, now=99.0 + POST_SECONDS)
    assert isinstance(full, Full)
    assert 99.0 + POST_SECONDS < full.until <= 100.0 + POST_SECONDS
    assert Created() == await create(store, "late", limits=TWO_SUBMITS, now=101.0 + POST_SECONDS)


async def test_a_refused_submit_leaves_its_window_like_any_other(store: Store) -> None:
    """Closed jobs count in the window like open ones, since the provider counted them."""
    await create(store, "one", answered_at=100.0, is_open=False)
    await create(store, "two", answered_at=101.0, is_open=False)

    assert Full(110.0) == await create(store, "late", limits=TWO_SUBMITS, now=105.0)


async def test_a_full_account_still_returns_the_job_of_a_key(store: Store) -> None:
    """A full account still returns the existing job of a key."""
    for number in range(2):
        await create(store, f"ref{number}", key=f"k{number}", occupies_until=500.0)

    assert Existing("ref1") == await create(store, "late", key="k1", limits=TWO_OPEN)
    assert isinstance(await create(store, "late", key="k2", limits=TWO_OPEN), Full)


async def test_an_orphan_does_not_count(store: Store) -> None:
    """An orphan does not count towards any account."""
    for number in range(3):
        await store.append(f"ref{number}", [make_webhook(number)], provider="kie", look_at=1.0)

    both = Limits(submits=1, parallel=1)
    assert Created() == await create(store, "one", limits=both, account="", now=101.0)


@pytest.mark.parametrize("limits", [Limits(submits=None, parallel=5), Limits(submits=5, parallel=None)])
async def test_of_many_creates_at_once_so_many_are_stored(connect: Connect, limits: Limits) -> None:
    """Concurrent creates over several connections reach the limit and never exceed it."""
    stores = [await connect() for _ in range(4)]

    outcomes = await asyncio.gather(
        *(create(stores[n % 4], f"ref{n}", limits=limits, occupies_until=500.0) for n in range(40))
    )

    assert 5 == outcomes.count(Created()) == len(await listed(stores[0]))


async def test_a_submit_of_a_clock_that_was_ahead_does_not_count(store: Store) -> None:
    """A submit that was posted or answered an hour ahead of now is in no window."""
    limits = Limits(submits=1, per=10.0)
    await create(store, "answered", created_at=3_700.0, answered_at=3_701.0)
    await create(store, "posted", created_at=3_700.0)

    assert Created() == await create(store, "now", limits=limits, now=100.0)
