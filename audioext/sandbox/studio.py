"""What the four APIs share: the tasks, their lives by the clock, and the logs of what came and went."""

import asyncio
import hashlib
import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from attrs import define
from yarl import URL

from .deliver import Courier, Manners, is_unreachable
from .faults import FaultKind, Plan, Script
from .files import FileStore
from .library import Library
from .settings import Settings
from .tasks import Delivery, Failure, Hook, Ids, Order, Refusal, Source, Stage, Submission, Task

__all__ = ["Herald", "Studio", "Ticket"]

ID_BYTES = 32


class Herald(Protocol):
    """How an API announces what becomes of a task."""

    @property
    def provider(self) -> str:
        """The API's name, as in the sandbox's bases."""
        ...

    @property
    def manners(self) -> Manners:
        """How it goes about its webhooks."""
        ...

    def hooks(self, task: Task) -> Sequence[Hook]:
        """Return the webhooks that are due now that the task has reached its stage, or has failed."""
        ...

    def failure(self, refusal: Refusal) -> Failure:
        """Put a refusal that comes after the submit into the API's words."""
        ...

    def fault_failure(self, code: int | None) -> Failure:
        """Return the failure with this code, or the API's usual one."""
        ...


@define(eq=False)
class Ticket:
    """A task that has begun, and how to tell it that its customer has been answered."""

    task: Task
    life: asyncio.Task[None]
    answered: asyncio.Event


