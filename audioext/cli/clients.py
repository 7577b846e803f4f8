"""The client of a command, and the jobs that it finds."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Unpack
from urllib.parse import unquote, urlsplit

from attrs import frozen

from audioext import config
from audioext.cli.arguments import check_positive, real_provider
from audioext.cli.failures import NoSuchRefError
from audioext.cli.options import BASE_URL_VARIABLE, ApiOptions, SandboxOptions, StoreOptions
from audioext.cli.screen import JobOptions
from audioext.client import Client
from audioext.config import UNSET, ClientOptions, Unset
from audioext.errors import RequestError
from audioext.http.urls import without_password
from audioext.models.record import Record
from audioext.providers.base import Provider
from audioext.runtime.jobs import Job
from audioext.settings.meaning import client_options
from audioext.stores import Store, open_store

LISTED_AT_MOST = 3
LOOPBACK_URL = "http://127.0.0.1:{port}/audio"
LOOPBACK_LISTEN = "127.0.0.1:0"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


@frozen(kw_only=True)
class OpenClient:
    """A client that is open, and what it talks to; `samples` are the ids and URLs that a sandbox has to extend."""

    client: Client
    provider: Provider
    samples: Sequence[str] = ()

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the provider's key."""
        return self.provider.info.key_variable

    @property
    def has_key(self) -> bool:
        """Whether the provider can be asked for anything."""
        return config.named([self.provider], os.environ)[self.provider.info.name].info.has_key


@asynccontextmanager
async def open_client(  # noqa: PLR0913 - settings, all by keyword
    name: str,
    *,
    base_url: str | None,
    api: ApiOptions,
    store: str | Store,
    sandbox: SandboxOptions,
    wait_timeout: float = 1.0,
    allow_hosts: Sequence[str] = (),
) -> AsyncGenerator[OpenClient]:
    """Open a client for the provider called *name*, at its real API or in a *sandbox* of its own.

    Raises:
        AudioextError: whatever opening a client raises.
    """
    check_positive("--timeout", wait_timeout)
    samples: Sequence[str] = ()
    async with AsyncExitStack() as stack:
        url, listen = api.public_url or "", api.listen or ""
        if sandbox.sandbox:
            from audioext.cli import sandboxes  # noqa: PLC0415 - an extra, and slow to load

            running = await stack.enter_async_context(sandboxes.open_sandbox(sandbox))
            provider = sandboxes.sandbox_provider(name, running)
            samples = (*running.track_ids, running.tune_url, running.voice_url)
            url, listen = url or LOOPBACK_URL, listen or LOOPBACK_LISTEN
        else:
            provider = real_provider(name, base_url, api)
        if api.poll_only:
            url, listen = "", ""
        client = make_client(
            provider,
            public_url=url or None,
            listen=read_listen(listen),
            store=store,
            wait_timeout=wait_timeout,
            allow_hosts=allow_hosts,
        )
        await stack.enter_async_context(client)
        yield OpenClient(client=client, provider=provider, samples=samples)


def looking_client(options: StoreOptions, *, allow_hosts: Sequence[str] = ()) -> Client:
    """Return a client of the store that a command looks at: it submits nothing, and makes no new, empty file.

    Raises:
        NoSuchRefError: there is no such file.
        ConfigError: the URL is no store's.
    """
    store, path = open_store(options.store_url), missing_file(options.store_url)
    if path is not None:
        message = f"there is no store at {path}; --store or AUDIOEXT_STORE says where your jobs are"
        raise NoSuchRefError(message)
    return make_client(store=store, public_url=None, listen=None, allow_hosts=allow_hosts)


def make_client(*providers: Provider, **options: Unpack[ClientOptions]) -> Client:
    """Return a client with the settings of the environment and the file, which `run` has read, and with *options*.

    Metrics are those of a process that stays: no other command listens where it does.
    """
    return Client(*providers, **{**client_options(os.environ), "metrics": False, **options})  # type: ignore[arg-type]  # as in from_env


def missing_file(store_url: str) -> Path | None:
    """Return the path of a SQLite store that is not there, and would be made if it was opened."""
    parts = urlsplit(store_url)
    path = Path(unquote(parts.path[1:]))
    return path if parts.scheme == "sqlite" and not path.exists() else None


def read_listen(text: str | None) -> str | Unset | None:
    """Return what `listen` means to a client: an address, `none` for nowhere, nothing for the default."""
    if not text:
        return UNSET
    return None if text.lower() == "none" else text


def api_url(given: str | None, record: Record) -> str | None:
    """Return where the API of a job is: where the command line says, else where it was submitted to."""
    return given or record.asked.base_url or os.environ.get(BASE_URL_VARIABLE)


async def find_job(client: Client, options: StoreOptions, ref: str) -> Job:
    """Return the job of *ref*, or the only one whose ref begins so.

    Raises:
        NoSuchRefError: the store holds none, or several.
    """
    with suppress(RequestError):
        return await client.job(ref)
    found = {job.ref: job async for job in client.jobs() if ref and job.ref.startswith(ref)}
    return found[the_one(found, ref, "job", job_options(options).command("jobs"))]


def the_one(found: Collection[str], beginning: str, kind: str, listing: str) -> str:
    """Return the only one of the ids that were *found*; *listing* is the command that lists all.

    Raises:
        NoSuchRefError: there is none, or there are several.
    """
    if len(found) == 1:
        return next(iter(found))
    more = ", …" if len(found) > LISTED_AT_MOST else ""
    several = f"more than one {kind} that begins with {beginning!r}: {', '.join([*found][:LISTED_AT_MOST])}{more}"
    message = (
        f"this store holds {several if found else f'no {kind} {beginning!r}'}; `{listing}` lists what it holds. "
        "--store names another one, --sandbox the one of the sandbox's jobs"
    )
    raise NoSuchRefError(message)


def job_options(
    store: StoreOptions,
    *,
    api: ApiOptions | None = None,
    base_url: str | None = None,
    hosts: Sequence[str] = (),
    is_asked: bool = False,
) -> JobOptions:
    """Return how another command finds a job of this store, its API and its files; a password is not repeated."""
    of_store = " --sandbox" if store.is_sandboxed else ""
    if store.store is not None and without_password(store.store) == store.store:
        of_store += f" --store {shlex.quote(store.store)}"
    given: dict[str, object] = {"base_url": base_url}
    if api is not None:
        given |= {name: getattr(api, name) for name in ("public_url", "listen", "poll_every")}
    of_api = "".join(
        f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in given.items()
        if value is not None and without_password(str(value)) == str(value)
    )
    if api is not None and api.poll_only:
        of_api += " --poll-only"
    return JobOptions(
        store=of_store,
        api="" if store.is_sandboxed else of_api,
        files="".join(f" --allow-host {shlex.quote(host)}" for host in hosts),
        is_kept=not store.store_url.startswith("memory:"),
        is_asked=is_asked,
        sandbox=store.is_sandboxed,
    )
