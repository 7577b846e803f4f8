"""Answers and webhooks whose side fields, ids and words could mislead a reader; all of them are invented.

They vary what vendors document or were seen to send, so that each test holds a rule and not one example.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from audioext.errors import AuthError, ContentError, CreditsError, DecodeError, ProviderError, RateLimitError
from audioext.http.decoding import plain
from audioext.http.messages import HttpResponse
from audioext.models.events import Failed, Progress, Refused, Submitted, Unknown
from audioext.models.results import FailureReason, Stage
from audioext.providers import load
from audioext.providers.base import Credits
from tests.support.tables import each_row
from tests.unit.providers.test_kinds import (
    AUDIO,
    KEY,
    OTHER,
    Body,
    Make,
    asked,
    delivery,
    hooked,
    is_song,
    only,
    songs,
    status,
    submitted,
)

NO_WORDS = ("null", "None", "undefined", " NULL ", "")
"""Texts that some languages write for a missing value."""


def inside(body: Body, **more: object) -> Body:
    """Return *body* with *more* before the keys of its task's object, in place of the same keys in other spellings."""
    key = "conversion" if "conversion" in body else "data"
    inner, given = body[key], {plain(name) for name in more}
    assert isinstance(inner, dict)
    return {**body, key: {**more, **{name: item for name, item in inner.items() if plain(name) not in given}}}


# --- ids -------------------------------------------------------------------------------------------------------------


@each_row("key", ["job_id", "jobId", "JobID", "conversion_task_id"])
@each_row("value", ["q-1", 77])
def test_the_id_of_a_job_yields_to_that_of_the_task(provider_class: Make, key: str, value: object) -> None:
    """An id of a job beside that of the task is another thing, wherever it stands."""
    name = provider_class().info.name
    assert Submitted(task_id="t1") == submitted(provider_class, {"code": 200, "data": {key: value, "task_id": "t1"}})
    seen = asked(provider_class, inside(status(name, **songs(name)), **{key: value}))
    assert is_song(seen)
    assert "t1" == only(seen).task_id
    assert "t1" == only(hooked(provider_class, inside(delivery(name), **{key: value}))).task_id
    assert "t1" == only(hooked(provider_class, {**delivery(name), key: value})).task_id


@each_row("key", ["job_id", "conversion_task_id"])
def test_the_id_of_a_job_is_that_of_the_task_if_there_is_no_other(provider_class: Make, key: str) -> None:
    """A job's id alone names the task, as clients of MusicGPT read it."""
    assert Submitted(task_id="t1") == submitted(provider_class, {"code": 200, "data": {key: "t1", "task_id": None}})
    assert "t1" == only(hooked(provider_class, {key: "t1", "status": "running"})).task_id


@each_row("word", NO_WORDS)
def test_a_word_for_nothing_is_no_id(provider_class: Make, word: str) -> None:
    """A text that means a missing value names no task: a good answer is unknown, and a refusal stays one."""
    name = provider_class().info.name
    assert isinstance(submitted(provider_class, {"code": 200, "msg": "success", "data": {"taskId": word}}), Unknown)
    assert isinstance(submitted(provider_class, {"code": 401, "msg": "no", "data": {"taskId": word}}), Refused)
    seen = only(hooked(provider_class, inside(delivery(name), task_id=word)))
    assert (None, 2) == (seen.task_id, sum(bool(track.audio_url) for track in seen.tracks))
    seen = only(asked(provider_class, status(name, data=[{"id": word, "audio_url": "https://files.example/a.mp3"}])))
    assert [None] == [track.id for track in seen.tracks]


@each_row("value", [{}, [], True, "x" * 999])
def test_an_id_of_a_wrong_type_is_an_error(provider_class: Make, value: object) -> None:
    """A task id that is no text and no number cannot be read, and no other field takes its place."""
    with pytest.raises(DecodeError, match=r"expected an id @ \$\.task_id"):
        hooked(provider_class, {"task_id": value, "status": "SUCCESS"})


@each_row("word", ["null", "None", ""])
def test_musicgpt_counts_no_placeholder_as_a_track(word: str) -> None:
    """A word for nothing as the id of the second track means that there is none."""
    body = {"success": True, "task_id": "t1", "conversion_id_1": "a", "conversion_id_2": word}
    assert Submitted(task_id="t1", track_ids=("a",)) == submitted(load("musicgpt"), body)


