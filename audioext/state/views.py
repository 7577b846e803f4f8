"""What users are shown of a record: a stage, a failure, a song."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from yarl import URL

from audioext.models.record import Reached, Record, TaskFault, Verdict
from audioext.models.requests import Request
from audioext.models.results import Files, Song, Stage, Track, fetched_by
from audioext.state.tracks import tracks_of


def stage_reached(record: Record, stage: Stage) -> tuple[Reached, tuple[Track, ...]] | None:
    """Return when *stage* was reached and the tracks that were known by then, `None` if it was not."""
    reached = next((item for item in record.reached if item.stage is stage), None)
    if reached is None:
        return None
    known = [sighting for sighting in record.sightings if sighting.at <= reached.at]
    return reached, tracks_of(record.asked, known, track_ids=record.track_ids, cover_url=record.cover_url)


def failure(record: Record) -> TaskFault | None:
    """Return why the job failed, `None` if it did not (or rose to complete since)."""
    return record.fault if record.verdict is Verdict.FAILED else None


def song(record: Record, files: Files | None = None) -> Song | None:
    """Return the song of a complete job, with its playable tracks alone; `None` if it is not complete.

    *files* is what fetches the files of its tracks.
    """
    if record.verdict is not Verdict.COMPLETE:
        return None
    return Song(
        ref=record.ref,
        provider=record.asked.provider,
        task_id=record.task_id,
        tracks=fetched_by(files, [track for track in record.tracks if track.audio_url is not None]),
        credits=record.credits,
        meta=record.asked.meta,
        source_name=_source_name(record.asked.request),
        files=files,
    )


def _source_name(request: Request) -> str | None:
    """Return the name of the file that *request* continues or accompanies, without its suffix."""
    if isinstance(request.file, Path):
        return request.file.stem or None
    return PurePosixPath(URL(request.url).name).stem or None if request.url else None
