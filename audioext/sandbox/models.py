"""The values of the sandbox: tasks, what they start from and make, and what came and went."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from attrs import Factory, define, evolve, field, frozen

from audioext.sandbox.facts import ApiFacts, TaskFailure
from audioext.sandbox.faults import FaultKind, Plan


class TaskStage(enum.IntEnum):
    """How far a task has come."""

    TEXT = 1
    FIRST = 2
    COMPLETE = 3

    @property
    def word(self) -> str:
        """The stage as webhooks and faults name it."""
        return self.name.lower()

    @classmethod
    def named(cls, *words: str) -> Sequence[TaskStage]:
        """Return the stages of these words, all of them without one; raises ValueError: one is no stage."""
        by_word = {stage.word: stage for stage in cls}
        if unknown := [word for word in words if word not in by_word]:
            raise ValueError(f"{unknown[0]!r} is no stage; the stages are {', '.join(by_word)}")
        return [by_word[word] for word in words or by_word]


@frozen(kw_only=True)
class SourceAudio:
    """Audio that a task starts from: a file in the sandbox, its length, and what its own task said of it."""

    key: str
    seconds: float
    model: str | None = None
    title: str = ""
    prompt: str = ""
    tags: str = ""


@frozen(kw_only=True)
class MadeTrack:
    """One recording that a task makes."""

    id: str
    url: str
    wav_url: str
    stream_url: str
    cover_url: str
    seconds: float


@frozen(kw_only=True)
class TaskInput:
    """A submit that the API accepts. The source is one of `audio_id`, `url` and `file_key`; times are in seconds.

    `clamps` says that a point beyond the source's end means its end. `recovers` are the tracks of another task, whose
    files this one brings back.
    """

    operation: str
    fields: Mapping[str, object]
    is_instrumental: bool = False
    audio_id: str | None = None
    url: str | None = None
    file_key: str | None = None
    continue_at: float | None = None
    title: str = ""
    prompt: str = ""
    tags: str = ""
    model: str | None = None
    outputs: int = 2
    callback_url: str | None = None
    longest_seconds: float | None = None
    clamps: bool = False
    recovers: tuple[MadeTrack, ...] = ()

    @property
    def name(self) -> str:
        """What a fault's title pattern is held against."""
        return self.title or self.prompt

    def inherit(self, source: SourceAudio) -> TaskInput:
        """Take from the source what was left out: "other parameters will be inherited" (extend-music)."""
        return evolve(
            self, title=self.title or source.title, prompt=self.prompt or source.prompt, tags=self.tags or source.tags
        )


@frozen(kw_only=True)
class NewIds:
    """The ids of a new task and of its tracks, and which of them will be ready first."""

    task_id: str
    track_ids: tuple[str, ...]
    leader: int = 0


@frozen(kw_only=True)
class Callback:
    """One webhook to be sent: its body, and the words by which a fault can name it."""

    words: tuple[str, ...]
    body: Mapping[str, object]


class TaskApi(Protocol):
    """What a task has to know of its API."""

    facts: ApiFacts

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the webhooks that are due now that the task has reached its stage, or has failed."""
        ...


@define(kw_only=True, eq=False)
class Task:
    """One task and what has become of it; `answered` is set once the submit is."""

    ids: NewIds
    number: int
    api: TaskApi = field(repr=False)
    input: TaskInput
    plan: Plan
    source: SourceAudio | None
    created: datetime = field(factory=lambda: datetime.now(UTC))
    tracks: tuple[MadeTrack, ...] = ()
    stage: TaskStage | None = None
    failure: TaskFailure | None = None
    updated: datetime = field(default=Factory(lambda self: self.created, takes_self=True))
    answered: asyncio.Event = field(factory=asyncio.Event)
    life: asyncio.Task[None] | None = None

    @property
    def provider(self) -> str:
        """Its API's name, as in the sandbox's bases."""
        return self.api.facts.provider

    @property
    def id(self) -> str:
        """The task's id at its API."""
        return self.ids.task_id

    @property
    def is_open(self) -> bool:
        """Whether the task still runs."""
        return self.failure is None and self.stage is not TaskStage.COMPLETE

    @property
    def is_complete(self) -> bool:
        """Whether all tracks are there."""
        return self.failure is None and self.stage is TaskStage.COMPLETE

    @property
    def shows_callback_exception(self) -> bool:
        """Whether a status call says CALLBACK_EXCEPTION: only when a fault asks for it."""
        return self.is_complete and self.plan.has(FaultKind.CALLBACK_EXCEPTION)

    @property
    def shows_tracks(self) -> bool:
        """Whether a status call lists the tracks of a complete task."""
        fault = self.plan.get(FaultKind.CALLBACK_EXCEPTION)
        return not (self.is_complete and fault is not None and fault.variant == "without")

    def has_audio(self, index: int) -> bool:
        """Tell whether the track at this place has its audio file."""
        leads = index == self.ids.leader and len(self.ids.track_ids) > 1
        return self.stage is TaskStage.COMPLETE or (self.stage is TaskStage.FIRST and leads)


@define(kw_only=True)
class Submission:
    """One submit POST, as the API saw it and as it answered."""

    provider: str
    operation: str
    at: datetime
    fields: Mapping[str, object] = Factory(dict[str, object])
    ignored: tuple[str, ...] = ()
    """Fields that the API does not know and therefore ignores."""
    callback_url: str | None = None
    task_id: str | None = None
    http_status: int | None = None
    """None while it is not answered, and when the connection was cut instead."""
    code: int | None = None
    """The code in the API's own envelope."""


@frozen(kw_only=True)
class CallbackAttempt:
    """One attempt to send one webhook."""

    provider: str
    task_id: str
    stage: str
    attempt: int
    url: str
    at: datetime
    status: int | None
    """The reply's status, or None with `error` when there was no reply."""
    error: str | None
    body: Mapping[str, object] = field(repr=False)
