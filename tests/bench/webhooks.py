"""CPU and rate of a complete webhook, against an aiohttp handler that only reads the body, in one run.

`floor` is `tests.bench.floors`: the least code with the same duties.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench import others
from tests.bench.rig import LOAD_CORE, Peer, peer, pin, table

CALLBACKS = 2_000
TURNS = 7
STORES = ("memory", "sqlite", "sqlite, uvloop")
CONNECTIONS = 48
LOAD = Path(__file__).with_name("load.py")


def callback(task_id: str) -> bytes:
    """Return a complete callback as kie.ai sends it: two tracks, 1.6 kB."""
    tracks = [
        {
            "id": f"8551662c-73f4-4b47-b5b6-7b8d3f0a1c{number:02d}",
            "audio_url": f"https://cdn.example.com/files/{task_id}/{number}.mp3",
            "source_audio_url": f"https://cdn1.example.com/{task_id}-{number}.mp3",
            "stream_audio_url": f"https://cdn.example.com/stream/{task_id}-{number}",
            "source_stream_audio_url": f"https://cdn1.example.com/stream/{task_id}-{number}",
            "image_url": f"https://cdn.example.com/images/{task_id}-{number}.jpeg",
            "source_image_url": f"https://cdn1.example.com/images/{task_id}-{number}.jpeg",
            "prompt": "[Verse] Night city lights shining bright",
            "model_name": "chirp-v5",
            "title": "Iron Man",
            "tags": "electrifying, rock",
            "createTime": "2026-01-01 00:00:00",
            "duration": 198.44,
        }
        for number in range(2)
    ]
    data = {"callbackType": "complete", "task_id": task_id, "data": tracks}
    return json.dumps({"code": 200, "msg": "All generated successfully.", "data": data}).encode()


def measure(server: Peer, port: int, paths: Sequence[str], ids: Sequence[str]) -> tuple[float, float]:
    """Send a callback to each path; return CPU microseconds per callback, and callbacks per second."""
    with tempfile.NamedTemporaryFile() as file:
        for path, task_id in zip(paths, ids, strict=True):
            body = callback(task_id)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            request = head.encode() + body
            file.write(len(request).to_bytes(4, "big") + request)
        file.flush()
        before = server.ask("cpu")
        command = [sys.executable, str(LOAD), str(port), str(CONNECTIONS), file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lambda: pin(LOAD_CORE))
        return (server.ask("cpu") - before) / len(paths) * 1e6, len(paths) / float(done.stdout)


def plain(server: Peer) -> tuple[float, float]:
    """Return the same for a server without jobs."""
    return measure(server, server.ready["port"], server.ready["paths"][:CALLBACKS], ["x" * 24] * CALLBACKS)


def run(stores: Sequence[str] = STORES, turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure ours and each installed peer alternately, and print."""
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bare = stack.enter_context(peer("bare"))
        # The alternatives check no tag and wake no waiter.
        usual = {}
        if others.has("aiosqlite"):
            usual["aiosqlite, a commit each"] = stack.enter_context(
                peer("usual", f"{folder}/usual.db", module="others")
            )
        if others.has("fastapi", "uvicorn", "pydantic"):
            usual["FastAPI, pydantic, no store"] = stack.enter_context(peer("fastapi", module="others"))
        urls = {
            "memory": "-",
            "sqlite": f"sqlite:///{folder}/jobs.db",
            "sqlite, uvloop": f"sqlite:///{folder}/uvloop.db",
        }
        floors = {"floor, memory": (), "floor, sqlite": (f"{folder}/floor.db",)}
        servers = {
            name: stack.enter_context(peer("webhooks", *words, module="floors")) for name, words in floors.items()
        }
        servers |= {
            name: stack.enter_context(
                peer("webhooks+uvloop" if name.endswith("uvloop") else "webhooks", urls.get(name, name))
            )
            for name in stores
            if others.has("uvloop") or not name.endswith("uvloop")
        }
        for _ in range(turns):
            base = plain(bare)
            rows.setdefault("bare handler: µs of CPU", []).append(base[0])
            theirs = {name: plain(server) for name, server in usual.items()}
            for name, server in servers.items():
                jobs = server.ask(f"jobs {CALLBACKS}")
                spent, rate = measure(server, server.ready["port"], jobs["paths"], jobs["ids"])
                assert CALLBACKS == server.ask("waits")
                rows.setdefault(f"{name}: µs of CPU", []).append(spent)
                rows.setdefault(f"{name}: ratio by CPU", []).append(base[0] / spent)
                rows.setdefault(f"{name}: ratio by rate", []).append(rate / base[1])
                for other, (_, their_rate) in theirs.items() if name.endswith("sqlite") else ():
                    rows.setdefault(f"{name}: times the rate of {other}", []).append(rate / their_rate)
    return table("A webhook, whole way, against a bare aiohttp handler", rows)


if __name__ == "__main__":
    run(sys.argv[1:] or STORES)
