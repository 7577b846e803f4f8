"""The single writer: entries are stored before anyone is notified, and two processes always converge."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator

import msgspec
import pytest

from audioext.errors import ConfigError, StoreError, WebhookError
from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, OTHER_TASK, Index, make_entry
from audioext.models.record import Record, Verdict
from audioext.models.results import Stage
from audioext.runtime.journal import RECENT_JOBS, SECOND_LOOK_SECONDS
from audioext.runtime.unstored import FIRST_PAUSE_SECONDS
from audioext.state import schedule
from audioext.stores import MemoryStore
from audioext.stores.base import Work
from tests.support import tape
from tests.support.lines import Line, Side, die_at, fail_at, let_pass
from tests.support.loops import BEGIN_SECONDS
from tests.support.processes import EXPIRE_SECONDS, Process, begun, loop_time, start, stored, truth
from tests.support.tape import REF, TAPE, TASK

NOW = BEGIN_SECONDS
TEXT = tape.webhook(NOW + 1, tape.shown(Stage.TEXT))
FIRST = tape.webhook(NOW + 2, tape.shown(Stage.FIRST, tape.track("one")))
DONE = tape.webhook(NOW + 3, tape.shown(Stage.COMPLETE, tape.track("one"), tape.track("two")))


def row(record: Record, index: Index) -> Index:
    """Return the index row that follows from *record*, with the times of *index* that depend on when it was made."""
    right = schedule.index_of(record, now=float("inf"), poll_at=index.poll_at, expire_after=EXPIRE_SECONDS)
    return msgspec.structs.replace(right, handle_at=None if right.handle_at is None else index.handle_at)


async def index_is_right(store: MemoryStore, ref: str = REF) -> bool:
    """Return whether the index row of a job follows from its journal."""
    index = (await stored(store, ref)).index
    return row(await truth(store, ref), index) == index


# --- one process --------------------------------------------------------------------------------------------


async def test_an_append_stores_entries_and_index_row(store: MemoryStore, here: Process) -> None:
    """After an append the store holds the entries and the index row that follows, and the job is up to date."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])

    found = await stored(store)
    assert (3, 3) == (found.count, held.count)
    assert (TASK, NOW) == (found.index.task_id, found.index.handle_at)
    assert await index_is_right(store)
    assert await truth(store) == held.record


async def test_a_waiter_wakes_after_the_entry_is_stored(store: MemoryStore, here: Process) -> None:
    """A waiter wakes only after the entry is stored."""
    held = await here.submit()
    waiter = held.waiter()
    seen: list[tuple[Side, int, bool]] = []

    async def watch(name: str, side: Side) -> None:
        seen.append((side, (await stored(store)).count, waiter.done()))

    here.line.on_call = watch
    await here.journal.append(held, [TEXT])

    assert [("before", 1, False), ("after", 2, False)] == seen
    assert waiter.done()


async def test_an_entry_that_comes_again_changes_nothing(store: MemoryStore, here: Process) -> None:
    """A repeated entry is counted, keeps the time when it was first seen, and wakes no waiter."""
    held = await here.submit()
    await here.journal.append(held, [TEXT])
    before, waiter = held.record, held.waiter()
    await here.journal.append(held, [msgspec.structs.replace(TEXT, at=NOW + 50)])

    assert (2, 1) == ((await stored(store)).count, (await stored(store)).repeats)
    assert (before, False) == (held.record, waiter.done())
    assert await truth(store) == held.record


async def test_the_end_of_a_job_is_announced_once(here: Process) -> None:
    """The end of a job is announced once."""
    held = await here.submit()
    for entry in (TEXT, tape.webhook(NOW, tape.failed()), DONE):
        await here.journal.append(held, [entry])

    assert [REF] == here.ended


