"""MusicGPT: the form it is sent, what is refused before, and how parts and errors are decoded."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from yarl import URL

from audioext import MusicGpt
from audioext.errors import DecodeError, ProviderError, UnsupportedError, WebhookError
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Event, Failed, Progress, Refused, Submitted, Unknown
from audioext.models.limits import Limits
from audioext.models.requests import AddInstrumental, Extend
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers.base import FileRoute
from tests.support.tables import each_row
from tests.unit.providers.conftest import Kit

CALLBACK = URL("https://hooks.example/musicgpt/ref1/tag1")
SOURCE = "https://files.example/source.mp3"
SENTINEL = "single_song_generation_request"
KEY = "sk-never-shown-0123456789"


def form(request: HttpRequest) -> dict[str, str | None]:
    """Return the text fields of a multipart request."""
    assert request.body is None
    return {part.name: part.value for part in request.parts if part.path is None}


def shown(events: tuple[Event, ...]) -> Progress:
    """Return the only event, which has to be progress."""
    (event,) = events
    assert isinstance(event, Progress)
    return event


def deliver(**body: object) -> tuple[Event, ...]:
    """Return what a webhook with this body decodes to."""
    return MusicGpt(KEY).parse_webhook(msgspec.json.encode(body))


def submit(status: int = 200, **body: object) -> Submitted | Refused | Unknown:
    """Return what a submit's answer with this body decodes to."""
    return MusicGpt(KEY).parse_submit(HttpResponse(status=status, body=msgspec.json.encode(body)))


# --- the form --------------------------------------------------------------------------------------------------------


def test_every_field_is_sent_as_text_under_the_pages_name() -> None:
    """Fields are sent as text under the page's names, and the API key without a prefix."""
    request = Extend(
        url=SOURCE,
        continue_at=42.5,
        prompt="a calming piano outro",
        lyrics="Let the journey fade away",
        lyrics_section_to_extend="and on it goes",
        vocal_gender="f",
        num_outputs=2,
        title="Part two",
        generate_album_cover=True,
        lyrics_timestamps=False,
        source_duration=60.0,
        provider="musicgpt",
    )
    sent = MusicGpt(KEY).build_submit(request, CALLBACK)
    assert ("POST", URL("https://api.musicgpt.com/api/public/v1/extend")) == (sent.method, sent.url)
    assert KEY == sent.headers["authorization"]
    assert "content-type" not in sent.headers  # the transport adds it, with its boundary
    assert {
        "audio_url": SOURCE,
        "extend_after": "42.5",
        "prompt": "a calming piano outro",
        "lyrics": "Let the journey fade away",
        "lyrics_section_to_extend": "and on it goes",
        "gender": "female",
        "num_outputs": "2",
        "title": "Part two",
        "generate_album_cover": "true",
        "lyrics_timestamps": "false",
        "webhook_url": str(CALLBACK),
    } == form(sent)


def test_a_url_alone_is_multipart_too() -> None:
    """A request without a file is multipart too, as the page requires."""
    sent = MusicGpt(KEY).build_submit(Extend(url=SOURCE, continue_at=6), None)
    assert None is sent.body
    assert {"audio_url": SOURCE, "extend_after": "6"} == form(sent)


def test_a_local_file_is_a_part_of_its_own() -> None:
    """A file is the last part of the form, and the transport streams it from its path."""
    sent = MusicGpt(KEY).build_submit(Extend(file="songs/a.wav", continue_at=6), CALLBACK)
    last = sent.parts[-1]
    assert ("audio_file", Path("songs/a.wav"), "a.wav") == (last.name, last.path, last.filename)
    assert {"extend_after": "6", "webhook_url": str(CALLBACK)} == form(sent)


def test_a_file_name_that_is_not_utf8_is_sent_without_its_odd_bytes() -> None:
    """A file name with bytes that no form can hold gets question marks for them."""
    request = Extend(file="caf\udce9.wav", continue_at=9)
    part = MusicGpt("k").build_submit(request, None).parts[-1]
    assert (Path("caf\udce9.wav"), "caf?.wav", "audio/wav") == (part.path, part.filename, part.content_type)


