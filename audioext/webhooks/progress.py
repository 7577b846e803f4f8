"""One job's stages as server-sent events, under a link that a web app can give to its users."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec
from attrs import define, field
from yarl import URL

from audioext.errors import AudioextError, ConfigError, RequestError
from audioext.http import signing
from audioext.runtime.held import HeldJob
from audioext.runtime.jobs import Job, JobFailedError, StageEvent

SEGMENT = "progress"
_NAME = "progress:"
"""The provider in the tag of a progress link. No provider can have this name, so no callback tag opens a link."""
MAX_WATCHERS = 128
"""Watchers at a time: a quarter of our own server's connections, since webhooks need some as well."""
MAX_WATCHERS_PER_JOB = 32
"""Watchers of one job at a time, so that one link cannot use up all of `MAX_WATCHERS`."""
KEEPALIVE_SECONDS = 15.0
"""Interval of keep-alive comments while nothing is new, so that no proxy drops the connection as idle."""
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would buffer the events
    "Access-Control-Allow-Origin": "*",  # the page may be of another origin, and the link itself is the proof
    "X-Content-Type-Options": "nosniff",
}
_SHOWN = ("title", "audio_url", "stream_url", "image_url", "duration")


@define(kw_only=True, eq=False, repr=False)
class Watching:
    """Streams the stages of a job to anyone with its link; the request, `meta` and the provider's ids are left out."""

    find: Callable[[str], Awaitable[HeldJob]]
    handle: Callable[[HeldJob], Job]
    secrets: Callable[[], Sequence[bytes]]
    _watchers: Counter[str] = field(factory=Counter, init=False)
    _overs: set[asyncio.Future[None]] = field(factory=set, init=False)

    def url(self, public_url: URL | None, ref: str) -> URL:
        """Return the link under which the stages of *ref* can be watched.

        Raises:
            ConfigError: the client has no `public_url`.
        """
        if public_url is None:
            raise ConfigError("jobs can only be watched with a `public_url=`: give the client one")
        path = f"{public_url.raw_path.rstrip('/')}/{SEGMENT}/{ref}/{signing.tag(self.secrets()[0], _NAME, ref)}"
        return public_url.with_path(path, encoded=True)

    async def admit(self, ref: str, token: str) -> Job | int:
        """Return the job of a link, or a status: 404 if it is not ours, 503 for a store outage or too many watchers."""
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
        return self._watchers.total() >= MAX_WATCHERS or self._watchers[ref] >= MAX_WATCHERS_PER_JOB

    async def end(self, *_: object) -> None:
        """End all streams, for a server that stops: it would wait for them. Browsers reconnect by themselves."""
        for over in self._overs:
            if not over.done():
                over.set_result(None)

    async def events(self, job: Job) -> AsyncGenerator[bytes]:
        """Yield a `stage` event for each stage of *job*, or `failed`; then `end`, after which nothing follows."""
        if self._is_full(job.ref):  # `admit` may have let many through at once
            return
        self._watchers[job.ref] += 1
        stages = aiter(job)
        step = asyncio.ensure_future(anext(stages))
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._overs.add(over)
        try:
            while True:
                either: list[asyncio.Future[StageEvent] | asyncio.Future[None]] = [step, over]
                await asyncio.wait(either, timeout=KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    return
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
        except AudioextError:  # if only the wait has ended, not the job, a browser reconnects by itself
            if job.record.is_final:  # it expired, or its submit was refused
                yield _event("failed", {"reason": "unknown", "message": f"the job is {job.verdict}"})
                yield _event("end", {})
        finally:
            self._watchers -= Counter((job.ref,))
            self._overs.discard(over)
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)


def _stage(job: Job, event: StageEvent) -> dict[str, object]:
    shown = [{name: value for name in _SHOWN if (value := getattr(track, name)) is not None} for track in event.tracks]
    seconds = round((event.at - job.created_at).total_seconds(), 1)
    return {"stage": str(event.stage), "seconds": seconds, "tracks": shown}


def _event(name: str, value: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
