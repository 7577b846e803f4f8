"""The single writer of job journals: it wakes waiters once entries are durable (but see `append_later`)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from weakref import WeakValueDictionary

from attrs import Factory, define, field
from msgspec.structs import replace

from audioext.clock import Clock
from audioext.errors import ConfigError, StoreError, UnreadableError, WebhookError
from audioext.models.entries import OTHER_TASK, Entry, Index, holds_request, make_entry
from audioext.models.record import Record, Verdict
from audioext.models.stats import Counts, WebhookEnd
from audioext.providers.base import Provider
from audioext.runtime.held import HeldJob
from audioext.runtime.telemetry import announce
from audioext.runtime.unstored import Unstored
from audioext.state import schedule
from audioext.state.reading import Reading
from audioext.state.recovery import is_other_task
from audioext.stores.base import Store, Stored, Work

_log = logging.getLogger("audioext.journal")
_ENTRY = attrgetter("entry")

SECOND_LOOK_SECONDS = 2.0
"""How soon a journal is folded again if its last writer had not seen all of it, so that its index may be stale."""
RECENT_JOBS = 256
"""How many recently submitted or called-back jobs stay in memory, even if nothing else references them."""
MAX_ROUNDS = 20
"""How often one append tries to update the index while other processes keep appending."""
LOOK_TIMEOUT_SECONDS = 10.0
"""How long a waiter waits for a store that does not answer; no shorter than the built-in stores' default timeouts."""


