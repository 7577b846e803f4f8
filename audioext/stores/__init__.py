"""Where records, the outbox and the journal of deliveries live; a store knows nothing of stages."""

from __future__ import annotations

import importlib
from urllib.parse import parse_qs, unquote, urlsplit

from audioext.errors import ConfigError
from audioext.stores.base import Store
from audioext.stores.memory import MemoryStore

__all__ = ["MemoryStore", "Store", "open_store"]

FORMS = "memory://, sqlite:///jobs.db (or sqlite:////absolute/jobs.db), redis://host:6379/0"
_REDIS_SCHEMES = {"redis", "rediss", "valkey", "valkeys", "unix"}


def open_store(store: str | Store | None) -> Store:
    """Return the store of a URL, or the store itself; it is opened later. Back ends load on first use.

    `None` and `memory://` give a `MemoryStore`. `sqlite:///jobs.db` is relative to the working folder,
    `sqlite:////var/lib/jobs.db` is absolute; `?synchronous=full` survives a power loss as well.

    Raises:
        ConfigError: the URL has no known form, or its back end is not installed.
    """
    if store is None:
        return MemoryStore()
    if not isinstance(store, str):
        return store
    parts = urlsplit(store)
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme == "sqlite":
        return _sqlite(store)
    if parts.scheme in _REDIS_SCHEMES:
        return _redis(store)
    message = f"store {parts.scheme or store!r} is not known; it must look like {FORMS}"
    raise ConfigError(message)


def _sqlite(url: str) -> Store:
    from audioext.stores.sqlite import SqliteStore  # noqa: PLC0415 - loads on first use

    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    synchronous = options.pop("synchronous", "normal").lower()
    path = unquote(parts.path[1:])
    if parts.netloc or not path:
        message = f"a SQLite store needs three slashes and a path, like sqlite:///jobs.db, not {url!r}"
        raise ConfigError(message)
    if options or synchronous not in {"normal", "full"}:
        message = f"a SQLite store takes ?synchronous=normal or full, nothing else: {url!r}"
        raise ConfigError(message)
    return SqliteStore(path, synchronous="full" if synchronous == "full" else "normal")


def _redis(url: str) -> Store:
    try:
        module = importlib.import_module("audioext.stores.redis")
    except ImportError as error:
        message = 'the Redis store is not available: pip install "audioext[redis]"'
        raise ConfigError(message) from error
    store: Store = module.RedisStore(url)
    return store
