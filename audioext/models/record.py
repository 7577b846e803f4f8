"""The frozen state of one job, which is all that a store holds of it, and its stored form."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

import orjson
from attrs import field, frozen
from cattrs import BaseValidationError, Converter
from cattrs.fns import identity

from audioext.errors import StoreError
from audioext.models.requests import AddInstrumental, Extend, Operation, Request
from audioext.models.results import FailureReason, Source, Stage, TimedLine, Track

SCHEMA_VERSION = 1

Seen = Literal["answer", "webhook", "poll"]
"""Where a fact came from: the submit's own answer, a delivery, or a status call."""


class Verdict(enum.IntEnum):
    """Whether a job has ended, and how; it only ever rises."""

    OPEN = 0
    EXPIRED = 1
    FAILED = 2
    COMPLETE = 3


@frozen(kw_only=True)
class Sighting:
    """What one source showed of one take while it claimed one stage; `at` is when it was first seen."""

    track: Track
    claimed: Stage | None
    seen: Seen
    at: float


@frozen(kw_only=True)
class Claim:
    """A source named a stage; `at` is when it first did."""

    stage: Stage
    seen: Seen
    at: float


@frozen(kw_only=True)
class Fault:
    """A task's own failure, as one source told it; `at` is when it first did."""

    reason: FailureReason
    code: str | None
    message: str
    charged: bool | None
    seen: Seen
    at: float


@frozen(kw_only=True)
class Reached:
    """When a stage was reached and how that became known."""

    stage: Stage
    source: Source
    at: float


@frozen(kw_only=True)
class Complaint:
    """A status call that was refused or could not be read; it says nothing of the task."""

    text: str
    at: float


@frozen(kw_only=True)
class Record:
    """The state of one job. All times are Unix seconds.

    The first group is fixed when the job is made. The second holds facts, each a join: a set or a maximum,
    so order and repetition cannot matter. The third is derived from the facts by `stages`, and kept beside
    them so that a reader needs no rules.
    """

    ref: str
    provider: str
    request: Request
    created_at: float
    model: str | None = None
    key: str | None = None
    meta: Mapping[str, object] = field(factory=dict)
    expected_tracks: int = 2
    counts_takes: bool = False
    extends_by_id: bool = True
    retention: float | None = None
    webhooks: bool = True
    grace: float = 900.0

    answered_id: str | None = None
    called_id: str | None = None
    submitted: Reached | None = None
    take_ids: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    fault: Fault | None = None
    cover_url: str | None = None
    credits: float | None = None
    credit_estimate: float | None = None
    eta: float | None = None
    words: tuple[str, ...] = ()
    expired_at: float | None = None
    complaint: Complaint | None = None
    handler_faults: tuple[str, ...] = ()

    stage: Stage | None = None
    verdict: Verdict = Verdict.OPEN
    reached: tuple[Reached, ...] = ()
    tracks: tuple[Track, ...] = ()

    @property
    def task_id(self) -> str | None:
        """The provider's id: what the POST's answer said, else what the first webhook named."""
        return self.answered_id if self.answered_id is not None else self.called_id

    @property
    def operation(self) -> Operation:
        """What the task does."""
        return self.request.operation

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; it may still rise from expired or failed to complete."""
        return self.verdict is not Verdict.OPEN

    @property
    def unknown_at(self) -> float:
        """When the submit's outcome counts as unknown, if no task id is known by then."""
        return self.created_at + self.grace


class Facts(TypedDict, total=False):
    """The second group of a record's fields: what a join may change."""

    answered_id: str | None
    called_id: str | None
    submitted: Reached | None
    take_ids: tuple[str, ...]
    claims: tuple[Claim, ...]
    sightings: tuple[Sighting, ...]
    fault: Fault | None
    cover_url: str | None
    credits: float | None
    credit_estimate: float | None
    eta: float | None
    words: tuple[str, ...]
    expired_at: float | None


def dump(record: Record) -> bytes:
    """Return the stored form of *record*: JSON with its schema version. What is `None` or empty is left out."""
    return orjson.dumps({"v": SCHEMA_VERSION, **_CONVERTER.unstructure(record)})


def load(data: bytes) -> Record:
    """Return the record that `dump` stored.

    Raises:
        StoreError: it is not a record, or of a schema version that this release does not know.
    """
    try:
        value = orjson.loads(data)
        version = value.pop("v")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        message = "the store holds something that is not a record; was it written by another program?"
        raise StoreError(message) from error
    if version != SCHEMA_VERSION:
        message = f"the record has schema version {version}, this release reads {SCHEMA_VERSION}: update audioext"
        raise StoreError(message)
    try:
        return _CONVERTER.structure(value, Record)
    except (BaseValidationError, ValueError, TypeError, KeyError) as error:
        message = f"the store holds a damaged record: {error}"
        raise StoreError(message) from error


def _record_converter() -> Converter:
    converter = Converter(omit_if_default=True, prefer_attrib_converters=False)
    # orjson writes these as they are, enums as their values; cattrs would look at each by itself
    for plain in (str | None, float | None, int | None, bool | None, Stage, Stage | None, Verdict):
        converter.register_unstructure_hook(plain, identity)
    converter.register_unstructure_hook(datetime, datetime.timestamp)
    converter.register_unstructure_hook(datetime | None, lambda moment: None if moment is None else moment.timestamp())
    converter.register_structure_hook(datetime, _load_time)
    for type_ in (str, float, Stage):
        converter.register_structure_hook(type_ | None, _optional(type_))
    converter.register_unstructure_hook(TimedLine, lambda line: (line.text, line.start, line.end))
    converter.register_structure_hook(TimedLine, lambda value, _: TimedLine(*value))
    converter.register_unstructure_hook(Request, _dump_request)
    converter.register_structure_hook(Request, lambda value, _: _load_request(value))
    # meta is the user's own JSON and is kept as it is
    converter.register_structure_hook_func(lambda type_: type_ == Mapping[str, object], lambda value, _: value)
    return converter


def _load_time(value: float, _: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # both times of a track are optional, and no time is worth a record


def _optional(type_: Callable[[Any], object]) -> Callable[[object, object], object]:
    # What cattrs does as well, by one call in place of four.
    return lambda value, _: None if value is None else type_(value)


def _dump_request(request: Request) -> dict[str, object]:
    fields = request.given()
    if request.file is not None:
        fields["file"] = str(request.file)
    return {"operation": str(request.operation), **fields}


def _load_request(stored: dict[str, object]) -> Request:
    # A stored request was valid when it was made; a later release's stricter rules must not lose its job.
    fields = {name: value for name, value in stored.items() if name != "operation"}
    if stored["operation"] == Operation.ADD_INSTRUMENTAL:
        return AddInstrumental.draft(**fields)
    return Extend.draft(**fields)


_CONVERTER = _record_converter()
