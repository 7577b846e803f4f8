"""The server side of kie.ai: the per-operation routes, status, credits, uploads, and the jobs route.

https://docs.kie.ai/old-model/suno-api/extend-music and its neighbours, read 2026-11-21; OpenAPI of 2026-08-19.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

from aiohttp import web
from attrs import define, evolve

from audioext.sandbox.apis import _suno
from audioext.sandbox.apis._api import json_text
from audioext.sandbox.apis._rules import ALL_MODELS, EXTENSION, INSTRUMENTAL, V6_MODELS, OperationRules, read_wrapped
from audioext.sandbox.apis._suno import CallbackForm, StagedApi, epoch_milliseconds, snake_song, suno_application
from audioext.sandbox.models import ApiFacts, Cause, Refusal, Submission, Task, TaskInput, TaskStage
from audioext.sandbox.state import State


def sign(key: str, task_id: str, timestamp: str) -> str:
    """Return standard Base64 of HMAC-SHA256 over ``task_id.timestamp``.

    https://docs.kie.ai/common-api/webhook-verification
    """
    digest = hmac.digest(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256)
    return base64.b64encode(digest).decode("ascii")


def _signature(key: str, task_id: str, _: bytes) -> Mapping[str, str]:
    # No page says whether kie.ai gives a retry a new timestamp; here each attempt has its own.
    timestamp = str(int(time.time()))
    return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": sign(key, task_id, timestamp)}


FACTS = ApiFacts(
    provider="kie",
    # Unknown audio and an unfetchable file have their own codes; the rest is validation.
    codes={
        **dict.fromkeys((Cause.METHOD, Cause.TRACK), 404),
        **dict.fromkeys((Cause.SOURCE, Cause.FORMAT, Cause.TOO_BIG), 451),
    },
    usual_code=422,
    # An unauthenticated call was seen to get HTTP 200; over-limit "rejected with HTTP 429" (1973359m0).
    statuses={429: 429},
    usual_failure=(501, "Audio generation failed."),
    # One account, one limit for both routes: https://docs.kie.ai/1973359m0
    limit="window",
    fetches_first=True,
    # 15 s and three retries: https://docs.kie.ai/suno-api/extend-music-callbacks. The spacing is on no page: our guess.
    timeout_seconds=15.0,
    retry_seconds=(60.0, 300.0, 900.0),
    wants_exactly_200=True,
    sign=_signature,
    is_recorded=True,
)
EXTEND = evolve(
    _suno.EXTEND,
    # The page's schema also lists `prompt` as required, its prose and the OpenAPI only with the flag.
    not_instrumental=frozenset({"prompt", "vocal_gender"}),
)
UPLOAD_EXTEND = evolve(
    _suno.EXTEND,
    operation="upload-extend",
    required=frozenset({"upload_url", "default_param_flag", "continue_at", "model", "call_back_url"}),
    # "prompt is optional" by the text of `instrumental`, required by that of `defaultParamFlag`.
    custom=frozenset({"style", "title"}),
    sung=frozenset(),
)
ADD_INSTRUMENTAL = evolve(
    _suno.ADD_INSTRUMENTAL,
    models=frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
    # The OpenAPI of 2026-08-19, which has no limit for the title. None for these texts is on a page of the others.
    lengths={"tags": 1000, "negative_tags": 200},
)
# Songs are null in a failure of add-instrumental, else `[]`.
OPERATIONS = (
    (EXTEND, CallbackForm(no_songs=())),
    (UPLOAD_EXTEND, CallbackForm(wide=True, no_songs=())),
    (ADD_INSTRUMENTAL, CallbackForm(text_message="Text generation completed successfully.")),
)


# --- the jobs route --------------------------------------------------------------------------------------------------
# https://docs.kie.ai/market/common/get-task-detail, read 2026-11-21; the rest from working public clients.

JOBS_EXTEND = OperationRules(
    operation="ai-music-api/extend",
    required=frozenset({"audio_id", "model"}),
    optional=EXTENSION | {"lyrics", "variety"},
    models=ALL_MODELS,
    # Must not be sent with `instrumental`, according to a working client.
    not_instrumental=frozenset({"lyrics", "prompt", "vocal_gender", "audio_weight"}),
    clamps=True,  # 60 s into a clip of 9.6 s succeeded for a public client
)
JOBS_UPLOAD_AND_EXTEND = evolve(
    JOBS_EXTEND, operation="ai-music-api/upload-and-extend-audio", required=frozenset({"model", "upload_url"})
)
JOBS_ADD_INSTRUMENTAL = evolve(
    ADD_INSTRUMENTAL, operation="ai-music-api/add-instrumental", required=INSTRUMENTAL, spell=str
)
JOBS_RULES = {rules.operation: rules for rules in (JOBS_EXTEND, JOBS_UPLOAD_AND_EXTEND, JOBS_ADD_INSTRUMENTAL)}
JOBS_STATES = {None: "waiting", TaskStage.TEXT: "queuing", TaskStage.FIRST: "generating", TaskStage.COMPLETE: "success"}


@define(eq=False)
class KieJobsApi(StagedApi):
    """All operations at one route; no page shows its limit or webhooks, so they are those of the other routes."""

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read the wrapper, then the `input` of its operation."""
        return await read_wrapped(request, JOBS_RULES, submission, key="callBackUrl")

    def job_info(self, query: Mapping[str, str]) -> web.Response:
        """Answer ``recordInfo?taskId=``, only for tasks of this route."""
        task_id = query.get("taskId", "")
        if not task_id:
            return self.error(400, "taskId is required")
        task = self.find(task_id)
        if task is None or task.input.operation not in JOBS_RULES:
            raise Refusal(Cause.TASK, "recordInfo is null")
        return self.ok(self.record(task))

    def record(self, task: Task) -> Mapping[str, object]:
        """Return the status call's `data`: https://docs.kie.ai/market/common/get-task-detail."""
        failure = task.failure
        ended = epoch_milliseconds(task.updated)
        songs = None
        if task.is_complete and task.callback_exception != "without":
            created = epoch_milliseconds(task.created)
            songs = {"data": [snake_song(task, index, created=created) for index in range(len(task.tracks))]}
        return {
            "taskId": task.id,
            "model": task.input.operation,
            "state": JOBS_STATES[task.stage] if failure is None else "fail",
            "param": json_text(task.input.fields),
            # Measured with a real key, 2026-10: the list, "repeated under data.response".
            "resultJson": json_text(songs) if songs is not None else None,
            "response": songs,
            "failCode": "" if failure is None else str(failure.code),
            "failMsg": "" if failure is None else failure.message,
            "costTime": ended - epoch_milliseconds(task.created) if not task.is_open else None,
            "completeTime": ended if not task.is_open else None,
            "createTime": epoch_milliseconds(task.created),
            "updateTime": ended,
            "creditsConsumed": self.state.price if task.is_complete else 0,
        }


def build(state: State) -> web.Application:
    """Return kie.ai's application: the per-operation routes, status, credits, uploads and jobs."""
    app = suno_application(state, FACTS, OPERATIONS, credit_path="/api/v1/chat/credit")

    # Seen live: a job whose source was missing failed upstream and was refunded.
    jobs = KieJobsApi(state, evolve(FACTS, fetches_first=False), "createTask")
    app.router.add_post("/api/v1/jobs/createTask", jobs.submit)
    jobs.add_get(app, "/api/v1/jobs/recordInfo", jobs.job_info)
    return app
