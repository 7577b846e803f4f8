"""Writes to SQLite's log are heard of by inotify, and waits go on where they cannot be."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from audioext.stores import _inotify
from audioext.stores._sqlite_file import Row
from audioext.stores._sqlite_session import Bindings, Session
from audioext.stores.sqlite import SqliteStore
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import create

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file."""
    (tmp_path / "file").write_bytes(b"1")
    return tmp_path / "file"


async def heard(watching: int) -> None:
    """Wait until a descriptor is readable."""
    loop, written = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watching, written.set)
    await written.wait()
    loop.remove_reader(watching)


async def test_a_write_is_heard(file: Path) -> None:
    """A write makes the descriptor readable until its events are read, and the next one does again."""
    watching = _inotify.watch(file)
    assert watching is not None
    with closing(os.fdopen(watching, "rb", buffering=0)):
        for _ in range(2):
            with file.open("r+b") as other:
                other.write(b"2")
            await heard(watching)
            assert _inotify.holds(watching)
            with pytest.raises(BlockingIOError):
                _inotify.holds(watching)


async def test_a_deleted_file_is_not_watched_any_more(file: Path) -> None:
    """The end of the watch is told with the last event."""
    watching = _inotify.watch(file)
    assert watching is not None
    with closing(os.fdopen(watching, "rb", buffering=0)):
        file.unlink()
        await heard(watching)
        assert not _inotify.holds(watching)


def test_what_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    """There is no descriptor for a file that is not there, and none is left open."""
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    assert _inotify.watch(tmp_path / "nothing") is None
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


async def test_waits_go_on_where_no_write_can_be_heard(tmp_path: Path, listen: Listen) -> None:
    """A process that has no descriptor left looks at the file often instead."""
    waiting, other = SqliteStore(tmp_path / "jobs.db"), SqliteStore(tmp_path / "jobs.db")
    await waiting.open()
    await other.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        waiting.watch(urgent=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    listener = await listen(waiting)
    try:
        await create(other, "created")
        await listener.until_heard("created")
    finally:
        waiting.watch(urgent=False)
        await waiting.aclose()
        await other.aclose()


async def test_an_await_leaves_the_processor_alone(tmp_path: Path) -> None:
    """While a wait goes on and nothing is written, the process wakes some twenty times a second, and not 500 times."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open()
    store.watch(urgent=True)
    try:
        begin, woken = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        await asyncio.sleep(1)  # the span that is measured
        woken = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - woken
        assert woken / (time.monotonic() - begin) < 200
    finally:
        store.watch(urgent=False)
        await store.aclose()


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Yield a store in which a wait goes on."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open()
    store.watch(urgent=True)
    try:
        yield store
    finally:
        await store.aclose()


async def test_a_commit_that_the_disk_delays_is_still_looked_for(
    waiting: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write the file is checked often until its commit comes, however long the disk takes to sync it."""
    checks, rows = 0, Session.rows

    def count(session: Session, sql: str, bindings: Bindings = ()) -> list[Row]:
        nonlocal checks
        checks += "data_version" in sql
        return rows(session, sql, bindings)

    monkeypatch.setattr(Session, "rows", count)
    log = os.open(f"{waiting.path}-wal", os.O_RDWR)
    os.pwrite(log, os.pread(log, 1, 0), 0)  # as a commit writes before it syncs
    os.close(log)
    await asyncio.sleep(0.05)  # the first checks, which follow a write at once
    checks = 0
    await asyncio.sleep(0.15)  # the span that is measured
    assert checks > 15


async def test_a_busy_executor_holds_up_no_close(tmp_path: Path) -> None:
    """Closing does not wait for the program's own work in the event loop's threads."""
    free = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        work = executor.submit(free.wait, 10)
        store = SqliteStore(tmp_path / "jobs.db")
        await store.open()
        store.watch(urgent=True)
        await asyncio.wait_for(store.aclose(), 5)
        assert not work.done()
        free.set()


async def test_a_loop_that_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    """Without a close, both threads end with their event loop, and with them all descriptors."""
    before = set(threading.enumerate())
    threads = set[threading.Thread]()

    async def forget() -> None:
        store = SqliteStore(tmp_path / "jobs.db")
        await store.open()
        store.watch(urgent=True)
        threads.update(each for each in threading.enumerate() if each.name.startswith("audioext sqlite"))

    await asyncio.to_thread(asyncio.run, forget())
    for thread in threads - before:
        await asyncio.to_thread(thread.join, 5.0)
        assert not thread.is_alive()
    links = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert not [link for link in links if "inotify" in link.name or tmp_path in link.parents]
