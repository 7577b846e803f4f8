"""Reads the URL of a Redis store, and finds the server to talk to: the URL's own, or a cluster's that has our keys."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import define, field, frozen
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from audioext.errors import ConfigError
from audioext.stores._redis_pipe import LOST, TRIES, send

PREFIX = "audioext"
PATIENCE_SECONDS = 5.0
TTL_SECONDS = 30 * 86_400
MAX_SECONDS = 100 * 365 * 86_400
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_Node = tuple[str, int]
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
    try:
        parts = urlsplit(url)
    except ValueError:  # which repeats the host, and the password before it
        raise ConfigError("the store's URL names no server: use redis://host:6379/0") from None
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


@define(eq=False, repr=False)
class Nodes:
    """Makes connections to whoever has the slot of *tag* by now; all that were ever heard of are asked in turn."""

    address: Address
    tag: bytes
    _known: list[_Node] = field(factory=list, init=False)
    _is_single: bool = field(default=False, init=False)

    async def connect(self) -> AbstractConnection:
        """Return a new connection.

        Raises:
            Exception: no server is there, or none lets us in.
        """
        if self._is_single or "host" not in self.address.options:
            return await self._open()
        first = (str(self.address.options["host"]), int(self.address.options.get("port", 6379)))
        failure: Exception = LostError("no node is there")
        for node in [*self._known, first]:
            try:
                return await self._connect(node)
            except LOST as error:
                failure = error
        raise failure

    async def _connect(self, node: _Node) -> AbstractConnection:
        connection = await self._open(node)
        master = None
        try:
            master = await self._locate(connection, node)
        finally:
            if master != node:
                await connection.disconnect(nowait=True)
        return connection if master == node else await self._open(master)

    async def _open(self, node: _Node | None = None) -> AbstractConnection:
        connection = self.address.connect_to(**({} if node is None else {"host": node[0], "port": node[1]}))
        async with asyncio.timeout(self.address.patience / TRIES):
            await connection.connect()  # type: ignore[no-untyped-call]  # the driver leaves its result out
        return connection

    async def _locate(self, connection: AbstractConnection, asked: _Node) -> _Node:
        """Return the master of our slot; a server that is in no cluster is its own."""
        try:
            async with asyncio.timeout(self.address.patience / TRIES):
                await send(connection, ("CLUSTER", "SLOTS"))
                ranges: Any = await connection.read_response()
        except ResponseError as error:
            if isinstance(error, LOST):
                raise
            self._is_single = True  # it has no such support, or does not let us ask
            return asked
        slot = key_slot(self.tag)
        known: list[_Node] = []
        master: _Node | None = None
        for start, end, *nodes in ranges:
            # A node that does not know its own name leaves it to whoever reached it.
            found = [((host or b"").decode() or asked[0], int(port)) for host, port, *_ in nodes]
            known += found
            if start <= slot <= end:
                master = found[0]
        self._known = known
        if master is None:
            raise LostError(f"no node of the cluster has slot {slot}")
        return master
