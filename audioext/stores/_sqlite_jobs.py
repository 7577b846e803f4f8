"""What the SQLite store asks of its file, in one transaction each: journals with their index, and what is due."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Final

from attrs import evolve

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.stores._sqlite_file import is_engine_fault
from audioext.stores._sqlite_reads import find
from audioext.stores._sqlite_session import ENTRY, JobRow, Session, index_values, to_entry
from audioext.stores.base import (
    LONGEST_HOLD_SECONDS,
    Appended,
    Created,
    Existing,
    Full,
    Work,
)

PURGE_JOBS = 256
"""Jobs that one step of a purge forgets, so that no append waits long for it."""

_COLUMN: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "handle_at"}
_NUMBERS = 9e307
"""In a damaged row a text may stand for a time: it is above every number."""
_RETAKEN = "handle_at = min(handle_at, ?)"
_TOO_LATE = " AND (held_until <= ? AND handle_at > ? OR held_until > ?)"
"""What `is_too_late` says."""
_DUE: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "max(handle_at, held_until)"}

# --- writing journals ----------------------------------------------------------------------------------------


def create(session: Session, entry: Entry, index: Index, limits: Limits, now: float) -> Created | Existing | Full:
    """Begin a journal; see `Store.create`."""
    taken = None if index.key is None else find(session, index.key)
    if taken is not None:
        return Existing(taken)
    job = session.job(index.ref)
    if job is not None and job.account is not None:
        return Existing(index.ref)
    until = _full_until(session, index.account, limits, now)
    if until is not None:
        return Full(until)
    if job is None:
        job, orphans = _new_job(session, index.ref, index.provider, entry.at), []
    else:
        orphans = session.read("SELECT id FROM entries WHERE job = ? ORDER BY id", (job.id,))
    session.put(_with(job, index, job.held_until, _sift(job, [entry], ())[2]), [entry])
    if orphans:  # they follow, so that its creator, who has seen one entry, is handed them with its next append
        session.write("UPDATE entries SET id = (SELECT max(id) FROM entries) + 1 WHERE id = ?", orphans)
    return Created()


def append(  # noqa: PLR0913, PLR0917 - they come in the order of the protocol
    session: Session,
    ref: str,
    entries: Sequence[Entry],
    provider: str,
    index: Index | None,
    known: int,
    look_at: float,
    release: bool,  # noqa: FBT001 - as above
) -> Appended:
    """Append to a journal; see `Store.append`."""
    job = session.job(ref)
    count = 0 if job is None else job.entries
    if known > count:
        return Appended(count=count, is_lost=True)
    if job is None:
        if not entries:
            return Appended(count=0)
        job = _new_job(session, ref, provider, entries[0].at)
    new, repeated, counts, is_full = _sift(job, entries, session.said(job))
    missed = () if known == count and not repeated else _missed(session, job, known, repeated)
    was_known = job.account is not None
    is_known = was_known or any(entry.kind == "request" for entry in new)
    is_taken = index is not None and is_known and known == count and not is_full
    if not (is_taken or is_known != was_known):
        index = None
    elif index is not None and index.key is not None and index.key != job.key and find(session, index.key):
        index = evolve(index, key=None)  # another job took it while it was free
    release = release and bool(new or not entries)  # a repeat was done before: a later claim is not its own
    row = _with(job, index, 0.0 if release else job.held_until, counts)
    if new and is_known and not is_taken:
        poll_at, handle_at = (look_at if due is None else min(due, look_at) for due in (row.poll_at, row.handle_at))
        row = row._replace(account=row.account or "", poll_at=poll_at, handle_at=handle_at)
    if new or row != job:
        session.put(row, new)
    return Appended(count=row.entries, missed=missed, is_taken=is_taken, is_full=is_full)


def _new_job(session: Session, ref: str, provider: str, at: float) -> JobRow:
    return JobRow(session.new_id(), ref, provider, None, at, None, None, None, False, 0.0, None, None)  # noqa: FBT003 - a row has no names


def _with(job: JobRow, index: Index | None, held_until: float, counts: tuple[int, int, int, float]) -> JobRow:
    values = job[1:12] if index is None else index_values(index)
    return JobRow._make((job.id, *values, held_until, *counts))


def _missed(session: Session, job: JobRow, known: int, repeated: Collection[str]) -> tuple[Entry, ...]:
    rows = session.read(f"SELECT {ENTRY} FROM entries WHERE job = ? ORDER BY id", (job.id,))  # noqa: S608 - see above
    return tuple(to_entry(row) for number, row in enumerate(rows) if number >= known or row[0] in repeated)


def _sift(
    job: JobRow, entries: Sequence[Entry], said: Collection[str]
) -> tuple[list[Entry], list[str], tuple[int, int, int, float], bool]:
    """Return the entries that are new and fit, the ids of repeats, new counts, and whether some did not fit."""
    count, size, repeats, changed_at = job.entries, job.size, job.repeats, job.changed_at
    new: dict[str, Entry] = {}
    repeated: list[str] = []
    is_full = False
    for entry in entries:
        if entry.id in said:
            repeats += entry.is_bounded
            repeated.append(entry.id)
        elif entry.id in new:
            repeats += entry.is_bounded
        elif entry.is_bounded and (count >= MAX_ENTRIES or size + len(entry.body) > MAX_JOURNAL_BYTES):
            repeats += 1
            is_full = True
        else:
            new[entry.id] = entry
            count += 1
            size += len(entry.body)
            changed_at = max(changed_at, entry.at)
    return list(new.values()), repeated, (count, size, repeats, changed_at), is_full


def _full_until(session: Session, account: str, limits: Limits, now: float) -> float | None:
    if limits.submits is not None:
        answered = session.read(
            "SELECT answered_at FROM jobs WHERE account = ? AND answered_at > ? AND answered_at < ?",
            (account, now - limits.per, now + limits.per),
        )
        posted = session.read(
            "SELECT created_at FROM jobs "
            "WHERE account = ? AND answered_at IS NULL AND created_at > ? AND created_at < ?",
            (account, now - POST_SECONDS, now + POST_SECONDS),
        )
        if len(answered) + len(posted) >= limits.submits:
            leaving = [at + limits.per for (at,) in answered]
            leaving += [min(at + POST_SECONDS, now + limits.per) for (at,) in posted]
            return min(leaving, default=now + limits.per)
    if limits.parallel is not None:
        counted = session.read(
            "SELECT count(*) FROM jobs WHERE account = ? AND occupies_until > ? AND occupies_until > 0 "
            "AND occupies_until < ?",
            (account, now, _NUMBERS),
        )
        if counted[0][0] >= limits.parallel:
            return now + 1.0
    return None


# --- what is due --------------------------------------------------------------------------------------------


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
    of_one = "" if providers is None else " AND provider = ?"  # one by one, so that each follows its index
    due = f"SELECT {_DUE[work]}, id FROM jobs WHERE {_COLUMN[work]} IS NOT NULL AND {_DUE[work]}"  # noqa: S608 - see above
    names: list[tuple[str, ...]] = [()] if providers is None else [(name,) for name in set(providers)]
    rows = [
        row for name in names for row in session.read(f"{due} <= ?{of_one} ORDER BY 1, id LIMIT ?", (now, *name, limit))
    ]
    ids = [id_ for _, id_ in sorted(rows, key=itemgetter(0))[:limit]]
    on_time = len(ids)
    if latest < math.inf and on_time < limit:
        bounds = (now, latest, latest + LONGEST_HOLD_SECONDS) if work == "handlers" else ()
        late = f"{due} > ?{of_one}{_TOO_LATE if bounds else ''} LIMIT ?"
        rows = [row for name in names for row in session.read(late, (latest, *name, *bounds, limit - on_time))]
        ids += [id_ for _, id_ in rows[: limit - on_time]]
    refs = tuple([ref for id_ in ids for ref in _refs(session, id_)])
    jobs = _loaded(session, refs) if len(refs) == len(ids) else None
    if jobs is None:
        moved, times = ("poll_at = ?", (until,)) if work == "polls" else (f"{_RETAKEN}, held_until = ?", (now, until))
        session.write(f"UPDATE jobs SET {moved} WHERE id = ?", [(*times, id_) for id_ in ids])  # noqa: S608 - see above
        return refs
    for number, job in enumerate(jobs):
        if work == "polls":
            session.put(job._replace(poll_at=until))
        else:
            session.put(job._replace(held_until=until, handle_at=job.handle_at if number < on_time else now))
    return refs


def _refs(session: Session, id_: int) -> list[str]:
    """Return the ref of a claimed job, or none where it is damaged: its claim runs out, and keeps no other."""
    try:
        return [str(ref) for (ref,) in session.read("SELECT ref FROM jobs WHERE id = ?", (id_,))]
    except Exception as error:
        if is_engine_fault(error):
            raise
        return []


def _loaded(session: Session, refs: Sequence[str]) -> list[JobRow] | None:
    """Return the jobs of *refs*, `None` where one is damaged."""
    try:
        session.load(refs)
    except Exception as error:
        if is_engine_fault(error):
            raise
        return None
    return [job for job in map(session.job, refs) if job is not None]


def next_due(session: Session, work: Work, providers: Sequence[str] | None) -> float | None:
    """Return when work can be claimed next; see `Store.next_due`."""
    least = f"SELECT min({_DUE[work]}) FROM jobs WHERE {_COLUMN[work]} IS NOT NULL AND {_DUE[work]} < {_NUMBERS}"  # noqa: S608 - see above
    if providers is None:
        rows = session.read(least)
    else:
        rows = [session.read(f"{least} AND provider = ?", (name,))[0] for name in set(providers)]
    return min((at for (at,) in rows if at is not None), default=None)


def reschedule(session: Session, ref: str, work: Work, at: float) -> None:
    """Give back what was claimed; see `Store.reschedule`."""
    job = session.job(ref)
    if job is None:
        return
    if work == "handlers":
        session.put(job._replace(handle_at=_earlier(job.handle_at, at), held_until=0.0))
    else:
        session.put(job._replace(poll_at=_earlier(job.poll_at, at)))


def _earlier(due: float | None, at: float) -> float | None:
    return None if due is None else min(due, at)


# --- secrets and purge --------------------------------------------------------------------------------------


def secret(session: Session, name: str, default: bytes) -> bytes:
    """Store a named value unless there is one; return the one that is there now."""
    session.write("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", [(name, default)])
    value: bytes = session.read("SELECT value FROM secrets WHERE name = ?", (name,))[0][0]
    return value


def purge(session: Session, before: float, surplus: int) -> tuple[int, int]:
    """Forget some of the jobs that are to go, longest silent first; return how many, and how many webhooks they had."""
    closed = session.read(
        "SELECT id, changed_at, (SELECT count(*) FROM entries WHERE job = jobs.id AND kind = 'webhook') FROM jobs "
        "WHERE is_open = 0 AND changed_at < ? ORDER BY changed_at LIMIT ?",
        (_NUMBERS, PURGE_JOBS),
    )
    newest = session.read("SELECT max(id) FROM entries")
    webhooks = 0
    went: list[tuple[int]] = []
    for id_, changed_at, count in closed:
        if changed_at >= before and webhooks >= surplus:
            break
        webhooks += count
        went.append((id_,))
    if went:
        session.write("DELETE FROM entries WHERE job = ?", went)
        session.write("DELETE FROM jobs WHERE id = ?", went)
    if session.read("SELECT max(id) FROM entries") != newest:
        # Ids are never given twice: a row of no job stays where the newest one was.
        session.write("DELETE FROM entries WHERE job = ?", [(0,)])
        session.write(
            "INSERT INTO entries (id, job, said, at, kind, status, note, body) "
            "VALUES (?, 0, '', 0, 'purged', 0, '', '')",
            newest,
        )
    return len(went), webhooks
