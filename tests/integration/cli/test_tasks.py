"""`audioext extend`, `instrumental` and `credits`: what is sent, what is printed, and every exit code."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest
import soundfile

import audioext as ax
from audioext.cli.clients import OpenClient
from audioext.cli.options import LookOptions
from audioext.cli.screen import Screen
from audioext.cli.tasks import watch
from audioext.errors import cut
from audioext.models.results import Stage
from tests.integration.cli.conftest import (
    FAST,
    FULL,
    MEMORY,
    STORE,
    TRACK,
    Invoke,
    Start,
    aside,
    on_terminal,
    short_sandbox,
)
from tests.support.clock import soon

LOOPBACK = "http://127.0.0.1:1/kie"


def test_extend_saves_the_tracks_of_a_file(invoke: Invoke, voice: Path) -> None:
    """`extend` uploads a file, prints a plain line for each stage, and saves and lists the tracks."""
    ended = invoke("extend", voice, *FULL, *FAST, *MEMORY, "--out", "out")

    assert 0 == ended.code
    words = [line.split()[0] for line in ended.err.splitlines()]
    assert ["uploaded", "submitted", "text", "first", "complete", "saved", "saved"] == words
    files = [Path("out/Part 2 - take 1.mp3"), Path("out/Part 2 - take 2.mp3")]
    assert all(str(file) in ended.out for file in files)
    assert all(soundfile.info(file).duration > 20 for file in files)
    assert "\x1b" not in ended.out + ended.err


def test_extend_prints_one_json_object(invoke: Invoke, voice: Path) -> None:
    """With `--json` stdout has one object with ref, stages, tracks and meta; times are in seconds."""
    meta = ("--meta", "chat=42", "--meta", "who=Ann")
    ended = invoke("extend", voice, *FULL, *FAST, *MEMORY, *meta, "--no-save", "--json")

    shown = ended.json
    assert 0 == ended.code
    assert re.fullmatch(r"[0-9a-z]{24}", shown["ref"])
    assert ("kie", "complete", {"chat": 42, "who": "Ann"}) == (shown["provider"], shown["state"], shown["meta"])
    assert ["text", "first", "complete"] == [stage["stage"] for stage in shown["stages"]]
    assert all(isinstance(stage["seconds"], float) for stage in shown["stages"])
    assert ["Part 2", "Part 2"] == [track["title"] for track in shown["tracks"]]
    assert [] == shown["files"]


@pytest.mark.parametrize("provider", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_a_source_that_is_not_a_path_is_a_track_id(invoke: Invoke, provider: str) -> None:
    """A source that is not a path is a track id, which is extended at each API that has ids."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *MEMORY, "--no-save", "--provider", provider)

    assert 0 == ended.code
    assert "uploaded" not in ended.err
    assert 2 == ended.out.count("Part 2")


def test_poll_only_asks_for_the_status(invoke: Invoke) -> None:
    """Without a receiver the same stages come by poll."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *MEMORY, "--no-save", "--poll-only", "--json")

    assert 0 == ended.code
    assert "poll" == ended.json["stages"][-1]["source"]


def test_instrumental_accompanies_a_file(invoke: Invoke, voice: Path) -> None:
    """`instrumental` adds an accompaniment of the voice's own length."""
    fields = ("--title", "Rain", "--tags", "piano, soft", "--negative-tags", "")
    ended = invoke("instrumental", voice, *fields, *FAST, *MEMORY, "--json")

    assert 0 == ended.code
    assert ["Rain - take 1.mp3", "Rain - take 2.mp3"] == ended.json["files"]
    assert all(4.0 == pytest.approx(soundfile.info(file).duration, abs=0.2) for file in ended.json["files"])


