"""The provider protocol: the codec of one hosted API's wire format, made of its facts and eight pure methods."""

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

GRACE_SECONDS = 900.0  # a guess: no page says how late a first callback may be


class FileRoute(enum.Enum):
    """How a local file reaches a provider."""

    UPLOAD = "upload"
    """Uploaded to the provider's own file host first."""
    INLINE = "inline"
    """Inside the multipart body of the submit."""
    SERVE = "serve"
    """Served by our own receiver under an unguessable URL, while the job needs it."""


@frozen(kw_only=True)
class ProviderFacts:
    """The facts of one API, the same for every account.

    `key_variable` is the environment variable of the API key, `webhook_key_variable` that of the `webhook_key`, if the
    API has one, and `signature_headers` the headers that it signs webhooks with. `default_models` are sent if a request
    names no model. `extends_by_id` says whether a track is extended by its id, otherwise by its audio URL.
    `counts_tracks` says that a job is COMPLETE once all its tracks have arrived, by their ids, for an API that names no
    stages.
    `grace` (seconds) is how long we wait for news of a submit that got no answer before its outcome is unknown.
    `retention` (seconds) is how long the vendor keeps files, `None` if no page says.
    """

    base_url: URL
    key_variable: str
    webhook_key_variable: str = ""
    signature_headers: tuple[str, ...] = ()
    file_route: FileRoute = FileRoute.SERVE
    limits: Limits = field(factory=Limits)
    default_models: Mapping[Operation, str] = field(factory=dict)
    extends_by_id: bool = True
    counts_tracks: bool = False
    grace: float = GRACE_SECONDS
    retention: float | None = None


@frozen(kw_only=True)
class ProviderInfo(ProviderFacts):
    """The facts of one account at one API.

    `name` is a segment of the callback path and the value of `provider=`. Providers with the same `account` share its
    limits, as Kie and KieJobs do. `has_key` says that there is an API key, `is_signed` that `verify_webhook` checks a
    signature, and `is_base_url_given` that the user chose `base_url`.
    """

    name: str
    account: str
    has_key: bool
    operations: frozenset[Operation]
    pace: Pace = field(factory=Pace)
    is_signed: bool = False
    is_base_url_given: bool = True

    def sent_model(self, request: Request) -> str | None:
        """Return the model that a submit of *request* sends: its own, or the operation's default."""
        return request.model if request.model is not None else self.default_models.get(request.operation)


@runtime_checkable
class Provider(Protocol):
    """One hosted API's wire format. All methods are pure: they do no I/O, and depend only on their arguments."""

    @property
    def info(self) -> ProviderInfo:
        """The facts of this account."""
        ...

    def check(self, request: Request) -> Sequence[Problem]:
        """Return every problem that this API would have with *request*, and advice; the request may hold a file.

        Values that are invalid for any API are left to `request.problems()`.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        ...

    def check_callback(self, callback: URL) -> str | None:
        """Return why this API would never call *callback*, or `None` if it would."""
        ...

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that creates the task; *callback* is `None` if we have no public URL.

        The request was checked before. If it still has a file, that goes into the body (`FileRoute.INLINE`).
        """
        ...

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Return whether the task was made, refused, or may have been made. Never raises, whatever the bytes."""
        ...

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET of the status of *record*'s task, whose `task_id` is known."""
        ...

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return the events in a status answer. If one names another task than was asked for, none counts.

        Raises:
            ProviderError: the call was refused, which says nothing about the task.
            DecodeError: the answer cannot be read.
        """
        ...

    def verify_webhook(self, hook: Webhook) -> None:
        """Check a webhook's signature, if this API signs; its tag was checked before.

        Raises:
            WebhookError: it is not authentic (401), or not a webhook at all (400).
            DecodeError: the signed value cannot be read from the body (400).
        """
        ...

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return the events in the body of a verified webhook; stored webhooks are read again with the same method.

        Raises:
            WebhookError: the body contradicts itself (400).
            DecodeError: the body cannot be read (400).
        """
        ...


@runtime_checkable
class Uploads(Protocol):
    """A provider with its own file host; optional, both methods."""

    def build_upload(self, source: Path | str, name: str) -> HttpRequest:
        """Return the call that uploads a local file, or the audio at a URL, to the file host as *name*."""
        ...

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the uploaded file's URL for a submit, or raise ProviderError or DecodeError."""
        ...


@runtime_checkable
class Recovers(Protocol):
    """A provider that can recover the files of a complete task after their links expired; optional, all three methods.

    `parse_submit` reads the answer to the POST. The callback is a webhook with the recovery's own task id.
    """

    def build_recovery(self, task_id: str, callback: URL | None) -> HttpRequest:
        """Return the POST that starts the recovery of a task's files."""
        ...

    def build_recovery_status(self, recovery_id: str) -> HttpRequest:
        """Return the GET of the status of a recovery."""
        ...

    def parse_recovery_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return the recovered tracks in the task's order, or a failure, or no events while the recovery runs.

        Raises ProviderError, which says nothing about the recovery, or DecodeError.
        """
        ...


@runtime_checkable
class Credits(Protocol):
    """A provider with a call for the account's balance; optional, both methods."""

    def build_credits(self) -> HttpRequest:
        """Return the GET of the balance."""
        ...

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in the provider's own credits, or raise ProviderError or DecodeError."""
        ...
