"""The rules of an append, which every store in this process keeps: a function of what is held and what is sent."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

import attrs

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, Entry, Index, holds_request
from audioext.stores.base import Appended, Stored


class Head(NamedTuple):
    """What is held of a job beside its entries.

    `lookup` is the index that was taken last; its due times are those beside it. `is_known` says that the request is
    among the entries, `held_until` when a claim on its handlers ends, `size` how many bytes the bodies have, and
    `changed_at` when the last entry was seen.
    """

    lookup: Index
    is_known: bool = False
    poll_at: float | None = None
    handle_at: float | None = None
    held_until: float = 0.0
    entries: int = 0
    size: int = 0
    repeats: int = 0
    changed_at: float = 0.0

    def stored(self, entries: Iterable[Entry]) -> Stored:
        """Return the job with some of its entries, as the store's users know it."""
        index = self.lookup
        if index.poll_at != self.poll_at or index.handle_at != self.handle_at:
            index = attrs.evolve(index, poll_at=self.poll_at, handle_at=self.handle_at)
        return Stored(index=index, count=self.entries, entries=tuple(entries), repeats=self.repeats)


def orphan(ref: str, provider: str, entries: Sequence[Entry]) -> Head:
    """Return the head of a journal that holds nothing yet, and is about to hold *entries*."""
    at = entries[0].at if entries else 0.0
    return Head(Index(ref=ref, provider=provider, account="", created_at=at, is_open=False))


def begin(held: Head, entry: Entry, index: Index) -> Head:
    """Return the head of a job that is created with the request *entry*; orphans may be *held* of it."""
    return Head(
        *(index, True, index.poll_at, index.handle_at, held.held_until),
        *(held.entries + 1, held.size + len(entry.body), held.repeats, max(held.changed_at, entry.at)),
    )


def apply(  # noqa: PLR0913 - those of an append, and what the store knows
    head: Head,
    ids: Container[str],
    entries: Sequence[Entry],
    *,
    index: Index | None,
    known: int,
    look_at: float,
    release: bool,
    journal: Callable[[], Iterable[Entry]],
    holder: Callable[[str], str | None],
) -> tuple[Appended, Head, Sequence[Entry]]:
    """Return what an append answers, the head as it is then, and the entries that are to be added; see `Store.append`.

    *ids* are those of the entries that *journal* returns. *holder* returns the job that holds a key.
    """
    lookup, was_known, poll_at, handle_at, held_until, count, size, repeats, changed_at = head
    if known > count:
        return Appended(count=count, is_lost=True), head, ()
    new: dict[str, Entry] = {}
    repeated: set[str] = set()
    is_full = False
    following = count
    for entry in entries:
        if entry.id in ids or entry.id in new:
            repeats += entry.is_bounded
            repeated.add(entry.id)
        elif entry.is_bounded and (following >= MAX_ENTRIES or size + len(entry.body) > MAX_JOURNAL_BYTES):
            repeats += 1
            is_full = True
        else:
            new[entry.id] = entry
            following += 1
            size += len(entry.body)
            changed_at = max(changed_at, entry.at)
    missed: tuple[Entry, ...] = ()
    if known < count or repeated:
        missed = tuple(each for n, each in enumerate(journal()) if n >= known or each.id in repeated)
    is_known = was_known or holds_request(new.values())
    is_taken = index is not None and is_known and known == count and not is_full
    if index is not None and (is_taken or is_known != was_known):
        poll_at, handle_at = index.poll_at, index.handle_at
        if index.key is not None and index.key != lookup.key and holder(index.key) not in {None, index.ref}:
            index = attrs.evolve(index, key=None)  # another job took it while it was free
        lookup = index
    if new and is_known and not is_taken:
        poll_at = look_at if poll_at is None else min(poll_at, look_at)
        handle_at = look_at if handle_at is None else min(handle_at, look_at)
    if release and (new or not entries):  # a repeat was done before: a later claim is not its own
        held_until = 0.0
    head = Head(lookup, is_known, poll_at, handle_at, held_until, following, size, repeats, changed_at)
    return Appended(count=following, missed=missed, is_taken=is_taken, is_full=is_full), head, tuple(new.values())
