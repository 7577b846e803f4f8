"""What kie.ai's two routes and sunoapi.org share: envelope, ids, songs, webhooks, the status record and recoveries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from aiohttp import web
from attrs import define, evolve, field, frozen

from audioext.sandbox.apis._api import Api, json_response, json_text, read_json_object
from audioext.sandbox.apis._rules import (
    COMMON,
    INSTRUMENTAL,
    LEGACY_MODELS,
    PERSONA,
    TEXTS,
    V6_MODELS,
    OperationRules,
)
from audioext.sandbox.apis._uploads import add_uploads
from audioext.sandbox.library import is_address
from audioext.sandbox.models import ApiFacts, Callback, Cause, Refusal, Submission, Task, TaskInput, TaskStage
from audioext.sandbox.state import State

HTTP_OK = 200
# What songs say of their model, as seen live; free text.
MODEL_WORDS = {"V3_5": "chirp-v3-5", "V4": "chirp-v4", "V5": "chirp-crow", "V5_5": "chirp-fenix"}
OTHER_MODEL_WORD = "chirp-auk-turbo"
# https://docs.kie.ai/suno-api/get-music-details; the word for add-instrumental is on no page.
OPERATION_TYPES = {
    "extend": "extend",
    "upload-extend": "upload_extend",
    "upload-and-extend-audio": "upload_extend",
    "add-instrumental": "add_instrumental",
}
CONTENT_CODES = (400, 413)
BEFORE_AUDIO_CODES = (408, 451, 500)


def camel(name: str) -> str:
    """Spell a name as the per-operation routes do."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


EXTEND = OperationRules(
    operation="extend",
    required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
    optional=COMMON | PERSONA | TEXTS | {"negative_tags", "instrumental"},
    # V3_5 is retired and still taken; V6 is on no extend page, and sent by clients that run.
    models=LEGACY_MODELS | V6_MODELS | {"V3_5"},
    spell=camel,
    custom=frozenset({"style", "title", "continue_at"}),
    sung=frozenset({"prompt"}),
    custom_only=frozenset({"persona_id"}),
)
ADD_INSTRUMENTAL = OperationRules(
    operation="add-instrumental",
    required=INSTRUMENTAL | {"call_back_url"},
    optional=COMMON | {"model"},
    models=LEGACY_MODELS | V6_MODELS,
    spell=camel,
    default_model="V4_5PLUS",
)


def epoch_milliseconds(moment: datetime) -> int:
    """Write a time as the status calls do."""
    return int(moment.timestamp() * 1000)


@frozen(kw_only=True)
class CallbackForm:
    """How an API writes its stage webhooks.

    `wide` adds the `source_` URLs to each song, `all_songs` lists every song from the text
    on, and not as they are finished. `no_songs` is what a failure has for songs.
    """

    wide: bool = False
    all_songs: bool = False
    text_message: str = "Text generation completed."
    no_songs: Sequence[object] | None = None

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the webhook for a task's stage, or for its failure: mixed case, `createTime` as text."""
        if (failure := task.failure) is not None:
            data = {"callbackType": "error", "task_id": task.id, "data": self.no_songs}
            return [Callback(words=("error",), body={"code": failure.code, "msg": failure.message, "data": data})]
        stage, everything = task.stage or TaskStage.TEXT, tuple(range(len(task.tracks)))
        shown, message = {
            TaskStage.TEXT: ((), self.text_message),
            TaskStage.FIRST: ((task.leader,), "First track generated successfully."),
            TaskStage.COMPLETE: (everything, "All generated successfully."),
        }[stage]
        created = task.created.strftime("%Y-%m-%d %H:%M:%S")
        songs = [
            snake_song(task, index, wide=self.wide, created=created)
            for index in (everything if self.all_songs else shown)
        ]
        data = {"callbackType": stage.word, "task_id": task.id, "data": songs}
        return [Callback(words=(stage.word,), body={"code": 200, "msg": message, "data": data})]


