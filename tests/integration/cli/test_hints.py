"""Every command that we print as a hint is run as printed."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import socket
from pathlib import Path

import pytest

from audioext.cli.options import LookOptions
from audioext.cli.screen import Screen
from tests.integration.cli.conftest import (
    FULL,
    MEMORY,
    PATIENCE_SECONDS,
    STORE,
    TRACK,
    Invoke,
    Serve,
    aside,
    read_until,
    short_sandbox,
)
from tests.support.api import serve_api
from tests.support.hosts import gives, serve_host


@pytest.mark.parametrize(
    ("fault", "options", "ending"),
    [
        ("", ("--no-wait",), (0, "wait")),
        ("", ("--no-save",), (0, "extend")),
        ("", ("--timeout", "0.001"), (5, "wait")),
        ("same_audio", (), (7, "save")),
        ("error=complete:531", (), (4, "show")),
        ("lose_response", ("--poll-only",), (6, "show")),
    ],
)
async def test_the_command_in_a_hint_works_as_printed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, fault: str, options: tuple[str, ...], ending: tuple[int, str]
) -> None:
    """The hint after a job is left, times out, fails, cannot be saved or continues is a command that works."""
    async with short_sandbox(faults=(fault,) if fault else ()) as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        api = ("--base-url", str(sandbox.bases["kie"]), "--poll-every", "0.1")
        ended = await aside(invoke, "extend", TRACK, *FULL, *STORE, *api, *options)
        hint = ended.hint
        again = await aside(invoke, *hint)

    assert ending == (ended.code, hint[0])
    assert (7 if fault == "same_audio" else 0) == again.code, again.err  # the same track twice stays the same


@pytest.mark.parametrize(("option", "saved"), [(("--out", "my $ongs"), 2), (("--no-save",), 0)])
async def test_the_hint_to_wait_saves_where_the_first_command_would(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], saved: int
) -> None:
    """The hint after a timeout keeps the folder of the first command, and saves nothing if that would not have."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        api = ("--base-url", str(sandbox.bases["kie"]), "--poll-every", "0.1")
        ended = await aside(invoke, "extend", TRACK, *FULL, *STORE, *api, *option, "--timeout", "0.001")
        again = await aside(invoke, *ended.hint)

    assert (5, 0) == (ended.code, again.code), again.err
    assert saved == len(list(Path().glob("**/*.mp3"))) == len(list(Path("my $ongs").glob("*.mp3")))


