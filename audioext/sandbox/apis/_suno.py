"""The common parts of kie.ai's two routes and sunoapi.org: envelope, songs, webhooks, status, recoveries, uploads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath

from aiohttp import web
from attrs import define, evolve, field, frozen
from yarl import URL

from audioext.sandbox.apis._api import Api, Form, json_response, json_text, read_form, read_json_object
from audioext.sandbox.apis._rules import ALL_MODELS, COMMON, EXTENSION, INSTRUMENTAL, OperationRules
from audioext.sandbox.library import content_type, is_address
from audioext.sandbox.models import ApiFacts, Callback, Cause, Refusal, Submission, Task, TaskInput, TaskStage
from audioext.sandbox.state import State

# The `model_name` of songs, as seen live; free text.
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
# Upload errors have their code as HTTP status too.
UPLOAD_CODES = {Cause.KEY: 401, Cause.METHOD: 405, Cause.SOURCE: 500}
INVALID_UPLOAD_CODE = 400


def camel(name: str) -> str:
    """Spell a name as the per-operation routes do."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


EXTEND = OperationRules(
    operation="extend",
    required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
    optional=EXTENSION,
    # V3_5 is retired but still accepted; V6 is on no extend page, but working clients send it.
    models=ALL_MODELS | {"V3_5"},
    spell=camel,
    custom=frozenset({"style", "title", "continue_at"}),
    sung=frozenset({"prompt"}),
    custom_only=frozenset({"persona_id"}),
)
ADD_INSTRUMENTAL = OperationRules(
    operation="add-instrumental",
    required=INSTRUMENTAL | {"call_back_url"},
    optional=COMMON | {"model"},
    models=ALL_MODELS,
    spell=camel,
    default_model="V4_5PLUS",
)


def epoch_milliseconds(moment: datetime) -> int:
    """Return a time in milliseconds, as the status calls have it."""
    return int(moment.timestamp() * 1000)


@frozen(kw_only=True)
class CallbackForm:
    """The form of an API's stage webhooks.

    `wide` adds the `source_` URLs to each song; `all_songs` lists every song from the text stage on, not only finished
    ones. `no_songs` stands for the songs in a failure.
    """

    wide: bool = False
    all_songs: bool = False
    text_message: str = "Text generation completed."
    no_songs: Sequence[object] | None = None

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the webhook for a task's stage, or for its failure: mixed case, `createTime` as text."""
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
class StagedApi(Api):
    """An operation that has a webhook for each stage."""

    form: CallbackForm = CallbackForm()

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the webhook for a task's stage, or for its failure."""
        return self.form.callbacks(task)

    def record_info(self, query: Mapping[str, str]) -> web.Response:
        """Answer ``record-info?taskId=``, at kie.ai for tasks of the jobs route as well."""
        task_id = query.get("taskId", "")
        if not task_id:
            raise Refusal(Cause.MISSING, "taskId is required")
        task = self.find(task_id)
        if task is not None and not task.input.recovers:
            return self.ok(record_info(task))
        if self.is_live:
            return self.ok(None)
        # The jobs route's message; this route's for an unknown task is on no page.
        raise Refusal(Cause.TASK, "recordInfo is null")


@define(eq=False)
class FlatApi(StagedApi):
    """An operation with its own route and a flat body."""

    rules: OperationRules = field(kw_only=True)

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a flat body."""
        body = submission.fields = await read_json_object(request)
        callback_url = body.get(self.rules.spell("call_back_url"))
        submission.callback_url = callback_url if isinstance(callback_url, str) else None
        given = self.rules.read(body, lenient=self.is_live)
        # "Model version must match the source audio's model version": extend-music
        return evolve(given, callback_url=submission.callback_url, keeps_model=True)


RECOVERY = OperationRules(
    operation="recovery",
    required=frozenset({"suno_task_id", "call_back_url"}),
    optional=frozenset(),
    models=frozenset(),
    spell=camel,
)


class RecoveryApi(FlatApi):
    """The recovery of files with expired links, a task of its own; no page states its cost, here it is a task's price.

    https://docs.sunoapi.org/suno-api/recovery-audio and get-recovery-audio-details, read 2026-11-26. kie.ai lists the
    same operation among its older models.
    """

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a body, and find the task whose files it recovers."""
        given = await super().read(request, submission)
        task = self.find(str(given.fields["sunoTaskId"]))
        if task is None or not task.is_complete or task.input.recovers:
            raise Refusal(Cause.TASK, "The task does not exist, or is not complete")
        source, told = self.state.library.key_of(task.tracks[0].url), task.input
        return evolve(given, file_key=source, title=told.title, prompt=told.prompt, recovers=task.tracks)

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the only webhook, which is flat."""
        if task.is_open:
            return []
        words = ("error" if task.failure is not None else "complete",)
        return [Callback(words=words, body={**_recovery(task), "task_id": task.id})]

    def recovery_info(self, query: Mapping[str, str]) -> web.Response:
        """Answer the status call; the parameter's name is on no page."""
        task = self.find(query.get("taskId", ""))
        if task is None or not task.input.recovers:
            raise Refusal(Cause.TASK, "The recovery does not exist")
        return json_response(_recovery(task))


