"""Entries and indexes as they lie in Redis, and back; scripts read the same (see `_redis_scripts`)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from audioext.errors import StoreError
from audioext.models.entries import Entry, EntryKind, Index
from audioext.stores._redis_scripts import FACTS, HEAD
from audioext.stores.base import Stored

_FACTS = struct.Struct(FACTS.replace("I4", "I").replace("c8", "8s"))
_HEAD = struct.Struct(HEAD.replace("c1", "c").replace("I4", "I"))
_LETTERS = {"request": b"r", "webhook": b"w", "status": b"s"}
_encode = msgspec.msgpack.Encoder().encode
_decode_tail = msgspec.msgpack.Decoder(tuple[str, EntryKind, int, dict[str, str], str, bytes]).decode
_decode_index = msgspec.msgpack.Decoder(
    tuple[str, str, float, str | bool, str | bool, float | bool, bool, float]
).decode


def entry_words(entries: Sequence[Entry]) -> list[str | bytes]:
    """Return *entries* as scripts take them: the id, and what is stored.

    Raises:
        StoreError: a text of one is no text.
    """
    words: list[str | bytes] = []
    for entry in entries:
        tail = _pack((entry.id, entry.kind, entry.status, entry.headers, entry.note, entry.body))
        words += (entry.id, _HEAD.pack(entry.at, _LETTERS.get(entry.kind, b"-"), entry.size) + tail)
    return words


def load_entry(value: bytes) -> Entry:
    """Return the entry that is stored as *value*."""
    at, _, _ = _HEAD.unpack_from(value)
    id_, kind, status, headers, note, body = _decode_tail(memoryview(value)[_HEAD.size :])
    return Entry(id=id_, at=at, kind=kind, status=status, headers=headers, note=note, body=body)


def index_words(index: Index | None) -> tuple[bytes | float | str, ...]:
    """Return *index* as scripts take it: what is stored, and the due times; the empty text is none.

    Raises:
        StoreError: a text of it is no text.
    """
    if index is None:
        return ("", "", "")
    stored = _pack(
        (
            index.provider,
            index.account,
            index.created_at,
            False if index.key is None else index.key,
            False if index.task_id is None else index.task_id,
            False if index.answered_at is None else index.answered_at,
            index.is_open,
            index.occupies_until,
        )
    )
    return stored, "" if index.poll_at is None else index.poll_at, "" if index.handle_at is None else index.handle_at


def load_stored(ref: str, facts: bytes, index: bytes, poll_at: bytes, *entries: bytes) -> tuple[Stored, bool]:
    """Return a job, and whether its request is known."""
    first, last, is_known, _, _, repeats, _, handle_at, _ = _FACTS.unpack_from(facts)
    provider, account, created_at, key, task_id, answered_at, is_open, occupies_until = _decode_index(index)
    whole = Index(
        ref=ref,
        provider=provider,
        account=account,
        created_at=created_at,
        key=key if isinstance(key, str) else None,
        task_id=task_id if isinstance(task_id, str) else None,
        answered_at=None if isinstance(answered_at, bool) else answered_at,
        is_open=is_open,
        occupies_until=occupies_until,
        poll_at=float(poll_at) if poll_at else None,
        handle_at=None if handle_at < 0 else handle_at,
    )
    found = tuple(load_entry(entry) for entry in entries)
    return Stored(index=whole, count=last - first + 1, entries=found, repeats=repeats), bool(is_known)


def _pack(value: tuple[Any, ...]) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise StoreError(f"what is no Unicode cannot be stored: {error}") from error
