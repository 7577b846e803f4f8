"""Records, outbox and leases in SQLite: functions of a connection, to be run on its thread."""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Iterable, Sequence

import orjson
from attrs import evolve, frozen

from audioext.stores._sqlite_file import Connection
from audioext.stores._sqlite_journal import journal
from audioext.stores.base import Delivery, Done, Kind, Lease, OutboxEntry

Stored = tuple[int, bytes]
"""A version and the record's stored form; it is decoded where it is wanted."""

_Entry = list[float | int | str]
"""One entry of an outbox as it is stored: [sequence, topic, due_at, attempts]; the list is kept sorted."""
_SEQUENCE, _TOPIC, _DUE_AT, _ATTEMPTS = range(4)

_DUE_COLUMN: dict[Kind, str] = {"poll": "poll_at", "outbox": "tell_at"}


@frozen(kw_only=True)
class NewRecord:
    """What `create` stores."""

    ref: str
    provider: str
    key: str | None
    task_id: str | None
    created_at: float
    due_at: float | None
    body: bytes


@frozen(kw_only=True)
class Change:
    """What `commit` stores."""

    ref: str
    expected_version: int
    task_id: str | None
    is_open: bool
    due_at: float | None
    outbox: Sequence[OutboxEntry]
    delivery: Delivery | None
    body: bytes


# --- records ------------------------------------------------------------------------------------------------


def get(connection: Connection, ref: str) -> Stored | None:
    """Return the record of a ref."""
    found: Stored | None = connection.execute("SELECT version, body FROM records WHERE ref = ?", (ref,)).fetchone()
    return found


def find_key(connection: Connection, key: str) -> Stored | None:
    """Return the record of a key."""
    found: Stored | None = connection.execute("SELECT version, body FROM records WHERE key = ?", (key,)).fetchone()
    return found


def find(connection: Connection, provider: str, task_id: str) -> Stored | None:
    """Return the newest record of a task id at a provider."""
    found: Stored | None = connection.execute(
        "SELECT version, body FROM records WHERE task_id = ? AND provider = ? ORDER BY id DESC LIMIT 1",
        (task_id, provider),
    ).fetchone()
    return found


def page(connection: Connection, after: int, limit: int, *, is_open: bool | None) -> list[tuple[int, int, bytes]]:
    """Return (id, version, body) of the next records in the order of their creation."""
    # A literal, so that the partial index on open records can serve it.
    state = "" if is_open is None else f"AND is_open = {int(is_open)}"
    return connection.execute(
        f"SELECT id, version, body FROM records WHERE id > ? {state} ORDER BY id LIMIT ?",  # noqa: S608 - 0 or 1
        (after, limit),
    ).fetchall()


def create(connection: Connection, new: NewRecord) -> Stored | None:
    """Store a record, or return the one that has its key or its ref."""
    taken = (find_key(connection, new.key) if new.key is not None else None) or get(connection, new.ref)
    if taken is not None:
        return taken
    connection.execute(
        "INSERT INTO records (ref, provider, version, is_open, created_at, key, task_id, poll_at, body) "
        "VALUES (?, ?, 1, 1, ?, ?, ?, ?, ?)",
        (new.ref, new.provider, new.created_at, new.key, new.task_id, new.due_at, new.body),
    )
    connection.changed.append(new.ref)
    return None


def commit(connection: Connection, change: Change) -> Done | Stored | None:
    """Store the next version of a record with all that belongs to it, or return what is there instead."""
    row = connection.execute(
        "SELECT id, version, is_open, task_id, poll_at, tell_at, tell_token, outbox, told FROM records WHERE ref = ?",
        (change.ref,),
    ).fetchone()
    if row is None or row[1] != change.expected_version:
        return get(connection, change.ref)
    id_, version, is_open, task_id, poll_at, tell_at, tell_token, outbox, told = row
    columns: dict[str, object] = {"version": version + 1, "body": change.body, "poll_token": None, "poll_attempts": 0}
    due_at = change.due_at if change.is_open else None
    # An index is rewritten for every column that is named, whether or not its value is new.
    if is_open != change.is_open:
        columns["is_open"] = change.is_open
    if task_id != change.task_id:
        columns["task_id"] = change.task_id
    if poll_at != due_at:
        columns["poll_at"] = due_at
    if change.outbox and (entries := _appended(change.outbox, outbox, told)):
        columns["outbox"] = orjson.dumps(entries).decode()
        if tell_token is None and tell_at != entries[0][_DUE_AT]:
            columns["tell_at"] = entries[0][_DUE_AT]
    _update(connection, id_, columns)
    if change.delivery is not None:
        journal(connection, change.delivery)
    connection.changed.append(change.ref)
    return Done(version=version + 1)


