"""Reading wire JSON: strictly into attrs classes, or one lenient value at a time; nothing is coerced by accident.

`decode` is for shapes that must be as expected. The small functions below it read single values of a parsed body, and
return `None` for what is not there or cannot be read: a field that is not vital must never cost a paid result.
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
MAX_VALUES = 10_000  # of one body, counted by its commas and brackets; two songs with timed lyrics have about 2,000
MAX_PATHS = 10  # of a DecodeError; one line of a log
MAX_ID_LENGTH = 200  # characters; real ids have 16 to 50
MAX_LINK_LENGTH = 8_192  # characters; signed links have up to 2,000

MAX_ENCODINGS = 3  # JSON in a JSON text in a JSON text; real bodies have been seen encoded twice

_AROUND = b"\xef\xbb\xbf\0 \t\r\n"  # a byte order mark, and what some hosts leave before and behind a body
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0[")
_UNREADABLE = (ValueError, RecursionError)  # msgspec's own errors are ValueErrors
_JSON_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPEN_AND_CLOSE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_PLACE = re.compile(r"(?P<what>.*) - at `(?P<path>[^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
# Links that need no closer look: a plain host, and a path that begins with a letter, digit or percent sign.
_PLAIN_LINKS = re.compile(r"(?:https?://[a-z0-9.-]++(?::[1-5]?\d{1,4})?/[\w%~-].*+\n)+", re.ASCII)
_PLAIN_LETTERS = bytes([*range(ord("!"), ord("[")), *range(ord("^"), ord("\x7f"))])
_MAYBE_NOTHING = re.compile("/(?:n(?:one|ull|an)|undef|false)")
_WORDS_FOR_NOTHING = frozenset({"", "none", "null", "undefined", "nan", "false", "[object%20object]"})
_AROUND_LINKS = "\ufeff\u200b<>\"' \t\r\n\xa0"
_SPACE = re.compile(r"[ \xa0\u200b\u2060\u3000\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)
EXACT_FLOAT = 2**53  # floats are exact up to here
_EPOCH_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138, as milliseconds 1973
_FIRST_YEAR, _LAST_YEAR = 1970, 9998  # other languages' zero times and ends of time say nothing
_MAX_EPOCH_SECONDS = 253_370_764_799  # the last second of 9998


# --- whole bodies ----------------------------------------------------------------------------------------------------


def parse_json(data: bytes, *, where: str = "the body") -> object:
    """Return the JSON value in *data*; a byte order mark is skipped, and JSON inside a JSON text is read.

    NaN, and a number that no float can hold, are read as null; a byte that is no UTF-8, or half a surrogate pair, as a
    replacement character.

    Raises:
        DecodeError: it is not UTF-8 JSON, or nests too deep.
    """
    if data.startswith(_UTF16):
        raise DecodeError(["expected UTF-8, not UTF-16 @ $"], where=where)
    value = _loads(data.strip(_AROUND), where)
    for _ in range(MAX_ENCODINGS):
        if not isinstance(value, str) or value.strip("\ufeff \t\r\n")[:1] not in {"{", "[", '"'}:
            break
        value = _loads(value.strip("\ufeff").encode(), where)
    return value


def decode(data: bytes, type_: type[T], *, where: str = "the body") -> T:
    """Return the JSON in *data* as a *type_*, such as an attrs class; unknown keys are passed over.

    Raises:
        DecodeError: it is not JSON, or not of that shape; `paths` says where.
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
    """Return JSON with what careless writers leave in it: NaN, line breaks in texts, no UTF-8, halves of an emoji."""
    text = data.decode(errors="replace")
    value: object = json.loads(text, strict=False, parse_constant=lambda _: None, parse_int=_whole, parse_float=_finite)
    whole = _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False))
    return msgspec.json.decode(whole)


def _finite(digits: str) -> float | None:
    return found if math.isfinite(found := float(digits)) else None


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_ID_LENGTH else None  # what is longer takes long, and says nothing


