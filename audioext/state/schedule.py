"""When to ask for a job's status: one pure function of the record, its provider's pace and the time."""

from __future__ import annotations

from audioext.models.record import Record, Verdict
from audioext.providers.base import Pace
from audioext.state import stages

JITTER_SHARE = 0.2  # of an interval; spreads jobs that were submitted or restarted together


def due_at(  # noqa: PLR0913 - each is a fact of its own
    record: Record,
    *,
    pace: Pace,
    now: float,
    jitter: float,
    deadline: float,
    ask_now: bool = False,
    asked: bool = False,
) -> float | None:
    """Return when *record*'s status is due (Unix seconds), or `None` if never.

    *deadline* is when an open job is given up; a job without a task id can only wait for that. *asked*
    says that a status call was just made, *ask_now* that something calls for one at once.
    """
    if record.verdict is not Verdict.OPEN:
        return None
    if record.task_id is None:
        return deadline
    if ask_now:
        return now
    elapsed = max(0.0, now - record.created_at)
    # A geometric back-off makes intervals that grow in proportion to the time that has passed.
    every = min(max(pace.every, elapsed * (pace.backoff - 1)), max(pace.slowest, pace.every))
    if asked:
        wait = every
    elif record.webhooks and not stages.wants_status(record):
        wait = pace.quiet
    else:
        wait = pace.first if record.stage is None or not record.reached[1:] else every
    next_at = now + wait * (1 + JITTER_SHARE * jitter)
    return min(next_at, deadline) if now < deadline else next_at  # past it only calls that failed go on
