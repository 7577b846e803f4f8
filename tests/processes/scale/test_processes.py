"""Listener and worker processes of one store are killed at work, and nothing is lost, paid or handled twice.

The short version runs with the suite; the long one has its own command:

    python -m pytest -m soak -s -n0 tests/processes/scale
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import define, field, frozen

import audioext as ax
from tests.processes.scale.parts import LOOPBACK, News, Program, Valkey

HERE = Path(__file__).parent
TOPICS = ("TEXT", "FIRST", "COMPLETE")
WORKERS = 4
LISTENERS = 2

Told = tuple[str, str]
"""A ref, and a stage that a handler has run for."""


@frozen(kw_only=True)
class Size:
    """The numbers of jobs and processes."""

    jobs: int
    grace: float
    handler_timeout: float
    jobs_at_once: int
    quiet: float
    seconds: float


SMALL = Size(jobs=60, grace=8.0, handler_timeout=2.0, jobs_at_once=10, quiet=5.0, seconds=60.0)
LARGE = Size(jobs=2_000, grace=30.0, handler_timeout=10.0, jobs_at_once=40, quiet=30.0, seconds=600.0)


@define(eq=False)
class Board:
    """The reports of all processes so far."""

    news: News = field(factory=News)
    posting: dict[int, set[str]] = field(factory=lambda: defaultdict(set))
    refs: dict[int, str] = field(factory=dict)
    stuck: set[str] = field(factory=set)
    told: set[Told] = field(factory=set)
    ends: dict[int, tuple[str, str]] = field(factory=dict)
    ended: dict[str, set[int]] = field(factory=lambda: defaultdict(set))
    put_off: list[str] = field(factory=list)
    verdicts: dict[str, Counter[str]] = field(factory=lambda: defaultdict(Counter))
    waiting: list[tuple[Program, int]] = field(factory=list)
    store_is_up: bool = True

    def hear(self, program: Program, facts: Mapping[str, Any]) -> None:
        """Record one report of a process."""
        match facts:
            case {"posting": number}:
                self.posting[number].add(program.name)
            case {"posted": number, "ref": ref}:
                self.posting[number].discard(program.name)
                self.refs[number] = ref
            case {"put_off": number, "why": why}:
                self.posting[number].discard(program.name)
                self.put_off.append(why)
                self.waiting.append((program, number))
                self.try_again()
            case {"stuck": _}:
                self.stuck.add(program.name)
            case {"end": [ref, topic]}:
                self.told.add((ref, topic))
            case {"ended": number, "ref": ref, "how": how}:
                self.ends[number] = (ref, how)
                self.ended[program.name].add(number)
            case {"event": "delivery", "verdict": verdict}:
                self.verdicts[program.name][verdict] += 1
        self.news.ring()

    def try_again(self) -> None:
        """If the store is up, let workers retry the submits that it refused while it was down."""
        while self.store_is_up and self.waiting:
            program, number = self.waiting.pop()
            program.tell(f"again {number}")

    @property
    def all_told(self) -> bool:
        """Whether handlers have run for every stage of every job that has a song."""
        return all((ref, topic) in self.told for ref, end in self.ends.values() if end == "song" for topic in TOPICS)


@define(eq=False, kw_only=True)
class World:
    """A sandbox, listeners behind a balancer and workers: processes on one store."""

    folder: Path
    store: str
    size: Size
    ports: Sequence[int]
    stack: AsyncExitStack
    board: Board = field(factory=Board)
    public_url: str = field(init=False)
    sandbox: Mapping[str, Any] = field(init=False)
    workers: dict[int, Program] = field(factory=dict)
    listeners: dict[int, Program] = field(factory=dict)
    killed: set[str] = field(factory=set)
    upto: int = 0
    _made: int = 0

    @property
    def told(self) -> Path:
        """The file that the handlers write."""
        return self.folder / "told"

    async def open(self) -> None:
        """Start all processes."""
        sandbox, balancer = await asyncio.gather(
            self.program("sandbox", str(HERE / "sandbox_process.py")),
            self.program("balancer", str(HERE / "balancer.py"), *map(str, self.ports)),
        )
        self.sandbox = sandbox.first
        self.public_url = f"http://{LOOPBACK}:{balancer.first['port']}/hooks"
        await asyncio.gather(*(self.listen(index) for index in range(LISTENERS)))
        await asyncio.gather(*(self.work(index) for index in range(WORKERS)))

    async def program(self, name: str, *words: str) -> Program:
        """Start one process, which ends with the test."""
        self._made += 1
        program = Program(f"{name}-{self._made}", self.folder / f"{name}-{self._made}.err", self.board.hear)
        self.stack.push_async_callback(program.kill)
        await program.start(*words)
        return program

    async def listen(self, index: int) -> None:
        """Start a listener with the README's command."""
        words = ["--store", self.store, "--public-url", self.public_url]
        words += ["--listen", f"{LOOPBACK}:{self.ports[index]}", "--json"]
        self.listeners[index] = await self.program(f"listener{index}", "-m", "audioext", "listen", *words)

    async def work(self, index: int) -> None:
        """Start a worker; one that replaces another gets the same share of jobs."""
        orders = {
            "name": f"worker{index}-{self._made + 1}",
            "base_url": self.sandbox["bases"]["kie"],
            "api_key": self.sandbox["api_key"],
            "public_url": self.public_url,
            "store": self.store,
            "told": str(self.told),
            "numbers": (index, self.size.jobs, WORKERS),
            "upto": self.upto,
            "grace": self.size.grace,
            "handler_timeout": self.size.handler_timeout,
            "jobs_at_once": self.size.jobs_at_once,
            "quiet": self.size.quiet,
        }
        path = self.folder / f"{orders['name']}.json"
        path.write_text(json.dumps(orders))
        self.workers[index] = await self.program(f"worker{index}", str(HERE / "worker.py"), str(path))

    def allow(self, share: float) -> None:
        """Allow that share of the jobs to be submitted, which leaves work for processes that are started later."""
        self.upto = round(share * self.size.jobs)
        for worker in self.workers.values():
            worker.tell(f"upto {self.upto}")

    async def when_posted(self, share: float) -> None:
        """Wait until that share of the jobs is submitted."""
        wanted = share * self.size.jobs
        await self.board.news.until(lambda: len(self.board.refs) >= wanted, seconds=self.size.seconds)

    async def crash(self, program: Program) -> None:
        """Kill a process."""
        await program.kill()
        self.killed.add(program.name)

    async def crash_worker_in_handler(self, index: int) -> None:
        """Kill a worker while its handler runs."""
        worker = self.workers[index]
        worker.tell("stick")
        await self.board.news.until(lambda: worker.name in self.board.stuck)
        await self.crash(worker)

    async def finish(self) -> None:
        """Wait until all jobs have ended and all stages were handled, then let the processes end."""
        board = self.board
        try:
            await board.news.until(lambda: not self.unended, seconds=self.size.seconds)
        except TimeoutError:
            pytest.fail(f"these never ended: {self.unended}; submitted: {sorted(board.refs)}")
        board.told.update((ref, topic) for ref, topic, _, what in self.diary() if what == "end")  # killed ones too
        await board.news.until(lambda: board.all_told, seconds=self.size.seconds)
        async with aiohttp.ClientSession() as session, session.get(f"{self.sandbox['control']}/settled") as answer:
            await answer.read()
        await asyncio.gather(
            *(worker.end() for worker in self.workers.values()),
            *(listener.end(signal.SIGTERM) for listener in self.listeners.values()),
        )

    @property
    def unended(self) -> dict[str, set[int]]:
        """Return each worker's jobs whose end it has not reported yet."""
        shares = {worker.name: range(index, self.size.jobs, WORKERS) for index, worker in self.workers.items()}
        left = {name: set(share) - self.board.ended[name] for name, share in shares.items()}
        return {name: numbers for name, numbers in left.items() if numbers}

    def diary(self) -> list[tuple[str, str, str, str]]:
        """Return the lines of the handlers' file: ref, stage, worker, begin or end."""
        lines = self.told.read_text().splitlines()
        return [(ref, topic, worker, what) for ref, topic, worker, what in map(str.split, lines)]

    async def submissions(self) -> list[Mapping[str, Any]]:
        """Return the submits that the sandbox got."""
        url = f"{self.sandbox['control']}/submissions"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found: list[Mapping[str, Any]] = (await answer.json())["submissions"]
        return found


