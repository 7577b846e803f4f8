"""The submit: checked, its file brought along, a permit, a durable record, then one POST and its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
from attrs import define, field, frozen
from yarl import URL

from audioext import stages
from audioext.callbacks.routes import FILES_SEGMENT, callback_url
from audioext.clock import Clock, mint_id
from audioext.dispatcher import Dispatcher
from audioext.errors import (
    ConfigError,
    Problem,
    ProviderDownError,
    RateLimitError,
    RequestError,
    StoreError,
    UnsupportedError,
)
from audioext.files import Shelf, Source, probe, safe_name
from audioext.jobs import Registry
from audioext.limits import Limiter
from audioext.record import Record
from audioext.requests import Extend, Request
from audioext.stores.base import Store, Versioned
from audioext.transport import BrokenError, NotSentError, Progress, Transport
from audioext.wire.events import Refused, SubmitOutcome, Submitted, Unknown
from audioext.wire.http import HttpRequest
from audioext.wire.provider import FileRoute, Provider, Uploads

_log = logging.getLogger("audioext.submit")

MAX_RESENDS = 4
RESEND_SECONDS = 5.0  # doubled with each resend, unless the answer says how long
SUBMIT_TIMEOUT_SECONDS = 60.0
UPLOAD_ATTEMPTS = 3
REMEMBER_ATTEMPTS = 7
REMEMBER_SECONDS = 0.25  # doubled with each attempt: half a minute in all


@frozen(kw_only=True)
class Order:
    """One call of submit: what is asked for, of whom, and what to note down with it."""

    request: Request
    provider: Provider
    key: str | None = None
    meta: Mapping[str, object] = field(factory=dict)
    progress: Progress | None = None


@define(kw_only=True, eq=False, repr=False)
class Submitter:
    """Sends orders; each ref is POSTed once, and again only after an answer that certainly cost nothing."""

    store: Store
    dispatcher: Dispatcher
    registry: Registry
    transport: Transport
    shelf: Shelf
    clock: Clock
    limiters: Mapping[str, Limiter]
    permit_timeout: float
    serve_files: bool
    public_url: Callable[[], URL | None]
    secret: Callable[[], bytes]
    _offers: dict[str, str] = field(factory=dict, init=False)
    _posting: set[asyncio.Task[object]] = field(factory=set, init=False)

    async def check(self, order: Order) -> Order:
        """Return *order* with what its local file tells, or refuse it; nothing was sent yet.

        Raises:
            RequestError: all that is wrong with the request, at once.
            UnsupportedError: the provider has no such operation, or no way to take the file.
            ConfigError: no API key is known.
        """
        request, provider = order.request, order.provider
        problems = list(request.problems())
        if isinstance(request.file, Path):
            found = await asyncio.to_thread(probe, request.file)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                request = _with_duration(request, found)
                problems = list(request.problems())
        checked = _unique((*problems, *provider.check(request)))
        refusing = [problem for problem in checked if not problem.advice]
        if refusing:
            raise RequestError(refusing)
        for advice in checked:
            _log.warning("%s: %s", provider.name, advice)
        if provider.api_key is None:
            message = f"no API key for {provider.name}: set {provider.key_variable}, or pass api_key="
            raise ConfigError(message)
        if self._serves(request, provider) and self.public_url() is None:
            message = f"{provider.name} takes audio by URL only: give public_url=, or pass url= instead of file="
            raise UnsupportedError(message)
        return attrs.evolve(order, request=request)

    async def submit(self, order: Order) -> Versioned:
        """Send a checked *order* and return its record: a job whose outcome may be unknown, but never lost.

        Raises:
            ProviderError: the provider refused, and charged nothing.
            RateLimitError: no permit came in time; nothing was sent.
            StoreError: the record could not be stored; nothing was sent.
        """
        existing = None if order.key is None else await self.store.find_key(order.key)
        if existing is not None:
            return existing
        sent, offer = await self._bring_file(order)
        try:
            for resend in range(MAX_RESENDS + 1):
                stored, outcome = await self._attempt(order, sent)
                if not isinstance(outcome, Refused):
                    if offer is not None:
                        self._offers[stored.record.ref] = offer
                        offer = None
                    return stored
                if not outcome.resend or resend == MAX_RESENDS:
                    raise outcome.error
                await asyncio.sleep(_resend_wait(outcome, resend))
        finally:
            if offer is not None:
                self.shelf.take_back(offer)
        raise AssertionError  # pragma: no cover - the last resend returns or raises

    def is_posting(self, task: asyncio.Task[Versioned]) -> bool:
        """Say whether *task* has stored its record: from then on it must have its answer."""
        return task in self._posting

    def unfinished(self) -> frozenset[str]:
        """Return the jobs that still hold something: a file that we serve, or a place among the parallel ones."""
        return frozenset(self._offers).union(*(limiter.occupants for limiter in self.limiters.values()))

    def finish(self, ref: str) -> None:
        """Let go of what a job held while it ran: its file and its place among the parallel ones."""
        offer = self._offers.pop(ref, None)
        if offer is not None:
            self.shelf.take_back(offer)
        for limiter in self.limiters.values():
            limiter.free(ref)

    async def _attempt(self, order: Order, sent: Request) -> tuple[Versioned, SubmitOutcome | None]:
        """Make one POST under a permit; the outcome is `None` where the key's job exists already."""
        provider = order.provider
        limiter = self.limiters[provider.name]
        try:
            async with limiter.permit(timeout=self.permit_timeout):
                record = self._record(order)
                with self.registry.posting(record.ref), self._bound():
                    due_at = self.dispatcher.due_at(record)
                    created = await self.store.create(record, order.key, due_at=due_at)
                    if created.existing:
                        return created.stored, None
                    limiter.occupy(record.ref)
                    outcome = await self._post(provider, sent, record)
                    return await self._conclude(created.stored, outcome), outcome
        except TimeoutError as error:
            message = f"no permit within {self.permit_timeout:g} s: too many submits wait; nothing was sent"
            raise RateLimitError(message, provider=provider.name) from error

    @contextmanager
    def _bound(self) -> Generator[None]:
        """Mark the running task as one that must not be cancelled any more."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this runs in a task
        self._posting.add(task)
        try:
            yield
        finally:
            self._posting.discard(task)

    def _record(self, order: Order) -> Record:
        provider, request, now = order.provider, order.request, self.clock.now()
        reachable = self.public_url() is not None
        outputs = request.num_outputs if isinstance(request, Extend) else None
        return Record(
            ref=mint_id(now),
            provider=provider.name,
            request=request,
            created_at=now,
            model=provider.sent_model(request),
            key=order.key,
            meta=dict(order.meta),
            expected_tracks=outputs or 2,
            counts_takes=provider.counts_takes,
            extends_by_id=provider.extends_by_id,
            retention=provider.retention,
            webhooks=reachable,
            grace=provider.grace if reachable else 0.0,
        )

    async def _post(self, provider: Provider, sent: Request, record: Record) -> SubmitOutcome:
        public_url = self.public_url()
        callback = None
        if public_url is not None:
            callback = callback_url(public_url, self.secret(), provider.name, record.ref)
        request = provider.build_submit(sent, callback)
        try:
            response = await self.transport.send(request, timeout=SUBMIT_TIMEOUT_SECONDS)
        except NotSentError as error:
            down = ProviderDownError(str(error), provider=provider.name, retryable=True, charged=False)
            return Refused(error=down)
        except BrokenError as error:
            return Unknown(reason=str(error))
        # A provider may quote the callback URL in its error; what we show and store must not hold the tag.
        secrets = [provider.api_key or "", "" if callback is None else callback.name]
        body = response.body
        for secret in filter(None, secrets):
            body = body.replace(secret.encode(), b"***")
        try:
            return provider.parse_submit(attrs.evolve(response, body=body))
        except Exception as error:  # noqa: BLE001 - a custom provider's bug must not lose a task that was paid for
            _log.exception("job %s: the submit answer could not be read", record.ref)
            return Unknown(reason=f"parse_submit raised {type(error).__name__}")

    async def _conclude(self, stored: Versioned, outcome: SubmitOutcome) -> Versioned:
        ref = stored.record.ref
        if isinstance(outcome, Submitted):
            return await self._remember(stored, outcome)
        if isinstance(outcome, Refused):
            self.finish(ref)
            if await self.store.discard(ref, stored.version):
                self.registry.forget(ref)
            return stored
        _log.warning("job %s: the outcome of its POST is unknown, nothing is resent: %s", ref, outcome.reason)
        for limiter in self.limiters.values():
            limiter.free(ref)
        return stored

    async def _remember(self, stored: Versioned, outcome: Submitted) -> Versioned:
        """Store the task's id, patiently: it was paid for, and only its callback could tell it again."""
        ref, at = stored.record.ref, self.clock.now()
        for attempt in range(REMEMBER_ATTEMPTS):
            try:
                applied = await self.dispatcher.apply(ref, [outcome], seen="answer", at=at)
            except StoreError as error:
                _log.error("job %s: task %s is not stored yet: %s", ref, outcome.task_id, error)
                await asyncio.sleep(REMEMBER_SECONDS * 2**attempt)
            else:
                return stored if applied is None else applied.stored
        record = stages.advance(stored.record, outcome, seen="answer", at=at)
        return Versioned(record=record, version=stored.version)

    async def _bring_file(self, order: Order) -> tuple[Request, str | None]:
        """Return the request as it goes out, and the offer under which we serve its file, if we do."""
        request, provider = order.request, order.provider
        if request.file is not None:
            if self._serves(request, provider):
                public_url = self.public_url()
                assert public_url is not None  # noqa: S101 - `check` refused this
                offer = self.shelf.offer(request.file)
                return _by_url(
                    request, str(public_url / FILES_SEGMENT / offer.split("/")[0] / offer.split("/")[1])
                ), offer
            if provider.file_route is FileRoute.UPLOAD and isinstance(provider, Uploads):
                name = f"{mint_id(self.clock.now())}{request.file.suffix.lower()}"
                built = provider.build_upload(request.file, name)
                return _by_url(request, await self._upload(provider, built, order.progress)), None
        if request.rehost and request.url is not None:
            if not isinstance(provider, Uploads):
                message = f"{provider.name} has no url-upload, so rehost=True cannot be done there"
                raise UnsupportedError(message)
            name = f"{mint_id(self.clock.now())}-{safe_name(URL(request.url).name) or 'audio'}"
            url = await self._upload(provider, provider.build_upload(request.url, name), order.progress)
            return _by_url(request, url), None
        return request, None

    def _serves(self, request: Request, provider: Provider) -> bool:
        if request.file is None:
            return False
        return self.serve_files or provider.file_route is FileRoute.SERVE

    async def _upload(self, provider: Provider, request: HttpRequest, progress: Progress | None) -> str:
        assert isinstance(provider, Uploads)  # noqa: S101 - both callers looked
        for attempt in range(1, UPLOAD_ATTEMPTS + 1):
            try:
                response = await self.transport.send(request, progress=progress)
            except (NotSentError, BrokenError) as error:  # an upload costs nothing, so it may be repeated
                if attempt == UPLOAD_ATTEMPTS:
                    raise ProviderDownError(
                        f"the upload failed: {error}", provider=provider.name, retryable=True, charged=False
                    ) from error
            else:
                return provider.parse_upload(response)
        raise AssertionError  # pragma: no cover - the last attempt returns or raises


def _by_url(request: Request, url: str) -> Request:
    return attrs.evolve(request, file=None, url=url)


def _with_duration(request: Request, source: Source) -> Request:
    if source.duration is None or request.source_duration is not None:
        return request
    fields = {**request.given(), "source_duration": source.duration}
    return type(request).draft(**fields)


def _unique(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(problems))


def _resend_wait(outcome: Refused, resend: int) -> float:
    if isinstance(outcome.error, RateLimitError) and outcome.error.retry_after is not None:
        return outcome.error.retry_after
    return float(RESEND_SECONDS * 2**resend)
