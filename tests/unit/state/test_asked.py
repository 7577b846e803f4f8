"""The first entry of a journal: a stored request reads back as it was, or raises an error that says what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.errors import StoreError
from audioext.models.checks import GENDERS, PERSONA_MODELS
from audioext.models.record import Asked
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.state.reading import dump_asked, load_asked
from tests.support.tables import each_row
from tests.support.tape import asked

# --- any request --------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
weights = st.integers(0, 100).map(lambda hundredths: hundredths / 100)
seconds = st.one_of(st.floats(0.01, 1e9), st.integers(1, 10**30))
names = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=1).map(lambda name: name.decode(errors="surrogateescape").translate({0: "-", ord("/"): "-"})),
).filter(lambda name: name not in {".", ".."})
files = st.lists(names, min_size=1, max_size=3).map(lambda parts: Path("/", *parts))
common = {
    "model": texts.filter(bool),
    "title": texts,
    "lyrics": texts,
    "negative_tags": texts,
    "vocal_gender": st.sampled_from(GENDERS),
    "style_weight": weights,
    "weirdness_constraint": weights,
    "audio_weight": weights,
    "variety": st.integers(0, 4),
    "rehost": st.booleans(),
    "source_duration": seconds,
    "provider": texts,
}
only_extend = {
    "continue_at": seconds,
    "prompt": texts,
    "style": texts,
    "lyrics_section_to_extend": texts,
    "instrumental": st.booleans(),
    "num_outputs": st.integers(1, 2),
    "generate_album_cover": st.booleans(),
    "lyrics_timestamps": st.booleans(),
    "custom": st.booleans(),
    "persona_id": texts.filter(bool),
    "persona_model": st.sampled_from(PERSONA_MODELS),
}
only_instrumental = {"tags": texts}
sources = st.one_of(
    st.just({"url": "https://files.test/λ.mp3"}),
    files.map(lambda path: {"file": path}),
)
extends = st.builds(
    lambda source, fields: Extend.draft(**source, **fields),
    st.one_of(sources, st.just({"audio_id": "e231"})),
    st.fixed_dictionaries({}, optional={**common, **only_extend}),
)
instrumentals = st.builds(
    lambda source, fields: AddInstrumental.draft(**source, **fields),
    sources,
    st.fixed_dictionaries({}, optional={**common, **only_instrumental}),
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
everything = st.builds(
    Asked,
    provider=texts,
    account=texts,
    request=st.one_of(extends, instrumentals),
    model=st.none() | texts,
    key=st.none() | texts,
    meta=st.dictionaries(texts, jsons, max_size=3),
    expected_tracks=st.integers(1, 2),
    counts_tracks=st.booleans(),
    extends_by_id=st.booleans(),
    retention=st.none() | st.floats(0.0, 1e9),
    webhooks=st.booleans(),
    grace=st.floats(0.0, 1e6),
    traceparent=st.none() | texts,
)


def test_every_field_of_a_request_is_tried() -> None:
    """The strategies above have every field of a request."""
    tried = {*Extend.SOURCES, *common}
    assert {each.name for each in attrs.fields(Extend)} == tried | only_extend.keys()
    assert {each.name for each in attrs.fields(AddInstrumental)} == (tried - {"audio_id"}) | only_instrumental.keys()


@given(value=everything)
def test_a_request_survives_a_round_trip(value: Asked) -> None:
    """Storing and reading a request gives an equal value of the same types, whatever its kind and source."""
    loaded = load_asked(dump_asked(value))

    assert value == loaded
    assert type(value.request) is type(loaded.request)
    assert [type(each) for each in value.request.given().values()] == [
        type(each) for each in loaded.request.given().values()
    ]


@given(value=everything)
def test_equal_requests_have_equal_bytes(value: Asked) -> None:
    """Equal values have equal bytes, so that a request that is stored again is the same entry."""
    assert dump_asked(value) == dump_asked(load_asked(dump_asked(value)))


# --- single cases -------------------------------------------------------------------------------------------


@each_row(
    "request_",
    [
        Extend(audio_id="a", model="V5", custom=False, style_weight=0.65),
        Extend(file=Path("ключ λ.wav"), source_duration=12.5),
        Extend(file=b"caf\xe9.wav".decode(errors="surrogateescape")),
        AddInstrumental(url="https://x.test/a", title="t", tags="", negative_tags="", rehost=True),
    ],
)
def test_every_request_is_stored_and_read(request_: Request) -> None:
    """Requests of every kind and source can be stored, also for a file whose name is not valid text."""
    value = asked(request=request_, meta={"deep": {"list": [1, None, "λ"]}})

    assert value == load_asked(dump_asked(value))


def test_a_later_releases_fields_are_left_out() -> None:
    """Unknown fields of a later release are ignored."""
    stored = msgspec.json.decode(dump_asked(asked()))
    stored["mood"] = "blue"
    stored["request"]["no_such_field"] = 120

    assert asked() == load_asked(msgspec.json.encode(stored))


def test_a_job_that_nobody_traces_is_kept_as_before() -> None:
    """A job without a trace is stored without the field, so that earlier releases can read it."""
    stored = msgspec.json.decode(dump_asked(asked()))

    assert "traceparent" not in stored
    assert load_asked(msgspec.json.encode(stored)).traceparent is None


def test_a_stored_request_that_new_rules_refuse_can_be_read() -> None:
    """A stored request that today's stricter rules would refuse can still be read."""
    stored = msgspec.json.decode(dump_asked(asked()))
    stored["request"]["continue_at"] = -1.0

    assert -1.0 == load_asked(msgspec.json.encode(stored)).request.given()["continue_at"]


# --- damage -------------------------------------------------------------------------------------------------


def change(name: str, value: object) -> Callable[[], bytes]:
    """Return a function that makes a stored form whose *name* is *value*."""
    return lambda: msgspec.json.encode({**msgspec.json.decode(dump_asked(asked())), name: value})


@each_row(
    ("data", "says"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"null", "damaged"),
        (b'"text"', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"format":1}', "damaged"),
        (b'{"provider":"kie"}', "damaged"),
        (change("format", 999)(), "update audioext"),
        (change("request", None)(), "damaged"),
        (change("request", {})(), "damaged"),
        (change("request", [1])(), "damaged"),
        (change("expected_tracks", "many")(), "damaged"),
        (change("grace", None)(), "damaged"),
    ],
)
def test_data_that_is_not_a_request_raises_store_error(data: bytes, says: str) -> None:
    """Data that is not a request raises `StoreError`, which says what is wrong and what to do."""
    with pytest.raises(StoreError, match=says):
        load_asked(data)


@given(value=everything, data=st.data())
def test_damaged_bytes_give_a_value_or_a_store_error(value: Asked, data: st.DataObject) -> None:
    """Damaged bytes give a value or a `StoreError`, never another error."""
    stored = bytearray(dump_asked(value))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(stored) - 1))
        stored[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))

    with contextlib.suppress(StoreError):
        assert isinstance(load_asked(bytes(stored) or b" "), Asked)


@given(data=st.binary() | jsons.map(msgspec.json.encode))
def test_foreign_bytes_give_a_store_error(data: bytes) -> None:
    """Bytes that were never a journal raise `StoreError`."""
    with pytest.raises(StoreError):
        load_asked(data)
