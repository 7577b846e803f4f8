"""What holds for every provider in `audioext.providers.NAMES`; a new one is tested by being listed there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import get_args
from urllib.parse import unquote

import msgspec
import pytest
from attrs import evolve
from attrs import fields as attrs_fields
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

import audioext
from audioext import providers
from audioext.cli.options import ProviderName
from audioext.errors import AudioextError, ConfigError, DecodeError, ProviderError, UnsupportedError
from audioext.http.messages import HttpRequest, HttpResponse, Webhook
from audioext.models.events import Event, Failed, Progress, Refused, Submitted, Unknown
from audioext.models.limits import Limits, Pace
from audioext.models.requests import AddInstrumental, Extend, Operation
from audioext.models.results import Stage
from audioext.providers._fields import FIELDS, LOCAL_FIELDS, formats_taking
from audioext.providers.base import Credits, FileRoute, Provider, Uploads
from audioext.settings import SECRETS
from tests.support.tables import each_row
from tests.unit.providers.conftest import Kit, MakeProvider, Sample, load_samples

KEY = "sk-never-shown-0123456789"
CALLBACK = URL("https://hooks.example/audio/p/ref1/tag1")


def calls(provider: Provider) -> list[Callable[[bytes, int, dict[str, str]], object]]:
    """Return every method of *provider* that reads bytes, as functions of a body, a status and headers."""

    def answer(method: Callable[[HttpResponse], object]) -> Callable[[bytes, int, dict[str, str]], object]:
        return lambda body, status, headers: method(HttpResponse(status=status, headers=headers, body=body))

    def verify(body: bytes, _: int, headers: dict[str, str]) -> object:
        provider.verify_webhook(Webhook(path="/p", headers=headers, body=body, received_at=1_790_000_000.0))
        return ()

    def deliver(body: bytes, _: int, __: dict[str, str]) -> object:
        return provider.parse_webhook(body)

    found = [answer(provider.parse_submit), answer(provider.parse_status), verify, deliver]
    if isinstance(provider, Uploads):
        found.append(answer(provider.parse_upload))
    if isinstance(provider, Credits):
        found.append(answer(provider.parse_credits))
    return found


def assert_value_or_ours(provider: Provider, body: bytes, status: int, headers: dict[str, str]) -> None:
    """Read *body* in every way, and check that each result is a value of the contract or an `AudioextError`."""
    submit, *others = calls(provider)
    assert isinstance(submit(body, status, headers), (Submitted, Refused, Unknown))
    for call in others:
        try:
            result = call(body, status, headers)
        except AudioextError as error:
            result = f"{error} {error!r}"
        if isinstance(result, tuple):
            assert all(isinstance(event, (Submitted, Progress, Failed)) for event in result)
        else:
            assert isinstance(result, (str, float))
            assert KEY not in str(result)


def with_keys(made: MakeProvider) -> Provider:
    """Return the provider with an API key, and with a webhook key if its deliveries may be signed."""
    return made(KEY, **({"webhook_key": "hush"} if made().info.webhook_key_variable else {}))


headers_strategy = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Content-Type", "X-Webhook-Timestamp", "X-Webhook-Signature"]),
    st.text(max_size=12),
    max_size=3,
)
statuses = st.sampled_from([200, 201, 204, 301, 400, 401, 402, 403, 404, 429, 500, 503, 524])


def test_every_provider_meets_the_protocol(provider_class: MakeProvider) -> None:
    """A provider needs no argument, and meets the `Provider` protocol."""
    assert isinstance(provider_class(), Provider)


def test_names_are_the_wire_names(provider_class: MakeProvider) -> None:
    """A provider is loaded by the default name of its accounts, and by the name of its class."""
    assert providers.load(provider_class().name) is provider_class
    assert getattr(audioext, provider_class.__name__) is provider_class


def test_a_provider_is_known_outside_the_code(provider_class: MakeProvider) -> None:
    """The commands offer the provider, its keys may be in a file, and its fields are in the table of all fields."""
    info = provider_class().info
    assert info.name in get_args(ProviderName)
    assert {info.key_variable, info.webhook_key_variable} - {""} <= SECRETS
    assert info.operations


def test_providers_load_when_they_are_used() -> None:
    """Importing the package imports no provider, and loading one loads no other vendor's."""
    script = """
import sys, audioext.providers as p
homes = lambda: {home for home, _ in p.CLASSES.values() if home in sys.modules}
due = set()
assert due == homes()
for name in sys.argv[1:]:
    p.load(name)
    due.add(p.CLASSES[name][0])
    assert due == homes(), name
"""
    names = list(providers.NAMES)
    for order in names, names[::-1]:  # one that loads another's comes before that in one of them
        run = subprocess.run([sys.executable, "-c", script, *order], capture_output=True, text=True, check=False)
        assert (0, "") == (run.returncode, run.stderr)


