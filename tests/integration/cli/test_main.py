"""The entry points: lazy imports, help without extras, usage errors, an early Ctrl-C."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest

import audioext as ax
from audioext.cli import commands
from audioext.cli.app import COMMANDS
from audioext.cli.exits import EXTRAS, Exit
from audioext.cli.options import Command
from audioext.version import __version__
from tests.integration.cli.conftest import HOOKS, MEMORY, ROOT, Ended, Invoke

LISTED = {name: entry for group in COMMANDS.values() for name, entry in group.items()}
BARE = str.maketrans("│", " ")
HEAVY = (
    *("aiohttp", "asyncio", "numpy", "rich.live"),
    *("audioext.client", "audioext.config", "audioext.http.decoding", "audioext.providers", "audioext.stores"),
)


Without = Callable[..., list[Ended]]


def commands_by_name() -> dict[str, type[Command]]:
    """Return the class of each command."""
    return {name: getattr(commands, f"{name.title()}Command") for name in LISTED}


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program as a process."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def lacking() -> Iterator[Without]:
    """Return a function that runs commands with some packages hidden, as if they were not installed.

    All are run by one process, which forgets our modules and the hidden ones before it hides others.
    """
    program = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
class Missing:
    def find_spec(self, name, *rest):
        if name in packages:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Missing())
for line in sys.stdin:
    packages, calls = json.loads(line)
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}
    for name in [name for name in sys.modules if name.partition(".")[0] == "audioext" or name in kept]:
        del sys.modules[name]
    from audioext.cli import main
    ended = []
    for sys.argv[1:] in calls:
        try:
            with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
                main()
        except SystemExit as error:
            ended.append([error.code, out.getvalue(), err.getvalue()])
    sys.modules.update(kept)  # numpy can be loaded only once
    print(json.dumps(ended), flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reads, writes = process.stdout, process.stdin

        def run(packages: str, *calls: Sequence[str]) -> list[Ended]:
            print(json.dumps([packages.split(), calls]), file=writes, flush=True)
            ended = [Ended(*each) for each in json.loads(reads.readline())]
            assert len(calls) == len(ended)
            return ended

        yield run
        writes.close()
    assert 0 == process.returncode


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_the_command_says_what_to_install(package: str, lacking: Without) -> None:
    """A missing parser or printer package is reported in one line with the pip command, and exit code 2."""
    install = (
        f'{sys.executable} -m pip install "audioext[cli]", or in a clone: {sys.executable} -m pip install ".[cli]"'
    )
    told = Ended(2, "", f"audioext: the command line needs more packages: {install}\n")
    assert [told, told] == lacking(package, ["--help"], ["jobs"])


def test_each_extra_has_the_package_that_it_is_named_for() -> None:
    """Each extra named for a missing package exists and has that package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert [] == [name for name, extra in EXTRAS.items() if not any(line.startswith(name) for line in extras[extra])]


def test_without_numpy_the_sandbox_says_what_to_install(lacking: Without) -> None:
    """The sandbox command without numpy names the extra to install."""
    (refused,) = lacking("numpy", ["demo"])

    assert 2 == refused.code
    assert 'pip install "audioext[sandbox]"' in refused.err
    (helped,) = lacking("numpy soundfile", ["demo", "--help"])
    assert 0 == helped.code


