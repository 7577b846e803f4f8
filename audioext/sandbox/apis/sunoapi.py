"""sunoapi.org from the inside: the per-operation routes, status, credits, uploads.

https://docs.sunoapi.org/suno-api/extend-music and its neighbours, read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from attrs import evolve

from audioext.sandbox.apis._envelope import CallbackForm, EnvelopeApi, FlatApi, camel
from audioext.sandbox.apis._fields import COMMON, LEGACY_MODELS, PERSONA, TEXTS, V6_MODELS, OperationRules
from audioext.sandbox.apis._http import api_application
from audioext.sandbox.apis._recovery import RecoveryApi
from audioext.sandbox.apis._submit import submitting
from audioext.sandbox.apis._uploads import UploadHost
from audioext.sandbox.models import Callback, Cause, Task, TaskKind
from audioext.sandbox.protocol import ApiFacts
from audioext.sandbox.state import State

FACTS = ApiFacts(
    provider="sunoapi",
    # 429 means credits here, rates are 405 and 430, 413 is a text too long. 400 stands for all that no page gives a
    # code: unknown audio, an unknown task.
    codes={
        Cause.KEY: 401,
        Cause.CREDITS: 429,
        Cause.RATE: 430,
        Cause.PATH: 404,
        Cause.METHOD: 404,
        Cause.LENGTH: 413,
        Cause.TOO_BIG: 413,
    },
    usual_code=400,
    failures={
        Cause.SOURCE: (451, "File download failed"),
        Cause.FORMAT: (400, "The audio format is not supported"),
        Cause.RANGE: (400, "The audio is too long, or continueAt is not within it"),
    },
    usual_failure=(400, "Music generation failed"),
    limit="window",
    # 15 s and three retries: https://docs.sunoapi.org/suno-api/extend-music-callbacks. The spacing is our guess.
    timeout_seconds=15.0,
    retry_seconds=(60.0, 300.0, 900.0),
    wants_exactly_200=True,
)
# HTTP 200 with another code was seen; the pages define 200 and 500 only.
STATUSES = {500: 500}

MODELS = LEGACY_MODELS | V6_MODELS
MISSING = "{} cannot be null"  # seen of `instrumental`, `customMode` and `model`

EXTEND = OperationRules(
    operation="extend",
    kind=TaskKind.EXTENSION,
    required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
    optional=COMMON | PERSONA | TEXTS | {"negative_tags", "instrumental"},
    # V3_5 is in the older page; V6 is on no extend page, but sent on the same paths.
    models=MODELS | {"V3_5"},
    spell=camel,
    custom=frozenset({"style", "title", "continue_at"}),
    sung=frozenset({"prompt"}),
    custom_only=frozenset({"persona_id"}),
    missing=MISSING,
)
UPLOAD_EXTEND = evolve(
    EXTEND,
    operation="upload-extend",
    required=frozenset({"default_param_flag", "upload_url", "model", "call_back_url"}),
)
ADD_INSTRUMENTAL = OperationRules(
    operation="add-instrumental",
    kind=TaskKind.INSTRUMENTAL,
    required=frozenset({"upload_url", "title", "tags", "negative_tags", "call_back_url"}),
    optional=COMMON | {"model", "lyrics", "variety"},
    models=MODELS,
    spell=camel,
    default_model="V6",  # by the newer copy of the page; it was V4_5PLUS
    missing=MISSING,
)


class SunoOrgApi(FlatApi):
    """An operation of sunoapi.org."""

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the webhook for a task's stage, or for its failure.

        The bodies of `text` and `first` are on no page; the status call lists all songs from the text on, so these
        do as well, with no audio URL yet.
        """
        key = self.state.settings.sunoapi_task_key
        form = CallbackForm(task_key=key, wide=True, all_songs=True, text_message="Text generated successfully.")
        return form.callbacks(task)


def build(state: State) -> web.Application:
    """Make the whole of sunoapi.org."""
    helpers = EnvelopeApi(facts=FACTS, state=state, statuses=STATUSES)
    app = api_application(state.settings, FACTS, helpers.error)
    for rules in (EXTEND, UPLOAD_EXTEND, ADD_INSTRUMENTAL):
        api = SunoOrgApi(facts=FACTS, state=state, statuses=STATUSES, rules=rules)
        app.router.add_post(f"/api/v1/generate/{rules.operation}", submitting(state, api, operation=rules.operation))
    RecoveryApi(facts=FACTS, state=state, statuses=STATUSES).add_routes(app)
    app.router.add_get("/api/v1/generate/record-info", helpers.record_info)
    app.router.add_get("/api/v1/generate/credit", helpers.credit)
    UploadHost(state, FACTS).add_routes(app)
    return app
