"""What one entry of a journal means, made once: the codec's events, a submit's outcome, or why it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from attrs import frozen
from msgspec import Struct

from audioext.errors import AudioextError
from audioext.http.messages import HttpResponse, as_data
from audioext.models.entries import REFUSED, UNCONFIRMED, UNSENT, Entry, make_entry
from audioext.models.events import Event, Failed, Progress, SubmitOutcome, Submitted, Unknown
from audioext.models.record import Asked, Run
from audioext.providers.base import Provider, Recovers
from audioext.state.asked import load_asked

_KEPT_HEADERS = ("content-type", "retry-after", "date")


@frozen
class Handled:
    """The body of a `handled` entry: how one handler fared with a topic, or all of them where *handler* is empty."""

    topic: str
    handler: str = ""
    failure: int = 0
    """Which failure of this handler it is, from 1; 0 where it is done."""
    error: str = ""
    is_over: bool = True
    """Whether the handler is not called again for this topic."""
    wait: float = 0.0
    """How long (seconds) it asked to wait, without having failed."""
    waits: int = 0
    """Which such wait of this handler it is, from 1."""

    def after(self, old: Run, at: float) -> Run:
        """Return how the handler has fared with the topic by then, where *old* was so before."""
        return Run(
            failures=max(old.failures, self.failure),
            last_at=at,
            error=self.error or old.error if self.failure else "",
            is_done=old.is_done or self.is_over,
            wait=self.wait,
            waits=max(old.waits, self.waits),
        )


class Reading(Struct, frozen=True):
    """One entry, read: what it means, or why it cannot be read. It is made once for each entry."""

    entry: Entry
    asked: Asked | None = None
    outcome: SubmitOutcome | None = None
    events: tuple[Event, ...] = ()
    handled: Handled | None = None
    recovery: tuple[Event, ...] = ()
    """What it means for the recovery of the job's files, which is a task of its own."""
    problem: str = ""
    """Why a status call or a webhook tells nothing of the task."""
    task_id: str | None = None
    """The task that a webhook names first, `None` where it names none."""


def read(entry: Entry, provider: Provider) -> Reading:
    """Return what *entry* means, by the codec of its job's *provider*.

    Raises:
        StoreError: it is a request that is damaged, or was written by a later release; nothing else raises.
    """
    if entry.kind == "webhook":
        return read_webhook(entry, provider)
    if entry.kind == "status":
        return _read_status(entry, provider)
    if entry.kind == "answer":
        return Reading(entry, outcome=_read_answer(entry, provider))
    if entry.kind == "request":
        return Reading(entry, asked=load_asked(entry.body))
    if entry.kind == "handled":
        return _read_handled(entry)
    return _read_recovery(entry, provider) if entry.kind.startswith("recovery_") else Reading(entry)


def answer_entry(response: HttpResponse, at: float, secrets: Sequence[str]) -> Entry:
    """Return the entry of a POST's answer, in which *secrets* are masked."""
    body = masked(response.body, secrets)
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return make_entry("answer", at, status=response.status, headers=headers, body=body)


def masked(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return *body* without *secrets*, which a vendor may quote."""
    for secret in secrets:
        body = body.replace(secret.encode(), b"***")
    return body


def read_webhook(entry: Entry, provider: Provider) -> Reading:
    """Return what a webhook means, as `read` does."""
    if entry.note.startswith(REFUSED):
        return Reading(entry, problem=entry.note)
    try:
        events = provider.parse_webhook(entry.body)
    except AudioextError as error:
        return Reading(entry, problem=as_data(str(error)))
    except Exception as error:  # noqa: BLE001 - a custom provider's bug must not answer a provider with 500 for ever
        return Reading(entry, problem=as_data(f"parse_webhook raised {type(error).__name__}: {error}"))
    if entry.note.startswith(UNCONFIRMED):
        # The task that it names counts all the same: without its id no status call can be made.
        events = tuple([Progress(task_id=event.task_id, ask_now=True) for event in events])
    for event in events:
        if event.task_id:
            return Reading(entry, events=events, task_id=event.task_id)
    return Reading(entry, events=events)


def _read_status(entry: Entry, provider: Provider) -> Reading:
    try:
        events = provider.parse_status(_response(entry))
    except AudioextError as error:
        return Reading(entry, problem=as_data(str(error)))
    except Exception as error:  # noqa: BLE001 - as above
        return Reading(entry, problem=as_data(f"parse_status raised {type(error).__name__}: {error}"))
    return Reading(entry, events=events)


def _read_answer(entry: Entry, provider: Provider) -> SubmitOutcome:
    if not entry.status:
        return Unknown(reason=as_data(entry.note))
    try:
        return provider.parse_submit(_response(entry))
    except Exception as error:  # noqa: BLE001 - a custom provider's bug must not lose a task that was paid for
        return Unknown(reason=f"parse_submit raised {type(error).__name__}")


def _read_recovery(entry: Entry, provider: Provider) -> Reading:
    if entry.kind == "recovery_answer" and entry.note.startswith(UNSENT):
        return Reading(entry, recovery=(Failed(message=entry.note),))
    if not (entry.status and isinstance(provider, Recovers)):
        return Reading(entry, problem=entry.note)
    try:
        if entry.kind == "recovery_status":
            return Reading(entry, recovery=provider.parse_recovery_status(_response(entry)))
        outcome = provider.parse_submit(_response(entry))
    except Exception as error:  # noqa: BLE001 - as above
        return Reading(entry, problem=f"{type(error).__name__}: {error}")
    if isinstance(outcome, Unknown):
        return Reading(entry, problem=outcome.reason)
    made = outcome if isinstance(outcome, Submitted) else Failed(message=str(outcome.error))
    return Reading(entry, recovery=(made,))


def _read_handled(entry: Entry) -> Reading:
    try:
        return Reading(entry, handled=msgspec.json.decode(entry.body, type=Handled))
    except ValueError as error:  # msgspec's own errors are; then its handler is called again, which loses nothing
        return Reading(entry, problem=as_data(str(error)))


def _response(entry: Entry) -> HttpResponse:
    return HttpResponse(status=entry.status, headers=entry.headers, body=entry.body)
