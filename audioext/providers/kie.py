"""kie.ai's per-operation routes: https://docs.kie.ai/suno-api/extend-music and its siblings, read 2026-11-21.

Flat camelCase bodies, one envelope for every answer, status by record-info, and a callback for each stage,
signed where a webhook key is set up at https://kie.ai/settings. kie.ai's newer route is `KieJobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from audioext.models.requests import Operation, Request
from audioext.providers import _kie
from audioext.providers._account import DAY_SECONDS, SunoAccount, Vendor, task_query, wire_values
from audioext.providers._engine import CLASSIC_MODELS, EngineRules
from audioext.providers._flat import PATHS, STATUS_PATH, flat_body, flat_status
from audioext.providers._suno_events import callback_events

if TYPE_CHECKING:
    from yarl import URL

    from audioext.http.messages import HttpRequest, HttpResponse, Webhook
    from audioext.models.events import Event
    from audioext.models.record import Record

RULES = EngineRules(
    wire_name="kie",
    listed={
        Operation.EXTEND: CLASSIC_MODELS,
        Operation.UPLOAD_EXTEND: CLASSIC_MODELS,
        # docs.kie.ai/suno-api/add-instrumental, read 2026-11-21
        Operation.ADD_INSTRUMENTAL: frozenset({"V4_5PLUS", "V5", "V5_5"}),
    },
    persona_needs_custom=True,
    upload_needs_continue_at=True,
    instrumental_limits=_kie.INSTRUMENTAL_LIMITS,
)

VENDOR = Vendor(
    wire_name="kie",
    key_variable=_kie.KEY_VARIABLE,
    base_url=_kie.BASE_URL,
    hosts=_kie.HOSTS,
    upload_url=_kie.UPLOAD_URL,
    credits_path=_kie.CREDITS_PATH,
    retention=14 * DAY_SECONDS,  # docs.kie.ai/1973359m0, read 2026-11-21
    table=_kie.TABLE,
    rules=RULES,
)


@frozen
class Kie(SunoAccount):
    """kie.ai by its per-operation routes, which its older pages describe and which still answer.

    `webhook_key` is the key that signs callbacks, or several during a rotation; without one signatures are
    not looked at. `webhook_tolerance` is how far, in seconds, a signature's time may be from ours.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor] = VENDOR

    webhook_key: tuple[str, ...] = field(default=None, kw_only=True, converter=_kie.to_webhook_keys, repr=False)
    webhook_tolerance: float = field(default=_kie.WEBHOOK_TOLERANCE_SECONDS, kw_only=True)

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; without a *callback* the demanded one leads nowhere.

        Raises:
            RequestError: `check` finds a problem.
            UnsupportedError: the API has no such operation.
        """
        self._refuse_problems(request)
        values = wire_values(request)
        if request.operation is Operation.UPLOAD_EXTEND:
            # required here: docs.kie.ai/suno-api/upload-and-extend-audio, read 2026-11-21
            values.setdefault("instrumental", False)
        return self._post(PATHS[request.operation], flat_body(request, values, callback))

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
        return flat_status(self.answers, response, _kie.REASONS)

    def parse_webhook(self, hook: Webhook) -> tuple[Event, ...]:
        """Verify, then decode a delivery.

        Raises:
            WebhookError: it is not authentic (401) or not a delivery at all (400).
            DecodeError: it cannot be read (400).
        """
        delivery = _kie.open_verified(hook, self.webhook_key, tolerance=self.webhook_tolerance)
        return callback_events(delivery, _kie.REASONS)