def test_without_its_package_forwarding_says_what_to_install(lacking: Without) -> None:
    """Each command that forwards names the extra of a missing package."""
    more = (*MEMORY, "--forward-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    url = "http://127.0.0.1:1"
    calls = (["forward", "x", "--to", url, *more], ["listen", *HOOKS, "--forward-to", url, *more])
    ended = lacking("standardwebhooks", *calls)

    assert [2, 2] == [refused.code for refused in ended]
    install = f'{sys.executable} -m pip install "audioext[forward]"'
    wanted = f"audioext: forwarding needs more packages: {install}"
    assert [] == [refused for refused in ended if wanted not in refused.err]


def test_without_its_package_a_server_with_ui_does_not_start(lacking: Without) -> None:
    """A server with `--ui` and a missing package names the extra before it starts."""
    ended = lacking("aiohttp_sse", ["sandbox", "--ui"], ["listen", *HOOKS, *MEMORY, "--ui"])

    assert [(2, "")] * 2 == [(refused.code, refused.out) for refused in ended]
    install = f'{sys.executable} -m pip install "audioext[ui]"'
    wanted = f"audioext: the live page needs more packages: {install}"
    assert [] == [refused for refused in ended if not refused.err.startswith(wanted)]


def test_without_its_packages_the_mcp_server_says_what_to_install(lacking: Without) -> None:
    """`mcp --help` works without the packages, and `mcp` names the extra, in JSON too."""
    packages = " ".join(name for name, extra in EXTRAS.items() if extra == "mcp")
    shown, refused = lacking(packages, ["mcp", "--help"], ["mcp", "--json"])

    assert (0, "", True) == (shown.code, shown.err, "--http" in shown.out)
    assert 2 == refused.code
    message = refused.json["error"]["message"]
    assert f'the MCP server needs more packages: {sys.executable} -m pip install "audioext[mcp]"' in message


def test_a_mistyped_command_is_named_whatever_is_installed(lacking: Without) -> None:
    """A mistyped command gets a suggestion when all extras but the command line's are missing."""
    packages = " ".join(name for name, extra in EXTRAS.items() if extra != "cli")
    ended = lacking(packages, ["extnd", "x"], ["--verison"], ["check"], ["xyzzy"])

    assert [(2, "")] * 4 == [(refused.code, refused.out) for refused in ended]
    assert [
        'audioext: Unknown command "extnd". Did you mean "extend"?',
        'audioext: Unknown command "--verison". Did you mean "--version"?',
        'audioext: Unknown command "check". Did you mean "doctor"?',
        'audioext: Unknown command "xyzzy".',
    ] == [refused.err.splitlines()[0] for refused in ended]


def test_help_loads_no_more_than_it_shows() -> None:
    """Help imports no network, store, provider or room of a command, whatever is set; the main help no options.

    The help of a command begins with its line in the command table.
    """
    calls: tuple[list[list[str]], ...] = [["--help"], ["--version"], []], [[name, "--help"] for name in LISTED]
    heavy = [*HEAVY, *(f"audioext.cli.{command.runs.partition(':')[0]}" for command in commands_by_name().values())]
    program = f"""
import os, sys
os.environ["AUDIOEXT_STORE"] = "memory://"
from audioext.cli.app import run
for calls, heavy in zip({calls!r}, ({[*heavy, "audioext.cli.options"]!r}, {heavy!r})):
    codes = {{int(run(words)) or print(end="\\0") for words in calls}}
    print(codes, [name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    ran = run_program(program)
    shown = [" ".join(text.split()) for text in ran.stdout.split("\0")[len(calls[0]) : -1]]

    assert 2 * "{None} []\n" == ran.stderr
    assert list(LISTED) == [name for name, text in zip(LISTED, shown, strict=True) if LISTED[name][0] in text]


def test_help_names_every_command_and_every_exit_code_once(invoke: Invoke) -> None:
    """The main help has all commands and the exit codes, which no command's help repeats."""
    ended, of_command = invoke("--help"), invoke("wait", "--help")

    assert 0 == ended.code
    assert [] == [name for name in LISTED if f"│ {name} " not in ended.out]
    assert [] == [
        code for code in Exit if f"{int(code):>5}  {code.meaning}" not in ended.out and str(int(code)) not in ended.out
    ]
    assert max(len(line) for line in ended.out.splitlines()) <= 80
    assert "Exit codes" not in of_command.out
    assert "Print JSON on stdout, one object a line, and nothing else." in " ".join(
        of_command.out.translate(BARE).split()
    )


@pytest.mark.parametrize("name", LISTED)
def test_every_listed_command_is_there(name: str) -> None:
    """Each line of the command table leads to a command and to what runs it."""
    command = commands_by_name()[name]

    module, _, attribute = command.runs.partition(":")
    run = getattr(importlib.import_module(f"audioext.cli.{module}"), attribute)
    assert inspect.iscoroutinefunction(run)
    assert issubclass(command, next(iter(inspect.get_annotations(run, eval_str=True).values())))


def test_every_field_of_a_request_is_an_option(invoke: Invoke) -> None:
    """Each field of `Extend` and `AddInstrumental` has an option in kebab-case."""
    elsewhere = {"audio_id", "url", "file", "provider"}
    for command, request in (("extend", ax.Extend), ("instrumental", ax.AddInstrumental)):
        shown = invoke(command, "--help").out
        fields = [field.name for field in attrs.fields(request) if field.name not in elsewhere]
        assert [] == [name for name in fields if f"--{name.replace('_', '-')}" not in shown]


def test_shell_completion_can_be_installed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, folder: object) -> None:
    """`--install-completion` writes a script with the commands, and says what to do next."""
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("HOME", str(folder))

    ended = invoke("--install-completion", "--shell", "bash", "--output", "done.sh")

    assert 0 == ended.code
    text = Path("done.sh").read_text()
    assert [] == [name for name in LISTED if name not in text]
    assert "--continue-at" in text
    assert f'\n[ -f "{Path("done.sh").resolve()}" ]' in Path(".bashrc").read_text()
    assert "~/.bashrc" in invoke("--help").out
    assert "bash-completion/completions/audioext" in invoke("--install-completion", "--help").out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ext", "extend"),
        ("extend vo", "voice.mp3"),
        ("instrumental vo", "voice.mp3"),
        ("extend x --out vo", "voice.mp3"),
        ("extend x --provider mus", "musicgpt"),
        ("trigger kie.f", "kie.first"),
    ],
)
def test_bash_completes(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, folder: Path, typed: str, offered: str
) -> None:
    """The script completes commands, files and choices in a real bash."""
    monkeypatch.setenv("HOME", str(folder))
    invoke("--install-completion", "--shell", "bash", "--output", "done.sh")
    Path("voice.mp3").touch()
    script = """
source done.sh
COMP_WORDS=(audioext $1)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"$(complete -p audioext | sed 's/.*-F \\([^ ]*\\).*/\\1/')" audioext "${COMP_WORDS[COMP_CWORD]}" ""
echo "${COMPREPLY[*]}"
"""
    ended = subprocess.run(["/bin/bash", "-c", script, "bash", typed], capture_output=True, text=True, check=False)

    assert (f"{offered}\n", "") == (ended.stdout, ended.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["extend"], "extend needs SOURCE"),
        (["trigger", "kie.first"], "trigger needs --job"),
        (["forward", "x"], "forward needs --to"),
        (["save", "a", "b"], "save has no use for b"),
        (["show", "a", "3"], "show has no use for 3"),
        (["extend", "a.wav", "--modle", "V5"], "Did you mean --model?"),
        (["extend", "a.wav", "--continue-at", "2:30"], "Write it in seconds, like 150."),
        (["jobs", "--limit", "0"], "0 for --limit. Must be >= 1"),
        (["sandbox", "--port", "99999"], "99999 for --port. Must be <= 65535"),
        (["sandbox", "--ui-port", "80801"], "80801 for --ui-port. Must be <= 65535"),
        (["listen", "--ui-port", "80801"], "80801 for --ui-port. Must be <= 65535"),
        (["archive", "songs", "--days", "nan"], "nan for --days. It must be a finite number, 0 or more."),
        (["extend", ""], "for SOURCE. It is empty: leave it out, or give a value."),
        (["credits", "--base-url", ""], "for --base-url. It is empty: leave it out, or give a value."),
        (["sandbox", "--host", ""], "for --host. It is empty: leave it out, or give a value."),
        (["demo", ""], "A path is empty: leave it out, or give one."),
        (["save", "x", "--out", ""], "A path is empty: leave it out, or give one."),
    ],
)
def test_wrong_arguments_are_named(invoke: Invoke, arguments: list[str], words: str) -> None:
    """Too many or too few words are reported with the names of the usage line, and options without a position."""
    ended = invoke(*arguments)

    assert (2, "") == (ended.code, ended.out)
    assert words in ended.err.replace('"', "")  # the parser added quotes before release 5
    assert [arguments[0], "--help"] == ended.hint  # which test_help_loads_no_more_than_it_shows runs