@define(eq=False)
class EnvelopeApi(Api):
    """An API that answers ``{"code", "msg", "data"}``, mostly in HTTP 200."""

    form: CallbackForm = CallbackForm()

    def error(self, code: int, message: str) -> web.Response:
        """Answer with the code in the body; the names are in the message."""
        status = self.facts.statuses.get(code, HTTP_OK)
        return json_response({"code": code, "msg": message, "data": None}, status=status)

    def ok(self, data: object) -> web.Response:
        """Answer with data."""
        return json_response({"code": 200, "msg": "success", "data": data})

    def accepted(self, task: Task) -> web.Response:
        """Answer ``{"code":200,"msg":"success","data":{"taskId":"..."}}``."""
        return self.ok({"taskId": task.id})

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the webhook for a task's stage, or for its failure."""
        return self.form.callbacks(task)

    async def record_info(self, request: web.Request) -> web.StreamResponse:
        """Answer ``record-info?taskId=``, at kie.ai for tasks of the jobs route as well."""
        self.check_key(request)
        task_id = request.query.get("taskId", "")
        if not task_id:
            raise Refusal(Cause.MISSING, "taskId is required")
        task = self.find(task_id)
        if task is not None and not task.input.recovers:
            return self.ok(record_info(task))
        if self.is_live:
            return self.ok(None)
        # The jobs route's words; what this route says of an unknown task is on no page.
        raise Refusal(Cause.TASK, "recordInfo is null")

    async def credit(self, request: web.Request) -> web.StreamResponse:
        """Answer the balance."""
        self.check_key(request)
        return self.ok(self.state.balance(self.facts.provider))


@define(eq=False)
class FlatApi(EnvelopeApi):
    """An operation with a route and a flat body of its own."""

    rules: OperationRules = field(kw_only=True)

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a flat body."""
        body = submission.fields = await read_json_object(request)
        callback_url = body.get(self.rules.spell("call_back_url"))
        submission.callback_url = callback_url if isinstance(callback_url, str) else None
        # "Model version must match the source audio's model version": extend-music
        url = submission.callback_url
        return evolve(self.rules.read(body, sent=body, callback_url=url, lenient=self.is_live), keeps_model=True)


@define(eq=False)
class RecoveryApi(EnvelopeApi):
    """The recovery of files whose links died, a task of its own; no page says what it costs, here a task's price.

    https://docs.sunoapi.org/suno-api/recovery-audio and get-recovery-audio-details, read 2026-11-26. kie.ai lists the
    same operation among its older models.
    """

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a body, of which both fields are required."""
        body = submission.fields = await read_json_object(request)
        task_id, callback_url = body.get("sunoTaskId"), body.get("callBackUrl")
        for name, value in (("sunoTaskId", task_id), ("callBackUrl", callback_url)):
            if not isinstance(value, str) or not value:
                raise Refusal(Cause.MISSING, f"{name} cannot be null")
        if not is_address(callback_url):
            raise Refusal(Cause.INVALID, "callBackUrl is not a URL")
        submission.callback_url = callback_url
        task = self.find(str(task_id))
        if task is None or not task.is_complete or task.input.recovers:
            raise Refusal(Cause.TASK, "The task does not exist, or is not complete")
        return TaskInput(
            operation="recovery",
            fields=body,
            file_key=self.state.library.key_of(task.tracks[0].url),
            title=task.input.title,
            prompt=task.input.prompt,
            callback_url=callback_url,
            recovers=task.tracks,
        )

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the one webhook, which is flat."""
        if task.is_open:
            return []
        words = ("error" if task.failure is not None else "complete",)
        return [Callback(words=words, body={**self._state_of(task), "task_id": task.id})]

    async def recovery_info(self, request: web.Request) -> web.StreamResponse:
        """Answer the status call; the parameter's name is on no page."""
        self.check_key(request)
        task = self.find(request.query.get("taskId", ""))
        if task is None or not task.input.recovers:
            raise Refusal(Cause.TASK, "The recovery does not exist")
        return json_response(self._state_of(task))

    def _state_of(self, task: Task) -> Mapping[str, object]:
        if task.is_open:
            return {"code": 201, "msg": "running", "data": None}
        failed = task.failure is not None
        recovered = {} if failed else {track.id: track.url for track in task.tracks}
        files = [
            {
                "id": track.id,
                "audio_url": recovered.get(track.id, ""),
                "title": task.input.title,
                "status": "success" if track.id in recovered else "failed",
                "error": "clip_error" if failed else "",
            }
            for track in task.input.recovers  # in the order of the first task's
        ]
        return {"code": 500 if failed else 200, "msg": "failed" if failed else "success", "data": files}


