"""The audio that tasks start from and make: found, fetched, measured, and rendered when somebody listens."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, TypeVar

import aiohttp
from yarl import URL

from .files import FileStore, cover_image
from .settings import Settings
from .tasks import Kind, Order, Refusal, Source, Take, Task, Trouble

if TYPE_CHECKING:
    from types import ModuleType

    from .audio import Clip

__all__ = ["Library", "MissingExtraError"]

T = TypeVar("T")

READY_TRACKS = 3
TUNE_KEY = "ready/tune.mp3"
VOICE_KEY = "ready/voice.mp3"
CHUNK_BYTES = 64 * 1024
#: Second takes are this much longer, so that a client can tell them apart.
TAKE_STEP_SECONDS = 1.5
#: A result outlasts its source by at least this.
LEAST_GAIN_SECONDS = 5.0


class MissingExtraError(ImportError):
    """The sandbox renders audio with numpy and soundfile; get them with: pip install "audioext[sandbox]"."""


def _audio() -> "ModuleType":
    """Load what makes audio, no sooner than a sandbox starts.

    Raises:
        MissingExtraError: numpy or soundfile are not installed.
    """
    try:
        # Slow to load and an extra: `import audioext.sandbox` must do without.
        from . import audio  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(MissingExtraError.__doc__) from error
    return audio


class Library:
    """Tracks by id, sources by URL, and the recipes of takes."""

    def __init__(self, settings: Settings, files: FileStore) -> None:
        """Make a library that keeps its audio in these files."""
        self._settings = settings
        self._files = files
        self._tracks: OrderedDict[str, Source] = OrderedDict()
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        # One thread: rendering in parallel would only take the processor from whoever is tested.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audioext-sandbox")
        self._session: aiohttp.ClientSession | None = None
        self.ready_ids: tuple[str, ...] = ()

    async def open(self) -> None:
        """Promise the ready tracks; nothing is rendered yet.

        Raises:
            MissingExtraError: numpy or soundfile are not installed.
        """
        audio = _audio()
        settings = self._settings
        seconds = settings.ready_seconds
        # A connection each, so that none is left open at a receiver that wants to stop.
        connector = aiohttp.TCPConnector(force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._promise_ready(TUNE_KEY, lambda: audio.tune(seed=settings.dice, seconds=seconds))
        self._promise_ready(VOICE_KEY, lambda: audio.voice(seed=settings.dice, seconds=seconds))
        self.ready_ids = tuple(str(uuid.UUID(f"e2310000-0000-4000-8000-{n:012d}")) for n in range(1, READY_TRACKS + 1))
        for number, track_id in enumerate(self.ready_ids, start=1):
            key = f"ready/{track_id}.mp3"

            def play(seed: int = settings.dice + number) -> "Clip":
                return audio.tune(seed=seed, seconds=seconds)  # type: ignore[no-any-return]

            self._promise_ready(key, play)
            self._tracks[track_id] = Source(key=key, seconds=seconds)

    async def aclose(self) -> None:
        """Close the session and wait for the recording that is being made."""
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def source(self, order: Order) -> Source:
        """Find what an order starts from, and check the order against it.

        Raises:
            Refusal: There is no such track or file, it is no audio, too long, or ends too early.
        """
        if order.audio_id is not None:
            source = self.track(order.audio_id)
        else:
            key = order.file_key if order.file_key is not None else await self.fetch(order.url or "")
            source = Source(key=key, seconds=await self._measure(key))
        if order.longest_seconds is not None and source.seconds > order.longest_seconds:
            raise Refusal(Trouble.RANGE, f"The audio exceeds {order.longest_seconds:g} seconds")
        if order.continue_at is not None and order.continue_at >= source.seconds:
            raise Refusal(Trouble.RANGE, "The point to continue at is not within the audio")
        return source

    def track(self, audio_id: str) -> Source:
        """Return a track that some task made, or a ready one.

        Raises:
            Refusal: There is none.
        """
        source = self._tracks.get(audio_id)
        if source is None or source.key not in self._files:
            raise Refusal(Trouble.TRACK, f"There is no audio {audio_id}")
        return source

    def promise_takes(self, task: Task, source: Source, *, empty: bool, same: bool) -> tuple[Take, ...]:
        """Promise the recordings of a task, by the ids that it has given them."""
        return tuple(
            self._promise_take(task, source, take_id, index=0 if same else index, empty=empty)
            for index, take_id in enumerate(task.take_ids)
        )

    def _promise_take(self, task: Task, source: Source, take_id: str, *, index: int, empty: bool) -> Take:
        files, order = self._files, task.order
        begin = source.seconds if order.continue_at is None else order.continue_at
        # Given in full, so that a callback can say how long the file is before it is rendered.
        added = max(self._settings.extension_seconds, source.seconds - begin + LEAST_GAIN_SECONDS)
        added += index * TAKE_STEP_SECONDS
        seconds = source.seconds if order.kind is Kind.INSTRUMENTAL else begin + added
        seed = self._settings.dice + task.number

        async def render(form: Literal["mp3", "wav"]) -> bytes:
            if empty:
                return b""
            clip = await self._clip(source.key)
            return await self._in_thread(lambda: _encoded(clip, form))

        def _encoded(clip: "Clip", form: Literal["mp3", "wav"]) -> bytes:
            audio = _audio()
            if order.kind is Kind.INSTRUMENTAL:
                made = audio.accompany(clip, take=index, seed=seed)
            else:
                made = audio.extend(clip, min(begin, clip.duration), take=index, seed=seed, seconds=added)
            data: bytes = audio.encode(made, form)
            return data

        folder = f"{task.provider}/{task.id}"
        key, wav_key, cover_key = (
            f"{folder}/{take_id}.mp3",
            f"{folder}/{take_id}.wav",
            f"{folder}/{take_id}.png",
        )
        files.promise(key, lambda: render("mp3"), seconds=seconds)
        files.promise(wav_key, lambda: render("wav"), seconds=seconds)
        color = (40 + seed * 37 % 200, 40 + seed * 91 % 200, 40 + index * 120)
        files.promise(cover_key, lambda: _at_once(cover_image(color)))
        self._tracks[take_id] = Source(key=key, seconds=seconds, model=order.model)
        while len(self._tracks) > self._settings.keep_files + len(self.ready_ids):
            self._tracks.pop(next(track for track in self._tracks if track not in self.ready_ids))
        return Take(
            id=take_id,
            key=key,
            url=files.url(key),
            wav_url=files.url(wav_key),
            # The stream's address has no suffix, as at the real APIs (sheet 5.1).
            stream_url=files.url(key.removesuffix(".mp3")),
            cover_url=files.url(cover_key),
            seconds=seconds,
        )

    def _promise_ready(self, key: str, play: "Callable[[], Clip]") -> None:
        def render() -> bytes:
            data: bytes = _audio().encode(play(), "mp3")
            return data

        self._files.promise(
            key,
            lambda: self._in_thread(render),
            seconds=self._settings.ready_seconds,
            pinned=True,
        )

    async def fetch(self, url: str) -> str:
        """Get a source from where it is told to be, and return its key.

        Raises:
            Refusal: It cannot be had.
        """
        own = self._files.key_of(url)
        if own is not None and own in self._files:
            return own
        if self._session is None or URL(url).scheme not in {"http", "https"}:
            raise Refusal(Trouble.SOURCE, f"Failed to fetch the file at {url}")
        key = f"fetched/{uuid.uuid4()}"
        timeout = aiohttp.ClientTimeout(total=self._settings.fetch_timeout_seconds)
        try:
            async with self._session.get(url, timeout=timeout, raise_for_status=True) as response:
                chunks: AsyncIterator[bytes] = response.content.iter_chunked(CHUNK_BYTES)
                await self._files.add_stream(key, chunks, limit_bytes=self._settings.max_upload_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Refusal(Trouble.SOURCE, f"Failed to fetch the file at {url}") from error
        return key

    async def _measure(self, key: str) -> float:
        seconds = self._files.seconds(key)
        if seconds is None:
            seconds = (await self._clip(key)).duration
            self._files.learn_seconds(key, seconds)
        return seconds

    async def _clip(self, key: str) -> "Clip":
        """Decode a file, or remember it decoded."""
        if key not in self._clips:
            audio = _audio()
            try:
                data = await self._files.read(key)
                self._clips[key] = await self._in_thread(lambda: audio.load(data))
            except (KeyError, audio.AudioError) as error:
                raise Refusal(Trouble.FORMAT, "The audio file cannot be read") from error
        self._clips.move_to_end(key)
        clip = self._clips[key]
        while len(self._clips) > self._settings.keep_clips:
            self._clips.popitem(last=False)
        return clip

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def _at_once(data: bytes) -> bytes:
    return data