def test_the_id_of_a_task_may_be_alone_in_a_list(provider_class: Make) -> None:
    """An answer's `data` may be a list of one bare id, but not of two."""
    id_, other = "0f" * 16, "1e" * 16
    assert Submitted(task_id=id_) == submitted(provider_class, {"code": 200, "data": [id_]})
    assert isinstance(submitted(provider_class, {"code": 200, "data": [id_, other]}), Unknown)


def test_a_documented_webhook_may_name_nothing() -> None:
    """A webhook of kie.ai that is as documented, but with a word for nothing as its task's id, keeps its tracks."""
    for name in ("kie", "sunoapi"):
        seen = only(hooked(load(name), inside(delivery(name), task_id="null")))
        assert isinstance(seen, Progress)
        assert (None, ["a", "b"]) == (seen.task_id, [track.id for track in seen.tracks])


# --- status words ----------------------------------------------------------------------------------------------------


@each_row("key", ["stage", "taskStatus", "task_status"])
@each_row("value", ["mastering", "X-9", "2"])
def test_an_unknown_word_beside_the_status_changes_nothing(provider_class: Make, key: str, value: str) -> None:
    """An unknown word under a key that may hold the status does not hide the status beside it, whichever is first."""
    name = provider_class().info.name
    for answer in (status(name, **songs(name)), status(name, "failed", message="no luck"), status(name, "pending")):
        assert asked(provider_class, answer) == asked(provider_class, inside(answer, **{key: value}))


def test_an_unknown_word_of_the_task_outranks_the_word_of_the_call(provider_class: Make) -> None:
    """The envelope's success does not complete a task whose own word is unknown."""
    name = provider_class().info.name
    seen = only(asked(provider_class, {**status(name, "remastering"), "status": "success"}))
    assert (None, "remastering") == (seen.claimed_stage, seen.word)


@each_row("word", ["success", "ok", "SUCCESS", "done"])
@each_row("data", [None, {}, [], ""])
def test_a_call_that_succeeded_is_no_finished_task(provider_class: Make, word: str, data: object) -> None:
    """A word for success beside an empty `data` says nothing of the task, which may still be running."""
    with pytest.raises((ProviderError, DecodeError)):
        asked(provider_class, {"status": word, "data": data})
    done = only(asked(provider_class, {"status": word, "data": data, "task_id": "t1"}))
    assert Stage.COMPLETE is done.claimed_stage
    assert is_song(asked(provider_class, {"status": word, "data": data, "files": [AUDIO, OTHER]}))


# --- refusals and failures -------------------------------------------------------------------------------------------


@each_row("key", ["error", "errors", "errorMessage", "error_msg"])
@each_row("value", ["mv is required", ["mv is required"], {"message": "mv is required"}])
def test_an_error_text_without_a_code_is_a_refusal(provider_class: Make, key: str, value: object) -> None:
    """An answer with HTTP 200, an error's text and no task is a refusal; beside a code for success it is unclear."""
    outcome = submitted(provider_class, {key: value})
    assert isinstance(outcome, Refused)
    assert ("mv is required", False) == (outcome.error.message, outcome.error.charged)
    assert isinstance(submitted(provider_class, {"code": 200, key: value}), Unknown)
    assert Submitted(task_id="t1") == submitted(provider_class, {key: value, "task_id": "t1"})


@each_row("value", ["", None, [], {}, "null", "None", "success", "no error"])
def test_an_empty_error_is_none(provider_class: Make, value: object) -> None:
    """A word for nothing as the error of an answer without a task leaves the outcome unknown."""
    for key in ("error", "errors", "errorMessage"):
        assert isinstance(submitted(provider_class, {key: value}), Unknown)


@each_row(
    "says",
    [
        *("Upstream request failed", "Bad gateway", "Connection reset by peer", "Network error", "Unexpected error"),
        *("Unknown error", "System error", "Something went wrong, please try again"),
    ],
)
def test_words_of_a_broken_server_refuse_nothing(provider_class: Make, says: str) -> None:
    """An error without a code whose words are about the server may come after a task was made."""
    for body in ({"success": False, "message": says}, {"error": says}, {"errorMessage": says}):
        outcome = submitted(provider_class, body)
        assert isinstance(outcome, Unknown)
        assert says in outcome.reason