@pytest.mark.parametrize("track", ["--sandbox", "--", "-rf*;c"])
async def test_a_hint_works_for_an_id_that_looks_like_an_option(
    track: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint with a track id that looks like an option still extends that track."""
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    async with serve_api() as api, serve_host() as host:
        api.track, api.link = track, host.put("/a.mp3", gives())
        options = (*STORE, "--base-url", api.base, "--poll-every", "0.1", "--allow-host", "http://127.0.0.1")
        ended = await aside(invoke, "extend", TRACK, *FULL, *options)
        again = await aside(invoke, *ended.hint)

    assert (0, 0) == (ended.code, again.code), again.err
    assert [TRACK, track] == [post["audioId"] for post in api.posts]


@pytest.mark.parametrize("track", ["https://evil.test/a", "voice.wav", "/etc/passwd", "-rf *;c"])
async def test_no_hint_for_an_id_that_would_be_taken_for_something_else(
    track: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, voice: Path
) -> None:
    """No hint is printed for a track id that the command would take for a URL or a local file, or refuse."""
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    async with serve_api() as api:
        api.track = track
        options = (*MEMORY, "--base-url", api.base, "--poll-every", "0.1", "--no-save")
        ended = await aside(invoke, "extend", TRACK, *FULL, *options)

    assert (0, False) == (ended.code, "Extend a track" in ended.err)


async def test_the_hint_for_a_refused_host_works_as_printed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a refused host names the option that allows it, and the hinted `save` works with that option."""
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    async with serve_api() as api, serve_host() as host:
        api.link = host.put("/a.mp3", gives())
        ended = await aside(invoke, "extend", TRACK, *FULL, *STORE, "--base-url", api.base, "--poll-every", "0.1")
        opens = re.search(r"if it is yours, (--allow-host \S+) opens it", ended.err)
        assert opens is not None, ended.err
        again = await aside(invoke, *ended.hint, *opens[1].split())

    assert (7, "save", 0) == (ended.code, ended.hint[0], again.code), again.err
    assert f"--allow-host {host.url}" == opens[1]


def test_a_hint_works_for_a_ref_that_looks_like_an_option(invoke: Invoke) -> None:
    """A hint puts a ref that looks like an option behind `--`, so that it is looked up."""
    command = Screen(command=LookOptions(store="sqlite:///jobs.db")).hint("show", of="--json")
    Path("jobs.db").touch()
    _, *words = shlex.split(command.removeprefix("python -m "))

    assert ["show", "--store", "sqlite:///jobs.db", "--", "--json"] == words
    assert 8 == invoke(*words).code


def test_the_hint_for_an_ended_sandboxs_job_works_as_printed(invoke: Invoke) -> None:
    """The hint for a job of a sandbox that has ended shows it from the sandbox's store."""
    ended = invoke("extend", TRACK, *FULL, "--sandbox", "--speed", "1", "--timeout", "0.1")

    assert (5, ["show", "--sandbox"]) == (ended.code, ended.hint[::2])
    assert ended.hint[1] in invoke(*ended.hint).out


async def test_an_interrupted_wait_says_how_to_come_back(
    serve: Serve, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a signal the task goes on, and the hinted command gets its files."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        api = ("--base-url", str(sandbox.bases["kie"]), "--poll-every", "0.1")
        sandbox.hold("complete")
        process = serve("extend", TRACK, *FULL, *STORE, *api)
        await asyncio.to_thread(read_until, process, "submitted")
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        back = re.search(r"the task goes on. Come back to it: python -m audioext (wait .+)", err)
        assert back is not None, err
        sandbox.release()
        waited = await aside(invoke, *shlex.split(back[1]), "--out", "out")

    assert 143 == process.returncode
    assert "Traceback" not in err
    assert 0 == waited.code, waited.err
    assert 2 == len(list(Path("out").iterdir()))


def test_ctrl_c_during_a_submit_says_where_to_look(
    serve: Serve, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the API does not answer, the first Ctrl-C says what is awaited, the second exits, and the job is listed."""
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        base_url = f"http://127.0.0.1:{mute.getsockname()[1]}/kie"
        process = serve("extend", TRACK, *FULL, *STORE, "--base-url", base_url)
        connection, _ = mute.accept()
        with connection:
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            read_until(process, "Ctrl-C again exits at once")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE_SECONDS)
    listing = re.search(
        r"^audioext: interrupted; if a task was submitted, it goes on: python -m audioext (jobs .+) lists it\n\Z",
        err,
        re.MULTILINE,
    )

    assert 130 == process.returncode
    assert listing is not None, err
    assert TRACK in invoke(*shlex.split(listing[1])).out


def test_the_demo_ends_with_commands_that_work(invoke: Invoke, voice: Path) -> None:
    """Each command that the demo prints works: the same once more on its own file, and the guide."""
    ended = invoke("demo", voice, "--speed", "100000")
    commands = [
        shlex.split(line.partition(": audioext ")[2]) for line in ended.err.splitlines() if ": audioext " in line
    ]

    assert 0 == ended.code
    assert ["extend", "guide"] == [words[0] for words in commands]
    assert 0 == invoke(*commands[0], "--speed", "100000").code
    assert 0 == invoke(*commands[1]).code
    assert 4 == len(list(Path("audioext-demo").iterdir()))


def test_the_command_that_the_sandbox_prints_works(
    serve: Serve, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed command for another terminal submits to this sandbox, and does not show a key that was given."""
    process = serve("sandbox", "--speed", "100000", "--api-key", "made-up")
    lines = [process.stdout.readline()]
    while " extend e231" not in lines[-1]:
        lines.append(process.stdout.readline())
    variable, *words = shlex.split(lines[-1])
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    ended = invoke(*words[words.index("extend") :], "--no-save")
    process.terminate()

    assert lines[0].startswith("sandbox at http://127.0.0.1:")
    assert "KIE_API_KEY=…" == variable
    assert 0 == ended.code, ended.err
    assert 0 == process.wait(timeout=PATIENCE_SECONDS)