def test_every_provider_has_samples(provider_class: MakeProvider, kit: Kit) -> None:
    """Every provider has samples of what was seen on the wire, and one of them names the `vital` keys of a song."""
    assert 1 == len([sample for sample in kit.samples_of(provider_class().name) if sample.vital])


@each_row("sample", load_samples())
def test_sample_means_what_its_index_says(sample: Sample, kit: Kit) -> None:
    """Every stored answer and delivery decodes to the meaning in its index."""
    provider = providers.load(sample.provider)(KEY, **sample.settings)
    try:
        result = kit.summary(sample.read(provider))
    except AudioextError as error:
        result = {"raises": kit.summary(error)}
    assert sample.means == result


def test_samples_name_their_sources(kit: Kit) -> None:
    """Each sample says where its shape was seen."""
    assert [] == [sample.file for sample in kit.samples if len(sample.source) < 10]


@given(body=st.binary(max_size=200), status=statuses, headers=headers_strategy)
def test_any_bytes_give_a_value_or_our_error(
    provider_class: MakeProvider, body: bytes, status: int, headers: dict[str, str]
) -> None:
    """Any bytes give a value or one of our errors."""
    assert_value_or_ours(with_keys(provider_class), body, status, headers)


@given(data=st.data(), status=statuses, headers=headers_strategy)
def test_any_json_gives_a_value_or_our_error(
    provider_class: MakeProvider, kit: Kit, data: st.DataObject, status: int, headers: dict[str, str]
) -> None:
    """JSON of any shape, with words of the wire in it, gives a value or one of our errors."""
    body = msgspec.json.encode(data.draw(kit.json_values()))
    assert_value_or_ours(with_keys(provider_class), body, status, headers)


@given(data=st.data())
def test_a_side_field_of_any_value_never_costs_a_song(
    provider_class: MakeProvider, kit: Kit, data: st.DataObject
) -> None:
    """The value of a field that is unknown or not vital never changes the files of a song."""
    provider = provider_class(KEY)
    (sample,) = (each for each in kit.samples_of(provider.name) if each.vital)
    vital = sample.vital
    read = (
        provider.parse_webhook
        if sample.parse == "webhook"
        else lambda body: provider.parse_status(HttpResponse(status=200, body=body))
    )
    body = json.loads(sample.body)
    links = audio_links(read(msgspec.json.encode(body)))
    assert links
    sides = [place for place in _objects(body) for key in [*place, "more"] if not re.fullmatch(vital, key)]
    place = data.draw(st.sampled_from(sides))
    key = data.draw(st.sampled_from([key for key in [*place, "more"] if not re.fullmatch(vital, key)]))
    place[key] = data.draw(kit.json_values())
    assert links == audio_links(read(msgspec.json.encode(body)))


def audio_links(events: tuple[Event, ...]) -> list[str | None]:
    """Return the audio links in *events*, which claim COMPLETE, and check the other facts of their tracks."""
    (event,) = events
    assert isinstance(event, Progress)
    assert event.claimed_stage is Stage.COMPLETE
    assert all(isinstance(track.title, str | None) and (track.duration or 1) > 0 for track in event.tracks)
    return [track.audio_url for track in event.tracks]


def _objects(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(item)


hostile = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=6),
    st.just("V5"),
    st.just([]),
)