@each_row(
    ("says", "kind"),
    [
        ("Rate limit exceeded", RateLimitError),
        ("Too many parallel requests", RateLimitError),
        ("Concurrency limit reached", RateLimitError),
        ("Invalid API key", AuthError),
        ("Unauthorized", AuthError),
        ("You do not have access permissions", AuthError),
        ("You have no credits left", CreditsError),
        ("Not enough credits", CreditsError),
        ("Your prompt violates our community guidelines", ContentError),
        ("Lyrics contain profanity", ContentError),
        ("title is too long", ProviderError),
    ],
)
def test_a_refusal_without_a_code_is_sorted_by_its_words(provider_class: Make, says: str, kind: type) -> None:
    """A refusal without a code has the type that its words tell; words alone do not let a POST be sent again."""
    for body in ({"success": False, "message": says}, {"error": {"message": says}}):
        outcome = submitted(provider_class, body)
        assert isinstance(outcome, Refused)
        assert kind is type(outcome.error)
        assert (False, False) == (outcome.error.charged, outcome.resend)


@each_row(
    "says", ["Content violation", "Content violations found", "It violates our rules", "See the usage guidelines"]
)
def test_the_field_has_many_words_for_content(provider_class: Make, says: str) -> None:
    """A failure and a refusal with 400 are about the content if their words are."""
    outcome = submitted(provider_class, {"code": 400, "msg": says})
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, ContentError)
    failed = asked(provider_class, status(provider_class().info.name, "failed", message=says))[-1]
    assert isinstance(failed, Failed)
    assert FailureReason.CONTENT is failed.reason


@each_row("code", [0, "0", 200, "200", None, "", "null"])
@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_a_code_for_success_is_no_failures_code(name: str, code: object) -> None:
    """A failure whose error code means success, or nothing, has no such code."""
    for key in ("errorCode", "failCode"):
        body = status(name, "failed", **{key: code}, message="no vocals found")
        for event in (asked(load(name), body)[-1], hooked(load(name), body)[-1]):
            assert isinstance(event, Failed)
            assert (None, "no vocals found") == (event.code, event.message)


@each_row("code", [531, "531"])
def test_a_refunded_generation_has_its_reason(code: object) -> None:
    """kie.ai's 531 is a failed generation that was not charged: docs.kie.ai/suno-api/extend-music-callbacks."""
    data = {"callbackType": "error", "task_id": "t1", "data": None}
    (failed,) = hooked(load("kie"), {"code": code, "msg": "no", "data": data})
    assert Failed(task_id="t1", reason=FailureReason.GENERATION, code="531", message="no", charged=False) == failed
    (failed,) = asked(load("kie-jobs"), status("kie-jobs", "fail", failCode=code, failMsg="no"))
    assert Failed(task_id="t1", reason=FailureReason.GENERATION, code="531", message="no", charged=False) == failed


@each_row("more", [{"is_flagged": True, "reason": "no"}, {"reason": "flagged by moderation"}])
def test_musicgpt_says_why_a_track_failed(more: Body) -> None:
    """A failed part and a failed status have the reason of their tracks' failures."""
    (part,) = hooked(load("musicgpt"), {"success": False, "task_id": "t1", "conversion_id": "a", **more})
    shown, failed = asked(load("musicgpt"), status("musicgpt", "FAILED", conversion_id="a", **more))
    assert isinstance(part, Progress)
    assert isinstance(shown, Progress)
    assert isinstance(failed, Failed)
    assert [FailureReason.CONTENT] * 3 == [part.reason, shown.reason, failed.reason]


# --- balances --------------------------------------------------------------------------------------------------------


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row(
    "data",
    [
        *({key: "42.5", "total_credits": 100} for key in ("available_credits", "creditBalance", "credits_left")),
        {"total": 100, "used": 57.5, "remaining": 42.5},
        {"credits": {"total": 100, "remaining": 42.5}},
        [42.5],
        {"credits": [42.5]},
    ],
)
def test_a_balance_is_what_is_left(name: str, data: object) -> None:
    """A balance is what is left, whatever stands beside it, and a list of one number is that number."""
    account = load(name)()
    assert isinstance(account, Credits)
    answer = HttpResponse(status=200, body=msgspec.json.encode({"code": 200, "data": data}))
    assert 42.5 == account.parse_credits(answer)