async def check(world: World) -> dict[str, int]:
    """Check the store, the sandbox and the handlers' file against the guarantees; return some numbers."""
    board = world.board
    # A request that was cut off by killing its worker made no task.
    made = [submission for submission in await world.submissions() if submission["task_id"] is not None]
    posts = Counter(str(submission["callback_url"]).split("/")[-2] for submission in made)
    assert {1} == set(posts.values())
    assert set(range(world.size.jobs)) == set(board.ends)

    refs = {number: ref for number, (ref, _) in board.ends.items()}
    ends = {number: end for number, (_, end) in board.ends.items()}
    # Only a job whose worker was killed before its POST has no song, and its waiters get the unknown outcome.
    unsent = {number for number, who in board.posting.items() if who & world.killed and refs[number] not in posts}
    assert {number: "unknown" if number in unsent else "song" for number in refs} == ends
    assert set(refs.values()) - {refs[number] for number in unsent} == set(posts)

    async with ax.Client(store=world.store) as client:
        records = {job.ref: job.record async for job in client.jobs()}
    assert set(refs.values()) <= set(records)
    # A job that the killed server stored but did not confirm was submitted again as another one, and is given up.
    given_up = [record for ref, record in records.items() if ref not in refs.values()]
    assert {ax.Verdict.REFUSED} >= {record.verdict for record in given_up}
    assert all(record.is_unsent for record in given_up)
    assert {ax.Verdict.COMPLETE} == {records[ref].verdict for ref in posts}
    assert set() == {ref for ref in posts if records[ref].handler_faults}
    return {"songs": len(posts), "unknown": len(unsent), **check_diary(world, set(posts)), **check_processes(world)}


