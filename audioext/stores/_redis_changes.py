"""Reads the stream of changes from the last one seen on, so that a broken connection loses none.

The change that was read last must still be there after each reading: then nothing behind it was trimmed, and the
server is one that has what we know. Else, be it that we were too far behind, that the server forgot all, or that a
replica took over that had not got everything, those who listen look at everything again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostError

from audioext.outage import Outage
from audioext.stores._changes import Fanout
from audioext.stores._redis_pipe import FIRST_PAUSE_SECONDS, LOST, Pipe, Word, send
from audioext.stores.base import RESYNC, Changed

_log = logging.getLogger("audioext.stores.redis")

MAX_READ = 1_000
"""Changes of one answer at most."""
LONGEST_PAUSE_SECONDS = 1.0
CANCEL_SECONDS = 0.1

Item = tuple[bytes, bytes]
"""The id that the stream gave to a change, and its words."""


@define(eq=False, repr=False)
class ChangeReader:
    """One connection that listens, for all listeners of a store; *begin* returns the newest change."""

    pipe: Pipe
    key: bytes
    begin: Callable[[], Awaitable[Item]]
    fanout: Fanout = field(factory=Fanout, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self, last: Item) -> None:
        """Yield to all listeners what comes after *last*."""
        connection: AbstractConnection | None = None
        with suppress(*LOST):  # it is tried again
            connection = await self.pipe.connect()
        self._task = asyncio.create_task(self._run(last, connection), name="audioext redis changes")
        await asyncio.sleep(0)  # once it runs, it closes the connection whatever comes

    async def aclose(self) -> None:
        """End the streams of those who listen, and disconnect."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again and again: before Python 3.12 the driver's `asyncio.wait_for` may swallow it
            await asyncio.wait([self._task], timeout=CANCEL_SECONDS)
        self.fanout.close()

    async def _run(self, last: Item, connection: AbstractConnection | None) -> None:
        outage = Outage(_log, f"{self.pipe.shown}: changes are not heard")
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                if connection is None:
                    connection = await self.pipe.connect()
                is_behind = False
                while True:
                    changes, is_whole = await self._read(connection, last)
                    if not is_whole:
                        _log.info("%s: changes were missed; looking at everything again", self.pipe.shown)
                        last = await self.begin()
                        self.fanout.publish((RESYNC,))
                    elif changes:
                        self.fanout.publish(tuple(_read_changes(changes)))
                        last = changes[-1]
                    elif await self._newest() == last:
                        is_behind = False
                    elif is_behind:  # this connection is to a server that is no master any more
                        raise LostError("changes are made elsewhere")
                    else:  # perhaps they were made since
                        is_behind = True
                    outage.over()
                    pause = FIRST_PAUSE_SECONDS
            except Exception as error:  # noqa: BLE001 - it must not end: all who wait rely on it
                outage.note(error)
            finally:
                if connection is not None:
                    await connection.disconnect(nowait=True)
            connection = None
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    async def _read(self, connection: AbstractConnection, last: Item) -> tuple[list[Item], bool]:
        """Return the changes after *last*, and whether it is still there: asked afterwards, since trimming goes on."""
        wait = max(1, round(1_000 * self.pipe.patience))
        words: list[tuple[Word, ...]] = [
            ("XREAD", "COUNT", MAX_READ, "BLOCK", wait, "STREAMS", self.key, last[0]),
            ("XRANGE", self.key, last[0], last[0]),
        ]
        # Where nothing changes, the server keeps silent for `patience`.
        async with asyncio.timeout(2 * self.pipe.patience):
            await send(connection, *words)
            found: Any = await connection.read_response()
            held: Any = await connection.read_response()
        return _items(found[0][1] if found else ()), _items(held) == [last]

    async def _newest(self) -> Item | None:
        """Return the newest change as the server sees it to which calls go."""
        found = _items(await self.pipe.run("XREVRANGE", self.key, "+", "-", "COUNT", 1))
        return found[0] if found else None


def _items(answer: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Item]:
    return [(id_, fields[1]) for id_, fields in answer]


def _read_changes(items: Sequence[Item]) -> Iterator[Changed]:
    for _, words in items:
        count, _, ref = words.decode(errors="replace").partition(" ")
        if ref and count.isdecimal():  # else somebody else writes here
            yield Changed(ref, int(count))
