"""The rules in the header of `fold.py`, one by one, and for any set of entries."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.errors import StoreError
from audioext.models.entries import (
    DONE_SECONDS,
    OTHER_TASK,
    REFUSED,
    STILL,
    UNCONFIRMED,
    UNREADABLE,
    Entry,
    EntryKind,
    make_entry,
)
from audioext.models.events import Failed, Progress
from audioext.models.record import Record, Run, Verdict
from audioext.models.requests import Extend
from audioext.models.results import FailureReason, Stage, TimedLine, Track
from audioext.runtime.held import HeldJob
from audioext.state.fold import MAX_WORDS, fold
from audioext.state.tracks import song_of, stage_reached
from tests.support import tape
from tests.support.tape import REF, TAPE, TASK, Tape, folded

A, B, W = "http://files.test/a.mp3", "http://files.test/b.mp3", "http://files.test/a.wav"
ONE, TWO = Track(id="one", audio_url=A), Track(id="two", audio_url=B)
NO_AUDIO = Track(id="one")

# --- any set of entries -------------------------------------------------------------------------------------

tracks = st.builds(
    Track,
    id=st.sampled_from([None, "one", "two"]),
    audio_url=st.sampled_from([None, A, B, "http://files.test/c.mp3"]),
    stream_url=st.sampled_from([None, "http://files.test/stream"]),
    title=st.sampled_from([None, "", "Rain", "Snow"]),
    duration=st.sampled_from([None, 1.0, 20.5]),
    failure=st.sampled_from([None, "too quiet"]),
    position=st.sampled_from([None, 1, 2]),
    timed_lyrics=st.sampled_from([None, (TimedLine("la", 0.0, 1.0),)]),
)
task_ids = st.sampled_from([None, TASK])
events = st.one_of(
    st.builds(
        tape.shown,
        st.sampled_from([None, *Stage]),
        task_id=task_ids,
        tracks=st.lists(tracks, max_size=3).map(tuple),
        cover_url=st.sampled_from([None, A, B]),
        credits=st.sampled_from([None, 0.4, 12.0]),
        word=st.sampled_from([None, "second", "third"]),
        ask_now=st.booleans(),
    ),
    st.builds(
        tape.failed,
        task_ids,
        reason=st.sampled_from(FailureReason),
        code=st.sampled_from([None, "400", "501"]),
        message=st.sampled_from(["", "no"]),
        charged=st.sampled_from([None, False, True]),
    ),
)
times = st.integers(1, 5).map(float)
topics = st.sampled_from(["text", "first", "complete", "failed"])
handlers = st.sampled_from(["", "bot.tell", "bot.save"])
entries = st.one_of(
    st.builds(tape.webhook, times, events, events, note=st.sampled_from(["", UNCONFIRMED, UNREADABLE, OTHER_TASK])),
    st.builds(tape.webhook, times, note=st.sampled_from(["", f"{REFUSED}: forged"])),
    st.builds(tape.webhook, times, events, since=st.just(2), note=st.just(UNREADABLE)),
    st.builds(tape.status, times, events),
    st.builds(tape.busy, times),
    st.builds(tape.answer, times, eta=st.just(9.0), track_ids=st.just(("two", "one"))),
    st.builds(tape.handled, times, topics, handlers, failure=st.integers(0, 2), is_over=st.booleans()),
    st.builds(make_entry, st.just("expired"), times),
)
journals = st.lists(entries, max_size=6, unique_by=lambda entry: entry.id)
tapes = st.builds(Tape, counts_tracks=st.booleans())


def learnt(arrivals: list[Entry], provider: Tape) -> Record:
    """Return the record of a process that receives *arrivals* one by one."""
    held = HeldJob(REF, provider)
    for count, entry in enumerate(arrivals, 1):
        held.merge(held.read([entry]), count=count)
    return held.record


@given(journal=journals, data=st.data(), counts=st.booleans())
def test_order_and_repetition_of_arrival_do_not_matter(
    *, journal: list[Entry], data: st.DataObject, counts: bool
) -> None:
    """The order and repetition in which entries arrive do not change the record."""
    whole = [tape.request(counts_tracks=counts), *journal]
    again = data.draw(st.lists(st.sampled_from(whole), max_size=4))
    arrivals = data.draw(st.permutations(whole + again))

    assert folded(*whole) == learnt(arrivals, TAPE)


def test_a_lone_request_means_a_new_record() -> None:
    """A journal with only a request folds to the record that a submit builds without folding."""
    reading = tape.readings(tape.request(5.0))[0]
    assert reading.asked is not None

    assert Record(ref=REF, asked=reading.asked, created_at=5.0) == folded(reading.entry)


@given(journal=journals, counts=st.booleans())
def test_no_entry_takes_a_stage_or_a_verdict_back(*, journal: list[Entry], counts: bool) -> None:
    """No entry takes back a reached stage or a handled topic, or lowers the verdict."""
    seen = [tape.request(counts_tracks=counts)]
    record = folded(*seen)
    for entry in journal:
        seen.append(entry)
        later = folded(*seen)
        assert {item.stage for item in record.reached} <= {item.stage for item in later.reached}
        assert record.verdict <= later.verdict
        assert record.handled <= later.handled
        record = later


@given(journal=journals, counts=st.booleans())
def test_reached_stages_have_no_gap_and_come_in_the_order_of_time(*, journal: list[Entry], counts: bool) -> None:
    """A reached stage implies all earlier ones, none of which is reached after it."""
    record = folded(tape.request(counts_tracks=counts), *journal)

    assert list(Stage)[: len(record.reached)] == [item.stage for item in record.reached]
    assert sorted(item.at for item in record.reached) == [item.at for item in record.reached]
    assert record.stage is (record.reached[-1].stage if record.reached else None)


@given(journal=journals)
def test_a_missing_field_never_erases_a_known_one(journal: list[Entry]) -> None:
    """A later sighting without a field never erases its known value: audio stays playable, and a title stays."""
    seen = [tape.request()]
    known: dict[str | None, Track] = {}
    for entry in journal:
        seen.append(entry)
        for found in folded(*seen).tracks:
            if found.id in known and found.id is not None:
                assert known[found.id].audio_url is None or found.audio_url is not None
                assert not known[found.id].title or found.title
            known[found.id] = found


plain_tracks = st.builds(Track, id=st.sampled_from([None, "b", "c"]), audio_url=st.sampled_from([None, A, B]))
sightings = st.builds(
    lambda kind, at, stage, found: kind(at, tape.shown(stage, *found)),
    st.sampled_from([tape.webhook, tape.status]),
    times,
    st.sampled_from(Stage),
    st.lists(plain_tracks, min_size=1, max_size=2),
)


@given(journal=st.lists(sightings, max_size=4, unique_by=lambda entry: entry.id), counts=st.booleans())
def test_a_song_that_is_complete_is_never_empty(*, journal: list[Entry], counts: bool) -> None:
    """A song that is complete has at least one playable track, whatever was seen in whichever order."""
    begun = tape.status(1.0, tape.shown(Stage.TEXT, Track(id="a"), Track(id="b")))
    song = song_of(folded(tape.request(counts_tracks=counts), begun, *journal))

    assert song is None or song.tracks


@given(journal=journals, release=st.integers(1, 3))
def test_a_handled_stage_stays_reached_in_every_reading(journal: list[Entry], release: int) -> None:
    """A stage whose handlers are done stays reached, whichever release of the codec reads the journal."""
    record = folded(tape.request(), *journal, provider=Tape(release=release))

    stages = {item.stage.name.lower() for item in record.reached}
    assert record.handled - {"failed"} <= stages


def test_without_a_request_there_is_no_record() -> None:
    """A journal without its request has no record."""
    assert fold(REF, tape.readings(tape.answer(1.0), tape.webhook(2.0, tape.shown(Stage.TEXT)))) is None


# --- stages -------------------------------------------------------------------------------------------------


def test_a_job_begins_without_a_stage() -> None:
    """Before SUBMITTED the stage is `None`, and the job is open."""
    record = folded(tape.request())

    assert (None, Verdict.OPEN, None, ()) == (record.stage, record.verdict, record.task_id, record.reached)


def test_the_answer_to_the_post_proves_submitted() -> None:
    """A POST's answer that names a task proves SUBMITTED, and its time is when the job was answered."""
    record = folded(tape.request(), tape.answer(1.0, eta=60.0, credit_estimate=12.0, track_ids=("b", "a")))

    assert (Stage.SUBMITTED, TASK, 1.0) == (record.stage, record.task_id, record.answered_at)
    assert (60.0, 12.0, ("b", "a")) == (record.eta, record.credit_estimate, record.track_ids)


