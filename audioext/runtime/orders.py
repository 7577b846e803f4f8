"""The arguments of one submit: checked together, and compared with those of the job that has the key already."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypedDict, cast

import msgspec
from msgspec.structs import replace

from audioext import providers as known
from audioext.errors import (
    AudioextError,
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
from audioext.files.sources import Sources, fingerprint
from audioext.http.transport import UploadProgress
from audioext.models import checks
from audioext.models.checks import LONE_SURROGATE
from audioext.models.entries import Entry
from audioext.models.record import Asked, Record
from audioext.models.requests import AddInstrumental, Extend, Meta, Request
from audioext.models.stats import SubmitEnd
from audioext.providers.base import FileRoute, Provider
from audioext.runtime import telemetry
from audioext.runtime.handlers import HANDLING
from audioext.runtime.jobs import SubmitUnknownError

_log = logging.getLogger("audioext.submit")

MAX_KEY_LENGTH = 512
MAX_META_BYTES = 1_048_576
"""The size of `meta` as JSON: a job's journal has to hold it along with everything else about the job."""
_OURS = frozenset({"provider", "source_duration", "rehost"})
"""Fields that do not change what the provider generates."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One submit: the request, the provider, and what to store with the job."""

    request: Request
    provider: Provider
    key: str | None = None
    is_key_ours: bool = False
    """Whether the key was derived from the request, in a handler: its job is for the same request."""
    meta: Mapping[str, object] = msgspec.field(default_factory=dict)
    progress: UploadProgress | None = None
    permit_timeout: float | None = None
    """How long (seconds) it waits for its turn, by default as long as all do."""
    fallback: tuple[Provider, ...] = ()
    """The providers to try next, if those before certainly made no task."""
    tried: tuple[Provider, ...] = ()
    """The providers that were tried before."""
    note: str = ""
    """Their errors, for the journal."""
    content: str | None = None
    """A digest of the request's file, if there is a key and the file can be read."""

    def after(self, error: ProviderError) -> Order:
        """Return the order for the next provider, after *error* from this one, which made no task."""
        job = "" if error.ref is None else f" job {error.ref}"
        said = f"{self.note}; " if self.note else ""
        note = f"{said}{self.provider.info.name} refused{job}: {cut(error.message)}"
        tried = (*self.tried, self.provider)
        return replace(self, provider=self.fallback[0], fallback=self.fallback[1:], tried=tried, note=note)


class SubmitOptions(TypedDict, total=False):
    """The keywords of a submit; see `Client.submit`."""

    provider: str | None
    fallback: Sequence[str]
    key: str | None
    meta: Meta | None
    progress: UploadProgress | None
    permit_timeout: float | None


def choose(providers: Mapping[str, Provider], name: str | None) -> Provider:
    """Return the provider called *name*, or the first one if `None`; raise ConfigError if there is none."""
    if not providers:
        keys = dict.fromkeys(known.load(each)().info.key_variable for each in known.NAMES)
        advice = f"pass one, like Client(Kie()), or set its key for from_env(): {', '.join(keys)}"
        raise ConfigError(f"this client has no provider: {advice}")
    if name is None:
        return next(iter(providers.values()))
    name = cast("str | None", checks.plain(name))
    if not isinstance(name, str) or name not in providers:
        raise ConfigError(f"this client has no provider named {shown(name)}; it has {', '.join(providers)}")
    return providers[name]


def _others(
    request: Request,
    providers: Mapping[str, Provider],
    fallback: Sequence[str],
    chosen: Provider,
    found: list[Problem],
) -> tuple[Provider, ...]:
    """Return the providers named in *fallback* without the *chosen* one; add to *found* what is wrong with it."""
    names = (fallback,) if isinstance(fallback, str) else fallback
    if not isinstance(names, Iterable):
        found.append(Problem("fallback", f'must be a list of names like ["vidgo"], not {shown(fallback)}'))
        return ()
    others = {other.info.name: other for name in names if (other := choose(providers, name)) is not chosen}
    bound = [name for name in ("audio_id", "persona_id") if others and name in request.given()]
    found += [Problem("fallback", f"cannot be used with {name}, which only its own provider knows") for name in bound]
    return tuple(others.values())


