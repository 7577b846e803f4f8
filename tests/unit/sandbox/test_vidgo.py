"""vidgo.ai: one submit, one webhook at the end, and a status without stages."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

SUBMIT = "/vidgo/api/generate/submit"
DETAIL = "/vidgo/api/generate/detail/music"


def submit(world: World, name: str = "extend-music", *, callback: str | None = "", **given: Any) -> dict[str, Any]:
    """Return a good body; `callback` None leaves it out."""
    inputs: dict[str, dict[str, object]] = {
        "extend-music": {"audio_id": world.sandbox.track_ids[0], "mv": "V5", "default_param_flag": False},
        "upload-and-extend-audio": {"upload_url": world.sandbox.tune_url, "mv": "V5", "continue_at": 1.0},
        "add-instrumental": {
            "upload_url": world.sandbox.voice_url,
            "title": "Night Bus",
            "tags": "lofi",
            "negative_tags": "metal",
        },
    }
    fields = {name: value for name, value in (inputs[name] | given).items() if value is not None}
    body: dict[str, Any] = {"model": name, "input": fields}
    return body if callback is None else body | {"callback_url": callback or world.listener.hook}


@pytest.mark.parametrize("model", ["extend-music", "upload-and-extend-audio", "add-instrumental"])
async def test_each_operation_ends_with_one_webhook(world: World, model: str) -> None:
    """One webhook is sent when the task is finished, and equals the status call's answer."""
    answer = await world.post(SUBMIT, submit(world, model))
    assert (200, "not_started") == (answer["code"], answer["data"]["status"])
    assert re.fullmatch(r"task-unified-\d+-[a-z0-9]{8}", answer["data"]["task_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", answer["data"]["created_time"])
    await world.sandbox.settled()
    (told,) = world.listener.bodies
    assert told == await world.get(DETAIL, task_id=answer["data"]["task_id"])
    assert ("finished", 2, None) == (
        told["data"]["status"],
        len(told["data"]["files"]),
        told["data"]["error_message"],
    )
    keys = ["audio_id", "audio_url", "image_url", "title", "tags", "duration", "prompt"]
    assert keys == list(told["data"]["files"][0])
    assert isinstance(told["data"]["files"][0]["duration"], int)
    assert model == world.sandbox.submissions[0].operation


@pytest.mark.parametrize(
    ("ages", "status"),
    [({"text_seconds": 1e18}, "not_started"), ({"complete_seconds": 1e18}, "running")],
)
async def test_files_are_empty_until_finished(open_world: OpenWorld, ages: dict[str, float], status: str) -> None:
    """A task that waits or runs shows no files, and sends no webhook."""
    world = await open_world(**ages)
    task_id = (await world.post(SUBMIT, submit(world)))["data"]["task_id"]
    data: Any = {"status": ""}
    while data["status"] != status:
        data = (await world.get(DETAIL, task_id=task_id))["data"]
    assert [] == data["files"]
    assert () == world.sandbox.deliveries


async def test_a_failure_keeps_code_200(open_world: OpenWorld) -> None:
    """A failed task has code 200 with a failed status and a message, and is charged."""
    world = await open_world(credits=100, faults=["error=first:501*1"])
    await world.post(SUBMIT, submit(world))
    await world.sandbox.settled()
    (told,) = world.listener.bodies
    assert (200, "failed", []) == (told["code"], told["data"]["status"], told["data"]["files"])
    assert "501" in told["data"]["error_message"]
    balance = "/vidgo/api/user/balance"
    assert 88 == (await world.get(balance))["data"]["credits_amount"]


async def test_without_a_callback_url_nothing_is_sent(world: World) -> None:
    """The callback URL is optional, and may be null."""
    await world.post(SUBMIT, submit(world, callback=None))
    await world.post(SUBMIT, submit(world) | {"callback_url": None})
    await world.sandbox.settled()
    assert (2, ()) == (len(world.sandbox.tasks), world.sandbox.deliveries)


async def test_any_2xx_takes_a_webhook(world: World) -> None:
    """A webhook answered with any 2xx is done, and one answered 500 is repeated."""
    world.listener.statuses = [500, 202]
    await world.post(SUBMIT, submit(world))
    await world.sandbox.settled()
    assert [500, 202] == [delivery.status for delivery in world.sandbox.deliveries]


@pytest.mark.parametrize(
    ("source", "given", "words"),
    [
        ("gone", {}, "download"),
        ("page", {}, "cannot be read"),
        ("tone", {"continue_at": 9}, "not within"),
    ],
)
async def test_a_bad_source_fails_the_task(
    world: World,
    tone: bytes,
    source: str,
    given: dict[str, Any],
    words: str,
) -> None:
    """A bad source fails the task with a message."""
    world.listener.sources |= {"tone": tone, "page": b"<html>"}
    given = {"continue_at": None, "upload_url": f"{world.listener.url}/source/{source}"} | given
    await world.post(SUBMIT, submit(world, "upload-and-extend-audio", **given))
    await world.sandbox.settled()
    (told,) = world.listener.bodies
    assert "failed" == told["data"]["status"]
    assert words in told["data"]["error_message"]


BAD_INPUTS: Sequence[tuple[str, dict[str, Any], int, str]] = [
    ("extend-music", {"audio_id": None}, 400, "audio_id is required"),
    ("extend-music", {"mv": None}, 400, "mv is required"),
    ("extend-music", {"mv": "V6"}, 400, "mv V6 is not supported"),
    ("extend-music", {"default_param_flag": True}, 400, "continue_at is required"),
    ("extend-music", {"title": "x" * 101}, 400, "title must not exceed"),
    ("extend-music", {"audio_id": "nobody"}, 404, "There is no audio"),
    ("upload-and-extend-audio", {"upload_url": None}, 400, "upload_url is required"),
    ("upload-and-extend-audio", {"default_param_flag": True}, 400, "style is required"),
    ("add-instrumental", {"negative_tags": None}, 400, "negative_tags is required"),
    ("add-instrumental", {"model": "V4"}, 400, "model V4 is not supported"),
    ("add-instrumental", {"mv": "V4"}, 400, "mv V4 is not supported"),
]


async def test_input_is_checked(world: World) -> None:
    """An error has its code in the body and as HTTP status, and its text in `error.message`."""
    for model, given, code, named in BAD_INPUTS:
        status, answer = await world.call("POST", SUBMIT, json=submit(world, model, **given))
        assert (code, code) == (status, answer["code"])
        assert named in answer["error"]["message"]


async def test_no_page_limits_the_texts_of_an_instrumental(world: World) -> None:
    """Texts that are too long for kie.ai's instrumentals are accepted."""
    long = {"title": "x" * 101, "tags": "x" * 1001, "negative_tags": "x" * 201}
    assert 200 == (await world.post(SUBMIT, submit(world, "add-instrumental", **long)))["code"]


async def test_the_wrapper_is_checked(world: World) -> None:
    """An unknown model, a missing input and an invalid or overlong callback URL are refused."""
    good = submit(world)
    long = f"{world.listener.hook}?{'x' * 2048}"
    changes: list[dict[str, Any]] = [
        {"model": "dance"},
        {"input": []},
        {"callback_url": "nowhere"},
        {"callback_url": long},
    ]
    for change in changes:
        assert 400 == (await world.call("POST", SUBMIT, json=good | change))[0]
    assert 200 == (await world.call("POST", SUBMIT, json=submit(world, "add-instrumental", mv="V5")))[0]


async def test_keys_paths_and_ids_get_vidgos_errors(open_world: OpenWorld) -> None:
    """A bad key is 401, an unknown path or task 404, a wrong method 405, an empty account 402."""
    world = await open_world(credits=1)
    for path in (SUBMIT, DETAIL, "/vidgo/api/user/balance"):
        method = "POST" if path == SUBMIT else "GET"
        status, answer = await world.call(method, path, headers={"Authorization": "sandbox-key"})
        assert (401, 401) == (status, answer["code"])
    assert 404 == (await world.call("GET", "/vidgo/api/nothing"))[0]
    assert 404 == (await world.call("GET", DETAIL, params={"task_id": "nobody"}))[0]
    assert 405 == (await world.call("GET", SUBMIT))[0]
    assert 402 == (await world.call("POST", SUBMIT, json=submit(world)))[0]


async def test_any_code_is_an_http_status(open_world: OpenWorld) -> None:
    """A fault's code is in the body and is the HTTP status."""
    world = await open_world(faults=["code=409"])
    status, answer = await world.call("POST", SUBMIT, json=submit(world))
    assert (409, 409) == (status, answer["code"])