def test_a_webhook_adopts_a_job_whose_answer_never_came() -> None:
    """A webhook names the task of a job whose answer was lost, and the problem with the answer stays in the record."""
    lost = make_entry("answer", 1.0, note="the connection broke")
    record = folded(tape.request(), lost, tape.webhook(2.0, tape.shown(Stage.TEXT)))

    assert (TASK, Stage.TEXT) == (record.task_id, record.stage)
    assert ("the connection broke", Verdict.OPEN) == (record.answer_problem, record.verdict)


def test_the_usual_webhooks_reach_each_stage_in_its_turn() -> None:
    """TEXT, FIRST and COMPLETE are each reached when their webhook was seen."""
    record = folded(
        tape.request(),
        tape.answer(1.0),
        tape.webhook(2.0, tape.shown(Stage.TEXT)),
        tape.webhook(3.0, tape.shown(Stage.FIRST, ONE)),
        tape.webhook(4.0, tape.shown(Stage.COMPLETE, ONE, TWO)),
    )

    expected = [(1.0, "poll"), (2.0, "webhook"), (3.0, "webhook"), (4.0, "webhook")]
    assert expected == [(item.at, item.source) for item in record.reached]
    assert Verdict.COMPLETE is record.verdict


@pytest.mark.parametrize("see", [tape.webhook, tape.status])
def test_complete_alone_implies_the_earlier_stages(see: Callable[..., Entry]) -> None:
    """A job whose first news is COMPLETE reaches TEXT and FIRST as implied, with the tracks known then."""
    record = folded(tape.request(), tape.answer(1.0), see(4.0, tape.shown(Stage.COMPLETE, ONE)))

    implied = [found for stage in (Stage.TEXT, Stage.FIRST) if (found := stage_reached(record, stage))]
    assert ["implied", "implied"] == [reached.source for reached, _ in implied]
    assert [("one",), ("one",)] == [tuple(each.id for each in tracks) for _, tracks in implied]


