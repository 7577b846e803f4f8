"""The commands that make or await a task: `extend`, `instrumental` and `wait`; then `save` and `credits`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter

from audioext.cli import text
from audioext.cli.arguments import read_meta, read_source
from audioext.cli.clients import (
    OpenClient,
    existing_store,
    find_job,
    job_options,
    looking_client,
    open_client,
    store_url,
)
from audioext.cli.exits import Exit
from audioext.cli.options import (
    ApiOptions,
    BaseUrlOptions,
    Command,
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
from audioext.cli.progress import open_view, show_submitted
from audioext.cli.records import state_of
from audioext.cli.screen import Screen
from audioext.cli.steps import Finished, finish, report, save, submit
from audioext.client import Client
from audioext.errors import Problem, ProviderError, RequestError
from audioext.models.record import Verdict
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.runtime.jobs import Job, StageTimeoutError


@frozen(kw_only=True, slots=False)
class TaskOptions(SubmitOptions, StoreOptions, ApiOptions, SandboxOptions):
    """What `extend` and `instrumental` have in common."""

    provider: ProviderOption = "kie"

    async def submit(self, screen: Screen, request: Request) -> Exit:
        """Submit *request*, watch it, save what comes of it, and report.

        Raises:
            AudioextError: whatever goes wrong.
        """
        meta, store = read_meta(self.meta), store_url(self, sandbox=self.sandbox)
        screen.job = job_options(self, sandbox=self.sandbox, api=self)
        async with open_client(self.provider, api=self, sandbox=self, store=store, wait_timeout=self.timeout) as opened:
            with open_view(screen) as view:
                with opened.explained_key():
                    job = await submit(opened.client, request, view, key=self.key, meta=meta)
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
            if "audio_id" not in source:
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
class WaitCommand(SavingOptions, StoreOptions, ApiOptions, SandboxOptions, Command):
    """`audioext wait`."""

    ref: Ref

    async def run(self, screen: Screen) -> Exit:
        """Wait for a job of the store, whichever process submitted it, then save and report."""
        async with Client(store=existing_store(self, sandbox=self.sandbox)) as client:
            found = await find_job(client, self.ref)
        screen.ref = found.ref
        screen.job = job_options(self, sandbox=self.sandbox, api=self)
        store = store_url(self, sandbox=self.sandbox)
        async with open_client(
            found.provider, api=self, sandbox=self, store=store, wait_timeout=self.timeout
        ) as opened:
            job = await opened.client.job(found.ref)
            with open_view(screen) as view:
                show_submitted(view, job)
                await _ask(opened, job, screen)
                finished = await finish(opened, job, view, self)
            report(screen, finished)
        return Exit.OK


@frozen(slots=False)
class SaveCommand(LookOptions, Command):
    """`audioext save`."""

    ref: Ref
    out: Out = Path()

    async def run(self, screen: Screen) -> Exit:
        """Save the tracks of a job that is complete."""
        screen.job = job_options(self, sandbox=self.sandbox)
        async with looking_client(self) as client:
            job = await find_job(client, self.ref)
            screen.ref = job.ref
            if job.verdict is Verdict.OPEN:
                message = f"job {job.ref} is not complete: it is at {state_of(job.record)}"
                raise StageTimeoutError(message, job=job)
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
        api = ApiOptions(base_url=self.base_url)
        async with open_client(self.provider, api=api, sandbox=self, store="memory://", wait_timeout=1.0) as opened:
            with opened.explained_key():
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
