"""Reads the stream of changes from the last one seen on, so that a broken connection loses none.

The change that was read last must still be there after each reading: then nothing behind it was trimmed, and the
server is one that has what we know. Else, be it that we were too far behind, that the server forgot all, or that a
replica took over that had not got everything, those who listen look at everything again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field
from redis.asyncio.connection import AbstractConnection

from audioext.errors import StoreError, shown
from audioext.outage import Outage
from audioext.stores._engine import Fanout
from audioext.stores._journals import oldest_beyond
from audioext.stores._redis_purge import ORPHANS, PURGE, PURGE_ORPHANS
from audioext.stores._redis_scripts import BEGIN, LAYOUT, pack
from audioext.stores._redis_server import Pipe
from audioext.stores.base import RESYNC, Changed

_log = logging.getLogger("audioext.stores.redis")

MAX_READ = 1_000
"""Changes of one answer at most."""
PAUSE_SECONDS = 0.1
PAGE = 50
"""Jobs, or webhooks, that are read together, or purged in one step: the server does nothing else meanwhile."""
LOOK = 1_000
"""Closed jobs whose facts are read in one step."""

Item = tuple[bytes, Sequence[bytes]]
"""A change as it comes: the id that the stream gave to it; how many entries the journal holds, and whose it is."""


@define(eq=False, repr=False)
class OpenServer:
    """What is open of a server while the store has users: a pipe, and a connection that listens for all of them."""

    pipe: Pipe
    fanout: Fanout = field(factory=Fanout, init=False)
    _connection: AbstractConnection | None = field(default=None, init=False)
    _turn: int = field(default=0, init=False)
    """The pipe's, when this connection was made."""
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Listen to changes from now on, and forget the jobs whose time to live is over."""
        last = await self._begin()
        self._task = asyncio.create_task(self._run(last), name="audioext redis changes")
        await self.purge("", math.inf)

    async def aclose(self) -> None:
        """Finish what was accepted, end the streams of those who listen, and disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._disconnect()
        await self.pipe.aclose()
        self.fanout.close()

    async def purge(self, before: float | str, kept: float, untold_before: float = math.inf) -> int:
        """Forget jobs in portions, between which others are served, and return how many went."""
        total, stayed, looked = 0, 0, PAGE
        while looked == PAGE:
            numbers = (PAGE, self.pipe.address.ttl, untold_before, stayed)
            looked, existed, more = await self.pipe.do(PURGE, before, kept, *numbers)
            total, stayed = total + existed, stayed + more
        return total

    async def purge_orphans(self, bytes_kept: int) -> int:
        """Forget the oldest journals without a request as long as all hold more bytes, and return how many went."""
        sizes: dict[bytes, int] = {}
        at, looked = 0, LOOK
        while looked == LOOK:
            looked, *found = await self.pipe.do(ORPHANS, at, at + LOOK - 1)
            sizes |= zip(found[::2], found[1::2], strict=True)  # one that moved to the end meanwhile comes twice
            at += looked
        going = oldest_beyond(sizes.items(), bytes_kept)
        calls = [self.pipe.do(PURGE_ORPHANS, *going[at : at + PAGE]) for at in range(0, len(going), PAGE)]
        return sum(await asyncio.gather(*calls))

    async def _begin(self) -> Item:
        """Agree on the layout, and return the newest change."""
        layout, *found = await self.pipe.do(BEGIN)
        if not (isinstance(layout, int) or layout.isdigit()):
            where = f"{self.pipe.address.shown} is damaged under the prefix {self.pipe.address.prefix!r}"
            raise StoreError(f"{where}: its layout is {shown(layout)}")
        if int(layout) != LAYOUT:
            where = (
                f"{self.pipe.address.shown} holds layout {int(layout)} under the prefix {self.pipe.address.prefix!r}"
            )
            raise StoreError(
                f"{where} (release 0.1 wrote 1), and this release uses {LAYOUT}: finish those jobs with the one that "
                "wrote them, or use another ?prefix="
            )
        newest: Item = found[0]
        return newest

    async def _run(self, last: Item) -> None:
        outage = Outage(_log, f"{self.pipe.address.shown}: changes are not heard")
        while True:
            try:
                changes, held = await self._read(last[0])
                if held != [last]:
                    _log.info("%s: changes were missed; looking at everything again", self.pipe.address.shown)
                    last = await self._begin()
                    self.fanout.publish((RESYNC,))
                elif changes:
                    self.fanout.publish(tuple(_read_changes(changes)))
                    last = changes[-1]
                outage.over()
            except Exception as error:  # noqa: BLE001 - it must not end: all who wait rely on it
                outage.note(error)
                await self._disconnect()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, last: bytes) -> tuple[list[Item], list[Item]]:
        """Return the changes after *last*, and that one: asked for afterwards, since trimming goes on."""
        patience, key = self.pipe.address.patience, self.pipe.key("changes")
        if self._turn != self.pipe.turn:  # the pipe has a newer connection: it may be to another server
            await self._disconnect()
        if self._connection is None:
            self._turn = self.pipe.turn
            self._connection = await self.pipe.connect()
        read = pack("XREAD", "COUNT", MAX_READ, "BLOCK", math.ceil(1_000 * patience), "STREAMS", key, last)
        async with asyncio.timeout(2 * patience):  # where nothing changes, the server keeps silent for `patience`
            await self._connection.send_packed_command(read + pack("XRANGE", key, last, last), check_health=False)
            found: Any = await self._connection.read_response()
            held: Any = await self._connection.read_response()
        return (found[0][1] if found else []), held

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
        self._connection = None


def _read_changes(items: Sequence[Item]) -> Iterator[Changed]:
    for _, (count, ref, *_) in items:
        if ref and count.isdigit():  # else somebody else writes here
            yield Changed(ref.decode(errors="replace"), int(count))
