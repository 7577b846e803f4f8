"""Every state rule, in one file: `advance(record, event)` returns the record that has also seen *event*.

1. A record is a join. Its facts are sets and maxima, so the same events of one task give the same record in
   any order and with any repetition. What a reader wants (stage, tracks, verdict, when) is derived from them.
2. SUBMITTED means that the task is known. A later stage implies the earlier ones.
3. A stream URL, or the claim, proves TEXT. Only a track with an audio URL proves FIRST. COMPLETE needs its
   claim and one playable track; where the wire has no stage word (`counts_takes`), it is reached when every
   expected take has audio or failed, and one has audio.
4. Sightings merge into tracks by id. One without an id belongs to the id that showed the same audio URL,
   else that URL is its key. A value beats none; then the higher stage, then status over webhook, then a fixed
   order on the value. Tracks are ordered by wire position, then by key.
5. A failed take is its track's `failure`; the job fails only when every expected take did.
6. Verdicts rise: OPEN < EXPIRED < FAILED < COMPLETE. Facts still join after COMPLETE.
7. The submit answer's task id outranks one learnt by webhook: then the facts start anew.
8. An unknown word is kept and loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from audioext.models.events import Event, Failed, Progress, Submitted
from audioext.models.record import Claim, Complaint, Facts, Fault, Reached, Record, Seen, Sighting, Verdict
from audioext.models.results import Failure, FailureReason, Song, Source, Stage, StageEvent
from audioext.state.tracks import SEEN_RANK, greater, join_sightings, moment, place, tracks_of

if TYPE_CHECKING:
    from typing import Unpack

_SOURCE_OF: dict[Seen, Source] = {"answer": "poll", "webhook": "webhook", "poll": "poll"}
_Word = tuple[float, Seen]
"""When something was first seen, and where."""
_Proof = tuple[float, Source]
"""When a stage was reached, and how that became known."""

_TOPIC_OF = {stage: stage.name.lower() for stage in Stage}
FAILED_TOPIC = "failed"
MAX_WORDS = 20  # unknown stage words kept for people to read; the greatest ones, so that order cannot matter


def advance(record: Record, event: Event, *, seen: Seen, at: float) -> Record:
    """Return *record* with the facts of *event*, which was *seen* at *at* (Unix seconds)."""
    if isinstance(event, Submitted):
        return _join_submitted(record, event, seen=seen, at=at)
    if isinstance(event, Progress):
        return _join_progress(record, event, seen=seen, at=at)
    return _join_failed(record, event, seen=seen, at=at)


def expire(record: Record, *, at: float) -> Record:
    """Return *record* given up at *at*; a failure or a song outranks that whenever it comes."""
    return _with(record, expired_at=_earliest(record.expired_at, at))


def complain(record: Record, text: str, *, at: float) -> Record:
    """Return *record* with the latest refused or unreadable status call; it says nothing of the task."""
    new = Complaint(text=text, at=at)
    old = record.complaint
    return evolve(record, complaint=new if old is None else max(old, new, key=lambda c: (c.at, c.text)))


def blame_handler(record: Record, text: str) -> Record:
    """Return *record* with a handler's last error, after which it was given up."""
    return evolve(record, handler_faults=tuple(sorted({*record.handler_faults, text})))


def told(before: Record, after: Record) -> tuple[tuple[str, int], ...]:
    """Return what became news between two states of one job, as (topic, sequence), in order.

    Topics are the names of stages in small letters, and `"failed"`.
    """
    old = [reached.stage for reached in before.reached]
    news = [
        (_TOPIC_OF[reached.stage], 10 * reached.stage)
        for reached in after.reached
        if reached.stage not in old and reached.stage is not Stage.SUBMITTED
    ]
    if after.verdict is Verdict.FAILED and before.verdict < Verdict.FAILED:
        # After every stage that a failed job can have told, before a late COMPLETE.
        news.append((FAILED_TOPIC, 10 * Stage.FIRST + 5))
    return tuple(news)


def wants_status(record: Record) -> bool:
    """Say whether COMPLETE is claimed but nothing playable was shown: then a status call is due now."""
    if record.verdict is Verdict.COMPLETE:
        return False
    return any(claim.stage is Stage.COMPLETE for claim in record.claims)


def stage_event(record: Record, stage: Stage) -> StageEvent | None:
    """Return the event of *stage* with the tracks known when it was reached, `None` if it was not."""
    reached = next((item for item in record.reached if item.stage is stage), None)
    if reached is None:
        return None
    known = [sighting for sighting in record.sightings if sighting.at <= reached.at]
    return StageEvent(
        stage=stage,
        tracks=tracks_of(record, known, take_ids=record.take_ids, cover_url=record.cover_url),
        source=reached.source,
        at=moment(reached.at),
        ref=record.ref,
        provider=record.provider,
        task_id=record.task_id,
        meta=record.meta,
    )


