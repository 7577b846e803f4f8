"""What a Redis store holds while it is open: its lane, its subscription, and what all processes agreed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from audioext.errors import ConfigError, StoreError
from audioext.stores._redis_changes import Subscription
from audioext.stores._redis_keys import Address, Layout
from audioext.stores._redis_lane import Lane, Server
from audioext.stores.base import Resync

LAYOUT_VERSION = 1
LATER_SECONDS = 1.0
TRIES = 3
"""Connections that a call may try within the store's patience."""


@define(eq=False)
class Engine:
    """An open store: connected, agreed on the layout, listening."""

    lane: Lane
    layout: Layout
    subscription: Subscription
    ttl: int
    providers: set[str] = field(factory=set, init=False)
    unsure: dict[str, str] = field(factory=dict, init=False)
    _closing: asyncio.Event = field(factory=asyncio.Event, init=False)
    _chores: set[asyncio.Task[None]] = field(factory=set, init=False)

    @classmethod
    async def start(cls, address: Address, *, prefix: str, partitions: int, patience: float, ttl: int) -> Engine:
        """Connect.

        Raises:
            ConfigError: the driver does not understand the URL.
            StoreError: the server is not there or refuses, or another layout is in use.
        """
        try:
            # Version 2 of the protocol: what all servers speak, whatever the driver prefers.
            options: dict[str, Any] = {
                **parse_url(address.url),
                "protocol": 2,
                "socket_timeout": patience / TRIES,  # a mute connection must not use up all patience
                "socket_connect_timeout": patience / TRIES,
                "retry": Retry(NoBackoff(), 0),  # the lane tries again, with all that waits
            }
            pool = ConnectionPool(**options)
            pool.connection_class(**pool.connection_kwargs)  # it connects later, but says now what it does not know
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the store's URL is not understood: {error}") from error
        server: Server = Redis.from_pool(pool)
        lane = Lane(server, address.shown, patience)
        try:
            if await _is_cluster(lane):
                await lane.aclose()
                lane = Lane(_cluster(address, patience), address.shown, patience)
            layout = await _agree(lane, prefix, partitions)
            subscription = Subscription(lane, layout, options)
            await subscription.open()
        except BaseException:
            await lane.aclose()
            raise
        return cls(lane, layout, subscription, ttl)

    async def aclose(self) -> None:
        """Finish what was accepted, then disconnect."""
        self._closing.set()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self.lane.aclose()
        await self.subscription.aclose()

    def later(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do *work* as soon as the server is there again; one last time when the store is closed."""

        async def persist() -> None:
            while True:
                is_last = self._closing.is_set()
                with suppress(StoreError):
                    await work()
                    return
                if is_last:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(LATER_SECONDS):
                        await self._closing.wait()

        if self._closing.is_set():
            return
        chore = asyncio.create_task(persist(), name="audioext redis chore")
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    def changes(self) -> AsyncGenerator[str | Resync]:
        """Return the stream of changes from now on."""
        return self.subscription.fanout.listen()

    async def warnings(self) -> tuple[str, ...]:
        """Ask the server how it persists what it is told."""
        try:
            info = (await self.lane.run("INFO", "persistence"), await self.lane.run("INFO", "memory"))
        except StoreError as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            return ("the server does not tell this user how it persists: let it run INFO, or make sure yourself",)
        facts: dict[str, object] = {}
        for part in info:
            facts |= _facts(part)
        found: list[str] = []
        if str(facts.get("aof_enabled", "0")) != "1":
            found.append(
                "appendonly is off: a restart of the server loses what came after its last snapshot; "
                "set `appendonly yes` with `appendfsync always` or `everysec`"
            )
        else:
            policy = await self._setting("appendfsync")
            if policy not in {None, "always", "everysec"}:
                found.append(f"appendfsync is {policy}: a crash of the machine loses more than the last second")
        if str(facts.get("maxmemory", "0")) != "0" and str(facts.get("maxmemory_policy")) != "noeviction":
            found.append(
                f"maxmemory_policy is {facts.get('maxmemory_policy')}: a full server forgets jobs; set noeviction"
            )
        return tuple(found)

    async def _setting(self, name: str) -> str | None:
        """Return a setting of the server, `None` where a hosted one does not tell."""
        try:
            answer = await self.lane.run("CONFIG", "GET", name)
        except StoreError:
            return None
        pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
        return next((_text(value) for key, value in pairs if _text(key) == name), None)

    def index_provider(self, provider: str) -> Sequence[asyncio.Future[object]]:
        """Let all processes know that there is work of *provider*."""
        if provider in self.providers:
            return ()
        call = self.lane.run("SADD", self.layout.providers, provider)
        call.add_done_callback(lambda done: self._indexed(provider, done))
        return (call,)

    def _indexed(self, provider: str, call: asyncio.Future[object]) -> None:
        if not call.cancelled() and call.exception() is None:
            self.providers.add(provider)

    def expire(self, key: str, *, is_open: bool) -> None:
        """Let the server forget *key* by itself one day, unless what it leads to is open."""
        if is_open:
            self.lane.forget(None, "PERSIST", key)
        else:
            self.lane.forget(None, "EXPIRE", key, self.ttl)


def _cluster(address: Address, patience: float) -> RedisCluster:
    options = {"protocol": 2, "socket_timeout": patience / TRIES, "socket_connect_timeout": patience / TRIES}
    return RedisCluster.from_url(address.url, **options)


async def _is_cluster(lane: Lane) -> bool:
    try:
        await lane.run("CLUSTER", "MYID")
    except StoreError as error:
        if isinstance(error.__cause__, ResponseError):  # it has no such support, or does not let us ask
            return False
        raise
    return True


async def _agree(lane: Lane, prefix: str, partitions: int) -> Layout:
    wanted = Layout(prefix, partitions)
    await lane.run("HSETNX", wanted.meta, "layout", LAYOUT_VERSION)
    await lane.run("HSETNX", wanted.meta, "partitions", partitions)
    version, count = await lane.run("HMGET", wanted.meta, "layout", "partitions")
    if int(version) != LAYOUT_VERSION:
        raise StoreError(
            f"{lane.shown} holds layout {int(version)} under {prefix!r}, this release knows {LAYOUT_VERSION}: "
            "update audioext, or use another ?prefix="
        )
    return Layout(prefix, int(count))


def _facts(info: object) -> dict[str, object]:
    if isinstance(info, dict):
        return {_text(name): value for name, value in info.items()}
    lines = (line.partition(":") for line in _text(info).splitlines())
    return {name: value.strip() for name, _, value in lines if name and not name.startswith("#")}


def _text(word: object) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)
