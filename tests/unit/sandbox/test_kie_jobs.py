"""kie.ai's jobs route: one submit for all operations, its states, and its result as JSON in a string."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

CREATE = "/kie/api/v1/jobs/createTask"


def job(world: World, operation: str = "extend", *, callback: str | None = "", **given: Any) -> dict[str, object]:
    """Return a good body; `callback` None leaves it out."""
    inputs: dict[str, dict[str, object]] = {
        "extend": {
            "audio_id": world.sandbox.track_ids[1],
            "model": "V6",
            "continue_at": 1.5,
            "prompt": "la la",
        },
        "upload-and-extend-audio": {"upload_url": world.sandbox.tune_url, "model": "V5", "title": "On"},
        "add-instrumental": {
            "upload_url": world.sandbox.voice_url,
            "title": "Rain",
            "tags": "piano",
            "negative_tags": "metal",
        },
    }
    fields = {name: value for name, value in (inputs[operation] | given).items() if value is not None}
    body: dict[str, object] = {"model": f"ai-music-api/{operation}", "input": fields}
    return body if callback is None else body | {"callBackUrl": callback or world.listener.hook}


async def record(world: World, task_id: str) -> Any:
    """Return the `data` of the status call."""
    return (await world.get("/kie/api/v1/jobs/recordInfo", taskId=task_id))["data"]


@pytest.mark.parametrize("operation", ["extend", "upload-and-extend-audio", "add-instrumental"])
async def test_each_operation_runs_to_its_end(world: World, operation: str) -> None:
    """One route makes the task, callbacks have the legacy shape, and the result is JSON inside a string."""
    answer = await world.post(CREATE, job(world, operation))
    task_id = answer["data"]["taskId"]
    await world.sandbox.settled()
    assert ["text", "first", "complete"] == [body["data"]["callbackType"] for body in world.listener.bodies]
    assert all(task_id == body["data"]["task_id"] for body in world.listener.bodies)
    data = await record(world, task_id)
    assert (f"ai-music-api/{operation}", "success", "", 12.0) == (
        data["model"],
        data["state"],
        data["failCode"],
        data["creditsConsumed"],
    )
    assert job(world, operation) == msgspec.json.decode(data["param"])
    result = msgspec.json.decode(data["resultJson"])
    assert result == data["response"]
    assert 2 == len(result["data"])
    assert all(song["audio_url"].startswith(world.sandbox.url) for song in result["data"])
    assert data["costTime"] == data["completeTime"] - data["createTime"]
    assert f"ai-music-api/{operation}" == world.sandbox.submissions[0].operation


async def test_the_callback_url_may_be_left_out(world: World) -> None:
    """Without a callback URL the task runs all the same, and nothing is sent."""
    answer = await world.post(CREATE, job(world, callback=None))
    await world.sandbox.settled()
    assert () == world.sandbox.deliveries
    assert "success" == (await record(world, answer["data"]["taskId"]))["state"]


@pytest.mark.parametrize(
    ("ages", "count", "state"),
    [
        ({"text_seconds": 1e18}, 0, "waiting"),
        ({"first_seconds": 1e18}, 1, "queuing"),
        ({"complete_seconds": 1e18}, 2, "generating"),
        ({}, 3, "success"),
    ],
)
async def test_the_state_follows_the_clock(
    open_world: OpenWorld,
    ages: dict[str, float],
    count: int,
    state: str,
) -> None:
    """The state goes through the documented words, and there is no result before success."""
    world = await open_world(**ages)
    task_id = (await world.post(CREATE, job(world)))["data"]["taskId"]
    await world.listener.wait(count)
    data = await record(world, task_id)
    assert (state, state == "success") == (data["state"], data["resultJson"] is not None)
    assert (data["completeTime"] is None) == (state != "success")


async def test_a_failure_is_in_callback_and_status(open_world: OpenWorld) -> None:
    """A failed job has its code in the callback and in the status."""
    world = await open_world(faults=["error=first:500"])
    task_id = (await world.post(CREATE, job(world)))["data"]["taskId"]
    await world.sandbox.settled()
    error = world.listener.bodies[-1]
    assert (500, "error", task_id) == (error["code"], error["data"]["callbackType"], error["data"]["task_id"])
    data = await record(world, task_id)
    assert ("fail", "500", None, 0) == (
        data["state"],
        data["failCode"],
        data["resultJson"],
        data["creditsConsumed"],
    )


@pytest.mark.parametrize(
    ("source", "given", "code"),
    [("gone", {}, "451"), ("page", {}, "451")],
)
async def test_a_bad_source_fails_the_job(
    world: World,
    tone: bytes,
    source: str,
    given: dict[str, Any],
    code: str,
) -> None:
    """The source is fetched after the submit's answer, and a bad one fails the job."""
    world.listener.sources |= {"tone": tone, "page": b"<html>"}
    body = job(world, "upload-and-extend-audio", upload_url=f"{world.listener.url}/source/{source}", **given)
    task_id = (await world.post(CREATE, body))["data"]["taskId"]
    await world.sandbox.settled()
    data = await record(world, task_id)
    assert ("fail", code) == (data["state"], data["failCode"])