def _recovery(task: Task) -> Mapping[str, object]:
    if task.is_open:
        return {"code": 201, "msg": "running", "data": None}
    failed = task.failure is not None
    word = "failed" if failed else "success"
    files = [
        {
            "id": track.id,
            "audio_url": "" if failed else track.url,
            "title": task.input.title,
            "status": word,
            "error": "clip_error" if failed else "",
        }
        for track in (task.input.recovers if failed else task.tracks)
    ]
    return {"code": 500 if failed else 200, "msg": word, "data": files}


def snake_song(task: Task, index: int, *, wide: bool = False, created: str | int) -> Mapping[str, object]:
    """Return a song in the form of webhooks: 10 keys, or 13 with the `source_` URLs."""
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
    """Return the `data` of the status call.

    https://docs.kie.ai/suno-api/get-music-details, https://docs.sunoapi.org/suno-api/get-music-generation-details
    and live captures: from TEXT_SUCCESS on there are songs, at first without `audioUrl`.
    """
    shown = task.stage is not None and task.failure is None and task.callback_exception != "without"
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
    """Return the status call's `status`; no page maps the failed ones to codes."""
    if task.failure is not None:
        early = task.failure.code in BEFORE_AUDIO_CODES and task.stage is None
        if task.failure.by_source or early:
            return "CREATE_TASK_FAILED"
        return "SENSITIVE_WORD_ERROR" if task.failure.code in CONTENT_CODES else "GENERATE_AUDIO_FAILED"
    if task.callback_exception is not None:
        return "CALLBACK_EXCEPTION"
    return "PENDING" if task.stage is None else f"{task.stage.name}_SUCCESS".removeprefix("COMPLETE_")


def suno_application(
    state: State, facts: ApiFacts, operations: Sequence[tuple[OperationRules, CallbackForm]], *, credit_path: str
) -> web.Application:
    """Return an application with the routes of both kie.ai and sunoapi.org: submits, status, credits and so on."""
    api = RecoveryApi(state, facts, RECOVERY.operation, rules=RECOVERY)
    app = api.application()
    for rules, form in operations:
        submit = FlatApi(state, facts, rules.operation, form, rules=rules).submit
        app.router.add_post(f"/api/v1/generate/{rules.operation}", submit)
    api.add_get(app, "/api/v1/generate/record-info", api.record_info)
    api.add_get(app, credit_path, lambda _: api.ok(state.balance(facts.provider)))
    app.router.add_post("/api/v1/suno/recovery", api.submit)
    api.add_get(app, "/api/v1/suno/recovery/record-info", api.recovery_info)
    app.router.add_route("*", "/api/file-{kind:stream|url}-upload", partial(_upload, api))
    return app


# --- uploads ---------------------------------------------------------------------------------------------------------
# The vendors' upload hosts are under the same bases here; a wrong method gets an error in the form of uploads.
# https://docs.kie.ai/file-upload-api/quickstart and https://docs.sunoapi.org/file-upload-api/quickstart.md


async def _upload(api: Api, request: web.Request) -> web.StreamResponse:
    """Handle an upload: a form with a file, or the URL of one."""
    try:
        if request.method != "POST":
            raise Refusal(Cause.METHOD, f"{request.method} is not allowed")
        api.check_key(request)
        is_form = request.match_info["kind"] == "stream"
        texts, file = await (read_form(request, api.state.library, "file") if is_form else _fetch(api, request))
        data = await _keep(api, texts, file)
    except Refusal as refusal:
        code = UPLOAD_CODES.get(refusal.cause, INVALID_UPLOAD_CODE)
        return json_response({"success": False, "code": code, "msg": refusal.message}, status=code)
    return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})


async def _fetch(api: Api, request: web.Request) -> Form:
    body = await read_json_object(request)
    texts = {name: value for name, value in body.items() if isinstance(value, str)}
    address = texts.get("fileUrl")
    if not is_address(address):
        raise Refusal(Cause.INVALID, "fileUrl must be an http(s) URL")
    return texts, (await api.state.library.fetch(address), URL(address).name or "file")


async def _keep(api: Api, texts: Mapping[str, str], file: tuple[str, str] | None) -> Mapping[str, object]:
    """Store a file under the client's path; the answer is as seen live, and clients use its `downloadUrl`."""
    if file is None:
        raise Refusal(Cause.MISSING, "file is required")
    if not texts.get("uploadPath"):
        raise Refusal(Cause.MISSING, "uploadPath is required")
    (source, own_name), library = file, api.state.library
    name = PurePosixPath(texts.get("fileName") or own_name).name
    # Without "..", which would leave the folder.
    path = "/".join(part for part in f"{texts['uploadPath']}/{name}".split("/") if part not in {"", ".", ".."})
    key = f"uploads/{api.facts.provider}/{path}"
    library.move(source, key)
    return {
        "fileName": name,
        "filePath": path,
        "downloadUrl": library.url(key),
        "fileSize": (await library.path(key)).stat().st_size,
        "mimeType": content_type(path),
        "uploadedAt": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