class Studio:
    """The tasks of all four APIs."""

    def __init__(self, settings: Settings) -> None:
        """Make a studio that does nothing yet."""
        self.settings = settings
        self.script = Script(settings.faults, seed=settings.dice)
        self.files = FileStore(keep=settings.keep_files)
        self.library = Library(settings, self.files)
        self.tasks: OrderedDict[str, Task] = OrderedDict()
        self.submissions: deque[Submission] = deque(maxlen=settings.keep_entries)
        self.deliveries: deque[Delivery] = deque(maxlen=settings.keep_entries)
        self.balances: dict[str, float] = {}
        self._courier = Courier(
            wait=self.wait,
            record=self.deliveries.append,
            retry_seconds=settings.retry_seconds,
            timeout_seconds=settings.callback_timeout_seconds,
            hmac_key=settings.hmac_key,
        )
        self._lives: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._made = 0

    async def open(self, base: URL) -> None:
        """Get ready to serve under this address.

        Raises:
            MissingExtraError: numpy or soundfile are not installed.
        """
        self.files.open(base)
        await self.library.open()
        await self._courier.open()

    async def stop(self) -> None:
        """End all lives."""
        lives = tuple(self._lives)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    async def aclose(self) -> None:
        """End all lives and close everything."""
        await self.stop()
        await self.files.aclose()
        await self.library.aclose()
        await self._courier.aclose()

    async def settled(self) -> None:
        """Wait until no task runs and no webhook is outstanding."""
        await self._idle.wait()

    async def wait(self, seconds: float) -> None:
        """Sleep for some of the API's seconds."""
        if seconds > 0:
            await asyncio.sleep(seconds / self.settings.speed)

    def note(self, provider: str, operation: str) -> Submission:
        """Write down that a submit has arrived."""
        submission = Submission(provider=provider, operation=operation, at=datetime.now(UTC))
        self.submissions.append(submission)
        return submission

    def balance(self, provider: str) -> float:
        """Return the credits that are left at this API."""
        return self.balances.get(provider, self.settings.credits)

    def shown_balance(self, provider: str) -> float:
        """Return the credits as the APIs show them: whole as long as they are (sheet 10)."""
        left = float(self.balance(provider))
        return int(left) if left.is_integer() else left

    def charge(self, provider: str, credits_amount: float) -> None:
        """Take credits; a negative amount gives them back."""
        self.balances[provider] = self.balance(provider) - credits_amount

    def open_tasks(self, provider: str) -> int:
        """Count the tasks of an API that still run."""
        return sum(task.provider == provider and task.is_open for task in self.tasks.values())

    def begin(
        self,
        order: Order,
        herald: Herald,
        plan: Plan,
        *,
        ids: Ids,
    ) -> Task:
        """Make a task; it does not live yet."""
        task = Task(
            id=ids.task_id,
            number=self._made,
            provider=herald.provider,
            order=order,
            plan=plan,
            created=datetime.now(UTC),
            take_ids=ids.take_ids,
            leader=ids.leader,
        )
        self.tasks[task.id] = task
        if not herald.manners.charges_on_success:
            self.charge(herald.provider, self.settings.price)
        while len(self.tasks) > self.settings.keep_tasks:
            self.tasks.popitem(last=False)
        return task

    def fresh_bytes(self) -> bytes:
        """Return 32 bytes for the ids of the next task: the same in each run with the same seed, if there is one."""
        self._made += 1
        if self.settings.seed is None:
            return secrets.token_bytes(ID_BYTES)
        return hashlib.sha256(f"{self.settings.seed}:{self._made}".encode()).digest()

    def start(self, task: Task, herald: Herald, source: Source | None) -> Ticket:
        """Let a task live; no webhook leaves before its ticket is answered.

        The source may be given already; otherwise it is found at the first stage, and may then fail the task.
        """
        answered = asyncio.Event()
        life = asyncio.create_task(self._live(task, herald, source, answered))
        self._lives.add(life)
        self._idle.clear()
        life.add_done_callback(self._ended)
        return Ticket(task, life, answered)

    def _ended(self, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        if not self._lives:
            self._idle.set()

    async def _live(self, task: Task, herald: Herald, source: Source | None, answered: asyncio.Event) -> None:
        hooks: asyncio.Queue[Hook | None] = asyncio.Queue()
        url = task.order.callback_url
        # Nobody can be reached at a reserved name: nothing is sent, and that is no callback failure.
        heard = url is not None and not is_unreachable(url)
        async with asyncio.TaskGroup() as group:
            if heard:
                group.create_task(self._carry(task, hooks, herald, answered))
            await self._grow(task, herald, source, hooks)
            hooks.put_nowait(None)
        if not heard and task.plan.has(FaultKind.CALLBACK_EXCEPTION):
            task.callback_failed = True

    async def _carry(
        self,
        task: Task,
        hooks: asyncio.Queue[Hook | None],
        herald: Herald,
        answered: asyncio.Event,
    ) -> None:
        await answered.wait()
        await self._courier.carry(task, hooks, herald.manners)

    async def _grow(self, task: Task, herald: Herald, source: Source | None, hooks: asyncio.Queue[Hook | None]) -> None:
        """Take a task from stage to stage, to its end."""
        begun = asyncio.get_running_loop().time()
        hurried = task.plan.has(FaultKind.CALLBACK_BEFORE_RESPONSE)
        for stage, age in self._ages(task).items():
            left = begun + age / self.settings.speed - asyncio.get_running_loop().time()
            await asyncio.sleep(0.0 if hurried else max(left, 0.0))
            task.failure = await self._reach(task, herald, source, stage)
            task.updated = datetime.now(UTC)
            if task.failure is None:
                task.stage = stage
            self._settle_price(task, herald)
            for hook in herald.hooks(task):
                hooks.put_nowait(hook)
            if task.failure is not None:
                return

    def _settle_price(self, task: Task, herald: Herald) -> None:
        """Charge for a success, or give back for a failure, where the API does so."""
        manners = herald.manners
        if manners.charges_on_success and task.stage is Stage.COMPLETE and task.failure is None:
            self.charge(task.provider, self.settings.price)
        if task.failure is not None and task.failure.code in manners.refunded_codes:
            self.charge(task.provider, -self.settings.price)

    async def _reach(self, task: Task, herald: Herald, source: Source | None, stage: Stage) -> Failure | None:
        """Make ready what the next stage shows, or return why it is not reached."""
        fault = task.plan.get(FaultKind.ERROR)
        if fault is not None and (fault.stage or Stage.COMPLETE.word) == stage.word:
            return herald.fault_failure(fault.code)
        if task.takes:
            return None
        try:
            found = source or await self.library.source(task.order)
        except Refusal as refusal:
            return herald.failure(refusal)
        task.takes = self.library.promise_takes(
            task,
            found,
            empty=task.plan.has(FaultKind.EMPTY_AUDIO),
            same=task.plan.has(FaultKind.SAME_AUDIO),
        )
        return None

    def _ages(self, task: Task) -> Mapping[Stage, float]:
        """Return how old, in the API's seconds, a task is at each stage."""
        settings = self.settings
        spread = settings.spread_seconds * (task.number * 7 % 31) / 30
        return {
            Stage.TEXT: settings.text_seconds,
            Stage.FIRST: settings.first_seconds,
            Stage.COMPLETE: settings.complete_seconds + spread,
        }
