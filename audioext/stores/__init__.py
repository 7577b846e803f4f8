"""Where journals live, and the index that is derived from them; a store knows no state rule."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from audioext.errors import ConfigError
from audioext.http.urls import without_password
from audioext.stores.base import Store
from audioext.stores.memory import MemoryStore

__all__ = ["MemoryStore", "Store", "open_store"]

FORMS = (
    "memory://, sqlite:///relative.db, sqlite:////absolute.db (with ?synchronous=full to survive a power loss), "
    "redis://host:6379/0, rediss://, valkey:// or unix:///path/to/socket"
)
_REDIS_SCHEMES = {"redis", "rediss", "valkey", "valkeys", "unix"}


def open_store(store: str | Store | None) -> Store:
    """Return the store of a URL, or the store itself; it is opened later. Back ends load on first use.

    `None` and `memory://` give a `MemoryStore`. `sqlite:///jobs.db` is relative to the working folder,
    `sqlite:////var/lib/jobs.db` is absolute; `?synchronous=full` survives a power loss as well. `redis://` and its
    kin are explained in `audioext.stores.redis.RedisStore`.

    Raises:
        ConfigError: the URL has no known form, or its back end is not installed.
    """
    if store is None:
        return MemoryStore()
    if not isinstance(store, str):
        if not hasattr(store, "reschedule"):  # a list can append, too
            raise ConfigError(f"store {store!r} is no store; use an object with the store protocol, or {FORMS}")
        return store
    try:
        parts = urlsplit(store)
    except ValueError:  # which repeats the host, and the password before it
        raise ConfigError(f"the store's URL is none; use {FORMS}") from None
    if store in {"memory://", "memory:"}:
        return MemoryStore()
    if parts.scheme == "sqlite":
        return _sqlite(store, parts)
    if parts.scheme not in _REDIS_SCHEMES:
        # The rest of the URL may hold a password, so it is not repeated.
        raise ConfigError(f"store {parts.scheme + ':' if parts.scheme else store!r} is not known; use {FORMS}")
    try:
        from audioext.stores.redis import RedisStore  # noqa: PLC0415 - loads on first use
    except ImportError as error:
        raise ConfigError('the Redis store is not installed: pip install "audioext[redis]"') from error
    return RedisStore(store)


def _sqlite(url: str, parts: SplitResult) -> Store:
    from audioext.stores.sqlite import SqliteStore  # noqa: PLC0415 - loads on first use

    path = unquote(parts.path[1:])
    named = without_password(url)
    if parts.netloc or not url.startswith("sqlite:///") or not path or "\0" in path or parts.fragment:
        raise ConfigError(
            f"store {named!r} names no file: sqlite: takes three slashes and a path (# in it is %23); use {FORMS}"
        )
    if path.startswith(":memory:"):
        raise ConfigError(f"a SQLite store is a file, since processes share it; use {FORMS}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal").lower()
    if options or synchronous not in {"normal", "full"}:
        raise ConfigError(f"store {named!r} may say ?synchronous=normal or full, nothing else; use {FORMS}")
    return SqliteStore(path, synchronous="full" if synchronous == "full" else "normal")
