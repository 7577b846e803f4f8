"""What kie.ai's two routes share: its hosts, its code tables and its webhook signature.

Pages: https://docs.kie.ai/1973359m0 (getting started), https://docs.kie.ai/common-api/webhook-verification,
https://docs.kie.ai/file-upload-api/quickstart, read 2026-11-21.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from yarl import URL

from audioext.errors import (
    AuthError,
    ConfigError,
    ContentError,
    CreditsError,
    ProviderDownError,
    RateLimitError,
    SourceError,
    WebhookError,
)
from audioext.http.decoding import parse_json
from audioext.http.signing import hmac_base64_matches, unix_seconds
from audioext.models.results import FailureReason
from audioext.providers._engine import TextLimits
from audioext.providers._suno import Code, CodeTable
from audioext.providers._suno_events import Delivery, open_delivery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audioext.http.messages import Webhook

BASE_URL = URL("https://api.kie.ai")
HOSTS = frozenset({"api.kie.ai"})
UPLOAD_URL = URL("https://kieai.redpandaai.co")  # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
KEY_VARIABLE = "KIE_API_KEY"
CREDITS_PATH = "/api/v1/chat/credit"  # docs.kie.ai/common-api/get-account-credits, read 2026-11-21
WEBHOOK_TOLERANCE_SECONDS = 300.0  # no page prescribes a window; third parties use this one

# docs.kie.ai/suno-api/extend-music, docs.kie.ai/1973359m0 and docs.kie.ai/market/common/get-task-detail, read
# 2026-11-21. 400 (content), 408, 501 and a plain 500 may come after a task was made.
CODES: Mapping[int, Code] = {
    400: Code(error=ContentError, no_task=False),
    401: Code(error=AuthError),
    402: Code(error=CreditsError),
    403: Code(error=AuthError),
    404: Code(),
    405: Code(),
    408: Code(error=ProviderDownError, retryable=True, no_task=False),
    409: Code(),
    422: Code(),
    429: Code(error=RateLimitError, retryable=True, resend=True),
    433: Code(error=RateLimitError, retryable=True),  # a key's own hourly, daily or total cap
    451: Code(error=SourceError),
    455: Code(error=ProviderDownError, retryable=True, resend=True),
    500: Code(error=ProviderDownError, retryable=True, no_task=False),
    501: Code(no_task=False),
    505: Code(error=ProviderDownError),
}
# Seen live: HTTP 200 {"code": 500, "msg": "This field is required"}, which no waiting mends.
_REQUEST_FAULT = re.compile(r"\b(is required|required field|(cannot|must not) be (empty|null|blank))\b", re.IGNORECASE)
_UNKNOWN_TASK = re.compile(r"recordInfo is null", re.IGNORECASE)

TABLE = CodeTable(
    codes=CODES,
    phrases=(
        (_REQUEST_FAULT, frozenset({500}), Code()),
        # A task that was just made may not be readable yet: docs.kie.ai/market/common/get-task-detail
        (_UNKNOWN_TASK, frozenset({422}), Code(retryable=True)),
    ),
    # "rejected with HTTP 429", whatever the body: docs.kie.ai/1973359m0, read 2026-11-21
    http_refusals=frozenset({429}),
)

# Callback codes: docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
REASONS: Mapping[str, FailureReason] = {
    "400": FailureReason.CONTENT,
    "408": FailureReason.TIMEOUT,
    "413": FailureReason.CONTENT,
    "451": FailureReason.SOURCE,
    "500": FailureReason.GENERATION,
    "501": FailureReason.GENERATION,
}

# Third-party readings of docs.kie.ai/suno-api/add-instrumental; the page itself states no lengths.
INSTRUMENTAL_LIMITS = TextLimits(title=100, tags=1000, negative_tags=200)


def to_webhook_keys(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the webhook keys in *value*: none, one, or several for a rotation.

    Raises:
        ConfigError: one of them is empty or not text.
    """
    keys = () if value is None else (value,) if isinstance(value, str) else tuple(value)
    if not all(_is_key(key) for key in keys):
        message = "webhook_key must be text, or several texts for a rotation, and none may be empty"
        raise ConfigError(message)
    return keys


def _is_key(value: object) -> bool:
    # Half a surrogate pair has no UTF-8 bytes to sign with.
    return isinstance(value, str) and value != "" and value == value.encode("utf-8", "replace").decode()


def open_verified(hook: Webhook, keys: Sequence[str], *, tolerance: float) -> Delivery:
    """Return the delivery in *hook*, opened; where there are *keys* it must be signed under one of them.

    The signature is HMAC-SHA256 of `task_id.timestamp` in Base64, and its time may be *tolerance* seconds
    from ours: docs.kie.ai/common-api/webhook-verification, read 2026-11-21. It covers the task and the
    time, not the body.

    Raises:
        WebhookError: it is not authentic (401), or names no task or several (400).
        DecodeError: it is not a callback.
    """
    if not keys:
        return open_delivery(parse_json(hook.body))
    stamp = hook.headers.get("X-Webhook-Timestamp")
    signature = hook.headers.get("X-Webhook-Signature")
    if not stamp or not signature:
        message = "the delivery is not signed"
        raise WebhookError(message, http_status=401)
    delivery = open_delivery(parse_json(hook.body))
    if delivery.task_id is None:
        message = "the delivery names no task, so its signature proves nothing"
        raise WebhookError(message, http_status=400)
    signed = f"{delivery.task_id}.{stamp}".encode("utf-8", "replace")
    if not hmac_base64_matches(keys, signed, signature):
        message = "the delivery bears a wrong signature"
        raise WebhookError(message, http_status=401)
    signed_at = unix_seconds(stamp)
    if signed_at is None or hook.received_at is None or not abs(hook.received_at - signed_at) <= tolerance:
        message = "the delivery bears a signature that is not of this time"
        raise WebhookError(message, http_status=401)
    return delivery
