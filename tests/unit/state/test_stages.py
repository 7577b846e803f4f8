"""The state of a job is a join: what the rules promise, one by one and for any order."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.models.events import Event, Failed, Progress, Submitted
from audioext.models.record import Record, Seen, Verdict, dump, load
from audioext.models.requests import Extend
from audioext.models.results import FailureReason, Stage, TimedLine, Track
from audioext.state import stages

Fact = tuple[Event, Seen, float]

A, B = "http://files.test/a.mp3", "http://files.test/b.mp3"


def new_record(*, counts_takes: bool = False, expected_tracks: int = 2) -> Record:
    """Return a job of which nothing is known yet."""
    return Record(
        ref="r" * 24,
        provider="kie",
        request=Extend(audio_id="source", model="V5"),
        created_at=0.0,
        model="V5",
        counts_takes=counts_takes,
        expected_tracks=expected_tracks,
        retention=60.0,
    )


def play(record: Record, *facts: Fact) -> Record:
    """Return *record* after *facts*, in their order."""
    for event, seen, at in facts:
        record = stages.advance(record, event, seen=seen, at=at)
    return record


def progress(stage: Stage | None = None, *tracks: Track, task_id: str | None = "t") -> Progress:
    """Return a progress event of the one task."""
    return Progress(task_id=task_id, claimed_stage=stage, tracks=tracks)


ids = st.sampled_from([None, "one", "two"])
urls = st.sampled_from([None, A, B, "http://files.test/c.mp3"])
tracks = st.builds(
    Track,
    id=ids,
    audio_url=urls,
    stream_url=st.sampled_from([None, "http://files.test/stream"]),
    title=st.sampled_from([None, "", "Rain", "Snow"]),
    duration=st.sampled_from([None, 1.0, 20.5]),
    failure=st.sampled_from([None, "too quiet"]),
    position=st.sampled_from([None, 1, 2]),
    timed_lyrics=st.sampled_from([None, (TimedLine("la", 0.0, 1.0),)]),
    created_at=st.sampled_from([None, datetime(2026, 1, 2, tzinfo=UTC)]),
)
task_ids = st.sampled_from([None, "t"])
events = st.one_of(
    st.builds(
        Progress,
        task_id=task_ids,
        claimed_stage=st.sampled_from([None, *Stage]),
        tracks=st.lists(tracks, max_size=3).map(tuple),
        cover_url=st.sampled_from([None, A, B]),
        credits=st.sampled_from([None, 0.4, 12.0]),
        word=st.sampled_from([None, "second", "third"]),
    ),
    st.builds(
        Failed,
        task_id=task_ids,
        reason=st.sampled_from(FailureReason),
        code=st.sampled_from([None, "400", "501"]),
        message=st.sampled_from(["", "no"]),
        charged=st.sampled_from([None, False, True]),
    ),
    st.just(Submitted(task_id="t", track_ids=("two", "one"), eta=9.0, credit_estimate=12.0)),
)
seens: st.SearchStrategy[Seen] = st.sampled_from(["webhook", "poll"])
times = st.integers(1, 5).map(float)


@st.composite
def facts(draw: st.DrawFn) -> list[Fact]:
    """Return what one task showed; its answer is always an answer."""
    found: list[Fact] = []
    for event in draw(st.lists(events, max_size=6)):
        seen: Seen = "answer" if isinstance(event, Submitted) else draw(seens)
        found.append((event, seen, draw(times)))
    return found


@given(shown=facts(), data=st.data(), counts_takes=st.booleans())
def test_order_and_repetition_do_not_matter(*, shown: list[Fact], data: st.DataObject, counts_takes: bool) -> None:
    """Any order and any repetition of the same events of one task gives the same record."""
    plain = play(new_record(counts_takes=counts_takes), *shown)
    again = data.draw(st.lists(st.sampled_from(shown), max_size=4)) if shown else []
    shuffled = data.draw(st.permutations(shown + again))

    assert plain == play(new_record(counts_takes=counts_takes), *shuffled)


@given(shown=facts(), counts_takes=st.booleans())
def test_a_stored_record_is_the_record(*, shown: list[Fact], counts_takes: bool) -> None:
    """Storing and reading gives the same record, whatever was seen."""
    record = play(new_record(counts_takes=counts_takes), *shown)

    assert record == load(dump(record))


@given(shown=facts(), counts_takes=st.booleans())
def test_stages_verdicts_and_news_only_rise(*, shown: list[Fact], counts_takes: bool) -> None:
    """No event takes a stage or a verdict back, and no stage is news twice."""
    record = new_record(counts_takes=counts_takes)
    topics: list[str] = []
    for fact in shown:
        later = play(record, fact)
        assert (record.stage or 0) <= (later.stage or 0)
        assert record.verdict <= later.verdict
        topics += [topic for topic, _ in stages.told(record, later)]
        record = later

    assert len(topics) == len(set(topics))


@given(shown=facts())
def test_a_missing_field_never_erases_a_known_one(shown: list[Fact]) -> None:
    """A track that was playable stays playable, and a title stays."""
    record = new_record()
    for fact in shown:
        later = play(record, fact)
        known = {track.id: track for track in record.tracks if track.id is not None}
        for track in later.tracks:
            if track.id in known:
                assert (known[track.id].audio_url is None) or (track.audio_url is not None)
                assert not known[track.id].title or track.title
        record = later


def test_a_job_starts_without_a_stage() -> None:
    """Below SUBMITTED the stage is None and the job is open."""
    record = new_record()

    assert (None, Verdict.OPEN, None) == (record.stage, record.verdict, record.task_id)


def test_each_stage_is_told_once_in_order() -> None:
    """The usual three webhooks tell text, first and complete, each by webhook."""
    shown: list[Fact] = [
        (Submitted(task_id="t"), "answer", 1.0),
        (progress(Stage.TEXT), "webhook", 2.0),
        (progress(Stage.FIRST, Track(id="one", audio_url=A)), "webhook", 3.0),
        (progress(Stage.COMPLETE, Track(id="one", audio_url=A), Track(id="two", audio_url=B)), "webhook", 4.0),
    ]
    record, topics = new_record(), []
    for fact in shown:
        later = play(record, fact)
        topics += [topic for topic, _ in stages.told(record, later)]
        record = later

    assert ["text", "first", "complete"] == topics
    assert ["webhook"] * 3 == [reached.source for reached in record.reached[1:]]


def test_complete_alone_implies_the_earlier_stages() -> None:
    """A job whose first word is COMPLETE tells text and first as implied, with the tracks known then."""
    record = play(new_record(), (progress(Stage.COMPLETE, Track(id="one", audio_url=A)), "webhook", 4.0))

    implied = [stages.stage_event(record, stage) for stage in (Stage.TEXT, Stage.FIRST)]
    assert ["implied", "implied"] == [event.source for event in implied if event]
    assert [("one",), ("one",)] == [tuple(t.id for t in event.tracks) for event in implied if event]


def test_a_stage_event_holds_the_tracks_known_then() -> None:
    """The event of FIRST still shows one track after COMPLETE showed two."""
    record = play(
        new_record(),
        (progress(Stage.FIRST, Track(id="one", audio_url=A)), "webhook", 3.0),
        (progress(Stage.COMPLETE, Track(id="one", audio_url=A), Track(id="two", audio_url=B)), "webhook", 4.0),
    )

    event = stages.stage_event(record, Stage.FIRST)
    assert event is not None
    assert ["one"] == [track.id for track in event.tracks]


@pytest.mark.parametrize("track", [Track(id="one"), Track(id="one", stream_url="http://files.test/s")])
def test_complete_needs_a_playable_track(track: Track) -> None:
    """A claim of COMPLETE without audio proves TEXT at most, and asks for a status call."""
    record = play(new_record(), (progress(Stage.COMPLETE, track), "webhook", 4.0))

    assert (Stage.TEXT, Verdict.OPEN, True) == (record.stage, record.verdict, stages.wants_status(record))


def test_first_is_proved_by_audio_only() -> None:
    """A claim of FIRST without a playable track is TEXT; the audio may come by another word."""
    claimed = play(new_record(), (progress(Stage.FIRST, Track(id="one")), "webhook", 3.0))
    heard = play(claimed, (progress(None, Track(id="one", audio_url=A)), "poll", 5.0))

    assert (Stage.TEXT, Stage.FIRST) == (claimed.stage, heard.stage)


def test_tracks_without_an_id_become_one_with_the_id_that_shows_the_same_url() -> None:
    """A nameless sighting joins the take whose audio URL it shows, whichever came first."""
    named: Fact = (progress(Stage.COMPLETE, Track(id="one", audio_url=A)), "webhook", 4.0)
    nameless: Fact = (progress(Stage.COMPLETE, Track(audio_url=A, title="Rain")), "poll", 5.0)

    for order in itertools.permutations([named, nameless]):
        (track,) = play(new_record(), *order).tracks
        assert ("one", "Rain") == (track.id, track.title)


def test_a_status_call_outranks_a_webhook_of_the_same_stage() -> None:
    """Where both claim COMPLETE with different links, the status call's link counts."""
    record = play(
        new_record(),
        (progress(Stage.COMPLETE, Track(id="one", audio_url=B)), "poll", 5.0),
        (progress(Stage.COMPLETE, Track(id="one", audio_url=A)), "webhook", 6.0),
    )

    assert [B] == [track.audio_url for track in record.tracks]


