"""`@client.on`: handlers work from the outbox under leases, at least once for each (job, stage), in order."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

import attrs
from attrs import define, field

from audioext.clock import Clock
from audioext.errors import ConfigError, StoreError
from audioext.files.downloads import fingerprint
from audioext.models.record import Record
from audioext.models.requests import Request
from audioext.models.results import Failure, Stage, StageEvent
from audioext.runtime.claims import Worker, is_being_cancelled
from audioext.runtime.journal import Dispatcher
from audioext.state import stages
from audioext.stores.base import Lease, Store

_log = logging.getLogger("audioext.runtime.handlers")

StageHandler = Callable[[StageEvent], Awaitable[None]]
FailureHandler = Callable[[Failure], Awaitable[None]]

MAX_ATTEMPTS = 5
RETRY_SECONDS = 1.0  # doubled with each attempt
LEASE_MARGIN_SECONDS = 5.0


@define(eq=False)
class Handling:
    """One call of a job's handlers; it gives keys to what they submit, the same ones when they are called again."""

    name: str
    _counts: Counter[str] = field(factory=Counter, init=False)

    async def key(self, provider: str, request: Request) -> str:
        """Return the key of a request that is submitted now; a file counts by what is in it, wherever it lies."""
        content = None
        if isinstance(request.file, Path):
            with suppress(OSError, ValueError):  # then it is refused later, with all that is wrong
                content = await asyncio.to_thread(fingerprint, request.file)
        told = request if content is None else attrs.evolve(request, file=Path(content))
        digest = hashlib.sha256(repr((provider, told)).encode(errors="surrogatepass")).hexdigest()[:24]
        self._counts[digest] += 1
        return f"handler:{self.name}:{digest}:{self._counts[digest]}"


HANDLING: ContextVar[Handling | None] = ContextVar("HANDLING", default=None)
"""What the running code is called for, if a handler runs it."""


def check_stage(stage: Stage) -> None:
    """Refuse a stage that handlers are not told of.

    Raises:
        ConfigError: it is SUBMITTED; the submit itself returned then.
    """
    if stage is Stage.SUBMITTED:
        message = "handlers are told of TEXT, FIRST and COMPLETE; a submitted job is what submit returns"
        raise ConfigError(message)


@define(kw_only=True, eq=False, repr=False)
class Handlers:
    """The handlers of one client, and the worker that runs them."""

    store: Store
    dispatcher: Dispatcher
    clock: Clock
    timeout: float
    concurrency: int
    _by_topic: dict[str, list[Callable[[Record], Awaitable[None]]]] = field(factory=dict, init=False)
    _worker: Worker | None = field(default=None, init=False)

    def on(self, stage: Stage, handler: StageHandler) -> None:
        """Call *handler* with each job's event of *stage*."""

        async def call(record: Record) -> None:
            event = stages.stage_event(record, stage)
            if event is not None:
                await handler(event)

        self._add(stage.name.lower(), call)

    def on_failure(self, handler: FailureHandler) -> None:
        """Call *handler* with each job's failure."""

        async def call(record: Record) -> None:
            failure = stages.failure(record)
            if failure is not None:  # it rose to complete since: then COMPLETE is told
                await handler(failure)

        self._add(stages.FAILED_TOPIC, call)

    def start(self) -> None:
        """Begin to work, if there is a handler; one that is added later starts the work then."""
        self._worker = Worker(
            name="handlers",
            store=self.store,
            kind="outbox",
            clock=self.clock,
            lease=self.timeout + LEASE_MARGIN_SECONDS,
            concurrency=self.concurrency,
            work=self._run,
        )
        if self._by_topic:
            self._worker.start()

    def wake(self) -> None:
        """Look at the outbox now."""
        if self._worker is not None:
            self._worker.wake()

    async def aclose(self, *, drain: float) -> None:
        """Stop taking work, and give what runs *drain* seconds; what is cancelled runs again later."""
        if self._worker is not None:
            await self._worker.aclose(drain=drain)

    def is_running_here(self) -> bool:
        """Say whether the running task is one that runs handlers."""
        return self._worker is not None and self._worker.is_running_here()

    def _add(self, topic: str, call: Callable[[Record], Awaitable[None]]) -> None:
        self._by_topic.setdefault(topic, []).append(call)
        if self._worker is not None:
            self._worker.start()

    async def _run(self, lease: Lease) -> None:
        calls = self._by_topic.get(lease.topic, [])
        stored = await self.store.get(lease.ref) if calls else None
        if stored is None:
            await self.store.settle(lease, due_at=None)
            self.wake()  # the next stage of this job may have its turn now
            return
        token = HANDLING.set(Handling(f"{lease.ref}:{lease.topic}"))
        try:
            async with asyncio.timeout(self.timeout):
                for call in calls:
                    await call(stored.record)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            await self._failed(lease, error)  # it awaited something that was cancelled: its own affair
        except Exception as error:  # noqa: BLE001 - a user's handler may raise anything
            await self._failed(lease, error)
        else:
            await self.store.settle(lease, due_at=None)
        finally:
            HANDLING.reset(token)
        self.wake()  # the next stage of this job may have its turn now

    async def _failed(self, lease: Lease, error: BaseException) -> None:
        _log.exception("job %s: a handler of %s failed (try %d)", lease.ref, lease.topic, lease.attempts)
        if lease.attempts < MAX_ATTEMPTS:
            wait = RETRY_SECONDS * 2 ** (lease.attempts - 1)
            await self.store.settle(lease, due_at=self.clock.now() + wait)
            return
        text = f"{lease.topic}: {type(error).__name__}: {error}"
        try:
            await self.dispatcher.update(lease.ref, lambda record: stages.blame_handler(record, text))
        except StoreError:
            _log.warning("job %s: the handler's failure could not be noted", lease.ref)
        await self.store.settle(lease, due_at=None)
