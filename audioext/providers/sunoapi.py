"""sunoapi.org: https://docs.sunoapi.org/suno-api/extend-music and its siblings, read 2026-11-21.

kie.ai's per-operation routes at another vendor: fewer required fields, V6 for instrumentals, other codes
(429 means no credits here), no signatures. Its newer pages name the host apibox.erweima.ai, which can be set
as `base_url`.
"""

from __future__ import annotations

import re
from typing import ClassVar

from attrs import frozen
from yarl import URL

from audioext.models.requests import Operation
from audioext.providers._account import DAY_SECONDS
from audioext.providers._answers import HTTP_CODES, MAINTENANCE, MAYBE_MADE, NO_CREDITS, RATE, SOURCE, Code, CodeTable
from audioext.providers._engine import EngineVendor
from audioext.providers._fields import CLASSIC_MODELS, V6_MODELS, FieldRules
from audioext.providers._suno import REASONS, RecoveringAccount, suno_vendor
from audioext.providers._words import RATE_WORDS

_CREDIT_WORDS = re.compile("credit", re.IGNORECASE)

RULES = FieldRules(
    wire_name="sunoapi",
    models=CLASSIC_MODELS,
    # docs.sunoapi.org/suno-api/add-instrumental (V6 copy), read 2026-11-21
    instrumental_models=CLASSIC_MODELS | V6_MODELS,
    # docs.sunoapi.org/suno-api/add-instrumental: lyrics in the V6 copy, the title's limit only in the older copy
    lengths={Operation.ADD_INSTRUMENTAL: {"title": 100, "lyrics": 5000}},
    stated_lengths=frozenset({"lyrics"}),
    v6_lyrics=True,  # the V6 copy brought them, "max 5000" with V6
    persona_needs_custom=True,
)


@frozen
class SunoApi(RecoveringAccount):
    """sunoapi.org; its settings are those that `Kie` describes, without the two for signatures.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[EngineVendor] = suno_vendor(
        rules=RULES,
        key_variable="SUNOAPI_API_KEY",
        base_url=URL("https://api.sunoapi.org"),
        table=CodeTable(
            # docs.sunoapi.org/suno-api/extend-music, read 2026-11-21: HTTP's meanings, but 405 and 430 are rate limits,
            # 429 means no credits, 400 "invalid parameters" and 413 a text too long. 402, 409, 422 and 451 are only in
            # its 2025 copy. A plain 500 may come after a task was made.
            codes={
                **HTTP_CODES,
                **dict.fromkeys((400, 413), Code()),
                **dict.fromkeys((405, 430), RATE),
                429: NO_CREDITS,
                451: SOURCE,
                455: MAINTENANCE,
                500: MAYBE_MADE,
            },
            phrases=(
                # 429 is a rate limit in the 2025 copy and means no credits on today's pages, so the text decides first.
                (_CREDIT_WORDS, frozenset({402, 405, 429, 430}), NO_CREDITS),
                (RATE_WORDS, frozenset({429}), RATE),
            ),
        ),
        retention=14 * DAY_SECONDS,  # its pages say both 15 and 14 days; the shorter is safe
        hosts=frozenset({"api.sunoapi.org", "apibox.erweima.ai"}),
        upload_url=URL("https://sunoapiorg.redpandaai.co"),  # docs.sunoapi.org/file-upload-api/quickstart
        credits_path="/api/v1/generate/credit",  # on no page that we found; third-party clients agree on it
        reasons=REASONS,  # without 400, which covers both parameters and content
    )
