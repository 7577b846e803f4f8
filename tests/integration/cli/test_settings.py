"""Every command reads `audioext.toml` and the environment, and logs as configured."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from tests.integration.cli.conftest import FULL, TRACK, Invoke, aside, short_sandbox

STORE = "sqlite:///mine.db"


def write(folder: Path, text: str) -> None:
    """Write the settings file."""
    path = folder / "audioext.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


async def test_the_settings_file_replaces_all_options(invoke: Invoke, folder: Path) -> None:
    """The key, base URL, public URL and store come from the file, and do not leak into the environment."""
    before = dict(os.environ)
    async with short_sandbox() as sandbox:
        write(
            folder,
            f'store = "{STORE}"\npublic_url = "http://127.0.0.1:{{port}}/audio"\nlisten = "127.0.0.1:0"\n'
            f'confirm = "always"\n[kie]\napi_key = "{sandbox.api_key}"\nbase_url = "{sandbox.bases["kie"]}"\n',
        )
        song = await aside(invoke, "extend", TRACK, *FULL, "--no-save", "--json")
        healthy = await aside(invoke, "doctor", "--json")
        listed = await aside(invoke, "jobs", "--json")

    assert (0, 0) == (song.code, healthy.code), song.err + healthy.out
    assert song.json["ref"] == listed.json["ref"]
    assert "webhook" not in {stage["source"] for stage in song.json["stages"]}  # `confirm` trusts none
    assert (folder / "mine.db").is_file()
    assert before == dict(os.environ)


def test_an_option_beats_the_environment_which_beats_the_file(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options win over the environment, and the environment over the file."""
    write(folder, 'store = "sqlite:///file.db"')
    by_file = invoke("jobs")
    monkeypatch.setenv("AUDIOEXT_STORE", "sqlite:///environment.db")
    by_environment = invoke("jobs")
    by_option = invoke("jobs", "--store", "sqlite:///option.db")

    assert ["file.db", "environment.db", "option.db"] == [
        ended.err.split(" at ")[1].partition(";")[0] for ended in (by_file, by_environment, by_option)
    ]


def test_a_broken_settings_file_ends_every_command_but_help(invoke: Invoke, folder: Path) -> None:
    """A misspelt key in the file ends every command except help and version."""
    write(folder, 'publicurl = "https://a.test"')
    refused = invoke("jobs")
    in_json = invoke("jobs", "--json")

    assert (2, 2) == (refused.code, in_json.code)
    assert "audioext.toml: 'publicurl' is not a setting; did you mean 'public_url'?" in refused.err
    assert "did you mean" in in_json.json["error"]["message"]
    assert 0 == invoke("--help").code


@pytest.mark.parametrize("given", ["option", "file"])
async def test_log_lines_can_be_json(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Each JSON log line has the time, the level, the message, and the job it is about."""
    write(folder, 'log_format = "json"' if given == "file" else "")
    options = ("--log-format", "json") if given == "option" else ()
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        base = ("--base-url", sandbox.bases["kie"], "--poll-every", "0.1", "--no-save", "--json", "-v")
        ended = await aside(invoke, "extend", TRACK, *FULL, "--store", "memory://", *base, *options)

    logged = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    staged = [each for each in logged if each.get("stage") == "complete"]
    assert ended.json["ref"] == staged[-1]["audioext_ref"]
    assert "kie" == staged[-1]["provider"]
    assert {"info"} == {each["level"] for each in staged}
    assert all(datetime.fromisoformat(each["time"]).tzinfo is not None for each in logged)
