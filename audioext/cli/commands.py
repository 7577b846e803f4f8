"""The arguments of every command, and the name of the function that runs it.

Annotations are not postponed here, as in `options`.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from attrs import field, frozen
from cyclopts import Parameter

from audioext.cli.options import (
    API,
    JOB,
    NOT_NEGATIVE,
    OUTPUT,
    PATH,
    PORT,
    POSITIVE,
    SANDBOX,
    SHOWN,
    AllowHosts,
    BaseUrl,
    Command,
    ConnectOptions,
    ForwardSecret,
    JobUrl,
    Limit,
    LookOptions,
    Meta,
    Out,
    PlayOptions,
    Provided,
    ProviderName,
    Ref,
    SandboxOptions,
    SavingOptions,
    StoreOptions,
    WebhookOptions,
    env,
    with_fields,
)
from audioext.models.requests import AddInstrumental, Extend, Request

TriggerEvent = Literal[
    "kie.text",
    "kie.first",
    "kie.complete",
    "kie.error",
    "kie-jobs.text",
    "kie-jobs.first",
    "kie-jobs.complete",
    "kie-jobs.error",
    "sunoapi.text",
    "sunoapi.first",
    "sunoapi.complete",
    "sunoapi.error",
]

# --- begin ------------------------------------------------------------------------------------------------------


@frozen(slots=False)
class DemoCommand(Command):
    runs = "demo:demo"
    is_sandboxed = True
    store_url = "memory://"
    file: Annotated[Path | None, PATH] = None
    """A WAV, FLAC, OGG or MP3 of yours; without one a tune is made."""
    provider: Annotated[ProviderName, API, env("AUDIOEXT_PROVIDER"), SHOWN] = field(default="kie", kw_only=True)
    """The API to play."""
    out: Annotated[Path, PATH, JOB, SHOWN] = field(default=Path("audioext-demo"), kw_only=True)
    """The folder for the files."""
    # Two minutes become three seconds: quick, but slow enough to see the stages arrive one by one.
    speed: Annotated[float, SANDBOX, SHOWN, POSITIVE] = field(default=40.0, kw_only=True)
    """How many times faster than the real APIs the sandbox is."""


@frozen(slots=False)
class GuideCommand(Command):
    runs = "guide:guide"


# --- tasks ------------------------------------------------------------------------------------------------------


@frozen(slots=False)
class SubmitCommand(SavingOptions, Command):
    """The common base of `extend` and `instrumental`; `with_fields` adds SOURCE and the fields of their request."""

    runs = "tasks:submit_and_save"
    source: ClassVar[str]
    request: ClassVar[type[Request]]
    meta: Meta = field(default=(), kw_only=True)
    provider: Provided = field(default="kie", kw_only=True)
    base_url: BaseUrl = field(default=None, kw_only=True)
    key: Annotated[str | None, JOB] = field(default=None, kw_only=True)
    """A name for this submit: the same key gives the same job, never a second task."""
    no_wait: Annotated[bool, JOB] = field(default=False, kw_only=True)
    """Submit, print the ref, and exit; `listen` or `wait` follows the job."""


ExtendCommand = with_fields(SubmitCommand, Extend, "A file, a URL, or the id of a track.")
InstrumentalCommand = with_fields(SubmitCommand, AddInstrumental, "A file or a URL.")


@frozen(slots=False)
class WaitCommand(SavingOptions, Command):
    runs = "tasks:wait_and_save"
    ref: Ref
    base_url: JobUrl = field(default=None, kw_only=True)


@frozen(slots=False)
class SaveCommand(LookOptions, Command):
    runs = "tasks:save_complete"
    ref: Ref
    allow_hosts: AllowHosts = field(default=(), kw_only=True)
    out: Out = field(default=Path(), kw_only=True)
    base_url: JobUrl = field(default=None, kw_only=True)


@frozen(slots=False)
class ArchiveCommand(LookOptions, Command):
    runs = "archive:archive"
    folder: Annotated[Path, PATH]
    """The folder of the archive; it is created if missing."""
    allow_hosts: AllowHosts = field(default=(), kw_only=True)
    days: Annotated[float, OUTPUT, SHOWN, NOT_NEGATIVE] = field(default=3.0, kw_only=True)
    """Warn if a song could not be saved and its links expire within so many days."""


# --- jobs and deliveries ----------------------------------------------------------------------------------------


@frozen(kw_only=True, slots=False)
class JobsCommand(LookOptions, Command):
    runs = "jobs:list_jobs"
    meta: Meta = ()
    since: Annotated[str | None, JOB] = None
    """Only jobs created since then: a date (2026-11-26), or how long ago (12h, 7d)."""
    open_only: Annotated[bool, JOB, Parameter(name="--open")] = False
    """Only jobs that have not ended."""
    undelivered: Annotated[bool, JOB] = False
    """Only jobs with events that a handler, or the app of `listen --forward-to`, never accepted."""
    limit: Limit = 20


@frozen(slots=False)
class ShowCommand(LookOptions, Command):
    runs = "jobs:show"
    ref: Ref
    at: Annotated[int | None, OUTPUT] = field(default=None, kw_only=True)
    """Show the job as it was after this many entries."""
    body: Annotated[int | None, OUTPUT] = field(default=None, kw_only=True)
    """Print the body of this entry, byte for byte."""


@frozen(slots=False)
class InboxCommand(LookOptions, Command):
    runs = "jobs:list_deliveries"
    ref: Annotated[str | None, Parameter()] = None
    """List only the deliveries of this job."""
    limit: Limit = field(default=20, kw_only=True)


@frozen(slots=False)
class ReplayCommand(LookOptions, Command):
    runs = "jobs:replay"
    delivery: Annotated[str, Parameter()]
    """Its id as `inbox` prints it, or a unique beginning of it."""
    to: Annotated[str | None, API] = field(default=None, kw_only=True)
    """POST it to the receiver with this public URL, which has the same secret."""


@frozen(slots=False)
class ForwardCommand(LookOptions, Command):
    runs = "listening:forward"
    ref: Ref
    to: Annotated[str, API] = field(kw_only=True)
    """The URL of the app."""
    forward_secret: ForwardSecret = field(default=None, kw_only=True, repr=False)


@frozen(slots=False)
class TriggerCommand(LookOptions, Command):
    runs = "trigger:trigger"
    event: Annotated[TriggerEvent, Parameter()]
    """The API, which must be the job's, and the stage."""
    job: Annotated[Ref, Parameter(name="--job"), JOB] = field(kw_only=True)


