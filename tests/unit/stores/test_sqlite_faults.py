"""What the SQLite store does when its file, disk or another process fails it, and how it recovers."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from audioext.errors import StoreError
from audioext.stores.base import RESYNC, Appended, Created
from audioext.stores.sqlite import Driver, SqliteStore
from tests.unit.stores.conftest import Listen
from tests.unit.stores.journals import create, delivered, held, listed, make_request, make_webhook

FAT = 16_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of this test's file."""
    return tmp_path / "jobs.db"


@pytest.fixture(params=["sqlite3", "apsw"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Return each driver."""
    driver: Driver = request.param
    return driver


@pytest.fixture
async def store(path: Path, driver: Driver) -> AsyncIterator[SqliteStore]:
    """Return an open store that does not wait long for a lock."""
    store = SqliteStore(path, busy_timeout=0.05, driver=driver)
    await store.open()
    yield store
    await store.aclose()


def stranger(path: Path, driver: Driver) -> sqlite3.Connection | apsw.Connection:
    """Return a connection by the same library, since two libraries in one process would undo each other's locks."""
    return apsw.Connection(str(path)) if driver == "apsw" else sqlite3.connect(path, isolation_level=None)


async def test_a_locked_file(store: SqliteStore, path: Path, driver: Driver) -> None:
    """While another process locks the file, appends fail and reads go on; then all works again."""
    await create(store)
    with closing(stranger(path, driver)) as connection:
        connection.execute("BEGIN IMMEDIATE")

        outcomes = await asyncio.gather(
            *(store.append("ref", [make_webhook(n)], provider="kie") for n in range(3)), return_exceptions=True
        )

        assert ["was locked by another process for 0.05 s"] * 3 == [
            str(outcome).partition("jobs.db ")[2].partition(":")[0] for outcome in outcomes
        ]
        assert (make_request(),) == (await held(store)).entries
        connection.execute("ROLLBACK")

    assert Appended(count=2) == await store.append("ref", [make_webhook(9)], provider="kie", known=1)


async def test_a_call_cancelled_while_it_waits_for_the_lock(path: Path, driver: Driver) -> None:
    """A call that is cancelled while its transaction waits for another process does not run later."""
    store = SqliteStore(path, busy_timeout=0.5, driver=driver)
    await store.open()
    with closing(stranger(path, driver)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(create(store, "first"))
        await store.read("first")  # meanwhile the writer takes the first call
        second = asyncio.create_task(create(store, "second"))
        with pytest.raises(StoreError, match="was locked"):
            await first
        await store.read("second")  # meanwhile it takes the second

        second.cancel()
        await asyncio.wait([second])
        connection.execute("ROLLBACK")

    await create(store, "third")
    assert ["third"] == await listed(store)
    await store.aclose()


async def test_a_full_disk(store: SqliteStore) -> None:
    """An append that exceeds the disk fails as a whole, and works again once there is room."""
    resource = pytest.importorskip("resource", reason="this system has no limits on a file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    await create(store)
    count, said = 1, ""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        while not said:
            try:
                both = [make_webhook(count, size=FAT), make_webhook(count + 1, size=FAT)]
                count = (await store.append("ref", both, provider="kie", known=count)).count
            except StoreError as error:
                said = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "check the disk's space" in said or "free some disk space" in said
    assert count == (await held(store)).count
    assert Appended(count=count + 1) == await store.append("ref", [make_webhook(0)], provider="kie", known=count)


@contextmanager
def nobodys_folder() -> Iterator[Path]:
    """Yield a folder that this process can make read-only for itself, even as root."""
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
async def test_a_read_only_file(driver: Driver) -> None:
    """A read-only file is refused when it is opened, and opens once it may be written."""
    with nobodys_folder() as folder:
        store = SqliteStore(folder / "jobs.db", driver=driver)
        await store.open()
        await create(store)
        await store.aclose()
        (folder / "jobs.db").chmod(0o444)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)  # root may write anything, so become nobody for a moment

        with pytest.raises(StoreError, match=r"check the permissions of the file, .*-wal and -shm"):
            await store.open()

        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        (folder / "jobs.db").chmod(0o644)
        await store.open()
        assert Appended(count=2) == await store.append("ref", [make_webhook(1)], provider="kie", known=1)
        await store.aclose()


async def test_a_file_that_is_not_a_database(path: Path, driver: Driver) -> None:
    """A file that is not a database is refused and left as it is."""
    path.write_bytes(b"these are not the jobs you are looking for" * 100)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"damaged or not a SQLite database: restore it"):
        await SqliteStore(path, driver=driver).open()

    assert before == path.read_bytes()


async def test_a_damaged_file(store: SqliteStore, path: Path) -> None:
    """A damaged file is reported as such, and the store opens once the file is restored."""
    for number in range(100):
        await store.append(f"ref{number}", [make_webhook(1, size=FAT)], provider="kie")
    await store.aclose()
    good = path.read_bytes()
    path.write_bytes(good[: 40 * 4096] + b"\xa5" * (len(good) - 40 * 4096))

    with pytest.raises(StoreError, match="damaged or not a SQLite database: restore it"):
        await store.open()

    path.write_bytes(good)
    await store.open()
    assert 100 == len(await delivered(store))
    assert Appended(count=2) == await store.append("ref90", [make_webhook(2)], provider="kie", known=1)


async def test_a_damaged_entry(store: SqliteStore, path: Path, driver: Driver) -> None:
    """A damaged entry raises an error for readers of its job, and for no others."""
    for ref in ("bad", "good"):
        await create(store, ref)
    with closing(stranger(path, driver)) as connection:
        connection.execute("UPDATE entries SET headers = '{' WHERE id = 1")

    reads = (store.read(ref) for ref in ("bad", "good"))
    bad, good = await asyncio.gather(*reads, return_exceptions=True)

    assert isinstance(bad, StoreError)
    assert not isinstance(good, BaseException | None)


async def test_a_path_that_no_file_can_have_raises_store_error(tmp_path: Path, driver: Driver) -> None:
    """A path that the system cannot look up, such as one that is too long, raises `StoreError`."""
    with pytest.raises(StoreError, match="cannot be looked at: File name too long"):
        await SqliteStore(tmp_path / ("x" * 300), driver=driver).open()


async def test_a_missing_folder(tmp_path: Path, driver: Driver) -> None:
    """A missing folder is named in the error, and the store opens once it exists."""
    store = SqliteStore(tmp_path / "not" / "there" / "jobs.db", driver=driver)
    with pytest.raises(StoreError, match=r"the folder .*there of the SQLite file does not exist: make it"):
        await store.open()

    (tmp_path / "not" / "there").mkdir(parents=True)

    await store.open()
    await store.aclose()


async def test_a_relative_path_needs_a_working_folder(
    tmp_path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path in a working folder that was removed raises `StoreError`."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(StoreError, match=r"the working folder is gone: give jobs\.db as an absolute path"):
        await SqliteStore("jobs.db", driver=driver).open()


async def test_a_folder_is_refused(tmp_path: Path, driver: Driver) -> None:
    """A path that is a folder is refused, and keeps its permissions."""
    tmp_path.chmod(0o1777)

    with pytest.raises(StoreError, match="is a folder"):
        await SqliteStore(tmp_path, driver=driver).open()

    assert 0o1777 == stat.S_IMODE(tmp_path.stat().st_mode)


async def test_a_deleted_file(store: SqliteStore, path: Path, listen: Listen) -> None:
    """While its file is moved away, the store refuses all calls; once it is back, calls and changes go on."""
    await create(store)
    listener = await listen(store)
    away = path.rename(path.with_name("away.db"))

    for refused in (store.append("ref", [make_webhook(1)], provider="kie"), create(store, "another"), held(store)):
        with pytest.raises(StoreError, match=r"was deleted or moved: put it back"):
            await refused

    away.rename(path)
    assert (await store.append("ref", [make_webhook(2)], provider="kie")).count >= 2
    other = SqliteStore(path, driver=store.driver)
    await other.open()
    await create(other, "theirs")
    await listener.until_heard("ref", "theirs")
    await other.aclose()


async def test_a_replaced_file(store: SqliteStore, path: Path) -> None:
    """A file that replaced the store's own is refused until the store is opened again."""
    await create(store)
    await store.aclose()
    other = path.with_name("other.db")
    shutil.copy(path, other)
    await store.open()
    other.replace(path)

    with pytest.raises(StoreError, match="was emptied or replaced"):
        await create(store, "another")
    with pytest.raises(StoreError, match="was emptied or replaced"):
        await store.read("ref")


async def test_an_emptied_file(store: SqliteStore, path: Path) -> None:
    """An empty file in place of the store's own is refused, and the log is not thrown away."""
    await create(store)
    away = path.rename(path.with_name("away.db"))
    path.touch()

    with pytest.raises(StoreError, match="was emptied or replaced"):
        await create(store, "another")

    away.replace(path)
    assert Created() == await create(store, "another")


@pytest.mark.parametrize("refilled", [0, 1, 9])
async def test_a_file_whose_rows_are_gone(
    store: SqliteStore, path: Path, driver: Driver, listen: Listen, refilled: int
) -> None:
    """Deleted rows cause a resync, even if as many are new, and later appends are announced."""
    other = SqliteStore(path, driver=driver)
    await other.open()
    for number in range(3):
        await create(other, f"ref{number}")
    listener = await listen(store)
    await create(other, "before")
    await listener.until_heard("before")

    with closing(stranger(path, driver)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM entries")
        connection.execute("DELETE FROM jobs")
        for number in range(refilled):
            connection.execute(
                "INSERT INTO entries (job, said, at, kind, status, note, body) "
                "VALUES (?, 'x', 1.0, 'webhook', 0, '', x'')",
                (number,),
            )
        connection.execute("COMMIT")
    await listener.until(lambda listener: RESYNC in listener.heard)
    await create(other, "after")
    await listener.until(lambda listener: "after" in listener.counts)

    await other.aclose()


# --- owner and permissions -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o600), (0o606, 0o600), (0o660, 0o600), (0o644, 0o644)])
async def test_an_empty_file_that_others_may_write_is_made_private(
    path: Path, driver: Driver, mode: int, expected: int
) -> None:
    """An empty file with open permissions is made private before the secret is written."""
    path.touch()
    path.chmod(mode)
    store = SqliteStore(path, driver=driver)

    await store.open()
    await create(store)

    assert {expected} == {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("jobs.db*")}
    await store.aclose()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
async def test_a_file_that_anybody_may_write_is_made_private(store: SqliteStore, path: Path, driver: Driver) -> None:
    """A file that anybody may write is made private, with its log; permissions of a group are kept."""
    files = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
    await create(store)
    for before, after in ((0o666, 0o600), (0o660, 0o660)):
        for file in files:
            file.chmod(before)
        other = SqliteStore(path, driver=driver)
        await other.open()
        assert [after] * 3 == [stat.S_IMODE(file.stat().st_mode) for file in files]
        await other.aclose()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["jobs.db", "jobs.db-wal"])
async def test_another_users_file_that_anybody_may_write_is_refused(path: Path, driver: Driver, name: str) -> None:
    """A file of another user that anybody may write is refused, since its owner could read and change it."""
    (path.parent / "jobs.db").touch(mode=0o600)
    strange = path.parent / name
    strange.touch()
    strange.chmod(0o666)
    os.chown(strange, 65534, 65534)
    store = SqliteStore(path, driver=driver)

    with pytest.raises(StoreError, match="anybody may write"):
        await store.open()
    assert 0 == (path.parent / "jobs.db").stat().st_size


@pytest.mark.parametrize("name", ["jobs.db", "jobs.db-wal"])
@pytest.mark.parametrize("is_dangling", [True, False])
async def test_a_symbolic_link_is_not_followed(
    path: Path, driver: Driver, tmp_path_factory: pytest.TempPathFactory, name: str, is_dangling: bool
) -> None:
    """A symbolic link in place of the file or its log is refused, and its target is not touched."""
    target = tmp_path_factory.mktemp("target") / "other.db"
    if not is_dangling:
        target.write_bytes(b"kept")
    (path.parent / name).symlink_to(target)
    store = SqliteStore(path, driver=driver)

    with pytest.raises(StoreError, match="is a symbolic link"):
        await store.open()

    assert ([] if is_dangling else [b"kept"]) == [file.read_bytes() for file in target.parent.iterdir()]


async def test_a_file_that_becomes_a_link_is_left(store: SqliteStore, path: Path) -> None:
    """A file that becomes a symbolic link is refused, even if the link leads to the same file."""
    await create(store)
    path.rename(path.with_name("moved.db"))
    path.symlink_to(path.with_name("moved.db"))

    with pytest.raises(StoreError, match="emptied or replaced"):
        await store.append("ref", [make_webhook(1)], provider="kie", known=1)

    path.unlink()
    path.with_name("moved.db").rename(path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
async def test_a_log_that_may_not_be_written_follows_its_file(driver: Driver) -> None:
    """A log that was left read-only gets the permissions of its file when the store is opened."""
    with nobodys_folder() as folder:
        path = folder / "jobs.db"
        store = SqliteStore(path, driver=driver)
        await store.open()
        for file in (Path(f"{path}-wal"), Path(f"{path}-shm")):
            file.chmod(0o444)
        other = SqliteStore(path, driver=driver)
        await other.open()

        assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        await other.aclose()
        await store.aclose()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
async def test_a_pipe_is_refused(path: Path, driver: Driver) -> None:
    """A named pipe is refused at once, since opening it would wait for ever."""
    os.mkfifo(path)
    with pytest.raises(StoreError, match="a device or a pipe"):
        await SqliteStore(path, driver=driver).open()
