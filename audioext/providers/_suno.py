"""What kie.ai (both routes) and sunoapi.org share: submits, file hosts and recoveries; kie.ai's codes and signature.

Pages: https://docs.kie.ai/suno-api/extend-music, https://docs.sunoapi.org/suno-api/extend-music and their siblings,
https://docs.kie.ai/1973359m0 (getting started), https://docs.kie.ai/common-api/webhook-verification,
https://docs.kie.ai/file-upload-api/quickstart, read 2026-11-21; https://docs.sunoapi.org/suno-api/recovery-audio, read
2026-11-26.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from attrs import evolve, field, frozen
from yarl import URL

from audioext.errors import ConfigError, DecodeError, ProviderDownError, RateLimitError, WebhookError
from audioext.http.decoding import camel, link, plain_keys, text
from audioext.http.messages import HttpRequest, HttpResponse, Part, Webhook
from audioext.http.signing import hmac_base64_matches, unix_seconds
from audioext.models import checks
from audioext.models.events import Event, Failed, Progress, SubmitOutcome
from audioext.models.limits import Limits
from audioext.models.requests import Extend, Operation, Request
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._account import file_part, to_base_url
from audioext.providers._answers import (
    AUTH,
    CONTENT,
    HTTP_CODES,
    HTTP_ERROR_FROM,
    MAINTENANCE,
    MAYBE_MADE,
    OK,
    RATE,
    SOURCE,
    Code,
    CodeTable,
)
from audioext.providers._engine import EngineAccount, EngineVendor, task_ids
from audioext.providers._fields import DEFAULT_INSTRUMENTAL_MODEL, FieldRules, wire_names, wire_values
from audioext.providers._tracks import MAX_TRACKS
from audioext.providers._words import words
from audioext.providers.base import FileRoute

UPLOAD_FOLDER = "audioext"  # `uploadPath`, without slashes around it: docs.kie.ai/file-upload-api/quickstart
LIMITS = Limits(submits=20, per=10.0)  # docs.kie.ai/1973359m0 and docs.sunoapi.org/suno-api/generate-music
DEFAULT_MODELS: Mapping[Operation, str] = {Operation.ADD_INSTRUMENTAL: DEFAULT_INSTRUMENTAL_MODEL}

PATHS: Mapping[Operation, str] = {
    Operation.EXTEND: "/api/v1/generate/extend",
    Operation.UPLOAD_EXTEND: "/api/v1/generate/upload-extend",
    Operation.ADD_INSTRUMENTAL: "/api/v1/generate/add-instrumental",
}
CAMEL_NAMES = wire_names(camel, url="uploadUrl")
STATUS_PATH = "/api/v1/generate/record-info"
"""docs.kie.ai/suno-api/get-music-details, read 2026-11-21."""
RECOVERY_PATH = "/api/v1/suno/recovery"
# docs.sunoapi.org/suno-api/get-recovery-audio-details, read 2026-11-26
RECOVERY_RUNS, RECOVERY_FAILED = "201", 500

NOBODY = URL("https://nobody.invalid/audioext")
"""The demanded callback URL where nobody can reach us: a name under `.invalid` never resolves (RFC 2606)."""

UPLOAD_TABLE = CodeTable(
    # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
    codes={400: Code(), 401: AUTH, 403: AUTH, 405: Code(), 429: RATE, 500: MAYBE_MADE}
)
"""The codes of both vendors' file hosts; nothing there costs anything."""


