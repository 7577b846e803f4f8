"""The `Store` protocol: journals, an index row for each, and a stream of changes, without any state rule.

Two ideas: appends cannot conflict, since an entry's id is a digest of its contents; and an index row is accepted only
from a writer that had seen every entry, so that it is never wrong for long.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from attrs import field, frozen
from msgspec import Struct

from audioext.models.entries import MAX_DELIVERY_BYTES, OTHER_TASK, REFUSED, UNREADABLE, Entry, Index
from audioext.models.limits import Limits

Work = Literal["polls", "handlers"]
"""The kinds of work that are claimed: due status calls, and jobs whose handlers may have work."""

Providers = Sequence[str] | None
"""The providers whose jobs are claimed; `None` means all."""

LONGEST_HOLD_SECONDS = 86_400.0
"""No claim on handlers lasts this long: one that seems to was made by a process whose clock was ahead of ours."""

DeliveryVerdict = Literal["applied", "orphan", "refused", "unreadable"]
"""How a stored webhook ended; exact repeats are only counted."""


@frozen
class Created:
    """The job is stored, and counts towards its account's limits."""


@frozen
class Existing:
    """A job with the same key or ref exists already; nothing was stored."""

    ref: str


@frozen
class Full:
    """The account's limits are reached, and may have room again at `until` (Unix seconds); nothing was stored."""

    until: float


class Appended(Struct, frozen=True, kw_only=True):
    """The outcome of an append.

    `count` is how many entries the journal has now. `missed` are the entries that were stored before the call and that
    the caller had not seen, or has sent again. `is_taken` is whether the index was accepted. `is_lost` means that the
    store has fewer entries than the caller has seen: it lost some, nothing was stored, and the caller must append all
    of them again with `known=0`. `is_full` means that the journal's limit kept an entry out.
    """

    count: int
    missed: tuple[Entry, ...] = ()
    is_taken: bool = False
    is_lost: bool = False
    is_full: bool = False


@frozen(kw_only=True)
class Stored:
    """A stored job: its index, how many entries it has, and the entries that were requested, in journal order.

    `repeats` counts the webhooks and statuses that came again, or that the journal's limit kept out.
    """

    index: Index
    count: int
    entries: tuple[Entry, ...]
    repeats: int = 0


@frozen(kw_only=True)
class Delivery:
    """One webhook as it arrived: an entry of kind `webhook`, with the job that its tag names.

    `id` is unique in its store. `received_at` is in Unix seconds. `headers` are those needed to verify the body again,
    never a key. `note` explains the verdict.
    """

    id: str
    ref: str
    provider: str
    received_at: float
    verdict: DeliveryVerdict
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=False)
    note: str = ""

    @property
    def path(self) -> str:
        """The path of its URL, with the tag masked."""
        return f"/{self.provider}/{self.ref}/***"


def to_delivery(ref: str, provider: str, entry: Entry, *, is_orphan: bool) -> Delivery:
    """Return *entry* of the journal of *ref* as a delivery."""
    verdict: DeliveryVerdict = "orphan" if is_orphan else "applied"
    if entry.note.startswith(UNREADABLE):
        verdict = "unreadable"
    elif entry.note.startswith((REFUSED, OTHER_TASK)):
        verdict = "refused"
    return Delivery(
        id=f"{ref}-{entry.id}",
        ref=ref,
        provider=provider,
        received_at=entry.at,
        verdict=verdict,
        headers=entry.headers,
        body=entry.body,
        note=entry.note,
    )


class Changed(Struct, frozen=True, gc=False):
    """The journal of `ref` has `count` entries now."""

    ref: str
    count: int


@frozen
class Resync:
    """The stream of changes had a gap: read all awaited jobs again."""


RESYNC = Resync()