async def test_a_stage_that_two_appends_reach_is_logged_once(here: Process, caplog: pytest.LogCaptureFixture) -> None:
    """A stage that two concurrent appends learn of is logged and counted once."""
    caplog.set_level(logging.INFO, logger="audioext.jobs")
    held = await here.submit()
    gate, answers = asyncio.Event(), itertools.count()

    async def watch(name: str, side: Side) -> None:
        if side == "after" and next(answers) == 0:
            await gate.wait()

    here.line.on_call = watch
    webhook = asyncio.create_task(here.journal.append(held, [TEXT]))
    await asyncio.sleep(0)  # it has begun
    await here.journal.append(held)
    gate.set()
    await webhook

    assert ["text"] == [record.stage for record in caplog.records]  # type: ignore[attr-defined]  # from `extra=`
    assert [1, 1] == [stage.histogram().count for stage in here.journal.counts.stages.values()]


async def test_an_accepted_index_row_tells_the_poller_when_to_poll(here: Process) -> None:
    """Each accepted index row tells the poller when the next status call is due."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW)])

    assert [NOW + TAPE.pace.quiet] == here.polls


async def test_a_store_that_fails_appends_nothing(store: MemoryStore, here: Process) -> None:
    """An append that the store refuses does not change the held job."""
    held = await here.submit()
    store.fail("away")
    with pytest.raises(StoreError, match="away"):
        await here.journal.append(held, [TEXT])

    assert (None, 1) == (held.record.stage, held.count)


async def test_a_provider_that_this_client_lacks_is_named(here: Process, store: MemoryStore) -> None:
    """A job of a provider that this client lacks raises `ConfigError`, which names the provider."""
    other = start(store, provider=tape.Tape(name="other"))
    await other.submit(provider="other", account="other")

    with pytest.raises(ConfigError, match="named 'other', which this client lacks"):
        await here.journal.hold(REF)


async def test_an_unknown_ref_has_no_job(here: Process) -> None:
    """A ref that is not in the store has no job."""
    assert (None, None, []) == (await here.journal.hold(REF), here.journal.held.get(REF), here.journal.held_jobs())


async def test_a_job_is_held_while_it_is_recent_or_referenced(here: Process) -> None:
    """A job stays held while it is recent or referenced, and every read of it returns the same object."""
    held = await here.submit()
    assert held is await here.hold()
    for number in range(RECENT_JOBS):
        await here.submit(f"job-{number}")
    assert held is here.journal.held.get(REF)
    assert RECENT_JOBS + 1 == len(here.journal.held_jobs())

    del held
    assert (RECENT_JOBS, None) == (len(here.journal.held_jobs()), here.journal.held.get(REF))


# --- two processes ------------------------------------------------------------------------------------------


async def test_a_writer_that_missed_something_sees_it_and_sets_the_index_right(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """An append returns what another process wrote meanwhile, and the index row covers both."""
    held, other = await here.submit(), await there.hold()
    await here.journal.append(held, [tape.answer(NOW), FIRST])
    await there.journal.append(other, [DONE])

    assert (Verdict.COMPLETE, 4) == (other.record.verdict, other.count)
    assert await truth(store) == other.record
    assert await index_is_right(store)
    assert held is await here.hold()
    assert await truth(store) == held.record


async def test_two_appends_at_once_converge(store: MemoryStore, here: Process, there: Process) -> None:
    """After concurrent appends of two processes, both of them and a fresh reader have the same record."""
    held, other = await here.submit(), await there.hold()
    entries = [tape.answer(NOW), TEXT, FIRST, DONE, tape.busy(NOW + 4), tape.status(NOW + 5, tape.failed())]
    await asyncio.gather(
        *(process.journal.append(job, [entry]) for entry in entries for process, job in ((here, held), (there, other)))
    )
    await asyncio.gather(here.hold(), there.hold())

    assert len(entries) + 1 == (await stored(store)).count
    assert [await truth(store)] * 2 == [held.record, other.record]
    assert await index_is_right(store)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_appends_whose_answers_come_in_any_order_converge(
    store: MemoryStore, here: Process, order: tuple[int, ...]
) -> None:
    """Three appends of one process whose answers come in any order leave it with what the store holds."""
    held = await here.submit()
    gates = [asyncio.Event() for _ in order]
    waiting: Iterator[asyncio.Event] = iter(gates)

    async def watch(name: str, side: Side) -> None:
        gate = next(waiting, None) if side == "after" else None
        if gate is not None:
            await gate.wait()

    here.line.on_call = watch
    tasks = [asyncio.create_task(here.journal.append(held, [entry])) for entry in (TEXT, FIRST, DONE)]
    await asyncio.sleep(1)
    for number in order:
        gates[number].set()
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)

    assert (4, await truth(store)) == (held.count, held.record)
    assert await index_is_right(store)


async def test_one_webhook_at_two_processes_has_one_time(store: MemoryStore, here: Process, there: Process) -> None:
    """The same webhook at two processes is one entry, and both keep the time of the first."""
    held, other = await here.submit(), await there.hold()
    await here.journal.append(held, [TEXT])
    await there.journal.append(other, [msgspec.structs.replace(TEXT, at=NOW + 50)])

    assert [NOW + 1] * 2 == [record.reached[-1].at for record in (held.record, other.record)]
    assert await truth(store) == other.record


async def test_an_index_whose_writer_died_gets_a_second_look(store: MemoryStore, here: Process, there: Process) -> None:
    """If a writer that missed entries dies before its index is right, polls and handlers are due in two seconds."""
    await here.submit()
    other = await there.hold()
    await here.journal.append(await here.hold(), [tape.answer(NOW)])
    there.line.on_call = fail_at(2, calls=["append"])  # its second append would set the index right
    with pytest.raises(StoreError):
        await there.journal.append(other, [DONE])

    due = NOW + SECOND_LOOK_SECONDS
    assert [due, due] == [await store.next_due("polls"), await store.next_due("handlers")]
    (claimed,) = await store.claim("handlers", now=due, until=due + 5, limit=1)
    await here.journal.append(await here.hold(claimed), release=True)
    assert await index_is_right(store)


async def test_what_another_process_ended_is_announced_here(here: Process, there: Process) -> None:
    """A process that holds a job announces an end that another process saw when it next reads the job."""
    held = await here.submit()
    await there.journal.append(await there.hold(), [DONE])
    assert [] == here.ended

    assert held is await here.hold()
    assert (Verdict.COMPLETE, [REF]) == (held.record.verdict, here.ended)


# --- deliveries ---------------------------------------------------------------------------------------------


async def test_a_delivery_of_a_job_that_nobody_here_holds_takes_one_round_trip(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """A webhook for a job that is not held here is stored by one append, and the index row follows later."""
    await there.submit()
    await here.receive(msgspec.structs.replace(TEXT, body=tape.body(tape.shown(Stage.TEXT, task_id=None))))

    assert ["append"] == here.line.calls
    assert (2, NOW + SECOND_LOOK_SECONDS) == ((await stored(store)).count, await store.next_due("handlers"))
    await here.journal.aclose()
    assert await index_is_right(store)
    assert [await truth(store)] == [held.record for held in here.journal.held_jobs()]


async def test_a_handle_made_beside_a_webhook_sees_it(here: Process, there: Process) -> None:
    """A handle that is made while a webhook is being stored sees that webhook, and all later ones."""
    await there.submit()
    gate = asyncio.Event()

    async def watch(name: str, side: Side) -> None:
        if (name, side) == ("append", "after"):
            await gate.wait()

    here.line.on_call = watch
    delivery = asyncio.create_task(here.receive(tape.webhook(NOW, tape.shown(Stage.TEXT, task_id=None))))
    await asyncio.sleep(1)
    held = await here.hold()
    gate.set()
    await delivery
    await here.receive(DONE)

    assert held is await here.hold()
    assert Verdict.COMPLETE is held.record.verdict


async def test_an_unheld_delivery_that_came_before_keeps_its_time(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """The index row made after a repeated webhook is that of the stored entries, with their first times."""
    held = await there.submit()
    called = tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id="first"))
    await there.journal.append(held, [called, tape.webhook(NOW + 2, tape.shown(Stage.TEXT, task_id="second"))])
    await here.receive(msgspec.structs.replace(called, at=NOW + 9))
    await here.journal.aclose()

    assert ("first", True) == ((await stored(store)).index.task_id, await index_is_right(store))


async def test_the_second_look_stays_due_where_the_index_did_not_follow(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """If a process dies after its reply to a webhook, the job stays due for a second look by whoever claims it."""
    await there.submit()
    here.line.on_call = fail_at(2, calls=["append"])
    await here.receive(tape.webhook(NOW, tape.shown(Stage.COMPLETE, tape.track("one"), task_id=None)))
    await here.journal.aclose()

    due = NOW + SECOND_LOOK_SECONDS
    assert (False, due) == (await index_is_right(store), await store.next_due("handlers"))
    await there.journal.append(await there.hold())
    assert await index_is_right(store)


async def test_a_webhook_for_a_held_job_wakes_its_waiters(here: Process) -> None:
    """A webhook for a held job wakes its waiters as soon as it is stored."""
    held = await here.submit()
    waiter = held.waiter()
    await here.receive(FIRST)

    assert (True, Stage.FIRST, TASK) == (waiter.done(), held.record.stage, held.record.task_id)


async def test_another_tasks_delivery_is_refused_and_kept(store: MemoryStore, here: Process) -> None:
    """A webhook that names another task than the job's is answered 401, kept as refused, and changes nothing."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW)])
    with pytest.raises(WebhookError, match="names another task") as refused:
        await here.receive(tape.webhook(NOW + 1, tape.shown(Stage.COMPLETE, tape.track("x"), task_id="other")))

    assert (401, Stage.SUBMITTED, TASK) == (refused.value.http_status, held.record.stage, held.record.task_id)
    (delivery,) = [delivery async for delivery in store.deliveries(REF)]
    assert ("refused", True) == (delivery.verdict, delivery.note.startswith(OTHER_TASK))


