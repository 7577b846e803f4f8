"""The commands as they are typed: names, arguments and help texts; what they do is in the modules beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group

from audioext.cli.exits import epilogue
from audioext.cli.options import (
    API_GROUP,
    JOB_GROUP,
    OUTPUT_GROUP,
    SANDBOX_GROUP,
    SANDBOX_SPEED,
    ApiOptions,
    BaseUrl,
    ExtendFields,
    Fault,
    HookOptions,
    InstrumentalFields,
    LookOptions,
    MetaPairs,
    OutputOptions,
    ProviderName,
    SandboxOptions,
    SavingOptions,
    Speed,
    StoreOptions,
    TaskOptions,
    WebhookKey,
    flag,
    option,
    read_source,
)
from audioext.models.requests import AddInstrumental, Extend
from audioext.version import __version__

DEMO_SPEED = 40.0
"""Two minutes become three seconds: quick, and slow enough to see the stages arrive one by one."""

# What cyclopts shows as defaults; frozen, so that one of each is enough.
_OUTPUT, _STORE, _LOOK, _API, _HOOKS = (
    OutputOptions(),
    StoreOptions(),
    LookOptions(),
    ApiOptions(),
    HookOptions(),
)
_SANDBOX, _TASK, _SAVING = SandboxOptions(), TaskOptions(), SavingOptions()
_EXTEND, _INSTRUMENTAL = ExtendFields(), InstrumentalFields()

_Provider = Annotated[ProviderName, option("The API to use.", API_GROUP, default=True)]
_Out = Annotated[Path, option("The folder for the files.", JOB_GROUP, default=True)]
_Limit = Annotated[int, option("How many to list, the newest ones.", OUTPUT_GROUP, default=True)]

_BEGIN = Group("Begin", sort_key=1)
_TASKS = Group("Tasks", sort_key=2)
_LOOKING = Group("What there is", sort_key=3)
_SERVERS = Group("Servers", sort_key=4)

app = App(
    name="audioext",
    version=__version__,
    help=(
        "Extend music, or give a voice an accompaniment, at a hosted API: submitted once, awaited by webhook or"
        " poll, never lost.\n\nBegin with `audioext demo`: it shows the whole trip on this machine, without paying."
    ),
    help_epilogue=epilogue(),
    help_format="markdown",
    group_commands=Group("Help", sort_key=5),
    result_action="return_value",
)


# --- the main job ----------------------------------------------------------------------------------------


@app.command(group=_BEGIN, sort_key=0)
def demo(
    file: Path | None = None,
    /,
    *,
    provider: _Provider = "kie",
    out: _Out = Path("audioext-demo"),
    speed: Speed = DEMO_SPEED,
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


@app.command(group=_TASKS, sort_key=1)
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
    from audioext.cli.session import execute  # noqa: PLC0415
    from audioext.cli.tasks import TaskCommand  # noqa: PLC0415

    request = Extend.draft(**fields.given(), **read_source(source, ids=True))
    command = TaskCommand(request=request, provider=provider, task=task, store=store, api=api, sandbox=sandbox)
    return execute(output, command.run)


@app.command(group=_TASKS, sort_key=2)
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
    from audioext.cli.session import execute  # noqa: PLC0415
    from audioext.cli.tasks import TaskCommand  # noqa: PLC0415

    request = AddInstrumental.draft(**fields.given(), **read_source(source, ids=False))
    command = TaskCommand(request=request, provider=provider, task=task, store=store, api=api, sandbox=sandbox)
    return execute(output, command.run)


@app.command(group=_TASKS, sort_key=3)
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


@app.command(group=_LOOKING, sort_key=6)
def show(ref: str, /, *, look: LookOptions = _LOOK, output: OutputOptions = _OUTPUT) -> int:
    """Show a job: its state, its request, its timeline, its tracks, its deliveries, and what went wrong.

    Parameters
    ----------
    ref
        The job's ref.
    """
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    return execute(output, lambda screen: commands.show_job(screen, look, ref))


@app.command(group=_LOOKING, sort_key=5)
def jobs(
    *,
    open_only: Annotated[bool, flag("Only jobs that have not ended.", JOB_GROUP, "--open")] = False,
    meta: MetaPairs = (),
    limit: _Limit = 20,
    look: LookOptions = _LOOK,
    output: OutputOptions = _OUTPUT,
) -> int:
    """List the jobs of the store, the newest last."""
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    is_open = True if open_only else None
    return execute(output, lambda screen: commands.list_jobs(screen, look, is_open=is_open, meta=meta, limit=limit))


@app.command(group=_TASKS, sort_key=4)
def save(ref: str, /, *, out: _Out = Path(), look: LookOptions = _LOOK, output: OutputOptions = _OUTPUT) -> int:
    """Save the files of a job that is complete; results expire, so do it soon.

    Parameters
    ----------
    ref
        The job's ref.
    """
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    return execute(output, lambda screen: commands.save_job(screen, look, ref, out=out))


@app.command(group=_LOOKING, sort_key=11, name="credits")
def show_credits(
    *,
    provider: _Provider = "kie",
    base_url: BaseUrl = None,
    sandbox: SandboxOptions = _SANDBOX,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Print the balance of the account, in the provider's own credits."""
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    api = ApiOptions(base_url=base_url)
    return execute(output, lambda screen: commands.credits_left(screen, provider, api, sandbox))


