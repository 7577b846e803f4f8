"""Times of a track: what can be taken can be stored and read again, and no time ever costs a record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from audioext.http.decoding import When, structure
from audioext.models.record import Record, dump, load
from audioext.models.requests import Extend
from audioext.models.results import Track


@frozen
class Body:
    """A wire class with a time."""

    at: When | None = None


def record_of(moment: datetime | None) -> Record:
    """Return a record whose one track was made at *moment*."""
    request = Extend(audio_id="a", model="V5")
    return Record(ref="r" * 24, provider="kie", request=request, created_at=1.0, tracks=(Track(created_at=moment),))


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+08:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59.9999999Z",
        "9999-12-31T23:59:59-08:00",
        "1969-12-31T23:59:59Z",
    ],
)
def test_a_time_that_says_nothing_is_none(text: str) -> None:
    """The zero and the last time of other languages' calendars mean that there is no time."""
    assert structure({"at": text}, Body).at is None


@given(
    st.one_of(
        st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])),
        st.datetimes(),
    ).map(datetime.isoformat)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_a_time_that_was_taken_is_stored_and_read_again(value: object) -> None:
    """Whatever the wire says, the record that keeps it can be read."""
    moment = structure({"at": value}, Body).at

    (track,) = load(dump(record_of(moment))).tracks

    if moment is None:
        assert track.created_at is None
    else:
        assert track.created_at is not None
        assert abs(track.created_at - moment) < timedelta(milliseconds=1)


@pytest.mark.parametrize("stored", [-62_135_625_600.0, 253_402_300_800.0, 1e300, -1e300])
def test_a_stored_time_that_cannot_be_read_is_none_and_the_record_lives(stored: float) -> None:
    """A record that an earlier release poisoned is readable."""
    value = orjson.loads(dump(record_of(datetime(2026, 1, 2, tzinfo=UTC))))
    value["tracks"][0]["created_at"] = stored

    record = load(orjson.dumps(value))

    assert record_of(None) == record