@each_row("data", [[1, 2], [], {"total": 100}, True, None])
def test_a_balance_is_never_guessed(data: object) -> None:
    """Several numbers, or a total, are no balance."""
    answer = HttpResponse(status=200, body=msgspec.json.encode({"code": 200, "data": data}))
    for name in ("kie", "vidgo"):
        account = load(name)()
        assert isinstance(account, Credits)
        with pytest.raises(DecodeError):
            account.parse_credits(answer)


# --- tracks ----------------------------------------------------------------------------------------------------------


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row("key", ["audio_url", "audioUrl", "file_url"])
@each_row("listed", [lambda links: links, json.dumps, lambda links: json.dumps(links, indent=1)])
def test_a_list_of_files_in_one_track_is_several_takes(name: str, key: str, listed: Callable[[object], object]) -> None:
    """Files of one format in a list are one take each, and the same take in another format is none of its own."""
    links = [AUDIO, "https://files.example/a.wav", OTHER, "https://files.example/a.png", AUDIO]
    for body in (
        {"code": 200, "data": {"taskId": "t1", "status": "SUCCESS", key: listed(links), "title": "Rain"}},
        status(name, "SUCCESS", tracks=[{"id": "a", key: listed(links), "title": "Rain"}]),
    ):
        seen = only(asked(load(name), body))
        found = [(track.id, track.audio_url, track.title) for track in seen.tracks]
        assert [(None, AUDIO, "Rain"), (None, OTHER, "Rain")] == found


@each_row("links", [[AUDIO], ["https://files.example/a.png", AUDIO], [AUDIO, "https://files.example/a.wav"]])
def test_a_list_with_one_take_keeps_its_id(links: list[str]) -> None:
    """A track with one file, a picture or another format in its list is one track."""
    seen = only(asked(load("kie"), status("kie", tracks=[{"id": "a", "audio_url": links}])))
    assert [("a", AUDIO)] == [(track.id, track.audio_url) for track in seen.tracks]


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row("key", ["url", "download_url", "audio", "mp3", "file", "link", "src", "songPath"])
def test_a_finished_task_may_hold_its_file_itself(name: str, key: str) -> None:
    """An audio file under any key of the task's own object is its track, unless it repeats the request."""
    flat: Body = {"task_id": "t1", "status": "finished", "upload_url": OTHER}
    for body in ({**flat, key: AUDIO}, {"code": 200, "data": {**flat, key: AUDIO}}):
        for events in (hooked(load(name), body), asked(load(name), body)):
            assert [AUDIO] == [track.audio_url for track in only(events).tracks]
            assert Stage.COMPLETE is only(events).claimed_stage
    assert () == only(asked(load(name), flat)).tracks
    assert () == only(asked(load(name), {**flat, "status": "running", key: AUDIO})).tracks


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_a_task_that_is_its_track_may_be_alone_in_a_list(name: str) -> None:
    """An object in a list of one that names the task is the task, also if it is the track as well."""
    flat: Body = {"task_id": "t1", "id": "a", "status": "finished", "audio_url": AUDIO}
    for data in ([flat], [json.dumps(flat)]):
        for events in (hooked(load(name), {"code": 200, "data": data}), asked(load(name), {"code": 200, "data": data})):
            assert [("a", AUDIO)] == [(track.id, track.audio_url) for track in only(events).tracks]
            assert (Stage.COMPLETE, "t1") == (only(events).claimed_stage, only(events).task_id)


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"])
@each_row("inner", ["t1", "the vendor's own"])
def test_a_track_alone_in_a_list_is_no_task_beside_one(name: str, inner: str) -> None:
    """What a track says of its task does not matter if the body names one, whether it lists one track or several."""
    track = {"task_id": inner, "id": "a", "audio_url": AUDIO}
    for body in ({"code": 200, "data": {"task_id": "t1", "data": [track]}}, {"task_id": "t1", "data": [track]}):
        event = only(hooked(load(name), body))
        assert ("t1", [("a", AUDIO)]) == (event.task_id, [(each.id, each.audio_url) for each in event.tracks])


# --- the status call itself ------------------------------------------------------------------------------------------