def failure(record: Record) -> Failure | None:
    """Return why the job failed, `None` if it did not (or rose to complete since)."""
    if record.verdict is not Verdict.FAILED:
        return None
    fault = record.fault if record.fault is not None else _fault_of_takes(record)
    return Failure(
        reason=fault.reason,
        code=fault.code,
        message=fault.message,
        charged=fault.charged,
        at=moment(fault.at),
        ref=record.ref,
        provider=record.provider,
        task_id=record.task_id,
        tracks=record.tracks,
        meta=record.meta,
    )


def song(record: Record) -> Song | None:
    """Return the song of a complete job, with its playable tracks alone; `None` if it is not complete."""
    if record.verdict is not Verdict.COMPLETE:
        return None
    return Song(
        ref=record.ref,
        provider=record.provider,
        task_id=record.task_id,
        tracks=tuple(track for track in record.tracks if track.audio_url is not None),
        credits=record.credits,
        meta=record.meta,
    )


# --- facts -----------------------------------------------------------------------------------------------


def _join_submitted(record: Record, event: Submitted, *, seen: Seen, at: float) -> Record:
    if record.answered_id is None and record.called_id not in {None, event.task_id}:
        record = _forget_task(record)
    return _with(
        record,
        answered_id=greater(record.answered_id, event.task_id),
        called_id=None,
        submitted=_earlier(record.submitted, at, seen),
        take_ids=max(record.take_ids, event.track_ids),
        eta=greater(record.eta, event.eta),
        credit_estimate=greater(record.credit_estimate, event.credit_estimate),
    )


def _join_progress(record: Record, event: Progress, *, seen: Seen, at: float) -> Record:
    claimed = event.claimed_stage
    claims = record.claims
    if claimed is not None:
        claims = _join_claim(claims, Claim(stage=claimed, seen=seen, at=at))
    sightings = record.sightings
    if event.tracks:
        listed = claimed is not None or len(event.tracks) > 1
        tracks = [place(track, index) for index, track in enumerate(event.tracks, 1)] if listed else event.tracks
        news = [Sighting(track=track, claimed=claimed, seen=seen, at=at) for track in tracks]
        sightings = join_sightings(sightings, news)
    words = record.words if event.word is None else tuple(sorted({*record.words, event.word})[-MAX_WORDS:])
    return _with(
        record,
        called_id=_called_id(record, event.task_id),
        submitted=_earlier(record.submitted, at, seen),
        claims=claims,
        sightings=sightings,
        words=words,
        cover_url=greater(record.cover_url, event.cover_url),
        credits=greater(record.credits, event.credits),
    )


def _join_failed(record: Record, event: Failed, *, seen: Seen, at: float) -> Record:
    new = Fault(
        reason=event.reason,
        code=event.code,
        message=event.message,
        charged=event.charged,
        seen=seen,
        at=at,
    )
    old = record.fault
    if old is not None:
        new = evolve(max(old, new, key=_fault_order), at=min(old.at, new.at))
    return _with(
        record,
        called_id=_called_id(record, event.task_id),
        submitted=_earlier(record.submitted, at, seen),
        fault=new,
    )


def _called_id(record: Record, task_id: str | None) -> str | None:
    if record.answered_id is not None:  # the answer said it already; keeping both would make the order matter
        return record.called_id
    return greater(record.called_id, task_id)


def _forget_task(record: Record) -> Record:
    return evolve(
        record,
        called_id=None,
        submitted=None,
        claims=(),
        sightings=(),
        fault=None,
        cover_url=None,
        credits=None,
        words=(),
    )


def _join_claim(claims: tuple[Claim, ...], new: Claim) -> tuple[Claim, ...]:
    earliest = {(claim.stage, claim.seen): claim for claim in claims}
    key = (new.stage, new.seen)
    if key not in earliest or new.at < earliest[key].at:
        earliest[key] = new
    return tuple(earliest[key] for key in sorted(earliest))


# --- what follows from the facts -------------------------------------------------------------------------


def _with(record: Record, **facts: Unpack[Facts]) -> Record:
    """Return *record* with *facts* and all that follows from them; built once, since a record is large."""
    sightings = facts.get("sightings", record.sightings)
    tracks = tracks_of(
        record,
        sightings,
        take_ids=facts.get("take_ids", record.take_ids),
        cover_url=facts.get("cover_url", record.cover_url),
    )
    reached = _reached(record, sightings, facts.get("claims", record.claims), facts.get("submitted", record.submitted))
    stage = reached[-1].stage if reached else None
    verdict = Verdict.OPEN
    if stage is Stage.COMPLETE:
        verdict = Verdict.COMPLETE
    elif facts.get("fault", record.fault) is not None or _all_takes_failed(record, sightings):
        verdict = Verdict.FAILED
    elif facts.get("expired_at", record.expired_at) is not None:
        verdict = Verdict.EXPIRED
    return evolve(record, **facts, tracks=tracks, reached=reached, stage=stage, verdict=verdict)


