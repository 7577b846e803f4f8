"""The live page of a sandbox: its tasks and the webhooks that it sent, with controls for faults and stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
from aiohttp import web
from attrs import frozen

from audioext.errors import Problem, RequestError
from audioext.http.urls import mask
from audioext.sandbox import CallbackAttempt, Sandbox, Task
from audioext.ui.page import MAX_LISTED, Page, Route, json_response


def tasks_page(sandbox: Sandbox) -> Page:
    """Return the live page of a sandbox; each task is a row whose ref is the task's id."""
    tasks = _Tasks(sandbox)
    routes: Sequence[Route] = (
        ("GET", "/jobs", tasks.list),
        ("GET", "/jobs/{ref}", tasks.task),
        ("GET", "/deliveries/{id}", tasks.webhook),
        ("GET", "/health", tasks.health),
        ("POST", "/control/{verb:play|clear|hold|release}", tasks.control),
    )
    return Page(kind="sandbox", routes=routes, changes=sandbox.changes, row=tasks.row)


@frozen(eq=False)
class _Tasks:
    sandbox: Sandbox

    async def row(self, ref: str) -> object:
        return _row(self._find(ref))

    async def list(self, _: web.Request) -> web.StreamResponse:
        return json_response([_row(task) for task in reversed(self.sandbox.tasks[-MAX_LISTED:])])

    async def task(self, request: web.Request) -> web.StreamResponse:
        task = self._find(request.match_info["ref"])
        sent = [
            {
                "id": key,
                "received_at": attempt.at,
                "verdict": attempt.status or mask(attempt.error or ""),
                "bytes": len(msgspec.json.encode(attempt.body)),
                "note": attempt.stage if attempt.attempt == 1 else f"{attempt.stage}, try {attempt.attempt}",
            }
            for key, attempt in self._attempts(task).items()
        ]
        return json_response({**_row(task), **_details(task), "deliveries": sent})

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["id"]
        attempt = self._attempts(self._find(key.partition(".")[0])).get(key)
        if attempt is None:
            raise RequestError([Problem("webhook", "is not kept")])
        return json_response({"body": mask(msgspec.json.encode(attempt.body).decode())})

    async def health(self, _: web.Request) -> web.StreamResponse:
        return json_response({"problem": None, "warnings": [], **self._played})

    async def control(self, request: web.Request) -> web.StreamResponse:
        try:
            self._acts[request.match_info["verb"]](*msgspec.json.decode(await request.read(), type=list[str]))
        except (TypeError, ValueError) as error:  # not a fault, not a stage, not JSON, or too many arguments
            return json_response({"problem": str(error)}, status=400)
        return json_response(self._played)

    @property
    def _acts(self) -> Mapping[str, Callable[..., None]]:
        sandbox = self.sandbox
        clear, hold, release = sandbox.clear_script, sandbox.hold, sandbox.release
        return {"play": sandbox.script, "clear": clear, "hold": hold, "release": release}

    @property
    def _played(self) -> Mapping[str, object]:
        return {"held": self.sandbox.held, "faults": self.sandbox.scripted}

    def _find(self, ref: str) -> Task:
        for task in self.sandbox.tasks:
            if task.id == ref:
                return task
        raise RequestError([Problem("task", "is not kept")])

    def _attempts(self, task: Task) -> Mapping[str, CallbackAttempt]:
        attempts = (attempt for attempt in self.sandbox.deliveries if attempt.task_id == task.id)
        return {f"{task.id}.{number}": attempt for number, attempt in enumerate(attempts)}


def _row(task: Task) -> dict[str, object]:
    """Return a task's row in the list."""
    return {
        "ref": task.id,
        "state": next(reversed(task.reached)),
        "provider": task.provider,
        "operation": task.input.operation,
        "title": task.input.title,
        "source": task.input.url or task.input.audio_id or task.input.file_key,
        "created_at": task.created,
        "stages": {word: _seconds(task, at) for word, at in task.reached.items()},
        "problem": None if task.failure is None else f"{task.failure.code}: {task.failure.message}",
        "task_id": task.id,
        "meta": {},
    }


def _details(task: Task) -> dict[str, object]:
    """Return a task's other details, in the form of a job's page; callback URLs are masked."""
    fields = task.input.fields.items()
    return {
        "model": task.input.model,
        "request": {name: mask(value) if isinstance(value, str) else value for name, value in fields},
        "faults": ", ".join(map(str, task.plan.faults)) or None,
        "due": {},
        "timeline": [{"event": word, "seconds": _seconds(task, at), "how": ""} for word, at in task.reached.items()],
        "journal": [],
        "tracks": [
            {"id": track.id, "duration": track.seconds, "image_url": track.cover_url, "audio_url": track.url}
            for index, track in enumerate(task.tracks)
            if task.has_audio(index)
        ],
        "handler_faults": [],
    }


def _seconds(task: Task, at: datetime) -> float:
    return round((at - task.created).total_seconds(), 1)
