"""Held stages: neither webhooks nor status calls show them before they are released."""

from collections.abc import Sequence
from typing import Literal

import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

WORDS: tuple[Literal["text"], Literal["first"], Literal["complete"]] = ("text", "first", "complete")


def kinds(world: World) -> Sequence[str]:
    """Return the callback types of all webhooks so far."""
    return [body["data"]["callbackType"] for body in world.listener.bodies]


@pytest.mark.parametrize("faults", [(), ("duplicate",), ("delay=text:9",)])
async def test_each_release_lets_one_stage_out(open_world: OpenWorld, faults: Sequence[str]) -> None:
    """With all stages held, each release moves a task one stage further, and it is settled in between."""
    world = await open_world(faults=faults)
    world.sandbox.hold()
    task_id = await world.settled_task()
    seen = [((await world.info(task_id))["status"], sorted({*kinds(world)}))]
    for word in WORDS:
        world.sandbox.release(word)
        assert not world.sandbox.is_settled
        await world.sandbox.settled()
        seen.append(((await world.info(task_id))["status"], sorted({*kinds(world)})))

    assert [
        ("PENDING", []),
        ("TEXT_SUCCESS", ["text"]),
        ("FIRST_SUCCESS", ["first", "text"]),
        ("SUCCESS", ["complete", "first", "text"]),
    ] == seen


async def test_any_number_of_tasks_wait_at_one_stage(world: World) -> None:
    """All tasks wait at a held stage, also later ones, and continue together."""
    world.sandbox.hold("first", "complete")
    ids = [await world.settled_task(), await world.settled_task()]
    world.sandbox.release("first")
    ids.append(await world.settled_task())
    assert ["FIRST_SUCCESS"] * 3 == [(await world.info(task_id))["status"] for task_id in ids]
    world.sandbox.release()
    world.sandbox.hold("complete")  # tasks that waited for the first stage continue all the same
    await world.sandbox.settled()
    assert ["SUCCESS"] * 3 == [(await world.info(task_id))["status"] for task_id in ids]
    assert "FIRST_SUCCESS" == (await world.info(await world.settled_task()))["status"]


async def test_a_failure_comes_with_its_stage(open_world: OpenWorld) -> None:
    """A task that will fail at a held stage has not failed yet."""
    world = await open_world(faults=["error=first:501"])
    world.sandbox.hold("first")
    task_id = await world.settled_task()
    assert "TEXT_SUCCESS" == (await world.info(task_id))["status"]
    world.sandbox.release("first")
    await world.sandbox.settled()
    assert (await world.info(task_id))["status"].endswith("FAILED")


async def test_nothing_needs_to_be_released_to_close(open_world: OpenWorld) -> None:
    """A sandbox closes at once while tasks wait at a stage."""
    world = await open_world()
    world.sandbox.hold("text")
    await world.settled_task()
    await world.sandbox.aclose()
    assert world.sandbox.is_settled


async def test_another_process_holds_over_http(world: World) -> None:
    """The control routes hold and release stages, and refuse an unknown one with a list of the known ones."""
    assert (200, {"held": ["text", "complete"]}) == await world.call(
        "POST", "/control/hold", json={"stages": ["complete", "text"]}
    )
    assert {"held": ["complete"]} == await world.post("/control/release", {"stages": ["text"]})
    assert {"held": list(WORDS)} == await world.post("/control/hold", {})
    for stages in (["third"], "third", [["text"]]):
        status, answer = await world.call("POST", "/control/release", json={"stages": stages})
        assert (400, True) == (status, "stages" in answer["error"])
    assert 400 == (await world.call("POST", "/control/hold", data=b"nonsense"))[0]
    assert {"held": []} == await world.post("/control/release", {"stages": []})


async def test_a_misspelt_control_does_nothing(world: World) -> None:
    """A name that a control does not take is refused with those that it takes; no body at all is an empty one."""
    status, answer = await world.call("POST", "/control/hold", json={"stage": "complete"})
    assert (400, "/control/hold takes stages, not stage") == (status, answer["error"])
    status, answer = await world.call("POST", "/control/faults", json={"fault": "duplicate", "times": 1})
    assert (400, "/control/faults takes faults and title and times, not fault") == (status, answer["error"])

    as_json = {"Content-Type": "application/json"}
    assert (200, {"held": list(WORDS)}) == await world.call("POST", "/control/hold", headers=as_json)
    assert (200, {"held": []}) == await world.call("POST", "/control/release", headers=as_json)
    assert 400 == (await world.call("POST", "/control/hold"))[0]


async def test_submits_are_listed_by_their_fields(world: World) -> None:
    """Each submit is listed with its fields, in order, but without the callback URL, which is a secret."""
    await world.settled_task(title="One")
    await world.settled_task(title="Two", callBackUrl="https://nobody.invalid/")
    assert ["One", "Two"] == [fields["title"] for fields in world.sandbox.submits]
    assert [set()] * 2 == [{"callBackUrl"} & set(fields) for fields in world.sandbox.submits]
