"""The rules of `create` and `append`, shared by the stores that apply them in this process."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import msgspec
from attrs import define, field

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, Entry, Index, holds_request
from audioext.models.limits import Limits
from audioext.stores.base import Appended, Created, Existing, Full, Stored

T = TypeVar("T")


class Head(NamedTuple):
    """The data of a job besides its entries.

    `lookup` is the index accepted last, with the current due times. `is_known` is whether the entries contain the
    request, `held_until` when a claim on its handlers ends, `entries` their number, `size` the bytes of all bodies,
    `repeats` the entries that were only counted, and `changed_at` the time of the latest entry.
    """

    lookup: Index
    is_known: bool = False
    held_until: float = 0.0
    entries: int = 0
    size: int = 0
    repeats: int = 0
    changed_at: float = 0.0

    def stored(self, entries: Iterable[Entry]) -> Stored:
        """Return the job with *entries*, as `Store.read` returns it."""
        return Stored(index=self.lookup, count=self.entries, entries=tuple(entries), repeats=self.repeats)


@define(eq=False, repr=False)
class KnownJob:
    """A job in a store: its head, and its entries by id, in order. SQLite keeps only the ids here.

    `number` is unique in the store; -1 until it is stored. `row` is the head as the file has it.
    """

    head: Head
    number: int = -1
    row: tuple[Any, ...] | None = None
    ids: dict[str, Any] = field(factory=dict)


class Journals(ABC):
    """The journals of a store; a subclass implements how they are kept."""

    def _create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Create a job, unless it exists or its account is full; see `Store.create`."""
        holder = None if index.key is None else self._holder(index.key)
        job = self._job(index.ref) or _orphan(index.ref, index.provider, entry.at)
        head = job.head
        if holder is not None or head.is_known:
            return Existing(holder or index.ref)
        leaving = () if limits.submits is None else self._window_ends(index.account, limits.per, now)
        if limits.submits is not None and len(leaving) >= limits.submits:
            return Full(min(leaving, default=now + limits.per))
        if limits.parallel is not None and self._count_occupying(index.account, now) >= limits.parallel:
            return Full(now + 1.0)
        changed_at = max(head.changed_at, entry.at)
        following, size = head.entries + 1, head.size + len(entry.body)
        self._begin(
            job, head._replace(lookup=index, is_known=True, entries=following, size=size, changed_at=changed_at), entry
        )
        return Created()

    def _append(  # noqa: PLR0913 - the protocol's
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
        """Append to a journal, and accept the index if the writer had seen every entry; see `Store.append`."""
        job = self._job(ref) or _orphan(ref, provider, entries[0].at if entries else 0.0)
        lookup, was_known, held_until, count, size, repeats, changed_at = job.head
        if known > count:
            return Appended(count=count, is_lost=True)
        new: dict[str, Entry] = {}
        repeated: set[str] = set()
        is_full = False
        following = count
        for entry in entries:
            whole, room = size + len(entry.body), entry.room
            if entry.id in job.ids or entry.id in new:
                repeats += room < math.inf
                repeated.add(entry.id)
            elif following >= room * MAX_ENTRIES or whole > room * MAX_JOURNAL_BYTES:
                repeats += 1
                is_full = True
            else:
                new[entry.id] = entry
                following += 1
                size = whole
                changed_at = max(changed_at, entry.at)
        missed = (
            tuple(each for n, each in enumerate(self._entries(job)) if n >= known or each.id in repeated)
            if known < count or repeated
            else ()
        )
        is_known = was_known or holds_request(entries)  # also if it is a repeat: the job's row may be damaged
        is_taken = index is not None and is_known and known == count and not is_full
        if index is not None and (is_taken or is_known != was_known):
            if index.key is not None and index.key != lookup.key and self._holder(index.key) not in {None, ref}:
                index = msgspec.structs.replace(index, key=None)  # another job took the key while it was free
            lookup = index
        if new and is_known and not is_taken:
            poll_at, handle_at = (
                look_at if at is None else min(at, look_at) for at in (lookup.poll_at, lookup.handle_at)
            )
            lookup = msgspec.structs.replace(lookup, poll_at=poll_at, handle_at=handle_at)
        if release and (new or not entries):  # a repeated call must not end a claim that was made since
            held_until = 0.0
        if following:
            self._put(job, Head(lookup, is_known, held_until, following, size, repeats, changed_at), new.values())
        return Appended(count=following, missed=missed, is_taken=is_taken, is_full=is_full)

    @abstractmethod
    def _holder(self, key: str) -> str | None: ...

    @abstractmethod
    def _job(self, ref: str) -> KnownJob | None: ...

    @abstractmethod
    def _entries(self, job: KnownJob) -> Iterable[Entry]: ...

    @abstractmethod
    def _window_ends(self, account: str, per: float, now: float) -> Sequence[float]:
        """Return when each submit in the account's window leaves it; see `Store.create`."""

    @abstractmethod
    def _count_occupying(self, account: str, now: float) -> int: ...

    @abstractmethod
    def _begin(self, job: KnownJob, head: Head, request: Entry) -> None:
        """Store a new job. *request* goes before its orphans, which its creator gets as `missed` at its next append."""

    @abstractmethod
    def _put(self, job: KnownJob, head: Head, new: Iterable[Entry]) -> None:
        """Store the job's new *head*, and append its *new* entries."""


def _orphan(ref: str, provider: str, began: float) -> KnownJob:
    return KnownJob(Head(Index(ref=ref, provider=provider, account="", created_at=began, is_open=False)))


def oldest_beyond(sizes: Iterable[tuple[T, int]], kept: int) -> list[T]:
    """Return the first items of *sizes*, as many as must be deleted so that the rest has at most *kept* bytes."""
    sizes = tuple(sizes)
    excess = sum(size for _, size in sizes) - kept
    # An item must go if deleting all items before it frees too little.
    gone = accumulate((size for _, size in sizes), initial=0)
    return [item for (item, _), before in zip(sizes, gone, strict=False) if before < excess]
