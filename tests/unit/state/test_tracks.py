"""What is known of each track: how sightings are merged, and in which order the tracks come."""

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


def test_nothing_seen_is_no_track() -> None:
    """A task of which no track was shown has none."""
    assert () == tracks_of(ASKED, ())


def test_sightings_of_one_id_are_one_track() -> None:
    """Whatever else they show, the id says which track it is."""
    found = tracks_of(ASKED, [seen(Track(id="one", title="Rain")), seen(Track(id="one", audio_url=A))])

    assert [("one", "Rain", A)] == [(track.id, track.title, track.audio_url) for track in found]


def test_a_track_without_an_id_joins_the_id_that_shows_its_url() -> None:
    """A nameless sighting joins the track whose audio URL it shows, whichever came first."""
    named = seen(Track(id="one", audio_url=A), at=2.0)
    nameless = seen(Track(audio_url=A, title="Rain"), at=1.0)

    for sightings in ([nameless, named], [named, nameless]):
        assert ("one", "Rain") == (merged(*sightings).id, merged(*sightings).title)


def test_a_track_without_an_id_is_known_by_its_url() -> None:
    """Two nameless sightings are one track where their audio, or else their stream, is the same."""
    audio = [seen(Track(audio_url=A)), seen(Track(audio_url=A, title="Rain")), seen(Track(audio_url=B))]
    stream = [seen(Track(stream_url=A)), seen(Track(stream_url=A, title="Rain")), seen(Track(stream_url=B))]

    assert [(A, "Rain"), (B, None)] == [(track.audio_url, track.title) for track in tracks_of(ASKED, audio)]
    assert [(A, "Rain"), (B, None)] == [(track.stream_url, track.title) for track in tracks_of(ASKED, stream)]


def test_a_link_that_is_signed_anew_is_the_same_file() -> None:
    """The query of a link to an audio file tells no tracks apart; elsewhere it may be what names the file."""
    signed = [seen(Track(audio_url=f"{A}?X-Amz-Signature={number}"), at=float(number)) for number in (1, 2)]
    piped = [seen(Track(audio_url=f"https://audiopipe.suno.ai/?item_id={number}")) for number in (1, 2)]

    assert f"{A}?X-Amz-Signature=2" == merged(*signed).audio_url
    assert "one" == merged(signed[0], seen(Track(id="one", audio_url=A))).id
    assert 2 == len(tracks_of(ASKED, piped))


def test_a_url_that_several_ids_showed_belongs_to_each() -> None:
    """A nameless sighting takes nothing from any of two ids that showed its URL."""
    both = [seen(Track(id=name, audio_url=A)) for name in ("one", "two")]
    found = tracks_of(ASKED, [*both, seen(Track(audio_url=A, title="Rain"))])

    assert [("one", "Rain"), ("two", "Rain")] == [(track.id, track.title) for track in found]


# --- which value wins ---------------------------------------------------------------------------------------


def test_a_higher_stage_outranks_everything() -> None:
    """What was shown with COMPLETE counts more than a status answer's or a later word of TEXT."""
    last = seen(Track(id="one", title="last"), Stage.COMPLETE, "webhook", at=1.0)
    others = [
        seen(Track(id="one", title="asked"), Stage.TEXT, "poll", at=5.0),
        seen(Track(id="one", title="late"), Stage.FIRST, "webhook", at=9.0),
        seen(Track(id="one", title="plain"), None, "poll", at=9.0),
    ]

    assert "last" == merged(*others, last).title


def test_a_status_answer_outranks_a_webhook_of_the_same_stage() -> None:
    """Where both claim one stage with different links, the status answer's link counts."""
    poll = seen(Track(id="one", audio_url=B), Stage.COMPLETE, "poll", at=5.0)
    webhook = seen(Track(id="one", audio_url=A), Stage.COMPLETE, "webhook", at=6.0)

    assert B == merged(poll, webhook).audio_url


def test_of_equal_words_the_later_counts() -> None:
    """Two webhooks of one stage that differ: the later one is right."""
    early, late = (seen(Track(id="one", title=title), Stage.TEXT, at=at) for title, at in (("a", 1.0), ("b", 2.0)))

    assert "b" == merged(early, late).title


