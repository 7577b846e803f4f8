"""The sandbox's own routes: a sandbox in another process is scripted and inspected over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import msgspec
from aiohttp import web
from attrs import define

from audioext.sandbox.apis._api import json_response, read_json_object
from audioext.sandbox.faults import FaultError
from audioext.sandbox.models import Refusal, Task
from audioext.sandbox.state import State


@define(eq=False)
class Control:
    """The routes ``/control`` and below; `describe` returns what the first of them answers."""

    state: State
    describe: Callable[[], Mapping[str, object]]

    def add_routes(self, app: web.Application) -> None:
        """Add the routes to the sandbox's application."""
        app.router.add_get("/control", self._show)
        app.router.add_get("/control/faults", self._faults)
        app.router.add_post("/control/faults", self._add_faults)
        app.router.add_delete("/control/faults", self._clear_faults)
        app.router.add_get("/control/{name:submissions|tasks|deliveries}", self._list)
        app.router.add_get("/control/settled", self._settled)
        app.router.add_post("/control/{verb:hold|release}", self._gate)

    async def _show(self, _: web.Request) -> web.StreamResponse:
        return json_response(self.describe())

    async def _faults(self, _: web.Request) -> web.StreamResponse:
        return json_response({"faults": [str(fault) for fault in self.state.script]})

    async def _add_faults(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await read_json_object(request)
            texts, title, times = body.get("faults"), body.get("title"), body.get("times")
            if not (isinstance(texts, list) and isinstance(title, str | None) and isinstance(times, int | None)):
                raise FaultError('send {"faults": [text, ...], "title": text, "times": integer}')
            self.state.script.add(*map(str, cast("list[object]", texts)), title=title, times=times)
        except (Refusal, FaultError) as error:
            return json_response({"error": str(error)}, status=400)
        return await self._faults(request)

    async def _clear_faults(self, request: web.Request) -> web.StreamResponse:
        self.state.script.clear()
        return await self._faults(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """List items; each query parameter keeps those that have this value (``?provider=kie&task_id=...``)."""
        name, state = request.match_info["name"], self.state
        lists: Mapping[str, Iterable[object]] = {
            "submissions": state.submissions,
            "tasks": map(_summary, state.tasks.values()),
            "deliveries": state.attempts,
        }
        items, wanted = map(msgspec.to_builtins, lists[name]), request.query.items()
        return json_response(
            {name: [item for item in items if all(str(item.get(key)) == value for key, value in wanted)]}
        )

    async def _settled(self, _: web.Request) -> web.StreamResponse:
        await self.state.settled()
        return json_response({"settled": True})

    async def _gate(self, request: web.Request) -> web.StreamResponse:
        """Hold or release the stages in ``{"stages": [...]}``, all of them without one."""
        act = self.state.hold if request.match_info["verb"] == "hold" else self.state.release
        try:
            stages = (await read_json_object(request)).get("stages", [])
            act(*map(str, cast("list[object]", stages) if isinstance(stages, list) else [stages]))
        except (Refusal, ValueError) as error:
            return json_response({"error": str(error)}, status=400)
        return json_response({"held": self.state.held})


def _summary(task: Task) -> Mapping[str, object]:
    """Describe a task in JSON's types."""
    failure = task.failure
    return {
        "provider": task.provider,
        "task_id": task.id,
        "operation": task.input.operation,
        "title": task.input.title,
        "callback_url": task.input.callback_url,
        "stage": task.stage.word if task.stage is not None else None,
        "failure": {"code": failure.code, "message": failure.message} if failure is not None else None,
        "callback_exception": task.shows_callback_exception,
        "faults": [str(fault) for fault in task.plan.faults],
        "created": task.created,
        "tracks": [{"id": track.id, "audio_url": track.url, "duration": track.seconds} for track in task.tracks],
    }
