"""kie.ai's per-operation routes: https://docs.kie.ai/suno-api/extend-music and its siblings, read 2026-11-21.

Flat camelCase bodies, one envelope for every answer, status by record-info, and a callback for each stage,
signed where a webhook key is set up at https://kie.ai/settings. kie.ai's newer route is `KieJobs`.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import evolve, frozen

from audioext.models.requests import Operation
from audioext.providers._account import DAY_SECONDS
from audioext.providers._engine import EngineVendor
from audioext.providers._fields import CLASSIC_MODELS, V6_MODELS
from audioext.providers._suno import ROUTE, STATUS_PATH, KieAccount, RecoveringAccount

RULES = evolve(
    ROUTE.rules,
    listed={
        Operation.EXTEND: CLASSIC_MODELS,
        Operation.UPLOAD_EXTEND: CLASSIC_MODELS,
        # docs.kie.ai/suno-api/add-instrumental and its old-model copy, as a client with real keys read them in 2026-10
        Operation.ADD_INSTRUMENTAL: frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
    },
    has_custom_mode=True,
    persona_needs_custom=True,
    uploads_sing_unasked=True,
    upload_needs_continue_at=True,
)


@frozen
class Kie(RecoveringAccount, KieAccount):
    """kie.ai by its per-operation routes, which its older pages describe and which still answer.

    `webhook_key` is the key that signs callbacks, or several during a rotation; without one signatures are
    not looked at. `webhook_tolerance` is how far, in seconds, a signature's time may be from ours.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[EngineVendor] = evolve(
        ROUTE,
        rules=RULES,
        status_path=STATUS_PATH,
        retention=14 * DAY_SECONDS,  # docs.kie.ai/1973359m0, read 2026-11-21
    )