def test_a_value_beats_none_and_empty_text() -> None:
    """The best sighting's missing and empty fields are filled from the others."""
    best = seen(Track(id="one", title="", audio_url=A), Stage.COMPLETE, at=9.0)
    other = seen(Track(id="one", title="Rain", lyrics="la"), Stage.TEXT, at=1.0)

    assert ("Rain", "la", A) == (merged(best, other).title, merged(best, other).lyrics, merged(best, other).audio_url)
    assert "" == merged(best).title


def test_a_wav_file_stands_in_for_the_audio_only_where_nothing_else_came() -> None:
    """A part that shows the WAV file alone leaves the link of another, but that of a webhook after COMPLETE."""
    both = seen(Track(id="one", audio_url=A, wav_url=B), at=1.0)
    bare = seen(Track(id="one", audio_url=A), at=1.0)
    wav = seen(Track(id="one", audio_url=B, wav_url=B), at=2.0)
    late = replace(bare, at=3.0)

    for sightings in ([both, wav], [bare, wav], [late, wav]):
        assert (A, B) == (merged(*sightings).audio_url, merged(*sightings).wav_url)
    assert B == merged(wav).audio_url
    assert [B] == [each.audio_url for each in tracks_of(ASKED, [wav, late], complete_at=2.0)]


def test_audio_takes_the_failure_off() -> None:
    """A track that is playable by any word has not failed."""
    failed = seen(Track(id="one", failure="too quiet"), Stage.COMPLETE, "poll", at=9.0)

    assert "too quiet" == merged(failed).failure
    assert merged(failed, seen(Track(id="one", audio_url=A))).failure is None


# --- what the job adds --------------------------------------------------------------------------------------


def test_a_track_knows_how_it_was_made() -> None:
    """Provider, model and the way to extend it come from the submit, whatever the wire says."""
    track = merged(seen(Track(id="one", provider="x", model="y", model_name="z")))

    assert ("tape", "V5", "z", True) == (track.provider, track.model, track.model_name, track.extends_by_id)
    by_url = tracks_of(asked(extends_by_id=False), [seen(Track(id="one"))])
    assert [False] == [track.extends_by_id for track in by_url]


def test_links_expire_after_the_providers_retention() -> None:
    """`expires_at` is when the first link was seen, plus the retention; a track without audio has none."""
    sightings = [
        seen(Track(id="one", audio_url=A), at=100.0),
        seen(Track(id="one", audio_url=A), at=200.0),
        seen(Track(id="two"), at=50.0),
    ]

    expected = {"one": datetime.fromtimestamp(160.0, UTC), "two": None}
    assert expected == {track.id: track.expires_at for track in tracks_of(ASKED, sightings)}
    assert [None, None] == [track.expires_at for track in tracks_of(asked(retention=None), sightings)]


def test_a_cover_is_every_tracks_picture_unless_it_has_its_own() -> None:
    """A cover that belongs to the task fills in for tracks without one."""
    sightings = [seen(Track(id="one")), seen(Track(id="two", image_url=B))]

    assert [A, B] == [track.image_url for track in tracks_of(ASKED, sightings, cover_url=A)]


# --- the order ----------------------------------------------------------------------------------------------


def names(*sightings: Sighting, track_ids: tuple[str, ...] = ()) -> list[str | None]:
    """Return the ids of the tracks in their order."""
    return [track.id for track in tracks_of(ASKED, sightings, track_ids=track_ids)]


def test_the_ids_of_the_answer_order_the_tracks() -> None:
    """The order that the submit's answer named comes first, then what it did not name."""
    sightings = [seen(Track(id=name), position=place) for place, name in enumerate(("new", "one", "two"), 1)]

    assert ["two", "one", "new"] == names(*sightings, track_ids=("two", "one"))


