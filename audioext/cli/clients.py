"""What a command works with: a provider, a client, and the in-process sandbox where one was asked for."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs
from attrs import frozen

from audioext import config, providers
from audioext.cli.arguments import check_seconds
from audioext.cli.failures import NoSuchRefError
from audioext.cli.options import (
    DEFAULT_STORE,
    SANDBOX_STORE,
    ApiOptions,
    LookOptions,
    SandboxOptions,
    StoreOptions,
    WebhookOptions,
)
from audioext.cli.screen import JobOptions
from audioext.cli.text import program
from audioext.client import Client
from audioext.config import UNSET, Unset
from audioext.errors import ConfigError, RequestError
from audioext.models.limits import Pace
from audioext.providers.base import Provider
from audioext.runtime.jobs import Job
from audioext.sandbox import Sandbox
from audioext.stores import Store, open_store

SANDBOX_BASES: Mapping[str, str] = {
    "kie": "kie",
    "kie-jobs": "kie",
    "sunoapi": "sunoapi",
    "vidgo": "vidgo",
    "musicgpt": "musicgpt",
}
"""Which of the sandbox's bases a provider calls."""

LISTED_AT_MOST = 3
LOOPBACK_URL = "http://127.0.0.1:{port}/audio"
LOOPBACK_LISTEN = "127.0.0.1:0"
LEAST_PACE_SECONDS = 0.1
LEAST_QUIET_SECONDS = 5.0
QUIET_FACTOR = 2.0
"""A sandbox takes up to 115 s from first to complete: polls after the usual 90 s would race its webhooks."""
_SIGNED = frozenset({"kie", "kie-jobs"})


@frozen(kw_only=True)
class OpenClient:
    """A client that is open, and what it talks to."""

    client: Client
    provider: Provider
    sandbox: Sandbox | None = None

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the provider's key."""
        return self.provider.info.key_variable

    @property
    def is_local(self) -> bool:
        """Whether the API runs on this machine, as a sandbox does."""
        return self.provider.info.base_url.host in {"127.0.0.1", "localhost", "::1"}

    @property
    def has_key(self) -> bool:
        """Whether the provider can be asked for anything."""
        return config.named([self.provider], os.environ)[self.provider.info.name].info.has_key

    @contextmanager
    def explained_key(self) -> Generator[None]:
        """Let a refusal for want of an API key name the way to do without one.

        Raises:
            ConfigError: as it was, or for want of a key.
        """
        try:
            yield
        except ConfigError as error:
            if self.has_key:
                raise
            name = self.provider.info.name
            message = f"no API key for {name}: set {self.key_variable} in the environment; --sandbox needs none"
            raise ConfigError(message) from error


def make_provider(name: str, **given: object) -> Provider:
    """Return the provider called *name*; settings that are `None` or empty are left at their defaults.

    Raises:
        ConfigError: a setting cannot work.
    """
    if name not in _SIGNED:
        given.pop("webhook_key", None)
    chosen = {key: value for key, value in given.items() if value not in {None, ()}}
    return providers.load(name)(**chosen)  # type: ignore[arg-type]  # each setting comes from its own option


def all_providers(**given: object) -> list[Provider]:
    """Return one of each provider, with the settings *given*."""
    return [make_provider(name, **given) for name in providers.NAMES]


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
        every = check_seconds("poll_every", api.poll_every)
        pace = Pace(first=every, every=every, slowest=every, quiet=every)
    return make_provider(name, base_url=api.base_url, webhook_key=api.webhook_key, pace=pace)


def listening_providers(hooks: WebhookOptions) -> list[Provider]:
    """Return every provider that would call *hooks*' public URL, to decode, and to poll where its key is known."""
    url = config.read_public_url(hooks.public_url)
    found = []
    for provider in all_providers(webhook_key=hooks.webhook_key):
        try:
            config.check_callbacks([provider], url)
        except ConfigError:  # the listener decodes it all the same, but nobody could submit to it from here
            continue
        found.append(provider)
    return found


def store_url(options: StoreOptions, *, sandbox: bool = False) -> str:
    """Return the store that was asked for, or the default one."""
    return options.store or (SANDBOX_STORE if sandbox else DEFAULT_STORE)


