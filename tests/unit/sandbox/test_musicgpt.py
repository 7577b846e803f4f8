"""MusicGPT: a form, a key without a prefix, numbered status keys, and webhooks in parts."""

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

EXTEND = "/musicgpt/extend"
BY_ID = "/musicgpt/byId"


def form(world: World, file: bytes | None = None, **changes: str | None) -> aiohttp.FormData:
    """Return a good multipart body with this file, else with a URL."""
    texts: dict[str, str | None] = {
        "audio_url": world.sandbox.tune_url if file is None else None,
        "extend_after": "0.5",
        "webhook_url": world.listener.hook,
        "title": "Night Bus",
    }
    made = aiohttp.FormData(default_to_multipart=True)
    for name, text in (texts | changes).items():
        if text is not None:
            made.add_field(name, text)
    if file is not None:
        made.add_field("audio_file", file, filename="a.wav")
    return made


async def extend(world: World, file: bytes | None = None, **changes: str | None) -> Any:
    """Order an extension."""
    return (await world.call("POST", EXTEND, data=form(world, file, **changes)))[1]


async def conversion(world: World, **params: str) -> Any:
    """Return the `conversion` of the status call."""
    return (await world.get(BY_ID, conversionType="EXTEND", **params))["conversion"]


@pytest.mark.parametrize(("prefix", "by_file"), [("", True), ("/v1", False), ("/api/public/v1", True)])
async def test_an_extension_comes_in_five_parts(world: World, tone: bytes, prefix: str, *, by_file: bool) -> None:
    """Two audio webhooks, two with lyrics and one with a cover arrive, and the status has both tracks at once."""
    body = form(world, tone if by_file else None)
    _, answer = await world.call("POST", f"/musicgpt{prefix}/extend", data=body)
    assert (True, True) == (answer["success"], answer["conversion_id_1"] != answer["conversion_id_2"])
    await world.sandbox.settled()
    parts = world.listener.bodies
    assert all(part["success"] and part["task_id"] == answer["task_id"] for part in parts)
    assert [
        "album_cover_generation",
        "extend",
        "extend",
        "lyrics_timestamped",
        "lyrics_timestamped",
    ] == sorted(part["subtype"] for part in parts)
    audio = {part["conversion_id"]: part for part in parts if part["subtype"] == "extend"}
    assert {answer["conversion_id_1"], answer["conversion_id_2"]} == set(audio)
    (cover,) = [part for part in parts if "image_path" in part]
    assert set(audio) == {cover["conversion_id_1"], cover["conversion_id_2"]}
    params = {"conversionType": "EXTEND", "task_id": answer["task_id"]}
    found = (await world.get(f"/musicgpt{prefix}/byId", **params))["conversion"]
    assert "COMPLETED" == found["status"]
    for number in (1, 2):
        part = audio[answer[f"conversion_id_{number}"]]
        assert part["conversion_path"] == found[f"conversion_path_{number}"]
        assert part["conversion_duration"] == found[f"conversion_duration_{number}"]
        async with world.session.get(part["conversion_path_wav"]) as response:
            assert (200, "audio/wav") == (response.status, response.content_type)


async def test_the_order_of_the_parts_varies(world: World) -> None:
    """The parts arrive in a different order from task to task."""
    orders = set()
    for _ in range(12):
        before = len(world.listener.bodies)
        await extend(world)
        await world.sandbox.settled()
        orders.add(tuple(part["subtype"] for part in world.listener.bodies[before:]))
    assert len(orders) > 4


async def test_timed_lyrics_are_json_in_a_string(world: World) -> None:
    """Timed lyrics have start and end in milliseconds, and section marks have no length."""
    await extend(world, lyrics_section_to_extend="[Verse 1]\nLast bus home")
    await world.sandbox.settled()
    part = next(part for part in world.listener.bodies if part["subtype"] == "lyrics_timestamped")
    mark, line = msgspec.json.decode(part["lyrics_timestamped"])
    assert {"index": 0, "text": "[Verse 1]", "start": 500, "end": 500} == mark
    assert line["end"] > line["start"] > 500


