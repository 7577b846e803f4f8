"""Journal, names, changes and purge in SQLite: functions of a connection, to be run on its thread."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from audioext.stores._sqlite_file import Connection
from audioext.stores.base import Delivery, VerdictWord

CHANGES_KEPT = 4096
"""Transactions whose changes other processes can still read; who is further behind looks at everything."""
CHANGES_TRIMMED_EVERY = 256


_DELIVERY_COLUMNS = "delivery_id, ref, provider, received_at, verdict, path, headers, note, body"


# --- journal and names --------------------------------------------------------------------------------------


def journal(connection: Connection, delivery: Delivery) -> None:
    """Append a delivery."""
    connection.execute(
        f"INSERT INTO deliveries ({_DELIVERY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our names
        (
            delivery.id,
            delivery.ref,
            delivery.provider,
            delivery.received_at,
            delivery.verdict,
            delivery.path,
            orjson.dumps(dict(delivery.headers)).decode(),
            delivery.note,
            delivery.body,
        ),
    )


Place = tuple[str | bytes, int]
"""Where a page of the journal ended: a delivery's id and its row."""
NEWEST: Place = (b"", 0)
"""Before the first page: in SQLite every blob is greater than any text."""


def deliveries(connection: Connection, before: Place, limit: int, ref: str | None) -> list[tuple[int, Delivery]]:
    """Return the next deliveries, newest first, with their rows."""
    where, values = ("", ()) if ref is None else ("AND ref = ?", (ref,))
    rows = connection.execute(
        f"SELECT id, {_DELIVERY_COLUMNS} FROM deliveries WHERE (delivery_id, id) < (?, ?) {where} "  # noqa: S608 - our names
        "ORDER BY delivery_id DESC, id DESC LIMIT ?",
        (*before, *values, limit),
    )
    return [(row[0], _delivery(row[1:])) for row in rows]


def delivery(connection: Connection, id_: str) -> Delivery | None:
    """Return one delivery."""
    row = connection.execute(
        f"SELECT {_DELIVERY_COLUMNS} FROM deliveries WHERE delivery_id = ?",  # noqa: S608 - our names
        (id_,),
    ).fetchone()
    return None if row is None else _delivery(row)


def _delivery(row: tuple[str, str, str, float, VerdictWord, str, str, str, bytes]) -> Delivery:
    id_, ref, provider, received_at, verdict, path, headers, note, body = row
    return Delivery(
        id=id_,
        ref=ref,
        provider=provider,
        received_at=received_at,
        verdict=verdict,
        path=path,
        headers=orjson.loads(headers),
        note=note,
        body=body,
    )


def create_if_absent(connection: Connection, name: str, value: bytes) -> bytes:
    """Store a named value unless there is one, and return the one that is there."""
    connection.execute("INSERT OR IGNORE INTO names (name, value) VALUES (?, ?)", (name, value))
    kept: bytes = connection.execute("SELECT value FROM names WHERE name = ?", (name,)).fetchone()[0]
    return kept


# --- changes ------------------------------------------------------------------------------------------------


def last_change(connection: Connection) -> int:
    """Return the number of the newest transaction that changed a record."""
    number: int = connection.execute("SELECT coalesce(max(seq), 0) FROM changes").fetchone()[0]
    return number


def note_changes(origin: int) -> Callable[[Connection], None]:
    """Return what completes a transaction of *origin*: a row that tells other processes what it changed."""

    def seal(connection: Connection) -> None:
        if not connection.changed:
            return
        refs = orjson.dumps(list(dict.fromkeys(connection.changed))).decode()
        number = connection.execute("INSERT INTO changes (origin, refs) VALUES (?, ?)", (origin, refs)).lastrowid or 0
        if number % CHANGES_TRIMMED_EVERY == 0:
            connection.execute("DELETE FROM changes WHERE seq <= ?", (number - CHANGES_KEPT,))

    return seal


def changes_after(connection: Connection, number: int) -> list[tuple[int, int, str]]:
    """Return (number, origin, refs as JSON) of the transactions after *number*, oldest first."""
    return connection.execute("SELECT seq, origin, refs FROM changes WHERE seq > ? ORDER BY seq", (number,)).fetchall()


# --- purge --------------------------------------------------------------------------------------------------


def purge_records(connection: Connection, created_before: float, limit: int) -> int:
    """Forget so many closed records at most; return how many went."""
    return connection.execute(
        "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE is_open = 0 AND created_at < ? LIMIT ?)",
        (created_before, limit),
    ).rowcount


def purge_old_deliveries(connection: Connection, received_before: float, limit: int) -> int:
    """Forget so many old deliveries at most; return how many went."""
    return connection.execute(
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries INDEXED BY deliveries_id "
        "WHERE received_at < ? ORDER BY delivery_id LIMIT ?)",
        (received_before, limit),
    ).rowcount


def first_surplus(connection: Connection, kept: int) -> Place | None:
    """Return the newest delivery beyond the *kept* newest ones."""
    found: Place | None = connection.execute(
        "SELECT delivery_id, id FROM deliveries ORDER BY delivery_id DESC, id DESC LIMIT 1 OFFSET ?", (kept,)
    ).fetchone()
    return found


def purge_surplus_deliveries(connection: Connection, newest: Place, limit: int) -> int:
    """Forget so many deliveries at most, of those up to *newest*; return how many went."""
    return connection.execute(
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE (delivery_id, id) <= (?, ?) LIMIT ?)",
        (*newest, limit),
    ).rowcount


def give_back(connection: Connection, pages: int) -> bool:
    """Cut unused pages off the file if they are many; return whether there may be more to cut."""
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    size: int = connection.execute("PRAGMA page_count").fetchone()[0]
    if free < pages or free * 4 < size:
        return False
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    return True
