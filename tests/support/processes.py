"""Simulated processes that share a store: each has a line to it and a journal of its own, and records what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import StoreError
from audioext.models.entries import Entry
from audioext.models.limits import Limits
from audioext.models.record import Record
from audioext.providers.base import Provider
from audioext.runtime.handle import JobContext
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Job
from audioext.runtime.journal import Journal
from audioext.state.fold import fold
from audioext.state.reading import Reading, read
from audioext.stores.base import Created, Store, Stored
from tests.support import tape
from tests.support.lines import Line
from tests.support.tape import REF, TAPE

EXPIRE_SECONDS = 86_400.0
WAIT_SECONDS = 3_600.0
UNLIMITED = Limits(submits=None, parallel=None)


def loop_time() -> float:
    """Return the time of the running loop."""
    return asyncio.get_running_loop().time()


LOOP_CLOCK = Clock(now=loop_time, monotonic=loop_time, jitter=lambda: 0.0)
"""A clock with the time of the running loop, and without jitter."""


@define(eq=False)
class Process:
    """One process. `polls` are the times for which its journal asked for a poll, `ended` the refs that it saw end."""

    line: Line
    journal: Journal
    clock: Clock
    provider: Provider
    polls: list[float] = field(factory=list)
    ended: list[str] = field(factory=list)
    refreshed: list[HeldJob] = field(factory=list)
    _looks: set[asyncio.Task[None]] = field(factory=set, init=False)

    async def submit(self, ref: str = REF, /, **asked: object) -> HeldJob:
        """Create a job, like a submit without its answer; *asked* are fields of its `Asked`."""
        entry = tape.request(self.clock.now(), **asked)
        held = begun(ref, read(entry, self.provider), self.provider)
        index = self.journal.index(held, held.record)
        assert Created() == await self.line.create(entry, index, limits=UNLIMITED, now=self.clock.now())
        return self.journal.keep(held)

    async def hold(self, ref: str = REF) -> HeldJob:
        """Return a job that the store has."""
        held = await self.journal.hold(ref)
        assert held is not None
        return held

    async def job(self, ref: str = REF, *, wait_timeout: float = WAIT_SECONDS) -> Job:
        """Return a handle of a job that the store has."""
        return self.handle(await self.hold(ref), wait_timeout=wait_timeout)

    def handle(self, held: HeldJob, *, wait_timeout: float = WAIT_SECONDS) -> Job:
        """Return a handle of a job that is held."""
        context = JobContext(
            journal=self.journal,
            check_loop=lambda: None,
            look=self.journal.look,
            look_soon=self._look_soon,
            refresh=self._refresh,
            files=_files,
            wait_timeout=wait_timeout,
        )
        return Job(held, context)

    async def receive(self, entry: Entry, ref: str = REF) -> None:
        """Receive a delivery, as the inbox does."""
        await self.journal.receive(ref, self.provider.info.name, read(entry, self.provider))

    def _look_soon(self, ref: str) -> None:
        task = asyncio.ensure_future(self._look(ref))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _look(self, ref: str) -> None:
        with suppress(StoreError):
            await self.journal.look(ref)

    async def _refresh(self, held: HeldJob) -> None:
        self.refreshed.append(held)


def begun(ref: str, request: Reading, provider: Provider) -> HeldJob:
    """Return a new job whose journal has only its request."""
    held = HeldJob(ref, provider)
    held.merge([request], count=1)
    return held


def start(store: Store, *, provider: Provider = TAPE, clock: Clock = LOOP_CLOCK) -> Process:
    """Start a process on *store*."""
    line = Line(store)
    journal = Journal(store=line, providers={provider.info.name: provider}, clock=clock, expire_after=EXPIRE_SECONDS)
    process = Process(line, journal, clock, provider)
    journal.on_poll = process.polls.append
    journal.on_final = process.ended.append
    return process


async def stored(store: Store, ref: str = REF) -> Stored:
    """Return a job as *store* has it."""
    found = await store.read(ref)
    assert found is not None
    return found


async def truth(store: Store, ref: str = REF, *, provider: Provider = TAPE) -> Record:
    """Return the record that a fresh reader folds from a job's stored entries."""
    record = fold(ref, understood((await stored(store, ref)).entries, provider))
    assert record is not None
    return record


def understood(entries: Sequence[Entry], provider: Provider = TAPE) -> list[Reading]:
    """Return the readings of *entries*."""
    return [read(entry, provider) for entry in entries]


def _files(_: HeldJob) -> Any:
    """Return None: no test here fetches files."""
