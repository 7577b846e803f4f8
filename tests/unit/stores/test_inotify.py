"""Writes to SQLite's log are heard of by inotify, and waits go on where they cannot be."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from audioext.stores import _inotify
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


def descriptor() -> int | None:
    """Return the descriptor by which this process hears of writes."""
    opened = {each.name: str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}
    return next((int(name) for name, link in opened.items() if "inotify" in link), None)


async def test_waits_go_on_where_no_write_can_be_heard(tmp_path: Path, listen: Listen) -> None:
    """A process that had no descriptor left for it looks at the file often instead."""
    waiting, other = SqliteStore(tmp_path / "jobs.db"), SqliteStore(tmp_path / "jobs.db")
    numbers = list[int | None]()
    for _ in range(2):  # the first time the file is created
        await waiting.open()
        numbers.append(descriptor())
        await waiting.aclose()
    number = numbers[1]
    assert number is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        await waiting.open()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptor() is None
    await other.open()
    listener = await listen(waiting)
    try:
        await create(other, "created")
        await listener.until_heard("created")
    finally:
        await waiting.aclose()
        await other.aclose()


async def test_an_await_leaves_the_processor_alone(tmp_path: Path) -> None:
    """While a wait goes on and nothing is written, the process wakes a few times a second, and not 500 times."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open()
    try:
        begin, woken = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        await asyncio.sleep(1)  # the span that is measured
        woken = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - woken
        assert woken / (time.monotonic() - begin) < 100
    finally:
        await store.aclose()


async def test_a_process_that_writes_hears_the_others(tmp_path: Path, listen: Listen) -> None:
    """While a process commits all the time, its looks are rare; another's commit is heard of within some of its own."""
    busy, other = SqliteStore(tmp_path / "jobs.db"), SqliteStore(tmp_path / "jobs.db")
    await busy.open()
    await other.open()
    listener = await listen(busy)
    created = listener.until_heard("created")
    number = 0
    try:
        await create(busy, "own")
        heard = asyncio.ensure_future(created)
        await create(other, "created")
        while not heard.done():
            number += 1
            await create(busy, f"own{number}")
        await heard
        assert number < 200
    finally:
        await busy.aclose()
        await other.aclose()


async def test_a_busy_executor_holds_up_no_close(tmp_path: Path) -> None:
    """Closing does not wait for the program's own work in the event loop's threads."""
    free = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        work = executor.submit(free.wait, 10)
        store = SqliteStore(tmp_path / "jobs.db")
        await store.open()
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
        threads.update(each for each in threading.enumerate() if each.name.startswith("audioext sqlite"))

    await asyncio.to_thread(asyncio.run, forget())
    for thread in threads - before:
        await asyncio.to_thread(thread.join, 5.0)
        assert not thread.is_alive()
    links = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert not [link for link in links if "inotify" in link.name or tmp_path in link.parents]
