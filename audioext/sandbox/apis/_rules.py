"""The rules of the Suno family for submits: required fields, types, ranges and lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, TypeGuard

from aiohttp import web
from attrs import evolve, field, frozen

from audioext.sandbox.apis._api import read_json_object
from audioext.sandbox.library import is_address
from audioext.sandbox.models import Cause, Refusal, Submission, TaskInput

LEGACY_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5", "V5_5"})
V6_MODELS = frozenset({"V6", "V6_MINI", "V6_WILD"})
ALL_MODELS = LEGACY_MODELS | V6_MODELS
COMMON = frozenset({"vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"})
TEXTS = frozenset({"prompt", "style", "title", "continue_at"})
EXTENSION = COMMON | TEXTS | {"persona_id", "persona_model", "negative_tags", "instrumental"}
INSTRUMENTAL = frozenset({"upload_url", "title", "tags", "negative_tags"})  # required by all for add-instrumental

# prompt, style, title in characters: https://docs.kie.ai/suno-api/extend-music, the same at
# https://docs.sunoapi.org/suno-api/extend-music and https://docs.vidgo.ai/api-manual/music-series/extend-music.
NEWER_LENGTHS = {"prompt": 5000, "style": 1000, "title": 100}
OLDER_LENGTHS = {"prompt": 3000, "style": 200, "title": 80}
LENGTHS = {"V3_5": OLDER_LENGTHS, "V4": OLDER_LENGTHS, "V4_5ALL": {**NEWER_LENGTHS, "title": 80}}
LYRICS_LENGTH = 5000  # stated for V6 only: https://docs.kie.ai/suno-api/upload-and-extend-audio.md, as of 2026-10-06
# upload-and-extend-audio: 8 minutes, 1 minute for V4_5ALL; no page has a limit for add-instrumental
LONGEST_SOURCE_SECONDS = 480.0
LONGEST_SOURCE_V4_5ALL_SECONDS = 60.0
LONGEST_CALLBACK_URL = 2048  # vidgo.ai's webhooks page, which also asks for HTTPS and public addresses
STEP_TOLERANCE = 1e-8

FieldProblem: TypeAlias = tuple[Cause, str]
"""The cause, and the message in the API's words."""


@frozen(kw_only=True)
class OperationRules:
    """The fields that one operation of one API accepts. Names are in snake case; `spell` turns them into the API's.

    If `default_param_flag` is true, the `custom` fields are required, and the `sung` ones unless `instrumental` is
    true; if it is false, the `custom_only` ones are refused. The `not_instrumental` ones must not come with
    `instrumental`. `model_keys` are the fields that may name the model. `missing` is the API's message about a missing
    field. `lengths` are those of an instrumental; other texts have the lengths of their model. `clamps`: a point beyond
    the source's end means its end.
    """

    operation: str
    required: frozenset[str]
    optional: frozenset[str]
    models: frozenset[str]
    spell: Callable[[str], str] = str
    custom: frozenset[str] = frozenset()
    sung: frozenset[str] = frozenset()
    not_instrumental: frozenset[str] = frozenset()
    custom_only: frozenset[str] = frozenset()
    model_keys: tuple[str, ...] = ("model",)
    default_model: str | None = None
    missing: str = "{} is required"
    lengths: Mapping[str, int] = field(factory=dict)
    clamps: bool = False

    @property
    def is_instrumental(self) -> bool:
        """Whether the operation adds an instrumental."""
        return self.operation.endswith("add-instrumental")

    @property
    def by_upload(self) -> bool:
        """Whether the source comes by URL."""
        return "upload_url" in self.required

    def model(self, fields: Mapping[str, object]) -> str | None:
        """Return the model that these fields name, or the default."""
        named = next((fields[key] for key in self.model_keys if fields.get(key) is not None), self.default_model)
        return named if isinstance(named, str) else None

    def read(self, given: Mapping[str, object], *, lenient: bool = False) -> TaskInput:
        """Check fields in the API's spelling, and return them as a `TaskInput`.

        A lenient check accepts a custom upload without style and title. Raises a Refusal with all problems in its text,
        and the cause of the first one.
        """
        names = {self.spell(name): name for name in self.required | self.optional}
        fields = {names[name]: value for name, value in given.items() if name in names and value is not None}
        problems = [*self._missing(fields, lenient=lenient), *self._wrong(fields)]
        if problems:
            raise Refusal(problems[0][0], "; ".join(text for _, text in problems))
        model = self.model(fields)
        # In simple mode the custom values are not used, and the source's are: https://docs.kie.ai/suno-api/extend-music
        inherits = fields.get("default_param_flag") is False and not self.by_upload
        used = {name: value for name, value in fields.items() if not (inherits and name in TEXTS)}
        continue_at = used.get("continue_at")
        longest = LONGEST_SOURCE_V4_5ALL_SECONDS if model == "V4_5ALL" else LONGEST_SOURCE_SECONDS
        return TaskInput(
            operation=self.operation,
            is_instrumental=self.is_instrumental,
            fields=given,
            audio_id=_text(used, "audio_id") or None,
            url=_text(used, "upload_url") or None,
            continue_at=float(continue_at) if _is_number(continue_at) else None,
            title=_text(used, "title"),
            prompt=_text(used, "lyrics") or _text(used, "prompt"),
            tags=_text(used, "tags") or _text(used, "style"),
            model=model,
            longest_seconds=longest if self.by_upload and not self.is_instrumental else None,
            clamps=self.clamps,
        )

    def _missing(self, fields: Mapping[str, object], *, lenient: bool) -> Iterator[FieldProblem]:
        needed = set(self.required)
        # Recorded: "a custom upload-extend without style and title is accepted at submit" (kie.ai, April 2026).
        if fields.get("default_param_flag") is True and not (lenient and self.by_upload):
            needed |= self.custom | (frozenset() if fields.get("instrumental") is True else self.sung)
        for name in sorted(needed):
            if name == "call_back_url" and not fields.get(name):
                # Measured at both, 2026-02 to 2026-08; an empty text is refused in the same words.
                yield Cause.MISSING, f"Please enter {self.spell(name)}"
            elif name not in fields:
                yield Cause.MISSING, self.missing.format(self.spell(name))

    def _wrong(self, fields: Mapping[str, object]) -> Iterator[FieldProblem]:
        for name in sorted(fields):
            fits, wanted = CHECKS.get(name, TEXT_CHECK)
            if not fits(fields[name]) and (name, fields[name]) != ("call_back_url", ""):
                yield Cause.INVALID, f"{self.spell(name)} {wanted}"
        model = self.model(fields)
        lengths = self.lengths if self.is_instrumental else LENGTHS.get(model or "", NEWER_LENGTHS)
        for name, limit in {**lengths, **({"lyrics": LYRICS_LENGTH} if model in V6_MODELS else {})}.items():
            if len(_text(fields, name)) > limit:
                yield Cause.LENGTH, f"{self.spell(name)} must not exceed {limit} characters"
        if model is not None and model not in self.models:
            key = next((key for key in self.model_keys if key in fields), self.model_keys[0])
            yield Cause.INVALID, f"{self.spell(key)} {model} is not supported"
        if fields.get("instrumental") is True:
            for name in sorted(self.not_instrumental & fields.keys()):
                yield Cause.INVALID, f"{self.spell(name)} must not be sent when instrumental is true"
        if fields.get("default_param_flag") is False:
            for name in sorted(self.custom_only & fields.keys()):
                yield Cause.INVALID, f"{self.spell(name)} is only available in custom mode"


