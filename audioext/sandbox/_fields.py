"""What the Suno family takes: required fields, types, ranges, lengths, and the order that they make."""

import math
from collections.abc import Callable, Mapping
from typing import TypeGuard

from attrs import frozen
from yarl import URL

from .tasks import Kind, Order, Refusal, Trouble

__all__ = ["LEGACY_MODELS", "V6_MODELS", "Spec", "check", "is_address", "order_of"]

LEGACY_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5", "V5_5"})
V6_MODELS = frozenset({"V6", "V6_MINI", "V6_WILD"})

#: prompt, style, title in characters: https://docs.kie.ai/suno-api/extend-music (sheet A1), the same at
#: https://docs.sunoapi.org/suno-api/extend-music (C1) and
#: https://docs.vidgo.ai/api-manual/music-series/extend-music.
LENGTHS: Mapping[str, tuple[int, int, int]] = {
    "V3_5": (3000, 200, 80),
    "V4": (3000, 200, 80),
    "V4_5ALL": (5000, 1000, 80),
}
NEWER_LENGTHS = (5000, 1000, 100)
#: add-instrumental: title 100, tags 1000, negative tags 200 (sheets A3, C3).
INSTRUMENTAL_LENGTHS = {"title": 100, "tags": 1000, "negative_tags": 200}
LYRICS_LENGTH = 5000
#: 8 minutes, 1 minute for V4_5ALL: sheets A2, C2 and vidgo 1.5.
LONGEST_SOURCE_SECONDS = 480.0
LONGEST_SOURCE_V4_5ALL_SECONDS = 60.0
MOST_VARIETY = 4
WEIGHT_STEPS = 100
STEP_TOLERANCE = 1e-6

Problem = tuple[Trouble, str, str]


@frozen(kw_only=True)
class Spec:
    """What one operation of one API takes. Names are in snake case; `spell` turns them into the API's."""

    operation: str
    kind: Kind
    required: frozenset[str]
    optional: frozenset[str]
    models: frozenset[str]
    spell: Callable[[str], str] = str
    #: Needed when `default_param_flag` is true.
    custom: frozenset[str] = frozenset()
    #: Needed as well in that case, unless `instrumental` is true.
    sung: frozenset[str] = frozenset()
    #: Must not come with `instrumental`.
    not_instrumental: frozenset[str] = frozenset()
    #: Only in custom mode.
    custom_only: frozenset[str] = frozenset()
    #: The fields that may name the model.
    model_keys: tuple[str, ...] = ("model",)
    default_model: str | None = None

    @property
    def known(self) -> frozenset[str]:
        """All names that the operation knows."""
        return self.required | self.optional

    @property
    def names(self) -> Mapping[str, str]:
        """The sandbox's spelling of each name, by the API's."""
        return {self.spell(name): name for name in self.known}

    def model(self, fields: Mapping[str, object]) -> str | None:
        """Return the model that these fields name, or the default."""
        named = next((fields[key] for key in self.model_keys if fields.get(key) is not None), self.default_model)
        return named if isinstance(named, str) else None


def check(fields: Mapping[str, object], spec: Spec) -> None:
    """Check fields (in snake case) as the API does.

    Raises:
        Refusal: With all problems in its text, and the trouble of the first.
    """
    problems = [
        *_missing(fields, spec),
        *_wrong(fields, spec),
        *_too_long(fields, spec),
        *_unfit(fields, spec),
    ]
    if problems:
        text = "; ".join(f"{spec.spell(name)} {text}" for _, name, text in problems)
        raise Refusal(problems[0][0], text, names=[spec.spell(name) for _, name, _ in problems])


def order_of(
    fields: Mapping[str, object],
    spec: Spec,
    *,
    callback_url: str | None,
    sent: Mapping[str, object],
) -> Order:
    """Put checked fields into the sandbox's words; `sent` is the body in the API's spelling."""
    model = spec.model(fields)
    continue_at = fields.get("continue_at")
    inherits = fields.get("default_param_flag") is False and "audio_id" in spec.required
    by_upload = "upload_url" in spec.required
    longest = LONGEST_SOURCE_V4_5ALL_SECONDS if model == "V4_5ALL" else LONGEST_SOURCE_SECONDS
    return Order(
        operation=spec.operation,
        kind=spec.kind,
        fields=sent,
        audio_id=_text(fields, "audio_id") or None,
        url=_text(fields, "upload_url") or None,
        # In simple mode the custom values are not used: https://docs.kie.ai/suno-api/extend-music
        continue_at=float(continue_at) if _is_number(continue_at) and not inherits else None,
        title=_text(fields, "title"),
        prompt=_text(fields, "lyrics") or _text(fields, "prompt"),
        tags=_text(fields, "tags") or _text(fields, "style"),
        model=model,
        callback_url=callback_url,
        longest_seconds=longest if by_upload else None,
    )


