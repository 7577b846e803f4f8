"""kie.ai: its per-operation routes and its newer jobs route.

https://docs.kie.ai/suno-api/extend-music and its siblings, https://docs.kie.ai/market/common/get-task-detail,
https://docs.kie.ai/1973359m0 (getting started), https://docs.kie.ai/common-api/webhook-verification, read 2026-11-21.

Per-operation routes: flat camelCase bodies, status by record-info, and a callback for each stage. Jobs route: one path
for every operation, parameters in snake case under `input`, status by recordInfo with the result as a string of JSON;
its operations are from a registry of 2026-10-07 made from docs.kie.ai, and from several clients. Callbacks are signed
if a webhook key is set up at https://kie.ai/settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from attrs import evolve, field, frozen
from yarl import URL

from audioext.errors import ConfigError, ProviderDownError, RateLimitError, WebhookError
from audioext.http.messages import Webhook
from audioext.http.signing import hmac_base64, is_one_of, unix_seconds
from audioext.models import checks
from audioext.models.requests import Operation
from audioext.models.results import FailureReason
from audioext.providers._account import DAY_SECONDS, without_pasted
from audioext.providers._answers import (
    CONTENT,
    HTTP_CODES,
    MAINTENANCE,
    MAYBE_MADE,
    NEVER_MADE,
    SOURCE,
    Code,
    CodeTable,
)
from audioext.providers._engine import EngineVendor, task_ids
from audioext.providers._fields import CLASSIC_MODELS, V6_MODELS, FieldRules, wire_names
from audioext.providers._suno import REASONS, RecoveringAccount, SunoAccount, suno_vendor

WEBHOOK_TOLERANCE_SECONDS = 300.0  # no page states a tolerance; third parties use this one

# Seen live: HTTP 200 {"code": 500, "msg": "This field is required"}, where a retry cannot help, and "Please enter …".
_REQUEST_FAULT = re.compile(r"\b(is required|required field|please enter)\b", re.IGNORECASE)
# Not under 500: a server's own faults say the same of a row that it could not store after it had made the task.
_EMPTY_FIELD = re.compile(r"\b(cannot|must not) be (empty|null|blank)\b", re.IGNORECASE)
_UNKNOWN_TASK = re.compile(r"recordInfo is null", re.IGNORECASE)

TABLE = CodeTable(
    # docs.kie.ai/suno-api/extend-music, docs.kie.ai/1973359m0 and docs.kie.ai/market/common/get-task-detail, read
    # 2026-11-21: HTTP's meanings, but 400 refuses the content at submit (public clients, 2026-02 to 08), and 433 means
    # a key's own hourly, daily or total cap. 408, 501 and a plain 500 may come after a task was made.
    codes={
        **HTTP_CODES,
        400: CONTENT,
        408: MAYBE_MADE,
        433: Code(error=RateLimitError, retryable=True),
        451: SOURCE,
        455: MAINTENANCE,
        500: MAYBE_MADE,
        501: Code(no_task=False),
        505: Code(error=ProviderDownError),
    },
    phrases=(
        (_REQUEST_FAULT, frozenset({400, 500}), Code()),
        (_EMPTY_FIELD, frozenset({400}), Code()),
        # A task that was just made may not be readable yet: docs.kie.ai/market/common/get-task-detail
        (_UNKNOWN_TASK, frozenset({422}), Code(retryable=True)),
    ),
    # "rejected with HTTP 429", whatever the body: docs.kie.ai/1973359m0, read 2026-11-21
    http_refusals=NEVER_MADE | {429},
)

_INSTRUMENTAL_MODELS = frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS
"""docs.kie.ai/suno-api/add-instrumental and its copy for old models, as read by a client with real keys in 2026-10."""

ROUTE = suno_vendor(
    rules=FieldRules(
        wire_name="kie",
        instrumental_models=_INSTRUMENTAL_MODELS,
        # Tags: kie.ai's OpenAPI of 2026-08-19. The title's limit is from a third party.
        lengths={Operation.ADD_INSTRUMENTAL: {"title": 100, "tags": 1000, "negative_tags": 200}},
        stated_lengths=frozenset({"tags", "negative_tags"}),
        # Required by the page (docs.kie.ai/suno-api/upload-and-extend-audio, read 2026-11-21), optional with default
        # false in the OpenAPI of 2026-08-19. A client of the jobs route requires it. Sending it does no harm.
        upload_needs_instrumental=True,
    ),
    key_variable="KIE_API_KEY",
    webhook_key_variable="KIE_WEBHOOK_KEY",
    signature_headers=("X-Webhook-Timestamp", "X-Webhook-Signature"),
    base_url=URL("https://api.kie.ai"),
    table=TABLE,
    hosts=frozenset({"api.kie.ai"}),
    upload_url=URL("https://kieai.redpandaai.co"),  # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
    credits_path="/api/v1/chat/credit",  # docs.kie.ai/common-api/get-account-credits, read 2026-11-21
    # Callback codes: docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
    reasons={**REASONS, **dict.fromkeys(("400", "413"), FailureReason.CONTENT), "531": FailureReason.GENERATION},
    # "501: content generation task failed" and "408: no result for over 10 minutes":
    # docs.kie.ai/market/common/get-task-detail, read 2026-11-21; 531 is on the callbacks' page.
    failed_codes=frozenset({408, 501, 531}),
)
"""The facts that both routes share; each adds its rules, its status call and its retention."""


def to_webhook_keys(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the webhook keys in *value* (none, one, or several for a rotation), or raise ConfigError."""
    is_one = isinstance(value, (str, bytes)) or not isinstance(value, Iterable)
    given: tuple[object, ...] = () if value is None else (value,) if is_one else tuple(value)
    # A lone surrogate cannot be encoded to UTF-8, which signing needs.
    keys = [without_pasted(key) for key in given if isinstance(key, str) and not checks.LONE_SURROGATE.search(key)]
    if len(keys) < len(given) or not all(keys):
        raise ConfigError("webhook_key must be text, or several texts for a rotation, and none may be empty")
    return tuple(keys)


