"""kie.ai's per-operation routes: requests, answers and keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import evolve
from yarl import URL

from audioext import Kie, KieJobs, MusicGpt
from audioext.errors import ConfigError, RateLimitError
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Refused, Unknown
from audioext.models.requests import AddInstrumental, Extend
from tests.unit.providers.conftest import Kit

CALLBACK = URL("https://hooks.example/kie/ref1/tag1")
MADE: Callable[..., Kie] = Kie  # without types, for values that a type checker would refuse
VOICE = "https://files.example/voice.mp3"


def body(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON body of *request*."""
    assert request.body is not None
    sent: dict[str, Any] = msgspec.json.decode(request.body)
    return sent


def test_the_pages_own_example_is_sent_as_the_page_shows_it() -> None:
    """The example of docs.kie.ai/suno-api/extend-music is sent as the page shows it."""
    request = Extend(
        audio_id="e231-8cadc7dc",
        prompt="Extend the music with more relaxing notes and a gentle bridge section",
        style="Classical",
        title="Peaceful Piano Extended",
        continue_at=60,
        model="V3_5",
        negative_tags="Heavy Metal, Upbeat Drums",
        vocal_gender="m",
        style_weight=0.65,
        weirdness_constraint=0.65,
        audio_weight=0.65,
    )
    sent = Kie("k").build_submit(request, CALLBACK)
    assert URL("https://api.kie.ai/api/v1/generate/extend") == sent.url
    assert "Bearer k" == sent.headers["authorization"]
    assert "application/json" == sent.headers["content-type"]
    assert {
        "defaultParamFlag": True,
        "audioId": "e231-8cadc7dc",
        "prompt": "Extend the music with more relaxing notes and a gentle bridge section",
        "style": "Classical",
        "title": "Peaceful Piano Extended",
        "continueAt": 60,
        "model": "V3_5",
        "callBackUrl": str(CALLBACK),
        "negativeTags": "Heavy Metal, Upbeat Drums",
        "vocalGender": "m",
        "styleWeight": 0.65,
        "weirdnessConstraint": 0.65,
        "audioWeight": 0.65,
    } == body(sent)


def test_inherited_parameters_send_the_source_alone() -> None:
    """Without custom fields only the source, the model and the switch are sent."""
    sent = Kie("k").build_submit(Extend(audio_id="a", model="V5"), CALLBACK)
    assert {"defaultParamFlag": False, "audioId": "a", "model": "V5", "callBackUrl": str(CALLBACK)} == body(sent)


def test_an_upload_always_says_whether_it_is_instrumental() -> None:
    """kie.ai requires `instrumental` for uploads, so it is sent as false when not given."""
    sent = Kie("k").build_submit(Extend(url=VOICE, model="V5", continue_at=12.5), CALLBACK)
    assert "/api/v1/generate/upload-extend" == sent.url.path
    assert {
        "defaultParamFlag": False,
        "instrumental": False,
        "uploadUrl": VOICE,
        "continueAt": 12.5,
        "model": "V5",
        "callBackUrl": str(CALLBACK),
    } == body(sent)
    sung = Extend(url=VOICE, model="V5", continue_at=12.5, instrumental=True)
    assert body(Kie("k").build_submit(sung, CALLBACK))["instrumental"]


def test_an_instrumental_names_its_model() -> None:
    """Without a model an instrumental is sent with V4_5PLUS, as the vendor's default may change."""
    request = AddInstrumental(url=VOICE, title="Rain", tags="piano", negative_tags="")
    sent = Kie("k").build_submit(request, CALLBACK)
    assert "/api/v1/generate/add-instrumental" == sent.url.path
    assert {
        "uploadUrl": VOICE,
        "title": "Rain",
        "tags": "piano",
        "negativeTags": "",
        "model": "V4_5PLUS",
        "callBackUrl": str(CALLBACK),
    } == body(sent)


def test_without_a_callback_url_one_under_invalid_is_sent() -> None:
    """If no callback URL is reachable, one under `.invalid` is sent, since the API requires one."""
    sent = Kie("k").build_submit(Extend(audio_id="a", model="V5"), None)
    assert (URL(body(sent)["callBackUrl"]).host or "").endswith(".invalid")


def test_a_number_beyond_64_bits_is_still_sent() -> None:
    """An integer beyond 64 bits, which JSON writers refuse, is sent as a float."""
    sent = Kie("k").build_submit(Extend(url=VOICE, model="V5", continue_at=10**20), None)
    assert 1e20 == body(sent)["continueAt"]


