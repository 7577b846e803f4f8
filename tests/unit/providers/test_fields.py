"""The rules for fields: those of the engine at each vendor, and which provider takes which field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import pytest
from yarl import URL

from audioext.errors import UnsupportedError
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.providers import load
from audioext.providers._fields import EXTEND_LIMITS, V6_MODELS
from audioext.providers.base import Provider
from tests.support.tables import each_row
from tests.unit.providers.conftest import MakeProvider

CUSTOM = {"prompt": "p", "style": "s", "title": "t", "continue_at": 60.0}
OLD = {"prompt": 3000, "style": 200, "title": 80}
NEW = {"prompt": 5000, "style": 1000, "title": 100}
R = TypeVar("R", Extend, AddInstrumental)
LIMITS = {
    "V3_5": OLD,
    "V4": OLD,
    "V4_5": NEW,
    "V4_5PLUS": NEW,
    "V4_5ALL": {"prompt": 5000, "style": 1000, "title": 80},
    "V5": NEW,
    "V5_5": NEW,
    **dict.fromkeys(("V6", "V6_MINI", "V6_WILD"), NEW | {"lyrics": 5000}),
}
VENDORS = [load("kie"), load("sunoapi")]
MUSIC = [load("kie"), load("kie-jobs"), load("sunoapi")]


def by_id(**fields: object) -> Extend:
    """Return a valid request that extends a track by its id."""
    return valid(Extend.draft(**{"audio_id": "a1", "model": "V5", **fields}))


def uploaded(**fields: object) -> Extend:
    """Return a valid request that extends audio from elsewhere."""
    return valid(Extend.draft(**{"url": "https://files.example/a.mp3", "model": "V5", **fields}))


def instrumental(**fields: object) -> AddInstrumental:
    """Return a valid request for an instrumental."""
    least = {"url": "https://files.example/v.mp3", "title": "t", "tags": "a", "negative_tags": ""}
    return valid(AddInstrumental.draft(**{**least, **fields}))


def valid(request: R) -> R:
    """Return *request* after checking that it is valid in itself."""
    assert () == request.problems()
    return request


def provider_named(name: str) -> Provider:
    """Return the provider called *name*."""
    return load(name)()


def refused(provider: Provider, request: Request) -> set[str]:
    """Return the fields whose problems refuse *request*."""
    return {problem.field for problem in provider.check(request) if not problem.advice}


def advised(provider: Provider, request: Request) -> set[str]:
    """Return the fields with advice."""
    return {problem.field for problem in provider.check(request) if problem.advice}


@each_row("model", [10**5_000, ["V5"], b"V5"])
def test_a_model_that_is_no_text_is_left_to_the_request(model: object) -> None:
    """A provider's check raises nothing for a model of the wrong type, which the request itself reports."""
    draft = AddInstrumental.draft(url="https://files.example/v.mp3", title="t", tags="a", lyrics="la", model=model)
    assert () == provider_named("sunoapi").check(draft)
    assert "model" in {problem.field for problem in draft.problems()}


def test_a_field_that_is_not_taken_neither_excuses_nor_forbids_another() -> None:
    """`instrumental`, which vidgo does not take by id, is reported alone: prompt stays required, and may be given."""
    assert {"instrumental"} == refused(provider_named("vidgo"), by_id(**CUSTOM, instrumental=True))
    unsung = {name: value for name, value in CUSTOM.items() if name != "prompt"}
    assert {"instrumental", "prompt"} == refused(provider_named("vidgo"), by_id(**unsung, instrumental=True))


@each_row("made", MUSIC)
@each_row("model", [model for model in LIMITS if model not in V6_MODELS])
@each_row("make", [by_id, uploaded])
def test_each_model_has_its_own_lengths(made: MakeProvider, model: str, make: Callable[..., Extend]) -> None:
    """A text may be as long as its model allows, and not one character longer."""
    longest = {name: "x" * limit for name, limit in LIMITS[model].items()}
    assert set() == refused(made(), make(model=model, continue_at=9.0, **longest))
    too_long = {name: text + "x" for name, text in longest.items()}
    assert {"prompt", "style", "title"} == refused(made(), make(model=model, continue_at=9.0, **too_long))


@each_row("made", MUSIC)
def test_an_unknown_model_has_no_limits(made: MakeProvider) -> None:
    """A model that this release does not know has no limits."""
    assert () == tuple(made().check(by_id(**{**CUSTOM, "model": "V9_NEXT", "prompt": "x" * 20_000})))


