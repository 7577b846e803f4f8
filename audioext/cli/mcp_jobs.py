"""A job as an agent sees it over MCP: as a tool's result, as an error with its cost, and as a task.

For a client that speaks the extension Tasks, a submit is a task whose id is the job's ref. Since release 2 the SDK has
no tasks of its own, but it supports extensions.
https://modelcontextprotocol.github.io/ext-tasks/specification/2026-07-28/tasks.html, read 2026-11-27.
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
from pydantic import BaseModel, Field

from audioext.cli.execution import error_facts
from audioext.cli.screen import dump
from audioext.client import Client
from audioext.errors import AudioextError, DownloadError, ProviderError, RequestError
from audioext.models.record import Verdict
from audioext.runtime.jobs import Job, JobExpiredError, JobFailedError, StageTimeoutError, SubmitUnknownError
from audioext.ui.objects import iso, job_object, state_of, track_object

SONGS = "audioext://songs/"
ERROR_FACTS = "audioext/error"
"""The name of an error's facts in the `_meta` of a result."""
TASKS = "io.modelcontextprotocol/tasks"
SUBMITS = frozenset({"extend", "add_instrumental"})
"""The tools whose calls become tasks; the others answer at once, or within their `seconds`."""

_VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
_Context = ServerRequestContext[Any, Any]


class TrackInfo(BaseModel):
    """One track; its links expire some days after it was made."""

    id: str | None = Field(default=None, description="The `audio_id` for `extend`.")
    title: str | None = None
    duration: float | None = Field(default=None, description="Seconds.")
    audio_url: str | None = None
    image_url: str | None = None
    resource: str | None = Field(description="The resource that is the audio file, once the job is complete.")


class JobInfo(BaseModel):
    """A job: its state, its result, and how to go on."""

    ref: str
    state: str = Field(
        description="submitting, submitted, text, first (a track can be heard), complete; failed, refused, expired; or"
        " unknown: it is unknown whether the task was made."
    )
    is_new: bool = Field(description="Whether this call submitted it, rather than found it by its key.")
    provider: str
    operation: str
    key: str | None
    created_at: str
    tracks: list[TrackInfo]
    problem: str | None = Field(description="What went wrong, in the provider's words.")
    charged: bool | None = Field(description="Whether a failed job was charged; null if that is unknown.")
    next: str = Field(description="What to do now.")


class JobList(BaseModel):
    """The jobs of the store."""

    jobs: list[JobInfo] = Field(description="The newest first.")


class SavedFiles(BaseModel):
    """The files of a song."""

    ref: str
    files: list[str] = Field(description="One path per track, on the machine of this server.")


class Balance(BaseModel):
    """The balance of the account."""

    provider: str
    credits: float = Field(description="In the provider's own credits.")


def job_info(job: Job) -> JobInfo:
    """Return *job* as an agent sees it."""
    tracks, place = [], 0
    for track in job.record.tracks:
        place += track.audio_url is not None
        is_there = job.verdict is Verdict.COMPLETE and track.audio_url is not None
        resource = f"{SONGS}{job.ref}/{place}" if is_there else None
        tracks.append(TrackInfo.model_validate({**track_object(track), "resource": resource}))
    charged = None if job.failure is None else job.failure.charged
    facts = {"is_new": job.is_new, "tracks": tracks, "charged": charged, "next": _next_step(job)}
    return JobInfo.model_validate(job_object(job.record) | facts)


def money(error: AudioextError) -> str:
    """Return what happened to the money, in one sentence."""
    if isinstance(error, (SubmitUnknownError, JobExpiredError)):
        return (
            "It is unknown whether it was charged: look at the provider's list of tasks before you submit another key."
        )
    if isinstance(error, (ProviderError, JobFailedError)):
        known = {True: "It was charged.", False: "Nothing was charged.", None: "No page says whether it was charged."}
        return known[error.charged]
    if isinstance(error, DownloadError):
        return "The song is made and paid for; saving it again costs nothing."
    if isinstance(error, StageTimeoutError):
        return "The task goes on; `wait` costs nothing more."
    return "This call charged nothing."


