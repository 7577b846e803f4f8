"""How a command ends after Ctrl-C or a defect, and what it prints then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

import audioext as ax
from audioext.cli.execution import execute
from audioext.cli.exits import Exit
from audioext.cli.options import BaseUrl, Command, LookOptions
from audioext.cli.screen import Screen
from tests.integration.cli.conftest import STORE, Invoke, Start

REF = "r" * 24
FULL = Path("/dev/full")


@frozen(kw_only=True, slots=False)
class Fails(LookOptions, Command):
    """A command that submits a job and then fails."""

    error: BaseException
    ref: str | None = None
    is_asked: bool = False
    base_url: BaseUrl = None

    def load(self) -> Callable[[Screen], Coroutine[object, object, Exit]]:
        """Return what runs the command."""
        return self.run

    async def run(self, screen: Screen) -> Exit:
        """Raise the error."""
        screen.ref, screen.is_asked = self.ref, self.is_asked
        raise self.error


@pytest.mark.parametrize(
    ("ref", "options", "words"),
    [
        (None, {}, "interrupted"),
        (None, {"is_asked": True}, "if a task was submitted, it goes on: audioext jobs --open lists it"),
        (REF, {"store": "x", "base_url": "u"}, f"audioext wait {REF} --store x --base-url u"),
        (REF, {"store": "memory://"}, "was in memory only"),
        (REF, {"sandbox": True}, "the sandbox has ended"),
    ],
)
def test_ctrl_c_prints_how_to_continue_with_the_job(
    capsys: pytest.CaptureFixture[str], ref: str | None, options: dict[str, Any], words: str
) -> None:
    """Ctrl-C prints the command that continues with the job, or says that there is none."""
    assert 130 == execute(Fails(error=KeyboardInterrupt(), ref=ref, **options))
    assert words in capsys.readouterr().err
    assert 130 == execute(Fails(error=KeyboardInterrupt(), ref=ref, json=True, **options))
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in error["message"]
    assert ref == error["ref"]


def test_an_unexpected_error_is_reported_as_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected error exits with 1 and says how to see its traceback."""
    assert 1 == execute(Fails(error=LookupError("surprise")))
    expected = "audioext: LookupError: surprise (a defect in audioext; --debug shows where)\n"
    assert expected == capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "u"}, f"the job is complete; fetch it again: audioext save {REF}"),
        (
            {"sandbox": True},
            "a sandbox's files are gone once its command ends: extend again, which saves the tracks at once",
        ),
    ],
)
def test_a_lost_file_says_how_to_fetch_it_again(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], words: str
) -> None:
    """An error about a lost file has a hint how to fetch it again, unless it came from a sandbox that has ended."""
    assert 7 == execute(Fails(error=ax.DownloadError(["track 1: gone"]), ref=REF, **options))
    assert f"audioext: track 1: gone\n  {words}\n" == capsys.readouterr().err


def test_a_settings_error_has_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A settings error prints no hint, as there is no job to continue with."""
    assert 2 == execute(Fails(error=ax.ConfigError("no such setting"), ref=REF))
    assert "audioext: no such setting\n" == capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ax.ConfigError("`public_url=` has {port}, so `listen=` must say where"),
            "--public-url has {port}, so --listen must ",
        ),
        (ax.ConfigError("`listen=` must look like 127.0.0.1:8080"), "audioext: --listen must look like"),
        (ax.ConfigError("`base_url=` must be like https://api.example.com"), "audioext: --base-url must be like"),
        (
            ax.ConfigError("no API key for kie: set KIE_API_KEY, or pass `api_key=`"),
            "environment; --sandbox needs none",
        ),
        (
            ax.RequestError(ax.Extend.draft(continue_at=0).problems()),
            "--continue-at: must be a finite number of seconds above 0, like 150, not 0",
        ),
        (
            ax.RateLimitError("too many", provider="kie"),
            "kie: too many (not charged). Too many calls: try again later.",
        ),
        (
            ax.SourceError("not read", provider="kie"),
            "give the file itself, or pass --rehost (kie, kie-jobs and sunoapi).",
        ),
    ],
)
def test_errors_name_options_instead_of_arguments(
    capsys: pytest.CaptureFixture[str], error: ax.AudioextError, words: str
) -> None:
    """Error advice names the command's options instead of the library's arguments."""
    execute(Fails(error=error))

    assert words in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["guide"], ["guide", "--json"]])
def test_a_closed_stdout_ends_a_command_quietly(words: list[str], start: Start) -> None:
    """A closed stdout, as in `audioext … | head -0`, is not a defect, for text, help and JSON."""
    process = start(*words)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)

    assert (141, "") == (process.returncode, err)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_reported_in_one_line() -> None:
    """A full disk is reported in one line without a traceback, for every output that a closed stdout ends quietly."""
    with FULL.open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "audioext", "guide"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=30)

    assert (141, "audioext: cannot write the output: No space left on device\n") == (ended.returncode, ended.stderr)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_errors_that_cannot_be_written_have_their_exit_code() -> None:
    """A full disk behind stderr exits with the same code, also if stderr is buffered until a line ends."""
    env = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with FULL.open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "audioext", "jobs", "--store", "nosuch://"]
        assert 141 == subprocess.run(command, stderr=full, check=False, timeout=30, env=env).returncode


@pytest.mark.parametrize(("arguments", "code"), [("guide", 0), ("jobs --limit 0", 2)])
def test_closed_streams_are_no_defect(arguments: str, code: int) -> None:
    """A command whose stdout or stderr the shell closed ends with its usual code, and prints nothing in its place."""
    for closed, left in (">&-", "stderr"), ("2>&-", "stdout"):
        program = f"{sys.executable} -m audioext {arguments} {closed}"
        ended = subprocess.run(["/bin/sh", "-c", program], capture_output=True, text=True, check=False, timeout=30)
        is_shown = (left == "stdout") == (code == 0)

        assert (code, is_shown) == (ended.returncode, bool(getattr(ended, left)))


def test_mcp_with_closed_stdin_says_what_to_do(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mcp` whose stdin is closed, which Python shows as `None`, says so on one line, and makes no store."""
    monkeypatch.setattr(sys, "stdin", None)
    ended = invoke("mcp", *STORE)

    assert (2, "", []) == (ended.code, ended.out, list(folder.iterdir()))
    assert "audioext: stdin is closed: let an agent start this command, or give it --http\n" == ended.err
