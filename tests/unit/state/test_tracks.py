"""How sightings of tracks are merged, and how the tracks are ordered."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from audioext.models.record import Seen, Sighting
from audioext.models.results import Stage, Track
from audioext.state.tracks import groups, tracks_of
from tests.support.tape import asked

A, B = "http://files.test/a.mp3", "http://files.test/b.mp3"
ASKED = asked(model="V5", retention=60.0, expected_tracks=8)
TWO = asked(model="V5", expected_tracks=2)


def seen(
    track: Track, claimed: Stage | None = None, by: Seen = "webhook", at: float = 1.0, position: int = 0
) -> Sighting:
    """Return one sighting of *track*."""
    return Sighting(track, claimed, by, at, position)


def merged(*sightings: Sighting) -> Track:
    """Return the one track that *sightings* show."""
    (track,) = tracks_of(ASKED, sightings)
    return track


# --- which sightings belong together ------------------------------------------------------------------------


def test_a_task_without_shown_tracks_has_none() -> None:
    """A task of which no track was shown has none."""
    assert () == tracks_of(ASKED, ())


def test_sightings_of_one_id_are_one_track() -> None:
    """Sightings with the same id are one track, whatever else they show."""
    found = tracks_of(ASKED, [seen(Track(id="one", title="Rain")), seen(Track(id="one", audio_url=A))])

    assert [("one", "Rain", A)] == [(track.id, track.title, track.audio_url) for track in found]


def test_a_track_without_an_id_joins_the_id_that_shows_its_url() -> None:
    """A sighting without an id joins the track whose audio URL it shows, whichever came first."""
    named = seen(Track(id="one", audio_url=A), at=2.0)
    nameless = seen(Track(audio_url=A, title="Rain"), at=1.0)

    for sightings in ([nameless, named], [named, nameless]):
        assert ("one", "Rain") == (merged(*sightings).id, merged(*sightings).title)


def test_a_track_without_an_id_is_known_by_its_url() -> None:
    """Two sightings without ids are one track if their audio URL, or else their stream URL, is the same."""
    audio = [seen(Track(audio_url=A)), seen(Track(audio_url=A, title="Rain")), seen(Track(audio_url=B))]
    stream = [seen(Track(stream_url=A)), seen(Track(stream_url=A, title="Rain")), seen(Track(stream_url=B))]

    assert [(A, "Rain"), (B, None)] == [(track.audio_url, track.title) for track in tracks_of(ASKED, audio)]
    assert [(A, "Rain"), (B, None)] == [(track.stream_url, track.title) for track in tracks_of(ASKED, stream)]


def test_a_link_that_is_signed_anew_is_the_same_file() -> None:
    """Links to audio files that differ only in their query are the same file; for other links the query counts."""
    signed = [seen(Track(audio_url=f"{A}?X-Amz-Signature={number}"), at=float(number)) for number in (1, 2)]
    piped = [seen(Track(audio_url=f"https://audiopipe.suno.ai/?item_id={number}")) for number in (1, 2)]

    assert f"{A}?X-Amz-Signature=2" == merged(*signed).audio_url
    assert "one" == merged(signed[0], seen(Track(id="one", audio_url=A))).id
    assert 2 == len(tracks_of(ASKED, piped))


def test_a_url_that_several_ids_showed_belongs_to_each() -> None:
    """A sighting without an id whose URL two tracks showed joins both of them."""
    both = [seen(Track(id=name, audio_url=A)) for name in ("one", "two")]
    found = tracks_of(ASKED, [*both, seen(Track(audio_url=A, title="Rain"))])

    assert [("one", "Rain"), ("two", "Rain")] == [(track.id, track.title) for track in found]


# --- which value wins ---------------------------------------------------------------------------------------


def test_a_higher_stage_outranks_everything() -> None:
    """What was shown with a higher stage outranks a status answer and later entries of a lower stage."""
    last = seen(Track(id="one", title="last"), Stage.COMPLETE, "webhook", at=1.0)
    others = [
        seen(Track(id="one", title="asked"), Stage.TEXT, "poll", at=5.0),
        seen(Track(id="one", title="late"), Stage.FIRST, "webhook", at=9.0),
        seen(Track(id="one", title="plain"), None, "poll", at=9.0),
    ]

    assert "last" == merged(*others, last).title


def test_a_status_answer_outranks_a_webhook_of_the_same_stage() -> None:
    """Of a status answer and a webhook with the same stage the status answer's link counts."""
    poll = seen(Track(id="one", audio_url=B), Stage.COMPLETE, "poll", at=5.0)
    webhook = seen(Track(id="one", audio_url=A), Stage.COMPLETE, "webhook", at=6.0)

    assert B == merged(poll, webhook).audio_url