@frozen
class SunoAccount(EngineAccount):
    """An account at kie.ai or sunoapi.org.

    `upload_url` left out means the vendor's own file host as long as `base_url` is the vendor's, else `base_url`
    itself (as in the sandbox).
    """

    upload_url: URL | None = field(default=None, kw_only=True, converter=attrs.converters.optional(to_base_url))

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; without a *callback* the demanded one leads nowhere."""
        body = wire_values(request, self.vendor.default_models, names=CAMEL_NAMES, rules=self.vendor.rules)
        if isinstance(request, Extend):
            body["defaultParamFlag"] = request.is_custom
        # Required even by those who only poll: docs.kie.ai/suno-api/extend-music, read 2026-11-21
        body["callBackUrl"] = str(NOBODY if callback is None else callback)
        return self.post(PATHS[request.operation], body)

    def build_upload(self, source: Path | str, name: str) -> HttpRequest:
        """Return the call that brings a local file, or the audio at a URL, to the vendor's file host.

        *name* should be new each time: the same name overwrites, and caches keep the old file for a while
        (docs.kie.ai/file-upload-api/quickstart, read 2026-11-21). A file is streamed from disk; a URL is
        fetched by the vendor within 30 s and should be below 100 MB.
        """
        base = self.upload_url or (self.vendor.upload_url if self.base_url.host in self.vendor.hosts else None)
        if isinstance(source, str):
            body = {"fileUrl": source, "uploadPath": UPLOAD_FOLDER, "fileName": name}
            return self.post("/api/file-url-upload", body, base=base)
        # The texts come first, so that a host that reads the stream knows where the file belongs.
        texts = [Part(name="uploadPath", value=UPLOAD_FOLDER), Part(name="fileName", value=name)]
        return self.post("/api/file-stream-upload", [*texts, file_part("file", source, filename=name)], base=base)

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the URL that a submit can use: `downloadUrl`, then `fileUrl`; live answers had no `fileUrl`."""
        keys = evolve(self.answers, table=UPLOAD_TABLE).parse_free(response)
        found = link(keys.get("downloadurl")) or link(keys.get("fileurl"))
        if found is None:
            raise DecodeError(["required field missing @ $.data.downloadUrl"])
        return found