def _appended(new: Iterable[OutboxEntry], outbox: str | None, told: str | None) -> list[_Entry] | None:
    """Return the outbox with the *new* entries, `None` if none of them is new."""
    entries: list[_Entry] = orjson.loads(outbox) if outbox else []
    known = {entry[_TOPIC] for entry in entries} | set(orjson.loads(told) if told else ())
    before = len(entries)
    for entry in new:
        if entry.topic not in known:
            known.add(entry.topic)
            entries.append([entry.sequence, entry.topic, 0.0, 0])
    entries.sort(key=lambda entry: (entry[_SEQUENCE], entry[_TOPIC]))
    return entries if len(entries) > before else None


def discard(connection: Connection, ref: str, expected_version: int) -> bool:
    """Forget a record that is still at a version."""
    found = connection.execute("DELETE FROM records WHERE ref = ? AND version = ?", (ref, expected_version))
    if found.rowcount:
        connection.changed.append(ref)
    return bool(found.rowcount)


def _update(connection: Connection, id_: int, columns: dict[str, object]) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    connection.execute(f"UPDATE records SET {names} WHERE id = ?", (*columns.values(), id_))  # noqa: S608 - our names


# --- leases -------------------------------------------------------------------------------------------------


def next_due(connection: Connection, kind: Kind, providers: Sequence[str] | None) -> float | None:
    """Return the earliest due time or end of a lease."""
    column = _DUE_COLUMN[kind]
    query = f"SELECT min({column}) FROM records WHERE provider = ? AND {column} IS NOT NULL"  # noqa: S608 - our names
    found = (connection.execute(query, (name,)).fetchone()[0] for name in _chosen(connection, column, providers))
    return min((due_at for due_at in found if due_at is not None), default=None)


def claim(  # noqa: PLR0913 - the protocol's
    connection: Connection,
    kind: Kind,
    *,
    now: float,
    lease: float,
    limit: int,
    providers: Sequence[str] | None,
) -> tuple[Lease, ...]:
    """Lease what is due."""
    column = _DUE_COLUMN[kind]
    query = (
        f"SELECT {column}, id, ref, poll_attempts, outbox FROM records WHERE provider = ? AND {column} <= ? "  # noqa: S608 - our names
        f"ORDER BY {column} LIMIT ?"
    )
    due = heapq.nsmallest(
        max(0, limit),
        (
            row
            for name in _chosen(connection, column, providers)
            for row in connection.execute(query, (name, now, limit)).fetchall()
        ),
    )
    take = _take_poll if kind == "poll" else _take_entry
    return tuple(take(connection, row, now + lease, secrets.token_hex(8)) for row in due)


_Due = tuple[float, int, str, int, str | None]


def _take_poll(connection: Connection, due: _Due, until: float, token: str) -> Lease:
    _, id_, ref, attempts, _ = due
    _update(connection, id_, {"poll_at": until, "poll_token": token, "poll_attempts": attempts + 1})
    return Lease(kind="poll", ref=ref, topic="poll", sequence=0, attempts=attempts + 1, until=until, token=token)


def _take_entry(connection: Connection, due: _Due, until: float, token: str) -> Lease:
    _, id_, ref, _, outbox = due
    entries: list[_Entry] = orjson.loads(outbox or "[]")
    sequence, topic, due_at, attempts = entries[0]
    attempts = int(attempts) + 1
    entries[0] = [sequence, topic, due_at, attempts]
    _update(
        connection,
        id_,
        {"tell_at": until, "tell_token": token, "outbox": orjson.dumps(entries).decode()},
    )
    return Lease(
        kind="outbox",
        ref=ref,
        topic=str(topic),
        sequence=int(sequence),
        attempts=attempts,
        until=until,
        token=token,
    )


