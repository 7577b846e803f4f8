"""What a connection knows of the jobs in the file: each is read once, and what changes is written together.

A batch reads the jobs that it names with one statement, and writes with one for each set of columns. What was read
stays known to the next batch unless another connection has written since (sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from itertools import compress
from operator import attrgetter, itemgetter, ne
from types import NoneType
from typing import Any, Final, NamedTuple, get_args

import msgspec
from attrs import define, field

from audioext.errors import UnreadableError
from audioext.models.entries import Entry, EntryKind, Index
from audioext.stores._sqlite_file import Connection, Row

MAX_KNOWN = 20_000
"""Jobs and entries of which a connection knows what it read; beyond that it begins anew."""


class JobRow(NamedTuple):
    """A job as it lies in the file; its account is `None` while its request is not in the journal."""

    id: int
    ref: str
    provider: str
    account: str | None
    created_at: float
    key: str | None
    task_id: str | None
    answered_at: float | None
    is_open: bool
    occupies_until: float
    poll_at: float | None
    handle_at: float | None
    held_until: float = 0.0
    entries: int = 0
    size: int = 0
    repeats: int = 0
    changed_at: float = 0.0


COLUMNS: Final = JobRow._fields
_INDEX: Final = COLUMNS[1:12]
index_values: Final = attrgetter(*_INDEX)
SELECT_JOB: Final = f"SELECT {', '.join(COLUMNS)} FROM jobs"  # noqa: S608 - our own names, here and below
ENTRY: Final = "said, at, kind, status, headers, note, body"
_INSERT_JOB = f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES (?{', ?' * 16})"  # noqa: S608 - see above
_INSERT_ENTRY = f"INSERT INTO entries (job, {ENTRY}) VALUES (?{', ?' * 7})"  # noqa: S608 - see above
_NUMBERS: Final = range(len(COLUMNS))
_KINDS: Final = frozenset(get_args(EntryKind))
_MAYBE_TEXT: Final = (str, NoneType)
_MAYBE_TIME: Final = (float, NoneType)
_TYPES: Final = (
    *(int, str, str, _MAYBE_TEXT, float, _MAYBE_TEXT, _MAYBE_TEXT, _MAYBE_TIME, int, float, _MAYBE_TIME, _MAYBE_TIME),
    *(float, int, int, int, float),
)
"""Of the columns of a job."""


@define(eq=False)
class Session:
    """Runs the statements of one connection; `changed` says how long the journals are that were appended to."""

    connection: Connection
    changed: dict[str, int] = field(factory=dict, init=False)
    _jobs: dict[str, JobRow | None] = field(factory=dict, init=False)
    _said: dict[int, set[str]] = field(factory=dict, init=False)
    _known: int = field(default=0, init=False)
    _last_id: int | None = field(default=None, init=False)
    _version: object = field(default=None, init=False)
    # what is not written yet: jobs as they are in the file and as they are to be, and new entries
    _unwritten: dict[str, tuple[JobRow | None, JobRow]] = field(factory=dict, init=False)
    _entries: list[Row] = field(factory=list, init=False)

    def read(self, sql: str, bindings: Sequence[object] = ()) -> list[Row]:
        """Return the rows of a statement that changes nothing."""
        if self._unwritten:
            self.flush()
        return self.connection.execute(sql, bindings).fetchall()

    def write(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement that may change any job, once for each of *rows*."""
        self.flush()
        self.forget()
        self.connection.executemany(sql, rows)

    def load(self, refs: Collection[str]) -> None:
        """Read the jobs of *refs* that are not known, with the ids of their entries, in one go."""
        version = self.read("PRAGMA data_version")
        if version != self._version or self._known > MAX_KNOWN:
            self.forget()
            self._version = version
        unknown = [ref for ref in refs if ref not in self._jobs]
        if not unknown:
            return
        self._jobs.update(dict.fromkeys(unknown))
        self._known += len(unknown)
        for row in map(JobRow._make, self.read(f"{SELECT_JOB} WHERE ref IN {_marks(unknown)}", _padded(unknown))):
            self._jobs[row.ref] = row
            self._said[row.id] = set()
        ids = [row.id for row in map(self._jobs.get, unknown) if row is not None]
        if ids:
            query = f"SELECT job, said FROM entries WHERE job IN {_marks(ids)}"  # noqa: S608 - see above
            for job, said in self.read(query, _padded(ids)):
                self._said[job].add(said)
                self._known += 1

    def job(self, ref: str) -> JobRow | None:
        """Return the job of *ref*."""
        if ref not in self._jobs:
            self.load([ref])
        return self._jobs[ref]

    def said(self, job: JobRow) -> set[str]:
        """Return the ids of the entries of *job*, which only `put` changes."""
        return self._said.setdefault(job.id, set())

    def new_id(self) -> int:
        """Return an id for a job that is to be stored."""
        last = self.read("SELECT coalesce(max(id), 0) FROM jobs")[0][0] if self._last_id is None else self._last_id
        self._last_id = int(last) + 1
        return self._last_id

    def put(self, row: JobRow, entries: Sequence[Entry] = ()) -> None:
        """Store a job as it is now, with *entries* that are new in its journal."""
        before = self._unwritten[row.ref][0] if row.ref in self._unwritten else self._jobs.get(row.ref)
        self._unwritten[row.ref] = before, row
        self._jobs[row.ref] = row
        said = self.said(row)
        self._known += len(entries)
        for entry in entries:
            said.add(entry.id)
            headers = msgspec.json.encode(dict(entry.headers)).decode() if entry.headers else None
            self._entries.append(
                (row.id, entry.id, entry.at, entry.kind, entry.status, headers, entry.note, entry.body)
            )

    def flush(self) -> None:
        """Write what is not written yet."""
        updates: dict[tuple[int, ...], list[JobRow]] = {}
        inserts: list[JobRow] = []
        for before, row in self._unwritten.values():
            if before is None:
                inserts.append(row)
            else:
                updates.setdefault(tuple(compress(_NUMBERS, map(ne, row, before))), []).append(row)
            if before is None or before.entries != row.entries:
                self.changed[row.ref] = row.entries
        many = self.connection.executemany
        if inserts:
            many(_INSERT_JOB, inserts)
        for columns, rows in updates.items():
            if columns:
                many(_update(columns), map(itemgetter(*columns, 0), rows))
        if self._entries:
            many(_INSERT_ENTRY, self._entries)
        self._unwritten.clear()
        self._entries.clear()

    def forget(self) -> None:
        """Forget what was read, and what was not written."""
        self._jobs.clear()
        self._said.clear()
        self._known = 0
        self._last_id = self._version = None
        self._unwritten.clear()
        self._entries.clear()


