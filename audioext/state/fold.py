"""All state rules of a job, in one file: `fold(ref, readings)` computes the `Record` from the journal's entries.

1. The record is a function of the set of entries. They are sorted by time and id first, so the order in which they
   arrived, and repeats, make no difference.
2. SUBMITTED means that the task id is known; before that the stage is `None`. A later stage implies the earlier ones.
3. A claim of any stage, or a stream URL, proves TEXT. Only a track with an audio URL proves FIRST, and the URL of the
   request's own source is none. COMPLETE needs a claim and one playable track. At a provider without stage words
   (`counts_tracks`) it needs no claim: as many track ids as tracks were asked for have audio or have failed, and at
   least one has audio. If COMPLETE is claimed without a playable track, a webhook makes a status call due, and a status
   answer is a doubtful failure.
4. `tracks.py` merges tracks. Webhooks alone add no more tracks than were asked for, playable ones first; extra tracks
   make a status call due. After COMPLETE, a webhook changes no track. A complete song has a playable track.
5. A failed track has `Track.failure`; the job fails only when every expected track failed. A doubtful failure or claim
   counts once a status call repeats it some time later, if none that is known by then reported mere progress since.
6. Verdicts: OPEN < REFUSED < EXPIRED < FAILED < COMPLETE. A verdict may rise, as from failed to complete; entries after
   COMPLETE are still folded. A refusal does not count if a webhook named a task.
7. The task id in the POST's answer outranks one from a webhook; of several webhooks the earliest counts. An entry that
   names another task is ignored.
8. A webhook that was not authentic is ignored. One that could not be decoded counts as soon as a release can decode it.
9. A topic that handlers were called for stays reached, even if a later release decodes an entry differently.
10. Unknown stage words are kept; they discard nothing else of an entry.
11. A recovery of files changes only the links of the tracks that came back; see `recovery.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter

from audioext.errors import printable
from audioext.models.entries import DONE_SECONDS, OTHER_TASK, REFUSED, Entry, doubted_for
from audioext.models.events import Event, Failed, Progress, Refused, SubmitOutcome, Submitted
from audioext.models.record import Asked, Reached, Record, Recovery, Run, Seen, Sighting, Verdict
from audioext.models.results import FailureReason, Source, Stage
from audioext.state.reading import Handled, Reading
from audioext.state.recovery import recovery_of, with_recovered
from audioext.state.tracks import SEEN_RANK, results, tracks_of

FAILED_TOPIC = "failed"
TOPIC_OF = {Stage.TEXT: "text", Stage.FIRST: "first", Stage.COMPLETE: "complete"}
MAX_WORDS = 20
"""How many unknown stage words a record keeps, for people to read."""
LONGEST_WORD = 200

_NO_TRACK = Failed(reason=FailureReason.GENERATION, message="it is reported as done, without a track", is_doubtful=True)
_SUBMITTED, _TEXT, _FIRST, _COMPLETE = Stage  # looking up an enum member takes 0.1 µs on Python 3.11
_SOURCE_OF: dict[Seen, Source] = {"answer": "poll", "webhook": "webhook", "poll": "poll"}
_BY_TIME_AND_ID = attrgetter("entry.at", "entry.id")
_NOTHING = frozenset[str]()
"""Shared by all records, since `frozenset({})` makes a new object each time."""
_HEARD = frozenset({"answer", "webhook", "status"})
_Proof = tuple[float, Seen]
"""When something was first seen, and where."""


def fold(ref: str, readings: Iterable[Reading]) -> Record | None:
    """Return the record of job *ref* from all its entries, or `None` if the request is not among them."""
    ordered = sorted(readings, key=_BY_TIME_AND_ID)
    for begun in ordered:
        if begun.asked is not None:
            facts = _Facts(ref, begun.asked, begun.entry.at)
            facts.learn_task(ordered)
            for reading in ordered:
                facts.join(reading)
            return facts.record()
    return None


class _Facts:
    """The facts collected from the entries so far; `record` computes the result.

    A plain class with its defaults on the class, for speed: each fold makes one, and most facts keep their default.
    """

    seen_at = 0.0
    answered_at: float | None = None
    answer: SubmitOutcome | None = None
    submit: Submitted | None = None
    """The POST's answer, if it names a task."""
    called_id: str | None = None
    task_id: str | None = None
    submitted: _Proof | None = None
    shown: _Proof | None = None
    """When a stage was first claimed or a stream URL shown."""
    audible: _Proof | None = None
    """When a playable track was first shown."""
    fault: tuple[Failed, float] | None = None
    """Why the task failed, and when that was first seen."""
    fault_seen: Seen = "webhook"
    cover_url: str | None = None
    credits: float | None = None
    complaint: str | None = None
    asks_at: float | None = None
    doubted_at: float | None = None
    expired_at: float | None = None
    is_abandoned: str | None = None
    recovery: Recovery | None = None

    def __init__(self, ref: str, asked: Asked, created_at: float) -> None:
        self.ref = ref
        self.asked = asked
        self.created_at = created_at
        self.claimed: dict[Stage, _Proof] = {}
        """When each stage was first claimed."""
        self.sightings: list[Sighting] = []
        self.failures: list[tuple[Sighting, FailureReason]] = []
        """The sightings that show a track's failure, and why it failed."""
        self.words: list[str] = []
        self.told: dict[str, float] = {}
        self.runs: dict[tuple[str, str], Run] = {}

    def learn_task(self, ordered: Sequence[Reading]) -> None:
        """Find the job's task id first, since entries of other tasks are ignored."""
        is_recovering = False
        for reading in ordered:
            kind = reading.entry.kind
            if kind == "answer" and self.submit is None:
                self.answer = reading.outcome
                self.answered_at = reading.entry.at
                if isinstance(reading.outcome, Submitted):
                    self.submit = reading.outcome
            elif kind == "recovery":
                is_recovering = True
            elif kind == "webhook" and self.called_id is None and not reading.entry.note.startswith(OTHER_TASK):
                self.called_id = reading.task_id
        self.task_id = self.submit.task_id if self.submit is not None else self.called_id
        if is_recovering:
            self.recovery = recovery_of(ordered, self.task_id)

    def join(self, reading: Reading) -> None:
        """Add the facts of one entry."""
        entry = reading.entry
        if entry.kind in _HEARD:
            self.seen_at = entry.at
        if reading.events:
            self._join_events(reading.events, "webhook" if entry.kind == "webhook" else "poll", entry)
        elif reading.outcome is not None:
            if reading.outcome is self.submit and self.submitted is None:
                self.submitted = (entry.at, "answer")
        elif reading.handled is not None:
            self._join_handled(reading.handled, entry.at)
        elif entry.kind == "webhook" and not entry.note.startswith((REFUSED, OTHER_TASK)):
            self.asks_at = entry.at  # a webhook that cannot be decoded: only a status call can tell
        elif entry.kind == "status":
            self.complaint = reading.problem or self.complaint
            self.asks_at = self.asks_at if reading.problem else None
        elif entry.kind == "expired" and self.expired_at is None:
            self.expired_at = entry.at
        elif entry.kind == "abandoned":
            self.is_abandoned = entry.note

    def _join_events(self, events: Sequence[Event], seen: Seen, entry: Entry) -> None:
        at = entry.at
        if seen == "poll":
            self.asks_at = None  # this status answer settles the question
        for event in events:
            if event.task_id is not None and event.task_id != self.task_id:
                return
        if seen == "poll" and all(isinstance(event, Progress) and event.goes_on for event in events):
            self.doubted_at = None  # an end that was reported before was premature
        if self.submitted is None:
            self.submitted = (at, seen)
        for event in events:
            if isinstance(event, Progress):
                claimed = None if event.is_doubtful and self._doubts(event, entry) else event.claimed_stage
                self._see(event, claimed, seen, at)
                if seen == "poll" and claimed is _COMPLETE and self.audible is None:
                    self._see_failure(_NO_TRACK, seen, entry)
            elif isinstance(event, Failed):
                self._see_failure(event, seen, entry)

    def _doubts(self, event: Progress | Failed, entry: Entry) -> bool:
        if not event.is_doubtful:
            return False
        self.doubted_at = self.doubted_at or entry.at
        # Its note says for how long, so that an entry of an earlier call, stored later, takes no verdict back.
        return doubted_for(entry) < (DONE_SECONDS if event is _NO_TRACK or isinstance(event, Progress) else 0.0)

    def _see(self, event: Progress, claimed: Stage | None, seen: Seen, at: float) -> None:
        shown: _Proof = (at, seen)
        tracks = results(event.tracks, self.asked.request)
        is_list = claimed is not None or len(tracks) > 1
        for position, track in enumerate(tracks, 1):
            sighting = Sighting(track, claimed, seen, at, position if is_list else 0)
            self.sightings.append(sighting)
            if track.audio_url is not None:
                self.audible = self.audible or shown
            if track.stream_url is not None:
                self.shown = self.shown or shown
            if track.failure is not None:
                self.failures.append((sighting, event.reason))
        if claimed is not None:
            self.claimed.setdefault(claimed, shown)
            self.shown = self.shown or shown
        is_odd = (claimed is _COMPLETE and self.audible is None) or len(tracks) > self.asked.expected_tracks
        if seen == "webhook" and (event.ask_now or is_odd):
            self.asks_at = at
        is_late = seen == "webhook" and _COMPLETE in self.claimed and self.audible is not None
        if event.cover_url is not None and not (is_late and self.cover_url is not None):
            self.cover_url = event.cover_url
        if event.credits is not None and not (is_late and self.credits is not None):
            self.credits = event.credits
        if event.word is not None and (word := printable(event.word[:LONGEST_WORD])) not in self.words:
            self.words.append(word)

    def _see_failure(self, event: Failed, seen: Seen, entry: Entry) -> None:
        # Of several failures a status answer's counts more than a webhook's, then the later one.
        if not self._doubts(event, entry) and (self.fault is None or SEEN_RANK[seen] >= SEEN_RANK[self.fault_seen]):
            self.fault, self.fault_seen = (event, entry.at if self.fault is None else self.fault[1]), seen

    def _join_handled(self, handled: Handled, at: float) -> None:
        if not handled.handler:
            self.told.setdefault(handled.topic, at)
            return
        key = (handled.topic, handled.handler)
        self.runs[key] = handled.after(self.runs.get(key, Run()), at)

    def record(self) -> Record:
        """Compute the record from the facts."""
        reached, topics = _reached(self) if self.submitted is not None or self.told else ((), [])
        stage, last_at = (reached[-1].stage, reached[-1].at) if reached else (None, math.inf)
        answer, refusal = self.answer, self.is_abandoned
        if isinstance(answer, Refused):
            refusal = str(answer.error) if self.called_id is None else refusal
            answer = None
        complete_at, ended_at, fault = math.inf, None, None
        if stage is _COMPLETE:
            verdict, ended_at, complete_at = Verdict.COMPLETE, last_at, last_at
        elif (failed := self.fault or (_fault_of_tracks(self) if self.failures else None)) is not None:
            verdict, (fault, ended_at) = Verdict.FAILED, failed
            if FAILED_TOPIC not in self.told:
                topics.append(FAILED_TOPIC)
        elif self.expired_at is not None:
            verdict, ended_at = Verdict.EXPIRED, self.expired_at
        else:
            verdict = Verdict.OPEN if refusal is None else Verdict.REFUSED
        tracks = tracks_of(
            self.asked,
            self.sightings,
            track_ids=self.submit.track_ids if self.submit is not None else (),
            cover_url=self.cover_url,
            complete_at=complete_at,
        )
        if self.recovery is not None:
            tracks = with_recovered(tracks, self.recovery, self.asked.retention)
        return Record(
            ref=self.ref,
            asked=self.asked,
            created_at=self.created_at,
            seen_at=self.seen_at,
            answered_at=self.answered_at,
            answer=answer,
            task_id=self.task_id,
            stage=stage,
            verdict=verdict,
            ended_at=ended_at,
            reached=reached,
            tracks=tracks,
            sightings=tuple(self.sightings),
            asks_at=self.asks_at,
            doubted_at=self.doubted_at,
            cover_url=self.cover_url,
            credits=self.credits,
            words=tuple(self.words[-MAX_WORDS:]),
            fault=fault,
            refusal=refusal,
            is_unsent=self.is_abandoned is not None,
            complaint=self.complaint,
            recovery=self.recovery,
            handled=frozenset(self.told) if self.told else _NOTHING,
            runs=self.runs,
            unhandled=tuple(topics),
        )


