"""The options that commands share: a command is a class that inherits its options, and names what runs it.

The docstring of an option is its help. The classes have no slots, since a command inherits from several of them.
Annotations are not postponed here: the parser would look up their names in the module of the command.
"""

import importlib
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import attrs
from attrs import frozen
from cyclopts import Group, Parameter, Token
from cyclopts.validators import Number

from audioext.cli.exits import Exit
from audioext.cli.screen import Screen
from audioext.models.requests import Request

ProviderName = Literal["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"]

BASE_URL_VARIABLE = "AUDIOEXT_BASE_URL"

REQUEST = Parameter(group=Group("Request", sort_key=1))
JOB = Parameter(group=Group("Job", sort_key=2))
API = Parameter(group=Group("API and webhooks", sort_key=3))
SANDBOX = Parameter(group=Group("Sandbox", sort_key=4))
OUTPUT = Parameter(group=Group("Output", sort_key=5))
SHOWN = Parameter(show_default=True)
"""The help shows the default."""


def env(variable: str, words: str | None = None) -> Parameter:
    """Return a parameter that may also come from the environment, with *words* as its help."""
    return Parameter(env_var=variable) if words is None else Parameter(env_var=variable, help=words)


def check_positive(_: object, value: float | None) -> None:
    """Check that *value* is finite and above 0; `Number` would accept NaN."""
    if value is not None and not 0 < value < math.inf:
        raise ValueError("It must be a finite number above 0.")


def check_not_negative(_: object, value: float) -> None:
    """Check that *value* is finite and not below 0."""
    if not 0 <= value < math.inf:
        raise ValueError("It must be a finite number, 0 or more.")


def read_path(_: object, tokens: Sequence[Token]) -> Path:
    """Return a path; an empty text would be the working folder."""
    (token,) = tokens
    if not token.value:
        raise ValueError("A path is empty: leave it out, or give one.")
    return Path(token.value)


PATH = Parameter(converter=read_path)
POSITIVE = Parameter(validator=check_positive)
NOT_NEGATIVE = Parameter(validator=check_not_negative)
PORT = Parameter(validator=Number(gte=0, lte=65_535))

Ref = Annotated[str, Parameter(help="The job's ref as `extend` and `jobs` print it, or a unique beginning of it.")]
Meta = Annotated[tuple[str, ...], JOB, Parameter(help="NAME=VALUE of the job's meta; may be repeated.")]
_HOSTS = "NAME, NAME:PORT or http://NAME to fetch files from, besides public https hosts; may be repeated."
AllowHosts = Annotated[tuple[str, ...], JOB, env("AUDIOEXT_ALLOW_HOSTS", _HOSTS), Parameter(name="--allow-host")]
Out = Annotated[Path, PATH, JOB, SHOWN, Parameter(help="The folder for the files.")]
Provided = Annotated[ProviderName, API, env("AUDIOEXT_PROVIDER", "The API to use."), SHOWN]
BaseUrl = Annotated[str | None, API, env(BASE_URL_VARIABLE, "The API's address, such as a sandbox of another process.")]
JobUrl = Annotated[str | None, API, Parameter(help="The API's address, if it is not that of the submit.")]
ForwardSecret = Annotated[str | None, API, env("AUDIOEXT_FORWARD_SECRET", "Signs the events: whsec_ and Base64.")]
Limit = Annotated[int, OUTPUT, SHOWN, Parameter(help="How many to list, the newest ones.", validator=Number(gte=1))]


@frozen(kw_only=True, slots=False)
class Command:
    """One command with its arguments, and the options that all commands have."""

    json: Annotated[bool, OUTPUT] = False
    """Print JSON on stdout, one object a line, and nothing else."""
    verbose: Annotated[bool, OUTPUT, Parameter(name=("--verbose", "-v"))] = False
    """Log what happens on stderr."""
    debug: Annotated[bool, OUTPUT] = False
    """Log more, and show the traceback of an error."""
    log_format: Annotated[Literal["text", "json"], OUTPUT, env("AUDIOEXT_LOG_FORMAT")] = "text"
    """The format of log lines: text, or one JSON object a line."""

    is_server: ClassVar[bool] = False
    runs: ClassVar[str]
    """The function that runs the command, as MODULE:FUNCTION of this package: the help of a command loads neither."""

    def load(self) -> Callable[[Screen], Coroutine[object, object, Exit | None]]:
        """Import and return what runs this command; it returns an exit code, `None` for 0, or raises."""
        module, _, name = self.runs.partition(":")
        return partial(getattr(importlib.import_module(f"audioext.cli.{module}"), name), self)


