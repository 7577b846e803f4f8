"""The commands that make or await a task: `extend`, `instrumental` and `wait`; then `save` and `credits`."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Annotated, ClassVar

import attrs
from attrs import field, frozen

from audioext.cli import text
from audioext.cli.clients import (
    OpenClient,
    api_url,
    find_job,
    looking_client,
    open_client,
    read_meta,
    read_source,
    real_provider,
)
from audioext.cli.options import (
    JOB,
    SOURCE_NAMES,
    AllowHosts,
    BaseUrl,
    Command,
    ConnectOptions,
    JobUrl,
    LookOptions,
    Meta,
    Out,
    Provided,
    Ref,
    SandboxOptions,
    SavingOptions,
    StoreOptions,
    with_fields,
)
from audioext.cli.screen import Screen
from audioext.cli.steps import Finished, finish, open_view, report, save, show_submitted, submit, too_early
from audioext.errors import Problem, ProviderError, RequestError
from audioext.models.record import Verdict
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.providers.base import Provider
from audioext.runtime.jobs import Job
from audioext.ui.objects import state_of

PATIENCE_SECONDS = 0.3
_TRACK_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@frozen(slots=False)
class _Submits(SavingOptions, Command):
    """What `extend` and `instrumental` have in common; `with_fields` adds SOURCE and the fields of their request."""

    source: ClassVar[str]
    request: ClassVar[type[Request]]
    meta: Meta = field(default=(), kw_only=True)
    provider: Provided = field(default="kie", kw_only=True)
    base_url: BaseUrl = field(default=None, kw_only=True)
    key: Annotated[str | None, JOB] = field(default=None, kw_only=True)
    """A name for this submit: the same key gives the same job, never a second task."""
    no_wait: Annotated[bool, JOB] = field(default=False, kw_only=True)
    """Submit, print the ref, and leave it to `listen` or `wait`."""

    async def run(self, screen: Screen) -> None:
        """Submit the request, watch it, save what comes of it, and report."""
        source = read_source(self.source, ids=self.request is Extend)
        names = {each.name for each in attrs.fields(self.request)} - SOURCE_NAMES - {"provider"}
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        try:
            await self._submit(screen, self.request.draft(**given, **source))
        except RequestError as error:
            if "audio_id" not in source or _TRACK_ID.fullmatch(self.source):
                raise
            doubt = Problem("source", f"no file is named {self.source!r}, so it was taken for a track's id")
            raise RequestError([doubt, *error.problems]) from error

    async def _submit(self, screen: Screen, request: Request) -> None:
        meta = read_meta(self.meta)
        async with open_client(self, self.provider, screen, base_url=self.base_url) as opened:
            screen.is_asked = True
            with open_view(screen) as view:
                try:
                    job = await submit(opened, request, view, key=self.key, meta=meta)
                except asyncio.CancelledError:  # closing lets a POST have its answer
                    words = "the submit is given some seconds for its answer; Ctrl-C again leaves at once"
                    asyncio.get_running_loop().call_later(PATIENCE_SECONDS, screen.note, words)
                    raise
                screen.ref = job.ref
                finished = None if self.no_wait else await finish(opened, job, view, out=self.folder)
            if finished is not None:
                report(screen, finished)
                return
            state = state_of(job.record)
            facts = {"ref": job.ref, "provider": job.provider, "task_id": job.task_id, "state": state}
            screen.result(job.ref, json=facts)
            if not screen.json:
                screen.note(f"come back to it: {screen.hint('wait', of=job.ref)}")


class _Extend(_Submits):
    """`audioext extend`."""

    request = Extend


class _Instrumental(_Submits):
    """`audioext instrumental`."""

    request = AddInstrumental


ExtendCommand = with_fields(_Extend, Extend, "A file, a URL, or the id of a track.")
InstrumentalCommand = with_fields(_Instrumental, AddInstrumental, "A file or a URL.")


@frozen(slots=False)
class WaitCommand(SavingOptions, Command):
    """`audioext wait`."""

    ref: Ref
    base_url: JobUrl = field(default=None, kw_only=True)

    async def run(self, screen: Screen) -> None:
        """Wait for a job of the store, whichever process submitted it, then save and report."""
        record = (await _find(self, screen, self.ref)).record
        async with open_client(self, record.provider, screen, base_url=api_url(self.base_url, record)) as opened:
            job = await opened.client.job(record.ref)
            with open_view(screen) as view:
                show_submitted(view, job)
                await _ask(opened, job, screen)
                finished = await finish(opened, job, view, out=self.folder)
            report(screen, finished)


@frozen(slots=False)
class SaveCommand(LookOptions, Command):
    """`audioext save`."""

    ref: Ref
    allow_hosts: AllowHosts = field(default=(), kw_only=True)
    out: Out = field(default=Path(), kw_only=True)
    base_url: JobUrl = field(default=None, kw_only=True)

    async def run(self, screen: Screen) -> None:
        """Save the tracks of a job that is complete."""
        job = await _find(self, screen, self.ref)
        if job.verdict is Verdict.OPEN:
            raise too_early(job)
        asked: list[Provider] = []
        if not self.is_sandboxed:  # a sandbox has ended, an API can be asked for fresh links
            asked.append(real_provider(job.provider, api_url(self.base_url, job.record), screen))
        async with looking_client(self, *asked, allow_hosts=self.allow_hosts) as client:
            job = await client.job(job.ref)
            song = await job
            with open_view(screen) as view:
                paths = await save(song, self.out, view)
            report(screen, Finished(job=job, song=song, events=[event async for event in job], paths=paths))


@frozen(kw_only=True, slots=False)
class CreditsCommand(SandboxOptions, Command):
    """`audioext credits`."""

    provider: Provided = "kie"
    base_url: BaseUrl = None

    async def run(self, screen: Screen) -> None:
        """Print the balance in the provider's own credits."""
        options = ConnectOptions(sandbox=self.sandbox, speed=self.speed, fault=self.fault, store="memory://")
        async with open_client(options, self.provider, screen, base_url=self.base_url) as opened:
            balance = await opened.client.credits()
        screen.result(f"{balance:g}", json={"provider": self.provider, "credits": balance})


async def _find(options: StoreOptions, screen: Screen, ref: str) -> Job:
    """Find a job before a client is made for its provider."""
    async with looking_client(options) as client:
        job = await find_job(client, screen, ref)
    screen.ref = job.ref
    return job


async def _ask(opened: OpenClient, job: Job, screen: Screen) -> None:
    """Ask the provider once: the callback may have come to a receiver that is gone."""
    if job.verdict is Verdict.COMPLETE or job.task_id is None:
        return
    info = opened.provider.info
    if not (info.has_key or os.environ.get(info.key_variable, "").strip()):
        screen.note(f"without {info.key_variable} nobody can be asked; waiting for a listener on this store")
        return
    try:
        await job.refresh()
    except (ProviderError, RequestError) as error:
        screen.note(f"the status could not be asked for, waiting on: {text.clean(error)}")
