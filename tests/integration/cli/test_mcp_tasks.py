"""The Tasks extension of `audioext mcp`: a client that supports it gets its song from the submit itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, CallToolResult, Request, RequestParams, Result

import audioext as ax
from audioext.cli.mcp_jobs import TASKS
from audioext.cli.mcp_server import AgentServer
from audioext.sandbox import Sandbox
from tests.integration.cli.conftest import STORE, short_sandbox
from tests.integration.cli.test_mcp import ASKED, error, facts, kill, over_stdio


class Handle(Result):
    """A call's answer if it is a task, and the state of that task later."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    status_message: str
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int


class Told(Handle):
    """The later state of a task."""

    result_type: Literal["complete"] = "complete"  # type: ignore[assignment]  # the extension defines it so
    result: CallToolResult | None = None


class Params(RequestParams):
    """The id of a task."""

    task_id: str


class Ask(Request[Params, str]):
    """A request about a task."""

    name_param = "taskId"


class Tasks(ClientExtension):
    """The client's side, which polls tasks until they have a result; `seen` are the tasks that it got."""

    identifier = TASKS

    def __init__(self) -> None:
        """Start without tasks."""
        self.seen: asyncio.Queue[Handle] = asyncio.Queue()

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Accept a task in place of a result."""
        return [ResultClaim(result_type="task", model=Handle, resolve=self.wait)]

    async def wait(self, handle: Handle, ctx: ClaimContext) -> CallToolResult:
        """Return the result of a task."""
        self.seen.put_nowait(handle)
        while True:
            told = await ctx.session.send_request(ask(handle.task_id), Told)
            if told.result is not None:
                return told.result
            await asyncio.sleep(0.01)


def ask(task_id: str, verb: str = "get") -> Ask:
    """Return a request about a task."""
    return Ask(method=f"tasks/{verb}", params=Params(task_id=task_id))


@asynccontextmanager
async def agent(sandbox: Sandbox, *extensions: ClientExtension, store: str | None = None) -> AsyncIterator[Client]:
    """Return an MCP client of a server in this process."""
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=0.01, every=0.02))
    async with (
        ax.Client(kie, store=store) as client,
        Client(AgentServer(client, provider="kie", out=Path("out")), extensions=extensions) as mcp,
    ):
        yield mcp


async def test_a_submit_is_a_task_whose_result_is_the_song() -> None:
    """The call is answered by a task whose id is the job's ref and whose result is the song's job."""
    tasks = Tasks()
    async with short_sandbox() as sandbox, agent(sandbox, tasks) as mcp:
        sandbox.hold("complete")
        call = asyncio.create_task(mcp.call_tool("extend", {"key": "a", **ASKED}))
        handle = await tasks.seen.get()
        job = facts(await mcp.call_tool("job", {"key": "a"}))
        for verb in ("update", "cancel"):  # both are accepted without effect, as a paid task goes on
            await mcp.session.send_request(ask(handle.task_id, verb), Result)
        sandbox.release()
        done = facts(await call)
        again = facts(await mcp.call_tool("extend", {"key": "a", **ASKED}))
        assert 1 == len(sandbox.submissions)

    assert (job["ref"], "working", None) == (handle.task_id, handle.status, handle.ttl_ms)
    assert (job["ref"], "complete", 2) == (done["ref"], done["state"], len(done["tracks"]))
    assert ("complete", False) == (again["state"], again["is_new"])


async def test_a_failed_task_says_whether_it_was_charged() -> None:
    """A failed task's result is the error that `wait` would give; a refused submit fails at once without a task."""
    tasks = Tasks()
    async with short_sandbox(faults=("error=complete:501",)) as sandbox, agent(sandbox, tasks) as mcp:
        failed = error(await mcp.call_tool("extend", {"key": "a", **ASKED}))
        refused = error(await mcp.call_tool("extend", {"key": "b", "model": "V5"}))

    assert ("JobFailedError", "RequestError") == (failed["type"], refused["type"])
    assert 1 == tasks.seen.qsize()


async def test_a_client_without_the_extension_has_no_tasks() -> None:
    """A client without the extension gets the job at once and cannot poll tasks; an unknown task id is refused."""
    async with short_sandbox() as sandbox, agent(sandbox) as mcp, agent(sandbox, Tasks()) as speaker:
        submitted = facts(await mcp.call_tool("extend", {"key": "a", **ASKED}))
        with pytest.raises(MCPError) as mute:
            await mcp.session.send_request(ask(submitted["ref"]), Told)
        with pytest.raises(MCPError) as missing:
            await speaker.session.send_request(ask("nobodys"), Told)

    assert submitted["is_new"]
    assert [MISSING_REQUIRED_CLIENT_CAPABILITY, INVALID_PARAMS] == [mute.value.code, missing.value.code]


async def test_a_task_outlives_its_server(folder: Path, unused_tcp_port: int) -> None:
    """A task whose server is killed is continued by the next server under the same id."""
    tasks = Tasks()
    async with short_sandbox() as sandbox:
        hooks = (
            "--public-url",
            f"http://127.0.0.1:{unused_tcp_port}/audio",
            "--listen",
            f"127.0.0.1:{unused_tcp_port}",
        )
        server = over_stdio("--base-url", sandbox.bases["kie"], *hooks, *STORE, KIE_API_KEY=sandbox.api_key)
        sandbox.hold("first")
        async with Client(server, extensions=[tasks]) as mcp:
            call = asyncio.create_task(mcp.call_tool("extend", {"key": "a", **ASKED}))
            handle = await tasks.seen.get()
            kill(folder)
            with pytest.raises(MCPError):
                await call
        sandbox.release()
        await sandbox.settled()
        async with agent(sandbox, tasks, store=STORE[1]) as mcp:
            told = await mcp.session.send_request(ask(handle.task_id), Told)
        assert 1 == len(sandbox.submissions)

    assert told.result is not None
    assert ("completed", "complete") == (told.status, facts(told.result)["state"])
