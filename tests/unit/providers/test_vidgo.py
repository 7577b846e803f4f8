"""vidgo.ai: one path for all operations, one webhook, and a status word that alone decides about a task."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from yarl import URL

from audioext import Vidgo
from audioext.errors import ConfigError, ProviderError
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Progress, Refused, Unknown
from audioext.models.limits import Limits
from audioext.models.requests import AddInstrumental, Extend
from audioext.models.results import Stage
from audioext.providers.base import Credits, FileRoute, Uploads
from tests.support.tables import each_row
from tests.unit.providers.conftest import Kit

CALLBACK = URL("https://hooks.acme.test/v/9f2c")
VOICE = "https://cdn.acme.test/vox.mp3"


def body(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON body of *request*."""
    assert request.body is not None
    sent: dict[str, Any] = msgspec.json.decode(request.body)
    return sent


def instrumental(**fields: Any) -> AddInstrumental:
    """Return an instrumental with the required fields and *fields*."""
    return AddInstrumental(url=VOICE, title="Night Bus", tags="lofi, rhodes", negative_tags="metal", **fields)


def refusal(value: object, status: int = 401) -> str:
    """Return the message of the refusal in an answer with this JSON *value*."""
    outcome = Vidgo("k").parse_submit(HttpResponse(status=status, body=msgspec.json.encode(value)))
    assert isinstance(outcome, Refused)
    return outcome.error.message


def test_an_extension_that_inherits_sends_three_fields() -> None:
    """Without custom parameters the switch is off, and only id and version are sent."""
    sent = Vidgo("k").build_submit(Extend(audio_id="0c1d-ab", model="V5"), CALLBACK)
    assert ("POST", URL("https://api.vidgo.ai/api/generate/submit")) == (sent.method, sent.url)
    assert "Bearer k" == sent.headers["Authorization"]
    assert {
        "model": "extend-music",
        "callback_url": str(CALLBACK),
        "input": {"default_param_flag": False, "audio_id": "0c1d-ab", "mv": "V5"},
    } == body(sent)


def test_an_extension_with_everything_sends_everything() -> None:
    """Custom parameters turn the switch on, and genders are sent as letters."""
    request = Extend(
        audio_id="a1",
        model="V4_5PLUS",
        continue_at=42.5,
        prompt="la",
        style="ambient",
        title="Part 2",
        negative_tags="metal",
        vocal_gender="female",
        style_weight=0.65,
        weirdness_constraint=0.3,
        audio_weight=0.1,
        persona_id="p1",
    )
    assert {
        "default_param_flag": True,
        "audio_id": "a1",
        "mv": "V4_5PLUS",
        "continue_at": 42.5,
        "prompt": "la",
        "style": "ambient",
        "title": "Part 2",
        "negative_tags": "metal",
        "vocal_gender": "f",
        "style_weight": 0.65,
        "weirdness_constraint": 0.3,
        "audio_weight": 0.1,
        "persona_id": "p1",
    } == body(Vidgo("k").build_submit(request, None))["input"]


@pytest.mark.parametrize(("given", "sent"), [(None, False), (False, False), (True, True)])
def test_an_upload_names_its_switches(given: bool | None, sent: bool) -> None:
    """Uploaded audio is sent as `upload_url`, always with `instrumental`."""
    request = Extend(url=VOICE, model="V5", instrumental=given)
    assert {
        "model": "upload-and-extend-audio",
        "input": {"default_param_flag": False, "upload_url": VOICE, "mv": "V5", "instrumental": sent},
    } == body(Vidgo("k").build_submit(request, None))


def test_an_instrumental_sends_what_the_page_requires() -> None:
    """An instrumental without a model is sent without one, since the page's key for it is not certain."""
    vidgo = Vidgo("k")
    assert {
        "model": "add-instrumental",
        "callback_url": str(CALLBACK),
        "input": {"upload_url": VOICE, "title": "Night Bus", "tags": "lofi, rhodes", "negative_tags": "metal"},
    } == body(vidgo.build_submit(instrumental(), CALLBACK))
    assert vidgo.info.sent_model(instrumental()) is None


@each_row("key", ["model", "mv"])
def test_the_key_of_an_instrumentals_model_is_a_setting(key: str) -> None:
    """The key under which an instrumental's model is sent is a setting."""
    vidgo = Vidgo("k", instrumental_model_key=key)
    sent = body(vidgo.build_submit(instrumental(model="V5"), None))
    assert ("add-instrumental", "V5") == (sent["model"], sent["input"][key])
    assert "V5" == vidgo.info.sent_model(instrumental(model="V5"))
    assert "V5" == body(vidgo.build_submit(Extend(audio_id="a", model="V5"), None))["input"]["mv"]