@each_row("word", ["error", "fail", "failed"])
def test_a_call_that_failed_is_not_yet_a_failed_task(provider_class: Make, word: str) -> None:
    """A failure in a status answer that names no task counts only once a later call repeats it; others do at once."""
    said: Body = {"status": word, "message": "busy, try later"}
    doubts = {
        (True, "busy, try later"): [said, {**said, "data": None}, {"code": 200, **said}],
        (False, "busy, try later"): [{**said, "task_id": "t1"}, {"code": 200, "data": said}],
    }
    for expected, bodies in doubts.items():
        for body in bodies:
            failed = asked(provider_class, body)[-1]
            assert isinstance(failed, Failed)
            assert expected == (failed.is_doubtful, failed.message)
    delivered = hooked(provider_class, said)[-1]
    assert isinstance(delivered, Failed)
    assert not delivered.is_doubtful


@each_row("http", [404, 500, 502])
def test_a_named_task_outweighs_the_http_status(provider_class: Make, http: int) -> None:
    """A status answer that names its task and has a status word is read whatever its HTTP status; another is not."""
    name, provider = provider_class().info.name, provider_class(KEY)
    body = msgspec.json.encode(status(name, **songs(name)))
    assert is_song(provider.parse_status(HttpResponse(status=http, body=body)))
    for other in ({"status": "SUCCESS"}, {"status": "failed", "message": "no"}, {"task_id": "t1"}):
        with pytest.raises(ProviderError):
            provider.parse_status(HttpResponse(status=http, body=msgspec.json.encode(other)))


# --- places ----------------------------------------------------------------------------------------------------------

BOTH: list[Body] = [{"id": "a", "audioUrl": AUDIO}, {"id": "b", "audioUrl": OTHER}]


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row(
    "less", [[], [{"id": "a"}, {"id": "b"}], [{"id": "a", "audioUrl": ""}, {"id": "b", "streamAudioUrl": f"{OTHER}?s"}]]
)
@each_row("more", [BOTH, json.dumps({"data": BOTH}), [AUDIO, OTHER]])
def test_of_two_results_the_one_with_the_files_counts(name: str, less: object, more: object) -> None:
    """A result that an answer has twice is read where its files are."""
    for keys in ({"response": {"sunoData": less}, "resultJson": more}, {"resultJson": more, "items": less}):
        assert is_song(asked(load(name), status(name, "SUCCESS", **keys)))


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_of_two_results_the_one_with_more_files_counts(name: str) -> None:
    """Of two results with files the one with more counts, but bare links only if no track has a file."""
    less = [{"id": "a", "audioUrl": AUDIO}, {"id": "b", "audioUrl": None}]
    assert is_song(asked(load(name), status(name, "SUCCESS", items=less, tracks=BOTH)))
    seen = only(asked(load(name), status(name, "SUCCESS", items=less, resultUrls=[AUDIO, OTHER])))
    assert [("a", AUDIO), ("b", None)] == [(track.id, track.audio_url) for track in seen.tracks]


def test_links_beside_whole_tracks_add_none(provider_class: Make) -> None:
    """Links that repeat the files of complete tracks, in other formats too, make no further ones."""
    name = provider_class().info.name
    links = [AUDIO, OTHER, "https://files.example/a.wav", "https://files.example/b.wav"]
    assert is_song(asked(provider_class, status(name, "SUCCESS", resultUrls=links, tracks=BOTH)))


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row("more", [{"info": {"links": [AUDIO, OTHER]}}, {"resultInfoJson": json.dumps({"urls": [AUDIO, OTHER]})}])
def test_bare_links_are_found_below_unknown_keys(name: str, more: Body) -> None:
    """A list of links to audio files is the result wherever it stands, except in what was asked for."""
    links = ["https://files.example/a.png", AUDIO, OTHER]
    assert is_song(asked(load(name), status(name, "SUCCESS", **more)))
    assert is_song(asked(load(name), status(name, "SUCCESS", made={"all": links})))
    assert () == only(asked(load(name), status(name, "SUCCESS", param={"all": links}))).tracks


@each_row(
    "spell", [str.upper, str.title, lambda key: f" {key}", lambda key: f"{key} ", lambda key: key.replace("_", " ")]
)
def test_keys_may_have_blanks_and_any_case(provider_class: Make, spell: Callable[[str], str]) -> None:
    """Blanks in and around keys make no difference: a schema of kie.ai's has a key that begins with one."""

    def spelt(value: object) -> object:
        if isinstance(value, dict):
            return {spell(key): spelt(item) for key, item in value.items()}
        return [spelt(item) for item in value] if isinstance(value, list) else value

    name = provider_class().info.name
    for body in (status(name, "SUCCESS", tracks=BOTH), delivery(name, title="Rain")):
        assert hooked(provider_class, body) == hooked(provider_class, spelt(body))


