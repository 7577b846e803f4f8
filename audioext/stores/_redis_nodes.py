"""Finds the server to talk to: the URL's own, or the node of a cluster that has the slot of our keys."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import define, field
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from audioext.stores._redis_pipe import LOST, TRIES, send
from audioext.stores._redis_url import Address

_Node = tuple[str, int]


@define(eq=False, repr=False)
class Nodes:
    """Makes connections to whoever has the slot of *tag* by now; all that were ever heard of are asked in turn."""

    address: Address
    tag: bytes
    _known: list[_Node] = field(factory=list, init=False)
    _is_single: bool = field(default=False, init=False)

    async def connect(self) -> AbstractConnection:
        """Return a new connection.

        Raises:
            Exception: no server is there, or none lets us in.
        """
        if self._is_single or "host" not in self.address.options:
            return await self._open()
        first = (str(self.address.options["host"]), int(self.address.options.get("port", 6379)))
        failure: Exception = LostError("no node is there")
        for node in [*self._known, first]:
            try:
                return await self._connect(node)
            except LOST as error:
                failure = error
        raise failure

    async def _connect(self, node: _Node) -> AbstractConnection:
        connection = await self._open(node)
        master = None
        try:
            master = await self._locate(connection, node)
        finally:
            if master != node:
                await connection.disconnect(nowait=True)
        return connection if master == node else await self._open(master)

    async def _open(self, node: _Node | None = None) -> AbstractConnection:
        connection = self.address.connect_to(**({} if node is None else {"host": node[0], "port": node[1]}))
        async with asyncio.timeout(self.address.patience / TRIES):
            await connection.connect()  # type: ignore[no-untyped-call]  # the driver leaves its result out
        return connection

    async def _locate(self, connection: AbstractConnection, asked: _Node) -> _Node:
        """Return the master of our slot; a server that is in no cluster is its own."""
        try:
            async with asyncio.timeout(self.address.patience / TRIES):
                await send(connection, ("CLUSTER", "SLOTS"))
                ranges: Any = await connection.read_response()
        except ResponseError as error:
            if isinstance(error, LOST):
                raise
            self._is_single = True  # it has no such support, or does not let us ask
            return asked
        slot = key_slot(self.tag)
        known: list[_Node] = []
        master: _Node | None = None
        for start, end, *nodes in ranges:
            # A node that does not know its own name leaves it to whoever reached it.
            found = [((host or b"").decode() or asked[0], int(port)) for host, port, *_ in nodes]
            known += found
            if start <= slot <= end:
                master = found[0]
        self._known = known
        if master is None:
            raise LostError(f"no node of the cluster has slot {slot}")
        return master
