"""The single writer: durable first, told afterwards, and right again whatever happens between two processes."""

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
    """Return the index row that *record* has, with the times of *index* that depend on when it was made."""
    right = schedule.index_of(record, now=float("inf"), poll_at=index.poll_at, expire_after=EXPIRE_SECONDS)
    return msgspec.structs.replace(right, handle_at=None if right.handle_at is None else index.handle_at)


async def index_is_right(store: MemoryStore, ref: str = REF) -> bool:
    """Say whether the index row of a job is the one that follows from its journal."""
    index = (await stored(store, ref)).index
    return row(await truth(store, ref), index) == index


# --- one process --------------------------------------------------------------------------------------------


async def test_what_is_appended_is_durable_with_its_index(store: MemoryStore, here: Process) -> None:
    """After an append the store holds the entry and the index that follows, and the job is up to date."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])

    found = await stored(store)
    assert (3, 3) == (found.count, held.count)
    assert (TASK, NOW) == (found.index.task_id, found.index.handle_at)
    assert await index_is_right(store)
    assert await truth(store) == held.record


async def test_who_waits_wakes_after_the_entry_is_durable(store: MemoryStore, here: Process) -> None:
    """Nobody is told of what the store does not hold yet."""
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
    """A repeat is counted, keeps the time when it was first seen, and wakes nobody."""
    held = await here.submit()
    await here.journal.append(held, [TEXT])
    before, waiter = held.record, held.waiter()
    await here.journal.append(held, [msgspec.structs.replace(TEXT, at=NOW + 50)])

    assert (2, 1) == ((await stored(store)).count, (await stored(store)).repeats)
    assert (before, False) == (held.record, waiter.done())
    assert await truth(store) == held.record


async def test_the_end_of_a_job_is_announced_once(here: Process) -> None:
    """Whoever waits for room in the account's limits hears when a job has ended."""
    held = await here.submit()
    for entry in (TEXT, tape.webhook(NOW, tape.failed()), DONE):
        await here.journal.append(held, [entry])

    assert [REF] == here.ended


async def test_a_stage_that_two_appends_learn_of_is_said_once(here: Process, caplog: pytest.LogCaptureFixture) -> None:
    """An index that follows behind may read what a webhook has appended before that one has its own answer."""
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


