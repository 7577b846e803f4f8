"""MusicGPT: https://docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21.

Multipart forms with or without a file, a raw key, numbered keys in status answers, and up to five partial webhooks in
any order. Of our operations it only extends audio from a URL or a file. No page shows a webhook of an extension: the
shapes of the parts are those that several handlers of live traffic read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import ClassVar

from attrs import evolve, frozen
from msgspec.structs import replace
from yarl import URL

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, link, number
from audioext.http.messages import HttpRequest, HttpResponse, Part, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.limits import Limits
from audioext.models.record import Record
from audioext.models.requests import Operation, Request
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._account import DAY_SECONDS, HostedAccount, Vendor, file_part
from audioext.providers._answers import HTTP_CODES, NO_ID, OK, Code, CodeTable, id_of_track
from audioext.providers._body import Body
from audioext.providers._fields import FieldRules, wire_names, wire_values
from audioext.providers._tracks import AUDIO_KEYS, TRACK_KEYS, apart, beside, read_track
from audioext.providers._words import CONTENT_WORDS, LONGEST_MESSAGE
from audioext.providers.base import FileRoute

FORM_NAMES = wire_names(url="audio_url", continue_at="extend_after", vocal_gender="gender")

RULES = FieldRules(
    wire_name="musicgpt",
    upload_needs_continue_at=True,
    # docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21. The prompt's 280 is from the vendor's n8n
    # node and a live client, but on no page.
    lengths={Operation.UPLOAD_EXTEND: {"lyrics": 2000, "lyrics_section_to_extend": 3000, "prompt": 280}},
    stated_lengths=frozenset({"lyrics", "lyrics_section_to_extend"}),
)


@frozen
class MusicGpt(HostedAccount):
    """MusicGPT's extend call, where a track is extended by its audio URL; `Kie` describes the settings that both have.

    `limits` defaults to the free plan, one unfinished job at a time: set `Limits(parallel=5)` on Plus and
    `Limits(parallel=10)` on Pro.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor] = Vendor(
        rules=RULES,
        key_variable="MUSICGPT_API_KEY",
        base_url=URL("https://api.musicgpt.com/api/public/v1"),
        file_route=FileRoute.INLINE,
        # HTTP's meanings: docs.musicgpt.com/api-documentation/utilities/error, read 2026-11-21. 401 and 413 are not on
        # it: both of the vendor's packages map 401, and proxies answer 413 to a file that is too big. A 422's body is
        # on no page: `detail` is from the vendor's web framework.
        table=CodeTable(
            codes={**HTTP_CODES, 400: Code()},
            http_refusals=frozenset({400, *HTTP_CODES}),
            text_keys=("detail", "message", "error", "msg", "reason", "statusmsg"),
        ),
        status_path="/byId",
        # "not both" ids; either one returns both tracks: endpoint/getById, read 2026-11-21
        status_query={"conversionType": "EXTEND"},
        auth="",  # the raw key: docs.musicgpt.com/api-documentation/index/authentication, read 2026-11-21
        # Free 1, Plus 5, Pro 10: docs.musicgpt.com/api-documentation/utilities/ratelimits, read 2026-11-21
        limits=Limits(parallel=1),
        extends_by_id=False,
        counts_tracks=True,
        retention=90 * DAY_SECONDS,  # MP3 files; WAV 7 days: docs.musicgpt.com/…/index/changelog, read 2026-11-21
    )

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that creates the task; `webhook_url` is optional, and a file goes into the form."""
        values = wire_values(request, {}, names=FORM_NAMES, rules=RULES)
        parts = [Part(name=name, value=_form_text(value)) for name, value in values.items()]
        if callback is not None:
            parts.append(Part(name="webhook_url", value=str(callback)))
        if request.path is not None:
            # Last, so that a server that reads the body as a stream has the texts by then.
            parts.append(file_part("audio_file", request.path, filename=request.path.name))
        return self.post("/extend", parts)

    def named(self, record: Record) -> Mapping[str, str]:
        """Return the id of *record*'s task or, once one track has arrived or failed, that of the missing track.

        Live answers have both tracks for either id; the page's examples have one.
        """
        settled = {track.id for track in record.tracks if track.audio_url or track.failure}
        missing = next((id_ for id_ in record.track_ids if id_ not in settled), None)
        if missing is None or not settled:
            return super().named(record)
        return {"conversion_id": missing}

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return the events in a byId answer, with the page's keys or the numbered keys that live clients read."""
        answer = self.answers.parse_any(response)
        if answer.code == OK or answer.is_about_task():
            events = _status_events(Conversion(answer.layers[0][0], "the status"), doubts=answer.code != OK)
            if events:
                return events
            if answer.outer.get("conversion"):
                raise DecodeError(["expected an object @ $.conversion"], where="the status")
        if not answer.is_good:
            raise answer.error()
        raise answer.no_task()

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return the events in a webhook: one part of up to five, or more with streams, in any order.

        A part is recognised by its keys, since no page says what `conversion_type` and `subtype` are for an extension.
        An unrecognised part asks for a status call.
        """
        part = Conversion.delivered(body)
        if "event" in part.keys and not (part.is_known or len(part.layers) > 1):
            # {"event": "conversion.completed", "output_url": ...} is on the vendor's n8n page, and never seen live.
            raise WebhookError("the webhook is an event of another kind", http_status=400)
        if part.says_no or part.word.fails:
            return _failing_part(part)
        # Beside a track's id the status is that track's, and in a cover or lyrics part it is that part's.
        claims = part.is_complete and part.track_id is None and not part.is_side
        tracks = part.read_tracks(claims=claims or part.has_audio)
        if not (part.is_known or part.word.name or part.task_id or tracks):
            raise DecodeError(["required field missing @ $.task_id"], where=part.where)
        unknown, ask_now = _unclear(part, audible=any(track.audio_url for track in tracks))
        # Files without a track's id are not counted: only a status call tells whether they are all.
        ask_now = ask_now or any(track.audio_url and track.id is None for track in tracks)
        return (
            Progress(
                task_id=part.task_id,
                claimed_stage=Stage.COMPLETE if claims else None,
                tracks=tracks,
                cover_url=part.cover_url,
                credits=part.cost if part.track_id is None else None,  # beside a track's id it is that track's cost
                word=unknown,
                ask_now=ask_now,
            ),
        )


def _form_text(value: object) -> str:
    """Return *value* as form text: `true` or `false`, and numbers without an exponent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{Decimal(str(value)):f}"
    return str(value)


