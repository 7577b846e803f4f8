"""Whole tasks at the sandbox: the requests and the delay of awaiting webhooks, against clients that poll."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from audioext.sandbox import Sandbox
from tests.bench import others
from tests.bench.rig import Peer, peer, table

TASKS = 8
SPEED = 2.0
"""How much faster the sandbox runs: sleeps are divided by it and results multiplied, so CPU time counts double."""
ASKING = {"asking every 10 s": (["life", "poll"], 10.0), "suno-easy": (["suno_easy"], 3.0)}
"""The poll interval of each client: those of vendors' examples, and suno-easy's default of 0.2."""


async def lives(sandbox: Sandbox, client: Peer, tasks: int) -> tuple[float, float]:
    """Return the requests per task, and the seconds from a task's completion to its result."""
    ended, requests = await asyncio.to_thread(client.ask, f"{sandbox.track_ids[0]} {tasks}")
    ready = {task.id: task.updated.timestamp() for task in sandbox.tasks}
    return requests / tasks, sum(at - ready[task_id] for task_id, at in ended) * SPEED / tasks


async def run(tasks: int = TASKS) -> dict[str, dict[str, float]]:
    """Await all of them at once, and print."""
    rows: dict[str, list[float]] = {}
    all_of_them = {"webhook": (["life", "webhook"], 9_000.0), **ASKING}
    settings = Sandbox(speed=SPEED, submit_limit=None, ready_seconds=4.0, extension_seconds=1.0, spread_seconds=29.0)
    async with settings as sandbox:
        base, key = str(sandbox.bases["sunoapi"]), sandbox.api_key
        with ExitStack() as stack:
            clients = {
                name: stack.enter_context(peer(what, base, key, *how, str(seconds / SPEED), module="others"))
                for name, ((what, *how), seconds) in all_of_them.items()
                if name != "suno-easy" or others.has("suno_easy")
            }
            found = await asyncio.gather(*(lives(sandbox, client, tasks) for client in clients.values()))
    ours = found[0]
    for name, (requests, seconds) in zip(clients, found, strict=True):
        rows[f"{name}: requests a task"] = [requests]
        rows[f"{name}: seconds from ready to result"] = [seconds]
        if name in ASKING:
            rows[f"requests, ratio to {name}"] = [ours[0] / requests]
            rows[f"seconds, ratio to {name}"] = [ours[1] / seconds]
    return table("A whole life of a task, by webhook and by asking", rows)


if __name__ == "__main__":
    asyncio.run(run())
