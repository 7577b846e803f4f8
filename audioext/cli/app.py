"""The table of all commands, and the way from arguments to an exit code."""

from __future__ import annotations

import difflib
import io
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)
from rich.console import Console

from audioext.cli.exits import Exit, epilogue, is_output_lost, lose_output
from audioext.errors import LONGEST_VALUE, ConfigError, cut
from audioext.settings import PREFIX, read_settings
from audioext.version import __version__

HELP = """\
Extend music, or give a voice an accompaniment, at a hosted API: submitted once, awaited by webhook or poll, never lost.

Begin with `audioext demo`: it runs a complete job on this machine, without paying."""

COMMANDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "Begin": {
        "demo": (
            "Extend a tune, or a file of yours, on a sandbox: see text, first and complete arrive by webhook.",
            "Nothing leaves this machine and nothing is charged. Two files are saved.",
        ),
        "guide": ("Print the guide to writing a program that uses audioext, for people and for agents.",),
    },
    "Tasks": {
        "extend": (
            "Continue a piece of music, wait for it, and save the tracks.",
            "SOURCE is a file if one of that name exists, else a URL if it begins like https://, else a missing",
            "file if it has a slash or a suffix, else the id of a track.",
        ),
        "instrumental": (
            "Give a voice or a melody an accompaniment; --title, --tags and --negative-tags are required.",
            "SOURCE is a URL if it begins like https://, else a file.",
        ),
        "wait": ("Come back to a job, wait for it, and save the tracks.",),
        "save": ("Save the files of a complete job; results expire, so do it soon.",),
        "archive": (
            "Save every finished song that is not in the archive yet: tracks, covers, timed lyrics, metadata.",
            "Each song has a folder of its own, named after its ref, in which song.json is written last. Call it again",
            "as often as you like: complete songs are left alone, incomplete ones are saved anew.",
        ),
    },
    "Jobs and deliveries": {
        "jobs": ("List the jobs of the store, the newest last.",),
        "show": (
            "Show a job: its state, its request, its journal, its tracks, and what went wrong.",
            "Each entry of the journal is listed with the job's state after it.",
        ),
        "inbox": ("List the deliveries that arrived, the newest first, with their verdicts.",),
        "replay": ("Feed a stored delivery to this store's inbox again, or to a receiver.",),
        "forward": ("Send the events of a job to your app once more, as `listen --forward-to` does.",),
        "trigger": (
            "Play one stage of a sandbox's job by hand, like kie.first.",
            "This store's inbox gets the API's webhook. The tracks are made up and cannot be saved; handlers and",
            "apps are called for them as usual.",
        ),
        "credits": ("Print the balance of the account, in the provider's own credits.",),
    },
    "Servers": {
        "listen": (
            "Accept the webhooks of all providers into the store, and print a line for each, until Ctrl-C.",
            "It needs no key. Jobs that have gone quiet are also polled at providers whose key is in the environment.",
            "It runs no handlers: other processes do. Use `--listen none` with other commands while it runs.",
        ),
        "mcp": (
            "Let an agent make music: an MCP server over stdin and stdout, or over HTTP.",
            "Its tools submit by key, wait, and save below --out. An agent that comes back after a crash finds its",
            "jobs in --store. With --sandbox everything is free, and jobs are kept in memory by default.",
        ),
        "doctor": (
            "Check that the public URL, the keys, the clock and the store work, and say how to fix what does not.",
            "A nonce is sent to the public URL, as a provider would send a webhook, and must reach a receiver: that",
            "of your own process, if it listens with the same store, or else this command's. Nothing is paid.",
        ),
        "sandbox": (
            "Play the four APIs on this machine until Ctrl-C; --json prints their addresses as one line when ready.",
        ),
    },
}
"""By group and name: the command's line in the list, and the rest of its own help; its class is in `commands`."""

COMPLETION = (
    "Install completion for this shell: a script below ~, and a line in ~/.bashrc or ~/.zshrc that loads it.\n\n"
    "bash: ~/.local/share/bash-completion/completions/audioext. zsh: a file in ~/.zsh/completions, or in oh-my-zsh's "
    "folder, which needs no line. fish: ~/.config/fish/completions/audioext.fish, and no line. PowerShell: a file in "
    "Completions beside the profile, and a line in the profile. --output writes only the script, to another place."
)
_HELP = frozenset({"-h", "--help", "--version", "--install-completion"})
"""Options that work without settings, which may be broken."""
_MEANT = {"check": "doctor", "list": "jobs", "status": "show", "logs": "show"}
"""Commands that people try, and what they are called here."""
_LEAST_COLUMNS = 20
"""Help for a narrower terminal would take forever, or fail at 0 columns."""
_SECONDS = "--continue-at"
"""The option that people write as 2:30."""


