"""Submits: check the request, provide its file, store the job, then send one POST and store its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Unpack

from attrs import define, field
from yarl import URL

from audioext.clock import mint_id
from audioext.errors import AudioextError, ConfigError, Problem, ProviderError, RateLimitError, StoreError
from audioext.files.sources import Sources
from audioext.http.transport import MaybeSentError, NotSentError, Transport
from audioext.http.urls import callback_url
from audioext.models.entries import Entry, Index, make_entry
from audioext.models.events import Refused
from audioext.models.record import Record, Verdict
from audioext.models.requests import Request
from audioext.providers.base import Provider
from audioext.runtime import telemetry
from audioext.runtime.handle import JobContext
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Job, SubmitUnknownError
from audioext.runtime.journal import Journal
from audioext.runtime.limits import Account
from audioext.runtime.orders import (
    Order,
    SubmitOptions,
    asked_of,
    draw_up,
    end_of,
    refuse_other,
    unsent_error,
)
from audioext.state.reading import Reading, answer_entry, dump_asked
from audioext.stores.base import Existing

_log = logging.getLogger("audioext.submit")

SUBMIT_TIMEOUT_SECONDS = 60.0
MAX_RESENDS = 4
RESEND_SECONDS = 5.0
"""How long a submit waits before it resends after a refusal; doubled each time, unless the answer says how long."""
POLL_GRACE_SECONDS = SUBMIT_TIMEOUT_SECONDS + 15.0
"""Without a callback URL, other processes count an unanswered POST as unknown after this; this one does at once."""
_UNSENT = "the client was closed before this submit was sent; nothing was paid"


class _TaskNamedError(AudioextError):
    """A callback has named the task of a refused submit, so nothing more may be sent. It never leaves the submitter."""


@define(kw_only=True, eq=False, repr=False)
class Submitter:
    """Sends orders. Each ref is POSTed once; a resend gets a new ref, and follows only a refusal that cost nothing.

    A submit runs in its own task, so that cancelling the caller does not cancel it.
    """

    journal: Journal
    transport: Transport
    sources: Sources
    providers: Mapping[str, Provider]
    accounts: Mapping[str, Account]
    permit_timeout: float
    context: JobContext
    public_url: URL | None = None
    """The base URL at which providers reach us, once it is known."""
    secret: bytes = b""
    """The key that signs the callback URLs."""
    _under_way: dict[asyncio.Task[object] | None, HeldJob | None] = field(factory=dict, init=False)
    """The running submits, each with the job of its POST; `None` if it has sent nothing: then `aclose` cancels it."""
    _by_key: dict[str | None, tuple[Order, list[asyncio.Future[Job]]]] = field(factory=dict, init=False)
    _served: dict[str, tuple[HeldJob, str]] = field(factory=dict, init=False)
    """The jobs whose file we serve, by ref, each with its offer."""
    _closing: asyncio.Event = field(factory=asyncio.Event, init=False)

    async def submit(self, request: Request, problems: Sequence[Problem] = (), **options: Unpack[SubmitOptions]) -> Job:
        """Submit *request* in a task that survives the caller's cancellation; concurrent calls with one key share it.

        The outcome of the POST may be unknown, but the job is never lost. *problems* are those found so far. Raises
        what `Client.submit` does.
        """
        order = await draw_up(request, problems, self.providers, self.sources, **options)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Job] = loop.create_future()
        if (sharing := self._by_key.get(order.key)) is not None:
            self.sources.release(order.request)  # the first call's file is sent
            refuse_other(order, "", sharing[0])
            sharing[1].append(waiter)
        elif self._closing.is_set():  # a task cancelled before its first step would never resolve the waiter
            self.sources.release(order.request)
            raise ConfigError(_UNSENT)
        else:
            waiters = [waiter]
            if order.key is not None:
                self._by_key[order.key] = (order, waiters)
            task = loop.create_task(self._run(order, waiters), name="audioext submit")
            self._under_way.setdefault(task, None)  # an eager task may have set its job already
            task.add_done_callback(self._under_way.pop)
        return await waiter

    def callback(self, provider: str, ref: str) -> URL | None:
        """Return the callback URL of a job, or `None` if we have no reachable URL."""
        return None if self.public_url is None else callback_url(self.public_url, self.secret, provider, ref)

    def finish(self, ref: str) -> None:
        """Release the job's file, and let submits that wait for room in its account try again."""
        held, offer = self._served.pop(ref, (None, None))
        if held is not None:
            self.sources.release(held.record.request, offer)
        self._free()

    def _free(self) -> None:
        for account in self.accounts.values():
            account.freed.set()

    async def aclose(self) -> None:
        """Cancel submits that have sent nothing, and wait until the answers of running POSTs are stored."""
        self._closing.set()
        await asyncio.sleep(0)  # a task that is cancelled before its first step would never resolve its waiters
        for task, sent in self._under_way.items():
            if task is not None and sent is None:
                task.cancel()
        while self._under_way:  # a recovery may start its POST in the meantime
            await asyncio.wait([*filter(None, self._under_way)])

    async def run_to_end(self, held: HeldJob, work: Coroutine[Any, Any, None]) -> None:
        """Run *work*, another POST of a job, to its end even if the caller is cancelled; `aclose` waits for it too."""
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._under_way[task] = held
        task.add_done_callback(self._under_way.pop)
        await asyncio.shield(task)

    def cancel_posts(self) -> None:
        """Cancel running POSTs: the outcome of each stays unknown until its webhook arrives."""
        for task in filter(None, self._under_way):
            task.cancel()

    async def _run(self, order: Order, waiters: list[asyncio.Future[Job]]) -> None:
        """Submit *order*, and resolve the waiters that were not cancelled."""
        name = order.provider.info.name
        outcome: HeldJob | Exception
        try:
            with telemetry.span(f"submit {name}", kind="CLIENT") as span:
                outcome = await self._submit(order)
                if span is not None:
                    telemetry.note(outcome.record)
        except asyncio.CancelledError:
            outcome = self._cancelled_outcome()
        except Exception as error:  # noqa: BLE001 - it is raised in the waiters
            outcome = error
        is_new = self._under_way.get(asyncio.current_task()) is outcome
        self._by_key.pop(order.key, None)
        if isinstance(outcome, Exception):
            said = " ".join(str(outcome).split())  # a RequestError has a line for each problem
            _log.info("a submit to %s ended without a job: %s", name, said, extra={"provider": name})
        end = end_of(outcome if isinstance(outcome, Exception) else outcome.record, is_new=is_new)
        self.journal.counts.submits[name, end] += 1
        for waiter in waiters:
            if waiter.done():
                continue
            if isinstance(outcome, Exception):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(Job(outcome, self.context, is_new=is_new))
                is_new = False  # the job is new to one waiter only

    async def _submit(self, order: Order) -> HeldJob:
        is_served, refused = False, list[HeldJob]()
        try:
            held = await self._find(order) if order.key is not None else None
            while held is None:
                try:
                    held = await self._submit_to(order, refused)
                except ProviderError as error:
                    if not order.fallback or self._closing.is_set():
                        if order.note:
                            error.add_note(order.note)
                        raise
                    order = order.after(error)
                    _log.info("going on to %s: %s", order.provider.info.name, order.note)
            is_served = held.ref in self._served
            return held
        finally:
            if order.request.file is not None and not is_served:  # a served file is released with the job
                self.sources.release(order.request)

    async def _submit_to(self, order: Order, refused: list[HeldJob]) -> HeldJob:
        """Submit to the first provider of *order*. After a refusal, resend only if there is no fallback to go on to.

        *refused* are the jobs of the POSTs that were refused so far, at any provider. If a callback names the task of
        one while nothing is sent, that job is the outcome.
        """
        request, offer, held = order.request, None, None
        resends, task, patience = 0, asyncio.current_task(), order.permit_timeout or self.permit_timeout
        self._under_way[task] = None
        try:
            if request.file is not None or request.rehost:
                request, offer = await self.sources.bring(request, order.provider, order.progress)
            while True:
                held, refusal = await self._attempt(order, request, offer, refused)
                if refusal is None:
                    return held
                refused.append(held)
                error = refusal.error
                error.ref = held.ref
                asked = error.retry_after if isinstance(error, RateLimitError) else None
                wait = RESEND_SECONDS * 2**resends if asked is None else asked
                if order.fallback or not refusal.resend or resends == MAX_RESENDS or wait > patience:
                    raise error
                # Closing ends the pause, and the caller gets the refusal.
                await self.journal.clock.wait_for(self._closing, wait)
                if self._closing.is_set():
                    raise error
                resends += 1
                self._under_way[task] = None
        except (Exception, asyncio.CancelledError):
            sent, named = self._under_way[task], _named(refused)
            if named is None or not (sent is None or sent in refused):  # or its own POST was cut off
                raise
            held = self._under_way[task] = named
            if offer is not None and not held.record.is_final:
                self._served[held.ref] = (held, offer)
            return held
        finally:
            if offer is not None and (held is None or held.ref not in self._served):
                self.sources.offers.withdraw(offer)

    async def _attempt(
        self, order: Order, request: Request, offer: str | None, refused: Sequence[HeldJob]
    ) -> tuple[HeldJob, Refused | None]:
        """Send one POST as soon as the account has room; return its job, and the refusal if it was refused.

        Raises _TaskNamedError if a callback names the task of one of the *refused* before it is sent.
        """
        for _ in range(MAX_RESENDS + 1):
            if (held := await self._create(order, refused)) is not None:
                break
            if (found := await self._find(order)) is not None:
                return found, None
        else:  # for example, a server has dropped the job but not its key
            raise StoreError(f"the job that has the key {order.key!r} cannot be found: use another key")
        self._under_way[asyncio.current_task()] = held
        held.posts += 1
        try:
            entry = await self._post(order.provider, request, held.ref)
            await self.journal.append_or_queue(held, [entry])
        finally:
            held.posts -= 1
            held.wake()
        if held.record.verdict is Verdict.OPEN:
            if offer is not None:  # not before: a refusal ends the job, but a resend offers the same file
                self._served[held.ref] = (held, offer)
            if held.record.task_id is not None:
                return held, None
        return held, self._conclude(held, entry)

    async def _create(self, order: Order, refused: Sequence[HeldJob]) -> HeldJob | None:
        """Store a new job as soon as the account has room; return `None` if another job has its key."""
        provider, clock = order.provider, self.journal.clock
        ref = mint_id(clock.now())
        asked = asked_of(order, grace=None if self.public_url is not None else POLL_GRACE_SECONDS)
        body, fresh = dump_asked(asked), HeldJob(ref, provider)

        def make() -> tuple[Entry, Index]:
            if self._closing.is_set():
                raise ConfigError(_UNSENT)
            if refused and _named(refused) is not None:
                raise _TaskNamedError
            entry = make_entry("request", clock.now(), body=body, note=order.note)
            record = Record(ref=ref, asked=asked, created_at=entry.at)  # the fold of a request alone
            fresh.commit([Reading(entry, asked=asked)], record, count=1)
            return entry, self.journal.index(fresh, record)

        def abandon() -> None:  # it may be stored anyway, and would hold its key as if sent
            why = "the store did not confirm the job; nothing was sent"
            self.journal.abandon_later(fresh, make_entry("abandoned", clock.now(), note=why))

        account = self.accounts[asked.provider]
        patience = order.permit_timeout or self.permit_timeout
        created = await account.create(make, abandon, provider=asked.provider, timeout=patience)
        if isinstance(created, Existing) and created.ref != ref:  # its own ref means that the engine retried the create
            return None
        return self.journal.keep(fresh)  # not earlier: jobs in memory are appended to a store that lacks them

    async def _post(self, provider: Provider, request: Request, ref: str) -> Entry:
        """Send the POST of *ref*; return the entry of its answer, or of why there is none. Never raises."""
        clock, callback = self.journal.clock, self.callback(provider.info.name, ref)
        try:
            built = provider.build_submit(request, callback)
            built = await self.sources.name_files(built) if built.parts else built
        except Exception as error:  # noqa: BLE001 - a provider's bug, or a file name that it cannot encode
            _log.exception("job %s: the submit could not be built", ref)
            why = f"the request could not be built ({type(error).__name__}); nothing was sent"
            return make_entry("abandoned", clock.now(), note=why)
        try:
            response = await self.transport.send(built, timeout=SUBMIT_TIMEOUT_SECONDS)
        except NotSentError as error:
            return make_entry("abandoned", clock.now(), status=1, note=str(error))
        except MaybeSentError as error:
            told = error.status if error.status // 100 == 4 else 0  # noqa: PLR2004 - only a refusal needs no body
            return make_entry("answer", clock.now(), status=told, note=str(error))
        except Exception as error:  # noqa: BLE001 - any error, since bytes may have been sent
            _log.exception("job %s: the submit broke off", ref)
            return make_entry("answer", clock.now(), note=f"the submit broke off with {type(error).__name__}")
        return answer_entry(response, clock.now(), provider, callback)

    def _conclude(self, held: HeldJob, entry: Entry) -> Refused | None:
        record = held.record
        if record.verdict is Verdict.REFUSED:
            self._free()
            outcome = held.readings[entry.id].outcome
            return outcome if isinstance(outcome, Refused) else Refused(error=unsent_error(record, entry))
        if record.answer_problem is not None and record.task_id is None:
            text = "job %s: the outcome of its POST is unknown, nothing is resent: %s"
            _log.warning(text, held.ref, record.answer_problem, extra=telemetry.names(record))
            self._free()
        return None

    async def _find(self, order: Order) -> HeldJob | None:
        """Return the job that has the key of *order*, or `None`."""
        held = None if order.key is None else await self.journal.hold_key(order.key)
        if held is not None and held.record.verdict is Verdict.REFUSED:
            await self.journal.append(held)  # free the key: the process that got the refusal may have died before
            return None
        if held is not None:
            asked = held.record.asked
            refuse_other(order, held.ref, Order(request=asked.request, provider=held.provider, content=asked.content))
        return held

    def _cancelled_outcome(self) -> HeldJob | Exception:
        sent = self._under_way.get(asyncio.current_task())
        if sent is None:
            return ConfigError(_UNSENT)
        if sent.record.task_id is not None:
            return sent
        name = sent.provider.info.name
        message = f"job {sent.ref}: its POST was cut off, so it is unknown whether it reached {name}"
        return SubmitUnknownError(message, job=Job(sent, self.context))


def _named(refused: Sequence[HeldJob]) -> HeldJob | None:
    """Return the first of the *refused* jobs whose task a callback has named since."""
    return next((held for held in refused if held.record.verdict is not Verdict.REFUSED), None)
