"""What holds for every provider: found in `audioext.providers.ALL`, tested by existing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import orjson
import pytest
from attrs import fields as attrs_fields
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from audioext.errors import AudioextError, ConfigError, RequestError, UnsupportedError
from audioext.http.messages import HttpRequest, HttpResponse, Webhook
from audioext.models.events import Failed, Progress, Refused, Submitted, Unknown
from audioext.models.requests import AddInstrumental, Extend, Operation
from audioext.providers import ALL
from audioext.providers._fields import FIELDS, OPERATIONS, WIRE_NAMES
from audioext.providers.base import Credits, FileRoute, Provider, Uploads

if TYPE_CHECKING:
    from tests.unit.providers.conftest import Kit, Sample

MakeProvider = Callable[..., Provider]
KEY = "sk-never-shown-0123456789"
CALLBACK = URL("https://hooks.example/audio/p/ref1/tag1")
LOCAL_FIELDS = frozenset({"provider", "source_duration", "rehost", "file"})
"""Fields that are ours alone, or turned into `url` before the submit."""

MODEST = settings(
    max_examples=110,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def calls(provider: Provider) -> list[Callable[[bytes, int, dict[str, str]], object]]:
    """Return every parse method of *provider*, as functions of a body, a status and headers."""

    def answer(method: Callable[[HttpResponse], object]) -> Callable[[bytes, int, dict[str, str]], object]:
        return lambda body, status, headers: method(HttpResponse(status=status, headers=headers, body=body))

    def deliver(body: bytes, _: int, headers: dict[str, str]) -> object:
        return provider.parse_webhook(Webhook(path="/p", headers=headers, body=body, received_at=1_790_000_000.0))

    found = [answer(provider.parse_submit), answer(provider.parse_status), deliver]
    if isinstance(provider, Uploads):
        found.append(answer(provider.parse_upload))
    if isinstance(provider, Credits):
        found.append(answer(provider.parse_credits))
    return found


def assert_value_or_ours(provider: Provider, body: bytes, status: int, headers: dict[str, str]) -> None:
    """Read *body* every way: the result is a value of the contract or an `AudioextError`."""
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


headers_strategy = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Content-Type", "X-Webhook-Timestamp", "X-Webhook-Signature"]),
    st.text(max_size=12),
    max_size=3,
)
statuses = st.sampled_from([200, 201, 204, 301, 400, 401, 402, 403, 404, 429, 500, 503, 524])


def test_every_provider_meets_the_protocol(provider_class: MakeProvider) -> None:
    """A provider needs no argument and has all that the protocol names."""
    assert isinstance(provider_class(), Provider)


def test_names_are_the_tables_names() -> None:
    """The field tables know every provider by its default name, in the order of `ALL`."""
    names = [made().name for made in ALL]
    assert [name for name in WIRE_NAMES if name in names] == names


def test_every_provider_has_samples(provider_class: MakeProvider, kit: Kit) -> None:
    """A provider without samples is not tested against what was seen on the wire."""
    assert kit.samples_of(provider_class().name)


def test_sample_means_what_its_index_says(sample: Sample, kit: Kit) -> None:
    """Every stored answer and delivery decodes to what its source says of it."""
    made: dict[str, MakeProvider] = {provider().name: provider for provider in ALL}
    provider = made[sample.provider](KEY, **sample.settings)
    try:
        result = kit.summary(sample.read(provider))
    except AudioextError as error:
        result = {"raises": kit.summary(error)}
    assert sample.means == result


def test_samples_name_their_sources(kit: Kit) -> None:
    """Each sample says where its shape was seen."""
    assert [] == [sample.file for sample in kit.samples if len(sample.source) < 10]


@given(body=st.binary(max_size=200), status=statuses, headers=headers_strategy)
@MODEST
def test_any_bytes_give_a_value_or_our_error(
    provider_class: MakeProvider, body: bytes, status: int, headers: dict[str, str]
) -> None:
    """Bytes that are no JSON never raise anything but our errors."""
    assert_value_or_ours(provider_class(KEY), body, status, headers)


@given(data=st.data(), status=statuses, headers=headers_strategy)
@MODEST
def test_any_json_gives_a_value_or_our_error(
    provider_class: MakeProvider, kit: Kit, data: st.DataObject, status: int, headers: dict[str, str]
) -> None:
    """JSON of any shape, with the wire's own words in it, never raises anything but our errors."""
    body = orjson.dumps(data.draw(kit.json_values()), option=orjson.OPT_NON_STR_KEYS, default=str)
    assert_value_or_ours(provider_class(KEY), body, status, headers)


