"""Wires the parts of a client, and opens and closes them in order."""

from __future__ import annotations

import asyncio
import logging
import secrets as random_secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Literal

from audioext.config import MIN_SECRET_BYTES, Settings
from audioext.errors import ConfigError, Problem, RequestError, StoreError, shown
from audioext.files.downloads import Downloader
from audioext.files.sources import Offers, Sources
from audioext.http.transport import Transport
from audioext.models.checks import LONE_SURROGATE
from audioext.models.stats import Stats
from audioext.runtime.changes import Changes
from audioext.runtime.handle import JobContext
from audioext.runtime.handlers import Handlers
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Job
from audioext.runtime.journal import Journal
from audioext.runtime.limits import Account
from audioext.runtime.maintenance import Housekeeping
from audioext.runtime.poller import Poller
from audioext.runtime.recovery import JobFiles, Recoveries
from audioext.runtime.submitter import Submitter
from audioext.stores.memory import MemoryStore
from audioext.webhooks.endpoint import Endpoint
from audioext.webhooks.inbox import Inbox
from audioext.webhooks.progress import Watching
from audioext.webhooks.receiver import Receiver

_log = logging.getLogger("audioext.client")

SECRET_NAME = "callback secret"  # noqa: S105 - the name, not the secret
SECRET_BYTES = 32
DRAIN_SECONDS = 10.0
HANDLERS_SECONDS = 3.0
"""How long cancelled handlers get to clean up, and their claims to be released."""
CLOSE_SECONDS = 13.5
"""How long closing waits for parts that hang; the last steps get one second more."""
OTHER_LOOP = (
    "the client was opened in another event loop: call it there, from a thread by "
    "`asyncio.run_coroutine_threadsafe(client.extend(...), loop)`, and open and use it within one `asyncio.run`"
)


