"""The requests that users submit: frozen values, validated on construction, with all problems reported at once.

A field is declared once, in `_Request`, `Extend` or `AddInstrumental`, with its check and its help. The `…Options`
declare the same fields for type checkers, as keyword arguments; a test keeps them equal.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import Field
from functools import cached_property
from inspect import cleandoc
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, Protocol, Self, TypedDict, cast

import attrs
import msgspec
from attrs import field, frozen

from audioext.errors import Problem, RequestError, shown
from audioext.models import checks
from audioext.models.checks import Check

VocalGender = Literal["m", "f", "male", "female", "neutral"]
PersonaModel = Literal["style_persona", "voice_persona"]
AudioFile = str | PathLike[str] | bytes | BinaryIO
"""A path, the bytes, or a binary file object, which is read from its current position at the submit."""


class DataclassObject(Protocol):
    """An object of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Meta = Mapping[str, object] | DataclassObject | attrs.AttrsInstance | msgspec.Struct
"""Your own JSON that is stored with a submit, as a dict or as an object whose fields are JSON."""

CUSTOM_FIELDS = ("prompt", "style", "title", "continue_at")
"""The fields that custom mode needs; with `audio_id`, giving any of them selects it."""


class Operation(enum.StrEnum):
    """What a task does, under the same name at all providers."""

    EXTEND = "extend"
    UPLOAD_EXTEND = "upload_extend"
    ADD_INSTRUMENTAL = "add_instrumental"

    __hash__ = str.__hash__  # an enum's own is slow, and differs from that of the equal text


EXTEND, UPLOAD_EXTEND, ADD_INSTRUMENTAL = Operation  # looking up an enum member is slow on Python 3.11


# --- for type checkers -----------------------------------------------------------------------------------------------


class RequestOptions(TypedDict, total=False):
    """The keyword arguments that both requests take, for type checkers."""

    url: str | None
    file: AudioFile | None
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


def _given(check: Check, words: str) -> Any:  # noqa: ANN401 - as attrs' own field(), so that its annotation counts
    """Return an optional field with the check of its value, and with *words* as the help of its option."""
    return field(default=None, metadata={"check": check, "help": words})


_PLAIN = frozenset({str, int, float, bool, type(None)})

# --- the requests ----------------------------------------------------------------------------------------------------


def _file(value: AudioFile | None) -> Path | bytes | BinaryIO | None:
    """Turn a path-like into a `Path` and buffers into bytes; `problems` reports anything that is not valid."""
    if isinstance(value, (str, PathLike)) and value != "":
        return Path(fsdecode(value))
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else cast("None", value)


def _make_plain(fields: dict[str, object]) -> None:
    """Replace the members of enums and the like among the values of *fields*, as `checks.plain` does."""
    for name, value in fields.items():
        if type(value) not in _PLAIN:
            fields[name] = checks.plain(value)


