"""The fault script: how faults are written, and to which tasks they apply."""

import pytest

from audioext.sandbox import Fault, FaultError, FaultKind, Sandbox
from audioext.sandbox.faults import Plan
from tests.support.tables import each_row


@each_row(
    "text",
    [
        "duplicate",
        "drop",
        "drop=text",
        "drop=lyrics",
        "delay=complete:5",
        "delay=first:0.5",
        "reorder",
        "callback_before_response",
        "lose_response",
        "lose_response=half",
        "lose_response=unmade",
        "bad_signature",
        "error",
        "error=complete",
        "error=first:501",
        "http=503",
        "http=502:made",
        "code=455",
        "empty_audio",
        "same_audio",
        "callback_exception",
        "callback_exception=without",
        "expire_links",
        "expire_links=90",
        "duplicate%30",
        "duplicate*2",
        "duplicate@Part *",
        "drop=text%30*2@Part @ *",
    ],
)
def test_a_fault_is_written_as_it_was_read(text: str) -> None:
    """Writing a parsed fault gives its text again, for every fault and every condition."""
    assert text == str(Fault.parse(text))


@each_row(
    "text",
    [
        "",
        "explode",
        "duplicate=2",
        "drop=middle",
        "delay",
        "delay=text",
        "delay=text:soon",
        "error=middle",
        "error=text:bad",
        "http",
        "http=bad",
        "http=500:often",
        "code",
        "lose_response=twice",
        "callback_exception=maybe",
        "expire_links=soon",
        "duplicate%often",
    ],
)
def test_a_text_that_is_not_a_fault_is_refused(text: str) -> None:
    """A text that is not a fault raises `FaultError`, which is a `ValueError`."""
    with pytest.raises(FaultError):
        Fault.parse(text)


def test_a_mistyped_stage_is_answered_with_those_that_there_are() -> None:
    """A misspelt stage is answered with a list of all stages."""
    with pytest.raises(FaultError, match=r"'drop=firts' is not a fault; write drop\[=text\|first\|complete\|error\|"):
        Fault.parse("drop=firts")


def test_one_fault_may_be_given_alone() -> None:
    """A text in place of a list of texts is one fault, as `fallback="vidgo"` is one provider."""
    assert ("drop=text",) == Sandbox(faults="drop=text").scripted


def test_times_count_tasks() -> None:
    """A fault for two tasks applies to the next two, and is then removed."""
    sandbox = Sandbox(faults=["drop*2", "duplicate"])
    drawn = [[str(fault) for fault in sandbox.draw("any").faults] for _ in range(3)]
    assert [["drop*2", "duplicate"], ["drop*1", "duplicate"], ["duplicate"]] == drawn
    assert ("duplicate",) == sandbox.scripted


def test_a_title_pattern_chooses_tasks() -> None:
    """A fault with a title pattern skips all other tasks, which do not use it up."""
    sandbox = Sandbox()
    sandbox.script("drop", title="Part *", times=1)
    assert Plan() == sandbox.draw("Intro")
    assert sandbox.draw("Part 7").get(FaultKind.DROP) is not None
    assert Plan() == sandbox.draw("Part 8")


def test_a_faults_own_words_win_over_the_callers() -> None:
    """A title or a number of times in the fault's own text takes precedence over the arguments."""
    sandbox = Sandbox()
    sandbox.script("drop*3@A", "duplicate", title="B", times=1)
    assert ("drop*3@A", "duplicate*1@B") == sandbox.scripted


def test_a_bad_fault_adds_none() -> None:
    """If one of several texts is not a fault, none is added."""
    sandbox = Sandbox()
    with pytest.raises(FaultError):
        sandbox.script("duplicate", "explode")
    assert () == sandbox.scripted


def test_chance_is_the_same_in_each_run() -> None:
    """A fault with a chance applies to some of many tasks, to the same ones for the same seed."""
    alike = [Sandbox(faults=["drop%30"], seed=4) for _ in range(2)]
    first, second = ([bool(sandbox.draw("").faults) for _ in range(200)] for sandbox in alike)
    assert first == second
    assert 30 < sum(first) < 90


def test_a_stage_is_found_by_any_of_its_words() -> None:
    """A fault without a stage applies to every webhook, one with a stage to those that have its word."""
    everywhere, text = Plan((Fault.parse("drop"),)), Plan((Fault.parse("drop=text"),))
    assert everywhere.get(FaultKind.DROP, ("first",)) is not None
    assert text.get(FaultKind.DROP, ("cover", "text")) is not None
    assert text.get(FaultKind.DROP, ("first",)) is None
