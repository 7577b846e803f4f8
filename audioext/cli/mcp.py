"""`audioext mcp`: an MCP server over stdio, or over HTTP with a bearer token."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

from attrs import field, frozen

from audioext import config
from audioext.cli.clients import open_client
from audioext.cli.execution import stop_signals
from audioext.cli.exits import Exit
from audioext.cli.options import API, BaseUrl, Command, ConnectOptions, Out, Provided, env
from audioext.cli.screen import Screen
from audioext.errors import ConfigError

SANDBOX_NOTE = (
    "This server plays the API on its own machine: nothing is charged, songs are made up, and a task takes seconds."
    " Sources to begin with: "
)
GUARDED_HOSTS = ("127.0.0.1", "localhost", "::1")
"""On these, and on no other name of this machine, the SDK refuses what a page in a browser sends."""


@frozen(kw_only=True, slots=False)
class McpCommand(ConnectOptions, Command):
    """`audioext mcp`."""

    sandbox_store = "memory://"  # each start is a new sandbox, without the tasks of the last one
    provider: Provided = "kie"
    base_url: BaseUrl = None
    out: Out = Path()
    http: Annotated[str | None, API] = None
    """Serve streamable HTTP at HOST:PORT/mcp, instead of stdin and stdout."""
    token: Annotated[str | None, API, env("AUDIOEXT_MCP_TOKEN")] = field(default=None, repr=False)
    """The token that HTTP clients have to send as `Authorization: Bearer …`; needed beyond this machine."""

    async def run(self, screen: Screen) -> None:
        """Serve until the client closes stdin, or until Ctrl-C or SIGTERM."""
        from audioext.cli import mcp_server  # noqa: PLC0415 - its packages are an extra

        address = None if self.http is None else _read_address(self.http, has_token=bool(self.token))
        async with open_client(self, self.provider, screen, base_url=self.base_url) as opened:
            note = SANDBOX_NOTE + ", ".join(opened.samples) if self.sandbox else ""
            server = mcp_server.AgentServer(opened.client, provider=self.provider, out=self.out, note=note)
            with stop_signals() as stopped:
                if address is not None:
                    app = server.streamable_http_app(host=address[0])
                    guarded = mcp_server.gated(app, self.token) if self.token else app
                    await mcp_server.serve_http(guarded, address, screen, stopped)
                    return
                if sys.stdin.isatty():
                    screen.note("speaking MCP on stdin and stdout: meant to be started by an agent; Ctrl-C ends it")
                speaking = asyncio.create_task(server.run_stdio_async())
                await mcp_server.first_of(speaking, stopped)
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
