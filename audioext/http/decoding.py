"""Reading wire JSON: strictly into attrs classes, or leniently, one value at a time; nothing is coerced by accident.

`decode` is for bodies that must have the expected shape. The small functions below it read single values of a parsed
body, and return `None` for a missing or unreadable one: a bad optional field must never cost a paid result.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from audioext.errors import DecodeError

T = TypeVar("T")

MAX_BODY_BYTES = 1_048_576
MAX_DEPTH = 64  # real bodies nest 5 deep
MAX_VALUES = 10_000  # per body, counted by commas and brackets; two songs with timed lyrics have about 2,000
MAX_PATHS = 10  # per DecodeError, so that it fits on a log line
MAX_ID_LENGTH = 200  # characters; real ids have 16 to 50
MAX_LINK_LENGTH = 8_192  # characters; signed links have up to 2,000

MAX_ENCODINGS = 3  # levels of JSON inside a JSON string; real bodies have been seen encoded twice

_AROUND = b"\xef\xbb\xbf\0 \t\r\n"  # a byte order mark, and bytes that some hosts leave before or after a body
_AROUND_TEXT = _AROUND.decode()
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0[")
_UNREADABLE = (ValueError, RecursionError)  # msgspec's own errors are ValueErrors
_JSON_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPEN_AND_CLOSE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_PLACE = re.compile(r"(?P<what>.*) - at `(?P<path>[^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
# Links that `link` accepts unchanged: a plain host, and a path that begins with a letter, digit, `_`, `%`, `~` or `-`.
_PLAIN_LINKS = re.compile(r"(?:https?://[a-z0-9.-]++(?:/|:[1-5]?\d{1,4}/)[\w%~-].*+\n)++", re.ASCII)
_PLAIN_LETTERS = bytes([*range(ord("!"), ord("[")), *range(ord("^"), ord("\x7f"))])
_MAYBE_NOTHING = re.compile("/(?:n(?:one|ull|an)|undef|false)")
_WORDS_FOR_NOTHING = frozenset({"", "none", "null", "undefined", "nan", "false", "[object%20object]"})
_AROUND_LINKS = "\ufeff\u200b<>\"' \t\r\n\xa0"
_SPACE = re.compile(r"[ \xa0\u200b\u2060\u3000\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)
EXACT_FLOAT = 2**53  # floats are exact up to here
_EPOCH_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138, as milliseconds 1973
_FIRST_YEAR, _LAST_YEAR = 1970, 9998  # outside are other languages' zero and maximum times, which mean nothing
_MAX_EPOCH_SECONDS = 253_370_764_799  # the last second of 9998


# --- whole bodies ----------------------------------------------------------------------------------------------------


def parse_json(data: bytes, *, where: str = "the body") -> object:
    """Return the JSON value in *data*; a byte order mark is skipped, and JSON inside a JSON string is decoded.

    NaN and numbers beyond a float's range become `None`. Invalid UTF-8 and lone surrogates become replacement
    characters.

    Raises:
        DecodeError: *data* is not UTF-8 JSON, nests too deep, or has too many values.
    """
    if data.startswith(_UTF16):
        raise DecodeError(["expected UTF-8, not UTF-16 @ $"], where=where)
    value = _loads(data.strip(_AROUND), where)
    for _ in range(MAX_ENCODINGS):
        bare = value.strip(_AROUND_TEXT) if isinstance(value, str) else ""
        if bare[:1] not in {"{", "[", '"'}:
            break
        value = _loads(bare.encode(), where)
    return value


def decode(data: bytes, type_: type[T], *, where: str = "the body") -> T:
    """Return the JSON in *data* as a *type_*, such as an attrs class; unknown keys are ignored.

    Raises:
        DecodeError: *data* is not JSON, or not of that shape; `paths` says where.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except _UNREADABLE:
        value = parse_json(data, where=where)
    try:
        return msgspec.convert(value, type_)
    except _UNREADABLE as error:
        raise DecodeError([_problem(error)], where=where) from None


def _loads(data: bytes, where: str) -> object:
    brackets = data.count(b"[") + data.count(b"{")
    if data.count(b",") + brackets > MAX_VALUES:
        raise DecodeError([f"more than {MAX_VALUES} values @ $"], where=where)
    try:
        value: object = msgspec.json.decode(data)
    except RecursionError:
        raise DecodeError([f"nested deeper than {MAX_DEPTH} @ $"], where=where) from None
    except _UNREADABLE as error:
        try:
            value = _leniently(data)
        except _UNREADABLE:
            raise DecodeError([_problem(error)], where=where) from None
    if brackets > MAX_DEPTH and _too_deep(data):
        raise DecodeError([f"nested deeper than {MAX_DEPTH} @ $"], where=where)
    return value


def _leniently(data: bytes) -> object:
    """Parse JSON with common faults: NaN, raw line breaks in strings, invalid UTF-8, lone surrogates."""
    text = data.decode(errors="replace")
    value: object = json.loads(text, strict=False, parse_constant=lambda _: None, parse_int=_whole, parse_float=_finite)
    whole = _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False))
    return msgspec.json.decode(whole)


def _finite(digits: str) -> float | None:
    return found if math.isfinite(found := float(digits)) else None


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_ID_LENGTH else None  # a longer one is slow to parse, and means nothing


