"""The state of recoveries, which restore files whose links died, as pure functions of a journal's entries.

A recovery begins with an entry that is written before its POST, so that two processes never send two. It is a separate
task with its own id, which comes from its answer, or else from the first webhook after its beginning that names another
task than the job's. It changes only the links of the tracks that came back.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from audioext.models.entries import OTHER_TASK, REFUSED
from audioext.models.events import Event, Failed, Progress, Submitted
from audioext.models.record import Record, Recovery, Verdict
from audioext.models.results import Track
from audioext.state.reading import Reading
from audioext.state.tracks import moment


def recovery_of(ordered: Sequence[Reading], task_id: str | None) -> Recovery:
    """Return the last recovery in the journal of a job with *task_id*, which has one."""
    beginnings = [reading.entry for reading in ordered if reading.entry.kind == "recovery"]
    # The notes say which entries belong to which attempt. Times do not, since several clocks may have written them.
    begun = max(beginnings, key=lambda entry: (len(entry.note), entry.note))
    found = Recovery(attempt=len(beginnings), begun_at=begun.at)
    for reading in ordered:
        if reading.entry.kind == "recovery_answer" and reading.entry.note.rstrip(")").endswith(begun.note):
            found = _answered(found, reading)
    for reading in ordered:
        if reading.entry.kind == "webhook" and not reading.entry.note.startswith((REFUSED, OTHER_TASK)):
            found = _called_back(found, reading, task_id)
    for reading in ordered:
        if reading.entry.kind == "recovery_status" and reading.entry.note == status_note(found.task_id):
            found = _ended(found, reading.recovery, reading.entry.at)
    return found


def status_note(recovery_id: str | None) -> str:
    """Return the note of a `recovery_status` entry, which names its recovery."""
    return f"of {recovery_id}"


def is_other_task(record: Record, named: str, owner: str | None) -> bool:
    """Return whether a webhook for task *named*, which belongs to the job *owner* if any, is not for *record*'s job."""
    if record.task_id is None:
        return owner is not None
    recovery = record.recovery
    if recovery is None:
        return record.task_id != named
    is_adopted = recovery.verdict is Verdict.OPEN and recovery.task_id is None and owner is None
    return not is_adopted and named not in {record.task_id, recovery.task_id}


def with_recovered(tracks: Sequence[Track], recovery: Recovery, retention: float | None) -> tuple[Track, ...]:
    """Return a job's *tracks* with their restored links, matched by id, or by position if no id matches."""
    if recovery.verdict is not Verdict.COMPLETE:
        return tuple(tracks)
    by_id = {track.id: track for track in recovery.tracks}
    if not by_id.keys() & {track.id for track in tracks}:
        playable = [track for track in tracks if track.audio_url is not None]
        by_id = {own.id: back for own, back in zip(playable, recovery.tracks, strict=False)}
    expires_at = None if retention is None else moment(recovery.ended_at + retention)
    return tuple(
        evolve(track, audio_url=back.audio_url, expires_at=expires_at)
        if (back := by_id.get(track.id)) is not None and back.audio_url is not None
        else track
        for track in tracks
    )


def _answered(found: Recovery, reading: Reading) -> Recovery:
    for event in reading.recovery:
        if isinstance(event, Submitted):
            return evolve(found, task_id=event.task_id, problem=None)
        if isinstance(event, Failed):
            return evolve(found, verdict=Verdict.REFUSED, problem=event.message, ended_at=reading.entry.at)
    return evolve(found, problem=reading.problem or "no readable answer")


def _called_back(found: Recovery, reading: Reading, task_id: str | None) -> Recovery:
    named = reading.task_id
    if named is None or named == task_id or found.task_id not in {None, named}:
        return found
    if found.task_id is None and reading.entry.at < found.begun_at:  # it belongs to an earlier attempt
        return found
    return _ended(evolve(found, task_id=named), reading.events, reading.entry.at)


def _ended(found: Recovery, events: Sequence[Event], at: float) -> Recovery:
    """Return *found* with its end. A complete recovery stays complete."""
    if found.verdict is Verdict.COMPLETE:
        return found
    tracks = tuple(track for event in events if isinstance(event, Progress) for track in event.tracks)
    if any(track.audio_url is not None for track in tracks):
        return evolve(found, verdict=Verdict.COMPLETE, tracks=tracks, problem=None, ended_at=at)
    for event in events:
        if isinstance(event, Failed):
            return evolve(found, verdict=Verdict.FAILED, problem=event.message, ended_at=at)
    return found