def existing_store(options: StoreOptions, *, sandbox: bool) -> Store:
    """Return the store of a command that only looks: it makes no new, empty file.

    Raises:
        NoSuchRefError: there is no such file.
        ConfigError: the URL is no store's.
    """
    url = store_url(options, sandbox=sandbox)
    store = open_store(url)
    parts = urlsplit(url)
    path = Path(unquote(parts.path[1:]))
    if parts.scheme == "sqlite" and not path.exists():
        message = f"there is no store at {path}; --store or AUDIOEXT_STORE says where your jobs are"
        raise NoSuchRefError(message)
    return store


def looking_client(options: LookOptions, *providers: Provider) -> Client:
    """Return a client of the store that a command looks at; it submits nothing.

    Raises:
        NoSuchRefError: there is no such file.
        ConfigError: the URL is no store's.
    """
    return Client(*providers, store=existing_store(options, sandbox=options.sandbox))


def read_listen(text: str | None) -> str | Unset | None:
    """Return what `listen` means to a client: an address, `none` for nowhere, nothing for the default."""
    if not text:
        return UNSET
    return None if text.lower() == "none" else text


@asynccontextmanager
async def open_sandbox(options: SandboxOptions, **given: object) -> AsyncGenerator[Sandbox]:
    """Run a sandbox in this process, which signs its webhooks with a key of its own.

    Raises:
        MissingExtraError: numpy or soundfile are not installed.
        FaultError: one of the faults is none.
    """
    check_seconds("speed", options.speed)
    values = {"speed": options.speed, "faults": options.fault, "hmac_key": secrets.token_hex(), **given}
    async with Sandbox(**values) as sandbox:  # type: ignore[arg-type]  # each setting comes from its own option
        yield sandbox


@asynccontextmanager
async def open_client(
    name: str, *, api: ApiOptions, sandbox: SandboxOptions, store: str | Store, wait_timeout: float
) -> AsyncGenerator[OpenClient]:
    """Open a client for the provider called *name*, at its real API or in a sandbox of its own.

    Raises:
        AudioextError: whatever opening a client raises.
    """
    check_seconds("timeout", wait_timeout)
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
        yield OpenClient(client=client, provider=provider, sandbox=running)


async def find_job(client: Client, ref: str) -> Job:
    """Return the job of *ref*, or the only one whose ref begins so.

    Raises:
        NoSuchRefError: the store holds none, or several.
    """
    with suppress(RequestError):
        return await client.job(ref)
    found = [job async for job in client.jobs() if ref and job.ref.startswith(ref)]
    if len(found) == 1:
        return found[0]
    message = (
        f"this store holds no job {ref!r}; `{program()} jobs` lists what it holds. "
        "--store names another one, --sandbox the one of the sandbox's jobs"
    )
    if found:
        refs = ", ".join(job.ref for job in found[:LISTED_AT_MOST])
        more = ", …" if len(found) > LISTED_AT_MOST else ""
        message = f"{len(found)} jobs of this store begin with {ref!r}: {refs}{more}"
    raise NoSuchRefError(message)


def job_options(store: StoreOptions, *, sandbox: bool, api: ApiOptions | None = None) -> JobOptions:
    """Return how another command finds a job of this store and its API; a password is not repeated."""
    of_store, of_api = " --sandbox" if sandbox else "", ""
    if store.store is not None and "@" not in store.store:
        of_store += f" --store {shlex.quote(store.store)}"
    if api is not None and not sandbox:
        given = {
            "base-url": api.base_url,
            "public-url": api.public_url,
            "listen": api.listen,
            "poll-every": api.poll_every,
        }
        for name, value in given.items():
            if value is not None and "@" not in str(value):
                of_api += f" --{name} {shlex.quote(f'{value}')}"
        of_api += " --poll-only" if api.poll_only else ""
    is_kept = not store_url(store, sandbox=sandbox).startswith("memory:")
    return JobOptions(store=of_store, api=of_api, is_kept=is_kept, sandbox=sandbox)