def test_of_two_webhooks_of_one_stage_the_later_counts() -> None:
    """Of two webhooks with the same stage the later one counts."""
    early, late = (seen(Track(id="one", title=title), Stage.TEXT, at=at) for title, at in (("a", 1.0), ("b", 2.0)))

    assert "b" == merged(early, late).title


def test_a_value_beats_none_and_empty_text() -> None:
    """Fields that are missing or empty in the best sighting are filled from the others."""
    best = seen(Track(id="one", title="", audio_url=A), Stage.COMPLETE, at=9.0)
    other = seen(Track(id="one", title="Rain", lyrics="la"), Stage.TEXT, at=1.0)

    assert ("Rain", "la", A) == (merged(best, other).title, merged(best, other).lyrics, merged(best, other).audio_url)
    assert "" == merged(best).title


def test_a_wav_file_stands_in_for_the_audio_only_where_nothing_else_came() -> None:
    """A link that repeats the WAV file is used as audio only if there is no other, or the other came after COMPLETE."""
    both = seen(Track(id="one", audio_url=A, wav_url=B), at=1.0)
    bare = seen(Track(id="one", audio_url=A), at=1.0)
    wav = seen(Track(id="one", audio_url=B, wav_url=B), at=2.0)
    late = replace(bare, at=3.0)

    for sightings in ([both, wav], [bare, wav], [late, wav]):
        assert (A, B) == (merged(*sightings).audio_url, merged(*sightings).wav_url)
    assert B == merged(wav).audio_url
    assert [B] == [each.audio_url for each in tracks_of(ASKED, [wav, late], complete_at=2.0)]


def test_audio_takes_the_failure_off() -> None:
    """A track that any sighting shows as playable has not failed."""
    failed = seen(Track(id="one", failure="too quiet"), Stage.COMPLETE, "poll", at=9.0)

    assert "too quiet" == merged(failed).failure
    assert merged(failed, seen(Track(id="one", audio_url=A))).failure is None


# --- what the job adds --------------------------------------------------------------------------------------


def test_a_track_knows_how_it_was_made() -> None:
    """A track's provider, model and way to extend it come from the submit, not from the wire."""
    track = merged(seen(Track(id="one", provider="x", model="y", model_name="z")))

    assert ("tape", "V5", "z", True) == (track.provider, track.model, track.model_name, track.extends_by_id)
    by_url = tracks_of(asked(extends_by_id=False), [seen(Track(id="one"))])
    assert [False] == [track.extends_by_id for track in by_url]


def test_links_expire_after_the_providers_retention() -> None:
    """`expires_at` is when the audio link was first seen plus the retention, `None` without audio or retention."""
    sightings = [
        seen(Track(id="one", audio_url=A), at=100.0),
        seen(Track(id="one", audio_url=A), at=200.0),
        seen(Track(id="two"), at=50.0),
    ]

    expected = {"one": datetime.fromtimestamp(160.0, UTC), "two": None}
    assert expected == {track.id: track.expires_at for track in tracks_of(ASKED, sightings)}
    assert [None, None] == [track.expires_at for track in tracks_of(asked(retention=None), sightings)]


def test_a_cover_is_every_tracks_picture_unless_it_has_its_own() -> None:
    """The cover of a task is the picture of each track that has none of its own."""
    sightings = [seen(Track(id="one")), seen(Track(id="two", image_url=B))]

    assert [A, B] == [track.image_url for track in tracks_of(ASKED, sightings, cover_url=A)]


