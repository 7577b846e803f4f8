"""What a Redis store holds while it is open: its pipe, its ear for changes, and the names of its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from audioext.errors import StoreError
from audioext.models.entries import Index
from audioext.stores._redis_address import Address, Nodes
from audioext.stores._redis_changes import ChangeReader
from audioext.stores._redis_pipe import Pipe, Word
from audioext.stores._redis_scripts import BEGIN, LAYOUT, PURGE, Script
from audioext.stores.base import Work

MAX_WEBHOOKS = 2**53
"""No limit: scripts count in doubles."""
PURGE_PORTION = 50
"""Jobs that one step of a purge forgets: the server does nothing else meanwhile."""


@define(eq=False, repr=False)
class Engine:
    """An open store: connected, agreed on the layout, listening."""

    address: Address
    tag: bytes = field(init=False)
    _common: tuple[bytes, ...] = field(init=False)
    pipe: Pipe = field(init=False)
    reader: ChangeReader = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to serve calls."""
        self.tag = f"{{{self.address.prefix}}}:".encode()
        names = ("changes", "jobs", "open", "closed", "webhooks", "providers")
        self._common = tuple(self.key(name) for name in names)
        self.pipe = Pipe(Nodes(self.address, self.tag).connect, self.address.shown, self.address.patience)
        self.reader = ChangeReader(self.pipe, self.key("changes"), self.begin)

    @classmethod
    async def start(cls, address: Address) -> Engine:
        """Connect, and listen to changes from now on.

        Raises:
            StoreError: the server is not there or refuses, or holds what another release wrote.
        """
        engine = cls(address)
        try:
            last = await engine.begin()
            await engine.purge(None, MAX_WEBHOOKS)
            await engine.reader.start(last)
        except BaseException:
            await engine.aclose()
            raise
        return engine

    async def aclose(self) -> None:
        """Finish what was accepted, then disconnect."""
        await self.pipe.aclose()
        await self.reader.aclose()

    def key(self, *words: str) -> bytes:
        """Return the name of a key.

        Raises:
            StoreError: a word is no text.
        """
        try:
            return self.tag + ":".join(words).encode()
        except UnicodeEncodeError as error:
            raise StoreError(f"what is no Unicode cannot be a key: {error}") from error

    def keys_of(self, ref: str, provider: str, index: Index | None) -> list[bytes]:
        """Return the keys that a change of a job may touch."""
        keys = [self.key("job", ref), *self._common, self.key("polls", provider), self.key("handlers", provider)]
        if index is not None:
            keys += (self.key(name, index.account) for name in ("occupied", "submits"))
            if index.key is not None:
                keys.append(self.key("key", index.key))
            if index.task_id is not None:
                keys.append(self.task_key(provider, index.task_id))
        return keys

    def due_keys(self, work: Work, providers: Sequence[str] | None) -> list[bytes]:
        """Return the keys of what is due; scripts find those of all providers by themselves."""
        return [self.key("providers")] if providers is None else [self.key(work, name) for name in providers]

    def task_key(self, provider: str, task_id: str) -> bytes:
        """Return the key of the refs with a task id."""
        return self.key("task", str(len(provider.encode())), provider, task_id)

    async def page(self, name: str, bound: str, size: int, *, newest_first: bool = False) -> list[tuple[str, str]]:
        """Return members and numbers of a sorted set, from *bound* on."""
        command, end = ("ZREVRANGEBYSCORE", "-inf") if newest_first else ("ZRANGEBYSCORE", "+inf")
        found = await self.pipe.run(command, self.key(name), bound, end, "WITHSCORES", "LIMIT", 0, size)
        words = [word.decode(errors="replace") for word in found]
        return list(zip(words[::2], words[1::2], strict=True))

    def do(self, script: Script, keys: Sequence[bytes], *arguments: Word) -> asyncio.Future[Any]:
        """Run one of our scripts, which all take the layout's key and the time to live first."""
        return self.pipe.do(script, (self.tag + b"meta", *keys), self.address.ttl, *arguments)

    async def begin(self) -> tuple[bytes, bytes]:
        """Agree on the layout, and return the newest change.

        Raises:
            StoreError: the server is not there or refuses, or another release uses these keys.
        """
        layout, *found = await self.do(BEGIN, [self.key("changes")])
        if int(layout) != LAYOUT:
            where = f"{self.address.shown} holds layout {int(layout)} under the prefix {self.address.prefix!r}"
            raise StoreError(
                f"{where} (release 0.1 wrote 1), and this release uses {LAYOUT}: finish those jobs with the one that "
                "wrote them, or use another ?prefix="
            )
        ((id_, (_, words)),) = found
        return id_, words

    async def purge(self, before: float | None, kept: int) -> int:
        """Forget jobs in portions, between which others are served, and return how many went.

        Without *before*, those go whose time to live is over.
        """
        keys = [self.key(name) for name in ("closed", "jobs", "open", "webhooks")]
        total, went = 0, PURGE_PORTION
        while went == PURGE_PORTION:
            went, existed = await self.do(PURGE, keys, "" if before is None else before, kept, PURGE_PORTION)
            total += existed
        return total
