"""What MusicGPT's status answers and partial webhooks mean: tracks under numbered keys, timed lyrics and events.

https://docs.musicgpt.com/api-documentation/endpoint/getById and index/webhook, read 2026-11-21. No page shows a
webhook of an extension: the shapes of the parts are those that several handlers of live traffic read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from attrs import define, evolve

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, link, number, parse_json, plain_keys, text
from audioext.http.messages import excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._answers import LONGEST_MESSAGE, NO_IDS
from audioext.providers._body import Body
from audioext.providers._tracks import AUDIO_KEYS, SHOWING, read_track
from audioext.providers._words import CONTENT_WORDS, said

POSITIONS = (1, 2)
_USUAL_LAYERS = 2  # objects in a body
_SHARED = frozenset({"title", "musicstyle", "createdat"})  # one for both tracks where they are not numbered
_COVER_KEYS = ("imagepath", "albumcoverpath", "imageurl", "coverurl")
_KNOWN_KEYS = SHOWING | {*_COVER_KEYS, "lyrics", "lyricstimestamped"}
_SIDE_WORDS = ("COVER", "IMAGE", "LYRIC")
"""In a `subtype` or `conversion_type`, they tell of parts that are not the music: there is a song without them."""


@define
class _Part:
    """What one body says: `raw` and `keys` are its objects in one, the inner ones' keys going before."""

    body: Body
    raw: dict[str, object]
    keys: dict[str, object]

    @classmethod
    def read(cls, value: object, where: str) -> _Part:
        """Read a status answer, which is wrapped in `conversion`, or a webhook; some of these are as well."""
        body = Body(value, where, finds_tracks=False)
        raw = {key: item for layer, _ in body.layers for key, item in layer.items() if item is not None}
        return cls(body, raw, plain_keys(raw))

    @property
    def is_complete(self) -> bool:
        """Whether its word says so."""
        return self.body.word.stage is Stage.COMPLETE

    @property
    def has_audio(self) -> bool:
        """Whether it has a key for a file, though the file may not be there yet."""
        return not AUDIO_KEYS.isdisjoint(self.keys)

    @functools.cached_property
    def track_id(self) -> str | None:
        """The one track that it is about."""
        return _track_id(self.keys.get("conversionid"))

    @property
    def is_side(self) -> bool:
        """Whether it is about a cover or lyrics."""
        kinds = f"{self.keys.get('subtype')} {self.keys.get('conversiontype')}".upper()
        return any(word in kinds for word in _SIDE_WORDS) or (not self.has_audio and self.is_known)

    @property
    def is_known(self) -> bool:
        """Whether it holds anything of a song."""
        return not _KNOWN_KEYS.isdisjoint(self.keys)

    @property
    def says_no(self) -> bool:
        """Whether it tells of a failure, in a word or by `success`."""
        return self.body.says_no or self.body.word.fails

    @property
    def cover_url(self) -> str | None:
        """The cover: `image_path` in its own webhook, `album_cover_path` elsewhere."""
        return next((found for key in _COVER_KEYS if (found := link(self.keys.get(key)))), None)

    @property
    def cost(self) -> float | None:
        """What the task cost; beside a track's id it is that of one track."""
        return number(self.keys.get("conversioncost")) if self.track_id is None else None

    def numbered(self, position: int) -> dict[str, object]:
        """Return what stands under keys that end in a number, without it."""
        ends = str(position)
        return {key[:-1].rstrip("_"): item for key, item in self.raw.items() if key.endswith(ends)}

    def tracks(self, *, claims: bool) -> tuple[Track, ...]:
        """Return the tracks under numbered keys, else the one under plain keys; positions are the wire's numbers.

        A track that shows nothing but its id is left out, and so is a path that is a bare bucket root, which was seen
        before a file exists; last come tracks in lists, as at other vendors. Raises DecodeError if it *claims* a file,
        and the only links cannot be read.
        """
        problems: list[str] = []
        found: list[Track] = []
        path = self.body.layers[-1][1]
        for position in POSITIONS:
            numbered = self.numbered(position)
            if numbered:
                shared = {name: self.keys[name] for name in _SHARED.intersection(self.keys)}
                wrong: list[str] = []
                found += _shown(read_track({**shared, **numbered}, wrong, path, position=position))
                problems += [f"{problem}_{position}" for problem in wrong]
        if not any(track.audio_url for track in found):
            own = {key: item for key, item in self.raw.items() if key != "id"}  # the task's, if anything's
            plain = [track for track in _shown(read_track(own, problems, path)) if track.audio_url or not found]
            if len(self.body.layers) > _USUAL_LAYERS or not plain:
                listed = [track for track in self.body.find_tracks() if track.audio_url]
                plain = listed if len(listed) > len(plain) else plain
            found += plain
        if claims and problems and not any(track.audio_url for track in found):
            raise DecodeError(problems[:MAX_PATHS], where=self.body.where)
        return tuple(found)

    def failure(self) -> Failed:
        """Return the failure that it tells; the keys of its text are those that handlers of live traffic read."""
        texts = ("reason", "statusmsg", "error", "errormessage", "message", "detail")
        message = said(self.keys, texts) or self.body.word.raw or "no reason was given"
        flagged = str(self.keys.get("isflagged")).lower() in {"true", "1"} or CONTENT_WORDS.search(message)
        return Failed(
            task_id=self.body.task_id,
            reason=FailureReason.CONTENT if flagged else FailureReason.UNKNOWN,
            code=self.body.word.raw or None,
            message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        )


