"""The sandbox: `audioext sandbox` until Ctrl-C, or one in the process of another command."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from audioext.cli.commands import SandboxCommand
from audioext.cli.execution import stop_signals
from audioext.cli.options import PlayOptions
from audioext.cli.screen import Screen, program
from audioext.errors import ConfigError, why_unbound
from audioext.models.limits import Pace
from audioext.sandbox import FaultError, Sandbox

ADDED_SECONDS = 24.0
"""How much music an extension adds after `continue_at`."""
LEAST_PACE_SECONDS = 0.1
LEAST_QUIET_SECONDS = 5.0
QUIET_FACTOR = 2.0
"""A sandbox takes up to 115 s from first to complete: polls after the usual 90 s would race its webhooks."""


async def serve(command: SandboxCommand, screen: Screen) -> None:
    """Serve the four APIs until Ctrl-C or SIGTERM."""
    given = {name: getattr(command, name) for name in ("host", "port", "hmac_key", "seed")}
    if command.api_key is not None:
        given["api_key"] = command.api_key
    try:
        # Signal handlers come first: a parent process may stop us as soon as it reads that we are ready.
        async with AsyncExitStack() as stack:
            stopped = stack.enter_context(stop_signals())
            sandbox = await stack.enter_async_context(open_sandbox(command, **given))
            page = None
            if command.ui:
                from audioext.cli.sandbox_page import tasks_page  # noqa: PLC0415 - its package is an extra

                page = tasks_page(sandbox)
            screen.result(_described(command, sandbox), json=sandbox.describe())
            if page is not None:
                url = str(await stack.enter_async_context(page.served("127.0.0.1", command.ui_port)))
                screen.note(f"the live page: {url}", json={"event": "page", "url": url})
            await stopped.wait()
    except OSError as error:
        message = (
            f"cannot listen on {command.host}:{command.port}: {why_unbound(error)}; choose another --host or --port"
        )
        raise ConfigError(message) from error


def _described(command: SandboxCommand, sandbox: Sandbox) -> str:
    # The default key is not secret; a given key may be used elsewhere, so it is not shown.
    key = sandbox.api_key if command.api_key is None else "…"
    extend = f"{program()} extend {sandbox.track_ids[0]} --base-url {sandbox.bases['kie']} --poll-every 1"
    fields = "--model V5 --continue-at 60 --prompt more --style Piano --title 'Part 2'"
    return "\n".join(
        (
            f"sandbox at {sandbox.url}, {command.speed:g} times as fast as the real APIs; Ctrl-C ends it",
            *(f"  {name:<9} {base}" for name, base in sandbox.bases.items()),
            f"  ready tracks to extend by id: {', '.join(sandbox.track_ids)}",
            f"  a tune and a voice to use by URL: {sandbox.tune_url} {sandbox.voice_url}",
            "from another terminal:",
            f"  KIE_API_KEY={key} {extend} {fields}",
        )
    )


@asynccontextmanager
async def open_sandbox(options: PlayOptions, **given: object) -> AsyncGenerator[Sandbox]:
    """Run a sandbox in this process, with a random key that signs its webhooks."""
    values = {"extension_seconds": ADDED_SECONDS, "hmac_key": secrets.token_hex(), **given}
    try:
        async with Sandbox(speed=options.speed, faults=options.fault, **values) as sandbox:  # type: ignore[arg-type]  # from options
            yield sandbox
    except FaultError as error:
        raise ConfigError(str(error)) from error


def provider_settings(name: str, sandbox: Sandbox) -> Mapping[str, object]:
    """Return the settings of the provider called *name* at *sandbox*: address, keys and a pace that fits its speed."""
    pace = Pace()
    least = LEAST_PACE_SECONDS
    quick = {each: max(least, getattr(pace, each) / sandbox.speed) for each in ("first", "every", "slowest")}
    quick["quiet"] = max(LEAST_QUIET_SECONDS, QUIET_FACTOR * pace.quiet / sandbox.speed)
    return {
        "api_key": sandbox.api_key,
        "base_url": sandbox.base_of(name),
        "webhook_key": sandbox.hmac_key,
        "pace": attrs.evolve(pace, **quick),
    }
