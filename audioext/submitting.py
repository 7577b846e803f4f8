"""The submitting half of the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never, Unpack

from audioext.errors import Problem
from audioext.http.transport import UploadProgress
from audioext.models import checks
from audioext.models.requests import AddInstrumental, Extend, ExtendOptions, InstrumentalOptions, Meta, Request
from audioext.models.results import Song
from audioext.parts import Parts
from audioext.runtime.jobs import Job
from audioext.runtime.orders import SubmitOptions
from audioext.runtime.submitter import Submitter

RUN_SECONDS = 900.0
"""How long `run` waits by default."""


class Submitting:
    """`submit`, its two short forms, and `run`."""

    _parts: Parts

    async def submit(  # noqa: PLR0913 - one keyword for each option of a submit
        self,
        request: Request,
        *,
        provider: str | None = None,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: UploadProgress | None = None,
        permit_timeout: float | None = None,
    ) -> Job:
        """Send *request* and return its job once the provider has answered, or certainly will not answer.

        *provider* picks one of several by name. If it certainly made no task (it refused, or could not be reached), the
        providers named in *fallback* are tried in order, each under a ref of its own; this needs a URL or a file as the
        source, and every one of them must accept the request. With the *key* of an earlier submit, that job is returned
        and nothing is sent. *meta* is your own JSON, or a dataclass, attrs or msgspec.Struct object, and comes back
        with every event. `progress(bytes_so_far, bytes_in_all)` is called during an upload. *permit_timeout* (seconds)
        bounds this submit's wait for its turn, by default as the client's setting of that name says. Cancelling this
        call does not cancel the submit. In a handler, the submit gets a key by itself, so that a retried handler gets
        the job that it submitted before.

        Raises:
            RequestError: the request is invalid; it lists every problem, and nothing was sent.
            KeyConflictError: *key* already has a job, with another request; nothing was sent.
            UnsupportedError: the provider has no such operation; nothing was sent.
            ConfigError: no such provider, no API key, or the client is not open; nothing was sent.
            ProviderError: the provider, or the last one in *fallback*, refused the submit or could not be reached,
                which cost nothing; RateLimitError if the account's limits had no room in time.
            SubmitUnknownError: the client was closed before the POST was answered; the job may still complete.
            StoreError: the job could not be stored; nothing was sent.
        """
        return await self._submitter().submit(
            request,
            provider=provider,
            fallback=fallback,
            key=key,
            meta=meta,
            progress=progress,
            permit_timeout=permit_timeout,
        )

    async def extend(
        self,
        *unnamed: Never,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: UploadProgress | None = None,
        permit_timeout: float | None = None,
        **options: Unpack[ExtendOptions],
    ) -> Job:
        """Submit an `Extend` with these fields, by keyword only; see `Extend` for them and `submit` for the rest."""
        checks.refuse_unnamed("extend", unnamed, Extend.SOURCES)
        request = Extend.draft(**options)
        return await self.submit(
            request, fallback=fallback, key=key, meta=meta, progress=progress, permit_timeout=permit_timeout
        )

    async def add_instrumental(
        self,
        *unnamed: Never,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: UploadProgress | None = None,
        permit_timeout: float | None = None,
        **options: Unpack[InstrumentalOptions],
    ) -> Job:
        """Submit an `AddInstrumental` with these fields; see `AddInstrumental` for them and `submit` for the rest."""
        checks.refuse_unnamed("add_instrumental", unnamed, AddInstrumental.SOURCES)
        request = AddInstrumental.draft(**options)
        return await self.submit(
            request, fallback=fallback, key=key, meta=meta, progress=progress, permit_timeout=permit_timeout
        )

    async def run(
        self,
        request: Request,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the wait, never the job
        **options: Unpack[SubmitOptions],
    ) -> Song:
        """Submit *request* with the keywords of `submit`, then wait at most *timeout* seconds for its song.

        The default *timeout* is 900 s, or the client's `wait_timeout` if that is shorter.

        Raises:
            AudioextError: whatever `submit` or `Job.result` raises.
        """
        seconds = min(RUN_SECONDS, self._parts.settings.wait_timeout) if timeout is None else timeout
        complaint = checks.seconds(seconds)
        problems = [] if complaint is None else [Problem("timeout", complaint)]
        checks.refuse_unknown("run", "keyword", options, SubmitOptions.__annotations__)
        job = await self._submitter().submit(request, problems, **options)
        return await job.result(timeout=seconds)

    def _submitter(self) -> Submitter:
        """Return the submitter, or raise ConfigError if the client is not open."""
        self._parts.check_open()
        return self._parts.submitter
