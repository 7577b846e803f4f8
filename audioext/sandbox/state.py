"""The shared state of the four APIs: tasks and their progress, accounts, and the logs of submits and webhooks."""

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
    """A sandbox without its servers: the state that they share, and that tests control and read."""

    library: Library = field(init=False, repr=False)
    _url: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        """Start without tasks; raises FaultError if one of the faults is not valid."""
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
        self._runners: dict[asyncio.Task[None], Task] = {}
        self._idle = asyncio.Event()  # set while no webhook is outstanding, and all running tasks are held
        self._gates = {stage: asyncio.Event() for stage in TaskStage}
        self._held: dict[asyncio.Task[None], TaskStage] = {}
        self.script(*self.faults)
        self.release()

    async def _open(self, stack: AsyncExitStack) -> None:
        """Create what needs a running loop, until the stack is closed; raises MissingExtraError."""
        session = aiohttp.ClientSession(
            # No keep-alive: a restarted receiver would break a kept connection, which would cost an attempt.
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "audioext-sandbox"},
        )
        self._sender = Sender(self, await stack.enter_async_context(session), self._keep)
        self.library = Library(self, session, self._needed)
        stack.push_async_callback(self.library.aclose)
        stack.push_async_callback(self._stop)

    async def _stop(self, *_: object) -> None:
        """Cancel all running tasks."""
        runners = tuple(self._runners)
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)

    # --- for tests ---

    async def settled(self) -> None:
        """Wait until no webhook is outstanding, and every running task is held."""
        await self._idle.wait()

    @property
    def is_settled(self) -> bool:
        """Whether `settled` would return at once."""
        return self._idle.is_set()

    def hold(self, *stages: Stage) -> None:
        """Let no task reach these stages (by default all) until `release`: no webhook or status call shows them.

        A submit with the fault `callback_before_response` is not answered until then either.

        Raises:
            ValueError: One of them is not a stage; then none is held.
        """
        for stage in TaskStage.named(*stages):
            self._gates[stage].clear()
        self._note_change()

    def release(self, *stages: Stage) -> None:
        """Let the tasks go on that are held before these stages; without arguments, before any stage.

        Raises:
            ValueError: One of them is not a stage; then none is released.
        """
        for stage in TaskStage.named(*stages):
            self._gates[stage].set()
            self._held = {runner: at for runner, at in self._held.items() if at is not stage}
        self._note_idleness()
        self._note_change()

    def script(self, *faults: Fault | str, title: str | None = None, times: int | None = None) -> None:
        """Add faults for all new tasks, or those that match *title*, or the next *times* of them.

        A fault with its own title or times keeps them.

        Raises:
            FaultError: A text is not a fault; then none is added.
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
        """Remove all faults; running tasks keep theirs."""
        self._script.clear()
        self._note_change()

    @property
    def held(self) -> tuple[str, ...]:
        """The stages that are held now."""
        return tuple(stage.word for stage, gate in self._gates.items() if not gate.is_set())

    @property
    def scripted(self) -> tuple[str, ...]:
        """The faults that can still affect new tasks, as texts."""
        return tuple(map(str, self._script))

    async def changes(self) -> AsyncGenerator[str]:
        """Yield the id of each task that is created, reaches a stage or sends a webhook, and "" for other changes."""
        ids: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.add(ids.put_nowait)
        try:
            while True:
                yield await ids.get()
        finally:
            self._watchers.discard(ids.put_nowait)

    @property
    def submissions(self) -> Sequence[Submission]:
        """Every submit so far, in order."""
        return tuple(self._submissions)

    @property
    def submits(self) -> Sequence[Mapping[str, object]]:
        """The fields of every submit so far, in order, as its API names them and without the callback URL."""
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

    # --- for the APIs ---

    def balance(self, provider: str) -> float:
        """Return the remaining credits at this API, as an int if they are whole, as the APIs show them."""
        left = float(self.credits - self._made_at[provider] * self.price)
        return int(left) if left.is_integer() else left

    def admit(self, facts: ApiFacts) -> None:
        """Count a submit; raises Refusal if it exceeds the API's limit."""
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
        """Log a submit, before its outcome is known."""
        submission = Submission(provider=provider, operation=operation)
        self._submissions.append(submission)
        return submission

    def draw(self, title: str) -> Plan:
        """Choose the faults of the next task, which has this title."""
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

    def begin(
        self,
        given: TaskInput,
        plan: Plan,
        source: str | None,
        *,
        facts: ApiFacts,
        callbacks: Callable[[Task], Sequence[Callback]],
    ) -> Task:
        """Create a task and run it; no webhook is sent before it is `answered`.

        If its *source* is not known yet, it is looked up at the first stage, which may fail the task.
        """
        number = self._made_at.total()
        # With a seed the ids are the same in each run, without one they are unique. They are not secret.
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
        task.runner = asyncio.create_task(self._run(task))
        self._runners[task.runner] = task
        self._note_idleness()
        task.runner.add_done_callback(self._ended)
        return task

    def _needed(self) -> set[str | None]:
        """Return the source keys of running tasks."""
        return {key for task in self._runners.values() for key in (task.source, task.input.file_key)}

    def _ended(self, runner: asyncio.Task[None]) -> None:
        self._runners.pop(runner, None)
        self._held.pop(runner, None)
        self._note_idleness()

    def _note_idleness(self) -> None:
        if self._runners.keys() == self._held.keys():
            self._idle.set()
        else:
            self._idle.clear()

    async def _run(self, task: Task) -> None:
        """Move a task from stage to stage until it ends; its webhooks are sent meanwhile, one after the other."""
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
                    await self._wait_for_release(task, stage, last)
                task.failure = await self._reach(task, stage)
                task.reached[stage.word if task.failure is None else "failed"] = datetime.now(UTC)
                if task.failure is None:
                    task.stage = stage
                self._note_change(task.id)
                if task.is_complete and not task.input.recovers and (fault := plan.get(FaultKind.EXPIRE_LINKS)):
                    self.library.expire(task.track_ids, self.real(fault.seconds))
                # Nothing is sent to a URL under the reserved domain, and that counts as no failure.
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

    async def _wait_for_release(self, task: Task, stage: TaskStage, last: asyncio.Task[None] | None) -> None:
        """Wait until a held stage is released, after the earlier webhooks are sent."""
        if last is not None:
            await asyncio.wait([last])
        if task.runner is not None and not self._gates[stage].is_set():
            self._held[task.runner] = stage
            self._note_idleness()
            await self._gates[stage].wait()

    async def _reach(self, task: Task, stage: TaskStage) -> TaskFailure | None:
        """Prepare the data of the next stage, or return why it fails."""
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
