"""A made-up API whose bodies are plain events, and builders for journals of its tasks.

Its bodies can carry every event, so that the rules of the state and the runtime can be tested one by one, without a
real wire format.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
from attrs import field, frozen
from yarl import URL

from audioext.errors import DecodeError, Problem, ProviderDownError, ProviderError, WebhookError
from audioext.http.messages import HttpRequest, HttpResponse, Webhook
from audioext.models.entries import Entry, make_entry
from audioext.models.events import Event, Failed, Progress, Refused, SubmitOutcome, Submitted, Unknown
from audioext.models.limits import Limits, Pace
from audioext.models.record import Asked, Record
from audioext.models.requests import Extend, Operation, Request
from audioext.models.results import Stage, Track
from audioext.providers.base import FileRoute, ProviderInfo
from audioext.state.fold import fold
from audioext.state.reading import Handled, Reading, dump_asked, read

REF = "r" * 24
TASK = "task-1"
SIGNATURE = "x-tape-signature"
FORGED = "forged"
HTTP_OK = 200
HTTP_BAD = 400
HTTP_FAULT = 500
HTTP_DOWN = 503


@frozen(kw_only=True)
class Words:
    """The contents of one body.

    A `Tape` of a release before `since` cannot read it, and one after `until` finds no events in it. `contradicts`: its
    ids disagree.
    """

    progress: tuple[Progress, ...] = ()
    failed: tuple[Failed, ...] = ()
    since: int = 1
    until: int = 99
    contradicts: bool = False


def body(*events: Event, since: int = 1, until: int = 99) -> bytes:
    """Return the body of a webhook or a status answer with *events*."""
    words = Words(
        progress=tuple(event for event in events if isinstance(event, Progress)),
        failed=tuple(event for event in events if isinstance(event, Failed)),
        since=since,
        until=until,
    )
    return msgspec.json.encode(words)


@frozen(kw_only=True)
class Tape:
    """The codec of the made-up API; each `release` of it may read a body differently."""

    name: str = "tape"
    release: int = 1
    counts_tracks: bool = False
    limits: Limits = field(factory=Limits)
    pace: Pace = field(factory=Pace)

    @property
    def info(self) -> ProviderInfo:
        """The facts of an account."""
        return ProviderInfo(
            name=self.name,
            account=self.name,
            base_url=URL("http://tape.test"),
            key_variable="TAPE_API_KEY",
            has_key=True,
            operations=frozenset(Operation),
            file_route=FileRoute.UPLOAD,
            limits=self.limits,
            pace=self.pace,
            counts_tracks=self.counts_tracks,
        )

    def check(self, request: Request) -> Sequence[Problem]:  # noqa: ARG002 - the protocol's
        """Accept every request."""
        return ()

    def check_callback(self, callback: URL) -> str | None:  # noqa: ARG002 - the protocol's
        """Accept every callback URL."""
        return None

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:  # noqa: ARG002 - the protocol's
        """Return a POST without a body, to the base URL."""
        return HttpRequest(method="POST", url=self.info.base_url)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Read a task from 200 and a refusal from 4xx; all else is unknown."""
        if response.status == HTTP_OK:
            return msgspec.json.decode(response.body, type=Submitted)
        if HTTP_BAD <= response.status < HTTP_FAULT:
            error = ProviderError(response.body.decode(), provider=self.name, http_status=response.status)
            return Refused(error=error)
        return Unknown(reason=f"HTTP {response.status}")

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET of a task."""
        return HttpRequest(method="GET", url=self.info.base_url / (record.task_id or ""))

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return the events of the body, unless the call was refused."""
        if response.status != HTTP_OK:
            raise ProviderDownError(response.body.decode(), provider=self.name, http_status=response.status)
        return self._events(response.body)

    def verify_webhook(self, hook: Webhook) -> None:
        """Refuse a webhook whose signature is `FORGED`."""
        if hook.headers.get(SIGNATURE) == FORGED:
            raise WebhookError("the signature is forged", http_status=401)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return the events of the body."""
        return self._events(body)

    def _events(self, body: bytes) -> tuple[Event, ...]:
        try:
            words = msgspec.json.decode(body, type=Words)
        except msgspec.MsgspecError as error:
            raise DecodeError([str(error)]) from error
        if words.since > self.release:
            raise DecodeError([f"written for release {words.since}"])
        if words.contradicts:
            raise WebhookError("its ids disagree", http_status=400)
        return () if self.release > words.until else (*words.progress, *words.failed)


TAPE = Tape()


# --- entries, events and tracks -----------------------------------------------------------------------------


def asked(**fields: object) -> Asked:
    """Return the `Asked` of a job at the made-up API."""
    plain = Asked(provider="tape", account="tape", request=Extend(audio_id="source", model="V5"), model="V5")
    return attrs.evolve(plain, **fields)  # type: ignore[arg-type]  # a test's own fields


def track(name: str | None, *, audio: bool = True, **fields: object) -> Track:
    """Return one track, with audio or only a stream; its URLs are derived from its *name*."""
    url = f"http://files.test/{name}"
    plain = Track(id=name, audio_url=f"{url}.mp3" if audio else None, stream_url=f"{url}/stream")
    return attrs.evolve(plain, **fields)  # type: ignore[arg-type]  # a test's own fields


def shown(stage: Stage | None, *tracks: Track, task_id: str | None = TASK, **fields: object) -> Progress:
    """Return the task's progress at a stage."""
    plain = Progress(task_id=task_id, claimed_stage=stage, tracks=tracks)
    return msgspec.structs.replace(plain, **fields)


