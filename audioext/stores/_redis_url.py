"""Reads the URL of a Redis store: what is the driver's, what is ours, and what must not be shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import field, frozen
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from audioext.errors import ConfigError

PREFIX = "audioext"
PATIENCE_SECONDS = 5.0
TTL_SECONDS = 30 * 86_400
MAX_SECONDS = 100 * 365 * 86_400
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_OURS = {"prefix", "ttl", "patience"}


@frozen(kw_only=True)
class Address:
    """A store's URL, taken apart. `url` is what the driver reads, and may hold a password; `shown` never does."""

    url: str = field(repr=False)
    shown: str
    prefix: str
    ttl: int
    patience: float
    connection: type[AbstractConnection] = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)

    def connect_to(self, **others: object) -> AbstractConnection:
        """Return a connection, not opened yet, with *others* in place of what the URL says."""
        options: dict[str, Any] = {**self.options, **others}
        return self.connection(**options)


def read_url(url: str, *, patience: float | None) -> Address:
    """Return what *url* says; its scheme becomes one that the driver knows.

    Raises:
        ConfigError: it names no server, or asks for something in no known way.
    """
    parts = urlsplit(url)
    shown = _shown(parts)
    query = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in query if name in _OURS}
    if "partitions" in dict(query):
        raise ConfigError("the store's URL may not say ?partitions= any more: all keys share one hash tag now")
    prefix = ours.get("prefix", PREFIX)
    if not prefix or set("{}") & set(prefix):
        raise ConfigError(f"the store's URL may say ?prefix= and a word without braces, not {prefix!r}")
    limit = _seconds(ours, "patience", patience or PATIENCE_SECONDS, MAX_SECONDS)
    rest = urlencode([(name, value) for name, value in query if name not in _OURS])
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    if scheme == "unix":  # some Pythons would join it with one slash
        driver = f"unix://{parts.netloc}{parts.path}{'?' if rest else ''}{rest}"
    else:
        driver = urlunsplit(parts._replace(scheme=scheme, query=rest))
    kind, options = _options(driver, limit)
    return Address(
        url=driver,
        shown=shown,
        prefix=prefix,
        ttl=math.ceil(_seconds(ours, "ttl", TTL_SECONDS, MAX_SECONDS)),
        patience=limit,
        connection=kind,
        options=options,
    )


def _options(url: str, timeout: float) -> tuple[type[AbstractConnection], dict[str, Any]]:
    try:
        options: dict[str, Any] = {
            **parse_url(url),
            "protocol": 2,  # what all servers speak, whatever the driver prefers
            "decode_responses": False,
            "socket_timeout": None,  # who waits for answers bounds it
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),  # we try again, with all that waits
        }
        pool = ConnectionPool(**options)
        pool.connection_class(**pool.connection_kwargs)  # it connects later, but says now what it does not know
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the store's URL asks for what neither audioext (prefix, patience, ttl) nor its driver knows: {error}"
        ) from error
    return pool.connection_class, pool.connection_kwargs


def _shown(parts: SplitResult) -> str:
    # The URL may hold a password, so no message repeats it.
    shown = parts.path
    if parts.scheme != "unix":
        try:
            port = 6379 if parts.port is None else parts.port
        except ValueError as error:
            raise ConfigError("the store's URL has a port that is no number of a port") from error
        shown = f"{parts.hostname}:{port}" if parts.hostname else ""
        if not (parts.path in {"", "/"} or parts.path[1:].isdigit()):
            raise ConfigError("the store's URL ends with the number of a database, like redis://host:6379/0")
    if not shown:
        raise ConfigError("the store's URL names no server: use redis://host:6379/0 or unix:///path/to/socket")
    return shown


def _seconds(options: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = options.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= most:
        raise ConfigError(f"the store's URL may say ?{name}= and seconds above 0, up to {most}, not {text!r}")
    return seconds
