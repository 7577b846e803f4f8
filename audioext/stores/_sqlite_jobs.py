"""What the SQLite store writes in one transaction: journals with their index, and claims on what is due."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
from attrs import evolve

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, POST_SECONDS, Entry, Index
from audioext.models.limits import Limits
from audioext.stores._sqlite_driver import Row
from audioext.stores._sqlite_thread import Session
from audioext.stores.base import Appended, Created, Existing, Full, Work

PURGE_JOBS = 256
"""Jobs that one step of a purge forgets, so that no append waits long for it."""


class JobRow(NamedTuple):
    """A job as it lies in the file; an id of 0 says that it does not yet."""

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

    @property
    def is_known(self) -> bool:
        """Whether its request is in the journal."""
        return self.account is not None


_INDEX: Final = JobRow._fields[1:12]
_index_values = attrgetter(*_INDEX)
SELECT_JOB: Final = f"SELECT {', '.join(JobRow._fields)} FROM jobs"  # noqa: S608 - our own names, here and below
_FIND_JOB = f"{SELECT_JOB} WHERE ref = ?"
SELECT_ENTRY: Final = "SELECT said, at, kind, status, headers, note, body FROM entries"

_INSERT_JOB = f"INSERT INTO jobs ({', '.join(JobRow._fields[1:])}) VALUES (?{', ?' * 15})"  # noqa: S608 - see above
_INSERT_ENTRY = "INSERT INTO entries (job, said, at, kind, status, headers, note, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

_DUE_COLUMN: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "handle_at"}
_DUE: Final[dict[Work, str]] = {"polls": "poll_at", "handlers": "max(handle_at, held_until)"}
_CLAIM: Final[dict[Work, str]] = {
    "polls": "UPDATE jobs SET poll_at = ? WHERE id = ?",
    "handlers": "UPDATE jobs SET held_until = ? WHERE id = ?",
}
_GIVE_BACK: Final[dict[Work, str]] = {
    "polls": "UPDATE jobs SET poll_at = min(poll_at, ?) WHERE ref = ?",
    "handlers": "UPDATE jobs SET handle_at = min(handle_at, ?), held_until = 0 WHERE ref = ?",
}


def to_index(job: JobRow) -> Index:
    """Return the index as the store's users know it."""
    known: dict[str, Any] = dict(zip(_INDEX, job[1:], strict=False))
    known |= {"is_open": bool(job.is_open), "account": job.account or ""}
    return Index(**known)


def to_entry(row: Row) -> Entry:
    """Return the entry of a row of `SELECT_ENTRY`."""
    id_, at, kind, status, headers, note, body = row
    return Entry(
        id=id_,
        at=at,
        kind=kind,
        status=status,
        headers={} if headers is None else msgspec.json.decode(headers, type=dict[str, str]),
        note=note,
        body=body,
    )


def find_job(session: Session, ref: str) -> JobRow | None:
    """Return the job of *ref*."""
    rows = session.execute(_FIND_JOB, (ref,)).fetchall()
    return JobRow._make(rows[0]) if rows else None


def find_key(session: Session, key: str) -> str | None:
    """Return the ref of the job that holds *key*."""
    rows = session.execute("SELECT ref FROM jobs WHERE key = ?", (key,)).fetchall()
    return rows[0][0] if rows else None


# --- journals -----------------------------------------------------------------------------------------------


def create(session: Session, entry: Entry, index: Index, limits: Limits, now: float) -> Created | Existing | Full:
    """Begin a journal; see `Store.create`."""
    taken = None if index.key is None else find_key(session, index.key)
    if taken is not None:
        return Existing(taken)
    job = find_job(session, index.ref)
    if job is not None and job.is_known:
        return Existing(index.ref)
    until = _full_until(session, index.account, limits, now)
    if until is not None:
        return Full(until)
    orphans = (
        [] if job is None else session.execute("SELECT id FROM entries WHERE job = ? ORDER BY id", (job.id,)).fetchall()
    )
    job = job or _new_job(index.ref, index.provider, entry.at)
    id_ = _save(session, job, _with(job, index, job.held_until, _sift(job, [entry], set())[1]))
    _insert_entries(session, id_, [entry])
    for (orphan,) in orphans:  # so that its creator, who has seen one entry, is handed them with its next append
        session.execute("UPDATE entries SET id = (SELECT max(id) FROM entries) + 1 WHERE id = ?", (orphan,))
    session.changed[index.ref] = job.entries + 1
    return Created()


