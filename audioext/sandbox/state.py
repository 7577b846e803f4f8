"""What the four APIs share: the tasks, their lives by the clock, the accounts, and the logs of what came and went."""

from __future__ import annotations

import asyncio
import fnmatch
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import aiohttp
from attrs import define, evolve, field

from audioext.sandbox.deliveries import Sender, is_reachable
from audioext.sandbox.faults import WHOLE_PERCENT, Fault, FaultKind, Plan
from audioext.sandbox.library import Library
from audioext.sandbox.models import (
    ApiFacts,
    Callback,
    CallbackAttempt,
    Cause,
    Refusal,
    Submission,
    Task,
    TaskFailure,
    TaskInput,
    TaskStage,
    new_uuid,
)
from audioext.sandbox.settings import SandboxSettings

Stage: TypeAlias = Literal["text", "first", "complete"]


@define(kw_only=True, eq=False, slots=False)
class State(SandboxSettings):
    """A sandbox without its servers: what they share of it, and what tests steer and read."""

    library: Library = field(init=False, repr=False)
    _url: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        """Begin without tasks; raises FaultError: one of the faults is none."""
        self._stack = AsyncExitStack()
        self._origins: dict[str, str] = {}
        self._script: list[Fault] = []
        self._chances = random.Random(self.dice)  # noqa: S311 - a reproducible test is the purpose; nothing is secret
        self._tasks: dict[str, Task] = {}
        self._submissions: deque[Submission] = deque(maxlen=self.keep_entries)
        self._attempts: deque[CallbackAttempt] = deque(maxlen=self.keep_entries)
        self._watchers: set[Callable[[str], None]] = set()
        self._made_at = Counter[str]()
        self._submits = defaultdict[str, deque[float]](deque)
        self._lives: dict[asyncio.Task[None], Task] = {}
        self._idle = asyncio.Event()  # set while no webhook is outstanding, and no task runs but those that are held
        self._gates = {stage: asyncio.Event() for stage in TaskStage}
        self._resting: dict[asyncio.Task[None], TaskStage] = {}
        self.script(*self.faults)
        self.release()

    async def _open(self, stack: AsyncExitStack) -> None:
        """Make what needs a running loop, until the stack is closed; raises MissingExtraError."""
        session = aiohttp.ClientSession(
            # A connection each: a receiver that went away and came back would break a kept one, and cost an attempt.
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "audioext-sandbox"},
        )
        self._sender = Sender(self, await stack.enter_async_context(session), self._keep)
        self.library = Library(self, session, self._needed)
        stack.push_async_callback(self.library.aclose)
        stack.push_async_callback(self._stop)

    async def _stop(self, *_: object) -> None:
        """End all lives."""
        lives = tuple(self._lives)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    # --- what tests steer and read ---

    async def settled(self) -> None:
        """Wait until no webhook is outstanding, and no task runs but those at a stage that is held."""
        await self._idle.wait()

    @property
    def is_settled(self) -> bool:
        """Whether `settled` would return at once."""
        return self._idle.is_set()

    def hold(self, *stages: Stage) -> None:
        """Let no task reach these stages until `release`, or none at all: neither webhooks nor status calls show them.

        A submit with the fault `callback_before_response` is then not answered either.

        Raises:
            ValueError: One is no stage; then none is held.
        """
        for stage in TaskStage.named(*stages):
            self._gates[stage].clear()
        self._note_change()

    def release(self, *stages: Stage) -> None:
        """Let the tasks go on that wait before these stages; before any without one.

        Raises:
            ValueError: One is no stage; then none is released.
        """
        for stage in TaskStage.named(*stages):
            self._gates[stage].set()
            self._resting = {life: at for life, at in self._resting.items() if at is not stage}
        self._note_idleness()
        self._note_change()

    def script(self, *faults: Fault | str, title: str | None = None, times: int | None = None) -> None:
        """Add faults for all tasks to come, for those with such a title, or for the next `times` of them.

        A fault that says its own title or times keeps them.

        Raises:
            FaultError: A text is no fault; then none is added.
        """
        self._script += [
            evolve(
                fault,
                title=title if fault.title is None else fault.title,
                times=times if fault.times is None else fault.times,
            )
            for fault in [Fault.parse(each) if isinstance(each, str) else each for each in faults]
        ]
        self._note_change()

    def clear_script(self) -> None:
        """Forget all faults; tasks that run keep theirs."""
        self._script.clear()
        self._note_change()

    @property
    def held(self) -> tuple[str, ...]:
        """The stages that no task gets beyond now."""
        return tuple(stage.word for stage, gate in self._gates.items() if not gate.is_set())

    @property
    def scripted(self) -> tuple[str, ...]:
        """The faults that can still befall a task, as texts."""
        return tuple(map(str, self._script))

    async def changes(self) -> AsyncGenerator[str]:
        """Yield the id of each task that is made, comes to a stage or sends a webhook, else an empty one."""
        ids: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.add(ids.put_nowait)
        try:
            while True:
                yield await ids.get()
        finally:
            self._watchers.discard(ids.put_nowait)

    @property
    def submissions(self) -> Sequence[Submission]:
        """Every submit that was seen, in order."""
        return tuple(self._submissions)

    @property
    def submits(self) -> Sequence[Mapping[str, object]]:
        """The fields of every submit that was seen, in order, as its API names them and without the callback URL."""
        return tuple(
            {name: value for name, value in each.fields.items() if value is None or value != each.callback_url}
            for each in self._submissions
        )

    @property
    def deliveries(self) -> Sequence[CallbackAttempt]:
        """Every attempt to send a webhook, in order."""
        return tuple(self._attempts)

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks that are kept, in order."""
        return tuple(self._tasks.values())

    def _note_change(self, task_id: str = "") -> None:
        for watcher in tuple(self._watchers):
            watcher(task_id)

    def _keep(self, attempt: CallbackAttempt) -> None:
        self._attempts.append(attempt)
        self._note_change(attempt.task_id)

    # --- what the APIs ask ---

    def balance(self, provider: str) -> float:
        """Return the credits that are left at this API: whole as long as they are, as the APIs show them."""
        left = float(self.credits - self._made_at[provider] * self.price)
        return int(left) if left.is_integer() else left

    def admit(self, facts: ApiFacts) -> None:
        """Count a submit, or raise Refusal: it is one too many."""
        if facts.limit == "window" and self.submit_limit is not None:
            now, times = asyncio.get_running_loop().time(), self._submits[facts.provider]
            while times and times[0] <= now - self.submit_window_seconds:
                times.popleft()
            if len(times) >= self.submit_limit:
                raise Refusal(Cause.RATE, "Too many requests, please try again later")
            times.append(now)
        if facts.limit == "parallel" and self.parallel_limit is not None:
            running = sum(task.provider == facts.provider and task.is_open for task in self._tasks.values())
            if running >= self.parallel_limit:
                raise Refusal(Cause.RATE, f"Too many parallel requests: your plan allows {self.parallel_limit}")

    def find(self, task_id: str) -> Task | None:
        """Return a task of any API, if it is kept."""
        return self._tasks.get(task_id)

    def log(self, provider: str, operation: str) -> Submission:
        """Keep in the log that there is a submit, whatever comes of it."""
        submission = Submission(provider=provider, operation=operation)
        self._submissions.append(submission)
        return submission

    def draw(self, title: str) -> Plan:
        """Decide what befalls the next task, which has this title."""
        drawn: list[Fault] = []
        left: list[Fault] = []
        for fault in self._script:
            is_drawn = fnmatch.fnmatchcase(title, fault.title or "*") and (
                fault.chance >= WHOLE_PERCENT or self._chances.randrange(WHOLE_PERCENT) < fault.chance
            )
            drawn += [fault] * is_drawn
            left.append(evolve(fault, times=fault.times - 1) if is_drawn and fault.times else fault)
        self._script = [fault for fault in left if fault.times != 0]
        return Plan(tuple(drawn))

    def start(
        self,
        given: TaskInput,
        plan: Plan,
        source: str | None,
        *,
        facts: ApiFacts,
        callbacks: Callable[[Task], Sequence[Callback]],
    ) -> Task:
        """Make a task and let it live; no webhook leaves before it is `answered`.

        Its source may be known already; otherwise it is found at the first stage, and may then fail the task.
        """
        number = self._made_at.total()
        # With a seed the ids are the same in each run; without one no run has another's. Neither is a secret.
        dice = random.SystemRandom() if self.seed is None else random.Random(f"{self.seed}:{number}")  # noqa: S311 - see above
        made_by = self.library.find(source).made_by if source is not None and given.audio_id is not None else None
        track_ids = [track.id for track in given.recovers] or [new_uuid(dice) for _ in range(given.outputs)]
        task = Task(
            id=facts.new_id(dice),
            track_ids=tuple(track_ids),
            leader=dice.randrange(len(track_ids)) if facts.any_leads else 0,
            number=number,
            facts=facts,
            callbacks=callbacks,
            input=given.inherit(made_by) if made_by is not None else given,
            plan=plan,
            source=source,
        )
        self._tasks[task.id] = task
        self._note_change(task.id)
        while len(self._tasks) > self.keep_tasks:
            del self._tasks[next(iter(self._tasks))]
        self._made_at[task.provider] += 1
        task.life = asyncio.create_task(self._live(task))
        self._lives[task.life] = task
        self._note_idleness()
        task.life.add_done_callback(self._ended)
        return task

    def _needed(self) -> set[str | None]:
        """Return the keys of the files from which tasks that run start."""
        return {key for task in self._lives.values() for key in (task.source, task.input.file_key)}

    def _ended(self, life: asyncio.Task[None]) -> None:
        self._lives.pop(life, None)
        self._resting.pop(life, None)
        self._note_idleness()

    def _note_idleness(self) -> None:
        if self._lives.keys() == self._resting.keys():
            self._idle.set()
        else:
            self._idle.clear()

    async def _live(self, task: Task) -> None:
        """Take a task from stage to stage, to its end; meanwhile its webhooks are sent, each after the one before."""
        loop, plan = asyncio.get_running_loop(), task.plan
        begun, spread = loop.time(), self.spread_seconds * (task.number * 7 % 31) / 30
        ages = (self.text_seconds, self.first_seconds, self.complete_seconds + spread)
        due: list[Callback] = []
        last: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            for stage, age in zip(TaskStage, ages, strict=True):
                left = 0.0 if plan.get(FaultKind.CALLBACK_BEFORE_RESPONSE) else begun + self.real(age) - loop.time()
                await asyncio.sleep(max(left, 0.0))
                if not self._gates[stage].is_set():
                    await self._rest(task, stage, last)
                task.failure = await self._reach(task, stage)
                task.reached[stage.word if task.failure is None else "failed"] = datetime.now(UTC)
                if task.failure is None:
                    task.stage = stage
                self._note_change(task.id)
                if task.is_complete and not task.input.recovers and (fault := plan.get(FaultKind.EXPIRE_LINKS)):
                    self.library.expire(task.track_ids, self.real(fault.seconds))
                # Nobody can be reached at a reserved name: nothing is sent there, and that is no failure.
                due += task.callbacks(task) if is_reachable(task.input.callback_url) else ()
                if plan.get(FaultKind.REORDER):
                    if task.is_open:
                        continue
                    due.reverse()
                for callback in due:
                    last = group.create_task(self._sender.send(task, callback, after=last))
                due.clear()
                if task.failure is not None:
                    return

    async def _rest(self, task: Task, stage: TaskStage, last: asyncio.Task[None] | None) -> None:
        """Wait until a stage that is held is released; the webhooks before it are sent first."""
        if last is not None:
            await asyncio.wait([last])
        if task.life is not None and not self._gates[stage].is_set():
            self._resting[task.life] = stage
            self._note_idleness()
            await self._gates[stage].wait()

    async def _reach(self, task: Task, stage: TaskStage) -> TaskFailure | None:
        """Make ready what the next stage shows, or return why it is not reached."""
        fault = task.plan.get(FaultKind.ERROR)
        if fault is not None and (fault.stage or TaskStage.COMPLETE.word) == stage.word:
            return task.facts.failure(fault.code)
        try:
            if task.source is None or task.source not in self.library:
                task.source = await self.library.source(task.input)
        except Refusal as refusal:
            code = task.facts.code(refusal.cause)
            return TaskFailure(code=code, message=refusal.message, by_source=True)
        if not task.tracks:
            task.tracks = self.library.promise_tracks(task, task.source)
        return None
