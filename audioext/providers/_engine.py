"""The parts that resellers of the Suno engine share: their wire format of a task, and the base of their accounts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, ClassVar, Literal

import msgspec
from attrs import evolve, field, frozen
from msgspec import Meta, Struct
from yarl import URL

from audioext.errors import DecodeError
from audioext.http.decoding import MAX_ID_LENGTH, MAX_PATHS, are_plain_links, identity, moment, number
from audioext.http.messages import HttpRequest, HttpResponse, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.requests import Extend, Operation, Request
from audioext.models.results import FailureReason, Stage, Track, build_tracks
from audioext.providers._account import HostedAccount, Vendor
from audioext.providers._answers import OK, code_of
from audioext.providers._body import Body
from audioext.providers._fields import wire_names, wire_values
from audioext.providers._tracks import LONGEST_LINE, LONGEST_TEXT, is_image
from audioext.providers._words import CONTENT_WORDS, LONGEST_MESSAGE, status_word

UNREACHABLE_CALLBACK = URL("https://nobody.invalid/audioext")
"""Sent as the callback if an API requires one and we have none: a name under `.invalid` never resolves (RFC 2606)."""
_NO_CALLBACK = "the provider's callback failed, and its status shows no track"
_SAY_NOTHING = frozenset({"", "FAIL", "FAILED", "ERROR"})
_REFUNDED = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_BALANCES = (
    *("data", "creditsamount", "credits", "credit", "remainingcredits", "creditsremaining", "creditsleft"),
    *("availablecredits", "creditbalance", "creditsbalance", "balance", "remaining", "available", "amount"),
)
"""`plain` keys of a balance: the first two are on the vendors' pages, the others from public clients, or guessed."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)", re.ASCII)
"""The commas of `1,234`; that a balance may have them is a guess."""


@frozen(kw_only=True)
class EngineVendor(Vendor):
    """The facts of one reseller of the engine.

    A submit is a POST to `submit_path` with the operation's entry in `calls` as `model` and the fields under `input`;
    without a `submit_path`, to the entry itself. `names` are the wire names of fields, `flag_key` that of custom mode,
    and `callback_key` that of the callback, which is required if `needs_callback`. `reasons` maps the documented
    failure codes. `failed_codes` in a status answer mean that the task failed, not the call. `code_can_fail_task` says
    whether an envelope's code can fail a task whose webhook has a status. `charged` says whether a failed task costs
    credits, `None` if no page says. `credits_path` returns the balance. `upload_url` is the file host of an API at
    `hosts`.
    """

    credits_path: str
    calls: Mapping[Operation, str]
    callback_key: str
    submit_path: str = ""
    flag_key: str = ""
    needs_callback: bool = False
    names: Mapping[str, str] = field(factory=wire_names)
    reasons: Mapping[str, FailureReason] = field(factory=dict)
    failed_codes: frozenset[int] = frozenset()
    code_can_fail_task: bool = True
    charged: bool | None = None
    hosts: frozenset[str] = frozenset()
    upload_url: URL | None = None


@frozen
class EngineAccount(HostedAccount):
    """An account at a reseller of the engine."""

    vendor: ClassVar[EngineVendor]

    def names(self, request: Request) -> Mapping[str, str]:  # noqa: ARG002 - for subclasses whose names depend on it
        """Return the wire names of the fields of *request*."""
        return self.vendor.names

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that creates the task; a required callback that we lack is `UNREACHABLE_CALLBACK`."""
        vendor, call = self.vendor, self.vendor.calls[request.operation]
        fields = wire_values(request, vendor.default_models, names=self.names(request), rules=vendor.rules)
        if vendor.flag_key and isinstance(request, Extend):
            fields[vendor.flag_key] = request.is_custom
        body: dict[str, object] = {"model": call, "input": fields} if vendor.submit_path else fields
        address = UNREACHABLE_CALLBACK if callback is None and vendor.needs_callback else callback
        if address is not None:
            body[vendor.callback_key] = str(address)
        return self.post(vendor.submit_path or call, body)

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return the events in a status answer; the status of a named task outweighs the answer's own code."""
        answer = self.answers.parse_any(response)
        if not answer.is_about_task() and not answer.is_good:
            if answer.has_code and answer.code in self.vendor.failed_codes:
                return (_failed(answer, self.vendor),)
            raise answer.error()
        if answer.is_empty and not answer.problems:
            if answer.data in (None, ""):
                raise answer.no_task()
            raise DecodeError(["expected an object with a task @ $.data"], where=answer.where)
        return _events(answer, self.vendor, is_delivered=False)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return the events in a webhook, or raise WebhookError or DecodeError; documented ones take a fast path."""
        documented = documented_webhook(body)
        if documented is not None:
            return (documented,)
        seen = Body.delivered(body)
        bad_code = _bad_code(seen.first("code", identity)) if self.vendor.code_can_fail_task else None
        if seen.is_empty and bad_code is None:
            raise DecodeError(seen.problems[:MAX_PATHS] or ["required field missing @ $.data"], where=seen.where)
        return _events(seen, self.vendor, is_delivered=True)

    def build_credits(self) -> HttpRequest:
        """Return the GET of the balance."""
        return self.get(self.vendor.credits_path)

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance, or raise an error: `data` is the number (kie.ai, sunoapi.org) or holds it (vidgo)."""
        keys = self.answers.parse_free(response)
        for key in _BALANCES:
            value = keys.get(key)
            value = value[0] if isinstance(value, list) and len(value) == 1 else value
            found = number(_THOUSANDS.sub("", value) if isinstance(value, str) else value)
            if found is not None:
                return found
        raise DecodeError(["expected a number @ $.data"])