@given(data=st.data(), kind=st.sampled_from([Extend, AddInstrumental]))
def test_check_raises_no_foreign_error(
    provider_class: MakeProvider, data: st.DataObject, kind: type[Extend | AddInstrumental]
) -> None:
    """`check` raises no foreign error for any draft, however wrong its values."""
    names = [attribute.name for attribute in attrs_fields(kind) if attribute.name not in {"file", "rehost"}]
    draft = kind.draft(**data.draw(st.dictionaries(st.sampled_from(names), hostile, max_size=8)))
    provider = provider_class(KEY)
    try:
        problems = provider.check(draft)
    except UnsupportedError:
        assert draft.operation not in provider.info.operations
    else:
        assert all(problem.field and problem.message for problem in problems)


def test_every_field_is_in_the_tables(kit: Kit) -> None:
    """Each field of a request has a row that says which providers take it, and a sample value if it is sent."""
    fields = {each.name for kind in (Extend, AddInstrumental) for each in attrs_fields(kind)}
    assert fields == {*FIELDS}, "say in FIELDS of providers/_fields.py which providers take it"
    sent_as_given = fields - LOCAL_FIELDS - {"url", "audio_id"}
    assert set() == sent_as_given - {*kit.field_values}, (
        "add a value to FIELD_VALUES of tests/unit/providers/conftest.py"
    )


@pytest.mark.parametrize("operation", list(Operation))
def test_every_field_of_the_table_is_on_the_wire(provider_class: MakeProvider, kit: Kit, operation: Operation) -> None:
    """Every field that a provider takes changes what is sent."""
    provider = provider_class(KEY)
    if operation not in provider.info.operations:
        pytest.skip("this wire format has no such operation")
    taken = {name for name in FIELDS if provider.name in formats_taking(name, operation)}
    values = {name: value for name, value in kit.field_values.items() if name in taken}
    full = sent(provider.build_submit(kit.make_request(operation, **values), CALLBACK))
    for name in taken - LOCAL_FIELDS - {"url", "audio_id"}:
        value = values[name]
        needle = {"male": ("m", "male")}.get(value, (value,)) if isinstance(value, str) else (value,)
        assert any(found in full for found in needle), f"{name} is missing from {full}"
    source = kit.make_request(operation, **values)
    assert (getattr(source, "audio_id", None) or source.url) in full


@pytest.mark.parametrize("operation", list(Operation))
def test_a_field_outside_the_table_is_refused(provider_class: MakeProvider, kit: Kit, operation: Operation) -> None:
    """A field that a provider does not take is a problem that names those that do, and is never dropped."""
    provider = provider_class(KEY)
    if operation not in provider.info.operations:
        pytest.skip("this wire format has no such operation")
    kind = AddInstrumental if operation is Operation.ADD_INSTRUMENTAL else Extend
    own = {attribute.name for attribute in attrs_fields(kind)}
    least = kit.make_request(operation, **kit.least_fields[operation]).given()
    for name, value in kit.field_values.items():
        names = formats_taking(name, operation)
        if provider.name in names or name not in own:
            continue
        found = [problem for problem in provider.check(kind.draft(**{**least, name: value})) if not problem.advice]
        said = [problem.message for problem in found if problem.field == name]
        assert said, f"{name} is not refused"
        assert all(taker in said[0] for taker in names)


def test_an_operation_that_is_missing_is_named(provider_class: MakeProvider, kit: Kit) -> None:
    """An operation that a provider lacks raises `UnsupportedError`, which names the providers that have it."""
    provider = provider_class(KEY)
    assert provider.info.operations == {op for op in Operation if provider.name in formats_taking("provider", op)}
    for operation in set(Operation) - provider.info.operations:
        request = kit.make_request(operation, **kit.least_fields[operation])
        with pytest.raises(UnsupportedError, match="kie, kie-jobs, sunoapi and vidgo have it"):
            provider.check(request)


def sent(request: HttpRequest) -> list[object]:
    """Return all values in the body of *request*, JSON or multipart, at any depth."""
    if request.body is None:
        return [*(part.value for part in request.parts), *(_number(part.value) for part in request.parts)]
    return list(_leaves(json.loads(request.body)))


