"""Which API has which operation and request field, which values it would refuse, and the fields' wire names.

APIs are keyed by their *wire name*, whatever the `name` of an account. Sources are the vendors' pages named in each
provider's module, read 2026-11-21; facts that only third parties state are marked.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

import attrs
from attrs import field, frozen

from audioext.errors import Problem, UnsupportedError, cut, shown
from audioext.http.decoding import EXACT_FLOAT
from audioext.models import checks
from audioext.models.requests import (
    ADD_INSTRUMENTAL,
    CUSTOM_FIELDS,
    EXTEND,
    UPLOAD_EXTEND,
    Extend,
    Operation,
    Request,
)
from audioext.providers import NAMES

DEFAULT_INSTRUMENTAL_MODEL = "V4_5PLUS"
"""Sent if a request names no model: sunoapi.org's own default changed from it to V6 without notice."""

_Given = Mapping[str, object]
_Limit = tuple[str, int, str, bool]
"""A field, its longest length in characters, " with MODEL" or "", and whether the vendor's page states the limit."""
_NONE: frozenset[str] = frozenset()
_KIE_JOBS, _SUNOAPI, _MUSICGPT = frozenset({"kie-jobs"}), frozenset({"sunoapi"}), frozenset({"musicgpt"})
_ENGINE = _KIE_JOBS | _SUNOAPI | {"kie", "vidgo"}
_ALL = _ENGINE | _MUSICGPT
_REHOSTING = _ENGINE - {"vidgo"}
_FLAGGED = _ENGINE - _KIE_JOBS