@each_row("made", MUSIC)
@each_row("model", sorted(V6_MODELS))
def test_lengths_that_another_page_states_are_advice(made: MakeProvider, model: str) -> None:
    """V6's lengths, which only the page of the jobs route states, refuse there and are advice elsewhere."""
    is_stated = made().name == "kie-jobs"
    longest = {name: "x" * limit for name, limit in LIMITS[model].items() if is_stated or name != "lyrics"}
    too_long = {name: text + "x" for name, text in longest.items()}
    fine, wrong = (uploaded(model=model, continue_at=9.0, **texts) for texts in (longest, too_long))
    assert {"model"} >= {problem.field for problem in made().check(fine)}  # which other routes do not list
    assert longest.keys() == (refused if is_stated else advised)(made(), wrong) - {"model"}


def test_all_limits_are_of_known_models() -> None:
    """The lengths in these tests, copied from the vendors' pages, equal those of the module."""
    assert LIMITS == EXTEND_LIMITS


@each_row("made", VENDORS)
@pytest.mark.parametrize("given", CUSTOM)
def test_by_id_one_custom_field_needs_all_four(made: MakeProvider, given: str) -> None:
    """Extending by id, any of prompt, style, title and continue_at selects custom mode, which requires all four."""
    assert set(CUSTOM) - {given} == refused(made(), by_id(**{given: CUSTOM[given]}))


@each_row("made", VENDORS)
def test_by_id_nothing_is_needed_to_inherit(made: MakeProvider) -> None:
    """Extending by id without custom fields, or with `custom=False`, inherits the source's parameters."""
    assert set() == refused(made(), by_id())
    assert set() == refused(made(), by_id(continue_at=3.0, custom=False))
    assert set(CUSTOM) == refused(made(), by_id(custom=True))


@each_row("made", VENDORS)
def test_an_instrumental_extension_has_no_prompt(made: MakeProvider) -> None:
    """An instrumental extension by id forbids the prompt, and requires only the other three fields."""
    rest = {name: value for name, value in CUSTOM.items() if name != "prompt"}
    assert set() == refused(made(), by_id(instrumental=True, **rest))
    assert {"prompt"} == refused(made(), by_id(instrumental=True, **CUSTOM))
    assert {"vocal_gender"} == advised(made(), by_id(instrumental=True, vocal_gender="f", **rest))


@each_row("made", VENDORS)
def test_an_upload_is_custom_by_style_or_title_alone(made: MakeProvider) -> None:
    """For an upload, style or title select custom mode; prompt and continue_at alone do not."""
    assert set() == refused(made(), uploaded(prompt="p", continue_at=5.0))
    assert {"title"} == refused(made(), uploaded(style="s", continue_at=5.0)) - {"prompt"}
    assert {"style"} == refused(made(), uploaded(title="t", continue_at=5.0)) - {"prompt"}
    assert set() == refused(made(), uploaded(title="t", style="s", continue_at=5.0, instrumental=True))
    assert "continue_at" in refused(made(), uploaded(title="t", style="s", prompt="p"))


def test_a_missing_prompt_of_an_upload_is_only_advice_at_kie() -> None:
    """A missing prompt of an upload is only advice at kie.ai, whose page contradicts itself, and refused elsewhere."""
    sung = uploaded(style="s", title="t", continue_at=5.0)
    (advice,) = provider_named("kie").check(sung)
    assert ("prompt", True) == (advice.field, advice.advice)
    assert advice.message.startswith("may be required in custom mode")
    assert {"prompt"} == refused(provider_named("sunoapi"), sung)
    assert {"prompt"} == refused(provider_named("vidgo"), sung)


def test_the_message_names_what_switched_custom_mode_on() -> None:
    """The message says which field selected custom mode, and how to leave it."""
    found = {problem.field: problem.message for problem in provider_named("kie").check(by_id(title="t"))}
    assert "which title switched on (`custom=False` inherits from the source)" in found["prompt"]
    forced = {problem.field: problem.message for problem in provider_named("kie").check(by_id(custom=True))}
    assert "which custom=True switched on" in forced["title"]


