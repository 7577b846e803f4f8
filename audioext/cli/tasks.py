"""The commands that make or await a task: `extend`, `instrumental` and `wait`; then `save` and `credits`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated

from attrs import field, frozen
from cyclopts import Parameter

from audioext.cli import text
from audioext.cli.arguments import other_url, read_meta, read_source, real_provider
from audioext.cli.clients import OpenClient, api_url, find_job, job_options, looking_client, make_client, open_client
from audioext.cli.exits import Exit
from audioext.cli.options import (
    ApiOptions,
    BaseUrlOptions,
    Command,
    JobUrlOptions,
    LookOptions,
    Out,
    ProviderOption,
    Ref,
    SandboxOptions,
    SavingOptions,
    StoreOptions,
    SubmitOptions,
    given_fields,
    with_fields,
)
from audioext.cli.screen import Screen
from audioext.cli.steps import Finished, finish, open_view, report, save, show_submitted, submit, too_early
from audioext.errors import Problem, ProviderError, RequestError
from audioext.models.record import Verdict
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.runtime.jobs import Job
from audioext.ui.objects import state_of

PATIENCE_SECONDS = 0.3
_TRACK_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@frozen(kw_only=True, slots=False)
class TaskOptions(SubmitOptions, StoreOptions, ApiOptions, BaseUrlOptions, SandboxOptions):
    """What `extend` and `instrumental` have in common."""

    provider: ProviderOption = "kie"

    async def submit(self, screen: Screen, request: Request) -> Exit:
        """Submit *request*, watch it, save what comes of it, and report.

        Raises:
            AudioextError: whatever goes wrong.
        """
        meta = read_meta(self.meta)
        async with open_client(
            self.provider,
            base_url=self.base_url,
            api=self,
            sandbox=self,
            store=self.store_url,
            wait_timeout=self.timeout,
        ) as opened:
            screen.job = job_options(self, api=self, base_url=other_url(opened.provider), is_asked=True)
            with open_view(screen) as view:
                try:
                    job = await submit(opened, request, view, key=self.key, meta=meta)
                except asyncio.CancelledError:  # closing lets a POST have its answer
                    words = "the submit is given some seconds for its answer; Ctrl-C again leaves at once"
                    asyncio.get_running_loop().call_later(PATIENCE_SECONDS, screen.note, words)
                    raise
                screen.ref = job.ref
                finished = None if self.no_wait else await finish(opened, job, view, self)
            if finished is None:
                _leave(screen, job)
            else:
                report(screen, finished)
        return Exit.OK


@frozen(slots=False)
class _Extend(TaskOptions, Command):
    """`audioext extend`."""

    source: Annotated[str, Parameter(help="A file, a URL, or the id of a track.")]

    async def run(self, screen: Screen) -> Exit:
        """Extend it."""
        source = read_source(self.source, ids=True)
        try:
            return await self.submit(screen, Extend.draft(**given_fields(self, Extend), **source))
        except RequestError as error:
            if "audio_id" not in source or _TRACK_ID.fullmatch(self.source):
                raise
            doubt = Problem("source", f"no file is named {self.source!r}, so it was taken for a track's id")
            raise RequestError([doubt, *error.problems]) from error


@frozen(slots=False)
class _Instrumental(TaskOptions, Command):
    """`audioext instrumental`."""

    source: Annotated[str, Parameter(help="A file or a URL.")]

    async def run(self, screen: Screen) -> Exit:
        """Accompany it."""
        fields = given_fields(self, AddInstrumental)
        return await self.submit(screen, AddInstrumental.draft(**fields, **read_source(self.source, ids=False)))


ExtendCommand = with_fields(_Extend, Extend)
InstrumentalCommand = with_fields(_Instrumental, AddInstrumental)


@frozen(slots=False)
class WaitCommand(SavingOptions, StoreOptions, ApiOptions, JobUrlOptions, SandboxOptions, Command):
    """`audioext wait`."""

    ref: Ref

    async def run(self, screen: Screen) -> Exit:
        """Wait for a job of the store, whichever process submitted it, then save and report."""
        async with looking_client(self) as client:
            record = (await find_job(client, self, self.ref)).record
        screen.ref, base_url = record.ref, api_url(self.base_url, record)
        async with open_client(
            record.provider,
            base_url=base_url,
            api=self,
            sandbox=self,
            store=self.store_url,
            wait_timeout=self.timeout,
        ) as opened:
            screen.job = job_options(self, api=self, base_url=other_url(opened.provider))
            job = await opened.client.job(record.ref)
            with open_view(screen) as view:
                show_submitted(view, job)
                await _ask(opened, job, screen)
                finished = await finish(opened, job, view, self)
            report(screen, finished)
        return Exit.OK


@frozen(slots=False)
class SaveCommand(LookOptions, JobUrlOptions, Command):
    """`audioext save`."""

    ref: Ref
    out: Out = field(default=Path(), kw_only=True)

    async def run(self, screen: Screen) -> Exit:
        """Save the tracks of a job that is complete."""
        async with looking_client(self) as client:
            job = await find_job(client, self, self.ref)
        screen.ref, screen.job = job.ref, job_options(self)
        if job.verdict is Verdict.OPEN:
            raise too_early(job)
        if self.is_sandboxed:  # which has ended, and cannot be asked
            client = looking_client(self)
        else:  # the API can be asked for fresh links
            provider = real_provider(job.provider, api_url(self.base_url, job.record), ApiOptions())
            client = make_client(provider, store=self.store_url, public_url=None, listen=None)
            screen.job = job_options(self, base_url=other_url(provider))
        async with client:
            job = await client.job(job.ref)
            song = await job
            with open_view(screen) as view:
                paths = await save(song, self.out, view)
            report(screen, Finished(job=job, song=song, events=[event async for event in job], paths=paths))
        return Exit.OK


@frozen(kw_only=True, slots=False)
class CreditsCommand(SandboxOptions, BaseUrlOptions, Command):
    """`audioext credits`."""

    provider: ProviderOption = "kie"

    async def run(self, screen: Screen) -> Exit:
        """Print the balance in the provider's own credits."""
        async with open_client(
            self.provider, base_url=self.base_url, api=ApiOptions(), sandbox=self, store="memory://"
        ) as opened:
            balance = await opened.client.credits()
        if screen.json:
            screen.emit({"provider": self.provider, "credits": balance})
        else:
            screen.result(f"{balance:g}")
        return Exit.OK


async def _ask(opened: OpenClient, job: Job, screen: Screen) -> None:
    """Ask the provider once: the callback may have come to a receiver that is gone."""
    if job.verdict is Verdict.COMPLETE or job.task_id is None:
        return
    if not opened.has_key:
        screen.note(f"without {opened.key_variable} nobody can be asked; waiting for a listener on this store")
        return
    try:
        await job.refresh()
    except (ProviderError, RequestError) as error:
        screen.note(f"the status could not be asked for, waiting on: {text.clean(error)}")


def _leave(screen: Screen, job: Job) -> None:
    if screen.json:
        state = state_of(job.record)
        screen.emit({"ref": job.ref, "provider": job.provider, "task_id": job.task_id, "state": state})
    else:
        screen.result(job.ref)
        screen.note(f"come back to it: {screen.job.command('wait', job.ref)}")