def _events(seen: Body, vendor: EngineVendor, *, is_delivered: bool) -> tuple[Event, ...]:
    """Return the events in *seen*; an unclear status in a webhook asks for a status call at once.

    A failure code is ignored beside a stage before COMPLETE, or beside COMPLETE with tracks: public clients of kie.ai
    report interim callbacks that look like a failure. Without tracks, the stage beside such a code is ignored as well.
    """
    word, stage, shown = seen.word, seen.word.stage, bool(seen.tracks)
    judges = vendor.code_can_fail_task or not word.name
    bad_code = judges and is_delivered and _bad_code(seen.first("code", identity)) is not None
    bad = bad_code or (seen.says_no and (is_delivered or not word.name))
    if word.is_callback_failure:
        whole = shown and not is_delivered and all(track.audio_url for track in seen.tracks)
        # The pages only say that an error happened in the callback process. Without a track, no further news may come.
        if not (shown or is_delivered):
            return (_failed(seen, vendor, is_doubtful=True),)
        unclear = None if whole or is_delivered else word.name
        return (_progress(seen, Stage.COMPLETE if whole else None, unclear, ask_now=is_delivered),)
    if word.fails or (bad and (stage is None or (stage is Stage.COMPLETE and not shown))):
        kept = (_progress(seen, None, None),) if shown or seen.first("credits", number) is not None else ()
        # A call that failed may say so like a task; if it is the task, the next calls will say it again.
        return (*kept, evolve(_failed(seen, vendor), is_doubtful=not is_delivered and seen.may_be_of_call))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=seen.where)
    unsure = word.unknown is not None or bad or not word.name
    claimed = None if bad and not shown else stage
    return (_progress(seen, claimed, word.unknown, ask_now=is_delivered and unsure),)


def _bad_code(value: object) -> str | None:
    """Return the code in *value* as text, or `None` for none or for success, in digits or as a word."""
    code = identity(value)
    is_good = code is None or code_of(value) == OK or status_word(code).stage is Stage.COMPLETE
    return None if is_good else code


def _progress(seen: Body, stage: Stage | None, word: str | None, *, ask_now: bool = False) -> Progress:
    return Progress(
        task_id=seen.task_id,
        claimed_stage=stage,
        tracks=seen.tracks,
        credits=seen.first("credits", number),
        word=word,
        ask_now=ask_now,
    )


def _failed(seen: Body, vendor: EngineVendor, *, is_doubtful: bool = False) -> Failed:
    word = seen.word
    code = seen.first("own code", _bad_code) or seen.first("code", _bad_code)
    said = " ".join(filter(None, (seen.says(), _NO_CALLBACK if is_doubtful else "")))
    message = said or word.raw or (f"code {code}" if code else "no reason was given")
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

DocumentedId = Annotated[str, Meta(min_length=10, max_length=MAX_ID_LENGTH)]
DocumentedLine = Annotated[str, Meta(max_length=LONGEST_LINE)]
_LINKS = ("audio_url", "stream_url", "image_url", "source_audio_url", "source_stream_url", "source_image_url")
_links_of = attrgetter(*_LINKS)
_EMPTY = vars(Track())


