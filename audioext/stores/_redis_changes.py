"""Reads the stream of changes from the last one seen, so that a lost connection loses no change.

After each read the last change seen must still be in the stream: then nothing after it was trimmed, and the server has
everything that we know. If it is gone, because we were too far behind, the server lost its data, or a replica without
it took over, the listeners get a `RESYNC`.
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
from audioext.stores._redis_scripts import BEGIN, LAYOUT, ORPHANS, PURGE, PURGE_ORPHANS, pack
from audioext.stores._redis_server import Pipe
from audioext.stores.base import RESYNC, Changed

_log = logging.getLogger("audioext.stores.redis")

MAX_READ = 1_000
"""The most changes in one answer."""
PAUSE_SECONDS = 0.1
PAGE = 50
"""How many jobs or webhooks are read together or purged in one step, during which the server does nothing else."""
LOOK = 1_000
"""How many closed jobs are examined in one step."""

Item = tuple[bytes, Sequence[bytes]]
"""A change as Redis returns it: its id in the stream, then how many entries the journal has, and the job's ref."""


@define(eq=False, repr=False)
class OpenServer:
    """The open resources of a server while the store has users: a pipe, and a connection that reads the changes."""

    pipe: Pipe
    fanout: Fanout = field(factory=Fanout, init=False)
    _connection: AbstractConnection | None = field(default=None, init=False)
    _turn: int = field(default=0, init=False)
    """The pipe's `turn` when this connection was made."""
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Listen to changes from now on, and purge the jobs whose time to live is over."""
        last = await self._begin()
        self._task = asyncio.create_task(self._run(last), name="audioext redis changes")
        await self.purge("", math.inf)

    async def aclose(self) -> None:
        """Finish queued calls, disconnect, and end the listeners' streams."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._disconnect()
        await self.pipe.aclose()
        self.fanout.close()

    async def purge(self, before: float | str, kept: float, untold_before: float = math.inf) -> int:
        """Delete closed jobs in steps, so that other calls can run in between, and return how many were deleted."""
        total, stayed, looked = 0, 0, PAGE
        while looked == PAGE:
            numbers = (PAGE, self.pipe.address.ttl, untold_before, stayed)
            looked, existed, more = await self.pipe.do(PURGE, before, kept, *numbers)
            total, stayed = total + existed, stayed + more
        return total

    async def purge_orphans(self, bytes_kept: int) -> int:
        """Delete the oldest orphans until the rest has at most *bytes_kept* bytes, and return how many were deleted."""
        sizes: dict[bytes, int] = {}
        at, looked = 0, LOOK
        while looked == LOOK:
            looked, *found = await self.pipe.do(ORPHANS, at, at + LOOK - 1)
            sizes |= zip(found[::2], found[1::2], strict=True)  # a job that moves to the end meanwhile comes twice
            at += looked
        going = oldest_beyond(sizes.items(), bytes_kept)
        calls = [self.pipe.do(PURGE_ORPHANS, *going[at : at + PAGE]) for at in range(0, len(going), PAGE)]
        return sum(await asyncio.gather(*calls))

    async def _begin(self) -> Item:
        """Check the layout, or set it on a new server, and return the newest change."""
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
        outage = Outage(_log, f"{self.pipe.address.shown}: changes cannot be read")
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
            except Exception as error:  # noqa: BLE001 - it must not end, since all waiters rely on it
                outage.note(error)
                await self._disconnect()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, last: bytes) -> tuple[list[Item], list[Item]]:
        """Return the changes after *last*, and then *last* if it is still there: read second, as trimming goes on."""
        patience, key = self.pipe.address.patience, self.pipe.key("changes")
        if self._turn != self.pipe.turn:  # the pipe has reconnected, perhaps to another server
            await self._disconnect()
        if self._connection is None:
            self._turn = self.pipe.turn
            self._connection = await self.pipe.connect()
        read = pack("XREAD", "COUNT", MAX_READ, "BLOCK", math.ceil(1_000 * patience), "STREAMS", key, last)
        async with asyncio.timeout(2 * patience):  # without changes, the server answers only after `patience`
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
        if ref and count.isdigit():  # other items are not ours
            yield Changed(ref.decode(errors="replace"), int(count))
