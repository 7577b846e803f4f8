"""Reads what lies in all partitions as one sequence."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

PAGE = 100
"""Items that one question asks of one partition."""


async def merged(streams: Sequence[AsyncGenerator[tuple[Any, T]]]) -> AsyncGenerator[T]:
    """Yield what all streams yield, in the order of the first part of each pair; each stream is in that order."""
    try:
        firsts = await asyncio.gather(*(anext(stream, None) for stream in streams))
        heap = [(first[0], number, first[1]) for number, first in enumerate(firsts) if first is not None]
        heapq.heapify(heap)
        while heap:
            _, number, item = heap[0]
            yield item
            following = await anext(streams[number], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following[0], number, following[1]))
    finally:
        for stream in streams:
            await stream.aclose()


def pairs(answer: Sequence[bytes]) -> list[tuple[bytes, float]]:
    """Return the members of a sorted set with their scores."""
    return [(answer[at], float(answer[at + 1])) for at in range(0, len(answer), 2)]


def time_word(at: float | None) -> str:
    """Return a time as scripts take it: the empty text is none."""
    return "" if at is None else repr(at)
