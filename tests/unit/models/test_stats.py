"""Counters, and the statistics that users get."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.models.stats import STAGE_SECONDS, STORE_SECONDS, Counts, Durations

seconds = st.floats(0.0, 1e6) | st.sampled_from(STAGE_SECONDS)


@given(taken=st.lists(seconds, max_size=30))
def test_each_duration_counts_once_where_it_belongs(taken: list[float]) -> None:
    """Each duration counts in the bucket of the first bound that it does not exceed, or in the last one."""
    durations = Durations(STAGE_SECONDS)
    for each in taken:
        durations.add(each)
    found = durations.histogram()

    bounds = (float("-inf"), *STAGE_SECONDS, float("inf"))
    assert tuple(sum(low < each <= high for each in taken) for low, high in pairwise(bounds)) == found.counts
    assert len(taken) == found.count
    assert found.sum == pytest.approx(sum(taken))  # `sum` rounds less since 3.12
    assert found.mean == pytest.approx(sum(taken) / len(taken) if taken else 0.0)


def test_statistics_are_a_snapshot() -> None:
    """Statistics are a snapshot, which later counts do not change, and a counter that was never used reads 0."""
    counts = Counts()
    counts.webhooks["kie", "applied"] += 1
    counts.stages["kie", ax.Stage.TEXT].add(3.0)
    then = counts.stats(open_jobs=1, answers=Counter({200: 1}))
    counts.webhooks["kie", "applied"] += 1
    counts.stages["kie", ax.Stage.TEXT].add(5.0)
    counts.appends.add(0.002)

    assert (1, 0) == (then.webhooks["kie", "applied"], then.webhooks["vidgo", "refused"])
    assert 3.0 == then.stages["kie", ax.Stage.TEXT].mean
    assert ax.Histogram(STORE_SECONDS, (0,) * (len(STORE_SECONDS) + 1), 0.0) == then.appends
    assert (1, 1) == (then.open_jobs, then.answers[200])
