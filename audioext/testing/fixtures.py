"""The fixtures: a sandbox, clients on it, and a clock; heavy imports wait until a test asks for one."""

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
"""The settings of a sandbox with instant tasks, short audio and no limits."""

# A fixture's docstring, not its annotation, names its class, which is imported when the fixture is first used.


@pytest.fixture
def audioext_clock() -> object:
    """Return a `JumpClock`, which stands still until the test moves it; `audioext_client` passes it to its clients.

    `await audioext_clock.run(job)` advances it until the job is done, `await audioext_clock.advance(60)` moves it once.
    """
    from audioext.testing.clock import JumpClock  # noqa: PLC0415 - see the module's docstring

    return JumpClock()


@pytest_asyncio.fixture
async def audioext_sandbox(request: pytest.FixtureRequest) -> AsyncGenerator[object]:
    """Start a `Sandbox` for this test alone, on free ports: the four APIs, instant, with short audio.

    `@pytest.mark.audioext_faults("duplicate", "error=complete:501")` injects faults. Settings are those of
    `SandboxSettings`: `@pytest.mark.audioext_sandbox(ready_seconds=10.0, extension_seconds=5.0)` makes the ready tracks
    10 seconds long (default 4), and an extension adds 5 seconds (default 1).
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
        except (TypeError, ValueError) as error:  # an unknown setting, or a wrong type
            pytest.fail(f"audioext_sandbox: {error}; see audioext.sandbox.SandboxSettings", pytrace=False)
        yield sandbox


@pytest_asyncio.fixture
async def audioext_client(request: pytest.FixtureRequest, audioext_sandbox: object) -> AsyncGenerator[object]:
    """Return a `ClientFactory`, which opens clients on the sandbox when it is called.

    `await audioext_client()` opens one for kie.ai, with webhooks; `await audioext_client("vidgo", by="poll")` another.
    They are closed after the test. If the test also uses `audioext_clock`, that is their clock.
    """
    from audioext.sandbox import Sandbox  # noqa: PLC0415 - see the module's docstring
    from audioext.testing.clients import ClientFactory  # noqa: PLC0415 - as above

    sandbox = cast("Sandbox", audioext_sandbox)
    clock = request.getfixturevalue("audioext_clock") if "audioext_clock" in request.fixturenames else None
    async with ClientFactory(sandbox=sandbox, clock=clock) as factory:
        yield factory
