"""The commands as they are typed: names, arguments and help texts; what they do is in the modules beside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.text import Text

from audioext.cli.exits import Exit, epilogue
from audioext.cli.options import (
    API_GROUP,
    JOB_GROUP,
    OUTPUT_GROUP,
    SANDBOX_GROUP,
    SANDBOX_SPEED,
    ApiOptions,
    ExtendFields,
    HookOptions,
    InstrumentalFields,
    OutputOptions,
    ProviderName,
    SandboxOptions,
    SavingOptions,
    StoreOptions,
    TaskOptions,
    flag,
    option,
    read_source,
)
from audioext.cli.text import dump
from audioext.requests import AddInstrumental, Extend
from audioext.version import __version__

DEMO_SPEED = 30.0
"""Two minutes become four seconds: quick, and slow enough to see the stages arrive one by one."""

# What cyclopts shows as defaults; frozen, so that one of each is enough.
_OUTPUT, _STORE, _API, _HOOKS = OutputOptions(), StoreOptions(), ApiOptions(), HookOptions()
_SANDBOX, _TASK, _SAVING = SandboxOptions(), TaskOptions(), SavingOptions()
_EXTEND, _INSTRUMENTAL = ExtendFields(), InstrumentalFields()

_Provider = Annotated[ProviderName, option("The API to use.", API_GROUP, default=True)]
_Out = Annotated[Path, option("The folder for the files.", JOB_GROUP, default=True)]
_Limit = Annotated[int, option("How many to list, the newest ones.", OUTPUT_GROUP, default=True)]

app = App(
    name="audioext",
    version=__version__,
    help=(
        "Extend music, or give a voice an accompaniment, at a hosted API: submitted once, awaited by webhook or"
        " poll, never lost.\n\nBegin with `audioext demo`: it shows the whole trip on this machine, without paying."
    ),
    help_epilogue=epilogue(),
    help_format="markdown",
    result_action="return_value",
)


def run(arguments: Sequence[str]) -> int:
    """Run the command in *arguments* and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A title with a letter that the terminal's encoding lacks must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _misused(str(error), in_json="--json" in arguments)
    return int(code or Exit.OK)


def _misused(message: str, *, in_json: bool) -> int:
    if in_json:
        facts = {"type": "UsageError", "message": message, "exit_code": int(Exit.USAGE)}
        print(dump({"error": facts}), flush=True)  # noqa: T201 - no console: it would wrap
    else:
        console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        console.print(Text("audioext: ", style="bold red") + Text(message))
        console.print(Text("  audioext --help, or audioext COMMAND --help, says what there is"))
    return int(Exit.USAGE)


# --- the main job ----------------------------------------------------------------------------------------


@app.command
def demo(
    file: Path | None = None,
    /,
    *,
    provider: _Provider = "kie",
    out: _Out = Path("audioext-demo"),
    speed: Annotated[
        float, option("How many times faster than the real APIs the sandbox is.", SANDBOX_GROUP, default=True)
    ] = DEMO_SPEED,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Extend a tune, or a file of yours, on a sandbox: see text, first and complete arrive by webhook.

    Nothing leaves this machine and nothing is charged. Two playable files are saved, and compared with the source.

    Parameters
    ----------
    file
        A WAV, FLAC, OGG or MP3 of yours; without one a tune is made.
    """
    from audioext.cli.demo import DemoCommand  # noqa: PLC0415 - commands load what they need
    from audioext.cli.session import execute  # noqa: PLC0415

    command = DemoCommand(file=file, provider=provider, out=out, sandbox=SandboxOptions(sandbox=True, speed=speed))
    return execute(output, command.run)


@app.command
def extend(  # noqa: PLR0913 - options, all by keyword
    source: str,
    /,
    *,
    fields: ExtendFields = _EXTEND,
    provider: _Provider = "kie",
    task: TaskOptions = _TASK,
    store: StoreOptions = _STORE,
    api: ApiOptions = _API,
    sandbox: SandboxOptions = _SANDBOX,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Continue a piece of music, wait for it, and save the takes.

    Parameters
    ----------
    source
        A file, a URL, or the id of a track that the provider made. An existing file is a file; text that begins
        with http://, https:// or s3:// is a URL; text with a slash or an audio file's suffix is a file that is not
        there; anything else is an id.
    """
    request = Extend.draft(**fields.given(), **read_source(source, ids=True))
    return _run_task(request, provider, task, store, api, sandbox, output)


@app.command
def instrumental(  # noqa: PLR0913 - as above
    source: str,
    /,
    *,
    fields: InstrumentalFields = _INSTRUMENTAL,
    provider: _Provider = "kie",
    task: TaskOptions = _TASK,
    store: StoreOptions = _STORE,
    api: ApiOptions = _API,
    sandbox: SandboxOptions = _SANDBOX,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Give a voice or a melody an accompaniment; --title, --tags and --negative-tags are required.

    Parameters
    ----------
    source
        A file or a URL: text that begins with http://, https:// or s3:// is a URL, all else a file.
    """
    request = AddInstrumental.draft(**fields.given(), **read_source(source, ids=False))
    return _run_task(request, provider, task, store, api, sandbox, output)


def _run_task(  # noqa: PLR0913 - what two commands share
    request: Extend | AddInstrumental,
    provider: str,
    task: TaskOptions,
    store: StoreOptions,
    api: ApiOptions,
    sandbox: SandboxOptions,
    output: OutputOptions,
) -> int:
    from audioext.cli.session import execute  # noqa: PLC0415
    from audioext.cli.tasks import TaskCommand  # noqa: PLC0415

    command = TaskCommand(request=request, provider=provider, task=task, store=store, api=api, sandbox=sandbox)
    return execute(output, command.run)


@app.command
def wait(  # noqa: PLR0913 - as above
    ref: str,
    /,
    *,
    saving: SavingOptions = _SAVING,
    store: StoreOptions = _STORE,
    api: ApiOptions = _API,
    sandbox: SandboxOptions = _SANDBOX,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Come back to a job that an earlier command left, wait for it, and save the takes.

    Parameters
    ----------
    ref
        The job's ref, as `extend` and `jobs` print it.
    """
    from audioext.cli.session import execute  # noqa: PLC0415
    from audioext.cli.tasks import WaitCommand  # noqa: PLC0415

    command = WaitCommand(ref=ref, saving=saving, store=store, api=api, sandbox=sandbox)
    return execute(output, command.run)


# --- looking at what there is ----------------------------------------------------------------------------


@app.command
def show(ref: str, /, *, store: StoreOptions = _STORE, sandbox: Annotated[bool, flag("Look at the jobs of --sandbox.", JOB_GROUP)] = False, output: OutputOptions = _OUTPUT) -> int:
    """Show a job: its state, its request, its timeline, its tracks, its deliveries, and what went wrong.

    Parameters
    ----------
    ref
        The job's ref.
    """
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    return execute(output, lambda screen: commands.show_job(screen, store, ref))
