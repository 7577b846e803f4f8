"""Variants of answers that vendors send beside their documented shapes: one test for each kind, at all five APIs.

The examples come from public clients of the vendors and of their siblings, and from recordings of 2025-12 to 2026-11;
the other spellings are invented.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audioext.errors import AudioextError, AuthError, ContentError, CreditsError, DecodeError, ProviderError
from audioext.http.messages import HttpResponse
from audioext.models.events import Event, Failed, Progress, Refused, Submitted, Unknown
from audioext.models.results import FailureReason, Stage
from audioext.providers import load
from audioext.providers.base import Credits, Provider, Uploads
from tests.support.tables import each_row
from tests.unit.providers.conftest import json_values

KEY = "sk-never-shown-0123456789"
AUDIO = "https://files.example/a.mp3"
OTHER = "https://files.example/b.mp3"

Body = dict[str, object]
Make = Callable[..., Provider]


def status(provider: str, word: object = "SUCCESS", **more: object) -> Body:
    """Return a status answer in *provider*'s usual shape, without tracks."""
    if provider == "musicgpt":
        return {"success": True, "conversion": {"task_id": "t1", "status": word, **more}}
    key = "state" if provider == "kie-jobs" else "status"
    return {"code": 200, "msg": "success", "data": {"taskId": "t1", key: word, **more}}


def songs(provider: str, **sides: object) -> Body:
    """Return two tracks in the shape of *provider*'s status answers, each with these side fields."""
    if provider == "musicgpt":
        numbered = {f"{name}_{index}": value for name, value in sides.items() for index in (1, 2)}
        ids = {"conversion_id_1": "a", "conversion_id_2": "b"}
        return {**ids, "conversion_path_1": AUDIO, "conversion_path_2": OTHER, **numbered}
    key = "audio_id" if provider == "vidgo" else "id"
    both: list[Body] = [{key: "a", "audio_url": AUDIO, **sides}, {key: "b", "audio_url": OTHER, **sides}]
    if provider == "kie-jobs":
        return {"resultJson": json.dumps({"data": both})}
    return {"files": both} if provider == "vidgo" else {"response": {"sunoData": both}}


def delivery(provider: str, **sides: object) -> Body:
    """Return a complete song in the shape of *provider*'s webhooks."""
    if provider in {"vidgo", "musicgpt"}:
        return status(provider, "finished", **songs(provider, **sides))
    both = [{"id": "a", "audio_url": AUDIO, **sides}, {"id": "b", "audio_url": OTHER, **sides}]
    return {"code": 200, "msg": "ok", "data": {"callbackType": "complete", "task_id": "t1", "data": both}}


def asked(made: Make, body: object) -> tuple[Event, ...]:
    """Return what a status answer decodes to."""
    return made(KEY).parse_status(HttpResponse(status=200, body=msgspec.json.encode(body)))


def hooked(made: Make, body: object) -> tuple[Event, ...]:
    """Return what a webhook decodes to."""
    return made(KEY).parse_webhook(msgspec.json.encode(body))


def submitted(made: Make, body: object, http: int = 200) -> Submitted | Refused | Unknown:
    """Return what a submit's answer decodes to."""
    return made(KEY).parse_submit(HttpResponse(status=http, body=msgspec.json.encode(body)))


def only(events: tuple[Event, ...]) -> Progress:
    """Return the only event, which has to be progress."""
    (seen,) = events
    assert isinstance(seen, Progress)
    return seen


def is_song(events: tuple[Event, ...], *, count: int = 2) -> bool:
    """Return whether *events* are a complete song with *count* files."""
    seen = only(events)
    return (Stage.COMPLETE, count) == (seen.claimed_stage, sum(bool(track.audio_url) for track in seen.tracks))


# --- status words ----------------------------------------------------------------------------------------------------

DONE = (
    *("SUCCESS", "success", "Success", "COMPLETED", "completed", "Complete", "SUCCESSFUL", "succeeded", "SUCCEED"),
    *("finished", "FINISHED", "finish", "done", "ready", "generated", "TASK_COMPLETED", "taskCompleted"),
    *("task-success", "ALL_SUCCESS", "all done", " success \n", "COMPLETED_WITH_ERRORS", "audio_success"),
    *(
        "OK",
        "available",
        "Fulfilled",
        "FINALIZED",
        "delivered",
        "rendered",
        "SUCCESS_WITH_WARNINGS",
        "passed",
        "all_tracks_ready",
        "SONGS_COMPLETED",
    ),
)
FAILED = (
    *("FAIL", "fail", "FAILED", "failed", "Failure", "ERROR", "error", "errored", "GENERATE_LYRICS_FAILED"),
    *("GENERATE_AUDIO_FAILED", "CREATE_TASK_FAILED", "SENSITIVE_WORD_ERROR", "taskFailed", "cancelled", "CANCELED"),
    *("aborted", "rejected", "timeout", "TIMED_OUT", "timed out", "unsuccessful", "expired", "blocked", "exception"),
    *("ERR", "revoked", "CRASHED", "content_violation", "timedout", "declined", "REFUNDED", "nsfw", "interrupted"),
    *("faulted", "deleted", "removed", "UNSUCCESS"),
)
RUNNING = (
    *("PENDING", "pending", "waiting", "queued", "queuing", "IN_QUEUE", "inQueue", "generating", "running"),
    *("in progress", "IN_PROGRESS", "inprogress", "not_started", "NotStarted", "submitted", "processing"),
    *("RENDERING", "mixing", "analyzing", "enqueued", "retrying", "downloading", "initializing", "ongoing", "uploaded"),
)


@each_row("word", DONE)
def test_any_word_for_done_ends_the_wait(provider_class: Make, word: str) -> None:
    """A status word for done, in any spelling, completes the song with the tracks beside it."""
    name = provider_class().info.name
    assert is_song(asked(provider_class, status(name, word, **songs(name))))
    assert is_song(hooked(provider_class, status(name, word, **songs(name))))


