"""How a Redis store follows changes, and notices that it missed some."""

from __future__ import annotations

import pytest
import redis.asyncio

from audioext.stores.base import RESYNC, Appended
from audioext.stores.redis import RedisStore
from tests.processes.scale.parts import Mode, Relay
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import create, make_index, make_request, make_webhook
from tests.unit.stores.redis_faults.conftest import PREFIX, Reach, append, until


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SWALLOW])
async def test_a_broken_connection_loses_no_change(
    reach: Reach, relay: Relay, beside: RedisStore, listen: Listen, mode: Mode
) -> None:
    """After a broken connection the stream is read from where it broke off, without a resync."""
    store = await reach(patience=2.0)
    await create(store, "first")
    listener = await listen(store)
    relay.turn(mode)
    await create(beside, "unheard")

    relay.turn(Mode.PASS)

    await listener.until_heard("unheard")
    assert RESYNC not in listener.heard


async def test_a_stream_that_was_trimmed_is_a_gap(
    reach: Reach, relay: Relay, beside: RedisStore, raw: redis.asyncio.Redis, listen: Listen
) -> None:
    """A listener that was away while the stream was trimmed gets a resync, and then later changes."""
    store = await reach()
    listener = await listen(store)
    relay.turn(Mode.CUT)
    for number in range(3):
        await create(beside, f"ref{number}")
    await raw.xtrim(f"{{{PREFIX}}}:changes", maxlen=1, approximate=False)

    relay.turn(Mode.PASS)
    await listener.until(lambda found: RESYNC in found.heard)
    listener.heard.clear()
    await create(beside, "heard")

    await listener.until(lambda found: "heard" in found.counts)


@pytest.mark.parametrize("is_quiet", [True, False])
async def test_a_server_that_forgot_everything_is_noticed(
    reach: Reach, raw: redis.asyncio.Redis, listen: Listen, *, is_quiet: bool
) -> None:
    """FLUSHALL causes a resync, with the next change or within the store's patience."""
    store = await reach(patience=1.0)
    await create(store)
    listener = await listen(store)
    await raw.flushall()

    if not is_quiet:
        await create(store, "other")
    await listener.until(lambda found: RESYNC in found.heard)

    assert Appended(count=0, is_lost=True) == await append(store, make_webhook(1), known=1)
    assert b"5" == await raw.hget(f"{{{PREFIX}}}:meta", "layout")


async def test_a_job_without_its_request_counts_as_lost(reach: Reach, raw: redis.asyncio.Redis) -> None:
    """A job whose request was lost counts as lost, even if later webhooks make its count match the caller's."""
    store = await reach()
    await create(store)
    await raw.flushall()
    await append(store, make_webhook(1))

    lost = await store.append("ref", [], provider="kie", index=make_index(is_open=False), known=1)
    entries = [make_request(), make_webhook(2)]
    again = await store.append("ref", entries, provider="kie", index=make_index(key="key"))

    assert lost.is_lost
    assert (3, [make_webhook(1)], False) == (again.count, list(again.missed), again.is_taken)
    assert "ref" == await store.find(key="key")


async def test_a_quiet_stream_causes_no_resync(reach: Reach, raw: redis.asyncio.Redis, listen: Listen) -> None:
    """A quiet stream is polled on and causes no resync."""
    store = await reach(patience=1.0)
    listener = await listen(store)

    async def has_asked() -> bool:
        stats = await raw.info("commandstats")
        return "cmdstat_xread" in stats and stats["cmdstat_xread"]["calls"] > 3

    await until(has_asked)

    assert [] == listener.heard


async def test_foreign_messages_in_the_stream_are_ignored(
    reach: Reach, beside: RedisStore, raw: redis.asyncio.Redis, listen: Listen
) -> None:
    """Foreign messages in the stream are ignored, and the changes after them are read."""
    store = await reach()
    listener = await listen(store)
    for word in (b"", b"hello", b"\xff \xff", b"-1 ref", b"1 "):
        await raw.xadd(f"{{{PREFIX}}}:changes", {"j": word})

    await create(beside, "ours")

    await listener.until_heard("ours")
    assert {"ours"} == set(listener.counts)
