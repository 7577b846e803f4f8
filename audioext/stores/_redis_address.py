"""Reads the URL of a Redis store, and finds the server to talk to: the URL's own, or a cluster's that has our keys."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import define, field, frozen
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as SilentError

from audioext.errors import ConfigError

NO_SERVER = (
    "the store's URL names no server, or no number for its port: use redis://host:6379/0 or unix:///path/to/socket"
)
PREFIX = "audioext"
PATIENCE_SECONDS = 5.0
TTL_SECONDS = 30 * 86_400
MAX_SECONDS = 100 * 365 * 86_400
TRIES = 3
"""Connections that a call may try within the store's patience: a mute one must not use up all of it."""
NOT_NOW = (BusyLoadingError, ReadOnlyError, TryAgainError, ClusterDownError, AskError)
"""What a server answers that starts, fails over, or gave its slot away; it did nothing."""
LOST = (LostError, SilentError, OSError, *NOT_NOW)
"""What means that the right server was not reached, or did not answer; trying again may help."""
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_OURS = {"prefix", "ttl", "patience"}
_Node = tuple[str, int]


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

    @property
    def silence(self) -> float:
        """How long (seconds) one connection may be mute."""
        return self.patience / TRIES


def read_url(url: str) -> Address:
    """Return what *url* says; its scheme becomes one that the driver knows.

    Raises:
        ConfigError: it names no server, or asks for something in no known way.
    """
    try:
        parts = urlsplit(url)
        server = parts.hostname and f"{parts.hostname}:{parts.port or 6379}"
    except ValueError:  # which repeats the host, and the password before it
        raise ConfigError(NO_SERVER) from None
    shown = parts.path if parts.scheme == "unix" else server
    if not shown:
        raise ConfigError(NO_SERVER)
    if parts.scheme != "unix" and parts.path.strip("/") and not parts.path[1:].isdigit():
        raise ConfigError("the store's URL ends with the number of a database, like redis://host:6379/0")
    query = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in query if name in _OURS}
    if "partitions" in dict(query):
        raise ConfigError("the store's URL may not say ?partitions= any more: all keys share one hash tag now")
    prefix = ours.get("prefix", PREFIX)
    if not prefix or set("{}") & set(prefix):
        raise ConfigError(f"the store's URL may say ?prefix= and a word without braces, not {prefix!r}")
    limit = _seconds(ours, "patience", PATIENCE_SECONDS)
    rest = urlencode([(name, value) for name, value in query if name not in _OURS])
    driver = urlunsplit(parts._replace(scheme=_SCHEMES.get(parts.scheme, parts.scheme), query=rest))
    if parts.scheme == "unix":  # some Pythons join it with one slash
        driver = f"unix://{parts.netloc}{parts.path}{'?' if rest else ''}{rest}"
    kind, options = _options(driver, limit)
    return Address(
        url=driver,
        shown=shown,
        prefix=prefix,
        ttl=math.ceil(_seconds(ours, "ttl", TTL_SECONDS)),
        patience=limit,
        connection=kind,
        options=options,
    )


def _options(url: str, timeout: float) -> tuple[type[AbstractConnection], Mapping[str, Any]]:
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


def _seconds(options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(f"the store's URL may say ?{name}= and seconds above 0, up to {MAX_SECONDS}, not {text!r}")
    return seconds


@define(eq=False, repr=False)
class Nodes:
    """Makes connections to whoever has the slot of our keys by now; all that were ever heard of are asked in turn."""

    address: Address
    _known: list[_Node] = field(factory=list, init=False)

    async def connect(self) -> AbstractConnection:
        """Return a new connection.

        Raises:
            Exception: no server is there, or none lets us in.
        """
        options = self.address.options
        if "host" not in options:
            return await self._open()
        failure: Exception = LostError("no node is there")
        for node in (*self._known, (str(options["host"]), int(options.get("port", 6379)))):
            try:
                return await self._reach(node)
            except LOST as error:
                failure = error
        raise failure

    async def _reach(self, node: _Node) -> AbstractConnection:
        """Return a connection to the master of our slot, as *node* knows it."""
        connection = await self._open(node)
        known: list[_Node] = []
        try:
            async with asyncio.timeout(self.address.silence):
                known = await self._ask(connection, node)
        finally:
            if known[:1] != [node]:
                await connection.disconnect(nowait=True)
        self._known = known
        return connection if known[0] == node else await self._open(known[0])

    async def _open(self, node: _Node | None = None) -> AbstractConnection:
        options: dict[str, Any] = {**self.address.options}
        if node is not None:
            options |= {"host": node[0], "port": node[1]}
        connection = self.address.connection(**options)
        async with asyncio.timeout(self.address.silence):
            await connection.connect()  # type: ignore[no-untyped-call]  # the driver leaves its result out
        return connection

    async def _ask(self, connection: AbstractConnection, asked: _Node) -> list[_Node]:
        """Return the master of our slot, then all others; a server that is in no cluster is its own."""
        await connection.send_command("CLUSTER", "SLOTS")
        try:
            ranges: Any = await connection.read_response()
        except ResponseError:  # it has no such support, or does not let us ask
            return [asked]
        slot = key_slot(self.address.prefix.encode())
        ranges.sort(key=lambda found: not found[0] <= slot <= found[1])
        # A node that does not know its own name leaves it to whoever reached it.
        known = [((host or b"").decode() or asked[0], int(port)) for _, _, *of in ranges for host, port, *_ in of]
        return known or [asked]