def snake_song(task: Task, index: int, *, wide: bool = False, created: str | int) -> Mapping[str, object]:
    """Write a song as webhooks do: 10 keys, or 13 with the `source_` URLs."""
    track = task.tracks[index]
    url = track.url if task.has_audio(index) else ""
    sources = {
        "source_audio_url": url or None,
        "source_stream_audio_url": track.stream_url,
        "source_image_url": track.cover_url,
    }
    return {
        "id": track.id,
        "audio_url": url,
        "stream_audio_url": track.stream_url,
        "image_url": track.cover_url,
        "prompt": task.input.prompt,
        "model_name": MODEL_WORDS.get(task.input.model or "", OTHER_MODEL_WORD),
        "title": task.input.title,
        "tags": task.input.tags,
        "createTime": created,
        "duration": track.seconds if url else None,
        **(sources if wide else {}),
    }


def record_info(task: Task) -> Mapping[str, object]:
    """Write the `data` of the status call.

    https://docs.kie.ai/suno-api/get-music-details, https://docs.sunoapi.org/suno-api/get-music-generation-details
    and live captures: from TEXT_SUCCESS on there are songs, at first without `audioUrl`.
    """
    shown = task.stage is not None and task.failure is None and task.shows_tracks
    created = epoch_milliseconds(task.created)
    songs = [snake_song(task, index, wide=True, created=created) for index in range(len(task.tracks))]
    spelt = [{camel(name): value for name, value in song.items()} for song in songs]
    failure = task.failure
    return {
        "taskId": task.id,
        "parentMusicId": task.input.audio_id or "",
        "param": json_text(task.input.fields),
        "response": {"taskId": task.id, "sunoData": spelt} if shown else None,
        "status": _status_word(task),
        "type": MODEL_WORDS.get(task.input.model or "", OTHER_MODEL_WORD),
        "operationType": OPERATION_TYPES[task.input.operation.rpartition("/")[2]],
        "errorCode": failure.code if failure is not None else None,
        "errorMessage": failure.message if failure is not None else None,
        "createTime": created,
    }


def _status_word(task: Task) -> str:
    """Return the status call's word; which of the failed ones goes with which code is on no page."""
    if task.failure is not None:
        early = task.failure.code in BEFORE_AUDIO_CODES and task.stage is None
        if task.failure.by_source or early:
            return "CREATE_TASK_FAILED"
        return "SENSITIVE_WORD_ERROR" if task.failure.code in CONTENT_CODES else "GENERATE_AUDIO_FAILED"
    if task.shows_callback_exception:
        return "CALLBACK_EXCEPTION"
    return "PENDING" if task.stage is None else f"{task.stage.name}_SUCCESS".removeprefix("COMPLETE_")


def suno_application(
    state: State, facts: ApiFacts, operations: Sequence[tuple[OperationRules, CallbackForm]], *, credit_path: str
) -> web.Application:
    """Make what kie.ai and sunoapi.org have in common: submits, status, credits, recoveries and uploads."""
    api = RecoveryApi(state, facts, "recovery")
    app = api.application()
    for rules, form in operations:
        app.router.add_post(
            f"/api/v1/generate/{rules.operation}", FlatApi(state, facts, rules.operation, form, rules=rules).submit
        )
    app.router.add_get("/api/v1/generate/record-info", api.record_info)
    app.router.add_get(credit_path, api.credit)
    app.router.add_post("/api/v1/suno/recovery", api.submit)
    app.router.add_get("/api/v1/suno/recovery/record-info", api.recovery_info)
    add_uploads(app, api)
    return app
