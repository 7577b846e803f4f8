"""What is kept of a job: the entries of its journal, and the index row that is derived from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

EntryKind = Literal[
    "request",
    "answer",
    "webhook",
    "status",
    "handled",
    "expired",
    "abandoned",
    "recovery",
    "recovery_answer",
    "recovery_status",
]
"""What an entry tells.

`request`: what was asked for, and the settings that the fold needs; the first entry, written before the POST.
`answer`: the POST's HTTP answer, or why there was none. `webhook`: one delivery. `status`: a status answer that
changed something. `handled`: a handler is done with a topic, failed, or was given up. `expired`: the job was given up
at its deadline. `abandoned`: the POST was certainly never sent. `recovery`: the vendor is about to be asked to bring
back files whose links died; written before that POST. `recovery_answer`: what that was answered, or why it was not.
`recovery_status`: how the recovery ended, by a status call; its callback is a `webhook`.
"""

REFUSED = "refused"
UNREADABLE = "unreadable"
OTHER_TASK = "other task"
UNCONFIRMED = "unconfirmed"
"""The verdict that begins the note of a webhook which does not simply count: not authentic, not readable by the
release that took it, of another task than was known then, or of no more worth than a question to the status."""

UNSENT = "not sent"
"""Begins the note of a recovery's answer that is none, since its POST certainly never left."""

STILL = "still"
"""The note of a status answer that repeats what is doubtful, long enough after the first to be believed."""
DONE_SECONDS = 300.0
"""How long a status has to say that a task is done before that counts, where not all tracks are shown."""

MAX_ENTRIES = 200
"""A job's journal takes no more webhooks beyond this; real jobs have about ten entries. See `Entry.room`."""
MAX_JOURNAL_BYTES = 8_388_608
"""The same for the bytes of all bodies: eight of the largest webhooks."""
_STATUS_ROOM, _FAULTY_ROOM = 2.0, 0.5
MAX_DELIVERY_BYTES = 1_073_741_824
"""The same for all deliveries together that belong to no submitted job: a hundred thousand usual ones, of 10 kB."""

POST_SECONDS = 120.0
"""A submit whose answer is not known counts for its account this long: longer than a POST can take."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that was seen of a job.

    `id` is a digest of what it says, so that the same thing seen again is the same entry. `at` is Unix seconds, when
    it was first seen. `status` is the HTTP status of an answer or a status call, else 0. `headers` are the few that
    matter later. `body` is the bytes as they came, with our own secrets masked. `note` is for people, and begins with
    the verdict on a webhook that does not simply count.
    """

    # Most of what a process holds are entries: it is no part of any circle, and the garbage collector passes it over.

    id: str
    at: float
    kind: EntryKind
    status: int = 0
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    note: str = ""

    def __repr__(self) -> str:
        """Show what it is, on one line, without its headers and its body."""
        return f"Entry(id={self.id!r}, at={self.at!r}, kind={self.kind!r}, status={self.status}, note={self.note!r})"

    @property
    def size(self) -> int:
        """How many bytes of the journal's limit it takes."""
        return len(self.body)

    @property
    def room(self) -> float:
        """Up to how many times its limits a journal still takes this entry; without end for what we write ourselves.

        So webhooks that cannot count keep out none that can, and no webhook keeps out a status, which we asked for.
        """
        if self.kind == "webhook":
            return _FAULTY_ROOM if self.note.startswith((REFUSED, UNREADABLE, OTHER_TASK)) else 1.0
        return _STATUS_ROOM if self.kind == "status" else math.inf


def make_entry(  # noqa: PLR0913 - each is a field
    kind: EntryKind,
    at: float,
    *,
    status: int = 0,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    note: str = "",
) -> Entry:
    """Return an entry with the id that follows from what it says; `at` and `headers` are not part of that.

    Bytes that are no text stand in headers as halves of surrogate pairs, which no store can keep: they become "?".
    """
    said = f"{kind} {status} {len(note)} {note} ".encode(errors="surrogatepass")
    id_ = hashlib.blake2b(said + body, digest_size=12).hexdigest()
    headers = headers or {}
    if not (note.isascii() and "".join(headers.values()).isascii()):
        headers = {name: _storable(value) for name, value in headers.items()}
        note = _storable(note)
    return Entry(id=id_, at=at, kind=kind, status=status, headers=headers, body=body, note=note)


def holds_request(entries: Iterable[Entry]) -> bool:
    """Say whether a request is among *entries*: without it a journal means nothing, and need not be read."""
    return any(entry.kind == "request" for entry in entries)


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


class Index(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a store can look a job up by. All of it follows from the journal; times are Unix seconds.

    `key` is the user's, `None` where it is free again. `occupies_until` is until when the job counts among the open
    ones of its account, 0 where it does not. `answered_at` is when its POST was answered, `None` while it is not.
    `poll_at` is when a status call is due, `handle_at` when handlers may have work; `None` means never.
    """

    ref: str
    provider: str
    account: str
    created_at: float
    key: str | None = None
    task_id: str | None = None
    answered_at: float | None = None
    is_open: bool = True
    occupies_until: float = 0.0
    poll_at: float | None = None
    handle_at: float | None = None
