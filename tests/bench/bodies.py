"""Event loop time of the worst legal webhooks, against msgspec decoding the same bytes."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from yarl import URL

import audioext as ax
from audioext.http.decoding import MAX_BODY_BYTES, MAX_VALUES
from audioext.http.urls import callback_url
from audioext.models.entries import MAX_ENTRIES, make_entry
from audioext.models.record import Asked
from audioext.providers import NAMES, load
from audioext.providers.base import Provider
from audioext.runtime.held import HeldJob
from audioext.state.reading import dump_asked, read
from tests.support.processes import begun

SECRET = b"0123456789abcdef-secret"
BASE = URL("http://127.0.0.1:8080/audio")
TASK = b'"task_id":"t"'
TURNS = 3
LONGEST_MILLISECONDS = 5_000.0
MAX_TRACKS, MAX_LINES = 32, 2_000  # the limits of one list, which providers set
MOST = MAX_BODY_BYTES - 1_000  # leaves room for the rest of the body
MANY = MAX_VALUES // 4
LINK = "https://files.test/a b.mp3"

SHELLS: dict[str, dict[str, Any]] = {
    "kie": {"code": 200, "msg": "", "data": {"callbackType": "complete", "task_id": "t", "data": []}},
    "kie-jobs": {"code": 200, "msg": "", "data": {"callbackType": "complete", "task_id": "t", "data": []}},
    "sunoapi": {"code": 200, "msg": "", "data": {"callbackType": "complete", "task_id": "t", "data": []}},
    "vidgo": {"code": 200, "data": {"task_id": "t", "status": "finished", "files": []}},
    "musicgpt": {"task_id": "t", "conversion_id": "c", "conversion_path": "https://files.test/a.mp3", "success": True},
}


def shaped(name: str, *, inner: dict[str, Any] | None = None, tracks: list[Any] | None = None) -> dict[str, Any]:
    """Return a provider's webhook with more fields in the task's object, or with these *tracks*."""
    shell: dict[str, Any] = json.loads(json.dumps(SHELLS[name]))
    own = shell if name == "musicgpt" else shell["data"]
    own.update(inner or {})
    if tracks is not None:
        own["files" if name == "vidgo" else "data"] = tracks
    return shell


def some(word: str, count: int) -> list[str]:
    """Return *count* spellings of a key."""
    return [word + "_" * number for number in range(1, count + 1)]


def bodies(name: str) -> dict[str, bytes]:
    """Return bodies of nearly a mebibyte, by the content that fills them."""
    line = {"start": 1, "end": 2, "text": "la"}
    song = {"id": "a", "audio_url": "https://files.test/a.mp3"}
    songs = [{**song, "id": str(number)} for number in range(MAX_TRACKS)]
    keys = {f"k{number}": 1 for number in range(MAX_VALUES - 100)}
    few = MAX_VALUES // MAX_TRACKS - 20
    nested: Any = "x" * 1_000
    for _ in range(10):
        nested = json.dumps({"data": nested})
    deep: Any = 1
    for _ in range(55):
        deep = [deep]
    found = {
        "one text": shaped(name, tracks=[{**song, "title": "x" * MOST}]),
        "a text of escapes": shaped(name, tracks=[{**song, "lyrics": "\u2028" * (MOST // 6)}]),
        "a message": shaped(
            name, inner={"errorMessage": "word " * (MOST // 5), "status": "FAILED", "callbackType": "error"}
        ),
        "many messages": shaped(
            name,
            inner={**dict.fromkeys(some("error", 1_000), "no " * 100), "status": "FAILED", "callbackType": "error"},
        ),
        "keys beside a task": shaped(name, inner=keys),
        "keys of a failure": shaped(name, inner={**keys, "status": "FAILED", "callbackType": "error"}),
        "keys of a track": shaped(name, tracks=[{**song, **keys}]),
        "keys of many tracks": shaped(
            name, tracks=[{**one, **dict(itertools.islice(keys.items(), few))} for one in songs]
        ),
        "spellings of a link": shaped(
            name, tracks=[{**one, **dict.fromkeys(some("audio_url", 150), LINK + "?" * 20)} for one in songs]
        ),
        "long links": shaped(
            name, tracks=[{**one, **dict.fromkeys(some("url", 3), LINK + "x" * 8_000)} for one in songs]
        ),
        "times": shaped(
            name,
            tracks=[{**one, **dict.fromkeys(some("create_time", 500), "2026-01-01T00:00:00+01:00")} for one in songs],
        ),
        "lyric lines": shaped(
            name, tracks=[{**one, "lyrics_timestamped": [line] * min(MAX_LINES, few // 4)} for one in songs]
        ),
        "lyric lines, more tracks": shaped(name, inner={"lyrics_timestamped": [line] * MAX_LINES}, tracks=songs),
        "lists of lists": shaped(name, inner=dict.fromkeys(some("files", 300), [[]] * MAX_TRACKS)),
        "lists of links": shaped(
            name, inner=dict.fromkeys(some("files", 300), ["https://files.test/a b.mp3"] * MAX_TRACKS)
        ),
        "JSON in JSON": shaped(name, inner=dict.fromkeys(some("data", 40), nested)),
        "JSON texts": shaped(name, inner=dict.fromkeys(some("data", 500), json.dumps([{"k": 1}] * 30))),
        "broken JSON texts": shaped(name, inner=dict.fromkeys(some("data", 40), "{" + '"k": 1,' * 300)),
        "broken JSON texts in a list": shaped(name, inner={"others": ["{" + "x" * 200] * 4_000}),
        "broken JSON texts in lists": shaped(name, inner={"others": [["{" + "x" * 200] * 60] * 60}),
        "a list of tracks that are texts": shaped(name, inner={"files": ["{" + "x" * 200] * 4_000}),
        "a link of dots": shaped(name, inner={"others": "https://" + "a." * (MOST // 2)}),
        "depth": shaped(name, inner={"deep": [deep] * (MAX_VALUES // 60)}),
        "values": {"code": 200, "data": [0] * MANY},
        "empty tracks, else as documented": {
            "code": 200,
            "data": {"task_id": "t", "callbackType": "complete", "data": [{}] * (MOST // 3)},
        },
    }
    return {what: body[:MAX_BODY_BYTES] for what, value in found.items() if (body := msgspec.json.encode(value))}


async def begin(client: ax.Client, provider: Provider, ref: str) -> HeldJob:
    """Hold a job whose POST is under way, as a submit does."""
    info, journal = provider.info, client.inbox.journal
    asked = Asked(
        provider=info.name,
        account=info.name,
        request=ax.Extend(audio_id="source", model="V5"),
        counts_tracks=info.counts_tracks,
    )
    entry = make_entry("request", time.time(), body=dump_asked(asked))
    held = begun(ref, read(entry, provider), provider)
    await client.store.create(entry, journal.index(held, held.record), limits=ax.Limits(), now=time.time())
    return journal.keep(held)


async def deliver(client: ax.Client, provider: Provider, ref: str, body: bytes) -> tuple[float, int]:
    """Return a delivery's CPU milliseconds and its status."""
    body = body.replace(TASK, b'"task_id":"' + ref.encode() + b'"', 1)
    hook = ax.Webhook(path=callback_url(BASE, SECRET, provider.info.name, ref).raw_path, body=body)
    began_at = time.process_time()
    status = await client.inbox.accept(hook)
    return (time.process_time() - began_at) * 1e3, status


