"""What the memory store holds of each ref, and who is due next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from attrs import define, field

from audioext.stores.base import Kind, Lease, Versioned

_SMALL_HEAP = 64  # below this many entries a heap is not worth tidying


@define(eq=False, repr=False)
class Work:
    """Something that can be leased: a status call, or an entry of the outbox."""

    topic: str
    sequence: int
    due_at: float = 0.0
    attempts: int = 0


@define(eq=False, repr=False)
class Row:
    """All that is held of one ref; `held` are its leases, at most one of each kind."""

    number: int
    stored: Versioned
    key: str | None
    is_open: bool = True
    poll: Work | None = None
    outbox: dict[str, Work] = field(factory=dict)
    told: set[str] = field(factory=set)
    held: dict[Kind, Lease] = field(factory=dict)

    def turn(self, kind: Kind) -> Work | None:
        """Return the one piece of work that may be claimed next."""
        if kind == "poll":
            return self.poll
        return min(self.outbox.values(), key=lambda work: (work.sequence, work.topic), default=None)

    def due_at(self, kind: Kind) -> float | None:
        """Return when that work can be claimed: when it is due, or when the lease of this kind runs out."""
        if kind in self.held:
            return self.held[kind].until
        work = self.turn(kind)
        return None if work is None else work.due_at


_Due = tuple[float, int, str]
"""When, a number that keeps the order of equal times, and whose ref."""


@define(eq=False, repr=False)
class Agenda:
    """Refs by the time when they are due, for each provider; a heap may hold entries that are current no more."""

    _current: dict[str, _Due] = field(factory=dict, init=False)
    _heaps: dict[str, list[_Due]] = field(factory=dict, init=False)
    _count: itertools.count[int] = field(factory=itertools.count, init=False)

    def put(self, ref: str, provider: str, due_at: float | None) -> None:
        """Let *ref* be due then, and not as it was before; `None` takes it out."""
        if due_at is None:
            self._current.pop(ref, None)
            return
        if ref in self._current and self._current[ref][0] == due_at:
            return  # it keeps its place among equals
        due = (due_at, next(self._count), ref)
        self._current[ref] = due
        heap = self._heaps.setdefault(provider, [])
        heapq.heappush(heap, due)
        if len(heap) > max(_SMALL_HEAP, 2 * len(self._current)):
            heap[:] = [entry for entry in heap if self._current.get(entry[2]) is entry]
            heapq.heapify(heap)

    def earliest(self, providers: Iterable[str] | None) -> _Due | None:
        """Return what is due first."""
        chosen = self._heaps if providers is None else self._heaps.keys() & set(providers)
        tops = (self._top(self._heaps[provider]) for provider in chosen)
        return min((top for top in tops if top is not None), default=None)

    def _top(self, heap: list[_Due]) -> _Due | None:
        while heap and self._current.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        return heap[0] if heap else None
