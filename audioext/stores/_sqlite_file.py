"""The SQLite file: opening it with either driver, its schema, and errors that say what to do.

SQLite's own pages, read 2026-11-24: sqlite.org/wal.html, /pragma.html, /rescode.html.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import quote

from attrs import define, field

from audioext.errors import StoreError, UnreadableError, cut

Driver = Literal["sqlite3", "apsw"]
"""`sqlite3` is Python's own module; apsw has its own, newer SQLite."""
Synchronous = Literal["normal", "full"]
Connection = sqlite3.Connection
"""An apsw connection has the same methods, as far as we use them."""
Row = tuple[Any, ...]

_CACHED_STATEMENTS = 256

APPLICATION_ID: Final = 0x61786A62
"""Marks the file as ours ("axjb"): https://sqlite.org/pragma.html#pragma_application_id."""
SCHEMA_VERSION: Final = 3
"""Release 0.1 wrote 1 and 2."""
SCHEMA: Final = (
    # account is NULL while the request is unknown. held_until is when a claim on handlers ends.
    """CREATE TABLE jobs (
        id INTEGER PRIMARY KEY, ref TEXT NOT NULL UNIQUE, provider TEXT NOT NULL, account TEXT,
        created_at REAL NOT NULL, key TEXT, task_id TEXT, answered_at REAL, is_open INTEGER NOT NULL,
        occupies_until REAL NOT NULL, poll_at REAL, handle_at REAL, held_until REAL NOT NULL,
        entries INTEGER NOT NULL, size INTEGER NOT NULL, repeats INTEGER NOT NULL, changed_at REAL NOT NULL)""",
    "CREATE UNIQUE INDEX jobs_key ON jobs (key) WHERE key IS NOT NULL",
    "CREATE INDEX jobs_task ON jobs (task_id) WHERE task_id IS NOT NULL",
    "CREATE INDEX jobs_polls ON jobs (provider, poll_at) WHERE poll_at IS NOT NULL",
    "CREATE INDEX jobs_handlers ON jobs (provider, max(handle_at, held_until)) WHERE handle_at IS NOT NULL",
    "CREATE INDEX jobs_occupying ON jobs (account, occupies_until) WHERE occupies_until > 0",
    "CREATE INDEX jobs_answered ON jobs (account, answered_at) WHERE answered_at IS NOT NULL",
    "CREATE INDEX jobs_unanswered ON jobs (account, created_at) WHERE answered_at IS NULL",
    "CREATE INDEX jobs_closed ON jobs (changed_at) WHERE is_open = 0",
    # Ids grow and are never reused, since purge keeps the newest row: they are the cursor of the change stream.
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY, job INTEGER NOT NULL, said TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
        status INTEGER NOT NULL, headers TEXT, note TEXT NOT NULL, body BLOB NOT NULL)""",
    "CREATE INDEX entries_job ON entries (job)",
    "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
    f"PRAGMA application_id = {APPLICATION_ID}",
)

CACHE_KIB = 8192
WAL_KEPT_BYTES = 16 * 1024 * 1024
"""A larger write-ahead log is truncated to this size once it is empty."""
LONG_LOG_PAGES: Final = 4096
"""A longer log is emptied while the writes of other processes wait: it restarts only after a moment without any."""
EMPTYING_MILLISECONDS, MOST_EMPTYING_MILLISECONDS = 100, 2_000
"""How long emptying the log waits for a lock, so that a slow reader does not hold up the writes for long. It waits so
much longer for each further `LONG_LOG_PAGES`, since on a busy machine the lock may come late each time."""
RETRY_SECONDS = 0.01
PRIVATE: Final = 0o600

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REFUSED = "{name} refused"
_FAULTS: Final = {
    **dict.fromkeys(_BUSY, "{name} was locked by another process for {wait:g} s: end that process and try again"),
    **dict.fromkeys(
        (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
        "{name} cannot be written: check the permissions of the file, of the -wal and -shm files beside it, of its "
        "folder, and of the disk",
    ),
    **dict.fromkeys(
        (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
        "{name} is damaged or not a SQLite database: restore it from a backup, or move it away",
    ),
    sqlite3.SQLITE_FULL: "there is no space left for {name}: free some disk space",
    sqlite3.SQLITE_IOERR: "reading or writing {name} failed: check the disk's space, its quota and its health",
    sqlite3.SQLITE_CANTOPEN: "{name} cannot be opened: check the permissions of the file and its folder",
    sqlite3.SQLITE_NOMEM: _REFUSED,
    sqlite3.SQLITE_PROTOCOL: _REFUSED,
}
"""Messages for faults of the file or the disk, which every statement of a batch would meet."""


def default_driver() -> Driver:
    return "apsw" if importlib.util.find_spec("apsw") is not None else "sqlite3"


def primary_code(error: BaseException) -> int | None:
    """Return the primary SQLite result code of *error*, or `None` if it has none."""
    code = getattr(error, "sqlite_errorcode", getattr(error, "result", None))
    return code & 0xFF if isinstance(code, int) else None


def is_engine_fault(error: BaseException) -> bool:
    return primary_code(error) in _FAULTS


@define
class DatabaseFile:
    """The absolute path of the file, and how to open it. `busy_timeout` is in seconds."""

    path: Path
    driver: Driver
    synchronous: Synchronous
    busy_timeout: float
    _device_and_number: tuple[int, int] | None = field(default=None, init=False)

    @property
    def _named(self) -> str:
        return f"the SQLite file {cut(str(self.path))}"

    def check(self) -> None:
        """Raise `StoreError` unless the file that was opened first is still in its place."""
        try:
            found = os.lstat(self.path)
        except OSError:
            problem = "was deleted or moved: put it back, nothing has been stored since"
        else:
            # If SQLite opened an empty file, it would delete the log with everything in it.
            if (found.st_dev, found.st_ino) == self._device_and_number and found.st_size > 0:
                return
            problem = "was emptied or replaced: put it back, or reopen the store"
        raise StoreError(f"{self._named} {problem}")

    def connect(self, *, read_only: bool) -> Connection:
        """Return a connection; the first one creates the file and its tables if needed."""
        is_first = self._device_and_number is None
        if is_first:
            self._make_private()
        else:
            self.check()
        connection = self._open("rwc" if is_first else "rw")
        try:
            if is_first:
                self._version(connection)  # raises before it changes another program's file
            self._set_up(connection)
            if is_first:
                connection.execute("BEGIN IMMEDIATE")  # a read-only file fails here, not at the first append
                if self._version(connection) == 0:  # asked again, since another process may have been first
                    for statement in SCHEMA:
                        connection.execute(statement)
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                found = self.path.lstat()
                self._device_and_number = (found.st_dev, found.st_ino)
            if read_only:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            with suppress(Exception):  # the fault may have broken the connection, too
                connection.close()
            raise
        return connection

    def checkpoint(self, connection: Connection, longest: int) -> int:
        """Move the log into the file, and empty it from *longest* pages on; return when to empty it next."""
        ((_, pages, _),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if pages < longest or has_reset_bug(connection.execute("SELECT sqlite_version()").fetchall()[0][0]):
            return longest if pages >= LONG_LOG_PAGES else LONG_LOG_PAGES
        wait = min(EMPTYING_MILLISECONDS * max(pages // LONG_LOG_PAGES, 1), MOST_EMPTYING_MILLISECONDS)
        connection.execute(f"PRAGMA busy_timeout = {wait}").fetchall()
        try:
            ((is_busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {self.busy_timeout * 1000:.0f}").fetchall()
        return pages + LONG_LOG_PAGES if is_busy else LONG_LOG_PAGES

    def _make_private(self) -> None:
        """Create the file if needed, and make it private: it holds the secret that signs callback URLs.

        Permissions that its owner gave a group stay. An existing file is never opened: closing it drops SQLite's locks.
        """
        with suppress(OSError):  # SQLite's own error says why it cannot be created
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
        mode: int | None = None
        for path in (self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
            try:
                found = path.lstat()
            except OSError:
                continue
            if stat.S_ISLNK(found.st_mode):
                raise StoreError(
                    f"the SQLite file {cut(str(path))} is a symbolic link: name the file that it points to"
                )
            if stat.S_ISDIR(found.st_mode):
                return  # SQLite refuses it; its permissions are none of our business
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{cut(str(path))} is a device or a pipe, not a SQLite file: name another file")
            old = stat.S_IMODE(found.st_mode)
            if mode is None:
                is_open = old & stat.S_IWOTH or (old & stat.S_IWGRP and not found.st_size)
                mode = PRIVATE if is_open else old
            if mode == old or not hasattr(os, "geteuid"):  # on Windows the mode does not cover other users
                continue
            if found.st_uid == os.geteuid():
                with suppress(OSError):  # a file system without permissions
                    path.chmod(mode)
            elif old & stat.S_IWOTH:
                raise StoreError(
                    f"anybody may write {cut(str(path))}, which belongs to another user: name another file"
                )

    def explain(self, error: BaseException) -> StoreError:
        """Return *error* as a `StoreError` whose message says what to do."""
        if isinstance(error, StoreError):
            return type(error)(str(error))
        if isinstance(error, ValueError) and not isinstance(error, UnicodeEncodeError):
            return UnreadableError(f"a job in {self._named} cannot be read: {error}")
        code = primary_code(error)
        text = _FAULTS.get(code or 0, _REFUSED).format(name=self._named, wait=self.busy_timeout)
        try:
            if code == sqlite3.SQLITE_CANTOPEN and not self.path.parent.is_dir():
                text = f"the folder {cut(str(self.path.parent))} of the SQLite file does not exist: make it"
            elif code == sqlite3.SQLITE_CANTOPEN and self.path.is_dir():
                text = f"{cut(str(self.path))} is a folder, not a SQLite file: name a file in it"
        except OSError as reason:  # the name is too long, or a folder may not be entered
            text = f"{self._named} cannot be looked at: {reason.strerror}"
        return StoreError(f"{text} ({error})")

    def _open(self, mode: Literal["rw", "rwc"]) -> Connection:
        # POSIX allows two leading slashes, but in a URI they would begin a host name.
        uri = f"file:{quote(re.sub('^//+', '/', str(self.path)))}?mode={mode}"
        if self.driver == "apsw":
            import apsw  # noqa: PLC0415 - an optional extra

            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
            connection = apsw.Connection(uri, flags=flags, statementcachesize=_CACHED_STATEMENTS)
            connection.set_busy_timeout(round(self.busy_timeout * 1000))
            return cast("Connection", connection)
        return sqlite3.connect(
            uri, uri=True, timeout=self.busy_timeout, isolation_level=None, cached_statements=_CACHED_STATEMENTS
        )

    def _version(self, connection: Connection) -> int:
        """Return the schema version of the file, 0 for an empty one."""
        # A single statement sees one state, even if another process is creating the tables.
        (found,) = connection.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchall()
        version, owner, tables = found
        if found == (0, 0, 0) or (version, owner) == (SCHEMA_VERSION, APPLICATION_ID):
            return SCHEMA_VERSION if tables else 0
        if owner != APPLICATION_ID:
            what = "belongs to another program: name another file"
        elif version < SCHEMA_VERSION:
            what = "was written by audioext 0.1: open it with 0.1 until its jobs are done, or name a new file"
        else:
            what = f"is from a newer release (schema {version}, this one reads {SCHEMA_VERSION}): update audioext"
        raise StoreError(f"{self._named} {what}")

    def _set_up(self, connection: Connection) -> None:
        if self._switch_to_log(connection) != "wal":
            raise StoreError(f"the disk of {self._named} does not support shared files: use a local disk")
        # No automatic checkpoints: the writer thread checkpoints between batches.
        settings = f"synchronous={self.synchronous} wal_autocheckpoint=0 journal_size_limit={WAL_KEPT_BYTES}"
        for setting in (*settings.split(), f"cache_size=-{CACHE_KIB}"):
            connection.execute(f"PRAGMA {setting}").fetchall()

    def _switch_to_log(self, connection: Connection) -> object:
        """Switch to the write-ahead log, and return the journal mode that SQLite reports."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                return connection.execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
            except Exception as error:
                # Switching a new file takes a lock that SQLite's busy timeout does not cover.
                if primary_code(error) not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)


def has_reset_bug(version: str) -> bool:
    """Return whether SQLite *version* can lose commits when two processes write and checkpoint at the same instant.

    https://sqlite.org/wal.html#walresetbug, read 2026-11-24: 3.7.0 to 3.51.2, fixed in 3.44.6 and 3.50.7 as well.
    """
    major, minor, patch, *_ = (*map(int, version.split(".")), 0)
    number = (major, minor, patch)
    mended = {(3, 44): 6, (3, 50): 7}.get((major, minor))
    return (3, 7) <= number < (3, 51, 3) and (mended is None or patch < mended)