def _reached(
    record: Record, sightings: Sequence[Sighting], claims: Sequence[Claim], submitted: Reached | None
) -> tuple[Reached, ...]:
    audible: list[_Word] = [(s.at, s.seen) for s in sightings if s.track.audio_url is not None]
    shown: list[_Word] = [(s.at, s.seen) for s in sightings if s.track.stream_url is not None]
    named: dict[Stage, float] = {}
    for claim in claims:
        shown.append((claim.at, claim.seen))
        named[claim.stage] = min(claim.at, named.get(claim.stage, math.inf))
    counted = _counted_proof(record, sightings) if record.counts_takes else None
    proofs: tuple[tuple[Stage, _Proof | None], ...] = (
        (Stage.COMPLETE, _complete_proof(claims, audible, counted)),
        (Stage.FIRST, _proof(audible)),
        (Stage.TEXT, _proof(shown)),
        (Stage.SUBMITTED, None if submitted is None else (submitted.at, submitted.source)),
    )
    found: list[Reached] = []
    later = math.inf
    for stage, proof in proofs:
        if found and (proof is None or proof[0] >= later):
            # What a later stage brought along is a word about this one only where it was named by then.
            told = proof is not None and (stage is Stage.SUBMITTED or named.get(stage, math.inf) <= later)
            proof = (later, proof[1] if proof is not None and told else "implied")  # noqa: PLW2901 - it is refined
        if proof is not None:
            later = proof[0]
            found.append(Reached(stage=stage, source=proof[1], at=later))
    return tuple(reversed(found))


def _complete_proof(claims: Sequence[Claim], audible: Sequence[_Word], counted: _Word | None) -> _Proof | None:
    if not audible:
        return None
    claimed: list[_Word] = [(claim.at, claim.seen) for claim in claims if claim.stage is Stage.COMPLETE]
    proofs = [max(min(claimed), min(audible))] if claimed else []
    if counted is not None:
        proofs.append(counted)
    return _proof(proofs)


def _counted_proof(record: Record, sightings: Sequence[Sighting]) -> _Word | None:
    # Only takes with an id are counted: two nameless sightings may turn out to be one take.
    first: dict[str, _Word] = {}
    for s in sightings:
        if s.track.id is not None and (s.track.audio_url is not None or s.track.failure is not None):
            first[s.track.id] = min(first.get(s.track.id, (s.at, s.seen)), (s.at, s.seen))
    times = sorted(first.values())
    audible: list[_Word] = [(s.at, s.seen) for s in sightings if s.track.audio_url is not None]
    if len(times) < record.expected_tracks or not audible:
        return None
    return max(times[record.expected_tracks - 1], min(audible))


def _proof(found: Sequence[_Word]) -> _Proof | None:
    if not found:
        return None
    at, seen = found[0] if len(found) == 1 else min(found, key=lambda word: (word[0], SEEN_RANK[word[1]]))
    return (at, _SOURCE_OF[seen])


def _all_takes_failed(record: Record, sightings: Sequence[Sighting]) -> bool:
    # A take that failed by one word and has audio by another counts as both; COMPLETE outranks the failure.
    failed = {s.track.id for s in sightings if s.track.failure is not None and s.track.id is not None}
    return len(failed) >= record.expected_tracks > 0


def _fault_of_takes(record: Record) -> Fault:
    failed = [s for s in record.sightings if s.track.failure is not None]
    messages = sorted({s.track.failure for s in failed if s.track.failure is not None})
    return Fault(
        reason=FailureReason.GENERATION,
        code=None,
        message="every take failed: " + "; ".join(messages),
        charged=None,
        seen="webhook",
        at=max((s.at for s in failed), default=record.created_at),
    )


# --- orders ----------------------------------------------------------------------------------------------


def _fault_order(fault: Fault) -> tuple[int, str, str, str, int]:
    charged = -1 if fault.charged is None else int(fault.charged)
    return (SEEN_RANK[fault.seen], fault.reason, fault.code or "", fault.message, charged)


def _earliest(old: float | None, new: float) -> float:
    return new if old is None else min(old, new)


def _earlier(old: Reached | None, at: float, seen: Seen) -> Reached:
    new = Reached(stage=Stage.SUBMITTED, source=_SOURCE_OF[seen], at=at)
    if old is None or (at, new.source) < (old.at, old.source):
        return new
    return old
