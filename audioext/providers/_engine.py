"""The rules of the Suno engine, which kie.ai (both routes), sunoapi.org and vidgo resell.

Each vendor's page repeats the engine's limits; `EngineRules` holds what differs between the vendors. A limit
that a vendor's page states refuses a request; one that only third parties report is advice.

Pages, read 2026-11-21: docs.kie.ai/suno-api/extend-music, docs.kie.ai/suno-api/upload-and-extend-audio,
docs.kie.ai/suno-api/add-instrumental, docs.sunoapi.org/suno-api/extend-music,
docs.sunoapi.org/suno-api/upload-and-extend-audio, docs.sunoapi.org/suno-api/add-instrumental,
docs.vidgo.ai/api-manual/music-series/extend-music.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from audioext.errors import Problem
from audioext.models.requests import AddInstrumental, Extend, Operation, Request
from audioext.providers._fields import require_operation, unsupported_fields

DEFAULT_INSTRUMENTAL_MODEL = "V4_5PLUS"
"""Sent when no model is given: sunoapi.org's own default changed from it to V6 without a word."""


@frozen(kw_only=True)
class TextLimits:
    """How long the texts may be, in characters; `None` means that no limit is known."""

    prompt: int | None = None
    style: int | None = None
    title: int | None = None
    lyrics: int | None = None
    tags: int | None = None
    negative_tags: int | None = None


_OLD = TextLimits(prompt=3000, style=200, title=80)
_NEW = TextLimits(prompt=5000, style=1000, title=100)
# V6 as a reader of kie.ai's generate page reports it in 2026-10
_V6 = TextLimits(prompt=5000, lyrics=5000, style=1000, title=80)

EXTEND_LIMITS: Mapping[str, TextLimits] = {
    "V3_5": _OLD,  # from older pages, before each model had its own numbers
    "V4": _OLD,
    "V4_5": _NEW,
    "V4_5PLUS": _NEW,
    "V4_5ALL": TextLimits(prompt=5000, style=1000, title=80),
    "V5": _NEW,
    "V5_5": _NEW,
    "V6": _V6,
    "V6_MINI": _V6,
    "V6_WILD": _V6,
}
"""Character limits of both extend operations by model: docs.kie.ai/suno-api/extend-music, read 2026-11-21."""

KNOWN_MODELS = frozenset(EXTEND_LIMITS)
"""All engine versions that any page names; the set is open, others go through unchecked."""

V6_MODELS = frozenset({"V6", "V6_MINI", "V6_WILD"})
CLASSIC_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5", "V5_5"})
"""The versions whose limits kie.ai's and sunoapi.org's extend pages state."""

MAX_UPLOAD_SECONDS = 480.0  # 8 minutes: docs.kie.ai/suno-api/upload-and-extend-audio, read 2026-11-21
SHORT_UPLOADS: Mapping[str, float] = {"V4_5ALL": 60.0}
"""Models that take less, in seconds: docs.sunoapi.org/suno-api/upload-and-extend-audio and
docs.kie.ai/cn/suno-api/upload-and-extend-audio, read 2026-11-21."""


@frozen(kw_only=True)
class EngineRules:
    """What differs between the vendors of the engine.

    `wire_name` is the vendor's key in the field tables. `listed` holds the models that the vendor lists for
    an operation, `stated` those whose extend limits one of its own pages states, and
    `instrumental_limits` the texts' limits when adding an instrumental, page-stated in
    `instrumental_stated`. `has_custom_mode` says whether there is a switch between given and inherited
    parameters, `persona_needs_custom` whether a persona needs it, and `upload_needs_continue_at` whether
    uploaded audio needs `continue_at` whatever the mode.
    """

    wire_name: str
    listed: Mapping[Operation, frozenset[str]]
    stated: frozenset[str] = CLASSIC_MODELS | {"V3_5"}
    has_custom_mode: bool = True
    persona_needs_custom: bool = False
    upload_needs_continue_at: bool = False
    instrumental_limits: TextLimits = field(factory=TextLimits)
    instrumental_stated: frozenset[str] = frozenset()


def engine_problems(request: Request, rules: EngineRules) -> tuple[Problem, ...]:
    """Return all that the engine, as *rules* sells it, would refuse in *request*, and advice.

    It holds for any draft: what is wrong with a value in itself is told by `request.problems()`.

    Raises:
        UnsupportedError: the vendor has no such operation.
    """
    require_operation(request, rules.wire_name)
    found = [
        *unsupported_fields(request, rules.wire_name),
        *_common_problems(request, rules),
    ]
    if isinstance(request, Extend):
        found += [*_extend_problems(request, rules), *_extend_limits(request, rules)]
    else:
        found += _instrumental_limits(request, rules)
    return tuple(found)


def wire_gender(vocal_gender: str | None) -> str | None:
    """Return the engine's letter, `m` or `f`, for a gender word; `None` for none."""
    return None if vocal_gender is None else {"male": "m", "female": "f"}.get(vocal_gender, vocal_gender)


def instrumental_model(request: Request) -> str | None:
    """Return the model of *request*, or for an instrumental without one the default that is sent."""
    if request.model is None and isinstance(request, AddInstrumental):
        return DEFAULT_INSTRUMENTAL_MODEL
    return request.model


