"""What the SQLite store reads, in one snapshot each: a job, a page of jobs or of deliveries, a count."""

from __future__ import annotations

from collections.abc import Iterable

from audioext.models.entries import Entry
from audioext.stores._sqlite_jobs import find_key
from audioext.stores._sqlite_session import ENTRY, SELECT_JOB, JobRow, Session, to_entry, to_index
from audioext.stores.base import Delivery, Stored, to_delivery

PAGE_JOBS = 256
PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs ends where their bodies reach this size."""
PAGE_DELIVERIES = 64
NEWEST = 2**63 - 1
"""No entry has a greater id."""

_ENTRIES = f"SELECT {ENTRY} FROM entries WHERE job = ? ORDER BY id LIMIT -1 OFFSET ?"  # noqa: S608 - our own names, here and below
# CROSS JOIN: the table on its left is the one that is gone through.
_ENTRIES_OF_SOME = f"""SELECT jobs.id, {ENTRY} FROM jobs CROSS JOIN entries ON jobs.id = entries.job
    WHERE jobs.id > ? AND jobs.id <= ?"""  # noqa: S608 - see above
_DELIVERY = f"SELECT entries.id, ref, provider, account IS NULL, {ENTRY}"
_DELIVERIES = f"""{_DELIVERY} FROM entries CROSS JOIN jobs ON jobs.id = entries.job
    WHERE kind = 'webhook' AND entries.id < ? ORDER BY entries.id DESC LIMIT ?"""
_DELIVERIES_OF_ONE = f"""{_DELIVERY} FROM jobs CROSS JOIN entries ON jobs.id = entries.job
    WHERE kind = 'webhook' AND entries.id < ? AND ref = ? ORDER BY entries.id DESC LIMIT ?"""


def read(session: Session, ref: str, after: int) -> Stored | None:
    """Return the job of *ref* with its entries after so many."""
    for row in map(JobRow._make, session.read(f"{SELECT_JOB} WHERE ref = ?", (ref,))):
        entries = session.read(_ENTRIES, (row.id, after)) if after < row.entries else []
        return _stored(row, map(to_entry, entries))
    return None


def find(session: Session, key: str | None, provider: str, task_id: str | None) -> str | None:
    """Return the ref of a job by its key or its task id."""
    if key is not None:
        return find_key(session, key)
    rows = session.read(
        "SELECT ref FROM jobs WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1", (task_id, provider)
    )
    return rows[0][0] if rows else None


def jobs(session: Session, after: int, *, is_open: bool | None) -> list[tuple[int, Stored]]:
    """Return some of the jobs whose id is above *after*, with their ids."""
    which = "account IS NOT NULL" if is_open is None else f"account IS NOT NULL AND is_open = {is_open:d}"
    rows = session.read(f"{SELECT_JOB} WHERE id > ? AND {which} ORDER BY id LIMIT ?", (after, PAGE_JOBS))
    page: dict[int, tuple[JobRow, list[Entry]]] = {}
    size = 0
    for row in map(JobRow._make, rows):
        size += row.size
        if page and size > PAGE_BYTES:
            break
        page[row.id] = row, []
    if page:
        ordered = f"{_ENTRIES_OF_SOME} AND {which} ORDER BY jobs.id, entries.id"
        for job, *entry in session.read(ordered, (after, max(page))):
            page[job][1].append(to_entry(entry))
    return [(id_, _stored(row, entries)) for id_, (row, entries) in page.items()]


def deliveries(session: Session, before: int, ref: str | None) -> list[tuple[int, Delivery]]:
    """Return some of the webhooks whose id is below *before*, newest first, with their ids."""
    if ref is None:
        rows = session.read(_DELIVERIES, (before, PAGE_DELIVERIES))
    else:
        rows = session.read(_DELIVERIES_OF_ONE, (before, ref, PAGE_DELIVERIES))
    return [
        (id_, to_delivery(ref, provider, to_entry(entry), is_orphan=bool(is_orphan)))
        for id_, ref, provider, is_orphan, *entry in rows
    ]


def count_deliveries(session: Session) -> int:
    """Return how many webhooks all journals hold."""
    return int(session.read("SELECT count(*) FROM entries WHERE kind = 'webhook'")[0][0])


def newest_entry(session: Session) -> int:
    """Return the id of the entry that was stored last."""
    return int(session.read("SELECT coalesce(max(id), 0) FROM entries")[0][0])


def sqlite_version(session: Session) -> str:
    """Reach the file, and return the version of SQLite that the driver brings."""
    return str(session.read("SELECT sqlite_version() FROM sqlite_master LIMIT 1")[0][0])


def _stored(row: JobRow, entries: Iterable[Entry]) -> Stored:
    return Stored(index=to_index(row), count=row.entries, entries=tuple(entries), repeats=row.repeats)