def test_without_a_callback_no_webhook_url_is_sent() -> None:
    """Without a callback no `webhook_url` is sent, since it is optional."""
    assert "webhook_url" not in form(MusicGpt(KEY).build_submit(Extend(url=SOURCE, continue_at=6), None))


@pytest.mark.parametrize(
    ("given", "sent"), [("m", "male"), ("f", "female"), ("male", "male"), ("female", "female"), ("neutral", "neutral")]
)
def test_genders_are_spelt_out(given: str, sent: str) -> None:
    """Genders are sent as words, and neutral is allowed."""
    request = Extend.draft(url=SOURCE, continue_at=6, vocal_gender=given)
    assert sent == form(MusicGpt(KEY).build_submit(request, None))["gender"]


@each_row(("seconds", "text"), [(60, "60"), (42.5, "42.5"), (60.0, "60.0"), (0.1, "0.1"), (1e-05, "0.00001")])
def test_seconds_have_no_exponent(seconds: float, text: str) -> None:
    """A small number is sent without an exponent, since no page says that one is read."""
    sent = MusicGpt(KEY).build_submit(Extend(url=SOURCE, continue_at=seconds), None)
    assert text == form(sent)["extend_after"]


def test_an_empty_text_is_given() -> None:
    """Empty text is sent, and a field that was not given is not."""
    sent = form(MusicGpt(KEY).build_submit(Extend(url=SOURCE, continue_at=6, prompt=""), None))
    assert "" == sent["prompt"]
    assert "lyrics" not in sent


def test_an_s3_address_goes_through() -> None:
    """A URL of S3 is sent as it is, since MusicGPT reads those."""
    url = "s3://mybucket/song.mp3"
    assert url == form(MusicGpt(KEY).build_submit(Extend(url=url, continue_at=6), None))["audio_url"]


def test_a_status_call_asks_by_task_and_type(kit: Kit) -> None:
    """The status call names the conversion type and one id."""
    sent = MusicGpt(KEY).build_status(kit.make_record("t1"))
    assert URL("https://api.musicgpt.com/api/public/v1/byId?conversionType=EXTEND&task_id=t1") == sent.url
    assert ("GET", KEY) == (sent.method, sent.headers["authorization"])


# --- problems before the submit --------------------------------------------------------------------------------------


def test_continue_at_is_always_needed() -> None:
    """`continue_at` is always required."""
    (problem,) = MusicGpt(KEY).check(Extend(url=SOURCE))
    assert ("continue_at", False) == (problem.field, problem.advice)


def test_extending_by_id_is_unsupported() -> None:
    """Extending by id is unsupported, and the message says who has it and what to do instead."""
    with pytest.raises(UnsupportedError, match=r"kie, kie-jobs, sunoapi and vidgo have it; .*track\.extend\(\).*url="):
        MusicGpt(KEY).check(Extend(audio_id="a", continue_at=6))


def test_adding_an_instrumental_is_unsupported() -> None:
    """Adding an instrumental is unsupported, and the message names the providers that have it."""
    request = AddInstrumental(url=SOURCE, title="Rain", tags="piano", negative_tags="")
    with pytest.raises(UnsupportedError, match=r"kie, kie-jobs, sunoapi and vidgo have it$"):
        MusicGpt(KEY).check(request)


def test_a_track_of_musicgpt_is_continued_by_its_url() -> None:
    """A track of MusicGPT is extended by its URL, which passes the check."""
    track = Track(id="a", audio_url=SOURCE, provider="musicgpt", extends_by_id=MusicGpt().info.extends_by_id)
    assert () == MusicGpt(KEY).check(track.extend(continue_at=6))


@each_row(("field", "longest"), [("lyrics", 2000), ("lyrics_section_to_extend", 3000)])
def test_lyrics_have_the_pages_limits(field: str, longest: int) -> None:
    """Lyrics may be as long as the page allows, and not one character longer."""
    provider = MusicGpt(KEY)
    assert () == provider.check(Extend.draft(url=SOURCE, continue_at=6, **{field: "x" * longest}))
    request = Extend.draft(url=SOURCE, continue_at=6, **{field: "x" * (longest + 1)})
    assert [(field, False)] == [(problem.field, problem.advice) for problem in provider.check(request)]


