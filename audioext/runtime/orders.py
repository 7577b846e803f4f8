"""One call of submit: what is looked at before it, and what is said of how it went."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from audioext.errors import Problem, ProviderDownError, ProviderError, RateLimitError
from audioext.files.sources import probe
from audioext.http.transport import Progress
from audioext.models.entries import Entry
from audioext.models.events import Refused
from audioext.models.record import Record
from audioext.models.requests import Request
from audioext.providers.base import Provider

_log = logging.getLogger("audioext.submit")

RESEND_SECONDS = 5.0
"""How long a submit waits after a refusal that allows another; doubled with each, unless the answer says how long."""


@frozen(kw_only=True)
class Order:
    """One call of submit: what is asked for, of whom, and what to note down with it."""

    request: Request
    provider: Provider
    key: str | None = None
    meta: Mapping[str, object] = field(factory=dict)
    progress: Progress | None = None


async def look_at_file(request: Request) -> tuple[Request, Sequence[Problem]]:
    """Return *request* with the duration of its local file, and what is wrong with the file."""
    if not isinstance(request.file, Path):
        return request, ()
    source = await asyncio.to_thread(probe, request.file)
    if isinstance(source, Problem):
        return request, (source,)
    if source.duration is None or request.source_duration is not None:
        return request, ()
    return type(request).draft(**{**request.given(), "source_duration": source.duration}), ()


def unsent_error(record: Record, entry: Entry) -> ProviderError:
    """Return the error of a POST that was certainly never sent, as *entry* tells."""
    if entry.status:  # no connection
        return ProviderDownError(entry.note, provider=record.provider, retryable=True, charged=False)
    return ProviderError(entry.note, provider=record.provider, charged=False)


def warn_of_other(record: Record, order: Order) -> None:
    """Tell who asks for something else under a key that is taken; the same file may lie elsewhere by now."""
    held, asked = (
        {name: value for name, value in request.given().items() if name not in {"file", "source_duration"}}
        for request in (record.request, order.request)
    )
    if held != asked or record.provider != order.provider.info.name:
        _log.warning("key %r: it has job %s already, which was for another request", order.key, record.ref)


def resend_wait(outcome: Refused, resend: int) -> float:
    """Return how long (seconds) a submit waits that may be sent again."""
    asked = outcome.error.retry_after if isinstance(outcome.error, RateLimitError) else None
    return RESEND_SECONDS * 2**resend if asked is None else asked
