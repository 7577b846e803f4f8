"""What a user asks for: frozen values, validated on construction, all problems at once."""

from __future__ import annotations

import enum
import math
import re
import sys
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import ClassVar, Literal, Self, TypedDict, cast
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from audioext.errors import Problem, RequestError

VocalGender = Literal["m", "f", "male", "female", "neutral"]
PersonaModel = Literal["style_persona", "voice_persona"]

GENDERS = ("m", "f", "male", "female", "neutral")
PERSONA_MODELS = ("style_persona", "voice_persona")  # docs.sunoapi.org/suno-api/extend-music, read 2026-11-21
SOURCE_FIELDS = ("audio_id", "url", "file")
VARIETY_LAST = 4  # integer 0..4: docs.sunoapi.org/suno-api/add-instrumental (V6 copy), read 2026-11-21
OUTPUT_COUNTS = (1, 2)  # docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21
WEIGHT_STEPS = 100  # "multiple of 0.01": docs.kie.ai/suno-api/extend-music, read 2026-11-21
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Operation(enum.StrEnum):
    """What a task does, whatever a provider calls it."""

    EXTEND = "extend"
    UPLOAD_EXTEND = "upload_extend"
    ADD_INSTRUMENTAL = "add_instrumental"


class ExtendOptions(TypedDict, total=False):
    """The keyword arguments of `Extend`, for type checkers."""

    audio_id: str | None
    url: str | None
    file: str | PathLike[str] | None
    model: str | None
    continue_at: float | None
    prompt: str | None
    style: str | None
    title: str | None
    lyrics: str | None
    lyrics_section_to_extend: str | None
    negative_tags: str | None
    vocal_gender: VocalGender | None
    style_weight: float | None
    weirdness_constraint: float | None
    audio_weight: float | None
    persona_id: str | None
    persona_model: PersonaModel | None
    instrumental: bool | None
    variety: int | None
    num_outputs: int | None
    generate_album_cover: bool | None
    lyrics_timestamps: bool | None
    custom: bool | None
    source_duration: float | None
    rehost: bool
    provider: str | None


class InstrumentalOptions(TypedDict, total=False):
    """The keyword arguments of `AddInstrumental`, for type checkers."""

    url: str | None
    file: str | PathLike[str] | None
    title: str | None
    tags: str | None
    negative_tags: str | None
    model: str | None
    lyrics: str | None
    vocal_gender: VocalGender | None
    style_weight: float | None
    weirdness_constraint: float | None
    audio_weight: float | None
    variety: int | None
    source_duration: float | None
    rehost: bool
    provider: str | None


def _path(value: str | PathLike[str] | None) -> Path | None:
    """Turn a path-like into a `Path`; anything else is left for `problems` to complain about."""
    return Path(fspath(value)) if isinstance(value, (str, PathLike)) and value != "" else cast("None", value)


