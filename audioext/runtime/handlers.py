"""`@client.on`: call handlers at least once for each (job, stage), in order, until the journal shows all as done."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

import msgspec
import msgspec.inspect
from attrs import define, field

from audioext.errors import ConfigError, GiveUp, StoreError, asked_wait, cut, shown
from audioext.http.messages import as_data
from audioext.http.urls import unsigned
from audioext.models import checks
from audioext.models.entries import Entry, make_entry
from audioext.models.record import Record, Run
from audioext.models.requests import Request
from audioext.models.results import Stage
from audioext.models.stats import HandlerEnd
from audioext.runtime import telemetry
from audioext.runtime.claims import Claims
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import ClientClosedError, Failure, Job, StageEvent
from audioext.runtime.journal import Journal
from audioext.state import schedule
from audioext.state.fold import FAILED_TOPIC, TOPIC_OF
from audioext.state.reading import Handled

_log = logging.getLogger("audioext.handlers")

_M = TypeVar("_M")
StageHandler = Callable[[StageEvent], Awaitable[None]]
FailureHandler = Callable[[Failure], Awaitable[None]]
_Handler = Callable[..., Awaitable[None]]
_Call = Callable[[Job], Awaitable[None]]

CLAIM_MARGIN_SECONDS = 5.0
CATCH_UP_SECONDS = 1.0
"""How long closing may take to bring index rows up to date, so that due handlers can be claimed."""
CLEAN_UP_SECONDS = 2.0
"""How long a handler that timed out gets to clean up after its cancellation."""
LONGEST_ERROR = 500
_OBJECTS = (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)
"""The kinds of class that `meta=` takes; msgspec reports an attrs class as a `DataclassType`."""
MAX_WAITS = 100
"""How often a handler may ask to be called later for one topic; after that, asking counts as a failure."""
LONGEST_WAIT_SECONDS = 86_400.0
"""The longest such wait; ended jobs are kept for longer."""


@define(eq=False)
class Handling:
    """One call of a handler. It gives keys to the handler's submits, the same ones when the handler is called again."""

    name: str
    _handlers: Handlers | None = None
    _task: asyncio.Task[object] | None = None
    _counts: Counter[str] = field(factory=Counter, init=False)

    def is_drained_by(self, handlers: Handlers) -> bool:
        """Return whether closing *handlers* may wait for this call, which is running.

        It does if the call is one of theirs; and if its own client is closing, that one's handlers may wait for theirs.
        """
        if self._handlers is None or self._task is None or self._task.done():
            return False
        return self._handlers is handlers or self._handlers.is_closing

    def key(self, provider: str, request: Request, content: str | None) -> str:
        """Return the key for a submit of *request* now. A file counts by the digest of its *content*, not its path.

        It depends on the given fields alone: a release that adds a field, or that measures another duration of the
        same file, must not make a retried handler pay again, and neither must a link that a vendor has signed anew.
        """
        given = {name: value for name, value in request.given().items() if name != "source_duration"}
        if content is not None:
            given["file"] = content
        if isinstance(url := given.get("url"), str):
            given["url"] = unsigned(url)
        asked = ascii((provider, type(request).__name__, sorted(given.items())))
        digest = hashlib.sha256(asked.encode()).hexdigest()[:24]
        self._counts[digest] += 1
        return f"handler:{self.name}:{digest}:{self._counts[digest]}"


HANDLING: ContextVar[Handling | None] = ContextVar("HANDLING", default=None)
"""The handler call that the current task belongs to, if any."""