def _number(text: str | None) -> object:
    if text in {"true", "false"}:
        return text == "true"
    return float(text) if text is not None and re.fullmatch(r"\d+(\.\d+)?", text) else None


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


@each_row("callback", [CALLBACK, None])
def test_a_submit_is_one_whole_post(provider_class: MakeProvider, kit: Kit, callback: URL | None) -> None:
    """Every operation is one POST under the base URL, with a key, a User-Agent and one body."""
    provider = provider_class(KEY, base_url="http://127.0.0.1:7007/prefix/")
    for operation in provider.info.operations:
        least = {k: v for k, v in kit.least_fields[operation].items() if provider.name in formats_taking(k, operation)}
        request = provider.build_submit(kit.make_request(operation, **least), callback)
        assert ("POST", "127.0.0.1", 7007) == (request.method, request.url.host, request.url.port)
        assert request.url.path.startswith("/prefix/")
        assert (request.body is None) == bool(request.parts)
        assert KEY in request.headers["Authorization"]
        assert request.headers["User-Agent"].startswith("audioext/")
        shown = sent(request)
        if callback is None:
            urls = [v for v in shown if isinstance(v, str) and "example" not in v and v.startswith("http")]
            assert all((URL(url).host or "").endswith(".invalid") for url in urls)
        else:
            assert str(CALLBACK) in shown


def test_a_status_call_names_the_task(provider_class: MakeProvider, kit: Kit) -> None:
    """The status call is a GET with the task id in its query or its path, whatever characters the id has."""
    provider = provider_class(KEY)
    request = provider.build_status(kit.make_record("task/1 &?"))
    assert "GET" == request.method
    assert "task/1 &?" in {*request.url.query.values(), unquote(request.url.raw_path.rpartition("/")[2])}
    assert KEY in request.headers["Authorization"]


def test_a_status_call_needs_a_task(provider_class: MakeProvider, kit: Kit) -> None:
    """A status call cannot be built before the task id is known."""
    provider = provider_class(KEY)
    with pytest.raises(AudioextError):
        provider.build_status(kit.make_record(None))


def test_the_key_never_shows(provider_class: MakeProvider, kit: Kit) -> None:
    """The API key is in no repr of a provider, its info or a request."""
    provider = provider_class(KEY)
    operation = max(provider.info.operations)
    least = {k: v for k, v in kit.least_fields[operation].items() if provider.name in formats_taking(k, operation)}
    request = provider.build_submit(kit.make_request(operation, **least), CALLBACK)
    assert KEY not in f"{provider!r} {request!r} {provider.info!r} {provider}"
    assert str(CALLBACK) not in repr(request)


def test_an_echoed_key_is_not_repeated(provider_class: MakeProvider) -> None:
    """A key that the API repeats in its error is not in our message."""
    body = msgspec.json.encode(
        {"code": 401, "msg": f"bad key {KEY}", "detail": f"bad key {KEY}", "message": f"bad {KEY}"}
    )
    outcome = provider_class(KEY).parse_submit(HttpResponse(status=401, body=body))
    assert isinstance(outcome, Refused)
    assert KEY not in f"{outcome!r} {outcome.error} {outcome.error.message}"


@each_row("base_url", ["", "api.example", "ftp://api.example", "https://", "https://api.example?q=1", "http://[", 7])
def test_a_base_url_that_cannot_work_is_refused(provider_class: MakeProvider, base_url: object) -> None:
    """A base URL that is not http(s), or has no host or a query, raises `ConfigError`."""
    with pytest.raises(ConfigError):
        provider_class(KEY, base_url=base_url)


@each_row("base_url", ["http://127.0.0.1:9/kie", "http://127.0.0.1:9/kie/", URL("http://127.0.0.1:9/kie")])
def test_a_base_url_may_carry_a_path(provider_class: MakeProvider, base_url: object) -> None:
    """A base URL may have a path, with or without a trailing slash, and may be a `URL`."""
    assert URL("http://127.0.0.1:9/kie") == provider_class(KEY, base_url=base_url).base_url