def _next_step(job: Job) -> str:
    state = state_of(job.record)
    if state == "complete":
        return f"Call `save` with ref {job.ref}, or read the tracks' resources or links, which expire within days."
    if state == "unknown":
        return (
            f"It is unknown whether the task was made: look at {job.provider} before you submit with another key. A"
            " late callback still completes it, and the same key submits nothing."
        )
    if job.verdict is Verdict.OPEN:
        return f"Call `wait` with ref {job.ref}; it goes on by itself, and takes two to four minutes in all."
    if state == "expired":
        return "It was given up after a day; a late callback still completes it. Another key submits anew, and pays."
    return "Fix what `problem` says, and submit again with another key."


def error_result(error: AudioextError) -> CallToolResult:
    """Return *error* as the result of a call: a text, and in `_meta` the facts that a program may branch on.

    They are not structured content: clients refuse content that does not match the tool's output schema.
    """
    cost = money(error)
    facts = {"type": type(error).__name__, "message": str(error), "money": cost, **error_facts(error)}
    content = TextContent(text=f"{error}\n{cost}")
    return CallToolResult(content=[content], is_error=True, _meta={ERROR_FACTS: facts})


# --- the extension Tasks ---------------------------------------------------------------------------------------


class TaskParams(RequestParams):
    """The parameters of a call about a task."""

    task_id: str


@define(eq=False)
class JobTasks(Extension):
    """The jobs of a client as tasks. `look` polls a job's status once, since a webhook may have been missed."""

    client: Client
    look: Callable[[Job], Awaitable[None]]
    _looked: set[str] = field(factory=set, init=False)

    identifier = TASKS

    def methods(self) -> Sequence[MethodBinding]:
        """Return the handlers of the extension's methods."""
        handlers = {"tasks/get": self._get, "tasks/update": self._acknowledge, "tasks/cancel": self._acknowledge}
        return [MethodBinding(name, TaskParams, handler, _VERSIONS) for name, handler in handlers.items()]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: _Context, call_next: CallNext
    ) -> HandlerResult:
        """Answer a submit with a task if its job is open and the client supports tasks."""
        result = await call_next(ctx)
        told = ctx.session.client_capabilities
        speaks_tasks = ctx.protocol_version in _VERSIONS and TASKS in ((told and told.extensions) or {})
        if params.name not in SUBMITS or not speaks_tasks or not isinstance(result, CallToolResult):
            return result
        if result.structured_content is None:  # it is an error
            return result
        job = await self.client.job(result.structured_content["ref"])
        return result if job.verdict is not Verdict.OPEN else {"resultType": "task", **_task(job, "working")}

    async def _get(self, ctx: _Context, params: TaskParams) -> HandlerResult:
        job = await self._find(ctx, params)
        if job.ref not in self._looked:  # a webhook may have been missed while no server ran
            self._looked.add(job.ref)
            await self.look(job)
        try:
            await job.result(timeout=0.001)
        except AudioextError as error:
            if isinstance(error, StageTimeoutError) and not isinstance(error, JobExpiredError):
                return _task(job, "working")
            result = error_result(error)
        else:
            info = job_info(job).model_dump(mode="json")
            result = CallToolResult(content=[TextContent(text=dump(info))], structured_content=info)
        return {**_task(job, "completed"), "result": result.model_dump(by_alias=True, mode="json", exclude_none=True)}

    async def _acknowledge(self, ctx: _Context, params: TaskParams) -> HandlerResult:
        """Accept an update or a cancellation without effect: tasks need no input, and no API can cancel one."""
        await self._find(ctx, params)
        return {}

    async def _find(self, ctx: _Context, params: TaskParams) -> Job:
        require_client_extension(ctx, TASKS)
        try:
            return await self.client.job(params.task_id)
        except RequestError as error:
            raise MCPError(INVALID_PARAMS, f"there is no such task: {error}") from error


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
        "pollIntervalMs": 5_000,
    }
