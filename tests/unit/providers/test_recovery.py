"""The recovery of files at kie.ai and sunoapi.org: docs.sunoapi.org/suno-api/recovery-audio, read 2026-11-26."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

import audioext as ax
from audioext.errors import AudioextError, DecodeError, ProviderError
from audioext.http.messages import HttpResponse
from audioext.models.events import Failed, Progress, Refused, Submitted, Unknown
from audioext.models.results import Stage, Track
from audioext.providers.base import Provider, Recovers

KEY = "0123456789abcdef0123"
PROVIDERS = [ax.Kie(KEY), ax.SunoApi(KEY)]
ONE = {"id": "1", "audio_url": "https://f.test/1.m4a", "title": "P", "status": "success", "error": ""}
LOST = {"id": "2", "audio_url": "", "title": "P", "status": "failed", "error": "mango_transfer_failed"}
either = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: str(provider.info.name))


def answered(body: object, *, status: int = 200) -> HttpResponse:
    """Return a response with a JSON body."""
    return HttpResponse(status=status, body=msgspec.json.encode(body))


@either
def test_the_calls_are_as_documented(provider: Recovers) -> None:
    """The POST names the first task and the required callback, and the status call names the recovery's own task."""
    called = provider.build_recovery("task", URL("https://me.test/kie/ref/tag"))
    silent, status = provider.build_recovery("task", None), provider.build_recovery_status("rec")

    assert b'{"sunoTaskId":"task","callBackUrl":"https://me.test/kie/ref/tag"}' == called.body
    assert ("POST", "/api/v1/suno/recovery", f"Bearer {KEY}") == (
        called.method,
        called.url.path,
        called.headers["Authorization"],
    )
    assert b'{"sunoTaskId":"task","callBackUrl":"https://nobody.invalid/audioext"}' == silent.body
    assert ("GET", "/api/v1/suno/recovery/record-info?taskId=rec") == (status.method, status.url.path_qs)


@either
@pytest.mark.parametrize("body", [{"data": {"task_id": "rec"}}, {"data": {"taskId": "rec"}}, {"task_id": "rec"}])
def test_the_recovery_may_be_named_anywhere(provider: Provider, body: dict[str, object]) -> None:
    """The recovery's id is found in any place, since no page shows where it is."""
    assert Submitted(task_id="rec") == provider.parse_submit(answered({"code": 200, "msg": "success", **body}))


@either
def test_a_recovery_is_refused_or_unknown_like_any_task(provider: Provider) -> None:
    """A readable refusal ends a recovery, and a server error leaves its outcome unknown."""
    assert isinstance(provider.parse_submit(answered({"code": 401, "msg": "no key"})), Refused)
    assert isinstance(provider.parse_submit(HttpResponse(status=502, body=b"<html>")), Unknown)


@either
@pytest.mark.parametrize(
    ("body", "events"),
    [
        ({"code": 201, "msg": "running", "data": None}, ()),
        ({"code": 201, "msg": "running", "data": [LOST]}, ()),
        ({"code": 200, "msg": "success", "data": None}, ()),
        (
            {"code": 200, "msg": "success", "data": [ONE, LOST]},
            (
                Progress(
                    claimed_stage=Stage.COMPLETE,
                    tracks=(
                        Track(id="1", title="P", audio_url="https://f.test/1.m4a"),
                        Track(id="2", title="P", failure="mango_transfer_failed"),
                    ),
                ),
            ),
        ),
        (
            {"code": 500, "msg": "failed", "data": [LOST, LOST]},
            (Failed(code="500", message="mango_transfer_failed"),),
        ),
        ({"code": 200, "msg": "success", "data": [LOST]}, (Failed(code="200", message="mango_transfer_failed"),)),
        ({"code": 500, "msg": "all failed", "data": None}, (Failed(code="500", message="all failed"),)),
    ],
)
def test_the_status_tells_how_a_recovery_ended(provider: Recovers, body: object, events: tuple[object, ...]) -> None:
    """A recovery's status has no events while it runs, and then its files or its failure."""
    assert events == provider.parse_recovery_status(answered(body))
    wrapped = {"code": 200, "msg": "", "data": {"taskId": "rec", **body}} if isinstance(body, dict) else body
    if isinstance(body, dict) and body["code"] == 200:
        assert events == provider.parse_recovery_status(answered(wrapped))


TWO = [ONE, {**ONE, "id": "2", "audio_url": "https://f.test/2.mp3"}]
SUNO = [{"id": each["id"], "audioUrl": each["audio_url"]} for each in TWO]