@each_row("name", ["", "Kie", "a/b", "a b", "ä", 3, "k" * 65])
def test_a_name_must_fit_into_a_path(provider_class: MakeProvider, name: object) -> None:
    """A name may contain only small letters, digits and hyphens, and as many as a callback path is read with."""
    with pytest.raises(ConfigError):
        provider_class(KEY, name=name)


def test_two_accounts_may_have_two_names(provider_class: MakeProvider) -> None:
    """Two accounts with different names and keys have separate limits."""
    one, two = provider_class(KEY), provider_class("other", name="second-2")
    assert "second-2" == two.name
    assert one.info.account != two.info.account


def test_file_route_and_uploads_agree(provider_class: MakeProvider) -> None:
    """A provider whose file route is UPLOAD has an upload call."""
    provider = provider_class(KEY)
    if provider.info.file_route is FileRoute.UPLOAD:
        assert isinstance(provider, Uploads)


def test_a_request_is_validated_once(provider_class: MakeProvider) -> None:
    """`check` leaves invalid values to the request itself, and `build_submit` checks nothing again."""
    provider = provider_class(KEY)
    draft = Extend.draft(url="https://files.example/a.mp3", continue_at=-1, num_outputs=7, style_weight=7)
    taken = {name for name in draft.given() if provider.name in formats_taking(name, draft.operation)}
    assert not taken & {problem.field for problem in provider.check(draft)}
    assert "POST" == provider.build_submit(draft, CALLBACK).method


def test_an_accounts_settings_can_be_read(provider_class: MakeProvider) -> None:
    """The settings can be read from the account, and its `info` is a value that is made once."""
    provider = provider_class(
        KEY, name="mine", grace=60.0, retention=5.0, limits=Limits(parallel=3), pace=Pace(first=1)
    )
    info = provider.info
    assert ("mine", 60.0, 5.0, Limits(parallel=3), Pace(first=1)) == (
        provider.name,
        provider.grace,
        provider.retention,
        provider.limits,
        provider.pace,
    )
    assert (info.name, info.grace, info.retention, info.limits, info.pace) == (
        provider.name,
        provider.grace,
        provider.retention,
        provider.limits,
        provider.pace,
    )
    assert (KEY, True, False) == (provider.api_key, info.has_key, provider_class().info.has_key)
    assert provider.info is info
    assert evolve(provider, api_key="other").info.account != info.account


@each_row(
    "pasted",
    [
        "k1",
        " k1\n",
        "Bearer k1",
        "bearer  k1 ",
        "Bearer: k1",
        '"k1"',
        "'Bearer k1'",
        "Bearer 'k1'",
        "Authorization: Bearer k1",
        "x-api-key: k1",
        "KIE_API_KEY=k1",
        "export KIE_API_KEY='k1'",
        "set KIE_API_KEY=k1",
        "$env:KIE_API_KEY = 'k1'",
        "--api-key=k1",
        "\ufeffk1\r\n",
        "\u201ck1\u201d",
        "\u00a0k1\u200b",
        "\u201ek1\u201c",
        "\u00abk1\u00bb",
        "\u200e\u2068k1\u2069",
        "<k1>",
    ],
)
def test_whitespace_and_quotes_around_a_key_are_removed(provider_class: MakeProvider, pasted: str) -> None:
    """White space, quotes and prefixes around a pasted key are removed."""
    assert "k1" == provider_class(pasted).api_key


@each_row(
    ("key", "says"),
    [
        *((key, "is empty") for key in ("", "  ", "Bearer ", '""')),
        *((key, "has a space") for key in ("sk-\u00e9", "sk\n1", "sk1 # of mine", "sk 1")),
        (5, "must be text"),
    ],
)
def test_an_api_key_must_fit_a_header(provider_class: MakeProvider, key: object, says: str) -> None:
    """A key that cannot be sent in a header is refused, and not quoted in the error."""
    with pytest.raises(ConfigError, match=f"api_key {says}") as caught:
        provider_class(key)
    assert "sk" not in str(caught.value)


