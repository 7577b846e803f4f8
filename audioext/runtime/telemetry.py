"""What others see of jobs: log lines, counts, and OpenTelemetry's spans if the program has loaded its API.

A job is one trace, from the submit to the last handler. The journal stores the submit's span as a W3C `traceparent`
(www.w3.org/TR/trace-context, read 2026-11-26), so that the work of other processes, and of this one after a restart,
belongs to the same trace.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from operator import attrgetter
from typing import Any, Literal

from audioext.models.record import Record, Verdict
from audioext.models.results import Stage
from audioext.models.stats import Counts
from audioext.state.reading import Reading
from audioext.version import __version__

_log = logging.getLogger("audioext.jobs")
_AT = attrgetter("entry.at")

API = "opentelemetry.trace"
"""Spans are collected only if the program has loaded this module; we never load it first."""
_NO_SPAN = nullcontext()
Kind = Literal["CLIENT", "CONSUMER", "INTERNAL"]
"""OpenTelemetry's names of the span kinds that we use."""


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


# --- spans -----------------------------------------------------------------------------------------------


def span(name: str, record: Record | None = None, *, kind: Kind = "INTERNAL") -> AbstractContextManager[object]:
    """Return a context manager of a span in the trace of *record*, or in the caller's trace without a record.

    The block gets the span, or `None` if the API is not loaded.
    """
    return _span(name, record, kind) if API in sys.modules else _NO_SPAN


def note(record: Record) -> None:
    """Add what is known of *record*'s job by now to the current span, which must be ours."""
    _api().get_current_span().set_attributes(_attributes(record))


def webhook(record: Record, *, verdict: str, began: float, ended: float) -> None:
    """Add a span to the trace of *record* for a webhook that was handled from *began* to *ended* (Unix seconds).

    It links to the current span, if any: that of the user's own server for the request.
    """
    trace = _api()
    current = trace.get_current_span()
    taken = trace.get_tracer("audioext", __version__).start_span(
        f"webhook {record.provider}",
        context=_context(record),
        kind=trace.SpanKind.CONSUMER,
        attributes=_attributes(record) | {"audioext.verdict": verdict},
        links=[trace.Link(current.get_span_context())] if current.is_recording() else [],
        start_time=int(began * 1e9),
    )
    taken.end(int(ended * 1e9))


def traceparent() -> str | None:
    """Return the `traceparent` of the current span, or `None` if there is none."""
    if API not in sys.modules:
        return None
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def _span(name: str, record: Record | None, kind: Kind) -> Generator[object]:
    trace = _api()
    with trace.get_tracer("audioext", __version__).start_as_current_span(
        name,
        context=_context(record),
        kind=trace.SpanKind[kind],
        attributes=_attributes(record),
        record_exception=False,  # its own recording would raise what the error's `__str__` does, instead of the error
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except Exception as error:
            with suppress(BaseException):
                made.record_exception(error)
                made.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
            raise


def _attributes(record: Record | None) -> dict[str, str]:
    if record is None:
        return {}
    known = {**names(record), "operation": str(record.operation)}
    return {f"audioext.{name.removeprefix('audioext_')}": value for name, value in known.items() if value is not None}


def _context(record: Record | None) -> Any:  # noqa: ANN401 - a type of the API, which may not be loaded
    """Return the context of the submit of *record*, or `None`, the current one, without a record."""
    if record is None:
        return None
    from opentelemetry.context import Context  # noqa: PLC0415 - as above

    parent = record.asked.traceparent
    return _propagator().extract({} if parent is None else {"traceparent": parent}, context=Context())


def _api() -> Any:  # noqa: ANN401 - as above
    from opentelemetry import trace  # noqa: PLC0415 - only after the program has loaded it

    return trace


def _propagator() -> Any:  # noqa: ANN401 - as above
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - as above

    return TraceContextTextMapPropagator()
