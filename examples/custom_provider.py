"""A provider of your own: one frozen class says how your API's bytes look; the client does the rest.

The API here is made up: POST /make answers `{"id": ...}`, GET /state/ID and its webhook answer
`{"id": ..., "done": bool, "links": [...]}`, and errors are `{"error": ...}` with an HTTP status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs
import orjson
from attrs import field, frozen
from yarl import URL

import audioext as ax
from audioext.http.decoding import Text, decode
from audioext.models.events import Event, Progress, Refused, SubmitOutcome, Submitted, Unknown
from audioext.providers.base import FileRoute


@frozen
class State:
    """The one body that this API knows, as it is on the wire."""

    id: Text
    done: bool = False
    links: list[str] = attrs.Factory(list)


@frozen(kw_only=True)
class Tape:
    """The codec of the made-up Tape API. Nothing here does I/O."""

    api_key: str | None = field(default=None, repr=False)
    base_url: URL = field(default=URL("https://api.tape.example"), converter=URL)
    name: str = "tape"
    account: str = "tape"
    limits: ax.Limits = ax.Limits(submits=5, per=1.0)
    pace: ax.Pace = ax.Pace()
    grace: float = 900.0

    key_variable: ClassVar[str] = "TAPE_API_KEY"
    retention: ClassVar[float | None] = None
    file_route: ClassVar[FileRoute] = FileRoute.SERVE
    extends_by_id: ClassVar[bool] = False
    counts_takes: ClassVar[bool] = False
    operations: ClassVar[frozenset[ax.Operation]] = frozenset({ax.Operation.UPLOAD_EXTEND})

    def check(self, request: ax.Extend | ax.AddInstrumental) -> Sequence[ax.Problem]:
        """Refuse what this API does not have."""
        if request.operation not in self.operations:
            message = "tape only extends audio by URL"
            raise ax.UnsupportedError(message)
        taken = {"url", "file", "prompt", "provider", "source_duration"}
        return [ax.Problem(name, "tape does not take it") for name in request.given() if name not in taken]

    def check_callback(self, callback: URL) -> str | None:
        """Let every callback through."""
        return None if callback.host else "it has no host"

    def sent_model(self, request: ax.Extend | ax.AddInstrumental) -> str | None:
        """Return the model as it was given: this API has but one."""
        return request.model

    def build_submit(self, request: ax.Extend | ax.AddInstrumental, callback: URL | None) -> ax.HttpRequest:
        """Return the POST that makes the task."""
        body = {"url": request.url, "prompt": getattr(request, "prompt", None)}
        if callback is not None:
            body["hook"] = str(callback)
        return ax.HttpRequest(
            method="POST", url=self.base_url / "make", headers=self._headers(), body=orjson.dumps(body)
        )

    def parse_submit(self, response: ax.HttpResponse) -> SubmitOutcome:
        """Say whether a task was made; a 4xx is the only answer that says for certain that none was."""
        if 400 <= response.status < 500:
            error = ax.ProviderError("refused", provider=self.name, http_status=response.status, charged=False)
            return Refused(error=error)
        try:
            return Submitted(task_id=decode(response.body, State).id)
        except ax.DecodeError as error:
            return Unknown(reason=str(error))

    def build_status(self, record: ax.Record) -> ax.HttpRequest:
        """Return the GET that asks for the task."""
        return ax.HttpRequest(method="GET", url=self.base_url / "state" / str(record.task_id), headers=self._headers())

    def parse_status(self, response: ax.HttpResponse) -> tuple[Event, ...]:
        """Return what the status says."""
        if response.status != 200:
            raise ax.ProviderError("no status", provider=self.name, http_status=response.status)
        return (self._progress(response.body),)

    def parse_webhook(self, hook: ax.Webhook) -> tuple[Event, ...]:
        """Return what the webhook says; this API signs nothing, so the tag in the URL is the proof."""
        return (self._progress(hook.body),)

    def _progress(self, body: bytes) -> Progress:
        state = decode(body, State)
        tracks = tuple(ax.Track(audio_url=link) for link in state.links)
        return Progress(task_id=state.id, claimed_stage=ax.Stage.COMPLETE if state.done else None, tracks=tracks)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
