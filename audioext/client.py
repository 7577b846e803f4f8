"""`Client`, the object that users hold."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from os import PathLike
from typing import Self, TypeVar, Unpack, overload

from yarl import URL

from audioext import config
from audioext.check import CheckReport, check_parts
from audioext.clock import Clock
from audioext.config import ClientOptions, client_options, find_providers
from audioext.errors import ConfigError, Problem, RequestError, StoreError, shown
from audioext.http.messages import Webhook
from audioext.http.urls import Route
from audioext.models import checks
from audioext.models.entries import Entry
from audioext.models.record import Record
from audioext.models.results import Stage
from audioext.models.stats import Stats
from audioext.parts import Parts
from audioext.providers.base import Provider
from audioext.runtime.handle import Live
from audioext.runtime.handlers import HANDLING, FailureHandler, StageHandler
from audioext.runtime.jobs import Failure, Job, StageEvent
from audioext.settings import read_settings
from audioext.state.fold import fold
from audioext.stores.base import Delivery, Store
from audioext.submitting import Submitting
from audioext.webhooks.inbox import Inbox
from audioext.webhooks.receiver import Receiver

_log = logging.getLogger("audioext.client")

_is_job = checks.made_as(Job, "a job, as client.job(ref) returns it")

_StageHandlerT = TypeVar("_StageHandlerT", bound=StageHandler)
_FailureHandlerT = TypeVar("_FailureHandlerT", bound=FailureHandler)
_MetaT = TypeVar("_MetaT")


class Client(Live, Submitting):
    """Submits tasks and returns jobs to await; use it with `async with`.

    Constructing it does no I/O and needs no event loop. All times are in seconds.

    Args:
        *providers: the accounts to submit to; the first one is the default.
        public_url: where providers call the receiver; without one the client only polls.
        listen: the receiver's `"HOST:PORT"`, by default 127.0.0.1:8080 with a `public_url`, else nowhere. `None` is for
            one mounted in your app, or in another process. A port 0 is chosen, and replaces `{port}` in `public_url`.
        store: where jobs are kept: a URL as for `audioext.stores.open_store`, or an object; by default in memory.
        secrets: what signs callback URLs, the first one all new URLs; without them the store keeps one.
        confirm: `"always"` lets webhooks only trigger status calls, `"unsigned"` those without a checked signature.
        serve_files: whether local files are served by the receiver instead of being uploaded.
        wait_timeout: how long a job is awaited.
        expire_after: how long until a job is given up.
        permit_timeout: how long a submit waits for its turn.
        handler_timeout: how long a handler may run.
        poll_timeout: how long a status call may take.
        download_patience: how long a failing link is tried again.
        download_timeout: how long a whole download may take.
        handler_concurrency: how many handlers run at a time.
        keep: how long an ended job is kept.
        deliveries_kept: how many webhooks are kept.
        delivery_bytes_kept: how many bytes are kept of webhooks without a submitted job.
        allow_hosts: where files may be besides public https hosts: `"a.lan"`, `"10.0.0.7:8443"`, `"http://a.lan"`.
        clock: the source of time, which a test may replace.
        trust_env: whether the environment's proxies are used.
        session: yours, for all calls; it stays open. Addresses that it, or a proxy, resolves are not checked.
        metrics: `True` serves `/metrics` at 127.0.0.1:9464, `"HOST:PORT"` at that address; the receiver never does.

    Raises:
        ConfigError: the settings cannot work together; the message says which and what to do.
    """

    _elsewhere = "belongs to its process: make another one there, on the same store"

    def __init__(self, *providers: Provider, **options: Unpack[ClientOptions]) -> None:
        """Check the settings and wire the parts."""
        checks.refuse_unknown("Client", "option", options, ClientOptions.__annotations__)
        by_name = config.named(providers, os.environ)
        self._parts = Parts(config.Settings(providers=by_name, environ=os.environ, **options))
        self.inbox: Inbox = self._parts.inbox
        self.receiver: Receiver = self._parts.receiver
        self._handlers = self._parts.handlers
        self.receiver.client = weakref.proxy(self)  # a reference cycle would delay the warning of `__del__`
        self._turn = asyncio.Lock()  # a close that comes during the opening waits for it, and then closes
        self._closing: asyncio.Task[None] | None = None

    __init__.__signature__ = config.client_signature()  # type: ignore[attr-defined]  # functions accept the attribute

    @classmethod
    def from_env(
        cls, *providers: Provider, file: str | PathLike[str] | None = None, **options: Unpack[ClientOptions]
    ) -> Self:
        """Return a client with settings from arguments, then the environment, then a *file*.

        The default *file* is the one named by `AUDIOEXT_CONFIG`, else `audioext.toml` in the working folder, if it
        exists. Without *providers*, the client has every provider whose key is found. The README lists the names.

        Raises:
            ConfigError: a setting is unknown or cannot work, or a file cannot be read; the message says which.
        """
        found = {**os.environ, **read_settings(os.environ, file)}
        chosen = config.named(providers, found).values() if providers else find_providers(found)
        return cls(*chosen, **{**client_options(found), **options})  # type: ignore[arg-type]  # the types were checked

    def __repr__(self) -> str:
        """Show the providers, and whether the client is new, opening, open or closed."""
        return f"<Client {', '.join(self._parts.settings.providers) or 'without providers'}, {self._parts.state}>"

    def __del__(self) -> None:
        """Warn if the client was opened and never closed: its tasks may go on, or be cut off."""
        parts: Parts | None = getattr(self, "_parts", None)  # missing if a setting was refused
        if parts is not None and parts.is_open and self._closing is None:
            message = f"unclosed {self!r}: use `async with`, or `await client.aclose()` at the end"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    async def open(self) -> Self:
        """Open the store, start to listen, and resume the jobs that an earlier process left open.

        For a notebook, where `async with`, which calls it too, would end with its cell:
        `client = await ax.Client(ax.Kie()).open()`, and `await client.aclose()` at the end.

        Raises:
            ConfigError: the client was opened before, or cannot listen on its address.
            StoreError: the store cannot be opened.
        """
        self._parts.check_loop()
        async with self._turn:
            await self._parts.open()
        return self

    async def __aenter__(self) -> Self:
        """Call `open`."""
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        """Call `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close: end all waits, stop listening, store the accepted webhooks, drain the handlers, close the store.

        Open waits raise `ClientClosedError`; their jobs live on. Handlers get 10 seconds; one that is then cancelled
        runs again when a client opens the same store. Closing takes at most 15 seconds: a POST that is still unanswered
        is then left to its callback. Another call waits for the same closing, and cancelling a call does not stop it.
        A call during `open` first waits for that. In a handler that closing waits for, the call starts it and returns.

        Raises:
            ConfigError: the client was opened in another event loop.
        """
        self._parts.check_loop()
        async with self._turn:
            if self._closing is None:
                if not self._parts.is_open:
                    return
                self._handlers.is_closing = True
                self._closing = asyncio.create_task(self._parts.aclose(), name="audioext close")
        handling = HANDLING.get()
        if handling is None or not handling.is_drained_by(self._handlers):
            await asyncio.shield(self._closing)

    @property
    def public_url(self) -> URL | None:
        """Where providers reach the receiver; `{port}` is filled in once it listens."""
        return self._parts.public_url

    @property
    def clock(self) -> Clock:
        """The clock that dates all jobs and times all waits."""
        return self._parts.settings.clock

    @property
    def store(self) -> Store:
        """The store that holds all jobs."""
        return self._parts.settings.store

    def stats(self) -> Stats:
        """Return this client's counters; any thread may call it."""
        return self._parts.stats()

    async def job(self, ref: str | None = None, *, key: str | None = None) -> Job:
        """Return the job with *ref*, or the one submitted with *key*, whichever process submitted it.

        Raises:
            RequestError: there is no such job, or not exactly one of *ref* and *key* is given.
            StoreError: the store cannot be read.
        """
        return self._parts.job(await self._parts.find(ref, key=key))

    async def jobs(
        self,
        *,
        open: bool | None = None,  # noqa: A002 - reads as a question at the call: jobs(open=True)
        meta: Mapping[str, object] | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Job]:
        """Yield the jobs in the store, oldest first: all, or only open or ended ones, whose meta contains *meta*.

        Raises:
            RequestError: *open* is not True, False or None, *newest_first* is not a bool, or *meta* is not a mapping.
        """
        self._parts.check_open()
        checks.refuse_wrong(
            open=None if open is None else checks.flag(open),
            meta=None if meta is None else checks.mapping(meta),
            newest_first=checks.flag(newest_first),
        )
        wanted = dict(meta or {})
        async for stored in self.store.jobs(is_open=open, newest_first=newest_first):
            try:
                job = self._parts.job(self._parts.journal.load(stored))
            except (ConfigError, StoreError) as error:
                _log.warning("%s", error)
                continue
            given = job.record.asked.meta
            if all(name in given and given[name] == value for name, value in wanted.items()):
                yield job

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the stored webhooks, newest first; with *ref*, only those of that job.

        Raises:
            RequestError: *ref* is not text.
        """
        self._parts.check_open()
        checks.refuse_wrong(ref=None if ref is None else checks.text(ref))
        async for delivery in self.store.deliveries(ref):
            yield delivery

    async def delivery(self, id: str) -> Delivery:  # noqa: A002 - it is a delivery's `id`
        """Return the stored webhook with this `id`.

        Raises:
            RequestError: the store holds no such webhook.
        """
        async for delivery in self.deliveries(str(id).partition("-")[0]):
            if delivery.id == id:
                return delivery
        raise RequestError([Problem("delivery", f"this store holds no delivery {shown(id)}")], is_submit=False)

    async def replay(self, id: str) -> int:  # noqa: A002 - as above
        """Process a stored webhook once more, and return the HTTP status that would answer it now.

        Raises:
            RequestError: the store holds no such webhook.
        """
        delivery = await self.delivery(id)
        route, hook = Route(delivery.provider, delivery.ref, ""), Webhook(headers=delivery.headers, body=delivery.body)
        return await self._parts.inbox.take(route, hook.at(delivery.received_at), verify=delivery.verdict == "refused")

    async def timeline(self, ref: str) -> tuple[tuple[Entry, Record | None], ...]:
        """Return each entry of a job's journal, oldest first, with the job's record after that entry.

        Raises:
            RequestError: the store holds no such job.
        """
        readings = (await self._parts.find(ref)).in_order()
        return tuple((reading.entry, fold(ref, readings[:n])) for n, reading in enumerate(readings, 1))

    async def check(self) -> CheckReport:
        """Check that everything works: the public URL, the keys, the clock, the store. It costs nothing.

        A webhook of our own is sent to the public URL and must arrive; it is not stored. A client that is not open is
        opened for the check alone, without polling or running handlers, and closed again. `report.ok` is true if
        nothing failed; each of `report.lines` has a finding and advice.

        Raises:
            ConfigError: the client was closed before.
        """
        self._parts.check_loop()
        return await check_parts(self._parts)

    async def credits(self, provider: str | None = None) -> float:
        """Return the balance at *provider*, by default the first one, in its own credits.

        Raises:
            UnsupportedError: the provider has no call for the balance.
            ProviderError: the call was refused.
        """
        self._parts.check_open()
        return await self._parts.poller.credits(provider)

    def progress_url(self, job: Job) -> URL:
        """Return a link to the stages of this one job as server-sent events, for a browser.

        Raises:
            ConfigError: the client is not open, or has no `public_url`.
            RequestError: *job* is not a job.
        """
        self._parts.check_open()
        checks.refuse_wrong(job=_is_job(job))
        return self.receiver.endpoint.watching.url(self.public_url, job.ref)

    @overload
    def on(self, stage: Stage) -> Callable[[_StageHandlerT], _StageHandlerT]: ...

    @overload
    def on(
        self, stage: Stage, *, meta: type[_MetaT]
    ) -> Callable[
        [Callable[[StageEvent, _MetaT], Awaitable[None]]], Callable[[StageEvent, _MetaT], Awaitable[None]]
    ]: ...

    def on(self, stage: Stage, *, meta: type[object] | None = None) -> Callable[..., object]:
        """Decorate an async handler that is called with the `StageEvent` when a job reaches *stage*.

        It is called at least once for each job and stage, also after a restart; the stages of one job come in order. If
        it raises, that is logged, and it is retried for an hour, or two minutes if a later stage waits; its last error
        is then in `job.record`. `RetryLater`, and errors with a `retry_after` such as those of chat libraries, are no
        failures: it is called again after so many seconds, up to 100 times, while later stages wait. `GiveUp` stops it.

        With *meta*, a dataclass, an attrs class, a TypedDict or a msgspec.Struct, the handler also gets the submit's
        meta as such an object: `async def tell(event, chat)`. If the meta does not fit the class, the handler's error
        says so, and it is not retried.

        Raises:
            ConfigError: *stage* has no handlers, *meta* cannot be read from JSON, or the function is not async.
        """
        return self._handlers.on(stage, meta)

    @overload
    def on_failure(self, handler: _FailureHandlerT) -> _FailureHandlerT: ...

    @overload
    def on_failure(
        self, *, meta: type[_MetaT]
    ) -> Callable[[Callable[[Failure, _MetaT], Awaitable[None]]], Callable[[Failure, _MetaT], Awaitable[None]]]: ...

    def on_failure(
        self, handler: Callable[..., Awaitable[None]] | None = None, *, meta: type[object] | None = None
    ) -> object:
        """Decorate an async handler that is called, at least once, with the `Failure` of each failed job; see `on`.

        Use it as `@client.on_failure` or `@client.on_failure(meta=Chat)`.

        Raises:
            ConfigError: as in `on`.
        """
        register = self._handlers.on_failure(meta)
        return register if handler is None else register(handler)
