"""kie.ai's newer jobs route from the inside: one submit for all operations, one status call, snake case.

https://docs.kie.ai/market/common/get-task-detail; the rest by public clients that run (sheet B).
"""

from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web
from attrs import define

from ._bodies import as_object, check_bearer, read_json_object
from ._clerk import Envelope, EnvelopeClerk, known_fields
from ._fields import LEGACY_MODELS, V6_MODELS, Spec, check, is_address, order_of
from ._suno import callback, epoch_milliseconds, snake_song
from .deliver import Manners
from .desk import Limiter, submitting
from .studio import Studio
from .tasks import Hook, Kind, Order, Refusal, Stage, Submission, Task, Trouble

__all__ = ["SPECS", "add_routes"]

COMMON = frozenset({"vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"})
EXTENDING = COMMON | {
    "continue_at",
    "prompt",
    "lyrics",
    "style",
    "title",
    "instrumental",
    "negative_tags",
    "persona_id",
    "persona_model",
    "variety",
}
#: "instrumental:true -> do not send" these (sheet B).
NOT_INSTRUMENTAL = frozenset({"lyrics", "prompt", "vocal_gender", "audio_weight"})
MODELS = LEGACY_MODELS | V6_MODELS

SPECS: Mapping[str, Spec] = {
    spec.operation: spec
    for spec in (
        Spec(
            operation="ai-music-api/extend",
            kind=Kind.EXTENSION,
            required=frozenset({"audio_id", "model"}),
            optional=EXTENDING,
            models=MODELS,
            not_instrumental=NOT_INSTRUMENTAL,
        ),
        Spec(
            operation="ai-music-api/upload-and-extend-audio",
            kind=Kind.EXTENSION,
            required=frozenset({"model", "upload_url"}),
            optional=EXTENDING,
            models=MODELS,
            not_instrumental=NOT_INSTRUMENTAL,
        ),
        Spec(
            operation="ai-music-api/add-instrumental",
            kind=Kind.INSTRUMENTAL,
            required=frozenset({"upload_url", "title", "tags", "negative_tags"}),
            optional=COMMON | {"model"},
            models=frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
            default_model="V4_5PLUS",
        ),
    )
}


@define(eq=False, kw_only=True)
class JobsClerk(EnvelopeClerk):
    """Takes orders for all operations at one route."""

    async def read(self, request: web.Request, submission: Submission) -> Order:
        """Read the wrapper, then the `input` of its operation."""
        body = await read_json_object(request)
        submission.fields = body
        slug = body.get("model")
        if not isinstance(slug, str) or slug not in SPECS:
            raise Refusal(Trouble.MODEL, f"The model {slug} is not supported", names=["model"])
        submission.operation = slug
        callback_url = body.get("callBackUrl")
        if callback_url is not None and not is_address(callback_url):
            raise Refusal(Trouble.INVALID, "callBackUrl must be an http(s) URL", names=["callBackUrl"])
        submission.callback_url = callback_url
        given = as_object(body.get("input"))
        if given is None:
            raise Refusal(Trouble.MISSING, "input is required", names=["input"])
        fields = known_fields(given, SPECS[slug], submission)
        check(fields, SPECS[slug])
        return order_of(fields, SPECS[slug], callback_url=callback_url, sent=body)

    def hooks(self, task: Task) -> Sequence[Hook]:
        """Write the callback in the shape that the settings choose; no page shows one (sheet B)."""
        if self.studio.settings.jobs_callback == "status":
            return self._status_hooks(task)
        if task.failure is not None:
            data = {"callbackType": "error", "task_id": task.id, "data": None}
            body = {"code": task.failure.code, "msg": task.failure.message, "data": data}
            return [Hook(words=("error",), body=body)]
        messages = {
            Stage.TEXT: "Text generation completed.",
            Stage.FIRST: "First track generated successfully.",
            Stage.COMPLETE: "All generated successfully.",
        }
        stage = task.stage or Stage.TEXT
        songs = {Stage.TEXT: (), Stage.FIRST: (task.leader,), Stage.COMPLETE: tuple(range(len(task.takes)))}[stage]
        return [callback(task, key="task_id", message=messages[stage], songs=songs, wide=False)]

    def _status_hooks(self, task: Task) -> Sequence[Hook]:
        """Write the status record once, at the end, with the names of the verification page's sample (K8)."""
        if task.is_open:
            return []
        failure = task.failure
        body = {
            "taskId": task.id,
            "code": 200 if failure is None else failure.code,
            "msg": "success" if failure is None else failure.message,
            "data": {
                **_record(task, self.studio),
                "task_id": task.id,
                "callbackType": "task_completed" if failure is None else "error",
            },
        }
        return [Hook(words=("complete" if failure is None else "error",), body=body)]