def test_a_stage_that_was_named_late_is_dated_back() -> None:
    """FIRST that is seen after COMPLETE is implied by COMPLETE, and has its time."""
    record = folded(
        tape.request(),
        tape.webhook(4.0, tape.shown(Stage.COMPLETE, ONE)),
        tape.webhook(5.0, tape.shown(Stage.FIRST, ONE)),
    )

    assert [(Stage.FIRST, 4.0, "implied")] == [
        (item.stage, item.at, item.source) for item in record.reached if item.stage is Stage.FIRST
    ]


def test_a_stage_event_holds_the_tracks_known_then() -> None:
    """The event of FIRST shows one track, even after COMPLETE has shown two."""
    record = folded(
        tape.request(),
        tape.webhook(3.0, tape.shown(Stage.FIRST, ONE)),
        tape.webhook(4.0, tape.shown(Stage.COMPLETE, ONE, TWO)),
    )

    found = stage_reached(record, Stage.FIRST)
    assert found is not None
    assert ["one"] == [each.id for each in found[1]]


@pytest.mark.parametrize("stage", list(Stage))
def test_a_claim_of_any_stage_proves_text(stage: Stage) -> None:
    """A claim of any stage without audio proves TEXT and no more."""
    assert Stage.TEXT is folded(tape.request(), tape.webhook(2.0, tape.shown(stage, NO_AUDIO))).stage


def test_a_stream_proves_text() -> None:
    """A stream URL without a stage proves TEXT; a bare track proves no more than SUBMITTED."""
    streaming = Track(id="one", stream_url="http://files.test/s")

    assert Stage.TEXT is folded(tape.request(), tape.webhook(2.0, tape.shown(None, streaming))).stage
    assert Stage.SUBMITTED is folded(tape.request(), tape.webhook(2.0, tape.shown(None, NO_AUDIO))).stage


def test_first_is_proved_by_audio_only() -> None:
    """A claim of FIRST without a playable track is TEXT, until any other entry shows audio."""
    claim = tape.webhook(3.0, tape.shown(Stage.FIRST, NO_AUDIO))
    audio = tape.status(5.0, tape.shown(None, ONE))

    assert Stage.TEXT is folded(tape.request(), claim).stage
    assert Stage.FIRST is folded(tape.request(), claim, audio).stage


def test_the_source_of_the_request_is_no_result() -> None:
    """A link to the request's own source, which an answer may repeat under any key, is no track and no song."""
    begun = tape.request(request=Extend(url=f"{A}?signed=1", model="V5"))
    source = Track(audio_url=A)

    running = folded(begun, tape.webhook(2.0, tape.shown(None, source)))
    assert (Stage.SUBMITTED, ()) == (running.stage, running.tracks)
    done = folded(begun, tape.webhook(2.0, tape.shown(Stage.COMPLETE, source)))
    assert (Stage.TEXT, 2.0) == (done.stage, done.asks_at)
    song = folded(begun, tape.answer(1.0), tape.status(3.0, tape.shown(Stage.COMPLETE, source, ONE, TWO)))
    assert [None, B] == [track.audio_url for track in song.tracks]


def test_a_file_beside_the_source_is_a_result() -> None:
    """Another file of the script that served the source, and a WAV beside the source's link, are results."""
    begun = tape.request(request=Extend(url=f"{A}?id=1", model="V5"))
    for track, link in ((Track(id="one", audio_url=f"{A}?id=2"), f"{A}?id=2"), (Track(audio_url=A, wav_url=W), W)):
        done = folded(begun, tape.answer(1.0), tape.webhook(2.0, tape.shown(Stage.COMPLETE, track)))
        assert (Stage.COMPLETE, [link]) == (done.stage, [each.audio_url for each in done.tracks])


@pytest.mark.parametrize("bare", [NO_AUDIO, Track(id="one", stream_url="http://files.test/s")])
def test_complete_needs_a_playable_track(bare: Track) -> None:
    """A webhook's claim of COMPLETE without audio proves TEXT, and makes a status call due."""
    record = folded(tape.request(), tape.webhook(4.0, tape.shown(Stage.COMPLETE, bare)))

    assert (Stage.TEXT, Verdict.OPEN, 4.0) == (record.stage, record.verdict, record.asks_at)


