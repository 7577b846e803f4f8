"""Hears of changes by pub/sub, and notices when it did not: a lost connection, a failover, a message that got lost.

Every script counts the changes of its partition and says the number with each, so a gap shows at once. Every few
seconds the counters themselves are read, which costs one small question for all jobs together.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from attrs import define, field
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from audioext.errors import StoreError
from audioext.outage import Outage
from audioext.stores._changes import Fanout
from audioext.stores._redis_keys import Layout
from audioext.stores._redis_lane import LOST, Lane

_log = logging.getLogger("audioext.stores.redis")

CHECK_SECONDS = 5.0
"""How often the connection and the counters are checked."""
LATE_SECONDS = 1.0
"""How much later than its commit a message may come: within a cluster it passes from node to node."""
LONGEST_PAUSE_SECONDS = 1.0


@define(eq=False)
class Subscription:
    """One connection that listens, for all listeners of a store."""

    lane: Lane
    layout: Layout
    options: Mapping[str, Any]
    fanout: Fanout = field(factory=Fanout, init=False)
    _last: dict[str, int] = field(factory=dict, init=False)
    _ready: asyncio.Future[None] = field(init=False)
    _task: asyncio.Task[None] = field(init=False)

    async def open(self) -> None:
        """Subscribe; from then on every change is told.

        Raises:
            StoreError: the server is not there, or refuses.
        """
        self._ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="audioext redis changes")
        try:
            await self._ready
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the streams of those who listen, and disconnect."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.fanout.close()

    async def _run(self) -> None:
        pause = 0.0
        outage = Outage(_log, f"{self.lane.shown}: changes are not heard")
        while True:
            try:
                async with self._subscribed() as listening:
                    await self._begin()
                    pause = 0.0
                    outage.over()
                    await self._hear(listening)
            except Exception as error:  # noqa: BLE001 - it must not end: it is heard by all who wait
                if not self._ready.done():
                    failure = error if isinstance(error, StoreError) else self.lane._failure(error)  # noqa: SLF001 - one voice
                    self._ready.set_exception(failure)
                    return
                outage.note(error)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause or 0.05)

    @asynccontextmanager
    async def _subscribed(self) -> AsyncGenerator[PubSub]:
        options = dict(self.options)
        if isinstance(self.lane.server, RedisCluster):
            # Any node tells what is published on any other; the one of the URL may be gone.
            await self.lane.server.initialize()
            node = random.choice(self.lane.server.get_nodes())  # noqa: S311 - no secret
            options |= {"host": node.host, "port": node.port}
        redis: Redis = Redis.from_pool(ConnectionPool(**options))
        try:
            async with redis.pubsub() as listening:
                await listening.subscribe(self.layout.channel)
                async with asyncio.timeout(self.lane.patience):
                    while (await listening.get_message(timeout=None) or {}).get("type") != "subscribe":
                        pass
                yield listening
        finally:
            with suppress(*LOST, RedisError):
                await redis.aclose()

    async def _begin(self) -> None:
        counted = await self._counted()
        if self._ready.done():
            self.fanout.resync()
        else:
            self._ready.set_result(None)
        self._last = counted

    async def _hear(self, listening: PubSub) -> None:
        now = asyncio.get_running_loop().time
        check_at = now() + CHECK_SECONDS
        while True:
            message: dict[str, Any] | None = await listening.get_message(timeout=max(check_at - now(), 0.0))
            if message is not None and message["type"] == "message":
                self._tell(message["data"])
            if now() >= check_at:  # however much is told of other jobs meanwhile
                await self._check(listening)
                check_at = now() + CHECK_SECONDS

    def _tell(self, data: bytes) -> None:
        try:
            part, count, ref = data.decode().split(" ", 2)
            number = int(count)
        except ValueError:
            _log.warning("%s: somebody else talks on %s", self.lane.shown, self.layout.channel)
            return
        last = self._last.get(part, 0)
        if number > last + 1:
            _log.info("%s: a change was not heard; looking at everything again", self.lane.shown)
            self.fanout.resync()
        self._last[part] = max(last, number)
        self.fanout.publish((ref,))

    async def _check(self, listening: PubSub) -> None:
        """Ask for a sign of life; what was counted before it and has not been told by then is lost."""
        seen = dict(self._last)
        counted = await self._counted()
        await listening.ping()
        pending = {"pong"}
        with suppress(TimeoutError):
            async with asyncio.timeout(self.lane.patience) as bound:
                while pending or self._is_behind(counted):
                    message: dict[str, Any] = await listening.get_message(timeout=None) or {}
                    if message.get("type") == "message":
                        self._tell(message["data"])
                    elif message.get("type") in pending:
                        pending.clear()
                        bound.reschedule(asyncio.get_running_loop().time() + LATE_SECONDS)
        # Fewer than were told: the engine itself lost writes, and counts anew. More: a message got lost.
        if pending or self._is_behind(counted) or any(count < seen.get(part, 0) for part, count in counted.items()):
            # Perhaps this connection is to a server that is no master any more, so it is made anew.
            raise LostError("changes were not heard")

    def _is_behind(self, counted: Mapping[str, int]) -> bool:
        return any(count > self._last.get(part, 0) for part, count in counted.items())

    async def _counted(self) -> dict[str, int]:
        parts = self.layout.partitions
        counts = await asyncio.gather(*(self.lane.run("HGET", part.state, "changes") for part in parts))
        return {part.name: int(count or 0) for part, count in zip(parts, counts, strict=True)}
