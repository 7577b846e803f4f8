"""What kie.ai and sunoapi.org say of a task: songs in two spellings, callbacks, the status record."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson

from .tasks import Hook, Kind, Stage, Task

__all__ = [
    "OPERATION_TYPES",
    "callback",
    "camel",
    "epoch_milliseconds",
    "is_upload",
    "record_info",
    "snake_song",
    "status_word",
]

#: What songs say of their model, as seen live (sheet 7); free text.
MODEL_WORDS = {"V3_5": "chirp-v3-5", "V4": "chirp-v4", "V5": "chirp-crow", "V5_5": "chirp-fenix"}
OTHER_MODEL_WORD = "chirp-auk-turbo"
#: https://docs.kie.ai/suno-api/get-music-details; the word for add-instrumental is on no page (sheet 7).
OPERATION_TYPES = {
    "extend": "extend",
    "upload-extend": "upload_extend",
    "add-instrumental": "add_instrumental",
}
CONTENT_CODES = (400, 413)
BEFORE_AUDIO_CODES = (408, 451, 500)


def camel(name: str) -> str:
    """Spell a name as the legacy routes do."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def epoch_milliseconds(moment: datetime) -> int:
    """Write a time as the status calls do (sheet 5.3)."""
    return int(moment.timestamp() * 1000)


def snake_song(task: Task, index: int, *, wide: bool, created: str | int) -> Mapping[str, object]:
    """Write a song as callbacks do: 10 keys, or 13 with the `source_` URLs (sheets 5.1, 5.2)."""
    take = task.takes[index]
    url = take.url if task.finished(index) else ""
    sources = {
        "source_audio_url": url or None,
        "source_stream_audio_url": take.stream_url,
        "source_image_url": take.cover_url,
    }
    return {
        "id": take.id,
        "audio_url": url,
        "stream_audio_url": take.stream_url,
        "image_url": take.cover_url,
        "prompt": task.order.prompt,
        "model_name": MODEL_WORDS.get(task.order.model or "", OTHER_MODEL_WORD),
        "title": task.order.title,
        "tags": task.order.tags,
        "createTime": created,
        "duration": take.seconds if url else None,
        **(sources if wide else {}),
    }


def callback(task: Task, *, key: str, message: str, songs: Sequence[int], wide: bool) -> Hook:
    """Write a stage callback: mixed case, `createTime` as text (sheets 5.1, 5.3)."""
    stage = task.stage or Stage.TEXT
    created = task.created.strftime("%Y-%m-%d %H:%M:%S")
    found = [snake_song(task, index, wide=wide, created=created) for index in songs]
    body = {"code": 200, "msg": message, "data": {"callbackType": stage.word, key: task.id, "data": found}}
    return Hook(words=(stage.word,), body=body)


def status_word(task: Task) -> str:
    """Return the status call's word; the same eight at both (sheet 7)."""
    if task.failure is not None:
        return _failed_word(task)
    if task.shows_callback_exception:
        return "CALLBACK_EXCEPTION"
    words = {
        None: "PENDING",
        Stage.TEXT: "TEXT_SUCCESS",
        Stage.FIRST: "FIRST_SUCCESS",
        Stage.COMPLETE: "SUCCESS",
    }
    return words[task.stage]


def record_info(task: Task) -> Mapping[str, object]:
    """Write the `data` of the status call.

    https://docs.kie.ai/suno-api/get-music-details, https://docs.sunoapi.org/suno-api/get-music-generation-details
    and live captures (sheet 7): from TEXT_SUCCESS on there are songs, at first without `audioUrl`.
    """
    shown = task.stage is not None and task.failure is None and task.shows_results
    songs = [_camel_song(task, index) for index in range(len(task.takes))] if shown else []
    failure = task.failure
    return {
        "taskId": task.id,
        "parentMusicId": task.order.audio_id or "",
        "param": orjson.dumps(task.order.fields).decode(),
        "response": {"taskId": task.id, "sunoData": songs} if shown else None,
        "status": status_word(task),
        "type": MODEL_WORDS.get(task.order.model or "", OTHER_MODEL_WORD),
        "operationType": OPERATION_TYPES[task.order.operation],
        "errorCode": failure.code if failure is not None else None,
        "errorMessage": failure.message if failure is not None else None,
        "createTime": epoch_milliseconds(task.created),
    }


def _camel_song(task: Task, index: int) -> Mapping[str, object]:
    song = snake_song(task, index, wide=True, created=epoch_milliseconds(task.created))
    return {camel(name): value for name, value in song.items()}


def _failed_word(task: Task) -> str:
    """Choose among the three words for a failed task; which goes with which code is on no page."""
    code = task.failure.code if task.failure is not None else 0
    if code in CONTENT_CODES:
        return "SENSITIVE_WORD_ERROR"
    if code in BEFORE_AUDIO_CODES and task.stage is None:
        return "CREATE_TASK_FAILED"
    return "GENERATE_AUDIO_FAILED"


def is_upload(task: Task) -> bool:
    """Tell whether the source of an extension came by URL."""
    return task.order.kind is Kind.EXTENSION and task.order.audio_id is None
