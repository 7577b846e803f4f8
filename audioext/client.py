"""The client: it wires the parts, and is what a user holds."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets as random_secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from yarl import URL

from audioext import config
from audioext.clock import Clock
from audioext.config import UNSET, Decoders, Unset
from audioext.errors import ConfigError, Problem, ProviderDownError, RequestError, StoreError, UnsupportedError
from audioext.files.downloads import Downloader
from audioext.files.serving import Offers
from audioext.files.sources import Sources
from audioext.http.messages import Webhook
from audioext.http.transport import BrokenError, NotSentError, Progress, Transport
from audioext.http.urls import Route
from audioext.models.entries import Entry
from audioext.models.record import Record
from audioext.models.requests import (
    LONE_SURROGATE,
    AddInstrumental,
    Extend,
    ExtendOptions,
    InstrumentalOptions,
    Request,
)
from audioext.models.results import Song, Stage
from audioext.providers.base import Credits, Provider
from audioext.runtime.changes import Changes
from audioext.runtime.handlers import HANDLING, FailureHandler, Handlers, StageHandler
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Job, JobContext, SubmitUnknownError
from audioext.runtime.journal import Journal
from audioext.runtime.maintenance import Maintenance
from audioext.runtime.poller import Poller
from audioext.runtime.submitter import Order, Submitter
from audioext.state.fold import fold
from audioext.stores import MemoryStore, open_store
from audioext.stores.base import Delivery, Store, to_delivery
from audioext.webhooks.inbox import Confirm, Inbox
from audioext.webhooks.receiver import Receiver

_log = logging.getLogger("audioext.client")
_StageHandlerT = TypeVar("_StageHandlerT", bound=StageHandler)
_FailureHandlerT = TypeVar("_FailureHandlerT", bound=FailureHandler)

DAY_SECONDS = 86_400.0
SECRET_NAME = "callback secret"  # noqa: S105 - the name, not the secret
SECRET_BYTES = 32
DRAIN_SECONDS = 10.0
CLOSE_SECONDS = 14.0
"""How long closing may take in all, whatever hangs."""


class Client:
    """Submits tasks and hands out jobs to await; use it with `async with`.

    Constructing it does no I/O and needs no running loop. The first provider is the default one. Every
    setting in seconds says so in its name or is one of `wait_timeout` (bounds every await and iteration),
    `expire_after` (an open job is given up then, after a last status call), `permit_timeout` (how long a
    submit may wait for its turn under the provider's limits), `handler_timeout` (a handler that runs longer
    counts as failed), `poll_timeout` (bounds a status call) and `keep` (how long finished jobs are remembered;
    providers repeat callbacks).

    `public_url` is where providers reach the receiver; without one the client only polls. `listen` is where
    the receiver listens: by default 127.0.0.1:8080 with a `public_url`, else nowhere; `None` means mounted
    in your app, or another process. Port 0 fills `{port}` in `public_url`. `confirm="always"` lets a webhook
    that claims COMPLETE only trigger a status call. `serve_files=True` serves local files from the receiver
    instead of uploading them. `secrets` sign the callback URLs, the first one new ones; without any the
    store keeps one. `store` is a URL (`sqlite:///jobs.db`, `redis://host:6379/0`; see `open_store`) or a store.

    Raises:
        ConfigError: the settings cannot work together; the message says which and what to do.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        *providers: Provider,
        public_url: str | URL | None = None,
        listen: str | int | Unset | None = UNSET,
        store: str | Store | None = None,
        secrets: Sequence[str | bytes] = (),
        confirm: Confirm = "never",
        serve_files: bool = False,
        wait_timeout: float = 1_800.0,
        expire_after: float = DAY_SECONDS,
        permit_timeout: float = 900.0,
        handler_timeout: float = 60.0,
        poll_timeout: float = 20.0,
        handler_concurrency: int = 16,
        keep: float = 7 * DAY_SECONDS,
        deliveries_kept: int = 100_000,
        clock: Clock | None = None,
    ) -> None:
        """Check the settings and wire the parts."""
        config.check_durations(
            wait_timeout=wait_timeout,
            expire_after=expire_after,
            permit_timeout=permit_timeout,
            handler_timeout=handler_timeout,
            poll_timeout=poll_timeout,
            keep=keep,
        )
        self._clock = clock = clock if clock is not None else Clock()
        self._providers = config.named(providers, os.environ)
        self._public_url = config.read_public_url(public_url)
        self._listen = config.read_listen(listen, self._public_url)
        config.check_callbacks(self._providers.values(), self._public_url)
        self._own_secrets = config.read_secrets(secrets)
        self._secrets: tuple[bytes, ...] = ()
        self._store = store = open_store(store)
        self._transport = Transport()
        self._waits = 0
        self._open = self._closed = False
        self._closing: asyncio.Task[None] | None = None
        # A listener decodes every provider's webhooks, whoever submitted the task.
        decoders = Decoders(self._providers)
        self._journal = Journal(store=store, providers=decoders, clock=clock, expire_after=expire_after)
        self._poller = Poller(
            store=store,
            journal=self._journal,
            transport=self._transport,
            providers=self._providers,
            clock=clock,
            expire_after=expire_after,
            timeout=poll_timeout,
        )
        self._handlers = Handlers(
            store=store, journal=self._journal, clock=clock, timeout=handler_timeout, concurrency=handler_concurrency
        )
        offers = Offers()
        self.inbox = Inbox(
            journal=self._journal,
            providers=decoders,
            clock=clock,
            confirm=confirm,
            accepting=lambda: self._open,
        )
        self.receiver = Receiver(inbox=self.inbox, offers=offers, ready=store.warnings)
        self._submitter = Submitter(
            store=store,
            journal=self._journal,
            transport=self._transport,
            offers=offers,
            sources=Sources(
                transport=self._transport,
                offers=offers,
                clock=clock,
                serve_files=serve_files,
                public_url=lambda: self._public_url if self.receiver.is_serving else None,
            ),
            clock=clock,
            accounts=config.accounts(self._providers, store, clock),
            permit_timeout=permit_timeout,
            public_url=lambda: self._public_url,
            secret=lambda: self._secrets[0],
        )
        self._journal.on_poll = self._poller.wake
        self._journal.on_work = self._handlers.wake
        self._journal.on_final = self._submitter.finish
        self._job_context = JobContext(
            hold=self._journal.hold,
            refresh=self._refresh,
            is_closed=lambda: self._journal.is_closed,
            watch=self._watch,
            saver=Downloader(self._transport).save,
            clock=clock,
            wait_timeout=wait_timeout,
        )
        self._changes = Changes(
            store=store, journal=self._journal, on_change=self._handlers.wake, on_resync=self._agree_on_secret
        )
        self._maintenance = Maintenance(store=store, clock=clock, keep=keep, deliveries_kept=deliveries_kept)

    def __repr__(self) -> str:
        """Name the providers and say whether it is open."""
        state = "open" if self._open else "closed" if self._closed else "new"
        return f"<Client {', '.join(self._providers) or 'without providers'}, {state}>"

    # --- opening and closing ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the store, listen, and take up what an earlier process left open.

        Raises:
            ConfigError: the client was open before, or its address cannot be listened on.
            StoreError: the store cannot be opened.
        """
        if self._open or self._closed:
            message = "a client is opened once: make a new one"
            raise ConfigError(message)
        try:
            await self._store.open()
            self._secrets = self._own_secrets
            await self._agree_on_secret()
            # Who only looks risks nothing, and who keeps jobs in memory knows it.
            if (self._providers or self._listen) and not isinstance(self._store, MemoryStore):
                for warning in await self._store.warnings():
                    _log.warning("the store: %s", warning)
            self._open = True  # before listening: the first delivery may already wait
            if self._listen is not None:
                host, port = self._listen
                prefix = "/" if self._public_url is None else self._public_url.path
                port = await self.receiver.start(host, port, prefix=prefix)
                self._public_url = config.fill_port(self._public_url, port)
        except BaseException:
            self._open = False
            self._closed = True
            await self.receiver.aclose()
            await self._store.aclose()
            raise
        self._poller.start()
        self._handlers.start()
        self._changes.start()
        self._maintenance.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close: end the waits, stop accepting, apply what was accepted, let handlers drain, close the store.

        Open waits raise `ClientClosedError`; their jobs live on. Handlers get 10 seconds; what is then
        cancelled runs again when a client opens the same store. It takes 15 seconds at most: a POST without an answer
        is then left to its callback. Calling it again, or at the same time, waits for the one closing; cancelling
        a call does not stop it. Within a handler, which it would wait for, it only begins to close.
        """
        if self._closing is None:
            if not self._open:
                return
            self._closing = asyncio.create_task(self._close(), name="audioext close")
        if HANDLING.get() is None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + CLOSE_SECONDS
        self._journal.close_waits()
        submits = asyncio.create_task(self._submitter.aclose(), name="audioext close submits")
        await self.receiver.aclose()
        self._open = False
        self._closed = True
        await self._changes.aclose()
        await self._maintenance.aclose()
        await self._poller.aclose()
        await self._handlers.aclose(drain=max(min(DRAIN_SECONDS, ends_at - loop.time() - 3.0), 0.5))
        _, pending = await asyncio.wait([submits], timeout=max(ends_at - loop.time() - 1.0, 0.1))
        if pending:
            self._submitter.cut_off()
            await submits
        for end in (self._journal.aclose, self._transport.aclose, self._store.aclose):
            task = asyncio.create_task(end(), name="audioext close")
            _, pending = await asyncio.wait([task], timeout=max(ends_at + 1.0 - loop.time(), 0.1))
            if pending:
                task.cancel()
                _log.error("the client did not close in time; what hangs is left alone")
            else:
                task.result()

    @property
    def public_url(self) -> URL | None:
        """Where providers reach the receiver, with its port filled in once it listens."""
        return self._public_url

    @property
    def store(self) -> Store:
        """The store that holds the truth about all jobs."""
        return self._store

    # --- submitting --------------------------------------------------------------------------------------

    async def submit(
        self,
        request: Request,
        *,
        provider: str | None = None,
        key: str | None = None,
        meta: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> Job:
        """Send *request* and return its job, as soon as the provider answered or its silence is certain.

        *provider* picks one of several by name. With a *key* that an earlier submit had, that job is returned
        and nothing is sent. *meta* is JSON of yours that comes back with every event.
        `progress(bytes_so_far, bytes_in_all)` is called while a file is uploaded. Cancelling this call does
        not cancel the submit. Within a handler a key is made for it, so that a handler that is called again
        gets the job that it submitted before.

        Raises:
            RequestError: all that is wrong with the request, at once; nothing was sent.
            UnsupportedError: the provider has no such operation; nothing was sent.
            ConfigError: no such provider, no API key, or the client is not open; nothing was sent.
            ProviderError: the provider refused, which cost nothing.
            StoreError: the job could not be stored; nothing was sent.
        """
        self._check_open()
        chosen = self._choose(provider or request.provider)
        handling = HANDLING.get()
        if key is None and handling is not None:
            key = await handling.key(chosen.info.name, request)
        order = Order(
            request=request,
            provider=chosen,
            key=config.check_key(key),
            meta=config.check_meta(meta),
            progress=progress,
        )
        order = await self._submitter.check(order)
        self._check_open()  # again: looking at a file takes its time
        task = self._submitter.start(order)
        try:
            held = await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            sent = self._submitter.sent_by(task)
            if sent is None:
                message = "the client was closed before this submit was sent; nothing was paid"
                raise ConfigError(message) from None
            job = Job(sent, self._job_context)
            message = f"job {job.ref}: its POST was cut off, so nobody knows whether it landed at {job.provider}"
            raise SubmitUnknownError(message, job=job) from None
        return Job(held, self._job_context)

    async def extend(
        self,
        *,
        key: str | None = None,
        meta: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ExtendOptions],
    ) -> Job:
        """Submit an `Extend` of these fields; see there for the fields and `submit` for the rest."""
        return await self.submit(Extend.draft(**options), key=key, meta=meta, progress=progress)

    async def add_instrumental(
        self,
        *,
        key: str | None = None,
        meta: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        **options: Unpack[InstrumentalOptions],
    ) -> Job:
        """Submit an `AddInstrumental` of these fields; see there for the fields and `submit` for the rest."""
        return await self.submit(AddInstrumental.draft(**options), key=key, meta=meta, progress=progress)

    async def run(  # noqa: PLR0913 - submit's keywords and one more
        self,
        request: Request,
        *,
        timeout: float = 900.0,  # noqa: ASYNC109 - the wait is ended, never the job
        provider: str | None = None,
        key: str | None = None,
        meta: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> Song:
        """Submit *request* and await its song for at most *timeout* seconds after the submit.

        Raises:
            AudioextError: whatever `submit` or `Job.result` raises.
        """
        job = await self.submit(request, provider=provider, key=key, meta=meta, progress=progress)
        return await job.result(timeout=timeout)

    # --- jobs and what happens to them -------------------------------------------------------------------

    async def job(self, ref: str) -> Job:
        """Return the job of *ref*, whichever process submitted it.

        Raises:
            RequestError: the store holds no such job.
            StoreError: the store cannot be read.
        """
        self._check_open()
        return Job(await self._find(ref), self._job_context)

    async def jobs(
        self,
        *,
        open: bool | None = None,  # noqa: A002 - reads as a question at the call: jobs(open=True)
        meta: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Job]:
        """Yield the jobs of the store, oldest first: all, or only open or ended ones, with this *meta* in theirs."""
        self._check_open()
        wanted = dict(meta or {})
        async for stored in self._store.jobs(is_open=open):
            try:
                job = Job(self._journal.take_in(stored), self._job_context)
            except (ConfigError, StoreError) as error:
                _log.warning("%s", error)
                continue
            if all(name in job.meta and job.meta[name] == value for name, value in wanted.items()):
                yield job

    def on(self, stage: Stage) -> Callable[[_StageHandlerT], _StageHandlerT]:
        """Decorate an async function that is called with each job's `StageEvent` of *stage*.

        It is called at least once for each (job, stage), after a restart too; the stages of one job come in
        order. An error is logged and tried again, up to five times, then shown in `job.record`.

        Raises:
            ConfigError: handlers are not told of that stage, or what is decorated is no async function.
        """
        self._handlers.check(stage)

        def register(handler: _StageHandlerT) -> _StageHandlerT:
            self._handlers.on(stage, handler)
            return handler

        return register

    def on_failure(self, handler: _FailureHandlerT) -> _FailureHandlerT:
        """Decorate an async function that is called with each job's `Failure`, at least once."""
        self._handlers.on_failure(handler)
        return handler

    async def credits(self, provider: str | None = None) -> float:
        """Return the balance at *provider* (the default one without a name), in its own credits.

        Raises:
            UnsupportedError: the provider tells no balance.
            ProviderError: the call was refused.
        """
        self._check_open()
        chosen = self._choose(provider)
        if not isinstance(chosen, Credits):
            message = f"{chosen.info.name} has no known call that tells the balance"
            raise UnsupportedError(message)
        if not chosen.info.has_key:
            message = f"no API key for {chosen.info.name}: set {chosen.info.key_variable}, or pass api_key="
            raise ConfigError(message)
        try:
            response = await self._transport.send(chosen.build_credits())
        except (NotSentError, BrokenError) as error:
            raise ProviderDownError(str(error), provider=chosen.info.name, retryable=True, charged=False) from error
        return chosen.parse_credits(response)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal of deliveries, newest first, of one job where *ref* is given."""
        self._check_open()
        async for delivery in self._store.deliveries(ref):
            yield delivery

    async def delivery(self, id: str) -> Delivery:  # noqa: A002 - it is a delivery's `id`
        """Return one delivery by its `id`.

        Raises:
            RequestError: the store holds no such delivery.
        """
        self._check_open()
        ref, _, entry_id = id.partition("-")
        stored = await self._store.read(ref)
        for entry in stored.entries if stored is not None else ():
            if stored is not None and entry.kind == "webhook" and entry.id == entry_id:
                is_orphan = all(other.kind != "request" for other in stored.entries)
                return to_delivery(ref, stored.index.provider, entry, is_orphan=is_orphan)
        raise RequestError([Problem("delivery", f"this store holds no delivery {id!r}")])

    async def replay(self, id: str) -> int:  # noqa: A002 - as above
        """Take a delivery that was kept once more, and return the status that it would be answered with now.

        Raises:
            RequestError: the store holds no such delivery.
        """
        delivery = await self.delivery(id)
        route = Route(delivery.provider, delivery.ref, "")
        return await self.inbox.replay(route, Webhook(headers=delivery.headers, body=delivery.body))

    async def timeline(self, ref: str) -> tuple[tuple[Entry, Record | None], ...]:
        """Return each entry of a job's journal, oldest first, with the record that the journal meant up to it.

        Raises:
            RequestError: the store holds no such job.
        """
        held = await self._find(ref)
        readings = sorted(held.readings.values(), key=lambda reading: (reading.entry.at, reading.entry.id))
        return tuple((reading.entry, fold(ref, readings[:n])) for n, reading in enumerate(readings, 1))

    # --- inside ------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._open:
            message = "the client is not open: use it inside `async with Client(...) as client:`"
            raise ConfigError(message)

    def _choose(self, name: str | None) -> Provider:
        if not self._providers:
            message = "this client has no provider: pass one, like Client(Kie())"
            raise ConfigError(message)
        if name is None:
            return next(iter(self._providers.values()))
        if name not in self._providers:
            message = f"this client has no provider named {name!r}; it has {', '.join(self._providers)}"
            raise ConfigError(message)
        return self._providers[name]

    async def _find(self, ref: str) -> HeldJob:
        self._check_open()
        held = None if LONE_SURROGATE.search(ref) else await self._journal.hold(ref)
        if held is None:
            raise RequestError([Problem("ref", f"this store holds no job {ref!r}")])
        return held

    async def _refresh(self, held: HeldJob) -> None:
        self._choose(held.record.provider)
        await self._poller.ask(held)

    def _watch(self, change: int) -> None:
        self._waits += change
        if self._waits == (change > 0):  # the first wait began, or the last one ended
            self._store.watch(urgent=change > 0)

    async def _agree_on_secret(self) -> None:
        """Take the store's secret; one that it has lost is given back to it, so that URLs in use stay valid."""
        if not self._own_secrets:
            mine = self._secrets[0] if self._secrets else random_secrets.token_bytes(SECRET_BYTES)
            kept = await self._store.secret(SECRET_NAME, mine)
            if kept not in self._secrets[:1]:  # another process made one since the store lost ours
                self._secrets = tuple(dict.fromkeys((kept, *self._secrets)))
        self.inbox.secrets = self._secrets
