"""Feed mutated samples to every parser of the five providers, and fold the results in different orders."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field, frozen

from audioext.errors import AudioextError
from audioext.http.messages import HttpResponse, Webhook
from audioext.models.entries import UNCONFIRMED, Entry, make_entry
from audioext.models.events import Failed, Progress, Refused, Submitted, Unknown
from audioext.models.record import Asked, Record
from audioext.models.requests import Extend
from audioext.models.results import Stage
from audioext.providers import NAMES, load
from audioext.providers.base import Credits, Provider, Uploads
from audioext.state import schedule
from audioext.state.fold import fold
from audioext.state.reading import dump_asked, read
from audioext.state.tracks import song_of, stage_reached
from tests.security.fuzz.mutations import mutated

SAMPLES = Path(__file__).parents[2] / "support" / "samples"
KEY = "sk-never-shown-0123456789"
STATUSES = (200, 200, 200, 200, 200, 201, 204, 301, 400, 401, 402, 403, 404, 408, 429, 451, 500, 503, 524)
HEADERS = ("Retry-After", "Date", "Content-Type", "X-Webhook-Timestamp", "X-Webhook-Signature")
HEADER_VALUES = (
    "",
    "3",
    "-1",
    "9" * 400,
    "\u0663",
    "Wed, 21 Oct 2026 07:28:00 GMT",
    "Wed, 99 Oct",
    "\udcff",
    "a" * 500,
)
LONGEST_ERROR = 4_000
"""The most characters in an error, since it is logged."""
SLOW_SECONDS = 2.0
NOW = 1_800_000_000.0
EXPIRE_SECONDS = 86_400.0


@frozen
class SampleBody:
    """One stored body; `value` is its JSON, or `None` if it has none."""

    parse: str
    data: bytes
    value: Any
    status: int


@define
class Tally:
    """The results by kind, and the slowest case."""

    outcomes: Counter[str] = field(factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)


@cache
def samples(provider: str) -> tuple[SampleBody, ...]:
    """Return the samples of a provider."""
    folder = SAMPLES / provider.replace("-", "_")
    found: list[SampleBody] = []
    for row in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        data = (folder / row["file"]).read_bytes()
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        found.append(SampleBody(row["parse"], data, value, row.get("status", 200)))
    return tuple(found)


@cache
def account(name: str) -> Provider:
    """Return an account with a key that must not be shown, and with a webhook key if deliveries may be signed."""
    made: Any = load(name)
    provider: Provider = made(KEY)
    return made(KEY, webhook_key="hush") if provider.info.webhook_key_variable else provider


@cache
def request_entry(name: str) -> Entry:
    """Return the first entry of a journal."""
    info = account(name).info
    asked = Asked(
        provider=name,
        account=name,
        request=Extend(audio_id="source", model="V5"),
        model="V5",
        counts_tracks=info.counts_tracks,
        retention=info.retention,
    )
    return make_entry("request", NOW, body=dump_asked(asked))


def answered(read_answer: Callable[[HttpResponse], object], response: HttpResponse) -> object:
    """Return a value that the contract allows, or our own error."""
    try:
        return read_answer(response)
    except AudioextError as error:
        text = f"{error} {error!r}"
        assert KEY not in text, "the key shows"
        assert len(text) < LONGEST_ERROR, f"an error of {len(text)} characters"
        text.encode()
        return error


def read_all(provider: Provider, kind: str, body: bytes, status: int, headers: Mapping[str, str]) -> str:
    """Read *body* as *kind*, and as a delivery with its signature checked; return the kind of the result."""
    response = HttpResponse(status=status, headers=headers, body=body)
    if kind == "submit":
        outcome = provider.parse_submit(response)
        assert isinstance(outcome, (Submitted, Refused, Unknown)), outcome
        result: object = outcome
    elif kind in {"status", "webhook"}:
        parse = provider.parse_status if kind == "status" else (lambda found: provider.parse_webhook(found.body))
        result = answered(parse, response)
        if not isinstance(result, AudioextError):
            assert isinstance(result, tuple), result
            assert all(isinstance(event, (Submitted, Progress, Failed)) for event in result), result
            result = result[-1] if result else None
        hook = Webhook(path="/p", headers=headers, body=body, received_at=NOW)
        answered(lambda _: provider.verify_webhook(hook), response)
    elif kind == "upload" and isinstance(provider, Uploads):
        result = answered(provider.parse_upload, response)
        assert isinstance(result, (str, AudioextError)), result
    elif kind == "credits" and isinstance(provider, Credits):
        result = answered(provider.parse_credits, response)
        assert isinstance(result, (float, int, AudioextError)), result
    else:
        return "no such call"
    return f"{kind}: {type(result).__name__}"


ENTRY_KINDS: Mapping[str, Any] = {"submit": "answer", "status": "status", "webhook": "webhook"}


def entry_of(dice: random.Random, kind: str, body: bytes, status: int, headers: Mapping[str, str]) -> Entry:
    """Return the journal entry of a body."""
    note = UNCONFIRMED if kind == "webhook" and not dice.randrange(8) else ""
    at = NOW + dice.randrange(9)
    code = 0 if kind == "webhook" else status
    return make_entry(ENTRY_KINDS[kind], at, status=code, headers=headers, body=body, note=note)


def told(record: Record) -> bytes:
    """Return all of *record* that people see or that the store indexes, which must be storable text."""
    at = schedule.poll_at(
        record,
        pace=account(record.provider).info.pace,
        now=NOW,
        jitter=0.5,
        deadline=NOW + EXPIRE_SECONDS,
        polled_at=0.0,
    )
    index = schedule.index_of(record, now=NOW, poll_at=at, expire_after=EXPIRE_SECONDS)
    events = [stage_reached(record, stage) for stage in Stage]
    song = song_of(record)
    shown: list[object] = [
        record.tracks,
        record.words,
        record.refusal,
        record.complaint,
        record.fault,
        record.answer_problem,
        index,
    ]
    shown += [event[1] for event in events if event is not None]
    shown += [song.tracks if song is not None else None, record.fault]
    return msgspec.json.encode(shown, enc_hook=str)


def check_fold(dice: random.Random, provider: Provider, entries: Sequence[Entry]) -> str:
    """Fold *entries* in two orders, which must give the same record, and return its verdict."""
    journal = {entry.id: entry for entry in reversed(entries)}  # a store keeps the first of equal entries
    readings = [read(entry, provider) for entry in journal.values()]
    record = fold("r" * 24, readings)
    assert record is not None
    dice.shuffle(readings)
    assert record == fold("r" * 24, readings), "another order means something else"
    told(record)
    return record.verdict.name


def run_case(seed: int, tally: Tally) -> None:
    """Make a journal of one to four mutated bodies of one provider, parse each of them, and fold it."""
    dice = random.Random(seed)  # noqa: S311 - it has to come again
    name = dice.choice(NAMES)
    provider, known = account(name), samples(name)
    entries = [request_entry(name)]
    for _ in range(dice.choice((1, 1, 2, 3, 4))):
        sample = dice.choice(known)
        body = mutated(dice, sample.data, sample.value)
        kind = sample.parse if dice.randrange(8) else dice.choice(("submit", "status", "webhook", "upload", "credits"))
        status = sample.status if dice.randrange(4) else dice.choice(STATUSES)
        headers = {name: dice.choice(HEADER_VALUES) for name in HEADERS if not dice.randrange(8)}
        tally.outcomes[read_all(provider, kind, body, status, headers)] += 1
        if kind in ENTRY_KINDS:
            entries.append(entry_of(dice, kind, body, status, headers))
    tally.outcomes[check_fold(dice, provider, entries)] += 1


def run(*, cases: int, seed: int, tally: Tally) -> None:
    """Run *cases*, seeded one by one from *seed* on; the error of a failed case names its seed."""
    for number in range(seed, seed + cases):
        began_at = time.process_time()
        try:
            run_case(number, tally)
        except Exception as error:
            error.add_note(f"run it again: python -m tests.security.fuzz parsers --cases 1 --seed {number}")
            raise
        took = time.process_time() - began_at
        tally.slowest = max(tally.slowest, (took, number))
        assert took < SLOW_SECONDS, f"case {number} took {took:.1f} s"
