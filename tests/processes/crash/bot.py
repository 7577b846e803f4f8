"""A bot that submits jobs, handles their stages and awaits them; it may be killed at any time.

Its lines on standard output tell the test how far it is; its handlers write to a file that survives a crash.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import audioext as ax

TOPICS = ("TEXT", "FIRST", "COMPLETE")
GRACE_SECONDS = 8.0
CONCURRENT_SUBMITS = 4


def say(**facts: object) -> None:
    """Print one line for the test."""
    print(json.dumps(facts), flush=True)


async def outcome(job: ax.Job) -> str:
    """Await a job's end, and return its outcome."""
    try:
        await job.result(timeout=120)
    except ax.SubmitUnknownError:
        return "unknown"
    except ax.JobFailedError:
        return "failed"
    return "song"


async def main(base_url: str, api_key: str, port: str, folder: str, count: str) -> None:
    """Submit *count* jobs by key, and wait until all have ended and all handlers have run."""
    told = Path(folder) / "told"
    seen: set[tuple[str, str]] = set()
    if told.exists():
        seen.update((ref, topic) for ref, topic in (line.split() for line in told.read_text().splitlines()))
    news = asyncio.Event()
    kie = ax.Kie(
        api_key,
        base_url=base_url,
        limits=ax.Limits(queries=None),
        pace=ax.Pace(first=0.2, every=0.2, slowest=0.5, quiet=1.0),
        grace=GRACE_SECONDS,
    )
    client = ax.Client(
        kie,
        public_url=f"http://127.0.0.1:{port}",
        listen=f"127.0.0.1:{port}",
        store=f"sqlite:///{folder}/jobs.db",
        handler_timeout=1.0,
        poll_timeout=2.0,
    )
    file = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def tell(event: ax.StageEvent) -> None:
        say(telling=event.stage.name)
        os.write(file, f"{event.ref} {event.stage.name}\n".encode())
        os.fsync(file)
        seen.add((event.ref, event.stage.name))
        say(told=event.stage.name)
        news.set()

    for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):
        client.on(stage)(tell)
    async with client:
        turn = asyncio.Semaphore(CONCURRENT_SUBMITS)

        async def submit(number: int) -> ax.Job:
            async with turn:
                say(posting=number)
                job = await client.extend(
                    audio_id="e2310000-0000-4000-8000-000000000001", model="V5", key=f"job-{number}"
                )
                say(posted=number)
                return job

        jobs = await asyncio.gather(*(submit(number) for number in range(int(count))))
        outcomes = await asyncio.gather(*(outcome(job) for job in jobs))
        # A callback may complete a job after its unknown outcome was raised, but not from here on.
        await client.receiver.aclose()
        outcomes = [
            await outcome(job) if end == "unknown" and job.task_id is not None else end
            for job, end in zip(jobs, outcomes, strict=True)
        ]
        due = {(job.ref, topic) for job, end in zip(jobs, outcomes, strict=True) if end == "song" for topic in TOPICS}
        async with asyncio.timeout(60):
            while not due <= seen:
                news.clear()
                await news.wait()
        say(ended={job.ref: end for job, end in zip(jobs, outcomes, strict=True)})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
