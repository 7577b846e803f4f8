"""Alternative implementations, each as a process that is measured like `tests.bench.peers`.

    python -m tests.bench.others WHAT [WORD]

`usual` is an aiohttp handler that reads JSON and commits it with aiosqlite, one transaction each. `fastapi` is FastAPI
under uvicorn with a pydantic model and no store. `httpx` sends submits with `httpx.AsyncClient`. `upload` sends a file
with `audioext` or httpx, and answers with its peak memory in bytes. `life` and `suno_easy` make tasks and wait for
their songs. `dbos` waits for messages in DBOS workflows.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

import audioext as ax
from tests.bench import peers

PATHS = [f"/kie/{number:024d}/{'t' * 43}" for number in range(5_000)]


def has(*packages: str) -> bool:
    """Return whether all of *packages* are installed."""
    return all(importlib.util.find_spec(name) for name in packages)


async def usual(file: str) -> None:
    """Serve callbacks like tutorials do: parse, insert, commit."""
    import aiosqlite  # noqa: PLC0415 - may be missing

    async with aiosqlite.connect(file) as database:
        await database.execute("PRAGMA journal_mode=WAL")
        await database.execute("CREATE TABLE IF NOT EXISTS hooks (task_id TEXT, body TEXT)")

        async def handle(request: web.Request) -> web.Response:
            body = await request.json()
            row = (body["data"]["task_id"], json.dumps(body))
            await database.execute("INSERT INTO hooks VALUES (?, ?)", row)
            await database.commit()
            return web.json_response({"code": 200, "msg": "success"})

        app = web.Application()
        app.router.add_post("/{provider}/{ref}/{tag}", handle)
        await peers.serve({"port": await peers.listen(app), "paths": PATHS}, peers.cpu)


async def fastapi() -> None:
    """Serve callbacks with FastAPI, uvicorn and a model of the body."""
    import uvicorn  # noqa: PLC0415 - may be missing
    from fastapi import FastAPI  # noqa: PLC0415 - as above
    from pydantic import BaseModel  # noqa: PLC0415 - as above

    class Track(BaseModel):
        id: str
        audio_url: str
        stream_audio_url: str
        image_url: str
        prompt: str
        model_name: str
        title: str
        tags: str
        createTime: str  # noqa: N815 - the wire's
        duration: float

    class Data(BaseModel):
        callbackType: str  # noqa: N815 - the wire's
        task_id: str
        data: list[Track]

    class Callback(BaseModel):
        code: int
        msg: str
        data: Data

    app = FastAPI()

    async def handle(provider: str, ref: str, tag: str, callback: Any) -> dict[str, object]:
        return {"code": callback.code, "msg": "success"}

    handle.__annotations__["callback"] = Callback  # FastAPI cannot resolve the name of a local class
    app.post("/{provider}/{ref}/{tag}")(handle)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    await peers.serve({"port": port, "paths": PATHS}, peers.cpu)
    running.cancel()


async def httpx(base: str) -> None:
    """Send submits' JSON with httpx."""
    import httpx as library  # noqa: PLC0415 - may be missing

    body = {"audioId": peers.REQUEST.audio_id, "model": "V5", "defaultParamFlag": False, "callBackUrl": "http://x/"}
    async with library.AsyncClient(limits=library.Limits(max_connections=200)) as client:

        async def one() -> None:
            (await client.post(f"{base}/api/v1/generate/extend", json=body)).json()

        await peers.serve({}, peers.many(one))


async def upload(who: str, base: str, path: str) -> None:
    """Send a small file, then the one at *path*, and answer with the second's peak memory above the first's."""

    async def ours(file: Path) -> None:
        # MusicGPT takes the file in the submit itself.
        provider = ax.MusicGpt("key", base_url=base, limits=peers.OPEN, pace=peers.NEVER)
        async with ax.Client(provider, public_url="http://127.0.0.1:9", listen=None) as client:
            await client.extend(file=file, continue_at=1, prompt="p")

    async def theirs(file: Path) -> None:
        import httpx as library  # noqa: PLC0415 - may be missing

        async with library.AsyncClient() as client:
            with file.open("rb") as opened:
                await client.post(f"{base}/api/public/v1/extend", files={"audio_file": opened}, timeout=60)

    send = ours if who == "audioext" else theirs

    async def measured(_: list[str]) -> object:
        await send(Path(path).with_name("small.wav"))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = peak()
        await send(Path(path))
        return peak() - before

    await peers.serve({}, measured)