@either
@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "data": {"taskId": "rec", "status": "SUCCESS", "response": {"sunoData": SUNO}}},
        {"code": 200, "data": {"taskId": "rec", "items": TWO}},
        {"code": 200, "data": msgspec.json.encode(TWO).decode()},
        {"code": 200, "task_id": "rec", "tracks": [msgspec.json.encode(each).decode() for each in TWO]},
        {"code": 200, "data": [{"audio_id": each["id"], "file_url": each["audio_url"], "error": None} for each in TWO]},
        {"code": 200, "data": [None, *TWO, 1]},
    ],
)
def test_the_files_are_found_wherever_they_stand(provider: Recovers, body: object) -> None:
    """The restored files are found in any envelope and under any name, like those of a task."""
    (event,) = provider.parse_recovery_status(answered(body))
    assert isinstance(event, Progress)
    found = [(track.id, track.audio_url, track.failure) for track in event.tracks]
    assert [("1", "https://f.test/1.m4a", None), ("2", "https://f.test/2.mp3", None)] == found


@either
def test_one_restored_file_may_stand_alone(provider: Recovers) -> None:
    """A single file may stand in place of the list, and an image in place of its link is none."""
    (event,) = provider.parse_recovery_status(answered({"code": 200, "data": ONE}))
    assert isinstance(event, Progress)
    assert ["https://f.test/1.m4a"] == [track.audio_url for track in event.tracks]
    (failed,) = provider.parse_recovery_status(
        answered({"code": 200, "data": [{**ONE, "audio_url": "https://f.test/1.png"}]})
    )
    assert Failed(code="200", message="it was not recovered") == failed


@either
@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"id": "r1", "status": "SUCCESS", "data": [ONE, {**ONE, "id": "2"}]}, 2),
        ({"task_id": "r1", "audio_url": None, "data": [ONE, {**ONE, "id": "2"}]}, 2),
        ({"stream_audio_url": "", "id": "", "data": [ONE]}, 1),
        ({"status": "queued", "data": [ONE]}, 1),
        ({"status": {}, "data": [ONE]}, 1),
        ({"id": "r1", "data": None}, None),
    ],
)
def test_what_stands_beside_the_files_hides_none(provider: Recovers, data: object, found: int | None) -> None:
    """The files of a recovery count, whatever keys its envelope has; without a file it runs on."""
    events = provider.parse_recovery_status(answered({"code": 200, "data": data}))
    assert ([] if found is None else [found]) == [len(event.tracks) for event in events if isinstance(event, Progress)]
    assert not any(isinstance(event, Failed) for event in events)


@either
def test_a_status_word_tells_whether_it_runs(provider: Recovers) -> None:
    """A recovery may have a status word like a task: it runs, or it failed with the vendor's words."""
    for data in ({"taskId": "rec", "status": "PENDING", "response": None}, {"state": "running", "data": [LOST]}):
        assert () == provider.parse_recovery_status(answered({"code": 200, "data": data}))
    over = {"taskId": "rec", "status": "FAILED", "errorMessage": "account_missing"}
    (failed,) = provider.parse_recovery_status(answered({"code": 200, "data": over}))
    assert Failed(code="200", message="account_missing") == failed


@either
def test_a_status_call_that_failed_says_nothing_of_the_recovery(provider: Recovers) -> None:
    """A status call that fails raises an error, and does not end the recovery."""
    for response in (answered({"code": 401, "msg": "no"}), HttpResponse(status=502, body=b"<html>")):
        with pytest.raises(ProviderError):
            provider.parse_recovery_status(response)
    with pytest.raises(DecodeError):
        provider.parse_recovery_status(answered({"code": 200, "data": [1, "x"]}))


@pytest.mark.parametrize(
    "provider", [ax.KieJobs(KEY), ax.Vidgo(KEY), ax.MusicGpt(KEY)], ids=lambda provider: str(provider.info.name)
)
def test_jobs_route_vidgo_and_musicgpt_have_no_recovery(provider: Provider) -> None:
    """kie.ai's jobs route, vidgo.ai and MusicGPT have no recovery."""
    assert not isinstance(provider, Recovers)


json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 600), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ONE, "code", "data", "msg"]), inner),
)


@given(st.one_of(st.binary(max_size=60), json.map(msgspec.json.encode)), st.sampled_from([200, 404, 500]))
def test_any_answer_is_read_or_an_error_of_ours(body: bytes, status: int) -> None:
    """Any answer is decoded or raises one of our errors."""
    response = HttpResponse(status=status, body=body)
    for provider in PROVIDERS:
        with suppress(AudioextError):
            provider.parse_recovery_status(response)
