"""One private wait for news of a job: woken by what this process hears, and looking at the truth now and then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from audioext.errors import StoreError
from audioext.runtime.held import HeldJob, JobContext

_T = TypeVar("_T")

LOOK_SECONDS = 60.0
"""How long a wait relies on being woken before it reads the truth itself."""


async def until(held: HeldJob, context: JobContext, outcome: Callable[[], _T | None], deadline: float) -> _T | None:
    """Return what *outcome* does as soon as that is something, and let through what it raises.

    `None` is returned at *deadline* (of the monotonic clock), or when the outcome of the submit counts as unknown.
    """
    clock = context.clock
    waiter = held.waiter()  # before the read: news in between is not missed
    context.watch(1)
    try:
        await _look(held, context)
        is_last = False
        while True:
            found = outcome()
            if found is not None:
                return found
            now = clock.monotonic()
            ends_at = min(deadline, _unknown_at(held, context, now))
            if ends_at <= now and is_last:
                return None
            if ends_at > now and await clock.wait(waiter, min(ends_at - now, LOOK_SECONDS)):
                waiter = held.waiter()
                continue
            # Nobody spoke: read the truth, now and then and once more before giving up.
            is_last = ends_at <= clock.monotonic()
            held.leave(waiter)
            waiter = held.waiter()
            await _look(held, context)
    finally:
        context.watch(-1)
        held.leave(waiter)


async def _look(held: HeldJob, context: JobContext) -> None:
    """Look at the truth; while the store is down, waits go on with what is known."""
    with suppress(StoreError):  # which was said, once for all who wait
        await context.look(held.ref)


def _unknown_at(held: HeldJob, context: JobContext, now: float) -> float:
    if held.record.task_id is not None or held.posts:
        return float("inf")
    if not held.record.webhooks and held.record.answer_problem is not None:
        return now  # nobody will ever call
    return now + (held.record.unknown_at - context.clock.now())
