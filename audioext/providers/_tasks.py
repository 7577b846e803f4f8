"""What the engine's resellers say of a task, in status answers and webhooks: stages, failures and events.

The documented callback of kie.ai and sunoapi.org is read in one pass, by `_callback`; whatever is not exactly that is
judged here.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from audioext.errors import DecodeError, WebhookError
from audioext.http.decoding import MAX_PATHS, parse_json
from audioext.http.messages import HttpResponse, excerpt
from audioext.models.events import Event, Failed, Progress
from audioext.models.results import FailureReason, Stage
from audioext.providers._answers import HTTP_ERROR_FROM, LONGEST_MESSAGE, Answers
from audioext.providers._body import Body
from audioext.providers._words import CONTENT_WORDS

_NO_CALLBACK = "the provider's callback failed, and its status shows no track"
_SAY_NOTHING = frozenset({"", "FAIL", "FAILED", "ERROR"})
_REFUNDED = frozenset({"531"})  # "credits refunded": docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
_SUCCESS_CODES = frozenset({None, "0", *map(str, range(200, 300))})


@frozen(kw_only=True)
class Dialect:
    """What differs between the vendors' tasks.

    `reasons` are the failure codes that a vendor lists; `failed_codes` are those of a status answer that fail the task,
    not the call. `judges_code` says whether an envelope's code may fail a task that a webhook shows with its status.
    `charged` is what a failed task costs; `None` where no page says.
    """

    reasons: Mapping[str, FailureReason] = field(factory=dict)
    failed_codes: frozenset[int] = frozenset()
    judges_code: bool = True
    charged: bool | None = None


def delivered_events(data: bytes, dialect: Dialect) -> tuple[Event, ...]:
    """Return what a webhook means; raises WebhookError (400) if its ids disagree, DecodeError if it says nothing."""
    where = "the webhook"
    body = Body(parse_json(data, where=where), where)
    if len(body.task_ids) > 1:
        message = "the delivery names more than one task"
        raise WebhookError(message, http_status=400)
    if body.is_empty and (body.first("code") in _SUCCESS_CODES or not dialect.judges_code):
        raise DecodeError(body.problems[:MAX_PATHS] or ["required field missing @ $.data"], where=where)
    return _events(body, dialect, delivered=True)


def status_events(answers: Answers, response: HttpResponse, dialect: Dialect) -> tuple[Event, ...]:
    """Return what a status answer means; raises ProviderError if the call was refused or names no task, or DecodeError.

    A task that is named with its status is judged by that, whatever the code beside it says.
    """
    answer = answers.parse_any(response)
    try:
        body = Body(answer.body, "the status")
    except DecodeError:
        if not answer.is_good:
            raise answers.error(response, answer) from None
        raise
    named = body.word.name and (body.task_id is not None or response.status < HTTP_ERROR_FROM)
    if not answer.is_good and not named:
        if answer.has_code and answer.code in dialect.failed_codes:
            return (_failed(body, dialect),)
        raise answers.error(response, answer)
    if body.is_empty and not body.problems:
        if answer.data in (None, ""):
            raise answers.no_task(response)
        raise DecodeError(["expected an object with a task @ $.data"], where=body.where)
    return _events(body, dialect, delivered=False)


def _events(seen: Body, dialect: Dialect, *, delivered: bool) -> tuple[Event, ...]:
    """Return what *seen* means; in a webhook an unclear word makes a status call due.

    A code of failure is not believed beside a known stage and its tracks: interim callbacks like that were seen.
    """
    word, stage, shown = seen.word, seen.word.stage, bool(seen.tracks)
    judges = dialect.judges_code or not word.name
    bad_code = judges and delivered and seen.first("code") not in _SUCCESS_CODES
    bad = bad_code or (seen.says_no and (delivered or not word.name))
    if word.complains:
        whole = shown and not delivered and all(track.audio_url for track in seen.tracks)
        # The pages only say that an error happened in the callback process. Without a track nothing may ever follow.
        if not (shown or delivered):
            return (_failed(seen, dialect, is_doubtful=True),)
        unclear = None if whole or delivered else word.name
        return (_progress(seen, Stage.COMPLETE if whole else None, unclear, ask_now=delivered),)
    if word.fails or (bad and not (stage and shown)):
        kept = (_progress(seen, None, None),) if shown or seen.credits is not None else ()
        return (*kept, _failed(seen, dialect))
    playable = any(track.audio_url for track in seen.tracks)
    if seen.problems and not playable and (stage is Stage.COMPLETE or seen.is_empty):
        raise DecodeError(seen.problems[:MAX_PATHS], where=seen.where)
    unsure = word.unknown is not None or bad or not word.name
    return (_progress(seen, stage, word.unknown, ask_now=delivered and unsure),)


def _progress(seen: Body, stage: Stage | None, word: str | None, *, ask_now: bool = False) -> Progress:
    return Progress(
        task_id=seen.task_id,
        claimed_stage=stage,
        tracks=seen.tracks,
        credits=seen.credits,
        word=word,
        ask_now=ask_now,
    )


def _failed(seen: Body, dialect: Dialect, *, is_doubtful: bool = False) -> Failed:
    word = seen.word
    code, outer = seen.first("own code"), seen.first("code")
    code = code or (outer if outer not in _SUCCESS_CODES else None)
    said = (*seen.says(), *([_NO_CALLBACK] if is_doubtful else ()))
    message = " ".join(dict.fromkeys(said)) or word.raw or (f"code {code}" if code else "no words")
    made = "CREATE" in word.name or "GENERATE" in word.name
    reason = dialect.reasons.get(code or "", FailureReason.GENERATION if made else FailureReason.UNKNOWN)
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
        charged=False if code in _REFUNDED else dialect.charged,
        is_doubtful=is_doubtful,
    )