def test_audio_and_the_claim_of_complete_may_come_apart() -> None:
    """COMPLETE is reached once both its claim and a playable track were seen, in either order."""
    claim = tape.webhook(4.0, tape.shown(Stage.COMPLETE, NO_AUDIO))
    audio = tape.status(6.0, tape.shown(None, ONE))

    for order in itertools.permutations([claim, audio]):
        record = folded(tape.request(), *order)
        assert [(Stage.COMPLETE, 6.0)] == [(item.stage, item.at) for item in record.reached[-1:]]


# --- counting, and tracks that fail -------------------------------------------------------------------------

GOOD = tape.webhook(4.0, tape.shown(None, TWO))
BAD = tape.webhook(3.0, tape.shown(None, Track(id="one", failure="too quiet")))
WORSE = tape.webhook(5.0, tape.shown(None, Track(id="two", failure="too loud")))


@pytest.mark.parametrize(("counts", "stage"), [(True, Stage.COMPLETE), (False, Stage.FIRST)])
def test_counting_completes_only_where_the_wire_has_no_stage_word(*, counts: bool, stage: Stage) -> None:
    """Two tracks with audio complete a job only at an API that names no stages."""
    both = [tape.webhook(3.0, tape.shown(None, ONE)), GOOD]

    record = folded(tape.request(counts_tracks=counts), *both)
    assert (stage, 4.0) == (
        record.stage,
        max(item.at for item in record.reached if item.stage >= Stage.FIRST) + (not counts),
    )


def test_tracks_without_an_id_are_not_counted() -> None:
    """Two tracks without an id may be the same one, so they do not complete a counted job."""
    nameless = [tape.webhook(at, tape.shown(None, Track(audio_url=url))) for at, url in ((3.0, A), (4.0, B))]

    assert Stage.FIRST is folded(tape.request(counts_tracks=True), *nameless).stage


def test_one_failed_track_does_not_fail_the_job() -> None:
    """One good and one failed track complete a counted job, and the failure stays on its track."""
    record = folded(tape.request(counts_tracks=True), BAD, GOOD)

    assert Verdict.COMPLETE is record.verdict
    assert {"one": "too quiet", "two": None} == {each.id: each.failure for each in record.tracks}
    song = song_of(record)
    assert song is not None
    assert ["two"] == [each.id for each in song.tracks]


def test_one_failed_track_alone_leaves_the_job_open() -> None:
    """One failed track leaves a counted job open, since another track may still come."""
    assert Verdict.OPEN is folded(tape.request(counts_tracks=True), BAD).verdict


def test_the_job_fails_when_every_track_failed() -> None:
    """A job whose tracks all failed has failed, and its message names each reason."""
    record = folded(tape.request(counts_tracks=True), BAD, WORSE)
    failure = record.fault

    assert failure is not None
    assert ("every track failed: too loud; too quiet", 5.0) == (failure.message, record.ended_at)
    assert FailureReason.GENERATION is failure.reason


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        ((FailureReason.CONTENT, FailureReason.CONTENT), FailureReason.CONTENT),
        ((FailureReason.CONTENT, FailureReason.UNKNOWN), FailureReason.GENERATION),
        ((FailureReason.UNKNOWN, FailureReason.UNKNOWN), FailureReason.GENERATION),
    ],
)
def test_the_reason_of_all_failed_tracks_is_the_jobs(
    reasons: tuple[FailureReason, FailureReason], why: FailureReason
) -> None:
    """A job whose tracks all failed for their content failed for its content."""
    tracks = (Track(id=name, failure="no") for name in ("one", "two"))
    hooks = [
        tape.webhook(3.0 + at, tape.shown(None, track, reason=reason))
        for at, (track, reason) in enumerate(zip(tracks, reasons, strict=True))
    ]
    failure = folded(tape.request(counts_tracks=True), *hooks).fault

    assert failure is not None
    assert (why, "every track failed: no") == (failure.reason, failure.message)


def test_audio_takes_the_failure_off_a_track() -> None:
    """Audio clears the failure of its track."""
    healed = tape.status(6.0, tape.shown(None, ONE))

    record = folded(tape.request(counts_tracks=True), BAD, WORSE, healed)
    assert Verdict.COMPLETE is record.verdict
    assert {"one": None, "two": "too loud"} == {each.id: each.failure for each in record.tracks}


# --- verdicts -----------------------------------------------------------------------------------------------

DONE = tape.webhook(8.0, tape.shown(Stage.COMPLETE, ONE))
EXPIRED = make_entry("expired", 9.0)
NO = tape.webhook(3.0, tape.failed(code="501", message="no", reason=FailureReason.CONTENT, charged=False))


def test_a_failed_job_may_rise_to_complete() -> None:
    """A late COMPLETE undoes a failure, whichever of them arrived first."""
    assert Verdict.FAILED is folded(tape.request(), NO).verdict
    for order in itertools.permutations([NO, DONE]):
        record = folded(tape.request(), *order)
        assert (Verdict.COMPLETE, None) == (record.verdict, record.fault)