def test_a_blank_variable_is_none(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blank variable, as an orchestrator's template leaves it, counts as unset, and is still there after."""
    for name in ("PROVIDER", "WAIT_TIMEOUT", "LOG_FORMAT", "STORE"):
        monkeypatch.setenv(f"AUDIOEXT_{name}", " ")

    ended = invoke("wait", "x", *MEMORY)

    assert 8 == ended.code, ended.err
    assert " " == os.environ["AUDIOEXT_PROVIDER"]


@pytest.mark.parametrize("columns", ["0", "1", "19"])
def test_help_for_hardly_any_columns_is_twenty_wide(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """Help ends at once for a terminal that says it has no width."""
    monkeypatch.setenv("COLUMNS", columns)

    assert [20, 20] == [max(map(len, invoke(*words).out.splitlines())) for words in (["--help"], ["jobs", "--help"])]


def test_a_misspelt_command_is_one_sentence_and_exit_code_2(invoke: Invoke) -> None:
    """A wrong word or value gives one sentence on stderr and nothing on stdout."""
    for arguments in (["exten"], ["extend", "a.wav", "--continue-at", "soon"], ["extend"], ["jobs", "--colour"]):
        ended = invoke(*arguments)
        assert (2, "") == (ended.code, ended.out)
        assert ended.err.startswith("audioext: ")


@pytest.mark.parametrize(
    "before",
    [
        ["jobs"],
        ["show"],
        ["wait", "x", "--timeout"],
        ["wait", "x", "--store"],
        ["jobs", "--since"],
        ["extend", "a", "--model"],
        ["extend", "a", "--meta"],
        ["extend", "a", "--provider"],
        ["save", "x", "--store=sqlite:///x", "--limit"],
        [],
    ],
)
def test_a_long_argument_is_cut(invoke: Invoke, before: list[str]) -> None:
    """An error repeats no long argument in full, whoever found it."""
    for long in ("x" * 50_000, "x=" * 50_000):
        *words, last = *before, long
        for ended in (invoke(*words, last), invoke(*words[:-1], f"{words[-1]}={last}") if words else invoke(last)):
            assert 0 != ended.code
            assert len(ended.err) < 700


@pytest.mark.parametrize(
    "before", [["jobs"], ["show", "--"], ["wait", "--"], ["jobs", "--since"], ["extend", "--model"], []]
)
def test_a_quoted_argument_has_no_control_characters(invoke: Invoke, before: list[str]) -> None:
    """An error repeats any argument on one line, without control characters."""
    ended = invoke(*before, "\x1b]0;a\x07\x1b[31mb\u202ec\x9b\r\nFORGED d")

    assert 0 != ended.code
    assert [] == [letter for letter in ended.out + ended.err if not (letter.isprintable() or letter == "\n")]
    assert [] == [line for line in ended.err.splitlines() if line.startswith("FORGED")]


def test_a_usage_error_is_json_with_json(invoke: Invoke) -> None:
    """With `--json` a usage error is an object too."""
    ended = invoke("extend", "--json")

    assert 2 == ended.code
    assert "UsageError" == json.loads(ended.out)["error"]["type"]


def test_python_m_audioext_is_the_same_command(spawn: Invoke) -> None:
    """`python -m audioext` runs the commands."""
    assert __version__ == spawn("--version").out.strip()


def test_ctrl_c_after_a_command_is_quiet() -> None:
    """Ctrl-C after a command is done exits with 130 and no traceback."""
    program = """
import atexit, os, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv[1:] = ["jobs", "--store", "memory://"]
from audioext.cli import main
main()
"""
    ended = run_program(program)

    assert (130, "", "no such jobs in this store\n") == (ended.returncode, ended.stdout, ended.stderr)


def test_a_second_ctrl_c_on_the_way_out_changes_nothing() -> None:
    """An interrupted command exits with 130 also if Ctrl-C is pressed again while Python ends."""
    program = """
import os, signal
class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGINT):
        kill(process, number)
os.late = Late()
from audioext.cli import app, main
app.run = lambda _: 130
main()
"""
    ended = run_program(program)

    assert (130, "", "") == (ended.returncode, ended.stdout, ended.stderr)


def test_ctrl_c_is_handled_before_anything_slow_is_loaded() -> None:
    """The time in which Python itself would print a traceback is short: not even `typing` is loaded before `main`."""
    ended = run_program("import sys; from audioext.cli import main; print({'re', 'typing'} & {*sys.modules})")

    assert ("set()\n", "") == (ended.stdout, ended.stderr)


@pytest.mark.parametrize("module", ["cyclopts", "audioext.cli.jobs", "aiohttp"])
def test_ctrl_c_while_a_command_loads_is_quiet(module: str) -> None:
    """Ctrl-C during any import exits with 130 and no output."""
    program = f"""
import os, signal, sys
class Interrupts:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
sys.argv[1:] = ["jobs"]
from audioext.cli import main
main()
"""
    ended = run_program(program)

    assert (130, "", "") == (ended.returncode, ended.stdout, ended.stderr)


def test_a_background_job_that_ignores_ctrl_c_can_be_ended() -> None:
    """SIGTERM and SIGHUP interrupt a background job whose shell disabled Ctrl-C."""
    program = """
import asyncio, os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from audioext.cli.execution import execute
from audioext.cli.options import Command
class Waits(Command):
    def load(self):
        return self.run
    async def run(self, screen):
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)
for number in (signal.SIGTERM, signal.SIGHUP):
    print(execute(Waits()))
"""
    ended = run_program(program)

    assert ("143\n129\n", 2 * "audioext: interrupted\n") == (ended.stdout, ended.stderr)