def test_positions_of_the_wire_order_the_tracks() -> None:
    """Numbered tracks come in their order, whatever order they arrived in; the others follow by id."""
    sightings = [
        seen(Track(id="z", position=1)),
        seen(Track(id="a", position=2)),
        seen(Track(id="y")),
        seen(Track(id="x")),
    ]

    assert ["z", "a", "x", "y"] == names(*sightings)


def test_the_list_at_the_highest_stage_orders_the_tracks() -> None:
    """Where lists differ, the order of the one with the highest stage counts."""
    early = [seen(Track(id=name), Stage.TEXT, position=place) for place, name in enumerate(("a", "b"), 1)]
    last = [seen(Track(id=name), Stage.COMPLETE, position=place) for place, name in enumerate(("b", "a"), 1)]

    assert ["b", "a"] == names(*early, *last)


def test_every_track_has_a_place() -> None:
    """Tracks that no word numbers are numbered in their order."""
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
    """Each sighting is in some group, each id and each audio URL without an id is one track."""
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
    """The same thing seen twice is one thing."""
    assert tracks_of(ASKED, sightings) == tracks_of(ASKED, [each for each in sightings for _ in range(2)])


@given(
    track=st.builds(
        Track, title=st.none() | st.text(), duration=st.none() | st.floats(0, 900), lyrics=st.none() | st.text()
    )
)
def test_a_single_sighting_is_the_track(track: Track) -> None:
    """What was seen once is what is known."""
    shown = merged(seen(track))

    assert attrs.evolve(track, provider="tape", model="V5", position=1) == shown


# --- what a webhook may not do -------------------------------------------------------------------------------


def test_webhooks_alone_show_no_more_tracks_than_were_asked_for() -> None:
    """A track that a forged `first` adds gives way to those of the whole song, and to what a status call shows."""
    evil = seen(Track(id="evil", audio_url=B), claimed=Stage.FIRST, at=1.0)
    good = [seen(Track(id=name, audio_url=f"{A}?{name}"), claimed=Stage.COMPLETE, at=2.0) for name in ("one", "two")]
    polled = [replace(each, seen="poll", at=3.0) for each in good]

    assert ["evil"] == [track.id for track in tracks_of(TWO, [evil])]
    assert ["one", "two"] == [track.id for track in tracks_of(TWO, [evil, *good])]
    assert ["one", "two"] == [track.id for track in tracks_of(TWO, [evil, *polled])]


def test_what_cannot_be_played_takes_no_place_from_what_can() -> None:
    """A status call shows ids and streams, then the webhook the files, without ids: each file is a track."""
    polled = [seen(Track(id=name, stream_url=A), claimed=Stage.TEXT, by="poll") for name in ("one", "two")]
    files = [seen(Track(audio_url=url), claimed=Stage.COMPLETE, at=2.0, position=1) for url in (A, B)]
    mute = [seen(Track(id=name), claimed=Stage.COMPLETE) for name in ("three", "four")]

    for sightings in ([*polled, *files], [*polled, *mute, *files]):
        assert [A, B] == [each.audio_url for each in tracks_of(TWO, sightings) if each.audio_url is not None]


def test_a_status_call_may_show_more_tracks_than_were_asked_for() -> None:
    """What the API itself answers is believed, however many they are."""
    polled = [seen(Track(id=f"{number}", audio_url=f"{A}?{number}"), by="poll") for number in range(3)]

    assert 3 == len(tracks_of(TWO, polled))


def test_a_webhook_changes_nothing_after_the_song_was_complete() -> None:
    """It adds what was missing; a link that is known stays, unless a status call names another."""
    first = seen(Track(id="one", audio_url=A), claimed=Stage.COMPLETE, at=1.0)
    late = seen(Track(id="one", audio_url=B, lyrics="la"), claimed=Stage.COMPLETE, at=2.0)
    polled = replace(late, seen="poll")

    assert [(A, "la")] == [(each.audio_url, each.lyrics) for each in tracks_of(TWO, [first, late], complete_at=1.0)]
    assert [B] == [each.audio_url for each in tracks_of(TWO, [first, polled], complete_at=1.0)]
    assert [B] == [each.audio_url for each in tracks_of(TWO, [first, late])]
