"""The layout of the data in Redis, and the scripts (in `lua/`), each atomic and safe to repeat.

All keys share one hash tag, and so one slot of a cluster. A call names two keys: `{p}:meta`, which leads it to the
slot's node, and `{p}:`, the prefix of all names. That key never exists, so a node that is migrating the slot key by key
refuses the call before the script runs. The scripts build the other names. The pages below ask to pass all of them, but
that would cost time, and often only the script knows which it needs. With `{p}` for the tag, the keys are:

    {p}:meta             hash: the layout's version, and the numbers last given to a job and to a webhook
    {p}:changes          stream: a field COUNT with the value REF of every create and append
    {p}:job:REF          hash: `m` the facts that scripts need, `i` the index, `u` until when handlers hold it, and the
                         entries by number (0 is a request that came by `create`)
    {p}:jobs, :open      sorted sets of refs by the job's number
    {p}:closed           sorted set of the refs that are not open, by the time of their newest entry
    {p}:webhooks         sorted set of "REF NUMBER", by the webhook's own number
    {p}:polls:PROVIDER, :handlers:PROVIDER    sorted sets of refs by when they can be claimed
    {p}:occupied:ACCOUNT    sorted set of refs by until when they count as open for the limits
    {p}:submits:ACCOUNT     sorted set of refs by when they were answered, or by minus the time of their creation
    {p}:key:KEY          the ref of the job that has the key
    {p}:task:LENGTH:PROVIDER:TASK    list of the refs with this task id, the newest last
    {p}:secret:NAME      a named value
    {p}:providers        set of the providers that ever had a job

`m` is packed in the format `FACTS`: the numbers of the first and the last entry, whether the request is known, whether
the job is open, the bytes of all bodies, the repeats, the time of the newest entry, when handlers may have work (-1:
never), the id of the call that created the job, and whether it is in the polls. The ids of the entries follow in order,
each with a trailing space. No script decodes an entry: the facts that it needs are passed beside the entry. A writing
call passes all numbers in one argument. It begins in the format `JOB`: the time to live, when polls and handlers are
due (-1: never), how many entries the writer has seen, when to look again, and whether a claim ends. Each entry follows
in the format `HEAD`: its time, the bytes of its body, its room (`Entry.room`), a letter for its kind, and its id.

The first write of each script is one that the engine can refuse (no memory, no disk), so that nothing is half applied.
A script's costs, the greatest first: a call, a large argument, a list as answer, a closure, a number turned into text.

Redis' own pages, read 2026-11-21: redis.io/docs/latest/develop/interact/programmability/eval-intro (effects,
atomicity) and /develop/reference/cluster-spec (hash tags). Valkey's pages agree.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from importlib import resources
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec
from hiredis import pack_command

from audioext.errors import StoreError
from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, POST_SECONDS, Entry, Index
from audioext.stores.base import LONGEST_HOLD_SECONDS, Appended, Stored

T = TypeVar("T")
Word = str | bytes | int | float

LAYOUT = 5
"""Release 0.1 wrote layout 1 under the same name, and refuses this one."""
MAX_CHANGES = 10_000
"""About how many changes the stream keeps; a listener that is further behind gets a `RESYNC`."""
ID_SIZE = 25
"""The bytes of an entry's id, a digest of fixed length, with its trailing space."""
FACTS = ">I4I4BBdI4ddc8B"
HEAD = f">dI4dc1c{ID_SIZE}"
JOB = ">I4ddI4dB"
MOST_WORDS = 4_000
"""The most arguments of one call in a script, fields and values alike: Lua cannot unpack a list of 8,000."""
IS_TAKEN, IS_LOST, IS_FULL, FLAGS = 1, 2, 4, 8
"""An append returns `FLAGS` times the number of entries, plus those of the other values that apply."""

# --- conversion of entries and indexes ----------------------------------------------------------------------

_FACTS, _HEAD, _JOB = (struct.Struct(re.sub(r"c(\d+)", r"\1s", each.replace("I4", "I"))) for each in (FACTS, HEAD, JOB))
_LETTERS = {"request": b"r", "webhook": b"w", "status": b"s"}
_NAMES = tuple(each for each in Index.__struct_fields__ if each not in {"ref", "poll_at", "handle_at"})
_values = attrgetter(*_NAMES)
_Row = msgspec.defstruct("_Row", _NAMES)
_encode = msgspec.msgpack.Encoder().encode
load_entry = msgspec.msgpack.Decoder(Entry).decode


