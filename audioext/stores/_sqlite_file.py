"""The SQLite file: how it is opened, which schema it has, and what its faults mean.

Pages of SQLite's own documentation, read 2026-11-21: sqlite.org/wal.html, /pragma.html, /rescode.html.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from attrs import frozen

from audioext.errors import StoreError

Synchronous = Literal["normal", "full"]

APPLICATION_ID: Final = 0x61786A62
"""Marks the file as ours ("axjb"): https://sqlite.org/pragma.html#pragma_application_id."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE records (
            id INTEGER PRIMARY KEY, ref TEXT NOT NULL, provider TEXT NOT NULL, version INTEGER NOT NULL,
            is_open INTEGER NOT NULL, created_at REAL NOT NULL, key TEXT, task_id TEXT,
            poll_at REAL, poll_token TEXT, poll_attempts INTEGER NOT NULL DEFAULT 0,
            tell_at REAL, tell_token TEXT, outbox TEXT, told TEXT,
            body BLOB NOT NULL)""",
        "CREATE UNIQUE INDEX records_ref ON records (ref)",
        "CREATE UNIQUE INDEX records_key ON records (key) WHERE key IS NOT NULL",
        "CREATE INDEX records_task ON records (task_id) WHERE task_id IS NOT NULL",
        "CREATE INDEX records_poll ON records (provider, poll_at) WHERE poll_at IS NOT NULL",
        "CREATE INDEX records_tell ON records (provider, tell_at) WHERE tell_at IS NOT NULL",
        "CREATE INDEX records_open ON records (is_open) WHERE is_open = 1",
        "CREATE INDEX records_closed ON records (created_at) WHERE is_open = 0",
        """CREATE TABLE deliveries (
            id INTEGER PRIMARY KEY, delivery_id TEXT NOT NULL, ref TEXT NOT NULL, provider TEXT NOT NULL,
            received_at REAL NOT NULL, verdict TEXT NOT NULL, path TEXT NOT NULL, headers TEXT NOT NULL,
            note TEXT NOT NULL, body BLOB NOT NULL)""",
        "CREATE INDEX deliveries_id ON deliveries (delivery_id, received_at)",
        "CREATE INDEX deliveries_ref ON deliveries (ref, delivery_id)",
        "CREATE TABLE names (name TEXT NOT NULL UNIQUE, value BLOB NOT NULL)",
        "CREATE TABLE changes (seq INTEGER PRIMARY KEY, origin INTEGER NOT NULL, refs TEXT NOT NULL)",
    ),
    ("CREATE TABLE places (name TEXT NOT NULL, holder TEXT NOT NULL, until REAL NOT NULL, UNIQUE (name, holder))",),
)
"""What made each schema version from the one before; a release only ever appends to this."""

CACHE_KIB = 8192
WAL_KEPT_BYTES = 16 * 1024 * 1024
"""A log that grew larger is cut back to this once it is empty."""
RETRY_SECONDS = 0.01

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_ENGINE_FAULTS = {
    *_BUSY,
    *_READ_ONLY,
    *_DAMAGED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}


class Connection(sqlite3.Connection):
    """A connection of one thread, with the refs that its open transaction changed, and those that it committed."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Connect, with nothing changed yet."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # sqlite3.connect's own arguments
        self.changed: list[str] = []
        self.committed: list[str] = []


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code of *error*, `None` if it has none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def is_engine_fault(error: BaseException) -> bool:
    """Whether *error* is the file's or the disk's, so that every statement of the moment would meet it."""
    return primary_code(error) in _ENGINE_FAULTS


def _one_slash(path: Path) -> str:
    """Return *path*, whose two leading slashes (which POSIX allows) a URI would read as a host."""
    text = str(path)
    return "/" + text.lstrip("/") if text.startswith("//") else text


