"""A task's whole life at the sandbox: what awaiting a webhook spends, and what asking every ten seconds does."""

from __future__ import annotations

import asyncio

from audioext.sandbox import Sandbox
from tests.bench.rig import Peer, peer, table

TASKS = 5
SPEED = 20.0
POLL_SECONDS = 10.0
"""How often the clients of the field ask: suno-easy's default, and what vendors' examples have."""


async def lives(sandbox: Sandbox, client: Peer, tasks: int) -> tuple[float, float]:
    """Return the requests that a task takes, and the seconds from when it is ready to when its result is there."""
    late: list[float] = []
    spent: list[int] = []
    for _ in range(tasks):
        came_at, requests = await asyncio.to_thread(client.ask, sandbox.track_ids[0])
        late.append((came_at - sandbox.tasks[-1].updated.timestamp()) * SPEED)
        spent.append(requests)
    return sum(spent) / tasks, sum(late) / tasks


async def run(tasks: int = TASKS) -> dict[str, dict[str, float]]:
    """Measure and print."""
    rows: dict[str, list[float]] = {}
    async with Sandbox(speed=SPEED, submit_limit=None, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        base, key = str(sandbox.bases["kie"]), sandbox.api_key
        found = {}
        for how, seconds in (("webhook", 9_000.0), ("poll", POLL_SECONDS / SPEED)):
            with peer("life", base, key, how, str(seconds), module="others") as client:
                found[how] = await lives(sandbox, client, tasks)
                rows[f"by {how}: requests a task"] = [found[how][0]]
                rows[f"by {how}: seconds from ready to result"] = [found[how][1]]
        rows["requests, of those of asking"] = [found["webhook"][0] / found["poll"][0]]
        rows["seconds, of those of asking"] = [found["webhook"][1] / found["poll"][1]]
    return table(f"A whole life of a task, against asking every {POLL_SECONDS:g} s", rows)


if __name__ == "__main__":
    asyncio.run(run())
