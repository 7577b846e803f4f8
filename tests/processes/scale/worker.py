"""A worker that submits its share of the jobs, awaits them, and handles stages of any job; it may be killed.

Its lines on standard output tell the test how far it is; its handlers write to a file that survives a crash. Its
input says how many jobs to submit and when to retry refused submits; the worker ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from attrs import frozen

import audioext as ax

WAIT_SECONDS = 300.0


@frozen(kw_only=True)
class Orders:
    """The test's instructions to the worker."""

    name: str
    base_url: str
    api_key: str
    public_url: str
    store: str
    told: str
    numbers: tuple[int, int, int]
    upto: int
    grace: float
    handler_timeout: float
    jobs_at_once: int
    quiet: float


def say(**facts: object) -> None:
    """Print one line for the test."""
    print(json.dumps(facts), flush=True)


class Diary:
    """The file to which the handlers of all workers write."""

    def __init__(self, path: str, name: str) -> None:
        """Open it to append."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._name = name

    def write(self, ref: str, topic: str, what: str) -> None:
        """Write one line to disk."""
        os.write(self._file, f"{ref} {topic} {self._name} {what}\n".encode())
        os.fsync(self._file)


class Input:
    """The test's input: `upto` allows submits, `again` a retry, and `stick` stops handlers in the middle."""

    def __init__(self, upto: int) -> None:
        """Allow the jobs below *upto*."""
        self.ended = asyncio.Event()
        self.sticking = False
        self._upto = upto
        self._more = asyncio.Event()
        self._again: dict[int, asyncio.Event] = {}

    async def listen(self) -> None:
        """Read the input to its end."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            match line.decode().split():
                case ["stick"]:
                    self.sticking = True
                case ["again", number]:
                    self._again.pop(int(number)).set()
                case ["upto", number]:
                    self._upto = int(number)
                    self._more.set()
                    self._more = asyncio.Event()
        self.ended.set()

    async def allowed(self, number: int) -> None:
        """Wait until this job may be submitted."""
        while number >= self._upto:
            await self._more.wait()

    async def again(self, number: int, error: ax.StoreError) -> None:
        """Report that the store refused a submit, and wait until it may be retried."""
        self._again[number] = event = asyncio.Event()
        say(put_off=number, why=str(error))
        await event.wait()


async def submit(client: ax.Client, number: int, news: Input) -> ax.Job:
    """Submit one job under its key, and retry until it is stored."""
    while True:
        say(posting=number)
        try:
            job = await client.extend(
                audio_id="e2310000-0000-4000-8000-000000000001", model="V5", key=f"job-{number}", meta={"job": number}
            )
        except ax.StoreError as error:
            await news.again(number, error)
        else:
            say(posted=number, ref=job.ref)
            return job


async def outcome(job: ax.Job) -> str:
    """Await a job's end, and return its outcome."""
    try:
        song = await job.result(timeout=WAIT_SECONDS)
    except ax.SubmitUnknownError:
        return "unknown"
    except ax.JobError as error:
        return f"{type(error).__name__}: {error}"
    return "song" if len(song.tracks) == 2 else f"{len(song.tracks)} tracks"


def make_client(orders: Orders, news: Input) -> ax.Client:
    """Return a client that submits, waits, polls and handles, while another process listens."""
    kie = ax.Kie(
        orders.api_key,
        base_url=orders.base_url,
        limits=ax.Limits(submits=None, queries=None),
        pace=ax.Pace(first=1.0, every=1.0, slowest=2.0, quiet=orders.quiet),
        grace=orders.grace,
    )
    client = ax.Client(
        kie,
        public_url=orders.public_url,
        listen=None,
        store=orders.store,
        handler_timeout=orders.handler_timeout,
        poll_timeout=5.0,
    )
    diary = Diary(orders.told, orders.name)

    async def tell(event: ax.StageEvent) -> None:
        topic = event.stage.name
        say(begin=[event.ref, topic])
        diary.write(event.ref, topic, "begin")
        if news.sticking:
            say(stuck=[event.ref, topic])
            await asyncio.Event().wait()  # until the process is killed
        diary.write(event.ref, topic, "end")
        say(end=[event.ref, topic])

    for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):
        client.on(stage)(tell)
    return client


async def main(orders: Orders) -> None:
    """Submit and await the share of jobs, then run handlers until the input ends."""
    news = Input(orders.upto)
    listening = asyncio.create_task(news.listen())
    async with make_client(orders, news) as client:
        say(open=orders.name)
        turn = asyncio.Semaphore(orders.jobs_at_once)

        async def one(number: int) -> None:
            await news.allowed(number)
            async with turn:
                job = await submit(client, number, news)
                say(ended=number, ref=job.ref, how=await outcome(job))

        await asyncio.gather(*(one(number) for number in range(*orders.numbers)))
        await news.ended.wait()
    await listening


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    asyncio.run(main(Orders(**{**given, "numbers": tuple(given["numbers"])})))