# --- earlier names of the same tracks -----------------------------------------------------------------------


def test_the_last_answer_about_a_song_names_its_tracks() -> None:
    """Tracks that only earlier answers showed, under other ids, are no further ones if the last answer has enough."""
    early = [seen(Track(id="old", audio_url=A), Stage.FIRST, "poll", 1.0)]
    done = [seen(Track(id=id_, audio_url=url), Stage.COMPLETE, "poll", 2.0) for id_, url in (("one", A), ("two", B))]
    renewed = [replace(each, track=attrs.evolve(each.track, id=f"{each.track.id}!"), at=3.0) for each in done]

    assert ["one", "two"] == [track.id for track in tracks_of(TWO, [*early, *done])]
    assert ["one!", "two!"] == [track.id for track in tracks_of(TWO, [*early, *done, *renewed])]
    assert ["old", "one"] == [track.id for track in tracks_of(TWO, [*early, done[0]])]
    assert 3 == len(tracks_of(TWO, [*early, done[0], seen(Track(id="x", audio_url=B), Stage.FIRST, "poll", 1.5)]))


def test_an_answer_may_show_more_tracks_than_were_asked_for() -> None:
    """All tracks of the last answer about a song are kept, however many they are."""
    done = [seen(Track(id=id_, audio_url=f"{A}?{id_}"), Stage.COMPLETE, "poll", 2.0) for id_ in "abc"]

    assert ["a", "b", "c"] == [track.id for track in tracks_of(TWO, done)]


# --- the order ----------------------------------------------------------------------------------------------


def names(*sightings: Sighting, track_ids: tuple[str, ...] = ()) -> list[str | None]:
    """Return the ids of the tracks, in order."""
    return [track.id for track in tracks_of(ASKED, sightings, track_ids=track_ids)]


def test_the_ids_of_the_answer_order_the_tracks() -> None:
    """Tracks come in the order of the submit's answer, then those that it did not name."""
    sightings = [seen(Track(id=name), position=place) for place, name in enumerate(("new", "one", "two"), 1)]

    assert ["two", "one", "new"] == names(*sightings, track_ids=("two", "one"))


def test_a_numbered_track_without_a_readable_id_keeps_its_place() -> None:
    """A track whose id could not be read comes by its number, before the second id of the answer."""
    first, second = seen(Track(audio_url=A, position=1)), seen(Track(id="two", audio_url=B, position=2))

    assert [None, "two"] == names(first, second, track_ids=("one", "two"))


def test_positions_of_the_wire_order_the_tracks() -> None:
    """Numbered tracks come in the order of their numbers, the others after them by id."""
    sightings = [
        seen(Track(id="z", position=1)),
        seen(Track(id="a", position=2)),
        seen(Track(id="y")),
        seen(Track(id="x")),
    ]

    assert ["z", "a", "x", "y"] == names(*sightings)


def test_the_list_at_the_highest_stage_orders_the_tracks() -> None:
    """If lists differ in their order, the one with the highest stage counts."""
    early = [seen(Track(id=name), Stage.TEXT, position=place) for place, name in enumerate(("a", "b"), 1)]
    last = [seen(Track(id=name), Stage.COMPLETE, position=place) for place, name in enumerate(("b", "a"), 1)]

    assert ["b", "a"] == names(*early, *last)


def test_every_track_has_a_place() -> None:
    """Tracks without a position are numbered in their order."""
    assert [1, 2] == [track.position for track in tracks_of(ASKED, [seen(Track(id="b")), seen(Track(id="a"))])]


# --- any sightings ------------------------------------------------------------------------------------------

any_sighting = st.builds(
    Sighting,
    st.builds(
        Track,
        id=st.sampled_from([None, "one", "two"]),
        audio_url=st.sampled_from([None, A, B]),
        stream_url=st.sampled_from([None, "http://files.test/s"]),
        title=st.sampled_from([None, "", "Rain"]),
    ),
    st.sampled_from([None, *Stage]),
    st.sampled_from(["answer", "webhook", "poll"]),
    st.integers(1, 3).map(float),
    st.integers(0, 2),
)