@each_row("word", FAILED)
def test_any_word_for_failed_ends_the_wait(provider_class: Make, word: str) -> None:
    """A status word for failed, in any spelling, fails the task with the vendor's message."""
    body = status(provider_class().info.name, word, message="no luck")
    for events in (asked(provider_class, body), hooked(provider_class, body)):
        (failed,) = events
        assert isinstance(failed, Failed)
        assert "no luck" == failed.message


@each_row("word", RUNNING)
def test_any_word_for_running_claims_nothing(provider_class: Make, word: str) -> None:
    """A status word for running claims nothing, and is not kept as unknown."""
    assert Progress(task_id="t1") == only(asked(provider_class, status(provider_class().info.name, word)))


@each_row(("flag", "means"), [(0, "runs"), (1, "song"), ("1", "song"), (2, "fails"), (3, "fails"), ("9", "unknown")])
def test_a_success_flag_counts_like_a_status_word(provider_class: Make, flag: object, means: str) -> None:
    """A `successFlag`, as kie.ai's other models have, counts like a status word."""
    task: Body = {"taskId": "t1", "successFlag": flag}
    if means == "song":
        assert is_song(asked(provider_class, {"code": 200, "data": {**task, "tracks": LISTED}}))
        return
    (seen,) = asked(provider_class, {"code": 200, "data": {**task, "errorMessage": "no luck"}})
    if means == "fails":
        assert isinstance(seen, Failed)
        assert "no luck" == seen.message
    else:
        assert Progress(task_id="t1", word="9" if means == "unknown" else None) == seen


@each_row("word", ["remastering", "second", "LYRICS_SUCCESS", "COVER_COMPLETED", "no\u00e7\u00e3o", "1"])
def test_an_unknown_word_is_kept(provider_class: Make, word: str) -> None:
    """An unknown status word claims nothing, and is kept."""
    seen = only(asked(provider_class, status(provider_class().info.name, word)))
    assert (None, word) == (seen.claimed_stage, seen.word)


