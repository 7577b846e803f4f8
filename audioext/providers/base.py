"""What a provider is: the codec of one hosted API's wire format, as one value of facts and eight pure methods."""

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import field, frozen
from yarl import URL

from audioext.errors import Problem
from audioext.http.messages import HttpRequest, HttpResponse, Webhook
from audioext.models.events import Event, SubmitOutcome
from audioext.models.limits import Limits, Pace
from audioext.models.record import Record
from audioext.models.requests import Operation, Request

GRACE_SECONDS = 900.0  # no page says how late a first callback may be


class FileRoute(enum.Enum):
    """How a local file reaches a provider."""

    UPLOAD = "upload"
    """Uploaded to the provider's own file host first."""
    INLINE = "inline"
    """Inside the multipart body of the submit."""
    SERVE = "serve"
    """Served for a while by our own receiver, under an unguessable URL."""


@frozen(kw_only=True)
class ProviderFacts:
    """What holds for every account at one API.

    `key_variable` is the environment variable that holds the key where none was given, `webhook_key_variable` the one
    with the `webhook_key`, if there is one. `default_models` are sent where a request names none. `extends_by_id` says
    whether a track can be continued by its id, else by its audio URL. `counts_tracks` says that all tracks having
    arrived means COMPLETE, for a wire without a stage word. `grace` is how long, in seconds, a submit without an answer
    may stay without word before its outcome is unknown; `retention` how long, in seconds, the result's files are kept,
    `None` where no page says.
    """

    base_url: URL
    key_variable: str
    webhook_key_variable: str = ""
    file_route: FileRoute = FileRoute.SERVE
    limits: Limits = field(factory=Limits)
    default_models: Mapping[Operation, str] = field(factory=dict)
    extends_by_id: bool = True
    counts_tracks: bool = False
    grace: float = GRACE_SECONDS
    retention: float | None = None


@frozen(kw_only=True)
class ProviderInfo(ProviderFacts):
    """What the client has to know of one account at one API.

    `name` is the segment of the callback path and the value of `provider=`. `account` says whose limits count (Kie and
    KieJobs share one). `has_key` says whether there is a key, `is_signed` that `verify_webhook` checks a signature,
    `is_base_url_given` that the address is the user's choice, not the vendor's own one.
    """

    name: str
    account: str
    has_key: bool
    operations: frozenset[Operation]
    pace: Pace = field(factory=Pace)
    is_signed: bool = False
    is_base_url_given: bool = True

    def sent_model(self, request: Request) -> str | None:
        """Return the model that a submit of *request* names on the wire."""
        return request.model if request.model is not None else self.default_models.get(request.operation)


@runtime_checkable
class Provider(Protocol):
    """One hosted API's wire format. It does no I/O; all methods are pure, and depend on their arguments alone."""

    @property
    def info(self) -> ProviderInfo:
        """The facts of this account."""
        ...

    def check(self, request: Request) -> Sequence[Problem]:
        """Return all that this API would refuse in *request*, and advice; the request may hold a file.

        What is wrong with a value in itself is told by `request.problems()` and not again here.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        ...

    def check_callback(self, callback: URL) -> str | None:
        """Return why this API would never call *callback* back, or `None` if it would."""
        ...

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; a *callback* of `None` means that nobody can reach us.

        The request was checked before; its file, if it still has one, goes inside (`FileRoute.INLINE`).
        """
        ...

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        ...

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task, whose `task_id` is known."""
        ...

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a status answer means.

        Raises:
            ProviderError: the call was refused; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        ...

    def verify_webhook(self, hook: Webhook) -> None:
        """Do nothing if the delivery is authentic, or if this API signs nothing: its tag was checked before.

        Raises:
            WebhookError: it is not authentic (401), or not a delivery at all (400).
            DecodeError: what the signature is about cannot be read (400).
        """
        ...

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return what the body of a verified delivery means; a journal is read again with the same method.

        Raises:
            WebhookError: it contradicts itself (400).
            DecodeError: it cannot be read (400).
        """
        ...


@runtime_checkable
class Uploads(Protocol):
    """A provider with a file host of its own (optional pair)."""

    def build_upload(self, source: Path | str, name: str) -> HttpRequest:
        """Return the call that brings a local file, or the audio at a URL, to the host under *name*."""
        ...

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the URL that a submit can use, or raise ProviderError or DecodeError."""
        ...


@runtime_checkable
class Recovers(Protocol):
    """A provider that brings back the files of a complete task whose links have died (optional, all three).

    The POST's answer is one that `parse_submit` reads, its callback a webhook of the recovery's own task id.
    """

    def build_recovery(self, task_id: str, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the recovery of a task's files."""
        ...

    def build_recovery_status(self, recovery_id: str) -> HttpRequest:
        """Return the GET that asks for the state of a recovery."""
        ...

    def parse_recovery_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what came back, in the order of the task's tracks, or a failure; nothing while it is under way.

        Raises ProviderError, which says nothing of the recovery, or DecodeError.
        """
        ...


@runtime_checkable
class Credits(Protocol):
    """A provider that tells the account's credits (optional pair)."""

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        ...

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in the provider's own credits, or raise ProviderError or DecodeError."""
        ...
