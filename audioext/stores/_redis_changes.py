"""Reads the stream of changes from the last one seen on, so that a broken connection loses none.

The change that was read last must still be there after each reading: then nothing behind it was trimmed, and the
server is one that has what we know. Else, be it that we were too far behind, that the server forgot all, or that a
replica took over that had not got everything, those who listen look at everything again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from attrs import define, field

from audioext.outage import Outage
from audioext.stores._changes import Fanout
from audioext.stores._redis_pipe import Pipe
from audioext.stores.base import RESYNC, Changed

_log = logging.getLogger("audioext.stores.redis")

MAX_READ = 1_000
"""Changes of one answer at most."""
PAUSE_SECONDS = 0.1

Item = tuple[bytes, bytes]
"""The id that the stream gave to a change, and its words."""


@define(eq=False, repr=False)
class ChangeReader:
    """Listens beside *pipe*, for all listeners of a store; *begin* returns the newest change that a pipe leads to."""

    pipe: Pipe
    begin: Callable[[Pipe], Awaitable[Item]]
    fanout: Fanout = field(factory=Fanout, init=False)
    _ear: Pipe = field(init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Be ready to listen: the server keeps silent there as long as nothing changes."""
        self._ear = Pipe(self.pipe.address)

    async def start(self) -> None:
        """Yield to all listeners what comes from now on.

        Raises:
            StoreError: *begin* does.
        """
        last = await self.begin(self._ear)
        self._task = asyncio.create_task(self._run(last), name="audioext redis changes")

    async def aclose(self) -> None:
        """End the streams of those who listen, and disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._ear.aclose(at_once=True)
        self.fanout.close()

    async def _run(self, last: Item) -> None:
        outage = Outage(_log, f"{self.pipe.address.shown}: changes are not heard")
        is_behind = False
        while True:
            try:
                changes, held = await self._read(last[0])
                if held != [last]:
                    _log.info("%s: changes were missed; looking at everything again", self.pipe.address.shown)
                    last = await self.begin(self.pipe)
                    self.fanout.publish((RESYNC,))
                elif changes:
                    self.fanout.publish(tuple(_read_changes(changes)))
                    last = changes[-1]
                was_behind, is_behind = is_behind, not changes and await self._newest() != [last]
                if was_behind and is_behind:  # calls go to another server by now; once, the change was made since
                    await self._ear.aclose(at_once=True)
                    self._ear = Pipe(self.pipe.address)
                outage.over()
            except Exception as error:  # noqa: BLE001 - it must not end: all who wait rely on it
                outage.note(error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, last: bytes) -> tuple[list[Item], list[Item]]:
        """Return the changes after *last*, and that one: asked for afterwards, since trimming goes on."""
        wait, key = max(1, round(1_000 * self.pipe.address.silence / 2)), self.pipe.key("changes")
        streams, held = await asyncio.gather(
            self._ear.run("XREAD", "COUNT", MAX_READ, "BLOCK", wait, "STREAMS", key, last),
            self._ear.run("XRANGE", key, last, last),
        )
        return _items(streams[0][1] if streams else ()), _items(held)

    async def _newest(self) -> list[Item]:
        """Return the newest change as the server sees it to which calls go."""
        return _items(await self.pipe.run("XREVRANGE", self.pipe.key("changes"), "+", "-", "COUNT", 1))


def _items(answer: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Item]:
    return [(id_, fields[1]) for id_, fields in answer]


def _read_changes(items: Sequence[Item]) -> Iterator[Changed]:
    for _, words in items:
        count, _, ref = words.decode(errors="replace").partition(" ")
        if ref and count.isdecimal():  # else somebody else writes here
            yield Changed(ref, int(count))
