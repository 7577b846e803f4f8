"""The per-operation routes that kie.ai and sunoapi.org share: flat camelCase bodies, status by record-info.

Pages: https://docs.kie.ai/suno-api/extend-music, https://docs.sunoapi.org/suno-api/extend-music and their
siblings, read 2026-11-21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarl import URL

from audioext.errors import DecodeError
from audioext.models.requests import Extend, Operation, Request
from audioext.providers._account import camel_case
from audioext.providers._suno_events import record_info_events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audioext.http.messages import HttpResponse
    from audioext.models.events import Event
    from audioext.models.results import FailureReason
    from audioext.providers._suno import Answers

PATHS: Mapping[Operation, str] = {
    Operation.EXTEND: "/api/v1/generate/extend",
    Operation.UPLOAD_EXTEND: "/api/v1/generate/upload-extend",
    Operation.ADD_INSTRUMENTAL: "/api/v1/generate/add-instrumental",
}
STATUS_PATH = "/api/v1/generate/record-info"
"""docs.kie.ai/suno-api/get-music-details, read 2026-11-21."""

NOBODY = URL("https://nobody.invalid/audioext")
"""The demanded callback URL where nobody can reach us: a name under `.invalid` never resolves (RFC 2606)."""


def flat_body(request: Request, values: Mapping[str, object], callback: URL | None) -> dict[str, object]:
    """Return the body of a submit: *values* by wire name, the custom mode's switch and the callback URL."""
    body = camel_case(values)
    if isinstance(request, Extend):
        body["defaultParamFlag"] = request.is_custom
    # Required even by those who only poll: docs.kie.ai/suno-api/extend-music, read 2026-11-21
    body["callBackUrl"] = str(NOBODY if callback is None else callback)
    return body


def flat_status(answers: Answers, response: HttpResponse, reasons: Mapping[str, FailureReason]) -> tuple[Event, ...]:
    """Return what a record-info answer means; *reasons* holds the vendor's failure codes.

    Raises:
        ProviderError: the call was refused, or names no task; that says nothing of the task.
        DecodeError: the answer cannot be read.
    """
    envelope = answers.parse_data(response)
    if envelope.data is None:
        raise answers.no_task(envelope)
    if not isinstance(envelope.data, dict):
        raise DecodeError(["expected an object @ $.data"])
    return record_info_events(envelope.data, reasons)
