"""How a command ends: by Ctrl-C, by a defect, and what is said then."""

from __future__ import annotations

import json

import pytest

import audioext as ax
from audioext.cli.exits import Exit
from audioext.cli.options import OutputOptions
from audioext.cli.screen import Screen, WayBack
from audioext.cli.session import execute

REF = "r" * 24


@pytest.mark.parametrize(
    ("ref", "way_back", "words"),
    [
        (None, WayBack(), "if a task was submitted, it goes on: audioext jobs --open lists it"),
        (REF, WayBack(options=" --store x"), f"Come back to it: audioext wait {REF} --store x"),
        (REF, WayBack(is_kept=False), "was in memory only"),
        (REF, WayBack(sandbox=True), "the sandbox has ended"),
    ],
)
def test_an_interruption_says_what_becomes_of_the_task(
    capsys: pytest.CaptureFixture[str], ref: str | None, way_back: WayBack, words: str
) -> None:
    """The way back is told where there is one, and that there is none where there is none."""

    async def work(screen: Screen) -> Exit:
        screen.ref, screen.way_back = ref, way_back
        raise KeyboardInterrupt

    assert 130 == execute(OutputOptions(), work)
    assert words in capsys.readouterr().err
    assert 130 == execute(OutputOptions(json=True), work)
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in error["message"]
    assert ref == error["ref"]


def test_a_defect_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that is none of ours ends with 1, and says how to see where it was."""

    async def work(screen: Screen) -> Exit:
        message = "surprise"
        raise LookupError(message)

    assert 1 == execute(OutputOptions(), work)
    expected = "audioext: LookupError: surprise (a defect in audioext; --debug shows where)\n"
    assert expected == capsys.readouterr().err


@pytest.mark.parametrize(
    ("way_back", "words"),
    [
        (WayBack(), f"the job is complete; fetch it again: audioext save {REF}"),
        (
            WayBack(sandbox=True, options=" --sandbox"),
            "what a sandbox made ends with the command that ran it: extend again, which saves the takes at once",
        ),
    ],
)
def test_a_lost_file_says_how_to_fetch_it_again(
    capsys: pytest.CaptureFixture[str], way_back: WayBack, words: str
) -> None:
    """The files of a real API can be fetched again, those of a sandbox that has ended cannot."""

    async def work(screen: Screen) -> Exit:
        screen.ref, screen.way_back = REF, way_back
        raise ax.DownloadError(["take 1: gone"])

    assert 7 == execute(OutputOptions(), work)
    assert f"audioext: take 1: gone\n  {words}\n" == capsys.readouterr().err


def test_other_trouble_has_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal says all there is to say; there is no job to come back to."""

    async def work(screen: Screen) -> Exit:
        screen.ref = REF
        message = "no such setting"
        raise ax.ConfigError(message)

    assert 2 == execute(OutputOptions(), work)
    assert "audioext: no such setting\n" == capsys.readouterr().err
