"""The audio that tasks start from and make: found, fetched, measured, and rendered when somebody listens."""

from __future__ import annotations

import asyncio
import base64
import importlib
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import ModuleType
from typing import TypeVar

import aiohttp
from attrs import evolve
from yarl import URL

from audioext.sandbox.faults import FaultKind
from audioext.sandbox.files import FileStore
from audioext.sandbox.models import Cause, MadeTrack, Refusal, SourceAudio, Task, TaskInput
from audioext.sandbox.settings import SandboxSettings

T = TypeVar("T")

READY_TITLES = ("Harbour lights", "Slow train", "Window seat")
TUNE_KEY = "ready/tune.mp3"
VOICE_KEY = "ready/voice.mp3"
CHUNK_BYTES = 64 * 1024
# One violet pixel.
COVER_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOoCFgAAAKsAWlKmtVGAAAAAElFTkSuQmCC"
)
VARIANT_STEP_SECONDS = 1.5  # a second track is so much longer, so that a client can tell the two apart
LEAST_GAIN_SECONDS = 5.0  # a result outlasts its source by at least this


class MissingExtraError(ImportError):
    """The sandbox renders audio with numpy and soundfile; get them with: pip install "audioext[sandbox]"."""


def _audio() -> ModuleType:
    """Load what makes audio, no sooner than a sandbox starts: it is slow to load, and an extra."""
    try:
        return importlib.import_module("audioext.sandbox.audio")
    except ImportError as error:
        raise MissingExtraError(MissingExtraError.__doc__) from error


