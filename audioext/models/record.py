"""The `Record` of a job, the frozen value that its journal folds to, and its parts."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from copy import deepcopy
from typing import Literal

import msgspec
from attrs import field, frozen
from msgspec import Struct

from audioext.models.events import Failed, Submitted, Unknown
from audioext.models.requests import Operation, Request
from audioext.models.results import Source, Stage, Track

Seen = Literal["answer", "webhook", "poll"]
"""Where something was seen: in the answer to the submit, in a webhook, or in the answer to a status call."""


class Verdict(enum.IntEnum):
    """Whether a job has ended, and how. A verdict may still rise, as from failed to complete."""

    OPEN = 0
    REFUSED = 1
    """The submit was refused, or never sent: there is no task, and nothing was charged."""
    EXPIRED = 2
    FAILED = 3
    COMPLETE = 4

    def __str__(self) -> str:
        """Return the name in lower case, not the number."""
        return self.name.lower()


@frozen(kw_only=True)
class Asked:
    """A job's request, and the settings that its journal is folded with. Times are in seconds.

    `content` is a digest of the source file, if there is a key: a later submit with the key has to match it.
    `base_url` is the API that the job was submitted to. `traceparent` is the span of the submit, if tracing is on.
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
    """One track as one webhook or answer showed it, with the stage that was claimed; `at` is when it was first seen.

    `position` is the track's place in the list, from 1, or 0 if the track was shown alone.
    """

    track: Track
    claimed: Stage | None
    seen: Seen
    at: float
    position: int = 0


class Reached(Struct, frozen=True, gc=False):
    """When a stage was reached and how that became known."""

    stage: Stage
    source: Source
    at: float


@frozen(kw_only=True)
class Run:
    """The calls of one handler for one topic so far: how often it failed, its last error, and when it last ran.

    `wait` is the delay (seconds) that it asked for in its last call, `waits` how often it asked for one; `calls` counts
    both, and is 0 in a journal that does not number them.
    """

    failures: int = 0
    last_at: float = 0.0
    error: str = ""
    is_done: bool = False
    wait: float = 0.0
    waits: int = 0
    calls: int = 0


@frozen(kw_only=True)
class Recovery:
    """The latest request to a vendor to restore the files of a job. Times are Unix seconds.

    `attempt` counts recoveries from 1. `task_id` is the recovery's own. `verdict` is OPEN while it runs, REFUSED if the
    POST made no task, and FAILED if no file came back; `problem` says why. An open recovery without a `task_id` may
    have a `problem` with its POST. `tracks` are the restored ones, in the order of the job's.
    """

    attempt: int
    begun_at: float
    ended_at: float = 0.0
    task_id: str | None = None
    verdict: Verdict = Verdict.OPEN
    tracks: tuple[Track, ...] = ()
    problem: str | None = None


class Record(Struct, frozen=True, kw_only=True):
    """The state of one job. All times are Unix seconds.

    `seen_at` is when the provider last sent an answer or a webhook, `ended_at` when the entry that proves the verdict
    was seen. `answer` is the submit's answer, or `None` if it was a refusal; `refusal` is why it was refused or unsent.
    `tracks` are the tracks known now, in order, merged from `sightings`. `fault` is why the job failed, `None` if it
    did not, or has risen to complete since. `asks_at` is when a webhook last raised a question that only a status call
    can answer, `None` if no question is open. `doubted_at` is when an end was first reported that counts only once a
    status call repeats it; a status call that reports progress clears it. `complaint` is the error of the latest
    status call that failed or could not be decoded.
    `recovery` is the latest recovery of its files. `handled` names the topics (stages in lower case, and `failed`) that
    all handlers are done with; `runs` has the calls of each handler, by topic and name. `unhandled` are the topics
    handlers still have to be called for, in that order: `failed` after all earlier stages, and before a late COMPLETE.
    """

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
    sightings: tuple[Sighting, ...] = ()
    asks_at: float | None = None
    doubted_at: float | None = None
    cover_url: str | None = None
    credits: float | None = None
    words: tuple[str, ...] = ()
    fault: Failed | None = None
    refusal: str | None = None
    is_unsent: bool = False
    complaint: str | None = None
    recovery: Recovery | None = None
    handled: frozenset[str] = frozenset()
    runs: Mapping[tuple[str, str], Run] = msgspec.field(default_factory=dict)
    unhandled: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show all but the sightings, which repeat the tracks."""
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "sightings")
        return f"Record({', '.join(shown)})"

    @property
    def provider(self) -> str:
        """The name of the provider that does the work."""
        return self.asked.provider

    @property
    def request(self) -> Request:
        """The request that was submitted."""
        return self.asked.request

    @property
    def operation(self) -> Operation:
        """The kind of task that was submitted."""
        return self.asked.request.operation

    @property
    def model(self) -> str | None:
        """The model that was submitted."""
        return self.asked.model

    @property
    def key(self) -> str | None:
        """The key that the user gave the submit."""
        return self.asked.key

    @property
    def meta(self) -> Mapping[str, object]:
        """A copy of the metadata that was given to the submit, so that a handler that changes it affects no other."""
        return deepcopy(self.asked.meta)

    @property
    def expected_tracks(self) -> int:
        """How many tracks were asked for."""
        return self.asked.expected_tracks

    @property
    def webhooks(self) -> bool:
        """Whether the provider was given a callback URL."""
        return self.asked.webhooks

    @property
    def grace(self) -> float:
        """How long (seconds) to wait for a sign of the task before an unanswered submit counts as unknown."""
        return self.asked.grace

    @property
    def track_ids(self) -> tuple[str, ...]:
        """The ids of its tracks, in order, if the submit's answer named them."""
        return self.answer.track_ids if isinstance(self.answer, Submitted) else ()

    @property
    def failed_tracks(self) -> tuple[Track, ...]:
        """The tracks that could not be made; the `failure` of each says why, in the provider's words."""
        return tuple([track for track in self.tracks if track.failure is not None])

    @property
    def losses(self) -> str:
        """How many of the tracks could not be made, as "1 of 2"; "" if none failed."""
        failed = len(self.failed_tracks)
        return f"{failed} of {max(self.expected_tracks, len(self.tracks))}" if failed else ""

    @property
    def eta(self) -> float | None:
        """How long (seconds) the task takes, as the submit's answer estimated."""
        return self.answer.eta if isinstance(self.answer, Submitted) else None

    @property
    def credit_estimate(self) -> float | None:
        """What the task costs, as the submit's answer estimated, in the provider's own credits."""
        return self.answer.credit_estimate if isinstance(self.answer, Submitted) else None

    @property
    def answer_problem(self) -> str | None:
        """Why the submit's answer does not show whether a task was made, `None` if it does."""
        return self.answer.reason if isinstance(self.answer, Unknown) else None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended. It may still rise, from expired or failed to complete."""
        return self.verdict is not Verdict.OPEN

    @property
    def unknown_at(self) -> float:
        """When (Unix seconds) the submit's outcome counts as unknown, if no task id is known by then."""
        return self.created_at + self.asked.grace

    @property
    def handler_faults(self) -> tuple[str, ...]:
        """The last errors of the handlers that will not be retried, one line each."""
        return tuple(
            f"{topic}: {run.error}" for (topic, _), run in sorted(self.runs.items()) if run.is_done and run.error
        )