async def test_the_poller_hears_when_a_status_call_is_due(here: Process) -> None:
    """Each index that was taken says when the next call is."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW)])

    assert [NOW + TAPE.pace.quiet] == here.polls


async def test_a_store_that_fails_appends_nothing(store: MemoryStore, here: Process) -> None:
    """What could not be appended is not known here either, so that nobody acts on it."""
    held = await here.submit()
    store.fail("away")
    with pytest.raises(StoreError, match="away"):
        await here.journal.append(held, [TEXT])

    assert (None, 1) == (held.record.stage, held.count)


async def test_a_provider_that_this_client_lacks_is_named(here: Process, store: MemoryStore) -> None:
    """A job of an unknown provider cannot be read here, and the error says what to do."""
    other = start(store, provider=tape.Tape(name="other"))
    await other.submit(provider="other", account="other")

    with pytest.raises(ConfigError, match="named 'other', which this client lacks"):
        await here.journal.hold(REF)


async def test_a_job_that_nobody_has_is_none(here: Process) -> None:
    """A ref that the store does not hold is no job."""
    assert (None, None, []) == (await here.journal.hold(REF), here.journal.held.get(REF), here.journal.held_jobs())


async def test_a_job_is_held_while_it_is_recent_or_somebody_wants_it(here: Process) -> None:
    """A look at a job gives what the last one gave, until many others came since and nobody holds it any more."""
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
    """An append brings back what another process wrote meanwhile, and the index covers both."""
    held, other = await here.submit(), await there.hold()
    await here.journal.append(held, [tape.answer(NOW), FIRST])
    await there.journal.append(other, [DONE])

    assert (Verdict.COMPLETE, 4) == (other.record.verdict, other.count)
    assert await truth(store) == other.record
    assert await index_is_right(store)
    assert held is await here.hold()
    assert await truth(store) == held.record


async def test_two_appends_at_once_converge(store: MemoryStore, here: Process, there: Process) -> None:
    """Whatever two processes append at the same time, both and a fresh reader make the same of it."""
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
    """Three appends of one process that overtake each other leave it with what the store holds."""
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


async def test_what_two_processes_saw_at_different_times_has_one_time(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """The same delivery at two processes is one entry, with the time of the one that came first, for both of them."""
    held, other = await here.submit(), await there.hold()
    await here.journal.append(held, [TEXT])
    await there.journal.append(other, [msgspec.structs.replace(TEXT, at=NOW + 50)])

    assert [NOW + 1] * 2 == [record.reached[-1].at for record in (held.record, other.record)]
    assert await truth(store) == other.record


async def test_an_index_whose_writer_died_gets_a_second_look(store: MemoryStore, here: Process, there: Process) -> None:
    """Where a writer had missed something and dies, polls and handlers are due in two seconds, for whoever claims."""
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
    """A process that holds a job hears of the end that another one saw when it looks at the job."""
    held = await here.submit()
    await there.journal.append(await there.hold(), [DONE])
    assert [] == here.ended

    assert held is await here.hold()
    assert (Verdict.COMPLETE, [REF]) == (held.record.verdict, here.ended)


# --- deliveries ---------------------------------------------------------------------------------------------


async def test_a_delivery_of_a_job_that_nobody_here_holds_takes_one_round_trip(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """It is durable after one append, and the index follows behind."""
    await there.submit()
    await here.receive(msgspec.structs.replace(TEXT, body=tape.body(tape.shown(Stage.TEXT, task_id=None))))

    assert ["append"] == here.line.calls
    assert (2, NOW + SECOND_LOOK_SECONDS) == ((await stored(store)).count, await store.next_due("handlers"))
    await here.journal.aclose()
    assert await index_is_right(store)
    assert [await truth(store)] == [held.record for held in here.journal.held_jobs()]


async def test_a_delivery_beside_a_look_reaches_who_looked(here: Process, there: Process) -> None:
    """A handle that is made while a delivery is on its way to the store hears of it, and of all that comes later."""
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
    """A repeat makes an index of what the store holds, not of when it came again."""
    held = await there.submit()
    called = tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id="first"))
    await there.journal.append(held, [called, tape.webhook(NOW + 2, tape.shown(Stage.TEXT, task_id="second"))])
    await here.receive(msgspec.structs.replace(called, at=NOW + 9))
    await here.journal.aclose()

    assert ("first", True) == ((await stored(store)).index.task_id, await index_is_right(store))


async def test_the_second_look_stays_due_where_the_index_did_not_follow(
    store: MemoryStore, here: Process, there: Process
) -> None:
    """A listener that dies after its reply leaves work that somebody claims."""
    await there.submit()
    here.line.on_call = fail_at(2, calls=["append"])
    await here.receive(tape.webhook(NOW, tape.shown(Stage.COMPLETE, tape.track("one"), task_id=None)))
    await here.journal.aclose()

    due = NOW + SECOND_LOOK_SECONDS
    assert (False, due) == (await index_is_right(store), await store.next_due("handlers"))
    await there.journal.append(await there.hold())
    assert await index_is_right(store)


async def test_a_delivery_of_a_held_job_wakes_who_waits(here: Process) -> None:
    """Whoever holds the job knows of the delivery as soon as it is durable."""
    held = await here.submit()
    waiter = held.waiter()
    await here.receive(FIRST)

    assert (True, Stage.FIRST, TASK) == (waiter.done(), held.record.stage, held.record.task_id)


async def test_another_tasks_delivery_is_refused_and_kept(store: MemoryStore, here: Process) -> None:
    """A webhook that names another task than the job's is answered 401, and changes nothing."""
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
    """A webhook that names the task of another job is not this job's, though its own task is not known yet."""
    await there.journal.append(await there.submit("owner"), [tape.answer(NOW)])
    await there.submit()
    with pytest.raises(WebhookError) as refused:
        await here.receive(DONE)

    assert 401 == refused.value.http_status
    assert (None, None) == ((await truth(store)).task_id, (await truth(store)).stage)


async def test_a_delivery_adopts_a_job_whose_answer_has_not_come(store: MemoryStore, here: Process) -> None:
    """A webhook that beats the answer names the task, at a process that does not hold the job too."""
    await start(store).submit()
    await here.receive(DONE)
    await here.journal.aclose()

    assert (TASK, Verdict.COMPLETE) == ((await truth(store)).task_id, (await truth(store)).verdict)
    assert await index_is_right(store)


