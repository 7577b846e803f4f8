"""Decodes journal entries into readings: a request, a provider's events, the outcome of a submit, or a problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import attrs
import msgspec
from attrs import frozen
from msgspec import Struct
from yarl import URL

from audioext.errors import AudioextError, UnreadableError
from audioext.http.messages import HttpResponse, as_data
from audioext.models.entries import REFUSED, UNCONFIRMED, UNSENT, Entry, make_entry
from audioext.models.events import Event, Failed, Progress, Refused, SubmitOutcome, Submitted, Unknown
from audioext.models.record import Asked, Run
from audioext.models.requests import AddInstrumental, Extend, Operation, Request
from audioext.providers.base import Provider, Recovers

FORMAT = 1
"""Of the JSON of an `Asked`, the body of a journal's first entry."""
_KEPT_HEADERS = ("content-type", "retry-after", "date", "location")
SHORTEST_SECRET = 8
_MARK = re.compile(r"[^\w.~-]", re.ASCII)


@frozen
class Handled:
    """The body of a `handled` entry: a handler's outcome for a topic; an empty *handler* means that all are done."""

    topic: str
    handler: str = ""
    failure: int = 0
    """The number of this failure of the handler, from 1; 0 if it did not fail."""
    error: str = ""
    is_over: bool = True
    """Whether the handler is not called again for this topic."""
    wait: float = 0.0
    """How long (seconds) the handler asked to wait, which is not a failure."""
    waits: int = 0
    """The number of this wait of the handler, from 1; 0 if it did not ask for one."""
    call: int = 0
    """The number of this call of the handler, from 1; it orders the outcomes, also after a clock was set back."""

    def after(self, old: Run, at: float) -> Run:
        """Return the handler's `Run` after this outcome *at* that time, from its *old* one."""
        run = Run(
            failures=max(old.failures, self.failure),
            last_at=at,
            error=self.error or old.error if self.failure else "",
            is_done=old.is_done or self.is_over,
            wait=self.wait,
            waits=max(old.waits, self.waits),
            calls=self.call,
        )
        if self.call >= old.calls:
            return run
        # An earlier call, by a clock that was ahead: it says nothing about when the handler ran last.
        return attrs.evolve(run, last_at=old.last_at, error=old.error, wait=old.wait, calls=old.calls)


class Reading(Struct, frozen=True):
    """A decoded entry: its meaning, or why it cannot be decoded. Each entry is decoded once."""

    entry: Entry
    asked: Asked | None = None
    outcome: SubmitOutcome | None = None
    events: tuple[Event, ...] = ()
    handled: Handled | None = None
    recovery: tuple[Event, ...] = ()
    """The events of the recovery of the job's files, which is a separate task."""
    problem: str = ""
    """Why the entry has no events, for example because it could not be decoded."""
    task_id: str | None = None
    """The first task id that a webhook names, or `None`."""


def read(entry: Entry, provider: Provider) -> Reading:
    """Decode *entry* with the *provider* of its job.

    Raises:
        UnreadableError: *entry* is a request that is damaged or was written by a later release; nothing else raises.
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


def answer_entry(response: HttpResponse, at: float, provider: Provider, callback: URL | None) -> Entry:
    """Return the entry of a POST's answer, `masked`."""
    body = masked(response.body, provider, callback)
    headers: dict[str, str] = {}
    for name in _KEPT_HEADERS:
        if (value := response.headers.get(name)) is not None:
            headers[name] = value
    if "location" in headers:
        headers["location"] = masked(headers["location"].encode(errors="replace"), provider, callback).decode()
    return make_entry("answer", at, status=response.status, headers=headers, body=body)


def masked(body: bytes, provider: Provider, callback: str | URL | None = None) -> bytes:
    """Return *body* without the secrets that a vendor was sent and may quote: its key, and the tag of *callback*.

    They are never shown or stored.
    """
    tag = "" if callback is None else str(callback).rpartition("/")[2]
    key = getattr(provider, "api_key", None)
    for secret in (tag, key if isinstance(key, str) else ""):
        if len(secret) >= SHORTEST_SECRET:
            body = body.replace(secret.encode(), b"***")
            if (escaped := _escaped(secret)) is not None:
                body = escaped.sub(b"***", body)
    return body


