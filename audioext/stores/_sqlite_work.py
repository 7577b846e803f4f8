"""What the SQLite store reads, claims and purges; one that is damaged keeps no other job or delivery from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, ParamSpec, TypeVar

from audioext.errors import UnreadableError
from audioext.stores._sqlite_file import Row
from audioext.stores._sqlite_session import ABOVE_ALL, ENTRY, JOURNAL, NEWEST, SELECT_JOB, Session, to_entry, to_head
from audioext.stores.base import LONGEST_HOLD_SECONDS, Delivery, Stored, Work, to_delivery

_log = logging.getLogger("audioext.stores.sqlite")

P = ParamSpec("P")
T = TypeVar("T")

PAGE_JOBS = 256
"""Jobs that are listed, or purged, in one step, so that nobody waits long for it."""
PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs ends where their bodies exceed this size."""
PAGE_DELIVERIES = 64
LAST = 2**63 - 1
"""No entry has a greater id."""

# CROSS JOIN: the table on its left is the one that is gone through.
_DELIVERIES = f"SELECT entries.id, CAST(ref AS BLOB), CAST(provider AS BLOB), account IS NULL, {ENTRY} FROM"
_OF_ALL = "entries CROSS JOIN jobs ON jobs.id = entries.job WHERE kind = 'webhook'"
_OF_ONE = "jobs CROSS JOIN entries ON jobs.id = entries.job WHERE kind = 'webhook' AND ref = ?"

_COLUMN: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "handle_at"}
_DUE: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "max(handle_at, held_until)"}
_IS_TOO_LATE: Final[dict[Work, str]] = {
    "polls": "poll_at > :latest",
    "handlers": "max(handle_at, held_until) > :latest AND "
    f"(held_until <= :now AND handle_at > :latest OR held_until > :latest + {LONGEST_HOLD_SECONDS})",
}
"""A clock that was ahead put it down."""
_CLAIM: Final[dict[Work, str]] = {
    "polls": "UPDATE jobs SET poll_at = :until WHERE id = :id",
    "handlers": "UPDATE jobs SET handle_at = min(handle_at, :now), held_until = :until WHERE id = :id",
}
_GIVE_BACK: Final[dict[Work, str]] = {
    "polls": "UPDATE jobs SET poll_at = min(poll_at, ?) WHERE ref = ?",
    "handlers": "UPDATE jobs SET handle_at = min(handle_at, ?), held_until = 0.0 WHERE ref = ?",
}


def read(session: Session, ref: str, *, after: int = 0) -> Stored | None:
    """Return a job with its entries after so many; see `Store.read`."""
    for row in session.read(f"{SELECT_JOB} WHERE ref = ?", (ref,)):
        try:
            return _stored(session, row, after)
        except ValueError as error:
            raise UnreadableError(f"job {ref} cannot be read: {error}") from error
    return None


def find(session: Session, *, key: str | None = None, provider: str = "", task_id: str | None = None) -> str | None:
    """Return the ref of a job by its key or its task id."""
    if key is not None:
        return session.holder(key)
    newest = "SELECT ref FROM jobs WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1"
    rows = session.read(newest, (task_id, provider))
    return rows[0][0] if rows else None


def page(session: Session, after: int, *, is_open: bool | None) -> list[tuple[int, Stored | None]]:
    """Return some of the jobs whose id is above *after*, with their ids; those that cannot be read are `None`."""
    which = "account IS NOT NULL" if is_open is None else f"account IS NOT NULL AND is_open = {is_open:d}"
    found: list[tuple[int, Stored | None]] = []
    size = 0
    for row in session.read(f"{SELECT_JOB} WHERE id > ? AND {which} ORDER BY id LIMIT ?", (after, PAGE_JOBS)):
        stored = _or_none(f"job {_text(row[1])}", _stored, session, row)
        found.append((row[0], stored))
        size += 0 if stored is None else sum(entry.size for entry in stored.entries)
        if size > PAGE_BYTES:
            break
    return found


def deliveries(session: Session, before: int, *, ref: str | None) -> list[tuple[int, Delivery | None]]:
    """Return some of the webhooks whose id is below *before*, newest first; those that cannot be read are `None`."""
    of, given = (_OF_ALL, ()) if ref is None else (_OF_ONE, (ref,))
    query = f"{_DELIVERIES} {of} AND entries.id < ? ORDER BY entries.id DESC LIMIT ?"
    rows = session.read(query, (*given, before, PAGE_DELIVERIES))
    return [(row[0], _or_none(f"a delivery of job {_text(row[1])}", _delivery, row)) for row in rows]


