"""The values of the sandbox: facts of an API, tasks with their inputs and tracks, submits and webhook attempts."""

from __future__ import annotations

import asyncio
import enum
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from attrs import Factory, define, evolve, field, frozen

from audioext.sandbox.faults import FaultKind, Plan


class Cause(enum.Enum):
    """Why an API refuses: an HTTP status, which is used unless the API has a code of its own, or a word."""

    KEY = 401
    CREDITS = 402
    PATH = 404
    METHOD = 405
    TOO_BIG = 413
    RATE = 429
    MISSING = "missing"
    INVALID = "invalid"
    LENGTH = "length"
    TRACK = "track"
    TASK = "task"
    SOURCE = "source"
    FORMAT = "format"


@define(eq=False)
class Refusal(Exception):  # noqa: N818 - it is an answer of the API, not an error of the sandbox
    """A refusal, before it is put into the API's own form; `names` are the wrong fields, in the API's spelling."""

    cause: Cause
    message: str
    names: Sequence[str] = ()

    def __str__(self) -> str:
        """Return the message alone."""
        return self.message


def new_uuid(dice: random.Random) -> str:
    """Return a random UUID, the form of track ids."""
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


@frozen(kw_only=True)
class TaskFailure:
    """How a task failed, in its API's words, and whether its source was to blame."""

    code: int
    message: str
    by_source: bool = False


@frozen(kw_only=True)
class ApiFacts:
    """One API's codes, limits and behaviour.

    `codes` has the codes of refusals that differ from HTTP's, `usual_code` is that of causes without a status;
    `statuses` has the HTTP statuses of codes that are not sent with 200. `usual_failure` is the code and text of a task
    that a fault fails. `limit`: whether submits in a time window or open tasks are limited. `fetches_first`: the source
    is fetched before the submit is answered. A webhook's reply may take `timeout_seconds` (real ones); `retry_seconds`
    are the waits before each retry (the API's). `wants_exactly_200`: another 2xx counts as failed. `sign` returns the
    headers that sign a webhook, from a key, the task's id and the body. `any_leads`: any track may be ready first.
    `is_recorded`: there are recordings that differ from the pages.
    """

    provider: str
    codes: Mapping[Cause, int] = field(factory=dict)
    usual_code: int
    statuses: Mapping[int, int] = field(factory=dict)
    usual_failure: tuple[int, str]
    key_prefix: str = "Bearer "
    limit: Literal["window", "parallel"] | None = None
    fetches_first: bool = False
    timeout_seconds: float
    retry_seconds: tuple[float, ...]
    wants_exactly_200: bool = False
    sign: Callable[[str, str, bytes], Mapping[str, str]] | None = None
    is_recorded: bool = False
    any_leads: bool = False
    new_id: Callable[[random.Random], str] = lambda dice: f"{dice.getrandbits(128):032x}"
    """Creates a task id: 32 hex digits at the Suno family, as seen live. Track ids are UUIDs everywhere."""

    def code(self, cause: Cause) -> int:
        """Return the code of a refusal."""
        return self.codes.get(cause, cause.value if isinstance(cause.value, int) else self.usual_code)

    def failure(self, code: int | None) -> TaskFailure:
        """Return the failure of a task that a fault fails, with this code or the usual one."""
        usual, message = self.usual_failure
        if code is None:
            return TaskFailure(code=usual, message=message)
        # In the message as well: some APIs have no field for it.
        return TaskFailure(code=code, message=f"{message} ({code})")


class TaskStage(enum.IntEnum):
    """How far a task has come."""

    TEXT = 1
    FIRST = 2
    COMPLETE = 3

    @property
    def word(self) -> str:
        """The stage's name in webhooks and faults."""
        return self.name.lower()

    @classmethod
    def named(cls, *words: str) -> Sequence[TaskStage]:
        """Return the stages of these words, without words all stages; raises ValueError for an unknown word."""
        by_word = {stage.word: stage for stage in cls}
        if unknown := [word for word in words if word not in by_word]:
            raise ValueError(f"{unknown[0]!r} is not a stage; the stages are {', '.join(by_word)}")
        return [by_word[word] for word in words or by_word]