@lru_cache(maxsize=64)
def _escaped(secret: str) -> re.Pattern[bytes] | None:
    """Return a pattern of *secret* with escapes as JSON encoders write them, `None` if it has no mark to escape."""
    if not _MARK.search(secret):
        return None
    return re.compile(_MARK.sub(_with_escapes, secret).encode())


def _with_escapes(mark: re.Match[str]) -> str:
    plain = re.escape(mark[0])
    return rf"(?:{plain}|\\{plain}|\\u(?i:{ord(mark[0]):04x}))"


def read_webhook(entry: Entry, provider: Provider) -> Reading:
    """Decode a webhook, as `read` does."""
    if entry.note.startswith(REFUSED):
        return Reading(entry, problem=entry.note)
    try:
        events = provider.parse_webhook(entry.body)
    except AudioextError as error:
        return Reading(entry, problem=as_data(str(error)))
    except Exception as error:  # noqa: BLE001 - a bug of a custom provider must not answer its webhooks with 500 for ever
        return Reading(entry, problem=as_data(f"parse_webhook raised {type(error).__name__}: {error}"))
    if entry.note.startswith(UNCONFIRMED):
        # Its task id still counts: without one, no status call could be made.
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
        outcome = provider.parse_submit(_response(entry))
        # An answer that broke off has no body: only its status may refuse.
        return outcome if isinstance(outcome, Refused) or not entry.note else Unknown(reason=as_data(entry.note))
    except Exception as error:  # noqa: BLE001 - a bug of a custom provider must not lose a task that was paid for
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
    except ValueError as error:  # msgspec's errors, too; the handler is called again, which loses nothing
        return Reading(entry, problem=as_data(str(error)))


def _response(entry: Entry) -> HttpResponse:
    return HttpResponse(status=entry.status, headers=entry.headers, body=entry.body)


# --- the first entry: what was asked ---------------------------------------------------------------------------------


def dump_asked(asked: Asked) -> bytes:
    """Return *asked* as JSON without the fields that have their default."""
    return msgspec.json.encode({"format": FORMAT, **_converter().unstructure(asked)})


def load_asked(body: bytes) -> Asked:
    """Return the `Asked` that `dump_asked` wrote to *body*.

    Raises:
        UnreadableError: *body* is something else, or was written by a later release.
    """
    try:
        value = msgspec.json.decode(body)
        if value["format"] != FORMAT:
            message = f"its journal has format {value['format']!r:.20}, this release reads {FORMAT}: update audioext"
            raise UnreadableError(message)
        asked: Asked = _structure()(value, Asked)
    except UnreadableError:
        raise
    except Exception as error:  # cattrs raises exception groups of any kind, and all mean an unreadable journal
        raise UnreadableError(f"its journal is damaged: {type(error).__name__}: {error!s:.200}") from error
    return asked


@cache
def _converter() -> Any:  # noqa: ANN401 - cattrs' converter, which is imported only below
    from cattrs.preconf.msgspec import make_converter  # noqa: PLC0415 - a slow import that not all programs need

    converter = make_converter(omit_if_default=True)
    converter.register_unstructure_hook(Request, _dump_request)
    # meta is the user's own JSON, and stays as it is.
    converter.register_structure_hook_func(lambda type_: type_ == Mapping[str, object], lambda value, _: value)
    converter.register_structure_hook(Request, lambda value, _: _load_request(value))
    return converter


@cache
def _structure() -> Any:  # noqa: ANN401 - cattrs' own function, which is looked up once
    return _converter().get_structure_hook(Asked)


def _dump_request(request: Request) -> dict[str, object]:
    fields = request.given()
    if isinstance(path := fields.get("file"), Path):
        # A file name may not be UTF-8, which JSON requires, so it is stored with one character for each byte.
        fields["file"] = str(path).encode(errors="surrogatepass").decode("latin-1")
    return {"operation": str(request.operation), **fields}


def _load_request(stored: dict[str, object]) -> Request:
    # A stored request was valid when it was made: stricter rules of a later release must not lose its job.
    kind = AddInstrumental if stored["operation"] == Operation.ADD_INSTRUMENTAL else Extend
    fields = {name: value for name, value in stored.items() if name in _names(kind)}
    if isinstance(file := fields.get("file"), str):
        fields["file"] = file.encode("latin-1").decode(errors="surrogatepass")
    return kind.draft(**fields)


@cache
def _names(kind: type[Request]) -> frozenset[str]:
    return frozenset(attrs.fields_dict(kind))