def _or_none(what: str, make: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | None:
    try:
        return make(*given, **named)
    except ValueError as error:
        _log.warning("%s is passed over: it cannot be read: %s", what, error)
        return None


def _stored(session: Session, row: Row, after: int = 0) -> Stored:
    id_, *columns = row
    return to_head(columns).stored(map(to_entry, session.read(JOURNAL, (id_, after))))


def _delivery(row: Row) -> Delivery:
    _, ref, provider, is_orphan, *entry = row
    return to_delivery(ref.decode(), provider.decode(), to_entry(entry), is_orphan=bool(is_orphan))


def _text(ref: bytes) -> str:
    return ascii(ref.decode(errors="replace"))[1:-1]


def claim(  # noqa: PLR0913 - the protocol's
    session: Session,
    work: Work,
    *,
    now: float,
    until: float,
    limit: int,
    providers: Sequence[str] | None = None,
    latest: float = math.inf,
) -> tuple[str, ...]:
    """Take jobs whose work is due; see `Store.claim`."""
    given = {"now": now, "latest": latest, "limit": limit}
    jobs = _due_jobs(session, work, f"{_DUE[work]} <= :now", providers, given)
    if latest < math.inf and len(jobs) < limit:
        jobs += _due_jobs(session, work, _IS_TOO_LATE[work], providers, given)
    refs = tuple(ref.decode(errors="replace") for _, _, ref in jobs[:limit])
    session.write(_CLAIM[work], [{"now": now, "until": until, "id": id_} for _, id_, _ in jobs[:limit]], refs=refs)
    return refs


def next_due(session: Session, work: Work, *, providers: Sequence[str] | None = None) -> float | None:
    """Return when work can be claimed next; see `Store.next_due`."""
    jobs = _due_jobs(session, work, f"{_DUE[work]} < {ABOVE_ALL}", providers, {"limit": 1})
    return jobs[0][0] if jobs else None


def _due_jobs(
    session: Session, work: Work, which: str, providers: Sequence[str] | None, given: dict[str, Any]
) -> list[Row]:
    """Return when the first jobs are due, their ids and refs; provider by provider, so that each follows its index."""
    select = f"SELECT {_DUE[work]}, id, CAST(ref AS BLOB) FROM jobs WHERE {_COLUMN[work]} IS NOT NULL AND {which}"  # noqa: S608 - our own names
    if providers is None:
        return session.read(f"{select} ORDER BY 1, id LIMIT :limit", given)
    of_one = f"{select} AND provider = :name ORDER BY 1, id LIMIT :limit"
    rows = [row for name in sorted(set(providers)) for row in session.read(of_one, given | {"name": name})]
    return sorted(rows, key=itemgetter(0))


def reschedule(session: Session, ref: str, work: Work, *, at: float) -> None:
    """Give back what was claimed; see `Store.reschedule`."""
    session.write(_GIVE_BACK[work], [(at, ref)], refs=[ref])


def secret(session: Session, name: str, default: bytes) -> bytes:
    """Store a named value unless there is one; return the one that is there now."""
    session.write("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", [(name, default)], refs=())
    value: bytes = session.read("SELECT value FROM secrets WHERE name = ?", (name,))[0][0]
    return value


def surplus(session: Session, kept: int) -> int:
    """Return how many webhooks the journals hold above those that may be *kept*; 0 or less: at least none."""
    most = int(session.read("SELECT coalesce(sum(entries), 0) FROM jobs")[0][0])
    if most > kept:  # else there is no need to go through all bodies
        most = int(session.read("SELECT count(*) FROM entries WHERE kind = 'webhook'")[0][0])
    return most - kept


def purge(session: Session, before: float, surplus: int) -> tuple[int, int]:
    """Forget some of the jobs that are to go, longest silent first; return how many, and how many webhooks they had."""
    closed = session.read(
        "SELECT id, changed_at, (SELECT count(*) FROM entries WHERE job = jobs.id AND kind = 'webhook') FROM jobs "
        "WHERE is_open = 0 AND changed_at < ? ORDER BY changed_at LIMIT ?",
        (ABOVE_ALL, PAGE_JOBS),
    )
    ((newest,),) = session.read(NEWEST)
    webhooks = 0
    went: list[Row] = []
    for id_, changed_at, count in closed:
        if changed_at >= before and webhooks >= surplus:
            break
        webhooks += count
        went.append((id_,))
    session.write("DELETE FROM entries WHERE job = ?", went)
    session.write("DELETE FROM jobs WHERE id = ?", went)
    if session.read(NEWEST)[0][0] != newest:
        # Ids are never given twice: a row of no job stays where the newest one was.
        session.write("DELETE FROM entries WHERE job = ?", [(0,)])
        session.write(
            "INSERT INTO entries (id, job, said, at, kind, status, note, body) "
            "VALUES (?, 0, '', 0, 'purged', 0, '', '')",
            [(newest,)],
        )
    return len(went), webhooks
