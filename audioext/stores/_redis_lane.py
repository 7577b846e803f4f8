"""One lane to the server: what is asked in the meantime travels together, and is asked again after a lost answer.

At most one pipeline is under way while the next one gathers, so a single event costs one round trip and a burst
costs few. Every script is safe to be sent again (see `_redis_scripts`), so a connection that breaks in the middle
loses nothing: the lane connects anew and repeats what was not answered, for as long as its patience lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as SilentError

from audioext.errors import StoreError
from audioext.stores._redis_scripts import Script

_log = logging.getLogger("audioext.stores.redis")

Server = Redis | RedisCluster
Word = str | bytes | int | float

MAX_BATCH = 500
"""Calls of one pipeline at most, so that none waits long for the others."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
LOST = (LostError, SilentError, ClusterError, SlotNotCoveredError, RedisClusterException, TimeoutError, OSError)
"""What means that the server was not reached, or did not answer; trying again may help."""
_REFUSED = (AuthenticationError, AuthorizationError)
_NOT_NOW = (BusyLoadingError, ReadOnlyError, TryAgainError, ClusterDownError, MasterDownError)
"""What a server answers that starts, fails over or moves a slot; it did nothing."""


@define(eq=False)
class _Call:
    words: tuple[Word, ...]
    future: asyncio.Future[Any]
    script: Script | None = None

    def as_sent(self, *, in_full: bool) -> tuple[Word, ...]:
        if self.script is None:
            return self.words
        if in_full:  # the server does not know it (any more)
            return ("EVAL", self.script.text, *self.words)
        return ("EVALSHA", self.script.digest, *self.words)


@define(eq=False)
class Lane:
    """Sends calls in the order in which they were made; `shown` names the server, without its password.

    *patience* (seconds) is how long calls are tried again while the server is not there; then they, and all that
    come after, fail with `StoreError` until it is.
    """

    server: Server
    shown: str
    patience: float
    _gathering: deque[_Call] = field(factory=deque, init=False)
    _news: asyncio.Event = field(factory=asyncio.Event, init=False)
    _is_closing: bool = field(default=False, init=False)
    _lost_since: float | None = field(default=None, init=False)
    _task: asyncio.Task[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start to serve; it connects with the first call."""
        self._task = asyncio.create_task(self._serve(), name="audioext redis")

    def run(self, *words: Word) -> asyncio.Future[Any]:
        """Have one command done, and return its future; cancelling it disturbs no other.

        Raises:
            StoreError: the store is being closed.
        """
        return self._gather(words, None)

    def do(self, script: Script, keys: Sequence[str], *arguments: Word) -> asyncio.Future[Any]:
        """Have one script run, which may happen again after a lost answer, and return its future.

        Raises:
            StoreError: the store is being closed.
        """
        return self._gather((len(keys), *keys, *arguments), script)

    def forget(self, script: Script | None, *words: Word) -> None:
        """Have a script (as its words: how many keys, the keys, the arguments) or a command done, whatever comes of it.

        Nothing happens while the store is being closed.
        """
        with suppress(StoreError):
            self._gather(words, script).add_done_callback(_look_at)

    async def aclose(self) -> None:
        """Finish what was accepted, as far as the server is there, and disconnect."""
        self._is_closing = True
        self._news.set()
        await self._task
        with suppress(*LOST, RedisError):
            await self.server.aclose()

    def _gather(self, words: tuple[Word, ...], script: Script | None) -> asyncio.Future[Any]:
        if self._is_closing:
            raise StoreError("the store is closed: open it, or make a new client")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._gathering.append(_Call(words, future, script))
        self._news.set()
        return future

    async def _serve(self) -> None:
        batch: list[_Call] = []
        pause = FIRST_PAUSE_SECONDS
        while True:
            while self._gathering and len(batch) < MAX_BATCH:
                batch.append(self._gathering.popleft())
            batch = [call for call in batch if not call.future.done()]
            if not batch:
                if self._is_closing:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            began = asyncio.get_running_loop().time()
            batch, error = await self._send(batch)
            if error is None:
                self._lost_since, pause = None, FIRST_PAUSE_SECONDS
                continue
            self._lost_since = began if self._lost_since is None else self._lost_since
            if asyncio.get_running_loop().time() - self._lost_since >= self.patience:
                self._give_up(batch, error)
                batch = []
            else:
                _log.info("%s: trying again: %s", self.shown, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _send(self, batch: list[_Call]) -> tuple[list[_Call], Exception | None]:
        """Send a batch; return the calls that have to be sent again, and why."""
        answers = await self._answers(batch, in_full=False)
        if isinstance(answers, Exception):
            return self._lost(batch, answers)
        unknown = [call for call, answer in zip(batch, answers, strict=True) if isinstance(answer, NoScriptError)]
        left, error = self._deliver(batch, answers)
        if unknown:
            again = await self._answers(unknown, in_full=True)
            if isinstance(again, Exception):
                return self._lost(unknown + left, again)
            more, other = self._deliver(unknown, again)
            return [*more, *left], other or error
        return left, error

    async def _answers(self, batch: Sequence[_Call], *, in_full: bool) -> list[object] | Exception:
        pipeline: Any = self.server.pipeline(transaction=False)
        for call in batch:
            pipeline.execute_command(*call.as_sent(in_full=in_full))
        try:
            answers: list[object] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, those who wait must hear of it
            return error
        if any(isinstance(answer, ReadOnlyError) for answer in answers) and isinstance(self.server, Redis):
            # The server behind this address is no master any more: the next connection may find the one that is.
            await self.server.connection_pool.disconnect()
        return answers

    def _deliver(self, batch: Sequence[_Call], answers: Sequence[object]) -> tuple[list[_Call], Exception | None]:
        left: list[_Call] = []
        error: Exception | None = None
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, NoScriptError):
                continue
            if isinstance(answer, (*_NOT_NOW, *LOST)) and not _is_refusal(answer):
                left.append(call)
                error = answer
            elif call.future.done():
                continue
            elif isinstance(answer, Exception):
                call.future.set_exception(self._failure(answer))
            else:
                call.future.set_result(answer)
        return left, error

    def _lost(self, batch: list[_Call], error: Exception) -> tuple[list[_Call], Exception | None]:
        if isinstance(error, LOST) and not _is_refusal(error):
            return batch, error
        self._give_up(batch, error)
        return [], None

    def _give_up(self, batch: Sequence[_Call], error: Exception) -> None:
        for call in (*batch, *self._gathering):
            if not call.future.done():
                call.future.set_exception(self._failure(error))
        self._gathering.clear()

    def _failure(self, error: Exception) -> StoreError:
        if _is_refusal(error):
            what = f"refused the connection: {error}; check the name and password in its URL"
        elif isinstance(error, ResponseError) and not isinstance(error, _NOT_NOW):
            what = f"refused a command: {error}"
        else:
            what = f"is not there: {str(error) or type(error).__name__}"
        failure = StoreError(f"{self.shown} {what}")
        failure.__cause__ = error
        return failure


def _is_refusal(error: Exception) -> bool:
    """Whether the server does not let us in; the driver wraps that as a lost connection."""
    return isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED)


def _look_at(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
