"""The submit: checked, its file brought along, durable, then one POST and its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
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
    StoreError,
    UnsupportedError,
)
from audioext.files.serving import Offers
from audioext.files.sources import SourceInfo, Sources, probe
from audioext.http.transport import Progress, Transport
from audioext.http.urls import callback_url
from audioext.models.entries import Entry, Index, make_entry
from audioext.models.events import Refused
from audioext.models.record import Asked, Record, Verdict
from audioext.models.requests import Extend, Request
from audioext.providers.base import Provider
from audioext.runtime.held import HeldJob
from audioext.runtime.journal import Journal
from audioext.runtime.limits import Account
from audioext.runtime.posts import SUBMIT_TIMEOUT_SECONDS, post
from audioext.state.asked import dump_asked
from audioext.state.reading import Reading
from audioext.stores.base import Existing, Store

_log = logging.getLogger("audioext.submit")

MAX_RESENDS = 4
RESEND_SECONDS = 5.0
"""How long a submit waits after a refusal that allows another; doubled with each, unless the answer says how long."""
POLL_GRACE_SECONDS = SUBMIT_TIMEOUT_SECONDS + 15.0
"""Where nobody can call us, other processes know after this that the POST told nothing; this one knows at once."""


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
    """Sends orders; each ref is POSTed once, and again under a new one only after an answer that cost nothing.

    A submit runs in a task of its own, so that a caller who is cancelled cancels none.
    """

    store: Store
    journal: Journal
    transport: Transport
    offers: Offers
    sources: Sources
    clock: Clock
    accounts: Mapping[str, Account]
    permit_timeout: float
    public_url: Callable[[], URL | None]
    secret: Callable[[], bytes]
    _tasks: set[asyncio.Task[HeldJob]] = field(factory=set, init=False)
    _by_key: dict[str, asyncio.Task[HeldJob]] = field(factory=dict, init=False)
    _bound: set[asyncio.Task[object]] = field(factory=set, init=False)
    _sent: WeakKeyDictionary[asyncio.Task[object], HeldJob] = field(factory=WeakKeyDictionary, init=False)
    _served: dict[str, tuple[HeldJob, str]] = field(factory=dict, init=False)
    _closing: asyncio.Event = field(factory=asyncio.Event, init=False)

    async def check(self, order: Order) -> Order:
        """Return *order* with what its local file tells, or refuse it; nothing was sent yet.

        Raises:
            RequestError: all that is wrong with the request, at once.
            UnsupportedError: the provider has no such operation, or no way to take the file.
            ConfigError: no API key is known.
        """
        request, provider = order.request, order.provider
        found: list[Problem] = []
        if isinstance(request.file, Path):
            source = await asyncio.to_thread(probe, request.file)
            if isinstance(source, Problem):
                found.append(source)
            else:
                request = _with_duration(request, source)
        checked = tuple(dict.fromkeys((*request.problems(), *found, *provider.check(request))))
        refusing = [problem for problem in checked if not problem.advice]
        if refusing:
            raise RequestError(refusing)
        for advice in checked:
            _log.warning("%s: %s", provider.info.name, advice)
        if not provider.info.has_key:
            message = f"no API key for {provider.info.name}: set {provider.info.key_variable}, or pass api_key="
            raise ConfigError(message)
        if self.sources.serves(request, provider) and self.sources.public_url() is None:
            message = (
                f"{provider.info.name} takes audio by URL only, and nobody could ask this process for the file: give "
                "public_url= and listen=, or mount receiver.add_to(app), or pass url= instead of file="
            )
            raise UnsupportedError(message)
        return attrs.evolve(order, request=request)

    def start(self, order: Order) -> asyncio.Task[HeldJob]:
        """Return the task that submits a checked *order*; two calls with one key at the same time share it.

        Its result is a job whose outcome may be unknown, but which is never lost. It raises `ProviderError` where the
        provider refused, which cost nothing, `RateLimitError` where there was no room in time, and `StoreError` where
        the job could not be stored; then nothing was sent.

        Raises:
            ConfigError: the client is being closed.
        """
        self._check_open()
        key = order.key
        if key is not None and key in self._by_key:
            return self._by_key[key]
        task = asyncio.create_task(self._submit(order), name="audioext submit")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if key is not None:
            self._by_key[key] = task
            task.add_done_callback(lambda _: self._by_key.pop(key))
        return task

    def sent_by(self, task: asyncio.Task[HeldJob]) -> HeldJob | None:
        """Return the job of the POST that *task* began last, `None` if it began none."""
        return self._sent.get(task)

    def finish(self, ref: str) -> None:
        """Let go of what a job held while it ran: its file, and its part of the account's limits."""
        _, offer = self._served.pop(ref, (None, None))
        if offer is not None:
            self.offers.withdraw(offer)
        for account in self.accounts.values():
            account.look_again()

    async def aclose(self) -> None:
        """Cancel what was not sent; let a POST that is under way have its answer, and store it."""
        self._closing.set()
        for task in tuple(self._tasks):
            if task not in self._bound:
                task.cancel()
        for account in self.accounts.values():  # who is about to be told to wait for room
            account.look_again()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def cut_off(self) -> None:
        """Wait for no answer any more: what is still under way stays unknown until its callback comes."""
        for task in tuple(self._tasks):
            task.cancel()

    def _check_open(self) -> None:
        if self._closing.is_set():
            message = "the client was closed before this submit was sent; nothing was paid"
            raise ConfigError(message)

    def _ended(self, task: asyncio.Task[HeldJob]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.info("a submit ended without a job: %s", task.exception())

    async def _submit(self, order: Order) -> HeldJob:
        if order.key is not None and (found := await self._find(order)) is not None:
            return found
        request, offer = await self.sources.bring(order.request, order.provider, order.progress)
        try:
            for resend in range(MAX_RESENDS + 1):
                held, refused = await self._attempt(order, request, offer)
                if refused is None:
                    offer = offer if held.ref not in self._served else None  # it is the job's now
                    return held
                if not refused.resend or resend == MAX_RESENDS:
                    raise refused.error
                with self._bind():  # closing ends the pause, and the refusal is what is told
                    await self.clock.wait_for(self._closing, _resend_wait(refused, resend))
                if self._closing.is_set():
                    raise refused.error
        finally:
            if offer is not None:
                self.offers.withdraw(offer)
        raise AssertionError  # pragma: no cover - the last resend returns or raises

    async def _find(self, order: Order) -> HeldJob | None:
        await self.journal.flush()  # a refusal that is not stored yet still holds its key
        ref = await self.store.find(key=order.key)
        held = await self.journal.hold(ref) if ref is not None else None
        if held is not None:
            _warn_of_other(held.record, order)
        return held

    async def _attempt(self, order: Order, request: Request, offer: str | None) -> tuple[HeldJob, Refused | None]:
        """Make one POST as soon as the account has room; return its job, and the answer if that refuses it."""
        provider = order.provider
        ref = mint_id(self.clock.now())
        asked = self._asked(order)
        body = dump_asked(asked)
        fresh: list[HeldJob] = []

        def make() -> tuple[Entry, Index]:
            self._check_open()
            entry = make_entry("request", self.clock.now(), body=body)
            fresh[:] = [self.journal.begin(ref, Reading(entry, asked=asked), provider)]
            return entry, self.journal.first_index(fresh[0])

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this runs in a task
        try:
            created = await self.accounts[provider.info.name].create(
                make, timeout=self.permit_timeout, bound=self._bind
            )
        except TimeoutError as error:
            message = f"no permit within {self.permit_timeout:g} s: too many submits wait; nothing was sent"
            raise RateLimitError(message, provider=provider.info.name) from error
        except StoreError:
            if fresh:  # it may be stored all the same, and would hold its key as if it had been sent
                why = "the store did not say that it took the job; nothing was sent"
                self.journal.disown(fresh[0], make_entry("abandoned", self.clock.now(), note=why))
            raise
        if isinstance(created, Existing) and created.ref != ref:  # its own ref: a create that was sent again
            found = await self._find(order)
            return (found, None) if found is not None else await self._attempt(order, request, offer)
        with self._bind():
            held = self._sent[task] = self.journal.keep(fresh[0])  # not before: what is held is given back to a store
            if offer is not None:
                self._served[ref] = (held, offer)
            held.posts += 1
            try:
                callback = self._callback(provider.info.name, ref)
                entry = await post(self.transport, self.clock, provider, request, ref=ref, callback=callback)
                await self.journal.append_sometime(held, [entry])
            finally:
                held.posts -= 1
                held.wake()
        refused = self._conclude(held, entry)
        if refused is not None:
            del self._sent[task]  # closing before it is sent again costs nothing
        return held, refused

    def _conclude(self, held: HeldJob, entry: Entry) -> Refused | None:
        record = held.record
        if record.verdict is Verdict.REFUSED:
            self._served.pop(held.ref, None)  # its file may be offered again with the next try
            self.finish(held.ref)
            outcome = held.readings[entry.id].outcome
            if isinstance(outcome, Refused):
                return outcome
            return Refused(error=_unsent_error(record, entry))
        if record.answer_problem is not None and record.task_id is None:
            _log.warning(
                "job %s: the outcome of its POST is unknown, nothing is resent: %s", held.ref, record.answer_problem
            )
            self.finish(held.ref)
        return None

    @contextmanager
    def _bind(self) -> Generator[None]:
        """Mark the running task as one that closing must let finish."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this runs in a task
        self._bound.add(task)
        try:
            yield
        finally:
            self._bound.discard(task)

    def _callback(self, provider: str, ref: str) -> URL | None:
        public_url = self.public_url()
        return None if public_url is None else callback_url(public_url, self.secret(), provider, ref)

    def _asked(self, order: Order) -> Asked:
        info, request = order.provider.info, order.request
        reachable = self.public_url() is not None
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
            webhooks=reachable,
            grace=info.grace if reachable else POLL_GRACE_SECONDS,
            base_url=str(info.base_url),
        )


def _unsent_error(record: Record, entry: Entry) -> ProviderError:
    if entry.status:  # no connection
        return ProviderDownError(entry.note, provider=record.provider, retryable=True, charged=False)
    return ProviderError(entry.note, provider=record.provider, charged=False)


def _with_duration(request: Request, source: SourceInfo) -> Request:
    if source.duration is None or request.source_duration is not None:
        return request
    return type(request).draft(**{**request.given(), "source_duration": source.duration})


def _warn_of_other(record: Record, order: Order) -> None:
    """Tell who asks for something else under a key that is taken; the same file may lie elsewhere by now."""
    held, asked = (
        {name: value for name, value in request.given().items() if name not in {"file", "source_duration"}}
        for request in (record.request, order.request)
    )
    if held != asked or record.provider != order.provider.info.name:
        _log.warning("key %r: it has job %s already, which was for another request", order.key, record.ref)


def _resend_wait(outcome: Refused, resend: int) -> float:
    asked = outcome.error.retry_after if isinstance(outcome.error, RateLimitError) else None
    return RESEND_SECONDS * 2**resend if asked is None else asked
