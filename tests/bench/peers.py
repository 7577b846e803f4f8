"""Measured processes: each prints a line of JSON when it is ready, and answers each line on its input.

    python -m tests.bench.peers WHAT [STORE]

`bare` and `webhooks` are servers that take callbacks, `plain` and `submits` are clients that send submits, `waiter`
awaits jobs. The answer to `cpu` is their total CPU seconds; `go N` does N submits and answers with the elapsed seconds;
a ref makes the waiter answer with the time at which its song was there, on the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from attrs import frozen

import audioext as ax
from audioext.clock import mint_id
from audioext.http.urls import callback_url
from audioext.models.entries import Index, make_entry
from audioext.models.record import Asked
from audioext.state.reading import dump_asked

SECRET = b"a secret for the benchmark"
REQUEST = ax.Extend(audio_id="e2310000-0000-4000-8000-000000000001", model="V5")
OPEN = ax.Limits()
NEVER = ax.Pace(first=9_000.0, quiet=9_000.0)

Answer = Callable[[list[str]], Awaitable[object]]


async def serve(ready: object, answer: Answer) -> None:
    """Print that we are ready, then answer each line of standard input."""
    print(json.dumps(ready), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(line.split())), flush=True)


async def cpu(_: list[str]) -> object:
    """Answer with this process's CPU seconds."""
    return time.process_time()


async def listen(app: web.Application) -> int:
    """Serve *app* on loopback and return the port."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


async def bare() -> None:
    """Serve callbacks with a handler that reads the body without parsing it."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b'{"code":200,"msg":"success"}', headers={"Content-Type": "application/json"})

    app = web.Application()
    app.router.add_post("/{provider}/{ref}/{tag}", handle)
    port = await listen(app)
    await serve({"port": port, "paths": [f"/kie/{number:024d}/{'t' * 43}" for number in range(5_000)]}, cpu)


@frozen
class Task:
    """One job of the benchmark."""

    ref: str
    task_id: str


async def webhooks(store: str | None) -> None:
    """Serve callbacks completely: tag, decoding, commit, fold, waiter and reply."""
    client = ax.Client(
        ax.Kie("key", limits=OPEN, pace=NEVER, base_url="http://127.0.0.1:9"),
        public_url="http://127.0.0.1:{port}",
        listen="127.0.0.1:0",
        store=store,
        secrets=[SECRET],
    )
    async with client:
        waits: list[asyncio.Future[ax.Song]] = []

        async def more(words: list[str]) -> object:
            if words[0] == "cpu":
                return time.process_time()
            if words[0] == "waits":  # answer once all sent webhooks have woken their waiters
                songs = await asyncio.gather(*waits)
                waits.clear()
                return len(songs)
            tasks = await jobs(client, int(words[1]))
            for task in tasks:
                job = await client.job(task.ref)
                waits.append(asyncio.ensure_future(job.result(timeout=600)))
            await asyncio.sleep(0.2)
            assert client.public_url is not None
            paths = [callback_url(client.public_url, SECRET, "kie", task.ref).path for task in tasks]
            return {"paths": paths, "ids": [task.task_id for task in tasks]}

        assert client.public_url is not None
        await serve({"port": client.public_url.port}, more)


async def jobs(client: ax.Client, count: int) -> list[Task]:
    """Store that many submitted jobs as a submit leaves them."""
    now = time.time()
    asked = dump_asked(Asked(provider="kie", account="kie", request=REQUEST, model="V5"))
    tasks = [Task(mint_id(now), f"{mint_id(now)}") for _ in range(count)]

    async def store(task: Task) -> None:
        index = Index(ref=task.ref, provider="kie", account="kie", created_at=now, task_id=task.task_id)
        await client.store.create(make_entry("request", now, body=asked), index, limits=OPEN, now=now)
        answer = json.dumps({"code": 200, "msg": "success", "data": {"taskId": task.task_id}}).encode()
        entry = make_entry("answer", now, status=200, body=answer)
        await client.store.append(task.ref, [entry], provider="kie", index=index, known=1)

    for start in range(0, count, 500):
        await asyncio.gather(*map(store, tasks[start : start + 500]))
    return tasks


async def submits(store: str | None, base: str) -> None:
    """Send submits as a client does, stored before the POST and after its answer."""
    kie = ax.Kie("key", limits=OPEN, pace=NEVER, base_url=base)
    async with ax.Client(kie, public_url="http://127.0.0.1:9", listen=None, store=store) as client:

        async def one() -> None:
            await client.submit(REQUEST)

        await serve({}, many(one))


async def waiter(store: str) -> None:
    """Await the jobs of another process."""
    async with ax.Client(ax.Kie("key", limits=OPEN, pace=NEVER), listen=None, store=store) as client:

        async def woken(words: list[str]) -> object:
            if words[0] == "cpu":
                return time.process_time()
            job = await client.job(words[0])
            wait = asyncio.ensure_future(job.result(timeout=60))
            await asyncio.sleep(0.02)
            print(json.dumps("waiting"), flush=True)
            await wait
            return time.perf_counter()

        await serve({}, woken)


async def plain(base: str) -> None:
    """Send the same JSON with a plain session."""
    body = {
        "audioId": REQUEST.audio_id,
        "model": "V5",
        "defaultParamFlag": False,
        "callBackUrl": "http://127.0.0.1:9/x",
    }
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as session:

        async def one() -> None:
            data = msgspec.json.encode(body)
            async with session.post(f"{base}/api/v1/generate/extend", data=data) as response:
                msgspec.json.decode(await response.read())

        await serve({}, many(one))


def many(one: Callable[[], Awaitable[None]], together: int = 48) -> Answer:
    """Return a command that runs *one* that many times, some *together*, and answers with the elapsed seconds."""

    async def answer(words: list[str]) -> object:
        if words[0] == "cpu":
            return time.process_time()
        left = iter(range(int(words[1])))

        async def worker() -> None:
            for _ in left:
                await one()

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(together)))
        return time.perf_counter() - began

    return answer


async def api() -> None:
    """Serve the submits of kie.ai's API."""
    count = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal count
        await request.read()
        count += 1
        return web.json_response({"code": 200, "msg": "success", "data": {"taskId": f"{count:032x}"}})

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/{path:.*}", handle)
    await serve({"port": await listen(app)}, cpu)


def main(what: str, *words: str) -> None:
    """Run one of them."""
    given: list[Any] = [None if word == "-" else word for word in words]
    found: dict[str, Callable[..., Any]] = {
        "bare": bare,
        "webhooks": webhooks,
        "plain": plain,
        "submits": submits,
        "api": api,
        "waiter": waiter,
    }
    if what.endswith("+uvloop"):
        import uvloop  # noqa: PLC0415 - an extra

        uvloop.run(found[what.removesuffix("+uvloop")](*given))
        return
    asyncio.run(found[what](*given))


if __name__ == "__main__":
    main(*sys.argv[1:])
