"""The SQLite store's own promises: groups of commits, several processes, crashes, faults and schema versions."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

from audioext.errors import ConfigError, StoreError
from audioext.stores import _sqlite_engine, _sqlite_file, _sqlite_journal, open_store
from audioext.stores._sqlite_engine import Engine
from audioext.stores.base import RESYNC, Delivery, Done, OutboxEntry
from audioext.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from tests.unit.stores.conftest import Advance, Listen, MakeRecord

FAT = "la" * 2000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file of this test is."""
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Return an open store that does not wait long for a lock."""
    store = SqliteStore(path, busy_timeout=0.05)
    await store.open()
    yield store
    await store.aclose()


def engine_of(store: SqliteStore) -> Engine:
    """Return the threads and connections of a store: some promises only show inside."""
    engine = store._engine  # noqa: SLF001 - as above
    assert engine is not None
    return engine


def look(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return what another program reads from the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def script(body: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process that runs *body* with a store on the first argument."""
    head = """
import asyncio, os, sys
import attrs
from audioext.models.record import Record
from audioext.models.requests import Extend
from audioext.stores import open_store
from audioext.stores.base import Done

def record(ref):
    return Record(ref=ref, provider="kie", request=Extend(audio_id="source", model="V5"), created_at=1.0)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + body, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


# --- groups of commits --------------------------------------------------------------------------------------


async def test_a_new_file_is_its_owners_alone(path: Path) -> None:
    """It holds the secret that signs callback URLs; the permissions that its owner gives it stay."""
    for mode in (0o600, 0o640):
        store = SqliteStore(path)
        await store.open()
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob(f"{path.name}*")}
        await store.aclose()
        assert {mode} == modes
        path.chmod(0o640)


async def test_commits_that_wait_share_a_transaction(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    """200 commits that are made at once take a handful of transactions, each of which is noted once."""
    await asyncio.gather(*(store.create(make_record(f"ref{number}")) for number in range(200)))
    await asyncio.gather(
        *(store.commit(make_record(f"ref{number}"), 1, is_open=True, due_at=None) for number in range(200))
    )

    assert 4 >= len(look(path, "SELECT seq FROM changes"))


async def test_a_commit_that_cannot_be_stored_fails_alone(store: SqliteStore, make_record: MakeRecord) -> None:
    """Half a surrogate pair in one commit's outbox is its own error; the others of the group are stored."""
    refs = [f"ref{number}" for number in range(10)]
    for ref in refs:
        await store.create(make_record(ref))

    outcomes = await asyncio.gather(
        *(
            store.commit(
                make_record(ref),
                1,
                is_open=True,
                due_at=None,
                outbox=[OutboxEntry(topic="\ud800" if ref == "ref4" else "text", sequence=1)],
                delivery=Delivery(id=ref, ref=ref, provider="kie", received_at=1.0, verdict="applied"),
            )
            for ref in refs
        ),
        return_exceptions=True,
    )

    assert isinstance(outcomes.pop(4), StoreError)
    assert [Done(version=2)] * 9 == outcomes
    stored = await store.get("ref4")
    assert stored is not None
    assert 1 == stored.version
    assert None is await store.delivery("ref4")


async def test_a_record_that_is_no_json_is_refused(store: SqliteStore, make_record: MakeRecord) -> None:
    """What cannot be written down is a `StoreError` that names the job, before anything is stored."""
    with pytest.raises(StoreError, match="job ref cannot be stored as JSON"):
        await store.create(make_record(meta={"what": object()}))


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
async def test_how_durable_it_is_can_be_chosen(path: Path, synchronous: str, level: int) -> None:
    """`synchronous` is SQLite's own, NORMAL unless asked otherwise; checkpoints are off the commit path."""
    store = open_store(f"sqlite:///{path}" + ("?synchronous=full" if synchronous == "full" else ""))
    assert isinstance(store, SqliteStore)
    await store.open()

    found = await engine_of(store).writer.run(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "wal_autocheckpoint", "journal_mode")
        ]
    )
    await store.aclose()

    assert [level, 0, "wal"] == found