def test_a_long_prompt_is_advised_against_and_sent() -> None:
    """A prompt over 280 characters is sent with advice, since no page limits it."""
    provider = MusicGpt(KEY)
    assert () == provider.check(Extend(url=SOURCE, continue_at=6, prompt="x" * 280))
    request = Extend(url=SOURCE, continue_at=6, prompt="x" * 281)
    assert [("prompt", True)] == [(problem.field, problem.advice) for problem in provider.check(request)]
    assert "x" * 281 == form(provider.build_submit(request, None))["prompt"]


def test_a_model_is_a_problem_as_there_is_no_choice() -> None:
    """MusicGPT has no choice of models, so a given one is a problem that names the providers that take it."""
    provider = MusicGpt(KEY)
    request = Extend(url=SOURCE, continue_at=6, model="V5")
    (problem,) = provider.check(request)
    assert "model: musicgpt does not take it; kie, kie-jobs, sunoapi and vidgo do" == str(problem)
    assert None is provider.info.sent_model(Extend(url=SOURCE, continue_at=6))


def test_the_defaults_are_those_of_the_pages() -> None:
    """The defaults are those of MusicGPT's pages: the free plan's limit, the retention of MP3 files, and so on."""
    provider = MusicGpt()
    assert Limits(parallel=1) == provider.limits
    assert 90 * 86_400 == provider.retention
    assert 900 == provider.grace
    assert "MUSICGPT_API_KEY" == provider.info.key_variable
    assert (FileRoute.INLINE, False, True) == (
        provider.info.file_route,
        provider.info.extends_by_id,
        provider.info.counts_tracks,
    )
    assert None is provider.check_callback(URL("http://127.0.0.1/x"))
    assert 10 == MusicGpt(KEY, limits=Limits(parallel=10)).limits.parallel


# --- answers ---------------------------------------------------------------------------------------------------------


@each_row(
    ("body", "text"),
    [
        (b'{"detail": "no key", "message": "other"}', "no key other"),
        (
            b'{"detail": [{"loc": ["body", "extend_after"], "msg": "missing"}, {"loc": ["body", 0], "msg": "bad"}]}',
            "extend_after: missing; 0: bad",
        ),
        (b'{"detail": [{"loc": "body", "msg": "bad"}, {"msg": "worse"}, {}, "plain", 7]}', "bad; worse; plain"),
        (b'{"detail": {"message": "no audio"}}', "no audio"),
        (b'{"detail": {"reason": "no audio"}}', "no audio"),
        (b'{"detail": [], "message": "no audio"}', "no audio"),
        (b'{"success": false, "error": "other", "message": "no audio"}', "no audio other"),
        (b'{"error": {"code": "X", "message": "no audio", "details": {}}}', "no audio"),
        (b'{"error": "no audio"}', "no audio"),
        (b'{"error": {}}', '{"error": {}}'),
        (b"[1]", "[1]"),
        (b"plain\n text", "plain text"),
        (b"", "an empty body"),
    ],
)
def test_error_texts_are_found_wherever_they_stand(body: bytes, text: str) -> None:
    """An error's texts are found in `detail` as text, list or object, in `message`, `error`, or the body itself."""
    outcome = MusicGpt(KEY).parse_submit(HttpResponse(status=422, body=body))
    assert isinstance(outcome, Refused)
    assert text == outcome.error.message


@each_row("body", [b'{"detail": "' + b"x" * 9000 + b'"}', b"x" * 9000])
def test_error_texts_are_bounded(body: bytes) -> None:
    """The text of an error is cut, so that no whole page ends up in a message."""
    outcome = MusicGpt(KEY).parse_submit(HttpResponse(status=404, body=body))
    assert isinstance(outcome, Refused)
    assert len(outcome.error.message) <= 500


@each_row("second", [SENTINEL, "", None, 7.5, ["x"], {}])
def test_a_second_id_that_is_not_an_id_is_left_out(second: object) -> None:
    """A second id that is the sentinel text, empty or not text is left out, and the task is kept."""
    outcome = submit(success=True, task_id="t1", conversion_id_1="a", conversion_id_2=second)
    assert Submitted(task_id="t1", track_ids=("a",)) == outcome


