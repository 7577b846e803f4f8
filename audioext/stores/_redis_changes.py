"""Reads the stream of changes from the last one seen on, so that a broken connection loses none.

The change that was read last must still be there after each reading: then nothing behind it was trimmed, and the
server is one that has what we know. Else, be it that we were too far behind, that the server forgot all, or that a
replica took over that had not got everything, those who listen look at everything again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import define, field
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostError

from audioext.outage import Outage
from audioext.stores._changes import Fanout
from audioext.stores._redis_pipe import FIRST_PAUSE_SECONDS, Pipe, send
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
    key: str
    begin: Callable[[], Awaitable[Item]]
    fanout: Fanout = field(factory=Fanout, init=False)
    _last: Item = field(default=(b"", b""), init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self, last: Item) -> None:
        """Yield to all listeners what comes after *last*."""
        self._last = last
        self._task = asyncio.create_task(self._run(), name="audioext redis changes")

    async def aclose(self) -> None:
        """End the streams of those who listen, and disconnect."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again and again: before Python 3.12 the driver's `asyncio.wait_for` may swallow it
            await asyncio.wait([self._task], timeout=CANCEL_SECONDS)
        self.fanout.close()

    async def _run(self) -> None:
        outage = Outage(_log, f"{self.pipe.shown}: changes are not heard")
        pause = FIRST_PAUSE_SECONDS
        while True:
            connection: AbstractConnection | None = None
            is_behind = False
            try:
                connection = await self.pipe.connect()
                while True:
                    is_behind = await self._step(connection, is_behind=is_behind)
                    outage.over()
                    pause = FIRST_PAUSE_SECONDS
            except Exception as error:  # noqa: BLE001 - it must not end: all who wait rely on it
                outage.note(error)
            finally:
                if connection is not None:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    async def _step(self, connection: AbstractConnection, *, is_behind: bool) -> bool:
        """Publish what comes next; return whether calls go to a server that has changes which did not come here."""
        changes, held = await self._read(connection)
        if held != [self._last]:
            _log.info("%s: changes were missed; looking at everything again", self.pipe.shown)
            self._last = await self.begin()
            self.fanout.publish((RESYNC,))
        elif changes:
            self.fanout.publish(tuple(_read_changes(changes)))
            self._last = changes[-1]
        elif await self._newest() != [self._last]:
            if is_behind:  # else perhaps they were made since
                raise LostError("changes are made elsewhere: this connection is to a server that is no master any more")
            return True
        return False

    async def _read(self, connection: AbstractConnection) -> tuple[list[Item], list[Item]]:
        """Return the changes after the last one, and that one: asked for afterwards, since trimming goes on."""
        wait, last = max(1, round(1_000 * self.pipe.patience)), self._last[0]
        # Where nothing changes, the server keeps silent for `patience`.
        async with asyncio.timeout(2 * self.pipe.patience):
            await send(
                connection,
                ("XREAD", "COUNT", MAX_READ, "BLOCK", wait, "STREAMS", self.key, last),
                ("XRANGE", self.key, last, last),
            )
            found: Any = await connection.read_response()
            held: Any = await connection.read_response()
        return _items(found[0][1] if found else ()), _items(held)

    async def _newest(self) -> list[Item]:
        """Return the newest change as the server sees it to which calls go."""
        return _items(await self.pipe.run("XREVRANGE", self.key, "+", "-", "COUNT", 1))


def _items(answer: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Item]:
    return [(id_, fields[1]) for id_, fields in answer]


def _read_changes(items: Sequence[Item]) -> Iterator[Changed]:
    for _, words in items:
        count, _, ref = words.decode(errors="replace").partition(" ")
        if ref and count.isdecimal():  # else somebody else writes here
            yield Changed(ref, int(count))