class DocumentedSong(
    Struct,
    forbid_unknown_fields=True,
    rename={
        "stream_url": "stream_audio_url",
        "source_stream_url": "source_stream_audio_url",
        "created_at": "createTime",
    },
):
    """A track, with the names of `Track`. `createTime` is documented as text, and arrives as epoch milliseconds."""

    id: DocumentedId | None = None
    audio_id: DocumentedId | None = None
    audio_url: str | None = None
    stream_url: str | None = None
    image_url: str | None = None
    source_audio_url: str | None = None
    source_stream_url: str | None = None
    source_image_url: str | None = None
    prompt: Annotated[str, Meta(max_length=LONGEST_TEXT)] | None = None
    model_name: DocumentedLine | None = None
    title: DocumentedLine | None = None
    tags: DocumentedLine | None = None
    created_at: str | int | float | None = None
    duration: Annotated[float, Meta(gt=0)] | None = None


DocumentedSongs = Annotated[list[DocumentedSong], Meta(max_length=8)]  # real webhooks have 1 or 2


class DocumentedTask(Struct, forbid_unknown_fields=True):
    """The `data` of a webhook: `callbackType` and `data` at kie.ai and sunoapi.org, `status` and `files` at vidgo."""

    task_id: DocumentedId
    stage: str = msgspec.field(name="callbackType", default="")
    songs: DocumentedSongs = msgspec.field(name="data", default_factory=list)
    status: str = ""
    files: DocumentedSongs = msgspec.field(default_factory=list)
    created_time: str | None = None
    error_message: str | None = None


class DocumentedWebhook(Struct, forbid_unknown_fields=True):
    """A webhook exactly as on the pages, read 2026-11-21; any other key needs the lenient reader, `Body.delivered`.

    docs.kie.ai and docs.sunoapi.org/suno-api/extend-music-callbacks, docs.vidgo.ai/…/music-series/music-webhook.
    """

    data: DocumentedTask
    code: Literal[200]
    msg: str | None = None


_WEBHOOKS = msgspec.json.Decoder(DocumentedWebhook)
_LONGEST_DOCUMENTED = 65_536  # bytes; msgspec builds all songs of a longer one before it counts them
_STAGES = {"text": Stage.TEXT, "first": Stage.FIRST, "complete": Stage.COMPLETE, "finished": Stage.COMPLETE}


def task_ids(body: bytes) -> set[str]:
    """Return every task id in a webhook, wherever and however it is spelled, or raise DecodeError."""
    task = _documented_task(body)
    return {*Body.delivered(body).task_ids} if task is None else {task.task_id}


def _documented_task(body: bytes) -> DocumentedTask | None:
    if len(body) > _LONGEST_DOCUMENTED:
        return None
    try:
        return _WEBHOOKS.decode(body).data
    except (ValueError, RecursionError):
        return None


def documented_webhook(body: bytes) -> Progress | None:
    """Return the event of a webhook that is exactly as documented and has usable tracks, as most are; else `None`."""
    task = _documented_task(body)
    if task is None:
        return None
    stage, songs = _STAGES.get(task.stage + task.status), task.songs or task.files
    if stage is None or (task.songs and task.files) or not (songs or stage is Stage.TEXT):
        return None
    ids, links, tracks = list[str](), list[str](), list[dict[str, object]]()
    for song in songs:
        id_, audio_url = song.id or song.audio_id, song.audio_url or None
        fields = _EMPTY | msgspec.structs.asdict(song)
        del fields["audio_id"]
        fields["id"], fields["created_at"] = id_, moment(song.created_at) or moment(task.created_time)
        shown = _links_of(song)
        if "" in shown:
            fields.update((name, fields[name] or None) for name in _LINKS)
        is_playable = audio_url or (song.stream_url and stage is Stage.TEXT)
        may_be_image = audio_url and (audio_url[-4:] != ".mp3" or "?" in audio_url)  # rarely true: `is_image` is slow
        if id_ is None or id_ in ids or not is_playable or (may_be_image and is_image(audio_url or "")):
            return None
        ids.append(id_)
        links += filter(None, shown)
        tracks.append(fields)
    # One check of all links is faster than one for each.
    letters = "".join((task.task_id, *ids))
    if " " in letters or not letters.isprintable() or not are_plain_links(links):
        return None
    return Progress(task_id=task.task_id, claimed_stage=stage, tracks=build_tracks(tracks))