async def test_one_output_has_a_sentinel_as_second_id(world: World) -> None:
    """With `num_outputs=1` the second id is a sentinel text, and there are three parts."""
    answer = await extend(world, num_outputs="1")
    assert "single_song_generation_request" == answer["conversion_id_2"]
    await world.sandbox.settled()
    assert 3 == len(world.listener.bodies)
    found = await conversion(world, task_id=answer["task_id"])
    assert ("single_song_generation_request", False) == (
        found["conversion_id_2"],
        "conversion_path_2" in found,
    )


async def test_parts_can_be_declined(world: World) -> None:
    """Without cover and timed lyrics only the audio comes."""
    await extend(world, generate_album_cover="false", lyrics_timestamps="false")
    await world.sandbox.settled()
    assert ["extend", "extend"] == [part["subtype"] for part in world.listener.bodies]


@pytest.mark.parametrize(
    ("faults", "subtypes"),
    [
        (["drop=text"], ["extend", "extend"]),
        (["drop=audio"], ["album_cover_generation", "lyrics_timestamped", "lyrics_timestamped"]),
        (["drop=lyrics", "drop=cover", "drop=first"], ["extend"]),
    ],
)
async def test_faults_name_parts_by_what_they_carry(
    open_world: OpenWorld,
    faults: list[str],
    subtypes: list[str],
) -> None:
    """A fault finds a part by its stage and by what it contains."""
    world = await open_world(faults=faults)
    await extend(world)
    await world.sandbox.settled()
    assert subtypes == sorted(part["subtype"] for part in world.listener.bodies)


@pytest.mark.parametrize(
    ("ages", "audible"),
    [({"text_seconds": 1e18}, 0), ({"first_seconds": 1e18}, 0), ({"complete_seconds": 1e18}, 1)],
)
async def test_before_completion_paths_are_bare(open_world: OpenWorld, ages: dict[str, float], audible: int) -> None:
    """Before completion a track's path is the bare root, and the status is IN_QUEUE."""
    world = await open_world(**ages)
    answer = await extend(world)
    while True:
        found = await conversion(world, task_id=answer["task_id"])
        paths = [found["conversion_path_1"], found["conversion_path_2"]]
        if audible == sum(path.endswith(".mp3") for path in paths):
            break
    assert "IN_QUEUE" == found["status"]
    assert all(path.endswith(".mp3") or path.rstrip("/") == world.sandbox.url for path in paths)


async def test_status_calls_take_either_id(world: World) -> None:
    """A task is found by its own id, by either conversion's, or by both, and the page's keys show that conversion."""
    answer = await extend(world)
    await world.sandbox.settled()
    whole = await conversion(world, task_id=answer["task_id"])
    second = await conversion(world, conversion_id=answer["conversion_id_2"])
    assert whole == await conversion(world, task_id=answer["task_id"], conversion_id=answer["conversion_id_1"])
    assert [answer["conversion_id_1"], answer["conversion_id_2"]] == [
        whole["conversion_id"],
        second["conversion_id"],
    ]
    assert [whole["conversion_path_1"], whole["conversion_path_2"]] == [whole["audio_url"], second["audio_url"]]
    page = ("conversion_id", "status", "status_msg", "audio_url", "conversion_cost", "title", "lyrics", "music_style")
    assert set(page) <= set(whole)


@pytest.mark.parametrize(("faithful", "status"), [("page", 422), ("live", 200)])
async def test_the_conversion_type_is_required_by_the_page(open_world: OpenWorld, faithful: str, status: int) -> None:
    """`conversionType` is required as on the page, but not with `faithful="live"`; a wrong type finds nothing."""
    world = await open_world(faithful=faithful)
    answer = await extend(world)
    assert status == (await world.call("GET", BY_ID, params={"task_id": answer["task_id"]}))[0]
    wrong = {"task_id": answer["task_id"], "conversionType": "COVER"}
    assert 404 == (await world.call("GET", BY_ID, params=wrong))[0]