def _too_deep(data: bytes) -> bool:
    """Say whether valid JSON nests too deep. Removing brackets level by level is faster than walking the values."""
    brackets = _JSON_TEXT.sub(b"", data).translate(_OPEN_AND_CLOSE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _problem(error: Exception) -> str:
    """Return msgspec's error message in our form, `problem @ $.path`."""
    found = _PLACE.fullmatch(str(error))
    what, path = (found["what"], found["path"]) if found is not None else (str(error), "$")
    missing = _MISSING.fullmatch(what)
    if missing is not None:
        return f"required field missing @ {path}.{missing['name']}"
    return f"{what if what[:2].isupper() else what[:1].lower() + what[1:]} @ {path}"


# --- single values ---------------------------------------------------------------------------------------------------


def opened(value: object) -> object:
    """Return *value*, or the object or list that it holds if it is a string of JSON; broken JSON stays a string."""
    inner = value
    for _ in range(MAX_ENCODINGS):
        bare = inner.strip(_AROUND_TEXT) if isinstance(inner, str) else ""
        if bare[:1] not in {"{", "[", '"'}:
            break
        try:
            inner = _loads(bare.encode(), "a text")
        except (DecodeError, UnicodeEncodeError):
            break
    return inner if isinstance(inner, (dict, list)) else value


def plain_keys(value: object) -> dict[str, object]:
    """Return a JSON object by its `plain` keys, `{}` for other values; of equal keys the first non-empty one wins."""
    found: dict[str, object] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        name = plain(key)
        if found.get(name) in (None, ""):
            found[name] = item
    return found


def plain(key: str) -> str:
    """Return *key* in lower case without underscores, hyphens and spaces; a schema of kie.ai's has `" vocalStart"`."""
    return key.replace("_", "").replace("-", "").replace(" ", "").lower()


def camel(key: str) -> str:
    """Return *key* in camel case instead of snake case."""
    first, *rest = key.split("_")
    return first + "".join(word.title() for word in rest)


def text(value: object) -> str | None:
    """Return *value* as text: a string, or a whole number as its digits."""
    if type(value) is str:
        return value
    if type(value) is float and value.is_integer() and abs(value) < EXACT_FLOAT:
        value = int(value)
    return str(value) if type(value) is int and abs(value) < 10**MAX_ID_LENGTH else None


def identity(value: object) -> str | None:
    """Return the id in *value*: printable text of at most `MAX_ID_LENGTH` characters, or a whole number.

    A word for nothing, such as `null` or `undefined` as text, is no id.
    """
    found = (text(value) or "").strip()
    usable = len(found) <= MAX_ID_LENGTH and found.isprintable() and not is_nothing(found)
    return found if usable else None


def is_nothing(value: object) -> bool:
    """Say whether *value* is a text that is empty or a word for nothing, such as `null` or `undefined`."""
    return isinstance(value, str) and value.strip().lower() in _WORDS_FOR_NOTHING


def number(value: object) -> float | None:
    """Return *value* as a finite float: a number, or a string that spells one in ASCII digits."""
    if type(value) is str:
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    if type(value) not in {int, float}:
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # int or float by the line above
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def link(value: object) -> str | None:
    """Return the http(s) link in *value* if it can name a file: byte for byte, except that spaces are encoded.

    A path of `/` needs a query (`https://audiopipe.suno.ai/?item_id=…`). A vendor's placeholder for a missing file
    (`…/None.mp3`, a bare bucket root) gives `None`. Quotes, brackets and spaces around a link, and line breaks in it,
    are dropped. A link without a scheme (`//host/…`) gets https.
    """
    if not value or type(value) is not str or len(value) > MAX_LINK_LENGTH:
        return None
    if are_plain_links((value,)):
        return value
    cleaned = "".join(value.strip(_AROUND_LINKS).splitlines()).replace("\t", "").replace("\\/", "/")
    cleaned = _SPACE.sub(lambda found: quote(found[0]), cleaned)
    cleaned = f"https:{cleaned}" if cleaned.startswith("//") else cleaned
    try:
        parts = urlsplit(cleaned)
        has_host = parts.scheme in {"http", "https"} and (parts.hostname or "") not in _WORDS_FOR_NOTHING
        usable = has_host and (parts.port or 1) and cleaned.isprintable()
    except ValueError:
        return None
    name = parts.path.strip("/").rpartition("/")[2].partition(".")[0]
    named = name if parts.path.strip("/") else parts.query.partition("&")[0].rpartition("=")[2]
    return cleaned if usable and named.lower() not in _WORDS_FOR_NOTHING else None


def are_plain_links(links: Sequence[str]) -> bool:
    """Say whether `link` would return each of *links* unchanged; one check of all is faster than one for each."""
    joined = "\n".join(links) + "\n"
    if len(joined) > MAX_LINK_LENGTH or not joined.isascii():
        return False
    if joined.encode().translate(None, _PLAIN_LETTERS) != b"\n" * len(links):  # much faster than the pattern below
        return False
    return _PLAIN_LINKS.fullmatch(joined) is not None and _MAYBE_NOTHING.search(joined.lower()) is None


def moment(value: object) -> datetime | None:
    """Return *value* as a UTC datetime: from epoch seconds or milliseconds, or ISO-like text; no zone means UTC."""
    if type(value) is str and "-" in value:
        try:
            found = datetime.fromisoformat(value.strip())
            found = datetime.combine(found, found.time(), UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):  # OverflowError: its UTC time would be before year 1 or after 9999
            return None
        return found if _FIRST_YEAR <= found.year <= _LAST_YEAR else None
    seconds = value if type(value) is int else number(value)
    if seconds is None or not 0 <= seconds <= _MAX_EPOCH_SECONDS * 1000:
        return None
    seconds = seconds / 1000 if seconds >= _EPOCH_MILLISECONDS_FROM else seconds
    return datetime.fromtimestamp(seconds, UTC)
