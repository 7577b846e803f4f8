"""What is known of the takes: sightings join into a set of cells, and cells merge into ordered tracks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import attrs
from attrs import evolve

from audioext.models.record import Record, Seen, Sighting
from audioext.models.results import Track

_T = TypeVar("_T")

SEEN_RANK: dict[Seen, int] = {"answer": 0, "webhook": 1, "poll": 2}
"""Whose word counts more where two differ: a status call is asked over our own connection."""

_TRACK_FACTS = tuple(
    attribute.name
    for attribute in attrs.fields(Track)
    if attribute.name not in {"id", "provider", "model", "extends_by_id", "expires_at"}
)


def join_sightings(sightings: tuple[Sighting, ...], news: Iterable[Sighting]) -> tuple[Sighting, ...]:
    """Return *sightings* with the *news*: one cell for each take, claimed stage and source."""
    cells = {_cell(sighting): sighting for sighting in sightings}
    for new in news:
        key = _cell(new)
        old = cells.get(key)
        cells[key] = new if old is None else _merge_cell(old, new)
    return tuple(cells[key] for key in sorted(cells))


def tracks_of(
    record: Record, sightings: Sequence[Sighting], *, take_ids: Sequence[str], cover_url: str | None
) -> tuple[Track, ...]:
    """Return the tracks that *sightings* of *record* show, in the order of *take_ids*, then of their places."""
    expires_at = None
    if record.retention is not None and sightings:
        shown = [s.at for s in sightings if s.track.audio_url is not None]
        expires_at = moment(min(shown)) + timedelta(seconds=record.retention) if shown else None
    tracks = [_merge_group(record, group, expires_at, cover_url) for group in groups(sightings)]
    positions = {id_: index for index, id_ in enumerate(take_ids)}
    ordered = sorted(
        tracks,
        key=lambda track: (
            positions.get(track.id or "", len(positions)),
            track.position if track.position is not None else len(tracks) + len(positions),
            track.id or "",
            track.audio_url or "",
        ),
    )
    return tuple(
        track if track.position is not None else evolve(track, position=place) for place, track in enumerate(ordered, 1)
    )


def groups(sightings: Iterable[Sighting]) -> list[list[Sighting]]:
    """Return the sightings of each take together: by id, else by the audio URL."""
    by_id: dict[str, list[Sighting]] = {}
    nameless: list[Sighting] = []
    for sighting in sightings:
        if sighting.track.id is not None:
            by_id.setdefault(sighting.track.id, []).append(sighting)
        else:
            nameless.append(sighting)
    owners: dict[str, set[str]] = {}
    for id_, group in by_id.items():
        for sighting in group:
            if sighting.track.audio_url is not None:
                owners.setdefault(sighting.track.audio_url, set()).add(id_)
    by_url: dict[str, list[Sighting]] = {}
    for sighting in nameless:
        url = sighting.track.audio_url or ""
        # Where several ids showed one URL it belongs to each: taking it from one would erase what it knew.
        for id_ in owners.get(url, ()):
            by_id[id_].append(sighting)
        if url not in owners:
            by_url.setdefault(url or sighting.track.stream_url or "", []).append(sighting)
    return [*by_id.values(), *by_url.values()]


def greater(old: _T | None, new: _T | None) -> _T | None:
    """Return the greater of two values of one field, `None` being the least."""
    if new is None or old is None:
        return old if new is None else new
    return max((old, new), key=order)


def order(value: object) -> tuple[bool, float, str]:
    """Return a fixed total order on the values of one field; `None` and empty text are lowest."""
    if value is None or value == "":
        return (False, 0.0 if value is None else 1.0, "")
    number = float(value) if isinstance(value, (int, float)) else 0.0
    if isinstance(value, datetime):
        number = value.timestamp()
    return (True, number, value if isinstance(value, str) else repr(value))


def moment(at: float) -> datetime:
    """Return Unix seconds as a tz-aware time."""
    return datetime.fromtimestamp(at, UTC)


def place(track: Track, position: int) -> Track:
    """Return *track* with its place in the list that showed it, unless the wire named one."""
    if track.position is not None:
        return track
    return _copy(
        track,
        image_url=track.image_url,
        failure=track.failure,
        position=position,
        expires_at=track.expires_at,
        provider=track.provider,
        model=track.model,
        extends_by_id=track.extends_by_id,
    )


def _cell(sighting: Sighting) -> tuple[str, str, int, int]:
    track = sighting.track
    url = "" if track.id is not None else (track.audio_url or track.stream_url or "")
    return (track.id or "", url, int(sighting.claimed or 0), SEEN_RANK[sighting.seen])


def _merge_cell(old: Sighting, new: Sighting) -> Sighting:
    values = {name: max((getattr(old.track, name), getattr(new.track, name)), key=order) for name in _TRACK_FACTS}
    return evolve(old, track=evolve(old.track, **values), at=min(old.at, new.at))


def _merge_group(
    record: Record, group: Sequence[Sighting], expires_at: datetime | None, cover_url: str | None
) -> Track:
    if len(group) == 1:
        track = group[0].track
        return _copy(
            track,
            image_url=track.image_url if track.image_url is not None else cover_url,
            failure=track.failure if track.audio_url is None else None,
            position=track.position,
            expires_at=expires_at if track.audio_url is not None else None,
            provider=record.provider,
            model=record.model,
            extends_by_id=record.extends_by_id,
        )
    ranked = sorted(group, key=_rank, reverse=True)
    values = {name: _best(ranked, name) for name in _TRACK_FACTS}
    if values["image_url"] is None:
        values["image_url"] = cover_url
    if values["audio_url"] is not None:
        values["failure"] = None
    return Track(
        **values,  # type: ignore[arg-type]  # each is a value of the same field
        id=next((s.track.id for s in group if s.track.id is not None), None),
        expires_at=expires_at if values["audio_url"] is not None else None,
        provider=record.provider,
        model=record.model,
        extends_by_id=record.extends_by_id,
    )


def _rank(sighting: Sighting) -> tuple[int, int]:
    return (sighting.claimed or 0, SEEN_RANK[sighting.seen])


def _best(ranked: Sequence[Sighting], name: str) -> object:
    """Return the value of the highest rank that is one; equal ranks are settled by the order on values."""
    best: object = None
    best_rank: tuple[int, int] | None = None
    for sighting in ranked:
        value = getattr(sighting.track, name)
        if value is None or value == "":
            if best_rank is None and value == "":
                best = ""
        elif best_rank is None:
            best, best_rank = value, _rank(sighting)
        elif _rank(sighting) == best_rank:
            best = greater(best, value)
        else:
            break
    return best


def _copy(  # noqa: PLR0913 - what may differ between a sighting's track and a record's
    track: Track,
    *,
    image_url: str | None,
    failure: str | None,
    position: int | None,
    expires_at: datetime | None,
    provider: str | None,
    model: str | None,
    extends_by_id: bool,
) -> Track:
    # Spelt out because every delivery does this four times, and `evolve` takes twice as long.
    return Track(
        id=track.id,
        title=track.title,
        audio_url=track.audio_url,
        stream_url=track.stream_url,
        wav_url=track.wav_url,
        image_url=image_url,
        duration=track.duration,
        tags=track.tags,
        prompt=track.prompt,
        lyrics=track.lyrics,
        timed_lyrics=track.timed_lyrics,
        model_name=track.model_name,
        source_audio_url=track.source_audio_url,
        source_stream_url=track.source_stream_url,
        source_image_url=track.source_image_url,
        created_at=track.created_at,
        expires_at=expires_at,
        failure=failure,
        position=position,
        provider=provider,
        model=model,
        extends_by_id=extends_by_id,
    )