@frozen(kw_only=True)
class MadeTrack:
    """One recording of a task: an MP3 at `url`, with a stream, a WAV and a cover beside it."""

    id: str
    url: str
    seconds: float

    @property
    def stream_url(self) -> str:
        """The stream's URL, which has no suffix, as at the real APIs."""
        return self.url.removesuffix(".mp3")

    @property
    def wav_url(self) -> str:
        """The URL of the recording as WAV."""
        return f"{self.stream_url}.wav"

    @property
    def cover_url(self) -> str:
        """The URL of the cover picture."""
        return f"{self.stream_url}.png"


@frozen(kw_only=True)
class TaskInput:
    """A submit that the API accepted. The source is one of `audio_id`, `url` and `file_key`; times are in seconds.

    `clamps`: a point beyond the source's end means its end. `keeps_model`: a track can only be extended with the model
    that made it. `recovers` are the tracks of another task, whose files this task recovers.
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
    keeps_model: bool = False
    recovers: tuple[MadeTrack, ...] = ()

    @property
    def name(self) -> str:
        """The text that a fault's title pattern is matched against."""
        return self.title or self.prompt

    def inherit(self, source: TaskInput) -> TaskInput:
        """Take omitted fields from the source's submit: "other parameters will be inherited" (extend-music)."""
        return evolve(
            self, title=self.title or source.title, prompt=self.prompt or source.prompt, tags=self.tags or source.tags
        )


@frozen(kw_only=True)
class Callback:
    """One webhook to send: its body, and the words by which a fault can name it."""

    words: tuple[str, ...]
    body: Mapping[str, object]


@define(kw_only=True, eq=False)
class Task:
    """One task and its state.

    `leader` is the index of the track that is ready first; `answered` is set once the submit is answered. `callbacks`
    returns the webhooks that are due at the task's stage, or for its failure.
    """

    id: str
    track_ids: tuple[str, ...]
    leader: int = 0
    number: int
    facts: ApiFacts = field(repr=False)
    callbacks: Callable[..., Sequence[Callback]] = field(repr=False)
    input: TaskInput
    plan: Plan
    source: str | None
    """The key of its source file, once that is known."""
    created: datetime = field(factory=lambda: datetime.now(UTC))
    tracks: tuple[MadeTrack, ...] = ()
    stage: TaskStage | None = None
    failure: TaskFailure | None = None
    reached: dict[str, datetime] = field(default=Factory(lambda self: {"submitted": self.created}, takes_self=True))
    """When it reached each of its stages, or failed."""
    answered: asyncio.Event = field(factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None

    @property
    def provider(self) -> str:
        """The API's name, as in the sandbox's `bases`."""
        return self.facts.provider

    @property
    def updated(self) -> datetime:
        """When the task last changed."""
        return next(reversed(self.reached.values()))

    @property
    def is_open(self) -> bool:
        """Whether the task still runs."""
        return self.failure is None and self.stage is not TaskStage.COMPLETE

    @property
    def is_complete(self) -> bool:
        """Whether all tracks are ready."""
        return self.stage is TaskStage.COMPLETE

    @property
    def callback_exception(self) -> str | None:
        """With a fault, `with` or `without`: the status call says CALLBACK_EXCEPTION, with tracks or without."""
        fault = self.plan.get(FaultKind.CALLBACK_EXCEPTION) if self.is_complete else None
        return None if fault is None else fault.variant or "with"

    def stage_of(self, index: int) -> TaskStage:
        """Return the stage at which the track at this index has its audio file."""
        leads = index == self.leader and len(self.track_ids) > 1
        return TaskStage.FIRST if leads else TaskStage.COMPLETE

    def has_audio(self, index: int) -> bool:
        """Return whether the track at this index has its audio file."""
        return self.stage is not None and self.stage >= self.stage_of(index)


@define(kw_only=True)
class Submission:
    """One submit POST, and the API's answer."""

    provider: str
    operation: str
    at: datetime = field(factory=lambda: datetime.now(UTC))
    fields: Mapping[str, object] = Factory(dict[str, object])
    callback_url: str | None = None
    task_id: str | None = None
    http_status: int | None = None
    """None while it is not answered, and if the connection was cut instead."""
    code: int | None = None
    """The code in the API's own envelope."""


@define(kw_only=True)
class CallbackAttempt:
    """One attempt to send one webhook."""

    provider: str
    task_id: str
    stage: str
    attempt: int
    url: str
    body: Mapping[str, object] = field(repr=False)
    at: datetime = field(factory=lambda: datetime.now(UTC))
    status: int | None = None
    """The reply's status, or None with `error` if there was no reply."""
    error: str | None = None