async def test_no_wait_prints_the_ref_alone(invoke: Invoke, voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--no-wait` prints only the ref, for scripts to keep."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        options = (*FULL, *STORE, "--base-url", sandbox.bases["kie"], "--no-wait")
        ended = await aside(invoke, "extend", voice, *options)
        in_json = await aside(invoke, "extend", voice, *options, "--json", "--out", voice)  # it saves nothing there

    assert (0, 0) == (ended.code, in_json.code)
    assert re.fullmatch(r"[0-9a-z]{24}\n", ended.out)
    assert f"audioext wait {ended.out.strip()}" in ended.err
    assert {"ref", "provider", "task_id", "state"} == set(in_json.json)


def test_a_sandbox_that_ends_at_once_is_refused(invoke: Invoke, folder: Path) -> None:
    """`--no-wait` with an in-process sandbox is refused with alternatives, since its task would be lost."""
    ended = invoke("extend", TRACK, *FULL, *FAST, "--no-wait")

    assert (2, "", []) == (ended.code, ended.out, list(folder.iterdir()))
    assert "`audioext sandbox` in another terminal, and submit to it with --base-url" in ended.err


@pytest.mark.parametrize(
    "out",
    [
        *("taken", "taken/deeper", "no-entry/deeper", "link", "link/deeper"),
        *("x" * 300, f"new/{'x' * 300}", f"new/{'ü' * 128}/deeper"),
        *("/".join(40 * ["x" * 100]), "zero\0byte"),  # the files in the first would have too long a path
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_the_submit(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """Files that could not be saved are noticed before a task is paid for, and no command makes a store for them."""
    Path("taken").touch()
    Path("no-entry").mkdir()
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "no-entry")  # root may write everywhere
    Path("link").symlink_to("nowhere")
    commands = ("extend", TRACK, *FULL, *FAST), ("wait", "x"), ("mcp", *FAST)

    for ended in (invoke(*words, "--out", out) for words in commands):
        assert (2, "") == (ended.code, ended.out)
        assert f"no files can be saved in {cut(out)}: ".replace("\0", "\ufffd") in ended.err
    assert {"taken", "no-entry", "link"} == {path.name for path in Path().iterdir()}


def test_a_sandbox_needs_no_usable_address_of_the_real_api(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--sandbox` the base URLs in the environment do not matter."""
    monkeypatch.setenv("KIE_BASE_URL", "no address")
    assert 0 == invoke("extend", TRACK, *FULL, *FAST, *MEMORY, "--no-save").code


def test_with_a_log_in_json_every_line_of_stderr_is_json(invoke: Invoke) -> None:
    """`--log-format json` covers the steps, the notes and the errors of a command as well as its log."""
    fine = invoke("extend", TRACK, *FULL, *FAST, *MEMORY, "--no-save", "--json", "--log-format", "json", "-v")
    wrong = invoke("extend", TRACK, *MEMORY, "--sandbox", "--log-format", "json", "--debug")

    for ended, code, said in ((fine, 0, "complete"), (wrong, 2, "nothing was sent")):
        lines = [json.loads(line) for line in ended.err.splitlines()]
        assert code == ended.code
        assert any(said in line["message"] for line in lines)
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_credits(invoke: Invoke) -> None:
    """`credits` prints the balance as a number or an object."""
    plain, in_json = invoke("credits", *FAST), invoke("credits", *FAST, "--provider", "sunoapi", "--json")

    assert (0, "100000\n") == (plain.code, plain.out)
    assert {"provider": "sunoapi", "credits": 100_000} == in_json.json


# --- exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "arguments"),
    [
        (2, "RequestError", ("extend", "nosuch.mp3", *FAST)),
        (2, "RequestError", ("extend", "voice.wav", *FULL, "--meta", "x", *FAST)),
        (2, "ConfigError", ("extend", "voice.wav", *FULL)),
        (2, "ConfigError", ("extend", "voice.wav", *FULL, "--fault", "nonsense", *FAST)),
        (2, "ConfigError", ("extend", "voice.wav", *FULL, "--public-url", "nonsense")),
        (2, "UsageError", ("extend", "voice.wav", *FULL, "--poll-every", "0")),
        (2, "UsageError", ("extend", "voice.wav", *FULL, "--timeout", "nan")),
        (2, "UnsupportedError", ("instrumental", "voice.wav", "--title", "a", "--provider", "musicgpt", *FAST)),
        (2, "ConfigError", ("credits",)),
        (3, "ProviderError", ("extend", "unknown-id", *FULL, *FAST)),
        (3, "CreditsError", ("extend", "voice.wav", *FULL, "--fault", "code=402", *FAST)),
        (4, "JobFailedError", ("extend", "voice.wav", *FULL, "--fault", "error=text:531", *FAST)),
        (5, "StageTimeoutError", ("extend", "voice.wav", *FULL, "--sandbox", "--speed", "1", "--timeout", "0.1")),
        (6, "SubmitUnknownError", ("extend", "voice.wav", *FULL, "--fault", "lose_response", "--poll-only", *FAST)),
        (7, "DownloadError", ("extend", "voice.wav", *FULL, "--fault", "same_audio", *FAST)),
    ],
)
def test_each_kind_of_trouble_has_its_exit_code(
    invoke: Invoke, voice: Path, code: int, kind: str, arguments: tuple[str, ...]
) -> None:
    """Scripts can branch on the exit code, and on the error type in the JSON object."""
    store = MEMORY if arguments[0] != "credits" else ()
    ended = invoke(*arguments, *store, "--json")

    error = ended.json["error"]
    assert (code, kind, code) == (ended.code, error["type"], error["exit_code"])


def test_the_json_of_a_failure_has_its_cost_and_job(invoke: Invoke, voice: Path) -> None:
    """The JSON of a failure has its cost and its job as fields."""
    failed = invoke("extend", voice, *FULL, *FAST, *MEMORY, "--fault", "error=complete:531", "--json").json["error"]
    refused = invoke("extend", voice, *FULL, *FAST, *MEMORY, "--fault", "code=402", "--json").json["error"]
    invalid = invoke("extend", "nosuch.mp3", *FAST, *MEMORY, "--json").json["error"]

    assert ("531", False, "kie") == (failed["code"], failed["charged"], failed["provider"])
    assert 24 == len(failed["ref"])
    assert ("402", False, False) == (refused["code"], refused["charged"], refused["retryable"])
    assert {"file", "model", "continue_at"} == {problem["field"] for problem in invalid["problems"]}


def test_an_error_is_one_sentence_with_the_options_names(invoke: Invoke) -> None:
    """All problems come in one error without traceback, named by their options."""
    ended = invoke("extend", "nosuch.mp3", *FAST, *MEMORY, "--style-weight", "7")

    assert (2, "") == (ended.code, ended.out)
    assert "audioext: 4 problems with this request; nothing was sent:" in ended.err
    for name in ("SOURCE: ", "--model: ", "--continue-at: ", "--style-weight: "):
        assert f"\n  {name}" in ended.err
    assert "Traceback" not in ended.err


def test_a_refused_track_id_may_have_been_meant_as_a_file(invoke: Invoke) -> None:
    """A track id that lacks required fields gets a hint that it may have been meant as a file."""
    ended = invoke("extend", "song", *FAST, *MEMORY, "--title", "Rain")

    assert 2 == ended.code
    assert "\n  SOURCE: there is no file 'song', so it was taken for a track's id" in ended.err


@pytest.mark.parametrize(
    ("provider", "code", "words"), [("kie", 3, "no audio song"), ("musicgpt", 2, "the source is the track's audio URL")]
)
def test_a_track_id_that_is_none_may_have_been_meant_as_a_file(
    invoke: Invoke, provider: str, code: int, words: str
) -> None:
    """An id that the provider does not know, or takes no ids at all, gets the same hint beside the error."""
    model = ("--model", "V5") if provider == "kie" else ()
    ended = invoke("extend", "song", *FAST, *MEMORY, "--provider", provider, *model)

    assert code == ended.code
    assert "there is no file 'song', so it was taken for a track's id" in ended.err
    assert words in ended.err


def test_a_missing_key_is_named_with_its_variable(invoke: Invoke, voice: Path) -> None:
    """A missing key is named with its variable, and with `--sandbox`, which needs none."""
    ended = invoke("extend", voice, *FULL, *MEMORY)

    assert 2 == ended.code
    assert "set KIE_API_KEY in the environment; --sandbox needs none" in ended.err


def test_a_missing_key_is_not_called_an_option(invoke: Invoke, folder: Path) -> None:
    """A missing key among other problems has no option name, since there is none, and no store is created."""
    ended = invoke("extend", "nosuch.mp3")

    assert (2, []) == (ended.code, list(folder.iterdir()))
    assert "\n  no API key for kie: set KIE_API_KEY in the environment; --sandbox needs none\n" in ended.err
    assert "--api-key" not in ended.err


def test_debug_shows_the_traceback(invoke: Invoke) -> None:
    """`--debug` prints the traceback of an error."""
    ended = invoke("extend", "nosuch.mp3", *FAST, *MEMORY, "--debug")

    assert 2 == ended.code
    assert "Traceback (most recent call last)" in ended.err


def test_verbose_logs_and_hides_secrets(invoke: Invoke, voice: Path) -> None:
    """`-v` logs each webhook with its time, and hides tags and keys."""
    ended = invoke("extend", voice, *FULL, *FAST, *MEMORY, "--no-save", "-v")

    assert 0 == ended.code
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info audioext.access: ", ended.err, re.MULTILINE)
    assert '/***"' in ended.err
    assert "sandbox-key" not in ended.out + ended.err
    assert [] == re.findall(r"/[0-9a-z]{24}/[\w-]{43}", ended.err)


def test_a_warning_is_printed_without_verbose(invoke: Invoke, voice: Path) -> None:
    """A library warning is printed on stderr with the time, without `-v`."""
    ended = invoke("extend", voice, *FULL, *FAST, *MEMORY, "--fault", "lose_response", "--no-save")

    assert 0 == ended.code
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d warning audioext\.submit: job ", ended.err, re.MULTILINE)
    assert "no answer that names its task" in ended.err


def test_a_closed_stdout_prints_no_traceback(start: Start, voice: Path) -> None:
    """A closed stdout, as in `audioext … | head -0`, prints no traceback."""
    process = start("extend", voice, *FULL, *FAST, *MEMORY, "--no-save", "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)

    assert 141 == process.returncode
    assert "Traceback" not in err
    assert "Exception" not in err


@pytest.mark.parametrize(
    ("store", "sandbox", "base_url", "command"),
    [
        (None, False, None, "wait x"),
        ("sqlite:///my jobs.db", False, LOOPBACK, f"wait x --store 'sqlite:///my jobs.db' --base-url {LOOPBACK}"),
        ("redis://:password@host", False, None, "wait x"),
        ("redis://db/0", False, "https://user:password@host", "wait x --store redis://db/0"),
        (None, True, LOOPBACK, "wait x --sandbox"),
    ],
)
def test_a_hint_goes_to_the_same_store_and_api(
    store: str | None, sandbox: bool, base_url: str | None, command: str
) -> None:
    """A hint has the options of the same store and API, without a password."""
    screen = Screen(command=LookOptions(store=store, sandbox=sandbox), base_url=base_url)

    assert f"audioext {command}" == screen.hint("wait", of="x")


async def test_the_base_url_may_come_from_the_environment(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """`AUDIOEXT_BASE_URL` stands for `--base-url` in all commands."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("AUDIOEXT_BASE_URL", str(sandbox.bases["kie"]))
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        ended = await aside(invoke, "credits")

    assert (0, "100000\n") == (ended.code, ended.out)


async def test_a_wait_that_no_webhook_can_reach_says_why(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the public URL cannot be reached, polls find the stages, and the wait says what is wrong."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        address = ("--public-url", "http://127.0.0.1:1/audio", "--listen", "none", "--poll-every", "0.1")
        ended = await aside(
            invoke, "extend", TRACK, *FULL, *MEMORY, *address, "--base-url", sandbox.bases["kie"], "--no-save"
        )

    assert 0 == ended.code
    assert 1 == ended.err.count("no webhook did: the provider could not reach http://127.0.0.1:1/audio")


async def test_a_wait_polls_when_no_webhook_can_reach_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Once a wait knows that its public URL cannot be reached, it says so and polls without the quiet time."""
    async with short_sandbox() as sandbox:
        patient = ax.Pace(first=900, every=0.1, slowest=900, quiet=900)
        provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=patient)
        async with ax.Client(provider, public_url="http://127.0.0.1:1/audio", listen=None) as client:
            job = await client.extend(audio_id=TRACK, model="V5")
            screen = Screen()
            with screen.live():
                await watch(OpenClient(client=client, provider=provider, screen=screen), job, patience=0.05)

    assert Stage.COMPLETE is job.stage
    assert "no webhook has come so far: no server answers at 127.0.0.1:1: " in capsys.readouterr().err


async def test_a_long_wait_prints_one_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A long wait whose receiver can be reached prints one hint at possible causes."""
    hint, said = "/audio answers from here; is the task slow, or does a firewall", ""

    async def is_said() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return hint in said

    async with short_sandbox() as sandbox:
        provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"])
        async with ax.Client(provider, public_url="http://127.0.0.1:{port}/audio", listen="127.0.0.1:0") as client:
            sandbox.hold()
            job = await client.extend(audio_id=TRACK, model="V5")
            screen = Screen()
            with screen.live():
                watching = asyncio.create_task(
                    watch(OpenClient(client=client, provider=provider, screen=screen), job, patience=0.01)
                )
                await soon(is_said)
                sandbox.release()
                await watching

    assert ["webhook"] * 3 == [item.source for item in job.record.reached[1:]]
    assert 1 == (said + capsys.readouterr().err).count(hint)


def test_a_wait_that_is_too_short_names_what_it_waited_for(invoke: Invoke) -> None:
    """A wait that times out says that the job is not complete, and its stage."""
    ended = invoke("extend", TRACK, *FULL, "--sandbox", "--speed", "1", "--timeout", "0.1")

    assert 5 == ended.code
    assert re.search(r"job \w{24} is not complete: it is at submitted\n", ended.err)


def test_an_answer_that_was_lost_says_how_long_it_is_waited_for(invoke: Invoke) -> None:
    """A submit without a task id says until when its webhook is awaited."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *MEMORY, "--no-save", "--fault", "lose_response")

    assert 0 == ended.code
    assert re.search(r"no answer that names its task; waiting for its webhook until \d{4}-\d\d-\d\d ", ended.err)


def test_a_file_whose_name_is_not_utf8_is_sent_and_listed(invoke: Invoke, voice: Path) -> None:
    """A file name that is not valid UTF-8 is uploaded and listed."""
    odd = voice.rename(os.fsdecode(b"caf\xe9.wav"))
    ended = invoke("extend", odd, *FULL, *FAST, *STORE, "--no-save", "--json")
    listed = invoke("jobs", *STORE, "--json")

    assert (0, 0) == (ended.code, listed.code), ended.err
    assert r"caf\udce9.wav" == listed.json["source"]


@pytest.mark.parametrize("width", [30, 80])
def test_a_terminal_of_any_width_breaks_nothing_that_is_copied(invoke: Invoke, width: int) -> None:
    """Refs, ids and URLs are never wrapped on a terminal, in tables, facts and hints."""
    made = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--no-save", "--json").json
    urls = [track["audio_url"] for track in made["tracks"]]
    shown = {
        command: on_terminal(width, *command.split(), *STORE)
        for command in ("jobs", "inbox", f"show {made['ref'][:20]}")
    }
    missing = invoke("show", "nosuch", *STORE)

    assert [] == [command for command, words in shown.items() if made["ref"] not in words]
    assert [] == [url for url in urls if url not in shown[f"show {made['ref'][:20]}"]]
    assert TRACK in shown["jobs"]
    assert 3 == len(re.findall(made["ref"] + "-[0-9a-f]{24}", shown["inbox"]))
    assert 1 == len(missing.err.splitlines())
