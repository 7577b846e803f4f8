"""kie.ai from the inside: the per-operation routes, status, credits, download URLs, uploads, and the jobs route.

https://docs.kie.ai/old-model/suno-api/extend-music and its neighbours, read 2026-11-21; OpenAPI of 2026-08-19.
"""

from __future__ import annotations

from aiohttp import web

from audioext.sandbox.apis import kie_jobs
from audioext.sandbox.apis._api import is_address, read_json_object
from audioext.sandbox.apis._rules import COMMON, INSTRUMENTAL, LEGACY_MODELS, PERSONA, V6_MODELS, OperationRules
from audioext.sandbox.apis._suno import CallbackForm, camel, suno_application
from audioext.sandbox.facts import HTTP_CODES, ApiFacts, Cause, Refusal
from audioext.sandbox.state import State

FACTS = ApiFacts(
    provider="kie",
    # Unknown audio and a file that cannot be fetched have their own codes; the rest is validation.
    codes={
        **HTTP_CODES,
        **dict.fromkeys((Cause.METHOD, Cause.TRACK), 404),
        **dict.fromkeys((Cause.SOURCE, Cause.FORMAT, Cause.TOO_BIG), 451),
    },
    usual_code=422,
    # An unauthenticated call was seen to get HTTP 200; over-limit "rejected with HTTP 429" (1973359m0).
    statuses={429: 429},
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
EXTENDING = COMMON | PERSONA | {"negative_tags", "prompt", "style", "title", "instrumental"}
MODELS = LEGACY_MODELS | V6_MODELS | {"V3_5"}  # retired models are still taken; V6 is sent by clients that run

EXTEND = OperationRules(
    operation="extend",
    # The page's schema also lists `prompt` as required, its prose and the OpenAPI only with the flag.
    required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
    optional=EXTENDING | {"continue_at"},
    models=MODELS,
    spell=camel,
    custom=frozenset({"style", "title", "continue_at"}),
    sung=frozenset({"prompt"}),
    not_instrumental=frozenset({"prompt", "vocal_gender"}),
    custom_only=frozenset({"persona_id"}),
)
UPLOAD_EXTEND = OperationRules(
    operation="upload-extend",
    required=frozenset({"upload_url", "default_param_flag", "continue_at", "model", "call_back_url"}),
    optional=EXTENDING,
    models=MODELS,
    spell=camel,
    # "prompt is optional" by the text of `instrumental`, required by that of `defaultParamFlag`.
    custom=frozenset({"style", "title"}),
    custom_only=frozenset({"persona_id"}),
)
ADD_INSTRUMENTAL = OperationRules(
    operation="add-instrumental",
    is_instrumental=True,
    required=INSTRUMENTAL | {"call_back_url"},
    optional=COMMON | {"model"},
    models=frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
    spell=camel,
    default_model="V4_5PLUS",
)
# Songs are null in a failure of add-instrumental, else `[]`.
OPERATIONS = (
    (EXTEND, CallbackForm(no_songs=())),
    (UPLOAD_EXTEND, CallbackForm(wide=True, no_songs=())),
    (ADD_INSTRUMENTAL, CallbackForm(text_message="Text generation completed successfully.")),
)


def build(state: State) -> web.Application:
    """Make the whole of kie.ai: the per-operation routes, status, credits, download URLs, uploads and jobs."""
    app, api = suno_application(state, FACTS, OPERATIONS, credit_path="/api/v1/chat/credit")

    async def download_url(request: web.Request) -> web.StreamResponse:
        """Exchange a generated file's URL for one to load it by: https://docs.kie.ai/common-api/download-url."""
        api.check_key(request)
        url = (await read_json_object(request)).get("url")
        key = state.files.key_of(url) if is_address(url) else None
        if key is None or not key.startswith(f"{FACTS.provider}/"):
            raise Refusal(Cause.INVALID, "The url is not one of our generated files", names=["url"])
        return api.ok(state.files.url(key))

    app.router.add_post("/api/v1/common/download-url", download_url)
    jobs = kie_jobs.KieJobsApi(state, FACTS)
    app.router.add_post("/api/v1/jobs/createTask", jobs.submit)
    app.router.add_get("/api/v1/jobs/recordInfo", jobs.job_info)
    return app
