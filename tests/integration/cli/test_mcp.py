"""`audioext mcp`: an agent makes songs with tools, and finds them again after the server ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import BlobResourceContents, CallToolResult, TextContent

import audioext as ax
from audioext.cli.mcp_jobs import ERROR_FACTS
from audioext.cli.mcp_server import AgentServer
from audioext.models.requests import AddInstrumental, Extend
from audioext.sandbox import Sandbox
from tests.integration.cli.conftest import FAST, MEMORY, PATIENCE_SECONDS, STORE, TRACK, Invoke, Start, short_sandbox

ASKED = {"audio_id": TRACK, "model": "V5"}
STAGES = [1.0, 2.0, 3.0, 4.0]


def facts(result: CallToolResult) -> dict[str, Any]:
    """Return the structured content of a tool's result."""
    found: dict[str, Any] = result.structured_content
    assert found
    return found


def error(result: CallToolResult) -> dict[str, Any]:
    """Return the facts of an error, whose text says whether it was charged."""
    assert result.structured_content is None  # clients would check an error's content against the tool's result schema
    told: dict[str, Any] = (result.meta or {})[ERROR_FACTS]
    (content,) = result.content
    assert result.is_error
    assert isinstance(content, TextContent)
    assert content.text.endswith(told["money"])
    return told


class Heard:
    """Collects the progress of calls."""

    def __init__(self) -> None:
        """Start empty."""
        self.steps: list[float] = []
        self.words: list[str] = []
        self.first = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """Keep one step."""
        assert STAGES[-1] == total
        self.steps.append(progress)
        self.words.append(message or "")
        if progress >= ax.Stage.FIRST:
            self.first.set()


def over_stdio(*arguments: str | Path, **env: str) -> StdioServerParameters:
    """Return the parameters with which a client starts the server; its process id is in the file `pid`."""
    command = ["-c", 'echo $$ > pid; exec "$@"', "sh", sys.executable, "-m", "audioext", "mcp", *map(str, arguments)]
    return StdioServerParameters(command="sh", args=command, env={"PYTHONPATH": os.environ["PYTHONPATH"], **env})


@asynccontextmanager
async def agent(sandbox: Sandbox, **settings: Any) -> AsyncIterator[Client]:
    """Return an MCP client of a server in this process, which polls unless it has a public URL."""
    pace = ax.Kie().pace if "public_url" in settings else ax.Pace(first=0.01, every=0.02)
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=pace)
    async with (
        ax.Client(kie, **settings) as client,
        Client(AgentServer(client, provider="kie", out=Path("out"))) as mcp,
    ):
        yield mcp


async def test_an_agent_makes_a_song(folder: Path, voice: Path) -> None:
    """An agent submits, waits with progress by stage, saves, reads resources, lists jobs and asks for the credits."""
    heard, wanted = Heard(), {"key": "mine", "file": str(voice), "model": "V5", "continue_at": 2.5}
    async with short_sandbox() as sandbox, agent(sandbox) as mcp:
        submitted = facts(await mcp.call_tool("extend", wanted))
        again = facts(await mcp.call_tool("extend", wanted))
        done = facts(await mcp.call_tool("wait", {"ref": submitted["ref"]}, progress_callback=heard))
        saved = facts(await mcp.call_tool("save", {"ref": submitted["ref"], "folder": "below"}))
        left = facts(await mcp.call_tool("credits", {}))
        listed = facts(await mcp.call_tool("jobs", {"open": False}))
        (song,) = (await mcp.list_resources()).resources
        (text,) = (await mcp.read_resource(song.uri)).contents
        (blob,) = (await mcp.read_resource(done["tracks"][1]["resource"])).contents

    assert (True, False, submitted["ref"]) == (submitted["is_new"], again["is_new"], again["ref"])
    assert STAGES == heard.steps
    assert "complete by poll" == heard.words[-1]
    assert ("complete", 2) == (done["state"], len(done["tracks"]))
    assert [folder / "out" / "below"] * 2 == [Path(path).parent for path in saved["files"]]
    assert [done] == listed["jobs"]
    assert done == json.loads(text.model_dump()["text"])
    assert isinstance(blob, BlobResourceContents)
    assert ("audio/mpeg", True) == (blob.mime_type, len(blob.blob) > 10_000)
    assert ("kie", True) == (left["provider"], left["credits"] < 100_000)