@frozen
class KieAccount(SunoAccount):
    """An account at kie.ai by either route; `Kie` describes the settings."""

    webhook_key: tuple[str, ...] = field(default=None, kw_only=True, converter=to_webhook_keys, repr=False)
    webhook_tolerance: float = field(
        default=WEBHOOK_TOLERANCE_SECONDS, kw_only=True, validator=checks.setting(checks.seconds)
    )

    @property
    def is_signed(self) -> bool:
        """Whether signatures are checked: there is a webhook key."""
        return bool(self.webhook_key)

    def verify_webhook(self, hook: Webhook) -> None:
        """Check that *hook* is signed with one of the keys, if there are any; raises WebhookError or DecodeError.

        The signature is HMAC-SHA256 of `task_id.timestamp` in Base64, and does not cover the body:
        docs.kie.ai/common-api/webhook-verification, read 2026-11-21.
        """
        if not self.webhook_key:
            return
        stamp, signature = map(hook.headers.get, self.vendor.signature_headers)
        if not stamp or not signature:
            raise WebhookError("the webhook is not signed", http_status=401)
        ids = task_ids(hook.body)
        if len(ids) != 1:
            raise WebhookError("the webhook must name one task, whose id is signed", http_status=400)
        signed = f"{ids.pop()}.{stamp}".encode("utf-8", "replace")
        if not is_one_of(signature, [hmac_base64(key, signed) for key in self.webhook_key]):
            raise WebhookError("the webhook has a wrong signature", http_status=401)
        signed_at, here = unix_seconds(stamp), hook.received_at
        if signed_at is None or here is None or not abs(here - signed_at) <= self.webhook_tolerance:
            raise WebhookError("the timestamp of the webhook's signature is too far from our clock", http_status=401)


@frozen
class Kie(RecoveringAccount, KieAccount):
    """kie.ai by its per-operation routes, which its older pages describe and which still work.

    `api_key` is by default that in `KIE_API_KEY`. `base_url` is the API's address, which may have a path prefix, and
    `upload_url` that of its file host. Two accounts at one API need different names: `name` is what `provider=` picks,
    and a part of the callback URL. `limits` and `pace` replace those of the vendor. A submit without an answer counts
    as unknown after `grace` seconds. Files are kept for `retention` seconds, from which `Track.expires_at` follows;
    `None` means that nobody knows.

    `webhook_key` is the key that signs callbacks, or several during a rotation; without one, signatures are not
    checked. `webhook_tolerance` is how far, in seconds, a signature's timestamp may be from our clock.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[EngineVendor] = evolve(
        ROUTE,
        rules=evolve(
            ROUTE.rules,
            models=CLASSIC_MODELS,
            persona_needs_custom=True,
            upload_may_lack_prompt=True,
            upload_needs_continue_at=True,
        ),
        retention=14 * DAY_SECONDS,  # docs.kie.ai/1973359m0, read 2026-11-21
    )


@frozen
class KieJobs(KieAccount):
    """kie.ai by its newer jobs route; it shares the account's key and limits with `Kie`, and has the same settings.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[EngineVendor] = evolve(
        ROUTE,
        rules=evolve(
            ROUTE.rules,
            wire_name="kie-jobs",
            has_custom_mode=False,
            models=CLASSIC_MODELS | V6_MODELS,
            # docs.kie.ai/suno-api/upload-and-extend-audio.md states V6's lengths, as of 2026-10-06
            stated=CLASSIC_MODELS | V6_MODELS | {"V3_5"},
        ),
        status_path="/api/v1/jobs/recordInfo",  # docs.kie.ai/market/common/get-task-detail, read 2026-11-21
        retention=DAY_SECONDS,  # result URLs usually die after 24 h: docs.kie.ai/market/common/get-task-detail
        # As for callbacks, but 400 was also seen with an upstream failure, so here it does not mean the content.
        reasons={code: reason for code, reason in ROUTE.reasons.items() if code != "400"},
        names=wire_names(url="upload_url"),
        submit_path="/api/v1/jobs/createTask",
        calls={
            Operation.EXTEND: "ai-music-api/extend",
            Operation.UPLOAD_EXTEND: "ai-music-api/upload-and-extend-audio",
            Operation.ADD_INSTRUMENTAL: "ai-music-api/add-instrumental",
        },
        flag_key="",
        needs_callback=False,
    )
