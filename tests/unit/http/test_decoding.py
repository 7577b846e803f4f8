"""Decoding is strict and total: a value of the type, or a `DecodeError` with a path; single values may be absent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from audioext.errors import DecodeError
from audioext.http.decoding import (
    MAX_DEPTH,
    decode,
    identity,
    link,
    moment,
    number,
    opened,
    parse_json,
    plain_keys,
    text,
)
from tests.support.tables import each_row


@frozen
class Part:
    """A part of a made-up body."""

    id: str
    good: bool | None = None
    count: int | None = None
    weight: float | None = None
    name: str | None = None


@frozen
class Body:
    """A made-up body."""

    parts: list[Part]


def paths(data: bytes) -> tuple[str, ...]:
    """Return the paths of the error that a body raises."""
    with pytest.raises(DecodeError) as caught:
        decode(data, Body)
    return caught.value.paths


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "url", "parts", "at", "x"]), inner)
    ),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_decode_error(data: bytes) -> None:
    """Any bytes give a value or a `DecodeError`."""
    try:
        assert isinstance(decode(data, Body), Body)
    except DecodeError as error:
        assert error.paths  # noqa: PT017 - an error is one of the two good outcomes


@given(json_values)
def test_any_json_gives_a_value_or_a_decode_error(value: object) -> None:
    """Any JSON gives a value or a `DecodeError`, bare or inside the right envelope."""
    for candidate in (value, {"parts": value}, {"parts": [value]}, {"parts": [{"id": "a", "name": value}]}):
        try:
            assert isinstance(decode(msgspec.json.encode(candidate), Body), Body)
        except DecodeError as error:
            assert error.paths  # noqa: PT017 - an error is one of the two good outcomes


@given(json_values)
def test_any_single_value_is_read_or_absent(value: object) -> None:
    """A single value of the wrong kind is read as `None`, and never raises."""
    assert isinstance(text(value), (str, type(None)))
    assert isinstance(number(value), (float, type(None)))
    assert isinstance(link(value), (str, type(None)))
    assert isinstance(moment(value), (datetime, type(None)))
    opened(value)


@each_row(
    ("part", "path"),
    [
        ({"id": None}, "expected `str`, got `null` @ $.parts[0].id"),
        ({}, "required field missing @ $.parts[0].id"),
        ({"id": True}, "expected `str`, got `bool` @ $.parts[0].id"),
        ({"id": "a", "good": 1}, "expected `bool | null`, got `int` @ $.parts[0].good"),
        ({"id": "a", "count": 1.5}, "expected `int | null`, got `float` @ $.parts[0].count"),
        ({"id": "a", "weight": "1"}, "expected `float | null`, got `str` @ $.parts[0].weight"),
        ({"id": "a", "weight": True}, "expected `float | null`, got `bool` @ $.parts[0].weight"),
        ({"id": "a", "name": 5}, "expected `str | null`, got `int` @ $.parts[0].name"),
    ],
)
def test_a_wrong_type_is_reported_with_its_path(part: object, path: str) -> None:
    """A value of the wrong type is reported with its path, and nothing is coerced."""
    assert (path,) == paths(msgspec.json.encode({"parts": [part]}))


@each_row(
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
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"\xff",
        b"\xef\xbb\xbf",
        b'"\\"{"',
        b"9" * 5_000,
    ],
)
def test_hostile_bodies_are_refused(data: bytes) -> None:
    """Broken, deep or empty JSON is refused."""
    assert paths(data)


@each_row(
    ("data", "found"),
    [
        (rb'{"title":"rain \ud83d"}', {"title": "rain \ufffd"}),
        (rb'{"title":"\udc00\u0041"}', {"title": "\ufffdA"}),
        (rb'{"\ud800":[1.0,{"a":"\ud83d\ude00"}]}', {"\ufffd": [1.0, {"a": "\U0001f600"}]}),
        (b'{"title":"\xff"}', {"title": "\ufffd"}),
    ],
)
def test_half_a_surrogate_pair_is_replaced(data: bytes, found: object) -> None:
    """A lone surrogate, as in a title that JavaScript cut through an emoji, is replaced, and the rest is kept."""
    assert found == parse_json(data)


def test_a_number_that_no_float_holds_is_null() -> None:
    """A number that does not fit a float becomes null, and the fields beside it are kept."""
    for digits in (b"1e999", b"-1E+400", b"NaN", b"-Infinity"):
        assert {"duration": None, "id": "a"} == parse_json(b'{"duration": %b, "id": "a"}' % digits)


def test_depth_has_a_limit() -> None:
    """JSON that is nested deeper than `MAX_DEPTH` is refused."""
    assert parse_json(b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2)) is not None
    with pytest.raises(DecodeError, match="nested deeper"):
        parse_json(b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2))


@each_row(
    "data",
    [
        b'{"parts":[]}',
        b'\xef\xbb\xbf{"parts":[]}',
        b'\r\n\xef\xbb\xbf\xef\xbb\xbf{"parts":[]}\0',
        b'"{\\"parts\\":[]}"',
        b'"\\"{\\\\\\"parts\\\\\\":[]}\\""',
        b' {"parts":[]}\n',
    ],
)
def test_a_byte_order_mark_and_a_second_encoding_are_taken_off(data: bytes) -> None:
    """A body may begin with a byte order mark, or be a JSON string that holds the JSON."""
    assert Body(parts=[]) == decode(data, Body)


@each_row("text", ['{"parts":[]}', ' {"parts":[]}\r\n', '\ufeff{"parts":[]}\0', '"{\\"parts\\":[]}"'])
def test_a_text_is_opened_as_a_body_is(text: str) -> None:
    """What may stand around a body may stand around JSON in a text, such as kie.ai's `resultJson`, as well."""
    assert {"parts": []} == opened(text)