@given(sightings=st.lists(any_sighting, max_size=8))
def test_no_sighting_is_lost_and_no_track_comes_twice(sightings: list[Sighting]) -> None:
    """Every sighting is part of a track, and no id or nameless audio URL is in two."""
    found = groups(sightings)
    tracks = tracks_of(ASKED, sightings)

    assert {id(sighting) for sighting in sightings} == {id(sighting) for group in found for sighting in group}
    assert len(found) == len(tracks)
    ids = [track.id for track in tracks if track.id is not None]
    nameless = [track.audio_url for track in tracks if track.id is None and track.audio_url is not None]
    assert len(set(ids)) == len(ids)
    assert len({*nameless, *(t.audio_url for t in tracks if t.id is not None)} & set(nameless)) == len(nameless)


@given(sightings=st.lists(any_sighting, max_size=8))
def test_a_sighting_that_comes_again_changes_nothing(sightings: list[Sighting]) -> None:
    """A repeated sighting changes nothing."""
    assert tracks_of(ASKED, sightings) == tracks_of(ASKED, [each for each in sightings for _ in range(2)])


@given(
    track=st.builds(
        Track, title=st.none() | st.text(), duration=st.none() | st.floats(0, 900), lyrics=st.none() | st.text()
    )
)
def test_a_single_sighting_is_the_track(track: Track) -> None:
    """A single sighting is the track, with the provider, model and position added."""
    shown = merged(seen(track))

    assert attrs.evolve(track, provider="tape", model="V5", position=1) == shown


# --- what a webhook may not do -------------------------------------------------------------------------------


def test_webhooks_alone_show_no_more_tracks_than_were_asked_for() -> None:
    """Webhooks alone show no more tracks than were requested, so a track from a forged `first` is dropped."""
    evil = seen(Track(id="evil", audio_url=B), claimed=Stage.FIRST, at=1.0)
    good = [seen(Track(id=name, audio_url=f"{A}?{name}"), claimed=Stage.COMPLETE, at=2.0) for name in ("one", "two")]
    polled = [replace(each, seen="poll", at=3.0) for each in good]

    assert ["evil"] == [track.id for track in tracks_of(TWO, [evil])]
    assert ["one", "two"] == [track.id for track in tracks_of(TWO, [evil, *good])]
    assert ["one", "two"] == [track.id for track in tracks_of(TWO, [evil, *polled])]


def test_what_cannot_be_played_takes_no_place_from_what_can() -> None:
    """Tracks without audio take no place from files that arrive without ids."""
    polled = [seen(Track(id=name, stream_url=A), claimed=Stage.TEXT, by="poll") for name in ("one", "two")]
    files = [seen(Track(audio_url=url), claimed=Stage.COMPLETE, at=2.0, position=1) for url in (A, B)]
    mute = [seen(Track(id=name), claimed=Stage.COMPLETE) for name in ("three", "four")]

    for sightings in ([*polled, *files], [*polled, *mute, *files]):
        assert [A, B] == [each.audio_url for each in tracks_of(TWO, sightings) if each.audio_url is not None]


def test_a_status_call_may_show_more_tracks_than_were_asked_for() -> None:
    """A status answer may show more tracks than were requested."""
    polled = [seen(Track(id=f"{number}", audio_url=f"{A}?{number}"), by="poll") for number in range(3)]

    assert 3 == len(tracks_of(TWO, polled))


def test_a_webhook_changes_nothing_after_the_song_was_complete() -> None:
    """After COMPLETE a webhook only adds missing fields, and a known link changes only by a status call."""
    first = seen(Track(id="one", audio_url=A), claimed=Stage.COMPLETE, at=1.0)
    late = seen(Track(id="one", audio_url=B, lyrics="la"), claimed=Stage.COMPLETE, at=2.0)
    polled = replace(late, seen="poll")

    assert [(A, "la")] == [(each.audio_url, each.lyrics) for each in tracks_of(TWO, [first, late], complete_at=1.0)]
    assert [B] == [each.audio_url for each in tracks_of(TWO, [first, polled], complete_at=1.0)]
    assert [B] == [each.audio_url for each in tracks_of(TWO, [first, late])]
