"""What a provider is: the codec of one hosted API's wire format, five pure methods and a few facts."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import frozen
from yarl import URL

from audioext.errors import Problem
from audioext.http.messages import HttpRequest, HttpResponse, Webhook
from audioext.models.events import Event, SubmitOutcome
from audioext.models.record import Record
from audioext.models.requests import Operation, Request


@frozen(kw_only=True)
class Limits:
    """How much an API lets one account do.

    At most `submits` in every `per` seconds, at most `parallel` unfinished jobs, and at most `queries` status
    calls in every `queries_per` seconds; `None` means no limit.
    """

    submits: int | None = None
    per: float = 10.0
    parallel: int | None = None
    queries: int | None = 8
    queries_per: float = 1.0


@frozen(kw_only=True)
class Pace:
    """When a job's status is asked for, all in seconds.

    Without webhooks: `first` after the submit, then every `every`, slower by `backoff` times each call up
    to `slowest`. With webhooks: `quiet` after the last word of the job, then at the same pace.
    """

    first: float = 15.0
    every: float = 10.0
    slowest: float = 30.0
    backoff: float = 1.25
    quiet: float = 150.0  # from the first track to the last there are up to two minutes without a word


class FileRoute(enum.Enum):
    """How a local file reaches a provider."""

    UPLOAD = "upload"
    """Uploaded to the provider's own file host first."""
    INLINE = "inline"
    """Inside the multipart body of the submit."""
    SERVE = "serve"
    """Served for a while by our own receiver, under an unguessable URL."""


@runtime_checkable
class Provider(Protocol):
    """One hosted API's wire format. It does no I/O; all methods are pure.

    `name` is the segment of the callback path and the value of `provider=`. `account` says whose limits
    count (Kie and KieJobs share one). `grace` is how long, in seconds, a submit without an answer may stay
    without word before its outcome is unknown; `retention` how long, in seconds, the result's files are
    kept, `None` where no page says.
    """

    @property
    def name(self) -> str:
        """The segment of the callback path, and the value of `provider=`."""
        ...

    @property
    def account(self) -> str:
        """Whose limits count."""
        ...

    @property
    def api_key(self) -> str | None:
        """The key, `None` where it is to come from the environment."""
        ...

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key where none is given."""
        ...

    @property
    def base_url(self) -> URL:
        """Where the API is; it may carry a path prefix."""
        ...

    @property
    def limits(self) -> Limits:
        """How much the API lets one account do."""
        ...

    @property
    def pace(self) -> Pace:
        """When a status is asked for."""
        ...

    @property
    def grace(self) -> float:
        """How long a submit without an answer may stay without word, in seconds."""
        ...

    @property
    def retention(self) -> float | None:
        """How long the result's files are kept, in seconds; `None` where no page says."""
        ...

    @property
    def file_route(self) -> FileRoute:
        """How a local file gets there."""
        ...

    @property
    def extends_by_id(self) -> bool:
        """Whether a track can be continued by its id; else by its audio URL."""
        ...

    @property
    def counts_takes(self) -> bool:
        """Whether all takes having arrived means COMPLETE, for a wire without a stage word."""
        ...

    @property
    def operations(self) -> frozenset[Operation]:
        """What the API can do."""
        ...

    def check(self, request: Request) -> Sequence[Problem]:
        """Return all that this API would refuse in *request*, and advice; the request may hold a file.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        ...

    def check_callback(self, callback: URL) -> str | None:
        """Return why this API would never call *callback* back, or `None` if it would."""
        ...

    def sent_model(self, request: Request) -> str | None:
        """Return the model that `build_submit` names on the wire."""
        ...

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; a *callback* of `None` means that nobody can reach us.

        Raises:
            RequestError: `check` finds a problem.
            UnsupportedError: the API has no such operation.
        """
        ...

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        ...

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task; it needs a `task_id`."""
        ...

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a status answer means.

        Raises:
            ProviderError: the call was refused; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        ...

    def parse_webhook(self, hook: Webhook) -> tuple[Event, ...]:
        """Verify, then decode a delivery: nobody can obtain an unverified event.

        Raises:
            WebhookError: it is not authentic (401) or not a delivery at all (400).
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
        """Return the URL that a submit can use.

        Raises:
            ProviderError: the upload was refused.
            DecodeError: the answer names no URL.
        """
        ...


@runtime_checkable
class Credits(Protocol):
    """A provider that tells the account's credits (optional pair)."""

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        ...

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in the provider's own credits.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        ...