@pytest.mark.parametrize(("fault", "flagged"), [("error=first", False), ("error=complete:400", True)])
async def test_a_failed_task_sends_one_webhook(open_world: OpenWorld, fault: str, *, flagged: bool) -> None:
    """A failed task sends one webhook with `success` false, and its status says the same."""
    world = await open_world(faults=[fault, "drop=audio", "drop=text"])
    answer = await extend(world)
    await world.sandbox.settled()
    (told,) = world.listener.bodies
    assert (False, answer["task_id"], flagged) == (told["success"], told["task_id"], told["is_flagged"])
    found = await conversion(world, task_id=answer["task_id"])
    assert ("FAILED", told["reason"], flagged) == (found["status"], found["status_msg"], found["is_flagged"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio_url": "http://127.0.0.1:1/a.mp3"}, "download"),
        ({"audio_url": "s3://bucket/a.mp3"}, "download"),
        ({"audio_url": "nowhere"}, "download"),
        ({"extend_after": "99"}, "not within"),
    ],
)
async def test_a_bad_source_fails_the_task(world: World, changes: dict[str, Any], words: str) -> None:
    """The source is fetched after the answer, and a bad one fails the task."""
    assert (await extend(world, **changes))["success"]
    await world.sandbox.settled()
    (told,) = world.listener.bodies
    assert words in told["reason"]


async def test_a_file_that_is_not_audio_fails_the_task(world: World) -> None:
    """A file that is not audio fails the task with a reason."""
    await extend(world, b"<html>")
    await world.sandbox.settled()
    assert "cannot be read" in world.listener.bodies[0]["reason"]


BAD_FORMS: Sequence[tuple[dict[str, Any], list[str]]] = [
    ({"extend_after": None}, ["extend_after"]),
    ({"audio_url": None}, ["audio_file", "audio_url"]),
    ({"extend_after": None, "audio_url": None}, ["extend_after", "audio_file", "audio_url"]),
    ({"extend_after": "soon"}, ["extend_after"]),
    ({"extend_after": "-1"}, ["extend_after"]),
    ({"extend_after": "nan"}, ["extend_after"]),
    ({"num_outputs": "3"}, ["num_outputs"]),
    ({"gender": "m"}, ["gender"]),
    ({"lyrics": "x" * 2001}, ["lyrics"]),
    ({"lyrics_section_to_extend": "x" * 3001}, ["lyrics_section_to_extend"]),
    ({"generate_album_cover": "yes"}, ["generate_album_cover"]),
    ({"webhook_url": "nowhere"}, ["webhook_url"]),
]


async def test_fields_are_checked(world: World) -> None:
    """An invalid form gets 422 with the place of each problem."""
    for changes, names in BAD_FORMS:
        status, answer = await world.call("POST", EXTEND, data=form(world, **changes))
        assert (422, names) == (status, [problem["loc"][1] for problem in answer["detail"]])
    assert () == world.sandbox.tasks


async def test_submissions_show_the_form(world: World, tone: bytes) -> None:
    """A submission lists the fields as text, and the file by name and size."""
    await extend(world, tone, colour="blue")
    submission = world.sandbox.submissions[0]
    assert {"filename": "a.wav", "size": len(tone)} == submission.fields["audio_file"]
    assert ("0.5", "blue") == (submission.fields["extend_after"], submission.fields["colour"])
    assert world.listener.hook == submission.callback_url


