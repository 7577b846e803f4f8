"""The examples run against the sandbox and against a server of the example API."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import re
import runpy
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from types import ModuleType
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import WSGIApplication

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from yarl import URL

import audioext as ax
from audioext.sandbox import Sandbox, audio

EXAMPLES = Path(__file__).parents[2] / "examples"
BRISK = ax.Pace(first=0.01, every=0.02)


def example(name: str) -> ModuleType:
    """Import an example from its file."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints are resolved through sys.modules
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def serve(app: web.Application, port: int) -> AsyncIterator[str]:
    """Serve *app* on loopback."""
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_the_script_saves_four_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script extends a file, then its first take, and saves both songs."""
    source = tmp_path / "voice.wav"
    source.write_bytes(audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav"))
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=BRISK)
        paths = await example("script").main(source, tmp_path / "out", client=ax.Client(kie))

    assert 4 == len({path for path in paths if path.stat().st_size > 0})
    lines = capsys.readouterr().out.splitlines()
    assert ["text", "first", "complete"] == [line.split(":")[0].strip() for line in lines]
    assert lines[-1].endswith(" 2 track(s), from a status poll")


@pytest.mark.parametrize("name", ["script", "bot_plain"])
def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A missing file ends the program with a sentence that names it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIE_API_KEY", "key")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "nowhere.mp3", *(["out"] if name == "script" else [])])
    with pytest.raises(SystemExit, match=r"nowhere\.mp3"):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


async def test_the_mounted_app_answers_with_links(unused_tcp_port: int) -> None:
    """An app with the receiver mounted returns a song's links, and 400 with all problems of a bad request."""
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        client = ax.Client(
            ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]),
            public_url=f"http://127.0.0.1:{unused_tcp_port}/audio",
            listen=None,
        )
        app = example("mounted").make_app(client)
        async with serve(app, unused_tcp_port) as url, aiohttp.ClientSession() as session:
            async with session.post(f"{url}/songs", json={"url": sandbox.tune_url, "continue_at": 2}) as response:
                answer = await response.json()
            async with session.post(f"{url}/songs", json={"url": "nowhere", "continue_at": -2}) as response:
                refused = response.status, len((await response.json())["problems"])
            for unclear in ({"continue_at": 2}, [1], None):
                async with session.post(f"{url}/songs", json=unclear) as response:
                    assert 400 == response.status
            async with session.post(f"{url}/songs", data=b"{") as response:
                assert 400 == response.status
            await sandbox.settled()

    assert 2 == len(answer["links"])
    assert (400, 2) == refused


async def test_the_fastapi_app_answers_with_links(unused_tcp_port: int) -> None:
    """The FastAPI example does the same under its own server."""
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        client = ax.Client(
            ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=300.0, quiet=300.0)),
            public_url=f"http://127.0.0.1:{unused_tcp_port}/audio",
            listen=None,
        )
        server = uvicorn.Server(uvicorn.Config(example("fastapi_app").make_app(client), port=unused_tcp_port))
        serving = asyncio.create_task(server.serve())
        wanted = {"url": sandbox.tune_url, "continue_at": 2}
        async with aiohttp.ClientSession() as session:
            while not server.started:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0)
            async with session.post(f"http://127.0.0.1:{unused_tcp_port}/songs", json=wanted) as response:
                answer = await response.json()
            wanted["continue_at"] = -2
            async with session.post(f"http://127.0.0.1:{unused_tcp_port}/songs", json=wanted) as response:
                refused = response.status
        await sandbox.settled()
        server.should_exit = True
        await serving

    assert (2, 400) == (len(answer["links"]), refused)


class QuietHandler(WSGIRequestHandler):
    """A handler without a log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        """Print nothing."""


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """The standard library's WSGI server with a thread for each request."""

    daemon_threads = True


@asynccontextmanager
async def served_by_wsgi(app: WSGIApplication, port: int) -> AsyncIterator[None]:
    """Serve *app* on loopback in threads."""
    with make_server("127.0.0.1", port, app, ThreadedServer, QuietHandler) as server:
        serving = asyncio.create_task(asyncio.to_thread(server.serve_forever, 0.01))
        try:
            yield
        finally:
            await asyncio.to_thread(server.shutdown)
            await serving


