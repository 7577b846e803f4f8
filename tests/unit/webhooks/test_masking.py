"""The logging filter hides the tag of a callback path in whatever object a record holds."""

from __future__ import annotations

import logging

import pytest
from starlette import datastructures
from yarl import URL

import audioext as ax

PATH = f"/audio/kie/{'r' * 24}/{'t' * 43}"
LINK = f"https://hooks.test{PATH}"


class Broken:
    """An object that has no text."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError("it is closed")


def line(message: object, *given: object) -> str:
    """Return what a server's log would write."""
    record = logging.LogRecord("app", logging.INFO, "app.py", 1, message, given, None)
    assert ax.MaskingFilter().filter(record)
    return record.getMessage()


@pytest.mark.parametrize(
    "value",
    [
        PATH,
        LINK,
        URL(LINK),
        datastructures.URL(LINK),
        PATH.encode(),
        (PATH, 1),
        [URL(LINK)],
        {"path": PATH},
        ValueError(LINK),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_tag_is_hidden_in_any_object(value: object) -> None:
    """A URL object, bytes, an exception or a list that holds a tag is masked as its text is, and so is a message."""
    for text in (line("%s", value), line("%d %r", 5, value), line("%(it)s", {"it": value}), line(value)):
        assert "t" * 43 not in text
        assert "***" in text


def test_what_holds_no_tag_stays_as_it_is() -> None:
    """Numbers keep their type for the formatter, and an object without a text is left to logging."""
    assert "200 0.500 None ok" == line("%d %.3f %s %s", 200, 0.5, None, "ok")
    with pytest.raises(RuntimeError, match="it is closed"):
        line("%s", Broken())
