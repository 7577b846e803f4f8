"""The entry points: help without extras, light imports, usage errors."""

from __future__ import annotations

import json
import subprocess
import sys

import attrs
import pytest

import audioext as ax
from audioext.cli.exits import MEANINGS
from audioext.version import __version__
from tests.integration.cli.conftest import Invoke


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where *package* is not installed."""
    program = f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = {list(arguments)!r}\n"
    program += "from audioext.cli import main; main()"
    return run_program(program)


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_the_command_says_what_to_install(package: str) -> None:
    """A missing parser or printer is one line with the remedy, and exit code 2."""
    ended = run_without(package, "--help")

    assert 2 == ended.returncode
    assert 'audioext: the command line needs two more packages: pip install "audioext[cli]"\n' == ended.stderr


@pytest.mark.parametrize("package", ["numpy", "soundfile"])
def test_without_numpy_the_sandbox_says_what_to_install(package: str) -> None:
    """The help needs neither numpy nor soundfile; the demo names the extra."""
    helped = run_without(package, "demo", "--help")
    refused = run_without(package, "demo")

    assert 0 == helped.returncode
    assert 2 == refused.returncode
    assert 'pip install "audioext[sandbox]"' in refused.stderr


def test_help_loads_no_numpy() -> None:
    """Help, and all commands without a sandbox, start without numpy."""
    program = "import sys, audioext.cli.app, audioext.cli.session, audioext.cli.tasks, audioext.cli.store_commands\n"
    program += "import audioext.cli.demo, audioext.cli.servers; print('numpy' in sys.modules)"

    assert "False\n" == run_program(program).stdout


def test_help_names_every_command_and_every_exit_code(invoke: Invoke) -> None:
    """The help text is complete: all commands and the table of exit codes."""
    ended = invoke("--help")

    assert 0 == ended.code
    commands = [
        "demo",
        "extend",
        "instrumental",
        "wait",
        "save",
        "jobs",
        "show",
        "inbox",
        "replay",
        "credits",
        "listen",
        "sandbox",
    ]
    assert [] == [name for name in commands if f"│ {name} " not in ended.out]
    assert [] == [code for code in MEANINGS if f"• {int(code)} " not in ended.out]


def test_every_field_of_a_request_is_an_option(invoke: Invoke) -> None:
    """Each field of `Extend` and `AddInstrumental` has an option in kebab-case."""
    elsewhere = {"audio_id", "url", "file", "provider"}
    for command, request in (("extend", ax.Extend), ("instrumental", ax.AddInstrumental)):
        shown = invoke(command, "--help").out
        fields = [field.name for field in attrs.fields(request) if field.name not in elsewhere]
        assert [] == [name for name in fields if f"--{name.replace('_', '-')}" not in shown]


def test_version(invoke: Invoke) -> None:
    """`--version` prints the version."""
    assert __version__ == invoke("--version").out.strip()


def test_a_misspelt_command_is_told_with_exit_code_2(invoke: Invoke) -> None:
    """A wrong word or a wrong value is one sentence on stderr, nothing on stdout."""
    for arguments in (["exten"], ["extend", "a.wav", "--continue-at", "soon"], ["extend"], ["jobs", "--colour"]):
        ended = invoke(*arguments)
        assert (2, "") == (ended.code, ended.out)
        assert ended.err.startswith("audioext: ")


def test_a_misspelt_command_is_json_where_that_was_asked_for(invoke: Invoke) -> None:
    """With `--json` a usage error is an object as well."""
    ended = invoke("extend", "--json")

    assert 2 == ended.code
    assert "UsageError" == json.loads(ended.out)["error"]["type"]


def test_python_m_audioext_is_the_same_command(spawn: Invoke) -> None:
    """`python -m audioext` runs the commands."""
    assert __version__ == spawn("--version").out.strip()
