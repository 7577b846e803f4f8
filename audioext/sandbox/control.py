"""The sandbox's own routes: a sandbox in another process is scripted and inspected over HTTP."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from aiohttp import web
from attrs import asdict, define

from ._bodies import json_response, read_json_object
from .desk import Handler
from .faults import FaultError
from .studio import Studio
from .tasks import Refusal, Task

__all__ = ["add_routes", "task_summary"]


def add_routes(app: web.Application, studio: Studio, describe: Handler) -> None:
    """Add ``/control`` and what is below it."""
    board = _Board(studio)
    app.router.add_get("/control", describe)
    app.router.add_get("/control/faults", board.faults)
    app.router.add_post("/control/faults", board.add_faults)
    app.router.add_delete("/control/faults", board.clear_faults)
    app.router.add_get("/control/submissions", board.submissions)
    app.router.add_get("/control/tasks", board.tasks)
    app.router.add_get("/control/deliveries", board.deliveries)
    app.router.add_get("/control/settled", board.settled)


def task_summary(task: Task) -> Mapping[str, object]:
    """Describe a task in JSON's types."""
    return {
        "provider": task.provider,
        "task_id": task.id,
        "operation": task.order.operation,
        "title": task.order.title,
        "callback_url": task.order.callback_url,
        "stage": task.stage.word if task.stage is not None else None,
        "failure": asdict(task.failure) if task.failure is not None else None,
        "callback_exception": task.shows_callback_exception,
        "faults": [str(fault) for fault in task.plan.faults],
        "created": task.created,
        "tracks": [{"id": take.id, "audio_url": take.url, "duration": take.seconds} for take in task.takes],
    }


@define(eq=False)
class _Board:
    studio: Studio

    async def faults(self, request: web.Request) -> web.StreamResponse:
        """List the faults in force."""
        del request
        return json_response({"faults": [str(fault) for fault in self.studio.script]})

    async def add_faults(self, request: web.Request) -> web.StreamResponse:
        """Add faults: ``{"faults": ["drop=text"], "title": "Part*", "times": 1}``, the last two optional."""
        try:
            body = await read_json_object(request)
            title, times = body.get("title"), body.get("times")
            texts = _texts(body.get("faults"))
            if texts is None or not isinstance(title, str | None) or not isinstance(times, int | None):
                return _no('send {"faults": [text, ...], "title": text, "times": integer}')
            self.studio.script.add(*texts, title=title, times=times)
        except (Refusal, FaultError) as error:
            return _no(str(error))
        return await self.faults(request)

    async def clear_faults(self, request: web.Request) -> web.StreamResponse:
        """Forget all faults."""
        self.studio.script.clear()
        return await self.faults(request)

    async def submissions(self, request: web.Request) -> web.StreamResponse:
        """List every submit that was seen."""
        return _listing(request, "submissions", map(asdict, self.studio.submissions))

    async def tasks(self, request: web.Request) -> web.StreamResponse:
        """List the tasks that are kept."""
        return _listing(request, "tasks", map(task_summary, self.studio.tasks.values()))

    async def deliveries(self, request: web.Request) -> web.StreamResponse:
        """List every attempt to send a webhook."""
        return _listing(request, "deliveries", map(asdict, self.studio.deliveries))

    async def settled(self, request: web.Request) -> web.StreamResponse:
        """Answer when no task runs and no webhook is outstanding."""
        del request
        await self.studio.settled()
        return json_response({"settled": True})


def _listing(request: web.Request, name: str, items: Iterable[Mapping[str, object]]) -> web.Response:
    """List items; each query parameter keeps those that have this value (``?provider=kie&task_id=...``)."""
    wanted = dict(request.query)
    found = [item for item in items if all(str(item.get(key)) == value for key, value in wanted.items())]
    return json_response({name: found})


def _texts(value: object) -> Sequence[str] | None:
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    return [str(item) for item in items]


def _no(message: str) -> web.Response:
    return json_response({"error": message}, status=400)