async def test_a_wait_is_bounded_and_says_how_to_go_on() -> None:
    """A wait that times out leaves the job open; a job that is not complete cannot be saved, and costs nothing more."""
    async with short_sandbox() as sandbox, agent(sandbox) as mcp:
        sandbox.hold("complete")
        ref = facts(await mcp.call_tool("extend", {"key": "a", **ASKED}))["ref"]
        waited = facts(await mcp.call_tool("wait", {"ref": ref, "seconds": 0.3}))
        early = error(await mcp.call_tool("save", {"ref": ref}))
        with pytest.raises(MCPError, match="no finished song"):
            await mcp.read_resource(f"audioext://songs/{ref}/1")
        sandbox.release()
        done = facts(await mcp.call_tool("wait", {"ref": ref}))

    assert ("first", True) == (waited["state"], f"`wait` with ref {ref}" in waited["next"])
    assert ("StageTimeoutError", "The task goes on; `wait` costs nothing more.") == (early["type"], early["money"])
    assert "complete" == done["state"]


@pytest.mark.parametrize(
    ("faults", "arguments", "kind", "money"),
    [
        ((), {"key": "a", "model": "V5", "colour": "red"}, "RequestError", "This call charged nothing."),
        ((), {"key": "a", "model": "V5", "continue_at": -1}, "RequestError", "This call charged nothing."),
        ((), {"key": "a", "model": "V5", "continue_at": "soon"}, "RequestError", "This call charged nothing."),
        ((), {"model": "V5"}, "RequestError", "This call charged nothing."),
        (("code=402",), {"key": "a", **ASKED}, "CreditsError", "Nothing was charged."),
        (("http=500:made",), {"key": "a", **ASKED}, "SubmitUnknownError", "It is unknown whether it was charged"),
        (("error=complete:501",), {"key": "a", **ASKED}, "JobFailedError", "charged"),
    ],
)
async def test_an_error_says_whether_the_task_was_charged(
    faults: tuple[str, ...], arguments: Mapping[str, object], kind: str, money: str
) -> None:
    """An error's text and its facts say whether the task was charged."""
    async with short_sandbox(faults=faults) as sandbox, agent(sandbox) as mcp:
        answer = await mcp.call_tool("extend", dict(arguments))
        if not answer.is_error:
            answer = await mcp.call_tool("wait", {"ref": facts(answer)["ref"]})
    told = error(answer)

    assert kind == told["type"]
    assert money in told["money"]


async def test_a_key_is_for_one_request_and_files_stay_in_their_folder(folder: Path) -> None:
    """Another request with the same key is refused, and so is a folder outside of the server's own."""
    async with short_sandbox() as sandbox, agent(sandbox) as mcp:
        ref = facts(await mcp.call_tool("extend", {"key": "a", **ASKED}))["ref"]
        other = error(await mcp.call_tool("extend", {"key": "a", **ASKED, "model": "V4"}))
        await mcp.call_tool("wait", {"ref": ref})
        outside = error(await mcp.call_tool("save", {"ref": ref, "folder": "../elsewhere"}))
        nowhere = error(await mcp.call_tool("save", {"ref": ref, "folder": "\0"}))
        found = facts(await mcp.call_tool("job", {"key": "a"}))
        assert 1 == len(sandbox.submissions)

    assert ("KeyConflictError", ref) == (other["type"], found["ref"])
    assert ["folder", "folder"] == [each["problems"][0]["field"] for each in (outside, nowhere)]


async def test_the_fields_of_a_request_are_the_arguments_of_its_tool() -> None:
    """Each field of a request is a described argument of its tool, beside the required key."""
    async with short_sandbox() as sandbox, agent(sandbox) as mcp:
        schemas = {tool.name: tool.input_schema for tool in (await mcp.list_tools()).tools}

    for name, request in (("extend", Extend), ("add_instrumental", AddInstrumental)):
        fields = {each.name for each in attrs.fields(request)} - {"provider"}
        properties: dict[str, dict[str, object]] = schemas[name]["properties"]
        assert {"key", *fields} == set(properties)
        assert all(each["description"] for each in properties.values())
        assert ["key"] == schemas[name]["required"]


