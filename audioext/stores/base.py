"""What every store does: it keeps journals, an index row for each, and a stream of changes; it knows no state rule.

The two ideas: an append cannot conflict, since an entry's id says what it is; and an index row is taken only from a
writer that had seen every entry, so that it can never be wrong for long.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from attrs import field, frozen

from audioext.models.entries import MAX_DELIVERY_BYTES, OTHER_TASK, REFUSED, UNREADABLE, Entry, Index
from audioext.models.limits import Limits

Work = Literal["polls", "handlers"]
"""What is claimed: status calls that are due, and jobs whose handlers may have work."""

Providers = Sequence[str] | None
"""Whose jobs are claimed: only those of these providers, or all."""

LONGEST_HOLD_SECONDS = 86_400.0
"""A claim on handlers that holds a job longer than this, by our clock, was made by one that was ahead."""

DeliveryVerdict = Literal["applied", "orphan", "refused", "unreadable"]
"""What became of a webhook; exact repeats of one are only counted."""


@frozen
class Created:
    """The job is stored, and counts for its account."""


@frozen
class Existing:
    """The key, or the ref itself, has this job already; nothing was stored."""

    ref: str


@frozen
class Full:
    """The account's limits are reached, perhaps until then (Unix seconds); nothing was stored."""

    until: float


@frozen(kw_only=True)
class Appended:
    """What an append did.

    `count` is how many entries the journal holds now. `missed` are entries that the caller had not seen, and those it
    sent that were there before, as they are stored. `is_taken` says whether the index was taken. `is_lost` says that
    the store holds fewer entries than the caller has seen: it lost some, nothing was stored, and all of them are to be
    appended again with `known=0`. `is_full` says that the journal's limit kept an entry out.
    """

    count: int
    missed: tuple[Entry, ...] = ()
    is_taken: bool = False
    is_lost: bool = False
    is_full: bool = False


@frozen(kw_only=True)
class Stored:
    """A job as the store holds it: its index, how many entries it has, and those that were asked for, oldest first.

    `repeats` counts the deliveries that came again, or that the journal's limit kept out.
    """

    index: Index
    count: int
    entries: tuple[Entry, ...]
    repeats: int = 0


