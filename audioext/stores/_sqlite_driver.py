"""The two drivers of SQLite behind one face: Python's own module, and apsw, which brings its own, newer SQLite.

apsw is used where it is installed: https://rogerbinns.github.io/apsw, read 2026-11-24.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

Driver = Literal["sqlite3", "apsw"]
Row = tuple[Any, ...]
"""The columns of a row have the types that the schema says."""

_CACHED_STATEMENTS = 256


class Cursor(Protocol):
    """The rows of one statement."""

    def fetchall(self) -> list[Row]:
        """Return all rows that are left."""
        ...


class Execute(Protocol):
    """Runs one statement on a connection."""

    def __call__(self, sql: str, bindings: Sequence[object] = (), /) -> Cursor:
        """Return its rows."""
        ...


class Connection(Protocol):
    """What both drivers' connections do in the same way; each statement is its own transaction unless one is begun."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was begun."""
        ...

    @property
    def execute(self) -> Execute:
        """What runs one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[object]], /) -> object:
        """Run one statement for each of *rows*."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def default_driver() -> Driver:
    """Return apsw where it is installed."""
    return "apsw" if importlib.util.find_spec("apsw") is not None else "sqlite3"


def connect(driver: Driver, uri: str, *, busy_timeout: float) -> Connection:
    """Return a connection to the file that *uri* names; it waits *busy_timeout* seconds for another one's lock."""
    if driver == "apsw":
        import apsw  # noqa: PLC0415 - loads where it is chosen

        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(uri, flags=flags, statementcachesize=_CACHED_STATEMENTS)
        connection.set_busy_timeout(round(busy_timeout * 1000))
        return connection
    return sqlite3.connect(
        uri, uri=True, timeout=busy_timeout, isolation_level=None, cached_statements=_CACHED_STATEMENTS
    )


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code of *error* (https://sqlite.org/rescode.html), `None` if it has none."""
    code = getattr(error, "sqlite_errorcode", getattr(error, "result", None))
    return code & 0xFF if isinstance(code, int) else None
