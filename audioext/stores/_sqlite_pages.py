"""What the SQLite store reads, in one snapshot each: a job, a page of jobs or of deliveries, a count."""

from __future__ import annotations

from audioext.stores._sqlite_jobs import SELECT_ENTRY, SELECT_JOB, JobRow, find_job, find_key, to_entry, to_index
from audioext.stores._sqlite_thread import Session
from audioext.stores.base import Delivery, Stored, to_delivery

PAGE_JOBS = 256
PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs ends where their bodies reach this size."""
PAGE_DELIVERIES = 64
NEWEST = 2**63 - 1
"""No entry has a greater id."""

_DELIVERIES = """SELECT entries.id, ref, provider, account IS NULL, said, at, kind, status, headers, note, body
    FROM entries CROSS JOIN jobs ON jobs.id = entries.job
    WHERE kind = 'webhook' AND entries.id < ? ORDER BY entries.id DESC LIMIT ?"""
_DELIVERIES_OF_ONE = """SELECT entries.id, ref, provider, account IS NULL, said, at, kind, status, headers, note, body
    FROM jobs CROSS JOIN entries ON jobs.id = entries.job
    WHERE kind = 'webhook' AND entries.id < ? AND ref = ? ORDER BY entries.id DESC LIMIT ?"""


def read(session: Session, ref: str, after: int) -> Stored | None:
    """Return the job of *ref* with its entries after so many."""
    job = find_job(session, ref)
    return None if job is None else _stored(session, job, after)


def find(session: Session, key: str | None, provider: str, task_id: str | None) -> str | None:
    """Return the ref of a job by its key or its task id."""
    if key is not None:
        return find_key(session, key)
    rows = session.execute(
        "SELECT ref FROM jobs WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1", (task_id, provider)
    ).fetchall()
    return rows[0][0] if rows else None


def jobs(session: Session, after: int, *, is_open: bool | None) -> list[tuple[int, Stored]]:
    """Return some of the jobs whose id is above *after*, with their ids."""
    which = "" if is_open is None else f"AND is_open = {is_open:d}"
    rows = session.execute(
        f"{SELECT_JOB} WHERE id > ? AND account IS NOT NULL {which} ORDER BY id LIMIT ?", (after, PAGE_JOBS)
    ).fetchall()
    page: list[tuple[int, Stored]] = []
    size = 0
    for job in map(JobRow._make, rows):
        size += job.size
        if page and size > PAGE_BYTES:
            break
        page.append((job.id, _stored(session, job)))
    return page


def deliveries(session: Session, before: int, ref: str | None) -> list[tuple[int, Delivery]]:
    """Return some of the webhooks whose id is below *before*, newest first, with their ids."""
    if ref is None:
        rows = session.execute(_DELIVERIES, (before, PAGE_DELIVERIES)).fetchall()
    else:
        rows = session.execute(_DELIVERIES_OF_ONE, (before, ref, PAGE_DELIVERIES)).fetchall()
    return [
        (id_, to_delivery(ref, provider, to_entry(tuple(entry)), is_orphan=bool(is_orphan)))
        for id_, ref, provider, is_orphan, *entry in rows
    ]


def count_deliveries(session: Session) -> int:
    """Return how many webhooks all journals hold."""
    return int(session.execute("SELECT count(*) FROM entries WHERE kind = 'webhook'").fetchall()[0][0])


def newest_entry(session: Session) -> int:
    """Return the id of the entry that was stored last."""
    return int(session.execute("SELECT coalesce(max(id), 0) FROM entries").fetchall()[0][0])


def sqlite_version(session: Session) -> str:
    """Reach the file, and return the version of SQLite that the driver brings."""
    return str(session.execute("SELECT sqlite_version() FROM sqlite_master LIMIT 1").fetchall()[0][0])


def _stored(session: Session, job: JobRow, after: int = 0) -> Stored:
    rows = session.execute(f"{SELECT_ENTRY} WHERE job = ? ORDER BY id LIMIT -1 OFFSET ?", (job.id, after)).fetchall()
    return Stored(
        index=to_index(job),
        count=job.entries,
        entries=tuple(map(to_entry, rows)),
        repeats=job.repeats,
    )