@each_row("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@each_row("text", ['{"parts":[]}', "[]"])
def test_utf_16_is_refused_by_its_name(text: str, encoding: str) -> None:
    """UTF-16 is refused by name, not as broken JSON."""
    with pytest.raises(DecodeError, match="UTF-16"):
        parse_json(text.encode(encoding))


def test_unknown_keys_are_ignored() -> None:
    """Unknown keys are ignored, and a whole number is accepted as a float."""
    (part,) = decode(b'{"parts":[{"id":"a","weight":1,"unknown":{}}],"more":1}', Body).parts
    assert ("a", 1.0) == (part.id, part.weight)


@each_row(
    ("value", "found"),
    [
        ("https://files.test/a.mp3", "https://files.test/a.mp3"),
        ("http://127.0.0.1:8080/a.mp3", "http://127.0.0.1:8080/a.mp3"),
        (
            "https://files.test/a.mp3?X-Amz-Credential=A%2FB&s=a+b",
            "https://files.test/a.mp3?X-Amz-Credential=A%2FB&s=a+b",
        ),
        ("https://files.test/a b.mp3", "https://files.test/a%20b.mp3"),
        (" https://files.test/a\n.mp3\t", "https://files.test/a.mp3"),
        ("https://files.test/Песня.mp3", "https://files.test/Песня.mp3"),
        ("https://audiopipe.suno.ai/?item_id=b1", "https://audiopipe.suno.ai/?item_id=b1"),
        ("https://files.test?item_id=b1", "https://files.test?item_id=b1"),
        ("https://files.test/phone.mp3", "https://files.test/phone.mp3"),
        ("https://files.test/nullable.mp3", "https://files.test/nullable.mp3"),
        ("//files.test/a.mp3", "https://files.test/a.mp3"),
        ("https:\\/\\/files.test\\/a.mp3", "https://files.test/a.mp3"),
        ("\ufeff<https://files.test/a.mp3>\r\n", "https://files.test/a.mp3"),
        ("https://files.test/a\xa0b.mp3", "https://files.test/a%C2%A0b.mp3"),
        ("https://files.test/none of us.mp3", "https://files.test/none%20of%20us.mp3"),
        ("https://files.test/[object Object]", None),
        ("https://files.test/[object%20Object].mp3", None),
        ("https://files.test/null/", None),
        ("https://files.test//", None),
        ("https://files.test/?item_id=null&at=1", None),
        ("https://files.test/?item_id=", None),
        ("https://files.test/?item_id=None", None),
        ("https://cdn1.suno.ai/None.mp3", None),
        ("https://cdn1.suno.ai/None.mp3?s=1", None),
        ("https://files.test/null", None),
        ("https://files.test/undefined.wav", None),
        ("https://files.test/false", None),
        ("https://files.test/False.mp3", None),
        ("https://files.test/falsetto.mp3", "https://files.test/falsetto.mp3"),
        ("https://files.test/.mp3", None),
        ("https://files.test", None),
        ("https://files.test/", None),
        ("https://files.test/#a", None),
        ("https:///a.mp3", None),
        ("https://files.test:99999/a.mp3", None),
        ("https://files.test/a\u202e.mp3", None),
        ("file:///etc/passwd", None),
        ("javascript:alert(1)", None),
        ("/relative/a.mp3", None),
        ("http://[bad/a", None),
        ("", None),
        (None, None),
        (False, None),
        (["https://files.test/a.mp3"], None),
    ],
)
def test_a_link_that_is_not_a_web_file_is_absent(value: object, found: str | None) -> None:
    """A link to a file is kept byte for byte except for spaces, and anything else reads as `None`."""
    assert found == link(value)


def test_a_link_has_a_longest_length() -> None:
    """A link of more than 8192 characters reads as `None`."""
    assert None is link("https://files.test/" + "a" * 8_192)


@each_row(
    ("value", "found"),
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
        ("-1", None),
        (10**18, None),
        (10**400, None),
        (True, None),
        ([], None),
        ("1767323045_000", None),
        ("0001-01-01T00:00:00+08:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00", None),
        ("9999-12-31T23:59:59.9999999Z", None),
        ("9999-12-31T23:59:59-08:00", None),
        ("1969-12-31T23:59:59Z", None),
    ],
)
def test_times_come_in_many_forms_and_are_tz_aware(value: object, found: datetime | None) -> None:
    """A time as text or number, in seconds or milliseconds, becomes tz-aware; the zeros of other systems give none."""
    assert found == moment(value)