async def test_the_log_is_moved_into_the_file_meanwhile(
    store: SqliteStore, path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many commits the file itself holds them, without the log."""
    monkeypatch.setattr(_sqlite_engine, "CHECKPOINT_WORKS", 20)
    await asyncio.gather(*(store.create(make_record(f"ref{number}")) for number in range(20)))
    checkpoint = engine_of(store)._checkpoint  # noqa: SLF001 - nothing outside tells when it is done
    assert checkpoint is not None
    await checkpoint

    alone = shutil.copy(path, path.with_name("alone.db"))

    assert [(20,)] == look(Path(alone), "SELECT count(*) FROM records")


async def test_a_long_log_starts_anew(
    store: SqliteStore, path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers that never rest do not make the log grow for ever."""
    monkeypatch.setattr(_sqlite_engine, "CHECKPOINT_WORKS", 10)
    monkeypatch.setattr(_sqlite_engine, "LONG_LOG_PAGES", 20)
    version = (await store.create(make_record())).stored.version

    for number in range(600):
        done = await store.commit(make_record(words=(FAT, str(number))), version, is_open=True, due_at=float(number))
        assert isinstance(done, Done)
        version = done.version
        checkpoint = engine_of(store)._checkpoint  # noqa: SLF001 - so that a slow disk is no matter here
        if number % 20 == 0 and checkpoint is not None:
            await checkpoint

    # Each commit alone takes several pages; how far the log grows before it starts anew depends on the disk.
    assert 600 * 3 * 4096 > path.with_name("jobs.db-wal").stat().st_size


async def test_it_checkpoints_when_it_has_been_quiet(
    store: SqliteStore, path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single commit is moved into the file a moment later."""
    monkeypatch.setattr(_sqlite_engine, "CHECKPOINT_SECONDS", 0.0)
    engine = engine_of(store)
    while engine._timer is not None:  # noqa: SLF001 - the checkpoint of the opening is still to come
        engine._start_checkpoint()  # noqa: SLF001 - as above
    await store.create(make_record())
    await store.get("ref")  # one more turn of the loop, in which the timer fires
    while engine._timer is not None:  # noqa: SLF001 - as above
        await store.get("ref")
    checkpoint = engine._checkpoint  # noqa: SLF001 - as above
    assert checkpoint is not None
    await checkpoint

    alone = shutil.copy(path, path.with_name("alone.db"))

    assert [(1,)] == look(Path(alone), "SELECT count(*) FROM records")


async def test_purge_keeps_the_file_small(
    store: SqliteStore, path: Path, make_record: MakeRecord, advance: Advance
) -> None:
    """What a purge frees is given back to the disk."""

    async def one(ref: str) -> None:
        created = await store.create(make_record(ref, words=(FAT,)))
        await advance(store, created, is_open=False)

    await asyncio.gather(*(one(f"ref{number}") for number in range(1200)))
    await store.aclose()
    before = path.stat().st_size
    await store.open()

    assert 1200 == await store.purge(created_before=1e9, deliveries_before=0.0, deliveries_kept=0)

    await store.aclose()
    assert before / 2 > path.stat().st_size


# --- open and close -----------------------------------------------------------------------------------------


async def test_a_closed_store_refuses(store: SqliteStore, make_record: MakeRecord) -> None:
    """Whatever is asked of a store that is closed, or was never opened, is a `StoreError`."""
    await store.aclose()

    for refused in (store, SqliteStore(store.path)):
        with pytest.raises(StoreError, match="not open"):
            await refused.commit(make_record(), 1, is_open=True, due_at=None)
        with pytest.raises(StoreError, match="not open"):
            await anext(refused.scan())
        with pytest.raises(StoreError, match="not open"):
            await anext(refused.changes())


async def test_nothing_is_left_behind(path: Path, make_record: MakeRecord) -> None:
    """After `aclose` its threads are gone, and the log is part of the file."""
    before = set(threading.enumerate())
    store = SqliteStore(path)
    await store.open()
    await store.create(make_record())
    assert set(threading.enumerate()) > before

    await store.aclose()

    assert before == set(threading.enumerate())
    assert [path] == list(path.parent.iterdir())


async def test_what_comes_while_it_closes_is_refused(store: SqliteStore, make_record: MakeRecord) -> None:
    """A commit that is made while the store drains is refused at once; it neither hangs nor gets lost."""
    engine = engine_of(store)
    accepted = asyncio.create_task(store.create(make_record("accepted")))
    await asyncio.sleep(0)
    closing_ = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    with pytest.raises(StoreError, match="closed"):
        engine.writer.run(_sqlite_journal.last_change)

    await closing_
    assert not (await accepted).existing


async def test_a_cancelled_close_closes_all_the_same(store: SqliteStore) -> None:
    """Cancelling the caller of `aclose` leaves no thread behind."""
    names = {thread.name for thread in threading.enumerate()}
    assert 3 == len([name for name in names if name.startswith("audioext sqlite")])
    task = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(one for one in asyncio.all_tasks() if one is not asyncio.current_task()))

    assert not [one for one in threading.enumerate() if one.name.startswith("audioext sqlite")]


async def test_many_first_starts_at_once(path: Path) -> None:
    """Several stores that open a new file at the same moment all find it ready."""
    stores = [SqliteStore(path) for _ in range(6)]

    await asyncio.gather(*(store.open() for store in stores))
    values = await asyncio.gather(*(store.create_if_absent("secret", os.urandom(8)) for store in stores))
    await asyncio.gather(*(store.aclose() for store in stores))

    assert 1 == len(set(values))


async def test_two_clients_may_open_it_at_once(store: SqliteStore, make_record: MakeRecord) -> None:
    """One store object that two clients open concurrently is closed with the second of them."""
    shared = SqliteStore(store.path)
    await asyncio.gather(shared.open(), shared.open())

    await shared.aclose()
    await shared.create(make_record())
    await shared.aclose()

    with pytest.raises(StoreError, match="not open"):
        await shared.get("ref")


def test_a_store_that_nobody_closes_ends_with_the_process(path: Path) -> None:
    """A program that forgets `aclose` ends all the same, and what it was told is stored."""
    process = script(
        """
async def main():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    await store.open()
    await store.create(record("ref"))
asyncio.run(main())
""",
        path,
    )

    with process:
        process.communicate(timeout=60)

    assert 0 == process.returncode
    assert [("ref",)] == look(path, "SELECT ref FROM records")


def test_back_ends_load_on_first_use() -> None:
    """Importing the stores loads neither SQLite nor Redis."""
    process = script("say(*({'redis', 'audioext.stores.sqlite'} & set(sys.modules)), 'none')")

    with process:
        said, _ = process.communicate(timeout=60)

    assert "none\n" == said


# --- URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///jobs.db", SqliteStore("jobs.db")),
        ("sqlite:////var/lib/a%20b.db", SqliteStore("/var/lib/a b.db")),
        ("sqlite:///jobs.db?synchronous=FULL", SqliteStore("jobs.db", synchronous="full")),
        ("sqlite:///jobs.db?synchronous=normal", SqliteStore("jobs.db")),
    ],
)
def test_urls_say_where_and_how(url: str, expected: SqliteStore) -> None:
    """Three slashes are relative, four absolute, and `?synchronous=` chooses."""
    found = open_store(url)

    assert isinstance(found, SqliteStore)
    assert (expected.path, expected.synchronous) == (found.path, found.synchronous)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///jobs.db?synchronous=off",
        "sqlite:///jobs.db?mode=ro",
        "sqlite:///:memory:",
        "sqlite:///a#b.db",
        "sqlite://host/jobs.db",
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    """An option that does not exist, a file in memory or a fragment is a `ConfigError` with the forms."""
    with pytest.raises(ConfigError, match="sqlite:////absolute"):
        open_store(url)


# --- several processes --------------------------------------------------------------------------------------


async def test_processes_lose_nothing_to_each_other(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    """Two other processes and this one count up one record, and every step is kept."""
    store.busy_timeout = 5.0
    await store.aclose()
    await store.open()
    await store.create(make_record(credits=0.0))
    others = [
        script(
            """
async def main():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    await store.open()
    current = await store.get("ref")
    for _ in range(50):
        while True:
            more = attrs.evolve(current.record, credits=current.record.credits + 1)
            outcome = await store.commit(more, current.version, is_open=True, due_at=None)
            current = await store.get("ref") if isinstance(outcome, Done) else outcome.current
            if isinstance(outcome, Done):
                break
    await store.aclose()
asyncio.run(main())
""",
            path,
        )
        for _ in range(2)
    ]

    for other in others:
        with other:
            await asyncio.to_thread(other.communicate, timeout=60)

    assert [0, 0] == [other.returncode for other in others]
    stored = await store.get("ref")
    assert stored is not None
    assert (100.0, 101) == (stored.record.credits, stored.version)


async def test_another_process_is_heard_within_100_ms(store: SqliteStore, path: Path, listen: Listen) -> None:
    """A listener hears of a commit of another process within 100 ms of its acknowledgement."""
    listener = await listen(store)
    process = script(
        """
import time
async def main():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    await store.open()
    say("ready")
    for number in range(9):
        await asyncio.to_thread(sys.stdin.readline)
        await store.create(record(f"ref{number}"))
        say(time.time())
    await store.aclose()
asyncio.run(main())
""",
        path,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    delays: list[float] = []

    with process:
        await asyncio.to_thread(process.stdout.readline)
        for _ in range(9):
            process.stdin.write("\n")
            process.stdin.flush()
            await listener.until(lambda found: len(found.heard) == len(delays) + 1)
            heard_at = time.time()
            delays.append(heard_at - float(await asyncio.to_thread(process.stdout.readline)))

    assert 0.1 > median(delays), delays


async def test_it_looks_for_others_only_while_somebody_listens(store: SqliteStore, make_record: MakeRecord) -> None:
    """Without a listener nothing polls, and with the last one the polling ends."""
    keeper = engine_of(store)._keeper  # noqa: SLF001 - that nothing happens only shows inside
    assert not keeper.is_ticking
    stream = store.changes()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await store.next_due("poll")
    assert keeper.is_ticking

    await store.create(make_record())
    assert "ref" == await first
    assert isinstance(stream, AsyncGenerator)
    await stream.aclose()

    assert not keeper.is_ticking


async def test_who_is_far_behind_has_to_look_again(
    store: SqliteStore, path: Path, listen: Listen, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes that were trimmed before they were seen are told as one `RESYNC`; later ones are told again."""
    monkeypatch.setattr(_sqlite_journal, "CHANGES_KEPT", 3)
    monkeypatch.setattr(_sqlite_journal, "CHANGES_TRIMMED_EVERY", 1)
    other = SqliteStore(path)
    await other.open()
    listener = await listen(store)
    keeper = engine_of(store)._keeper  # noqa: SLF001 - held up, as by a machine that was asleep
    asleep = threading.Event()
    held = keeper.run(lambda _: asleep.wait(10))

    for number in range(10):
        await other.create(make_record(f"ref{number}"))
    asleep.set()
    await held
    await listener.until(lambda found: bool(found.heard))
    await other.create(make_record("later"))
    await listener.until(lambda found: "later" in found.heard)
    await other.aclose()

    assert [RESYNC, "later"] == listener.heard


async def test_listening_begins_even_if_the_file_is_away(
    store: SqliteStore, path: Path, make_record: MakeRecord
) -> None:
    """A listener that starts during a fault hears of other processes when it is over."""
    path.rename(path.with_name("away.db"))
    stream = store.changes()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="deleted or moved"):
        await store.get("ref")
    path.with_name("away.db").rename(path)
    other = SqliteStore(path)
    await other.open()

    await other.create(make_record("theirs"))

    assert "theirs" == await asyncio.wait_for(first, 10)
    await other.aclose()


# --- crashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acknowledged", [1, 17, 130, 411])
async def test_what_was_acknowledged_survives_a_kill(
    path: Path, acknowledged: int, listen: Listen, make_record: MakeRecord
) -> None:
    """After SIGKILL in the midst of commits, every acknowledged version is there, with its entry and delivery."""
    process = script(
        """
from audioext.stores.base import Delivery, OutboxEntry

async def climb(store, ref):
    version = (await store.create(record(ref), due_at=1.0)).stored.version
    while True:
        done = await store.commit(
            record(ref), version, is_open=True, due_at=1.0,
            outbox=[OutboxEntry(topic=str(version + 1), sequence=version + 1)],
            delivery=Delivery(id=f"{ref}-{version + 1}", ref=ref, provider="kie", received_at=1.0, verdict="applied"),
        )
        version = done.version
        say(ref, version)

async def main():
    store = open_store(f"sqlite:///{sys.argv[1]}")
    await store.open()
    await asyncio.gather(*(climb(store, f"ref{number}") for number in range(12)))
asyncio.run(main())
""",
        path,
    )
    assert process.stdout is not None
    versions: dict[str, int] = {}
    with process:
        for _ in range(acknowledged):
            ref, version = (await asyncio.to_thread(process.stdout.readline)).split()
            versions[ref] = int(version)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines():  # it was told before the end came
            ref, version = line.split()
            versions[ref] = int(version)

    store = SqliteStore(path)
    await store.open()
    entries = {lease.ref for lease in await store.claim("outbox", now=1.0, lease=1.0, limit=99)}
    for ref, least in versions.items():
        stored = await store.get(ref)
        assert stored is not None
        assert least <= stored.version
        deliveries = {found.id async for found in store.deliveries(ref)}
        assert {f"{ref}-{number}" for number in range(2, stored.version + 1)} == deliveries
    await store.aclose()

    assert versions.keys() <= entries
    assert [("ok",)] == look(path, "PRAGMA integrity_check")


# --- faults -------------------------------------------------------------------------------------------------


async def test_a_locked_file(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    """While another process holds the file, commits fail clearly and reads go on; then all works again."""
    await store.create(make_record())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")

        outcomes = await asyncio.gather(
            *(store.commit(make_record(), 1, is_open=True, due_at=None) for _ in range(3)),
            return_exceptions=True,
        )

        assert ["was locked by another process for 0.05 s"] * 3 == [
            str(outcome).partition("jobs.db ")[2].partition(":")[0] for outcome in outcomes
        ]
        assert 1 == (await store.get("ref") or pytest.fail("it is gone")).version
        connection.execute("ROLLBACK")

    assert Done(version=2) == await store.commit(make_record(), 1, is_open=True, due_at=None)


async def fill(store: SqliteStore, make_record: MakeRecord) -> str:
    """Commit until it fails; check that nothing of the failed commit is there, and return what was said."""
    version = (await store.create(make_record())).stored.version
    for number in range(2000):
        entry = OutboxEntry(topic=f"topic {number}", sequence=number)
        delivery = Delivery(
            id=f"d{number}", ref="ref", provider="kie", received_at=1.0, verdict="applied", body=FAT.encode() * 4
        )
        try:
            done = await store.commit(
                make_record(words=(FAT, str(number))),
                version,
                is_open=True,
                due_at=None,
                outbox=[entry],
                delivery=delivery,
            )
        except StoreError as error:
            stored = await store.get("ref")
            assert stored is not None
            assert version == stored.version
            assert None is await store.delivery(f"d{number}")
            return str(error)
        assert isinstance(done, Done)
        version = done.version
    pytest.fail("the disk never got full")


async def test_a_full_disk(store: SqliteStore, make_record: MakeRecord) -> None:
    """When there is no room, the commit fails clearly and wholly; with room again, it works again."""

    async def limit(pages: int) -> None:
        # SQLite's own limit raises the error that a full disk raises
        await engine_of(store).writer.run(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        )

    await limit(120)
    said = await fill(store, make_record)
    assert "there is no room left" in said
    assert "free some disk space" in said

    await limit(100_000)
    assert not (await store.create(make_record("more", words=(FAT * 9,)))).existing


async def test_a_quota(store: SqliteStore, make_record: MakeRecord) -> None:
    """When the system refuses to let the file grow, the commit fails clearly and wholly, and works later."""
    resource = pytest.importorskip("resource", reason="this system has no limits on a file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        said = await fill(store, make_record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "check its space" in said or "free some disk space" in said
    assert not (await store.create(make_record("more", words=(FAT * 9,)))).existing


@contextmanager
def nobody() -> Iterator[Path]:
    """Yield a folder that this process may read and not write, even as root."""
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
async def test_a_read_only_file(make_record: MakeRecord) -> None:
    """A file that may not be written is refused when it is opened, and taken once it may be."""
    with nobody() as folder:
        store = SqliteStore(folder / "jobs.db")
        await store.open()
        await store.create(make_record())
        await store.aclose()
        (folder / "jobs.db").chmod(0o444)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)  # root may write anything: be nobody for a moment

        with pytest.raises(StoreError, match=r"check the permissions of the file"):
            await store.open()

        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        (folder / "jobs.db").chmod(0o644)
        await store.open()
        assert Done(version=2) == await store.commit(make_record(), 1, is_open=True, due_at=None)
        await store.aclose()


async def test_a_file_that_turns_read_only(store: SqliteStore, make_record: MakeRecord) -> None:
    """A connection that may suddenly not write says so, and the store recovers by itself."""
    await store.create(make_record())
    await engine_of(store).writer.run(lambda connection: connection.execute("PRAGMA query_only = ON"))

    with pytest.raises(StoreError, match="cannot be written"):
        await store.commit(make_record(), 1, is_open=True, due_at=None)

    assert Done(version=2) == await store.commit(make_record(), 1, is_open=True, due_at=None)


async def test_a_file_that_is_no_database(path: Path) -> None:
    """A file full of something else is refused and left as it is."""
    path.write_bytes(b"these are not the jobs you are looking for" * 100)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"damaged or not a SQLite database: restore it"):
        await SqliteStore(path).open()

    assert before == path.read_bytes()


async def test_a_damaged_file(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    """Bytes that rotted on the disk are told as such, and the store works again once the file is restored."""
    await asyncio.gather(*(store.create(make_record(f"ref{number}", words=(FAT,))) for number in range(300)))
    await store.aclose()
    good = path.read_bytes()
    path.write_bytes(good[: 40 * 4096] + b"\xa5" * (len(good) - 40 * 4096))
    await store.open()

    with pytest.raises(StoreError, match="damaged"):
        await store.get("ref250")
    with pytest.raises(StoreError, match="damaged"):
        await store.commit(make_record("ref250"), 1, is_open=True, due_at=None)

    path.write_bytes(good)
    assert 1 == (await store.get("ref250") or pytest.fail("it is gone")).version
    assert Done(version=2) == await store.commit(make_record("ref250"), 1, is_open=True, due_at=None)


async def test_a_damaged_record(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    """A single record that cannot be read is an error for whoever reads it, and for nobody else."""
    await store.create(make_record("bad"))
    await store.create(make_record("good"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET body = '{' WHERE ref = 'bad'")

    bad, good = await asyncio.gather(store.get("bad"), store.get("good"), return_exceptions=True)

    assert isinstance(bad, StoreError)
    assert not isinstance(good, BaseException | None)


async def test_a_missing_folder(tmp_path: Path) -> None:
    """A folder that does not exist is named; once it is made, the store opens."""
    store = SqliteStore(tmp_path / "not" / "there" / "jobs.db")
    with pytest.raises(StoreError, match=r"the folder .*there of the SQLite file does not exist: make it"):
        await store.open()

    (tmp_path / "not" / "there").mkdir(parents=True)

    await store.open()
    await store.aclose()


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A path that is a folder is refused."""
    with pytest.raises(StoreError, match="is a folder"):
        await SqliteStore(tmp_path).open()


async def test_a_deleted_file(store: SqliteStore, path: Path, listen: Listen, make_record: MakeRecord) -> None:
    """Nothing is acknowledged into a file that was moved away; put back, it goes on, and is heard again."""
    await store.create(make_record())
    listener = await listen(store)
    path.rename(path.with_name("away.db"))

    for refused in (
        store.commit(make_record(), 1, is_open=True, due_at=None),
        store.create(make_record("another")),
        store.get("ref"),
    ):
        with pytest.raises(StoreError, match=r"was deleted or moved: put it back"):
            await refused

    path.with_name("away.db").rename(path)
    assert Done(version=2) == await store.commit(make_record(), 1, is_open=True, due_at=None)
    await listener.until(lambda found: "ref" in found.heard)


async def test_an_emptied_file(store: SqliteStore, path: Path, make_record: MakeRecord) -> None:
    """An empty file in the place of ours is not taken for a new store, and the log is not thrown away."""
    await store.create(make_record())
    away = path.rename(path.with_name("away.db"))
    path.touch()

    with pytest.raises(StoreError, match="was emptied or replaced"):
        await store.commit(make_record(), 1, is_open=True, due_at=None)

    away.replace(path)
    assert Done(version=2) == await store.commit(make_record(), 1, is_open=True, due_at=None)


# --- schema -------------------------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused(store: SqliteStore, path: Path) -> None:
    """A file of a newer release is left alone, with the advice to update."""
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreError, match=r"newer release \(schema 99, this one reads \d+\): update audioext"):
        await store.open()


async def test_another_programs_file_is_refused(path: Path) -> None:
    """A database of another program is left as it is."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    before = path.read_bytes()

    with pytest.raises(StoreError, match="belongs to another program"):
        await SqliteStore(path).open()

    assert before == path.read_bytes()


async def test_an_older_schema_is_brought_up_to_date(
    store: SqliteStore, path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of an earlier release is migrated when it is opened, and keeps what it held."""
    created = await store.create(make_record())
    await store.aclose()
    newer = (*_sqlite_file.MIGRATIONS, ("ALTER TABLE records ADD COLUMN mood TEXT",))
    monkeypatch.setattr(_sqlite_file, "MIGRATIONS", newer)

    await store.open()

    assert created.stored == await store.get("ref")
    assert [(len(newer),)] == look(path, "PRAGMA user_version")
    assert [(None,)] == look(path, "SELECT mood FROM records")


async def test_a_migration_is_whole_or_not_at_all(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that fails half-way leaves the file as the earlier release wrote it."""
    await store.aclose()
    broken = ("CREATE TABLE moods (id)", "ALTER TABLE nobody ADD COLUMN mood")
    with monkeypatch.context() as patch:
        patch.setattr(_sqlite_file, "MIGRATIONS", (*_sqlite_file.MIGRATIONS, broken))
        with pytest.raises(StoreError, match="no such table: nobody"):
            await store.open()

    assert [] == look(path, "SELECT name FROM sqlite_master WHERE name = 'moods'")
    await store.open()


# --- speed --------------------------------------------------------------------------------------------------


@pytest.mark.bench
@pytest.mark.parametrize("synchronous", ["normal", "full"])
async def test_groups_against_a_commit_each(
    tmp_path: Path, make_record: MakeRecord, synchronous: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events per second with 200 writers at once, against the same events one after the other."""
    asyncio.get_running_loop().set_debug(False)
    body = b"x" * 1615  # a real complete callback's size

    async def climb(store: SqliteStore, ref: str, events: int) -> None:
        version = (await store.create(make_record(ref))).stored.version
        for number in range(events):
            done = await store.commit(
                make_record(ref, words=(FAT[:2000],)),
                version,
                is_open=True,
                due_at=float(number),
                outbox=[OutboxEntry(topic=f"stage {number % 3}", sequence=number % 3)],
                delivery=Delivery(
                    id=f"{number:06}{ref}", ref=ref, provider="kie", received_at=1.0, verdict="applied", body=body
                ),
            )
            assert isinstance(done, Done)
            version = done.version

    async def rate(name: str, events: int, work: Callable[[SqliteStore], Coroutine[None, None, object]]) -> float:
        store = open_store(f"sqlite:///{tmp_path / name}.db?synchronous={synchronous}")
        assert isinstance(store, SqliteStore)
        await store.open()
        begin = time.perf_counter()
        await work(store)
        took = time.perf_counter() - begin
        await store.aclose()
        return events / took

    each, grouped = [], []
    for turn in range(3):
        each.append(await rate(f"each{turn}", 1000, lambda store: climb(store, "ref", 1000)))
        grouped.append(
            await rate(
                f"grouped{turn}",
                10_000,
                lambda store: asyncio.gather(*(climb(store, f"ref{n}", 50) for n in range(200))),  # type: ignore[arg-type, return-value]  # awaited all the same
            )
        )
    with capsys.disabled():
        print(  # noqa: T201 - a benchmark's result
            f"\nsynchronous={synchronous}: {median(grouped):,.0f} events/s in groups, {median(each):,.0f} with a "
            f"commit each: {median(grouped) / median(each):.1f} times"
        )

    assert median(grouped) > median(each)
