"""sunoapi.org: its own codes, callbacks with 13 keys, and sources that are fetched after the answer."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

EXTEND = "/sunoapi/api/v1/generate/extend"
UPLOAD_EXTEND = "/sunoapi/api/v1/generate/upload-extend"
ADD_INSTRUMENTAL = "/sunoapi/api/v1/generate/add-instrumental"
LONG = "longer than eight minutes"


async def test_songs_have_thirteen_keys_from_the_text_on(world: World) -> None:
    """Every callback lists both songs with the `source_` URLs, and the audio that exists by then."""
    answer = await world.post(EXTEND, world.kie_extend())
    await world.sandbox.settled()
    assert ["text", "first", "complete"] == [body["data"]["callbackType"] for body in world.listener.bodies]
    songs = [body["data"]["data"] for body in world.listener.bodies]
    assert [[False, False], [True, False], [True, True]] == [[bool(song["audio_url"]) for song in two] for two in songs]
    assert all(13 == len(song) for two in songs for song in two)
    info = await world.get("/sunoapi/api/v1/generate/record-info", taskId=answer["data"]["taskId"])
    assert "SUCCESS" == info["data"]["status"]


async def test_an_error_has_no_data(open_world: OpenWorld) -> None:
    """The error callback has code 400 and null as `data`."""
    world = await open_world(faults=["error=text"])
    task_id = (await world.post(ADD_INSTRUMENTAL, world.kie_instrumental()))["data"]["taskId"]
    await world.sandbox.settled()
    (error,) = world.listener.bodies
    assert (400, {"callbackType": "error", "task_id": task_id, "data": None}) == (
        error["code"],
        error["data"],
    )


BAD_BODIES: Sequence[tuple[str, dict[str, object], int, str]] = [
    (EXTEND, {"audioId": None}, 400, "audioId cannot be null"),
    (EXTEND, {"callBackUrl": None}, 400, "Please enter callBackUrl"),
    (EXTEND, {"callBackUrl": ""}, 400, "Please enter callBackUrl"),
    (EXTEND, {"title": None}, 400, "title cannot be null"),
    (EXTEND, {"prompt": "x" * 5001}, 413, "prompt must not exceed"),
    (EXTEND, {"title": "x" * 101}, 413, "title must not exceed"),
    (EXTEND, {"model": "V9"}, 400, "V9 is not supported"),
    (EXTEND, {"audioId": "nobody"}, 400, "There is no audio"),
    (EXTEND, {"continueAt": 3.0}, 400, "not within"),
    (UPLOAD_EXTEND, {"uploadUrl": None}, 400, "uploadUrl cannot be null"),
    (UPLOAD_EXTEND, {"continueAt": None}, 400, "continueAt cannot be null"),
    (ADD_INSTRUMENTAL, {"negativeTags": None}, 400, "negativeTags cannot be null"),
    (ADD_INSTRUMENTAL, {"model": "V3_5"}, 400, "V3_5 is not supported"),
    (ADD_INSTRUMENTAL, {"variety": True}, 400, "variety must be"),
]


async def test_bodies_are_checked(world: World) -> None:
    """Invalid parameters get code 400 and texts that are too long 413, in HTTP 200."""
    make = {EXTEND: world.kie_extend, UPLOAD_EXTEND: world.kie_upload, ADD_INSTRUMENTAL: world.kie_instrumental}
    for path, changes, code, named in BAD_BODIES:
        status, answer = await world.call("POST", path, json=make[path](**changes))
        assert (200, code, None) == (status, answer["code"], answer["data"])
        assert named in answer["msg"]


async def test_upload_extend_requires_less_than_at_kie(world: World) -> None:
    """Neither `instrumental` nor, in simple mode, `continueAt` is required."""
    body = world.kie_upload(
        defaultParamFlag=False,
        instrumental=None,
        continueAt=None,
        prompt=None,
        style=None,
        title=None,
    )
    assert 200 == (await world.post(UPLOAD_EXTEND, body))["code"]


async def test_an_instrumental_has_only_the_lengths_of_the_newest_page(world: World) -> None:
    """The V6 copy of the page limits V6's lyrics alone; the older one also had 100 characters for the title."""
    long = world.kie_instrumental(title="x" * 101, tags="x" * 1001, negativeTags="x" * 201)
    assert 200 == (await world.post(ADD_INSTRUMENTAL, long))["code"]
    assert 200 == (await world.post(ADD_INSTRUMENTAL, world.kie_instrumental(model="V5", lyrics="x" * 5001)))["code"]
    assert 413 == (await world.post(ADD_INSTRUMENTAL, world.kie_instrumental(model="V6", lyrics="x" * 5001)))["code"]