async def read_wrapped(
    request: web.Request, table: Mapping[str, OperationRules], submission: Submission, *, key: str
) -> TaskInput:
    """Read a body with the operation in `model` and the fields in `input`; *key* is the callback URL's field.

    Raises Refusal for a body that the API would not accept.
    """
    body = submission.fields = await read_json_object(request)
    name, callback_url, given = body.get("model"), body.get(key), body.get("input")
    if not isinstance(name, str) or name not in table:
        raise Refusal(Cause.INVALID, f"The model {name} is not supported")
    submission.operation = name
    if callback_url is not None and (not is_address(callback_url) or len(callback_url) > LONGEST_CALLBACK_URL):
        raise Refusal(Cause.INVALID, f"{key} must be an http(s) URL of at most {LONGEST_CALLBACK_URL} characters")
    submission.callback_url = callback_url
    if not isinstance(given, dict):
        raise Refusal(Cause.MISSING, "input is required")
    return evolve(table[name].read(given), fields=body, callback_url=callback_url)


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_weight(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1 and abs(value - round(value, 2)) < STEP_TOLERANCE


Check: TypeAlias = tuple[Callable[[object], bool], str]
"""Whether a value is valid, and the API's message if it is not."""

PERSONA_MODELS = ("style_persona", "voice_persona")
TEXT_CHECK: Check = (lambda value: isinstance(value, str), "must be a string")
FLAG_CHECK: Check = (lambda value: isinstance(value, bool), "must be a boolean")
FILLED_CHECK: Check = (
    lambda value: bool(isinstance(value, str) and value.strip()),
    "must be a string that is not blank",
)
CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(("default_param_flag", "instrumental"), FLAG_CHECK),
    **dict.fromkeys(("audio_id", "model", "mv"), FILLED_CHECK),
    **dict.fromkeys(("upload_url", "call_back_url"), (is_address, "must be an http(s) URL")),
    **dict.fromkeys(
        ("style_weight", "weirdness_constraint", "audio_weight"),
        (_is_weight, "must be a number from 0 to 1 in steps of 0.01"),
    ),
    "continue_at": (lambda value: _is_number(value) and value > 0, "must be a number greater than 0"),
    "variety": (lambda value: type(value) is int and value in range(5), "must be an integer from 0 to 4"),
    "vocal_gender": (lambda value: value in ("m", "f"), "must be m or f"),
    "persona_model": (lambda value: value in PERSONA_MODELS, f"must be {' or '.join(PERSONA_MODELS)}"),
}
"""The checks of fields that are not plain texts."""