def test_a_failure_has_the_vendors_words() -> None:
    """A failure has the vendor's reason, code, message and charge."""
    record = folded(tape.request(), NO)
    failure = record.fault

    assert failure is not None
    found = (failure.reason, failure.code, failure.message, failure.charged, record.ended_at)
    assert (FailureReason.CONTENT, "501", "no", False, 3.0) == found


def test_a_status_answers_failure_outranks_a_webhooks() -> None:
    """Of two failures a status answer's text counts, else the later one; the time is that of the first."""
    asked = tape.status(2.0, tape.failed(code="poll"))
    later = tape.webhook(5.0, tape.failed(code="later"))

    assert [("poll", 2.0)] == [(f.fault.code, f.ended_at) for f in [folded(tape.request(), NO, asked)] if f.fault]
    assert [("later", 3.0)] == [(f.fault.code, f.ended_at) for f in [folded(tape.request(), NO, later)] if f.fault]


@pytest.mark.parametrize(
    ("end", "needed"),
    [
        (tape.failed(is_doubtful=True), 1),
        (tape.shown(Stage.COMPLETE, ONE, is_doubtful=True), DONE_SECONDS),
        (tape.shown(Stage.COMPLETE), DONE_SECONDS),
    ],
    ids=["a failure", "a claim", "a claim without a track"],
)
def test_a_doubtful_end_counts_once_it_was_doubted_for_long_enough(end: Progress | Failed, needed: float) -> None:
    """Until then the job is open; progress that came in between but is stored later takes no verdict back."""
    first = [tape.request(), tape.answer(1.0), tape.status(100.0, end)]
    soon = tape.status(200.0, end, note=f"{STILL} {needed - 1:.0f}" if needed > 1 else "")
    late = tape.status(700.0, end, note=f"{STILL} {needed:.0f}")
    between = tape.status(400.0, tape.shown(Stage.TEXT))

    assert Verdict.OPEN is folded(*first, soon).verdict
    ended = folded(*first, soon, late)
    assert ended.is_final
    assert ended.verdict is folded(*first, soon, late, between).verdict


def test_progress_clears_a_doubt() -> None:
    """A doubtful failure after progress is the first of its kind again."""
    end, going = tape.failed(is_doubtful=True), tape.status(400.0, tape.shown(Stage.TEXT))

    assert folded(tape.request(), tape.answer(1.0), tape.status(100.0, end), going).doubted_at is None
    again = folded(
        tape.request(), tape.answer(1.0), tape.status(100.0, end), going, tape.status(700.0, end, note="again at 700")
    )
    assert (Verdict.OPEN, 700.0) == (again.verdict, again.doubted_at)


def test_expiry_is_outranked_by_a_failure_and_by_the_song() -> None:
    """A later failure or completion outranks the expiry of a job."""
    assert (Verdict.EXPIRED, 9.0) == (
        folded(tape.request(), EXPIRED).verdict,
        folded(tape.request(), EXPIRED).ended_at,
    )
    assert Verdict.FAILED is folded(tape.request(), EXPIRED, tape.webhook(10.0, tape.failed())).verdict
    assert (
        Verdict.COMPLETE is folded(tape.request(), EXPIRED, tape.webhook(10.0, tape.shown(Stage.COMPLETE, ONE))).verdict
    )


def test_facts_after_complete_still_join() -> None:
    """Lyrics and files that arrive after COMPLETE join the tracks, and no stage changes its time."""
    more = tape.status(20.0, tape.shown(None, Track(id="one", lyrics="la", wav_url="http://files.test/a.wav")))
    before, after = folded(tape.request(), DONE), folded(tape.request(), DONE, more)

    assert before.reached == after.reached
    assert ("la", "http://files.test/a.wav", A) == (
        after.tracks[0].lyrics,
        after.tracks[0].wav_url,
        after.tracks[0].audio_url,
    )


def test_a_refused_submit_ends_the_job() -> None:
    """A refusal ends the job with the vendor's message, without a task and without a stage."""
    record = folded(tape.request(), tape.refusal(1.0, "too few credits"))

    assert (Verdict.REFUSED, True, None, None) == (record.verdict, record.is_final, record.task_id, record.stage)
    assert record.refusal is not None
    assert "too few credits" in record.refusal


def test_a_refusal_does_not_count_where_a_webhook_named_a_task() -> None:
    """A refusal does not count if a webhook names a task: the job goes on."""
    record = folded(tape.request(), tape.refusal(1.0), tape.webhook(2.0, tape.shown(Stage.TEXT)))

    assert (Verdict.OPEN, TASK, Stage.TEXT, None) == (record.verdict, record.task_id, record.stage, record.refusal)


