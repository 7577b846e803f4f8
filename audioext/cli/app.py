"""From arguments to an exit code: the table of all commands, which are loaded when they are called."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from attrs import frozen
from cyclopts import App, CycloptsError, Group

from audioext.cli.exits import Exit, epilogue
from audioext.version import __version__

BEGIN = Group("Begin", sort_key=1)
TASKS = Group("Tasks", sort_key=2)
LOOKING = Group("What there is", sort_key=3)
SERVERS = Group("Servers", sort_key=4)
HELP = Group("Help", sort_key=5)

HELP_TEXT = """\
Extend music, or give a voice an accompaniment, at a hosted API: submitted once, awaited by webhook or poll, never lost.

Begin with `audioext demo`: it shows the whole trip on this machine, without paying."""


@frozen
class Listed:
    """A command in the table: its name, where it stands, the class that it is, and its help text."""

    name: str
    group: Group
    where: str
    help: str


# In the order in which the help text lists them; its line for each is the first paragraph.
COMMANDS = (
    Listed(
        "demo",
        BEGIN,
        "demo:DemoCommand",
        """\
Extend a tune, or a file of yours, on a sandbox: see text, first and complete arrive by webhook.

Nothing leaves this machine and nothing is charged. Two playable files are saved, and compared with the source.""",
    ),
    Listed(
        "extend",
        TASKS,
        "tasks:ExtendCommand",
        """\
Continue a piece of music, wait for it, and save the tracks.

An existing file is a file; text that begins with http://, https:// or s3:// is a URL; text with a slash or an audio \
file's suffix is a file that is not there; anything else is the id of a track that the provider made.""",
    ),
    Listed(
        "instrumental",
        TASKS,
        "tasks:InstrumentalCommand",
        """\
Give a voice or a melody an accompaniment; --title, --tags and --negative-tags are required.

Text that begins with http://, https:// or s3:// is a URL, all else a file.""",
    ),
    Listed(
        "wait",
        TASKS,
        "tasks:WaitCommand",
        "Come back to a job that an earlier command left, wait for it, and save the tracks.",
    ),
    Listed(
        "save",
        TASKS,
        "tasks:SaveCommand",
        "Save the files of a job that is complete; results expire, so do it soon.",
    ),
    Listed("jobs", LOOKING, "jobs:JobsCommand", "List the jobs of the store, the newest last."),
    Listed(
        "show",
        LOOKING,
        "jobs:ShowCommand",
        """\
Show a job: its state, its request, its journal, its tracks, and what went wrong.

Each entry of the journal is listed with what the job was after it. --at N shows the job as it was after the first N \
entries, --body N prints what came with entry N, byte for byte.""",
    ),
    Listed(
        "inbox",
        LOOKING,
        "deliveries:InboxCommand",
        "List the deliveries that arrived, the newest first, with the verdict on each.",
    ),
    Listed(
        "replay",
        LOOKING,
        "deliveries:ReplayCommand",
        "Give a stored delivery to this store's inbox again, or with --to to another receiver.",
    ),
    Listed(
        "credits",
        LOOKING,
        "tasks:CreditsCommand",
        "Print the balance of the account, in the provider's own credits.",
    ),
    Listed(
        "listen",
        SERVERS,
        "servers:ListenCommand",
        """\
Accept the webhooks of all providers into the store, and print a line for each, until Ctrl-C.

It needs no key. Providers whose key is in the environment are also asked about jobs that have gone quiet. Handlers \
are left to the processes that have some. Other commands then use `--listen none`.""",
    ),
    Listed(
        "sandbox",
        SERVERS,
        "servers:SandboxCommand",
        "Play the four APIs on this machine until Ctrl-C; --json prints their addresses as one line when ready.",
    ),
)


def make_app() -> App:
    """Return the parser; no command's module is loaded before the command is called."""
    app = App(
        name="audioext",
        version=__version__,
        help=HELP_TEXT,
        help_epilogue=epilogue(),
        help_format="plaintext",
        group_commands=HELP,
        result_action="return_value",
    )
    for place, one in enumerate(COMMANDS):
        where = f"audioext.cli.{one.where}"
        app.command(where, name=one.name, group=one.group, sort_key=place, help=one.help, help_epilogue="")
    app.register_install_completion_command(group=HELP, help="Install completion for this shell.")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run the command in *arguments* and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A title with a letter that the terminal's encoding lacks must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        chosen, bound, _ = make_app().parse_args(arguments, exit_on_error=False, print_error=False)
        called = chosen(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        return _misused(str(error), in_json="--json" in arguments)
    if not isinstance(chosen, type):  # help, the version or the completion, which are printed now
        return Exit.OK
    from audioext.cli.execution import execute  # noqa: PLC0415 - help needs none of it

    return execute(called)


def _misused(message: str, *, in_json: bool) -> int:
    from audioext.cli.screen import Screen  # noqa: PLC0415 - as above

    screen = Screen(json=in_json)
    if in_json:
        screen.emit({"error": {"type": "UsageError", "message": message, "exit_code": int(Exit.USAGE)}})
    else:
        screen.error(message)
        screen.note("  audioext --help, or audioext COMMAND --help, says what there is")
    return Exit.USAGE
