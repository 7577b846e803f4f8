"""The server side of MusicGPT: a multipart submit, a status with two sets of keys, and up to five partial webhooks.

https://docs.musicgpt.com/api-documentation/conversions/extend and endpoint/getById, read 2026-11-21.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from aiohttp import web
from attrs import define

from audioext.sandbox.apis._api import Api, Form, json_response, json_text, read_form, read_json_object
from audioext.sandbox.models import ApiFacts, Callback, Cause, Refusal, Submission, Task, TaskInput, TaskStage, new_uuid
from audioext.sandbox.state import State

PREFIXES = ("", "/v1", "/api/public/v1")
"""The server is "https://api.musicgpt.com/api/public/v1", in newer pages ".../api/public" with "/v1" paths."""
ETA_SECONDS = 120
SINGLE = "single_song_generation_request"
"""With num_outputs=1 this text replaces the second id (from a live client)."""
CONVERSION = "EXTEND"
CONVERSION_TYPES = frozenset({CONVERSION, "MUSIC_AI", "COVER", "REMIX", "INPAINT", "SING_OVER_INSTRUMENTAL"})
"""The documented types of songs with two versions; others exist."""
INVALID_CODE = 422
FLAGGED_CODE = 400
LINES = ("[Verse]", "Another mile of light", "Another song at night", "[Outro]")

FACTS = ApiFacts(
    provider="musicgpt",
    # utilities/error; 401 from the vendor's packages
    codes={Cause.TASK: 404},
    usual_code=INVALID_CODE,
    usual_failure=(500, "Conversion failed"),
    key_prefix="",  # the key is sent raw: index/authentication
    limit="parallel",
    is_recorded=True,
    any_leads=True,  # which version is ready first varies
    new_id=new_uuid,  # as in real traffic
    # Repeated deliveries were seen, but no page states timeouts or retries: our guess.
    timeout_seconds=15.0,
    retry_seconds=(10.0, 60.0, 300.0),
)


CHECKS: Mapping[str, str] = {
    "extend_after": r"\d+(\.\d*)?|\.\d+",
    # The parameter table of conversions/extend. The prompt's limit is on no page.
    "lyrics": r"(?s:.{0,2000})",
    "lyrics_section_to_extend": r"(?s:.{0,3000})",
    "gender": "male|female|neutral",
    "num_outputs": "1|2",
    "webhook_url": r"(?i:https?)://[^/?#\s]+.*",
    "generate_album_cover": "true|false",
    "lyrics_timestamps": "true|false",
}
"""The pattern of each field."""


@define(eq=False)
class MusicGptApi(Api):
    """The extend call and the status call."""

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check the form."""
        texts, file = await self._form(request)
        shown: dict[str, object] = dict(texts)
        if file is not None:
            size = (await self.state.library.path(file[0])).stat().st_size
            shown["audio_file"] = {"filename": file[1], "size": size}
        submission.fields = shown
        submission.callback_url = texts.get("webhook_url")
        _check(texts, has_file=file is not None)
        return TaskInput(
            operation="extend",
            fields=shown,
            url=texts.get("audio_url") if file is None else None,
            file_key=file[0] if file is not None else None,
            continue_at=float(texts["extend_after"]),
            title=texts.get("title", ""),
            prompt=texts.get("prompt", ""),
            outputs=int(texts.get("num_outputs", "2")),
            callback_url=texts.get("webhook_url"),
        )

    async def _form(self, request: web.Request) -> Form:
        """Read multipart, the urlencoded form of the docs' sample, or the JSON of the vendor's n8n node."""
        if request.content_type == "application/x-www-form-urlencoded":
            posted = await request.post()
            return {name: value for name, value in posted.items() if isinstance(value, str)}, None
        if request.content_type == "application/json":
            body = await read_json_object(request)
            given = {name: value for name, value in body.items() if value is not None}
            return {name: each if isinstance(each, str) else json_text(each) for name, each in given.items()}, None
        return await read_form(request, self.state.library, "audio_file")

    def accepted(self, task: Task) -> web.Response:
        """Answer with the ids."""
        told = {"success": True, "message": "Extend request submitted successfully", "task_id": task.id}
        return json_response({**told, **_both_ids(task), "eta": ETA_SECONDS, "credit_estimate": self.state.price})

    def error(self, code: int, message: str) -> web.Response:
        """Answer ``{"detail": ...}``."""
        return json_response({"detail": message}, status=code)

    def refused(self, refusal: Refusal) -> web.Response:
        """Answer with a list for wrong fields, else with a text (no page shows a 422)."""
        code = self.facts.code(refusal.cause)
        if code != INVALID_CODE:
            return self.error(code, refusal.message)
        kind = "missing" if refusal.cause is Cause.MISSING else "value_error"
        names = refusal.names or ("body",)
        detail = [{"loc": ["body", name], "msg": refusal.message, "type": kind} for name in names]
        return json_response({"detail": detail}, status=code)

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the partial webhooks that are due at a task's stage, or the one for its failure."""
        if (failure := task.failure) is not None:
            # No page shows a failure; handlers in working clients read these keys.
            flagged = failure.code == FLAGGED_CODE
            return [_part(task, "error", success=False, is_flagged=flagged, reason=failure.message)]
        # The order of the parts varies from task to task, but is the same in each run.
        dice = random.Random(f"{self.state.dice}:{task.number}")  # noqa: S311 - repeatable, not secret
        due: dict[TaskStage, list[Callback]] = {stage: [] for stage in TaskStage}
        for index, track in enumerate(task.tracks):
            stage = task.stage_of(index)
            audio = {
                # Seen for MusicAI only, as "Music AI" and "music_ai".
                "conversion_type": "Extend",
                "subtype": "extend",
                "conversion_id": track.id,
                "conversion_path": track.url,
                "conversion_path_wav": track.wav_url,
                "conversion_duration": track.seconds,
                "is_flagged": False,
                "reason": "",
                "lyrics": "\n".join(_words(task)),
                "title": task.input.title,
            }
            due[stage].append(_part(task, stage.word, "audio", **audio))
            if _asked(task, "lyrics_timestamps"):
                timed = {"conversion_id": track.id, "lyrics_timestamped": _timed(task, index)}
                part = _part(task, "lyrics", "text", subtype="lyrics_timestamped", **timed)
                due[dice.choice([stage, TaskStage.COMPLETE])].append(part)
        if _asked(task, "generate_album_cover"):
            ids = {f"conversion_id_{number}": track.id for number, track in enumerate(task.tracks, start=1)}
            cover = {"subtype": "album_cover_generation", "image_path": task.tracks[0].cover_url}
            due[dice.choice(list(TaskStage))].append(_part(task, "cover", "text", **ids, **cover))
        for found in due.values():
            dice.shuffle(found)
        return due[task.stage or TaskStage.TEXT]

    def by_id(self, query: Mapping[str, str]) -> web.Response:
        """Answer the status call, by the task's id or a conversion's."""
        kind, conversion_id = query.get("conversionType"), query.get("conversion_id")
        # Required by the page, but clients without it get answers.
        if kind is None and not self.is_live:
            raise Refusal(Cause.MISSING, "Field required", names=["conversionType"])
        if kind is not None and kind not in CONVERSION_TYPES:
            raise Refusal(Cause.INVALID, "Input should be a conversion type", names=["conversionType"])
        if "task_id" not in query and conversion_id is None:
            raise Refusal(Cause.MISSING, "Field required", names=["task_id"])
        tasks = (task for task in self.state.tasks if conversion_id in task.track_ids)
        task = self.find(query.get("task_id", "")) or next(tasks, None)
        if task is None or kind not in (None, CONVERSION):
            raise Refusal(Cause.TASK, "Conversion not found")
        return json_response({"success": True, "conversion": self._conversion(task, conversion_id)})

    def _conversion(self, task: Task, conversion_id: str | None) -> Mapping[str, object]:
        """Return the status: the page's keys for one version, and the numbered ones that clients read for both."""
        lyrics, message = "\n".join(_words(task)), task.failure.message if task.failure is not None else ""
        asked = conversion_id if conversion_id in task.track_ids else _both_ids(task)["conversion_id_1"]
        status = "COMPLETED" if task.is_complete else "IN_QUEUE"
        shown: dict[str, object] = {
            "task_id": task.id,
            "conversion_id": asked,
            **_both_ids(task),
            "status": status if task.failure is None else "FAILED",
            "status_msg": message,
            "message": message,
            "conversion_cost": self.state.price if task.is_complete else 0,
            "createdAt": task.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "updatedAt": task.updated.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if task.failure is not None:
            return shown | {"is_flagged": task.failure.code == FLAGGED_CODE}
        root = str(self.state.library.base)  # seen live: the path of a missing file is the bare root
        shown |= {"title": task.input.title, "lyrics": lyrics, "music_style": ""}
        for index, track_id in enumerate(task.track_ids):
            at, track = index + 1, task.tracks[index] if task.tracks and task.has_audio(index) else None
            if track_id == asked:
                shown["audio_url"] = track.url if track is not None else root
            shown |= {
                f"conversion_path_{at}": track.url if track is not None else root,
                f"conversion_path_wav_{at}": track.wav_url if track is not None else root,
                f"conversion_duration_{at}": track.seconds if track is not None else None,
                f"title_{at}": task.input.title,
                f"lyrics_{at}": lyrics,
                f"lyrics_timestamped_{at}": _timed(task, index) if track is not None else None,
            }
        if task.tracks and _asked(task, "generate_album_cover"):
            cover = task.tracks[0].cover_url
            shown |= {"album_cover_path": cover, "album_cover_thumbnail": cover}
        return shown


def build(state: State) -> web.Application:
    """Return MusicGPT's application: the extend and status calls under each prefix."""
    api = MusicGptApi(state, FACTS, "extend")
    app = api.application()
    for prefix in PREFIXES:
        app.router.add_post(f"{prefix}/extend", api.submit)
        api.add_get(app, f"{prefix}/byId", api.by_id)
    return app


def _check(texts: Mapping[str, str], *, has_file: bool) -> None:
    missing = [] if "extend_after" in texts else ["extend_after"]
    if not has_file and not texts.get("audio_url"):
        missing += ["audio_file", "audio_url"]
    if missing:
        raise Refusal(Cause.MISSING, "Field required", names=missing)
    wrong = [name for name, form in CHECKS.items() if name in texts and not re.fullmatch(form, texts[name], re.ASCII)]
    if wrong:
        raise Refusal(Cause.INVALID, f"Invalid value for {', '.join(wrong)}", names=wrong)


def _both_ids(task: Task) -> Mapping[str, str]:
    first, second, *_ = (*task.track_ids, SINGLE)
    return {"conversion_id_1": first, "conversion_id_2": second}


def _asked(task: Task, name: str) -> bool:
    """Return whether an optional part is wanted: by default all five webhooks come (conversions/extend)."""
    return task.input.fields.get(name, "true") == "true"


def _part(task: Task, *words: str, **fields: object) -> Callback:
    return Callback(words=words, body={"success": True, "task_id": task.id, **fields})


def _words(task: Task) -> Sequence[str]:
    text = task.input.fields.get("lyrics_section_to_extend") or task.input.fields.get("lyrics")
    return str(text).splitlines() if text else LINES


def _timed(task: Task, index: int) -> str:
    """Return timed lyrics as a JSON text: lines with times in milliseconds; section marks have no length."""
    words = _words(task)
    begin = task.input.continue_at or 0.0
    step = (task.tracks[index].seconds - begin) / max(1, len(words))
    lines: list[Mapping[str, object]] = []
    for number, text in enumerate(words):
        start = round(1000 * (begin + number * step))
        end = start if text.startswith("[") else round(1000 * (begin + (number + 1) * step))
        lines.append({"index": number, "text": text, "start": start, "end": end})
    return json_text(lines)
