"""The sandbox's files and tracks: fetched, received, or rendered on first request."""

from __future__ import annotations

import asyncio
import base64
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, TypeVar

import aiohttp
from aiohttp import hdrs, web
from attrs import define, evolve, field
from yarl import URL

from audioext.sandbox.faults import FaultKind
from audioext.sandbox.models import Cause, MadeTrack, Refusal, Task, TaskInput
from audioext.sandbox.settings import SandboxSettings

T = TypeVar("T")

CONTENT_TYPES = {
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".m4a": "audio/mp4",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
"""Not from `mimetypes`, which says audio/x-wav for WAV on some machines."""
CHUNK_BYTES = 64 * 1024
READY = "ready/"
"""The key prefix of files that are never dropped."""
RECEIVED = "received/"
READY_TITLES = ("Harbour lights", "Slow train", "Window seat")
READY_IDS = tuple(f"e2310000-0000-4000-8000-{number:012d}" for number, _ in enumerate(READY_TITLES, start=1))
TUNE_KEY = f"{READY}tune.mp3"
VOICE_KEY = f"{READY}voice.mp3"
READY_FILES = len(READY_IDS) + 2
# One violet pixel.
COVER_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOoCFgAAAKsAWlKmtVGAAAAAElFTkSuQmCC"
)
TrackForm: TypeAlias = Literal["mp3", "wav", "png"]
TRACK_FORMS: Sequence[TrackForm] = ("mp3", "wav", "png")
VARIANT_STEP_SECONDS = 1.5  # how much longer the second track is, so that a client can tell the two apart
LEAST_GAIN_SECONDS = 5.0  # how much longer than its source a result is at least


class MissingExtraError(ImportError):
    """The sandbox needs more packages: pip install "audioext[sandbox]", or in a clone: pip install ".[sandbox]"."""


@define(kw_only=True, eq=False)
class StoredFile:
    """A file at `path`, or one that `maker` creates there on first request.

    `seconds` is its length, 0 before that is known; `made_by` is the submit that made it. Its link expires at
    `expires_at`, in the loop's time.
    """

    path: Path
    maker: Callable[[], Awaitable[bytes]] | None = None
    making: asyncio.Lock = field(factory=asyncio.Lock)
    seconds: float = 0.0
    expires_at: float | None = None
    made_by: TaskInput | None = None

    async def make(self) -> None:
        """Create the file, unless it exists."""
        async with self.making:
            if self.maker is not None:
                self.path.write_bytes(await self.maker())
            self.maker = None  # frees what it refers to: sources, earlier tracks


