"""The server side of sunoapi.org: the per-operation routes, status, credits, uploads.

https://docs.sunoapi.org/suno-api/extend-music and its neighbours, read 2026-11-21.
"""

from __future__ import annotations

from aiohttp import web
from attrs import evolve

from audioext.sandbox.apis import _suno
from audioext.sandbox.apis._rules import COMMON
from audioext.sandbox.apis._suno import CallbackForm, suno_application
from audioext.sandbox.models import ApiFacts, Cause
from audioext.sandbox.state import State

FACTS = ApiFacts(
    provider="sunoapi",
    # 429 means credits here, rate limits are 405 and 430, 413 is a text too long, 451 a failed download. 400 is our
    # choice where no page states a code: unknown audio, an unknown task.
    codes={Cause.CREDITS: 429, Cause.RATE: 430, Cause.METHOD: 404, Cause.LENGTH: 413, Cause.SOURCE: 451},
    usual_code=400,
    # HTTP 200 with another code was seen; the pages define 200 and 500 only.
    statuses={500: 500},
    usual_failure=(400, "Music generation failed"),
    limit="window",
    # 15 s and three retries: https://docs.sunoapi.org/suno-api/extend-music-callbacks. The spacing is our guess.
    timeout_seconds=15.0,
    retry_seconds=(60.0, 300.0, 900.0),
    wants_exactly_200=True,
)
MISSING = "{} cannot be null"  # seen of `instrumental`, `customMode` and `model`

EXTEND = evolve(_suno.EXTEND, missing=MISSING)
UPLOAD_EXTEND = evolve(
    EXTEND,
    operation="upload-extend",
    required=frozenset({"default_param_flag", "upload_url", "model", "call_back_url"}),
)
ADD_INSTRUMENTAL = evolve(
    _suno.ADD_INSTRUMENTAL,
    optional=COMMON | {"model", "lyrics", "variety"},
    default_model="V6",  # from the newer copy of the page; it was V4_5PLUS
    missing=MISSING,
)


def build(state: State) -> web.Application:
    """Return sunoapi.org's application.

    The bodies of its `text` and `first` webhooks are on no page; the status call lists all songs from the text stage
    on, so these webhooks do as well, without audio URLs yet.
    """
    form = CallbackForm(wide=True, all_songs=True, text_message="Text generated successfully.")
    operations = [(rules, form) for rules in (EXTEND, UPLOAD_EXTEND, ADD_INSTRUMENTAL)]
    return suno_application(state, FACTS, operations, credit_path="/api/v1/generate/credit")