def is_address(value: object) -> TypeGuard[str]:
    """Tell whether this is an absolute http(s) URL."""
    if not isinstance(value, str):
        return False
    try:
        url = URL(value)
    except ValueError:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)


def _missing(fields: Mapping[str, object], spec: Spec) -> list[Problem]:
    needed = set(spec.required)
    if fields.get("default_param_flag") is True:
        needed |= spec.custom
        if fields.get("instrumental") is not True:
            needed |= spec.sung
    return [(Trouble.MISSING, name, "is required") for name in sorted(needed) if fields.get(name) is None]


def _wrong(fields: Mapping[str, object], spec: Spec) -> list[Problem]:
    found: list[Problem] = []
    for name in sorted(spec.known):
        fits, wanted = CHECKS.get(name, TEXT_CHECK)
        if fields.get(name) is not None and not fits(fields[name]):
            found.append((Trouble.INVALID, name, wanted))
    return found


def _too_long(fields: Mapping[str, object], spec: Spec) -> list[Problem]:
    if spec.kind is Kind.INSTRUMENTAL:
        limits = dict(INSTRUMENTAL_LENGTHS)
    else:
        prompt, style, title = LENGTHS.get(spec.model(fields) or "", NEWER_LENGTHS)
        limits = {"prompt": prompt, "style": style, "title": title}
    limits["lyrics"] = LYRICS_LENGTH
    return [
        (Trouble.LENGTH, name, f"must not exceed {limit} characters")
        for name, limit in limits.items()
        if name in spec.known and len(_text(fields, name)) > limit
    ]


def _unfit(fields: Mapping[str, object], spec: Spec) -> list[Problem]:
    found: list[Problem] = []
    model = spec.model(fields)
    if model is not None and model not in spec.models:
        key = next((key for key in spec.model_keys if fields.get(key) is not None), spec.model_keys[0])
        found.append((Trouble.MODEL, key, f"{model} is not supported"))
    given = {name for name in spec.known if fields.get(name) is not None}
    if fields.get("instrumental") is True:
        unfit = sorted(spec.not_instrumental & given)
        found += [(Trouble.INVALID, name, "must not be sent when instrumental is true") for name in unfit]
    if fields.get("default_param_flag") is False:
        unfit = sorted(spec.custom_only & given)
        found += [(Trouble.INVALID, name, "is only available in custom mode") for name in unfit]
    return found


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_weight(value: object) -> bool:
    if not _is_number(value) or not 0 <= value <= 1:
        return False
    return abs(value * WEIGHT_STEPS - round(value * WEIGHT_STEPS)) < STEP_TOLERANCE


def _is_variety(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_VARIETY


def _is_filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


Check = tuple[Callable[[object], bool], str]

TEXT_CHECK: Check = (lambda value: isinstance(value, str), "must be a string")
FLAG_CHECK: Check = (lambda value: isinstance(value, bool), "must be a boolean")
WEIGHT_CHECK: Check = (_is_weight, "must be a number from 0 to 1 in steps of 0.01")
FILLED_CHECK: Check = (_is_filled, "must be a string that is not blank")
ADDRESS_CHECK: Check = (is_address, "must be an http(s) URL")
#: All other fields are texts.
CHECKS: Mapping[str, Check] = {
    "default_param_flag": FLAG_CHECK,
    "instrumental": FLAG_CHECK,
    "style_weight": WEIGHT_CHECK,
    "weirdness_constraint": WEIGHT_CHECK,
    "audio_weight": WEIGHT_CHECK,
    "audio_id": FILLED_CHECK,
    "model": FILLED_CHECK,
    "mv": FILLED_CHECK,
    "upload_url": ADDRESS_CHECK,
    "call_back_url": ADDRESS_CHECK,
    "continue_at": (lambda value: _is_number(value) and value > 0, "must be a number greater than 0"),
    "variety": (_is_variety, f"must be an integer from 0 to {MOST_VARIETY}"),
    "vocal_gender": (lambda value: value in ("m", "f"), "must be m or f"),
    "persona_model": (
        lambda value: value in ("style_persona", "voice_persona"),
        "must be style_persona or voice_persona",
    ),
}