@given(data=st.data(), status=statuses)
@MODEST
def test_any_mutation_of_a_sample_gives_a_value_or_our_error(
    provider_class: MakeProvider, kit: Kit, data: st.DataObject, status: int
) -> None:
    """A real body with one value replaced, removed or cut short never raises anything but our errors."""
    provider = provider_class(KEY)
    sample = data.draw(st.sampled_from(kit.samples_of(provider.name)))
    try:
        body = orjson.dumps(mutated(orjson.loads(sample.body), data, kit.json_values()))
    except (orjson.JSONDecodeError, TypeError):  # not JSON, or an integer beyond 64 bits was drawn
        body = sample.body
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    assert_value_or_ours(provider, body, status, {})


def mutated(value: object, data: st.DataObject, values: st.SearchStrategy[object]) -> object:
    """Return *value* with something drawn in the place of one of its parts."""
    if isinstance(value, (dict, list)) and value and data.draw(st.integers(0, 3)):
        keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        copy = value.copy()
        if data.draw(st.integers(0, 4)):
            copy[key] = mutated(value[key], data, values)
        else:
            del copy[key]
        return copy
    return data.draw(values)


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
@MODEST
def test_check_is_total(
    provider_class: MakeProvider, data: st.DataObject, kind: type[Extend | AddInstrumental]
) -> None:
    """Any draft, however wrong its values, is checked without a foreign error."""
    names = [attribute.name for attribute in attrs_fields(kind) if attribute.name not in {"file", "rehost"}]
    draft = kind.draft(**data.draw(st.dictionaries(st.sampled_from(names), hostile, max_size=8)))
    provider = provider_class(KEY)
    try:
        problems = provider.check(draft)
    except UnsupportedError:
        assert draft.operation not in provider.operations
    else:
        assert all(problem.field and problem.message for problem in problems)


@pytest.mark.parametrize("operation", list(Operation))
def test_every_field_of_the_table_is_on_the_wire(provider_class: MakeProvider, kit: Kit, operation: Operation) -> None:
    """A field that a provider is said to take changes what is sent."""
    provider = provider_class(KEY)
    if operation not in provider.operations:
        pytest.skip("this wire format has no such operation")
    taken = {name for name, takers in FIELDS[operation].items() if provider.name in takers}
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
    """A field that a provider cannot express is a problem that names who takes it, and is never dropped."""
    provider = provider_class(KEY)
    if operation not in provider.operations:
        pytest.skip("this wire format has no such operation")
    kind = AddInstrumental if operation is Operation.ADD_INSTRUMENTAL else Extend
    own = {attribute.name for attribute in attrs_fields(kind)}
    least = kit.make_request(operation, **kit.least_fields[operation]).given()
    for name, value in kit.field_values.items():
        takers = FIELDS[operation].get(name, frozenset())
        if provider.name in takers or name not in own:
            continue
        found = [problem for problem in provider.check(kind.draft(**{**least, name: value})) if not problem.advice]
        told = [problem.message for problem in found if problem.field == name]
        assert told, f"{name} is not refused"
        assert all(taker in told[0] for taker in takers)


def test_an_operation_that_is_missing_is_named(provider_class: MakeProvider, kit: Kit) -> None:
    """An operation that a wire format lacks is unsupported, and the message says who has it."""
    provider = provider_class(KEY)
    assert provider.operations == {op for op, names in OPERATIONS.items() if provider.name in names}
    for operation in set(Operation) - provider.operations:
        request = kit.make_request(operation, **kit.least_fields[operation])
        with pytest.raises(UnsupportedError, match=", ".join(n for n in WIRE_NAMES if n in OPERATIONS[operation])[:8]):
            provider.check(request)
        with pytest.raises(UnsupportedError):
            provider.build_submit(request, CALLBACK)


def sent(request: HttpRequest) -> list[object]:
    """Return all the values in the body of *request*, JSON or multipart, however deep."""
    if request.body is None:
        return [*(part.value for part in request.parts), *(_number(part.value) for part in request.parts)]
    return list(_leaves(orjson.loads(request.body)))


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