@frozen(kw_only=True)
class _Request:
    """What the two requests share: a source, a model, and the weights. `None` means not given."""

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = ()
    SOURCES: ClassVar[tuple[str, ...]] = SOURCE_FIELDS

    url: str | None = None
    file: Path | None = field(default=None, converter=_path)
    model: str | None = None
    title: str | None = None
    lyrics: str | None = None
    negative_tags: str | None = None
    vocal_gender: VocalGender | None = None
    style_weight: float | None = None
    weirdness_constraint: float | None = None
    audio_weight: float | None = None
    variety: int | None = None
    source_duration: float | None = None
    rehost: bool = False
    provider: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a request that no provider could take."""
        problems = self.problems()
        if problems:
            raise RequestError(problems)

    @classmethod
    def draft(cls, **fields: object) -> Self:
        """Return a request without refusing it, so that its problems and a provider's can be told together.

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
        yield from self._source_problems()
        for name in ("url", "model", "title", "lyrics", "negative_tags", "provider", *self.TEXT_FIELDS):
            yield from _text_problems(name, getattr(self, name))
        for name in ("style_weight", "weirdness_constraint", "audio_weight"):
            yield from _weight_problems(name, getattr(self, name))
        yield from _choice_problems("vocal_gender", self.vocal_gender, GENDERS)
        yield from _variety_problems(self.variety)
        if self.model == "":
            yield Problem("model", "must not be empty; leave it out where the provider has a default")
        if self.source_duration is not None and not _is_number(self.source_duration, above=0):
            yield Problem("source_duration", f"must be seconds above 0, not {self.source_duration!r}")
        yield from _flag_problems("rehost", self.rehost)

    def _source_problems(self) -> Iterator[Problem]:
        given = [name for name in self.SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            choices = f"{', '.join(self.SOURCES[:-1])} or {self.SOURCES[-1]}"
            found = f"got {' and '.join(given)}" if given else "none was given"
            yield Problem("source", f"give exactly one of {choices}; {found}")
        if isinstance(self.url, str):
            yield from _url_problems("url", self.url)
        if self.file is not None and not isinstance(self.file, Path):
            yield Problem("file", f"must be a path, not {self.file!r}")


@frozen(kw_only=True)
class Extend(_Request):
    """Continue a piece of music from `continue_at` seconds on.

    The source is one of `audio_id` (a track that the provider made), `url` (public audio) or `file` (a local
    path). `model` is required except at MusicGPT. Times are in seconds, the weights 0 to 1 in steps of 0.01.
    `custom` overrides what is derived from the other fields: whether the provider is told to use the given
    prompt, style and title, or to inherit the source's. `source_duration` (seconds) lets limits on the
    source be checked before anything is sent; a local file's duration is read from the file.

    Raises:
        RequestError: all that is wrong with it, at once.
    """

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = (
        "audio_id",
        "prompt",
        "style",
        "persona_id",
        "lyrics_section_to_extend",
    )

    audio_id: str | None = None
    continue_at: float | None = None
    prompt: str | None = None
    style: str | None = None
    persona_id: str | None = None
    persona_model: PersonaModel | None = None
    lyrics_section_to_extend: str | None = None
    instrumental: bool | None = None
    num_outputs: int | None = None
    generate_album_cover: bool | None = None
    lyrics_timestamps: bool | None = None
    custom: bool | None = None

    @property
    def operation(self) -> Operation:
        """Whether a provider's own track is continued, or audio from elsewhere."""
        return Operation.EXTEND if self.audio_id is not None else Operation.UPLOAD_EXTEND

    @property
    def is_custom(self) -> bool:
        """Whether the given parameters are used (`True`) or the source's are inherited (`False`).

        By id any of prompt, style, title and continue_at asks for custom mode; for uploaded audio only
        style or title do. `custom` overrides.
        """
        if self.custom is not None:
            return self.custom
        asking = (self.style, self.title)
        if self.operation is Operation.EXTEND:
            asking += (self.prompt, self.continue_at)  # type: ignore[assignment]  # only None-ness matters
        return any(value is not None for value in asking)

    def _find_problems(self) -> Iterator[Problem]:
        yield from super()._find_problems()
        for name in ("audio_id", "persona_id"):
            if getattr(self, name) == "":
                yield Problem(name, "must not be empty")
        yield from _choice_problems("persona_model", self.persona_model, PERSONA_MODELS)
        if self.persona_model is not None and self.persona_id is None:
            yield Problem("persona_model", "says how persona_id is used, so it needs persona_id")
        for name in ("instrumental", "generate_album_cover", "lyrics_timestamps", "custom"):
            yield from _flag_problems(name, getattr(self, name))
        if self.num_outputs is not None and (
            isinstance(self.num_outputs, bool) or self.num_outputs not in OUTPUT_COUNTS
        ):
            yield Problem("num_outputs", f"must be 1 or 2, not {self.num_outputs!r}")
        yield from self._continue_at_problems()

    def _continue_at_problems(self) -> Iterator[Problem]:
        if self.continue_at is None:
            return
        if not _is_number(self.continue_at, above=0):
            yield Problem("continue_at", f"must be seconds above 0, not {self.continue_at!r}")
        elif (
            self.source_duration is not None
            and _is_number(self.source_duration, above=0)
            and self.continue_at >= self.source_duration
        ):
            yield Problem(
                "continue_at",
                f"must be below the source's duration of {self.source_duration:g} s, not {self.continue_at:g}",
            )


@frozen(kw_only=True)
class AddInstrumental(_Request):
    """Give a vocal or a melody an accompaniment.

    The source is `url` (public audio) or `file` (a local path). `title`, `tags` (wanted styles) and
    `negative_tags` (unwanted ones; may be empty) are required. The weights are 0 to 1 in steps of 0.01.

    Raises:
        RequestError: all that is wrong with it, at once.
    """

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = ("tags",)
    SOURCES: ClassVar[tuple[str, ...]] = ("url", "file")

    tags: str | None = None

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


def _text_problems(name: str, value: object) -> Iterator[Problem]:
    if value is None:
        return
    if not isinstance(value, str):
        yield Problem(name, f"must be text, not {value!r}")
    elif LONE_SURROGATE.search(value):
        yield Problem(name, "holds half of a surrogate pair, which no API can be sent")


def _url_problems(name: str, value: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in {"http", "https", "s3"} or not host or re.search(r"\s", value):
        yield Problem(name, f"must be an http(s) URL, not {value!r}")


def _is_number(value: object, *, above: float) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return above < value < math.inf and value <= sys.float_info.max  # an int may be greater than any float


def _weight_problems(name: str, value: object) -> Iterator[Problem]:
    if value is None:
        return
    if not (_is_number(value, above=-1) and isinstance(value, (int, float)) and 0 <= value <= 1):
        yield Problem(name, f"must be a number from 0 to 1, not {value!r}")
    elif not math.isclose(value * WEIGHT_STEPS, round(value * WEIGHT_STEPS), abs_tol=1e-6):
        yield Problem(name, f"must have at most two decimals (steps of 0.01), not {value!r}")


def _choice_problems(name: str, value: object, choices: tuple[str, ...]) -> Iterator[Problem]:
    if value is not None and value not in choices:
        yield Problem(name, f"must be one of {', '.join(choices)}, not {value!r}")


def _variety_problems(value: object) -> Iterator[Problem]:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= VARIETY_LAST):
        yield Problem("variety", f"must be a whole number from 0 to {VARIETY_LAST}, not {value!r}")


def _flag_problems(name: str, value: object) -> Iterator[Problem]:
    if value is not None and not isinstance(value, bool):
        yield Problem(name, f"must be True or False, not {value!r}")
