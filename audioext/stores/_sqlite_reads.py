"""What the SQLite store reads of its file: jobs and deliveries, of which one that is damaged keeps no other from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from audioext.errors import UnreadableError
from audioext.models.entries import Entry
from audioext.stores._sqlite_file import Row, is_engine_fault
from audioext.stores._sqlite_session import ENTRY, SELECT_JOB, JobRow, Session, to_entry, to_index
from audioext.stores.base import Delivery, Stored, to_delivery

_log = logging.getLogger("audioext.stores.sqlite")

T = TypeVar("T")

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
_WEBHOOKS = "FROM entries CROSS JOIN jobs ON jobs.id = entries.job WHERE kind = 'webhook' AND entries.id"
_WEBHOOKS_OF_ONE = """FROM jobs CROSS JOIN entries ON jobs.id = entries.job
    WHERE kind = 'webhook' AND ref = ? AND entries.id"""
_NEWEST_FIRST = "ORDER BY entries.id DESC LIMIT ?"


def read(session: Session, ref: str, after: int) -> Stored | None:
    """Return the job of *ref* with its entries after so many.

    Raises:
        UnreadableError: it is damaged.
    """
    with _readable(f"job {ref}"):
        return _read(session, f"{SELECT_JOB} WHERE ref = ?", ref, after)


def find(session: Session, key: str | None, provider: str = "", task_id: str | None = None) -> str | None:
    """Return the ref of a job by its key or its task id."""
    if key is not None:
        rows = session.read("SELECT ref FROM jobs WHERE key = ?", (key,))
        return rows[0][0] if rows else None
    rows = session.read(
        "SELECT ref FROM jobs WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1", (task_id, provider)
    )
    return rows[0][0] if rows else None


def page(session: Session, after: int, *, is_open: bool | None) -> list[tuple[int, Stored | None]]:
    """Return some of the jobs whose id is above *after*, with their ids; those that cannot be read are `None`."""
    which = "account IS NOT NULL" if is_open is None else f"account IS NOT NULL AND is_open = {is_open:d}"
    bounds = f"WHERE id > ? AND {which} ORDER BY id LIMIT ?"
    found: dict[int, tuple[JobRow, list[Entry]]] = {}
    try:
        size = 0
        for row in map(JobRow._make, session.read(f"{SELECT_JOB} {bounds}", (after, PAGE_JOBS))):
            size += row.size
            if found and size > PAGE_BYTES:
                break
            found[row.id] = row, []
        if found:
            ordered = f"{_ENTRIES_OF_SOME} AND {which} ORDER BY jobs.id, entries.id"
            for job, *entry in session.read(ordered, (after, max(found))):
                found[job][1].append(to_entry(entry))
        return [(id_, _stored(row, entries)) for id_, (row, entries) in found.items()]
    except Exception as error:
        if is_engine_fault(error):
            raise
    ids = session.read(f"SELECT id, CAST(ref AS BLOB) FROM jobs {bounds}", (after, PAGE_JOBS // 16))  # noqa: S608 - see above
    by_id = f"{SELECT_JOB} WHERE id = ?"
    return [(id_, _or_none(f"job {_text(ref)}", partial(_read, session, by_id, id_, 0))) for id_, ref in ids]


def deliveries(session: Session, before: int, ref: str | None) -> list[tuple[int, Delivery | None]]:
    """Return some of the webhooks whose id is below *before*, newest first; those that cannot be read are `None`."""
    source, given = (_WEBHOOKS, ()) if ref is None else (_WEBHOOKS_OF_ONE, (ref,))
    bounds = (*given, before, PAGE_DELIVERIES)
    try:
        return [(row[0], _delivery(row)) for row in session.read(f"{_DELIVERY} {source} < ? {_NEWEST_FIRST}", bounds)]
    except Exception as error:
        if is_engine_fault(error):
            raise
    ids = session.read(f"SELECT entries.id, CAST(ref AS BLOB) {source} < ? {_NEWEST_FIRST}", bounds)
    return [(id_, _or_none(f"a delivery of job {_text(of)}", partial(_one_delivery, session, id_))) for id_, of in ids]


def surplus(session: Session, kept: int) -> int:
    """Return how many webhooks the journals hold above those that may be *kept*; 0 or less: at least none."""
    most = int(session.read("SELECT coalesce(sum(entries), 0) FROM jobs")[0][0])
    if most > kept:  # else there is no need to go through all bodies
        most = int(session.read("SELECT count(*) FROM entries WHERE kind = 'webhook'")[0][0])
    return most - kept


def newest_entry(session: Session) -> int:
    """Return the id of the entry that was stored last."""
    return int(session.read("SELECT coalesce(max(id), 0) FROM entries")[0][0])


def sqlite_version(session: Session) -> str:
    """Reach the file, and return the version of SQLite that the driver brings."""
    return str(session.read("SELECT sqlite_version() FROM sqlite_master LIMIT 1")[0][0])


@contextmanager
def _readable(what: str) -> Generator[None]:
    """Name *what* is damaged, where it is not the file that fails."""
    try:
        yield
    except Exception as error:
        if is_engine_fault(error):
            raise
        raise UnreadableError(f"{what} cannot be read: {error}") from error


def _or_none(what: str, make: Callable[[], T]) -> T | None:
    try:
        with _readable(what):
            return make()
    except UnreadableError as error:
        _log.warning("it is passed over: %s", error)
        return None


def _text(ref: bytes) -> str:
    return ascii(ref.decode(errors="replace"))[1:-1]


def _read(session: Session, select: str, given: object, after: int) -> Stored | None:
    for row in map(JobRow._make, session.read(select, (given,))):
        entries = session.read(_ENTRIES, (row.id, after)) if after < row.entries else []
        return _stored(row, map(to_entry, entries))
    return None


def _delivery(row: Row) -> Delivery:
    _, ref, provider, is_orphan, *entry = row
    return to_delivery(ref, provider, to_entry(entry), is_orphan=bool(is_orphan))


def _one_delivery(session: Session, id_: int) -> Delivery:
    return _delivery(session.read(f"{_DELIVERY} {_WEBHOOKS} = ?", (id_,))[0])


def _stored(row: JobRow, entries: Iterable[Entry]) -> Stored:
    return Stored(index=to_index(row), count=row.entries, entries=tuple(entries), repeats=row.repeats)
