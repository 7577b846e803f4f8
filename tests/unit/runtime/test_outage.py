"""What the log says of an outage: neither nothing nor too much."""

from __future__ import annotations

import logging

import pytest

from audioext.outage import REPEAT_SECONDS, Outage

LOG = logging.getLogger("audioext.test")


def test_an_outage_is_logged_at_its_begin_now_and_then_and_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage with a hundred attempts in a minute and a half is logged in four lines, and its end in one."""
    now = 1_000.0
    monkeypatch.setattr("audioext.outage.time.monotonic", lambda: now)
    away = Outage(LOG, "the store is not there")

    away.over()
    for _ in range(100):
        away.note(OSError("refused"))
        now += 3.1 * REPEAT_SECONDS / 100
    away.over()
    away.over()

    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 4 * ["the store is not there, trying again: refused"] == lines[:-1]
    assert "the store is not there: recovered after 93.0 s" == lines[-1]


def test_a_second_outage_is_logged_like_the_first(caplog: pytest.LogCaptureFixture) -> None:
    """A second outage is logged like the first."""
    away = Outage(LOG, "the store is not there")

    for _ in range(2):
        away.note(OSError("refused"))
        away.over()

    assert 4 == len(caplog.records)
