"""The recovery of files whose links died, at kie.ai and sunoapi.org.

https://docs.sunoapi.org/suno-api/recovery-audio and get-recovery-audio-details, read 2026-11-26. kie.ai lists the same
operation among its older models. A recovery is a task of its own; no page says what it costs, here a task's price.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from aiohttp import web
from attrs import define

from audioext.sandbox.apis._envelope import EnvelopeApi
from audioext.sandbox.apis._fields import is_address
from audioext.sandbox.apis._http import check_key, json_response, read_json_object
from audioext.sandbox.apis._submit import submitting
from audioext.sandbox.models import Callback, Cause, NewIds, Refusal, Submission, Task, TaskInput

PATH = "/api/v1/suno/recovery"
RUNNING, DONE, FAILED = 201, 200, 500


@define(eq=False, kw_only=True)
class RecoveryApi(EnvelopeApi):
    """The recovery route."""

    def add_routes(self, app: web.Application) -> None:
        """Serve the POST and its status."""
        app.router.add_post(PATH, submitting(self.state, self, operation="recovery"))
        app.router.add_get(f"{PATH}/record-info", self.recovery_info)

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a body, of which both fields are required."""
        body = submission.fields = await read_json_object(request)
        task_id, callback_url = body.get("sunoTaskId"), body.get("callBackUrl")
        for name, value in (("sunoTaskId", task_id), ("callBackUrl", callback_url)):
            if not isinstance(value, str) or not value:
                raise Refusal(Cause.MISSING, f"{name} cannot be null", names=[name])
        if not is_address(callback_url):
            raise Refusal(Cause.INVALID, "callBackUrl is not a URL", names=["callBackUrl"])
        submission.callback_url = str(callback_url)
        task = self.state.find(self.facts.provider, str(task_id))
        if task is None or not task.is_complete or task.input.recovers:
            raise Refusal(Cause.TASK, "The task does not exist, or is not complete", names=["sunoTaskId"])
        return TaskInput(
            operation="recovery",
            kind=task.input.kind,
            fields=body,
            file_key=self.state.files.key_of(task.tracks[0].url),
            title=task.input.title,
            prompt=task.input.prompt,
            outputs=len(task.tracks),
            callback_url=str(callback_url),
            recovers=task.tracks,
        )

    def new_ids(self, given: TaskInput, dice: random.Random) -> NewIds:
        """Mint an id for the recovery; the tracks keep theirs."""
        tracks = tuple(track.id for track in given.recovers)
        return NewIds(task_id=f"{dice.getrandbits(128):032x}", track_ids=tracks)

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the one webhook, which is flat."""
        if task.is_open:
            return []
        code, message = (FAILED, "failed") if task.failure is not None else (DONE, "success")
        body = {"code": code, "msg": message, "task_id": task.id, "data": _files(task)}
        return [Callback(words=("error" if task.failure is not None else "complete",), body=body)]

    async def recovery_info(self, request: web.Request) -> web.StreamResponse:
        """Answer the status call; the parameter's name is on no page."""
        check_key(request, self.facts, self.state.settings)
        task = self.state.find(self.facts.provider, request.query.get("taskId", ""))
        if task is None or not task.input.recovers:
            raise Refusal(Cause.TASK, "The recovery does not exist", names=["taskId"])
        if task.is_open:
            return json_response({"code": RUNNING, "msg": "running", "data": None})
        code, message = (FAILED, "failed") if task.failure is not None else (DONE, "success")
        return json_response({"code": code, "msg": message, "data": _files(task)})


def _files(task: Task) -> Sequence[Mapping[str, object]]:
    """List what came back, in the order of the first task's tracks."""
    error = task.failure
    recovered = {track.id: track.url for track in task.tracks} if error is None else {}
    return [
        {
            "id": track.id,
            "audio_url": recovered.get(track.id, ""),
            "title": task.input.title,
            "status": "success" if track.id in recovered else "failed",
            "error": "" if error is None else "clip_error",
        }
        for track in task.input.recovers
    ]