# --- words and parts -------------------------------------------------------------------------------------------------


@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_the_errors_of_tracks_are_told_with_the_failure(name: str) -> None:
    """A failure has the errors of its tracks beside its own words, each once, and no other texts of theirs."""
    lost: Body = {"id": "a", "audio_url": "", "status": "failed", "error": "clip_error", "description": "a song"}
    body: Body = {
        "code": 500,
        "msg": "failed",
        "task_id": "t1",
        "status": "failed",
        "data": [lost, {**lost, "id": "b"}],
    }
    for event in (hooked(load(name), body)[-1], asked(load(name), {**body, "code": 200})[-1]):
        assert isinstance(event, Failed)
        assert "failed clip_error" == event.message


@each_row("name", ["kie", "sunoapi"])
@each_row("lost", [[{"id": "a", "audio_url": "", "error": "account_missing"}], None])
def test_a_recovery_that_brought_nothing_says_why(name: str, lost: object) -> None:
    """The callback of a failed recovery has the errors of its tracks: docs.sunoapi.org/suno-api/recovery-audio."""
    said = "success" if lost else "account_missing"
    failed = hooked(load(name), {"code": 500, "msg": said, "task_id": "r1", "data": lost})[-1]
    assert isinstance(failed, Failed)
    assert ("r1", "account_missing") == (failed.task_id, failed.message)


@each_row("key", ["conversion_path", "audio_url"])
def test_musicgpt_may_list_its_files(key: str) -> None:
    """Both files of a task may stand in one list, in a status answer and in a webhook."""
    body = status("musicgpt", "COMPLETED", **{key: [AUDIO, OTHER]})
    assert is_song(asked(load("musicgpt"), body))
    assert is_song(hooked(load("musicgpt"), body))


@each_row("code", ["success", "OK", "Done", "000", "200.0", 204, "200"])
@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_a_good_code_fails_no_task(name: str, code: object) -> None:
    """A webhook whose code means success, also as a word, never fails its task, even without a track or a word."""
    done: Body = {"callbackType": "complete", "status": "SUCCESS", "task_id": "t1"}
    (seen,) = hooked(load(name), {"code": code, "msg": "ok", "data": {**done, "data": []}})
    assert Progress(task_id="t1", claimed_stage=Stage.COMPLETE) == seen
    assert Progress(task_id="t1", ask_now=True) == only(hooked(load(name), {"code": code, "data": {"task_id": "t1"}}))


@each_row("code", [400, 422, 500])
@each_row("name", ["kie", "kie-jobs"])
def test_a_missing_field_is_a_fault_of_the_request(name: str, code: int) -> None:
    """kie.ai's "Please enter callBackUrl" (measured in 2026) is no refusal of the content, under any code."""
    outcome = submitted(load(name), {"code": code, "msg": "Please enter callBackUrl", "data": None})
    assert isinstance(outcome, Refused)
    assert (ProviderError, str(code)) == (type(outcome.error), outcome.error.code)


@each_row("key", ["result", "response", "files", "output", "data"])
def test_a_bare_link_of_a_running_task_may_be_a_page(provider_class: Make, key: str) -> None:
    """A bare link without an audio suffix is a file only once the task is done."""
    name, page = provider_class().info.name, "https://files.example/tasks/t1"
    for link in (page, [page]):
        assert () == only(asked(provider_class, status(name, "running", **{key: link}))).tracks
        done = only(asked(provider_class, status(name, "SUCCESS", **{key: link})))
        assert [page] == [track.audio_url for track in done.tracks]


# --- what a careful reader must not conclude -------------------------------------------------------------------------


@each_row(
    ("http", "body"),
    [
        (429, {"status": "error", "message": "Too many requests"}),
        (500, {"success": False, "status": "FAILED", "message": "Internal server error"}),
    ],
)
def test_a_failed_call_about_a_task_of_musicgpt_is_doubtful(http: int, body: Body) -> None:
    """A status call that failed does not end the task at once, even if it names the task."""
    response = HttpResponse(status=http, body=msgspec.json.encode({**body, "task_id": "t1"}))
    events = load("musicgpt")(KEY).parse_status(response)
    assert [True] == [event.is_doubtful for event in events if isinstance(event, Failed)]