@frozen(kw_only=True, slots=False)
class StoreOptions:
    """Where the jobs are kept."""

    store: Annotated[str | None, JOB, env("AUDIOEXT_STORE")] = None
    """Where jobs are: sqlite:///FILE, redis://HOST or memory://; audioext.db, or audioext-sandbox.db with --sandbox."""

    sandbox_store: ClassVar[str] = "sqlite:///audioext-sandbox.db"
    """Jobs of an in-process sandbox have a store of their own: the real API knows none of them."""

    @property
    def is_sandboxed(self) -> bool:
        """Whether the jobs are those of in-process sandboxes; each command declares `--sandbox` with its own help."""
        return bool(getattr(self, "sandbox", False))

    @property
    def store_url(self) -> str:
        """The URL of the chosen store, or of the default one."""
        return self.store or (self.sandbox_store if self.is_sandboxed else "sqlite:///audioext.db")


@frozen(kw_only=True, slots=False)
class LookOptions(StoreOptions):
    """Which jobs a command looks at."""

    sandbox: Annotated[bool, JOB] = False
    """Look at the jobs of commands that ran with --sandbox."""


@frozen(kw_only=True, slots=False)
class PlayOptions:
    """How a sandbox plays the APIs."""

    speed: Annotated[float, SANDBOX, SHOWN, POSITIVE] = 60.0
    """How many times faster than the real APIs the sandbox is."""
    fault: Annotated[tuple[str, ...], SANDBOX] = ()
    """A fault to play, like duplicate, drop=first or error=complete:531; may be repeated."""


@frozen(kw_only=True, slots=False)
class SandboxOptions(PlayOptions):
    """Whether a command runs against an in-process sandbox."""

    sandbox: Annotated[bool, SANDBOX] = False
    """Run against an in-process sandbox instead of the paid API; needs no key."""


@frozen(kw_only=True, slots=False)
class WebhookOptions:
    """How providers reach us."""

    public_url: Annotated[str | None, API, env("AUDIOEXT_PUBLIC_URL")] = None
    """Where providers reach the receiver. Without it the status is polled."""
    listen: Annotated[str | None, API, env("AUDIOEXT_LISTEN")] = None
    """HOST:PORT to listen on, 127.0.0.1:8080 by default; `none` if `audioext listen` runs there."""
    webhook_key: Annotated[tuple[str, ...], API, env("KIE_WEBHOOK_KEY")] = attrs.field(default=(), repr=False)
    """kie.ai's key that signs webhooks; better in the environment."""


@frozen(kw_only=True, slots=False)
class ConnectOptions(StoreOptions, WebhookOptions, SandboxOptions):
    """How a client of an API is opened. Keys come from KIE_API_KEY and the like."""

    allow_hosts: AllowHosts = ()
    poll_only: Annotated[bool, API] = False
    """Use no webhooks, only poll the status."""
    poll_every: Annotated[float | None, API, POSITIVE] = None
    """Seconds between two status calls."""
    timeout: Annotated[float, JOB, env("AUDIOEXT_WAIT_TIMEOUT"), SHOWN, POSITIVE] = 900.0
    """Seconds to wait; the job outlives the wait."""


@frozen(kw_only=True, slots=False)
class SavingOptions(ConnectOptions):
    """Where the result is saved."""

    out: Out = Path()
    no_save: Annotated[bool, JOB] = False
    """Do not fetch the files."""

    @property
    def folder(self) -> Path | None:
        """The folder for the files, `None` with `--no-save`."""
        return None if self.no_save else self.out


SOURCE_NAMES = frozenset({"source", "file", "url", "audio_id"})
"""The request fields that a command has as SOURCE."""


def request_fields(request: type[Request]) -> Iterator[tuple[str, object, object, str]]:
    """Yield the name, type, default and help of each field of a *request*, except for the provider."""
    hints = get_type_hints(request)
    for each in attrs.fields(request):
        if each.name != "provider":
            yield each.name, hints[each.name], each.default, each.metadata["help"]


def with_fields(command: type[Command], request: type[Request], source: str) -> type[Command]:
    """Return *command* with SOURCE, whose help is *source*, and an option for each other field of *request*."""
    annotated: Any = Annotated  # for types known only at run time
    # It is always text; with `Path`, shells complete the names of files.
    fields = {"source": attrs.field(type=annotated[str | Path, Parameter(help=source)])}
    for name, kind, default, words in request_fields(request):
        if name not in SOURCE_NAMES:
            # A flag whose default is derived (None) also has its `--no-` form.
            how = Parameter(help=words, negative=None if default is None else "", validator=())
            fields[name] = attrs.field(default=default, type=annotated[kind, REQUEST, how], kw_only=True)
    body, name = {"request": request}, request.__name__
    return attrs.make_class(name, fields, (command,), class_body=body, frozen=True, slots=False, collect_by_mro=True)