@pytest.mark.parametrize("callback", [CALLBACK, None])
def test_a_submit_is_one_whole_post(provider_class: MakeProvider, kit: Kit, callback: URL | None) -> None:
    """Every operation makes a POST under the base URL with a key, a User-Agent and one body."""
    provider = provider_class(KEY, base_url="http://127.0.0.1:7007/prefix/")
    for operation in provider.operations:
        least = {k: v for k, v in kit.least_fields[operation].items() if provider.name in FIELDS[operation][k]}
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
    """The status call is a GET that carries the task id, whatever is in it."""
    provider = provider_class(KEY)
    request = provider.build_status(kit.make_record(provider, "task/1 &?"))
    assert "GET" == request.method
    assert "task/1 &?" in request.url.query.values()
    assert KEY in request.headers["Authorization"]


def test_a_status_call_needs_a_task(provider_class: MakeProvider, kit: Kit) -> None:
    """There is nothing to ask for before the task id is known."""
    provider = provider_class(KEY)
    with pytest.raises(AudioextError):
        provider.build_status(kit.make_record(provider, None))


def test_the_key_never_shows(provider_class: MakeProvider, kit: Kit) -> None:
    """Neither a provider's repr nor that of a request shows a key."""
    provider = provider_class(KEY)
    operation = max(provider.operations)
    least = {k: v for k, v in kit.least_fields[operation].items() if provider.name in FIELDS[operation][k]}
    request = provider.build_submit(kit.make_request(operation, **least), CALLBACK)
    assert KEY not in f"{provider!r} {request!r} {provider.account} {provider}"
    assert str(CALLBACK) not in repr(request)


def test_an_echoed_key_is_not_repeated(provider_class: MakeProvider) -> None:
    """A key that the API echoes in its error does not reach our message."""
    body = orjson.dumps({"code": 401, "msg": f"bad key {KEY}", "detail": f"bad key {KEY}", "message": f"bad {KEY}"})
    outcome = provider_class(KEY).parse_submit(HttpResponse(status=401, body=body))
    assert isinstance(outcome, Refused)
    assert KEY not in f"{outcome!r} {outcome.error} {outcome.error.message}"


@pytest.mark.parametrize(
    "base_url", ["", "api.example", "ftp://api.example", "https://", "https://api.example?q=1", "http://[", 7]
)
def test_a_base_url_that_cannot_work_is_refused(provider_class: MakeProvider, base_url: object) -> None:
    """A base URL must be http(s), with a host and without a query."""
    with pytest.raises(ConfigError):
        provider_class(KEY, base_url=base_url)


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:9/kie", "http://127.0.0.1:9/kie/", URL("http://127.0.0.1:9/kie")]
)
def test_a_base_url_may_carry_a_path(provider_class: MakeProvider, base_url: object) -> None:
    """A prefix is kept, and a trailing slash or a ready URL makes no difference."""
    assert URL("http://127.0.0.1:9/kie") == provider_class(KEY, base_url=base_url).base_url


@pytest.mark.parametrize("name", ["", "Kie", "a/b", "a b", "ä", 3])
def test_a_name_must_fit_into_a_path(provider_class: MakeProvider, name: object) -> None:
    """A name is small letters, digits and hyphens."""
    with pytest.raises(ConfigError):
        provider_class(KEY, name=name)


def test_two_accounts_may_have_two_names(provider_class: MakeProvider) -> None:
    """A name is a setting, and limits count by key."""
    one, two = provider_class(KEY), provider_class("other", name="second-2")
    assert "second-2" == two.name
    assert one.account != two.account


def test_file_route_and_uploads_agree(provider_class: MakeProvider) -> None:
    """Who uploads first has an upload call."""
    provider = provider_class(KEY)
    if provider.file_route is FileRoute.UPLOAD:
        assert isinstance(provider, Uploads)


def test_refusals_by_draft_are_request_errors(provider_class: MakeProvider) -> None:
    """A draft with problems of its own is never sent."""
    provider = provider_class(KEY)
    with pytest.raises(RequestError):
        provider.build_submit(Extend.draft(url="https://files.example/a.mp3", model="V5", continue_at=-1), CALLBACK)
