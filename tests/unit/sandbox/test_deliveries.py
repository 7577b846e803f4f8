"""Webhooks and faults: order, repetition, retries, lost and broken answers."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

EXTEND = "/kie/api/v1/generate/extend"
#: Nothing listens at this reserved port.
UNREACHABLE_CALLBACK = "http://127.0.0.1:1/hook"


def stages(world: World) -> list[str]:
    """Return the stages in the order in which their webhooks arrived."""
    return [body["data"]["callbackType"] for body in world.listener.bodies]


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ([], ["text", "first", "complete"]),
        (["duplicate"], ["text", "text", "first", "first", "complete", "complete"]),
        (["drop=text"], ["first", "complete"]),
        (["drop=text", "drop=first"], ["complete"]),
        (["drop"], []),
        (["reorder"], ["complete", "first", "text"]),
        (["reorder", "duplicate"], ["complete", "complete", "first", "first", "text", "text"]),
        (["delay=text:100", "delay=complete:100"], ["text", "first", "complete"]),
        (["error=first:501"], ["text", "error"]),
        (["error=first", "drop=error"], ["text"]),
    ],
)
async def test_faults_shape_what_arrives(open_world: OpenWorld, faults: list[str], told: list[str]) -> None:
    """Each fault changes which webhooks arrive, how often and in which order, and not the task itself."""
    world = await open_world(faults=faults)
    task_id = await world.settled_task()
    assert told == stages(world)
    assert told == [delivery.stage for delivery in world.sandbox.deliveries]
    assert all(body["data"]["task_id"] == task_id for body in world.listener.bodies)
    if not any(fault.startswith("error") for fault in faults):
        assert "SUCCESS" == (await world.info(task_id))["status"]


async def test_faults_can_be_for_one_title_or_the_next_task(world: World) -> None:
    """A fault may apply to one title or to the next task only."""
    world.sandbox.script("drop=text", title="Part 7")
    world.sandbox.script("drop=first", times=1)
    await world.settled_task(title="Part 6")
    assert ["text", "complete"] == stages(world)
    await world.settled_task(title="Part 7")
    assert ["first", "complete"] == stages(world)[2:]
    world.sandbox.clear_script()
    await world.settled_task(title="Part 7")
    assert ["text", "first", "complete"] == stages(world)[4:]


async def test_each_webhook_waits_for_the_reply_to_the_one_before(world: World) -> None:
    """A webhook is sent only after the reply to the one before, however fast the task is."""
    open_calls = 0
    most = 0

    async def count(body: Any) -> None:
        nonlocal open_calls, most
        del body
        open_calls += 1
        most = max(most, open_calls)
        for _ in range(20):
            await asyncio.sleep(0)
        open_calls -= 1

    world.listener.meanwhile = count
    await world.settled_task()
    assert (1, 3) == (most, len(world.listener.bodies))


async def test_a_webhook_is_sent_again_until_it_is_taken(world: World) -> None:
    """A webhook is repeated until it is answered 200, and only then the next one is sent."""
    world.listener.statuses = [500, 404, 200]
    task_id = await world.settled_task()
    assert ["text", "text", "text", "first", "complete"] == stages(world)
    attempts = [(delivery.attempt, delivery.status) for delivery in world.sandbox.deliveries]
    assert [(1, 500), (2, 404), (3, 200), (1, 200), (1, 200)] == attempts
    assert "SUCCESS" == (await world.info(task_id))["status"]


async def test_an_undeliverable_end_does_not_change_the_status(world: World) -> None:
    """After three retries the final webhook is given up, and the task still succeeds."""
    answer = await world.post(EXTEND, world.kie_extend(callBackUrl=UNREACHABLE_CALLBACK))
    await world.sandbox.settled()
    info = await world.info(answer["data"]["taskId"])
    assert ("SUCCESS", 2) == (info["status"], len(info["response"]["sunoData"]))
    ends = [delivery for delivery in world.sandbox.deliveries if delivery.stage == "complete"]
    assert [1, 2, 3, 4] == [delivery.attempt for delivery in ends]
    assert all(delivery.status is None and delivery.error for delivery in ends)


@pytest.mark.parametrize(("fault", "has_songs"), [("", True), ("=with", True), ("=without", False)])
async def test_a_callback_exception_can_be_forced(open_world: OpenWorld, fault: str, *, has_songs: bool) -> None:
    """The fault withholds the final webhook, and chooses whether the status call has the results."""
    world = await open_world(faults=[f"callback_exception{fault}"])
    info = await world.info(await world.settled_task())
    assert "CALLBACK_EXCEPTION" == info["status"]
    assert has_songs == (info["response"] is not None)
    assert ["text", "first"] == stages(world)


@pytest.mark.parametrize("url", ["https://nobody.invalid/hook", "https://invalid.invalid./"])
async def test_a_reserved_name_is_not_called(world: World, url: str) -> None:
    """A callback URL under `.invalid` is never looked up or called, and that does not count as a failure."""
    task_id = await world.settled_task(callBackUrl=url)
    assert () == world.sandbox.deliveries
    assert "SUCCESS" == (await world.info(task_id))["status"]


async def test_a_slow_receiver_is_given_up(open_world: OpenWorld) -> None:
    """A reply to a webhook that takes too long counts as a timeout."""
    world = await open_world(callback_timeout_seconds=0.05, retry_seconds=())
    release = asyncio.Event()

    async def hang(body: Any) -> None:
        del body
        await release.wait()

    world.listener.meanwhile = hang
    await world.settled_task()
    release.set()
    assert ["timeout"] * 3 == [delivery.error for delivery in world.sandbox.deliveries]


async def test_callbacks_can_come_before_the_response(open_world: OpenWorld) -> None:
    """All webhooks are answered before the submit is, even if the task would take hours."""
    world = await open_world(faults=["callback_before_response"], speed=1.0)
    await world.kie_task()
    assert ["text", "first", "complete"] == stages(world)


async def test_the_response_comes_before_the_callbacks(world: World) -> None:
    """Without a fault no webhook is sent before the submit's answer, however fast the task is."""
    for _ in range(20):
        before = len(world.sandbox.deliveries)
        await world.kie_task()
        submission = world.sandbox.submissions[-1]
        assert 200 == submission.http_status
        await world.sandbox.settled()
        assert before + 3 == len(world.sandbox.deliveries)


