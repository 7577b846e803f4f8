"""The frozen state of one job: what its journal folds to."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen
from msgspec import Struct

from audioext.models.events import Submitted, Unknown
from audioext.models.requests import Operation, Request
from audioext.models.results import FailureReason, Source, Stage, Track

Seen = Literal["answer", "webhook", "poll"]
"""Where something was seen: in the submit's own answer, in a delivery, or in a status answer."""


class Verdict(enum.IntEnum):
    """Whether a job has ended, and how; a job may still rise, as from failed to complete."""

    OPEN = 0
    REFUSED = 1
    """The submit was refused, or never left: there is no task, and nothing was charged."""
    EXPIRED = 2
    FAILED = 3
    COMPLETE = 4


@frozen(kw_only=True)
class Asked:
    """What a job began with: the request, and the settings that its journal is read with. Times are in seconds.

    `content` is a digest of what was in its file, where a key may have to tell it from another.
    `base_url` is the API that it was submitted to. `traceparent` is the span of its submit, where somebody traces.
    """

    provider: str
    account: str
    request: Request
    model: str | None = None
    key: str | None = None
    meta: Mapping[str, object] = field(factory=dict)
    expected_tracks: int = 2
    counts_tracks: bool = False
    extends_by_id: bool = True
    retention: float | None = None
    webhooks: bool = True
    grace: float = 900.0
    content: str | None = None
    base_url: str | None = None
    traceparent: str | None = None


class Sighting(Struct, frozen=True):
    """What one answer showed of one track while it claimed one stage; `at` is when it was first seen.

    `position` is the track's place in a list, from 1, 0 where it was shown alone.
    """

    track: Track
    claimed: Stage | None
    seen: Seen
    at: float
    position: int = 0


@frozen(kw_only=True)
class TaskFault:
    """A task's own failure, as it was told; `at` is when it was first seen."""

    reason: FailureReason
    code: str | None
    message: str
    charged: bool | None
    at: float


class Reached(Struct, frozen=True, gc=False):
    """When a stage was reached and how that became known."""

    stage: Stage
    source: Source
    at: float


@frozen(kw_only=True)
class Run:
    """How a handler fared with one topic: how often it failed, its last error and when that was.

    `wait` is how long (seconds) it asked to wait when it was last called, `waits` how often it did.
    """

    failures: int = 0
    last_at: float = 0.0
    error: str = ""
    is_done: bool = False
    wait: float = 0.0
    waits: int = 0


@frozen(kw_only=True)
class Recovery:
    """The last time that a vendor was asked to bring back the files of a job. Times are Unix seconds.

    `attempt` counts them from 1. `task_id` is the recovery's own. `verdict` is OPEN while it is under way, REFUSED
    where nothing came of the POST, FAILED where no file came back, for the reason in `problem`; an open one without a
    `task_id` may have a `problem` with its POST. `tracks` are those that came back, in the order of the job's.
    """

    attempt: int
    begun_at: float
    ended_at: float = 0.0
    task_id: str | None = None
    verdict: Verdict = Verdict.OPEN
    tracks: tuple[Track, ...] = ()
    problem: str | None = None


@frozen(kw_only=True, slots=False)
class Record:
    """The state of one job. All times are Unix seconds.

    `seen_at` is when the provider was last heard of, `ended_at` when what proves the verdict was seen. `answer` is
    what the submit's answer said, unless it refused; then `refusal` is what the vendor said. `tracks` are those known
    now, in order; `sightings` are what they were made of. `fault` is why a failed job failed, `None` for every other,
    also where it rose since. `asks_at` is when a webhook last raised a question that only a status call answers,
    `None` where none is open. `doubted_at` is when the status first told of an end that counts only if it is told
    again. `complaint` is the latest status call that was refused or could not be read. `recovery` is the last one of
    its files. `handled` names the topics (stages in small letters, and `failed`) that all handlers are done with,
    `runs` how each handler fared, by topic and name. `untold` are the topics that handlers are not done with, in the
    order in which they are told: `failed` comes after every stage that a failed job can have, and before a late
    COMPLETE.
    """

    # Up to 29 fields the names of all records are kept once; with more of them a record would take 1.3 kB more.

    ref: str
    asked: Asked
    created_at: float
    seen_at: float = 0.0
    answered_at: float | None = None
    answer: Submitted | Unknown | None = None
    task_id: str | None = None
    stage: Stage | None = None
    verdict: Verdict = Verdict.OPEN
    ended_at: float | None = None
    reached: tuple[Reached, ...] = ()
    tracks: tuple[Track, ...] = ()
    sightings: tuple[Sighting, ...] = field(default=(), repr=False)
    asks_at: float | None = None
    doubted_at: float | None = None
    cover_url: str | None = None
    credits: float | None = None
    words: tuple[str, ...] = ()
    fault: TaskFault | None = None
    refusal: str | None = None
    is_unsent: bool = False
    complaint: str | None = None
    recovery: Recovery | None = None
    handled: frozenset[str] = frozenset()
    runs: Mapping[tuple[str, str], Run] = field(factory=dict)
    untold: tuple[str, ...] = ()

    @property
    def provider(self) -> str:
        """The name of the provider that does the work."""
        return self.asked.provider

    @property
    def request(self) -> Request:
        """What was asked for."""
        return self.asked.request

    @property
    def operation(self) -> Operation:
        """What the task does."""
        return self.asked.request.operation

    @property
    def model(self) -> str | None:
        """The model that the submit named."""
        return self.asked.model

    @property
    def key(self) -> str | None:
        """The user's own key of the submit."""
        return self.asked.key

    @property
    def meta(self) -> Mapping[str, object]:
        """What the submitter noted down."""
        return self.asked.meta

    @property
    def expected_tracks(self) -> int:
        """How many tracks were asked for."""
        return self.asked.expected_tracks

    @property
    def webhooks(self) -> bool:
        """Whether the provider was given an address where it can reach us."""
        return self.asked.webhooks

    @property
    def grace(self) -> float:
        """How long (seconds) a submit without an answer may stay without word."""
        return self.asked.grace

    @property
    def track_ids(self) -> tuple[str, ...]:
        """The ids of its tracks, in order, where the submit's answer named them."""
        return self.answer.track_ids if isinstance(self.answer, Submitted) else ()

    @property
    def eta(self) -> float | None:
        """How long (seconds) it was said to take."""
        return self.answer.eta if isinstance(self.answer, Submitted) else None

    @property
    def credit_estimate(self) -> float | None:
        """What it was said to cost, in the provider's own credits."""
        return self.answer.credit_estimate if isinstance(self.answer, Submitted) else None

    @property
    def answer_problem(self) -> str | None:
        """Why the submit's answer does not tell whether a task was made."""
        return self.answer.reason if isinstance(self.answer, Unknown) else None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; it may still rise from expired or failed to complete."""
        return self.verdict is not Verdict.OPEN

    @property
    def unknown_at(self) -> float:
        """When the submit's outcome counts as unknown, if no task id is known by then."""
        return self.created_at + self.asked.grace

    @property
    def handler_faults(self) -> tuple[str, ...]:
        """The last errors of handlers that were given up, one line each."""
        return tuple(
            f"{topic}: {run.error}" for (topic, _), run in sorted(self.runs.items()) if run.is_done and run.error
        )