def check_diary(world: World, songs: set[str]) -> dict[str, int]:
    """Check that every stage was handled, in order, and repeated only if its first worker was killed."""
    begins: dict[Told, list[str]] = defaultdict(list)
    firsts: dict[str, list[str]] = defaultdict(list)
    ended: set[Told] = set()
    for ref, topic, worker, what in world.diary():
        if what == "end":
            ended.add((ref, topic))
            continue
        begins[ref, topic].append(worker)
        if topic not in firsts[ref]:
            firsts[ref].append(topic)
    assert {(ref, topic) for ref in songs for topic in TOPICS} == ended
    assert {ref: list(TOPICS) for ref in songs} == dict(firsts)
    again = {told: workers for told, workers in begins.items() if len(workers) > 1}
    # No worker repeats a stage, and at most one worker that was not killed handles it.
    assert {} == {told: workers for told, workers in again.items() if len(workers) > len(set(workers))}
    assert {} == {told: workers for told, workers in again.items() if len(set(workers) - world.killed) > 1}
    return {"told": len(ended), "told again": len(again)}


def check_processes(world: World) -> dict[str, int]:
    """Check that no process logged a traceback, and that both receivers got webhooks."""
    for path in (*world.folder.glob("worker*.err"), *world.folder.glob("listener*.err")):
        assert "Traceback" not in path.read_text()
    verdicts: Counter[str] = Counter()
    for listener in world.listeners.values():
        assert world.board.verdicts[listener.name].total() > 0
    for counted in world.board.verdicts.values():
        verdicts.update(counted)
    return {**verdicts, "put off": len(world.board.put_off)}


async def run(world: World, server: Valkey | None) -> dict[str, int]:
    """Kill a listener, a worker and twice the store's server during work, and check the guarantees."""
    began = time.monotonic()
    await world.open()
    opened = time.monotonic()
    world.allow(0.4)
    await world.when_posted(0.2)
    await world.crash(world.listeners[0])
    await world.listen(0)
    world.allow(0.6)
    await world.when_posted(0.4)
    await world.crash_worker_in_handler(0)
    await world.work(0)
    for share, how in (0.6, signal.SIGTERM), (0.8, signal.SIGKILL):
        world.allow(share + 0.2)
        await world.when_posted(share)
        if server is not None:
            world.board.store_is_up = False
            await server.stop(how)
            await server.start()
            world.board.store_is_up = True
            world.board.try_again()
    await world.finish()
    found = await check(world)
    ended = time.monotonic()
    return {**found, "seconds to open": round(opened - began), "seconds to work": round(ended - opened)}


@pytest.fixture
def make_world(
    tmp_path: Path, stack: AsyncExitStack, unused_tcp_port_factory: Callable[[], int]
) -> Callable[[str, Size], World]:
    """Return a function that makes a world on a store."""

    def make(store: str, size: Size) -> World:
        ports = [unused_tcp_port_factory() for _ in range(LISTENERS)]
        return World(folder=tmp_path, store=store, size=size, ports=ports, stack=stack)

    return make


MakeWorld = Callable[[str, Size], World]


@pytest.mark.timeout(120)
async def test_sixty_jobs_survive_kills_and_restarts_of_valkey(make_world: MakeWorld, valkey: Valkey) -> None:
    """With two listeners, four workers and one Valkey each task is paid once, has its song, and is handled."""
    found = await run(make_world(valkey.url, SMALL), valkey)

    assert 3 * found["songs"] == found["told"]
    print(found)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_two_thousand_jobs_survive_kills_and_restarts_of_valkey(make_world: MakeWorld, valkey: Valkey) -> None:
    """The same holds for two thousand jobs."""
    found = await run(make_world(valkey.url, LARGE), valkey)

    assert 3 * found["songs"] == found["told"]
    print(found)


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_the_processes_may_share_a_file(make_world: MakeWorld, tmp_path: Path) -> None:
    """The same holds on one SQLite file, without a server to restart."""
    found = await run(make_world(f"sqlite:///{tmp_path}/jobs.db", SMALL), None)

    assert 3 * found["songs"] == found["told"]
    print(found)