@each_row(
    ("model", "meant"),
    [
        ("v5", "V5"),
        ("Suno V5", "V5"),
        ("V55", "V5_5"),
        ("v4.5-plus", "V4_5PLUS"),
        ("V6 mini", "V6_MINI"),
        ("5", "V5"),
        ("V4.5+", "V4_5PLUS"),
        ("V4_5PLSU", "V4_5PLUS"),
        ("V4_5AL", "V4_5ALL"),
        ("V6_WLD", "V6_WILD"),
        ("V7", None),
        ("V5_6", None),
        ("V6_PRO", None),
        ("V5X", None),
        ("chirp-crow", None),
    ],
)
def test_a_model_that_is_spelt_otherwise_is_refused_with_the_right_spelling(model: str, meant: str | None) -> None:
    """A misspelt model is refused with the right spelling; an unknown one may be new and is sent."""
    found = [problem for problem in provider_named("kie").check(by_id(model=model)) if problem.field == "model"]
    assert [(f"there is no {model!r}; did you mean {meant}?", False)] * (meant is not None) == [
        (problem.message, problem.advice) for problem in found
    ]


@each_row(("name", "needed"), [("kie", {"continue_at"}), ("sunoapi", set()), ("kie-jobs", set())])
def test_only_kie_needs_continue_at_for_any_upload(name: str, needed: set[str]) -> None:
    """kie.ai's upload route requires `continueAt` in either mode, and a missing one is reported once."""
    provider = provider_named(name)
    assert needed == refused(provider, uploaded())
    assert len(needed) == len(provider.check(uploaded()))


@pytest.mark.parametrize("made", VENDORS, ids=lambda made: made().name)
def test_a_persona_needs_custom_mode_but_does_not_select_it(made: MakeProvider) -> None:
    """A persona needs custom mode, but does not select it."""
    assert not by_id(persona_id="p1").is_custom
    assert {"persona_id"} == refused(made(), by_id(persona_id="p1"))
    assert set() == refused(made(), by_id(persona_id="p1", **CUSTOM))


def test_the_jobs_route_has_no_required_set() -> None:
    """kie.ai's jobs route has no custom mode, and takes any mix of the custom fields."""
    jobs = provider_named("kie-jobs")
    for name, value in CUSTOM.items():
        assert set() == refused(jobs, by_id(**{name: value}))
        assert set() == refused(jobs, uploaded(**{name: value}))
    assert set() == refused(jobs, by_id(persona_id="p1"))
    assert {"custom"} == refused(jobs, by_id(custom=True))
    sung = by_id(instrumental=True, lyrics="l", vocal_gender="m", audio_weight=0.5, prompt="p")
    assert {"lyrics", "vocal_gender", "audio_weight", "prompt"} == advised(jobs, sung)
    assert set() == refused(jobs, sung)


@each_row("made", MUSIC)
@each_row(
    ("model", "seconds", "fields"),
    [
        ("V5", 480.0, set()),
        ("V5", 480.5, {"source_duration"}),
        ("V4_5ALL", 60.0, set()),
        ("V4_5ALL", 60.5, {"source_duration"}),
        ("V9_NEXT", 481.0, {"source_duration"}),
    ],
)
def test_an_upload_may_last_eight_minutes(made: MakeProvider, model: str, seconds: float, fields: set[str]) -> None:
    """An upload may last 8 minutes, or 1 minute with V4_5ALL."""
    request = uploaded(model=model, continue_at=5.0, source_duration=seconds)
    assert fields == refused(made(), request)


@each_row("made", MUSIC)
def test_a_track_of_the_provider_may_last_longer(made: MakeProvider) -> None:
    """A provider's own tracks may be extended whatever their length."""
    assert set() == refused(made(), by_id(source_duration=700.0))


@each_row("made", MUSIC)
def test_extending_needs_a_model(made: MakeProvider) -> None:
    """Extending requires a model, adding an instrumental does not."""
    assert "model" in refused(made(), by_id(model=None))
    assert set() == refused(made(), instrumental())
    assert "V4_5PLUS" == made().info.sent_model(instrumental())
    assert "V5" == made().info.sent_model(by_id())


@each_row("made", MUSIC)
def test_a_known_model_that_is_not_listed_is_advice(made: MakeProvider) -> None:
    """V3_5, a known model that is no longer listed, is sent with advice."""
    request = by_id(model="V3_5")
    assert {"model"} == advised(made(), request)
    assert set() == refused(made(), request)


@each_row(
    ("name", "model", "fields"),
    [
        ("kie", "V4", {"model"}),
        ("kie", "V6_MINI", set()),
        ("kie", "V5_5", set()),
        ("kie-jobs", "V6", set()),
        ("kie-jobs", "V4_5", {"model"}),
        ("sunoapi", "V6_WILD", set()),
        ("sunoapi", "V4", set()),
    ],
)
def test_instrumentals_have_models_of_their_own(name: str, model: str, fields: set[str]) -> None:
    """Each vendor has its own list of models for instrumentals."""
    provider = provider_named(name)
    request = AddInstrumental(url="https://files.example/v.mp3", title="t", tags="a", negative_tags="", model=model)
    assert fields == advised(provider, request)
    assert set() == refused(provider, request)


