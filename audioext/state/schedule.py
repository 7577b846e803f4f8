"""When a job's status is due, when its handlers are, and the index row that says so: pure functions of the record."""

from __future__ import annotations

from collections.abc import Iterable

from audioext.models.entries import POST_SECONDS, Index
from audioext.models.limits import Pace
from audioext.models.record import Record, Run, Verdict
from audioext.models.results import Stage

JITTER_SHARE = 0.2
"""Of an interval; it spreads jobs that were submitted or restarted together."""
MAX_ATTEMPTS = 5
"""How often a handler is called for one topic before it is given up."""
RETRY_SECONDS = 1.0
"""How long a handler that failed waits; doubled with each failure."""
FARTHEST_SECONDS = 900.0
"""How far ahead a status call is put down at most, or as far as a pace says: what is due later was put down by a clock
that was ahead, and is due."""
FARTHEST_RETRY_SECONDS = 60.0
"""The same for handlers, which wait much shorter."""
SLACK_SECONDS = 60.0
"""What was put down a moment after the clock of whoever claims was read is not too far ahead."""


def index_of(record: Record, *, now: float, poll_at: float | None, expire_after: float) -> Index:
    """Return the index row of *record*, whose next status call is due at *poll_at*; handlers are due at *now*.

    Handlers that wait for long are looked at now and then: what is due later was put down by a clock that was ahead.
    """
    due, is_open = handle_at(record, now), record.verdict is Verdict.OPEN
    return Index(
        ref=record.ref,
        provider=record.asked.provider,
        account=record.asked.account,
        created_at=record.created_at,
        key=None if record.verdict is Verdict.REFUSED else record.asked.key,
        task_id=record.task_id,
        answered_at=0.0 if record.is_unsent else record.answered_at,
        is_open=is_open,
        occupies_until=_occupies_until(record, min(record.created_at, now), expire_after) if is_open else 0.0,
        poll_at=poll_at,
        handle_at=None if due is None else min(due, now + FARTHEST_RETRY_SECONDS / 2),
    )


def handle_at(record: Record, now: float) -> float | None:
    """Return when handlers have to be told of something, `None` if they were told all; after a failure they wait."""
    if not record.untold:
        return None
    if not record.runs:
        return now
    waits = [
        again_at(run, now)
        for (topic, _), run in record.runs.items()
        if topic == record.untold[0] and (run.failures or run.waits) and not run.is_done
    ]
    return min(waits, default=now)


def again_at(run: Run, now: float) -> float:
    """Return when a handler is due again after *run*; what a clock put down that was ahead is due now."""
    wait = run.wait if run.wait or not run.failures else RETRY_SECONDS * 2 ** (run.failures - 1)
    due = run.last_at + wait
    return due if now < due <= now + max(wait, FARTHEST_RETRY_SECONDS) else now


def farthest(paces: Iterable[Pace]) -> float:
    """Return how many seconds ahead a status call can be put down at one of *paces*."""
    waits = (wait for pace in paces for wait in (pace.first, pace.every, pace.slowest, pace.quiet))
    return max(FARTHEST_SECONDS, (1 + JITTER_SHARE) * max(waits, default=0.0)) + SLACK_SECONDS


def poll_at(  # noqa: PLR0913 - each is a fact of its own
    record: Record,
    *,
    pace: Pace,
    now: float,
    jitter: float,
    deadline: float,
    polled_at: float,
) -> float | None:
    """Return when *record*'s status is due (Unix seconds), or `None` if never.

    *deadline* is when an open job is given up; a job without a task id can only wait for that, and is looked at now and
    then, also past it, since whoever gives up goes by another time. *polled_at* is when its status was last asked for,
    as far as this process knows.
    """
    asks = record.task_id is not None and record.asks_at is not None and record.asks_at > polled_at
    if record.verdict is not Verdict.OPEN:
        # A job that has ended may rise or learn more: what a doubtful webhook says of that is asked once.
        return now if asks and record.verdict is not Verdict.REFUSED else None
    if record.task_id is None:
        return min(deadline, now + FARTHEST_SECONDS) if now < deadline else now + SLACK_SECONDS
    if asks:
        return now
    elapsed = max(0.0, now - record.created_at)
    # A geometric back-off makes intervals that grow in proportion to the time that has passed.
    every = min(max(pace.every, elapsed * (pace.backoff - 1)), max(pace.slowest, pace.every))
    if polled_at and polled_at >= record.seen_at:
        wait = every
    elif record.asked.webhooks and record.asks_at is None:
        wait = pace.quiet
    else:
        wait = pace.first if record.stage is None or record.stage is Stage.SUBMITTED else every
    next_at = now + wait * (1 + JITTER_SHARE * jitter)
    return min(next_at, deadline) if now < deadline else next_at  # past it only calls that failed go on


def _occupies_until(record: Record, began_at: float, expire_after: float) -> float:
    """Return until when an open job counts, which *began_at* a time that is not ahead of our clock."""
    if record.task_id is not None:
        return began_at + expire_after
    # An answer that does not tell of a task: the outcome is unknown, and nobody may ever say more.
    return 0.0 if record.answer_problem is not None else began_at + POST_SECONDS