def test_an_answer_that_is_not_json_is_quoted(provider_class: MakeProvider) -> None:
    """The error for an answer that is not JSON says where it redirects to, or quotes the page."""
    provider = provider_class(KEY)
    moved = HttpResponse(status=301, headers={"Location": "https://elsewhere.example/\x1b[31m"})
    with pytest.raises(ProviderError, match=r"answered 301: a redirect to https://elsewhere\.example/\ufffd"):
        provider.parse_status(moved)
    with pytest.raises(DecodeError, match=r"cannot read the body \(<html>log in</html>\): JSON is malformed"):
        provider.parse_status(HttpResponse(status=200, body=b"<html>log in</html>"))
    if isinstance(provider, Credits):
        with pytest.raises(ProviderError, match="answered 301: a redirect to"):
            provider.parse_credits(moved)


@each_row("status", [500, 502, 503, 524])
@each_row(
    "body",
    [
        {"code": 401, "msg": "no", "detail": "no", "error": {"message": "no"}},
        {"code": 200, "msg": "ok", "success": True, "task_id": "t", "data": {"taskId": "t", "task_id": "t"}},
        {"success": False, "message": "Internal error"},
    ],
)
def test_after_a_5xx_the_outcome_is_unknown(provider_class: MakeProvider, status: int, body: object) -> None:
    """After an HTTP 5xx the outcome is unknown whatever its body says, so that nothing is resent."""
    answer = HttpResponse(status=status, body=msgspec.json.encode(body))
    assert isinstance(provider_class(KEY).parse_submit(answer), Unknown)


@each_row("key", ["msg", "message", "detail", "error"])
def test_a_readable_refusal_ends_the_submit(provider_class: MakeProvider, key: str) -> None:
    """A 400 with a reason and without a task is a refusal in the vendor's words, as an HTTP status or as a code."""
    provider = provider_class(KEY)
    says = {key: "Song Description contained artist name: example"}
    by_status = provider.parse_submit(HttpResponse(status=400, body=msgspec.json.encode(says)))
    assert isinstance(by_status, Refused)
    assert ("contained artist name" in by_status.error.message, False) == (True, by_status.error.charged)
    by_code = provider.parse_submit(HttpResponse(status=200, body=msgspec.json.encode({"code": 400, **says})))
    assert isinstance(by_code, Refused)


@each_row("code", [408, 499, 520])
def test_a_code_that_may_follow_a_task_makes_the_outcome_unknown(provider_class: MakeProvider, code: int) -> None:
    """A code like a time-out makes the outcome unknown, with a reason that quotes the answer."""
    body = msgspec.json.encode({"code": code, "msg": "took too long", "message": "took too long"})
    outcome = provider_class(KEY).parse_submit(HttpResponse(status=200, body=body))
    assert isinstance(outcome, Unknown)
    assert (f"{code}" in outcome.reason, "took too long" in outcome.reason) == (True, True)


@each_row("where", ["top", "data", "camel", "text"])
def test_a_submit_may_name_its_task_anywhere(provider_class: MakeProvider, where: str) -> None:
    """A task id is found at the top or under `data`, in either spelling, and in a JSON text."""
    bodies: dict[str, object] = {
        "top": {"code": 200, "task_id": "t1", "status": "not_started"},
        "data": {"code": 200, "data": {"task_id": "t1"}},
        "camel": {"success": True, "data": {"taskId": "t1"}},
        "text": {"code": "200", "data": '{"taskId": "t1"}'},
    }
    answer = HttpResponse(status=200, body=b"\xef\xbb\xbf" + msgspec.json.encode(bodies[where]))
    assert Submitted(task_id="t1") == provider_class(KEY).parse_submit(answer)


@each_row("count", [33, 50_000])
def test_a_flood_of_tracks_is_refused_at_once(provider_class: MakeProvider, count: int) -> None:
    """A body with more than some dozens of tracks is refused at once, or read without tracks."""
    flood = {"task_id": "t", "status": "SUCCESS", "data": [{}] * count, "files": [7] * count}
    try:
        events = provider_class(KEY).parse_webhook(msgspec.json.encode(flood))
    except AudioextError as error:
        assert len(str(error)) < 500  # noqa: PT017 - an error is one of the two good outcomes
    else:
        assert all(isinstance(event, Progress) and not event.tracks for event in events)
