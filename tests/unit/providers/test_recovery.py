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
    """The POST names the first task and the callback, which is required; the status call the recovery."""
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
    """No page shows where its id stands."""
    assert Submitted(task_id="rec") == provider.parse_submit(answered({"code": 200, "msg": "success", **body}))


@either
def test_a_recovery_is_refused_or_unknown_like_any_task(provider: Provider) -> None:
    """A readable refusal cost nothing; a server that broke may have made one."""
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
    """Nothing while it is under way; what came back, or why nothing did."""
    assert events == provider.parse_recovery_status(answered(body))
    wrapped = {"code": 200, "msg": "", "data": {"taskId": "rec", **body}} if isinstance(body, dict) else body
    if isinstance(body, dict) and body["code"] == 200:
        assert events == provider.parse_recovery_status(answered(wrapped))


@either
def test_a_status_call_that_failed_says_nothing_of_the_recovery(provider: Recovers) -> None:
    """It is asked again."""
    for response in (answered({"code": 401, "msg": "no"}), HttpResponse(status=502, body=b"<html>")):
        with pytest.raises(ProviderError):
            provider.parse_recovery_status(response)
    with pytest.raises(DecodeError):
        provider.parse_recovery_status(answered({"code": 200, "data": [1, "x"]}))


@pytest.mark.parametrize(
    "provider", [ax.KieJobs(KEY), ax.Vidgo(KEY), ax.MusicGpt(KEY)], ids=lambda provider: str(provider.info.name)
)
def test_the_others_have_none(provider: Provider) -> None:
    """No page of theirs shows such a call."""
    assert not isinstance(provider, Recovers)


json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 600), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ONE, "code", "data", "msg"]), inner),
)


@given(st.one_of(st.binary(max_size=60), json.map(msgspec.json.encode)), st.sampled_from([200, 404, 500]))
def test_any_answer_is_read_or_an_error_of_ours(body: bytes, status: int) -> None:
    """Whatever a host sends, nothing else is raised."""
    response = HttpResponse(status=status, body=body)
    for provider in PROVIDERS:
        with suppress(AudioextError):
            provider.parse_recovery_status(response)