class Library:
    """Tracks by id, sources by URL, and the recipes of tracks."""

    def __init__(self, settings: SandboxSettings, session: aiohttp.ClientSession, files: FileStore) -> None:
        """Make a library that fetches with this session, and keeps its audio in these files."""
        self._settings, self._session, self._files = settings, session, files
        self._ready: dict[str, SourceAudio] = {}
        self._tracks: OrderedDict[str, SourceAudio] = OrderedDict()
        self._clips: OrderedDict[str, object] = OrderedDict()  # each a `Clip`, which is not loaded for its type
        # One at a time: rendering in parallel would only take the processor from whoever is tested.
        self._turn = asyncio.Lock()

    @property
    def ready_ids(self) -> tuple[str, ...]:
        """The ids of the tracks that are there from the start."""
        return tuple(self._ready)

    def open(self) -> None:
        """Promise the ready tracks, of which nothing is rendered yet; or raise MissingExtraError."""
        audio, dice, seconds = _audio(), self._settings.dice, self._settings.ready_seconds
        self._promise_ready(TUNE_KEY, audio.tune, dice)
        self._promise_ready(VOICE_KEY, audio.voice, dice)
        for number, title in enumerate(READY_TITLES, start=1):
            track_id = str(uuid.UUID(f"e2310000-0000-4000-8000-{number:012d}"))
            key = f"ready/{track_id}.mp3"
            self._promise_ready(key, audio.tune, dice + number)
            self._ready[track_id] = SourceAudio(key=key, seconds=seconds, title=title, prompt="[Verse]", tags="soft")

    async def source(self, given: TaskInput) -> SourceAudio:
        """Find what a submit starts from: a track that some task made, a ready one, or a file; or raise Refusal."""
        if given.audio_id is not None:
            source = self._ready.get(given.audio_id) or self._tracks.get(given.audio_id)
            if source is None or source.key not in self._files:
                raise Refusal(Cause.TRACK, f"There is no audio {given.audio_id}")
            if given.keeps_model and source.model not in (None, given.model):
                raise Refusal(Cause.MODEL, f"model must match the source audio's, {source.model}")
        else:
            key = given.file_key if given.file_key is not None else await self.fetch(given.url or "")
            source = SourceAudio(key=key, seconds=await self._measure(key))
        if given.longest_seconds is not None and source.seconds > given.longest_seconds:
            raise Refusal(Cause.RANGE, f"The audio exceeds {given.longest_seconds:g} seconds")
        if given.continue_at is not None and given.continue_at >= source.seconds and not given.clamps:
            raise Refusal(Cause.RANGE, "The point to continue at is not within the audio")
        return source

    def promise_tracks(self, task: Task, source: SourceAudio) -> tuple[MadeTrack, ...]:
        """Promise the recordings of a task, by the ids that it has given them; those of a recovery are copies."""
        files, copies = self._files, list[MadeTrack]()
        for track in task.input.recovers:
            key = f"{task.provider}/{task.id}/{track.id}.mp3"
            files.promise(key, partial(files.read, files.key_of(track.url) or ""), seconds=track.seconds)
            copies.append(evolve(track, url=files.url(key)))
        if copies:
            return tuple(copies)
        same = task.plan.get(FaultKind.SAME_AUDIO)
        return tuple(
            self._promise_track(task, source, track_id, 0 if same else variant)
            for variant, track_id in enumerate(task.track_ids)
        )

    def _promise_track(self, task: Task, source: SourceAudio, track_id: str, variant: int) -> MadeTrack:
        files, given, settings = self._files, task.input, self._settings
        begin = source.seconds if given.continue_at is None else min(given.continue_at, source.seconds)
        # Given in full, so that a webhook can say how long the file is before it is rendered.
        added = max(settings.extension_seconds, source.seconds - begin + LEAST_GAIN_SECONDS)
        added += variant * VARIANT_STEP_SECONDS
        seconds, seed = source.seconds if given.is_instrumental else begin + added, settings.dice + task.number

        def play(clip: object, form: str) -> bytes:
            audio = _audio()
            if given.is_instrumental:
                made = audio.accompany(clip, variant=variant, seed=seed)
            else:
                made = audio.extend(clip, begin, variant=variant, seed=seed, seconds=added)
            return bytes(audio.encode(made, form))

        async def render(form: str) -> bytes:
            if form == "png":
                return COVER_PNG
            if task.plan.get(FaultKind.EMPTY_AUDIO):
                return b""
            clip = await self._clip(source.key)
            return await self._in_thread(lambda: play(clip, form))

        stem = f"{task.provider}/{task.id}/{track_id}"
        for form in ("mp3", "wav", "png"):
            files.promise(f"{stem}.{form}", partial(render, form), seconds=seconds)
        key, title, prompt = f"{stem}.mp3", given.title, given.prompt
        self._tracks[track_id] = SourceAudio(
            key=key, seconds=seconds, model=given.model, title=title, prompt=prompt, tags=given.tags
        )
        while len(self._tracks) > settings.keep_files:
            self._tracks.popitem(last=False)
        return MadeTrack(id=track_id, url=files.url(key), seconds=seconds)

    def _promise_ready(self, key: str, play: Callable[..., object], seed: int) -> None:
        seconds = self._settings.ready_seconds

        def render() -> bytes:
            return bytes(_audio().encode(play(seed=seed, seconds=seconds), "mp3"))

        self._files.promise(key, lambda: self._in_thread(render), seconds=seconds, is_pinned=True)

    async def fetch(self, url: str) -> str:
        """Get a source from its address, and return its key; or raise Refusal: it cannot be had."""
        if (own := self._files.key_of(url)) is not None:
            return own
        if URL(url).scheme not in {"http", "https"}:
            raise Refusal(Cause.SOURCE, f"Failed to fetch the file at {url}")
        key = f"fetched/{uuid.uuid4()}"
        timeout = aiohttp.ClientTimeout(total=self._settings.fetch_timeout_seconds)
        try:
            async with self._session.get(url, timeout=timeout, raise_for_status=True) as response:
                chunks: AsyncIterator[bytes] = response.content.iter_chunked(CHUNK_BYTES)
                await self._files.add_stream(key, chunks, limit_bytes=self._settings.max_upload_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Refusal(Cause.SOURCE, f"Failed to fetch the file at {url}") from error
        return key

    async def _measure(self, key: str) -> float:
        entry = self._files.entry(key)
        if entry.seconds is None:
            await self._clip(key)
        return entry.seconds or 0.0

    async def _clip(self, key: str) -> object:
        """Decode a file, or remember it decoded."""
        if key not in self._clips:
            audio = _audio()
            try:
                data = await self._files.read(key)
                clip = await self._in_thread(lambda: audio.load(data))
                entry = self._files.entry(key)
                entry.seconds = clip.duration if entry.seconds is None else entry.seconds
                self._clips[key] = clip
            except (KeyError, audio.AudioError) as error:
                raise Refusal(Cause.FORMAT, "The audio file cannot be read") from error
        self._clips.move_to_end(key)
        while len(self._clips) > self._settings.keep_clips:
            self._clips.popitem(last=False)
        return self._clips[key]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(work)