@each_row(
    ("name", "fields", "found"),
    [
        ("sunoapi", {"title": "x" * 101}, (set(), {"title"})),
        ("sunoapi", {"tags": "x" * 3000, "negative_tags": "x" * 3000}, (set(), set())),
        ("sunoapi", {"lyrics": "x" * 5001, "model": "V6"}, ({"lyrics"}, set())),
        ("sunoapi", {"lyrics": "x" * 5001, "model": "V5"}, (set(), {"lyrics"})),
        ("sunoapi", {"lyrics": "la"}, (set(), {"lyrics"})),  # V4_5PLUS is sent
        ("sunoapi", {"lyrics": "la", "model": "V7"}, (set(), set())),
        ("kie", {"title": "x" * 101, "tags": "x" * 1001}, ({"tags"}, {"title"})),
        ("kie-jobs", {"negative_tags": "x" * 201}, ({"negative_tags"}, set())),
    ],
)
def test_instrumentals_have_lengths_of_their_own(
    name: str, fields: dict[str, str], found: tuple[set[str], set[str]]
) -> None:
    """A length on a vendor's own page refuses an instrumental's text, one from third parties is advice."""
    provider = provider_named(name)
    request = instrumental(**fields)
    assert found == (refused(provider, request), advised(provider, request))


@each_row("made", MUSIC)
@each_row(("word", "letter"), [("m", "m"), ("f", "f"), ("male", "m"), ("female", "f")])
def test_gender_words_become_letters(made: MakeProvider, word: str, letter: str) -> None:
    """A gender may be given as a word or a letter, and is sent as a letter."""
    provider = made("k")
    assert set() == refused(provider, by_id(vocal_gender=word))
    body = provider.build_submit(by_id(vocal_gender=word), None).body
    assert f'ender":"{letter}"'.encode() in (body or b"")


@each_row("made", [*MUSIC, load("vidgo")])
@each_row("name", ["style_weight", "weirdness_constraint", "audio_weight"])
def test_a_weight_goes_out_with_two_decimals(made: MakeProvider, name: str) -> None:
    """A weight is sent with two decimals, without the noise of float arithmetic."""
    body = made("k").build_submit(by_id(**CUSTOM, **{name: 0.1 + 0.2}), URL("https://bot.example/h")).body
    assert [b"0.3"] == re.findall(rb"0\.3[0-9]*", body or b"")


@each_row("made", MUSIC)
def test_neutral_and_s3_are_refused_with_a_hint_at_musicgpt(made: MakeProvider) -> None:
    """A value that only MusicGPT takes is refused elsewhere, with a message that names MusicGPT."""
    request = uploaded(continue_at=5.0, vocal_gender="neutral")
    assert ["musicgpt" in problem.message for problem in made().check(request)] == [True]
    bucket = Extend(url="s3://bucket/a.mp3", model="V5", continue_at=5.0)
    assert {"url"} == refused(made(), bucket)


def test_a_refused_field_names_the_providers_that_take_it() -> None:
    """The message for a field that is not taken names the providers that take it."""
    kie = provider_named("kie")
    found = [str(problem) for problem in kie.check(by_id(lyrics="la", num_outputs=2))]
    assert [
        "lyrics: kie does not take it; kie-jobs and musicgpt do",
        "num_outputs: kie does not take it; musicgpt does",
    ] == sorted(found)


def test_a_missing_operation_names_the_providers_that_have_it() -> None:
    """The error for an operation or id that MusicGPT does not take names the four providers that do."""
    for request in (instrumental(), by_id()):
        with pytest.raises(UnsupportedError, match="kie, kie-jobs, sunoapi and vidgo have it"):
            provider_named("musicgpt").check(request)
    assert {"continue_at"} == refused(provider_named("musicgpt"), uploaded(model=None))


def test_a_field_that_no_provider_takes_says_so() -> None:
    """The message for a field that no provider takes in this case says so."""
    found = provider_named("kie").check(by_id(rehost=True))
    assert [("rehost", "kie does not take it; no provider does when extending by audio_id")] == [
        (problem.field, problem.message) for problem in found
    ]