@each_row("key", ["", "Model", "title", "upload_url", None])
def test_a_model_key_is_one_of_two(key: Any) -> None:
    """Any model key but the two possible ones is refused, since the model could overwrite another field."""
    with pytest.raises(ConfigError, match="instrumental_model_key"):
        Vidgo("k", instrumental_model_key=key)


def test_a_file_is_served() -> None:
    """A local file is served from our own URL, since there is no upload."""
    assert FileRoute.SERVE is Vidgo().info.file_route
    assert not isinstance(Vidgo(), Uploads)
    assert () == Vidgo().check(Extend(file="a.wav", model="V5"))


@each_row(
    ("model", "prompt", "style", "title"),
    [
        ("V4", 3000, 200, 80),
        ("V4_5", 5000, 1000, 100),
        ("V4_5PLUS", 5000, 1000, 100),
        ("V4_5ALL", 5000, 1000, 80),
        ("V5", 5000, 1000, 100),
    ],
)
def test_texts_have_the_limits_of_the_page(model: str, prompt: int, style: int, title: int) -> None:
    """Each version has its own limits of text lengths."""
    fields: dict[str, Any] = {"audio_id": "a", "model": model, "continue_at": 1}
    fits = Extend(**fields, prompt="p" * prompt, style="s" * style, title="t" * title)
    over = Extend(**fields, prompt="p" * (prompt + 1), style="s" * (style + 1), title="t" * (title + 1))
    assert () == Vidgo().check(fits)
    assert [("prompt", False), ("style", False), ("title", False)] == [
        (problem.field, problem.advice) for problem in Vidgo().check(over)
    ]


@each_row(("model", "longest"), [("V5", 480.0), ("V4_5ALL", 60.0)])
def test_uploads_have_a_longest_duration(model: str, longest: float) -> None:
    """An upload may last eight minutes, or one minute with V4_5ALL."""
    fits = Extend(url=VOICE, model=model, source_duration=longest)
    over = Extend(url=VOICE, model=model, source_duration=longest + 1)
    assert () == Vidgo().check(fits)
    assert ["source_duration"] == [problem.field for problem in Vidgo().check(over)]


def test_limits_of_other_vendors_pages_are_advice() -> None:
    """A version or length that only other vendors' pages limit is advice."""
    found = [
        *Vidgo().check(Extend(audio_id="a", model="V5_5")),
        *Vidgo().check(AddInstrumental(url=VOICE, title="t" * 101, tags="a", negative_tags="")),
        *Vidgo().check(instrumental(model="V4")),
    ]
    assert [("model", True), ("title", True), ("model", True)] == [(problem.field, problem.advice) for problem in found]
    assert () == Vidgo().check(Extend(audio_id="a", model="V99"))


@each_row(
    "url",
    [
        "https://hooks.acme.test/v/1",
        "https://hooks.acme.test:8443/v/1",
        "https://8.8.8.8/v",
        "https://[2001:4860:4860::8888]/v",
        "https://notlocal.example/v",
        "https://hooks.acme.test/" + "a" * 2024,
    ],
)
def test_public_https_addresses_are_called(url: str) -> None:
    """A public https URL of up to 2,048 characters is accepted as callback URL."""
    assert len(url) <= 2048
    assert Vidgo().check_callback(URL(url)) is None