async def test_the_wsgi_app_answers_with_links(unused_tcp_port: int) -> None:
    """The WSGI example runs the client in a thread, and refuses strangers and overlong bodies."""
    async with Sandbox(speed=1e6, hmac_key="shared") as sandbox:
        url = f"http://127.0.0.1:{unused_tcp_port}"
        kie = ax.Kie(
            sandbox.api_key, base_url=sandbox.bases["kie"], webhook_key="shared", pace=ax.Pace(first=300.0, quiet=300.0)
        )
        module = example("wsgi_app")
        music = module.Music(ax.Client(kie, public_url=f"{url}/audio", listen=None))
        await asyncio.to_thread(music.start)
        async with served_by_wsgi(module.make_app(music), unused_tcp_port), aiohttp.ClientSession() as session:

            async def post(path: str, body: bytes) -> tuple[int, list[str]]:
                async with session.post(url + path, data=io.BytesIO(body)) as response:
                    return response.status, await response.json()

            status, links = await post("/songs", json.dumps({"url": sandbox.tune_url, "continue_at": 2}).encode())
            refused, _ = await post("/songs", json.dumps({"url": sandbox.tune_url, "continue_at": -2}).encode())
            left_out = await post("/songs", json.dumps({"url": sandbox.tune_url}).encode())
            await sandbox.settled()
            stranger, _ = await post("/audio/kie/ref/tag", b"{}")
            path = URL(sandbox.deliveries[0].url).path
            too_long, _ = await post(path, b" " * (ax.MAX_BODY_BYTES + 1))
        await asyncio.to_thread(music.stop)

    assert (200, 2, 400, 404, 413) == (status, len(links), refused, stranger, too_long)
    assert (400, ["continue_at: kie always needs it to extend uploaded audio"]) == left_out
    assert {200} == {delivery.status for delivery in sandbox.deliveries}


async def test_the_observed_worker_shows_numbers_a_trace_and_lines(unused_tcp_port: int) -> None:
    """The observed worker's metrics, trace and log lines name the same job, in a process with its own tracer."""
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        kie = f'ax.Kie("{sandbox.api_key}", base_url="{sandbox.bases["kie"]}", pace=ax.Pace(first=0.01, every=0.02))'
        name = "observed"
        work = f'{name}.main("{sandbox.tune_url}", client=ax.Client({kie}, metrics="127.0.0.1:{unused_tcp_port}"))'
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"import asyncio, {name}, audioext as ax; {name}.observe(); print(asyncio.run({work}).submits)",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{EXAMPLES.parent}{os.pathsep}{EXAMPLES}"},
        )
        out, err = (stream.decode() for stream in await process.communicate())

    assert 0 == process.returncode, err
    assert "('kie', 'accepted'): 1" in out
    assert {"submit kie", "poll kie", "a longer version"} == set(re.findall(r'"name": "(.+)"', out))
    assert 1 == len(set(re.findall(r'"trace_id": "(.+)"', out)))
    (ref,) = set(re.findall(r'"audioext.ref": "(.+)"', out))
    assert 2 <= len([line for line in err.splitlines() if f" INFO {ref} job {ref} at kie" in line])


async def test_a_provider_of_ones_own_works_by_webhook_and_by_poll(unused_tcp_port: int) -> None:
    """The example provider's jobs complete by webhook and by poll through its own small server."""
    hooks: list[str] = []

    async def make(request: web.Request) -> web.Response:
        hooks.append((await request.json()).get("hook", ""))
        return web.json_response({"id": "tape-1"})

    async def state(_: web.Request) -> web.Response:
        return web.json_response({"id": "tape-1", "done": True, "links": ["http://files.test/a.mp3"]})

    app = web.Application()
    app.router.add_post("/make", make)
    app.router.add_get("/state/{id}", state)
    async with serve(app, unused_tcp_port) as url:
        tape = example("custom_provider").Tape(api_key="key", base_url=url, pace=BRISK)
        assert isinstance(tape, ax.Provider)
        async with ax.Client(tape) as client:
            polled = await client.run(ax.Extend(url="http://files.test/source.mp3"))
            with pytest.raises(ax.UnsupportedError):
                await client.extend(audio_id="a")
        async with ax.Client(tape, public_url="http://127.0.0.1:{port}", listen="127.0.0.1:0") as client:
            job = await client.extend(url="http://files.test/source.mp3")
            body = json.dumps({"id": "tape-1", "done": True, "links": ["http://files.test/b.mp3"]}).encode()
            async with aiohttp.ClientSession() as session, session.post(hooks[-1], data=body) as response:
                assert 200 == response.status
            called = await job

    assert ["http://files.test/a.mp3", "http://files.test/b.mp3"] == [
        song.tracks[0].audio_url for song in (polled, called)
    ]