async def test_http_needs_the_token(start: Start, folder: Path) -> None:
    """HTTP requests need the token, here from a file; a signal ends the server."""
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text("made-up\n")
    env = {"AUDIOEXT_MCP_TOKEN_FILE": "token", "KIE_API_KEY": "made-up"}
    process = start("mcp", *MEMORY, "--http", "127.0.0.1:0", "--json", env=env)
    assert process.stdout is not None
    url = json.loads(await asyncio.to_thread(process.stdout.readline))["url"]
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream"}
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json=body, headers=headers) as stranger:
            assert (401, "Bearer") == (stranger.status, stranger.headers["WWW-Authenticate"])
        async with session.post(url, json=body, headers={**headers, "Authorization": "Bearer made-up"}) as known:
            assert 401 != known.status
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert (0, "") == (process.returncode, errors)


@pytest.mark.parametrize(("address", "words"), [("0.0.0.0:8000", "AUDIOEXT_MCP_TOKEN"), ("nowhere", "127.0.0.1:8000")])
def test_listening_on_all_addresses_needs_a_token(invoke: Invoke, address: str, words: str) -> None:
    """Listening on all addresses without a token is refused, since the tools cost money."""
    ended = invoke("mcp", "--http", address, *MEMORY)

    assert 2 == ended.code
    assert words in ended.err


async def test_a_signal_ends_it_while_it_reads(folder: Path) -> None:
    """SIGTERM ends the process although a thread still reads stdin; before, its sandbox told which track to extend."""
    command, pipe = (sys.executable, "-m", "audioext", "mcp", *FAST), asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    answer = json.loads(await process.stdout.readline())
    process.terminate()

    assert TRACK in answer["result"]["instructions"]
    assert 0 == await process.wait()
    process.stdin.close()


async def killed_and_asked_again(sandbox: Sandbox, folder: Path, port: int, name: str, *, again: bool = False) -> None:
    """Kill the server after a submit reached the API, or *again* during the wait, and check that there is one song."""
    reach = {"public_url": f"http://127.0.0.1:{port}/audio", "listen": f"127.0.0.1:{port}"}
    hooks = ("--public-url", reach["public_url"], "--listen", reach["listen"])
    server = over_stdio("--base-url", sandbox.bases["kie"], *hooks, *STORE, KIE_API_KEY=sandbox.api_key)
    before, heard, wanted = len(sandbox.submissions), Heard(), {"key": name, **ASKED}

    sandbox.script("callback_before_response", times=1)
    sandbox.hold("text", "complete")  # so that the submit gets no answer
    async with Client(server) as mcp:
        call = asyncio.create_task(mcp.call_tool("extend", wanted))
        while len(sandbox.submissions) == before:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        kill(folder)
        with pytest.raises(MCPError):
            await call
    if again:
        async with Client(server) as mcp:
            ref = facts(await mcp.call_tool("extend", wanted))["ref"]
            sandbox.release("text")
            waiting = asyncio.create_task(mcp.call_tool("wait", {"ref": ref}, progress_callback=heard))
            await heard.first.wait()
            kill(folder)
            with pytest.raises(MCPError):
                await waiting
    async with agent(sandbox, store=STORE[1], **reach) as mcp:
        sandbox.release()
        found = facts(await mcp.call_tool("extend", wanted))
        done = facts(await mcp.call_tool("wait", {"ref": found["ref"]}))

    assert not found["is_new"]
    assert ("complete", 2) == (done["state"], len([track for track in done["tracks"] if track["resource"]]))
    assert before + 1 == len(sandbox.submissions)


def kill(folder: Path) -> None:
    """Kill the server."""
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


async def test_a_killed_server_loses_no_song_and_pays_once(folder: Path, unused_tcp_port: int) -> None:
    """A client that repeats its key or ref after the server was killed gets the song of its only submission."""
    async with short_sandbox() as sandbox:
        await killed_and_asked_again(sandbox, folder, unused_tcp_port, "wanted")


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_server_killed_a_hundred_times_loses_no_song(folder: Path, unused_tcp_port: int) -> None:
    """Fifty songs with two kills each are all found and paid once."""
    async with short_sandbox() as sandbox:
        for number in range(50):
            await killed_and_asked_again(sandbox, folder, unused_tcp_port, f"wanted-{number}", again=True)
            print(f"{number + 1} of 50")  # noqa: T201 - a soak tells how far it is
