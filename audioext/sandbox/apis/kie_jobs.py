"""kie.ai's newer jobs route from the inside: one submit for all operations, one status call, snake case.

https://docs.kie.ai/market/common/get-task-detail, read 2026-11-21; the rest by public clients that run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web
from attrs import evolve

from audioext.sandbox.apis._api import json_text
from audioext.sandbox.apis._rules import (
    COMMON,
    INSTRUMENTAL,
    LEGACY_MODELS,
    PERSONA,
    TEXTS,
    V6_MODELS,
    OperationRules,
    read_wrapped,
)
from audioext.sandbox.apis._suno import CallbackForm, EnvelopeApi, epoch_milliseconds, snake_song
from audioext.sandbox.facts import ApiFacts, Cause, Refusal
from audioext.sandbox.models import Callback, Submission, Task, TaskInput, TaskStage
from audioext.sandbox.state import State

EXTEND = OperationRules(
    operation="ai-music-api/extend",
    required=frozenset({"audio_id", "model"}),
    optional=COMMON | PERSONA | TEXTS | {"lyrics", "instrumental", "negative_tags", "variety"},
    models=LEGACY_MODELS | V6_MODELS,
    # Not to be sent with `instrumental`, says a client that runs.
    not_instrumental=frozenset({"lyrics", "prompt", "vocal_gender", "audio_weight"}),
    clamps=True,  # 60 s into a clip of 9.6 s succeeded for a public client
)
UPLOAD_AND_EXTEND = evolve(
    EXTEND, operation="ai-music-api/upload-and-extend-audio", required=frozenset({"model", "upload_url"})
)
ADD_INSTRUMENTAL = OperationRules(
    operation="ai-music-api/add-instrumental",
    is_instrumental=True,
    required=INSTRUMENTAL,
    optional=COMMON | {"model"},
    models=frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
    default_model="V4_5PLUS",
)
RULES = {rules.operation: rules for rules in (EXTEND, UPLOAD_AND_EXTEND, ADD_INSTRUMENTAL)}
STATES = {None: "waiting", TaskStage.TEXT: "queuing", TaskStage.FIRST: "generating", TaskStage.COMPLETE: "success"}


class KieJobsApi(EnvelopeApi):
    """All operations at one route; the limit is the account's, shared with the other routes."""

    def __init__(self, state: State, facts: ApiFacts) -> None:
        """Take part in this state; a job without its source failed upstream and was refunded, as was seen."""
        super().__init__(state, evolve(facts, fetches_first=False), "createTask")

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read the wrapper, then the `input` of its operation."""
        return await read_wrapped(request, RULES, submission, key="callBackUrl")

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the webhook in the shape that the settings choose; no page shows one."""
        if self.state.settings.jobs_callback == "legacy":
            return CallbackForm().callbacks(task)
        if task.is_open:
            return []
        # One at the end: the status record with the names of the verification page's sample,
        # https://docs.kie.ai/common-api/webhook-verification
        failure = task.failure
        word, kind, code, message = ("complete", "task_completed", 200, "success")
        if failure is not None:
            word, kind, code, message = ("error", "error", failure.code, failure.message)
        data = {**self.record(task), "task_id": task.id, "callbackType": kind}
        return [Callback(words=(word,), body={"taskId": task.id, "code": code, "msg": message, "data": data})]

    async def job_info(self, request: web.Request) -> web.StreamResponse:
        """Answer ``recordInfo?taskId=``, for tasks of this route alone."""
        self.check_key(request)
        task_id = request.query.get("taskId", "")
        if not task_id:
            return self.error(400, "taskId is required")
        task = self.find(task_id)
        if task is None or task.input.operation not in RULES:
            raise Refusal(Cause.TASK, "recordInfo is null")
        return self.ok(self.record(task))

    def record(self, task: Task) -> Mapping[str, object]:
        """Write the status call's `data`: https://docs.kie.ai/market/common/get-task-detail."""
        failure = task.failure
        ended = epoch_milliseconds(task.updated)
        result, response = self._result(task) if task.is_complete and task.shows_tracks else (None, None)
        return {
            "taskId": task.id,
            "model": task.input.operation,
            "state": STATES[task.stage] if failure is None else "fail",
            "param": json_text(task.input.fields),
            "resultJson": json_text(result) if result is not None else None,
            "response": response,
            "failCode": "" if failure is None else str(failure.code),
            "failMsg": "" if failure is None else failure.message,
            "costTime": ended - epoch_milliseconds(task.created) if not task.is_open else None,
            "completeTime": ended if not task.is_open else None,
            "createTime": epoch_milliseconds(task.created),
            "updateTime": ended,
            "creditsConsumed": self.state.settings.price if task.is_complete else 0,
        }

    def _result(self, task: Task) -> tuple[Mapping[str, object] | None, Mapping[str, object] | None]:
        """Write the results in the shape that the settings choose: `resultJson`, and `response` beside it."""
        created = epoch_milliseconds(task.created)
        songs = {"data": [snake_song(task, index, wide=False, created=created) for index in range(len(task.tracks))]}
        urls = {"resultUrls": [track.url for track in task.tracks]}
        shapes: Mapping[str, tuple[Mapping[str, object] | None, Mapping[str, object] | None]] = {
            # Measured with a real key, 2026-10: the list, "repeated under data.response".
            "data": (songs, songs),
            "response.data": (None, songs),
            "resultUrls": (urls, None),
            "resultObject": ({**urls, "resultObject": songs}, None),
        }
        return shapes[self.state.settings.jobs_result]
