"""kie.ai from the inside: the per-operation routes, status, credits, download URLs, uploads, and the jobs route.

https://docs.kie.ai/old-model/suno-api/extend-music and its neighbours, read 2026-11-21; OpenAPI of 2026-08-19.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from attrs import evolve

from audioext.sandbox.apis import kie_jobs
from audioext.sandbox.apis._envelope import CallbackForm, EnvelopeApi, FlatApi, camel, is_upload
from audioext.sandbox.apis._fields import COMMON, LEGACY_MODELS, PERSONA, V6_MODELS, OperationRules, is_address
from audioext.sandbox.apis._http import api_application, check_key, read_json_object
from audioext.sandbox.apis._recovery import RecoveryApi
from audioext.sandbox.apis._submit import submitting
from audioext.sandbox.apis._uploads import UploadHost
from audioext.sandbox.models import Callback, Cause, Refusal, Task, TaskKind
from audioext.sandbox.protocol import ApiFacts
from audioext.sandbox.state import State

FACTS = ApiFacts(
    provider="kie",
    # Unknown audio and a file that cannot be fetched have their own codes; the rest is validation.
    codes={
        Cause.KEY: 401,
        Cause.CREDITS: 402,
        Cause.RATE: 429,
        Cause.PATH: 404,
        Cause.METHOD: 404,
        Cause.TRACK: 404,
        Cause.SOURCE: 451,
        Cause.FORMAT: 451,
        Cause.TOO_BIG: 451,
    },
    usual_code=422,
    failures={
        Cause.SOURCE: (451, "Failed to fetch the file."),
        Cause.FORMAT: (451, "The file could not be read as audio."),
        Cause.RANGE: (422, "The audio is too long, or continue_at is not within it."),
        Cause.TRACK: (422, "The audio does not exist."),
    },
    usual_failure=(501, "Audio generation failed."),
    # One account, one limit for both routes: https://docs.kie.ai/1973359m0
    limit="window",
    fetches_first=True,
    # 15 s and three retries: https://docs.kie.ai/suno-api/extend-music-callbacks. The spacing is on no page: our guess.
    timeout_seconds=15.0,
    retry_seconds=(60.0, 300.0, 900.0),
    wants_exactly_200=True,
    signs=True,
    is_recorded=True,
    refunded_codes=frozenset({531}),  # "failed, credits refunded" (extend-music-callbacks)
)
# An unauthenticated call was seen to get HTTP 200; over-limit "rejected with HTTP 429" (1973359m0).
STATUSES = {429: 429}

EXTENDING = COMMON | PERSONA | {"negative_tags", "prompt", "style", "title", "instrumental"}
MODELS = LEGACY_MODELS | V6_MODELS | {"V3_5"}  # retired models are still taken; V6 is sent by clients that run

RULES = (
    OperationRules(
        operation="extend",
        kind=TaskKind.EXTENSION,
        # The page's schema also lists `prompt` as required, its prose and the OpenAPI only with the flag.
        required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
        optional=EXTENDING | {"continue_at"},
        models=MODELS,
        spell=camel,
        custom=frozenset({"style", "title", "continue_at"}),
        sung=frozenset({"prompt"}),
        not_instrumental=frozenset({"prompt", "vocal_gender"}),
        custom_only=frozenset({"persona_id"}),
    ),
    OperationRules(
        operation="upload-extend",
        kind=TaskKind.EXTENSION,
        required=frozenset({"upload_url", "default_param_flag", "continue_at", "model", "call_back_url"}),
        optional=EXTENDING,
        models=MODELS,
        spell=camel,
        # "prompt is optional" by the text of `instrumental`, required by that of `defaultParamFlag`.
        custom=frozenset({"style", "title"}),
        custom_only=frozenset({"persona_id"}),
    ),
    OperationRules(
        operation="add-instrumental",
        kind=TaskKind.INSTRUMENTAL,
        required=frozenset({"upload_url", "title", "tags", "negative_tags", "call_back_url"}),
        optional=COMMON | {"model"},
        models=frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
        spell=camel,
        default_model="V4_5PLUS",
    ),
)


class KieApi(FlatApi):
    """An operation of the per-operation routes."""

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the webhook for a task's stage, or for its failure: null for songs at add-instrumental, else `[]`."""
        if self.rules.kind is TaskKind.INSTRUMENTAL:
            return CallbackForm(text_message="Text generation completed successfully.").callbacks(task)
        return CallbackForm(wide=is_upload(task), no_songs=()).callbacks(task)


class KieHelpers(EnvelopeApi):
    """The calls beside the submits."""

    async def download_url(self, request: web.Request) -> web.StreamResponse:
        """Exchange a generated file's URL for one to load it by: https://docs.kie.ai/common-api/download-url."""
        check_key(request, self.facts, self.state.settings)
        url = (await read_json_object(request)).get("url")
        key = self.state.files.key_of(url) if is_address(url) else None
        if key is None or not key.startswith(f"{FACTS.provider}/"):
            raise Refusal(Cause.INVALID, "The url is not one of our generated files", names=["url"])
        return self.ok(self.state.files.url(key))


def build(state: State) -> web.Application:
    """Make the whole of kie.ai: the per-operation routes, status, credits, download URLs, uploads and jobs."""
    helpers = KieHelpers(facts=FACTS, state=state, statuses=STATUSES)
    app = api_application(state.settings, FACTS, helpers.error)
    for rules in RULES:
        api = KieApi(facts=FACTS, state=state, statuses=STATUSES, rules=rules)
        app.router.add_post(f"/api/v1/generate/{rules.operation}", submitting(state, api, operation=rules.operation))
    RecoveryApi(facts=FACTS, state=state, statuses=STATUSES).add_routes(app)
    app.router.add_get("/api/v1/generate/record-info", helpers.record_info)
    app.router.add_get("/api/v1/chat/credit", helpers.credit)
    app.router.add_post("/api/v1/common/download-url", helpers.download_url)
    UploadHost(state, FACTS).add_routes(app)
    # A job whose source could not be had failed upstream and was refunded, as was seen.
    job_facts = evolve(FACTS, fetches_first=False)
    kie_jobs.add_routes(app, kie_jobs.KieJobsApi(facts=job_facts, state=state, statuses=STATUSES))
    return app
