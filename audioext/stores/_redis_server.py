"""The connection to the server: finding it, pipelining calls to it, and repeating those that were not answered.

One connection sends all waiting calls in one write. Every call is safe to repeat (see `_redis_scripts`), so calls
without an answer are sent again on a new connection, for as long as the store's patience lasts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import re
from collections import deque
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field, frozen
from redis import exceptions as faults
from redis.asyncio import Connection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from audioext.errors import ConfigError, StoreError, cut
from audioext.errors import shown as quoted
from audioext.stores._redis_scripts import Script, Word, pack

_log = logging.getLogger("audioext.stores.redis")

_Node = tuple[str, int]

NO_SERVER = (
    "the store's URL names no server, or no number for its port: use redis://host:6379/0 or unix:///path/to/socket"
)
MAX_SECONDS = 100 * 365 * 86_400
TRIES = 3
"""How many connections a call can try within the store's patience: a silent one must not use up all of it."""
MAX_BATCH = 500
"""The most calls that are sent before the first of them is answered, so that none waits long for the others."""
MAX_BATCH_BYTES = 1_048_576
"""About the most bytes in one write."""
ANSWERS_A_LOOK = 16
"""After this many answers the timeout is renewed, and waiting calls are sent."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
_STARTS = (faults.BusyLoadingError, faults.ReadOnlyError)
_NOT_NOW = (*_STARTS, faults.TryAgainError, faults.ClusterDownError, faults.AskError)
"""Errors of a server that is starting, failing over, or has handed over its slot; it has executed nothing."""
_LOST = (faults.ConnectionError, faults.TimeoutError, OSError, *_NOT_NOW)
"""Errors that mean that the right server was not reached, or did not answer; a retry may help."""
_REFUSED = (faults.AuthenticationError, faults.AuthorizationError)
_DEFAULTS = {"prefix": "audioext", "patience": "5", "ttl": str(30 * 86_400)}
"""Our own query parameters of the URL, with their defaults; all others are the driver's."""


@frozen(kw_only=True)
class Address:
    """The parts of a store's URL. `connection` makes a connection and may hold a password; `shown` never does."""

    shown: str
    prefix: str
    keys: tuple[str, str]
    """The two keys that every script is called with."""
    ttl: int
    patience: float
    silence: float
    """How long (seconds) one connection may be silent."""
    connection: partial[AbstractConnection] = field(repr=False)