def test_a_post_that_never_left_ends_the_job() -> None:
    """A submit that was certainly not sent ends the job, which has no task and says why."""
    record = folded(tape.request(), make_entry("abandoned", 1.0, note="no connection"))

    assert (Verdict.REFUSED, True, "no connection") == (record.verdict, record.is_unsent, record.refusal)


def test_a_job_may_expire_after_a_refusal_that_a_webhook_outdid() -> None:
    """A job that goes on after a refusal can expire or complete like any other."""
    adopted = [tape.refusal(1.0), tape.webhook(2.0, tape.shown(Stage.TEXT))]

    assert Verdict.EXPIRED is folded(tape.request(), *adopted, EXPIRED).verdict
    assert Verdict.COMPLETE is folded(tape.request(), *adopted, DONE).verdict


# --- which task it is ---------------------------------------------------------------------------------------


def test_the_answers_task_outranks_one_learnt_by_webhook() -> None:
    """The task id in the answer outranks one from a webhook, whose tracks and stages are then left out."""
    called = tape.webhook(1.0, tape.shown(Stage.COMPLETE, ONE, task_id="other"))

    before, after = folded(tape.request(), called), folded(tape.request(), called, tape.answer(2.0))
    assert ("other", Stage.COMPLETE) == (before.task_id, before.stage)
    assert (TASK, Stage.SUBMITTED, (), Verdict.OPEN) == (after.task_id, after.stage, after.tracks, after.verdict)


def test_of_two_tasks_learnt_by_webhook_the_earlier_counts() -> None:
    """Without an answer the earliest task id from a webhook counts, in whatever order the webhooks arrive."""
    first = tape.webhook(1.0, tape.shown(Stage.TEXT, task_id="first"))
    second = tape.webhook(2.0, tape.shown(Stage.COMPLETE, ONE, task_id="second"))

    for order in itertools.permutations([first, second]):
        record = folded(tape.request(), *order)
        assert ("first", Stage.TEXT) == (record.task_id, record.stage)


def test_a_status_answer_of_another_task_is_left_out() -> None:
    """A status answer that names another task is left out."""
    record = folded(
        tape.request(), tape.answer(1.0), tape.status(2.0, tape.shown(Stage.COMPLETE, ONE, task_id="other"))
    )

    assert (Stage.SUBMITTED, ()) == (record.stage, record.tracks)


def test_a_webhook_that_names_no_task_counts() -> None:
    """A webhook without a task id counts, since its tag names the job."""
    nameless = tape.webhook(2.0, tape.shown(Stage.FIRST, ONE, task_id=None))

    assert (Stage.FIRST, TASK) == (
        folded(tape.request(), tape.answer(1.0), nameless).stage,
        folded(tape.request(), tape.answer(1.0), nameless).task_id,
    )
    assert (Stage.FIRST, None) == (folded(tape.request(), nameless).stage, folded(tape.request(), nameless).task_id)


def test_a_webhook_of_another_task_does_not_name_the_jobs() -> None:
    """A webhook refused for naming another task does not name the job's, but counts if the answer names it too."""
    refused = tape.webhook(1.0, tape.shown(Stage.COMPLETE, ONE), note=f"{OTHER_TASK} than job x's")

    assert (None, None) == (folded(tape.request(), refused).task_id, folded(tape.request(), refused).stage)
    assert Stage.COMPLETE is folded(tape.request(), refused, tape.answer(2.0)).stage


# --- unreadable and unconfirmed webhooks --------------------------------------------------------------------


def test_a_webhook_that_is_not_authentic_is_left_out() -> None:
    """A webhook that is not authentic names no task, shows nothing and makes no status call due."""
    forged = tape.webhook(2.0, tape.shown(Stage.COMPLETE, ONE), note=f"{REFUSED}: forged")
    record = folded(tape.request(), forged)

    assert (None, None, (), None) == (record.task_id, record.stage, record.tracks, record.asks_at)


def test_an_unreadable_webhook_makes_a_status_call_due() -> None:
    """An unreadable webhook makes a status call due."""
    record = folded(tape.request(), tape.answer(1.0), make_entry("webhook", 3.0, body=b"<html>", note=UNREADABLE))

    assert (Stage.SUBMITTED, 3.0) == (record.stage, record.asks_at)


def test_a_webhook_counts_once_a_later_codec_can_read_it() -> None:
    """A webhook that this release cannot decode counts in full once a later release can."""
    journal = [
        tape.request(),
        tape.answer(1.0),
        tape.webhook(3.0, tape.shown(Stage.COMPLETE, ONE), since=2, note=UNREADABLE),
    ]

    assert (Stage.SUBMITTED, 3.0) == (folded(*journal).stage, folded(*journal).asks_at)
    healed = folded(*journal, provider=Tape(release=2))
    assert (Stage.COMPLETE, None, ["one"]) == (healed.stage, healed.asks_at, [each.id for each in healed.tracks])


