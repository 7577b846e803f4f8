"""`audioext mcp` with the MCP inspector's command line, which validates results like agents of its SDK."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import FAST, STORE, TRACK

PACKAGE = "@modelcontextprotocol/inspector"
SECONDS = 60
SERVER = (sys.executable, "-m", "audioext", "mcp", *FAST, *STORE)


def inspector() -> str:
    """Return the inspector's path, or skip the test: it is never downloaded."""
    found = shutil.which(os.environ.get("AUDIOEXT_INSPECTOR", "mcp-inspector"))
    if found is None:
        pytest.skip(f"no mcp-inspector: npm install -g {PACKAGE}, or name it in AUDIOEXT_INSPECTOR")
    return found


def inspect(*arguments: str) -> Any:
    """Return the JSON that the inspector prints for one call on a new server.

    From release 2 on it also exits with a code if the result is an error.
    """
    path = f"PYTHONPATH={os.environ['PYTHONPATH']}"  # newer releases pass on only the required environment variables
    called = [inspector(), "--cli", "-e", path, *SERVER, *arguments]
    done = subprocess.run(called, capture_output=True, check=False, text=True, timeout=SECONDS)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def call(tool: str, **arguments: object) -> Any:
    """Return the result of a tool."""
    given = [word for name, value in arguments.items() for word in ("--tool-arg", f"{name}={value}")]
    return inspect("--method", "tools/call", "--tool-name", tool, *given)


@pytest.mark.timeout(5 * SECONDS)
def test_the_inspector_lists_and_calls_the_tools(folder: Path) -> None:
    """Calls on separate servers find the same job by its key, and an error says whether it was charged."""
    tools = {tool["name"]: tool for tool in inspect("--method", "tools/list")["tools"]}
    wanted = {"key": "mine", "audio_id": TRACK, "model": "V5"}
    submitted, again = call("extend", **wanted), call("extend", **wanted)
    refused = call("extend", key="other", model="V5")

    assert {"extend", "add_instrumental", "wait", "job", "jobs", "save", "credits"} == set(tools)
    assert all("outputSchema" in tool for tool in tools.values())
    (first, second) = (answer["structuredContent"] for answer in (submitted, again))
    assert (True, False, first["ref"]) == (first["is_new"], second["is_new"], second["ref"])
    assert refused["isError"]
    assert refused["content"][0]["text"].endswith("This call charged nothing.")
