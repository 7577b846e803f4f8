"""sunoapi.org: kie.ai's older routes with their own fields, codes and hosts."""

from __future__ import annotations

from typing import Any

import msgspec
from yarl import URL

from audioext import SunoApi
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Failed
from audioext.models.requests import AddInstrumental, Extend
from audioext.models.results import FailureReason
from tests.unit.providers.conftest import Kit

CALLBACK = URL("https://hooks.example/sunoapi/ref1/tag1")
VOICE = "https://files.example/voice.mp3"


def body(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON body of *request*."""
    assert request.body is not None
    sent: dict[str, Any] = msgspec.json.decode(request.body)
    return sent


def test_an_upload_sends_only_what_was_given() -> None:
    """`instrumental` and `continueAt` are not required here, so they are sent only if given."""
    sent = SunoApi("k").build_submit(Extend(url=VOICE, model="V5", prompt="p"), CALLBACK)
    assert URL("https://api.sunoapi.org/api/v1/generate/upload-extend") == sent.url
    assert {
        "defaultParamFlag": False,
        "uploadUrl": VOICE,
        "prompt": "p",
        "model": "V5",
        "callBackUrl": str(CALLBACK),
    } == body(sent)


def test_a_voice_persona_is_sent_with_its_kind() -> None:
    """A voice persona is sent with its kind, in custom mode."""
    request = Extend(
        audio_id="a",
        model="V5",
        prompt="p",
        style="s",
        title="t",
        continue_at=9,
        persona_id="v1",
        persona_model="voice_persona",
    )
    sent = body(SunoApi("k").build_submit(request, CALLBACK))
    assert (True, "v1", "voice_persona") == (
        sent["defaultParamFlag"],
        sent["personaId"],
        sent["personaModel"],
    )


def test_an_instrumental_takes_lyrics_and_variety() -> None:
    """An instrumental takes lyrics and variety; its model is always sent, as the vendor's default changed once."""
    request = AddInstrumental(
        url=VOICE, title="Rain", tags="piano", negative_tags="metal", model="V6", lyrics="la", variety=0
    )
    sent = body(SunoApi("k").build_submit(request, None))
    assert ("V6", "la", 0) == (sent["model"], sent["lyrics"], sent["variety"])
    plain = AddInstrumental(url=VOICE, title="Rain", tags="piano", negative_tags="metal")
    assert "V4_5PLUS" == body(SunoApi("k").build_submit(plain, None))["model"]


def test_a_callback_url_is_always_sent() -> None:
    """A callback URL is always sent, since the pages require one; without a reachable one it is under `.invalid`."""
    sent = body(SunoApi("k").build_submit(Extend(audio_id="a", model="V5"), None))
    assert (URL(sent["callBackUrl"]).host or "").endswith(".invalid")


def test_hosts_are_the_vendors() -> None:
    """The vendor's two API hosts share one file host."""
    upload = URL("https://sunoapiorg.redpandaai.co/api/file-url-upload")
    assert upload == SunoApi("k").build_upload(VOICE, "n").url
    assert upload == SunoApi("k", base_url="https://apibox.erweima.ai").build_upload(VOICE, "n").url
    assert "https://api.sunoapi.org/api/v1/generate/credit" == str(SunoApi("k").build_credits().url)
    assert ("sunoapi", "SUNOAPI_API_KEY") == (SunoApi().name, SunoApi().info.key_variable)


def test_the_status_is_record_info(kit: Kit) -> None:
    """The status call has the task id in its query."""
    suno = SunoApi("k")
    expected = "https://api.sunoapi.org/api/v1/generate/record-info?taskId=task-1"
    assert expected == str(suno.build_status(kit.make_record()).url)


def test_code_400_is_a_content_failure_only_if_its_text_says_so() -> None:
    """Code 400 counts as a content failure only if its text says so, since it also stands for unsupported audio."""
    task = {"taskId": "t1", "status": "CREATE_TASK_FAILED", "errorCode": 400}
    reasons = {}
    for says in ("The audio format is not supported", "Sensitive words were found"):
        answer = msgspec.json.encode({"code": 200, "data": {**task, "errorMessage": says}})
        (failed,) = SunoApi("k").parse_status(HttpResponse(status=200, body=answer))
        assert isinstance(failed, Failed)
        reasons[says] = failed.reason
    assert [FailureReason.GENERATION, FailureReason.CONTENT] == list(reasons.values())


def test_settings_have_the_defaults_of_the_pages() -> None:
    """The defaults are the vendor's: 20 submits in 10 s, and the shorter of its two retentions, 14 days."""
    suno = SunoApi()
    assert (20, 10.0, None) == (suno.limits.submits, suno.limits.per, suno.limits.parallel)
    assert 14 * 86_400.0 == suno.retention
