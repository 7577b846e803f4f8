"""A job in this process's memory: its entries, each decoded once, and the waiters for news of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from attrs import define, field

from audioext.errors import UnreadableError
from audioext.http.messages import as_data
from audioext.models.entries import Entry
from audioext.models.record import Record
from audioext.providers.base import Provider
from audioext.state.fold import fold
from audioext.state.reading import Reading, read
from audioext.stores.base import Appended


@define(eq=False, weakref_slot=True)
class HeldJob:
    """One job as this process knows it. Only `Journal` adds entries to it."""

    ref: str
    provider: Provider = field(repr=False)
    readings: dict[str, Reading] = field(factory=dict, repr=False)
    """The decoded entries, by entry id."""
    count: int = 0
    """How many entries of the job are known to be stored; all of them are in `readings`."""
    _waiters: list[asyncio.Future[bool]] = field(factory=list, repr=False)
    polled_at: float = 0.0
    """When this process last made a status call for it, in Unix seconds."""
    poll_problem: str | None = None
    """Why that status call failed, `None` if it was answered."""
    posts: int = 0
    """How many POSTs of this job are under way in this process, or have an outcome that is not stored yet."""
    is_known: bool = False
    """Whether its request was seen. A journal without one is an orphan's, and has no record."""
    record: Record = field(init=False)
    """The fold of all entries; unset until `is_known`."""

    def read(self, entries: Iterable[Entry]) -> list[Reading]:
        """Decode *entries*, reusing the readings of those that are known with the same time.

        Raises:
            UnreadableError: the only request among them is damaged, or was written by a later release.
        """
        found: list[Reading] = []
        unreadable: UnreadableError | None = None
        for entry in entries:
            reading = self.readings.get(entry.id)
            if reading is None or reading.entry.at != entry.at:
                try:
                    reading = read(entry, self.provider)
                except UnreadableError as error:
                    unreadable = error
                    reading = Reading(entry, problem=str(error))
            found.append(reading)
        if unreadable is not None and not self.is_known and all(reading.asked is None for reading in found):
            raise UnreadableError(f"job {self.ref}: {unreadable}") from unreadable
        return found

    def in_order(self) -> list[Reading]:
        """Return all readings, oldest first."""
        return sorted(self.readings.values(), key=lambda reading: (reading.entry.at, reading.entry.id))

    def with_readings(self, news: Iterable[Reading]) -> Record | None:
        """Return the record as it would be with *news*, without changing the job."""
        readings = self.readings.copy()
        for reading in news:
            readings.setdefault(reading.entry.id, reading)
        return fold(self.ref, readings.values())

    def commit(self, news: Iterable[Reading], record: Record, *, count: int) -> None:
        """Add *news* after an append that met no other entries: *record* holds, and *count* entries are stored."""
        for reading in news:
            self.readings[reading.entry.id] = reading
        self.count, self.record, self.is_known = count, record, True
        if news:
            self.wake()

    def merge(self, news: Iterable[Reading], *, count: int) -> None:
        """Add *news* and fold again; the store has at least *count* entries."""
        changed = False
        for reading in news:
            old = self.readings.get(reading.entry.id)
            if old is None or old.entry.at != reading.entry.at:  # the stored time counts
                self.readings[reading.entry.id] = reading
                changed = True
        self.count = max(count, self.count)
        if changed:
            found = fold(self.ref, self.readings.values())
            if found is not None:
                self.record, self.is_known = found, True
            self.wake()

    def stored_readings(self, done: Appended, news: Sequence[Reading]) -> list[Reading]:
        """Return the entries that an append missed, and the *news* that were stored. Repeats keep their stored time."""
        missed = self.read(done.missed)
        if done.is_full:
            return missed  # the entry was only counted, and is not in the journal
        known = {reading.entry.id for reading in missed}
        return [*missed, *(reading for reading in news if reading.entry.id not in known)]

    def describe(self, now: float) -> str:
        """Describe the job's last known state at *now* (Unix seconds), for the error of a wait that found no end."""
        record = self.record
        said = ["nothing is known of it yet" if record.stage is None else f"it is at {record.stage}"]
        if record.task_id is None and record.answer_problem is not None:
            said.append(f"its submit got no readable answer: {record.answer_problem}")
        hooks = [reading for reading in self.in_order() if reading.entry.kind == "webhook"]
        if record.webhooks and not hooks:
            said.append("no webhook has come: can its public_url be reached from the internet?")
        elif hooks and hooks[-1].problem:
            said.append(f"its last webhook was not used: {hooks[-1].problem}")
        problem = self.poll_problem if self.polled_at else record.complaint
        if problem is not None:
            said.append(f"its last status call said: {problem}")
        elif self.polled_at:
            said.append(f"its last status call, {max(now - self.polled_at, 0.0):.0f} s ago, told nothing new")
        if record.doubted_at is not None:
            said.append("the provider reported its end, but neither a file nor, again, a failure")
        if not self.provider.info.has_key:
            said.append(f"this client has no key of {record.provider!r} to ask for its status")
        if record.words:
            said.append(f"the provider sent an unknown stage word: {as_data(record.words[-1])}")
        return "; ".join(said)

    def waiter(self) -> asyncio.Future[bool]:
        """Return a future of its own that the next news resolves. The caller passes it to `leave` when done."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[bool]) -> None:
        """Forget a waiter."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def wake(self) -> None:
        """Resolve the futures of all waiters, so that they check the record again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)
