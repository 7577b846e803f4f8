"""The audio that tasks start from and make: found, fetched, measured, and rendered when somebody listens."""

from __future__ import annotations

import asyncio
import base64
import importlib
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Literal, Protocol, TypeVar

import aiohttp
from attrs import define, field
from yarl import URL

from audioext.sandbox.faults import FaultKind
from audioext.sandbox.files import FileStore
from audioext.sandbox.models import Cause, MadeTrack, Refusal, SourceAudio, Task, TaskInput, TaskKind
from audioext.sandbox.settings import Settings

T = TypeVar("T")

READY_TRACKS = 3
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
    """Load what makes audio, no sooner than a sandbox starts: it is slow to load, and an extra.

    Raises:
        MissingExtraError: numpy or soundfile are not installed.
    """
    try:
        return importlib.import_module("audioext.sandbox.audio")
    except ImportError as error:
        raise MissingExtraError(MissingExtraError.__doc__) from error


class Sound(Protocol):
    """Decoded audio: a `Clip` of `audioext.sandbox.audio`, which is not loaded for its types."""

    @property
    def duration(self) -> float:
        """The length in seconds."""


@define(eq=False)
class Library:
    """Tracks by id, sources by URL, and the recipes of tracks; all audio is in `files`."""

    settings: Settings
    files: FileStore
    ready_ids: tuple[str, ...] = field(default=(), init=False)
    _tracks: OrderedDict[str, SourceAudio] = field(factory=OrderedDict, init=False)
    _clips: OrderedDict[str, Sound] = field(factory=OrderedDict, init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    # One thread: rendering in parallel would only take the processor from whoever is tested.
    _pool: ThreadPoolExecutor = field(
        factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="audioext-sandbox"), init=False
    )

    async def open(self) -> None:
        """Promise the ready tracks; nothing is rendered yet.

        Raises:
            MissingExtraError: numpy or soundfile are not installed.
        """
        audio, dice = _audio(), self.settings.dice
        # A connection each, so that none is left open at a receiver that wants to stop.
        connector = aiohttp.TCPConnector(force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._promise_ready(TUNE_KEY, audio.tune, dice)
        self._promise_ready(VOICE_KEY, audio.voice, dice)
        self.ready_ids = tuple(str(uuid.UUID(f"e2310000-0000-4000-8000-{n:012d}")) for n in range(1, READY_TRACKS + 1))
        for number, track_id in enumerate(self.ready_ids):
            key, title = f"ready/{track_id}.mp3", READY_TITLES[number]
            self._promise_ready(key, audio.tune, dice + 1 + number)
            self._tracks[track_id] = SourceAudio(
                key=key, seconds=self.settings.ready_seconds, title=title, prompt="[Instrumental]", tags="soft, plucked"
            )

    async def aclose(self) -> None:
        """Close the session and wait for the recording that is being made."""
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def source(self, given: TaskInput) -> SourceAudio:
        """Find what a submit starts from, and check the submit against it.

        Raises:
            Refusal: There is no such track or file, it is no audio, too long, or ends too early.
        """
        if given.audio_id is not None:
            source = self.track(given.audio_id)
        else:
            key = given.file_key if given.file_key is not None else await self.fetch(given.url or "")
            source = SourceAudio(key=key, seconds=await self._measure(key))
        if given.longest_seconds is not None and source.seconds > given.longest_seconds:
            raise Refusal(Cause.RANGE, f"The audio exceeds {given.longest_seconds:g} seconds")
        if given.continue_at is not None and given.continue_at >= source.seconds and not given.clamps:
            raise Refusal(Cause.RANGE, "The point to continue at is not within the audio")
        return source

    def track(self, audio_id: str) -> SourceAudio:
        """Return a track that some task made, or a ready one.

        Raises:
            Refusal: There is none.
        """
        source = self._tracks.get(audio_id)
        if source is None or source.key not in self.files:
            raise Refusal(Cause.TRACK, f"There is no audio {audio_id}")
        return source

    def promise_tracks(self, task: Task, source: SourceAudio) -> tuple[MadeTrack, ...]:
        """Promise the recordings of a task, by the ids that it has given them."""
        same = task.plan.has(FaultKind.SAME_AUDIO)
        return tuple(
            self._promise_track(task, source, track_id, 0 if same else variant)
            for variant, track_id in enumerate(task.ids.track_ids)
        )

    def _promise_track(self, task: Task, source: SourceAudio, track_id: str, variant: int) -> MadeTrack:
        files, given = self.files, task.input
        begin = source.seconds if given.continue_at is None else min(given.continue_at, source.seconds)
        # Given in full, so that a webhook can say how long the file is before it is rendered.
        added = max(self.settings.extension_seconds, source.seconds - begin + LEAST_GAIN_SECONDS)
        added += variant * VARIANT_STEP_SECONDS
        seconds = source.seconds if given.kind is TaskKind.INSTRUMENTAL else begin + added
        seed = self.settings.dice + task.number
        is_empty = task.plan.has(FaultKind.EMPTY_AUDIO)

        def play(clip: Sound, form: Literal["mp3", "wav"]) -> bytes:
            audio = _audio()
            if given.kind is TaskKind.INSTRUMENTAL:
                made = audio.accompany(clip, variant=variant, seed=seed)
            else:
                made = audio.extend(clip, min(begin, clip.duration), variant=variant, seed=seed, seconds=added)
            data: bytes = audio.encode(made, form)
            return data

        async def render(form: Literal["mp3", "wav"]) -> bytes:
            if is_empty:
                return b""
            clip = await self._clip(source.key)
            return await self._in_thread(lambda: play(clip, form))

        async def cover() -> bytes:
            return COVER_PNG

        stem = f"{task.provider}/{task.id}/{track_id}"
        files.promise(f"{stem}.mp3", lambda: render("mp3"), seconds=seconds)
        files.promise(f"{stem}.wav", lambda: render("wav"), seconds=seconds)
        files.promise(f"{stem}.png", cover)
        self._keep_track(
            track_id,
            SourceAudio(
                key=f"{stem}.mp3",
                seconds=seconds,
                model=given.model,
                title=given.title,
                prompt=given.prompt,
                tags=given.tags,
            ),
        )
        return MadeTrack(
            id=track_id,
            url=files.url(f"{stem}.mp3"),
            wav_url=files.url(f"{stem}.wav"),
            # The stream's address has no suffix, as at the real APIs.
            stream_url=files.url(stem),
            cover_url=files.url(f"{stem}.png"),
            seconds=seconds,
        )

    def _keep_track(self, track_id: str, source: SourceAudio) -> None:
        self._tracks[track_id] = source
        while len(self._tracks) > self.settings.keep_files + len(self.ready_ids):
            del self._tracks[next(track for track in self._tracks if track not in self.ready_ids)]

    def _promise_ready(self, key: str, play: Callable[..., Sound], seed: int) -> None:
        seconds = self.settings.ready_seconds

        def render() -> bytes:
            data: bytes = _audio().encode(play(seed=seed, seconds=seconds), "mp3")
            return data

        self.files.promise(key, lambda: self._in_thread(render), seconds=seconds, pinned=True)

    async def fetch(self, url: str) -> str:
        """Get a source from its address, and return its key.

        Raises:
            Refusal: It cannot be had.
        """
        if (own := self.files.key_of(url)) is not None:
            return own
        if self._session is None or URL(url).scheme not in {"http", "https"}:
            raise Refusal(Cause.SOURCE, f"Failed to fetch the file at {url}")
        key = f"fetched/{uuid.uuid4()}"
        timeout = aiohttp.ClientTimeout(total=self.settings.fetch_timeout_seconds)
        try:
            async with self._session.get(url, timeout=timeout, raise_for_status=True) as response:
                chunks: AsyncIterator[bytes] = response.content.iter_chunked(CHUNK_BYTES)
                await self.files.add_stream(key, chunks, limit_bytes=self.settings.max_upload_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Refusal(Cause.SOURCE, f"Failed to fetch the file at {url}") from error
        return key

    async def _measure(self, key: str) -> float:
        entry = self.files.entry(key)
        if entry.seconds is None:
            entry.seconds = (await self._clip(key)).duration
        return entry.seconds

    async def _clip(self, key: str) -> Sound:
        """Decode a file, or remember it decoded."""
        if key not in self._clips:
            audio = _audio()
            try:
                data = await self.files.read(key)
                self._clips[key] = await self._in_thread(lambda: audio.load(data))
            except (KeyError, audio.AudioError) as error:
                raise Refusal(Cause.FORMAT, "The audio file cannot be read") from error
        self._clips.move_to_end(key)
        clip = self._clips[key]
        while len(self._clips) > self.settings.keep_clips:
            self._clips.popitem(last=False)
        return clip

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
