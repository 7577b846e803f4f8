"""What is known of the tracks: sightings of one track are merged, and the tracks put in order.

Sightings belong together by the track's id; one without an id belongs to every id that showed the same audio URL, else
the URL is its key. For each field the best value wins: higher claimed stage, then a value over none, then status over
webhook, then later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter

import attrs

from audioext.models.record import Asked, Seen, Sighting
from audioext.models.results import Track

SEEN_RANK: dict[Seen, int] = {"answer": 0, "webhook": 1, "poll": 2}
"""Whose word counts more where two differ: a status call is asked over our own connection."""

_OURS = {"id", "provider", "model", "extends_by_id", "expires_at"}
_FACTS: tuple[str, ...] = tuple(attribute.name for attribute in attrs.fields(Track) if attribute.name not in _OURS)
_facts = attrgetter(*_FACTS)


def tracks_of(
    asked: Asked, sightings: Sequence[Sighting], *, track_ids: Sequence[str] = (), cover_url: str | None = None
) -> tuple[Track, ...]:
    """Return the tracks that *sightings* show, in the order of *track_ids*, then of their positions, then by key."""
    if not sightings:
        return ()
    expires_at = None
    if asked.retention is not None:
        shown = [sighting.at for sighting in sightings if sighting.track.audio_url is not None]
        expires_at = moment(min(shown) + asked.retention) if shown else None
    tracks = [_merge(asked, group, expires_at, cover_url) for group in groups(sightings)]
    if len(tracks) > 1:
        places = {id_: place for place, id_ in enumerate(track_ids)}
        tracks.sort(key=partial(_order, places))
    for place, track in enumerate(tracks, 1):
        if track.position is None:
            tracks[place - 1] = attrs.evolve(track, position=place)
    return tuple(tracks)


def _order(places: Mapping[str, int], track: Track) -> tuple[int, float, str, str]:
    position = track.position if track.position is not None else math.inf
    return (places.get(track.id or "", len(places)), position, track.id or "", track.audio_url or "")


def groups(sightings: Iterable[Sighting]) -> list[list[Sighting]]:
    """Return the sightings of each track together, in the order in which they were given."""
    by_id: dict[str, list[Sighting]] = {}
    nameless: list[Sighting] = []
    for sighting in sightings:
        if sighting.track.id is not None:
            by_id.setdefault(sighting.track.id, []).append(sighting)
        else:
            nameless.append(sighting)
    if not nameless:
        return list(by_id.values())
    owners: dict[str, set[str]] = {}
    for id_, group in by_id.items():
        for sighting in group:
            if sighting.track.audio_url is not None:
                owners.setdefault(sighting.track.audio_url, set()).add(id_)
    by_url: dict[str, list[Sighting]] = {}
    for sighting in nameless:
        url = sighting.track.audio_url or ""
        # Where several ids showed one URL it belongs to each: taking it from one would erase what that knew.
        for id_ in sorted(owners.get(url, ())):
            by_id[id_].append(sighting)
        if url not in owners:
            by_url.setdefault(url or sighting.track.stream_url or "", []).append(sighting)
    return [*by_id.values(), *by_url.values()]


def moment(at: float) -> datetime:
    """Return Unix seconds as a tz-aware time."""
    return datetime.fromtimestamp(at, UTC)


def _merge(asked: Asked, group: Sequence[Sighting], expires_at: datetime | None, cover_url: str | None) -> Track:
    best, *others = group if len(group) == 1 else sorted(group, key=_rank)[::-1]
    values: dict[str, object] = dict(zip(_FACTS, _facts(best.track), strict=True))
    values["position"] = values["position"] or best.position or None
    for sighting in others:
        for name, value in zip(_FACTS, _facts(sighting.track), strict=True):
            if value is not None and not values[name]:
                values[name] = value
        if sighting.position and not values["position"]:
            values["position"] = sighting.position
    if values["audio_url"] is not None:
        values["failure"] = None
        values["expires_at"] = expires_at
    if cover_url is not None and values["image_url"] is None:
        values["image_url"] = cover_url
    return Track(
        **values,  # type: ignore[arg-type]  # each is a value of the same field
        id=best.track.id or next((other.track.id for other in others if other.track.id is not None), None),
        provider=asked.provider,
        model=asked.model,
        extends_by_id=asked.extends_by_id,
    )


def _rank(sighting: Sighting) -> tuple[int, int, float]:
    return (sighting.claimed or 0, SEEN_RANK[sighting.seen], sighting.at)
