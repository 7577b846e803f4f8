"""Decoding is strict and total: a value of the type, or a DecodeError that says where."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from audioext.errors import DecodeError
from audioext.http.decoding import MAX_DEPTH, Link, Number, Text, When, decode, parse_json, structure


@frozen
class Part:
    """A part of a made-up body."""

    id: Text
    url: Link | None = None
    seconds: Number | None = None
    at: When | None = None
    good: bool | None = None
    count: int | None = None
    weight: float | None = None
    name: str | None = None


@frozen
class Body:
    """A made-up body."""

    parts: list[Part]


def paths(data: bytes) -> tuple[str, ...]:
    """Return what a body is refused with."""
    with pytest.raises(DecodeError) as caught:
        decode(data, Body)
    return caught.value.paths


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "url", "parts", "at", "x"]), inner)
    ),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_decode_error(data: bytes) -> None:
    """No bytes raise anything else."""
    try:
        assert isinstance(decode(data, Body), Body)
    except DecodeError as error:
        assert error.paths  # noqa: PT017 - an error is one of the two good outcomes


@given(json_values)
def test_any_json_gives_a_value_or_a_decode_error(value: object) -> None:
    """No JSON value raises anything else, bare or inside the right envelope."""
    for candidate in (value, {"parts": value}, {"parts": [value]}, {"parts": [{"id": "a", "at": value, "url": value}]}):
        try:
            assert isinstance(structure(candidate, Body), Body)
        except DecodeError as error:
            assert error.paths  # noqa: PT017 - an error is one of the two good outcomes


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"id": None}, "expected text, got null @ $.parts[0].id"),
        ({}, "required field missing @ $.parts[0].id"),
        ({"id": True}, "expected text, got true or false @ $.parts[0].id"),
        ({"id": "a", "seconds": True}, "expected a number, got true or false @ $.parts[0].seconds"),
        ({"id": "a", "good": 1}, "expected true or false, got a number @ $.parts[0].good"),
        ({"id": "a", "count": 1.5}, "expected a whole number, got a number @ $.parts[0].count"),
        ({"id": "a", "weight": "1"}, "expected a number, got text @ $.parts[0].weight"),
        ({"id": "a", "name": 5}, "expected text, got a number @ $.parts[0].name"),
        ({"id": "a", "url": {}}, "expected text, got an object @ $.parts[0].url"),
    ],
)
def test_a_wrong_type_is_told_with_its_path(part: object, path: str) -> None:
    """Nothing is coerced: null is no text, true is no number, and the path says where."""
    (found,) = paths(orjson.dumps({"parts": [part]}))

    assert path.split(" @ ")[1] == found.split(" @ ")[1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"parts":{}}',
        b'{"parts":""}',
        b'{"parts":"abc"}',
        b'{"parts":[NaN]}',
        b'{"parts":[{"id":"\\ud800"}]}',
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"\xff",
    ],
)
def test_hostile_bodies_are_refused(data: bytes) -> None:
    """Broken, deep, empty or lone-surrogate JSON is refused."""
    assert paths(data)


def test_depth_has_a_limit() -> None:
    """What nests a little passes, what nests too deep does not, even where JSON allows it."""
    assert parse_json(b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2)) is not None
    with pytest.raises(DecodeError, match="nested deeper"):
        parse_json(b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2))


def test_plausible_forms_are_taken() -> None:
    """Ids may be numbers, numbers may be text, and unknown keys are nobody's business."""
    body = {"parts": [{"id": 5, "seconds": " 1.5 ", "count": 2.0, "weight": 1, "unknown": {}}]}

    (part,) = decode(orjson.dumps(body), Body).parts
    assert ("5", 1.5, 2, 1.0) == (part.id, part.seconds, part.count, part.weight)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("https://files.test/a.mp3", "https://files.test/a.mp3"),
        ("https://files.test/a b.mp3", "https://files.test/ab.mp3"),
        ("https://files.test", None),
        ("https://files.test/", None),
        ("file:///etc/passwd", None),
        ("javascript:alert(1)", None),
        ("/relative/a.mp3", None),
        ("http://[bad/a", None),
        ("", None),
        (None, None),
    ],
)
def test_links_are_http_with_a_path_or_absent(text: str | None, link: str | None) -> None:
    """A link that is no file on the web is no link."""
    (part,) = structure({"parts": [{"id": "a", "url": text}]}, Body).parts

    assert link == part.url


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T05:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1_767_323_045, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1_767_323_045_000, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("1767323045000", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1_767_323_045.0, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("soon", None),
        ("", None),
        (None, None),
        (-1, None),
        (10**18, None),
    ],
)
def test_times_come_in_many_forms_and_are_tz_aware(value: object, moment: datetime | None) -> None:
    """Text or number, seconds or milliseconds: one tz-aware time, or none."""
    (part,) = structure({"parts": [{"id": "a", "at": value}]}, Body).parts

    assert moment == part.at