async def test_another_jobs_task_is_refused_before_the_answer_came(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """A webhook that names another job's task is refused, even if this job's own task is not known yet."""
    await there.journal.append(await there.submit("owner"), [tape.answer(NOW)])
    await there.submit()
    with pytest.raises(WebhookError) as refused:
        await here.receive(DONE)

    assert 401 == refused.value.http_status
    assert (None, None) == ((await truth(store)).task_id, (await truth(store)).stage)


async def test_a_delivery_adopts_a_job_whose_answer_has_not_come(store: MemoryStore, here: Process) -> None:
    """A webhook that arrives before the POST's answer names the task, also at a process that does not hold the job."""
    await start(store).submit()
    await here.receive(DONE)
    await here.journal.aclose()

    assert (TASK, Verdict.COMPLETE) == ((await truth(store)).task_id, (await truth(store)).verdict)
    assert await index_is_right(store)


async def test_a_stale_copy_accepts_the_task_that_the_answer_named(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """A process that learnt a task from a webhook switches to the one that the answer named at another process."""
    held = await here.submit()
    await here.receive(tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id="called")))
    await there.journal.append(await there.hold(), [tape.answer(NOW + 2)])
    await here.receive(DONE)

    assert (TASK, Verdict.COMPLETE) == (held.record.task_id, held.record.verdict)