def failed(task_id: str | None = TASK, **fields: object) -> Failed:
    """Return the task's failure."""
    return attrs.evolve(Failed(task_id=task_id), **fields)  # type: ignore[arg-type]  # a test's own fields


def request(at: float = 0.0, /, **fields: object) -> Entry:
    """Return the first entry of a journal; *fields* are those of `asked`."""
    return make_entry("request", at, body=dump_asked(asked(**fields)))


def answer(at: float, task_id: str = TASK, **fields: object) -> Entry:
    """Return the entry of a POST's answer that names the task."""
    submitted = Submitted(task_id=task_id, **fields)  # type: ignore[arg-type]  # a test's own fields
    return make_entry("answer", at, status=HTTP_OK, body=msgspec.json.encode(submitted))


def refusal(at: float, why: str = "too few credits") -> Entry:
    """Return the entry of a POST's answer that refuses the task."""
    return make_entry("answer", at, status=HTTP_BAD, body=why.encode())


def webhook(at: float, *events: Event, note: str = "", since: int = 1, until: int = 99) -> Entry:
    """Return the entry of one delivery."""
    return make_entry("webhook", at, body=body(*events, since=since, until=until), note=note)


def status(at: float, *events: Event, note: str = "") -> Entry:
    """Return the entry of one status answer."""
    return make_entry("status", at, status=HTTP_OK, body=body(*events), note=note)


def busy(at: float) -> Entry:
    """Return the entry of a refused status call."""
    return make_entry("status", at, status=HTTP_DOWN, body=b"busy")


def handled(at: float, topic: str, handler: str = "", **fields: object) -> Entry:
    """Return the entry that all handlers, or one, are done with *topic*."""
    value = attrs.evolve(Handled(topic, handler), **fields)  # type: ignore[arg-type]  # a test's own fields
    return make_entry("handled", at, body=msgspec.json.encode(value))


def readings(*entries: Entry, provider: Tape = TAPE) -> list[Reading]:
    """Return the readings of *entries*."""
    return [read(entry, provider) for entry in entries]


def folded(*entries: Entry, provider: Tape = TAPE) -> Record:
    """Return the record that *entries* fold to; one of them has to be the request."""
    record = fold(REF, readings(*entries, provider=provider))
    assert record is not None
    return record
