"""What a user asks for: frozen values, validated on construction, all problems at once.

A field is declared once, in `_Request`, `Extend` or `AddInstrumental`, together with the check of its value. The
`…Options` say the same to type checkers, for keyword arguments; a test keeps them equal.
"""

from __future__ import annotations

import enum
import math
import re
import sys
from collections.abc import Callable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypedDict, cast
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from audioext.errors import Problem, RequestError

VocalGender = Literal["m", "f", "male", "female", "neutral"]
PersonaModel = Literal["style_persona", "voice_persona"]

GENDERS = ("m", "f", "male", "female", "neutral")
PERSONA_MODELS = ("style_persona", "voice_persona")  # docs.sunoapi.org/suno-api/extend-music, read 2026-11-21
VARIETY_LAST = 4  # integer 0..4: docs.sunoapi.org/suno-api/add-instrumental (V6 copy), read 2026-11-21
OUTPUT_COUNTS = (1, 2)  # docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21
WEIGHT_STEPS = 100  # "multiple of 0.01": docs.kie.ai/suno-api/extend-music, read 2026-11-21
LONGEST_VALUE = 80  # characters of a value that a message repeats
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Operation(enum.StrEnum):
    """What a task does, whatever a provider calls it."""

    EXTEND = "extend"
    UPLOAD_EXTEND = "upload_extend"
    ADD_INSTRUMENTAL = "add_instrumental"


# --- for type checkers -----------------------------------------------------------------------------------------------


class RequestOptions(TypedDict, total=False):
    """The keyword arguments that both requests take, for type checkers."""

    url: str | None
    file: str | PathLike[str] | None
    model: str | None
    title: str | None
    lyrics: str | None
    negative_tags: str | None
    vocal_gender: VocalGender | None
    style_weight: float | None
    weirdness_constraint: float | None
    audio_weight: float | None
    variety: int | None
    source_duration: float | None
    rehost: bool
    provider: str | None


class ExtendOptions(RequestOptions, total=False):
    """The keyword arguments of `Extend`, for type checkers."""

    audio_id: str | None
    continue_at: float | None
    prompt: str | None
    style: str | None
    persona_id: str | None
    persona_model: PersonaModel | None
    lyrics_section_to_extend: str | None
    instrumental: bool | None
    num_outputs: int | None
    generate_album_cover: bool | None
    lyrics_timestamps: bool | None
    custom: bool | None


class InstrumentalOptions(RequestOptions, total=False):
    """The keyword arguments of `AddInstrumental`, for type checkers."""

    tags: str | None


# --- checks of single values -----------------------------------------------------------------------------------------

Check = Callable[[object], str | None]
"""Returns what is wrong with a value that was given, or `None`."""


def shown(value: object) -> str:
    """Return *value* as messages show it: at most 80 characters, for it may be a whole file."""
    return f"{value!r:.{LONGEST_VALUE - 1}}…" if len(repr(value)) > LONGEST_VALUE else repr(value)


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return f"must be text, not {shown(value)}"
    return "holds half of a surrogate pair, which no API can be sent" if LONE_SURROGATE.search(value) else None


def _full_text(value: object) -> str | None:
    return "must not be empty" if value == "" else _text(value)


def _model(value: object) -> str | None:
    return "must not be empty; leave it out where the provider has a default" if value == "" else _text(value)


def _url(value: object) -> str | None:
    if not isinstance(value, str) or LONE_SURROGATE.search(value):
        return _text(value)
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https", "s3"} and bool(parts.hostname) and not re.search(r"\s", value)
    except ValueError:
        good = False
    return None if good else f"must be an http(s) URL, not {shown(value)}"


def _file(value: object) -> str | None:
    if not isinstance(value, Path):
        return f"must be a path, not {shown(value)}"
    # A path folds the slashes of an address into one.
    return f"is an address: give it as url=, not {shown(str(value))}" if re.match("https?:/", str(value)) else None


def _seconds(value: object) -> str | None:
    return None if _is_number(value, above=0) else f"must be seconds above 0, not {shown(value)}"


