"""One call of submit: what is looked at before it, and what is said of how it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec
from attrs import field, frozen

from audioext.errors import KeyConflictError, Problem, ProviderDownError, ProviderError, RateLimitError, shown
from audioext.http.transport import Progress
from audioext.models.entries import Entry
from audioext.models.events import Refused
from audioext.models.record import Record
from audioext.models.requests import Request
from audioext.models.stats import SubmitEnd
from audioext.providers.base import Provider
from audioext.runtime.jobs import SubmitUnknownError

RESEND_SECONDS = 5.0
"""How long a submit waits after a refusal that allows another; doubled with each, unless the answer says how long."""
_OURS = frozenset({"provider", "source_duration", "rehost"})
"""Fields that change nothing of what is asked for."""


@frozen(kw_only=True)
class Order:
    """One call of submit: what is asked for, of whom, and what to note down with it."""

    request: Request
    provider: Provider
    key: str | None = None
    meta: Mapping[str, object] = field(factory=dict)
    progress: Progress | None = None
    content: str | None = None
    """A digest of what is in the request's file, where there is a key and the file can be read."""

    @classmethod
    def of(cls, record: Record, provider: Provider) -> Self:
        """Return the order that a job began with."""
        return cls(request=record.request, provider=provider, key=record.key, content=record.asked.content)


def unsent_error(record: Record, entry: Entry) -> ProviderError:
    """Return the error of a POST that was certainly never sent, as *entry* tells."""
    if entry.status:  # no connection
        return ProviderDownError(entry.note, provider=record.provider, retryable=True, charged=False)
    return ProviderError(entry.note, provider=record.provider, charged=False)


def end_of(record: Record, *, is_new: bool) -> SubmitEnd:
    """Return how a submit ended that has a job."""
    if not is_new:
        return "found"
    return "accepted" if record.task_id is not None else "unknown"


def end_without_job(error: Exception) -> SubmitEnd:
    """Return how a submit ended that has none."""
    if isinstance(error, RateLimitError):
        return "rate_limited"
    if isinstance(error, ProviderError):
        return "refused"
    return "unknown" if isinstance(error, SubmitUnknownError) else "failed"


def refuse_other(order: Order, ref: str, held: Order) -> None:
    """Let through what asks for the same as *held*, which has its key; settings that a provider adds do not count.

    Raises:
        KeyConflictError: it asks for something else.
    """
    if held.provider.info.name != order.provider.info.name:
        differing = ["provider"]
    else:
        by_content = held.content is not None and order.content is not None
        ours, theirs = _wanted(held, by_content=by_content), _wanted(order, by_content=by_content)
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if differing and "file" not in differing and (sent := _sent(held)) is not None and sent == _sent(order):
            return
    if differing:
        names = f"{' and '.join(differing)} {'differs' if len(differing) == 1 else 'differ'}"
        message = f"{shown(order.key)} has job {ref} already, which was for another request ({names}): use another key"
        raise KeyConflictError([Problem("key", message)], ref=ref)


def _wanted(order: Order, *, by_content: bool) -> dict[str, object]:
    """Return what a request asks for; *by_content* a file is what is in it, since it may lie elsewhere by now."""
    wanted = {name: value for name, value in order.request.given().items() if name not in _OURS}
    if by_content:
        wanted["file"] = order.content
    return wanted


def _sent(order: Order) -> object:
    """Return what the provider would be sent, which has its defaults, or `None` where that cannot be said."""
    request = order.request
    if request.file is not None:
        fields = {name: value for name, value in request.given().items() if name != "file"}
        request = type(request).draft(**fields, url="https://file.invalid/")
    try:
        built = order.provider.build_submit(request, None)
        body = None if built.body is None else msgspec.json.decode(built.body)
    except Exception:  # noqa: BLE001 - a provider's bug, or a body that is no JSON: then the fields alone count
        return None
    return built.url, body, built.parts


def resend_wait(outcome: Refused, resend: int) -> float:
    """Return how long (seconds) a submit waits that may be sent again."""
    asked = outcome.error.retry_after if isinstance(outcome.error, RateLimitError) else None
    return RESEND_SECONDS * 2**resend if asked is None else asked
