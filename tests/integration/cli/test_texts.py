"""How arguments on the command line are read, and how values are printed."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audioext.cli.clients import read_meta, read_source
from audioext.cli.screen import Screen, clean, dump, program, span
from audioext.errors import RequestError


def test_an_existing_file_is_a_file_whatever_its_name(folder: Path) -> None:
    """An existing file is a file, even if its name looks like an id."""
    (folder / "e231").write_text("x")

    assert {"file": Path("e231")} == read_source("e231", ids=True)


@pytest.mark.parametrize(
    "url",
    ["https://a.example/x.mp3", "HTTP://a.example/x", "s3://bucket/x.wav", "ftp://a.example/x.mp3", "https:/x.mp3"],
)
def test_a_text_with_a_scheme_is_a_url(url: str) -> None:
    """A source with any scheme, in any case, is a URL, which the request then checks."""
    assert {"url": url} == read_source(url, ids=True)


@pytest.mark.parametrize("text", ["nosuch.mp3", "folder/take", "take.WAV", "../x", "notes.txt", "."])
def test_a_misspelt_path_is_never_sent_as_an_id(text: str) -> None:
    """A source with a slash, a suffix or a folder is a path, so that it is reported as missing."""
    assert {"file": Path(text)} == read_source(text, ids=True)


def test_anything_else_is_an_id_where_ids_are_taken() -> None:
    """A source that is neither a file nor a URL is an id, except for an instrumental."""
    assert {"audio_id": "e231b6d8"} == read_source("e231b6d8", ids=True)
    assert {"file": Path("e231b6d8")} == read_source("e231b6d8", ids=False)


def test_a_command_names_itself_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints call the program by its bare name if the shell finds it, else by its path."""
    own, other = tmp_path / "own dir" / "audioext", tmp_path / "other" / "audioext"
    for path in (own, other):
        path.parent.mkdir()
        path.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(own)])

    monkeypatch.setenv("PATH", str(own.parent))
    assert "audioext" == program()
    for elsewhere in (other.parent, tmp_path):
        monkeypatch.setenv("PATH", str(elsewhere))
        assert f"'{own}'" == program()
    monkeypatch.setattr("sys.argv", ["/lib/audioext/__main__.py"])
    assert "python -m audioext" == program()


def test_meta_values_are_json_where_they_can_be() -> None:
    """A meta value is parsed as JSON if it can be, else it is text; the first equals sign splits."""
    found = read_meta(["chat=42", 'id="42"', "name=Ann", "deep=true", "sum=1=1", "empty="])

    assert {"chat": 42, "id": "42", "name": "Ann", "deep": True, "sum": "1=1", "empty": ""} == found


@pytest.mark.parametrize("pair", ["chat", "=42"])
def test_meta_without_a_name_or_a_value_is_a_problem(pair: str) -> None:
    """`--meta` without a name or a value is a problem."""
    with pytest.raises(RequestError, match="NAME=VALUE"):
        read_meta([pair])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.1, "0.0 s"),
        (0.42, "0.4 s"),
        (48.4, "48 s"),
        (123.0, "2 min 03 s"),
        (12_000.0, "3 h 20 min"),
        (190_800.0, "2 d 5 h"),
    ],
)
def test_times_are_as_long_as_they_need_to_be(value: float, words: str) -> None:
    """Times are printed with tenths for the first seconds, then as seconds, minutes, hours and days."""
    assert words == span(value)


def test_foreign_text_cannot_steer_a_terminal() -> None:
    """Escape sequences, line breaks and direction marks in a provider's text become spaces."""
    assert "[31mred   x" == clean("\x1b[31mred\r\n\u202ex")


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_foreign_text_in_json_cannot_steer_a_terminal(value: object) -> None:
    """JSON escapes characters that a terminal obeys or hides, and decodes to the original text."""
    line = dump({"value": value})

    assert line.isprintable()
    assert {"value": value} == json.loads(line)


def test_json_escapes_c1_bidi_and_what_lies_beyond_16_bits() -> None:
    """C1, bidi and astral characters are escaped in standard JSON notation."""
    assert r'{"a": "\u009b2J \u202egnp \u007f \udb40\udc01 é 音"}' == dump(
        {"a": "\x9b2J \u202egnp \x7f \U000e0001 é 音"}
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_any_encoding(encoding: str) -> None:
    """What the output's encoding lacks is escaped as JSON escapes it, not as Python does."""
    raw = io.BytesIO()
    to = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    value = {"title": "\x7f ü ☃ \U0001f3b5"}
    print(dump(value, to), file=to, flush=True)

    assert value == json.loads(raw.getvalue().decode(encoding))


def test_json_has_a_form_for_times_and_paths_and_for_nothing_else() -> None:
    """JSON has times as ISO 8601, paths as text and undecodable bytes readable; another type is a defect."""
    line = dump({"at": datetime(2026, 1, 2, tzinfo=UTC), "files": [Path("a/b"), "\udcff.mp3"], "é": 1})

    assert r'{"at": "2026-01-02T00:00:00+00:00", "files": ["a/b", "\\udcff.mp3"], "é": 1}' == line
    with pytest.raises(TypeError, match="not object"):
        dump({"x": object()})


def test_a_narrow_terminal_breaks_no_word_that_is_copied() -> None:
    """A table that is too wide is printed as a block for each row, so that refs and URLs are not wrapped."""
    shown, url = io.StringIO(), "http://files.example/" + "a" * 60
    screen = Screen(out=Console(file=shown, force_terminal=True, width=40, no_color=True, soft_wrap=True))

    screen.table(("ref", "state", "url"), [("r" * 24, "complete", url)])
    screen.table(("ref", "state"), [("r" * 24, "complete")])

    plain = re.sub(r"\x1b\[[\d;]*m", "", shown.getvalue())
    assert ["r" * 24, "  state  complete", f"  url    {url}"] == plain.splitlines()[:3]
    assert f"{'r' * 24}  complete" == plain.splitlines()[4]