def append(  # noqa: PLR0913 - the protocol's
    session: Session,
    ref: str,
    entries: Sequence[Entry],
    *,
    provider: str,
    index: Index | None,
    known: int,
    look_at: float,
    release: bool,
) -> Appended:
    """Append to a journal; see `Store.append`."""
    job = find_job(session, ref)
    count = 0 if job is None else job.entries
    if known > count:
        return Appended(count=count, is_lost=True)
    if job is None:
        if not entries:
            return Appended(count=0)
        job = _new_job(ref, provider, entries[0].at)
    missed, there = _seen_before(session, job, entries, known)
    new, counts, is_full = _sift(job, entries, there)
    is_known = job.is_known or any(entry.kind == "request" for entry in new)
    is_taken = index is not None and is_known and known == count and not is_full
    if index is None or not (is_taken or is_known != job.is_known):
        index = None
    elif index.key is not None and index.key != job.key and find_key(session, index.key) is not None:
        index = evolve(index, key=None)  # another job took it while it was free
    release = release and bool(new or not entries)  # a repeat was done before: a later claim is not its own
    row = _with(job, index, 0.0 if release else job.held_until, counts)
    if new and is_known and not is_taken:
        poll_at, handle_at = (look_at if due is None else min(due, look_at) for due in (row.poll_at, row.handle_at))
        row = row._replace(account=row.account or "", poll_at=poll_at, handle_at=handle_at)
    id_ = _save(session, job, row)
    if new:
        _insert_entries(session, id_, new)
        session.changed[ref] = row.entries
    return Appended(count=row.entries, missed=missed, is_taken=is_taken, is_full=is_full)


def _new_job(ref: str, provider: str, at: float) -> JobRow:
    return JobRow(0, ref, provider, None, at, None, None, None, False, 0.0, None, None)  # noqa: FBT003 - a row has no names


def _with(job: JobRow, index: Index | None, held_until: float, counts: tuple[int, int, int, float]) -> JobRow:
    values = job[1:12] if index is None else _index_values(index)
    return JobRow._make((job.id, *values, held_until, *counts))


def _seen_before(
    session: Session, job: JobRow, entries: Sequence[Entry], known: int
) -> tuple[tuple[Entry, ...], set[str]]:
    """Return what the writer of *entries* missed or repeats, and the ids that the journal holds of them."""
    if not job.id:
        return (), set()
    if known == job.entries:
        found: list[Row] = []
        if len(entries) == 1:  # the one statement of most appends
            said = (job.id, entries[0].id)
            found = session.execute("SELECT said FROM entries WHERE job = ? AND said = ?", said).fetchall()
        elif entries:
            found = session.execute("SELECT said FROM entries WHERE job = ?", (job.id,)).fetchall()
        there = {said for (said,) in found}
        if there.isdisjoint(entry.id for entry in entries):
            return (), there
    rows = session.execute(f"{SELECT_ENTRY} WHERE job = ? ORDER BY id", (job.id,)).fetchall()
    sent = {entry.id for entry in entries}
    missed = tuple(to_entry(row) for number, row in enumerate(rows) if number >= known or row[0] in sent)
    return missed, {row[0] for row in rows}


def _sift(
    job: JobRow, entries: Sequence[Entry], there: set[str]
) -> tuple[list[Entry], tuple[int, int, int, float], bool]:
    """Return the entries that are new and fit, the counts of the job with them, and whether some did not fit."""
    count, size, repeats, changed_at = job.entries, job.size, job.repeats, job.changed_at
    new: list[Entry] = []
    is_full = False
    for entry in entries:
        if entry.id in there:
            repeats += entry.is_bounded
        elif entry.is_bounded and (count >= MAX_ENTRIES or size + entry.size > MAX_JOURNAL_BYTES):
            repeats += 1
            is_full = True
        else:
            there.add(entry.id)
            new.append(entry)
            count += 1
            size += entry.size
            changed_at = max(changed_at, entry.at)
    return new, (count, size, repeats, changed_at), is_full


def _save(session: Session, before: JobRow, row: JobRow) -> int:
    """Write what differs between the rows of a job, and return its id."""
    if not row.id:
        session.execute(_INSERT_JOB, row[1:])
        return int(session.execute("SELECT last_insert_rowid()").fetchall()[0][0])
    changed = tuple(number for number, value in enumerate(row) if value != before[number])
    if changed:
        session.execute(_update(changed), (*(row[number] for number in changed), row.id))
    return row.id


@cache  # of the few sets of columns that change together; an index whose columns are not named is not touched
def _update(changed: tuple[int, ...]) -> str:
    names = ", ".join(f"{JobRow._fields[number]} = ?" for number in changed)
    return f"UPDATE jobs SET {names} WHERE id = ?"  # noqa: S608 - see above


def _insert_entries(session: Session, job: int, entries: Sequence[Entry]) -> None:
    for entry in entries:
        headers = msgspec.json.encode(dict(entry.headers)).decode() if entry.headers else None
        values = (job, entry.id, entry.at, entry.kind, entry.status, headers, entry.note, entry.body)
        session.execute(_INSERT_ENTRY, values)