# --- parsing bodies --------------------------------------------------------------------------------------------------

POSITIONS = (1, 2)
_USUAL_LAYERS = 2  # nested objects in a body
_SHARED = frozenset({"title", "musicstyle", "createdat"})  # without a number they are for both tracks
_COVER_KEYS = ("imagepath", "albumcoverpath", "imageurl", "coverurl")  # the cover's own webhook has the first
_KNOWN_KEYS = TRACK_KEYS | {*_COVER_KEYS, "lyrics", "lyricstimestamped"}
_SIDE_WORDS = ("COVER", "IMAGE", "LYRIC", "ARTWORK", "ALBUM", "THUMBNAIL", "TIMESTAMP", "STREAM")
"""In a `subtype` or `conversion_type`, they mark parts that are not the music: there is a song without them.

Handlers of live traffic have seen "Lyrics", "Image" and "Album Cover", and the vendor's changelog (read 2026-11-21)
names parts with a streaming link; the others are guesses, and so is the `type` of a failed part.
"""
_FAILURE_KEYS = ("reason", "statusmsg", "error", "errormessage", "message", "detail")  # from handlers of live traffic


class Conversion(Body):
    """A parsed status answer, which is wrapped in `conversion`, or a webhook, which may be wrapped.

    `raw` and `keys` merge its nested objects, where inner keys override outer ones. `track_id` is set if it is about
    one track. `has_audio` says that it has a key for a file, which may still be empty, `is_known` that it has any key
    of a song, `is_side` that it is about a cover or lyrics.
    """

    def __init__(self, value: object, where: str) -> None:
        """Merge the keys of all nested objects."""
        super().__init__(value, where)
        self.raw = {key.strip(): item for layer, _ in self.layers for key, item in layer.items() if item is not None}
        keys = self.keys
        self.track_id = id_of_track(keys.get("conversionid"))
        self.is_complete = self.word.stage is Stage.COMPLETE
        self.has_audio = not AUDIO_KEYS.isdisjoint(keys)
        self.is_known = not _KNOWN_KEYS.isdisjoint(keys)
        kinds = f"{keys.get('subtype')} {keys.get('conversiontype')}".upper()
        kinds += str(keys.get("type")).upper() if self.says_no or self.word.fails else ""
        self.is_side = any(word in kinds for word in _SIDE_WORDS) or (not self.has_audio and self.is_known)
        self.cover_url = next((found for key in _COVER_KEYS if key in keys and (found := link(keys[key]))), None)
        self.cost = number(keys.get("conversioncost"))

    def read_tracks(self, *, claims: bool) -> tuple[Track, ...]:
        """Return the tracks under numbered keys, else the one under keys without a number, else those in lists.

        Raises DecodeError if it *claims* to have a file, and no link can be read.
        """
        problems: list[str] = []
        found: list[Track] = []
        path = self.layers[-1][1]
        for position in POSITIONS:
            ends, wrong = str(position), list[str]()
            numbered = {key[:-1].rstrip("_- "): item for key, item in self.raw.items() if key.endswith(ends)}
            if numbered:
                shared = {name: self.keys[name] for name in _SHARED.intersection(self.keys)}
                found += _shown(read_track({**shared, **numbered}, wrong, path, position=position))
                problems += [f"{problem}_{position}" for problem in wrong]
        if not any(track.audio_url for track in found):
            own = {key: item for key, item in self.raw.items() if key != "id"}  # an `id` would be the task's
            shown = [track for track in _shown(read_track(own, problems, path)) if track.audio_url or not found]
            plain = [each for track in shown for each in (track, *beside(track, own))]
            if len(self.layers) > _USUAL_LAYERS or not plain:
                listed = [track for track in self.tracks if track.audio_url]
                plain = listed if len(listed) > len(plain) else plain
            found += plain
        if claims and problems and not any(track.audio_url for track in found):
            raise DecodeError(problems[:MAX_PATHS], where=self.where)
        return tuple(apart(found))

    def failure(self) -> Failed:
        """Return this body as a failure of the task."""
        message = self.says(_FAILURE_KEYS) or self.word.raw or "no reason was given"
        flagged = str(self.keys.get("isflagged")).lower() in {"true", "1"} or CONTENT_WORDS.search(message)
        return Failed(
            task_id=self.task_id,
            reason=FailureReason.CONTENT if flagged else FailureReason.UNKNOWN,
            code=self.word.raw or None,
            message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        )


