"""Following other processes: their appends are noticed, and reads that failed are repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import make_entry
from audioext.models.record import Verdict
from audioext.models.results import Stage
from audioext.runtime.changes import STORE_DOWN_SECONDS, Changes
from audioext.stores import MemoryStore
from audioext.stores.base import Store
from tests.support import tape
from tests.support.lines import Side, fail_at
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import Process, stored
from tests.support.tape import REF

NOW = BEGIN_SECONDS
TEXT = tape.webhook(NOW + 1, tape.shown(Stage.TEXT))
DONE = tape.webhook(NOW + 3, tape.shown(Stage.COMPLETE, tape.track("one"), tape.track("two")))


@define(eq=False)
class Follower:
    """The changes that a process follows, and what they made it do."""

    changes: Changes = field(init=False)
    news: int = 0
    resyncs: int = 0
    failures: list[StoreError] = field(factory=list)
    """What the next resyncs raise, last first."""

    def note(self) -> None:
        """Count a change."""
        self.news += 1

    async def resync(self) -> None:
        """Count a resync, which may fail."""
        self.resyncs += 1
        if self.failures:
            raise self.failures.pop()


def follow(process: Process) -> Follower:
    """Return a follower of the changes in *process*'s store."""
    found = Follower()
    found.changes = Changes(journal=process.journal, on_change=found.note, on_resync=found.resync)
    return found


@pytest.fixture
async def follower(here: Process, store: MemoryStore) -> AsyncIterator[Follower]:
    """Return a follower for the process `here` that has started to listen."""
    await store.open()
    found = follow(here)
    found.changes.start()
    await settle()
    yield found
    await found.changes.aclose()
    await store.aclose()


async def settle() -> None:
    """Let every woken task run, without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_append_of_another_process_wakes_waiters_here(
    here: Process, there: Process, follower: Follower
) -> None:
    """A wait ends as soon as another process appends its stage, without any time passing."""
    job = here.handle(await here.submit())
    wait = asyncio.create_task(job.wait())
    await settle()
    await there.receive(DONE)
    await settle()

    assert (True, NOW) == (wait.done(), asyncio.get_running_loop().time())
    assert Stage.COMPLETE is (await wait).stage
    assert [REF] == here.ended


async def test_every_change_is_announced_to_the_workers(there: Process, follower: Follower) -> None:
    """Every change is announced to the workers, since handlers may have work for jobs not held here."""
    before = follower.news
    await there.submit()
    await there.receive(TEXT)
    await settle()

    assert before + 2 <= follower.news


async def test_a_process_does_not_read_its_own_changes(here: Process, follower: Follower) -> None:
    """A process does not read the store for its own changes."""
    held = await here.submit()
    await here.journal.append(held, [TEXT])
    await settle()

    assert "read" not in here.line.calls


async def test_following_starts_with_a_read_of_all_held_jobs(here: Process, there: Process, store: MemoryStore) -> None:
    """Following starts with a read of all held jobs."""
    held = await here.submit()
    await there.receive(DONE)
    await store.open()
    follower = follow(here)
    follower.changes.start()
    await settle()
    await follower.changes.aclose()
    await store.aclose()

    assert (Verdict.COMPLETE, 1) == (held.record.verdict, follower.resyncs)


async def test_a_change_whose_read_failed_is_read_again(
    here: Process, there: Process, follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """A change whose read failed is read again as soon as the store is back."""
    held = await here.submit()
    here.line.on_call = fail_at(*range(6), calls=["read"])
    await there.receive(DONE)
    await settle()
    assert not held.record.is_final
    await asyncio.sleep(10 * STORE_DOWN_SECONDS)

    assert Verdict.COMPLETE is held.record.verdict
    assert 1 == sum(
        "could not be read, and waits go on, trying again" in each.getMessage()
        for each in caplog.records
        if each.levelno >= logging.WARNING
    )
    assert "recovered after" in caplog.text


async def test_other_changes_are_read_after_one_that_failed(here: Process, there: Process, follower: Follower) -> None:
    """Changes that arrive while another one is retried are read afterwards."""
    jobs = [await here.submit(ref) for ref in ("one", "two", "three")]
    here.line.on_call = fail_at(0, 1, calls=["read"])
    for held in jobs:
        await there.receive(tape.webhook(NOW, tape.shown(Stage.TEXT, task_id=held.ref)), held.ref)
    await asyncio.sleep(10)

    assert [Stage.TEXT] * 3 == [held.record.stage for held in jobs]


async def test_a_stream_that_breaks_begins_again(here: Process, there: Process, follower: Follower) -> None:
    """A broken stream of changes is reopened, and changes from the gap are read then."""
    held = await here.submit()
    await settle()
    here.line.on_call = fail_at(0, calls=["changes"])
    await there.receive(TEXT)
    await settle()
    assert (None, 1) == (held.record.stage, follower.resyncs)
    await asyncio.sleep(2 * STORE_DOWN_SECONDS)
    assert (Stage.TEXT, 2) == (held.record.stage, follower.resyncs)
    await there.receive(DONE)
    await settle()

    assert Stage.COMPLETE is held.record.stage


async def test_after_a_gap_every_held_job_is_read(here: Process, there: Process, store: MemoryStore) -> None:
    """A listener that fell behind reads every held job again, and resyncs once more."""
    await store.open()
    follower = follow(here)
    gate = asyncio.Event()

    async def watch(name: str, side: Side) -> None:
        if (name, side) == ("changes", "after"):
            await gate.wait()

    here.line.on_call = watch
    follower.changes.start()
    await settle()
    held = await here.submit()
    await there.receive(DONE)
    await fall_behind(store)
    gate.set()
    await settle()
    await follower.changes.aclose()
    await store.aclose()

    assert (Verdict.COMPLETE, 2) == (held.record.verdict, follower.resyncs)


async def fall_behind(store: Store) -> None:
    """Make more changes than a listener may fall behind by."""
    for number in range(10_001):
        await store.append(f"noise{number}", [make_entry("expired", NOW)], provider="tape")


async def test_a_resync_that_fails_is_tried_again(here: Process, store: MemoryStore) -> None:
    """A resync that fails is repeated until it succeeds."""
    await store.open()
    follower = follow(here)
    follower.failures = [StoreError("away"), StoreError("away")]
    follower.changes.start()
    await asyncio.sleep(10)
    await follower.changes.aclose()
    await store.aclose()

    assert 3 == follower.resyncs


async def test_a_resync_retries_unstored_answers(here: Process, store: MemoryStore) -> None:
    """An answer that could not be stored is retried as soon as the stream of changes is back."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    await asyncio.sleep(60)
    await store.open()
    store.fail(None)
    follower = follow(here)
    follower.changes.start()
    await settle()
    await follower.changes.aclose()
    await here.journal.aclose()
    await store.aclose()

    assert 2 == (await stored(store)).count


@pytest.mark.parametrize("is_late", [False, True])
async def test_following_ends_with_the_store(here: Process, there: Process, store: MemoryStore, is_late: bool) -> None:
    """Closing the store ends the stream of changes, with or without changes, and closing twice is harmless."""
    await store.open()
    follower = follow(here)
    follower.changes.start()
    await settle()
    if is_late:
        await there.submit()
        await settle()
    await store.aclose()
    await settle()

    assert not [task for task in asyncio.all_tasks() if task.get_name() == "audioext changes"]
    await follower.changes.aclose()
    await follower.changes.aclose()