def add_routes(app: web.Application, studio: Studio, envelope: Envelope, *, manners: Manners, limiter: Limiter) -> None:
    """Add the jobs route's two calls; the limit is the account's, shared with the other routes."""
    clerk = JobsClerk(
        provider="kie",
        studio=studio,
        envelope=envelope,
        manners=manners,
        limiter=limiter,
        # A task whose source could not be had failed upstream and was refunded (sheet B).
        fetches_first=False,
    )

    async def record_info(request: web.Request) -> web.StreamResponse:
        check_bearer(request, studio.settings.api_key)
        task_id = request.query.get("taskId", "")
        if not task_id:
            # 400: "missing taskId" (sheet 8.1).
            return envelope.no(400, "taskId is required")
        task = studio.tasks.get(task_id)
        if task is None or task.order.operation not in SPECS:
            raise Refusal(Trouble.TASK, "recordInfo is null")
        return envelope.ok(_record(task, studio))

    app.router.add_post("/api/v1/jobs/createTask", submitting(studio, clerk, operation="createTask"))
    app.router.add_get("/api/v1/jobs/recordInfo", record_info)


def _record(task: Task, studio: Studio) -> Mapping[str, object]:
    """Write the status call's `data`: https://docs.kie.ai/market/common/get-task-detail (sheet B)."""
    failure = task.failure
    done = task.stage is Stage.COMPLETE and failure is None
    updated = epoch_milliseconds(task.updated)
    return {
        "taskId": task.id,
        "model": task.order.operation,
        "state": _state(task),
        "param": orjson.dumps(task.order.fields).decode(),
        "resultJson": orjson.dumps(_result(task, studio)).decode() if done and task.shows_results else None,
        "failCode": "" if failure is None else str(failure.code),
        "failMsg": "" if failure is None else failure.message,
        "costTime": updated - epoch_milliseconds(task.created) if not task.is_open else None,
        "completeTime": updated if not task.is_open else None,
        "createTime": epoch_milliseconds(task.created),
        "updateTime": updated,
        "creditsConsumed": studio.settings.price if done else 0,
    }


def _state(task: Task) -> str:
    if task.failure is not None:
        return "fail"
    words = {None: "waiting", Stage.TEXT: "queuing", Stage.FIRST: "generating", Stage.COMPLETE: "success"}
    return words[task.stage]


def _result(task: Task, studio: Studio) -> Mapping[str, object]:
    """Write the results in the shape that the settings choose (sheet B)."""
    created = epoch_milliseconds(task.created)
    songs = [snake_song(task, index, wide=False, created=created) for index in range(len(task.takes))]
    match studio.settings.jobs_result:
        case "response.data":
            return {"response": {"data": songs}}
        case "resultUrls":
            return {"resultUrls": [take.url for take in task.takes]}
        case "resultObject":
            return {"resultObject": {"data": songs}}
        case _:
            # Measured: the list, "repeated under data.response" (sheet B).
            return {"data": songs, "response": {"data": songs}}
