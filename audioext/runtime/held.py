"""What this process knows of a job that somebody here holds: its entries, read once, and who waits for news of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from attrs import define, field, frozen

from audioext.clock import Clock
from audioext.errors import UnreadableError
from audioext.http.messages import as_data
from audioext.models.entries import Entry
from audioext.models.record import Record
from audioext.models.results import Files
from audioext.providers.base import Provider
from audioext.state.fold import fold
from audioext.state.reading import Reading, read
from audioext.stores.base import Appended


@define(eq=False, weakref_slot=True)
class HeldJob:
    """One job as this process knows it. The journal alone changes it, and only by what is durable."""

    ref: str
    provider: Provider = field(repr=False)
    readings: dict[str, Reading] = field(factory=dict, repr=False)
    """What was seen, by the entry's id."""
    count: int = 0
    """How many entries the store is known to hold; all of them are among the readings."""
    _waiters: list[asyncio.Future[bool]] = field(factory=list, repr=False)
    polled_at: float = 0.0
    """When this process last asked for its status, in Unix seconds."""
    poll_problem: str | None = None
    """Why that status call told nothing, `None` where it was answered."""
    posts: int = 0
    """How many POSTs of this job are under way in this process, or have an outcome that is not stored yet."""
    is_known: bool = False
    """Whether its request was seen; without one it is an orphan's journal, which has no record."""
    record: Record = field(init=False)
    """What the entries mean together."""

    def read(self, entries: Iterable[Entry]) -> list[Reading]:
        """Return the readings of *entries*, made anew only for those that were not seen, or at another time.

        Raises:
            UnreadableError: the request among them is damaged, or a later release wrote it, and there is no other.
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
        """Return what was seen, oldest first."""
        return sorted(self.readings.values(), key=lambda reading: (reading.entry.at, reading.entry.id))

    def with_readings(self, news: Iterable[Reading]) -> Record | None:
        """Return what the record would be with *news*; nothing is changed."""
        readings = self.readings.copy()
        for reading in news:
            readings.setdefault(reading.entry.id, reading)
        return fold(self.ref, readings.values())

    def go_on(self, news: Iterable[Reading], record: Record, *, count: int) -> None:
        """Take in *news* that the store took and nothing else, so that *record* follows; there are *count* entries."""
        for reading in news:
            self.readings[reading.entry.id] = reading
        self.count, self.record, self.is_known = count, record, True
        if news:
            self.wake()

    def learn(self, news: Iterable[Reading], *, count: int) -> None:
        """Take in what is durable now, of *count* entries in all."""
        changed = False
        for reading in news:
            old = self.readings.get(reading.entry.id)
            if old is None or old.entry.at != reading.entry.at:  # what the store holds is the truth
                self.readings[reading.entry.id] = reading
                changed = True
        self.count = max(count, self.count)
        if changed:
            found = fold(self.ref, self.readings.values())
            if found is not None:
                self.record, self.is_known = found, True
            self.wake()

    def as_stored(self, done: Appended, news: Sequence[Reading]) -> list[Reading]:
        """Return what an append missed, and of *news* what the store took: what it held before keeps its time."""
        missed = self.read(done.missed)
        if done.is_full:
            return missed  # it was counted, and is not part of the journal
        known = {reading.entry.id for reading in missed}
        return [*missed, *(reading for reading in news if reading.entry.id not in known)]

    def last_words(self, now: float) -> str:
        """Return what was heard of the job last, for who waited in vain until *now* (Unix seconds)."""
        record = self.record
        said = ["nothing is known of it yet" if record.stage is None else f"it is at {record.stage.name.lower()}"]
        if record.task_id is None and record.answer_problem is not None:
            said.append(f"its submit got no readable answer: {record.answer_problem}")
        if record.webhooks and not any(reading.entry.kind == "webhook" for reading in self.readings.values()):
            said.append("no webhook has come: can its public_url be reached from the internet?")
        problem = self.poll_problem if self.polled_at else record.complaint
        if problem is not None:
            said.append(f"its last status call said: {problem}")
        elif self.polled_at:
            said.append(f"its last status call, {max(now - self.polled_at, 0.0):.0f} s ago, told nothing new")
        if record.words:
            said.append(f"a word of it is not known: {as_data(record.words[-1])}")
        return "; ".join(said)

    def waiter(self) -> asyncio.Future[bool]:
        """Return a private future that the next news ends; whoever got it gives it back with `leave`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[bool]) -> None:
        """Forget a waiter."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def wake(self) -> None:
        """Let all who wait look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)


@frozen(kw_only=True)
class JobContext:
    """What a job needs of the client that handed it out."""

    look: Callable[[str], Awaitable[None]]
    """Brings a job up to date with the store, or raises `StoreError`."""
    look_soon: Callable[[str], None]
    """Does so in its turn, one job after the other, and says in the log what fails."""
    refresh: Callable[[HeldJob], Awaitable[None]]
    is_closed: Callable[[], bool]
    check_loop: Callable[[], None]
    """Raises `ConfigError` on another loop than the client's: nobody would be woken there."""
    watch: Callable[[int], None]
    """Called with 1 when a wait begins and with -1 when it ends."""
    files: Callable[[HeldJob], Files]
    """Returns what fetches the files of a job."""
    clock: Clock
    wait_timeout: float