def alone(body: bytes) -> float:
    """Return the CPU milliseconds that msgspec takes to decode a body."""
    began_at = time.process_time()
    with suppress(ValueError):
        msgspec.json.decode(body)
    return max((time.process_time() - began_at) * 1e3, 0.001)


def row(title: str, took: list[float], base: float, statuses: set[int]) -> None:
    """Print one body's row."""
    middle = statistics.median(took)
    print(f"  {title:54} {middle:9.2f} ms {middle / base:8.1f} x msgspec   {sorted(statuses)}")


async def measure(names: Sequence[str]) -> None:
    """Measure each body of each provider as a job's first delivery, then one job with many of the worst body."""
    refs = (f"{number:024}" for number in itertools.count())
    async with ax.Client(public_url=str(BASE), listen=None, secrets=[SECRET]) as client:
        for name in names:
            provider: Provider = load(name)("key")
            print(f"\n{name}")
            worst: tuple[float, str] = (0.0, "")
            for what, body in bodies(name).items():
                done = []
                for _ in range(TURNS):
                    ref = next(refs)
                    held = await begin(client, provider, ref)
                    done.append(await deliver(client, provider, held.ref, body))
                took = [spent for spent, _ in done]
                base = statistics.median(alone(body) for _ in range(TURNS))
                row(f"{what} ({len(body) // 1_000} kB)", took, base, {status for _, status in done})
                if {status for _, status in done} == {200}:
                    worst = max(worst, (statistics.median(took), what))
            await _measure_last(client, provider, next(refs), worst[1])


async def _measure_last(client: ax.Client, provider: Provider, ref: str, what: str) -> None:
    """Deliver the slowest body repeatedly, each time slightly different, until the journal is full."""
    held = await begin(client, provider, ref)
    body = bodies(provider.info.name)[what]
    took: list[float] = []
    status = 200
    for number in range(MAX_ENTRIES):
        spent, status = await deliver(client, provider, held.ref, body + b" " * number)
        took.append(spent)
        if sum(took) > LONGEST_MILLISECONDS:
            break
    row(f"{what}, number {len(took)} of one job", took[-TURNS:], alone(body), {status})


def run(*names: str) -> None:
    """Measure and print."""
    logging.getLogger("audioext").setLevel(logging.ERROR)
    print("The largest legal webhooks: processor time of each, and against msgspec that decodes the same bytes")
    asyncio.run(measure(names or NAMES))


if __name__ == "__main__":
    run(*sys.argv[1:])
