"""`audioext demo` is a newcomer's first command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioext.sandbox import audio
from tests.integration.cli.conftest import Invoke, on_terminal


def test_demo_shows_the_trip_and_saves_two_longer_tracks(invoke: Invoke) -> None:
    """Text, first and complete arrive by webhook; both files are longer than the tune."""
    ended = invoke("demo", "--speed", "1000")

    assert 0 == ended.code
    stages = [line.split() for line in ended.err.splitlines() if " by webhook" in line]
    assert ["text", "first", "complete"] == [line[0] for line in stages]
    assert all(re.fullmatch(r"\+\d+(\.\d)?", line[1]) for line in stages)
    tune = soundfile.info("audioext-demo/tune.mp3").duration
    tracks = [path for path in Path("audioext-demo").glob("*.mp3") if path.name != "tune.mp3"]
    assert 2 == len(tracks)
    assert all(soundfile.info(track).duration > tune + 15 for track in tracks)
    assert 2 == len(re.findall(r"tune extended +4\d\.\d s", ended.out))
    assert "audioext extend audioext-demo/tune.mp3 --out audioext-demo --continue-at 16 --provider kie" in ended.err
    assert "audioext guide" in ended.err


def test_demo_takes_the_users_own_mp3(invoke: Invoke, folder: Path) -> None:
    """An MP3 with an awkward name is uploaded and extended, and the JSON has the stages, tracks and files."""
    own = folder / "mine [red] & yours.mp3"
    clip = audio.tune(seed=5, seconds=9.0, rate=16_000)
    soundfile.write(own, clip.samples, clip.rate, format="MP3")

    ended = invoke("demo", own, "--json", "--speed", "10000", "--out", "made")

    shown = ended.json
    assert 0 == ended.code
    assert "mine [red] & yours.mp3" == shown["source"]
    assert ["text", "first", "complete"] == [stage["stage"] for stage in shown["stages"]]
    assert {"webhook"} == {stage["source"] for stage in shown["stages"]}
    assert 2 == len(shown["files"])
    for track, file in zip(shown["tracks"], shown["files"], strict=True):
        assert track["duration"] > 9 + 15
        assert track["duration"] == pytest.approx(soundfile.info(file).duration, abs=0.1)


@pytest.mark.parametrize("provider", ["vidgo", "musicgpt"])
def test_demo_runs_on_the_other_apis(invoke: Invoke, voice: Path, provider: str) -> None:
    """The demo also runs where the provider fetches the file from our receiver, and where the submit contains it."""
    ended = invoke("demo", voice, "--provider", provider, "--speed", "10000", "--out", "my demo")

    assert 0 == ended.code
    assert 2 == len([*Path("my demo").iterdir()])
    model = " --model V5" if provider == "vidgo" else ""
    assert f"--out 'my demo' --continue-at 3.2 --provider {provider}{model} --sandbox" in ended.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch.mp3", "there is no file"),
        ("text.mp3", "not an audio file"),
        (".", ". is a folder: name a file in it"),
        ("https://a.test/song.mp3", "is a URL: download it, and name the file"),
        ("one.wav", "one.wav is too short to be continued: 0.0001 s"),
    ],
)
def test_demo_refuses_sources_that_are_not_audio(invoke: Invoke, folder: Path, name: str, words: str) -> None:
    """A missing file, a text, a folder, a URL and a single sample are each refused in one sentence with exit code 2."""
    (folder / "text.mp3").write_bytes(b"not audio at all")
    soundfile.write(folder / "one.wav", np.zeros(1), 8_000)

    ended = invoke("demo", name)

    assert 2 == ended.code
    assert words in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("seconds", [0.05, 6.0])
def test_demo_runs_on_silence_and_on_a_click(invoke: Invoke, folder: Path, seconds: float) -> None:
    """A silent recording and a very short one are extended like any other."""
    soundfile.write(folder / "quiet.wav", np.zeros(round(16_000 * seconds)), 16_000)

    ended = invoke("demo", "quiet.wav", "--speed", "100000")

    assert 0 == ended.code
    assert 2 == ended.out.count("quiet extended  ")


def test_demo_takes_files_with_awkward_names(invoke: Invoke, folder: Path, voice: Path) -> None:
    """A name like an option comes behind `--` in the printed command, and a name that is not UTF-8 gives a title."""
    (folder / "-x.wav").write_bytes(voice.read_bytes())
    (folder / "caf\udce9.wav").write_bytes(voice.read_bytes())

    option, latin = (invoke("demo", "--speed", "100000", "--", name) for name in ("-x.wav", "caf\udce9.wav"))

    assert (0, 0) == (option.code, latin.code)
    assert re.search(r"audioext extend --out audioext-demo .*--sandbox -- -x\.wav$", option.err, re.MULTILINE)
    assert 2 == latin.out.count("caf? extended")


def test_demo_says_when_its_folder_cannot_be_written(invoke: Invoke, folder: Path) -> None:
    """A file in place of the output folder is refused in one sentence, and so is a dead link."""
    (folder / "taken").write_text("")
    (folder / "dead").symlink_to("nowhere/at/all")

    for out in ("taken", "dead"):
        refused = invoke("demo", "--out", out)
        assert 2 == refused.code
        assert f"no files can be saved in {out}: {folder / out} is not a folder" in refused.err


def test_demo_is_live_on_a_terminal(voice: Path) -> None:
    """On a terminal the demo shows ticks, colours and a spinner, and only the lines remain."""
    shown = on_terminal(120, "demo", str(voice), "--speed", "100")

    assert "waiting for complete" in shown
    assert "\x1b[32m✔ " in shown
    assert 2 == shown.partition("duration")[2].count("voice extended  ")