def test_no_key_means_no_authorization() -> None:
    """Without a key no Authorization header is sent."""
    assert "authorization" not in Kie().build_credits().headers


def test_the_status_and_the_credits_have_their_paths(kit: Kit) -> None:
    """The status call has the task id in its query, and the credits call has no parameters."""
    kie = Kie("k", base_url="http://127.0.0.1:9/kie")
    assert "http://127.0.0.1:9/kie/api/v1/generate/record-info?taskId=task-1" == str(
        kie.build_status(kit.make_record()).url
    )
    assert "http://127.0.0.1:9/kie/api/v1/chat/credit" == str(kie.build_credits().url)


def test_a_file_is_uploaded_as_a_stream() -> None:
    """A local file is uploaded as multipart, under the given unique name."""
    sent = Kie("k").build_upload(Path("in/voice.wav"), "u1-voice.wav")
    assert URL("https://kieai.redpandaai.co/api/file-stream-upload") == sent.url
    assert [
        ("uploadPath", "audioext", None, None),
        ("fileName", "u1-voice.wav", None, None),
        ("file", None, Path("in/voice.wav"), "u1-voice.wav"),
    ] == [(part.name, part.value, part.path, part.filename) for part in sent.parts]
    assert sent.body is None


def test_a_foreign_url_is_uploaded_by_the_host() -> None:
    """A URL is sent to the file host as JSON, and the host fetches it."""
    sent = Kie("k").build_upload(VOICE, "u1.mp3")
    assert URL("https://kieai.redpandaai.co/api/file-url-upload") == sent.url
    assert {"fileUrl": VOICE, "uploadPath": "audioext", "fileName": "u1.mp3"} == body(sent)


def test_the_file_host_follows_the_base_url() -> None:
    """The default base URL has the vendor's file host; any other base URL serves as file host itself."""

    def host(kie: Kie) -> str:
        return str(kie.build_upload(VOICE, "n").url.parent)

    assert "https://kieai.redpandaai.co/api" == host(Kie())
    assert "http://127.0.0.1:9/kie/api" == host(Kie(base_url="http://127.0.0.1:9/kie"))
    assert "http://127.0.0.1:9/kie/api" == host(evolve(Kie(), base_url="http://127.0.0.1:9/kie"))
    assert "https://up.example/x/api" == host(Kie(upload_url="https://up.example/x/"))


def test_both_routes_share_one_account() -> None:
    """Both routes of kie.ai share one account per host and key, whatever their names."""
    assert Kie("k").info.account == KieJobs("k", name="other").info.account
    assert Kie("k").info.account != Kie("l").info.account
    assert Kie("k").info.account != Kie("k", base_url="http://127.0.0.1:9").info.account


def test_two_apis_at_one_host_are_two_accounts() -> None:
    """A sandbox or a gateway has several APIs under one host and key: each keeps its own limits."""
    host = "http://127.0.0.1:9"
    kie, jobs = Kie("k", base_url=f"{host}/kie"), KieJobs("k", base_url=f"{host}/kie/")
    assert kie.info.account == jobs.info.account
    assert kie.info.account != MusicGpt("k", base_url=f"{host}/musicgpt").info.account


def test_defaults_are_the_vendors() -> None:
    """The defaults are the vendor's: 20 submits in 10 s, results kept for 14 days, and a grace period of 900 s."""
    kie = Kie()
    assert (20, 10.0, None) == (kie.limits.submits, kie.limits.per, kie.limits.parallel)
    assert (14 * 86_400.0, 900.0) == (kie.retention, kie.grace)
    assert ("kie", "KIE_API_KEY") == (kie.name, kie.info.key_variable)
    assert kie.check_callback(URL("http://127.0.0.1/x")) is None


@pytest.mark.parametrize("keys", ["", " \n", [""], ["good", ""], ["half \ud800"], [3], 3, b"good"])
def test_a_webhook_key_must_be_usable(keys: object) -> None:
    """A webhook key that is empty, no text or not encodable is refused."""
    with pytest.raises(ConfigError, match="webhook_key must be text"):
        MADE("k", webhook_key=keys)


def test_a_webhook_key_may_come_from_a_file() -> None:
    """Whitespace around a webhook key is stripped, since it would make every signature wrong."""
    assert ("one", "two") == Kie("k", webhook_key=["one\n", " two"]).webhook_key
    assert ("one", "two") == Kie("k", webhook_key=['"one"', "\ufeffKIE_WEBHOOK_KEY='two'\r\n"]).webhook_key