def read_url(url: str) -> Address:
    """Parse *url*.

    Raises:
        ConfigError: it names no server, or has a part or a parameter that is not valid.
    """
    try:
        parts = urlsplit(url)
        server = parts.hostname and f"{parts.hostname}:{parts.port or 6379}"
    except ValueError:  # its message quotes the host with the password
        raise ConfigError(NO_SERVER) from None
    shown = parts.path if parts.scheme == "unix" else server
    if not shown:
        raise ConfigError(NO_SERVER)
    if parts.scheme != "unix" and parts.path.strip("/") and not parts.path[1:].isdigit():
        raise ConfigError("the store's URL must end with the number of a database, like redis://host:6379/0")
    query = _DEFAULTS | dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = query["prefix"]
    if not prefix or set("{}") & set(prefix):
        raise ConfigError(f"the store's URL needs a word without braces after ?prefix=, not {quoted(prefix)}")
    patience, ttl = _seconds("patience", query["patience"]), math.ceil(_seconds("ttl", query["ttl"]))
    try:
        options: dict[str, Any] = {**parse_url(re.sub("^valkey", "redis", url))}
        kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        options = {name: value for name, value in options.items() if name not in _DEFAULTS} | {
            "protocol": 2,  # all servers support it, whatever the driver prefers
            "decode_responses": False,
            "socket_timeout": None,  # `_exchange` has its own timeout
            "socket_connect_timeout": patience,
            "retry": Retry(NoBackoff(), 0),  # the pipe retries all waiting calls itself
        }
        kind(**options)  # raises TypeError for an unknown option
    except (ValueError, TypeError) as error:
        what = "a parameter that neither audioext (prefix, patience, ttl) nor redis-py takes"
        raise ConfigError(f"the store's URL has {what}: {cut(str(error))}") from error
    return Address(
        shown=cut(shown),
        prefix=prefix,
        keys=(f"{{{prefix}}}:meta", f"{{{prefix}}}:"),
        ttl=ttl,
        patience=patience,
        silence=patience / TRIES,
        connection=partial(kind, **options),
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(
            f"the store's URL needs seconds above 0, up to {MAX_SECONDS}, after ?{name}=, not {quoted(text)}"
        )
    return seconds


@define(eq=False, repr=False)
class _Call:
    words: tuple[Word, ...]
    packed: bytes
    future: asyncio.Future[Any]
    script: Script | None

    def answer(self, answer: object) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


@define(eq=False, repr=False)
class Pipe:
    """Sends calls in order, and retries them while the server is unavailable, until the store's patience ends."""

    address: Address
    turn: int = field(default=0, init=False)
    """How many connections were made."""
    _nodes: list[_Node] = field(factory=list, init=False)
    """All known nodes of a cluster, the one with our slot first."""
    _waiting: deque[_Call] = field(factory=deque, init=False)
    _sent: deque[_Call] = field(factory=deque, init=False)
    """The calls that wait for their answers, in order."""
    _again: list[_Call] = field(factory=list, init=False)
    """The calls that were answered but not executed; they are sent before any others."""
    _sender: asyncio.Task[None] | None = field(default=None, init=False)
    _connection: AbstractConnection | None = field(default=None, init=False)
    _tried_at: float = field(default=0.0, init=False)
    _lost_since: float | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)

    def key(self, *words: str) -> str:
        """Return the name of a key."""
        return f"{{{self.address.prefix}}}:{':'.join(words)}"

    def do(self, script: Script, *arguments: Word) -> asyncio.Future[Any]:
        """Run one of our scripts, by its digest or, if the server does not know that, by its text; see `run`."""
        keys = self.address.keys
        return self.run("EVALSHA", script.digest, len(keys), *keys, *arguments, script=script)

    def run(self, *words: Word, script: Script | None = None) -> asyncio.Future[Any]:
        """Queue one command, and return the future of its answer; cancelling that does not affect other calls."""
        if asyncio.get_running_loop() is not self._loop:
            raise StoreError("the store was opened in another event loop or process: open a separate store in each")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Call(words, pack(*words), future, script))
        if self._sender is None:
            self._sender = self._loop.create_task(self._send_all(), name="audioext redis")
        return future

    async def aclose(self) -> None:
        if self._sender is not None:
            await self._sender
        await self._disconnect()

    async def _send_all(self) -> None:
        """Send waiting calls until there are none."""
        pause = FIRST_PAUSE_SECONDS
        while any(not call.future.done() for call in self._waiting):
            self._tried_at = self._loop.time()
            try:
                if self._connection is None:
                    self._connection = await self.connect()
                    self.turn += 1
                await self._exchange(self._connection)
            except Exception as error:  # noqa: BLE001 - whatever the driver raises, the callers must get it
                await self._disconnect()
                self._again += self._sent
                self._sent.clear()
                self._send_again()
                if self._lost_since is None:
                    self._lost_since, pause = self._tried_at, FIRST_PAUSE_SECONDS
                self._lose(error, self._loop.time() - self._lost_since)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._sender = None

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            self._connection = None

    async def _exchange(self, connection: AbstractConnection) -> None:
        """Deliver answers until no call is left; send new calls in between, to keep the server busy."""
        later: Exception | None = None
        async with asyncio.timeout(None) as bound:
            for number in itertools.count():
                if number % ANSWERS_A_LOOK == 0 or not self._sent:
                    self._tried_at = self._loop.time()
                    bound.reschedule(self._tried_at + self.address.silence)
                    if number and later is None:
                        self._lost_since = None
                        await asyncio.sleep(0)  # callers that got an answer may make more calls
                    if not self._sent:
                        self._send_again()
                        if later is not None:
                            raise later
                    if not self._again and (batch := self._batch()):
                        await connection.send_packed_command(batch, check_health=False)
                    if not self._sent:
                        return
                later = await self._hear(connection) or later

    async def _hear(self, connection: AbstractConnection) -> Exception | None:
        """Deliver one answer. If the server cannot execute the call now, queue it again and return the error."""
        call, later = self._sent[0], None
        try:
            call.answer(await connection.read_response())
        except faults.NoScriptError:  # the server does not know the script (any more)
            if call.script is not None:
                call.packed = pack("EVAL", call.script.text, *call.words[2:])
                self._again.append(call)
        except _NOT_NOW as error:
            self._again.append(call)
            later = error
        except faults.ResponseError as error:
            call.answer(self._failure("refused a command", error))
        self._sent.popleft()
        return later

    def _send_again(self) -> None:
        self._waiting.extendleft(reversed(self._again))
        self._again.clear()

    def _batch(self) -> bytes:
        """Take the next calls from the queue, and return them packed."""
        batch: list[bytes] = []
        room = MAX_BATCH_BYTES
        while self._waiting and len(self._sent) < MAX_BATCH and room > 0:
            call = self._waiting.popleft()
            if not call.future.done():  # otherwise its caller was cancelled
                self._sent.append(call)
                batch.append(call.packed)
                room -= len(call.packed)
        return b"".join(batch)

    def _lose(self, error: Exception, seconds: float) -> None:
        """Fail all waiting calls, unless a retry within the store's patience may help."""
        # The driver may wrap a refusal as a lost connection.
        is_refusal = isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED)
        if isinstance(error, _LOST) and seconds < self.address.patience and not is_refusal:
            _log.info("%s: trying again: %s", self.address.shown, error)
            return
        what = "refused the connection, check the name and password in its URL" if is_refusal else "is unavailable"
        for call in self._waiting:
            call.answer(self._failure(what, error))
        self._waiting.clear()

    def _failure(self, what: str, error: Exception) -> StoreError:
        failure = StoreError(f"{self.address.shown} {what}: {cut(str(error)) or type(error).__name__}")
        failure.__cause__ = error
        return failure

    async def connect(self) -> AbstractConnection:
        """Return a new connection to the node that has the slot of our keys now."""
        options = self.address.connection.keywords
        if "host" not in options:
            return await self._open()
        failure: Exception = faults.ConnectionError("no node can be reached")
        for node in (*self._nodes, (str(options["host"]), int(options.get("port", 6379)))):
            try:
                return await self._reach(node)
            except _LOST as error:
                failure = error
        raise failure

    async def _reach(self, node: _Node) -> AbstractConnection:
        """Return a connection to the master of our slot according to *node*, or to *node* if there is no cluster."""
        connection = await self._open(*node)
        try:
            async with asyncio.timeout(self.address.silence):
                await connection.send_command("CLUSTER", "SLOTS")
                ranges: Any = await connection.read_response()
        except faults.ResponseError:  # it has no cluster support, or does not permit the command
            return connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        slot = key_slot(self.address.prefix.encode())
        ranges.sort(key=lambda found: not found[0] <= slot <= found[1])
        # A node that does not know its own name leaves the host empty: it is the one that we reached.
        known = [((host or b"").decode() or node[0], int(port)) for _, _, *of in ranges for host, port, *_ in of]
        self._nodes = known or [node]
        if self._nodes[0] == node:
            return connection
        await connection.disconnect(nowait=True)
        return await self._open(*known[0])

    async def _open(self, *node: str | int) -> AbstractConnection:
        connection = self.address.connection(**dict(zip(("host", "port"), node, strict=False)))
        async with asyncio.timeout(self.address.silence):
            await connection.connect()  # type: ignore[no-untyped-call]  # the driver does not annotate its result
        return connection