def test_counting_completes_only_where_the_wire_has_no_stage_word() -> None:
    """Two takes with audio complete a MusicGPT job, and leave a kie.ai job at FIRST."""
    takes: list[Fact] = [
        (progress(None, Track(id="one", audio_url=A)), "webhook", 3.0),
        (progress(None, Track(id="two", audio_url=B)), "webhook", 4.0),
    ]

    assert Stage.COMPLETE is play(new_record(counts_takes=True), *takes).stage
    assert Stage.FIRST is play(new_record(counts_takes=False), *takes).stage


def test_one_failed_take_does_not_fail_the_job() -> None:
    """One good and one failed take complete a counted job; the failure stays on its track."""
    record = play(
        new_record(counts_takes=True),
        (progress(None, Track(id="one", failure="too quiet")), "webhook", 3.0),
        (progress(None, Track(id="two", audio_url=B)), "webhook", 4.0),
    )

    assert Verdict.COMPLETE is record.verdict
    assert {"one": "too quiet", "two": None} == {track.id: track.failure for track in record.tracks}


def test_the_job_fails_when_every_take_failed() -> None:
    """Two failed takes of two are the job's failure."""
    record = play(
        new_record(counts_takes=True),
        (progress(None, Track(id="one", failure="too quiet")), "webhook", 3.0),
        (progress(None, Track(id="two", failure="too loud")), "webhook", 4.0),
    )
    failure = stages.failure(record)

    assert failure is not None
    assert (Verdict.FAILED, "every take failed: too loud; too quiet") == (record.verdict, failure.message)