@each_row(
    ("body", "kind"),
    [
        ({"code": 502, "status": "Bad Gateway", "msg": "upstream"}, ProviderError),
        ({"success": False, "code": 429, "status": "error", "message": "Rate limit"}, RateLimitError),
        ({"success": False, "code": 401, "status": "error", "message": "Unauthorized"}, AuthError),
    ],
)
def test_an_error_code_in_a_status_answer_is_no_failed_task(provider_class: Make, body: Body, kind: type) -> None:
    """An envelope's error without a task is an error of the call, whatever its status word is."""
    with pytest.raises(kind):
        asked(provider_class, body)


def test_an_unknown_callback_type_is_not_complete() -> None:
    """A callback's own type outranks a status beside it: sunoapi.org has sent `second`, which ends nothing."""
    data = {"callbackType": "second", "status": "success", "task_id": "t1", "data": [{"id": "a", "audio_url": AUDIO}]}
    seen = only(hooked(load("sunoapi"), {"code": 200, "data": data}))
    assert (None, "second", True) == (seen.claimed_stage, seen.word, seen.ask_now)


@each_row(
    "says",
    [
        *("prompt has too many characters", "too many tags", "too many tokens"),
        *("Unsupported sampling frequency of the audio", "Please check the guidelines for uploadUrl"),
        *("The uploaded audio violates the maximum length", "Your account violates our terms of service"),
    ],
)
def test_words_that_mean_something_else_sort_no_refusal(provider_class: Make, says: str) -> None:
    """Such a refusal is neither a rate limit, which callers would repeat for ever, nor one of the content."""
    outcome = submitted(provider_class, {"success": False, "message": says})
    assert isinstance(outcome, Refused)
    assert (ProviderError, False) == (type(outcome.error), outcome.error.retryable)


@each_row(
    ("body", "task_id"),
    [
        ({"data": {"id": "task-unified-17"}, "error_msg": "成功"}, "task-unified-17"),
        ({"id": "task-unified-17", "errorMessage": "none yet"}, "task-unified-17"),
        ({"data": {"uuid": "0f3a4b5c-0000-4000-8000-0000000000f1"}, "errorMessage": "OK, queued"}, None),
    ],
)
def test_an_error_text_beside_a_task_refuses_nothing(provider_class: Make, body: Body, task_id: str | None) -> None:
    """A text under a key for errors is no refusal where the answer may name a task."""
    outcome = submitted(provider_class, body)
    assert isinstance(outcome, Unknown if task_id is None else Submitted)
    assert task_id == getattr(outcome, "task_id", None)


def test_a_link_of_the_task_does_not_replace_its_tracks() -> None:
    """Before the end, a link beside the list of tracks may be the source's."""
    tracks = [{"id": "a", "streamAudioUrl": "https://files.example/s"}, {"id": "b"}]
    body = status("kie", "TEXT_SUCCESS", audioUrl=OTHER, response={"sunoData": tracks})
    assert [("a", None), ("b", None)] == [
        (track.id, track.audio_url) for track in only(asked(load("kie"), body)).tracks
    ]


def test_a_mirror_of_a_file_is_no_second_take() -> None:
    """Of a track with an id, two links to a file of one name are one file."""
    links = ["https://cdn1.example/a.mp3", "https://cdn2.example/a.mp3"]
    tracks = [{"id": "a", "audio_url": links}, {"id": "b", "audio_url": AUDIO}]
    seen = only(asked(load("kie"), status("kie", data=tracks)))
    assert [("a", links[0]), ("b", AUDIO)] == [(track.id, track.audio_url) for track in seen.tracks]


def test_a_bare_balance_counts_before_what_stands_beside_it() -> None:
    """kie.ai's balance is `data` itself; other numbers beside it are not balances."""
    for name in ("kie", "sunoapi"):
        provider = load(name)(KEY)
        assert isinstance(provider, Credits)
        body = msgspec.json.encode({"code": 200, "data": 100, "remaining": 19})
        assert 100.0 == provider.parse_credits(HttpResponse(status=200, body=body))
