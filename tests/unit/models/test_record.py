"""The stored form of a record: the identity, or an error that says what is wrong with the store."""

from __future__ import annotations

from pathlib import Path

import pytest

import audioext as ax
from audioext.models.record import Record, dump, load
from audioext.models.requests import Request


@pytest.mark.parametrize(
    "request_",
    [
        ax.Extend(audio_id="a", model="V5", custom=False, style_weight=0.65),
        ax.Extend(file=Path("ключ λ.wav"), source_duration=12.5),
        ax.AddInstrumental(url="https://x.test/a", title="t", tags="", negative_tags="", rehost=True),
    ],
)
def test_every_request_is_stored_and_read(request_: Request) -> None:
    """A record keeps its request whatever its kind and source."""
    record = Record(ref="r", provider="kie", request=request_, created_at=1.5, meta={"deep": {"list": [1, None, "λ"]}})

    assert record == load(dump(record))
    assert b"tag" not in dump(record).replace(b"tags", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a record"),
        (b"[]", "not a record"),
        (b'{"ref":"r"}', "not a record"),
        (b'{"v":999}', "update audioext"),
        (b'{"v":1}', "damaged"),
        (b'{"v":1,"ref":"r","provider":"kie","created_at":1,"request":{}}', "damaged"),
    ],
)
def test_what_is_no_record_is_told(data: bytes, says: str) -> None:
    """A store that holds something else says what, and what to do."""
    with pytest.raises(ax.StoreError, match=says):
        load(data)
