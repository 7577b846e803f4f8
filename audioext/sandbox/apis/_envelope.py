"""What kie.ai's two routes and sunoapi.org share: envelope, ids, songs, webhooks, the status record."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from aiohttp import web
from attrs import define, frozen

from audioext.sandbox.apis._fields import OperationRules
from audioext.sandbox.apis._http import check_key, json_response, json_text, read_json_object
from audioext.sandbox.models import Callback, Cause, NewIds, Refusal, Submission, Task, TaskInput, TaskKind, TaskStage
from audioext.sandbox.protocol import ApiFacts
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


def epoch_milliseconds(moment: datetime) -> int:
    """Write a time as the status calls do."""
    return int(moment.timestamp() * 1000)


def new_uuid(dice: random.Random) -> str:
    """Return a random UUID, as tracks have."""
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


@define(eq=False, kw_only=True)
class EnvelopeApi:
    """An API that answers ``{"code", "msg", "data"}``, mostly in HTTP 200; `statuses` are the exceptions, by code."""

    facts: ApiFacts
    state: State
    statuses: Mapping[int, int]

    def error(self, code: int, message: str, names: Sequence[str] = ()) -> web.Response:
        """Answer with the code in the body; the names are in the message."""
        del names
        status = self.statuses.get(code, HTTP_OK)
        return json_response({"code": code, "msg": message, "data": None}, status=status)

    def ok(self, data: object) -> web.Response:
        """Answer with data."""
        return json_response({"code": 200, "msg": "success", "data": data})

    def accepted(self, task: Task) -> web.Response:
        """Answer ``{"code":200,"msg":"success","data":{"taskId":"..."}}``."""
        return self.ok({"taskId": task.id})

    def new_ids(self, given: TaskInput, dice: random.Random) -> NewIds:
        """Mint 32 hex digits for the task and a UUID for each track, as seen live."""
        tracks = tuple(new_uuid(dice) for _ in range(given.outputs))
        return NewIds(task_id=f"{dice.getrandbits(128):032x}", track_ids=tracks)

    async def record_info(self, request: web.Request) -> web.StreamResponse:
        """Answer ``record-info?taskId=``, at kie.ai for tasks of the jobs route as well."""
        check_key(request, self.facts, self.state.settings)
        task_id = request.query.get("taskId", "")
        if not task_id:
            raise Refusal(Cause.MISSING, "taskId is required", names=["taskId"])
        task = self.state.find(self.facts.provider, task_id)
        if task is not None and not task.input.recovers:
            return self.ok(record_info(task))
        if self.facts.is_live(self.state.settings):
            return self.ok(None)
        # The jobs route's words; what this route says of an unknown task is on no page.
        raise Refusal(Cause.TASK, "recordInfo is null")

    async def credit(self, request: web.Request) -> web.StreamResponse:
        """Answer the balance."""
        check_key(request, self.facts, self.state.settings)
        return self.ok(self.state.balance(self.facts.provider))


@define(eq=False, kw_only=True)
class FlatApi(EnvelopeApi):
    """An operation with a route and a flat body of its own."""

    rules: OperationRules

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a flat body."""
        body = await read_json_object(request)
        submission.fields = body
        callback_url = body.get(self.rules.spell("call_back_url"))
        submission.callback_url = callback_url if isinstance(callback_url, str) else None
        lenient = self.facts.is_live(self.state.settings)
        given = self.rules.read(body, submission, sent=body, lenient=lenient)
        self._check_source_model(given)
        return given

    def _check_source_model(self, given: TaskInput) -> None:
        """Refuse a model other than the source track's; a ready track fits all.

        "Model version must match the source audio's model version": extend-music
        """
        if given.audio_id is None:
            return
        try:
            source = self.state.library.track(given.audio_id)
        except Refusal:
            if self.facts.is_live(self.state.settings):
                return  # it is taken, and the task fails later
            raise
        if source.model not in (None, given.model):
            raise Refusal(Cause.MODEL, f"model must match the source audio's, {source.model}", names=["model"])


@frozen(kw_only=True)
class CallbackForm:
    """How an API writes its stage webhooks.

    `task_key` names the task, `wide` adds the `source_` URLs to each song, `all_songs` lists every song from the text
    on, and not as they are finished. `no_songs` is what a failure has for songs.
    """

    task_key: str = "task_id"
    wide: bool = False
    all_songs: bool = False
    text_message: str = "Text generation completed."
    no_songs: Sequence[object] | None = None

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Write the webhook for a task's stage, or for its failure: mixed case, `createTime` as text."""
        if (failure := task.failure) is not None:
            data = {"callbackType": "error", self.task_key: task.id, "data": self.no_songs}
            return [Callback(words=("error",), body={"code": failure.code, "msg": failure.message, "data": data})]
        stage = task.stage or TaskStage.TEXT
        everything = tuple(range(len(task.tracks)))
        shown = {TaskStage.TEXT: (), TaskStage.FIRST: (task.ids.leader,), TaskStage.COMPLETE: everything}[stage]
        message = {
            TaskStage.TEXT: self.text_message,
            TaskStage.FIRST: "First track generated successfully.",
            TaskStage.COMPLETE: "All generated successfully.",
        }[stage]
        created = task.created.strftime("%Y-%m-%d %H:%M:%S")
        songs = [
            snake_song(task, index, wide=self.wide, created=created)
            for index in (everything if self.all_songs else shown)
        ]
        data = {"callbackType": stage.word, self.task_key: task.id, "data": songs}
        return [Callback(words=(stage.word,), body={"code": 200, "msg": message, "data": data})]


def snake_song(task: Task, index: int, *, wide: bool, created: str | int) -> Mapping[str, object]:
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


def is_upload(task: Task) -> bool:
    """Tell whether the source of an extension came by URL."""
    return task.input.kind is TaskKind.EXTENSION and task.input.audio_id is None