async def test_a_point_beyond_the_end_means_the_end(world: World, tone: bytes) -> None:
    """A job that continues beyond the end of its source continues at the end, as was measured."""
    world.listener.sources["tone"] = tone
    url = f"{world.listener.url}/source/tone"
    task_id = (await world.post(CREATE, job(world, "upload-and-extend-audio", upload_url=url, continue_at=9)))["data"][
        "taskId"
    ]
    await world.sandbox.settled()
    data = await record(world, task_id)
    assert "success" == data["state"]
    assert data["response"]["data"][0]["duration"] < 9


BAD_INPUTS: Sequence[tuple[str, dict[str, Any], int, str]] = [
    ("extend", {"audio_id": None}, 422, "audio_id is required"),
    ("extend", {"model": None}, 422, "model is required"),
    ("extend", {"model": "V9"}, 422, "model V9"),
    ("extend", {"audio_id": "nobody"}, 404, "There is no audio"),
    ("extend", {"variety": 5}, 422, "variety must be"),
    ("extend", {"lyrics": "x" * 5001}, 422, "lyrics must not exceed"),
    ("extend", {"instrumental": True}, 422, "prompt must not be sent"),
    ("extend", {"continue_at": -1}, 422, "continue_at must be"),
    ("upload-and-extend-audio", {"upload_url": None}, 422, "upload_url is required"),
    ("upload-and-extend-audio", {"upload_url": "s3://a/b"}, 422, "upload_url must be"),
    ("add-instrumental", {"negative_tags": None}, 422, "negative_tags is required"),
    ("add-instrumental", {"tags": "x" * 1001}, 422, "tags must not exceed"),
]


async def test_input_is_checked(world: World) -> None:
    """A wrong input gets kie.ai's code and the field's snake-case name."""
    for operation, given, code, named in BAD_INPUTS:
        answer = await world.post(CREATE, job(world, operation, **given))
        assert code == answer["code"]
        assert named in answer["msg"]


async def test_the_wrapper_is_checked(world: World) -> None:
    """An unknown slug, a missing input and a bad callback URL are validation errors."""
    good = job(world)
    for change in (
        {"model": "ai-music-api/dance"},
        {"model": 5},
        {"input": None},
        {"callBackUrl": "nowhere"},
    ):
        assert 422 == (await world.post(CREATE, good | change))["code"]
    assert () == world.sandbox.tasks


async def test_unknown_tasks_have_their_own_words(world: World) -> None:
    """A missing id gets 400; an unknown one, or one of the other routes, 422 "recordInfo is null"."""
    legacy = await world.settled_task()
    path = "/kie/api/v1/jobs/recordInfo"
    assert 400 == (await world.get(path))["code"]
    for unknown in ("nobody", legacy):
        assert {"code": 422, "msg": "recordInfo is null", "data": None} == await world.get(path, taskId=unknown)


@pytest.mark.parametrize(
    ("operation", "word"),
    [
        ("extend", "extend"),
        ("upload-and-extend-audio", "upload_extend"),
        ("add-instrumental", "add_instrumental"),
    ],
)
async def test_the_old_status_call_reads_jobs(world: World, operation: str, word: str) -> None:
    """The older routes' `record-info` finds a job as well, since a production client polls it there."""
    own = (await world.post(CREATE, job(world, operation)))["data"]["taskId"]
    await world.sandbox.settled()
    info = await world.info(own)
    assert ("SUCCESS", word, 2) == (info["status"], info["operationType"], len(info["response"]["sunoData"]))


async def test_both_routes_share_the_accounts_limit(open_world: OpenWorld) -> None:
    """Tasks of either route count against one limit."""
    world = await open_world(submit_limit=2)
    await world.kie_task()
    answers = await asyncio.gather(*(world.post(CREATE, job(world)) for _ in range(2)))
    assert [200, 429] == sorted(answer["code"] for answer in answers)


async def test_a_callback_exception_may_hide_the_result(open_world: OpenWorld) -> None:
    """With the fault the state is success, with or without the result."""
    world = await open_world(faults=["callback_exception=without"])
    task_id = (await world.post(CREATE, job(world)))["data"]["taskId"]
    await world.sandbox.settled()
    data = await record(world, task_id)
    assert ("success", None) == (data["state"], data["resultJson"])
    unheard = (await world.post(CREATE, job(world, callback=None)))["data"]["taskId"]
    await world.sandbox.settled()
    assert (await record(world, unheard))["resultJson"] is None