def test_a_handled_stage_stays_reached_if_a_codec_reads_less() -> None:
    """A stage whose handlers are done stays reached, even if a later codec reads less from the same bytes."""
    seen = tape.webhook(3.0, tape.shown(Stage.FIRST, ONE), until=1)
    journal = [tape.request(), tape.answer(1.0), seen, tape.handled(4.0, "text"), tape.handled(5.0, "first")]

    pinned = folded(*journal, provider=Tape(release=2))
    assert [(Stage.SUBMITTED, 1.0, "poll"), (Stage.TEXT, 4.0, "implied"), (Stage.FIRST, 5.0, "implied")] == [
        (item.stage, item.at, item.source) for item in pinned.reached
    ]
    assert () == pinned.unhandled


def test_a_pinned_stage_is_reached_even_where_nothing_else_is_known() -> None:
    """A stage whose handlers are done is reached, even if no other entry can be read."""
    record = folded(tape.request(), tape.handled(4.0, "text"))

    assert [(Stage.SUBMITTED, "implied"), (Stage.TEXT, "implied")] == [(x.stage, x.source) for x in record.reached]


def test_an_unconfirmed_complete_only_makes_a_status_call_due() -> None:
    """An unconfirmed COMPLETE names its task and makes a status call due, and shows nothing else."""
    claim = tape.webhook(3.0, tape.shown(Stage.COMPLETE, ONE), note=UNCONFIRMED)
    record = folded(tape.request(), claim)

    assert (TASK, Stage.SUBMITTED, (), 3.0) == (record.task_id, record.stage, record.tracks, record.asks_at)


def test_an_unconfirmed_complete_counts_once_a_status_answer_says_so() -> None:
    """An unconfirmed COMPLETE counts once a status answer repeats it, with the tracks and source of that answer."""
    claim = tape.webhook(3.0, tape.shown(Stage.COMPLETE, ONE), note=UNCONFIRMED)
    record = folded(tape.request(), claim, tape.status(4.0, tape.shown(Stage.COMPLETE, ONE)))

    assert ("poll", Verdict.COMPLETE, None) == (record.reached[-1].source, record.verdict, record.asks_at)


def test_a_codec_that_raises_loses_nothing() -> None:
    """A codec that raises affects only the entry that it was given."""

    class Buggy(Tape):
        """A codec that raises on every body."""

        def parse_webhook(self, body: bytes) -> NoReturn:  # noqa: ARG002 - the protocol's
            """Raise."""
            raise ZeroDivisionError

        parse_status = parse_submit = parse_webhook  # type: ignore[assignment]  # as above

    journal = [tape.request(), tape.answer(1.0), tape.status(2.0), tape.webhook(3.0, tape.shown(Stage.TEXT))]
    record = folded(*journal, provider=Buggy())
    assert (None, Verdict.OPEN, 3.0) == (record.stage, record.verdict, record.asks_at)
    assert "ZeroDivisionError" in (record.answer_problem or "")
    assert "ZeroDivisionError" in (record.complaint or "")


# --- open questions, unknown words and side facts -----------------------------------------------------------


@pytest.mark.parametrize(
    "question",
    [
        tape.webhook(3.0, tape.shown(None, word="THIRD", ask_now=True)),
        tape.webhook(3.0, tape.shown(Stage.COMPLETE, NO_AUDIO)),
        tape.webhook(3.0),
        make_entry("webhook", 3.0, body=b"<html>"),
    ],
)
def test_a_readable_status_answer_closes_a_question(question: Entry) -> None:
    """An open question makes a status call due until a call made after it is answered readably."""
    journal = [tape.request(), tape.answer(1.0), question]

    assert 3.0 == folded(*journal).asks_at
    assert 3.0 == folded(*journal, tape.status(2.0, tape.shown(None))).asks_at
    assert 3.0 == folded(*journal, tape.busy(4.0)).asks_at
    assert folded(*journal, tape.status(4.0, tape.shown(None))).asks_at is None


def test_a_status_answer_opens_no_question() -> None:
    """A status answer that claims COMPLETE without audio opens no question, and polls go on at the normal pace."""
    assert (
        folded(tape.request(), tape.answer(1.0), tape.status(2.0, tape.shown(Stage.COMPLETE, NO_AUDIO))).asks_at is None
    )


def test_the_latest_refused_status_call_is_the_complaint() -> None:
    """A refused status call leaves the stage as it was, and its message is kept as the complaint."""
    record = folded(tape.request(), tape.answer(1.0), tape.busy(2.0))

    assert (Stage.SUBMITTED, Verdict.OPEN) == (record.stage, record.verdict)
    assert "busy" in (record.complaint or "")


def test_unknown_words_are_kept() -> None:
    """Each unknown word is kept once, in order of time, and only the latest twenty."""
    two = [tape.webhook(at, tape.shown(Stage.TEXT, word=word)) for at, word in ((2.0, "b"), (1.0, "a"), (3.0, "b"))]
    many = [tape.webhook(float(n), tape.shown(None, word=f"word {n}")) for n in range(1, MAX_WORDS + 6)]

    assert ("a", "b") == folded(tape.request(), *two).words
    assert tuple(f"word {n}" for n in range(6, MAX_WORDS + 6)) == folded(tape.request(), *many).words


