"""Faults at the worst moment: a submit that never was leaves no job, and one client's end is not another's."""

from __future__ import annotations

import pytest

import audioext as ax
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api
from tests.support.clock import JumpClock
from tests.support.stores import FaultyMemory


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


async def refs(store: ax.MemoryStore) -> list[str]:
    """Return the jobs of a store."""
    return [stored.index.ref async for stored in store.jobs()]


# --- a submit that was not stored --------------------------------------------------------------------------------


async def test_a_submit_that_could_not_be_stored_is_not_stored_later(api: Api, open_client: MakeClient) -> None:
    """When the store comes back and asks for what it lost, a submit that failed is no part of that."""
    store = FaultyMemory()
    client = await open_client(store=store, **WEB)
    await store.was_secret_kept.wait()
    store.fail("away")
    with pytest.raises(ax.StoreError, match="away"):
        await extend(client)

    store.fail(None)
    store.was_secret_kept.clear()
    await store.lose_all()
    await store.was_secret_kept.wait()
    job = await extend(client)

    assert [job.ref] == await refs(store)
    assert 1 == len(api.posts)


async def test_a_submit_that_waits_for_its_turn_is_no_job_yet(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A client that looks at everything it holds does not store a job whose POST was not allowed yet."""
    api.is_done = False
    store = ax.MemoryStore()
    provider = api.provider(limits=ax.Limits(parallel=1))
    settings: dict[str, object] = {"store": store, "permit_timeout": 5.0, "clock": clock.clock, **WEB}
    async with ax.Client(provider, **settings) as first:  # type: ignore[arg-type]  # a test's own settings
        job = await extend(first)

    async with ax.Client(provider, **settings) as client:  # type: ignore[arg-type]  # as above
        with pytest.raises(ax.RateLimitError):  # its first look at everything meets the submit in the queue
            await clock.run(extend(client, key="mine"))

    assert [job.ref] == await refs(store)
    assert await store.find(key="mine") is None
    assert 1 == len(api.posts)
