"""The options of the commands: a command is a class that inherits those it has, and that says what it does.

The classes have no slots, since a command inherits from several of them. Annotations are evaluated here, not kept as
text: the parser would look for their names in the module of the command.
"""

import abc
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import attrs
from attrs import frozen
from cyclopts import Group, Parameter, validators

from audioext.cli.exits import Exit
from audioext.cli.screen import Screen
from audioext.models.requests import Request

ProviderName = Literal["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"]

DEFAULT_STORE = "sqlite:///audioext.db"
SANDBOX_STORE = "sqlite:///audioext-sandbox.db"
"""Jobs of an in-process sandbox are kept apart: the real API would know none of them."""
SANDBOX_SPEED = 60.0
BASE_URL_VARIABLE = "AUDIOEXT_BASE_URL"

REQUEST_GROUP = Group("Request", sort_key=1)
JOB_GROUP = Group("Job", sort_key=2)
API_GROUP = Group("API and webhooks", sort_key=3)
SANDBOX_GROUP = Group("Sandbox", sort_key=4)
OUTPUT_GROUP = Group("Output", sort_key=5)


def option(text: str, group: Group, *, env: str | None = None, default: bool = False) -> Parameter:
    """Return an option with the help *text*; *default* shows its default value behind it."""
    return Parameter(help=text, group=group, env_var=env, show_default=default)


def flag(text: str, group: Group, *names: str, env: str | None = None) -> Parameter:
    """Return an option that is only ever switched on, or that may be repeated."""
    return Parameter(name=names or None, help=text, group=group, env_var=env, negative="", show_default=False)


Out = Annotated[Path, option("The folder for the files.", JOB_GROUP, default=True)]
Limit = Annotated[
    int,
    Parameter(help="How many to list, the newest ones.", group=OUTPUT_GROUP, validator=validators.Number(gte=1)),
]
Ref = Annotated[str, Parameter(help="The job's ref as `extend` and `jobs` print it, or how it alone begins.")]
ProviderOption = Annotated[ProviderName, option("The API to use.", API_GROUP, env="AUDIOEXT_PROVIDER", default=True)]
Speed = Annotated[
    float, option("How many times faster than the real APIs the sandbox is.", SANDBOX_GROUP, default=True)
]
Faults = Annotated[
    tuple[str, ...],
    flag("A fault to play, like duplicate, drop=first or error=complete:531; may be repeated.", SANDBOX_GROUP),
]
MetaPairs = Annotated[tuple[str, ...], flag("NAME=VALUE of the job's own notes; may be repeated.", JOB_GROUP)]
WebhookKeys = Annotated[
    tuple[str, ...],
    flag("kie.ai's key that signs webhooks; better in the environment.", API_GROUP, env="KIE_WEBHOOK_KEY"),
]


@frozen(kw_only=True, slots=False)
class Command(abc.ABC):
    """One command as it was called, with the options that all commands have."""

    json: Annotated[bool, flag("Print JSON on stdout, one object a line, and nothing else.", OUTPUT_GROUP)] = False
    verbose: Annotated[bool, flag("Log what happens on stderr.", OUTPUT_GROUP, "--verbose", "-v")] = False
    debug: Annotated[bool, flag("Log more, and show the traceback of an error.", OUTPUT_GROUP)] = False
    log_format: Annotated[
        Literal["text", "json"],
        option("Log lines for people or, one object a line, for machines.", OUTPUT_GROUP, env="AUDIOEXT_LOG_FORMAT"),
    ] = "text"

    is_server: ClassVar[bool] = False
    """Whether it serves others until it is stopped."""

    @abc.abstractmethod
    async def run(self, screen: Screen) -> Exit:
        """Do it, and return the exit code.

        Raises:
            AudioextError: whatever goes wrong; `failures` says what its exit code is.
        """


@frozen(kw_only=True, slots=False)
class StoreOptions:
    """Where the jobs are kept."""

    store: Annotated[
        str | None,
        option(
            f"Where jobs are kept: sqlite:///FILE, redis://HOST or memory://. Default: {DEFAULT_STORE} in the"
            f" current folder ({SANDBOX_STORE} with --sandbox).",
            JOB_GROUP,
            env="AUDIOEXT_STORE",
        ),
    ] = None

    @property
    def is_sandboxed(self) -> bool:
        """Whether the jobs are those of in-process sandboxes; the option is in the words of each command."""
        return bool(getattr(self, "sandbox", False))

    @property
    def store_url(self) -> str:
        """The store that was asked for, or the default one."""
        return self.store or (SANDBOX_STORE if self.is_sandboxed else DEFAULT_STORE)


@frozen(kw_only=True, slots=False)
class LookOptions(StoreOptions):
    """Whose jobs a command looks at."""

    sandbox: Annotated[bool, flag("The jobs of commands that ran with --sandbox.", JOB_GROUP)] = False


@frozen(kw_only=True, slots=False)
class PlayOptions:
    """How a sandbox plays the APIs."""

    speed: Speed = SANDBOX_SPEED
    fault: Faults = ()


@frozen(kw_only=True, slots=False)
class SandboxOptions(PlayOptions):
    """Whether a command runs against an in-process sandbox."""

    sandbox: Annotated[
        bool, flag("Run against an in-process sandbox instead of the paid API; needs no key.", SANDBOX_GROUP)
    ] = False


