"""The guide's programs pass `mypy --strict` and do on a sandbox what the guide says.

The plugin tests run the guide's own tests.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from asyncio import StreamReader, create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import pytest

from audioext.sandbox import Sandbox, audio
from tests.integration.cli.conftest import short_sandbox
from tests.support import pages

GUIDE = pages.ROOT / "audioext" / "SKILL.md"
NAMES = ("script", "web_app", "fastapi_app", "bot", "worker", "test_song", "agent")
"""The programs on the page, in order."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the programs and a recording."""
    for name, block in zip(NAMES, pages.blocks(GUIDE), strict=True):
        (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
    (tmp_path / "voice.wav").write_bytes(audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav"))
    for name in [name for name in os.environ if name.startswith("AUDIOEXT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def line_with(stream: StreamReader | None, word: str) -> str:
    """Read up to the line with *word*, and return that line."""
    assert stream is not None
    while line := (await stream.readline()).decode():
        if word in line:
            return line.strip()
    message = f"there was no line with {word!r}"
    raise AssertionError(message)


async def sung(url: str, sandbox: Sandbox) -> dict[str, object]:
    """Order a song from a new app, wait for its webhooks, and return what it shows."""
    wanted = {"url": sandbox.tune_url, "continue_at": 2, "key": "mine"}
    async with aiohttp.ClientSession(url) as session:
        async with session.post("/songs", json={**wanted, "url": "nowhere"}) as refused:
            assert 400 == refused.status
        async with session.post("/songs", json={"continue_at": 2, "key": "mine"}) as unclear:
            assert unclear.status in {400, 422}  # FastAPI answers 422
        async with session.post("/songs", json=wanted) as accepted:
            ref = (await accepted.json())["ref"]
            assert 202 == accepted.status
        await sandbox.settled()
        async with session.get("/songs/nobodys") as missing:
            assert 404 == missing.status
        async with session.get(f"/songs/{ref}") as answer:
            found: dict[str, object] = await answer.json()
    return found


@pytest.mark.types
@pytest.mark.timeout(300)  # mypy reads fastapi, pydantic and mcp without a cache
async def test_the_programs_pass_mypy_strict(folder: Path) -> None:
    """The guide's programs pass `mypy --strict` unchanged."""
    command = ("-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), *(f"{name}.py" for name in NAMES))
    process = await create_subprocess_exec(sys.executable, *command, stdout=PIPE, env={"MYPYPATH": str(pages.ROOT)})
    out, _ = await process.communicate()

    assert f"Success: no issues found in {len(NAMES)} source files" == out.decode().strip()


async def test_the_script_saves_both_tracks_and_finds_its_job_again(folder: Path) -> None:
    """The script saves both tracks, and a second run finds its job instead of submitting again."""
    reach = {"AUDIOEXT_PUBLIC_URL": "http://127.0.0.1:{port}", "AUDIOEXT_LISTEN": "127.0.0.1:0"}  # sooner than a poll
    async with short_sandbox() as sandbox:
        lines = await pages.run("script.py", "voice.wav", sandbox=sandbox, **reach)
        again = await pages.run("script.py", "voice.wav", sandbox=sandbox, **reach)
        assert 1 == len(sandbox.submissions)

    assert ["text", "first", "complete"] == [line.split()[0] for line in lines[:3]]
    assert [True] * 2 == [Path(line).is_file() for line in lines[3:]]
    assert lines == again


@pytest.mark.parametrize("name", ["script", "agent"])
def test_a_program_without_its_file_says_how_it_is_called(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program without its file argument ends with its usage in one line."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(f"{name}.py", run_name="__main__")

    assert f"usage: python {name}.py VOICE" == ended.value.code


@pytest.mark.parametrize("name", ["web_app", "fastapi_app"])
async def test_the_apps_show_the_song(folder: Path, unused_tcp_port: int, name: str) -> None:
    """An app accepts an order at once, and shows the song after its webhooks."""
    url, port = f"http://127.0.0.1:{unused_tcp_port}", str(unused_tcp_port)
    run_app = f"""
from aiohttp import web
import web_app
web.run_app(web_app.make_app(), host="127.0.0.1", port={port}, print=lambda text: print(text, flush=True))
"""
    command = ("-m", "uvicorn", f"{name}:app", "--port", port) if name == "fastapi_app" else ("-c", run_app)
    async with (
        short_sandbox() as sandbox,
        pages.running(*command, sandbox=sandbox, AUDIOEXT_PUBLIC_URL=f"{url}/audio") as process,
    ):
        if name == "fastapi_app":
            await line_with(process.stderr, "Uvicorn running")
        else:
            await line_with(process.stdout, "Running on")
        found = await sung(url, sandbox)

    assert "COMPLETE" == found["verdict"]
    assert isinstance(found["links"], list)
    assert 2 == len(found["links"])


@pytest.mark.parametrize(("faults", "last"), [((), "here you are"), (("error=complete:501",), "that did not work")])
async def test_the_bot_answers(folder: Path, unused_tcp_port: int, faults: tuple[str, ...], last: str) -> None:
    """The bot answers a message with its song, or with an error and what was charged."""
    address = f"127.0.0.1:{unused_tcp_port}"
    reach = {"AUDIOEXT_PUBLIC_URL": f"http://{address}", "AUDIOEXT_LISTEN": address}
    async with (
        short_sandbox(faults=faults) as sandbox,
        pages.running("bot.py", sandbox=sandbox, **reach) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(f"{sandbox.tune_url}\n".encode())
        said = await line_with(process.stdout, last)

    assert said.startswith("42: ")


async def test_a_worker_saves_a_song_whose_webhooks_a_listener_accepted(folder: Path, unused_tcp_port: int) -> None:
    """A listener and a worker share a store: the worker submits, and saves after the listener's webhooks."""
    url = f"http://127.0.0.1:{unused_tcp_port}/audio"
    listen = ("-m", "audioext", "listen", "--store", "sqlite:///shared.db", "--public-url", url, "--json")
    async with (
        short_sandbox() as sandbox,
        pages.running(*listen, "--listen", f"127.0.0.1:{unused_tcp_port}", sandbox=sandbox) as listener,
    ):
        await line_with(listener.stdout, "listening")
        async with pages.running("worker.py", sandbox.tune_url, sandbox=sandbox, AUDIOEXT_PUBLIC_URL=url) as worker:
            saved = [await line_with(worker.stdout, "saved") for _ in range(2)]
        heard = json.loads(await line_with(listener.stdout, '"complete"'))

    assert "webhook" == heard["source"]
    assert [True] * 2 == [Path(line.removeprefix("saved ")).is_file() for line in saved]


async def test_the_agent_saves_its_song(folder: Path) -> None:
    """The program that calls the MCP tools saves two files; the server's own sandbox keeps no jobs for the next one."""
    async with short_sandbox() as sandbox:  # the program uses its own sandbox
        (line,) = await pages.run("agent.py", "voice.wav", sandbox=sandbox)

    assert 2 == line.count(".mp3")
    assert [] == list(folder.glob("*.db"))