@pytest.mark.parametrize("task_id", [TASK, None])
async def test_a_full_journal_counts_what_it_does_not_keep(
    store: MemoryStore, here: Process, there: Process, task_id: str | None
) -> None:
    """A webhook beyond the journal's limit is counted, but is part of neither record nor index row."""
    last = tape.webhook(NOW, tape.shown(Stage.COMPLETE, tape.track("one"), task_id=task_id))
    held = await there.submit()
    room = MAX_JOURNAL_BYTES - (await stored(store)).entries[0].size
    await there.journal.append(held, [make_entry("webhook", NOW, body=b"x" * room)])
    before = await stored(store)
    await here.receive(last)
    await here.journal.aclose()
    assert await index_is_right(store)
    await there.receive(last)

    after = await stored(store)
    assert (before.count, before.repeats + 2) == (after.count, after.repeats)
    assert (None, True) == (held.record.stage, await index_is_right(store))
    assert MAX_ENTRIES > after.count


# --- orphans, and a store that lost data --------------------------------------------------------------------


async def test_a_delivery_without_a_request_is_an_orphan(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """A webhook with a valid tag but without a job is kept as an orphan and logged."""
    await here.receive(TEXT)

    assert (None, 1) == (await here.journal.hold(REF), (await stored(store)).count)
    assert "orphan" in caplog.text
    assert ["orphan"] == [delivery.verdict async for delivery in store.deliveries()]


async def test_an_orphan_finds_its_job_when_the_request_comes(store: MemoryStore, here: Process) -> None:
    """A job whose request is stored after its webhook gets that webhook, and a right index row."""
    lost = await start(MemoryStore()).submit()
    await here.receive(DONE)
    (request,) = lost.readings.values()
    await here.journal.append(begun(REF, request, TAPE))
    held = await here.hold()

    assert (Verdict.COMPLETE, 2) == (held.record.verdict, held.count)
    assert await index_is_right(store)


async def test_a_store_that_lost_everything_gets_it_back_with_the_next_append(here: Process) -> None:
    """If the store lost a job, the next append stores everything again that this process knows of it."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    here.line.store = empty = MemoryStore()
    await here.journal.append(held, [DONE])

    assert (4, Verdict.COMPLETE) == (held.count, held.record.verdict)
    assert await truth(empty) == held.record
    assert await index_is_right(empty)


async def test_a_store_that_lost_everything_gets_it_back_when_it_is_read(here: Process) -> None:
    """A read of a held job gives the store back what it lost, unless the job has ended."""
    held = await here.submit()
    ended = await here.submit("ended")
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    await here.journal.append(ended, [DONE])
    here.line.store = empty = MemoryStore()

    assert held is await here.hold()
    assert ended is await here.hold("ended")
    assert (3, None) == ((await stored(empty)).count, await empty.read("ended"))
    assert await index_is_right(empty)


async def test_a_delivery_that_came_between_the_loss_and_the_return_is_kept(here: Process) -> None:
    """A webhook that arrived after the store lost a job joins the job once it is given back."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    here.line.store = empty = MemoryStore()
    await start(empty).receive(DONE)
    await here.hold()

    assert (4, Verdict.COMPLETE) == (held.count, held.record.verdict)
    assert await truth(empty) == held.record
    assert await index_is_right(empty)


async def test_the_stores_time_of_an_entry_counts(here: Process) -> None:
    """If a store that lost its data has an entry with a later time, the held job adopts that time."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    here.line.store = empty = MemoryStore()
    await start(empty).receive(msgspec.structs.replace(TEXT, at=NOW + 50))
    await here.hold()

    assert await truth(empty) == held.record


async def test_two_processes_that_give_back_a_job_keep_all_entries(here: Process, there: Process) -> None:
    """Two processes that give back a lost job at the same time leave the store with everything that either knew."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    other = await there.hold()
    await there.journal.append(other, [FIRST])
    here.line.store = there.line.store = empty = MemoryStore()
    await asyncio.gather(here.hold(), there.hold())

    assert 4 == (await stored(empty)).count
    assert [await truth(empty)] * 2 == [(await here.hold()).record, other.record]
    assert await index_is_right(empty)


async def test_a_post_under_way_is_not_given_back(here: Process) -> None:
    """While a POST is under way a read gives nothing back; the append of its answer does."""
    held = await here.submit()
    held.posts += 1
    here.line.store = empty = MemoryStore()
    await here.hold()
    assert await empty.read(REF) is None

    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    assert (2, TASK) == ((await stored(empty)).count, (await truth(empty)).task_id)


# --- a store that is away -----------------------------------------------------------------------------------


async def test_an_answer_is_stored_as_soon_as_the_store_is_back(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """A POST's answer is known here at once, and is retried until the store takes it."""
    held = await here.submit()
    waiter = held.waiter()
    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    assert (True, TASK, 1) == (waiter.done(), held.record.task_id, held.posts)
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 20)
    store.fail(None)
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 40)

    assert (2, 0) == ((await stored(store)).count, held.posts)
    assert await index_is_right(store)
    assert 1 == sum(record.levelno >= logging.ERROR for record in caplog.records)


