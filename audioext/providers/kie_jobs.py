"""kie.ai's jobs route: https://docs.kie.ai/market/common/get-task-detail, read 2026-11-21.

One path for every operation, the parameters in snake case under `input`, status by recordInfo with the result as JSON
inside a string. The single operations: a registry of 2026-10-07 made from docs.kie.ai, and several clients' readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import evolve, frozen
from yarl import URL

from audioext.http.messages import HttpRequest
from audioext.models.requests import Operation, Request
from audioext.providers._account import DAY_SECONDS
from audioext.providers._engine import EngineVendor
from audioext.providers._fields import CLASSIC_MODELS, V6_MODELS, wire_names, wire_values
from audioext.providers._suno import ROUTE, KieAccount

FIELD_NAMES = wire_names(url="upload_url")
SLUGS: Mapping[Operation, str] = {
    Operation.EXTEND: "ai-music-api/extend",
    Operation.UPLOAD_EXTEND: "ai-music-api/upload-and-extend-audio",
    Operation.ADD_INSTRUMENTAL: "ai-music-api/add-instrumental",
}

RULES = evolve(
    ROUTE.rules,
    wire_name="kie-jobs",
    listed={
        Operation.EXTEND: CLASSIC_MODELS | V6_MODELS,
        Operation.UPLOAD_EXTEND: CLASSIC_MODELS | V6_MODELS,
        Operation.ADD_INSTRUMENTAL: frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
    },
    # docs.kie.ai/suno-api/upload-and-extend-audio.md states V6's lengths, as of 2026-10-06
    stated=CLASSIC_MODELS | V6_MODELS | {"V3_5"},
)


@frozen
class KieJobs(KieAccount):
    """kie.ai by its newer jobs route; it shares the account's key and limits with `Kie`.

    `webhook_key` is the key that signs callbacks, or several during a rotation; without one signatures are
    not looked at. `webhook_tolerance` is how far, in seconds, a signature's time may be from ours.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[EngineVendor] = evolve(
        ROUTE,
        rules=RULES,
        status_path="/api/v1/jobs/recordInfo",  # docs.kie.ai/market/common/get-task-detail, read 2026-11-21
        retention=DAY_SECONDS,  # result URLs usually die after 24 h: docs.kie.ai/market/common/get-task-detail
        # As for callbacks, but a task that failed upstream was seen with 400, so here that is no word on its content.
        reasons={code: reason for code, reason in ROUTE.reasons.items() if code != "400"},
    )

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; `callBackUrl` is optional on this route."""
        values = wire_values(request, self.vendor.default_models, names=FIELD_NAMES, rules=RULES)
        body: dict[str, object] = {"model": SLUGS[request.operation], "input": values}
        if callback is not None:
            body["callBackUrl"] = str(callback)
        return self.post("/api/v1/jobs/createTask", body)