def call_words(  # noqa: PLR0913 - each is a part of the call
    ref: str,
    provider: str,
    index: Index | None,
    entries: Sequence[Entry],
    *,
    ttl: int,
    known: int = 0,
    look_at: float = 0.0,
    release: bool = False,
) -> list[str | bytes]:
    """Return the arguments of a writing script: ref, provider, index (empty: none), all numbers, and the entries."""
    stored, poll_at, handle_at = b"", None, None
    if index is not None:
        stored = _storable(_encode, _Row(*_values(index)))
        poll_at, handle_at = index.poll_at, index.handle_at
    dues = -1.0 if poll_at is None else poll_at, -1.0 if handle_at is None else handle_at
    numbers, bodies = [_JOB.pack(ttl, *dues, known, look_at, release)], []
    for entry in entries:
        letter = _LETTERS.get(entry.kind, b"-")
        numbers.append(_HEAD.pack(entry.at, entry.size, entry.room, letter, f"{entry.id} ".encode()))
        bodies.append(_storable(_encode, entry))
    return [ref, provider, stored, b"".join(numbers), *bodies]


def load_appended(answer: int, *missed: bytes) -> Appended:
    """Return the outcome of an append from the script's answer."""
    return Appended(
        count=answer // FLAGS,
        missed=tuple(map(load_entry, missed)),
        is_taken=bool(answer & IS_TAKEN),
        is_lost=bool(answer & IS_LOST),
        is_full=bool(answer & IS_FULL),
    )


def load_stored(ref: str, facts: bytes, index: bytes, poll_at: bytes, *entries: bytes) -> tuple[Stored, bool]:
    """Return a job, and whether its request is known."""
    first, last, is_known, _, _, repeats, _, handle_at, *_ = _FACTS.unpack_from(facts)
    due = {"poll_at": float(poll_at) if poll_at else None, "handle_at": None if handle_at < 0 else handle_at}
    whole = msgspec.convert(msgspec.msgpack.decode(index) | due | {"ref": ref}, Index)
    found = tuple(map(load_entry, entries))
    return Stored(index=whole, count=last - first + 1, entries=found, repeats=repeats), bool(is_known)


def pack(*words: Word) -> bytes:
    """Return a command in wire format, packed by hiredis, which is much faster than the driver itself."""
    return _storable(pack_command, words)  # type: ignore[arg-type]  # its stub has only commands of one word


def _storable(encode: Callable[[T], bytes], value: T) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError as error:
        raise StoreError(f"text that is not valid Unicode cannot be stored: {error}") from error


# --- scripts ------------------------------------------------------------------------------------------------

_COMMON = f"""
local call, base = redis.call, KEYS[2]
local FACTS, HEAD, JOB, ID_SIZE = '{FACTS}', '{HEAD}', '{JOB}', {ID_SIZE}
local IS_TAKEN, IS_LOST, IS_FULL, FLAGS = {IS_TAKEN}, {IS_LOST}, {IS_FULL}, {FLAGS}
local MAX_CHANGES, MAX_ENTRIES, MAX_JOURNAL_BYTES = '{MAX_CHANGES}', {MAX_ENTRIES}, {MAX_JOURNAL_BYTES}
local MOST_WORDS = {MOST_WORDS}
local LAYOUT, POST_SECONDS, LONGEST_HOLD_SECONDS = '{LAYOUT}', {POST_SECONDS}, {LONGEST_HOLD_SECONDS}
"""
_INCLUDE = re.compile(r"^-- include (\w+)\n", re.MULTILINE)


class Script(NamedTuple):
    """A script, and its digest, by which EVALSHA runs it if the server has it cached."""

    text: str
    digest: str


def make_script(name: str) -> Script:
    """Return the script of that name in `lua/`, after the constants that all scripts share."""
    text = _COMMON + _read(name)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    """Return the text of a file in `lua/`, with other files in the place of the lines that include them."""
    text = resources.files("audioext.stores").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: _read(found[1]), text)


BEGIN, CREATE, APPEND, READ = map(make_script, ("begin", "create", "append", "read"))
CLAIM, NEXT_DUE = map(make_script, ("claim", "next_due"))
PURGE, ORPHANS, PURGE_ORPHANS = map(make_script, ("purge", "orphans", "purge_orphans"))
