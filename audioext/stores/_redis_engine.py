"""What a Redis store holds while it is open: its pipe, its ear for changes, and the names of its keys."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import define, field

from audioext.errors import StoreError
from audioext.stores._redis_address import Address, Nodes
from audioext.stores._redis_changes import ChangeReader, Item
from audioext.stores._redis_pipe import Pipe, Word
from audioext.stores._redis_scripts import BEGIN, LAYOUT, PURGE, Script

MAX_WEBHOOKS = 2**53
"""No limit: scripts count in doubles."""
PURGE_PORTION = 50
"""Jobs that one step of a purge forgets: the server does nothing else meanwhile."""


@define(eq=False, repr=False)
class Engine:
    """An open store: connected, agreed on the layout, listening."""

    address: Address
    pipe: Pipe = field(init=False)
    reader: ChangeReader = field(init=False)
    _meta: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to serve calls."""
        self._meta = self.key("meta")
        self.pipe = Pipe(Nodes(self.address, self._meta).connect, self.address.shown, self.address.patience)
        self.reader = ChangeReader(self.pipe, self.key("changes"), self._begin)

    @classmethod
    async def start(cls, address: Address) -> Engine:
        """Connect, and listen to changes from now on.

        Raises:
            StoreError: the server is not there or refuses, or holds what another release wrote.
        """
        engine = cls(address)
        try:
            last = await engine._begin()
            await engine.purge(None, MAX_WEBHOOKS)
        except BaseException:
            await engine.aclose()
            raise
        engine.reader.start(last)
        return engine

    async def aclose(self) -> None:
        """Finish what was accepted, then disconnect."""
        await self.pipe.aclose()
        await self.reader.aclose()

    def key(self, *words: str) -> str:
        """Return the name of a key."""
        return f"{{{self.address.prefix}}}:{':'.join(words)}"

    async def page(self, name: str, bound: str, size: int, *, newest_first: bool = False) -> list[tuple[str, str]]:
        """Return members and numbers of a sorted set, from *bound* on."""
        command, end = ("ZREVRANGEBYSCORE", "-inf") if newest_first else ("ZRANGEBYSCORE", "+inf")
        found = await self.pipe.run(command, self.key(name), bound, end, "WITHSCORES", "LIMIT", 0, size)
        words = [word.decode(errors="replace") for word in found]
        return list(zip(words[::2], words[1::2], strict=True))

    def do(self, script: Script, *arguments: Word) -> asyncio.Future[Any]:
        """Run one of our scripts."""
        return self.pipe.run("EVALSHA", script.digest, 1, self._meta, *arguments, script=script)

    async def purge(self, before: float | None, kept: int) -> int:
        """Forget jobs in portions, between which others are served, and return how many went.

        Without *before*, those go whose time to live is over.
        """
        total, went, begin = 0, PURGE_PORTION, "" if before is None else before
        while went == PURGE_PORTION:
            went, existed = await self.do(PURGE, begin, kept, PURGE_PORTION, self.address.ttl)
            total += existed
        return total

    async def _begin(self) -> Item:
        """Agree on the layout, and return the newest change.

        Raises:
            StoreError: the server is not there or refuses, or another release uses these keys.
        """
        layout, *found = await self.do(BEGIN)
        if int(layout) != LAYOUT:
            where = f"{self.address.shown} holds layout {int(layout)} under the prefix {self.address.prefix!r}"
            raise StoreError(
                f"{where} (release 0.1 wrote 1), and this release uses {LAYOUT}: finish those jobs with the one that "
                "wrote them, or use another ?prefix="
            )
        ((id_, (_, words)),) = found
        return id_, words
