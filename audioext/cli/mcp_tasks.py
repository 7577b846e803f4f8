"""The extension Tasks of MCP: to a client that speaks it a submit is a task, whose id is the job's ref.

https://modelcontextprotocol.github.io/ext-tasks/specification/2026-07-28/tasks.html, read 2026-11-27. The SDK has no
tasks of its own since release 2, but a place for extensions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import define, field
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.server import require_client_extension
from mcp.types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, RequestParams, TextContent
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from audioext.cli.mcp_results import error_result, job_info
from audioext.client import Client
from audioext.errors import AudioextError, RequestError
from audioext.models.record import Verdict
from audioext.runtime.jobs import Job, JobExpiredError, StageTimeoutError
from audioext.ui.objects import iso, state_of

TASKS = "io.modelcontextprotocol/tasks"
POLL_MILLISECONDS = 5_000
SUBMITS = frozenset({"extend", "add_instrumental"})
"""The tools whose calls become tasks; the others answer at once, or within the seconds that they are given."""

_VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
_Context = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """Names a task."""

    task_id: str


@define(eq=False)
class JobTasks(Extension):
    """The jobs of a client as tasks. *look* asks the provider for a job's status, where no webhook may have come."""

    client: Client
    look: Callable[[Job], Awaitable[None]]
    _looked: set[str] = field(factory=set, init=False)

    identifier = TASKS

    def methods(self) -> Sequence[MethodBinding]:
        """Return what is answered about tasks."""
        handlers = {"tasks/get": self._get, "tasks/update": self._acknowledge, "tasks/cancel": self._acknowledge}
        return [MethodBinding(name, TaskParams, handler, _VERSIONS) for name, handler in handlers.items()]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: _Context, call_next: CallNext
    ) -> HandlerResult:
        """Answer a submit whose job goes on with its task, where the client knows what that is."""
        result = await call_next(ctx)
        if params.name not in SUBMITS or not _speaks_tasks(ctx) or not isinstance(result, CallToolResult):
            return result
        if result.is_error or result.structured_content is None:
            return result
        job = await self.client.job(result.structured_content["ref"])
        return result if job.verdict is not Verdict.OPEN else {"resultType": "task", **_task(job, "working")}

    async def _get(self, ctx: _Context, params: TaskParams) -> HandlerResult:
        job = await self._find(ctx, params)
        if job.ref not in self._looked:  # what came while no server ran
            self._looked.add(job.ref)
            await self.look(job)
        try:
            await job.result(timeout=0.001)
        except AudioextError as error:
            if isinstance(error, StageTimeoutError) and not isinstance(error, JobExpiredError):
                return _task(job, "working")
            result = error_result(error)
        else:
            info = job_info(job)
            content = TextContent(text=info.model_dump_json())
            result = CallToolResult(content=[content], structured_content=info.model_dump(mode="json"))
        return {**_task(job, "completed"), "result": result.model_dump(by_alias=True, mode="json", exclude_none=True)}

    async def _acknowledge(self, ctx: _Context, params: TaskParams) -> HandlerResult:
        """Do nothing more: no task asks anything, and no API stops a task that is under way and paid."""
        await self._find(ctx, params)
        return {}

    async def _find(self, ctx: _Context, params: TaskParams) -> Job:
        require_client_extension(ctx, TASKS)
        try:
            return await self.client.job(params.task_id)
        except RequestError as error:
            raise MCPError(INVALID_PARAMS, f"there is no such task: {error}") from error


def _speaks_tasks(ctx: _Context) -> bool:
    capabilities = ctx.session.client_capabilities
    return ctx.protocol_version in _VERSIONS and TASKS in ((capabilities and capabilities.extensions) or {})


def _task(job: Job, status: str) -> dict[str, object]:
    record = job.record
    last = max([record.created_at, record.answered_at or 0.0, *(item.at for item in record.reached)])
    return {
        "taskId": job.ref,
        "status": status,
        "statusMessage": state_of(record),
        "createdAt": iso(record.created_at),
        "lastUpdatedAt": iso(last),
        "ttlMs": None,
        "pollIntervalMs": POLL_MILLISECONDS,
    }
