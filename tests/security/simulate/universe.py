"""One universe: a sandbox, two clients on one store and all the faults between them, on simulated time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec
import simloom
from attrs import define, field

import audioext as ax
from audioext.clock import Clock
from audioext.models.record import Verdict
from audioext.sandbox import Sandbox
from audioext.sandbox.models import Task, TaskStage
from audioext.state.fold import TOPIC_OF
from audioext.stores.base import Store
from tests.security.simulate.loop import EPOCH, Lived, run
from tests.security.simulate.plans import NO_RESULT, SILENT_AT, Order, Plan, draw_plan, fold_stored
from tests.support.lines import Line, Side

HTTP_OK = 200
API_ADDRESS = "127.0.0.1"
API_PORT = 8000
BOT_PORT = 8080
WAIT_SECONDS = 2_500.0
CLOSE_SECONDS = 20.0
"""More than the close's bound of 15."""
LINE_SECONDS = 0.02
"""The longest delay of a store call, on either side of it."""
LINE_SHARE = 0.25
"""The share of store calls that are delayed, on either side."""
HANDLER_SECONDS = 5.0
RESUBMIT_SECONDS = 20.0

PROVIDERS: dict[str, Callable[..., ax.Provider]] = {
    "kie": ax.Kie,
    "kie-jobs": ax.KieJobs,
    "sunoapi": ax.SunoApi,
    "vidgo": ax.Vidgo,
    "musicgpt": ax.MusicGpt,
}
BASES = {"kie-jobs": "kie"}