@frozen(kw_only=True, slots=False, repr=False)
class _Request:
    """The fields that both requests have. `None` means not given."""

    # Without slots, so that a draft holds only what was given, and the class has the defaults.

    SOURCES: ClassVar[tuple[str, ...]] = ("audio_id", "url", "file")
    _checks: ClassVar[dict[str, Check]] = {}
    """The check of each field by name."""

    url: str | None = _given(checks.url, "The public URL of an audio file.")
    file: Path | bytes | BinaryIO | None = field(
        default=None,
        converter=_file,
        metadata={"check": checks.file, "help": "An audio file: a path, the bytes, or a binary file object."},
    )
    model: str | None = _given(checks.model, "The model, such as V5; required for extend except at MusicGPT.")
    title: str | None = _given(checks.text, "The title of the result.")
    lyrics: str | None = _given(checks.text, "The words to sing, if the API takes them separately from the prompt.")
    negative_tags: str | None = _given(checks.text, "Styles to avoid.")
    vocal_gender: VocalGender | None = _given(  # noqa: RUF009 - it returns attrs' own field()
        checks.gender, "Who sings; neutral only at MusicGPT."
    )
    style_weight: float | None = _given(checks.weight, "How much the style counts: 0 to 1, in steps of 0.01.")
    weirdness_constraint: float | None = _given(
        checks.weight, "How far the result may deviate: 0 to 1, in steps of 0.01."
    )
    audio_weight: float | None = _given(checks.weight, "How much the source counts: 0 to 1, in steps of 0.01.")
    variety: int | None = _given(checks.variety, "0 to 4.")
    source_duration: float | None = _given(
        checks.seconds, "The source's length in seconds, to check limits beforehand; read from a file by itself."
    )
    rehost: bool = field(
        default=False,
        metadata={"check": checks.flag, "help": "Copy a source URL to the provider's own file host first."},
    )
    provider: str | None = _given(checks.text, "The name of the provider to use.")

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        """Make a misspelt field raise an error that suggests the right one; give a draft its defaults; add the help."""
        checks.name_what_was_meant(cls, "field", sources=cls.SOURCES)
        fields = attrs.fields(cls)
        cls._checks = {each.name: each.metadata["check"] for each in fields}
        for each in fields:
            setattr(cls, each.name, each.default)
        helps = "".join(f"    {each.name}: {each.metadata['help']}\n" for each in fields)
        cls.__doc__ = cleandoc(cls.__doc__ or "").replace("Raises:", f"Args:\n{helps}\nRaises:")

    def __attrs_post_init__(self) -> None:
        """Raise `RequestError` for a request that no provider could take."""
        _make_plain(vars(self))
        if self._problems:
            raise RequestError(self._problems)

    def __repr__(self) -> str:
        """Show what was given, and of bytes or a file object only the beginning."""
        parts: list[str] = []
        for name, value in self._given.items():
            is_data = name == "file" and not isinstance(value, Path)
            parts.append(f"{name}={shown(value) if is_data else repr(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    @classmethod
    def draft(cls, **fields: object) -> Self:
        """Return a request without validating its values; raise TypeError for an unknown field."""
        if not fields.keys() <= cls._checks.keys():
            checks.refuse_unknown(cls.__name__, "field", fields, cls._checks)
        if "file" in fields:
            fields["file"] = _file(cast("None", fields["file"]))
        _make_plain(fields)
        request = object.__new__(cls)
        vars(request).update(fields)
        return request

    @property
    def path(self) -> Path | None:
        """The path of the local file; `None` for bytes and file objects until the submit has written them to a file."""
        return self.file if isinstance(self.file, Path) else None

    def problems(self) -> tuple[Problem, ...]:
        """Return everything that is wrong with this request at any provider."""
        return self._problems

    def given(self) -> dict[str, object]:
        """Return the fields that were given, by name: those that are not `None`, and `rehost` only if `True`."""
        return self._given.copy()

    @cached_property
    def _given(self) -> dict[str, object]:
        held = vars(self)
        found = {name: held[name] for name in self._checks if name in held and held[name] is not None}
        if found.get("rehost") is False:
            del found["rehost"]
        return found

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        return tuple(self._find_problems())

    def _find_problems(self) -> list[Problem]:
        found: list[Problem] = []
        given = self._given
        sources = [*filter(given.__contains__, self.SOURCES)]
        if len(sources) != 1:
            choices = f"{', '.join(self.SOURCES[:-1])} or {self.SOURCES[-1]}"
            got = f"got {' and '.join(sources)}" if sources else "none was given"
            found.append(Problem("source", f"give exactly one of {choices}; {got}"))
        for name, value in given.items():
            complaint = self._checks[name](value)
            if complaint is not None:
                found.append(Problem(name, complaint))
        return found


@frozen(kw_only=True, slots=False, repr=False)
class Extend(_Request):
    """Continue a piece of music from `continue_at` seconds on.

    The source is one of `audio_id` (a track that the provider made), `url` (public audio) or `file` (a local path,
    bytes, or a binary file object). `model` is required except at MusicGPT. Times are in seconds; weights are 0 to 1 in
    steps of 0.01. `custom` says whether the provider uses the given prompt, style and title, or the source's; by
    default this follows from the other fields. `source_duration` (seconds) allows limits on the source to be checked
    before anything is sent; the duration of a local file is read from the file.

    Raises:
        RequestError: the request is not valid; it lists all problems.
    """

    audio_id: str | None = _given(checks.audio_id, "The id of a track that this provider made.")
    continue_at: float | None = _given(checks.seconds, "The second of the source to continue from.")
    prompt: str | None = _given(checks.text, "A description or the lyrics, depending on the API.")
    style: str | None = _given(checks.text, "The style of the result.")
    persona_id: str | None = _given(checks.full_text, "A persona or voice of yours.")
    persona_model: PersonaModel | None = _given(  # noqa: RUF009 - it returns attrs' own field()
        checks.persona_model, "What kind of persona it is."
    )
    lyrics_section_to_extend: str | None = _given(checks.text, "The part of the lyrics to go on from (MusicGPT).")
    instrumental: bool | None = _given(checks.flag, "Whether the result is without a voice.")
    num_outputs: int | None = _given(checks.outputs, "1 or 2 tracks (MusicGPT).")
    generate_album_cover: bool | None = _given(checks.flag, "Whether a cover is made (MusicGPT).")
    lyrics_timestamps: bool | None = _given(checks.flag, "Whether lyrics come with times (MusicGPT).")
    custom: bool | None = _given(
        checks.flag, "Whether the given fields are used, or the source's inherited; derived by default."
    )

    @cached_property
    def operation(self) -> Operation:
        """`EXTEND` for a track of the provider (`audio_id`), `UPLOAD_EXTEND` for other audio."""
        return EXTEND if self.audio_id is not None else UPLOAD_EXTEND

    @cached_property
    def custom_fields(self) -> tuple[str, ...]:
        """The given fields that select custom mode: any of `CUSTOM_FIELDS` with `audio_id`, else style or title."""
        asking = CUSTOM_FIELDS if self.audio_id is not None else ("style", "title")
        return tuple(filter(self._given.__contains__, asking))

    @cached_property
    def is_custom(self) -> bool:
        """Whether the given parameters are used (`True`) or the source's are inherited. `custom` overrides it."""
        return bool(self.custom_fields) if self.custom is None else self.custom

    def _find_problems(self) -> list[Problem]:
        found = super()._find_problems()
        if self.persona_model is not None and self.persona_id is None:
            found.append(Problem("persona_model", "says how persona_id is used, so it needs persona_id"))
        end, start = self.source_duration, self.continue_at
        if start is None or end is None or checks.seconds(start) or checks.seconds(end):
            return found
        if start >= end:
            found.append(Problem("continue_at", f"must be below the source's duration of {end:g} s, not {start:g}"))
        return found


@frozen(kw_only=True, slots=False, repr=False)
class AddInstrumental(_Request):
    """Add an accompaniment to vocals or a melody.

    The source is `url` (public audio) or `file` (a local path, bytes, or a binary file object). `title`, `tags` (wanted
    styles) and `negative_tags` (unwanted ones; may be empty) are required. Weights are 0 to 1 in steps of 0.01.

    Raises:
        RequestError: the request is not valid; it lists all problems.
    """

    SOURCES: ClassVar[tuple[str, ...]] = ("url", "file")

    tags: str | None = _given(checks.text, "The wanted styles; required.")

    @property
    def operation(self) -> Operation:
        """Always `Operation.ADD_INSTRUMENTAL`."""
        return ADD_INSTRUMENTAL

    def _find_problems(self) -> list[Problem]:
        missing = [name for name in ("title", "tags", "negative_tags") if name not in self._given]
        return super()._find_problems() + [Problem(name, "is required for an instrumental") for name in missing]


Request = Extend | AddInstrumental
