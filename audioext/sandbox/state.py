"""What the four APIs share: the tasks, their lives by the clock, the accounts, and the logs of what came and went."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import aiohttp

from audioext.sandbox.deliveries import Sender, is_reachable
from audioext.sandbox.faults import FaultKind, FaultScript
from audioext.sandbox.files import FileStore
from audioext.sandbox.library import READY_FILES, Library, load_audio
from audioext.sandbox.models import (
    ApiFacts,
    Callback,
    CallbackAttempt,
    Cause,
    Refusal,
    Submission,
    Task,
    TaskFailure,
    TaskStage,
)
from audioext.sandbox.settings import SandboxSettings


class State:
    """The tasks of all four APIs. It is made inside a running loop."""

    def __init__(self, settings: SandboxSettings) -> None:
        """Make the parts, which do nothing yet; raises MissingExtraError without numpy or soundfile."""
        audio = load_audio()
        self.settings = settings
        self.script = FaultScript(settings.faults, seed=settings.dice)
        self._session = aiohttp.ClientSession(
            # A connection each: a receiver that went away and came back would break a kept one, and cost an attempt.
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "audioext-sandbox"},
        )
        self.files = FileStore(settings.keep_files + READY_FILES)
        self.library = Library(audio, settings, self._session, self.files)
        self.tasks: dict[str, Task] = {}
        self.submissions: deque[Submission] = deque(maxlen=settings.keep_entries)
        self.attempts: deque[CallbackAttempt] = deque(maxlen=settings.keep_entries)
        self.watchers: set[Callable[[str], None]] = set()
        """They are called with the id of each task that changes, and with an empty one when faults or holds do."""
        self._sender = Sender(settings, self._session, self._keep)
        self._made_at = Counter[str]()
        self._submits: dict[str, deque[float]] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()  # set while no webhook is outstanding, and no task runs but those that are held
        self._gates = {stage: asyncio.Event() for stage in TaskStage}
        self._resting: dict[asyncio.Task[None], TaskStage] = {}
        self._numbers = count()
        self.release()

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
        await self._session.close()

    @property
    def held(self) -> tuple[str, ...]:
        """The stages that no task gets beyond now."""
        return tuple(stage.word for stage, gate in self._gates.items() if not gate.is_set())

    def note_change(self, task_id: str = "") -> None:
        """Tell who watches of a change."""
        for watcher in tuple(self.watchers):
            watcher(task_id)

    def _keep(self, attempt: CallbackAttempt) -> None:
        self.attempts.append(attempt)
        self.note_change(attempt.task_id)

    def hold(self, *words: str) -> None:
        """Let no task reach these stages, as `Sandbox.hold` says."""
        for stage in TaskStage.named(*words):
            self._gates[stage].clear()
        self.note_change()

    def release(self, *words: str) -> None:
        """Let the tasks go on that wait before these stages, as `Sandbox.release` says."""
        for stage in TaskStage.named(*words):
            self._gates[stage].set()
            self._resting = {life: at for life, at in self._resting.items() if at is not stage}
        self._note_idleness()
        self.note_change()

    def balance(self, provider: str) -> float:
        """Return the credits that are left at this API: whole as long as they are, as the APIs show them."""
        left = float(self.settings.credits - self._made_at[provider] * self.settings.price)
        return int(left) if left.is_integer() else left

    def admit(self, facts: ApiFacts) -> None:
        """Count a submit, or raise Refusal: it is one too many."""
        settings = self.settings
        if facts.limit == "window" and settings.submit_limit is not None:
            now, times = asyncio.get_running_loop().time(), self._submits.setdefault(facts.provider, deque())
            while times and times[0] <= now - settings.submit_window_seconds:
                times.popleft()
            if len(times) >= settings.submit_limit:
                raise Refusal(Cause.RATE, "Too many requests, please try again later")
            times.append(now)
        if facts.limit == "parallel" and settings.parallel_limit is not None:
            running = sum(task.provider == facts.provider and task.is_open for task in self.tasks.values())
            if running >= settings.parallel_limit:
                raise Refusal(Cause.RATE, f"Too many parallel requests: your plan allows {settings.parallel_limit}")

    def next_number(self) -> tuple[int, random.Random]:
        """Return the number of a new task, and the dice for its ids."""
        number, seed = next(self._numbers), self.settings.seed
        # With a seed the ids are the same in each run; without one no run has another's. Neither is a secret.
        return number, random.SystemRandom() if seed is None else random.Random(f"{seed}:{number}")  # noqa: S311 - see above

    def start(self, task: Task) -> None:
        """Let a task live; no webhook leaves before it is `answered`.

        Its source may be known already; otherwise it is found at the first stage, and may then fail the task.
        """
        self.tasks[task.id] = task
        self.note_change(task.id)
        while len(self.tasks) > self.settings.keep_tasks:
            del self.tasks[next(iter(self.tasks))]
        self._made_at[task.provider] += 1
        task.life = asyncio.create_task(self._live(task))
        self._lives.add(task.life)
        self._note_idleness()
        task.life.add_done_callback(self._ended)

    def _ended(self, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        self._resting.pop(life, None)
        self._note_idleness()

    def _note_idleness(self) -> None:
        if self._lives == self._resting.keys():
            self.idle.set()
        else:
            self.idle.clear()

    async def _live(self, task: Task) -> None:
        due: asyncio.Queue[Callback | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            # Nobody can be reached at a reserved name: nothing is sent there, and that is no failure.
            if is_reachable(task.input.callback_url):
                group.create_task(self._sender.send_all(task, due))
            await self._grow(task, due)
            due.put_nowait(None)

    async def _grow(self, task: Task, due: asyncio.Queue[Callback | None]) -> None:
        """Take a task from stage to stage, to its end."""
        loop, settings = asyncio.get_running_loop(), self.settings
        begun = loop.time()
        spread = settings.spread_seconds * (task.number * 7 % 31) / 30
        ages = (settings.text_seconds, settings.first_seconds, settings.complete_seconds + spread)
        hurried = task.plan.get(FaultKind.CALLBACK_BEFORE_RESPONSE)
        for stage, age in zip(TaskStage, ages, strict=True):
            left = begun + settings.real(age) - loop.time()
            await asyncio.sleep(0.0 if hurried else max(left, 0.0))
            if not self._gates[stage].is_set():
                await self._rest(task, stage, due)
            task.failure = await self._reach(task, stage)
            task.updated = datetime.now(UTC)
            task.reached[stage.word if task.failure is None else "failed"] = task.updated
            if task.failure is None:
                task.stage = stage
            self.note_change(task.id)
            if task.is_complete and not task.input.recovers and (fault := task.plan.get(FaultKind.EXPIRE_LINKS)):
                for url in (url for track in task.tracks for url in (track.url, track.wav_url, track.cover_url)):
                    if key := self.files.key_of(url):
                        self.files.find(key).expires_at = loop.time() + settings.real(fault.seconds)
            for callback in task.callbacks(task):
                due.put_nowait(callback)
            if task.failure is not None:
                return

    async def _rest(self, task: Task, stage: TaskStage, due: asyncio.Queue[Callback | None]) -> None:
        """Wait until a stage that is held is released; the webhooks before it are sent first."""
        if is_reachable(task.input.callback_url):
            await due.join()
        if task.life is not None and not self._gates[stage].is_set():
            self._resting[task.life] = stage
            self._note_idleness()
            await self._gates[stage].wait()

    async def _reach(self, task: Task, stage: TaskStage) -> TaskFailure | None:
        """Make ready what the next stage shows, or return why it is not reached."""
        fault = task.plan.get(FaultKind.ERROR)
        if fault is not None and (fault.stage or TaskStage.COMPLETE.word) == stage.word:
            return task.facts.failure_with(fault.code)
        try:
            if task.source is None or task.source not in self.files:
                task.source = await self.library.source(task.input)
        except Refusal as refusal:
            return task.facts.failure_by(refusal)
        if not task.tracks:
            task.tracks = self.library.promise_tracks(task, task.source)
        return None
