"""A single wait on a job: news in this process wakes it, and it reads the store now and then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from audioext.errors import StoreError
from audioext.models.results import Stage
from audioext.runtime.held import HeldJob, JobContext

_T = TypeVar("_T")

LOOK_SECONDS = 60.0
"""How long a wait relies on being woken before it reads the store itself."""


class Awaited(Protocol):
    """What a wait needs from a job's handle."""

    _held: HeldJob
    _context: JobContext

    def _raise_if_over(self) -> None:
        """Raise the error that ends the wait, if the job or the client has ended."""
        ...

    def _given_up(self, stage: Stage, deadline: float) -> Exception:
        """Return the error of a wait that reached its *deadline*, or of a submit that counts as unknown."""
        ...


async def until(job: Awaited, look: Callable[[Stage], _T | None], stage: Stage, deadline: float) -> _T:
    """Wait until `look(stage)` is not `None` and return it; *deadline* is on the monotonic clock."""
    held, context = job._held, job._context  # noqa: SLF001 - the handle is a part of this package
    clock = context.clock
    context.check_loop()
    is_last = False
    context.watch(1)
    try:
        if held.record.is_final:
            await _look(held, context)  # its verdict may have risen since
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
            # No news woke us: read the store, and once more before giving up.
            is_last = ends_at <= clock.monotonic()
            await _look(held, context)
    finally:
        context.watch(-1)


async def _look(held: HeldJob, context: JobContext) -> None:
    """Update the job from the store; while the store is down, the wait goes on with what is known."""
    with suppress(StoreError):  # it is logged, once for all waiters
        await context.look(held.ref)


def _unknown_at(held: HeldJob, context: JobContext, now: float) -> float:
    if held.record.task_id is not None or held.posts:
        return float("inf")
    if not held.record.webhooks and held.record.answer_problem is not None:
        return now  # without a callback URL no webhook can come
    return now + (held.record.unknown_at - context.clock.now())
