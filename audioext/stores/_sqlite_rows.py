"""Conversion between the rows of the two tables and the values of the package.

Texts are read as bytes, even in number columns, where damage can put them. Text that is not UTF-8 then fails only the
conversion of its own row, and not the whole statement. Rows are converted many at a time, which is much faster; a
`ValueError` means that one of them is damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from audioext.models.entries import Entry, Index
from audioext.stores._journals import Head
from audioext.stores._sqlite_file import Row
from audioext.stores.base import Delivery, Stored, to_delivery

_log = logging.getLogger("audioext.stores.sqlite")

_LOOKUP = Index.__struct_fields__
COLUMNS = (*_LOOKUP, *Head._fields[2:])
"""The columns of a job except its id. The account is NULL while the request is not in the journal."""
_ENTRY = ("said", *Entry.__struct_fields__[1:])
_TEXTS = {"ref", "provider", "account", "key", "task_id", "said", "kind", "headers", "note"}


def _selected(names: Iterable[str]) -> str:
    return ", ".join(map(_bytes, names))


def _bytes(name: str) -> str:
    if name in _TEXTS:
        return f"CAST({name} AS BLOB)"
    return f"iif(typeof({name}) = 'text', {'NULL' if name == 'body' else f'CAST({name} AS BLOB)'}, {name})"


# The names in these statements are all our own.
SELECT_JOB = f"SELECT id, {_selected(COLUMNS)} FROM jobs"  # noqa: S608 - see above
JOURNAL = f"SELECT {_selected(_ENTRY)} FROM entries WHERE job = ? ORDER BY id LIMIT -1 OFFSET ?"  # noqa: S608 - see above
JOURNALS = f"SELECT job, {_selected(_ENTRY)} FROM entries WHERE job IN ({{}}) ORDER BY job, id"  # noqa: S608 - see above
# CROSS JOIN makes SQLite scan the table on its left.
DELIVERIES = f"SELECT entries.id, CAST(ref AS BLOB), CAST(provider AS BLOB), account IS NULL, {_selected(_ENTRY)} FROM"
OF_ALL = "entries CROSS JOIN jobs ON jobs.id = entries.job WHERE kind = 'webhook'"
OF_ONE = "jobs CROSS JOIN entries ON jobs.id = entries.job WHERE kind = 'webhook' AND ref = ?"
INSERT_JOB = f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES (?{', ?' * (len(COLUMNS) - 1)})"  # noqa: S608 - see above
INSERT_ENTRY = f"INSERT INTO entries (job, {', '.join(_ENTRY)}) VALUES (?{', ?' * len(_ENTRY)})"  # noqa: S608 - see above

_lookup_values = attrgetter(*_LOOKUP)
_encode = msgspec.json.Encoder(enc_hook=dict).encode


def job_row(head: Head) -> Row:
    values: Row = _lookup_values(head.lookup)
    return (values if head.is_known else (*values[:2], None, *values[3:])) + head[2:]


def entry_row(job: int, entry: Entry) -> Row:
    headers = _encode(entry.headers).decode() if entry.headers else None
    return job, entry.id, entry.at, entry.kind, entry.status, headers, entry.body, entry.note


def to_heads(rows: Iterable[Row]) -> list[Head]:
    return msgspec.convert([_plain_head(row) for row in rows], list[Head])


def _plain_head(row: Row) -> tuple[Any, ...]:
    _, ref, provider, account, created_at, key, task_id, answered_at, is_open, *others = row
    values = (
        ref.decode(),
        provider.decode(),
        "" if account is None else account.decode(),
        created_at,
        None if key is None else key.decode(),
        None if task_id is None else task_id.decode(),
        answered_at,
        bool(is_open),
        *others,
    )
    return (dict(zip(_LOOKUP, values, strict=False)), account is not None, *values[len(_LOOKUP) :])


def to_entries(rows: Iterable[Row]) -> list[Entry]:
    return msgspec.convert([_plain_entry(row) for row in rows], list[Entry], builtin_types=(bytes,))


def _plain_entry(row: Row) -> dict[str, object]:
    said, at, kind, status, headers, body, note = row
    return {
        "id": said.decode(),
        "at": at,
        "kind": kind.decode(),
        "status": status,
        "headers": {} if headers is None else msgspec.json.decode(headers),
        "body": body,
        "note": note.decode(),
    }


def to_jobs(rows: Sequence[Row], entries: Sequence[Row]) -> list[Stored | None]:
    """Return the jobs of *rows*, with `None` for unreadable ones; each row of *entries* begins with the job's id."""
    try:
        heads = to_heads(rows)
        journals: dict[int, list[Entry]] = {row[0]: [] for row in rows}
        for row, entry in zip(entries, to_entries(row[1:] for row in entries), strict=True):
            journals[row[0]].append(entry)
    except ValueError as error:
        if len(rows) == 1:
            _pass_over("job", rows[0], error)
            return [None]
        return [job for row in rows for job in to_jobs([row], [each for each in entries if each[0] == row[0]])]
    return [head.stored(journals[row[0]]) for row, head in zip(rows, heads, strict=True)]


def to_delivery_or_none(row: Row) -> Delivery | None:
    _, ref, provider, is_orphan = row[:4]
    try:
        return to_delivery(ref.decode(), provider.decode(), to_entries([row[4:]])[0], is_orphan=bool(is_orphan))
    except ValueError as error:
        _pass_over("a delivery of job", row, error)
        return None


def _pass_over(what: str, row: Row, error: ValueError) -> None:
    ref = ascii(row[1].decode(errors="replace"))[1:-1]
    _log.warning("%s %s is skipped: it cannot be read: %s", what, ref, error)