@frozen(kw_only=True, slots=False)
class CreditsCommand(SandboxOptions, Command):
    runs = "doctor:print_credits"
    provider: Provided = "kie"
    base_url: BaseUrl = None


# --- servers ----------------------------------------------------------------------------------------------------


@frozen(kw_only=True, slots=False)
class ListenCommand(WebhookOptions, StoreOptions, Command):
    runs = "listening:listen"
    is_server = True
    metrics: Annotated[bool | str, API, env("AUDIOEXT_METRICS"), Parameter(metavar="[HOST:PORT]")] = False
    """Serve /metrics for Prometheus at HOST:PORT, else at the address in the settings, else at 127.0.0.1:9464."""
    forward_to: Annotated[str | None, API] = None
    """POST every stage and failure, signed, to this URL of your app."""
    forward_secret: ForwardSecret = field(default=None, repr=False)
    ui: Annotated[bool, OUTPUT] = False
    """Show all jobs on a live page, for a browser on this machine."""
    ui_port: Annotated[int, OUTPUT, SHOWN, PORT] = 8090
    """The live page's port on 127.0.0.1."""


@frozen(kw_only=True, slots=False)
class McpCommand(ConnectOptions, Command):
    runs = "mcp_server:serve"
    sandbox_store = "memory://"  # each start is a new sandbox, without the tasks of the last one
    provider: Provided = "kie"
    base_url: BaseUrl = None
    out: Out = Path()
    http: Annotated[str | None, API] = None
    """Serve streamable HTTP at HOST:PORT/mcp, instead of stdin and stdout."""
    token: Annotated[str | None, API, env("AUDIOEXT_MCP_TOKEN")] = field(default=None, repr=False)
    """The token that HTTP clients have to send as `Authorization: Bearer …`; needed beyond this machine."""


@frozen(kw_only=True, slots=False)
class DoctorCommand(WebhookOptions, StoreOptions, Command):
    runs = "doctor:check"
    base_url: BaseUrl = None
    provider: Annotated[ProviderName | None, API] = None
    """The API to check; by default all whose keys are known."""


@frozen(kw_only=True, slots=False)
class SandboxCommand(PlayOptions, Command):
    runs = "sandboxes:serve"
    port: Annotated[int, SANDBOX, SHOWN, PORT] = 0
    """The port; 0 takes a free one."""
    host: Annotated[str, SANDBOX, SHOWN] = "127.0.0.1"
    """The address to listen on."""
    api_key: Annotated[str | None, SANDBOX] = field(default=None, repr=False)
    """The key to accept: sandbox-key by default."""
    hmac_key: Annotated[str | None, SANDBOX] = field(default=None, repr=False)
    """Sign kie.ai's webhooks with this key."""
    seed: Annotated[int | None, SANDBOX] = None
    """Make a run repeatable: the seed decides ids, music and everything random."""
    ui: Annotated[bool, OUTPUT] = False
    """Show the tasks and their webhooks on a live page, for a browser on this machine."""
    ui_port: Annotated[int, OUTPUT, SHOWN, PORT] = 8091
    """The live page's port on 127.0.0.1."""
