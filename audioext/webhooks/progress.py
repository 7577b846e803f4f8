"""What the users of a web app may see of one job: its stages as server-sent events, under a link of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec
from attrs import define, field
from yarl import URL

from audioext.errors import AudioextError, ConfigError, RequestError
from audioext.http import signing
from audioext.models.results import Track
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Job, JobFailedError, StageEvent

SEGMENT = "progress"
_NAME = "progress:"
"""Stands in the proof where a callback's has its provider, which can have no such name: neither opens the other."""
MAX_WATCHERS = 128
"""Who may watch at a time: a quarter of the connections of our own server, which webhooks need as well."""
MAX_OF_A_JOB = 32
"""Who may watch one job at a time, so that whoever has one link keeps nobody from the others."""
STILL_SECONDS = 15.0
"""How often who watches is told that nothing is new, before a proxy takes the connection for dead."""
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would gather what is sent
    "Access-Control-Allow-Origin": "*",  # the link itself is the proof, and the page may be of another host
    "X-Content-Type-Options": "nosniff",
}
_SHOWN = ("title", "audio_url", "stream_url", "image_url", "duration")


@define(kw_only=True, eq=False, repr=False)
class Watching:
    """Streams the stages of jobs to who has their links: no request, no notes, no ids of the provider's."""

    find: Callable[[str], Awaitable[HeldJob]]
    handle: Callable[[HeldJob], Job]
    secrets: Callable[[], Sequence[bytes]]
    _watchers: Counter[str] = field(factory=Counter, init=False)

    def url(self, public_url: URL | None, ref: str) -> URL:
        """Return the link under which the stages of *ref* can be watched.

        Raises:
            ConfigError: nobody can reach the receiver.
        """
        if public_url is None:
            raise ConfigError("a client without a public_url can be watched by nobody: give it one")
        path = f"{public_url.raw_path.rstrip('/')}/{SEGMENT}/{ref}/{signing.tag(self.secrets()[0], _NAME, ref)}"
        return public_url.with_path(path, encoded=True)

    async def admit(self, ref: str, token: str) -> Job | int:
        """Return the job that a link shows, or the status to answer: 404 for a link that is not ours, 503 if full."""
        if not signing.tag_matches(self.secrets(), _NAME, ref, token):
            return 404
        try:
            job = self.handle(await self.find(ref))
        except RequestError:
            return 404
        except AudioextError:
            return 503
        return 503 if self._is_full(ref) else job

    def _is_full(self, ref: str) -> bool:
        return self._watchers.total() >= MAX_WATCHERS or self._watchers[ref] >= MAX_OF_A_JOB

    async def events(self, job: Job) -> AsyncGenerator[bytes]:
        """Yield TEXT, FIRST and COMPLETE as they come, or `failed`; then `end`, after which nothing more will come."""
        if self._is_full(job.ref):  # by now: many were let through at once
            return
        self._watchers[job.ref] += 1
        stages = aiter(job)
        step = asyncio.ensure_future(anext(stages))
        try:
            while True:
                await asyncio.wait([step], timeout=STILL_SECONDS)
                if not step.done():
                    yield b": nothing new\n\n"
                    continue
                yield _event("stage", _stage(job, step.result()))
                step = asyncio.ensure_future(anext(stages))
        except StopAsyncIteration:
            yield _event("end", {})
        except JobFailedError as error:
            yield _event("failed", {"reason": str(error.reason), "message": job.failure.message if job.failure else ""})
            yield _event("end", {})
        except AudioextError:  # the wait has ended, not the job: a browser comes again by itself
            pass
        finally:
            self._watchers -= Counter((job.ref,))
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)


def _stage(job: Job, event: StageEvent) -> dict[str, object]:
    return {
        "stage": event.stage.name.lower(),
        "seconds": round((event.at - job.created_at).total_seconds(), 1),
        "tracks": [_track(track) for track in event.tracks],
    }


def _track(track: Track) -> dict[str, object]:
    return {name: value for name in _SHOWN if (value := getattr(track, name)) is not None}


def _event(name: str, value: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
