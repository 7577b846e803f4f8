"""The server side of vidgo.ai: one submit, one status call, one webhook at the end.

https://docs.vidgo.ai/api-manual/music-series/extend-music and its neighbours, read 2026-11-21.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from aiohttp import web
from attrs import define

from audioext.sandbox.apis._api import Api, json_response
from audioext.sandbox.apis._rules import COMMON, INSTRUMENTAL, LEGACY_MODELS, TEXTS, OperationRules, read_wrapped
from audioext.sandbox.models import ApiFacts, Callback, Cause, Refusal, Submission, Task, TaskInput, TaskStage
from audioext.sandbox.state import State

LETTERS = string.ascii_lowercase + string.digits

FACTS = ApiFacts(
    provider="vidgo",
    # The body's `code` "is described as the HTTP status code". No page maps refusals to codes.
    codes={Cause.TRACK: 404, Cause.TASK: 404},
    usual_code=400,
    usual_failure=(500, "Music generation failed"),
    # 10 s, three retries, any 2xx: https://docs.vidgo.ai/api-manual/task-management/webhooks
    timeout_seconds=10.0,
    retry_seconds=(1.0, 2.0, 4.0),
    new_id=lambda dice: f"task-unified-1{dice.randrange(10**9):09d}-{''.join(dice.choices(LETTERS, k=8))}",
)
MODELS = LEGACY_MODELS - {"V5_5"}  # V5_5 is documented at a sibling only

RULES: Mapping[str, OperationRules] = {
    rules.operation: rules
    for rules in (
        OperationRules(
            operation="extend-music",
            required=frozenset({"audio_id", "mv"}),
            optional=COMMON | TEXTS | {"negative_tags", "default_param_flag", "persona_id"},
            models=MODELS,
            custom=TEXTS,
            model_keys=("mv",),
        ),
        OperationRules(
            operation="upload-and-extend-audio",
            # No page names the model's key for this operation, so it is optional.
            required=frozenset({"upload_url"}),
            optional=COMMON | TEXTS | {"negative_tags", "default_param_flag", "instrumental", "persona_id", "mv"},
            models=MODELS,
            custom=frozenset({"style", "title"}),
            sung=frozenset({"prompt"}),
            model_keys=("mv",),
        ),
        OperationRules(
            operation="add-instrumental",
            required=INSTRUMENTAL,
            # `model` in the page's prose, `mv` at the sibling operation.
            optional=COMMON | {"model", "mv"},
            models=frozenset({"V4_5PLUS", "V5"}),
            model_keys=("model", "mv"),
            default_model="V4_5PLUS",
        ),
    )
}


@define(eq=False)
class VidgoApi(Api):
    """All operations at one route, and the read-only calls."""

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read the wrapper, then the `input` of its operation."""
        return await read_wrapped(request, RULES, submission, key="callback_url")

    def accepted(self, task: Task) -> web.Response:
        """Answer with the task's id."""
        return self.ok({"task_id": task.id, "status": "not_started", "created_time": _created(task)})

    def ok(self, data: object) -> web.Response:
        """Answer with data."""
        return json_response({"code": 200, "data": data})

    def error(self, code: int, message: str) -> web.Response:
        """Answer with the code as HTTP status too, and the message in `error.message`, where clients read it."""
        return json_response({"code": code, "error": {"message": message}}, status=code)

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the only webhook, at the end: the status answer, with `code` 200 even for a failure."""
        if task.is_open:
            return []
        words = ("complete" if task.failure is None else "error",)
        return [Callback(words=words, body={"code": 200, "data": _detail(task)})]

    def detail(self, query: Mapping[str, str]) -> web.Response:
        """Answer the status call."""
        task = self.find(query.get("task_id", ""))
        if task is None:
            raise Refusal(Cause.TASK, "Task not found")
        return self.ok(_detail(task))


def build(state: State) -> web.Application:
    """Return vidgo.ai's application."""
    api = VidgoApi(state, FACTS, "submit")
    app = api.application()
    app.router.add_post("/api/generate/submit", api.submit)
    api.add_get(app, "/api/generate/detail/music", api.detail)
    user = {"email": "sandbox@example.invalid"}
    api.add_get(app, "/api/user/balance", lambda _: api.ok({**user, "credits_amount": state.balance(FACTS.provider)}))
    return app


def _created(task: Task) -> str:
    """Return a time without a zone, as in the samples."""
    return task.created.strftime("%Y-%m-%dT%H:%M:%S")


def _detail(task: Task) -> Mapping[str, object]:
    """Return the status call's `data`: https://docs.vidgo.ai/api-manual/music-series/query-music-detail."""
    given = task.input
    files = [
        {
            "audio_id": track.id,
            "audio_url": track.url,
            "image_url": track.cover_url,
            "title": given.title,
            "tags": given.tags,
            "duration": round(track.seconds),
            "prompt": given.prompt,
        }
        for track in task.tracks
    ]
    status = {None: "not_started", TaskStage.COMPLETE: "finished"}.get(task.stage, "running")
    return {
        "task_id": task.id,
        "status": status if task.failure is None else "failed",
        # "files empty until finished"
        "files": files if task.is_complete else [],
        "created_time": _created(task),
        "error_message": task.failure.message if task.failure is not None else None,
    }
