"""Clients on the sandbox: opened by one call, closed after the test, with a wait for all webhooks and handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Literal, Self

from attrs import define, field

from audioext import providers as known
from audioext.client import Client
from audioext.clock import Clock
from audioext.models.limits import Limits, Pace
from audioext.providers.base import Provider
from audioext.sandbox import Sandbox
from audioext.state.schedule import handle_at
from audioext.testing.clock import JumpClock

__all__ = ["ClientFactory", "SandboxClient"]

WEB: Mapping[str, object] = {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0"}
BRISK = Pace(first=0.01, every=0.02)
UNLIMITED = Limits(queries=None)
WAIT_SECONDS = 20.0
"""The default `wait_timeout`, in real time: no sandbox job takes that long, and a failing test should end soon."""
SETTLE_SECONDS = 10.0
LOOK_SECONDS = 0.001
"""How often `settled` checks whether handlers are done, in real time."""


class SandboxClient(Client):
    """A client on a sandbox that can wait until all webhooks and handlers are done."""

    def __init__(self, *providers: Provider, sandbox: Sandbox, **settings: object) -> None:
        """Take a `Client`'s settings, and the sandbox of its providers."""
        super().__init__(*providers, **settings)  # type: ignore[arg-type]  # Client checks them
        self._sandbox = sandbox

    async def settled(self, *, timeout: float = SETTLE_SECONDS) -> None:  # noqa: ASYNC109 - its error says what hangs
        """Wait until all webhooks are in and their handlers have run, also for tasks that handlers submitted.

        Without a `public_url` it polls the status of each open job instead. It does not wait for a stage that the
        sandbox holds, nor for the next try of a failed handler.

        Raises:
            TimeoutError: it took *timeout* real seconds; the message says what was not done.
        """
        late = "the sandbox still sends webhooks"
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._sandbox.settled()
                    late = await self._unsettled() or ""
                    if not late and self._sandbox.is_settled:
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            message = f"not settled after {timeout:g} s: {late or 'new tasks are submitted again and again'}"
            raise TimeoutError(message) from error

    async def _unsettled(self) -> str | None:
        """Return what is still outstanding, if anything; without a public URL, poll all open jobs."""
        jobs = [job async for job in self.jobs()]
        if self.public_url is None:
            for job in jobs:
                before = job.record
                if before.task_id is not None and not before.is_final:
                    await job.refresh()
                    if job.record != before:
                        return f"{job} makes progress"
        if self._handlers.has_handlers:
            now = self.clock.now()
            for job in jobs:
                due = handle_at(job.record, now)
                if due is not None and due <= now:
                    return f"a handler of {job} still runs"
        return None


@define(kw_only=True, eq=False)
class ClientFactory:
    """Opens clients on a sandbox, and closes them after the test; `await audioext_client("vidgo", by="poll")`."""

    sandbox: Sandbox = field(repr=False)
    clock: JumpClock | None = None
    _stack: AsyncExitStack = field(factory=AsyncExitStack, init=False, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)

    async def __aenter__(self) -> Self:
        """Remember the event loop: all clients must be opened in it."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the clients, the last one first."""
        await self._stack.aclose()

    async def __call__(
        self,
        *providers: str | Provider,
        by: Literal["webhook", "poll"] = "webhook",
        open: bool = True,  # noqa: A002 - reads as what it does: open=False
        clock: JumpClock | Clock | None = None,
        **settings: object,
    ) -> SandboxClient:
        """Return an open client; the first of the *providers* is its default one; without any it uses kie.ai.

        A name means that provider at the sandbox; use `provider` for one with settings. With `by="webhook"` results
        come by webhooks to a free port of this machine, with polls at the provider's usual pace; with `by="poll"` only
        by quick polls. `open=False` is for an application that opens its client itself. The other settings are
        `Client`'s, such as `store` or `wait_timeout` (here 20 seconds, unless a `JumpClock` makes waits cheap).

        Raises:
            ConfigError: a setting cannot work.
            RuntimeError: the test runs in another event loop than its fixtures.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "the test runs in another event loop than its fixtures: set pytest-asyncio's "
                "asyncio_default_fixture_loop_scope to the loop_scope of the test"
            )
        if by not in {"webhook", "poll"}:
            raise ValueError(f'by must be "webhook" or "poll", not {by!r}')
        pace = {"pace": BRISK} if by == "poll" else {}
        chosen = [self.provider(each, **pace) if isinstance(each, str) else each for each in providers or ("kie",)]
        clock = clock or self.clock
        clock = clock.clock if isinstance(clock, JumpClock) else clock
        defaults = {"wait_timeout": WAIT_SECONDS} if clock is None else {"clock": clock}
        web = WEB if by == "webhook" else {}
        client = SandboxClient(*chosen, sandbox=self.sandbox, **{**defaults, **web, **settings})
        self._stack.push_async_callback(client.aclose)  # a no-op if it was never opened, or is closed
        return await client.open() if open else client

    def provider(self, name: str = "kie", /, **settings: object) -> Provider:
        """Return the provider of that name at the sandbox: `"kie"`, `"kie-jobs"`, `"sunoapi"`, `"vidgo"`, `"musicgpt"`.

        The settings are those of its class, such as `pace`, `limits` or `grace`: how many seconds a submit without an
        answer waits for its first webhook before it counts as unknown (900).

        Raises:
            ValueError: there is no provider of that name.
            ConfigError: a setting cannot work.
        """
        if name not in known.NAMES:
            raise ValueError(f"there is no provider {name!r}; the sandbox has {', '.join(known.NAMES)}")
        defaults: dict[str, object] = {"limits": UNLIMITED}
        made = known.load(name)
        if made().info.webhook_key_variable and self.sandbox.hmac_key is not None:
            defaults["webhook_key"] = self.sandbox.hmac_key
        return made(self.sandbox.api_key, base_url=self.sandbox.base_of(name), **{**defaults, **settings})
