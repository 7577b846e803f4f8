"""A provider of your own: declare what your API takes and what its bodies look like; the kit does the rest.

The API here is made up: POST /make answers `{"id": ...}`, GET /state/ID and its webhook answer
`{"id": ..., "done": bool, "links": [...]}`, and errors are `{"error": ...}` with an HTTP status.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import Factory, frozen
from yarl import URL

import audioext as ax
from audioext.providers.kit import Event, FieldRules, HostedAccount, Progress, Vendor, decode


@frozen
class State:
    """The only body of this API, as it is on the wire."""

    id: str
    done: bool = False
    links: list[str] = Factory(list)


@frozen
class Tape(HostedAccount):
    """The codec of the made-up Tape API. Nothing here does I/O."""

    vendor: ClassVar[Vendor] = Vendor(
        rules=FieldRules(
            wire_name="tape",
            operations=frozenset({ax.Operation.UPLOAD_EXTEND}),
            takes=frozenset({"url", "file", "prompt"}),
        ),
        key_variable="TAPE_API_KEY",
        base_url=URL("https://api.tape.example"),
        limits=ax.Limits(submits=5, per=1.0),
        extends_by_id=False,
    )

    def build_submit(self, request: ax.Extend | ax.AddInstrumental, callback: URL | None) -> ax.HttpRequest:
        """Return the POST that creates the task; the kit parses its answer."""
        body: dict[str, object] = {"url": request.url, "prompt": request.given().get("prompt")}
        return self.post("/make", body if callback is None else {**body, "hook": str(callback)})

    def build_status(self, record: ax.Record) -> ax.HttpRequest:
        """Return the GET that asks for the task."""
        return self.get(f"/state/{record.task_id}")

    def parse_status(self, response: ax.HttpResponse) -> tuple[Event, ...]:
        """Parse the status; the kit maps a refusal to its error class."""
        if response.status != 200:
            raise self.answers.error(response)
        return self.parse_webhook(response.body)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Parse a webhook; this API signs nothing, so the tag in the URL is the only proof."""
        state = decode(body, State)
        tracks = tuple(ax.Track(audio_url=link) for link in state.links)
        return (Progress(task_id=state.id, claimed_stage=ax.Stage.COMPLETE if state.done else None, tracks=tracks),)
