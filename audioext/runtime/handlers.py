"""`@client.on`: handlers are told of each (job, stage) at least once, in order, as the journal says what is left."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec
import msgspec.inspect
from attrs import define, field

from audioext.errors import ConfigError, GiveUp, StoreError, asked_wait, shown
from audioext.http.messages import as_data
from audioext.models.entries import Entry, make_entry
from audioext.models.record import Record, Run
from audioext.models.requests import Request
from audioext.models.results import Stage
from audioext.models.stats import HandlerEnd
from audioext.runtime import tracing
from audioext.runtime.claims import Claims
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import ClientClosedError, Failure, Job, StageEvent
from audioext.runtime.journal import Journal
from audioext.runtime.news import names
from audioext.state.fold import FAILED_TOPIC, TOPIC_OF
from audioext.state.reading import Handled
from audioext.state.schedule import FARTHEST_RETRY_SECONDS, MAX_ATTEMPTS, RETRY_SECONDS, again_at, handle_at

_log = logging.getLogger("audioext.handlers")

_M = TypeVar("_M")
StageHandler = Callable[[StageEvent], Awaitable[None]]
FailureHandler = Callable[[Failure], Awaitable[None]]
_Handler = Callable[..., Awaitable[None]]
_Call = Callable[[Job], Awaitable[None]]

CLAIM_MARGIN_SECONDS = 5.0
CATCH_UP_SECONDS = 1.0
"""How long closing may take to let the index show what is due."""
CLEAN_UP_SECONDS = 2.0
"""How long a handler that ran out of time gets to clean up."""
LONGEST_ERROR = 500
_OBJECTS = (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)
"""What `meta=` may be; an attrs class is the first kind to msgspec."""
MAX_WAITS = 100
"""How often a handler may ask to be called later for one topic; after that it counts as a failure."""
LONGEST_WAIT_SECONDS = 86_400.0
"""How long such a wait is at most: an ended job is remembered for longer."""


@define(eq=False)
class Handling:
    """One call of a handler; it gives keys to what the handler submits, the same ones when it is called again."""

    name: str
    _counts: Counter[str] = field(factory=Counter, init=False)

    def key(self, provider: str, request: Request, content: str | None) -> str:
        """Return the key of a request that is submitted now; a file counts by its *content*, wherever it lies."""
        asked = request if content is None else attrs.evolve(request, file=Path(content))
        digest = hashlib.sha256(repr((provider, asked)).encode(errors="surrogatepass")).hexdigest()[:24]
        self._counts[digest] += 1
        return f"handler:{self.name}:{digest}:{self._counts[digest]}"


HANDLING: ContextVar[Handling | None] = ContextVar("HANDLING", default=None)
"""What the running code is called for, if a handler runs it."""


@define(kw_only=True, eq=False, repr=False)
class Handlers:
    """The handlers of one client, and the loop that calls them. *timeout* (seconds) bounds each call."""

    journal: Journal
    timeout: float
    concurrency: int
    providers: Sequence[str] | None = None
    """Those whose jobs can be read here: the handler work of others is left to whoever can."""
    job: Callable[[HeldJob], Job]
    """Returns the handle of a job."""
    claims: Claims = field(init=False)
    _by_topic: dict[str, list[tuple[str, _Call]]] = field(factory=dict, init=False)
    """The name of each handler, and what calls it."""
    _is_started: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the loop."""
        self.claims = Claims(
            work="handlers",
            store=self.journal.store,
            clock=self.journal.clock,
            hold=self._hold_seconds,
            concurrency=self.concurrency,
            do=self._work,
            providers=self.providers,
            farthest=FARTHEST_RETRY_SECONDS,
        )

    def on(self, stage: Stage, meta: type[_M] | None = None) -> Callable[[_Handler], _Handler]:
        """Return what registers a handler of each job's event of *stage*, and of its meta as an object of that class.

        Raises:
            ConfigError: handlers are not told of that stage, or *meta* cannot be read; or later, no async function.
        """
        if not isinstance(stage, Stage) or stage not in TOPIC_OF:  # at SUBMITTED the submit itself returned
            message = f"handlers are told of TEXT, FIRST and COMPLETE, not {stage!r}; use @client.on(ax.Stage.COMPLETE)"
            raise ConfigError(message)
        return partial(self._add, TOPIC_OF[stage], lambda job: job.event(stage), _reader(meta), _arguments(meta))

    def on_failure(self, meta: type[_M] | None = None) -> Callable[[_Handler], _Handler]:
        """Return what registers a handler of each job's failure, as `on` does."""
        return partial(self._add, FAILED_TOPIC, lambda job: job.failure, _reader(meta), _arguments(meta))

    @property
    def are_any(self) -> bool:
        """Whether there is a handler."""
        return bool(self._by_topic)

    def start(self) -> None:
        """Begin to work, if there is a handler; one that is added later starts the work then."""
        self._is_started = True
        if self._by_topic:
            self.claims.start()

    async def aclose(self, *, drain: float) -> None:
        """Finish what is due within *drain* seconds; what is cancelled then runs again later."""
        if drain > 0 and self._by_topic:
            with suppress(StoreError, TimeoutError):  # then they run again later
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await self._catch_up()
        await self.claims.aclose(drain=drain)

    async def _catch_up(self) -> None:
        """Let the index show what this process knows to be due: another one's writing may still be behind."""
        now = self.journal.clock.now()
        for held in self.journal.held_jobs():
            due = handle_at(held.record, now)
            if due is not None and due <= now:
                await self.journal.append(held)

    def _add(
        self,
        topic: str,
        look: Callable[[Job], StageEvent | Failure | None],
        extra: Callable[[Job], tuple[object, ...]],
        arguments: int,
        handler: _Handler,
    ) -> _Handler:
        """Call *handler* with what *look* finds in a job; a failure is gone where the job rose to complete since."""
        function = handler.func if isinstance(handler, partial) else handler
        if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):
            raise ConfigError(f"a handler must be an async function (async def), not {handler!r}")
        try:
            with suppress(ValueError):  # compiled code may not tell what it takes
                inspect.signature(handler).bind(*[topic] * arguments)
        except TypeError as error:
            given = "what happened" if arguments == 1 else "what happened, and with the job's meta"
            raise ConfigError(f"a handler is called with {given}, which {handler!r} does not take: {error}") from error

        async def call(job: Job) -> None:
            said = look(job)
            if said is not None:
                await handler(said, *extra(job))

        calls = self._by_topic.setdefault(topic, [])
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
        count = sum(other.partition("#")[0] == name for other, _ in calls)
        calls.append((f"{name}#{count + 1}" if count else name, call))
        if self._is_started:
            self.claims.start()
        return handler

    def _hold_seconds(self) -> float:
        most = max(map(len, self._by_topic.values()), default=1)
        return (self.timeout + CLEAN_UP_SECONDS) * most + CLAIM_MARGIN_SECONDS

    async def _work(self, ref: str) -> None:
        """Tell one topic of a claimed job, then give the claim back; the next topic is claimed anew."""
        held = await self.journal.hold(ref)
        if held is None:
            return
        now = self.journal.clock.now()
        due = handle_at(held.record, now)  # a second look may come while handlers that failed still wait
        entries: list[Entry] = []
        release = True
        try:
            if due is not None and due <= now:
                await self._tell(held, held.record.untold[0], entries)
        except Exception:  # a bug of ours: nothing was counted, so the claim is what keeps it from coming at once
            release = False
            raise
        finally:  # also when it is cut off: those that were done by then are not called again
            try:
                await self.journal.append(held, entries, release=release)
            except StoreError as error:
                if not entries:
                    raise
                _log.warning("job %s: what handlers did is not stored yet: %s", held.ref, error)
                self.journal.append_later(held, entries)
        self.claims.wake()  # the next topic of this job may be due now

    async def _tell(self, held: HeldJob, topic: str, entries: list[Entry]) -> None:
        """Call the handlers of *topic* that are not done with it, and add to *entries* how each fared."""
        is_over = True
        for name, call in self._by_topic.get(topic, []):
            run = held.record.runs.get((topic, name), Run())
            if run.is_done:
                continue
            if again_at(run, now := self.journal.clock.now()) > now:  # it waits longer than its neighbours
                is_over = False
                continue
            handled = self._judge(held.record, topic, name, run, await self._call(held, topic, name, call))
            is_over = is_over and handled.is_over
            entries.append(self._entry(handled))
            end: HandlerEnd = "retried" if not handled.is_over else "given_up" if handled.failure else "done"
            self.journal.counts.handlers[topic, end] += 1
        if is_over:
            # Where all of them succeeded at once, one entry says it for all.
            entries[:] = [entry for entry in entries if b'"failure":0' not in entry.body]
            entries.append(self._entry(Handled(topic)))

    def _judge(self, record: Record, topic: str, name: str, run: Run, error: BaseException | None) -> Handled:
        """Return how a call fared that ended with *error*, and say so in the log."""
        if error is None:
            return Handled(topic, name)
        ref, named = record.ref, names(record)
        wait, waits = asked_wait(error), run.waits + 1
        if wait is None and self.journal.is_closed and isinstance(error, (ConfigError, ClientClosedError)):
            wait = RETRY_SECONDS  # it failed because we close
        if wait is not None and waits <= MAX_WAITS:
            wait = min(wait, LONGEST_WAIT_SECONDS)
            _log.info("job %s: handler %s of %s is called again in %g s", ref, name, topic, wait, extra=named)
            return Handled(topic, name, is_over=False, wait=wait, waits=waits)
        failure = run.failures + 1
        if isinstance(error, GiveUp):
            _log.warning("job %s: handler %s of %s gave up: %s", ref, name, topic, _said(error), extra=named)
        else:
            text = "job %s: handler %s of %s failed (try %d)"
            _log.error(text, ref, name, topic, failure, exc_info=error, extra=named)
        is_over = failure >= MAX_ATTEMPTS or isinstance(error, GiveUp)
        return Handled(topic, name, failure, _said(error), is_over)

    async def _call(self, held: HeldJob, topic: str, name: str, call: _Call) -> BaseException | None:
        """Call one handler in a task of its own, whose end is its own affair; return what it raised."""

        async def handle() -> None:
            HANDLING.set(Handling(f"{held.ref}:{topic}:{name}"))
            with tracing.span(f"handler {topic}", held.record):
                try:
                    await call(self.job(held))
                except SystemExit as error:  # else the process ends, and does so again whenever it begins
                    raise RuntimeError(f"it called sys.exit({error.code!r:.40})") from error

        task = asyncio.create_task(handle())
        # What it raises once nobody waits for it any more is no news.
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
    """Return what *error* says, which may quote strangers; what fails here would be called again without end."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - its own `__str__` is the user's
        text = type(error).__name__
    return as_data(text, longest=LONGEST_ERROR)


def _arguments(meta: type[object] | None) -> int:
    """Return how many arguments a handler is called with."""
    return 1 if meta is None else 2


def _reader(meta: type[_M] | None) -> Callable[[Job], tuple[_M, ...]]:
    """Return what makes an object of class *meta* of a job's, or nothing where there is no class."""
    if meta is None:
        return lambda _: ()
    try:
        is_good = isinstance(msgspec.inspect.type_info(meta), _OBJECTS)
    except Exception as error:
        raise ConfigError(f"meta={shown(meta)} cannot be read from JSON: {error}") from error
    if not is_good:
        message = f"meta= must be a dataclass, an attrs class, a TypedDict or a msgspec.Struct, not {shown(meta)}"
        raise ConfigError(message)

    def read(job: Job) -> tuple[_M, ...]:
        try:
            return (msgspec.convert(job.meta, meta),)
        except msgspec.ValidationError as error:
            raise GiveUp(f"the meta of job {job.ref} is no {meta.__name__}: {error}") from error

    return read
