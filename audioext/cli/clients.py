"""The client of a command, how its arguments are read, and how it finds jobs."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, Unpack
from urllib.parse import unquote, urlsplit

import msgspec
from attrs import frozen
from msgspec import UNSET, UnsetType

from audioext import config, providers
from audioext.cli.execution import NoSuchRefError
from audioext.cli.options import ConnectOptions, StoreOptions, WebhookOptions
from audioext.cli.screen import Screen
from audioext.client import Client
from audioext.config import ClientOptions, base_url_of, client_options
from audioext.errors import ConfigError, Problem, RequestError, cut, shown
from audioext.models.limits import Pace
from audioext.providers.base import Provider
from audioext.runtime.jobs import Job
from audioext.stores import open_store

LISTED_AT_MOST = 3
LONGEST_NAME = 140 * "x"
"""As long as the longest name of a saved file."""
LOOPBACK_URL = "http://127.0.0.1:{port}/audio"
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_T = TypeVar("_T")


# --- arguments --------------------------------------------------------------------------------------------------


def read_source(source: str, *, ids: bool) -> dict[str, object]:
    """Return the request field that SOURCE means: an existing file, else a URL of any scheme, else a track id.

    A text that looks like a path (a slash, a suffix, a folder's name) is a file even if none exists, so that a
    misspelt name is reported and not sent as an id. Without *ids*, anything that is not a URL is a file.
    """
    try:
        path = Path(source).expanduser()
        is_file, is_there = path.is_file(), path.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long for a file, or the home of an unknown user
        path, is_file, is_there = Path(source), False, False
    if _URL.match(source) and not is_file:
        return {"url": source}
    is_path = is_there or "/" in source or "\\" in source or path.suffix
    return {"file": path} if is_path or not ids else {"audio_id": source}


def read_meta(pairs: Sequence[str]) -> dict[str, object]:
    """Return NAME=VALUE pairs as a dict; a value that is JSON (42, true, null, "42") is decoded.

    Raises:
        RequestError: a pair has no name or no `=`.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise RequestError([Problem("meta", f"must look like NAME=VALUE, not {shown(pair)}")])
        try:
            found[name] = msgspec.json.decode(value)
        except ValueError:
            found[name] = value
    return found


def read_listen(text: str | None) -> str | UnsetType | None:
    """Return a client's `listen` for the option: an address, `None` for "none", `UNSET` (the default) for no text."""
    if not text:
        return UNSET
    return None if text.lower() == "none" else text


def check_folder(folder: Path | None) -> None:
    """Check, before a task is paid for, that files can be saved in a *folder*, which may be missing yet.

    Raises:
        ConfigError: they cannot.
    """
    if folder is None:
        return
    there = whole = folder.absolute()
    try:
        while not (there.exists() or there.is_symlink()):  # a link that leads nowhere is no folder
            there = there.parent
        why = "" if there.is_dir() else f"{cut(str(there))} is not a folder"
        # A name, or the path of a file in the folder, may be too long: each is looked up where it will be.
        for path in (*map(there.joinpath, whole.relative_to(there).parts), whole / LONGEST_NAME):
            with suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        why = f"it cannot be looked up: {getattr(error, 'strerror', None) or error}"
    if not why and not os.access(there, os.W_OK | os.X_OK):
        why = f"{cut(str(there))} cannot be written by you"
    if why:
        raise ConfigError(f"no files can be saved in {cut(str(folder))}: {why}")


# --- providers -------------------------------------------------------------------------------------------------


def make_provider(name: str, **given: object) -> Provider:
    """Return the provider called *name*; settings that are `None` or empty are left at their defaults."""
    made = partial(providers.load(providers.format_of(name) or name), name=name)
    if not made().info.webhook_key_variable:
        given.pop("webhook_key", None)
    return made(**{key: value for key, value in given.items() if value not in {None, ()}})


def real_provider(
    name: str, base_url: str | None, screen: Screen, *, webhook_key: Sequence[str] = (), every: float | None = None
) -> Provider:
    """Return the provider called *name*; *every* (seconds) sets how often a status is polled."""
    pace = None if every is None else Pace(first=every, every=every, slowest=every, quiet=every)
    url = base_url or base_url_of(name, os.environ)
    provider = make_provider(name, base_url=url, webhook_key=webhook_key, pace=pace)
    if provider.info.base_url != make_provider(name).info.base_url:  # the vendor's own
        screen.base_url = str(provider.info.base_url)
    return provider


def listening_providers(hooks: WebhookOptions) -> list[Provider]:
    """Return every provider that accepts the public URL of *hooks*, to decode, and to poll if its key is known."""
    url = config.read_public_url(hooks.public_url)
    found = []
    for name in providers.NAMES:
        provider = make_provider(name, base_url=base_url_of(name, os.environ), webhook_key=hooks.webhook_key)
        with suppress(ConfigError):  # such a URL cannot be submitted to that provider
            config.check_callbacks([provider], url)
            found.append(provider)
    return found


# --- clients ----------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class OpenClient:
    """An open client, its provider, and the screen for its steps; `samples` are a sandbox's sources to extend."""

    client: Client
    provider: Provider
    screen: Screen
    samples: Sequence[str] = ()


@asynccontextmanager
async def open_client(
    options: ConnectOptions, name: str, screen: Screen, *, base_url: str | None = None
) -> AsyncGenerator[OpenClient]:
    """Open a client for the provider called *name*, at its real API or in a sandbox of its own."""
    samples: Sequence[str] = ()
    url, listen = options.public_url or "", options.listen or ""
    async with AsyncExitStack() as stack:
        if options.sandbox:
            from audioext.cli import sandboxes  # noqa: PLC0415 - an extra, and slow to load

            running = await stack.enter_async_context(sandboxes.open_sandbox(options))
            provider = make_provider(name, **sandboxes.provider_settings(name, running))
            samples = (*running.track_ids, running.tune_url, running.voice_url)
            url, listen = url or LOOPBACK_URL, listen or "127.0.0.1:0"
        else:
            provider = real_provider(name, base_url, screen, webhook_key=options.webhook_key, every=options.poll_every)
        client = make_client(
            provider,
            public_url=None if options.poll_only else url or None,
            listen=UNSET if options.poll_only else read_listen(listen),
            store=options.store_url,
            wait_timeout=options.timeout,
            allow_hosts=options.allow_hosts,
        )
        client = await stack.enter_async_context(client)
        yield OpenClient(client=client, provider=provider, screen=screen, samples=samples)


def looking_client(options: StoreOptions, *asked: Provider, allow_hosts: Sequence[str] = ()) -> Client:
    """Return a client to read an existing store: it creates no file and does not listen.

    Raises:
        NoSuchRefError: there is no such store.
    """
    store, path = open_store(options.store_url), missing_file(options.store_url)
    if path is not None:
        is_played = not (options.store or options.is_sandboxed) and missing_file(options.sandbox_store) is None
        played = "--sandbox looks at the sandbox's jobs, which are here; " if is_played else ""
        raise NoSuchRefError(
            f"there is no store at {cut(str(path))}; {played}--store or AUDIOEXT_STORE names that of your jobs"
        )
    return make_client(*asked, store=store, public_url=None, listen=None, allow_hosts=allow_hosts)


def make_client(*providers: Provider, **options: Unpack[ClientOptions]) -> Client:
    """Return a client with *options*, and otherwise the settings of the environment, to which `run` added the file.

    Metrics are off: only `listen` is long-lived, and another command must not take its port.
    """
    return Client(*providers, **{**client_options(os.environ), "metrics": False, **options})  # type: ignore[arg-type]  # as in from_env


def missing_file(store_url: str) -> Path | None:
    """Return the path of a SQLite store whose file is missing, and which opening would create."""
    parts = urlsplit(store_url)
    path = Path(unquote(parts.path[1:]))
    return path if parts.scheme == "sqlite" and not path.exists() else None


# --- jobs -------------------------------------------------------------------------------------------------------


async def find_job(client: Client, screen: Screen, ref: str) -> Job:
    """Return the job of *ref*, or the only one whose ref begins with it; raises NoSuchRefError."""
    with suppress(RequestError):
        return await client.job(ref)
    found = {job.ref: job async for job in client.jobs() if job.ref.startswith(ref.lower())}
    return the_one(found, ref, "job", screen.hint("jobs"))


def the_one(found: Mapping[str, _T], beginning: str, kind: str, listing: str) -> _T:
    """Return the only item of *found*; raises NoSuchRefError, which names *listing*, the command that lists all."""
    if len(found) == 1:
        return next(iter(found.values()))
    more = ", …" if len(found) > LISTED_AT_MOST else ""
    several = f"more than one {kind} that begins with {shown(beginning)}: {', '.join([*found][:LISTED_AT_MOST])}{more}"
    message = (
        f"this store holds {several if found else f'no {kind} {shown(beginning)}'}; `{listing}` lists what it holds. "
        "--store names another one, --sandbox the one of the sandbox's jobs"
    )
    raise NoSuchRefError(message)
