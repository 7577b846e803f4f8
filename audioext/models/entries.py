"""What a store keeps of a job: the entries of its journal, and the index row derived from them."""

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
"""The kinds of entries.

`request`: the request, and the settings that the fold needs; the first entry, written before the POST. `answer`: the
POST's HTTP answer, or why there was none. `webhook`: one delivery. `status`: a status answer that changed something.
`handled`: a handler finished a topic, failed, asked to wait, or is not called again. `expired`: the job was given up
at its deadline. `abandoned`: the POST was certainly never sent. `recovery`: written before the POST that asks the
vendor to restore files whose links died. `recovery_answer`: the answer to that POST, or why there was none.
`recovery_status`: how the recovery ended, by a status call; its callback is a `webhook`.
"""

REFUSED = "refused"
UNREADABLE = "unreadable"
OTHER_TASK = "other task"
UNCONFIRMED = "unconfirmed"
"""What the note of a webhook begins with if it is not simply valid: it is not authentic; the release that received it
could not decode it; it names another task than the known one; or it proves nothing and only makes a status call due."""

UNSENT = "not sent"
"""What the note of a `recovery_answer` begins with if the POST was certainly never sent."""

STILL = "still"
"""How the note of a status answer begins that repeats an end long after it was first doubted; the seconds follow."""
DONE_SECONDS = 300.0
"""How long status calls have to report a task as done before that counts, if they do not show all tracks."""

MAX_ENTRIES = 200
"""A job's journal takes no more webhooks beyond this many entries; real jobs have about ten. See `Entry.room`."""
MAX_JOURNAL_BYTES = 8_388_608
"""The same limit for the bytes of all bodies: eight of the largest webhooks."""
_STATUS_ROOM, _FAULTY_ROOM = 2.0, 0.5
MAX_DELIVERY_BYTES = 1_073_741_824
"""The limit for all orphans together, webhooks of no submitted job: a hundred thousand typical ones of 10 kB."""

POST_SECONDS = 120.0
"""How long an unanswered submit counts towards its account's limits: longer than a POST can take."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One observation of a job: a webhook, an answer, a handler's outcome.

    `id` is a digest of the contents, so that a repeat is the same entry. `at` is when it was first seen, in Unix
    seconds. `status` is the HTTP status of an answer or a status call, else 0. `headers` are the few that matter
    later. `body` is the bytes as they arrived, with our own secrets masked. `note` is for people; that of a webhook
    which is not simply valid begins with one of the words above.
    """

    # gc=False: most objects of a process are entries, and none is part of a reference cycle.

    id: str
    at: float
    kind: EntryKind
    status: int = 0
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    note: str = ""

    def __repr__(self) -> str:
        """Show the entry on one line, without its headers and its body."""
        return f"Entry(id={self.id!r}, at={self.at!r}, kind={self.kind!r}, status={self.status}, note={self.note!r})"

    @property
    def size(self) -> int:
        """How many bytes it counts towards the journal's limit."""
        return len(self.body)

    @property
    def room(self) -> float:
        """The multiple of its limits up to which a journal takes this entry; infinite for entries that we write.

        Invalid webhooks can thus never crowd out valid ones, and no webhook crowds out a status answer.
        """
        if self.kind == "webhook":
            return _FAULTY_ROOM if self.note.startswith((REFUSED, UNREADABLE, OTHER_TASK)) else 1.0
        return _STATUS_ROOM if self.kind == "status" else math.inf


def doubted_for(entry: Entry) -> float:
    """Return how many seconds an end had been doubted when a status answer repeated it; -1 for too few to count."""
    word, _, seconds = entry.note.partition(" ")
    return float(seconds.partition(" ")[0]) if word == STILL else -1.0


def make_entry(  # noqa: PLR0913 - each is a field
    kind: EntryKind,
    at: float,
    *,
    status: int = 0,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    note: str = "",
) -> Entry:
    """Return an entry whose id is a digest of its kind, status, note and body, but not of `at` and `headers`.

    Header bytes that are not text arrive as lone surrogates, which no store can keep; they become "?".
    """
    said = f"{kind} {status} {len(note)} {note} ".encode(errors="surrogatepass")
    id_ = hashlib.blake2b(said + body, digest_size=12).hexdigest()
    headers = headers or {}
    if not (note.isascii() and "".join(headers.values()).isascii()):
        headers = {name: _storable(value) for name, value in headers.items()}
        note = _storable(note)
    return Entry(id=id_, at=at, kind=kind, status=status, headers=headers, body=body, note=note)


def holds_request(entries: Iterable[Entry]) -> bool:
    """Return whether a request is among *entries*. A journal without one folds to nothing."""
    return any(entry.kind == "request" for entry in entries)


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


class Index(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The columns by which a store finds a job, all derived from its journal. Times are Unix seconds.

    `key` is the user's, `None` if there is none or it is free again. The job counts as open for its account's limits
    until `occupies_until`, 0 if it does not count. `answered_at` is when the POST was answered, `None` before that.
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
