"""Merge the sightings of a job into ordered tracks, and build stages and songs from them.

Sightings are grouped by track id. One without an id joins every id that showed the same audio URL; if there is none,
the URL is its key. A URL that ends in an audio suffix is compared without its query, since links are signed anew. For
each field the best sighting with a value wins: the highest claimed stage, then status over webhook, then the latest.
A WAV link is the `audio_url` only if no other file was shown.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import evolve
from yarl import URL

from audioext.http.messages import AUDIO_TYPES
from audioext.models.record import Asked, Reached, Record, Seen, Sighting, Verdict
from audioext.models.requests import Request
from audioext.models.results import Files, Song, Stage, Track, build_tracks, fetched_by

SEEN_RANK: dict[Seen, int] = {"answer": 0, "webhook": 1, "poll": 2}
"""Which sighting wins if two differ: a status answer comes over a connection that we opened ourselves."""

moment = partial(datetime.fromtimestamp, tz=UTC)
"""Convert Unix seconds to a timezone-aware UTC datetime."""
_AUDIO_SUFFIXES = tuple(AUDIO_TYPES)
_AUDIO_URL = operator.attrgetter("audio_url")


def tracks_of(
    asked: Asked,
    sightings: Sequence[Sighting],
    *,
    track_ids: Sequence[str] = (),
    cover_url: str | None = None,
    complete_at: float = math.inf,
) -> tuple[Track, ...]:
    """Merge *sightings* into tracks, ordered by *track_ids* (without an id by position), then position, id and URL.

    A webhook after *complete_at* only fills in missing fields.
    """
    if not sightings:
        return ()
    found = groups(sightings)
    if len(found) > asked.expected_tracks:
        found = _limit_tracks(found, asked.expected_tracks, track_ids)
    tracks = _merged(found, complete_at)
    is_in_order = not track_ids
    for place, facts in enumerate(tracks, 1):
        is_in_order &= facts["position"] == place
    if not is_in_order:
        places: dict[str | None, int] = {id_: place for place, id_ in enumerate(track_ids, 1)}
        last = len(places) + 1
        # A track whose id could not be read still has its number: it must not change places with the other.
        tracks.sort(
            key=lambda facts: (
                places.get(facts["id"], last) if facts["id"] else facts["position"] or last,
                *_order(facts),
            )
        )
    expires_at = None
    for seen in sightings:  # the earliest first
        if asked.retention is not None and seen.track.audio_url is not None:
            expires_at = moment(seen.at + asked.retention)
            break
    for place, facts in enumerate(tracks, 1):
        facts["provider"] = asked.provider
        facts["model"] = asked.model
        facts["extends_by_id"] = asked.extends_by_id
        facts["image_url"] = facts["image_url"] or cover_url
        facts["position"] = facts["position"] or place
        if facts["audio_url"] is not None:
            facts["failure"] = None
            facts["expires_at"] = expires_at
    return build_tracks(tracks)


def results(tracks: tuple[Track, ...], request: Request) -> tuple[Track, ...]:
    """Return *tracks* without links to the source of *request*: an answer may repeat it, under any key."""
    if request.url is None or not tracks:
        return tracks
    source = request.url
    path = source.partition("?")[0]
    for track in tracks:
        if track.audio_url is not None and track.audio_url.startswith(path):
            break
    else:
        return tracks
    own = (_without(track, source) for track in tracks)
    return tuple(track for track in own if track.id or track.audio_url or track.stream_url)


def _is_source(url: str, source: str) -> bool:
    """Say whether *url* is *source*, also without its query; with another query it may be another file."""
    return url == source or (_file_key(url) == _file_key(source) and not ("?" in url and "?" in source))


def _without(track: Track, source: str) -> Track:
    """Return *track* without links to *source*."""
    if track.audio_url is None or not _is_source(track.audio_url, source):
        return track
    wav_url = None if track.wav_url is None or _is_source(track.wav_url, source) else track.wav_url
    return evolve(track, audio_url=wav_url, wav_url=wav_url)


def stage_reached(record: Record, stage: Stage) -> tuple[Reached, tuple[Track, ...]] | None:
    """Return when *stage* was reached and the tracks known at that time, or `None` if it was not reached."""
    reached = next((item for item in record.reached if item.stage is stage), None)
    if reached is None:
        return None
    known = [sighting for sighting in record.sightings if sighting.at <= reached.at]
    return reached, tracks_of(record.asked, known, track_ids=record.track_ids, cover_url=record.cover_url)


def song_of(record: Record, files: Files | None = None) -> Song | None:
    """Return the song of a complete job, with only its playable tracks, or `None` if it is not complete.

    *files* downloads the tracks' files.
    """
    if record.verdict is not Verdict.COMPLETE:
        return None
    request = record.asked.request
    source = request.file.name if isinstance(request.file, Path) else URL(request.url).name if request.url else ""
    return Song(
        ref=record.ref,
        provider=record.asked.provider,
        task_id=record.task_id,
        tracks=fetched_by(files, filter(_AUDIO_URL, record.tracks)),
        credits=record.credits,
        meta=record.meta,
        source_name=PurePosixPath(source).stem or None if source else None,
        files=files,
    )


def groups(sightings: Iterable[Sighting]) -> list[list[Sighting]]:
    """Group *sightings* by track, keeping their order."""
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
                owners.setdefault(_file_key(sighting.track.audio_url), set()).add(id_)
    by_url: dict[str, list[Sighting]] = {}
    for sighting in nameless:
        url = _file_key(sighting.track.audio_url or "")
        # If several ids showed one URL, all of them get the sighting: none may lose what it showed.
        for id_ in sorted(owners.get(url, ())):
            by_id[id_].append(sighting)
        if url not in owners:
            by_url.setdefault(url or sighting.track.stream_url or "", []).append(sighting)
    return [*by_id.values(), *by_url.values()]


def _file_key(url: str) -> str:
    path = url.partition("?")[0]
    return path if path.lower().endswith(_AUDIO_SUFFIXES) else url


def _is_final(seen: Sighting) -> bool:
    return seen.seen == "poll" and seen.claimed is Stage.COMPLETE and seen.track.audio_url is not None


def _limit_tracks(found: list[list[Sighting]], expected: int, track_ids: Sequence[str]) -> list[list[Sighting]]:
    """Return the tracks that the API itself showed, and the best from webhooks, up to *expected* playable tracks.

    Otherwise anyone who knows the callback URL could add tracks. What the API showed without audio does not count
    towards *expected*: an answer may list ids, and a later webhook the files without ids, or under other ids. If the
    last status answer that claims COMPLETE shows enough tracks, all others are earlier names of theirs.
    """
    last = max((seen.at for group in found for seen in group if _is_final(seen)), default=None)
    final = [group for group in found if any(_is_final(seen) and seen.at == last for seen in group)]
    if len(final) >= expected:
        return final
    shown = [
        any(seen.seen != "webhook" for seen in group) or any(seen.track.id in track_ids for seen in group)
        for group in found
    ]
    mute = [all(seen.track.audio_url is None for seen in group) for group in found]
    room = max(0, expected - sum(map(operator.gt, shown, mute)))
    others = [number for number, is_shown in enumerate(shown) if not is_shown]
    others.sort(key=lambda each: (mute[each], -max(seen.claimed or 0 for seen in found[each]), found[each][0].at))
    kept = set(others[:room])
    return [group for number, group in enumerate(found) if shown[number] or number in kept]


def _merged(found: Sequence[list[Sighting]], complete_at: float) -> list[dict[str, Any]]:
    """Return the fields of each track's best sighting, with missing ones filled in from the others."""
    tracks: list[dict[str, Any]] = []
    for group in found:
        if len(group) > 1:
            group.sort(key=lambda seen: _rank(seen, complete_at), reverse=True)
        best, *others = group
        facts = vars(best.track).copy()
        tracks.append(facts)
        facts["position"] = facts["position"] or best.position
        missing = [name for name, value in facts.items() if not value] if others else ()
        for other in others:
            known = vars(other.track)
            for name in missing:
                if not facts[name] and known.get(name) is not None:
                    facts[name] = known[name]
            facts["position"] = facts["position"] or other.position
            is_wav, is_known_wav = facts["audio_url"] == facts["wav_url"], known["audio_url"] == known["wav_url"]
            if is_wav and not is_known_wav and known["audio_url"] and _rank(other, complete_at)[0]:
                facts["audio_url"] = known["audio_url"]
    return tracks


def _order(facts: Mapping[str, Any]) -> tuple[float, str, str]:
    return (facts["position"] or math.inf, facts["id"] or "", facts["audio_url"] or "")


def _rank(sighting: Sighting, complete_at: float) -> tuple[bool, int, int, float]:
    is_late = sighting.seen == "webhook" and sighting.at > complete_at
    return (not is_late, sighting.claimed or 0, SEEN_RANK[sighting.seen], sighting.at)
