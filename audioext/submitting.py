"""The half of a client that submits: what is asked for is made one order, with all that is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Unpack

import msgspec

from audioext.errors import Problem, RequestError, cut, shown
from audioext.files.sources import fingerprint
from audioext.http.transport import Progress
from audioext.models import checks
from audioext.models.requests import AddInstrumental, Extend, ExtendOptions, InstrumentalOptions, Meta, Request
from audioext.models.results import Song
from audioext.parts import Parts
from audioext.providers.base import Provider
from audioext.runtime.handlers import HANDLING
from audioext.runtime.jobs import Job
from audioext.runtime.orders import Order

MAX_KEY_LENGTH = 512
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
        order, found = await self._order(
            request, provider=provider, fallback=fallback, key=key, meta=meta, progress=progress
        )
        return await self._parts.submitter.submit(order, found)

    async def extend(
        self,
        *,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: Progress | None = None,
        **options: Unpack[ExtendOptions],
    ) -> Job:
        """Submit an `Extend` of these fields; see there for the fields and `submit` for the rest."""
        return await self.submit(Extend.draft(**options), fallback=fallback, key=key, meta=meta, progress=progress)

    async def add_instrumental(
        self,
        *,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: Progress | None = None,
        **options: Unpack[InstrumentalOptions],
    ) -> Job:
        """Submit an `AddInstrumental` of these fields; see there for the fields and `submit` for the rest."""
        request = AddInstrumental.draft(**options)
        return await self.submit(request, fallback=fallback, key=key, meta=meta, progress=progress)

    async def run(  # noqa: PLR0913 - submit's keywords and one more
        self,
        request: Request,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the wait is ended, never the job
        provider: str | None = None,
        fallback: Sequence[str] = (),
        key: str | None = None,
        meta: Meta | None = None,
        progress: Progress | None = None,
    ) -> Song:
        """Submit *request* and await its song for at most *timeout* seconds after the submit.

        Without a *timeout* it is 900 s, or the client's `wait_timeout` where that is shorter.

        Raises:
            AudioextError: whatever `submit` or `Job.result` raises.
        """
        seconds = min(RUN_SECONDS, self._parts.settings.wait_timeout) if timeout is None else timeout
        complaint = checks.seconds(seconds)
        problems = [] if complaint is None else [Problem("timeout", complaint)]
        order, found = await self._order(
            request, provider=provider, fallback=fallback, key=key, meta=meta, progress=progress, problems=problems
        )
        job = await self._parts.submitter.submit(order, found)
        return await job.result(timeout=seconds)

    async def _order(  # noqa: PLR0913 - as above
        self,
        request: Request,
        *,
        provider: str | None,
        fallback: Sequence[str],
        key: str | None,
        meta: Meta | None,
        progress: Progress | None,
        problems: Sequence[Problem] = (),
    ) -> tuple[Order, list[Problem]]:
        """Return the order of a submit, and what is wrong with it as far as no provider has to be asked."""
        parts = self._parts
        parts.check_open()
        if not isinstance(request, (Extend, AddInstrumental)):
            wanted = "must be a request, like Extend(...) or AddInstrumental(...)"
            raise RequestError([*problems, Problem("request", f"{wanted}, not {shown(request)}")])
        chosen = parts.choose(provider or request.provider)
        found, noted, content = [*problems], {}, None
        others: tuple[Provider, ...] = ()
        names = (fallback,) if isinstance(fallback, str) else fallback
        if names:
            others = tuple(other for name in dict.fromkeys(names) if (other := parts.choose(name)) is not chosen)
            bound = [name for name in ("audio_id", "persona_id") if others and name in request.given()]
            because = "which its own provider alone knows"
            found += [Problem("fallback", f"cannot go on with {name}, {because}") for name in bound]
        if request.file is not None:
            request, wrong = await parts.submitter.sources.look(request)
            found += wrong
        if key is None and (handling := HANDLING.get()) is not None:
            key = await handling.key(chosen.info.name, request)
        if key is not None or meta is not None:
            noted = _check_notes(key, meta if meta is not None else {}, found)
        if key is not None and request.path is not None:
            with suppress(OSError, ValueError):  # then it is refused, with all that is wrong
                content = await asyncio.to_thread(fingerprint, request.path)
        order = Order(
            request=request,
            provider=chosen,
            fallback=others,
            key=key,
            meta=noted,
            progress=progress,
            content=content,
        )
        return order, found


def _check_notes(key: str | None, meta: Meta, found: list[Problem]) -> dict[str, object]:
    """Return *meta* as it comes back from a store, plain JSON; add to *found* what is wrong with it or with *key*."""
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH):
        found.append(Problem("key", f"must be text of 1 to {MAX_KEY_LENGTH} characters"))
    elif key is not None and checks.LONE_SURROGATE.search(key):
        found.append(Problem("key", "holds half of a surrogate pair, which no store can keep"))
    try:
        body = msgspec.json.encode(dict(meta) if isinstance(meta, Mapping) else meta)
        return msgspec.json.decode(body, type=dict[str, object])
    except (TypeError, ValueError, RecursionError) as error:
        found.append(Problem("meta", f"must be a dict of JSON values, or become one: {cut(str(error))}"))
    return {}
