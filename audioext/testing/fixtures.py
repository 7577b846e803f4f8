"""The fixtures: a sandbox, clients on it, and a clock; nothing heavy is imported before a test asks for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import cast

import pytest
import pytest_asyncio

BRIEF = {
    "speed": 1e6,
    "submit_limit": None,
    "parallel_limit": None,
    "ready_seconds": 4.0,
    "extension_seconds": 1.0,
}
"""The settings of a sandbox whose tasks are done at once, whose audio is short, and which takes any number of tasks."""

# What a fixture returns is named in its docstring: its class is loaded when the fixture is first asked for.


@pytest.fixture
def audioext_clock() -> object:
    """Return a `JumpClock`, which stands still until the test moves it; `audioext_client` gives it to its clients.

    `await audioext_clock.run(job)` lets time fly until the job is done, `await audioext_clock.advance(60)` jumps.
    """
    from audioext.testing.clock import JumpClock  # noqa: PLC0415 - see the module's docstring

    return JumpClock()


@pytest_asyncio.fixture
async def audioext_sandbox(request: pytest.FixtureRequest) -> AsyncGenerator[object]:
    """Start a `Sandbox` for this test alone, on free ports: the four APIs, instant, with short audio.

    `@pytest.mark.audioext_faults("duplicate", "error=complete:501")` says what goes wrong. Settings are those of
    `SandboxSettings`: `@pytest.mark.audioext_sandbox(ready_seconds=10.0, extension_seconds=5.0)` makes the ready tracks
    10 seconds long (4 without it) and lets an extension add 5 (1 without it).
    """
    from audioext.sandbox import FaultError, MissingExtraError, Sandbox  # noqa: PLC0415 - see the module's docstring

    settings: dict[str, object] = dict(BRIEF)
    faults: list[object] = []
    for mark in reversed([*request.node.iter_markers("audioext_sandbox")]):  # the nearest one wins
        if mark.args:
            message = "audioext_sandbox takes settings by name, such as ready_seconds=10.0"
            pytest.fail(message, pytrace=False)
        settings |= mark.kwargs
    for mark in reversed([*request.node.iter_markers("audioext_faults")]):
        if mark.kwargs:
            message = 'audioext_faults takes texts, such as "duplicate", "drop=first*2" or "error@Song title"'
            pytest.fail(message, pytrace=False)
        faults += mark.args
    if faults:
        settings["faults"] = faults
    async with AsyncExitStack() as stack:
        try:
            sandbox = await stack.enter_async_context(Sandbox(**settings))  # type: ignore[arg-type]  # a test's own
        except (FaultError, MissingExtraError) as error:
            pytest.fail(str(error), pytrace=False)
        except (TypeError, ValueError) as error:  # a setting that there is not, or one of another kind
            pytest.fail(f"audioext_sandbox: {error}; see audioext.sandbox.SandboxSettings", pytrace=False)
        yield sandbox


@pytest_asyncio.fixture
async def audioext_client(request: pytest.FixtureRequest, audioext_sandbox: object) -> AsyncGenerator[object]:
    """Return a `ClientFactory`, which opens clients on the sandbox when it is called.

    `await audioext_client()` opens one at kie.ai, with webhooks; `await audioext_client("vidgo", by="poll")` another.
    What it opened is closed after the test. Where the test asks for `audioext_clock` too, that is the clients' clock.
    """
    from audioext.sandbox import Sandbox  # noqa: PLC0415 - see the module's docstring
    from audioext.testing.clients import ClientFactory  # noqa: PLC0415 - as above

    sandbox = cast("Sandbox", audioext_sandbox)
    clock = request.getfixturevalue("audioext_clock") if "audioext_clock" in request.fixturenames else None
    async with ClientFactory(sandbox=sandbox, clock=clock) as factory:
        yield factory
