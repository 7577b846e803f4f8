"""MusicGPT: https://docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21.

A multipart form with or without a file, a raw key, numbered keys in status answers, and up to five partial
webhooks in any order. It extends audio from a URL or a file, and has no call for anything else of ours.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen
from yarl import URL

from audioext.errors import Problem, RequestError, UnsupportedError
from audioext.http.decoding import parse_json
from audioext.http.messages import HttpRequest, HttpResponse, Part, Webhook
from audioext.models.requests import Operation, Request
from audioext.providers import _http
from audioext.providers._fields import operations_of, refuse_problems, require_operation, unsupported_fields
from audioext.providers._musicgpt_answers import Answers
from audioext.providers._musicgpt_events import conversion_events, delivery_events
from audioext.providers.base import FileRoute, Limits, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from audioext.models.events import Event, SubmitOutcome
    from audioext.models.record import Record

WIRE_NAME = "musicgpt"
BASE_URL = URL("https://api.musicgpt.com/api/public/v1")
KEY_VARIABLE = "MUSICGPT_API_KEY"
EXTEND_PATH = "/extend"
STATUS_PATH = "/byId"  # docs.musicgpt.com/api-documentation/endpoint/getById, read 2026-11-21
CONVERSION_TYPE = "EXTEND"

# Unfinished jobs at one time: Free 1, Plus 5, Pro 10: docs.musicgpt.com/api-documentation/utilities/ratelimits,
# read 2026-11-21
FREE_PLAN_PARALLEL = 1
GRACE_SECONDS = 900.0
RETENTION_SECONDS = 90 * 86_400.0  # MP3 files; WAV 7 days: docs.musicgpt.com/…/index/changelog, read 2026-11-21

MAX_LENGTHS: Mapping[str, int] = {"lyrics": 2000, "lyrics_section_to_extend": 3000}
"""Characters: docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21."""
USUAL_PROMPT_LENGTH = 280  # characters; the vendor's n8n node and a live client, but no page

GENDERS: Mapping[str, str] = {"m": "male", "f": "female"}

FORM_NAMES: Mapping[str, str] = {
    "url": "audio_url",
    "continue_at": "extend_after",
    "prompt": "prompt",
    "lyrics": "lyrics",
    "lyrics_section_to_extend": "lyrics_section_to_extend",
    "vocal_gender": "gender",
    "num_outputs": "num_outputs",
    # Not on the extend page: the vendor's n8n node has the first, two integrations of 2026 all three.
    "title": "title",
    "generate_album_cover": "generate_album_cover",
    "lyrics_timestamps": "lyrics_timestamps",
}
"""Request fields and their names in the form."""


@frozen
class MusicGpt:
    """MusicGPT's extend call; takes are continued by their audio URL.

    `limits` is that of the free plan, one unfinished job at a time: set `Limits(parallel=5)` on Plus and
    `Limits(parallel=10)` on Pro. `base_url` may carry a path prefix. `name` is the segment of the callback
    path; two accounts need two names. `grace` and `retention` are in seconds.

    Raises:
        ConfigError: a setting cannot work.
    """

    file_route: ClassVar[FileRoute] = FileRoute.INLINE
    extends_by_id: ClassVar[bool] = False
    counts_takes: ClassVar[bool] = True
    key_variable: ClassVar[str] = KEY_VARIABLE
    operations: ClassVar[frozenset[Operation]] = operations_of(WIRE_NAME)

    api_key: str | None = field(default=None, converter=_http.to_api_key, repr=False)
    base_url: URL = field(default=BASE_URL, kw_only=True, converter=_http.to_base_url)
    name: str = field(default=WIRE_NAME, kw_only=True, converter=_http.to_name)
    limits: Limits = field(default=Limits(parallel=FREE_PLAN_PARALLEL), kw_only=True)
    pace: Pace = field(factory=Pace, kw_only=True)
    grace: float = field(default=GRACE_SECONDS, kw_only=True)
    retention: float | None = field(default=RETENTION_SECONDS, kw_only=True)

    @property
    def account(self) -> str:
        """Whose limits count: the wire format, the host and a digest of the key."""
        digest = hashlib.sha256(f"audioext account {self.api_key}".encode()).hexdigest()[:12]
        return f"{WIRE_NAME}/{self.base_url.authority}/{digest}"

    def check(self, request: Request) -> tuple[Problem, ...]:
        """Return all that this API would refuse in *request*, and advice; the request may hold a file.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        try:
            require_operation(request, WIRE_NAME)
        except UnsupportedError as error:
            if request.operation is not Operation.EXTEND:
                raise
            message = f"{error}; here use track.extend(), or url= with the track's audio URL"
            raise UnsupportedError(message) from None
        return (*unsupported_fields(request, WIRE_NAME), *_own_problems(request))

    def check_callback(self, callback: URL) -> str | None:  # noqa: ARG002 - the protocol's
        """Return `None`: no page says that a callback address is refused."""
        return None

    def sent_model(self, request: Request) -> str | None:  # noqa: ARG002 - the protocol's
        """Return `None`: the extend call has no model to choose."""
        return None

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; `webhook_url` is optional.

        Raises:
            RequestError: `check` finds a problem.
            UnsupportedError: the API has no such operation.
        """
        refuse_problems(request, self.check(request))
        given = request.given()
        parts = [
            Part(name=FORM_NAMES[name], value=_form_text(name, given[name])) for name in FORM_NAMES if name in given
        ]
        if callback is not None:
            parts.append(Part(name="webhook_url", value=str(callback)))
        if request.file is not None:
            # Last, so that a server that reads the stream has the texts by then.
            parts.append(Part(name="audio_file", path=request.file, filename=request.file.name))
        return HttpRequest(
            method="POST",
            url=_http.join(self.base_url, EXTEND_PATH),
            headers=_http.headers(self.api_key),
            parts=tuple(parts),
        )

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        return self._answers.parse_submit(response)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task.

        Raises:
            RequestError: the record has no task id yet.
        """
        if record.task_id is None:
            raise RequestError([Problem("task_id", "is not known yet: nothing can be asked about this job")])
        # "not both" ids, and both takes come whichever is given: endpoint/getById, read 2026-11-21
        query = {"conversionType": CONVERSION_TYPE, "task_id": record.task_id}
        return _http.get(_http.join(self.base_url, STATUS_PATH).with_query(query), self.api_key)

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a byId answer means.

        Raises:
            ProviderError: the call was refused; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        return conversion_events(self._answers.parse_conversion(response))

    def parse_webhook(self, hook: Webhook) -> tuple[Event, ...]:
        """Decode a delivery; no page knows of a signature, so the tag in the path is its only proof.

        Raises:
            WebhookError: it is not a delivery at all (400).
            DecodeError: it cannot be read (400).
        """
        return delivery_events(parse_json(hook.body, where="the webhook"))

    @property
    def _answers(self) -> Answers:
        return Answers(provider=self.name, secret=self.api_key)


def _own_problems(request: Request) -> Iterator[Problem]:
    given = request.given()
    if "continue_at" not in given:
        yield Problem("continue_at", f"{WIRE_NAME} always needs it: the second at which the new part begins")
    for name, longest in MAX_LENGTHS.items():
        text = given.get(name)
        if isinstance(text, str) and len(text) > longest:
            yield Problem(name, f"must be at most {longest} characters, not {len(text)}")
    prompt = given.get("prompt")
    if isinstance(prompt, str) and len(prompt) > USUAL_PROMPT_LENGTH:
        message = f"is reported to be refused beyond {USUAL_PROMPT_LENGTH} characters; it has {len(prompt)}"
        yield Problem("prompt", message, advice=True)


def _form_text(name: str, value: object) -> str:
    """Return *value* as a form shows it: `true` and `false`, and numbers without an exponent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{Decimal(str(value)):f}"
    return GENDERS.get(str(value), str(value)) if name == "vocal_gender" else str(value)