@each_row("status", [301, 408, 499, 500, 502, 503, 524])
def test_a_status_that_proves_nothing_is_unknown(status: int) -> None:
    """A redirect, a time-out or a server error leaves the outcome unknown."""
    assert isinstance(submit(status, detail="no"), Unknown)


@each_row("status", [401, 402, 403, 404, 409, 422, 429])
def test_a_refusal_that_names_a_task_is_unknown(status: int) -> None:
    """A refusal that also names a task leaves the outcome unknown."""
    assert isinstance(submit(status, detail="no", task_id="t1"), Unknown)


def test_without_a_key_answers_are_read_too() -> None:
    """Answers can be read without a key."""
    outcome = MusicGpt().parse_submit(HttpResponse(status=404, body=b'{"detail": "no"}'))
    assert isinstance(outcome, Refused)
    assert "no" == outcome.error.message


def test_only_a_429_is_resent() -> None:
    """Only a 429 may be sent again automatically."""
    outcomes = {status: submit(status, detail="no") for status in (401, 402, 403, 404, 409, 422, 429)}
    assert {429} == {status for status, outcome in outcomes.items() if isinstance(outcome, Refused) and outcome.resend}


def test_a_refused_status_call_does_not_fail_the_task() -> None:
    """`success` false without a conversion raises `ProviderError`, and does not fail the task."""
    body = msgspec.json.encode({"success": False, "message": f"not found for {KEY}"})
    with pytest.raises(ProviderError) as caught:
        MusicGpt(KEY).parse_status(HttpResponse(status=200, body=body))
    assert "not found for [key]" == caught.value.message


# --- deliveries ------------------------------------------------------------------------------------------------------


def parts() -> list[tuple[Event, ...]]:
    """Return the five parts of an extension with two tracks."""
    lines = '[{"index": 0, "text": "Last bus home", "start": 8100, "end": 12400}]'
    found = []
    for id_ in ("a", "b"):
        audio = f"https://files.example/{id_}.mp3"
        found.append(deliver(success=True, task_id="t1", conversion_id=id_, conversion_path=audio))
        found.append(deliver(success=True, task_id="t1", conversion_id=id_, lyrics_timestamped=lines))
    cover = "https://files.example/cover.png"
    found.append(deliver(success=True, task_id="t1", conversion_id_1="a", conversion_id_2="b", image_path=cover))
    return found


def test_five_parts_make_one_song() -> None:
    """Five parts give two tracks with lyrics and a cover, and none of the parts claims COMPLETE."""
    seen_parts = [shown(part) for part in parts()]
    tracks = [track for part in seen_parts for track in part.tracks]
    assert ["a", "a", "b", "b"] == [track.id for track in tracks]
    assert [8.1, 8.1] == [track.timed_lyrics[0].start for track in tracks if track.timed_lyrics]
    assert ["https://files.example/cover.png"] == [part.cover_url for part in seen_parts if part.cover_url]
    assert {None} == {part.claimed_stage for part in seen_parts}


def test_a_failure_with_a_conversion_id_fails_only_that_track() -> None:
    """A failure with a conversion id fails that track and not the job."""
    failed = shown(deliver(success=False, task_id="t1", conversion_id="b", reason="Version 2 failed"))
    assert [("b", "Version 2 failed")] == [(track.id, track.failure) for track in failed.tracks]


def test_a_failed_conversion_keeps_its_playable_track() -> None:
    """A failed conversion with one playable track keeps that track and marks the other as failed."""
    body = {
        "success": True,
        "conversion": {
            "task_id": "t1",
            "status": "FAILED",
            "message": "half",
            "conversion_id_1": "a",
            "conversion_path_1": "https://files.example/a.mp3",
            "conversion_id_2": "b",
            "conversion_path_2": "https://lalals.s3.amazonaws.com",
            "lyrics_2": "la",
        },
    }
    seen, failed = MusicGpt(KEY).parse_status(HttpResponse(status=200, body=msgspec.json.encode(body)))
    assert isinstance(seen, Progress)
    assert isinstance(failed, Failed)
    assert [("a", None), ("b", "half")] == [(track.id, track.failure) for track in seen.tracks]


