"""The sandbox's recovery of expired files: docs.sunoapi.org/suno-api/recovery-audio, read 2026-11-26."""

import asyncio

import pytest

from tests.unit.sandbox.conftest import OpenWorld

pytestmark = pytest.mark.asyncio

EXTEND = "/{}/api/v1/generate/extend"
RECOVERY = "/{}/api/v1/suno/recovery"
INFO = "/{}/api/v1/suno/recovery/record-info"
apis = pytest.mark.parametrize("api", ["kie", "sunoapi"])


@apis
async def test_links_expire_and_come_back(api: str, open_world: OpenWorld) -> None:
    """Expired links no longer work, and a recovery's links lead to the same files in the same order."""
    world = await open_world(faults=["expire_links"])
    task_id = (await world.post(EXTEND.format(api), world.kie_extend()))["data"]["taskId"]
    await world.sandbox.settled()
    old = world.listener.bodies[-1]["data"]["data"]
    answer = await world.post(RECOVERY.format(api), {"sunoTaskId": task_id, "callBackUrl": world.listener.hook})
    await world.sandbox.settled()
    called = world.listener.bodies[-1]
    info = await world.get(INFO.format(api), taskId=answer["data"]["taskId"])

    assert answer["data"]["taskId"] == called["task_id"] != task_id
    assert [song["id"] for song in old] == [file["id"] for file in called["data"]]
    assert (200, called["data"]) == (info["code"], info["data"])
    paths = [song["audio_url"].removeprefix(world.sandbox.url) for song in (*old, *called["data"])]
    assert [410, 410, 200, 200] == [(await world.call("GET", path))[0] for path in paths]


async def test_links_can_expire_later(open_world: OpenWorld) -> None:
    """Links can expire a given number of the API's seconds after the task was complete."""
    world = await open_world(faults=["expire_links=1000000000000"])
    await world.settled_task()
    path = world.listener.bodies[-1]["data"]["data"][0]["audio_url"].removeprefix(world.sandbox.url)

    assert 200 == (await world.call("GET", path))[0]


@apis
async def test_a_recovery_takes_its_time(api: str, open_world: OpenWorld) -> None:
    """Until a recovery is done its status is code 201 without data, and no webhook is sent."""
    world = await open_world()
    task_id = (await world.post(EXTEND.format(api), world.kie_extend()))["data"]["taskId"]
    await world.sandbox.settled()
    sent = len(world.listener.bodies)
    world.sandbox.complete_seconds = 1e12
    answer = await world.post(RECOVERY.format(api), {"sunoTaskId": task_id, "callBackUrl": world.listener.hook})
    await asyncio.sleep(0)

    info = await world.get(INFO.format(api), taskId=answer["data"]["taskId"])

    assert (201, None, sent) == (info["code"], info["data"], len(world.listener.bodies))
    assert "recovery" == world.sandbox.submissions[-1].operation


@apis
async def test_a_failed_recovery_says_so_for_each_file(api: str, open_world: OpenWorld) -> None:
    """A failed recovery has code 500 and an error for each file, in the webhook and in the status."""
    world = await open_world()
    task_id = (await world.post(EXTEND.format(api), world.kie_extend()))["data"]["taskId"]
    await world.sandbox.settled()
    world.sandbox.script("error=complete")
    answer = await world.post(RECOVERY.format(api), {"sunoTaskId": task_id, "callBackUrl": world.listener.hook})
    await world.sandbox.settled()
    info = await world.get(INFO.format(api), taskId=answer["data"]["taskId"])

    assert [500, 500] == [info["code"], world.listener.bodies[-1]["code"]]
    assert [("failed", "clip_error", "")] * 2 == [
        (file["status"], file["error"], file["audio_url"]) for file in info["data"]
    ]


@apis
async def test_what_cannot_be_recovered_is_refused(api: str, open_world: OpenWorld) -> None:
    """A recovery needs a complete task and a callback URL, and is unknown to the other calls."""
    world = await open_world()
    task_id = (await world.post(EXTEND.format(api), world.kie_extend()))["data"]["taskId"]
    await world.sandbox.settled()
    hook = world.listener.hook
    recovery = (await world.post(RECOVERY.format(api), {"sunoTaskId": task_id, "callBackUrl": hook}))["data"]["taskId"]
    await world.sandbox.settled()

    bad: list[dict[str, object]] = [
        {},
        {"sunoTaskId": task_id},
        {"sunoTaskId": task_id, "callBackUrl": "nowhere"},
        {"sunoTaskId": "nobody", "callBackUrl": hook},
        {"sunoTaskId": recovery, "callBackUrl": hook},
    ]
    codes = [(await world.post(RECOVERY.format(api), body))["code"] for body in bad]
    codes += [(await world.get(INFO.format(api), taskId=asked))["code"] for asked in ("", "nobody", task_id)]
    codes += [(await world.get(f"/{api}/api/v1/generate/record-info", taskId=recovery))["code"]]

    assert {422 if api == "kie" else 400} == set(codes)
