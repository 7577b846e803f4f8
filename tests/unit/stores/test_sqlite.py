"""The SQLite store's own promises: groups of appends, the log, opening and closing, URLs, schema versions."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import pytest

from audioext.errors import ConfigError, StoreError
from audioext.models.entries import make_entry
from audioext.stores.base import Appended, Created
from audioext.stores.sqlite import Driver, SqliteStore, has_reset_bug
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import Listener, create, held, make_index, make_request, make_webhook

FAT = 4_000
"""Bytes of a body that takes a page of its own."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of this test's file."""
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Return an open store on Python's own SQLite, since these tests read its file with the same library."""
    store = SqliteStore(path, driver="sqlite3")
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture(params=["sqlite3", "apsw"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Return each driver."""
    driver: Driver = request.param
    return driver


def look(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return what another program reads from the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def jobs_without_the_log(path: Path) -> int:
    """Return how many jobs the file has without its log."""
    alone = Path(shutil.copy(path, path.with_name("alone.db")))
    ((count,),) = look(alone, "SELECT count(*) FROM jobs")
    assert isinstance(count, int)
    return count


def transactions(path: Path) -> int:
    """Return how many transactions the log holds (https://sqlite.org/fileformat2.html#the_write_ahead_log)."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    page_size = int.from_bytes(log[8:12])
    frames = (log[at : at + 24] for at in range(32, len(log), 24 + page_size))
    return sum(int.from_bytes(frame[4:8]) > 0 for frame in frames if frame[8:16] == log[16:24])


def has_heard(listener: Listener, count: int) -> bool:
    """Return whether the last change of the open job had this count."""
    return listener.counts.get("open") == count


# --- groups and the log -------------------------------------------------------------------------------------


async def test_appends_that_wait_share_a_transaction(store: SqliteStore, path: Path) -> None:
    """200 concurrent creates, and then 200 appends, take a handful of transactions."""
    await asyncio.gather(*(create(store, f"ref{number}") for number in range(200)))
    await asyncio.gather(*(store.append(f"ref{n}", [make_webhook(n)], provider="kie", known=1) for n in range(200)))

    assert 8 >= transactions(path)


async def test_an_append_that_cannot_be_stored_fails_alone(driver: Driver, path: Path) -> None:
    """An append with a number that no column can hold fails, and the others of its group are stored."""
    store = SqliteStore(path, driver=driver)
    await store.open()
    refs = [f"ref{number}" for number in range(10)]
    for ref in refs:
        await create(store, ref)

    bad = make_entry("webhook", 1.0, status=2**70)
    outcomes = await asyncio.gather(
        *(
            store.append(ref, [make_webhook(1), *([bad] if ref == "ref4" else [])], provider="kie", known=1)
            for ref in refs
        ),
        return_exceptions=True,
    )

    assert isinstance(outcomes.pop(4), StoreError)
    assert [Appended(count=2)] * 9 == outcomes
    assert (make_request("ref4"),) == (await held(store, "ref4")).entries
    await store.aclose()


async def test_appends_beside_one_that_fails_are_announced(store: SqliteStore, listen: Listen) -> None:
    """Appends beside one that fails are announced, with the last count of each journal."""
    await create(store)
    listener = await listen(store)
    hooks = [make_webhook(1), make_entry("webhook", 1.0, status=2**70), make_webhook(2)]

    await asyncio.gather(*(store.append("ref", [hook], provider="kie") for hook in hooks), return_exceptions=True)

    await listener.until(lambda listener: listener.counts == {"ref": 3})


async def test_the_log_is_moved_into_the_file_by_and_by(store: SqliteStore, path: Path) -> None:
    """After some thousand appends the file holds them without its log."""
    await asyncio.gather(*(create(store, f"ref{number}") for number in range(2_500)))
    await create(store, "last")  # stored before the checkpoint

    assert 1_000 <= jobs_without_the_log(path)


async def test_the_log_is_moved_when_it_has_been_quiet(store: SqliteStore, path: Path) -> None:
    """A single append is moved from the log into the file a moment later."""
    await create(store)

    async with asyncio.timeout(30):
        while jobs_without_the_log(path) == 0:
            await store.read("ref")


async def test_the_log_stays_short(store: SqliteStore, path: Path) -> None:
    """The log stays bounded under constant writes."""
    fat = [make_webhook(1, size=FAT)]
    for number in range(8):
        await asyncio.gather(*(store.append(f"ref{number} {n}", fat, provider="kie") for n in range(1_000)))

    assert 32_000_000 < path.stat().st_size + path.with_name("jobs.db-wal").stat().st_size
    assert 24_000_000 > path.with_name("jobs.db-wal").stat().st_size


async def test_a_slow_reader_keeps_the_log_only_while_it_reads(path: Path) -> None:
    """A long log that another program still reads is written on, and emptied after that."""
    store = SqliteStore(path, driver="apsw")  # a SQLite with the WAL-reset bug empties no log
    await store.open()
    log = path.with_name("jobs.db-wal")

    async def fill() -> None:
        fat = [make_webhook(1, size=FAT)]
        await asyncio.gather(*(store.append(f"{log.stat().st_size} {n}", fat, provider="kie") for n in range(1_000)))

    with closing(apsw.Connection(str(path))) as slow:
        slow.execute("BEGIN")
        slow.execute("SELECT count(*) FROM jobs").fetchall()
        while log.stat().st_size < 36_000_000:
            await fill()
    async with asyncio.timeout(30):
        while log.stat().st_size > 24_000_000:
            await fill()
    await store.aclose()


async def test_an_id_is_never_given_twice(store: SqliteStore, path: Path, listen: Listen) -> None:
    """After the newest journal was purged, the next appends still reach listeners on other connections."""
    other = SqliteStore(path, driver="sqlite3")
    await other.open()
    await create(store, "open")
    await store.append("closed", [make_request("closed")], provider="kie", index=make_index("closed", is_open=False))
    listener = await listen(other)
    await store.append("closed", [make_webhook(1)], provider="kie", known=1, index=make_index("closed", is_open=False))
    await listener.until(lambda listener: listener.counts.get("closed") == 2)

    for number in range(3):
        assert 1 == await store.purge(before=1e9, deliveries_kept=0)
        await store.append("open", [make_webhook(number)], provider="kie")
        await listener.until(partial(has_heard, count=2 + number))
        closed = make_index("closed", is_open=False)
        await store.append("closed", [make_request("closed")], provider="kie", index=closed)

    await other.aclose()


async def test_a_long_burst_of_another_connection_is_announced(store: SqliteStore, path: Path, listen: Listen) -> None:
    """A burst longer than one read of the changes is read by the following ones."""
    other = SqliteStore(path, driver="sqlite3")
    await other.open()
    listener = await listen(store)

    await asyncio.gather(*(create(other, f"ref{number}") for number in range(2_500)))

    await listener.until_heard(*(f"ref{number}" for number in range(2_500)))
    await other.aclose()


# --- listings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest_first", [False, True])
async def test_jobs_that_fill_many_pages_are_listed_whole(store: SqliteStore, *, newest_first: bool) -> None:
    """A listing of many pages yields each job once, with its own entries in their order."""
    refs = [f"ref{number:03}" for number in range(300)]
    await asyncio.gather(*(create(store, ref) for ref in refs))
    hooks = tuple(make_webhook(n, size=4_000_000) for n in (2, 1))
    for ref in refs[::100]:
        await store.append(ref, hooks, provider="kie", known=1)

    found = [stored async for stored in store.jobs(is_open=True, newest_first=newest_first)]

    assert sorted(refs, reverse=newest_first) == [stored.index.ref for stored in found]
    for stored in found:
        assert (make_request(stored.index.ref), *(hooks if stored.count > 1 else ())) == stored.entries


# --- open and close -----------------------------------------------------------------------------------------


async def test_a_new_file_is_its_owners_alone(path: Path, driver: Driver) -> None:
    """A new file, which holds the secret, is readable by its owner only, and later permissions are kept."""
    for mode in (0o600, 0o640):
        store = SqliteStore(path, driver=driver)
        await store.open()
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob(f"{path.name}*")}
        await store.aclose()
        assert {mode} == modes
        path.chmod(0o640)


async def test_a_closed_store_refuses(store: SqliteStore) -> None:
    """Every call on a store that is closed, or was never opened, raises `StoreError`."""
    await store.aclose()

    for refused in (store, SqliteStore(store.path)):
        with pytest.raises(StoreError, match="not open"):
            await create(refused)
        with pytest.raises(StoreError, match="not open"):
            await anext(refused.jobs())
        with pytest.raises(StoreError, match="not open"):
            await anext(refused.changes())


async def test_nothing_is_left_behind(path: Path, driver: Driver) -> None:
    """`aclose` ends all threads, and moves the log into the file."""
    before = set(threading.enumerate())
    store = SqliteStore(path, driver=driver)
    await store.open()
    await create(store)
    assert set(threading.enumerate()) > before

    await store.aclose()

    assert before == set(threading.enumerate())
    assert [path] == list(path.parent.iterdir())


async def test_a_cancelled_close_closes_all_the_same(store: SqliteStore) -> None:
    """Cancelling the caller of `aclose` leaves no thread behind."""
    task = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(one for one in asyncio.all_tasks() if one is not asyncio.current_task()))

    left = [one for one in threading.enumerate() if one.name.startswith("audioext sqlite")]
    for one in left:
        await asyncio.to_thread(one.join, 5.0)
    assert not [one for one in left if one.is_alive()]


async def test_many_first_starts_at_once(path: Path, driver: Driver) -> None:
    """Several stores that open a new file at once all work, with one secret."""
    stores = [SqliteStore(path, driver=driver) for _ in range(6)]

    await asyncio.gather(*(store.open() for store in stores))
    values = await asyncio.gather(*(store.secret("secret", os.urandom(8)) for store in stores))
    await asyncio.gather(*(store.aclose() for store in stores))

    assert 1 == len(set(values))


async def test_a_cancelled_opening_leaves_the_other_user(path: Path) -> None:
    """If two clients open one store object at once and one is cancelled, the other can use the store."""
    store = SqliteStore(path)
    cancelled = asyncio.create_task(store.open())
    other = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await other

    assert Created() == await create(store)
    await store.aclose()


@pytest.mark.parametrize("synchronous", ["normal", "full"])
async def test_a_file_may_lie_under_any_name(tmp_path: Path, driver: Driver, synchronous: str) -> None:
    """A path may contain spaces, percent signs and question marks, and every level of durability works."""
    folder = tmp_path / "a b%20c?mode=ro#d"
    folder.mkdir()
    store = SqliteStore(f"/{folder}/jobs.db", driver=driver, synchronous=synchronous)  # type: ignore[arg-type]  # one of the two
    await store.open()
    await create(store)
    await store.aclose()

    assert (folder / "jobs.db").stat().st_size > 0


# --- schema -------------------------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused(store: SqliteStore, path: Path) -> None:
    """A file of a newer release is refused, with the advice to update."""
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreError, match=r"newer release \(schema 99, this one reads \d+\): update audioext"):
        await store.open()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_file_of_release_0_1_is_refused(path: Path, driver: Driver, version: int) -> None:
    """A file of release 0.1 is refused and left as it is, with advice on what to do."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(f"PRAGMA application_id = {0x61786A62}")
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"written by audioext 0\.1: open it with 0\.1 until its jobs are done, or "):
        await SqliteStore(path, driver=driver).open()

    assert before == path.read_bytes()


async def test_another_programs_file_is_refused(path: Path, driver: Driver) -> None:
    """A database of another program is refused and left as it is."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    before = path.read_bytes()

    with pytest.raises(StoreError, match="belongs to another program"):
        await SqliteStore(path, driver=driver).open()

    assert before == path.read_bytes()


