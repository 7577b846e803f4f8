"""What MusicGPT says of a task: the numbered status object and the partial webhooks (sheets 2.3, 2.4)."""

import random
from collections.abc import Mapping, Sequence

import orjson

from .tasks import Hook, Stage, Task

__all__ = ["conversion", "hooks"]

FLAGGED_CODE = 400
#: UNSEEN for extend: MusicAI's are "Music AI" and "music_ai" (sheet 2.3).
CONVERSION_TYPE = "Extend"
SUBTYPE = "extend"
LINES = ("[Verse]", "Another mile of light", "Another song at night", "[Outro]")


def hooks(task: Task, *, seed: int) -> Sequence[Hook]:
    """Write the webhooks that are due at a task's stage, or the one of its failure."""
    if task.failure is not None:
        # No page shows a failure; handlers of real traffic look for these keys (sheet 2.3 d).
        body = {
            "success": False,
            "conversion_type": CONVERSION_TYPE,
            "task_id": task.id,
            "is_flagged": task.failure.code == FLAGGED_CODE,
            "reason": task.failure.message,
        }
        return [Hook(words=("error",), body=body)]
    # Which parts come when varies from task to task, but is the same in each run.
    dice = random.Random(f"{seed}:{task.number}")  # noqa: S311 - it has to be repeatable, not secret
    due: dict[Stage, list[Hook]] = {stage: [] for stage in Stage}
    others = [index for index in range(len(task.takes)) if index != task.leader]
    for index in range(len(task.takes)):
        leads = index == task.leader and bool(others)
        stage = Stage.FIRST if leads else Stage.COMPLETE
        due[stage].append(_audio(task, index, stage))
        if _asked(task, "lyrics_timestamps"):
            due[dice.choice([stage, Stage.COMPLETE])].append(_lyrics(task, index))
    if _asked(task, "generate_album_cover"):
        due[dice.choice(list(Stage))].append(_cover(task))
    for found in due.values():
        dice.shuffle(found)
    return due[task.stage or Stage.TEXT]


def conversion(task: Task, *, base: str, second_id: str) -> Mapping[str, object]:
    """Write the status call's `conversion`, both versions in one object.

    Before there is a file its path is a bare root without an object, as was seen (sheet 2.4).
    """
    shown: dict[str, object] = {
        "task_id": task.id,
        "conversion_id_1": task.take_ids[0],
        "conversion_id_2": second_id,
        "status": _status(task),
        "message": task.failure.message if task.failure is not None else "",
        "createdAt": task.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "updatedAt": task.updated.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if task.failure is not None:
        return shown | {"status_msg": task.failure.message, "is_flagged": task.failure.code == FLAGGED_CODE}
    for number in range(1, len(task.take_ids) + 1):
        done = task.finished(number - 1)
        take = task.takes[number - 1] if task.takes else None
        shown |= {
            f"conversion_path_{number}": take.url if done and take is not None else base,
            f"conversion_path_wav_{number}": take.wav_url if done and take is not None else base,
            f"conversion_duration_{number}": take.seconds if done and take is not None else None,
            f"title_{number}": task.order.title,
            f"lyrics_{number}": "\n".join(_words(task)),
            f"lyrics_timestamped_{number}": _timed(task, number - 1) if done else None,
        }
    if task.takes and _asked(task, "generate_album_cover"):
        shown |= {
            "album_cover_path": task.takes[0].cover_url,
            "album_cover_thumbnail": task.takes[0].cover_url,
        }
    return shown


def _status(task: Task) -> str:
    if task.failure is not None:
        return "FAILED"
    return "COMPLETED" if task.stage is Stage.COMPLETE else "IN_QUEUE"


def _asked(task: Task, name: str) -> bool:
    """Tell whether an optional part is wanted: by default all five webhooks come (seed 004)."""
    return task.order.fields.get(name, "true") == "true"


def _audio(task: Task, index: int, stage: Stage) -> Hook:
    take = task.takes[index]
    body = {
        "success": True,
        "conversion_type": CONVERSION_TYPE,
        "subtype": SUBTYPE,
        "task_id": task.id,
        "conversion_id": take.id,
        "conversion_path": take.url,
        "conversion_path_wav": take.wav_url,
        "conversion_duration": take.seconds,
        "is_flagged": False,
        "reason": "",
        "lyrics": "\n".join(_words(task)),
        "title": task.order.title,
    }
    return Hook(words=(stage.word, "audio"), body=body)


def _lyrics(task: Task, index: int) -> Hook:
    body = {
        "success": True,
        "subtype": "lyrics_timestamped",
        "task_id": task.id,
        "conversion_id": task.takes[index].id,
        "lyrics_timestamped": _timed(task, index),
    }
    return Hook(words=("lyrics", Stage.TEXT.word), body=body)


def _cover(task: Task) -> Hook:
    ids = {f"conversion_id_{number}": take_id for number, take_id in enumerate(task.take_ids, start=1)}
    body = {
        "success": True,
        "subtype": "album_cover_generation",
        "task_id": task.id,
        **ids,
        "image_path": task.takes[0].cover_url,
    }
    return Hook(words=("cover", Stage.TEXT.word), body=body)


def _words(task: Task) -> Sequence[str]:
    fields = task.order.fields
    text = fields.get("lyrics_section_to_extend") or fields.get("lyrics")
    return str(text).splitlines() if text else LINES


def _timed(task: Task, index: int) -> str:
    """Write a JSON text: lines with times in milliseconds; marks of sections take no time (sheet 2.3 b)."""
    words = _words(task)
    begin = task.order.continue_at or 0.0
    step = (task.takes[index].seconds - begin) / max(1, len(words)) if task.takes else 0.0
    lines: list[Mapping[str, object]] = []
    for number, text in enumerate(words):
        start = round(1000 * (begin + number * step))
        end = start if text.startswith("[") else round(1000 * (begin + (number + 1) * step))
        lines.append({"index": number, "text": text, "start": start, "end": end})
    return orjson.dumps(lines).decode()