_COLUMNS: Mapping[Operation, str] = {
    Operation.EXTEND: "extending by audio_id",
    Operation.UPLOAD_EXTEND: "extending a url or file",
    Operation.ADD_INSTRUMENTAL: "adding an instrumental",
}
"""The columns of `FIELDS` in order, and their names in messages."""
FIELDS: Mapping[str, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {
    # field: APIs that take it to extend by id, to extend a url or file, to add an instrumental
    "provider": (_ENGINE, _ALL, _ENGINE),
    "source_duration": (_ALL, _ALL, _ALL),
    "audio_id": (_ENGINE, _NONE, _NONE),
    "url": (_NONE, _ALL, _ENGINE),
    "file": (_NONE, _ALL, _ENGINE),
    "rehost": (_NONE, _REHOSTING, _REHOSTING),
    "model": (_ENGINE, _ENGINE, _ENGINE),
    "continue_at": (_ALL, _ALL, _NONE),
    "prompt": (_ALL, _ALL, _NONE),
    "style": (_ENGINE, _ENGINE, _NONE),
    # title, generate_album_cover and lyrics_timestamps at MusicGPT are on no page; two integrations of 2026 send them.
    "title": (_ALL, _ALL, _ENGINE),
    "tags": (_NONE, _NONE, _ENGINE),
    "negative_tags": (_ENGINE, _ENGINE, _ENGINE),
    "lyrics": (_KIE_JOBS | _MUSICGPT, _KIE_JOBS | _MUSICGPT, _SUNOAPI),
    "lyrics_section_to_extend": (_MUSICGPT, _MUSICGPT, _NONE),
    "vocal_gender": (_ALL, _ALL, _ENGINE),
    "style_weight": (_ENGINE, _ENGINE, _ENGINE),
    "weirdness_constraint": (_ENGINE, _ENGINE, _ENGINE),
    "audio_weight": (_ENGINE, _ENGINE, _ENGINE),
    "persona_id": (_ENGINE, _ENGINE, _NONE),
    "persona_model": (_REHOSTING, _REHOSTING, _NONE),
    # By id: it is in kie.ai's OpenAPI of 2026-08-19, and not on vidgo's page.
    "instrumental": (_REHOSTING, _ENGINE, _NONE),
    "variety": (_KIE_JOBS, _KIE_JOBS, _SUNOAPI),
    "num_outputs": (_MUSICGPT, _MUSICGPT, _NONE),
    "generate_album_cover": (_MUSICGPT, _MUSICGPT, _NONE),
    "lyrics_timestamps": (_MUSICGPT, _MUSICGPT, _NONE),
    "custom": (_FLAGGED, _FLAGGED, _NONE),  # the jobs route and MusicGPT have no flag for custom mode
}
"""The wire formats that take a request field, by operation."""

LOCAL_FIELDS = frozenset({"provider", "source_duration", "rehost", "custom", "file"})
"""Fields that are not sent, or are turned into another field before the submit."""


def formats_taking(name: str, operation: Operation) -> frozenset[str]:
    """Return the wire formats that take the field *name* in *operation*."""
    return FIELDS[name][[*_COLUMNS].index(operation)] if name in FIELDS else _NONE


LONGEST_MODEL = 40
LEAST_LIKENESS = 0.82
"""Least difflib ratio of a misspelt model to a known one; V5X to V5 is below it, and may be next year's model."""

_OLD = {"prompt": 3000, "style": 200, "title": 80}
_NEW = {"prompt": 5000, "style": 1000, "title": 100}
# docs.kie.ai/suno-api/upload-and-extend-audio.md, as of 2026-10-06; its 80 for titles is only for generate and cover.
_V6 = {"prompt": 5000, "lyrics": 5000, "style": 1000, "title": 100}

V6_MODELS = frozenset({"V6", "V6_MINI", "V6_WILD"})
CLASSIC_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5", "V5_5"})
"""The models whose limits are on kie.ai's and sunoapi.org's extend pages."""

EXTEND_LIMITS: Mapping[str, Mapping[str, int]] = {
    **dict.fromkeys(CLASSIC_MODELS, _NEW),
    **dict.fromkeys(V6_MODELS, _V6),
    **dict.fromkeys(("V3_5", "V4"), _OLD),  # V3_5: from older pages, which had the same limits for all models
    "V4_5ALL": {**_NEW, "title": 80},
}
"""Character limits of both extend operations by model: docs.kie.ai/suno-api/extend-music, read 2026-11-21.

These are all models that any page names; the set is open, and other models are sent unchecked."""

MAX_UPLOAD_SECONDS = 480.0  # 8 minutes: docs.kie.ai/suno-api/upload-and-extend-audio, read 2026-11-21
SHORT_UPLOADS: Mapping[str, float] = {"V4_5ALL": 60.0}
"""Models with a lower limit, in seconds: docs.sunoapi.org/suno-api/upload-and-extend-audio and
docs.kie.ai/cn/suno-api/upload-and-extend-audio, read 2026-11-21."""


@frozen(kw_only=True)
class FieldRules:
    """The operations and fields that one API takes, and its rules beyond `FIELDS`.

    `operations` and `takes` (field names) come from `FIELDS` by default, which has none for a provider of your own.
    `models`: those that the vendor lists for both extend operations, and `instrumental_models` for the third. `stated`:
    the models whose extend limits its own pages state; other limits are only advice. `lengths`: limits of texts for any
    model; those not in `stated_lengths` are only advice. `persona_needs_custom`: a persona needs custom mode.
    `upload_may_lack_prompt`: custom mode may need no prompt for uploaded audio. `upload_needs_continue_at`: uploaded
    audio needs `continue_at` in any mode. `upload_needs_instrumental`: `instrumental` must be sent for uploaded audio;
    it is `False` by default. `v6_lyrics`: an instrumental's lyrics are stated for V6 alone. By default the wire name
    says two more: `is_engine`: it sells the Suno engine, with its models, genders and lengths; `has_custom_mode`: a
    flag switches between given and inherited parameters.
    """

    wire_name: str
    operations: frozenset[Operation] = field(
        default=attrs.Factory(
            lambda self: frozenset(each for each in Operation if self.wire_name in formats_taking("provider", each)),
            takes_self=True,
        )
    )
    takes: frozenset[str] | None = None
    models: frozenset[str] = _NONE
    instrumental_models: frozenset[str] = _NONE
    stated: frozenset[str] = CLASSIC_MODELS | {"V3_5"}
    lengths: Mapping[Operation, Mapping[str, int]] = field(factory=dict)
    stated_lengths: frozenset[str] = frozenset()
    persona_needs_custom: bool = False
    upload_may_lack_prompt: bool = False
    upload_needs_continue_at: bool = False
    upload_needs_instrumental: bool = False
    v6_lyrics: bool = False
    is_engine: bool = attrs.Factory(lambda self: self.wire_name in _ENGINE, takes_self=True)
    has_custom_mode: bool = attrs.Factory(lambda self: self.wire_name in _FLAGGED, takes_self=True)

    def __attrs_post_init__(self) -> None:
        """Raise TypeError for a name in `takes` that no request has."""
        checks.refuse_unknown("a request", "field", self.takes or (), FIELDS)

    @functools.cached_property
    def taken(self) -> Mapping[Operation, frozenset[str]]:
        """The names of the accepted fields, by operation."""
        if self.takes is not None:
            return dict.fromkeys(Operation, self.takes | {"provider", "source_duration"})
        named = {each: [name for name in FIELDS if self.wire_name in formats_taking(name, each)] for each in Operation}
        return {each: frozenset(names) for each, names in named.items()}

    @functools.cached_property
    def limits(self) -> Mapping[tuple[Operation, str], Sequence[_Limit]]:
        """The limits of texts by operation and model; those of an unknown model have the key `""`."""
        found: dict[tuple[Operation, str], list[_Limit]] = {}
        for operation, model in itertools.product(Operation, ("", *EXTEND_LIMITS)):
            is_extend = operation is not ADD_INSTRUMENTAL
            by_model = EXTEND_LIMITS.get(model, {}) if is_extend and self.is_engine else {}
            found[operation, model] = [
                *((name, longest, f" with {model}", model in self.stated) for name, longest in by_model.items()),
                *(
                    (name, longest, "", name in self.stated_lengths)
                    for name, longest in self.lengths.get(operation, {}).items()
                    # docs.sunoapi.org/suno-api/add-instrumental (V6 copy): lyrics, only with V6
                    if name != "lyrics" or is_extend or model in V6_MODELS
                ),
            ]
        return found


def field_problems(request: Request, rules: FieldRules) -> tuple[Problem, ...]:
    """Return the problems of *request*, which may be an unchecked draft, and advice, or raise UnsupportedError."""
    operation = request.operation
    if operation not in rules.operations:
        words, names = _COLUMNS[operation], _listed(formats_taking("provider", operation))
        message = f"{rules.wire_name} has no call for {words}; {names} have it"
        if operation is EXTEND:
            message += "; here use `track.extend()`, or `url=` with the track's audio URL"
        raise UnsupportedError(message)
    given, taken = request.given(), rules.taken[operation]
    found: list[Problem] = []
    if not given.keys() <= taken:
        found += [_unsupported(name, operation, rules) for name in given if name not in taken]
        given = {name: value for name, value in given.items() if name in taken}  # the others excuse and forbid nothing
    model = request.model if isinstance(request.model, str) else ""
    for name, longest, where, is_stated in rules.limits.get((operation, model)) or rules.limits[operation, ""]:
        text = given.get(name)
        if isinstance(text, str) and len(text) > longest:
            reported = f"is reported to be refused beyond {longest} characters{where}; it has {len(text)}"
            stated = f"must be at most {longest} characters{where}, not {len(text)}"
            found.append(Problem(name, stated if is_stated else reported, advice=not is_stated))
    if rules.is_engine:
        found += _engine(given, operation, rules)
    if isinstance(request, Extend):
        found += _extend(request, given, rules)
    return tuple(found)


def _unsupported(name: str, operation: Operation, rules: FieldRules) -> Problem:
    names = formats_taking(name, operation)
    rest = f"{_listed(names)} {'does' if len(names) == 1 else 'do'}"
    if not names:
        rest = f"no provider does when {_COLUMNS[operation]}"
    return Problem(name, f"{rules.wire_name} does not take it; {rest}")


def _engine(given: _Given, operation: Operation, rules: FieldRules) -> Iterator[Problem]:
    if given.get("vocal_gender") == "neutral":
        yield Problem("vocal_gender", f"{rules.wire_name} takes m or f; neutral exists only at musicgpt")
    url, model, seconds = given.get("url"), given.get("model"), given.get("source_duration")
    if isinstance(url, str) and url.lower().startswith("s3:"):
        yield Problem("url", f"must be an http(s) URL at {rules.wire_name}; musicgpt takes s3:// as well")
    listed = rules.instrumental_models if operation is ADD_INSTRUMENTAL else rules.models
    if isinstance(model, str) and model not in listed:
        yield from _unlisted(model, rules)
    if operation is ADD_INSTRUMENTAL:
        named = DEFAULT_INSTRUMENTAL_MODEL if model is None else model
        is_older = isinstance(named, str) and named in CLASSIC_MODELS
        if rules.v6_lyrics and "lyrics" in given and is_older:
            yield Problem("lyrics", f"is stated for V6, V6_MINI and V6_WILD only; {named} may not sing it", advice=True)
        return
    if model is None:
        yield Problem("model", f"is required to extend at {rules.wire_name}")
    if given.get("instrumental") is True:
        yield from _instrumental_clashes(given, operation, rules)
    if operation is UPLOAD_EXTEND and seconds is not None:
        named = model if isinstance(model, str) else ""
        longest = SHORT_UPLOADS.get(named, MAX_UPLOAD_SECONDS)
        if checks.is_number(seconds, above=longest):
            where = f" with {cut(named)}" if model else ""
            yield Problem("source_duration", f"may be at most {longest:g} s{where}, not {seconds:g} s")


def _unlisted(model: str, rules: FieldRules) -> Iterator[Problem]:
    """Refuse a misspelt known model, such as v5.5 for V5_5, and advise on an unlisted one; unknown models pass."""
    if model in EXTEND_LIMITS:
        yield Problem("model", f"{rules.wire_name} does not list {model} for this operation", advice=True)
        return
    # A name with other digits is another model, not a slip.
    plain, digits = _plain(model), [*filter(str.isdigit, model[:LONGEST_MODEL])]
    known = {_plain(name): name for name in EXTEND_LIMITS if digits == [*filter(str.isdigit, name)]}
    near = get_close_matches(plain, known, n=1, cutoff=LEAST_LIKENESS)
    if near:
        yield Problem("model", f"there is no {shown(model)}; did you mean {known[near[0]]}?")


def _plain(model: str) -> str:
    """Return the letters and digits of a model's name in upper case, with a leading V instead of the engine's name."""
    plain = "".join(filter(str.isalnum, model[:LONGEST_MODEL].upper().replace("+", "PLUS"))).removeprefix("SUNO")
    return plain if plain.startswith("V") else f"V{plain}"


def _extend(request: Extend, given: _Given, rules: FieldRules) -> Iterator[Problem]:
    uploaded = request.audio_id is None
    needs_continue_at = uploaded and rules.upload_needs_continue_at
    if needs_continue_at and "continue_at" not in given:
        yield Problem("continue_at", f"{rules.wire_name} always needs it to extend uploaded audio")
    if not rules.has_custom_mode:
        return
    # defaultParamFlag true: docs.kie.ai/suno-api/extend-music and upload-and-extend-audio, read 2026-11-21
    if not request.is_custom:
        if "persona_id" in given and rules.persona_needs_custom:
            asking = "prompt, style, title and continue_at"
            yield Problem("persona_id", f"works only in custom mode at {rules.wire_name}: give {asking} as well")
        return
    for name in CUSTOM_FIELDS:
        if name in given or (name == "prompt" and given.get("instrumental") is True):
            continue
        if name == "continue_at" and needs_continue_at:
            continue  # reported above
        cause = " and ".join(request.custom_fields) or "custom=True"
        # For this case, kie.ai's page says both that the prompt is optional and that it is required.
        is_doubtful = name == "prompt" and uploaded and rules.upload_may_lack_prompt
        must = "may be" if is_doubtful else "is"
        message = f"{must} required in custom mode, which {cause} switched on (`custom=False` inherits from the source)"
        yield Problem(name, message, advice=is_doubtful)


def _instrumental_clashes(given: _Given, operation: Operation, rules: FieldRules) -> Iterator[Problem]:
    # kie.ai's OpenAPI of 2026-08-19 calls prompt and vocalGender prohibited, and its own example sends both. Readers of
    # the jobs pages in 2026-10 name the others. We refuse only `prompt` by id; the rest is advice.
    refused = operation is EXTEND and rules.has_custom_mode
    if refused and "prompt" in given:
        yield Problem("prompt", "must be left out when instrumental is True: there is nothing to sing")
    for name in ("vocal_gender",) if rules.has_custom_mode else ("prompt", "lyrics", "vocal_gender", "audio_weight"):
        if name in given:
            yield Problem(name, "is reported to clash with instrumental=True", advice=True)


def _listed(names: frozenset[str]) -> str:
    ordered = [name for name in NAMES if name in names]
    return " and ".join((", ".join(ordered[:-1]), ordered[-1])) if len(ordered) > 1 else "".join(ordered)


# --- wire names and values -------------------------------------------------------------------------------------------

_WEIGHTS = frozenset({"style_weight", "weirdness_constraint", "audio_weight"})
_LETTERS = {"male": "m", "female": "f"}
_WORDS = {letter: word for word, letter in _LETTERS.items()}


def wire_names(spell: Callable[[str], str] = str, **other: str) -> dict[str, str]:
    """Return the wire name of each field that is sent: its entry in *other*, else what *spell* makes of its name."""
    return {name: other.get(name) or spell(name) for name in FIELDS if name not in LOCAL_FIELDS}


def wire_values(
    request: Request, models: Mapping[Operation, str], *, names: Mapping[str, str], rules: FieldRules
) -> dict[str, object]:
    """Return the given fields by their wire *names*; *models* has the model of an operation if none is given."""
    values: dict[str, object] = {}
    for name, value in request.given().items():
        wire = names.get(name)
        if wire is None:
            continue
        if name == "vocal_gender":  # the engine takes letters, MusicGPT words
            value = (_LETTERS if rules.is_engine else _WORDS).get(str(value), value)  # noqa: PLW2901 - its wire value
        elif name in _WEIGHTS and isinstance(value, float):
            value = round(value, 2)  # noqa: PLW2901 - APIs take steps of 0.01, and 0.1 + 0.2 is slightly off
        elif type(value) is int and abs(value) > EXACT_FLOAT:
            value = float(value)  # noqa: PLW2901 - servers may fail on an integer beyond 64 bits
        values[wire] = value
    operation = request.operation
    if request.model is None and operation in models:
        values[names["model"]] = models[operation]
    if rules.upload_needs_instrumental and operation is UPLOAD_EXTEND:
        values.setdefault(names["instrumental"], False)
    return values