class Store(Protocol):
    """The journals of all jobs. Every method may raise `StoreError`, and then nothing was applied in part.

    Each client opens and closes its store. Clients in one process can share a store: each opens and closes it, and the
    last one to leave really closes it. Times are Unix seconds and come in as arguments: a store reads no clock. All
    methods are safe to call concurrently, from any number of clients on the same engine, and safe to repeat. In a clone
    the tests of this protocol run against any store: see *How to add a store* in CONTRIBUTING.md.
    """

    async def open(self) -> None:
        """Connect and get ready. Each user calls it once, and `aclose` once to match.

        Raises:
            StoreError: the engine cannot be reached, or has data of release 0.1.
        """

    async def aclose(self) -> None:
        """Finish accepted work and release everything when the last user leaves; an extra call does nothing."""

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Create a job with *entry*, unless the index's key or ref exists or its account is full at *now*.

        In one atomic step it looks for the key, then counts the account's open jobs and recent submits. A job is open
        while its `occupies_until` is above *now*. A submit counts if it was answered within `per` seconds of *now* (on
        either side, since clocks differ), or if it has no answer and was created within `POST_SECONDS` of *now*.
        `Full.until` is when the first submit can leave the window, or one second from *now* if only the end of a job
        makes room. *entry* goes before any orphans that the journal has already.
        """
        ...

    async def append(  # noqa: PLR0913 - one atomic step has this many parts
        self,
        ref: str,
        entries: Sequence[Entry],
        *,
        provider: str,
        index: Index | None = None,
        known: int = 0,
        look_at: float = 0.0,
        release: bool = False,
    ) -> Appended:
        """Append to the journal of *ref*, in one atomic step, and accept *index* if its writer had seen every entry.

        *known* is how many entries the writer has seen. An entry whose id exists is a repeat: it is not appended again
        (a repeated webhook or status is counted). Entries that the writer had not seen come back as `missed`. In that
        case, or without an *index*, the old index stays. If anything was appended, its `poll_at` and `handle_at` then
        move to *look_at* unless they are earlier, so that a process folds the journal again. An unknown *ref* gets a
        journal without a request, which only `read` and `deliveries` show until its request is appended. Webhooks and
        statuses beyond their part of `MAX_ENTRIES` or `MAX_JOURNAL_BYTES` (`Entry.room`) are counted but not kept, and
        an index that includes them is not accepted. If another job has the index's key, it is accepted without the key.
        *release* ends a claim on the job's handlers, whether or not the index is accepted. If all *entries* are repeats
        it ends none: the call is itself a repeat, and the claim may be another process's.
        """
        ...

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return the job of *ref* without its first *after* entries, or `None` if there is no such job."""
        ...

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of the job that has *key*, or of the newest with *task_id* at *provider*, or `None`."""
        ...

    def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Yield all jobs whose request is known, oldest or newest first; *is_open* selects open or closed ones.

        Jobs that are created or purged meanwhile may or may not be seen; none is seen twice.
        """
        ...

    async def claim(  # noqa: PLR0913 - one atomic step has this many parts
        self, work: Work, *, now: float, until: float, limit: int, providers: Providers = None, latest: float = math.inf
    ) -> tuple[str, ...]:
        """Claim up to *limit* jobs whose *work* is due at *now*, until *until*, and return their refs.

        The most overdue come first; *providers* restricts them. A claim on polls moves `poll_at` to *until*. A claim on
        handlers moves `handle_at` only if it is later than *now*, to *now*, and holds the job until *until*, unless it
        is released earlier: other appends neither end nor double it. If the claiming process dies or is cancelled, the
        job is due again at *until*. Work due later than *latest* is claimed as well, since it was scheduled by a clock
        that was ahead. A hold is ignored for the same reason if it ends more than `LONGEST_HOLD_SECONDS` after
        *latest*.
        """
        ...

    async def next_due(self, work: Work, *, providers: Providers = None) -> float | None:
        """Return when *work* can be claimed next, or `None` if none is scheduled; *providers* restricts it."""
        ...

    def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield all webhooks, orphans included, newest first; *ref* restricts them to one job."""
        ...

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield a change for every create and append from now on, by any process, or `RESYNC` after a gap.

        It ends when the store is closed. Listening starts at the first step: once a later call to this store has been
        answered, every further change is yielded, or a `RESYNC` in its place. A store that cannot tell when it began to
        listen yields `RESYNC` first. Only a new entry is a change; a new index alone is not.
        """
        ...

    async def secret(self, name: str, default: bytes) -> bytes:
        """Return the value stored under *name*, storing *default* first if there is none."""
        ...

    async def purge(
        self,
        *,
        before: float,
        deliveries_kept: int,
        delivery_bytes_kept: int = MAX_DELIVERY_BYTES,
        untold_before: float = math.inf,
    ) -> int:
        """Delete the closed jobs whose last entry is older than *before*, and return how many were deleted.

        It also deletes orphans until the bodies of the rest have at most *delivery_bytes_kept* bytes, and more closed
        jobs until at most *deliveries_kept* webhooks are left. The jobs whose last entry is oldest go first. A job
        stays if its handlers become due, or a hold on them ends, at *untold_before* or later; orphans never stay.
        """
        ...

    async def warnings(self) -> tuple[str, ...]:
        """Contact the engine, and return a sentence for each risk in its settings.

        Raises:
            StoreError: it cannot be reached.
        """
        ...