def test_a_failed_job_may_rise_to_complete() -> None:
    """A late COMPLETE undoes a failure, and never the other way round."""
    failed: Fact = (Failed(task_id="t", code="501"), "webhook", 3.0)
    done: Fact = (progress(Stage.COMPLETE, Track(id="one", audio_url=A)), "webhook", 4.0)

    assert Verdict.FAILED is play(new_record(), failed).verdict
    assert [Verdict.COMPLETE] * 2 == [play(new_record(), *order).verdict for order in ((failed, done), (done, failed))]


def test_expiry_is_outranked_by_everything() -> None:
    """A job that was given up still fails or completes by a late word."""
    given_up = stages.expire(new_record(), at=9.0)
    done = play(given_up, (progress(Stage.COMPLETE, Track(id="one", audio_url=A)), "webhook", 10.0))

    assert (Verdict.EXPIRED, Verdict.COMPLETE) == (given_up.verdict, done.verdict)


def test_the_answers_task_outranks_one_learnt_by_webhook() -> None:
    """When the answer names another task, what the other one showed is forgotten."""
    called = play(
        new_record(), (progress(Stage.COMPLETE, Track(id="one", audio_url=A), task_id="other"), "webhook", 1.0)
    )
    answered = play(called, (Submitted(task_id="t"), "answer", 2.0))

    assert ("t", Stage.SUBMITTED, ()) == (answered.task_id, answered.stage, answered.tracks)


def test_a_cover_is_every_takes_picture_unless_it_has_its_own() -> None:
    """A cover that belongs to the task fills in for takes without one."""
    record = play(
        new_record(),
        (Progress(task_id="t", cover_url="http://files.test/cover.png"), "webhook", 1.0),
        (progress(None, Track(id="one", audio_url=A), Track(id="two", image_url=B)), "webhook", 2.0),
    )

    assert ["http://files.test/cover.png", B] == [track.image_url for track in record.tracks]


def test_positions_order_the_tracks() -> None:
    """Numbered takes come in their order, whatever order they arrived in."""
    record = play(
        new_record(counts_takes=True),
        (progress(None, Track(id="z", audio_url=A, position=1)), "webhook", 2.0),
        (progress(None, Track(id="a", audio_url=B, position=2)), "webhook", 1.0),
    )

    assert ["z", "a"] == [track.id for track in record.tracks]


def test_links_expire_after_the_providers_retention() -> None:
    """`expires_at` is when the link was first seen, plus the retention."""
    record = play(new_record(), (progress(Stage.COMPLETE, Track(id="one", audio_url=A)), "webhook", 100.0))

    assert [datetime.fromtimestamp(160.0, UTC)] == [track.expires_at for track in record.tracks]