@define(kw_only=True, eq=False, repr=False)
class Handlers:
    """The handlers of one client, and the loop that calls them. *timeout* (seconds) bounds each call."""

    journal: Journal
    timeout: float
    concurrency: int
    job: Callable[[HeldJob], Job]
    """Return the handle of a job."""
    claims: Claims = field(init=False)
    _by_topic: dict[str, list[tuple[str, _Call]]] = field(factory=dict, init=False)
    """The name and the call of each handler, by topic."""
    _is_started: bool = field(default=False, init=False)
    is_closing: bool = field(default=False, init=False)
    """Whether the client has begun to close; it sets this."""

    def __attrs_post_init__(self) -> None:
        """Create the claim loop."""
        self.claims = Claims(
            work="handlers",
            store=self.journal.store,
            clock=self.journal.clock,
            hold=self._hold_seconds,
            concurrency=self.concurrency,
            do=self._work,
            give_back=self.journal.give_back,
            providers=self.journal.providers,  # handlers of jobs that cannot be decoded are left to other processes
            farthest=schedule.FARTHEST_RETRY_SECONDS,
        )

    def on(self, stage: Stage, meta: type[_M] | None = None) -> Callable[[_Handler], _Handler]:
        """Return a decorator for handlers of *stage*; with *meta*, they also get the job's meta as that class.

        Raises:
            ConfigError: *stage* has no handlers, or *meta* cannot be decoded; by the decorator, not an async function.
        """
        if not isinstance(stage, Stage) or stage not in TOPIC_OF:  # SUBMITTED has none: the submit returns then
            message = (
                f"handlers are for TEXT, FIRST and COMPLETE, not {shown(stage)}; use @client.on(ax.Stage.COMPLETE)"
            )
            raise ConfigError(message)
        return partial(self._add, TOPIC_OF[stage], lambda job: job.event(stage), _reader(meta))

    def on_failure(self, meta: type[_M] | None = None) -> Callable[[_Handler], _Handler]:
        """Return a decorator for handlers of failures; *meta* is as for `on`."""
        return partial(self._add, FAILED_TOPIC, lambda job: job.failure, _reader(meta))

    @property
    def has_handlers(self) -> bool:
        """Whether any handler is registered."""
        return bool(self._by_topic)

    def start(self) -> None:
        """Start the claim loop if there is a handler; otherwise the first one that is added starts it."""
        self._is_started = True
        if self._by_topic:
            self.claims.start()

    async def aclose(self, *, drain: float) -> None:
        """Run due handlers for up to *drain* seconds; those that are cancelled then run again later."""
        if drain > 0 and self._by_topic:
            with suppress(StoreError, TimeoutError):  # then those handlers run later
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await self._catch_up()
        await self.claims.aclose(drain=drain)

    async def _catch_up(self) -> None:
        """Update the index of held jobs whose handlers are due, since another process's index may be stale."""
        now = self.journal.clock.now()
        for held in self.journal.held_jobs():
            due = schedule.handle_at(held.record, now)
            if due is not None and due <= now:
                await self.journal.append(held)

    def _add(
        self,
        topic: str,
        look: Callable[[Job], StageEvent | Failure | None],
        read: Callable[[Job], object] | None,
        handler: _Handler,
    ) -> _Handler:
        """Register *handler* for what *look* finds in a job: no failure if the job has risen to complete since."""
        function = handler.func if isinstance(handler, partial) else handler
        if not checks.is_async(function):
            raise ConfigError(f"a handler must be an async function (async def), not {shown(handler)}")
        try:
            with suppress(ValueError):  # compiled code may have no signature
                inspect.signature(handler).bind(*([topic] if read is None else [topic, read]))
        except TypeError as error:
            given = "what happened" if read is None else "what happened, and with the job's meta"
            raise ConfigError(
                f"a handler is called with {given}, which {shown(handler)} does not take: {error}"
            ) from error

        async def call(job: Job) -> None:
            said = look(job)
            if said is not None:
                await (handler(said) if read is None else handler(said, read(job)))

        calls = self._by_topic.setdefault(topic, [])
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
        count = sum(other.partition("#")[0] == name for other, _ in calls)
        # A function that a decorator made bears the name of the one that it calls, but its code says where it was made.
        is_plain = inspect.isfunction(handler) and "<locals>" not in handler.__code__.co_qualname
        if count and is_plain and not name.endswith("._"):
            what = "%d handlers for %s are named %s, and each is called: did a notebook cell or a module run again?"
            _log.warning(what, count + 1, topic, name)
        calls.append((f"{name}#{count + 1}" if count else name, call))
        if self._is_started:
            self.claims.start()
        return handler

    def _hold_seconds(self) -> float:
        most = max(map(len, self._by_topic.values()), default=1)
        return (self.timeout + CLEAN_UP_SECONDS) * most + CLAIM_MARGIN_SECONDS

    async def _work(self, ref: str) -> None:
        """Call the handlers of one topic of a claimed job, then end the claim; the next topic is claimed anew."""
        held = await self.journal.hold(ref)
        if held is None:
            return
        entries: list[Entry] = []
        release = True
        try:
            if held.record.unhandled and self._is_due(held.record, held.record.unhandled[0]):
                await self._run_topic(held, held.record.unhandled[0], entries)
        except Exception:  # a bug of ours, and no failure was counted: only the claim prevents an immediate retry
            release = False
            raise
        finally:  # also on cancellation, so that handlers that are done are not called again
            try:
                await self.journal.append(held, entries, release=release)
            except StoreError as error:
                if not entries:
                    raise
                _log.warning("job %s: the outcome of its handlers is not stored yet: %s", held.ref, error)
                self.journal.append_later(held, entries)
        self.claims.wake()  # the next topic of this job may be due now

    def _is_due(self, record: Record, topic: str) -> bool:
        """Return whether a handler may be called: the job can be claimed before those that failed are due.

        One that is new in this process, or that closing kept from being called, does not wait for them.
        """
        now = self.journal.clock.now()
        due, names = schedule.handle_at(record, now), {name for name, _ in self._by_topic.get(topic, [])}
        return (due is not None and due <= now) or not names <= {name for of, name in record.runs if of == topic}

    async def _run_topic(self, held: HeldJob, topic: str, entries: list[Entry]) -> None:
        """Call the handlers of *topic* that are not done with it, and add an entry for each outcome to *entries*."""
        is_over = True
        for name, call in self._by_topic.get(topic, []):
            run = held.record.runs.get((topic, name), Run())
            if run.is_done:
                continue
            now = self.journal.clock.now()
            if schedule.again_at(held.record, run, now) > now:  # the topic is due for other handlers only
                is_over = False
                continue
            handled = self._outcome(held.record, topic, name, run, await self._call(held, topic, name, call))
            is_over = is_over and handled.is_over
            entries.append(self._entry(handled))
            end: HandlerEnd = "retried" if not handled.is_over else "given_up" if handled.failure else "done"
            self.journal.counts.handlers[topic, end] += 1
        if is_over:
            # One entry for the topic replaces those of the handlers that just succeeded.
            entries[:] = [entry for entry in entries if b'"failure":0' not in entry.body]
            entries.append(self._entry(Handled(topic)))

    def _outcome(self, record: Record, topic: str, name: str, run: Run, error: BaseException | None) -> Handled:
        """Log the outcome of a call that raised *error*, if any, and return it."""
        call = run.calls + 1
        if error is None:
            return Handled(topic, name, call=call)
        ref, named = record.ref, telemetry.names(record)
        wait, waits = asked_wait(error), run.waits + 1
        if wait is None and self.journal.is_closed and isinstance(error, (ConfigError, ClientClosedError)):
            wait = schedule.RETRY_SECONDS  # it failed only because the client is closing
        if wait is not None and waits <= MAX_WAITS and not schedule.is_crowded(record):
            wait = min(wait, LONGEST_WAIT_SECONDS)
            _log.info("job %s: handler %s of %s is called again in %g s", ref, name, topic, wait, extra=named)
            return Handled(topic, name, is_over=False, wait=wait, waits=waits, call=call)
        failure = run.failures + 1
        if isinstance(error, GiveUp):
            _log.warning("job %s: handler %s of %s gave up: %s", ref, name, topic, _said(error), extra=named)
        else:
            text = "job %s: handler %s of %s failed (try %d)"
            _log.error(text, ref, name, topic, failure, exc_info=error, extra=named)
        is_over = failure >= schedule.most_attempts(record) or isinstance(error, GiveUp)
        return Handled(topic, name, failure, _said(error), is_over, call=call)

    async def _call(self, held: HeldJob, topic: str, name: str, call: _Call) -> BaseException | None:
        """Call one handler in its own task, and return what it raised or `None`."""

        async def handle() -> None:
            HANDLING.set(Handling(f"{held.ref}:{topic}:{name}", self, asyncio.current_task()))
            with telemetry.span(f"handler {topic}", held.record):
                try:
                    await call(self.job(held))
                except SystemExit as error:  # otherwise the process would exit, and again after each restart
                    raise RuntimeError(f"it called sys.exit({error.code!r:.40})") from error

        task = asyncio.create_task(handle())
        # Retrieve a late exception, so that asyncio does not log it as never retrieved.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.wait([task], timeout=self.timeout)
        finally:
            is_late = not task.done()
            if is_late:
                task.cancel()
                await asyncio.wait([task], timeout=CLEAN_UP_SECONDS)
        if is_late:
            return TimeoutError(f"it ran for over {self.timeout:g} s")
        if task.cancelled():
            return asyncio.CancelledError("it was cancelled, or awaited something that was")
        return task.exception()

    def _entry(self, handled: Handled) -> Entry:
        return make_entry("handled", self.journal.clock.now(), body=msgspec.json.encode(handled))


def _said(error: BaseException) -> str:
    """Return *error* as printable text, never raising: its message may quote strangers, and its `__str__` may fail."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - its own `__str__` is the user's
        text = type(error).__name__
    return as_data(text, longest=LONGEST_ERROR)


def _reader(meta: type[_M] | None) -> Callable[[Job], _M] | None:
    """Return a function that decodes a job's meta as class *meta*, `None` without a class."""
    if meta is None:
        return None
    try:
        is_good = isinstance(msgspec.inspect.type_info(meta), _OBJECTS)
    except Exception as error:
        raise ConfigError(f"meta={shown(meta)} cannot be read from JSON: {cut(str(error))}") from error
    if not is_good:
        message = f"`meta=` must be a dataclass, an attrs class, a TypedDict or a msgspec.Struct, not {shown(meta)}"
        raise ConfigError(message)

    def read(job: Job) -> _M:
        try:
            return msgspec.convert(job.meta, meta)
        except msgspec.ValidationError as error:
            raise GiveUp(f"the meta of job {job.ref} is not a valid {meta.__name__}: {error}") from error

    return read
