"""Strict decoding of wire JSON into attrs classes: a value, or a `DecodeError` that lists JSON paths.

cattrs' defaults coerce (`null` becomes `'None'`, `true` becomes `1.0`), so every scalar has a strict hook.
The tolerant forms are named types, so that a field says what it accepts: `Text`, `Seconds`, `Link`, `When`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NewType, TypeVar

import cattrs
import orjson
from cattrs import Converter, transform_error
from cattrs.cols import is_sequence, list_structure_factory
from cattrs.v import format_exception
from yarl import URL

from audioext.errors import DecodeError

T = TypeVar("T")

Text = NewType("Text", str)
"""Text; a number is taken as its text, since ids and codes arrive as either."""
Number = NewType("Number", float)
"""A finite number; text that spells one in ASCII is taken."""
Link = NewType("Link", str)
"""An http(s) URL with a host and a path beyond `/`; anything else textual is `None` (a bare bucket root is no file)."""
When = NewType("When", datetime)
"""A time: epoch seconds or milliseconds, or ISO-like text; without a zone it is taken as UTC."""

MAX_BODY_BYTES = 1_048_576
MAX_DEPTH = 64  # real bodies nest 5 deep; orjson itself stops at 1,024
# A link that needs no closer look: lower case host by name, no dots that a path could fold away.
_PLAIN_LINK = re.compile(
    r"https?://(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+[a-z]+(?::[1-9]\d{0,3})?(?:/[\w-][\w.-]*)+(?:\?[\w=&.-]*)?", re.ASCII
)
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)
_EPOCH_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138, as milliseconds 1973
_MAX_EPOCH_SECONDS = 253_402_300_799  # the last second of the year 9999


def parse_json(data: bytes, *, where: str = "the body") -> object:
    """Return the JSON value in *data*.

    Raises:
        DecodeError: it is not UTF-8 JSON, nests too deep, or holds NaN or a lone surrogate.
    """
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DecodeError([f"{error} @ $"], where=where) from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _too_deep(value):
        raise DecodeError([f"nested deeper than {MAX_DEPTH} @ $"], where=where)
    return value


def decode(data: bytes, type_: type[T], *, converter: Converter | None = None, where: str = "the body") -> T:
    """Return the JSON in *data* as a *type_*.

    Raises:
        DecodeError: it is not JSON, or not of that shape; `paths` says where.
    """
    return structure(parse_json(data, where=where), type_, converter=converter, where=where)


def structure(value: object, type_: type[T], *, converter: Converter | None = None, where: str = "the body") -> T:
    """Return a parsed JSON *value* as a *type_*.

    Raises:
        DecodeError: it is not of that shape; `paths` says where.
    """
    try:
        return (converter or STRICT).structure(value, type_)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DecodeError(transform_error(error, path="$", format_exception=_say), where=where) from None


def strict_converter() -> Converter:
    """Return a new converter with the strict hooks, for a provider to add its own names to."""
    converter = Converter(detailed_validation=True)
    converter.register_structure_hook(str, _strict_str)
    converter.register_structure_hook(bool, _strict_bool)
    converter.register_structure_hook(int, _strict_int)
    converter.register_structure_hook(float, _strict_float)
    converter.register_structure_hook(Text, _text)
    converter.register_structure_hook(Text | None, _text_or_none)
    converter.register_structure_hook(Number, _number)
    converter.register_structure_hook(Number | None, _number_or_none)
    converter.register_structure_hook(Link | None, _link)
    converter.register_structure_hook(When | None, _when)
    converter.register_structure_hook_factory(is_sequence, lambda type_: _strict_list(converter, type_))
    return converter


def _strict_list(converter: Converter, type_: type) -> Callable[[object, object], object]:
    # Any iterable passes cattrs' own hook, so that an object or a text would make a list.
    structure_list = list_structure_factory(type_, converter)

    def hook(value: object, expected: object) -> object:
        if type(value) is not list:
            raise TypeError(f"expected a list, got {_kind(value)}")
        return structure_list(value, expected)

    return hook


def _say(error: BaseException, type_: type | None) -> str:
    return str(error) if str(error).startswith("expected ") else format_exception(error, type_)


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def _strict_str(value: object, _: object) -> str:
    if type(value) is not str:
        raise TypeError(f"expected text, got {_kind(value)}")
    return value


def _strict_bool(value: object, _: object) -> bool:
    if type(value) is not bool:
        raise TypeError(f"expected true or false, got {_kind(value)}")
    return value


def _strict_int(value: object, _: object) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise TypeError(f"expected a whole number, got {_kind(value)}")
    return value


def _strict_float(value: object, _: object) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, got {_kind(value)}")
    number = float(value)  # type: ignore[arg-type]  # int or float by the line above
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _text(value: object, _: object) -> Text:
    if type(value) is int:
        return Text(str(value))
    return Text(_strict_str(value, _))


def _text_or_none(value: object, _: object) -> str | None:
    # Most of what arrives is this, so that the plain case comes first.
    return value if value is None or type(value) is str else _text(value, _)


def _number_or_none(value: object, _: object) -> Number | None:
    return None if value is None else _number(value, _)


def _number(value: object, _: object) -> Number:
    if type(value) is str and _NUMBER.fullmatch(value.strip()):
        return Number(float(value))
    return Number(_strict_float(value, _))


def _link(value: object, _: object) -> Link | None:
    if value is None:
        return None
    if type(value) is str and _PLAIN_LINK.fullmatch(value):
        return Link(value)
    text = "".join(_strict_str(value, _).split())  # MusicGPT's URLs have been seen with white space inside
    try:
        url = URL(text)
    except ValueError:
        return None
    if url.scheme not in {"http", "https"} or not url.host or url.path in {"", "/"}:
        return None
    return Link(text)


def _when(value: object, _: object) -> When | None:
    if value is None or value == "":
        return None
    if type(value) is str and not _NUMBER.fullmatch(value):
        return _parse_time(value)
    number = _number(value, _)
    seconds = number / 1000 if abs(number) >= _EPOCH_MILLISECONDS_FROM else number
    if not 0 <= seconds <= _MAX_EPOCH_SECONDS:
        return None
    return When(datetime.fromtimestamp(seconds, UTC))


def _parse_time(text: str) -> When | None:
    # A time that cannot be read must not cost a paid result, so it is absent rather than an error.
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: a zone that leads out of the calendar
        return None
    return When(moment) if 0 <= moment.timestamp() <= _MAX_EPOCH_SECONDS else None


def _kind(value: object) -> str:
    names: dict[type[Any], str] = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


STRICT: Converter = strict_converter()
"""The converter for wire classes whose attribute names are the wire's own."""
