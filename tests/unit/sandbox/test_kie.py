"""kie.ai's per-operation routes: bodies, callbacks, status by stage, signatures, and every kind of error."""

import asyncio
import re
from collections.abc import Sequence
from itertools import product

import msgspec
import pytest

from audioext.sandbox.apis.kie import sign
from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

EXTEND = "/kie/api/v1/generate/extend"
UPLOAD_EXTEND = "/kie/api/v1/generate/upload-extend"
ADD_INSTRUMENTAL = "/kie/api/v1/generate/add-instrumental"

TEN_KEYS = {
    "id",
    "audio_url",
    "stream_audio_url",
    "image_url",
    "prompt",
    "model_name",
    "title",
    "tags",
    "createTime",
    "duration",
}
SOURCE_KEYS = {"source_audio_url", "source_stream_audio_url", "source_image_url"}


async def test_an_extension_is_called_back_in_three_stages(world: World) -> None:
    """Text, first and complete arrive in this order, in kie.ai's mixed case, with 10 keys per song."""
    answer = await world.post(EXTEND, world.kie_extend())
    task_id = answer["data"]["taskId"]
    assert {"code": 200, "msg": "success", "data": {"taskId": task_id}} == answer
    assert re.fullmatch(r"[0-9a-f]{32}", task_id)
    await world.sandbox.settled()
    text, first, complete = world.listener.bodies
    nothing = {"callbackType": "text", "task_id": task_id, "data": []}
    assert {"code": 200, "msg": "Text generation completed.", "data": nothing} == text
    assert ("first", 1) == (first["data"]["callbackType"], len(first["data"]["data"]))
    assert "First track generated successfully." == first["msg"]
    assert ("complete", 2) == (complete["data"]["callbackType"], len(complete["data"]["data"]))
    song = complete["data"]["data"][0]
    assert TEN_KEYS == set(song)
    assert ("Part two", "Classical", "on and on") == (song["title"], song["tags"], song["prompt"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", song["createTime"])
    assert first["data"]["data"][0] == song


async def test_an_upload_extension_has_thirteen_keys(world: World) -> None:
    """The callbacks of upload-extend carry the `source_` URLs as well."""
    await world.post(UPLOAD_EXTEND, world.kie_upload())
    await world.sandbox.settled()
    assert TEN_KEYS | SOURCE_KEYS == set(world.listener.bodies[-1]["data"]["data"][0])


async def test_an_instrumental_is_as_long_as_its_source(world: World) -> None:
    """Add-instrumental has its own text message, 10 keys, and tracks of the source's length."""
    await world.post(ADD_INSTRUMENTAL, world.kie_instrumental())
    await world.sandbox.settled()
    text, _, complete = world.listener.bodies
    assert "Text generation completed successfully." == text["msg"]
    assert TEN_KEYS == set(complete["data"]["data"][0])
    assert [3.0, 3.0] == [song["duration"] for song in complete["data"]["data"]]


async def test_simple_mode_continues_at_the_end(world: World) -> None:
    """Without custom parameters only the id is needed, and the source is kept whole."""
    body = world.kie_extend(defaultParamFlag=False, prompt=None, style=None, title=None, continueAt=None)
    await world.post(EXTEND, body)
    await world.sandbox.settled()
    assert world.listener.bodies[-1]["data"]["data"][0]["duration"] > 3.0


@pytest.mark.parametrize(
    ("ages", "count", "status"),
    [
        ({"text_seconds": 1e18}, 0, "PENDING"),
        ({"first_seconds": 1e18}, 1, "TEXT_SUCCESS"),
        ({"complete_seconds": 1e18}, 2, "FIRST_SUCCESS"),
        ({}, 3, "SUCCESS"),
    ],
)
async def test_the_status_follows_the_clock(
    open_world: OpenWorld,
    ages: dict[str, float],
    count: int,
    status: str,
) -> None:
    """A status call shows the stage of the last webhook, and the audio that exists by then."""
    world = await open_world(**ages)
    task_id = await world.kie_task()
    await world.listener.wait(count)
    info = await world.info(task_id)
    assert (task_id, status) == (info["taskId"], info["status"])
    assert ("extend", None) == (info["operationType"], info["errorCode"])
    assert world.kie_extend() == msgspec.json.decode(info["param"])
    if status == "PENDING":
        assert info["response"] is None
        return
    songs = info["response"]["sunoData"]
    audible = {"TEXT_SUCCESS": [False, False], "FIRST_SUCCESS": [True, False], "SUCCESS": [True, True]}[status]
    assert audible == [bool(song["audioUrl"]) for song in songs]
    assert audible == [song["duration"] is not None for song in songs]
    assert audible == [song["sourceAudioUrl"] is not None for song in songs]
    assert all(song["streamAudioUrl"].startswith(world.sandbox.url) for song in songs)
    assert all(len(str(song["createTime"])) == 13 for song in songs)


async def test_made_tracks_can_be_extended_in_turn(world: World) -> None:
    """The id of a result can be extended in turn, with the same model only."""
    await world.settled_task()
    made = world.listener.bodies[-1]["data"]["data"][1]
    wrong = await world.post(EXTEND, world.kie_extend(audioId=made["id"], model="V4_5"))
    assert 422 == wrong["code"]
    right = await world.post(EXTEND, world.kie_extend(audioId=made["id"], continueAt=3.5))
    assert 200 == right["code"]
    await world.sandbox.settled()
    song = world.listener.bodies[-1]["data"]["data"][0]
    status, audio = await world.call("GET", song["audio_url"].removeprefix(world.sandbox.url))
    assert 200 == status
    assert len(audio) > 1000


BAD_EXTENDS: Sequence[tuple[dict[str, object], int, str]] = [
    ({"audioId": None}, 422, "audioId is required"),
    ({"model": None}, 422, "model is required"),
    ({"callBackUrl": None}, 422, "Please enter callBackUrl"),
    ({"callBackUrl": ""}, 422, "Please enter callBackUrl"),
    ({"defaultParamFlag": None}, 422, "defaultParamFlag is required"),
    ({"prompt": None}, 422, "prompt is required"),
    ({"style": None}, 422, "style is required"),
    ({"title": None}, 422, "title is required"),
    ({"continueAt": None}, 422, "continueAt is required"),
    ({"defaultParamFlag": "true"}, 422, "defaultParamFlag must be a boolean"),
    ({"prompt": "x" * 5001}, 422, "prompt must not exceed 5000"),
    ({"style": "x" * 1001}, 422, "style must not exceed 1000"),
    ({"title": "x" * 101}, 422, "title must not exceed 100"),
    ({"title": "x" * 81, "model": "V4_5ALL"}, 422, "title must not exceed 80"),
    ({"prompt": "x" * 3001, "model": "V4"}, 422, "prompt must not exceed 3000"),
    ({"style": "x" * 201, "model": "V4"}, 422, "style must not exceed 200"),
    ({"title": 7}, 422, "title must be a string"),
    ({"model": "V9"}, 422, "model V9 is not supported"),
    ({"vocalGender": "male"}, 422, "vocalGender must be m or f"),
    ({"styleWeight": 1.5}, 422, "styleWeight must be"),
    ({"weirdnessConstraint": 0.655}, 422, "weirdnessConstraint must be"),
    ({"audioWeight": "0.5"}, 422, "audioWeight must be"),
    ({"continueAt": 0}, 422, "continueAt must be"),
    ({"continueAt": 3}, 422, "not within the audio"),
    ({"callBackUrl": "hooks.example"}, 422, "callBackUrl must be"),
    ({"callBackUrl": "http://[bad"}, 422, "callBackUrl must be"),
    ({"personaModel": "loud"}, 422, "personaModel must be"),
    ({"instrumental": True}, 422, "prompt must not be sent"),
    ({"defaultParamFlag": False, "personaId": "p"}, 422, "personaId is only"),
    ({"audioId": " "}, 422, "audioId must be"),
    ({"audioId": "00000000-0000-4000-8000-000000000000"}, 404, "There is no audio"),
]


async def test_extend_checks_its_body(world: World) -> None:
    """A wrong body gets HTTP 200 with kie.ai's code and the field's name, and makes no task."""
    for changes, code, named in BAD_EXTENDS:
        status, answer = await world.call("POST", EXTEND, json=world.kie_extend(**changes))
        assert (200, code, None) == (status, answer["code"], answer["data"])
        assert named in answer["msg"]
        assert (None, code) == (world.sandbox.submissions[-1].task_id, world.sandbox.submissions[-1].code)
    assert () == world.sandbox.tasks


async def test_all_problems_are_named_at_once(world: World) -> None:
    """One answer names every field that is wrong."""
    answer = await world.post(EXTEND, {"defaultParamFlag": True, "styleWeight": 2})
    for name in ("audioId", "model", "callBackUrl", "prompt", "style", "title", "continueAt", "styleWeight"):
        assert name in answer["msg"]


@pytest.mark.parametrize("api", ["kie", "sunoapi"])
async def test_every_model_of_v6_is_taken(world: World, api: str) -> None:
    """The V6 family is on no extend page, but working clients extend with it (wire S8)."""
    path = f"/{api}/api/v1/generate"
    for model in ("V6", "V6_MINI", "V6_WILD"):
        assert 200 == (await world.post(f"{path}/extend", world.kie_extend(model=model)))["code"]
        assert 200 == (await world.post(f"{path}/upload-extend", world.kie_upload(model=model)))["code"]
        assert 200 == (await world.post(f"{path}/add-instrumental", world.kie_instrumental(model=model)))["code"]


@pytest.mark.parametrize("name", ["uploadUrl", "defaultParamFlag", "continueAt", "model"])
async def test_upload_extend_requires_its_fields(world: World, name: str) -> None:
    """Upload-extend insists on `continueAt` too, also in simple mode, but not on `instrumental`."""
    changes: dict[str, object] = {"prompt": None, "style": None, "title": None, "instrumental": None}
    body = world.kie_upload(**{"defaultParamFlag": False} | changes)
    assert 200 == (await world.post(UPLOAD_EXTEND, body))["code"]
    del body[name]
    answer = await world.post(UPLOAD_EXTEND, body)
    assert (422, f"{name} is required") == (answer["code"], answer["msg"])


async def test_custom_upload_extend_takes_no_prompt(world: World) -> None:
    """In custom mode style and title are required and the prompt is not, as the page's newer text says."""
    assert 200 == (await world.post(UPLOAD_EXTEND, world.kie_upload(prompt=None)))["code"]
    answer = await world.post(UPLOAD_EXTEND, world.kie_upload(style=None, title=None))
    assert "style is required; title is required" == answer["msg"]


async def test_what_is_left_out_is_inherited(world: World) -> None:
    """In simple mode title, tags and prompt are inherited from the source, and given ones are ignored."""
    await world.settled_task()
    made = world.listener.bodies[-1]["data"]["data"][0]
    await world.settled_task(audioId=made["id"], defaultParamFlag=False, title="Ignored", style=None, prompt=None)
    again = world.listener.bodies[-1]["data"]["data"][0]
    assert {name: made[name] for name in ("title", "tags", "prompt")} == {
        name: again[name] for name in ("title", "tags", "prompt")
    }


async def test_a_live_api_takes_what_the_page_refuses(open_world: OpenWorld) -> None:
    """With `faithful="live"` an unknown audio id and a bare custom upload are accepted, as was recorded."""
    world = await open_world(faithful="live")
    unknown = await world.settled_task(audioId="00000000-0000-4000-8000-000000000000")
    assert 200 == (await world.post(UPLOAD_EXTEND, world.kie_upload(style=None, title=None)))["code"]
    answer = await world.get("/kie/api/v1/generate/record-info", taskId="nobody")
    assert {"code": 200, "msg": "success", "data": None} == answer
    assert "CREATE_TASK_FAILED" == (await world.info(unknown))["status"]


@pytest.mark.parametrize("name", ["uploadUrl", "title", "tags", "negativeTags"])
async def test_add_instrumental_requires_its_fields(world: World, name: str) -> None:
    """Negative tags are required here; the model is not."""
    answer = await world.post(ADD_INSTRUMENTAL, world.kie_instrumental(**{name: None}))
    assert (422, f"{name} is required") == (answer["code"], answer["msg"])


async def test_add_instrumental_knows_fewer_models(world: World) -> None:
    """V4 can extend, but cannot add an instrumental."""
    assert 200 == (await world.post(EXTEND, world.kie_extend(model="V4")))["code"]
    answer = await world.post(ADD_INSTRUMENTAL, world.kie_instrumental(model="V4"))
    assert (422, "model V4 is not supported") == (answer["code"], answer["msg"])


async def test_an_instrumental_has_its_own_lengths(world: World) -> None:
    """Tags and negative tags have lengths of their own; no page has one for the title."""
    longest = {"title": "x" * 101, "tags": "x" * 1000, "negativeTags": "x" * 200}
    assert 200 == (await world.post(ADD_INSTRUMENTAL, world.kie_instrumental(**longest)))["code"]
    for name in ("tags", "negativeTags"):
        answer = await world.post(ADD_INSTRUMENTAL, world.kie_instrumental(**longest | {name: longest[name] + "x"}))
        assert (422, f"{name} must not exceed {len(longest[name])} characters") == (answer["code"], answer["msg"])


async def test_a_submission_shows_what_came_of_it(world: World) -> None:
    """A submission shows its callback URL, task and codes, and unknown fields are ignored, as at the API."""
    await world.post(EXTEND, world.kie_extend(callbackUrl="x", negative_tags="y"))
    submission = world.sandbox.submissions[0]
    assert ("kie", "extend") == (submission.provider, submission.operation)
    assert world.listener.hook == submission.callback_url
    assert (200, 200) == (submission.http_status, submission.code)
    assert world.sandbox.tasks[0].id == submission.task_id


async def test_a_bad_key_gets_the_code_in_http_200(world: World) -> None:
    """An unauthenticated call is answered HTTP 200 with code 401."""
    for path, header in product(
        (EXTEND, UPLOAD_EXTEND, ADD_INSTRUMENTAL), ("Bearer wrong", "sandbox-key", "", "Bearer schlüssel")
    ):
        status, answer = await world.call("POST", path, json={}, headers={"Authorization": header})
        assert (200, {"code": 401, "msg": "You do not have access permissions", "data": None}) == (status, answer)


async def test_a_body_that_is_not_a_json_object_is_refused(world: World) -> None:
    """Anything but a JSON object is a validation error."""
    for body in (b"", b"{", b"[]", b'{"a": NaN}', b"\xff", b"[" * 100_000):
        _, answer = await world.call("POST", EXTEND, data=body, headers={"Content-Type": "application/json"})
        assert 422 == answer["code"]


async def test_json_needs_its_content_type(world: World) -> None:
    """JSON without its content type is refused."""
    _, answer = await world.call("POST", EXTEND, data=msgspec.json.encode(world.kie_extend()))
    assert (422, "Content-Type must be application/json") == (answer["code"], answer["msg"])


@pytest.mark.parametrize(("method", "path"), [("GET", "/kie/api/v1/nothing"), ("POST", "/kie"), ("PUT", EXTEND)])
async def test_an_unknown_path_gets_the_envelope(world: World, method: str, path: str) -> None:
    """An unknown path or method is answered in the API's envelope."""
    status, answer = await world.call(method, path)
    assert (404, 404, None) == (status, answer["code"], answer["data"])


@pytest.mark.parametrize(
    ("params", "message"),
    [({"taskId": "nobody"}, "recordInfo is null"), ({}, "taskId is required")],
)
async def test_an_unknown_task_gets_422(world: World, params: dict[str, str], message: str) -> None:
    """A status call for an unknown task is answered with code 422."""
    answer = await world.get("/kie/api/v1/generate/record-info", **params)
    assert {"code": 422, "msg": message, "data": None} == answer


@pytest.mark.parametrize("path", ["generate/record-info", "chat/credit"])
async def test_reading_needs_the_key_too(world: World, path: str) -> None:
    """Status and credits check the key."""
    _, answer = await world.call("GET", f"/kie/api/v1/{path}", headers={"Authorization": "Bearer no"})
    assert 401 == answer["code"]


async def test_the_source_is_fetched_before_the_answer(world: World, tone: bytes) -> None:
    """A source that is missing, not audio or too short is refused at the submit, and no task is made."""
    host = f"{world.listener.url}/source"
    world.listener.sources |= {"tone.wav": tone, "page.html": b"<html>"}
    missing = await world.post(UPLOAD_EXTEND, world.kie_upload(uploadUrl=f"{host}/gone.mp3"))
    broken = await world.post(UPLOAD_EXTEND, world.kie_upload(uploadUrl=f"{host}/page.html"))
    short = await world.post(UPLOAD_EXTEND, world.kie_upload(uploadUrl=f"{host}/tone.wav", continueAt=1.5))
    assert [451, 451, 422] == [missing["code"], broken["code"], short["code"]]
    good = await world.post(UPLOAD_EXTEND, world.kie_upload(uploadUrl=f"{host}/tone.wav", continueAt=0.5))
    assert 200 == good["code"]
    assert 1 == len(world.sandbox.tasks)


async def test_v4_5all_takes_a_minute_at_most(open_world: OpenWorld) -> None:
    """A source of over a minute is too long for V4_5ALL only."""
    world = await open_world(ready_seconds=61.0)
    assert 422 == (await world.post(UPLOAD_EXTEND, world.kie_upload(model="V4_5ALL")))["code"]
    assert 200 == (await world.post(UPLOAD_EXTEND, world.kie_upload(model="V5")))["code"]


async def test_eight_minutes_are_the_limit_of_extensions_alone(open_world: OpenWorld) -> None:
    """A source of over eight minutes cannot be extended; no page has a limit for instrumentals."""
    world = await open_world(ready_seconds=481.0, text_seconds=1e18)
    assert 422 == (await world.post(UPLOAD_EXTEND, world.kie_upload()))["code"]
    assert 200 == (await world.post(ADD_INSTRUMENTAL, world.kie_instrumental()))["code"]


async def test_credits_are_spent_and_run_out(open_world: OpenWorld) -> None:
    """A task costs its price, and without credits the answer is 402."""
    world = await open_world(credits=24.5)
    credit = "/kie/api/v1/chat/credit"
    assert 24.5 == (await world.get(credit))["data"]
    await world.settled_task()
    await world.settled_task()
    assert 0.5 == (await world.get(credit))["data"]
    assert 402 == (await world.post(EXTEND, world.kie_extend()))["code"]


async def test_more_than_the_limit_gets_http_429(open_world: OpenWorld) -> None:
    """The 21st new task within ten seconds is answered with HTTP 429, whichever route it uses."""
    world = await open_world(submit_limit=20)
    answers = await asyncio.gather(*(world.post(EXTEND, world.kie_extend()) for _ in range(25)))
    assert [200] * 20 + [429] * 5 == sorted(answer["code"] for answer in answers)
    status, answer = await world.call("POST", ADD_INSTRUMENTAL, json=world.kie_instrumental())
    assert (429, 429) == (status, answer["code"])
    assert 20 == len(world.sandbox.tasks)


@pytest.mark.parametrize(
    ("fault", "code", "status", "count"),
    [
        ("error", 501, "GENERATE_AUDIO_FAILED", 3),
        ("error=text:400", 400, "SENSITIVE_WORD_ERROR", 1),
        ("error=text:500", 500, "CREATE_TASK_FAILED", 1),
        ("error=first:413", 413, "SENSITIVE_WORD_ERROR", 2),
    ],
)
async def test_a_failed_task_shows_in_callback_and_status(
    open_world: OpenWorld, fault: str, code: int, status: str, count: int
) -> None:
    """A failure ends the callbacks with an error, and shows in the status without a response."""
    world = await open_world(faults=[fault])
    info = await world.info(await world.settled_task())
    assert (status, code, None) == (info["status"], info["errorCode"], info["response"])
    assert (count, code) == (len(world.listener.bodies), world.listener.bodies[-1]["code"])


async def test_an_errors_data_differs_by_operation(open_world: OpenWorld) -> None:
    """The error callback's `data` is `[]` for an extension and null for an instrumental."""
    world = await open_world(faults=["error=text"])
    ids = [(await world.post(EXTEND, world.kie_extend()))["data"]["taskId"]]
    await world.sandbox.settled()
    ids.append((await world.post(ADD_INSTRUMENTAL, world.kie_instrumental()))["data"]["taskId"])
    await world.sandbox.settled()
    assert [
        {"callbackType": "error", "task_id": ids[0], "data": []},
        {"callbackType": "error", "task_id": ids[1], "data": None},
    ] == [body["data"] for body in world.listener.bodies]


@pytest.mark.parametrize(
    ("key", "task_id", "timestamp", "signature"),
    [
        (
            "demo-hmac-key",
            "0f3a9c7be1d24c55a6b8d90e7f112233",
            "1790000000",
            "fFells+5MVdErKVqs08zP2WnjDH8alCzqqMnoLoDUx4=",
        ),
        ("ключ-λ", "task-42", "1790000001", "DV9msHhbH5y6nrHTxmc75M9AwLl0xwAYb/54rfUGgL8="),
    ],
)
async def test_the_signature_fits_the_sheets_vectors(key: str, task_id: str, timestamp: str, signature: str) -> None:
    """`sign` gives the signatures of the published test vectors."""
    assert signature == sign(key, task_id, timestamp)


async def test_webhooks_are_signed_once_there_is_a_key(open_world: OpenWorld) -> None:
    """With a key, each webhook's header is the signature of its task and of the time in its other header."""
    world = await open_world(hmac_key="ключ-λ")
    task_id = await world.settled_task()
    assert 3 == len(world.listener.received)
    for received in world.listener.received:
        timestamp = received.headers["X-Webhook-Timestamp"]
        assert sign("ключ-λ", task_id, timestamp) == received.headers["X-Webhook-Signature"]


@pytest.mark.parametrize("key", [None, "secret"])
async def test_a_bad_signature_is_bad(open_world: OpenWorld, key: str | None) -> None:
    """The fault sends a signature that no key of the customer gives."""
    world = await open_world(hmac_key=key, faults=["bad_signature"])
    task_id = await world.settled_task()
    headers = world.listener.received[0].headers
    assert sign(key or "", task_id, headers["X-Webhook-Timestamp"]) != headers["X-Webhook-Signature"]


async def test_without_a_key_nothing_is_signed(world: World) -> None:
    """Without a key there are no signature headers, as at kie.ai."""
    await world.settled_task()
    assert not any(name.startswith("X-Webhook") for name in world.listener.received[0].headers)