async def test_an_answer_outlives_a_bug_of_a_store(store: MemoryStore, here: Process) -> None:
    """An answer is retried as well if a store raises an error of its own instead of `StoreError`."""
    held = await here.submit()
    faults = [KeyError("not a StoreError"), OSError("nor this")]

    async def fail(name: str, side: Side) -> None:
        if name == "append" and faults:
            raise faults.pop()

    here.line.on_call = fail
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    assert (TASK, 1) == (held.record.task_id, held.posts)
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 20)

    assert (2, 0) == ((await stored(store)).count, held.posts)
    assert await index_is_right(store)


async def test_an_answer_is_kept_where_closing_cuts_its_append_off(store: MemoryStore, here: Process) -> None:
    """An answer whose append was cancelled by closing is stored by the last attempt of `aclose`."""
    held = await here.submit()
    here.line.on_call = die_at(0)
    appending = asyncio.create_task(here.journal.append_or_queue(held, [tape.answer(NOW)]))
    await asyncio.sleep(1.0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert (TASK, 1) == (held.record.task_id, (await stored(store)).count)

    here.line.on_call = let_pass
    await here.journal.aclose()

    assert (2, TASK) == ((await stored(store)).count, (await stored(store)).index.task_id)


async def test_an_answer_is_given_back_though_that_fails_at_first(here: Process) -> None:
    """An answer for a job that the store lost is stored with its request, even if the first attempt fails."""
    held = await here.submit()
    held.posts += 1
    here.line.store = empty = MemoryStore()
    here.line.on_call = fail_at(2, calls=["append"])  # the one that gives everything back
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 20)

    assert (2, TASK) == ((await stored(empty)).count, (await truth(empty)).task_id)
    await here.journal.aclose()


