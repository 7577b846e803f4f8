"""The way to the server: what is asked in the meantime travels together, and is asked again after a lost answer.

A sender has a connection of its own and sends all that waits in one write, so a single call costs one round trip and a
burst costs few; a second one sends what comes while the first is busy. Every call is harmless when it is sent again
(see `_redis_scripts`), so a connection that breaks in the middle loses nothing: what was not answered is repeated on
a new one, for as long as the store's patience lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from attrs import define, field
from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, AuthorizationError, NoScriptError, ResponseError

from audioext.errors import StoreError
from audioext.stores._redis_address import LOST, NOT_NOW, Address, Nodes
from audioext.stores._redis_scripts import Script

_log = logging.getLogger("audioext.stores.redis")

Word = str | bytes | int | float

SENDERS = 2
MAX_BATCH = 500
"""Calls of one write at most, so that none waits long for the others."""
MAX_BATCH_BYTES = 1_048_576
"""The same for what they carry."""
ANSWERS_A_LOOK = 16
"""Answers after each of which the clock is looked at: that costs as much as an answer."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
_REFUSED = (AuthenticationError, AuthorizationError)


@define(eq=False, repr=False)
class _Call:
    words: tuple[Word, ...]
    packed: bytes
    future: asyncio.Future[Any]
    script: Script | None


@define(eq=False, repr=False)
class Pipe:
    """Sends calls, those of one sender in their order.

    The address' patience is how long calls are tried again while the server is not there; then they, and all that
    come after, fail with `StoreError` until it is.
    """

    address: Address
    nodes: Nodes = field(init=False)
    _meta: str = field(init=False)
    _waiting: deque[_Call] = field(factory=deque, init=False)
    _senders: set[asyncio.Task[None]] = field(factory=set, init=False)
    _spare: list[AbstractConnection] = field(factory=list, init=False)
    _is_closing: bool = field(default=False, init=False)
    _lost_since: float | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)

    def __attrs_post_init__(self) -> None:
        """Be ready; connections are made with the first calls."""
        self.nodes = Nodes(self.address)
        self._meta = self.key("meta")

    def key(self, *words: str) -> str:
        """Return the name of a key."""
        return f"{{{self.address.prefix}}}:{':'.join(words)}"

    def do(self, script: Script, *arguments: Word) -> asyncio.Future[Any]:
        """Have one of our scripts run: by its digest, and in full where the server does not know it; see `run`."""
        return self.run("EVALSHA", script.digest, 1, self._meta, *arguments, script=script)

    def run(self, *words: Word, script: Script | None = None) -> asyncio.Future[Any]:
        """Have one command done, and return its future; cancelling it disturbs no other.

        Raises:
            StoreError: the store is being closed, or was opened in another event loop, or a word is no text.
        """
        if self._is_closing:
            raise StoreError("the store is closed: open it, or make a new client")
        if asyncio.get_running_loop() is not self._loop:
            raise StoreError("the store was opened in another event loop or process: open one of its own in each")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Call(words, _pack(words), future, script))
        if len(self._senders) < SENDERS:
            self._senders.add(self._loop.create_task(self._send_all(), name="audioext redis"))
        return future

    async def aclose(self) -> None:
        """Finish what was accepted, as far as the server is there, and disconnect."""
        self._is_closing = True
        await asyncio.gather(*self._senders)
        for connection in self._spare:
            await connection.disconnect(nowait=True)

    async def _send_all(self) -> None:
        """Send what waits, until nothing does."""
        connection = self._spare.pop() if self._spare else None
        batch: list[_Call] = []
        pause = FIRST_PAUSE_SECONDS
        while batch := self._batch(batch):
            began = self._loop.time()
            try:
                if connection is None:
                    connection = await self.nodes.connect()
                await self._exchange(connection, batch)
                self._lost_since, pause = None, FIRST_PAUSE_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever the driver raises, those who wait must hear of it
                if connection is not None:
                    await connection.disconnect(nowait=True)
                connection = None
                self._lost_since = self._lost_since or began
                self._lose(batch, error, self._lost_since)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        if connection is not None:
            self._spare.append(connection)
        self._senders.discard(asyncio.current_task())

    def _batch(self, left: Sequence[_Call]) -> list[_Call]:
        """Return what is to be sent next: what is *left* of the last time, then what waits."""
        batch = [call for call in left if not call.future.done()]
        size = sum(len(call.packed) for call in batch)
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            call = self._waiting.popleft()
            if not call.future.done():
                batch.append(call)
                size += len(call.packed)
        return batch

    async def _exchange(self, connection: AbstractConnection, batch: Sequence[_Call]) -> None:
        """Send a batch and hand out the answers; what is to be sent again stays undone.

        Raises:
            Exception: the server cannot answer now, is silent for too long, or is the wrong one.
        """
        later: Exception | None = None
        async with asyncio.timeout(self.address.silence) as bound:
            await connection.send_packed_command(b"".join([call.packed for call in batch]), check_health=False)
            for number, call in enumerate(batch):
                if number % ANSWERS_A_LOOK == ANSWERS_A_LOOK - 1:
                    bound.reschedule(self._loop.time() + self.address.silence)
                try:
                    _answer(call, await connection.read_response())
                except NoScriptError:  # the server does not know it (any more)
                    if call.script is not None:
                        call.packed = _pack(("EVAL", call.script.text, *call.words[2:]))
                except NOT_NOW as error:
                    later = error
                except ResponseError as error:
                    _answer(call, self._failure("refused a command", error))
        if later is not None:
            raise later

    def _lose(self, batch: Sequence[_Call], error: Exception, since: float) -> None:
        """Let all who wait know, if no further try may help within the store's patience."""
        # The driver may wrap a refusal as a lost connection.
        is_refusal = isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED)
        is_patient = self._loop.time() - since < self.address.patience
        if isinstance(error, LOST) and is_patient and not is_refusal:
            _log.info("%s: trying again: %s", self.address.shown, error)
            return
        what = "refused the connection, check the name and password in its URL" if is_refusal else "is not there"
        for call in (*batch, *self._waiting):
            _answer(call, self._failure(what, error))
        self._waiting.clear()

    def _failure(self, what: str, error: Exception) -> StoreError:
        failure = StoreError(f"{self.address.shown} {what}: {str(error) or type(error).__name__}")
        failure.__cause__ = error
        return failure


async def send(connection: AbstractConnection, *commands: tuple[Word, ...]) -> None:
    """Send commands in one write."""
    await connection.send_packed_command(b"".join(map(_pack, commands)), check_health=False)


def _answer(call: _Call, answer: object) -> None:
    if call.future.done():  # its caller was cancelled
        return
    if isinstance(answer, Exception):
        call.future.set_exception(answer)
    else:
        call.future.set_result(answer)


def _pack(words: tuple[Word, ...]) -> bytes:
    """Return a command as it is sent, packed by hiredis: that is much faster than the driver's own way."""
    try:
        packed: bytes = pack_command(words)  # type: ignore[arg-type]  # its stub knows commands of one word alone
    except UnicodeEncodeError as error:
        raise StoreError(f"what is no Unicode cannot be stored: {error}") from error
    return packed