def _reached(facts: _Facts) -> tuple[tuple[Reached, ...], list[str]]:
    """Return the stages reached, each with the time of its proof, and the topics that handlers still have to get.

    A later stage implies the earlier ones.
    """
    found: list[Reached] = []
    topics: list[str] = []
    later: _Proof | None = None
    for stage, proof in (
        (_COMPLETE, _complete_proof(facts)),
        (_FIRST, facts.audible),
        (_TEXT, facts.shown),
        (_SUBMITTED, facts.submitted),
    ):
        known = proof
        if known is None:
            told_at = facts.told.get(TOPIC_OF.get(stage, "")) if facts.told else None
            known = later if told_at is None else (told_at, "webhook")
            if known is None:
                continue
        at, seen = known
        source: Source = "implied" if proof is None else _SOURCE_OF[seen]
        if later is not None and at >= later[0]:
            # Reached with a later stage: its source is `implied` unless the stage itself was claimed by then.
            at = later[0]
            named_at, _ = facts.claimed.get(stage, (math.inf, seen))
            if stage is not _SUBMITTED and named_at > at:
                source = "implied"
        later = (at, seen)
        found.append(Reached(stage, source, at))
        if stage is not _SUBMITTED and TOPIC_OF[stage] not in facts.told:
            topics.append(TOPIC_OF[stage])
    found.reverse()
    topics.reverse()
    return tuple(found), topics