def _full_until(session: Session, account: str, limits: Limits, now: float) -> float | None:
    if limits.submits is not None:
        answered = session.execute(
            "SELECT answered_at FROM jobs WHERE account = ? AND answered_at > ? AND answered_at < ?",
            (account, now - limits.per, now + limits.per),
        ).fetchall()
        posted = session.execute(
            "SELECT created_at FROM jobs "
            "WHERE account = ? AND answered_at IS NULL AND created_at > ? AND created_at < ?",
            (account, now - POST_SECONDS, now + POST_SECONDS),
        ).fetchall()
        if len(answered) + len(posted) >= limits.submits:
            leaving = [at + limits.per for (at,) in answered]
            leaving += [min(at + POST_SECONDS, now + limits.per) for (at,) in posted]
            return min(leaving, default=now + limits.per)
    if limits.parallel is not None:
        counted = session.execute(
            "SELECT count(*) FROM jobs WHERE account = ? AND occupies_until > ? AND occupies_until > 0", (account, now)
        ).fetchall()
        if counted[0][0] >= limits.parallel:
            return now + 1.0
    return None


# --- what is due --------------------------------------------------------------------------------------------


def claim(  # noqa: PLR0913 - the protocol's
    session: Session, work: Work, *, now: float, until: float, limit: int, providers: Sequence[str] | None
) -> tuple[str, ...]:
    """Take jobs whose work is due; see `Store.claim`."""
    due = f"SELECT {_DUE[work]}, id, ref FROM jobs WHERE {_DUE_COLUMN[work]} IS NOT NULL AND {_DUE[work]} <= ?"  # noqa: S608 - see above
    if providers is None:
        rows = session.execute(f"{due} ORDER BY 1 LIMIT ?", (now, limit)).fetchall()
    else:  # one by one, so that each follows its index
        of_one = f"{due} AND provider = ? ORDER BY 1 LIMIT ?"
        rows = [row for name in set(providers) for row in session.execute(of_one, (now, name, limit)).fetchall()]
        rows = sorted(rows)[:limit]
    for _, id_, _ in rows:
        session.execute(_CLAIM[work], (until, id_))
    return tuple(ref for _, _, ref in rows)


def next_due(session: Session, work: Work, providers: Sequence[str] | None) -> float | None:
    """Return when work can be claimed next; see `Store.next_due`."""
    least = f"SELECT min({_DUE[work]}) FROM jobs WHERE {_DUE_COLUMN[work]} IS NOT NULL"  # noqa: S608 - see above
    if providers is None:
        rows = session.execute(least).fetchall()
    else:
        of_one = f"{least} AND provider = ?"
        rows = [session.execute(of_one, (name,)).fetchall()[0] for name in set(providers)]
    return min((at for (at,) in rows if at is not None), default=None)


def reschedule(session: Session, ref: str, work: Work, at: float) -> None:
    """Give back what was claimed; see `Store.reschedule`."""
    session.execute(_GIVE_BACK[work], (at, ref))


# --- secrets and purge --------------------------------------------------------------------------------------


def secret(session: Session, name: str, default: bytes) -> bytes:
    """Store a named value unless there is one; return the one that is there now."""
    session.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", (name, default))
    value: bytes = session.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchall()[0][0]
    return value


def purge(session: Session, *, before: float, surplus: int) -> tuple[int, int]:
    """Forget some of the jobs that are to go, longest silent first; return how many, and how many webhooks they had."""
    closed = session.execute(
        "SELECT id, changed_at FROM jobs WHERE is_open = 0 ORDER BY changed_at LIMIT ?", (PURGE_JOBS,)
    ).fetchall()
    newest = session.execute("SELECT max(id) FROM entries").fetchall()
    went = webhooks = 0
    for id_, changed_at in closed:
        if changed_at >= before and webhooks >= surplus:
            break
        counted = session.execute("SELECT count(*) FROM entries WHERE job = ? AND kind = 'webhook'", (id_,)).fetchall()
        session.execute("DELETE FROM entries WHERE job = ?", (id_,))
        session.execute("DELETE FROM jobs WHERE id = ?", (id_,))
        webhooks += counted[0][0]
        went += 1
    if went and session.execute("SELECT max(id) FROM entries").fetchall() != newest:
        # Ids are never given twice: a row of no job stays where the newest one was.
        session.execute("DELETE FROM entries WHERE job = 0")
        session.execute(
            "INSERT INTO entries (id, job, said, at, kind, status, note, body) "
            "VALUES (?, 0, '', 0, 'purged', 0, '', '')",
            newest[0],
        )
    return went, webhooks
