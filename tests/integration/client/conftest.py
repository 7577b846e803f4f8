"""What the client's tests share: a sandbox, providers that point at it, and clients on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox

BRISK = ax.Pace(first=0.01, every=0.02, slowest=0.05, quiet=30.0)
"""A pace for status calls that suits a sandbox which is done at once."""

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close whatever a test opened, last first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def make_sandbox(stack: AsyncExitStack) -> MakeSandbox:
    """Return a function that starts a sandbox whose tasks are done at once."""

    async def make(**settings: object) -> Sandbox:
        return await stack.enter_async_context(Sandbox(**{"speed": 1e6, "submit_limit": None, "seed": 0, **settings}))  # type: ignore[arg-type]  # a test's own settings

    return make


@pytest.fixture
async def sandbox(make_sandbox: MakeSandbox) -> Sandbox:
    """Return a sandbox whose tasks are done at once."""
    return await make_sandbox()


@pytest.fixture
def providers() -> Callable[[Sandbox], dict[str, ax.Provider]]:
    """Return a function that builds all five providers for a sandbox."""

    def build(sandbox: Sandbox) -> dict[str, ax.Provider]:
        key, bases = sandbox.api_key, sandbox.bases
        found: list[ax.Provider] = [
            ax.Kie(key, base_url=bases["kie"], pace=BRISK, limits=ax.Limits()),
            ax.KieJobs(key, base_url=bases["kie"], pace=BRISK, limits=ax.Limits()),
            ax.SunoApi(key, base_url=bases["sunoapi"], pace=BRISK, limits=ax.Limits()),
            ax.Vidgo(key, base_url=bases["vidgo"], pace=BRISK),
            ax.MusicGpt(key, base_url=bases["musicgpt"], pace=BRISK, limits=ax.Limits()),
        ]
        return {provider.name: provider for provider in found}

    return build


@pytest.fixture
def make_client(stack: AsyncExitStack, providers: Callable[[Sandbox], dict[str, ax.Provider]]) -> MakeClient:
    """Return a function that opens a client on a sandbox: by webhook, or by poll alone with `poll=True`."""

    async def make(
        sandbox: Sandbox, provider: str | ax.Provider = "kie", *, poll: bool = False, **settings: object
    ) -> ax.Client:
        chosen = providers(sandbox)[provider] if isinstance(provider, str) else provider
        web = {} if poll else {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0"}
        client = ax.Client(chosen, **{"wait_timeout": 20.0, **web, **settings})  # type: ignore[arg-type]  # as above
        return await stack.enter_async_context(client)

    return make


@pytest.fixture
def voice_file(tmp_path: Path) -> Path:
    """Return a short local WAV file."""
    from audioext.sandbox import audio  # noqa: PLC0415 - numpy takes a while

    path = tmp_path / "voice.wav"
    path.write_bytes(audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav"))
    return path
