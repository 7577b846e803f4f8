"""Checks of single values of requests and settings: each returns what is wrong with a value, or `None`."""

from __future__ import annotations

import functools
import inspect
import io
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import attrs
from yarl import URL

from audioext.errors import ConfigError, Problem, RequestError, cut, shown

GENDERS = ("m", "f", "male", "female", "neutral")
PERSONA_MODELS = ("style_persona", "voice_persona")  # docs.sunoapi.org/suno-api/extend-music, read 2026-11-21
VARIETY_LAST = 4  # integer 0..4: docs.sunoapi.org/suno-api/add-instrumental (V6 copy), read 2026-11-21
WEIGHT_STEPS = 100  # "multiple of 0.01": docs.kie.ai/suno-api/extend-music, read 2026-11-21
URL_SCHEMES = frozenset({"http", "https", "s3"})
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

LONGEST_NAME = 40
FEW_NAMES = 5
"""As many missing methods are named: an object that lacks more is something else."""
LONGEST_TEXT = 100_000
"""The most characters in a field: far above every API's limit, and all fields together still fit into a journal."""

Check = Callable[[object], str | None]
"""Return what is wrong with a given value, or `None`."""


def plain(value: object) -> object:
    """Return *value*, but a member of an enum, a `numpy.float64` and the like as the text or number that it is.

    Nothing else encodes them as such: msgspec refuses subclasses, and the `str()` of an enum's member may be its name.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else value


def text(value: object) -> str | None:
    """Refuse anything but text that can be sent."""
    if not isinstance(value, str):
        return f"must be text, not {shown(value)}"
    if len(value) > LONGEST_TEXT:
        return f"must have at most {LONGEST_TEXT} characters"
    if value.isascii() or not LONE_SURROGATE.search(value):
        return None
    return "has a lone surrogate (half of a surrogate pair), which cannot be sent"


def full_text(value: object) -> str | None:
    """Refuse anything but text that is not blank."""
    return "must not be empty" if isinstance(value, str) and not value.strip() else text(value)


def audio_id(value: object) -> str | None:
    """Refuse anything but an id, and say where a URL belongs."""
    if isinstance(value, str) and "://" in value:
        return f"is a URL: give it as `url=`, not {shown(value)}"
    complaint = full_text(value)
    if complaint is None and re.search(r"\s", str(value)):
        return f"has white space in it, which no id has: {shown(value)}"
    return complaint


def model(value: object) -> str | None:
    """Refuse anything but the name of a model."""
    complaint = full_text(value)
    is_blank = isinstance(value, str) and not value.strip()
    return f"{complaint}; leave it out if the provider has a default" if is_blank else complaint


def url(value: object) -> str | None:
    """Refuse anything but the URL of audio."""
    if (complaint := text(value)) is not None or not isinstance(value, str):
        return complaint
    try:
        parts = urlsplit(value)
        good = parts.scheme in URL_SCHEMES and bool(parts.hostname and URL(value))
    except ValueError:
        good = False
    if good and re.search(r"\s", value):
        return f"has white space in it, where a space is written `%20`: {shown(value)}"
    return None if good else f"must be an http(s) URL, not {shown(value)}"


def file(value: object) -> str | None:
    """Refuse anything but a path, bytes or a binary file object."""
    if isinstance(value, Path):
        # `Path` collapses the two slashes of a URL into one.
        scheme = re.match(r"([a-z][a-z0-9+.-]+):/", str(value), re.IGNORECASE)
        if scheme is None:
            return None
        advice = "give it as `url=`" if scheme[1].lower() in URL_SCHEMES else "give a path, or the bytes"
        return f"is a URL: {advice}, not {shown(str(value))}"
    if isinstance(value, bytes):
        return None
    read = getattr(value, "read", None)
    if isinstance(value, type) or not callable(read):
        return f"must be a path, bytes or a binary file object, not {shown(value)}"
    if inspect.iscoroutinefunction(read):
        return f"has an async read(): read it first and give the bytes, not {shown(value)}"
    return "must be opened as bytes (mode 'rb'), not as text" if isinstance(value, io.TextIOBase) else None


def is_number(value: object, *, above: float) -> TypeGuard[int | float]:
    """Return whether *value* is a finite number greater than *above*."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return above < value < math.inf and value <= sys.float_info.max  # an int may be greater than any float


def must_be(words: str, is_good: Callable[[object], bool]) -> Check:
    """Return a check that refuses values for which *is_good* is false; *words* describes the good ones."""
    return lambda value: None if is_good(value) else f"must be {words}, not {shown(value)}"


def one_of(words: str, choices: Sequence[object]) -> Check:
    """Return a check that refuses all but *choices*, which have one type; *words* describes them."""
    kind = type(choices[0])
    is_bool = kind is bool
    return must_be(
        words,
        lambda value: isinstance(value, kind) and isinstance(value, bool) is is_bool and value in choices,
    )


mapping = must_be('a mapping like {"chat": 42}', lambda value: isinstance(value, Mapping))
gender = one_of(f"one of {', '.join(GENDERS)}", GENDERS)
persona_model = one_of(f"one of {', '.join(PERSONA_MODELS)}", PERSONA_MODELS)
variety = one_of(f"a whole number from 0 to {VARIETY_LAST}", range(VARIETY_LAST + 1))
outputs = one_of("1 or 2", (1, 2))  # docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21
flag = one_of("True or False", (True, False))


