"""When a job's status call and handlers are due, and the index row that holds these times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.models.entries import POST_SECONDS, Entry, Index, make_entry
from audioext.models.limits import Pace
from audioext.models.record import Record
from audioext.models.results import Stage
from audioext.state.schedule import (
    FARTHEST_SECONDS,
    JITTER_SHARE,
    MAX_ATTEMPTS,
    RETRY_SECONDS,
    SLACK_SECONDS,
    farthest,
    handle_at,
    index_of,
    poll_at,
)
from tests.support import tape
from tests.support.tape import TASK, folded

PACE = Pace(first=15.0, every=10.0, slowest=30.0, backoff=1.25, quiet=150.0)
DAY = 86_400.0
ANSWER = tape.answer(1.0)
TEXT = tape.webhook(20.0, tape.shown(Stage.TEXT))
DONE = tape.webhook(30.0, tape.shown(Stage.COMPLETE, tape.track("a")))


def due(
    record: Record, *, now: float, polled_at: float = 0.0, jitter: float = 0.0, deadline: float = DAY
) -> float | None:
    """Return when *record*'s status is due at the pace of these tests."""
    return poll_at(record, pace=PACE, now=now, jitter=jitter, deadline=deadline, polled_at=polled_at)


def row(*entries: Entry, now: float = 50.0, **asked: object) -> Index:
    """Return the index row of a job with *entries*, whose next status call is due at 77."""
    record = folded(tape.request(**asked), *entries)
    return index_of(record, now=now, poll_at=77.0, expire_after=DAY)


# --- status calls -------------------------------------------------------------------------------------------


def test_an_ended_job_has_no_next_status_call() -> None:
    """Complete, failed, expired and refused jobs have no next status call."""
    ends = [DONE, tape.webhook(30.0, tape.failed()), make_entry("expired", 30.0), tape.refusal(30.0)]

    assert [None] * 4 == [due(folded(tape.request(), end), now=40.0) for end in ends]


def test_a_doubtful_webhook_of_an_ended_job_causes_one_status_call() -> None:
    """A doubtful webhook of a failed or expired job makes one more status call due, and only one."""
    for end in (tape.webhook(30.0, tape.failed()), make_entry("expired", 30.0)):
        record = folded(
            tape.request(), ANSWER, end, make_entry("webhook", 35.0, body=b"{", note="unreadable: it is cut")
        )

        assert 40.0 == due(record, now=40.0)
        assert due(record, now=41.0, polled_at=40.0) is None


def test_a_job_without_a_task_waits_for_its_deadline() -> None:
    """A job without a task is looked at now and then until its deadline, since no status call can be made."""
    assert 10.0 + FARTHEST_SECONDS == due(folded(tape.request()), now=10.0)
    assert DAY == due(folded(tape.request()), now=DAY - 1.0)


def test_with_webhooks_the_first_call_comes_after_a_silence() -> None:
    """With webhooks, the first status call is due after a silence since the last news."""
    assert 151.0 == due(folded(tape.request(), ANSWER), now=1.0)
    assert 170.0 == due(folded(tape.request(), ANSWER, TEXT), now=20.0)


def test_without_webhooks_the_first_call_comes_soon() -> None:
    """Without webhooks, the first status call is due at the pace of the API."""
    assert 16.0 == due(folded(tape.request(webhooks=False), ANSWER), now=1.0)


def test_an_open_question_is_due_now() -> None:
    """An open question makes a status call due at once, and then at the normal pace until it is answered."""
    asking = folded(tape.request(), ANSWER, tape.webhook(20.0, tape.shown(None, ask_now=True)))

    assert 21.0 == due(asking, now=21.0)
    assert 21.0 == due(asking, now=21.0, polled_at=19.0)
    assert 32.0 == due(asking, now=22.0, polled_at=21.0)


