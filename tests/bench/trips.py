"""How many of our functions and files a webhook and a submit enter, by tracing, so that machines compare."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from aiohttp import web
from yarl import URL

import audioext as ax
from tests.bench import peers
from tests.bench.webhooks import callback

PACKAGE = str(Path(ax.__file__).parent)


@contextmanager
def traced(found: Counter[str]) -> Iterator[None]:
    """Count the entries of our functions on this thread, without generated ones."""

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            found[f"{frame.f_code.co_filename[len(PACKAGE) + 1 :]}:{frame.f_code.co_qualname}"] += 1

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def say(title: str, found: Counter[str], *, verbose: bool) -> None:
    """Print the counts."""
    files = {name.partition(":")[0] for name in found}
    print(f"{title:20} {len(files):3} files, {found.total():4} entries")
    if verbose:
        for name, count in sorted(found.items()):
            print(f"    {count:3} {name}")


def send(writer: asyncio.StreamWriter, hooks: Sequence[str]) -> None:
    """Send the latest task's callback."""
    body = callback(f"{len(hooks):024}")
    path = URL(hooks[-1]).path.encode()
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (path, len(body), body)
    )


async def run(*, verbose: bool = False) -> None:
    """Trace one submit and one webhook with a waiter, on the memory store."""
    app = web.Application()
    hooks: list[str] = []

    async def make(request: web.Request) -> web.Response:
        hooks.append((await request.json())["callBackUrl"])
        return web.json_response({"code": 200, "msg": "success", "data": {"taskId": f"{len(hooks):024}"}})

    app.router.add_post("/{path:.*}", make)
    port = await peers.listen(app)
    kie = ax.Kie("key", pace=peers.NEVER, base_url=f"http://127.0.0.1:{port}")
    async with ax.Client(kie, public_url="http://127.0.0.1:{port}", listen="127.0.0.1:0") as client:
        warm = await client.extend(audio_id="warm", model="V5")  # leaves first-use costs out of the counts
        reader, writer = await asyncio.open_connection("127.0.0.1", client.public_url.port if client.public_url else 0)
        send(writer, hooks)
        await reader.readuntil(b"}")
        await warm
        submit: Counter[str] = Counter()
        with traced(submit):
            job = await client.extend(audio_id="e231", model="V5", continue_at=60, prompt="a", style="b", title="c")
        wait = asyncio.ensure_future(job.result(timeout=60))
        for _ in range(10):  # lets the waiter start
            await asyncio.sleep(0)
        webhook: Counter[str] = Counter()
        with traced(webhook):
            send(writer, hooks)
            await reader.readuntil(b"}")
            await wait
        writer.close()
    say("a submit", submit, verbose=verbose)
    say("a webhook", webhook, verbose=verbose)


if __name__ == "__main__":
    asyncio.run(run(verbose="-v" in sys.argv))
