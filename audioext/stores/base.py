"""What every store does: versioned records, outbox, journal, leases, names and a stream of changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from attrs import field, frozen

from audioext.models.record import Record

Kind = Literal["poll", "outbox"]
"""The two queues that are claimed: status calls that are due, and stages that handlers were not told of."""

VerdictWord = Literal["applied", "repeat", "late", "orphan", "refused", "unreadable"]
"""What became of a delivery."""


@frozen(kw_only=True)
class Versioned:
    """A record as the store holds it, with the version that a commit must name."""

    record: Record
    version: int


@frozen(kw_only=True)
class Created:
    """The outcome of `create`: the record in the store, and whether it was there before."""

    stored: Versioned
    existing: bool


@frozen(kw_only=True)
class Done:
    """The commit is durable under the engine's stated policy; `version` is the record's new one."""

    version: int


@frozen(kw_only=True)
class Conflict:
    """Somebody else committed first; `current` is what the store holds now, `None` if the record is gone."""

    current: Versioned | None


@frozen(kw_only=True)
class OutboxEntry:
    """A thing to tell handlers about *ref*, in the order of `sequence`; `topic` is theirs to read."""

    topic: str
    sequence: int


@frozen(kw_only=True)
class Delivery:
    """One webhook as it arrived, with the verdict on it.

    `id` is unique and sorts by time. `path` has its tag masked; `headers` hold what is needed to verify the
    body again, never a key. `received_at` is Unix seconds. `note` says more about the verdict.
    """

    id: str
    ref: str
    provider: str
    received_at: float
    verdict: VerdictWord
    path: str = ""
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=False)
    note: str = ""


@frozen(kw_only=True)
class Lease:
    """A claimed piece of work: nobody else gets it until `until` (Unix seconds), unless it is settled.

    `topic` and `sequence` are those of the outbox entry (`"poll"` and 0 for a status call); `attempts` counts
    the claims so far, this one included; `token` tells this lease from a later one of the same work.
    """

    kind: Kind
    ref: str
    topic: str
    sequence: int
    attempts: int
    until: float
    token: str


@frozen
class Resync:
    """The stream of changes had a gap: read the truth of everything that is being awaited."""


RESYNC = Resync()


class Store(Protocol):
    """The truth about all jobs. Every method may raise `StoreError`, and then nothing was half applied.

    A store is opened by its client and closed by it; where several clients of a process share one, each does,
    and the last one closes it for good. Times are Unix seconds and come in as arguments: a store reads no
    clock. All methods are safe under concurrent calls, from any number of clients that share
    the same engine.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes may change it, so that `changes` matters."""
        ...

    async def open(self) -> None:
        """Connect and make ready, once for every user; each is matched by one `aclose`."""
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, then let go of everything, with the last user; one more is harmless."""
        ...

    async def create(self, record: Record, key: str | None = None, *, due_at: float | None = None) -> Created:
        """Store a new record at version 1, open and due for a poll at *due_at*, unless *key* is taken.

        With a *key* that an earlier record has, that record is returned as it is now and nothing is stored.
        A ref that exists already is treated the same way.
        """
        ...

    async def commit(  # noqa: PLR0913 - one atomic step has this many parts
        self,
        record: Record,
        expected_version: int,
        *,
        is_open: bool,
        due_at: float | None,
        outbox: Sequence[OutboxEntry] = (),
        delivery: Delivery | None = None,
    ) -> Done | Conflict:
        """Replace the record, append to the outbox and the journal, in one atomic step.

        On a conflict nothing at all is stored. *due_at* replaces the time of the next poll and ends a lease
        on it, whose attempts are counted anew; `None` takes the record out of the polls, as not *is_open*
        does. (ref, topic) is unique in the outbox: an entry that exists, or that was settled already, is not
        appended again. task ids become findable.
        """
        ...

    async def discard(self, ref: str, expected_version: int) -> bool:
        """Forget a record, its key and its outbox, because its task certainly never came to be.

        Returns whether it was still at *expected_version*; if not, nothing is changed.
        """
        ...

    async def get(self, ref: str) -> Versioned | None:
        """Return the record of *ref*, or `None`."""
        ...

    async def find_key(self, key: str) -> Versioned | None:
        """Return the record that was created with *key*, or `None`."""
        ...

    async def find(self, provider: str, task_id: str) -> Versioned | None:
        """Return the record whose `task_id` is *task_id* at *provider*, or `None`."""
        ...

    def scan(self, *, is_open: bool | None = None) -> AsyncIterator[Versioned]:
        """Yield all records in the order of their creation, only open or only closed ones where asked.

        Records that come or go during the scan may or may not be seen; none is seen twice.
        """
        ...

    async def claim(
        self, kind: Kind, *, now: float, lease: float, limit: int, providers: Sequence[str] | None = None
    ) -> tuple[Lease, ...]:
        """Take up to *limit* pieces of work that are due, each for *lease* seconds, the most overdue first.

        Only work of *providers* where given. `poll`: open records whose due time has come. `outbox`: entries
        whose turn it is, due from the start: of each ref only the one with the lowest sequence that is not
        settled, and one at a time. A lease that ran out is claimed again, with one more attempt. A claim
        whose caller is cancelled holds nothing.
        """
        ...

    async def settle(self, lease: Lease, *, due_at: float | None) -> bool:
        """End a lease: `None` for done (an outbox entry is gone for good, a poll is off), else due again then.

        Returns whether the lease was still ours; if not, nothing is changed.
        """
        ...

    async def next_due(self, kind: Kind, *, providers: Sequence[str] | None = None) -> float | None:
        """Return when the earliest work of *kind* is due or its lease runs out, `None` if there is none.

        Only work of *providers* counts where given: what a worker may not claim must not wake it.
        """
        ...

    async def journal(self, delivery: Delivery) -> None:
        """Append a delivery that changes no record (orphans, refusals, unreadable bodies)."""
        ...

    def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the journal, newest first, of one *ref* where given."""
        ...

    async def delivery(self, id_: str) -> Delivery | None:
        """Return one delivery of the journal."""
        ...

    async def create_if_absent(self, name: str, value: bytes) -> bytes:
        """Store *value* under *name* unless there is one; return the one that is there now."""
        ...

    async def take_place(self, name: str, holder: str, *, limit: int, now: float, until: float) -> float:
        """Take one of *limit* places under *name*, for *holder*, until it is left or its time is over.

        A holder who has one keeps it, until the new time. Returns 0.0 if the place is taken, else when the first
        of the places is free by itself. Processes whose clocks differ share one engine: what counts is how far
        *until* is from *now*.
        """
        ...

    async def leave_place(self, name: str, holder: str, *, now: float, until: float | None) -> bool:
        """Give a place back: at once, or at *until*; return whether it was held."""
        ...

    async def places(self, name: str) -> tuple[str, ...]:
        """Return who holds places under *name*; the time of some may be over."""
        ...

    async def warnings(self) -> tuple[str, ...]:
        """Reach the engine, and return what its settings put at risk, a sentence each.

        Raises:
            StoreError: it is not there.
        """
        ...

    def changes(self) -> AsyncIterator[str | Resync]:
        """Yield the ref of every create, commit and discard from now on, by any process, or `RESYNC` after a gap.

        It ends when the store is closed. Iteration starts listening at its first step: what is committed after
        an answer that this store gave to a later question is yielded, or a `RESYNC` in its place. A store
        that cannot tell when it began to listen yields `RESYNC` first.
        """
        ...

    async def purge(self, *, created_before: float, deliveries_before: float, deliveries_kept: int) -> int:
        """Forget closed records created before *created_before*, and old or surplus deliveries.

        Their keys, task ids and outbox entries are forgotten with them. *deliveries_kept* bounds the journal's
        length.
        Returns how many records went.
        """
        ...