def _weight(value: object) -> str | None:
    if not (_is_number(value, above=-1) and isinstance(value, (int, float)) and 0 <= value <= 1):
        return f"must be a number from 0 to 1, not {shown(value)}"
    if not math.isclose(value * WEIGHT_STEPS, round(value * WEIGHT_STEPS), abs_tol=1e-6):
        return f"must have at most two decimals (steps of 0.01), not {shown(value)}"
    return None


def _gender(value: object) -> str | None:
    return None if value in GENDERS else f"must be one of {', '.join(GENDERS)}, not {shown(value)}"


def _persona_model(value: object) -> str | None:
    return None if value in PERSONA_MODELS else f"must be one of {', '.join(PERSONA_MODELS)}, not {shown(value)}"


def _variety(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= VARIETY_LAST:
        return None
    return f"must be a whole number from 0 to {VARIETY_LAST}, not {shown(value)}"


def _outputs(value: object) -> str | None:
    return None if value in OUTPUT_COUNTS and not isinstance(value, bool) else f"must be 1 or 2, not {shown(value)}"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be True or False, not {shown(value)}"


def _is_number(value: object, *, above: float) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return above < value < math.inf and value <= sys.float_info.max  # an int may be greater than any float


def _given(check: Check) -> Any:  # noqa: ANN401 - as attrs' own field(), so that the annotation beside it counts
    """Return a field that may be left out, with the check of its value."""
    return field(default=None, metadata={"check": check})


# --- the requests ----------------------------------------------------------------------------------------------------


def _path(value: str | PathLike[str] | None) -> Path | None:
    """Turn a path-like into a `Path`; anything else is left for `problems` to complain about."""
    return Path(fspath(value)) if isinstance(value, (str, PathLike)) and value != "" else cast("None", value)


@frozen(kw_only=True)
class _Request:
    """What the two requests share: a source, a model, and the weights. `None` means not given."""

    SOURCES: ClassVar[tuple[str, ...]] = ("audio_id", "url", "file")

    url: str | None = _given(_url)
    file: Path | None = field(default=None, converter=_path, metadata={"check": _file})
    model: str | None = _given(_model)
    title: str | None = _given(_text)
    lyrics: str | None = _given(_text)
    negative_tags: str | None = _given(_text)
    vocal_gender: VocalGender | None = _given(_gender)  # noqa: RUF009 - it returns attrs' own field()
    style_weight: float | None = _given(_weight)
    weirdness_constraint: float | None = _given(_weight)
    audio_weight: float | None = _given(_weight)
    variety: int | None = _given(_variety)
    source_duration: float | None = _given(_seconds)
    rehost: bool = field(default=False, metadata={"check": _flag})
    provider: str | None = _given(_text)

    def __attrs_post_init__(self) -> None:
        """Refuse a request that no provider could take."""
        problems = self.problems()
        if problems:
            raise RequestError(problems)

    @classmethod
    def draft(cls, **fields: object) -> Self:
        """Return a request without refusing it, so that its problems and a provider's come together.

        Raises:
            TypeError: a field has no such name.
        """
        known = {attribute.name for attribute in attrs.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            message = f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}"
            raise TypeError(message)
        request = object.__new__(cls)
        for attribute in attrs.fields(cls):
            value = fields.get(attribute.name, attribute.default)
            object.__setattr__(
                request, attribute.name, _path(cast("None", value)) if attribute.name == "file" else value
            )
        return request

    @classmethod
    def checked(cls, **fields: object) -> Self:
        """Return a request of *fields*, like the constructor does, for fields that come as a dict.

        Raises:
            RequestError: all that is wrong with it, at once.
            TypeError: a field has no such name.
        """
        request = cls.draft(**fields)
        problems = request.problems()
        if problems:
            raise RequestError(problems)
        return request

    def problems(self) -> tuple[Problem, ...]:
        """Return all that is wrong with this request whichever provider takes it."""
        return tuple(self._find_problems())

    def given(self) -> dict[str, object]:
        """Return the fields that were given, by name: all but `None`, and `rehost` where it is `True`."""
        return {
            attribute.name: value
            for attribute in attrs.fields(type(self))
            if (value := getattr(self, attribute.name)) is not None and (attribute.name != "rehost" or value)
        }

    def _find_problems(self) -> Iterator[Problem]:
        sources = [name for name in self.SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            choices = f"{', '.join(self.SOURCES[:-1])} or {self.SOURCES[-1]}"
            found = f"got {' and '.join(sources)}" if sources else "none was given"
            yield Problem("source", f"give exactly one of {choices}; {found}")
        for attribute in attrs.fields(type(self)):
            value = getattr(self, attribute.name)
            complaint = attribute.metadata["check"](value) if value is not None else None
            if complaint is not None:
                yield Problem(attribute.name, complaint)


@frozen(kw_only=True)
class Extend(_Request):
    """Continue a piece of music from `continue_at` seconds on.

    The source is one of `audio_id` (a track that the provider made), `url` (public audio) or `file` (a local
    path). `model` is required except at MusicGPT. Times are in seconds, the weights 0 to 1 in steps of 0.01.
    `custom` overrides what is derived from the other fields: whether the provider is asked to use the given
    prompt, style and title, or to inherit the source's. `source_duration` (seconds) lets limits on the
    source be checked before anything is sent; a local file's duration is read from the file.

    Raises:
        RequestError: all that is wrong with it, at once.
    """

    audio_id: str | None = _given(_full_text)
    continue_at: float | None = _given(_seconds)
    prompt: str | None = _given(_text)
    style: str | None = _given(_text)
    persona_id: str | None = _given(_full_text)
    persona_model: PersonaModel | None = _given(_persona_model)  # noqa: RUF009 - it returns attrs' own field()
    lyrics_section_to_extend: str | None = _given(_text)
    instrumental: bool | None = _given(_flag)
    num_outputs: int | None = _given(_outputs)
    generate_album_cover: bool | None = _given(_flag)
    lyrics_timestamps: bool | None = _given(_flag)
    custom: bool | None = _given(_flag)

    @property
    def operation(self) -> Operation:
        """Whether a provider's own track is continued, or audio from elsewhere."""
        return Operation.EXTEND if self.audio_id is not None else Operation.UPLOAD_EXTEND

    @property
    def custom_fields(self) -> tuple[str, ...]:
        """The given fields that ask for custom mode: by id any of four, for uploaded audio style or title."""
        by_id = self.operation is Operation.EXTEND
        asking = ("prompt", "style", "title", "continue_at") if by_id else ("style", "title")
        return tuple(name for name in asking if getattr(self, name) is not None)

    @property
    def is_custom(self) -> bool:
        """Whether the given parameters are used (`True`) or the source's are inherited; `custom` overrides."""
        return bool(self.custom_fields) if self.custom is None else self.custom

    def _find_problems(self) -> Iterator[Problem]:
        yield from super()._find_problems()
        if self.persona_model is not None and self.persona_id is None:
            yield Problem("persona_model", "says how persona_id is used, so it needs persona_id")
        end, start = self.source_duration, self.continue_at
        if start is None or end is None or not (_is_number(start, above=0) and _is_number(end, above=0)):
            return
        if start >= end:
            yield Problem("continue_at", f"must be below the source's duration of {end:g} s, not {start:g}")


@frozen(kw_only=True)
class AddInstrumental(_Request):
    """Give a vocal or a melody an accompaniment.

    The source is `url` (public audio) or `file` (a local path). `title`, `tags` (wanted styles) and
    `negative_tags` (unwanted ones; may be empty) are required. The weights are 0 to 1 in steps of 0.01.

    Raises:
        RequestError: all that is wrong with it, at once.
    """

    SOURCES: ClassVar[tuple[str, ...]] = ("url", "file")

    tags: str | None = _given(_text)

    @property
    def operation(self) -> Operation:
        """Always `Operation.ADD_INSTRUMENTAL`."""
        return Operation.ADD_INSTRUMENTAL

    def _find_problems(self) -> Iterator[Problem]:
        yield from super()._find_problems()
        for name in ("title", "tags", "negative_tags"):
            if getattr(self, name) is None:
                yield Problem(name, "is required for an instrumental")


Request = Extend | AddInstrumental
