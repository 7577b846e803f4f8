"""Faults at the worst moment: claims that outlast the slowest work, invalid waits, and stores that lost data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from audioext.errors import RequestError
from audioext.models.results import Stage
from audioext.runtime.changes import Changes
from audioext.runtime.handlers import CLEAN_UP_SECONDS, Handlers
from audioext.runtime.jobs import StageEvent
from audioext.stores import MemoryStore
from tests.support import tape
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import Process, loop_time, stored, truth

NOW = BEGIN_SECONDS
TIMEOUT_SECONDS = 10.0
TEXT = tape.webhook(NOW + 1, tape.shown(Stage.TEXT))


def make(process: Process) -> Handlers:
    """Return the handlers of *process*."""
    return Handlers(
        journal=process.journal,
        timeout=TIMEOUT_SECONDS,
        concurrency=4,
        job=process.handle,
    )


async def test_a_claim_outlasts_handlers_that_all_run_out_of_time(here: Process, there: Process) -> None:
    """While several slow handlers run here, no other process calls any of them."""
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
            worker.on(Stage.TEXT)(stubborn(name))
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    for worker in workers:
        worker.start()
    await asyncio.sleep((TIMEOUT_SECONDS + CLEAN_UP_SECONDS) * len(names) - 1.0)
    called = tuple(calls)
    for worker in workers:
        await worker.aclose(drain=0.0)

    assert tuple(names) == called


async def test_a_lost_job_is_given_back_beside_its_new_webhooks(here: Process, there: Process) -> None:
    """A store that lost a job gets its request back, even if as many webhooks as it had entries came since."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW)])
    here.line.store = there.line.store = empty = MemoryStore()
    await there.receive(TEXT)
    await there.receive(tape.webhook(NOW + 2, tape.shown(Stage.FIRST, tape.track("one"))))
    changes = Changes(journal=here.journal, on_change=lambda: None, on_resync=_nothing)
    changes.start()
    await asyncio.sleep(1)
    await changes.aclose()

    assert (Stage.FIRST, 4) == (held.record.stage, held.count)
    assert held.record == await truth(empty)
    assert tape.TASK == (await stored(empty)).index.task_id


async def test_the_end_of_a_job_that_is_seen_in_a_list_is_announced(here: Process, there: Process) -> None:
    """A job whose end is first seen in a list of jobs is announced as ended."""
    await here.submit()
    held = await there.hold()
    await there.journal.append(held, [tape.answer(NOW), tape.webhook(NOW + 1, tape.failed())])
    async for found in here.line.jobs():
        here.journal.load(found)

    assert [tape.REF] == here.ended


@pytest.mark.parametrize("seconds", [-1.0, 0.0])
async def test_a_wait_without_time_ends_at_once(here: Process, seconds: float) -> None:
    """A timeout of zero or less is refused with `RequestError`, and nothing is waited for."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW)])

    with pytest.raises(RequestError, match="timeout"):
        await here.handle(held).wait(timeout=seconds)
    assert NOW == loop_time()


async def _nothing() -> None:
    """Do nothing."""