def settle(connection: Connection, lease: Lease, due_at: float | None) -> bool:
    """End a lease if it is still the one that holds."""
    if lease.kind == "poll":
        ended = connection.execute(
            "UPDATE records SET poll_at = ?, poll_token = NULL, poll_attempts = ? WHERE ref = ? AND poll_token = ?",
            (due_at, lease.attempts, lease.ref, lease.token),
        )
        return bool(ended.rowcount)
    row = connection.execute(
        "SELECT id, outbox, told FROM records WHERE ref = ? AND tell_token = ?", (lease.ref, lease.token)
    ).fetchone()
    if row is None:
        return False
    entries: list[_Entry] = orjson.loads(row[1])
    told: list[str] = orjson.loads(row[2]) if row[2] else []
    if due_at is None:
        entries = [entry for entry in entries if entry[_TOPIC] != lease.topic]
        told.append(lease.topic)
    else:
        for entry in entries:
            if entry[_TOPIC] == lease.topic:
                entry[_DUE_AT], entry[_ATTEMPTS] = due_at, lease.attempts
    columns: dict[str, object] = {
        "tell_at": entries[0][_DUE_AT] if entries else None,
        "tell_token": None,
        "outbox": orjson.dumps(entries).decode() if entries else None,
        "told": orjson.dumps(told).decode() if told else None,
    }
    _update(connection, row[0], columns)
    return True


def give_back(connection: Connection, leases: Iterable[Lease], now: float) -> None:
    """Let others have at once what was claimed for nobody, as if it had not been."""
    for lease in leases:
        settle(connection, evolve(lease, attempts=lease.attempts - 1), now)


def _chosen(connection: Connection, column: str, providers: Sequence[str] | None) -> Sequence[str]:
    if providers is not None:
        return tuple(dict.fromkeys(providers))
    # One step into the index for each provider, however many records there are.
    rows = connection.execute(
        f"WITH RECURSIVE found (name) AS ("  # noqa: S608 - our names
        f"SELECT min(provider) FROM records WHERE {column} IS NOT NULL UNION ALL "
        f"SELECT (SELECT min(provider) FROM records WHERE {column} IS NOT NULL AND provider > found.name) "
        f"FROM found WHERE found.name IS NOT NULL) SELECT name FROM found WHERE name IS NOT NULL"
    )
    return [name for (name,) in rows]


# --- places -------------------------------------------------------------------------------------------------


def take_place(  # noqa: PLR0913 - the protocol's
    connection: Connection, name: str, holder: str, *, limit: int, now: float, until: float
) -> float:
    """Take one of so many places, or return when the first one is free by itself."""
    connection.execute("DELETE FROM places WHERE name = ? AND until <= ?", (name, now))
    others, first = connection.execute(
        "SELECT count(*), min(until) FROM places WHERE name = ? AND holder != ?", (name, holder)
    ).fetchone()
    is_held = connection.execute("SELECT 1 FROM places WHERE name = ? AND holder = ?", (name, holder)).fetchone()
    if others >= limit and not is_held:
        found: float = first
        return found
    connection.execute("INSERT OR REPLACE INTO places (name, holder, until) VALUES (?, ?, ?)", (name, holder, until))
    return 0.0


def leave_place(connection: Connection, name: str, holder: str, until: float | None) -> bool:
    """Give a place back, at once or later."""
    if until is None:
        left = connection.execute("DELETE FROM places WHERE name = ? AND holder = ?", (name, holder))
    else:
        left = connection.execute("UPDATE places SET until = ? WHERE name = ? AND holder = ?", (until, name, holder))
    return bool(left.rowcount)


def places(connection: Connection, name: str) -> tuple[str, ...]:
    """Return who holds places."""
    return tuple(
        holder for (holder,) in connection.execute("SELECT holder FROM places WHERE name = ? ORDER BY until", (name,))
    )