def test_the_latest_credits_and_cover_count() -> None:
    """The latest cover and credits of a task count, and a missing value erases none."""
    journal = [
        tape.webhook(1.0, tape.shown(Stage.TEXT, cover_url=A, credits=1.0)),
        tape.webhook(2.0, tape.shown(Stage.FIRST, Track(id="one", audio_url=A), cover_url=B, credits=2.0)),
        tape.webhook(3.0, tape.shown(Stage.COMPLETE)),
    ]
    record = folded(tape.request(), *journal)

    assert (B, 2.0, [B]) == (record.cover_url, record.credits, [each.image_url for each in record.tracks])


def test_seen_at_is_the_time_of_the_providers_last_word() -> None:
    """`seen_at` is the time of the last answer, webhook or status, and not of what handlers did."""
    journal = [tape.request(), tape.answer(1.0), tape.webhook(2.0, tape.shown(Stage.TEXT)), tape.busy(3.0)]

    assert [1.0, 2.0, 3.0] == [folded(*journal[:n]).seen_at for n in (2, 3, 4)]
    assert 3.0 == folded(*journal, tape.handled(9.0, "text"), make_entry("expired", 10.0)).seen_at


# --- handlers -----------------------------------------------------------------------------------------------


def test_topics_are_due_in_order_until_they_are_handled() -> None:
    """Each reached stage is an unhandled topic, in order, until its handlers are done."""
    journal = [tape.request(), tape.webhook(4.0, tape.shown(Stage.COMPLETE, ONE))]

    assert ("text", "first", "complete") == folded(*journal).unhandled
    assert ("first", "complete") == folded(*journal, tape.handled(5.0, "text")).unhandled
    assert ("text", "first") == folded(*journal, tape.handled(5.0, "complete")).unhandled


def test_a_failure_is_a_topic_before_a_late_complete() -> None:
    """A failed job has the topic `failed`; if it completes first, handlers are called for the stages alone."""
    failed = [tape.request(), tape.webhook(2.0, tape.shown(Stage.TEXT)), NO]

    assert ("text", "failed") == folded(*failed).unhandled
    assert ("text", "first", "complete") == folded(*failed, DONE).unhandled
    risen = folded(*failed, tape.handled(4.0, "text"), tape.handled(5.0, "failed"), DONE)
    assert ("first", "complete") == risen.unhandled


def test_how_each_handler_fared_is_counted() -> None:
    """A handler's failures are counted with its last error, and a success clears the error."""
    first = tape.handled(5.0, "text", "bot.tell", failure=1, error="no", is_over=False)
    second = tape.handled(7.0, "text", "bot.tell", failure=2, error="again", is_over=False)
    done = tape.handled(9.0, "text", "bot.tell")
    key = ("text", "bot.tell")

    for order in itertools.permutations([first, second]):
        failing = folded(tape.request(), *order)
        assert {key: Run(failures=2, last_at=7.0, error="again", is_done=False)} == failing.runs
        assert (frozenset(), ()) == (failing.handled, failing.handler_faults)
    assert {key: Run(failures=2, last_at=9.0, error="", is_done=True)} == folded(
        tape.request(), first, second, done
    ).runs


def test_a_handler_that_was_given_up_is_a_fault_of_the_record() -> None:
    """The last error of a handler that was given up stays in the record, one line per handler."""
    given_up = tape.handled(5.0, "text", "bot.tell", failure=5, error="ValueError: no", is_over=True)
    record = folded(tape.request(), given_up, tape.handled(5.0, "text"))

    assert (("text: ValueError: no",), frozenset({"text"})) == (record.handler_faults, record.handled)


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b'{"topic":1}', b"\xff"])
def test_a_damaged_word_of_a_handler_is_left_out(damaged: bytes) -> None:
    """A damaged outcome of a handler is ignored, so that the handler is called again."""
    record = folded(tape.request(), tape.webhook(2.0, tape.shown(Stage.TEXT)), make_entry("handled", 3.0, body=damaged))

    assert (frozenset(), {}, ("text",)) == (record.handled, record.runs, record.unhandled)


@pytest.mark.parametrize("kind", ["webhook", "status", "answer", "handled", "expired", "abandoned"])
@given(data=st.binary(), code=st.sampled_from([0, 200, 400, 503]))
def test_an_entry_with_any_bytes_can_be_read(kind: EntryKind, data: bytes, code: int) -> None:
    """An entry with any bytes can be read, and the job keeps its task."""
    assert TASK == folded(tape.request(), tape.answer(1.0), make_entry(kind, 2.0, status=code, body=data)).task_id


def test_a_damaged_request_raises_store_error() -> None:
    """A damaged request raises `StoreError`."""
    with pytest.raises(StoreError, match="damaged"):
        tape.readings(make_entry("request", 0.0, body=b"{}"))
