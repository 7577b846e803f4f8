"""The MCP server of `audioext mcp`: tools that submit, await and save, and finished songs as resources."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import io
import mimetypes
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import Resource, ToolAnnotations
from pydantic import Field, ValidationError
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

from audioext import config
from audioext.cli.clients import check_folder, open_client
from audioext.cli.commands import McpCommand
from audioext.cli.execution import stop_signals
from audioext.cli.exits import Exit
from audioext.cli.mcp_jobs import SONGS, Balance, JobInfo, JobList, JobTasks, SavedFiles, error_result, job_info, money
from audioext.cli.options import request_fields
from audioext.cli.screen import Screen
from audioext.client import Client
from audioext.errors import AudioextError, ConfigError, Problem, RequestError, why_unbound
from audioext.files.formats import audio_info
from audioext.models.record import Verdict
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.models.results import Stage
from audioext.runtime.jobs import LATER_STAGES, Job, JobExpiredError, StageTimeoutError
from audioext.ui.objects import BY, first, state_of
from audioext.version import __version__

SANDBOX_NOTE = (
    "This server plays the API on its own machine: nothing is charged, songs are made up, and a task takes seconds."
    " Sources to begin with: "
)
GUARDED_HOSTS = ("127.0.0.1", "localhost", "::1")
"""On these, and on no other name of this machine, the SDK refuses what a page in a browser sends."""


async def serve(command: McpCommand, screen: Screen) -> None:
    """Serve until the client closes stdin, or until Ctrl-C or SIGTERM."""
    if command.out != Path():  # many agents start us in a folder that we may not write, and only `save` does
        check_folder(command.out)
    address = None if command.http is None else _read_address(command.http, has_token=bool(command.token))
    if address is None and sys.stdin is None:  # the shell closed it, as by `<&-`
        raise ConfigError("stdin is closed: let an agent start this command, or give it --http")
    async with open_client(command, command.provider, screen, base_url=command.base_url) as opened:
        note = SANDBOX_NOTE + ", ".join(opened.samples) if command.sandbox else ""
        server = AgentServer(opened.client, provider=command.provider, out=command.out, note=note)
        with stop_signals() as stopped:
            if address is not None:
                app = server.streamable_http_app(host=address[0])
                guarded = gated(app, command.token) if command.token else app
                await serve_http(guarded, address, screen, stopped)
                return
            if sys.stdin.isatty():
                screen.note("speaking MCP on stdin and stdout: meant to be started by an agent; Ctrl-C ends it")
            speaking = asyncio.create_task(server.run_stdio_async())
            await first_of(speaking, stopped)
            if speaking.done():
                await speaking
                return
    os._exit(Exit.OK)  # the client is closed; a thread of the SDK still blocks reading stdin


def _read_address(text: str, *, has_token: bool) -> tuple[str, int]:
    try:
        host, port = config.read_listen(text, None) or ("", 0)
    except ConfigError as error:
        raise ConfigError(f"--http must look like 127.0.0.1:8000, not {text!r:.80}") from error
    if not has_token and host not in GUARDED_HOSTS:
        message = f"--http {text} can be reached from elsewhere, and submits cost money: set AUDIOEXT_MCP_TOKEN"
        raise ConfigError(message)
    return host, port


async def serve_http(app: ASGIApp, address: tuple[str, int], screen: Screen, stopped: asyncio.Event) -> None:
    """Serve *app* at *address* until *stopped* is set."""
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listening = socket.create_server(address, family=family)
    except OSError as error:
        message = f"cannot listen on {address[0]}:{address[1]}: {why_unbound(error)}; choose another --http"
        raise ConfigError(message) from error
    with listening:
        quiet = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(quiet)
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # the command handles signals
        serving = asyncio.create_task(server.serve([listening]))
        url = str(URL.build(scheme="http", host=address[0], port=listening.getsockname()[1], path="/mcp"))
        screen.note(f"serving MCP at {url}; Ctrl-C ends it", json={"event": "serving", "url": url})
        await first_of(serving, stopped)
        server.should_exit = True
        await serving


async def first_of(serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
    """Wait until *serving* ends or *stopped* is set."""
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def gated(app: ASGIApp, token: str) -> ASGIApp:
    """Pass only requests with the bearer *token* on to *app*, and answer 401 to the others."""
    expected = f"Bearer {token}".encode()

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(given, expected):
            refusal = PlainTextResponse(
                "a bearer token is needed", HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"}
            )
            await refusal(scope, receive, send)
        else:
            await app(scope, receive, send)

    return gate


# --- tools and resources ----------------------------------------------------------------------------------------

LISTED_AT_MOST = 50
WAIT_SECONDS = 45.0  # many clients time out after 60 s
LONGEST_WAIT_SECONDS = 600.0
INSTRUCTIONS = """\
Extends music, and gives voices an accompaniment, at a paid API. A task takes minutes. Submit it by `extend` or
`add_instrumental`: the answer has its `ref` at once. Then call `wait` with the ref until `state` is complete, then
`save`. If an answer was lost, repeat the call with the same `key`: it finds the job and never pays twice.
Every error says what happened to the money."""

Ref = Annotated[str, Field(description="The job's `ref`, as the submit returned it.")]
Key = Annotated[
    str,
    Field(description="Your name for this submit, such as `chat42-verse2`: a repeated call never pays twice."),
]


class AgentServer(MCPServer[object]):
    """An MCP server over one open client. Every submit needs a key, and an agent comes back to a job by its ref."""

    def __init__(self, client: Client, *, provider: str, out: Path, note: str = "") -> None:
        """Serve *client* with its *provider*; files are saved below *out*, and *note* is added to the instructions."""
        super().__init__(
            "audioext",
            version=__version__,
            instructions=f"{INSTRUCTIONS}\n{note}".strip(),
            log_level="WARNING",
            subscriptions=False,
            extensions=[JobTasks(client, look=_refresh)],
        )
        self._client, self._provider, self._out = client, provider, out
        paid = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True)
        for request in (Extend, AddInstrumental):
            self.add_tool(_submit_tool(client, request), annotations=paid)
        self.add_tool(self.save, annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))
        for look in (self.wait, self.job, self.jobs, self.credits):
            self.add_tool(look, annotations=ToolAnnotations(read_only_hint=True))

    # --- the other tools; agents read their docstrings -----------------------------------------------------

    async def wait(
        self,
        ctx: Context,
        ref: Ref,
        seconds: Annotated[float, Field(gt=0, le=LONGEST_WAIT_SECONDS)] = WAIT_SECONDS,
    ) -> JobInfo:
        """Wait for a song, at most `seconds`, with a progress notification for each stage.

        If `state` is not complete after that, call it again: the task goes on, and waiting costs nothing.
        """
        job = await self._client.job(ref)
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        await _refresh(job)
        await ctx.report_progress(float(Stage.SUBMITTED), float(Stage.COMPLETE), state_of(job.record))
        try:
            for stage in LATER_STAGES:
                event = await job.wait(stage, timeout=max(until - clock(), 0.001))
                words = f"{stage} {BY[event.source]}"
                await ctx.report_progress(float(stage), float(Stage.COMPLETE), words)
        except JobExpiredError:
            raise
        except StageTimeoutError:  # `next` says how to go on
            pass
        return job_info(job)

    async def job(
        self,
        ref: Annotated[str | None, Field(description="The job's `ref`, or give its `key`.")] = None,
        key: Annotated[str | None, Field(description="The `key` that it was submitted with.")] = None,
    ) -> JobInfo:
        """Look at one job, without waiting."""
        return job_info(await self._client.job(ref, key=key))

    async def jobs(
        self,
        open: Annotated[bool | None, Field(description="true: only open jobs; false: only ended ones.")] = None,  # noqa: A002 - as Client.jobs has it
        limit: Annotated[int, Field(ge=1, le=1_000)] = 20,
    ) -> JobList:
        """List the jobs of the store, the newest first, also those of other processes."""
        return JobList(
            jobs=[job_info(job) for job in await first(limit, self._client.jobs(open=open, newest_first=True))]
        )

    async def save(
        self,
        ref: Ref,
        folder: Annotated[str, Field(description="A folder below the server's own; that one by default.")] = ".",
    ) -> SavedFiles:
        """Save the files of a complete job on the machine of this server; saving again costs nothing."""
        target = (self._out / folder.replace("\0", "..")).resolve()  # a NUL would raise ValueError
        if not target.is_relative_to(self._out.resolve()):
            raise RequestError([Problem("folder", "must be below the server's own folder")])
        job = await self._client.job(ref)
        song = await job.result(timeout=0.001)
        return SavedFiles(ref=ref, files=[str(path) for path in await song.save(target)])

    async def credits(self) -> Balance:
        """Return the balance of the account."""
        return Balance(provider=self._provider, credits=await self._client.credits())

    # --- calls and resources --------------------------------------------------------------------------------

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Context[object, Any] | None = None) -> Any:  # noqa: ANN401 - the SDK's own union
        """Call a tool; an error says what happened to the money, as text and as structured facts."""
        try:
            known = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}
            unknown = [each for each in arguments if each not in known.get(name, arguments)]
            if unknown:  # the SDK would drop them and submit the rest
                raise RequestError([Problem(each, f"is not an argument of {name}") for each in unknown])
            return await super().call_tool(name, arguments, context)
        except AudioextError as error:
            return error_result(error)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError) and cause.title == f"{name}Arguments":
                wrong = [
                    Problem(".".join(map(str, each["loc"])), f"no valid argument: {each['msg']}")
                    for each in cause.errors()
                ]
                cause = RequestError(wrong)
            if isinstance(cause, AudioextError):
                return error_result(cause)
            raise

    async def list_resources(self) -> list[Resource]:
        """List the newest finished songs: each is a resource, and so is each of its tracks."""
        found = []
        for job in await first(LISTED_AT_MOST, self._client.jobs(open=False, newest_first=True)):
            if job.verdict is Verdict.COMPLETE:
                title = next((track.title for track in job.record.tracks if track.title), None)
                found.append(Resource(uri=SONGS + job.ref, name=job.ref, title=title, mime_type="application/json"))
        return found

    async def read_resource(
        self,
        uri: object,
        context: Context[object, Any] | None = None,  # noqa: ARG002 - the SDK's
    ) -> Iterable[ReadResourceContents]:
        """Return a song as JSON, or the audio of one of its tracks."""
        ref, _, place = str(uri).removeprefix(SONGS).partition("/")
        try:
            job = await self._client.job(ref)
            song = await job.result(timeout=0.001)
            if not place:
                return [ReadResourceContents(job_info(job).model_dump_json(), "application/json")]
            track = {str(number): track for number, track in enumerate(song.tracks, 1)}[place]
            data = await track.read()
        except (RequestError, StageTimeoutError, KeyError) as error:
            raise ResourceNotFoundError(f"no finished song has the resource {uri}") from error
        except AudioextError as error:
            raise ResourceError(f"{error} {money(error)}") from error
        kind = mimetypes.types_map.get((await asyncio.to_thread(audio_info, io.BytesIO(data)))[0])
        return [ReadResourceContents(data, kind or "audio/mpeg")]


async def _refresh(job: Job) -> None:
    """Ask the provider once: a webhook may have come while no server ran."""
    if job.verdict is Verdict.OPEN and job.task_id is not None:
        with suppress(AudioextError):  # the poller asks again
            await job.refresh()


def _submit_tool(client: Client, request: type[Request]) -> Callable[..., Awaitable[JobInfo]]:
    """Return the tool that submits a *request*; its parameters are generated from the request's fields."""

    async def submit(key: str, **fields: object) -> JobInfo:
        given = {name: value for name, value in fields.items() if value is not None}
        return job_info(await client.submit(request.draft(**given), key=key))

    is_extend = request is Extend
    submit.__name__ = "extend" if is_extend else "add_instrumental"
    submit.__doc__ = (
        f"{'Continue a piece of music' if is_extend else 'Give a voice or a melody an accompaniment'}: submit it, and"
        " return its job at once. Each key is paid for once, even if this call is repeated. All problems are reported"
        " together, before anything is sent. Go on with `wait`."
    )
    annotated: Any = Annotated  # for types known only at run time
    parameters = [inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, annotation=Key)]
    for name, kind, default, words in request_fields(request):
        if name == "file":  # an agent can send neither bytes nor an open file
            described = annotated[str | None, Field(description="The path of an audio file on this server's machine.")]
        else:
            described = annotated[kind, Field(description=words)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, keyword, default=default, annotation=described))
    submit.__signature__ = inspect.Signature(parameters, return_annotation=JobInfo)  # type: ignore[attr-defined]  # it may be set on functions
    return submit