@each_row("word", ["CALLBACK_EXCEPTION", "callback_exception", "CallbackException", "WEBHOOK_FAILED"])
@each_row("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
def test_a_complaint_about_our_endpoint_does_not_fail_the_task(name: str, word: str) -> None:
    """A callback complaint is a song if files are there, else doubtful; in a webhook it makes a status call due."""
    provider = load(name)
    assert is_song(asked(provider, status(name, word, **songs(name))))
    (failed,) = asked(provider, status(name, word))
    assert isinstance(failed, Failed)
    assert failed.is_doubtful
    assert Progress(task_id="t1", ask_now=True) == only(hooked(provider, status(name, word)))


@given(word=st.sampled_from([word for word in (*DONE, *FAILED, *RUNNING) if word.isupper()]), data=st.data())
def test_the_spelling_of_a_word_makes_no_difference(word: str, data: st.DataObject) -> None:
    """Case and separators in a status word do not matter."""
    parts = [data.draw(st.sampled_from([part.lower(), part.title(), part])) for part in word.split("_")]
    spelt = data.draw(st.sampled_from(["_", "-", " ", ".", "__"])).join(parts)
    kie = load("kie")
    before, after = (asked(kie, status("kie", each, **songs("kie"))) for each in (word, spelt))
    assert [type(event) for event in before] == [type(event) for event in after]
    assert isinstance(before[0], Progress)
    assert isinstance(after[0], Progress)
    assert before[0].claimed_stage == after[0].claimed_stage


# --- places and names ------------------------------------------------------------------------------------------------

LISTED: list[Body] = [{"id": "a", "audioUrl": AUDIO}, {"id": "b", "audioUrl": OTHER}]


@each_row(
    "key", ["data", "sunoData", "suno_data", "items", "files", "tracks", "songs", "clips", "results", "audio_list", "x"]
)
@each_row(
    "wrapped",
    [
        lambda listed: listed,
        json.dumps,
        lambda listed: json.dumps(json.dumps(listed)),
        lambda listed: {"0": listed[0], "1": listed[1]},
        lambda listed: [json.dumps(song) for song in listed],
        lambda listed: [listed],
        lambda listed: [[song] for song in listed],
        lambda listed: [{"song": song} for song in listed],
        lambda listed: {"data": listed},
        lambda listed: {"response": json.dumps({"sunoData": listed})},
        lambda listed: {"audio": [{"url": song["audioUrl"], "content_type": "audio/mpeg"} for song in listed]},
    ],
)
def test_a_result_is_found_wherever_it_stands(
    provider_class: Make, key: str, wrapped: Callable[[object], object]
) -> None:
    """Tracks are found under any key, in lists, objects and JSON texts."""
    name = provider_class().info.name
    for body in (status(name, **{key: wrapped(LISTED)}), {"taskId": "t1", "status": "SUCCESS", key: wrapped(LISTED)}):
        assert is_song(asked(provider_class, body))
        assert is_song(hooked(provider_class, body))


WRAPPERS = ("payload", "body", "task", "job", "record", "webhook", "message", "info", "obj", "content", "result", "0")


@given(
    key=st.one_of(st.sampled_from(WRAPPERS), st.text("xyz_7 \u00e4.-$", min_size=1, max_size=9)),
    depth=st.integers(1, 3),
)
def test_a_wrapper_may_have_any_name(provider_class: Make, key: str, depth: int) -> None:
    """A wrapper around a whole answer or its tracks may have any name."""
    name = provider_class().info.name
    body: object = status(name, **songs(name))
    result: object = LISTED
    for _ in range(depth):
        body, result = {key: body}, {key: result}
    assert is_song(asked(provider_class, body))
    assert is_song(asked(provider_class, status(name, some=result)))


@each_row("key", ["callback", "request", "input", "param", "source"])
@each_row("wrapped", [lambda body: body, json.dumps, lambda body: [body]])
def test_a_wrapper_of_all_may_be_called_like_an_echo(
    provider_class: Make, key: str, wrapped: Callable[[object], object]
) -> None:
    """A wrapper around a whole body may even have the name of an echoed request, since relays do that."""
    name = provider_class().info.name
    assert is_song(hooked(provider_class, {key: wrapped(delivery(name))}))
    assert is_song(asked(provider_class, {key: wrapped(status(name, **songs(name)))}))


@each_row("id_", ["same", "t1", 7])
def test_two_files_under_one_id_are_two_tracks(provider_class: Make, id_: object) -> None:
    """Two files of one kind under one id are two tracks without ids; an MP3 and a WAV file are one track."""
    name = provider_class().info.name
    both: list[Body] = [{"id": id_, "audio_url": AUDIO}, {"id": id_, "audio_url": OTHER}]
    for events in (
        asked(provider_class, status(name, data=both)),
        hooked(provider_class, {"code": 200, "data": {"callbackType": "complete", "task_id": "t1", "data": both}}),
    ):
        assert [(None, AUDIO), (None, OTHER)] == [(track.id, track.audio_url) for track in only(events).tracks]
    numbered = {"conversion_id_1": "x", "conversion_id_2": "x", "conversion_path_1": AUDIO, "conversion_path_2": OTHER}
    if name == "musicgpt":
        assert [None, None] == [track.id for track in only(asked(provider_class, status(name, **numbered))).tracks]
    both[1]["audio_url"] = AUDIO.replace(".mp3", ".wav?x=/.mp3")
    assert {str(id_)} == {track.id for track in only(asked(provider_class, status(name, data=both))).tracks}


@each_row("key", ["param", "input", "requestParams", "source_audio", "uploaded", "originalFile"])
def test_the_repeated_source_is_not_a_track(provider_class: Make, key: str) -> None:
    """The source of a task that an answer repeats is not taken for a track."""
    for value in (LISTED, json.dumps(LISTED), {"audio_url": AUDIO}):
        seen = only(asked(provider_class, status(provider_class().info.name, "generating", **{key: value})))
        assert () == seen.tracks


@each_row(
    "key",
    [
        *("audio_url", "audioUrl", "AudioURL", "audio-url", "file_url", "fileUrl", "mp3_url", "song_url", "url"),
        *("download_url", "wav_url", "conversion_path", "conversionPath", "conversion_path_wav", "sourceAudioUrl"),
        *("link", "src", "href", "music", "cdn_mp3"),
    ],
)
@each_row("link", [AUDIO, [AUDIO], {"url": AUDIO}])
def test_a_file_is_found_under_any_name(provider_class: Make, key: str, link: object) -> None:
    """A link to a file is found under any key, and under known keys also in a list or an object."""
    if not isinstance(link, str) and key in {"src", "href", "music", "cdn_mp3", "sourceAudioUrl", "wav_url"}:
        return
    if not isinstance(link, str) and key == "conversion_path_wav":
        return
    body = status(provider_class().info.name, data=[{"id": "a", key: link, "image_url": "https://files.example/a.png"}])
    assert is_song(asked(provider_class, body), count=1)


def test_a_link_may_be_a_list_in_a_text(provider_class: Make) -> None:
    """A JSON text with a list of links is its first audio file, and any other text in its place gives no link."""
    name, image = provider_class().info.name, "https://files.example/a.png"
    body = status(name, data=[{"id": "a", "audio_url": json.dumps([image, AUDIO])}])
    assert AUDIO == only(asked(provider_class, body)).tracks[0].audio_url
    for text in ("[", f'["{AUDIO}"', "[1]", json.dumps([image])):
        body = status(name, "text", data=[{"id": "a", "audio_url": text}])
        assert all(track.audio_url is None for track in only(asked(provider_class, body)).tracks)


@each_row("key", ["metadata", "files", "Result", "output", "urls", "links", "assets"])
@each_row("held", [{"audio_url": AUDIO}, {"mp3": AUDIO}, [{"url": AUDIO}]])
def test_a_file_may_stand_one_level_inside_its_track(provider_class: Make, key: str, held: object) -> None:
    """A file inside an object of its track is found if the task is done and the track has no other link."""
    name = provider_class().info.name
    assert is_song(asked(provider_class, status(name, data=[{"id": "a", key: held}, {"id": "b", key: held}])))
    body = status(name, "generating", data=[{"id": "a", key: held}])
    assert () == tuple(track for track in only(asked(provider_class, body)).tracks if track.audio_url)
    (known,) = only(asked(provider_class, status(name, data=[{"id": "a", "audio_url": OTHER, key: held}]))).tracks
    assert OTHER == known.audio_url


def test_bare_links_are_files_and_images_are_not(provider_class: Make) -> None:
    """A result of bare links shows their files, without those to images."""
    name = provider_class().info.name
    links = ["https://files.example/cover.png", AUDIO, OTHER]
    assert is_song(asked(provider_class, status(name, resultUrls=links)))
    assert is_song(asked(provider_class, status(name, resultJson=json.dumps({"resultUrls": links}))))
    assert is_song(asked(provider_class, status(name, resultUrls=AUDIO)), count=1)
    assert is_song(asked(provider_class, status(name, resultJson=json.dumps({"resultUrl": AUDIO}))), count=1)


def test_a_delivery_of_bare_tracks_shows_them(provider_class: Make) -> None:
    """A webhook of bare tracks shows them and claims no stage; a list of anything else raises `DecodeError`."""
    (seen,) = provider_class().parse_webhook(json.dumps(LISTED).encode())
    assert isinstance(seen, Progress)
    assert ([AUDIO, OTHER], None) == ([track.audio_url for track in seen.tracks], seen.claimed_stage)
    with pytest.raises(DecodeError):
        provider_class().parse_webhook(b"[1, 2]")


@each_row("link", ["https://files.example/NULL.mp3", "https://files.example/nan.mp3", "https://undefined/a.mp3", "N/A"])
@each_row("key", ["audio_url", "audioUrl"])
def test_a_link_of_a_word_for_nothing_is_left_out(provider_class: Make, key: str, link: str) -> None:
    """A link made of a word for nothing, such as NULL, in any case or as a host, is left out."""
    seen = only(asked(provider_class, status(provider_class().info.name, data=[{"id": "a", key: link}])))
    assert [] == [track for track in seen.tracks if track.audio_url]


@each_row("link", ["https://files.example/None.mp3", "https://files.example", "", None, "null", "undefined", False, 0])
def test_a_word_for_nothing_in_place_of_a_link_gives_no_audio(provider_class: Make, link: object) -> None:
    """A word for nothing, such as undefined, in place of a link leaves its track without audio."""
    seen = only(asked(provider_class, status(provider_class().info.name, data=[{"id": "a", "audio_url": link}])))
    assert [] == [track for track in seen.tracks if track.audio_url]


@each_row("provider", ["kie", "kie-jobs", "sunoapi"])
@each_row("key", ["callback_type", "CallbackType", "type", "event", "eventType"])
def test_a_callbacks_type_is_known_under_other_names(provider: str, key: str) -> None:
    """A callback's type is found under other names, unless its word is about something else."""
    said = {"task_id": "t1", "data": [{"id": "a", "audio_url": AUDIO}]}
    make = load(provider)
    claimed = only(hooked(make, {"code": 200, "data": {**said, key: "complete"}})).claimed_stage
    other = only(hooked(make, {"code": 200, "data": {**said, "status": "SUCCESS", "type": "upload_extend"}}))

    assert (Stage.COMPLETE, Stage.COMPLETE) == (claimed, other.claimed_stage)


@each_row("provider", ["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"])
@each_row(
    "said",
    [
        {"type": "error", "message": "no"},
        {"event": "error"},
        {"code": 200, "data": {"type": "error"}},
        {"code": 1010, "msg": "the queue is busy, your task was queued"},
    ],
)
def test_a_callback_word_in_a_submit_answer_is_an_unknown_outcome(provider: str, said: dict[str, object]) -> None:
    """An error word of callbacks in a submit's answer leaves the outcome unknown, so that nothing is paid twice."""
    answer = HttpResponse(status=200, body=json.dumps(said).encode())

    assert isinstance(load(provider)("key").parse_submit(answer), Unknown)


UPLOADED = "https://files.example/kieai/1.wav"


@each_row("provider", ["kie", "kie-jobs", "sunoapi"])
@each_row(
    "body",
    [
        *({"success": True, "data": {key: UPLOADED}} for key in ("downloadUrl", "download_url", "fileUrl", "url")),
        {"code": 200, "data": UPLOADED},
        {"downloadUrl": UPLOADED},
        {"code": 200, "data": [{"downloadUrl": UPLOADED}]},
        {"code": 200, "data": json.dumps({"downloadUrl": UPLOADED})},
        {"code": 200, "data": {"file": {"url": UPLOADED}}},
        {"code": 200, "data": {"downloadUrl": "", "fileUrl": UPLOADED, "url": OTHER}},
    ],
)
def test_an_uploaded_file_is_found_wherever_it_stands(provider: str, body: object) -> None:
    """The link of an uploaded file is found under any name of the file host's answer."""
    account = load(provider)(KEY)
    assert isinstance(account, Uploads)
    assert UPLOADED == account.parse_upload(HttpResponse(status=200, body=msgspec.json.encode(body)))


@each_row("provider", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row(
    "body",
    [
        *({"code": 200, "data": each} for each in (42.5, "42.5", " 42.50 ", {"credits": 42.5}, [{"credits": 42.5}])),
        *({"data": {key: "42.5", "used": 7}} for key in ("credits_amount", "remainingCredits", "credit", "balance")),
        {"code": 200, "data": {"balance": {"amount": 42.5, "currency": "credits"}}},
        {"code": 200, "credits": 42.5},
    ],
)
def test_a_balance_is_found_wherever_it_stands(provider: str, body: object) -> None:
    """A balance is found as a number or text, flat or wrapped."""
    account = load(provider)(KEY)
    assert isinstance(account, Credits)
    assert 42.5 == account.parse_credits(HttpResponse(status=200, body=msgspec.json.encode(body)))


@each_row("provider", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@each_row(("text", "balance"), [("1,234", 1234.0), ("1,234,567.5", 1234567.5), ("12,5", None), ("1,2345", None)])
def test_a_balance_may_have_commas_at_its_thousands(provider: str, text: str, balance: float | None) -> None:
    """A balance may have commas between thousands; with a comma elsewhere it is refused as ambiguous."""
    account = load(provider)(KEY)
    assert isinstance(account, Credits)
    answer = HttpResponse(status=200, body=msgspec.json.encode({"code": 200, "data": text}))
    if balance is None:
        with pytest.raises(DecodeError):
            account.parse_credits(answer)
    else:
        assert balance == account.parse_credits(answer)


# --- encodings -------------------------------------------------------------------------------------------------------


@each_row(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: b"\xef\xbb\xbf\xef\xbb\xbf" + text.encode(),
        lambda text: b"\r\n\xef\xbb\xbf " + text.encode() + b"\0\n",
        lambda text: json.dumps(text).encode(),
        lambda text: json.dumps(json.dumps(text)).encode(),
        lambda text: f"[{text}]".encode(),
        lambda text: json.dumps([text]).encode(),
    ],
)
def test_a_body_may_be_wrapped_as_text(provider_class: Make, encode: Callable[[str], bytes]) -> None:
    """Byte order marks, blanks, and JSON inside JSON texts are accepted around a body."""
    provider, name = provider_class(KEY), provider_class().info.name
    answer = HttpResponse(status=200, body=encode(json.dumps(status(name, **songs(name)))))
    assert is_song(provider.parse_status(answer))
    assert is_song(provider.parse_webhook(encode(json.dumps(delivery(name)))))
    made = HttpResponse(status=200, body=encode('{"code": 200, "data": {"taskId": "t1"}}'))
    assert Submitted(task_id="t1") == provider.parse_submit(made)


@each_row("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_another_encoding_is_refused_by_its_name(provider_class: Make, encoding: str) -> None:
    """A body in UTF-16 raises `DecodeError`, which names the encoding."""
    with pytest.raises(DecodeError, match="UTF-16"):
        provider_class(KEY).parse_webhook(json.dumps(delivery("kie")).encode(encoding))


@each_row("careless", [rb'"rain \ud83d"', b"NaN", b"-Infinity", b'"caf\xe9"', b'"two\nlines"', b'"tab\there"'])
def test_a_careless_value_never_costs_the_song(provider_class: Make, careless: bytes) -> None:
    """NaN, bytes of another encoding or raw line breaks beside a track do not lose the song."""
    provider, name = provider_class(KEY), provider_class().info.name
    body = msgspec.json.encode(status(name, songs=[{"id": "a", "audio_url": AUDIO, "duration": 77777}]))
    answer = HttpResponse(status=200, body=body.replace(b"77777", careless))
    assert is_song(provider.parse_status(answer), count=1)
    assert is_song(provider.parse_webhook(answer.body), count=1)


@each_row(
    ("body", "fails"),
    [
        ({"code": 400, "msg": "no luck", "data": {"task_id": "t1"}}, True),
        ({"code": 200, "data": {"task_id": "t1"}}, False),
        ({"task_id": "t1"}, False),
    ],
)
def test_a_webhook_without_a_word_is_asked_about(provider_class: Make, body: object, fails: bool) -> None:
    """A webhook with only a failure code fails the task, one without any word asks for a status call."""
    (event,) = hooked(provider_class, body)
    if fails and provider_class().info.name != "musicgpt":
        assert isinstance(event, Failed)
        assert ("400", "no luck") == (event.code, event.message)
    else:
        assert Progress(task_id="t1", ask_now=True) == event


@each_row("code", [200, 200.0, "200", " 200 ", "0", 0, 201, None, True, "success", [], {}])
def test_a_good_code_may_be_written_in_any_way(provider_class: Make, code: object) -> None:
    """A code for success in any form, or a missing one, lets the tracks count."""
    name = provider_class().info.name
    assert is_song(asked(provider_class, {**status(name, **songs(name)), "code": code}))
    assert is_song(hooked(provider_class, {**delivery(name), "code": code}))


@each_row(("id_", "known"), [(123, "123"), (123.0, "123"), (" t1\n", "t1"), ("t1", "t1")])
def test_an_id_may_be_a_number(provider_class: Make, id_: object, known: str) -> None:
    """Ids of tasks and tracks may be numbers or padded text."""
    assert Submitted(task_id=known) == submitted(provider_class, {"code": 200, "data": {"task_id": id_}})
    body = {"taskId": id_, "status": "SUCCESS", "data": [{"id": id_, "audio_url": AUDIO}]}
    seen = only(hooked(provider_class, body))
    assert (known, [known]) == (seen.task_id, [track.id for track in seen.tracks])


ODD = st.one_of(
    st.sampled_from([None, "", 0, False, True, -1, 1e300, "NaN", "7.5", "null", [], {}, [[]], [None], {"a": 1}]),
    json_values(),
)

# --- failures --------------------------------------------------------------------------------------------------------

SAYING = (
    *("msg", "message", "error", "errorMessage", "error_message", "errorMsg", "error_msg", "failMsg", "fail_reason"),
    *("failReason", "failure_reason", "reason", "detail", "details", "description", "error_description", "status_msg"),
    *("statusMessage", "errMsg", "err_msg", "err", "errors", "failed_reason", "failureMessage", "error_detail"),
    *("userMessage", "public_reason", "note", "comment", "tips"),
)
SAYS = "The lyrics were flagged for moderation"


@each_row("key", SAYING)
@each_row(
    "value",
    [
        SAYS,
        {"message": SAYS},
        {"code": "E7", "msg": SAYS},
        {"errorMessage": SAYS},
        [SAYS],
        [{"description": SAYS}],
        {"error": {"detail": [{"text": SAYS}]}},
        json.dumps({"message": SAYS}),
    ],
)
def test_a_failures_message_is_found_under_any_name(provider_class: Make, key: str, value: object) -> None:
    """A failure's message and reason are found under any name and in any wrapping."""
    name = provider_class().info.name
    inside = status(name, "failed", **{key: value})
    beside = {**status(name, "failed"), "msg": "success", key: value}
    deeper = status(name, "failed", response={key: value}, errorMessage=None, error=None)
    for events in (asked(provider_class, inside), hooked(provider_class, beside), asked(provider_class, deeper)):
        failed = events[-1]
        assert isinstance(failed, Failed)
        assert SAYS in failed.message
        assert FailureReason.CONTENT is failed.reason


@each_row("key", ["response", "result", "output", "data", "files", "sunoData"])
@each_row("value", [SAYS, [{"id": "a", "audio_url": None, "error_message": SAYS}, {"id": "b"}]])
def test_a_message_in_place_of_the_tracks_is_the_failures(provider_class: Make, key: str, value: object) -> None:
    """A message in place of the tracks, or in one of them, is the failure's if there is no other."""
    failed = asked(provider_class, status(provider_class().info.name, "failed", **{key: value}))[-1]
    assert isinstance(failed, Failed)
    assert (SAYS, FailureReason.CONTENT) == (failed.message, failed.reason)


def test_a_failures_code_beside_its_task_is_the_tasks(provider_class: Make) -> None:
    """An error code beside a task id is the task's failure, not that of the call."""
    body = {"taskId": "t1", "status": "FAILED", "errorCode": 500, "errorMessage": SAYS}
    for events in (asked(provider_class, body), hooked(provider_class, body)):
        failed = events[-1]
        assert isinstance(failed, Failed)
        assert ("t1", SAYS) == (failed.task_id, failed.message)


@each_row("code", [501, "501", 501.0, " 501 "])
def test_a_code_of_failure_may_be_written_in_any_way(code: object) -> None:
    """kie.ai's code 501, in any form, fails the task in a webhook and in a status answer."""
    kie = load("kie")
    hook = {"code": code, "msg": "no luck", "data": {"callbackType": "error", "task_id": "t1", "data": None}}
    for events in (hooked(kie, hook), asked(kie, {"code": code, "msg": "no luck", "data": None})):
        (failed,) = events
        assert isinstance(failed, Failed)
        assert (FailureReason.GENERATION, "501", "no luck") == (failed.reason, failed.code, failed.message)


@each_row("word", ["text", "first", "complete"])
@each_row("data", [None, []])
def test_an_interim_callback_with_a_bad_code_is_asked_about(word: str, data: object) -> None:
    """A bad code with a stage before COMPLETE asks for a status call; with COMPLETE it fails the task."""
    for provider in ("kie", "sunoapi"):
        body = {"code": 500, "msg": "no luck", "data": {"callbackType": word, "task_id": "t1", "data": data}}
        (event,) = hooked(load(provider), body)
        if word == "complete":
            assert isinstance(event, Failed)
        else:
            assert Progress(task_id="t1", ask_now=True) == event


@each_row(
    ("code", "says"),
    [
        (422, "Your prompt violates our content policy"),
        (422, "Detected as NSFW."),
        (413, "Uploaded audio matches an existing work"),
    ],
)
def test_words_about_the_content_give_the_reason(provider_class: Make, code: int, says: str) -> None:
    """A refusal or failure whose words are about the content has the content as its reason."""
    refused = submitted(provider_class, {"message": says}, code)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, ContentError)
    failed = asked(provider_class, status(provider_class().info.name, "failed", message=says))[-1]
    assert isinstance(failed, Failed)
    assert FailureReason.CONTENT is failed.reason


@each_row("value", [False, "false", "False", 0, "0", "no"])
def test_success_false_is_a_failure(provider_class: Make, value: object) -> None:
    """A webhook with `success` false and nothing else fails its task with the given reason."""
    (failed,) = hooked(provider_class, {"success": value, "task_id": "t1", "reason": "no vocals"})
    assert isinstance(failed, Failed)
    assert ("t1", "no vocals") == (failed.task_id, failed.message)


# --- submits ---------------------------------------------------------------------------------------------------------

NO = "This audio matches copyrighted material"


@each_row(
    ("http", "body"),
    [
        (200, {"code": 400, "msg": NO}),
        (200, {"code": "400", "msg": NO, "data": None}),
        (200, {"code": 400.0, "message": NO}),
        (200, {"Code": 400, "Msg": NO}),
        (200, {"code": 422, "error": {"message": NO}}),
        (200, {"success": False, "message": NO}),
        (200, {"success": "false", "error": NO}),
        (200, {"ok": False, "error": NO}),
        (200, {"status": "error", "message": NO}),
        (200, {"status": "failed", "error_message": NO}),
        (200, {"error": {"code": "COPYRIGHT", "message": NO}}),
        (400, {"message": NO}),
        (400, {"msg": NO}),
        (400, {"error": NO}),
        (400, {"errors": [{"message": NO}]}),
        (400, {"error_description": NO}),
        (400, {"code": 400, "data": {"message": NO}}),
        (400, {"title": "Bad Request", "detail": NO}),
        (400, {"statusCode": 400, "message": [NO], "error": {}}),
        (422, {"detail": [{"loc": ["body", "input"], "msg": NO}]}),
        (400, [{"message": NO}]),
        (400, {"message": {"en": NO}}),
        (400, {"errors": {"prompt": [NO]}}),
        (400, {"code": 1001, "msg": NO}),
        (422, {"statusCode": 422, "error": "Bad Request", "message": [NO]}),
        (200, {"code": 400, "result": {"message": NO}}),
        (200, {"code": 400, "data": NO}),
        (200, {"code": 400, "msg": "", "tips": NO}),
        (200, {"errorCode": 400, "errorMessage": NO}),
        (200, {"data": {"code": 400, "msg": NO}}),
        (200, {"code": 200, "data": {"task_id": None, "status": "failed", "error_message": NO}}),
        (200, {"state": "failed", "reason": NO}),
        (200, {"status": False, "message": NO}),
        (200, {"isSuccess": False, "message": NO}),
        (400, {"code": 400, "msg": "failed", "message": NO}),
        (200, {"code": 400, "msg": "Request failed", "data": {"reason": NO}}),
        (400, {"error": "BAD_REQUEST", "detail": NO}),
        (400, {"error": {"message": "failed", "reason": NO}}),
        (400, {"message": NO, "id": "a request"}),
        (200, {"code": 400, "error": {"id": "an error", "message": NO}}),
        (400, {"message": NO, "user": {"id": "u1", "status": "active"}}),
    ],
)
def test_a_readable_refusal_is_final(provider_class: Make, http: int, body: object) -> None:
    """A refusal without a task is final, has the vendor's words, and is not charged."""
    outcome = submitted(provider_class, body, http)
    assert isinstance(outcome, Refused)
    assert NO in outcome.error.message
    assert isinstance(outcome.error, ContentError)
    assert (False, False) == (outcome.error.charged, outcome.resend)


SHORT = "Insufficient credits"


@each_row(
    ("http", "body"),
    [
        *((200, {"code": code, "msg": SHORT}) for code in (400, 402, 403, 422, 429, 500)),
        *((code, {"message": SHORT}) for code in (400, 402, 403, 422, 429)),
        (200, {"success": False, "message": SHORT}),
        (400, {"detail": "You don't have enough credits to extend copyrighted music"}),
        (400, {"error": {"message": "Your account balance is insufficient, top it up"}}),
        (403, {"error": "The current credits are insufficient."}),
    ],
)
def test_insufficient_credits_are_recognised_under_any_code(provider_class: Make, http: int, body: object) -> None:
    """A refusal for insufficient credits is recognised by its words, whatever its code."""
    outcome = submitted(provider_class, body, http)
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, CreditsError)
    assert (False, False) == (outcome.error.charged, outcome.resend)


@each_row(
    ("http", "body"),
    [
        (500, {"code": 500, "msg": SHORT}),
        (502, {"message": SHORT}),
        (200, {"code": 500, "msg": "Generation failed, no credits were charged"}),
        (200, {"code": 500, "msg": "The balance could not be read"}),
        (200, {"code": 400, "msg": SHORT, "data": {"taskId": "t1"}}),
        (200, {"success": False, "message": "Internal error: insufficient credits"}),
        (200, {"code": 400, "msg": "no", "data": {"taskId": "t1"}}),
        (200, {"code": 400, "msg": "no", "data": {"id": "t1"}}),
        (200, {"code": 500, "msg": "Server exception"}),
        (200, {"code": 500, "msg": "Server exception", "data": {"error": "a row's task_id is required"}}),
        (200, {"code": 500, "msg": "Server exception", "tips": f"see the page about '{SHORT}'"}),
        (200, {"code": -1, "msg": "busy"}),
        (200, {"code": 10001, "msg": "busy"}),
        (200, {"success": False, "message": "Internal error, please try again later"}),
        (200, {"success": False, "message": "database is locked"}),
        (200, {"error": "Deadlock found when trying to get lock"}),
        (200, {"success": False, "message": "We are busy, please try again later"}),
        (200, {"status": "error", "message": "Request timed out"}),
        (200, {"error": "server exception"}),
        (200, {"code": 200, "msg": "success", "data": None}),
        (200, {"code": 200, "data": {"more": "x" * 400}, "msg": "Song Description contained artist name"}),
        (200, {"code": 200, "msg": "success", "data": {"taskId": None}}),
        (200, {"code": 200, "data": [{"task_id": "t1"}, {"task_id": "t2"}]}),
        (408, {"message": "timeout"}),
        (408, {"message": "timeout", "data": {"message": "insufficient credits"}}),
        (500, {"message": "no"}),
        (502, {"code": 400, "msg": "no"}),
        (302, {}),
    ],
)
def test_an_answer_that_may_have_made_a_task_is_unknown(provider_class: Make, http: int, body: object) -> None:
    """An answer that may have made a task leaves the outcome unknown, with a reason that quotes it."""
    outcome = submitted(provider_class, body, http)
    assert isinstance(outcome, Unknown)
    said = body.get("msg") or body.get("message") or body.get("error") or "{" if isinstance(body, dict) else ""
    assert str(said) in outcome.reason


@each_row("code", [429, 455])
def test_a_refusal_that_would_be_resent_names_nothing(code: int) -> None:
    """An id beside a refusal that is resent by itself may be a task's, so nothing is sent again."""
    body = {"code": code, "msg": "try again later"}

    assert isinstance(submitted(load("kie"), body, 200), Refused)
    assert isinstance(submitted(load("kie"), {**body, "id": "t1"}, 200), Unknown)


@each_row("key", ["error", "detail", "data"])
def test_an_error_in_an_object_is_told_once(provider_class: Make, key: str) -> None:
    """The texts of an object inside an answer are told once, though they are also those of the object around it."""
    outcome = submitted(provider_class, {key: {"message": "Slow down", "reason": "No vocals"}}, 404)
    assert isinstance(outcome, Refused)
    assert "Slow down No vocals" == outcome.error.message


UNREADABLE = (
    b"",
    b"null",
    b"[]",
    b"401",
    b'"Unauthorized"',
    b"Insufficient credits",
    b'{"code": 401, "ms',
    b"<html><body>This content is prohibited: too many requests</body></html>",
)
"""Bodies of proxies, gateways and servers that are not the vendor's own JSON."""


@each_row("body", [*UNREADABLE, b"{}"])
@each_row(
    ("http", "error"),
    [(401, AuthError), (403, AuthError), (404, ProviderError), (405, ProviderError), (413, ProviderError)],
)
def test_a_status_that_never_makes_a_task_is_a_refusal_whatever_the_body(
    provider_class: Make, http: int, error: type[ProviderError], body: bytes
) -> None:
    """HTTP 401, 403, 404, 405 and 413 refuse a submit whatever the body: they come before any work; no word counts."""
    if (provider_class.__name__, http, body) == ("SunoApi", 405, b"{}"):
        return  # readable, and there 405 means a rate limit
    outcome = provider_class(KEY).parse_submit(HttpResponse(status=http, body=body))
    assert isinstance(outcome, Refused)
    assert (error, False, False, str(http)) == (
        type(outcome.error),
        outcome.resend,
        outcome.error.charged,
        outcome.error.code,
    )
    assert b"prohibited" not in body or "prohibited" in outcome.error.message


@each_row("body", UNREADABLE)
@each_row("http", [200, 400, 402, 408, 409, 410, 422, 425, 499, 500, 502, 503, 504, 520, 524])
def test_another_status_with_an_unreadable_body_is_unknown(provider_class: Make, http: int, body: bytes) -> None:
    """Any other status with a body that cannot be read leaves the outcome unknown, unless the vendor documents it."""
    outcome = provider_class(KEY).parse_submit(HttpResponse(status=http, body=body))
    is_documented = provider_class.__name__ == "MusicGpt" and http in {400, 402, 409, 422}
    assert isinstance(outcome, Refused if is_documented else Unknown)


def test_a_refusal_that_names_a_task_is_unknown_under_any_status(provider_class: Make) -> None:
    """A task id under HTTP 403 leaves the outcome unknown."""
    assert isinstance(submitted(provider_class, {"data": {"taskId": "t1"}}, 403), Unknown)


@each_row(
    "body",
    [
        {"code": 200, "data": {"taskId": "t1"}},
        {"data": {"task_id": "t1"}, "success": True},
        {"taskID": "t1"},
        {"task-id": "t1", "code": 200},
        {"Data": {"TaskId": "t1"}},
        {"code": 200, "data": [{"taskId": "t1"}]},
        {"code": 200, "data": [{"id": "t1", "status": "queued"}]},
        {"code": 200, "data": [{"id": "r1", "taskId": "t1"}]},
        {"code": 200, "data": {"data": {"taskId": "t1"}}},
        {"result": {"task_id": "t1"}},
        {"task": {"id": "t1"}},
        {"data": {"task": {"id": "t1"}}},
        {"conversion": {"task_id": "t1"}},
        {"id": "t1", "status": "queued"},
        {"code": 200, "data": '{"taskId": "t1"}'},
        [{"task_id": "t1"}],
        {"taskIds": ["t1"]},
        {"code": 200, "data": {"task_ids": ["t1"]}},
        {"code": 200, "result": '{"TaskID": "t1"}'},
        {"Code": 0, "Data": {"JobId": "t1"}},
        {"task_id": "t1", "status": "failed", "error": "later told by the status"},
        {"code": 200, "data": {"task_id": "t1", "status": "failed", "error_message": "later told by the status"}},
        {"code": 200, "data": {"task_id": "t1", "status": False}},
    ],
)
def test_the_id_of_a_task_is_found_wherever_it_stands(provider_class: Make, body: object) -> None:
    """The id of a task is found wherever an answer has it."""
    for http in (200, 201, 202):
        assert Submitted(task_id="t1") == submitted(provider_class, body, http)


@each_row("link", ["https://files.test/a.mp3", ""])
def test_the_id_of_a_song_alone_in_a_list_is_no_tasks(provider_class: Make, link: str) -> None:
    """A list with one song names no task: with its id as the task's, webhooks of the true one would be refused."""
    song = {"id": "song", "audio_url": link, "title": "Rain"}
    assert isinstance(submitted(provider_class, {"code": 200, "data": [song]}), Unknown)


@each_row(("data", "is_id"), [("0f" * 16, True), ("b3b1c5e0-0000-4000-8000-0000000000f1", True), ("success", False)])
def test_the_data_of_an_answer_may_be_the_id(provider_class: Make, data: str, *, is_id: bool) -> None:
    """A bare text as `data` is the task's id if it looks like an id."""
    outcome = submitted(provider_class, {"code": 200, "msg": "success", "data": data})
    assert is_id == isinstance(outcome, Submitted)


@given(body=st.dictionaries(st.sampled_from(["code", "data", "msg", "success", "error", "status"]), ODD, max_size=4))
def test_an_answer_without_an_id_makes_no_task(provider_class: Make, body: dict[str, object]) -> None:
    """An answer without an id makes no task, and its refusal has a message."""
    data = body.get("data")
    assume(not isinstance(data[0] if isinstance(data, list) and len(data) == 1 else data, str))  # it may be the id
    text = json.dumps(body).lower().replace("_", "")
    outcome = submitted(provider_class, body)
    if "id" not in text:
        assert not isinstance(outcome, Submitted)
    if isinstance(outcome, Refused):
        assert isinstance(outcome.error, AudioextError)
        assert outcome.error.message


LINKS = st.sampled_from(
    [
        *(None, "", AUDIO, "https://f.example/a b.mp3", "https://f.example/None.mp3", "https://f.example/"),
        *("https://audiopipe.suno.ai/?item_id=1", "//f.example/2.mp3", "javascript:alert(1)", f"{AUDIO}\n{AUDIO}"),
        *("https://f.example/1.jpeg", "https://f.example/1.PNG?size=9"),
    ]
)
SONGS = st.fixed_dictionaries(
    {"id": st.sampled_from(["a1", "b2", "b1c2d3e4-0000-4000-8000-00000000aa01"]), "audio_url": LINKS},
    optional={
        **dict.fromkeys(("stream_audio_url", "image_url", "source_audio_url", "source_image_url"), LINKS),
        **dict.fromkeys(("prompt", "title", "tags", "model_name"), st.none() | st.text(max_size=4)),
        "createTime": st.sampled_from([None, "2026-01-02 03:04:05", 1_790_000_000_000, "soon", -1]),
        "duration": st.none() | st.floats(-1, 400),
        "audio_id": st.sampled_from([None, "", "c3", "d 4", " e5"]),
        "file_type": st.sampled_from([None, "audio", "image"]),
        "lyrics": st.none() | st.text(max_size=4),  # on no page, but read if present
    },
)


@pytest.mark.parametrize("name", ["kie", "kie-jobs", "sunoapi", "vidgo"])
@given(stage=st.sampled_from(["text", "first", "complete"]), songs=st.lists(SONGS, max_size=3))
def test_the_general_reader_decodes_a_documented_webhook_the_same(
    name: str, stage: str, songs: list[dict[str, object]]
) -> None:
    """A documented webhook decodes the same when an extra id makes the general reader take it."""
    data: Body = {"callbackType": stage, "task_id": "t1", "data": songs}
    if name == "vidgo":
        files = [{"audio_id" if key == "id" else key: value for key, value in song.items()} for song in songs]
        data = {"task_id": "t1", "status": "finished", "files": files, "created_time": "2026-01-02T03:04:05"}
    documented = outcome(load(name), {"code": 200, "msg": "ok", "data": data})
    assert outcome(load(name), {"code": 200, "msg": "ok", "data": data, "taskId": "t1"}) == documented


@each_row("name", ["kie", "kie-jobs", "sunoapi"])
@each_row("stage", ["text", "first", "complete"])
def test_an_image_in_place_of_audio_is_left_out(name: str, stage: str) -> None:
    """A link to an image in place of audio is left out, in a webhook that is otherwise as documented."""
    songs = [{"id": "a1", "audio_url": "https://f.example/1.jpeg?size=9", "stream_audio_url": "https://f.example/1"}]
    body = {"code": 200, "msg": "ok", "data": {"callbackType": stage, "task_id": "t1", "data": songs}}
    assert [None] == [track.audio_url for track in only(hooked(load(name), body)).tracks]


def outcome(made: Make, body: object) -> object:
    """Return what a webhook decodes to, or the text of its error."""
    try:
        return hooked(made, body)
    except AudioextError as error:
        return f"{type(error).__name__}: {error}"