async def draw_up(  # noqa: PLR0913 - one keyword for each option of a submit
    request: Request,
    problems: Sequence[Problem],
    providers: Mapping[str, Provider],
    sources: Sources,
    *,
    provider: str | None = None,
    fallback: Sequence[str] = (),
    key: str | None = None,
    meta: Meta | None = None,
    progress: UploadProgress | None = None,
    permit_timeout: float | None = None,
) -> Order:
    """Return the order of a submit, or raise all that is wrong with it at once, *problems* included."""
    found = [*problems]
    if not isinstance(request, (Extend, AddInstrumental)):
        wanted = "must be a request, like Extend(...) or AddInstrumental(...)"
        raise RequestError([*found, Problem("request", f"{wanted}, not {shown(request)}")])
    chosen, content = choose(providers, provider or request.provider), None
    others = _others(request, providers, fallback, chosen, found) if fallback else ()
    if request.file is not None:
        request, wrong = await sources.look(request)
        found += wrong
    key = None if key is None else cast("str", checks.plain(key))
    handling = HANDLING.get() if key is None else None
    if request.file is not None and request.path is not None and (key is not None or handling is not None):
        with suppress(OSError, ValueError):  # the checks below report a file that cannot be read
            content = await asyncio.to_thread(fingerprint, request.path)
    if handling is not None:
        key = handling.key(chosen.info.name, request, content)
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH):
        found.append(Problem("key", f"must be text of 1 to {MAX_KEY_LENGTH} characters"))
    elif key is not None and LONE_SURROGATE.search(key):
        found.append(Problem("key", "has a lone surrogate (half of a surrogate pair), which cannot be stored"))
    if (complaint := checks.progress(progress)) is not None:
        found.append(Problem("progress", complaint))
    if permit_timeout is not None and (complaint := checks.seconds(permit_timeout)) is not None:
        found.append(Problem("permit_timeout", complaint))
    noted = {} if meta is None else _plain(meta, found)
    order = Order(
        request=request,
        provider=chosen,
        fallback=others,
        key=key,
        is_key_ours=handling is not None,
        meta=noted,
        progress=progress,
        permit_timeout=permit_timeout,
        content=content,
    )
    try:
        check_order(order, found, sources)
    except AudioextError:
        sources.release(request)
        raise
    return order


def _plain(meta: Meta, found: list[Problem]) -> dict[str, object]:
    """Return *meta* as plain JSON, as a store returns it; add what is wrong with it to *found*."""
    try:
        given = dict(meta) if isinstance(meta, Mapping) else meta
        body = msgspec.json.encode(given)
        if len(body) <= MAX_META_BYTES:
            json.dumps(msgspec.to_builtins(given, str_keys=True), allow_nan=False)  # msgspec makes null of nan and inf
            return msgspec.json.decode(body, type=dict[str, object])
        found.append(Problem("meta", f"must be at most {MAX_META_BYTES} bytes of JSON: keep large data elsewhere"))
    except (TypeError, ValueError, RecursionError) as error:
        found.append(Problem("meta", f"must be a dict or an object with JSON values: {cut(str(error))}"))
    return {}


def check_order(order: Order, found: Sequence[Problem], sources: Sources) -> None:
    """Raise all that is wrong with *order* at any of its providers, and what was *found* before, at once."""
    request = order.request
    checked: dict[Problem, str] = dict.fromkeys((*request.problems(), *found), order.provider.info.name)
    missing = []
    for provider in (order.provider, *order.fallback):
        info = provider.info
        try:
            wrong = provider.check(request)
        except UnsupportedError as error:
            if provider is order.provider:
                raise
            wrong = [Problem("fallback", str(error))]
        checked.update(dict.fromkeys(wrong, info.name))
        if not info.has_key:
            missing.append(f"no API key for {info.name}: set {info.key_variable}, or pass `api_key=`")
    if checked and (refusing := [problem for problem in checked if not problem.advice]):
        raise RequestError([*refusing, *(Problem("api_key", each) for each in missing)])
    for advice, name in checked.items():
        _log.warning("%s: %s", name, advice)
    if missing:
        raise ConfigError("; ".join(missing))
    for provider in () if request.file is None else (order.provider, *order.fallback):
        if sources.serves(request, provider) and sources.public_url() is None:
            message = (
                f"{provider.info.name} takes audio by URL only, and it cannot fetch the file from this process: give "
                "`public_url=` and `listen=`, or mount `receiver.add_to(app)`, or pass `url=` instead of `file=`"
            )
            raise UnsupportedError(message)