def test_calls_grow_slower_and_have_a_slowest_pace() -> None:
    """The intervals between status calls grow with the age of the job, up to the slowest pace."""
    record = folded(tape.request(), ANSWER)

    waits = [(due(record, now=now, polled_at=now) or 0.0) - now for now in (2.0, 40.0, 80.0, 119.0, 500.0)]
    assert [10.0, 10.0, 20.0, 29.75, 30.0] == waits


def test_a_webhook_after_a_call_begins_a_new_silence() -> None:
    """A webhook after the last status call begins a new silence."""
    record = folded(tape.request(), ANSWER, TEXT)

    assert 170.0 == due(record, now=20.0, polled_at=10.0)
    assert 40.0 == due(record, now=30.0, polled_at=25.0)


def test_the_deadline_is_the_last_call() -> None:
    """A call that would be later than the deadline is due at it, and calls that failed continue past it."""
    record = folded(tape.request(), ANSWER)

    assert 100.0 == due(record, now=90.0, polled_at=90.0, deadline=100.0)
    assert 137.5 == due(record, now=110.0, polled_at=110.0, deadline=100.0)


@given(
    now=st.floats(1.0, 2 * DAY),
    polled=st.floats(0.0, 1.0),
    jitter=st.floats(0.0, 1.0),
    webhooks=st.booleans(),
)
def test_a_status_call_is_never_due_in_the_past(*, now: float, polled: float, jitter: float, webhooks: bool) -> None:
    """The next status call is never in the past, nor further away than the longest interval."""
    record = folded(tape.request(webhooks=webhooks), ANSWER)
    at = due(record, now=now, polled_at=now * polled, jitter=jitter)

    assert at is not None
    assert now <= at <= now + PACE.quiet * (1 + JITTER_SHARE)


# --- handlers -----------------------------------------------------------------------------------------------


def test_handlers_are_due_as_long_as_a_topic_is_left() -> None:
    """Handlers are due now until the last topic is handled."""
    journal = [tape.request(), TEXT]

    assert handle_at(folded(tape.request()), 25.0) is None
    assert 25.0 == handle_at(folded(*journal), 25.0)
    assert handle_at(folded(*journal, tape.handled(24.0, "text")), 25.0) is None


@pytest.mark.parametrize(("failure", "wait"), [(1, 1.0), (2, 2.0), (4, 8.0), (9, 256.0), (10, 300.0), (19, 300.0)])
def test_a_handler_that_failed_waits_longer_each_time(failure: int, wait: float) -> None:
    """A failed handler's wait doubles with each failure, from the time of the last one."""
    run = tape.handled(24.0, "text", "bot.tell", failure=failure, error="no", is_over=False)

    assert 24.0 + wait * RETRY_SECONDS == handle_at(folded(tape.request(), TEXT, run), 24.0)
    assert 999.0 == handle_at(folded(tape.request(), TEXT, run), 999.0)
    assert failure < MAX_ATTEMPTS


def test_of_several_failing_handlers_the_soonest_counts() -> None:
    """Of several failing handlers the one with the shortest wait determines when handlers are due."""
    often = tape.handled(24.0, "text", "bot.often", failure=4, error="no", is_over=False)
    once = tape.handled(24.0, "text", "bot.once", failure=1, error="no", is_over=False)

    assert 25.0 == handle_at(folded(tape.request(), TEXT, often, once), 24.0)


def test_only_failures_of_the_topic_whose_turn_it_is_count() -> None:
    """A handler that is done, or failed at a topic that is over, delays no others."""
    over = tape.handled(24.0, "text", "bot.tell", failure=5, error="no")
    later = tape.webhook(26.0, tape.shown(Stage.FIRST, tape.track("a")))

    assert 24.0 == handle_at(folded(tape.request(), TEXT, over), 24.0)
    assert 26.0 == handle_at(folded(tape.request(), TEXT, over, tape.handled(24.0, "text"), later), 26.0)


# --- the index row ------------------------------------------------------------------------------------------