@frozen(kw_only=True)
class Delivery:
    """One webhook as it arrived: an entry of kind `webhook`, with the job that its tag names.

    `id` is unique in its store. `received_at` is Unix seconds. `headers` hold what is needed to verify the body again,
    never a key. `note` says more about the verdict.
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
        """The path under which it arrived, with its tag masked."""
        return f"/{self.provider}/{self.ref}/***"


def to_delivery(ref: str, provider: str, entry: Entry, *, is_orphan: bool) -> Delivery:
    """Return the delivery that *entry* of the journal of *ref* is."""
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


@frozen
class Changed:
    """The journal of `ref` holds `count` entries now."""

    ref: str
    count: int


@frozen
class Resync:
    """The stream of changes had a gap: read the truth of everything that is being awaited."""


RESYNC = Resync()


class Store(Protocol):
    """The journals of all jobs. Every method may raise `StoreError`, and then nothing was half applied.

    A store is opened by its client and closed by it; where several clients of a process share one, each does, and the
    last one closes it for good. Times are Unix seconds and come in as arguments: a store reads no clock. All methods
    are safe under concurrent calls, from any number of clients that share the same engine, and may be called again.
    """

    async def open(self) -> None:
        """Connect and make ready, once for every user; each is matched by one `aclose`.

        Raises:
            StoreError: the engine is not there, or holds what release 0.1 wrote.
        """

    async def aclose(self) -> None:
        """Finish what was accepted, then let go of everything, with the last user; one more is harmless."""

    async def create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Begin a journal with *entry*, unless the index's key or ref exists or its account is full at *now*.

        In one atomic step it looks for the key, then counts. Open jobs of the account: those whose `occupies_until`
        is above *now*. Submits of the window: those answered within `per` seconds of *now* (on either side, since
        clocks differ), and those without an answer that were created within `POST_SECONDS` of *now*. `Full.until` is
        when the first of the submits can leave the window, or one second from *now* where only a job's end helps.
        What a journal without a request holds already comes after *entry*.
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
        """Append to the journal of *ref*, in one atomic step, and take *index* if its writer had seen every entry.

        *known* is how many entries the writer has seen. An entry whose id is there is a repeat: it is not appended
        again (a repeated webhook or status is counted). Entries that the writer had not seen come back as `missed`;
        then, or without an *index*, the old index stays and, if anything was appended, both `poll_at` and `handle_at`
        are moved to *look_at* where they are later or not set, so that somebody folds the journal again. A job that
        the store does not hold gets a journal without a request, which only `read` and `deliveries` show, until its
        request is appended. Webhooks and statuses beyond their part of `MAX_ENTRIES` or `MAX_JOURNAL_BYTES`
        (`Entry.room`) are counted, not kept; an index that rests on them is not taken. Where another job holds its key,
        an index is taken without it. *release* ends a claim on the job's handlers, whether or not the index is taken;
        where all *entries* are repeats it ends none: the call was made before, and a later claim may be somebody's.
        """
        ...

    async def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return the job of *ref* with its entries from the one *after* that many on, or `None`."""
        ...

    async def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of the job that holds *key*, or of the one with *task_id* at *provider*, or `None`."""
        ...

    def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Yield all jobs whose request is known, the oldest first or the newest, only open or closed ones where asked.

        Jobs that come or go meanwhile may or may not be seen; none is seen twice.
        """
        ...

    async def claim(  # noqa: PLR0913 - one atomic step has this many parts
        self, work: Work, *, now: float, until: float, limit: int, providers: Providers = None, latest: float = math.inf
    ) -> tuple[str, ...]:
        """Take up to *limit* jobs whose *work* is due at *now* until *until*, and return their refs.

        The most overdue come first; only jobs of *providers* where given. A claim on polls moves `poll_at` to *until*.
        A claim on handlers leaves `handle_at` as it is and holds the job until *until*, unless it is released: what
        else is appended meanwhile neither ends nor doubles it. What was claimed by somebody who died, or who was
        cancelled, comes again at *until*. What is due later than *latest* is due as well: it was put down by a clock
        that was ahead. A hold counts for `LONGEST_HOLD_SECONDS` more.
        """
        ...

    async def next_due(self, work: Work, *, providers: Providers = None) -> float | None:
        """Return when *work* can be claimed next, `None` if never; only of *providers* where given."""
        ...

    async def reschedule(self, ref: str, work: Work, *, at: float) -> None:
        """Give back what was claimed: it is due at *at*, or sooner where it was due sooner; a hold on it ends.

        What is not due at all any more stays so.
        """

    def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield all webhooks, newest first, of one *ref* where given; those of journals without a request too."""
        ...

    def changes(self) -> AsyncIterator[Changed | Resync]:
        """Yield what every create and append from now on changed, by any process, or `RESYNC` after a gap.

        It ends when the store is closed. Iteration starts listening at its first step: what is stored after an answer
        that this store gave to a later question is yielded, or a `RESYNC` in its place. A store that cannot tell when
        it began to listen yields `RESYNC` first. Only what appends an entry is a change, an index alone is none.
        """
        ...

    async def secret(self, name: str, default: bytes) -> bytes:
        """Store *default* under *name* unless there is a value; return the value that is there now."""
        ...

    async def purge(
        self,
        *,
        before: float,
        deliveries_kept: int,
        delivery_bytes_kept: int = MAX_DELIVERY_BYTES,
        untold_before: float = math.inf,
    ) -> int:
        """Forget the jobs that are not open and whose last entry is older than *before*; return how many went.

        While journals without a request hold more bytes of bodies than *delivery_bytes_kept*, it forgets such ones; and
        while all hold more webhooks than *deliveries_kept*, further jobs that are not open: each time those whose last
        entry is oldest first. A job whose handlers can be claimed, or are held, at *untold_before* or later stays.
        """
        ...

    def watch(self, *, urgent: bool) -> None:
        """Look for other processes' changes as soon as can be while *urgent*, since somebody waits for one."""

    async def warnings(self) -> tuple[str, ...]:
        """Reach the engine, and return what its settings put at risk, a sentence each.

        Raises:
            StoreError: it is not there.
        """
        ...
