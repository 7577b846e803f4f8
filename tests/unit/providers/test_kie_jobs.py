"""kie.ai's jobs route: one path for all operations, and results in many shapes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from yarl import URL

from audioext import KieJobs
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Progress
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.models.results import Stage
from tests.unit.providers.conftest import Kit

CALLBACK = URL("https://hooks.example/kie-jobs/ref1/tag1")
VOICE = "https://files.example/voice.mp3"


def body(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON body of *request*."""
    assert request.body is not None
    sent: dict[str, Any] = msgspec.json.decode(request.body)
    return sent


def test_an_extension_goes_in_snake_case_under_input() -> None:
    """An extension is sent under `input` in snake case, with the operation as outer and the version as inner model."""
    request = Extend(
        audio_id="a1",
        model="V6",
        continue_at=42.5,
        prompt="la la",
        style="ambient",
        title="Part two",
        variety=2,
    )
    sent = KieJobs("k").build_submit(request, CALLBACK)
    assert URL("https://api.kie.ai/api/v1/jobs/createTask") == sent.url
    assert {
        "model": "ai-music-api/extend",
        "callBackUrl": str(CALLBACK),
        "input": {
            "audio_id": "a1",
            "model": "V6",
            "continue_at": 42.5,
            "prompt": "la la",
            "style": "ambient",
            "title": "Part two",
            "variety": 2,
        },
    } == body(sent)


@pytest.mark.parametrize(
    ("request_", "slug"),
    [
        (Extend(url=VOICE, model="V5", lyrics="la"), "ai-music-api/upload-and-extend-audio"),
        (AddInstrumental(url=VOICE, title="t", tags="a", negative_tags="b"), "ai-music-api/add-instrumental"),
    ],
)
def test_uploaded_audio_is_the_upload_url(request_: Request, slug: str) -> None:
    """Each operation has its slug, and uploaded audio is sent as `upload_url`."""
    sent = body(KieJobs("k").build_submit(request_, CALLBACK))
    assert (slug, VOICE) == (sent["model"], sent["input"]["upload_url"])
    assert "url" not in sent["input"]


def test_an_upload_always_says_whether_it_is_instrumental() -> None:
    """`instrumental` is sent as false for uploads when not given, as a production client lists it as required."""
    sent = body(KieJobs("k").build_submit(Extend(url=VOICE, model="V5"), CALLBACK))
    assert False is sent["input"]["instrumental"]
    assert "instrumental" not in body(KieJobs("k").build_submit(Extend(audio_id="a", model="V5"), CALLBACK))["input"]


def test_no_callback_url_is_sent_when_nobody_can_reach_us() -> None:
    """Without a reachable callback URL none is sent, since it is optional here."""
    assert "callBackUrl" not in body(KieJobs("k").build_submit(Extend(audio_id="a", model="V5"), None))


def test_the_status_is_a_get_by_query(kit: Kit) -> None:
    """The status call is a GET with the task id in its query."""
    jobs = KieJobs("k")
    assert "https://api.kie.ai/api/v1/jobs/recordInfo?taskId=task-1" == str(jobs.build_status(kit.make_record()).url)


def test_results_are_kept_for_a_day() -> None:
    """Results are kept for 24 h, as the jobs page says."""
    assert 86_400.0 == KieJobs().retention


@pytest.mark.parametrize(
    "result",
    [
        {"resultUrls": ["not a link", None, "https://f.example/1.mp3"]},
        {"resultUrls": ["https://f.example/1.mp3"]},
    ],
)
def test_results_that_are_not_links_are_left_out(result: dict[str, object]) -> None:
    """A result that is not an http(s) URL with a path is left out."""
    detail = {"taskId": "t", "state": "success", "resultJson": msgspec.json.encode(result).decode()}
    (event,) = KieJobs("k").parse_status(
        HttpResponse(status=200, body=msgspec.json.encode({"code": 200, "msg": "ok", "data": detail}))
    )
    assert isinstance(event, Progress)
    assert Stage.COMPLETE is event.claimed_stage
    assert ["https://f.example/1.mp3"] == [track.audio_url for track in event.tracks]
