"""The state of one job, and what derives from it."""

from __future__ import annotations

import sys
import typing

import msgspec
import pytest

from audioext.models import entries, events, record
from audioext.models.record import Record, Run, Verdict
from audioext.models.requests import Operation
from audioext.models.results import Stage
from tests.support.tape import asked


def make(**fields: object) -> Record:
    """Return a record of which only the request is known."""
    plain = {"ref": "r", "asked": asked(key="mine", meta={"chat": 1}, grace=60.0, webhooks=False), "created_at": 100.0}
    return Record(**{**plain, **fields})  # type: ignore[arg-type]  # a test's own fields


@pytest.mark.parametrize("member", [*Stage, *Verdict])
def test_a_stage_and_a_verdict_show_their_names(member: Stage | Verdict) -> None:
    """A stage or a verdict as text is its name in lower case, and as JSON its number."""
    assert [member.name.lower()] * 3 == [str(member), f"{member}", "%s" % member]  # noqa: UP031 - as loggers do
    assert str(int(member)).encode() == msgspec.json.encode(member)


def test_a_record_knows_what_was_asked_for() -> None:
    """A record exposes the fields of its request."""
    found = make()

    assert ("tape", "V5", "mine", {"chat": 1}) == (found.provider, found.model, found.key, found.meta)
    assert (Operation.EXTEND, 2, False, 60.0) == (
        found.operation,
        found.expected_tracks,
        found.webhooks,
        found.grace,
    )
    assert found.asked.request is found.request


def test_a_record_takes_little_memory() -> None:
    """A record has no dictionary of its own, so that each takes little memory."""
    assert sys.getsizeof(make()) < 300


def test_the_outcome_is_unknown_after_the_grace_period() -> None:
    """The outcome counts as unknown once the grace period has passed since the job was made."""
    assert 160.0 == make().unknown_at


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_but_open_is_final(verdict: Verdict) -> None:
    """Every verdict but OPEN is final."""
    assert (verdict is not Verdict.OPEN) == make(verdict=verdict).is_final


def test_a_records_repr_shows_all_but_its_sightings() -> None:
    """The sightings repeat the tracks, and would make the repr many times as long."""
    shown = repr(make(task_id="t"))

    assert shown.startswith("Record(ref='r', asked=Asked(")
    assert "task_id='t'" in shown
    assert "sightings" not in shown


def test_verdicts_are_ordered() -> None:
    """Verdicts are ordered: a higher one outranks a lower one."""
    assert [Verdict.OPEN, Verdict.REFUSED, Verdict.EXPIRED, Verdict.FAILED, Verdict.COMPLETE] == sorted(Verdict)


def test_faults_are_those_of_handlers_that_were_given_up() -> None:
    """Only handlers that were given up are faults; one that is still retried or has succeeded is not."""
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
    """The type hints of all models can be resolved at run time."""
    assert typing.get_type_hints(public)