def _common_problems(request: Request, rules: EngineRules) -> Iterator[Problem]:
    if request.vocal_gender == "neutral":
        yield Problem(
            "vocal_gender",
            f"{rules.wire_name} takes m or f; neutral exists only at musicgpt",
        )
    if isinstance(request.url, str) and request.url.lower().startswith("s3:"):
        yield Problem(
            "url",
            f"must be an http(s) URL at {rules.wire_name}; musicgpt takes s3:// as well",
        )
    listed = rules.listed.get(request.operation, frozenset())
    model = request.model
    if isinstance(model, str) and model in KNOWN_MODELS and model not in listed:
        yield Problem(
            "model",
            f"{rules.wire_name} does not list {model} for this operation",
            advice=True,
        )


def _extend_problems(request: Extend, rules: EngineRules) -> Iterator[Problem]:
    if request.model is None:
        yield Problem("model", f"is required to extend at {rules.wire_name}")
    if rules.has_custom_mode:
        yield from _custom_problems(request, rules)
    by_id = request.operation is Operation.EXTEND
    if request.continue_at is None and not by_id and rules.upload_needs_continue_at:
        yield Problem("continue_at", f"{rules.wire_name} always needs it to extend uploaded audio")
    if request.instrumental is True:
        yield from _instrumental_clashes(request, rules)
    yield from _duration_problems(request)


def _custom_problems(request: Extend, rules: EngineRules) -> Iterator[Problem]:
    # defaultParamFlag true: docs.kie.ai/suno-api/extend-music and upload-and-extend-audio, read 2026-11-21
    if not request.is_custom:
        if request.persona_id is not None and rules.persona_needs_custom:
            asking = "prompt, style, title and continue_at"
            yield Problem(
                "persona_id",
                f"works only in custom mode at {rules.wire_name}: give {asking} as well",
            )
        return
    needed = ["style", "title", "continue_at"]
    if request.instrumental is not True:
        needed.insert(0, "prompt")
    told_elsewhere = {"continue_at"} if _needs_continue_at_anyway(request, rules) else set()
    for name in needed:
        if getattr(request, name) is None and name not in told_elsewhere:
            yield Problem(
                name,
                f"is required in custom mode, together with {_others(needed, name)}",
            )


def _needs_continue_at_anyway(request: Extend, rules: EngineRules) -> bool:
    return rules.upload_needs_continue_at and request.operation is Operation.UPLOAD_EXTEND


def _others(names: list[str], name: str) -> str:
    rest = [other for other in names if other != name]
    return f"{', '.join(rest[:-1])} and {rest[-1]}"


def _instrumental_clashes(request: Extend, rules: EngineRules) -> Iterator[Problem]:
    # Readers of kie.ai's pages in 2026-08 and 2026-10 name these; only `prompt` by id is a rule of ours.
    refused = request.operation is Operation.EXTEND and rules.has_custom_mode
    if request.prompt is not None and (refused or not rules.has_custom_mode):
        message = "must be left out when instrumental is True: there is nothing to sing"
        yield Problem("prompt", message, advice=not refused)
    names = ("vocal_gender",) if rules.has_custom_mode else ("lyrics", "vocal_gender", "audio_weight")
    for name in names:
        if getattr(request, name) is not None:
            yield Problem(name, "is reported to clash with instrumental=True", advice=True)


def _duration_problems(request: Extend) -> Iterator[Problem]:
    seconds = request.source_duration
    if request.operation is not Operation.UPLOAD_EXTEND or not isinstance(seconds, (int, float)):
        return
    model = request.model if isinstance(request.model, str) else ""
    longest = SHORT_UPLOADS.get(model, MAX_UPLOAD_SECONDS)
    if seconds > longest:
        message = f"the source may last at most {longest:g} s{f' with {model}' if model else ''}, not {seconds:g} s"
        yield Problem("source_duration", message)


def _extend_limits(request: Extend, rules: EngineRules) -> Iterator[Problem]:
    if isinstance(request.model, str) and request.model in EXTEND_LIMITS:
        limits = EXTEND_LIMITS[request.model]
        advice = request.model not in rules.stated
        for name in ("prompt", "style", "title", "lyrics"):
            longest = getattr(limits, name)
            yield from _too_long(request, name, longest, f" with {request.model}", advice=advice)


def _instrumental_limits(request: AddInstrumental, rules: EngineRules) -> Iterator[Problem]:
    for name in ("title", "tags", "negative_tags"):
        longest = getattr(rules.instrumental_limits, name)
        yield from _too_long(request, name, longest, "", advice=name not in rules.instrumental_stated)
    model = instrumental_model(request)
    if isinstance(model, str) and model in V6_MODELS:
        advice = "lyrics" not in rules.instrumental_stated
        longest = rules.instrumental_limits.lyrics
        yield from _too_long(request, "lyrics", longest, f" with {model}", advice=advice)


def _too_long(request: Request, name: str, longest: int | None, where: str, *, advice: bool) -> Iterator[Problem]:
    text = getattr(request, name)
    if longest is not None and isinstance(text, str) and len(text) > longest:
        yield Problem(
            name,
            f"must be at most {longest} characters{where}, not {len(text)}",
            advice=advice,
        )