def unsent_error(record: Record, entry: Entry) -> ProviderError:
    """Return the error of a POST that was certainly never sent, from its `abandoned` *entry*."""
    if entry.status:  # no connection
        return ProviderDownError(entry.note, provider=record.provider, retryable=True, charged=False)
    return ProviderError(entry.note, provider=record.provider, charged=False)


def asked_of(order: Order, *, grace: float | None) -> Asked:
    """Return what a job's first entry stores. *grace* (seconds) is given if there is no callback URL."""
    info, request = order.provider.info, order.request
    outputs = request.num_outputs if isinstance(request, Extend) else None
    takes_long = info.file_route is FileRoute.INLINE and request.file is not None  # as long as its POST makes progress
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
        grace=info.grace if grace is None or takes_long else grace,
        content=order.content,
        base_url=str(info.base_url),
        traceparent=telemetry.traceparent(),
    )


_ENDS: tuple[tuple[type[Exception], SubmitEnd], ...] = (
    (RateLimitError, "rate_limited"),
    (ProviderError, "refused"),
    (SubmitUnknownError, "unknown"),
    (Exception, "failed"),
)


def end_of(outcome: Record | Exception, *, is_new: bool) -> SubmitEnd:
    """Return how a submit ended, by the record of its job, which *is_new* or existed before, or by its exception."""
    if isinstance(outcome, Exception):
        return next(end for kind, end in _ENDS if isinstance(outcome, kind))
    if not is_new:
        return "found"
    return "accepted" if outcome.task_id is not None else "unknown"


def refuse_other(order: Order, ref: str, held: Order) -> None:
    """Raise if *order* asks for something else than *held*, which has its key. Defaults of a provider do not count."""
    if order.is_key_ours:
        return
    chain = {provider.info.name: provider for provider in (*order.tried, order.provider, *order.fallback)}
    if held.provider.info.name not in chain:
        differing = ["provider"]
    else:
        order = replace(order, provider=chain[held.provider.info.name])
        by_content = held.content is not None and order.content is not None
        ours, theirs = _wanted(held, by_content=by_content), _wanted(order, by_content=by_content)
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if differing and "file" not in differing and (sent := _sent(held)) is not None and sent == _sent(order):
            return
    if differing:
        names = f"{' and '.join(differing)} {'differs' if len(differing) == 1 else 'differ'}"
        owner = f"job {ref} already" if ref else "a submit under way"
        message = f"{shown(order.key)} has {owner}, which was for another request ({names}): use another key"
        raise KeyConflictError([Problem("key", message)], ref=ref)


def _wanted(order: Order, *, by_content: bool) -> dict[str, object]:
    """Return what a request asks for, by field. *by_content* compares a file by its digest, since it may have moved."""
    wanted = {name: value for name, value in order.request.given().items() if name not in _OURS}
    if by_content:
        wanted["file"] = order.content
    return wanted


def _sent(order: Order) -> object:
    """Return what the provider would be sent, defaults included, or `None` if that cannot be computed."""
    request = order.request
    if request.file is not None:
        fields = {name: value for name, value in request.given().items() if name != "file"}
        request = type(request).draft(**fields, url="https://file.invalid/")
    try:
        built = order.provider.build_submit(request, None)
        body = None if built.body is None else msgspec.json.decode(built.body)
    except Exception:  # noqa: BLE001 - a provider's bug, or a body that is not JSON: then only the fields are compared
        return None
    return built.url, body, built.parts