@given(
    st.one_of(
        st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])),
        st.datetimes(),
    ).map(datetime.isoformat)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_an_accepted_time_survives_a_round_trip(value: object) -> None:
    """Any time that is accepted is in UTC and survives a round trip through its timestamp."""
    found = moment(value)

    if found is not None:
        assert UTC is found.tzinfo
        assert abs(datetime.fromtimestamp(found.timestamp(), UTC) - found) < timedelta(milliseconds=1)


@each_row(
    ("value", "found"),
    [(5, 5.0), (" 1.5 ", 1.5), (2.0, 2.0), ("1_0", None), ("١٢", None), (True, None), (10**400, None), ("", None)],
)
def test_numbers_may_be_text_in_plain_digits(value: object, found: float | None) -> None:
    """A number may be text in plain digits, but not everything that `float` accepts."""
    assert found == number(value)


@each_row(("value", "found"), [("a", "a"), (5, "5"), ("", None), (None, None), ("1_0", "1_0")])
def test_an_id_is_text_or_a_whole_number(value: object, found: str | None) -> None:
    """An id may be text or a whole number."""
    assert found == identity(value)


@each_row("value", [True, 1.5, [], {}, "a" * 201, "a\nb", "a\x1b[31m"])
def test_a_long_or_unprintable_id_is_refused(value: object) -> None:
    """An id that is long or not printable is refused, since ids go to logs and terminals."""
    assert None is identity(value)


def test_the_spelling_of_a_key_does_not_matter() -> None:
    """The spelling of a key does not matter; of two spellings the non-empty one counts."""
    assert {"taskid": "a", "errormessage": "b"} == plain_keys({"task_id": "", "taskId": "a", "Error_Message": "b"})
    assert {} == plain_keys([1])
