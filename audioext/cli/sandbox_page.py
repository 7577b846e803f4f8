"""What the live page shows of a sandbox: its tasks, the webhooks that it sent, and a hand on faults and stages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

import msgspec
from aiohttp import web
from attrs import frozen

from audioext.errors import Problem, RequestError
from audioext.http.urls import mask
from audioext.sandbox import CallbackAttempt, Sandbox, Task
from audioext.ui.page import MAX_LISTED, Route, json_response


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What the page asks to be played, held or released."""

    faults: list[str] = []
    stages: list[str] = []


@frozen(eq=False)
class TasksView:
    """The tasks of a sandbox, each as a row whose ref is the task's id."""

    sandbox: Sandbox
    kind = "sandbox"

    def routes(self) -> Sequence[Route]:
        """Return what the page asks for."""
        return (
            ("GET", "/jobs", self._tasks),
            ("GET", "/jobs/{ref}", self._task),
            ("GET", "/deliveries/{ref}.{number}", self._webhook),
            ("GET", "/health", self._health),
            ("POST", "/control/{verb:faults|hold|release}", self._control),
        )

    def changes(self) -> AsyncGenerator[str]:
        """Yield the ids of tasks that changed, until the sandbox is closed."""
        return self.sandbox.changes()

    async def row(self, ref: str) -> object:
        """Return the row of one task."""
        return row_object(self._find(ref))

    async def _tasks(self, _: web.Request) -> web.StreamResponse:
        return json_response([row_object(task) for task in reversed(self.sandbox.tasks[-MAX_LISTED:])])

    async def _task(self, request: web.Request) -> web.StreamResponse:
        task = self._find(request.match_info["ref"])
        sent = [attempt_object(number, each) for number, each in enumerate(self._attempts(task))]
        return json_response({**row_object(task), **details(task), "deliveries": sent})

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        attempts = dict(enumerate(self._attempts(self._find(request.match_info["ref"]))))
        number = request.match_info["number"]
        attempt = attempts.get(int(number)) if number.isdecimal() and number.isascii() else None
        if attempt is None:
            raise RequestError([Problem("webhook", "is not kept")])
        return json_response({"body": mask(msgspec.json.encode(attempt.body).decode())})

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return json_response({"problem": None, "warnings": [], **self._played})

    async def _control(self, request: web.Request) -> web.StreamResponse:
        verb, sandbox = request.match_info["verb"], self.sandbox
        try:
            wish = msgspec.json.decode(await request.read(), type=Wish)
            if verb == "faults" and not wish.faults:
                sandbox.clear_script()
            elif verb == "faults":
                sandbox.script(*wish.faults)
            else:
                (sandbox.hold if verb == "hold" else sandbox.release)(*wish.stages)  # type: ignore[arg-type]  # checked there
        except ValueError as error:  # no fault, no stage, or no JSON
            return json_response({"problem": str(error)}, status=400)
        return json_response(self._played)

    @property
    def _played(self) -> Mapping[str, object]:
        return {"held": self.sandbox.held, "faults": self.sandbox.scripted}

    def _find(self, ref: str) -> Task:
        found = next((task for task in self.sandbox.tasks if task.id == ref), None)
        if found is None:
            raise RequestError([Problem("task", "is not kept")])
        return found

    def _attempts(self, task: Task) -> list[CallbackAttempt]:
        return [attempt for attempt in self.sandbox.deliveries if attempt.task_id == task.id]


def row_object(task: Task) -> dict[str, object]:
    """Return what the list shows of a task."""
    reached = {"submitted": task.created, **task.reached}
    return {
        "ref": task.id,
        "state": next(reversed(reached)),
        "provider": task.provider,
        "operation": task.input.operation,
        "title": task.input.title,
        "source": task.input.url or task.input.audio_id or task.input.file_key,
        "created_at": task.created,
        "stages": {word: _seconds(task, at) for word, at in reached.items()},
        "problem": None if task.failure is None else f"{task.failure.code}: {task.failure.message}",
        "task_id": task.id,
        "meta": {},
    }


def details(task: Task) -> dict[str, object]:
    """Return what else is known of a task, in the form of a job's page; callback URLs are masked."""
    reached = {"submitted": task.created, **task.reached}
    tracks = [
        {"id": track.id, "duration": track.seconds, "image_url": track.cover_url, "audio_url": track.url}
        for index, track in enumerate(task.tracks)
        if task.has_audio(index)
    ]
    return {
        "model": task.input.model,
        "request": {
            name: mask(value) if isinstance(value, str) else value for name, value in task.input.fields.items()
        },
        "faults": ", ".join(map(str, task.plan.faults)) or None,
        "due": {},
        "timeline": [{"event": word, "seconds": _seconds(task, at), "how": ""} for word, at in reached.items()],
        "journal": [],
        "tracks": tracks,
        "handler_faults": [],
    }


def attempt_object(number: int, attempt: CallbackAttempt) -> dict[str, object]:
    """Return one attempt to send a webhook, without its body."""
    return {
        "id": f"{attempt.task_id}.{number}",
        "received_at": attempt.at,
        "verdict": attempt.status or mask(attempt.error or ""),
        "bytes": len(msgspec.json.encode(attempt.body)),
        "note": attempt.stage if attempt.attempt == 1 else f"{attempt.stage}, try {attempt.attempt}",
    }


def _seconds(task: Task, at: datetime) -> float:
    return round((at - task.created).total_seconds(), 1)