# --- webhooks --------------------------------------------------------------------------------------------


@app.command(group=_SERVERS, sort_key=9)
def listen(*, hooks: HookOptions = _HOOKS, store: StoreOptions = _STORE, output: OutputOptions = _OUTPUT) -> int:
    """Take the webhooks of all providers into the store, and print a line for each, until Ctrl-C.

    It needs no key. Providers whose key is in the environment are also asked about jobs that have gone quiet.
    Handlers are left to the processes that have some. Other commands then use `--listen none`.
    """
    from audioext.cli.servers import ListenCommand  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    return execute(output, ListenCommand(hooks=hooks, store=store).run)


@app.command(group=_LOOKING, sort_key=7)
def inbox(
    ref: str | None = None, /, *, limit: _Limit = 20, look: LookOptions = _LOOK, output: OutputOptions = _OUTPUT
) -> int:
    """List the deliveries that arrived, the newest first, with the verdict on each.

    Parameters
    ----------
    ref
        List those of this job alone.
    """
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    return execute(output, lambda screen: commands.list_deliveries(screen, look, ref, limit=limit))


@app.command(group=_LOOKING, sort_key=8)
def replay(
    delivery: str,
    /,
    *,
    to: Annotated[
        str | None, option("POST it to the receiver with this public URL, which has the same secret.", API_GROUP)
    ] = None,
    webhook_key: WebhookKey = (),
    look: LookOptions = _LOOK,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Give a stored delivery to this store's inbox again, as if it arrived at its own time.

    Parameters
    ----------
    delivery
        Its id, as `inbox` prints it.
    """
    from audioext.cli import store_commands as commands  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    return execute(output, lambda screen: commands.replay(screen, look, delivery, to=to, webhook_key=webhook_key))


@app.command(group=_SERVERS, sort_key=10)
def sandbox(  # noqa: PLR0913 - as above
    *,
    port: Annotated[int, option("The port; 0 takes a free one.", SANDBOX_GROUP, default=True)] = 0,
    host: Annotated[str, option("The address to listen on.", SANDBOX_GROUP, default=True)] = "127.0.0.1",
    speed: Speed = SANDBOX_SPEED,
    fault: Fault = (),
    api_key: Annotated[str | None, option("The key to accept: sandbox-key by default.", SANDBOX_GROUP)] = None,
    hmac_key: Annotated[str | None, option("Sign kie.ai's webhooks with this key.", SANDBOX_GROUP)] = None,
    seed: Annotated[int | None, option("Repeats a run: decides ids, music and all that varies.", SANDBOX_GROUP)] = None,
    output: OutputOptions = _OUTPUT,
) -> int:
    """Play the four APIs on this machine until Ctrl-C; --json prints their addresses as one line when ready."""
    from audioext.cli.servers import SandboxCommand  # noqa: PLC0415
    from audioext.cli.session import execute  # noqa: PLC0415

    options = SandboxOptions(sandbox=True, speed=speed, fault=fault)
    command = SandboxCommand(host=host, port=port, options=options, api_key=api_key, hmac_key=hmac_key, seed=seed)
    return execute(output, command.run)
