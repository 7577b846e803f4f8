"""Reads the stream of changes from the last one seen on, so that a broken connection loses none.

The change that was read last must still be there after each reading: then nothing behind it was trimmed, and the
server is one that has what we know. Else, be it that we were too far behind, that the server forgot all, or that a
replica took over that had not got everything, those who listen look at everything again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostError

from audioext.outage import Outage
from audioext.stores._changes import Fanout
from audioext.stores._redis_address import LOST
from audioext.stores._redis_pipe import Pipe, send
from audioext.stores.base import RESYNC, Changed

_log = logging.getLogger("audioext.stores.redis")

MAX_READ = 1_000
"""Changes of one answer at most."""
PAUSE_SECONDS = 0.1

Item = tuple[bytes, bytes]
"""The id that the stream gave to a change, and its words."""


@define(eq=False, repr=False)
class ChangeReader:
    """One connection that listens, for all listeners of a store; *begin* returns the newest change."""

    pipe: Pipe
    begin: Callable[[], Awaitable[Item]]
    fanout: Fanout = field(factory=Fanout, init=False)
    _connection: AbstractConnection | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self, last: Item) -> None:
        """Yield to all listeners what comes after *last*."""
        with suppress(*LOST):  # it is tried again
            self._connection = await self.pipe.nodes.connect()
        self._task = asyncio.create_task(self._run(last), name="audioext redis changes")
        await asyncio.sleep(0)  # it listens from now on

    async def aclose(self) -> None:
        """Finish what was accepted, end the streams of those who listen, and disconnect."""
        await self.pipe.aclose()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._disconnect()
        self.fanout.close()

    async def _run(self, last: Item) -> None:
        outage = Outage(_log, f"{self.pipe.address.shown}: changes are not heard")
        is_behind = False
        while True:
            try:
                changes, held = await self._read(last[0])
                if held != [last]:
                    _log.info("%s: changes were missed; looking at everything again", self.pipe.address.shown)
                    last = await self.begin()
                    self.fanout.publish((RESYNC,))
                elif changes:
                    self.fanout.publish(tuple(_read_changes(changes)))
                    last = changes[-1]
                was_behind, is_behind = is_behind, not changes and await self._newest() != [last]
                if was_behind and is_behind:  # once, it may have been made since
                    raise LostError("changes are made elsewhere")
                outage.over()
            except Exception as error:  # noqa: BLE001 - it must not end: all who wait rely on it
                outage.note(error)
                await self._disconnect()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, last: bytes) -> tuple[list[Item], list[Item]]:
        """Return the changes after *last*, and that one: asked for afterwards, since trimming goes on."""
        patience, key = self.pipe.address.patience, self.pipe.key("changes")
        if self._connection is None:
            self._connection = await self.pipe.nodes.connect()
        async with asyncio.timeout(2 * patience):  # where nothing changes, the server keeps silent for `patience`
            await send(
                self._connection,
                ("XREAD", "COUNT", MAX_READ, "BLOCK", math.ceil(1_000 * patience), "STREAMS", key, last),
                ("XRANGE", key, last, last),
            )
            found: Any = await self._connection.read_response()
            held: Any = await self._connection.read_response()
        return _items(found[0][1] if found else ()), _items(held)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
        self._connection = None

    async def _newest(self) -> list[Item]:
        """Return the newest change as the server sees it to which calls go."""
        return _items(await self.pipe.run("XREVRANGE", self.pipe.key("changes"), "+", "-", "COUNT", 1))


def _items(answer: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Item]:
    return [(id_, fields[1]) for id_, fields in answer]


def _read_changes(items: Sequence[Item]) -> Iterator[Changed]:
    for _, words in items:
        count, _, ref = words.partition(b" ")
        if ref and count.isdigit():  # else somebody else writes here
            yield Changed(ref.decode(errors="replace"), int(count))
