"""Several processes on one SQLite file lose nothing, keep limits, hear of changes, and survive kills."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from audioext.stores.base import Created
from audioext.stores.sqlite import SqliteStore
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import create, held, listed, make_request, make_webhook

HEAD = """
import asyncio, os, sys
from audioext.models.limits import Limits
from audioext.stores import open_store
from audioext.stores.base import Created
from tests.unit.stores.journals import create, make_index, make_webhook

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def main(store, *arguments):
BODY

async def run():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    await store.open()
    await main(store, *sys.argv[2:])
    CLOSE

asyncio.run(run())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of this test's file."""
    return tmp_path / "jobs.db"


def script(body: str, *arguments: object, close: str = "await store.aclose()") -> subprocess.Popen[str]:
    """Start another process that runs *body* with an open store on the first argument."""
    code = HEAD.replace("BODY", body).replace("CLOSE", close)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


async def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for *processes* to end, and return their output."""
    said = [await asyncio.to_thread(process.communicate, timeout=60) for process in processes]
    assert [0] * len(processes) == [process.returncode for process in processes]
    return [out for out, _ in said]


async def test_processes_lose_nothing_to_each_other(path: Path) -> None:
    """Two other processes and this one append to one journal, and every entry is stored once."""
    store = SqliteStore(path)
    await store.open()
    await create(store)
    others = [
        script(
            """
    known = 0
    for number in range(50):
        hook = make_webhook(int(arguments[0]) + number)
        done = await store.append("ref", [hook], provider="kie", index=make_index(), known=known, look_at=1.0)
        known = done.count
""",
            path,
            1_000 * number,
        )
        for number in (1, 2)
    ]
    for number in range(50):
        await store.append("ref", [make_webhook(number)], provider="kie")
    await finish(*others)

    found = await held(store)
    sent = {make_webhook(start + number).id for start in (0, 1_000, 2_000) for number in range(50)}
    assert {make_request().id, *sent} == {entry.id for entry in found.entries}
    assert (151, 0) == (found.count, found.repeats)
    await store.aclose()


async def test_the_log_stays_short_while_processes_write_at_once(path: Path) -> None:
    """The log stays bounded also if there is no moment without a commit."""
    writes = """
    for number in range(1_200):
        await store.append(f"{arguments[0]} {number}", [make_webhook(1, size=8_000)], provider="kie")
    say(os.path.getsize(f"{sys.argv[1]}-wal"))
    sys.stdin.read()"""
    others = [script(writes, path, number) for number in range(3)]
    sizes = [int(await asyncio.to_thread(other.stdout.readline)) for other in others if other.stdout is not None]
    await finish(*others)

    assert 20_000_000 < path.stat().st_size
    assert 60_000_000 > max(sizes)


async def test_limits_and_keys_hold_over_processes(path: Path) -> None:
    """Three processes that create at once share the limits of an account, and agree on each key."""
    store = SqliteStore(path)
    await store.open()
    await finish(
        *(
            script(
                """
    limits = Limits(submits=7, parallel=None)
    for number in range(20):
        await create(store, f"{arguments[0]} {number}", limits=limits)
    for number in range(20):
        await create(store, f"{arguments[0]} {number} again", account="another", key=f"key {number}")
""",
                path,
                number,
            )
            for number in range(3)
        )
    )

    refs = await listed(store)
    assert (7, 20) == (sum("again" not in ref for ref in refs), sum("again" in ref for ref in refs))
    await store.aclose()


async def test_every_append_of_another_process_is_announced(path: Path, listen: Listen) -> None:
    """Every append of another process is announced here, while both also claim and append."""
    store = SqliteStore(path)
    await store.open()
    listener = await listen(store)
    other = script(
        """
    for number in range(150):
        await create(store, f"their {number}", poll_at=1.0)
        await store.claim("polls", now=2.0, until=3.0, limit=1)
""",
        path,
    )
    number = 0
    while other.poll() is None:
        await create(store, f"own {number}")
        number += 1
    await finish(other)

    await listener.until_heard(*(f"their {n}" for n in range(150)), *(f"own {n}" for n in range(number)))
    await store.aclose()


@pytest.mark.parametrize("acknowledged", [1, 130])
async def test_what_was_acknowledged_survives_a_kill(path: Path, acknowledged: int) -> None:
    """Every entry acknowledged before a SIGKILL is stored."""
    process = script(
        """
    async def climb(ref):
        await create(store, ref)
        for number in range(10_000):
            done = await store.append(ref, [make_webhook(number)], provider="kie", known=1 + number)
            say(ref, done.count)

    await asyncio.gather(*(climb(f"ref{number}") for number in range(12)))
""",
        path,
    )
    assert process.stdout is not None
    counts: dict[str, int] = {}
    with process:
        for _ in range(acknowledged):
            ref, count = (await asyncio.to_thread(process.stdout.readline)).split()
            counts[ref] = int(count)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines():  # printed before the kill
            ref, count = line.split()
            counts[ref] = int(count)

    store = SqliteStore(path)
    await store.open()
    for ref, least in counts.items():
        found = await held(store, ref)
        assert least <= found.count
        assert [make_webhook(n) for n in range(found.count - 1)] == list(found.entries[1:])
    assert Created() == await create(store, "after")
    await store.aclose()

    with closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


async def test_a_store_that_nobody_closes_ends_with_the_process(path: Path) -> None:
    """A program that forgets `aclose` still ends, and what was acknowledged is stored."""
    await finish(script("    await create(store)", path, close=""))

    store = SqliteStore(path)
    await store.open()
    assert ["ref"] == await listed(store)
    await store.aclose()


def test_back_ends_load_on_first_use() -> None:
    """Importing the stores loads neither SQLite nor Redis."""
    code = (
        "import sys, audioext.stores; print({'redis', 'apsw', 'audioext.stores.sqlite'} & set(sys.modules) or 'none')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "none\n" == said.stdout
