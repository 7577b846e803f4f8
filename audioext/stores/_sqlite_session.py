"""The journals as rows of a SQLite file, with a cache per connection, so that a job is read once and then only written.

The cache is valid until another connection writes (sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate, compress
from operator import itemgetter, ne
from typing import Any

from attrs import define, field

from audioext.errors import UnreadableError
from audioext.models.entries import POST_SECONDS, Entry
from audioext.stores._journals import Head, Journals, KnownJob, oldest_beyond
from audioext.stores._sqlite_file import Connection, Row
from audioext.stores._sqlite_rows import (
    COLUMNS,
    DELIVERIES,
    INSERT_ENTRY,
    INSERT_JOB,
    JOURNAL,
    JOURNALS,
    OF_ALL,
    OF_ONE,
    SELECT_JOB,
    entry_row,
    job_row,
    to_delivery_or_none,
    to_entries,
    to_heads,
    to_jobs,
)
from audioext.stores.base import LONGEST_HOLD_SECONDS, Delivery, Providers, Stored, Work

Bindings = Sequence[object] | Mapping[str, object]

_log = logging.getLogger("audioext.stores.sqlite")

MAX_KNOWN = 5_000
"""How many jobs a connection caches before it clears the cache."""
ABOVE_ALL = 9e307
"""Greater than any time. A damaged row can have a text as its time, and SQLite sorts texts above all numbers."""

NEWEST = "SELECT coalesce(max(id), 0) FROM entries"
_LEAVING = """SELECT answered_at + :per FROM jobs
    WHERE account = :account AND answered_at > :now - :per AND answered_at < :now + :per
    UNION ALL SELECT min(created_at + :post, :now + :per) FROM jobs
    WHERE account = :account AND answered_at IS NULL AND created_at > :now - :post AND created_at < :now + :post"""
_OCCUPYING = """SELECT count(*) FROM jobs
    WHERE account = ? AND occupies_until > ? AND occupies_until > 0 AND occupies_until < ?"""

PAGE_JOBS = 256
"""How many jobs one step lists or purges, so that other work does not wait long."""
MOST_LEAVING = 2_000
"""How many jobs one step checks for purging."""
_ENTRIES = "CAST(entries AS INTEGER)"
PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs ends when their bodies exceed this size."""
_SIZE = 1 + COLUMNS.index("size")
PAGE_DELIVERIES = 64
LAST = 2**63 - 1
"""The greatest id that SQLite can assign."""

_COLUMN: dict[Work, str] = {"polls": "poll_at", "handlers": "handle_at"}
_DUE: dict[Work, str] = {"polls": "poll_at", "handlers": "max(handle_at, held_until)"}
_IS_TOO_LATE: dict[Work, str] = {
    "polls": "poll_at > :latest",
    "handlers": "max(handle_at, held_until) > :latest AND "
    f"(held_until <= :now AND handle_at > :latest OR held_until > :latest + {LONGEST_HOLD_SECONDS})",
}
"""Whether the due time must come from a clock that was ahead."""
_CLAIM: dict[Work, str] = {
    "polls": "UPDATE jobs SET poll_at = :until WHERE id = :id",
    "handlers": "UPDATE jobs SET handle_at = min(handle_at, :now), held_until = :until WHERE id = :id",
}


