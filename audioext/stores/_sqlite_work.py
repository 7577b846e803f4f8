"""What the SQLite store does with jobs beside their journals: claims, secrets and purges, whatever is damaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from audioext.stores._sqlite_file import Row
from audioext.stores._sqlite_session import ABOVE_ALL, NEWEST, Session
from audioext.stores.base import LONGEST_HOLD_SECONDS, Work

PURGE_JOBS = 256
"""Jobs that one step of a purge forgets, so that no append waits long for it."""

_COLUMN: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "handle_at"}
_DUE: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "max(handle_at, held_until)"}
_IS_TOO_LATE: Final[dict[Work, str]] = {
    "polls": "poll_at > :latest",
    "handlers": "max(handle_at, held_until) > :latest AND "
    f"(held_until <= :now AND handle_at > :latest OR held_until > :latest + {LONGEST_HOLD_SECONDS})",
}
"""A clock that was ahead put it down."""


def claim(  # noqa: PLR0913, PLR0917 - they come in the order of the protocol
    session: Session,
    work: Work,
    now: float,
    until: float,
    limit: int,
    providers: Sequence[str] | None,
    latest: float,
) -> tuple[str, ...]:
    """Take jobs whose work is due; see `Store.claim`."""
    due = _due_jobs(session, work, f"{_DUE[work]} <= :now", providers, {"now": now, "limit": limit})
    jobs = sorted(due, key=itemgetter(0))[:limit]
    if latest < math.inf and len(jobs) < limit:
        given = {"now": now, "latest": latest, "limit": limit - len(jobs)}
        jobs += _due_jobs(session, work, _IS_TOO_LATE[work], providers, given)[: limit - len(jobs)]
    refs = tuple(ref.decode(errors="replace") for _, _, ref in jobs)
    if work == "polls":
        session.write("UPDATE jobs SET poll_at = ? WHERE id = ?", [(until, id_) for _, id_, _ in jobs], refs=refs)
    else:
        held = "UPDATE jobs SET handle_at = min(handle_at, ?), held_until = ? WHERE id = ?"
        session.write(held, [(now, until, id_) for _, id_, _ in jobs], refs=refs)
    return refs


def _due_jobs(
    session: Session, work: Work, which: str, providers: Sequence[str] | None, given: dict[str, float]
) -> list[Row]:
    """Return when the first jobs are due, their ids and refs; provider by provider, so that each follows its index."""
    select = f"SELECT {_DUE[work]}, id, CAST(ref AS BLOB) FROM jobs WHERE {_COLUMN[work]} IS NOT NULL AND {which}"  # noqa: S608 - our own names, here and below
    if providers is None:
        return session.read(f"{select} ORDER BY 1, id LIMIT :limit", given)
    of_one = f"{select} AND provider = :name ORDER BY 1, id LIMIT :limit"
    return [row for name in sorted(set(providers)) for row in session.read(of_one, given | {"name": name})]


def next_due(session: Session, work: Work, providers: Sequence[str] | None) -> float | None:
    """Return when work can be claimed next; see `Store.next_due`."""
    least = f"SELECT min({_DUE[work]}) FROM jobs WHERE {_COLUMN[work]} IS NOT NULL AND {_DUE[work]} < {ABOVE_ALL}"  # noqa: S608 - see above
    if providers is None:
        rows = session.read(least)
    else:
        rows = [session.read(f"{least} AND provider = ?", (name,))[0] for name in set(providers)]
    return min((at for (at,) in rows if at is not None), default=None)


def reschedule(session: Session, ref: str, work: Work, at: float) -> None:
    """Give back what was claimed; see `Store.reschedule`."""
    end = ", held_until = 0.0" if work == "handlers" else ""
    update = f"UPDATE jobs SET {_COLUMN[work]} = min({_COLUMN[work]}, ?){end} WHERE ref = ?"  # noqa: S608 - see above
    session.write(update, [(at, ref)], refs=[ref])


def secret(session: Session, name: str, default: bytes) -> bytes:
    """Store a named value unless there is one; return the one that is there now."""
    session.write("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", [(name, default)], refs=())
    value: bytes = session.read("SELECT value FROM secrets WHERE name = ?", (name,))[0][0]
    return value


def purge(session: Session, before: float, surplus: int) -> tuple[int, int]:
    """Forget some of the jobs that are to go, longest silent first; return how many, and how many webhooks they had."""
    closed = session.read(
        "SELECT id, changed_at, (SELECT count(*) FROM entries WHERE job = jobs.id AND kind = 'webhook') FROM jobs "
        "WHERE is_open = 0 AND changed_at < ? ORDER BY changed_at LIMIT ?",
        (ABOVE_ALL, PURGE_JOBS),
    )
    ((newest,),) = session.read(NEWEST)
    webhooks = 0
    went: list[tuple[int]] = []
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
