"""What a command works with: a provider, a client, and the in-process sandbox where one was asked for."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs
from attrs import frozen

from audioext import config as settings
from audioext import providers as all_providers
from audioext.cli.exits import NoSuchRefError
from audioext.cli.options import (
    DEFAULT_STORE,
    SANDBOX_STORE,
    ApiOptions,
    HookOptions,
    LookOptions,
    SandboxOptions,
    StoreOptions,
)
from audioext.client import Client
from audioext.config import UNSET, Unset
from audioext.errors import ConfigError
from audioext.providers.base import Pace, Provider
from audioext.stores import open_store
from audioext.stores.base import Store

if TYPE_CHECKING:
    from audioext.sandbox import Sandbox

SANDBOX_BASES: Mapping[str, str] = {
    "kie": "kie",
    "kie-jobs": "kie",
    "sunoapi": "sunoapi",
    "vidgo": "vidgo",
    "musicgpt": "musicgpt",
}
"""Which of the sandbox's bases a provider calls."""

LOOPBACK_URL = "http://127.0.0.1:{port}/audio"
LOOPBACK_LISTEN = "127.0.0.1:0"
LEAST_PACE_SECONDS = 0.1
LEAST_QUIET_SECONDS = 5.0
QUIET_FACTOR = 2.0
"""A sandbox takes up to 115 s from first to complete: polls after the usual 90 s would race its webhooks."""
_SIGNED = frozenset({"kie", "kie-jobs"})


@frozen(kw_only=True)
class Place:
    """A client that is open, and what it talks to."""

    client: Client
    provider: Provider
    sandbox: Sandbox | None = None

    @property
    def has_key(self) -> bool:
        """Whether the provider can be asked for anything."""
        return settings.named([self.provider], os.environ)[self.provider.name].api_key is not None


def make_provider(name: str, **given: object) -> Provider:
    """Return the provider called *name*; settings that are `None` or empty are left at their defaults.

    Raises:
        ConfigError: there is no such provider, or a setting cannot work.
    """
    makers = {make().name: make for make in all_providers.ALL}
    if name not in makers:
        message = f"there is no provider {name!r}; there are {', '.join(makers)}"
        raise ConfigError(message)
    if name not in _SIGNED:
        given.pop("webhook_key", None)
    chosen = {key: value for key, value in given.items() if value not in {None, ()}}
    provider: Provider = makers[name](**chosen)  # type: ignore[arg-type]  # each setting comes from its own option
    return provider


def sandbox_provider(name: str, sandbox: Sandbox) -> Provider:
    """Return the provider called *name* as the *sandbox* plays it: at its address, with its keys, at its speed."""
    speed, pace = sandbox.speed, Pace()
    quick = {name: max(LEAST_PACE_SECONDS, getattr(pace, name) / speed) for name in ("first", "every", "slowest")}
    quick["quiet"] = max(LEAST_QUIET_SECONDS, QUIET_FACTOR * pace.quiet / speed)
    return make_provider(
        name,
        api_key=sandbox.api_key,
        base_url=sandbox.bases[SANDBOX_BASES[name]],
        webhook_key=sandbox.hmac_key,
        pace=attrs.evolve(pace, **quick),
    )


def real_provider(name: str, api: ApiOptions) -> Provider:
    """Return the provider called *name* with the settings of the command line; its key is in the environment."""
    pace = None
    if api.poll_every is not None:
        settings.check_durations(poll_every=api.poll_every)
        every = api.poll_every
        pace = Pace(first=every, every=every, slowest=every)
    return make_provider(name, base_url=api.base_url, webhook_key=api.webhook_key, pace=pace)


def store_url(options: StoreOptions, *, sandbox: bool = False) -> str:
    """Return the store that was asked for, or the default one."""
    return options.store or (SANDBOX_STORE if sandbox else DEFAULT_STORE)


def existing_store(options: LookOptions) -> Store:
    """Return the store of a command that only looks: it makes no new, empty file.

    Raises:
        NoSuchRefError: there is no such file.
        ConfigError: the URL is no store's.
    """
    url = store_url(options, sandbox=options.sandbox)
    store = open_store(url)
    parts = urlsplit(url)
    path = Path(unquote(parts.path[1:]))
    if parts.scheme == "sqlite" and not path.exists():
        message = f"there is no store at {path}; --store or AUDIOEXT_STORE says where your jobs are"
        raise NoSuchRefError(message)
    return store


@asynccontextmanager
async def open_sandbox(options: SandboxOptions, **given: object) -> AsyncGenerator[Sandbox]:
    """Run a sandbox in this process, which signs its webhooks with a key of its own.

    Raises:
        MissingExtraError: numpy or soundfile are not installed.
        FaultError: one of the faults is none.
    """
    from audioext.sandbox import Sandbox  # noqa: PLC0415 - an extra, and slow to load

    settings.check_durations(speed=options.speed)
    values = {"speed": options.speed, "faults": options.fault, "hmac_key": secrets.token_hex(), **given}
    async with Sandbox(**values) as sandbox:  # type: ignore[arg-type]  # each setting comes from its own option
        yield sandbox


@asynccontextmanager
async def open_place(
    name: str, *, api: ApiOptions, sandbox: SandboxOptions, store: str | Store, wait_timeout: float
) -> AsyncGenerator[Place]:
    """Open a client for the provider called *name*, at its real API or in a sandbox of its own.

    Raises:
        AudioextError: whatever opening a client raises.
    """
    settings.check_durations(timeout=wait_timeout)
    async with AsyncExitStack() as stack:
        if sandbox.sandbox:
            running = await stack.enter_async_context(open_sandbox(sandbox))
            provider = sandbox_provider(name, running)
            url, listen = api.public_url or LOOPBACK_URL, api.listen or LOOPBACK_LISTEN
        else:
            running, provider = None, real_provider(name, api)
            url, listen = api.public_url or "", api.listen or ""
        if api.poll_only:
            url, listen = "", ""
        client = Client(
            provider, public_url=url or None, listen=read_listen(listen), store=store, wait_timeout=wait_timeout
        )
        await stack.enter_async_context(client)
        yield Place(client=client, provider=provider, sandbox=running)


@contextmanager
def explained_key(place: Place) -> Generator[None]:
    """Let a refusal for want of an API key name the way to do without one.

    Raises:
        ConfigError: as it was, or for want of a key.
    """
    try:
        yield
    except ConfigError as error:
        if place.has_key:
            raise
        variable = place.provider.key_variable
        message = f"no API key for {place.provider.name}: set {variable} in the environment; --sandbox needs none"
        raise ConfigError(message) from error


def read_listen(text: str | None) -> str | Unset | None:
    """Return what `listen` means to a client: an address, `none` for nowhere, nothing for the default."""
    if not text:
        return UNSET
    return None if text.lower() == "none" else text


def listening_providers(hooks: HookOptions) -> list[Provider]:
    """Return every provider that would call *hooks*' public URL, to decode, and to poll where its key is known."""
    url = settings.read_public_url(hooks.public_url)
    found = []
    for name in [make().name for make in all_providers.ALL]:
        provider = make_provider(name, webhook_key=hooks.webhook_key)
        try:
            settings.check_callbacks([provider], url)
        except ConfigError:  # the listener decodes it all the same, but nobody could submit to it from here
            continue
        found.append(provider)
    return found