@cache  # of the few sets of columns that change together; an index whose columns are not named is not touched
def _update(columns: tuple[int, ...]) -> str:
    names = ", ".join(f"{COLUMNS[number]} = ?" for number in columns)
    return f"UPDATE jobs SET {names} WHERE id = ?"  # noqa: S608 - see above


def _padded(values: Sequence[object]) -> list[object]:
    """Return *values* and the last one some times more: few lengths make few statements, which stay prepared."""
    length = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (length - len(values))]


def _marks(values: Sequence[object]) -> str:
    return f"({', '.join('?' * len(_padded(values)))})"


def to_index(job: JobRow) -> Index:
    """Return the index of *job*, as the store's users know it.

    Raises:
        UnreadableError: the row is damaged.
    """
    if not all(map(isinstance, job, _TYPES)):  # type: ignore[arg-type]  # each is a type, or some
        raise UnreadableError("a column of its row has a value of another type")
    _, ref, provider, account, created_at, key, task_id, answered_at, is_open, occupies_until, poll_at, handle_at = job[
        :12
    ]
    return Index(
        ref=ref,
        provider=provider,
        account=account or "",
        created_at=created_at,
        key=key,
        task_id=task_id,
        answered_at=answered_at,
        is_open=bool(is_open),
        occupies_until=occupies_until,
        poll_at=poll_at,
        handle_at=handle_at,
    )


def to_entry(row: Sequence[Any]) -> Entry:
    """Return the entry whose columns are those of `ENTRY`.

    Raises:
        UnreadableError: the row is damaged.
    """
    id_, at, kind, status, headers, note, body = row
    if not (isinstance(at, float) and kind in _KINDS and isinstance(body, bytes) and isinstance(status, int)):
        raise UnreadableError("an entry of its journal has a value of another type")
    return Entry(
        id=str(id_),
        at=at,
        kind=kind,
        status=status,
        headers={} if headers is None else msgspec.json.decode(headers, type=dict[str, str]),
        note=str(note),
        body=body,
    )