async def test_a_claim_that_is_given_back_is_due_at_once(store: MemoryStore, here: Process) -> None:
    """Work that was claimed and not done is due at once again; a job that is gone is passed over."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), tape.webhook(NOW, tape.shown(Stage.TEXT))])
    works: tuple[Work, ...] = ("polls", "handlers")
    for work in works:
        await store.claim(work, now=NOW + 1e6, until=NOW + 2e6, limit=1)
        await here.journal.give_back(REF, work)
        await here.journal.give_back("gone", work)
        assert NOW == await store.next_due(work)


async def test_waking_the_unstored_entries_ends_the_pause(store: MemoryStore, here: Process) -> None:
    """Waking the unstored entries ends the pause between two attempts."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    await asyncio.sleep(100)
    store.fail(None)
    before = loop_time()
    here.journal.unstored.wake()
    for _ in range(10):
        await asyncio.sleep(0)

    assert (2, before) == ((await stored(store)).count, loop_time())
    await here.journal.aclose()


async def test_flush_stores_it_or_says_that_it_cannot(store: MemoryStore, here: Process) -> None:
    """`flush` stores all unstored entries, or raises `StoreError` if the store is still away."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    with pytest.raises(StoreError, match="away"):
        await here.journal.unstored.flush()
    store.fail(None)
    await here.journal.unstored.flush()
    await here.journal.unstored.flush()

    assert (2, 0) == ((await stored(store)).count, held.posts)
    await here.journal.aclose()


async def test_closing_tries_once_more(store: MemoryStore, here: Process) -> None:
    """`aclose` tries once more to store an answer, and ends even if the store is still away."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    await asyncio.sleep(10)
    store.fail(None)
    await here.journal.aclose()
    assert 2 == (await stored(store)).count

    other = start(store)
    lost = await other.submit("lost")
    store.fail("away")
    await other.journal.append_or_queue(lost, [tape.answer(NOW, task_id="lost")])
    await asyncio.sleep(10)
    await other.journal.aclose()
    store.fail(None)
    assert 1 == (await stored(store, "lost")).count


