"""`audioext sandbox` and `audioext listen` serve other processes until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.integration.cli.conftest import (
    FULL,
    HOOKS,
    MEMORY,
    PATIENCE_SECONDS,
    STORE,
    TRACK,
    Invoke,
    Serve,
    Start,
    aside,
    read_until,
    short_sandbox,
)
from tests.support.warm import WarmCommand


def read_object(process: subprocess.Popen[str] | WarmCommand) -> Any:  # the command's own shape, which the tests pin
    """Return the next JSON object that a process prints."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def stop(process: subprocess.Popen[str] | WarmCommand, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    """Send the signal, and return the exit code and the remaining output."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.wait(), out, err


def test_the_sandbox_serves_other_processes_until_ctrl_c(
    start: Start, invoke: Invoke, voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sandbox --json` prints one line when ready; `extend --base-url` then uses it like the real API."""
    process = start("sandbox", "--json", "--speed", "100000", "--api-key", "made-up", "--fault", "duplicate")
    ready = read_object(process)
    monkeypatch.setenv("KIE_API_KEY", ready["api_key"])

    api = ("--base-url", ready["bases"]["kie"], *MEMORY, "--no-save", "--json")
    ended = invoke("extend", voice, *FULL, *api, *HOOKS)
    polled = invoke("extend", ready["track_ids"][0], *FULL, *api, "--poll-every", "0.1")

    assert {"webhook"} == {stage["source"] for stage in ended.json["stages"]}
    assert "poll" == polled.json["stages"][-1]["source"]
    assert (0, "", "") == stop(process)
    assert "made-up" == ready["api_key"]
    assert {"kie", "sunoapi", "vidgo", "musicgpt"} == set(ready["bases"])


def test_a_taken_port_is_named(invoke: Invoke) -> None:
    """An address in use is a settings error in one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (
            ("sandbox", "--port", port),
            ("listen", "--public-url", "https://hooks.example.org", "--listen", port, "--store", "memory://"),
            ("mcp", "--http", port, "--store", "memory://"),
            ("sandbox", "--ui", "--ui-port", port),
        ):
            ended = invoke(*map(str, arguments))
            assert 2 == ended.code
            assert re.search(
                rf" 127\.0\.0\.1:{port}: address already in use; choose another ", ended.err, re.IGNORECASE
            )
            assert 1 == ended.err.count(str(port))


def test_an_address_of_another_machine_is_named(invoke: Invoke) -> None:
    """For an address of another machine the error says to change the host."""
    ended = invoke("sandbox", "--host", "192.0.2.1")

    assert 2 == ended.code
    assert "choose another --host or --port" in ended.err


def test_a_taken_port_hints_at_a_running_listener(serve: Serve, invoke: Invoke) -> None:
    """If the port of `--listen` is taken, the error says how to leave listening to a running `audioext listen`."""
    listener = serve("listen", *HOOKS, *STORE, "--json")
    url = read_object(listener)["public_url"]
    port = url.partition("127.0.0.1:")[2].partition("/")[0]
    ended = invoke("extend", TRACK, *FULL, *STORE, "--public-url", url, "--listen", port)

    assert 2 == ended.code
    assert "choose another --listen, or `--listen none` where `audioext listen` runs there" in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--public-url"),
        (("--public-url", "https://a.example", "--listen", "none"), "--listen"),
        ((*HOOKS, "--metrics", "nonsense"), "--metrics must look like 127.0.0.1:9464"),
    ],
)
def test_listen_needs_an_address(invoke: Invoke, options: tuple[str, ...], words: str) -> None:
    """A listener without a public URL or without an address to listen on is refused."""
    ended = invoke("listen", "--store", "memory://", *options)

    assert 2 == ended.code
    assert words in ended.err


async def test_a_listener_accepts_the_webhooks_of_another_processs_job(
    serve: Serve, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`listen` prints each delivery and stage, and the submitting process, which does not listen, gets its song."""
    async with short_sandbox(faults=("duplicate",)) as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        listener = serve("listen", *HOOKS, *STORE, "--json")
        ready = await asyncio.to_thread(read_object, listener)
        api = ("--base-url", sandbox.bases["kie"], "--public-url", ready["public_url"], "--listen", "none")
        song = await aside(invoke, "extend", TRACK, *FULL, *STORE, *api, "--no-save", "--json")
        await sandbox.settled()
    code, lines, errors = stop(listener)

    events = [json.loads(line) for line in lines.splitlines()]
    deliveries = [event for event in events if event["event"] == "delivery"]
    assert (0, 0, "") == (song.code, code, errors), song.err
    assert STORE[1] == ready["store"]
    assert {"webhook"} == {stage["source"] for stage in song.json["stages"]}
    assert ["text", "first", "complete"] == [event["event"] for event in events if event["event"] != "delivery"]
    assert ["applied"] * 3 + ["repeat"] * 3 == sorted(one["verdict"] for one in deliveries)
    assert {song.json["ref"]} == {event["ref"] for event in events}


async def test_a_listener_serves_its_counts_to_prometheus(serve: Serve, folder: Path, unused_tcp_port: int) -> None:
    """`--metrics` without an address serves counts at the settings file's, on another port than the receiver's."""
    (folder / "audioext.toml").write_text(f'metrics = "127.0.0.1:{unused_tcp_port}"')
    listener = serve("listen", *HOOKS, *MEMORY, "--json", "--metrics")
    ready = await asyncio.to_thread(read_object, listener)
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{ready['public_url']}/kie/{'r' * 24}/{'t' * 43}", data=b"{}") as refused:
            assert 401 == refused.status
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/metrics") as response:
            text = await response.text()

    assert 0 == stop(listener)[0]
    assert 'audioext_webhooks_total{provider="kie",verdict="refused"} 1.0' in text.splitlines()


async def test_a_listener_prints_a_line_for_each_delivery_and_stage(
    serve: Serve, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `--json` each delivery and stage is a line with the time, the provider and the ref."""
    async with short_sandbox(faults=("error=first:531",)) as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        listener = serve("listen", *HOOKS, *STORE)
        ready = await asyncio.to_thread(read_until, listener, "listening for")
        url = ready.split()[2]
        api = ("--base-url", sandbox.bases["kie"], "--public-url", url, "--listen", "none")
        await aside(invoke, "extend", TRACK, *FULL, *STORE, *api, "--no-save")
        await sandbox.settled()
    code, out, _ = stop(listener, signal.SIGTERM)

    assert 0 == code
    assert f" at {URL(url).authority}; jobs in {STORE[1]}; " in ready
    assert 2 == out.count("delivery applied, ")
    assert "  text +0." in out
    assert "by webhook" in out
    assert "  failed +0." in out


def test_a_listener_behind_a_proxy_prints_the_port_that_it_listens_on(serve: Serve) -> None:
    """With `--listen HOST:0` the printed port is the one the system chose, whatever the port in the public URL is."""
    listener = serve("listen", "--public-url", "https://hooks.example.org/audio", "--listen", "127.0.0.1:0", *MEMORY)
    ready = read_until(listener, "listening for https://hooks.example.org/audio at 127.0.0.1:")
    port = int(ready.partition(" at 127.0.0.1:")[2].partition(";")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = connection.makefile().readline()

    assert 0 == stop(listener)[0]
    assert "200 OK" in answer


@pytest.mark.parametrize("command", [("listen", *HOOKS, *STORE), ("sandbox",)], ids=["listen", "sandbox"])
def test_a_server_with_ui_prints_the_link_of_its_page(serve: Serve, command: tuple[str, ...]) -> None:
    """`--ui` prints the link of the live page, which is served to this machine as long as the server runs."""
    listener = serve(*command, "--ui", "--ui-port", "0", "--json")
    read_object(listener)
    link = URL(read_object(listener)["url"])
    with socket.create_connection((str(link.host), link.port or 0)) as connection:
        connection.sendall(f"GET {link.raw_path_qs} HTTP/1.0\r\nHost: {link.authority}\r\n\r\n".encode())
        answer = connection.makefile().read()
    code, _, errors = stop(listener)

    assert "303 See Other" in answer
    assert f"audioext_page_{link.port}=" in answer
    assert (0, "") == (code, errors)