@each_row(
    ("url", "why"),
    [
        ("http://hooks.acme.test/v", "https"),
        ("https://hooks.acme.test/" + "a" * 2025, "2048 characters"),
        *(
            (f"https://{host}/v", "private or internal")
            for host in (
                *("localhost", "LOCALHOST.", "api.localhost", "printer.local", "db.internal", "nas.home.arpa"),
                *("intranet", "127.0.0.1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "169.254.1.1", "0.0.0.0"),  # noqa: S104 - nothing is bound
                *("100.64.0.1", "224.0.0.1", "127.1", "2130706433", "10.0x1", "[::1]", "[fd00::1]", "[fe80::1]"),
                *("[::ffff:10.0.0.1]", "[::ffff:224.0.0.1]", "[::7f00:1]", "[64:ff9b::7f00:1]", "240.0.0.1"),
            )
        ),
    ],
)
def test_addresses_that_are_never_called_are_refused(url: str, why: str) -> None:
    """A callback URL that vidgo.ai would not call is refused with the reason."""
    assert why in (Vidgo().check_callback(URL(url)) or "")


@each_row("base_url", ["http://127.0.0.1:9/vidgo", "http://localhost:9", "http://[::1]:9"])
def test_a_stand_in_on_loopback_calls_anything(base_url: str) -> None:
    """With a base URL on loopback, as of the sandbox, any callback URL is accepted."""
    assert Vidgo(base_url=base_url).check_callback(URL("http://127.0.0.1:8080/audio/x")) is None


@each_row(
    ("value", "message"),
    [
        ({"message": "three", "detail": "two", "error": {"message": "one"}}, "one two three"),
        ({"detail": "one", "error": "one"}, "one"),
        ({"error": {"code": 7}, "detail": "two"}, "two"),
        (
            {"detail": [{"loc": ["body", "input", "mv"], "msg": "missing"}, "odd"], "msg": "three"},
            "input.mv: missing; odd three",
        ),
        ({"detail": [{"loc": ["body"], "msg": "missing"}]}, "missing"),
        ({"detail": {"msg": "two"}}, "two"),
        ({"message": "four", "msg": "three"}, "three four"),
        ({"message": "four"}, "four"),
        ({"odd": 1}, '{"odd":1}'),
    ],
)
def test_an_errors_text_is_found_wherever_it_stands(value: object, message: str) -> None:
    """The texts of an error are found in each place where clients have seen them, and all are told, in that order."""
    assert message == refusal(value)


@each_row("code", [200, "200", 200.0, 500, None, True, {}])
def test_a_webhooks_code_is_ignored(code: object) -> None:
    """The code of a webhook does not count, whatever its type."""
    raw = msgspec.json.encode({"code": code, "data": {"task_id": "t1", "status": "finished"}})
    assert (Progress(task_id="t1", claimed_stage=Stage.COMPLETE),) == Vidgo().parse_webhook(raw)


def test_a_task_id_that_cannot_be_read_leaves_the_outcome_unknown() -> None:
    """A success with an unreadable task id leaves the outcome unknown."""
    raw = b'{"code":200,"data":{"task_id":["a"]}}'
    assert isinstance(Vidgo().parse_submit(HttpResponse(status=200, body=raw)), Unknown)


def test_an_echoed_key_stays_secret_in_status_errors() -> None:
    """An API key that a status answer repeats is not in our error."""
    with pytest.raises(ProviderError) as caught:
        Vidgo("sk-secret").parse_status(HttpResponse(status=401, body=b'{"error":"bad key sk-secret"}'))
    assert "bad key [key]" == caught.value.message
    assert "charged" not in str(caught.value)  # the call is free, and its error says nothing of the task's charge


def test_a_firewalls_page_is_reported_as_such() -> None:
    """Cloudflare's error 1010 is reported as a firewall's refusal, before the call reached the API."""
    with pytest.raises(ProviderError, match="firewall") as caught:
        Vidgo("k").parse_status(HttpResponse(status=403, body=b"error code: 1010"))
    assert ("1010", False) == (caught.value.code, caught.value.charged)


def test_the_status_and_the_balance_are_gets(kit: Kit) -> None:
    """The status call has the task id in its query, and the balance has its own path."""
    vidgo = Vidgo("k", base_url="https://proxy.acme.test/vidgo/")
    base = "https://proxy.acme.test/vidgo"
    assert f"{base}/api/generate/detail/music?task_id=task-1" == str(vidgo.build_status(kit.make_record()).url)
    assert ("GET", f"{base}/api/user/balance") == (vidgo.build_credits().method, str(vidgo.build_credits().url))
    assert isinstance(vidgo, Credits)


def test_settings_have_the_defaults_of_the_pages() -> None:
    """The defaults are those of vidgo.ai's pages, which state neither a submit limit nor a retention."""
    vidgo = Vidgo()
    assert ("vidgo", "VIDGO_API_KEY", URL("https://api.vidgo.ai")) == (
        vidgo.name,
        vidgo.info.key_variable,
        vidgo.base_url,
    )
    assert (Limits(), 900.0, None) == (vidgo.limits, vidgo.grace, vidgo.retention)
    assert (True, False) == (vidgo.info.extends_by_id, vidgo.info.counts_tracks)
    assert (Limits(parallel=2), 60.0) == (
        Vidgo(limits=Limits(parallel=2)).limits,
        Vidgo(retention=60.0).retention,
    )