def check_given(_: object, value: object) -> None:
    """Refuse an empty text: it comes from a script's unset variable, and another default would be taken for it."""
    if value == "":
        raise ValueError("It is empty: leave it out, or give a value.")


def make_app() -> App:
    """Return the parser, which imports the arguments of commands when one is called."""
    groups = {name: Group(name, sort_key=place) for place, name in enumerate((*COMMANDS, "Help"))}
    app = App(
        name="audioext",
        version=__version__,
        help=HELP,
        help_epilogue=epilogue(),
        help_format="plaintext",
        group_commands=groups["Help"],
        result_action="return_value",
        default_parameter=Parameter(negative="", show_default=False, validator=check_given),
        console=Console(width=max(_LEAST_COLUMNS, Console().width)),
    )
    for group, commands in COMMANDS.items():
        for place, (name, (line, *more)) in enumerate(commands.items()):
            words = f"{line}\n\n{' '.join(more)}".strip()
            path = f"audioext.cli.commands:{name.title()}Command"
            app.command(path, name=name, group=groups[group], sort_key=place, help=words, help_epilogue="")
    app.register_install_completion_command(group=groups["Help"], help=COMPLETION, help_epilogue="")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run the command in *arguments*, with the settings file added to the environment, and return its exit code."""
    options, found = [*takewhile("--".__ne__, arguments)], dict[str, str]()
    blank = {name: text for name, text in os.environ.items() if name.startswith(PREFIX) and not text.strip()}
    for name in blank:  # for the parser they would be values
        del os.environ[name]
    try:
        if arguments and not _HELP.intersection(options):
            found = {name: text for name, text in read_settings(os.environ).items() if text.strip()}
        os.environ.update(found)
        return _run(arguments)
    except ConfigError as error:
        return _misused(str(error), in_json="--json" in options)
    except OSError as error:
        if not is_output_lost(error):
            raise
        return lose_output(error)
    except SystemExit as ended:
        if ended.code != 1:
            raise
        return Exit.BROKEN_PIPE  # rich exits with 1 on a broken pipe
    finally:
        for name in found:
            os.environ.pop(name, None)
        os.environ.update(blank)


def _run(arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A title with a letter that the terminal's encoding lacks must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        chosen, bound, _ = make_app().parse_args(arguments, exit_on_error=False, print_error=False)
        called = chosen(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        return _misused(_cut(_words(error), arguments), error.command_chain or (), in_json="--json" in arguments)
    if not isinstance(chosen, type):  # help, version or completion: already printed
        return Exit.OK
    from audioext.cli.execution import execute  # noqa: PLC0415 - help needs none of it

    return execute(called)


def _words(error: CycloptsError) -> str:
    """Return the error's message, in clearer words than the parser's where those would confuse."""
    command = " ".join(error.command_chain or ())
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        # The parser's own message would import every command, also those whose extras are missing.
        word, known = error.unused_tokens[0], (*_HELP, *(name for names in COMMANDS.values() for name in names))
        nearest = [_MEANT[word]] if word in _MEANT else difflib.get_close_matches(word, known, n=1)
        meant = "".join(f' Did you mean "{near}"?' for near in nearest)
        return f'Unknown command "{word}".{meant}'
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{command} has no use for {shlex.join(error.unused_tokens)}"
    missing = error.argument if isinstance(error, MissingArgumentError) and not error.unused_tokens else None
    if missing is not None and missing.required:
        is_option = missing.field_info.is_keyword_only
        return f"{command} needs {missing.name if is_option else missing.name.lstrip('-').upper()}"
    of_seconds = isinstance(error, CoercionError) and error.argument is not None and error.argument.name == _SECONDS
    return f"{error} Write it in seconds, like 150." if of_seconds else str(error)


def _cut(message: str, arguments: Sequence[str]) -> str:
    """Return *message* with each long argument in it cut."""
    for text in (part for word in arguments for part in (word, word.partition("=")[2])):
        if len(text) > LONGEST_VALUE:
            message = message.replace(text, cut(text))
    return message


def _misused(message: str, command: Sequence[str] = (), *, in_json: bool) -> int:
    from audioext.cli.screen import Screen, clean, program  # noqa: PLC0415 - as above

    screen = Screen(json=in_json)
    message = clean(message)  # a script's argument may come from a stranger
    screen.fail("UsageError", message, Exit.USAGE)
    if not in_json:
        screen.note(f"  see the help: {' '.join((program(), *command, '--help'))}")
    return Exit.USAGE
