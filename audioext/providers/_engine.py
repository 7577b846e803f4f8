"""What the resellers of the Suno engine share: how they speak of a task, and an account at one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec
from attrs import field, frozen
from msgspec import Struct
from yarl import URL

from audioext.errors import DecodeError
from audioext.http.decoding import MAX_ID_LENGTH, MAX_PATHS, are_plain_links, link, moment, number, plain_keys
from audioext.http.messages import HttpRequest, HttpResponse, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._account import HostedAccount, Vendor
from audioext.providers._answers import HTTP_ERROR_FROM, OK
from audioext.providers._body import Body
from audioext.providers._words import CONTENT_WORDS, LONGEST_MESSAGE

_NO_CALLBACK = "the provider's callback failed, and its status shows no track"
_SAY_NOTHING = frozenset({"", "FAIL", "FAILED", "ERROR"})
_REFUNDED = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SUCCESS_CODES = frozenset({None, "0", *map(str, range(200, 300))})


@frozen(kw_only=True)
class EngineVendor(Vendor):
    """The facts of a reseller of the engine, and how it speaks of its tasks.

    `reasons` are the failure codes that it lists; `failed_codes` are those of a status answer that fail the task, not
    the call. `judges_code` says whether an envelope's code may fail a task that a webhook shows with its status.
    `charged` is what a failed task costs; `None` where no page says. The balance is at `credits_path`. One with a file
    host has it at `upload_url`, for its API's own `hosts`.
    """

    credits_path: str
    reasons: Mapping[str, FailureReason] = field(factory=dict)
    failed_codes: frozenset[int] = frozenset()
    judges_code: bool = True
    charged: bool | None = None
    hosts: frozenset[str] = frozenset()
    upload_url: URL | None = None


@frozen
class EngineAccount(HostedAccount):
    """An account at a reseller of the engine."""

    vendor: ClassVar[EngineVendor]

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a status answer means, or raise ProviderError (it names no task, too) or DecodeError.

        A task that is named with its status is judged by that, whatever the code beside it says.
        """
        answer = self.answers.parse_any(response)
        try:
            seen = Body(answer.body, "the status")
        except DecodeError:
            if answer.is_good:
                raise
            raise self.answers.error(response, answer) from None
        named = seen.word.name and (seen.task_id is not None or response.status < HTTP_ERROR_FROM)
        if not answer.is_good and not named:
            if answer.has_code and answer.code in self.vendor.failed_codes:
                return (_failed(seen, self.vendor),)
            raise self.answers.error(response, answer)
        if seen.is_empty and not seen.problems:
            if answer.data in (None, ""):
                raise self.answers.no_task(response)
            raise DecodeError(["expected an object with a task @ $.data"], where=seen.where)
        return _events(seen, self.vendor, is_delivered=False)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return what a delivery means, or raise WebhookError (400) if its ids disagree, DecodeError if it is void.

        Most are as documented, and quickly read.
        """
        documented = documented_webhook(body)
        if documented is not None:
            return (documented,)
        seen = Body.delivered(body)
        if seen.is_empty and (seen.first("code") in _SUCCESS_CODES or not self.vendor.judges_code):
            raise DecodeError(seen.problems[:MAX_PATHS] or ["required field missing @ $.data"], where=seen.where)
        return _events(seen, self.vendor, is_delivered=True)

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        return self.get(self.vendor.credits_path)

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance, which `data` is (kie.ai, sunoapi.org) or holds (vidgo).

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        data = self.answers.parse_data(response, charged=False).data
        keys = plain_keys(data) or {"credits": data}
        found = number(next((keys[key] for key in ("creditsamount", "credits", "balance") if key in keys), None))
        if found is None:
            raise DecodeError(["expected a number @ $.data"])
        return found


def _events(seen: Body, vendor: EngineVendor, *, is_delivered: bool) -> tuple[Event, ...]:
    """Return what *seen* means; in a webhook an unclear word makes a status call due.

    A code of failure is not believed beside a known stage and its tracks: interim callbacks like that were seen.
    """
    word, stage, shown = seen.word, seen.word.stage, bool(seen.tracks)
    judges = vendor.judges_code or not word.name
    bad_code = judges and is_delivered and seen.first("code") not in _SUCCESS_CODES
    bad = bad_code or (seen.says_no and (is_delivered or not word.name))
    if word.complains:
        whole = shown and not is_delivered and all(track.audio_url for track in seen.tracks)
        # The pages only say that an error happened in the callback process. Without a track nothing may ever follow.
        if not (shown or is_delivered):
            return (_failed(seen, vendor, is_doubtful=True),)
        unclear = None if whole or is_delivered else word.name
        return (_progress(seen, Stage.COMPLETE if whole else None, unclear, ask_now=is_delivered),)
    if word.fails or (bad and not (stage and shown)):
        kept = (_progress(seen, None, None),) if shown or seen.credits is not None else ()
        return (*kept, _failed(seen, vendor))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=seen.where)
    unsure = word.unknown is not None or bad or not word.name
    return (_progress(seen, stage, word.unknown, ask_now=is_delivered and unsure),)


def _progress(seen: Body, stage: Stage | None, word: str | None, *, ask_now: bool = False) -> Progress:
    return Progress(
        task_id=seen.task_id,
        claimed_stage=stage,
        tracks=seen.tracks,
        credits=seen.credits,
        word=word,
        ask_now=ask_now,
    )


def _failed(seen: Body, vendor: EngineVendor, *, is_doubtful: bool = False) -> Failed:
    word = seen.word
    code, outer = seen.first("own code"), seen.first("code")
    code = code or (outer if outer not in _SUCCESS_CODES else None)
    said = (*seen.says(), *([_NO_CALLBACK] if is_doubtful else ()))
    message = " ".join(dict.fromkeys(said)) or word.raw or (f"code {code}" if code else "no words")
    made = "CREATE" in word.name or "GENERATE" in word.name
    reason = vendor.reasons.get(code or "", FailureReason.GENERATION if made else FailureReason.UNKNOWN)
    vague = reason in {FailureReason.GENERATION, FailureReason.UNKNOWN}
    if "SENSITIVE" in word.name or (vague and CONTENT_WORDS.search(message)):
        reason = FailureReason.CONTENT
    if code is None and word.name not in _SAY_NOTHING:
        code = word.raw
    return Failed(
        task_id=seen.task_id,
        reason=reason,
        code=code,
        message=excerpt(message.encode(), longest=LONGEST_MESSAGE),
        charged=False if code in _REFUNDED else vendor.charged,
        is_doubtful=is_doubtful,
    )


# --- documented webhooks ---------------------------------------------------------------------------------------------

MAX_DOCUMENTED_TRACKS = 8  # real webhooks show 1 or 2
_STAGES = {"text": Stage.TEXT, "first": Stage.FIRST, "complete": Stage.COMPLETE, "finished": Stage.COMPLETE}
_SONG_KEYS = {
    "stream_url": "stream_audio_url",
    "source_stream_url": "source_stream_audio_url",
    "created_at": "createTime",
}


class DocumentedSong(Struct, rename=_SONG_KEYS, forbid_unknown_fields=True):
    """A track of a webhook; its time is documented as a text and arrives as epoch milliseconds.

    One with another key holds more than the pages say, which the careful reader may know.
    """

    id: str = ""
    audio_id: str = ""
    audio_url: str | None = None
    stream_url: str | None = None
    image_url: str | None = None
    source_audio_url: str | None = None
    source_stream_url: str | None = None
    source_image_url: str | None = None
    prompt: str | None = None
    model_name: str | None = None
    title: str | None = None
    tags: str | None = None
    created_at: str | int | float | None = None
    duration: float | None = None
    file_type: str | None = None


class DocumentedTask(Struct, forbid_unknown_fields=True):
    """The `data` of a webhook: `callbackType` and `data` at kie.ai and sunoapi.org, `status` and `files` at vidgo."""

    task_id: str
    stage: str = msgspec.field(name="callbackType", default="")
    songs: list[DocumentedSong] = msgspec.field(name="data", default_factory=list)
    status: str = ""
    files: list[DocumentedSong] = msgspec.field(default_factory=list)
    created_time: str | None = None
    error_message: str | None = None
    other_id: str | None = msgspec.field(name="taskId", default=None)


class DocumentedWebhook(Struct):
    """A webhook by the pages, read 2026-11-21.

    docs.kie.ai and docs.sunoapi.org/suno-api/extend-music-callbacks, docs.vidgo.ai/…/music-series/music-webhook.
    """

    code: int
    data: DocumentedTask
    task_id: str | None = None
    other_id: str | None = msgspec.field(name="taskId", default=None)


_WEBHOOKS = msgspec.json.Decoder(DocumentedWebhook)


def task_ids(body: bytes) -> set[str | None]:
    """Return the ids by which a delivery names its task, in whichever place and spelling; or raise DecodeError."""
    try:
        webhook = _WEBHOOKS.decode(body)
    except (ValueError, RecursionError):
        return {*Body.delivered(body).task_ids}
    return {webhook.task_id, webhook.other_id, webhook.data.task_id, webhook.data.other_id} - {None, ""}


def documented_webhook(body: bytes) -> Progress | None:
    """Return what most webhooks mean, in one pass: one that is as documented and shows usable tracks; else `None`."""
    try:
        webhook = _WEBHOOKS.decode(body)
    except (ValueError, RecursionError):
        return None
    task = webhook.data
    stage, songs = _STAGES.get(task.stage + task.status), task.songs or task.files
    if webhook.code != OK or stage is None or task.other_id or webhook.task_id or webhook.other_id:
        return None
    if (task.songs and task.files) or len(songs) > MAX_DOCUMENTED_TRACKS or not (songs or stage is Stage.TEXT):
        return None
    if not (0 < len(task.task_id) <= MAX_ID_LENGTH and task.task_id.isprintable()):
        return None
    tracks: list[Track] = []
    for song in songs:
        track = _documented_track(song, task.created_time)
        id_, is_usable = track.id or "", track.audio_url or (stage is Stage.TEXT and track.stream_url)
        if song.file_type or not (is_usable and 0 < len(id_) <= MAX_ID_LENGTH and id_.isprintable()):
            return None
        tracks.append(track)
    return Progress(task_id=task.task_id, claimed_stage=stage, tracks=tuple(tracks))


def _documented_track(song: DocumentedSong, created_time: str | None) -> Track:
    links: Iterable[str | None] = (
        *(song.audio_url, song.stream_url, song.image_url),
        *(song.source_audio_url, song.source_stream_url, song.source_image_url),
    )
    # One look at all of them together is faster than one at each.
    if not are_plain_links(" ".join(filter(None, links))):
        links = map(link, links)
    audio, stream, image, source_audio, source_stream, source_image = links
    return Track(
        id=song.id or song.audio_id,
        title=song.title,
        audio_url=audio or None,
        stream_url=stream or None,
        image_url=image or None,
        duration=song.duration if song.duration and song.duration > 0 else None,
        tags=song.tags,
        prompt=song.prompt,
        model_name=song.model_name,
        source_audio_url=source_audio or None,
        source_stream_url=source_stream or None,
        source_image_url=source_image or None,
        created_at=moment(song.created_at) or moment(created_time),
    )