async def test_an_sqlite_with_a_known_fault_is_named(path: Path, driver: Driver) -> None:
    """A warning names the driver's SQLite version if that has the WAL-reset bug, and how to get a newer one."""
    version = sqlite3.sqlite_version if driver == "sqlite3" else apsw.sqlite_lib_version()
    store = SqliteStore(path, driver=driver)
    await store.open()

    warnings = await store.warnings()

    way = f'{sys.executable} -m pip install ".[sqlite]"'  # the package may be on no index (newcomer F)
    assert has_reset_bug(version) == any(version in warning and way in warning for warning in warnings)
    await store.aclose()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.0", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.54.1", False),
        ("4.0", False),
    ],
)
def test_the_wal_reset_bug_is_known_by_version(version: str, expected: bool) -> None:
    """The WAL-reset bug came with the write-ahead log, and was fixed in three releases."""
    assert expected == has_reset_bug(version)


async def test_one_object_serves_one_event_loop(store: SqliteStore) -> None:
    """A store object that is open on another loop is refused at once (it hung), and is free after its last user."""
    with pytest.raises(ConfigError, match=r"SqliteStore.* is in use on another event loop"):
        await asyncio.to_thread(asyncio.run, store.open())
    await store.aclose()

    await asyncio.to_thread(asyncio.run, open_and_close(store))
    await store.open()


async def test_an_opening_that_failed_leaves_the_object_free(tmp_path: Path) -> None:
    """A store object whose opening failed on one loop can be opened on another one."""
    store = SqliteStore(tmp_path / "jobs" / "jobs.db")
    with pytest.raises(StoreError):
        await asyncio.to_thread(asyncio.run, store.open())
    (tmp_path / "jobs").mkdir()

    await open_and_close(store)


async def open_and_close(store: SqliteStore) -> None:
    """Open and close *store* on the running loop."""
    await store.open()
    await store.aclose()