def _complete_proof(facts: _Facts) -> _Proof | None:
    if facts.audible is None:
        return None
    claimed = facts.claimed.get(_COMPLETE)
    proof = None if claimed is None else max(claimed, facts.audible)
    if facts.asked.counts_tracks and (counted := _counted_proof(facts)) is not None:
        counted = max(counted, facts.audible)
        proof = counted if proof is None else min(proof, counted)
    return proof


def _counted_proof(facts: _Facts) -> _Proof | None:
    """Return when the last expected track was playable or had failed. Only ids count: without, two may be one track."""
    settled: dict[str, _Proof] = {}
    for seen in facts.sightings:
        if seen.track.id is not None and (seen.track.audio_url is not None or seen.track.failure is not None):
            settled.setdefault(seen.track.id, (seen.at, seen.seen))
    expected = facts.asked.expected_tracks
    return sorted(settled.values())[expected - 1] if len(settled) >= expected else None


def _fault_of_tracks(facts: _Facts) -> tuple[Failed, float] | None:
    """Return the job's failure, and when it was seen, if every expected track failed."""
    failed = {seen.track.id for seen, _ in facts.failures if seen.track.id is not None}
    if not len(failed) >= facts.asked.expected_tracks > 0:
        return None
    messages = sorted({seen.track.failure for seen, _ in facts.failures if seen.track.failure is not None})
    is_content = {why for _, why in facts.failures} == {FailureReason.CONTENT}
    reason = FailureReason.CONTENT if is_content else FailureReason.GENERATION
    failed_at = max(seen.at for seen, _ in facts.failures)
    return Failed(reason=reason, message="every track failed: " + "; ".join(messages)), failed_at
