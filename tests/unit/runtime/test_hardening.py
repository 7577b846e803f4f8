"""Faults at the worst moment: claims that outlast the slowest work, waits without a number, stores that lost a part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from audioext.models.results import Stage, StageEvent
from audioext.runtime.handlers import CLEAN_UP_SECONDS, Handlers
from tests.support import tape
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import Process

NOW = BEGIN_SECONDS
TIMEOUT_SECONDS = 10.0
TEXT = tape.webhook(NOW + 1, tape.shown(Stage.TEXT))


def make(process: Process) -> Handlers:
    """Return the handlers of *process*."""
    return Handlers(
        store=process.line, journal=process.journal, clock=process.clock, timeout=TIMEOUT_SECONDS, concurrency=4
    )


async def test_a_claim_outlasts_handlers_that_all_run_out_of_time(here: Process, there: Process) -> None:
    """However long each of several handlers takes to end, no other process calls one while they are called here."""
    calls: list[str] = []

    def stubborn(name: str) -> Callable[[StageEvent], Awaitable[None]]:
        async def handler(event: StageEvent) -> None:
            calls.append(name)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(2 * TIMEOUT_SECONDS)
            await asyncio.sleep(CLEAN_UP_SECONDS)

        handler.__qualname__ = name
        return handler

    workers = [make(here), make(there)]
    names = [f"handler-{number}" for number in range(5)]
    for worker in workers:
        for name in names:
            worker.on(Stage.TEXT, stubborn(name))
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    for worker in workers:
        worker.start()
    await asyncio.sleep((TIMEOUT_SECONDS + CLEAN_UP_SECONDS) * len(names) - 1.0)
    called = tuple(calls)
    for worker in workers:
        await worker.aclose(drain=0.0)

    assert tuple(names) == called
