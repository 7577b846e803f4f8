"""sunoapi.org: https://docs.sunoapi.org/suno-api/extend-music and its siblings, read 2026-11-21.

kie.ai's per-operation routes at another vendor: fewer required fields, V6 for instrumentals, other codes
(429 means no credits here), no signature. Its newer pages name the host apibox.erweima.ai; `base_url` is a
setting.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen
from yarl import URL

from audioext.errors import AuthError, CreditsError, ProviderDownError, RateLimitError, SourceError
from audioext.http.decoding import parse_json
from audioext.models.requests import Operation, Request
from audioext.models.results import FailureReason
from audioext.providers._account import DAY_SECONDS, SunoAccount, Vendor, task_query, wire_values
from audioext.providers._engine import CLASSIC_MODELS, V6_MODELS, EngineRules, TextLimits
from audioext.providers._flat import PATHS, STATUS_PATH, flat_body, flat_status
from audioext.providers._suno import Code, CodeTable
from audioext.providers._suno_events import callback_events, open_delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audioext.http.messages import HttpRequest, HttpResponse, Webhook
    from audioext.models.events import Event
    from audioext.models.record import Record

_RATE = Code(error=RateLimitError, retryable=True, resend=True)
_NO_CREDITS = Code(error=CreditsError)

# docs.sunoapi.org/suno-api/extend-music, read 2026-11-21. 402, 409, 422 and 451 are from its 2025 copy alone;
# a plain 500 may come after a task was made.
CODES: Mapping[int, Code] = {
    400: Code(),  # "invalid parameters": nothing was begun
    401: Code(error=AuthError),
    402: _NO_CREDITS,
    403: Code(error=AuthError),
    404: Code(),
    405: _RATE,
    409: Code(),
    413: Code(),  # theme or prompt too long
    422: Code(),
    429: _NO_CREDITS,
    430: _RATE,
    451: Code(error=SourceError),
    455: Code(error=ProviderDownError, retryable=True, resend=True),
    500: Code(error=ProviderDownError, retryable=True, no_task=False),
}
_CREDIT_WORDS = re.compile("credit", re.IGNORECASE)
_RATE_WORDS = re.compile(r"\b(rate limit|rate-limit|frequency|too (many|frequent)|concurren)", re.IGNORECASE)

TABLE = CodeTable(
    codes=CODES,
    phrases=(
        # The 2025 copy gives 429 as the rate, today's pages as no credits, so the text decides first.
        (_CREDIT_WORDS, frozenset({402, 405, 429, 430}), _NO_CREDITS),
        (_RATE_WORDS, frozenset({429}), _RATE),
    ),
)

# docs.sunoapi.org/suno-api/extend-music-callbacks, read 2026-11-21; 400 covers parameters and content alike
REASONS: Mapping[str, FailureReason] = {
    "408": FailureReason.TIMEOUT,
    "451": FailureReason.SOURCE,
    "500": FailureReason.GENERATION,
    "501": FailureReason.GENERATION,
}

RULES = EngineRules(
    wire_name="sunoapi",
    listed={
        Operation.EXTEND: CLASSIC_MODELS,
        Operation.UPLOAD_EXTEND: CLASSIC_MODELS,
        # docs.sunoapi.org/suno-api/add-instrumental (V6 copy), read 2026-11-21
        Operation.ADD_INSTRUMENTAL: CLASSIC_MODELS | V6_MODELS,
    },
    persona_needs_custom=True,
    # docs.sunoapi.org/suno-api/add-instrumental, read 2026-11-21
    instrumental_limits=TextLimits(title=100, lyrics=5000),
    instrumental_stated=frozenset({"title", "lyrics"}),
)

VENDOR = Vendor(
    wire_name="sunoapi",
    key_variable="SUNOAPI_API_KEY",
    base_url=URL("https://api.sunoapi.org"),
    hosts=frozenset({"api.sunoapi.org", "apibox.erweima.ai"}),
    upload_url=URL("https://sunoapiorg.redpandaai.co"),  # docs.sunoapi.org/file-upload-api/quickstart
    credits_path="/api/v1/generate/credit",  # on no page that was seen; third-party clients agree on it
    retention=14 * DAY_SECONDS,  # its pages say 15 days and 14 days; the sooner is safe
    table=TABLE,
    rules=RULES,
)


@frozen
class SunoApi(SunoAccount):
    """sunoapi.org.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor] = VENDOR

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; without a *callback* the demanded one leads nowhere.

        Raises:
            RequestError: `check` finds a problem.
            UnsupportedError: the API has no such operation.
        """
        self._refuse_problems(request)
        body = flat_body(request, wire_values(request), callback)
        return self._post(PATHS[request.operation], body)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task.

        Raises:
            RequestError: the record has no task id yet.
        """
        return self._get(STATUS_PATH, task_query(record))

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a record-info answer means.

        Raises:
            ProviderError: the call was refused; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        return flat_status(self.answers, response, REASONS)

    def parse_webhook(self, hook: Webhook) -> tuple[Event, ...]:
        """Decode a delivery; its authenticity rests on the tag in the URL, since nothing is signed.

        Raises:
            WebhookError: its task ids disagree (400).
            DecodeError: it cannot be read (400).
        """
        return callback_events(open_delivery(parse_json(hook.body)), REASONS)