@define(eq=False)
class Complaints(logging.Handler):
    """Collects logged tracebacks, except those of handlers, which raise on purpose."""

    tracebacks: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Initialise the handler."""
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        if record.exc_info and not isinstance(record.exc_info[1], HandlerError):
            self.tracebacks.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


class HandlerError(Exception):
    """The error that a handler raises on purpose."""


@define(eq=False)
class Universe:
    """The state outside of the processes, which survives them."""

    world: simloom.World
    plan: Plan
    dice: random.Random
    store: Store
    sandbox: Sandbox | None = None
    told: Counter[tuple[str, str]] = field(factory=Counter)
    """The number of completed handler runs by ref and topic."""
    faults_left: dict[tuple[str, str], int] = field(factory=dict)
    ends: dict[int, str] = field(factory=dict)
    """The outcome of each order's wait, in whichever process it ended."""
    refs: dict[int, set[str]] = field(factory=dict)
    open_waits: Counter[str] = field(factory=Counter)
    clocks: dict[str, float] = field(factory=dict)
    """The offset of each process's clock from the elapsed time."""
    away: set[str] = field(factory=set)
    """The processes whose store is unreachable."""
    over: asyncio.Event = field(factory=asyncio.Event)
    closed: Counter[str] = field(factory=Counter)

    # --- the processes ---------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run the provider's sandbox."""
        async with Sandbox(
            host=API_ADDRESS,
            port=API_PORT,
            origin_port=API_PORT + 1,
            speed=4.0,
            seed=0,
            retry_seconds=(40.0, 120.0, 240.0),
            submit_limit=None,
            faults=self.plan.faults,
        ) as self.sandbox:
            await self.over.wait()

    def clock(self, name: str) -> Clock:
        """Return a process's clock, which may step."""
        loop = asyncio.get_running_loop()
        now = lambda: EPOCH + loop.time() + self.clocks.get(name, 0.0)  # noqa: E731 - one of four of a kind
        return Clock(now=now, monotonic=loop.time, jitter=self.dice.random)

    def line(self, name: str) -> Line:
        """Return a process's connection to the store."""

        async def watch(_: str, side: Side) -> None:
            if (delay := self.dice.random()) < LINE_SHARE:
                await asyncio.sleep(delay / LINE_SHARE * LINE_SECONDS)
            if name in self.away:
                message = "the line to the store is cut"
                raise ax.StoreError(message)

        return Line(self.store, watch)

    async def run_bot(self, name: str, address: str, orders: tuple[Order, ...]) -> None:
        """Run one process from its start until it ends or is killed."""
        while self.sandbox is None or not self.sandbox.url:  # noqa: ASYNC110 - simulated time is free
            await asyncio.sleep(0.1)
        while True:
            try:
                await self._run_client(name, address, orders)
            except ax.StoreError:  # the store was down when the client opened
                await asyncio.sleep(RESUBMIT_SECONDS)
            else:
                return

    async def _run_client(self, name: str, address: str, orders: tuple[Order, ...]) -> None:
        assert self.sandbox is not None
        kind = PROVIDERS[self.plan.provider]
        provider = kind(
            self.sandbox.api_key,
            base_url=self.sandbox.bases[BASES.get(self.plan.provider, self.plan.provider)],
            limits=ax.Limits(),
            pace=ax.Pace(first=5.0, every=5.0, slowest=15.0, quiet=60.0),
            grace=self.plan.grace,
        )
        reached = self.plan.callback_address or address
        client = ax.Client(
            provider,
            public_url=f"http://{reached}:{BOT_PORT}/audio" if self.plan.webhooks else None,
            listen=f"{address}:{BOT_PORT}",
            store=self.line(name),
            clock=self.clock(name),
            wait_timeout=WAIT_SECONDS,
            confirm=self.plan.confirm,
        )
        self._register(client)
        async with client:
            waits = [asyncio.create_task(self._see_through(client, name, order)) for order in orders]
            await self.over.wait()
            began_at = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - began_at
        assert took < CLOSE_SECONDS, f"{name} took {took:.1f} s to close"
        self.closed[name] += 1
        await asyncio.gather(*waits)

    def _register(self, client: ax.Client) -> None:
        for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):
            client.on(stage)(partial(self._handle, TOPIC_OF[stage]))
        client.on_failure(partial(self._handle, "failed"))

    async def _handle(self, topic: str, event: ax.StageEvent | ax.Failure) -> None:
        """Handle a stage slowly, and fail at first with some chance."""
        key = (event.ref, topic)
        left = self.faults_left.setdefault(key, self.dice.choice((0, 0, 0, 1, 2)))
        await asyncio.sleep(self.dice.random() * HANDLER_SECONDS)
        if left:
            self.faults_left[key] = left - 1
            raise HandlerError(topic)
        self.told[key] += 1

    async def _see_through(self, client: ax.Client, name: str, order: Order) -> None:
        """Submit an order, again after any error, and await its song."""
        await asyncio.sleep(max(order.at - asyncio.get_running_loop().time(), 0.0))
        while not self.over.is_set():
            self.open_waits[name] += 1
            try:
                job = await client.submit(order.request(self.sandbox), key=f"order {order.number}")
                self.refs.setdefault(order.number, set()).add(job.ref)
                song = await job
            except (ax.StageTimeoutError, ax.StoreError, ax.ProviderError) as error:
                self.ends[order.number] = type(error).__name__
                await asyncio.sleep(RESUBMIT_SECONDS)
            except (ax.SubmitUnknownError, ax.JobFailedError) as error:
                self.ends[order.number] = type(error).__name__
                return
            except (ax.ClientClosedError, ax.ConfigError):
                return
            else:
                assert song.tracks, "a song without tracks"
                self.ends[order.number] = "Song"
                return
            finally:
                self.open_waits[name] -= 1

    # --- disturbances ---------------------------------------------------------------------------------------

    async def disturb(self, hosts: dict[str, simloom.Host]) -> None:
        """Apply each disturbance of the plan at its time, and undo all of them at the end."""
        net = self.world.net
        for fault in self.plan.disturbances:
            await asyncio.sleep(max(fault.at - self.world.time, 0.0))
            host = hosts[fault.where]
            if fault.kind == "crash" and not host.crashed:
                self.open_waits[fault.where] = 0
                host.crash()
                self._later(fault.seconds, partial(self._restart, host))
            elif fault.kind == "partition":
                net.partition([hosts["api"]], [host])
                self._later(fault.seconds, net.heal)
            elif fault.kind == "one-way":
                net.block(hosts["api"], host)
                self._later(fault.seconds, net.heal)
            elif fault.kind == "reset":
                net.reset_connections(hosts["api"], host)
            elif fault.kind == "clock":
                self.clocks[fault.where] = self.clocks.get(fault.where, 0.0) + fault.seconds
            elif fault.kind == "store":
                self.away.add(fault.where)
                self._later(fault.seconds, partial(self.away.discard, fault.where))
        await asyncio.sleep(max(self.plan.healed_at - self.world.time, 0.0))
        net.heal()
        self.away.clear()
        for host in hosts.values():
            self._restart(host)

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, act)

    def _restart(self, host: simloom.Host) -> None:
        if host.crashed and not self.over.is_set():
            host.restart()

    # --- checks ---------------------------------------------------------------------------------------------

    async def problems(self) -> list[str]:
        """Return what is wrong once everything has settled, or before that what is still pending."""
        assert self.sandbox is not None
        found: list[str] = []
        names = Counter(task.input.name for task in self.sandbox.tasks)
        found += [f"{name} was paid {count} times" for name, count in names.items() if count > 1]
        posts = Counter(task.input.callback_url for task in self.sandbox.tasks if self.plan.webhooks)
        found += [f"{url} was posted {count} times" for url, count in posts.items() if count > 1]
        kept = {delivery.body async for delivery in self.store.deliveries()}
        answered = [each for each in self.sandbox.deliveries if each.status == HTTP_OK]
        lost = [each for each in answered if msgspec.json.encode(each.body) not in kept]
        found += [f"a webhook of {each.task_id} was answered 200 and is in no journal: {each.body}" for each in lost]
        return found

    async def unsettled(self) -> list[str]:
        """Return what has not ended yet."""
        assert self.sandbox is not None
        found = [f"{name} waits {count} times" for name, count in self.open_waits.items() if count]
        found += [f"order {order.number} has no end" for order in self.plan.orders if order.number not in self.ends]
        if not self.sandbox.is_settled:
            found.append("webhooks are outstanding")
        if found:
            return found  # this already tells that it is not settled
        delivered = {attempt.task_id for attempt in self.sandbox.deliveries if attempt.status == HTTP_OK}
        known: set[str] = set()
        tasks = {task.id: task for task in self.sandbox.tasks}
        async for stored in self.store.jobs():
            record = (await fold_stored(self.store, stored.index.ref, self.plan.provider)).record
            if record.task_id is None:
                continue
            known.add(record.task_id)
            task = tasks.get(record.task_id)
            if task is not None and record.verdict not in self._verdicts(task):
                found.append(f"{record.ref} is {record.verdict.name}, its task at {task.stage} ({task.failure})")
            found += [f"{record.ref}: handlers were not told of {topic}" for topic in record.unhandled]
            topics = [TOPIC_OF[item.stage] for item in record.reached if item.stage in TOPIC_OF]
            found += [
                f"{record.ref}: no handler ran for {topic}" for topic in topics if not self.told[record.ref, topic]
            ]
        found += [f"{task_id} was delivered and is not known" for task_id in sorted(delivered - known)]
        return found

    def happened(self) -> Counter[str]:
        """Return how often each thing happened, to see that things did happen."""
        assert self.sandbox is not None
        found = Counter({"seconds": int(self.world.time), "tasks": len(self.sandbox.tasks)})
        found["submits"] = len(self.sandbox.submissions)
        found.update(f"delivery answered {attempt.status or attempt.error}" for attempt in self.sandbox.deliveries)
        found.update(f"wait ended: {end}" for end in self.ends.values())
        found.update(f"handler ran for {topic}" for _, topic in self.told.elements())
        found.update(fault.kind for fault in self.plan.disturbances)
        return found

    def _verdicts(self, task: Task) -> set[Verdict]:
        if task.failure is not None:  # MusicGPT's job is complete if one of its tracks is
            one_came = self.plan.provider == "musicgpt" and task.stage is not None and task.stage >= TaskStage.FIRST
            return {Verdict.FAILED, Verdict.COMPLETE} if one_came else {Verdict.FAILED}
        lost = any(NO_RESULT in str(fault) for fault in task.plan.faults)
        return {Verdict.COMPLETE, Verdict.FAILED} if lost else {Verdict.COMPLETE}


