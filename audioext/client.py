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

from audioext import config as settings
from audioext import providers as all_providers
from audioext.clock import Clock
from audioext.config import UNSET, Unset
from audioext.errors import ConfigError, Problem, ProviderDownError, RequestError, SubmitUnknownError, UnsupportedError
from audioext.files.downloads import Downloader, Shelf
from audioext.files.sources import Sources
from audioext.http.transport import BrokenError, NotSentError, Progress, Transport
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
from audioext.runtime.handlers import HANDLING, FailureHandler, Handlers, StageHandler, check_stage
from audioext.runtime.jobs import Desk, Job
from audioext.runtime.journal import Dispatcher
from audioext.runtime.maintenance import Upkeep
from audioext.runtime.outcomes import Outcomes
from audioext.runtime.poller import Poller
from audioext.runtime.submits import Submits
from audioext.runtime.submitter import Order, Submitter
from audioext.runtime.waiters import Registry
from audioext.stores import MemoryStore, open_store
from audioext.stores.base import Delivery, Store
from audioext.webhooks.inbox import Confirm, Inbox
from audioext.webhooks.receiver import Receiver

_log = logging.getLogger("audioext.client")
_StageHandlerT = TypeVar("_StageHandlerT", bound=StageHandler)
_FailureHandlerT = TypeVar("_FailureHandlerT", bound=FailureHandler)

# The five are providers by structure; pyright needs them by name, since their settings are converted.
AnyProvider = (
    Provider
    | all_providers.Kie
    | all_providers.KieJobs
    | all_providers.SunoApi
    | all_providers.Vidgo
    | all_providers.MusicGpt
)