def test_a_new_jobs_row() -> None:
    """A new job's row is open, has its key but no task, and counts towards the limits as long as a POST may take."""
    expected = Index(
        ref=tape.REF,
        provider="tape",
        account="tape",
        created_at=0.0,
        key="mine",
        is_open=True,
        occupies_until=POST_SECONDS,
        poll_at=77.0,
    )

    assert expected == row(key="mine")


def test_a_running_jobs_row() -> None:
    """A running job's row counts towards the limits until its expiry, and its handlers are due now."""
    found = row(ANSWER, TEXT)

    assert (TASK, 1.0, True) == (found.task_id, found.answered_at, found.is_open)
    assert (DAY, 50.0) == (found.occupies_until, found.handle_at)


def test_an_ended_jobs_row() -> None:
    """An ended job's row no longer counts as open towards the limits, and keeps its key and its task."""
    found = row(ANSWER, DONE, key="mine")

    assert (False, 0.0, "mine", TASK) == (found.is_open, found.occupies_until, found.key, found.task_id)


def test_a_refused_jobs_row_frees_its_key() -> None:
    """A refused job's row has no key, so that it can be used again, and counts in the window, since it was answered."""
    found = row(tape.refusal(2.0), key="mine")

    assert (None, False, 0.0, 2.0) == (found.key, found.is_open, found.occupies_until, found.answered_at)


def test_a_submit_that_never_left_counts_in_no_window() -> None:
    """A submit that was never sent counts in no window."""
    found = row(make_entry("abandoned", 2.0, note="no connection"), key="mine")

    assert (None, False, 0.0) == (found.key, found.is_open, found.answered_at)


def test_an_unknown_outcome_frees_its_part_of_the_limits() -> None:
    """A job with an unknown outcome stays open and keeps its key, but no longer counts as open towards the limits."""
    found = row(make_entry("answer", 2.0, note="the connection broke"), key="mine")

    assert ("mine", True, 0.0, 2.0) == (found.key, found.is_open, found.occupies_until, found.answered_at)


def test_a_task_that_a_webhook_named_after_a_refusal_has_its_key_back() -> None:
    """A job whose task a webhook named after a refusal has its key again, and counts towards the limits."""
    found = row(tape.refusal(2.0), TEXT, key="mine")

    assert ("mine", True, DAY, TASK) == (found.key, found.is_open, found.occupies_until, found.task_id)


# --- clocks that were ahead ---------------------------------------------------------------------------------


def test_a_handler_failure_in_the_future_is_due_now() -> None:
    """A handler that failed while the clock was an hour ahead is due now, not in an hour."""
    failed = tape.handled(3_650.0, "text", "one", failure=1, is_over=False)
    record = folded(tape.request(), ANSWER, TEXT, failed)

    assert (50.0, 3_650.0 + RETRY_SECONDS) == (handle_at(record, 50.0), handle_at(record, 3_650.0))


def test_a_clock_that_is_a_little_ahead_shortens_no_pause() -> None:
    """A handler that failed by a clock some seconds ahead keeps its pause, however long that is."""
    failed = tape.handled(52.0, "text", "one", failure=10, is_over=False)

    assert 352.0 == handle_at(folded(tape.request(), ANSWER, TEXT, failed), 50.0)


def test_a_job_of_a_clock_that_was_ahead_occupies_no_longer_than_others() -> None:
    """A job created by a clock that was ahead counts towards the limits from now on, not from its creation."""
    record = folded(tape.request(3_600.0))
    index = index_of(record, now=50.0, poll_at=None, expire_after=DAY)

    assert (3_600.0, 50.0 + POST_SECONDS) == (index.created_at, index.occupies_until)


def test_no_stored_time_is_further_ahead_than_possible() -> None:
    """No time in an index row is further ahead than the slowest pace, or a quarter of an hour, plus a little slack."""
    assert FARTHEST_SECONDS + SLACK_SECONDS == farthest([])
    assert FARTHEST_SECONDS + SLACK_SECONDS == farthest([PACE])
    assert 3_600.0 * (1 + JITTER_SHARE) + SLACK_SECONDS == farthest([PACE, Pace(quiet=3_600.0)])