def peak() -> int:
    """Return the peak memory of this process in bytes since the last reset."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def life(base: str, key: str, how: str, seconds: str) -> None:
    """Make tasks at once, by webhook like our client or polling every *seconds*.

    The answer has each task's id with the time at which its song was there, and the total number of requests.
    """
    requests = 0

    async def count(*_: object) -> None:
        nonlocal requests
        requests += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(count)
    pace = ax.Pace(first=float(seconds), every=float(seconds), backoff=1.0)
    is_called = how == "webhook"
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        ax.Client(
            ax.SunoApi(key, base_url=URL(base), pace=pace),
            session=session,
            public_url="http://127.0.0.1:{port}" if is_called else None,
            listen="127.0.0.1:0" if is_called else None,
        ) as client,
    ):

        async def one(track: str) -> tuple[str | None, float]:
            job = await client.extend(audio_id=track, model="V5")
            await job
            return job.task_id, time.time()

        async def some(words: list[str]) -> object:
            ended = await asyncio.gather(*(one(words[0]) for _ in range(int(words[1]))))
            return ended, requests

        await peers.serve({}, some)


async def suno_easy(base: str, key: str, seconds: str) -> None:
    """Make the same tasks with suno-easy, which polls every 3 s unless *seconds* are given."""
    # The sandbox cannot reach that host and sends no callback.
    client = importlib.import_module("suno_easy").SunoClient(key, callback_url="https://nobody.invalid/")
    client.BASE_URL = base
    answers: list[object] = []
    client.session.hooks["response"].append(lambda answer, **_: answers.append(answer))

    def one(track: str) -> tuple[str, float]:
        task = client.music.extend(track, 1, "a", "b", "c", model="V5", wait=False)
        task.wait(poll_interval=float(seconds))
        return task.task_id, time.time()

    async def some(words: list[str]) -> object:
        count, loop = int(words[1]), asyncio.get_running_loop()
        with ThreadPoolExecutor(count) as pool:
            ended = await asyncio.gather(*(loop.run_in_executor(pool, one, words[0]) for _ in range(count)))
        return ended, len(answers)

    await peers.serve({}, some)


async def dbos(file: str, seconds: str) -> None:
    """Wait in a workflow for another process's message, and answer with the time of its arrival.

    This is how https://docs.dbos.dev/python/tutorials/workflow-communication (read 2026-11-27) waits for a payment's
    webhook. On SQLite DBOS polls every *seconds* (`notification_listener_polling_interval_sec` of
    https://docs.dbos.dev/python/reference/configuration): 1 by default, at least 0.001.
    """
    library = importlib.import_module("dbos")
    library.DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{file}",
            "notification_listener_polling_interval_sec": float(seconds),
            "run_admin_server": False,  # it needs a fixed port
            "log_level": "ERROR",
        }
    )

    async def wait() -> float:
        assert await library.DBOS.recv_async() is not None
        return time.perf_counter()

    workflow = library.DBOS.workflow()(wait)
    library.DBOS.launch()

    async def woken(words: list[str]) -> object:
        with library.SetWorkflowID(words[0]):
            handle = await library.DBOS.start_workflow_async(workflow)
        await asyncio.sleep(0.1)
        print(json.dumps("waiting"), flush=True)
        return await handle.get_result()

    await peers.serve({}, woken)


if __name__ == "__main__":
    _made = (usual, fastapi, httpx, upload, life, suno_easy, dbos)
    asyncio.run({made.__name__: made for made in _made}[sys.argv[1]](*sys.argv[2:]))
