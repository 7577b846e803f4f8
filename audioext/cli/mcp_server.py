"""`audioext mcp`: an MCP server over stdio, or over HTTP for those who bring the token."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import sys
from contextlib import nullcontext
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import uvicorn
from attrs import field, frozen
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

from audioext import config
from audioext.cli.clients import LOOPBACK_HOSTS, open_client
from audioext.cli.execution import stop_signals
from audioext.cli.exits import Exit
from audioext.cli.mcp_tools import AgentServer
from audioext.cli.options import API, BaseUrl, Command, ConnectOptions, Out, Provided, env
from audioext.cli.screen import Screen
from audioext.errors import ConfigError

SANDBOX_NOTE = (
    "This server plays the API on its own machine: nothing is charged, songs are made up, and a task takes seconds."
    " What there is to begin with: "
)


@frozen(kw_only=True, slots=False)
class McpCommand(ConnectOptions, Command):
    """`audioext mcp`."""

    sandbox_store = "memory://"  # each start is a new sandbox, which knows no task of the last one
    provider: Provided = "kie"
    base_url: BaseUrl = None
    out: Out = Path()
    http: Annotated[str | None, API] = None
    """HOST:PORT to serve streamable HTTP on, at /mcp; without it stdin and stdout."""
    token: Annotated[str | None, API, env("AUDIOEXT_MCP_TOKEN")] = field(default=None, repr=False)
    """What HTTP clients have to send as `Authorization: Bearer …`; needed beyond this machine."""

    async def run(self, screen: Screen) -> None:
        """Serve until the client closes stdin, or until Ctrl-C or SIGTERM."""
        address = None if self.http is None else _read_address(self.http, has_token=bool(self.token))
        async with open_client(self, self.provider, screen, base_url=self.base_url) as opened:
            note = SANDBOX_NOTE + ", ".join(opened.samples) if self.sandbox else ""
            server = AgentServer(opened.client, provider=self.provider, out=self.out, note=note)
            with stop_signals() as stopped:
                if address is not None:
                    app: ASGIApp = server.streamable_http_app(host=address[0])
                    await _serve_http(gated(app, self.token) if self.token else app, address, screen, stopped)
                    return
                if sys.stdin.isatty():
                    screen.note(
                        "speaking MCP on stdin and stdout: an agent's configuration starts this; Ctrl-C ends it"
                    )
                speaking = asyncio.create_task(server.run_stdio_async())
                await _first_of(speaking, stopped)
                if speaking.done():
                    await speaking
                    return
        os._exit(Exit.OK)  # the client is closed; a thread of the SDK's still reads stdin, and nothing can wake it


async def _serve_http(app: ASGIApp, address: tuple[str, int], screen: Screen, stopped: asyncio.Event) -> None:
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listening = socket.create_server(address, family=family)
    except OSError as error:
        message = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; choose another --http"
        raise ConfigError(message) from error
    with listening:
        quiet = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(quiet)
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # they are the command's
        serving = asyncio.create_task(server.serve([listening]))
        url = str(URL.build(scheme="http", host=address[0], port=listening.getsockname()[1], path="/mcp"))
        screen.note(f"serving MCP at {url}; Ctrl-C ends it", json={"event": "serving", "url": url})
        await _first_of(serving, stopped)
        server.should_exit = True
        await serving


async def _first_of(serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def gated(app: ASGIApp, token: str) -> ASGIApp:
    """Let through to *app* only those who bring the *token*, and answer 401 to the others."""
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


def _read_address(text: str, *, has_token: bool) -> tuple[str, int]:
    try:
        host, port = config.read_listen(text, None) or ("", 0)
    except ConfigError as error:
        raise ConfigError(f"--http must look like 127.0.0.1:8000, not {text!r:.80}") from error
    if not has_token and host not in LOOPBACK_HOSTS:  # for those the SDK keeps browsers out
        message = (
            f"--http {text} can be reached from elsewhere, and what is submitted costs money: set AUDIOEXT_MCP_TOKEN"
        )
        raise ConfigError(message)
    return host, port
