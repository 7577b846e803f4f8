"""The half of a client that submits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never, Unpack

from audioext import providers
from audioext.errors import ConfigError, Problem
from audioext.http.transport import Progress
from audioext.models import checks
from audioext.models.requests import AddInstrumental, Extend, ExtendOptions, InstrumentalOptions, Meta, Request
from audioext.models.results import Song
from audioext.parts import Parts
from audioext.runtime.jobs import Job
from audioext.runtime.orders import SubmitOptions
from audioext.runtime.submitter import Submitter

RUN_SECONDS = 900.0
"""How long `run` waits where nobody says how long."""


class Submitting:
    """`submit`, its two short forms, and `run`."""

    _parts: Parts

    async def submit(  # noqa: PLR0913 - one keyword for each thing that can be said of a submit
        self,
        request: Request,
        *,
        provider: str | None = None,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: Progress | None = None,
    ) -> Job:
        """Send *request* and return its job, as soon as the provider answered or its silence is certain.

        *provider* picks one of several by name. Where it certainly made no task (it refused, or could not be reached),
        those named in *fallback* are asked next, in that order, each under a ref of its own; the source has to be a
        URL or a file, and all of them have to be able to take the request. With a *key* that an earlier submit had,
        that job is returned and nothing is sent. *meta* is JSON of yours, or an object of a dataclass, an attrs class
        or a msgspec.Struct, that comes back with every event. `progress(bytes_so_far, bytes_in_all)` is called while a
        file is uploaded. Cancelling this call does not cancel the submit. Within a handler a key is made for it, so
        that its next call gets the job that it submitted before.

        Raises:
            RequestError: all that is wrong with the request, at once; nothing was sent.
            KeyConflictError: *key* has a job already, which was for another request; nothing was sent.
            UnsupportedError: the provider has no such operation; nothing was sent.
            ConfigError: no such provider, no API key, or the client is not open; nothing was sent.
            ProviderError: the provider refused, which cost nothing; with *fallback* the last one did.
            StoreError: the job could not be stored; nothing was sent.
        """
        return await self._submitter().submit(
            request, provider=provider, fallback=fallback, key=key, meta=meta, progress=progress
        )

    async def extend(
        self,
        *unnamed: Never,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: Progress | None = None,
        **options: Unpack[ExtendOptions],
    ) -> Job:
        """Submit an `Extend` of these fields; see there for the fields and `submit` for the rest. All go by name."""
        checks.refuse_unnamed("extend", unnamed, Extend.SOURCES)
        return await self.submit(Extend.draft(**options), fallback=fallback, key=key, meta=meta, progress=progress)

    async def add_instrumental(
        self,
        *unnamed: Never,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: Progress | None = None,
        **options: Unpack[InstrumentalOptions],
    ) -> Job:
        """Submit an `AddInstrumental` of these fields; see there for the fields and `submit` for the rest."""
        checks.refuse_unnamed("add_instrumental", unnamed, AddInstrumental.SOURCES)
        request = AddInstrumental.draft(**options)
        return await self.submit(request, fallback=fallback, key=key, meta=meta, progress=progress)

    async def run(
        self,
        request: Request,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the wait is ended, never the job
        **options: Unpack[SubmitOptions],
    ) -> Song:
        """Submit *request*, with the keywords of `submit`, and await its song for at most *timeout* seconds after it.

        Without a *timeout* it is 900 s, or the client's `wait_timeout` where that is shorter.

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
        """Return what submits, or raise ConfigError: the client is not open, or has no provider."""
        self._parts.check_open()
        if not self._parts.settings.providers:
            keys = dict.fromkeys(providers.load(name)().info.key_variable for name in providers.NAMES)
            advice = f"pass one, like Client(Kie()), or set its key for from_env(): {', '.join(keys)}"
            raise ConfigError(f"this client has no provider: {advice}")
        return self._parts.submitter
