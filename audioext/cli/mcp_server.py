"""`audioext mcp`: an MCP server over stdio, or over HTTP for those who bring the token."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
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
from audioext.cli.options import (
    API_GROUP,
    ApiOptions,
    BaseUrlOptions,
    Command,
    Out,
    ProviderOption,
    SandboxOptions,
    StoreOptions,
    option,
)
from audioext.cli.screen import Screen
from audioext.errors import ConfigError

WAIT_SECONDS = 900.0
STOP_SECONDS = 2
UNAUTHORIZED = 401
SANDBOX_NOTE = (
    "This server plays the API on its own machine: nothing is charged, songs are made up, and a task takes seconds."
    " What there is to begin with: "
)


@frozen(kw_only=True, slots=False)
class McpCommand(StoreOptions, ApiOptions, BaseUrlOptions, SandboxOptions, Command):
    """`audioext mcp`."""

    provider: ProviderOption = "kie"
    out: Out = Path()
    http: Annotated[
        str | None, option("HOST:PORT to serve streamable HTTP on, at /mcp; without it stdin and stdout.", API_GROUP)
    ] = None
    token: Annotated[
        str | None,
        option(
            "What HTTP clients have to send as `Authorization: Bearer …`; needed beyond this machine.",
            API_GROUP,
            env="AUDIOEXT_MCP_TOKEN",
        ),
    ] = field(default=None, repr=False)

    async def run(self, screen: Screen) -> Exit:
        """Serve until the client closes stdin, or until Ctrl-C or SIGTERM."""
        address = None if self.http is None else _read_address(self.http, has_token=bool(self.token))
        async with open_client(
            self.provider,
            base_url=self.base_url,
            api=self,
            sandbox=self,
            store=self.store_url,
            wait_timeout=WAIT_SECONDS,
        ) as opened:
            note = SANDBOX_NOTE + ", ".join(opened.samples) if self.sandbox else ""
            server = AgentServer(opened.client, provider=self.provider, out=self.out, note=note)
            with stop_signals() as stopped:
                if address is not None:
                    await _serve_http(_gated(server, address[0], self.token), address, screen, stopped)
                    return Exit.OK
                if sys.stdin.isatty():
                    screen.note(
                        "speaking MCP on stdin and stdout: an agent's configuration starts this; Ctrl-C ends it"
                    )
                speaking = asyncio.create_task(server.run_stdio_async())
                await _first_of(speaking, stopped)
                if speaking.done():
                    await speaking
                    return Exit.OK
        os._exit(Exit.OK)  # the client is closed; a thread of the SDK's still reads stdin, and nothing can wake it


def _gated(server: AgentServer, host: str, token: str | None) -> ASGIApp:
    app = server.streamable_http_app(host=host)
    return TokenGate(app, token) if token else app


async def _serve_http(app: ASGIApp, address: tuple[str, int], screen: Screen, stopped: asyncio.Event) -> None:
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listening = socket.create_server(address, family=family)
    except OSError as error:
        message = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; choose another --http"
        raise ConfigError(message) from error
    with listening:
        quiet = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=STOP_SECONDS)
        server = _Server(quiet)
        serving = asyncio.create_task(server.serve([listening]))
        url = str(URL.build(scheme="http", host=address[0], port=listening.getsockname()[1], path="/mcp"))
        if screen.json:
            screen.emit({"event": "serving", "url": url})
        else:
            screen.note(f"serving MCP at {url}; Ctrl-C ends it")
        await _first_of(serving, stopped)
        server.should_exit = True
        await serving


async def _first_of(serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


class TokenGate:
    """Lets through to an ASGI application only those who bring the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Stand before *app*."""
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 to a request without it."""
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(given, self._expected):
            refusal = PlainTextResponse("a bearer token is needed", UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """A uvicorn that leaves the signals to the command."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _read_address(text: str, *, has_token: bool) -> tuple[str, int]:
    try:
        host, port = config.read_listen(text, None) or ("", 0)
    except ConfigError as error:
        message = f"--http must look like 127.0.0.1:8000, not {text!r:.80}"
        raise ConfigError(message) from error
    if not has_token and host not in LOOPBACK_HOSTS:  # for those the SDK keeps browsers out
        message = (
            f"--http {text} can be reached from elsewhere, and what is submitted costs money: set AUDIOEXT_MCP_TOKEN"
        )
        raise ConfigError(message)
    return host, port
