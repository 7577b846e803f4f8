"""The stores of journals and their index rows, none of which knows a state rule."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from audioext.errors import ConfigError, lacks_extra, shown
from audioext.http.urls import without_password
from audioext.models import checks
from audioext.stores.base import Store
from audioext.stores.memory import MemoryStore

__all__ = ["MemoryStore", "Store", "open_store"]

FORMS = (
    "memory://, sqlite:///relative.db, sqlite:////absolute.db (with ?synchronous=full to survive a power loss), "
    "redis://host:6379/0, rediss://, valkey:// or unix:///path/to/socket"
)
_REDIS_SCHEMES = {"redis", "rediss", "valkey", "valkeys", "unix"}


def open_store(store: str | Store | None) -> Store:
    """Return the store for a URL, not yet opened; a store object is returned as it is. Back ends load on first use.

    `None` and `memory://` give a `MemoryStore`. `sqlite:///jobs.db` is relative to the working folder,
    `sqlite:////var/lib/jobs.db` is absolute; with `?synchronous=full` it also survives a power loss. For `redis://`
    and similar URLs see `audioext.stores.redis.RedisStore`.

    Raises:
        ConfigError: the URL is not valid, or its back end is not installed.
    """
    if store is None:
        return MemoryStore()
    if not isinstance(store, str):
        if (missing := checks.lacking(store, Store)) is not None:
            lacks = f": it lacks {missing}" if missing else ""
            raise ConfigError(
                f"{shown(store)} is not a store{lacks}; use an object with the Store protocol, or {FORMS}"
            )
        return store
    try:
        parts = urlsplit(store)
    except ValueError:  # its message quotes the host with the password
        raise ConfigError(f"the store's URL is not a valid URL; use {FORMS}") from None
    if store in {"memory://", "memory:"}:
        return MemoryStore()
    if parts.scheme == "sqlite":
        return _sqlite(store, parts)
    if parts.scheme not in _REDIS_SCHEMES:
        # The rest of the URL may hold a password, so it is not repeated.
        raise ConfigError(f"store {parts.scheme + ':' if parts.scheme else shown(store)} is not known; use {FORMS}")
    try:
        from audioext.stores.redis import RedisStore  # noqa: PLC0415 - loads on first use
    except ImportError as error:
        raise ConfigError(lacks_extra("the Redis store", "redis")) from error
    return RedisStore(store)


def _sqlite(url: str, parts: SplitResult) -> Store:
    from audioext.stores.sqlite import SqliteStore  # noqa: PLC0415 - loads on first use

    path = unquote(parts.path[1:])
    named = without_password(url)
    if parts.netloc or not url.startswith("sqlite:///") or not path or "\0" in path or parts.fragment:
        raise ConfigError(
            f"store {shown(named)} names no file: sqlite: takes three slashes and a path (write # as %23); use {FORMS}"
        )
    if path.startswith(":memory:"):
        raise ConfigError(f"a SQLite store must be a file, since processes share it; use {FORMS}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal").lower()
    if options or synchronous not in {"normal", "full"}:
        raise ConfigError(f"store {shown(named)} takes ?synchronous=normal or full and nothing else; use {FORMS}")
    return SqliteStore(path, synchronous="full" if synchronous == "full" else "normal")
