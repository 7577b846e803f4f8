"""The audio that tasks start from and make: found, fetched, measured, and rendered when somebody listens."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, TypeVar

import aiohttp
from attrs import evolve
from yarl import URL

from audioext.sandbox.faults import FaultKind
from audioext.sandbox.files import READY, FileStore
from audioext.sandbox.models import Cause, MadeTrack, Refusal, StoredFile, Task, TaskInput
from audioext.sandbox.settings import SandboxSettings

T = TypeVar("T")

READY_TITLES = ("Harbour lights", "Slow train", "Window seat")
READY_IDS = tuple(f"e2310000-0000-4000-8000-{number:012d}" for number, _ in enumerate(READY_TITLES, start=1))
TUNE_KEY = f"{READY}tune.mp3"
VOICE_KEY = f"{READY}voice.mp3"
READY_FILES = len(READY_IDS) + 2
# One violet pixel.
COVER_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOoCFgAAAKsAWlKmtVGAAAAAElFTkSuQmCC"
)
VARIANT_STEP_SECONDS = 1.5  # a second track is so much longer, so that a client can tell the two apart
LEAST_GAIN_SECONDS = 5.0  # a result outlasts its source by at least this


class MissingExtraError(ImportError):
    """The sandbox renders audio with numpy and soundfile; get them with: pip install "audioext[sandbox]"."""


def load_audio() -> ModuleType:
    """Load what makes audio, no sooner than a sandbox starts: it is slow to load, and an extra.

    Raises:
        MissingExtraError: numpy or soundfile are not installed.
    """
    try:
        from audioext.sandbox import audio  # noqa: PLC0415 - see above
    except ImportError as error:
        raise MissingExtraError(MissingExtraError.__doc__) from error
    return audio


class Library:
    """Tracks by id, sources by URL, and the recipes of tracks."""

    def __init__(
        self, audio: ModuleType, settings: SandboxSettings, session: aiohttp.ClientSession, files: FileStore
    ) -> None:
        """Make a library that fetches with this session, and has the ready audio in these files, not yet rendered."""
        self._audio, self._settings, self._session, self._files = audio, settings, session, files
        self._load = lru_cache(maxsize=4)(lambda path: audio.load(path.read_bytes()))
        # One at a time: rendering in parallel would only take the processor from whoever is tested.
        self._turn = asyncio.Lock()
        self._add_ready(TUNE_KEY, audio.tune, 0)
        self._add_ready(VOICE_KEY, audio.voice, 0)
        for number, (track_id, title) in enumerate(zip(READY_IDS, READY_TITLES, strict=True), start=1):
            self._add_ready(f"{READY}{track_id}.mp3", audio.tune, number, title=title)

    def _add_ready(self, key: str, play: Callable[..., object], number: int, *, title: str = "") -> None:
        audio, seconds, seed = self._audio, self._settings.ready_seconds, self._settings.dice + number
        render = partial(self._in_thread, lambda: audio.encode(play(seed=seed, seconds=seconds), "mp3"))
        made_by = TaskInput(operation="", fields={}, title=title, prompt="[Verse]", tags="soft")
        self._files.put(key, StoredFile(maker=render, seconds=seconds, made_by=made_by))

    async def source(self, given: TaskInput) -> str:
        """Return the key of what a submit starts from: a track, made or ready, or a file; or raise Refusal."""
        key = given.file_key
        if given.audio_id is not None:
            keys = (f"{folder}{given.audio_id}.mp3" for folder in ("tracks/", READY))
            key = next((key for key in keys if key in self._files), None)
            if key is None:
                raise Refusal(Cause.TRACK, f"There is no audio {given.audio_id}")
        key = key or await self.fetch(given.url or "")
        source = self._files.find(key)
        made_with = source.made_by.model if source.made_by is not None and given.audio_id is not None else None
        if given.keeps_model and made_with not in (None, given.model):
            raise Refusal(Cause.MODEL, f"model must match the source audio's, {made_with}")
        if not source.seconds:
            source.seconds = (await self._clip(key)).duration
        if given.longest_seconds is not None and source.seconds > given.longest_seconds:
            raise Refusal(Cause.RANGE, f"The audio exceeds {given.longest_seconds:g} seconds")
        if given.continue_at is not None and given.continue_at >= source.seconds and not given.clamps:
            raise Refusal(Cause.RANGE, "The point to continue at is not within the audio")
        return key

    async def fetch(self, url: str) -> str:
        """Get a source from its address, and return its key; or raise Refusal: it cannot be had."""
        if (own := self._files.key_of(url)) is not None:
            return own
        if URL(url).scheme not in {"http", "https"}:
            raise Refusal(Cause.SOURCE, f"Failed to fetch the file at {url}")
        timeout = aiohttp.ClientTimeout(total=self._settings.fetch_timeout_seconds)
        try:
            async with self._session.get(url, timeout=timeout, raise_for_status=True) as response:
                key, _ = await self._files.receive(response.content.read, limit_bytes=self._settings.max_upload_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Refusal(Cause.SOURCE, f"Failed to fetch the file at {url}") from error
        return key

    def promise_tracks(self, task: Task, source_key: str) -> tuple[MadeTrack, ...]:
        """Promise the recordings of a task, by the ids that it has given them; those of a recovery are copies."""
        copies = list[MadeTrack]()
        for track in task.input.recovers:
            key = f"recovered/{task.id}/{track.id}.mp3"
            self._files.copy(self._files.key_of(track.url) or "", key, seconds=track.seconds)
            copies.append(evolve(track, url=self._files.url(key)))
        return tuple(copies or (self._promise_track(task, source_key, index) for index in range(len(task.track_ids))))

    def _promise_track(self, task: Task, source_key: str, index: int) -> MadeTrack:
        files, given, settings, audio = self._files, task.input, self._settings, self._audio
        length, variant = files.find(source_key).seconds, 0 if task.plan.get(FaultKind.SAME_AUDIO) else index
        begin = length if given.continue_at is None else min(given.continue_at, length)
        # Given in full, so that a webhook can say how long the file is before it is rendered.
        added = max(settings.extension_seconds, length - begin + LEAST_GAIN_SECONDS) + variant * VARIANT_STEP_SECONDS
        seconds, seed = length if given.is_instrumental else begin + added, settings.dice + task.number

        def play(clip: object, form: str) -> bytes:
            if given.is_instrumental:
                made = audio.accompany(clip, variant=variant, seed=seed)
            else:
                made = audio.extend(clip, begin, seconds=added, variant=variant, seed=seed)
            return bytes(audio.encode(made, form))

        async def render(form: str) -> bytes:
            if task.plan.get(FaultKind.EMPTY_AUDIO):
                return b""
            return await self._in_thread(partial(play, await self._clip(source_key), form))

        async def cover() -> bytes:
            return COVER_PNG

        track_id = task.track_ids[index]
        for form, maker in (("mp3", partial(render, "mp3")), ("wav", partial(render, "wav")), ("png", cover)):
            files.put(f"tracks/{track_id}.{form}", StoredFile(maker=maker, seconds=seconds, made_by=given))
        return MadeTrack(id=track_id, url=files.url(f"tracks/{track_id}.mp3"), seconds=seconds)

    async def _clip(self, key: str) -> Any:  # noqa: ANN401 - as the docstring says
        """Decode a file, or remember it decoded; a `Clip`, whose module is not loaded for its type."""
        try:
            return await self._in_thread(partial(self._load, await self._files.path(key)))
        except (KeyError, ValueError) as error:
            raise Refusal(Cause.FORMAT, "The audio file cannot be read") from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(work)