class Library:
    """Files by key; a key is the path under ``/files/`` of the sandbox's address, never a path on the disk."""

    def __init__(
        self, settings: SandboxSettings, session: aiohttp.ClientSession, needed: Callable[[], set[str | None]]
    ) -> None:
        """Create a library that fetches with *session* and has the ready audio, not rendered yet.

        It never drops the files whose keys *needed* returns.

        Raises:
            MissingExtraError: numpy or soundfile are not installed.
        """
        try:
            from audioext.sandbox import audio  # noqa: PLC0415 - slow to load, and an extra
        except ImportError as error:
            raise MissingExtraError(MissingExtraError.__doc__) from error
        self.base = URL()
        self._audio, self._settings, self._session, self._needed = audio, settings, session, needed
        self._folder = tempfile.TemporaryDirectory(prefix="audioext-sandbox-")
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._load = lru_cache(maxsize=4)(lambda path: audio.load(path.read_bytes()))
        # One at a time: parallel rendering would take the CPU from the code under test.
        self._turn = asyncio.Lock()
        ready = [f"{READY}{track_id}.mp3" for track_id in READY_IDS]
        for number, (key, title) in enumerate(zip((TUNE_KEY, *ready), ("", *READY_TITLES), strict=True)):
            self._add_ready(key, audio.tune, number, title)
        self._add_ready(VOICE_KEY, audio.voice, 0)

    def _add_ready(self, key: str, play: Callable[..., Any], number: int, title: str = "") -> None:
        seconds, seed = self._settings.ready_seconds, self._settings.dice + number
        maker = partial(self._in_thread, lambda: self._audio.encode(play(seed=seed, seconds=seconds), "mp3"))
        made_by = TaskInput(operation="", fields={}, title=title, prompt="[Verse]", tags="soft")
        self._put(key, StoredFile(path=self._fresh_path(), maker=maker, seconds=seconds, made_by=made_by))

    async def aclose(self) -> None:
        """Remove all files."""
        self._folder.cleanup()

    # --- files by key ---

    def url(self, key: str) -> str:
        """Return the address under which a file is served."""
        return str(self.base / "files" / key)

    def key_of(self, url: str) -> str | None:
        """Return the key of one of our own files by its address, or None for any other address."""
        key = URL(url).path.partition("/files/")[2]
        return key if key in self._files and self.url(key) == str(URL(url)) else None

    def copy(self, key: str, new: str, *, seconds: float = 0.0) -> None:
        """Store the same bytes under another key as well."""
        self._put(new, StoredFile(path=self._fresh_path(), maker=partial(self._read, key), seconds=seconds))

    def move(self, key: str, new: str) -> None:
        """Rename a received file; a file of our own is copied instead."""
        if key.startswith(RECEIVED):
            self._put(new, self._files.pop(key))
        elif key != new:
            self.copy(key, new)

    async def receive(self, read: Callable[[int], Awaitable[bytes]]) -> str:
        """Store what *read* returns, in constant memory, and return its key; raises Refusal if it is too big."""
        path, size = self._fresh_path(), 0
        try:
            with path.open("wb") as file:
                while chunk := await read(CHUNK_BYTES):
                    size += file.write(chunk)
                    if size > self._settings.max_upload_bytes:
                        raise Refusal(Cause.TOO_BIG, f"The file exceeds {self._settings.max_upload_bytes} bytes")
        except BaseException:
            # Any error: the sender may also disconnect in the middle.
            path.unlink()
            raise
        key = f"{RECEIVED}{path.name}"
        self._put(key, StoredFile(path=path))
        return key

    def __contains__(self, key: object) -> bool:
        """Return whether there is such a file, rendered or not."""
        return key in self._files

    def find(self, key: str) -> StoredFile:
        """Return a file's record, and mark it as recently used; raises KeyError if there is none (any more)."""
        self._files.move_to_end(key)
        return self._files[key]

    async def path(self, key: str) -> Path:
        """Return the path of a file, rendering it first if needed; raises KeyError."""
        file = self.find(key)
        await file.make()
        return file.path

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD under ``/files/``, with ranges."""
        key = request.match_info["key"]
        # A stream's address is the file's without its suffix, as at the real APIs.
        key = key if key in self else f"{key}.mp3"
        try:
            expires_at = self.find(key).expires_at
            if expires_at is not None and asyncio.get_running_loop().time() >= expires_at:
                raise web.HTTPGone
            return web.FileResponse(await self.path(key), headers={hdrs.CONTENT_TYPE: content_type(key)})
        except (KeyError, Refusal):  # the file or its source is gone
            raise web.HTTPNotFound from None

    async def _read(self, key: str) -> bytes:
        return (await self.path(key)).read_bytes()

    def _put(self, key: str, file: StoredFile) -> None:
        """Store a file, replacing any with this key; beyond the limit, drop the least recently used unneeded files."""
        self._drop(key)
        self._files[key] = file
        surplus = len(self._files) - self._settings.keep_files - READY_FILES
        if surplus > 0:
            kept = {key, *self._needed()}
            leaving = (old for old in self._files if not (old in kept or old.startswith(READY)))
            for old in tuple(islice(leaving, surplus)):
                self._drop(old)

    def _drop(self, key: str) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            file.path.unlink(missing_ok=True)

    def _fresh_path(self) -> Path:
        return Path(self._folder.name, secrets.token_hex(16))

    # --- sources and tracks ---

    async def source(self, given: TaskInput) -> str:
        """Return the key of a submit's source: a track, made or ready, or a file; raises Refusal."""
        key = given.file_key
        if given.audio_id is not None:
            keys = (f"{folder}{given.audio_id}.mp3" for folder in ("tracks/", READY))
            key = next((key for key in keys if key in self), None)
            if key is None:
                raise Refusal(Cause.TRACK, f"There is no audio {given.audio_id}")
        key = key or await self.fetch(given.url or "")
        source = self.find(key)
        made_with = source.made_by.model if source.made_by is not None and given.audio_id is not None else None
        if given.keeps_model and made_with not in (None, given.model):
            raise Refusal(Cause.INVALID, f"model must match the source audio's, {made_with}")
        if not source.seconds:
            source.seconds = (await self._clip(key)).duration
        if given.longest_seconds is not None and source.seconds > given.longest_seconds:
            raise Refusal(Cause.INVALID, f"The audio exceeds {given.longest_seconds:g} seconds")
        if given.continue_at is not None and given.continue_at >= source.seconds and not given.clamps:
            raise Refusal(Cause.INVALID, "The point to continue at is not within the audio")
        return key

    async def fetch(self, url: str) -> str:
        """Fetch a source from its URL, and return its key; raises Refusal if that fails."""
        refusal = Refusal(Cause.SOURCE, f"File download failed: {url}")
        if not is_address(url):
            raise refusal
        if (own := self.key_of(url)) is not None:
            return own
        timeout = aiohttp.ClientTimeout(total=self._settings.fetch_timeout_seconds)
        try:
            async with self._session.get(url, timeout=timeout, raise_for_status=True) as response:
                return await self.receive(response.content.read)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise refusal from error

    def promise_tracks(self, task: Task, source_key: str) -> tuple[MadeTrack, ...]:
        """Register the tracks of a task under its track ids, not rendered yet; those of a recovery are copies."""
        copies = list[MadeTrack]()
        for track in task.input.recovers:
            key = f"recovered/{task.id}/{track.id}.mp3"
            self.copy(self.key_of(track.url) or "", key, seconds=track.seconds)
            copies.append(evolve(track, url=self.url(key)))
        return tuple(copies or (self._promise_track(task, source_key, index) for index in range(len(task.track_ids))))

    def _promise_track(self, task: Task, source_key: str, index: int) -> MadeTrack:
        given, settings, audio = task.input, self._settings, self._audio
        length, variant = self.find(source_key).seconds, 0 if task.plan.get(FaultKind.SAME_AUDIO) else index
        begin = length if given.continue_at is None else min(given.continue_at, length)
        # The exact length, so that a webhook can state it before the file is rendered.
        added = max(settings.extension_seconds, length - begin + LEAST_GAIN_SECONDS) + variant * VARIANT_STEP_SECONDS
        seconds, seed = length if given.is_instrumental else begin + added, settings.dice + task.number

        async def make(form: TrackForm) -> bytes:
            if form == "png":
                return COVER_PNG
            if task.plan.get(FaultKind.EMPTY_AUDIO):
                return b""
            clip = await self._clip(source_key)
            if given.is_instrumental:
                play = partial(audio.accompany, clip, variant=variant, seed=seed)
            else:
                play = partial(audio.extend, clip, begin, seconds=added, variant=variant, seed=seed)
            return await self._in_thread(lambda: bytes(audio.encode(play(), form)))

        track_id = task.track_ids[index]
        for form in TRACK_FORMS:
            file = StoredFile(path=self._fresh_path(), maker=partial(make, form), seconds=seconds, made_by=given)
            self._put(f"tracks/{track_id}.{form}", file)
        return MadeTrack(id=track_id, url=self.url(f"tracks/{track_id}.mp3"), seconds=seconds)

    def expire(self, track_ids: Iterable[str], seconds: float) -> None:
        """Let the links to these tracks expire after so many real seconds."""
        for key in (f"tracks/{track_id}.{form}" for track_id in track_ids for form in TRACK_FORMS):
            if key in self:
                self.find(key).expires_at = asyncio.get_running_loop().time() + seconds

    async def _clip(self, key: str) -> Any:  # noqa: ANN401 - as the docstring says
        """Decode a file, with a small cache; returns a `Clip`, whose module is not imported just for its type."""
        try:
            return await self._in_thread(partial(self._load, await self.path(key)))
        except (KeyError, ValueError, OSError) as error:  # it may also be dropped meanwhile
            raise Refusal(Cause.FORMAT, "The audio file cannot be read") from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(work)


def content_type(key: str) -> str:
    """Return a file's content type by its name."""
    return CONTENT_TYPES.get(Path(key).suffix.lower(), "application/octet-stream")


def is_address(value: object) -> TypeGuard[str]:
    """Return whether this is an absolute http(s) URL."""
    try:
        url = URL(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)
