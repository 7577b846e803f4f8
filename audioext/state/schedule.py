"""When the status call and the handlers of a job are due, and its index row, as pure functions of the record."""

from __future__ import annotations

from collections.abc import Iterable

from audioext.models.entries import MAX_ENTRIES, POST_SECONDS, Index
from audioext.models.limits import Pace
from audioext.models.record import Record, Run, Verdict
from audioext.models.results import Stage

JITTER_SHARE = 0.2
"""The jitter as a share of an interval; it spreads jobs that were submitted or restarted together."""
MAX_ATTEMPTS = 20
"""How often a handler may fail at one topic before it is given up: about an hour in all."""
MAX_ATTEMPTS_AHEAD = 8
"""The same while a later topic of the job waits for it: about two minutes."""
MAX_CALLS = MAX_ENTRIES // 2
"""After this many calls for a job that is not complete, its handlers may fail no oftener than that, and not ask to
wait: the journal has an entry for each call, and needs room for the webhooks and the answers that complete the job."""
RETRY_SECONDS = 1.0
"""How long to wait before calling a failed handler again; doubled with each failure."""
LONGEST_RETRY_SECONDS = 300.0
FARTHEST_SECONDS = 900.0
"""How far ahead a status call is scheduled at most, unless a pace is slower. Anything later was scheduled by a clock
that was ahead, and is due now."""
FARTHEST_RETRY_SECONDS = 60.0
"""The same for handlers, beyond the wait of each: an index row holds at most half of it, whatever they wait for."""
SLACK_SECONDS = 60.0
"""A tolerance for work that was scheduled just after the claiming process read its clock."""


def index_of(record: Record, *, now: float, poll_at: float | None, expire_after: float) -> Index:
    """Return the index row of *record* at time *now*; its next status call is due at *poll_at*.

    The row of a job whose handlers wait for long comes due now and then, since `handle_at` must not be far ahead.
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
    """Return when handlers are due, or `None` if all are done. After a failure they wait."""
    if not record.unhandled:
        return None
    if not record.runs:
        return now
    waits = [
        again_at(record, run, now)
        for (topic, _), run in record.runs.items()
        if topic == record.unhandled[0] and (run.failures or run.waits) and not run.is_done
    ]
    return min(waits, default=now)


def most_attempts(record: Record) -> int:
    """Return how often a handler of the topic whose turn it is may fail."""
    return MAX_ATTEMPTS if len(record.unhandled) == 1 and not is_crowded(record) else MAX_ATTEMPTS_AHEAD


def is_crowded(record: Record) -> bool:
    """Return whether calls of handlers take so much of a journal that more might leave no room for the song."""
    return record.verdict is not Verdict.COMPLETE and sum(run.calls for run in record.runs.values()) >= MAX_CALLS


def again_at(record: Record, run: Run, now: float) -> float:
    """Return when a handler is due again after *run*; a time that a clock ahead of ours has set is due now."""
    wait = run.wait
    if run.failures and not wait:
        doubled = min(run.failures, most_attempts(record) - 1) - 1
        wait = min(RETRY_SECONDS * 2**doubled, LONGEST_RETRY_SECONDS)
    due = run.last_at + wait
    return due if now < due <= now + wait + FARTHEST_RETRY_SECONDS else now


def farthest(paces: Iterable[Pace]) -> float:
    """Return how many seconds ahead a status call can be scheduled at any of *paces*."""
    waits = (wait for pace in paces for wait in (pace.first, pace.every, pace.slowest, pace.quiet))
    return max(FARTHEST_SECONDS, (1 + JITTER_SHARE) * max(waits, default=0.0)) + SLACK_SECONDS


def poll_at(  # noqa: PLR0913 - the result depends on all of them
    record: Record,
    *,
    pace: Pace,
    now: float,
    jitter: float,
    deadline: float,
    polled_at: float,
) -> float | None:
    """Return when the next status call of *record* is due (Unix seconds), or `None` if none is.

    *deadline* is when an open job expires. A job without a task id can only wait for it, and comes due now and then,
    also after it, since `SteadyTime`, which decides on expiry, can be behind. *polled_at* is the time of the last
    status call that this process knows of.
    """
    asks = record.task_id is not None and record.asks_at is not None and record.asks_at > polled_at
    if record.verdict is not Verdict.OPEN:
        # A job that has ended may still rise or get more tracks: after a doubtful webhook, ask once.
        return now if asks and record.verdict is not Verdict.REFUSED else None
    if record.task_id is None:
        return min(deadline, now + FARTHEST_SECONDS) if now < deadline else now + SLACK_SECONDS
    if asks:
        return now
    elapsed = max(0.0, now - record.created_at)
    # With a geometric back-off, the interval is proportional to the elapsed time.
    every = min(max(pace.every, elapsed * (pace.backoff - 1)), max(pace.slowest, pace.every))
    if polled_at and polled_at >= record.seen_at:
        wait = every
    elif record.asked.webhooks and record.asks_at is None:
        wait = pace.quiet
    else:
        wait = pace.first if record.stage is None or record.stage is Stage.SUBMITTED else every
    next_at = now + wait * (1 + JITTER_SHARE * jitter)
    return min(next_at, deadline) if now < deadline else next_at  # after it, only failed calls are repeated


def _occupies_until(record: Record, began_at: float, expire_after: float) -> float:
    """Return until when an open job counts towards its account's limits; *began_at* must not be ahead of our clock."""
    if record.task_id is not None:
        return began_at + expire_after
    # After an answer without a task id the outcome is unknown, perhaps for ever: the job does not count.
    return 0.0 if record.answer_problem is not None else began_at + POST_SECONDS
