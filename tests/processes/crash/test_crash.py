"""A bot that is killed repeatedly loses nothing, pays nothing twice, and handles every stage.

The short version runs with the suite; the long one has its own command:

    python -m pytest -m soak -s -n0 tests/processes/crash
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

import audioext as ax
from tests.support import warm
from tests.support.warm import WarmProcess

HERE = Path(__file__).parent
STAGES = ["TEXT", "FIRST", "COMPLETE"]


async def start(*words: str) -> WarmProcess:
    """Start one of the two programs."""
    return await warm.start(*words, complaints=Path(os.devnull))


async def read(process: WarmProcess) -> dict[str, object] | None:
    """Return the next message of a process, or `None` at its end."""
    line = await process.stdout.readline()
    found: dict[str, object] = json.loads(line) if line.endswith(b"\n") else {}
    return found or None


async def run_bot(arguments: list[str], *, kill_after: int | None) -> dict[str, str] | None:
    """Run the bot to its end, or kill it after that many messages; return the jobs' outcomes."""
    bot = await start(str(HERE / "bot.py"), *arguments)
    said = 0
    ended: object = None
    try:
        while (facts := await read(bot)) is not None:
            said += 1
            ended = facts.get("ended", ended)
            if said == kill_after:
                break
    finally:
        if bot.returncode is None and (kill_after is not None and said >= kill_after):
            bot.kill()
        await bot.communicate()
    return ended if isinstance(ended, dict) else None


async def check(folder: Path, url: str, ends: dict[str, str]) -> Counter[str]:
    """Check the store, the sandbox and the handlers' file against the guarantees."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/control/submissions") as response:
        answer = await response.json()
    submissions = answer["submissions"] if isinstance(answer, dict) else answer
    posts = Counter(submission["callback_url"] for submission in submissions)
    assert {1} == set(posts.values())

    async with ax.Client(store=f"sqlite:///{folder}/jobs.db") as client:
        jobs = {job.ref: job async for job in client.jobs()}
        heard = {delivery.ref async for delivery in client.deliveries() if delivery.verdict == "applied"}
    known = {ref for ref, job in jobs.items() if job.task_id is not None or ref in heard}
    assert {ref: "song" if ref in known else "unknown" for ref in jobs} == ends
    assert {ax.Verdict.COMPLETE} == {jobs[ref].verdict for ref in known}
    assert {url.split("/")[-2] for url in posts} <= set(jobs)

    told: dict[str, list[str]] = {}
    for line in (folder / "told").read_text().splitlines():
        ref, topic = line.split()
        told.setdefault(ref, []).append(topic)
    assert dict.fromkeys(known, STAGES) == {ref: list(dict.fromkeys(topics)) for ref, topics in told.items()}
    return Counter(ends.values())


async def crash(folder: Path, port: int, *, jobs: int, kills: int, seed: int) -> Counter[str]:
    """Kill the bot *kills* times at random times, then let it end; return its jobs' outcomes."""
    dice = random.Random(seed)  # noqa: S311 - for instants, not for secrets
    sandbox = await start(str(HERE / "sandbox_process.py"))
    try:
        described = await read(sandbox)
        assert described is not None
        bases, key = described["bases"], described["api_key"]
        assert isinstance(bases, dict)
        arguments = [bases["kie"], str(key), str(port), str(folder), str(jobs)]
        for _ in range(kills):
            await run_bot(arguments, kill_after=dice.randint(1, max(4, 4 * jobs // kills)))
        ends = await run_bot(arguments, kill_after=None)
        assert ends is not None
        return await check(folder, str(described["url"]), ends)
    finally:
        await sandbox.communicate()  # the sandbox runs until its input ends


@pytest.mark.timeout(180)
async def test_a_killed_bot_loses_nothing(tmp_path: Path, unused_tcp_port: int) -> None:
    """After five kills each of 24 refs was POSTed at most once, and each accepted task has its song."""
    ends = await crash(tmp_path, unused_tcp_port, jobs=24, kills=5, seed=random.randrange(2**32))  # noqa: S311 - as above

    assert 24 == sum(ends.values())
    assert ends["song"] > 0


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_bot_killed_sixty_times_loses_nothing(tmp_path: Path, unused_tcp_port: int) -> None:
    """After sixty kills each of 500 refs was POSTed at most once, and each accepted task has its song."""
    ends = await crash(tmp_path, unused_tcp_port, jobs=500, kills=60, seed=random.randrange(2**32))  # noqa: S311 - as above

    assert 500 == sum(ends.values())
    print(dict(ends))
