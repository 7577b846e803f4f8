"""`audioext sandbox` and `audioext listen`: processes that others use until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from audioext.sandbox import Sandbox
from tests.integration.cli.conftest import (
    FULL,
    HOOKS,
    PATIENCE_SECONDS,
    STORE,
    Invoke,
    Start,
    read_until,
)


def read_object(process: subprocess.Popen[str]) -> Any:  # the command's own shape, which the tests pin
    """Return the next JSON object that a process prints."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    """Send the signal, and return the exit code and what was still printed."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def test_the_sandbox_serves_other_processes_until_ctrl_c(
    start: Start, invoke: Invoke, voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sandbox --json` prints one line when ready; `extend --base-url` then uses it like the real API."""
    process = start("sandbox", "--json", "--speed", "100000", "--api-key", "made-up", "--fault", "duplicate")
    ready = read_object(process)
    monkeypatch.setenv("KIE_API_KEY", ready["api_key"])

    ended = invoke(
        "extend",
        voice,
        *FULL,
        "--base-url",
        ready["bases"]["kie"],
        *HOOKS,
        "--store",
        "memory://",
        "--no-save",
        "--json",
    )
    polled = invoke(
        "extend", ready["track_ids"][0], *FULL, "--base-url", ready["bases"]["kie"],
        "--poll-every", "0.1", "--store", "memory://", "--no-save", "--json",
    )  # fmt: skip

    assert {"webhook"} == {stage["source"] for stage in ended.json["stages"]}
    assert "poll" == polled.json["stages"][-1]["source"]
    assert (0, "", "") == stop(process)
    assert "made-up" == ready["api_key"]
    assert {"kie", "sunoapi", "vidgo", "musicgpt"} == set(ready["bases"])


def test_the_sandbox_tells_a_person_how_to_use_it(start: Start) -> None:
    """Without `--json` the addresses and an example are printed; a key that was given is not."""
    process = start("sandbox", "--api-key", "made-up")
    assert process.stdout is not None
    first = process.stdout.readline()
    banner: list[str] = []
    while not banner or "audioext extend" not in banner[-1]:
        banner.append(process.stdout.readline())
    code, rest, _ = stop(process, signal.SIGTERM)
    rest = "".join(banner) + rest

    assert first.startswith("sandbox at http://127.0.0.1:")
    assert 0 == code
    assert "/musicgpt" in rest
    assert "audioext extend e2310000" in rest
    assert "made-up" not in rest


def test_a_taken_port_is_told(invoke: Invoke) -> None:
    """An address in use is a wrong setting, told in one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (
            ("sandbox", "--port", port),
            ("listen", "--public-url", "https://hooks.example.org", "--listen", port, "--store", "memory://"),
        ):
            ended = invoke(*map(str, arguments))
            assert 2 == ended.code
            assert f"cannot listen on 127.0.0.1:{port}" in ended.err


def test_listen_needs_a_public_url(invoke: Invoke) -> None:
    """A listener that nobody is told of would hear nothing."""
    ended = invoke("listen", "--store", "memory://")

    assert 2 == ended.code
    assert "--public-url" in ended.err


async def test_a_listener_takes_the_webhooks_of_another_processs_job(
    start: Start, spawn: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`listen` tells of each delivery and each stage; the submitting process listens nowhere and gets its song."""
    async with Sandbox(speed=1e5, faults=["duplicate"]) as sandbox:
        listener = start("listen", *HOOKS, *STORE, "--json")
        url = read_object(listener)["public_url"]
        submitter = start(
            "extend", sandbox.track_ids[0], *FULL, *STORE, "--base-url", sandbox.bases["kie"],
            "--public-url", url, "--listen", "none", "--no-save", "--json",
            env={"KIE_API_KEY": sandbox.api_key},
        )  # fmt: skip
        out, err = await in_thread(submitter)
        await sandbox.settled()
    code, lines, errors = stop(listener)

    song = json.loads(out)
    events = [json.loads(line) for line in lines.splitlines()]
    deliveries = [event for event in events if event["event"] == "delivery"]
    assert (0, 0, "") == (submitter.returncode, code, errors), err
    assert {"webhook"} == {stage["source"] for stage in song["stages"]}
    assert ["text", "first", "complete"] == [event["event"] for event in events if event["event"] != "delivery"]
    assert ["applied"] * 3 + ["repeat"] * 3 == sorted(one["verdict"] for one in deliveries)
    assert {song["ref"]} == {event["ref"] for event in events}


async def test_a_listener_speaks_in_lines(start: Start) -> None:
    """Without `--json` each delivery and stage is a line with the time, the provider and the ref."""
    async with Sandbox(speed=1e5) as sandbox:
        listener = start("listen", *HOOKS, *STORE)
        url = read_until(listener, "listening for").split()[2].rstrip(";")
        submitter = start(
            "extend", sandbox.track_ids[0], *FULL, *STORE, "--base-url", sandbox.bases["kie"],
            "--public-url", url, "--listen", "none", "--no-save",
            env={"KIE_API_KEY": sandbox.api_key},
        )  # fmt: skip
        await in_thread(submitter)
        await sandbox.settled()
    code, out, _ = stop(listener, signal.SIGTERM)

    assert 0 == code
    assert 3 == out.count("delivery applied")
    assert "  text +0." in out
    assert "  complete +" in out
    assert "by webhook" in out


async def in_thread(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process while the sandbox goes on in this one."""
    return await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