def _too_deep(data: bytes) -> bool:
    """Say whether valid JSON nests too deep; its brackets go level by level, which is much quicker than its values."""
    brackets = _JSON_TEXT.sub(b"", data).translate(_OPEN_AND_CLOSE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _problem(error: Exception) -> str:
    """Return msgspec's complaint in our form, `problem @ $.path`."""
    found = _PLACE.fullmatch(str(error))
    what, path = (found["what"], found["path"]) if found is not None else (str(error), "$")
    missing = _MISSING.fullmatch(what)
    if missing is not None:
        return f"required field missing @ {path}.{missing['name']}"
    return f"{what if what[:2].isupper() else what[:1].lower() + what[1:]} @ {path}"


# --- single values ---------------------------------------------------------------------------------------------------


def opened(value: object) -> object:
    """Return *value*, or what it holds where it is a text that is JSON itself; broken JSON stays a text."""
    inner = value
    for _ in range(MAX_ENCODINGS):
        if not isinstance(inner, str) or inner.lstrip()[:1] not in {"{", "[", '"'}:
            break
        try:
            inner = _loads(inner.encode(), "a text")
        except (DecodeError, UnicodeEncodeError):
            break
    return inner if isinstance(inner, (dict, list)) else value


def plain_keys(value: object) -> dict[str, object]:
    """Return an object by plain keys, anything else as an empty one; of two equal keys the first filled one counts."""
    found: dict[str, object] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        name = plain(key)
        if found.get(name) in (None, ""):
            found[name] = item
    return found


def plain(key: str) -> str:
    """Return *key* in small letters without underscores and hyphens."""
    return key.replace("_", "").replace("-", "").lower()


def camel(key: str) -> str:
    """Return a snake case *key* in camel case."""
    first, *rest = key.split("_")
    return first + "".join(word.title() for word in rest)


def text(value: object) -> str | None:
    """Return the text in *value*, a whole number as its digits."""
    if type(value) is str:
        return value
    if type(value) is float and value.is_integer() and abs(value) < EXACT_FLOAT:
        value = int(value)
    return str(value) if type(value) is int and abs(value) < 10**MAX_ID_LENGTH else None


def identity(value: object) -> str | None:
    """Return the id in *value*: printable text of at most `MAX_ID_LENGTH` characters, or a whole number."""
    found = (text(value) or "").strip()
    return found if found and len(found) <= MAX_ID_LENGTH and found.isprintable() else None


def number(value: object) -> float | None:
    """Return the finite number in *value*, or the one that its text spells in ASCII."""
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
    """Return the http(s) link in *value* if it can be a file: byte for byte, but for spaces, which are encoded.

    A path of `/` needs a query (`https://audiopipe.suno.ai/?item_id=…`), and a vendor's word for nothing
    (`…/None.mp3`, a bare bucket root) is no file. What is around a link, and line breaks in it, are dropped; a link
    without its scheme (`//host/…`) is one of https.
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
    """Say whether all of *links* are as they should be, and need no closer look; one look at all is the quickest."""
    joined = "\n".join(links) + "\n"
    if len(joined) > MAX_LINK_LENGTH or not joined.isascii():
        return False
    if joined.encode().translate(None, _PLAIN_LETTERS) != b"\n" * len(links):  # much quicker than by the pattern
        return False
    return _PLAIN_LINKS.fullmatch(joined) is not None and _MAYBE_NOTHING.search(joined.lower()) is None


def moment(value: object) -> datetime | None:
    """Return the tz-aware time in *value*: epoch seconds or milliseconds, or ISO-like text; no zone means UTC."""
    if type(value) is str and "-" in value:
        try:
            found = datetime.fromisoformat(value.strip())
            found = datetime.combine(found, found.time(), UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):  # the latter: a zone that leads out of the calendar
            return None
        return found if _FIRST_YEAR <= found.year <= _LAST_YEAR else None
    seconds = value if type(value) is int else number(value)
    if seconds is None or not 0 <= seconds <= _MAX_EPOCH_SECONDS * 1000:
        return None
    seconds = seconds / 1000 if seconds >= _EPOCH_MILLISECONDS_FROM else seconds
    return datetime.fromtimestamp(seconds, UTC)
