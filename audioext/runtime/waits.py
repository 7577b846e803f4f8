"""One private wait for news of a job: woken by what this process hears, and looking at the truth now and then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from audioext.errors import StoreError
from audioext.models.results import Stage
from audioext.runtime.held import HeldJob, JobContext

_T = TypeVar("_T")

LOOK_SECONDS = 60.0
"""How long a wait relies on being woken before it reads the truth itself."""


class Awaited(Protocol):
    """What a wait needs of the handle of a job."""

    _held: HeldJob
    _context: JobContext

    def _raise_if_over(self) -> None:
        """Raise what ends the wait without its result."""
        ...

    def _given_up(self, stage: Stage, deadline: float) -> Exception:
        """Return the error of a wait that ended without a word."""
        ...


async def until(job: Awaited, look: Callable[[Stage], _T | None], stage: Stage, deadline: float) -> _T:
    """Return what *look* says of *stage* as soon as that is something; *deadline* is of the monotonic clock."""
    held, context = job._held, job._context  # noqa: SLF001 - the handle is a part of this package
    clock = context.clock
    context.check_loop()
    is_last = False
    context.watch(1)
    try:
        if held.record.is_final:
            await _look(held, context)  # it may have risen since
        else:
            context.look_soon(held.ref)
        while True:
            found = look(stage)
            if found is not None:
                return found
            job._raise_if_over()  # noqa: SLF001 - as above
            now = clock.monotonic()
            ends_at = min(deadline, _unknown_at(held, context, now))
            if ends_at <= now and is_last:
                raise job._given_up(stage, deadline)  # noqa: SLF001 - as above
            if ends_at > now:
                waiter = held.waiter()
                timer = clock.end(waiter, min(ends_at - now, LOOK_SECONDS))
                try:
                    is_news = await waiter
                finally:
                    timer.cancel()
                    held.leave(waiter)
                if is_news:
                    continue
            # Nobody spoke: read the truth, now and then and once more before giving up.
            is_last = ends_at <= clock.monotonic()
            await _look(held, context)
    finally:
        context.watch(-1)


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