def conversion_events(value: object) -> tuple[Event, ...]:
    """Return what a status answer means; nothing, if it speaks of no task. Raises DecodeError.

    An unknown status word is kept: the task counts as running until the caller's own deadline.
    """
    part = _Part.read(value, "the status")
    body, word = part.body, part.body.word
    tracks = part.tracks(claims=part.is_complete)
    # With the id of one track and no numbered ones, as the page has it, the word is about that one.
    claims = part.is_complete and (part.track_id is None or any(track.position for track in tracks))
    if not (body.task_id or word.name or tracks):
        return ()
    seen = Progress(
        task_id=body.task_id,
        claimed_stage=Stage.COMPLETE if claims else None,
        tracks=tracks,
        cover_url=part.cover_url,
        credits=number(part.keys.get("conversioncost")),
        word=word.unknown,
    )
    if not word.fails:
        return (seen,)
    failed = part.failure()
    if part.track_id is not None and not any(track.audio_url for track in tracks):
        # Asked about one track, the answer may be about that one alone; the job may have another.
        tracks = tuple(evolve(track, failure=failed.message) for track in tracks or (Track(id=part.track_id),))
        return (evolve(seen, tracks=tracks), failed)
    if not any(track.audio_url for track in tracks):
        bare = seen.cover_url is None and seen.credits is None
        return (failed,) if bare else (evolve(seen, tracks=()), failed)
    # The job fails only if all tracks do, so those that did not come about are shown one by one.
    ids = {position: _track_id(part.keys.get(f"conversionid{position}")) for position in POSITIONS}
    shown = {track.id for track in tracks}
    missing = (Track(id=id_, position=position) for position, id_ in ids.items() if id_ and id_ not in shown)
    judged = (track if track.audio_url else evolve(track, failure=failed.message) for track in (*tracks, *missing))
    return (evolve(seen, tracks=tuple(judged)), failed)


def part_events(data: bytes) -> tuple[Event, ...]:
    """Return what a webhook means: one part of at most five, or of more with streams, in any order.

    A part is recognised by what it holds, since no page says what `conversion_type` and `subtype` are for an
    extension. What is not recognised makes a status call due. Raises WebhookError (400) for what is no delivery of this
    API or contradicts itself, and DecodeError.
    """
    where = "the webhook"
    part = _Part.read(parse_json(data, where=where), where)
    body = part.body
    if "event" in part.keys and not part.is_known:
        # {"event": "conversion.completed", "output_url": ...} of the vendor's n8n page: live traffic never had it.
        message = "the delivery is an event of another kind"
        raise WebhookError(message, http_status=400)
    if len(body.task_ids) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if part.says_no:
        return _failing_part(part)
    # With a track's id the word is about that one, in a cover or lyrics about these.
    claims = part.is_complete and part.track_id is None and not part.is_side
    tracks = part.tracks(claims=claims or part.has_audio)
    if not (part.is_known or body.word.name or body.task_id or tracks):
        raise DecodeError(["required field missing @ $.task_id"], where=where)
    unknown, ask_now = _unclear(part, audible=any(track.audio_url for track in tracks))
    return (
        Progress(
            task_id=body.task_id,
            claimed_stage=Stage.COMPLETE if claims else None,
            tracks=tracks,
            cover_url=part.cover_url,
            credits=part.cost,
            word=unknown,
            ask_now=ask_now,
        ),
    )


def _unclear(part: _Part, *, audible: bool) -> tuple[str | None, bool]:
    """Return the word that is not known in a webhook, and whether a status call has to tell what it means."""
    word = part.body.word
    if word.unknown is not None:
        return word.unknown, True
    if word.runs or part.is_side:
        return None, False
    if part.is_complete or part.has_audio or audible:
        return None, not audible
    subtype = part.keys.get("subtype")
    return (subtype or None) if isinstance(subtype, str) else None, True


def _failing_part(part: _Part) -> tuple[Event, ...]:
    task_id = part.body.task_id
    if part.is_side and not part.has_audio:
        # A cover or lyrics that did not come about are no reason to give the music up.
        return (Progress(task_id=task_id, ask_now=True),)
    tracks, failed = part.tracks(claims=False), part.failure()
    if part.track_id is not None:
        known = next((track for track in tracks if track.id == part.track_id), Track(id=part.track_id))
        return (Progress(task_id=task_id, tracks=(evolve(known, failure=failed.message),)),)
    return (Progress(task_id=task_id, tracks=tracks), failed) if tracks else (failed,)


def _track_id(value: object) -> str | None:
    found = text(value)
    return None if found is None or found in NO_IDS else found


def _shown(track: Track) -> Iterator[Track]:
    if track.id in NO_IDS:
        track = evolve(track, id=None)
    if any((track.audio_url, track.stream_url, track.lyrics, track.timed_lyrics)):
        yield track