async def test_forms_of_other_clients_are_read(world: World) -> None:
    """A plain form, as in the docs' sample, and JSON, as of the vendor's n8n node, are accepted."""
    fields = {"audio_url": world.sandbox.tune_url, "extend_after": "1"}
    assert (await world.call("POST", EXTEND, data=fields))[1]["success"]
    body = {"audio_url": world.sandbox.tune_url, "extend_after": 1, "lyrics_timestamps": True, "title": None}
    assert (await world.post(EXTEND, body))["success"]
    assert "true" == world.sandbox.submissions[1].fields["lyrics_timestamps"]
    status, _ = await world.call("POST", EXTEND, data=b"x", headers={"Content-Type": "text/plain"})
    assert 422 == status


async def test_a_plain_form_over_the_limit_is_refused(world: World) -> None:
    """A plain form over the limit of bytes gets 413."""
    body, headers = io.BytesIO(b"prompt=" + b"x" * 1_100_000), {"Content-Type": "application/x-www-form-urlencoded"}
    status, _ = await world.call("POST", EXTEND, data=body, headers=headers)
    assert 413 == status


async def test_the_key_is_raw(world: World) -> None:
    """A key with "Bearer" before it is refused."""
    for path, method in ((EXTEND, "POST"), (BY_ID, "GET")):
        status, answer = await world.call(method, path, headers={"Authorization": "Bearer sandbox-key"})
        assert (401, ["detail"]) == (status, list(answer))


async def test_paths_and_ids_get_musicgpts_errors(open_world: OpenWorld) -> None:
    """Unknown paths and ids are 404, a wrong method 405, wrong parameters 422, an empty account 402."""
    world = await open_world(credits=1)
    assert 404 == (await world.call("GET", "/musicgpt/nothing"))[0]
    assert 405 == (await world.call("GET", EXTEND))[0]
    for unknown in ({"task_id": "nobody"}, {"conversion_id": "nobody"}):
        assert 404 == (await world.call("GET", BY_ID, params=unknown | {"conversionType": "EXTEND"}))[0]
    assert 422 == (await world.call("GET", BY_ID, params={"conversionType": "EXTEND"}))[0]
    assert 422 == (await world.call("GET", BY_ID, params={"task_id": "x", "conversionType": "DANCE"}))[0]
    assert 402 == (await world.call("POST", EXTEND, data=form(world)))[0]


async def test_open_tasks_are_limited(open_world: OpenWorld) -> None:
    """A submit beyond the plan's open tasks gets 429."""
    world = await open_world(parallel_limit=2, speed=1.0)
    answers = await asyncio.gather(*(world.call("POST", EXTEND, data=form(world)) for _ in range(4)))
    assert [200, 200, 429, 429] == sorted(status for status, _ in answers)
    world.sandbox.script("callback_before_response")
    assert 429 == (await world.call("POST", EXTEND, data=form(world)))[0]


async def test_ended_tasks_make_room(open_world: OpenWorld) -> None:
    """An ended task no longer counts as open."""
    world = await open_world(parallel_limit=1)
    for _ in range(3):
        assert (await extend(world))["success"]
        await world.sandbox.settled()


async def test_any_status_can_be_answered(open_world: OpenWorld) -> None:
    """A code fault sets the HTTP status, since MusicGPT has no code in its body."""
    world = await open_world(faults=["code=403"])
    status, answer = await world.call("POST", EXTEND, data=form(world))
    assert (403, ["detail"]) == (status, list(answer))


async def test_a_file_that_a_task_still_needs_is_kept(open_world: OpenWorld, tone: bytes) -> None:
    """The file of a task that has not begun yet is kept beyond `keep_files`, and dropped when the task ends."""
    world = await open_world(keep_files=1)
    world.sandbox.hold("text")
    answers = [await extend(world, tone) for _ in range(3)]
    world.sandbox.release()
    await world.sandbox.settled()
    await extend(world, tone)

    ends = [await conversion(world, task_id=answer["task_id"]) for answer in answers]
    assert ["COMPLETED"] * 3 == [end["status"] for end in ends]
    assert [False] * 3 == [(task.source in world.sandbox.library) for task in world.sandbox.tasks[:3]]