@frozen
class RecoveringAccount(SunoAccount):
    """An account at a vendor that brings back the files of a task whose links died; no page says what it costs."""

    def build_recovery(self, task_id: str, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the recovery of a task's files; its callback is required."""
        return self.post(RECOVERY_PATH, {"sunoTaskId": task_id, "callBackUrl": str(callback or NOBODY)})

    def parse_recovery(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a recovery was made, refused or unknown; where its id stands is on no page."""
        return self.answers.parse_submit(response)

    def build_recovery_status(self, recovery_id: str) -> HttpRequest:
        """Return the GET that asks for the state of a recovery; the parameter's name is on no page."""
        return self.get(f"{RECOVERY_PATH}/record-info", {"taskId": recovery_id})

    def parse_recovery_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what came back, or a failure, or nothing while it runs; or raise ProviderError or DecodeError."""
        answer = self.answers.parse_any(response)
        found = answer.data
        found = plain_keys(found).get("data", found)  # in an envelope of its own it is as likely
        items = found if isinstance(found, list) else []
        if text(answer.seen.outer.get("code")) == RECOVERY_RUNS or (answer.code == OK and found is None):
            return ()
        tracks = tuple(_recovered(item) for item in items[:MAX_TRACKS] if isinstance(item, dict))
        if answer.code == OK and any(track.audio_url for track in tracks):
            return (Progress(claimed_stage=Stage.COMPLETE, tracks=tracks),)
        is_over = answer.code == RECOVERY_FAILED and response.status < HTTP_ERROR_FROM
        if tracks or is_over:
            said = "; ".join(dict.fromkeys(track.failure for track in tracks if track.failure))
            return (Failed(code=str(answer.code), message=said or answer.says),)
        if answer.code != OK:
            raise self.answers.error(response, answer)
        raise DecodeError(["expected a list of tracks @ $.data"], where="the recovery")


def _recovered(item: object) -> Track:
    keys = plain_keys(item)
    audio_url = link(keys.get("audiourl"))
    failure = None if audio_url else words(keys.get("error")) or "it did not come back"
    return Track(id=text(keys.get("id")), title=text(keys.get("title")), audio_url=audio_url, failure=failure)


# --- kie.ai, by either route ------------------------------------------------------------------------------------------

WEBHOOK_TOLERANCE_SECONDS = 300.0  # no page prescribes a window; third parties use this one

# Seen live: HTTP 200 {"code": 500, "msg": "This field is required"}, which no waiting mends.
_REQUEST_FAULT = re.compile(r"\b(is required|required field|(cannot|must not) be (empty|null|blank))\b", re.IGNORECASE)
_UNKNOWN_TASK = re.compile(r"recordInfo is null", re.IGNORECASE)

TABLE = CodeTable(
    # docs.kie.ai/suno-api/extend-music, docs.kie.ai/1973359m0 and docs.kie.ai/market/common/get-task-detail, read
    # 2026-11-21: HTTP's meanings, and 400 for a refusal of the content at submit (public clients, 2026-02 to 08), 433
    # for a key's own hourly, daily or total cap. 408, 501 and a plain 500 may come after a task was made.
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
        # A task that was just made may not be readable yet: docs.kie.ai/market/common/get-task-detail
        (_UNKNOWN_TASK, frozenset({422}), Code(retryable=True)),
    ),
    # "rejected with HTTP 429", whatever the body: docs.kie.ai/1973359m0, read 2026-11-21
    http_refusals=frozenset({429}),
)

ROUTE = EngineVendor(
    rules=FieldRules(
        wire_name="kie",
        is_engine=True,
        # kie.ai's OpenAPI of 2026-08-19 states those of tags; that of the title is a third party's.
        lengths={Operation.ADD_INSTRUMENTAL: {"title": 100, "tags": 1000, "negative_tags": 200}},
        stated_lengths=frozenset({"tags", "negative_tags"}),
        # Required by the page (docs.kie.ai/suno-api/upload-and-extend-audio, read 2026-11-21), optional with default
        # false in the OpenAPI of 2026-08-19; a client of the jobs route requires it: saying so costs nothing.
        upload_needs_instrumental=True,
    ),
    key_variable="KIE_API_KEY",
    webhook_key_variable="KIE_WEBHOOK_KEY",
    base_url=URL("https://api.kie.ai"),
    file_route=FileRoute.UPLOAD,
    table=TABLE,
    limits=LIMITS,
    default_models=DEFAULT_MODELS,
    hosts=frozenset({"api.kie.ai"}),
    upload_url=URL("https://kieai.redpandaai.co"),  # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
    credits_path="/api/v1/chat/credit",  # docs.kie.ai/common-api/get-account-credits, read 2026-11-21
    status_key="taskId",
    # Callback codes: docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
    reasons={
        "400": FailureReason.CONTENT,
        "408": FailureReason.TIMEOUT,
        "413": FailureReason.CONTENT,
        "451": FailureReason.SOURCE,
        "500": FailureReason.GENERATION,
        "501": FailureReason.GENERATION,
    },
    # "501: content generation task failed" and "408: no result for over 10 minutes":
    # docs.kie.ai/market/common/get-task-detail, read 2026-11-21; 531 is of the callbacks' page.
    failed_codes=frozenset({408, 501, 531}),
)
"""The facts that both routes share; each adds its rules, its status call and how long its files are kept."""


def to_webhook_keys(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the webhook keys in *value*, or raise ConfigError: none, one, or several for a rotation."""
    keys = () if value is None else (value,) if isinstance(value, str) else tuple(value)
    # Half a surrogate pair has no UTF-8 bytes to sign with.
    if not all(isinstance(key, str) and key and not checks.LONE_SURROGATE.search(key) for key in keys):
        raise ConfigError("webhook_key must be text, or several texts for a rotation, and none may be empty")
    return keys


@frozen
class KieAccount(SunoAccount):
    """An account at kie.ai, by either route; each says what its settings mean."""

    webhook_key: tuple[str, ...] = field(default=None, kw_only=True, converter=to_webhook_keys, repr=False)
    webhook_tolerance: float = field(
        default=WEBHOOK_TOLERANCE_SECONDS, kw_only=True, validator=checks.setting(checks.seconds)
    )

    @property
    def is_signed(self) -> bool:
        """Whether there is a key that signatures are checked with."""
        return bool(self.webhook_key)

    def verify_webhook(self, hook: Webhook) -> None:
        """Do nothing if *hook* is signed under one of the keys, or if there is none.

        The signature is HMAC-SHA256 of `task_id.timestamp` in Base64, and does not cover the body:
        docs.kie.ai/common-api/webhook-verification, read 2026-11-21.

        Raises:
            WebhookError: it is not authentic (401), or names no task or several (400).
            DecodeError: its ids cannot be read.
        """
        if not self.webhook_key:
            return
        stamp, signature = hook.headers.get("X-Webhook-Timestamp"), hook.headers.get("X-Webhook-Signature")
        if not stamp or not signature:
            raise WebhookError("the delivery is not signed", http_status=401)
        ids = task_ids(hook.body)
        if len(ids) != 1:
            raise WebhookError("the delivery must name one task, which its signature is about", http_status=400)
        signed = f"{ids.pop()}.{stamp}".encode("utf-8", "replace")
        if not hmac_base64_matches(self.webhook_key, signed, signature):
            raise WebhookError("the delivery bears a wrong signature", http_status=401)
        signed_at, here = unix_seconds(stamp), hook.received_at
        if signed_at is None or here is None or not abs(here - signed_at) <= self.webhook_tolerance:
            raise WebhookError("the delivery bears a signature that is not of this time", http_status=401)
