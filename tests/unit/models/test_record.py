"""The state of one job, and what follows from it at sight."""

from __future__ import annotations

import sys
import typing

import pytest

from audioext.models import entries, events, record
from audioext.models.record import Record, Run, Verdict
from audioext.models.requests import Operation
from tests.support.tape import asked


def make(**fields: object) -> Record:
    """Return a job of which nothing is known yet."""
    plain = {"ref": "r", "asked": asked(key="mine", meta={"chat": 1}, grace=60.0, webhooks=False), "created_at": 100.0}
    return Record(**{**plain, **fields})  # type: ignore[arg-type]  # a test's own fields


def test_a_record_knows_what_was_asked_for() -> None:
    """What the job began with can be read without detours."""
    found = make()

    assert ("tape", "V5", "mine", {"chat": 1}) == (found.provider, found.model, found.key, found.meta)
    assert (Operation.EXTEND, 2, False, 60.0) == (
        found.operation,
        found.expected_tracks,
        found.webhooks,
        found.grace,
    )
    assert found.asked.request is found.request


def test_records_share_the_names_of_their_fields() -> None:
    """A job that is awaited takes little memory: Python keeps the names once, up to 29 of them."""
    assert sys.getsizeof(vars(make())) < 500


def test_the_outcome_is_unknown_after_the_grace_period() -> None:
    """Without word of the task, the outcome counts as unknown so many seconds after the job was made."""
    assert 160.0 == make().unknown_at


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_but_open_is_final(verdict: Verdict) -> None:
    """A job has ended as soon as it has a verdict."""
    assert (verdict is not Verdict.OPEN) == make(verdict=verdict).is_final


def test_verdicts_rise() -> None:
    """The later a verdict stands in this order, the more it outranks."""
    assert [Verdict.OPEN, Verdict.REFUSED, Verdict.EXPIRED, Verdict.FAILED, Verdict.COMPLETE] == sorted(Verdict)


def test_faults_are_those_of_handlers_that_were_given_up() -> None:
    """A handler that still is tried again is no fault, nor is one that succeeded in the end."""
    runs = {
        ("text", "bot.b"): Run(failures=5, error="ValueError: b", is_done=True),
        ("text", "bot.a"): Run(failures=5, error="ValueError: a", is_done=True),
        ("first", "bot.a"): Run(failures=2, error="ValueError: c"),
        ("complete", "bot.a"): Run(failures=1, is_done=True),
    }

    assert ("text: ValueError: a", "text: ValueError: b") == make(runs=runs).handler_faults


@pytest.mark.parametrize(
    "public",
    [entries.Entry, entries.Index, events.Progress, events.Failed, events.Submitted, record.Asked, Record, Run],
)
def test_type_hints_resolve(public: type) -> None:
    """What the models name can be found at run time."""
    assert typing.get_type_hints(public)
