"""Requests are frozen, and report all problems at once on construction, in the user's own names."""

from __future__ import annotations

import enum
import inspect
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.errors import LONGEST_VALUE
from audioext.models.checks import GENDERS
from audioext.models.requests import AudioFile, ExtendOptions, InstrumentalOptions
from tests.support.tables import each_row

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.just("\ud800"),
)


@pytest.mark.parametrize("kind", [ax.Extend, ax.AddInstrumental])
@given(data=st.data())
def test_problems_never_raises(kind: type[ax.Extend | ax.AddInstrumental], data: st.DataObject) -> None:
    """`draft` and `problems` never raise, whatever the values, and a constructed request has no problem."""
    fields = {a.name: data.draw(anything) for a in attrs.fields(kind) if data.draw(st.booleans())}

    problems = kind.draft(**fields).problems()
    assert all(problem.field and problem.message for problem in problems)
    if problems:
        with pytest.raises(ax.RequestError):
            kind(**fields)
    else:
        assert kind.draft(**fields) == kind(**fields)


@each_row(
    ("fields", "field"),
    [
        ({}, "source"),
        ({"audio_id": "a", "url": "https://x.test/a"}, "source"),
        ({"audio_id": ""}, "audio_id"),
        ({"url": "ftp://x.test/a"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://[bad"}, "url"),
        ({"url": "https://x.test:99999/a"}, "url"),
        ({"url": "https://x.test\\y/a", "rehost": True}, "url"),
        ({"url": "https://x.test/a b"}, "url"),
        ({"file": 5}, "file"),
        ({"audio_id": "a", "continue_at": 0}, "continue_at"),
        ({"audio_id": "a", "continue_at": float("nan")}, "continue_at"),
        ({"audio_id": "a", "continue_at": True}, "continue_at"),
        ({"audio_id": "a", "continue_at": 9, "source_duration": 9}, "continue_at"),
        ({"audio_id": "a", "source_duration": -1}, "source_duration"),
        ({"audio_id": "a", "style_weight": 0.555}, "style_weight"),
        ({"audio_id": "a", "audio_weight": 1.01}, "audio_weight"),
        ({"audio_id": "a", "weirdness_constraint": "0.5"}, "weirdness_constraint"),
        ({"audio_id": "a", "vocal_gender": "x"}, "vocal_gender"),
        ({"audio_id": "a", "num_outputs": 3}, "num_outputs"),
        ({"audio_id": "a", "variety": 5}, "variety"),
        ({"audio_id": "a", "persona_model": "style_persona"}, "persona_model"),
        ({"audio_id": "a", "prompt": "\ud800"}, "prompt"),
        ({"audio_id": "a", "instrumental": "yes"}, "instrumental"),
        ({"audio_id": "a", "model": ""}, "model"),
        ({"audio_id": "a", "model": " "}, "model"),
        ({"audio_id": " "}, "audio_id"),
        ({"audio_id": "1f2e\n"}, "audio_id"),
        ({"audio_id": "a", "persona_id": "\t"}, "persona_id"),
    ],
)
def test_each_rule_names_its_field(fields: dict[str, object], field: str) -> None:
    """Each broken rule is one problem, under its field's name."""
    assert [field] == [problem.field for problem in ax.Extend.draft(**fields).problems()]


def test_a_url_with_white_space_is_told_how_to_write_it() -> None:
    """A URL that was pasted with a space or a line break in it is refused with the way to write that."""
    for url in ("https://x.test/a b.mp3", "https://x.test/a.mp3\n"):
        (problem,) = ax.Extend.draft(url=url).problems()
        assert f"has white space in it, where a space is written `%20`: {url!r}" == problem.message


@each_row(("kind", "options"), [(ax.Extend, ExtendOptions), (ax.AddInstrumental, InstrumentalOptions)])
def test_the_options_are_the_fields(kind: type[ax.Extend | ax.AddInstrumental], options: type) -> None:
    """The keyword arguments that type checkers see equal the fields of the request, in name and type."""
    source = AudioFile | None  # a path becomes a `Path`
    fields = {a.name: source if a.name == "file" else get_type_hints(kind)[a.name] for a in attrs.fields(kind)}
    assert get_type_hints(options) == fields
    assert all(callable(a.metadata["check"]) for a in attrs.fields(kind))


@each_row("kind", [ax.Extend, ax.AddInstrumental])
def test_the_help_of_a_request_describes_each_field(kind: type[ax.Extend | ax.AddInstrumental]) -> None:
    """`help(ax.Extend)` has a line for each field, in the order of the signature."""
    lines = (inspect.getdoc(kind) or "").splitlines()
    listed = lines[lines.index("Args:") + 1 : lines.index("Raises:") - 1]

    assert [*inspect.signature(kind).parameters] == [line.split(":")[0].strip() for line in listed]


LONG = 5_000
huge = st.one_of(
    st.text(min_size=1, max_size=9).map(lambda text: text * LONG),
    st.binary(min_size=1, max_size=9).map(lambda data: data * LONG),
    st.binary(min_size=1, max_size=9).map(lambda data: bytearray(data * LONG)),
    st.binary(min_size=1, max_size=9).map(lambda data: [data] * LONG),
    st.integers(min_value=1, max_value=9).map(lambda digit: digit * 10**LONG),
    st.integers(min_value=1, max_value=9).map(lambda digit: -digit * 10**LONG),
    st.text(min_size=1, max_size=9).map(lambda text: {text * LONG: text}),
    st.text(alphabet="abc/", min_size=1, max_size=9).map(lambda text: Path(f"a{text}" * LONG)),
    st.text(alphabet="abc", min_size=1, max_size=9).map(lambda name: type(name * LONG, (), {})),
    st.text(alphabet="abc", min_size=1, max_size=9).map(lambda name: type(name * LONG, (), {})()),
)


@pytest.mark.parametrize("kind", [ax.Extend, ax.AddInstrumental])
@given(data=st.data())
def test_no_message_repeats_a_long_value(kind: type[ax.Extend | ax.AddInstrumental], data: st.DataObject) -> None:
    """No problem quotes a long value in full, in any field and of any type, at any provider."""
    names = data.draw(st.sets(st.sampled_from([a.name for a in attrs.fields(kind)]), min_size=1, max_size=3))
    draft = kind.draft(**{name: data.draw(huge) for name in names})

    problems = [*draft.problems()]
    for provider in (ax.Kie("k"), ax.KieJobs("k"), ax.SunoApi("k"), ax.Vidgo("k"), ax.MusicGpt("k")):
        with suppress(ax.UnsupportedError):
            problems += provider.check(draft)

    assert [] == [problem for problem in problems if len(problem.message) > LONGEST_VALUE + 140]


class Word(str, enum.Enum):  # noqa: UP042 - whose str() is another text
    """A program's own names for what it sends; their `str()` is not their value."""

    MODEL = "V5_5"
    WHO = "male"
    WORDS = "la la"


class Second(float):
    """A number of another library, as `numpy.float64` is one."""


class Choice(enum.IntEnum):
    """A number with a name."""

    ONE = 1


@each_row("make", [ax.Extend, ax.Extend.draft])
def test_enums_and_other_subclasses_are_the_text_or_number_that_they_hold(make: Callable[..., ax.Extend]) -> None:
    """A request holds exact texts and numbers, which every provider and store can encode."""
    given = {"model": Word.MODEL, "vocal_gender": Word.WHO, "prompt": Word.WORDS}
    request = make(url="https://x.test/a", continue_at=Second(60.5), num_outputs=Choice.ONE, instrumental=True, **given)

    held = request.given()
    assert [("V5_5", str), ("male", str), ("la la", str)] == [(held[name], type(held[name])) for name in given]
    numbers = [(held[name], type(held[name])) for name in ("continue_at", "num_outputs", "instrumental")]
    assert [(60.5, float), (1, int), (True, bool)] == numbers


@each_row("field", [a.name for a in attrs.fields(ax.Extend)])
def test_bytes_in_the_wrong_place_are_a_problem(field: str) -> None:
    """Bytes are a problem in every field but `file`."""
    problems = ax.Extend.draft(**{field: b"\xff" * 5_000}).problems()
    assert (field != "file") == (field in {problem.field for problem in problems})


def test_a_request_shows_only_what_was_given() -> None:
    """The repr of a request is the call that makes it, without the fields that were left out."""
    assert "Extend(model='V5', audio_id='1f2e', continue_at=60)" == repr(
        ax.Extend(audio_id="1f2e", model="V5", continue_at=60)
    )


def test_a_request_does_not_show_a_whole_file() -> None:
    """The repr of a request cuts the bytes of its file."""
    assert len(repr(ax.Extend(file=b"\xff" * 5_000))) < 1_000


def test_a_field_that_does_not_exist_is_named_with_the_one_that_was_meant() -> None:
    """A misspelt field raises an error with the right name, or with all names if none is close."""
    with pytest.raises(TypeError, match=r"Extend has no field modle; did you mean model\?"):
        ax.Extend.draft(modle="V5")
    with pytest.raises(TypeError, match=r"AddInstrumental has no field modle; did you mean model\?"):
        ax.AddInstrumental(modle="V5")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(TypeError, match=r"AddInstrumental has no field style; its wanted styles are tags"):
        ax.AddInstrumental(style="Piano")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(TypeError, match=r"Extend has no field tags; its wanted style is style"):
        ax.Extend.draft(tags="piano")
    with pytest.raises(TypeError, match=r"Extend has no field qqqqq.{0,99}; it has audio_id, audio_weight, "):
        ax.Extend.draft(**{"q" * 5_000: 1})


def test_a_positional_source_is_refused() -> None:
    """A positional argument is refused, since a text may be a path, a URL or an id."""
    says = r"Extend takes its arguments by name: give the source as audio_id= or url= or file=, not 'voice\.mp3' alone"
    with pytest.raises(TypeError, match=says):
        ax.Extend("voice.mp3")  # type: ignore[call-arg]  # wrong on purpose


class Upload:
    """An upload as in web frameworks, whose `read` is a coroutine function."""

    async def read(self, size: int = -1) -> bytes:
        """Return some bytes."""
        return b"" * size


@each_row(
    ("file", "says"),
    [
        ("https://x.test/a.mp3", "give it as `url=`"),
        ("HTTP://x.test/a.mp3", "give it as `url=`"),
        ("s3://bucket/a.mp3", "give it as `url=`"),
        ("file:///home/me/a.wav", "give a path"),
        ("", "must be a path, bytes or a binary file object"),
        (5, "must be a path, bytes or a binary file object"),
        (io.BytesIO, "must be a path, bytes or a binary file object"),
        (io.StringIO("text"), "must be opened as bytes"),
        (Upload(), "give the bytes"),
    ],
)
def test_a_wrong_file_says_what_to_give(file: Any, says: str) -> None:
    """A `file` that is a URL, text or an asynchronous upload is a problem that says what to give instead."""
    (problem,) = ax.Extend.draft(file=file).problems()
    assert ("file", True) == (problem.field, says in problem.message)


def test_a_url_is_not_an_audio_id() -> None:
    """A URL as `audio_id` is a problem that names the right field."""
    (problem,) = ax.Extend.draft(audio_id="https://x.test/a.mp3").problems()
    assert ("audio_id", "is a URL: give it as `url=`, not 'https://x.test/a.mp3'") == (
        problem.field,
        problem.message,
    )


@each_row("file", ["a.wav", Path("C:/a.wav"), "C:\\songs\\a.wav", b"RIFF", bytearray(b"RIFF"), io.BytesIO()])
def test_a_file_may_be_a_path_bytes_or_an_object(file: Any) -> None:
    """A file may be a path, even with a drive letter, bytes or a binary file object."""
    assert () == ax.Extend.draft(file=file).problems()


def test_a_path_of_bytes_is_a_path(tmp_path: Path) -> None:
    """A path as `os.scandir` gives it for a folder named in bytes is a path, not the bytes of a file."""
    (tmp_path / "a.wav").touch()
    with os.scandir(os.fsencode(tmp_path)) as entries:
        (entry,) = entries

    assert tmp_path / "a.wav" == ax.Extend(file=entry).path  # type: ignore[arg-type]  # the annotation is for texts


@each_row("weight", [0, 1, 0.01, 0.65, 0.29, 0.07])
def test_weights_in_steps_of_a_hundredth_pass(weight: float) -> None:
    """A weight that a float cannot hold exactly still counts as a step of 0.01."""
    assert weight == ax.Extend(audio_id="a", style_weight=weight).style_weight


@each_row(
    ("fields", "custom"),
    [
        ({"audio_id": "a"}, False),
        ({"audio_id": "a", "prompt": ""}, True),
        ({"audio_id": "a", "continue_at": 1}, True),
        ({"audio_id": "a", "persona_id": "p"}, False),
        ({"audio_id": "a", "prompt": "x", "custom": False}, False),
        ({"url": "https://x.test/a", "prompt": "x", "continue_at": 1}, False),
        ({"url": "https://x.test/a", "style": "x"}, True),
        ({"url": "https://x.test/a", "custom": True}, True),
    ],
)
def test_custom_mode_is_derived(fields: dict[str, object], custom: bool) -> None:
    """Custom mode follows from the given fields, other ones by id than for uploads, unless `custom` is given."""
    assert custom is ax.Extend.draft(**fields).is_custom


def test_a_request_is_frozen_and_says_what_was_given() -> None:
    """A request is frozen, its paths are `Path` objects, and `given` leaves out what is `None`."""
    request = ax.Extend(file="a.wav", title="")

    assert {"file": Path("a.wav"), "title": ""} == request.given()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.title = "b"  # type: ignore[misc]  # this has to fail


def test_an_unknown_field_is_a_type_error() -> None:
    """An unknown field raises `TypeError`, with the known ones."""
    with pytest.raises(TypeError, match="continue_at"):
        ax.Extend.draft(continueAt=1)


def test_an_instrumental_needs_its_texts() -> None:
    """An instrumental's three missing texts are reported at once."""
    fields = [problem.field for problem in ax.AddInstrumental.draft(url="https://x.test/a").problems()]

    assert ["title", "tags", "negative_tags"] == fields
    assert ax.Operation.ADD_INSTRUMENTAL is ax.AddInstrumental.draft().operation
    assert ("m", "f", "male", "female", "neutral") == GENDERS


def test_a_track_without_id_or_with_a_url_provider_extends_by_url() -> None:
    """`track.extend` uses the id if the provider does and there is one, else the audio URL."""
    track = ax.Track(id="one", audio_url="https://x.test/a.mp3", provider="kie", model="V5", duration=20.0)

    assert ("one", "V5", "kie", 20.0) == (
        (by_id := track.extend(continue_at=3)).audio_id,
        by_id.model,
        by_id.provider,
        by_id.source_duration,
    )
    assert "https://x.test/a.mp3" == attrs.evolve(track, extends_by_id=False).extend().url
    assert "https://x.test/a.mp3" == attrs.evolve(track, id=None).extend().url
    with pytest.raises(ax.RequestError, match="below"):
        track.extend(continue_at=20)
    with pytest.raises(ax.RequestError, match="source"):
        ax.Track().extend()


async def test_a_song_made_by_hand_cannot_download() -> None:
    """Saving a song that no client made raises `ConfigError`."""
    with pytest.raises(ax.ConfigError, match="not made by a client"):
        await ax.Song(ref="r", provider="kie", task_id=None, tracks=()).save()
