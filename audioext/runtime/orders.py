"""One call of submit: what is looked at before it, and what is said of how it went."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Self

import attrs
import msgspec
from attrs import field, frozen

from audioext.errors import (
    ConfigError,
    KeyConflictError,
    Problem,
    ProviderDownError,
    ProviderError,
    RateLimitError,
    RequestError,
    UnsupportedError,
    cut,
    shown,
)
from audioext.files.sources import Sources
from audioext.http.transport import Progress
from audioext.models.entries import Entry
from audioext.models.events import Refused
from audioext.models.record import Asked, Record
from audioext.models.requests import Extend, Request
from audioext.models.stats import SubmitEnd
from audioext.providers.base import Provider
from audioext.runtime import tracing
from audioext.runtime.jobs import SubmitUnknownError

_log = logging.getLogger("audioext.submit")

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
    fallback: tuple[Provider, ...] = ()
    """Who is asked next, where those before certainly made no task."""
    tried: tuple[Provider, ...] = ()
    """Who was asked before."""
    note: str = ""
    """What they said, for the journal."""
    content: str | None = None
    """A digest of what is in the request's file, where there is a key and the file can be read."""

    @classmethod
    def of(cls, record: Record, provider: Provider) -> Self:
        """Return the order that a job began with."""
        return cls(request=record.request, provider=provider, key=record.key, content=record.asked.content)

    def after(self, error: ProviderError) -> Self:
        """Return the order for the next provider, since *error* says that this one made no task."""
        job = "" if error.ref is None else f" job {error.ref}"
        said = f"{self.note}; " if self.note else ""
        note = f"{said}{self.provider.info.name} refused{job}: {cut(error.message)}"
        tried = (*self.tried, self.provider)
        return attrs.evolve(self, provider=self.fallback[0], fallback=self.fallback[1:], tried=tried, note=note)


def check_order(order: Order, found: Sequence[Problem], sources: Sources) -> None:
    """Look at *order* with the eyes of all who may get it, before anything is spent; *found* was wrong before.

    Raises:
        RequestError: all that is wrong with the request, at once.
        UnsupportedError: the provider has no such operation, or no way to take the file.
        ConfigError: no API key is known.
    """
    request, all_of_them = order.request, (order.provider, *order.fallback)
    checked: dict[Problem, str] = dict.fromkeys((*request.problems(), *found), order.provider.info.name)
    missing = []
    for provider in all_of_them:
        info = provider.info
        try:
            checked |= dict.fromkeys(provider.check(request), info.name)
        except UnsupportedError as error:
            if provider is order.provider:
                raise
            checked[Problem("fallback", str(error))] = info.name
        if not info.has_key:
            missing.append(f"no API key for {info.name}: set {info.key_variable}, or pass api_key=")
    refusing = [problem for problem in checked if not problem.advice]
    if refusing:
        raise RequestError([*refusing, *(Problem("api_key", each) for each in missing)])
    for advice, name in checked.items():
        _log.warning("%s: %s", name, advice)
    if missing:
        raise ConfigError("; ".join(missing))
    for provider in all_of_them:
        if request.file is not None and sources.serves(request, provider) and sources.public_url() is None:
            message = (
                f"{provider.info.name} takes audio by URL only, and nobody could ask this process for the file: give "
                "public_url= and listen=, or mount receiver.add_to(app), or pass url= instead of file="
            )
            raise UnsupportedError(message)


def unsent_error(record: Record, entry: Entry) -> ProviderError:
    """Return the error of a POST that was certainly never sent, as *entry* tells."""
    if entry.status:  # no connection
        return ProviderDownError(entry.note, provider=record.provider, retryable=True, charged=False)
    return ProviderError(entry.note, provider=record.provider, charged=False)


def asked_of(order: Order, *, grace: float | None) -> Asked:
    """Return what a job begins with; *grace* (seconds) is the shorter one of those whom nobody can call."""
    info, request = order.provider.info, order.request
    outputs = request.num_outputs if isinstance(request, Extend) else None
    return Asked(
        provider=info.name,
        account=info.account,
        request=request,
        model=info.sent_model(request),
        key=order.key,
        meta=order.meta,
        expected_tracks=outputs or 2,
        counts_tracks=info.counts_tracks,
        extends_by_id=info.extends_by_id,
        retention=info.retention,
        webhooks=grace is None,
        grace=info.grace if grace is None else grace,
        content=order.content,
        base_url=str(info.base_url),
        traceparent=tracing.traceparent(),
    )


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
    chain = {provider.info.name: provider for provider in (*order.tried, order.provider, *order.fallback)}
    if held.provider.info.name not in chain:
        differing = ["provider"]
    else:
        order = attrs.evolve(order, provider=chain[held.provider.info.name])
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