@define(kw_only=True, eq=False, repr=False)
class Journal:
    """The jobs in this process's memory, and every append to their journals in the store.

    An open job expires *expire_after* seconds after its creation.
    """

    store: Store
    providers: Mapping[str, Provider]
    clock: Clock
    expire_after: float
    on_poll: Callable[[float], None] = field(default=lambda _: None)
    on_work: Callable[[], None] = field(default=lambda: None)
    on_final: Callable[[str], None] = field(default=lambda _: None)
    on_orphan: Callable[[int], None] = field(default=lambda _: None)
    counts: Counts = field(factory=Counts, init=False)
    held: WeakValueDictionary[str, HeldJob] = field(factory=WeakValueDictionary, init=False)
    """The known jobs in this process's memory, by ref."""
    _recent: OrderedDict[str, HeldJob] = field(factory=OrderedDict, init=False)
    _chores: set[asyncio.Task[None]] = field(factory=set, init=False)
    _looks: set[asyncio.Timeout] = field(factory=set, init=False)
    unstored: Unstored = field(
        default=Factory(lambda self: Unstored(append=self._append_late, clock=self.clock), takes_self=True), init=False
    )
    """Entries that could not be stored yet."""
    is_closed: bool = field(default=False, init=False)
    """Whether the client is closed, so that every wait ends with `ClientClosedError`."""

    # --- jobs in memory ----------------------------------------------------------------------------------

    def held_jobs(self) -> list[HeldJob]:
        """Return all jobs in this process's memory. Safe to call from any thread."""
        return [held for found in self.held.valuerefs() if (held := found()) is not None]

    def keep(self, held: HeldJob) -> HeldJob:
        """Keep a stored job in memory, since more webhooks are likely soon. Return the one copy of it in memory."""
        held = self.held.setdefault(held.ref, held)
        self._recent[held.ref] = held
        if len(self._recent) > RECENT_JOBS:
            self._recent.popitem(last=False)
        return held

    def load(self, stored: Stored) -> HeldJob:
        """Load a stored job into memory, or update the copy that is there.

        Raises:
            ConfigError: this client does not know the job's provider.
            UnreadableError: the entries contain no request.
        """
        held = self.held.get(stored.index.ref)
        if held is None:
            held = HeldJob(stored.index.ref, self.provider(stored.index.provider, stored.index.ref))
        old = held.record if held.is_known else None
        held.merge(held.read(stored.entries), count=stored.count)
        if not held.is_known:
            raise UnreadableError(f"job {held.ref}: the store holds its index, but not its request")
        self.held[held.ref] = held
        if old is not None:  # otherwise the processes that appended the entries have logged them
            announce(self.counts, old, held.record)
            if old.verdict is Verdict.OPEN and held.record.is_final:
                self.on_final(held.ref)
        return held

    def provider(self, name: str, ref: str) -> Provider:
        """Return the provider called *name*; the error names *ref*, the job that needs it.

        Raises:
            ConfigError: this client has no provider of that name.
        """
        try:
            return self.providers[name]
        except KeyError:
            wanted = "pass it to Client(...); commands know names that begin with an API's, like kie-acme"
            raise ConfigError(f"job {ref} needs a provider named {name!r}, which this client lacks: {wanted}") from None

    async def hold(self, ref: str, *, whole: bool = False) -> HeldJob | None:
        """Return the job of *ref*, up to date with the store; `None` if the store has no such job.

        Entries of an open job that the store lost, as a Redis server without persistence can, are appended again. If
        the store got as many new ones since, only reading the *whole* journal shows the loss.

        Raises:
            StoreError: the store cannot be read.
            ConfigError: this client does not know the job's provider.
        """
        held = self.held.get(ref)
        known = held.count if held is not None else 0
        seen = set(held.readings) if held is not None and whole else set()
        stored = await self.store.read(ref, after=0 if whole else known)
        held = held or self.held.get(ref)
        if held is not None:
            if stored is None or stored.count < known or not seen.issubset(entry.id for entry in stored.entries):
                if not held.record.is_final and not held.posts:
                    await self._restore(held)
            else:
                self.load(stored)
            return held
        return self.load(stored) if stored is not None and holds_request(stored.entries) else None

    async def hold_key(self, key: str) -> HeldJob | None:
        """Like `hold`, by *key*. Store pending entries of that key first: a refusal among them frees it."""
        await self.unstored.flush(key)
        ref = await self.store.find(key=key)
        mine = (held.ref for held in self._recent.values() if held.record.key == key and not held.record.is_final)
        return await self.hold(found) if (found := ref or next(mine, None)) else None  # the store may have lost it

    async def look(self, ref: str, *, whole: bool = False) -> None:
        """Like `hold`, for a waiter: neither a store that hangs nor closing the client blocks it.

        Raises:
            StoreError: the store cannot be read, or did not answer in time.
        """
        limit = asyncio.timeout(LOOK_TIMEOUT_SECONDS)
        self._looks.add(limit)
        try:
            async with limit:
                await self.hold(ref, whole=whole)
        except TimeoutError as error:
            raise StoreError("the store did not answer in time") from error
        finally:
            self._looks.discard(limit)

    # --- appending ---------------------------------------------------------------------------------------

    async def append(self, held: HeldJob, entries: Sequence[Entry] = (), *, release: bool = False) -> None:
        """Append *entries* to the journal of a held job and update its index, then wake its waiters.

        *release* ends a claim on the job's handlers.

        Raises:
            StoreError: nothing was appended.
        """
        await self.append_read(held, held.read(entries), release=release)

    async def append_read(self, held: HeldJob, news: Sequence[Reading], *, release: bool = False) -> None:
        """Like `append`, for entries that are decoded already."""
        if held.ref in self.unstored.waiting:  # the index must not be ahead of the stored journal
            news = [*held.read(self.unstored.entries(held.ref)), *news]
        was_open = held.record.verdict is Verdict.OPEN
        for _ in range(MAX_ROUNDS):
            record = held.with_readings(news) if news else held.record
            assert record is not None  # noqa: S101 - the request is among them
            index = self.index(held, record)
            known, understood, old = held.count, len(held.readings), held.record
            began = self.clock.monotonic()
            done = await self.store.append(
                held.ref,
                [*map(_ENTRY, news)],
                provider=record.asked.provider,
                index=index,
                known=known,
                look_at=self.clock.now() + SECOND_LOOK_SECONDS,
                release=release,
            )
            self.counts.appends.add(self.clock.monotonic() - began)
            # With equal counts, only a missing request keeps the index out: the store lost entries and got new ones.
            is_orphan = done.count == known and not (done.is_taken or done.is_full or done.missed)
            if done.is_lost or is_orphan:
                held.count = 0
                news = [*held.readings.values(), *(each for each in news if each.entry.id not in held.readings)]
                continue
            release = False  # our claim has ended; the next round must not end another process's claim
            last = held.record
            if done.is_taken and not done.missed and (known, understood) == (held.count, len(held.readings)):
                held.commit(news, record, count=done.count)
            else:
                held.merge(held.stored_readings(done, news), count=done.count)
            announce(self.counts, old, held.record, news, last=last)
            if done.is_taken:
                if index.poll_at is not None:
                    self.on_poll(index.poll_at)
                if index.handle_at is not None:
                    self.on_work()
                if was_open and not index.is_open:
                    self.on_final(held.ref)
                return
            news = ()
        _log.warning("job %s: its index could not be brought up to date: other processes keep appending", held.ref)

    async def receive(self, ref: str, provider_name: str, reading: Reading) -> WebhookEnd:
        """Append one webhook and return how it ended. If the job is not in memory, a task updates its index later.

        Raises:
            WebhookError: it names another task than the job's, or another job's task (401). It is stored anyway.
            StoreError: nothing was appended.
        """
        held = self.held.get(ref)
        named = reading.task_id
        if named is not None and (held is None or held.record.task_id != named):
            owner = await self.store.find(provider=provider_name, task_id=named)
            if owner != ref:
                with suppress(UnreadableError):
                    held = await self.hold(ref)
                if held is not None and is_other_task(held.record, named, owner):
                    await self._refuse_other_task(held, reading.entry)
        if held is not None:
            await self.append_read(held, [reading])
        elif (held := await self._append_unheld(ref, provider_name, reading)) is None:
            self.on_orphan(reading.entry.size)
            return "orphan"
        return "applied" if held.readings.get(reading.entry.id) is reading else "repeated"

    async def _refuse_other_task(self, held: HeldJob, entry: Entry) -> None:
        note = f"{OTHER_TASK} than job {held.ref}'s"
        await self.append(held, [make_entry(entry.kind, entry.at, headers=entry.headers, body=entry.body, note=note)])
        raise WebhookError(f"the delivery names an{note}", http_status=401)

    async def _append_unheld(self, ref: str, provider_name: str, reading: Reading) -> HeldJob | None:
        began, at = self.clock.monotonic(), self.clock.now() + SECOND_LOOK_SECONDS
        done = await self.store.append(ref, [reading.entry], provider=provider_name, look_at=at)
        self.counts.appends.add(self.clock.monotonic() - began)
        held = self.held.get(ref)  # it may have been loaded during the append; there is one copy of a job
        if held is None and not holds_request(done.missed):
            if done.count == 1:
                _log.warning("webhook for job %s, which is not in the store: it is kept as an orphan", ref)
            return None
        held = held or HeldJob(ref, self.provider(provider_name, ref))
        old = held.record if held.is_known else None
        with suppress(UnreadableError):  # the webhook is durable, so its sender gets a success all the same
            held.merge(held.stored_readings(done, [reading]), count=done.count)
        if held.is_known:
            announce(self.counts, old, held.record, [reading])
            self.keep(held)
            chore = asyncio.create_task(self._bring_up_to_date(held), name=f"audioext index of {ref}")
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)
        return held

    async def give_back(self, ref: str, work: Work) -> None:
        """End a claim on *work* that was not done: handlers are due as before, and a status call is due now."""
        held = await self.hold(ref)
        if held is not None and ref not in self.unstored.waiting:
            index, name = self.index(held, held.record), held.provider.info.name
            if work == "polls" and index.poll_at is not None:
                index = replace(index, poll_at=self.clock.now())
            await self.store.append(ref, (), provider=name, index=index, known=held.count, release=work == "handlers")

    async def _bring_up_to_date(self, held: HeldJob) -> None:
        with suppress(StoreError):  # then the process that claims the job next updates it
            await self.append(held)

    def index(self, held: HeldJob, record: Record) -> Index:
        """Return the index row of a held job for *record*."""
        now = self.clock.now()
        poll_at = schedule.poll_at(
            record,
            pace=held.provider.info.pace,
            now=now,
            jitter=self.clock.jitter(),
            deadline=record.created_at + self.expire_after,
            polled_at=held.polled_at,
        )
        return schedule.index_of(record, now=now, poll_at=poll_at, expire_after=self.expire_after)

    # --- when the store is down, or has lost entries -----------------------------------------------------

    async def append_or_queue(self, held: HeldJob, entries: Sequence[Entry]) -> None:
        """Append *entries* now, or once the store is back: the task may be paid for already."""
        try:
            await self.append(held, entries)
        except (Exception, asyncio.CancelledError) as error:  # a bug of a store, too; cancelled: `aclose` waits no more
            self.append_later(held, entries)
            task, why = held.record.task_id or "unknown", str(error) or "the client is closing"
            _log.error("job %s: the outcome of its POST (task %s) is not stored yet: %s", held.ref, task, why)
            if isinstance(error, asyncio.CancelledError):
                raise

    def append_later(self, held: HeldJob, entries: Sequence[Entry]) -> None:
        """Apply *entries* that could not be stored in memory now, and append them once the store is back."""
        old, news = held.record, held.read(entries)
        held.merge(news, count=held.count)
        announce(self.counts, old, held.record, news)
        self.unstored.add(held, entries)

    def abandon_later(self, held: HeldJob, entry: Entry) -> None:
        """Append *entry* once the store is back, to a new job whose `create` failed but may have been stored."""
        held.count = 0
        self.unstored.add(held, [entry])

    async def _append_late(self, held: HeldJob, entries: Sequence[Entry]) -> None:
        waiting = self.unstored.entries(held.ref)
        if all(entry.kind == "abandoned" for entry in waiting):  # its `create` failed: see `abandon_later`
            stored = await self.store.read(held.ref)
            if stored is None or not holds_request(stored.entries):  # a server that hung may create it even later
                await self.store.append(held.ref, waiting, provider=held.provider.info.name)
                return
        await self.append(held, entries)

    async def _restore(self, held: HeldJob) -> None:
        _log.error("job %s: the store lost entries of it; they are stored again", held.ref)
        held.count = 0
        await self.append_read(held, held.in_order())

    # --- closing -----------------------------------------------------------------------------------------

    def close_waits(self) -> None:
        """End all current and later waits with `ClientClosedError`."""
        self.is_closed = True
        for limit in self._looks:
            if not limit.expired():
                limit.reschedule(0.0)
        for held in self.held_jobs():
            held.wake()

    async def aclose(self) -> None:
        """Try once more to store pending entries, and finish pending index updates."""
        await self.unstored.aclose()
        await asyncio.gather(*self._chores, return_exceptions=True)
