"""Who has which operation and who takes which request field: the two tables that error messages quote.

A provider's *wire name* is the key here, whatever `name` an account was given. Sources: the vendors' pages
named in each provider's module, read 2026-11-21; third-party witnesses are marked where they stand alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audioext.errors import Problem, RequestError, UnsupportedError
from audioext.models.requests import Operation, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WIRE_NAMES = ("kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt")
"""The five wire formats, in the order in which messages name them."""

_ALL = frozenset(WIRE_NAMES)
_SUNO = _ALL - {"musicgpt"}
_REHOSTING = frozenset({"kie", "kie-jobs", "sunoapi"})
_FLAGGED = frozenset({"kie", "sunoapi", "vidgo"})
_KIE_JOBS = frozenset({"kie-jobs"})
_SUNOAPI = frozenset({"sunoapi"})
_MUSICGPT = frozenset({"musicgpt"})

OPERATIONS: Mapping[Operation, frozenset[str]] = {
    Operation.EXTEND: _SUNO,
    Operation.UPLOAD_EXTEND: _ALL,
    Operation.ADD_INSTRUMENTAL: _SUNO,
}
"""Which wire formats have an operation."""

_OPERATION_WORDS: Mapping[Operation, str] = {
    Operation.EXTEND: "extending by audio_id",
    Operation.UPLOAD_EXTEND: "extending a url or file",
    Operation.ADD_INSTRUMENTAL: "adding an instrumental",
}

# What every operation has: told to us alone, or a matter of how the source gets there.
_EVERYWHERE: Mapping[str, frozenset[str]] = {"provider": _ALL, "source_duration": _ALL}
_UPLOADED: Mapping[str, frozenset[str]] = {
    "url": _ALL,
    "file": _ALL,
    "rehost": _REHOSTING,
}
_WEIGHTS: Mapping[str, frozenset[str]] = {
    "negative_tags": _SUNO,
    "style_weight": _SUNO,
    "weirdness_constraint": _SUNO,
    "audio_weight": _SUNO,
}
_EXTENDING: Mapping[str, frozenset[str]] = {
    **_EVERYWHERE,
    **_WEIGHTS,
    "model": _SUNO,
    "continue_at": _ALL,
    "prompt": _ALL,
    "style": _SUNO,
    # MusicGPT's title, cover and timestamps are on no page; two integrations of 2026 send them.
    "title": _ALL,
    "vocal_gender": _ALL,
    "lyrics": frozenset({"kie-jobs", "musicgpt"}),
    "lyrics_section_to_extend": _MUSICGPT,
    "persona_id": _SUNO,
    "persona_model": _SUNO - {"vidgo"},
    "variety": _KIE_JOBS,
    "num_outputs": _MUSICGPT,
    "generate_album_cover": _MUSICGPT,
    "lyrics_timestamps": _MUSICGPT,
    "custom": _FLAGGED,  # the jobs route and MusicGPT have no switch to set
}

FIELDS: Mapping[Operation, Mapping[str, frozenset[str]]] = {
    # By id, `instrumental` is on no kie.ai page copy that was seen; a reader of the page in 2026-08 adds it.
    Operation.EXTEND: {
        **_EXTENDING,
        "audio_id": _SUNO,
        "instrumental": _SUNO - {"vidgo"},
    },
    Operation.UPLOAD_EXTEND: {**_EXTENDING, **_UPLOADED, "instrumental": _SUNO},
    Operation.ADD_INSTRUMENTAL: {
        **_EVERYWHERE,
        **_UPLOADED,
        **_WEIGHTS,
        "title": _SUNO,
        "tags": _SUNO,
        "model": _SUNO,
        "vocal_gender": _SUNO,
        "lyrics": _SUNOAPI,
        "variety": _SUNOAPI,
    },
}
"""Which wire formats take a field of a request, by operation."""


def operations_of(wire_name: str) -> frozenset[Operation]:
    """Return the operations that the wire format *wire_name* has."""
    return frozenset(operation for operation, names in OPERATIONS.items() if wire_name in names)


def require_operation(request: Request, wire_name: str) -> None:
    """Do nothing if *wire_name* has the operation of *request*.

    Raises:
        UnsupportedError: it has not; the message names those that have.
    """
    names = OPERATIONS[request.operation]
    if wire_name not in names:
        words = _OPERATION_WORDS[request.operation]
        message = f"{wire_name} has no call for {words}; {_listed(names)} {_plural(names, 'has', 'have')} it"
        raise UnsupportedError(message)


def unsupported_fields(request: Request, wire_name: str) -> Iterator[Problem]:
    """Yield a problem for each given field that *wire_name* cannot express; it names who takes the field."""
    table = FIELDS[request.operation]
    for name in request.given():
        takers = table.get(name, frozenset())
        if wire_name in takers:
            continue
        if takers:
            rest = f"{_listed(takers)} {_plural(takers, 'does', 'do')}"
        else:
            rest = f"no provider does when {_OPERATION_WORDS[request.operation]}"
        yield Problem(name, f"{wire_name} does not take it; {rest}")


def refuse_problems(request: Request, found: Iterable[Problem]) -> None:
    """Do nothing if *request* is valid in itself and *found* holds advice alone.

    Raises:
        RequestError: all problems that are not advice, those of the request first.
    """
    problems = [problem for problem in (*request.problems(), *found) if not problem.advice]
    if problems:
        raise RequestError(problems)


def _listed(names: frozenset[str]) -> str:
    ordered = [name for name in WIRE_NAMES if name in names]
    if len(ordered) == 1:
        return ordered[0]
    return f"{', '.join(ordered[:-1])} and {ordered[-1]}"


def _plural(names: frozenset[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several