def test_a_failed_cover_or_lyrics_part_does_not_fail_the_job() -> None:
    """A failed cover, lyrics or stream part asks for a status call, and fails neither track nor job."""
    kinds = ("album_cover_generation", "lyrics_timestamped", "lyrics", "Artwork", "album art", "thumbnail", "timestamp")
    for key, kind in itertools.product(("subtype", "conversion_type", "type"), (*kinds, "streaming_url")):
        body = {"success": False, "task_id": "t1", "conversion_id": "a", key: kind, "reason": "no"}
        assert Progress(task_id="t1", ask_now=True) == shown(deliver(**body))


@each_row(
    ("body", "message"),
    [
        ({"message": "d", "error": "c", "status_msg": "b", "reason": "a"}, "a b c d"),
        ({"reason": " ", "status_msg": "b", "error": "c", "message": "b"}, "b c"),
        ({"reason": None, "error": {"message": "c"}, "message": "success"}, "c"),
        ({"message": "d"}, "d"),
        ({"status": "FAILED"}, "FAILED"),
        ({"reason": "x" * 9000}, "x" * 499 + "…"),
    ],
)
def test_failure_texts_are_found_wherever_they_stand(body: dict[str, object], message: str) -> None:
    """A failure's message is found in `reason`, `status_msg`, `error` or `message`, and is cut."""
    (failed,) = deliver(success=False, task_id="t1", **body)
    assert isinstance(failed, Failed)
    assert message == failed.message


@each_row(("flagged", "reason"), [(True, FailureReason.CONTENT), (False, FailureReason.UNKNOWN)])
def test_a_flagged_failure_has_the_content_as_its_reason(flagged: bool, reason: FailureReason) -> None:
    """A failure with `is_flagged` has the content as its reason."""
    assert (Failed(task_id="t1", reason=reason, message="no"),) == deliver(
        success=False, task_id="t1", reason="no", is_flagged=flagged
    )


@each_row("status", ["FAILED", "ERROR", "conversion_failed", "INTERNAL_ERROR"])
def test_a_status_containing_fail_or_error_is_a_failure(status: str) -> None:
    """A status that contains FAIL or ERROR, in any case, is a failure."""
    assert (Failed(task_id="t1", code=status, message=status),) == deliver(task_id="t1", status=status)


def test_completed_with_a_conversion_id_claims_one_track() -> None:
    """COMPLETED claims the whole job only in a body without a track's id."""
    body = {"task_id": "t1", "status": "COMPLETED", "audio_url": "https://files.example/a.mp3"}
    assert Stage.COMPLETE == shown(deliver(**body)).claimed_stage
    assert None is shown(deliver(**body, conversion_id="a")).claimed_stage
    assert Stage.COMPLETE == shown(deliver(**body, conversion_id=SENTINEL)).claimed_stage


def test_a_file_without_a_tracks_id_is_asked_about() -> None:
    """Files without a track's id are not counted, so a status call tells whether they are all."""
    body = {"task_id": "t1", "audio_url": "https://files.example/a.mp3"}
    for status in ({}, {"status": "COMPLETED"}, {"success": True}):
        assert shown(deliver(**body, **status)).ask_now
        assert not shown(deliver(**body, **status, conversion_id="a")).ask_now


@each_row("body", [{}, {"hello": 1}, {"success": True}, {"conversion_path": None}, {"task_id": ""}, {"audio_url": 7}])
def test_a_body_without_any_known_field_is_refused(body: dict[str, object]) -> None:
    """A body without a task or any known field, or with a wrong type, raises `DecodeError`."""
    with pytest.raises(DecodeError):
        deliver(**body)


def test_the_path_of_a_track_outranks_its_audio_url() -> None:
    """The file of a track is its path: `audio_url` is also the name of the source in the request."""
    path, source = "https://files.example/a.mp3", "https://files.example/source.mp3"
    for body in ({"audio_url": source, "conversion_path": path}, {"conversion_path": path, "audio_url": source}):
        assert [path] == [track.audio_url for track in shown(deliver(task_id="t1", conversion_id="a", **body)).tracks]


