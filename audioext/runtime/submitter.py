"""The submit: checked, its file brought along, a permit, a durable record, then one POST and its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

import attrs
from attrs import define, field, frozen
from yarl import URL

from audioext.clock import Clock, mint_id
from audioext.errors import (
    ConfigError,
    Problem,
    ProviderDownError,
    ProviderError,
    RateLimitError,
    RequestError,
    UnsupportedError,
)
from audioext.files.downloads import Shelf, Source, probe
from audioext.files.sources import Sources
from audioext.http.transport import BrokenError, NotSentError, Progress, Transport
from audioext.http.urls import callback_url
from audioext.models.events import Refused, SubmitOutcome, Submitted, Unknown
from audioext.models.record import Record
from audioext.models.requests import Extend, Request
from audioext.providers.base import Provider
from audioext.runtime.journal import Dispatcher
from audioext.runtime.limits import Account
from audioext.runtime.outcomes import Outcomes
from audioext.runtime.waiters import Registry
from audioext.stores.base import Created, Store, Versioned

_log = logging.getLogger("audioext.submit")

MAX_RESENDS = 4
RESEND_SECONDS = 5.0  # doubled with each resend, unless the answer says how long
SUBMIT_TIMEOUT_SECONDS = 60.0
POLL_GRACE_SECONDS = SUBMIT_TIMEOUT_SECONDS + 15.0
"""Where nobody can call us, other processes know after this that the POST told nothing; this one knows at once."""
SHORTEST_SECRET = 8


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
    outcomes: Outcomes
    transport: Transport
    shelf: Shelf
    sources: Sources
    clock: Clock
    accounts: Mapping[str, Account]
    permit_timeout: float
    expire_after: float
    public_url: Callable[[], URL | None]
    secret: Callable[[], bytes]
    _offers: dict[str, str] = field(factory=dict, init=False)
    _posting: set[asyncio.Task[object]] = field(factory=set, init=False)
    _sent: WeakKeyDictionary[asyncio.Task[object], Versioned] = field(factory=WeakKeyDictionary, init=False)
    _closing: asyncio.Event = field(factory=asyncio.Event, init=False)

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
        if self.sources.serves(request, provider) and self.sources.public_url() is None:
            message = (
                f"{provider.name} takes audio by URL only, and nobody could ask this process for the file: give "
                "public_url= and listen=, or mount receiver.add_to(app), or pass url= instead of file="
            )
            raise UnsupportedError(message)
        return attrs.evolve(order, request=request)

    async def submit(self, order: Order) -> Versioned:
        """Send a checked *order* and return its record: a job whose outcome may be unknown, but never lost.

        Raises:
            ProviderError: the provider refused, and charged nothing.
            RateLimitError: no permit came in time; nothing was sent.
            StoreError: the record could not be stored; nothing was sent.
        """
        if order.key is not None:
            await self.outcomes.discard_refused(order.key)
            existing = await self.store.find_key(order.key)
            if existing is not None:
                _warn_of_other(existing.record, order)
                return existing
        sent, offer = await self.sources.bring(order.request, order.provider, order.progress)
        try:
            for resend in range(MAX_RESENDS + 1):
                stored, outcome = await self._attempt(order, sent, offer)
                if not isinstance(outcome, Refused):
                    if outcome is not None:
                        offer = None  # it is the job's now
                    return stored
                if not outcome.resend or resend == MAX_RESENDS:
                    raise outcome.error
                with suppress(TimeoutError):
                    async with asyncio.timeout(_resend_wait(outcome, resend)):
                        await self._closing.wait()
                if self._closing.is_set():
                    raise outcome.error
                await self.outcomes.discard_refused(order.key)
        finally:
            if offer is not None:
                self.shelf.take_back(offer)
        raise AssertionError  # pragma: no cover - the last resend returns or raises

    def is_posting(self, task: asyncio.Task[Versioned]) -> bool:
        """Say whether *task* has stored its record: from then on it must have its answer."""
        return task in self._posting

    def sent_by(self, task: asyncio.Task[Versioned]) -> Versioned | None:
        """Return the record of the POST that *task* began last, `None` if it began none."""
        return self._sent.get(task)

    def unfinished(self) -> frozenset[str]:
        """Return the jobs that still hold something: a file that we serve, or a place among the parallel ones."""
        return frozenset(self._offers).union(*(account.open_here for account in self.accounts.values()))

    def finish(self, ref: str) -> None:
        """Let go of what a job held while it ran: its file and its place among the parallel ones."""
        offer = self._offers.pop(ref, None)
        if offer is not None:
            self.shelf.take_back(offer)
        self._leave(ref)

    def close(self) -> None:
        """Send nothing again from now on."""
        self._closing.set()

    async def aclose(self) -> None:
        """Try once more to store what the store did not take."""
        self.close()
        await self.outcomes.aclose()

    async def _attempt(self, order: Order, sent: Request, offer: str | None) -> tuple[Versioned, SubmitOutcome | None]:
        """Make one POST under a permit; the outcome is `None` where the key's job exists already.

        The *offer* under which we serve the file is the new job's, from before the POST until it is finished.
        """
        provider = order.provider
        account = self.accounts[provider.name]
        ref = mint_id(self.clock.now())
        try:
            await account.take(ref, timeout=self.permit_timeout)
        except TimeoutError as error:
            message = f"no permit within {self.permit_timeout:g} s: too many submits wait; nothing was sent"
            raise RateLimitError(message, provider=provider.name) from error
        created: Created | None = None
        try:
            record = self._record(order, ref)
            with self._bound() as task:
                with self.registry.posting(ref):
                    due_at = self.dispatcher.due_at(record)
                    created = await self.store.create(record, order.key, due_at=due_at)
                    if created.existing:
                        _warn_of_other(created.stored.record, order)
                        return created.stored, None
                    self._sent[task] = created.stored
                    if offer is not None:
                        self._offers[ref] = offer
                    said = await self._post(provider, sent, record)
                    stored, outcome = await self.outcomes.conclude(created.stored, said)
                    if isinstance(outcome, Refused):
                        self._offers.pop(ref, None)  # its file may be offered again with the next try
                    if not isinstance(outcome, Submitted):
                        self._leave(ref)
                if isinstance(outcome, Submitted) and not stored.record.is_final:
                    await account.keep(ref, until=record.created_at + self.expire_after)
                return stored, outcome
        finally:
            account.sent(ref)
            if created is None or created.existing:
                account.finish(ref)

    @contextmanager
    def _bound(self) -> Generator[asyncio.Task[object]]:
        """Mark the running task as one that must not be cancelled any more."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this runs in a task
        self._posting.add(task)
        try:
            yield task
        finally:
            self._posting.discard(task)

    def _record(self, order: Order, ref: str) -> Record:
        provider, request, now = order.provider, order.request, self.clock.now()
        reachable = self.public_url() is not None
        outputs = request.num_outputs if isinstance(request, Extend) else None
        return Record(
            ref=ref,
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
            grace=provider.grace if reachable else POLL_GRACE_SECONDS,
        )

    async def _post(self, provider: Provider, sent: Request, record: Record) -> SubmitOutcome:
        public_url = self.public_url()
        callback = None
        if public_url is not None:
            callback = callback_url(public_url, self.secret(), provider.name, record.ref)
        try:
            request = provider.build_submit(sent, callback)
        except Exception as error:  # noqa: BLE001 - a provider's bug, or a name that it cannot write
            _log.exception("job %s: the submit could not be built", record.ref)
            message = f"{provider.name} could not put the request into words ({type(error).__name__}); nothing was sent"
            return Refused(error=ProviderError(message, provider=provider.name, charged=False))
        try:
            response = await self.transport.send(request, timeout=SUBMIT_TIMEOUT_SECONDS)
        except NotSentError as error:
            down = ProviderDownError(str(error), provider=provider.name, retryable=True, charged=False)
            return Refused(error=down)
        except BrokenError as error:
            return Unknown(reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, bytes may have left
            _log.exception("job %s: the submit broke off", record.ref)
            return Unknown(reason=f"the submit broke off with {type(error).__name__}")
        # A provider may quote the callback URL in its error; what we show and store must not hold the tag.
        secrets = [provider.api_key or "", "" if callback is None else callback.name]
        body = response.body
        for secret in (secret for secret in secrets if len(secret) >= SHORTEST_SECRET):
            body = body.replace(secret.encode(), b"***")
        try:
            return provider.parse_submit(attrs.evolve(response, body=body))
        except Exception as error:  # noqa: BLE001 - a custom provider's bug must not lose a task that was paid for
            _log.exception("job %s: the submit answer could not be read", record.ref)
            return Unknown(reason=f"parse_submit raised {type(error).__name__}")

    def _leave(self, ref: str) -> None:
        for account in self.accounts.values():
            account.finish(ref)


def _with_duration(request: Request, source: Source) -> Request:
    if source.duration is None or request.source_duration is not None:
        return request
    fields = {**request.given(), "source_duration": source.duration}
    return type(request).draft(**fields)


def _warn_of_other(record: Record, order: Order) -> None:
    """Tell who asks for something else under a key that is taken; the same file may lie elsewhere by now."""
    held, asked = (
        {name: value for name, value in request.given().items() if name not in {"file", "source_duration"}}
        for request in (record.request, order.request)
    )
    if held != asked or record.provider != order.provider.name:
        _log.warning("key %r: it has job %s already, which was for another request", order.key, record.ref)


def _unique(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(problems))


def _resend_wait(outcome: Refused, resend: int) -> float:
    if isinstance(outcome.error, RateLimitError) and outcome.error.retry_after is not None:
        return outcome.error.retry_after
    return float(RESEND_SECONDS * 2**resend)