@pytest.mark.parametrize(
    ("fault", "made"),
    [("lose_response", 1), ("lose_response=half", 1), ("lose_response=unmade", 0)],
)
async def test_a_response_can_be_lost(open_world: OpenWorld, fault: str, made: int) -> None:
    """The connection breaks instead of the submit's answer, and the task runs on or was never made."""
    world = await open_world(faults=[fault])
    with pytest.raises(aiohttp.ClientError):
        await world.post(EXTEND, world.kie_extend())
    await world.sandbox.settled()
    assert made == len(world.sandbox.tasks)
    assert ["text", "first", "complete"] * made == stages(world)
    submission = world.sandbox.submissions[0]
    assert (None, bool(made)) == (submission.http_status, submission.task_id is not None)


@pytest.mark.parametrize(
    ("fault", "status", "made"),
    [("http=503", 503, 0), ("http=502:made", 502, 1), ("http=403", 403, 0), ("http=200", 200, 0)],
)
@pytest.mark.parametrize("provider", ["kie", "sunoapi"])
async def test_a_page_can_come_instead(
    open_world: OpenWorld,
    provider: str,
    fault: str,
    status: int,
    made: int,
) -> None:
    """The submit gets a body that is not JSON, with the given HTTP status, and a task only if the fault says so."""
    world = await open_world(faults=[fault])
    found, page = await world.call("POST", f"/{provider}/api/v1/generate/extend", json=world.kie_extend())
    assert status == found
    assert isinstance(page, bytes)
    assert (b"error code: 1010" == page) == (status == 403)
    await world.sandbox.settled()
    assert made == len(world.sandbox.tasks)


async def test_any_code_can_be_answered(open_world: OpenWorld) -> None:
    """The submit gets the given code in the API's own envelope, and makes no task."""
    world = await open_world(faults=["code=455*1", "code=433"])
    assert 455 == (await world.post(EXTEND, world.kie_extend()))["code"]
    status, answer = await world.call("POST", EXTEND, json=world.kie_extend())
    assert (200, 433) == (status, answer["code"])
    assert () == world.sandbox.tasks


async def test_files_can_be_empty_or_the_same(open_world: OpenWorld) -> None:
    """A fault makes audio files empty, or the same for both tracks; without one the tracks differ."""
    world = await open_world()
    found = []
    for fault in ("empty_audio*1", "same_audio*1", None):
        if fault is not None:
            world.sandbox.script(fault)
        await world.settled_task()
        urls = [song["audio_url"] for song in world.listener.bodies[-1]["data"]["data"]]
        found.append([(await world.call("GET", url.removeprefix(world.sandbox.url)))[1] for url in urls])
    empty, same, plain = found
    assert [b"", b""] == empty
    assert same[0] == same[1] != b""
    assert plain[0] != plain[1]