@each_row("subtype", [[], {}, None, 7, ""])
def test_a_part_with_an_unknown_subtype_is_recognised(subtype: object) -> None:
    """A part with an unknown subtype is recognised by what it contains."""
    audio = "https://files.example/a.mp3"
    assert shown(deliver(task_id="t1", conversion_id="a", conversion_path=audio, subtype=subtype)).tracks
    assert Progress(task_id="t1", ask_now=True) == shown(deliver(task_id="t1", subtype=subtype))


def test_the_missing_track_is_asked_for_by_its_id(kit: Kit) -> None:
    """Once one track is there or has failed, the status call asks for the missing one by its id."""
    provider, there = MusicGpt(KEY), Track(id="a", audio_url="https://files.example/a.mp3")
    cases: list[tuple[tuple[Track, ...], dict[str, str]]] = [
        ((), {"task_id": "t1"}),
        ((Track(id="a"),), {"task_id": "t1"}),
        ((there,), {"conversion_id": "b"}),
        ((there, Track(id="b")), {"conversion_id": "b"}),
        ((there, Track(id="b", failure="no")), {"task_id": "t1"}),
        ((Track(id="a", failure="no"),), {"conversion_id": "b"}),
        ((Track(id="a", failure="no"), Track(id="b", failure="no")), {"task_id": "t1"}),
    ]
    for tracks, query in cases:
        sent = provider.build_status(kit.make_record("t1", *tracks, track_ids=("a", "b")))
        assert {"conversionType": "EXTEND", **query} == dict(sent.url.query)


def test_a_status_of_one_track_claims_complete_only_doubtfully() -> None:
    """A status of one track claims COMPLETE only doubtfully, and its failure is that of the track."""
    found = {}
    for word in ("COMPLETED", "FAILED"):
        shown_ = {"task_id": "t1", "conversion_id": "a", "status": word, "audio_url": "", "message": "no"}
        if word == "COMPLETED":
            shown_["audio_url"] = "https://files.example/a.mp3"
        body = msgspec.json.encode({"success": True, "conversion": shown_})
        found[word] = MusicGpt(KEY).parse_status(HttpResponse(status=200, body=body))
    assert (Stage.COMPLETE, True) == (shown(found["COMPLETED"]).claimed_stage, shown(found["COMPLETED"]).is_doubtful)
    seen, failed = found["FAILED"]
    assert isinstance(seen, Progress)
    assert isinstance(failed, Failed)
    assert [("a", "no")] == [(track.id, track.failure) for track in seen.tracks]
    assert failed.is_doubtful
    numbered = {"task_id": "t1", "conversion_id_1": "a", "conversion_id_2": "b", "status": "FAILED", "message": "no"}
    body = msgspec.json.encode({"success": True, "conversion": numbered})
    (whole,) = MusicGpt(KEY).parse_status(HttpResponse(status=200, body=body))
    assert isinstance(whole, Failed)
    assert not whole.is_doubtful


def test_an_event_of_the_n8n_page_is_refused() -> None:
    """An event of the n8n page is refused with 400, unless it contains a known part."""
    with pytest.raises(WebhookError) as caught:
        deliver(event="conversion.completed", task_id="t1", output_url="https://files.example/a.mp3")
    assert 400 == caught.value.http_status
    audio = "https://files.example/a.mp3"
    assert shown(deliver(event="x", task_id="t1", conversion_id="a", conversion_path=audio)).tracks


def test_a_webhook_and_a_status_read_one_track_alike(kit: Kit) -> None:
    """A track decodes the same from a webhook and from a status answer."""
    samples = {sample.file: sample for sample in kit.samples_of("musicgpt")}
    provider = MusicGpt(KEY)
    polled = samples["status_completed.json"].read(provider)
    hooked = samples["webhook_audio.json"].read(provider)
    assert isinstance(polled, tuple)
    assert isinstance(hooked, tuple)
    first, same = shown(polled).tracks[0], shown(hooked).tracks[0]
    assert (first.id, first.audio_url, first.wav_url, first.duration) == (
        same.id,
        same.audio_url,
        same.wav_url,
        same.duration,
    )
    assert (first.title, first.timed_lyrics) == (same.title, same.timed_lyrics)
