"""The client: it wires the parts, and is what a user holds."""

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


class Client(Submitting):
    """Submits tasks and hands out jobs to await; use it with `async with`.

    Constructing it does no I/O and needs no loop. The first provider is the default one. In seconds, `wait_timeout`
    (1,800) bounds every await, `permit_timeout` (900) a submit's wait for its turn, `handler_timeout` (60),
    `poll_timeout` (20) and `download_timeout` (900) what they name; a job is given up after `expire_after` (a day), a
    link tried again for `download_patience` (30), a finished job remembered for `keep` (7 days).
    `public_url` is where providers reach the receiver; without one the client only polls. `listen` is where it listens:
    by default 127.0.0.1:8080 with a `public_url`, else nowhere; `None` means mounted in your app, or another process.
    Port 0 fills `{port}` in `public_url`. `confirm="always"` lets webhooks only trigger status calls, `"unsigned"`
    those whose signature is not checked, `"never"` (the default) none. `serve_files=True` serves local files, and
    uploads none. `secrets` sign the callback URLs, the first one new ones; else the store keeps one. For `store` see
    `open_store`. At most `handler_concurrency` (16) handlers run at a time, and `deliveries_kept` (100,000)
    deliveries are kept, with `delivery_bytes_kept` (1 GiB) of those that belong to no submitted job. Files come by
    https from public addresses, and from APIs on this machine; `allow_hosts` opens more: `"a.lan"`,
    `"10.0.0.7:8443"`, `"http://a.lan"` for http as well. `trust_env=True` takes proxies from the environment. A
    `session` of yours (with its proxy, connector or TLS context) makes all calls by the rules of this client, and
    is yours to close; it, or a proxy, looks up hosts itself, and what they find there is not checked.
    `metrics=True` serves `/metrics` at 127.0.0.1:9464 and nowhere else; it may be another HOST:PORT.

    Raises:
        ConfigError: the settings cannot work together; the message says which and what to do.
    """

    def __init__(self, *providers: Provider, **options: Unpack[ClientOptions]) -> None:
        """Check the settings and wire the parts."""
        checks.refuse_unknown("Client", "option", options, ClientOptions.__annotations__)
        by_name = config.named(providers, os.environ)
        self._parts = Parts(config.Settings(providers=by_name, environ=os.environ, **options))
        self.inbox: Inbox = self._parts.inbox
        self.receiver: Receiver = self._parts.receiver
        self._handlers = self._parts.handlers
        self.receiver.client = weakref.proxy(self)  # so that one that was forgotten open is noticed
        self._closing: asyncio.Task[None] | None = None

    __init__.__signature__ = config.client_signature()  # type: ignore[attr-defined]  # functions have it where it is set

    @classmethod
    def from_env(
        cls, *providers: Provider, file: str | PathLike[str] | None = None, **options: Unpack[ClientOptions]
    ) -> Self:
        """Return a client with the settings of the environment and of a *file*; arguments come first.

        The file is `audioext.toml` in the working folder, or what `AUDIOEXT_CONFIG` names, if there is one. Without
        *providers* the client has those whose keys are there. The README lists the names.

        Raises:
            ConfigError: a setting is none or cannot work, or a file cannot be read; the message says which.
        """
        found = {**os.environ, **read_settings(os.environ, file)}
        chosen = config.named(providers, found).values() if providers else find_providers(found)
        return cls(*chosen, **{**client_options(found), **options})  # type: ignore[arg-type]  # whose types were checked

    def __repr__(self) -> str:
        """Name the providers and say whether it is open."""
        state = "open" if self._parts.is_open else "closed" if self._parts.is_closed else "new"
        return f"<Client {', '.join(self._parts.settings.providers) or 'without providers'}, {state}>"

    def __del__(self) -> None:
        """Warn of a client that was opened and never closed: what it began goes on, or ends in the middle."""
        parts: Parts | None = getattr(self, "_parts", None)  # there is none where a setting was refused
        if parts is not None and parts.is_open and self._closing is None:
            message = f"unclosed {self!r}: use `async with`, or `await client.aclose()` at the end"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    # --- opening and closing ---------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open the store, listen, and take up what an earlier process left open; `async with` does it too.

        For a notebook, where `async with` would end with its cell: `client = await ax.Client(ax.Kie()).open()`, and
        `await client.aclose()` at the end.

        Raises:
            ConfigError: the client was open before, or its address cannot be listened on.
            StoreError: the store cannot be opened.
        """
        await self._parts.open()
        return self

    async def __aenter__(self) -> Self:
        """Open; see `open`."""
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close: end the waits, stop accepting, apply what was accepted, let handlers drain, close the store.

        Open waits raise `ClientClosedError`; their jobs live on. Handlers get 10 seconds; what is then
        cancelled runs again when a client opens the same store. It takes 15 seconds at most: a POST without an answer
        is then left to its callback. Calling it again, or at the same time, waits for the one closing; cancelling
        a call does not stop it. Within a handler, which it would wait for, it only begins to close.

        Raises:
            ConfigError: it was opened in another event loop.
        """
        if self._closing is None:
            if not self._parts.is_open:
                return
            self._parts.check_loop()
            self._closing = asyncio.create_task(self._parts.aclose(), name="audioext close")
        if HANDLING.get() is None:
            await asyncio.shield(self._closing)

    @property
    def public_url(self) -> URL | None:
        """Where providers reach the receiver, with its port filled in once it listens."""
        return self._parts.public_url

    @property
    def clock(self) -> Clock:
        """The clock that dates its jobs and that all of its waits go by."""
        return self._parts.settings.clock

    @property
    def store(self) -> Store:
        """The store that holds the truth about all jobs."""
        return self._parts.settings.store

    def stats(self) -> Stats:
        """Return what this process has counted of its work; any thread may ask."""
        return self._parts.stats()

    # --- jobs and what happens to them -------------------------------------------------------------------

    async def job(self, ref: str | None = None, *, key: str | None = None) -> Job:
        """Return the job of *ref*, or the one submitted with *key*, whichever process submitted it.

        Raises:
            RequestError: the store holds no such job.
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
        """Yield the jobs of the store, all or only open or ended ones, with this *meta* in theirs.

        The oldest comes first, or the newest where *newest_first* says so.

        Raises:
            RequestError: *open* is none of True, False and None, or *meta* no mapping.
        """
        self._parts.check_open()
        checks.refuse_wrong(
            open=None if open is None else checks.flag(open), meta=None if meta is None else checks.mapping(meta)
        )
        wanted = dict(meta or {})
        way = {"newest_first": True} if newest_first else {}  # which a store of the user's own may not know
        async for stored in self.store.jobs(is_open=open, **way):
            try:
                job = self._parts.job(self._parts.journal.take_in(stored))
            except (ConfigError, StoreError) as error:
                _log.warning("%s", error)
                continue
            if not wanted or all(name in job.meta and job.meta[name] == value for name, value in wanted.items()):
                yield job

    async def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal of deliveries, newest first, of one job where *ref* is given."""
        self._parts.check_open()
        async for delivery in self.store.deliveries(ref):
            yield delivery

    async def delivery(self, id: str) -> Delivery:  # noqa: A002 - it is a delivery's `id`
        """Return one delivery by its `id`.

        Raises:
            RequestError: the store holds no such delivery.
        """
        async for delivery in self.deliveries(str(id).partition("-")[0]):
            if delivery.id == id:
                return delivery
        raise RequestError([Problem("delivery", f"this store holds no delivery {shown(id)}")], is_submit=False)

    async def replay(self, id: str) -> int:  # noqa: A002 - as above
        """Take a delivery that was kept once more, and return the status that it would be answered with now.

        Raises:
            RequestError: the store holds no such delivery.
        """
        delivery = await self.delivery(id)
        route, hook = Route(delivery.provider, delivery.ref, ""), Webhook(headers=delivery.headers, body=delivery.body)
        return await self._parts.inbox.take(route, hook.at(delivery.received_at), verify=delivery.verdict == "refused")

    async def timeline(self, ref: str) -> tuple[tuple[Entry, Record | None], ...]:
        """Return each entry of a job's journal, oldest first, with the record that the journal meant up to it.

        Raises:
            RequestError: the store holds no such job.
        """
        readings = (await self._parts.find(ref)).in_order()
        return tuple((reading.entry, fold(ref, readings[:n])) for n, reading in enumerate(readings, 1))

    async def check(self) -> CheckReport:
        """Look whether everything works: the public URL, the keys, the clock, the store. It costs nothing.

        A webhook of our own is sent to the public URL and has to come back; none of it is stored. A client that is not
        open is opened for this alone: it listens, does no other work, and is closed then. `report.ok` says whether
        nothing failed, and each of `report.lines` what was seen and what to do.

        Raises:
            ConfigError: the client was closed before.
        """
        self._parts.check_loop()
        return await check_parts(self._parts)

    async def credits(self, provider: str | None = None) -> float:
        """Return the balance at *provider* (the default one without a name), in its own credits.

        Raises:
            UnsupportedError: the provider tells no balance.
            ProviderError: the call was refused.
        """
        self._parts.check_open()
        return await self._parts.poller.credits(provider)

    def progress_url(self, job: Job) -> URL:
        """Return a link under which a browser watches the stages of this one job, as server-sent events.

        Raises:
            ConfigError: the client is not open, or has no `public_url`.
            RequestError: *job* is none.
        """
        self._parts.check_open()
        checks.refuse_wrong(job=_is_job(job))
        return self.receiver.endpoint.watching.url(self.public_url, job.ref)

    # --- handlers ----------------------------------------------------------------------------------------

    @overload
    def on(self, stage: Stage) -> Callable[[_StageHandlerT], _StageHandlerT]: ...

    @overload
    def on(
        self, stage: Stage, *, meta: type[_MetaT]
    ) -> Callable[
        [Callable[[StageEvent, _MetaT], Awaitable[None]]], Callable[[StageEvent, _MetaT], Awaitable[None]]
    ]: ...

    def on(self, stage: Stage, *, meta: type[object] | None = None) -> Callable[..., object]:
        """Decorate an async function that is called with each job's `StageEvent` of *stage*.

        It is called at least once for each (job, stage), after a restart too; the stages of one job come in order. An
        error is logged and tried again, up to five times, then shown in `job.record`. One that says `retry_after`, as
        those of chat libraries do, and `RetryLater`, are no failure: it is called again after so many seconds, up to
        100 times; meanwhile later stages of the job wait. `GiveUp` ends the tries.

        With *meta*, a dataclass, an attrs class, a TypedDict or a msgspec.Struct, it is called with the submit's meta
        as such an object too: `async def tell(event, chat)`. A job whose meta is none is given up with a clear error.

        Raises:
            ConfigError: handlers are not told of that stage, *meta* cannot be read from JSON, or what is decorated is
                no async function.
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
        """Decorate an async function that is called with each job's `Failure`, at least once; see `on`.

        It is `@client.on_failure`, or `@client.on_failure(meta=Chat)`.

        Raises:
            ConfigError: as `on` does.
        """
        register = self._handlers.on_failure(meta)
        return register if handler is None else register(handler)