async def test_a_store_that_cancels_its_own_calls_ends_neither_retries_nor_close(
    store: MemoryStore, here: Process
) -> None:
    """An answer is stored though the store cancels the first attempts, and a close ends though it still does."""
    held = await here.submit()

    async def cancel(name: str, side: Side) -> None:
        if (name, side) == ("append", "before"):
            raise asyncio.CancelledError

    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    store.fail(None)
    here.line.on_call = cancel
    await asyncio.sleep(10)
    here.line.on_call = let_pass
    await asyncio.sleep(100)
    assert 2 == (await stored(store)).count

    store.fail("away")
    await here.journal.append_or_queue(held, [tape.busy(NOW + 1)])
    store.fail(None)
    here.line.on_call = cancel
    await here.journal.aclose()


async def test_an_unstored_answer_goes_with_the_next_append(store: MemoryStore, here: Process) -> None:
    """An unstored answer is stored with the next append, so that the index row never says more than the journal."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    store.fail(None)
    await here.journal.append(held, [tape.busy(NOW + 1)])

    assert (3, TASK) == ((await stored(store)).count, (await stored(store)).index.task_id)
    assert await index_is_right(store)
    await here.journal.aclose()
    assert (3, 0) == ((await stored(store)).count, held.posts)


async def test_an_answer_that_fails_beside_a_delivery_is_not_forgotten(store: MemoryStore, here: Process) -> None:
    """An answer whose append failed while another was under way stays part of the held job, and is stored later."""
    held = await here.submit()
    gate, calls = asyncio.Event(), itertools.count()

    async def watch(name: str, side: Side) -> None:
        if side == "before" and next(calls) in {1, 2}:
            raise StoreError("away")
        if side == "after":
            await gate.wait()

    here.line.on_call = watch
    delivery = asyncio.create_task(here.journal.append(held, [tape.webhook(NOW, tape.shown(None, task_id=None))]))
    await asyncio.sleep(0)
    await here.journal.append_or_queue(held, [tape.answer(NOW)])
    assert TASK == held.record.task_id
    gate.set()
    await delivery
    assert TASK == held.record.task_id
    await here.journal.aclose()

    assert (TASK, await truth(store)) == (held.record.task_id, held.record)


async def test_an_index_that_never_comes_right_is_left_to_others(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """An append ends even if other processes write without pause, and the job stays due for a look."""
    held = await here.submit()
    numbers = itertools.count()

    async def watch(name: str, side: Side) -> None:
        if side == "before":
            await store.append(REF, [make_entry("expired", NOW, note=str(next(numbers)))], provider="tape", known=0)

    here.line.on_call = watch
    await here.journal.append(held, [TEXT])

    assert "could not be brought up to date" in caplog.text
    assert Stage.TEXT is held.record.stage


# --- closing ------------------------------------------------------------------------------------------------


async def test_closing_wakes_every_wait(here: Process) -> None:
    """Closing wakes every waiter and marks the journal as closed."""
    waiters = [(await here.submit(ref)).waiter() for ref in ("one", "two")]
    held = here.journal.held_jobs()
    here.journal.close_waits()

    assert (True, [True] * len(held)) == (here.journal.is_closed, [waiter.done() for waiter in waiters][: len(held)])


async def test_closing_finishes_the_indexes_that_follow_behind(store: MemoryStore, here: Process) -> None:
    """Closing the journal first finishes index rows that are still being written."""
    await start(store).submit()

    async def watch(name: str, side: Side) -> None:
        await asyncio.sleep(1)

    here.line.on_call = watch
    await here.receive(DONE)
    await here.journal.aclose()

    assert await index_is_right(store)


def test_the_tests_line_has_every_method_of_a_store() -> None:
    """The tests' `Line` between a journal and its store has every method of a store."""
    assert [] == [
        name for name in dir(MemoryStore) if not name.startswith("_") and name != "fail" and not hasattr(Line, name)
    ]