@frozen(kw_only=True)
class DatabaseFile:
    """Where the file is and how it is used; `busy_timeout` is in seconds."""

    path: Path
    synchronous: Synchronous
    busy_timeout: float

    def identity(self) -> tuple[int, int] | None:
        """Return what tells this file from another one at the same path, `None` if there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino)

    def connect(self, *, read_only: bool) -> Connection:
        """Return a connection to the file, which must be there and of our schema.

        Raises:
            sqlite3.Error: it cannot be opened.
            StoreError: it is not ours, or of another schema version.
        """
        if self.identity() is None:
            raise self.gone()
        if self.path.stat().st_size == 0:  # opened, SQLite would throw the log away with all that is in it
            raise self._replaced()
        with self._opened("rw") as connection:
            if self._version(connection) != len(MIGRATIONS):
                raise self._replaced()
            self._set_up(connection)
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            return connection

    def prepare(self) -> None:
        """Make the file if there is none, and bring its schema up to date.

        Raises:
            sqlite3.Error: it cannot be opened or written.
            StoreError: it is another program's, or of a newer release.
        """
        # It holds the secret that signs callback URLs, so it is nobody else's unless its owner says so. Where it
        # cannot be made SQLite says why.
        with suppress(OSError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with self._opened("rwc") as connection:
            if self._version(connection) == 0:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._set_up(connection)
            connection.execute("BEGIN IMMEDIATE")  # fails here, not at the first commit, if it cannot be written
            version = self._version(connection)  # read again: another process may have been first
            for number, statements in enumerate(MIGRATIONS[version:], version + 1):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        connection.close()

    def explain(self, error: BaseException) -> StoreError:
        """Return *error* as a sentence that says what to do."""
        if isinstance(error, StoreError):
            return StoreError(str(error))
        code = primary_code(error)
        name = f"the SQLite file {self.path}"
        if code in _BUSY:
            text = f"{name} was locked by another process for {self.busy_timeout:g} s: end what holds it and try again"
        elif code == sqlite3.SQLITE_FULL:
            text = f"there is no room left for {name}: free some disk space"
        elif code in _READ_ONLY:
            text = f"{name} cannot be written: check the permissions of the file, of its folder, and of the disk"
        elif code in _DAMAGED:
            text = f"{name} is damaged or not a SQLite database: restore it from a backup, or move it away"
        elif code == sqlite3.SQLITE_CANTOPEN:
            text = self._why_not_open()
        elif code == sqlite3.SQLITE_IOERR:
            text = f"the disk failed under {name}: check its space, its quota and its health"
        else:
            return StoreError(f"{name} refused: {error}")
        return StoreError(f"{text} ({error})")

    def gone(self) -> StoreError:
        """Return the error of a file that is no longer where it was."""
        return StoreError(f"the SQLite file {self.path} was deleted or moved: put it back, nothing was stored since")

    def _replaced(self) -> StoreError:
        return StoreError(f"the SQLite file {self.path} was emptied or replaced: put it back, or open a new store")

    def _why_not_open(self) -> str:
        if not self.path.parent.is_dir():
            return f"the folder {self.path.parent} of the SQLite file does not exist: make it"
        if self.path.is_dir():
            return f"{self.path} is a folder, not a SQLite file: name a file in it"
        return f"the SQLite file {self.path} cannot be opened: check the permissions of the file and its folder"

    @contextmanager
    def _opened(self, mode: Literal["rw", "rwc"]) -> Generator[Connection]:
        """Yield a connection that is closed if anything fails."""
        connection = sqlite3.connect(
            f"file:{quote(_one_slash(self.path))}?mode={mode}",
            uri=True,
            timeout=self.busy_timeout,
            isolation_level=None,
            cached_statements=256,
            factory=Connection,
        )
        try:
            yield connection
        except BaseException:
            connection.close()
            raise

    def _version(self, connection: Connection) -> int:
        """Return the schema version of the file, 0 for an empty one."""
        # One statement sees one state, whatever another process makes of the file meanwhile.
        version, owner, tables = connection.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if owner == APPLICATION_ID and version > len(MIGRATIONS):
            raise StoreError(
                f"the SQLite file {self.path} was written by a newer release (schema {version}, this one reads "
                f"{len(MIGRATIONS)}): update audioext"
            )
        if owner != APPLICATION_ID and (owner or tables):
            raise StoreError(f"the SQLite file {self.path} belongs to another program: name another file")
        return int(version)

    def _set_up(self, connection: Connection) -> None:
        if self._switch_to_log(connection) != "wal":
            raise StoreError(f"the disk of {self.path} cannot hold a shared SQLite file: use a local disk")
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # 6 to 12 ms at the 99th percentile of a commit
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")

    def _switch_to_log(self, connection: Connection) -> str:
        """Return the journal mode, which should be the write-ahead log."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                # The switch of a new file takes a lock that SQLite's own busy timeout does not wait for.
                if primary_code(error) not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                return mode


def close(connection: Connection) -> None:
    """Close a connection whatever state it is in."""
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    with suppress(sqlite3.Error):
        connection.close()