class Parts:
    """The parts of a client. Constructing them does no I/O."""

    def __init__(self, settings: Settings) -> None:
        """Wire the parts."""
        self.settings = settings
        self.public_url = settings.public_url
        self.address = settings.address
        self.secrets: tuple[bytes, ...] = ()
        self.state: Literal["new", "opening", "open", "closed"] = "new"
        self._end_metrics: Callable[[], Awaitable[None]] = partial(asyncio.sleep, 0)
        self._purge: asyncio.Task[None] | None = None
        self.transport = Transport(given=settings.session, trust_env=settings.trust_env)
        self.journal = Journal(
            store=settings.store,
            providers=settings.decoders(),
            clock=settings.clock,
            expire_after=settings.expire_after,
        )
        self.poller = Poller(
            journal=self.journal, transport=self.transport, providers=settings.providers, timeout=settings.poll_timeout
        )
        self.handlers = Handlers(
            journal=self.journal,
            timeout=settings.handler_timeout,
            concurrency=settings.handler_concurrency,
            job=self.job,
        )
        self.inbox = Inbox(journal=self.journal, confirm=settings.confirm)
        offers = Offers()
        watching = Watching(find=self.find, handle=self.job, secrets=lambda: self.secrets)
        endpoint = Endpoint(
            inbox=self.inbox, offers=offers, watching=watching, ready=settings.store.warnings, lifespan=self._lifespan
        )
        self.receiver = Receiver(endpoint=endpoint)
        wake = self.handlers.claims.wake
        self._changes = Changes(journal=self.journal, on_change=wake, on_resync=self._sync_secret)
        self._job_context = JobContext(
            journal=self.journal,
            look=self._look,
            look_soon=self._changes.look_soon,
            refresh=self.poller.ask,
            check_loop=self.check_loop,
            files=lambda held: JobFiles(self.recoveries, held.ref, held.record.asked.base_url),
            wait_timeout=settings.wait_timeout,
        )
        self.submitter = self._make_submitter(offers)
        self.recoveries = Recoveries(
            journal=self.journal,
            poller=self.poller,
            submitter=self.submitter,
            downloader=Downloader(
                transport=self.transport,
                rules=settings.link_rules,
                patience=settings.download_patience,
                timeout=settings.download_timeout,
            ),
            timeout=settings.wait_timeout,
        )
        self.journal.on_poll, self.journal.on_work = self.poller.claims.wake, wake
        self.journal.on_final = self.submitter.finish

    @property
    def is_open(self) -> bool:
        """Whether the client can be used."""
        return self.state == "open"

    def stats(self) -> Stats:
        """Return the counters; any thread may call it."""
        open_jobs = sum(not held.record.is_final for held in self.journal.held_jobs())
        return self.journal.counts.stats(open_jobs=open_jobs, answers=self.receiver.endpoint.answered)

    async def _lifespan(self) -> Callable[[], Awaitable[None]]:
        """Open for the lifespan of an ASGI server, and return the function that closes again."""
        if self.is_open:
            return partial(asyncio.sleep, 0)
        await self.open()
        return self.aclose

    def _make_submitter(self, offers: Offers) -> Submitter:
        settings, accounts = self.settings, dict[str, Account]()
        for info in (each.info for each in settings.providers.values()):
            accounts.setdefault(info.account, Account(info.limits, settings.store, settings.clock))
        return Submitter(
            journal=self.journal,
            transport=self.transport,
            sources=Sources(
                transport=self.transport,
                offers=offers,
                clock=settings.clock,
                serve_files=settings.serve_files,
                public_url=lambda: self.public_url if self.receiver.endpoint.is_serving else None,
            ),
            providers=settings.providers,
            accounts={name: accounts[each.info.account] for name, each in settings.providers.items()},
            permit_timeout=settings.permit_timeout,
            context=self._job_context,
        )

    async def open(self, *, is_working: bool = True) -> None:
        """Open the store, listen, and start the workers unless *is_working* is False, as for a check."""
        if self.state != "new":
            raise ConfigError("a client can only be opened once: make a new one")
        self.state, self.inbox.loop = "opening", asyncio.get_running_loop()
        try:
            await self.settings.store.open()
        except BaseException:  # the store is not closed: it cleans up itself, and others may share it
            self.state = "closed"
            raise
        await self._start(is_working=is_working)

    async def _start(self, *, is_working: bool) -> None:
        settings = self.settings
        try:
            self.secrets = settings.secrets
            await self._sync_secret()
            # No warnings for read-only clients, for checks, or for a deliberate MemoryStore.
            is_writer = is_working and (settings.providers or self.address)
            if is_writer and not isinstance(settings.store, MemoryStore):
                for warning in await settings.store.warnings():
                    _log.warning("the store: %s", warning)
            # Set before listening, since a webhook may arrive at once.
            self.state, self.inbox.is_open = "open", True
            if self.address is not None:
                port = await self.receiver.start(*self.address)
                if self.public_url is not None and self.public_url.explicit_port == 0:  # it was given as {port}
                    self.public_url = self.public_url.with_port(port)
            if settings.metrics is not None:
                from audioext.metrics import MetricsServer  # noqa: PLC0415 - an extra

                server = MetricsServer(self.stats, settings.metrics)
                self._end_metrics = server.aclose
                await server.start()
            self.submitter.public_url = self.poller.public_url = self.public_url
        except BaseException:
            await self._stop_listening()
            await settings.store.aclose()
            raise
        if is_working:
            self.poller.start()
            self.handlers.start()
            self._changes.start()
            housekeeping = Housekeeping(
                store=settings.store,
                clock=settings.clock,
                keep=settings.keep,
                deliveries_kept=settings.deliveries_kept,
                delivery_bytes_kept=settings.delivery_bytes_kept,
            )
            self.journal.on_orphan = housekeeping.note_orphan
            self._purge = asyncio.create_task(housekeeping.run(), name="audioext purge")

    async def aclose(self) -> None:
        """Close all parts in order; see `Client.aclose`."""
        ends_at = asyncio.get_running_loop().time() + CLOSE_SECONDS
        self.journal.close_waits()
        submits = asyncio.create_task(self.submitter.aclose(), name="audioext close submits")
        await self._stop_listening()
        await self.recoveries.aclose()
        await self._changes.aclose()
        if self._purge is not None:
            self._purge.cancel()
            await asyncio.gather(self._purge, return_exceptions=True)
        await _bounded(self.poller.aclose, _seconds_left(ends_at - HANDLERS_SECONDS))
        drain = min(DRAIN_SECONDS, ends_at - HANDLERS_SECONDS - asyncio.get_running_loop().time())
        await _bounded(partial(self.handlers.aclose, drain=max(drain, 0.0)), _seconds_left(ends_at))
        _, pending = await asyncio.wait([submits], timeout=_seconds_left(ends_at))
        if pending:  # a POST is still unanswered: the task's callback will bring the outcome
            self.submitter.cancel_posts()
            await submits
        for end in (self.journal.aclose, self.transport.aclose, self.settings.store.aclose):
            await _bounded(end, _seconds_left(ends_at + 1.0))
        self.submitter.sources.spool.clear()

    async def _stop_listening(self) -> None:
        await self.receiver.aclose()
        self.state, self.inbox.is_open = "closed", False
        await self._end_metrics()

    def check_open(self) -> None:
        """Raise ConfigError unless the client is open, and on this event loop."""
        if self.state == "closed":
            raise ConfigError("the client is closed: make a new one, by `async with` or open(), on the same store")
        if not self.is_open:
            raise ConfigError("the client is not open: use it inside `async with Client(...) as client:`, or open() it")
        self.check_loop()

    def check_loop(self) -> None:
        """Raise ConfigError if another event loop than the client's is running."""
        with suppress(RuntimeError):  # no loop is running
            if self.state in {"opening", "open"} and asyncio.get_running_loop() is not self.inbox.loop:
                raise ConfigError(OTHER_LOOP)

    def job(self, held: HeldJob) -> Job:
        """Return the public `Job` of *held*."""
        return Job(held, self._job_context)

    async def find(self, ref: str | None = None, *, key: str | None = None) -> HeldJob:
        """Return the job with *ref*, or the one submitted with *key*; see `Client.job`."""
        self.check_open()
        if (ref is None) is (key is None):
            raise RequestError([Problem("ref", "give either the ref of a job, or its `key=`")], is_submit=False)
        name, wanted = ("ref", ref) if key is None else ("key", key)
        held = None
        if not isinstance(wanted, str):
            raise RequestError([Problem(name, f"must be text, not {shown(wanted)}")], is_submit=False)
        if not LONE_SURROGATE.search(wanted):
            held = await (self.journal.hold(wanted) if key is None else self.journal.hold_key(wanted))
        if held is None:
            raise RequestError([Problem(name, f"this store holds no job {shown(wanted)}")], is_submit=False)
        return held

    async def _look(self, ref: str) -> None:
        try:
            await self.journal.look(ref)
        except StoreError as error:
            if not self.journal.is_closed:  # a closed client is not an outage
                self._changes.outage.note(error)
            raise
        self._changes.outage.over()

    async def _sync_secret(self) -> None:
        """Use the store's secret; if the store has lost it, write ours back, so that URLs in use stay valid."""
        if not self.settings.secrets:
            mine = self.secrets[0] if self.secrets else random_secrets.token_bytes(SECRET_BYTES)
            kept = await self.settings.store.secret(SECRET_NAME, mine)
            if len(kept) < MIN_SECRET_BYTES:  # with an empty secret anybody could sign callbacks
                raise StoreError("the store's secret that signs callback URLs is damaged: restore it, or give secrets=")
            if kept not in self.secrets[:1]:  # at first, or if another process made one after the store lost ours
                self.secrets = tuple(dict.fromkeys((kept, *self.secrets)))
        self.inbox.secrets = self.secrets
        self.submitter.secret = self.secrets[0]


def _seconds_left(ends_at: float) -> float:
    """Return the seconds until the loop time *ends_at*, at least 0.1."""
    return max(ends_at - asyncio.get_running_loop().time(), 0.1)


async def _bounded(end: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Await *end* for at most *seconds*; then cancel it and go on."""
    task = asyncio.ensure_future(end())
    _, pending = await asyncio.wait([task], timeout=seconds)
    if pending:
        task.cancel()
        _log.error("a part of the client did not close in time, and was left behind")
    else:
        task.result()