@define(eq=False)
class Session(Journals):
    """The store's methods, run on one connection."""

    create = Journals._create  # noqa: SLF001 - the base class's own
    append = Journals._append  # noqa: SLF001 - see above

    connection: Connection
    _jobs: dict[str, KnownJob | None] = field(factory=dict, init=False)
    _version: object = field(default=None, init=False)
    execute: Callable[..., object] = field(init=False)
    """Run a statement that returns no rows, on a shared cursor: a new one costs as much as a small update."""

    def __attrs_post_init__(self) -> None:
        self.execute = self.connection.cursor().execute

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        return self.connection.execute(sql, bindings).fetchall()

    def know(self, refs: Collection[str]) -> bool:
        """Prepare a batch of work on the jobs of *refs*: read those that are not cached in one query.

        Return whether another connection may have written since the last batch.
        """
        version = self.rows("PRAGMA data_version")
        is_other = version != self._version
        if is_other or len(self._jobs) > MAX_KNOWN:
            self.forget_known()
            self._version = version
        unknown = [ref for ref in refs if ref not in self._jobs]
        if unknown:
            self._load(unknown)
        return is_other

    def forget_known(self) -> None:
        self._jobs.clear()
        self._version = None

    def _load(self, refs: Sequence[str]) -> None:
        self._jobs.update(dict.fromkeys(refs))
        among = f"ref IN ({', '.join('?' * len(refs))})"
        rows = self.rows(f"{SELECT_JOB} WHERE {among}", refs)
        for row, head in zip(rows, to_heads(rows), strict=True):
            self._jobs[head.lookup.ref] = KnownJob(head, row[0], job_row(head))
        ids = f"SELECT ref, said FROM jobs CROSS JOIN entries ON entries.job = jobs.id WHERE {among}"  # noqa: S608 - our own names, here and below
        for ref, said in self.rows(ids, refs):
            if (job := self._jobs[ref]) is not None:
                job.ids[said] = None

    def _holder(self, key: str) -> str | None:
        return next((ref for (ref,) in self.rows("SELECT ref FROM jobs WHERE key = ?", (key,))), None)

    def _job(self, ref: str) -> KnownJob | None:
        if ref not in self._jobs:
            self._load([ref])
        return self._jobs[ref]

    def _entries(self, job: KnownJob) -> Iterable[Entry]:
        return to_entries(self.rows(JOURNAL, (job.number, 0)))

    def _window_ends(self, account: str, per: float, now: float) -> Sequence[float]:
        bindings = {"account": account, "now": now, "per": per, "post": POST_SECONDS}
        return [at for (at,) in self.rows(_LEAVING, bindings)]

    def _count_occupying(self, account: str, now: float) -> int:
        return int(self.rows(_OCCUPYING, (account, now, ABOVE_ALL))[0][0])

    def _begin(self, job: KnownJob, head: Head, request: Entry) -> None:
        orphans = self.rows("SELECT id FROM entries WHERE job = ? ORDER BY id", (job.number,)) if job.ids else ()
        self._put(job, head, [request])
        self.connection.executemany("UPDATE entries SET id = (SELECT max(id) FROM entries) + 1 WHERE id = ?", orphans)

    def _put(self, job: KnownJob, head: Head, new: Iterable[Entry]) -> None:
        execute = self.execute
        row = job_row(head)
        if job.row is None:
            execute(INSERT_JOB, row)
            ((job.number,),) = self.rows("SELECT last_insert_rowid()")
            self._jobs[head.lookup.ref] = job
        elif row != job.row:
            differs = tuple(map(ne, row, job.row))
            execute(_update(differs), (*compress(row, differs), job.number))
        job.head, job.row = head, row
        for entry in new:
            execute(INSERT_ENTRY, entry_row(job.number, entry))
            job.ids[entry.id] = None

    # --- the methods of Store ------------------------------------------------------------------------------

    def read(self, ref: str, *, after: int = 0) -> Stored | None:
        """Return a job with its entries after the first *after*; see `Store.read`."""
        try:
            for row in self.rows(f"{SELECT_JOB} WHERE ref = ?", (ref,)):
                return to_heads([row])[0].stored(to_entries(self.rows(JOURNAL, (row[0], after))))
        except ValueError as error:
            raise UnreadableError(f"job {ref} cannot be read: {error}") from error
        return None

    def find(self, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
        """Return the ref of a job by its key or its task id."""
        if key is not None:
            return self._holder(key)
        newest = "SELECT ref FROM jobs WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1"
        return next((ref for (ref,) in self.rows(newest, (task_id, provider))), None)

    def page(self, last: int, *, is_open: bool | None, newest_first: bool) -> list[tuple[int, Stored | None]]:
        """Return the next page of jobs after the id *last*, each with its id; unreadable ones are `None`."""
        which = "account IS NOT NULL" if is_open is None else f"account IS NOT NULL AND is_open = {is_open:d}"
        way = f"id < ? AND {which} ORDER BY id DESC" if newest_first else f"id > ? AND {which} ORDER BY id"
        rows = self.rows(f"{SELECT_JOB} WHERE {way} LIMIT ?", (last, PAGE_JOBS))
        before = accumulate((row[_SIZE] if isinstance(row[_SIZE], int) else 0 for row in rows), initial=0)
        rows = [row for row, size in zip(rows, before, strict=False) if size <= PAGE_BYTES]
        ids = [row[0] for row in rows]
        return list(zip(ids, to_jobs(rows, self.rows(JOURNALS.format(", ".join("?" * len(ids))), ids)), strict=True))

    def deliveries(self, before: int, *, ref: str | None) -> list[tuple[int, Delivery | None]]:
        """Return a page of webhooks with ids below *before*, newest first; unreadable ones are `None`."""
        of, given = (OF_ALL, ()) if ref is None else (OF_ONE, (ref,))
        query = f"{DELIVERIES} {of} AND entries.id < ? ORDER BY entries.id DESC LIMIT ?"
        rows = self.rows(query, (*given, before, PAGE_DELIVERIES))
        return [(row[0], to_delivery_or_none(row)) for row in rows]

    def claim(  # noqa: PLR0913 - the protocol's
        self, work: Work, *, now: float, until: float, limit: int, providers: Providers = None, latest: float = math.inf
    ) -> tuple[str, ...]:
        """Claim jobs whose work is due; see `Store.claim`."""
        given = {"now": now, "latest": latest, "limit": limit}
        jobs = self._due_jobs(work, f"{_DUE[work]} <= :now", providers, given)
        if latest < math.inf and len(jobs) < limit:
            jobs += self._due_jobs(work, _IS_TOO_LATE[work], providers, given)
        del jobs[limit:]
        refs = tuple(ref.decode(errors="replace") for _, _, ref in jobs)
        self.connection.executemany(_CLAIM[work], [{"now": now, "until": until, "id": id_} for _, id_, _ in jobs])
        for ref in refs:
            self._jobs.pop(ref, None)
        return refs

    def next_due(self, work: Work, *, providers: Providers = None) -> float | None:
        """Return when work can be claimed next; see `Store.next_due`."""
        jobs = self._due_jobs(work, f"{_DUE[work]} < {ABOVE_ALL}", providers, {"limit": 1})
        return jobs[0][0] if jobs else None

    def _due_jobs(self, work: Work, which: str, providers: Providers, given: dict[str, Any]) -> list[Row]:
        """Return (due, id, ref) of the first due jobs; one query per provider, so that each can use the index."""
        due, ref = f"CAST({_DUE[work]} AS REAL)", "CAST(ref AS BLOB)"
        select = f"SELECT {due}, id, {ref} FROM jobs WHERE {_COLUMN[work]} IS NOT NULL AND {which}"  # noqa: S608 - see above
        first = f"ORDER BY {_DUE[work]}, id LIMIT :limit"
        if providers is None:
            return self.rows(f"{select} {first}", given)
        of_one = f"{select} AND provider = :name {first}"
        rows = [row for name in sorted(set(providers)) for row in self.rows(of_one, given | {"name": name})]
        return sorted(rows, key=itemgetter(0))

    def secret(self, name: str, default: bytes) -> bytes:
        """Return the value stored under *name*, storing *default* first if there is none."""
        self.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", (name, default))
        value: bytes = self.rows("SELECT value FROM secrets WHERE name = ?", (name,))[0][0]
        return value

    def surplus(self, kept: int) -> int:
        """Return how many webhooks exceed those that may be *kept*, or 0 or less if none does."""
        ((most,),) = self.rows("SELECT coalesce(sum(entries), 0) FROM jobs")
        if most > kept:  # otherwise there is no need to scan all entries
            ((most,),) = self.rows("SELECT count(*) FROM entries WHERE kind = 'webhook'")
        return int(most - kept)

    def orphans(self, bytes_kept: int) -> list[Row]:
        """Return the orphans' journals to delete, in the form that `purgeable` returns."""
        sizes = f"SELECT id, {_ENTRIES}, CAST(size AS INTEGER) FROM jobs WHERE account IS NULL AND is_open = 0"  # noqa: S608 - see above
        return oldest_beyond(((row[:2], row[2]) for row in self.rows(f"{sizes} ORDER BY changed_at")), bytes_kept)

    def purgeable(self, before: float, deliveries_kept: int, untold_before: float) -> list[Row]:
        """Return (id, number of entries) of some jobs to delete, those with the oldest last entry first.

        It reads a single state, so that processes that purge at the same time choose the same jobs.
        """
        surplus = self.surplus(deliveries_kept)
        closed = self.connection.execute(
            f"SELECT id, {_ENTRIES}, changed_at, "  # noqa: S608 - see above
            "(SELECT count(*) FROM entries WHERE job = jobs.id AND kind = 'webhook') FROM jobs "
            f"WHERE is_open = 0 AND changed_at < ? AND coalesce({_DUE['handlers']}, 0) NOT BETWEEN ? AND ? "
            "ORDER BY changed_at LIMIT ?",
            (ABOVE_ALL, untold_before, ABOVE_ALL, MOST_LEAVING),
        )
        found: list[Row] = []
        for id_, entries, changed_at, webhooks in closed:
            if changed_at >= before and surplus <= 0:
                break
            surplus -= webhooks
            found.append((id_, entries))
        return found

    def forget(self, jobs: Sequence[Row]) -> int:
        """Delete those of *jobs* that have no new entry since they were chosen, and return how many."""
        same = f"SELECT id FROM jobs WHERE id = ? AND is_open = 0 AND {_ENTRIES} = ?"  # noqa: S608 - see above
        went = [row for job in jobs for row in self.rows(same, job)]
        ((newest,),) = self.rows(NEWEST)
        self.connection.executemany("DELETE FROM entries WHERE job = ?", went)
        self.connection.executemany("DELETE FROM jobs WHERE id = ?", went)
        self.forget_known()
        if self.rows(NEWEST)[0][0] != newest:
            # Keep a row of no job at the newest id, so that no id is reused.
            self.execute("DELETE FROM entries WHERE job = 0")
            columns = "id, job, said, at, kind, status, note, body"
            self.execute(f"INSERT INTO entries ({columns}) VALUES (?, 0, '', 0, 'purged', 0, '', '')", (newest,))  # noqa: S608 - see above
        return len(went)


@cache  # few sets of columns change together; SQLite updates only the indexes of the columns that are named
def _update(differs: tuple[bool, ...]) -> str:
    names = ", ".join(f"{name} = ?" for name in compress(COLUMNS, differs))
    return f"UPDATE jobs SET {names} WHERE id = ?"  # noqa: S608 - see above