@frozen(kw_only=True, slots=False)
class WebhookOptions:
    """How providers reach us."""

    public_url: Annotated[
        str | None,
        option(
            "Where providers reach the receiver. Without it the status is polled.", API_GROUP, env="AUDIOEXT_PUBLIC_URL"
        ),
    ] = None
    listen: Annotated[
        str | None,
        option(
            "HOST:PORT to listen on, 127.0.0.1:8080 by default; `none` where `audioext listen` does it.",
            API_GROUP,
            env="AUDIOEXT_LISTEN",
        ),
    ] = None
    webhook_key: WebhookKeys = ()


@frozen(kw_only=True, slots=False)
class ForwardOptions:
    """How an app that is told of events knows us."""

    forward_secret: Annotated[
        str | None,
        option("The secret that signs the events: whsec_ and Base64.", API_GROUP, env="AUDIOEXT_FORWARD_SECRET"),
    ] = attrs.field(default=None, repr=False)


@frozen(kw_only=True, slots=False)
class BaseUrlOptions:
    """Where the API is."""

    base_url: Annotated[
        str | None,
        option("The API's address, such as a sandbox of another process.", API_GROUP, env=BASE_URL_VARIABLE),
    ] = None


@frozen(kw_only=True, slots=False)
class JobUrlOptions:
    """Where the API of a job is; the job's journal says where it was submitted to."""

    base_url: Annotated[str | None, option("The API's address, where it is not that of the submit.", API_GROUP)] = None


@frozen(kw_only=True, slots=False)
class ApiOptions(WebhookOptions):
    """How an API is used. Keys come from KIE_API_KEY and its like."""

    poll_only: Annotated[bool, flag("Ask for the status, whatever else is set.", API_GROUP)] = False
    poll_every: Annotated[float | None, option("Seconds between two status calls.", API_GROUP)] = None


@frozen(kw_only=True, slots=False)
class SavingOptions:
    """How long to wait, and what becomes of the result."""

    out: Out = Path()
    timeout: Annotated[
        float,
        option("Seconds to wait; the job outlives the wait.", JOB_GROUP, env="AUDIOEXT_WAIT_TIMEOUT", default=True),
    ] = 900.0
    no_save: Annotated[bool, flag("Do not fetch the files.", JOB_GROUP)] = False


@frozen(kw_only=True, slots=False)
class SubmitOptions(SavingOptions):
    """What is noted down with a task."""

    key: Annotated[
        str | None, option("A name for this submit: the same key gives the same job, never a second task.", JOB_GROUP)
    ] = None
    meta: MetaPairs = ()
    no_wait: Annotated[bool, flag("Submit, print the ref, and leave it to `listen` or `wait`.", JOB_GROUP)] = False


FIELD_HELP = {
    "model": "The model, such as V5; required for extend except at MusicGPT.",
    "title": "The title of the result.",
    "lyrics": "The words to sing, where the API takes them apart from the prompt.",
    "negative_tags": "Styles that are not wanted.",
    "vocal_gender": "Who sings; neutral at MusicGPT alone.",
    "style_weight": "0 to 1, in steps of 0.01.",
    "weirdness_constraint": "0 to 1, in steps of 0.01.",
    "audio_weight": "0 to 1, in steps of 0.01.",
    "variety": "0 to 4.",
    "source_duration": "The source's seconds, to check limits beforehand; a file's are read from it.",
    "rehost": "Bring a source URL to the provider's own file host first.",
    "continue_at": "The second of the source from which on it is continued.",
    "prompt": "What is wanted, or the lyrics, as the API has it.",
    "style": "The style of the result.",
    "tags": "The styles that are wanted; required.",
    "persona_id": "A persona or voice of yours.",
    "persona_model": "What kind of persona it is.",
    "lyrics_section_to_extend": "The part of the lyrics to go on from (MusicGPT).",
    "instrumental": "Without, or with, a voice.",
    "num_outputs": "1 or 2 tracks (MusicGPT).",
    "generate_album_cover": "Whether a cover is made (MusicGPT).",
    "lyrics_timestamps": "Whether lyrics come with times (MusicGPT).",
    "custom": "Use the fields given, or inherit the source's; derived by default.",
}
_OTHERWISE = frozenset({"audio_id", "url", "file", "provider"})  # the command's SOURCE and its own --provider


def with_fields(command: type[Command], request: type[Request]) -> type[Command]:
    """Return *command* with an option for each field of *request*; `given_fields` returns those that were given."""
    hints = get_type_hints(request)
    annotated: Any = Annotated  # with types that are known at run time alone
    fields = {}
    for attribute in attrs.fields(request):
        if attribute.name not in _OTHERWISE:
            text = FIELD_HELP.get(attribute.name, "")
            how = option(text, REQUEST_GROUP) if attribute.default is None else flag(text, REQUEST_GROUP)
            kind = annotated[hints[attribute.name], how]
            fields[attribute.name] = attrs.field(default=attribute.default, type=kind, kw_only=True)
    made = attrs.make_class(command.__name__, fields, (command,), frozen=True, slots=False, collect_by_mro=True)
    made.__doc__ = command.__doc__
    return made


def given_fields(command: Command, request: type[Request]) -> dict[str, object]:
    """Return the fields of *request* that were given to *command*, as `with_fields` made it."""
    names = {attribute.name for attribute in attrs.fields(request)} - _OTHERWISE
    return {name: value for name in names if (value := getattr(command, name)) is not None}
