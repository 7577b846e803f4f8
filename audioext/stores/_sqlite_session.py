"""The journals as rows of a SQLite file, and what a connection knows of them: each job is read once, then written.

What was read stays known unless another connection has written since (sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import compress
from operator import attrgetter, ne
from typing import Any, Final

import attrs
import msgspec
from attrs import define, field

from audioext.models.entries import POST_SECONDS, Entry, Index
from audioext.stores._journals import Head, Journals, orphan
from audioext.stores._sqlite_file import Connection, Row

MAX_KNOWN = 5_000
"""Jobs of which a connection knows what it read; beyond that it begins anew."""
ABOVE_ALL: Final = 9e307
"""In a damaged row a text may stand for a time: it is above every number."""

_LOOKUP: Final = tuple(each.name for each in attrs.fields(Index))
COLUMNS: Final = (*_LOOKUP, *Head._fields[4:])
"""Of a job beside its id; the account is `NULL` while its request is not in the journal."""
_encode = msgspec.json.Encoder(enc_hook=dict).encode
_lookup_values: Final = attrgetter(*_LOOKUP[:-2])
_ENTRY: Final = ("id", "at", "kind", "status", "headers", "note", "body")
# Texts come as bytes: one that is none is the trouble of whoever reads it, not of the statement.
_TEXTS: Final = {"ref", "provider", "account", "key", "task_id", "said", "kind", "headers", "note"}


def _selected(*names: str) -> str:
    return ", ".join(f"CAST({name} AS BLOB)" if name in _TEXTS else name for name in names)


SELECT_JOB: Final = f"SELECT id, {_selected(*COLUMNS)} FROM jobs"  # noqa: S608 - our own names, here and below
ENTRY: Final = _selected("said", *_ENTRY[1:])
JOURNAL: Final = f"SELECT {ENTRY} FROM entries WHERE job = ? ORDER BY id LIMIT -1 OFFSET ?"  # noqa: S608 - see above
NEWEST: Final = "SELECT coalesce(max(id), 0) FROM entries"
_INSERT_JOB = f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES (?{', ?' * (len(COLUMNS) - 1)})"  # noqa: S608 - see above
_INSERT_ENTRY = f"INSERT INTO entries (job, said, {', '.join(_ENTRY[1:])}) VALUES (?{', ?' * 7})"  # noqa: S608 - see above
_LEAVING = """SELECT answered_at + :per FROM jobs
    WHERE account = :account AND answered_at > :now - :per AND answered_at < :now + :per
    UNION ALL SELECT min(created_at + :post, :now + :per) FROM jobs
    WHERE account = :account AND answered_at IS NULL AND created_at > :now - :post AND created_at < :now + :post"""
_OCCUPYING = """SELECT count(*) FROM jobs
    WHERE account = ? AND occupies_until > ? AND occupies_until > 0 AND occupies_until < ?"""


@define(eq=False)
class KnownJob:
    """A job as it is in the file: its head, that as a row, and the ids of its entries; a new one has no row yet."""

    head: Head
    id: int = -1
    row: Row | None = None
    ids: set[str] = field(factory=set)


@define(eq=False)
class Session(Journals[KnownJob]):
    """Runs the statements of one connection."""

    connection: Connection
    _jobs: dict[str, KnownJob | None] = field(factory=dict, init=False)
    _version: object = field(default=None, init=False)
    execute: Callable[..., object] = field(init=False)
    """Runs a statement without rows: on one cursor, since each new one costs as much as a small change."""

    def __attrs_post_init__(self) -> None:
        self.execute = self.connection.cursor().execute

    def read(self, sql: str, bindings: Sequence[object] | Mapping[str, object] = ()) -> list[Row]:
        return self.connection.execute(sql, bindings).fetchall()

    def write(
        self, sql: str, rows: Sequence[Sequence[object] | Mapping[str, object]], *, refs: Collection[str] | None = None
    ) -> None:
        """Run a statement once for each of *rows*, which changes the jobs of *refs*, or any."""
        self.connection.executemany(sql, rows)
        if refs is None:
            self.forget()
        else:
            for ref in refs:
                self._jobs.pop(ref, None)

    def know(self, refs: Collection[str]) -> None:
        """Begin a batch of works on the jobs of *refs*, which are read in one go where they are not known."""
        version = self.read("PRAGMA data_version")
        if version != self._version or len(self._jobs) > MAX_KNOWN:
            self.forget()
            self._version = version
        unknown = [ref for ref in refs if ref not in self._jobs]
        if unknown:
            self._load(unknown)

    def forget(self) -> None:
        self._jobs.clear()
        self._version = None

    def _load(self, refs: Sequence[str]) -> None:
        self._jobs.update(dict.fromkeys(refs))
        among = f"ref IN ({', '.join('?' * len(refs))})"
        for id_, *row in self.read(f"{SELECT_JOB} WHERE {among}", refs):
            head = to_head(row)
            self._jobs[head.lookup.ref] = KnownJob(head, id_, _row(head))
        ids = f"SELECT ref, said FROM jobs CROSS JOIN entries ON entries.job = jobs.id WHERE {among}"  # noqa: S608 - see above
        for ref, said in self.read(ids, refs):
            job = self._jobs[ref]
            assert job is not None  # noqa: S101 - it is one of the rows before
            job.ids.add(said)

    def holder(self, key: str) -> str | None:
        rows = self.read("SELECT ref FROM jobs WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def _job(self, ref: str, provider: str, began: float) -> KnownJob:
        if ref not in self._jobs:
            self._load([ref])
        return self._jobs[ref] or KnownJob(orphan(ref, provider, began))

    def _entries(self, job: KnownJob) -> Iterable[Entry]:
        return map(to_entry, self.read(JOURNAL, (job.id, 0)))

    def _leaving(self, account: str, per: float, now: float) -> Sequence[float]:
        bindings = {"account": account, "now": now, "per": per, "post": POST_SECONDS}
        return [at for (at,) in self.read(_LEAVING, bindings)]

    def _count_occupying(self, account: str, now: float) -> int:
        return int(self.read(_OCCUPYING, (account, now, ABOVE_ALL))[0][0])

    def _begin(self, job: KnownJob, head: Head, request: Entry) -> None:
        orphans = self.read("SELECT id FROM entries WHERE job = ? ORDER BY id", (job.id,)) if job.ids else ()
        self._put(job, head, [request])
        self.write("UPDATE entries SET id = (SELECT max(id) FROM entries) + 1 WHERE id = ?", orphans, refs=())

    def _put(self, job: KnownJob, head: Head, new: Iterable[Entry]) -> None:
        execute = self.execute
        row = _row(head)
        if job.row is None:
            execute(_INSERT_JOB, row)
            ((job.id,),) = self.read("SELECT last_insert_rowid()")
            self._jobs[head.lookup.ref] = job
        elif row != job.row:
            differs = tuple(map(ne, row, job.row))
            execute(_update(differs), (*compress(row, differs), job.id))
        job.head, job.row = head, row
        for entry in new:
            headers = _encode(entry.headers).decode() if entry.headers else None
            values = (job.id, entry.id, entry.at, entry.kind, entry.status, headers, entry.note, entry.body)
            execute(_INSERT_ENTRY, values)
            job.ids.add(entry.id)


@cache  # of the few sets of columns that change together; an index whose columns are not named is not touched
def _update(differs: tuple[bool, ...]) -> str:
    names = ", ".join(f"{name} = ?" for name in compress(COLUMNS, differs))
    return f"UPDATE jobs SET {names} WHERE id = ?"  # noqa: S608 - see above


def _row(head: Head) -> Row:
    values: Row = _lookup_values(head.lookup)
    return (values if head.is_known else (*values[:2], None, *values[3:])) + head[2:]


def _texts(row: Sequence[Any]) -> Iterator[Any]:
    return (value.decode() if isinstance(value, bytes) else value for value in row)


def to_head(row: Sequence[Any]) -> Head:
    """Return the head that is stored as *row*, whose columns are those of `COLUMNS`; a `ValueError`: it is damaged."""
    lookup = dict(zip(_LOOKUP, _texts(row), strict=False))
    is_known = lookup["account"] is not None
    lookup |= {"account": lookup["account"] or "", "is_open": bool(lookup["is_open"])}
    return msgspec.convert((lookup, is_known, *row[9:]), Head)


def to_entry(row: Sequence[Any]) -> Entry:
    """Return the entry that is stored as *row*, whose columns are those of `ENTRY`; a `ValueError`: it is damaged."""
    *texts, body = row
    values = dict(zip(_ENTRY, _texts(texts), strict=False), body=body)
    values["headers"] = {} if values["headers"] is None else msgspec.json.decode(values["headers"])
    return msgspec.convert(values, Entry, builtin_types=(bytes,))
