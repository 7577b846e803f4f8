"""Log and count news of jobs: one line, with structured fields, for each new stage or verdict."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from operator import attrgetter

from audioext.models.record import Record, Verdict
from audioext.models.results import Stage
from audioext.models.stats import Counts
from audioext.state.reading import Reading

_log = logging.getLogger("audioext.jobs")
_AT = attrgetter("entry.at")


def names(record: Record) -> dict[str, str | None]:
    """Return the structured fields of a job's log line, to be passed as `extra=`."""
    return {
        "audioext_ref": record.ref,
        "provider": record.provider,
        "task_id": record.task_id,
        "stage": str(record.stage) if record.stage is not None else None,
    }


def announce(
    counts: Counts, old: Record | None, new: Record, own: Iterable[Reading] = (), *, last: Record | None = None
) -> None:
    """Log what changed from *old* to *new*, and count the changes that our *own* entries caused.

    Other processes count theirs. Without an *old* record, only changes that our own entries caused are logged. *last*
    is the record just before *new*, if it is not *old*: changes up to it are logged already.
    """
    if old is not None and old.stage is new.stage and old.verdict is new.verdict:
        return
    moments = set(map(_AT, own))
    provider, was = new.asked.provider, old.stage if old is not None and old.stage is not None else 0
    for reached in new.reached:
        if reached.stage > was and reached.at in moments:
            counts.stages[provider, reached.stage].add(max(reached.at - new.created_at, 0.0))
    is_said = _log.isEnabledFor(logging.INFO)
    last = last or old
    has_risen = new.stage is not last.stage if last is not None else new.reached and new.reached[-1].at in moments
    if is_said and has_risen and new.stage is not None:
        _say_stage(new)
    has_ended = new.verdict is not Verdict.OPEN and (old is None or new.verdict is not old.verdict)
    is_ours = has_ended and new.ended_at in moments
    if is_ours and new.verdict is not Verdict.REFUSED:  # a refusal is counted as the end of its submit
        counts.ended[provider, new.verdict] += 1
    is_news = is_ours if last is None else new.verdict is not last.verdict
    if is_said and has_ended and is_news and new.verdict is not Verdict.COMPLETE:
        _say_end(new)


def _say_stage(record: Record) -> None:
    last = record.reached[-1]
    _log.info(
        "job %s at %s (task %s): %s%s after %.1f s",
        record.ref,
        record.provider,
        record.task_id,
        last.stage,
        "" if last.stage is Stage.SUBMITTED else f", by {last.source}",
        last.at - record.created_at,
        extra=names(record),
    )


def _say_end(record: Record) -> None:
    why = record.refusal or "no answer in time"
    if record.fault is not None:
        why = record.fault.message + (f" (code {record.fault.code})" if record.fault.code is not None else "")
    _log.info("job %s at %s: %s: %s", record.ref, record.provider, record.verdict, why, extra=names(record))