def test_webhook_keys_never_show() -> None:
    """The repr of a provider shows neither API key nor webhook keys."""
    assert "hush" not in repr(Kie("hush-api", webhook_key=["hush-one", "hush-two"]))


def refusal(status: int, headers: dict[str, str], payload: bytes) -> RateLimitError:
    """Return the `RateLimitError` of a submit's answer."""
    outcome = Kie("k").parse_submit(HttpResponse(status=status, headers=headers, body=payload))
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, RateLimitError)
    return outcome.error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "12"}, 12.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"Retry-After": "999999"}, 3600.0),
        ({"Retry-After": "1_0"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, None),
        ({"Retry-After": "Sat, 21 Nov 2026 10:00:05 GMT"}, None),
        ({"Retry-After": "Sat, 21 Nov 2026 10:00:05 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 5.0),
        ({"Retry-After": "Sat, 21 Nov 2026 09:00:00 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"Retry-After": "Sat, 21 Nov 2026 10:00:05 -0000", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    """`Retry-After` may be seconds or a date, which counts from the answer's own date; invalid values are ignored."""
    assert seconds == refusal(200, headers, b'{"code":429,"msg":"slow down"}').retry_after


@pytest.mark.parametrize(
    ("code", "means"),
    [
        *((code, "refused") for code in (400, 401, 402, 404, 422, 433, 505)),
        *((code, "sent again") for code in (429, 455)),
        *((code, "unknown") for code in (500, 501)),
    ],
)
def test_a_code_tells_what_became_of_a_submit(code: int, means: str) -> None:
    """Whatever the words, a code refuses for good or for now; 500 and 501 may come after a task (wire, fact 2)."""
    outcome = Kie("k").parse_submit(HttpResponse(status=200, body=b'{"code":%d,"msg":"no","data":null}' % code))

    refused = "sent again" if isinstance(outcome, Refused) and outcome.resend else "refused"
    assert means == (refused if isinstance(outcome, Refused) else "unknown")


def test_a_refused_code_beside_a_task_id_is_unknown() -> None:
    """An answer that refuses and names a task leaves the outcome unknown."""
    outcome = Kie("k").parse_submit(HttpResponse(status=200, body=b'{"code":402,"msg":"no","data":{"taskId":"t"}}'))
    assert isinstance(outcome, Unknown)


def test_a_server_that_could_not_store_a_row_may_have_made_the_task() -> None:
    """An empty field refuses a submit, but not under 500: a server says the same of a column of its own."""
    answers = [b'{"code":%d,"msg":"Column \'task_id\' cannot be null"}' % code for code in (400, 500)]
    outcomes = [Kie("k").parse_submit(HttpResponse(status=200, body=answer)) for answer in answers]
    assert [Refused, Unknown] == [type(outcome) for outcome in outcomes]


def test_the_http_status_counts_where_the_body_has_no_code() -> None:
    """The body's code may be text; without one the HTTP status is the code."""
    kie = Kie("k")
    by_status = kie.parse_submit(HttpResponse(status=401, body=b'{"message":"who are you"}'))
    assert isinstance(by_status, Refused)
    assert ("401", "who are you", 401) == (
        by_status.error.code,
        by_status.error.message,
        by_status.error.http_status,
    )
    by_text = kie.parse_submit(HttpResponse(status=200, body=b'{"code":"402","msg":"no"}'))
    assert isinstance(by_text, Refused)
    assert isinstance(kie.parse_submit(HttpResponse(status=302, body=b"")), Unknown)


def test_a_long_text_of_the_vendor_is_cut() -> None:
    """A vendor's text is cut to one line of at most 500 characters."""
    answer = HttpResponse(status=200, body=msgspec.json.encode({"code": 402, "msg": "no\ncredits " * 200}))
    outcome = Kie("k").parse_submit(answer)
    assert isinstance(outcome, Refused)
    assert 500 == len(outcome.error.message)
    assert "\n" not in outcome.error.message


def test_a_firewalls_page_is_reported_as_such() -> None:
    """Cloudflare's refusal is reported as a firewall's, for submits and status calls."""
    page = HttpResponse(status=403, body=b"<h1>Error 1010</h1>")
    outcome = Kie("k").parse_submit(page)
    assert isinstance(outcome, Refused)
    with pytest.raises(type(outcome.error), match="firewall"):
        Kie("k").parse_status(page)