async def test_a_stale_copy_refuses_nobody(store: MemoryStore, here: Process, there: Process) -> None:
    """A process that learnt a task by webhook takes the one that the answer named at another process."""
    held = await here.submit()
    await here.receive(tape.webhook(NOW + 1, tape.shown(Stage.TEXT, task_id="called")))
    await there.journal.append(await there.hold(), [tape.answer(NOW + 2)])
    await here.receive(DONE)

    assert (TASK, Verdict.COMPLETE) == (held.record.task_id, held.record.verdict)


@pytest.mark.parametrize("task_id", [TASK, None])
async def test_a_full_journal_counts_what_it_does_not_keep(
    store: MemoryStore, here: Process, there: Process, task_id: str | None
) -> None:
    """A delivery beyond the limit is part of no record: neither of the process that took it, nor of the index."""
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


# --- orphans, and a store that forgot -----------------------------------------------------------------------


async def test_a_delivery_without_a_request_is_an_orphan(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """What has a valid tag and no job is kept, is no job, and is told in the log."""
    await here.receive(TEXT)

    assert (None, 1) == (await here.journal.hold(REF), (await stored(store)).count)
    assert "orphan" in caplog.text
    assert ["orphan"] == [delivery.verdict async for delivery in store.deliveries()]


async def test_an_orphan_finds_its_job_when_the_request_comes(store: MemoryStore, here: Process) -> None:
    """A job that is stored again after its delivery has all of it, and a right index."""
    lost = await start(MemoryStore()).submit()
    await here.receive(DONE)
    (request,) = lost.readings.values()
    await here.journal.append(begun(REF, request, TAPE))
    held = await here.hold()

    assert (Verdict.COMPLETE, 2) == (held.record.verdict, held.count)
    assert await index_is_right(store)


async def test_a_store_that_lost_everything_gets_it_back_with_the_next_append(here: Process) -> None:
    """What this process knows is appended again together with what is new."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    here.line.store = empty = MemoryStore()
    await here.journal.append(held, [DONE])

    assert (4, Verdict.COMPLETE) == (held.count, held.record.verdict)
    assert await truth(empty) == held.record
    assert await index_is_right(empty)


async def test_a_store_that_lost_everything_gets_it_back_when_it_is_read(here: Process) -> None:
    """A look at a held job gives back what the store does not hold any more, and only what is still open."""
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
    """An orphan of an engine that forgot joins the job that is given back to it."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    here.line.store = empty = MemoryStore()
    await start(empty).receive(DONE)
    await here.hold()

    assert (4, Verdict.COMPLETE) == (held.count, held.record.verdict)
    assert await truth(empty) == held.record
    assert await index_is_right(empty)


async def test_the_time_that_the_store_holds_is_the_truth(here: Process) -> None:
    """A delivery that an engine which forgot got again later has the later time, here as well."""
    held = await here.submit()
    await here.journal.append(held, [tape.answer(NOW), TEXT])
    here.line.store = empty = MemoryStore()
    await start(empty).receive(msgspec.structs.replace(TEXT, at=NOW + 50))
    await here.hold()

    assert await truth(empty) == held.record


async def test_a_process_behind_is_given_what_the_others_gave_back(here: Process, there: Process) -> None:
    """Two processes that give back at once what they know leave the store with all of it."""
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
    """While the answer is on its way, its own append gives everything back."""
    held = await here.submit()
    held.posts += 1
    here.line.store = empty = MemoryStore()
    await here.hold()
    assert await empty.read(REF) is None

    await here.journal.append_sometime(held, [tape.answer(NOW)])
    assert (2, TASK) == ((await stored(empty)).count, (await truth(empty)).task_id)


# --- a store that is away -----------------------------------------------------------------------------------


async def test_an_answer_is_stored_as_soon_as_the_store_is_back(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """What became of a POST is known here at once, and tried until it is stored."""
    held = await here.submit()
    waiter = held.waiter()
    store.fail("away")
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    assert (True, TASK, 1) == (waiter.done(), held.record.task_id, held.posts)
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 20)
    store.fail(None)
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 40)

    assert (2, 0) == ((await stored(store)).count, held.posts)
    assert await index_is_right(store)
    assert 1 == sum(record.levelno >= logging.ERROR for record in caplog.records)


