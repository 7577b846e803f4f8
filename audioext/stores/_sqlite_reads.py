"""What the SQLite store reads of its file: jobs and deliveries, of which one that is damaged keeps no other from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from audioext.errors import UnreadableError
from audioext.stores._append import Head
from audioext.stores._sqlite_file import Row
from audioext.stores._sqlite_session import ENTRY, JOURNAL, SELECT_JOB, Session, to_entry, to_head
from audioext.stores.base import Delivery, Stored, to_delivery

_log = logging.getLogger("audioext.stores.sqlite")

T = TypeVar("T")
R = TypeVar("R")

PAGE_JOBS = 256
PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs ends where their bodies reach this size."""
PAGE_DELIVERIES = 64
LAST = 2**63 - 1
"""No entry has a greater id."""

# CROSS JOIN: the table on its left is the one that is gone through.
_JOURNALS = f"""SELECT jobs.id, {ENTRY} FROM jobs CROSS JOIN entries ON jobs.id = entries.job
    WHERE jobs.id > ? AND jobs.id <= ?"""  # noqa: S608 - our own names, here and below
_DELIVERIES = f"SELECT entries.id, CAST(ref AS BLOB), CAST(provider AS BLOB), account IS NULL, {ENTRY} FROM"
_OF_ALL = "entries CROSS JOIN jobs ON jobs.id = entries.job WHERE kind = 'webhook'"
_OF_ONE = "jobs CROSS JOIN entries ON jobs.id = entries.job WHERE kind = 'webhook' AND ref = ?"


def read(session: Session, ref: str, after: int) -> Stored | None:
    """Return the job of *ref* with its entries after so many.

    Raises:
        UnreadableError: it is damaged.
    """
    try:
        for id_, *row in session.read(f"{SELECT_JOB} WHERE ref = ?", (ref,)):
            head = to_head(row)
            rows = session.read(JOURNAL, (id_, after)) if after < head.entries else ()
            return head.stored(map(to_entry, rows))
    except UnreadableError as error:
        raise UnreadableError(f"job {ref} cannot be read: {error}") from error
    return None


def find(session: Session, key: str | None, provider: str, task_id: str | None) -> str | None:
    """Return the ref of a job by its key or its task id."""
    if key is not None:
        return session.holder(key)
    newest = "SELECT ref FROM jobs WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1"
    rows = session.read(newest, (task_id, provider))
    return rows[0][0] if rows else None


def page(session: Session, after: int, is_open: bool | None) -> list[tuple[int, Stored | None]]:  # noqa: FBT001 - a work has no names
    """Return some of the jobs whose id is above *after*, with their ids; those that cannot be read are `None`."""
    which = "account IS NOT NULL" if is_open is None else f"account IS NOT NULL AND is_open = {is_open:d}"
    size = 0
    found: dict[int, tuple[str, Head | None, list[Row]]] = {}
    for id_, *row in session.read(f"{SELECT_JOB} WHERE id > ? AND {which} ORDER BY id LIMIT ?", (after, PAGE_JOBS)):
        name = f"job {_text(row[0])}"
        head = _or_none(name, to_head, row)
        size += 0 if head is None else head.size
        if found and size > PAGE_BYTES:
            break
        found[id_] = name, head, []
    if found:
        for id_, *row in session.read(f"{_JOURNALS} AND {which} ORDER BY jobs.id, entries.id", (after, max(found))):
            found[id_][2].append(tuple(row))
    return [(id_, _or_none(name, _stored, (head, rows))) for id_, (name, head, rows) in found.items()]


def deliveries(session: Session, before: int, ref: str | None) -> list[tuple[int, Delivery | None]]:
    """Return some of the webhooks whose id is below *before*, newest first; those that cannot be read are `None`."""
    of, given = (_OF_ALL, ()) if ref is None else (_OF_ONE, (ref,))
    query = f"{_DELIVERIES} {of} AND entries.id < ? ORDER BY entries.id DESC LIMIT ?"
    rows = session.read(query, (*given, before, PAGE_DELIVERIES))
    return [(row[0], _or_none(f"a delivery of job {_text(row[1])}", _delivery, row[1:])) for row in rows]


def surplus(session: Session, kept: int) -> int:
    """Return how many webhooks the journals hold above those that may be *kept*; 0 or less: at least none."""
    most = int(session.read("SELECT coalesce(sum(entries), 0) FROM jobs")[0][0])
    if most > kept:  # else there is no need to go through all bodies
        most = int(session.read("SELECT count(*) FROM entries WHERE kind = 'webhook'")[0][0])
    return most - kept


def sqlite_version(session: Session) -> str:
    """Reach the file, and return the version of SQLite that the driver brings."""
    return str(session.read("SELECT sqlite_version() FROM sqlite_master LIMIT 1")[0][0])


def _or_none(what: str, make: Callable[[R], T], row: R) -> T | None:
    try:
        return make(row)
    except (UnreadableError, UnicodeError) as error:
        _log.warning("%s is passed over: it cannot be read: %s", what, error)
        return None


def _stored(job: tuple[Head | None, list[Row]]) -> Stored | None:
    head, rows = job
    return None if head is None else head.stored(map(to_entry, rows))


def _delivery(row: Sequence[Any]) -> Delivery:
    ref, provider, is_orphan, *entry = row
    return to_delivery(ref.decode(), provider.decode(), to_entry(entry), is_orphan=bool(is_orphan))


def _text(ref: bytes) -> str:
    return ascii(ref.decode(errors="replace"))[1:-1]