def _status_events(seen: Conversion, *, doubts: bool = False) -> tuple[Event, ...]:
    # https://docs.musicgpt.com/api-documentation/endpoint/getById, read 2026-11-21. No events if it is about no task.
    tracks = seen.read_tracks(claims=seen.is_complete)
    # With one track's id and no numbered tracks, as on the page, the status may be only that track's.
    is_whole = seen.track_id is None or any(track.position for track in tracks)
    if not (seen.task_id or seen.word.name or tracks):
        return ()
    shown = Progress(
        task_id=seen.task_id,
        claimed_stage=Stage.COMPLETE if seen.is_complete else None,
        is_doubtful=seen.is_complete and not is_whole,
        tracks=tracks,
        cover_url=seen.cover_url,
        credits=seen.cost,
        word=seen.word.unknown,
    )
    if not seen.word.fails:
        return (shown,)
    failed = evolve(seen.failure(), is_doubtful=doubts or seen.may_be_of_call or not is_whole)
    audible = any(track.audio_url for track in tracks)
    if seen.track_id is not None and not audible:
        # The answer may be only about this track; the job may have another.
        tracks = tracks or (Track(id=seen.track_id),)
    elif not audible:
        bare = seen.cover_url is None and seen.cost is None
        return (failed,) if bare else (replace(shown, tracks=()), failed)
    else:
        # The job fails only if all tracks do, so each missing track gets a failure of its own.
        ids = {position: id_of_track(seen.keys.get(f"conversionid{position}")) for position in POSITIONS}
        known = {track.id for track in tracks}
        tracks += tuple(Track(id=id_, position=at) for at, id_ in ids.items() if id_ and id_ not in known)
    judged = (track if track.audio_url else evolve(track, failure=failed.message) for track in tracks)
    return (replace(shown, tracks=tuple(judged), reason=failed.reason), failed)


def _unclear(part: Conversion, *, audible: bool) -> tuple[str | None, bool]:
    """Return the unknown word of a webhook, if any, and whether it needs a status call to be understood."""
    if part.word.unknown is not None:
        return part.word.unknown, True
    if part.word.runs or part.is_side:
        return None, False
    if part.is_complete or part.has_audio or audible:
        return None, not audible
    subtype = part.keys.get("subtype")
    return (subtype or None) if isinstance(subtype, str) else None, True


def _failing_part(part: Conversion) -> tuple[Event, ...]:
    if part.is_side and not part.has_audio:
        # A failed cover or failed lyrics do not mean that the music failed.
        return (Progress(task_id=part.task_id, ask_now=True),)
    tracks, failed = part.read_tracks(claims=False), part.failure()
    if part.track_id is not None:
        known = next((track for track in tracks if track.id == part.track_id), Track(id=part.track_id))
        track = evolve(known, failure=failed.message)
        return (Progress(task_id=part.task_id, tracks=(track,), reason=failed.reason),)
    return (Progress(task_id=part.task_id, tracks=tracks), failed) if tracks else (failed,)


def _shown(track: Track) -> Iterator[Track]:
    if track.id == NO_ID:
        track = evolve(track, id=None)
    if any((track.audio_url, track.stream_url, track.lyrics, track.timed_lyrics)):
        yield track
