"""The words in which the sandbox thinks of a task, whichever API it was ordered at."""

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import Factory, define, field, frozen

from .faults import FaultKind, Plan

__all__ = [
    "Delivery",
    "Failure",
    "Hook",
    "Ids",
    "Kind",
    "Order",
    "Refusal",
    "Source",
    "Stage",
    "Submission",
    "Take",
    "Task",
    "Trouble",
]


class Stage(enum.IntEnum):
    """How far a task has come."""

    TEXT = 1
    FIRST = 2
    COMPLETE = 3

    @property
    def word(self) -> str:
        """The stage as callbacks and faults name it."""
        return self.name.lower()


class Kind(enum.Enum):
    """What is made from a source."""

    EXTENSION = "extension"
    INSTRUMENTAL = "instrumental"


class Trouble(enum.Enum):
    """Why an API says no. Each API has its own code for each."""

    KEY = "key"
    CREDITS = "credits"
    RATE = "rate"
    PATH = "path"
    METHOD = "method"
    BODY = "body"
    MISSING = "missing"
    INVALID = "invalid"
    LENGTH = "length"
    MODEL = "model"
    TRACK = "track"
    TASK = "task"
    SOURCE = "source"
    FORMAT = "format"
    RANGE = "range"
    TOO_BIG = "too big"


class Refusal(Exception):  # noqa: N818 - it is an answer of the API, not an error of the sandbox
    """An API's no, before it is put into the API's own form."""

    def __init__(self, trouble: Trouble, message: str, *, names: Sequence[str] = ()) -> None:
        """Say why, and which fields (in the API's spelling) are to blame."""
        super().__init__(message)
        self.trouble = trouble
        self.message = message
        self.names = tuple(names)


@frozen
class Failure:
    """How a task failed, in its API's words."""

    code: int
    message: str


@frozen(kw_only=True)
class Source:
    """Audio that a task starts from: a file in the sandbox, its length, and the model that made it."""

    key: str
    seconds: float
    model: str | None = None


@frozen(kw_only=True)
class Order:
    """A submit that the API accepts, in the sandbox's words."""

    operation: str
    kind: Kind
    fields: Mapping[str, object]
    #: Where the source comes from: exactly one of the three.
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

    @property
    def name(self) -> str:
        """What a fault's title pattern is held against."""
        return self.title or self.prompt


@frozen(kw_only=True)
class Ids:
    """The ids of a new task, and which of its takes will be ready first."""

    task_id: str
    take_ids: tuple[str, ...]
    leader: int = 0


@frozen(kw_only=True)
class Take:
    """One recording that a task makes."""

    id: str
    key: str
    url: str
    wav_url: str
    stream_url: str
    cover_url: str
    seconds: float


@frozen(kw_only=True)
class Hook:
    """One webhook to be sent: its body, and the words by which a fault can name it."""

    words: tuple[str, ...]
    body: Mapping[str, object]


@define(kw_only=True, eq=False)
class Task:
    """One task and what has become of it."""

    id: str
    number: int
    provider: str
    order: Order
    plan: Plan
    created: datetime
    take_ids: tuple[str, ...]
    takes: tuple[Take, ...] = ()
    stage: Stage | None = None
    failure: Failure | None = None
    updated: datetime = field(default=Factory(lambda self: self.created, takes_self=True))
    callback_failed: bool = False
    #: Which take is ready first.
    leader: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the task still runs."""
        return self.failure is None and self.stage is not Stage.COMPLETE

    @property
    def shows_callback_exception(self) -> bool:
        """Whether a status call says CALLBACK_EXCEPTION (kie.ai, sunoapi.org: sheet 7)."""
        return self.callback_failed and self.stage is Stage.COMPLETE and self.failure is None

    @property
    def shows_results(self) -> bool:
        """Whether a status call lists the takes of a complete task."""
        fault = self.plan.get(FaultKind.CALLBACK_EXCEPTION)
        return not (self.shows_callback_exception and fault is not None and fault.variant == "without")

    def finished(self, index: int) -> bool:
        """Tell whether the take at this place has its audio file."""
        leads = index == self.leader and len(self.take_ids) > 1
        return self.stage is Stage.COMPLETE or (self.stage is Stage.FIRST and leads)


@define(kw_only=True)
class Submission:
    """One submit POST, as the API saw it and as it answered."""

    provider: str
    operation: str
    at: datetime
    fields: Mapping[str, object] = Factory(dict[str, object])
    #: Fields that the API does not know and therefore ignores.
    ignored: tuple[str, ...] = ()
    callback_url: str | None = None
    task_id: str | None = None
    #: None while it is not answered, and when the connection was cut instead.
    http_status: int | None = None
    #: The code in the API's own envelope.
    code: int | None = None


@frozen(kw_only=True)
class Delivery:
    """One attempt to send one webhook."""

    provider: str
    task_id: str
    stage: str
    attempt: int
    url: str
    at: datetime
    #: The reply's status, or None with `error` when there was no reply.
    status: int | None
    error: str | None
    body: Mapping[str, object] = field(repr=False)