async def live(world: simloom.World, store: Store | None = None) -> Counter[str]:
    """Run one universe on *store*, by default in memory, and return how often each thing happened."""
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(
        lambda _, context: unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")
    )
    dice = random.Random(simloom.draw("plan", 2**31))  # noqa: S311 - it has to come again
    universe = Universe(world, draw_plan(dice), dice, store or ax.MemoryStore())
    complaints = Complaints()
    logging.getLogger("audioext").addHandler(complaints)
    hosts = {name: world.host(name) for name in ("api", "bot1", "bot2")}
    hosts["api"].spawn(universe.serve)
    for number, name in enumerate(("bot1", "bot2"), 1):
        orders = tuple(order for order in universe.plan.orders if order.bot == name)
        hosts[name].spawn(partial(universe.run_bot, name, f"127.0.0.{number + 1}", orders))
    try:
        await universe.disturb(hosts)
        while left := await universe.unsettled():
            assert world.time < SILENT_AT, f"{left} after {world.time:.0f} s; {universe.plan}"
            await asyncio.sleep(5.0)
        problems = await universe.problems()
        assert [] == problems, f"{problems}; {universe.plan}"
        universe.over.set()
        await world.until(lambda: universe.closed == {"bot1": 1, "bot2": 1}, timeout=60.0, poll=1.0)
        assert [] == complaints.tracebacks + unhandled, f"{complaints.tracebacks + unhandled}; {universe.plan}"
        await asyncio.sleep(5.0)
        return universe.happened()
    finally:
        logging.getLogger("audioext").removeHandler(complaints)


def run_universe(seed: int, store: Store | None = None) -> Lived[Counter[str]]:
    """Run the universe of *seed*, and return its outcome."""
    return run(partial(live, store=store), seed)
