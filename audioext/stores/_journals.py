"""The rules of `create` and `append`, said once for every store that holds its journals in this process."""

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
    """What is held of a job beside its entries.

    `lookup` is the index that was taken last, with the due times of now. `is_known` says that the request is among the
    entries, `held_until` when a claim on its handlers ends, `size` how many bytes the bodies have, and `changed_at`
    when the last entry was seen.
    """

    lookup: Index
    is_known: bool = False
    held_until: float = 0.0
    entries: int = 0
    size: int = 0
    repeats: int = 0
    changed_at: float = 0.0

    def stored(self, entries: Iterable[Entry]) -> Stored:
        """Return the job with some of its entries, as the store's users know it."""
        return Stored(index=self.lookup, count=self.entries, entries=tuple(entries), repeats=self.repeats)


@define(eq=False, repr=False)
class KnownJob:
    """A job as a store holds it: its head, and its entries by their ids, in their order; SQLite holds the ids alone.

    `number` is no other job's; below 0 it has none yet. `row` is what the head is in the file.
    """

    head: Head
    number: int = -1
    row: tuple[Any, ...] | None = None
    ids: dict[str, Any] = field(factory=dict)


class Journals(ABC):
    """All journals of a store, wherever a subclass holds them."""

    def _create(self, entry: Entry, index: Index, *, limits: Limits, now: float) -> Created | Existing | Full:
        """Begin a journal, unless the job exists or its account is full; see `Store.create`."""
        holder = None if index.key is None else self._holder(index.key)
        job = self._job(index.ref) or _orphan(index.ref, index.provider, entry.at)
        head = job.head
        if holder is not None or head.is_known:
            return Existing(holder or index.ref)
        leaving = () if limits.submits is None else self._leaving(index.account, limits.per, now)
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
        """Append to a journal, and take the index of a writer that had seen all of it; see `Store.append`."""
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
        is_known = was_known or holds_request(entries)  # also where it is a repeat: a damaged row may deny it
        is_taken = index is not None and is_known and known == count and not is_full
        if index is not None and (is_taken or is_known != was_known):
            if index.key is not None and index.key != lookup.key and self._holder(index.key) not in {None, ref}:
                index = msgspec.structs.replace(index, key=None)  # another job took it while it was free
            lookup = index
        if new and is_known and not is_taken:
            poll_at, handle_at = (
                look_at if at is None else min(at, look_at) for at in (lookup.poll_at, lookup.handle_at)
            )
            lookup = msgspec.structs.replace(lookup, poll_at=poll_at, handle_at=handle_at)
        if release and (new or not entries):  # a repeat was done before: a later claim is not its own
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
    def _leaving(self, account: str, per: float, now: float) -> Sequence[float]:
        """Return when each submit of an account's window leaves it; see `Store.create`."""

    @abstractmethod
    def _count_occupying(self, account: str, now: float) -> int: ...

    @abstractmethod
    def _begin(self, job: KnownJob, head: Head, request: Entry) -> None:
        """Hold a new job: *request* comes before its orphans, which its creator is handed with the next append."""

    @abstractmethod
    def _put(self, job: KnownJob, head: Head, new: Iterable[Entry]) -> None:
        """Hold a job as it is now, with the entries that are *new* at the end of its journal."""


def _orphan(ref: str, provider: str, began: float) -> KnownJob:
    return KnownJob(Head(Index(ref=ref, provider=provider, account="", created_at=began, is_open=False)))


def oldest_beyond(sizes: Iterable[tuple[T, int]], kept: int) -> list[T]:
    """Return the first of those with *sizes*, as many as have to go until the others have *kept* at most."""
    sizes = tuple(sizes)
    excess = sum(size for _, size in sizes) - kept
    # Each goes as long as those before it do not suffice.
    gone = accumulate((size for _, size in sizes), initial=0)
    return [item for (item, _), before in zip(sizes, gone, strict=False) if before < excess]


def sooner(due: float | None, at: float) -> float | None:
    """Return the earlier time; what is never due stays so."""
    return None if due is None else min(due, at)