DAY_SECONDS = 86_400.0
SECRET_NAME = "callback secret"  # noqa: S105 - the name, not the secret
SECRET_BYTES = 32
DRAIN_SECONDS = 10.0


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
        *providers: AnyProvider,
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
        self._clock = clock if clock is not None else Clock()
        self._providers = settings.named(providers, os.environ)
        self._public_url = settings.read_public_url(public_url)
        self._listen = settings.read_listen(listen, self._public_url)
        settings.check_durations(
            wait_timeout=wait_timeout,
            expire_after=expire_after,
            permit_timeout=permit_timeout,
            handler_timeout=handler_timeout,
            poll_timeout=poll_timeout,
            keep=keep,
        )
        settings.check_callbacks(self._providers.values(), self._public_url)
        self._own_secrets = settings.read_secrets(secrets)
        self._secrets: tuple[bytes, ...] = ()
        self._store = open_store(store)
        self._registry = Registry()
        self._transport = Transport()
        self._shelf = Shelf()
        self._dispatcher = Dispatcher(
            store=self._store,
            registry=self._registry,
            providers=self._providers,
            clock=self._clock,
            expire_after=expire_after,
        )
        self._poller = Poller(
            store=self._store,
            dispatcher=self._dispatcher,
            transport=self._transport,
            providers=self._providers,
            clock=self._clock,
            expire_after=expire_after,
            timeout=poll_timeout,
        )
        self._handlers = Handlers(
            store=self._store,
            dispatcher=self._dispatcher,
            clock=self._clock,
            timeout=handler_timeout,
            concurrency=handler_concurrency,
        )
        # A listener decodes every provider's webhooks, whoever submitted the task.
        decoders = settings.named([make() for make in all_providers.ALL], {})
        self.inbox = Inbox(
            dispatcher=self._dispatcher,
            providers={**decoders, **self._providers},
            clock=self._clock,
            confirm=confirm,
            accepting=lambda: self._open,
        )
        self.receiver = Receiver(inbox=self.inbox, shelf=self._shelf, ready=self._ready)
        self._accounts = settings.accounts(self._providers, self._store, self._clock)
        outcomes = Outcomes(store=self._store, dispatcher=self._dispatcher, registry=self._registry, clock=self._clock)
        self._submitter = Submitter(
            store=self._store,
            dispatcher=self._dispatcher,
            registry=self._registry,
            outcomes=outcomes,
            transport=self._transport,
            shelf=self._shelf,
            sources=Sources(
                transport=self._transport,
                shelf=self._shelf,
                clock=self._clock,
                serve_files=serve_files,
                public_url=lambda: self._public_url if self.receiver.is_serving else None,
            ),
            clock=self._clock,
            accounts=self._accounts,
            permit_timeout=permit_timeout,
            expire_after=expire_after,
            public_url=lambda: self._public_url,
            secret=lambda: self._secrets[0],
        )
        self._dispatcher.on_due = self._poller.wake
        self._dispatcher.on_outbox = self._handlers.wake
        self._dispatcher.on_final = self._submitter.finish
        self._desk = Desk(
            registry=self._registry,
            read=self._store.get,
            refresh=self._refresh,
            saver=Downloader(self._transport).save,
            clock=self._clock,
            wait_timeout=wait_timeout,
        )
        self._upkeep = Upkeep(
            store=self._store,
            registry=self._registry,
            outcomes=outcomes,
            submitter=self._submitter,
            handlers=self._handlers,
            clock=self._clock,
            keep=keep,
            expire_after=expire_after,
            deliveries_kept=deliveries_kept,
            on_resync=self._tell_again,
        )
        self._open = False
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._submits = Submits(submitter=self._submitter)

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
                self._public_url = settings.fill_port(self._public_url, port)
        except BaseException:
            self._open = False
            self._closed = True
            await self.receiver.aclose()
            await self._store.aclose()
            raise
        self._poller.start()
        self._handlers.start()
        self._upkeep.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close: stop accepting, apply what was accepted, end the waits, let handlers drain, close the store.

        Open waits raise `ClientClosedError`; their jobs live on. Handlers get 10 seconds; what is then
        cancelled runs again when a client opens the same store. Calling it again, or at the same time, waits for
        the one closing; cancelling a call does not stop it. Within a handler, which it would wait for, it
        only begins to close.
        """
        if self._closing is None:
            if not self._open:
                return
            self._closing = asyncio.create_task(self._close(), name="audioext close")
        if not self._handlers.is_running_here():
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self.receiver.aclose()
        self._open = False
        self._closed = True
        await self._submits.aclose()
        await self._upkeep.aclose()
        await self._poller.aclose()
        self._registry.close()
        await self._handlers.aclose(drain=DRAIN_SECONDS)
        for account in self._accounts.values():
            await account.aclose()
        await self._transport.aclose()
        await self._store.aclose()

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
            key = await handling.key(chosen.name, request)
        order = Order(
            request=request,
            provider=chosen,
            key=settings.check_key(key),
            meta=settings.check_meta(meta),
            progress=progress,
        )
        order = await self._submitter.check(order)
        self._check_open()  # again: looking at a file takes its time
        task = self._submits.start(order)
        try:
            stored = await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            sent = self._submitter.sent_by(task)
            if sent is None:
                message = "the client was closed before this submit was sent; nothing was paid"
                raise ConfigError(message) from None
            job = self._desk.job(sent)
            message = f"job {job.ref}: its POST was cut off, so nobody knows whether it landed at {chosen.name}"
            raise SubmitUnknownError(message, job=job) from None
        return self._desk.job(stored)

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
        stored = None if LONE_SURROGATE.search(ref) else await self._store.get(ref)
        if stored is None:
            raise RequestError([Problem("ref", f"this store holds no job {ref!r}")])
        return self._desk.job(stored)

    async def jobs(
        self,
        *,
        open: bool | None = None,  # noqa: A002 - reads as a question at the call: jobs(open=True)
        meta: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Job]:
        """Yield the jobs of the store, oldest first: all, or only open or ended ones, with this *meta* in theirs."""
        self._check_open()
        wanted = dict(meta or {})
        async for stored in self._store.scan(is_open=open):
            held = stored.record.meta
            if all(name in held and held[name] == value for name, value in wanted.items()):
                yield self._desk.job(stored)

    def on(self, stage: Stage) -> Callable[[_StageHandlerT], _StageHandlerT]:
        """Decorate an async function that is called with each job's `StageEvent` of *stage*.

        It is called at least once for each (job, stage), after a restart too; the stages of one job come in
        order. An error is logged and tried again, up to five times, then shown in `job.record`.

        Raises:
            ConfigError: SUBMITTED is not told to handlers.
        """
        check_stage(stage)

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
            message = f"{chosen.name} has no known call that tells the balance"
            raise UnsupportedError(message)
        if chosen.api_key is None:
            message = f"no API key for {chosen.name}: set {chosen.key_variable}, or pass api_key="
            raise ConfigError(message)
        try:
            response = await self._transport.send(chosen.build_credits())
        except (NotSentError, BrokenError) as error:
            raise ProviderDownError(str(error), provider=chosen.name, retryable=True, charged=False) from error
        return chosen.parse_credits(response)

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal of deliveries, newest first, of one job where *ref* is given."""
        self._check_open()
        async for delivery in self._store.deliveries(ref):
            yield delivery

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

    async def _refresh(self, ref: str) -> None:
        stored = await self._store.get(ref)
        if stored is not None:
            self._choose(stored.record.provider)
            await self._poller.ask(stored.record)

    async def _ready(self) -> tuple[str, ...]:
        return await self._store.warnings()

    async def _tell_again(self) -> None:
        await self._agree_on_secret()
        for account in self._accounts.values():
            await account.renew()

    async def _agree_on_secret(self) -> None:
        """Take the store's secret; one that it has lost is given back to it, so that URLs in use stay valid."""
        if not self._own_secrets:
            mine = self._secrets[0] if self._secrets else random_secrets.token_bytes(SECRET_BYTES)
            kept = await self._store.create_if_absent(SECRET_NAME, mine)
            if kept not in self._secrets[:1]:  # another process made one since the store lost ours
                self._secrets = tuple(dict.fromkeys((kept, *self._secrets)))
        self.inbox.secrets = self._secrets