async def test_an_answer_is_kept_where_closing_cuts_its_append_off(store: MemoryStore, here: Process) -> None:
    """The task may be paid for: the last try of closing stores it, if the store answers again by then."""
    held = await here.submit()
    here.line.on_call = die_at(0)
    appending = asyncio.create_task(here.journal.append_sometime(held, [tape.answer(NOW)]))
    await asyncio.sleep(1.0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert (TASK, 1) == (held.record.task_id, (await stored(store)).count)

    here.line.on_call = let_pass
    await here.journal.aclose()

    assert (2, TASK) == ((await stored(store)).count, (await stored(store)).index.task_id)


async def test_an_answer_is_given_back_though_that_fails_at_first(here: Process) -> None:
    """A store that lost all while a POST was under way, and fails once more, gets the request and the answer."""
    held = await here.submit()
    held.posts += 1
    here.line.store = empty = MemoryStore()
    here.line.on_call = fail_at(2, calls=["append"])  # the one that gives all of it back
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    await asyncio.sleep(FIRST_PAUSE_SECONDS * 20)

    assert (2, TASK) == ((await stored(empty)).count, (await truth(empty)).task_id)
    await here.journal.aclose()


async def test_an_unstored_answer_is_tried_at_once_when_the_store_is_heard_of(
    store: MemoryStore, here: Process
) -> None:
    """News that the store is back ends the pause between two tries."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    await asyncio.sleep(100)
    store.fail(None)
    before = loop_time()
    here.journal.unstored.wake()
    for _ in range(10):
        await asyncio.sleep(0)

    assert (2, before) == ((await stored(store)).count, loop_time())
    await here.journal.aclose()


async def test_flush_stores_it_or_says_that_it_cannot(store: MemoryStore, here: Process) -> None:
    """Whoever must know that nothing waits asks for it, and hears of it if the store is still away."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    with pytest.raises(StoreError, match="away"):
        await here.journal.unstored.flush()
    store.fail(None)
    await here.journal.unstored.flush()
    await here.journal.unstored.flush()

    assert (2, 0) == ((await stored(store)).count, held.posts)
    await here.journal.aclose()


async def test_closing_tries_once_more(store: MemoryStore, here: Process) -> None:
    """A store that is back by then has the answer; one that is not keeps nobody from closing."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    await asyncio.sleep(10)
    store.fail(None)
    await here.journal.aclose()
    assert 2 == (await stored(store)).count

    other = start(store)
    lost = await other.submit("lost")
    store.fail("away")
    await other.journal.append_sometime(lost, [tape.answer(NOW, task_id="lost")])
    await asyncio.sleep(10)
    await other.journal.aclose()
    store.fail(None)
    assert 1 == (await stored(store, "lost")).count


async def test_an_unstored_answer_goes_with_the_next_append(store: MemoryStore, here: Process) -> None:
    """An index never says more than the journal that is stored with it."""
    held = await here.submit()
    store.fail("away")
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    store.fail(None)
    await here.journal.append(held, [tape.busy(NOW + 1)])

    assert (3, TASK) == ((await stored(store)).count, (await stored(store)).index.task_id)
    assert await index_is_right(store)
    await here.journal.aclose()
    assert (3, 0) == ((await stored(store)).count, held.posts)


async def test_an_answer_that_fails_beside_a_delivery_is_not_forgotten(store: MemoryStore, here: Process) -> None:
    """An append that was under way when another one failed leaves what both of them told."""
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
    await here.journal.append_sometime(held, [tape.answer(NOW)])
    assert TASK == held.record.task_id
    gate.set()
    await delivery
    assert TASK == held.record.task_id
    await here.journal.aclose()

    assert (TASK, await truth(store)) == (held.record.task_id, held.record)


async def test_an_index_that_never_comes_right_is_left_to_others(
    store: MemoryStore, here: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Where others write without end one append ends all the same, and the job stays due for a look."""
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
    """Whoever waits looks again, and sees that the client was closed."""
    waiters = [(await here.submit(ref)).waiter() for ref in ("one", "two")]
    held = here.journal.held_jobs()
    here.journal.close_waits()

    assert (True, [True] * len(held)) == (here.journal.is_closed, [waiter.done() for waiter in waiters][: len(held)])


async def test_closing_finishes_the_indexes_that_follow_behind(store: MemoryStore, here: Process) -> None:
    """An index that was on its way is there when the journal is closed."""
    await start(store).submit()

    async def watch(name: str, side: Side) -> None:
        await asyncio.sleep(1)

    here.line.on_call = watch
    await here.receive(DONE)
    await here.journal.aclose()

    assert await index_is_right(store)


def test_a_line_is_a_store() -> None:
    """What these tests put between a journal and its store has all of a store's methods."""
    assert [] == [
        name for name in dir(MemoryStore) if not name.startswith("_") and name != "fail" and not hasattr(Line, name)
    ]