def seconds(value: object) -> str | None:
    """Refuse anything but a finite number of seconds above 0."""
    words = "a finite number of seconds above 0, like 150"
    return None if is_number(value, above=0) else f"must be {words}, not {shown(value)}"


def weight(value: object) -> str | None:
    """Refuse anything but a number from 0 to 1 in steps of 0.01."""
    if not (is_number(value, above=-1) and 0 <= value <= 1):
        return f"must be a number from 0 to 1, not {shown(value)}"
    if not math.isclose(value * WEIGHT_STEPS, round(value * WEIGHT_STEPS), abs_tol=1e-6):
        return f"must have at most two decimals (steps of 0.01), not {shown(value)}"
    return None


def is_path(value: object) -> bool:
    """Return whether *value* is a path as text, or an object that stands for one."""
    as_path = getattr(type(value), "__fspath__", None)  # not the value's: a class has one that takes an argument
    return isinstance(value if as_path is None else as_path(value), str)


folder = must_be("the path of a folder", is_path)


def is_async(value: object) -> bool:
    """Return whether *value* is an async function, or an object with an async `__call__`."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)


def progress(value: object) -> str | None:
    """Return a complaint unless *value* is `None` or a function that is not a coroutine function."""
    if value is None or (callable(value) and not is_async(value)):
        return None
    return f"must be a plain function (def, not async def), not {shown(value)}"


def refuse_wrong(**complaints: str | None) -> None:
    """Raise RequestError for the *complaints*, passed by argument name, that are not `None`."""
    problems = [Problem(name, complaint) for name, complaint in complaints.items() if complaint is not None]
    if problems:
        raise RequestError(problems, is_submit=False)


def bounded(timeout: object) -> float:
    """Return *timeout* if it is a finite number of seconds above 0, or raise `RequestError`."""
    if not is_number(timeout, above=0):
        raise RequestError([Problem("timeout", f"{seconds(timeout)}")], is_submit=False)
    return timeout


_HINTS = {
    ("AddInstrumental", "style"): "its wanted styles are tags",
    ("AddInstrumental", "audio_id"): "give the audio URL of the track as url",
    ("Extend", "tags"): "its wanted style is style",
}
"""What to say of a field that another request has; the closest name would mislead."""


def refuse_unknown(owner: str, kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError if a *given* name is not among the *known* ones, which *owner* has as its *kind*."""
    unknown = sorted({*given}.difference(known))
    if unknown:
        near = get_close_matches(unknown[0][:LONGEST_NAME], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known))}"
        hint = _HINTS.get((owner, unknown[0]), hint)
        raise TypeError(f"{owner} has no {kind} {cut(unknown[0])}; {hint}")


def refuse_unnamed(owner: str, given: Sequence[object], sources: Iterable[str]) -> None:
    """Raise TypeError for *given* positional arguments: *owner* takes only keywords, such as those of *sources*."""
    if given:
        names = " or ".join(f"{name}=" for name in sources)
        raise TypeError(f"{owner} takes its arguments by name: give the source as {names}, not {shown(given[0])} alone")


def name_what_was_meant(kind: type, what: str, *, sources: Iterable[str] | None = None) -> None:
    """Make attrs class *kind* suggest the closest name for an unknown keyword; *what* is its word for a name.

    A class with *sources* takes keyword arguments only.
    """
    made: Callable[..., None] = kind.__init__  # type: ignore[misc]  # the class's own, which attrs has just generated
    known = frozenset(each.alias for each in attrs.fields(kind) if each.init and each.alias is not None)

    @functools.wraps(made)
    def init(self: object, *values: object, **given: object) -> None:
        if sources is not None:
            refuse_unnamed(kind.__name__, values, sources)
        if not known.issuperset(given):
            refuse_unknown(kind.__name__, what, given, known)
        made(self, *values, **given)

    kind.__init__ = init  # type: ignore[misc]  # as above


# --- settings --------------------------------------------------------------------------------------------------------


def setting(check: Check, *, optional: bool = False) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return an attrs validator that raises ConfigError, with the setting's name, for a value that *check* refuses."""

    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        complaint = None if optional and value is None else check(value)
        if complaint is not None:
            raise ConfigError(f"{attribute.name} {complaint}")

    return validate


def from_on(least: float) -> Check:
    """Return a check that refuses all but finite numbers from *least* on."""
    words = f"a finite number from {least:g} on"
    return must_be(words, lambda value: is_number(value, above=least - 1) and value >= least)


def whole_from(least: int) -> Check:
    """Return a check that refuses all but whole numbers from *least* on."""
    words = f"a whole number from {least} on"
    return must_be(words, lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least)


def lacking(value: object, protocol: type) -> str | None:
    """Return what *value* lacks of *protocol*, "" if it is a class or lacks nearly all of it, `None` if nothing."""
    missing = [name for name in vars(protocol) if not name.startswith("_") and not hasattr(value, name)]
    if isinstance(value, type):
        return ""
    return (", ".join(missing) if len(missing) <= FEW_NAMES else "") if missing else None


def made_as(kind: type, how: str) -> Check:
    """Return a check that refuses all but instances of *kind*; *how* says how to make one."""
    return must_be(how, lambda value: isinstance(value, kind))