async def test_v6_adds_lyrics_and_variety(world: World) -> None:
    """Add-instrumental takes V6's new fields."""
    body = world.kie_instrumental(model="V6_MINI", lyrics="la", variety=4)
    assert 200 == (await world.post(ADD_INSTRUMENTAL, body))["code"]


@pytest.mark.parametrize(
    ("source", "changes", "code"),
    [("gone", {}, 451), ("page", {}, 400), ("empty", {}, 400), ("tone", {"continueAt": 9}, 400), (LONG, {}, 400)],
)
async def test_a_bad_source_fails_the_task(
    open_world: OpenWorld,
    tone: bytes,
    source: str,
    changes: dict[str, object],
    code: int,
) -> None:
    """A file that cannot be downloaded is 451 in the callback, one that cannot be used 400; no word is sensitive."""
    world = await open_world(**({"ready_seconds": 481.0} if source == LONG else {}))
    world.listener.sources |= {"tone": tone, "page": b"<html>", "empty": b""}
    url = world.sandbox.tune_url if source == LONG else f"{world.listener.url}/source/{source}"
    body = world.kie_upload(uploadUrl=url, **changes)
    task_id = (await world.post(UPLOAD_EXTEND, body))["data"]["taskId"]
    await world.sandbox.settled()
    assert [code] == [body["code"] for body in world.listener.bodies]
    info = await world.get("/sunoapi/api/v1/generate/record-info", taskId=task_id)
    assert "CREATE_TASK_FAILED" == info["data"]["status"]


async def test_credits_are_429(open_world: OpenWorld) -> None:
    """Without credits the code is 429, with "credits" in its text; the balance has its own path."""
    world = await open_world(credits=5)
    status, answer = await world.call("POST", EXTEND, json=world.kie_extend())
    assert (200, 429, "Insufficient credits") == (status, answer["code"], answer["msg"])
    assert {"code": 200, "msg": "success", "data": 5} == await world.get("/sunoapi/api/v1/generate/credit")


async def test_too_many_are_430(open_world: OpenWorld) -> None:
    """The 21st task within ten seconds gets code 430."""
    world = await open_world(submit_limit=20)
    answers = await asyncio.gather(*(world.post(EXTEND, world.kie_extend()) for _ in range(21)))
    assert [200] * 20 + [430] == sorted(answer["code"] for answer in answers)


async def test_keys_paths_and_ids_get_the_envelope(world: World) -> None:
    """A bad key is 401, a wrong path or method 404, an unknown task and a bad body 400."""
    assert 401 == (await world.call("POST", EXTEND, json={}, headers={"Authorization": "Bearer no"}))[1]["code"]
    assert 404 == (await world.get("/sunoapi/api/v1/chat/credit"))["code"]
    assert 404 == (await world.get(EXTEND))["code"]
    assert 400 == (await world.get("/sunoapi/api/v1/generate/record-info", taskId="nobody"))["code"]
    assert 400 == (await world.post(EXTEND, [1]))["code"]


async def test_the_apis_do_not_know_each_others_tasks(world: World) -> None:
    """A kie.ai task is unknown at sunoapi.org."""
    task_id = await world.settled_task()
    assert 400 == (await world.get("/sunoapi/api/v1/generate/record-info", taskId=task_id))["code"]
