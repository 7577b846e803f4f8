"""OpenTelemetry spans, if the program has loaded its API: one trace per job, from the submit to the last handler.

The journal stores the submit's span as a W3C `traceparent` (www.w3.org/TR/trace-context, read 2026-11-26), so that
the work of other processes, and of this one after a restart, belongs to the same trace.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal

from audioext.models.record import Record
from audioext.runtime.news import names
from audioext.version import __version__

API = "opentelemetry.trace"
"""Spans are collected only if the program has loaded this module; we never load it first."""
_NO_SPAN = nullcontext()
Kind = Literal["CLIENT", "CONSUMER", "INTERNAL"]
"""OpenTelemetry's names of the span kinds that we use."""


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
